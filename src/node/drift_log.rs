//! Healing the log itself: a damaged event comes from a peer, a damaged record of a row from the events.
//!
//! Events: the hash that an event must have stands in the event behind it (or is the head's), so whoever sends it can only
//! send the right one; asked is one peer after the other, by an ordinary pull of exactly this event. Records: all events are
//! evaluated once more in memory, under the numbers that this log gave to tables and columns, and the damaged rows' records
//! taken from there; what the file shows of them is read from the file. That takes time and memory for the whole log at
//! once, so it happens by itself only while the databases are small ([`ROWS_MAX`]), else when a person orders it.
//! Invariant: nothing is stored whose hash was not checked; a record that nothing can prove stays as it is. An event larger
//! than a frame is not fetched. Callers: verify, step (what a peer answers).

use std::sync::Arc;

use super::verify_run::Run;
use super::{Effect, Node, NodeError, Now};
use crate::log::LogError;
use crate::merge::Evaluator;
use crate::merge::image::image_hash;
use crate::merge::memory::MemoryStore;
use crate::merge::store::{Row, Store, TableId};
use crate::model::{DriftAction, DriftCause, DriftKind, DriftRecord, NodeId, OriginId, RowId, Tier, Value};
use crate::wire::event::{decode_event, event_hash};
use crate::wire::limits;
use crate::wire::message::{Events, Message, Pull, Range};

/// Rows of all databases up to which records are derived again without an order.
const ROWS_MAX: u64 = 50_000;

/// A peer is asked again after this, ms.
const ASK_AGAIN_MS: u64 = 5_000;

/// Numbers of pulls for single events: no peer's own count comes near.
const REQUEST: u64 = u64::MAX - (1 << 32);

impl Node {
    /// Asks peers for damaged events.
    pub(super) fn ask_for_damaged(&mut self, now: Now) {
        if self.verify.damaged.is_empty() || now.mono_ms < self.verify.ask_ms {
            return;
        }
        self.verify.ask_ms = now.mono_ms + ASK_AGAIN_MS;
        let round = self.verify.asked as usize;
        self.verify.asked += 1;
        // One at a time: a peer keeps one pull of each asker. The last ones first: each proves the one before it.
        let Some((origin, seq)) = self.verify.damaged.keys().rev().nth(round % self.verify.damaged.len()).copied()
        else {
            return;
        };
        let holds = |id: &&NodeId| {
            self.exchange.stated(id).and_then(|heads| heads.get(&origin)).is_some_and(|head| head.seq >= seq)
        };
        let peers = self.exchange.peers.iter().filter(|(_, peer)| peer.connected).map(|(id, _)| id);
        let able: Vec<NodeId> = peers.filter(holds).copied().collect();
        let Some(peer) = able.get(round % able.len().max(1)).copied() else { return };
        let range = Range { origin, after: seq - 1, through: seq, offset: 0 };
        let max_bytes = limits::PULL_BYTES as u32;
        let pull = Pull { request: REQUEST + self.verify.asked, max_bytes, ranges: vec![range], ..Pull::default() };
        self.effects.push_back(Effect::Send { peer, frame: Message::Pull(pull).encode() });
    }

    /// Takes events out of an answer that stand in the place of damaged ones.
    pub(super) fn mend_events(&mut self, from: NodeId, events: &Events, now: Now) -> Result<(), NodeError> {
        if self.verify.damaged.is_empty() {
            return Ok(());
        }
        for one in &events.events {
            let Ok(event) = decode_event(&one.bytes) else { continue };
            let (origin, seq) = (event.header.origin.id(), event.header.seq);
            let Some((run, number)) = self.verify.damaged.get(&(origin, seq)).copied() else { continue };
            let hash = event_hash(&one.bytes);
            if self.hash_of(origin, seq)? != Some(hash) {
                continue;
            }
            crate::sometimes!("drift: a damaged event comes from a peer");
            let signature = one.signature.filter(|signature| super::exchange::is_signed(&event, &hash, signature));
            let mut write = self.log.write()?;
            write.put_body(&event, &one.bytes, hash, signature)?;
            let record = self.log.read()?.drift(number.saturating_sub(1), 1)?.pop();
            if let Some(mut record) = record.filter(|record| record.number == number) {
                (record.action, record.from, record.healed_ms) = (DriftAction::Fetched, Some(from), Some(now.wall_ms));
                write.put_drift(&record)?;
                self.verify.open.remove(&(record.database, record.table, record.key));
            }
            write.commit_durable()?;
            self.relaxed = false;
            self.verify.damaged.remove(&(origin, seq));
            // The next one at once, the last one first.
            (self.verify.asked, self.verify.ask_ms) = (0, now.mono_ms);
            if let Some(run) = self.verify.run.as_mut().filter(|under_way| under_way.record.number == run) {
                run.record.healed += 1;
            }
        }
        Ok(())
    }

