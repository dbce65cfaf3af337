//! Small runs of the node become few rows: what follows within a moment is one burst, one row of history.
//!
//! States of a burst: open (in memory) → written, when nothing was added for [`QUIET_MS`] or it is [`LONG_MS`] old. The
//! status of its kind is written every second while it goes on, so that it is always current. An idle node writes nothing;
//! one that works all day writes a row a minute per kind and subject. Failures are bursts of their own.
//! Invariant: every run noted is counted exactly once, in status, reliability and history; memory is bounded by the kinds
//! and subjects there are. What a crash takes away is the count of at most the last minute's history, never of the work.
//! Caller: [`super::recorder`].

use std::collections::BTreeMap;

use rusqlite::{Transaction, params};

use super::store::{MonitorError, Store, moment, note_pattern, signed};
use super::{errors, reliability};
use crate::model::NodeId;
use crate::node::tally::{Ran, Subject, Work};

/// A burst ends when nothing was added for so long.
const QUIET_MS: u64 = 1_500;

/// … or when it is so old.
const LONG_MS: u64 = 60_000;

/// Status follows this much later.
pub(super) const STATUS_MS: u64 = 1_000;

/// How much is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// What is due.
    Due,
    /// Status and reliability as well: somebody looks.
    Status,
    /// Everything: it is the end.
    All,
}

/// What a burst is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    kind: &'static str,
    subject: String,
    server: Option<NodeId>,
    failed: bool,
}

/// Runs that ended alike.
#[derive(Clone, Debug, Default)]
struct Sum {
    from_ms: u64,
    to_ms: u64,
    runs: u64,
    records: u64,
    bytes: u64,
    took_us: u64,
    error: String,
}

impl Sum {
    fn add(&mut self, other: &Sum) {
        if self.runs == 0 {
            self.from_ms = other.from_ms;
        }
        self.to_ms = other.to_ms;
        self.runs += other.runs;
        self.records += other.records;
        self.bytes += other.bytes;
        self.took_us += other.took_us;
        self.error.clone_from(&other.error);
    }

