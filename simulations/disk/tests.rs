//! The disk itself: real SQLite and real redb on it, alone.
//!
//! What is proved: locks keep two connections apart, a kill leaves the others working, a power cut takes nothing that was
//! synced and tears nothing, an error once given loses what it must. Not proved: that a real disk is not worse.

use std::path::PathBuf;

use litemesh::log::Log;
use rusqlite::{Connection, ErrorCode};

use super::*;
use crate::world::scratch::Scratch;

const NODE: u32 = 7;

/// A disk in a directory of its own.
struct Bench {
    disk: Disk,
    dice: Dice,
    scratch: Scratch,
}

impl Bench {
    fn new(seed: u64) -> Bench {
        begin(seed, 1_748_736_000_000);
        let scratch = Scratch::new();
        Bench { disk: Disk::new(scratch.path()), dice: Dice::new(seed), scratch }
    }

    fn path(&self) -> PathBuf {
        self.scratch.path().join("app.db")
    }

    fn open(&self, mode: &str, synchronous: &str) -> rusqlite::Result<Connection> {
        let connection = Connection::open(self.path())?;
        connection.query_row(&format!("PRAGMA journal_mode = {mode}"), [], |_| Ok(()))?;
        connection.execute_batch(&format!(
            "PRAGMA synchronous = {synchronous}; CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, text TEXT)"
        ))?;
        connection.busy_timeout(std::time::Duration::ZERO)?;
        Ok(connection)
    }

    fn boot(&mut self) {
        self.disk.cut();
        self.disk.power_on(&mut self.dice);
    }
}

fn count(connection: &Connection) -> i64 {
    connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

fn is_busy(result: rusqlite::Result<()>) -> bool {
    result.is_err_and(|error| error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy))
}

#[test]
fn two_connections_wait_for_each_other() {
    for mode in ["WAL", "DELETE"] {
        let bench = Bench::new(1);
        let (one, two) = (bench.open(mode, "FULL").unwrap(), bench.open(mode, "FULL").unwrap());
        one.execute_batch("BEGIN IMMEDIATE; INSERT INTO t (text) VALUES ('a')").unwrap();
        assert!(is_busy(two.execute_batch("INSERT INTO t (text) VALUES ('b')")), "{mode}: two writers");
        assert_eq!(count(&two), 0, "{mode}: uncommitted work was seen");
        one.execute_batch("COMMIT").unwrap();
        assert_eq!(count(&two), 1, "{mode}");
        two.execute_batch("BEGIN; SELECT * FROM t").unwrap();
        let held = one.execute_batch("INSERT INTO t (text) VALUES ('c')");
        assert_eq!(is_busy(held), mode == "DELETE", "{mode}: a reader");
        two.execute_batch("COMMIT").unwrap();
        one.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t (text) VALUES ('d')").unwrap();
        assert!(count(&two) >= 2, "{mode}");
    }
}

#[test]
fn a_killed_process_leaves_the_other_working() {
    for operation in 1..60 {
        for mode in ["WAL", "DELETE"] {
            let bench = Bench::new(operation);
            let app = bench.open(mode, "FULL").unwrap();
            app.execute_batch("INSERT INTO t (text) VALUES ('app')").unwrap();
            let node = bench.disk.as_process(NODE, || bench.open(mode, "FULL")).unwrap();
            bench.disk.crash_at(operation, Crash::Kill);
            let done = bench.disk.as_process(NODE, || {
                (0..).take_while(|_| node.execute_batch("INSERT INTO t (text) VALUES ('node')").is_ok()).count()
            });
            assert!(!bench.disk.is_alive(NODE) && bench.disk.site().is_some());
            let before = bench.disk.counts().0;
            bench.disk.bury(NODE, node);
            assert_eq!(bench.disk.counts().0, before, "{mode} {operation}: the dead wrote");
            // The commit under way may have been done, though nobody was told.
            let rows = count(&app) as usize;
            assert!(rows == done + 1 || rows == done + 2, "{mode} {operation}: {rows} rows after {done} commits");
            app.execute_batch("INSERT INTO t (text) VALUES ('after')").unwrap();
            let fresh = bench.open(mode, "FULL").unwrap();
            assert_eq!(count(&fresh) as usize, rows + 1, "{mode} {operation}");
            let verdict: String = fresh.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(verdict, "ok");
        }
    }
}

/// Commits until the power fails, boots, and gives (commits that returned, rows that are there).
fn cut_while_writing(bench: &mut Bench, mode: &str, synchronous: &str, operation: u64) -> (i64, i64) {
    let app = bench.open(mode, synchronous).unwrap();
    bench.disk.crash_at(operation, Crash::Power);
    let text = "x".repeat(3_000);
    let write = |_: &i64| app.execute("INSERT INTO t (text) VALUES (?1)", [&text]).is_ok();
    let done = (0..).take_while(write).count() as i64;
    drop(app);
    bench.disk.power_on(&mut bench.dice);
    let app = bench.open(mode, synchronous).unwrap();
    let verdict: String = app.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok", "{mode} {synchronous} {operation}");
    (done, count(&app))
}

