//! One step: look at the files, capture, apply, exchange: whatever is due now.
//!
//! Order: capture before apply, files before peers. Invariants: a step ends after a bounded amount of work (what remains
//! has a deadline of now); a busy file is tried again later and holds up nobody else; what the app wrote is durable before
//! peers are told, and they are told before its marks are cleared ([`Clearing`]). Caller: [`super::Node::handle`].

use std::collections::BTreeSet;

use super::apply::{Context, Outcome, apply, clean};
use super::capture::{Author, Ids, capture};
use super::chain::{Sealed, Sealing};
use super::database::Database;
use super::lag::{note_lag, take_over};
use super::tally::{Subject, Work};
use super::too_large::{is_about, too_large};
use super::{Effect, Node, NodeError, Now, standing};
use crate::log::{LogError, LogWrite};
use crate::merge::Evaluator;
use crate::merge::image::Shown;
use crate::merge::store::{AuditKind, Store};
use crate::model::{Bug, Cut, Head, Heads, RowId, counted, fits, planted};
use crate::sqlite::{AppFile, Drain, Mark, SqliteError};
use crate::wire::message::{Announcement, SignedEvent};

/// Batches applied in one step before other inputs get their turn.
const BATCHES_PER_STEP: usize = 2;

/// Captures between two attempts to apply, in one step, while the app writes all the time.
const DRAINS_PER_STEP: usize = 20;

/// Rows that SQLite refused are tried again this often, ms.
const RETRY_REFUSED_MS: u64 = 30_000;

impl Node {
    pub(super) fn step(&mut self, now: Now) -> Result<(), NodeError> {
        self.due = false;
        if self.leaves_files_alone(now) {
            self.step_peers(now)?;
            return self.save_receipts_when_due(now);
        }
        self.step_snapshots(now)?;
        // A file that must be recovered needs the rows of those it refers to.
        for position in self.parents_first() {
            match self.step_database(position, now) {
                Ok(()) => self.trouble_over(position, now),
                Err(NodeError::Sqlite(SqliteError::Busy)) => self.databases[position].was_busy(now),
                // The next look reads the schema, or the outbox, again.
                Err(NodeError::Sqlite(SqliteError::SchemaChanged | SqliteError::WentBack)) => {
                    self.databases[position].data_version = None;
                    self.databases[position].touch(now);
                }
                Err(NodeError::Sqlite(error)) => self.database_trouble(position, &error, now),
                // What the file waits for lies in a segment that is gone: the other files and the peers go on.
                Err(NodeError::Log(error @ LogError::Archived { .. })) => self.archive_trouble(position, &error, now),
                Err(error) => return Err(error),
            }
        }
        self.step_peers(now)?;
        self.compare_step(now)?;
        if self.relaxed && self.applied_all() {
            self.sync_state()?;
        }
        self.step_cleanup(now)?;
        self.verify_step(now)?;
        self.step_repair(now)?;
        self.save_receipts_when_due(now)
    }

    fn step_peers(&mut self, now: Now) -> Result<(), NodeError> {
        if self.exchange.says_hello(now) {
            self.refresh_content()?;
        }
        let standing = standing(&self.log, &self.heads, &self.membership, &self.settings, &self.databases, now);
        let effects = self.exchange.tick(&standing);
        self.effects.extend(effects);
        let effects = self.exchange.answer(&standing)?;
        self.effects.extend(effects);
        Ok(())
    }

    /// One file's trouble is told and tried again; the other files and the peers go on.
    pub(super) fn database_trouble(&mut self, position: usize, error: &SqliteError, now: Now) {
        let database = &mut self.databases[position];
        database.trouble = error.to_string();
        // After a failed read or sync nobody knows what of the file reached the disk: it is opened and recovered again.
        database.doubted |= error.is_of_disk();
        database.was_busy(now);
        // The next step looks at all of it again: only then it may say that the trouble is over.
        database.data_version = None;
        database.touch(now);
        let name = database.settings.name.clone();
        let work = if database.behind { Work::Apply } else { Work::Capture };
        self.tally.failed(work, Subject::Database(position), 0, format!("database: {error}"));
        self.alert(format!("database {name}: {error}"));
    }

