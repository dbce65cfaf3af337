//! Hellos: who stands where.
//!
//! A hello carries a digest of the sender's heads. Equal digests: both know all, nothing else travels. Else the sender adds
//! the heads that it has not told yet on this connection; the receiver holds them against the digest and asks for all of
//! them (`tell`) when something was lost. More heads than fit one frame come in several. Member records go the same way: by a
//! digest, the records only to who said another one. Told is not heard: frames get lost.
//! Invariant: after a hello that fits, what is known of the peer's heads is exactly what it held. Caller: [`super`].

use super::peer::Told;
use super::{Exchange, Peer, Standing};
use crate::model::{Head, Heads, NodeId};
use crate::node::Effect;
use crate::node::tally::{Subject, Work};
use crate::wire::limits;
use crate::wire::message::{Hello, Message, digest_of};

/// Hellos overtake each other by a few; a number far below the last one is a peer that began anew.
const OVERTAKES_MAX: u32 = 64;

/// Names of member records in the first hello, at most: in sync it must stay small.
const NAMES_FIRST_MAX: usize = 2;

impl Exchange {
    /// A hello, in as many frames as its heads need. `all`: the peer wants to hear all heads.
    pub(super) fn hello(&mut self, to: NodeId, reply: bool, all: bool, standing: &Standing<'_>) -> Vec<Effect> {
        let (version, digest) = (self.version, digest_of(standing.heads));
        let content = self.content.filter(|_| standing.applied_all);
        let membership = standing.membership.digest();
        let peer = self.peers.entry(to).or_default();
        let speaks = if version == 1 { 1 } else { peer.version };
        let told = Told { applied_all: standing.applied_all, members: membership };
        let heads: Vec<Head> = match speaks {
            0 => Vec::new(),
            1 => standing.heads.values().copied().collect(),
            _ if all => standing.heads.values().copied().collect(),
            _ if peer.digest_heard == Some(digest) => Vec::new(),
            _ => standing.heads.values().filter(|head| !peer.was_told(head)).copied().collect(),
        };
        // Without the records the peer takes newcomers for strangers; before it spoke, nobody knows which it lacks.
        let members = if speaks == 0 || peer.members_heard == Some(membership) {
            Vec::new()
        } else {
            standing.membership.lacking(&peer.member_heads)
        };
        // Names of records are told to who may need them; to who has not spoken only where they are few.
        let names = match peer.members_heard == Some(membership) && speaks >= 2 {
            true => Vec::new(),
            false => standing.membership.heads(),
        };
        let member_heads = if speaks == 0 && names.len() > NAMES_FIRST_MAX { Vec::new() } else { names };
        let lacking = peer.lacking_ms.is_some_and(|since| standing.now.mono_ms >= since + super::HEADS_WAIT_MS);
        peer.told_heads = standing.heads.clone();
        peer.heads_told |= speaks > 0;
        peer.told = Some(told);
        peer.hello_at_ms = standing.now.mono_ms;
        peer.news_ms = None;
        peer.ask = false;
        peer.lacking_asks += u32::from(lacking);
        let mut hellos = Vec::new();
        let pages = heads.len().div_ceil(limits::HEADS_MAX).max(1);
        let mut members = Some(members);
        for page in 0..pages {
            let last = page + 1 == pages;
            peer.hello_number = peer.hello_number.wrapping_add(1);
            let mut hello = Hello {
                version,
                name: standing.name.to_string(),
                wall_ms: standing.now.wall_ms,
                heads: heads.iter().skip(page * limits::HEADS_MAX).take(limits::HEADS_MAX).copied().collect(),
                applied_all: standing.applied_all,
                members: members.take().unwrap_or_default(),
                reply: reply && last,
                membership,
                member_heads: member_heads.clone(),
                snapshot_rows: self.snapshot_rows,
                ..Hello::default()
            };
            if version >= 2 {
                hello.oldest = limits::PROTOCOL_VERSION_MIN;
                hello.heads_digest = digest;
                hello.number = peer.hello_number;
                hello.tell = lacking && last;
                hello.all = all && speaks >= 2;
                hello.more = !last;
                hello.content = content.filter(|_| last);
            }
            hellos.push(Effect::Send { peer: to, frame: Message::Hello(hello).encode() });
        }
        hellos
    }

