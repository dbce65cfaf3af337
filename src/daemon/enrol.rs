//! New clusters and joining one: everything before the first start.
//!
//! Invariant: the node's key is on the disk before anybody hears of it, so a join whose answer was lost can be asked
//! again with the same code; a database is only looked at here, never changed. Called by cli.

use serde::Serialize;

use super::databases::{Choice, remember};
use super::machine::clock_now;
use super::node_thread::{Start, open, while_busy};
use super::run::{node_name, node_settings};
use super::{DaemonError, DataDir, file_settings};
use crate::config::Config;
use crate::log::Log;
use crate::net;
use crate::node::Node;
use crate::node::view::KnownAddress;
use crate::sqlite::AppFile;
use crate::wire::invite::InviteCode;

/// A node that now belongs to a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Enrolled {
    /// The node's key in hex.
    pub node_id: String,
    /// Its name.
    pub name: String,
    /// The cluster's id in hex.
    pub cluster_id: String,
    /// The cluster's name.
    pub cluster_name: String,
    /// Number of members.
    pub members: usize,
    /// Seniority: the founder has 0.
    pub origin_rank: u32,
    /// The data directory.
    pub data: String,
}

/// What a join does to the rows that are here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct JoinPlan {
    /// Database by database.
    pub databases: Vec<DatabasePlan>,
    /// Rows in all of them.
    pub rows: u64,
}

/// One database of a [`JoinPlan`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DatabasePlan {
    /// Name in the cluster.
    pub name: String,
    /// The file.
    pub path: String,
    /// (table, rows, how its rows are told apart).
    pub tables: Vec<(String, u64, String)>,
    /// Rows in all of them.
    pub rows: u64,
}

/// Founds a cluster with this node as its first member, without running it.
pub fn init(config: &Config, cluster_name: Option<&str>) -> Result<Enrolled, DaemonError> {
    let data = DataDir::at(&config.data_dir);
    data.create()?;
    let _lock = data.lock()?;
    let log = Log::open(&data.log_path())?;
    if Node::has_cluster(&log)? {
        return Err(DaemonError::NodeExists { path: data.path().to_path_buf() });
    }
    let name = node_name(config, &data)?;
    let cluster_name = cluster_name.map_or_else(|| format!("{name}'s cluster"), str::to_string);
    Node::found(&log, &data.key_seed_or_new()?, &name, &cluster_name, clock_now())?;
    drop(log);
    data.token_or_new(config.http.token_file.as_deref())?;
    describe(config, &data)
}

/// What a join would do to the rows in these databases. Changes nothing.
pub fn plan(choice: &Choice) -> Result<JoinPlan, DaemonError> {
    let mut plan = JoinPlan::default();
    for settings in &choice.databases {
        let report = while_busy(|| Ok(AppFile::open(file_settings(settings))?.preflight()?))?;
        let tables: Vec<_> = report.tables.into_iter().map(|table| (table.table, table.rows, table.how)).collect();
        let rows = tables.iter().map(|(_, rows, _)| rows).sum();
        plan.rows += rows;
        plan.databases.push(DatabasePlan { name: report.database, path: report.path, tables, rows });
    }
    Ok(plan)
}

/// Joins the cluster of a code. The databases are remembered for the first start.
pub fn join(config: &Config, code: &InviteCode, choice: &Choice) -> Result<Enrolled, DaemonError> {
    let data = DataDir::at(&config.data_dir);
    data.create()?;
    let _lock = data.lock()?;
    let log = Log::open(&data.log_path())?;
    if Node::has_cluster(&log)? {
        return Err(DaemonError::NodeExists { path: data.path().to_path_buf() });
    }
    let key_seed = data.key_seed_or_new()?;
    let name = node_name(config, &data)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| DaemonError::Runtime { source })?;
    let joined = runtime.block_on(net::join(code, key_seed, &name))?;
    remember(&data, &choice.databases)?;
    Node::enter(&log, joined.records)?;
    drop(log);
    data.token_or_new(config.http.token_file.as_deref())?;
    let mut node = open_without_files(config, &data)?;
    for address in joined.addresses.iter().chain(&code.addresses) {
        node.add_address(KnownAddress { peer: joined.inviter.to_string(), address: address.clone() })?;
    }
    let enrolled = view(&node, &data);
    node.close()?;
    Ok(enrolled)
}

/// The node without its databases: no app's file is touched.
pub(super) fn open_without_files(config: &Config, data: &DataDir) -> Result<Node, DaemonError> {
    let nothing = Choice { databases: Vec::new(), source: String::new() };
    let settings = node_settings(config, data, nothing)?;
    open(Start { settings, log_path: data.log_path(), found: None })
}

fn describe(config: &Config, data: &DataDir) -> Result<Enrolled, DaemonError> {
    let node = open_without_files(config, data)?;
    let enrolled = view(&node, data);
    node.close()?;
    Ok(enrolled)
}

fn view(node: &Node, data: &DataDir) -> Enrolled {
    let membership = node.membership();
    let own = membership.member(&node.id());
    Enrolled {
        node_id: node.id().to_string(),
        name: own.map(|member| member.name.clone()).unwrap_or_default(),
        cluster_id: data_encoding::HEXLOWER.encode(&membership.cluster().0),
        cluster_name: membership.cluster_name().to_string(),
        members: membership.len(),
        origin_rank: own.map_or(0, |member| member.rank),
        data: data.path().display().to_string(),
    }
}
