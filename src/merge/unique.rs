//! Which of several rows with the same UNIQUE key is shown (R8 without merging: the others go to the shelf).
//!
//! Rows that share keys form a component. In it, rows are ordered per key by (time the key was written, seniority);
//! repeatedly the row that comes first in all its keys among the undecided ones is shown and those that share a key with
//! it are shelved. Invariants: a function of the settled cells; a row on the shelf blocks nobody; rows with a NULL in the
//! key never collide. Keys count as shown: two rows of a keyed table can have one key, where one refers to a row and the
//! other holds the bare number that this row shows now (it led nowhere when it was written). Keys over expressions and partial indexes are known to SQLite only: there its refusal shelves the
//! row. Caller: settling.

use std::collections::{BTreeMap, BTreeSet};

use super::Evaluator;
use super::rank::Seniority;
use super::store::{Row, Shelved, Store, TableId};
use crate::model::{Cell, Collation, Identity, RowId, Stamp, TableSchema, UniqueKey, Value};

/// (name of the index, hash of the key, when it was written).
type HeldKey = (String, [u8; 16], Stamp);

/// Who comes first under a key: who wrote it earlier, then the senior row.
type Order = (Stamp, Seniority);

/// One row of a component: its keys, each with its place in the order.
struct Contender {
    row: RowId,
    /// (hash of the key, name of the index, order).
    keys: Vec<([u8; 16], String, Order)>,
}

impl<S: Store> Evaluator<'_, S> {
    /// Brings the index of UNIQUE keys up to date with a row and adds every row whose place may have changed to `affected`.
    pub(super) fn index_unique(&mut self, id: &RowId, affected: &mut BTreeSet<RowId>) -> Result<(), S::Error> {
        let Some(row) = self.row(id)?.cloned() else { return Ok(()) };
        let keys: Vec<[u8; 16]> =
            if row.alive { self.unique_keys(&row)?.into_iter().map(|(_, hash, _)| hash).collect() } else { Vec::new() };
        for key in row.unique.iter().chain(&keys) {
            affected.extend(self.store.unique_holders(row.table, key)?);
        }
        affected.insert(*id);
        for key in row.unique.iter().filter(|key| !keys.contains(key)) {
            self.store.remove_unique(row.table, *key, *id)?;
        }
        for key in keys.iter().filter(|key| !row.unique.contains(key)) {
            self.store.add_unique(row.table, *key, *id)?;
        }
        if row.unique != keys
            && let Some(row) = self.row_mut(id)?
        {
            row.unique = keys;
        }
        Ok(())
    }

    /// Decides the components of the given rows. Returns the rows whose place on the shelf changed.
    pub(super) fn decide_unique(&mut self, affected: BTreeSet<RowId>) -> Result<Vec<RowId>, S::Error> {
        let mut open = affected;
        let mut changed = Vec::new();
        while let Some(seed) = open.pop_first() {
            let component = self.component(seed)?;
            for contender in &component {
                open.remove(&contender.row);
            }
            for (row, verdict) in decide(component) {
                let Some(old) = self.row(&row)?.map(|record| record.shelved.clone()) else { continue };
                let new = match (&old, verdict) {
                    (Some(Shelved::Refused { .. }), None) if self.refused.contains(&row) => continue,
                    (_, Some((index, holder))) => Some(Shelved::Unique { index, holder }),
                    (_, None) => None,
                };
                if old == new || (new.is_none() && matches!(old, Some(Shelved::Parent { .. }))) {
                    continue;
                }
                if let Some(record) = self.row_mut(&row)? {
                    record.shelved = new;
                    changed.push(row);
                }
            }
        }
        Ok(changed)
    }

    fn component(&mut self, seed: RowId) -> Result<Vec<Contender>, S::Error> {
        let mut seen = BTreeSet::from([seed]);
        let mut open = vec![seed];
        let mut component = Vec::new();
        while let Some(id) = open.pop() {
            let Some(row) = self.row(&id)?.cloned() else { continue };
            let mut keys = Vec::new();
            if row.alive {
                let seniority = self.ranks.seniority(&id, &row);
                for (index, hash, stamp) in self.unique_keys(&row)? {
                    for other in self.store.unique_holders(row.table, &hash)? {
                        if seen.insert(other) {
                            open.push(other);
                        }
                    }
                    keys.push((hash, index, (stamp, seniority)));
                }
            }
            component.push(Contender { row: id, keys });
        }
        component.sort_by_key(|contender| contender.row);
        Ok(component)
    }

    /// The UNIQUE keys a row holds: (index, hash, when it was written). A rowid or surrogate id in a key never collides.
    fn unique_keys(&mut self, row: &Row) -> Result<Vec<HeldKey>, S::Error> {
        let Some(schema) = self.schema(row.table)? else { return Ok(Vec::new()) };
        let mut keys = Vec::new();
        let own = own_key(schema);
        for unique in schema.unique.iter().filter(|unique| unique.exact).chain(&own) {
            if let Some((hash, stamp)) = self.unique_key(row, row.table, schema, unique)? {
                keys.push((unique.name.clone(), hash, stamp));
            }
        }
        Ok(keys)
    }

    fn unique_key(
        &mut self,
        row: &Row,
        table: TableId,
        schema: &TableSchema,
        unique: &UniqueKey,
    ) -> Result<Option<([u8; 16], Stamp)>, S::Error> {
        let mut bytes = Vec::new();
        let mut written = row.births.first().map_or(Stamp(0), |(_, stamp)| *stamp);
        for (position, collation) in &unique.columns {
            let name = &schema.columns[*position].name;
            Value::text(name).write_canonical(&mut bytes);
            if schema.identity == Identity::Surrogate(*position) {
                return Ok(None);
            }
            let state = self.find_column(table, name)?.and_then(|number| row.cell(number)).cloned();
            let cell = match &state {
                Some(state) => state.cell.clone(),
                None => Cell::Plain(schema.columns[*position].default.clone()),
            };
            let value = self.cell_value(&cell, 0)?;
            if value.is_null() {
                return Ok(None);
            }
            fold(value, *collation).write_canonical(&mut bytes);
            if let Some(state) = state.filter(|state| !state.born) {
                written = written.max(state.stamp);
            }
        }
        let mut hash = [0; 16];
        hash.copy_from_slice(
            &blake3::Hasher::new_derive_key("litemesh 1 unique key").update(&bytes).finalize().as_bytes()[..16],
        );
        Ok(Some((hash, written)))
    }
}

