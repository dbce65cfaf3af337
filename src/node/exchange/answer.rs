//! Answers: who asked, in turn; what each gets, in causal order.
//!
//! A pull waits in a queue, one per peer, the newest counts; every peer gets one answer before anybody gets a second one, so
//! who asks all the time starves nobody. An answer merges the origins by stamp, and no event goes before those of the same
//! answer that its author had seen, so that the receiver can show what it gets as it gets it. What is small as a whole goes
//! before any bulk and also in quiet hours.
//! States of a waiting pull: waiting → small part looked for (while bulk may not go) → answered.
//! Invariants: at most one waiting pull per peer; a step reads at most about [`STEP_BYTES`]; an answer fits one frame; an
//! event too large for one goes in pieces. Caller: [`super`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::pace::Pace;
use super::{Exchange, Standing};
use crate::log::{LogError, LogRead};
use crate::model::{NodeId, OriginId, Stamp};
use crate::node::tally::{Subject, Work};
use crate::node::{Effect, NodeError, Now};
use crate::wire::event::peek_header;
use crate::wire::limits;
use crate::wire::message::{Events, Message, Piece, Pull, Range, SignedEvent};

/// Bytes of answers in one step: other inputs get their turn after that.
const STEP_BYTES: usize = 2 * limits::PULL_BYTES;

/// What an event costs on the wire beside its bytes.
const SIGNED_BYTES: usize = 96;

/// Who asked and has no answer yet.
#[derive(Debug, Default)]
pub(super) struct Answers {
    queue: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    to: NodeId,
    pull: Pull,
    /// Bulk may not go, and what is small was looked for.
    looked: bool,
}

impl Answers {
    /// Puts a pull into the queue: in place of an older one of the same peer.
    fn put(&mut self, to: NodeId, pull: Pull) {
        let fresh = Waiting { to, pull, looked: false };
        match self.queue.iter_mut().find(|waiting| waiting.to == to) {
            Some(waiting) => *waiting = fresh,
            None => self.queue.push_back(fresh),
        }
    }

    pub(super) fn forget(&mut self, id: &NodeId) {
        self.queue.retain(|waiting| waiting.to != *id);
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// When the queue is to be looked at.
    pub(super) fn due_ms(&self, pace: &Pace, now: Now) -> Option<u64> {
        let at_once = |waiting: &Waiting| !waiting.looked || pace.has_room(now);
        self.queue.iter().any(at_once).then_some(now.mono_ms)
    }
}

impl Exchange {
    /// Peers whose pull waits.
    pub(in crate::node) fn waiting(&self) -> usize {
        self.answers.len()
    }

    /// Takes a pull; it is answered in its turn, by [`Exchange::answer`].
    pub(in crate::node) fn take_pull(&mut self, from: NodeId, pull: Pull) {
        if let Some(peer) = self.peers.get_mut(&from) {
            match pull.ranges.is_empty() {
                true => peer.pushed.clear(),
                false => pull.ranges.iter().for_each(|range| {
                    peer.pushed.remove(&range.origin);
                }),
            }
            self.answers.put(from, pull);
        }
    }

