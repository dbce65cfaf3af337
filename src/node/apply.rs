//! Apply: from events in the log to rows in one file, in one transaction.
//!
//! Steps, all under the file's write lock: nothing undrained may be left (local writes before remote ones); evaluate the
//! events that are ready; write final images; read back (in `sqlite`); move the cursor; commit the file, then the log's
//! state. The file is the truth about what it shows: its cursor is in the same transaction as its rows. Should the
//! machine die between the two commits, [`super::recover`] evaluates the same events again, without writing.
//! Invariants: an event (with those that continue it) is shown whole or not at all, except columns and tables this file
//! does not have yet; ids that people see move only in a quiet moment (R12); a row that SQLite refuses goes to the shelf
//! and holds up nothing. Caller: `node`.

use std::collections::{BTreeMap, BTreeSet};

use crdts::CmRDT;

use super::database::Database;
use super::whole::newest_whole;
use super::{NodeError, Now};
use crate::log::{Log, LogWrite};
use crate::merge::Evaluator;
use crate::merge::rank::Ranks;
use crate::merge::store::{Store, Took};
use crate::merge::unique::MergePair;
use crate::model::{Bug, Cut, DatabaseSchema, Event, Key, OriginId, RowId, Value, planted};
use crate::sqlite::{Apply, RowWrite, SqliteError};
use crate::wire::event::decode_stored;

/// At most about this many changes in one write transaction, so that the app's writers get in between.
const CHANGES_PER_APPLY: usize = 500;

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing is waiting.
    Done,
    /// Something was applied; there may be more.
    Applied {
        /// Rows whose image was written.
        rows: usize,
    },
    /// The app wrote meanwhile: drain first.
    DrainFirst,
    /// The file is locked by somebody else.
    Busy,
    /// Visible ids would move: not now.
    NotQuiet,
    /// Rows born with one key meet: they are to be merged first, so that the app never sees both.
    Merges(Vec<MergePair>),
}

/// What every step of an apply needs.
pub(super) struct Context<'c> {
    pub(super) log: &'c Log,
    pub(super) ranks: &'c Ranks,
    pub(super) schemas: &'c [DatabaseSchema],
    pub(super) position: usize,
    pub(super) now: Now,
}

/// Applies one batch. `referring`: files whose rows refer to this one's; what they marked was written with the ids of now.
pub(super) fn apply(
    context: &Context<'_>,
    database: &mut Database,
    referring: &[&Database],
) -> Result<Outcome, NodeError> {
    let name = &context.schemas[context.position].database;
    let mut limit = CHANGES_PER_APPLY;
    loop {
        let ready = ready_events(context.log, name, &database.cursor, None, limit)?;
        let dirty = !context.log.read()?.dirty(name)?.is_empty();
        if ready.is_empty() && !dirty {
            database.caught_up();
            return Ok(Outcome::Done);
        }
        let may_move = database.may_move_ids(context.now);
        let cursor = database.cursor.clone();
        let transaction = match database.file.begin_apply() {
            Ok(transaction) => transaction,
            Err(SqliteError::Busy) => return Ok(Outcome::Busy),
            Err(error) => return Err(error.into()),
        };
        if transaction.has_marks()? {
            return Ok(Outcome::DrainFirst);
        }
        for other in referring {
            if other.file.has_marks()? {
                return Ok(Outcome::DrainFirst);
            }
        }
        match apply_in(context, transaction, &ready, cursor, may_move)? {
            Attempt::Committed { cursor, rows } => {
                database.cursor = cursor;
                database.was_free();
                return Ok(Outcome::Applied { rows });
            }
            Attempt::Merges(pairs) => return Ok(Outcome::Merges(pairs)),
            Attempt::Moves { before: 0 } => {
                crate::sometimes!("apply: ids wait for a quiet moment");
                database.wait_for_quiet(context.now);
                return Ok(Outcome::NotQuiet);
            }
            // Everything before the event that moves ids can be shown now.
            Attempt::Moves { before } => {
                crate::sometimes!("apply: what moves no id is shown before what does");
                limit = ready[..before].iter().map(|event| event.changes.len()).sum();
            }
        }
    }
}

enum Attempt {
    /// Nothing was written: these rows are one.
    Merges(Vec<MergePair>),
    Committed {
        cursor: Cut,
        rows: usize,
    },
    /// Ids would move; the events before this one move none.
    Moves {
        before: usize,
    },
}

