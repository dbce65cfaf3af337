//! The graph of member records: who knew what, who had the right to what, and what counts in the end.
//!
//! Invariant: every answer is a function of the set of records; arrival shows in no answer, because each decision looks
//! at a record's own past and at sets that are known before it. Records are kept behind those they name, so the order of
//! the list is an order of knowing. The rules are at the head of [`super`]. Caller: [`super`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{Member, MemberRecord, NodeId, RecordHash, RecordKind, Role};

/// All kinds of records.
const KINDS: [RecordKind; 7] = [
    RecordKind::Found,
    RecordKind::Admit,
    RecordKind::Revoke,
    RecordKind::Role,
    RecordKind::Name,
    RecordKind::Rotate,
    RecordKind::Recover,
];

/// A set of positions in the list of records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Positions(Vec<u64>);

impl Positions {
    pub(super) fn has(&self, position: usize) -> bool {
        self.0.get(position / 64).is_some_and(|word| word >> (position % 64) & 1 == 1)
    }

    pub(super) fn put(&mut self, position: usize) {
        if self.0.len() <= position / 64 {
            self.0.resize(position / 64 + 1, 0);
        }
        self.0[position / 64] |= 1 << (position % 64);
    }

    pub(super) fn join(&mut self, other: &Positions) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine |= theirs);
    }
}

/// One record in its place.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: MemberRecord,
    pub(super) hash: RecordHash,
    /// What its signer knew.
    pub(super) past: Positions,
    /// It takes a right away: a revocation, or a lower role than its subject had.
    pub(super) takes: bool,
    /// An admission by somebody who was no admin: it gives a place to who has none, and decides over nobody else's word.
    pub(super) humble: bool,
}

/// Where a key stands, by some of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nobody that counts ever let it in.
    Nobody,
    /// Shut out by the record at this position.
    Out(usize),
    /// Another key has its place, by the record at this position.
    Retired(usize),
    /// A member.
    Here(Role),
}

/// All records that fit, each behind those it names.
#[derive(Clone, Debug, Default)]
pub(super) struct Graph {
    pub(super) entries: Vec<Arc<Entry>>,
    pub(super) by_hash: BTreeMap<RecordHash, usize>,
    /// Positions of the records about a key, by kind; a rotation is about both keys. Those that take (revocations, lowered
    /// roles) stand under their kind, and once more under `None`.
    about: BTreeMap<(NodeId, Option<RecordKind>), Vec<usize>>,
    keys: BTreeSet<NodeId>,
    signed: BTreeMap<NodeId, usize>,
    /// The recovery key revoked somebody.
    seals: bool,
    recovery: Option<NodeId>,
}

/// Some of the records, by position.
type Within<'w> = &'w dyn Fn(usize) -> bool;

impl Graph {
    /// A graph of the founder's record alone.
    pub(super) fn new(founder: MemberRecord, hash: RecordHash) -> Graph {
        let recovery = (founder.recovery != [0; 32]).then_some(NodeId(founder.recovery));
        let mut graph = Graph { recovery, ..Graph::default() };
        graph.put(founder, hash, Positions::default(), (false, false));
        graph
    }

    /// What a record's signer knew; `None` while a record that it names is not here.
    pub(super) fn past(&self, record: &MemberRecord) -> Option<Positions> {
        let mut past = Positions::default();
        for hash in &record.after {
            let position = *self.by_hash.get(hash)?;
            past.join(&self.entries[position].past);
            past.put(position);
        }
        Some(past)
    }

    /// Whether the signer had the right to the record, as far as it knew.
    pub(super) fn is_entitled(&self, record: &MemberRecord, past: &Positions) -> bool {
        self.allowed(record, &|position| past.has(position))
    }

    /// Appends a record.
    pub(super) fn append(&mut self, record: MemberRecord, hash: RecordHash, past: Positions) {
        let takes = match record.kind {
            RecordKind::Revoke => true,
            RecordKind::Role => match self.place(record.member.node, &|position| past.has(position)) {
                Place::Here(role) => record.member.role < role,
                _ => false,
            },
            _ => false,
        };
        let of_admin = self.place(record.signer, &|position| past.has(position)) == Place::Here(Role::Admin);
        let humble = record.kind == RecordKind::Admit && !of_admin;
        self.put(record, hash, past, (takes, humble));
    }

