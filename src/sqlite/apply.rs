//! Writes final row images into the app's file: one write transaction, verified, all or nothing.
//!
//! Invariants: no row of the app is evicted (every statement is `OR ABORT`, never `OR REPLACE`); rows whose key or UNIQUE
//! columns change leave before any comes, so swapped keys never collide; each row written was read back and is equal bit
//! for bit, or is reported as refused and is not there. The cursor is in the same transaction. Callers: node.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, ErrorCode};

use super::plan::{TablePlan, Watched};
use super::{AppFile, Drain, Image, SqliteError, drain, meta, steering, value};
use crate::model::{Bug, Cut, Key, planted};

/// What one row shall show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowWrite {
    /// Table, as in the schema.
    pub table: Arc<str>,
    /// Where the file shows the row now; `None` while it does not.
    pub old_key: Option<Key>,
    /// Key and image that it shall show; `None` to remove it. In a table without a key the key is the rowid.
    pub new: Option<(Key, Image)>,
}

/// A row that this file cannot hold. It is not in the file, neither under its old key nor under its new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Position in the writes.
    pub index: usize,
    /// Why, in SQLite's words.
    pub message: String,
}

/// An open write transaction. Rolls back when dropped.
pub struct Apply<'f> {
    file: &'f mut AppFile,
    open: bool,
}

impl AppFile {
    /// Begins a write transaction at once. [`SqliteError::Busy`]: another process writes; try again later.
    pub fn begin_apply(&mut self) -> Result<Apply<'_>, SqliteError> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let apply = Apply { file: self, open: true };
        apply.file.check_layout()?;
        steering::sweep(&apply.file.connection, &apply.file.layout, &apply.file.registry)?;
        Ok(apply)
    }
}

impl Apply<'_> {
    /// Whether the app wrote something that was not drained yet: local writes go before remote ones.
    pub fn has_marks(&self) -> Result<bool, SqliteError> {
        drain::has_marks(&self.file.connection)
    }

    /// Drains inside this transaction: nothing can come in between.
    pub fn drain(&mut self) -> Result<Drain, SqliteError> {
        let (drain, drained) = self.file.drain_snapshot()?;
        self.file.drained = drained;
        Ok(drain)
    }

    /// Clears marks in this transaction, as [`AppFile::clear_marks`] does in its own.
    pub fn clear_marks(&mut self, through_seq: i64) -> Result<(), SqliteError> {
        if through_seq == 0 {
            Ok(())
        } else {
            drain::clear(&self.file.connection, through_seq, self.file.drained, self.file.logged)
        }
    }

    /// The file, to read rows as this transaction sees them.
    pub fn file(&self) -> &AppFile {
        self.file
    }

    /// Writes rows. The order of the writes does not matter; no two may name the same row.
    pub fn write(&mut self, writes: &[RowWrite]) -> Result<Vec<Refused>, SqliteError> {
        let mut by_table: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, write) in writes.iter().enumerate() {
            by_table.entry(&write.table).or_default().push(index);
        }
        let mut refused = Vec::new();
        let mut searched = false;
        for (table, indexes) in by_table {
            searched |= self.feeds_search(table);
            let mut writer = match TableWriter::new(self.file, table) {
                Ok(writer) => writer,
                Err(SqliteError::UnknownTable(name)) => return Err(SqliteError::UnknownTable(name)),
                Err(SqliteError::Storage(error)) => {
                    // The table needs something that only the app has (a function, a collation).
                    let message = error.to_string();
                    refused.extend(indexes.iter().map(|index| Refused { index: *index, message: message.clone() }));
                    continue;
                }
                Err(error) => return Err(error),
            };
            writer.write(writes, &indexes, &mut refused)?;
            if planted(Bug::TornApply) {
                self.file.connection.execute_batch("COMMIT; BEGIN IMMEDIATE")?;
            }
        }
        if searched {
            self.file.follow_search()?;
        }
        refused.sort_by_key(|refused| refused.index);
        Ok(refused)
    }

    /// Records what the file shows now and commits. Returns the new epoch. On an error everything is rolled back.
    pub fn commit(mut self, applied: &Cut) -> Result<u64, SqliteError> {
        if planted(Bug::CursorApart) {
            self.file.connection.execute_batch("COMMIT; BEGIN IMMEDIATE")?;
        }
        let epoch = meta::write_applied(&self.file.connection, applied)?;
        self.file.connection.execute_batch("COMMIT")?;
        self.open = false;
        Ok(epoch)
    }

    /// Whether a full-text index reads this table (a view may read any).
    fn feeds_search(&self, table: &str) -> bool {
        let layout = &self.file.layout;
        layout
            .search
            .iter()
            .any(|search| search.content.eq_ignore_ascii_case(table) || layout.schema.table(&search.content).is_none())
    }
}

