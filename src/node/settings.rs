//! What a node is opened with.
//!
//! Invariant: plain values, already validated by `config`; nothing here is read from the environment.
//! Callers: daemon, simulations.

use std::path::PathBuf;

/// A database to replicate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatabaseSettings {
    /// Name in the cluster.
    pub name: String,
    /// The app's file.
    pub path: PathBuf,
    /// Table name patterns (`*` and `?`) to replicate.
    pub include: Vec<String>,
    /// Table name patterns to leave out (node-local tables).
    pub exclude: Vec<String>,
    /// References that the schema does not declare: (table, column, "[database.]table.column").
    pub references: Vec<(String, String, String)>,
    /// Tables whose integer primary key is a natural key (`pk = "natural"`).
    pub natural_keys: Vec<String>,
}

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
}
