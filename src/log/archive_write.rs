//! Moving old events into segments, in small steps.
//!
//! | step                         | what is durable after it                        | after a crash in front of the next          |
//! |------------------------------|-------------------------------------------------|---------------------------------------------|
//! | [`Sealer::pack_next`], often | nothing                                         | begins again                                |
//! | [`Log::seal`]: the file      | a segment that no log knows                     | the same content takes it up, or it is      |
//! |                              |                                                 | removed ([`Log::remove_orphan`])             |
//! | [`Log::seal`]: the commit    | the events, twice: in the log and in the segment | bodies are removed ([`LogRead::uncleared`]) |
//! | [`LogWrite::clear_block`]    | of these events the segment alone               | the rest is removed                         |
//! | [`LogWrite::end_segment`]    | that all of it is done                          |                                             |
//! | [`LogWrite::pack_arrivals`]  | a page in the place of a thousand records       | the next page                               |
//!
//! Invariant: a body leaves the log only when its block was read back from the segment and holds exactly the same bytes,
//! hash and signature; so at every point every event can be read, and a crash between any two steps loses nothing. A step
//! handles at most a block (256 events, or one large one), a page (1,024 arrivals) or a segment's file. Caller: node
//! ([`crate::node`]'s archive).

use std::collections::BTreeMap;

use redb::ReadableTable;

use super::archive::{self, BlockRecord, PAGE_ARRIVALS, PageRecord, SegmentRecord};
use super::read::{Arrival, cut_at, database_key, split_database_key};
use super::segment::{self, BLOCK_BYTES_TARGET, BLOCK_EVENTS_MAX, MAGIC};
use super::stored::{self, StoredEvent, event_key, split_key};
use super::{Log, LogError, LogRead, LogWrite, record, tables};
use crate::model::{Cut, Head, OriginId, Stamp};
use crate::wire::event::{decode_event, event_hash, peek_header};

/// Bytes at which a segment is full: its sync is a pause of the node.
const SEGMENT_BYTES_TARGET: usize = 1 << 20;

/// What an event takes in the log beside its bytes: key, hash, signature, check; its entry in the order of arrivals and in
/// its database's index. What the storage engine adds is not counted.
const HOT_EVENT_BYTES: u64 = (24 + 101) + (8 + 24) + 28;

/// A segment's number, and its blocks: origin, first event.
pub type Uncleared = (u32, Vec<(OriginId, u64)>);

/// How far a sealing may go.
#[derive(Clone, Debug, Default)]
pub struct SealLimits {
    /// Per origin, the last event that may be sealed.
    pub through: BTreeMap<OriginId, u64>,
    /// Only events stamped earlier.
    pub before: Option<Stamp>,
    /// Runs that fill no block wait for more: for what happens every day by itself.
    pub whole_blocks: bool,
}

/// A segment that is being filled.
#[derive(Debug)]
pub struct Sealer {
    limits: SealLimits,
    /// Where each origin is looked at next.
    places: BTreeMap<OriginId, u64>,
    bytes: Vec<u8>,
    blocks: Vec<(OriginId, u64, BlockRecord)>,
    events: u64,
    hot_bytes: u64,
}

/// A run to pack.
struct Run {
    events: Vec<StoredEvent>,
    bytes: usize,
    /// It ended because a block was full, or because what follows lies in one already.
    whole: bool,
}

impl Sealer {
    /// A sealing that has done nothing yet.
    pub fn new(limits: SealLimits) -> Sealer {
        let places = limits.through.keys().map(|origin| (*origin, 1)).collect();
        Sealer { limits, places, bytes: MAGIC.to_vec(), blocks: Vec::new(), events: 0, hot_bytes: 0 }
    }

    /// Packs the next run that may be sealed, in memory. False: there is none left.
    pub fn pack_next(&mut self, read: &LogRead) -> Result<bool, LogError> {
        while let Some((&origin, &from)) = self.places.first_key_value() {
            let run = match read.head(&origin)? {
                Some(head) => self.next_run(read, &head, from)?.map(|run| (head, run)),
                None => None,
            };
            match run {
                Some((head, run)) => {
                    let next = run.events.last().map_or(from, |last| last.seq) + 1;
                    self.places.insert(origin, next);
                    self.add(read, &head, &run)?;
                    return Ok(true);
                }
                None => self.places.remove(&origin),
            };
        }
        Ok(false)
    }

