//! What to ask whom.
//!
//! Work is cut into ranges of one origin each: what is missing, less what others were asked for, less what came too early
//! and waits. A large origin that several peers hold is cut into stripes of about one answer, so that all of them serve at
//! once and nothing is fetched twice. The front of an origin is always given out first; far ranges only while the memory
//! for early events has room. States of a request: asked → answered, or late: then its ranges are free again at once.
//!
//! Patience is earned: a peer that usually answers fast, or stands beside others that do, is given up soon; one alone gets
//! [`PULL_WAIT_MS`]. Who misses is asked for less, and last: what a better peer holds is left to that one. In quiet hours only
//! what is small is asked for. Invariant: no event is in two requests that both still wait. Caller: [`super`].

use super::{Exchange, Peer, Standing};
use crate::model::{Bug, Head, NodeId, OriginId, planted};
use crate::node::Effect;
use crate::node::tally::{Subject, Work};
use crate::wire::limits;
use crate::wire::message::{Message, Partial, Pull, Range};

/// A pull without an answer is given up after this, ms; sooner where others answer fast.
pub(super) const PULL_WAIT_MS: u64 = 3_000;

/// Nobody is given up sooner, ms.
const PATIENCE_MS_MIN: u64 = 500;

/// An answer may take so many times what good peers need.
const PATIENCE: u64 = 8;

/// Bytes asked for at once: at first, at least.
const BUDGET_FIRST: usize = 128 << 10;
const BUDGET_MIN: usize = 16 << 10;

/// A peer that brings nothing rests for at most this, ms.
const REST_MS_MAX: u64 = 60_000;

/// One request under way.
#[derive(Clone, Debug)]
pub(in crate::node) struct Asked {
    pub(super) request: u64,
    pub(in crate::node) at_ms: u64,
    pub(super) until_ms: u64,
    pub(super) ranges: Vec<Range>,
}

impl Exchange {
    /// Asks every idle peer for what it has and nobody else was asked for; the good ones first.
    pub(in crate::node) fn pull(&mut self, standing: &Standing<'_>) -> Vec<Effect> {
        let now_ms = standing.now.mono_ms;
        self.give_up_late(now_ms);
        if self.paused {
            return Vec::new();
        }
        let rested = |peer: &&mut Peer| peer.rest_until_ms <= now_ms;
        self.peers.values_mut().filter(rested).for_each(|peer| peer.rest_until_ms = 0);
        self.held_back = !self.pace.has_room(standing.now);
        if self.held_back {
            crate::sometimes!("exchange: bulk waits for its pace");
            return Vec::new();
        }
        let idle = |peer: &Peer| peer.connected && peer.pull.is_none() && peer.rest_until_ms <= now_ms;
        let idle = self.peers.iter().filter(|(_, peer)| idle(peer) && peer.version > 0);
        let mut order: Vec<(u32, NodeId)> = idle.map(|(id, peer)| (peer.badness(now_ms), *id)).collect();
        order.sort_unstable();
        order.into_iter().filter_map(|(_, id)| self.ask(id, standing)).collect()
    }

    /// Ranges of requests that were not answered in time are free again.
    fn give_up_late(&mut self, now_ms: u64) {
        for (id, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.connected) {
            if let Some(asked) = peer.pull.take_if(|pull| pull.until_ms <= now_ms) {
                crate::sometimes!("exchange: a pull without an answer is repeated");
                let took_ms = now_ms.saturating_sub(asked.at_ms);
                self.tally.failed(Work::Pull, Subject::Peer(*id), took_ms, "timeout: the peer did not answer in time");
                peer.budget = (peer.budget / 2).max(BUDGET_MIN);
                peer.missed(now_ms);
            }
        }
    }

