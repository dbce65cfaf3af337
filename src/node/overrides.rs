//! Overrides: what a person decides against the merge, as ordinary events of this node.
//!
//! Merge and split of rows, and the losing side of a conflict put back. Invariants: an override knows what the file shows
//! (its stamps exceed those it replaces, so it wins everywhere); it shows in `history`; a file with marks waiting is
//! captured first, so that nothing the app wrote meanwhile is taken for older. Callers: http (through the node's port).

use std::collections::BTreeMap;

use super::capture::{Part, table_entry};
use super::query_rows::Place;
use super::view::DecisionView;
use super::{Node, NodeError, Now};
use crate::log::LogRead;
use crate::merge::Evaluator;
use crate::merge::store::{AuditKind, AuditRecord, Row};
use crate::model::{Cell, Change, Identity, RowId, Stamp, TableSchema};

impl Node {
    /// Says that the rows shown under two ids are one. The senior row's id stays, references follow.
    pub fn merge_rows(&mut self, place: &Place, id: &str, other: &str, now: Now) -> Result<DecisionView, NodeError> {
        let position = self.ready_database(&place.database, now)?;
        let (one, two) = (self.named_row(place, id)?, self.named_row(place, other)?);
        if one == two {
            return Err(NodeError::Invalid(format!("{id} and {other} are one row already: nothing to do")));
        }
        let schema = self.replicated_table(position, &place.table)?;
        if matches!(schema.identity, Identity::Keyed(_)) {
            return Err(NodeError::Invalid(format!(
                "rows of {}.{} are told apart by their key alone: change the key of one of them in the app instead",
                place.database, place.table
            )));
        }
        let mut part = Part::default();
        let table = table_entry(&mut part.tables, schema);
        part.changes.push(Change::Merge { table, row: one, other: two, columns: Vec::new() });
        let said = format!("rows {id} and {other} of {}.{} are one from here on", place.database, place.table);
        self.decide(position, part, said, now)
    }

    /// Takes a row apart into the rows that it was merged from.
    pub fn split_row(&mut self, place: &Place, id: &str, now: Now) -> Result<DecisionView, NodeError> {
        let position = self.ready_database(&place.database, now)?;
        let row = self.shown_row(place, id)?;
        let members = self.log.read()?.row(&row)?.map(|record| record.members().to_vec()).unwrap_or_default();
        let linked = self.log.read()?.row(&row)?.is_some_and(|record| !record.links().is_empty());
        if members.len() < 2 || !linked {
            return Err(NodeError::Invalid(format!(
                "row {id} of {}.{} was not merged from several: there is nothing to split",
                place.database, place.table
            )));
        }
        let schema = self.replicated_table(position, &place.table)?;
        let mut part = Part::default();
        let table = table_entry(&mut part.tables, schema);
        for (at, row) in members.iter().enumerate() {
            for other in &members[at + 1..] {
                part.changes.push(Change::Split { table, row: *row, other: *other });
            }
        }
        let said = format!("row {id} of {}.{} is {} rows again", place.database, place.table, members.len());
        self.decide(position, part, said, now)
    }

    /// Puts back what lost in a conflict.
    pub fn restore(&mut self, number: u64, now: Now) -> Result<DecisionView, NodeError> {
        let missing = || NodeError::Invalid(format!("there is no conflict {number}: see `litemesh conflicts list`"));
        let record = self.log.read()?.audit(number)?.ok_or_else(missing)?;
        let position = self.ready_database(&record.database, now)?;
        // What the app wrote since may have changed the row.
        let schema = self.replicated_table(position, &record.table)?;
        let mut draft = Draft { read: self.log.read()?, schema, part: Part::default() };
        let said = draft.restore(&record)?;
        let Draft { part, .. } = draft;
        self.decide(position, part, format!("conflict {number}: {said}"), now)
    }

    fn decide(&mut self, position: usize, part: Part, said: String, now: Now) -> Result<DecisionView, NodeError> {
        let rows = part.changes.iter().filter_map(Change::row).map(|row| row.to_string()).collect();
        let part = self.stamped(part, now)?;
        self.write_decision(position, part, now)?;
        let origin = self.chain.origin().id();
        let seq = self.heads.get(&origin).map_or(0, |head| head.seq);
        Ok(DecisionView { said, event: format!("{origin}:{seq}"), rows })
    }

    /// Gives updates stamps that exceed what they replace.
    fn stamped(&self, mut part: Part, now: Now) -> Result<Part, NodeError> {
        let mut write = self.log.write()?;
        let mut evaluator = Evaluator::new(&mut write, &self.ranks, &self.schemas, now.wall_ms);
        let written = Stamp::from_wall_ms(now.wall_ms.saturating_add_signed(self.clock.offset_ms()));
        for change in &mut part.changes {
            let Change::Update { table, row, cells } = change else { continue };
            let Some(view) = evaluator.view(row)? else { continue };
            let names = crate::merge::store::Store::columns(evaluator.store(), view.table)?;
            for (column, cell, stamp) in cells {
                let name = &part.tables[*table as usize].columns[*column as usize];
                let number = names.iter().position(|known| known.eq_ignore_ascii_case(name));
                let held = number.and_then(|number| view.cell(number as u16));
                // A number written over a counter would count again what the other steps count already.
                if let (Some(held), Cell::Plain(value)) = (held, &*cell) {
                    *cell = evaluator.difference(view.table, held, None, value.clone())?;
                }
                *stamp = held.map_or(written, |held| written.max(held.latest().next()));
            }
        }
        Ok(part)
    }

