//! Verification: does the app's file show what the log says it shows?
//!
//! A **run** looks at one database at one [`Tier`]; runs wait in line and go one at a time, a page per tick.
//! ```text
//! waiting ─▶ running: per table its passes ([`super::verify_run`]) ─▶ suspects judged and healed ([`super::drift`]) ─▶ done
//!               ▲  a page, then a pause so that the share of a core holds              │ failed: the file is gone, or a
//!               └──────────────────────────────────────────────────────────────────────┘ table cannot be read
//! ```
//! Invariants:
//! - What is compared is what the file shows *now*, in one read snapshot with the marks of its outbox, against what the log's
//!   state noted when it was captured or applied ([`crate::merge::store::Row::image_hash`]), not against what it shall show
//!   later. So a row that the app has just written (marked), that is captured but not yet written back, or whose apply is
//!   pending, never looks like drift; such rows are set aside and looked at again.
//! - A difference becomes drift only when a second look, after a capture, still sees it; and is on disk, with both images,
//!   before anything is written over.
//! - A read of the file is one page: at most [`PAGE_ROWS`]`.1` rows or a mebibyte, fewer when pages take long. Between
//!   pages the node pauses so that `share` of a core is not exceeded; while the file lags behind the log it only waits.
//! - Deterministic: time comes with inputs, nothing is drawn.
//!
//! | durable when it stopped            | what the next start does                                                |
//! |------------------------------------|-------------------------------------------------------------------------|
//! | order given                        | the run is in the list, it waits its turn again                         |
//! | place of the running one (each 5 s)| goes on there; what it had found and not judged is found again           |
//! | drift record, nothing healed yet   | the row differs still: the next run finds it, and uses the same record  |
//! | healed, the record does not say so | looks at the row once and notes it                                      |
//!
//! What it does not prove: that this log has all events (heads tell), and that two nodes show the same (fingerprints tell).
//! Callers: `step`, daemon, http, simulations.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::drift::Confirm;
use super::verify_run::Run;
use super::verify_schedule::{Schedule, VerifySettings};
use super::{Node, NodeError, Now};
use crate::log::{LogRead, drift::RUNS_KEPT_MAX};
use crate::model::{DriftAction, DriftKind, Key, OriginId, RunRecord, RunState, Tier, Value, counted};
use crate::sqlite::SqliteError;

/// Rows on a page: fewest, first, most.
pub(super) const PAGE_ROWS: (usize, usize, usize) = (20, 200, 2_000);

/// Pages shall take about this long, ms.
const PAGE_MS: u64 = 8;

/// What a row costs where no clock tells (the two times are of one millisecond), µs.
const ROW_MICROS: u64 = 8;

/// While a file lags behind the log, or is busy, it is looked at again after this, ms.
const WAIT_MS: u64 = 100;

/// Numbers of rows are compared at most this often by themselves, ms, however often an apply settles.
const SESSION_MS: u64 = 60_000;

/// Runs that may wait.
const WAITING_MAX: usize = 32;

/// The place of a run is kept this often, ms.
const KEEP_MS: u64 = 5_000;

/// A run that cannot go on for so long fails, ms.
const STUCK_MS: u64 = 600_000;

/// Drift records read at the start to go on with.
const OPEN_MAX: usize = 2_000;

/// All that the node remembers of verifications.
#[derive(Default)]
pub(super) struct Verify {
    pub(super) settings: VerifySettings,
    waiting: VecDeque<RunRecord>,
    pub(super) run: Option<Run>,
    /// When a tier last began at a database, ms since 1970.
    last: BTreeMap<(String, Tier), u64>,
    /// Databases that were applied to since their rows were counted.
    applied: BTreeSet<String>,
    /// Not earlier, monotonic ms.
    next_ms: u64,
    /// A page ended then, and had so many rows: the next tick tells how long it took.
    timed: Option<(u64, u64)>,
    /// Since when the run cannot go on, monotonic ms.
    stuck_since_ms: Option<u64>,
    kept_at_ms: u64,
    last_run: u64,
    pub(super) last_drift: u64,
    /// Differences that wait for a person: (database, table, key) → record.
    pub(super) open: BTreeMap<(String, String, Key), u64>,
    /// Damaged events: by origin and number, the run and the drift record.
    pub(super) damaged: BTreeMap<(OriginId, u64), (u64, u64)>,
    /// Peers are asked for them then, monotonic ms; and how often they were.
    pub(super) ask_ms: u64,
    pub(super) asked: u64,
    /// Healed rows that were not seen equal yet.
    pub(super) confirm: VecDeque<Confirm>,
    /// Steps of the schedule are looked at when local time may say something new, monotonic ms.
    look_ms: u64,
}

