//! Giving: one snapshot of the log, read in parts for whoever asks.
//!
//! States: none → fixed (a plan was asked for: the log's snapshot is kept) → let go (nobody asked for a while, or it is old:
//! kept pages cost room in the log's file). Asks wait in a queue, one per peer; every peer gets some parts in turn. A part is a
//! function of the snapshot and the place it begins at, and where it ends depends on the rows themselves, so that a later
//! snapshot has the same parts where nothing changed.
//! Invariants: all parts of one snapshot show one moment; it is of members that may write alone, because what a read-only
//! one wrote is nobody else's; what is said of an origin's last event is what this log holds. Caller: [`super`].

use std::collections::BTreeMap;

use super::super::exchange::Exchange;
use super::{Node, NodeError, Now};
use crate::log::{Frozen, LogRead};
use crate::merge::Evaluator;
use crate::merge::rank::Ranks;
use crate::merge::store::{Row, TableId};
use crate::model::identity::hash_16;
use crate::model::{Cell, Cut, DatabaseSchema, Head, NodeId, OriginId, RowId};
use crate::node::Effect;
use crate::wire::limits::*;
use crate::wire::message::Message;
use crate::wire::snapshot::{
    Place, PlannedDatabase, PlannedTable, Snapshot, SnapshotAsk, SnapshotPart, SnapshotPlan, content_hash,
};
use crate::wire::snapshot_cuts;
use crate::wire::snapshot_rows::{Content, Layout};

/// Parts made in one step.
const PARTS_PER_STEP: usize = 4;

/// Records read at once.
const PAGE: usize = 512;

/// A snapshot that nobody asked of for so long is let go, ms.
const IDLE_MS: u64 = 60_000;

/// A snapshot is not begun again with once it is so old, ms.
const AGE_MS: u64 = 30_000;

/// Peers that wait, at most.
const ASKS_MAX: usize = 256;

/// A snapshot that is given.
pub(super) struct Giving {
    plan: SnapshotPlan,
    read: LogRead,
    ranks: Ranks,
    schemas: Vec<DatabaseSchema>,
    part_bytes: usize,
    made_ms: u64,
    used_ms: u64,
}

impl Node {
    /// Tells the hellos how many rows there are to give.
    pub(in crate::node) fn offer_snapshot(&mut self) -> Result<(), NodeError> {
        self.exchange.snapshot_rows = if self.cannot_give()?.is_empty() { self.rows_shown()? } else { 0 };
        Ok(())
    }

    fn rows_shown(&self) -> Result<u64, NodeError> {
        let read = self.log.read()?;
        let mut rows = 0;
        for schema in &self.schemas {
            for table in read.tables_of(&schema.database) {
                rows += read.fingerprint(table)?.rows;
            }
        }
        Ok(if rows >= self.snapshots.rows_min { rows } else { 0 })
    }

