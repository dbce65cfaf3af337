//! What people order about members, and what they are told: revoke, roles, names, recovery, trusting the local network.
//!
//! Invariant: a record is durable before the order returns, and goes to every peer with the next hello; who is no member
//! any more is neither heard nor told anything from that moment. Trust in the local network is memory only: it ends by
//! itself and with the process. Callers: http, net, cli (through the node's port), `orders`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::invite::{JoinRequest, LanKnock, Refusal, admit_lan};
use super::membership::{self, Standing, node_id};
use super::query::rfc3339;
use super::{Effect, Node, NodeError, Now};
use crate::model::{MemberRecord, NodeId, OriginId, RecordKind, Role, counted, fits};
use crate::wire::decode_event;

/// Longest time for which the local network is trusted at once.
pub const TRUST_MS_MAX: u64 = 24 * 3_600_000;

/// Late events listed and counted of one author, at most.
const LATE_MAX: u64 = 1_000;

/// Late events of which is noted who sent them.
const TAKEN_MAX: usize = 1_000;

/// Guests told of, at most; the oldest goes first.
const GUESTS_MAX: usize = 20;

/// What the node keeps in memory about admitting.
#[derive(Debug, Default)]
pub(super) struct Admitting {
    /// Until when the local network is trusted: monotonic and wall ms.
    trust_until: Option<(u64, u64)>,
    /// Who came in without a code, in words.
    guests: Vec<String>,
    /// What a peer showed as the reason why it talks no longer: who says so, and when it was.
    shut_out: Option<(NodeId, u64)>,
    /// Who sent the events of authors that were revoked.
    taken_from: BTreeMap<(OriginId, u64), NodeId>,
}

/// One record of the membership log, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordView {
    /// Its name: a hash in hex.
    pub hash: String,
    /// `found`, `admit`, `revoke`, `role`, `name`, `rotate` or `recover`.
    pub kind: String,
    /// Key of the subject in hex.
    pub node: String,
    /// Name of the subject now.
    pub name: String,
    /// What the record says: a role, a name, rank and slot.
    pub says: String,
    /// Name of the signer; `recovery phrase` for that key.
    pub by: String,
    /// When, RFC 3339 by the signer's clock.
    pub time: String,
    /// Whether it counts.
    pub counts: bool,
    /// Names of the newest records its signer knew.
    pub after: Vec<String>,
}

/// Somebody who was ever admitted, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// Key in hex.
    pub id: String,
    /// Name.
    pub name: String,
    /// Seniority.
    pub rank: u32,
    /// Where its ids go.
    pub slot: u32,
    /// `admin`, `member` or `read-only`.
    pub role: String,
    /// `active`, `revoked`, `retired` (another key has its place) or `void` (admitted by somebody who was shut out).
    pub state: String,
    /// By whom it was revoked, or by which key replaced; empty while active.
    pub by: String,
    /// When it was revoked, RFC 3339; else empty.
    pub at: String,
}

/// An event whose author says that it was written after its revocation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateEvent {
    /// Name of the author.
    pub author: String,
    /// Its origin in hex.
    pub origin: String,
    /// Number in its log.
    pub seq: u64,
    /// Database.
    pub database: String,
    /// When it was written, RFC 3339, as its author says.
    pub written: String,
    /// When the author was revoked, RFC 3339.
    pub revoked: String,
    /// The member it came from; empty when it came before the revocation was known here, or before the last start.
    pub taken_from: String,
}

impl Node {
    /// Shuts a member out; the words say who.
    pub fn revoke(&mut self, name: &str, now: Now) -> Result<MemberView, NodeError> {
        let target = self.named_member(name)?;
        self.must_be_admin(&format!("shut out {name}"))?;
        self.must_leave_an_admin(&target)?;
        let record = membership::revoke(&self.settings.key_seed, &self.membership, target, now.wall_ms);
        self.sign_and_tell(record)?;
        Ok(self.member_view(&target))
    }