    fn ask(&mut self, id: NodeId, standing: &Standing<'_>) -> Option<Effect> {
        let now_ms = standing.now.mono_ms;
        let speaks = self.speaks(self.peers.get(&id)?);
        let ranges = self.wanted(id, speaks, standing);
        if ranges.is_empty() {
            return None;
        }
        self.next_request += 1;
        let until_ms = if planted(Bug::PullOnce) { u64::MAX } else { now_ms + self.patience_ms(id) };
        let request = self.next_request;
        let peer = self.peers.get_mut(&id)?;
        let max_bytes = self.pace.answer_bytes(peer.budget()) as u32;
        let mut pull = Pull { request, max_bytes, ..Pull::default() };
        if speaks >= 2 {
            pull.ranges = ranges.clone();
            pull.small_only = self.pace.is_quiet(standing.now);
        } else {
            // All above these heads. What is not wanted of this peer is said to be here already.
            let own = |id: &OriginId, theirs: &Head| match ranges.iter().any(|range| range.origin == *id) {
                true => standing.heads.get(id).copied(),
                false => Some(*theirs),
            };
            let heads = peer.heads.iter().filter_map(|(id, head)| own(id, head));
            pull.heads = heads.take(limits::HEADS_MAX).collect();
            let held = ranges.iter().find(|range| range.offset > 0);
            pull.partial =
                held.map(|range| Partial { origin: range.origin, seq: range.after + 1, offset: range.offset });
        }
        peer.pull = Some(Asked { request, at_ms: now_ms, until_ms, ranges });
        Some(self.send(id, &Message::Pull(pull)))
    }

    /// What to ask this peer for now.
    fn wanted(&self, id: NodeId, speaks: u32, standing: &Standing<'_>) -> Vec<Range> {
        let Some(peer) = self.peers.get(&id) else { return Vec::new() };
        let mut ranges = self.wanted_tails(id, speaks, standing);
        if !ranges.is_empty() {
            return ranges;
        }
        let stripe =
            (peer.budget.max(BUDGET_MIN) / self.event_bytes.max(1)).clamp(1, limits::EVENTS_PER_FRAME_MAX) as u64;
        let mut left = stripe;
        for (origin, head) in &peer.heads {
            let mine = standing.seq(origin);
            // What lies behind a base came, or comes, as a tail.
            let base = self.tails.get(origin).filter(|tail| tail.is_open(mine)).map(|tail| tail.base.seq);
            let head = Head { seq: base.map_or(head.seq, |base| head.seq.min(base)), ..*head };
            if head.seq <= mine || self.forked.contains_key(origin) || !standing.takes(&head.origin, &id) {
                continue;
            }
            let others = self.others(id, *origin, mine, standing.now.mono_ms);
            if others.better {
                crate::sometimes!("exchange: a range is left to a peer that answers better");
                continue;
            }
            let Some((after, through)) = self.gap(id, *origin, (mine, head.seq), speaks) else {
                crate::sometimes!("exchange: an origin is left to the peer that was asked for it");
                continue;
            };
            if after > mine && !self.has_room_for_early() {
                continue;
            }
            let shared = others.any && speaks >= 2;
            let through = if shared { through.min(after + left) } else { through };
            crate::sometimes!(shared && after > mine, "exchange: one origin comes from several peers at once");
            let offset = self.pieces.held(*origin, after + 1);
            ranges.push(Range { origin: *origin, after, through, offset });
            left = if shared { left.saturating_sub(through - after) } else { left };
            if left == 0 || ranges.len() == limits::HEADS_MAX {
                break;
            }
        }
        ranges
    }

    /// What lies behind bases: small and fresh, it comes before any history.
    fn wanted_tails(&self, id: NodeId, speaks: u32, standing: &Standing<'_>) -> Vec<Range> {
        let Some(peer) = self.peers.get(&id).filter(|_| speaks >= 2) else { return Vec::new() };
        let mut ranges = Vec::new();
        for (origin, tail) in self.tails.iter().filter(|(origin, tail)| tail.is_open(standing.seq(origin))) {
            let Some(head) = peer.heads.get(origin).filter(|head| head.seq > tail.last.seq) else { continue };
            if self.forked.contains_key(origin) || !standing.takes(&head.origin, &id) {
                continue;
            }
            let gap = self.gap(id, *origin, (tail.last.seq, head.seq), speaks);
            if let Some((after, through)) = gap.filter(|(after, _)| *after == tail.last.seq) {
                crate::sometimes!("exchange: what lies behind a base comes before the history");
                ranges.push(Range { origin: *origin, after, through, offset: self.pieces.held(*origin, after + 1) });
            }
            if ranges.len() == limits::HEADS_MAX {
                break;
            }
        }
        ranges
    }

    /// The first missing part of an origin that nobody else was asked for and that did not come early. A peer of version 1
    /// is asked for all of an origin or nothing.
    fn gap(&self, id: NodeId, origin: OriginId, (mine, head): (u64, u64), speaks: u32) -> Option<(u64, u64)> {
        let asked = self.peers.iter().filter(|(other, peer)| **other != id && peer.connected);
        let asked = asked.filter_map(|(_, peer)| peer.pull.as_ref()).flat_map(|pull| &pull.ranges);
        let mut busy: Vec<(u64, u64)> =
            asked.filter(|range| range.origin == origin).map(|range| (range.after, range.through)).collect();
        busy.extend(self.early.runs(origin));
        busy.sort_unstable();
        if speaks < 2 {
            return busy.is_empty().then_some((mine, head));
        }
        first_gap(&busy, (mine, head))
    }

