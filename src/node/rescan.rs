//! Scans: what no trigger saw.
//!
//! Two cases, two rules. Triggers were missing for a while (a migration rebuilt the table, a tool removed them): rows that
//! differ are taken as the app's edits, unknown rows as new; rows that are missing come back from the log, because a
//! rebuilt or dropped table is a change of schema, never a delete for others. The file went back (a backup was restored):
//! the log is the truth for every row it knows; only unknown rows are taken as new. Tables without a key are matched by
//! content, since VACUUM renumbers their rowids.
//! Invariant: nothing is deleted from anybody by a scan. Callers: `recover`, and the watch on the schema.

use std::collections::{BTreeMap, BTreeSet};

use super::capture::Ids;
use super::database::{SCAN_PAGE, schema_key};
use super::lag::{note_lag, take_over};
use super::step::clean_equal;
use super::{Node, NodeError, Now};
use crate::merge::Evaluator;
use crate::merge::store::{Shelved, Store, TableId};
use crate::model::{Bug, DriftCause, Identity, Key, RowId, Value, planted};
use crate::sqlite::{Drain, Image, Mark, MarkOp};

/// What differs between a file's table and the store.
#[derive(Default)]
pub(super) struct Difference {
    /// Keys whose image differs from what the store says the file shows.
    pub(super) changed: Vec<(Key, Image, RowId)>,
    /// Keys the store knows nothing of.
    pub(super) unknown: Vec<(Key, Image)>,
    /// Rows the store says are shown but are not there.
    pub(super) missing: Vec<RowId>,
}

/// A row as the store says the file shows it.
pub(super) struct Expected {
    key: Key,
    row: RowId,
    /// As it is to be under the schema of now.
    image: Image,
}

impl Node {
    /// Reads the schema again if it changed, and brings in what happened meanwhile.
    pub(super) fn refresh_schema(&mut self, position: usize, now: Now) -> Result<(), NodeError> {
        let change = self.databases[position].file.refresh_schema()?;
        if change.changed { self.adopt_schema(position, now) } else { Ok(()) }
    }

    /// Takes over the schema as the file was last read: tables to scan, events that can be shown now.
    pub(super) fn adopt_schema(&mut self, position: usize, now: Now) -> Result<(), NodeError> {
        self.schemas[position] = self.databases[position].file.schema().clone();
        self.tables_dropped(position, (0, None), now)?;
        // What the triggers saw before is read against the old schema's state.
        self.databases[position].rules_stated = false;
        self.capture(position, now)?;
        let name = self.schemas[position].database.clone();
        for table in self.databases[position].file.tables_to_scan() {
            if self.databases[position].lost.is_some() {
                crate::sometimes!("rescan: waits for events that the log lost");
                break;
            }
            let Some(at) = self.schemas[position].tables.iter().position(|known| known.name == table) else { continue };
            let read = self.log.read()?;
            let known = match read.find_table(&name, &table)? {
                Some(id) => !read.rows_of(id, None, 1)?.is_empty(),
                None => false,
            };
            drop(read);
            if known {
                self.rescan(position, at, now)?;
            } else {
                self.adopt_tables(position, &[at], false, now)?;
            }
            self.databases[position].file.table_scanned(&table)?;
        }
        self.databases[position].file.schema_seen()?;
        let (noted, epoch) = {
            let read = self.log.read()?;
            (read.meta(&schema_key(&name))?, read.cursor(&name)?.map_or(0, |(_, epoch)| epoch))
        };
        if noted.as_deref() == Some(self.schema_text(position)?.as_bytes()) {
            return Ok(());
        }
        self.release_held(position, now)?;
        self.note_file(position, epoch)
    }

