//! Exchange: heads to peers, events from peers, over a network that may lose, repeat, delay and reorder.
//!
//! Messages: `Hello` says what a log holds (a digest; the heads themselves only to who has other ones); `Pull` asks for ranges
//! of events; `Events` answers. A new event is also pushed at once to peers that hold all before it; a lost push is found by
//! the next hello. A peer of version 1 is told all heads, asked for all above given heads, and never sent what it does not
//! know.
//!
//! States of a peer: away → connected (a hello each way) → heard (its heads are known) → pulling (one request under way) →
//! heard. Rooms: [`peer`] what is known of one; [`hello`] who stands where; [`pull`] what to ask whom; [`receive`] checks and
//! the memory of what came too early; [`answer`] the queue of who asked; [`push`]; [`pace`] bandwidth and quiet hours.
//!
//! Invariants: what is sent is durable here; what is received is checked (cluster, membership, chain, signature) before it
//! is stored, and stored before anything else happens; a fork stops its own origin only; no event is asked of two peers at
//! once; memory is bounded by limits (early runs, pieces, one waiting pull per peer), not by what peers send; every message
//! may be lost or repeated without harm. A peer that breaks a rule is reported, its frame dropped, nothing stored.
//! Failure cases: a lost hello (said again when the peer asks, or after 30 s) · a lost pull or answer (given to another peer
//! after the patience that peer's answers earned) · a peer that claims what it does not serve (asked last, ever more rarely)
//! · a link too slow for its answers (they get smaller) · a cut inside a large event (its pieces stay, whoever is next goes
//! on). Caller: `node`.

mod answer;
mod hello;
pub(super) mod pace;
pub(super) mod peer;
mod pull;
mod push;
mod receive;

use std::collections::BTreeMap;

use super::genesis::GENESIS_INCARNATION;
use super::membership::Membership;
use super::tally::{Subject, Tally, Work};
use super::{Effect, Now};
use crate::log::{Log, Tails};
use crate::model::{Bug, Head, Heads, NodeId, Origin, OriginId, planted};
use crate::wire::limits;
use crate::wire::message::Message;
use answer::Answers;
use pace::Pace;
pub(super) use peer::Peer;
pub(super) use receive::{Accepted, Forks, check, is_signed};
use receive::{Early, Pieces};

/// Hellos to one peer because something moved come at most this often, ms.
const HELLO_GAP_MS: u64 = 100;

/// What moves within this time is told in one hello, ms.
const HELLO_GATHER_MS: u64 = 20;

/// A hello is sent at least this often, ms.
const HELLO_IDLE_MS: u64 = 30_000;

/// A peer whose heads are not known is asked for them after this, and again, ms.
const HEADS_WAIT_MS: u64 = 300;

/// All peers, and the exchange with them.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) peers: BTreeMap<NodeId, Peer>,
    /// Newest version that this node speaks.
    pub(super) version: u32,
    pub(super) pace: Pace,
    /// What hellos say of this node's content.
    pub(super) content: Option<[u8; 16]>,
    next_request: u64,
    /// Origins of which a peer holds another history than this log, by the first event that differs: not asked for again.
    forked: Forks,
    early: Early,
    pieces: Pieces,
    answers: Answers,
    /// A pull waits for the pace.
    held_back: bool,
    /// Rows of the snapshot that is offered in hellos.
    pub(super) snapshot_rows: u64,
    /// Origins whose history has not come: what lies behind their bases comes first.
    pub(super) tails: Tails,
    /// Nothing is pulled: a snapshot comes first.
    pub(super) paused: bool,
    /// Mean bytes of an event, to ask for what fits one answer.
    event_bytes: usize,
    /// What was done with peers.
    pub(super) tally: Tally,
}

impl Exchange {
    pub(super) fn new(pace: pace::PaceSettings) -> Exchange {
        Exchange {
            peers: BTreeMap::new(),
            version: limits::PROTOCOL_VERSION,
            pace: Pace::new(pace),
            content: None,
            next_request: 0,
            forked: Forks::new(),
            early: Early::default(),
            pieces: Pieces::default(),
            answers: Answers::default(),
            held_back: false,
            snapshot_rows: 0,
            tails: Tails::new(),
            paused: false,
            event_bytes: 512,
            tally: Tally::default(),
        }
    }
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

    /// The last event of an origin that the log holds; 0: none.
    fn seq(&self, origin: &OriginId) -> u64 {
        self.heads.get(origin).map_or(0, |head| head.seq)
    }
}

impl Exchange {
    pub(super) fn connected(&mut self, id: NodeId, address: String, standing: &Standing<'_>) -> Vec<Effect> {
        let known = self.peers.remove(&id).unwrap_or_default();
        let fresh = Peer {
            connected: true,
            address,
            heads: known.heads,
            applied_all: known.applied_all,
            last_seen_ms: standing.now.wall_ms,
            skew_ms: known.skew_ms,
            misses: known.misses,
            rest_until_ms: known.rest_until_ms,
            shunned_until_ms: known.shunned_until_ms,
            hello_number: known.hello_number,
            snapshot_rows: known.snapshot_rows,
            ..Peer::default()
        };
        self.peers.insert(id, fresh);
        self.tally.done(Work::Connection, Subject::Peer(id), 1, 0, 0);
        self.hello(id, true, false, standing)
    }

    /// Counts a call to a peer.
    pub(super) fn dialed(&mut self, id: NodeId, problem: Option<String>) {
        match problem {
            None => self.tally.done(Work::Dial, Subject::Peer(id), 1, 0, 0),
            Some(problem) => self.tally.failed(Work::Dial, Subject::Peer(id), 0, problem),
        }
    }

