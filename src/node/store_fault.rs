//! When the log cannot be read or written: a full disk, a failed sync, a cable that fell out.
//!
//! | state    | entered by                                          | what the node does                                       |
//! |----------|-----------------------------------------------------|----------------------------------------------------------|
//! | well     | start; a tick that succeeds                         | all                                                      |
//! | broken   | [`Node::handle`] failed with a storage error        | nothing: redb refuses everything after such an error, and |
//! |          |                                                     | after a failed sync nobody knows what reached the disk.   |
//! |          |                                                     | The caller drops node and log and opens both again        |
//! | trying   | [`Node::open_after`], [`Node::resume_after`]        | answers questions; ticks try to write; events of peers    |
//! |          |                                                     | are not taken (they come again), the app's marks wait in  |
//! |          |                                                     | its outbox                                                |
//!
//! Invariant: nothing is lost in any of the three: what is not durable was not revealed, and is in the app's outbox or at a
//! peer. Callers: node (handle, status), daemon, simulations.

use std::io::ErrorKind;

use super::{Node, NodeError, Now, standing};
use crate::log::LogError;

/// What is wrong with the log's storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFault {
    /// For a person: cause and next step.
    pub words: String,
    /// The disk is full: it may have room again at any moment.
    pub full: bool,
}

impl NodeError {
    /// The fault, when this error is one of the log's storage: the node must be dropped with its log and opened again.
    pub fn store_fault(&self) -> Option<StoreFault> {
        let NodeError::Log(LogError::Storage(source)) = self else { return None };
        let full = matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge);
        let words = if full {
            "disk full: nothing is lost, the app goes on, and its changes wait in its own file. Make room on the disk \
             that holds the data directory; litemesh goes on by itself"
                .to_string()
        } else {
            format!("{self}. Nothing is lost; litemesh opens the log again and tries until it works: check the disk")
        };
        Some(StoreFault { words, full })
    }

    /// Whether the node must be dropped with its log and opened again before anything else.
    pub fn needs_reopen(&self) -> bool {
        self.store_fault().is_some()
    }
}

impl Node {
    /// The fault that broke this node, or that it is coming back from.
    pub fn store_fault(&self) -> Option<&StoreFault> {
        self.fault.as_ref()
    }

    /// Whether the node is of no more use: drop it with its log, open both again, and call [`Node::resume_after`].
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Tells a node that was opened again why: it is told to people, and spares the disk, until a tick succeeds.
    pub fn resume_after(&mut self, fault: StoreFault) {
        self.fault = Some(fault);
    }

    /// Notes what a failed call means for the node.
    pub(super) fn note_failure(&mut self, error: &NodeError) {
        if let Some(fault) = error.store_fault() {
            crate::sometimes!("store: the log's storage failed");
            self.broken = true;
            // What follows a full disk is redb's refusal to go on: the first words say more.
            self.fault.get_or_insert(fault);
        }
    }

    /// A tick wrote all there was to write: peers are asked for what was not taken.
    pub(super) fn note_success(&mut self, now: Now) {
        if self.fault.take().is_some() {
            crate::sometimes!("store: it works again");
            let standing = standing(&self.log, &self.heads, &self.membership, &self.settings, &self.databases, now);
            let effects = self.exchange.greet(None, &standing);
            self.effects.extend(effects);
        }
    }
}
