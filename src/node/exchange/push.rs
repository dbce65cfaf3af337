//! Fresh events, sent at once: small changes travel before any bulk.
//!
//! Invariant: only to peers that are known to hold, or were pushed, all events before them; what gets lost is found by the
//! next hello. Never held back by the pace, but counted by it. Caller: [`super`].

use super::{Exchange, Standing};
use crate::model::{Head, NodeId};
use crate::node::Effect;
use crate::wire::limits::PUSH_BYTES_MAX;
use crate::wire::message::{Events, Message, SignedEvent};

impl Exchange {
    /// Sends fresh small events to every connected peer that holds all events before them.
    pub(in crate::node) fn push(&mut self, fresh: &[(Head, SignedEvent)], standing: &Standing<'_>) -> Vec<Effect> {
        let size: usize = fresh.iter().map(|(_, event)| event.bytes.len()).sum();
        let (Some((first, _)), true) = (fresh.first(), size <= PUSH_BYTES_MAX) else { return Vec::new() };
        let origin = first.origin.id();
        let mut to: Vec<NodeId> = Vec::new();
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
            to.push(*id);
        }
        let events = Events {
            request: 0,
            events: fresh.iter().map(|(_, event)| event.clone()).collect(),
            applied_all: standing.applied_all,
            ..Events::default()
        };
        let message = Message::Events(events);
        let effects: Vec<Effect> = to.into_iter().map(|id| self.send(id, &message)).collect();
        self.pace.spend_on(&effects, standing.now);
        effects
    }
}
