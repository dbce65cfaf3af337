//! Who belongs to the cluster: a log of signed records, and what they mean together.
//!
//! **Records**: found, admit (rank, slot, name, role), revoke, role, name, rotate (a key's place goes to another one),
//! recover. Each is signed and names the newest records its signer knew (`after`), and so all before them: its **past**.
//! The records form a graph of hashes; one signer's form a chain; nobody can change or leave out one that another
//! names. `litemesh peers log` lists them.
//!
//! **What is kept**: a record whose signer had, in the record's own past, the right to it. Only admins revoke, change
//! roles, let in admins and let in again; a member lets in new members and read-only ones, because at a venue the admins may
//! be absent (its admission gives a place to who has none, and decides nothing where an admin said something); an admission
//! ranks behind its signer; a member renames itself and rotates its own key; the recovery key
//! (named in the founder's record, so the cluster's id covers it) makes a member an admin and revokes. All this looks at
//! the past alone, so it is decided once. A record whose past is not here waits, among at most
//! [`WAITING_RECORDS_MAX`]; the oldest gives way, and comes again with a hello.
//!
//! **What counts**, a function of the set of records and of nothing else (state = F(set)):
//! 1. *Sealed*: what a member signed that a revocation by the recovery key did not know is as if it had never been
//!    written, and so is all that rests on it. This is the way out when an admin's key is stolen.
//! 2. *Takings* (revocations, lowered roles) that are not sealed always count: **remove wins**. Two admins that revoke each
//!    other are both out: a thief and the robbed look the same from here, and a taking that could be undone by its victim
//!    would be none. The recovery phrase is for that day.
//! 3. Anything else counts unless its signer lost the right to it by a taking that neither knew it nor is known by it
//!    (**acknowledged or void**: an admission by a revoked admin stands when the revocation names it in its past), and
//!    when what its own rights rest on counts.
//! 4. A revoked member is in again only by an admission or a recovery that knows the revocation.
//! 5. Of several role or name records, those that no other one knew decide: the lesser role, the name with the greater
//!    hash. Of several admissions of one node the least rank, slot, hash. Of several rotations of a key the least hash.
//!
//! Rank and slot of everybody who was ever admitted stay, whatever became of it: the order of identity rests on them.
//!
//! **Events of who is out** (checked by `node::exchange`): the gate lets nobody in who is revoked, and a peer does not take a
//! read-only member's own events from itself. What a member in good standing took in good faith before it knew is relayed and taken by
//! all: logs must become equal, and an event once taken may have been built on. So a thief can still place events through
//! a member that has not heard; those with a stamp after the revocation are counted, alarmed and listed
//! (`litemesh peers late`), and a person decides. A stamp is the author's word: it may be too early, never too late.
//!
//! **Bounds**: [`MEMBER_RECORDS_MAX`] records, [`REVOKING_RECORDS_MAX`] more for takings, [`OWN_RECORDS_MAX`] by a member
//! that is no admin. Nodes that are full may differ until an admin revokes who filled them; that costs traffic, not data.
//! Callers: node, node::invite, net (the gate works on a copy).

mod graph;
mod sign;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use ed25519_dalek::{Signature, VerifyingKey};
use serde::Serialize;

use crate::model::{ClusterId, Member, MemberRecord, NodeId, RecordHash, RecordKind, Role};
use crate::wire::limits::{
    MEMBER_RECORDS_BYTES, MEMBER_RECORDS_MAX, MEMBERS_MAX, NAME_BYTES_MAX, OWN_RECORDS_MAX, RECORD_AFTER_MAX,
    REVOKING_RECORDS_MAX, SLOT_MAX, WAITING_RECORDS_MAX,
};
use crate::wire::member::{encode_member, record_hash, signed_bytes};
use graph::{Graph, Place};
pub use sign::{
    admit, admit_as, cluster_id, found_cluster, found_cluster_with, node_id, recover, rename, revoke, rotate, set_role,
    shortened,
};

