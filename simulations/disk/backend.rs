//! The simulated disk under redb.
//!
//! Invariant: every operation goes through the machine's one counter, after those of SQLite and before them, as they
//! come. Caller: [`super::Disk::backend`].

use std::io;

use litemesh::log::StorageBackend;

use super::{Fault, Handle, Kind};

/// A file as redb wants it.
#[derive(Debug)]
pub struct Backend(Handle);

impl Backend {
    pub(super) fn open(name: &str) -> io::Result<Backend> {
        let handle = Handle::open(name, Kind::Log, true).expect("the name lies on the machine");
        handle.map(Backend).map_err(error)
    }
}

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::Full => io::Error::from(io::ErrorKind::StorageFull),
        Fault::Missing => io::Error::from(io::ErrorKind::NotFound),
        Fault::Dead => io::Error::other("the process is dead"),
        Fault::Io | Fault::Busy => io::Error::other("the disk fails"),
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.length().map_err(error)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match self.0.read(offset, out).map_err(error)? {
            length if length == out.len() => Ok(()),
            _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_length(len).map_err(error)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync().map_err(error)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data).map_err(error)
    }
}
