//! Taking a bundle: first all of it is checked and nothing stored, then it goes to the node part by part.
//!
//! Invariant: one pass over the file decides; a bundle that is damaged, cut off, too long, of strangers or not for this
//! server costs nothing but that pass. The second pass checks every part and the signature again, so that a file that
//! changes in between brings no byte in either. Memory: one part. Callers: http, daemon, the fuzzer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use super::bundle::{BundleError, Carried, check_part};
use super::bundle_lock::{FileKey, is_signed, tag, unlock};
use super::bundle_view::{BundleView, CarriedOrigin, CarriedTable, ImportView};
use super::exchange::Standing;
use super::genesis::GENESIS_INCARNATION;
use super::membership::{Membership, node_id};
use super::query::rfc3339;
use super::{Node, Now};
use crate::log::Log;
use crate::model::{Change, ClusterId, Event, Head, Heads, NodeId};
use crate::wire::bundle::{
    BundleFault, HEADER_CHECK_BYTES, Manifest, OPENING_BYTES, PART_HEAD_BYTES, PartKind, decode_events, decode_header,
    decode_manifest, decode_part_head, decode_seal, opening_length,
};
use crate::wire::decode_event;
use crate::wire::message::SignedEvent;

/// What a bundle is compared with: the node as it stood when this was made.
pub struct BundleCheck {
    key_seed: [u8; 32],
    /// `None`: this server belongs to no cluster yet, and enters the one that the bundle is of.
    membership: Option<Membership>,
    heads: Heads,
    /// When other servers last said what they hold, by their own clocks.
    stated_ms: BTreeMap<NodeId, u64>,
    log: Arc<Log>,
    now: Now,
}

/// A bundle that may be taken.
pub struct CheckedBundle {
    /// Who carries what.
    pub manifest: Manifest,
    /// The same for people, and what is new.
    pub view: BundleView,
}

impl Node {
    /// To check bundles beside the node.
    pub fn bundle_check(&self, now: Now) -> BundleCheck {
        BundleCheck {
            key_seed: self.settings.key_seed,
            membership: Some(self.membership.clone()),
            heads: self.heads.clone(),
            stated_ms: self.receipts.stated_ms(),
            log: self.log.clone(),
            now,
        }
    }
}

impl BundleCheck {
    /// For a server that asked to be admitted and belongs to no cluster yet: its log is empty.
    pub fn newcomer(key_seed: [u8; 32], log: Arc<Log>, now: Now) -> BundleCheck {
        BundleCheck { key_seed, membership: None, heads: Heads::new(), stated_ms: BTreeMap::new(), log, now }
    }

    /// Opens a bundle: header and manifest are read, sealed by whom it was locked for, not yet known to be signed.
    pub fn open<R: Read>(&self, source: R) -> Result<BundleParts<R>, BundleError> {
        let mut source = Counting { source, bytes: 0 };
        let first: [u8; OPENING_BYTES] = match source.fixed()? {
            Some(first) => first,
            None => return Err(BundleFault::NotABundle.into()),
        };
        let rest = source.exactly(opening_length(&first)?)?;
        let header = decode_header(&rest)?;
        if self.membership.as_ref().is_some_and(|known| tag(&known.cluster(), &header.nonce) != header.tag) {
            return Err(BundleError::OtherCluster);
        }
        let opening = [first.as_slice(), &rest].concat();
        debug_assert!(rest.len() >= HEADER_CHECK_BYTES);
        let key = unlock(&header, &self.key_seed).ok_or(BundleError::NotForUs)?.bind(&opening);
        let mut hash = blake3::Hasher::new();
        hash.update(&opening);
        let mut parts = BundleParts { source, key, hash, count: 0, manifest: None, cluster: ClusterId([0; 32]) };
        let (kind, plain) = parts.sealed()?.ok_or(BundleFault::Damaged("no manifest"))?;
        if kind != PartKind::Manifest {
            return Err(BundleFault::Damaged("no manifest").into());
        }
        let manifest = decode_manifest(&plain)?;
        let membership = self.membership_with(&manifest)?;
        if tag(&membership.cluster(), &header.nonce) != header.tag {
            return Err(BundleError::OtherCluster);
        }
        if !membership.may_connect(&manifest.exporter) {
            let key: String = manifest.exporter.to_string().chars().take(8).collect();
            return Err(BundleError::NotAMember(key));
        }
        parts.cluster = membership.cluster();
        parts.manifest = Some(manifest);
        Ok(parts)
    }