#[test]
fn a_power_cut_keeps_what_was_synced_and_tears_nothing() {
    let (mut lost, mut gained) = (0, 0);
    for operation in 1..250 {
        // FULL leaves the end of a rollback journal to the next sync of the directory; EXTRA does not.
        for (mode, synchronous) in [("WAL", "FULL"), ("DELETE", "EXTRA")] {
            let mut bench = Bench::new(operation);
            let (done, rows) = cut_while_writing(&mut bench, mode, synchronous, operation);
            assert!(rows == done || rows == done + 1, "{mode} {operation}: {done} commits, {rows} rows");
            gained += rows - done;
        }
        for (mode, synchronous) in [("WAL", "NORMAL"), ("DELETE", "FULL"), ("DELETE", "NORMAL")] {
            let mut bench = Bench::new(operation);
            let (done, rows) = cut_while_writing(&mut bench, mode, synchronous, operation);
            assert!(rows <= done + 1, "{mode} {operation}: {done} commits, {rows} rows");
            lost += i64::from(rows < done);
        }
    }
    assert!(
        lost > 20 && gained > 5,
        "the cuts prove nothing: {lost} lost where they may, {gained} unacknowledged kept"
    );
}

#[test]
fn redb_keeps_what_it_committed() {
    let mut cuts = 0;
    for operation in 1..120 {
        let mut bench = Bench::new(operation);
        let mut committed = 0;
        for round in 0..2u64 {
            let Ok(log) =
                bench.disk.backend("log.redb").map_err(drop).and_then(|file| Log::with_backend(file).map_err(drop))
            else {
                assert!(!bench.disk.is_on(), "{operation}: the log does not open");
                bench.disk.power_on(&mut bench.dice);
                continue;
            };
            let kept = log.read().unwrap().meta("n").unwrap().map_or(0, |bytes| bytes[0]);
            assert!(kept == committed || kept == committed + 1, "{operation}: {committed} committed, {kept} kept");
            committed = kept;
            bench.disk.crash_at(operation + round * 7, Crash::Power);
            for next in committed + 1..=250 {
                let write = log.write().and_then(|mut write| {
                    write.put_meta("n", &[next])?;
                    write.put_meta(&format!("key {next}"), &[next; 700])?;
                    write.commit_durable()
                });
                if write.is_err() {
                    break;
                }
                committed = next;
            }
            cuts += u32::from(!bench.disk.is_on());
            drop(log);
            bench.boot();
        }
    }
    assert!(cuts > 200, "{cuts} cuts");
}

#[test]
fn a_failed_sync_loses_what_it_should_have_kept() {
    let mut lost = 0;
    for seed in 1..40 {
        let mut bench = Bench::new(seed);
        let file = bench.disk.backend("log.redb").unwrap();
        use litemesh::log::StorageBackend;
        file.write(0, &[1; 4096]).unwrap();
        bench.disk.fail_sync(1);
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        let mut bytes = [0; 4096];
        file.read(0, &mut bytes).unwrap();
        assert_eq!(bytes, [1; 4096], "readers still see it");
        bench.boot();
        let file = bench.disk.backend("log.redb").unwrap();
        lost += u32::from(file.read(0, &mut bytes).is_err() || bytes != [1; 4096]);
    }
    assert!(lost > 5 && lost < 40, "{lost} of 39 lost");
}

#[test]
fn a_full_disk_refuses_what_needs_room_and_a_flipped_bit_is_there() {
    let bench = Bench::new(1);
    let app = bench.open("WAL", "FULL").unwrap();
    let big = "x".repeat(50_000);
    bench.disk.fill(true);
    let refused = app.execute("INSERT INTO t (text) VALUES (?1)", [&big]).unwrap_err();
    assert_eq!(refused.sqlite_error_code(), Some(ErrorCode::DiskFull));
    bench.disk.fill(false);
    app.execute("INSERT INTO t (text) VALUES (?1)", [&big]).unwrap();
    assert_eq!(count(&app), 1);
    drop(app);
    let before = bench.disk.image();
    assert!(bench.disk.flip("app.db", 8 * 100) && !bench.disk.flip("none.db", 1));
    assert_ne!(format!("{before:?}"), format!("{:?}", bench.disk.image()));
}

#[test]
fn equal_seeds_give_equal_operations() {
    let run = |seed: u64| {
        let mut bench = Bench::new(seed);
        let counted = cut_while_writing(&mut bench, "WAL", "NORMAL", 100 + seed % 3);
        let app = bench.open("WAL", "FULL").unwrap();
        let random: i64 = app.query_row("SELECT random()", [], |row| row.get(0)).unwrap();
        let now: String = app.query_row("SELECT datetime('now')", [], |row| row.get(0)).unwrap();
        assert_eq!(now, "2025-06-01 00:00:00");
        (counted, random, operations())
    };
    assert_eq!(run(5).0, run(5).0);
    assert_ne!(run(5).2, run(6).2);
}
