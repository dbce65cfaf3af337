//! Segments: old events, packed. A segment is a file of blocks; a block is a run of one origin's events, compressed.
//!
//! ```text
//! segment  MAGIC, then blocks; its name is the blake3 hash of all of it
//! block    stored bytes (4), plain bytes (4), zstd of the plain form
//! plain    node (32), incarnation (8), first number (8), events (4);
//!          per event: signed (1); where the hash of the event before it stood (2); length without that hash (4);
//!          the events' bytes without those hashes; the signatures
//! ```
//! Chain hashes are left out, because each is the hash of the event in front: unpacking puts them back, so a byte that
//! changed anywhere breaks every link behind it. Signatures stay, all of them, though the last one of a run proves those
//! before it: whoever pulls a few events, or one, must get what a signature ends ([`crate::wire`]'s rule for every run),
//! and nothing is dropped here. They do not compress: 64 bytes of an event are the floor.
//! Blocks are small, so that reading one event unfolds little, and begin with the whole chain hash of what stands before,
//! so that each can be checked alone. A segment may hold runs of several origins: a day's few events of thirty servers are
//! one file, not thirty.
//!
//! Invariant: [`unpack`] of [`pack`] gives the same events, bytes, hashes and signatures; it is total on any bytes and
//! allocates no more than a limit. Callers: the archive's files of this room, and who checks an archive on a stick.

use crate::model::{NodeId, Origin};
use crate::wire::{event_hash, limits};

use super::StoredEvent;

/// First bytes of a segment.
pub const MAGIC: &[u8] = b"litemesh segment 1\n";

/// Events in one block.
pub(super) const BLOCK_EVENTS_MAX: usize = 256;

/// Bytes of events that end a block (one event is always taken).
pub(super) const BLOCK_BYTES_TARGET: usize = 256 << 10;

/// Plain bytes of one block: one event of the greatest size, and a margin for what stands around it.
const BLOCK_PLAIN_BYTES_MAX: usize = limits::EVENT_BYTES_MAX + BLOCK_BYTES_TARGET + (64 << 10);

/// Bytes in front of a block's compressed ones.
pub(super) const BLOCK_HEAD_BYTES: usize = 8;

/// node, incarnation, first number, events.
const PLAIN_HEAD_BYTES: usize = 32 + 8 + 8 + 4;

/// signed, place of the hash, length.
const PER_EVENT_BYTES: usize = 1 + 2 + 4;

/// No hash was cut out.
const NOT_CUT: u16 = u16::MAX;

/// A hash is looked for in this many bytes: it stands in the header.
const HEADER_BYTES: usize = 512;

/// Small blocks are packed well, large ones (large values, often packed already) fast: a step must stay short.
const LEVEL_SMALL: i32 = 9;
const LEVEL_LARGE: i32 = 1;

/// An unfolded block.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// Who wrote its events.
    pub origin: Origin,
    /// The number of the first one.
    pub first: u64,
    /// All bytes, one event behind the other.
    bytes: Vec<u8>,
    events: Vec<Place>,
}

#[derive(Debug, PartialEq, Eq)]
struct Place {
    from: usize,
    to: usize,
    hash: [u8; 32],
    signature: Option<[u8; 64]>,
}

impl Block {
    /// Number of its events.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Never: a block holds an event.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Number of its last event.
    pub fn last(&self) -> u64 {
        self.first + (self.events.len() as u64).saturating_sub(1)
    }

    /// Bytes of memory it takes, or so.
    pub(super) fn weight(&self) -> usize {
        self.bytes.len() + self.events.len() * size_of::<Place>()
    }

    /// One event; `None` outside the block.
    pub fn event(&self, seq: u64) -> Option<StoredEvent> {
        let place = self.place(seq)?;
        let bytes = self.bytes[place.from..place.to].to_vec();
        Some(StoredEvent { seq, bytes, hash: place.hash, signature: place.signature })
    }

    /// The canonical bytes of one event.
    pub(super) fn bytes_of(&self, seq: u64) -> Option<&[u8]> {
        self.place(seq).map(|place| &self.bytes[place.from..place.to])
    }

    fn place(&self, seq: u64) -> Option<&Place> {
        self.events.get(usize::try_from(seq.checked_sub(self.first)?).ok()?)
    }
}

