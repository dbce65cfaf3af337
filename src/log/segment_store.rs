//! Where segments lie: files in a folder beside the log, or in the log's own file.
//!
//! A node's segments are files: redb hardly gives room back, a file does when it goes. A log on a backend of its own (a
//! simulated disk) keeps them in a table instead, under the same names, so that whoever simulates a disk has one to
//! simulate.
//!
//! Invariant: [`SegmentStore::put`] returns when the segment is on the disk under its name, whole; a segment never changes.
//! A crash before the log's commit leaves a file that no log knows: harmless, taken up by the next segment of the same
//! content, and removed when all that is in it is held. Callers: [`super::archive`].

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The folder beside the log.
pub const SEGMENT_FOLDER: &str = "segments";

/// What names of segment files end with.
const ENDING: &str = "segment";

/// Files by content.
pub trait SegmentStore: Send + Sync + Debug {
    /// Keeps a segment; it is durable when this returns. One that is there already is left alone.
    fn put(&self, name: &[u8; 32], bytes: &[u8]) -> io::Result<()>;
    /// Bytes of a segment.
    fn read(&self, name: &[u8; 32], offset: u64, length: usize) -> io::Result<Vec<u8>>;
    /// All segments that are there, known to the log or not, with their sizes.
    fn list(&self) -> io::Result<Vec<([u8; 32], u64)>>;
    /// Removes one. One that is not there is no error.
    fn remove(&self, name: &[u8; 32]) -> io::Result<()>;
}

/// Segments as files: `HASH.segment`, readable by their owner only.
#[derive(Clone, Debug)]
pub struct SegmentFolder {
    path: PathBuf,
}

impl SegmentFolder {
    /// The folder, which need not be there yet.
    pub fn at(path: &Path) -> SegmentFolder {
        SegmentFolder { path: path.to_path_buf() }
    }

    /// The file of a segment.
    pub fn file(&self, name: &[u8; 32]) -> PathBuf {
        self.path.join(format!("{}.{ENDING}", data_encoding::HEXLOWER.encode(name)))
    }

    fn make(&self) -> io::Result<()> {
        if self.path.is_dir() {
            return Ok(());
        }
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.path)?;
        sync_folder(self.path.parent().unwrap_or(Path::new(".")))
    }
}

/// Not every system can sync a folder (Windows cannot open one): a rename is enough there.
fn sync_folder(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path).map_or(Ok(()), |folder| folder.sync_all())
}

impl SegmentStore for SegmentFolder {
    fn put(&self, name: &[u8; 32], bytes: &[u8]) -> io::Result<()> {
        self.make()?;
        let path = self.file(name);
        if std::fs::read(&path).is_ok_and(|there| there == bytes) {
            // A crash may have come between its rename and the sync of the folder.
            File::open(&path)?.sync_all()?;
            return sync_folder(&self.path);
        }
        // One name for all: what a crash leaves is overwritten by the next.
        let aside = self.path.join("segment.new");
        match std::fs::remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&aside, &path)?;
        sync_folder(&self.path)
    }

    fn read(&self, name: &[u8; 32], offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.file(name))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(length as u64).read_to_end(&mut bytes)?;
        if bytes.len() == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn list(&self) -> io::Result<Vec<([u8; 32], u64)>> {
        let entries = match std::fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let hex = name.to_str().and_then(|name| name.strip_suffix(".segment"));
            let name = hex.and_then(|hex| data_encoding::HEXLOWER.decode(hex.as_bytes()).ok());
            if let Some(name) = name.and_then(|name| <[u8; 32]>::try_from(name).ok()) {
                found.push((name, entry.metadata()?.len()));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn remove(&self, name: &[u8; 32]) -> io::Result<()> {
        match std::fs::remove_file(self.file(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}
