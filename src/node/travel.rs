//! Moving through a log: the state of all databases at one time after another, evaluated in memory beside the node.
//!
//! An event's stamp exceeds those of all it builds on, so what a log holds up to a time is causally closed, and F of it is
//! what a server that held it all showed then. A [`World`] is that state; it goes on from one time to a later one, so two
//! times cost one pass. States: before all events → at a cut → at a later cut. Invariant: a function of the log and the
//! cuts alone; nothing of it is durable, nothing of the node or its files is touched. Memory: one record per row, as in a
//! rebuild. Callers: rebuild, diff, undo (plans).

use super::apply::ready_events;
use super::capture::CHANGES_MAX;
use super::query::author_of;
use super::rebuild::Replay;
use super::{Node, NodeError};
use crate::log::LogRead;
use crate::merge::Evaluator;
use crate::merge::memory::MemoryStore;
use crate::model::{Change, Cut, DatabaseSchema, Event, OriginId};

/// What is evaluated of an event: (event, position, change).
pub(super) type Chosen<'c> = &'c dyn Fn(&Event, u32, &Change) -> bool;

/// Looks at a batch of events.
pub(super) type Visit<'v> = &'v mut dyn FnMut(&LogRead, &[Event]) -> Result<(), NodeError>;

/// The state at a cut of every database.
#[derive(Clone)]
pub(super) struct World {
    pub(super) store: MemoryStore,
    /// Per database, in the replay's order.
    pub(super) cuts: Vec<Cut>,
}

impl World {
    /// Before the first event.
    pub(super) fn before_all(replay: &Replay) -> World {
        World { store: MemoryStore::default(), cuts: vec![Cut::default(); replay.databases.len()] }
    }

    /// Goes on to later cuts. `see` is shown every event on the way, in a causal order per database.
    pub(super) fn advance(
        &mut self,
        replay: &Replay,
        to: &[Cut],
        see: &mut dyn FnMut(&Event),
    ) -> Result<(), NodeError> {
        for (position, through) in to.iter().enumerate() {
            let store = &mut self.store;
            replay.walk(position, &mut self.cuts[position], through, &mut |read, events| {
                events.iter().for_each(&mut *see);
                replay.evaluate(store, read, events, &|_, _, _| true)
            })?;
        }
        Ok(())
    }
}

impl Replay {
    /// Shows a database's events behind `from` up to `through` in causal order, in batches; `from` follows.
    pub(super) fn walk(
        &self,
        position: usize,
        from: &mut Cut,
        through: &Cut,
        visit: Visit<'_>,
    ) -> Result<(), NodeError> {
        let name = &self.databases[position].0.name;
        loop {
            let events = ready_events(&self.log, name, from, Some(through), CHANGES_MAX)?;
            if events.is_empty() {
                return Ok(());
            }
            visit(&self.log.read()?, &events)?;
            for event in &events {
                crdts::CmRDT::apply(from, crdts::Dot::new(event.header.origin.id(), event.header.seq));
            }
        }
    }

    /// Adds what is chosen of some events to a state that holds their causes.
    pub(super) fn evaluate(
        &self,
        store: &mut MemoryStore,
        read: &LogRead,
        events: &[Event],
        chosen: Chosen<'_>,
    ) -> Result<(), NodeError> {
        for event in events {
            let (name, origin, seq) = (&event.header.database, event.header.origin.id(), event.header.seq);
            store.put_cut(name, origin, seq, read.cut_of(name, origin, seq)?);
        }
        let mut evaluator = self.evaluator(store);
        for event in events {
            let Ok(()) = evaluator.integrate_chosen(event, &|index, change| chosen(event, index, change));
        }
        let Ok(_) = evaluator.settle();
        let Ok(()) = evaluator.finish();
        Ok(())
    }

    /// An evaluator over a state.
    pub(super) fn evaluator<'s>(&'s self, store: &'s mut MemoryStore) -> Evaluator<'s, MemoryStore> {
        Evaluator::new(store, &self.ranks, &self.schemas, 0)
    }

    /// What every file shows now.
    pub(super) fn now(&self) -> Vec<Cut> {
        self.databases.iter().map(|(_, cursor, _)| cursor.clone()).collect()
    }

    /// Name of the node that wrote under an origin.
    pub(super) fn author(&self, origin: &OriginId) -> String {
        author_of(&self.heads, &self.membership, origin)
    }

    /// The position of a database that a person names.
    pub(super) fn position_of(&self, database: &str) -> Result<usize, NodeError> {
        position_of(&self.schemas, database)
    }

    /// Refuses names that are nowhere.
    pub(super) fn check_names(&self, database: Option<&str>, table: Option<&str>) -> Result<(), NodeError> {
        if let Some(database) = database {
            self.position_of(database)?;
        }
        let Some(table) = table else { return Ok(()) };
        let looked = self.schemas.iter().filter(|schema| database.is_none_or(|name| schema.database == name));
        if looked.clone().any(|schema| schema.table(table).is_some()) {
            return Ok(());
        }
        Err(NodeError::Invalid(format!("no replicated table is named {table}: `litemesh preflight` lists them")))
    }
}

impl Node {
    /// [`Node::replay`] with all that the apps wrote until now in the log. An error when a file is not replicated yet.
    pub fn replay_heard(&mut self, now: super::Now) -> Result<Replay, NodeError> {
        for position in 0..self.databases.len() {
            self.hear_app_first(position, now)?;
        }
        self.replay()
    }
}

/// The position of a database that a person names.
pub(super) fn position_of(schemas: &[DatabaseSchema], database: &str) -> Result<usize, NodeError> {
    schemas.iter().position(|schema| schema.database == database).ok_or_else(|| {
        let known: Vec<&str> = schemas.iter().map(|schema| schema.database.as_str()).collect();
        NodeError::Invalid(format!("no database is named {database}: this node has {}", known.join(", ")))
    })
}