    /// Reads all of it, stores nothing. `all`: tables are counted over all events, not only the new ones.
    pub fn check(&self, source: impl Read, all: bool) -> Result<CheckedBundle, BundleError> {
        let mut parts = self.open(source)?;
        let manifest = parts.manifest().clone();
        let membership = self.membership_with(&manifest)?;
        let mut heads = self.heads.clone();
        let mut tables = TableCounts::new();
        let (mut events, mut new_events) = (0, 0);
        while let Some(part) = parts.next_part()? {
            events += part.len() as u64;
            if all {
                for signed in &part {
                    let event = decode_event(&signed.bytes).map_err(|_| BundleFault::Damaged("an event"))?;
                    count_tables(&mut tables, &event);
                }
            }
            let (log, now) = (self.log.as_ref(), self.now);
            let standing = Standing { log, heads: &heads, membership: &membership, name: "", applied_all: false, now };
            let (accepted, _) = check_part(part, manifest.exporter, &standing)?;
            for one in accepted {
                let header = &one.event.header;
                heads.insert(header.origin.id(), Head { origin: header.origin, seq: header.seq, hash: one.hash });
                new_events += 1;
                if !all {
                    count_tables(&mut tables, &one.event);
                }
            }
        }
        let mut view = self.view(&manifest, &membership);
        (view.bytes, view.events, view.new_events) = (parts.source.bytes, events, new_events);
        let table = |((database, table), (changes, inserts))| CarriedTable { database, table, changes, inserts };
        view.tables = tables.into_iter().map(table).collect();
        Ok(CheckedBundle { manifest, view })
    }

    /// Checks a bundle whole, then hands it to the node step by step (`give`: stores one step, says how many events were
    /// new). Cut off at any step, it goes on when it is called again. `news_only`: one that could bring nothing is not read.
    pub fn take(
        &self,
        source: &mut (impl Read + Seek),
        news_only: bool,
        give: &mut dyn FnMut(Carried) -> Result<u64, BundleError>,
    ) -> Result<ImportView, BundleError> {
        if news_only && !self.has_news(&mut *source)? {
            return Ok(ImportView { nothing_new: true, ..ImportView::default() });
        }
        source.seek(SeekFrom::Start(0)).map_err(read_failed)?;
        let checked = self.check(&mut *source, false)?;
        let mut taken = give(Carried::Members(checked.manifest.clone()))?;
        if checked.view.new_events > 0 {
            source.seek(SeekFrom::Start(0)).map_err(read_failed)?;
            let mut parts = self.open(&mut *source)?;
            while let Some(events) = parts.next_part()? {
                taken += give(Carried::Events(checked.manifest.exporter, events))?;
            }
        }
        give(Carried::Receipt(checked.manifest))?;
        Ok(ImportView { bundle: checked.view, taken, ..ImportView::default() })
    }

    /// Whether a bundle could bring something: by its manifest alone, so that a folder of old ones is soon read.
    fn has_news(&self, source: impl Read) -> Result<bool, BundleError> {
        let parts = self.open(source)?;
        let manifest = parts.manifest();
        if manifest.exporter == node_id(&self.key_seed) {
            return Ok(false);
        }
        let held = |range: &crate::wire::bundle::Range| self.heads.get(&range.origin).map_or(0, |head| head.seq);
        let members = self.membership_with(manifest)?.digest();
        Ok(manifest.ranges.iter().any(|range| range.through > held(range))
            || self.membership.as_ref().is_none_or(|known| known.digest() != members)
            || self.stated_ms.get(&manifest.exporter).is_none_or(|stated| *stated < manifest.created_ms))
    }

    /// The members as this node would know them with the bundle's records. Records that contradict what is known are
    /// dropped, as those of peers are.
    fn membership_with(&self, manifest: &Manifest) -> Result<Membership, BundleError> {
        let mut membership = match &self.membership {
            Some(membership) => membership.clone(),
            None => {
                let founder = manifest.members.iter().find(|record| record.cluster == [0; 32]);
                let founder = founder.ok_or(BundleFault::Damaged("no founder"))?;
                Membership::new(founder.clone()).map_err(|_| BundleFault::Damaged("the founder's record"))?
            }
        };
        for error in membership.add_all(manifest.members.clone()).1 {
            tracing::debug!(%error, "a member record of a bundle was dropped");
        }
        match self.membership.is_some() || membership.may_connect(&node_id(&self.key_seed)) {
            true => Ok(membership),
            false => Err(BundleError::NotForUs),
        }
    }

    /// What the manifest says, for people.
    fn view(&self, manifest: &Manifest, membership: &Membership) -> BundleView {
        let name = |node: &NodeId| match membership.member(node) {
            Some(member) => member.name.clone(),
            None => node.to_string().chars().take(8).collect(),
        };
        let known = |node: &NodeId| self.membership.as_ref().is_some_and(|known| known.member(node).is_some());
        let mut origins = Vec::new();
        let mut gaps = Vec::new();
        let mut gapped = BTreeSet::new();
        for range in &manifest.ranges {
            let head = manifest.heads.iter().find(|head| head.origin.id() == range.origin);
            let author = head.map_or_else(String::new, |head| match head.origin.incarnation {
                GENESIS_INCARNATION => "genesis".to_string(),
                _ => name(&head.origin.node),
            });
            let held = self.heads.get(&range.origin).map_or(0, |head| head.seq);
            if held < range.after && gapped.insert(range.origin) {
                let after = range.after;
                gaps.push(format!(
                    "this bundle begins after event {after} of {author}, and this server holds {held}: also import an older \
                     one, then this one again"
                ));
            }
            let (origin, after, through) = (range.origin.to_string(), range.after, range.through);
            origins.push(CarriedOrigin { origin, node: author, after, through, held });
        }
        let new_members = membership.members().into_iter().filter(|member| !known(&member.node));
        BundleView {
            path: String::new(),
            exporter: name(&manifest.exporter),
            exporter_id: manifest.exporter.to_string(),
            cluster_id: data_encoding::HEXLOWER.encode(&membership.cluster().0),
            cluster: membership.cluster_name().to_string(),
            created: rfc3339(manifest.created_ms),
            made_for: manifest.made_for.map(|node| name(&node)).unwrap_or_default(),
            new_members: new_members.map(|member| member.name.clone()).collect(),
            origins,
            gaps,
            ..BundleView::default()
        }
    }
}