    /// Gives a member another role.
    pub fn set_role(&mut self, name: &str, role: Role, now: Now) -> Result<MemberView, NodeError> {
        let target = self.named_member(name)?;
        self.must_be_admin(&format!("give {name} another role"))?;
        if self.membership.role(&target) == Some(role) {
            return Ok(self.member_view(&target));
        }
        if role != Role::Admin {
            self.must_leave_an_admin(&target)?;
        }
        let record = membership::set_role(&self.settings.key_seed, &self.membership, target, role, now.wall_ms);
        self.sign_and_tell(record)?;
        Ok(self.member_view(&target))
    }

    /// Gives a member another name: an admin anybody, everybody itself.
    pub fn rename(&mut self, name: &str, to: &str, now: Now) -> Result<MemberView, NodeError> {
        let target = self.named_member(name)?;
        if to.trim().is_empty() {
            return Err(NodeError::Invalid("a name cannot be empty".to_string()));
        }
        if target != self.id() {
            self.must_be_admin(&format!("rename {name}"))?;
        }
        let record = membership::rename(&self.settings.key_seed, &self.membership, target, to, now.wall_ms);
        self.sign_and_tell(record)?;
        Ok(self.member_view(&target))
    }

    /// Lets somebody in again who was shut out, under its old key.
    pub fn readmit(&mut self, name: &str, role: Role, now: Now) -> Result<MemberView, NodeError> {
        self.must_be_admin(&format!("let {name} in again"))?;
        let out = |person: &&&membership::Person| matches!(person.standing, Standing::Revoked { .. });
        let means = |person: &&&membership::Person| {
            person.member.name == name || person.member.node.to_string().starts_with(&name.to_ascii_lowercase())
        };
        let people = self.membership.people();
        let found: Vec<_> = people.iter().filter(out).filter(means).collect();
        let [person] = found[..] else {
            return Err(NodeError::Invalid(format!(
                "{} of those who were shut out are called {name:?}: see `litemesh peers members`, and use the id where \
                 names are equal",
                found.len()
            )));
        };
        let (node, name) = (person.member.node, person.member.name.clone());
        let record = membership::admit_as(&self.settings.key_seed, &self.membership, (node, &name), role, now.wall_ms);
        self.sign_and_tell(record).map_err(|error| match error {
            NodeError::Membership(_) => NodeError::NotEntitled(format!(
                "{name} founded the cluster: only the recovery phrase lets it in again, by `litemesh recover-admin` there"
            )),
            other => other,
        })?;
        Ok(self.member_view(&node))
    }

    /// Makes this node an admin by the recovery phrase's secret, and shuts out who is named, sealing away what it signed
    /// that is not known here.
    pub fn recover_admin(
        &mut self,
        secret: &[u8; 32],
        revoke: Option<&str>,
        now: Now,
    ) -> Result<MemberView, NodeError> {
        match self.membership.recovery() {
            None => {
                let words = "this cluster was founded without a recovery phrase: only its admins can make admins";
                return Err(NodeError::NotEntitled(words.to_string()));
            }
            Some(key) if key != node_id(secret) => {
                let words =
                    "this is not the recovery phrase of this cluster: it was shown when the cluster was founded";
                return Err(NodeError::NotEntitled(words.to_string()));
            }
            Some(_) => {}
        }
        let target = revoke.map(|name| self.named_member(name)).transpose()?;
        if target == Some(self.id()) {
            return Err(NodeError::Invalid("a node cannot recover itself and be shut out at once".to_string()));
        }
        // First the thief, then the rights: the second record knows the first.
        if let Some(target) = target {
            self.sign_and_tell(membership::revoke(secret, &self.membership, target, now.wall_ms))?;
        }
        self.sign_and_tell(membership::recover(secret, &self.membership, self.id(), now.wall_ms))?;
        Ok(self.member_view(&self.id()))
    }

    /// Gives this node's place to another key; from then on nobody talks to this one.
    pub fn rotate_key(&mut self, key: NodeId, now: Now) -> Result<(), NodeError> {
        if !self.membership.may_connect(&self.id()) {
            return Err(NodeError::NotEntitled("this node is no member of its cluster any more".to_string()));
        }
        let record = membership::rotate(&self.settings.key_seed, &self.membership, key, now.wall_ms);
        self.sign_and_tell(record)
    }

