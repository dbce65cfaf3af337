//! The core's paths, each run once on fixed input, for callgrind to count what they cost.
//!
//! One thread, virtual time, fixed seeds and values; real logs and files in a folder that is given. Only what runs inside
//! [`mesh::counted_section`] counts: the node's own calls, not the preparation. Instructions say nothing of disks and
//! caches (`cargo bench` does), but they are the same on every run to a fraction of a percent, so a path that became dearer
//! shows on any machine, however busy. Marks carry the machine's time and random bits; both are overwritten before they count.
//! Invariant: a path that did not do what it should (rows, conflicts, equal digests) fails instead of being counted.
//! Caller: `.ci/instructions`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

// Each of these has other callers, who use the rest.
#[allow(dead_code)]
#[path = "../simulations/bytes.rs"]
mod bytes;
#[allow(dead_code)]
#[path = "performance/mesh.rs"]
mod mesh;
#[allow(dead_code)]
#[path = "../simulations/reconcile.rs"]
mod reconcile;
#[allow(dead_code)]
#[path = "performance/shape.rs"]
mod shape;
/// The simulator's scratch folders, where the shared measurement looks for them.
#[path = "../simulations/world"]
mod world {
    #[allow(dead_code)]
    pub mod scratch;
}

use std::path::Path;
use std::process::ExitCode;

use litemesh::node::{Input, Now};
use litemesh::wire::{decode_event, encode_event};
use mesh::{Mesh, counted_section, file_of};
use rusqlite::Connection;
use shape::{Ids, TABLE, USUAL};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Rows of every path.
const ROWS: u64 = 1_000;

/// Rows that two logs share when they are compared, and that differ.
const COMPARED: (u64, u64) = (5_000, 100);

type Run = fn(&Path) -> Result<(), Failure>;