    /// Whether what is packed is a whole segment.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= SEGMENT_BYTES_TARGET
    }

    /// Whether nothing is packed.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Events packed and not sealed yet.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The next events of an origin that lie in no block and may go into one.
    fn next_run(&self, read: &LogRead, head: &Head, from: u64) -> Result<Option<Run>, LogError> {
        let origin = head.origin.id();
        let through = self.limits.through.get(&origin).copied().unwrap_or(0).min(head.seq);
        let mut from = from;
        loop {
            from = match read.first_in_log(&origin, from)? {
                Some(seq) if seq <= through => seq,
                _ => return Ok(None),
            };
            // Bodies that wait to be removed lie in a block already.
            if let Some((_, first, record)) = read.archive.block_of(origin, from)? {
                from = first + u64::from(record.count);
                continue;
            }
            let end = read.archive.next_block(origin, from)?.map_or(u64::MAX, |(_, first, _)| first);
            match self.collect(read, origin, from, through, end)? {
                Ok(run) if run.events.is_empty() || (self.limits.whole_blocks && !run.whole) => return Ok(None),
                Ok(run) => return Ok(Some(run)),
                // What is damaged stays where it is, and what is behind it goes on.
                Err(next) => from = next,
            }
        }
    }

    /// Events from `from` on; else where to look again.
    fn collect(
        &self,
        read: &LogRead,
        origin: OriginId,
        from: u64,
        through: u64,
        end: u64,
    ) -> Result<Result<Run, u64>, LogError> {
        let mut run = Run { events: Vec::new(), bytes: 0, whole: false };
        let (low, high) = (event_key(origin, from), event_key(origin, through));
        for entry in read.events.range::<&[u8; 24]>(&low..=&high)? {
            let (key, value) = entry?;
            let (_, seq) = split_key(key.value());
            run.whole |= seq >= end || run.events.len() == BLOCK_EVENTS_MAX || run.bytes >= BLOCK_BYTES_TARGET;
            if run.whole {
                return Ok(if seq >= end && run.events.is_empty() { Err(seq) } else { Ok(run) });
            }
            let expected = from + run.events.len() as u64;
            if seq != expected {
                return Ok(if run.events.is_empty() { Err(seq) } else { Ok(run) });
            }
            let event = match stored::unpack(key.value(), value.value()) {
                Err(LogError::CorruptEvent { .. }) if run.events.is_empty() => return Ok(Err(seq + 1)),
                Err(LogError::CorruptEvent { .. }) => return Ok(Ok(run)),
                event => event?,
            };
            let stamp = peek_header(&event.bytes).map_err(|_| LogError::CorruptEvent { origin, seq })?.0;
            if self.limits.before.is_some_and(|before| stamp >= before) {
                return Ok(Ok(run));
            }
            run.bytes += event.bytes.len();
            run.events.push(event);
        }
        run.whole |= run.events.len() == BLOCK_EVENTS_MAX || run.bytes >= BLOCK_BYTES_TARGET;
        Ok(Ok(run))
    }

    /// Packs a run behind what is there.
    fn add(&mut self, read: &LogRead, head: &Head, run: &Run) -> Result<(), LogError> {
        let origin = head.origin.id();
        let (Some(first), Some(last)) = (run.events.first(), run.events.last()) else { return Ok(()) };
        let block = segment::pack(head.origin, &run.events);
        let (databases, cuts) = read.indexes_of(origin, first.seq, last.seq)?;
        self.blocks.push((
            origin,
            first.seq,
            BlockRecord {
                segment: 0,
                offset: self.bytes.len() as u64,
                stored: block.len() as u32,
                check: segment::block_check(&block),
                count: run.events.len() as u32,
                databases,
                cuts,
            },
        ));
        self.events += run.events.len() as u64;
        self.hot_bytes += run.bytes as u64 + run.events.len() as u64 * HOT_EVENT_BYTES;
        self.bytes.extend_from_slice(&block);
        Ok(())
    }
}