    /// The database, with all that its app wrote captured.
    fn ready_database(&mut self, name: &str, now: Now) -> Result<usize, NodeError> {
        let position = self.position_of(name)?;
        self.hear_app_first(position, now)?;
        Ok(position)
    }
}

/// The event of a restore under construction.
struct Draft<'n> {
    read: LogRead,
    schema: &'n TableSchema,
    part: Part,
}

impl Draft<'_> {
    fn restore(&mut self, record: &AuditRecord) -> Result<String, NodeError> {
        let row = self.canonical(&record.row)?;
        match &record.kind {
            AuditKind::Cell { column, loser, .. } => {
                self.update(row, &[(column.clone(), loser.cell.clone())])?;
                Ok(format!("{column} has the value that had lost"))
            }
            AuditKind::Merged { lost, .. } => {
                let cells: Vec<(String, Cell)> =
                    lost.iter().map(|(column, version)| (column.clone(), version.cell.clone())).collect();
                if cells.is_empty() {
                    return Err(invalid("this merge lost no value; to have two rows again use `litemesh split`"));
                }
                self.update(row, &cells)?;
                Ok("the row has the values that the merge had hidden; `litemesh split` makes it two rows".to_string())
            }
            AuditKind::DeleteLost { .. } => {
                self.delete(row)?;
                Ok("the row is deleted (it stays while other rows need it)".to_string())
            }
            AuditKind::WriteLost { .. } => {
                self.touch(row)?;
                Ok("the row is back, with all that was written to it".to_string())
            }
            AuditKind::RingCut { column, loser } => {
                self.update(row, &[(column.clone(), loser.cell.clone())])?;
                Ok(format!("{column} is written again; while it closes a ring, the youngest edge is not shown"))
            }
            AuditKind::IdMoved { from, holder, .. } => {
                let record = self.row(&record.row)?;
                let depth = record.claim.map_or(0, |claim| claim.depth) + 1;
                let table = table_entry(&mut self.part.tables, self.schema);
                self.part.changes.push(Change::Claim { table, row, id: *from, after: Some(*holder), depth });
                Ok(format!("the row gets the id {from}; the row that has it moves"))
            }
            AuditKind::Parted { from } => {
                let table = table_entry(&mut self.part.tables, self.schema);
                let (row, other) = (record.row, *from);
                self.part.changes.push(Change::Merge { table, row, other, columns: Vec::new() });
                Ok("the two rows are one again".to_string())
            }
            AuditKind::Suspect { meant, before, after, .. } => {
                let meant = self.canonical(meant)?;
                if after.is_empty() {
                    self.touch(row)?;
                    self.delete(meant)?;
                    return Ok("the delete is taken back here and done to the row that had the id before".to_string());
                }
                self.update(row, before)?;
                self.update(meant, after)?;
                Ok("the write is taken back here and done to the row that had the id before".to_string())
            }
        }
    }

    fn row(&self, row: &RowId) -> Result<Row, NodeError> {
        self.read.row(row)?.ok_or_else(|| invalid("the row is not known any more"))
    }

    fn canonical(&self, row: &RowId) -> Result<RowId, NodeError> {
        Ok(self.row(row)?.members().first().copied().unwrap_or(*row))
    }

    /// Writes a value that the row has anyway: that brings a deleted row back.
    fn touch(&mut self, row: RowId) -> Result<(), NodeError> {
        let record = self.row(&row)?;
        let names = self.read.columns(record.table)?;
        let first = record.cells.first().map(|state| (names[state.column as usize].clone(), state.cell.clone()));
        self.update(row, &first.into_iter().collect::<Vec<_>>())
    }

    fn update(&mut self, row: RowId, cells: &[(String, Cell)]) -> Result<(), NodeError> {
        let mut written: BTreeMap<u32, Cell> = BTreeMap::new();
        for (column, cell) in cells {
            let position = self.schema.column(column).ok_or_else(|| {
                invalid(&format!("the table has no column {column} any more: the value stays in `litemesh conflicts`"))
            })?;
            written.insert(position as u32, cell.clone());
        }
        let table = table_entry(&mut self.part.tables, self.schema);
        let cells = written.into_iter().map(|(column, cell)| (column, cell, Stamp(0))).collect();
        self.part.changes.push(Change::Update { table, row, cells });
        Ok(())
    }

    fn delete(&mut self, row: RowId) -> Result<(), NodeError> {
        let mut members = self.row(&row)?.members().to_vec();
        if members.is_empty() {
            members.push(row);
        }
        let table = table_entry(&mut self.part.tables, self.schema);
        self.part.changes.extend(members.into_iter().map(|row| Change::Delete { table, row }));
        Ok(())
    }
}

fn invalid(message: &str) -> NodeError {
    NodeError::Invalid(message.to_string())
}