    /// Triggers were missing: differing rows are edits, unknown rows new, missing rows come back.
    fn rescan(&mut self, position: usize, table: usize, now: Now) -> Result<(), NodeError> {
        let mut difference = self.compare(position, table, now)?;
        let name = self.schemas[position].tables[table].name.clone();
        if difference.changed.is_empty() && difference.unknown.is_empty() && difference.missing.is_empty() {
            return Ok(());
        }
        crate::sometimes!("rescan: rows differ that no trigger had marked");
        tracing::warn!(
            table = name,
            changed = difference.changed.len(),
            new = difference.unknown.len(),
            missing = difference.missing.len(),
            "a scan found rows that no trigger had marked"
        );
        self.note_scan(position, table, &difference, DriftCause::TriggersMissing, now)?;
        if planted(Bug::MigrationDeletes) {
            self.log_deletes(position, table, std::mem::take(&mut difference.missing), now)?;
        }
        self.take_missing(position, &difference.missing, now)?;
        if self.schemas[position].tables[table].identity == Identity::Rowid {
            // The same rows under other rowids: the file gets the claimed ones back.
            let moved: Vec<_> =
                difference.changed.drain(..).map(|(key, image, row)| (row, Some((key, image)))).collect();
            self.take_over_dirty(position, &moved, now)?;
        }
        let mut drain = Drain { meta: self.databases[position].file.meta()?, ..Drain::default() };
        let edits = difference.changed.into_iter().map(|(key, image, _)| (MarkOp::Update, key, image));
        let inserts = difference.unknown.into_iter().map(|(key, image)| (MarkOp::Insert, key, image));
        for (op, key, image) in edits.chain(inserts) {
            let (old_key, table) = (Some(key.clone()), name.clone());
            drain.marks.push(Mark { seq: 0, rid: [0; 16], op, table, key: key.clone(), old_key, wall_ms: now.wall_ms });
            drain.images.insert((name.clone(), key), Some(image));
        }
        self.log_drain(position, &drain, Ids::Reused, now)?;
        Ok(())
    }

    /// A REPLACE through a UNIQUE index over an expression evicts rows that no mark names. The triggers stand, so a row that
    /// is missing although no mark says so went that way.
    pub(super) fn find_evicted(&mut self, position: usize, drain: &Drain, now: Now) -> Result<(), NodeError> {
        let written: BTreeSet<&str> = drain.marks.iter().map(|mark| mark.table.as_str()).collect();
        for table in 0..self.schemas[position].tables.len() {
            let schema = &self.schemas[position].tables[table];
            let hidden = schema.unique.iter().any(|key| !key.exact);
            if !hidden || !written.contains(schema.name.as_str()) {
                continue;
            }
            let name = schema.name.clone();
            let known = {
                let read = self.log.read()?;
                let id = read.find_table(&self.schemas[position].database, &name)?;
                id.map(|id| read.fingerprint(id)).transpose()?.unwrap_or_default().rows
            };
            if self.databases[position].file.count_rows(&name)? >= known {
                continue;
            }
            crate::sometimes!("rescan: a row went through a key that triggers cannot see");
            let missing = self.compare(position, table, now)?.missing;
            self.log_deletes(position, table, missing, now)?;
        }
        Ok(())
    }

    /// Logs rows that the file does not show any more as deleted by the app.
    fn log_deletes(&mut self, position: usize, table: usize, gone: Vec<RowId>, now: Now) -> Result<(), NodeError> {
        let (gone, name): (BTreeSet<RowId>, _) =
            (gone.into_iter().collect(), self.schemas[position].tables[table].name.clone());
        let mut drain = Drain { meta: self.databases[position].file.meta()?, ..Drain::default() };
        for Expected { key, row, .. } in self.expected(position, table, now)? {
            if gone.contains(&row) {
                let (op, table, wall_ms) = (MarkOp::Delete, name.clone(), now.wall_ms);
                drain.images.insert((name.clone(), key.clone()), None);
                drain.marks.push(Mark { seq: 0, rid: [0; 16], op, table, key, old_key: None, wall_ms });
            }
        }
        self.log_drain(position, &drain, Ids::Reused, now)?;
        Ok(())
    }

    /// The file went back: the log is the truth for all it knows.
    pub(super) fn restore_from_log(&mut self, position: usize, now: Now) -> Result<(), NodeError> {
        let stale = self.databases[position].file.drain()?;
        self.databases[position].file.clear_marks(stale.through_seq)?;
        self.schemas[position] = self.databases[position].file.schema().clone();
        let mut found = [0; 4];
        for table in 0..self.schemas[position].tables.len() {
            let mut difference = self.compare(position, table, now)?;
            let rows = self.note_scan(position, table, &difference, DriftCause::Restored, now)?;
            found.iter_mut().zip(rows).for_each(|(all, rows)| *all += rows);
            let name = self.schemas[position].tables[table].name.clone();
            if planted(Bug::RestoreDeletes) {
                self.log_deletes(position, table, std::mem::take(&mut difference.missing), now)?;
            }
            self.take_missing(position, &difference.missing, now)?;
            let differing: Vec<_> =
                difference.changed.into_iter().map(|(key, image, row)| (row, Some((key, image)))).collect();
            self.take_over_dirty(position, &differing, now)?;
            let mut drain = Drain { meta: self.databases[position].file.meta()?, ..Drain::default() };
            let mut old: Vec<(RowId, Option<(Key, Image)>)> = Vec::new();
            for (key, image) in difference.unknown {
                // A row that was deleted or moved since the backup stands where it stood: the log knows it.
                if let Some(row) = self.former_holder(position, table, &key)? {
                    crate::sometimes!("restore: a row deleted or moved since the backup stands there again");
                    old.push((row, Some((key, image))));
                    continue;
                }
                crate::sometimes!("restore: a row that the log does not know is new");
                let mark = Mark {
                    seq: 0,
                    rid: [0; 16],
                    op: MarkOp::Insert,
                    table: name.clone(),
                    key: key.clone(),
                    old_key: None,
                    wall_ms: now.wall_ms,
                };
                drain.marks.push(mark);
                drain.images.insert((name.clone(), key), Some(image));
            }
            self.take_over_dirty(position, &old, now)?;
            self.log_drain(position, &drain, Ids::Reused, now)?;
        }
        self.tell_restored(position, found, now)?;
        // The state is what the log says, whatever cursor the old file carried.
        self.databases[position].behind = true;
        Ok(())
    }

