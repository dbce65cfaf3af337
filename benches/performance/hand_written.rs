//! What others would write: the rows straight into a file, and a sync as an app's own code does it.
//!
//! *Bare upsert*: nothing but SQLite: one prepared statement, 5,000 rows per transaction, `synchronous=FULL`. It remembers
//! nothing, checks nothing, merges nothing: the floor. *Hand-written sync*: for every row, is mine newer? else upsert, and a
//! line in a table of changes; the same transactions. It loses concurrent cells and cannot re-key: it is the cost of doing
//! less, not an equal. Invariant: the same rows in the same order as the node gets. Caller: receive.

use std::path::Path;
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use crate::Failure;
use crate::sample::timed;
use crate::shape::{self, Shape, TABLE};

const ROWS_PER_TRANSACTION: usize = 5_000;

/// A file that has the base rows, with what the hand-written sync needs beside them.
pub(crate) fn make(path: &Path, shape: Shape, base: std::ops::Range<u64>) -> Result<(), Failure> {
    shape::make(path, &shape.schema())?;
    let mut file = shape::open(path, "FULL")?;
    if shape.refers {
        shape::write_parents(&file)?;
    }
    let rows: Vec<u64> = base.collect();
    for page in rows.chunks(20_000) {
        shape::insert_rows(&mut file, shape, page[0]..page[page.len() - 1] + 1, shape::Ids::Less(0))?;
    }
    file.execute_batch(&format!(
        "CREATE TABLE seen (id INTEGER PRIMARY KEY, updated_at INTEGER NOT NULL);
         INSERT INTO seen SELECT id, 1 FROM {TABLE};
         CREATE TABLE changes (number INTEGER PRIMARY KEY, name TEXT, id INTEGER, operation TEXT, at INTEGER);
         PRAGMA wal_checkpoint(TRUNCATE);"
    ))?;
    Ok(())
}

fn upsert(shape: Shape) -> String {
    let set: Vec<String> = shape.names().iter().map(|name| format!("{name} = excluded.{name}")).collect();
    format!("{} ON CONFLICT (id) DO UPDATE SET {}", shape.insert(), set.join(", "))
}

/// All rows, and nothing else.
pub(crate) fn bare_upsert(path: &Path, shape: Shape, rows: &[Vec<Value>]) -> Result<Duration, Failure> {
    let mut file = shape::open(path, "FULL")?;
    let sql = upsert(shape);
    in_transactions(&mut file, rows, |file, row| {
        file.prepare_cached(&sql)?.execute(rusqlite::params_from_iter(row))?;
        Ok(())
    })
}

/// All rows that are newer than what is there, each noted.
pub(crate) fn sync(path: &Path, shape: Shape, rows: &[Vec<Value>]) -> Result<Duration, Failure> {
    let mut file = shape::open(path, "FULL")?;
    let sql = upsert(shape);
    in_transactions(&mut file, rows, |file, row| {
        let mine: Option<i64> = file
            .prepare_cached("SELECT updated_at FROM seen WHERE id = ?")?
            .query_row([&row[0]], |row| row.get(0))
            .optional()?;
        if mine.is_some_and(|mine| mine >= 2) {
            return Ok(());
        }
        file.prepare_cached(&sql)?.execute(rusqlite::params_from_iter(row))?;
        file.prepare_cached("INSERT INTO seen VALUES (?, 2) ON CONFLICT (id) DO UPDATE SET updated_at = 2")?
            .execute([&row[0]])?;
        let note = "INSERT INTO changes VALUES (NULL, ?, ?, 'upsert', 2)";
        file.prepare_cached(note)?.execute((TABLE, &row[0]))?;
        Ok(())
    })
}

fn in_transactions(
    file: &mut Connection,
    rows: &[Vec<Value>],
    mut each: impl FnMut(&Connection, &[Value]) -> Result<(), rusqlite::Error>,
) -> Result<Duration, Failure> {
    let (_, took) = timed(|| -> Result<(), Failure> {
        for page in rows.chunks(ROWS_PER_TRANSACTION) {
            let transaction = file.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for row in page {
                each(&transaction, row)?;
            }
            transaction.commit()?;
        }
        Ok(())
    })?;
    Ok(took)
}
