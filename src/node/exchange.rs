//! Exchange: heads to peers, events from peers, over a network that may lose, repeat, delay and reorder.
//!
//! Messages: `Hello` says what a log holds; `Pull` asks for what lies above given heads; `Events` answers. A new event is
//! also pushed at once to peers that hold all before it; a lost push is found by the next hello. States of a peer: away →
//! connected (a hello each way) → pulling (one request under way, repeated after [`PULL_WAIT_MS`]) → connected.
//! Invariants: what is sent is durable here; what is received is checked (cluster, membership, chain, signature) before it
//! is stored, and stored before anything else happens; a fork stops its own origin only; memory per peer is bounded by one large event; every message may
//! be lost or repeated without harm. A peer that breaks a rule is reported, its frame dropped, nothing stored.
//! Caller: `node`.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::{Signature, VerifyingKey};

use super::genesis::GENESIS_INCARNATION;
use super::membership::Membership;
use super::{Effect, NodeError, Now};
use crate::log::Log;
use crate::model::{Bug, Event, Head, Heads, NodeId, Origin, OriginId, RecordHash, Stamp, planted};
use crate::wire::event::{decode_event, event_hash, head_signature_message};
use crate::wire::limits;
use crate::wire::message::{Events, Hello, Message, Partial, Piece, Pull, SignedEvent};

/// A pull without an answer is repeated after this, ms.
const PULL_WAIT_MS: u64 = 3_000;

/// Hellos to one peer because heads moved come at most this often, ms.
const HELLO_GAP_MS: u64 = 100;

/// A hello is sent at least this often, ms.
const HELLO_IDLE_MS: u64 = 30_000;

/// An event up to this size is pushed at once, in bytes.
const PUSH_BYTES_MAX: usize = 64 * 1024;

/// What is known of one peer.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    pub(super) connected: bool,
    pub(super) address: String,
    pub(super) heads: Heads,
    pub(super) applied_all: bool,
    pub(super) heard: bool,
    pub(super) skew_ms: Option<i64>,
    pub(super) round_trip_micros: Option<u64>,
    pub(super) last_seen_ms: u64,
    /// Heads as the peer will know them once what was pushed has arrived.
    pushed: BTreeMap<OriginId, u64>,
    pull: Option<PullUnderWay>,
    /// The pieces of a large event held so far.
    partial: Option<(Partial, Vec<u8>)>,
    /// What the last hello told: heads and whether all was applied.
    told: Option<(Heads, bool)>,
    hello_at_ms: u64,
    /// Digests of the membership: as it was when the peer was last sent the records, and as the peer last said.
    members_told: Option<u64>,
    members_heard: Option<u64>,
    /// The newest member records the peer said it holds.
    member_heads: Vec<RecordHash>,
}

#[derive(Clone, Debug)]
struct PullUnderWay {
    request: u64,
    until_ms: u64,
    origins: BTreeSet<OriginId>,
}

/// All peers, and the exchange with them.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    pub(super) peers: BTreeMap<NodeId, Peer>,
    next_request: u64,
    /// Origins of which a peer holds another history than this log, by the first event that differs: not asked for again.
    forked: Forks,
}

/// What the exchange must know of the node.
pub(super) struct Standing<'s> {
    pub(super) log: &'s Log,
    pub(super) heads: &'s Heads,
    pub(super) membership: &'s Membership,
    pub(super) name: &'s str,
    pub(super) applied_all: bool,
    pub(super) now: Now,
}

impl Standing<'_> {
    /// Whether events of this origin may be stored: its author is a member, as far as is known here.
    fn knows(&self, origin: &Origin) -> bool {
        origin.incarnation == GENESIS_INCARNATION || self.membership.member(&origin.node).is_some()
    }

    /// Whether events of this origin may be stored, and taken from this peer: not what a read-only member says itself.
    fn takes(&self, origin: &Origin, from: &NodeId) -> bool {
        self.knows(origin) && (origin.node != *from || self.membership.may_write(from))
    }
}

