//! What an app's writes cost: a plain file, one with capture, one with capture and steering.
//!
//! Each line: the same writes by the same app, in turns; the node does not run, except in the line that says so.
//! `ratio` is what the app pays. Invariant: WAL; `synchronous` as each line says. Caller: main.

use std::path::Path;
use std::process::Command;

use crate::app_file::{Act, Kind, Subject};
use crate::asked::Asked;
use crate::report::{Budget, Line, Report};
use crate::sample::{Sample, in_turns, timed};
use crate::shape::{self, Ids, Shape, TABLE, USUAL};
use crate::support::server::Server;
use crate::{Failure, cluster};

const KINDS: [Kind; 3] = [Kind::Plain, Kind::Capture, Kind::Steered];

/// Rows of the one statement.
const STATEMENT_ROWS: u64 = 50_000;

const NODE_OFF: &str = "WAL; marks in the app's transaction";
const NODE_ON: &str = "WAL; the daemon drains, logs durably, audits";

pub(crate) fn measure(asked: &Asked, report: &mut Report) -> Result<(), Failure> {
    let scratch = tempfile::tempdir_in(&asked.folder)?;
    let folder = scratch.path();
    for synchronous in ["FULL", "NORMAL"] {
        for rows in [1, 100, 10_000] {
            written(asked, report, folder, &Case { act: Act::Insert, rows, shape: USUAL, synchronous })?;
        }
    }
    for act in [Act::Update, Act::Delete] {
        for rows in [1, 100, 10_000] {
            written(asked, report, folder, &Case { act, rows, shape: USUAL, synchronous: "FULL" })?;
        }
    }
    one_statement(asked, report, folder)?;
    for (columns, unique) in [(3, 0), (40, 0), (10, 2), (10, 5)] {
        for rows in [1, 10_000] {
            let shape = Shape { columns, unique, ..USUAL };
            written(asked, report, folder, &Case { act: Act::Insert, rows, shape, synchronous: "FULL" })?;
        }
    }
    for rows in [1, 10_000] {
        python(asked, report, folder, rows)?;
    }
    beside_a_node(asked, report, folder)
}

struct Case {
    act: Act,
    rows: u64,
    shape: Shape,
    synchronous: &'static str,
}

impl Case {
    fn words(&self) -> String {
        let Case { act, rows, shape, synchronous } = self;
        let each = if *rows == 1 { "1 row".into() } else { format!("{rows} rows") };
        let mut words = format!("{}, {each} per transaction, {synchronous}", act.name());
        if shape.columns != USUAL.columns {
            words += &format!(", {} columns", shape.columns);
        }
        if shape.unique > 0 {
            words += &format!(", {} UNIQUE indexes", shape.unique);
        }
        words
    }

    /// The budget for capture and steering together.
    fn budget(&self) -> Option<Budget> {
        if self.shape != USUAL || self.act != Act::Insert {
            return None;
        }
        match (self.rows, self.synchronous) {
            (1, "FULL") => Some(Budget::Most(1.10, "≤ 1.10x")),
            (1, _) => Some(Budget::Most(1.5, "≤ 1.5x")),
            (10_000, _) => Some(Budget::Most(1.8, "≤ 1.8x")),
            _ => None,
        }
    }
}

fn subjects(folder: &Path, shape: Shape, synchronous: &str) -> Result<Vec<Subject>, Failure> {
    KINDS.into_iter().map(|kind| Subject::new(folder, kind, shape, synchronous)).collect()
}

/// Transactions of one timed stretch.
fn transactions(asked: &Asked, rows: u64) -> u64 {
    match rows {
        1 => asked.of(20, 200, 1_000),
        100 => asked.of(3, 30, 200),
        _ => asked.of(1, 1, 5),
    }
}

/// Both lines of a case: with steering, and without.
fn written(asked: &Asked, report: &mut Report, folder: &Path, case: &Case) -> Result<(), Failure> {
    let (rounds, count) = (asked.rounds(5), transactions(asked, case.rows));
    let mut subjects = subjects(folder, case.shape, case.synchronous)?;
    for subject in &mut subjects {
        // A file is never quite empty, and what is to be updated or deleted must be there.
        subject.fill(if case.act == Act::Insert { 1_000 } else { (rounds as u64 + 1) * count * case.rows })?;
        subject.write(case.act, 1, case.rows)?;
    }
    let samples = in_turns(rounds, subjects.len(), |way, _| -> Result<f64, Failure> {
        let took = subjects[way].write(case.act, count, case.rows)?;
        Ok(took.as_secs_f64() * 1e6 / (count * case.rows) as f64)
    })?;
    let [plain, capture, steered] = &samples[..] else { return Err("three kinds of files".into()) };
    let words = case.words();
    let mut line = Line::new(format!("{words}, capture and steering"), steered.clone(), "µs/row", NODE_OFF)
        .against("plain SQLite", plain.clone());
    if let Some(budget) = case.budget() {
        line = line.ratio_within(budget);
    }
    report.push(line)?;
    if case.act == Act::Insert {
        let line = Line::new(format!("{words}, capture alone"), capture.clone(), "µs/row", NODE_OFF);
        report.push(line.against("plain SQLite", plain.clone()))?;
    }
    Ok(())
}

