//! A crash at any write of the log while a file is enrolled, and an app that goes on before the node starts again.
//!
//! Invariant: what stood in the log's file when it was last synced is all that is left of it. Not tested: power cuts that
//! take from the app's file too (`simulations`, scenario `crash`). Callers: cargo test.

#![allow(clippy::unwrap_used)]

use std::io;
use std::sync::{Arc, Mutex};

use super::pair_tests::{CLOCK_MS, Site};
use super::*;
use crate::log::StorageBackend;

/// A disk that stops after so many syncs.
#[derive(Debug, Default)]
struct Disk {
    live: Vec<u8>,
    synced: Vec<u8>,
    syncs_left: u64,
}

#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Disk>>);

impl Shared {
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
