//! Room set aside on the data directory's disk, so that a full disk still leaves enough to open the log and say so.
//!
//! redb cannot even open a log without writing. The file `reserve` holds 8 MiB from the first start on; when the log's disk
//! is full it is given up, the log opens, and the node answers questions without writing. It goes on writing when the
//! reserve fits again: so what was freed is never used up by the very writes that filled the disk. Invariant: the file is
//! whole or not there. Callers: node_thread, run.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// How much is set aside. The log of a year of scouting is larger than that by far, its recovery smaller.
const BYTES: u64 = 8 << 20;

/// Written at once.
const BLOCK: usize = 1 << 20;

/// The reserve of one data directory.
#[derive(Clone, Debug)]
pub(super) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// The reserve of a data directory, there or not.
    pub(super) fn of(data_dir: &Path) -> Reserve {
        Reserve { path: data_dir.join("reserve") }
    }

    /// Sets the room aside, if it is not. An error leaves nothing behind: the room is not there.
    pub(super) fn keep(&self) -> io::Result<()> {
        if std::fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() == BYTES) {
            return Ok(());
        }
        let aside = self.path.with_extension("new");
        let written = fill(&aside).and_then(|()| std::fs::rename(&aside, &self.path));
        if written.is_err() {
            // Half a reserve would be taken from the room that others need now.
            let _ = std::fs::remove_file(&aside);
        }
        written
    }

    /// Gives the room back. `false`: there was none.
    pub(super) fn give_up(&self) -> bool {
        std::fs::remove_file(&self.path).is_ok()
    }
}

/// Bytes that no file system can keep in less room: it may compress, or leave out blocks of zeros.
fn fill(path: &Path) -> io::Result<()> {
    // Nothing in the data directory is for others, not even this.
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut bytes = blake3::Hasher::new_derive_key("litemesh 1 reserve").finalize_xof();
    let mut block = vec![0; BLOCK];
    for _ in 0..BYTES / BLOCK as u64 {
        bytes.fill(&mut block);
        file.write_all(&block)?;
    }
    // A file system that allots blocks late says only now that there are none.
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_once_whole_or_not_at_all_and_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let reserve = Reserve::of(directory.path());
        reserve.keep().unwrap();
        assert_eq!(std::fs::metadata(&reserve.path).unwrap().len(), BYTES);
        std::fs::write(&reserve.path, "half").unwrap();
        reserve.keep().unwrap();
        assert_eq!(std::fs::metadata(&reserve.path).unwrap().len(), BYTES);
        assert!(reserve.give_up() && !reserve.give_up());
        let nowhere = Reserve::of(&directory.path().join("missing"));
        assert!(nowhere.keep().is_err() && !nowhere.path.exists());
    }
}
