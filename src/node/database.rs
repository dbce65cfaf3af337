//! One replicated database as the node sees it between two steps.
//!
//! Invariant: `cursor` is what the file shows (and the log's state has evaluated); it changes only together with the file.
//! Caller: the other files of `node`.

use std::collections::BTreeSet;

use super::{DatabaseSettings, Now};
use crate::model::Cut;
use crate::sqlite::{AppFile, Drained};

/// Rows read in one step of a scan.
pub(super) const SCAN_PAGE: usize = 2_000;

/// Between two statements of the schema that the log keeps.
pub(super) const SCHEMA_SEPARATOR: &str = ";\n\u{1e}";

/// Under this name the log keeps the schema that a database's rows can be rebuilt in.
pub(super) fn schema_key(database: &str) -> String {
    format!("schema:{database}")
}

/// Look at the file at least this often, ms: file notifications can be lost.
const SAFETY_POLL_MS: u64 = 250;

/// After a notification look again every millisecond for this long: it comes before the commit is visible.
const BURST_MS: u64 = 15;

/// Ids that people can see move only after this long without writers, ms (R12).
const QUIET_MS: u64 = 2_000;

/// … but waiting for a quiet moment ends after this long, ms.
const QUIET_WAIT_MS_MAX: u64 = 30_000;

/// Checkpoints and full-text indexes follow writes after this, ms: off the path of the app and of apply.
const CHORES_MS: u64 = 1_000;

/// Waits after a busy file: from, to, ms.
const BUSY_WAIT_MS: (u64, u64) = (2, 500);

/// A database and what the node remembers of it in memory.
pub(super) struct Database {
    pub(super) settings: DatabaseSettings,
    pub(super) file: AppFile,
    /// What the file shows.
    pub(super) cursor: Cut,
    /// The cut that this origin's last event of this database said, its own entry left out.
    pub(super) said: Cut,
    /// Marks that are in the log and perhaps still in the outbox, by the random id of each.
    pub(super) uncleared: BTreeSet<[u8; 16]>,
    /// While it is adopted: the marks that its births take in. The note that it is enrolled is written with the births.
    pub(super) enrolling: Option<Vec<[u8; 16]>>,
    /// The marks up to here are in the log, and are cleared in the next step: the peers hear of them first.
    pub(super) logged: Option<Drained>,
    /// `PRAGMA data_version` when the file was last drained.
    pub(super) data_version: Option<i64>,
    /// What the file shows and the log lost (its data directory went back): until it has come again, rows that the log does
    /// not know are no news.
    pub(super) lost: Option<Cut>,
    /// The file waits to be adopted: until the cluster is heard, or this, monotonic ms.
    pub(super) adopt_by_ms: Option<u64>,
    /// Recovered: its outbox can be drained.
    pub(super) ready: bool,
    /// What the config states of its rules was compared with the cluster's.
    pub(super) rules_stated: bool,
    /// Events may be waiting in the log.
    pub(super) behind: bool,
    /// Why the database needs a person, in words; empty when all is well.
    pub(super) trouble: String,
    /// The file's storage failed: it must be opened and recovered before it is used again.
    pub(super) doubted: bool,
    /// When the last write of the app was captured, monotonic ms.
    last_write_ms: Option<u64>,
    next_poll_ms: u64,
    burst_until_ms: u64,
    /// Since when an apply waits for a quiet moment, and (once the wait is over) what may be applied without one.
    waiting_since_ms: Option<u64>,
    busy_until_ms: u64,
    busy_wait_ms: u64,
    chores_at_ms: Option<u64>,
}

impl Database {
    pub(super) fn new(settings: DatabaseSettings, file: AppFile, now: Now) -> Database {
        Database {
            settings,
            file,
            cursor: Cut::default(),
            said: Cut::default(),
            uncleared: BTreeSet::new(),
            enrolling: None,
            logged: None,
            data_version: None,
            lost: None,
            adopt_by_ms: None,
            ready: false,
            rules_stated: false,
            behind: true,
            trouble: String::new(),
            doubted: false,
            // Nobody knows when the app wrote last: ids wait as if it was now.
            last_write_ms: Some(now.mono_ms),
            next_poll_ms: 0,
            burst_until_ms: 0,
            waiting_since_ms: None,
            busy_until_ms: 0,
            busy_wait_ms: BUSY_WAIT_MS.0,
            chores_at_ms: None,
        }
    }

    /// Starts a burst of looks at the file.
    pub(super) fn touch(&mut self, now: Now) {
        self.burst_until_ms = now.mono_ms + BURST_MS;
        self.next_poll_ms = now.mono_ms;
    }