impl LogRead {
    /// What the indexes say of a run: databases in runs, and cuts (see [`BlockRecord`]).
    #[expect(clippy::type_complexity, reason = "the two fields of a block record")]
    fn indexes_of(
        &self,
        origin: OriginId,
        first: u64,
        last: u64,
    ) -> Result<(Vec<(u32, u32)>, Vec<(u32, Cut, Option<Cut>)>), LogError> {
        let mut of = vec![u32::MAX; (last - first + 1) as usize];
        let mut cuts = Vec::new();
        for entry in self.databases.iter()? {
            let name = entry?.0.value().to_owned();
            let Some(database) = self.database(&name)? else { continue };
            let number = database.number;
            let (from, through) = (database_key(number, origin, first), database_key(number, origin, last));
            for entry in self.database_events.range::<&[u8; 28]>(&from..=&through)? {
                let (_, seq) = split_database_key(entry?.0.value());
                of[(seq - first) as usize] = number;
            }
            let moved = self.cuts.range::<&[u8; 28]>(&from..=&through)?.next().transpose()?.is_some();
            let applied = |seq| -> Result<Cut, LogError> {
                let mut cut = cut_at(&self.cuts, &self.archive, Some(number), origin, seq)?;
                // Its own earlier events are no statement.
                cut.dots.remove(&origin);
                Ok(cut)
            };
            let front = applied(first - 1)?;
            if moved || !front.dots.is_empty() {
                cuts.push((number, front, moved.then(|| applied(last)).transpose()?));
            }
        }
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for number in of {
            match runs.last_mut() {
                Some((last, count)) if *last == number => *count += 1,
                _ => runs.push((number, 1)),
            }
        }
        Ok((runs, cuts))
    }

    /// Segments whose bodies the log has not let go of yet, and their blocks.
    pub fn uncleared(&self) -> Result<Vec<Uncleared>, LogError> {
        let segments = self.archive.segments()?.into_iter().filter(|(_, segment)| !segment.cleared);
        Ok(segments.map(|(number, segment)| (number, segment.blocks)).collect())
    }
}

impl Log {
    /// Writes what is packed as a segment: first the file, then what the log knows of it, durable when this returns. The
    /// bodies still lie in the log. The number of the segment; `None`: nothing was packed.
    pub fn seal(&self, sealer: &mut Sealer) -> Result<Option<u32>, LogError> {
        if sealer.is_empty() {
            return Ok(None);
        }
        let bytes = std::mem::replace(&mut sealer.bytes, MAGIC.to_vec());
        let blocks = std::mem::take(&mut sealer.blocks);
        let record = SegmentRecord {
            name: segment::segment_name(&bytes),
            bytes: bytes.len() as u64,
            events: std::mem::take(&mut sealer.events),
            hot_bytes: std::mem::take(&mut sealer.hot_bytes),
            blocks: blocks.iter().map(|(origin, first, _)| (*origin, *first)).collect(),
            cleared: false,
        };
        if let Some(store) = &self.home.store {
            store.put(&record.name, &bytes).map_err(LogError::SegmentNotWritten)?;
        }
        let mut write = self.write()?;
        let number = write.put_segment(&record, blocks, &bytes)?;
        write.commit_durable()?;
        Ok(Some(number))
    }
}

