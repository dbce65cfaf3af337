//! The data directory: key, token, lock, event log, remembered databases, and what a running node tells others.
//!
//! ```text
//!   identity.key    the node's secret, 0600        lock            advisory lock, pid inside
//!   api-token       bearer token, 0600             run.json        pid and address of the running node
//!   events.redb     the event log                  segments/       old events, packed, each file named by its content
//!                                                 databases.json  databases named once on the command line
//!   undecided       a join's plan waits for a yes    node.json       the node's name
//!   join-plan.json  what a join does, or did, to the rows that were here
//!   join-request    this server asked to be admitted by a bundle, and has no answer yet
//!   base-NAME.db    the file that both sides began with, until NAME is enrolled
//!   reserve         room for a full disk (`reserve`)
//!   monitor.db      run tracking, plain SQLite, 0600 (`monitor`)
//!   identity.key.next  the key that replaces the node's, while `rotate` is at work
//! ```
//!
//! Invariant: a secret that others can read is refused; every file is written aside, synced and renamed. Callers: daemon,
//! cli.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::DaemonError;
use super::machine::{clock_now, random};
use crate::config::Config;
use crate::log::Log;
use crate::node::Node;
use crate::node::meeting_view::MeetingPlan;
use crate::node::settings::{KEY_FILE, LOG_FILE};

const KEY_PREFIX: &str = "litemesh-ed25519-seed ";

/// A data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir {
    path: PathBuf,
}

/// Held while a process owns a data directory.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

/// What a running node tells others on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Process id.
    pub pid: u32,
    /// URL of the API; `None`: it is off.
    pub http: Option<String>,
    /// File of the API's token.
    pub token_file: PathBuf,
    /// The node's key in hex.
    pub node_id: String,
    /// Multiaddrs it listens on.
    pub listen: Vec<String>,
}

/// A database named once on the command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    pub(super) name: String,
    pub(super) path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct RememberedNode {
    name: String,
}

impl DataDir {
    /// The data directory at a path, which need not be there.
    pub fn at(path: &Path) -> DataDir {
        DataDir { path: path.to_path_buf() }
    }

