//! Filling the app's files from the parts that were kept aside.
//!
//! Files that others refer to come first, and in a file the tables that others refer to. One part is one write transaction: a
//! few milliseconds of the app's lock; where the app writes meanwhile, pauses leave it more than half of the time.
//! States of a file: no row, no triggers → triggers (from here on every write of the app is marked) → filled up to a place
//! (which the file itself notes) → shows all, with the cut. Invariant: before the first row all rows that stand there are
//! marked ones of the app; no row of the app is touched. Caller: [`super`].

use std::collections::BTreeSet;

use super::take::Taking;
use super::{Node, NodeError, Now};
use crate::log::SnapshotStage;
use crate::model::{Cut, DatabaseSchema, Key, RowId};
use crate::node::Effect;
use crate::node::genesis;
use crate::sqlite::{Image, MarkOp, SqliteError};
use crate::wire::snapshot::{Place, SnapshotPart, SnapshotPlan};
use crate::wire::snapshot_rows::{Layout, Rows, SnapshotRow};

/// Parts written in one step.
const PARTS_PER_STEP: usize = 4;

/// A pause while the app writes, ms.
const PAUSE_MS: u64 = 5;

/// Parts between two checkpoints.
const PARTS_PER_CHECKPOINT: u64 = 64;

/// Rows that the app may have written before the filling begins.
const OWN_ROWS_MAX: usize = 10_000;

/// Where the filling stands.
pub(super) struct Fill {
    files: Vec<File>,
    /// The file that is filled now, and the section of it.
    file: usize,
    at: usize,
    after: Place,
    parts: u64,
    version: Option<i64>,
}

struct File {
    position: usize,
    sections: Vec<u32>,
    begun: bool,
}