impl Log {
    /// Puts a block that cannot be read back in its place, from events that came from elsewhere; durable when this returns.
    /// False: they are not the ones that were archived, and nothing was changed.
    pub fn restore_block(&self, origin: OriginId, first: u64, events: &[StoredEvent]) -> Result<bool, LogError> {
        let read = self.read()?;
        let Some((_, begins, record)) = read.archive.block_of(origin, first)? else { return Ok(false) };
        let Some(head) = read.head(&origin)? else { return Ok(false) };
        if begins != first || events.len() != record.count as usize {
            return Ok(false);
        }
        let block = segment::pack(head.origin, events);
        let same = segment::block_check(&block) == record.check;
        if !same && !read.chain_fits(&head, first, events)? {
            return Ok(false);
        }
        let bytes = [MAGIC, block.as_slice()].concat();
        let segment = SegmentRecord {
            name: segment::segment_name(&bytes),
            bytes: bytes.len() as u64,
            events: events.len() as u64,
            hot_bytes: events.iter().map(|event| event.bytes.len() as u64 + HOT_EVENT_BYTES).sum(),
            blocks: vec![(origin, first)],
            cleared: true,
        };
        if let Some(store) = &self.home.store {
            store.put(&segment.name, &bytes).map_err(LogError::SegmentNotWritten)?;
        }
        let place = BlockRecord {
            offset: MAGIC.len() as u64,
            stored: block.len() as u32,
            check: segment::block_check(&block),
            ..record.clone()
        };
        let mut write = self.write()?;
        // In this order: a segment's number is never given twice.
        write.put_segment(&segment, vec![(origin, first, place)], &bytes)?;
        write.leave_segment(record.segment, origin, first, &segment)?;
        write.commit_durable()?;
        Ok(true)
    }
}

impl LogRead {
    /// Whether events stand in an origin's chain where they say: they follow each other, and the log's own events on both
    /// sides are the ones that they name.
    fn chain_fits(&self, head: &Head, first: u64, events: &[StoredEvent]) -> Result<bool, LogError> {
        let origin = head.origin.id();
        // What cannot be read itself says nothing; what is behind says enough.
        let readable = |seq| match self.find(origin, seq) {
            Err(LogError::Archived { .. } | LogError::CorruptEvent { .. }) => Ok(None),
            found => found,
        };
        let mut before = match first {
            1 => Some([0; 32]),
            _ => readable(first - 1)?.map(|event| event.hash),
        };
        for event in events {
            let Ok(decoded) = decode_event(&event.bytes) else { return Ok(false) };
            let follows = before.is_none_or(|before| decoded.header.previous == before);
            if !follows || decoded.header.seq != event.seq || decoded.header.origin != head.origin {
                return Ok(false);
            }
            before = Some(event_hash(&event.bytes));
        }
        let last = events.last().map_or(0, |last| last.seq);
        let wanted = match last == head.seq {
            true => Some(head.hash),
            false => match readable(last + 1)? {
                Some(next) => decode_event(&next.bytes).ok().map(|next| next.header.previous),
                None => None,
            },
        };
        Ok(wanted.is_some() && wanted == before)
    }
}