/// Why a record is refused. The membership is unchanged, and the same record will be refused again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// The signature is not the signer's.
    #[error("the signature of a member record is wrong")]
    BadSignature,
    /// It is of another cluster, or claims to found this one.
    #[error("the member record belongs to another cluster")]
    OtherCluster,
    /// A founder's record that breaks the rules for founders, or a rank, slot or name out of range.
    #[error("the member record is out of range: {0}")]
    OutOfRange(&'static str),
    /// Its signer had no right to it.
    #[error("{signer:?} had no right to this member record ({kind:?})")]
    NotEntitled {
        /// Who signed it.
        signer: NodeId,
        /// What it was to do.
        kind: RecordKind,
    },
    /// The table of records is full, or the signer's share of it.
    #[error("too many member records")]
    Full,
}

/// How somebody who was ever admitted stands now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Standing {
    /// A member.
    Active,
    /// Shut out.
    Revoked {
        /// By whom.
        by: NodeId,
        /// When, ms since 1970 by the revoker's clock.
        at_ms: u64,
    },
    /// Another key has its place.
    Retired {
        /// The key.
        by: NodeId,
    },
    /// Who admitted it had been shut out.
    Void,
}

/// Somebody who was ever admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Person {
    /// What is known of it.
    pub member: Member,
    /// Whether it is a member now.
    pub standing: Standing,
}

/// One record of the log, and whether it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<'m> {
    /// Its name.
    pub hash: RecordHash,
    /// The record.
    pub record: &'m MemberRecord,
    /// Whether it counts; else it was overtaken or sealed away.
    pub counts: bool,
}

/// The members of one cluster.
#[derive(Clone, Debug)]
pub struct Membership {
    cluster: ClusterId,
    founder: NodeId,
    graph: Graph,
    /// Records with a good signature that name records which are not here yet.
    waiting: VecDeque<MemberRecord>,
    counts: Vec<bool>,
    stands: Vec<bool>,
    people: BTreeMap<NodeId, Person>,
    heads: Vec<RecordHash>,
}

impl Membership {
    /// A cluster that so far has only its founder.
    pub fn new(founder: MemberRecord) -> Result<Membership, MembershipError> {
        check_shape(&founder)?;
        let member = &founder.member;
        let founding = founder.kind == RecordKind::Found && founder.cluster == [0; 32] && founder.after.is_empty();
        let first = member.rank == 0 && member.slot == 1 && member.role == Role::Admin;
        if !founding || !first || founder.signer != member.node {
            return Err(MembershipError::OutOfRange("founder"));
        }
        check_signature(&founder)?;
        let (cluster, node, hash) = (cluster_id(&founder), member.node, record_hash(&founder));
        let graph = Graph::new(founder, hash);
        let mut membership = Membership {
            cluster,
            founder: node,
            graph,
            waiting: VecDeque::new(),
            counts: Vec::new(),
            stands: Vec::new(),
            people: BTreeMap::new(),
            heads: Vec::new(),
        };
        membership.derive();
        Ok(membership)
    }

    /// Takes a record from anywhere. `true`: it is new and was taken over. `false`: it was known, or it waits for one that
    /// it names.
    pub fn add(&mut self, record: MemberRecord) -> Result<bool, MembershipError> {
        let taken = self.take(record);
        if taken == Ok(true) {
            self.take_waiting();
            self.derive();
        }
        taken
    }

    /// The same for many, in any order: whether any was new, and why others were refused.
    pub fn add_all(&mut self, records: Vec<MemberRecord>) -> (bool, Vec<MembershipError>) {
        let (mut left, mut refused, mut grew) = (records, Vec::new(), false);
        loop {
            let count = left.len();
            let mut later = Vec::new();
            for record in left {
                if self.graph.past(&record).is_none() {
                    later.push(record);
                    continue;
                }
                match self.take(record) {
                    Ok(new) => grew |= new,
                    Err(error) => refused.push(error),
                }
            }
            left = later;
            if left.len() == count {
                break;
            }
        }
        refused.extend(left.into_iter().filter_map(|record| self.take(record).err()));
        if grew {
            self.take_waiting();
            self.derive();
        }
        (grew, refused)
    }

