//! Cleanup: old events that every member holds move from the log into segments, in pages over ticks.
//!
//! The **stable cut** is, per origin, what every active member has said it holds ([`super::receipts`]). Below it, and older
//! than the days to keep, bodies move and indexes shrink ([`crate::log`]'s archive); nothing is dropped, so a member that
//! was gone for a season pulls everything as before. A member that has not been heard for long only delays this: it is
//! named. States of a run: seal (a segment fills, is written) → clear (its bodies leave the log, each block read back
//! first) → seal … → pages (the order of arrivals) → tidy (files that no log knows) → done, or failed with the reason. What
//! is durable when stands at [`crate::log`]'s `archive_write`; a start goes on with what was not cleared.
//!
//! What stays hot, and why: the evaluator's rows. A receipt says what a member *holds*, not what its files *show*, and what
//! it writes before it has applied them is concurrent with them: superseded cells, void merges and covered deletes can still
//! decide. Claims and tombstones are inputs of the ids for ever. Signatures: see [`crate::log`]'s `segment`.
//!
//! Invariants: a step does one block, one page or one segment's file, and pauses, so that the app and the peers go first; a
//! failure ends the run and harms nothing else. Room in the log's file is used again by what comes; giving it back to the
//! disk needs the log alone (`Log::compact`): at a start, or by `litemesh cleanup` while the node is stopped.
//! Callers: step, http, daemon.

use std::collections::{BTreeMap, VecDeque};

use super::archive_repair::Repair;
use super::archive_view::{BlockingView, CleanupView, RepairView};
use super::query::rfc3339;
use super::{Node, NodeError, Now};
use crate::log::{LogError, LogRead, SealLimits, Sealer};
use crate::model::{NodeId, OriginId, Stamp};
use crate::wire::event::peek_header;

const DAY_MS: u64 = 86_400_000;

/// Ended cleanups that wait to be asked for.
const ENDED_MAX: usize = 16;

/// Pause between two steps, ms.
const PAUSE_MS: u64 = 4;

/// A node that has just started has better things to do, ms.
const AUTOMATIC_AFTER_MS: u64 = 600_000;

/// Under this name the log keeps the (local) day of the last automatic cleanup.
const DAY_KEY: &str = "cleanup day";

/// Under this name the log notes that it holds room worth giving back.
const ROOM_KEY: &str = "cleanup room";

/// Events moved since the last time that make it worth.
const ROOM_EVENTS: u64 = 50_000;

/// `[retention]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionSettings {
    /// Events younger than this stay in the log, days.
    pub days_to_keep: u32,
    /// Minute of the local day at which a cleanup begins by itself; `None`: never.
    pub daily_at: Option<u16>,
}

impl Default for RetentionSettings {
    /// 30 days; nothing happens by itself.
    fn default() -> RetentionSettings {
        RetentionSettings { days_to_keep: 30, daily_at: None }
    }
}

/// The cleanup of a node.
#[derive(Debug, Default)]
pub(super) struct Archiving {
    run: Option<Run>,
    last: CleanupView,
    /// Those that ended since somebody asked, the newest.
    ended: VecDeque<CleanupView>,
    /// Local day of the last automatic run; `None`: not looked up yet.
    day: Option<u64>,
    /// See [`super::archive_repair`].
    pub(super) repair: Option<Repair>,
    pub(super) repaired: RepairView,
}

#[derive(Debug)]
struct Run {
    sealer: Sealer,
    phase: Phase,
    next_ms: u64,
}

/// Blocks that the log still holds too, by their segment.
type Uncleared = VecDeque<(u32, VecDeque<(OriginId, u64)>)>;

#[derive(Debug)]
enum Phase {
    Seal,
    Clear(Uncleared),
    Pages,
    /// Segment files that no log knows, to be looked into.
    Tidy(VecDeque<([u8; 32], u64)>),
}

/// What a cleanup may move, and what it may not yet.
struct Scope {
    limits: SealLimits,
    events: u64,
    blocked: u64,
    blocking: Vec<BlockingView>,
}

impl Archiving {
    /// Whether a repair looks through the blocks.
    pub(super) fn looks(&self) -> bool {
        self.repair.as_ref().is_some_and(Repair::looks)
    }