    /// The hash that an event must have, by what stands behind it.
    fn hash_of(&self, origin: OriginId, seq: u64) -> Result<Option<[u8; 32]>, NodeError> {
        let Some(head) = self.heads.get(&origin) else { return Ok(None) };
        if head.seq == seq {
            return Ok(Some(head.hash));
        }
        match self.log.read()?.event(&origin, seq + 1) {
            Ok(Some(next)) => Ok(Some(decode_event(&next.bytes)?.header.previous)),
            Ok(None) | Err(LogError::CorruptEvent { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Derives records again that cannot be read. Returns those that were.
    pub(super) fn derive_again(
        &mut self,
        run: &Run,
        (position, table): (usize, &str),
        rows: &[RowId],
        now: Now,
    ) -> Result<Vec<DriftRecord>, NodeError> {
        let read = self.log.read()?;
        let mut all = 0;
        for schema in &self.schemas {
            for id in read.tables_of(&schema.database) {
                all += read.fingerprint(id)?.rows;
            }
        }
        drop(read);
        let may = run.record.repair || self.verify.settings.repair && all <= ROWS_MAX;
        let mut records: Vec<DriftRecord> = rows
            .iter()
            .map(|row| DriftRecord {
                run: run.record.number,
                tier: Some(Tier::Full),
                kind: DriftKind::Record,
                row: Some(*row),
                key: vec![Value::text(&row.to_string())],
                cause: DriftCause::LogDamaged,
                action: DriftAction::Waits,
                words: "the log's record of the row could not be read; its events can".to_string(),
                ..self.blank_record(position, table, now)
            })
            .collect();
        self.keep_aside(&mut records)?;
        if !may || !self.applied_all() {
            return Ok(records);
        }
        crate::sometimes!("drift: a damaged record is derived again from the events");
        let mut store = MemoryStore::default();
        self.number_as_here(&mut store)?;
        let (mut store, mut write) = (self.evaluate_again(store)?, self.log.write()?);
        for record in &mut records {
            let Some(row) = record.row else { continue };
            let derived = self.as_shown_here(&mut store, (position, table), &row, now)?;
            let Some(derived) = derived.map(Arc::new) else { continue };
            write.put_row(&row, derived.clone(), true)?;
            record.action = DriftAction::Rewritten;
            if let Some(key) = &derived.shown {
                record.key.clone_from(key);
            }
        }
        let mut evaluator = Evaluator::new(&mut write, &self.ranks, &self.schemas, now.wall_ms);
        let healed: Vec<RowId> = records
            .iter()
            .filter(|record| record.action == DriftAction::Rewritten)
            .filter_map(|record| record.row)
            .collect();
        evaluator.touch_again(healed)?;
        evaluator.settle()?;
        let left = super::step::clean_equal(&mut evaluator, &self.schemas[position].database)?;
        evaluator.finish()?;
        for record in &mut records {
            record.healed_ms = (record.action == DriftAction::Rewritten).then_some(now.wall_ms);
            write.put_drift(record)?;
        }
        write.commit_durable()?;
        self.relaxed = false;
        self.databases[position].behind |= left;
        self.verify.open.retain(|_, number| {
            !records.iter().any(|record| record.number == *number && record.action != DriftAction::Waits)
        });
        Ok(records)
    }

    /// Gives tables and columns the numbers that they have in this log.
    fn number_as_here(&self, store: &mut MemoryStore) -> Result<(), NodeError> {
        let read = self.log.read()?;
        for number in 0.. {
            let Ok((database, table)) = read.table_name(TableId(number)) else { break };
            let Ok(id) = store.table_id(&database, &table);
            assert!(id.0 == number, "table {number} of the log is {} in memory", id.0);
            for column in read.columns(id)? {
                let Ok(_) = store.column_id(id, &column);
            }
        }
        Ok(())
    }

    /// The derived record of a row, with what this node's file shows of it.
    fn as_shown_here(
        &self,
        store: &mut MemoryStore,
        (position, table): (usize, &str),
        row: &RowId,
        now: Now,
    ) -> Result<Option<Row>, NodeError> {
        let mut evaluator = Evaluator::new(store, &self.ranks, &self.schemas, now.wall_ms);
        let Ok(target) = evaluator.target(row);
        let Ok(record) = evaluator.row(row);
        let Some(mut record) = record.cloned() else { return Ok(None) };
        (record.shown, record.image_hash, record.lag) = (None, [0; 32], None);
        let Some((key, _)) = target else { return Ok(Some(record)) };
        if self.log.read()?.shown(record.table, &key)? != Some(*row) {
            return Ok(Some(record));
        }
        let found = self.databases[position].file.inspect_rows(table, std::slice::from_ref(&key))?;
        if let Some((key, Some(image))) = found.rows.into_iter().next() {
            (record.shown, record.image_hash) = (Some(key), image_hash(table, &image));
        }
        Ok(Some(record))
    }
}
