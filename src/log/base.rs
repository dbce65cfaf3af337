//! A log that begins at a base: of some origins it holds the last events, and the first ones are still to come.
//!
//! After a snapshot the state takes in events whose bodies are not here. Events behind the base go on from its hash (a **tail**)
//! and can be evaluated at once; the history grows from event 1 as ever. Heads count the history alone, so nothing that is
//! told, answered or received speaks of bodies that are not here. When the history reaches the base, and its event there has
//! the hash that the snapshot said, the tail becomes a part of it.
//! Invariant: a tail is a gapless chain from its base; it is appended in the transaction that notes where it ends.
//! Caller: node.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::read::{cut_at, database_key};
use super::stored::event_key;
use super::{LogError, LogRead, LogWrite, record, tables};
use crate::model::{Event, Head, OriginId};
use redb::TableHandle;

const BASE: &str = "snapshot base";

/// What is here of an origin whose history has not come yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// The last event that the state takes in without its body.
    pub base: Head,
    /// The last event behind it; the base itself while there is none.
    pub last: Head,
}

/// Tails by origin.
pub type Tails = BTreeMap<OriginId, Tail>;

impl Tail {
    /// A base without anything behind it.
    pub fn new(base: Head) -> Tail {
        Tail { base, last: base }
    }

    /// Whether a history up to this event does not reach the base.
    pub fn is_open(&self, history: u64) -> bool {
        history < self.base.seq
    }
}

impl LogRead {
    /// Origins whose history has not been checked against the base of a snapshot yet.
    pub fn tails(&self) -> Result<Tails, LogError> {
        match self.meta.get(BASE)? {
            Some(value) => record::unseal(tables::META.name(), BASE.as_bytes(), value.value()),
            None => Ok(Tails::new()),
        }
    }
}

impl LogWrite<'_> {
    /// Notes bases, and how far their tails are; none: all histories have come.
    pub fn put_tails(&mut self, tails: &Tails) -> Result<(), LogError> {
        if tails.is_empty() {
            self.transaction.open_table(tables::META)?.remove(BASE)?;
            return Ok(());
        }
        self.put_meta(BASE, &record::seal(BASE.as_bytes(), tails))
    }

    /// Appends the next event of a tail, which moves on. The caller notes it in the same transaction.
    pub fn append_tail(
        &mut self,
        tail: &mut Tail,
        event: &Event,
        bytes: &[u8],
        (hash, signature): ([u8; 32], Option<[u8; 64]>),
    ) -> Result<u64, LogError> {
        let (origin, seq) = (event.header.origin.id(), event.header.seq);
        if seq != tail.last.seq + 1 {
            return Err(LogError::OutOfOrder { origin, expected: tail.last.seq + 1, found: seq });
        }
        if event.header.previous != tail.last.hash {
            return Err(LogError::Fork { origin, seq });
        }
        tail.last = Head { origin: event.header.origin, seq, hash };
        self.store_event(event, bytes, hash, signature)
    }

    /// The history has reached a base, and is the one that the snapshot was made from: the tail belongs to it.
    pub fn join_tail(&mut self, tail: &Tail) {
        self.set_head(tail.last);
    }

    /// Stores an event and its places in the indexes; whoever calls has checked its place in the chain.
    pub(super) fn store_event(
        &mut self,
        event: &Event,
        bytes: &[u8],
        hash: [u8; 32],
        signature: Option<[u8; 64]>,
    ) -> Result<u64, LogError> {
        let header = &event.header;
        let (origin, seq) = (header.origin.id(), header.seq);
        self.put_body(event, bytes, hash, signature)?;
        let key = event_key(origin, seq);
        let arrival = self.next_arrival();
        self.transaction.open_table(tables::ARRIVALS)?.insert(arrival, &key)?;
        let database = self.database_mut(&header.database);
        database.events += 1;
        let key = database_key(database.number, origin, seq);
        let number = database.number;
        self.transaction.open_table(tables::DATABASE_EVENTS)?.insert(&key, ())?;
        if !header.applied.dots.is_empty() {
            let mut cuts = self.transaction.open_table(tables::CUTS)?;
            let mut cut = cut_at(&cuts, &self.base.archive, Some(number), origin, seq)?;
            cut.dots.extend(header.applied.dots.iter().map(|(&other, &count)| (other, count)));
            cuts.insert(&key, record::seal(&key, &cut).as_slice())?;
        }
        Ok(arrival)
    }
}
