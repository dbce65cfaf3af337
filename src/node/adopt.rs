//! Adopting: a file with rows comes to a cluster that has rows already.
//!
//! The node first learns all that the cluster holds, evaluates it, and then compares the file with what it should show. A
//! row that is equal is the same row: it gets no second birth, so a copy of a member's file doubles nothing. What differs
//! depends on where the file comes from. It carries litemesh's own tables and a cut of this cluster (a copy of a live file,
//! or this server's own file after its data directory was lost): every key the log knows is that row, older here; only what
//! the outbox marks was written since. Any other file: equal ids mean nothing, a row that differs is a row of its own,
//! junior to the cluster's (keyed tables: the key is the identity, the cluster's values stay).
//!
//! States: waiting (joined, not heard from anybody: no trigger, no birth) → adopted or, when nobody answers for
//! [`WAIT_MS`], enrolled by content. Invariants: nothing of the cluster is deleted or overwritten by a joiner's old rows; no
//! row of the joiner is dropped. A crash in here starts it again from the file. Caller: `recover`, `step`.

use std::collections::{BTreeMap, BTreeSet};

use super::capture::Ids;
use super::database::SCAN_PAGE;
use super::genesis::{Found, births};
use super::step::clean_equal;
use super::{Node, NodeError, Now};
use crate::merge::Evaluator;
use crate::merge::store::{AuditKind, AuditRecord, CellVersion, Store};
use crate::model::{Cell, Dot, Identity, Key, RowId, Stamp};
use crate::sqlite::{Drain, Image, Mark, MarkOp};
use crate::wire::decode_event;

/// How long a joined node waits for the cluster before it gives births to the rows of its files, ms.
pub(super) const WAIT_MS: u64 = 15_000;

/// Where a file comes from.
struct Origin<'o> {
    /// It carries a cut of this cluster.
    copied: bool,
    /// Else: the births its rows would get by their content.
    births: BTreeMap<(usize, Key), RowId>,
    outbox: &'o Drain,
}

/// What becomes of a table's rows.
#[derive(Default)]
struct Sorted {
    /// The log wins: (row, what the file shows of it now).
    rewritten: Vec<(RowId, Option<(Key, Image)>)>,
    /// Rows of their own.
    new: Vec<(Key, Image)>,
}

impl Node {
    /// Whether somebody told all that the cluster holds, or the wait is over.
    pub(super) fn may_adopt(&self, position: usize, deadline_ms: u64, now: Now) -> Result<bool, NodeError> {
        let holds = |peer: &super::exchange::Peer| {
            peer.heads.iter().all(|(id, head)| self.heads.get(id).is_some_and(|mine| mine.seq >= head.seq))
        };
        let told = self.exchange.peers.values().any(|peer| peer.connected && peer.heard && holds(peer));
        Ok(now.mono_ms >= deadline_ms || told && self.holds_causes(position)?)
    }

