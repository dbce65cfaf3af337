//! Snapshots of the log: events and the node's own records.
//!
//! Invariant: a snapshot never changes; every event it returns was checked against its hash, every record against its
//! check. Callers: node; [`super::write`] reads what was committed before it through one.

use std::sync::Arc;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, TableError, TableHandle};
use serde::{Deserialize, Serialize};

use super::archive::{ArchiveRead, Home};
use super::names::Names;
use super::overlay::Keys;
use super::stored::{self, StoredEvent};
use super::tables::{self, join, prefix};
use super::{LogError, record};
use crate::model::{Cut, Head, Heads, OriginId, Stamp};

/// A place in the order in which this node stored events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival {
    /// From 1, without gaps.
    pub number: u64,
    /// The event's origin.
    pub origin: OriginId,
    /// Its sequence number.
    pub seq: u64,
}

/// What is kept of one database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DatabaseRecord {
    /// Its number in keys.
    pub(super) number: u32,
    /// Its events in the log.
    pub(super) events: u64,
    /// Its audit records.
    pub(super) audits: u64,
}

/// A snapshot; a copy of it is the same one. Holding one keeps the pages it shows: drop it soon.
#[derive(Clone)]
pub struct LogRead(Arc<OpenTables>);

impl std::ops::Deref for LogRead {
    type Target = OpenTables;

    fn deref(&self) -> &OpenTables {
        &self.0
    }
}

/// The tables of a snapshot.
pub struct OpenTables {
    pub(super) meta: ReadOnlyTable<&'static str, &'static [u8]>,
    pub(super) events: ReadOnlyTable<&'static [u8; 24], &'static [u8]>,
    pub(super) heads: ReadOnlyTable<&'static [u8; 16], &'static [u8]>,
    pub(super) arrivals: ReadOnlyTable<u64, &'static [u8; 24]>,
    pub(super) databases: ReadOnlyTable<&'static str, &'static [u8]>,
    pub(super) database_events: Keys<28>,
    pub(super) cuts: ReadOnlyTable<&'static [u8; 28], &'static [u8]>,
    pub(super) rids: ReadOnlyTable<&'static [u8; 12], &'static [u8]>,
    pub(super) cursors: ReadOnlyTable<&'static str, &'static [u8]>,
    pub(super) held: ReadOnlyTable<&'static [u8; 28], &'static [u8]>,
    pub(super) reached: Option<ReadOnlyTable<(&'static str, &'static str), u64>>,
    pub(super) members: ReadOnlyTable<&'static [u8; 32], &'static [u8]>,
    pub(super) addresses: ReadOnlyTable<(&'static str, &'static str), ()>,
    pub(super) rules: ReadOnlyTable<u32, &'static [u8]>,
    pub(super) rows: ReadOnlyTable<&'static [u8; 29], &'static [u8]>,
    pub(super) table_rows: Keys<33>,
    pub(super) shown: ReadOnlyTable<&'static [u8], &'static [u8; 29]>,
    pub(super) claims: Keys<45>,
    pub(super) referrers: Keys<58>,
    pub(super) unique: Keys<49>,
    pub(super) fingerprints: ReadOnlyTable<u32, &'static [u8]>,
    pub(super) prints: ReadOnlyTable<&'static [u8; 34], &'static [u8]>,
    pub(super) audit: ReadOnlyTable<u64, &'static [u8]>,
    pub(super) audit_rows: Keys<37>,
    pub(super) shelf: Keys<29>,
    pub(super) dirty: Keys<33>,
    pub(super) archive: ArchiveRead,
    pub(super) names: Arc<Names>,
}

