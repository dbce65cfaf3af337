//! Receipts: what other servers are known to hold, and what exists only here.
//!
//! A receipt is a server's own statement of its heads: in a hello, at the end of an answer, in a bundle that it made. Over a
//! connection the last statement counts, also when it says less than before (a server whose disk was put back from a backup
//! has lost what it once held). Of bundles the one made last counts, by its maker's clock.
//! Invariants: what is not known to be held elsewhere counts as only here; only members that may connect count; a statement
//! about another chain under the same number is no receipt. Cost: rows are counted once per event and kept; a look walks a
//! bounded number of events above what others hold. Kept across restarts ([`crate::log`]). Callers: node, query, bundle_write.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::bundle_view::{ReceiptView, ReceiptsView};
use super::query::rfc3339;
use super::view::{OnlyHere, OnlyHereTable};
use super::{Node, NodeError, Now};
use crate::log::{LogError, LogRead, LogWrite};
use crate::model::{Head, Heads, NodeId, OriginId, Receipt, RowId, Way, counted, fits};
use crate::wire::decode_event;

/// What was heard is on the disk this much later, ms: a burst of hellos costs one commit.
const SAVE_AFTER_MS: u64 = 5_000;

/// Events that one look at `status` walks, at most; the next look goes on from there.
const WALK_EVENTS_MAX: usize = 2_000;

/// Events that somebody who asks for receipts waits for.
const WALK_ASKED_EVENTS_MAX: usize = 100_000;

/// Rows told apart: beyond this it is enough to say "more than".
const ROWS_MAX: usize = 200_000;

/// Tables that a sentence names.
const TABLES_NAMED: usize = 6;

/// What others hold.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    known: BTreeMap<NodeId, Receipt>,
    unsaved: BTreeSet<NodeId>,
    /// When the first of the unsaved ones came, monotonic ms.
    unsaved_since_ms: Option<u64>,
    counted: RefCell<Counted>,
}

/// Rows of events that exist only here, as far as they were counted.
#[derive(Debug, Default)]
struct Counted {
    /// Per origin: others hold this, and the last event that was counted.
    places: BTreeMap<OriginId, (u64, u64)>,
    /// (database, table) → its rows.
    tables: BTreeMap<(String, String), BTreeSet<RowId>>,
    rows: usize,
}

impl Receipts {
    pub(super) fn load(read: &LogRead) -> Result<Receipts, NodeError> {
        Ok(Receipts { known: read.receipts()?.into_iter().collect(), ..Receipts::default() })
    }

    /// What a server is known to hold.
    pub(super) fn heads_of(&self, node: &NodeId) -> Option<&Heads> {
        self.known.get(node).map(|receipt| &receipt.heads)
    }

    /// What makers of bundles said they held, where that is the last that is known of them.
    pub(super) fn carried_heads(&self) -> impl Iterator<Item = &Heads> {
        self.known.values().filter(|receipt| receipt.way == Way::Bundle).map(|receipt| &receipt.heads)
    }

    /// When every server last said what it holds, by its own clock.
    pub(super) fn stated_ms(&self) -> BTreeMap<NodeId, u64> {
        self.known.iter().map(|(node, receipt)| (*node, receipt.stated_ms)).collect()
    }

    /// When a server last said what it holds.
    pub(super) fn as_of_ms(&self, node: &NodeId) -> Option<u64> {
        self.known.get(node).map(|receipt| receipt.as_of_ms)
    }

    /// A connected server said what it holds, all of it.
    pub(super) fn heard(&mut self, from: NodeId, heads: &Heads, now: Now) {
        let same = self.known.get(&from).is_some_and(|known| known.heads == *heads && known.way == Way::Connection);
        if same {
            // The time alone is worth no commit: it is saved with the next news, or at the end.
            self.unsaved.insert(from);
            if let Some(known) = self.known.get_mut(&from) {
                known.as_of_ms = now.wall_ms;
                known.stated_ms = known.stated_ms.max(now.wall_ms);
            }
            return;
        }
        let heads = heads.clone();
        self.known.insert(from, Receipt { heads, as_of_ms: now.wall_ms, stated_ms: now.wall_ms, way: Way::Connection });
        self.unsaved.insert(from);
        self.unsaved_since_ms.get_or_insert(now.mono_ms);
    }

