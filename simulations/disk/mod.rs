//! The simulated disk: real SQLite and real redb on storage that loses, tears and refuses what the seed says.
//!
//! A [`Disk`] is the storage of one machine: all files under one directory. [`vfs`] serves them to SQLite (as the default
//! VFS of this process, so that app, node and checks use it without any change), [`backend`] to redb; both count their
//! operations in one row, so "crash at operation N" walks through the pipeline as it is. What lies under no machine's
//! directory is left to the real system. A main database has an empty real file of its name beside it, for code that
//! looks at paths (which file is this, is it still the same).
//!
//! Processes: whoever opens a handle in [`Disk::as_process`] owns it; without it the handle is the app's, [`APP`]. A killed
//! process does nothing any more, however its objects are dropped ([`Disk::bury`]).
//!
//! Invariants: one thread, one registry, nothing shared: equal seeds give equal operations, to the byte
//! ([`operations`] and their hash). Callers: the world, the scenario `crash`.

pub mod backend;
mod lock;
mod machine;
#[cfg(test)]
mod tests;
pub mod vfs;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use crate::world::dice::Dice;
use machine::Machine;
pub use machine::{Counted, Crash, Fault, Image};

/// The process of apps and checks.
pub const APP: u32 = 0;

/// What a file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An app's database.
    Main,
    /// Its write-ahead log.
    Wal,
    /// Its rollback journal.
    Journal,
    /// A node's event log.
    Log,
    /// Anything else.
    #[default]
    Other,
}

/// What a process is about, as far as its statements tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Nothing that is known.
    #[default]
    Idle,
    /// Reads the outbox.
    Drain,
    /// Raises the epoch: the fence.
    Fence,
    /// Clears marks.
    Clear,
    /// Writes what others wrote.
    Apply,
    /// Moves the write-ahead log into the file.
    Checkpoint,
}

/// Whose handle it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    process: u32,
    boot: u64,
}

/// Where a machine or a process died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Whose operation it was.
    pub process: u32,
    /// On what.
    pub kind: Kind,
    /// The number of the database that it belongs to ([`Disk::number`]), or its own.
    pub base: usize,
    /// Which operation.
    pub what: &'static str,
    /// What the process was about.
    pub phase: Phase,
    /// What the scenario says that it is about ([`set_role`]).
    pub role: u8,
}

impl Site {
    fn new(owner: Owner, kind: Kind, base: usize, what: &'static str, run: &Run) -> Site {
        Site { process: owner.process, kind, base, what, phase: run.phase, role: run.role }
    }
}

/// What all machines of a run share.
struct Run {
    /// For SQLite's own random numbers.
    dice: Dice,
    wall_ms: u64,
    operations: u64,
    hash: u64,
    phase: Phase,
    role: u8,
    process: u32,
    handles: u64,
}

impl Run {
    fn count(&mut self, site: &Site, detail: u64) {
        self.operations += 1;
        let what = site.what.bytes().fold(u64::from(site.process) << 8 | site.kind as u64, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(u64::from(byte))
        });
        for word in [what, detail] {
            self.hash = (self.hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
    }
}

/// All machines of this thread.
struct Registry {
    machines: BTreeMap<u64, Machine>,
    next: u64,
    run: Run,
}

thread_local! {
    static REGISTRY: RefCell<Registry> = RefCell::new(Registry {
        machines: BTreeMap::new(),
        next: 0,
        run: Run { dice: Dice::new(0), wall_ms: 0, operations: 0, hash: 0, phase: Phase::Idle, role: 0, process: APP, handles: 0 },
    });
}

/// Begins a run: everything that SQLite draws or reads from a clock follows from the seed from here on.
pub fn begin(seed: u64, wall_ms: u64) {
    vfs::install();
    registry(|registry| {
        let (process, handles) = (APP, registry.run.handles);
        let dice = Dice::new(seed ^ 0x7371_6c69_7465);
        registry.run = Run { dice, wall_ms, operations: 0, hash: seed, phase: Phase::Idle, role: 0, process, handles };
    });
    vfs::forget_randomness();
}

/// Sets the clock that SQLite reads.
pub fn set_wall_ms(wall_ms: u64) {
    registry(|registry| registry.run.wall_ms = wall_ms);
}

/// Number of counted operations since [`begin`], and their hash.
pub fn operations() -> (u64, u64) {
    registry(|registry| (registry.run.operations, registry.run.hash))
}

/// Forgets what the running process was about; a scenario's own number for what it is about from here on.
pub fn set_role(role: u8) {
    registry(|registry| (registry.run.phase, registry.run.role) = (Phase::Idle, role));
}

fn registry<R>(work: impl FnOnce(&mut Registry) -> R) -> R {
    REGISTRY.with_borrow_mut(work)
}

/// A handle on a file of a machine. Closed when dropped.
#[derive(Debug)]
struct Handle {
    machine: u64,
    file: usize,
    owner: Owner,
    id: u64,
}

impl Handle {
    /// Opens a file by its full name; `None` when no machine has it under its roof.
    fn open(name: &str, kind: Kind, create: bool) -> Option<Result<Handle, Fault>> {
        registry(|registry| {
            let process = registry.run.process;
            let (machine, found) = registry.machine_of(name)?;
            let owner = Owner { process, boot: found.boot };
            let (found, run) = registry.both(machine)?;
            let opened = found.open(run, owner, name, kind, create);
            run.handles += 1;
            let id = run.handles;
            Some(opened.map(|file| Handle { machine, file, owner, id }))
        })
    }

