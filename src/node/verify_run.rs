//! One verification: which tables it goes through, in which passes, a page at a time.
//!
//! | pass      | reads                                   | proves, when nothing changed meanwhile                          |
//! |-----------|-----------------------------------------|-----------------------------------------------------------------|
//! | count     | numbers of rows                         | as many rows as the log shows                                   |
//! | sum       | every row of the file, no row of the log| the sum of their hashes is the one that the log keeps           |
//! | keys      | the file's keys, each asked of the log  | the file has no row that the log does not show                  |
//! | rows      | the file's rows, each asked of the log  | the same, and every row is as the log noted it, range by range  |
//! | state     | the log's rows, each asked of the file  | the log shows no row that the file lacks; at `full`: every      |
//! |           |                                         | record follows from its own cells                               |
//! | structure | what SQLite says of the file            | indexes and constraints hold                                    |
//! | events    | the events of the database              | each has the hash it was stored with                            |
//!
//! count → (differs) keys → state; ids: keys → (counts differ) state; checksum: sum → (differs) rows → state; full: rows,
//! state, then structure and events once. A pass that proves something only for a file at rest, and saw it change, hands
//! over to the next one, which compares row by row and needs no rest. Invariant: a pass names suspects, it never says
//! "drift"; [`super::drift`] does. Caller: [`super::verify`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::drift::Judging;
use super::verify::PAGE_ROWS;
use super::{Node, NodeError, Now};
use crate::log::{LogError, LogRead};
use crate::merge::Evaluator;
use crate::merge::image::image_hash;
use crate::merge::store::{Fingerprint, Store, TableId};
use crate::model::{
    DriftAction, DriftKind, DriftRecord, Key, OriginId, RangeFound, RowId, RunPlace, RunRecord, RunState, Tier,
};
use crate::sqlite::{Inspected, SqliteError};

/// Suspects that are judged together.
const SUSPECTS_MAX: usize = 200;

/// Rows counted at a time.
const COUNT_ROWS: u64 = 20_000;

/// Events read at a time.
const EVENTS_PAGE: usize = 200;

/// Ranges that a run names.
const RANGES_MAX: usize = 50;

/// Findings of SQLite that a run names.
const STRUCTURE_MAX: u32 = 20;

/// A pass over a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    Count = 1,
    Sum = 2,
    Keys = 3,
    Rows = 4,
    State = 5,
}

impl Pass {
    fn numbered(number: u8) -> Option<Pass> {
        [Pass::Count, Pass::Sum, Pass::Keys, Pass::Rows, Pass::State].into_iter().find(|pass| *pass as u8 == number)
    }
}

/// A table under way.
pub(super) struct Scan {
    pub(super) table: String,
    tier: Tier,
    pass: Pass,
    after_key: Option<Key>,
    after_row: Option<RowId>,
    /// What the log kept of the table when the pass began.
    base: Fingerprint,
    /// Sum and number of what the pass has seen.
    seen: Fingerprint,
    /// The table changed since the pass began, or marks were waiting.
    moved: bool,
    /// Some row was suspected since the table began.
    suspected: bool,
}

/// What is checked once, behind the tables.
enum Last {
    Structure,
    Events { origin: usize, from: u64 },
    Through,
}

/// A verification under way.
pub(super) struct Run {
    pub(super) record: RunRecord,
    /// Tables to come; `None` before it began.
    tables: Option<VecDeque<String>>,
    scan: Option<Scan>,
    last: Last,
    place: Option<RunPlace>,
    /// Rows of the next page.
    pub(super) page_rows: usize,
    /// Keys of the present table that differ, or were marked, and how often they were looked at.
    pub(super) suspects: BTreeMap<Key, (Option<RowId>, u32)>,
    pub(super) judging: Option<Judging>,
    /// Rows whose record does not follow from its cells.
    pub(super) records: BTreeSet<RowId>,
    /// A stop had cut it short: what it found before is not remembered.
    pub(super) resumed: bool,
    /// Records that this run found and that wait for a person.
    pub(super) waiting: BTreeSet<u64>,
    /// Rows of the present table that were taken as the app's.
    pub(super) captured: u64,
    /// Keys of the present table that wait for a person: later passes see them again.
    pub(super) named: BTreeSet<Key>,
}