    /// The row that held a key before, by claim or (keyed tables) by identity, though the file should not show it.
    pub(super) fn former_holder(&self, position: usize, table: usize, key: &Key) -> Result<Option<RowId>, NodeError> {
        let schema = &self.schemas[position].tables[table];
        let read = self.log.read()?;
        let Some(id) = read.find_table(&self.schemas[position].database, &schema.name)? else { return Ok(None) };
        let number = key.first().and_then(Value::as_integer);
        if let (Identity::Surrogate(_) | Identity::Rowid, Some(number)) = (&schema.identity, number) {
            let mut claimant = None;
            for (claimed, row) in read.claims(id, crate::merge::claims::remainder(number))? {
                // A row that had to move stood at another id than it claims, and holds that one dead or alive.
                if read.row(&row)?.is_some_and(|record| record.id == Some(number)) {
                    return Ok(Some(row));
                }
                claimant = claimant.or((claimed == number).then_some(row));
            }
            return Ok(claimant);
        }
        let cells: Vec<crate::model::Cell> = key.iter().cloned().map(crate::model::Cell::Plain).collect();
        let identity = RowId::keyed(&self.schemas[position].database, &schema.name, &cells);
        Ok(read.row(&identity)?.map(|_| identity))
    }

    /// Rows that should be shown and are not: to be written again.
    fn take_missing(&mut self, position: usize, missing: &[RowId], now: Now) -> Result<(), NodeError> {
        let gone: Vec<_> = missing.iter().map(|row| (*row, None)).collect();
        self.take_over_dirty(position, &gone, now)
    }

    /// Takes over what the file really shows of rows, and has them written as they should be.
    pub(super) fn take_over_dirty(
        &mut self,
        position: usize,
        seen: &[(RowId, Option<(Key, Image)>)],
        now: Now,
    ) -> Result<(), NodeError> {
        if seen.is_empty() {
            return Ok(());
        }
        let name = self.schemas[position].database.clone();
        let mut write = self.log.write()?;
        let mut evaluator = Evaluator::new(&mut write, &self.ranks, &self.schemas, now.wall_ms);
        take_over(&mut evaluator, seen)?;
        evaluator.touch_again(seen.iter().map(|(row, _)| *row))?;
        evaluator.settle()?;
        clean_equal(&mut evaluator, &name)?;
        note_lag(&mut evaluator, &name, &self.databases[position].file, seen)?;
        evaluator.finish()?;
        write.commit_durable()?;
        self.databases[position].behind = true;
        Ok(())
    }

    /// Compares a whole table with what the store says the file shows.
    pub(super) fn compare(&mut self, position: usize, table: usize, now: Now) -> Result<Difference, NodeError> {
        let schema = self.schemas[position].tables[table].clone();
        let rows = self.read_table(position, &schema.name)?;
        let expected = self.expected(position, table, now)?;
        if schema.identity == Identity::Rowid {
            return Ok(match_by_content(rows, expected));
        }
        let mut difference = Difference::default();
        let mut expected: BTreeMap<Key, (RowId, Image)> =
            expected.into_iter().map(|one| (one.key, (one.row, one.image))).collect();
        for (key, image) in rows {
            match expected.remove(&key) {
                Some((_, known)) if known == image => {}
                Some((row, _)) => difference.changed.push((key, image, row)),
                None => difference.unknown.push((key, image)),
            }
        }
        difference.missing = expected.into_values().map(|(row, _)| row).collect();
        Ok(difference)
    }