    /// Why no snapshot can be given; empty: one can.
    fn cannot_give(&self) -> Result<&'static str, NodeError> {
        if self.takes_snapshot() || !self.exchange.tails.is_empty() {
            return Ok("this server's own history is not complete yet");
        }
        if self.databases.is_empty() || self.databases.iter().any(|database| !database.ready || database.lost.is_some())
        {
            return Ok("this server's files are not ready");
        }
        if !self.membership.may_write(&self.id()) {
            return Ok("a read-only server's state is not everybody's");
        }
        let read = self.log.read()?;
        for schema in &self.schemas {
            if !read.held(&schema.database)?.is_empty() {
                return Ok("some events wait for a column that is not here yet");
            }
        }
        Ok("")
    }

    /// Takes an ask; it is answered in its turn.
    pub(super) fn take_ask(&mut self, from: NodeId, ask: SnapshotAsk) {
        let asks = &mut self.snapshots.asks;
        if let Some((_, waiting)) = asks.iter_mut().find(|(peer, _)| *peer == from) {
            *waiting = ask;
        } else if asks.len() < ASKS_MAX {
            asks.push_back((from, ask));
        }
    }

    /// Answers in turn, as much as one step may.
    pub(super) fn give_parts(&mut self, now: Now) -> Result<(), NodeError> {
        let idle = |giving: &Giving| now.mono_ms >= giving.used_ms + IDLE_MS;
        if self.snapshots.giving.as_ref().is_some_and(idle) {
            self.snapshots.giving = None;
        }
        let mut left = PARTS_PER_STEP;
        while left > 0 && self.exchange.pace.has_room(now) {
            let Some((peer, mut ask)) = self.snapshots.asks.pop_front() else { break };
            if !self.exchange.peers.get(&peer).is_some_and(|peer| peer.connected) {
                continue;
            }
            let known = self.snapshots.giving.as_ref().is_some_and(|giving| ask.id == Some(giving.plan.id));
            if !known {
                let plan = self.fix_snapshot(now)?;
                self.say(peer, Snapshot::Plan(plan), now);
                continue;
            }
            left -= 1;
            let Some(giving) = &mut self.snapshots.giving else { break };
            giving.used_ms = now.mono_ms;
            let part = giving.part(&ask)?;
            let Some(part) = part else { continue };
            ask.parts = ask.parts.saturating_sub(1);
            (ask.table, ask.after) = if part.ends { (part.table + 1, [0; 29]) } else { (part.table, part.through) };
            self.say(peer, Snapshot::Part(part), now);
            if ask.parts > 0 {
                self.snapshots.asks.push_back((peer, ask));
            }
        }
        self.due |= !self.snapshots.asks.is_empty() && self.exchange.pace.has_room(now);
        Ok(())
    }

    pub(super) fn say(&mut self, peer: NodeId, message: Snapshot, now: Now) {
        let frame = Message::Snapshot(message).encode();
        self.exchange.pace.spend(frame.len(), now);
        self.effects.push_back(Effect::Send { peer, frame });
    }

    /// The snapshot that is given now, or a fresh one; its plan, or why there is none.
    fn fix_snapshot(&mut self, now: Now) -> Result<SnapshotPlan, NodeError> {
        let quiet = self.exchange.pace.is_quiet(now);
        let refusal = if quiet { "bulk waits: these are quiet hours" } else { self.cannot_give()? };
        if !refusal.is_empty() {
            return Ok(SnapshotPlan { refusal: refusal.to_string(), ..SnapshotPlan::default() });
        }
        let fresh = |giving: &Giving| now.mono_ms < giving.made_ms + AGE_MS;
        if self.snapshots.giving.as_ref().is_none_or(|giving| !fresh(giving)) {
            let read = self.log.read()?;
            let plan = self.plan(&read)?;
            if plan.heads.len() > HEADS_MAX || plan.encode().len() > SNAPSHOT_PART_BYTES_MAX {
                let refusal = "more servers wrote here than a plan can name".to_string();
                return Ok(SnapshotPlan { refusal, ..SnapshotPlan::default() });
            }
            crate::sometimes!("snapshot: one is given");
            self.snapshots.giving = Some(Giving {
                plan,
                read,
                ranks: self.ranks.clone(),
                schemas: self.schemas.clone(),
                part_bytes: self.snapshots.part_bytes,
                made_ms: now.mono_ms,
                used_ms: now.mono_ms,
            });
        }
        let giving = self.snapshots.giving.as_ref();
        Ok(giving.map(|giving| giving.plan.clone()).unwrap_or_default())
    }

    fn plan(&self, read: &LogRead) -> Result<SnapshotPlan, NodeError> {
        let mut shown: BTreeMap<String, Cut> = BTreeMap::new();
        for schema in &self.schemas {
            shown.insert(schema.database.clone(), read.cursor(&schema.database)?.unwrap_or_default().0);
        }
        let mut plan = SnapshotPlan { clock: read.clock()?, ..SnapshotPlan::default() };
        plan.heads = taken_in(read, &shown)?;
        for schema in &self.schemas {
            plan.databases.push(PlannedDatabase {
                name: schema.database.clone(),
                schema: schema.fingerprint,
                tables: Vec::new(),
                shown: shown.remove(&schema.database).unwrap_or_default(),
            });
        }
        for (number, (database, name, columns)) in read.tables().into_iter().enumerate() {
            let id = TableId(number as u32);
            let (rows, rules) = (read.fingerprint(id)?.rows, read.rules(id)?);
            let table = PlannedTable { name, columns, rows, rules };
            match plan.databases.iter_mut().find(|planned| planned.name == database) {
                Some(planned) => planned.tables.push(table),
                // A database that this server does not serve any more: others cannot know it either.
                None => {
                    plan.databases.push(PlannedDatabase { name: database, tables: vec![table], ..Default::default() })
                }
            }
        }
        plan.id = hash_16("litemesh 2 snapshot", &[&self.id().0[..], &plan.encode()].concat());
        Ok(plan)
    }
}

/// Per origin the last event with which, and all before it, the state was made.
fn taken_in(read: &LogRead, shown: &BTreeMap<String, Cut>) -> Result<Vec<Head>, NodeError> {
    let mut heads = Vec::new();
    for (origin, head) in read.heads()? {
        let mut last = head.seq;
        for (database, cut) in shown {
            let next = read.next_of_database(&origin, cut.get(&origin) + 1, database)?;
            last = next.map_or(last, |(seq, _)| last.min(seq - 1));
        }
        let hash = if last == head.seq { Some(head.hash) } else { read.event(&origin, last)?.map(|event| event.hash) };
        heads.extend(hash.map(|hash| Head { origin: head.origin, seq: last, hash }));
    }
    Ok(heads)
}

