//! What people and machines read of bundles and receipts.
//!
//! Invariant: field names are the surface that outside checks use; add freely, rename nothing. No value of any row is here.
//! Filled by [`super::bundle_write`], [`super::bundle_read`] and [`super::receipts`], printed by `cli`, served by `http`.

use serde::{Deserialize, Serialize};

/// A bundle that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportView {
    /// The file; empty when it went to stdout.
    pub path: String,
    /// Name of the one server it is for; empty: for all.
    pub made_for: String,
    /// Events in it.
    pub events: u64,
    /// Its size.
    pub bytes: u64,
    /// How many members can open it.
    pub readers: u32,
    /// When, RFC 3339.
    pub created: String,
}

/// What a bundle is and says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleView {
    /// The file.
    pub path: String,
    /// Name of the server that made it.
    pub exporter: String,
    /// Its key in hex.
    pub exporter_id: String,
    /// Cluster id in hex.
    pub cluster_id: String,
    /// The cluster's name.
    pub cluster: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Name of the one server it is for; empty: for all.
    pub made_for: String,
    /// Its size.
    pub bytes: u64,
    /// Events in it.
    pub events: u64,
    /// Events in it that this server lacks and can take.
    pub new_events: u64,
    /// Members it names that this server does not know, by name.
    pub new_members: Vec<String>,
    /// Its events by author.
    pub origins: Vec<CarriedOrigin>,
    /// Its changes by table (of an import: those of the new events).
    pub tables: Vec<CarriedTable>,
    /// What is missing between this server's log and the bundle, in words.
    pub gaps: Vec<String>,
}

/// One author's events in a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedOrigin {
    /// Origin in hex.
    pub origin: String,
    /// Name of its server.
    pub node: String,
    /// The last event that is not in the bundle.
    pub after: u64,
    /// The last one that is.
    pub through: u64,
    /// The last one that this server holds.
    pub held: u64,
}

/// Changes of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedTable {
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
    /// Changes of rows.
    pub changes: u64,
    /// Of these, new rows.
    pub inserts: u64,
}

/// A bundle that was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportView {
    /// What it is.
    #[serde(flatten)]
    pub bundle: BundleView,
    /// Events that were stored.
    pub taken: u64,
    /// This server entered the cluster by this bundle.
    pub entered: bool,
    /// It says nothing that this server does not know: it was not read further.
    pub nothing_new: bool,
}

/// A newcomer that was admitted by its request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdmittedView {
    /// Its key in hex.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What both sides can compare by voice.
    pub fingerprint: String,
    /// False: it was a member before.
    pub new: bool,
    /// Members now.
    pub members: u32,
}

/// `receipts --json` and `GET /api/v1/receipts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptsView {
    /// Whether everything that this server holds is held by other servers too.
    pub safe_to_unplug: bool,
    /// The same in one plain sentence, with numbers.
    pub sentence: String,
    /// Servers of the cluster.
    pub servers: u32,
    /// Of these, those that hold all that this one holds; this one counts.
    pub hold_everything: u32,
    /// What exists only here.
    pub only_here: super::view::OnlyHere,
    /// Captured rows that are not in the log yet; they exist only here, too.
    pub not_logged: u64,
    /// What the others hold.
    pub peers: Vec<ReceiptView>,
}

/// What one other server is known to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptView {
    /// Public key in hex.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Whether it holds all that this one does.
    pub holds_everything: bool,
    /// Events here that it is not known to hold.
    pub lacks: u64,
    /// When it said so, RFC 3339; empty: never.
    pub as_of: String,
    /// `connection`, `bundle`, or empty.
    pub way: String,
}
