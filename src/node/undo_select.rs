//! Which changes an undo means, which rows they touched, and both states of those rows: with them and without.
//!
//! Only the named rows (and those that links make one with them) are evaluated, so memory follows the undo, not the log;
//! time is one pass over the database's events. Invariants: an event's `continues` partners are undone with it, and so are
//! all events of one order (one note); events found at enrolment are nobody's writes; a rule is never undone.
//! Caller: [`super::undo`].

use std::collections::{BTreeMap, BTreeSet};

use super::NodeError;
use super::genesis::GENESIS_INCARNATION;
use super::query::rfc3339;
use super::rebuild::Replay;
use super::undo::Selection;
use super::undo_note::Covers;
use crate::log::LogRead;
use crate::merge::memory::MemoryStore;
use crate::model::{Cell, Change, Cut, Dot, Event, OriginId, RowId, Stamp, counted};
use crate::wire::decode_event;

/// Events without the note looked at between two events of one order, at most.
const GAP_MAX: u64 = 10_000;

/// The changes that are selected.
#[derive(Default)]
pub(super) struct Undone {
    /// In words.
    pub(super) words: String,
    /// How many.
    pub(super) changes: u64,
    /// Merges that a node found by itself are among them.
    pub(super) merges: bool,
    /// What a person should know besides.
    pub(super) remarks: Vec<String>,
    /// Where they stand.
    pub(super) covers: Covers,
    /// Rows they touched, by position of the database.
    rows: BTreeMap<usize, BTreeSet<RowId>>,
    /// Of every cell they wrote, the strongest write of theirs.
    cells: BTreeMap<(RowId, String), Strength>,
}

/// The order in which writes of one cell beat each other.
pub(super) type Strength = (bool, Stamp, Dot);

/// Of a cell that is to be undone: the strongest value that its undone writes replaced.
pub(super) type Trails = BTreeMap<(RowId, String), (Strength, Cell)>;

/// Of a counter's cell: every step that was ever made there, in an order in which what takes back comes later.
pub(super) type Steps = BTreeMap<(RowId, String), Vec<StepMade>>;

/// One step of a counter.
pub(super) struct StepMade {
    dot: Dot,
    /// Its event's.
    stamp: Stamp,
    by: i64,
    /// It is of the selected changes.
    undone: bool,
    /// What its event takes back; `None` for an app's.
    takes_back: Option<Covers>,
}

/// The rows concerned, with and without the selected changes.
#[derive(Default)]
pub(super) struct Worlds {
    pub(super) now: MemoryStore,
    pub(super) wanted: MemoryStore,
    pub(super) trails: Trails,
    pub(super) steps: Steps,
}

impl Undone {
    /// Finds what is selected.
    pub(super) fn find(replay: &Replay, selection: &Selection) -> Result<Undone, NodeError> {
        let mut undone = Undone::default();
        let read = replay.log.read()?;
        match selection {
            Selection::Change(text) => undone.name(replay, &read, text)?,
            Selection::Node { name, from_ms, to_ms, database, table } => {
                replay.check_names(database.as_deref(), table.as_deref())?;
                let (from_ms, to_ms) = (*from_ms.min(to_ms), *from_ms.max(to_ms));
                (undone.covers.database, undone.covers.table) = (database.clone(), table.clone());
                undone.words = format!("what {name} wrote from {} to {}", rfc3339(from_ms), rfc3339(to_ms));
                if !undone.covers.place().is_empty() {
                    undone.words += &format!(" in {}", undone.covers.place());
                }
                for origin in replay.origins_of(name)? {
                    let before =
                        from_ms.checked_sub(1).map(|ms| replay.last_at(&read, &origin, ms)).transpose()?.unwrap_or(0);
                    let through = replay.last_at(&read, &origin, to_ms)?;
                    if through > before {
                        undone.covers.spans.insert(origin, vec![(before + 1, through)]);
                    }
                }
            }
        }
        undone.collect(replay, &read)?;
        if undone.changes == 0 {
            return Err(NodeError::Invalid(format!(
                "nothing to undo: there are no changes in {}; `litemesh log` shows what there is",
                undone.words
            )));
        }
        Ok(undone)
    }