/// Events that passed all checks, in order.
pub(super) struct Accepted {
    pub(super) event: Event,
    pub(super) bytes: Vec<u8>,
    pub(super) hash: [u8; 32],
    pub(super) signature: Option<[u8; 64]>,
}

/// Origins with two histories, by the number of the first event that differs.
pub(super) type Forks = BTreeMap<OriginId, u64>;

impl Exchange {
    pub(super) fn connected(&mut self, peer: NodeId, address: String, standing: &Standing<'_>) -> Vec<Effect> {
        let known = self.peers.remove(&peer).unwrap_or_default();
        let fresh = Peer {
            connected: true,
            address,
            heads: known.heads,
            applied_all: known.applied_all,
            last_seen_ms: standing.now.wall_ms,
            skew_ms: known.skew_ms,
            ..Peer::default()
        };
        self.peers.insert(peer, fresh);
        vec![self.hello(peer, true, standing)]
    }

    pub(super) fn disconnected(&mut self, peer: NodeId, now: Now) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            let last = Peer {
                connected: false,
                pull: None,
                partial: None,
                told: None,
                pushed: BTreeMap::new(),
                round_trip_micros: None,
                last_seen_ms: now.wall_ms,
                ..std::mem::take(peer)
            };
            *peer = last;
        }
    }

    fn hello(&mut self, to: NodeId, reply: bool, standing: &Standing<'_>) -> Effect {
        let peer = self.peers.entry(to).or_default();
        let membership = standing.membership.digest();
        // Told is not heard: frames get lost, and without the records the peer takes the newcomers for strangers.
        let members: Vec<_> = if peer.members_heard == Some(membership) {
            Vec::new()
        } else {
            standing.membership.lacking(&peer.member_heads)
        };
        peer.members_told = Some(membership);
        peer.told = Some((standing.heads.clone(), standing.applied_all));
        peer.hello_at_ms = standing.now.mono_ms;
        let hello = Hello {
            version: limits::PROTOCOL_VERSION,
            name: standing.name.to_string(),
            wall_ms: standing.now.wall_ms,
            heads: standing.heads.values().copied().collect(),
            applied_all: standing.applied_all,
            members,
            reply,
            membership,
            member_heads: standing.membership.heads(),
        };
        Effect::Send { peer: to, frame: Message::Hello(hello).encode() }
    }

    /// Takes a hello: heads, skew. The caller has taken over the members.
    pub(super) fn handle_hello(&mut self, from: NodeId, hello: &Hello, standing: &Standing<'_>) -> Vec<Effect> {
        let peer = self.peers.entry(from).or_default();
        peer.heard = true;
        peer.last_seen_ms = standing.now.wall_ms;
        peer.skew_ms = Some(crate::clock::skew_ms(hello.wall_ms, standing.now.wall_ms));
        peer.applied_all = hello.applied_all;
        peer.members_heard = Some(hello.membership);
        peer.member_heads.clone_from(&hello.member_heads);
        peer.take_heads(&hello.heads);
        let mut effects = Vec::new();
        if hello.reply {
            effects.push(self.hello(from, false, standing));
        }
        effects.extend(self.pull(from, standing));
        effects
    }

    /// Asks a peer for what it has and this log lacks, unless somebody else was just asked for it.
    pub(super) fn pull(&mut self, from: NodeId, standing: &Standing<'_>) -> Option<Effect> {
        let now_ms = standing.now.mono_ms;
        let asked: BTreeSet<OriginId> = self
            .peers
            .iter()
            .filter(|(id, peer)| **id != from && peer.connected)
            .filter_map(|(_, peer)| peer.pull.as_ref().filter(|pull| pull.until_ms > now_ms))
            .flat_map(|pull| pull.origins.iter().copied())
            .collect();
        let peer = self.peers.get_mut(&from).filter(|peer| peer.connected)?;
        if peer.pull.as_ref().is_some_and(|pull| pull.until_ms > now_ms) {
            return None;
        }
        crate::sometimes!(peer.pull.is_some(), "exchange: a pull without an answer is repeated");
        peer.pull = None;
        let forked = &self.forked;
        let above = |head: &&Head| {
            !forked.contains_key(&head.origin.id())
                && standing.takes(&head.origin, &from)
                && standing.heads.get(&head.origin.id()).map_or(0, |mine| mine.seq) < head.seq
        };
        let wanted: BTreeSet<OriginId> =
            peer.heads.values().filter(above).map(|head| head.origin.id()).filter(|id| !asked.contains(id)).collect();
        if wanted.is_empty() {
            return None;
        }
        self.next_request += 1;
        // Origins that somebody else is sending are said to be here already, and so are those that forked, and those whose
        // author is no member as far as is known here.
        let spared = |id: &OriginId| asked.contains(id) || forked.contains_key(id);
        let spared =
            peer.heads.values().filter(|head| spared(&head.origin.id()) || !standing.takes(&head.origin, &from));
        crate::sometimes!(!asked.is_empty(), "exchange: an origin is left to the peer that was asked for it");
        let mut heads = standing.heads.clone();
        heads.extend(spared.map(|head| (head.origin.id(), *head)));
        let partial = peer.partial.as_ref().map(|(partial, _)| *partial);
        let until_ms = if planted(Bug::PullOnce) { u64::MAX } else { now_ms + PULL_WAIT_MS };
        peer.pull = Some(PullUnderWay { request: self.next_request, until_ms, origins: wanted });
        let pull = Pull {
            request: self.next_request,
            heads: heads.into_values().collect(),
            max_bytes: limits::PULL_BYTES as u32,
            partial,
        };
        Some(Effect::Send { peer: from, frame: Message::Pull(pull).encode() })
    }

    /// Answers a pull with as much as fits one frame.
    pub(super) fn answer(&mut self, to: NodeId, pull: &Pull, standing: &Standing<'_>) -> Result<Effect, NodeError> {
        let have: BTreeMap<OriginId, u64> = pull.heads.iter().map(|head| (head.origin.id(), head.seq)).collect();
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.pushed.clear();
        }
        let budget = (pull.max_bytes as usize).clamp(1, limits::PULL_BYTES);
        let read = standing.log.read()?;
        let mut answer = Events { request: pull.request, applied_all: standing.applied_all, ..Events::default() };
        let mut used = 0;
        'origins: for (id, head) in standing.heads {
            let mut seq = have.get(id).copied().unwrap_or(0) + 1;
            while seq <= head.seq {
                let Some(stored) = read.event(id, seq)? else { break };
                if stored.bytes.len() > limits::PIECE_BYTES {
                    answer.more = true;
                    if answer.events.is_empty() {
                        let held = pull.partial.filter(|partial| partial.origin == *id && partial.seq == seq);
                        answer.piece = Some(piece(
                            *id,
                            seq,
                            held.map_or(0, |partial| partial.offset),
                            &stored.bytes,
                            stored.signature,
                        ));
                    }
                    break 'origins;
                }
                if used > 0 && used + stored.bytes.len() > budget {
                    answer.more = true;
                    break 'origins;
                }
                used += stored.bytes.len() + 96;
                answer.events.push(SignedEvent { bytes: stored.bytes, signature: stored.signature });
                seq += 1;
            }
        }
        crate::sometimes!(answer.more, "exchange: a pull is answered in pages");
        if !answer.more {
            answer.heads = standing.heads.values().copied().collect();
        }
        Ok(Effect::Send { peer: to, frame: Message::Events(answer).encode() })
    }

    /// Takes the events of an answer or a push: those that may be stored, in order; and forks that were not known
    /// before. What others wrote is taken all the same.
    pub(super) fn receive(
        &mut self,
        from: NodeId,
        events: Events,
        standing: &Standing<'_>,
    ) -> Result<(Vec<Accepted>, Forks), NodeError> {
        let peer = self.peers.entry(from).or_default();
        peer.last_seen_ms = standing.now.wall_ms;
        let answers = peer.pull.as_ref().is_some_and(|pull| pull.request == events.request);
        if answers {
            peer.pull = None;
        }
        if !events.heads.is_empty() {
            peer.take_heads(&events.heads);
            peer.applied_all = events.applied_all;
        }
        let mut signed = events.events;
        if let Some(piece) = events.piece {
            signed.extend(peer.assemble(piece));
        }
        let (accepted, forks) = check(signed, Some(from), standing)?;
        let above = |head: &Head| {
            standing.takes(&head.origin, &from)
                && standing.heads.get(&head.origin.id()).map_or(0, |mine| mine.seq) < head.seq
        };
        if answers && accepted.is_empty() && !events.more && peer.heads.values().any(above) {
            // It has more and gave nothing that can be taken: asking at once would go on for ever.
            crate::sometimes!("exchange: an answer brings nothing, though the peer holds more");
            let until_ms = standing.now.mono_ms + PULL_WAIT_MS;
            peer.pull = Some(PullUnderWay { request: 0, until_ms, origins: BTreeSet::new() });
        }
        let fresh = forks.into_iter().filter(|(origin, _)| !self.forked.contains_key(origin));
        let fresh: Forks = fresh.collect();
        self.forked.extend(&fresh);
        Ok((accepted, fresh))
    }

    /// Notes that a peer holds these events (it sent them).
    pub(super) fn peer_holds(&mut self, from: NodeId, accepted: &[Accepted]) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        for accepted in accepted {
            let header = &accepted.event.header;
            peer.take_heads(&[Head { origin: header.origin, seq: header.seq, hash: accepted.hash }]);
        }
    }

    /// Sends fresh small events to every connected peer that holds all events before them.
    pub(super) fn push(&mut self, fresh: &[(Head, SignedEvent)], standing: &Standing<'_>) -> Vec<Effect> {
        let size: usize = fresh.iter().map(|(_, event)| event.bytes.len()).sum();
        let (Some((first, _)), true) = (fresh.first(), size <= PUSH_BYTES_MAX) else { return Vec::new() };
        let origin = first.origin.id();
        let mut effects = Vec::new();
        for (id, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.connected && peer.heard) {
            let known = peer.heads.get(&origin).map_or(0, |head| head.seq);
            let expected = known.max(peer.pushed.get(&origin).copied().unwrap_or(0));
            if expected + 1 != first.seq {
                crate::sometimes!("exchange: an event is not pushed to a peer that lacks those before it");
                continue;
            }
            if let Some((last, _)) = fresh.last() {
                peer.pushed.insert(origin, last.seq);
            }
            let events = Events {
                request: 0,
                events: fresh.iter().map(|(_, event)| event.clone()).collect(),
                applied_all: standing.applied_all,
                ..Events::default()
            };
            effects.push(Effect::Send { peer: *id, frame: Message::Events(events).encode() });
        }
        effects
    }

    /// Hellos that ask for one back, to one connected peer or all.
    pub(super) fn greet(&mut self, peer: Option<NodeId>, standing: &Standing<'_>) -> Vec<Effect> {
        let asked =
            |(id, known): (&NodeId, &Peer)| (known.connected && peer.is_none_or(|only| only == *id)).then_some(*id);
        let greeted: Vec<NodeId> = self.peers.iter().filter_map(asked).collect();
        greeted.into_iter().map(|id| self.hello(id, true, standing)).collect()
    }

    /// Takes a gossiped announcement: the author, if connected, has these heads; anybody else is asked at the next tick.
    pub(super) fn announced(&mut self, heads: &[Head], mine: &Heads) {
        for head in heads {
            let known = mine.get(&head.origin.id()).map_or(0, |mine| mine.seq);
            if known >= head.seq {
                continue;
            }
            match self.peers.get_mut(&head.origin.node).filter(|peer| peer.connected) {
                Some(author) => author.take_heads(&[*head]),
                // A stranger's word starts a question, not a belief.
                None => {
                    crate::sometimes!("exchange: hearsay starts a question");
                    self.peers.values_mut().for_each(|peer| peer.told = None);
                }
            }
        }
    }

    /// Whether some connected peer other than `from` is not known to hold these heads.
    pub(super) fn somebody_lacks(&self, heads: &[Head], from: NodeId) -> bool {
        let lacks =
            |peer: &Peer, head: &Head| peer.heads.get(&head.origin.id()).map_or(0, |known| known.seq) < head.seq;
        let others = self.peers.iter().filter(|(id, peer)| **id != from && peer.connected);
        others.into_iter().any(|(_, peer)| heads.iter().any(|head| lacks(peer, head)))
    }

    /// Hellos and pulls that are due.
    pub(super) fn tick(&mut self, standing: &Standing<'_>) -> Vec<Effect> {
        let now_ms = standing.now.mono_ms;
        let connected: Vec<NodeId> = self.peers.iter().filter(|(_, peer)| peer.connected).map(|(id, _)| *id).collect();
        let mut effects = Vec::new();
        for id in connected {
            let peer = &self.peers[&id];
            let news =
                peer.told.as_ref().is_none_or(|(heads, all)| heads != standing.heads || *all != standing.applied_all)
                    || peer.members_told != Some(standing.membership.digest());
            let gap = if news { HELLO_GAP_MS } else { HELLO_IDLE_MS };
            if now_ms >= peer.hello_at_ms + gap && (news || !planted(Bug::HelloOnce)) {
                let asks = !news || peer.told.is_none() || !peer.heard;
                effects.push(self.hello(id, asks, standing));
            }
            effects.extend(self.pull(id, standing));
        }
        effects
    }

    /// When [`Exchange::tick`] is wanted next, monotonic ms.
    pub(super) fn deadline_ms(&self, heads: &Heads, applied_all: bool, members: u64) -> Option<u64> {
        let of_peer = |peer: &Peer| {
            let news = peer.told.as_ref().is_none_or(|(told, all)| told != heads || *all != applied_all)
                || peer.members_told != Some(members);
            let hello = peer.hello_at_ms + if news { HELLO_GAP_MS } else { HELLO_IDLE_MS };
            peer.pull.as_ref().map_or(hello, |pull| hello.min(pull.until_ms))
        };
        self.peers.values().filter(|peer| peer.connected).map(of_peer).min()
    }
}