impl Run {
    pub(super) fn new(record: RunRecord) -> Run {
        Run {
            record,
            tables: None,
            scan: None,
            last: Last::Structure,
            place: None,
            page_rows: PAGE_ROWS.1,
            suspects: BTreeMap::new(),
            judging: None,
            records: BTreeSet::new(),
            resumed: false,
            waiting: BTreeSet::new(),
            captured: 0,
            named: BTreeSet::new(),
        }
    }

    /// A run that a stop cut short.
    pub(super) fn resume(record: RunRecord, place: Option<&RunPlace>) -> Run {
        let place = place.filter(|place| place.run == record.number).cloned();
        Run { place, resumed: true, ..Run::new(record) }
    }

    /// Counts records that were derived again, or wait for it.
    pub(super) fn count_derived(&mut self, records: &[DriftRecord]) {
        let waiting = records.iter().filter(|record| record.action == DriftAction::Waits);
        self.record.drift += records.len() as u64;
        self.record.healed += (records.len() - waiting.clone().count()) as u64;
        self.waiting.extend(waiting.map(|record| record.number));
    }

    /// Where it stands. What is under judgement is found again: the pass begins again where it is in doubt.
    pub(super) fn place(&self) -> RunPlace {
        let scan = self.scan.as_ref();
        let present = scan.map(|scan| scan.table.clone());
        let clear = self.suspects.is_empty() && self.judging.is_none();
        let scan = scan.filter(|scan| clear && matches!(scan.pass, Pass::Keys | Pass::Rows | Pass::State));
        RunPlace {
            run: self.record.number,
            tables: present.into_iter().chain(self.tables.iter().flatten().cloned()).collect(),
            pass: scan.map_or(0, |scan| scan.pass as u8),
            after_key: scan.and_then(|scan| scan.after_key.clone()),
            after_row: scan.and_then(|scan| scan.after_row),
        }
    }

    /// The table under way.
    pub(super) fn table(&self) -> Option<&str> {
        self.scan.as_ref().map(|scan| scan.table.as_str())
    }

    fn suspect(&mut self, key: &Key, row: Option<RowId>) {
        if self.named.contains(key) {
            return;
        }
        let known = self.suspects.entry(key.clone()).or_insert((row, 0));
        known.0 = known.0.or(row);
        if let Some(scan) = &mut self.scan {
            scan.suspected = true;
        }
    }
}

impl Scan {
    fn new(table: String, tier: Tier) -> Scan {
        let pass = match tier {
            Tier::Count => Pass::Count,
            Tier::Ids => Pass::Keys,
            Tier::Checksum => Pass::Sum,
            Tier::Full => Pass::Rows,
        };
        let (base, seen) = (Fingerprint::default(), Fingerprint::default());
        let (after_key, after_row) = (None, None);
        Scan { table, tier, pass, after_key, after_row, base, seen, moved: false, suspected: false }
    }

    fn go_to(&mut self, pass: Pass) {
        self.pass = pass;
        (self.after_key, self.after_row) = (None, None);
        (self.seen, self.moved) = (Fingerprint::default(), false);
    }
}

impl Node {
    /// One step of the present run.
    pub(super) fn run_step(&mut self, position: usize, now: Now) -> Result<(), NodeError> {
        let Some(mut run) = self.verify.run.take() else { return Ok(()) };
        let stepped = self.advance(&mut run, position, now);
        self.verify.run = Some(run);
        if stepped? {
            return self.end_run(RunState::Done, now);
        }
        Ok(())
    }