    fn others(&self, id: NodeId, origin: OriginId, mine: u64, now_ms: u64) -> Others {
        let own = self.peers.get(&id).map_or(0, |peer| peer.badness(now_ms));
        let mut found = Others { any: false, better: false };
        for (_, peer) in self.peers.iter().filter(|(other, peer)| **other != id && peer.connected) {
            let holds = peer.heads.get(&origin).is_some_and(|head| head.seq > mine);
            if holds && peer.version > 0 && peer.rest_until_ms <= now_ms {
                found.any = true;
                found.better |= peer.badness(now_ms) < own;
            }
        }
        found
    }

    fn has_room_for_early(&self) -> bool {
        let under_way: usize = self.peers.values().filter(|peer| peer.pull.is_some()).map(|peer| peer.budget).sum();
        self.early.bytes() + under_way < limits::HELD_BYTES_MAX
    }

    /// How long an answer of this peer is waited for.
    fn patience_ms(&self, id: NodeId) -> u64 {
        let others = self.peers.iter().filter(|(other, peer)| **other != id && peer.connected && peer.misses == 0);
        match others.filter_map(|(_, peer)| peer.answer_ms).min() {
            Some(usual) => (usual * PATIENCE).clamp(PATIENCE_MS_MIN, PULL_WAIT_MS),
            None => PULL_WAIT_MS,
        }
    }
}

/// The first part of (`mine`, `head`] that no run covers; runs are ascending, and may reach beyond the head of a peer that
/// lags itself.
fn first_gap(runs: &[(u64, u64)], (mine, head): (u64, u64)) -> Option<(u64, u64)> {
    let mut after = mine;
    for (from, through) in runs {
        if *from > after {
            break;
        }
        after = after.max(*through);
    }
    let next = runs.iter().map(|(from, _)| *from).find(|from| *from > after);
    (after < head).then(|| (after, next.map_or(head, |from| head.min(from))))
}

/// Who else holds what is missing.
struct Others {
    any: bool,
    better: bool,
}

impl Peer {
    fn budget(&mut self) -> usize {
        if self.budget == 0 {
            self.budget = BUDGET_FIRST;
        }
        self.budget
    }

    /// An answer came: how soon decides how much is asked for next.
    pub(super) fn answered(&mut self, asked: &Asked, now_ms: u64) {
        let took = now_ms.saturating_sub(asked.at_ms);
        self.answer_ms = Some(self.answer_ms.map_or(took, |usual| (3 * usual + took) / 4));
        if took < PATIENCE_MS_MIN {
            self.budget = (self.budget() * 2).min(limits::PULL_BYTES);
        }
    }

    /// It has more and gave nothing that can be taken: asking at once would go on for ever.
    pub(super) fn gave_nothing(&mut self, now_ms: u64) {
        self.missed(now_ms);
        let rest = PULL_WAIT_MS << (self.misses - 1).min(6);
        self.rest_until_ms = now_ms + rest.min(REST_MS_MAX);
    }

    /// It asked for patience.
    pub(super) fn asked_to_wait(&mut self, wait_ms: u32, now_ms: u64) {
        self.rest_until_ms = now_ms + u64::from(wait_ms).min(REST_MS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::first_gap;

    #[test]
    fn a_gap_ends_where_a_run_begins_and_never_beyond_the_head() {
        assert_eq!(first_gap(&[], (3, 9)), Some((3, 9)));
        assert_eq!(first_gap(&[(5, 7)], (3, 9)), Some((3, 5)));
        assert_eq!(first_gap(&[(3, 5), (4, 7)], (3, 9)), Some((7, 9)));
        assert_eq!(first_gap(&[(3, 5), (7, 8)], (3, 9)), Some((5, 7)));
        // Others were asked for more than this peer holds.
        assert_eq!(first_gap(&[(3, 12)], (3, 9)), None);
        assert_eq!(first_gap(&[(3, 8), (10, 12)], (3, 9)), Some((8, 9)));
        assert_eq!(first_gap(&[(3, 9), (10, 12)], (3, 9)), None);
        assert_eq!(first_gap(&[(3, 10), (11, 12)], (3, 9)), None);
    }
}
