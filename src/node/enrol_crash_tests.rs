//! A crash at any write of the log while a file is enrolled, and an app that goes on before the node starts again; an app
//! that takes the file's lock at any of these writes, and lets it go with something changed.
//!
//! Invariant: what stood in the log's file when it was last synced is all that is left of it. Not tested: power cuts that
//! take from the app's file too (`simulations`, scenario `crash`). Callers: cargo test.

#![allow(clippy::unwrap_used)]

use std::io;
use std::sync::{Arc, Mutex};

use rusqlite::Connection;

use super::membership::{admit, found_cluster, node_id};
use super::pair_tests::{CLOCK_MS, Site};
use super::*;
use crate::log::StorageBackend;

/// A disk that stops after so many syncs.
#[derive(Debug, Default)]
struct Disk {
    live: Vec<u8>,
    synced: Vec<u8>,
    syncs_left: u64,
    /// After so many more syncs the app takes the lock.
    app: Option<(u64, Connection)>,
    locked: Option<Connection>,
}

#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Disk>>);

impl Shared {
    /// The app that holds the lock, when its time has come.
    fn locked(&self) -> Option<Connection> {
        self.0.lock().unwrap().locked.take()
    }

    fn start_again(&self, syncs: u64) {
        let mut disk = self.0.lock().unwrap();
        disk.live = disk.synced.clone();
        disk.syncs_left = syncs;
    }

    fn alive(&self) -> io::Result<std::sync::MutexGuard<'_, Disk>> {
        let disk = self.0.lock().unwrap();
        if disk.syncs_left > 0 { Ok(disk) } else { Err(io::Error::other("the machine is off")) }
    }
}

impl StorageBackend for Shared {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.copy_from_slice(&self.0.lock().unwrap().live[offset as usize..offset as usize + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.alive()?.live.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.alive()?;
        disk.synced = disk.live.clone();
        disk.syncs_left -= 1;
        if let Some((left, app)) = disk.app.take() {
            if left > 0 {
                disk.app = Some((left - 1, app));
            } else {
                app.execute_batch("BEGIN IMMEDIATE").unwrap();
                disk.locked = Some(app);
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.alive()?.live[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn now(ms: u64) -> Now {
    Now { mono_ms: ms, wall_ms: CLOCK_MS + ms }
}

#[test]
fn what_the_app_changed_after_a_crash_in_the_enrolment_stands() {
    let mut crashes = 0;
    for syncs in 1..40 {
        let site = Site::new(1).with(
            "app",
            "CREATE TABLE setting (name TEXT PRIMARY KEY, value); INSERT INTO setting VALUES ('a', 'old'), ('b', 'old')",
            &[],
        );
        let disk = Shared::default();
        disk.start_again(u64::MAX);
        let log = Log::with_backend(disk.clone()).unwrap();
        Node::found(&log, &site.settings().key_seed, "first", "test", now(0)).unwrap();
        drop(log);

        disk.start_again(syncs);
        let enrol = || {
            let log = Arc::new(Log::with_backend(disk.clone())?);
            Node::open(site.settings(), log, now(1))?.handle(Input::Tick, now(2))
        };
        crashes += u32::from(enrol().is_err());
        site.app("app", "UPDATE setting SET value = 'new' WHERE name = 'a'; DELETE FROM setting WHERE name = 'b'");

        disk.start_again(u64::MAX);
        let log = Arc::new(Log::with_backend(disk.clone()).unwrap());
        let mut node = Node::open(site.settings(), log, now(10)).unwrap();
        for ms in 11..15 {
            node.handle(Input::FileTouched(0), now(ms * 1_000)).unwrap();
            node.handle(Input::Tick, now(ms * 1_000)).unwrap();
        }
        let rows = site.ask("app", "SELECT name || ' ' || value FROM setting");
        assert_eq!(rows, ["a new"], "after a crash at sync {syncs}");
    }
    assert!(crashes > 5, "the crashes came too late to prove anything: {crashes}");
}

#[test]
fn what_the_app_changed_while_it_held_up_the_enrolment_is_no_second_row() {
    let mut held_up = 0;
    for syncs in 0.. {
        let site = Site::new(1).with(
            "app",
            "PRAGMA journal_mode = WAL; CREATE TABLE note (id INTEGER PRIMARY KEY, n); INSERT INTO note VALUES (1, 0), (2, 0)",
            &[],
        );
        let disk = Shared::default();
        disk.start_again(u64::MAX);
        let log = Arc::new(Log::with_backend(disk.clone()).unwrap());
        let founder = found_cluster(&[9; 32], "founder", "test", CLOCK_MS);
        let membership = membership::Membership::new(founder.clone()).unwrap();
        let own = admit(&[9; 32], &membership, node_id(&site.settings().key_seed), "joiner", CLOCK_MS);
        Node::enter(&log, vec![founder, own]).unwrap();
        let mut node = Node::open(site.settings(), log, now(1)).unwrap();
        let app = Connection::open(site.path("app")).unwrap();
        disk.0.lock().unwrap().app = Some((syncs, app));
        let mut wrote = false;
        // Nobody answers: the file is enrolled by its content.
        for ms in (20_000..60_000).step_by(1_000) {
            node.handle(Input::FileTouched(0), now(ms)).unwrap();
            node.handle(Input::Tick, now(ms)).unwrap();
            if let Some(app) = disk.locked() {
                wrote = true;
                held_up += u32::from(node.databases[0].adopt_by_ms.is_some());
                app.execute_batch("UPDATE note SET n = n + 1 WHERE id = 1; DELETE FROM note WHERE id = 2; COMMIT")
                    .unwrap();
            }
        }
        if !wrote {
            break;
        }
        assert_eq!(site.ask("app", "SELECT id || ' ' || n FROM note"), ["1 1"], "the lock taken at sync {syncs}");
        assert!(node.applied_all());
    }
    assert!(held_up > 0, "the app's lock never came between");
}
