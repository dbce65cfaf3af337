//! What may enter the log, and the memory of what came too early.
//!
//! R1's first half: an event is known already (skipped), continues its origin's chain (accepted), lies behind a gap (kept as
//! an **early** run when it was asked for, else left to the next pull), or contradicts the chain (a fork, if its author signed
//! it; else a lie). The last event of every run must be signed: the chain vouches for those before it. Pieces of a large event
//! are put together by whoever brings the next one; they outlive the connection.
//! Invariants: nothing unsigned is accepted or kept; early runs and pieces are bounded by `HELD_BYTES_MAX` and
//! `PARTIAL_BYTES_MAX` in all. Caller: [`super`].

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::{Signature, VerifyingKey};

use super::pull::PULL_WAIT_MS;
use super::{Exchange, Standing};
use crate::log::{Tail, Tails};
use crate::model::{Bug, Event, Head, NodeId, OriginId, Stamp, planted};
use crate::node::NodeError;
use crate::node::tally::{Subject, Work};
use crate::wire::event::{decode_event, event_hash, head_signature_message};
use crate::wire::limits;
use crate::wire::message::{Events, Piece, Range, SignedEvent};

/// Early runs whose gap is not closed within this are fetched again, ms.
const EARLY_MS: u64 = 20 * PULL_WAIT_MS;

/// Events that passed all checks, in order.
#[derive(Debug)]
pub(in crate::node) struct Accepted {
    pub(in crate::node) event: Event,
    pub(in crate::node) bytes: Vec<u8>,
    pub(in crate::node) hash: [u8; 32],
    pub(in crate::node) signature: Option<[u8; 64]>,
    /// Who brought it.
    pub(in crate::node) from: NodeId,
}

/// Origins with two histories, by the number of the first event that differs.
pub(in crate::node) type Forks = BTreeMap<OriginId, u64>;

/// Runs that came before those in front of them.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// By origin and the event before the run.
    runs: BTreeMap<(OriginId, u64), Run>,
    bytes: usize,
}

#[derive(Debug)]
struct Run {
    through: u64,
    bytes: usize,
    at_ms: u64,
    events: Vec<Accepted>,
}

/// The pieces of large events.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    held: BTreeMap<(OriginId, u64), Held>,
}

#[derive(Debug)]
struct Held {
    bytes: Vec<u8>,
    /// Who brought pieces of it: more than one, and nobody can be blamed for the whole.
    from: BTreeSet<NodeId>,
}

/// What a frame's events came to.
#[derive(Default)]
struct Checked {
    accepted: Vec<Accepted>,
    /// Those behind a base whose history has not come.
    tails: Vec<Accepted>,
    early: Vec<Accepted>,
    forks: Forks,
}

