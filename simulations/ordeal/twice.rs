//! `ordeal twice`: two processes on one data directory, a copied one, and everything that can happen to the files of an
//! application under a running node.
//!
//! Each scenario gets two fresh servers. Afterwards nothing that was acknowledged may be lost or doubled, except where SQLite
//! itself can no longer know it (`-wal` deleted): there what the log has must be there. `tests/lifecycle.rs` and
//! `tests/crash.rs` cover restored backups, replaced files and second processes for one table and one row; here an
//! application writes all the time. Does not verify: network file systems, and an application of another user. Called by
//! `main`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::app::{Work, locked};
use super::host::{is_root, tool};
use super::outcome::{Figures, Trouble};
use super::server::{Server, Start};
use super::world::{World, copy_folder};
use super::{Asked, progress};

type Scenario = fn(&mut World, &Path) -> Result<(), Trouble>;

/// Name, and what it does.
const SCENARIOS: [(&str, Scenario); 9] = [
    ("second process", second_process),
    ("file replaced by an older copy", older_copy),
    ("file replaced by another", another_file),
    ("wal deleted while stopped", wal_deleted),
    ("foreign wal", foreign_wal),
    ("journal mode switched", journal_mode),
    ("read-only file", read_only_file),
    ("read-only directory", read_only_directory),
    // Last, because it takes longest.
    ("copied directory", copied_directory),
];

/// Who runs a node that may not write.
const NOBODY: &str = "65534";

pub fn call(asked: &Asked, litemesh: &Path, root: &Path) -> Result<Figures, Trouble> {
    let (mut done, mut skipped, started) = (0, Vec::new(), Instant::now());
    for (number, (name, scenario)) in SCENARIOS.into_iter().enumerate() {
        if asked.count.is_some_and(|count| done >= count)
            || asked.secs.is_some_and(|secs| started.elapsed().as_secs() >= secs)
        {
            skipped.push(format!("{name}: no time"));
            continue;
        }
        let place = root.join(format!("t{number}"));
        std::fs::create_dir_all(&place)?;
        let mut world = World::new(litemesh, &place, 2)?;
        write(&mut world, 0, 15)?;
        write(&mut world, 1, 15)?;
        world.check().map_err(|trouble| trouble.at(name))?;
        match scenario(&mut world, &place) {
            Ok(()) => {
                done += 1;
                progress(&format!("{name}: nothing lost, nothing doubled"));
            }
            Err(Trouble::Cannot { because, .. }) => skipped.push(format!("{name}: {because}")),
            Err(trouble) => return Err(trouble.at(name)),
        }
    }
    let mut figures = Figures::default();
    figures.set("scenarios", done);
    figures.set("skipped", skipped.len() as u64);
    if !skipped.is_empty() {
        figures.set("skipped_because", format!("({})", skipped.join("; ")));
    }
    figures.set("lost", 0);
    figures.set("doubled", 0);
    Ok(figures)
}

fn write(world: &mut World, server: usize, count: u64) -> Result<(), Trouble> {
    world.app(server, &Work { count, pause_us: 500, seed: count, ..Work::default() })?.wait()
}

/// The end of every scenario: both write again, and all is there.
fn goes_on(world: &mut World) -> Result<(), Trouble> {
    write(world, 0, 8)?;
    write(world, 1, 8)?;
    world.check_all()
}

fn second_process(world: &mut World, place: &Path) -> Result<(), Trouble> {
    let first = &world.servers[0];
    let pid = first.pid().unwrap_or_default();
    let mut second = Server::new(&first.litemesh, place, "s0")?;
    match second.try_start()? {
        Start::Ended(answer)
            if answer.code == Some(1) && answer.err.contains(&format!("already running, pid {pid}")) => {}
        Start::Ended(answer) => return Err(Trouble::wrong(format!("the second process: {}", answer.words()))),
        Start::Ready => return Err(Trouble::wrong("a second process runs on the same data directory")),
    }
    goes_on(world)
}

