//! What the monitor tells people and machines: plain structs behind the commands, the HTTP API and the dashboard.
//!
//! Invariant: field names are a surface that others use; add freely, rename nothing. Times are UTC text as in `monitor.db`.
//! Filled by [`super::store`], served by `http`, printed by `cli`.

use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::store::{MonitorError, Store};

/// Runs on one page, at most.
const RUNS_MAX: usize = 1_000;

/// One run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunView {
    /// Its number.
    pub id: i64,
    /// Kind.
    pub sync_type: String,
    /// What it is about.
    pub subject: String,
    /// When it began.
    pub sync_timestamp: String,
    /// When it ended.
    pub completed_at: Option<String>,
    /// `in_progress`, `success` or `error`.
    pub status: String,
    /// How many small runs this row stands for.
    pub runs: u64,
    /// Records done.
    pub records_processed: Option<u64>,
    /// Records to do.
    pub records_total: Option<u64>,
    /// Records that could not be done.
    pub records_failed: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// Time at work.
    pub duration_seconds: Option<f64>,
    /// Class of the failure.
    pub error_class: Option<String>,
    /// Words of the failure.
    pub error_message: Option<String>,
    /// JSON object.
    pub sync_metadata: Option<Value>,
    /// Which process.
    pub service_instance: String,
    /// What it is at.
    pub message: Option<String>,
    /// Its last sign of life.
    pub heartbeat_at: Option<String>,
    /// Without a sign of life until then it counts as interrupted.
    pub lease_until: Option<String>,
}

/// How one kind of run stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KindView {
    /// Kind.
    pub sync_type: String,
    /// What it is about.
    pub subject: String,
    /// When the last run that ended well began.
    pub last_sync_timestamp: Option<String>,
    /// When the last run began.
    pub last_attempt_timestamp: Option<String>,
    /// `pending`, `in_progress`, `success` or `error`.
    pub last_sync_status: String,
    /// Class of the last failure.
    pub last_error_class: Option<String>,
    /// Words of the last failure.
    pub last_error_message: Option<String>,
    /// Runs that ended well.
    pub successful_sync_count: u64,
    /// Runs that failed.
    pub failed_sync_count: u64,
    /// Records of the last run that ended well.
    pub last_records_processed: Option<u64>,
    /// Records of all runs that ended well.
    pub total_records_processed: u64,
    /// Seconds of the last run that ended well.
    pub last_duration_seconds: Option<f64>,
    /// How far the job has come, in its own words.
    pub watermark: Option<String>,
}

/// Which runs to list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunFilter {
    /// Only this kind.
    pub kind: Option<String>,
    /// Only this status.
    pub status: Option<String>,
    /// Only runs with a smaller number.
    pub before: Option<i64>,
    /// At most so many; 0: 100.
    pub limit: usize,
}

/// The report on one server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityView {
    /// Its name.
    pub server: String,
    /// Its key in hex.
    pub id: String,
    /// Its number in `monitor.db`.
    pub server_id: i64,
    /// The same as `score`.
    pub overall_reliability: f64,
    /// 0.0 to 1.0.
    pub score: f64,
    /// `excellent`, `good`, `fair` or `poor`.
    pub band: String,
    /// `improving`, `steady` or `worsening`.
    pub trend: String,
    /// Each operation.
    pub operations: Vec<OperationView>,
    /// What fails most.
    pub patterns: Vec<PatternView>,
    /// The last two days by the hour, hours without runs left out.
    pub hours: Vec<HourView>,
}

/// One operation with one server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OperationView {
    /// Its name.
    pub operation: String,
    /// Of all runs ever.
    pub success_rate: f64,
    /// Runs that ended well.
    pub success_count: u64,
    /// Runs that failed.
    pub failure_count: u64,
    /// Seconds.
    pub avg_duration: f64,
    /// When one last ended well.
    pub last_success: Option<String>,
    /// When one last failed.
    pub last_failure: Option<String>,
    /// Why.
    pub last_error: Option<String>,
    /// 0.0 to 1.0, what is younger weighs more.
    pub score: f64,
    /// The score in a word.
    pub band: String,
}

/// Failures that read alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PatternView {
    /// In which operation.
    pub operation: String,
    /// Their class.
    pub class: String,
    /// What they have in common.
    pub pattern: String,
    /// How many.
    pub count: u64,
    /// When the last one was.
    pub last_seen: String,
    /// Its words.
    pub example: String,
}

/// One hour with one server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HourView {
    /// When it began.
    pub hour: String,
    /// Runs that ended well.
    pub success_count: u64,
    /// Runs that failed.
    pub failure_count: u64,
    /// Their time.
    pub duration_seconds: f64,
}

fn number(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<u64>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(i64::unsigned_abs))
}