impl LogRead {
    pub(super) fn new(transaction: &ReadTransaction, names: Arc<Names>, home: Arc<Home>) -> Result<LogRead, LogError> {
        let tables = OpenTables {
            archive: ArchiveRead::new(transaction, home)?,
            meta: transaction.open_table(tables::META)?,
            events: transaction.open_table(tables::EVENTS)?,
            heads: transaction.open_table(tables::HEADS)?,
            arrivals: transaction.open_table(tables::ARRIVALS)?,
            databases: transaction.open_table(tables::DATABASES)?,
            database_events: transaction.open_table(tables::DATABASE_EVENTS)?,
            cuts: transaction.open_table(tables::CUTS)?,
            rids: transaction.open_table(tables::RIDS)?,
            cursors: transaction.open_table(tables::CURSORS)?,
            held: transaction.open_table(tables::HELD)?,
            members: transaction.open_table(tables::MEMBERS)?,
            addresses: transaction.open_table(tables::ADDRESSES)?,
            reached: match transaction.open_table(tables::REACHED) {
                Err(TableError::TableDoesNotExist(_)) => None,
                opened => Some(opened?),
            },
            rules: transaction.open_table(tables::RULES)?,
            rows: transaction.open_table(tables::ROWS)?,
            table_rows: transaction.open_table(tables::TABLE_ROWS)?,
            shown: transaction.open_table(tables::SHOWN)?,
            claims: transaction.open_table(tables::CLAIMS)?,
            referrers: transaction.open_table(tables::REFERRERS)?,
            unique: transaction.open_table(tables::UNIQUE)?,
            fingerprints: transaction.open_table(tables::FINGERPRINTS)?,
            prints: transaction.open_table(super::prints::PRINTS)?,
            audit: transaction.open_table(tables::AUDIT)?,
            audit_rows: transaction.open_table(tables::AUDIT_ROWS)?,
            shelf: transaction.open_table(tables::SHELF)?,
            dirty: transaction.open_table(tables::DIRTY)?,
            names,
        };
        Ok(LogRead(Arc::new(tables)))
    }

    /// Per origin, the last event held.
    pub fn heads(&self) -> Result<Heads, LogError> {
        let mut heads = Heads::new();
        for entry in self.heads.iter()? {
            let (key, value) = entry?;
            let head: Head = record::unseal(tables::HEADS.name(), key.value(), value.value())?;
            heads.insert(OriginId(*key.value()), head);
        }
        Ok(heads)
    }

    /// The last event held of one origin.
    pub fn head(&self, origin: &OriginId) -> Result<Option<Head>, LogError> {
        match self.heads.get(&origin.0)? {
            Some(value) => record::unseal(tables::HEADS.name(), &origin.0, value.value()).map(Some),
            None => Ok(None),
        }
    }

    /// One event; `None` beyond the origin's head.
    pub fn event(&self, origin: &OriginId, seq: u64) -> Result<Option<StoredEvent>, LogError> {
        let origin = *origin;
        let found = self.find(origin, seq)?;
        if found.is_none() && seq > 0 && self.head(&origin)?.is_some_and(|head| head.seq >= seq) {
            return Err(LogError::CorruptEvent { origin, seq });
        }
        Ok(found)
    }

    /// One event, wherever its body lies; `None` when it is not stored.
    pub(super) fn find(&self, origin: OriginId, seq: u64) -> Result<Option<StoredEvent>, LogError> {
        match stored::find(&self.events, origin, seq)? {
            None => self.archive.event(origin, seq),
            found => Ok(found),
        }
    }

