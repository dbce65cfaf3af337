//! R6: what the file shall show of a row: its key and its values, references as the values their parents show.
//!
//! Invariant: a function of the settled rows and this node's schema alone. Callers: node (apply, capture, history).

use std::sync::Arc;

use super::Evaluator;
use super::store::{Fingerprint, Row, Store, Took};
use crate::model::{Cell, Identity, Key, RowId, TableSchema, Value};

/// How many references may follow one another until a plain value (keys that are references to keys …).
const DEPTH_MAX: u32 = 16;

/// A row's key and stored columns, as the file shows them.
pub type Shown = (Key, Vec<Value>);

/// One change to the file: where it shows the row now, and what it shall show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presentation {
    /// The row.
    pub row: RowId,
    /// Its table's name.
    pub table: Arc<str>,
    /// The key under which the file shows it now.
    pub old_key: Option<Key>,
    /// What the file shall show; `None` to take it away.
    pub new: Option<Shown>,
}

impl<S: Store> Evaluator<'_, S> {
    /// What the file shall show of a row; `None` when it is dead, on the shelf, or of a table this node lacks.
    pub fn target(&mut self, id: &RowId) -> Result<Option<Shown>, S::Error> {
        if !self.row(id)?.is_some_and(Row::visible) {
            return Ok(None);
        }
        let Some(row) = self.view(id)? else { return Ok(None) };
        let Some(schema) = self.schema(row.table)? else { return Ok(None) };
        let image = self.image(&row, schema)?;
        Ok(Some((schema.key_of(&image, row.id), image)))
    }

    /// The difference between what the file shows of a row and what it shall show; `None` when there is none.
    pub fn presentation(&mut self, id: &RowId) -> Result<Option<Presentation>, S::Error> {
        let target = self.target(id)?;
        let Some(row) = self.row(id)? else { return Ok(None) };
        let (mut old_key, old_hash, table) = (row.shown.clone(), row.image_hash, row.table);
        // After a crash another row may have the key already: then this one is not in the file.
        if let Some(key) = &old_key
            && self.store.shown(table, key)? != Some(*id)
        {
            old_key = None;
        }
        let name = self.info(table)?.name.clone();
        let same = match (&old_key, &target) {
            (None, None) => true,
            (Some(old), Some((new, image))) => old == new && old_hash == image_hash(&name, image),
            (Some(_), None) | (None, Some(_)) => false,
        };
        Ok((!same).then_some(Presentation { row: *id, table: name, old_key, new: target }))
    }

    /// Whether showing a row as it is now would change an id that people see.
    pub fn moves_id(&mut self, id: &RowId) -> Result<bool, S::Error> {
        let Some(row) = self.row(id)?.filter(|row| row.shown.is_some() && row.visible()) else { return Ok(false) };
        let (table, old) = (row.table, row.shown.clone().unwrap_or_default());
        let surrogate = |schema: &TableSchema| matches!(schema.identity, Identity::Surrogate(_));
        if !self.schema(table)?.is_some_and(surrogate) {
            return Ok(false);
        }
        let new = self.view(id)?.and_then(|view| view.id).map_or(Value::Null, Value::Integer);
        // After a crash another row may have the key already: then this one is not in the file.
        Ok(old != [new] && self.store.shown(table, &old)? == Some(*id))
    }

    /// The stored columns of a row (as [`Evaluator::view`] gives it) under a schema, whether or not it is shown.
    pub fn image(&mut self, row: &Row, schema: &TableSchema) -> Result<Vec<Value>, S::Error> {
        let mut image = Vec::with_capacity(schema.columns.len());
        let numbers = self.numbers_of(row.table, schema)?;
        for (position, column) in schema.columns.iter().enumerate() {
            if schema.identity == Identity::Surrogate(position) {
                image.push(row.id.map_or(Value::Null, Value::Integer));
                continue;
            }
            let number = numbers[position];
            if let Some(shown) = number.and_then(|number| row.tagged(number)) {
                image.push(shown.clone());
                continue;
            }
            if number.is_some_and(|number| row.loosened.contains(&number)) {
                image.push(if column.not_null { self.own_value(row, schema, position)? } else { Value::Null });
                continue;
            }
            let value = match number.and_then(|number| row.shown_cell(number)).map(|state| &state.cell) {
                None => column.default.clone(),
                Some(Cell::Plain(value)) => value.clone(),
                Some(Cell::Ref(reference)) if self.shows_null(schema, position, &reference.row)? => Value::Null,
                Some(cell) => self.cell_value(cell, 0)?,
            };
            image.push(value);
        }
        Ok(image)
    }

    /// The value that a cell shows: a reference shows what the column of its parent shows, dead or alive.
    pub fn cell_value(&mut self, cell: &Cell, depth: u32) -> Result<Value, S::Error> {
        let reference = match cell {
            Cell::Plain(value) => return Ok(value.clone()),
            Cell::Ref(reference) => reference.clone(),
            Cell::Step { .. } | Cell::Edit(_) => return self.cell_value(&cell.without_difference(), depth),
        };
        let Some(parent) = self.view(&reference.row)? else { return Ok(Value::Null) };
        let is_id = match self.schema(parent.table)? {
            Some(schema) => match schema.identity {
                Identity::Surrogate(column) => schema.column(&reference.column) == Some(column),
                Identity::Keyed(_) | Identity::Rowid => false,
            },
            // A table this node lacks: the column that no cell holds is the id.
            None => self.find_column(parent.table, &reference.column)?.is_none(),
        };
        if is_id {
            return Ok(parent.id.map_or(Value::Null, Value::Integer));
        }
        let number = self.find_column(parent.table, &reference.column)?;
        if let Some(shown) = number.and_then(|number| parent.tagged(number)) {
            return Ok(shown.clone());
        }
        match number.and_then(|number| parent.shown_cell(number)) {
            Some(state) if depth < DEPTH_MAX => self.cell_value(&state.cell, depth + 1),
            Some(_) | None => Ok(Value::Null),
        }
    }

    /// What a reference to the row itself shows.
    fn own_value(&mut self, row: &Row, schema: &TableSchema, column: usize) -> Result<Value, S::Error> {
        let key = schema.foreign_keys.iter().find(|key| key.columns == [column]);
        let Some(name) = key.and_then(|key| key.parent_columns.first()) else { return Ok(Value::Null) };
        if let Identity::Surrogate(id) = schema.identity
            && schema.column(name) == Some(id)
        {
            return Ok(row.id.map_or(Value::Null, Value::Integer));
        }
        let cell =
            self.find_column(row.table, name)?.and_then(|number| row.cell(number)).map(|state| state.cell.clone());
        cell.map_or(Ok(Value::Null), |cell| self.cell_value(&cell, 0))
    }

    /// R7: a declared reference with SET NULL shows NULL while its parent is not shown.
    fn shows_null(&mut self, schema: &TableSchema, column: usize, parent: &RowId) -> Result<bool, S::Error> {
        let sets_null =
            schema.foreign_keys.iter().any(|key| key.declared && !key.keeps_parent && key.columns.contains(&column));
        let parent = self.canonical(parent)?;
        Ok(sets_null && !self.row(&parent)?.is_some_and(Row::visible))
    }

    /// Notes that a row is shown under an id that was another row's until now.
    pub fn note_took(&mut self, id: &RowId, took: Took) -> Result<(), S::Error> {
        if let Some(row) = self.row_mut(id)? {
            row.took = Some(took);
        }
        Ok(())
    }

    /// Takes over what the file shows of a row now: key index, image hash and the table's fingerprint follow.
    pub fn mark_shown(&mut self, id: &RowId, shown: Option<&Shown>) -> Result<(), S::Error> {
        let Some(row) = self.row(id)? else { return Ok(()) };
        let (table, old_key, old_hash) = (row.table, row.shown.clone(), row.image_hash);
        let name = self.info(table)?.name.clone();
        let new_hash = shown.map_or([0; 32], |(_, image)| image_hash(&name, image));
        let new_key = shown.map(|(key, _)| key.clone());
        let mut fingerprint = self.store.fingerprint(table)?;
        if let Some(key) = &old_key {
            fingerprint.remove(&old_hash);
            // Another row may have taken the key over in the same transaction.
            if new_key.as_ref() != Some(key) && self.store.shown(table, key)? == Some(*id) {
                self.store.set_shown(table, key, None)?;
            }
        }
        if let Some(key) = &new_key {
            fingerprint.add(&new_hash);
            self.store.set_shown(table, key, Some(*id))?;
        }
        self.store.put_fingerprint(table, fingerprint)?;
        self.store.note_shown(table, id, old_key.map(|_| old_hash), new_key.as_ref().map(|_| new_hash))?;
        if let Some(row) = self.row_mut(id)? {
            row.shown = new_key;
            row.image_hash = new_hash;
            row.lag = None;
        }
        Ok(())
    }

    /// What the file shows of a row that is evaluated further than it is written, where that was noted.
    pub fn lag(&mut self, id: &RowId) -> Result<Option<Vec<Value>>, S::Error> {
        Ok(self.row(id)?.and_then(|row| row.lag.as_deref().map(<[Value]>::to_vec)))
    }

    /// Notes what the file shows of a row until it is written. False where the file shows something else.
    pub fn note_lag(&mut self, id: &RowId, image: &[Value]) -> Result<bool, S::Error> {
        let Some((table, hash)) = self.row(id)?.map(|row| (row.table, row.image_hash)) else { return Ok(false) };
        if image_hash(&self.info(table)?.name, image) != hash {
            return Ok(false);
        }
        if let Some(row) = self.row_mut(id)? {
            row.lag = Some(image.into());
        }
        Ok(true)
    }
}