    /// Whether the log holds all that the authors of its events of a database knew. A fresh event can be pushed here before
    /// what it builds on has come; to compare rows then would take them all for new.
    fn holds_causes(&self, position: usize) -> Result<bool, NodeError> {
        let read = self.log.read()?;
        for (origin, head) in &self.heads {
            let causes = read.cut_of(&self.schemas[position].database, *origin, head.seq)?;
            if causes.iter().any(|dot| self.heads.get(dot.actor).is_none_or(|held| held.seq < dot.counter)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Compares a file with what the cluster holds and takes over what is equal.
    pub(super) fn adopt(&mut self, position: usize, now: Now) -> Result<(), NodeError> {
        let meta = self.databases[position].file.meta()?;
        let copied = meta.applied.iter().any(|dot| self.heads.contains_key(dot.actor));
        self.evaluate_unshown(position, now)?;
        let outbox = self.databases[position].file.drain()?;
        let births = if copied { BTreeMap::new() } else { self.births_here(position)? };
        let origin = Origin { copied, births, outbox: &outbox };
        let mut drain = Drain { meta: outbox.meta.clone(), ..Drain::default() };
        for table in 0..self.schemas[position].tables.len() {
            let sorted = self.sort_rows(position, table, &origin, now)?;
            self.take_over_dirty(position, &sorted.rewritten, now)?;
            let name = self.schemas[position].tables[table].name.clone();
            for (key, image) in sorted.new {
                let (op, table) = (MarkOp::Insert, name.clone());
                let mark =
                    Mark { seq: 0, rid: [0; 16], op, table, key: key.clone(), old_key: None, wall_ms: now.wall_ms };
                drain.marks.push(mark);
                drain.images.insert((name.clone(), key), Some(image));
            }
        }
        if copied {
            // What was written here since the copy: inserts are among the new rows.
            let edits = outbox.marks.iter().filter(|mark| matches!(mark.op, MarkOp::Update | MarkOp::Delete));
            drain.marks.extend(edits.cloned());
            for (at, image) in &outbox.images {
                drain.images.entry(at.clone()).or_insert_with(|| image.clone());
            }
        }
        self.log_drain(position, &drain, Ids::Found, now)?;
        self.databases[position].file.clear_marks(outbox.through_seq)?;
        self.databases[position].behind = true;
        Ok(())
    }

    /// Evaluates all events of a database and takes the result for what the file shows; the comparison puts it right.
    fn evaluate_unshown(&mut self, position: usize, now: Now) -> Result<(), NodeError> {
        let name = self.schemas[position].database.clone();
        loop {
            let mut cursor = self.databases[position].cursor.clone();
            let events = super::apply::ready_events(&self.log, &name, &cursor, super::capture::CHANGES_MAX)?;
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

    fn sort_rows(&mut self, position: usize, table: usize, origin: &Origin<'_>, now: Now) -> Result<Sorted, NodeError> {
        let (copied, outbox) = (origin.copied, origin.outbox);
        let difference = self.compare(position, table, now)?;
        let schema = self.schemas[position].tables[table].clone();
        let marked = |key: &Key, op: MarkOp| {
            outbox.marks.iter().any(|mark| mark.op == op && mark.table == schema.name && mark.key == *key)
        };
        let deleted: BTreeSet<&Key> = outbox
            .marks
            .iter()
            .filter(|mark| mark.op == MarkOp::Delete && mark.table == schema.name)
            .map(|mark| &mark.key)
            .collect();
        let mut sorted = Sorted::default();
        for row in difference.missing {
            let shown = self.log.read()?.row(&row)?.and_then(|record| record.shown);
            // A delete made on the copy is a delete.
            if !copied || !shown.is_some_and(|key| deleted.contains(&key)) {
                sorted.rewritten.push((row, None));
            }
        }
        let by_key = copied || schema.identity == Identity::Rowid || matches!(schema.identity, Identity::Keyed(_));
        for (key, image, row) in difference.changed {
            let found = self.enrolled_elsewhere(origin, table, &key)?;
            if let Some(born) = found {
                // The cluster has this very row, changed since: what stands at its key here is older.
                if born != row {
                    sorted.rewritten.push((row, None));
                }
                sorted.rewritten.push((born, Some((key, image))));
            } else if copied && marked(&key, MarkOp::Insert) || !by_key {
                sorted.rewritten.push((row, None));
                sorted.new.push((key, image));
            } else if !(copied && marked(&key, MarkOp::Update)) {
                if !copied && schema.identity != Identity::Rowid {
                    self.keep_joiners_values(position, table, row, &image, now)?;
                }
                sorted.rewritten.push((row, Some((key, image))));
            }
        }
        for (key, image) in difference.unknown {
            let former = if copied && !marked(&key, MarkOp::Insert) && !marked(&key, MarkOp::Update) {
                self.former_holder(position, table, &key)?
            } else {
                self.enrolled_elsewhere(origin, table, &key)?
            };
            match former {
                Some(row) => sorted.rewritten.push((row, Some((key, image)))),
                None => sorted.new.push((key, image)),
            }
        }
        Ok(sorted)
    }

    /// Births by content of all rows of a file.
    fn births_here(&self, position: usize) -> Result<BTreeMap<(usize, Key), RowId>, NodeError> {
        let schema = &self.schemas[position];
        let mut found = Vec::new();
        for (table, entry) in schema.tables.iter().enumerate() {
            let rows = self.read_table(position, &entry.name)?;
            found.extend(rows.into_iter().map(|(key, image)| Found { table, key, image }));
        }
        Ok(births(schema, &mut found))
    }

    /// The row that somebody else enrolled with exactly the content that stands at a key here.
    fn enrolled_elsewhere(&self, origin: &Origin<'_>, table: usize, key: &Key) -> Result<Option<RowId>, NodeError> {
        let Some(birth) = origin.births.get(&(table, key.clone())) else { return Ok(None) };
        let known = matches!(birth, RowId::Genesis(_)) && self.log.read()?.row(birth)?.is_some();
        Ok(known.then_some(*birth))
    }

    /// The cluster's values of a keyed row stay; the joiner's go to the audit.
    fn keep_joiners_values(
        &mut self,
        position: usize,
        table: usize,
        row: RowId,
        image: &Image,
        now: Now,
    ) -> Result<(), NodeError> {
        let schema = &self.schemas[position].tables[table];
        let origin = self.chain.origin().id();
        let mut write = self.log.write()?;
        let Some(record) = Store::row(&write, &row)? else { return Ok(()) };
        let names = Store::columns(&write, record.table)?;
        for (column, value) in schema.columns.iter().zip(image) {
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

    /// Whether the log knows rows of a database; rules alone are none.
    pub(super) fn knows_rows(&self, position: usize) -> Result<bool, NodeError> {
        let read = self.log.read()?;
        for origin in self.heads.keys() {
            let mut from = 1;
            while let Some((seq, stored)) = read.next_of_database(origin, from, &self.schemas[position].database)? {
                if decode_event(&stored.bytes)?.changes.iter().any(|change| change.row().is_some()) {
                    return Ok(true);
                }
                from = seq + 1;
            }
        }
        Ok(false)
    }
}
