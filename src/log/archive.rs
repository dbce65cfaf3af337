//! The archive as readers see it: events whose bodies lie in segments are read as if they lay in the log.
//!
//! What the log keeps of a block (about one byte of an event): where it lies and its check, which database each of its
//! events is of (runs), and per database the cut at its beginning. Everything else about an old event is derived from its
//! body: the hash, what its author had applied. So of the hot indexes nothing is left of it: `events`, `database events`
//! and `cuts` lose it, and `arrivals` are packed a thousand to a page. The cuts at both ends of a block are kept in the log,
//! so that a chain can go on, and a start look at its heads, without a segment being read.
//!
//! Invariants: an event lies in the log, or in a block, or (while its body is being moved) in both, never in neither; what
//! is read of a block was checked; a segment that is missing or damaged is an error of its own events only
//! ([`LogError::Archived`]). Memory: unfolded blocks up to [`CACHE_BYTES`]. Callers: read, write, verify.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, TableError, TableHandle};
use serde::{Deserialize, Serialize};

use super::read::Arrival;
use super::segment::{self, Block};
use super::segment_store::SegmentStore;
use super::stored::{StoredEvent, event_key, split_key};
use super::{LogError, record};
use crate::model::{Cut, OriginId};
use crate::wire::event::peek_header;

/// Origin (16), first number (8) -> block record. Made by the first cleanup, as all of these.
pub(super) const BLOCKS: TableDefinition<&[u8; 24], &[u8]> = TableDefinition::new("archive blocks");
/// Segment number -> segment record.
pub(super) const SEGMENTS: TableDefinition<u32, &[u8]> = TableDefinition::new("archive segments");
/// Name -> bytes, where no folder holds them.
pub(super) const BODIES: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("archive bodies");
/// First arrival number -> page record.
pub(super) const PAGES: TableDefinition<u64, &[u8]> = TableDefinition::new("archive arrivals");

/// Arrivals in one page.
pub(super) const PAGE_ARRIVALS: usize = 1_024;

/// Bytes of unfolded blocks in memory: about one for each of a hundred origins, because an answer merges them all. One block
/// always stays, whatever its size.
const CACHE_BYTES: usize = 12 << 20;

/// What the log knows of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BlockRecord {
    /// Its segment's number.
    pub(super) segment: u32,
    /// Its place in the segment.
    pub(super) offset: u64,
    /// Its bytes there.
    pub(super) stored: u32,
    /// Hash of those.
    pub(super) check: [u8; 32],
    /// Number of events.
    pub(super) count: u32,
    /// Which database the events are of: number, how many in a row.
    pub(super) databases: Vec<(u32, u32)>,
    /// Per database: the full cut that its author had applied in front of it; behind it, where that moved.
    pub(super) cuts: Vec<(u32, Cut, Option<Cut>)>,
}

impl BlockRecord {
    /// The first event of a database at or after `from`, in a block that begins with `first`.
    fn next_of(&self, first: u64, from: u64, database: u32) -> Option<u64> {
        let mut at = first;
        for &(number, count) in &self.databases {
            let end = at + u64::from(count);
            if number == database && from < end {
                return Some(at.max(from));
            }
            at = end;
        }
        None
    }
}

/// What the log knows of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SegmentRecord {
    pub(super) name: [u8; 32],
    pub(super) bytes: u64,
    pub(super) events: u64,
    /// Bytes that its events took in the log, proofs included.
    pub(super) hot_bytes: u64,
    /// Its blocks: origin, first number.
    pub(super) blocks: Vec<(OriginId, u64)>,
    /// Whether the log has let go of the bodies.
    pub(super) cleared: bool,
}

/// A page of arrivals: runs of one origin's events in the order of their numbers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct PageRecord {
    origins: Vec<OriginId>,
    /// Position of the origin; first number less the one after that origin's last in this page; events.
    runs: Vec<(u32, i64, u32)>,
}

impl PageRecord {
    pub(super) fn pack(arrivals: &[Arrival]) -> PageRecord {
        let mut page = PageRecord::default();
        let mut next: Vec<u64> = Vec::new();
        let mut last = None;
        for arrival in arrivals {
            let known = page.origins.iter().position(|origin| *origin == arrival.origin);
            let at = known.unwrap_or_else(|| {
                page.origins.push(arrival.origin);
                next.push(0);
                next.len() - 1
            });
            let gap = arrival.seq as i64 - next[at] as i64;
            match page.runs.last_mut() {
                Some(run) if last == Some(at) && gap == 0 => run.2 += 1,
                _ => page.runs.push((at as u32, gap, 1)),
            }
            next[at] = arrival.seq + 1;
            last = Some(at);
        }
        page
    }

