//! Making a bundle: beside the node, on snapshots of its log.
//!
//! Invariant: everything written is durable in this log; memory stays flat however much is exported (one part, and one
//! event per origin); a file under its final name is whole and on the disk, or is not there. Callers: http, daemon.

use std::fs::File;
use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bundle::BundleError;
use super::bundle_lock::{Draw, FileKey, sign};
use super::bundle_order::CausalWalk;
use super::bundle_view::ExportView;
use super::membership::Membership;
use super::query::rfc3339;
use super::{Node, NodeError, Now};
use crate::log::Log;
use crate::model::{Heads, NodeId};
use crate::wire::bundle::{
    BundleHeader, MAGIC, Manifest, PartKind, Range, Seal, encode_events, encode_manifest, encode_opening,
    encode_part_head, encode_seal,
};
use crate::wire::limits::{BUNDLE_PART_BYTES_TARGET, BUNDLE_PART_EVENTS_MAX, BUNDLE_PART_PLAIN_BYTES_MAX};
use crate::wire::message::SignedEvent;

/// What file names of bundles end with.
pub const BUNDLE_ENDING: &str = "litemesh";

/// Everything that an export needs, so that it can run beside the node.
pub struct BundleExport {
    log: Arc<Log>,
    pub(super) key_seed: [u8; 32],
    membership: Membership,
    pub(super) manifest: Manifest,
    readers: Vec<NodeId>,
    dice: [u8; 32],
    made_for: String,
    name: String,
}

impl Node {
    /// Prepares a bundle of all events that `made_for` is not known to hold, or of all there are. `dice`: 32 random bytes.
    pub fn bundle_export(&self, made_for: Option<NodeId>, dice: [u8; 32], now: Now) -> Result<BundleExport, NodeError> {
        let none = Heads::new();
        let held = match &made_for {
            Some(node) if self.membership.member(node).is_none() => {
                return Err(NodeError::Invalid(format!("{node} is no member of this cluster: see `litemesh peers`")));
            }
            Some(node) => self.receipts.heads_of(node).unwrap_or(&none),
            None => &none,
        };
        let range = |(origin, head): (&crate::model::OriginId, &crate::model::Head)| Range {
            origin: *origin,
            after: held.get(origin).map_or(0, |held| held.seq),
            through: head.seq,
        };
        let readers = match made_for {
            Some(node) => vec![self.id(), node],
            None => self.membership.members().into_iter().map(|member| member.node).collect(),
        };
        let manifest = Manifest {
            exporter: self.id(),
            // Never earlier than what this node said before: a laptop's clock may have lost its battery.
            created_ms: now.wall_ms.max(self.clock.last().wall_ms()),
            made_for,
            members: self.membership.records().into_iter().cloned().collect(),
            heads: self.heads.values().copied().collect(),
            ranges: self.heads.iter().map(range).filter(|range| range.after < range.through).collect(),
        };
        Ok(BundleExport {
            log: self.log.clone(),
            key_seed: self.settings.key_seed,
            membership: self.membership.clone(),
            manifest,
            readers,
            dice,
            made_for: made_for.map(|node| self.member_name(&node)).unwrap_or_default(),
            name: self.settings.name.clone(),
        })
    }
}

impl BundleExport {
    /// Writes the bundle to a file: aside first, synced, renamed. A directory gets a file with a name of its own. A file
    /// that is there and is no bundle is left alone.
    pub fn write_file(&self, target: &Path) -> Result<ExportView, BundleError> {
        let path = if target.is_dir() { self.free_name(target) } else { target.to_path_buf() };
        if path.exists() && !is_bundle(&path) {
            return Err(BundleError::Occupied { path: path.display().to_string() });
        }
        let mut aside = path.clone();
        aside.as_mut_os_string().push(".part");
        let failed = |source| BundleError::Write { path: path.display().to_string(), source };
        let written = File::create(&aside).map_err(failed).and_then(|file| {
            let mut buffered = std::io::BufWriter::with_capacity(1 << 18, file);
            let view = self.write(&mut buffered).map_err(|error| error.at(&path))?;
            let file = buffered.into_inner().map_err(|error| failed(error.into_error()))?;
            file.sync_all().map_err(failed)?;
            std::fs::rename(&aside, &path).map_err(failed)?;
            // Not every stick's file system can sync a folder.
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
            Ok(view)
        });
        if written.is_err() {
            // Half a bundle is of no use to anybody; if it cannot be removed, its name says what it is.
            let _ = std::fs::remove_file(&aside);
        }
        Ok(ExportView { path: path.display().to_string(), ..written? })
    }