    /// A file waits for an event that cannot be read at the moment.
    fn archive_trouble(&mut self, position: usize, error: &LogError, now: Now) {
        let database = &mut self.databases[position];
        database.trouble = error.to_string();
        database.was_busy(now);
        let name = database.settings.name.clone();
        self.alert(format!("database {name}: {error}"));
    }

    /// A file that was in trouble works again: nobody is alarmed any longer.
    fn trouble_over(&mut self, position: usize, now: Now) {
        let database = &mut self.databases[position];
        if database.trouble.is_empty() || database.is_busy(now) {
            return;
        }
        let (name, trouble) = (database.settings.name.clone(), std::mem::take(&mut database.trouble));
        let alert = format!("database {name}: {trouble}");
        tracing::info!("database {name} works again");
        self.alerts.retain(|told| *told != alert);
    }

    fn step_database(&mut self, position: usize, now: Now) -> Result<(), NodeError> {
        if self.databases[position].is_busy(now) {
            return Ok(());
        }
        if self.databases[position].doubted {
            self.open_again(position, now)?;
        }
        if !self.is_adopted(position, now)? {
            return Ok(());
        }
        self.clear_logged(position)?;
        if self.databases[position].poll_due(now) {
            self.look(position, now)?;
        }
        if now.mono_ms >= self.retry_refused_ms {
            self.retry_refused_ms = now.mono_ms + RETRY_REFUSED_MS;
            self.retry_refused(now)?;
        }
        self.scan_what_waited(position, now)?;
        self.do_chores(position, now)?;
        let (mut drains, mut rounds) = (0, BATCHES_PER_STEP);
        while rounds > 0 {
            rounds -= 1;
            if self.databases[position].behind {
                self.capture_referring_files(position, now)?;
            }
            let database = &self.databases[position];
            let waits = database.quiet_deadline_ms().is_some_and(|deadline| now.mono_ms < deadline);
            if !database.behind || waits {
                break;
            }
            let outcome = self.apply_batch(position, now)?;
            let database = &mut self.databases[position];
            match outcome {
                Outcome::Done => {
                    database.behind = false;
                }
                Outcome::Applied { rows } => {
                    self.tally.done(Work::Apply, Subject::Database(position), rows, 0, 0);
                    self.relaxed = true;
                    database.plan_chores(now);
                    self.verify.applied(&self.schemas[position].database);
                    self.wake_dirty(position)?;
                    self.tell_moved_accounts()?;
                    self.effects.push_back(Effect::Applied(position));
                }
                Outcome::DrainFirst if drains < DRAINS_PER_STEP => {
                    crate::sometimes!("step: an apply waits for what the app wrote meanwhile");
                    drains += 1;
                    self.capture(position, now)?;
                }
                // The events are in the log, and shown by the next round as one with what waited.
                Outcome::Merges(pairs) if drains < DRAINS_PER_STEP => {
                    crate::sometimes!("step: rows are merged before they are shown");
                    drains += 1;
                    self.merge_pairs(position, &pairs, now)?;
                    rounds += 1;
                }
                Outcome::DrainFirst | Outcome::NotQuiet | Outcome::Merges(_) => break,
                Outcome::Busy => {
                    crate::sometimes!("step: a file is busy");
                    database.was_busy(now);
                    break;
                }
            }
        }
        self.state_rules(position, now)
    }