/// The parts of an open bundle, one after the other.
pub struct BundleParts<R: Read> {
    source: Counting<R>,
    key: FileKey,
    hash: blake3::Hasher,
    count: u64,
    manifest: Option<Manifest>,
    cluster: ClusterId,
}

impl<R: Read> BundleParts<R> {
    /// Who carries what.
    pub fn manifest(&self) -> &Manifest {
        self.manifest.as_ref().expect("an open bundle has its manifest")
    }

    /// The next events; `None` at the end, once the signature is found to be its maker's and nothing stands behind it.
    pub fn next_part(&mut self) -> Result<Option<Vec<SignedEvent>>, BundleError> {
        match self.sealed()? {
            Some((PartKind::Events, plain)) => Ok(Some(decode_events(&plain)?)),
            Some(_) => Err(BundleFault::Damaged("order of parts").into()),
            None => Ok(None),
        }
    }

    /// The next sealed part, opened; `None`: the seal was reached, and is good.
    fn sealed(&mut self) -> Result<Option<(PartKind, Vec<u8>)>, BundleError> {
        let head: [u8; PART_HEAD_BYTES] = self.source.fixed()?.ok_or(BundleError::CutOff)?;
        let (kind, length) = decode_part_head(&head)?;
        let bytes = self.source.exactly(length)?;
        if kind == PartKind::Seal {
            self.close(&bytes)?;
            return Ok(None);
        }
        self.hash.update(&head);
        self.hash.update(&bytes);
        let plain = self.key.open(self.count, kind, &bytes).ok_or(BundleFault::Damaged("a part"))?;
        self.count += 1;
        Ok(Some((kind, plain)))
    }

    fn close(&mut self, bytes: &[u8]) -> Result<(), BundleError> {
        let seal = decode_seal(bytes)?;
        let manifest = self.manifest.as_ref().ok_or(BundleFault::Damaged("no manifest"))?;
        let hash = *self.hash.finalize().as_bytes();
        if seal.parts != self.count
            || !is_signed(&manifest.exporter, &self.cluster, &hash, (seal.parts, &seal.signature))
        {
            let key: String = manifest.exporter.to_string().chars().take(8).collect();
            return Err(BundleError::BadSignature(key));
        }
        match self.source.fixed::<1>()? {
            None => Ok(()),
            Some(_) => Err(BundleError::Trailing),
        }
    }
}

/// Reads exactly what is asked for, and counts.
struct Counting<R> {
    source: R,
    bytes: u64,
}

impl<R: Read> Counting<R> {
    /// Exactly so many bytes; memory grows with what is really there.
    fn exactly(&mut self, length: usize) -> Result<Vec<u8>, BundleError> {
        let mut bytes = Vec::new();
        let read = self.source.by_ref().take(length as u64).read_to_end(&mut bytes).map_err(read_failed)?;
        self.bytes += read as u64;
        if read == length { Ok(bytes) } else { Err(BundleError::CutOff) }
    }

    /// A few bytes; `None` at the end of the source.
    fn fixed<const N: usize>(&mut self) -> Result<Option<[u8; N]>, BundleError> {
        let mut bytes = [0; N];
        let mut filled = 0;
        while filled < N {
            match self.source.read(&mut bytes[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(BundleError::CutOff),
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(read_failed(error)),
            }
        }
        self.bytes += N as u64;
        Ok(Some(bytes))
    }
}

/// Opens a bundle's file; the error names it.
pub fn open_bundle(path: &Path) -> Result<File, BundleError> {
    File::open(path).map_err(|source| read_failed(source).at(path))
}

fn read_failed(source: std::io::Error) -> BundleError {
    BundleError::Read { path: "the bundle".to_string(), source }
}

type TableCounts = BTreeMap<(String, String), (u64, u64)>;

fn count_tables(tables: &mut TableCounts, event: &Event) {
    let mut counts = vec![(0, 0); event.tables.len()];
    for change in &event.changes {
        let (changes, inserts) = &mut counts[change.table() as usize];
        *changes += 1;
        *inserts += u64::from(matches!(change, Change::Insert { .. }));
    }
    for (table, (changes, inserts)) in event.tables.iter().zip(counts).filter(|(_, (changes, _))| *changes > 0) {
        let counted = tables.entry((event.header.database.clone(), table.table.clone())).or_default();
        *counted = (counted.0 + changes, counted.1 + inserts);
    }
}
