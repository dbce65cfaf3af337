//! Alerts in `monitor.db`: what is raised, what is over, how it was told.
//!
//! Invariant: at most one row per key is open; an alert that is over never changes again. Caller: [`super::recorder`]'s
//! questions.

use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use super::alerts::{Condition, Notice, Severity};
use super::store::{MonitorError, Store, moment};

/// An alert as people see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertView {
    /// The same for the same trouble.
    pub key: String,
    /// `warning` or `critical`.
    pub severity: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub next_step: String,
    /// Since when.
    pub raised_at: String,
    /// Until when; null: it goes on.
    pub recovered_at: Option<String>,
    /// By what it was told; empty: by the list and the log only.
    pub delivery: String,
}

fn view(row: &Row<'_>) -> rusqlite::Result<AlertView> {
    Ok(AlertView {
        key: row.get("key")?,
        severity: row.get("severity")?,
        message: row.get("message")?,
        next_step: row.get("next_step")?,
        raised_at: row.get("raised_at")?,
        recovered_at: row.get("recovered_at")?,
        delivery: row.get("delivery")?,
    })
}

impl Store {
    /// Notes what was raised or is over; `channels`: by what it is told.
    pub fn note_alert(&mut self, notice: &Notice, channels: &str) -> Result<(), MonitorError> {
        let (of, at) = (&notice.condition, moment(notice.at_ms));
        if notice.recovered {
            let sql = "UPDATE alert_history SET recovered_at = ?2 WHERE key = ?1 AND recovered_at IS NULL";
            self.connection.execute(sql, params![of.key, at])?;
            return Ok(());
        }
        let delivery = if notice.silent { "" } else { channels };
        let sql = "INSERT INTO alert_history (key, severity, message, next_step, raised_at, told_at, delivery) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (key) WHERE recovered_at IS NULL DO UPDATE SET message = ?3";
        let told = (!delivery.is_empty()).then(|| at.clone());
        let values = params![of.key, of.severity.word(), of.message, of.next, at, told, delivery];
        self.connection.execute(sql, values)?;
        Ok(())
    }

    /// Alerts that go on, the oldest first.
    pub fn open_alerts(&self) -> Result<Vec<AlertView>, MonitorError> {
        let sql = "SELECT * FROM alert_history WHERE recovered_at IS NULL ORDER BY raised_at, key";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map([], view)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Alerts that are over, the newest first.
    pub fn past_alerts(&self, limit: usize) -> Result<Vec<AlertView>, MonitorError> {
        let sql = "SELECT * FROM alert_history WHERE recovered_at IS NOT NULL ORDER BY recovered_at DESC, key LIMIT ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map([limit as i64], view)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What was raised before a restart.
    pub fn raised_before(&self) -> Result<Vec<Condition>, MonitorError> {
        let condition = |alert: AlertView| Condition {
            key: alert.key,
            severity: if alert.severity == "critical" { Severity::Critical } else { Severity::Warning },
            message: alert.message,
            next: alert.next_step,
        };
        Ok(self.open_alerts()?.into_iter().map(condition).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_open_row_per_key_and_history_stays() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(&directory.path().join("monitor.db"), "pit:1", 0).unwrap();
        let condition =
            Condition { key: "disk:/".into(), severity: Severity::Critical, message: "full".into(), next: "x".into() };
        let raised = Notice { condition: condition.clone(), recovered: false, at_ms: 1_000, silent: false };
        let over = Notice { recovered: true, at_ms: 2_000, ..raised.clone() };
        for _ in 0..2 {
            store.note_alert(&raised, "webhook").unwrap();
        }
        assert_eq!(store.open_alerts().unwrap().len(), 1);
        assert_eq!(store.raised_before().unwrap(), [condition]);
        store.note_alert(&over, "webhook").unwrap();
        store.note_alert(&Notice { silent: true, ..raised }, "webhook").unwrap();
        let (open, past) = (store.open_alerts().unwrap(), store.past_alerts(9).unwrap());
        assert_eq!((open.len(), open[0].delivery.as_str()), (1, ""));
        assert_eq!((past.len(), past[0].delivery.as_str()), (1, "webhook"));
        assert_eq!(past[0].recovered_at.as_deref(), Some("1970-01-01 00:00:02.000"));
    }
}