    fn unpack(&self, first: u64) -> Option<Vec<Arrival>> {
        let mut next = vec![0u64; self.origins.len()];
        let mut arrivals = Vec::with_capacity(PAGE_ARRIVALS);
        for &(at, gap, count) in &self.runs {
            let origin = *self.origins.get(at as usize)?;
            let next = next.get_mut(at as usize)?;
            *next = next.checked_add_signed(gap)?;
            for _ in 0..count {
                arrivals.push(Arrival { number: first + arrivals.len() as u64, origin, seq: *next });
                *next += 1;
            }
        }
        Some(arrivals)
    }
}

/// Where the bytes are, and which blocks are unfolded. One for a log.
#[derive(Debug)]
pub(super) struct Home {
    /// `None`: in the log itself.
    pub(super) store: Option<Arc<dyn SegmentStore>>,
    unfolded: Mutex<VecDeque<Arc<Unfolded>>>,
}

/// A block in memory.
#[derive(Debug)]
struct Unfolded {
    origin: OriginId,
    segment: u32,
    offset: u64,
    block: Block,
    /// Database, event, its full cut: where it moved. Derived when first asked for.
    cuts: OnceLock<Vec<(u32, u64, Cut)>>,
}

impl Unfolded {
    /// The cuts that its events stated, in their order.
    fn cuts(&self, record: &BlockRecord) -> Result<&[(u32, u64, Cut)], LogError> {
        if let Some(cuts) = self.cuts.get() {
            return Ok(cuts);
        }
        let derived = derive_cuts(&self.block, record)?;
        Ok(self.cuts.get_or_init(|| derived))
    }
}

impl Home {
    pub(super) fn new(store: Option<Arc<dyn SegmentStore>>) -> Home {
        Home { store, unfolded: Mutex::default() }
    }

    /// A block in memory; the ones asked for last stay longest.
    fn find(&self, is_it: impl Fn(&Unfolded) -> bool) -> Option<Arc<Unfolded>> {
        let mut unfolded = self.unfolded.lock().unwrap_or_else(PoisonError::into_inner);
        let at = unfolded.iter().rposition(|one| is_it(one))?;
        let found = unfolded.remove(at)?;
        unfolded.push_back(found.clone());
        Some(found)
    }

    /// An event of a block in memory: what is packed never changes, so nothing else need be looked at.
    fn event(&self, origin: OriginId, seq: u64) -> Option<StoredEvent> {
        let holds = |one: &Unfolded| one.origin == origin && (one.block.first..=one.block.last()).contains(&seq);
        self.find(holds)?.block.event(seq)
    }

    fn keep(&self, fresh: &Arc<Unfolded>) {
        let mut unfolded = self.unfolded.lock().unwrap_or_else(PoisonError::into_inner);
        unfolded.push_back(fresh.clone());
        let mut bytes: usize = unfolded.iter().map(|one| one.block.weight()).sum();
        while bytes > CACHE_BYTES && unfolded.len() > 1 {
            bytes -= unfolded.pop_front().map_or(0, |old| old.block.weight());
        }
    }

