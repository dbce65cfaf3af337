//! R10: while the references of a tree column form a ring, the youngest of them is not shown.
//!
//! Every row has at most one parent in such a column, so a component holds at most one ring, and cutting one edge makes it
//! a tree. The winning references of all rows count, whether the rows live or not: a delete never decides which edge is
//! cut. The cell keeps the reference; it shows again when the ring is broken elsewhere. The edge shows NULL, or, where the
//! column refuses NULL, the row itself, which is the one ring that SQLite lets a row without a parent have.
//! Rings are told among classes: rows that became one have one parent, and one child of either is a child of both.
//! Invariant: a function of the winning references and the rules; a row is looked at again when its own reference changed,
//! when it stands in the ring that the changed one closes, and when it stood in the ring that the changed one broke (then
//! it is behind the changed row: its references lead there). Caller: settling.

use std::collections::{BTreeMap, BTreeSet};

use super::Evaluator;
use super::store::{AuditKind, CellState, CellVersion, Store};
use crate::model::{Cell, RowId};

impl<S: Store> Evaluator<'_, S> {
    /// Cuts the rings that the touched rows stand in, and mends what stood in rings that are no more.
    pub(super) fn settle_trees(&mut self) -> Result<(), S::Error> {
        let mut open: BTreeMap<u16, BTreeSet<RowId>> = BTreeMap::new();
        for id in self.touched_now() {
            let Some(table) = self.row(&id)?.map(|row| row.table) else { continue };
            if self.table_rules(table)?.trees().is_empty() || self.canonical(&id)? != id {
                continue;
            }
            for column in self.table_rules(table)?.trees().clone() {
                open.entry(column).or_default().insert(id);
            }
        }
        for (column, rows) in open {
            let mut concerned = BTreeSet::new();
            for id in rows {
                concerned.extend(self.loosened_behind(&id, column)?);
                concerned.insert(id);
            }
            for id in concerned {
                self.settle_ring(&id, column)?;
            }
        }
        Ok(())
    }

    /// The row that a row refers to in a column of its own table.
    fn parent_in(&mut self, id: &RowId, column: u16) -> Result<Option<(RowId, CellState)>, S::Error> {
        let Some(row) = self.view(id)? else { return Ok(None) };
        let table = row.table;
        let Some(state) = row.cell(column).cloned() else { return Ok(None) };
        let Cell::Ref(reference) = &state.cell else { return Ok(None) };
        let parent = self.canonical(&reference.row)?;
        // A row does not stand in a ring with itself alone: that is how an app may say that it has no parent.
        let same = parent != *id && self.row(&parent)?.is_some_and(|row| row.table == table);
        Ok(same.then_some((parent, state)))
    }

    /// The ring that a row's references lead into; empty when they end.
    fn ring_ahead(&mut self, id: &RowId, column: u16) -> Result<Vec<(RowId, CellState)>, S::Error> {
        let mut path: Vec<(RowId, CellState)> = Vec::new();
        let mut places: BTreeMap<RowId, usize> = BTreeMap::new();
        let mut next = *id;
        loop {
            if let Some(place) = places.get(&next) {
                return Ok(path.split_off(*place));
            }
            let Some((parent, state)) = self.parent_in(&next, column)? else { return Ok(Vec::new()) };
            places.insert(next, path.len());
            path.push((next, state));
            next = parent;
        }
    }

    /// Rows behind a row (its children, theirs, …) whose reference is not shown.
    fn loosened_behind(&mut self, id: &RowId, column: u16) -> Result<Vec<RowId>, S::Error> {
        let (mut found, mut open, mut seen) = (Vec::new(), vec![*id], BTreeSet::from([*id]));
        while let Some(parent) = open.pop() {
            for child in self.class_referrers(&parent)? {
                if seen.contains(&child) || self.parent_in(&child, column)?.is_none_or(|(up, _)| up != parent) {
                    continue;
                }
                seen.insert(child);
                open.push(child);
                if self.row(&child)?.is_some_and(|row| row.loosened.contains(&column)) {
                    found.push(child);
                }
            }
        }
        Ok(found)
    }

    /// Cuts the ring ahead of a row at its youngest reference, and nowhere else; a row in no ring shows its own.
    fn settle_ring(&mut self, id: &RowId, column: u16) -> Result<(), S::Error> {
        let ring = self.ring_ahead(id, column)?;
        let youngest = ring.iter().max_by_key(|(_, state)| (state.stamp, state.dot)).map(|(row, _)| *row);
        let mut members = ring;
        if members.iter().all(|(row, _)| row != id)
            && let Some(state) = self.view(id)?.as_ref().and_then(|row| row.cell(column)).cloned()
        {
            members.push((*id, state));
        }
        for (row, state) in members {
            let cut = youngest == Some(row);
            let Some(record) = self.row(&row)? else { continue };
            let (table, was_cut) = (record.table, record.loosened.contains(&column));
            if cut == was_cut {
                continue;
            }
            if let Some(record) = self.row_mut(&row)? {
                record.loosened.retain(|other| *other != column);
                record.loosened.extend(cut.then_some(column));
                record.loosened.sort();
            }
            self.touched.insert(row);
            if cut {
                let column = self.info(table)?.columns[usize::from(column)].clone();
                let loser = CellVersion { cell: state.cell, stamp: state.stamp, dot: state.dot };
                self.audit(table, row, AuditKind::RingCut { column, loser: Box::new(loser) })?;
            }
        }
        Ok(())
    }
}
