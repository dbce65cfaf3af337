//! One machine's storage: its files, what of them is on the platter, and the fault that is due.
//!
//! Every operation that changes something or takes a lock is counted, hashed, and may be the one at which the machine
//! dies. What was written since a file's last sync is kept as a list; [`Machine::power_on`] draws what of it arrived.
//! Invariants: a sync makes exactly what was written before it durable; an operation at which a process is killed does not
//! happen, one at which the power fails happens in part or not at all; a dead process, or one from before a power cut, does
//! nothing at all. What it does not model: a disk that lies about a sync, sectors that go bad by themselves, a kill between
//! two writes to the memory that SQLite's connections share (the barrier between the two copies of its header is a point).
//! Callers: the handles in `vfs` and `backend`, through `super`.

use std::collections::{BTreeMap, BTreeSet};

use super::lock::{Locks, Shared};
use super::{APP, Kind, Owner, Run, Site};
use crate::world::dice::Dice;

/// A write is torn at borders of this size, and within at most one of them.
const SECTOR: usize = 512;

/// Room on the disk is taken in blocks of this size.
const BLOCK: usize = 4096;

/// What can come of an operation besides success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The machine is off, or the process was killed.
    Dead,
    /// The disk says no.
    Io,
    /// No room.
    Full,
    /// Somebody else holds the lock.
    Busy,
    /// No such file.
    Missing,
}

/// What happens when a fuse is burnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The power of the whole machine fails.
    Power,
    /// The process whose operation it is is killed.
    Kill,
}

/// Whether an operation is one of those that a fuse counts.
pub type Counted = Box<dyn Fn(&Site) -> bool>;

/// Operations until a crash.
struct Fuse {
    left: u64,
    counted: Counted,
    crash: Crash,
}

/// A change of a file that was not synced.
#[derive(Clone, Copy, Debug)]
enum Pending {
    Length(usize),
    Write { at: usize, from: usize, length: usize },
}

/// A change of the directory that was not synced.
#[derive(Clone, Debug)]
enum Entry {
    Made(String, usize),
    Gone(String),
}

/// A file: what readers see, what is on the platter, and what lies between the two.
#[derive(Default)]
pub(super) struct Body {
    pub(super) live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
    /// The bytes of all pending writes, one after the other.
    written: Vec<u8>,
    /// Blocks that take room on the disk.
    blocks: Vec<bool>,
    pub(super) locks: Locks,
    pub(super) shared: Shared,
    open: u32,
    linked: bool,
    kind: Kind,
    base: usize,
}

/// The storage of one machine.
#[derive(Default)]
pub(super) struct Machine {
    pub(super) root: String,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    entries: Vec<Entry>,
    files: Vec<Body>,
    /// Number of the start; handles of earlier ones are dead.
    pub(super) boot: u64,
    pub(super) off: bool,
    pub(super) dead: BTreeSet<u32>,
    fuse: Option<Fuse>,
    pub(super) site: Option<Site>,
    /// Counted operations since the machine was made.
    pub(super) operations: u64,
    /// Errors given out on purpose.
    pub(super) given: u64,
    pub(super) sync_fails_in: Option<u64>,
    pub(super) read_fails_in: Option<u64>,
    pub(super) full: bool,
    /// Dice for a disk that refuses a part of the writes, and the part in percent.
    pub(super) refuses: Option<(Dice, u64)>,
    /// The event log lies on a filesystem of its own: its syncs say nothing of the app's directory.
    pub(super) log_apart: bool,
    /// Nothing goes wrong, and no fuse burns, while the app works.
    pub(super) app_spared: bool,
}

/// What a machine's disk holds, all of it durable; names are those below its directory.
#[derive(Clone, Debug, Default)]
pub struct Image(Vec<(String, Kind, Vec<u8>)>);

impl Image {
    /// Only the files that `keep` says yes to, by their names below the machine's directory.
    pub fn only(mut self, keep: impl Fn(&str) -> bool) -> Image {
        self.0.retain(|(name, ..)| keep(name));
        self
    }

    /// The files of both; where both have one of a name, this one's.
    pub fn over(mut self, below: Image) -> Image {
        let here: BTreeSet<String> = self.0.iter().map(|(name, ..)| name.clone()).collect();
        self.0.extend(below.0.into_iter().filter(|(name, ..)| !here.contains(name)));
        self
    }
}