    /// Whether a node may connect and read. The one place that decides it.
    pub fn may_connect(&self, node: &NodeId) -> bool {
        self.people.get(node).is_some_and(|person| person.standing == Standing::Active)
    }

    /// Whether others take what a node writes, from itself.
    pub fn may_write(&self, node: &NodeId) -> bool {
        self.role(node).is_some_and(|role| role > Role::ReadOnly)
    }

    /// What a member may do; `None` for who is none now.
    pub fn role(&self, node: &NodeId) -> Option<Role> {
        self.people.get(node).filter(|_| self.may_connect(node)).map(|person| person.member.role)
    }

    /// Whether a member may let in somebody new with this role.
    pub fn may_admit_as(&self, member: &NodeId, role: Role) -> bool {
        self.role(member).is_some_and(|own| own == Role::Admin || own == Role::Member && role <= own)
    }

    /// The cluster.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The cluster's name for people.
    pub fn cluster_name(&self) -> &str {
        &self.graph.entries[0].record.cluster_name
    }

    /// The public key of the recovery phrase, when the cluster has one.
    pub fn recovery(&self) -> Option<NodeId> {
        let key = self.graph.entries[0].record.recovery;
        (key != [0; 32]).then_some(NodeId(key))
    }

    /// All members, by rank, then key: the order of seniority.
    pub fn members(&self) -> Vec<&Member> {
        let active = self.people().into_iter().filter(|person| person.standing == Standing::Active);
        active.map(|person| &person.member).collect()
    }

    /// Everybody who was ever admitted, in the order of seniority.
    pub fn people(&self) -> Vec<&Person> {
        let mut people: Vec<&Person> = self.people.values().collect();
        people.sort_by_key(|person| (person.member.rank, person.member.node));
        people
    }

    /// How a node stands; `None` for a stranger.
    pub fn standing(&self, node: &NodeId) -> Option<Standing> {
        self.people.get(node).map(|person| person.standing)
    }

    /// All records that are kept, each behind those it names.
    pub fn records(&self) -> Vec<&MemberRecord> {
        self.graph.entries.iter().map(|entry| &entry.record).collect()
    }

