//! What the log says that rows held before: read from the events, a page at a time.
//!
//! Nothing is kept for this with every write: drift is rare, and the log has it all. Invariant: remembers one answer per
//! (row, column) that was asked for, however long the log is. Caller: [`super::drift`].

use std::collections::{BTreeMap, BTreeSet};

use super::NodeError;
use super::drift::Finding;
use super::drift_cause::differing;
use crate::log::{LogError, LogRead};
use crate::model::{Cell, Change, DatabaseSchema, Heads, Key, OriginId, RowId, Value};
use crate::wire::decode_event;

/// Events read in one tick.
const EVENTS_PAGE: usize = 256;

/// Which of the values that a file holds were once written to the same cell.
pub(super) struct Evidence {
    database: String,
    /// The rows that it was asked about, by key.
    pub(super) asked: BTreeSet<Key>,
    /// The values asked for: by row and column.
    wanted: BTreeMap<RowId, BTreeMap<String, Value>>,
    found: BTreeMap<RowId, BTreeSet<String>>,
    /// Origins that are read, and the next event.
    origin: Option<OriginId>,
    from: u64,
    through: bool,
}

impl Evidence {
    pub(super) fn of(table: &str, schema: &DatabaseSchema, findings: &[Finding]) -> Evidence {
        let mut wanted: BTreeMap<RowId, BTreeMap<String, Value>> = BTreeMap::new();
        let asked = findings.iter().map(|finding| finding.key.clone()).collect();
        let database = schema.database.clone();
        let Some(schema) = schema.table(table) else { return Evidence::about(database, asked, wanted) };
        let keys = schema.key_columns();
        for finding in findings {
            let (Some(row), Some(file)) = (finding.row, &finding.file) else { continue };
            let columns = match finding.log.as_ref().filter(|_| finding.shown) {
                Some(log) => differing(file, log),
                None => (0..file.len()).filter(|column| !keys.contains(column)).collect(),
            };
            let values = columns
                .into_iter()
                .filter_map(|at| Some((schema.columns.get(at)?.name.clone(), file.get(at)?.clone())));
            wanted.entry(row).or_default().extend(values);
        }
        Evidence::about(database, asked, wanted)
    }

    fn about(database: String, asked: BTreeSet<Key>, wanted: BTreeMap<RowId, BTreeMap<String, Value>>) -> Evidence {
        let through = wanted.is_empty();
        Evidence { database, asked, wanted, found: BTreeMap::new(), origin: None, from: 1, through }
    }

    /// Reads a page of events. True: all was read.
    pub(super) fn collect(&mut self, read: &LogRead, heads: &Heads) -> Result<bool, NodeError> {
        for _ in 0..EVENTS_PAGE {
            if self.through {
                return Ok(true);
            }
            let origin = match self.origin {
                Some(origin) => Some(origin),
                None => heads.keys().next().copied(),
            };
            let Some(origin) = origin else {
                self.through = true;
                continue;
            };
            self.origin = Some(origin);
            let next = match read.next_of_database(&origin, self.from, &self.database) {
                Err(LogError::CorruptEvent { seq, .. }) => {
                    self.from = seq + 1;
                    continue;
                }
                next => next?,
            };
            match next {
                Some((seq, stored)) => {
                    self.from = seq + 1;
                    self.take(read, &stored.bytes)?;
                }
                None => {
                    let behind = (std::ops::Bound::Excluded(origin), std::ops::Bound::Unbounded);
                    self.origin = heads.range(behind).next().map(|(origin, _)| *origin);
                    self.from = 1;
                    self.through = self.origin.is_none();
                }
            }
        }
        Ok(self.through)
    }

    fn take(&mut self, read: &LogRead, bytes: &[u8]) -> Result<(), NodeError> {
        let event = decode_event(bytes)?;
        for change in &event.changes {
            let Some(wanted) = change.row().and_then(|row| Some((row, self.wanted.get(&row)?))) else { continue };
            let (row, wanted) = wanted;
            let columns = &event.tables[change.table() as usize].columns;
            let cells: Vec<(u32, &Cell)> = match change {
                Change::Insert { cells, .. } => cells.iter().map(|(column, cell)| (*column, cell)).collect(),
                Change::Update { cells, .. } => cells.iter().map(|(column, cell, _)| (*column, cell)).collect(),
                _ => Vec::new(),
            };
            for (column, cell) in cells {
                let name = &columns[column as usize];
                if let Some(value) = wanted.get(name)
                    && holds(read, cell, value)?
                {
                    self.found.entry(row).or_default().insert(name.clone());
                }
            }
        }
        Ok(())
    }

    /// Whether every value that differs is one that the row had before.
    pub(super) fn all_earlier(&self, finding: &Finding) -> bool {
        let Some(row) = finding.row else { return false };
        let Some(wanted) = self.wanted.get(&row).filter(|wanted| !wanted.is_empty()) else { return false };
        let found = self.found.get(&row);
        wanted.keys().all(|column| found.is_some_and(|found| found.contains(column)))
    }
}

/// Whether a cell shows, or once showed, a value.
fn holds(read: &LogRead, cell: &Cell, value: &Value) -> Result<bool, NodeError> {
    Ok(match cell {
        Cell::Plain(written) => written == value,
        Cell::Step { value: written, .. } => Value::Integer(*written) == *value,
        Cell::Edit(edit) => edit.value == *value,
        Cell::Ref(reference) => match (read.row(&reference.row)?, value) {
            (Some(parent), Value::Integer(id)) => {
                parent.id == Some(*id) || parent.claim.is_some_and(|claim| claim.id == *id)
            }
            (Some(parent), _) => parent.shown.is_some_and(|key| key.contains(value)),
            (None, _) => false,
        },
    })
}
