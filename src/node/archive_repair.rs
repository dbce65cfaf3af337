//! Repair of the archive: blocks that cannot be read any more are fetched from a peer, as any events are.
//!
//! States: look (every block is read, one a step) → fetch (the last damaged one first, from a connected peer that holds it;
//! another one after a wait) → done. A block is taken back only when it is what was archived: packed again it has the same
//! hash; or, should another version pack differently, its chain fits the log at both ends, which no other events can. It is
//! written as a segment of its own, and the log's note of it is moved there: durable, then the next.
//!
//! Invariants: a repair never touches what can be read; what comes is checked before it is kept; one request at a time, so
//! that it costs the exchange nothing else. Not repaired: blocks with an event larger than a frame's piece, and what no
//! connected peer holds: they are counted, and stay as they are. Callers: step, http.

use super::archive_view::RepairView;
use super::{Effect, Node, NodeError, Now};
use crate::log::{LogError, StoredEvent};
use crate::model::{NodeId, OriginId};
use crate::wire::event::{decode_event, event_hash};
use crate::wire::limits;
use crate::wire::message::{Events, Message, Pull, Range};

/// A peer that brings nothing within this is left, ms.
const WAIT_MS: u64 = 10_000;

/// Requests of a repair have numbers that no other one reaches.
const REQUEST: u64 = 1 << 62;

/// A repair that is under way.
#[derive(Debug)]
pub(super) struct Repair {
    /// Where the look goes on; `None`: all blocks were looked at.
    look: Option<(OriginId, u64)>,
    /// Damaged blocks: origin, first and last event.
    damaged: Vec<(OriginId, u64, u64)>,
    fetch: Option<Fetch>,
}

/// A block on its way.
#[derive(Debug)]
struct Fetch {
    block: (OriginId, u64, u64),
    from: NodeId,
    until_ms: u64,
    got: Vec<StoredEvent>,
    /// Who was asked and brought nothing.
    vain: Vec<NodeId>,
}

impl Repair {
    /// Whether it looks through the blocks.
    pub(super) fn looks(&self) -> bool {
        self.look.is_some()
    }

    /// When nothing came in time, monotonic ms.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        Some(self.fetch.as_ref().map_or(0, |fetch| fetch.until_ms))
    }
}

impl Node {
    /// Begins a repair; the next ticks do it.
    pub fn start_repair(&mut self) -> RepairView {
        if self.archiving.repair.is_none() {
            self.archiving.repaired = RepairView { state: "running".to_string(), ..RepairView::default() };
            let look = Some((OriginId([0; 16]), 0));
            self.archiving.repair = Some(Repair { look, damaged: Vec::new(), fetch: None });
        }
        self.repair()
    }

    /// The repair that is under way, or the last one.
    pub fn repair(&self) -> RepairView {
        self.archiving.repaired.clone()
    }

    /// One step of a repair.
    pub(super) fn step_repair(&mut self, now: Now) -> Result<(), NodeError> {
        let Some(mut repair) = self.archiving.repair.take() else { return Ok(()) };
        if let Some(after) = repair.look {
            let read = self.log.read()?;
            repair.look = match read.next_archived(after)? {
                Some((origin, first, last)) => {
                    self.archiving.repaired.looked += 1;
                    match read.check_block(origin, first) {
                        Err(LogError::Archived { .. }) => repair.damaged.push((origin, first, last)),
                        checked => checked?,
                    }
                    Some((origin, last + 1))
                }
                None => None,
            };
            self.archiving.repaired.damaged = repair.damaged.len() as u64;
            self.archiving.repair = Some(repair);
            return Ok(());
        }
        self.fetch_next(&mut repair, now);
        match repair.fetch {
            Some(_) => self.archiving.repair = Some(repair),
            None => self.archiving.repaired.state = "done".to_string(),
        }
        Ok(())
    }