fn one_statement(asked: &Asked, report: &mut Report, folder: &Path) -> Result<(), Failure> {
    let names = USUAL.names().join(", ");
    let rounds = asked.rounds(5);
    for (words, sql, after) in [
        ("update", format!("UPDATE {TABLE} SET n1 = n1 + 1"), ""),
        (
            "insert … select",
            format!("INSERT INTO {TABLE} ({names}) SELECT {names} FROM {TABLE}"),
            // Back to where it was, not timed.
            "DELETE FROM scouting_data WHERE id > (SELECT max(id) FROM kept)",
        ),
    ] {
        let mut subjects = subjects(folder, USUAL, "FULL")?;
        for subject in &mut subjects {
            subject.fill(STATEMENT_ROWS)?;
            subject.app.execute_batch(&format!("CREATE TEMP TABLE kept AS SELECT max(id) AS id FROM {TABLE}"))?;
        }
        let samples = in_turns(rounds, subjects.len(), |way, _| -> Result<f64, Failure> {
            let took = subjects[way].statement(&sql, STATEMENT_ROWS)?;
            subjects[way].app.execute_batch(after)?;
            Ok(took.as_secs_f64() * 1e6 / STATEMENT_ROWS as f64)
        })?;
        let line = Line::new(
            format!("one statement, {words}, {STATEMENT_ROWS} rows, FULL, capture and steering"),
            samples[2].clone(),
            "µs/row",
            NODE_OFF,
        );
        let line = line.against("plain SQLite", samples[0].clone());
        report.push(line.ratio_within(Budget::Most(1.8, "≤ 1.8x")))?;
    }
    Ok(())
}

/// The app is Python's own `sqlite3`, another SQLite library; it times itself.
const PYTHON: &str = "
import sqlite3, sys, time
path, rows, transactions, columns = sys.argv[1], *map(int, sys.argv[2:5])
app = sqlite3.connect(path, timeout=10, isolation_level=None)
app.execute('PRAGMA synchronous = FULL')
insert = 'INSERT INTO scouting_data VALUES (%s)' % ', '.join('?' * columns)
row = lambda n: [None] + [n % 200] * 5 + ['%040d' % (n * at) for at in range(4)]
made = [[row(t * rows + r) for r in range(rows)] for t in range(transactions)]
began = time.perf_counter()
for batch in made:
    app.execute('BEGIN IMMEDIATE')
    app.executemany(insert, batch)
    app.execute('COMMIT')
print(time.perf_counter() - began)
";

fn python(asked: &Asked, report: &mut Report, folder: &Path, rows: u64) -> Result<(), Failure> {
    let count = transactions(asked, rows);
    let mut subjects = subjects(folder, USUAL, "FULL")?;
    let samples = in_turns(asked.rounds(5), subjects.len(), |way, _| -> Result<f64, Failure> {
        subjects[way].tidy()?;
        let mut python = Command::new("python3");
        python.args(["-c", PYTHON]).arg(&subjects[way].path);
        let output = python.args([rows, count, USUAL.columns as u64].map(|number| number.to_string())).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        let seconds: f64 = String::from_utf8_lossy(&output.stdout).trim().parse()?;
        Ok(seconds * 1e6 / (rows * count) as f64)
    })?;
    let line = Line::new(
        format!("Python: insert, {rows} per transaction, FULL, capture and steering"),
        samples[2].clone(),
        "µs/row",
        NODE_OFF,
    );
    report.push(line.against("plain SQLite", samples[0].clone()))
}

/// The node runs and captures while the app writes: they share the disk and the two cores.
fn beside_a_node(asked: &Asked, report: &mut Report, folder: &Path) -> Result<(), Failure> {
    let root = tempfile::tempdir_in(folder)?;
    let mut server: Server = cluster::server(root.path(), "alone", USUAL)?;
    server.start();
    server.steered(shape::DATABASE, &[TABLE]);
    let mut with = shape::open(server.database(shape::DATABASE), "FULL")?;
    let plain = root.path().join("plain.db");
    shape::make(&plain, &USUAL.schema())?;
    let mut without = shape::open(&plain, "FULL")?;
    for (rows, count) in [(1, transactions(asked, 1)), (100, transactions(asked, 100))] {
        let samples = in_turns(asked.rounds(5), 2, |way, round| -> Result<f64, Failure> {
            let app = if way == 1 { &mut with } else { &mut without };
            let first = 1_000_000 * (round as u64 + 1) * rows;
            let (_, took) = timed(|| -> Result<(), Failure> {
                for at in 0..count {
                    let from = first + at * rows;
                    shape::insert_rows(app, USUAL, from..from + rows, Ids::Free)?;
                }
                Ok(())
            })?;
            cluster::captured(&server)?;
            Ok(took.as_secs_f64() * 1e6 / (count * rows) as f64)
        })?;
        let [plain, node]: [Sample; 2] = samples.try_into().map_err(|_| "two ways")?;
        let words = format!("insert, {rows} per transaction, FULL, while the daemon captures");
        report.push(Line::new(words, node, "µs/row", NODE_ON).against("plain SQLite", plain))?;
    }
    server.stop();
    Ok(())
}