    /// Forgets all unfolded blocks.
    pub(super) fn forget(&self) {
        self.unfolded.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The archive in a snapshot.
pub(super) struct ArchiveRead {
    home: Arc<Home>,
    tables: Option<ArchiveTables>,
}

struct ArchiveTables {
    blocks: ReadOnlyTable<&'static [u8; 24], &'static [u8]>,
    segments: ReadOnlyTable<u32, &'static [u8]>,
    bodies: ReadOnlyTable<&'static [u8; 32], &'static [u8]>,
    pages: ReadOnlyTable<u64, &'static [u8]>,
}

/// A block's place in the chain, and its record.
pub(super) type Found = (OriginId, u64, BlockRecord);

impl ArchiveRead {
    pub(super) fn new(transaction: &ReadTransaction, home: Arc<Home>) -> Result<ArchiveRead, LogError> {
        let tables = match transaction.open_table(BLOCKS) {
            Err(TableError::TableDoesNotExist(_)) => None,
            blocks => Some(ArchiveTables {
                blocks: blocks?,
                segments: transaction.open_table(SEGMENTS)?,
                bodies: transaction.open_table(BODIES)?,
                pages: transaction.open_table(PAGES)?,
            }),
        };
        Ok(ArchiveRead { home, tables })
    }

    pub(super) fn home(&self) -> &Home {
        &self.home
    }

    /// The block that holds an event.
    pub(super) fn block_of(&self, origin: OriginId, seq: u64) -> Result<Option<Found>, LogError> {
        Ok(self.last_block(origin, seq)?.filter(|found| seq - found.1 < u64::from(found.2.count)))
    }

    /// The last block of an origin that begins at or before an event.
    fn last_block(&self, origin: OriginId, seq: u64) -> Result<Option<Found>, LogError> {
        let Some(tables) = &self.tables else { return Ok(None) };
        let (from, through) = (event_key(origin, 0), event_key(origin, seq));
        let Some(entry) = tables.blocks.range::<&[u8; 24]>(&from..=&through)?.next_back() else { return Ok(None) };
        let (key, value) = entry?;
        open_record(key.value(), value.value()).map(Some)
    }

    /// The first block of an origin that holds something at or after an event.
    pub(super) fn next_block(&self, origin: OriginId, seq: u64) -> Result<Option<Found>, LogError> {
        if let Some(found) = self.block_of(origin, seq)? {
            return Ok(Some(found));
        }
        let Some(tables) = &self.tables else { return Ok(None) };
        let (from, through) = (event_key(origin, seq), event_key(origin, u64::MAX));
        match tables.blocks.range::<&[u8; 24]>(&from..=&through)?.next() {
            Some(entry) => {
                let (key, value) = entry?;
                open_record(key.value(), value.value()).map(Some)
            }
            None => Ok(None),
        }
    }

    /// The first block at or behind a place, whosever it is.
    pub(super) fn next_of_all(&self, origin: OriginId, seq: u64) -> Result<Option<(OriginId, u64, u64)>, LogError> {
        let Some(tables) = &self.tables else { return Ok(None) };
        let from = event_key(origin, seq);
        let Some(entry) = tables.blocks.range::<&[u8; 24]>(&from..)?.next() else { return Ok(None) };
        let (key, value) = entry?;
        let (origin, first, record) = open_record(key.value(), value.value())?;
        Ok(Some((origin, first, first + u64::from(record.count) - 1)))
    }

    /// Reads a block from its segment, whatever is in memory.
    pub(super) fn check(&self, origin: OriginId, first: u64) -> Result<(), LogError> {
        self.home.forget();
        self.block(origin, first).map(drop)
    }

    /// An unfolded block, from memory or from its segment, checked.
    fn unfold(&self, (origin, first, record): &Found) -> Result<Arc<Unfolded>, LogError> {
        if let Some(known) = self.home.find(|one| (one.segment, one.offset) == (record.segment, record.offset)) {
            return Ok(known);
        }
        let name = self.segment(record.segment)?.map(|segment| segment.name).unwrap_or_default();
        let trouble = |problem: String| LogError::Archived {
            origin: *origin,
            seq: *first,
            segment: data_encoding::HEXLOWER.encode(&name[..8]),
            problem,
        };
        let bytes = self.read(&name, record.offset, record.stored as usize).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => trouble("is missing".to_string()),
            std::io::ErrorKind::UnexpectedEof => trouble("is cut short".to_string()),
            _ => trouble(format!("cannot be read ({error})")),
        })?;
        if segment::block_check(&bytes) != record.check {
            return Err(trouble("is damaged".to_string()));
        }
        let block = segment::unpack(&bytes).filter(|block| {
            block.first == *first && block.origin.id() == *origin && block.len() == record.count as usize
        });
        let block = block.ok_or_else(|| trouble("is damaged".to_string()))?;
        let (segment, offset) = (record.segment, record.offset);
        let fresh = Arc::new(Unfolded { origin: *origin, segment, offset, block, cuts: OnceLock::new() });
        self.home.keep(&fresh);
        Ok(fresh)
    }

    pub(super) fn read(&self, name: &[u8; 32], offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
        if let Some(store) = &self.home.store {
            return store.read(name, offset, length);
        }
        let failed = |error: redb::StorageError| std::io::Error::other(error.to_string());
        let body = self.tables.as_ref().map(|tables| tables.bodies.get(name)).transpose().map_err(failed)?.flatten();
        let body = body.ok_or(std::io::ErrorKind::NotFound)?;
        let end = (offset as usize).saturating_add(length);
        let bytes = body.value().get(offset as usize..end).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        Ok(bytes.to_vec())
    }

    /// One event; `None`: it lies in no block.
    pub(super) fn event(&self, origin: OriginId, seq: u64) -> Result<Option<StoredEvent>, LogError> {
        if self.tables.is_none() {
            return Ok(None);
        }
        if let Some(event) = self.home.event(origin, seq) {
            return Ok(Some(event));
        }
        let Some(found) = self.block_of(origin, seq)? else { return Ok(None) };
        let unfolded = self.unfold(&found).map_err(|error| at_event(error, seq))?;
        Ok(unfolded.block.event(seq))
    }