const PATHS: [(&str, Run); 6] = [
    ("capture", capture),
    ("apply-inserts", apply_inserts),
    ("apply-conflicts", apply_conflicts),
    ("encode", encode),
    ("decode", decode),
    ("descent", descent),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.as_slice() {
        [word] if word == "list" => {
            PATHS.iter().for_each(|(name, _)| println!("{name}"));
            Ok(())
        }
        [name, folder] => match PATHS.iter().find(|(known, _)| known == name) {
            Some((_, run)) => run(Path::new(folder)),
            None => Err(format!("there is no path {name:?}: `instructions list` names them").into()),
        },
        _ => Err("usage: instructions list | instructions PATH EMPTY_FOLDER".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// A node captures what its app wrote in one transaction.
fn capture(folder: &Path) -> Result<(), Failure> {
    let mut mesh = Mesh::found(folder, 1, &USUAL.schema())?;
    mesh.begin()?;
    let mut app = shape::open(&file_of(folder, 0), "FULL")?;
    shape::insert_rows(&mut app, USUAL, 1..ROWS + 1, Ids::Free)?;
    make_marks_alike(&app)?;
    mesh.counted = Some(0);
    mesh.input(0, Input::FileTouched(0))?;
    while app.prepare_cached("SELECT 1 FROM _litemesh_outbox LIMIT 1")?.exists([])? {
        mesh.input(0, Input::Tick)?;
        mesh.now = Now { mono_ms: mesh.now.mono_ms + 1, wall_ms: mesh.now.wall_ms + 1 };
    }
    mesh.counted = None;
    wanted(&mesh, 0, ROWS, 0)
}

/// Captures what an app wrote, with marks that are the same in every run: as if written at one moment, by fixed dice.
fn capture_alike(mesh: &mut Mesh, at: usize, app: &Connection) -> Result<(), Failure> {
    make_marks_alike(app)?;
    mesh.capture(at)?;
    Ok(())
}

fn make_marks_alike(app: &Connection) -> Result<(), Failure> {
    app.execute("UPDATE _litemesh_outbox SET at = 2460827.5, rid = seq * 2654435761", [])?;
    Ok(())
}

/// Rows in a node's file, and at least so many records in its audit.
fn wanted(mesh: &Mesh, at: usize, rows: u64, conflicts: u64) -> Result<(), Failure> {
    let view = &mesh.nodes[at].status(mesh.now)?.databases[0];
    if view.rows != rows || view.conflicts < conflicts {
        return Err(format!("wanted {rows} rows and {conflicts} conflicts, found {view:?}").into());
    }
    Ok(())
}

/// Two servers that have the same rows, apart; and their apps.
fn apart(folder: &Path, rows: u64) -> Result<(Mesh, Connection, Connection), Failure> {
    let mut mesh = Mesh::found(folder, 2, &USUAL.schema())?;
    mesh.meet()?;
    let mut giver = shape::open(&file_of(folder, 0), "FULL")?;
    shape::insert_rows(&mut giver, USUAL, 1..rows + 1, Ids::Less(0))?;
    capture_alike(&mut mesh, 0, &giver)?;
    mesh.settle()?;
    mesh.part()?;
    let receiver = shape::open(&file_of(folder, 1), "FULL")?;
    Ok((mesh, giver, receiver))
}

/// The second server meets the first again; its calls count.
fn meet_counted(mesh: &mut Mesh) -> Result<(), Failure> {
    mesh.counted = Some(1);
    mesh.connect()?;
    mesh.until("all are equal", |mesh| Ok(mesh.is_settled()))?;
    mesh.counted = None;
    mesh.settle()
}

/// A node takes inserts in: frames, verification, log, evaluation, file.
fn apply_inserts(folder: &Path) -> Result<(), Failure> {
    let (mut mesh, mut giver, _receiver) = apart(folder, 10)?;
    shape::insert_rows(&mut giver, USUAL, 11..ROWS + 11, Ids::Less(0))?;
    capture_alike(&mut mesh, 0, &giver)?;
    meet_counted(&mut mesh)?;
    wanted(&mesh, 1, ROWS + 10, 0)
}

/// The same with updates, every one of which meets another of the same cell.
fn apply_conflicts(folder: &Path) -> Result<(), Failure> {
    let (mut mesh, giver, receiver) = apart(folder, ROWS)?;
    for (at, app, value) in [(0, &giver, 1_000), (1, &receiver, 2_000)] {
        app.execute(&format!("UPDATE {TABLE} SET n1 = ? + id"), [value])?;
        capture_alike(&mut mesh, at, app)?;
    }
    meet_counted(&mut mesh)?;
    wanted(&mesh, 1, ROWS, ROWS)
}

/// The bytes of an event of many rows, as a node made it.
fn event_bytes(folder: &Path) -> Result<Vec<u8>, Failure> {
    let (mesh, _giver, _receiver) = apart(folder, ROWS)?;
    let read = mesh.nodes[0].log().read()?;
    let mut longest = Vec::new();
    for arrival in read.arrivals(0, 100)? {
        let event = read.event(&arrival.origin, arrival.seq)?.ok_or("an event that arrived is not there")?;
        if event.bytes.len() > longest.len() {
            longest = event.bytes.clone();
        }
    }
    Ok(longest)
}

fn encode(folder: &Path) -> Result<(), Failure> {
    let bytes = event_bytes(folder)?;
    let event = decode_event(&bytes)?;
    let encoded = counted_section(&mut || encode_event(&event));
    if encoded == bytes { Ok(()) } else { Err("an event encodes to other bytes".into()) }
}

fn decode(folder: &Path) -> Result<(), Failure> {
    let bytes = event_bytes(folder)?;
    let event = counted_section(&mut || decode_event(&bytes))?;
    if event.changes.len() as u64 == ROWS { Ok(()) } else { Err(format!("{} rows", event.changes.len()).into()) }
}

/// Two logs find the rows that differ.
fn descent(folder: &Path) -> Result<(), Failure> {
    let (rows, differ) = COMPARED;
    let found = || -> Result<(), Box<dyn std::error::Error>> {
        let (stock, ..) = reconcile::Stock::new(folder, rows)?;
        let other = stock.other(differ, false)?;
        counted_section(&mut || stock.find(&other, differ))?;
        Ok(())
    };
    found().map_err(|error| error.to_string().into())
}