    fn apply_batch(&mut self, position: usize, now: Now) -> Result<Outcome, NodeError> {
        let referring = self.referring_files(position);
        let (log, ranks, schemas) = (self.log.as_ref(), &self.ranks, self.schemas.as_slice());
        let (before, rest) = self.databases.split_at_mut(position);
        let Some((database, behind)) = rest.split_first_mut() else { return Ok(Outcome::Done) };
        let others =
            before.iter().enumerate().chain(behind.iter().enumerate().map(|(at, other)| (position + 1 + at, other)));
        let referring: Vec<_> = others.filter(|(at, _)| referring.contains(at)).map(|(_, other)| other).collect();
        apply(&Context { log, ranks, schemas, position, now }, database, &referring)
    }

    /// Looks whether the app wrote, changed its schema or had its file replaced.
    fn look(&mut self, position: usize, now: Now) -> Result<(), NodeError> {
        if self.databases[position].file.is_replaced() {
            self.reopen(position, now)?;
        }
        let database = &mut self.databases[position];
        let version = database.file.data_version()?;
        if database.data_version == Some(version) && !database.file.steering_pending() {
            return Ok(());
        }
        let version = match self.went_back(position)? {
            true => {
                crate::sometimes!("step: an older copy was written over the open file");
                self.open_again(position, now)?;
                self.databases[position].file.data_version()?
            }
            false => version,
        };
        self.refresh_schema(position, now)?;
        self.capture_and(Clearing::NextStep, position, now)?;
        self.databases[position].data_version = Some(version);
        Ok(())
    }

    /// Whether the open file is older than what the log noted of it: somebody wrote a backup over it.
    fn went_back(&self, position: usize) -> Result<bool, NodeError> {
        let database = &self.databases[position];
        let noted = self.log.read()?.cursor(&database.settings.name)?;
        match database.file.meta() {
            Ok(meta) => Ok(noted.is_some_and(|(_, epoch)| meta.epoch < epoch)),
            Err(SqliteError::NotEnrolled) => Ok(database.ready),
            Err(error) => Err(error.into()),
        }
    }

    /// Drains the outbox into the log. True when something was captured.
    pub(super) fn capture(&mut self, position: usize, now: Now) -> Result<bool, NodeError> {
        self.capture_and(Clearing::AtOnce, position, now)
    }

    fn capture_and(&mut self, clearing: Clearing, position: usize, now: Now) -> Result<bool, NodeError> {
        let drain = self.databases[position].file.drain()?;
        if drain.through_seq == 0 {
            return Ok(false);
        }
        // A row that this one refers to across files was written before it: it must be known first.
        for parent in self.referenced_files(position) {
            let earlier = self.databases[parent].file.drain()?;
            if earlier.through_seq > 0 {
                crate::sometimes!("capture: the file that this one refers to is drained first");
                self.take_drain(parent, &earlier, Clearing::AtOnce, now)?;
            }
        }
        self.take_drain(position, &drain, clearing, now)
    }

    /// Logs a drain and clears its marks, or leaves that to the next step.
    fn take_drain(&mut self, position: usize, drain: &Drain, clearing: Clearing, now: Now) -> Result<bool, NodeError> {
        self.databases[position].app_wrote(now);
        if planted(Bug::MarksClearedEarly) {
            self.databases[position].file.clear_marks(drain.through_seq)?;
        }
        let captured = self.log_drain(position, drain, Ids::Reused, now)?;
        if captured {
            self.tally.done(Work::Capture, Subject::Database(position), drain.marks.len(), 0, 0);
        }
        let database = &mut self.databases[position];
        // An apply begins with an empty outbox.
        if clearing == Clearing::NextStep && captured && !database.behind {
            database.logged = database.file.last_drain();
            self.due = true;
        } else {
            // Also what says nothing (hints of statements that changed no row) must go, or no apply would ever begin.
            database.file.clear_marks(drain.through_seq)?;
            database.was_free();
        }
        self.databases[position].plan_chores(now);
        self.tell_unkeyed(position, drain);
        self.tell_too_large(position, drain);
        self.find_evicted(position, drain, now)?;
        Ok(captured)
    }