/// Hash of a row as its file shows it: table name and stored columns in declared order.
pub fn image_hash(table: &str, image: &[Value]) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(16 + table.len() + image.iter().map(|value| 4 + value.weight()).sum::<usize>());
    Value::text(table).write_canonical(&mut bytes);
    for value in image {
        value.write_canonical(&mut bytes);
    }
    *blake3::Hasher::new_derive_key("litemesh 1 shown row").update(&bytes).finalize().as_bytes()
}

impl Fingerprint {
    /// Adds a row's hash.
    pub fn add(&mut self, hash: &[u8; 32]) {
        self.rows = self.rows.wrapping_add(1);
        for (lane, value) in self.lanes.iter_mut().zip(lanes(hash)) {
            *lane = lane.wrapping_add(value);
        }
    }

    /// Takes a row's hash away.
    pub fn remove(&mut self, hash: &[u8; 32]) {
        self.rows = self.rows.wrapping_sub(1);
        for (lane, value) in self.lanes.iter_mut().zip(lanes(hash)) {
            *lane = lane.wrapping_sub(value);
        }
    }
}

fn lanes(hash: &[u8; 32]) -> [u64; 4] {
    let mut out = [0; 4];
    for (lane, bytes) in out.iter_mut().zip(hash.chunks_exact(8)) {
        *lane = u64::from_be_bytes(bytes.try_into().expect("chunks of eight bytes"));
    }
    out
}

/// The root over a database's tables, given as (name, fingerprint) in ascending order of names.
pub fn digest<'t>(tables: impl Iterator<Item = (&'t str, Fingerprint)>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("litemesh 1 content digest");
    for (name, fingerprint) in tables {
        hasher.update(&(name.len() as u64).to_be_bytes());
        hasher.update(name.as_bytes());
        hasher.update(&fingerprint.rows.to_be_bytes());
        for lane in fingerprint.lanes {
            hasher.update(&lane.to_be_bytes());
        }
    }
    *hasher.finalize().as_bytes()
}
