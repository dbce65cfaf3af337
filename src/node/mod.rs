//! Floor L3: the deterministic heart of a node. It owns the log and the files; sockets, clocks and dice stay outside.
//!
//! [`Node`]'s methods come in four classes (after quinn-proto's `Connection`):
//! - **inputs**: [`Node::handle`], with the time read by the caller. Time never goes back in `mono_ms`.
//! - **outputs**: [`Node::poll_effect`] until `None` after every input, then [`Node::next_deadline`] for the next tick.
//! - **orders** of people: `add_address`, `invite`, `redeem`, `set_rule`, …: durable when they return.
//! - **getters**: `&self`, in [`query`].
//!
//! The way of a change: [`marks`] → [`capture`] → [`chain`] → log → [`exchange`] → log → merge → [`apply`]; [`genesis`] and
//! [`rescan`] bring in what no trigger saw, [`recover`] what a crash left open.
//!
//! Invariants: an effect that reveals an event comes out after the commit that holds it; local writes are captured before
//! remote ones are applied; the same inputs give the same effects and the same files, always.
//! Callers: daemon, simulations.

mod accounts;
#[cfg(test)]
mod address_tests;
mod adopt;
mod apply;
pub mod archive;
pub mod archive_copy;
mod archive_disk;
mod archive_repair;
pub mod archive_view;
mod base;
pub mod bundle;
mod bundle_lock;
mod bundle_order;
pub mod bundle_read;
pub mod bundle_view;
pub mod bundle_write;
pub mod capture;
#[cfg(test)]
mod capture_tests;
mod chain;
mod compare;
pub mod compare_view;
mod database;
mod decide;
pub mod diff;
mod drift;
mod drift_cause;
mod drift_evidence;
mod drift_log;
mod drift_table;
pub mod drift_view;
mod duplicates;
pub mod effect;
mod enrol;
#[cfg(test)]
mod enrol_crash_tests;
mod exchange;
#[cfg(test)]
mod exchange_tests;
pub mod fates;
pub mod feed;
mod found;
pub mod genesis;
#[cfg(test)]
mod group_tests;
pub mod history;
#[cfg(test)]
mod history_tests;
mod history_text;
mod incoming;
pub mod invite;
mod lag;
#[cfg(test)]
mod lag_tests;
mod likeness;
mod marks;
pub mod meeting;
pub mod meeting_view;
pub mod members;
#[cfg(test)]
mod members_tests;
pub mod membership;
mod migration;
mod named;
mod orders;
mod overrides;
#[cfg(test)]
mod pair_tests;
pub mod port;
#[cfg(test)]
mod pull_tests;
mod query;
mod query_conflicts;
pub mod query_rows;
#[cfg(test)]
mod quiet_tests;
mod rebuild;
mod receipts;
mod recover;
mod reevaluate;
#[cfg(test)]
mod reference_tests;
mod rehearsal;
mod rescan;
mod rules;
mod sameness;
pub mod settings;
mod snapshot;
#[cfg(test)]
mod snapshot_tests;
mod step;
pub mod store_fault;
#[cfg(test)]
mod store_fault_tests;
pub mod tables;
pub mod tally;
mod too_large;
mod transfer;
mod travel;
pub mod travel_view;
pub mod undo;
pub mod undo_do;
mod undo_note;
mod undo_plan;
mod undo_select;
mod verify;
mod verify_run;
pub mod verify_schedule;
#[cfg(test)]
mod verify_tests;
pub mod view;
mod waiting;
#[cfg(test)]
mod went_back_tests;
mod whole;

use std::collections::VecDeque;
use std::sync::Arc;

pub use archive::RetentionSettings;
pub use effect::{Effect, Input, Now};
pub use rebuild::Replay;
pub use settings::{DatabaseSettings, NodeSettings, PaceSettings, QuietHours};

use crate::clock::HybridClock;
use crate::log::{Log, LogError};
use crate::merge::rank::Ranks;
use crate::model::{DatabaseSchema, Heads, NodeId, OriginId};
use crate::sqlite::SqliteError;
use crate::wire::WireError;
use crate::wire::message::{Message, MessageError};
use archive::Archiving;
use chain::Chain;
use database::Database;
use exchange::{Exchange, Standing};
use invite::Invites;
use members::Admitting;
use membership::{Membership, MembershipError};
use receipts::Receipts;
use snapshot::Snapshots;
use store_fault::StoreFault;
use tally::{Ran, Tally};
use verify::Verify;

