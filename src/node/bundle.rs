//! Bundles: what a node says of them, and why one is refused.
//!
//! ```text
//! bundle_write   log ─▶ causal order ─▶ parts ─▶ file                 beside the node
//! bundle_read    file ─▶ all of it checked, nothing stored            beside the node
//!                file ─▶ part by part ─▶ the node: checked again, stored like what peers send
//! bundle_lock    keys and signatures        bundle_order   causes first        receipts   what peers hold
//! ```
//! Invariant: a bundle is refused whole or taken; what is taken went through the same check as frames of peers
//! ([`super::exchange`]). Taking one again changes nothing. Callers: http, daemon, simulations.

use std::path::Path;

use super::exchange::{Standing, check};
use super::{Node, NodeError, Now, standing};
use crate::model::{NodeId, OriginId};
use crate::wire::bundle::{BundleFault, Manifest};
use crate::wire::message::SignedEvent;

/// Why a bundle is not made or not taken. Whatever the reason, nothing of it was stored.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The bytes are no bundle, are of a newer version, or are not as they were written.
    #[error("the bundle is refused: {fault}; {}", next_of(.fault))]
    Fault {
        /// What is wrong.
        fault: BundleFault,
    },
    /// It ends before its end.
    #[error(
        "the bundle is refused: it is cut off (the copy was not finished, or the stick was pulled out): copy it again, or \
         export it again"
    )]
    CutOff,
    /// There is something behind its end.
    #[error("the bundle is refused: there is something behind its end: copy it again, or export it again")]
    Trailing,
    /// Made in another cluster.
    #[error("the bundle is refused: it belongs to another cluster: export one on a server of this cluster")]
    OtherCluster,
    /// No lock is this node's.
    #[error(
        "the bundle is refused: it was made for another server, or before this one was admitted: export one for all, or with \
         --for this server"
    )]
    NotForUs,
    /// Its maker is no member (any more).
    #[error("the bundle is refused: {0}, who made it, is no member of this cluster: export it on a server that is")]
    NotAMember(String),
    /// The signature at its end is not its maker's.
    #[error(
        "the bundle is refused: its signature is not that of {0}, who is said to have made it: do not trust where it comes \
         from; export a new one"
    )]
    BadSignature(String),
    /// An event in it would not be taken from a peer either.
    #[error("the bundle is refused: it holds what no honest server carries ({0}): export it on another server")]
    Hostile(String),
    /// It cannot be read.
    #[error("cannot read {path}: {source}: is the stick still there?")]
    Read {
        /// The file.
        path: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// It cannot be written. No half file is left under its name.
    #[error("cannot write {path}: {source}: is there room, and may this user write there?")]
    Write {
        /// The file.
        path: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// Something else stands under the name.
    #[error("{path} is there already and is no bundle: choose another name")]
    Occupied {
        /// The file.
        path: String,
    },
    /// The node stops. What was taken so far stays.
    #[error("the node is stopping or too busy: do the same again when it runs; what was taken stays")]
    Stopped,
    /// The node; see there.
    #[error(transparent)]
    Node(#[from] NodeError),
}

impl BundleError {
    /// The same, of a file with a name.
    pub(super) fn at(self, path: &Path) -> BundleError {
        let path = path.display().to_string();
        match self {
            BundleError::Write { source, .. } => BundleError::Write { path, source },
            BundleError::Read { source, .. } => BundleError::Read { path, source },
            other => other,
        }
    }

    /// Whether bytes changed or a signature is wrong, so that somebody should look.
    pub fn is_damage(&self) -> bool {
        match self {
            BundleError::Fault { fault } => matches!(fault, BundleFault::Damaged(_)),
            BundleError::CutOff | BundleError::Trailing | BundleError::BadSignature(_) | BundleError::Hostile(_) => {
                true
            }
            _ => false,
        }
    }
}

impl From<BundleFault> for BundleError {
    fn from(fault: BundleFault) -> BundleError {
        BundleError::Fault { fault }
    }
}

fn next_of(fault: &BundleFault) -> &'static str {
    match fault {
        BundleFault::NotABundle => "name a file that `litemesh bundle export` made",
        BundleFault::Newer(_) => "update litemesh here",
        BundleFault::Damaged(_) => "copy it again, or export it again",
    }
}

/// One step of taking a bundle that was checked whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// First: who belongs to the cluster, because newcomers may be among the authors; and what the maker held, because it
    /// may know more of this node's own chain than its log does.
    Members(Manifest),
    /// Then: events, by who carries them.
    Events(NodeId, Vec<SignedEvent>),
    /// Last, because it says that the bundle was taken: what its maker held when it made it.
    Receipt(Manifest),
}

