//! The events of a log in causal order: nothing before what it builds on.
//!
//! Invariant: per origin without a gap; an event comes after all that its header says its author had applied, as far as this
//! log holds it. Memory: one event per origin at most. Caller: bundle_write.

use std::collections::BTreeMap;

use super::NodeError;
use crate::log::{LogRead, StoredEvent};
use crate::model::{Cut, OriginId};
use crate::wire::bundle::Range;
use crate::wire::decode_event;

/// A walk over ranges of a log. The snapshot may change between two calls: a log only grows.
pub(super) struct CausalWalk {
    /// Per origin, the last event given or not asked for, and the last one to give.
    places: BTreeMap<OriginId, (u64, u64)>,
    /// Origins whose next event waits for the one above it.
    waiting: Vec<Waiting>,
}

struct Waiting {
    origin: OriginId,
    event: StoredEvent,
    applied: Cut,
}

impl CausalWalk {
    pub(super) fn new(ranges: &[Range]) -> CausalWalk {
        let place = |range: &Range| (range.origin, (range.after, range.through));
        CausalWalk { places: ranges.iter().map(place).collect(), waiting: Vec::new() }
    }

    /// The next event; `None` at the end.
    pub(super) fn next(&mut self, read: &LogRead) -> Result<Option<(OriginId, StoredEvent)>, NodeError> {
        loop {
            let Some(top) = self.waiting.last() else {
                let open = self.places.iter().find(|(_, (done, through))| done < through);
                let Some((origin, _)) = open else { return Ok(None) };
                let origin = *origin;
                self.wait(read, origin)?;
                continue;
            };
            if let Some(cause) = self.cause(top) {
                self.wait(read, cause)?;
                continue;
            }
            let Some(Waiting { origin, event, .. }) = self.waiting.pop() else { return Ok(None) };
            if let Some((done, _)) = self.places.get_mut(&origin) {
                *done = event.seq;
            }
            return Ok(Some((origin, event)));
        }
    }

    /// An origin that must go first. One that waits already further down cannot: such a circle no honest author makes, and
    /// whoever gets the events sorts them out.
    fn cause(&self, event: &Waiting) -> Option<OriginId> {
        let lacks = |origin: &OriginId, count: u64| {
            let (done, through) = self.places.get(origin).copied().unwrap_or_default();
            done < count.min(through) && !self.waiting.iter().any(|other| other.origin == *origin)
        };
        event.applied.iter().find(|dot| lacks(dot.actor, dot.counter)).map(|dot| *dot.actor)
    }

    fn wait(&mut self, read: &LogRead, origin: OriginId) -> Result<(), NodeError> {
        let (done, through) = self.places.get(&origin).copied().unwrap_or_default();
        assert!(done < through, "origin {origin} is walked beyond its end: {done} of {through}");
        let missing = || NodeError::Log(crate::log::LogError::CorruptEvent { origin, seq: done + 1 });
        let event = read.event(&origin, done + 1)?.ok_or_else(missing)?;
        let applied = decode_event(&event.bytes)?.header.applied;
        self.waiting.push(Waiting { origin, event, applied });
        Ok(())
    }
}
