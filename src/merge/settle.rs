//! R3, R7, R8: from what events added to what is shown: ids, liveness, the shelf.
//!
//! Order matters only for cost: ids depend on claims alone, liveness on cells and deletes, the shelf on both. Each step
//! is computed from scratch for the rows concerned (no counters that could drift), so the result is F of the events.
//! Invariant: afterwards every row whose file image may differ is noted as dirty in the store. Caller: node, after one or
//! more [`Evaluator::integrate`].

use std::collections::{BTreeMap, BTreeSet};

use super::Evaluator;
use super::claims::{Claimant, assign};
use super::store::{AuditKind, CellState, Shelved, Store, TableId, Whole};
use crate::model::{Bug, Identity, RowId, TableSchema, planted};

impl<S: Store> Evaluator<'_, S> {
    /// Settles all rows that the integrated events concern. Returns the rows that are dirty by it.
    pub fn settle(&mut self) -> Result<BTreeSet<RowId>, S::Error> {
        self.settle_ids()?;
        self.settle_classes()?;
        for id in self.touched_now() {
            let canonical = self.canonical(&id)?;
            if canonical != id {
                self.touched.insert(canonical);
            }
            let Some(table) = self.row(&id)?.map(|row| row.table) else { continue };
            if self.info(table)?.lends_cells {
                self.touch_referrers(id)?;
            }
        }
        self.settle_trees()?;
        self.settle_liveness()?;
        self.settle_shelf()?;
        let dirty = std::mem::take(&mut self.touched);
        for id in &dirty {
            let Some(row) = self.row(id)? else { continue };
            let table = row.table;
            let on_shelf = row.alive && row.shelved.is_some() && !planted(Bug::ShelfForgets);
            self.store.set_dirty(table, *id, true)?;
            self.store.set_shelf(*id, on_shelf)?;
        }
        Ok(dirty)
    }

    /// The rows touched so far, ascending.
    pub(super) fn touched_now(&self) -> Vec<RowId> {
        self.touched.iter().copied().collect()
    }

    /// Looks at rows again although no event concerns them: their table's schema changed, or SQLite refused them before.
    pub fn touch_again(&mut self, rows: impl IntoIterator<Item = RowId>) -> Result<(), S::Error> {
        for id in rows {
            if self.row(&id)?.is_some() {
                self.touched.insert(id);
                self.forget_whole(&id)?;
            }
        }
        Ok(())
    }

    /// R9: shows the newest whole row instead of the mix of cells, until the next event that concerns the row.
    pub fn fall_back(&mut self, id: &RowId, cells: Vec<CellState>, message: &str) -> Result<(), S::Error> {
        if let Some(row) = self.row_mut(id)? {
            row.whole = Some(Box::new(Whole { cells, message: message.to_string() }));
            self.touched.insert(*id);
        }
        Ok(())
    }

    /// What is new about a row may make its mix of cells valid.
    pub(super) fn forget_whole(&mut self, id: &RowId) -> Result<(), S::Error> {
        let canonical = self.canonical(id)?;
        for id in [*id, canonical] {
            if self.row(&id)?.is_some_and(|row| row.whole.is_some())
                && let Some(row) = self.row_mut(&id)?
            {
                row.whole = None;
                self.touched.insert(id);
            }
        }
        Ok(())
    }

    /// Puts a row on the shelf because SQLite refused it here. The rows that need it follow at the next settling.
    pub fn refuse(&mut self, id: &RowId, message: &str) -> Result<(), S::Error> {
        if let Some(row) = self.row_mut(id)? {
            row.shelved = Some(Shelved::Refused { message: message.to_string() });
            self.touched.insert(*id);
            self.refused.insert(*id);
        }
        Ok(())
    }

    fn settle_ids(&mut self) -> Result<(), S::Error> {
        for (table, remainder) in std::mem::take(&mut self.classes) {
            let mut claimants = Vec::new();
            let claims = self.store.claims(table, remainder)?;
            if let [(id, row)] = claims[..] {
                // The only claim gets what it asks for.
                self.give_id(&row, id)?;
                continue;
            }
            for (id, row) in claims {
                claimants.extend(self.claimant(id, &row)?);
            }
            self.give_ids(table, &claimants)?;
        }
        Ok(())
    }

    /// A claim with what decides about it.
    pub fn claimant(&mut self, id: i64, row: &RowId) -> Result<Option<Claimant>, S::Error> {
        let Some(record) = self.shared(row)? else { return Ok(None) };
        let seniority = self.ranks.seniority(row, &record);
        let after = record.claim.and_then(|claim| claim.after);
        Ok(Some(Claimant { id, row: *row, seniority, after, slot: self.ranks.slot(row) }))
    }

    fn give_ids(&mut self, table: TableId, claimants: &[Claimant]) -> Result<(), S::Error> {
        let ids = assign(claimants);
        let holders: BTreeMap<i64, RowId> = ids.iter().map(|(row, id)| (*id, *row)).collect();
        for claimant in claimants {
            let new = ids[&claimant.row];
            if self.give_id(&claimant.row, new)?
                && new != claimant.id
                && let Some(holder) = holders.get(&claimant.id)
            {
                crate::sometimes!("merge: an id moves, two rows claimed it");
                let kind = AuditKind::IdMoved { from: claimant.id, to: new, holder: *holder };
                self.audit(table, claimant.row, kind)?;
            }
        }
        Ok(())
    }

    /// Sets the id of a row. False when it had that id.
    fn give_id(&mut self, id: &RowId, new: i64) -> Result<bool, S::Error> {
        if self.row(id)?.is_none_or(|row| row.id == Some(new)) {
            return Ok(false);
        }
        if let Some(row) = self.row_mut(id)? {
            row.id = Some(new);
        }
        self.touched.insert(*id);
        self.touch_referrers(*id)?;
        Ok(true)
    }

    /// Rows that show a value of this row, and those that show a value of theirs where that is part of a key.
    pub(super) fn touch_referrers(&mut self, parent: RowId) -> Result<(), S::Error> {
        let parent = self.canonical(&parent)?;
        let mut children = self.class_referrers(&parent)?;
        if children.is_empty() {
            return Ok(());
        }
        let (mut open, mut seen) = (Vec::new(), BTreeSet::from([parent]));
        loop {
            for child in children {
                self.touched.insert(child);
                let Some(table) = self.row(&child)?.map(|child| child.table) else { continue };
                let keyed = self.schema(table)?.is_some_and(|schema| matches!(schema.identity, Identity::Keyed(_)));
                if keyed && seen.insert(child) {
                    open.push(child);
                }
            }
            let Some(next) = open.pop() else { return Ok(()) };
            children = self.class_referrers(&next)?;
        }
    }

    fn settle_liveness(&mut self) -> Result<(), S::Error> {
        let mut open: BTreeSet<RowId> = self.touched.clone();
        for id in std::mem::take(&mut self.liveness) {
            open.insert(self.canonical(&id)?);
        }
        while let Some(id) = open.pop_first() {
            let Some(row) = self.row(&id)? else { continue };
            let was = row.alive;
            let alive = self.canonical(&id)? == id && self.is_alive(&id)?;
            if alive == was {
                continue;
            }
            if let Some(row) = self.row_mut(&id)? {
                row.alive = alive;
            }
            self.touched.insert(id);
            open.extend(self.needed_parents(&id)?);
            self.touch_referrers(id)?;
        }
        Ok(())
    }

    /// R7: alive is the least set that holds every class with an uncovered insert or update and, with a class, the parents
    /// it needs. Searched upwards from the row, so rings that nothing holds up stay dead.
    fn is_alive(&mut self, id: &RowId) -> Result<bool, S::Error> {
        if self.row(id)?.is_none_or(|row| row.births.is_empty()) {
            return Ok(false);
        }
        if self.held_up(id)? {
            return Ok(true);
        }
        let mut open = vec![*id];
        let mut seen = BTreeSet::from([*id]);
        while let Some(row) = open.pop() {
            for member in self.members(&row)? {
                if self.held_up(&member)? {
                    crate::sometimes!(row != *id, "merge: a row lives because another one needs it");
                    return Ok(true);
                }
            }
            for child in self.class_referrers(&row)? {
                if !seen.contains(&child) && self.needed_parents(&child)?.contains(&row) {
                    seen.insert(child);
                    open.push(child);
                }
            }
        }
        Ok(false)
    }

    /// The classes that a row's class keeps alive.
    pub(super) fn needed_parents(&mut self, id: &RowId) -> Result<BTreeSet<RowId>, S::Error> {
        let Some(row) = self.view(id)? else { return Ok(BTreeSet::new()) };
        if row.parents().next().is_none() {
            return Ok(BTreeSet::new());
        }
        let Some(schema) = self.schema(row.table)? else { return Ok(BTreeSet::new()) };
        let mut parents = BTreeSet::new();
        for (column, reference) in row.parents() {
            let name = self.info(row.table)?.columns[column as usize].clone();
            if needs_parent(schema, &name) {
                parents.insert(self.canonical(&reference.row)?);
            }
        }
        Ok(parents)
    }

    fn settle_shelf(&mut self) -> Result<(), S::Error> {
        let mut affected = BTreeSet::new();
        for id in self.touched_now() {
            self.index_unique(&id, &mut affected)?;
        }
        // Rows whose place changed by themselves: their children look again, whatever the file shows of them now.
        let mut moved = BTreeSet::new();
        while !affected.is_empty() {
            let fresh = self.decide_unique(std::mem::take(&mut affected))?;
            // Keys of children that show a value which carries a tag now.
            for id in fresh.iter().filter(|id| !moved.contains(*id)) {
                for child in self.class_referrers(id)? {
                    self.index_unique(&child, &mut affected)?;
                }
            }
            moved.extend(fresh);
        }
        moved.extend(self.refused.iter().copied());
        self.touched.extend(moved.iter().copied());
        let mut open: BTreeSet<RowId> = self.touched.clone();
        while let Some(id) = open.pop_first() {
            let Some(row) = self.row(&id)? else { continue };
            let old = row.shelved.clone();
            // What SQLite refused before is tried again whenever something about the row changes.
            let refused = matches!(old, Some(Shelved::Refused { .. })) && self.refused.contains(&id);
            let own = refused || matches!(old, Some(Shelved::Unique { .. }));
            let new = if own { old.clone() } else { self.hidden_parent(&id)?.map(|parent| Shelved::Parent { parent }) };
            let changed = new.is_some() != old.is_some();
            crate::sometimes!(changed && new.is_some() && !own, "shelf: a row waits for the one it needs");
            crate::sometimes!(changed && old.is_some(), "shelf: a row comes back");
            if new != old
                && let Some(row) = self.row_mut(&id)?
            {
                row.shelved = new;
            }
            if moved.remove(&id) || changed {
                let children = self.class_referrers(&id)?;
                self.touched.extend(children.iter().copied());
                open.extend(children);
            }
        }
        Ok(())
    }

    /// The nearest row, following the parents a row needs, that is on the shelf by itself or unknown.
    fn hidden_parent(&mut self, id: &RowId) -> Result<Option<RowId>, S::Error> {
        if !self.row(id)?.is_some_and(|row| row.alive) {
            return Ok(None);
        }
        let mut open: Vec<RowId> = self.needed_parents(id)?.into_iter().collect();
        if open.is_empty() {
            return Ok(None);
        }
        let mut seen: BTreeSet<RowId> = open.iter().copied().collect();
        seen.insert(*id);
        let mut hidden = None;
        while let Some(parent) = open.pop() {
            match self.row(&parent)? {
                None => hidden = hidden.max(Some(parent)),
                Some(row) if row.births.is_empty() => hidden = hidden.max(Some(parent)),
                Some(row) if matches!(row.shelved, Some(Shelved::Unique { .. } | Shelved::Refused { .. })) => {
                    hidden = hidden.max(Some(parent));
                }
                Some(_) => open.extend(self.needed_parents(&parent)?.into_iter().filter(|next| seen.insert(*next))),
            }
        }
        Ok(hidden)
    }
}

/// Whether a live row keeps the row alive that this column refers to.
pub fn needs_parent(schema: &TableSchema, column: &str) -> bool {
    let Some(position) = schema.column(column) else { return false };
    schema.foreign_keys.iter().any(|key| key.keeps_parent && key.columns.contains(&position))
}