    /// When the next step is wanted, monotonic ms.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        let fetch = self.repair.as_ref().and_then(Repair::deadline_ms);
        self.run.as_ref().map(|run| run.next_ms).into_iter().chain(fetch).min()
    }
}

impl Node {
    /// What a cleanup would do now. `days_to_keep`: `None` for everything below the stable cut.
    pub fn plan_cleanup(&self, days_to_keep: Option<u32>, now: Now) -> Result<CleanupView, NodeError> {
        let scope = self.cleanup_scope(days_to_keep, false, now)?;
        Ok(CleanupView {
            state: "planned".to_string(),
            days_to_keep,
            wanted: scope.events,
            blocked: scope.blocked,
            blocking: scope.blocking,
            ..CleanupView::default()
        })
    }

    /// Begins a cleanup; the next ticks do it. While one is under way, that one goes on, and is told.
    pub fn start_cleanup(&mut self, days_to_keep: Option<u32>, now: Now) -> Result<CleanupView, NodeError> {
        self.begin_cleanup(days_to_keep, false, now)?;
        Ok(self.cleanup())
    }

    /// What stays in the log, and when the rest is moved by itself.
    pub fn retention(&self) -> RetentionSettings {
        self.settings.retention
    }

    /// The cleanup that is under way, or the last one.
    pub fn cleanup(&self) -> CleanupView {
        self.archiving.last.clone()
    }

    /// Cleanups that ended since the last call, the oldest first; of many, the newest.
    pub fn take_cleanups(&mut self) -> Vec<CleanupView> {
        std::mem::take(&mut self.archiving.ended).into()
    }

    /// One step of the cleanup, without a pause: for a node that does nothing else. False: there is none under way.
    pub fn hurry_cleanup(&mut self, now: Now) -> Result<bool, NodeError> {
        match &mut self.archiving.run {
            Some(run) => run.next_ms = now.mono_ms,
            None => return Ok(false),
        }
        self.step_cleanup(now)?;
        Ok(self.archiving.run.is_some())
    }

    fn begin_cleanup(&mut self, days: Option<u32>, whole_blocks: bool, now: Now) -> Result<(), NodeError> {
        if self.archiving.run.is_some() {
            return Ok(());
        }
        let scope = self.cleanup_scope(days, whole_blocks, now)?;
        self.archiving.last = CleanupView {
            state: "running".to_string(),
            days_to_keep: days,
            wanted: scope.events,
            blocked: scope.blocked,
            blocking: scope.blocking,
            started: rfc3339(now.wall_ms),
            ..CleanupView::default()
        };
        let phase = Phase::Clear(uncleared(&self.log.read()?)?);
        self.archiving.run = Some(Run { sealer: Sealer::new(scope.limits), phase, next_ms: now.mono_ms });
        Ok(())
    }

    /// Goes on with what a crash left between a segment and its clearing.
    pub(super) fn resume_cleanup(&mut self, now: Now) -> Result<(), NodeError> {
        let left = uncleared(&self.log.read()?)?;
        if left.is_empty() {
            return Ok(());
        }
        self.archiving.last =
            CleanupView { state: "running".to_string(), started: rfc3339(now.wall_ms), ..CleanupView::default() };
        let sealer = Sealer::new(SealLimits::default());
        self.archiving.run = Some(Run { sealer, phase: Phase::Clear(left), next_ms: now.mono_ms });
        Ok(())
    }

