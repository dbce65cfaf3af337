//! What became of every event: events = applied + superseded + held + shelved, per database.
//!
//! applied: something of it shows in the file, or its delete holds, or it states a rule; superseded: all it wrote was written
//! anew or deleted since (its losers are in the audit); held: the file does not show it yet, or not all of it (a cause or a
//! column is missing); shelved: what is left of it belongs to rows that cannot be shown now. The rows say which events they
//! stand on; what no row stands on is superseded, and a test proves of random writes that this is true. Runs beside the
//! node, on a snapshot of the log; reads all rows once and hardly an event.
//! Invariant: every event counts once. Callers: http (metrics).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::genesis::GENESIS_INCARNATION;
use super::{Node, NodeError};
use crate::log::{Log, LogRead};
use crate::merge::store::{CellState, Row};
use crate::model::{Cut, Dot, OriginId};

/// Rows read at once.
const PAGE: usize = 2_000;

/// What became of the events of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// Database.
    pub database: String,
    /// All of them.
    pub events: u64,
    /// Of which something shows.
    pub applied: u64,
    /// Of which nothing is left.
    pub superseded: u64,
    /// Which the file does not show (whole) yet.
    pub held: u64,
    /// Of which something waits on the shelf, and nothing shows.
    pub shelved: u64,
}

/// A log to be counted wherever there is time for it.
pub struct FateCount {
    log: Arc<Log>,
    /// Database and what its file shows.
    databases: Vec<(String, Cut)>,
}

/// Events by origin and number, a bit each.
#[derive(Default)]
struct Marks(BTreeMap<OriginId, Vec<u64>>);

impl Marks {
    fn set(&mut self, origin: OriginId, seq: u64) {
        let bits = self.0.entry(origin).or_default();
        let at = (seq / 64) as usize;
        if bits.len() <= at {
            bits.resize(at + 1, 0);
        }
        bits[at] |= 1 << (seq % 64);
    }

    #[cfg(test)]
    fn has(&self, origin: &OriginId, seq: u64) -> bool {
        self.0
            .get(origin)
            .and_then(|bits| bits.get((seq / 64) as usize))
            .is_some_and(|bits| bits & (1 << (seq % 64)) != 0)
    }

    /// Marked here, and in none of the others.
    fn count(&self, others: &[&Marks]) -> u64 {
        let word = |origin: &OriginId, at: usize| {
            let of = |marks: &&Marks| marks.0.get(origin).and_then(|bits| bits.get(at)).copied().unwrap_or(0);
            others.iter().fold(0, |all, marks| all | of(marks))
        };
        let of_origin = |(origin, bits): (&OriginId, &Vec<u64>)| -> u64 {
            bits.iter().enumerate().map(|(at, bits)| u64::from((bits & !word(origin, at)).count_ones())).sum()
        };
        self.0.iter().map(of_origin).sum()
    }
}

impl Node {
    /// What is needed to count what became of the events.
    pub fn fate_count(&self) -> FateCount {
        let of = |database: &super::database::Database| (database.settings.name.clone(), database.cursor.clone());
        FateCount { log: self.log.clone(), databases: self.databases.iter().map(of).collect() }
    }
}

impl FateCount {
    /// Counts, database by database.
    pub fn count(&self) -> Result<Vec<Fates>, NodeError> {
        let read = self.log.read()?;
        self.databases.iter().map(|(name, cursor)| Ok(count(&read, name, cursor)?.0)).collect()
    }
}

/// Counts, and gives the marks it counted by: what shows, what is on the shelf, what is held.
fn count(read: &LogRead, name: &str, cursor: &Cut) -> Result<(Fates, [Marks; 3]), NodeError> {
    let heads = read.heads()?;
    let (mut shown, mut shelf, mut held) = (Marks::default(), Marks::default(), Marks::default());
    for (origin, seq, _) in read.held(name)? {
        held.set(origin, seq);
    }
    let mut beyond = 0;
    for (origin, head) in &heads {
        beyond += read.count_of_database(origin, cursor.get(origin) + 1, name, usize::MAX)?;
        if head.origin.incarnation == GENESIS_INCARNATION {
            let mut from = 1;
            while let Some((seq, _)) = read.next_of_database(origin, from, name)? {
                shown.set(*origin, seq);
                from = seq + 1;
            }
        }
    }
    for table in read.tables_of(name) {
        for rule in read.rules(table)? {
            shown.set(rule.dot.origin, rule.dot.seq);
            rule.replaced.iter().for_each(|dot| shown.set(dot.origin, dot.seq));
        }
        let mut after = None;
        loop {
            let page = read.rows_of(table, after, PAGE)?;
            let Some(last) = page.last().copied() else { break };
            after = Some(last);
            for id in &page {
                if let Some(row) = read.row(id)? {
                    let marks = if row.alive && row.shelved.is_some() { &mut shelf } else { &mut shown };
                    stand_on(&row, &mut |dot| marks.set(dot.0, dot.1));
                }
            }
        }
    }
    // The births of rows that were there at enrolment belong to no event; what lies behind the cursor is held.
    for marks in [&mut shown, &mut shelf] {
        marks.0.retain(|origin, _| heads.contains_key(origin));
        for (origin, bits) in &mut marks.0 {
            let through = cursor.get(origin);
            for (at, bits) in bits.iter_mut().enumerate() {
                let first = at as u64 * 64;
                let kept = if first > through { 0 } else { u64::MAX >> (63 - (through - first).min(63)) };
                *bits &= kept;
            }
        }
    }
    let events = read.events_of_database(name)?;
    let applied = shown.count(&[&held]);
    let shelved = shelf.count(&[&held, &shown]);
    let held_events = held.count(&[]) + beyond;
    let superseded = events.saturating_sub(applied + shelved + held_events);
    let fates = Fates { database: name.to_string(), events, applied, superseded, held: held_events, shelved };
    Ok((fates, [shown, shelf, held]))
}