impl Exchange {
    /// Takes the events of an answer or a push: those that may be stored, in order; and forks that were not known
    /// before. What others wrote is taken all the same.
    pub(in crate::node) fn receive(
        &mut self,
        from: NodeId,
        events: Events,
        standing: &Standing<'_>,
    ) -> Result<(Vec<Accepted>, Forks), NodeError> {
        let now_ms = standing.now.mono_ms;
        let peer = self.peers.entry(from).or_default();
        peer.last_seen_ms = standing.now.wall_ms;
        let asked = peer.pull.take_if(|pull| pull.request == events.request);
        if let Some(asked) = &asked {
            peer.answered(asked, now_ms);
        }
        if !events.heads.is_empty() {
            peer.take_heads(&events.heads);
            peer.applied_all = events.applied_all;
        }
        let bytes: usize = events.events.iter().map(|event| event.bytes.len()).sum();
        let bytes = bytes + events.piece.as_ref().map_or(0, |piece| piece.bytes.len());
        self.pace.spend(bytes, standing.now);
        let mut signed = events.events;
        let (mut came, mut blameless) = (false, false);
        if let Some(piece) = events.piece {
            let assembled = self.pieces.assemble(piece, from);
            came = assembled.grew;
            blameless = assembled.by_several;
            signed.extend(assembled.event);
        }
        let ranges = asked.as_ref().map_or(&[][..], |asked| &asked.ranges);
        let checked = match sort(signed, from, ranges, (standing, &self.tails)) {
            Err(NodeError::PeerFault { .. }) if blameless => Checked::default(),
            other => other?,
        };
        self.note_size(&checked.accepted);
        came |= !checked.accepted.is_empty() || !checked.early.is_empty() || !checked.tails.is_empty();
        let mut accepted = checked.accepted;
        let mut forks = checked.forks;
        let room = limits::HELD_BYTES_MAX.saturating_sub(self.early.bytes);
        self.early.keep(checked.early, room, now_ms);
        self.early.join(&mut accepted, &mut forks, standing);
        let overtaken = ranges.iter().any(|range| standing.seq(&range.origin) > range.after);
        accepted.extend(checked.tails);
        self.note_answer(
            from,
            asked.as_ref().map(|asked| asked.ranges.as_slice()),
            came,
            (events.later_ms, events.more),
            standing,
        );
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.meter.note(now_ms, accepted.len() as u64, bytes as u64);
        }
        let subject = Subject::Peer(from);
        let took_ms = asked.as_ref().map_or(0, |asked| now_ms.saturating_sub(asked.at_ms));
        match asked {
            None if accepted.is_empty() => {}
            None => self.tally.done(Work::Receive, subject, accepted.len(), bytes, 0),
            Some(_) if !came && !overtaken && events.later_ms == 0 => {
                let words = "peer: an answer brought nothing, though the peer holds more";
                self.tally.failed(Work::Pull, subject, took_ms, words);
            }
            Some(_) => self.tally.done(Work::Pull, subject, accepted.len(), bytes, took_ms),
        }
        let fresh = forks.into_iter().filter(|(origin, _)| !self.forked.contains_key(origin));
        let fresh: Forks = fresh.collect();
        self.forked.extend(&fresh);
        Ok((accepted, fresh))
    }

    /// What an answer says of who gave it.
    fn note_answer(
        &mut self,
        from: NodeId,
        asked: Option<&[Range]>,
        came: bool,
        (later_ms, more): (u32, bool),
        standing: &Standing<'_>,
    ) {
        let now_ms = standing.now.mono_ms;
        let (Some(asked), Some(peer)) = (asked, self.peers.get_mut(&from)) else { return };
        let overtaken = asked.iter().any(|range| standing.seq(&range.origin) > range.after);
        if later_ms > 0 {
            crate::sometimes!("exchange: a peer asks for patience in its quiet hours");
            peer.asked_to_wait(later_ms, now_ms);
        } else if came || overtaken {
            peer.misses = 0;
            peer.shunned_until_ms = 0;
        } else if !more || peer.version >= 2 {
            crate::sometimes!("exchange: an answer brings nothing, though the peer holds more");
            peer.gave_nothing(now_ms);
        }
    }

    fn note_size(&mut self, accepted: &[Accepted]) {
        if !accepted.is_empty() {
            let mean = accepted.iter().map(|one| one.bytes.len()).sum::<usize>() / accepted.len();
            self.event_bytes = (3 * self.event_bytes + mean) / 4;
        }
    }
}

impl Early {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The runs of an origin: the event before each, and its last one.
    pub(super) fn runs(&self, origin: OriginId) -> impl Iterator<Item = (u64, u64)> {
        let runs = self.runs.range((origin, 0)..=(origin, u64::MAX));
        runs.map(|((_, after), run)| (*after, run.through))
    }

    /// Gaps that nobody closed: what lies behind them is fetched again.
    pub(super) fn forget_old(&mut self, now_ms: u64) {
        self.runs.retain(|_, run| now_ms < run.at_ms + EARLY_MS);
        self.count();
    }

    fn count(&mut self) {
        self.bytes = self.runs.values().map(|run| run.bytes).sum();
    }

    /// Keeps checked runs, each origin's in order, as far as there is room.
    fn keep(&mut self, events: Vec<Accepted>, room: usize, now_ms: u64) {
        let mut left = room;
        for one in events {
            let (origin, seq) = (one.event.header.origin.id(), one.event.header.seq);
            let known = self.runs.range_mut((origin, 0)..(origin, seq)).next_back();
            let bytes = one.bytes.len();
            match known {
                Some((_, run)) if run.through >= seq => continue,
                _ if left < bytes => break,
                Some((_, run)) if run.through + 1 == seq => {
                    run.through = seq;
                    run.bytes += bytes;
                    run.events.push(one);
                }
                _ => {
                    crate::sometimes!("exchange: events that came too early wait for those in front of them");
                    self.runs.insert((origin, seq - 1), Run { through: seq, bytes, at_ms: now_ms, events: vec![one] });
                }
            }
            left -= bytes;
        }
        self.count();
    }