    /// Makes the directory when it is missing; closes it to other users.
    pub fn create(&self) -> Result<(), DaemonError> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&self.path).map_err(|source| self.failed("make the data directory", &self.path, source))?;
        let metadata = std::fs::metadata(&self.path).map_err(|source| self.failed("read", &self.path, source))?;
        let open = metadata.permissions().mode() & 0o077 != 0;
        let ours =
            self.has_identity() || std::fs::read_dir(&self.path).is_ok_and(|mut entries| entries.next().is_none());
        if open && ours {
            let closed = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(&self.path, closed).map_err(|source| self.failed("close", &self.path, source))?;
        } else if open {
            tracing::warn!(path = %self.path.display(), "other users can look into the data directory");
        }
        Ok(())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The event log's file.
    pub fn log_path(&self) -> PathBuf {
        self.path.join(LOG_FILE)
    }

    /// Puts a damaged log out of the way, as evidence; where it is now.
    pub(super) fn set_log_aside(&self) -> Result<PathBuf, DaemonError> {
        let aside = self.path.join(format!("events.redb.damaged-{}", clock_now().wall_ms / 1_000));
        let moved = std::fs::rename(self.log_path(), &aside).and_then(|()| File::open(&self.path)?.sync_all());
        moved.map_err(|source| self.failed("set aside", &self.log_path(), source))?;
        Ok(aside)
    }

    /// Whether a node was made here.
    pub fn has_identity(&self) -> bool {
        self.identity_path().exists()
    }

    fn identity_path(&self) -> PathBuf {
        self.path.join(KEY_FILE)
    }

    /// The usual place of the API's token.
    pub fn token_path(&self) -> PathBuf {
        self.path.join("api-token")
    }

    fn failed(&self, action: &'static str, path: &Path, source: std::io::Error) -> DaemonError {
        DaemonError::Files { action, path: path.to_path_buf(), source }
    }

    /// The directory, where a node was made in it.
    pub(super) fn of_node(config: &Config) -> Result<DataDir, DaemonError> {
        let data = DataDir::at(&config.data_dir);
        match data.has_identity() {
            true => Ok(data),
            false => Err(DaemonError::NoNode { path: data.path }),
        }
    }

    /// The same, taken for this process.
    pub(super) fn lock_node(config: &Config) -> Result<(DataDir, DataLock), DaemonError> {
        let data = DataDir::of_node(config)?;
        let lock = data.lock()?;
        Ok((data, lock))
    }

    /// The directory, taken for this process and made if needed, with the log of a node that belongs to no cluster.
    pub(super) fn lock_newcomer(config: &Config) -> Result<(DataDir, DataLock, Log), DaemonError> {
        let data = DataDir::at(&config.data_dir);
        data.create()?;
        let lock = data.lock()?;
        let log = Log::open(&data.log_path())?;
        match Node::has_cluster(&log)? {
            false => Ok((data, lock, log)),
            true => Err(DaemonError::NodeExists { path: data.path }),
        }
    }

    /// Takes the directory for this process.
    pub fn lock(&self) -> Result<DataLock, DaemonError> {
        let path = self.path.join("lock");
        let failed = |source| self.failed("open", &path, source);
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Without a readable pid the message says 0: better than no message.
                let _ = file.read_to_string(&mut text);
                return Err(DaemonError::AlreadyRunning { pid: text.trim().parse().unwrap_or(0) });
            }
            Err(TryLockError::Error(source)) => return Err(self.failed("lock", &path, source)),
        }
        let pid = std::process::id().to_string();
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(pid.as_bytes()));
        written.map_err(|source| self.failed("write", &path, source))?;
        Ok(DataLock { _file: file })
    }

    /// Whether a process owns the directory.
    pub fn is_locked(&self) -> bool {
        let opened = OpenOptions::new().read(true).write(true).open(self.path.join("lock"));
        opened.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// The node's secret seed.
    pub fn key_seed(&self) -> Result<[u8; 32], DaemonError> {
        if !self.has_identity() {
            return Err(DaemonError::NoNode { path: self.path.clone() });
        }
        let path = self.identity_path();
        let text = self.read_secret(&path)?;
        read_key(&text).ok_or_else(|| DaemonError::Unreadable { path, what: "not a node's key, or damaged".into() })
    }

    /// The node's secret seed, drawn at the first call.
    pub fn key_seed_or_new(&self) -> Result<[u8; 32], DaemonError> {
        if !self.has_identity() {
            self.write(&self.identity_path(), key_text(&random()?).as_bytes())?;
        }
        self.key_seed()
    }

    fn next_key_path(&self) -> PathBuf {
        self.path.join("identity.key.next")
    }

    /// The key that is to replace the node's: written before anybody hears of it.
    pub(super) fn write_next_key(&self, seed: &[u8; 32]) -> Result<(), DaemonError> {
        self.write(&self.next_key_path(), key_text(seed).as_bytes())
    }

    /// The key that was to replace the node's when a rotation was cut off.
    pub(super) fn next_key(&self) -> Result<Option<[u8; 32]>, DaemonError> {
        let path = self.next_key_path();
        if !path.exists() {
            return Ok(None);
        }
        let key = read_key(&self.read_secret(&path)?);
        key.map(Some).ok_or_else(|| DaemonError::Unreadable { path, what: "not a node's key, or damaged".into() })
    }

    /// Puts the new key in the place of the old one.
    pub(super) fn take_next_key(&self) -> Result<(), DaemonError> {
        let moved = std::fs::rename(self.next_key_path(), self.identity_path());
        let synced = moved.and_then(|()| File::open(&self.path)?.sync_all());
        synced.map_err(|source| self.failed("replace", &self.identity_path(), source))
    }

    /// Forgets a new key that nobody ever heard of.
    pub(super) fn drop_next_key(&self) -> Result<(), DaemonError> {
        std::fs::remove_file(self.next_key_path())
            .map_err(|source| self.failed("remove", &self.next_key_path(), source))
    }

    /// The API's token, drawn at the first call. `elsewhere`: its file, when the configuration names one.
    pub fn token_or_new(&self, elsewhere: Option<&Path>) -> Result<(String, PathBuf), DaemonError> {
        let path = elsewhere.map_or_else(|| self.token_path(), Path::to_path_buf);
        if !path.exists() {
            let text = format!("{}\n", data_encoding::HEXLOWER.encode(&random()?));
            self.write(&path, text.as_bytes())?;
        }
        let token = self.read_secret(&path)?.trim().to_string();
        if token.len() < 16 || !token.chars().all(|c| c.is_ascii_graphic()) {
            return Err(DaemonError::Unreadable { path, what: "a token has 16 or more visible characters".into() });
        }
        Ok((token, path))
    }

    fn read_secret(&self, path: &Path) -> Result<String, DaemonError> {
        let failed = |source| self.failed("read", path, source);
        let mut file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
            return Err(DaemonError::Exposed { path: path.to_path_buf() });
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        Ok(text)
    }

    /// Written aside, synced, renamed: there whole or not at all. Only the owner can read it.
    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), DaemonError> {
        let aside = path.with_extension("new");
        let written = || -> std::io::Result<()> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&aside, path)?;
            File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        written().map_err(|source| self.failed("write", path, source))
    }

    /// Tells others where the running node is.
    pub fn write_run_info(&self, info: &RunInfo) -> Result<(), DaemonError> {
        self.write(&self.path.join("run.json"), &json(info))
    }

    /// Keeps the plan of a join, for whoever asks later what happened.
    pub(super) fn keep_join_plan(&self, plan: &MeetingPlan) -> Result<(), DaemonError> {
        self.write(&self.path.join("join-plan.json"), &json(plan))
    }

    /// The plan of the join; none where this server founded its cluster or joined without a plan.
    pub fn join_plan(&self) -> Result<Option<MeetingPlan>, DaemonError> {
        self.read_json(&self.path.join("join-plan.json"))
    }

    /// Where the running node is; `None` when none runs.
    pub fn run_info(&self) -> Result<Option<RunInfo>, DaemonError> {
        if !self.is_locked() {
            return Ok(None);
        }
        self.read_json(&self.path.join("run.json"))
    }

    /// At a clean stop.
    pub fn remove_run_info(&self) {
        // Left behind it does no harm: the lock says whether a node runs.
        let _ = std::fs::remove_file(self.path.join("run.json"));
    }

    /// The databases that were named on the command line before.
    pub(super) fn remembered(&self) -> Result<Vec<Remembered>, DaemonError> {
        Ok(self.read_json(&self.path.join("databases.json"))?.unwrap_or_default())
    }

    /// Remembers databases for later starts.
    pub(super) fn remember(&self, databases: &[Remembered]) -> Result<(), DaemonError> {
        if self.remembered()? == databases {
            return Ok(());
        }
        self.write(&self.path.join("databases.json"), &json(&databases))
    }

    /// The name this node had before.
    pub(super) fn remembered_name(&self) -> Result<Option<String>, DaemonError> {
        let kept: Option<RememberedNode> = self.read_json(&self.path.join("node.json"))?;
        Ok(kept.map(|kept| kept.name))
    }

    /// Remembers the node's name for later starts.
    pub(super) fn remember_name(&self, name: &str) -> Result<(), DaemonError> {
        if self.remembered_name()?.as_deref() == Some(name) {
            return Ok(());
        }
        self.write(&self.path.join("node.json"), &json(&RememberedNode { name: name.into() }))
    }

    fn read_json<T: serde::de::DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, DaemonError> {
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| DaemonError::Unreadable { path: path.to_path_buf(), what: error.to_string() }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.failed("read", path, source)),
        }
    }
}

