//! Taking: when a node takes a snapshot, from whom, and how parts come.
//!
//! One peer is asked at a time, for some parts at once; an answer that does not come, does not fit or says no makes room for
//! another peer, and what is held is named to that one. While nothing stands in the files of its own, a node waits for peers
//! as long as it takes; the first row of the app ends the waiting (then the events come, as ever).
//! Invariants: a part is kept only if it is what its name says and follows the place reached; tables numbered in another
//! order make parts of an earlier snapshot worthless, so they go. Caller: [`super`].

use std::collections::BTreeMap;

use super::fill::Fill;
use super::{Joined, Node, NodeError, Now};
use crate::log::{SnapshotNote, SnapshotStage, StoredPart};
use crate::model::NodeId;
use crate::node::meeting::Meeting;
use crate::wire::limits::SNAPSHOT_PARTS_MAX;
use crate::wire::snapshot::{Place, Snapshot, SnapshotAsk, SnapshotPart, SnapshotPlan};

/// An ask without an answer is given to another peer after this, ms.
const PATIENCE_MS: u64 = 5_000;

/// A peer that gave nothing is not asked again for so long, ms.
const REST_MS: u64 = 20_000;

/// With peers there and none that gives, the events are pulled after this, ms.
const GIVE_UP_MS: u64 = 10_000;

/// Parts between two durable commits.
const PARTS_PER_SYNC: u32 = 64;

/// A snapshot under way.
pub(super) struct Taking {
    pub(super) plan: Option<SnapshotPlan>,
    pub(super) stage: SnapshotStage,
    pub(super) section: u32,
    pub(super) after: Place,
    pub(super) records: u64,
    pub(super) fill: Option<Fill>,
    asked: Option<Asked>,
    /// Peers that gave nothing, and until when they are left alone.
    rest: BTreeMap<NodeId, u64>,
    progress_ms: u64,
    unsynced: u32,
    /// Nothing is done before this.
    pub(super) pause_until_ms: u64,
}

#[derive(Clone, Copy)]
struct Asked {
    peer: NodeId,
    until_ms: u64,
    /// Parts that are still to come.
    parts: u32,
}

impl Taking {
    fn new(now: Now) -> Taking {
        Taking {
            plan: None,
            stage: SnapshotStage::Pulling,
            section: 0,
            after: [0; 29],
            records: 0,
            fill: None,
            asked: None,
            rest: BTreeMap::new(),
            progress_ms: now.mono_ms,
            unsynced: 0,
            pause_until_ms: 0,
        }
    }

    /// Stage in a word, and rows done in it.
    pub(super) fn progress(&self) -> (&'static str, u64) {
        match self.stage {
            SnapshotStage::Pulling => ("pulling", self.records),
            SnapshotStage::Filling => ("filling", self.records),
            SnapshotStage::Loading => ("loading", self.records),
        }
    }

    /// When something is due although nothing comes.
    pub(super) fn deadline_ms(&self) -> u64 {
        let asked = self.asked.map_or(self.progress_ms + GIVE_UP_MS, |asked| asked.until_ms);
        if self.stage == SnapshotStage::Pulling { asked.max(self.pause_until_ms) } else { self.pause_until_ms }
    }

    pub(super) fn note(&self) -> SnapshotNote {
        let plan = self.plan.as_ref().map(SnapshotPlan::encode).unwrap_or_default();
        SnapshotNote { plan, stage: self.stage, section: self.section, after: self.after, records: self.records }
    }
}

impl Node {
    /// Goes on with a snapshot that a stop interrupted. Called when the node is opened.
    pub(in crate::node) fn resume_snapshot(&mut self, now: Now) -> Result<(), NodeError> {
        let (note, tails) = {
            let read = self.log.read()?;
            (read.snapshot_note()?, read.tails()?)
        };
        self.exchange.tails = tails;
        if !self.exchange.tails.is_empty() {
            let rows = self.log.read()?;
            let tables = self.schemas.iter().flat_map(|schema| rows.tables_of(&schema.database));
            let mut shown = 0;
            for table in tables {
                shown += rows.fingerprint(table)?.rows;
            }
            self.snapshots.joined = Some(Joined { rows: shown, started_ms: now.mono_ms, ..Joined::default() });
        }
        let Some(note) = note else { return Ok(()) };
        crate::sometimes!("snapshot: goes on after a stop");
        let plan = SnapshotPlan::decode(&note.plan)?;
        self.begin_taking(plan.rows(), now);
        if let Some(taking) = &mut self.snapshots.taking {
            taking.plan = Some(plan);
            (taking.stage, taking.section, taking.after) = (note.stage, note.section, note.after);
            taking.records = note.records;
        }
        Ok(())
    }

