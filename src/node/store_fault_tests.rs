//! A log whose disk is full, or fails once, and works again.
//!
//! Invariant: the disk of the test keeps what was written before it failed. Not tested: power that fails at the same moment
//! (`simulations`). Callers: cargo test.

#![allow(clippy::unwrap_used)]

use std::io;
use std::sync::{Arc, Mutex};

use super::pair_tests::{CLOCK_MS, Site};
use super::*;
use crate::log::StorageBackend;

#[derive(Debug, Default)]
struct Disk {
    bytes: Vec<u8>,
    refuses: Option<io::ErrorKind>,
}

#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Disk>>);

impl Shared {
    fn refuse(&self, with: Option<io::ErrorKind>) {
        self.0.lock().unwrap().refuses = with;
    }

    fn writable(&self) -> io::Result<std::sync::MutexGuard<'_, Disk>> {
        let disk = self.0.lock().unwrap();
        disk.refuses.map_or(Ok(()), |kind| Err(kind.into())).map(|()| disk)
    }
}

impl StorageBackend for Shared {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.copy_from_slice(&self.0.lock().unwrap().bytes[offset as usize..offset as usize + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.writable()?.bytes.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.writable().map(drop)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.writable()?.bytes[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn now(ms: u64) -> Now {
    Now { mono_ms: ms, wall_ms: CLOCK_MS + ms }
}

#[test]
fn what_a_failing_log_could_not_take_is_taken_when_the_node_was_opened_again() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        let site = Site::new(1).with("app", "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT)", &[]);
        let disk = Shared::default();
        let log = Arc::new(Log::with_backend(disk.clone()).unwrap());
        Node::found(&log, &site.settings().key_seed, "first", "test", now(0)).unwrap();
        let mut node = Node::open(site.settings(), log, now(0)).unwrap();
        node.handle(Input::Tick, now(1)).unwrap();

        disk.refuse(Some(kind));
        site.app("app", "INSERT INTO note (text) VALUES ('while it fails')");
        let error = node.handle(Input::Tick, now(1_000)).unwrap_err();
        assert!(error.needs_reopen() && node.is_broken(), "{error}");
        let fault = node.store_fault().unwrap().clone();
        assert_eq!(fault.full, kind == io::ErrorKind::StorageFull);
        assert_eq!(site.ask("app", "SELECT count(*) FROM _litemesh_outbox"), ["1"], "the app's mark waits");

        // Opened again the log can be read while the disk still refuses: people see why, and a tick fails again.
        drop(node);
        let reopen = || Log::with_backend(disk.clone()).map(Arc::new);
        if let Ok(log) = reopen() {
            let mut node = Node::open_after(site.settings(), log, now(2_000), Some(fault.clone()));
            if let Ok(node) = &mut node {
                assert_eq!(site.ask("app", "SELECT count(*) FROM _litemesh_outbox"), ["1"], "opening writes no event");
                assert!(node.handle(Input::Tick, now(2_001)).is_err());
                assert_eq!(node.store_fault(), Some(&fault), "the first words stay");
            }
        }

        disk.refuse(None);
        let mut node = Node::open(site.settings(), reopen().unwrap(), now(3_000)).unwrap();
        node.resume_after(fault);
        node.handle(Input::Tick, now(3_001)).unwrap();
        assert!(node.store_fault().is_none() && !node.is_broken());
        assert_eq!(site.ask("app", "SELECT count(*) FROM _litemesh_outbox"), ["0"]);
        let logged = node.status(now(3_002)).unwrap().databases[0].events;
        assert_eq!(logged, 1, "the row that waited is in the log, once");
    }
}
