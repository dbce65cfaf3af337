//! Floor L2: the truth of what happened: an append-only event log, its indexes and the evaluator's state, on redb.
//!
//! Invariant: what [`LogWrite::commit_durable`] returned from is on disk; per origin the log holds a gapless hash chain
//! from event 1 to its head; an event is checked against its hash every time it is read, because storage engines return
//! flipped bits silently. The file is made aside, synced and renamed, so it is whole or not there.
//! Callers: node.
//!
//! Old events lie packed in segments, and are read as if they lay in the log: [`archive`] (reading), [`archive_write`]
//! (moving, and what is durable when), [`segment`] (the format), [`segment_store`] (the files).
//!
//! One writer at a time ([`Log::write`] waits), any number of snapshots ([`Log::read`]; between two commits they are one and
//! the same). A write transaction keeps the evaluator's changes in memory and writes them in key order when it commits:
//! redb takes ascending keys several times faster than random ones, and the evaluator reads its own writes without decoding
//! them again.

mod archive;
mod archive_check;
mod archive_verify;
mod archive_write;
mod base;
pub mod drift;
mod frozen;
mod names;
mod overlay;
mod prints;
mod read;
mod receipts;
mod record;
mod row_record;
pub mod segment;
mod segment_store;
mod snapshot;
mod state;
mod store;
mod stored;
mod tables;
mod verify;
mod write;

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{Builder, Database, ReadableDatabase};

use crate::model::OriginId;
use archive::Home;
use names::Names;

pub use archive_check::{ArchiveSize, StoredSegment};
pub use archive_verify::ArchiveCheck;
pub use archive_write::{SealLimits, Sealer, Uncleared};
pub use base::{Tail, Tails};
pub use frozen::Frozen;
pub use prints::Printed;
pub use read::{Arrival, LogRead};
pub use redb::StorageBackend;
pub use segment_store::{SEGMENT_FOLDER, SegmentFolder, SegmentStore};
pub use snapshot::{LoadedRow, LoadedTable, SnapshotNote, SnapshotStage, StoredPart};
pub use stored::StoredEvent;
pub use verify::{VerifyReport, verify};
pub use write::LogWrite;

/// Memory for pages read and written. Small on purpose: an idle node stays small, and the system's page cache holds the
/// file anyway.
const CACHE_BYTES: usize = 16 << 20;