/// The events that a row stands on.
fn stand_on(row: &Row, mark: &mut dyn FnMut((OriginId, u64))) {
    let mut dot = |dot: &Dot| mark((dot.origin, dot.seq));
    row.links().iter().for_each(|link| dot(&link.dot));
    if !row.alive {
        row.deletes.iter().for_each(|deleted| mark((*deleted.actor, deleted.counter)));
        return;
    }
    row.births.iter().for_each(|(birth, _)| dot(birth));
    row.claim.iter().for_each(|claim| dot(&claim.dot));
    let whole = row.whole.iter().flat_map(|whole| &whole.cells);
    for state in row.cells.iter().chain(whole) {
        of_cell(state, &mut dot);
    }
    // Where writes add up, all of them count.
    for (column, updates) in &row.updates {
        if row.cell(*column).is_some_and(|state| state.tally.is_some()) {
            updates.iter().for_each(|update| mark((*update.actor, update.counter)));
        }
    }
}

fn of_cell(state: &CellState, dot: &mut dyn FnMut(&Dot)) {
    dot(&state.dot);
    for part in state.tally.iter().flat_map(|tally| &tally.parts) {
        dot(&part.last.dot);
        [&part.greatest, &part.least, &part.number, &part.list].into_iter().flatten().for_each(|write| dot(&write.dot));
        part.edits.values().for_each(|(_, edited, _)| dot(edited));
    }
}

#[cfg(test)]
mod tests {
    use super::super::pair_tests::{Pair, Site};
    use super::*;
    use crate::model::{Change, RowId};
    use crate::wire::decode_event;

    const SQL: &str = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT, place TEXT);
        CREATE TABLE tag (name TEXT PRIMARY KEY NOT NULL, note INTEGER REFERENCES note (id));
        INSERT INTO note VALUES (1, 'there before', 'both');";

    /// An event counts as superseded: then everything it wrote was really written anew, or its row is gone.
    fn is_superseded(read: &LogRead, origin: OriginId, seq: u64) -> bool {
        let event = decode_event(&read.event(&origin, seq).unwrap().unwrap().bytes).unwrap();
        event.changes.iter().enumerate().all(|(index, change)| {
            let dot = event.dot(index as u32);
            let row = |id: &RowId| read.row(id).unwrap().expect("a row that an event wrote is known");
            match change {
                Change::Insert { row: id, .. } => !row(id).alive,
                Change::Update { row: id, cells, .. } => {
                    let record = row(id);
                    let columns = &event.tables[change.table() as usize].columns;
                    let known = read.columns(record.table).unwrap();
                    let number =
                        |column: &u32| known.iter().position(|name| *name == columns[*column as usize]).unwrap();
                    let later = |column: &u32, stamp| {
                        record.cell(number(column) as u16).is_some_and(|state| state.dot != dot && state.stamp >= stamp)
                    };
                    !record.alive || cells.iter().all(|(column, _, stamp)| later(column, *stamp))
                }
                Change::Delete { row: id, .. } => row(id).alive || row(id).deletes.get(&origin) > seq,
                Change::Claim { row: id, .. } => row(id).claim.is_none_or(|claim| claim.dot != dot),
                Change::Merge { .. } | Change::Split { .. } | Change::Rule { .. } => false,
            }
        })
    }

    #[test]
    fn every_event_is_applied_superseded_held_or_shelved() {
        let sites = [Site::new(1).with("notes", SQL, &[]), Site::new(2).with("notes", SQL, &[])];
        let mut pair = Pair::start([&sites[0], &sites[1]], &[]);
        pair.meet();
        for round in 0..6 {
            pair.part();
            // An event of its own, of which the next round leaves nothing.
            for (at, site) in sites.iter().enumerate() {
                site.app("notes", &format!("UPDATE note SET text = 'by {at} in {round}' WHERE id = 1"));
            }
            pair.work_apart();
            for (at, site) in sites.iter().enumerate() {
                let (gone, other) = (round - 2, 1 - at);
                site.app(
                    "notes",
                    &format!(
                        "INSERT INTO note (text) VALUES ('new {at} {round}');
                         INSERT OR IGNORE INTO tag VALUES ('t{round}', 1);
                         DELETE FROM note WHERE text = 'new {at} {gone}';
                         UPDATE note SET place = {round} WHERE text LIKE 'new {other}%';",
                    ),
                );
            }
            pair.work_apart();
            pair.meet();
            for node in &pair.nodes {
                let read = node.log().read().unwrap();
                let (it, marks) = count(&read, "notes", &node.databases[0].cursor).unwrap();
                assert_eq!(it.events, it.applied + it.superseded + it.held + it.shelved, "{it:?}");
                assert_eq!(it.held, 0, "{it:?}");
                let mut superseded = 0;
                for (origin, head) in read.heads().unwrap() {
                    for seq in 1..=head.seq {
                        let marked = marks.iter().any(|it| it.has(&origin, seq));
                        if !marked {
                            superseded += 1;
                            assert!(is_superseded(&read, origin, seq), "round {round}: {origin}:{seq} is lost");
                        }
                    }
                }
                assert_eq!(superseded, it.superseded, "{it:?}");
                assert!(round < 2 || it.superseded > 0, "{it:?}");
            }
        }
        let both: Vec<Fates> = pair.nodes.iter().flat_map(|node| node.fate_count().count().unwrap()).collect();
        assert_eq!(both[0], both[1]);
    }
}
