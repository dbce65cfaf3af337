//! Receive: frames to rows in the app's file, everything between them on.
//!
//! Two real nodes that were apart meet; the receiving one's calls are timed: frames decoded, hashes, chains and signatures
//! verified, events appended durably, evaluated, audited, applied in transactions, the file's sync among them. The rows came
//! from a real app through capture, 500 in a transaction (one line: one). Baselines write the same rows into a like file, in
//! turns. Invariant: afterwards both files are equal, and the conflicts that the line speaks of did happen. Does not count:
//! the network and the giver. Caller: main.

use std::ops::Range;
use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, TransactionBehavior};

use crate::asked::Asked;
use crate::mesh::{Mesh, copy, file_of};
use crate::report::{Budget, Line, Report, figure};
use crate::sample::in_turns;
use crate::shape::{self, Ids, Shape, TABLE, USUAL};
use crate::{Failure, hand_written};

const ON: &str = "log durable, hashes, chains and signatures verified, audit on, FULL";

/// What was done while the two were apart.
#[derive(Clone, Copy, Debug)]
enum Apart {
    /// The giver inserted rows.
    Inserts,
    /// The giver updated a cell of every row; of so many in a thousand rows the receiver updated the same cell.
    Updates { both_of_thousand: u64 },
    /// The giver inserted rows; every tenth id was given by the receiver as well.
    SameIds,
}

struct Case {
    words: String,
    shape: Shape,
    /// Rows that both have before.
    base: u64,
    /// Rows that come.
    rows: u64,
    per_transaction: u64,
    apart: Apart,
    budget: bool,
}

pub(crate) fn measure(asked: &Asked, report: &mut Report) -> Result<(), Failure> {
    let rows = asked.of(4_000, 50_000, 1_000_000);
    let full = asked.of(10_000, 200_000, 1_000_000);
    let single = asked.of(200, 2_000, 10_000);
    let case = |words: String, base, rows, apart| Case {
        words,
        shape: USUAL,
        base,
        rows,
        per_transaction: 500,
        apart,
        budget: false,
    };
    let updates = |both_of_thousand| Apart::Updates { both_of_thousand };
    let cases = [
        Case { budget: true, ..case(format!("{rows} inserts, empty node"), 10, rows, Apart::Inserts) },
        Case { budget: true, ..case(format!("{rows} inserts, node with {full} rows"), full, rows, Apart::Inserts) },
        Case { per_transaction: 1, ..case(format!("{single} inserts, one row per event"), 10, single, Apart::Inserts) },
        case(format!("{rows} updates, no conflict"), rows, rows, updates(0)),
        case(format!("{rows} updates, 1 % in conflict"), rows, rows, updates(10)),
        case(format!("{rows} updates, 50 % in conflict"), rows, rows, updates(500)),
        case(format!("{rows} inserts, every tenth id taken (re-keys)"), 10, rows, Apart::SameIds),
        Case {
            shape: Shape { refers: true, ..USUAL },
            ..case(format!("{rows} inserts that refer to a parent"), 10, rows, Apart::Inserts)
        },
    ];
    for case in cases {
        let scratch = tempfile::tempdir_in(&asked.folder)?;
        measure_case(asked, report, scratch.path(), &case)?;
    }
    Ok(())
}

/// Numbers of the rows that come.
fn coming(case: &Case) -> Range<u64> {
    match case.apart {
        Apart::Updates { .. } => 1..case.rows + 1,
        Apart::Inserts | Apart::SameIds => case.base + 1..case.base + case.rows + 1,
    }
}

fn measure_case(asked: &Asked, report: &mut Report, folder: &Path, case: &Case) -> Result<(), Failure> {
    let (apart, now) = set_apart(folder, case)?;
    let like = folder.join("like.db");
    hand_written::make(&like, case.shape, 1..case.base + 1)?;
    let rows: Vec<Vec<Value>> = coming(case).map(|number| case.shape.whole_row(Some(number as i64), number)).collect();
    let mut conflicts = 0;
    let samples = in_turns(asked.rounds(3), 3, |way, _| -> Result<f64, Failure> {
        let work = folder.join("work");
        let took = if way == 0 {
            copy(&apart, &work)?;
            let mut mesh = Mesh::open(&work, 2, now)?;
            mesh.connect()?;
            mesh.settle()?;
            conflicts = check(&mesh, case)?;
            let took = mesh.spent[1];
            mesh.close()?;
            took
        } else {
            let file = folder.join("work.db");
            std::fs::copy(&like, &file)?;
            let write = if way == 1 { hand_written::bare_upsert } else { hand_written::sync };
            let took = write(&file, case.shape, &rows)?;
            ["work.db", "work.db-wal", "work.db-shm"]
                .iter()
                .for_each(|name| drop(std::fs::remove_file(folder.join(name))));
            took
        };
        Ok(case.rows as f64 / took.as_secs_f64())
    })?;
    let [node, bare, hand] = &samples[..] else { return Err("three ways".into()) };
    let mut line = Line::new(&case.words, node.clone(), "rows/s", ON).against("bare upsert", bare.clone());
    if case.budget {
        line = line.ratio_within(Budget::Least(0.35, "≥ 0.35x"));
        line = line.value_within(Budget::Least(100_000.0, "≥ 100,000 rows/s"));
    }
    let also = format!("hand-written sync {} rows/s; {conflicts} records in the audit", figure(hand.median()));
    report.push(line.also(also))
}