impl LogWrite<'_> {
    /// Takes a block out of a segment's list; a segment without blocks is forgotten, and its file is then an orphan.
    fn leave_segment(
        &mut self,
        number: u32,
        origin: OriginId,
        first: u64,
        moved: &SegmentRecord,
    ) -> Result<(), LogError> {
        let Some(mut old) = self.base.archive.segment(number)? else { return Ok(()) };
        old.blocks.retain(|block| *block != (origin, first));
        old.events = old.events.saturating_sub(moved.events);
        old.hot_bytes = old.hot_bytes.saturating_sub(moved.hot_bytes);
        let mut segments = self.transaction.open_table(archive::SEGMENTS)?;
        if old.blocks.is_empty() {
            segments.remove(number)?;
        } else {
            segments.insert(number, record::seal(&number.to_be_bytes(), &old).as_slice())?;
        }
        Ok(())
    }

    fn put_segment(
        &mut self,
        record: &SegmentRecord,
        blocks: Vec<(OriginId, u64, BlockRecord)>,
        bytes: &[u8],
    ) -> Result<u32, LogError> {
        let mut segments = self.transaction.open_table(archive::SEGMENTS)?;
        let number = segments.last()?.map_or(0, |(number, _)| number.value() + 1);
        segments.insert(number, record::seal(&number.to_be_bytes(), record).as_slice())?;
        let mut places = self.transaction.open_table(archive::BLOCKS)?;
        for (origin, first, block) in blocks {
            let key = event_key(origin, first);
            let block = BlockRecord { segment: number, ..block };
            places.insert(&key, record::seal(&key, &block).as_slice())?;
        }
        let mut bodies = self.transaction.open_table(archive::BODIES)?;
        if self.log.home.store.is_none() {
            bodies.insert(&record.name, bytes)?;
        }
        self.transaction.open_table(archive::PAGES)?;
        Ok(number)
    }

    /// Removes the bodies of a block from the log, and what the indexes say of them; the number of bodies removed. The
    /// block is read back first: one that does not hold exactly what the log holds is an error, and nothing is removed.
    pub fn clear_block(&mut self, origin: OriginId, first: u64) -> Result<u64, LogError> {
        let Some((record, block)) = self.base.archive.block(origin, first)? else { return Ok(0) };
        let mut events = self.transaction.open_table(tables::EVENTS)?;
        let mut there = Vec::new();
        for seq in first..=block.last() {
            let hot = match stored::find(&events, origin, seq) {
                Ok(None) => continue,
                // It was sound when it was packed, and the block's check holds.
                Err(LogError::CorruptEvent { .. }) => None,
                hot => hot?,
            };
            if hot.is_some() && hot != block.event(seq) {
                let problem = "does not hold what the log holds".to_string();
                return Err(LogError::Archived { origin, seq, segment: record.segment.to_string(), problem });
            }
            there.push(seq);
        }
        for seq in &there {
            events.remove(&event_key(origin, *seq))?;
        }
        let (mut at, mut members) = (first, self.transaction.open_table(tables::DATABASE_EVENTS)?);
        for &(number, count) in &record.databases {
            for seq in at..at + u64::from(count) {
                members.remove(&database_key(number, origin, seq))?;
            }
            at += u64::from(count);
        }
        let mut cuts = self.transaction.open_table(tables::CUTS)?;
        for (number, ..) in record.cuts.iter().filter(|(_, _, back)| back.is_some()) {
            let (from, through) = (database_key(*number, origin, first), database_key(*number, origin, block.last()));
            cuts.retain_in::<&[u8; 28], _>(&from..=&through, |_, _| false)?;
        }
        Ok(there.len() as u64)
    }

    /// Notes that the log holds none of a segment's bodies any more; its bytes, and what its events took in the log.
    pub fn end_segment(&mut self, number: u32) -> Result<(u64, u64), LogError> {
        let Some(mut record) = self.base.archive.segment(number)? else { return Ok((0, 0)) };
        record.cleared = true;
        let value = record::seal(&number.to_be_bytes(), &record);
        self.transaction.open_table(archive::SEGMENTS)?.insert(number, value.as_slice())?;
        Ok((record.bytes, record.hot_bytes))
    }

    /// Packs the oldest arrivals, when a whole page of them are in segments alone. False: there is no such page.
    pub fn pack_arrivals(&mut self) -> Result<bool, LogError> {
        let mut arrivals = self.transaction.open_table(tables::ARRIVALS)?;
        let events = self.transaction.open_table(tables::EVENTS)?;
        let (mut page, mut known): (Vec<Arrival>, BTreeMap<OriginId, (u64, u64)>) = (Vec::new(), BTreeMap::new());
        for entry in arrivals.iter()?.take(PAGE_ARRIVALS) {
            let (number, key) = entry?;
            let (origin, seq) = split_key(key.value());
            let within = known.get(&origin).is_some_and(|(first, last)| (*first..=*last).contains(&seq));
            if !within {
                let block = self.base.archive.block_of(origin, seq)?;
                let Some((_, first, record)) = block else { return Ok(false) };
                known.insert(origin, (first, first + u64::from(record.count) - 1));
            }
            if events.get(key.value())?.is_some() {
                return Ok(false);
            }
            page.push(Arrival { number: number.value(), origin, seq });
        }
        let (Some(first), true) = (page.first().map(|first| first.number), page.len() == PAGE_ARRIVALS) else {
            return Ok(false);
        };
        let value = record::seal(&first.to_be_bytes(), &PageRecord::pack(&page));
        self.transaction.open_table(archive::PAGES)?.insert(first, value.as_slice())?;
        for arrival in &page {
            arrivals.remove(arrival.number)?;
        }
        Ok(true)
    }
}