    /// The events of an origin from `from_seq` on, as far as they lie in blocks, until their bytes exceed `bytes_max` (the
    /// first one always); and whether they do.
    pub(super) fn events_from(
        &self,
        origin: OriginId,
        from_seq: u64,
        bytes_max: usize,
    ) -> Result<(Vec<StoredEvent>, usize, bool), LogError> {
        let (mut found, mut bytes, mut next) = (Vec::new(), 0usize, from_seq);
        while let Some(block) = self.block_of(origin, next)? {
            let unfolded = match self.unfold(&block) {
                Err(error @ LogError::Archived { .. }) if found.is_empty() => return Err(at_event(error, next)),
                // What was read so far is sound.
                Err(LogError::Archived { .. }) => return Ok((found, bytes, true)),
                unfolded => unfolded?,
            };
            while let Some(event) = unfolded.block.event(next) {
                bytes = bytes.saturating_add(event.bytes.len() + 101);
                if bytes > bytes_max && !found.is_empty() {
                    return Ok((found, bytes, true));
                }
                found.push(event);
                next += 1;
            }
        }
        Ok((found, bytes, false))
    }

    /// The first event of a database in the blocks of an origin, at or after `from_seq`.
    pub(super) fn next_seq(&self, origin: OriginId, from_seq: u64, database: u32) -> Result<Option<u64>, LogError> {
        let mut from = from_seq;
        while let Some((_, first, record)) = self.next_block(origin, from)? {
            if let Some(seq) = record.next_of(first, from, database) {
                return Ok(Some(seq));
            }
            from = first + u64::from(record.count);
        }
        Ok(None)
    }

    /// How many events of a database lie in an origin's blocks from `from_seq` on, at most `most`; and where they end.
    pub(super) fn count(
        &self,
        origin: OriginId,
        from_seq: u64,
        database: u32,
        most: u64,
    ) -> Result<(u64, u64), LogError> {
        let (mut count, mut from) = (0, from_seq);
        while count < most
            && let Some((_, first, record)) = self.next_block(origin, from)?
        {
            let mut at = first;
            for &(number, run) in &record.databases {
                let end = at + u64::from(run);
                if number == database {
                    count += end.saturating_sub(at.max(from));
                }
                at = end;
            }
            from = at;
        }
        Ok((count.min(most), from))
    }

    /// The last cut of a database that an origin stated in its blocks at or before an event, and the last event of which
    /// that is so; `None`: it stated none there.
    pub(super) fn cut_at(&self, database: u32, origin: OriginId, seq: u64) -> Result<Option<(u64, Cut)>, LogError> {
        let Some(found) = self.last_block(origin, seq)? else { return Ok(None) };
        let last = found.1 + u64::from(found.2.count) - 1;
        let Some((_, front, back)) = found.2.cuts.iter().find(|(number, ..)| *number == database) else {
            return Ok(None);
        };
        match back {
            None => return Ok(Some((last, front.clone()))),
            Some(back) if seq >= last => return Ok(Some((last, back.clone()))),
            Some(_) => {}
        }
        let unfolded = self.unfold(&found).map_err(|error| at_event(error, seq))?;
        let stated = unfolded.cuts(&found.2)?.iter().rfind(|(number, at, _)| *number == database && *at <= seq);
        Ok(Some((last, stated.map_or(front, |(_, _, cut)| cut).clone())))
    }

    /// The cuts of a database that events in blocks stated, in the order of (origin, event), behind a place: at least
    /// `limit`, or all there are.
    pub(super) fn cuts_behind(
        &self,
        database: u32,
        after: (OriginId, u64),
        limit: usize,
    ) -> Result<Vec<(OriginId, u64, Cut)>, LogError> {
        let Some(tables) = &self.tables else { return Ok(Vec::new()) };
        let begin = self.last_block(after.0, after.1)?.map_or(after, |(origin, first, _)| (origin, first));
        let (from, through) = (event_key(begin.0, begin.1), event_key(OriginId([0xff; 16]), u64::MAX));
        let mut stated = Vec::new();
        for entry in tables.blocks.range::<&[u8; 24]>(&from..=&through)? {
            if stated.len() >= limit {
                break;
            }
            let (key, value) = entry?;
            let found = open_record(key.value(), value.value())?;
            if !found.2.cuts.iter().any(|(number, _, moved)| *number == database && moved.is_some()) {
                continue;
            }
            let unfolded = self.unfold(&found)?;
            let own = unfolded.cuts(&found.2)?.iter().filter(|(number, ..)| *number == database);
            let behind = own.filter(|(_, seq, _)| (found.0, *seq) > after);
            stated.extend(behind.map(|(_, seq, cut)| (found.0, *seq, cut.clone())));
        }
        Ok(stated)
    }

