//! From marks to what happened to each row: the first half of capture.
//!
//! Marks are read in order against what the file showed before (the store's `shown` index). Invariants:
//! - An insert on a key whose row was hinted in the same statement replaced that row (`INSERT OR REPLACE`: the row keeps
//!   its identity); on any other key it is a new row, even where the key was used before.
//! - A row whose key another row took without a delete mark was evicted (`REPLACE` through a UNIQUE index).
//! - What counts at the end is the drain's snapshot: a row that is not there was deleted, whatever the marks say.
//!
//! Caller: [`super::capture`].

use std::collections::BTreeMap;

use crate::merge::Evaluator;
use crate::merge::store::{Store, TableId};
use crate::model::{Bug, DatabaseSchema, Identity, Key, RowId, TableSchema, Value, planted};
use crate::sqlite::{Drain, Image, Mark, MarkOp};

/// A row as the marks know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Occupant {
    /// A row the store knows.
    Existing(RowId),
    /// A row inserted since the last drain: position in [`Reading::fresh`].
    Fresh(usize),
}

/// What the marks say of one row.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    /// Position of the table in the schema.
    pub(super) table: usize,
    /// Where the row is at the end; `None` when it was deleted or evicted.
    pub(super) key: Option<Key>,
    /// When it was last written, ms since 1970 by the machine's clock.
    pub(super) wall_ms: u64,
}

/// All marks of a drain, read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Rows that were there before.
    pub(super) existing: BTreeMap<RowId, Trace>,
    /// New rows, in the order of their inserts.
    pub(super) fresh: Vec<Trace>,
    /// (table, key) -> who is there at the end, for every key that a mark names.
    occupants: BTreeMap<(usize, Key), Option<Occupant>>,
    /// Keys hinted by the statement being read.
    hints: Vec<(usize, Key)>,
}

impl Reading {
    /// Reads the marks of a drain in order; marks of tables that are not replicated (any more) say nothing.
    pub(super) fn read<S: Store>(
        evaluator: &mut Evaluator<'_, S>,
        schema: &DatabaseSchema,
        marks: &[&Mark],
    ) -> Result<Reading, S::Error> {
        let mut reading = Reading::default();
        for mark in marks {
            let position = schema.tables.iter().position(|table| table.name.eq_ignore_ascii_case(&mark.table));
            let Some(table) = position else { continue };
            reading.read_mark(evaluator, schema, table, mark)?;
        }
        Ok(reading)
    }

    fn read_mark<S: Store>(
        &mut self,
        evaluator: &mut Evaluator<'_, S>,
        schema: &DatabaseSchema,
        table: usize,
        mark: &Mark,
    ) -> Result<(), S::Error> {
        let at = (table, mark.key.clone());
        let occupant = self.occupant(evaluator, schema, &at)?;
        match mark.op {
            MarkOp::Hint => {
                if let Some(Occupant::Existing(row)) = occupant.filter(|_| !planted(Bug::HintsIgnored)) {
                    self.existing.entry(row).or_insert(Trace {
                        table,
                        key: Some(mark.key.clone()),
                        wall_ms: mark.wall_ms,
                    });
                }
                self.hints.push(at);
                return Ok(());
            }
            MarkOp::Insert => match occupant {
                Some(occupant) if self.hints.contains(&at) => self.place(occupant, at, mark.wall_ms),
                occupant => {
                    self.displace(occupant, table, mark.wall_ms);
                    self.insert(at, mark.wall_ms);
                }
            },
            MarkOp::Update => {
                let from = (table, mark.old_key.clone().unwrap_or_else(|| mark.key.clone()));
                let moved = self.occupant(evaluator, schema, &from)?;
                if from != at {
                    self.displace(occupant, table, mark.wall_ms);
                    self.occupants.insert(from, None);
                }
                let keyed = matches!(schema.tables[table].identity, Identity::Keyed(_));
                match moved {
                    // Where the key is the identity, another key is another row.
                    Some(moved) if keyed && mark.old_key.is_some() && mark.old_key.as_ref() != Some(&mark.key) => {
                        self.displace(Some(moved), table, mark.wall_ms);
                        self.insert(at, mark.wall_ms);
                    }
                    Some(moved) => self.place(moved, at, mark.wall_ms),
                    // A row that slipped in unseen: from here on it is known.
                    None => self.insert(at, mark.wall_ms),
                }
            }
            MarkOp::Delete => {
                self.displace(occupant, table, mark.wall_ms);
                self.occupants.insert(at, None);
            }
        }
        self.hints.clear();
        Ok(())
    }

