//! What speaks for the one or the other cause: what the log says that rows held before, and whose content a row shows.
//!
//! Events are read a page at a time. Nothing is kept for this with every write: drift is rare, and the log has it all.
//! Invariant: remembers one answer per (row, column) that was asked for, however long the log is. Caller:
//! [`super::drift`].

use std::collections::{BTreeMap, BTreeSet};

use super::NodeError;
use super::drift::Finding;
use super::drift_cause::{Judged, Seen, are_near, differing, judge};
use crate::log::{LogError, LogRead};
use crate::model::{Cell, Change, Column, DatabaseSchema, Heads, Key, OriginId, RowId, Value};
use crate::sqlite::Image;
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

/// The rule, for each finding. `moved`: new key → old key; `borrowed`: key → the row whose content it shows, both ways.
pub(super) fn judge_all(
    columns: &[Column],
    findings: &[Finding],
    (moved, borrowed): (&BTreeMap<Key, Key>, &BTreeMap<Key, Key>),
    evidence: &Evidence,
) -> Vec<Judged> {
    let not_null: Vec<bool> = columns.iter().map(|column| column.not_null).collect();
    let judged = findings.iter().map(|finding| {
        let seen = Seen {
            file: finding.file.as_deref(),
            log: if finding.shown { finding.log.as_deref() } else { None },
            wanted: finding.wanted.as_deref(),
            earlier: evidence.all_earlier(finding),
            moved: moved.get(&finding.key).map(|from| (from, &finding.key)),
            borrowed: borrowed.contains_key(&finding.key),
        };
        judge(&not_null, &seen)
    });
    judged.collect()
}

/// A row's values but for its key.
fn content(image: &Image, keys: &[usize]) -> Vec<Value> {
    image.iter().enumerate().filter(|(at, _)| !keys.contains(at)).map(|(_, value)| value.clone()).collect()
}

/// Rows that went, by content.
fn gone_of<'f>(findings: &'f [Finding], keys: &[usize]) -> BTreeMap<Vec<Value>, Vec<&'f Key>> {
    let mut gone: BTreeMap<Vec<Value>, Vec<&Key>> = BTreeMap::new();
    for finding in findings.iter().filter(|finding| finding.file.is_none()) {
        if let Some(log) = &finding.log {
            gone.entry(content(log, keys)).or_default().push(&finding.key);
        }
    }
    gone
}

/// Rows that went, and stand under another key: new key → old key.
pub(super) fn pair_moved(findings: &[Finding], keys: &[usize]) -> BTreeMap<Key, Key> {
    let mut gone = gone_of(findings, keys);
    let mut moved = BTreeMap::new();
    for finding in findings.iter().filter(|finding| !finding.shown) {
        if let Some(image) = &finding.file
            && let Some(from) = gone.get_mut(&content(image, keys)).and_then(Vec::pop)
        {
            moved.insert(finding.key.clone(), from.clone());
        }
    }
    moved
}

/// Rows that show the content of another row, which is gone (or, its key a bit away, was gone `lately`): a rowid that
/// changed inside its page. Both are named: the one that shows it, and the one that is gone.
pub(super) fn pair_borrowed(findings: &[Finding], lately: &[(Key, Image)], keys: &[usize]) -> BTreeMap<Key, Key> {
    let mut gone = gone_of(findings, keys);
    let mut borrowed = BTreeMap::new();
    for finding in findings.iter().filter(|finding| finding.shown) {
        let Some(shown) = finding.file.as_ref().map(|image| content(image, keys)) else { continue };
        if let Some(other) = gone.get_mut(&shown).and_then(Vec::pop) {
            borrowed.insert(other.clone(), finding.key.clone());
            borrowed.insert(finding.key.clone(), other.clone());
            continue;
        }
        let fits = |(key, image): &&(Key, Image)| are_near(key, &finding.key) && content(image, keys) == shown;
        if let Some((other, _)) = lately.iter().find(fits) {
            borrowed.insert(finding.key.clone(), other.clone());
        }
    }
    borrowed
}
