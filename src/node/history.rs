//! A row's whole life: birth, every version, ids it had, merges, splits, deletes, returns, what lost, what was undone.
//!
//! The node says which rows are meant and what its audit holds of them (index lookups only); the log is read beside it
//! ([`Replay::life`]): the row, and the few rows that can move its id, merge with it or take its UNIQUE value, are evaluated
//! event by event, and what each event changed of the row is written down. So a version tells what it did, not only what it
//! wrote: a value that lost says to whom. Invariants: nothing is changed; versions stand in the order of their stamps, which
//! is an order in which they could have happened; a row that is deleted, moved or merged is found under every id it had.
//! What it does not tell: waits on the shelf that are over, where another row than those above was the cause.
//! Callers: http, cli (through it), simulations.

use std::collections::{BTreeMap, BTreeSet};

use super::query::{cell_text, describe, key_text, rfc3339, stamp_text};
use super::rebuild::Replay;
use super::travel_view::CellChange;
use super::undo_note::words;
use super::undo_select::with_links;
use super::view::{HeldId, HistoryView, VersionView};
use super::{Node, NodeError};
use crate::log::LogRead;
use crate::merge::Evaluator;
use crate::merge::claims::remainder;
use crate::merge::memory::MemoryStore;
use crate::merge::store::{AuditKind, AuditRecord, CellVersion, Row, Shelved, Store};
use crate::model::{Cell, Change, Cut, Event, Identity, RowId, Stamp, Value};
use crate::wire::decode_event;

/// Rows that refer to the row, looked at for what keeps it alive, at most.
const REFERRERS_MAX: usize = 200;

/// The rows that a question means, and what the node itself knows of them.
pub struct Asked {
    view: HistoryView,
    position: usize,
    row: RowId,
    /// Rows whose ids are told: this one, and others under the id that was asked for.
    told: BTreeSet<RowId>,
}

/// What is shown of a row at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Moment {
    born: bool,
    /// The id it wants, its birth's until the app gives it another.
    claim: Option<i64>,
    /// The stamp of its birth.
    since: Stamp,
    alive: bool,
    id: Option<i64>,
    cells: BTreeMap<String, String>,
    members: BTreeSet<RowId>,
    hidden: Option<String>,
}

impl Node {
    /// The life of the row that is, or was, known under a key (values joined by commas) or a row identity as printed by
    /// other commands; where several were, of the one shown there now.
    pub fn history(&self, database: &str, table: &str, key: &str) -> Result<HistoryView, NodeError> {
        let replay = self.replay()?;
        let mut rows = self.known_under(database, table, key)?;
        rows.extend(replay.once_under(database, table, key)?);
        replay.life(self.asked(database, table, key, &rows)?)
    }

    /// Rows known under a key, by the indexes alone: those that are shown there, claim it or got it.
    pub fn known_under(&self, database: &str, table: &str, key: &str) -> Result<Vec<RowId>, NodeError> {
        let read = self.log.read()?;
        let (id, schema) = self.table_of(&read, database, table)?;
        self.rows_under(&read, database, id, schema, key)
    }

    /// What the node itself says of the first of these rows, and of the others by the way; the rest is read beside it.
    pub fn asked(&self, database: &str, table: &str, key: &str, rows: &[RowId]) -> Result<Asked, NodeError> {
        let read = self.log.read()?;
        let (id, schema) = self.table_of(&read, database, table)?;
        let row = rows.first().copied().ok_or_else(|| {
            NodeError::Invalid(format!("no row of {database}.{table} was ever known under {key}: check the id"))
        })?;
        let record = read.row(&row)?.unwrap_or_else(|| Row::new(id));
        let members = if record.members().is_empty() { vec![row] } else { record.members().to_vec() };
        let mut conflicts = Vec::new();
        for member in &members {
            conflicts.extend(read.audit_by_row(member)?);
        }
        conflicts.sort_by_key(|conflict| conflict.number);
        let told: BTreeSet<RowId> = rows.iter().chain(&members).copied().collect();
        let mut others = Vec::new();
        for other in told.iter().filter(|other| !members.contains(other)) {
            others.extend(self.where_row(&read, other, key)?);
        }
        let canonical = match members.first() {
            Some(canonical) if *canonical != row => read.row(canonical)?.unwrap_or_else(|| record.clone()),
            _ => record,
        };
        let view = HistoryView {
            database: database.to_string(),
            table: schema.name.clone(),
            row: row.to_string(),
            id: canonical.shown.as_deref().map(key_text).unwrap_or_default(),
            state: self.state_text(&read, &canonical)?,
            conflicts: conflicts.iter().map(|one| self.conflict_view(&read, one)).collect::<Result<_, _>>()?,
            others,
            ..HistoryView::default()
        };
        Ok(Asked { view, position: self.position_of(database)?, row, told })
    }
}

