//! Capture: from marks in the app's file to durable events, and how soon a commit is noticed.
//!
//! Rate: a real node takes what the app wrote before; its own calls are timed, the commit of the log among them. The
//! baseline is the app's writing of the same rows into a plain file: a node that is slower than that falls behind an app
//! that writes without pause. Wake-up: a real process; from the app's COMMIT to an empty outbox, seen from outside, so the
//! log's durable commit and the one that clears the marks are in it. Caller: main.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::asked::Asked;
use crate::mesh::{Mesh, file_of};
use crate::report::{Line, Report};
use crate::sample::{Sample, in_turns, percentile, timed};
use crate::shape::{self, DATABASE, Ids, TABLE, USUAL};
use crate::{Failure, cluster};

const ON: &str = "log durable (fsync), hashed, chained, evaluated, audit on";

pub(crate) fn measure(asked: &Asked, report: &mut Report) -> Result<(), Failure> {
    let scratch = tempfile::tempdir_in(&asked.folder)?;
    let many = asked.of(5_000, 50_000, 500_000);
    for (transactions, rows) in [(1, many), (many / 100, 100), (asked.of(100, 1_000, 10_000), 1)] {
        rate(asked, report, scratch.path(), transactions, rows)?;
    }
    one_by_one(asked, report, scratch.path())?;
    wake_up(asked, report, scratch.path())
}

/// One way or the other: the rows into a plain file, or the node's part of it.
fn rate(asked: &Asked, report: &mut Report, folder: &Path, transactions: u64, rows: u64) -> Result<(), Failure> {
    let count = transactions * rows;
    let samples = in_turns(asked.rounds(3), 2, |way, _| -> Result<f64, Failure> {
        let home = folder.join("rate");
        let _old = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(&home)?;
        if way == 0 {
            let path = home.join("plain.db");
            shape::make(&path, &USUAL.schema())?;
            let mut app = shape::open(&path, "FULL")?;
            let (_, took) = timed(|| write(&mut app, transactions, rows))?;
            return Ok(count as f64 / took.as_secs_f64());
        }
        let mut mesh = Mesh::found(&home, 1, &USUAL.schema())?;
        mesh.begin()?;
        let mut app = shape::open(&file_of(&home, 0), "FULL")?;
        write(&mut app, transactions, rows)?;
        let took = mesh.capture(0)?;
        let status = mesh.nodes[0].status(mesh.now)?;
        if status.databases[0].rows != count {
            return Err(format!("{} rows were captured instead of {count}", status.databases[0].rows).into());
        }
        mesh.close()?;
        Ok(count as f64 / took.as_secs_f64())
    })?;
    let words = format!("{transactions} transactions of {rows} rows wait, then the node captures");
    let line = Line::new(words, samples[1].clone(), "rows/s", ON).against("the app, plain SQLite", samples[0].clone());
    report.push(line)
}

fn write(app: &mut rusqlite::Connection, transactions: u64, rows: u64) -> Result<(), Failure> {
    for at in 0..transactions {
        shape::insert_rows(app, USUAL, at * rows..(at + 1) * rows, Ids::Free)?;
    }
    Ok(())
}

/// What an idle node does for one row.
fn one_by_one(asked: &Asked, report: &mut Report, folder: &Path) -> Result<(), Failure> {
    let home = folder.join("single");
    let mut mesh = Mesh::found(&home, 1, &USUAL.schema())?;
    mesh.begin()?;
    let mut app = shape::open(&file_of(&home, 0), "FULL")?;
    let sample: Sample = (0..asked.of(30, 300, 2_000))
        .map(|number| -> Result<f64, Failure> {
            shape::insert_rows(&mut app, USUAL, number..number + 1, Ids::Free)?;
            Ok(mesh.capture(0)?.as_secs_f64() * 1e3)
        })
        .collect::<Result<_, _>>()?;
    mesh.close()?;
    report.push(Line::new("one row: the node's own calls, each durable", sample, "ms", ON))
}

fn wake_up(asked: &Asked, report: &mut Report, folder: &Path) -> Result<(), Failure> {
    let mut server = cluster::server(folder, "waking", USUAL)?;
    server.start();
    server.steered(DATABASE, &[TABLE]);
    let mut app = shape::open(server.database(DATABASE), "FULL")?;
    let watch = shape::open(server.database(DATABASE), "FULL")?;
    let mut waits = Vec::new();
    for number in 0..asked.of(20, 200, 1_000) {
        shape::insert_rows(&mut app, USUAL, number..number + 1, Ids::Free)?;
        let committed = Instant::now();
        cluster::until("the outbox is empty", Duration::from_micros(50), || {
            Ok(!watch.prepare_cached("SELECT 1 FROM _litemesh_outbox LIMIT 1")?.exists([])?)
        })?;
        waits.push(committed.elapsed().as_secs_f64() * 1e3);
        // Another moment of the node's own rhythm each time.
        std::thread::sleep(Duration::from_millis(20 + number % 17));
    }
    server.stop();
    let p99 = percentile(&waits, 99.0);
    let line = Line::new("the daemon: commit to empty outbox, p50", waits.into_iter().collect(), "ms", ON);
    report.push(line.also(format!("p99 {p99:.2} ms; looked at every 0.1 ms")))
}