    fn seconds(&self) -> f64 {
        self.took_us as f64 / 1e6
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Bursts {
    /// Not in status and reliability yet.
    fresh: BTreeMap<Key, Sum>,
    fresh_since_ms: Option<u64>,
    /// Not in history yet.
    open: BTreeMap<Key, Sum>,
}

impl Bursts {
    /// Adds what the node did in one turn that took so many microseconds. What it did several of shares them by records.
    pub(super) fn note(&mut self, ran: Vec<Ran>, databases: &[String], took_us: u64, now_ms: u64) {
        let weight = |one: &Ran| if one.work.is_timed_by_node() { 0 } else { one.records + one.runs };
        let whole: u64 = ran.iter().map(weight).sum();
        for one in ran {
            let share = took_us * weight(&one) / whole.max(1);
            let sum = Sum {
                from_ms: now_ms,
                to_ms: now_ms,
                runs: one.runs,
                records: one.records,
                bytes: one.bytes,
                took_us: if one.work.is_timed_by_node() { one.took_ms * 1000 } else { share },
                error: one.error.clone().unwrap_or_default(),
            };
            let (subject, server) = match one.subject {
                Subject::Node => (String::new(), None),
                Subject::Database(position) => (databases.get(position).cloned().unwrap_or_default(), None),
                Subject::Peer(peer) => (String::new(), Some(peer)),
            };
            let key = Key { kind: Work::word(one.work), subject, server, failed: one.error.is_some() };
            self.fresh.entry(key).or_default().add(&sum);
            self.fresh_since_ms.get_or_insert(now_ms);
        }
    }

    /// When something is to be written.
    pub(super) fn due_ms(&self) -> Option<u64> {
        let fresh = self.fresh_since_ms.map(|since| since + STATUS_MS);
        let open = self.open.values().map(|sum| (sum.to_ms + QUIET_MS).min(sum.from_ms + LONG_MS)).min();
        [fresh, open].into_iter().flatten().min()
    }

    /// Writes what is due, and more where asked for. After an error nothing is lost: it is written by the next call.
    pub(super) fn write(&mut self, store: &mut Store, extent: Extent, now_ms: u64) -> Result<(), MonitorError> {
        let all = extent == Extent::All;
        let status_due = extent != Extent::Due || self.fresh_since_ms.is_some_and(|since| since + STATUS_MS <= now_ms);
        let mut open = self.open.clone();
        if status_due {
            for (key, sum) in &self.fresh {
                open.entry(key.clone()).or_default().add(sum);
            }
        }
        let ended = |(key, sum): &(Key, Sum)| {
            let quiet = sum.to_ms + QUIET_MS <= now_ms && (status_due || !self.fresh.contains_key(key));
            all || quiet || sum.from_ms + LONG_MS <= now_ms
        };
        let (done, open): (BTreeMap<_, _>, BTreeMap<_, _>) = open.into_iter().partition(ended);
        let fresh: Vec<(&Key, &Sum)> = self.fresh.iter().filter(|_| status_due).collect();
        if fresh.is_empty() && done.is_empty() {
            return Ok(());
        }
        let mut names: BTreeMap<NodeId, (i64, String)> = BTreeMap::new();
        for node in fresh.iter().map(|(key, _)| *key).chain(done.keys()).filter_map(|key| key.server) {
            let named = (store.server(&node, now_ms)?, store.server_name(&node, now_ms)?);
            names.insert(node, named);
        }
        let instance = store.instance.clone();
        let transaction = store.connection.transaction()?;
        for (key, sum) in fresh {
            write_status(&transaction, key, sum, named(&names, key), &moment(now_ms))?;
        }
        for (key, sum) in &done {
            write_history(&transaction, key, sum, named(&names, key), &instance)?;
        }
        transaction.commit()?;
        if status_due {
            self.fresh.clear();
            self.fresh_since_ms = None;
        }
        self.open = open;
        Ok(())
    }
}

/// Subject and server number of a burst.
fn named<'n>(names: &'n BTreeMap<NodeId, (i64, String)>, key: &'n Key) -> (&'n str, Option<i64>) {
    match key.server.and_then(|node| names.get(&node)) {
        Some((number, name)) => (name, Some(*number)),
        None => (&key.subject, None),
    }
}

fn write_status(
    transaction: &Transaction<'_>,
    key: &Key,
    sum: &Sum,
    (subject, server): (&str, Option<i64>),
    now: &str,
) -> Result<(), MonitorError> {
    let (began, seconds) = (moment(sum.to_ms), sum.seconds() / sum.runs.max(1) as f64);
    if key.failed {
        let sql = "INSERT INTO sync_status (sync_type, subject, last_attempt_timestamp, last_sync_status, last_error_class, \
                   last_error_message, failed_sync_count, created_at, updated_at) VALUES (?1, ?2, ?3, 'error', ?4, ?5, ?6, ?7, ?7) \
                   ON CONFLICT (sync_type, subject) DO UPDATE SET last_attempt_timestamp = ?3, last_sync_status = 'error', \
                   last_error_class = ?4, last_error_message = ?5, failed_sync_count = failed_sync_count + ?6, updated_at = ?7";
        let error = errors::kept(&sum.error);
        let values = params![key.kind, subject, began, errors::class(&error), error, signed(sum.runs), now];
        transaction.prepare_cached(sql)?.execute(values)?;
        note_pattern(transaction, (subject, key.kind), &sum.error, sum.runs, now)?;
    } else {
        let sql = "INSERT INTO sync_status (sync_type, subject, last_sync_timestamp, last_attempt_timestamp, last_sync_status, \
                   successful_sync_count, last_records_processed, total_records_processed, last_duration_seconds, created_at, \
                   updated_at) VALUES (?1, ?2, ?3, ?3, 'success', ?4, ?5, ?5, ?6, ?7, ?7) \
                   ON CONFLICT (sync_type, subject) DO UPDATE SET last_sync_timestamp = ?3, last_attempt_timestamp = ?3, \
                   last_sync_status = 'success', successful_sync_count = successful_sync_count + ?4, \
                   last_records_processed = ?5, total_records_processed = total_records_processed + ?5, \
                   last_duration_seconds = ?6, updated_at = ?7";
        let values = params![key.kind, subject, began, signed(sum.runs), signed(sum.records), seconds, now];
        transaction.prepare_cached(sql)?.execute(values)?;
    }
    if let Some(server) = server {
        let outcome = reliability::Outcome {
            runs: sum.runs,
            seconds: sum.seconds(),
            error: key.failed.then_some(sum.error.as_str()),
            at_ms: sum.to_ms,
        };
        reliability::note(transaction, server, key.kind, &outcome)?;
    }
    Ok(())
}

fn write_history(
    transaction: &Transaction<'_>,
    key: &Key,
    sum: &Sum,
    (subject, server): (&str, Option<i64>),
    instance: &str,
) -> Result<(), MonitorError> {
    let sql = "INSERT INTO sync_history (sync_type, subject, server_id, sync_timestamp, completed_at, status, runs, \
               records_processed, records_failed, bytes, duration_seconds, error_class, error_message, service_instance) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
    let error = key.failed.then(|| errors::kept(&sum.error));
    transaction.prepare_cached(sql)?.execute(params![
        key.kind,
        subject,
        server,
        moment(sum.from_ms),
        moment(sum.to_ms),
        if key.failed { "error" } else { "success" },
        signed(sum.runs),
        signed(sum.records),
        if key.failed { signed(sum.runs) } else { 0 },
        signed(sum.bytes),
        sum.seconds(),
        error.as_deref().map(errors::class),
        error,
        instance,
    ])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(work: Work, subject: Subject, records: u64, error: Option<&str>) -> Ran {
        let took_ms = if work.is_timed_by_node() { 40 } else { 0 };
        Ran { work, subject, runs: 1, records, bytes: 10 * records, took_ms, error: error.map(str::to_string) }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("monitor.db"), "pit:1", 0).unwrap();
        (directory, store)
    }