    /// Admits who knocks from the local network without a code, for a while; 0 ends it. Until when, wall ms.
    pub fn trust_lan(&mut self, for_ms: u64, now: Now) -> Result<Option<u64>, NodeError> {
        if for_ms == 0 {
            self.admitting.trust_until = None;
            self.effects.push_back(Effect::LanTrusted(0));
            return Ok(None);
        }
        self.must_be_admin("admit anybody")?;
        let for_ms = for_ms.min(TRUST_MS_MAX);
        self.admitting.trust_until = Some((now.mono_ms.saturating_add(for_ms), now.wall_ms.saturating_add(for_ms)));
        self.effects.push_back(Effect::LanTrusted(for_ms));
        Ok(self.admitting.trust_until.map(|(_, wall_ms)| wall_ms))
    }

    /// The record of somebody from the local network, while it is trusted.
    pub(super) fn admit_lan(
        &mut self,
        request: &JoinRequest,
        knock: &LanKnock,
        now: Now,
    ) -> Result<MemberRecord, Refusal> {
        if self.admitting.trust_until.is_none_or(|(until_ms, _)| now.mono_ms >= until_ms) {
            return Err(Refusal::NotTrusting);
        }
        let new = self.membership.member(&request.joiner).is_none();
        let record = admit_lan(&self.membership, &self.settings.key_seed, (request, knock), now.wall_ms)?;
        if new {
            let words = format!(
                "{} ({}) came in from {} without a code at {}",
                request.name,
                &request.joiner.to_string()[..8],
                knock.from,
                rfc3339(now.wall_ms)
            );
            tracing::warn!("{words}");
            if self.admitting.guests.len() >= GUESTS_MAX {
                self.admitting.guests.remove(0);
            }
            self.admitting.guests.push(words);
        }
        Ok(record)
    }

    /// Everybody who was ever admitted.
    pub fn member_views(&self) -> Vec<MemberView> {
        self.membership.people().iter().map(|person| self.member_view(&person.member.node)).collect()
    }

    fn member_view(&self, node: &NodeId) -> MemberView {
        let mut view = MemberView { id: node.to_string(), ..MemberView::default() };
        let (Some(member), Some(standing)) = (self.membership.member(node), self.membership.standing(node)) else {
            return view;
        };
        view.name.clone_from(&member.name);
        (view.rank, view.slot, view.role) = (member.rank, member.slot, member.role.word().to_string());
        (view.state, view.by, view.at) = match standing {
            Standing::Active => ("active".to_string(), String::new(), String::new()),
            Standing::Revoked { by, at_ms } => ("revoked".to_string(), self.signer_name(&by), rfc3339(at_ms)),
            Standing::Retired { by } => ("retired".to_string(), by.to_string(), String::new()),
            Standing::Void => ("void".to_string(), String::new(), String::new()),
        };
        view
    }