    /// Writes the bundle.
    pub fn write(&self, out: &mut impl Write) -> Result<ExportView, BundleError> {
        let cluster = self.membership.cluster();
        let manifest = encode_manifest(&self.manifest);
        let (header, secret) = Draw::new(&self.dice, &self.key_seed, &manifest).lock(&cluster, &self.readers);
        let opening = encode_opening(&header);
        let key = secret.bind(&opening);
        let mut parts = Parts { out, key, hash: blake3::Hasher::new(), bytes: 0, count: 0 };
        parts.write(&opening)?;
        parts.add(PartKind::Manifest, &manifest)?;
        let mut walk = CausalWalk::new(&self.manifest.ranges);
        let mut events = 0;
        loop {
            let part = self.next_part(&mut walk)?;
            if part.is_empty() {
                break;
            }
            events += part.len() as u64;
            parts.add(PartKind::Events, &encode_events(&part))?;
        }
        let hash = *parts.hash.finalize().as_bytes();
        let signature = sign(&self.key_seed, &cluster, &hash, parts.count);
        let seal = encode_seal(&Seal { parts: parts.count, signature });
        parts.write(&encode_part_head(PartKind::Seal, seal.len()))?;
        parts.write(&seal)?;
        parts.out.flush().map_err(write_failed)?;
        Ok(ExportView {
            path: String::new(),
            made_for: self.made_for.clone(),
            events,
            bytes: parts.bytes,
            readers: header_readers(&header),
            created: rfc3339(self.manifest.created_ms),
        })
    }

    /// The events of one part. A part ends behind a signed event, so that whoever reads it can trust it at once.
    fn next_part(&self, walk: &mut CausalWalk) -> Result<Vec<SignedEvent>, BundleError> {
        // A snapshot of its own: one that lasts as long as the export would keep every page that is written meanwhile.
        let read = self.log.read().map_err(NodeError::from)?;
        let (mut part, mut bytes): (Vec<SignedEvent>, usize) = (Vec::new(), 0);
        while let Some((_, stored)) = walk.next(&read)? {
            bytes += stored.bytes.len() + 96;
            let signed = stored.signature.is_some();
            part.push(SignedEvent { bytes: stored.bytes, signature: stored.signature });
            let full = bytes >= BUNDLE_PART_BYTES_TARGET || part.len() >= BUNDLE_PART_EVENTS_MAX;
            if full && signed {
                break;
            }
            if part.len() >= BUNDLE_PART_EVENTS_MAX || bytes > BUNDLE_PART_PLAIN_BYTES_MAX {
                let problem = "an author signed too few of its events for a bundle: carry them over the network";
                return Err(NodeError::Invalid(problem.to_string()).into());
            }
        }
        Ok(part)
    }

    /// cluster-node-time.litemesh, in the form that every file system takes.
    fn free_name(&self, folder: &Path) -> PathBuf {
        let plain = |text: &str| -> String {
            let kept = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
            let text: String = text.chars().map(kept).take(32).collect();
            text.trim_matches('-').to_string()
        };
        let time: String =
            rfc3339(self.manifest.created_ms).chars().filter(|c| c.is_ascii_alphanumeric()).take(15).collect();
        let cluster = plain(&self.membership.cluster_name().replace('\'', ""));
        let stem = format!("{cluster}-{}-{time}Z", plain(&self.name));
        let names = (1..).map(|number: u32| match number {
            1 => format!("{stem}.{BUNDLE_ENDING}"),
            _ => format!("{stem}-{number}.{BUNDLE_ENDING}"),
        });
        names.map(|name| folder.join(name)).find(|path| !path.exists()).expect("numbers do not end")
    }
}

/// Writes, hashes and counts.
struct Parts<'o, W: Write> {
    out: &'o mut W,
    key: FileKey,
    hash: blake3::Hasher,
    bytes: u64,
    count: u64,
}

impl<W: Write> Parts<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), BundleError> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes).map_err(write_failed)
    }

    fn add(&mut self, kind: PartKind, plain: &[u8]) -> Result<(), BundleError> {
        let sealed = self.key.seal(self.count, kind, plain);
        self.write(&encode_part_head(kind, sealed.len()))?;
        self.write(&sealed)?;
        self.count += 1;
        Ok(())
    }
}

fn header_readers(header: &BundleHeader) -> u32 {
    header.locks.len() as u32
}

fn write_failed(source: std::io::Error) -> BundleError {
    BundleError::Write { path: "the bundle".to_string(), source }
}

fn is_bundle(path: &Path) -> bool {
    let mut first = [0; MAGIC.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut first)).is_ok() && first == MAGIC
}