fn apply_in(
    context: &Context<'_>,
    mut transaction: Apply<'_>,
    ready: &[Event],
    mut cursor: Cut,
    may_move: bool,
) -> Result<Attempt, NodeError> {
    let schema = &context.schemas[context.position];
    let mut write = context.log.write()?;
    let mut evaluator = Evaluator::new(&mut write, context.ranks, context.schemas, context.now.wall_ms);
    let waiting: BTreeSet<RowId> = evaluator.store().dirty(&schema.database)?.into_iter().collect();
    if may_move {
        for event in ready {
            evaluator.integrate(event)?;
        }
        evaluator.settle()?;
        let mut suspects = evaluator.collided();
        suspects.extend(waiting);
        let pairs = evaluator.mergeable(&suspects)?;
        if !pairs.is_empty() {
            return Ok(Attempt::Merges(pairs));
        }
    } else {
        // One capture at a time, to find the last one that moves no visible id.
        if moves_ids(&mut evaluator, &waiting, &waiting)? {
            return Ok(Attempt::Moves { before: 0 });
        }
        let mut settled = 0;
        for (position, event) in ready.iter().enumerate() {
            evaluator.integrate(event)?;
            if event.header.continues && position + 1 < ready.len() {
                continue;
            }
            let dirtied = evaluator.settle()?;
            let met = evaluator.collided();
            if moves_ids(&mut evaluator, &dirtied, &met)? {
                return Ok(Attempt::Moves { before: settled });
            }
            settled = position + 1;
        }
    }
    let rows = write_rows(&mut evaluator, &mut transaction, (context.log, &schema.database, context.now.wall_ms))?;
    evaluator.finish()?;
    for event in ready {
        cursor.apply(crdts::Dot::new(event.header.origin.id(), event.header.seq));
        note_held(&mut write, schema, event)?;
    }
    let epoch = transaction.commit(&cursor)?;
    write.put_cursor(&schema.database, &cursor, epoch)?;
    write.commit_relaxed()?;
    Ok(Attempt::Committed { cursor, rows })
}

/// Whether showing these rows would change an id that people see, or `met` are to be merged: that takes one of two ids
/// away.
fn moves_ids(
    evaluator: &mut Evaluator<'_, LogWrite>,
    rows: &BTreeSet<RowId>,
    met: &BTreeSet<RowId>,
) -> Result<bool, NodeError> {
    for row in rows {
        if evaluator.moves_id(row)? {
            return Ok(true);
        }
    }
    Ok(!evaluator.mergeable(met)?.is_empty())
}

/// Writes all dirty rows of the database; how many. Rows that SQLite refuses are shelved, and those that need them with them.
fn write_rows(
    evaluator: &mut Evaluator<'_, LogWrite>,
    transaction: &mut Apply<'_>,
    (log, database, seen_ms): (&Log, &str, u64),
) -> Result<usize, NodeError> {
    let mut refused: BTreeSet<RowId> = BTreeSet::new();
    let mut rows = 0;
    loop {
        let dirty = evaluator.store().dirty(database)?;
        let (mut written, mut writes) = (Vec::with_capacity(dirty.len()), Vec::with_capacity(dirty.len()));
        for row in &dirty {
            // A row that was refused is already out of the file.
            let change = evaluator.presentation(row)?.filter(|change| !refused.contains(row) || change.new.is_some());
            if let Some(change) = change {
                written.push(*row);
                writes.push(RowWrite { table: change.table, old_key: change.old_key, new: change.new });
            }
        }
        note_taken(evaluator, &written, &writes, seen_ms)?;
        let refusals = transaction.write(&writes)?;
        rows += writes.len() - refusals.len();
        let failed: BTreeSet<usize> = refusals.iter().map(|refusal| refusal.index).collect();
        // First the rows that leave their keys, then those that take them over.
        for (row, _) in written.iter().zip(&writes).filter(|(_, write)| write.old_key.is_some()) {
            evaluator.mark_shown(row, None)?;
        }
        for (index, (row, write)) in written.iter().zip(&writes).enumerate() {
            let shown = write.new.as_ref().filter(|_| !failed.contains(&index));
            evaluator.mark_shown(row, shown)?;
        }
        for row in &dirty {
            clean(evaluator, row)?;
        }
        if refusals.is_empty() {
            return Ok(rows);
        }
        for refusal in &refusals {
            let row = written[refusal.index];
            let mixed = ["CHECK constraint", "NOT NULL constraint"].iter().any(|what| refusal.message.contains(what));
            let tried = evaluator.row(&row)?.is_none_or(|record| record.whole.is_some());
            if mixed
                && !tried
                && let Some(cells) = newest_whole(&log.read()?, evaluator, &row)?
            {
                crate::sometimes!("apply: the newest whole row is shown instead of a mix that SQLite refuses");
                evaluator.fall_back(&row, cells, &refusal.message)?;
                continue;
            }
            crate::sometimes!("apply: SQLite refuses a row");
            refused.insert(row);
            if !planted(Bug::RefusedDropped) {
                evaluator.refuse(&row, &refusal.message)?;
            }
        }
        evaluator.settle()?;
    }
}