impl Drop for Apply<'_> {
    fn drop(&mut self) {
        if self.open {
            // Fails only when SQLite has rolled back by itself (disk full, I/O error): the same outcome.
            let _ = self.file.connection.execute_batch("ROLLBACK");
        }
    }
}

/// Statements of one table during one call.
struct TableWriter<'f> {
    plan: &'f TablePlan,
    key_positions: Vec<usize>,
    select: CachedStatement<'f>,
    delete: CachedStatement<'f>,
    insert: CachedStatement<'f>,
    update: Option<CachedStatement<'f>>,
}

/// What is left to do for a row after the deletes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Update,
    Insert,
    Done,
}

/// A row's fate: an error of the transaction, or SQLite's refusal of this one row.
type Outcome = Result<Result<(), String>, SqliteError>;

impl<'f> TableWriter<'f> {
    fn new(file: &'f AppFile, table: &str) -> Result<TableWriter<'f>, SqliteError> {
        let (schema, plan) = file.layout.find(table)?;
        let connection: &'f Connection = &file.connection;
        Ok(TableWriter {
            plan,
            key_positions: schema.key_columns(),
            select: connection.prepare_cached(&plan.select)?,
            delete: connection.prepare_cached(&plan.delete)?,
            insert: connection.prepare_cached(&plan.insert)?,
            update: plan.update.as_deref().map(|sql| connection.prepare_cached(sql)).transpose()?,
        })
    }

    fn write(&mut self, writes: &[RowWrite], indexes: &[usize], refused: &mut Vec<Refused>) -> Result<(), SqliteError> {
        let mut steps = Vec::with_capacity(indexes.len());
        for index in indexes {
            steps.push(self.make_way(&writes[*index])?);
        }
        for wanted in [Step::Update, Step::Insert] {
            for (index, step) in indexes.iter().zip(&steps).filter(|(_, step)| **step == wanted) {
                let Some((key, image)) = &writes[*index].new else { continue };
                let outcome = match step {
                    Step::Update => self.update(key, image)?,
                    Step::Insert | Step::Done => self.insert(key, image)?,
                };
                if let Err(message) = outcome {
                    refused.push(Refused { index: *index, message });
                }
            }
        }
        Ok(())
    }

    /// Deletes what goes away or could stand in another row's way.
    fn make_way(&mut self, write: &RowWrite) -> Result<Step, SqliteError> {
        let Some(old_key) = &write.old_key else {
            return Ok(if write.new.is_some() { Step::Insert } else { Step::Done });
        };
        match &write.new {
            Some((key, image)) if key == old_key && !self.may_collide(key, image)? => Ok(Step::Update),
            Some(_) => {
                self.delete(old_key)?;
                Ok(Step::Insert)
            }
            None => {
                self.delete(old_key)?;
                Ok(Step::Done)
            }
        }
    }

    /// Whether the row's UNIQUE columns change.
    fn may_collide(&mut self, key: &Key, image: &Image) -> Result<bool, SqliteError> {
        match &self.plan.watched {
            Watched::Columns(columns) if columns.is_empty() => Ok(false),
            Watched::Columns(columns) => {
                let stored = self.read(key)?;
                Ok(stored.is_some_and(|stored| columns.iter().any(|column| stored[*column] != image[*column])))
            }
            Watched::All => Ok(self.read(key)?.is_some_and(|stored| stored != *image)),
        }
    }

    /// The row with exactly this key.
    fn read(&mut self, key: &Key) -> Result<Option<Image>, SqliteError> {
        value::bind(&mut self.select, 1, key)?;
        let mut rows = self.select.raw_query();
        let Some(row) = rows.next()? else { return Ok(None) };
        let image = value::read_columns(row, 0, self.plan.width)?;
        let exact =
            self.plan.by_rowid || self.key_positions.iter().zip(key).all(|(position, part)| image[*position] == *part);
        Ok(exact.then_some(image))
    }

    fn delete(&mut self, key: &Key) -> Result<(), SqliteError> {
        if !self.plan.finds_exactly(key) && self.read(key)?.is_none() {
            return Ok(());
        }
        value::bind(&mut self.delete, 1, key)?;
        self.delete.raw_execute()?;
        Ok(())
    }

    fn update(&mut self, key: &Key, image: &Image) -> Outcome {
        let loose = !self.plan.finds_exactly(key);
        if (self.update.is_none() || loose) && self.read(key)?.is_none() {
            return self.insert(key, image);
        }
        if let Some(statement) = &mut self.update {
            value::bind(statement, 1, key.iter().chain(self.plan.updated.iter().map(|column| &image[*column])))?;
            match tolerate(statement.raw_execute())? {
                Ok(0) => return self.insert(key, image),
                Ok(_) => {}
                Err(message) => {
                    self.delete(key)?;
                    return Ok(Err(message));
                }
            }
        }
        self.verify(key, image)
    }

    fn insert(&mut self, key: &Key, image: &Image) -> Outcome {
        let rowid: &[_] = if self.plan.by_rowid { key } else { &[] };
        value::bind(&mut self.insert, 1, rowid.iter().chain(image))?;
        match tolerate(self.insert.raw_execute())? {
            Ok(_) => self.verify(key, image),
            // The row is there already: a write that is done a second time, after a crash or on a log that went back.
            Err(_) if self.read(key)?.is_some() => {
                crate::sometimes!("apply: a row to insert is there already");
                self.update(key, image)
            }
            Err(message) => Ok(Err(message)),
        }
    }

    /// Reads the row back; takes it out again when it is not what it shall be.
    fn verify(&mut self, key: &Key, image: &Image) -> Outcome {
        value::bind(&mut self.select, 1, key)?;
        let mut rows = self.select.raw_query();
        let difference = match rows.next()? {
            None => Some("the row is not there under its key after it was written".to_owned()),
            Some(row) => {
                let mut difference = None;
                for (column, wanted) in image.iter().enumerate() {
                    if !value::is_stored_as(wanted, row.get_ref(column)?) {
                        let stored = value::read(row.get_ref(column)?);
                        difference = Some(format!("column {} stores {wanted} as {stored} here", column + 1));
                        break;
                    }
                }
                difference
            }
        };
        drop(rows);
        match difference {
            None => Ok(Ok(())),
            Some(message) => {
                // Not by `self.delete`: the stored key may differ from the wanted one.
                value::bind(&mut self.delete, 1, key)?;
                self.delete.raw_execute()?;
                Ok(Err(message))
            }
        }
    }
}

/// Tells a refusal of one row from an error of the whole transaction.
fn tolerate(result: rusqlite::Result<usize>) -> Result<Result<usize, String>, SqliteError> {
    match result {
        Ok(rows) => Ok(Ok(rows)),
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => {
                Ok(Err(error.to_string()))
            }
            Some(_) | None => Err(error.into()),
        },
    }
}
