//! What a file shows of other servers right after a crash, before any node has recovered: whole transactions, in order.
//!
//! Every app notes the number of its last transaction in the file, in the same transaction. So a file that shows number n
//! of another server shows exactly that server's rows as they were after n: no row of a later one, none missing. Does not
//! verify: the file's own rows (`survey` does). Caller: `crash`, after every crash.

use std::collections::BTreeMap;

use super::Cluster;
use super::server::{FILES, TABLES};

impl Cluster {
    /// Compares what a server's files show of every other server with that server's record.
    pub fn check_prefix(&self, position: usize) -> Result<(), String> {
        for (other, author) in self.servers.iter().enumerate().filter(|(other, _)| *other != position) {
            for (file, name) in FILES.iter().enumerate() {
                let told = |error: rusqlite::Error| format!("{name}: {error}");
                let connection = self.servers[position].file(file);
                let number: i64 = connection
                    .prepare_cached("SELECT coalesce(max(number), 0) FROM progress WHERE name = ?1")
                    .and_then(|mut sql| sql.query_row([author.name()], |row| row.get(0)))
                    .map_err(told)?;
                let mut shown = BTreeMap::new();
                for table in TABLES[file] {
                    let sql = format!("SELECT marker, value FROM {table} WHERE marker LIKE ?1");
                    let mut statement = connection.prepare_cached(&sql).map_err(told)?;
                    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
                    for row in statement.query_map([format!("%-{}-%", author.name())], read).map_err(told)? {
                        let (marker, value) = row.map_err(told)?;
                        shown.insert(marker, value);
                    }
                }
                let expected = author.records[file].rows_through(number.unsigned_abs());
                if shown != expected {
                    let odd = shown.iter().find(|(marker, value)| expected.get(*marker) != Some(value));
                    let odd = odd.or(expected.iter().find(|(marker, _)| !shown.contains_key(*marker)));
                    return Err(format!(
                        "{name} shows server {other} as after its transaction {number}, but not so: {}",
                        odd.map_or("", |(marker, _)| marker)
                    ));
                }
            }
        }
        Ok(())
    }
}
