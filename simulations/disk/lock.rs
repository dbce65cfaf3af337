//! SQLite's locks on a file, and the memory that connections in WAL mode share.
//!
//! Invariants: at most one handle is above SHARED, and it is EXCLUSIVE only while nobody else holds anything; of a slot of
//! the shared memory there are readers or one writer. A process that was killed holds nothing; what it writes to the shared
//! memory while its objects are dropped is undone by [`Shared::bury`]. The memory is gone with its last user, as the file
//! behind it is emptied by the first that comes. Caller: `machine`, `vfs`.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::machine::Fault;

/// SQLite's lock levels.
pub(super) const NONE: u8 = 0;
pub(super) const SHARED: u8 = 1;
pub(super) const RESERVED: u8 = 2;
pub(super) const PENDING: u8 = 3;
pub(super) const EXCLUSIVE: u8 = 4;

/// Slots that SQLite locks in the shared memory.
const SLOTS: usize = 8;

/// Who holds what of a file: handle to process and level.
#[derive(Default)]
pub(super) struct Locks(BTreeMap<u64, (u32, u8)>);

impl Locks {
    /// Raises a handle's lock.
    pub(super) fn raise(&mut self, handle: u64, process: u32, level: u8) -> Result<(), Fault> {
        let own = self.level(handle);
        if level <= own {
            return Ok(());
        }
        let others = || self.0.iter().filter(|(other, _)| **other != handle).map(|(_, (_, level))| *level);
        let highest = others().max().unwrap_or(NONE);
        let reached = match level {
            SHARED if highest >= PENDING => return Err(Fault::Busy),
            RESERVED if highest >= RESERVED => return Err(Fault::Busy),
            EXCLUSIVE if highest >= RESERVED => return Err(Fault::Busy),
            // Readers are still there: new ones are kept out from now on.
            EXCLUSIVE if highest > NONE => PENDING,
            level => level,
        };
        self.0.insert(handle, (process, reached));
        if reached == level { Ok(()) } else { Err(Fault::Busy) }
    }

    pub(super) fn lower(&mut self, handle: u64, level: u8) {
        match self.0.get_mut(&handle) {
            Some(_) if level == NONE => self.release(handle),
            Some((_, own)) => *own = (*own).min(level),
            None => {}
        }
    }

    pub(super) fn level(&self, handle: u64) -> u8 {
        self.0.get(&handle).map_or(NONE, |(_, level)| *level)
    }

    /// Whether anybody is about to write.
    pub(super) fn is_reserved(&self) -> bool {
        self.0.values().any(|(_, level)| *level >= RESERVED)
    }

    pub(super) fn release(&mut self, handle: u64) {
        self.0.remove(&handle);
    }

    pub(super) fn release_process(&mut self, process: u32) {
        self.0.retain(|_, (of, _)| *of != process);
    }
}

/// A connection's part in the shared memory: its process, and the slots it holds.
#[derive(Clone, Copy, Default)]
struct User {
    process: u32,
    shared: u8,
    exclusive: u8,
}

/// One region of the shared memory; whoever points into it keeps it alive.
pub(super) type Region = Rc<[Cell<u8>]>;

/// What the regions held when a process was killed.
type Before = (u32, Vec<(Region, Vec<u8>)>);

/// The shared memory of a database.
#[derive(Default)]
pub(super) struct Shared {
    regions: Vec<Region>,
    users: BTreeMap<u64, User>,
    killed: Vec<Before>,
}

impl Shared {
    /// The region, where it is or may be made.
    pub(super) fn map(&mut self, handle: u64, process: u32, region: usize, size: usize, make: bool) -> Option<Region> {
        self.users.entry(handle).or_insert(User { process, ..User::default() });
        if make {
            while self.regions.len() <= region {
                self.regions.push((0..size).map(|_| Cell::new(0)).collect());
            }
        }
        self.regions.get(region).cloned()
    }

    pub(super) fn lock(&mut self, handle: u64, from: usize, count: usize, exclusive: bool) -> Result<(), Fault> {
        let mask = mask(from, count);
        for (other, user) in &self.users {
            if *other != handle && (user.exclusive & mask != 0 || exclusive && user.shared & mask != 0) {
                return Err(Fault::Busy);
            }
        }
        let Some(user) = self.users.get_mut(&handle) else { return Err(Fault::Io) };
        if exclusive {
            user.exclusive |= mask;
        } else {
            user.shared |= mask;
        }
        Ok(())
    }

    pub(super) fn unlock(&mut self, handle: u64, from: usize, count: usize) {
        if let Some(user) = self.users.get_mut(&handle) {
            let mask = mask(from, count);
            user.shared &= !mask;
            user.exclusive &= !mask;
        }
    }

    pub(super) fn release(&mut self, handle: u64) {
        if self.users.remove(&handle).is_some() && self.users.is_empty() {
            self.regions.clear();
        }
    }

    pub(super) fn release_process(&mut self, process: u32) {
        if !self.users.values().any(|user| user.process == process) {
            return;
        }
        self.users.retain(|_, user| user.process != process);
        if self.users.is_empty() {
            self.regions.clear();
        }
        let bytes = |region: &Region| (region.clone(), region.iter().map(Cell::get).collect());
        self.killed.push((process, self.regions.iter().map(bytes).collect()));
    }

    pub(super) fn bury(&mut self, process: u32) {
        while let Some(at) = self.killed.iter().position(|(killed, _)| *killed == process) {
            let (_, before) = self.killed.remove(at);
            for (region, bytes) in before {
                region.iter().zip(bytes).for_each(|(cell, byte)| cell.set(byte));
            }
        }
    }
}

/// The bits of some slots.
fn mask(from: usize, count: usize) -> u8 {
    (from..(from + count).min(SLOTS)).fold(0, |mask, slot| mask | 1 << slot)
}
