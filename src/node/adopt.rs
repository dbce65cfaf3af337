//! Adopting: a file with rows comes to a cluster that has rows already.
//!
//! The node first learns all that the cluster holds, evaluates it, and then compares the file with what it should show. A
//! row that is the same (see [`super::meeting`] for what that means, [`super::sameness`] for how it is found) gets no
//! second birth, so a copy of a member's file doubles nothing. A file that carries litemesh's own tables and a cut of this
//! cluster (a copy of a live file, or this server's own file after its data directory was lost) needs no guess: every key
//! the log knows is that row, older here; only what the outbox marks was written since. Any other row is a row of its own,
//! junior to the cluster's.
//!
//! States: waiting (joined, not heard from anybody: no trigger, no birth) → adopted or, when nobody answers for
//! [`super::waiting::WAIT_MS`], enrolled by content. Files that others refer to come first, and no file is written before those that refer
//! to it are adopted too: their references are read by the ids that stand here now.
//! Invariants: nothing of the cluster is deleted or overwritten by a joiner's old rows (but what a base proves was done
//! here); no row of the joiner is dropped. A crash before the births are logged starts it again from the file; the note that
//! the file is enrolled is written with the births (with a base, after them: there what was born already is found again). Caller: `recover`, `step`, `rehearsal`.

use std::collections::{BTreeMap, BTreeSet};

use super::base::Base;
use super::capture::{CHANGES_MAX, Ids, Part, table_entry};
use super::database::{Database, SCAN_PAGE};
use super::found::{Found, FoundIndex};
use super::genesis::births;
use super::lag::{Seen, note_lag, take_over};
use super::meeting::{Fate, Lacking, Meeting, MetRow, MetTable, Verdict};
use super::recover::note_enrolled;
use super::rescan::all_rows;
use super::sameness::{Known, Sameness, There};
use super::step::clean_equal;
use super::{Node, NodeError, Now};
use crate::log::{LogRead, LogWrite};
use crate::merge::Evaluator;
use crate::merge::store::{AuditKind, AuditRecord, CellVersion, Row, Store};
use crate::model::{Cell, Change, DatabaseSchema, Dot, ForeignKey, Identity, Key, RowId, Stamp, TableSchema, Value};
use crate::sqlite::{Drain, Image, Mark, MarkOp};

impl Node {
    /// Compares a file with what the cluster holds and takes over what is the same. Tells what became of every row.
    pub(super) fn adopt(&mut self, position: usize, now: Now) -> Result<Vec<MetTable>, NodeError> {
        let meta = self.databases[position].file.meta()?;
        let copied = meta.applied.iter().any(|dot| self.heads.contains_key(dot.actor));
        crate::sometimes!(copied, "adopt: the file is a copy of a member's");
        self.evaluate_unshown(position, now)?;
        let outbox = self.databases[position].file.drain()?;
        let schema = self.schemas[position].clone();
        let mut found = self.find_all(position)?;
        found.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
        let there = self.shown_there(position, now)?;
        let meeting = if copied { Meeting::Copy } else { self.meeting(&schema.database)? };
        let base = match &meeting {
            Meeting::Base(path) => Some(Base::read(path, &self.databases[position].settings, &schema)?),
            Meeting::Copy | Meeting::Independent => None,
        };
        let index = FoundIndex::new(&schema, &found);
        let source = Source { position, copied, meeting, base, outbox: &outbox };
        let met = self.compare_all(&source, (&found, &index), &there)?;
        self.take_over_met(position, &met, &source, now)?;
        let mut drain = Drain { meta: outbox.meta.clone(), ..Drain::default() };
        for (table, rows) in met.iter().enumerate() {
            for row in rows.here.iter().filter(|row| row.row.is_none()) {
                add_mark(
                    &mut drain,
                    MarkOp::Insert,
                    &schema.tables[table].name,
                    &row.key,
                    Some(row.image.clone()),
                    now,
                );
            }
        }
        crate::sometimes!(!drain.marks.is_empty(), "adopt: a row is the joiner's own");
        if copied {
            // What was written here since the copy: inserts are among the new rows.
            let edits = outbox.marks.iter().filter(|mark| matches!(mark.op, MarkOp::Update | MarkOp::Delete));
            drain.marks.extend(edits.cloned());
            for (at, image) in &outbox.images {
                drain.images.entry(at.clone()).or_insert_with(|| image.clone());
            }
        }
        // What differs from a base is logged after the births: until then the file counts as not enrolled.
        let marks = outbox.marks.iter().map(|mark| mark.rid).collect();
        self.databases[position].enrolling = source.base.is_none().then_some(marks);
        self.log_drain(position, &drain, Ids::Found, now)?;
        self.databases[position].enrolling = None;
        if source.base.is_some() {
            self.log_edits(position, &met, now)?;
        }
        self.databases[position].file.clear_marks(outbox.through_seq)?;
        self.databases[position].behind = true;
        Ok(met)
    }

