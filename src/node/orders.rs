//! What people order: invites, addresses; and what the cluster tells of its members.
//!
//! Invariant: durable when the method returns. Callers: http, net, cli (through the node's port).

use super::exchange::Peer;
use super::invite::{InviteError, Invites, JoinRequest, Refusal, redeem};
use super::membership::Membership;
use super::view::KnownAddress;
use super::{Effect, Node, NodeError, Now};
use crate::log::{Log, LogWrite};
use crate::merge::rank::Ranks;
use crate::model::{Head, Heads, MemberRecord, NodeId, OriginId, Role};
use crate::wire::invite::InviteCode;
use crate::wire::limits::{REMEMBERED_MAX, REMEMBERED_PER_PEER_MAX};
use crate::wire::member::{decode_member, encode_member, record_hash};

/// Under this name the log keeps the list of invites.
const INVITES_KEY: &str = "invites";

impl Node {
    /// The members of the cluster.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Makes a join code from 16 random bytes: who brings it back in time becomes a member. `addresses`: where this node
    /// can be reached.
    pub fn invite(
        &mut self,
        secret: [u8; 16],
        addresses: Vec<String>,
        lifetime_ms: u64,
        now: Now,
    ) -> Result<InviteCode, NodeError> {
        self.invite_as(secret, Role::Member, addresses, lifetime_ms, now)
    }

    /// The same for a role.
    pub fn invite_as(
        &mut self,
        secret: [u8; 16],
        role: Role,
        addresses: Vec<String>,
        lifetime_ms: u64,
        now: Now,
    ) -> Result<InviteCode, NodeError> {
        let key_seed = self.settings.key_seed;
        let mut invites = self.invites.clone();
        let code = invites
            .create_for(&key_seed, &self.membership, (secret, role), addresses, (now.wall_ms, lifetime_ms))
            .map_err(|error| match error {
                InviteError::NoAdmin => NodeError::NotEntitled(error.to_string()),
                InviteError::TooMany => NodeError::Invalid(error.to_string()),
            })?;
        self.store_invites(invites)?;
        Ok(code)
    }

    /// Redeems an invite: all member records, the founder's first, the joiner's among them. The secret is burnt, durably,
    /// before this returns.
    pub fn redeem(&mut self, request: &JoinRequest, now: Now) -> Result<Vec<MemberRecord>, Refusal> {
        if let Some(knock) = &request.lan {
            let record = self.admit_lan(request, knock, now)?;
            self.learn_members(vec![record]).map_err(|_| Refusal::Busy)?;
            return Ok(self.membership.records().into_iter().cloned().collect());
        }
        let mut invites = self.invites.clone();
        let result = redeem(&mut invites, &self.membership, &self.settings.key_seed, request, now.wall_ms);
        self.store_invites(invites).map_err(|_| Refusal::Busy)?;
        self.learn_members(vec![result?]).map_err(|_| Refusal::Busy)?;
        Ok(self.membership.records().into_iter().cloned().collect())
    }

    fn store_invites(&mut self, invites: Invites) -> Result<(), NodeError> {
        if invites != self.invites {
            let mut write = self.log.write()?;
            write.put_meta(INVITES_KEY, &invites.to_bytes())?;
            write.commit_durable()?;
            self.invites = invites;
        }
        Ok(())
    }

    /// Takes over member records that fit the cluster; others are dropped.
    pub(super) fn learn_members(&mut self, records: Vec<MemberRecord>) -> Result<(), NodeError> {
        let mut membership = self.membership.clone();
        let (grew, refused) = membership.add_all(records);
        refused.iter().for_each(|error| tracing::warn!(%error, "a member record was dropped"));
        if grew {
            let mut write = self.log.write()?;
            store_members(&mut write, &membership)?;
            write.commit_durable()?;
            self.membership = membership;
            self.rank_origins();
            self.steer_files();
            self.effects.push_back(Effect::MembersChanged);
            self.note_standing();
        }
        Ok(())
    }

    /// This node's slot, once it is a member.
    pub(super) fn slot(&self) -> Option<u32> {
        self.membership.member(&self.chain.origin().node).map(|member| member.slot)
    }

    /// Tells the files this node's slot; the next look at each puts its triggers right.
    fn steer_files(&mut self) {
        let slot = self.slot();
        for database in &mut self.databases {
            if database.file.set_slot(slot) {
                database.data_version = None;
            }
        }
    }

    /// Gives every origin of the log its node's rank and slot.
    pub(super) fn rank_origins(&mut self) {
        let taken_in = self.exchange.tails.iter().map(|(id, tail)| (*id, tail.base));
        let known: Heads = self.heads.iter().map(|(id, head)| (*id, *head)).chain(taken_in).collect();
        self.ranks = ranks(&known, &self.membership);
        let own = self.chain.origin();
        if let Some(member) = self.membership.member(&own.node) {
            self.ranks.set(own.id(), member.rank, member.slot);
        }
    }