    /// Moves runs whose gap is closed behind what was accepted.
    fn join(&mut self, accepted: &mut Vec<Accepted>, forks: &mut Forks, standing: &Standing<'_>) {
        if self.runs.is_empty() {
            return;
        }
        let mut heads: BTreeMap<OriginId, (u64, [u8; 32])> = BTreeMap::new();
        for (origin, _) in self.runs.keys() {
            heads.insert(*origin, standing.heads.get(origin).map_or((0, [0; 32]), |head| (head.seq, head.hash)));
        }
        for one in accepted.iter() {
            heads.insert(one.event.header.origin.id(), (one.event.header.seq, one.hash));
        }
        let closed = |(origin, after): &(OriginId, u64)| heads.get(origin).is_some_and(|(seq, _)| after <= seq);
        // In order of origin and number, so one run may close the gap of the next.
        let origins: BTreeSet<OriginId> =
            self.runs.keys().filter(|key| closed(key)).map(|(origin, _)| *origin).collect();
        for origin in origins {
            let Some((mut seq, mut hash)) = heads.get(&origin).copied() else { continue };
            while let Some(key) = self.runs.range((origin, 0)..=(origin, seq)).next().map(|(key, _)| *key) {
                let Some(run) = self.runs.remove(&key) else { break };
                for one in run.events {
                    if one.event.header.seq != seq + 1 {
                        continue;
                    }
                    if one.event.header.previous != hash {
                        forks.entry(origin).or_insert(one.event.header.seq);
                        break;
                    }
                    (seq, hash) = (one.event.header.seq, one.hash);
                    accepted.push(one);
                }
            }
        }
        self.count();
    }
}

/// What a piece came to.
#[derive(Default)]
struct Assembled {
    event: Option<SignedEvent>,
    grew: bool,
    by_several: bool,
}

impl Pieces {
    /// Bytes held of an event.
    pub(super) fn held(&self, origin: OriginId, seq: u64) -> u64 {
        self.held.get(&(origin, seq)).map_or(0, |held| held.bytes.len() as u64)
    }

    /// Adds a piece of a large event; the event once it is whole.
    fn assemble(&mut self, piece: Piece, from: NodeId) -> Assembled {
        let key = (piece.origin, piece.seq);
        let mut held = self.held.remove(&key).unwrap_or(Held { bytes: Vec::new(), from: BTreeSet::new() });
        let fits = piece.offset == held.bytes.len() as u64
            && !piece.bytes.is_empty()
            && piece.total <= limits::EVENT_BYTES_MAX as u64 + 64
            && piece.offset + piece.bytes.len() as u64 <= piece.total;
        if fits {
            crate::sometimes!(
                !held.from.is_empty() && !held.from.contains(&from),
                "exchange: another peer goes on with a large event"
            );
            held.bytes.extend_from_slice(&piece.bytes);
            held.from.insert(from);
        }
        let (whole, by_several) = (held.bytes.len() as u64 == piece.total, held.from.len() > 1);
        if fits && whole && held.bytes.len() > 64 {
            let signature = held.bytes.split_off(held.bytes.len() - 64).try_into().ok();
            return Assembled { event: Some(SignedEvent { bytes: held.bytes, signature }), grew: true, by_several };
        }
        if !held.bytes.is_empty() {
            let others: usize = self.held.values().map(|held| held.bytes.len()).sum();
            if others + held.bytes.len() > limits::PARTIAL_BYTES_MAX {
                // One event always fits: whoever is sent now goes first.
                self.held.clear();
            }
            self.held.insert(key, held);
        }
        Assembled { event: None, grew: fits, by_several }
    }
}

/// How far an origin's chain reaches while a frame is checked.
struct Reach {
    seq: u64,
    hash: [u8; 32],
    early: bool,
}

/// Those events of a bundle that may be stored, in order, and forks. `from`: the server that made it, if that is known.
pub(in crate::node) fn check(
    signed: Vec<SignedEvent>,
    from: Option<NodeId>,
    standing: &Standing<'_>,
) -> Result<(Vec<Accepted>, Forks), NodeError> {
    let checked = sort(signed, from.unwrap_or(NodeId([0; 32])), &[], (standing, &Tails::new()))?;
    Ok((checked.accepted, checked.forks))
}