    /// Decides what every row of the file is.
    fn compare_all(
        &self,
        source: &Source<'_>,
        (found, index): (&[Found], &FoundIndex<'_>),
        there: &There,
    ) -> Result<Vec<MetTable>, NodeError> {
        let (schema, read) = (index.schema(), self.log.read()?);
        let elsewhere = |key: &ForeignKey, values: &[Value]| self.shown_elsewhere(&read, key, values);
        let is_born = |row: &RowId| Ok(read.row(row)?.is_some_and(|record| !record.births.is_empty()));
        let is_mine = |row: &RowId| matches!(row, RowId::Born(birth) if self.is_own(&birth.origin));
        let mut sameness = Sameness {
            schema,
            index,
            there,
            elsewhere: &elsewhere,
            is_born: &is_born,
            is_mine: &is_mine,
            same: vec![BTreeMap::new(); schema.tables.len()],
            sure: BTreeSet::new(),
        };
        if source.copied {
            self.settle_copied(source, &mut sameness)?;
        } else if source.meeting != Meeting::Independent {
            settle_enrolled(&read, found, &mut sameness)?;
        }
        let base = source.base.as_ref().map(|base| base.identify(&read, there, &elsewhere)).transpose()?;
        if let Some(base) = &base {
            base.settle(&mut sameness);
        }
        for table in 0..schema.tables.len() {
            sameness.resume(table);
            if source.meeting != Meeting::Independent {
                sameness.suppose(table);
            }
        }
        sameness.agree()?;
        let mut met = Vec::with_capacity(schema.tables.len());
        for table in 0..schema.tables.len() {
            let mut one = MetTable::default();
            for (key, image) in index.rows(table) {
                let row = sameness.same[table].get(key).copied();
                let of_base = base.as_ref().filter(|base| base.knows(table, key, image));
                let verdict = match (row, of_base) {
                    (None, None) => Verdict::New,
                    (None, Some(_)) => Verdict::Kept,
                    (Some(row), Some(base)) => base.compare(table, key, image, there.shown(row), there),
                    (Some(row), None) => source.verdict(&schema.tables[table], key, image, there.shown(row)),
                };
                one.here.push(MetRow { key: key.clone(), image: image.clone(), verdict, row });
            }
            met.push(one);
        }
        find_lacking(source, schema, there, &mut met);
        if let Some(base) = &base {
            base.find_deleted(&sameness, &mut met);
        }
        Ok(met)
    }

    /// A copy of a live file: what stands at a key that the log knows is that row, unless it was inserted here since.
    fn settle_copied(&self, source: &Source<'_>, sameness: &mut Sameness<'_>) -> Result<(), NodeError> {
        for (table, schema) in sameness.schema.tables.iter().enumerate() {
            if schema.identity == Identity::Rowid {
                continue;
            }
            let rows: Vec<Key> = sameness.index.rows(table).map(|(key, _)| key.clone()).collect();
            for key in rows {
                if source.marked(&schema.name, &key, MarkOp::Insert) {
                    continue;
                }
                let shown = sameness.there.by_key[table].get(&key).map(|at| sameness.there.tables[table][*at].row);
                let row = match shown {
                    None if source.marked(&schema.name, &key, MarkOp::Update) => None,
                    None => self.former_holder(source.position, table, &key)?,
                    shown => shown,
                };
                if let Some(row) = row {
                    sameness.settle(table, &key, row);
                }
            }
        }
        Ok(())
    }

    /// Takes over what the file shows of every row, and has all that differs written.
    fn take_over_met(
        &mut self,
        position: usize,
        met: &[MetTable],
        source: &Source<'_>,
        now: Now,
    ) -> Result<(), NodeError> {
        let schema = self.schemas[position].clone();
        let mut seen: Vec<Seen> = Vec::new();
        for (table, rows) in met.iter().enumerate() {
            let name = &schema.tables[table].name;
            // On a copy the marks of deletes and updates find the rows as they were.
            seen.extend(
                rows.lacking
                    .iter()
                    .filter(|row| !(source.copied && row.fate == Fate::Deleted))
                    .map(|row| (row.row, None)),
            );
            for row in &rows.here {
                let Some(id) = row.row else { continue };
                let updated = source.copied && source.marked(name, &row.key, MarkOp::Update);
                if row.verdict != Verdict::Equal && !updated {
                    seen.push((id, Some((row.key.clone(), row.image.clone()))));
                }
                if let Verdict::Lost(columns) | Verdict::Edited { lost: columns, .. } = &row.verdict {
                    self.keep_joiners_values(position, table, id, (&row.image, columns), now)?;
                }
            }
        }
        self.take_over_exactly(position, &seen, now)
    }

    /// Like [`Node::take_over_dirty`], for rows of which several may be one to the cluster and two in the file: the first
    /// stands for the class, the others are taken away.
    fn take_over_exactly(&mut self, position: usize, seen: &[Seen], now: Now) -> Result<(), NodeError> {
        if seen.is_empty() {
            return Ok(());
        }
        let name = self.schemas[position].database.clone();
        let mut write = self.log.write()?;
        let mut evaluator = Evaluator::new(&mut write, &self.ranks, &self.schemas, now.wall_ms);
        let mut touched = BTreeSet::new();
        for (row, _) in seen {
            let canonical = evaluator.canonical(row)?;
            for row in [*row, canonical] {
                if touched.insert(row) {
                    evaluator.mark_shown(&row, None)?;
                }
            }
        }
        take_over(&mut evaluator, seen)?;
        evaluator.touch_again(touched)?;
        evaluator.settle()?;
        clean_equal(&mut evaluator, &name)?;
        note_lag(&mut evaluator, &name, &self.databases[position].file, seen)?;
        evaluator.finish()?;
        write.commit_durable()?;
        self.databases[position].behind = true;
        Ok(())
    }

    /// Logs what was done here since the base.
    fn log_edits(&mut self, position: usize, met: &[MetTable], now: Now) -> Result<(), NodeError> {
        let schema = self.schemas[position].clone();
        let mut drain = Drain { meta: self.databases[position].file.meta()?, ..Drain::default() };
        let (mut edited, mut part): (Vec<Seen>, Part) = (Vec::new(), Part::default());
        let mut write = self.log.write()?;
        let mut evaluator = Evaluator::new(&mut write, &self.ranks, &self.schemas, now.wall_ms);
        for (table, rows) in met.iter().enumerate() {
            let schema = &schema.tables[table];
            for row in &rows.here {
                let (Some(id), Verdict::Edited { columns, .. }) = (row.row, &row.verdict) else { continue };
                if columns.is_empty() {
                    continue;
                }
                let Some(record) = evaluator.view(&id)? else { continue };
                // Only the changed cells differ from what the cluster shows, so only they are written.
                let mut image = evaluator.image(&record, schema)?;
                columns.iter().for_each(|column| image[*column] = row.image[*column].clone());
                add_mark(&mut drain, MarkOp::Update, &schema.name, &row.key, Some(image), now);
                edited.push((id, Some((row.key.clone(), row.image.clone()))));
            }
            for row in rows.lacking.iter().filter(|row| row.fate == Fate::Deleted) {
                let table = table_entry(&mut part.tables, schema);
                for row in evaluator.members(&row.row)? {
                    part.changes.push(Change::Delete { table, row });
                }
            }
        }
        drop(write);
        self.log_drain(position, &drain, Ids::Found, now)?;
        self.take_over_exactly(position, &edited, now)?;
        while !part.changes.is_empty() {
            let rest = part.changes.split_off(part.changes.len().min(CHANGES_MAX));
            self.write_decision(position, Part { tables: part.tables.clone(), changes: part.changes }, now)?;
            part.changes = rest;
        }
        Ok(())
    }

    /// All rows of a file.
    pub(super) fn find_all(&self, position: usize) -> Result<Vec<Found>, NodeError> {
        let mut found = Vec::new();
        for (table, entry) in self.schemas[position].tables.iter().enumerate() {
            let rows = self.read_table(position, &entry.name)?;
            found.extend(rows.into_iter().map(|(key, image)| Found { table, key, image }));
        }
        Ok(found)
    }

    /// All that the log says is shown of a database.
    pub(super) fn shown_there(&self, position: usize, now: Now) -> Result<There, NodeError> {
        let schema = &self.schemas[position];
        let mut there = There::default();
        there.tables.resize_with(schema.tables.len(), Vec::new);
        there.by_key.resize_with(schema.tables.len(), BTreeMap::new);
        let mut write = self.log.write()?;
        for (position, table) in schema.tables.iter().enumerate() {
            let Some(id) = write.find_table(&schema.database, &table.name)? else { continue };
            let rows = all_rows(&write, id)?;
            let mut evaluator = Evaluator::new(&mut write, &self.ranks, &self.schemas, now.wall_ms);
            let names = evaluator.store().columns(id)?;
            for row in rows {
                let canonical = evaluator.canonical(&row)?;
                if canonical != row {
                    there.canonical.insert(row, canonical);
                }
                let shown = evaluator.row(&row)?.and_then(|record| record.shown.clone());
                let (Some(key), Some(record)) = (shown, evaluator.view(&row)?) else { continue };
                let (image, claim) = (evaluator.image(&record, table)?, record.claim.map(|claim| claim.id));
                let cells = cells_of(&mut evaluator, &record, &names, table)?;
                there.add(position, Known { row, key, claim, image, cells });
            }
        }
        Ok(there)
    }

    /// The row of another file that a reference's values lead to, as that file shows it.
    pub(super) fn shown_elsewhere(
        &self,
        read: &LogRead,
        key: &ForeignKey,
        values: &[Value],
    ) -> Result<Option<RowId>, NodeError> {
        let Some(schema) = self.schemas.iter().find(|schema| Some(&schema.database) == key.database.as_ref()) else {
            return Ok(None);
        };
        let Some(parent) = schema.table(&key.parent) else { return Ok(None) };
        let columns: Option<Vec<usize>> = key.parent_columns.iter().map(|name| parent.column(name)).collect();
        let Some(columns) = columns else { return Ok(None) };
        if columns == parent.key_columns() {
            let table = read.find_table(&schema.database, &parent.name)?;
            return Ok(table.map(|table| read.shown(table, values)).transpose()?.flatten());
        }
        let mut write = self.log.write()?;
        let mut evaluator = Evaluator::new(&mut write, &self.ranks, &self.schemas, 0);
        Ok(evaluator.shown_by(&schema.database, parent, &columns, values)?)
    }

    /// Evaluates all events of a database and takes the result for what the file shows; the comparison puts it right.
    fn evaluate_unshown(&mut self, position: usize, now: Now) -> Result<(), NodeError> {
        let name = self.schemas[position].database.clone();
        loop {
            let mut cursor = self.databases[position].cursor.clone();
            let events = super::apply::ready_events(&self.log, &name, &cursor, None, super::capture::CHANGES_MAX)?;
            let mut write = self.log.write()?;
            let mut evaluator = Evaluator::new(&mut write, &self.ranks, &self.schemas, now.wall_ms);
            for event in &events {
                evaluator.integrate(event)?;
                crdts::CmRDT::apply(&mut cursor, crdts::Dot::new(event.header.origin.id(), event.header.seq));
            }
            evaluator.settle()?;
            for row in evaluator.store().dirty(&name)? {
                let target = evaluator.target(&row)?;
                evaluator.mark_shown(&row, target.as_ref())?;
            }
            clean_equal(&mut evaluator, &name)?;
            evaluator.finish()?;
            for event in &events {
                super::apply::note_held(&mut write, &self.schemas[position], event)?;
            }
            let epoch = write.cursor(&name)?.map_or(0, |(_, epoch)| epoch);
            write.put_cursor(&name, &cursor, epoch)?;
            write.commit_durable()?;
            self.databases[position].cursor = cursor;
            if events.is_empty() {
                return Ok(());
            }
        }
    }

    /// The cluster's values of a row stay; the joiner's go to the audit.
    fn keep_joiners_values(
        &mut self,
        position: usize,
        table: usize,
        row: RowId,
        (image, lost): (&Image, &[usize]),
        now: Now,
    ) -> Result<(), NodeError> {
        let schema = &self.schemas[position].tables[table];
        let origin = self.chain.origin().id();
        let mut write = self.log.write()?;
        let Some(record) = Store::row(&write, &row)? else { return Ok(()) };
        let names = Store::columns(&write, record.table)?;
        for (column, value) in lost.iter().map(|column| (&schema.columns[*column], &image[*column])) {
            let number = names.iter().position(|name| name.eq_ignore_ascii_case(&column.name));
            let Some(winner) = number.and_then(|number| record.cell(number as u16)) else { continue };
            if winner.cell == Cell::Plain(value.clone()) {
                continue;
            }
            let loser = CellVersion {
                cell: Cell::Plain(value.clone()),
                stamp: Stamp::from_wall_ms(now.wall_ms),
                dot: Dot { origin, seq: 0, index: 0 },
            };
            let winner = CellVersion { cell: winner.cell.clone(), stamp: winner.stamp, dot: winner.dot };
            write.add_audit(AuditRecord {
                number: 0,
                database: self.schemas[position].database.clone(),
                table: schema.name.clone(),
                row,
                kind: AuditKind::Cell { column: column.name.clone(), winner: Box::new(winner), loser: Box::new(loser) },
                seen_ms: now.wall_ms,
            })?;
        }
        write.commit_durable()?;
        Ok(())
    }

    /// All rows of one table of a file.
    pub(super) fn read_table(&self, position: usize, table: &str) -> Result<Vec<(Key, Image)>, NodeError> {
        let mut rows: Vec<(Key, Image)> = Vec::new();
        loop {
            let after = rows.last().map(|(key, _)| key.clone());
            let page = self.databases[position].file.scan_page(table, after.as_ref(), SCAN_PAGE)?;
            if page.is_empty() {
                return Ok(rows);
            }
            rows.extend(page);
        }
    }

    /// Whether an origin is one of this node's.
    pub(super) fn is_own(&self, origin: &crate::model::OriginId) -> bool {
        let node = self.chain.origin().node;
        *origin == self.chain.origin().id() || self.heads.get(origin).is_some_and(|head| head.origin.node == node)
    }
}

/// Where a file comes from.
struct Source<'o> {
    position: usize,
    /// It carries a cut of this cluster.
    copied: bool,
    /// Else: what a person said.
    meeting: Meeting,
    base: Option<Base>,
    outbox: &'o Drain,
}

