//! The table `drift_history`: the node's drift records, copied for whoever asks with SQL.
//!
//! Invariant: the log's record is the truth, this is its copy; a record is one row, however often it is told, and changes
//! until it is put right. A log that begins anew counts from 1 again: number and time together name a record.
//! Caller: daemon.

use rusqlite::params;
use serde_json::json;

use super::store::{MonitorError, Store, moment, signed};
use crate::model::DriftRecord;
use crate::node::drift_view::DriftView;

/// Rows that wait to be put right and are asked about.
const OPEN_MAX: i64 = 500;

impl Store {
    /// The last record that was copied, and those that were not put right then.
    pub fn drift_known(&self) -> Result<(u64, Vec<u64>), MonitorError> {
        let sql = "SELECT coalesce((SELECT number FROM drift_history ORDER BY id DESC LIMIT 1), 0)";
        let last: i64 = self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        let sql = "SELECT number FROM drift_history WHERE repaired_at IS NULL ORDER BY id DESC LIMIT ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let open = statement.query_map([OPEN_MAX], |row| Ok(row.get::<_, i64>(0)?.unsigned_abs()))?;
        Ok((last.unsigned_abs(), open.collect::<Result<_, _>>()?))
    }

    /// Copies records. `asked`: those that were not put right; the log does not know the ones that are not among `told`.
    pub fn note_drift(
        &mut self,
        told: &[(DriftRecord, DriftView)],
        asked: &[u64],
        now_ms: u64,
    ) -> Result<(), MonitorError> {
        let transaction = self.connection.transaction()?;
        for (record, view) in told {
            let values = json!({ "row": view.row, "values": view.values }).to_string();
            let sql = "INSERT INTO drift_history (number, detected_at, database_name, table_name, record_id, peer, tier, kind, \
                       likely_cause, action, row_count, verification, repaired_at, message, details) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) \
                       ON CONFLICT (number, detected_at) DO UPDATE SET peer = ?6, likely_cause = ?9, action = ?10, \
                       row_count = ?11, repaired_at = ?13, message = ?14, details = ?15";
            transaction.prepare_cached(sql)?.execute(params![
                signed(record.number),
                moment(record.found_ms),
                view.database,
                view.table,
                view.id,
                view.from,
                view.tier,
                view.kind,
                view.cause,
                view.action,
                signed(record.rows),
                (record.run > 0).then(|| signed(record.run)),
                record.healed_ms.map(moment),
                view.sentence,
                values,
            ])?;
        }
        for number in asked.iter().filter(|number| !told.iter().any(|(record, _)| record.number == **number)) {
            let sql = "UPDATE drift_history SET action = 'forgotten', repaired_at = ?2 \
                       WHERE number = ?1 AND repaired_at IS NULL";
            transaction.prepare_cached(sql)?.execute(params![signed(*number), moment(now_ms)])?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Rows that differ and were not put right. What was taken for the app's write is no difference any more.
    pub fn open_drift(&self) -> Result<u64, MonitorError> {
        let sql =
            "SELECT coalesce(sum(row_count), 0) FROM drift_history WHERE repaired_at IS NULL AND action <> 'captured'";
        Ok(self.connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0))?.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DriftAction, DriftCause, DriftKind};

    fn record(number: u64, action: DriftAction, healed_ms: Option<u64>) -> (DriftRecord, DriftView) {
        let record = DriftRecord {
            number,
            found_ms: 1_000 * number,
            run: 7,
            tier: None,
            database: "scouting".into(),
            table: "team".into(),
            kind: DriftKind::Changed,
            row: None,
            key: Vec::new(),
            columns: Vec::new(),
            file: None,
            log: None,
            cause: DriftCause::BitRot,
            action,
            healed_ms,
            from: None,
            rows: 2,
            words: String::new(),
            sql: Vec::new(),
        };
        let view = DriftView { database: "scouting".into(), action: format!("{action:?}"), ..DriftView::default() };
        (record, view)
    }

    #[test]
    fn a_record_is_one_row_until_it_is_put_right_or_the_log_forgets_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(&directory.path().join("monitor.db"), "pit:1", 0).unwrap();
        assert_eq!(store.drift_known().unwrap(), (0, vec![]));
        let open = [1, 2, 3].map(|number| record(number, DriftAction::Waits, None));
        store.note_drift(&open, &[], 9_000).unwrap();
        assert_eq!((store.drift_known().unwrap(), store.open_drift().unwrap()), ((3, vec![3, 2, 1]), 6));
        let later = [record(1, DriftAction::Rewritten, Some(8_000)), record(2, DriftAction::Waits, None)];
        store.note_drift(&later, &[1, 2, 3], 9_500).unwrap();
        assert_eq!((store.drift_known().unwrap(), store.open_drift().unwrap()), ((3, vec![2]), 2));
        let sql = "SELECT group_concat(number || action || coalesce(repaired_at, '-'), ' ' ORDER BY number) FROM drift_history";
        let rows: String = store.connection.query_row(sql, [], |row| row.get(0)).unwrap();
        let want = "1Rewritten1970-01-01 00:00:08.000 2Waits- 3forgotten1970-01-01 00:00:09.500";
        assert_eq!(rows, want);
        // Another log, which counts from 1 again.
        let (mut anew, view) = record(1, DriftAction::Waits, None);
        anew.found_ms = 77_000;
        store.note_drift(&[(anew, view)], &[], 80_000).unwrap();
        assert_eq!(store.drift_known().unwrap(), (1, vec![1, 2]));
    }
}
