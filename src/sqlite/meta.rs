//! The little that litemesh keeps in the app's file besides the outbox: who the file is and how far it is.
//!
//! Invariant: changes in the same transaction as what it describes, so file and meta are never at odds, whatever copy or
//! backup of the file is put in its place. No node identity in it: a copied file must not clone a node.
//! Callers: enroll, drain, apply, search.

use rusqlite::{Connection, OptionalExtension};

use super::{AppFile, SqliteError};
use crate::model::{Cut, OriginId};

pub(super) const FILE_ID: &str = "file_id";
pub(super) const EPOCH: &str = "epoch";
pub(super) const LOGGED: &str = "logged";
pub(super) const APPLIED: &str = "applied";
pub(super) const APPLIED_EPOCH: &str = "applied_epoch";
pub(super) const JOURNAL_MODE: &str = "journal_mode";
pub(super) const FORMAT: &str = "format";
pub(super) const SEARCH_STALE: &str = "search_stale";

/// Who a file is and how far it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileMeta {
    /// Random, made at enrollment; copies of the file share it.
    pub file_id: [u8; 16],
    /// Grows with every fence and apply. Smaller than it was: the file went back in time.
    pub epoch: u64,
    /// The events that the file shows.
    pub applied: Cut,
    /// The epoch of the last apply; fences leave it. An apply may write rows without any event being new.
    pub applied_epoch: u64,
    /// Up to where its node's own chain stood in the log when marks were last cleared. Beyond the log's end: the log went
    /// back in time.
    pub logged: Option<(OriginId, u64)>,
}

impl AppFile {
    /// Who the file is and how far it is.
    pub fn meta(&self) -> Result<FileMeta, SqliteError> {
        read(&self.connection)
    }

    /// Raises the epoch in a commit of its own, with `synchronous=FULL`: what the app committed before is on the disk
    /// when this returns. Returns the new epoch.
    pub fn fence(&mut self) -> Result<u64, SqliteError> {
        let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let epoch = raise_epoch(&transaction)?;
        transaction.commit()?;
        Ok(epoch)
    }
}

/// Reads the meta; one statement, so one snapshot even outside a transaction.
pub(super) fn read(connection: &Connection) -> Result<FileMeta, SqliteError> {
    let mut meta = FileMeta::default();
    let mut statement = prepare(connection, "SELECT name, value FROM main._litemesh_meta")?;
    let mut rows = statement.query([])?;
    let mut known = false;
    while let Some(row) = rows.next()? {
        match row.get_ref(0)?.as_str().unwrap_or_default() {
            FILE_ID => {
                known = true;
                let bytes = row.get_ref(1)?.as_bytes().unwrap_or_default();
                meta.file_id = bytes.try_into().map_err(|_| damaged("file id"))?;
            }
            EPOCH => meta.epoch = row.get_ref(1)?.as_i64().unwrap_or(0).unsigned_abs(),
            APPLIED_EPOCH => meta.applied_epoch = row.get_ref(1)?.as_i64().unwrap_or(0).unsigned_abs(),
            LOGGED => meta.logged = decode_logged(row.get_ref(1)?.as_bytes().unwrap_or_default()),
            APPLIED => meta.applied = decode_cut(row.get_ref(1)?.as_bytes().unwrap_or_default())?,
            _ => {}
        }
    }
    if known { Ok(meta) } else { Err(SqliteError::NotEnrolled) }
}

/// A cached statement over our own tables; their absence means that the file is not enrolled.
pub(super) fn prepare<'c>(connection: &'c Connection, sql: &str) -> Result<rusqlite::CachedStatement<'c>, SqliteError> {
    connection.prepare_cached(sql).map_err(|error| match error.to_string().contains("no such table: main._litemesh") {
        true => SqliteError::NotEnrolled,
        false => SqliteError::from(error),
    })
}