    /// True: it is through.
    fn advance(&mut self, run: &mut Run, position: usize, now: Now) -> Result<bool, NodeError> {
        if run.judging.is_some() {
            self.judge_step(run, position, now)?;
            return Ok(false);
        }
        if run.tables.is_none() {
            self.begin_tables(run, position, now)?;
            self.verify.spent(50, now);
            return Ok(false);
        }
        if run.scan.is_none() && !self.next_table(run, position) {
            return self.last_step(run, position, now);
        }
        let table = run.table().unwrap_or_default().to_string();
        let read = match self.page(run, position, now) {
            Ok(read) => read,
            Err(NodeError::Sqlite(error @ (SqliteError::Corrupt { .. } | SqliteError::NotADatabase { .. }))) => {
                crate::sometimes!("verify: SQLite cannot read a table");
                self.note_unreadable(run, (position, &table), &error.to_string(), now)?;
                run.scan = None;
                1
            }
            // The app dropped it since: the next look at the schema says so.
            Err(NodeError::Sqlite(SqliteError::UnknownTable(_))) => {
                run.scan = None;
                1
            }
            Err(error) => return Err(error),
        };
        run.record.rows += read;
        self.verify.spent(read + 10, now);
        let judged = run.suspects.len() >= SUSPECTS_MAX || run.scan.is_none();
        if judged && !(run.suspects.is_empty() && run.records.is_empty()) {
            run.judging = Some(Judging::new(table));
        }
        Ok(false)
    }

    fn begin_tables(&mut self, run: &mut Run, position: usize, now: Now) -> Result<(), NodeError> {
        // What SQLite remembers of the file says nothing about the disk.
        self.databases[position].file.forget_pages()?;
        let place = run.place.take();
        let schema = &self.schemas[position];
        let wanted = |table: &str| self.verify.settings.tier_of(run.record.tier, &schema.database, table).is_some();
        let mut tables: VecDeque<String> =
            schema.tables.iter().map(|table| table.name.clone()).filter(|table| wanted(table)).collect();
        if let Some(place) = &place {
            tables.retain(|table| place.tables.contains(table));
        }
        let read = self.log.read()?;
        run.record.rows_wanted = run.record.rows;
        for table in &tables {
            let id = read.find_table(&schema.database, table)?;
            let rows = id.map(|id| read.fingerprint(id)).transpose()?.unwrap_or_default().rows;
            run.record.rows_wanted += if run.record.tier == Tier::Full { rows * 2 } else { rows };
        }
        drop(read);
        if let Some(place) = place.filter(|place| place.tables.first() == tables.front())
            && let (Some(pass), Some(table)) = (Pass::numbered(place.pass), tables.front().cloned())
        {
            crate::sometimes!("verify: a run goes on where a stop had cut it short");
            tables.pop_front();
            let mut scan = self.scan_of(run, position, table);
            scan.go_to(pass);
            (scan.after_key, scan.after_row) = (place.after_key, place.after_row);
            // What came before the stop was not summed: only rows are compared, and the other way round too.
            (scan.moved, scan.suspected) = (true, true);
            run.scan = Some(scan);
        }
        run.tables = Some(tables);
        self.note_dropped(run, position, now)
    }

    fn scan_of(&self, run: &Run, position: usize, table: String) -> Scan {
        let database = &self.schemas[position].database;
        let tier = self.verify.settings.tier_of(run.record.tier, database, &table).unwrap_or(run.record.tier);
        Scan::new(table, tier)
    }

    /// False: there is none.
    fn next_table(&mut self, run: &mut Run, position: usize) -> bool {
        let Some(table) = run.tables.as_mut().and_then(VecDeque::pop_front) else { return false };
        run.record.tables += 1;
        run.captured = 0;
        run.named.clear();
        run.scan = Some(self.scan_of(run, position, table));
        true
    }