    /// Asks for the last damaged block, when nothing is asked for, or for it elsewhere, when nothing came.
    fn fetch_next(&mut self, repair: &mut Repair, now: Now) {
        if repair.fetch.as_ref().is_some_and(|fetch| now.mono_ms < fetch.until_ms) {
            return;
        }
        let (mut vain, mut block) = (Vec::new(), None);
        if let Some(late) = repair.fetch.take() {
            vain = late.vain;
            vain.push(late.from);
            block = Some(late.block);
        }
        while let Some(next) = block.take().or_else(|| repair.damaged.pop()) {
            let (origin, _, last) = next;
            let holds = |node: &NodeId| {
                let peer = self.exchange.peers.get(node);
                peer.is_some_and(|peer| peer.heads.get(&origin).is_some_and(|head| head.seq >= last))
            };
            let connected = self.exchange.peers.iter().filter(|(_, peer)| peer.connected && peer.version >= 2);
            let free = connected.map(|(node, _)| *node).find(|node| !vain.contains(node) && holds(node));
            let Some(from) = free else {
                self.archiving.repaired.not_repaired += 1;
                vain.clear();
                continue;
            };
            let until_ms = now.mono_ms + WAIT_MS;
            let fetch = Fetch { block: next, from, until_ms, got: Vec::new(), vain };
            self.ask_for(&fetch);
            repair.fetch = Some(fetch);
            return;
        }
    }

    fn ask_for(&mut self, fetch: &Fetch) {
        let (origin, first, last) = fetch.block;
        let after = fetch.got.last().map_or(first - 1, |event| event.seq);
        let ranges = vec![Range { origin, after, through: last, offset: 0 }];
        let max_bytes = limits::PULL_BYTES as u32;
        let pull = Pull { request: REQUEST + after, max_bytes, ranges, ..Pull::default() };
        self.effects.push_back(Effect::Send { peer: fetch.from, frame: Message::Pull(pull).encode() });
    }

    /// Takes what a frame brings of the block that is asked for. The exchange takes the same frame: for it all of this is
    /// known already.
    pub(super) fn take_for_repair(&mut self, from: NodeId, events: &Events, now: Now) -> Result<(), NodeError> {
        let Some(mut repair) = self.archiving.repair.take() else { return Ok(()) };
        let (whole, more) = match repair.fetch.as_mut().filter(|fetch| fetch.from == from && events.request >= REQUEST)
        {
            Some(fetch) => {
                let before = fetch.got.len();
                fetch.collect(events);
                let whole = fetch.got.last().is_some_and(|event| event.seq == fetch.block.2);
                let more = !whole && fetch.got.len() > before;
                if more {
                    fetch.until_ms = now.mono_ms + WAIT_MS;
                }
                (whole, more)
            }
            None => (false, false),
        };
        if more && let Some(fetch) = &repair.fetch {
            self.ask_for(fetch);
        }
        if whole && let Some(fetch) = repair.fetch.take() {
            match self.log.restore_block(fetch.block.0, fetch.block.1, &fetch.got)? {
                true => self.archiving.repaired.repaired += 1,
                // Somebody sends other events than the author's, or signatures are missing: another peer is asked.
                false => repair.fetch = Some(Fetch { until_ms: now.mono_ms, got: Vec::new(), ..fetch }),
            }
        }
        self.archiving.repair = Some(repair);
        self.due = true;
        Ok(())
    }
}

impl Fetch {
    /// Takes the events that come next.
    fn collect(&mut self, events: &Events) {
        let (origin, first, last) = self.block;
        for one in &events.events {
            let next = self.got.last().map_or(first, |event| event.seq + 1);
            let Ok(event) = decode_event(&one.bytes) else { continue };
            if event.header.origin.id() == origin && event.header.seq == next && next <= last {
                let hash = event_hash(&one.bytes);
                self.got.push(StoredEvent { seq: next, bytes: one.bytes.clone(), hash, signature: one.signature });
            }
        }
    }
}