impl Replay {
    /// Rows that had an id at some time, or claimed it, and rows of a key that are gone: what no index knows any more. Reads
    /// the log.
    pub fn once_under(&self, database: &str, table: &str, key: &str) -> Result<Vec<RowId>, NodeError> {
        let position = self.position_of(database)?;
        let Some(schema) = self.schemas[position].table(table) else { return Ok(Vec::new()) };
        let read = self.log.read()?;
        let wanted: Option<i64> = key.parse().ok().filter(|_| matches!(schema.identity, Identity::Surrogate(_)));
        let named: Vec<&str> =
            schema.key_columns().iter().map(|column| schema.columns[*column].name.as_str()).collect();
        let mut candidates = BTreeSet::new();
        let of_table = |event: &Event, change: &Change| event.tables[change.table() as usize].table == schema.name;
        self.walk(position, &mut Cut::default(), &self.databases[position].1, &mut |_, events| {
            for (event, change) in events.iter().flat_map(|event| event.changes.iter().map(move |one| (event, one))) {
                let may_be = match (change, wanted) {
                    (Change::Insert { claim: Some(id), .. } | Change::Claim { id, .. }, Some(wanted)) => {
                        remainder(*id) == remainder(wanted)
                    }
                    (Change::Insert { cells, .. }, None) if matches!(schema.identity, Identity::Keyed(_)) => {
                        let names = &event.tables[change.table() as usize].columns;
                        key_written(&read, (names, cells), &named)?.as_deref() == Some(key)
                    }
                    _ => false,
                };
                candidates.extend(change.row().filter(|_| may_be && of_table(event, change)));
            }
            Ok(())
        })?;
        let Some(wanted) = wanted else { return Ok(candidates.into_iter().collect()) };
        // Which of those that could have had it really had.
        let Some(row) = candidates.first().copied() else { return Ok(Vec::new()) };
        let (ids, versions) = Default::default();
        let mut life = Life { replay: self, row, rows: candidates.clone(), told: candidates, ids, versions };
        let mut store = MemoryStore::default();
        self.walk(position, &mut Cut::default(), &self.databases[position].1, &mut |read, events| {
            for event in events {
                if !event.changes.iter().any(|change| life.concerned(change)) {
                    continue;
                }
                let rows = |_: &Event, _: u32, change: &Change| life.concerned(change);
                self.evaluate(&mut store, read, std::slice::from_ref(event), &rows)?;
                life.note_ids(&mut store, event.header.stamp);
            }
            Ok(())
        })?;
        let had = |held: &&(RowId, Vec<(i64, Stamp)>)| held.1.iter().any(|(id, _)| *id == wanted);
        let held: Vec<(RowId, Vec<(i64, Stamp)>)> = life.ids.into_iter().collect();
        Ok(held.iter().filter(had).map(|(row, _)| *row).collect())
    }

    /// Reads the log for the life of a row.
    pub fn life(&self, asked: Asked) -> Result<HistoryView, NodeError> {
        let Asked { mut view, position, row, told } = asked;
        let read = self.log.read()?;
        let rows = with_rivals(&read, &row)?;
        let mut life = Life { replay: self, row, rows, told, ids: BTreeMap::new(), versions: Vec::new() };
        let mut store = MemoryStore::default();
        let mut from = Cut::default();
        let through = self.databases[position].1.clone();
        self.walk(position, &mut from, &through, &mut |read, events| {
            for event in events {
                life.live(&mut store, read, event)?;
            }
            Ok(())
        })?;
        let order = |(stamp, version): &(Stamp, VersionView)| (*stamp, version.operation == "effect");
        life.versions.sort_by(|a, b| {
            let events = (&a.1.event, a.1.index).cmp(&(&b.1.event, b.1.index));
            order(a).cmp(&order(b)).then(events)
        });
        view.versions = life.versions.into_iter().map(|(_, version)| version).collect();
        for (row, held) in life.ids {
            for (at, (id, from)) in held.iter().enumerate() {
                let to = held.get(at + 1).map(|(_, to)| stamp_text(*to)).unwrap_or_default();
                view.ids.push(HeldId { id: id.to_string(), row: row.to_string(), from: stamp_text(*from), to });
            }
        }
        // The row that was asked for comes first.
        view.ids.sort_by_key(|held| held.row != view.row);
        Ok(view)
    }
}