impl Verify {
    /// What the log keeps of earlier verifications.
    pub(super) fn load(read: &LogRead, now: Now) -> Result<Verify, NodeError> {
        let mut verify = Verify { last_run: read.last_run()?, last_drift: read.last_drift()?, ..Verify::default() };
        for drift in read.newest_drift(OPEN_MAX)? {
            let at = (drift.database.clone(), drift.table.clone(), drift.key.clone());
            match (drift.action, drift.healed_ms) {
                (DriftAction::Waits, _) => {
                    if let (DriftKind::Event, [Value::Text(origin), Value::Integer(seq)]) = (drift.kind, &at.2[..]) {
                        let origin = data_encoding::HEXLOWER.decode(origin).ok().and_then(|id| id.try_into().ok());
                        let damaged = origin.map(|id| ((OriginId(id), seq.unsigned_abs()), (drift.run, drift.number)));
                        verify.damaged.extend(damaged);
                    }
                    verify.open.insert(at, drift.number);
                }
                (_, None) => verify.confirm.push_back(Confirm::of(&drift)),
                (_, Some(_)) => {}
            }
        }
        let place = read.run_place()?;
        for run in read.newest_runs(RUNS_KEPT_MAX)? {
            verify.last.insert((run.database.clone(), run.tier), run.started_ms);
            match &run.state {
                RunState::Waiting => verify.waiting.push_back(run),
                RunState::Running => verify.run = Some(Run::resume(run, place.as_ref())),
                RunState::Done | RunState::Failed(_) => {}
            }
        }
        verify.next_ms = now.mono_ms;
        Ok(verify)
    }

    /// An apply has written rows of a database.
    pub(super) fn applied(&mut self, database: &str) {
        if self.settings.count == Schedule::AfterSession {
            self.applied.insert(database.to_string());
        }
    }

    /// When the next tick is wanted, monotonic ms.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        let works = self.run.is_some() || !self.waiting.is_empty() || !self.confirm.is_empty();
        let scheduled = Tier::ALL.into_iter().any(|tier| *self.settings.schedule(tier) != Schedule::Off);
        let timed = self.timed.map(|(at, _)| at);
        let works = works.then_some(self.next_ms);
        let asks = (!self.damaged.is_empty()).then_some(self.ask_ms);
        let scheduled = scheduled.then_some(self.look_ms.max(self.next_ms));
        [timed, works, asks, scheduled].into_iter().flatten().min()
    }

    /// The time of the page before is known now: how long the next one may be, and when.
    fn pace(&mut self, now: Now) {
        let Some((at_ms, rows)) = self.timed.take() else { return };
        let took_ms = now.mono_ms.saturating_sub(at_ms);
        let micros = (took_ms * 1_000).max(rows * ROW_MICROS);
        let by_hand = self.run.as_ref().is_some_and(|run| run.record.by_hand);
        let share = u64::from(if by_hand { self.settings.share_by_hand } else { self.settings.share }).clamp(1, 100);
        let pause_ms = (micros * (100 - share) / share).div_ceil(1_000);
        self.next_ms = now.mono_ms + pause_ms;
        if let Some(run) = &mut self.run {
            run.record.longest_ms = run.record.longest_ms.max(took_ms);
            run.page_rows = if took_ms > PAGE_MS {
                (run.page_rows / 2).max(PAGE_ROWS.0)
            } else if took_ms * 3 < PAGE_MS {
                (run.page_rows * 5 / 4).min(PAGE_ROWS.2)
            } else {
                run.page_rows
            };
        }
    }

    /// Time that was spent beside the pages counts as one.
    pub(super) fn spent(&mut self, rows: u64, now: Now) {
        let before = self.timed.map_or(0, |(_, rows)| rows);
        self.timed = Some((now.mono_ms, before + rows));
    }

    /// Nothing before this, monotonic ms.
    pub(super) fn put_off(&mut self, until_ms: u64) {
        self.next_ms = self.next_ms.max(until_ms);
        // The pause is no time that a page took.
        self.timed = None;
    }

    /// The tier that is due at some database, the deepest first: it finds what the lighter ones would.
    fn due(&mut self, databases: &[String], now: Now, offset_minutes: i32) -> Option<(String, Tier)> {
        for tier in Tier::ALL.into_iter().rev() {
            for database in databases {
                let at = (database.clone(), tier);
                let last = *self.last.entry(at).or_insert(now.wall_ms);
                // A clock that was set back must not put it off for ever.
                let last = last.min(now.wall_ms);
                let schedule = self.settings.schedule(tier);
                let after_session = *schedule == Schedule::AfterSession
                    && self.applied.contains(database)
                    && now.wall_ms >= last + SESSION_MS;
                let by_clock = schedule.next_after(last, offset_minutes).is_some_and(|due| due <= now.wall_ms);
                if after_session || by_clock {
                    return Some((database.clone(), tier));
                }
            }
        }
        None
    }
}

