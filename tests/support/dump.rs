//! What stands in a file: every replicated table, row by row, value by value, bit by bit.
//!
//! Invariant: two dumps are equal exactly when an application that reads both files by any query sees the same,
//! ids included. The node's own tables, virtual tables and their shadows are left out.
//! Callers: every test that compares servers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

/// Table name to its rows, sorted.
pub(crate) type Dump = BTreeMap<String, Vec<String>>;

/// Opens a file for reading while others write it.
pub(crate) fn open(path: &Path) -> Connection {
    // Not read-only: a WAL file's shared memory may have to be made, as any application would.
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    connection.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    connection
}

/// The tables of a file, except those in `left_out`, in one snapshot.
pub(crate) fn dump(path: &Path, left_out: &[&str]) -> Dump {
    let mut connection = open(path);
    let snapshot = connection.transaction().unwrap();
    let mut statement = snapshot.prepare("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'");
    let names: Vec<String> =
        statement.as_mut().unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let hidden = |name: &str| name.starts_with("sqlite_") || name.starts_with("_litemesh_") || left_out.contains(&name);
    names.into_iter().filter(|name| !hidden(name)).map(|name| (name.clone(), rows(&snapshot, &name))).collect()
}

/// Every row of a table as text that loses nothing, sorted.
pub(crate) fn rows(connection: &Connection, table: &str) -> Vec<String> {
    let mut columns =
        connection.prepare("SELECT name FROM pragma_table_xinfo(?1) WHERE hidden <> 1 ORDER BY cid").unwrap();
    let names: Vec<String> = columns.query_map([table], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let list: Vec<String> = names.iter().map(|name| quoted(name)).collect();
    let mut statement = connection.prepare(&format!("SELECT {} FROM {}", list.join(", "), quoted(table))).unwrap();
    let mut found = Vec::new();
    let mut cursor = statement.query([]).unwrap();
    while let Some(row) = cursor.next().unwrap() {
        let mut text = String::new();
        for (index, name) in names.iter().enumerate() {
            let _ = write!(text, "{name}={} ", exact(row.get_ref(index).unwrap()));
        }
        found.push(text.trim_end().to_owned());
    }
    found.sort();
    found
}

/// A value so that two different ones never look alike: 1 and 1.0, -0.0 and 0.0, text and blob.
fn exact(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => format!("{number:?}r"),
        ValueRef::Text(bytes) => format!("'{}'", bytes.escape_ascii()),
        ValueRef::Blob(bytes) => format!("x'{}'", bytes.escape_ascii()),
    }
}

/// A name as SQL wants it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What differs, in words, at most a dozen lines; none when equal.
pub(crate) fn difference(left: &Dump, right: &Dump) -> Option<String> {
    let tables: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let mut lines = Vec::new();
    for table in tables {
        match (left.get(table), right.get(table)) {
            (Some(left), Some(right)) if left == right => {}
            (Some(left), Some(right)) => {
                lines.push(format!("{table}: {} rows against {}", left.len(), right.len()));
                let (here, there): (BTreeSet<_>, BTreeSet<_>) = (left.iter().collect(), right.iter().collect());
                lines.extend(here.difference(&there).take(3).map(|row| format!("  only left  {row}")));
                lines.extend(there.difference(&here).take(3).map(|row| format!("  only right {row}")));
            }
            (here, _) => lines.push(format!("{table}: only {}", if here.is_some() { "left" } else { "right" })),
        }
    }
    lines.truncate(12);
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// One number from a file.
#[track_caller]
pub(crate) fn number(path: &Path, query: &str) -> i64 {
    open(path).query_row(query, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{query}: {error}"))
}

/// The first column of every row, as text.
#[track_caller]
pub(crate) fn texts(path: &Path, query: &str) -> Vec<String> {
    let connection = open(path);
    let mut statement = connection.prepare(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    let mut cursor = statement.query([]).unwrap();
    let mut found = Vec::new();
    while let Some(row) = cursor.next().unwrap() {
        found.push(match row.get_ref(0).unwrap() {
            ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => exact(other),
        });
    }
    found
}

/// A file that SQLite itself finds sound, with every declared reference pointing at something.
#[track_caller]
pub(crate) fn assert_sound(path: &Path) {
    assert_eq!(texts(path, "PRAGMA integrity_check"), ["ok"], "{}", path.display());
    assert_eq!(texts(path, "PRAGMA foreign_key_check"), Vec::<String>::new(), "{}", path.display());
}
