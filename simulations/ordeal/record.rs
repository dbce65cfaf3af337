//! The recorder: what the applications were told is committed, kept outside of them and of the node.
//!
//! Invariant: no code of the product takes part. A transaction counts as committed from the moment its application said
//! so on the pipe; one that was begun and not acknowledged (its process died, or the commit failed) may be there whole or
//! not at all. Does not verify: the order in which rows of different applications appear, and values of columns other than
//! the two the record knows. Callers: app, world, the commands.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::outcome::Trouble;

/// One operation: a row's marker, and the number it shows afterwards (`None`: it is gone).
pub type Step = (String, Option<i64>);

/// A transaction of one database.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// The database.
    pub database: String,
    /// Its operations, one per marker.
    pub steps: Vec<Step>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Record {
    settled: BTreeMap<String, BTreeMap<String, Option<i64>>>,
    uncertain: Vec<Transaction>,
    /// Transactions acknowledged.
    pub acknowledged: u64,
    /// Transactions that the application was refused, by SQLite's words.
    pub refused: BTreeMap<String, u64>,
    /// The longest transaction, µs.
    pub slowest_us: u64,
}

/// What a file shows of the record's tables.
#[derive(Debug, Default)]
pub struct Shown {
    /// (marker, number) of every row of `note`.
    pub notes: Vec<(String, i64)>,
    /// Things that may never be, in words.
    pub broken: Vec<String>,
}

impl Record {
    /// The application said that it is committed.
    pub fn commit(&mut self, transaction: Transaction) {
        let rows = self.settled.entry(transaction.database).or_default();
        rows.extend(transaction.steps);
        self.acknowledged += 1;
    }

    /// Nobody said what became of it.
    pub fn doubt(&mut self, transaction: Transaction) {
        if !transaction.steps.is_empty() {
            self.uncertain.push(transaction);
        }
    }

    /// Forgets all rows whose markers begin otherwise: for a server that has never met the others.
    pub fn only(&mut self, prefix: &str) {
        for rows in self.settled.values_mut() {
            rows.retain(|marker, _| marker.starts_with(prefix));
        }
        self.uncertain.retain(|doubt| doubt.steps.iter().all(|(marker, _)| marker.starts_with(prefix)));
    }

    /// Rows that must be shown.
    pub fn rows(&self) -> u64 {
        self.settled.values().flat_map(BTreeMap::values).filter(|number| number.is_some()).count() as u64
    }

    /// Compares one file with the record; the first differences in words, none when all is well.
    pub fn compare(&self, database: &str, shown: &Shown) -> Vec<String> {
        let mut wrong = shown.broken.clone();
        let mut seen: BTreeMap<&str, i64> = BTreeMap::new();
        for (marker, number) in &shown.notes {
            if seen.insert(marker, *number).is_some() {
                wrong.push(format!("{database}: row {marker} is there twice"));
            }
        }
        let none = BTreeMap::new();
        let settled = self.settled.get(database).unwrap_or(&none);
        let doubts: Vec<_> = self.uncertain.iter().filter(|doubt| doubt.database == database).collect();
        let doubtful: BTreeSet<&str> =
            doubts.iter().flat_map(|doubt| &doubt.steps).map(|(marker, _)| marker.as_str()).collect();
        for (marker, number) in settled {
            let found = seen.get(marker.as_str()).copied();
            if doubtful.contains(marker.as_str()) || found == *number {
                continue;
            }
            wrong.push(match (number, found) {
                (Some(number), None) => format!("{database}: row {marker} (n={number}) was committed and is LOST"),
                (None, Some(found)) => format!("{database}: row {marker} was deleted and is back (n={found})"),
                (number, found) => format!("{database}: row {marker} shows {found:?}, committed was {number:?}"),
            });
        }
        for marker in seen.keys() {
            if !settled.contains_key(*marker) && !doubtful.contains(marker) {
                wrong.push(format!("{database}: row {marker} was never written by an application"));
            }
        }
        for doubt in doubts {
            let before = |marker: &str| settled.get(marker).copied().flatten();
            let done = doubt.steps.iter().all(|(marker, number)| seen.get(marker.as_str()).copied() == *number);
            let undone = doubt.steps.iter().all(|(marker, _)| seen.get(marker.as_str()).copied() == before(marker));
            if !done && !undone {
                wrong.push(format!("{database}: a transaction is there in part: {:?}", doubt.steps));
            }
        }
        wrong
    }

    /// Reads a file and compares it with the record.
    pub fn check(&self, server: &str, database: &str, path: &Path) -> Result<(), Trouble> {
        let wrong = self.compare(database, &read(path)?);
        if wrong.is_empty() {
            return Ok(());
        }
        let first = wrong.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
        Err(Trouble::wrong(format!("{server}: {} differences from what was acknowledged: {first}", wrong.len())))
    }
}

/// Reads the record's tables from a file, as the application sees it.
pub fn read(path: &Path) -> Result<Shown, Trouble> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let file = Connection::open_with_flags(path, flags)?;
    file.busy_timeout(std::time::Duration::from_secs(10))?;
    let mut shown = Shown::default();
    let mut notes = file.prepare("SELECT marker, n FROM note ORDER BY marker")?;
    shown.notes = notes.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    let astray = "SELECT count(*) FROM line LEFT JOIN note ON note.id = line.note_id
                  WHERE note.id IS NULL OR note.marker <> line.marker";
    let doubled = "SELECT count(*) FROM (SELECT 1 FROM line GROUP BY marker HAVING count(*) > 1)";
    for (query, what) in [(astray, "lines point at no row or at another's"), (doubled, "lines are there twice")] {
        let count: i64 = file.query_row(query, [], |row| row.get(0))?;
        if count != 0 {
            shown.broken.push(format!("{}: {count} {what}", path.display()));
        }
    }
    let sound: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    if sound != "ok" {
        shown.broken.push(format!("{}: integrity_check says {sound}", path.display()));
    }
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(steps: &[(&str, Option<i64>)]) -> Transaction {
        let steps = steps.iter().map(|(marker, number)| ((*marker).to_owned(), *number)).collect();
        Transaction { database: "one".into(), steps }
    }

    fn shows(record: &Record, rows: &[(&str, i64)]) -> usize {
        let notes = rows.iter().map(|(marker, number)| ((*marker).to_owned(), *number)).collect();
        record.compare("one", &Shown { notes, broken: Vec::new() }).len()
    }

    #[test]
    fn a_lost_a_doubled_a_stale_a_strange_and_a_torn_row_are_each_found() {
        let mut record = Record::default();
        record.commit(of(&[("a", Some(0)), ("b", Some(0))]));
        record.commit(of(&[("b", Some(1))]));
        record.doubt(of(&[("c", Some(0)), ("d", Some(0))]));
        assert_eq!(shows(&record, &[("a", 0), ("b", 1)]), 0);
        assert_eq!(shows(&record, &[("a", 0), ("b", 1), ("c", 0), ("d", 0)]), 0);
        assert_eq!(shows(&record, &[("b", 1)]), 1, "lost");
        assert_eq!(shows(&record, &[("a", 0), ("a", 0), ("b", 1)]), 1, "doubled");
        assert_eq!(shows(&record, &[("a", 0), ("b", 0)]), 1, "stale");
        assert_eq!(shows(&record, &[("a", 0), ("b", 1), ("x", 0)]), 1, "strange");
        assert_eq!(shows(&record, &[("a", 0), ("b", 1), ("c", 0)]), 1, "torn");
        record.commit(of(&[("a", None)]));
        assert_eq!(shows(&record, &[("a", 0), ("b", 1)]), 1, "deleted and back");
    }
}