impl Node {
    /// Takes one step of a bundle, durably; how many events were new. Events are checked and stored as if a peer had sent
    /// them.
    pub fn take_carried(&mut self, carried: Carried, now: Now) -> Result<u64, NodeError> {
        self.due = true;
        match carried {
            Carried::Members(manifest) => {
                self.learn_members(manifest.members)?;
                self.notice_own_chain(&manifest.heads, now)?;
                Ok(0)
            }
            Carried::Events(exporter, events) => {
                let standing = standing(&self.log, &self.heads, &self.membership, &self.settings, &self.databases, now);
                let (accepted, forks) = check(events, Some(exporter), &standing)?;
                forks.into_iter().for_each(|(origin, seq)| self.alert_fork(origin, seq));
                let events = accepted.len() as u64;
                self.append_remote(exporter, &accepted, now)?;
                Ok(events)
            }
            Carried::Receipt(manifest) => {
                if manifest.exporter != self.id() {
                    self.receipts.carried(manifest.exporter, &manifest.heads, manifest.created_ms);
                    self.save_receipts()?;
                }
                Ok(0)
            }
        }
    }

    /// Name of a member for people; the beginning of its key where it is none.
    pub(super) fn member_name(&self, node: &NodeId) -> String {
        match self.membership.member(node) {
            Some(member) => member.name.clone(),
            None => node.to_string().chars().take(8).collect(),
        }
    }

    /// Admits who asked by a request that was carried here.
    pub fn admit_request(
        &mut self,
        request: &crate::wire::request::AdmissionRequest,
        now: Now,
    ) -> Result<super::bundle_view::AdmittedView, NodeError> {
        let known = self.membership.member(&request.node).is_some();
        if !self.membership.may_admit_as(&self.id(), crate::model::Role::Member) {
            self.must_be_admin(&format!("admit {}", request.name))?;
        }
        if self.is_out(&request.node) {
            return Err(NodeError::NotEntitled(format!(
                "{} was shut out of this cluster: to let it in again, say litemesh peers readmit {}",
                request.name, request.name
            )));
        }
        if !known && !self.membership.has_room() {
            return Err(NodeError::Invalid("the cluster has as many members as it can have".into()));
        }
        let record = super::membership::admit(
            &self.settings.key_seed,
            &self.membership,
            request.node,
            &request.name,
            now.wall_ms,
        );
        self.learn_members(vec![record])?;
        let member = self.membership.member(&request.node);
        let member =
            member.ok_or_else(|| NodeError::Invalid("the cluster has as many members as it can have".into()))?;
        Ok(super::bundle_view::AdmittedView {
            id: request.node.to_string(),
            name: member.name.clone(),
            fingerprint: request.fingerprint(),
            new: !known,
            members: self.membership.len() as u32,
        })
    }
}

/// Checks a part's events on top of `heads`, which it moves on. Forks stop their own origin only, as they do on the network.
pub(super) fn check_part(
    events: Vec<SignedEvent>,
    exporter: NodeId,
    standing: &Standing<'_>,
) -> Result<(Vec<super::exchange::Accepted>, Vec<OriginId>), BundleError> {
    match check(events, Some(exporter), standing) {
        Ok((accepted, forks)) => Ok((accepted, forks.into_keys().collect())),
        Err(NodeError::PeerFault { reason }) => Err(BundleError::Hostile(reason)),
        Err(other) => Err(other.into()),
    }
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