/// The data directory and the files are copied to a second place; both go on, with one key.
fn copied_directory(world: &mut World, place: &Path) -> Result<(), Trouble> {
    world.servers[1].stop_well()?;
    let mut copy = Server::new(&world.servers[1].litemesh, place, "copy")?;
    for (from, to) in [(&world.servers[1].data, &copy.data), (&world.servers[1].files, &copy.files)] {
        copy_folder(from, to)?;
    }
    copy.peer = world.servers[0].address();
    world.servers[1].start()?;
    copy.start()?;
    world.servers.push(copy);
    for server in [1, 2, 0, 2, 1] {
        write(world, server, 10)?;
    }
    // Two with one key may drive each other off the line: each gets a time alone with the first.
    for alone in [1, 2, 1] {
        for other in [1, 2] {
            let server = &mut world.servers[other];
            match (other == alone, server.is_started()) {
                (true, false) => server.start()?,
                (false, true) => server.kill()?,
                _ => {}
            }
        }
        // What the first server was told by the other copy counts until the next hello, half a minute later; asked, now.
        let _ = world.servers[alone].cli(&["sync", "--wait", "5"])?;
        world.settled(Duration::from_secs(45)).map_err(|trouble| trouble.at(&format!("alone with server {alone}")))?;
    }
    for server in [0, 1] {
        world.check_files(&world.servers[server])?;
    }
    world.servers[1].kill()?;
    world.servers[2].start()?;
    let _ = world.servers[2].cli(&["sync", "--wait", "5"])?;
    world.settled(Duration::from_secs(45))?;
    world.check_files(&world.servers[2])?;
    world.servers.truncate(2);
    world.servers[1].start()?;
    goes_on(world)
}

/// Copies a live file with SQLite's own backup.
fn back_up(from: &Path, to: &Path) -> Result<(), Trouble> {
    let (source, mut target) = (Connection::open(from)?, Connection::open(to)?);
    let backup = rusqlite::backup::Backup::new(&source, &mut target)?;
    backup.run_to_completion(1_000, Duration::ZERO, None)?;
    Ok(())
}

/// `mv` of another file over the application's, as an administrator does it: without its `-wal` and `-shm`.
fn replace(file: &Path, by: &Path) -> Result<(), Trouble> {
    for leftover in ["-wal", "-shm"] {
        // Not there after a clean close.
        let _ = std::fs::remove_file(format!("{}{leftover}", file.display()));
    }
    Ok(std::fs::rename(by, file)?)
}

fn older_copy(world: &mut World, place: &Path) -> Result<(), Trouble> {
    let file = world.servers[1].files.join("one.db");
    back_up(&file, &place.join("old.db"))?;
    write(world, 1, 20)?;
    world.check()?;
    replace(&file, &place.join("old.db"))?;
    world.check().map_err(|trouble| trouble.at("under the running node"))?;
    goes_on(world)
}

/// A new, empty file of the same application: the log's rows are written into it.
fn another_file(world: &mut World, place: &Path) -> Result<(), Trouble> {
    let other = place.join("other.db");
    Connection::open(&other)?.execute_batch(super::app::SCHEMA)?;
    replace(&world.servers[1].files.join("one.db"), &other)?;
    world.check().map_err(|trouble| trouble.at("under the running node"))?;
    goes_on(world)
}

/// The node is killed and its file's `-wal` deleted: what was committed there and captured comes back from the log.
fn wal_deleted(world: &mut World, _place: &Path) -> Result<(), Trouble> {
    write(world, 1, 20)?;
    world.check()?;
    world.servers[1].kill()?;
    for name in ["one.db-wal", "one.db-shm"] {
        // A checkpoint may have taken them away.
        let _ = std::fs::remove_file(world.servers[1].files.join(name));
    }
    world.servers[1].start()?;
    goes_on(world)
}

