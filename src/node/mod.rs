//! Floor L3: the deterministic heart.
pub mod effect;
pub mod invite;
pub mod membership;
pub mod port;
pub mod view;
use crate::model::NodeId;
pub use effect::{Effect, Input, Now};
use std::path::PathBuf;

/// A database to replicate.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// The node.
pub struct Node {
    id: NodeId,
}

/// Why a node cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Placeholder.
    #[error("{0}")]
    Other(String),
}

#[allow(missing_docs, unused_variables, clippy::todo)]
impl Node {
    pub fn open(settings: NodeSettings, now: Now) -> Result<Node, NodeError> {
        todo!()
    }
    pub fn handle(&mut self, input: Input, now: Now) -> Result<(), NodeError> {
        todo!()
    }
    pub fn poll_effect(&mut self) -> Option<Effect> {
        todo!()
    }
    /// Monotonic ms at which `Input::Tick` is wanted.
    pub fn next_deadline(&self) -> Option<u64> {
        todo!()
    }
    /// Everything reached the disk; closes the files.
    pub fn close(self) -> Result<(), NodeError> {
        todo!()
    }
    pub fn id(&self) -> NodeId {
        self.id
    }
    /// Who belongs to the cluster.
    pub fn membership(&self) -> &membership::Membership {
        todo!()
    }
    /// Redeems an invite made by this node; the records of all members, the joiner's included.
    pub fn redeem(
        &mut self,
        request: invite::JoinRequest,
        now: Now,
    ) -> Result<Vec<crate::model::MemberRecord>, invite::Refusal> {
        todo!()
    }

    pub fn status(&self, now: Now) -> Result<view::Status, NodeError> {
        todo!()
    }
    pub fn events(&self, filter: &view::EventFilter) -> Result<view::EventPage, NodeError> {
        todo!()
    }
    pub fn history(&self, database: &str, table: &str, key: &str) -> Result<view::HistoryView, NodeError> {
        todo!()
    }
    pub fn conflicts(&self, after: u64, limit: usize) -> Result<Vec<view::ConflictView>, NodeError> {
        todo!()
    }
    pub fn conflict(&self, number: u64) -> Result<Option<view::ConflictView>, NodeError> {
        todo!()
    }
    pub fn shelf(&self) -> Result<Vec<view::ShelfView>, NodeError> {
        todo!()
    }
    pub fn where_is(
        &self,
        database: &str,
        table: &str,
        id: &str,
        node: Option<&str>,
    ) -> Result<view::WhereView, NodeError> {
        todo!()
    }
    pub fn verify_log(&self) -> Result<view::LogReport, NodeError> {
        todo!()
    }
    pub fn rebuild(&self, out: &std::path::Path) -> Result<view::RebuildReport, NodeError> {
        todo!()
    }
    /// Remembers a way to reach a peer, across restarts.
    pub fn add_address(&mut self, address: view::KnownAddress) -> Result<(), NodeError> {
        todo!()
    }
    pub fn known_addresses(&self) -> Result<Vec<view::KnownAddress>, NodeError> {
        todo!()
    }
    /// Whether this node and each of `peers` (empty: every connected one) hold the same events and have applied them.
    pub fn in_sync(&self, peers: &[NodeId]) -> Result<bool, NodeError> {
        todo!()
    }
}