    /// The events of an origin from `from_seq` on, until their bytes exceed `bytes_max` (the first one in any case).
    pub fn events_from(
        &self,
        origin: &OriginId,
        from_seq: u64,
        bytes_max: usize,
    ) -> Result<Vec<StoredEvent>, LogError> {
        let (mut found, bytes, full) = self.archive.events_from(*origin, from_seq, bytes_max)?;
        let left = bytes_max.saturating_sub(bytes);
        if !full && (found.is_empty() || left > 0) {
            let from = from_seq + found.len() as u64;
            let through = self.archive.next_block(*origin, from)?.map_or(u64::MAX, |(_, first, _)| first - 1);
            let hot = stored::find_from(&self.events, *origin, from, through, left)?;
            let fits = |event: &StoredEvent| event.bytes.len() <= left;
            if found.is_empty() || hot.first().is_some_and(fits) {
                found.extend(hot);
            }
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
        let Some(record) = self.database(database)? else { return Ok(None) };
        let archived = self.archive.next_seq(*origin, from_seq, record.number)?;
        let hot = next_seq(&self.database_events, record.number, *origin, from_seq)?;
        match archived.into_iter().chain(hot).min() {
            Some(seq) => match self.find(*origin, seq)? {
                Some(event) => Ok(Some((seq, event))),
                None => Err(LogError::CorruptEvent { origin: *origin, seq }),
            },
            None => Ok(None),
        }
    }

    /// How many events of a database an origin's chain holds from `from_seq` on, at most `most`. Reads the index alone.
    pub fn count_of_database(
        &self,
        origin: &OriginId,
        from_seq: u64,
        database: &str,
        most: usize,
    ) -> Result<u64, LogError> {
        let Some(record) = self.database(database)? else { return Ok(0) };
        let (archived, from_seq) = self.archive.count(*origin, from_seq, record.number, most as u64)?;
        let from = database_key(record.number, *origin, from_seq);
        let through = database_key(record.number, *origin, u64::MAX);
        let left = most.saturating_sub(archived as usize);
        Ok(archived + self.database_events.range::<&[u8; 28]>(&from..=&through)?.take(left).count() as u64)
    }

    /// At most `limit` events in the order in which this node stored them, behind the arrival number `after`.
    pub fn arrivals(&self, after: u64, limit: usize) -> Result<Vec<Arrival>, LogError> {
        let mut found = self.archive.arrivals(after, limit)?;
        let (after, left) = (found.last().map_or(after, |last| last.number), limit - found.len());
        for entry in self.arrivals.range(after.saturating_add(1)..)?.take(left) {
            let (number, key) = entry?;
            let (origin, seq) = stored::split_key(key.value());
            found.push(Arrival { number: number.value(), origin, seq });
        }
        Ok(found)
    }

    /// The number of the last arrival; 0 in an empty log.
    pub fn last_arrival(&self) -> Result<u64, LogError> {
        match self.arrivals.last()? {
            Some((number, _)) => Ok(number.value()),
            None => self.archive.last_arrival(),
        }
    }

    /// How many events of a database the log holds.
    pub fn events_of_database(&self, database: &str) -> Result<u64, LogError> {
        Ok(self.database(database)?.map_or(0, |record| record.events))
    }

    /// The full cut an event's author had applied, its own earlier events included.
    pub fn cut_of(&self, database: &str, origin: OriginId, seq: u64) -> Result<Cut, LogError> {
        let number = self.database(database)?.map(|record| record.number);
        cut_at(&self.cuts, &self.archive, number, origin, seq)
    }

    /// Marks that own events hold and that the file of a database may still hold, oldest event first.
    pub fn rids(&self, database: &str) -> Result<Vec<[u8; 16]>, LogError> {
        let Some(record) = self.database(database)? else { return Ok(Vec::new()) };
        let (from, through) = prefix::<12>(&record.number.to_be_bytes());
        let mut found = Vec::new();
        for entry in self.rids.range::<&[u8; 12]>(&from..=&through)? {
            let (key, value) = entry?;
            let rids: Vec<[u8; 16]> = record::unseal(tables::RIDS.name(), key.value(), value.value())?;
            found.extend(rids);
        }
        Ok(found)
    }

    /// What the file of a database shows, and the file's epoch then; `None` before the first time.
    pub fn cursor(&self, database: &str) -> Result<Option<(Cut, u64)>, LogError> {
        cursor_in(&self.cursors, database)
    }

    /// Events of which the file of a database cannot show everything yet, and what it lacks.
    pub fn held(&self, database: &str) -> Result<Vec<(OriginId, u64, String)>, LogError> {
        let Some(record) = self.database(database)? else { return Ok(Vec::new()) };
        let (from, through) = prefix::<28>(&record.number.to_be_bytes());
        let mut found = Vec::new();
        for entry in self.held.range::<&[u8; 28]>(&from..=&through)? {
            let (key, value) = entry?;
            let (origin, seq) = split_database_key(key.value());
            found.push((origin, seq, record::unseal(tables::HELD.name(), key.value(), value.value())?));
        }
        Ok(found)
    }

    /// The last stamp given or absorbed; zero before the first.
    pub fn clock(&self) -> Result<Stamp, LogError> {
        match self.meta.get(tables::CLOCK_KEY)? {
            Some(value) => record::unseal(tables::META.name(), tables::CLOCK_KEY.as_bytes(), value.value()),
            None => Ok(Stamp::default()),
        }
    }

    /// A value the node keeps by name.
    pub fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, LogError> {
        Ok(self.meta.get(key)?.map(|value| value.value().to_vec()))
    }

    /// All member records, by hash.
    pub fn members(&self) -> Result<Vec<Vec<u8>>, LogError> {
        self.members.iter()?.map(|entry| Ok(entry?.1.value().to_vec())).collect()
    }

    /// All remembered ways to reach peers: multiaddr, peer's key in hex or empty, wall time when it last led there (0:
    /// never).
    pub fn addresses(&self) -> Result<Vec<(String, String, u64)>, LogError> {
        let mut addresses = Vec::new();
        for entry in self.addresses.iter()? {
            let key = entry?.0;
            let (address, peer) = key.value();
            let reached = self.reached.as_ref().map(|table| table.get((address, peer))).transpose()?.flatten();
            addresses.push((address.to_owned(), peer.to_owned(), reached.map_or(0, |reached| reached.value())));
        }
        Ok(addresses)
    }

    pub(super) fn database(&self, database: &str) -> Result<Option<DatabaseRecord>, LogError> {
        match self.databases.get(database)? {
            Some(value) => record::unseal(tables::DATABASES.name(), database.as_bytes(), value.value()).map(Some),
            None => Ok(None),
        }
    }
}

/// What the file of a database shows, and its epoch.
pub(super) fn cursor_in(
    cursors: &impl ReadableTable<&'static str, &'static [u8]>,
    database: &str,
) -> Result<Option<(Cut, u64)>, LogError> {
    match cursors.get(database)? {
        Some(value) => record::unseal(tables::CURSORS.name(), database.as_bytes(), value.value()).map(Some),
        None => Ok(None),
    }
}

pub(super) fn database_key(number: u32, origin: OriginId, seq: u64) -> [u8; 28] {
    join(&[&number.to_be_bytes(), &origin.0, &seq.to_be_bytes()])
}

/// Origin and sequence number in a key of [`database_key`].
pub(super) fn split_database_key(key: &[u8; 28]) -> (OriginId, u64) {
    key.last_chunk::<24>().map_or((OriginId([0; 16]), 0), stored::split_key)
}

/// The first event of a database in an origin's chain, at or after `from_seq`.
pub(super) fn next_seq(
    table: &impl ReadableTable<&'static [u8; 28], ()>,
    database: u32,
    origin: OriginId,
    from_seq: u64,
) -> Result<Option<u64>, LogError> {
    let (from, through) = (database_key(database, origin, from_seq), database_key(database, origin, u64::MAX));
    match table.range::<&[u8; 28]>(&from..=&through)?.next() {
        Some(entry) => Ok(Some(split_database_key(entry?.0.value()).1)),
        None => Ok(None),
    }
}

/// The full cut of an event: the last one stored at or before it, and the author's own events before this one.
pub(super) fn cut_at(
    cuts: &impl ReadableTable<&'static [u8; 28], &'static [u8]>,
    archive: &ArchiveRead,
    database: Option<u32>,
    origin: OriginId,
    seq: u64,
) -> Result<Cut, LogError> {
    let mut cut = Cut::default();
    if let Some(number) = database {
        let archived = archive.cut_at(number, origin, seq)?;
        let after = archived.as_ref().map_or(0, |(last, _)| last.saturating_add(1));
        let (from, through) = (database_key(number, origin, after), database_key(number, origin, seq));
        let stated = match after <= seq {
            true => cuts.range::<&[u8; 28]>(&from..=&through)?.next_back().transpose()?,
            false => None,
        };
        if let Some((key, value)) = stated {
            cut = record::unseal(tables::CUTS.name(), key.value(), value.value())?;
        } else if let Some((_, archived)) = archived {
            cut = archived;
        }
    }
    match seq.saturating_sub(1) {
        0 => cut.dots.remove(&origin),
        own => cut.dots.insert(origin, own),
    };
    Ok(cut)
}