/// How a step of filling ended.
enum Filled {
    /// There is more.
    More,
    /// All files show all.
    All,
    /// The snapshot is no use here.
    Useless(&'static str),
}

impl Node {
    pub(super) fn step_filling(&mut self, now: Now) -> Result<(), NodeError> {
        if self.snapshots.taking.as_ref().is_some_and(|taking| taking.fill.is_none()) {
            for database in &mut self.databases {
                if database.file.is_enrolled()? {
                    database.file.enroll()?;
                }
            }
            if !self.fits_plan() {
                return self.leave_to_events("the app changed its tables", now);
            }
            let fill = self.where_filled()?;
            if let Some(taking) = &mut self.snapshots.taking {
                taking.fill = Some(fill);
            }
        }
        for _ in 0..PARTS_PER_STEP {
            let Some(position) = self.file_to_fill() else { return self.filled(now) };
            if self.databases[position].doubted || self.databases[position].is_busy(now) {
                return Ok(());
            }
            match self.fill_some(position, now) {
                Ok(Filled::More) => self.databases[position].was_free(),
                Ok(Filled::All) => return self.filled(now),
                Ok(Filled::Useless(why)) => return self.leave_to_events(why, now),
                Err(NodeError::Sqlite(SqliteError::Busy)) => {
                    self.databases[position].was_busy(now);
                    return Ok(());
                }
                // It was opened again meanwhile, or is another one: what it notes counts.
                Err(NodeError::Sqlite(SqliteError::NotEnrolled)) => {
                    if let Some(taking) = &mut self.snapshots.taking {
                        taking.fill = None;
                    }
                    self.due = true;
                    return Ok(());
                }
                Err(NodeError::Sqlite(SqliteError::SchemaChanged | SqliteError::WentBack)) => {
                    return self.leave_to_events("the app changed its tables", now);
                }
                Err(NodeError::Sqlite(error)) => {
                    self.database_trouble(position, &error, now);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.leave_room(now)
    }

    /// Whether the files still have the tables that the snapshot is of.
    pub(super) fn fits_plan(&self) -> bool {
        let plan = self.snapshots.taking.as_ref().and_then(|taking| taking.plan.as_ref());
        let fits = |schema: &DatabaseSchema| {
            let mut planned = plan.iter().flat_map(|plan| &plan.databases);
            planned.any(|planned| planned.name == schema.database && planned.schema == schema.fingerprint)
        };
        let shown = self.databases.iter().map(|database| database.file.schema());
        self.schemas.iter().chain(shown).all(fits)
    }

    /// While the app writes, it gets the larger part of the time.
    fn leave_room(&mut self, now: Now) -> Result<(), NodeError> {
        let Some(position) = self.file_to_fill() else { return Ok(()) };
        let version = self.databases[position].file.data_version()?;
        let Some(taking) = &mut self.snapshots.taking else { return Ok(()) };
        let Some(fill) = &mut taking.fill else { return Ok(()) };
        let wrote = fill.version.replace(version).is_some_and(|before| before != version);
        self.due |= !wrote;
        if wrote {
            crate::sometimes!("snapshot: the filling pauses while the app writes");
            taking.pause_until_ms = now.mono_ms + PAUSE_MS;
        }
        Ok(())
    }

    fn file_to_fill(&self) -> Option<usize> {
        let fill = self.snapshots.taking.as_ref()?.fill.as_ref()?;
        fill.files.get(fill.file).map(|file| file.position)
    }

    /// The order, and how far the files themselves say that they are.
    fn where_filled(&self) -> Result<Fill, NodeError> {
        let mut fill = Fill { files: Vec::new(), file: 0, at: 0, after: [0; 29], parts: 0, version: None };
        let Some(plan) = self.snapshots.taking.as_ref().and_then(|taking| taking.plan.as_ref()) else {
            return Ok(fill);
        };
        for position in self.parents_first() {
            let schema = &self.schemas[position];
            let number = |name: &str| {
                (0..plan.tables()).find(|number| {
                    plan.table(*number).is_some_and(|(database, table)| {
                        database.name == schema.database && table.name.eq_ignore_ascii_case(name)
                    })
                })
            };
            let tables = genesis::parents_first(schema);
            let sections = tables.into_iter().filter_map(|table| number(&schema.tables[table].name));
            let sections: Vec<u32> = sections.map(|number| number as u32).collect();
            let noted = self.databases[position].file.filled()?.and_then(|words| place_in(&words, plan));
            let begun = noted.is_some();
            if let Some((at, after)) = noted {
                let done = at >= sections.len();
                if fill.file == fill.files.len() {
                    (fill.file, fill.at, fill.after) =
                        if done { (fill.files.len() + 1, 0, [0; 29]) } else { (fill.files.len(), at, after) };
                }
            }
            fill.files.push(File { position, sections, begun });
        }
        Ok(fill)
    }

    /// One part, or the end of a file.
    fn fill_some(&mut self, position: usize, now: Now) -> Result<Filled, NodeError> {
        let Some(taking) = &self.snapshots.taking else { return Ok(Filled::All) };
        let (Some(fill), Some(plan)) = (&taking.fill, &taking.plan) else { return Ok(Filled::All) };
        let (plan_id, place) = (plan.id, fill.after);
        let file = &fill.files[fill.file];
        if !file.begun {
            if let Some(useless) = self.begin_filling(position)? {
                return Ok(useless);
            }
            self.fill_mut(|fill| fill.files[fill.file].begun = true);
            return Ok(Filled::More);
        }
        let next = file.sections.get(fill.at).copied();
        let Some(section) = next else { return self.end_file(position, plan_id, now) };
        let read = self.log.read()?;
        let Some(part) = read.snapshot_part(section, &place)? else {
            return Ok(Filled::Useless("a part of it is gone"));
        };
        let content = SnapshotPart::unpack(&read.snapshot_bytes(section, &place)?, part.unpacked, &part.content);
        let Some(rows) = content.ok().and_then(|content| self.shown_rows(section, &content)) else {
            return Ok(Filled::Useless("a part of it is damaged"));
        };
        drop(read);
        let Some((_, table)) = plan.table(section as usize) else { return Ok(Filled::Useless("its plan is damaged")) };
        let (at, after) = if part.ends { (fill.at + 1, [0; 29]) } else { (fill.at, part.through) };
        let words = words_of(&plan_id, at, &after);
        let mut transaction = self.databases[position].file.begin_apply()?;
        let refused = transaction.fill(&table.name, rows.iter().map(|(_, key, image)| (key, image)))?;
        if !refused.is_empty() {
            crate::sometimes!("snapshot: the app took the place of a row");
            let mut write = self.log.write()?;
            for at in refused {
                write.put_snapshot_aside(&rows[at].0)?;
            }
            write.commit_durable()?;
        }
        transaction.note_filled(&words)?;
        transaction.commit(&Cut::default())?;
        if let Some(taking) = &mut self.snapshots.taking {
            taking.records += u64::from(part.rows);
        }
        let parts = self.fill_mut(|fill| {
            (fill.at, fill.after, fill.parts) = (at, after, fill.parts + 1);
            fill.parts
        });
        if parts.is_some_and(|parts| parts.is_multiple_of(PARTS_PER_CHECKPOINT)) {
            self.databases[position].file.checkpoint()?;
        }
        Ok(Filled::More)
    }

    fn fill_mut<T>(&mut self, change: impl FnOnce(&mut Fill) -> T) -> Option<T> {
        self.snapshots.taking.as_mut().and_then(|taking| taking.fill.as_mut()).map(change)
    }

    /// The rows of a content that the file shows, with their keys; `None`: it makes no sense.
    fn shown_rows(&self, section: u32, content: &[u8]) -> Option<Vec<(RowId, Key, Image)>> {
        let mut shown = Vec::new();
        let layout = self.layout_of(section)?;
        let schema = layout.schema?;
        let mut rows = Rows::new(content).ok()?;
        while let Some((id, row, image)) = rows.next(&layout).ok()? {
            shown.extend(image.map(|image| (id, schema.key_of(&image, row.id), image)));
        }
        Some(shown)
    }

    /// The layout of a section's rows here: tables have the giver's numbers.
    pub(super) fn layout_of(&self, section: u32) -> Option<Layout<'_>> {
        let plan = self.snapshots.taking.as_ref()?.plan.as_ref()?;
        let (database, table) = plan.table(section as usize)?;
        let schema = self.schemas.iter().find(|schema| schema.database == database.name);
        let schema = schema.and_then(|schema| schema.table(&table.name));
        Some(Layout::new(super::load::number_of(plan, section), schema, &table.columns))
    }

    /// Installs the triggers. Rows that stand there afterwards must be marked: what came in between is not known.
    fn begin_filling(&mut self, position: usize) -> Result<Option<Filled>, NodeError> {
        let enrolled = self.databases[position].file.is_enrolled()?;
        if !enrolled && self.databases[position].file.has_rows()? {
            return Ok(Some(Filled::Useless("rows of this server's own stand in its files")));
        }
        self.databases[position].file.enroll()?;
        let fits = self.databases[position].file.schema().fingerprint == self.schemas[position].fingerprint;
        if !fits {
            return Ok(Some(Filled::Useless("the app changed its tables")));
        }
        self.schemas[position] = self.databases[position].file.schema().clone();
        self.all_scanned(position)?;
        self.databases[position].file.schema_seen()?;
        let file = &mut self.databases[position].file;
        let drain = file.drain()?;
        let inserted = drain.marks.iter().filter(|mark| mark.op == MarkOp::Insert);
        let marked: BTreeSet<(&str, &Key)> = inserted.map(|mark| (mark.table.as_str(), &mark.key)).collect();
        for table in &self.schemas[position].tables {
            let rows = self.databases[position].file.scan_page(&table.name, None, OWN_ROWS_MAX)?;
            let known = rows.iter().all(|(key, _)| marked.contains(&(table.name.as_str(), key)));
            if !known || rows.len() == OWN_ROWS_MAX {
                return Ok(Some(Filled::Useless("rows of this server's own stand in its files")));
            }
        }
        Ok(None)
    }

    /// The file shows all: it says so, with the cut.
    fn end_file(&mut self, position: usize, plan_id: [u8; 16], now: Now) -> Result<Filled, NodeError> {
        let Some(taking) = &self.snapshots.taking else { return Ok(Filled::All) };
        let Some((fill, plan)) = taking.fill.as_ref().zip(taking.plan.as_ref()) else { return Ok(Filled::All) };
        let name = &self.schemas[position].database;
        let planned = plan.databases.iter().find(|planned| planned.name == *name);
        let shown = planned.map(|planned| planned.shown.clone()).unwrap_or_default();
        let words = words_of(&plan_id, fill.at, &[0xff; 29]);
        let database = &mut self.databases[position];
        let mut transaction = database.file.begin_apply()?;
        transaction.filled_all()?;
        transaction.note_filled(&words)?;
        transaction.commit(&shown)?;
        database.plan_chores(now);
        self.effects.push_back(Effect::Applied(position));
        let more = self.fill_mut(|fill| {
            (fill.file, fill.at, fill.after, fill.version) = (fill.file + 1, 0, [0; 29], None);
            fill.file < fill.files.len()
        });
        Ok(if more == Some(true) { Filled::More } else { Filled::All })
    }

    /// All files show all: usable.
    fn filled(&mut self, now: Now) -> Result<(), NodeError> {
        let Some(taking) = &mut self.snapshots.taking else { return Ok(()) };
        begin_loading(taking);
        let mut write = self.log.write()?;
        write.put_snapshot_note(&taking.note())?;
        write.commit_durable()?;
        if let Some(joined) = &mut self.snapshots.joined {
            joined.usable_ms = Some(now.mono_ms);
            tracing::info!(rows = joined.rows, "the files show all rows of the cluster: usable");
        }
        self.due = true;
        Ok(())
    }
}

fn begin_loading(taking: &mut Taking) {
    taking.fill = None;
    (taking.stage, taking.section, taking.after, taking.records) = (SnapshotStage::Loading, 0, [0; 29], 0);
}

/// What a file notes: whose rows, the section in its order, the place in it.
fn words_of(plan: &[u8; 16], at: usize, after: &Place) -> String {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    format!("{} {at} {}", hex(plan), hex(after))
}

/// The place that a file notes, if it is one of this snapshot.
fn place_in(words: &str, plan: &SnapshotPlan) -> Option<(usize, Place)> {
    let (id, rest) = words.split_once(' ')?;
    let (at, after) = rest.split_once(' ')?;
    let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
    let after: Place = hex(after)?.try_into().ok()?;
    let at: usize = at.parse().ok()?;
    // The end of a file is noted apart from the end of its last table: without it the cut is not in the file.
    let at = if after == [0xff; 29] { usize::MAX } else { at };
    (hex(id)? == plan.id).then_some((at, after))
}

/// The rows of a content with all that the evaluator knows.
pub(super) fn all_rows(layout: &Layout<'_>, content: &[u8]) -> Option<Vec<SnapshotRow>> {
    let mut all = Vec::new();
    let mut rows = Rows::new(content).ok()?;
    while let Some(row) = rows.next(layout).ok()? {
        all.push(row);
    }
    Some(all)
}