    /// A server made a bundle that says what it held. An older statement than the one known says nothing.
    pub(super) fn carried(&mut self, exporter: NodeId, heads: &[Head], created_ms: u64) {
        if self.known.get(&exporter).is_some_and(|known| known.stated_ms > created_ms) {
            return;
        }
        let heads = heads.iter().map(|head| (head.origin.id(), *head)).collect();
        let receipt = Receipt { heads, as_of_ms: created_ms, stated_ms: created_ms, way: Way::Bundle };
        self.known.insert(exporter, receipt);
        self.unsaved.insert(exporter);
    }

    /// When [`Node::save_receipts`] is wanted, monotonic ms.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        self.unsaved_since_ms.map(|since| since + SAVE_AFTER_MS)
    }
}

impl Node {
    /// Saves what was heard, when it is time.
    pub(super) fn save_receipts_when_due(&mut self, now: Now) -> Result<(), NodeError> {
        match self.receipts.deadline_ms() {
            Some(due) if due <= now.mono_ms => self.save_receipts(),
            _ => Ok(()),
        }
    }

    pub(super) fn save_receipts(&mut self) -> Result<(), NodeError> {
        self.receipts.unsaved_since_ms = None;
        if self.receipts.unsaved.is_empty() {
            return Ok(());
        }
        let mut write: LogWrite<'_> = self.log.write()?;
        for node in &self.receipts.unsaved {
            if let Some(receipt) = self.receipts.known.get(node) {
                write.put_receipt(node, receipt)?;
            }
        }
        write.commit_durable()?;
        self.relaxed = false;
        self.receipts.unsaved.clear();
        Ok(())
    }

    /// Per origin of this log, up to where some other member is known to hold it.
    fn held_elsewhere(&self) -> BTreeMap<OriginId, u64> {
        let mut held = BTreeMap::new();
        for (origin, head) in &self.heads {
            let by = self.other_members().filter_map(|node| self.holds(&node, origin, head)).max().unwrap_or(0);
            held.insert(*origin, by);
        }
        held
    }

    /// Up to where a member is known to hold an origin of this log.
    pub(super) fn holds(&self, node: &NodeId, origin: &OriginId, mine: &Head) -> Option<u64> {
        let theirs = self.receipts.heads_of(node)?.get(origin)?;
        // The same number with another hash is another history.
        let forked = theirs.seq == mine.seq && theirs.hash != mine.hash;
        Some(if forked { mine.seq - 1 } else { theirs.seq.min(mine.seq) })
    }

    pub(super) fn other_members(&self) -> impl Iterator<Item = NodeId> {
        let own = self.id();
        let members = self.membership.members().into_iter().map(|member| member.node);
        members.filter(move |node| *node != own && self.membership.may_connect(node))
    }

    /// What no other member is known to hold.
    pub(super) fn only_here(&self, read: &LogRead) -> Result<OnlyHere, NodeError> {
        self.count_only_here(read, WALK_EVENTS_MAX)
    }

    fn count_only_here(&self, read: &LogRead, events_max: usize) -> Result<OnlyHere, NodeError> {
        let held = self.held_elsewhere();
        let above = |origin: &OriginId, head: &Head| head.seq - held.get(origin).copied().unwrap_or(0);
        let events: u64 = self.heads.iter().map(|(origin, head)| above(origin, head)).sum();
        let mut counted = self.receipts.counted.borrow_mut();
        let moved = |(origin, (from, _)): (&OriginId, &(u64, u64))| held.get(origin) != Some(from);
        if counted.places.iter().any(moved) {
            *counted = Counted::default();
        }
        let (mut budget, mut whole) = (events_max, true);
        for (origin, head) in &self.heads {
            let from = held.get(origin).copied().unwrap_or(0);
            if from == head.seq {
                continue;
            }
            let (_, mut through) = counted.places.get(origin).copied().unwrap_or((from, from));
            while through < head.seq && budget > 0 && counted.rows < ROWS_MAX {
                let stored = match read.event(origin, through + 1) {
                    // Its rows are not counted, and it is said that not all were.
                    Err(LogError::Archived { .. }) => None,
                    stored => stored?,
                };
                let Some(stored) = stored else { break };
                counted.add(&stored.bytes)?;
                through += 1;
                budget -= 1;
            }
            whole &= through >= head.seq;
            counted.places.insert(*origin, (from, through));
        }
        let table = |((database, table), rows): (&(String, String), &BTreeSet<RowId>)| OnlyHereTable {
            database: database.clone(),
            table: table.clone(),
            rows: rows.len() as u64,
        };
        let mut tables: Vec<OnlyHereTable> = counted.tables.iter().map(table).collect();
        tables.sort_by(|a, b| b.rows.cmp(&a.rows).then_with(|| (&a.database, &a.table).cmp(&(&b.database, &b.table))));
        Ok(OnlyHere { events, rows: counted.rows as u64, counted_all: whole, tables })
    }