/// The key of a keyed table, where references in it can make two rows show the same.
fn own_key(schema: &TableSchema) -> Option<UniqueKey> {
    let Identity::Keyed(columns) = &schema.identity else { return None };
    let refers = |column: &usize| schema.foreign_keys.iter().any(|key| key.columns.contains(column));
    let columns: Vec<_> = columns.iter().map(|column| (*column, Collation::Binary)).collect();
    let needed = columns.iter().any(|(column, _)| refers(column));
    needed.then(|| UniqueKey { name: "PRIMARY KEY".to_string(), columns, exact: true })
}

/// Brings values that SQLite holds equal under a collation to one form.
fn fold(value: Value, collation: Collation) -> Value {
    match value {
        Value::Text(mut bytes) => {
            match collation {
                Collation::Binary => {}
                Collation::NoCase => bytes.make_ascii_lowercase(),
                Collation::RTrim => {
                    while bytes.last() == Some(&b' ') {
                        bytes.pop();
                    }
                }
            }
            Value::Text(bytes)
        }
        Value::Real(bits) => {
            let value = f64::from_bits(bits);
            let whole = value as i64;
            // Only values that convert back exactly; 2^63 does not.
            if whole as f64 == value && whole != i64::MAX { Value::Integer(whole) } else { Value::Real(bits) }
        }
        other => other,
    }
}

type Verdict = Option<(String, RowId)>;

/// Shows and shelves the rows of one component.
fn decide(component: Vec<Contender>) -> Vec<(RowId, Verdict)> {
    let mut groups: BTreeMap<[u8; 16], Vec<(Order, RowId)>> = BTreeMap::new();
    for contender in &component {
        for (hash, _, order) in &contender.keys {
            groups.entry(*hash).or_default().push((*order, contender.row));
        }
    }
    let mut verdicts: BTreeMap<RowId, Verdict> = BTreeMap::new();
    let mut open: Vec<Contender> = component;
    while !open.is_empty() {
        let first_everywhere = |contender: &Contender| {
            contender.keys.iter().all(|(hash, _, order)| {
                groups[hash].iter().all(|(other, row)| verdicts.contains_key(row) || other >= order)
            })
        };
        // No row is first in all its keys only where orders contradict each other in a ring: the most senior breaks it.
        let next = open
            .iter()
            .position(first_everywhere)
            .or_else(|| (0..open.len()).min_by_key(|at| open[*at].keys.iter().map(|(_, _, order)| order.1).min()));
        let shown = open.remove(next.unwrap_or(0));
        for (hash, index, _) in &shown.keys {
            for (_, row) in &groups[hash] {
                if *row != shown.row && !verdicts.contains_key(row) {
                    verdicts.insert(*row, Some((index.clone(), shown.row)));
                }
            }
        }
        verdicts.insert(shown.row, None);
        open.retain(|contender| !verdicts.contains_key(&contender.row));
    }
    verdicts.into_iter().collect()
}