    /// Clears the marks that the step before left standing while its effects went out.
    fn clear_logged(&mut self, position: usize) -> Result<(), NodeError> {
        let database = &mut self.databases[position];
        if let Some(drained) = database.logged {
            database.file.clear_drained(drained)?;
            database.logged = None;
            database.was_free();
        }
        Ok(())
    }

    /// Positions of the files that rows of this file refer to.
    fn referenced_files(&self, position: usize) -> Vec<usize> {
        let keys = self.schemas[position].tables.iter().flat_map(|table| &table.foreign_keys);
        let names: BTreeSet<&str> = keys.filter_map(|key| key.database.as_deref()).collect();
        (0..self.schemas.len())
            .filter(|other| *other != position && names.contains(self.schemas[*other].database.as_str()))
            .filter(|other| self.databases[*other].ready)
            .collect()
    }

    /// Before ids of this file may move, what refers to them across files is captured under the ids it was written with.
    fn capture_referring_files(&mut self, position: usize, now: Now) -> Result<(), NodeError> {
        for other in self.referring_files(position) {
            if self.databases[other].file.has_marks()? {
                self.capture(other, now)?;
            }
        }
        Ok(())
    }

    /// Positions of the files whose rows refer to this one's.
    fn referring_files(&self, position: usize) -> Vec<usize> {
        let ready = (0..self.schemas.len()).filter(|other| self.databases[*other].ready);
        ready.filter(|other| self.referenced_files(*other).contains(&position)).collect()
    }

    /// Rows that cannot be told apart stay on this server, and a person is told.
    fn tell_unkeyed(&mut self, position: usize, drain: &Drain) {
        for (table, count) in &drain.unkeyed {
            let name = self.databases[position].settings.name.clone();
            self.alert(format!(
                "{} to {name}.{table} {} NULL in the table's key: such rows cannot be told apart and stay on this server; give \
                 them a key",
                counted(*count, "write"),
                fits(*count, "has", "have")
            ));
        }
    }

