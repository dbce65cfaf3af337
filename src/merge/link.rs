//! R2: merges and splits as they come in, and what makes them void.
//!
//! Invariant: whether a link is void depends on the set of events alone: on what the merge, the update or the split knew,
//! never on which came first. Caller: integration.

use super::Evaluator;
use super::integrate::{Position, knows};
use super::store::{CellState, Link, LinkKind, Row, Store};
use crate::model::{Dot, RowId};

impl<S: Store> Evaluator<'_, S> {
    /// Notes a merge or split at both its rows.
    pub(super) fn link(
        &mut self,
        kind: LinkKind,
        (row, other): (RowId, RowId),
        columns: Vec<u16>,
        at: &Position<'_>,
    ) -> Result<(), S::Error> {
        let Some(table) = self.row(&row)?.map(|record| record.table) else { return Ok(()) };
        if row == other || self.row(&row)?.is_some_and(|row| row.links().iter().any(|link| link.dot == at.dot)) {
            return Ok(());
        }
        if self.row(&other)?.is_none() {
            self.insert_row(other, Row::new(table));
        }
        self.touched.extend([row, other]);
        let void = kind == LinkKind::Merge
            && (self.renamed_meanwhile(&row, &columns, at)? || self.renamed_meanwhile(&other, &columns, at)?);
        crate::sometimes!(void, "merge: a merge is void when it comes, a name was changed meanwhile");
        // A split ends the merges of its pair that it knew; a person's merge the splits that it knew.
        let ends = match kind {
            LinkKind::Split => Some(LinkKind::Merge),
            LinkKind::Merge => columns.is_empty().then_some(LinkKind::Split),
        };
        for (id, other) in [(row, other), (other, row)] {
            let link = Link { kind, other, columns: columns.clone(), dot: at.dot, void };
            let Some(record) = self.row_mut(&id)? else { continue };
            let links = &mut record.bonds.get_or_insert_default().links;
            for earlier in links.iter_mut().filter(|earlier| earlier.other == other) {
                earlier.void |= Some(earlier.kind) == ends && knows(at, &earlier.dot);
            }
            links.push(link);
            links.sort_by_key(|link| link.dot);
        }
        Ok(())
    }

    /// Undoes the links of a row that was known by them alone, under a table that it is not of.
    pub(super) fn forget_links(&mut self, id: &RowId) -> Result<(), S::Error> {
        let others: Vec<RowId> =
            self.row(id)?.map(|row| row.links().iter().map(|link| link.other).collect()).unwrap_or_default();
        for other in others {
            if let Some(bonds) = self.row_mut(&other)?.and_then(|row| row.bonds.as_mut()) {
                bonds.links.retain(|link| link.other != *id);
            }
            self.touched.insert(other);
        }
        Ok(())
    }

    /// Whether some update of these columns is known that the merge at this position did not know.
    fn renamed_meanwhile(&mut self, id: &RowId, columns: &[u16], at: &Position<'_>) -> Result<bool, S::Error> {
        let Some(row) = self.row(id)? else { return Ok(false) };
        let unknown = |column: &u16| {
            let winner = row.cell(*column).filter(|state| !state.born).is_some_and(|state| !knows(at, &state.dot));
            let others = row.updates.iter().filter(|(updated, _)| updated == column);
            winner || others.into_iter().any(|(_, cut)| cut.iter().any(|dot| at.cut.get(dot.actor) < dot.counter))
        };
        Ok(columns.iter().any(unknown))
    }

    /// An update was added: merges by its column that did not know it, nor it them, are void.
    pub(super) fn void_merges(&mut self, id: &RowId, column: u16, at: &Position<'_>) -> Result<(), S::Error> {
        let Some(row) = self.row(id)? else { return Ok(()) };
        let table = row.table;
        let concurrent = |link: &&Link| {
            link.kind == LinkKind::Merge && !link.void && link.columns.contains(&column) && !knows(at, &link.dot)
        };
        let suspects: Vec<(RowId, Dot)> =
            row.links().iter().filter(concurrent).map(|link| (link.other, link.dot)).collect();
        for (other, dot) in suspects {
            let database = self.info(table)?.database.clone();
            // A node's own merge may be evaluated before all that it knew.
            let cut = self.store.cut_of(&database, dot.origin, dot.seq)?;
            if cut.get(&at.dot.origin) >= at.dot.seq {
                continue;
            }
            crate::sometimes!("merge: a merge becomes void");
            for id in [*id, other] {
                let links = self.row_mut(&id)?.and_then(|row| row.bonds.as_mut());
                for link in links.into_iter().flat_map(|bonds| &mut bonds.links) {
                    link.void |= link.dot == dot;
                }
                self.touched.insert(id);
            }
        }
        Ok(())
    }

    /// Notes an update whose value is not (or no more) the winner, for merges that are still to come.
    pub(super) fn note_update(
        &mut self,
        id: &RowId,
        before: Option<CellState>,
        column: u16,
        at: &Position<'_>,
    ) -> Result<(), S::Error> {
        let Some(row) = self.row_mut(id)? else { return Ok(()) };
        // Under a rule the shown value can change without a write: then no update is left to the winner's cell to tell.
        let ruled = row.cell(column).is_some_and(|state| state.tally.is_some());
        let winner = row.cell(column).filter(|state| !state.born && !ruled).map(|state| state.dot);
        let before = before.filter(|state| !state.born).map(|state| state.dot);
        for dot in before.into_iter().chain([at.dot]) {
            if winner.is_some_and(|winner| winner.origin == dot.origin && winner.seq >= dot.seq) {
                continue;
            }
            let position = row.updates.binary_search_by_key(&column, |(updated, _)| *updated);
            let position = position.unwrap_or_else(|free| {
                row.updates.insert(free, (column, Default::default()));
                free
            });
            crdts::CmRDT::apply(&mut row.updates[position].1, crdts::Dot::new(dot.origin, dot.seq));
        }
        // One form for one set of updates: what the winner says is not said twice.
        if let Some(winner) = winner {
            for (_, cut) in row.updates.iter_mut().filter(|(updated, _)| *updated == column) {
                if cut.get(&winner.origin) <= winner.seq {
                    cut.dots.remove(&winner.origin);
                }
            }
            row.updates.retain(|(_, cut)| !cut.is_empty());
        }
        Ok(())
    }

    /// Updates of the same cell of different members that did not know each other: the one that loses is told.
    pub(super) fn audit_members(&mut self, id: &RowId, column: u16, at: &Position<'_>) -> Result<(), S::Error> {
        let Some(new) = self.row(id)?.and_then(|row| row.cell(column)).filter(|state| state.dot == at.dot).cloned()
        else {
            return Ok(());
        };
        for member in self.members(id)?.into_iter().filter(|member| member != id) {
            let Some(old) = self.row(&member)?.and_then(|row| row.cell(column)).cloned() else { continue };
            let table = self.row(id)?.map(|row| row.table);
            let both_count = match table {
                Some(table) => self.ruling(table, column)?.adds_up(&old, &new),
                None => false,
            };
            if old.born || old.cell == new.cell || both_count || knows(at, &old.dot) {
                continue;
            }
            let (winner, loser) =
                if (new.stamp, new.dot) > (old.stamp, old.dot) { (new.clone(), old) } else { (old, new.clone()) };
            self.audit_cell(id, column, winner, loser)?;
        }
        Ok(())
    }
}
