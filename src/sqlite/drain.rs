//! Reads the outbox: marks, and the rows they name, in one snapshot.
//!
//! Invariants: a drain holds whole source transactions; every image is what the row was in the snapshot, bit for bit;
//! nothing is cleared that was not drained. An Insert mark on a key replaces the row that had this key iff a Hint for the
//! key stands in the run of Hint marks right before it.
//!
//! The triggers write hints before a row goes in, and foreign-key actions or the app's triggers may write other marks in
//! between. So the drain puts each hint that counts right before its Insert: it counts when it is the last mark about that
//! key before the Insert. (Had the row gone another way meanwhile, a mark would say so.)
//!
//! Callers: node; apply (the same inside its transaction).

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};

use super::outbox::{DELETE, INSERT, REPLACED, TABLE_STRIDE, UPDATE};
use super::{AppFile, FileMeta, SqliteError, meta, schema, steering, value};
use crate::model::identity::first_16;
use crate::model::{Bug, Key, OriginId, Value, planted};

/// The values of a row, in the order of [`crate::model::TableSchema::columns`].
pub type Image = Vec<Value>;

/// What an app statement did to one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkOp {
    /// A row came.
    Insert,
    /// A row changed, perhaps its key.
    Update,
    /// A row went.
    Delete,
    /// A row was in the way of the statement that follows; whether it went, its image tells.
    Hint,
}

/// One line of the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Position in the outbox; numbers are used again, so it means nothing beyond this drain.
    pub seq: i64,
    /// Random: the same mark is never logged twice.
    pub rid: [u8; 16],
    /// What happened.
    pub op: MarkOp,
    /// Table, by its name now.
    pub table: String,
    /// The row's key (for an update: after it).
    pub key: Key,
    /// The key before an update that changed it.
    pub old_key: Option<Key>,
    /// The machine's clock when the app wrote, ms since 1970.
    pub wall_ms: u64,
}

/// The outbox and all it names, in one snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Drain {
    /// In the order of the app's writes.
    pub marks: Vec<Mark>,
    /// Pass to [`AppFile::clear_marks`] when the marks are safe; 0 when there were none.
    pub through_seq: i64,
    /// The file's meta in the same snapshot.
    pub meta: FileMeta,
    /// Every row that a mark names, under old and new keys; `None` for one that is not there.
    pub images: BTreeMap<(String, Key), Option<Image>>,
    /// Marks about rows with a NULL in their declared key, by table: such rows cannot be told apart and stay local.
    pub unkeyed: BTreeMap<String, u64>,
    /// Marks about tables that are not replicated any more (dropped, excluded, or their key changed), by name.
    pub orphaned: BTreeMap<String, u64>,
}

/// The end of a drain: clearing checks that the outbox is still the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    through_seq: i64,
    rid: i64,
}

