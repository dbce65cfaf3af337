//! Snapshots: a new member gets the state of its databases at one moment, then the tail, then the history.
//!
//! What travels is what the evaluator of the giver knows, read from one snapshot of its log: per table the records of all
//! rows (dead ones too), each with the image that its file shows, in parts of some thousand rows named by their content;
//! behind them the cuts of the events, which merging needs; before them the plan: tables, rules, the cut, and the heads (hash
//! of the last event taken in, per origin). Rooms: [`give`], [`take`] (who asks whom for what), [`fill`] (into the app's
//! files), [`load`] (into the log's state).
//!
//! States of the joiner, each durable before the next begins (see [`crate::log::SnapshotNote`]):
//! ```text
//! eligible ─hello says rows─▶ Pulling ─all parts here─▶ Filling ─files show all: usable─▶ Loading ─▶ joined ─▶ complete
//!     └──────────── events, as ever ◀── refused, other schema, rows of its own, no peer ──┘          history comes, checked
//! ```
//! - **eligible**: nothing was evaluated here, all files wait to be adopted and their tables are empty.
//! - **Pulling**: parts are checked against their names and kept in the log's file. No pull of events competes. A cut, a
//!   restart, another giver: what is held is named in the next ask and not sent again, if it is still the same there.
//! - **Filling**: triggers first, then rows in short transactions, the place reached in each. The app writes in between; what
//!   it writes is marked and captured later. Rows that the file cannot take (the app took their id or UNIQUE value) are noted
//!   before the transaction that leaves them out commits.
//! - **Loading**: from the same parts the evaluator's records and indexes, some parts in a commit, the place reached in it.
//! - **joined**: one commit: cursor = the cut, the file's note, heads to come; parts forgotten. From here the node is as any
//!   other whose log has lost events that its file shows: captures, and applies what lies behind the cut as it comes (a **tail**, see `log::base`).
//! - **complete**: the bodies have come by ordinary pulls, from anybody; each origin's event at the cut must have the hash that
//!   the plan said, else an alarm.
//!
//! | a crash in | leaves | the start does |
//! |---|---|---|
//! | Pulling | parts up to the last durable commit | asks for the rest |
//! | Filling, before the file's commit | rows noted as left out that may not be | the page is done again; the note stays true: they are written by apply |
//! | Filling, after it | the place in the file | goes on behind it |
//! | Loading | the place in the log's commit | goes on behind it |
//! | joined, before its commit | all of Loading | the last page again, then joined |
//!
//! Invariants: no event is evaluated before joined; what was loaded is what the parts say; receipts and answers to pulls count
//! only events whose bodies are here. Nothing here waits on one peer: who gives nothing is left for another, and with nobody
//! left the events come as ever. Callers: `step`, `recover`, `waiting`.

mod fill;
mod give;
mod load;
mod take;

use std::collections::VecDeque;

use super::view::JoiningView;
use super::{Node, NodeError, Now};
use crate::log::{Tail, Tails};
use crate::model::{Head, NodeId, OriginId};
use crate::wire::limits::SNAPSHOT_PART_BYTES_TARGET;
use crate::wire::snapshot::{Snapshot, SnapshotAsk};
use give::Giving;
use take::Taking;

/// Who waits for something that sends no word looks again after this, ms.
const LOOK_MS: u64 = 250;

/// A busy file, and one in trouble, are looked at again after this, ms.
const BUSY_MS: u64 = 20;
const TROUBLE_MS: u64 = 1_000;

/// Below so many rows the events are as fast.
const ROWS_MIN: u64 = 10_000;

/// All that a node has to do with snapshots.
pub(super) struct Snapshots {
    rows_min: u64,
    part_bytes: usize,
    giving: Option<Giving>,
    asks: VecDeque<(NodeId, SnapshotAsk)>,
    taking: Option<Taking>,
    /// A snapshot was of no use here: the events come.
    declined: bool,
    /// How joining went; kept until the node stops.
    joined: Option<Joined>,
}

/// How joining went, ms from its beginning.
#[derive(Clone, Copy, Debug, Default)]
struct Joined {
    rows: u64,
    started_ms: u64,
    bytes: u64,
    usable_ms: Option<u64>,
    joined_ms: Option<u64>,
    complete_ms: Option<u64>,
}

impl Default for Snapshots {
    fn default() -> Snapshots {
        Snapshots {
            rows_min: ROWS_MIN,
            part_bytes: SNAPSHOT_PART_BYTES_TARGET,
            giving: None,
            asks: VecDeque::new(),
            taking: None,
            declined: false,
            joined: None,
        }
    }
}

impl Node {
    /// From how many rows on snapshots are given and taken, and the size of their parts: for tests and measurements, which
    /// have few rows, or want none of it.
    pub fn snapshots_from(&mut self, rows: u64, part_bytes: usize) {
        (self.snapshots.rows_min, self.snapshots.part_bytes) = (rows, part_bytes.min(SNAPSHOT_PART_BYTES_TARGET));
    }