fn run(row: &Row<'_>) -> rusqlite::Result<RunView> {
    let metadata: Option<String> = row.get("sync_metadata")?;
    Ok(RunView {
        id: row.get("id")?,
        sync_type: row.get("sync_type")?,
        subject: row.get("subject")?,
        sync_timestamp: row.get("sync_timestamp")?,
        completed_at: row.get("completed_at")?,
        status: row.get("status")?,
        runs: number(row, "runs")?.unwrap_or(1),
        records_processed: number(row, "records_processed")?,
        records_total: number(row, "records_total")?,
        records_failed: number(row, "records_failed")?.unwrap_or(0),
        bytes: number(row, "bytes")?.unwrap_or(0),
        duration_seconds: row.get("duration_seconds")?,
        error_class: row.get("error_class")?,
        error_message: row.get("error_message")?,
        sync_metadata: metadata.and_then(|text| serde_json::from_str(&text).ok()),
        service_instance: row.get("service_instance")?,
        message: row.get("message")?,
        heartbeat_at: row.get("heartbeat_at")?,
        lease_until: row.get("lease_until")?,
    })
}

impl Store {
    /// A page of runs, the newest first.
    pub fn runs(&self, filter: &RunFilter) -> Result<Vec<RunView>, MonitorError> {
        let limit = if filter.limit == 0 { 100 } else { filter.limit.min(RUNS_MAX) };
        let sql = "SELECT * FROM sync_history WHERE (?1 IS NULL OR sync_type = ?1) AND (?2 IS NULL OR status = ?2) \
                   AND (?3 IS NULL OR id < ?3) ORDER BY id DESC LIMIT ?4";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params![filter.kind, filter.status, filter.before, limit as i64], run)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// One run.
    pub fn run(&self, id: i64) -> Result<RunView, MonitorError> {
        let mut statement = self.connection.prepare_cached("SELECT * FROM sync_history WHERE id = ?1")?;
        match statement.query_row([id], run) {
            Err(rusqlite::Error::QueryReturnedNoRows) => Err(MonitorError::Unknown(id)),
            found => Ok(found?),
        }
    }

    /// How every kind of run stands.
    pub fn kinds(&self) -> Result<Vec<KindView>, MonitorError> {
        let mut statement = self.connection.prepare_cached("SELECT * FROM sync_status ORDER BY sync_type, subject")?;
        let rows = statement.query_map([], |row| {
            Ok(KindView {
                sync_type: row.get("sync_type")?,
                subject: row.get("subject")?,
                last_sync_timestamp: row.get("last_sync_timestamp")?,
                last_attempt_timestamp: row.get("last_attempt_timestamp")?,
                last_sync_status: row.get("last_sync_status")?,
                last_error_class: row.get("last_error_class")?,
                last_error_message: row.get("last_error_message")?,
                successful_sync_count: number(row, "successful_sync_count")?.unwrap_or(0),
                failed_sync_count: number(row, "failed_sync_count")?.unwrap_or(0),
                last_records_processed: number(row, "last_records_processed")?,
                total_records_processed: number(row, "total_records_processed")?.unwrap_or(0),
                last_duration_seconds: row.get("last_duration_seconds")?,
                watermark: row.get("watermark")?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RunBegin, RunEnd};
    use super::*;

    /// The older system's dashboard asks these; only the names of its two tables and its way to say "a day ago" differ.
    #[test]
    fn the_older_dashboards_queries_run() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("monitor.db");
        let mut store = Store::open(&path, "pit:1", 0).unwrap();
        let now_ms = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
        for (kind, records, error) in
            [("main_submissions", 127, None), ("main_submissions", 5, None), ("image_processing", 3, Some("S3: 403"))]
        {
            let run = RunBegin { kind: kind.into(), lease_ms: Some(60_000), exclusive: true, ..RunBegin::default() };
            let id = store.begin(&run, now_ms - 60_000).unwrap();
            let error = error.map(str::to_string);
            store.end(id, RunEnd { records: Some(records), error, ..RunEnd::default() }, now_ms - 58_000).unwrap();
        }
        // Another program, while the node's own connection is open.
        let other = rusqlite::Connection::open(&path).unwrap();
        let ask = |sql: &str| -> Vec<Vec<String>> {
            let mut statement = other.prepare(sql).unwrap();
            let columns = statement.column_count();
            let read = |row: &Row<'_>| {
                (0..columns).map(|at| Ok(format!("{:?}", row.get::<_, rusqlite::types::Value>(at)?))).collect()
            };
            statement.query_map([], read).unwrap().map(Result::unwrap).collect()
        };
        let status = ask(
            "SELECT sync_type, last_sync_timestamp, last_sync_status, successful_sync_count, failed_sync_count FROM sync_status",
        );
        assert_eq!(status.len(), 2);
        assert_eq!(status[0][1..], ["Null", "Text(\"error\")", "Integer(0)", "Integer(1)"]);
        let history =
            ask("SELECT sync_type, sync_timestamp, status, records_processed, duration_seconds FROM sync_history \
             ORDER BY sync_timestamp DESC LIMIT 10");
        assert_eq!((history.len(), history[0][4].as_str()), (3, "Real(2.0)"));
        let sums = ask(
            "SELECT sync_type, AVG(duration_seconds) as avg_duration, SUM(records_processed) as total_records FROM sync_history \
             WHERE status = 'success' AND sync_timestamp > datetime('now', '-24 hours') GROUP BY sync_type",
        );
        assert_eq!(sums, [["Text(\"main_submissions\")", "Real(2.0)", "Integer(132)"]]);
        assert_eq!(ask("SELECT * FROM sync_log_sqlite3 JOIN sync_reliability USING (server_id)").len(), 0);
    }
}
