//! Tests of the whole module: an app (Python's sqlite3 with its older library, and the bundled one) writes; the drain is
//! compared with what it did.

mod applying;
mod keys;
mod lifecycle;
mod schema_changes;
mod statements;
mod values;

use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;

use super::*;
use crate::model::{Key, Value};

/// A directory with one app database in it.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new(setup: &str) -> Place {
        // In memory where the system offers it: these tests are about SQL, and wait for no disk.
        let memory = Path::new("/dev/shm");
        let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let place = Place { directory: directory.unwrap() };
        place.app().execute_batch(setup).unwrap();
        place
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("app.db")
    }

    /// The app, as a program with the bundled library.
    fn app(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    fn settings(&self) -> FileSettings {
        FileSettings { name: "app".into(), path: self.path(), include: vec!["*".into()], ..FileSettings::default() }
    }

    /// litemesh's side.
    fn enrolled(&self) -> AppFile {
        let mut file = AppFile::open(self.settings()).unwrap();
        file.enroll().unwrap();
        file.schema_seen().unwrap();
        for table in file.tables_to_scan() {
            file.table_scanned(&table).unwrap();
        }
        file
    }
}

/// Runs a Python program with the file's path as its argument; returns what it printed.
fn python(path: &Path, program: &str, arguments: &[&str]) -> String {
    let output =
        Command::new("python3").args(["-I", "-S", "-c"]).arg(program).arg(path).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Who plays the app.
#[derive(Clone, Copy, Debug)]
enum Writer {
    Python,
    Bundled,
}

/// Runs statements one after the other on one connection, as an app would; constraint errors are part of the play.
/// Returns, per statement, its rows, `changes()` and `last_insert_rowid()`.
fn run(writer: Writer, path: &Path, statements: &[&str]) -> Vec<String> {
    match writer {
        Writer::Python => {
            let program = "
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)
for s in sys.argv[2:]:
    try:
        rows = c.execute(s).fetchall()
    except sqlite3.IntegrityError as e:
        rows = ['refused']
    more = c.execute('SELECT changes(), last_insert_rowid()').fetchone()
    print(rows and [r if isinstance(r, str) else '|'.join(map(str, r)) for r in rows] or [], *more)
c.close()
";
            python(path, program, statements).lines().map(str::to_owned).collect()
        }
        Writer::Bundled => {
            let connection = Connection::open(path).unwrap();
            statements.iter().map(|sql| run_bundled(&connection, sql)).collect()
        }
    }
}

fn run_bundled(connection: &Connection, sql: &str) -> String {
    let mut lines = Vec::new();
    let mut statement = connection.prepare(sql).unwrap();
    let width = statement.column_count();
    let mut rows = statement.raw_query();
    loop {
        match rows.next() {
            Ok(Some(row)) => {
                let cells: Vec<String> = (0..width)
                    .map(|column| match value::read(row.get_ref(column).unwrap()) {
                        Value::Text(bytes) => String::from_utf8(bytes).unwrap(),
                        Value::Null => "None".into(),
                        other => other.to_string(),
                    })
                    .collect();
                lines.push(format!("'{}'", cells.join("|")));
            }
            Ok(None) => break,
            Err(error) => {
                assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::ConstraintViolation), "{sql}: {error}");
                lines.push("'refused'".into());
                break;
            }
        }
    }
    drop(rows);
    drop(statement);
    let more: (i64, i64) = connection
        .query_row("SELECT changes(), last_insert_rowid()", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    format!("[{}] {} {}", lines.join(", "), more.0, more.1)
}

/// `I t 1`, `U t 1>2`, `D t 1`, `H t 1`; keys with commas.
fn show_marks(drain: &Drain) -> Vec<String> {
    drain
        .marks
        .iter()
        .map(|mark| {
            let op = match mark.op {
                MarkOp::Insert => "I",
                MarkOp::Update => "U",
                MarkOp::Delete => "D",
                MarkOp::Hint => "H",
            };
            let old = mark.old_key.as_ref().map(|key| format!("{}>", show(key))).unwrap_or_default();
            format!("{op} {} {old}{}", mark.table, show(&mark.key))
        })
        .collect()
}

/// `t 1: a,b` or `t 1: -`, in key order.
fn show_images(drain: &Drain) -> Vec<String> {
    drain
        .images
        .iter()
        .map(|((table, key), image)| {
            let image = image.as_ref().map_or("-".to_owned(), |image| show(image));
            format!("{table} {}: {image}", show(key))
        })
        .collect()
}

fn show(values: &[Value]) -> String {
    values.iter().map(Value::to_string).collect::<Vec<_>>().join(",")
}

fn int(value: i64) -> Value {
    Value::Integer(value)
}

fn key(values: impl IntoIterator<Item = Value>) -> Key {
    values.into_iter().collect()
}
