//! Writes rows as an app would: over a connection of its own, with the triggers on, in one transaction.
//!
//! What comes from a server that does not take part in the cluster is an app's write like any other: the triggers mark it,
//! the node captures it, it becomes an ordinary event. Foreign keys are not enforced, as most apps leave it: the other side
//! sends its cascades as changes of their own, in whatever order.
//! Invariants: a row that already is what it shall be is not touched, so nothing echoes; a row that SQLite refuses is left as
//! it was and reported, the others go on; the transaction commits whole or not at all. What was written is read back in the
//! same transaction. Callers: http.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Savepoint, TransactionBehavior, params_from_iter};

use super::quote::quote;
use super::value::{Bound, read_columns};
use super::{Image, SqliteError};
use crate::model::{DatabaseSchema, TableSchema, Value};

/// How long it waits for the app or the node to finish a write.
const BUSY: Duration = Duration::from_secs(5);

/// What one row shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestWrite {
    /// Table.
    pub table: String,
    /// (column, value) of its key.
    pub key: Vec<(String, Value)>,
    /// (column, value) of what is known of it, its key left out; `None` to delete it.
    pub cells: Option<Vec<(String, Value)>>,
}

/// What became of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestOutcome {
    /// Whether something was written.
    pub changed: bool,
    /// What the file shows now: values of all stored columns; `None`: nothing.
    pub image: Option<Image>,
    /// Why it could not be written: then it is as it was.
    pub error: Option<String>,
}

/// Writes rows into an app's file. Nothing is written when this fails as a whole.
pub fn write_as_app(
    path: &Path,
    schema: &DatabaseSchema,
    writes: &[GuestWrite],
) -> Result<Vec<GuestOutcome>, SqliteError> {
    let mut connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(BUSY)?;
    // As durable as what the node itself writes: the other server may forget its copy once it is told "applied".
    connection.pragma_update(None, "synchronous", "FULL")?;
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut outcomes = Vec::with_capacity(writes.len());
    for write in writes {
        let savepoint = transaction.savepoint()?;
        let outcome = match write_one(&savepoint, schema, write) {
            Ok((changed, image)) => {
                savepoint.commit()?;
                GuestOutcome { changed, image, error: None }
            }
            Err(Failure::File(error)) => return Err(error),
            // The savepoint is rolled back when it is dropped.
            Err(Failure::Row(error)) => GuestOutcome { changed: false, image: None, error: Some(error) },
        };
        outcomes.push(outcome);
    }
    transaction.commit()?;
    Ok(outcomes)
}

/// Whom a failure concerns.
enum Failure {
    /// This row alone.
    Row(String),
    /// The whole file.
    File(SqliteError),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig | ErrorCode::Unknown) => {
                Failure::Row(error.to_string())
            }
            Some(_) | None => Failure::File(error.into()),
        }
    }
}

fn write_one(
    savepoint: &Savepoint<'_>,
    schema: &DatabaseSchema,
    write: &GuestWrite,
) -> Result<(bool, Option<Image>), Failure> {
    let table = schema.table(&write.table);
    let table = table.ok_or_else(|| Failure::Row(format!("table {:?} is not replicated", write.table)))?;
    let key = known(table, &write.key)?;
    let place = key.iter().map(|(name, _)| format!("{} IS ?", quote(name))).collect::<Vec<_>>().join(" AND ");
    let before = image(savepoint, table, &place, &key)?;
    let Some(cells) = &write.cells else {
        if before.is_some() {
            let sql = format!("DELETE FROM main.{} WHERE {place}", quote(&table.name));
            savepoint.prepare_cached(&sql)?.execute(params_from_iter(key.iter().map(|(_, value)| Bound(value))))?;
        }
        return Ok((before.is_some(), image(savepoint, table, &place, &key)?));
    };
    let cells = known(table, cells)?;
    match &before {
        Some(now) => {
            let differs = |(name, value): &&(String, Value)| {
                table.column(name).is_none_or(|at| now[at] != as_stored(table, at, value))
            };
            let news: Vec<&(String, Value)> = cells.iter().filter(differs).collect();
            if news.is_empty() {
                return Ok((false, before));
            }
            let set = news.iter().map(|(name, _)| format!("{} = ?", quote(name))).collect::<Vec<_>>().join(", ");
            let sql = format!("UPDATE main.{} SET {set} WHERE {place}", quote(&table.name));
            let values = news.iter().map(|(_, value)| Bound(value)).chain(key.iter().map(|(_, value)| Bound(value)));
            savepoint.prepare_cached(&sql)?.execute(params_from_iter(values))?;
        }
        None => {
            let all: Vec<&(String, Value)> = key.iter().chain(&cells).collect();
            let names = all.iter().map(|(name, _)| quote(name)).collect::<Vec<_>>().join(", ");
            let marks = vec!["?"; all.len()].join(", ");
            let sql = format!("INSERT INTO main.{} ({names}) VALUES ({marks})", quote(&table.name));
            savepoint.prepare_cached(&sql)?.execute(params_from_iter(all.iter().map(|(_, value)| Bound(value))))?;
        }
    }
    Ok((true, image(savepoint, table, &place, &key)?))
}

/// The columns that the table has, under their own names; others are an error: what they hold would be lost.
fn known(table: &TableSchema, cells: &[(String, Value)]) -> Result<Vec<(String, Value)>, Failure> {
    let own = |(name, value): &(String, Value)| {
        let unknown = || Failure::Row(format!("table {} has no column {name:?} here", table.name));
        let at = table.column(name).ok_or_else(unknown)?;
        Ok((table.columns[at].name.clone(), as_stored(table, at, value)))
    };
    cells.iter().map(own).collect()
}

/// Apps write times with a blank between date and time, JSON writers with a T: in a column of times both mean the same, and
/// the app's form is kept.
fn as_stored(table: &TableSchema, column: usize, value: &Value) -> Value {
    let declared = table.columns[column].declared_type.to_ascii_uppercase();
    match value {
        Value::Text(bytes) if declared.contains("DATETIME") || declared.contains("TIMESTAMP") => {
            let mut bytes = bytes.clone();
            let digits = |range: std::ops::Range<usize>| {
                bytes.get(range).is_some_and(|part| part.iter().all(u8::is_ascii_digit))
            };
            if bytes.get(10) == Some(&b'T') && digits(0..4) && digits(5..7) && digits(8..10) && digits(11..13) {
                bytes[10] = b' ';
            }
            Value::Text(bytes)
        }
        other => other.clone(),
    }
}

fn image(
    savepoint: &Savepoint<'_>,
    table: &TableSchema,
    place: &str,
    key: &[(String, Value)],
) -> Result<Option<Image>, Failure> {
    let columns = table.columns.iter().map(|column| quote(&column.name)).collect::<Vec<_>>().join(", ");
    let sql = format!("SELECT {columns} FROM main.{} WHERE {place}", quote(&table.name));
    let mut statement = savepoint.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(key.iter().map(|(_, value)| Bound(value))))?;
    match rows.next()? {
        Some(row) => Ok(Some(read_columns(row, 0, table.columns.len())?)),
        None => Ok(None),
    }
}
