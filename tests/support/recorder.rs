//! The application's writers and their independent record of what was committed.
//!
//! Invariant: a record is written after the commit returned, so everything recorded was acknowledged to the app; the
//! node has no part in it.
//! Callers: `tests/convergence.rs`, `tests/crash.rs`, the soak.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use serde_json::Value;

use super::dump::{number, open, quoted};
use super::server::{Server, finish};
use super::shipped;

/// Where a value stands: database, table, column.
type Place = (String, String, String);

/// A running writer.
pub(crate) struct Writer {
    child: Child,
    record: PathBuf,
    seconds: u64,
}

impl Writer {
    /// Starts `tests/python/writer.py` on the server's files.
    pub(crate) fn start(server: &Server, part: &str, seconds: u64, rate: u32, more: &[&str]) -> Self {
        let name = format!("{}-{part}", server.name);
        let record = server.folder.join(format!("record-{part}.jsonl"));
        let child = Command::new("python3")
            .arg(shipped("python/writer.py"))
            .arg("--scouting")
            .arg(server.database("scouting"))
            .arg("--users")
            .arg(server.database("users"))
            .arg("--record")
            .arg(&record)
            .args(["--name", &name, "--seconds", &seconds.to_string(), "--rate", &rate.to_string()])
            .args(more)
            .spawn()
            .expect("python3 is part of the test machine");
        Self { child, record, seconds }
    }

    /// Waits for the end; the app must have met no error at all.
    #[track_caller]
    pub(crate) fn finish(self) -> Record {
        finish("the writer", self.child, self.seconds + 30);
        let record = Record::read(&self.record);
        assert!(record.done, "{} has no end", self.record.display());
        assert_eq!(record.errors, Vec::<String>::new(), "the app was disturbed");
        record
    }
}

/// What the writers acknowledged.
#[derive(Default)]
pub(crate) struct Record {
    present: BTreeMap<Place, Vec<Value>>,
    absent: BTreeMap<Place, Vec<Value>>,
    errors: Vec<String>,
    done: bool,
}

impl Record {
    fn read(path: &Path) -> Self {
        let mut record = Self::default();
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
            let place = (text("db"), text("table"), text("column"));
            match line["op"].as_str().unwrap() {
                "insert" => record.present.entry(place).or_default().push(line["value"].clone()),
                "never" => record.absent.entry(place).or_default().push(line["value"].clone()),
                "delete" => {
                    record.present.entry(place.clone()).or_default().retain(|value| *value != line["value"]);
                    record.absent.entry(place).or_default().push(line["value"].clone());
                }
                "error" => record.errors.push(text("message")),
                _ => record.done = true,
            }
        }
        record
    }

    /// Both records as one.
    pub(crate) fn and(mut self, other: Self) -> Self {
        for (place, values) in other.present {
            self.present.entry(place).or_default().extend(values);
        }
        for (place, values) in other.absent {
            self.absent.entry(place).or_default().extend(values);
        }
        self
    }

    /// How many inserts must be there.
    pub(crate) fn inserts(&self) -> usize {
        self.present.values().map(Vec::len).sum()
    }

    /// Every recorded insert stands there exactly once, what was deleted or rolled back not at all.
    #[track_caller]
    pub(crate) fn assert_kept(&self, server: &Server) {
        let mut wrong = Vec::new();
        for (expected, part) in [(1, &self.present), (0, &self.absent)] {
            for (place, values) in part {
                let found = counts(server, place);
                for value in values {
                    let times = found.get(&value.to_string()).copied().unwrap_or(0);
                    if times != expected {
                        wrong.push(format!("{place:?} {value}: {times} times, not {expected}"));
                    }
                }
            }
        }
        let total = wrong.len();
        wrong.truncate(10);
        assert!(wrong.is_empty(), "{}: {total} of {} wrong:\n{}", server.name, self.inserts(), wrong.join("\n"));
    }
}

fn counts(server: &Server, (database, table, column): &Place) -> BTreeMap<String, usize> {
    let connection = open(server.database(database));
    let query = format!("SELECT {} FROM {}", quoted(column), quoted(table));
    let mut statement = connection.prepare(&query).unwrap();
    let mut cursor = statement.query([]).unwrap();
    let mut counts = BTreeMap::new();
    while let Some(row) = cursor.next().unwrap() {
        let value = match row.get_ref(0).unwrap() {
            rusqlite::types::ValueRef::Integer(number) => Value::from(number),
            rusqlite::types::ValueRef::Text(bytes) => Value::from(String::from_utf8_lossy(bytes).as_ref()),
            _ => continue,
        };
        *counts.entry(value.to_string()).or_default() += 1;
    }
    counts
}

/// No reference points at somebody else's row: each row knows by name what it meant when it was written.
#[track_caller]
pub(crate) fn assert_references_hold(server: &Server) {
    let references = [
        ("match", "event_id", "event_marker", "event"),
        ("observation", "match_id", "match_marker", "match"),
        ("observation", "team_id", "team_marker", "team"),
        ("pit_report", "team_id", "team_marker", "team"),
        ("alliance_chat", "alliance_id", "alliance_marker", "alliance"),
    ];
    for (table, column, marker, parent) in references {
        let query = format!(
            "SELECT count(*) FROM {table} c LEFT JOIN {parent} p ON p.id = c.{column} WHERE p.marker IS NOT c.{marker}",
            table = quoted(table),
            parent = quoted(parent)
        );
        let wrong = number(server.database("scouting"), &query);
        assert_eq!(wrong, 0, "{}: {wrong} rows whose {table}.{column} points at another row", server.name);
    }
    let connection = open(server.database("scouting"));
    connection.execute("ATTACH ?1 AS users", [server.database("users").to_str().unwrap()]).unwrap();
    let query = "SELECT count(*) FROM observation o LEFT JOIN users.user u ON u.id = o.scout_id \
                 WHERE o.scout_marker IS NOT u.marker";
    let wrong: i64 = connection.query_row(query, [], |row| row.get(0)).unwrap();
    assert_eq!(wrong, 0, "{}: {wrong} observations name another scout", server.name);
}