impl Source<'_> {
    fn marked(&self, table: &str, key: &Key, op: MarkOp) -> bool {
        self.outbox.marks.iter().any(|mark| mark.op == op && mark.table == table && mark.key == *key)
    }

    /// What a row is to the cluster's row that it is.
    fn verdict(&self, table: &TableSchema, key: &Key, image: &Image, known: Option<&Known>) -> Verdict {
        let Some(known) = known else { return Verdict::Deleted };
        if known.key == *key && known.image == *image {
            return Verdict::Equal;
        }
        if self.copied || !matches!(table.identity, Identity::Keyed(_)) {
            return Verdict::Older;
        }
        let keys = table.key_columns();
        let differs = |column: &usize| !keys.contains(column) && image[*column] != known.image[*column];
        Verdict::Lost((0..image.len()).filter(differs).collect())
    }
}

/// Rows of the cluster that are not here come; on a copy, what was deleted here since is deleted.
fn find_lacking(source: &Source<'_>, schema: &DatabaseSchema, there: &There, met: &mut [MetTable]) {
    for (table, rows) in there.tables.iter().enumerate() {
        let here: BTreeSet<RowId> =
            met[table].here.iter().filter_map(|row| row.row).map(|row| there.canonical(row)).collect();
        for known in rows.iter().filter(|known| !here.contains(&known.row)) {
            let deleted = source.copied && source.marked(&schema.tables[table].name, &known.key, MarkOp::Delete);
            let fate = if deleted { Fate::Deleted } else { Fate::Comes };
            let (row, key, image) = (known.row, known.key.clone(), known.image.clone());
            met[table].lacking.push(Lacking { row, key, image, fate });
        }
    }
}

