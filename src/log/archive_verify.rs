//! Checks segments that stand alone: no log, no membership, only bytes.
//!
//! Invariant: total on any bytes; every event is checked against its canonical form, the chain it stands in and, where it
//! is signed, its author's key; the last event of every run must be signed, as everywhere. What it does not prove: that the
//! author was a member, and that no later segments exist. Caller: node (`litemesh archive verify`).

use std::collections::BTreeMap;

use ed25519_dalek::{Signature, VerifyingKey};

use super::archive_check::blocks_in;
use super::segment::Block;
use crate::model::Origin;
use crate::wire::{decode_event, head_signature_message};

/// Faults listed at most; the count goes on.
const FAULTS_LISTED_MAX: usize = 1_000;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchiveCheck {
    /// The cluster that all events must be of; empty: that of the first event.
    pub cluster: Vec<u8>,
    /// Segments read.
    pub segments: u64,
    /// Events read.
    pub events: u64,
    /// Signatures checked.
    pub signatures: u64,
    /// Faults found.
    pub fault_count: u64,
    /// The first of them, in words.
    pub faults: Vec<String>,
    /// Per author: first number of a run, its last one, the hash before it, the hash of its last one, whether that is signed.
    runs: BTreeMap<Origin, BTreeMap<u64, Run>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    last: u64,
    before: [u8; 32],
    hash: [u8; 32],
    signed: bool,
}

impl ArchiveCheck {
    /// Notes a fault.
    pub fn fault(&mut self, text: String) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_LISTED_MAX {
            self.faults.push(text);
        }
    }

    /// Checks a segment's bytes.
    pub fn take(&mut self, segment: &[u8]) {
        self.segments += 1;
        for block in blocks_in(segment) {
            match block {
                Ok(block) => self.take_block(&block),
                Err(at) => self.fault(format!("a segment is damaged from its byte {at} on")),
            }
        }
    }

    fn take_block(&mut self, block: &Block) {
        let (mut before, mut hash, mut signed) = ([0; 32], None, false);
        for seq in block.first..=block.last() {
            let Some(stored) = block.event(seq) else { continue };
            self.events += 1;
            let place = format!("event {seq} of {}", block.origin.id());
            match decode_event(&stored.bytes) {
                Ok(event) => {
                    let header = &event.header;
                    if self.cluster.is_empty() {
                        self.cluster = header.cluster.to_vec();
                    }
                    if header.cluster[..] != self.cluster[..] {
                        self.fault(format!("{place}: it belongs to another cluster"));
                    }
                    if header.origin != block.origin || header.seq != seq {
                        self.fault(format!("{place}: it names another place"));
                    }
                    match hash {
                        None => before = header.previous,
                        Some(hash) if header.previous != hash => {
                            self.fault(format!("{place}: it does not follow the event before it"));
                        }
                        Some(_) => {}
                    }
                    if let Some(signature) = &stored.signature {
                        self.signatures += 1;
                        let message = head_signature_message(&header.cluster, &stored.hash);
                        let verified = VerifyingKey::from_bytes(&block.origin.node.0)
                            .and_then(|key| key.verify_strict(&message, &Signature::from_bytes(signature)));
                        if verified.is_err() {
                            self.fault(format!("{place}: its signature is not its author's"));
                        }
                    }
                }
                Err(error) => self.fault(format!("{place}: {error}")),
            }
            (hash, signed) = (Some(stored.hash), stored.signature.is_some());
        }
        let run = Run { last: block.last(), before, hash: hash.unwrap_or_default(), signed };
        let runs = self.runs.entry(block.origin).or_default();
        if let Some(other) = runs.insert(block.first, run.clone())
            && other != run
        {
            self.fault(format!("event {} of {}: two segments say something else", block.first, block.origin.id()));
        }
    }

    /// All segments were read: looks at how the runs follow each other, and at what a manifest says of them: (node and
    /// incarnation, last event, its hash).
    pub fn finish(&mut self, stated: &[(String, u64, String)]) {
        let mut reached: BTreeMap<String, (u64, String)> = BTreeMap::new();
        for (origin, runs) in std::mem::take(&mut self.runs) {
            let mut end: Option<&Run> = None;
            for (first, run) in &runs {
                if let Some(end) = end.filter(|end| end.last + 1 == *first)
                    && end.hash != run.before
                {
                    self.fault(format!("event {first} of {}: it does not follow the event before it", origin.id()));
                }
                if !stated.is_empty() && end.map_or(1, |end| end.last + 1) < *first {
                    self.fault(format!("events before {first} of {} are missing", origin.id()));
                }
                end = Some(run);
            }
            if let Some(end) = end {
                if !end.signed {
                    self.fault(format!("event {} of {}: the last event is not signed", end.last, origin.id()));
                }
                let hash = data_encoding::HEXLOWER.encode(&end.hash);
                reached.insert(format!("{} {}", origin.node, origin.incarnation), (end.last, hash));
            }
        }
        for (origin, through, hash) in stated {
            let there = reached.get(origin);
            if there.is_none_or(|(last, end)| last < through || (last == through && end != hash)) {
                self.fault(format!("the manifest names event {through} of {origin} as the last one: it is not there"));
            }
        }
    }
}