    /// One step of the cleanup, when it is due.
    pub(super) fn step_cleanup(&mut self, now: Now) -> Result<(), NodeError> {
        if self.fault.is_some() {
            return Ok(());
        }
        if self.archiving.run.is_none() {
            return self.begin_daily(now);
        }
        let Some(run) = self.archiving.run.as_mut().filter(|run| run.next_ms <= now.mono_ms) else { return Ok(()) };
        run.next_ms = now.mono_ms + PAUSE_MS;
        let done = match step(&self.log, run, &mut self.archiving.last) {
            Ok(false) => return Ok(()),
            Ok(true) => "done",
            Err(error @ (LogError::Archived { .. } | LogError::SegmentNotWritten(_))) => {
                self.archiving.last.problem = error.to_string();
                self.alert(format!("the cleanup stopped: {error}"));
                "failed"
            }
            Err(error) => return Err(error.into()),
        };
        self.archiving.run = None;
        let last = &mut self.archiving.last;
        (last.state, last.ended) = (done.to_string(), rfc3339(now.wall_ms));
        if self.archiving.ended.len() >= ENDED_MAX {
            self.archiving.ended.pop_front();
        }
        self.archiving.ended.push_back(last.clone());
        if last.removed > 0 {
            note_room(&self.log, last.removed)?;
            tracing::info!(events = last.removed, segments = last.segments, bytes = last.bytes, "cleanup");
        }
        Ok(())
    }

    /// Begins the cleanup of the day when its time has come.
    fn begin_daily(&mut self, now: Now) -> Result<(), NodeError> {
        let Some(at) = self.settings.retention.daily_at else { return Ok(()) };
        if now.mono_ms < self.started.mono_ms + AUTOMATIC_AFTER_MS {
            return Ok(());
        }
        let minutes = (now.wall_ms / 60_000).saturating_add_signed(i64::from(self.exchange.pace.offset_minutes));
        let (day, minute) = (minutes / (24 * 60), minutes % (24 * 60));
        let known = match self.archiving.day {
            Some(known) => known,
            None => {
                let stored = self.log.read()?.meta(DAY_KEY)?.and_then(|bytes| bytes.try_into().ok());
                stored.map_or(0, u64::from_be_bytes)
            }
        };
        self.archiving.day = Some(known);
        if known == day || minute < u64::from(at) {
            return Ok(());
        }
        let mut write = self.log.write()?;
        write.put_meta(DAY_KEY, &day.to_be_bytes())?;
        write.commit_relaxed()?;
        self.archiving.day = Some(day);
        self.begin_cleanup(Some(self.settings.retention.days_to_keep), true, now)
    }

    /// Per origin of this log, what every active member is known to hold.
    pub(super) fn stable_cut(&self) -> BTreeMap<OriginId, u64> {
        let members: Vec<NodeId> = self.other_members().collect();
        let held = |(origin, head)| {
            let by_all = members.iter().map(|node| self.holds(node, origin, head).unwrap_or(0)).min();
            (*origin, by_all.unwrap_or(head.seq))
        };
        self.heads.iter().map(held).collect()
    }

    fn cleanup_scope(&self, days: Option<u32>, whole_blocks: bool, now: Now) -> Result<Scope, NodeError> {
        let before = days.map(|days| Stamp::from_wall_ms(now.wall_ms.saturating_sub(u64::from(days) * DAY_MS)));
        let cut = self.stable_cut();
        let read = self.log.read()?;
        let (mut events, mut blocked) = (0, 0);
        let mut lacks: BTreeMap<NodeId, u64> = BTreeMap::new();
        for (origin, head) in &self.heads {
            let Some(first) = read.first_in_log(origin, 0)? else { continue };
            let old = match before {
                Some(before) => last_before(&read, origin, (first, head.seq), before)?,
                None => head.seq,
            };
            let through = cut.get(origin).copied().unwrap_or(0);
            events += (old.min(through) + 1).saturating_sub(first);
            blocked += old.saturating_sub(through.max(first - 1));
            for node in self.other_members().filter(|_| old > through) {
                let held = self.holds(&node, origin, head).unwrap_or(0);
                if held < old {
                    *lacks.entry(node).or_default() += old - held;
                }
            }
        }
        let view = |(node, lacks): (NodeId, u64)| BlockingView {
            name: self.member_name(&node),
            id: node.to_string(),
            lacks,
            heard: self.receipts.as_of_ms(&node).map(rfc3339).unwrap_or_default(),
        };
        let mut blocking: Vec<BlockingView> = lacks.into_iter().map(view).collect();
        // The one that was heard longest ago, or never, first.
        blocking.sort_by(|a, b| (&a.heard, &a.name).cmp(&(&b.heard, &b.name)));
        Ok(Scope { limits: SealLimits { through: cut, before, whole_blocks }, events, blocked, blocking })
    }
}