/// Why the log could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The store's own structure is broken. Nothing can be trusted; a retry does not help: move the file aside and take
    /// the events from peers.
    #[error("the event log is damaged: {0}")]
    Corruption(String),
    /// A stored event differs from what was stored (or is gone). Other events are not affected; a retry does not help,
    /// the event must come from a peer.
    #[error("event {seq} of origin {origin} is damaged in the log")]
    CorruptEvent {
        /// Its origin.
        origin: OriginId,
        /// Its sequence number.
        seq: u64,
    },
    /// An event whose body was moved to a segment that is missing or damaged. Other events are not affected, nothing was
    /// changed; a retry helps once the file is back.
    #[error(
        "event {seq} of origin {origin} lies in the archive's segment {segment}…, which {problem}: put that file back into \
         the folder `segments` of the data directory, or run `litemesh archive repair` while a peer is connected"
    )]
    Archived {
        /// Its origin.
        origin: OriginId,
        /// Its sequence number.
        seq: u64,
        /// The first digits of the segment's name.
        segment: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A segment of the archive could not be written. Nothing was changed, all events are where they were; a retry helps
    /// once the cause (a full disk, a folder that is not this user's) is gone.
    #[error("a segment of the archive cannot be written: {0}; nothing was moved")]
    SegmentNotWritten(#[source] io::Error),
    /// A record of this node's own differs from what was stored. A retry does not help; the evaluator's records can be
    /// derived again from the events.
    #[error("a record of table `{table}` is damaged in the log")]
    CorruptRecord {
        /// Name of the redb table.
        table: &'static str,
    },
    /// Reading or writing the disk failed. Nothing of the transaction is stored; a retry helps once the cause (a full
    /// disk) is gone, after an I/O error only with the log opened again.
    #[error("the event log cannot be read or written: {0}")]
    Storage(#[source] io::Error),
    /// The event is not the next of its origin (or is stored already). Nothing was written, the transaction can go on;
    /// retry when the events before it are there.
    #[error("event {found} of origin {origin} cannot be appended: {expected} is next")]
    OutOfOrder {
        /// Its origin.
        origin: OriginId,
        /// The sequence number that comes next.
        expected: u64,
        /// The sequence number given.
        found: u64,
    },
    /// Another event stands at this place of the chain, or the one before it is another one: its writer forked. Nothing
    /// was written, the transaction can go on; a retry never helps.
    #[error("origin {origin} has two different chains at event {seq}")]
    Fork {
        /// Its origin.
        origin: OriginId,
        /// Sequence number of the event that does not fit.
        seq: u64,
    },
    /// A newer version of litemesh wrote this log. Nothing was touched; only a newer version can open it.
    #[error("the event log has format {found}, this version knows {known}: use a newer litemesh")]
    Newer {
        /// Format of the file.
        found: u32,
        /// Newest format this version knows.
        known: u32,
    },
    /// Another process has the log open. Nothing was touched; retry when it has stopped.
    #[error("already running: another process has the event log open")]
    Locked,
}

impl LogError {
    /// Whether what is stored is no longer what was written: no retry helps, only another member's copy.
    pub fn is_damage(&self) -> bool {
        match self {
            LogError::Corruption(_) | LogError::CorruptEvent { .. } | LogError::CorruptRecord { .. } => true,
            // What redb says of a file that is none of its own any more.
            LogError::Storage(error) => {
                matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
            }
            _ => false,
        }
    }
}

/// The log of one node.
pub struct Log {
    /// Before the database: a snapshot ends before the store closes.
    committed: Mutex<Committed>,
    database: Database,
    /// See [`Log::leave_out_prints`].
    #[cfg(feature = "simulation")]
    printless: std::sync::atomic::AtomicBool,
    home: Arc<Home>,
}

/// What the last commit left.
struct Committed {
    names: Arc<Names>,
    /// A snapshot of it, once somebody asked: to open one costs some thirty searches, and many are asked for between two
    /// commits.
    read: Option<LogRead>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("database", &self.database).finish_non_exhaustive()
    }
}

impl Log {
    /// Opens the log, or makes a new one. What an interrupted first start left is replaced.
    pub fn open(path: &Path) -> Result<Log, LogError> {
        let exists = match std::fs::metadata(path) {
            Ok(metadata) => metadata.len() > 0,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(LogError::Storage(error)),
        };
        if !exists {
            create_aside(path)?;
        }
        let database = builder().open(path)?;
        let segments = SegmentFolder::at(&path.with_file_name(SEGMENT_FOLDER));
        Log::with_database(database, Some(Arc::new(segments)))
    }

    /// A log on any storage, empty or holding a log: for simulated disks. Segments of its archive lie in it too.
    pub fn with_backend(backend: impl StorageBackend) -> Result<Log, LogError> {
        Log::with_database(builder().create_with_backend(backend)?, None)
    }

    /// The same with another place for the segments.
    pub fn with_segments(backend: impl StorageBackend, segments: Arc<dyn SegmentStore>) -> Result<Log, LogError> {
        Log::with_database(builder().create_with_backend(backend)?, Some(segments))
    }

    /// Starts the one write transaction, waiting for the one before it to end. Dropping it undoes it.
    pub fn write(&self) -> Result<LogWrite<'_>, LogError> {
        let transaction = self.database.begin_write()?;
        LogWrite::new(self, transaction)
    }

    /// A snapshot: what was committed (durably or not) before now.
    pub fn read(&self) -> Result<LogRead, LogError> {
        // Held until the snapshot is kept: a commit meanwhile takes it away again.
        let mut committed = self.committed();
        if let Some(read) = &committed.read {
            return Ok(read.clone());
        }
        let transaction = self.database.begin_read()?;
        let read = LogRead::new(&transaction, committed.names.clone(), self.home.clone())?;
        committed.read = Some(read.clone());
        Ok(read)
    }

    /// Gives the room that a cleanup freed back to the disk; false when there was none to give. Nobody may read or write
    /// meanwhile, and a power cut meanwhile costs the next start a repair: it is for a start or a deliberate stop.
    pub fn compact(&mut self) -> Result<bool, LogError> {
        self.committed().read = None;
        match self.database.compact() {
            Ok(compacted) => Ok(compacted),
            Err(redb::CompactionError::Storage(error)) => Err(error.into()),
            Err(other) => Err(LogError::Storage(io::Error::other(other.to_string()))),
        }
    }

    fn with_database(database: Database, segments: Option<Arc<dyn SegmentStore>>) -> Result<Log, LogError> {
        if tables::version(&database)?.is_none() {
            tables::create_all(&database)?;
        }
        match tables::version(&database)? {
            Some(found) if found > tables::STORE_VERSION => {
                return Err(LogError::Newer { found, known: tables::STORE_VERSION });
            }
            Some(_) => {}
            None => return Err(LogError::Corruption("no format version".to_owned())),
        }
        prints::build_where_missing(&database)?;
        let transaction = database.begin_read()?;
        let names = Names::load(&transaction.open_table(tables::NAMES)?)?;
        Ok(Log {
            committed: Mutex::new(Committed { names: Arc::new(names), read: None }),
            database,
            home: Arc::new(Home::new(segments)),
            #[cfg(feature = "simulation")]
            printless: Default::default(),
        })
    }

    /// From now on no range fingerprints are kept: those that are there become wrong. For measuring what they cost.
    #[cfg(feature = "simulation")]
    pub fn leave_out_prints(&self) {
        self.printless.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// What was committed. Whoever commits new names holds this across the commit, so that a snapshot never shows a table
    /// whose name is missing; everybody takes the snapshot away behind a commit.
    fn committed(&self) -> MutexGuard<'_, Committed> {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Makes a whole, empty log beside `path` and renames it there: a crash leaves no half log under the name.
fn create_aside(path: &Path) -> Result<(), LogError> {
    let mut aside: PathBuf = path.to_path_buf();
    aside.as_mut_os_string().push(".new");
    match std::fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(LogError::Storage(error)),
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&aside).map_err(LogError::Storage)?;
    let database = builder().create_file(file)?;
    tables::create_all(&database)?;
    drop(database);
    File::open(&aside).and_then(|file| file.sync_all()).map_err(LogError::Storage)?;
    std::fs::rename(&aside, path).map_err(LogError::Storage)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    // Not every system can sync a folder (Windows cannot open one): the rename itself is enough there.
    if let Ok(folder) = File::open(folder) {
        folder.sync_all().map_err(LogError::Storage)?;
    }
    Ok(())
}

impl From<redb::StorageError> for LogError {
    fn from(error: redb::StorageError) -> LogError {
        match error {
            redb::StorageError::Corrupted(what) => LogError::Corruption(what),
            redb::StorageError::Io(error) => LogError::Storage(error),
            other => LogError::Storage(io::Error::other(other.to_string())),
        }
    }
}

impl From<redb::TableError> for LogError {
    fn from(error: redb::TableError) -> LogError {
        match error {
            redb::TableError::Storage(error) => error.into(),
            other => LogError::Corruption(other.to_string()),
        }
    }
}

impl From<redb::TransactionError> for LogError {
    fn from(error: redb::TransactionError) -> LogError {
        match error {
            redb::TransactionError::Storage(error) => error.into(),
            other => LogError::Storage(io::Error::other(other.to_string())),
        }
    }
}

impl From<redb::CommitError> for LogError {
    fn from(error: redb::CommitError) -> LogError {
        match error {
            redb::CommitError::Storage(error) => error.into(),
            other => LogError::Storage(io::Error::other(other.to_string())),
        }
    }
}

impl From<redb::SetDurabilityError> for LogError {
    fn from(error: redb::SetDurabilityError) -> LogError {
        LogError::Storage(io::Error::other(error.to_string()))
    }
}

impl From<redb::DatabaseError> for LogError {
    fn from(error: redb::DatabaseError) -> LogError {
        match error {
            redb::DatabaseError::DatabaseAlreadyOpen => LogError::Locked,
            redb::DatabaseError::Storage(error) => error.into(),
            other => LogError::Corruption(other.to_string()),
        }
    }
}

#[cfg(test)]
mod archive_tests;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod store_tests;
#[cfg(test)]
mod tests;