    /// Works on the machine, if that is still there.
    fn with<R>(&self, work: impl FnOnce(&mut Machine, &mut Run) -> Result<R, Fault>) -> Result<R, Fault> {
        registry(|registry| {
            let (machine, run) = registry.both(self.machine).ok_or(Fault::Dead)?;
            work(machine, run)
        })
    }

    fn read(&self, at: u64, out: &mut [u8]) -> Result<usize, Fault> {
        self.with(|machine, _| machine.read(self.owner, self.file, at as usize, out))
    }

    fn write(&self, at: u64, data: &[u8]) -> Result<(), Fault> {
        self.with(|machine, run| machine.write(run, self.owner, self.file, at as usize, data))
    }

    fn set_length(&self, length: u64) -> Result<(), Fault> {
        self.with(|machine, run| machine.set_length(run, self.owner, self.file, length as usize))
    }

    fn sync(&self) -> Result<(), Fault> {
        self.with(|machine, run| machine.sync(run, self.owner, self.file))
    }

    fn length(&self) -> Result<u64, Fault> {
        self.with(|machine, _| match machine.lives(self.owner) {
            true => Ok(machine.file(self.file).live.len() as u64),
            false => Err(Fault::Dead),
        })
    }

    /// Counts a step that changes no file (a lock, a barrier), then takes it.
    fn step<R>(
        &self,
        what: &'static str,
        detail: u64,
        work: impl FnOnce(&mut machine::Body) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        self.with(|machine, run| {
            let site = machine.site_of(run, self.owner, self.file, what);
            machine.operate(run, self.owner, site, (self.file as u64) << 32 | detail)?;
            work(machine.file_mut(self.file))
        })
    }

    /// Looks at, or gives something back to, the file, without counting.
    fn quietly<R>(&self, work: impl FnOnce(&mut machine::Body) -> R) -> Result<R, Fault> {
        self.with(|machine, _| match machine.lives(self.owner) {
            true => Ok(work(machine.file_mut(self.file))),
            false => Err(Fault::Dead),
        })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A machine that is gone has no handles.
        let _gone = self.with(|machine, _| {
            machine.close(self.owner, self.file, self.id);
            Ok(())
        });
    }
}

impl Registry {
    /// The machine under whose directory a name lies.
    fn machine_of(&self, name: &str) -> Option<(u64, &Machine)> {
        let inside = |machine: &Machine| name.strip_prefix(&machine.root).is_some_and(|rest| rest.starts_with('/'));
        self.machines.iter().find(|(_, machine)| inside(machine)).map(|(id, machine)| (*id, machine))
    }

    fn both(&mut self, machine: u64) -> Option<(&mut Machine, &mut Run)> {
        Some((self.machines.get_mut(&machine)?, &mut self.run))
    }

    /// Works on the machine that a name belongs to, as the process that runs.
    fn named<R>(&mut self, name: &str, work: impl FnOnce(&mut Machine, &mut Run, Owner) -> R) -> Option<R> {
        let (id, machine) = self.machine_of(name)?;
        let owner = Owner { process: self.run.process, boot: machine.boot };
        let (machine, run) = self.both(id)?;
        Some(work(machine, run, owner))
    }
}

/// The storage of one machine, gone when dropped.
#[derive(Debug)]
pub struct Disk {
    id: u64,
    root: String,
}

impl Disk {
    /// An empty disk for all files under a directory. The directory must be there.
    pub fn new(root: &Path) -> Disk {
        Disk::from_image(root, &Image::default())
    }

    /// A disk that holds what another one held.
    pub fn from_image(root: &Path, image: &Image) -> Disk {
        let root = root.to_str().expect("a path in UTF-8").to_owned();
        let id = registry(|registry| {
            registry.next += 1;
            registry.machines.insert(registry.next, Machine::from_image(root.clone(), image));
            registry.next
        });
        let disk = Disk { id, root };
        disk.place_files();
        disk
    }

    fn with<R>(&self, work: impl FnOnce(&mut Machine, &mut Run) -> R) -> R {
        registry(|registry| {
            let (machine, run) = registry.both(self.id).expect("the machine lives as long as its disk");
            work(machine, run)
        })
    }

    /// What the disk holds now, as if all of it were synced.
    pub fn image(&self) -> Image {
        self.with(|machine, _| machine.image())
    }