impl Node {
    /// Takes over `[verify]`. Without this call nothing is verified by itself.
    pub fn set_verification(&mut self, settings: VerifySettings) {
        self.verify.settings = settings;
        self.due = true;
    }

    /// Orders a verification, of one database or of all. Returns the numbers of the runs; they are in the list when this
    /// returns. `repair`: differences are healed although the settings say "ask", dropped tables are made again.
    pub fn order_verification(
        &mut self,
        database: Option<&str>,
        tier: Tier,
        repair: bool,
        now: Now,
    ) -> Result<Vec<u64>, NodeError> {
        let names: Vec<String> = match database {
            Some(name) => vec![self.schemas[self.position_of(name)?].database.clone()],
            None => self.schemas.iter().map(|schema| schema.database.clone()).collect(),
        };
        if self.verify.waiting.len() + names.len() > WAITING_MAX {
            return Err(NodeError::Invalid(format!(
                "{} verifications wait already: let them end first (`litemesh verify --list`)",
                self.verify.waiting.len()
            )));
        }
        let mut write = self.log.write()?;
        let mut numbers = Vec::new();
        for database in names {
            let run = self.verify.new_run(database, tier, (true, repair), now);
            write.put_run(&run)?;
            numbers.push(run.number);
            self.verify.waiting.push_back(run);
        }
        write.commit_durable()?;
        self.verify.next_ms = now.mono_ms;
        self.due = true;
        Ok(numbers)
    }

    /// The newest verifications, oldest of them first, those that wait or run among them.
    pub fn verify_runs(&self, limit: usize) -> Result<Vec<RunRecord>, NodeError> {
        let mut runs = self.log.read()?.newest_runs(limit)?;
        if let Some(run) = &self.verify.run {
            match runs.iter_mut().find(|known| known.number == run.record.number) {
                Some(known) => *known = run.record.clone(),
                None => runs.push(run.record.clone()),
            }
        }
        runs.sort_by_key(|run| run.number);
        Ok(runs)
    }

    /// One page of what is due. Called at the end of every step.
    pub(super) fn verify_step(&mut self, now: Now) -> Result<(), NodeError> {
        self.verify.pace(now);
        self.ask_for_damaged(now);
        if now.mono_ms < self.verify.next_ms {
            return Ok(());
        }
        if self.fault.is_some() {
            self.verify.next_ms = now.mono_ms + WAIT_MS;
            return Ok(());
        }
        self.confirm_healed(now)?;
        if self.verify.run.is_none() {
            self.begin_run(now);
        }
        let Some(run) = &self.verify.run else { return Ok(()) };
        let name = run.record.database.clone();
        let Ok(position) = self.position_of(&name) else {
            return self.end_run(RunState::Failed("the database is not replicated any more".to_string()), now);
        };
        if !self.can_be_verified(position, now) {
            self.verify.next_ms = now.mono_ms + WAIT_MS;
            let since = *self.verify.stuck_since_ms.get_or_insert(now.mono_ms);
            if now.mono_ms > since + STUCK_MS {
                let state = self.databases[position].trouble.clone();
                let why = if state.is_empty() { "the file lags behind the log" } else { &state };
                return self.end_run(RunState::Failed(format!("no turn for ten minutes: {why}")), now);
            }
            return Ok(());
        }
        self.verify.stuck_since_ms = None;
        match self.run_step(position, now) {
            Ok(()) => self.keep_place(now),
            Err(NodeError::Sqlite(SqliteError::Busy | SqliteError::WentBack | SqliteError::SchemaChanged)) => {
                crate::sometimes!("verify: the file is busy or its schema moves, the page is read again");
                self.databases[position].data_version = None;
                self.databases[position].touch(now);
                self.verify.next_ms = now.mono_ms + WAIT_MS;
                Ok(())
            }
            Err(NodeError::Sqlite(error)) => self.end_run(RunState::Failed(error.to_string()), now),
            Err(error) => Err(error),
        }
    }