    /// Arrivals behind `after` that lie in pages, at most `limit`.
    pub(super) fn arrivals(&self, after: u64, limit: usize) -> Result<Vec<Arrival>, LogError> {
        let Some(tables) = &self.tables else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let wanted = after.saturating_add(1);
        let page = tables.pages.range(..=wanted)?.next_back().transpose()?.map(|(number, _)| number.value());
        for entry in tables.pages.range(page.unwrap_or(0)..)? {
            let (first, value) = entry?;
            if found.len() >= limit {
                break;
            }
            let page: PageRecord = record::unseal(PAGES.name(), &first.value().to_be_bytes(), value.value())?;
            let arrivals = page.unpack(first.value()).ok_or(LogError::CorruptRecord { table: "archive arrivals" })?;
            found.extend(arrivals.into_iter().filter(|arrival| arrival.number >= wanted));
        }
        found.truncate(limit);
        Ok(found)
    }

    /// The number of the last arrival in the pages; 0: there are none.
    pub(super) fn last_arrival(&self) -> Result<u64, LogError> {
        let Some(tables) = &self.tables else { return Ok(0) };
        let Some((first, _)) = tables.pages.last()? else { return Ok(0) };
        Ok(self.arrivals(first.value() - 1, PAGE_ARRIVALS)?.last().map_or(0, |arrival| arrival.number))
    }

    pub(super) fn segment(&self, number: u32) -> Result<Option<SegmentRecord>, LogError> {
        let Some(tables) = &self.tables else { return Ok(None) };
        match tables.segments.get(number)? {
            Some(value) => record::unseal(SEGMENTS.name(), &number.to_be_bytes(), value.value()).map(Some),
            None => Ok(None),
        }
    }

    /// All segments, by number.
    pub(super) fn segments(&self) -> Result<Vec<(u32, SegmentRecord)>, LogError> {
        let Some(tables) = &self.tables else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for entry in tables.segments.iter()? {
            let (number, value) = entry?;
            let number = number.value();
            found.push((number, record::unseal(SEGMENTS.name(), &number.to_be_bytes(), value.value())?));
        }
        Ok(found)
    }

    /// The block that begins at an event, unfolded and checked.
    pub(super) fn block(&self, origin: OriginId, first: u64) -> Result<Option<(BlockRecord, BlockGuard)>, LogError> {
        let Some(found) = self.block_of(origin, first)?.filter(|found| found.1 == first) else { return Ok(None) };
        let unfolded = self.unfold(&found)?;
        Ok(Some((found.2, BlockGuard(unfolded))))
    }
}

/// An unfolded block, held.
pub(super) struct BlockGuard(Arc<Unfolded>);

impl std::ops::Deref for BlockGuard {
    type Target = Block;

    fn deref(&self) -> &Block {
        &self.0.block
    }
}

fn open_record(key: &[u8; 24], value: &[u8]) -> Result<Found, LogError> {
    let (origin, first) = split_key(key);
    Ok((origin, first, record::unseal(BLOCKS.name(), key, value)?))
}

/// The same trouble, of the event that was asked for.
fn at_event(error: LogError, asked: u64) -> LogError {
    match error {
        LogError::Archived { origin, segment, problem, .. } => {
            LogError::Archived { origin, seq: asked, segment, problem }
        }
        other => other,
    }
}

/// The full cuts that a block's events state, from what they say they had applied.
fn derive_cuts(block: &Block, record: &BlockRecord) -> Result<Vec<(u32, u64, Cut)>, LogError> {
    let mut now: Vec<(u32, Cut)> = record.cuts.iter().map(|(number, cut, _)| (*number, cut.clone())).collect();
    let (mut stated, mut at) = (Vec::new(), block.first);
    for &(number, count) in &record.databases {
        for seq in at..at + u64::from(count) {
            let damaged = || LogError::CorruptEvent { origin: block.origin.id(), seq };
            let bytes = block.bytes_of(seq).ok_or_else(damaged)?;
            let (_, applied) = peek_header(bytes).map_err(|_| damaged())?;
            if let Some((_, cut)) = now.iter_mut().find(|(known, _)| *known == number)
                && !applied.is_empty()
            {
                cut.dots.extend(applied);
                stated.push((number, seq, cut.clone()));
            }
        }
        at += u64::from(count);
    }
    Ok(stated)
}