/// The evaluation of one row's life under way.
struct Life<'r> {
    replay: &'r Replay,
    row: RowId,
    rows: BTreeSet<RowId>,
    told: BTreeSet<RowId>,
    /// The ids of the told rows, each with the stamp from which on.
    ids: BTreeMap<RowId, Vec<(i64, Stamp)>>,
    versions: Vec<(Stamp, VersionView)>,
}

impl Life<'_> {
    fn concerned(&self, change: &Change) -> bool {
        match change {
            Change::Rule { .. } => true,
            Change::Merge { row, other, .. } | Change::Split { row, other, .. } => {
                self.rows.contains(row) || self.rows.contains(other)
            }
            _ => change.row().is_some_and(|row| self.rows.contains(&row)),
        }
    }

    /// Takes in one event, if it concerns the row or those that can change what it shows.
    fn live(&mut self, store: &mut MemoryStore, read: &LogRead, event: &Event) -> Result<(), NodeError> {
        if !event.changes.iter().any(|change| self.concerned(change)) {
            return Ok(());
        }
        let before = self.moment(store, read)?;
        let known = store.audit().len();
        self.replay.evaluate(store, read, std::slice::from_ref(event), &|_, _, change| self.concerned(change))?;
        let after = self.moment(store, read)?;
        let audit = store.audit()[known..].to_vec();
        self.note_ids(store, event.header.stamp);
        self.note(read, event, (&before, &after), &audit)
    }

    /// What is shown of the row now.
    fn moment(&self, store: &mut MemoryStore, read: &LogRead) -> Result<Moment, NodeError> {
        let mut evaluator = self.replay.evaluator(store);
        let Ok(canonical) = evaluator.canonical(&self.row);
        let Ok(Some(view)) = evaluator.view(&canonical) else { return Ok(Moment::default()) };
        let Ok(members) = evaluator.members(&canonical);
        let Ok(names) = evaluator.store().columns(view.table);
        let mut cells = BTreeMap::new();
        for state in &view.cells {
            let shown = view.tagged(state.column).map(|tagged| Cell::Plain(tagged.clone()));
            let cell = shown.as_ref().unwrap_or(&state.cell);
            cells.insert(names[state.column as usize].clone(), reference_text(read, cell)?);
        }
        let hidden = match &view.shelved {
            Some(Shelved::Unique { index, .. }) => {
                Some(format!("waits on the shelf: another row has its unique value ({index})"))
            }
            _ if !view.overlay.is_empty() => Some("shown with a tag: another row has its unique value".to_string()),
            _ => None,
        };
        let born = !view.births.is_empty();
        let own = members.iter().any(|member| matches!(evaluator.held_up(member), Ok(true)));
        let alive = born && (view.alive || own);
        let Ok(own) = evaluator.row(&self.row);
        let claim = own.and_then(|record| record.claim).map(|claim| claim.id);
        let since = own.and_then(|record| record.births.first()).map_or(Stamp(0), |(_, stamp)| *stamp);
        let members = members.into_iter().collect();
        Ok(Moment { born, claim, since, alive, id: view.id, cells, members, hidden })
    }

    fn note_ids(&mut self, store: &mut MemoryStore, stamp: Stamp) {
        let mut evaluator: Evaluator<'_, MemoryStore> = self.replay.evaluator(store);
        for row in &self.told {
            let Ok(Some(record)) = evaluator.row(row) else { continue };
            let Some(id) = record.id.filter(|_| !record.births.is_empty()) else { continue };
            let held = self.ids.entry(*row).or_default();
            let stamp = held.last().map_or(stamp, |(_, last)| stamp.max(*last));
            if held.last().is_none_or(|(last, _)| *last != id) {
                held.push((id, stamp));
            }
        }
    }

    /// Writes down what an event did to the row.
    fn note(
        &mut self,
        read: &LogRead,
        event: &Event,
        (before, after): (&Moment, &Moment),
        audit: &[AuditRecord],
    ) -> Result<(), NodeError> {
        let of_row = |row: &RowId| *row == self.row || before.members.contains(row) || after.members.contains(row);
        let concerns = |change: &&Change| match change {
            Change::Merge { row, other, .. } | Change::Split { row, other, .. } => of_row(row) || of_row(other),
            _ => change.row().is_some_and(|row| of_row(&row)),
        };
        let own: Vec<(usize, &Change)> =
            event.changes.iter().enumerate().filter(|(_, change)| concerns(change)).collect();
        let moved = audit.iter().any(|record| of_row(&record.row) && matches!(record.kind, AuditKind::IdMoved { .. }));
        let mut said = self.said(read, (before, after), moved)?;
        for record in audit.iter().filter(|record| of_row(&record.row)) {
            said.extend(self.lost(read, record)?);
        }
        let mut changes: Vec<CellChange> = Vec::new();
        let columns: BTreeSet<&String> = before.cells.keys().chain(after.cells.keys()).collect();
        for column in columns.into_iter().filter(|column| before.cells.get(*column) != after.cells.get(*column)) {
            let value = |moment: &Moment| moment.cells.get(column).cloned().unwrap_or_default();
            changes.push(CellChange { column: column.clone(), from: value(before), to: value(after) });
        }
        let header = &event.header;
        let mut version = VersionView {
            time: stamp_text(header.stamp),
            node: self.replay.author(&header.origin.id()),
            event: format!("{}:{}", header.origin.id(), header.seq),
            note: words(&header.note).to_string(),
            ..VersionView::default()
        };
        let Some((last, others)) = own.split_last() else {
            if !said.is_empty() || !changes.is_empty() {
                // Another row's event moved, tagged or freed this one: not before this one was born.
                let stamp = header.stamp.max(after.since);
                version.time = stamp_text(stamp);
                (version.operation, version.changes, version.said) = ("effect".to_string(), changes, said);
                self.versions.push((stamp, version));
            }
            return Ok(());
        };
        for (index, change) in others.iter().chain([last]) {
            let (operation, cells) = describe(event, change);
            let stamp = match change {
                Change::Update { cells, .. } => cells.iter().map(|cell| cell.2).max().unwrap_or(header.stamp),
                _ => header.stamp,
            };
            (version.time, version.operation, version.cells) = (stamp_text(stamp), operation, cells);
            version.index = *index as u32;
            if *index == last.0 {
                (version.changes, version.said) = (std::mem::take(&mut changes), std::mem::take(&mut said));
            }
            self.versions.push((stamp, version.clone()));
        }
        Ok(())
    }

    /// What became of the row as a whole.
    fn said(&self, read: &LogRead, (before, after): (&Moment, &Moment), moved: bool) -> Result<Vec<String>, NodeError> {
        let mut said = Vec::new();
        match (before.born, after.born, after.claim) {
            (false, true, Some(id)) => said.push(format!("born with id {id}")),
            (false, true, None) => said.push("born".to_string()),
            _ => {}
        }
        match (before.alive, after.alive) {
            (true, false) => said.push("deleted".to_string()),
            (false, true) if before.born => said.push("comes back".to_string()),
            _ => {}
        }
        for other in after.members.difference(&before.members).filter(|row| **row != self.row && before.born) {
            said.push(format!("one row with {}", named(read, other)?));
        }
        if before.members.len() > 1 && after.members.len() < before.members.len() {
            for other in before.members.difference(&after.members) {
                said.push(format!("two rows again: {} is on its own", named(read, other)?));
            }
        }
        if before.hidden != after.hidden {
            match &after.hidden {
                Some(why) => said.push(why.clone()),
                None if after.alive => said.push("shown under its own value again".to_string()),
                None => {}
            }
        }
        if let (Some(was), Some(is)) = (before.id, after.id)
            && was != is
            && before.born
            && !moved
        {
            said.push(format!("id {was} -> {is}"));
        }
        Ok(said)
    }

    /// What lost, in words.
    fn lost(&self, read: &LogRead, record: &AuditRecord) -> Result<Vec<String>, NodeError> {
        let by = |version: &CellVersion| -> Result<String, NodeError> {
            let (value, author) = (reference_text(read, &version.cell)?, self.replay.author(&version.dot.origin));
            Ok(format!("{value} ({author} at {})", stamp_text(version.stamp)))
        };
        Ok(match &record.kind {
            AuditKind::Cell { column, winner, loser } => {
                vec![format!("conflict in {column}: {} wins over {}", by(winner)?, by(loser)?)]
            }
            AuditKind::IdMoved { from, to, holder } => {
                vec![format!("id {from} -> {to}: {} was born with {from} as well and is senior", named(read, holder)?)]
            }
            AuditKind::Merged { lost, .. } => {
                let mut said = Vec::new();
                for (column, version) in lost {
                    said.push(format!("not shown since: {column} {}", by(version)?));
                }
                said
            }
            AuditKind::DeleteLost { delete, stamp } => {
                let (node, time) = (self.replay.author(&delete.origin), stamp_text(*stamp));
                vec![format!("conflict: {node} deleted it at {time} without knowing of a change: it lives on")]
            }
            AuditKind::WriteLost { delete, stamp, .. } => {
                let (node, time) = (self.replay.author(&delete.origin), rfc3339(stamp.wall_ms()));
                vec![format!("conflict: deleted by {node} at {time}, which wins over a change in this table")]
            }
            AuditKind::RingCut { column, .. } => vec![format!("{column} would close a ring: it is not shown")],
            AuditKind::Parted { .. } | AuditKind::Suspect { .. } => Vec::new(),
        })
    }
}

