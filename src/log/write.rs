//! The one write transaction: appends events, keeps the node's records, and carries the evaluator's changes.
//!
//! Invariant: an event is appended only behind the one it names as its predecessor, so a chain in the log never has a gap
//! or a fork; nothing is visible or durable before a commit, and a dropped transaction leaves no trace.
//! Callers: node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use redb::{Durability, ReadableTable, WriteTransaction};

use super::names::Names;
use super::overlay::KeySet;
use super::read::{DatabaseRecord, cursor_in, cut_at, database_key, next_seq};
use super::stored::{self, StoredEvent};
use super::tables;
use super::{Log, LogError, LogRead, record, row_record};
use crate::merge::rules::RuleRecord;
use crate::merge::store::{AuditRecord, Fingerprint, Row, TableId};
use crate::model::{Cut, Event, Head, Heads, OriginId, RowId, Stamp};

/// A write transaction. Dropping it undoes everything.
pub struct LogWrite<'log> {
    pub(super) log: &'log Log,
    pub(super) transaction: WriteTransaction,
    /// What was committed before.
    pub(super) base: LogRead,
    /// The evaluator's changes, written at the commit.
    pub(super) changed: Changed,
    /// Tables and columns; a copy of the committed ones as soon as one is added.
    pub(super) names: Arc<Names>,
    pub(super) names_changed: BTreeSet<u32>,
    heads: Heads,
    heads_changed: BTreeSet<OriginId>,
    databases: BTreeMap<String, DatabaseRecord>,
    databases_changed: BTreeSet<String>,
    arrival: u64,
}

/// The evaluator's changes.
#[derive(Default)]
pub(super) struct Changed {
    pub(super) rules: BTreeMap<TableId, Vec<RuleRecord>>,
    pub(super) rows: BTreeMap<RowId, Arc<Row>>,
    pub(super) table_rows: KeySet<33>,
    pub(super) shown: BTreeMap<Vec<u8>, Option<RowId>>,
    pub(super) claims: KeySet<45>,
    pub(super) referrers: KeySet<58>,
    pub(super) unique: KeySet<49>,
    pub(super) shelf: KeySet<29>,
    pub(super) dirty: KeySet<33>,
    pub(super) fingerprints: BTreeMap<TableId, Fingerprint>,
    pub(super) prints: super::prints::PrintNotes,
    pub(super) audit: Vec<AuditRecord>,
    /// The last audit number given, once one was.
    pub(super) last_audit: Option<u64>,
}