    /// Takes a hello: heads, skew. The caller has taken over the members.
    pub(in crate::node) fn handle_hello(
        &mut self,
        from: NodeId,
        hello: &Hello,
        standing: &Standing<'_>,
    ) -> Vec<Effect> {
        let (version, now) = (self.version, standing.now);
        let peer = self.peers.entry(from).or_default();
        peer.version = hello.version.max(1);
        peer.last_seen_ms = now.wall_ms;
        peer.skew_ms = Some(crate::clock::skew_ms(hello.wall_ms, now.wall_ms));
        peer.applied_all = hello.applied_all;
        peer.members_heard = Some(hello.membership);
        if !hello.member_heads.is_empty() {
            peer.member_heads.clone_from(&hello.member_heads);
        }
        let mine = digest_of(standing.heads);
        if version == 1 || hello.version < 2 {
            peer.take_heads(&hello.heads);
            peer.heard = true;
        } else if !peer.take_stand(hello, standing.heads, mine, now.mono_ms) {
            return Vec::new();
        }
        peer.content =
            hello.content.filter(|_| hello.applied_all).map(|content| (hello.heads_digest, hello.membership, content));
        // Which hello this one answers nobody knows: the round trip is what a comparison costs.
        let took_ms = peer.round_trip_micros.unwrap_or(0) / 1000;
        let (lacking, asks) = (peer.lacking_ms.is_some(), peer.lacking_asks);
        let differs = peer.digest_heard.is_some_and(|digest| digest != mine);
        if !lacking {
            self.tally.done(Work::Reconcile, Subject::Peer(from), 1, 0, took_ms);
        } else if asks > 0 {
            let words = "peer: its heads do not fit what it says of them";
            self.tally.failed(Work::Reconcile, Subject::Peer(from), took_ms, words);
        }
        let untold = differs && (!peer.heads_told || peer.told_heads != *standing.heads);
        let mut effects = Vec::new();
        if hello.tell {
            effects.extend(self.hello(from, false, true, standing));
        } else if hello.reply || untold {
            effects.extend(self.hello(from, false, false, standing));
        }
        effects.extend(self.pull(standing));
        effects
    }

    /// All heads of a peer, if its last hello said, or proved, all of them.
    pub(in crate::node) fn stated(&self, peer: &NodeId) -> Option<&Heads> {
        let peer = self.peers.get(peer)?;
        (peer.heard && peer.lacking_ms.is_none()).then_some(&peer.heads)
    }

    /// Hellos that ask for one back, to one connected peer or all.
    pub(in crate::node) fn greet(&mut self, peer: Option<NodeId>, standing: &Standing<'_>) -> Vec<Effect> {
        let asked =
            |(id, known): (&NodeId, &Peer)| (known.connected && peer.is_none_or(|only| only == *id)).then_some(*id);
        let greeted: Vec<NodeId> = self.peers.iter().filter_map(asked).collect();
        greeted.into_iter().flat_map(|id| self.hello(id, true, false, standing)).collect()
    }
}

impl Peer {
    /// Takes the heads of a hello of version 2. `false`: it says nothing (it was overtaken, or more of it is to come).
    fn take_stand(&mut self, hello: &Hello, mine: &Heads, my_digest: u64, now_ms: u64) -> bool {
        let behind = self.number_heard.wrapping_sub(hello.number);
        if (1..=OVERTAKES_MAX).contains(&behind) {
            return hello.reply || hello.tell;
        }
        self.number_heard = hello.number;
        self.digest_heard = Some(hello.heads_digest);
        if hello.all {
            let room = limits::PEER_HEADS_MAX.saturating_sub(self.gathered.len());
            self.gathered.extend(hello.heads.iter().take(room).map(|head| (head.origin.id(), *head)));
        } else {
            self.take_heads(&hello.heads);
        }
        if hello.more {
            return false;
        }
        let gathered = std::mem::take(&mut self.gathered);
        if hello.all && digest_of(&gathered) == hello.heads_digest {
            self.heads = gathered;
        } else {
            self.take_heads(&gathered.into_values().collect::<Vec<_>>());
        }
        if hello.heads_digest == my_digest {
            self.heads = mine.clone();
        }
        if digest_of(&self.heads) == hello.heads_digest {
            self.lacking_ms = None;
            self.lacking_asks = 0;
            self.heard = true;
        } else {
            self.lacking_ms.get_or_insert(now_ms);
        }
        true
    }
}
