//! Whether a path still names the file that was opened, and whether the file can be trusted with locks.
//!
//! Invariant: looks at the path only, never opens it. Callers: enroll (open), node (each second).

use std::path::Path;

use super::{AppFile, SqliteError};

/// Device and inode of a file.
pub(super) type Place = (u64, u64);

impl AppFile {
    /// Whether the path names another file than the one that is open (or none): close this one and open it again.
    pub fn is_replaced(&self) -> bool {
        match std::fs::metadata(&self.settings.path) {
            Ok(metadata) => place(&metadata) != self.identity,
            Err(_) => true,
        }
    }
}

/// Refuses what cannot be opened, with the reason.
pub(super) fn check_path(path: &Path) -> Result<Place, SqliteError> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(SqliteError::ReadOnly { path: path.to_owned() });
        }
        Err(_) => return Err(SqliteError::Missing { path: path.to_owned() }),
    };
    if !metadata.is_file() {
        return Err(SqliteError::NotADatabase { path: path.to_owned() });
    }
    if metadata.permissions().readonly() {
        return Err(SqliteError::ReadOnly { path: path.to_owned() });
    }
    if let Some(kind) = network_filesystem(path) {
        return Err(SqliteError::NetworkFilesystem { path: path.to_owned(), kind });
    }
    Ok(place(&metadata))
}

#[cfg(unix)]
fn place(metadata: &std::fs::Metadata) -> Place {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

/// Without inodes the time of creation must do.
#[cfg(not(unix))]
fn place(metadata: &std::fs::Metadata) -> Place {
    let created = metadata.created().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    (0, created.map_or(0, |time| time.as_nanos() as u64))
}

/// The type of the network filesystem that holds the path, where the system tells (Linux).
fn network_filesystem(path: &Path) -> Option<String> {
    let path = std::fs::canonicalize(path).ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let kind = filesystem_of(&path, &mounts)?;
    const NETWORK: [&str; 14] = [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "afs",
        "ceph",
        "ncpfs",
        "lustre",
        "glusterfs",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.rclone",
        "davfs",
    ];
    NETWORK.contains(&kind.as_str()).then_some(kind)
}

/// The type of the filesystem with the longest mount point above the path; the later line wins, as it is mounted above.
fn filesystem_of(path: &Path, mounts: &str) -> Option<String> {
    let mut best: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(point), Some(kind)) = (fields.next(), fields.next()) else { continue };
        let point = point.replace("\\040", " ");
        if path.starts_with(&point) && best.is_none_or(|(length, _)| point.len() >= length) {
            best = Some((point.len(), kind));
        }
    }
    best.map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_decides() {
        let mounts = "rootfs / ext4 rw 0 0\nserver:/x /mnt nfs4 rw 0 0\n/dev/sdb /mnt/local\\040disk ext4 rw 0 0\n";
        let kind = |path: &str| filesystem_of(Path::new(path), mounts);
        assert_eq!(kind("/home/app.db").as_deref(), Some("ext4"));
        assert_eq!(kind("/mnt/app.db").as_deref(), Some("nfs4"));
        assert_eq!(kind("/mnt/local disk/app.db").as_deref(), Some("ext4"));
        assert_eq!(kind("/mntx/app.db").as_deref(), Some("ext4"));
    }
}