/// Packs a run of one origin's events. The run must be gapless and not empty: it comes from the log.
pub(super) fn pack(origin: Origin, events: &[StoredEvent]) -> Vec<u8> {
    let first = events.first().map_or(0, |event| event.seq);
    let bytes: usize = events.iter().map(|event| event.bytes.len()).sum();
    let mut plain = Vec::with_capacity(PLAIN_HEAD_BYTES + events.len() * (PER_EVENT_BYTES + 64) + bytes);
    plain.extend_from_slice(&origin.node.0);
    plain.extend_from_slice(&origin.incarnation.to_be_bytes());
    plain.extend_from_slice(&first.to_be_bytes());
    plain.extend_from_slice(&(events.len() as u32).to_be_bytes());
    let mut cuts = Vec::with_capacity(events.len());
    for (at, event) in events.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| &events[before].hash);
        let header = &event.bytes[..event.bytes.len().min(HEADER_BYTES)];
        cuts.push(before.and_then(|hash| header.windows(32).position(|window| window == hash)));
    }
    plain.extend(events.iter().map(|event| u8::from(event.signature.is_some())));
    for cut in &cuts {
        plain.extend_from_slice(&cut.map_or(NOT_CUT, |at| at as u16).to_be_bytes());
    }
    for (event, cut) in events.iter().zip(&cuts) {
        let length = event.bytes.len() - if cut.is_some() { 32 } else { 0 };
        plain.extend_from_slice(&(length as u32).to_be_bytes());
    }
    for (event, cut) in events.iter().zip(&cuts) {
        match cut {
            Some(at) => {
                plain.extend_from_slice(&event.bytes[..*at]);
                plain.extend_from_slice(&event.bytes[at + 32..]);
            }
            None => plain.extend_from_slice(&event.bytes),
        }
    }
    events.iter().filter_map(|event| event.signature).for_each(|signature| plain.extend_from_slice(&signature));
    let level = if plain.len() <= 2 * BLOCK_BYTES_TARGET { LEVEL_SMALL } else { LEVEL_LARGE };
    let packed = zstd::bulk::compress(&plain, level).expect("memory to memory, into a buffer of the greatest size");
    let mut block = Vec::with_capacity(BLOCK_HEAD_BYTES + packed.len());
    block.extend_from_slice(&((BLOCK_HEAD_BYTES + packed.len()) as u32).to_be_bytes());
    block.extend_from_slice(&(plain.len() as u32).to_be_bytes());
    block.extend_from_slice(&packed);
    block
}

/// Bytes of the block that begins here, as its first bytes say; `None`: not the beginning of one.
pub fn stored_bytes(head: &[u8]) -> Option<usize> {
    let stored = u32::from_be_bytes(*head.first_chunk()?) as usize;
    (BLOCK_HEAD_BYTES..=BLOCK_PLAIN_BYTES_MAX).contains(&stored).then_some(stored)
}

/// The block in these bytes; `None` when they are not one. Its chain is whole in itself, by construction.
pub fn unpack(block: &[u8]) -> Option<Block> {
    let (head, packed) = block.split_at_checked(BLOCK_HEAD_BYTES)?;
    if stored_bytes(head)? != block.len() {
        return None;
    }
    let plain_bytes = u32::from_be_bytes(*head[4..].first_chunk()?) as usize;
    if plain_bytes > BLOCK_PLAIN_BYTES_MAX {
        return None;
    }
    let plain = zstd::bulk::decompress(packed, plain_bytes).ok().filter(|plain| plain.len() == plain_bytes)?;
    let (node, rest) = plain.split_first_chunk::<32>()?;
    let (incarnation, rest) = rest.split_first_chunk::<8>()?;
    let (first, rest) = rest.split_first_chunk::<8>()?;
    let (count, rest) = rest.split_first_chunk::<4>()?;
    let origin = Origin { node: NodeId(*node), incarnation: u64::from_be_bytes(*incarnation) };
    let (first, count) = (u64::from_be_bytes(*first), u32::from_be_bytes(*count) as usize);
    let numbered = first > 0 && count > 0 && first.checked_add(count as u64).is_some();
    if !numbered || rest.len() / PER_EVENT_BYTES < count {
        return None;
    }
    let (signed, rest) = rest.split_at(count);
    let (cuts, rest) = rest.split_at(2 * count);
    let (lengths, rest) = rest.split_at(4 * count);
    let (cuts, lengths) = (cuts.as_chunks::<2>().0, lengths.as_chunks::<4>().0);
    let length = |at: usize| u32::from_be_bytes(lengths[at]) as usize;
    let bodies = (0..count).try_fold(0usize, |sum, at| sum.checked_add(length(at)))?;
    let (mut bodies, signatures) = rest.split_at_checked(bodies)?;
    let mut signatures = signatures.as_chunks::<64>().0.iter();
    let mut unfolded = Block { origin, first, bytes: Vec::new(), events: Vec::with_capacity(count) };
    for at in 0..count {
        let (body, behind) = bodies.split_at(length(at));
        bodies = behind;
        let from = unfolded.bytes.len();
        match (u16::from_be_bytes(cuts[at]), unfolded.events.last()) {
            (NOT_CUT, _) => unfolded.bytes.extend_from_slice(body),
            (cut, Some(before)) => {
                let (front, back) = body.split_at_checked(usize::from(cut))?;
                let hash = before.hash;
                unfolded.bytes.extend_from_slice(front);
                unfolded.bytes.extend_from_slice(&hash);
                unfolded.bytes.extend_from_slice(back);
            }
            (_, None) => return None,
        }
        let hash = event_hash(&unfolded.bytes[from..]);
        let signature = if signed[at] == 1 { Some(*signatures.next()?) } else { None };
        unfolded.events.push(Place { from, to: unfolded.bytes.len(), hash, signature });
    }
    signatures.next().is_none().then_some(unfolded)
}

/// What a block's bytes are checked by.
pub(super) fn block_check(block: &[u8]) -> [u8; 32] {
    blake3::derive_key("litemesh 1 segment block", block)
}

/// The name of a segment: of all its bytes.
pub fn segment_name(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}
