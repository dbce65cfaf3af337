//! Disks of the cluster's servers, and what goes wrong with them: kills, power cuts, failing syncs, full disks.
//!
//! A node is one process of its machine, its app another. Faults strike while the node works; the app's own turn is spared
//! (what an app sees of a failing disk is the task of the scenario `crash`). Apps commit with `synchronous=EXTRA`: what the
//! app was told stands in its file after a power cut, so the app's record holds through it.
//! Invariants: a node whose store failed is dropped, log included, and opened again after a pause, as the daemon does; an
//! error without a fault is the node's own and ends the run. Callers: the world; whoever draws steps.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use litemesh::log::{Log, LogError};
use litemesh::node::store_fault::StoreFault;
use litemesh::node::{Input, Node, NodeError};

use super::World;
use super::dice::Dice;
use crate::disk::{self, Crash, Disk, Image};

/// A node whose store failed is opened again after this, ms of virtual time.
const REOPEN_MS: u64 = 1_000;

/// A fault inside a step comes within so many operations of the disk.
pub const SOON: u64 = 80;

/// The storage of one server.
pub struct Storage {
    /// All its files.
    pub disk: Disk,
    /// What becomes of unsynced sectors, and where faults strike.
    pub dice: Dice,
    root: PathBuf,
    /// The node's process: a new one with every start.
    process: u32,
    /// When a node that failed is opened again, virtual ms.
    again_at_ms: Option<u64>,
    /// Why the node was dropped, until it is open again.
    fault: Option<StoreFault>,
    /// Errors that the disk had given on purpose when the node was last well.
    given: u64,
}

impl Storage {
    /// A disk that holds files already.
    pub fn with_image(root: &Path, dice: Dice, image: &Image) -> Storage {
        std::fs::create_dir_all(root).expect("a temporary directory can be filled");
        let disk = Disk::from_image(root, image);
        disk.spare_app();
        Storage { disk, dice, root: root.to_owned(), process: disk::APP + 1, again_at_ms: None, fault: None, given: 0 }
    }

    /// Puts other files in the place of those that are there. No process may have any of them open.
    pub fn replace(&mut self, image: &Image) {
        let (disk, given) = (Disk::from_image(&self.root, image), 0);
        disk.spare_app();
        (self.disk, self.given, self.again_at_ms) = (disk, given, None);
    }

    /// Opens the event log as the process that runs.
    pub fn open_log(&self) -> Result<Log, LogError> {
        Log::with_backend(self.disk.backend("log.redb").map_err(LogError::Storage)?)
    }

    /// Whether the node is dead, or an error that it met may come from a fault.
    fn is_excused(&self) -> bool {
        !self.disk.is_alive(self.process) || self.disk.counts().1 > self.given || self.fault.is_some()
    }
}

impl World {
    /// Sets the clock that SQLite reads to that of a server.
    pub fn set_sqlite_clock(&self, position: usize) {
        disk::set_wall_ms(self.now(position).wall_ms);
    }

    /// Starts a server's node and connects it. Where a fault prevents it, the node is started again later.
    pub fn start(&mut self, position: usize) {
        let now = self.now(position);
        self.set_sqlite_clock(position);
        let server = &mut self.servers[position];
        if server.node.is_some() || server.gone {
            return;
        }
        (server.busy_at_ms, server.ticked_at_ms) = (self.now_ms, self.now_ms);
        server.epoch += 1;
        server.storage.process += 1;
        server.storage.again_at_ms = None;
        disk::set_role(0);
        let opened = server.storage.disk.as_process(server.storage.process, || {
            let log = Arc::new(server.storage.open_log()?);
            Node::open(server.settings.clone(), log, now)
        });
        match opened {
            Ok(mut node) => {
                if let Some(fault) = server.storage.fault.take() {
                    node.resume_after(fault);
                }
                server.node = Some(node);
            }
            Err(error) => return self.failed(position, &error),
        }
        if !self.is_well(position) {
            return;
        }
        for other in 0..self.servers.len() {
            self.connect(position, other);
        }
        self.effects(position);
    }

    /// Has a node that runs take an input. False when it does not run (any more).
    pub(super) fn handle(&mut self, position: usize, input: Input) -> bool {
        let now = self.now(position);
        self.set_sqlite_clock(position);
        let server = &mut self.servers[position];
        let Some(node) = server.node.as_mut() else { return false };
        disk::set_role(0);
        let handled = server.storage.disk.as_process(server.storage.process, || node.handle(input, now));
        if let Err(error) = handled {
            self.failed(position, &error);
            return false;
        }
        self.is_well(position)
    }

    /// Has a server move all that every member holds into its archive; its next ticks do it. False: it does not run.
    pub fn archive(&mut self, position: usize) -> bool {
        let now = self.now(position);
        let server = &mut self.servers[position];
        let Some(node) = server.node.as_mut() else { return false };
        disk::set_role(0);
        let begun = server.storage.disk.as_process(server.storage.process, || node.start_cleanup(None, now));
        match begun {
            Ok(view) if view.wanted > 0 => self.reach("old events were archived"),
            Ok(_) => {}
            Err(error) => self.failed(position, &error),
        }
        self.is_well(position)
    }