/// Sorts the events of a frame. `asked`: what this peer was asked for; only of that, early runs are kept.
fn sort(
    signed: Vec<SignedEvent>,
    from: NodeId,
    asked: &[Range],
    (standing, tails): (&Standing<'_>, &Tails),
) -> Result<Checked, NodeError> {
    let reach = |head: &Head| Reach { seq: head.seq, hash: head.hash, early: false };
    let mut reached: BTreeMap<(OriginId, bool), Reach> = BTreeMap::new();
    let mut checked = Checked::default();
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
        if !standing.takes(&header.origin, &from) {
            // A read-only member's own: it may not know yet that it is one.
            continue;
        }
        if header.stamp > Stamp::from_wall_ms(u64::MAX) {
            return Err(fault("an event from beyond the end of time"));
        }
        let id = header.origin.id();
        let behind = |tail: &&Tail| tail.is_open(standing.seq(&id)) && header.seq > tail.base.seq;
        let tail = tails.get(&id).filter(behind);
        let start = tail.map(|tail| &tail.last).or(standing.heads.get(&id));
        let nothing = Reach { seq: 0, hash: [0; 32], early: false };
        let known = reached.entry((id, tail.is_some())).or_insert_with(|| start.map_or(nothing, reach));
        let older = planted(Bug::SinceByTime) && header.stamp < standing.log.read()?.clock()?;
        if header.seq <= known.seq || older {
            continue;
        }
        let hash = event_hash(&one.bytes);
        if header.seq != known.seq + 1 {
            let wanted = |range: &Range| range.origin == id && range.after + 1 == header.seq;
            if tail.is_some() || !asked.iter().any(wanted) {
                continue;
            }
            *known = Reach { seq: header.seq, hash, early: true };
        } else if header.previous == known.hash {
            (known.seq, known.hash) = (header.seq, hash);
        } else if known.early {
            return Err(fault("events that are no chain"));
        } else {
            // Only its author can write a second history: an unsigned one proves nothing.
            if one.signature.is_some_and(|signature| is_signed(&event, &hash, &signature)) {
                crate::sometimes!("exchange: a fork is refused");
                checked.forks.entry(id).or_insert(header.seq);
            }
            continue;
        }
        let list = match tail {
            Some(_) => &mut checked.tails,
            None if known.early => &mut checked.early,
            None => &mut checked.accepted,
        };
        list.push(Accepted { event, bytes: one.bytes, hash, signature: one.signature, from });
    }
    checked.accepted = vouched(checked.accepted)?;
    checked.early = vouched(checked.early)?;
    // On their own: a signature vouches for what its chain leads back to, and that is the base.
    checked.tails = vouched(checked.tails)?;
    Ok(checked)
}

/// Those up to the last signed event of each origin, whose signature is checked.
fn vouched(events: Vec<Accepted>) -> Result<Vec<Accepted>, NodeError> {
    let mut vouched: BTreeSet<OriginId> = BTreeSet::new();
    let mut kept: Vec<Accepted> = Vec::with_capacity(events.len());
    for one in events.into_iter().rev() {
        let origin = one.event.header.origin.id();
        if !vouched.contains(&origin) {
            crate::sometimes!(one.signature.is_none(), "exchange: the end of a run is unsigned and left");
            let Some(signature) = &one.signature else { continue };
            if !is_signed(&one.event, &one.hash, signature) && !planted(Bug::SignatureUnchecked) {
                return Err(fault("an event whose signature is wrong"));
            }
            vouched.insert(origin);
        }
        kept.push(one);
    }
    kept.reverse();
    Ok(kept)
}

pub(in crate::node) fn is_signed(event: &Event, hash: &[u8; 32], signature: &[u8; 64]) -> bool {
    let message = head_signature_message(&event.header.cluster, hash);
    VerifyingKey::from_bytes(&event.header.origin.node.0)
        .is_ok_and(|key| key.verify_strict(&message, &Signature::from_bytes(signature)).is_ok())
}

fn fault(reason: &str) -> NodeError {
    NodeError::PeerFault { reason: reason.to_string() }
}