    /// Reads one page. Returns the number of rows.
    fn page(&mut self, run: &mut Run, position: usize, now: Now) -> Result<u64, NodeError> {
        let Some(scan) = &mut run.scan else { return Ok(0) };
        let read = self.log.read()?;
        let id = read.find_table(&self.schemas[position].database, &scan.table)?;
        let kept = id.map(|id| read.fingerprint(id)).transpose()?.unwrap_or_default();
        if scan.after_key.is_none() && scan.after_row.is_none() && scan.seen == Fingerprint::default() {
            scan.base = kept;
        }
        scan.moved |= scan.base != kept;
        match scan.pass {
            Pass::Count => self.count_page(run, position, kept),
            Pass::Sum => self.sum_page(run, position, kept),
            Pass::Keys => self.key_page(run, position, (&read, id), kept),
            Pass::Rows => self.row_page(run, position, (&read, id), kept),
            Pass::State => {
                drop(read);
                self.state_page(run, position, id, now)
            }
        }
    }

    fn count_page(&mut self, run: &mut Run, position: usize, kept: Fingerprint) -> Result<u64, NodeError> {
        let Some(scan) = &mut run.scan else { return Ok(0) };
        let file = &self.databases[position].file;
        let (counted, last, marks) = file.inspect_count(&scan.table, scan.after_key.as_ref(), COUNT_ROWS)?;
        scan.seen.rows += counted;
        scan.moved |= marks;
        scan.after_key = last;
        if scan.after_key.is_none() {
            let equal = scan.seen.rows == kept.rows && !scan.moved;
            crate::sometimes!(!equal, "verify: numbers of rows differ, or move, and keys are compared");
            if equal { run.scan = None } else { scan.go_to(Pass::Keys) }
        }
        // Counting is some forty times cheaper than reading.
        Ok(counted / 40)
    }

    fn sum_page(&mut self, run: &mut Run, position: usize, kept: Fingerprint) -> Result<u64, NodeError> {
        let limit = run.page_rows;
        let Some(scan) = &mut run.scan else { return Ok(0) };
        let found = self.databases[position].file.inspect_page(&scan.table, scan.after_key.as_ref(), limit)?;
        scan.moved |= !found.marked.is_empty();
        for (_, image) in &found.rows {
            scan.seen.add(&image_hash(&scan.table, image.as_deref().unwrap_or_default()));
        }
        scan.after_key = found.rows.last().map(|(key, _)| key.clone()).or(scan.after_key.take());
        if found.at_end || scan.moved {
            let equal = scan.seen == kept && !scan.moved;
            crate::sometimes!(!equal, "verify: sums differ, or move, and rows are compared");
            if equal { run.scan = None } else { scan.go_to(Pass::Rows) }
        }
        Ok(found.rows.len() as u64)
    }

    fn key_page(
        &mut self,
        run: &mut Run,
        position: usize,
        (read, id): (&LogRead, Option<TableId>),
        kept: Fingerprint,
    ) -> Result<u64, NodeError> {
        let limit = run.page_rows * 2;
        let Some(scan) = &run.scan else { return Ok(0) };
        let found = self.databases[position].file.inspect_keys(&scan.table, scan.after_key.as_ref(), limit)?;
        for (key, _) in &found.rows {
            let row = id.map(|id| read.shown(id, key)).transpose()?.flatten();
            if row.is_none() || found.marked.contains(key) {
                run.suspect(key, row);
            }
        }
        self.end_page(run, &found, kept);
        Ok(found.rows.len() as u64 / 2 + 1)
    }