    /// Whether file and log stand still towards each other, but for the app.
    fn can_be_verified(&self, position: usize, now: Now) -> bool {
        let database = &self.databases[position];
        database.ready
            && !database.behind
            && !database.doubted
            && database.lost.is_none()
            && database.adopt_by_ms.is_none()
            && database.enrolling.is_none()
            && !database.is_busy(now)
    }

    fn begin_run(&mut self, now: Now) {
        let next = match self.verify.waiting.pop_front() {
            Some(waiting) => Some(waiting),
            None if now.mono_ms < self.verify.look_ms => None,
            None => {
                self.verify.look_ms = now.mono_ms + 1_000;
                let names: Vec<String> = self.schemas.iter().map(|schema| schema.database.clone()).collect();
                let due = self.verify.due(&names, now, self.exchange.pace.offset_minutes);
                due.map(|(database, tier)| self.verify.new_run(database, tier, (false, false), now))
            }
        };
        let Some(mut record) = next else { return };
        record.state = RunState::Running;
        record.started_ms = now.wall_ms;
        self.verify.last.insert((record.database.clone(), record.tier), now.wall_ms);
        self.verify.applied.remove(&record.database);
        self.verify.kept_at_ms = now.mono_ms;
        self.verify.run = Some(Run::new(record));
    }

    /// Ends the present run: its record is on disk when this returns.
    pub(super) fn end_run(&mut self, state: RunState, now: Now) -> Result<(), NodeError> {
        let Some(run) = self.verify.run.take() else { return Ok(()) };
        let mut record = run.record;
        record.state = state;
        record.ended_ms = Some(now.wall_ms);
        // The time counts from the end, so that a run that takes long does not follow upon itself.
        self.verify.last.insert((record.database.clone(), record.tier), now.wall_ms);
        let mut write = self.log.write()?;
        write.put_run(&record)?;
        write.put_run_place(None)?;
        write.prune_drift()?;
        write.commit_durable()?;
        self.relaxed = false;
        self.tell_run(&record);
        Ok(())
    }

    /// Keeps record and place of a run that takes long.
    fn keep_place(&mut self, now: Now) -> Result<(), NodeError> {
        let Some(run) = self.verify.run.as_ref().filter(|_| now.mono_ms >= self.verify.kept_at_ms + KEEP_MS) else {
            return Ok(());
        };
        let mut write = self.log.write()?;
        write.put_run(&run.record)?;
        write.put_run_place(Some(&run.place()))?;
        write.commit_durable()?;
        self.relaxed = false;
        self.verify.kept_at_ms = now.mono_ms;
        Ok(())
    }

    /// What a person should hear of a run.
    fn tell_run(&mut self, run: &RunRecord) {
        if let RunState::Failed(why) = &run.state {
            self.alert(format!(
                "the verification of database {} ({}) could not end: {why}",
                run.database,
                run.tier.word()
            ));
        }
        if run.drift == 0 {
            return;
        }
        let healed = match run.drift - run.healed.min(run.drift) {
            0 => "all healed".to_string(),
            left => format!("{} healed, {left} not: `litemesh verify --repair`", run.healed),
        };
        let rows = counted(run.drift, "difference");
        self.alert(format!(
            "database {}: {rows} between the file and the log, found by a verification ({}) that began at {}; {healed}. \
             Each with its cause: `litemesh drift`",
            run.database,
            run.tier.word(),
            super::query::rfc3339(run.started_ms)
        ));
    }
}

impl Verify {
    fn new_run(&mut self, database: String, tier: Tier, (by_hand, repair): (bool, bool), now: Now) -> RunRecord {
        self.last_run += 1;
        RunRecord {
            number: self.last_run,
            database,
            tier,
            by_hand,
            repair,
            state: RunState::Waiting,
            started_ms: now.wall_ms,
            ended_ms: None,
            tables: 0,
            rows: 0,
            rows_wanted: 0,
            drift: 0,
            healed: 0,
            unsettled: 0,
            ranges: Vec::new(),
            longest_ms: 0,
            notes: Vec::new(),
        }
    }
}