    /// Who holds what, and whether this machine can go.
    pub fn receipts(&self) -> Result<ReceiptsView, NodeError> {
        let read = self.log.read()?;
        let only_here = self.count_only_here(&read, WALK_ASKED_EVENTS_MAX)?;
        let peers: Vec<ReceiptView> = self.other_members().map(|node| self.receipt_view(&node)).collect();
        let not_logged = self.databases.iter().map(|database| database.file.outbox_len().unwrap_or_default()).sum();
        let (servers, hold) =
            (peers.len() as u32 + 1, peers.iter().filter(|peer| peer.holds_everything).count() as u32 + 1);
        let safe = only_here.events == 0 && not_logged == 0 && (servers > 1 || self.heads.is_empty());
        let sentence = sentence(&only_here, not_logged, servers, hold, self.heads.is_empty());
        Ok(ReceiptsView {
            safe_to_unplug: safe,
            sentence,
            servers,
            hold_everything: hold,
            only_here,
            not_logged,
            peers,
        })
    }

    fn receipt_view(&self, node: &NodeId) -> ReceiptView {
        let lacks: u64 =
            self.heads.iter().map(|(origin, head)| head.seq - self.holds(node, origin, head).unwrap_or(0)).sum();
        let known = self.receipts.known.get(node);
        let way = known.map(|receipt| match receipt.way {
            Way::Connection => "connection",
            Way::Bundle => "bundle",
        });
        ReceiptView {
            id: node.to_string(),
            name: self.member_name(node),
            holds_everything: known.is_some() && lacks == 0,
            lacks,
            as_of: known.map(|receipt| rfc3339(receipt.as_of_ms)).unwrap_or_default(),
            way: way.unwrap_or_default().to_string(),
        }
    }
}

impl Counted {
    fn add(&mut self, bytes: &[u8]) -> Result<(), NodeError> {
        let event = decode_event(bytes)?;
        for change in &event.changes {
            let Some(row) = change.row() else { continue };
            let table = (event.header.database.clone(), event.tables[change.table() as usize].table.clone());
            self.rows += usize::from(self.tables.entry(table).or_default().insert(row));
        }
        Ok(())
    }
}

/// Whether this machine can go, in one sentence.
fn sentence(only: &OnlyHere, not_logged: u64, servers: u32, hold: u32, empty: bool) -> String {
    if only.events == 0 && not_logged == 0 {
        return match (servers, hold) {
            _ if empty => "safe to unplug: this server holds nothing yet".to_string(),
            (_, 1) => "safe to unplug: all that is here is held elsewhere, though by no other server alone".to_string(),
            _ => format!("safe to unplug: {hold} of {servers} servers hold everything"),
        };
    }
    let mut parts = Vec::new();
    if only.events > 0 {
        parts.push(rows_in_words(only));
    }
    if not_logged > 0 {
        parts.push(format!("{} {} for the log", counted(not_logged, "write"), fits(not_logged, "waits", "wait")));
    }
    let alone = if servers == 1 { " (this is the cluster's only server)" } else { "" };
    format!("NOT safe to unplug: {}{alone}", parts.join(", and "))
}

/// `12 rows (match 7, scouting_data 5) exist only here`.
fn rows_in_words(only: &OnlyHere) -> String {
    let many = if only.counted_all { "" } else { "more than " };
    if only.rows == 0 {
        return format!("{} {} only here", counted(only.events, "event"), fits(only.events, "exists", "exist"));
    }
    let twice = |table: &OnlyHereTable| only.tables.iter().filter(|other| other.table == table.table).count() > 1;
    let name = |table: &OnlyHereTable| {
        let prefix = if twice(table) { format!("{}.", table.database) } else { String::new() };
        format!("{prefix}{} {}", table.table, table.rows)
    };
    let mut named: Vec<String> = only.tables.iter().take(TABLES_NAMED).map(name).collect();
    let more = only.tables.len().saturating_sub(TABLES_NAMED);
    if more > 0 {
        named.push(counted(more as u64, "more table"));
    }
    let one = only.rows == 1 && only.counted_all;
    let (rows, exist) = if one { ("row", "exists") } else { ("rows", "exist") };
    format!("{many}{} {rows} ({}) {exist} only here", only.rows, named.join(", "))
}

#[cfg(test)]
#[path = "receipts_tests.rs"]
mod tests;
