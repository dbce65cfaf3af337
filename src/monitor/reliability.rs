//! How well every server does each operation: rates, mean durations, what fails, a score with a band, and the trend.
//!
//! The score of an operation is its success rate, in which an hour's runs weigh half as much for every [`HALF_LIFE_H`]
//! hours that passed: what is broken shows within minutes, what was repaired is forgiven within a day. A server's score is
//! the mean of its operations', weighed by how much they mean ([`WEIGHTS`]). Without any run the score is 1.0: nothing
//! speaks against it. Bands: 0.9 excellent, 0.7 good, 0.5 fair, below poor. The trend compares the last three hours with
//! the 21 before them.
//! Invariant: a score is between 0.0 and 1.0 and depends on counts and their hours only. Callers: [`super::burst`],
//! [`super::recorder`], http.

use rusqlite::{Connection, OptionalExtension, params};

use super::store::{MonitorError, Store, moment, signed};
use super::view::{HourView, OperationView, PatternView, ReliabilityView};
use crate::model::NodeId;

/// An hour's runs weigh half as much after so many hours.
const HALF_LIFE_H: f64 = 6.0;

/// Hours that a score looks at.
const WINDOW_H: u64 = 7 * 24;

/// How much an operation means; others 1.
/// A server that is switched off overnight is called thousands of times, and is not unreliable in the morning: calls weigh
/// little. One that was never reached has nothing else.
const WEIGHTS: &[(&str, f64)] = &[("connection", 2.0), ("dial", 0.2), ("pull", 4.0), ("reconcile", 2.0), ("sync", 4.0)];

/// A change of the rate that counts.
const TREND_STEP: f64 = 0.05;

/// Patterns of failures that a report shows.
const PATTERNS_SHOWN: i64 = 10;

/// Hours of a chart.
const HOURS_SHOWN: u64 = 48;

const HOUR_MS: u64 = 3_600_000;

/// Runs that ended alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome<'o> {
    pub(super) runs: u64,
    pub(super) seconds: f64,
    pub(super) error: Option<&'o str>,
    pub(super) at_ms: u64,
}

/// The hour in which something happened, as text.
fn hour(ms: u64) -> String {
    moment(ms / HOUR_MS * HOUR_MS)
}

/// Counts runs with a server.
pub(super) fn note(
    connection: &Connection,
    server: i64,
    operation: &str,
    outcome: &Outcome<'_>,
) -> Result<(), MonitorError> {
    let (well, badly) = if outcome.error.is_none() { (outcome.runs, 0) } else { (0, outcome.runs) };
    let at = moment(outcome.at_ms);
    let sql = "INSERT INTO reliability_hours (server_id, operation_type, hour, success_count, failure_count, duration_seconds) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (server_id, operation_type, hour) DO UPDATE SET \
               success_count = success_count + ?4, failure_count = failure_count + ?5, \
               duration_seconds = duration_seconds + ?6";
    let values = params![server, operation, hour(outcome.at_ms), signed(well), signed(badly), outcome.seconds];
    connection.prepare_cached(sql)?.execute(values)?;
    let score = score(connection, server, operation, outcome.at_ms)?;
    let sql = "INSERT INTO sync_reliability (server_id, operation_type, success_count, failure_count, last_success, \
               last_failure, last_error, avg_duration, reliability_score, updated_at) VALUES (?1, ?2, ?3, ?4, \
               CASE WHEN ?3 > 0 THEN ?5 END, CASE WHEN ?4 > 0 THEN ?5 END, ?6, ?7 / (?3 + ?4), ?8, ?5) \
               ON CONFLICT (server_id, operation_type) DO UPDATE SET \
               avg_duration = (avg_duration * (success_count + failure_count) + ?7) / (success_count + failure_count + ?3 + ?4), \
               success_count = success_count + ?3, failure_count = failure_count + ?4, \
               last_success = coalesce(excluded.last_success, last_success), \
               last_failure = coalesce(excluded.last_failure, last_failure), \
               last_error = coalesce(?6, last_error), reliability_score = ?8, updated_at = ?5";
    let error = outcome.error.map(super::errors::kept);
    let values = params![server, operation, signed(well), signed(badly), at, error, outcome.seconds, score];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// The score of one operation now.
fn score(connection: &Connection, server: i64, operation: &str, now_ms: u64) -> Result<f64, MonitorError> {
    let sql = "SELECT (julianday(?4) - julianday(hour)) * 24.0, success_count, failure_count FROM reliability_hours \
               WHERE server_id = ?1 AND operation_type = ?2 AND hour >= ?3";
    let from = hour(now_ms.saturating_sub(WINDOW_H * HOUR_MS));
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![server, operation, from, hour(now_ms)])?;
    let mut hours = Vec::new();
    while let Some(row) = rows.next()? {
        hours.push((row.get::<_, f64>(0)?, row.get::<_, i64>(1)?.unsigned_abs(), row.get::<_, i64>(2)?.unsigned_abs()));
    }
    Ok(decayed_rate(&hours))
}