    /// Whether the files get their rows from a snapshot now: they are not to be adopted.
    pub(super) fn takes_snapshot(&self) -> bool {
        self.snapshots.taking.is_some()
    }

    /// When the next step is due for snapshots, monotonic ms.
    pub(super) fn snapshot_deadline_ms(&self, now: Now) -> Option<u64> {
        let asks = !self.snapshots.asks.is_empty();
        let give = asks.then(|| self.exchange.pace.ready_ms(now).unwrap_or(now.mono_ms));
        let take = self.snapshots.taking.as_ref().map(Taking::deadline_ms);
        // Who waits for peers, or for a busy file, looks again now and then.
        let take = take.map(|at| if at <= now.mono_ms { now.mono_ms + LOOK_MS } else { at });
        [give, take].into_iter().flatten().min()
    }

    /// Takes a message about snapshots.
    pub(super) fn handle_snapshot(&mut self, from: NodeId, message: Snapshot, now: Now) -> Result<(), NodeError> {
        match message {
            Snapshot::Ask(ask) => {
                self.take_ask(from, ask);
                Ok(())
            }
            Snapshot::Plan(plan) => self.take_plan(from, plan, now),
            Snapshot::Part(part) => self.take_part(from, part, now),
        }
    }

    /// Gives, takes, fills, loads: as much as one step may.
    pub(super) fn step_snapshots(&mut self, now: Now) -> Result<(), NodeError> {
        self.give_parts(now)?;
        match self.step_taking(now) {
            // An app holds its file, or it is in trouble: that is looked at again, and holds up nobody.
            Err(NodeError::Sqlite(error)) => {
                let wait_ms = if error.is_retryable() { BUSY_MS } else { TROUBLE_MS };
                if let Some(taking) = &mut self.snapshots.taking {
                    taking.pause_until_ms = now.mono_ms + wait_ms;
                }
                tracing::debug!("a snapshot waits: {error}");
            }
            other => other?,
        }
        self.check_history(now)
    }

    /// What `status` tells of joining.
    pub(super) fn joining_view(&self, now: Now) -> Option<JoiningView> {
        let joined = self.snapshots.joined?;
        let (stage, rows_done) = match &self.snapshots.taking {
            Some(taking) => taking.progress(),
            None if self.exchange.tails.is_empty() => ("complete", joined.rows),
            None => ("history", joined.rows),
        };
        let since = |at: Option<u64>| at.map(|at| at.saturating_sub(joined.started_ms));
        let bases = || self.exchange.tails.values().map(|tail| tail.base);
        let held = |head: Head| self.heads.get(&head.origin.id()).map_or(0, |own| own.seq.min(head.seq));
        let (wanted, held) = (bases().map(|head| head.seq).sum::<u64>(), bases().map(held).sum::<u64>());
        let percent = if self.snapshots.taking.is_some() { 0 } else { (held * 100).checked_div(wanted).unwrap_or(100) };
        Some(JoiningView {
            stage: stage.to_string(),
            rows: joined.rows,
            rows_done,
            bytes: joined.bytes,
            usable_ms: since(joined.usable_ms),
            joined_ms: since(joined.joined_ms),
            complete_ms: since(joined.complete_ms),
            history_percent: percent as u8,
            running_ms: now.mono_ms.saturating_sub(joined.started_ms),
        })
    }

    /// When the history has come: it must be the one that the state was made from.
    fn check_history(&mut self, now: Now) -> Result<(), NodeError> {
        let tails = &self.exchange.tails;
        let is_open = |(id, tail): (&OriginId, &Tail)| tail.is_open(self.heads.get(id).map_or(0, |own| own.seq));
        if tails.is_empty() || self.takes_snapshot() || tails.iter().any(is_open) {
            return Ok(());
        }
        let mut others = Vec::new();
        let read = self.log.read()?;
        for Tail { base: head, .. } in tails.values() {
            let held = read.event(&head.origin.id(), head.seq)?;
            if held.is_none_or(|event| event.hash != head.hash) {
                others.push(*head);
            }
        }
        drop(read);
        for head in others {
            self.alert(format!(
                "the snapshot that this node joined with was made from another history of {} than the one that came: event {} is \
                 another one; what its rows show may be wrong: compare `litemesh rebuild` with the files",
                head.origin.id(),
                head.seq
            ));
        }
        let mut write = self.log.write()?;
        write.put_tails(&Tails::new())?;
        write.commit_durable()?;
        crate::sometimes!("snapshot: the history of a snapshot has come");
        self.exchange.tails.clear();
        if let Some(joined) = &mut self.snapshots.joined {
            joined.complete_ms = Some(now.mono_ms);
        }
        self.rank_origins();
        Ok(())
    }
}