/// Ids that mean another row from here on are remembered: a form that was open may still write to them.
fn note_taken(
    evaluator: &mut Evaluator<'_, LogWrite>,
    rows: &[RowId],
    writes: &[RowWrite],
    at_ms: u64,
) -> Result<(), NodeError> {
    let left = |write: &RowWrite| write.old_key.as_ref() != write.new.as_ref().map(|(key, _)| key);
    let before: BTreeMap<(&str, &Key), RowId> = rows
        .iter()
        .zip(writes)
        .filter(|(_, write)| left(write))
        .filter_map(|(row, write)| Some(((&*write.table, write.old_key.as_ref()?), *row)))
        .collect();
    if before.is_empty() {
        return Ok(());
    }
    for (row, write) in rows.iter().zip(writes) {
        let Some((key, _)) = &write.new else { continue };
        let taken = before.get(&(&*write.table, key)).copied().filter(|other| other != row);
        if let (Some(from), [Value::Integer(id)]) = (taken, key.as_slice()) {
            crate::sometimes!("apply: an id means another row from here on");
            evaluator.note_took(row, Took { id: *id, from, at_ms })?;
        }
    }
    Ok(())
}

/// Takes a row off the list of those whose image must be written.
pub(super) fn clean<S: Store>(evaluator: &mut Evaluator<'_, S>, row: &RowId) -> Result<(), S::Error> {
    let Some(table) = evaluator.row(row)?.map(|record| record.table) else { return Ok(()) };
    evaluator.store_mut().set_dirty(table, *row, false)
}

/// Notes an event of which this file cannot show everything yet.
pub(super) fn note_held(write: &mut LogWrite, schema: &DatabaseSchema, event: &Event) -> Result<(), NodeError> {
    let mut missing = Vec::new();
    for (position, entry) in event.tables.iter().enumerate() {
        let Some(table) = schema.table(&entry.table) else {
            if !schema.left_out.iter().any(|(name, _)| name.eq_ignore_ascii_case(&entry.table)) {
                missing.push(entry.table.clone());
            }
            continue;
        };
        if entry.columns.iter().all(|column| table.column(column).is_some()) {
            continue;
        }
        let unknown = |column: &u32| table.column(&entry.columns[*column as usize]).is_none();
        for change in event.changes.iter().filter(|change| change.table() as usize == position) {
            let columns: Vec<u32> = match change {
                crate::model::Change::Insert { cells, .. } => cells.iter().map(|(column, _)| *column).collect(),
                crate::model::Change::Update { cells, .. } => cells.iter().map(|(column, _, _)| *column).collect(),
                _ => Vec::new(),
            };
            if let Some(column) = columns.iter().find(|column| unknown(column)) {
                missing.push(format!("{}.{}", entry.table, entry.columns[*column as usize]));
                break;
            }
        }
    }
    if !missing.is_empty() {
        write.put_held(&schema.database, event.header.origin.id(), event.header.seq, &missing.join(", "))?;
    }
    Ok(())
}

/// Events of a database that the file does not show yet and whose causes it shows, in causal order, about `limit` changes
/// (at least one capture); none beyond `through`.
pub(super) fn ready_events(
    log: &Log,
    database: &str,
    cursor: &Cut,
    through: Option<&Cut>,
    limit: usize,
) -> Result<Vec<Event>, NodeError> {
    let read = log.read()?;
    // Of an origin in the cursor whose history has not come there may be a tail.
    let mut origins: BTreeSet<OriginId> = read.heads()?.into_keys().collect();
    origins.extend(cursor.dots.keys().copied());
    let mut cut = cursor.clone();
    let mut ready: Vec<Event> = Vec::new();
    let mut changes = 0;
    loop {
        let before = ready.len();
        for origin in &origins {
            while changes < limit {
                let group = next_capture(&read, database, origin, &cut, through)?;
                let Some(group) = group else { break };
                let size: usize = group.iter().map(|event| event.changes.len()).sum();
                if changes > 0 && changes + size > limit {
                    return Ok(ready);
                }
                changes += size;
                if let Some(last) = group.last() {
                    cut.apply(crdts::Dot::new(*origin, last.header.seq));
                }
                ready.extend(group);
            }
        }
        if ready.len() == before || changes >= limit {
            return Ok(ready);
        }
    }
}

/// The next whole capture of an origin behind a cut, if its causes are in the cut.
fn next_capture(
    read: &crate::log::LogRead,
    database: &str,
    origin: &OriginId,
    cut: &Cut,
    through: Option<&Cut>,
) -> Result<Option<Vec<Event>>, NodeError> {
    let mut group: Vec<Event> = Vec::new();
    let mut from = cut.get(origin) + 1;
    loop {
        let Some((seq, stored)) = read.next_of_database(origin, from, database)? else { return Ok(None) };
        if through.is_some_and(|through| seq > through.get(origin)) {
            return Ok(None);
        }
        if group.is_empty() {
            let causes = read.cut_of(database, *origin, seq)?;
            if !planted(Bug::CauseNotAwaited)
                && causes.iter().any(|dot| dot.actor != origin && dot.counter > cut.get(dot.actor))
            {
                crate::sometimes!("apply: an event waits for its causes");
                return Ok(None);
            }
        }
        let event = decode_stored(&stored.bytes)?;
        from = seq + 1;
        let last = !event.header.continues;
        group.push(event);
        if last {
            return Ok(Some(group));
        }
    }
}