    pub(super) fn disconnected(&mut self, id: NodeId, now: Now) {
        self.answers.forget(&id);
        if let Some(peer) = self.peers.get_mut(&id) {
            if peer.connected {
                self.tally.failed(Work::Connection, Subject::Peer(id), 0, "network: the connection was lost");
            }
            if let Some(asked) = &peer.pull {
                let took_ms = now.mono_ms.saturating_sub(asked.at_ms);
                let words = "network: the connection was lost before the answer";
                self.tally.failed(Work::Pull, Subject::Peer(id), took_ms, words);
            }
            let last = Peer {
                connected: false,
                pull: None,
                told: None,
                told_heads: Heads::new(),
                heads_told: false,
                gathered: Heads::new(),
                pushed: BTreeMap::new(),
                round_trip_micros: None,
                last_seen_ms: now.wall_ms,
                ..std::mem::take(peer)
            };
            *peer = last;
        }
    }

    /// The version that both speak; 0 while the peer has not said its own.
    fn speaks(&self, peer: &Peer) -> u32 {
        if self.version == 1 { 1 } else { peer.version.min(self.version) }
    }

    /// A frame in the form that the peer understands.
    fn send(&self, to: NodeId, message: &Message) -> Effect {
        let packs = self.peers.get(&to).is_some_and(|peer| self.speaks(peer) >= 2);
        let frame = if packs { message.encode_packed() } else { message.encode() };
        Effect::Send { peer: to, frame }
    }

    /// Counts a frame of a kind that this version does not know.
    pub(super) fn skipped(&mut self, from: NodeId) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.unknown_frames += 1;
        }
    }

    /// Notes that peers hold these events (they sent them).
    pub(super) fn peer_holds(&mut self, accepted: &[Accepted]) {
        for one in accepted {
            let header = &one.event.header;
            if let Some(peer) = self.peers.get_mut(&one.from) {
                peer.take_heads(&[Head { origin: header.origin, seq: header.seq, hash: one.hash }]);
            }
        }
    }

    /// Takes a gossiped announcement: the author, if connected, has these heads; anybody else is asked at the next tick.
    pub(super) fn announced(&mut self, heads: &[Head], more: bool, mine: &Heads) {
        let mut hearsay = more;
        for head in heads {
            let known = mine.get(&head.origin.id()).map_or(0, |mine| mine.seq);
            if known >= head.seq {
                continue;
            }
            match self.peers.get_mut(&head.origin.node).filter(|peer| peer.connected) {
                Some(author) => author.take_heads(&[*head]),
                None => hearsay = true,
            }
        }
        // A stranger's word starts a question, not a belief.
        if hearsay {
            crate::sometimes!("exchange: hearsay starts a question");
            self.peers.values_mut().for_each(|peer| peer.ask = true);
        }
    }

    /// Whether some connected peer other than `from` is not known to hold these heads.
    pub(super) fn somebody_lacks(&self, heads: &[Head], from: NodeId) -> bool {
        let lacks =
            |peer: &Peer, head: &Head| peer.heads.get(&head.origin.id()).map_or(0, |known| known.seq) < head.seq;
        let others = self.peers.iter().filter(|(id, peer)| **id != from && peer.connected);
        others.into_iter().any(|(_, peer)| heads.iter().any(|head| lacks(peer, head)))
    }

    /// Whether a tick says hello to somebody.
    pub(super) fn says_hello(&self, now: Now) -> bool {
        self.peers.values().any(|peer| peer.connected && peer.hello_due_ms() <= now.mono_ms)
    }

    /// Hellos and pulls that are due.
    pub(super) fn tick(&mut self, standing: &Standing<'_>) -> Vec<Effect> {
        let now_ms = standing.now.mono_ms;
        self.early.forget_old(now_ms);
        let connected: Vec<NodeId> = self.peers.iter().filter(|(_, peer)| peer.connected).map(|(id, _)| *id).collect();
        let members = standing.membership.digest();
        let mut effects = Vec::new();
        for id in connected {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            let lacks = |(origin, head): (&OriginId, &Head)| standing.seq(origin) < head.seq;
            if peer.meter.events > 0 && !peer.heads.iter().any(lacks) {
                peer.meter = peer::Meter::default();
            }
            let news = peer.has_news(standing.heads, standing.applied_all, members);
            if news && peer.news_ms.is_none() {
                peer.news_ms = Some(now_ms);
            }
            let due = peer.hello_due_ms();
            if now_ms >= due && (news || !planted(Bug::HelloOnce)) {
                let asks = !news || peer.told.is_none() || !peer.heard || peer.ask;
                effects.extend(self.hello(id, asks, false, standing));
            }
        }
        effects.extend(self.pull(standing));
        effects
    }

    /// When [`Exchange::tick`] is wanted next, monotonic ms.
    pub(super) fn deadline_ms(&self, heads: &Heads, applied_all: bool, members: u64, now: Now) -> Option<u64> {
        let of_peer = |peer: &Peer| {
            let fresh = peer.news_ms.is_none() && peer.has_news(heads, applied_all, members);
            let hello = if fresh { now.mono_ms } else { peer.hello_due_ms() };
            let pull = peer.pull.as_ref().map(|pull| pull.until_ms);
            let rests = (peer.rest_until_ms > 0).then_some(peer.rest_until_ms);
            [pull, rests].into_iter().flatten().fold(hello, u64::min)
        };
        let peers = self.peers.values().filter(|peer| peer.connected).map(of_peer).min();
        let pulls = self.held_back.then(|| self.pace.ready_ms(now).unwrap_or(now.mono_ms));
        let answers = self.pace.ready_ms(now).filter(|_| self.answers.len() > 0);
        [peers, self.answers.due_ms(&self.pace, now), pulls, answers].into_iter().flatten().min()
    }
}