    /// Runs something as a process of this machine: the handles it opens are that process's.
    pub fn as_process<R>(&self, process: u32, work: impl FnOnce() -> R) -> R {
        let before = registry(|registry| std::mem::replace(&mut registry.run.process, process));
        let done = work();
        registry(|registry| registry.run.process = before);
        done
    }

    /// Storage for redb in a file of this machine, opened as the process that runs.
    pub fn backend(&self, name: &str) -> std::io::Result<backend::Backend> {
        backend::Backend::open(&format!("{}/{name}", self.root))
    }

    /// Kills a process: what it has done stays, and nothing follows.
    pub fn kill(&self, process: u32) {
        self.with(|machine, _| machine.kill(process));
    }

    /// Crashes at the given operation from now; the app is never the one that is killed.
    pub fn crash_at(&self, operation: u64, crash: Crash) {
        let counted: Counted = match crash {
            Crash::Power => Box::new(|_| true),
            Crash::Kill => Box::new(|site| site.process != APP),
        };
        self.crash_when(operation, counted, crash);
    }

    /// Crashes at the given operation of those that are counted.
    pub fn crash_when(&self, operation: u64, counted: Counted, crash: Crash) {
        self.with(|machine, _| machine.set_fuse(operation, counted, crash));
    }

    /// Takes back the crash and the errors that are still to come.
    pub fn disarm(&self) {
        self.with(|machine, _| machine.disarm());
    }

    /// Drops what a dead process held in memory; nothing of it reaches the disk or the other processes.
    pub fn bury<T>(&self, process: u32, left: T) {
        self.as_process(process, || drop(left));
        self.with(|machine, _| machine.bury(process));
    }

    /// Cuts the power. All processes of the machine are dead; drop what they held before the power comes back.
    pub fn cut(&self) {
        self.with(|machine, _| machine.off = true);
    }

    /// The power comes back: a part of what was not synced arrived.
    pub fn power_on(&self, dice: &mut Dice) {
        self.with(|machine, _| machine.power_on(dice));
        self.place_files();
    }

    /// Whether the power is on.
    pub fn is_on(&self) -> bool {
        self.with(|machine, _| !machine.off)
    }

    /// Whether a process lives.
    pub fn is_alive(&self, process: u32) -> bool {
        self.with(|machine, _| machine.lives(Owner { process, boot: machine.boot }))
    }

    /// The operation at which the last fuse struck.
    pub fn site(&self) -> Option<Site> {
        self.with(|machine, _| machine.site.clone())
    }

    /// The n-th sync from now fails, once: what it should have brought to the platter may be lost for ever, though it can
    /// still be read until the power fails.
    pub fn fail_sync(&self, n: u64) {
        self.with(|machine, _| machine.sync_fails_in = Some(n.max(1)));
    }

    /// The n-th read from now fails, once. (A short read before the end of a file is what SQLite takes for zeros: its VFS
    /// promises to report an error instead, and so does this one.)
    pub fn fail_read(&self, n: u64) {
        self.with(|machine, _| machine.read_fails_in = Some(n.max(1)));
    }

    /// Fills the disk, or makes room: a full disk takes nothing where it has not kept room for it.
    pub fn fill(&self, full: bool) {
        self.with(|machine, _| machine.full = full);
    }

    /// A part of the writes that need room is refused, in percent.
    pub fn refuse(&self, percent: u64, dice: &Dice) {
        self.with(|machine, _| machine.refuses = (percent > 0).then(|| (dice.clone(), percent)));
    }

    /// From now on faults strike, and fuses burn, only while another process than the app works.
    pub fn spare_app(&self) {
        self.with(|machine, _| machine.app_spared = true);
    }

    /// Puts the event log on a filesystem of its own. (Its file must be durable already: nothing else syncs its name.)
    pub fn set_log_apart(&self) {
        self.with(|machine, _| machine.log_apart = true);
    }

    /// Flips a bit of a file at rest. False when the file is not there or shorter.
    #[allow(dead_code, reason = "for steps to come, and tests")]
    pub fn flip(&self, name: &str, bit: u64) -> bool {
        let name = format!("{}/{name}", self.root);
        self.with(|machine, _| machine.flip(&name, bit))
    }

    /// The number of a file, as sites name it.
    pub fn number(&self, name: &str) -> Option<usize> {
        let name = format!("{}/{name}", self.root);
        self.with(|machine, _| machine.find(&name))
    }

    /// Counted operations of this machine, and the errors it gave on purpose.
    pub fn counts(&self) -> (u64, u64) {
        self.with(|machine, _| (machine.operations, machine.given))
    }

    /// Every database that is there has an empty real file of its name; one that is gone has none.
    fn place_files(&self) {
        let there: Vec<String> = self.with(|machine, _| machine.databases().cloned().collect());
        for name in &there {
            vfs::place(name);
        }
        let entries = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file())) {
            if !there.iter().any(|name| Path::new(name) == entry.path()) {
                // What cannot be removed is found by the next check of the path.
                let _stays = std::fs::remove_file(entry.path());
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        registry(|registry| registry.machines.remove(&self.id));
    }
}