    fn row_page(
        &mut self,
        run: &mut Run,
        position: usize,
        (read, id): (&LogRead, Option<TableId>),
        kept: Fingerprint,
    ) -> Result<u64, NodeError> {
        let limit = run.page_rows;
        let Some(scan) = &run.scan else { return Ok(0) };
        let table = scan.table.clone();
        let found = self.databases[position].file.inspect_page(&table, scan.after_key.as_ref(), limit)?;
        let (mut there, mut here) = (Fingerprint::default(), Fingerprint::default());
        let mut differing = Vec::new();
        for (key, image) in &found.rows {
            let hash = image_hash(&table, image.as_deref().unwrap_or_default());
            there.add(&hash);
            let row = id.map(|id| read.shown(id, key)).transpose()?.flatten();
            let noted = match row.map(|row| read.row(&row)).transpose() {
                Ok(record) => record.flatten().map(|record| record.image_hash),
                Err(LogError::CorruptRecord { .. }) => None,
                Err(error) => return Err(error.into()),
            };
            if let Some(noted) = &noted {
                here.add(noted);
            }
            if noted != Some(hash) || found.marked.contains(key) {
                differing.push((key.clone(), row));
            }
        }
        if there != here && run.record.ranges.len() < RANGES_MAX {
            let ends = found.rows.first().zip(found.rows.last());
            let range = ends.map(|((first, _), (last, _))| {
                let rows = found.rows.len() as u64;
                RangeFound { table, first: first.clone(), last: last.clone(), rows }
            });
            run.record.ranges.extend(range);
        }
        for (key, row) in differing {
            run.suspect(&key, row);
        }
        self.end_page(run, &found, kept);
        Ok(found.rows.len() as u64)
    }

    /// Behind a page of the file's own keys or rows.
    fn end_page(&self, run: &mut Run, found: &Inspected, kept: Fingerprint) {
        let Some(scan) = &mut run.scan else { return };
        scan.seen.rows += found.rows.len() as u64;
        scan.moved |= !found.marked.is_empty();
        scan.after_key = found.rows.last().map(|(key, _)| key.clone()).or(scan.after_key.take());
        if found.at_end {
            // As many rows as the log shows, and each of them is shown: none is missing.
            let all_there = scan.seen.rows == kept.rows && !scan.moved && !scan.suspected;
            if all_there && scan.tier != Tier::Full { run.scan = None } else { scan.go_to(Pass::State) }
        }
    }

    fn state_page(&mut self, run: &mut Run, position: usize, id: Option<TableId>, now: Now) -> Result<u64, NodeError> {
        let Some(scan) = &run.scan else { return Ok(0) };
        let (Some(id), limit, tier) = (id, run.page_rows, scan.tier) else {
            run.scan = None;
            return Ok(1);
        };
        let table = scan.table.clone();
        let read = self.log.read()?;
        let rows = read.rows_of(id, scan.after_row, limit)?;
        let mut shown: Vec<(Key, RowId, [u8; 32])> = Vec::new();
        for row in &rows {
            match read.row(row) {
                Ok(record) => {
                    let record = record.and_then(|record| Some((record.shown?, record.image_hash)));
                    if let Some((key, hash)) =
                        record.filter(|(key, _)| matches!(read.shown(id, key), Ok(Some(at)) if at == *row))
                    {
                        shown.push((key, *row, hash));
                    }
                }
                Err(LogError::CorruptRecord { .. }) => {
                    run.records.insert(*row);
                }
                Err(error) => return Err(error.into()),
            }
        }
        drop(read);
        let keys: Vec<Key> = shown.iter().map(|(key, ..)| key.clone()).collect();
        let found = self.databases[position].file.inspect_rows(&table, &keys)?;
        for ((key, row, hash), (_, image)) in shown.iter().zip(&found.rows) {
            let equal = match image {
                None => false,
                Some(image) => tier < Tier::Checksum || image_hash(&table, image) == *hash,
            };
            if !equal || found.marked.contains(key) {
                run.suspect(key, Some(*row));
            }
        }
        if tier == Tier::Full && self.applied_all() {
            self.compute_again(run, position, &rows, now)?;
        }
        let Some(scan) = &mut run.scan else { return Ok(0) };
        shown.iter().for_each(|(_, _, hash)| scan.seen.add(hash));
        scan.after_row = rows.last().copied();
        if rows.len() < limit {
            // The sum that the log keeps is one of its records too.
            if tier == Tier::Full
                && !scan.moved
                && scan.after_row.is_some()
                && scan.seen != scan.base
                && !scan.suspected
            {
                let sum = scan.seen;
                self.put_sum_right(run, (position, &table), (id, sum), now)?;
            }
            run.scan = None;
        }
        Ok(rows.len() as u64 + 1)
    }