    /// A peer said how many rows it would give.
    pub(in crate::node) fn consider_snapshot(&mut self, from: NodeId, rows: u64, now: Now) -> Result<(), NodeError> {
        if let Some(peer) = self.exchange.peers.get_mut(&from) {
            peer.snapshot_rows = rows;
        }
        let worth = rows > 0 && rows >= self.snapshots.rows_min && self.membership.may_write(&from);
        if !worth || self.snapshots.declined || self.takes_snapshot() {
            return Ok(());
        }
        match self.may_take() {
            Ok(true) => {}
            // A file that cannot be read now may hold rows.
            Ok(false) | Err(NodeError::Sqlite(_)) => return Ok(()),
            Err(error) => return Err(error),
        }
        crate::sometimes!("snapshot: a new member takes one");
        self.begin_taking(rows, now);
        Ok(())
    }

    fn begin_taking(&mut self, rows: u64, now: Now) {
        self.snapshots.taking = Some(Taking::new(now));
        self.snapshots.joined = Some(Joined { rows, started_ms: now.mono_ms, ..Joined::default() });
        self.exchange.paused = true;
    }

    /// Whether nothing is here that a snapshot could not simply come under: nothing evaluated, no file adopted, no row.
    fn may_take(&self) -> Result<bool, NodeError> {
        if self.databases.is_empty() || !self.log.read()?.knows_no_table() {
            return Ok(false);
        }
        for (database, schema) in self.databases.iter().zip(&self.schemas) {
            let waits = database.adopt_by_ms.is_some() && !database.doubted;
            let base = matches!(self.meeting(&schema.database)?, Meeting::Base(_));
            if !waits || base || database.file.has_rows()? || database.file.is_enrolled()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What is due of a snapshot under way.
    pub(super) fn step_taking(&mut self, now: Now) -> Result<(), NodeError> {
        let Some(taking) = &self.snapshots.taking else { return Ok(()) };
        if now.mono_ms < taking.pause_until_ms {
            return Ok(());
        }
        match taking.stage {
            SnapshotStage::Pulling => self.step_pulling(now),
            SnapshotStage::Filling => self.step_filling(now),
            SnapshotStage::Loading => self.step_loading(now),
        }
    }

    fn step_pulling(&mut self, now: Now) -> Result<(), NodeError> {
        if !self.may_take()? {
            return self.leave_to_events("rows of this server's own stand in its files", now);
        }
        let Some(taking) = &mut self.snapshots.taking else { return Ok(()) };
        if let Some(asked) = taking.asked {
            let gone = !self.exchange.peers.get(&asked.peer).is_some_and(|peer| peer.connected);
            if !gone && now.mono_ms < asked.until_ms {
                return Ok(());
            }
            crate::sometimes!("snapshot: another peer is asked for the rest");
            taking.asked = None;
            taking.rest.insert(asked.peer, now.mono_ms + REST_MS);
        }
        self.ask_somebody(now)
    }

    fn ask_somebody(&mut self, now: Now) -> Result<(), NodeError> {
        let Some(taking) = &self.snapshots.taking else { return Ok(()) };
        let rested = |peer: &&NodeId| taking.rest.get(*peer).is_none_or(|until| *until <= now.mono_ms);
        let peers: Vec<NodeId> =
            self.exchange.peers.iter().filter(|(_, peer)| peer.connected).map(|(id, _)| *id).collect();
        let giver =
            peers.iter().filter(rested).find(|peer| self.exchange.offered(peer) >= self.snapshots.rows_min.max(1));
        let Some(giver) = giver.copied() else {
            let given_up = !peers.is_empty() && now.mono_ms >= taking.progress_ms + GIVE_UP_MS;
            return match given_up {
                true => self.leave_to_events("nobody gives one", now),
                false => Ok(()),
            };
        };
        let ask = SnapshotAsk {
            id: taking.plan.as_ref().map(|plan| plan.id),
            table: taking.section,
            after: taking.after,
            parts: SNAPSHOT_PARTS_MAX as u32,
            held: self.held_from(taking.section, taking.after)?,
        };
        let asked = Asked { peer: giver, until_ms: now.mono_ms + PATIENCE_MS, parts: ask.parts };
        if let Some(taking) = &mut self.snapshots.taking {
            taking.asked = Some(asked);
        }
        self.say(giver, Snapshot::Ask(ask), now);
        Ok(())
    }

    /// Contents that are held of a snapshot begun before, from a place on.
    fn held_from(&self, section: u32, mut after: Place) -> Result<Vec<[u8; 16]>, NodeError> {
        let read = self.log.read()?;
        let mut held = Vec::new();
        while held.len() < SNAPSHOT_PARTS_MAX {
            let Some(part) = read.snapshot_part(section, &after)? else { break };
            held.push(part.content);
            after = part.through;
            if part.ends {
                break;
            }
        }
        Ok(held)
    }

    pub(super) fn take_plan(&mut self, from: NodeId, plan: SnapshotPlan, now: Now) -> Result<(), NodeError> {
        let Some(taking) = &mut self.snapshots.taking else { return Ok(()) };
        if taking.stage != SnapshotStage::Pulling || taking.asked.is_none_or(|asked| asked.peer != from) {
            return Ok(());
        }
        taking.asked = None;
        let refusal = if plan.refusal.is_empty() { self.unfit(&plan) } else { Some(plan.refusal.clone()) };
        let Some(taking) = &mut self.snapshots.taking else { return Ok(()) };
        if let Some(words) = refusal {
            tracing::info!(%from, "no snapshot from this peer: {words}");
            taking.rest.insert(from, u64::MAX);
            return self.ask_somebody(now);
        }
        let tables = |plan: &SnapshotPlan| -> Vec<(String, String, Vec<String>)> {
            let named = |database: &crate::wire::snapshot::PlannedDatabase| -> Vec<_> {
                let name = database.name.clone();
                database.tables.iter().map(|table| (name.clone(), table.name.clone(), table.columns.clone())).collect()
            };
            plan.databases.iter().flat_map(named).collect()
        };
        let fits = taking.plan.as_ref().is_some_and(|known| tables(known) == tables(&plan));
        crate::sometimes!(fits, "snapshot: parts of an earlier one are held");
        if let Some(joined) = &mut self.snapshots.joined {
            joined.rows = plan.rows();
        }
        (taking.section, taking.after, taking.records) = (0, [0; 29], 0);
        (taking.plan, taking.progress_ms) = (Some(plan), now.mono_ms);
        let note = taking.note();
        let mut write = self.log.write()?;
        if !fits {
            write.drop_snapshot()?;
        }
        write.put_snapshot_note(&note)?;
        write.commit_durable()?;
        self.ask_somebody(now)
    }

    /// Why a snapshot is none for this node's files.
    fn unfit(&self, plan: &SnapshotPlan) -> Option<String> {
        for schema in &self.schemas {
            let name = &schema.database;
            let Some(planned) = plan.databases.iter().find(|planned| planned.name == *name) else {
                return Some(format!("it has no database {name}"));
            };
            if planned.schema != schema.fingerprint {
                return Some(format!("its tables of {name} are others"));
            }
        }
        let unknown = |name: &String| !self.schemas.iter().any(|schema| schema.database == *name);
        let more = plan.databases.iter().map(|planned| &planned.name).find(|name| unknown(name));
        more.map(|name| format!("it has a database {name} that is not here"))
    }

    pub(super) fn take_part(&mut self, from: NodeId, part: SnapshotPart, now: Now) -> Result<(), NodeError> {
        let Some(taking) = &mut self.snapshots.taking else { return Ok(()) };
        let fits = taking.stage == SnapshotStage::Pulling
            && taking.asked.is_some_and(|asked| asked.peer == from)
            && taking.plan.as_ref().is_some_and(|plan| plan.id == part.id)
            && (taking.section, taking.after) == (part.table, part.after);
        // Late, repeated, or of another snapshot: nobody's fault.
        if !fits {
            return Ok(());
        }
        if part.through <= part.after && !part.ends {
            return self.part_is_bad(from, "a part of a snapshot that leads nowhere", now);
        }
        let stored = StoredPart {
            through: part.through,
            content: part.content,
            unpacked: part.unpacked,
            ends: part.ends,
            rows: part.rows,
        };
        let mut write = self.log.write()?;
        if part.zstd.is_empty() {
            let held = self.log.read()?.snapshot_part(part.table, &part.after)?;
            if held.is_none_or(|held| held.content != part.content || held.through != part.through) {
                drop(write);
                return self.part_is_bad(from, "a part of a snapshot without its bytes", now);
            }
            crate::sometimes!("snapshot: a part that is held is not sent again");
        } else {
            if SnapshotPart::unpack(&part.zstd, part.unpacked, &part.content).is_err() {
                drop(write);
                return self.part_is_bad(from, "a part of a snapshot that is not what it says", now);
            }
            write.put_snapshot_part(part.table, &part.after, &stored, &part.zstd)?;
        }
        if let Some(joined) = &mut self.snapshots.joined {
            joined.bytes += part.zstd.len() as u64;
        }
        (taking.section, taking.after) = if part.ends { (part.table + 1, [0; 29]) } else { (part.table, part.through) };
        taking.records += u64::from(part.rows);
        (taking.progress_ms, taking.unsynced) = (now.mono_ms, taking.unsynced + 1);
        let sections = taking.plan.as_ref().map_or(0, SnapshotPlan::sections);
        let complete = taking.section as usize >= sections;
        if complete {
            (taking.stage, taking.section, taking.records) = (SnapshotStage::Filling, 0, 0);
            taking.asked = None;
        }
        write.put_snapshot_note(&taking.note())?;
        if complete || taking.unsynced >= PARTS_PER_SYNC {
            taking.unsynced = 0;
            write.commit_durable()?;
        } else {
            write.commit_relaxed()?;
            self.relaxed = true;
        }
        if let Some(asked) = &mut taking.asked {
            (asked.parts, asked.until_ms) = (asked.parts.saturating_sub(1), now.mono_ms + PATIENCE_MS);
            if asked.parts == 0 {
                taking.asked = None;
                return self.ask_somebody(now);
            }
        }
        Ok(())
    }

    /// Nothing of it is kept; another peer is asked, and this one is told on.
    fn part_is_bad(&mut self, from: NodeId, reason: &str, now: Now) -> Result<(), NodeError> {
        crate::sometimes!("snapshot: a damaged part is refused");
        if let Some(taking) = &mut self.snapshots.taking {
            taking.asked = None;
            taking.rest.insert(from, now.mono_ms + 10 * REST_MS);
        }
        self.due = true;
        Err(NodeError::PeerFault { reason: reason.to_string() })
    }

    /// No snapshot: what was kept aside goes, and the events come as ever.
    pub(super) fn leave_to_events(&mut self, why: &str, now: Now) -> Result<(), NodeError> {
        crate::sometimes!("snapshot: left to the events");
        tracing::info!("no snapshot ({why}): the history is taken event by event");
        let mut write = self.log.write()?;
        write.drop_snapshot()?;
        write.clear_state()?;
        write.commit_durable()?;
        self.snapshots.taking = None;
        self.snapshots.joined = None;
        // It would begin again with the next hello otherwise.
        self.exchange.peers.values_mut().for_each(|peer| peer.snapshot_rows = 0);
        self.snapshots.declined = true;
        self.exchange.paused = false;
        for database in &mut self.databases {
            if database.adopt_by_ms.is_some() {
                database.adopt_by_ms = Some(now.mono_ms + crate::node::waiting::WAIT_MS);
            }
            database.touch(now);
        }
        self.due = true;
        Ok(())
    }
}
