//! What the node did, counted until somebody asks: for run tracking, reliability and metrics.
//!
//! Every piece of work (one capture of a database, one batch applied, one request to a peer) is a run that ended well or
//! not. Runs of one kind and subject add up in one entry until [`super::Node::take_ran`] takes them all.
//! Invariants: deterministic; memory is bounded by kinds × (databases + peers), however long nobody asks; counting never
//! fails and never changes what the node does. Not durable: what was not taken before a crash was done all the same, only
//! nobody counted it. Callers: `step` and `exchange` note, daemon takes.

use std::collections::BTreeMap;

use crate::model::NodeId;

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// The app's writes became events in the log.
    Capture,
    /// Fresh events were shown to the peers.
    Announce,
    /// A peer was asked for events, and answered or did not.
    Pull,
    /// A peer sent events unasked, at once.
    Receive,
    /// A peer's question for events was answered.
    Serve,
    /// Where a peer stands was compared with where this node stands.
    Reconcile,
    /// Events became rows in a file.
    Apply,
    /// A connection to a peer came or went.
    Connection,
    /// A peer that was away was called.
    Dial,
}

impl Work {
    /// The word for it in every output.
    pub fn word(self) -> &'static str {
        match self {
            Work::Capture => "capture",
            Work::Announce => "announce",
            Work::Pull => "pull",
            Work::Receive => "receive",
            Work::Serve => "serve",
            Work::Reconcile => "reconcile",
            Work::Apply => "apply",
            Work::Connection => "connection",
            Work::Dial => "dial",
        }
    }

    /// Whether how long it took is known from the node's own clock, and not by who calls it.
    pub fn is_timed_by_node(self) -> bool {
        matches!(self, Work::Pull | Work::Receive | Work::Reconcile | Work::Connection | Work::Dial)
    }
}

/// What the work was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The node as a whole.
    Node,
    /// A database, by its position in the settings.
    Database(usize),
    /// A peer.
    Peer(NodeId),
}

/// Runs of one kind and subject that ended alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Which kind.
    pub work: Work,
    /// About what.
    pub subject: Subject,
    /// How many ended; all of them well, or all of them not.
    pub runs: u64,
    /// Changes, events or frames that they moved.
    pub records: u64,
    /// Bytes that they moved, where that is known.
    pub bytes: u64,
    /// Milliseconds that they took together, by the node's clock ([`Work::is_timed_by_node`]).
    pub took_ms: u64,
    /// Why the last of them failed; `None`: they ended well.
    pub error: Option<String>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tally {
    ran: BTreeMap<(Work, Subject, bool), Ran>,
}

impl Tally {
    fn entry(&mut self, work: Work, subject: Subject, failed: bool) -> &mut Ran {
        let empty = || Ran { work, subject, runs: 0, records: 0, bytes: 0, took_ms: 0, error: None };
        let ran = self.ran.entry((work, subject, failed)).or_insert_with(empty);
        ran.runs += 1;
        ran
    }

    /// A run that ended well.
    pub(super) fn done(&mut self, work: Work, subject: Subject, records: usize, bytes: usize, took_ms: u64) {
        let ran = self.entry(work, subject, false);
        ran.records += records as u64;
        ran.bytes += bytes as u64;
        ran.took_ms += took_ms;
    }

    /// A run that did not.
    pub(super) fn failed(&mut self, work: Work, subject: Subject, took_ms: u64, error: impl Into<String>) {
        let ran = self.entry(work, subject, true);
        ran.took_ms += took_ms;
        ran.error = Some(error.into());
    }

    /// All since the last call.
    pub(super) fn take(&mut self) -> Vec<Ran> {
        std::mem::take(&mut self.ran).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_add_up_by_kind_subject_and_outcome() {
        let mut tally = Tally::default();
        let peer = Subject::Peer(NodeId([1; 32]));
        tally.done(Work::Pull, peer, 3, 300, 5);
        tally.done(Work::Pull, peer, 2, 200, 7);
        tally.failed(Work::Pull, peer, 3_000, "no answer within 3 s");
        tally.done(Work::Capture, Subject::Database(0), 1, 100, 0);
        let ran = tally.take();
        assert_eq!(ran.len(), 3);
        assert_eq!((ran[0].work, ran[0].records), (Work::Capture, 1));
        let well = Ran { work: Work::Pull, subject: peer, runs: 2, records: 5, bytes: 500, took_ms: 12, error: None };
        assert_eq!(ran[1], well);
        assert_eq!((ran[2].runs, ran[2].error.as_deref()), (1, Some("no answer within 3 s")));
        assert_eq!(tally.take(), []);
    }
}