impl AppFile {
    /// Number of marks waiting.
    pub fn outbox_len(&self) -> Result<u64, SqliteError> {
        let count: i64 = meta::prepare(&self.connection, "SELECT count(*) FROM main._litemesh_outbox")?
            .query_row([], |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }

    /// Marks waiting by table, of the first hundred thousand.
    pub fn outbox_by_table(&self) -> Result<BTreeMap<String, u64>, SqliteError> {
        let sql = format!(
            "SELECT t.name, count(*) FROM (SELECT mark FROM main._litemesh_outbox ORDER BY seq LIMIT 100000) o \
             JOIN main._litemesh_tables t ON t.number = o.mark / {TABLE_STRIDE} GROUP BY t.name"
        );
        let mut statement = meta::prepare(&self.connection, &sql)?;
        let counts = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
        Ok(counts.collect::<Result<_, _>>()?)
    }

    /// Whether a mark waits; cheaper than counting.
    pub fn has_marks(&self) -> Result<bool, SqliteError> {
        has_marks(&self.connection)
    }

    /// Reads all marks and the rows they name in one read snapshot. Clears nothing.
    pub fn drain(&mut self) -> Result<Drain, SqliteError> {
        let transaction = self.connection.unchecked_transaction()?;
        let drained = self.drain_snapshot()?;
        drop(transaction);
        self.drained = drained.1;
        Ok(drained.0)
    }

    /// The same inside a transaction of the caller.
    pub(super) fn drain_snapshot(&self) -> Result<(Drain, Option<Drained>), SqliteError> {
        self.check_layout()?;
        let mut drain = Drain { meta: meta::read(&self.connection)?, ..Drain::default() };
        let (marks, last_rid) = self.read_marks(&mut drain)?;
        drain.marks = order_hints(marks);
        self.read_images(&mut drain)?;
        let drained = last_rid.map(|rid| Drained { through_seq: drain.through_seq, rid });
        Ok((drain, drained))
    }

    /// Fails unless what is known of the schema is true in the current snapshot.
    pub(super) fn check_layout(&self) -> Result<(), SqliteError> {
        if !self.installed {
            return Err(SqliteError::NotEnrolled);
        }
        if schema::schema_version(&self.connection)? != self.layout.version {
            return Err(SqliteError::SchemaChanged);
        }
        Ok(())
    }

    /// Says up to where the node's own chain stands in the log; noted in the file when marks are cleared next.
    pub fn note_logged(&mut self, origin: OriginId, seq: u64) {
        self.logged = Some((origin, seq));
    }

    /// Removes the marks of the last drain, up to and including `through_seq`, and only those.
    pub fn clear_marks(&mut self, through_seq: i64) -> Result<(), SqliteError> {
        if through_seq == 0 {
            return Ok(());
        }
        self.clear_checked(through_seq, self.drained)?;
        self.drained = None;
        Ok(())
    }

    fn clear_checked(&mut self, through_seq: i64, drained: Option<Drained>) -> Result<(), SqliteError> {
        let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        clear(&transaction, through_seq, drained, self.logged)?;
        if self.installed {
            steering::sweep(&transaction, &self.layout, &self.registry)?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// The end of the last drain whose marks were not cleared.
    pub fn last_drain(&self) -> Option<Drained> {
        self.drained
    }

    /// Removes the marks of a drain, later than [`AppFile::clear_marks`] would: nothing where the outbox holds others by now.
    pub fn clear_drained(&mut self, drained: Drained) -> Result<(), SqliteError> {
        match self.clear_checked(drained.through_seq, Some(drained)) {
            Ok(()) | Err(SqliteError::WentBack) => {
                self.drained = self.drained.filter(|newer| *newer != drained);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// All marks of the snapshot, with stored operations, and the `rid` of the last one.
    pub(super) fn read_marks(&self, drain: &mut Drain) -> Result<(Vec<RawMark>, Option<i64>), SqliteError> {
        let columns: Vec<String> =
            ["k", "o"].iter().flat_map(|c| (0..self.outbox_width).map(move |i| format!("{c}{i}"))).collect();
        let sql = format!("SELECT seq, rid, mark, at, {} FROM main._litemesh_outbox ORDER BY seq", columns.join(", "));
        let mut statement = meta::prepare(&self.connection, &sql)?;
        let mut rows = statement.query([])?;
        let placeholders = steering::leftovers(&self.connection, &self.registry)?;
        let (mut marks, mut last_rid) = (Vec::new(), None);
        while let Some(row) = rows.next()? {
            if planted(Bug::DrainSplits) && marks.len() == 2 {
                break;
            }
            drain.through_seq = row.get(0)?;
            last_rid = Some(row.get(1)?);
            let code: i64 = row.get(2)?;
            let (number, op) = (code / TABLE_STRIDE, code % TABLE_STRIDE);
            let entry = self.registry.get(&number);
            let plan = entry.filter(|entry| !entry.gone).and_then(|entry| self.layout.find(&entry.name).ok());
            let Some((table, plan)) = plan else {
                let name = entry.map_or_else(|| format!("number {number}"), |entry| entry.name.clone());
                *drain.orphaned.entry(name).or_default() += 1;
                continue;
            };
            let width = plan.key.len();
            let old = if op == UPDATE { width } else { 0 };
            let key = value::read_columns(row, 4, width)?;
            let old_key = value::read_columns(row, 4 + self.outbox_width, old)?;
            if placeholders.get(&table.name).is_some_and(|id| key[..] == [Value::Integer(*id)]) {
                continue;
            }
            let at: f64 = row.get(3)?;
            let mark = Mark {
                seq: drain.through_seq,
                rid: full_rid(row.get(1)?, drain.through_seq, code, at, key.iter().chain(&old_key)),
                op: MarkOp::Hint,
                table: table.name.clone(),
                key,
                old_key: None,
                wall_ms: wall_ms(at),
            };
            let old_key = (op == UPDATE).then_some(old_key);
            match settle_nulls(op, mark, old_key) {
                Ok(raw) => marks.push(raw),
                Err(table) => *drain.unkeyed.entry(table).or_default() += 1,
            }
        }
        Ok((marks, last_rid))
    }

    fn read_images(&self, drain: &mut Drain) -> Result<(), SqliteError> {
        let mut wanted: BTreeMap<&str, Vec<&Key>> = BTreeMap::new();
        for mark in &drain.marks {
            let keys = wanted.entry(&mark.table).or_default();
            keys.push(&mark.key);
            keys.extend(&mark.old_key);
        }
        // In ascending order throughout: the map is then built in one pass, and the table read from front to back.
        let mut images = Vec::new();
        for (table, mut keys) in wanted {
            keys.sort_unstable();
            keys.dedup();
            let mut reader = self.row_reader(table)?;
            for key in keys {
                images.push(((table.to_owned(), key.clone()), reader.read(key)?));
            }
        }
        drain.images = images.into_iter().collect();
        Ok(())
    }
}

/// The trigger draws 64 random bits; with all else that a mark holds they make 128 that no other mark has.
fn full_rid<'a>(random: i64, seq: i64, code: i64, at: f64, keys: impl Iterator<Item = &'a Value>) -> [u8; 16] {
    if planted(Bug::RidFromSequence) {
        return first_16(blake3::Hasher::new().update(&seq.to_be_bytes()));
    }
    let mut bytes = Vec::with_capacity(64);
    for number in [random, seq, code, at.to_bits() as i64] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    for value in keys {
        value.write_canonical(&mut bytes);
    }
    first_16(blake3::Hasher::new().update(&bytes))
}

/// Milliseconds since 1970 of a julian day; 0 before.
fn wall_ms(julian_day: f64) -> u64 {
    ((julian_day - 2_440_587.5) * 86_400_000.0).round().max(0.0) as u64
}

/// A mark whose operation may still be one of the two kinds of hint.
pub(super) struct RawMark {
    stored_op: i64,
    pub(super) mark: Mark,
}

/// A row with a NULL in its declared key has no identity: getting a full key is its birth, losing it its death. The
/// error is the table of a mark about such a row alone.
fn settle_nulls(op: i64, mut mark: Mark, old_key: Option<Key>) -> Result<RawMark, String> {
    let null = value::has_null(&mark.key);
    let (op, key, old_key) = match (op, null, old_key) {
        (UPDATE, false, Some(old)) if value::has_null(&old) => (INSERT, mark.key, None),
        (UPDATE, true, Some(old)) if !value::has_null(&old) => (DELETE, old, None),
        (_, true, _) => return Err(mark.table),
        (op, false, old) => {
            let changed = old.filter(|old| *old != mark.key);
            (op, mark.key, changed)
        }
    };
    mark.op = match op {
        INSERT => MarkOp::Insert,
        UPDATE => MarkOp::Update,
        DELETE => MarkOp::Delete,
        _ => MarkOp::Hint,
    };
    (mark.key, mark.old_key) = (key, old_key);
    Ok(RawMark { stored_op: op, mark })
}

/// Puts each hint about the very key of an Insert right before it, and drops those of rows that stayed.
fn order_hints(marks: Vec<RawMark>) -> Vec<Mark> {
    // For each key, the last mark about it: the position of a hint that may count, or nothing.
    let mut last: BTreeMap<(String, Key), Option<usize>> = BTreeMap::new();
    let mut before: BTreeMap<usize, usize> = BTreeMap::new();
    if marks.iter().any(|raw| raw.stored_op == REPLACED) {
        for (position, raw) in marks.iter().enumerate() {
            let name = (raw.mark.table.clone(), raw.mark.key.clone());
            if raw.stored_op == INSERT
                && let Some(Some(hint)) = last.get(&name)
            {
                before.insert(position, *hint);
            }
            last.insert(name, (raw.stored_op == REPLACED).then_some(position));
            if let Some(old) = &raw.mark.old_key {
                last.insert((raw.mark.table.clone(), old.clone()), None);
            }
        }
    }
    let hints: Vec<Option<Mark>> =
        marks.iter().map(|raw| (raw.stored_op == REPLACED).then(|| raw.mark.clone())).collect();
    let mut ordered = Vec::with_capacity(marks.len());
    for (position, raw) in marks.into_iter().enumerate() {
        if raw.stored_op == REPLACED {
            continue;
        }
        if let Some(hint) = before.get(&position).and_then(|hint| hints[*hint].clone()) {
            ordered.push(hint);
        }
        ordered.push(raw.mark);
    }
    ordered
}

pub(super) fn has_marks(connection: &Connection) -> Result<bool, SqliteError> {
    Ok(meta::prepare(connection, "SELECT 1 FROM main._litemesh_outbox LIMIT 1")?.exists([])?)
}

/// Clears within a transaction of the caller.
pub(super) fn clear(
    connection: &Connection,
    through_seq: i64,
    drained: Option<Drained>,
    logged: Option<(OriginId, u64)>,
) -> Result<(), SqliteError> {
    // The outbox of a file that went back in time holds other marks under the same numbers.
    if let Some(drained) = drained.filter(|drained| drained.through_seq == through_seq) {
        let rid = meta::prepare(connection, "SELECT rid FROM main._litemesh_outbox WHERE seq = ?1")?
            .query_row([through_seq], |row| row.get::<_, i64>(0))
            .optional()?;
        if rid != Some(drained.rid) {
            crate::sometimes!("drain: the outbox is another one than was drained");
            return Err(SqliteError::WentBack);
        }
    }
    meta::prepare(connection, "DELETE FROM main._litemesh_outbox WHERE seq <= ?1")?.execute([through_seq])?;
    logged.map_or(Ok(()), |logged| meta::write_logged(connection, logged))
}
