//! The outbox's table and the registry of watched tables, both in the app's file.
//!
//! Invariant: a table number stands for one table with one key for ever; renames keep it, a new key gets a new one, so
//! an old mark is never read with a key it was not written with. Callers: install, drain, triggers.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::SqliteError;
use super::meta;

/// Name of the outbox.
pub(super) const OUTBOX: &str = "_litemesh_outbox";

/// A mark holds its table's number times this, plus the operation.
pub(super) const TABLE_STRIDE: i64 = 8;

/// Mark operations as stored.
pub(super) const INSERT: i64 = 1;
pub(super) const UPDATE: i64 = 2;
pub(super) const DELETE: i64 = 3;
/// A row with the key of the row about to be inserted.
pub(super) const REPLACED: i64 = 4;
/// A row with another key that is in the way through a UNIQUE index.
pub(super) const EVICTED: i64 = 5;

/// Makes litemesh's tables where they are missing; in a write transaction.
pub(super) fn create(connection: &Connection, journal_mode: &str) -> Result<(), SqliteError> {
    // No types, no constraints: `INSERT OR IGNORE` of the app must not be able to swallow a mark.
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS main._litemesh_meta(name, value);
         CREATE TABLE IF NOT EXISTS main._litemesh_outbox(seq INTEGER PRIMARY KEY, rid, mark, at, k0, o0);
         CREATE TABLE IF NOT EXISTS main._litemesh_tables(
             number INTEGER PRIMARY KEY, name, keys, shape, seen_name, seen_shape, scan, gone);",
    )?;
    if meta::is_set(connection, meta::FILE_ID)? {
        return Ok(());
    }
    let mut statement = connection.prepare("INSERT INTO main._litemesh_meta(name, value) VALUES (?1, ?2)")?;
    statement.execute((meta::FORMAT, 1))?;
    statement.execute((meta::EPOCH, 0))?;
    statement.execute((meta::APPLIED, Vec::<u8>::new()))?;
    statement.execute((meta::APPLIED_EPOCH, 0))?;
    statement.execute((meta::JOURNAL_MODE, journal_mode))?;
    connection.execute("INSERT INTO main._litemesh_meta(name, value) VALUES (?1, randomblob(16))", [meta::FILE_ID])?;
    Ok(())
}

/// One row of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Registered {
    /// Name of the table now.
    pub(super) name: String,
    /// Its key columns, as bytes.
    pub(super) keys: Vec<u8>,
    /// Its definition, as bytes.
    pub(super) shape: Vec<u8>,
    /// Its name when the node last acknowledged the schema; `None` for a table it does not know yet.
    pub(super) seen_name: Option<String>,
    /// Its definition then.
    pub(super) seen_shape: Vec<u8>,
    /// Rows may have been written unseen.
    pub(super) scan: bool,
    /// Dropped, excluded, or registered again under another number.
    pub(super) gone: bool,
}

/// The whole registry, by number.
pub(super) fn read_registry(connection: &Connection) -> Result<BTreeMap<i64, Registered>, SqliteError> {
    let mut statement = meta::prepare(
        connection,
        "SELECT number, name, keys, shape, seen_name, seen_shape, scan, gone FROM main._litemesh_tables",
    )?;
    let rows = statement.query_map([], |row| {
        Ok((
            row.get(0)?,
            Registered {
                name: row.get(1)?,
                keys: row.get(2)?,
                shape: row.get(3)?,
                seen_name: row.get(4)?,
                seen_shape: row.get(5)?,
                scan: row.get::<_, i64>(6)? != 0,
                gone: row.get::<_, i64>(7)? != 0,
            },
        ))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Writes one registry row.
pub(super) fn write_registered(connection: &Connection, number: i64, entry: &Registered) -> Result<(), SqliteError> {
    meta::prepare(connection, "DELETE FROM main._litemesh_tables WHERE number = ?1")?.execute([number])?;
    meta::prepare(
        connection,
        "INSERT INTO main._litemesh_tables(number, name, keys, shape, seen_name, seen_shape, scan, gone) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute((
        number,
        &entry.name,
        &entry.keys,
        &entry.shape,
        &entry.seen_name,
        &entry.seen_shape,
        entry.scan,
        entry.gone,
    ))?;
    Ok(())
}

/// Number of key columns that the outbox can hold.
pub(super) fn width(connection: &Connection) -> Result<usize, SqliteError> {
    let columns: i64 = connection.query_row(
        "SELECT count(*) FROM pragma_table_info('_litemesh_outbox') WHERE name GLOB 'k[0-9]*'",
        [],
        |row| row.get(0),
    )?;
    Ok(usize::try_from(columns).unwrap_or(0))
}

/// Adds key columns until the widest key fits.
pub(super) fn widen(connection: &Connection, wanted: usize) -> Result<(), SqliteError> {
    for column in width(connection)?..wanted {
        connection.execute_batch(&format!(
            "ALTER TABLE main._litemesh_outbox ADD COLUMN k{column}; ALTER TABLE main._litemesh_outbox ADD COLUMN o{column};"
        ))?;
    }
    Ok(())
}
