//! Loading: the evaluator's records and indexes, from the same parts that the files were filled from.
//!
//! Some parts in a commit, the place reached in it. Tables get the giver's numbers, because columns are named by number in the
//! records. A row that the file could not take is loaded as one that is still to be written: apply brings it, after what the
//! app wrote was captured. The last commit is the moment of joining: cursor, note of the file, the heads whose bodies are to
//! come; everything kept aside goes in it. Invariant: until then no database is ready, so nothing reads half a state.
//! Whatever else is kept with every write of a row must be made for loaded rows too: `LogWrite::load_rows` is the one place.
//! Caller: [`super`].

use std::collections::BTreeSet;

use super::fill::all_rows;
use super::{Node, NodeError, Now};
use crate::log::{LoadedTable, LogWrite, Tail, Tails};
use crate::merge::image::image_hash;
use crate::merge::store::{Row, TableId};
use crate::model::{Head, RowId};
use crate::node::recover::note_enrolled;
use crate::wire::snapshot::{SnapshotPart, SnapshotPlan};
use crate::wire::snapshot_cuts;

/// Parts in one commit.
const PARTS_PER_STEP: usize = 4;

/// The number that a plan's table has in the log: the giver's.
pub(super) fn number_of(plan: &SnapshotPlan, section: u32) -> TableId {
    debug_assert!((section as usize) < plan.tables());
    TableId(section)
}

impl Node {
    pub(super) fn step_loading(&mut self, now: Now) -> Result<(), NodeError> {
        let Some(taking) = &self.snapshots.taking else { return Ok(()) };
        let Some(plan) = taking.plan.clone() else { return self.leave_to_events("its plan is gone", now) };
        if !self.fits_plan() {
            return self.leave_to_events("the app changed its tables", now);
        }
        let Some(taking) = &self.snapshots.taking else { return Ok(()) };
        let (mut section, mut after, mut records) = (taking.section, taking.after, taking.records);
        let read = self.log.read()?;
        let aside: BTreeSet<RowId> = read.snapshot_aside()?.into_iter().collect();
        let mut write = self.log.write()?;
        if (section, after) == (0, [0; 29]) && !write.load_tables(&loaded_tables(&plan))? {
            drop(write);
            return self.leave_to_events("tables have other numbers here", now);
        }
        let mut damaged = false;
        for _ in 0..PARTS_PER_STEP {
            if section as usize >= plan.sections() {
                break;
            }
            let part = read.snapshot_part(section, &after)?;
            let Some(part) = part else {
                damaged = true;
                break;
            };
            let content = SnapshotPart::unpack(&read.snapshot_bytes(section, &after)?, part.unpacked, &part.content);
            let content = content.ok();
            if content.and_then(|content| self.load_part(&mut write, &plan, section, &content, &aside)).is_none() {
                damaged = true;
                break;
            }
            records += u64::from(part.rows);
            (section, after) = if part.ends { (section + 1, [0; 29]) } else { (section, part.through) };
        }
        drop(read);
        if damaged {
            drop(write);
            return self.leave_to_events("a part of it is damaged", now);
        }
        let Some(taking) = &mut self.snapshots.taking else { return Ok(()) };
        (taking.section, taking.after, taking.records) = (section, after, records);
        if (section as usize) < plan.sections() {
            write.put_snapshot_note(&taking.note())?;
            write.commit_relaxed()?;
            self.due = true;
            return Ok(());
        }
        write.commit_relaxed()?;
        self.join(&plan, now)
    }

    /// Loads one part. `None`: it makes no sense, or the store failed; nothing of the transaction may be committed then.
    fn load_part(
        &self,
        write: &mut LogWrite<'_>,
        plan: &SnapshotPlan,
        section: u32,
        content: &[u8],
        aside: &BTreeSet<RowId>,
    ) -> Option<()> {
        if let Some(database) = (section as usize).checked_sub(plan.tables()) {
            let cuts = snapshot_cuts::decode(content).ok()?;
            return write.load_cuts(&plan.databases[database].name, &cuts).ok();
        }
        let layout = self.layout_of(section)?;
        let (_, table) = plan.table(section as usize)?;
        let mut loaded: Vec<(RowId, Row)> = Vec::new();
        for (id, mut row, image) in all_rows(&layout, content)? {
            if let (Some(image), Some(schema), false) = (&image, layout.schema, aside.contains(&id)) {
                row.shown = Some(schema.key_of(image, row.id));
                row.image_hash = image_hash(&table.name, image);
            }
            loaded.push((id, row));
        }
        write.load_rows(layout.table, &loaded).ok()
    }

    /// The state is loaded and the files show it: from here on this node is as any other.
    fn join(&mut self, plan: &SnapshotPlan, now: Now) -> Result<(), NodeError> {
        let mut write = self.log.write()?;
        for database in &mut self.databases {
            let name = database.settings.name.clone();
            let planned = plan.databases.iter().find(|planned| planned.name == name);
            let cursor = planned.map(|planned| planned.shown.clone()).unwrap_or_default();
            // The file must be safe before the log says so.
            let epoch = database.file.fence()?;
            note_enrolled(&mut write, &name, &database.file)?;
            write.put_cursor(&name, &cursor, epoch)?;
            database.cursor = cursor;
        }
        let held = |head: &Head| self.heads.get(&head.origin.id()).map_or(0, |own| own.seq);
        let tails: Tails = plan
            .heads
            .iter()
            .map(|head| (head.origin.id(), Tail::new(*head)))
            .filter(|(_, tail)| tail.is_open(held(&tail.base)))
            .collect();
        write.put_tails(&tails)?;
        write.drop_snapshot()?;
        self.clock.absorb(plan.clock, now.wall_ms);
        write.put_clock(self.clock.last())?;
        write.commit_durable()?;
        crate::sometimes!("snapshot: a node joins with one");
        self.relaxed = false;
        self.exchange.tails = tails;
        self.snapshots.taking = None;
        self.exchange.paused = false;
        self.rank_origins();
        for position in 0..self.databases.len() {
            let lost = self.lost_of(&self.databases[position].file.meta()?);
            let database = &mut self.databases[position];
            (database.adopt_by_ms, database.ready, database.behind) = (None, true, true);
            (database.lost, database.data_version) = (lost, None);
            database.touch(now);
        }
        if let Some(joined) = &mut self.snapshots.joined {
            joined.joined_ms = Some(now.mono_ms);
        }
        self.due = true;
        Ok(())
    }
}

fn loaded_tables(plan: &SnapshotPlan) -> Vec<LoadedTable> {
    let table = |number: usize| {
        plan.table(number).map(|(database, table)| LoadedTable {
            database: database.name.clone(),
            table: table.name.clone(),
            columns: table.columns.clone(),
            rules: table.rules.clone(),
        })
    };
    (0..plan.tables()).filter_map(table).collect()
}
