//! What local time is: asked of SQLite, which asks the system, so that no other library and no unsafe code is needed.
//!
//! Invariant: touches no file of an app. Caller: the daemon; the node is told, it never asks.

use rusqlite::Connection;

/// Local time minus UTC, in minutes; `None`: nobody knows.
pub fn local_offset_minutes() -> Option<i32> {
    let memory = Connection::open_in_memory().ok()?;
    let sql = "SELECT (strftime('%s', 'now', 'localtime') - strftime('%s', 'now')) / 60";
    // Both are read within one statement, for which SQLite's "now" stands still.
    memory.query_row(sql, [], |row| row.get(0)).ok().filter(|minutes| (-1_440..=1_440).contains(minutes))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_offset_is_a_whole_number_of_quarters_of_an_hour() {
        assert_eq!(super::local_offset_minutes().map(|minutes| minutes % 15), Some(0));
    }
}