impl Machine {
    pub(super) fn from_image(root: String, image: &Image) -> Machine {
        let mut machine = Machine { root, ..Machine::default() };
        for (name, kind, bytes) in &image.0 {
            let blocks = vec![true; bytes.len().div_ceil(BLOCK)];
            let (live, durable) = (bytes.clone(), bytes.clone());
            let (id, name) = (machine.files.len(), format!("{}/{name}", machine.root));
            machine.files.push(Body { live, durable, blocks, linked: true, kind: *kind, base: id, ..Body::default() });
            machine.names.insert(name.clone(), id);
            machine.durable_names.insert(name, id);
        }
        machine
    }

    /// What readers see now, as if all of it were synced.
    pub(super) fn image(&self) -> Image {
        let file = |(name, id): (&String, &usize)| {
            (name[self.root.len() + 1..].to_owned(), self.files[*id].kind, self.files[*id].live.clone())
        };
        Image(self.names.iter().map(file).collect())
    }

    pub(super) fn file(&self, id: usize) -> &Body {
        &self.files[id]
    }

    pub(super) fn file_mut(&mut self, id: usize) -> &mut Body {
        &mut self.files[id]
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    pub(super) fn lives(&self, owner: Owner) -> bool {
        !self.off && owner.boot == self.boot && !self.dead.contains(&owner.process)
    }

    fn spares(&self, owner: Owner) -> bool {
        self.app_spared && owner.process == APP
    }

    pub(super) fn set_fuse(&mut self, left: u64, counted: Counted, crash: Crash) {
        self.fuse = Some(Fuse { left: left.max(1), counted, crash });
        self.site = None;
    }

    pub(super) fn disarm(&mut self) {
        (self.fuse, self.sync_fails_in, self.read_fails_in) = (None, None, None);
    }

    /// Counts an operation, and dies at it where that is due.
    pub(super) fn operate(&mut self, run: &mut Run, owner: Owner, site: Site, detail: u64) -> Result<(), Fault> {
        if !self.lives(owner) {
            return Err(Fault::Dead);
        }
        self.operations += 1;
        run.count(&site, detail);
        let spared = self.spares(owner);
        let Some(fuse) = self.fuse.as_mut().filter(|fuse| !spared && (fuse.counted)(&site)) else {
            return Ok(());
        };
        fuse.left -= 1;
        if fuse.left > 0 {
            return Ok(());
        }
        let crash = fuse.crash;
        self.fuse = None;
        self.site = Some(site);
        match crash {
            Crash::Power => self.off = true,
            Crash::Kill => self.kill(owner.process),
        }
        Err(Fault::Dead)
    }

    /// Ends a process: its locks are free at once, and what it writes to shared memory from now on is undone by `bury`.
    pub(super) fn kill(&mut self, process: u32) {
        if !self.dead.insert(process) {
            return;
        }
        for file in &mut self.files {
            file.locks.release_process(process);
            file.shared.release_process(process);
        }
    }

    /// Undoes what a dead process wrote to shared memory while its objects were dropped.
    pub(super) fn bury(&mut self, process: u32) {
        for file in &mut self.files {
            file.shared.bury(process);
        }
    }

    /// Where an operation on a file happens.
    pub(super) fn site_of(&self, run: &Run, owner: Owner, id: usize, what: &'static str) -> Site {
        Site::new(owner, self.files[id].kind, self.files[id].base, what, run)
    }

    /// The database that a file belongs to: itself, or the one that it is the journal of.
    fn base(&self, name: &str, id: usize) -> usize {
        let main = ["-wal", "-journal"].iter().find_map(|end| name.strip_suffix(end));
        main.and_then(|main| self.find(main)).unwrap_or(id)
    }

    /// A handle on a file, made where `create` allows it.
    pub(super) fn open(
        &mut self,
        run: &mut Run,
        owner: Owner,
        name: &str,
        kind: Kind,
        create: bool,
    ) -> Result<usize, Fault> {
        if !self.lives(owner) {
            return Err(Fault::Dead);
        }
        if let Some(id) = self.find(name) {
            self.files[id].open += 1;
            return Ok(id);
        }
        if !create {
            return Err(Fault::Missing);
        }
        let id = self.files.len();
        self.operate(run, owner, Site::new(owner, kind, self.base(name, id), "create", run), id as u64)?;
        let base = self.base(name, id);
        self.files.push(Body { open: 1, linked: true, kind, base, ..Body::default() });
        self.names.insert(name.to_owned(), id);
        self.entries.push(Entry::Made(name.to_owned(), id));
        Ok(id)
    }

    pub(super) fn close(&mut self, owner: Owner, id: usize, handle: u64) {
        if owner.boot != self.boot {
            return;
        }
        let file = &mut self.files[id];
        file.open = file.open.saturating_sub(1);
        file.locks.release(handle);
        file.shared.release(handle);
        self.sweep(id);
    }

    /// Takes a name out of the directory; `sync` makes that durable, with all changes before it.
    pub(super) fn delete(&mut self, run: &mut Run, owner: Owner, name: &str, sync: bool) -> Result<(), Fault> {
        if !self.lives(owner) {
            return Err(Fault::Dead);
        }
        let id = self.find(name).ok_or(Fault::Missing)?;
        self.operate(run, owner, self.site_of(run, owner, id, "delete"), id as u64)?;
        self.names.remove(name);
        self.files[id].linked = false;
        self.entries.push(Entry::Gone(name.to_owned()));
        if sync {
            self.sync_directory();
        }
        Ok(())
    }

    pub(super) fn read(&mut self, owner: Owner, id: usize, at: usize, out: &mut [u8]) -> Result<usize, Fault> {
        if !self.lives(owner) {
            return Err(Fault::Dead);
        }
        if !self.spares(owner) && burns(&mut self.read_fails_in) {
            self.given += 1;
            return Err(Fault::Io);
        }
        let live = &self.files[id].live;
        let from = live.get(at.min(live.len())..).unwrap_or_default();
        let length = from.len().min(out.len());
        out[..length].copy_from_slice(&from[..length]);
        out[length..].fill(0);
        Ok(length)
    }

    pub(super) fn write(
        &mut self,
        run: &mut Run,
        owner: Owner,
        id: usize,
        at: usize,
        data: &[u8],
    ) -> Result<(), Fault> {
        let was_on = self.lives(owner);
        let site = self.site_of(run, owner, id, "write");
        let outcome = self.operate(run, owner, site, detail(id, at, data));
        if outcome.is_err() && !(was_on && self.off) {
            return outcome;
        }
        if outcome.is_ok() && !self.has_room(id, at, data.len(), self.spares(owner)) {
            self.given += 1;
            return Err(Fault::Full);
        }
        let file = &mut self.files[id];
        let end = at + data.len();
        if file.live.len() < end {
            file.live.resize(end, 0);
        }
        file.live[at..end].copy_from_slice(data);
        file.pending.push(Pending::Write { at, from: file.written.len(), length: data.len() });
        file.written.extend_from_slice(data);
        outcome
    }

    /// Whether the disk takes the write; what it takes, it keeps room for. A file may be longer than what it has room for.
    fn has_room(&mut self, id: usize, at: usize, length: usize, spared: bool) -> bool {
        let refused = self.refuses.as_mut().is_some_and(|(dice, percent)| dice.chance(*percent));
        let blocks = &mut self.files[id].blocks;
        let (first, end) = (at / BLOCK, (at + length).div_ceil(BLOCK));
        if !spared && (self.full || refused) && (first..end).any(|block| !blocks.get(block).copied().unwrap_or(false)) {
            return false;
        }
        if blocks.len() < end {
            blocks.resize(end, false);
        }
        blocks[first..end].fill(true);
        true
    }

    pub(super) fn set_length(&mut self, run: &mut Run, owner: Owner, id: usize, length: usize) -> Result<(), Fault> {
        let site = self.site_of(run, owner, id, "length");
        self.operate(run, owner, site, (id as u64) << 40 | length as u64)?;
        let file = &mut self.files[id];
        file.live.resize(length, 0);
        file.blocks.truncate(length.div_ceil(BLOCK));
        file.pending.push(Pending::Length(length));
        Ok(())
    }

    /// Makes a file durable, and the directory with it.
    pub(super) fn sync(&mut self, run: &mut Run, owner: Owner, id: usize) -> Result<(), Fault> {
        let site = self.site_of(run, owner, id, "sync");
        self.operate(run, owner, site, id as u64)?;
        if !self.spares(owner) && burns(&mut self.sync_fails_in) {
            self.given += 1;
            // The system has told its only reader and takes the pages for clean: no later sync writes them.
            self.files[id].settle(&mut run.dice.clone(), false);
            run.dice.bits();
            return Err(Fault::Io);
        }
        self.files[id].sync();
        if !(self.log_apart && self.files[id].kind == Kind::Log) {
            self.sync_directory();
        }
        Ok(())
    }

    fn sync_directory(&mut self) {
        for entry in std::mem::take(&mut self.entries) {
            apply_entry(&mut self.durable_names, &entry);
            if let Entry::Made(_, id) = entry {
                self.sweep(id);
            }
        }
        for id in 0..self.files.len() {
            self.sweep(id);
        }
    }

    /// Frees a file that nobody can reach any more.
    fn sweep(&mut self, id: usize) {
        let file = &self.files[id];
        let gone = !file.linked && file.open == 0 && self.entries.is_empty();
        if gone && !file.durable.is_empty() && !self.durable_names.values().any(|durable| *durable == id) {
            self.files[id] = Body { kind: file.kind, base: file.base, ..Body::default() };
        }
    }

    /// The power comes back: of what was not synced a part arrived, drawn from the dice. No lock, no shared memory and no
    /// handle is left from before.
    pub(super) fn power_on(&mut self, dice: &mut Dice) {
        let kept = dice.below(self.entries.len() as u64 + 1) as usize;
        for entry in std::mem::take(&mut self.entries).into_iter().take(kept) {
            apply_entry(&mut self.durable_names, &entry);
        }
        self.names = self.durable_names.clone();
        for id in 0..self.files.len() {
            let file = &mut self.files[id];
            file.settle(dice, true);
            file.linked = self.names.values().any(|named| *named == id);
            if !file.linked {
                *file = Body { kind: file.kind, base: file.base, ..Body::default() };
            }
        }
        self.boot += 1;
        self.off = false;
        self.dead.clear();
        self.disarm();
        self.refuses = None;
        self.full = false;
    }

    /// Flips one bit of a file, where it is at rest.
    #[allow(dead_code, reason = "see Disk::flip")]
    pub(super) fn flip(&mut self, name: &str, bit: u64) -> bool {
        let Some(id) = self.find(name) else { return false };
        let file = &mut self.files[id];
        let (at, mask) = ((bit / 8) as usize, 1 << (bit % 8));
        for bytes in [&mut file.live, &mut file.durable] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= mask;
            }
        }
        at < file.live.len()
    }

    /// The names of the app's databases, there and gone.
    pub(super) fn databases(&self) -> impl Iterator<Item = &String> {
        self.names.iter().filter(|(_, id)| self.files[**id].kind == Kind::Main).map(|(name, _)| name)
    }
}