    /// Answers in turn, as much as one step may.
    pub(in crate::node) fn answer(&mut self, standing: &Standing<'_>) -> Result<Vec<Effect>, NodeError> {
        let mut effects = Vec::new();
        let mut left = STEP_BYTES;
        for _ in 0..self.answers.queue.len() {
            if left == 0 {
                break;
            }
            let Some(waiting) = self.answers.queue.pop_front() else { break };
            let quiet = self.pace.is_quiet(standing.now);
            let blocked = quiet || !self.pace.has_room(standing.now);
            if blocked && waiting.looked {
                self.answers.queue.push_back(waiting);
                continue;
            }
            let small_only = blocked || waiting.pull.small_only;
            let mut answer = self.fill(&waiting.pull, small_only, standing)?;
            if blocked && answer.more && !quiet {
                // Bulk in part: it goes when the pace lets it.
                self.answers.queue.push_back(Waiting { looked: true, ..waiting });
                continue;
            }
            if answer.more && small_only {
                answer.later_ms = self.pace.quiet_wait_ms() as u32;
            }
            let speaks = self.peers.get(&waiting.to).map_or(0, |peer| self.speaks(peer));
            if speaks < 2 {
                // It would ask again at once.
                answer.more &= answer.later_ms == 0;
                if !answer.more {
                    answer.heads = standing.heads.values().take(limits::HEADS_MAX).copied().collect();
                }
            }
            let count = answer.events.len() + usize::from(answer.piece.is_some());
            let effect = self.send(waiting.to, &Message::Events(answer));
            if let Effect::Send { frame, .. } = &effect {
                self.tally.done(Work::Serve, Subject::Peer(waiting.to), count, frame.len(), 0);
                self.pace.spend(frame.len(), standing.now);
                left = left.saturating_sub(frame.len());
            }
            effects.push(effect);
        }
        Ok(effects)
    }

    /// The events of one answer.
    fn fill(&self, pull: &Pull, small_only: bool, standing: &Standing<'_>) -> Result<Events, NodeError> {
        let read = standing.log.read()?;
        let mut answer = Events { request: pull.request, applied_all: standing.applied_all, ..Events::default() };
        let mut ranges = ranges_of(pull, standing);
        if small_only {
            let before = ranges.len();
            ranges = small(&read, ranges)?;
            answer.more = ranges.len() < before;
        }
        let budget = self.pace.answer_bytes(pull.max_bytes as usize).clamp(1, limits::PULL_BYTES);
        let mut merge = Merge::new(&read, ranges)?;
        let mut used = 0;
        while let Some((range, bytes)) = merge.next_up() {
            let seq = range.after + 1;
            let large = bytes > limits::PIECE_BYTES;
            let full = used + bytes > budget || answer.events.len() == limits::EVENTS_PER_FRAME_MAX;
            if used > 0 && (full || large) {
                answer.more = true;
                break;
            }
            let Some(stored) = readable(read.event(&range.origin, seq))? else { break };
            if large {
                answer.more = true;
                answer.piece = Some(piece(&range, seq, &stored.bytes, stored.signature));
                break;
            }
            used += bytes + SIGNED_BYTES;
            answer.events.push(SignedEvent { bytes: stored.bytes, signature: stored.signature });
            merge.sent(&read)?;
        }
        crate::sometimes!(answer.more, "exchange: a pull is answered in pages");
        Ok(answer)
    }
}

/// What a pull asks for and this log has.
fn ranges_of(pull: &Pull, standing: &Standing<'_>) -> Vec<Range> {
    if !pull.ranges.is_empty() {
        let held = |range: &Range| Range { through: range.through.min(standing.seq(&range.origin)), ..*range };
        return pull.ranges.iter().map(held).filter(|range| range.through > range.after).collect();
    }
    let have: BTreeMap<OriginId, u64> = pull.heads.iter().map(|head| (head.origin.id(), head.seq)).collect();
    let above = |(id, head): (&OriginId, &crate::model::Head)| {
        let after = have.get(id).copied().unwrap_or(0);
        let held = pull.partial.filter(|partial| partial.origin == *id && partial.seq == after + 1);
        let offset = held.map_or(0, |partial| partial.offset);
        (head.seq > after).then_some(Range { origin: *id, after, through: head.seq, offset })
    };
    standing.heads.iter().filter_map(above).collect()
}

/// What lies in a segment that is missing or damaged is not sent: another peer has it.
fn readable<T>(read: Result<Option<T>, LogError>) -> Result<Option<T>, LogError> {
    match read {
        Err(error @ LogError::Archived { .. }) => {
            tracing::warn!("a peer asks in vain: {error}");
            Ok(None)
        }
        read => read,
    }
}

/// The ranges that are small, together.
fn small(read: &LogRead, ranges: Vec<Range>) -> Result<Vec<Range>, NodeError> {
    let (mut left, mut kept) = (limits::PUSH_BYTES_MAX, Vec::new());
    for range in ranges {
        let Some(events) = readable(read.events_from(&range.origin, range.after + 1, left).map(Some))? else {
            continue;
        };
        let wanted = events.iter().take((range.through - range.after) as usize);
        let bytes: usize = wanted.clone().map(|event| event.bytes.len() + SIGNED_BYTES).sum();
        if wanted.count() as u64 == range.through - range.after && bytes <= left {
            left -= bytes;
            kept.push(range);
        }
    }
    Ok(kept)
}

/// Several origins' events in causal order.
struct Merge {
    ranges: Vec<Range>,
    place: BTreeMap<OriginId, usize>,
    /// The next event of each range: what it waits for, and its size.
    next: Vec<Option<Next>>,
    by_stamp: BTreeSet<(Stamp, usize)>,
    current: Option<usize>,
}

struct Next {
    stamp: Stamp,
    applied: Vec<(OriginId, u64)>,
    bytes: usize,
}

impl Merge {
    fn new(read: &LogRead, ranges: Vec<Range>) -> Result<Merge, NodeError> {
        let place = ranges.iter().enumerate().map(|(at, range)| (range.origin, at)).collect();
        let next = ranges.iter().map(|_| None).collect();
        let mut merge = Merge { place, next, by_stamp: BTreeSet::new(), current: None, ranges };
        for at in 0..merge.ranges.len() {
            merge.look(at, read)?;
        }
        Ok(merge)
    }

