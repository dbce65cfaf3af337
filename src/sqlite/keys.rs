//! UNIQUE keys that only SQLite can compute: indexes over expressions, and partial ones.
//!
//! A scratch table in memory, made by the app's own CREATE TABLE, takes one row at a time; SQLite then says what the
//! index's terms are and whether its condition holds. Invariant: the same values give the same key on every node with the
//! same schema; what cannot be computed here (a function or collation that only the app has) leaves the index to SQLite's
//! refusal. Caller: [`super::schema`]; the evaluator calls the result.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use super::quote::{index_terms, partial_condition, quote, words};
use super::value::{bind, read};
use crate::model::schema::{ComputedKey, KeyFunction};
use crate::model::{Collation, TableSchema, Value};

/// One index over a scratch table.
struct Scratch {
    /// Behind a lock because schemas are shared between threads; only the node's thread computes keys.
    connection: Mutex<Connection>,
    insert: String,
    select: String,
    clear: String,
    collations: Vec<Collation>,
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").field("select", &self.select).finish_non_exhaustive()
    }
}

/// How the key of an index is computed; `None` where this SQLite cannot. `table_sql`, `index_sql`: the app's own
/// statements; `collations`: of the index's terms.
pub(super) fn computed_key(
    schema: &TableSchema,
    table_sql: &str,
    index_sql: &str,
    collations: Vec<Collation>,
) -> Option<ComputedKey> {
    let terms = index_terms(index_sql)?;
    let condition = partial_condition(index_sql);
    if terms.is_empty() || terms.len() != collations.len() {
        return None;
    }
    let connection = Connection::open_in_memory().ok()?;
    connection.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON").ok()?;
    connection.execute_batch(table_sql).ok()?;
    let name = quote(&schema.name);
    let columns: Vec<String> = schema.columns.iter().map(|column| quote(&column.name)).collect();
    let places = vec!["?"; columns.len()].join(", ");
    let list = terms.iter().map(|term| format!("({term}\n)")).collect::<Vec<_>>().join(", ");
    let holds = condition.as_deref().unwrap_or("1");
    let scratch = Scratch {
        insert: format!("INSERT OR REPLACE INTO {name} ({}) VALUES ({places})", columns.join(", ")),
        select: format!("SELECT ({holds}\n) IS TRUE, {list} FROM {name}"),
        clear: format!("DELETE FROM {name}"),
        connection: Mutex::new(connection),
        collations,
    };
    scratch.connection.lock().ok()?.prepare(&scratch.select).ok()?;
    let positions = |texts: &[String]| -> Vec<usize> {
        let named = texts.iter().flat_map(|text| words(text));
        let mut found: Vec<usize> = named.filter_map(|word| schema.column(&word)).collect();
        found.sort_unstable();
        found.dedup();
        found
    };
    let (in_terms, all) = (positions(&terms), positions(&[terms.join(" "), condition.unwrap_or_default()]));
    // Terms over generated columns name no stored one: then every column may matter.
    let depends_on = if in_terms.is_empty() { (0..schema.columns.len()).collect() } else { all };
    Some(ComputedKey {
        text: format!("{table_sql}\u{1e}{index_sql}"),
        terms: in_terms,
        depends_on,
        function: Arc::new(scratch),
    })
}

impl KeyFunction for Scratch {
    fn key(&self, image: &[Value]) -> Option<Vec<Value>> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let key = self.key_in(&connection, image).ok().flatten();
        // What remains after a failure is replaced or taken away by the next row.
        let _ = connection.execute(&self.clear, []);
        key
    }
}

impl Scratch {
    fn key_in(&self, connection: &Connection, image: &[Value]) -> rusqlite::Result<Option<Vec<Value>>> {
        let mut insert = connection.prepare_cached(&self.insert)?;
        bind(&mut insert, 1, image)?;
        insert.raw_execute()?;
        let mut select = connection.prepare_cached(&self.select)?;
        let mut rows = select.query([])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        if row.get::<_, i64>(0)? == 0 {
            return Ok(None);
        }
        let mut key = Vec::with_capacity(self.collations.len());
        for (at, collation) in self.collations.iter().enumerate() {
            let value = read(row.get_ref(at + 1)?);
            if value.is_null() {
                return Ok(None);
            }
            key.push(collation.fold(value));
        }
        Ok(Some(key))
    }
}
