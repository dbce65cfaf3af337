//! Decisions: merges, splits and other changes that no app wrote, as events of this node.
//!
//! A decision is sealed like a capture and says as its cut what the file shows. It may name rows that this file does not
//! show yet (a merge that the next apply shall find done, so that the app never sees both rows): the evaluator takes it
//! in at once and it takes effect when its rows are known. Invariant: durable and evaluated when the call returns; the
//! rows it concerns are dirty. Callers: the step (merges that R8 finds), orders of people.

use super::capture::{Part, table_entry};
use super::chain::Sealing;
use super::lag::note_lag;
use super::step::{append_own, clean_equal, delta, others};
use super::{Node, NodeError, Now};
use crate::merge::Evaluator;
use crate::merge::unique::MergePair;
use crate::model::Change;

impl Node {
    /// R11: joins rows that were born with one key.
    pub(super) fn merge_pairs(&mut self, position: usize, pairs: &[MergePair], now: Now) -> Result<(), NodeError> {
        let mut part = Part::default();
        for pair in pairs {
            let Some(schema) = self.schemas[position].table(&pair.table) else { continue };
            let table = table_entry(&mut part.tables, schema);
            let mut columns: Vec<u32> =
                pair.columns.iter().filter_map(|name| schema.column(name)).map(|column| column as u32).collect();
            columns.sort_unstable();
            part.changes.push(Change::Merge { table, row: pair.row, other: pair.other, columns });
        }
        self.write_decision(position, part, now)
    }

    /// What the app wrote before a person's decision goes before it into the log.
    pub(super) fn hear_app_first(&mut self, position: usize, now: Now) -> Result<(), NodeError> {
        if !self.databases[position].ready {
            let name = &self.databases[position].settings.name;
            return Err(NodeError::Invalid(format!(
                "{name} is not replicated yet (the node waits to hear the cluster): try again in a few seconds"
            )));
        }
        self.capture(position, now)?;
        Ok(())
    }

    /// Writes an event of this node that no app wrote.
    pub(super) fn write_decision(&mut self, position: usize, part: Part, now: Now) -> Result<(), NodeError> {
        self.write_ordered(position, vec![part], "", now)
    }

    /// Writes events of this node that no app wrote and that are shown together or not at all. `note`: who ordered them, and
    /// why.
    pub(super) fn write_ordered(
        &mut self,
        position: usize,
        mut parts: Vec<Part>,
        note: &str,
        now: Now,
    ) -> Result<(), NodeError> {
        parts.retain(|part| !part.changes.is_empty());
        if parts.is_empty() {
            return Ok(());
        }
        let database = &mut self.databases[position];
        let name = database.settings.name.clone();
        let origin = self.chain.origin().id();
        let head = self.heads.get(&origin).copied();
        let said = others(&database.cursor, origin);
        let sealing = Sealing {
            database: &name,
            applied: delta(&said, &database.said),
            schema: self.schemas[position].fingerprint,
            stamp: self.clock.stamp(now.wall_ms, now.wall_ms),
            note,
        };
        let sealed = self.chain.seal(head, parts, sealing);
        let mut write = self.log.write()?;
        let mut evaluator = Evaluator::new(&mut write, &self.ranks, &self.schemas, now.wall_ms);
        let fresh = append_own(&mut evaluator, sealed)?;
        evaluator.settle()?;
        let left = clean_equal(&mut evaluator, &name)?;
        note_lag(&mut evaluator, &name, &database.file, &[])?;
        evaluator.finish()?;
        let mut cursor = database.cursor.clone();
        if let Some((head, _)) = fresh.last() {
            crdts::CmRDT::apply(&mut cursor, crdts::Dot::new(origin, head.seq));
        }
        let epoch = write.cursor(&name)?.map_or(0, |(_, epoch)| epoch);
        write.put_cursor(&name, &cursor, epoch)?;
        write.put_clock(self.clock.last())?;
        write.commit_durable()?;
        if let Some((head, _)) = fresh.last() {
            self.heads.insert(origin, *head);
        }
        database.said = said;
        database.cursor = cursor;
        database.behind |= left;
        self.due = true;
        self.relaxed = false;
        self.wake_dirty(position)?;
        self.publish(&fresh, now);
        Ok(())
    }
}