    fn lines(store: &Store, sql: &str) -> Vec<String> {
        let mut statement = store.connection.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    const HISTORY: &str = "SELECT sync_type || ' ' || subject || ' ' || status || ' ' || runs || ' ' || records_processed || ' ' || \
         duration_seconds FROM sync_history ORDER BY id";

    #[test]
    fn a_busy_minute_is_one_row_and_the_status_is_always_current() {
        let (_directory, mut store) = store();
        let mut bursts = Bursts::default();
        let names = ["scouting".to_string()];
        for second in 0..30u64 {
            let now_ms = 100_000 + second * 1_000;
            bursts.note(vec![ran(Work::Capture, Subject::Database(0), 2, None)], &names, 500_000, now_ms);
            bursts.write(&mut store, Extent::Due, now_ms + STATUS_MS).unwrap();
            let count =
                lines(&store, "SELECT successful_sync_count || ' ' || total_records_processed FROM sync_status");
            assert_eq!(count, [format!("{} {}", second + 1, 2 * (second + 1))]);
            assert!(lines(&store, HISTORY).is_empty());
        }
        bursts.write(&mut store, Extent::Due, bursts.due_ms().unwrap()).unwrap();
        assert_eq!(lines(&store, HISTORY), ["capture scouting success 30 60 15.0"]);
        assert!(bursts.due_ms().is_none());
    }

    #[test]
    fn bursts_without_a_pause_are_cut_and_failures_stand_apart() {
        let (_directory, mut store) = store();
        let mut bursts = Bursts::default();
        let peer = Subject::Peer(NodeId([7; 32]));
        for second in 0..70u64 {
            let failed = (second == 30).then_some("timeout: no answer");
            bursts.note(vec![ran(Work::Pull, peer, 1, failed)], &[], 0, second * 1_000);
            bursts.write(&mut store, Extent::Due, second * 1_000 + 999).unwrap();
        }
        bursts.write(&mut store, Extent::All, 70_000).unwrap();
        let history = lines(&store, HISTORY);
        let runs = |line: &str| line.split(' ').nth(3).unwrap().parse::<u64>().unwrap();
        assert_eq!(history.iter().map(|line| runs(line)).sum::<u64>(), 70, "{history:?}");
        assert_eq!(history.iter().filter(|line| line.contains(" error 1 ")).count(), 1, "{history:?}");
        assert_eq!(history.len(), 3, "{history:?}");
        let reliable = "SELECT operation_type || ' ' || success_count || ' ' || failure_count || ' ' || last_error || ' ' || \
                        round(avg_duration, 3) FROM sync_reliability";
        assert_eq!(lines(&store, reliable), ["pull 69 1 timeout: no answer 0.04"]);
        assert_eq!(lines(&store, "SELECT pattern || count FROM error_patterns"), ["timeout: no answer1"]);
    }

    #[test]
    fn one_turn_is_shared_out_by_what_was_done_in_it() {
        let (_directory, mut store) = store();
        let mut bursts = Bursts::default();
        let (one, two) = (Subject::Database(0), Subject::Database(1));
        let turn = vec![ran(Work::Capture, one, 2, None), ran(Work::Apply, two, 5, None)];
        bursts.note(turn, &["a".to_string(), "b".to_string()], 900_000, 5);
        bursts.write(&mut store, Extent::All, 6).unwrap();
        let seconds = lines(&store, HISTORY);
        assert_eq!(seconds, ["apply b success 1 5 0.6", "capture a success 1 2 0.3"]);
    }
}