fn raise_epoch(connection: &Connection) -> Result<u64, SqliteError> {
    prepare(connection, "UPDATE main._litemesh_meta SET value = value + 1 WHERE name = 'epoch'")?.execute([])?;
    let epoch = prepare(connection, "SELECT value FROM main._litemesh_meta WHERE name = 'epoch'")?
        .query_row([], |row| row.get::<_, i64>(0))
        .optional()?;
    epoch.map(i64::unsigned_abs).ok_or(SqliteError::NotEnrolled)
}

/// Notes up to where the node's own chain stands in the log, within a transaction of the caller.
pub(super) fn write_logged(connection: &Connection, (origin, seq): (OriginId, u64)) -> Result<(), SqliteError> {
    let value = [&origin.0[..], &seq.to_be_bytes()].concat();
    let mut update = prepare(connection, "UPDATE main._litemesh_meta SET value = ?1 WHERE name = 'logged'")?;
    if update.execute([&value])? == 0 {
        prepare(connection, "INSERT INTO main._litemesh_meta(name, value) VALUES ('logged', ?1)")?.execute([&value])?;
    }
    Ok(())
}

fn decode_logged(bytes: &[u8]) -> Option<(OriginId, u64)> {
    let (origin, seq) = bytes.split_first_chunk::<16>()?;
    Some((OriginId(*origin), u64::from_be_bytes(seq.try_into().ok()?)))
}

/// Notes what the file shows, with a new epoch, which it returns.
pub(super) fn write_applied(connection: &Connection, applied: &Cut) -> Result<u64, SqliteError> {
    prepare(connection, "UPDATE main._litemesh_meta SET value = ?1 WHERE name = 'applied'")?
        .execute([encode_cut(applied)])?;
    let epoch = raise_epoch(connection)?;
    prepare(connection, "UPDATE main._litemesh_meta SET value = ?1 WHERE name = 'applied_epoch'")?
        .execute([epoch as i64])?;
    Ok(epoch)
}

pub(super) fn read_text(connection: &Connection, name: &str) -> Result<Option<String>, SqliteError> {
    let value = prepare(connection, "SELECT value FROM main._litemesh_meta WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    Ok(value)
}

/// Whether a value of this name is there.
pub(super) fn is_set(connection: &Connection, name: &str) -> Result<bool, SqliteError> {
    let mut statement = prepare(connection, "SELECT 1 FROM main._litemesh_meta WHERE name = ?1")?;
    Ok(statement.exists([name])?)
}

pub(super) fn read_flag(connection: &Connection, name: &str) -> Result<bool, SqliteError> {
    let value = prepare(connection, "SELECT value FROM main._litemesh_meta WHERE name = ?1")?
        .query_row([name], |row| row.get::<_, i64>(0))
        .optional()?;
    Ok(value == Some(1))
}

pub(super) fn write_flag(connection: &Connection, name: &str, value: bool) -> Result<(), SqliteError> {
    prepare(connection, "DELETE FROM main._litemesh_meta WHERE name = ?1")?.execute([name])?;
    if value {
        prepare(connection, "INSERT INTO main._litemesh_meta(name, value) VALUES (?1, 1)")?.execute([name])?;
    }
    Ok(())
}

/// Origins in ascending order, each with its number in 8 bytes: equal cuts give equal bytes.
fn encode_cut(cut: &Cut) -> Vec<u8> {
    let mut out = Vec::with_capacity(cut.dots.len() * 24);
    for (origin, seq) in &cut.dots {
        out.extend_from_slice(&origin.0);
        out.extend_from_slice(&seq.to_be_bytes());
    }
    out
}

fn decode_cut(bytes: &[u8]) -> Result<Cut, SqliteError> {
    if !bytes.len().is_multiple_of(24) {
        return Err(damaged("applied cut"));
    }
    let mut cut = Cut::default();
    for entry in bytes.chunks_exact(24) {
        let (origin, seq) = entry.split_at(16);
        let origin = OriginId(origin.try_into().expect("16 of 24 bytes"));
        cut.dots.insert(origin, u64::from_be_bytes(seq.try_into().expect("8 of 24 bytes")));
    }
    Ok(cut)
}

fn damaged(what: &str) -> SqliteError {
    SqliteError::Corrupt { message: format!("litemesh's {what} in it has an impossible size") }
}