/// Two closed servers that have the base rows and did something apart; and the time it is.
fn set_apart(folder: &Path, case: &Case) -> Result<(PathBuf, litemesh::node::Now), Failure> {
    let home = folder.join("apart");
    let mut mesh = Mesh::found(&home, 2, &case.shape.schema())?;
    mesh.meet()?;
    let mut giver = shape::open(&file_of(&home, 0), "NORMAL")?;
    if case.shape.refers {
        shape::write_parents(&giver)?;
        mesh.capture(0)?;
    }
    insert(&mut mesh, &mut giver, case, 1..case.base + 1, 1_000)?;
    mesh.settle()?;
    mesh.part()?;
    let mut receiver = shape::open(&file_of(&home, 1), "NORMAL")?;
    match case.apart {
        Apart::Inserts => insert(&mut mesh, &mut giver, case, coming(case), case.per_transaction)?,
        Apart::Updates { both_of_thousand } => {
            update(&mut mesh, 0, &mut giver, case, |number| Some(1_000 + number as i64))?;
            let mine = |number: u64| (number % 1_000 < both_of_thousand).then_some(-(number as i64));
            update(&mut mesh, 1, &mut receiver, case, mine)?;
        }
        Apart::SameIds => {
            insert(&mut mesh, &mut giver, case, coming(case), case.per_transaction)?;
            let (shift, taken) = (10_000_000, coming(case));
            let numbers = taken.start + shift..taken.start + shift + case.rows / 10;
            shape::insert_rows(&mut receiver, case.shape, numbers, Ids::Less(shift))?;
            mesh.capture(1)?;
        }
    }
    drop((giver, receiver));
    Ok((home, mesh.close()?))
}

fn insert(mesh: &mut Mesh, app: &mut Connection, case: &Case, rows: Range<u64>, each: u64) -> Result<(), Failure> {
    for from in rows.clone().step_by(each as usize) {
        shape::insert_rows(app, case.shape, from..(from + each).min(rows.end), Ids::Less(0))?;
        mesh.capture(0)?;
    }
    Ok(())
}

/// Updates one cell of the rows for which there is a value.
fn update(
    mesh: &mut Mesh,
    at: usize,
    app: &mut Connection,
    case: &Case,
    value: impl Fn(u64) -> Option<i64>,
) -> Result<(), Failure> {
    let numbers: Vec<u64> = coming(case).filter(|number| value(*number).is_some()).collect();
    for page in numbers.chunks(case.per_transaction as usize) {
        let transaction = app.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for number in page {
            let sql = format!("UPDATE {TABLE} SET n1 = ?2 WHERE id = ?1");
            transaction.prepare_cached(&sql)?.execute((*number as i64, value(*number)))?;
        }
        transaction.commit()?;
        mesh.capture(at)?;
    }
    Ok(())
}

/// What the line says did happen; records in the receiver's audit.
fn check(mesh: &Mesh, case: &Case) -> Result<u64, Failure> {
    let view = &mesh.nodes[1].status(mesh.now)?.databases[0];
    let parents = if case.shape.refers { shape::PARENTS } else { 0 };
    let (more, least) = match case.apart {
        Apart::Inserts => (case.rows, 0),
        Apart::Updates { both_of_thousand } => {
            (0, coming(case).filter(|number| number % 1_000 < both_of_thousand).count() as u64)
        }
        Apart::SameIds => (case.rows + case.rows / 10, case.rows / 10),
    };
    let wanted = case.base + more + parents;
    if view.rows != wanted || view.conflicts < least || view.shelved > 0 || view.held_events > 0 {
        return Err(format!("{}: wanted {wanted} rows and {least} conflicts, found {view:?}", case.words).into());
    }
    Ok(view.conflicts)
}