/// Success rate of (age in hours, successes, failures); 1.0 of nothing.
fn decayed_rate(hours: &[(f64, u64, u64)]) -> f64 {
    let (mut well, mut all) = (0.0, 0.0);
    for (age, success, failure) in hours {
        let weight = 0.5_f64.powf(age.max(0.0) / HALF_LIFE_H);
        well += weight * *success as f64;
        all += weight * (success + failure) as f64;
    }
    if all == 0.0 { 1.0 } else { (well / all).clamp(0.0, 1.0) }
}

/// A score in a word.
pub fn band(score: f64) -> &'static str {
    match score {
        0.9.. => "excellent",
        0.7.. => "good",
        0.5.. => "fair",
        _ => "poor",
    }
}

/// The mean of operations' scores by what they mean.
fn overall(operations: &[(&str, f64)]) -> f64 {
    let weight = |name: &str| WEIGHTS.iter().find(|(known, _)| *known == name).map_or(1.0, |(_, weight)| *weight);
    let all: f64 = operations.iter().map(|(name, _)| weight(name)).sum();
    if all == 0.0 { 1.0 } else { operations.iter().map(|(name, score)| weight(name) * score).sum::<f64>() / all }
}

/// `improving`, `worsening` or `steady`, from (successes, failures) lately and before.
fn trend(lately: (u64, u64), before: (u64, u64)) -> &'static str {
    let rate = |(well, badly): (u64, u64)| (well + badly > 0).then(|| well as f64 / (well + badly) as f64);
    match (rate(lately), rate(before)) {
        (Some(lately), Some(before)) if lately > before + TREND_STEP => "improving",
        (Some(lately), Some(before)) if lately < before - TREND_STEP => "worsening",
        _ => "steady",
    }
}

impl Store {
    /// The report on one server.
    pub fn reliability(&mut self, node: &NodeId, now_ms: u64) -> Result<ReliabilityView, MonitorError> {
        let (server, name) = (self.server(node, now_ms)?, self.server_name(node, now_ms)?);
        let sql = "SELECT operation_type, success_count, failure_count, avg_duration, last_success, last_failure, last_error \
                   FROM sync_reliability WHERE server_id = ?1 ORDER BY operation_type";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map([server], |row| {
            let (well, badly) = (row.get::<_, i64>(1)?.unsigned_abs(), row.get::<_, i64>(2)?.unsigned_abs());
            Ok(OperationView {
                operation: row.get(0)?,
                success_rate: well as f64 / (well + badly).max(1) as f64,
                success_count: well,
                failure_count: badly,
                avg_duration: row.get(3)?,
                last_success: row.get(4)?,
                last_failure: row.get(5)?,
                last_error: row.get(6)?,
                ..OperationView::default()
            })
        })?;
        let mut operations: Vec<OperationView> = rows.collect::<Result<_, _>>()?;
        for operation in &mut operations {
            operation.score = score(&self.connection, server, &operation.operation, now_ms)?;
            operation.band = band(operation.score).to_string();
        }
        let scores: Vec<(&str, f64)> = operations.iter().map(|one| (one.operation.as_str(), one.score)).collect();
        let score = overall(&scores);
        Ok(ReliabilityView {
            server: name.clone(),
            id: node.to_string(),
            server_id: server,
            overall_reliability: score,
            score,
            band: band(score).to_string(),
            trend: self.trend(server, now_ms)?.to_string(),
            operations,
            patterns: self.patterns(&name)?,
            hours: self.hours(server, now_ms)?,
        })
    }

    /// Score and band of one server.
    pub fn server_score(&mut self, node: &NodeId, now_ms: u64) -> Result<(f64, &'static str), MonitorError> {
        let server = self.server(node, now_ms)?;
        let sql = "SELECT operation_type FROM sync_reliability WHERE server_id = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let names: Vec<String> = statement.query_map([server], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let mut scores = Vec::new();
        for name in &names {
            scores.push((name.as_str(), score(&self.connection, server, name, now_ms)?));
        }
        let score = overall(&scores);
        Ok((score, band(score)))
    }