    /// `ORIGIN:SEQ[:INDEX]`.
    fn name(&mut self, replay: &Replay, read: &LogRead, text: &str) -> Result<(), NodeError> {
        let bad = |why: &str| {
            NodeError::Invalid(format!(
                "{text} names no change ({why}): write ORIGIN:SEQ or ORIGIN:SEQ:INDEX as `litemesh log` and `litemesh \
                 history` print them"
            ))
        };
        let mut parts = text.split(':');
        let (origin, seq) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let seq: u64 = seq.parse().map_err(|_| bad("no number of an event"))?;
        self.covers.index =
            parts.next().map(|index| index.parse().map_err(|_| bad("no number of a change"))).transpose()?;
        let fits = |id: &&OriginId| origin.len() >= 8 && id.to_string().starts_with(&origin.to_lowercase());
        let mut found = replay.heads.iter().filter(|(id, _)| fits(id));
        let (id, head) = found.next().ok_or_else(|| bad("no such origin"))?;
        if found.next().is_some() {
            return Err(bad("several origins begin so"));
        }
        if head.origin.incarnation == GENESIS_INCARNATION {
            return Err(bad("rows found at enrolment are nobody's writes"));
        }
        let stored = read.event(id, seq)?.ok_or_else(|| bad("no such event"))?;
        let event = decode_event(&stored.bytes)?;
        if self.covers.index.is_some_and(|index| index as usize >= event.changes.len()) {
            return Err(bad("the event has not so many changes"));
        }
        self.merges = true;
        self.words = format!("change {text} by {} at {}", replay.author(id), rfc3339(event.header.stamp.wall_ms()));
        if self.covers.index.is_none() {
            self.words = format!("event {text} by {} at {}", replay.author(id), rfc3339(event.header.stamp.wall_ms()));
            if !event.header.note.is_empty() {
                self.words += &format!(" ({})", event.header.note);
            }
        }
        let mut seqs = BTreeSet::from([seq]);
        if self.covers.index.is_none() {
            self.partners(read, (*id, head.seq), &event, &mut seqs)?;
        }
        self.covers.spans.insert(*id, spans(&seqs));
        Ok(())
    }