impl Peer {
    fn take_heads(&mut self, heads: &[Head]) {
        for head in heads.iter().take(limits::HEADS_MAX) {
            let known = self.heads.entry(head.origin.id()).or_insert(*head);
            if known.seq < head.seq {
                *known = *head;
            }
        }
    }

    /// Adds a piece of a large event; the event once it is whole.
    fn assemble(&mut self, piece: Piece) -> Option<SignedEvent> {
        let (mut partial, mut bytes) = match self.partial.take() {
            Some((partial, bytes)) if partial.origin == piece.origin && partial.seq == piece.seq => (partial, bytes),
            _ => (Partial { origin: piece.origin, seq: piece.seq, offset: 0 }, Vec::new()),
        };
        let fits = piece.offset == bytes.len() as u64
            && piece.total <= limits::EVENT_BYTES_MAX as u64 + 64
            && piece.offset + piece.bytes.len() as u64 <= piece.total;
        if fits {
            bytes.extend_from_slice(&piece.bytes);
            partial.offset = bytes.len() as u64;
        }
        if fits && partial.offset == piece.total && bytes.len() > 64 {
            let signature = bytes.split_off(bytes.len() - 64).try_into().ok();
            return Some(SignedEvent { bytes, signature });
        }
        if !bytes.is_empty() {
            self.partial = Some((partial, bytes));
        }
        None
    }
}