/// Rows that the cluster enrolled with exactly the content that stands here.
fn settle_enrolled(read: &LogRead, found: &[Found], sameness: &mut Sameness<'_>) -> Result<(), NodeError> {
    for ((table, key), birth) in births(sameness.schema, found) {
        let enrolled =
            matches!(birth, RowId::Genesis(_)) && read.row(&birth)?.is_some_and(|row| !row.births.is_empty());
        if enrolled {
            sameness.settle(table, &key, birth);
        }
    }
    Ok(())
}

/// The cells of a row by column of the schema.
fn cells_of(
    evaluator: &mut Evaluator<'_, LogWrite>,
    record: &Row,
    names: &[String],
    table: &TableSchema,
) -> Result<Vec<Option<Cell>>, NodeError> {
    let mut cells = Vec::with_capacity(table.columns.len());
    for column in &table.columns {
        let number = names.iter().position(|name| name.eq_ignore_ascii_case(&column.name));
        let mut cell = number.and_then(|number| record.cell(number as u16)).map(|state| state.cell.clone());
        if let Some(Cell::Ref(reference)) = &mut cell {
            reference.row = evaluator.canonical(&reference.row)?;
        }
        cells.push(cell);
    }
    Ok(cells)
}

/// Adds a mark that no trigger wrote.
fn add_mark(drain: &mut Drain, op: MarkOp, table: &str, key: &Key, image: Option<Image>, now: Now) {
    let wall_ms = now.wall_ms;
    drain.marks.push(Mark {
        seq: 0,
        rid: [0; 16],
        op,
        table: table.to_string(),
        key: key.clone(),
        old_key: None,
        wall_ms,
    });
    drain.images.insert((table.to_string(), key.clone()), image);
}

impl Database {
    /// With the births of a file that is adopted goes the note that it is enrolled: from here on it is as any other, and
    /// what the app writes is told by marks, also after a crash.
    pub(super) fn note_adopted(&mut self, write: &mut LogWrite, seq: u64) -> Result<(), NodeError> {
        let Some(marks) = self.enrolling.take() else { return Ok(()) };
        note_enrolled(write, &self.settings.name, &self.file)?;
        write.put_rids(&self.settings.name, seq, &marks)?;
        self.uncleared.extend(marks);
        Ok(())
    }
}