fn uncleared(read: &LogRead) -> Result<Uncleared, NodeError> {
    Ok(read.uncleared()?.into_iter().map(|(number, blocks)| (number, blocks.into())).collect())
}

/// The last event of an origin in a range that was stamped earlier: stamps grow along a chain.
fn last_before(read: &LogRead, origin: &OriginId, (first, last): (u64, u64), before: Stamp) -> Result<u64, NodeError> {
    let (mut from, mut to) = (first - 1, last);
    while from < to {
        let middle = from + (to - from).div_ceil(2);
        let stamp = match read.event(origin, middle) {
            Ok(Some(stored)) => Some(peek_header(&stored.bytes)?.0),
            // A hole or a damaged one: what is behind it is not moved before somebody has looked.
            Ok(None) | Err(LogError::CorruptEvent { .. } | LogError::Archived { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        if stamp.is_some_and(|stamp| stamp < before) {
            from = middle;
        } else {
            to = middle - 1;
        }
    }
    Ok(from)
}

/// Adds to the events that were moved since the file was compacted; 0: it was.
fn note_room(log: &crate::log::Log, events: u64) -> Result<(), NodeError> {
    let moved = if events == 0 { 0 } else { room_in(&log.read()?)? + events };
    let mut write = log.write()?;
    write.put_meta(ROOM_KEY, &moved.to_be_bytes())?;
    write.commit_durable()?;
    Ok(())
}

fn room_in(read: &LogRead) -> Result<u64, NodeError> {
    Ok(read.meta(ROOM_KEY)?.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes))
}

/// Whether so much was moved out of a log that its file is worth being compacted.
pub fn is_worth_compacting(log: &crate::log::Log) -> Result<bool, NodeError> {
    Ok(room_in(&log.read()?)? >= ROOM_EVENTS)
}

/// Gives the room that cleanups freed in a log's file back to the disk. Takes about a second per 100 MB, and the log alone.
pub fn compact(log: &mut crate::log::Log) -> Result<(), NodeError> {
    log.compact()?;
    note_room(log, 0)
}

/// One step; true: that was the last.
fn step(log: &crate::log::Log, run: &mut Run, view: &mut CleanupView) -> Result<bool, LogError> {
    match &mut run.phase {
        Phase::Seal => {
            let more = run.sealer.pack_next(&log.read()?)?;
            if !more || run.sealer.is_full() {
                run.phase = match log.seal(&mut run.sealer)? {
                    Some(number) => {
                        let left = log.read()?.uncleared()?.into_iter().find(|(fresh, _)| *fresh == number);
                        Phase::Clear(left.map(|(number, blocks)| (number, blocks.into())).into_iter().collect())
                    }
                    None => Phase::Pages,
                };
            }
            Ok(false)
        }
        Phase::Clear(left) => {
            match left.front_mut() {
                Some((number, blocks)) => {
                    let mut write = log.write()?;
                    match blocks.front() {
                        Some((origin, first)) => {
                            let removed = write.clear_block(*origin, *first)?;
                            // A crash finds these bodies again, and removes them again.
                            write.commit_relaxed()?;
                            view.removed += removed;
                            blocks.pop_front();
                        }
                        None => {
                            let (bytes, hot_bytes) = write.end_segment(*number)?;
                            write.commit_durable()?;
                            view.segments += 1;
                            view.bytes += bytes;
                            view.hot_bytes += hot_bytes;
                            left.pop_front();
                        }
                    }
                }
                None => run.phase = Phase::Seal,
            }
            Ok(false)
        }
        Phase::Pages => {
            let mut write = log.write()?;
            match write.pack_arrivals()? {
                true => write.commit_relaxed()?,
                false => {
                    write.commit_durable()?;
                    run.phase = Phase::Tidy(log.orphans()?.into());
                }
            }
            Ok(false)
        }
        Phase::Tidy(files) => {
            let Some((name, bytes)) = files.pop_front() else { return Ok(true) };
            view.orphans += u64::from(log.remove_orphan(&name, bytes)?);
            Ok(false)
        }
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