    /// Checkpoints and full-text indexes. Both wait for another time when somebody holds the file.
    fn do_chores(&mut self, position: usize, now: Now) -> Result<(), NodeError> {
        let database = &mut self.databases[position];
        if !database.chores_due(now) {
            return Ok(());
        }
        let done = database.file.checkpoint().and_then(|_| database.file.rebuild_search());
        match done {
            Ok(_) => Ok(()),
            Err(SqliteError::Busy) => {
                database.plan_chores(now);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a drain's events to the log and takes over what the file shows. Marks that are logged already say nothing.
    pub(super) fn log_drain(&mut self, position: usize, drain: &Drain, ids: Ids, now: Now) -> Result<bool, NodeError> {
        let database = &mut self.databases[position];
        let marks = not_logged(database, drain);
        crate::sometimes!(marks.len() < drain.marks.len(), "capture: marks that are in the log already are skipped");
        if marks.is_empty() {
            return Ok(false);
        }
        let (name, origin) = (database.settings.name.clone(), self.chain.origin().id());
        let head = self.heads.get(&origin).copied();
        let mut write = self.log.write()?;
        let mut evaluator = Evaluator::new(&mut write, &self.ranks, &self.schemas, now.wall_ms);
        let author = Author {
            origin,
            first_seq: head.map_or(0, |head| head.seq) + 1,
            ids,
            offset_ms: self.clock.offset_ms(),
            wall_ms: now.wall_ms,
        };
        let captured = capture(&mut evaluator, &self.schemas, position, drain, &marks, author)?;
        let changed = !captured.parts.is_empty();
        // The file must be safe before the log says so.
        let epoch = if changed && !planted(Bug::NoFence) { database.file.fence()? } else { drain.meta.epoch };
        let said = others(&database.cursor, origin);
        let sealing = Sealing {
            database: &name,
            applied: delta(&said, &database.said),
            schema: self.schemas[position].fingerprint,
            stamp: self.clock.stamp(captured.last_wall_ms, now.wall_ms),
            note: "",
        };
        let sealed = self.chain.seal(head, captured.parts, sealing);
        let fresh = append_own(&mut evaluator, sealed)?;
        evaluator.settle()?;
        flag(&mut evaluator, captured.suspects)?;
        let left = take_captured(&mut evaluator, &name, &database.file, &captured.observed)?;
        evaluator.finish()?;
        let mut cursor = database.cursor.clone();
        // All that the outbox held, not the new ones only: the clearing that follows may fail. Marks that a scan made up
        // were never in the outbox.
        let outbox = drain.through_seq > 0;
        let rids: Vec<[u8; 16]> = drain.marks.iter().map(|mark| mark.rid).collect();
        if let Some((head, _)) = fresh.last() {
            crdts::CmRDT::apply(&mut cursor, crdts::Dot::new(origin, head.seq));
            if outbox {
                // Marks of earlier captures are gone for good: the fence made their clearing durable.
                write.drop_rids_through(&name, head.seq)?;
                write.put_rids(&name, head.seq, &rids)?;
            }
            database.note_adopted(&mut write, head.seq)?;
        }
        write.put_cursor(&name, &cursor, epoch)?;
        write.put_clock(self.clock.last())?;
        let commit = if planted(Bug::PublishedEarly) { LogWrite::commit_relaxed } else { LogWrite::commit_durable };
        commit(write)?;
        if let Some((head, _)) = fresh.last() {
            self.heads.insert(origin, *head);
            database.file.note_logged(origin, head.seq);
            database.said = said;
            if outbox {
                database.uncleared = rids.into_iter().collect();
            }
        }
        database.cursor = cursor;
        database.behind |= left;
        self.relaxed = false;
        self.wake_dirty(position)?;
        self.publish(&fresh, now);
        Ok(changed)
    }

    /// Shows fresh events to the peers: pushed to those that hold all before, announced to all.
    pub(super) fn publish(&mut self, fresh: &[(Head, SignedEvent)], now: Now) {
        let Some((last, _)) = fresh.last() else { return };
        let standing = standing(&self.log, &self.heads, &self.membership, &self.settings, &self.databases, now);
        let effects = self.exchange.push(fresh, &standing);
        // Who was pushed needs no announcement.
        let announce = effects.len() + 1 < self.membership.len();
        if !effects.is_empty() || announce {
            let bytes = fresh.iter().map(|(_, event)| event.bytes.len()).sum::<usize>() * effects.len();
            self.tally.done(Work::Announce, Subject::Node, fresh.len(), bytes, 0);
        }
        self.effects.extend(effects);
        if announce {
            let announcement = Announcement { heads: vec![*last], more: false };
            self.effects.push_back(Effect::Announce { frame: announcement.encode() });
        }
    }

    /// Rows of other databases whose references moved must be written there too.
    pub(super) fn wake_dirty(&mut self, except: usize) -> Result<(), NodeError> {
        let read = self.log.read()?;
        for (position, database) in self.databases.iter_mut().enumerate() {
            if position != except && !database.behind {
                database.behind = !read.dirty(&database.settings.name)?.is_empty();
                crate::sometimes!(database.behind, "step: an apply moves what rows of the other file refer to");
            }
        }
        Ok(())
    }

    /// Makes state durable that was committed without a sync.
    pub(super) fn sync_state(&mut self) -> Result<(), NodeError> {
        if self.relaxed {
            self.log.write()?.commit_durable()?;
            self.relaxed = false;
        }
        Ok(())
    }

    pub(super) fn correct_clock(&mut self) {
        let skews: Vec<i64> =
            self.exchange.peers.values().filter(|peer| peer.connected).filter_map(|peer| peer.skew_ms).collect();
        let before = self.clock.offset_ms();
        let offset = self.clock.correct(&skews);
        if offset != before && offset != 0 {
            crate::sometimes!("clock: peers correct this one's clock");
            self.alert(format!(
                "this machine's clock is wrong by {} s against its peers; new changes are stamped with the corrected time: \
                 set the clock",
                offset / 1000
            ));
        }
    }
}

/// When the marks of a drain are cleared. It takes a commit of the file, which peers need not wait for; marks that are in
/// the log and in the outbox say nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clearing {
    AtOnce,
    /// After this step's effects went out.
    NextStep,
}

/// The marks of a drain that are not in the log yet, and can be.
fn not_logged<'d>(database: &Database, drain: &'d Drain) -> Vec<&'d Mark> {
    let logged =
        |mark: &&Mark| drain.through_seq > 0 && database.uncleared.contains(&mark.rid) && !planted(Bug::RidsIgnored);
    let large = too_large(drain);
    drain.marks.iter().filter(|mark| !logged(mark) && !is_about(mark, &large)).collect()
}