/// A node: see the module.
pub struct Node {
    settings: NodeSettings,
    log: Arc<Log>,
    membership: Membership,
    invites: Invites,
    clock: HybridClock,
    chain: Chain,
    ranks: Ranks,
    heads: Heads,
    databases: Vec<Database>,
    /// Parallel to `databases`.
    schemas: Vec<DatabaseSchema>,
    exchange: Exchange,
    compare: compare::Comparisons,
    receipts: Receipts,
    archiving: Archiving,
    effects: VecDeque<Effect>,
    alerts: Vec<String>,
    started: Now,
    /// State was committed without a sync since the last durable commit.
    relaxed: bool,
    /// An input left work for the next tick.
    due: bool,
    /// When rows that SQLite refused are tried again, monotonic ms.
    retry_refused_ms: u64,
    /// Number of the last audit record that was looked at for moved accounts.
    accounts_told: u64,
    /// See [`store_fault`].
    fault: Option<StoreFault>,
    broken: bool,
    /// See [`members`].
    admitting: Admitting,
    /// See [`snapshot`].
    snapshots: Snapshots,
    /// See [`tally`].
    tally: Tally,
    /// See [`verify`].
    verify: Verify,
    /// See [`feed`].
    feed_place: feed::BasePlace,
    /// See [`migration`].
    migration: Option<migration::Migration>,
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The log. Nothing was changed; see the inner error whether a retry helps.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An app's database. Nothing was changed in it; `Busy` passes by itself.
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
    /// An event in the log does not decode: the log is damaged. Nothing was changed.
    #[error("an event in the log cannot be read ({0}): run `litemesh log verify`")]
    Wire(#[from] WireError),
    /// A stored message does not decode. Nothing was changed.
    #[error("a stored record cannot be read: {0}")]
    Record(#[from] MessageError),
    /// A member record contradicts the cluster. It was not taken over.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// A peer broke the protocol. Nothing it sent was stored.
    #[error("a peer broke the protocol: {reason}")]
    PeerFault {
        /// What it did.
        reason: String,
    },
    /// The caller asked for something that is not there. Nothing was changed.
    #[error("{0}")]
    Invalid(String),
    /// This node has no right to what was asked. Nothing was changed; an admin can.
    #[error("{0}")]
    NotEntitled(String),
    /// The data directory belongs to no cluster yet. Nothing was changed.
    #[error("this data directory has no cluster yet: run `litemesh init`, `litemesh run` or `litemesh join CODE`")]
    NoCluster,
    /// Writing a file failed. What was written so far stays.
    #[error("cannot write {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Node {
    /// This node's key.
    pub fn id(&self) -> NodeId {
        self.chain.origin().node
    }

    /// Takes an input; all but a tick are cheap, and leave their work to the next one. An error means that a store failed:
    /// nothing half-done remains. After an error of the log's storage the node is broken ([`Node::is_broken`]); after any
    /// other it may be used on.
    pub fn handle(&mut self, input: Input, now: Now) -> Result<(), NodeError> {
        let tick = input == Input::Tick;
        let spared = self.fault.is_some() && matches!(input, Input::Received { .. } | Input::Announced { .. });
        let result = if spared { Ok(()) } else { self.take(input, now) };
        match &result {
            Ok(()) if tick => self.note_success(now),
            Ok(()) => {}
            Err(error) => self.note_failure(error),
        }
        result
    }

    fn take(&mut self, input: Input, now: Now) -> Result<(), NodeError> {
        match input {
            Input::FileTouched(position) => {
                if let Some(database) = self.databases.get_mut(position) {
                    database.touch(now);
                }
            }
            Input::Tick => return self.step(now),
            // The network hears of a revocation a moment later than the node.
            Input::PeerConnected { peer, .. } | Input::Received { peer, .. } if self.is_out(&peer) => {
                self.effects.push_back(Effect::MembersChanged);
            }
            Input::PeerConnected { peer, address } => {
                self.refresh_content()?;
                self.offer_snapshot()?;
                let standing = standing(&self.log, &self.heads, &self.membership, &self.settings, &self.databases, now);
                let effects = self.exchange.connected(peer, address, &standing);
                self.effects.extend(effects);
            }
            Input::PeerDisconnected { peer } => {
                self.exchange.disconnected(peer, now);
                self.compare.disconnected(&peer);
            }
            Input::Received { peer, frame } => self.receive(peer, &frame, now)?,
            Input::Announced { frame } => self.handle_announcement(&frame),
            Input::MembersLearnt(records) => self.learn_members(records)?,
            Input::LocalTime { offset_minutes } => self.exchange.pace.offset_minutes = offset_minutes,
            Input::ShutOut { by, record } => self.note_shut_out(by, &record),
            Input::RoundTrip { peer, micros } => {
                if let Some(peer) = self.exchange.peers.get_mut(&peer) {
                    peer.round_trip_micros = Some(micros);
                }
            }
            Input::Dialed { peer, problem } => self.exchange.dialed(peer, problem),
            Input::CompareRequested(peer) => self.compare_now(peer, now)?,
            Input::SyncRequested(peer) => {
                self.offer_snapshot()?;
                for database in &mut self.databases {
                    database.touch(now);
                }
                let standing = standing(&self.log, &self.heads, &self.membership, &self.settings, &self.databases, now);
                let effects = self.exchange.greet(peer, &standing);
                self.effects.extend(effects);
            }
        }
        // Files are read and written by the next tick, so that a crowd of frames never waits behind one.
        self.due = true;
        Ok(())
    }

    /// The next effect; call until `None` after every input.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// What was done since the last call, counted ([`tally`]); call after every input, or never.
    pub fn take_ran(&mut self) -> Vec<Ran> {
        let mut ran = self.tally.take();
        ran.extend(self.exchange.tally.take());
        ran
    }

    /// When `Input::Tick` is wanted, in monotonic ms.
    pub fn next_deadline(&self, now: Now) -> Option<u64> {
        if self.due {
            return Some(now.mono_ms);
        }
        let peers = self.exchange.deadline_ms(&self.heads, self.applied_all(), self.membership.digest(), now);
        if let Some(over) = self.migration_deadline_ms() {
            return [Some(over), peers, self.receipts.deadline_ms()].into_iter().flatten().min();
        }
        if self.archiving.looks() {
            return Some(now.mono_ms);
        }
        let files = self.databases.iter().map(|database| database.deadline_ms(now.mono_ms)).min();
        let others = [self.receipts.deadline_ms(), self.compare.deadline_ms(now), self.archiving.deadline_ms()];
        let others = others.into_iter().chain([self.snapshot_deadline_ms(now), self.verify.deadline_ms()]);
        [files, peers].into_iter().chain(others).flatten().min()
    }

    /// Makes everything durable and closes the files.
    pub fn close(mut self) -> Result<(), NodeError> {
        self.save_receipts()?;
        self.sync_state()?;
        for database in &mut self.databases {
            // A file that an app holds keeps its marks: they are in the log, and the next start knows them.
            if let Some(drained) = database.logged.take()
                && let Err(error) = database.file.clear_drained(drained)
            {
                tracing::debug!(%error, "marks stay in the outbox");
            }
            database.file.checkpoint()?;
        }
        Ok(())
    }

    fn receive(&mut self, peer: NodeId, frame: &[u8], now: Now) -> Result<(), NodeError> {
        let result = match Message::decode(frame) {
            Ok(Message::Unknown(kind)) if self.exchange.version == 1 => {
                Err(NodeError::PeerFault { reason: format!("a frame of the unknown kind {kind}") })
            }
            Ok(message) => {
                if matches!(message, Message::Compared(_)) {
                    self.count_compared(&peer, frame.len());
                }
                self.handle_message(peer, message, now)
            }
            Err(error) => Err(NodeError::PeerFault { reason: format!("a frame does not decode: {error}") }),
        };
        match result {
            Err(NodeError::PeerFault { reason }) => {
                tracing::warn!(%peer, reason, "peer fault");
                self.effects.push_back(Effect::PeerFault { peer, reason });
                Ok(())
            }
            Err(NodeError::Log(LogError::Fork { origin, seq })) => {
                self.alert_fork(origin, seq);
                Ok(())
            }
            other => other,
        }
    }

    fn alert_fork(&mut self, origin: OriginId, seq: u64) {
        self.alert(format!(
            "two histories of one node: origin {origin} wrote event {seq} twice (its data directory was copied or \
             restored); both copies keep their rows, the second one's events are not taken over yet"
        ));
    }

    /// Whether every file shows all that the log holds.
    fn applied_all(&self) -> bool {
        self.databases.iter().all(|database| !database.behind)
    }

    fn alert(&mut self, message: String) {
        if !self.alerts.contains(&message) {
            tracing::warn!("{message}");
            // Bounded: the oldest goes first.
            if self.alerts.len() >= 50 {
                self.alerts.remove(0);
            }
            self.alerts.push(message);
        }
    }
}

/// What the exchange must know, borrowed field by field so that the exchange itself can be changed.
fn standing<'s>(
    log: &'s Log,
    heads: &'s Heads,
    membership: &'s Membership,
    settings: &'s NodeSettings,
    databases: &[Database],
    now: Now,
) -> Standing<'s> {
    let applied_all = databases.iter().all(|database| !database.behind);
    Standing { log, heads, membership, name: &settings.name, applied_all, now }
}
