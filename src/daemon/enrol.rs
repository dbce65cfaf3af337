//! New clusters, and what a node is before its first start.
//!
//! Invariant: the node's key is on the disk before anybody hears of it, so a join whose answer was lost can be asked
//! again with the same code; no database is opened here. Called by cli and [`super::supervised`].

use serde::Serialize;

use super::databases::Choice;
use super::machine::{clock_now, random};
use super::node_thread::{Start, open};
use super::run::{node_name, node_settings};
use super::{DaemonError, DataDir};
use crate::config::Config;
use crate::model::NodeId;
use crate::node::Node;
use crate::node::membership::node_id;
use crate::wire::phrase::{phrase, phrase_seed};

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
    /// The recovery phrase of a cluster that was founded just now. Shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_phrase: Option<String>,
}

/// Founds a cluster with this node as its first member, without running it.
pub fn init(config: &Config, cluster_name: Option<&str>) -> Result<Enrolled, DaemonError> {
    let (data, _lock, log) = DataDir::lock_newcomer(config)?;
    let name = node_name(config, &data)?;
    let cluster_name = cluster_name.map_or_else(|| format!("{name}'s cluster"), str::to_string);
    let (phrase, recovery) = new_phrase()?;
    Node::found_with(&log, &data.key_seed_or_new()?, (&name, &cluster_name), recovery.0, clock_now())?;
    drop(log);
    data.token_or_new(config.http.token_file.as_deref())?;
    Ok(Enrolled { recovery_phrase: Some(phrase), ..describe(config, &data)? })
}

/// A new recovery phrase, and the public key that goes into the founder's record.
pub(super) fn new_phrase() -> Result<(String, NodeId), DaemonError> {
    let secret: [u8; 16] = *random()?.first_chunk().expect("16 of 32 bytes");
    Ok((phrase(&secret), node_id(&phrase_seed(&secret))))
}

/// The node without its databases: no app's file is touched.
pub(super) fn open_without_files(config: &Config, data: &DataDir) -> Result<Node, DaemonError> {
    let nothing = Choice { databases: Vec::new(), source: String::new() };
    let settings = node_settings(config, data, nothing)?;
    open(&Start { settings, log_path: data.log_path(), found: None, verify: Default::default() })
}

pub(super) fn describe(config: &Config, data: &DataDir) -> Result<Enrolled, DaemonError> {
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
        recovery_phrase: None,
    }
}
