//! What is known of one peer: where it stands, what it was told, how well it answers.
//!
//! Invariant: heads only grow between two hellos; a complete hello (its digest fits) replaces them. How well a peer answers
//! decides whom to ask first, never whether its events count. Caller: [`super`].

use std::collections::BTreeMap;

use super::pull::Asked;
use super::{HEADS_WAIT_MS, HELLO_GAP_MS, HELLO_GATHER_MS, HELLO_IDLE_MS};
use crate::model::{Head, Heads, OriginId, RecordHash};
use crate::wire::limits;

/// A rate is measured over about so long, ms.
const RATE_MS: u64 = 4_000;

/// A peer that failed once is asked last for so long, doubled with each failure, ms.
const SHUNNED_MS: u64 = 3_000;
const SHUNNED_MS_MAX: u64 = 60_000;

/// What is known of one peer.
#[derive(Clone, Debug, Default)]
pub(in crate::node) struct Peer {
    pub(in crate::node) connected: bool,
    pub(in crate::node) address: String,
    pub(in crate::node) heads: Heads,
    pub(in crate::node) applied_all: bool,
    /// Digests of its heads and its membership, and the print of its content then.
    pub(in crate::node) content: Option<(u64, u64, [u8; 16])>,
    /// It said where it stands, and all its heads are known.
    pub(in crate::node) heard: bool,
    pub(in crate::node) skew_ms: Option<i64>,
    pub(in crate::node) round_trip_micros: Option<u64>,
    pub(in crate::node) last_seen_ms: u64,
    /// Newest version that it speaks; 0: it has not said anything yet.
    pub(in crate::node) version: u32,
    /// Frames of a kind that this node does not know.
    pub(in crate::node) unknown_frames: u64,
    /// Pulls that it did not answer, or answered with nothing, since it last brought something.
    pub(in crate::node) misses: u32,
    /// What it brought since this node last held all that it has.
    pub(in crate::node) meter: Meter,
    /// Heads as the peer will know them once what was pushed has arrived.
    pub(super) pushed: BTreeMap<OriginId, u64>,
    pub(super) pull: Option<Asked>,
    /// It is not asked before this.
    pub(super) rest_until_ms: u64,
    /// Others are asked first until then.
    pub(super) shunned_until_ms: u64,
    /// Bytes it is asked for at once: less while its answers come too late. 0: not asked yet.
    pub(super) budget: usize,
    /// How long its answers take, ms.
    pub(super) answer_ms: Option<u64>,
    /// What the last hello told.
    pub(super) told: Option<Told>,
    /// The heads that this node held then; they were told on this connection, if the peer had spoken.
    pub(super) told_heads: Heads,
    pub(super) heads_told: bool,
    pub(super) hello_at_ms: u64,
    pub(super) hello_number: u32,
    /// Rows of the snapshot that it offers.
    pub(in crate::node) snapshot_rows: u64,
    /// Since when there is something to tell.
    pub(super) news_ms: Option<u64>,
    /// Somebody spoke of events that are not here: it is asked where it stands.
    pub(super) ask: bool,
    /// Heads of a hello in several frames.
    pub(super) gathered: Heads,
    pub(super) number_heard: u32,
    pub(super) digest_heard: Option<u64>,
    /// Its digest does not fit what is known of its heads, since then.
    pub(super) lacking_ms: Option<u64>,
    /// How often it was asked for them since: a digest that fits nothing must not be asked about for ever.
    pub(super) lacking_asks: u32,
    pub(super) members_heard: Option<u64>,
    /// The newest member records the peer said it holds.
    pub(super) member_heads: Vec<RecordHash>,
}

/// What a hello told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) applied_all: bool,
    pub(super) members: u64,
}

/// How much a peer brought, and how fast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::node) struct Meter {
    /// Events since the pull began.
    pub(in crate::node) events: u64,
    /// Their bytes.
    pub(in crate::node) bytes: u64,
    window: (u64, u64, u64),
    /// Events and bytes per second, lately.
    pub(in crate::node) rate: (u64, u64),
}

impl Peer {
    /// Whether a head was told to it on this connection.
    pub(super) fn was_told(&self, head: &Head) -> bool {
        self.heads_told && self.told_heads.get(&head.origin.id()) == Some(head)
    }

    pub(super) fn take_heads(&mut self, heads: &[Head]) {
        for head in heads {
            let id = head.origin.id();
            if self.heads.len() >= limits::PEER_HEADS_MAX && !self.heads.contains_key(&id) {
                continue;
            }
            let known = self.heads.entry(id).or_insert(*head);
            if known.seq < head.seq {
                *known = *head;
            }
        }
    }

    /// Whether something is to be told.
    pub(super) fn has_news(&self, heads: &Heads, applied_all: bool, members: u64) -> bool {
        self.told != Some(Told { applied_all, members }) || self.ask || self.told_heads != *heads
    }

    /// When the next hello is due.
    pub(super) fn hello_due_ms(&self) -> u64 {
        let idle = self.hello_at_ms + HELLO_IDLE_MS;
        let news = self.news_ms.map(|since| (since + HELLO_GATHER_MS).max(self.hello_at_ms + HELLO_GAP_MS));
        let lacking =
            self.lacking_ms.map(|since| since.max(self.hello_at_ms) + (HEADS_WAIT_MS << self.lacking_asks.min(6)));
        [news, lacking].into_iter().flatten().fold(idle, u64::min)
    }

    /// It failed: others are asked first, for longer each time.
    pub(super) fn missed(&mut self, now_ms: u64) {
        self.misses = self.misses.saturating_add(1);
        let pause = SHUNNED_MS << (self.misses - 1).min(6);
        self.shunned_until_ms = now_ms + pause.min(SHUNNED_MS_MAX);
    }

    /// How bad it is to ask it now: 0 is best.
    pub(super) fn badness(&self, now_ms: u64) -> u32 {
        if self.shunned_until_ms > now_ms { self.misses } else { 0 }
    }

    /// How reliably it answers, 0.0 to 1.0.
    pub(in crate::node) fn score(&self) -> f64 {
        if self.connected { 1.0 / f64::from(1 + self.misses) } else { 0.5 }
    }
}

impl Meter {
    pub(super) fn note(&mut self, now_ms: u64, events: u64, bytes: u64) {
        self.events += events;
        self.bytes += bytes;
        let (since, before_events, before_bytes) = self.window;
        if since == 0 {
            self.window = (now_ms.max(1), self.events, self.bytes);
        } else if now_ms >= since + RATE_MS / 4 {
            let (ms, part) = (now_ms - since, RATE_MS.min(now_ms - since));
            let mean =
                |old: u64, new: u64| if old == 0 { new } else { (old * (RATE_MS - part) + new * part) / RATE_MS };
            let lately = ((self.events - before_events) * 1000 / ms, (self.bytes - before_bytes) * 1000 / ms);
            self.rate = (mean(self.rate.0, lately.0), mean(self.rate.1, lately.1));
            self.window = (now_ms, self.events, self.bytes);
        }
    }
}