impl<'log> LogWrite<'log> {
    pub(super) fn new(log: &'log Log, transaction: WriteTransaction) -> Result<LogWrite<'log>, LogError> {
        let base = log.read()?;
        let mut databases = BTreeMap::new();
        for entry in base.databases.iter()? {
            let name = entry?.0.value().to_owned();
            if let Some(record) = base.database(&name)? {
                databases.insert(name, record);
            }
        }
        Ok(LogWrite {
            log,
            transaction,
            changed: Changed::default(),
            names: base.names.clone(),
            names_changed: BTreeSet::new(),
            heads: base.heads()?,
            heads_changed: BTreeSet::new(),
            databases,
            databases_changed: BTreeSet::new(),
            arrival: base.last_arrival()?,
            base,
        })
    }

    /// Appends the next event of its origin; returns its arrival number. `bytes` are its canonical bytes and `hash` their
    /// chain hash. The signature, if there is one, was verified by the caller.
    pub fn append(
        &mut self,
        event: &Event,
        bytes: &[u8],
        hash: [u8; 32],
        signature: Option<[u8; 64]>,
    ) -> Result<u64, LogError> {
        let header = &event.header;
        let (origin, seq) = (header.origin.id(), header.seq);
        self.check_next(event, origin, &hash)?;
        let arrival = self.store_event(event, bytes, hash, signature)?;
        self.set_head(Head { origin: header.origin, seq, hash });
        Ok(arrival)
    }

    /// The last event of an origin's history.
    pub(super) fn set_head(&mut self, head: Head) {
        self.heads_changed.insert(head.origin.id());
        self.heads.insert(head.origin.id(), head);
    }

    /// The number of the next arrival.
    pub(super) fn next_arrival(&mut self) -> u64 {
        self.arrival += 1;
        self.arrival
    }

    /// Puts an event in its place, which a damaged copy of it may hold. The caller has checked hash and signature; indexes
    /// and heads stand as they are.
    pub fn put_body(
        &mut self,
        event: &Event,
        bytes: &[u8],
        hash: [u8; 32],
        signature: Option<[u8; 64]>,
    ) -> Result<(), LogError> {
        let key = stored::event_key(event.header.origin.id(), event.header.seq);
        let value = stored::pack(&key, bytes, &hash, signature.as_ref());
        self.transaction.open_table(tables::EVENTS)?.insert(&key, value.as_slice())?;
        Ok(())
    }

    /// Whether the event is the next of its chain.
    fn check_next(&self, event: &Event, origin: OriginId, hash: &[u8; 32]) -> Result<(), LogError> {
        let found = event.header.seq;
        let (last, previous) = self.heads.get(&origin).map_or((0, [0; 32]), |head| (head.seq, head.hash));
        let expected = last + 1;
        if found == expected {
            let fits = event.header.previous == previous;
            return if fits { Ok(()) } else { Err(LogError::Fork { origin, seq: found }) };
        }
        if found <= last && found > 0 && self.event(&origin, found)?.is_some_and(|stored| stored.hash != *hash) {
            return Err(LogError::Fork { origin, seq: found });
        }
        Err(LogError::OutOfOrder { origin, expected, found })
    }

    /// Per origin, the last event held, those of this transaction included.
    pub fn heads(&self) -> &Heads {
        &self.heads
    }

    /// One event, of this transaction or before; `None` beyond the origin's head.
    pub fn event(&self, origin: &OriginId, seq: u64) -> Result<Option<StoredEvent>, LogError> {
        let origin = *origin;
        let hot = stored::find(&self.transaction.open_table(tables::EVENTS)?, origin, seq)?;
        let found = match hot {
            None => self.base.archive.event(origin, seq)?,
            found => found,
        };
        if found.is_none() && seq > 0 && self.heads.get(&origin).is_some_and(|head| head.seq >= seq) {
            return Err(LogError::CorruptEvent { origin, seq });
        }
        Ok(found)
    }

    /// The first event of a database in an origin's chain, at or after `from_seq`, with its number.
    pub fn next_of_database(
        &self,
        origin: &OriginId,
        from_seq: u64,
        database: &str,
    ) -> Result<Option<(u64, StoredEvent)>, LogError> {
        let Some(record) = self.databases.get(database) else { return Ok(None) };
        let hot = next_seq(&self.transaction.open_table(tables::DATABASE_EVENTS)?, record.number, *origin, from_seq)?;
        let archived = self.base.archive.next_seq(*origin, from_seq, record.number)?;
        match archived.into_iter().chain(hot).min() {
            Some(seq) => Ok(self.event(origin, seq)?.map(|event| (seq, event))),
            None => Ok(None),
        }
    }

    /// The full cut an event's author had applied, its own earlier events included.
    pub fn cut_of(&self, database: &str, origin: OriginId, seq: u64) -> Result<Cut, LogError> {
        let number = self.databases.get(database).map(|record| record.number);
        cut_at(&self.transaction.open_table(tables::CUTS)?, &self.base.archive, number, origin, seq)
    }

    /// Keeps a value by name.
    pub fn put_meta(&mut self, key: &str, value: &[u8]) -> Result<(), LogError> {
        self.transaction.open_table(tables::META)?.insert(key, value)?;
        Ok(())
    }

    /// Forgets a value kept by name.
    pub(super) fn drop_meta(&mut self, key: &str) -> Result<(), LogError> {
        self.transaction.open_table(tables::META)?.remove(key)?;
        Ok(())
    }

    /// A value kept by name.
    pub fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, LogError> {
        let table = self.transaction.open_table(tables::META)?;
        let value = table.get(key)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    /// Stores a member record under its hash.
    pub fn put_member(&mut self, hash: &[u8; 32], record: &[u8]) -> Result<(), LogError> {
        self.transaction.open_table(tables::MEMBERS)?.insert(hash, record)?;
        Ok(())
    }

    /// Remembers a way to reach a peer, and when it last led there (wall time; 0: never yet).
    pub fn put_address(&mut self, address: &str, peer: &str, reached_ms: u64) -> Result<(), LogError> {
        self.transaction.open_table(tables::ADDRESSES)?.insert((address, peer), ())?;
        if reached_ms > 0 {
            self.transaction.open_table(tables::REACHED)?.insert((address, peer), reached_ms)?;
        }
        Ok(())
    }

    /// Forgets a way to reach a peer.
    pub fn drop_address(&mut self, address: &str, peer: &str) -> Result<(), LogError> {
        self.transaction.open_table(tables::ADDRESSES)?.remove((address, peer))?;
        self.transaction.open_table(tables::REACHED)?.remove((address, peer))?;
        Ok(())
    }

    /// Notes what the file of a database shows now, and the file's epoch.
    pub fn put_cursor(&mut self, database: &str, cursor: &Cut, epoch: u64) -> Result<(), LogError> {
        let value = record::seal(database.as_bytes(), &(cursor, epoch));
        self.transaction.open_table(tables::CURSORS)?.insert(database, value.as_slice())?;
        Ok(())
    }

    /// What the file of a database shows, and the file's epoch then.
    pub fn cursor(&self, database: &str) -> Result<Option<(Cut, u64)>, LogError> {
        cursor_in(&self.transaction.open_table(tables::CURSORS)?, database)
    }

    /// Notes an event of which the file cannot show everything yet, and what it lacks.
    pub fn put_held(&mut self, database: &str, origin: OriginId, seq: u64, lacks: &str) -> Result<(), LogError> {
        let key = database_key(self.database_mut(database).number, origin, seq);
        self.transaction.open_table(tables::HELD)?.insert(&key, record::seal(&key, &lacks).as_slice())?;
        Ok(())
    }

    /// Forgets a held event: the file shows it, or it is noted anew.
    pub fn drop_held(&mut self, database: &str, origin: OriginId, seq: u64) -> Result<(), LogError> {
        let key = database_key(self.database_mut(database).number, origin, seq);
        self.transaction.open_table(tables::HELD)?.remove(&key)?;
        Ok(())
    }

    /// Keeps the last stamp given or absorbed, so that stamps never go back.
    pub fn put_clock(&mut self, last: Stamp) -> Result<(), LogError> {
        let value = record::seal(tables::CLOCK_KEY.as_bytes(), &last);
        self.transaction.open_table(tables::META)?.insert(tables::CLOCK_KEY, value.as_slice())?;
        Ok(())
    }

    /// Notes the marks that an own event holds, until the file has cleared them.
    pub fn put_rids(&mut self, database: &str, seq: u64, rids: &[[u8; 16]]) -> Result<(), LogError> {
        let number = self.database_mut(database).number;
        let key: [u8; 12] = tables::join(&[&number.to_be_bytes(), &seq.to_be_bytes()]);
        self.transaction.open_table(tables::RIDS)?.insert(&key, record::seal(&key, &rids).as_slice())?;
        Ok(())
    }

    /// Forgets the marks of own events up to `seq`: the file has cleared them.
    pub fn drop_rids_through(&mut self, database: &str, seq: u64) -> Result<(), LogError> {
        let Some(record) = self.databases.get(database) else { return Ok(()) };
        let from: [u8; 12] = tables::join(&[&record.number.to_be_bytes(), &[0; 8]]);
        let through: [u8; 12] = tables::join(&[&record.number.to_be_bytes(), &seq.to_be_bytes()]);
        let mut table = self.transaction.open_table(tables::RIDS)?;
        table.retain_in::<&[u8; 12], _>(&from..=&through, |_, _| false)?;
        Ok(())
    }

    /// Commits; when this returns, everything is on disk, and opening after a crash needs no repair.
    pub fn commit_durable(self) -> Result<(), LogError> {
        self.commit(Durability::Immediate)
    }

    /// Commits without waiting for the disk: a crash may lose it (never tear it) until the next durable commit. For
    /// state that recovery can derive again.
    pub fn commit_relaxed(self) -> Result<(), LogError> {
        self.commit(Durability::None)
    }

    /// The record of a database, numbered at its first use.
    pub(super) fn database_mut(&mut self, database: &str) -> &mut DatabaseRecord {
        let next = self.databases.len() as u32;
        self.databases_changed.insert(database.to_owned());
        let fresh = DatabaseRecord { number: next, ..DatabaseRecord::default() };
        self.databases.entry(database.to_owned()).or_insert(fresh)
    }

    fn commit(mut self, durability: Durability) -> Result<(), LogError> {
        self.flush_log()?;
        self.flush_state()?;
        let LogWrite { log, mut transaction, base, names, names_changed, .. } = self;
        // Nobody reads what was before: the pages that this commit frees can be used again at once.
        log.committed().read = None;
        drop(base);
        transaction.set_durability(durability)?;
        if matches!(durability, Durability::Immediate) {
            transaction.set_two_phase_commit(true);
            transaction.set_quick_repair(true);
        }
        if names_changed.is_empty() {
            transaction.commit()?;
            log.committed().read = None;
        } else {
            let mut committed = log.committed();
            transaction.commit()?;
            (committed.names, committed.read) = (names, None);
        }
        Ok(())
    }

    /// A table costs a search to open: those that nothing is written to stay closed, here and below.
    fn flush_log(&mut self) -> Result<(), LogError> {
        if !self.heads_changed.is_empty() {
            let mut heads = self.transaction.open_table(tables::HEADS)?;
            for origin in &self.heads_changed {
                if let Some(head) = self.heads.get(origin) {
                    heads.insert(&origin.0, record::seal(&origin.0, head).as_slice())?;
                }
            }
        }
        if !self.databases_changed.is_empty() {
            let mut databases = self.transaction.open_table(tables::DATABASES)?;
            for name in &self.databases_changed {
                if let Some(database) = self.databases.get(name) {
                    databases.insert(name.as_str(), record::seal(name.as_bytes(), database).as_slice())?;
                }
            }
        }
        if !self.names_changed.is_empty() {
            let mut names = self.transaction.open_table(tables::NAMES)?;
            for number in &self.names_changed {
                if let Some(entry) = self.names.tables.get(*number as usize) {
                    names.insert(number, record::seal(&number.to_be_bytes(), entry).as_slice())?;
                }
            }
        }
        Ok(())
    }

    fn flush_state(&mut self) -> Result<(), LogError> {
        let changed = std::mem::take(&mut self.changed);
        let transaction = &self.transaction;
        if !changed.rules.is_empty() {
            let mut rules = transaction.open_table(tables::RULES)?;
            for (table, records) in &changed.rules {
                rules.insert(table.0, record::seal(&table.0.to_be_bytes(), records).as_slice())?;
            }
        }
        if !changed.rows.is_empty() {
            let mut rows = transaction.open_table(tables::ROWS)?;
            for (id, row) in &changed.rows {
                rows.insert(&id.to_bytes(), row_record::pack(id, row).as_slice())?;
            }
        }
        if !changed.shown.is_empty() {
            let mut shown = transaction.open_table(tables::SHOWN)?;
            for (key, row) in &changed.shown {
                match row {
                    Some(row) => shown.insert(key.as_slice(), &row.to_bytes())?,
                    None => shown.remove(key.as_slice())?,
                };
            }
        }
        changed.table_rows.flush(transaction, tables::TABLE_ROWS)?;
        changed.claims.flush(transaction, tables::CLAIMS)?;
        changed.referrers.flush(transaction, tables::REFERRERS)?;
        changed.unique.flush(transaction, tables::UNIQUE)?;
        changed.shelf.flush(transaction, tables::SHELF)?;
        changed.dirty.flush(transaction, tables::DIRTY)?;
        if !changed.fingerprints.is_empty() {
            let mut fingerprints = transaction.open_table(tables::FINGERPRINTS)?;
            for (table, fingerprint) in &changed.fingerprints {
                let value = record::seal(&table.0.to_be_bytes(), fingerprint);
                fingerprints.insert(table.0, value.as_slice())?;
            }
        }
        changed.prints.flush(transaction)?;
        if !changed.audit.is_empty() {
            let mut audit = transaction.open_table(tables::AUDIT)?;
            let mut audit_rows = transaction.open_table(tables::AUDIT_ROWS)?;
            for entry in &changed.audit {
                let value = record::seal(&entry.number.to_be_bytes(), entry);
                audit.insert(entry.number, value.as_slice())?;
                audit_rows.insert(&super::state::audit_row_key(&entry.row, entry.number), ())?;
            }
        }
        Ok(())
    }
}
