//! Rows found in a file, and which of them a reference leads to.
//!
//! Invariant: values are compared exactly, by the parent's key or (foreign keys to a UNIQUE key) by the columns that the
//! reference names; what leads to no row of the file is nobody's child. Callers: genesis, adopt.

use std::collections::BTreeMap;

use crate::model::{DatabaseSchema, ForeignKey, Key, Value};
use crate::sqlite::Image;

/// One row found in the file.
pub(super) struct Found {
    pub(super) table: usize,
    pub(super) key: Key,
    pub(super) image: Image,
}

/// (position of the parent's table, positions of the referred columns).
type Target = (usize, Vec<usize>);

/// The rows of one file by everything that a reference can name them by.
pub(super) struct FoundIndex<'f> {
    schema: &'f DatabaseSchema,
    by_key: Vec<BTreeMap<&'f Key, &'f Image>>,
    by_columns: BTreeMap<Target, BTreeMap<Vec<&'f Value>, &'f Key>>,
}

impl<'f> FoundIndex<'f> {
    pub(super) fn new(schema: &'f DatabaseSchema, found: &'f [Found]) -> FoundIndex<'f> {
        let mut by_key: Vec<BTreeMap<&Key, &Image>> = vec![BTreeMap::new(); schema.tables.len()];
        for row in found {
            by_key[row.table].insert(&row.key, &row.image);
        }
        let mut by_columns: BTreeMap<Target, BTreeMap<Vec<&Value>, &Key>> = BTreeMap::new();
        for key in schema.tables.iter().flat_map(|table| &table.foreign_keys) {
            let Some((parent, columns)) = target(schema, key) else { continue };
            if key_order(schema, parent, &columns).is_some() {
                continue;
            }
            let index = by_columns.entry((parent, columns.clone())).or_default();
            for (key, image) in &by_key[parent] {
                index.insert(columns.iter().map(|column| &image[*column]).collect(), key);
            }
        }
        FoundIndex { schema, by_key, by_columns }
    }

    pub(super) fn schema(&self) -> &'f DatabaseSchema {
        self.schema
    }

    /// The row under a key.
    pub(super) fn row(&self, table: usize, key: &Key) -> Option<&'f Image> {
        self.by_key[table].get(key).copied()
    }

    /// All rows of a table, in key order.
    pub(super) fn rows(&self, table: usize) -> impl Iterator<Item = (&'f Key, &'f Image)> + '_ {
        self.by_key[table].iter().map(|(key, image)| (*key, *image))
    }

    /// Table and key of the row that a reference of this image leads to; `None` for NULLs, other databases and values that
    /// lead to no row found.
    pub(super) fn parent(&self, key: &ForeignKey, image: &[Value]) -> Option<(usize, &'f Key)> {
        let (parent, columns) = target(self.schema, key)?;
        let values: Vec<&Value> = key.columns.iter().map(|column| &image[*column]).collect();
        if values.iter().any(|value| value.is_null()) {
            return None;
        }
        let found = match key_order(self.schema, parent, &columns) {
            Some(order) => {
                let wanted: Key = order.into_iter().map(|at| values[at].clone()).collect();
                self.by_key[parent].get_key_value(&wanted).map(|(key, _)| *key)
            }
            None => self.by_columns.get(&(parent, columns))?.get(&values).copied(),
        };
        found.map(|key| (parent, key))
    }
}

/// The table and columns of this database that a reference names.
fn target(schema: &DatabaseSchema, key: &ForeignKey) -> Option<Target> {
    if key.database.as_ref().is_some_and(|name| *name != schema.database) {
        return None;
    }
    let parent = schema.tables.iter().position(|table| table.name.eq_ignore_ascii_case(&key.parent))?;
    let columns = key.parent_columns.iter().map(|name| schema.tables[parent].column(name)).collect::<Option<_>>()?;
    Some((parent, columns))
}

/// Where the parent's key columns stand among the referred ones, if those are its key.
fn key_order(schema: &DatabaseSchema, parent: usize, columns: &[usize]) -> Option<Vec<usize>> {
    let key = schema.tables[parent].key_columns();
    let order: Option<Vec<usize>> =
        key.iter().map(|column| columns.iter().position(|referred| referred == column)).collect();
    order.filter(|order| !order.is_empty() && order.len() == columns.len())
}