    fn look(&mut self, at: usize, read: &LogRead) -> Result<(), NodeError> {
        let range = &self.ranges[at];
        self.next[at] = None;
        if range.after < range.through
            && let Some(stored) = readable(read.event(&range.origin, range.after + 1))?
        {
            let (stamp, applied) = peek_header(&stored.bytes)?;
            self.by_stamp.insert((stamp, at));
            self.next[at] = Some(Next { stamp, applied, bytes: stored.bytes.len() });
        }
        Ok(())
    }

    /// The range whose next event goes next, and that event's size: the earliest whose causes went before it.
    fn next_up(&mut self) -> Option<(Range, usize)> {
        let ready =
            |at: &usize| self.next[*at].as_ref().is_some_and(|next| next.applied.iter().all(|one| self.went(one)));
        let found = self.by_stamp.iter().map(|(_, at)| *at).find(ready);
        // None is free of the others only if the log itself is not closed: then the stamps decide.
        let at = found.or_else(|| self.by_stamp.first().map(|(_, at)| *at))?;
        self.current = Some(at);
        self.next[at].as_ref().map(|next| (self.ranges[at], next.bytes))
    }

    /// Whether an event went, is held by the asker, or is not asked for.
    fn went(&self, (origin, seq): &(OriginId, u64)) -> bool {
        self.place.get(origin).is_none_or(|at| {
            let range = &self.ranges[*at];
            range.after >= (*seq).min(range.through)
        })
    }

    /// The one that was up went.
    fn sent(&mut self, read: &LogRead) -> Result<(), NodeError> {
        let Some(at) = self.current.take() else { return Ok(()) };
        if let Some(next) = &self.next[at] {
            self.by_stamp.remove(&(next.stamp, at));
        }
        self.ranges[at].after += 1;
        self.look(at, read)
    }
}

/// A piece of a large event: of its bytes followed by the 64 bytes of its signature.
fn piece(range: &Range, seq: u64, bytes: &[u8], signature: Option<[u8; 64]>) -> Piece {
    let whole: Vec<u8> = bytes.iter().copied().chain(signature.unwrap_or([0; 64])).collect();
    let start = (range.offset as usize).min(whole.len());
    let end = (start + limits::PIECE_BYTES).min(whole.len());
    Piece {
        origin: range.origin,
        seq,
        offset: start as u64,
        total: whole.len() as u64,
        bytes: whole[start..end].to_vec(),
    }
}
