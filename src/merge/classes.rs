//! R2, R4: which rows are one, and R5 over all of them: what the class holds.
//!
//! Invariants: a class is a function of the links and keys of its rows; every member's own record stays as its events made
//! it, so a class falls apart into exactly the rows that made it. Only the canonical member is alive, shown, shelved or
//! indexed; the records of the others say `alive: false`.
//! Callers: settling (classes), everybody who shows or compares a row ([`Evaluator::view`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Evaluator;
use super::registers::fold;
use super::store::{AuditKind, Bonds, CellState, CellVersion, LinkKind, Row, Store, TableId};
use crate::model::identity::hash_16;
use crate::model::{Bug, Cell, Identity, RowId, TableSchema, planted};

impl<S: Store> Evaluator<'_, S> {
    /// The row that stands for the class of this one: itself while it is alone or unknown.
    pub fn canonical(&mut self, id: &RowId) -> Result<RowId, S::Error> {
        Ok(self.row(id)?.and_then(|row| row.members().first().copied()).unwrap_or(*id))
    }

    /// All rows of a class, the canonical one first; the row itself while it is alone.
    pub fn members(&mut self, id: &RowId) -> Result<Vec<RowId>, S::Error> {
        let members = self.row(id)?.map(|row| row.members().to_vec()).unwrap_or_default();
        Ok(if members.is_empty() { vec![*id] } else { members })
    }

    /// Rows whose cells refer to some member of the class.
    pub fn class_referrers(&mut self, id: &RowId) -> Result<Vec<RowId>, S::Error> {
        if self.row(id)?.is_none_or(|row| row.members().is_empty()) {
            let children = self.store.referrers(id)?;
            return self.canonical_all(children);
        }
        let mut referrers = BTreeSet::new();
        for member in self.members(id)? {
            for child in self.store.referrers(&member)? {
                referrers.insert(self.canonical(&child)?);
            }
        }
        Ok(referrers.into_iter().collect())
    }

    fn canonical_all(&mut self, rows: Vec<RowId>) -> Result<Vec<RowId>, S::Error> {
        if rows.is_empty() {
            return Ok(rows);
        }
        let mut canonical = BTreeSet::new();
        for row in rows {
            canonical.insert(self.canonical(&row)?);
        }
        Ok(canonical.into_iter().collect())
    }

    /// The record of the class that a row belongs to: the canonical row's, with the cells of all members (R5).
    pub fn view(&mut self, id: &RowId) -> Result<Option<Arc<Row>>, S::Error> {
        let canonical = self.canonical(id)?;
        let Some(view) = self.shared(&canonical)? else { return Ok(None) };
        if view.members().len() < 2 {
            return Ok(Some(view));
        }
        let mut view = Row::clone(&view);
        let own = match self.schema(view.table)? {
            Some(schema) => self.key_numbers(view.table, schema)?,
            None => Vec::new(),
        };
        // By column: the members' cells, the canonical row's first.
        let mut cells: BTreeMap<u16, Vec<CellState>> = BTreeMap::new();
        for (place, member) in view.members().to_vec().into_iter().enumerate() {
            let Some(row) = self.row(&member)? else { continue };
            for state in row.cells.iter().filter(|state| place == 0 || !own.contains(&state.column)) {
                cells.entry(state.column).or_default().push(state.clone());
            }
        }
        view.cells.clear();
        for (column, states) in cells {
            let ruling = self.ruling(view.table, column)?;
            view.cells.extend(fold(&ruling, &states.iter().collect::<Vec<_>>()));
        }
        Ok(Some(Arc::new(view)))
    }

    /// Numbers of the columns that form the key of a keyed table, in key order.
    fn key_numbers(&mut self, table: TableId, schema: &TableSchema) -> Result<Vec<u16>, S::Error> {
        let Identity::Keyed(columns) = &schema.identity else { return Ok(Vec::new()) };
        let mut numbers = Vec::with_capacity(columns.len());
        for column in columns {
            numbers.extend(self.find_column(table, &schema.columns[*column].name)?);
        }
        Ok(numbers)
    }

    /// Brings the classes of all touched rows up to date. Rows whose class changed are touched, and so is who refers to
    /// them.
    pub(super) fn settle_classes(&mut self) -> Result<(), S::Error> {
        let mut open: BTreeSet<RowId> = BTreeSet::new();
        for id in self.touched_now() {
            if self.may_be_one(&id)? {
                open.insert(id);
            }
        }
        while let Some(id) = open.pop_first() {
            let region = self.fresh_region(id, &mut open)?;
            for (row, members) in self.partition(&region)? {
                if !self.set_members(&row, members)? {
                    continue;
                }
                // Keys that name this row mean another class now.
                for child in self.store.referrers(&row)? {
                    if self.may_be_one(&child)? {
                        open.insert(child);
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether links or a key with references could make the row one with others.
    fn may_be_one(&mut self, id: &RowId) -> Result<bool, S::Error> {
        let Some(row) = self.row(id)? else { return Ok(false) };
        if row.bonds.is_some() {
            return Ok(true);
        }
        let table = row.table;
        Ok(self.schema(table)?.is_some_and(refers_by_key))
    }

    /// Keeps the index of keys with references replaced by canonical rows. Who shared the old key looks again.
    fn index_key(&mut self, id: &RowId, open: &mut BTreeSet<RowId>) -> Result<(), S::Error> {
        let key = self.resolved_key(id)?;
        let Some(row) = self.row(id)? else { return Ok(()) };
        let (table, old) = (row.table, row.bonds.as_ref().and_then(|bonds| bonds.key));
        if old == key {
            return Ok(());
        }
        if let Some(old) = old {
            self.store.remove_unique(table, old, *id)?;
            open.extend(self.store.unique_holders(table, &old)?);
        }
        if let Some(key) = key {
            self.store.add_unique(table, key, *id)?;
        }
        if let Some(row) = self.row_mut(id)? {
            row.bonds.get_or_insert_default().key = key;
        }
        Ok(())
    }

    fn resolved_key(&mut self, id: &RowId) -> Result<Option<[u8; 16]>, S::Error> {
        let Some(row) = self.row(id)?.cloned() else { return Ok(None) };
        let Some(schema) = self.schema(row.table)?.filter(|schema| refers_by_key(schema)) else { return Ok(None) };
        let mut bytes = Vec::new();
        for number in self.key_numbers(row.table, schema)? {
            let Some(state) = row.cell(number) else { return Ok(None) };
            let mut cell = state.cell.clone();
            if let Cell::Ref(reference) = &mut cell {
                reference.row = self.canonical(&reference.row)?;
            }
            cell.write_canonical(&mut bytes);
        }
        Ok(Some(hash_16("litemesh 1 resolved key", &bytes)))
    }

    /// The region of a row, after all its rows that wait to be looked at were indexed under their keys of now.
    fn fresh_region(&mut self, id: RowId, open: &mut BTreeSet<RowId>) -> Result<BTreeSet<RowId>, S::Error> {
        open.insert(id);
        loop {
            let region = self.region(id)?;
            let waiting: Vec<RowId> = region.intersection(open).copied().collect();
            if waiting.is_empty() {
                return Ok(region);
            }
            for row in waiting {
                open.remove(&row);
                self.index_key(&row, open)?;
            }
        }
    }

    /// All rows that some chain of merges, equal keys or past membership connects with this one.
    fn region(&mut self, id: RowId) -> Result<BTreeSet<RowId>, S::Error> {
        let mut region = BTreeSet::from([id]);
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            let Some(row) = self.row(&id)? else { continue };
            let (table, key) = (row.table, row.bonds.as_ref().and_then(|bonds| bonds.key));
            let mut next: Vec<RowId> = row.members().to_vec();
            next.extend(row.links().iter().filter(|link| link.kind == LinkKind::Merge).map(|link| link.other));
            if let Some(key) = key {
                next.extend(self.store.unique_holders(table, &key)?);
            }
            for row in next {
                if region.insert(row) {
                    open.push(row);
                }
            }
        }
        Ok(region)
    }

    /// R2: the classes of a region: (row, all members of its class in K order).
    fn partition(&mut self, region: &BTreeSet<RowId>) -> Result<Vec<(RowId, Vec<RowId>)>, S::Error> {
        let (mut merges, mut bars, mut by_key) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        let mut seniority = BTreeMap::new();
        for id in region {
            let Some(row) = self.row(id)?.cloned() else { continue };
            if row.births.is_empty() {
                continue;
            }
            seniority.insert(*id, self.ranks.seniority(id, &row));
            for link in row.links().iter().filter(|link| !link.void || planted(Bug::MergeStands)) {
                let pair = (*id.min(&link.other), *id.max(&link.other));
                if link.kind == LinkKind::Merge {
                    merges.insert(link.dot, pair);
                } else {
                    bars.insert(pair);
                }
            }
            if let Some(key) = row.bonds.as_ref().and_then(|bonds| bonds.key) {
                by_key.entry((row.table, key)).or_insert_with(Vec::new).push(*id);
            }
        }
        let mut classes: BTreeMap<RowId, BTreeSet<RowId>> =
            seniority.keys().map(|id| (*id, BTreeSet::from([*id]))).collect();
        for same in by_key.values() {
            for pair in same.windows(2) {
                join(&mut classes, pair[0], pair[1], &BTreeSet::new());
            }
        }
        for (a, b) in merges.into_values() {
            join(&mut classes, a, b, &bars);
        }
        let mut result = Vec::new();
        for (id, class) in &classes {
            let mut members: Vec<RowId> = class.iter().copied().collect();
            members.sort_by_key(|member| seniority.get(member).copied());
            result.push((*id, if members.len() > 1 { members } else { Vec::new() }));
        }
        Ok(result)
    }

    /// Takes over a row's class. True when another row stands for it now.
    fn set_members(&mut self, id: &RowId, members: Vec<RowId>) -> Result<bool, S::Error> {
        let Some(row) = self.row(id)? else { return Ok(false) };
        let (table, old) = (row.table, row.members().to_vec());
        if old == members {
            return Ok(false);
        }
        let before = old.first().copied().unwrap_or(*id);
        let after = members.first().copied().unwrap_or(*id);
        if let Some(row) = self.row_mut(id)? {
            row.bonds.get_or_insert_default().members = members;
            if let Some(bonds) = &row.bonds
                && **bonds == Bonds::default()
            {
                row.bonds = None;
            }
        }
        self.touched.insert(*id);
        self.touched.insert(after);
        // What the row refers to may be shown by nobody now, or by another row, also where the same row stands for it.
        let parents: Vec<RowId> =
            self.row(id)?.map(|row| row.parents().map(|(_, one)| one.row).collect()).unwrap_or_default();
        self.liveness.extend(parents);
        if before == after {
            return Ok(false);
        }
        for child in self.store.referrers(id)? {
            let child = self.canonical(&child)?;
            self.touched.insert(child);
            let parents = self.needed_parents(&child)?;
            self.liveness.extend(parents);
        }
        self.liveness.extend([before, after]);
        if after != *id {
            crate::sometimes!("merge: rows become one");
            let lost = self.lost_cells(id, &after)?;
            self.audit(table, *id, AuditKind::Merged { into: after, lost })?;
        } else {
            crate::sometimes!("merge: rows part again");
            self.audit(table, *id, AuditKind::Parted { from: before })?;
        }
        Ok(true)
    }

    /// Values of a row that its class does not show.
    fn lost_cells(&mut self, id: &RowId, canonical: &RowId) -> Result<Vec<(String, CellVersion)>, S::Error> {
        let (Some(row), Some(view)) = (self.row(id)?.cloned(), self.view(canonical)?) else { return Ok(Vec::new()) };
        let names = self.info(row.table)?.columns.clone();
        let lost = row.cells.iter().filter(|state| {
            view.cell(state.column).is_none_or(|shown| shown.cell != state.cell)
                && !matches!(state.cell, Cell::Plain(crate::model::Value::Null))
        });
        Ok(lost.map(|state| (names[state.column as usize].clone(), CellVersion::from(state.clone()))).collect())
    }
}

/// Whether rows of this keyed table name other rows in their key.
fn refers_by_key(schema: &TableSchema) -> bool {
    let Identity::Keyed(columns) = &schema.identity else { return false };
    schema.foreign_keys.iter().any(|key| key.columns.iter().any(|column| columns.contains(column)))
}

/// Joins two classes, unless that would bring a barred pair into one.
fn join(classes: &mut BTreeMap<RowId, BTreeSet<RowId>>, a: RowId, b: RowId, bars: &BTreeSet<(RowId, RowId)>) {
    let (Some(one), Some(other)) = (classes.get(&a), classes.get(&b)) else { return };
    if one.contains(&b) {
        return;
    }
    let barred = one.iter().any(|x| other.iter().any(|y| bars.contains(&(*x.min(y), *x.max(y)))));
    if barred {
        return;
    }
    let joined: BTreeSet<RowId> = one.union(other).copied().collect();
    for member in &joined {
        classes.insert(*member, joined.clone());
    }
}