impl Giving {
    /// The number of a table in the log, and its layout.
    fn layout(&self, section: usize) -> Option<Layout<'_>> {
        let (database, table) = self.plan.table(section)?;
        let id = self.read.find_table(&database.name, &table.name).ok()??;
        let schema = self.schemas.iter().find(|schema| schema.database == database.name);
        Some(Layout::new(id, schema.and_then(|schema| schema.table(&table.name)), &table.columns))
    }

    /// The part that begins behind a place; `None`: there is no such section, or a row is too large.
    fn part(&self, ask: &SnapshotAsk) -> Result<Option<SnapshotPart>, NodeError> {
        let section = ask.table as usize;
        if section >= self.plan.sections() {
            return Ok(None);
        }
        let (content, through, ends, rows) = match section.checked_sub(self.plan.tables()) {
            None => self.rows(section, &ask.after)?,
            Some(database) => self.cuts(database, &ask.after)?,
        };
        let name = content_hash(&content);
        let held = ask.held.contains(&name);
        let zstd = if held { Some(Vec::new()) } else { SnapshotPart::pack(&content) };
        let Some(zstd) = zstd.filter(|_| content.len() <= SNAPSHOT_PART_BYTES_MAX) else { return Ok(None) };
        let (id, table, after, unpacked) = (self.plan.id, ask.table, ask.after, content.len() as u32);
        Ok(Some(SnapshotPart { id, table, after, through, content: name, unpacked, zstd, ends, rows }))
    }

    fn rows(&self, section: usize, after: &Place) -> Result<(Vec<u8>, Place, bool, u32), NodeError> {
        let (mut content, mut rows, mut through) = (Content::default(), 0, *after);
        let Some(layout) = self.layout(section) else { return Ok((content.finish(), through, true, 0)) };
        let mut from = if *after == [0; 29] { None } else { RowId::from_bytes(after) };
        let mut frozen = Frozen(&self.read);
        let mut evaluator = Evaluator::new(&mut frozen, &self.ranks, &self.schemas, 0);
        loop {
            let page = self.read.rows_page(layout.table, from, PAGE)?;
            let last_page = page.len() < PAGE;
            for (at, (id, row)) in page.iter().enumerate() {
                if is_plain(row) && layout.schema.is_some() {
                    content.push_plain(id, row);
                } else {
                    let image = evaluator.target(id)?.map(|(_, image)| image);
                    content.push(&layout, id, row, image.as_deref());
                }
                (through, rows) = (id.to_bytes(), rows + 1);
                let full = content.len() >= self.part_bytes || rows as usize == SNAPSHOT_PART_ROWS_MAX;
                let own_end = content.len() >= self.part_bytes / 4 && is_end(&through);
                if full || own_end {
                    let ends = last_page && at + 1 == page.len();
                    return Ok((content.finish(), through, ends, rows));
                }
            }
            if last_page {
                return Ok((content.finish(), through, true, rows));
            }
            from = page.last().map(|(id, _)| *id);
        }
    }

    fn cuts(&self, database: usize, after: &Place) -> Result<(Vec<u8>, Place, bool, u32), NodeError> {
        let name = &self.plan.databases[database].name;
        let mut origin = [0; 16];
        origin.copy_from_slice(&after[1..17]);
        let mut seq = [0; 8];
        seq.copy_from_slice(&after[17..25]);
        let mut page = self.read.cuts_page(name, (OriginId(origin), u64::from_be_bytes(seq)), PAGE)?;
        let ends = page.len() < PAGE;
        let mut entries = 0;
        let kept = page.iter().take_while(|(_, _, cut)| {
            entries += 1 + cut.dots.len();
            entries < SNAPSHOT_PART_BYTES_TARGET / 16
        });
        let kept = kept.count().max(1);
        let ends = ends && kept >= page.len();
        page.truncate(kept);
        let mut through = *after;
        if let Some((origin, seq, _)) = page.last() {
            through[0] = 1;
            through[1..17].copy_from_slice(&origin.0);
            through[17..25].copy_from_slice(&seq.to_be_bytes());
        }
        Ok((snapshot_cuts::encode(&page), through, ends, 0))
    }
}

/// Whether the record alone tells what the file shows of a visible row.
fn is_plain(row: &Row) -> bool {
    row.visible()
        && row.bonds.is_none()
        && row.loosened.is_empty()
        && row.cells.iter().all(|state| matches!(state.cell, Cell::Plain(_)))
        && row.whole.is_none()
}

/// Whether a part may end behind this row: the same rows end parts in every snapshot, on every server.
fn is_end(place: &Place) -> bool {
    let hash = place
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    (hash >> 32).is_multiple_of(512)
}

impl Exchange {
    /// Rows that a connected peer would give.
    pub(super) fn offered(&self, peer: &NodeId) -> u64 {
        self.peers.get(peer).filter(|peer| peer.connected).map_or(0, |peer| peer.snapshot_rows)
    }
}