    /// The membership log.
    pub fn member_records(&self) -> Vec<RecordView> {
        let hex = |hash: &[u8]| data_encoding::HEXLOWER.encode(hash);
        let view = |listed: membership::Listed<'_>| {
            let member = &listed.record.member;
            let says = match listed.record.kind {
                RecordKind::Found | RecordKind::Admit => {
                    format!("{:?}, {}, rank {}, slot {}", member.name, member.role.word(), member.rank, member.slot)
                }
                RecordKind::Role | RecordKind::Recover => member.role.word().to_string(),
                RecordKind::Name => format!("{:?}", member.name),
                RecordKind::Rotate => format!("takes the place of {}", &listed.record.signer.to_string()[..8]),
                RecordKind::Revoke => String::new(),
            };
            RecordView {
                hash: hex(&listed.hash),
                kind: format!("{:?}", listed.record.kind).to_ascii_lowercase(),
                node: member.node.to_string(),
                name: self.membership.member(&member.node).map(|member| member.name.clone()).unwrap_or_default(),
                says,
                by: self.signer_name(&listed.record.signer),
                time: rfc3339(member.admitted_ms),
                counts: listed.counts,
                after: listed.record.after.iter().map(|hash| hex(hash)).collect(),
            }
        };
        self.membership.listed().into_iter().map(view).collect()
    }

    /// Events that their authors say were written after their revocation, newest first of each author.
    pub fn late_events(&self) -> Result<Vec<LateEvent>, NodeError> {
        let mut late = Vec::new();
        let read = self.log.read()?;
        for person in self.membership.people() {
            let Standing::Revoked { at_ms, .. } = person.standing else { continue };
            for (id, head) in self.heads.iter().filter(|(_, head)| head.origin.node == person.member.node) {
                for seq in (head.seq.saturating_sub(LATE_MAX) + 1..=head.seq).rev() {
                    let Some(stored) = read.event(id, seq)? else { break };
                    let header = decode_event(&stored.bytes)?.header;
                    if header.stamp.wall_ms() <= at_ms {
                        break;
                    }
                    let from = self.admitting.taken_from.get(&(*id, seq)).map(|from| self.signer_name(from));
                    late.push(LateEvent {
                        author: person.member.name.clone(),
                        origin: id.to_string(),
                        seq,
                        database: header.database,
                        written: rfc3339(header.stamp.wall_ms()),
                        revoked: rfc3339(at_ms),
                        taken_from: from.unwrap_or_default(),
                    });
                }
            }
        }
        Ok(late)
    }

    /// Notes who passed on an event of an author that is shut out.
    pub(super) fn note_taken(&mut self, from: NodeId, author: NodeId, event: (OriginId, u64)) {
        if matches!(self.membership.standing(&author), Some(Standing::Revoked { .. }))
            && self.admitting.taken_from.len() < TAKEN_MAX
        {
            self.admitting.taken_from.insert(event, from);
        }
    }

    /// After the members changed: nobody who is out is heard or told anything more.
    pub(super) fn note_standing(&mut self) {
        let out: Vec<NodeId> = self
            .exchange
            .peers
            .iter()
            .filter(|(id, peer)| peer.connected && self.is_out(id))
            .map(|(id, _)| *id)
            .collect();
        for peer in out {
            self.exchange.peers.remove(&peer);
        }
        if self.membership.may_connect(&self.id()) {
            self.admitting.shut_out = None;
        }
    }

    /// Whether a node was a member and is none any more.
    pub(super) fn is_out(&self, node: &NodeId) -> bool {
        self.membership.standing(node).is_some_and(|standing| standing != Standing::Active)
    }

    /// A peer closed the connection and showed why. Believed when somebody signed it who was ever a member.
    pub(super) fn note_shut_out(&mut self, by: NodeId, record: &MemberRecord) {
        let about_me = match record.kind {
            RecordKind::Revoke => record.member.node == self.id(),
            RecordKind::Rotate => record.signer == self.id(),
            _ => false,
        };
        let known =
            self.membership.member(&record.signer).is_some() || self.membership.recovery() == Some(record.signer);
        if about_me && known && record.cluster == self.membership.cluster().0 && membership::is_signed(record) {
            self.admitting.shut_out = Some((by, record.member.admitted_ms));
            if let Err(error) = self.learn_members(vec![record.clone()]) {
                tracing::warn!(%error, "the record that shut this node out could not be stored");
            }
        }
    }

    /// What a person should know about the members, in words.
    pub(super) fn member_alerts(&self, now: Now) -> Result<Vec<String>, NodeError> {
        let mut alerts = Vec::new();
        let own = self.id();
        let name = self.membership.member(&own).map(|member| member.name.clone()).unwrap_or_default();
        let stays = "what is here stays here, and the app can go on";
        match (self.membership.standing(&own), self.admitting.shut_out) {
            (Some(Standing::Revoked { by, at_ms }), _) => alerts.push(format!(
                "this node was shut out of the cluster by {} at {}: no member talks to it any more; {stays}. To let it in \
                 again, on an admin: litemesh peers readmit {name}",
                self.signer_name(&by),
                rfc3339(at_ms)
            )),
            (Some(Standing::Retired { .. }), _) => alerts.push(format!(
                "the key of this node is retired, another key has its place: no member talks to it any more; {stays}"
            )),
            (_, Some((by, at_ms))) => alerts.push(format!(
                "{} says that this node was shut out of the cluster at {}, and talks to it no more; {stays}. To let it in \
                 again, on an admin: litemesh peers readmit {name}",
                self.signer_name(&by),
                rfc3339(at_ms)
            )),
            _ => {}
        }
        if self.membership.role(&own) == Some(Role::ReadOnly) {
            let kept = self.kept_here();
            if kept > 0 {
                alerts.push(format!(
                    "{kept} local writes (events) stay here: this node may only read. They go to the others when an admin \
                     says: litemesh peers role {name} member"
                ));
            }
        }
        if let Some((until_ms, wall_ms)) = self.admitting.trust_until
            && now.mono_ms < until_ms
        {
            let until = rfc3339(wall_ms);
            alerts.push(format!(
                "until {until} anybody on the local network can join without a code (litemesh trust-lan off)"
            ));
        }
        alerts.extend(self.admitting.guests.iter().cloned());
        let late = self.late_events()?;
        let authors: std::collections::BTreeSet<&String> = late.iter().map(|event| &event.author).collect();
        for author in authors {
            let count = late.iter().filter(|event| event.author == *author).count();
            alerts.push(format!(
                "{} of {author} {} of being written after its revocation: what came through members that did not know yet. See \
                 litemesh peers late",
                counted(count as u64, "event"),
                fits(count as u64, "tells", "tell")
            ));
        }
        Ok(alerts)
    }

    /// Own events that no other member is known to hold.
    fn kept_here(&self) -> u64 {
        let own = self.heads.iter().filter(|(_, head)| head.origin.node == self.id());
        own.map(|(id, head)| {
            let known = self.exchange.peers.values().filter_map(|peer| peer.heads.get(id)).map(|head| head.seq).max();
            head.seq.saturating_sub(known.unwrap_or(0))
        })
        .sum()
    }

    fn signer_name(&self, node: &NodeId) -> String {
        match self.membership.member(node) {
            Some(member) => member.name.clone(),
            None if self.membership.recovery() == Some(*node) => "recovery phrase".to_string(),
            None => node.to_string(),
        }
    }

    fn named_member(&self, name: &str) -> Result<NodeId, NodeError> {
        match self.membership.by_name(name)[..] {
            [member] => Ok(member.node),
            [] => Err(NodeError::Invalid(format!("no member is called {name:?}: see `litemesh peers members`"))),
            _ => Err(NodeError::Invalid(format!(
                "several members could be meant by {name:?}: use the beginning of the id (`litemesh peers members`)"
            ))),
        }
    }

    pub(super) fn must_be_admin(&self, what: &str) -> Result<(), NodeError> {
        let members = self.membership.members();
        let admins: Vec<&str> =
            members.iter().filter(|member| member.role == Role::Admin).map(|member| member.name.as_str()).collect();
        match self.membership.role(&self.id()) {
            Some(Role::Admin) => Ok(()),
            _ => Err(NodeError::NotEntitled(format!(
                "this node is no admin of the cluster, so it cannot {what}: ask on an admin ({}), or use the recovery \
                 phrase: litemesh recover-admin",
                admins.join(", ")
            ))),
        }
    }

    /// A cluster without an admin admits nobody any more.
    fn must_leave_an_admin(&self, target: &NodeId) -> Result<(), NodeError> {
        let members = self.membership.members();
        let stays = |member: &&&crate::model::Member| member.role == Role::Admin && member.node != *target;
        match members.iter().any(|member| stays(&member)) {
            true => Ok(()),
            false => Err(NodeError::Invalid(
                "this is the only admin of the cluster: make another member an admin first (litemesh peers role NAME admin)"
                    .to_string(),
            )),
        }
    }

    /// Takes over a record that this node made; it goes to the peers with the next hello.
    fn sign_and_tell(&mut self, record: MemberRecord) -> Result<(), NodeError> {
        self.membership.clone().add(record.clone())?;
        self.learn_members(vec![record])?;
        self.due = true;
        Ok(())
    }
}
