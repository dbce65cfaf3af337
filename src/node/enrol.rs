//! Enrolling: a file comes under replication for the first time.
//!
//! Triggers stand before the first row is read, so nothing is missed between. Then: a file without rows is filled like one
//! that is behind; in a cluster that holds rows, what is here is compared with them ([`super::adopt`]); else every row gets
//! a birth by its content ([`super::genesis`]). The note that the file is enrolled is written last, or with the births.
//! Invariant: a crash before that note starts all of it again from the file. Callers: `recover`, `waiting`, `rehearsal`.

use super::found::Found;
use super::genesis::genesis;
use super::lag::take_over;
use super::meeting::{Meeting, MetTable};
use super::recover::note_enrolled;
use super::step::clean_equal;
use super::{Node, NodeError, Now};
use crate::merge::Evaluator;
use crate::model::{Bug, ForeignKey, Head, Heads, Value, planted};

impl Node {
    /// Takes a file under replication for the first time: triggers, then births for the rows that are there.
    pub(super) fn enrol(&mut self, position: usize, now: Now) -> Result<(), NodeError> {
        self.watch(position)?;
        if self.starts_empty(position)? {
            crate::sometimes!("adopt: a file without rows is filled like any other");
            self.databases[position].behind = true;
            return self.enrolled(position);
        }
        self.meet(position, now).map(drop)
    }

    /// The same, comparing in every case: what became of every row, where there was a cluster to meet.
    pub(super) fn enrol_comparing(&mut self, position: usize, now: Now) -> Result<Vec<MetTable>, NodeError> {
        self.watch(position)?;
        self.meet(position, now)
    }

    /// Triggers stand from here on; all rows are read after it.
    fn watch(&mut self, position: usize) -> Result<(), NodeError> {
        let database = &mut self.databases[position];
        database.file.enroll()?;
        self.schemas[position] = database.file.schema().clone();
        self.all_scanned(position)?;
        self.databases[position].file.schema_seen()?;
        Ok(())
    }

    /// Whether there is nothing to compare: no row, no mark, and nothing of this database was ever evaluated here. Then
    /// the cluster's rows come event by event, as they come to any file that is behind.
    fn starts_empty(&self, position: usize) -> Result<bool, NodeError> {
        let database = &self.databases[position];
        let fresh = database.cursor.is_empty() && self.log.read()?.cursor(&database.settings.name)?.is_none();
        if !fresh || self.needs_cluster(position)? {
            return Ok(false);
        }
        for table in &self.schemas[position].tables {
            if !database.file.scan_page(&table.name, None, 1)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(!database.file.has_marks()?)
    }

    fn meet(&mut self, position: usize, now: Now) -> Result<Vec<MetTable>, NodeError> {
        let independent =
            self.meeting(&self.schemas[position].database)? == Meeting::Independent || planted(Bug::GenesisPerServer);
        let mut met = Vec::new();
        if independent || self.knows_rows(position)? && self.holds_causes(position)? {
            met = self.adopt(position, now)?;
        } else {
            let database = &mut self.databases[position];
            let before = database.file.drain()?;
            // Left by an earlier node: their rows are in the file.
            database.file.clear_marks(before.through_seq)?;
            let tables: Vec<usize> = (0..self.schemas[position].tables.len()).collect();
            self.adopt_tables(position, &tables, true, now)?;
        }
        self.enrolled(position)?;
        Ok(met)
    }

    fn enrolled(&mut self, position: usize) -> Result<(), NodeError> {
        let epoch = self.databases[position].file.fence()?;
        self.databases[position].ready = true;
        self.note_file(position, epoch)
    }

    /// Notes in the file that no table needs a scan any more.
    pub(super) fn all_scanned(&mut self, position: usize) -> Result<(), NodeError> {
        let file = &mut self.databases[position].file;
        for table in file.tables_to_scan() {
            file.table_scanned(&table)?;
        }
        Ok(())
    }

    /// Gives births by content to all rows of tables that the log knows nothing of, and takes them over as shown.
    /// `enrolling`: the note that the file is enrolled is written with them. Otherwise a crash before the note would have
    /// the file compared with its own births, and what the app changed meanwhile would pass for an old value.
    pub(super) fn adopt_tables(
        &mut self,
        position: usize,
        tables: &[usize],
        enrolling: bool,
        now: Now,
    ) -> Result<(), NodeError> {
        let schema = &self.schemas[position];
        let mut found = Vec::new();
        for table in tables {
            let name = &schema.tables[*table].name;
            let rows = self.read_table(position, name)?;
            found.extend(rows.into_iter().map(|(key, image)| Found { table: *table, key, image }));
        }
        let read = self.log.read()?;
        let elsewhere = |key: &ForeignKey, values: &[Value]| self.shown_elsewhere(&read, key, values);
        crate::sometimes!("adopt: rows are enrolled by content");
        let genesis = genesis(schema, self.membership.cluster().0, found, &elsewhere)?;
        let Some(genesis) = genesis else { return Ok(()) };
        let name = schema.database.clone();
        // The file must be safe before the log says so.
        let epoch = self.databases[position].file.fence()?;
        let mut write = self.log.write()?;
        let mut heads: Heads = self.heads.clone();
        let mut cursor = self.databases[position].cursor.clone();
        let mut evaluator = Evaluator::new(&mut write, &self.ranks, &self.schemas, now.wall_ms);
        for one in &genesis.events {
            let header = &one.event.header;
            let id = header.origin.id();
            if heads.get(&id).is_none_or(|head| head.seq < header.seq) {
                evaluator.store_mut().append(&one.event, &one.bytes, one.hash, Some(one.signature))?;
                heads.insert(id, Head { origin: header.origin, seq: header.seq, hash: one.hash });
            }
            evaluator.integrate(&one.event)?;
            crdts::CmRDT::apply(&mut cursor, crdts::Dot::new(id, header.seq));
        }
        evaluator.settle()?;
        let shown: Vec<_> = genesis.shown.into_iter().map(|(row, shown)| (row, Some(shown))).collect();
        take_over(&mut evaluator, &shown)?;
        let left = clean_equal(&mut evaluator, &name)?;
        evaluator.finish()?;
        if enrolling {
            note_enrolled(&mut write, &name, &self.databases[position].file)?;
        }
        write.put_cursor(&name, &cursor, epoch)?;
        write.commit_durable()?;
        self.heads = heads;
        let database = &mut self.databases[position];
        database.cursor = cursor;
        database.behind |= left;
        Ok(())
    }
}
