//! Rows by the values of a UNIQUE key, for references that name no primary key.
//!
//! Invariant: finds only rows that the file shows. Callers: node (capture, adopt, genesis).

use super::Evaluator;
use super::store::Store;
use super::unique::hash_key;
use crate::model::{Key, RowId, TableSchema, Value};

impl<S: Store> Evaluator<'_, S> {
    /// The row of a table that is shown with these values in these columns: its key, or a UNIQUE key that SQLite can
    /// compare as it stands.
    pub fn shown_by(
        &mut self,
        database: &str,
        schema: &TableSchema,
        columns: &[usize],
        values: &[Value],
    ) -> Result<Option<RowId>, S::Error> {
        let Some(table) = self.store.find_table(database, &schema.name)? else { return Ok(None) };
        let value_of = |column: &usize| Some(&values[columns.iter().position(|named| named == column)?]);
        let key: Option<Key> = schema.key_columns().iter().map(|column| value_of(column).cloned()).collect();
        if let Some(key) = key.filter(|key| !key.is_empty() && key.len() == columns.len()) {
            return self.store.shown(table, &key);
        }
        for unique in schema.unique.iter().filter(|unique| unique.exact && unique.columns.len() == columns.len()) {
            let mut bytes = Vec::new();
            let named = unique.columns.iter().all(|(column, collation)| {
                value_of(column).is_some_and(|value| {
                    Value::text(&schema.columns[*column].name).write_canonical(&mut bytes);
                    collation.fold(value.clone()).write_canonical(&mut bytes);
                    true
                })
            });
            if !named {
                continue;
            }
            for row in self.store.unique_holders(table, &hash_key(&bytes))? {
                if self.row(&row)?.is_some_and(|record| record.shown.is_some()) {
                    return Ok(Some(row));
                }
            }
        }
        Ok(None)
    }
}