    /// Remembers a way to reach a peer, across restarts. The oldest one of the peer makes room, and beyond all bounds
    /// nothing is remembered; what a person named without a key stays.
    pub fn add_address(&mut self, address: KnownAddress) -> Result<(), NodeError> {
        let all = self.known_addresses()?;
        let is_same = |known: &&KnownAddress| known.address == address.address && known.peer == address.peer;
        let known = all.iter().find(is_same);
        if known.is_some_and(|known| known.reached_ms >= address.reached_ms) {
            return Ok(());
        }
        let of_peer = all.iter().filter(|other| other.peer == address.peer && !other.peer.is_empty());
        let mut write = self.log.write()?;
        if known.is_none() && of_peer.clone().count() >= REMEMBERED_PER_PEER_MAX {
            if let Some(oldest) = of_peer.min_by_key(|other| other.reached_ms) {
                write.drop_address(&oldest.address, &oldest.peer)?;
            }
        } else if known.is_none() && all.len() >= REMEMBERED_MAX {
            return Ok(());
        }
        write.put_address(&address.address, &address.peer, address.reached_ms)?;
        write.commit_durable()?;
        Ok(())
    }

    /// Ways to reach peers, as remembered.
    pub fn known_addresses(&self) -> Result<Vec<KnownAddress>, NodeError> {
        let known = self.log.read()?.addresses()?;
        Ok(known.into_iter().map(|(address, peer, reached_ms)| KnownAddress { peer, address, reached_ms }).collect())
    }

    /// Whether each of `peers` (empty: every connected one) has said where it stands at or after this wall time.
    pub fn heard_since(&self, peers: &[NodeId], wall_ms: u64) -> bool {
        let fresh = |peer: &Peer| peer.heard && peer.last_seen_ms >= wall_ms;
        let known = &self.exchange.peers;
        match peers {
            [] => known.values().filter(|peer| peer.connected).all(fresh),
            _ => peers.iter().all(|id| known.get(id).is_some_and(|peer| peer.connected && fresh(peer))),
        }
    }

    /// Whether this node and each of `peers` (empty: every connected one) hold the same events and show them all. False
    /// while a named peer is away.
    pub fn in_sync(&self, peers: &[NodeId]) -> bool {
        let all: Vec<NodeId> =
            self.exchange.peers.iter().filter(|(_, peer)| peer.connected).map(|(id, _)| *id).collect();
        let asked = if peers.is_empty() { all.as_slice() } else { peers };
        let same = |id: &NodeId| {
            self.exchange.peers.get(id).is_some_and(|peer| {
                peer.connected && peer.heard && peer.applied_all && self.equal_heads(id, &peer.heads)
            })
        };
        self.applied_all() && asked.iter().all(same)
    }
}

impl Node {
    /// Whether a peer's heads are this node's. What a read-only member wrote itself stays there and is no difference.
    fn equal_heads(&self, peer: &NodeId, theirs: &Heads) -> bool {
        let kept = |head: &Head| {
            let author = head.origin.node;
            (author == *peer || author == self.id()) && self.membership.role(&author) == Some(Role::ReadOnly)
        };
        let told = |(id, head): (&OriginId, &Head)| (!kept(head)).then_some((*id, *head));
        self.heads.iter().filter_map(told).eq(theirs.iter().filter_map(told))
    }
}

/// Rank and slot of every origin in a log.
pub(super) fn ranks(heads: &Heads, membership: &Membership) -> Ranks {
    let mut ranks = Ranks::default();
    for (id, head) in heads {
        if let Some(member) = membership.member(&head.origin.node) {
            ranks.set(*id, member.rank, member.slot);
        }
    }
    ranks
}

/// Writes all member records.
pub(super) fn store_members(write: &mut LogWrite, membership: &Membership) -> Result<(), NodeError> {
    for record in membership.records() {
        write.put_member(&record_hash(record), &encode_member(record))?;
    }
    Ok(())
}

/// The membership a log holds; `None` when the data directory belongs to no cluster yet.
pub(super) fn load_membership(log: &Log) -> Result<Option<Membership>, NodeError> {
    let mut records = Vec::new();
    for bytes in log.read()?.members()? {
        records.push(decode_member(&bytes)?);
    }
    let Some(founder) = records.iter().position(|record| record.cluster == [0; 32]) else { return Ok(None) };
    let mut membership = Membership::new(records.swap_remove(founder))?;
    let (_, refused) = membership.add_all(records);
    refused.into_iter().next().map_or(Ok(Some(membership)), |error| Err(error.into()))
}

/// The invites a log holds.
pub(super) fn load_invites(log: &Log) -> Result<Invites, NodeError> {
    Ok(match log.read()?.meta(INVITES_KEY)? {
        Some(bytes) => Invites::from_bytes(&bytes)?,
        None => Invites::default(),
    })
}