    /// All records with their names, and whether they count.
    pub fn listed(&self) -> Vec<Listed<'_>> {
        let listed = self.graph.entries.iter().zip(&self.counts);
        listed.map(|(entry, counts)| Listed { hash: entry.hash, record: &entry.record, counts: *counts }).collect()
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.people.values().filter(|person| person.standing == Standing::Active).count()
    }

    /// Whether nobody is a member any more: every admin and every other member was shut out.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether one more node can be admitted.
    pub fn has_room(&self) -> bool {
        self.people.len() < MEMBERS_MAX && self.graph.entries.len() < MEMBER_RECORDS_MAX
    }

    /// One member, former ones included: its events stay, and its rank with them.
    pub fn member(&self, node: &NodeId) -> Option<&Member> {
        self.people.get(node).map(|person| &person.member)
    }

    /// The members that a person may mean: by exact name, else by prefix of name or hex key (ASCII case ignored).
    pub fn by_name(&self, name: &str) -> Vec<&Member> {
        let wanted = name.to_ascii_lowercase();
        let exact: Vec<&Member> = self.members().into_iter().filter(|member| member.name == name).collect();
        if !exact.is_empty() || wanted.is_empty() {
            return exact;
        }
        let begins = |member: &&Member| {
            member.name.to_ascii_lowercase().starts_with(&wanted) || member.node.to_string().starts_with(&wanted)
        };
        self.members().into_iter().filter(begins).collect()
    }

    /// Rank of everybody who was ever admitted. Equal ranks (two members invited apart) are told apart by key.
    pub fn ranks(&self) -> BTreeMap<NodeId, u32> {
        self.people.iter().map(|(node, person)| (*node, person.member.rank)).collect()
    }

    /// What proves how a node stands: all records about it and all that their signers knew, without the founder's (every
    /// member has that).
    pub fn chain(&self, node: &NodeId) -> Vec<MemberRecord> {
        self.proof(node, &[])
    }

    /// The same without what somebody knows whose newest records are these.
    pub fn proof(&self, node: &NodeId, heads: &[RecordHash]) -> Vec<MemberRecord> {
        let (behind, known) = (self.graph.behind(node), self.graph.known_at(heads));
        let proving = |position: &usize| *position > 0 && behind.has(*position) && !known.has(*position);
        (0..self.graph.entries.len())
            .filter(proving)
            .map(|position| self.graph.entries[position].record.clone())
            .collect()
    }

    /// The record that shut a node out, for itself to read.
    pub fn shut_out_by(&self, node: &NodeId) -> Option<&MemberRecord> {
        let within = |position: usize| self.counts[position];
        match self.graph.place(*node, &within) {
            Place::Out(position) | Place::Retired(position) => Some(&self.graph.entries[position].record),
            Place::Nobody | Place::Here(_) => None,
        }
    }

    /// Digest of the set of records, to see at a glance whether two nodes know the same.
    pub fn digest(&self) -> u64 {
        let mut hasher = blake3::Hasher::new_derive_key("litemesh 1 members");
        for hash in self.graph.by_hash.keys() {
            hasher.update(hash);
        }
        let first = hasher.finalize().as_bytes()[..8].try_into().expect("a hash has 32 bytes");
        u64::from_be_bytes(first)
    }

    /// The newest records, at most as many as a message may name: who knows them knows all.
    pub fn heads(&self) -> Vec<RecordHash> {
        self.heads.iter().take(RECORD_AFTER_MAX).copied().collect()
    }

    /// What somebody lacks whose newest records are these, oldest first: as much as one message takes.
    pub fn lacking(&self, heads: &[RecordHash]) -> Vec<MemberRecord> {
        let known = self.graph.known_at(heads);
        let mut bytes = 0;
        let mut lacking = Vec::new();
        for (position, entry) in self.graph.entries.iter().enumerate() {
            if known.has(position) {
                continue;
            }
            bytes += encode_member(&entry.record).len() + 4;
            if bytes > MEMBER_RECORDS_BYTES {
                break;
            }
            lacking.push(entry.record.clone());
        }
        lacking
    }

    fn take(&mut self, record: MemberRecord) -> Result<bool, MembershipError> {
        check_shape(&record)?;
        let hash = record_hash(&record);
        if self.graph.by_hash.contains_key(&hash) || self.waiting.contains(&record) {
            return Ok(false);
        }
        if record.cluster != self.cluster.0 {
            return Err(MembershipError::OtherCluster);
        }
        if record.kind == RecordKind::Found || record.after.is_empty() {
            return Err(MembershipError::OutOfRange("kind"));
        }
        if record.kind == RecordKind::Admit && (record.member.rank == 0 || record.member.node == self.founder) {
            return Err(MembershipError::OutOfRange("rank"));
        }
        check_signature(&record)?;
        let Some(past) = self.graph.past(&record) else {
            if self.waiting.len() >= WAITING_RECORDS_MAX {
                self.waiting.pop_front();
            }
            self.waiting.push_back(record);
            return Ok(false);
        };
        if !self.graph.is_entitled(&record, &past) {
            return Err(MembershipError::NotEntitled { signer: record.signer, kind: record.kind });
        }
        self.check_room(&record)?;
        self.graph.append(record, hash, past);
        Ok(true)
    }

    /// What may be many is bounded: members, records, and above all the records (admissions too) of who is no admin.
    fn check_room(&self, record: &MemberRecord) -> Result<(), MembershipError> {
        let own = matches!(record.kind, RecordKind::Name | RecordKind::Rotate | RecordKind::Admit);
        let admin = self.people.get(&record.signer).is_some_and(|person| person.member.role == Role::Admin);
        let share = !own || admin || self.graph.signed_by(&record.signer) < OWN_RECORDS_MAX;
        let lets_in = matches!(record.kind, RecordKind::Admit | RecordKind::Rotate);
        let members = !lets_in || self.people.contains_key(&record.member.node) || self.people.len() < MEMBERS_MAX;
        let rescues = matches!(record.kind, RecordKind::Revoke | RecordKind::Recover);
        let places = MEMBER_RECORDS_MAX + if rescues { REVOKING_RECORDS_MAX } else { 0 };
        match share && members && self.graph.entries.len() < places {
            true => Ok(()),
            false => Err(MembershipError::Full),
        }
    }

    fn take_waiting(&mut self) {
        while let Some(at) = self.waiting.iter().position(|record| self.graph.past(record).is_some()) {
            if let Some(record) = self.waiting.remove(at) {
                // Refused is dropped: nobody waits for the answer.
                let _ = self.take(record);
            }
        }
    }

    /// Computes the members from the records: from the last one alone where that is enough.
    fn derive(&mut self) {
        let last = self.graph.entries.len() - 1;
        if self.counts.len() == last && self.stands.len() == last {
            self.stands.push(true);
            if self.graph.is_simple() {
                let entry = self.graph.entries[last].clone();
                self.counts.push(self.graph.counts(last, &self.counts, &self.stands));
                self.heads.retain(|head| !entry.record.after.contains(head));
                let at = self.heads.partition_point(|head| *head < entry.hash);
                self.heads.insert(at, entry.hash);
                self.judge(entry.record.member.node);
                return;
            }
        }
        (self.counts, self.stands) = self.graph.counting();
        self.people.clear();
        for key in self.graph.keys().collect::<Vec<_>>() {
            self.judge(key);
        }
        self.heads = self.graph.heads();
    }

    fn judge(&mut self, key: NodeId) {
        let Some(member) = self.graph.member(key, &self.counts, &self.stands) else { return };
        let record = |position: usize| &self.graph.entries[position].record;
        let standing = match self.graph.place(key, &|position| self.counts[position]) {
            Place::Here(_) => Standing::Active,
            Place::Out(position) => {
                let (by, at_ms) = (record(position).signer, record(position).member.admitted_ms);
                Standing::Revoked { by, at_ms }
            }
            Place::Retired(position) => Standing::Retired { by: record(position).member.node },
            Place::Nobody => Standing::Void,
        };
        self.people.insert(key, Person { member, standing });
    }
}