impl Body {
    fn sync(&mut self) {
        for pending in self.pending.drain(..) {
            match pending {
                Pending::Length(length) => self.durable.resize(length, 0),
                Pending::Write { at, from, length } => {
                    put(&mut self.durable, at, &self.written[from..from + length]);
                }
            }
        }
        self.written.clear();
    }

    /// Draws what of the unsynced arrived. `lost`: the rest is gone for readers too.
    fn settle(&mut self, dice: &mut Dice, lost: bool) {
        // All, nothing, or some in any order: each is a third of the cuts.
        let percent = [100, 0, 10 + dice.below(81)][dice.below(3) as usize];
        let lengths = self.pending.iter().filter(|pending| matches!(pending, Pending::Length(_))).count() as u64;
        let mut lengths_kept = if percent == 100 { lengths } else { dice.below(lengths + 1) };
        let end = self.live.len();
        for pending in self.pending.drain(..) {
            match pending {
                // Lengths are journaled in order: some arrive, none after one that did not.
                Pending::Length(length) if lengths_kept > 0 => {
                    lengths_kept -= 1;
                    self.durable.resize(length, 0);
                }
                Pending::Length(_) => {}
                Pending::Write { at, from, length } => {
                    let data = &self.written[from..from + length];
                    let mut start = 0;
                    while start < length {
                        let stop = (((at + start) / SECTOR + 1) * SECTOR - at).min(length);
                        let torn = percent < 100 && dice.chance(5);
                        let stop_at = if torn { start + dice.below((stop - start) as u64) as usize } else { stop };
                        if dice.chance(percent) {
                            put(&mut self.durable, at + start, &data[start..stop_at]);
                        }
                        start = stop;
                    }
                }
            }
        }
        self.written.clear();
        // The length may be on the platter where the data is not.
        if self.durable.len() < end && dice.chance(30) {
            self.durable.resize(end, 0);
        }
        if lost {
            self.live.clone_from(&self.durable);
            (self.locks, self.shared, self.open) = (Locks::default(), Shared::default(), 0);
            let blocks = self.live.len().div_ceil(BLOCK);
            self.blocks.resize(blocks, true);
        }
    }
}

fn apply_entry(names: &mut BTreeMap<String, usize>, entry: &Entry) {
    match entry {
        Entry::Made(name, id) => {
            names.insert(name.clone(), *id);
        }
        Entry::Gone(name) => {
            names.remove(name);
        }
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    let end = at + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(data);
}

/// Counts down; true once, at zero.
fn burns(fuse: &mut Option<u64>) -> bool {
    match fuse {
        Some(left) if *left <= 1 => {
            *fuse = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

/// What the hash of a run takes of a write: where, how much, and what.
fn detail(id: usize, at: usize, data: &[u8]) -> u64 {
    let mut hash = (id as u64) << 48 ^ (at as u64) << 20 ^ data.len() as u64;
    for chunk in data.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
    hash
}