    /// What each record evaluates to, against what it notes as shown.
    fn compute_again(&mut self, run: &mut Run, position: usize, rows: &[RowId], now: Now) -> Result<(), NodeError> {
        let mut write = self.log.write()?;
        let dirty: BTreeSet<RowId> = write.dirty(&self.schemas[position].database)?.into_iter().collect();
        let mut evaluator = Evaluator::new(&mut write, &self.ranks, &self.schemas, now.wall_ms);
        for row in rows.iter().filter(|row| !dirty.contains(*row)) {
            if run.records.contains(row) {
                continue;
            }
            match evaluator.presentation(row) {
                Ok(None) => {}
                Ok(Some(_)) => {
                    run.records.insert(*row);
                }
                // A row that this one refers to: it is named by itself.
                Err(LogError::CorruptRecord { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// What is checked once behind the tables. True: the run is through.
    fn last_step(&mut self, run: &mut Run, position: usize, now: Now) -> Result<bool, NodeError> {
        self.verify.spent(100, now);
        if run.record.tier != Tier::Full {
            return Ok(self.confirmed(run));
        }
        match run.last {
            Last::Structure => {
                run.last = Last::Events { origin: 0, from: 1 };
                self.note_triggers(run, position, now)?;
                match self.databases[position].file.check_structure(STRUCTURE_MAX) {
                    Ok(None) => run.record.notes.push(
                        "the file is too large to have its indexes checked by the way: PRAGMA integrity_check in a quiet hour"
                            .to_string(),
                    ),
                    Ok(Some(found)) if found.is_empty() => {}
                    Ok(Some(found)) => self.note_structure(run, position, &found, now)?,
                    Err(SqliteError::Busy) => return Err(SqliteError::Busy.into()),
                    Err(error) => self.note_structure(run, position, &[error.to_string()], now)?,
                }
                Ok(false)
            }
            Last::Events { origin, from } => {
                run.last = self.event_page(run, position, (origin, from), now)?;
                Ok(false)
            }
            Last::Through => {
                self.close_equal(run, now)?;
                Ok(self.confirmed(run))
            }
        }
    }

    fn event_page(
        &mut self,
        run: &mut Run,
        position: usize,
        (origin, mut from): (usize, u64),
        now: Now,
    ) -> Result<Last, NodeError> {
        let origins: Vec<OriginId> = self.heads.keys().copied().collect();
        let Some(id) = origins.get(origin) else { return Ok(Last::Through) };
        let name = self.schemas[position].database.clone();
        let read = self.log.read()?;
        for _ in 0..EVENTS_PAGE {
            match read.next_of_database(id, from, &name) {
                Ok(None) => return Ok(Last::Events { origin: origin + 1, from: 1 }),
                Ok(Some((seq, _))) => from = seq + 1,
                Err(LogError::CorruptEvent { origin, seq }) => {
                    crate::sometimes!("verify: an event of the log is damaged");
                    self.note_event(run, position, (origin, seq), now)?;
                    from = seq + 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Last::Events { origin, from })
    }

    /// Whether all that the run healed was seen equal; a run waits for it a while.
    fn confirmed(&mut self, run: &mut Run) -> bool {
        let left = self.verify.confirm.iter().filter(|confirm| confirm.run == run.record.number).count();
        left == 0
    }

    /// The record that says what was found in which run.
    pub(super) fn kind_of(image: Option<&Vec<crate::model::Value>>, row: Option<RowId>) -> DriftKind {
        match (image, row) {
            (None, _) => DriftKind::Missing,
            (Some(_), None) => DriftKind::Unknown,
            (Some(_), Some(_)) => DriftKind::Changed,
        }
    }
}