/// Stores this node's fresh events and adds them to what is known; as peers get them. What was added is freed at once: a
/// bulk load of the app is in memory several times already.
pub(super) fn append_own(
    evaluator: &mut Evaluator<'_, LogWrite>,
    sealed: Vec<Sealed>,
) -> Result<Vec<(Head, SignedEvent)>, NodeError> {
    for one in &sealed {
        evaluator.store_mut().append(&one.event, &one.bytes, one.hash, Some(one.signature))?;
    }
    let mut fresh = Vec::with_capacity(sealed.len());
    for one in sealed {
        evaluator.integrate(&one.event)?;
        fresh.push(one.into_signed());
    }
    Ok(fresh)
}

/// Takes over what a drain saw of the file. True when rows are left whose image must be written.
fn take_captured(
    evaluator: &mut Evaluator<'_, LogWrite>,
    database: &str,
    file: &AppFile,
    observed: &[(RowId, Option<Shown>)],
) -> Result<bool, NodeError> {
    take_over(evaluator, observed)?;
    let left = clean_equal(evaluator, database)?;
    note_lag(evaluator, database, file, observed)?;
    Ok(left)
}

/// Notes writes that perhaps meant another row.
fn flag<S: Store>(evaluator: &mut Evaluator<'_, S>, suspects: Vec<(RowId, AuditKind)>) -> Result<(), S::Error> {
    for (row, kind) in suspects {
        if let Some(table) = evaluator.row(&row)?.map(|record| record.table) {
            evaluator.audit(table, row, kind)?;
        }
    }
    Ok(())
}

/// Forgets dirty rows whose image stands in the file already. True when some are left.
pub(super) fn clean_equal<S: Store>(evaluator: &mut Evaluator<'_, S>, database: &str) -> Result<bool, S::Error> {
    let mut left = false;
    for row in evaluator.store().dirty(database)? {
        if evaluator.presentation(&row)?.is_none() {
            clean(evaluator, &row)?;
        } else {
            left = true;
        }
    }
    Ok(left)
}

/// A cut without one origin's own entry.
pub(super) fn others(cut: &Cut, own: crate::model::OriginId) -> Cut {
    cut.iter().filter(|dot| *dot.actor != own).map(|dot| crdts::Dot::new(*dot.actor, dot.counter)).collect()
}

/// The entries of a cut that moved since an earlier one.
pub(super) fn delta(cut: &Cut, earlier: &Cut) -> Cut {
    let moved = cut.iter().filter(|dot| earlier.get(dot.actor) < dot.counter);
    moved.map(|dot| crdts::Dot::new(*dot.actor, dot.counter)).collect()
}

/// Heads by origin.
pub(super) fn heads_of(log: &crate::log::Log) -> Result<Heads, NodeError> {
    Ok(log.read()?.heads()?)
}