    /// Who is at a key, as far as the marks were read.
    fn occupant<S: Store>(
        &mut self,
        evaluator: &mut Evaluator<'_, S>,
        schema: &DatabaseSchema,
        at: &(usize, Key),
    ) -> Result<Option<Occupant>, S::Error> {
        if let Some(occupant) = self.occupants.get(at) {
            return Ok(*occupant);
        }
        let found = shown(evaluator, schema, &schema.tables[at.0], &at.1)?.map(Occupant::Existing);
        self.occupants.insert(at.clone(), found);
        Ok(found)
    }

    fn insert(&mut self, at: (usize, Key), wall_ms: u64) {
        let fresh = Occupant::Fresh(self.fresh.len());
        self.fresh.push(Trace { table: at.0, key: Some(at.1.clone()), wall_ms });
        self.occupants.insert(at, Some(fresh));
    }

    fn place(&mut self, occupant: Occupant, at: (usize, Key), wall_ms: u64) {
        let trace = Trace { table: at.0, key: Some(at.1.clone()), wall_ms };
        match occupant {
            Occupant::Existing(row) => {
                self.existing.insert(row, trace);
            }
            Occupant::Fresh(position) => self.fresh[position] = trace,
        }
        self.occupants.insert(at, Some(occupant));
    }

    fn displace(&mut self, occupant: Option<Occupant>, table: usize, wall_ms: u64) {
        match occupant {
            Some(Occupant::Existing(row)) => {
                self.existing.insert(row, Trace { table, key: None, wall_ms });
            }
            Some(Occupant::Fresh(position)) => self.fresh[position].key = None,
            None => {}
        }
    }

    /// Takes rows that the snapshot lacks as deleted.
    pub(super) fn confirm(&mut self, schema: &DatabaseSchema, drain: &Drain) {
        for trace in self.existing.values_mut().chain(&mut self.fresh) {
            let name = &schema.tables[trace.table].name;
            if trace.key.as_ref().is_some_and(|key| image_of(drain, name, key).is_none()) {
                trace.key = None;
            }
        }
    }

    /// The touched rows of a table by what these columns hold at the end: for references that name no primary key.
    pub(super) fn by_columns(
        &self,
        schema: &DatabaseSchema,
        drain: &Drain,
        table: usize,
        columns: &[usize],
    ) -> BTreeMap<Vec<Value>, Occupant> {
        let existing = self.existing.iter().map(|(row, trace)| (Occupant::Existing(*row), trace));
        let fresh = self.fresh.iter().enumerate().map(|(position, trace)| (Occupant::Fresh(position), trace));
        let held = |(occupant, trace): (Occupant, &Trace)| {
            let image = image_of(drain, &schema.tables[table].name, trace.key.as_ref()?)?;
            Some((columns.iter().map(|column| image[*column].clone()).collect(), occupant))
        };
        existing.chain(fresh).filter(|(_, trace)| trace.table == table).filter_map(held).collect()
    }

    /// Who is at a key at the end; `None` when no mark names the key.
    pub(super) fn finally(&self, table: usize, key: &Key) -> Option<Option<Occupant>> {
        let occupant = *self.occupants.get(&(table, key.clone()))?;
        let there = occupant.filter(|occupant| match occupant {
            Occupant::Existing(row) => self.existing.get(row).is_none_or(|trace| trace.key.as_ref() == Some(key)),
            Occupant::Fresh(position) => self.fresh[*position].key.as_ref() == Some(key),
        });
        Some(there)
    }
}

/// The row that the file shows under a key, as of the last capture or apply.
pub(super) fn shown<S: Store>(
    evaluator: &mut Evaluator<'_, S>,
    schema: &DatabaseSchema,
    table: &TableSchema,
    key: &[Value],
) -> Result<Option<RowId>, S::Error> {
    let id: Option<TableId> = evaluator.store().find_table(&schema.database, &table.name)?;
    let Some(id) = id else { return Ok(None) };
    evaluator.store().shown(id, key)
}

/// The image of a row in a drain's snapshot.
pub(super) fn image_of<'d>(drain: &'d Drain, table: &str, key: &Key) -> Option<&'d Image> {
    drain.images.get(&(table.to_string(), key.clone())).and_then(Option::as_ref)
}