fn check_shape(record: &MemberRecord) -> Result<(), MembershipError> {
    let member = &record.member;
    if member.name.len() > NAME_BYTES_MAX || record.cluster_name.len() > NAME_BYTES_MAX {
        return Err(MembershipError::OutOfRange("name"));
    }
    let lets_in = matches!(record.kind, RecordKind::Found | RecordKind::Admit);
    let slots = if lets_in { 1..=SLOT_MAX } else { 0..=0 };
    if !slots.contains(&member.slot) {
        return Err(MembershipError::OutOfRange("slot"));
    }
    if !lets_in && member.rank != 0 {
        return Err(MembershipError::OutOfRange("rank"));
    }
    let sorted = record.after.windows(2).all(|pair| pair[0] < pair[1]);
    if !sorted || record.after.len() > RECORD_AFTER_MAX {
        return Err(MembershipError::OutOfRange("names of records"));
    }
    let founds = record.kind == RecordKind::Found;
    if !founds && (record.recovery != [0; 32] || !record.cluster_name.is_empty()) {
        return Err(MembershipError::OutOfRange("founding"));
    }
    let says_role = lets_in || matches!(record.kind, RecordKind::Role | RecordKind::Recover);
    if !says_role && member.role != Role::Member || record.kind == RecordKind::Recover && member.role != Role::Admin {
        return Err(MembershipError::OutOfRange("role"));
    }
    Ok(())
}

/// Whether a record is its signer's.
pub fn is_signed(record: &MemberRecord) -> bool {
    check_signature(record).is_ok()
}

/// Strict: no weak keys and one signature per message and key, so a record has one form only.
fn check_signature(record: &MemberRecord) -> Result<(), MembershipError> {
    let bad = |_| MembershipError::BadSignature;
    let key = VerifyingKey::from_bytes(&record.signer.0).map_err(bad)?;
    let signature = Signature::from_slice(&record.signature).map_err(bad)?;
    key.verify_strict(&signed_bytes(record), &signature).map_err(bad)
}
