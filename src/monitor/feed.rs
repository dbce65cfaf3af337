//! Times of changes for the older sync protocol, and what its servers sent.
//!
//! That protocol knows one cursor: the time of the last change it was given. So every change gets a time of its own, in
//! microseconds, when its event is first looked at here: later than all before it, so that "after T" leaves nothing out and
//! gives nothing twice, however many changes share a transaction, whatever clock their author had, and in whatever order
//! events arrive. Servers that pass another time (their own clock's) get what came two minutes before it as well.
//! Events that no file shows yet wait (`at_us` below 0) and get their time when one does.
//! Invariants: times only grow; an event that was given its time keeps it; a lost index (`monitor.db` set aside) makes all
//! events new again, which costs a repetition, never a row. Callers: http.

use rusqlite::{OptionalExtension, params};

use super::store::{MonitorError, Store, moment, signed};
use crate::node::feed::FeedEvent;

/// A time that was never given out is taken for a clock's: what came so much before it is given as well, µs.
const OVERLAP_US: i64 = 120_000_000;

/// Rows that are remembered of what older servers sent.
const SEEN_MAX: i64 = 500_000;

/// Rows of `database_changes`.
pub const CHANGES_KEPT: u64 = 10_000;

/// Changes of one event that can be told apart in `database_changes`.
const CHANGES_OF_EVENT: i64 = 1 << 20;

/// A row of `database_changes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeRow {
    /// The event's place in the log.
    pub arrival: u64,
    /// The change's place in it.
    pub index: u64,
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
    /// Where the row is shown.
    pub record_id: String,
    /// `insert`, `update` or `delete`.
    pub operation: &'static str,
    /// JSON of the row.
    pub data: String,
    /// When it was written.
    pub timestamp: String,
    /// Name of the server that captured it.
    pub node: String,
    /// Hash of all that.
    pub hash: String,
}

/// An event in the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedPlace {
    /// Its place in the log.
    pub arrival: u64,
    /// Time of its first change, µs since 1970.
    pub at_us: i64,
    /// Its changes; each has the next µs.
    pub changes: u64,
}

/// What a server of the older protocol holds of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// `database.table`.
    pub place: String,
    /// Key values joined by commas.
    pub record_id: String,
    /// Hash of the row.
    pub hash: String,
}