/// A key as its file holds it: with a check, because a wrong digit would be the key of somebody else.
fn key_text(seed: &[u8; 32]) -> String {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    format!("{KEY_PREFIX}{} {}\n", hex(seed), hex(&key_check(seed)))
}

/// A key from its file's text. Keys of the first versions have no check.
fn read_key(text: &str) -> Option<[u8; 32]> {
    let mut words = text.trim().strip_prefix(KEY_PREFIX)?.split(' ');
    let decode = |word: &str| data_encoding::HEXLOWER.decode(word.as_bytes()).ok();
    let seed: [u8; 32] = decode(words.next()?)?.try_into().ok()?;
    let checked = words.next().map(decode);
    let sound = words.next().is_none() && checked.is_none_or(|check| check.as_deref() == Some(&key_check(&seed)[..]));
    sound.then_some(seed)
}

fn key_check(seed: &[u8; 32]) -> [u8; 4] {
    let hash = blake3::derive_key("litemesh 1 key file check", seed);
    [hash[0], hash[1], hash[2], hash[3]]
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("plain structs with string keys always serialise")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_made_once_and_refused_when_others_can_read_them() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::at(&directory.path().join("data"));
        assert!(matches!(data.key_seed(), Err(DaemonError::NoNode { .. })));
        data.create().unwrap();
        let seed = data.key_seed_or_new().unwrap();
        assert_eq!(data.key_seed_or_new().unwrap(), seed);
        let (token, path) = data.token_or_new(None).unwrap();
        assert_eq!(data.token_or_new(None).unwrap().0, token);
        for path in [&path, &data.identity_path()] {
            assert_eq!(std::fs::metadata(path).unwrap().mode() & 0o777, 0o600);
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o640)).unwrap();
        }
        assert!(matches!(data.key_seed(), Err(DaemonError::Exposed { .. })));
        assert!(matches!(data.token_or_new(None), Err(DaemonError::Exposed { .. })));
        assert_eq!(std::fs::metadata(data.path()).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn no_flipped_bit_of_a_key_makes_another_key() {
        let seed = [0x30; 32];
        let text = key_text(&seed);
        assert_eq!(read_key(&text), Some(seed));
        let first_version = text.rsplit_once(' ').unwrap().0;
        assert_eq!(read_key(first_version), Some(seed));
        for bit in 0..text.len() * 8 {
            let mut bytes = text.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let read = String::from_utf8(bytes).ok().and_then(|text| read_key(&text));
            assert!(read.is_none_or(|read| read == seed), "bit {bit}");
        }
    }

    #[test]
    fn a_directory_has_one_owner_and_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::at(directory.path());
        assert!(!data.is_locked());
        let lock = data.lock().unwrap();
        assert!(data.is_locked());
        let refusal = data.lock().unwrap_err().to_string();
        assert!(refusal.contains(&format!("already running, pid {}", std::process::id())), "{refusal}");
        drop(lock);
        assert!(!data.is_locked() && data.run_info().unwrap().is_none());
    }
}
