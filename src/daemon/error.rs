//! Why the daemon cannot start or go on.
//!
//! Invariant: every variant a user can cause names cause and next action. Callers: all of `daemon`; `cli` maps it to exit
//! codes.

use std::path::PathBuf;

use crate::http::HttpError;
use crate::log::LogError;
use crate::net::{JoinError, NetError};
use crate::node::NodeError;
use crate::node::bundle::BundleError;
use crate::sqlite::SqliteError;
use crate::wire::invite::CodeError;
use crate::wire::request::RequestError;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The data directory or a file in it cannot be read or written. Nothing was changed; helps after its permissions or
    /// the disk were corrected.
    #[error("cannot {action} {path}", path = path.display())]
    Files {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A secret can be read by others. Nothing was changed.
    #[error("{path} can be read by other users, so it is not trusted: run `chmod 600 {path}` if you are sure that nobody took a copy", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// A file of the data directory has content that litemesh did not write. Nothing was changed.
    #[error("{path} cannot be understood ({what}): restore it from a copy, or move it away if you know what it is", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Another process owns the data directory. Nothing was changed; retry when it has stopped.
    #[error("already running, pid {pid}: stop it first, or use another --data directory")]
    AlreadyRunning {
        /// Its process id, 0 when unknown.
        pid: u32,
    },
    /// No node was ever made in this data directory. Nothing was changed.
    #[error("{path} holds no node: make one with `litemesh run`, `litemesh init` or `litemesh join CODE`, or name another --data directory", path = path.display())]
    NoNode {
        /// The data directory.
        path: PathBuf,
    },
    /// A node worked here, and its log is gone. Nothing was changed: a new log would make it the founder of a cluster of one.
    #[error(
        "a node worked in {path}, but its event log is gone: on another member make a code with `litemesh invite`, then here \
         `litemesh join CODE`; where there is no other member, begin again with `litemesh init`",
        path = path.display()
    )]
    LogGone {
        /// The data directory.
        path: PathBuf,
    },
    /// A node is there already. Nothing was changed.
    #[error("{path} holds a node already: start it with `litemesh run`, or name another --data directory", path = path.display())]
    NodeExists {
        /// The data directory.
        path: PathBuf,
    },
    /// No database to replicate. Nothing was changed.
    #[error(
        "no database to replicate: none is named by --db or a configuration, and none of {} is here",
        shown(looked)
    )]
    NoDatabases {
        /// The files looked for.
        looked: Vec<PathBuf>,
    },
    /// A database that belongs to this node's settings is named twice. Nothing was changed.
    #[error("the file {path} is named as two databases, {first} and {second}: name it once", path = path.display())]
    NamedTwice {
        /// The file.
        path: PathBuf,
        /// One name.
        first: String,
        /// The other.
        second: String,
    },
    /// The plan of a join was not accepted. This server is a member; no row was touched.
    #[error(
        "these databases hold rows already; none was touched. Read the plan above, then repeat the command with --yes"
    )]
    PlanNotAccepted,
    /// The plan of a join waits to be accepted. No row was touched.
    #[error(
        "this server has joined, but what happens to the rows that are here was not accepted yet: see it again with \
         `litemesh join CODE --plan`, accept it with `litemesh join CODE --yes` (CODE is the code it joined with)"
    )]
    JoinUndecided,
    /// The cluster's rows did not come. This server is a member; no row was touched. Helps when a member runs.
    #[error(
        "this server has joined, but no member answers now, so there is nothing to compare with: start the inviting \
         server, then repeat the command"
    )]
    NothingHeard,
    /// A base is named for no database. Nothing was changed.
    #[error("--base {path} could belong to any of {names}: say which, as --base NAME={path}", path = path.display())]
    WhichBase {
        /// The base.
        path: PathBuf,
        /// The databases.
        names: String,
    },
    /// The system gives no random bytes. Nothing was changed.
    #[error("the system gives no random bytes")]
    NoRandomness,
    /// The node's thread ended by itself.
    #[error("the node stopped by itself; its data is safe, start it again")]
    NodeDied,
    /// The runtime of the network cannot start. Nothing was changed.
    #[error("the threads of the network cannot be started")]
    Runtime {
        /// The system's words.
        source: std::io::Error,
    },
    /// This server asked to be admitted and waits for the bundle that says so. Nothing was changed.
    #[error(
        "this server asked to join a cluster and waits for the answer: on a member run `litemesh admit FILE` with its request, \
         then `litemesh bundle export`; bring that here and run `litemesh bundle import`. To begin a cluster of its own instead, \
         remove {request}",
        request = request.display()
    )]
    RequestPending {
        /// The request's copy.
        request: PathBuf,
    },
    /// A request for files that hold rows, without a word about them. Nothing was changed.
    #[error(
        "these databases hold {} already. When this server joins, rows equal to the cluster's are the same rows, and all \
         others are added to the cluster's: repeat the command with --yes to accept that, or with --independent, or --base OLD.db",
        crate::model::counted(*rows, "row")
    )]
    RequestRows {
        /// How many.
        rows: u64,
    },
    /// A bundle for a data directory that belongs to no cluster and asked for none. Nothing was changed.
    #[error(
        "{path} belongs to no cluster, so no bundle is for it: ask to be admitted with `litemesh join --request FILE`, or join \
         over the network with `litemesh join CODE`",
        path = path.display()
    )]
    NotAsked {
        /// The data directory.
        path: PathBuf,
    },
    /// From a bundle; see there.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// From a request; see there.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// From the node; see there.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// From the event log; see there.
    #[error(transparent)]
    Log(#[from] LogError),
    /// From an app's file; see there.
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
    /// From the network; see there.
    #[error(transparent)]
    Net(#[from] NetError),
    /// From a join; see there.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// From a join code; see there.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// From the API; see there.
    #[error(transparent)]
    Http(#[from] HttpError),
}

fn shown(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