impl Store {
    /// Events that wait for their time, at most so many; and the last event that was looked at.
    pub fn feed_state(&self, limit: usize) -> Result<(Vec<u64>, u64), MonitorError> {
        let mut statement =
            self.connection.prepare_cached("SELECT arrival FROM feed WHERE at_us < 0 ORDER BY arrival LIMIT ?1")?;
        let waiting: Vec<i64> = statement.query_map([limit as i64], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let sql = "SELECT coalesce(max(arrival), 0) FROM feed";
        let last: i64 = self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        Ok((waiting.into_iter().map(i64::unsigned_abs).collect(), last.unsigned_abs()))
    }

    /// Gives events their times. How many got one.
    pub fn feed_add(&mut self, events: &[FeedEvent], now_ms: u64) -> Result<usize, MonitorError> {
        let transaction = self.connection.transaction()?;
        let sql = "SELECT at_us + max(changes, 1) FROM feed WHERE at_us >= 0 ORDER BY at_us DESC LIMIT 1";
        let end: Option<i64> = transaction.query_row(sql, [], |row| row.get(0)).optional()?;
        let mut next = end.unwrap_or(0).max(signed(now_ms.saturating_mul(1000)));
        let mut timed = 0;
        for event in events {
            let sql = "INSERT INTO feed (arrival, at_us, changes) VALUES (?1, ?2, ?3) \
                       ON CONFLICT (arrival) DO UPDATE SET at_us = ?2, changes = ?3 WHERE at_us < 0";
            let (at, changes) = match event.changes {
                Some(changes) => (next, signed(changes)),
                None => (-signed(event.arrival), 0),
            };
            let written = transaction.prepare_cached(sql)?.execute(params![signed(event.arrival), at, changes])?;
            if event.changes.is_some() && written > 0 {
                next += changes.max(1);
                timed += 1;
            }
        }
        transaction.commit()?;
        Ok(timed)
    }

    /// The cursor that a time means: itself when it was given out, else one that lies before it.
    pub fn feed_cursor(&self, since_us: i64) -> Result<i64, MonitorError> {
        let sql = "SELECT 1 FROM feed WHERE at_us >= 0 AND at_us <= ?1 AND ?1 < at_us + max(changes, 1) \
                   AND at_us = (SELECT max(at_us) FROM feed WHERE at_us <= ?1)";
        let given: Option<i64> =
            self.connection.prepare_cached(sql)?.query_row([since_us], |row| row.get(0)).optional()?;
        Ok(if given.is_some() { since_us } else { since_us.saturating_sub(OVERLAP_US) })
    }

    /// Events with changes later than a cursor, in order.
    pub fn feed_from(&self, cursor_us: i64, limit: usize) -> Result<Vec<FeedPlace>, MonitorError> {
        let sql = "SELECT arrival, at_us, changes FROM feed WHERE at_us >= \
                   coalesce((SELECT max(at_us) FROM feed WHERE at_us >= 0 AND at_us <= ?1), 0) \
                   AND changes > 0 AND at_us + changes - 1 > ?1 ORDER BY at_us LIMIT ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params![cursor_us, limit as i64], |row| {
            Ok(FeedPlace {
                arrival: row.get::<_, i64>(0)?.unsigned_abs(),
                at_us: row.get(1)?,
                changes: row.get::<_, i64>(2)?.unsigned_abs(),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The last event of which `database_changes` holds something.
    pub fn last_change(&self) -> Result<u64, MonitorError> {
        let sql = "SELECT coalesce(max(arrival), 0) FROM database_changes";
        Ok(self.connection.query_row(sql, [], |row| row.get::<_, i64>(0))?.unsigned_abs())
    }

    /// Adds changes to `database_changes`; the oldest go.
    pub fn add_changes(&mut self, rows: &[ChangeRow], now_ms: u64) -> Result<(), MonitorError> {
        let now = moment(now_ms);
        let transaction = self.connection.transaction()?;
        for row in rows {
            // Of several rows that one change concerns, the one that it names comes first.
            let sql = "INSERT OR IGNORE INTO database_changes (id, database_name, table_name, record_id, operation, data, \
                       timestamp, server_id, change_hash, created_at, synced_at, arrival) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10, ?11)";
            let id = signed(row.arrival).saturating_mul(CHANGES_OF_EVENT).saturating_add(signed(row.index));
            transaction.prepare_cached(sql)?.execute(params![
                id,
                row.database,
                row.table,
                row.record_id,
                row.operation,
                row.data,
                row.timestamp,
                row.node,
                row.hash,
                now,
                signed(row.arrival),
            ])?;
        }
        let sql = "DELETE FROM database_changes WHERE id <= \
                   (SELECT id FROM database_changes ORDER BY id DESC LIMIT 1 OFFSET ?1)";
        transaction.prepare_cached(sql)?.execute([signed(CHANGES_KEPT)])?;
        transaction.commit()?;
        Ok(())
    }

    /// Notes what a server of the older protocol holds.
    pub fn note_seen(&mut self, server: &str, rows: &[Seen], now_ms: u64) -> Result<(), MonitorError> {
        let transaction = self.connection.transaction()?;
        let now = moment(now_ms);
        for row in rows {
            let sql = "INSERT INTO legacy_seen (server, place, record_id, change_hash, seen_at) VALUES (?1, ?2, ?3, ?4, ?5) \
                       ON CONFLICT (server, place, record_id) DO UPDATE SET change_hash = ?4, seen_at = ?5";
            transaction.prepare_cached(sql)?.execute(params![server, row.place, row.record_id, row.hash, now])?;
        }
        let many: i64 = transaction.query_row("SELECT count(*) FROM legacy_seen", [], |row| row.get(0))?;
        if many > SEEN_MAX {
            let sql = "DELETE FROM legacy_seen WHERE (server, place, record_id) IN \
                       (SELECT server, place, record_id FROM legacy_seen ORDER BY seen_at LIMIT ?1)";
            transaction.execute(sql, [many - SEEN_MAX / 2])?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Which of these rows a server holds as they are. Without a name: the only server that ever sent something.
    pub fn is_seen(&self, server: Option<&str>, rows: &[Seen]) -> Result<Vec<bool>, MonitorError> {
        let mut statement = self.connection.prepare_cached("SELECT DISTINCT server FROM legacy_seen LIMIT 2")?;
        let known: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let server = match (server, &known[..]) {
            (Some(server), _) => server.to_string(),
            (None, [only]) => only.clone(),
            (None, _) => return Ok(vec![false; rows.len()]),
        };
        let sql = "SELECT change_hash FROM legacy_seen WHERE server = ?1 AND place = ?2 AND record_id = ?3";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut seen = Vec::with_capacity(rows.len());
        for row in rows {
            let hash: Option<String> =
                statement.query_row(params![server, row.place, row.record_id], |row| row.get(0)).optional()?;
            seen.push(hash.as_ref() == Some(&row.hash));
        }
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(arrival: u64, changes: Option<u64>) -> FeedEvent {
        FeedEvent { arrival, changes }
    }

    #[test]
    fn every_change_has_a_later_time_than_all_before_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(&directory.path().join("monitor.db"), "pit:1", 0).unwrap();
        assert_eq!(
            store.feed_add(&[event(1, Some(3)), event(2, None), event(3, Some(0)), event(4, Some(1))], 10).unwrap(),
            3
        );
        assert_eq!(store.feed_state(9).unwrap(), (vec![2], 4));
        let places = store.feed_from(-1, 9).unwrap();
        assert_eq!(places[0], FeedPlace { arrival: 1, at_us: 10_000, changes: 3 });
        // An event without changes of rows takes a time and gives nothing.
        assert_eq!(places[1], FeedPlace { arrival: 4, at_us: 10_004, changes: 1 });
        // The clock went back; the waiting event is shown now, later than all that was given out.
        assert_eq!(store.feed_add(&[event(2, Some(2)), event(1, Some(3))], 5).unwrap(), 1);
        assert_eq!(store.feed_from(10_004, 9).unwrap(), [FeedPlace { arrival: 2, at_us: 10_005, changes: 2 }]);
        // In the middle of an event.
        assert_eq!(store.feed_from(10_001, 9).unwrap()[0].arrival, 1);
        assert_eq!(store.feed_from(10_002, 9).unwrap()[0].arrival, 4);
        assert_eq!(store.feed_from(10_006, 9).unwrap(), []);
        assert_eq!(store.feed_cursor(10_001).unwrap(), 10_001);
        assert_eq!(store.feed_cursor(9_999).unwrap(), 9_999 - OVERLAP_US);
        assert_eq!(store.feed_cursor(10_007).unwrap(), 10_007 - OVERLAP_US);
    }

    #[test]
    fn what_a_server_sent_is_known_until_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(&directory.path().join("monitor.db"), "pit:1", 0).unwrap();
        let row = |hash: &str| Seen { place: "a.t".into(), record_id: "1".into(), hash: hash.into() };
        assert_eq!(store.is_seen(None, &[row("x")]).unwrap(), [false]);
        store.note_seen("old", &[row("x")], 1).unwrap();
        assert_eq!(store.is_seen(None, &[row("x"), row("y")]).unwrap(), [true, false]);
        assert_eq!(store.is_seen(Some("other"), &[row("x")]).unwrap(), [false]);
        store.note_seen("other", &[row("y")], 1).unwrap();
        // Nobody knows who asks.
        assert_eq!(store.is_seen(None, &[row("x")]).unwrap(), [false]);
        assert_eq!(store.is_seen(Some("old"), &[row("x")]).unwrap(), [true]);
    }
}
