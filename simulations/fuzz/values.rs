//! The targets of values and of names: two servers, any schema, any values, both directions; every cell must be the same
//! bits on the far server, and stay the same bits on the near one.
//!
//! What it does not verify: rows whose key holds NULL stay on their server by design, so none is written; values above the
//! limit (`tests/values.rs`). Caller: the table of targets.

use std::sync::atomic::{AtomicU64, Ordering};

use litemesh::model::Value;

use crate::draws::{Draws, random};
use crate::duo::{Bits, Duo, quote};
use crate::shape::{self, Table};
use crate::target::{Outcome, Target};

/// Values compared on the far server so far.
pub static COMPARED: AtomicU64 = AtomicU64::new(0);

/// Values of every kind.
pub const VALUES: Target = Target {
    name: "values",
    promise: "every value an app writes is the same bits on the far server",
    run: |bytes| run(bytes, false),
    generate: |dice| random(dice, 16_000),
    words: &[],
};

/// Names of every kind.
pub const NAMES: Target = Target {
    name: "names",
    promise: "any name SQLite takes is captured and applied; none becomes SQL",
    run: |bytes| run(bytes, true),
    generate: |dice| random(dice, 1_500),
    words: &[
        b"\"",
        b"\"\"",
        b"'",
        b";",
        b"--",
        b"/*",
        b"\n",
        b"\xf0\x9f\x98\x80",
        b"DROP TABLE t",
        b"[",
        b"`",
        b"\xe2\x80\xae",
    ],
};

fn run(bytes: &[u8], wild: bool) -> Outcome {
    let mut draws = Draws::new(bytes);
    let steering_runs = *draws.pick(&[0, 16]);
    let tables = accepted(&mut draws, wild);
    let schema: Vec<String> = tables.iter().flat_map(|table| table.sql.clone()).collect();
    let mut duo = Duo::new(&schema, steering_runs);
    let mut outcome = String::new();
    for round in 0..2 + draws.below(2) as usize {
        let writer = round % 2;
        let statements = if wild { 3 } else { 10 + draws.below(30) };
        for _ in 0..statements {
            for table in &tables {
                outcome.push(write(&duo, writer, table, &mut draws));
            }
        }
        let before: Vec<_> = tables.iter().map(|table| duo.rows(writer, &table.name)).collect();
        duo.work();
        for (table, before) in tables.iter().zip(before) {
            compare(&duo, writer, table, &before);
        }
    }
    outcome.truncate(24);
    outcome.into()
}

/// Tables that SQLite takes.
fn accepted(draws: &mut Draws<'_>, wild: bool) -> Vec<Table> {
    let trial = rusqlite::Connection::open_in_memory().expect("memory");
    let mut tables = Vec::new();
    for number in 0..1 + draws.below(3) as usize {
        let table = shape::table(draws, wild, number);
        if trial.execute_batch(&table.sql.join(";")).is_ok() {
            tables.push(table);
        }
    }
    tables
}

/// Both files hold the same bits, those that the writer's app left.
fn compare(duo: &Duo, writer: usize, table: &Table, before: &[Vec<Value>]) {
    let name = &table.name;
    let here = duo.rows(writer, name);
    assert!(here == before, "the writer's own rows of {name:?} changed: {}", first_difference(before, &here));
    let there = duo.rows(1 - writer, name);
    assert!(here == there, "the far server shows other rows of {name:?}: {}", first_difference(&here, &there));
    COMPARED.fetch_add(here.iter().map(|row| row.len() as u64).sum(), Ordering::Relaxed);
}

fn first_difference(one: &[Vec<Value>], other: &[Vec<Value>]) -> String {
    let short = |rows: &[Vec<Value>], against: &[Vec<Value>]| {
        let row = rows.iter().find(|row| !against.contains(row));
        let mut text = format!("{row:?}");
        text.truncate(text.char_indices().nth(400).map_or(text.len(), |(at, _)| at));
        text
    };
    format!(
        "{} rows against {}; only in the first {}, only in the second {}",
        one.len(),
        other.len(),
        short(one, other),
        short(other, one)
    )
}

/// One statement of the app; a capital letter when SQLite took it.
fn write(duo: &Duo, writer: usize, table: &Table, draws: &mut Draws<'_>) -> char {
    let app = &duo.apps[writer];
    let name = quote(&table.name);
    let row = |draws: &mut Draws<'_>| {
        let first = if table.has_rowid { "rowid".to_string() } else { quote(&table.columns[0]) };
        format!("{first} IN (SELECT {first} FROM {name} LIMIT 1 OFFSET {})", draws.below(6))
    };
    let kind = draws.below(10);
    let (letter, sql, values) = match kind {
        0..=5 => {
            let or = draws.pick(&["", "", "", " OR REPLACE", " OR IGNORE"]);
            let columns: Vec<String> = table.columns.iter().map(|column| quote(column)).collect();
            let places: Vec<&str> = columns.iter().map(|_| "?").collect();
            // Known limit of capture: a REPLACE of the key 0.0 by -0.0 is not seen.
            let zero =
                |value| if value == Value::Real(1 << 63) && or.contains("REPLACE") { Value::Real(0) } else { value };
            let values = columns.iter().map(|_| zero(shape::value(draws))).collect::<Vec<Value>>();
            ('i', format!("INSERT{or} INTO {name}({}) VALUES ({})", columns.join(", "), places.join(", ")), values)
        }
        6..=8 => {
            let column = quote(draws.pick::<String>(&table.columns));
            let value = shape::value(draws);
            ('u', format!("UPDATE {name} SET {column} = ? WHERE {}", row(draws)), vec![value])
        }
        _ => ('d', format!("DELETE FROM {name} WHERE {}", row(draws)), Vec::new()),
    };
    let done = app.execute(&sql, rusqlite::params_from_iter(values.iter().map(Bits)));
    if done.is_ok_and(|rows| rows > 0) { letter.to_ascii_uppercase() } else { letter }
}
