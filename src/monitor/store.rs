//! Runs in `monitor.db`: begun, alive, ended, reaped, forgotten.
//!
//! Invariant: one thread calls this; every change of a run is one transaction that moves history and status together; a
//! run that ended is never touched again but by the retention. Of two exclusive runs of one kind and subject at most one is
//! open: the lease. It holds on this node (`monitor.db` is not replicated). Caller: [`super::recorder`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde_json::Value;

use super::{errors, reliability, schema};
use crate::model::NodeId;

/// Longest kind, subject and instance, in characters.
const NAME_MAX: usize = 100;

/// Bytes of a run's metadata, at most.
const METADATA_BYTES_MAX: usize = 32 * 1024;

/// How long a run may promise to give no sign of life.
const LEASE_MS: (u64, u64) = (1_000, 7 * 86_400_000);

/// After a start, runs of other processes get this long to say that they live.
const START_GRACE_MS: u64 = 60_000;

/// Rows of history that are kept, whatever the retention says.
const HISTORY_ROWS_MAX: i64 = 500_000;

/// Why the monitor did not do what it was asked. No error changes anything.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// Another run of the same kind and subject holds the lease. It passes when that run ends.
    #[error("{kind} is run already by {by}, since {since} (run {id}): wait for it, or allow parallel runs")]
    Held {
        /// The kind.
        kind: String,
        /// Who.
        by: String,
        /// Since when.
        since: String,
        /// Its number.
        id: i64,
    },
    /// The run ended before: it was completed, or failed, or gave no sign of life for too long.
    #[error("run {id} has ended: {status}{why}")]
    Ended {
        /// Its number.
        id: i64,
        /// How.
        status: String,
        /// Its error, with a colon before it.
        why: String,
    },
    /// There is no such run.
    #[error("there is no run {0}: see `litemesh track status`")]
    Unknown(i64),
    /// The caller's words cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// `monitor.db` failed. A retry helps when somebody held it for too long.
    #[error("monitor.db: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// Nobody takes requests any more, or too many wait. A retry helps in the second case.
    #[error("run tracking is stopping or has too many requests waiting: ask again in a second")]
    Busy,
}

/// A run that begins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunBegin {
    /// Kind, like `import` or `verify`.
    pub kind: String,
    /// What it is about; empty: the node as a whole.
    pub subject: String,
    /// Which process runs it; empty: this one.
    pub instance: String,
    /// No other run of this kind and subject may be open.
    pub exclusive: bool,
    /// It counts as interrupted after so long without a sign of life; `None`: it ends with this process.
    pub lease_ms: Option<u64>,
    /// Records to do, where that is known.
    pub total: Option<u64>,
    /// Anything, as a JSON object.
    pub metadata: Option<Value>,
    /// The server it is about.
    pub server: Option<NodeId>,
}

/// A sign of life. All parts are optional.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunProgress {
    /// Records done so far.
    pub records: Option<u64>,
    /// Records to do.
    pub total: Option<u64>,
    /// What it is at.
    pub message: Option<String>,
    /// Merged into the run's metadata, key by key.
    pub metadata: Option<Value>,
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunEnd {
    /// Records done; `None`: what the last progress said.
    pub records: Option<u64>,
    /// Records that could not be done.
    pub failed: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// How far the job has come, in its own words; taken with a success only.
    pub watermark: Option<String>,
    /// Merged into the run's metadata, key by key.
    pub metadata: Option<Value>,
    /// Why it failed; `None`: it did not.
    pub error: Option<String>,
}

/// What a cleanup removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Rows of history.
    pub runs: u64,
    /// Rows of everything else.
    pub others: u64,
}

/// The file.
pub struct Store {
    pub(super) connection: Connection,
    path: PathBuf,
    /// Name of this process in `service_instance`.
    pub(super) instance: String,
    /// Server numbers that are known.
    pub(super) servers: BTreeMap<NodeId, i64>,
}

impl Store {
    /// Opens the file; runs that a dead program left open are failed.
    pub fn open(path: &Path, instance: &str, now_ms: u64) -> Result<Store, MonitorError> {
        let (connection, aside) = schema::open(path, now_ms)?;
        if let Some(aside) = aside {
            tracing::warn!(aside = %aside.display(), "monitor.db could not be used and was set aside; a new one begins");
        }
        let mut store =
            Store { connection, path: path.to_path_buf(), instance: instance.to_string(), servers: BTreeMap::new() };
        store.interrupt_own(now_ms)?;
        Ok(store)
    }