/// The `-wal` of one file lies beside the other: SQLite takes it, or not; nobody else may suffer.
fn foreign_wal(world: &mut World, _place: &Path) -> Result<(), Trouble> {
    write(world, 1, 20)?;
    world.check()?;
    world.servers[1].kill()?;
    let files = world.servers[1].files.clone();
    let _ = std::fs::remove_file(files.join("one.db-shm"));
    if files.join("two.db-wal").exists() {
        std::fs::copy(files.join("two.db-wal"), files.join("one.db-wal"))?;
    }
    let start = world.servers[1].try_start()?;
    std::thread::sleep(Duration::from_millis(500));
    // SQLite takes a foreign `-wal` whose checksums are right as the file's own: rows of the other file are rows of this one
    // then, for the application, too. They may spread; what was written may not suffer on the other server.
    for (name, path) in world.servers[0].databases() {
        let wrong = locked(&world.record).compare(&name, &super::record::read(&path)?);
        if let Some(first) = wrong.iter().find(|text| !text.contains("was never written")) {
            return Err(Trouble::wrong(format!("the peer: {first}")));
        }
    }
    match start {
        Start::Ended(answer) if answer.panicked() || answer.code.is_none() => Err(Trouble::wrong(answer.words())),
        Start::Ended(answer) => {
            progress(&format!("foreign wal: refused: {}", answer.words()));
            Ok(())
        }
        Start::Ready => Ok(()),
    }
}

/// The application changes the journal mode back and forth (SQLite lets it as far as others have the file open).
fn journal_mode(world: &mut World, _place: &Path) -> Result<(), Trouble> {
    let path = world.servers[1].files.join("one.db");
    for mode in ["DELETE", "WAL", "TRUNCATE", "WAL", "PERSIST"] {
        let file = Connection::open(&path)?;
        file.busy_timeout(Duration::from_secs(2))?;
        // "database is locked" is an answer: the node has the file open.
        let _ = file.query_row(&format!("PRAGMA journal_mode = {mode}"), [], |row| row.get::<_, String>(0));
        drop(file);
        write(world, 1, 6)?;
        write(world, 0, 6)?;
    }
    world.check()?;
    // With nobody in the way it works for sure.
    world.servers[1].stop_well()?;
    Connection::open(&path)?.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get::<_, String>(0))?;
    write(world, 1, 6)?;
    world.servers[1].start()?;
    goes_on(world)
}

/// Runs the second server as a user who may not write to `path`; it must say so, and start once it may.
fn without_right(world: &mut World, path: &Path) -> Result<(), Trouble> {
    if !is_root() {
        return Err(Trouble::cannot("it starts a node as another user, which needs root", "run it again with sudo"));
    }
    let setpriv = tool("setpriv", "util-linux")?;
    let server = &mut world.servers[1];
    server.stop_well()?;
    let folder = server.folder.display().to_string();
    command("chown", &["-R", NOBODY, &folder])?;
    let place = path.display().to_string();
    command("chmod", &["a-w", &place])?;
    server.wrap = vec![setpriv.into(), format!("--reuid={NOBODY}").into(), "--clear-groups".into()];
    server.hush()?;
    let refused = match server.try_start()? {
        Start::Ended(answer) => {
            let named = answer.err.contains(&place)
                || path.parent().is_some_and(|parent| answer.err.contains(&parent.display().to_string()));
            if answer.panicked() || !matches!(answer.code, Some(1 | 4)) || !named {
                return Err(Trouble::wrong(format!("says too little: {}", answer.words())));
            }
            true
        }
        Start::Ready => {
            // Running is right as long as people are told.
            std::thread::sleep(Duration::from_millis(1_500));
            let status = server.status()?.to_string();
            if !["read-only", "readonly", "cannot", "write"].iter().any(|word| status.contains(word)) {
                return Err(Trouble::wrong(format!("runs without the right to write and says nothing: {status}")));
            }
            false
        }
    };
    command("chmod", &["u+w", &place])?;
    if refused {
        server.start()?;
    }
    world.settled(Duration::from_secs(10))?;
    world.servers[1].stop_well()?;
    world.servers[1].wrap.clear();
    command("chown", &["-R", "0", &folder])?;
    world.servers[1].start()?;
    goes_on(world)
}

fn command(program: &str, arguments: &[&str]) -> Result<(), Trouble> {
    let status = Command::new(program).args(arguments).stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(Trouble::wrong(format!("{program} failed"))) }
}

fn read_only_file(world: &mut World, _place: &Path) -> Result<(), Trouble> {
    let path = world.servers[1].files.join("one.db");
    without_right(world, &path)
}

fn read_only_directory(world: &mut World, _place: &Path) -> Result<(), Trouble> {
    let path = world.servers[1].data.clone();
    without_right(world, &path)
}