/// The row, all that links connect with it, and the rows whose claims, UNIQUE values or references can change what it shows.
fn with_rivals(read: &LogRead, row: &RowId) -> Result<BTreeSet<RowId>, NodeError> {
    let mut rows = with_links(read, BTreeSet::from([*row]))?;
    for member in rows.clone() {
        let Some(record) = read.row(&member)? else { continue };
        for id in claimed(read, &member, &record)? {
            rows.extend(read.claims(record.table, remainder(id))?.into_iter().map(|(_, rival)| rival));
        }
        for key in &record.unique {
            rows.extend(read.unique_holders(record.table, key)?);
        }
        let referrers = read.referrers(&member)?;
        if referrers.len() <= REFERRERS_MAX {
            rows.extend(referrers);
        }
    }
    with_links(read, rows)
}

/// The key that an insert wrote, as people type it; `None` where it lacks a column of it.
fn key_written(
    read: &LogRead,
    (names, cells): (&[String], &[(u32, Cell)]),
    key: &[&str],
) -> Result<Option<String>, NodeError> {
    let mut values = Vec::new();
    for name in key {
        let written = |(column, _): &&(u32, Cell)| names[*column as usize].eq_ignore_ascii_case(name);
        let Some((_, cell)) = cells.iter().find(written) else { return Ok(None) };
        values.push(match cell {
            Cell::Plain(value) => value.clone(),
            Cell::Ref(reference) => {
                let record = read.row(&reference.row)?;
                record.and_then(|record| record.id).map_or(Value::Null, Value::Integer)
            }
            other => match other.without_difference() {
                Cell::Plain(value) => value,
                _ => Value::Null,
            },
        });
    }
    Ok(Some(key_text(&values)))
}

