//! What a node is opened with.
//!
//! Invariant: plain values, already validated by `config`; nothing here is read from the environment.
//! Callers: daemon, simulations.

use std::path::PathBuf;

pub use super::archive::RetentionSettings;
pub use super::exchange::pace::{PaceSettings, QuietHours};
/// A database to replicate.
pub use crate::sqlite::FileSettings as DatabaseSettings;

/// The event log's name in the data directory.
pub const LOG_FILE: &str = "events.redb";

/// The secret key's.
pub const KEY_FILE: &str = "identity.key";

/// What a node is opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSettings {
    /// Directory of log and keys.
    pub data_dir: PathBuf,
    /// ed25519 secret seed of the node's key.
    pub key_seed: [u8; 32],
    /// Name for people.
    pub name: String,
    /// Databases, in the order of inputs' positions.
    pub databases: Vec<DatabaseSettings>,
    /// Fresh randomness for this start (incarnations).
    pub entropy: [u8; 32],
    /// Identifies the machine: a change starts a new incarnation.
    pub machine_id: String,
    /// How much may travel, and when.
    pub pace: PaceSettings,
    /// What stays in the log, and when the rest is moved by itself.
    pub retention: RetentionSettings,
}