    /// A node met an error. As the daemon does: where its log is concerned it is dropped and opened again after a pause; a
    /// node that did not open is tried again; else it goes on.
    fn failed(&mut self, position: usize, error: &NodeError) {
        let storage = &mut self.servers[position].storage;
        if !storage.is_excused() {
            return self.violate("node error", format!("server {position}: {error}"));
        }
        if !self.is_well(position) {
            return;
        }
        let server = &mut self.servers[position];
        if server.node.is_some() && !error.needs_reopen() {
            let _told = self.effects(position);
            return;
        }
        server.storage.fault = error.store_fault().or(server.storage.fault.take());
        // Its last words are said: nobody killed it.
        let node = server.node.take();
        server.storage.disk.as_process(server.storage.process, || drop(node));
        if !self.is_well(position) {
            return;
        }
        self.reach("a node was opened again after its storage failed");
        self.note(&format!("{position} fails: {error}"));
        self.drop_node(position);
        self.servers[position].storage.again_at_ms = Some(self.now_ms + REOPEN_MS);
    }

    /// Sees whether a fuse struck; then the server is down.
    fn is_well(&mut self, position: usize) -> bool {
        let storage = &mut self.servers[position].storage;
        storage.given = storage.disk.counts().1;
        if !storage.disk.is_on() {
            self.power_cut(position);
            return false;
        }
        if !storage.disk.is_alive(storage.process) {
            self.kill(position);
            return false;
        }
        true
    }

    /// Starts what waits for its time before `end`. True when the caller must look anew.
    pub(super) fn start_due(&mut self, end: u64) -> bool {
        let due = |at: &u64| *at <= end;
        let waiting = (0..self.servers.len()).filter_map(|at| Some((self.servers[at].storage.again_at_ms?, at))).min();
        let Some((at_ms, position)) = waiting.filter(|(at, _)| due(at)) else { return false };
        let frame = self.next_frame_ms();
        let tick = (0..self.servers.len()).filter_map(|position| self.deadline(position)).min();
        if [frame, tick].into_iter().flatten().any(|earlier| earlier < at_ms) {
            return false;
        }
        self.now_ms = self.now_ms.max(at_ms);
        self.start(position);
        true
    }

    /// Kills a server's node: what it handed to the system stays.
    pub fn kill(&mut self, position: usize) {
        if self.servers[position].node.is_none() && self.servers[position].storage.again_at_ms.is_none() {
            let storage = &self.servers[position].storage;
            storage.disk.bury(storage.process, ());
            return;
        }
        self.reach("a node was killed");
        self.note(&format!("{position} dies"));
        self.drop_node(position);
        self.servers[position].storage.again_at_ms = None;
    }

    /// Ends a node without a last word.
    fn drop_node(&mut self, position: usize) {
        let server = &mut self.servers[position];
        server.storage.disk.kill(server.storage.process);
        server.storage.disk.bury(server.storage.process, server.node.take());
        for other in 0..self.servers.len() {
            self.disconnect(position, other);
        }
    }

    /// Kills a server's node at one of its next operations on the disk.
    pub fn kill_at(&mut self, position: usize, operations: u64) {
        let storage = &self.servers[position].storage;
        if self.servers[position].node.is_some() {
            storage.disk.crash_at(operations, Crash::Kill);
        }
    }

    /// Cuts a server's power, and has its app up again; the node starts when it is told to.
    pub fn power_cut(&mut self, position: usize) {
        self.reach("the power failed");
        self.note(&format!("{position} loses its power"));
        self.servers[position].storage.disk.cut();
        self.drop_node(position);
        let Storage { disk, dice, root, again_at_ms, .. } = &mut self.servers[position].storage;
        disk.power_on(dice);
        *again_at_ms = None;
        let root = root.clone();
        self.servers[position].app.restart(&root);
    }

    /// Cuts a server's power at one of the node's next operations.
    pub fn power_cut_at(&mut self, position: usize, operations: u64) {
        self.servers[position].storage.disk.crash_at(operations, Crash::Power);
    }

    /// One of the node's next syncs fails.
    pub fn fail_sync(&mut self, position: usize, n: u64) {
        self.servers[position].storage.disk.fail_sync(n);
    }

    /// One of the node's next reads fails.
    pub fn fail_read(&mut self, position: usize, n: u64) {
        self.servers[position].storage.disk.fail_read(n);
    }

    /// Fills a server's disk, or makes room again.
    pub fn fill_disk(&mut self, position: usize, full: bool) {
        if full {
            self.reach("a disk was full");
        }
        self.servers[position].storage.disk.fill(full);
    }

    /// Flips a bit at rest in a file of a server (`log.redb`, `scouting.db`, …). False where the file ends before it.
    #[allow(dead_code, reason = "what the product does with damaged bytes is not a matter of whole clusters yet")]
    pub fn flip(&mut self, position: usize, file: &str, bit: u64) -> bool {
        self.servers[position].storage.disk.flip(file, bit)
    }

    /// Ends what is wrong with a disk.
    pub fn mend_disk(&mut self, position: usize) {
        let storage = &mut self.servers[position].storage;
        storage.disk.disarm();
        storage.disk.fill(false);
    }
}