    fn trend(&self, server: i64, now_ms: u64) -> Result<&'static str, MonitorError> {
        let sum = |from: u64, to: u64| -> Result<(u64, u64), MonitorError> {
            let sql = "SELECT coalesce(sum(success_count), 0), coalesce(sum(failure_count), 0) FROM reliability_hours \
                       WHERE server_id = ?1 AND hour >= ?2 AND hour < ?3";
            let values =
                params![server, hour(now_ms.saturating_sub(from * HOUR_MS)), hour(now_ms.saturating_sub(to * HOUR_MS))];
            let read = |row: &rusqlite::Row<'_>| {
                Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs()))
            };
            Ok(self.connection.prepare_cached(sql)?.query_row(values, read)?)
        };
        let next_hour = now_ms + HOUR_MS;
        let lately = "SELECT coalesce(sum(success_count), 0), coalesce(sum(failure_count), 0) FROM reliability_hours \
                      WHERE server_id = ?1 AND hour >= ?2 AND hour < ?3";
        let values = params![server, hour(now_ms.saturating_sub(2 * HOUR_MS)), hour(next_hour)];
        let read =
            |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs()));
        let lately = self.connection.prepare_cached(lately)?.query_row(values, read).optional()?.unwrap_or_default();
        Ok(trend(lately, sum(23, 2)?))
    }

    fn patterns(&self, subject: &str) -> Result<Vec<PatternView>, MonitorError> {
        let sql = "SELECT operation_type, error_class, pattern, count, last_seen, example FROM error_patterns \
                   WHERE subject = ?1 ORDER BY count DESC, pattern LIMIT ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params![subject, PATTERNS_SHOWN], |row| {
            Ok(PatternView {
                operation: row.get(0)?,
                class: row.get(1)?,
                pattern: row.get(2)?,
                count: row.get::<_, i64>(3)?.unsigned_abs(),
                last_seen: row.get(4)?,
                example: row.get(5)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn hours(&self, server: i64, now_ms: u64) -> Result<Vec<HourView>, MonitorError> {
        let sql = "SELECT hour, sum(success_count), sum(failure_count), sum(duration_seconds) FROM reliability_hours \
                   WHERE server_id = ?1 AND hour >= ?2 GROUP BY hour ORDER BY hour";
        let mut statement = self.connection.prepare_cached(sql)?;
        let from = hour(now_ms.saturating_sub(HOURS_SHOWN * HOUR_MS));
        let rows = statement.query_map(params![server, from], |row| {
            Ok(HourView {
                hour: row.get(0)?,
                success_count: row.get::<_, i64>(1)?.unsigned_abs(),
                failure_count: row.get::<_, i64>(2)?.unsigned_abs(),
                duration_seconds: row.get(3)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_follow_what_happened_lately() {
        assert_eq!(decayed_rate(&[]), 1.0);
        assert_eq!(decayed_rate(&[(0.0, 3, 1)]), 0.75);
        // As much good as bad, but the bad is a day old.
        assert!(decayed_rate(&[(24.0, 0, 10), (0.0, 10, 0)]) > 0.9);
        assert!(decayed_rate(&[(24.0, 10, 0), (0.0, 0, 10)]) < 0.1);
        for (score, want) in [(1.0, "excellent"), (0.9, "excellent"), (0.89, "good"), (0.5, "fair"), (0.49, "poor")] {
            assert_eq!(band(score), want);
        }
        assert_eq!(overall(&[]), 1.0);
        assert_eq!(overall(&[("pull", 1.0), ("connection", 0.25)]), 0.75);
        assert_eq!(
            (band(overall(&[("connection", 1.0), ("dial", 0.0)])), overall(&[("dial", 0.0)])),
            ("excellent", 0.0)
        );
        assert_eq!(trend((9, 1), (5, 5)), "improving");
        assert_eq!(trend((5, 5), (9, 1)), "worsening");
        assert_eq!(trend((0, 0), (9, 1)), "steady");
    }

    #[test]
    fn a_report_counts_rates_patterns_and_hours() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(&directory.path().join("monitor.db"), "pit:1", 0).unwrap();
        let (node, now_ms) = (NodeId([9; 32]), 100 * HOUR_MS);
        store.name_servers(&[(node, "stand".into())], now_ms).unwrap();
        let server = store.server(&node, now_ms).unwrap();
        let well = Outcome { runs: 3, seconds: 0.6, error: None, at_ms: now_ms };
        let badly = Outcome { runs: 1, seconds: 3.4, error: Some("timeout: 3 s"), at_ms: now_ms + 1_000 };
        note(&store.connection, server, "pull", &well).unwrap();
        note(&store.connection, server, "pull", &badly).unwrap();
        super::super::store::note_pattern(&store.connection, ("stand", "pull"), "timeout: 3 s", 1, "now").unwrap();
        let report = store.reliability(&node, now_ms + 2_000).unwrap();
        let pull = &report.operations[0];
        assert_eq!((pull.success_count, pull.failure_count, pull.success_rate), (3, 1, 0.75));
        assert_eq!((report.server.as_str(), report.band.as_str(), report.score), ("stand", "good", 0.75));
        assert!((pull.avg_duration - 1.0).abs() < 1e-9, "{}", pull.avg_duration);
        assert_eq!(pull.last_error.as_deref(), Some("timeout: 3 s"));
        assert_eq!((report.patterns[0].pattern.as_str(), report.hours.len()), ("timeout: N s", 1));
        assert_eq!(store.server_score(&node, now_ms).unwrap(), (0.75, "good"));
        // A day without news forgives, as far as it goes: the ratio of what there was stays.
        let stored: f64 =
            store.connection.query_row("SELECT reliability_score FROM sync_reliability", [], |row| row.get(0)).unwrap();
        assert_eq!(stored, 0.75);
        assert_eq!(store.reliability(&NodeId([1; 32]), now_ms).unwrap().band, "excellent");
    }
}