    /// After a failure that says that the file is damaged: a new one.
    pub(super) fn open_again(&mut self, now_ms: u64) -> Result<(), MonitorError> {
        *self = Store::open(&self.path.clone(), &self.instance.clone(), now_ms)?;
        Ok(())
    }

    /// Runs of this node that nobody ended: the program died.
    fn interrupt_own(&mut self, now_ms: u64) -> Result<(), MonitorError> {
        let open = self.open_runs("lease_until IS NULL", params![])?;
        for id in open {
            let words = "interrupted: the program ended before the run did".to_string();
            self.end(id, RunEnd { error: Some(words), ..RunEnd::default() }, now_ms)?;
        }
        let grace = moment(now_ms + START_GRACE_MS);
        let sql = "UPDATE sync_history SET lease_until = ?1 WHERE status = 'in_progress' AND lease_until < ?1";
        self.connection.execute(sql, [grace])?;
        Ok(())
    }

    fn open_runs(&self, wanted: &str, values: impl rusqlite::Params) -> Result<Vec<i64>, MonitorError> {
        let sql = format!("SELECT id FROM sync_history WHERE status = 'in_progress' AND {wanted} ORDER BY id");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map(values, |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// A server's number in this file.
    pub(super) fn server(&mut self, node: &NodeId, now_ms: u64) -> Result<i64, MonitorError> {
        if let Some(number) = self.servers.get(node) {
            return Ok(*number);
        }
        let id = node.to_string();
        let insert =
            "INSERT INTO servers (node_id, name, updated_at) VALUES (?1, ?2, ?3) ON CONFLICT (node_id) DO NOTHING";
        self.connection.execute(insert, params![id, id.get(..8).unwrap_or(&id), moment(now_ms)])?;
        let number =
            self.connection.query_row("SELECT server_id FROM servers WHERE node_id = ?1", [&id], |row| row.get(0))?;
        self.servers.insert(*node, number);
        Ok(number)
    }

    /// Takes over the names of servers.
    pub fn name_servers(&mut self, names: &[(NodeId, String)], now_ms: u64) -> Result<(), MonitorError> {
        for (node, name) in names {
            let number = self.server(node, now_ms)?;
            let sql = "UPDATE servers SET name = ?2, updated_at = ?3 WHERE server_id = ?1 AND name <> ?2";
            self.connection.execute(sql, params![number, name, moment(now_ms)])?;
        }
        Ok(())
    }

    /// The name of a server, as far as it was told.
    pub(super) fn server_name(&mut self, node: &NodeId, now_ms: u64) -> Result<String, MonitorError> {
        let number = self.server(node, now_ms)?;
        let sql = "SELECT name FROM servers WHERE server_id = ?1";
        Ok(self.connection.query_row(sql, [number], |row| row.get(0))?)
    }

    /// Begins a run; its number.
    pub fn begin(&mut self, run: &RunBegin, now_ms: u64) -> Result<i64, MonitorError> {
        check_name("sync_type", &run.kind, true)?;
        check_name("subject", &run.subject, false)?;
        check_name("service_instance", &run.instance, false)?;
        let metadata = metadata_text(run.metadata.as_ref())?;
        self.reap(now_ms)?;
        let server = match &run.server {
            Some(node) => Some(self.server(node, now_ms)?),
            None => None,
        };
        let instance = if run.instance.is_empty() { &self.instance } else { &run.instance };
        let now = moment(now_ms);
        let lease = run.lease_ms.map(|lease| lease.clamp(LEASE_MS.0, LEASE_MS.1));
        let transaction = self.connection.transaction()?;
        if let Some((id, by, since)) = holder(&transaction, run)? {
            return Err(MonitorError::Held { kind: run.kind.clone(), by, since, id });
        }
        transaction.execute(
            "INSERT INTO sync_history (sync_type, subject, server_id, sync_timestamp, status, records_total, sync_metadata, \
             service_instance, exclusive, heartbeat_at, lease_until) VALUES (?1, ?2, ?3, ?4, 'in_progress', ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                run.kind,
                run.subject,
                server,
                now,
                run.total.map(signed),
                metadata,
                instance,
                run.exclusive,
                lease.map(|_| now.clone()),
                lease.map(|lease| moment(now_ms + lease)),
            ],
        )?;
        let id = transaction.last_insert_rowid();
        transaction.execute(
            "INSERT INTO sync_status (sync_type, subject, last_attempt_timestamp, last_sync_status, created_at, updated_at) \
             VALUES (?1, ?2, ?3, 'in_progress', ?3, ?3) ON CONFLICT (sync_type, subject) DO UPDATE SET \
             last_attempt_timestamp = ?3, last_sync_status = 'in_progress', updated_at = ?3",
            params![run.kind, run.subject, now],
        )?;
        transaction.commit()?;
        Ok(id)
    }

    /// Whether a run of this kind and subject began at a time, or later: history may be gone, the status stays.
    pub fn began_since(&self, kind: &str, subject: &str, at_ms: u64) -> Result<bool, MonitorError> {
        let sql =
            "SELECT count(*) FROM sync_status WHERE sync_type = ?1 AND subject = ?2 AND last_attempt_timestamp >= ?3";
        let values = params![kind, subject, moment(at_ms)];
        Ok(self.connection.prepare_cached(sql)?.query_row(values, |row| row.get::<_, i64>(0))? > 0)
    }

    /// Takes a sign of life, with or without progress.
    pub fn progress(&mut self, id: i64, progress: &RunProgress, now_ms: u64) -> Result<(), MonitorError> {
        self.check_open(id)?;
        let metadata = metadata_text(progress.metadata.as_ref())?;
        // The lease is as long as it was promised at the beginning: from the last sign of life to its end.
        self.connection.execute(
            "UPDATE sync_history SET records_processed = coalesce(?2, records_processed), \
             records_total = coalesce(?3, records_total), message = coalesce(?4, message), \
             sync_metadata = CASE WHEN ?5 IS NULL THEN sync_metadata ELSE json_patch(coalesce(sync_metadata, '{}'), ?5) END, \
             lease_until = strftime('%Y-%m-%d %H:%M:%f', julianday(?6) + julianday(lease_until) - julianday(heartbeat_at)), \
             heartbeat_at = CASE WHEN lease_until IS NULL THEN NULL ELSE ?6 END WHERE id = ?1",
            params![
                id,
                progress.records.map(signed),
                progress.total.map(signed),
                progress.message.as_deref().map(errors::kept),
                metadata,
                moment(now_ms),
            ],
        )?;
        Ok(())
    }

    /// Ends a run: history and status move together.
    pub fn end(&mut self, id: i64, end: RunEnd, now_ms: u64) -> Result<(), MonitorError> {
        let metadata = metadata_text(end.metadata.as_ref())?;
        self.check_open(id)?;
        let (now, error) = (moment(now_ms), end.error.as_deref().map(errors::kept));
        let class = error.as_deref().map(errors::class);
        let transaction = self.connection.transaction()?;
        transaction.execute(
            "UPDATE sync_history SET status = ?2, completed_at = ?3, records_processed = coalesce(?4, records_processed), \
             records_failed = ?5, bytes = ?6, error_class = ?7, error_message = ?8, \
             duration_seconds = round(max(0, (julianday(?3) - julianday(sync_timestamp)) * 86400.0), 3), \
             sync_metadata = CASE WHEN ?9 IS NULL THEN sync_metadata ELSE json_patch(coalesce(sync_metadata, '{}'), ?9) END \
             WHERE id = ?1",
            params![
                id,
                if error.is_some() { "error" } else { "success" },
                now,
                end.records.map(signed),
                signed(end.failed),
                signed(end.bytes),
                class,
                error,
                metadata,
            ],
        )?;
        let sql = if error.is_some() { STATUS_FAILED } else { STATUS_DONE };
        let watermark = end.watermark.filter(|_| error.is_none()).map(|text| errors::kept(&text));
        transaction.execute(sql, params![id, now, watermark])?;
        note_end(&transaction, id, error.as_deref(), now_ms)?;
        transaction.commit()?;
        Ok(())
    }

    /// Fails runs whose owner gave no sign of life for the time it promised; how many.
    pub fn reap(&mut self, now_ms: u64) -> Result<usize, MonitorError> {
        let late = self.open_runs("lease_until <= ?1", [moment(now_ms)])?;
        for id in &late {
            let words = "interrupted: no sign of life for longer than promised".to_string();
            self.end(*id, RunEnd { error: Some(words), ..RunEnd::default() }, now_ms)?;
        }
        Ok(late.len())
    }

    /// In how long the next run has to be looked at for a sign of life.
    pub(super) fn next_lease(&self, now_ms: u64) -> Result<Option<Duration>, MonitorError> {
        let sql = "SELECT (julianday(min(lease_until)) - julianday(?1)) * 86400000.0 FROM sync_history \
                   WHERE status = 'in_progress'";
        let left: Option<f64> = self.connection.prepare_cached(sql)?.query_row([moment(now_ms)], |row| row.get(0))?;
        Ok(left.map(|ms| Duration::from_millis(ms.max(0.0) as u64 + 1)))
    }

    fn check_open(&self, id: i64) -> Result<(), MonitorError> {
        let sql = "SELECT status, error_message FROM sync_history WHERE id = ?1";
        let found: Option<(String, Option<String>)> =
            self.connection.prepare_cached(sql)?.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        match found {
            None => Err(MonitorError::Unknown(id)),
            Some((status, _)) if status == "in_progress" => Ok(()),
            Some((status, why)) => {
                Err(MonitorError::Ended { id, status, why: why.map_or(String::new(), |why| format!(": {why}")) })
            }
        }
    }

    /// Removes history that is older than this. What stands now stays: status, reliability, open runs and alerts.
    pub fn cleanup(&mut self, days_to_keep: u32, now_ms: u64) -> Result<Removed, MonitorError> {
        let before = moment(now_ms.saturating_sub(u64::from(days_to_keep) * 86_400_000));
        let transaction = self.connection.transaction()?;
        let runs = transaction.execute(
            "DELETE FROM sync_history WHERE status <> 'in_progress' AND (sync_timestamp < ?1 OR id <= \
             (SELECT coalesce(max(id), 0) FROM sync_history) - ?2)",
            params![before, HISTORY_ROWS_MAX],
        )?;
        let mut others = 0;
        for sql in [
            "DELETE FROM reliability_hours WHERE hour < ?1",
            "DELETE FROM error_patterns WHERE last_seen < ?1",
            "DELETE FROM drift_history WHERE detected_at < ?1",
            "DELETE FROM alert_history WHERE recovered_at < ?1",
            "DELETE FROM legacy_seen WHERE seen_at < ?1",
        ] {
            others += transaction.execute(sql, [&before])?;
        }
        transaction.commit()?;
        Ok(Removed { runs: runs as u64, others: others as u64 })
    }
}

/// How a status moves with a success: the watermark is the run's own, else when it began, never when it ended.
const STATUS_DONE: &str = "UPDATE sync_status SET last_sync_status = 'success', \
     last_sync_timestamp = h.sync_timestamp, successful_sync_count = successful_sync_count + 1, \
     last_records_processed = h.records_processed, last_duration_seconds = h.duration_seconds, \
     total_records_processed = total_records_processed + coalesce(h.records_processed, 0), \
     watermark = coalesce(?3, watermark), updated_at = ?2 \
     FROM sync_history h WHERE h.id = ?1 AND sync_status.sync_type = h.sync_type AND sync_status.subject = h.subject";

/// … and with a failure.
const STATUS_FAILED: &str = "UPDATE sync_status SET last_sync_status = 'error', failed_sync_count = failed_sync_count + 1, \
     last_error_class = h.error_class, last_error_message = h.error_message, updated_at = ?2 \
     FROM sync_history h WHERE h.id = ?1 AND ?3 IS NULL AND sync_status.sync_type = h.sync_type \
     AND sync_status.subject = h.subject";

/// Counts an end among the failures that read alike, and in the reliability of the server it was about.
fn note_end(transaction: &Transaction<'_>, id: i64, error: Option<&str>, now_ms: u64) -> Result<(), MonitorError> {
    let sql = "SELECT subject, sync_type, server_id, coalesce(duration_seconds, 0.0) FROM sync_history WHERE id = ?1";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
    let (subject, kind, server, seconds): (String, String, Option<i64>, f64) =
        transaction.query_row(sql, [id], read)?;
    if let Some(error) = error {
        note_pattern(transaction, (&subject, &kind), error, 1, &moment(now_ms))?;
    }
    if let Some(server) = server {
        let outcome = reliability::Outcome { runs: 1, seconds, error, at_ms: now_ms };
        reliability::note(transaction, server, &kind, &outcome)?;
    }
    Ok(())
}

/// Who holds the lease that a run wants: an exclusive run stands in everybody's way, and everybody in an exclusive one's.
fn holder(transaction: &Transaction<'_>, run: &RunBegin) -> Result<Option<(i64, String, String)>, MonitorError> {
    let sql = "SELECT id, service_instance, sync_timestamp FROM sync_history WHERE status = 'in_progress' \
               AND sync_type = ?1 AND subject = ?2 AND (?3 OR exclusive) ORDER BY id LIMIT 1";
    let values = params![run.kind, run.subject, run.exclusive];
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    Ok(transaction.query_row(sql, values, read).optional()?)
}

/// Counts a failure among those that read alike.
pub(super) fn note_pattern(
    connection: &Connection,
    (subject, operation): (&str, &str),
    error: &str,
    count: u64,
    now: &str,
) -> Result<(), MonitorError> {
    let sql = "INSERT INTO error_patterns (subject, operation_type, error_class, pattern, count, first_seen, last_seen, example) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7) ON CONFLICT (subject, operation_type, pattern) DO UPDATE SET \
               count = count + ?5, last_seen = ?6, example = ?7";
    let (class, pattern) = (errors::class(error), errors::pattern(error));
    connection.prepare_cached(sql)?.execute(params![
        subject,
        operation,
        class,
        pattern,
        signed(count),
        now,
        errors::kept(error)
    ])?;
    Ok(())
}

fn check_name(key: &str, name: &str, needed: bool) -> Result<(), MonitorError> {
    let long = name.chars().count() > NAME_MAX;
    if (needed && name.is_empty()) || long || name.chars().any(char::is_control) {
        let text = format!(
            "`{key}` must have {} to {NAME_MAX} characters, none of them control characters",
            i32::from(needed)
        );
        return Err(MonitorError::Invalid(text));
    }
    Ok(())
}

fn metadata_text(metadata: Option<&Value>) -> Result<Option<String>, MonitorError> {
    let Some(metadata) = metadata else { return Ok(None) };
    let text = metadata.to_string();
    if !metadata.is_object() || text.len() > METADATA_BYTES_MAX {
        return Err(MonitorError::Invalid(format!(
            "`metadata` must be a JSON object of at most {METADATA_BYTES_MAX} bytes"
        )));
    }
    Ok(Some(text))
}

/// SQLite's integers have a sign.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A time in the form of this file.
pub fn moment(ms: u64) -> String {
    let text = humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + Duration::from_millis(ms)).to_string();
    text.trim_end_matches('Z').replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("monitor.db"), "pit:1", 1_000).unwrap();
        (directory, store)
    }

    fn job(kind: &str) -> RunBegin {
        RunBegin {
            kind: kind.into(),
            instance: "import:7".into(),
            exclusive: true,
            lease_ms: Some(10_000),
            ..RunBegin::default()
        }
    }

    fn text(store: &Store, sql: &str) -> String {
        store.connection.query_row(sql, [], |row| row.get::<_, Option<String>>(0)).unwrap().unwrap_or_default()
    }

    #[test]
    fn status_moves_with_every_end_and_the_watermark_with_a_success_only() {
        let (_directory, mut store) = store();
        let id = store.begin(&job("import"), 10_000).unwrap();
        assert_eq!(text(&store, "SELECT last_sync_status FROM sync_status"), "in_progress");
        let progress = RunProgress { records: Some(3), total: Some(9), ..RunProgress::default() };
        store.progress(id, &progress, 11_000).unwrap();
        let end = RunEnd { watermark: Some("page 9".into()), ..RunEnd::default() };
        store.end(id, end, 12_500).unwrap();
        let row = "SELECT last_sync_status || '|' || last_sync_timestamp || '|' || watermark || '|' || last_records_processed \
                   || '|' || last_duration_seconds FROM sync_status";
        assert_eq!(text(&store, row), "success|1970-01-01 00:00:10.000|page 9|3|2.5");
        let failed = RunEnd { error: Some("HTTP 503".into()), watermark: Some("page 10".into()), ..RunEnd::default() };
        let id = store.begin(&job("import"), 20_000).unwrap();
        store.end(id, failed.clone(), 21_000).unwrap();
        let row = "SELECT last_sync_status || '|' || last_sync_timestamp || '|' || watermark || '|' || last_error_message || '|' \
                   || successful_sync_count || '|' || failed_sync_count FROM sync_status";
        assert_eq!(text(&store, row), "error|1970-01-01 00:00:10.000|page 9|HTTP 503|1|1");
        assert!(matches!(store.end(id, failed, 22_000), Err(MonitorError::Ended { .. })));
        assert!(matches!(store.progress(99, &RunProgress::default(), 0), Err(MonitorError::Unknown(99))));
    }

    #[test]
    fn a_lease_keeps_others_out_until_it_ends_or_nobody_renews_it() {
        let (_directory, mut store) = store();
        let first = store.begin(&job("import"), 0).unwrap();
        assert!(matches!(store.begin(&job("import"), 9_000), Err(MonitorError::Held { id, .. }) if id == first));
        let parallel = RunBegin { exclusive: false, ..job("import") };
        assert!(matches!(store.begin(&parallel, 9_000), Err(MonitorError::Held { .. })));
        assert!(store.begin(&RunBegin { subject: "photos".into(), ..job("import") }, 9_000).is_ok());
        store.progress(first, &RunProgress::default(), 9_000).unwrap();
        // Ten seconds from the sign of life on, not from the beginning.
        assert!(matches!(store.begin(&job("import"), 18_900), Err(MonitorError::Held { .. })));
        assert!(store.next_lease(18_900).unwrap().is_some());
        let second = store.begin(&job("import"), 19_100).unwrap();
        assert!(second > first);
        let row = format!("SELECT status || '|' || error_class FROM sync_history WHERE id = {first}");
        assert_eq!(text(&store, &row), "error|interrupted");
        assert!(matches!(store.progress(first, &RunProgress::default(), 19_200), Err(MonitorError::Ended { .. })));
    }

    #[test]
    fn what_a_dead_program_left_open_is_interrupted_and_others_get_time_to_speak() {
        let (directory, mut store) = store();
        let own = store.begin(&RunBegin { kind: "verify".into(), ..RunBegin::default() }, 2_000).unwrap();
        let other = store.begin(&job("import"), 2_000).unwrap();
        drop(store);
        let mut store = Store::open(&directory.path().join("monitor.db"), "pit:2", 500_000).unwrap();
        let status = |store: &Store, id: i64| text(store, &format!("SELECT status FROM sync_history WHERE id = {id}"));
        assert_eq!((status(&store, own), status(&store, other)), ("error".to_string(), "in_progress".to_string()));
        assert_eq!(text(&store, "SELECT service_instance FROM sync_history WHERE sync_type = 'verify'"), "pit:1");
        store.progress(other, &RunProgress::default(), 510_000).unwrap();
        assert_eq!(store.reap(10_000_000).unwrap(), 1);
    }

    #[test]
    fn bad_words_are_refused_and_good_ones_kept() {
        let (_directory, mut store) = store();
        for bad in ["", "a\nb", &"x".repeat(101)] {
            assert!(matches!(store.begin(&job(bad), 0), Err(MonitorError::Invalid(_))), "{bad}");
        }
        let list = RunBegin { metadata: Some(serde_json::json!([1])), ..job("import") };
        assert!(matches!(store.begin(&list, 0), Err(MonitorError::Invalid(_))));
        let run = RunBegin { metadata: Some(serde_json::json!({"a": 1, "b": 2})), ..job("import") };
        let id = store.begin(&run, 0).unwrap();
        let more = Some(serde_json::json!({"b": 3}));
        store.progress(id, &RunProgress { metadata: more, ..RunProgress::default() }, 1).unwrap();
        assert_eq!(text(&store, "SELECT sync_metadata FROM sync_history"), "{\"a\":1,\"b\":3}");
    }

    #[test]
    fn a_cleanup_keeps_what_is_young_or_open() {
        let (_directory, mut store) = store();
        const DAY: u64 = 86_400_000;
        let old = store.begin(&job("a"), DAY).unwrap();
        store.end(old, RunEnd { error: Some("x".into()), ..RunEnd::default() }, DAY).unwrap();
        let young = store.begin(&job("a"), 40 * DAY).unwrap();
        store.end(young, RunEnd::default(), 40 * DAY).unwrap();
        let removed = store.cleanup(30, 41 * DAY).unwrap();
        assert_eq!(removed, Removed { runs: 1, others: 1 });
        assert_eq!(text(&store, "SELECT group_concat(id) FROM sync_history"), young.to_string());
        assert_eq!(text(&store, "SELECT failed_sync_count || '' FROM sync_status"), "1");
    }
}