    /// Whether it is time to look at the file; plans the next look.
    pub(super) fn poll_due(&mut self, now: Now) -> bool {
        if now.mono_ms < self.next_poll_ms {
            return false;
        }
        let in_burst = now.mono_ms < self.burst_until_ms;
        self.next_poll_ms = now.mono_ms + if in_burst { 1 } else { SAFETY_POLL_MS };
        true
    }

    /// Notes that the app wrote.
    pub(super) fn app_wrote(&mut self, now: Now) {
        self.last_write_ms = Some(now.mono_ms);
    }

    /// Whether visible ids may move now: no writer for a while, or waited long enough.
    pub(super) fn may_move_ids(&self, now: Now) -> bool {
        let quiet = self.last_write_ms.is_none_or(|last| now.mono_ms >= last + QUIET_MS);
        quiet || self.waiting_since_ms.is_some_and(|since| now.mono_ms >= since + QUIET_WAIT_MS_MAX)
    }

    /// Ids would move and may not: the wait begins, or goes on. Only then; what moves no id never waits.
    pub(super) fn wait_for_quiet(&mut self, now: Now) {
        self.waiting_since_ms.get_or_insert(now.mono_ms);
    }

    /// Ends the wait for a quiet moment: everything that waited is applied.
    pub(super) fn caught_up(&mut self) {
        self.waiting_since_ms = None;
    }

    /// Whether an apply waits for a quiet moment.
    pub(super) fn waits_for_quiet(&self) -> bool {
        self.waiting_since_ms.is_some()
    }

    /// When a waiting apply shall be tried again, monotonic ms.
    pub(super) fn quiet_deadline_ms(&self) -> Option<u64> {
        let since = self.waiting_since_ms?;
        let quiet = self.last_write_ms.map_or(since, |last| last + QUIET_MS);
        Some(quiet.min(since + QUIET_WAIT_MS_MAX))
    }

    /// The file was busy: wait, twice as long each time.
    pub(super) fn was_busy(&mut self, now: Now) {
        // Spread by the file's position in time, not by dice: retries of two files rarely coincide.
        let jitter = self.settings.name.bytes().map(u64::from).sum::<u64>() % (self.busy_wait_ms / 2 + 1);
        self.busy_until_ms = now.mono_ms + self.busy_wait_ms + jitter;
        self.busy_wait_ms = (self.busy_wait_ms * 2).min(BUSY_WAIT_MS.1);
    }

    /// Takes over how long the one before it waited: a file that cannot be recovered (a full disk) is not opened again every
    /// few milliseconds.
    pub(super) fn waits_like(&mut self, before: &Database) {
        self.busy_wait_ms = before.busy_wait_ms;
    }

    /// The file could be written.
    pub(super) fn was_free(&mut self) {
        self.busy_wait_ms = BUSY_WAIT_MS.0;
    }

    /// Whether writing must still wait.
    pub(super) fn is_busy(&self, now: Now) -> bool {
        now.mono_ms < self.busy_until_ms
    }

    /// Something was written: chores follow, at most once in a while.
    pub(super) fn plan_chores(&mut self, now: Now) {
        self.chores_at_ms.get_or_insert(now.mono_ms + CHORES_MS);
    }

    /// Plans the next look at what a file waits for.
    pub(super) fn look_again(&mut self, now: Now) {
        self.next_poll_ms = now.mono_ms + SAFETY_POLL_MS;
    }

    /// Whether chores are due; plans no more.
    pub(super) fn chores_due(&mut self, now: Now) -> bool {
        let due = self.chores_at_ms.is_some_and(|at| now.mono_ms >= at);
        if due {
            self.chores_at_ms = None;
        }
        due
    }

    /// When the next step is due, monotonic ms.
    pub(super) fn deadline_ms(&self, now_ms: u64) -> u64 {
        if self.adopt_by_ms.is_some() {
            // A moment, not a span from now: who asks for it again and again must not push it away.
            return self.next_poll_ms.max(self.busy_until_ms);
        }
        // Nothing is done with a busy file before its wait is over, whatever is due: asking earlier would be a busy loop.
        if self.busy_until_ms > now_ms {
            return self.busy_until_ms;
        }
        let mut deadline = self.chores_at_ms.map_or(self.next_poll_ms, |chores| chores.min(self.next_poll_ms));
        if self.behind {
            deadline = deadline.min(self.quiet_deadline_ms().unwrap_or(now_ms));
        }
        deadline
    }
}