    fn put(&mut self, record: MemberRecord, hash: RecordHash, past: Positions, (takes, humble): (bool, bool)) {
        let position = self.entries.len();
        self.by_hash.insert(hash, position);
        let mut about = |key: NodeId, kind| self.about.entry((key, kind)).or_default().push(position);
        about(record.member.node, Some(record.kind));
        if takes {
            about(record.member.node, None);
        }
        if record.kind == RecordKind::Rotate {
            about(record.signer, Some(record.kind));
        }
        self.keys.insert(record.member.node);
        self.seals |= record.kind == RecordKind::Revoke && Some(record.signer) == self.recovery;
        *self.signed.entry(record.signer).or_default() += 1;
        self.entries.push(Arc::new(Entry { record, hash, past, takes, humble }));
    }

    /// Number of records that a member signed, under all its keys.
    pub(super) fn signed_by(&self, signer: &NodeId) -> usize {
        let keys = self.keys_of(*signer, &|_| true);
        keys.iter().map(|key| self.signed.get(key).copied().unwrap_or(0)).sum()
    }

    fn record(&self, position: usize) -> &MemberRecord {
        &self.entries[position].record
    }

    fn about<'g>(
        &'g self,
        key: &NodeId,
        kind: impl Into<Option<RecordKind>>,
        within: Within<'g>,
    ) -> impl Iterator<Item = usize> + 'g {
        let about = self.about.get(&(*key, kind.into()));
        about.into_iter().flatten().copied().filter(move |position| within(*position))
    }

    /// The rotation that retired a key: of several, the one with the least hash.
    fn retired_by(&self, key: &NodeId, within: Within<'_>) -> Option<usize> {
        let away = |position: &usize| self.record(*position).signer == *key;
        self.about(key, RecordKind::Rotate, within).filter(away).min_by_key(|position| self.entries[*position].hash)
    }

    /// A key and those it replaced, newest first.
    fn keys_of(&self, key: NodeId, within: Within<'_>) -> Vec<NodeId> {
        let mut keys = vec![key];
        loop {
            let last = keys[keys.len() - 1];
            let to = |position: &usize| {
                let record = self.record(*position);
                record.member.node == last && self.retired_by(&record.signer, within) == Some(*position)
            };
            let rotations = self.about(&last, RecordKind::Rotate, within).filter(to);
            let before = rotations.min_by_key(|position| self.entries[*position].hash);
            match before.map(|position| self.record(position).signer) {
                // No key comes twice; who signs such a thing ends the search.
                Some(signer) if !keys.contains(&signer) => keys.push(signer),
                _ => return keys,
            }
        }
    }

    /// Where a key stands by these records.
    pub(super) fn place(&self, key: NodeId, within: Within<'_>) -> Place {
        if let Some(rotation) = self.retired_by(&key, within) {
            return Place::Retired(rotation);
        }
        let keys = self.keys_of(key, within);
        let about = |kinds: &'static [RecordKind]| {
            let pairs = keys.iter().flat_map(|key| kinds.iter().map(move |kind| (key, *kind)));
            pairs.flat_map(|(key, kind)| self.about(key, kind, within)).collect::<Vec<_>>()
        };
        let grants = about(&[RecordKind::Found, RecordKind::Admit, RecordKind::Recover]);
        if grants.is_empty() {
            return Place::Nobody;
        }
        // A revocation is over when somebody let the member in again who knew of it.
        let undone = |revocation: usize| grants.iter().any(|grant| self.entries[*grant].past.has(revocation));
        let revocations = about(&[RecordKind::Revoke]);
        if let Some(out) = self.first(revocations.into_iter().filter(|position| !undone(*position))) {
            return Place::Out(out);
        }
        let mut words = [grants, about(&[RecordKind::Role])].concat();
        if words.iter().any(|position| !self.entries[*position].humble) {
            words.retain(|position| !self.entries[*position].humble);
        }
        let newest = self.newest(words);
        let role = newest.into_iter().map(|position| self.record(position).member.role).min();
        role.map_or(Place::Nobody, Place::Here)
    }

    /// Of these records, those that no other of them knew.
    fn newest(&self, positions: Vec<usize>) -> Vec<usize> {
        let mut known = Positions::default();
        positions.iter().for_each(|position| known.join(&self.entries[*position].past));
        positions.into_iter().filter(|position| !known.has(*position)).collect()
    }

    /// The one that is shown when any would do.
    fn first(&self, positions: impl Iterator<Item = usize>) -> Option<usize> {
        positions.min_by_key(|position| self.entries[*position].hash)
    }

    /// The admission that gives a member its rank and slot, whatever became of it.
    fn admission(&self, key: NodeId, within: Within<'_>) -> Option<usize> {
        let keys = self.keys_of(key, within);
        let first = keys.last().copied().unwrap_or(key);
        let found = self.about(&first, RecordKind::Found, within);
        found.chain(self.about(&first, RecordKind::Admit, within)).min_by_key(|position| {
            let entry = &self.entries[*position];
            (entry.humble, entry.record.member.rank, entry.record.member.slot, entry.hash)
        })
    }

    /// Whether the signer has the right to a record, by these records.
    fn allowed(&self, record: &MemberRecord, within: Within<'_>) -> bool {
        let subject = self.place(record.member.node, within);
        if Some(record.signer) == self.recovery {
            return matches!(record.kind, RecordKind::Recover | RecordKind::Revoke) && subject != Place::Nobody;
        }
        let Place::Here(role) = self.place(record.signer, within) else { return false };
        let rank = self.admission(record.signer, within).map_or(0, |position| self.record(position).member.rank);
        let (admin, here) = (role == Role::Admin, matches!(subject, Place::Here(_)));
        match record.kind {
            RecordKind::Found | RecordKind::Recover => false,
            RecordKind::Admit if admin => record.member.rank > rank && !matches!(subject, Place::Retired(_)),
            RecordKind::Admit => {
                let no_more = role == Role::Member && record.member.role <= role;
                no_more && record.member.rank > rank && subject == Place::Nobody
            }
            RecordKind::Revoke | RecordKind::Role => admin && here,
            RecordKind::Name => here && (admin || record.signer == record.member.node),
            RecordKind::Rotate => subject == Place::Nobody && !self.is_named(&record.member.node, within),
        }
    }

    /// Which records there are for the rest: what a recovery revocation sealed away is as if it had never been written.
    fn unsealed(&self) -> Vec<bool> {
        let mut stands = vec![true; self.entries.len()];
        if !self.seals {
            return stands;
        }
        let seals = |position: &usize| {
            self.record(*position).kind == RecordKind::Revoke && Some(self.record(*position).signer) == self.recovery
        };
        let seals: Vec<usize> = (0..self.entries.len()).filter(seals).collect();
        for position in 1..self.entries.len() {
            let entry = &self.entries[position];
            let sealed = |seal: &usize| {
                let target = &self.record(*seal).member.node;
                *target == entry.record.signer && !self.entries[*seal].past.has(position)
            };
            stands[position] = !seals.iter().any(sealed)
                && self.allowed(&entry.record, &|earlier| entry.past.has(earlier) && stands[earlier]);
        }
        stands
    }

    /// Whether a right that a record rests on was taken away by somebody who did not know the record, and whose taking the
    /// signer did not know.
    fn is_overtaken(&self, position: usize, stands: &[bool]) -> bool {
        let entry = &self.entries[position];
        let of_admins = match entry.record.kind {
            RecordKind::Name => entry.record.signer != entry.record.member.node,
            kind => kind != RecordKind::Rotate,
        };
        let (signer, stands) = (&entry.record.signer, |other: usize| stands[other]);
        let apart =
            |other: usize| other != position && !self.entries[other].past.has(position) && !entry.past.has(other);
        let takes = |other: usize| self.record(other).kind == RecordKind::Revoke || of_admins;
        let retires = |other: usize| entry.record.kind != RecordKind::Rotate && self.record(other).signer == *signer;
        Some(*signer) != self.recovery
            && (self.about(signer, None, &stands).any(|other| takes(other) && apart(other))
                || self.about(signer, RecordKind::Rotate, &stands).any(|other| retires(other) && apart(other)))
    }

    /// Which records count in the end, and which stand (are not sealed away).
    pub(super) fn counting(&self) -> (Vec<bool>, Vec<bool>) {
        let stands = self.unsealed();
        let mut counts = vec![true];
        for position in 1..self.entries.len() {
            counts.push(self.counts(position, &counts, &stands));
        }
        (counts, stands)
    }

    /// Whether a record counts, when it is known of all before it.
    pub(super) fn counts(&self, position: usize, before: &[bool], stands: &[bool]) -> bool {
        let entry = &self.entries[position];
        let rests = || self.allowed(&entry.record, &|earlier| entry.past.has(earlier) && before[earlier]);
        stands[position] && (entry.takes || !self.is_overtaken(position, stands) && rests())
    }

    /// Whether the last record changes nothing but its own subject: it takes nothing away, seals and replaces nothing.
    pub(super) fn is_simple(&self) -> bool {
        let Some(last) = self.entries.last() else { return false };
        let kind = matches!(last.record.kind, RecordKind::Admit | RecordKind::Name | RecordKind::Role);
        let rotated = self.about.contains_key(&(last.record.member.node, Some(RecordKind::Rotate)));
        kind && !last.takes && !rotated && !self.seals
    }

    /// What a key that was ever let in is called, and its rank, slot and role: `None` for a stranger.
    pub(super) fn member(&self, key: NodeId, counts: &[bool], stands: &[bool]) -> Option<Member> {
        // Sealed away or not: what it wrote may have been taken, and needs an author with a rank.
        let standing = self.admission(key, &|position| stands[position]);
        let admission = standing.or_else(|| self.admission(key, &|_| true))?;
        let (entry, within) = (&self.entries[admission], |position: usize| counts[position]);
        let mut member = Member { node: key, ..entry.record.member.clone() };
        if let Place::Here(role) = self.place(key, &within) {
            member.role = role;
        }
        let keys = self.keys_of(key, &within);
        let names = keys.iter().flat_map(|key| self.about(key, RecordKind::Name, &within)).collect();
        let newest = self.newest(names).into_iter().max_by_key(|position| self.entries[*position].hash);
        if let Some(position) = newest {
            member.name.clone_from(&self.record(position).member.name);
        }
        Some(member)
    }

    /// Every key that a record is about.
    pub(super) fn keys(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.keys.iter().copied()
    }

    fn is_named(&self, key: &NodeId, within: Within<'_>) -> bool {
        KINDS.iter().any(|kind| self.about(key, *kind, within).next().is_some())
    }

    /// Everything that a record rests on, and those about its subject: in an order of knowing.
    pub(super) fn behind(&self, key: &NodeId) -> Positions {
        let mut behind = Positions::default();
        for position in KINDS.iter().flat_map(|kind| self.about(key, *kind, &|_| true)) {
            behind.join(&self.entries[position].past);
            behind.put(position);
        }
        behind
    }

    /// The records that no other one names: who names them names all.
    pub(super) fn heads(&self) -> Vec<RecordHash> {
        let mut known = Positions::default();
        self.entries.iter().for_each(|entry| known.join(&entry.past));
        let open = |(hash, position): (&RecordHash, &usize)| (!known.has(*position)).then_some(*hash);
        self.by_hash.iter().filter_map(open).collect()
    }

    /// Everything at and behind these records, as far as they are here.
    pub(super) fn known_at(&self, heads: &[RecordHash]) -> Positions {
        let mut known = Positions::default();
        for position in heads.iter().filter_map(|hash| self.by_hash.get(hash)) {
            known.join(&self.entries[*position].past);
            known.put(*position);
        }
        known
    }
}