/// A piece of a large event: of its bytes followed by the 64 bytes of its signature.
fn piece(origin: OriginId, seq: u64, offset: u64, bytes: &[u8], signature: Option<[u8; 64]>) -> Piece {
    let whole: Vec<u8> = bytes.iter().copied().chain(signature.unwrap_or([0; 64])).collect();
    let start = (offset as usize).min(whole.len());
    let end = (start + limits::PIECE_BYTES).min(whole.len());
    Piece { origin, seq, offset: start as u64, total: whole.len() as u64, bytes: whole[start..end].to_vec() }
}

/// R1's first half: what may enter the log. Events that are known already are skipped; a gap ends the run (it will be
/// pulled). The last event of every origin's run must be signed: the chain vouches for those before it.
pub(super) fn check(
    signed: Vec<SignedEvent>,
    from: Option<NodeId>,
    standing: &Standing<'_>,
) -> Result<(Vec<Accepted>, Forks), NodeError> {
    let fault = |reason: &str| NodeError::PeerFault { reason: reason.to_string() };
    let mut heads: BTreeMap<OriginId, (u64, [u8; 32])> =
        standing.heads.iter().map(|(id, head)| (*id, (head.seq, head.hash))).collect();
    let mut accepted: Vec<Accepted> = Vec::new();
    let mut forks = Forks::new();
    for one in signed {
        let event = decode_event(&one.bytes).map_err(|error| fault(&format!("an event does not decode: {error}")))?;
        let header = &event.header;
        if header.cluster != standing.membership.cluster().0 {
            return Err(fault("an event of another cluster"));
        }
        // Whoever sends it may know of an admission that is still on its way to here: nobody is to blame.
        if !standing.knows(&header.origin) {
            crate::sometimes!("exchange: an event comes before its author's admission");
            continue;
        }
        if from.is_some_and(|from| !standing.takes(&header.origin, &from)) {
            // A read-only member's own: it may not know yet that it is one.
            continue;
        }
        if header.stamp > Stamp::from_wall_ms(u64::MAX) {
            return Err(fault("an event from beyond the end of time"));
        }
        let id = header.origin.id();
        let (seq, hash) = heads.get(&id).copied().unwrap_or((0, [0; 32]));
        let older = planted(Bug::SinceByTime) && header.stamp < standing.log.read()?.clock()?;
        if header.seq <= seq || older {
            continue;
        }
        if header.seq != seq + 1 {
            continue;
        }
        if header.previous != hash {
            crate::sometimes!("exchange: a fork is refused");
            forks.entry(id).or_insert(header.seq);
            continue;
        }
        let hash = event_hash(&one.bytes);
        heads.insert(id, (header.seq, hash));
        accepted.push(Accepted { event, bytes: one.bytes, hash, signature: one.signature });
    }
    let mut vouched: BTreeSet<OriginId> = BTreeSet::new();
    let mut kept: Vec<Accepted> = Vec::with_capacity(accepted.len());
    for one in accepted.into_iter().rev() {
        let origin = one.event.header.origin;
        if !vouched.contains(&origin.id()) {
            crate::sometimes!(one.signature.is_none(), "exchange: the end of a run is unsigned and left");
            let Some(signature) = &one.signature else { continue };
            let message = head_signature_message(&one.event.header.cluster, &one.hash);
            let valid = VerifyingKey::from_bytes(&origin.node.0)
                .is_ok_and(|key| key.verify_strict(&message, &Signature::from_bytes(signature)).is_ok());
            if !valid && !planted(Bug::SignatureUnchecked) {
                return Err(fault("an event whose signature is wrong"));
            }
            vouched.insert(origin.id());
        }
        kept.push(one);
    }
    kept.reverse();
    Ok((kept, forks))
}