    /// What the store says a table shows.
    pub(super) fn expected(&mut self, position: usize, table: usize, now: Now) -> Result<Vec<Expected>, NodeError> {
        let schema = &self.schemas[position];
        let Some(id) = self.log.read()?.find_table(&schema.database, &schema.tables[table].name)? else {
            return Ok(Vec::new());
        };
        let mut write = self.log.write()?;
        let rows = all_rows(&write, id)?;
        let mut evaluator = Evaluator::new(&mut write, &self.ranks, &self.schemas, now.wall_ms);
        let mut expected = Vec::new();
        for row in rows {
            let Some(shown) = evaluator.row(&row)?.map(|record| record.shown.clone()) else { continue };
            if let (Some(key), Some(record)) = (shown, evaluator.view(&row)?) {
                let image = evaluator.image(&record, &schema.tables[table])?;
                expected.push(Expected { key, row, image });
            }
        }
        Ok(expected)
    }

    /// After a schema change: events that waited for tables or columns can be shown now.
    fn release_held(&mut self, position: usize, now: Now) -> Result<(), NodeError> {
        let name = self.schemas[position].database.clone();
        let held = self.log.read()?.held(&name)?;
        let mut write = self.log.write()?;
        let mut rows: BTreeSet<RowId> = BTreeSet::new();
        for (origin, seq, _) in &held {
            let Some(stored) = self.log.read()?.event(origin, *seq)? else { continue };
            let event = crate::wire::decode_event(&stored.bytes)?;
            rows.extend(event.changes.iter().filter_map(crate::model::Change::row));
            write.drop_held(&name, *origin, *seq)?;
            super::apply::note_held(&mut write, &self.schemas[position], &event)?;
        }
        // UNIQUE keys and references may have changed for every row of the database.
        for table in &self.schemas[position].tables {
            if let Some(id) = write.find_table(&name, &table.name)? {
                rows.extend(all_rows(&write, id)?);
            }
        }
        let mut evaluator = Evaluator::new(&mut write, &self.ranks, &self.schemas, now.wall_ms);
        evaluator.touch_again(rows)?;
        evaluator.settle()?;
        let left = clean_equal(&mut evaluator, &name)?;
        note_lag(&mut evaluator, &name, &self.databases[position].file, &[])?;
        evaluator.finish()?;
        write.commit_durable()?;
        self.databases[position].behind |= left;
        Ok(())
    }

    /// Tries rows again that SQLite refused: the next apply writes them, or says once more why not.
    pub fn retry_refused(&mut self, now: Now) -> Result<(), NodeError> {
        let read = self.log.read()?;
        let shelf = read.shelf()?;
        if shelf.is_empty() {
            return Ok(());
        }
        crate::sometimes!("shelf: its rows are tried again");
        let mut refused = Vec::new();
        for id in shelf {
            if read.row(&id)?.is_some_and(|row| matches!(row.shelved, Some(Shelved::Refused { .. }))) {
                refused.push(id);
            }
        }
        drop(read);
        if refused.is_empty() {
            return Ok(());
        }
        self.reevaluate(refused, now)
    }
}

/// All rows of a table.
pub(super) fn all_rows<S: Store>(store: &S, table: TableId) -> Result<Vec<RowId>, S::Error> {
    let mut rows: Vec<RowId> = Vec::new();
    loop {
        let page = store.rows_of(table, rows.last().copied(), SCAN_PAGE)?;
        if page.is_empty() {
            return Ok(rows);
        }
        rows.extend(page);
    }
}

/// Rows without a key: equal content in the same order is the same row, whatever its rowid is now.
fn match_by_content(rows: Vec<(Key, Image)>, expected: Vec<Expected>) -> Difference {
    let mut by_content: BTreeMap<Image, Vec<(Key, RowId)>> = BTreeMap::new();
    for one in expected {
        by_content.entry(one.image).or_default().push((one.key, one.row));
    }
    for list in by_content.values_mut() {
        list.sort();
        list.reverse();
    }
    let mut difference = Difference::default();
    for (key, image) in rows {
        match by_content.get_mut(&image).and_then(Vec::pop) {
            Some((known, _)) if known == key => {}
            // The same row under another rowid: the app cannot see it, the file gets the claimed one back.
            Some((_, row)) => difference.changed.push((key, image, row)),
            None => difference.unknown.push((key, image)),
        }
    }
    difference.missing = by_content.into_values().flatten().map(|(_, row)| row).collect();
    difference
}