    /// The events of the same capture, and of the same order.
    fn partners(
        &mut self,
        read: &LogRead,
        (origin, last): (OriginId, u64),
        event: &Event,
        seqs: &mut BTreeSet<u64>,
    ) -> Result<(), NodeError> {
        let at = |seq: u64| -> Result<Option<Event>, NodeError> {
            let stored = if seq == 0 || seq > last { None } else { read.event(&origin, seq)? };
            Ok(stored.map(|stored| decode_event(&stored.bytes)).transpose()?)
        };
        let same = |other: &Event| !event.header.note.is_empty() && other.header.note == event.header.note;
        let (mut seq, mut gap, mut open) = (event.header.seq, 0, event.header.continues);
        while let Some(next) = at(seq + 1)? {
            seq += 1;
            let (joined, ordered) = (open, same(&next));
            open = joined && next.header.continues;
            gap = if joined || ordered { 0 } else { gap + 1 };
            if joined || ordered {
                seqs.insert(seq);
            }
            if gap > GAP_MAX || gap > 0 && event.header.note.is_empty() {
                break;
            }
        }
        (seq, gap) = (event.header.seq, 0);
        while let Some(before) = at(seq.saturating_sub(1))? {
            seq -= 1;
            let joined = before.header.continues && seqs.contains(&(seq + 1));
            gap = if joined || same(&before) { 0 } else { gap + 1 };
            if gap == 0 {
                seqs.insert(seq);
            }
            if gap > GAP_MAX || gap > 0 && event.header.note.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// The rows and cells that the selected changes touched.
    fn collect(&mut self, replay: &Replay, read: &LogRead) -> Result<(), NodeError> {
        let (mut rules, mut waiting) = (0, 0);
        for (origin, spans) in self.covers.spans.clone() {
            for (from, to) in spans {
                for position in 0..replay.databases.len() {
                    let (settings, shown, _) = &replay.databases[position];
                    let mut from = from;
                    while let Some((seq, stored)) = read.next_of_database(&origin, from, &settings.name)? {
                        if seq > to {
                            break;
                        }
                        from = seq + 1;
                        waiting += u64::from(seq > shown.get(&origin));
                        let event = decode_event(&stored.bytes)?;
                        for (index, change) in event.changes.iter().enumerate() {
                            let meant = self.says(&event, index as u32, change) && seq <= shown.get(&origin);
                            rules += u64::from(meant && matches!(change, Change::Rule { .. }));
                            self.take(position, &event, index as u32, change);
                        }
                    }
                }
            }
        }
        if rules > 0 {
            self.remarks.push("rules of tables are not undone: `litemesh rules set` changes them back".to_string());
        }
        if waiting > 0 {
            self.remarks
                .push(format!("{} not shown here yet and left out: try again later", counted(waiting, "event")));
        }
        let all: Vec<(usize, BTreeSet<RowId>)> = std::mem::take(&mut self.rows).into_iter().collect();
        for (position, rows) in all {
            self.rows.insert(position, with_links(read, rows)?);
        }
        Ok(())
    }

    fn take(&mut self, position: usize, event: &Event, index: u32, change: &Change) {
        let Some(row) = change.row().filter(|_| self.chosen(event, index, change)) else { return };
        self.changes += 1;
        let rows = self.rows.entry(position).or_default();
        rows.insert(row);
        if let Change::Merge { other, .. } | Change::Split { other, .. } = change {
            rows.insert(*other);
        }
        for (name, strength, _) in writes(event, index, change) {
            let held = self.cells.entry((row, name.to_string())).or_insert(strength);
            *held = (*held).max(strength);
        }
    }

    /// Whether a change is selected, a rule included.
    fn says(&self, event: &Event, index: u32, change: &Change) -> bool {
        self.covers.meant(event, index, &event.tables[change.table() as usize].table)
    }

    /// Whether a change is to be undone.
    pub(super) fn chosen(&self, event: &Event, index: u32, change: &Change) -> bool {
        let found = matches!(change, Change::Merge { columns, .. } if !columns.is_empty()) && !self.merges;
        !found && !matches!(change, Change::Rule { .. }) && self.says(event, index, change)
    }

    /// Whether a write to a selected row is of the selected ones, as far as its place in the log tells.
    pub(super) fn wrote(&self, dot: &Dot) -> bool {
        self.covers.place_meant(dot, Stamp(0))
    }

    /// The cells that they wrote.
    pub(super) fn cells_of(&self, row: &RowId) -> impl Iterator<Item = &str> {
        let from = (*row, String::new());
        self.cells.range(from..).take_while(move |((of, _), _)| of == row).map(|((_, name), _)| name.as_str())
    }

    /// The rows that they touched, and those that are one with them.
    pub(super) fn rows_of(&self, position: usize) -> &BTreeSet<RowId> {
        const NONE: &BTreeSet<RowId> = &BTreeSet::new();
        self.rows.get(&position).unwrap_or(NONE)
    }

    /// Evaluates these rows with and without the selected changes.
    pub(super) fn worlds(&self, replay: &Replay, position: usize) -> Result<Worlds, NodeError> {
        let mut worlds = Worlds::default();
        let rows = self.rows_of(position);
        let of_rows = |change: &Change| {
            let other = match change {
                Change::Merge { other, .. } | Change::Split { other, .. } => Some(*other),
                _ => None,
            };
            change.row().is_none_or(|row| rows.contains(&row) || other.is_some_and(|other| rows.contains(&other)))
        };
        let through = replay.databases[position].1.clone();
        let mut from = Cut::default();
        replay.walk(position, &mut from, &through, &mut |read, events| {
            let concerned: Vec<Event> =
                events.iter().filter(|event| event.changes.iter().any(of_rows)).cloned().collect();
            let all = |_: &Event, _: u32, change: &Change| of_rows(change);
            replay.evaluate(&mut worlds.now, read, &concerned, &all)?;
            let rest =
                |event: &Event, index: u32, change: &Change| of_rows(change) && !self.chosen(event, index, change);
            replay.evaluate(&mut worlds.wanted, read, &concerned, &rest)?;
            self.follow(&concerned, &mut worlds);
            Ok(())
        })?;
        Ok(worlds)
    }

    /// Notes what the undone writes replaced, and the steps of counters that they wrote.
    fn follow(&self, events: &[Event], worlds: &mut Worlds) {
        for event in events {
            for (index, change) in event.changes.iter().enumerate() {
                let Some(row) = change.row() else { continue };
                let undone = self.chosen(event, index as u32, change);
                for (name, strength, cell) in writes(event, index as u32, change) {
                    let key = (row, name.to_string());
                    let Some(last) = self.cells.get(&key) else { continue };
                    if let Cell::Step { by, .. } = cell {
                        let takes_back = Covers::of_note(&event.header.note);
                        let takes_back = takes_back.filter(|covers| {
                            covers.table.as_ref().is_none_or(|table| {
                                table.eq_ignore_ascii_case(&event.tables[change.table() as usize].table)
                            })
                        });
                        let (dot, stamp) = (event.dot(index as u32), event.header.stamp);
                        let step = StepMade { dot, stamp, by: *by, undone, takes_back };
                        worlds.steps.entry(key.clone()).or_default().push(step);
                    }
                    let held = worlds.trails.get(&key);
                    if !undone && strength < *last && held.is_none_or(|(held, _)| *held < strength) {
                        worlds.trails.insert(key, (strength, cell.without_difference()));
                    }
                }
            }
        }
    }
}

/// By how much a counter must step so that the selected steps do not count. A step that an order took back does not count
/// already, unless that order was taken back itself; orders that are selected are undone with the rest.
pub(super) fn step_back(steps: &[StepMade]) -> i128 {
    let mut ordered: Vec<&StepMade> = steps.iter().collect();
    ordered.sort_by_key(|step| (step.stamp, step.dot));
    let mut counts = vec![true; ordered.len()];
    for at in (0..ordered.len()).rev() {
        let step = ordered[at];
        counts[at] = !(at + 1..ordered.len()).any(|later| {
            let order = ordered[later];
            let covers = order.takes_back.as_ref().is_some_and(|covers| covers.place_meant(&step.dot, step.stamp));
            covers && !order.undone && counts[later]
        });
    }
    let undone = ordered.iter().zip(counts).filter(|(step, counts)| step.undone && *counts);
    -undone.map(|(step, _)| i128::from(step.by)).sum::<i128>()
}

/// The cells that a change writes: (column, strength, value).
fn writes<'e>(
    event: &'e Event,
    index: u32,
    change: &'e Change,
) -> Box<dyn Iterator<Item = (&'e str, Strength, &'e Cell)> + 'e> {
    let dot = event.dot(index);
    match change {
        Change::Insert { table, cells, .. } => {
            let names = &event.tables[*table as usize].columns;
            let stamp = event.header.stamp;
            let said =
                move |(column, cell): &'e (u32, Cell)| (names[*column as usize].as_str(), (false, stamp, dot), cell);
            Box::new(cells.iter().map(said))
        }
        Change::Update { table, cells, .. } => {
            let names = &event.tables[*table as usize].columns;
            let said = move |(column, cell, stamp): &'e (u32, Cell, Stamp)| {
                (names[*column as usize].as_str(), (true, *stamp, dot), cell)
            };
            Box::new(cells.iter().map(said))
        }
        _ => Box::new(std::iter::empty()),
    }
}

/// The rows, all that merges and splits ever linked with them, and what the keys of keyed ones refer to.
pub(super) fn with_links(read: &LogRead, rows: BTreeSet<RowId>) -> Result<BTreeSet<RowId>, NodeError> {
    let mut open: Vec<RowId> = rows.iter().copied().collect();
    let mut all = rows;
    while let Some(row) = open.pop() {
        let Some(record) = read.row(&row)? else { continue };
        let mut next: Vec<RowId> = record.members().to_vec();
        next.extend(record.links().iter().map(|link| link.other));
        if matches!(row, RowId::Keyed(_)) {
            next.extend(record.parents().map(|(_, parent)| parent.row));
        }
        open.extend(next.into_iter().filter(|row| all.insert(*row)));
    }
    Ok(all)
}

/// Sequence numbers as spans.
fn spans(seqs: &BTreeSet<u64>) -> Vec<(u64, u64)> {
    let mut spans: Vec<(u64, u64)> = Vec::new();
    for seq in seqs {
        match spans.last_mut() {
            Some((_, to)) if *to + 1 == *seq => *to = *seq,
            _ => spans.push((*seq, *seq)),
        }
    }
    spans
}
