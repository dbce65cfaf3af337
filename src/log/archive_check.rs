//! The archive as a whole: its size, what is wrong with its files, and files that no log knows.
//!
//! Invariant: a file is removed only when every event in it is held by this log, hash by hash: a segment that an interrupted
//! cleanup left, or that belonged to a log that was set aside, may be the only copy of what is in it. Callers: node, daemon.

use std::collections::{BTreeMap, BTreeSet};

use super::archive::SegmentRecord;
use super::segment::{self, Block, MAGIC};
use super::stored::{event_key, split_key};
use super::{Log, LogError, LogRead};
use crate::model::OriginId;

/// Bytes of a file that is looked into.
const SEGMENT_BYTES_MAX: u64 = 256 << 20;

/// What the archive takes, and whether its files are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchiveSize {
    /// Segments.
    pub segments: u64,
    /// Events in them.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that these events took in the log.
    pub hot_bytes: u64,
    /// Segments that are not there, or not whole: the first digits of their names, and the events in them.
    pub missing: Vec<(String, u64)>,
    /// Files that this log does not know, and their bytes.
    pub unknown: (u64, u64),
}

/// A segment that the log knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredSegment {
    /// Hash of its content.
    pub name: [u8; 32],
    /// Its bytes.
    pub bytes: u64,
    /// Events in it.
    pub events: u64,
}

/// The blocks of a segment's bytes, one by one; an error is the place where they end being some.
pub fn blocks_in(bytes: &[u8]) -> impl Iterator<Item = Result<Block, usize>> {
    let mut at = if bytes.starts_with(MAGIC) { MAGIC.len() } else { 0 };
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended || (at == bytes.len() && at > 0) {
            return None;
        }
        let rest = &bytes[at..];
        let length = if at > 0 { segment::stored_bytes(rest) } else { None };
        let block = length.and_then(|length| rest.get(..length)).and_then(segment::unpack);
        match (block, length) {
            (Some(block), Some(length)) => {
                at += length;
                Some(Ok(block))
            }
            _ => {
                ended = true;
                Some(Err(at))
            }
        }
    })
}

fn digits(name: &[u8; 32]) -> String {
    data_encoding::HEXLOWER.encode(&name[..8])
}

impl LogRead {
    /// Size and state of the archive. Looks at the files' sizes, not into them.
    pub fn archive_size(&self) -> Result<ArchiveSize, LogError> {
        let mut size = ArchiveSize::default();
        let segments = self.archive.segments()?;
        let store = self.archive.home().store.as_ref();
        // What cannot be listed is not there.
        let files: Option<BTreeMap<[u8; 32], u64>> =
            store.map(|store| store.list().unwrap_or_default().into_iter().collect());
        let mut known = 0;
        for (_, segment) in &segments {
            size.segments += 1;
            size.events += segment.events;
            size.bytes += segment.bytes;
            size.hot_bytes += segment.hot_bytes;
            let file = files.as_ref().map(|files| files.get(&segment.name).copied());
            known += file.flatten().unwrap_or(0);
            if file.is_some_and(|file| file != Some(segment.bytes)) {
                size.missing.push((digits(&segment.name), segment.events));
            }
        }
        if let Some(files) = &files {
            let names: BTreeSet<&[u8; 32]> = segments.iter().map(|(_, one)| &one.name).collect();
            let unknown = files.keys().filter(|name| !names.contains(name)).count();
            size.unknown = (unknown as u64, files.values().sum::<u64>().saturating_sub(known));
        }
        Ok(size)
    }

    /// The first event of an origin, at or behind one, whose body lies in the log.
    pub fn first_in_log(&self, origin: &OriginId, from_seq: u64) -> Result<Option<u64>, LogError> {
        let (from, through) = (event_key(*origin, from_seq), event_key(*origin, u64::MAX));
        let first = self.events.range::<&[u8; 24]>(&from..=&through)?.next().transpose()?;
        Ok(first.map(|(key, _)| split_key(key.value()).1))
    }

    /// Up to where an origin's events lie in segments without a gap from the first.
    pub fn archived_through(&self, origin: &OriginId) -> Result<u64, LogError> {
        let mut through = 0;
        while let Some((_, first, record)) = self.archive.block_of(*origin, through + 1)? {
            through = first + u64::from(record.count) - 1;
        }
        Ok(through)
    }

    /// All segments that the log knows.
    pub fn archive_segments(&self) -> Result<Vec<StoredSegment>, LogError> {
        let stored = |(_, SegmentRecord { name, bytes, events, .. })| StoredSegment { name, bytes, events };
        Ok(self.archive.segments()?.into_iter().map(stored).collect())
    }

    /// All bytes of one segment.
    pub fn segment_bytes(&self, name: &[u8; 32], bytes: u64) -> std::io::Result<Vec<u8>> {
        self.archive.read(name, 0, usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// The first block at or behind a place: origin, first and last event.
    pub fn next_archived(&self, (origin, seq): (OriginId, u64)) -> Result<Option<(OriginId, u64, u64)>, LogError> {
        self.archive.next_of_all(origin, seq)
    }

    /// Reads a block anew from its segment, and checks it.
    pub fn check_block(&self, origin: OriginId, first: u64) -> Result<(), LogError> {
        self.archive.check(origin, first)
    }

    /// Whether the log holds exactly these events.
    fn holds(&self, block: &Block) -> Result<bool, LogError> {
        for seq in block.first..=block.last() {
            let here = match self.find(block.origin.id(), seq) {
                Err(LogError::Archived { .. } | LogError::CorruptEvent { .. }) => return Ok(false),
                here => here?,
            };
            if here.is_none() || here.map(|here| here.hash) != block.event(seq).map(|there| there.hash) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Log {
    /// Segment files that this log does not know: name, bytes.
    pub fn orphans(&self) -> Result<Vec<([u8; 32], u64)>, LogError> {
        let Some(store) = &self.home.store else { return Ok(Vec::new()) };
        let read = self.read()?;
        let known: BTreeSet<[u8; 32]> = read.archive.segments()?.into_iter().map(|(_, segment)| segment.name).collect();
        let files = store.list().map_err(LogError::SegmentNotWritten)?;
        Ok(files.into_iter().filter(|(name, _)| !known.contains(name)).collect())
    }

    /// Removes a segment file that this log does not know, if it holds every event in it. True: it did.
    pub fn remove_orphan(&self, name: &[u8; 32], bytes: u64) -> Result<bool, LogError> {
        let Some(store) = self.home.store.as_ref().filter(|_| bytes <= SEGMENT_BYTES_MAX) else { return Ok(false) };
        let content = store.read(name, 0, bytes as usize).unwrap_or_default();
        if segment::segment_name(&content) != *name {
            return Ok(false);
        }
        let read = self.read()?;
        for block in blocks_in(&content) {
            match block {
                Ok(block) if read.holds(&block)? => {}
                _ => return Ok(false),
            }
        }
        Ok(store.remove(name).is_ok())
    }
}