/// The ids that a row is known to have claimed: now, at its birth, and when it lost one.
fn claimed(read: &LogRead, row: &RowId, record: &Row) -> Result<BTreeSet<i64>, NodeError> {
    let mut ids: BTreeSet<i64> = record.claim.iter().map(|claim| claim.id).collect();
    if let RowId::Born(birth) = row
        && let Some(stored) = read.event(&birth.origin, birth.seq)?
        && let Some(Change::Insert { claim, .. }) = decode_event(&stored.bytes)?.changes.get(birth.index as usize)
    {
        ids.extend(*claim);
    }
    for told in read.audit_by_row(row)? {
        if let AuditKind::IdMoved { from, .. } = told.kind {
            ids.insert(from);
        }
    }
    Ok(ids)
}

/// A row as people know it.
fn named(read: &LogRead, row: &RowId) -> Result<String, NodeError> {
    let record = read.row(row)?;
    let shown = record.as_ref().and_then(|record| record.shown.as_deref().map(key_text));
    let id = shown.or(record.and_then(|record| record.id).map(|id| id.to_string()));
    Ok(id.map_or_else(|| row.to_string(), |id| format!("row {id} ({row})")))
}

/// A value as people read it; a reference by where its row is shown now.
fn reference_text(read: &LogRead, cell: &Cell) -> Result<String, NodeError> {
    let Cell::Ref(reference) = cell else { return Ok(cell_text(&cell.without_difference())) };
    let Some(record) = read.row(&reference.row)? else { return Ok(cell_text(cell)) };
    let shown = match record.members().first() {
        Some(canonical) if *canonical != reference.row => read.row(canonical)?.and_then(|record| record.shown),
        _ => record.shown,
    };
    let id = record.id.map(Value::Integer).map(|id| vec![id]);
    Ok(shown.or(id).map_or_else(|| cell_text(cell), |key| format!("→ {} {}", reference.table, key_text(&key))))
}
