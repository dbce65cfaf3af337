//! This node's own chain: incarnation, sequence, signature.
//!
//! States: an incarnation begins (first start; machine, file or data directory changed; a peer knows more of the chain than
//! this log) and never ends before the next one begins. Invariants: an event is signed only with the sequence number
//! behind the log's head; two writers never share an incarnation. Caller: `node`.

use ed25519_dalek::{Signer, SigningKey};

use crate::model::{Bug, Cut, Event, Head, Header, NodeId, Origin, Stamp, planted};
use crate::wire::event::{encode_event, event_hash, head_signature_message};

use super::capture::Part;
use crate::wire::message::SignedEvent;

/// Signs this node's events.
pub(super) struct Chain {
    key: SigningKey,
    cluster: [u8; 32],
    origin: Origin,
}

/// An event with its canonical bytes.
pub(super) struct Sealed {
    pub(super) event: Event,
    pub(super) bytes: Vec<u8>,
    pub(super) hash: [u8; 32],
    pub(super) signature: [u8; 64],
}

impl Sealed {
    /// The head it is, and the event as it is sent.
    pub(super) fn into_signed(self) -> (Head, SignedEvent) {
        let head = Head { origin: self.event.header.origin, seq: self.event.header.seq, hash: self.hash };
        (head, SignedEvent { bytes: self.bytes, signature: Some(self.signature) })
    }
}

/// What every event of one capture shares.
pub(super) struct Sealing<'s> {
    pub(super) database: &'s str,
    /// What the file had applied, as a delta.
    pub(super) applied: Cut,
    pub(super) schema: [u8; 16],
    pub(super) stamp: Stamp,
    /// Who ordered it and why; empty for what an app wrote.
    pub(super) note: &'s str,
}

impl Chain {
    pub(super) fn new(key_seed: &[u8; 32], cluster: [u8; 32], incarnation: u64) -> Chain {
        let key = SigningKey::from_bytes(key_seed);
        let node = NodeId(key.verifying_key().to_bytes());
        let incarnation = if planted(Bug::OneIncarnation) { incarnation.min(1) } else { incarnation };
        Chain { key, cluster, origin: Origin { node, incarnation } }
    }

    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    /// Makes events of the parts of one capture, behind `head`.
    pub(super) fn seal(&self, head: Option<Head>, parts: Vec<Part>, sealing: Sealing<'_>) -> Vec<Sealed> {
        let (mut seq, mut previous) = head.map_or((0, [0; 32]), |head| (head.seq, head.hash));
        let mut applied = sealing.applied;
        let count = parts.len();
        let mut sealed = Vec::with_capacity(count);
        for (position, part) in parts.into_iter().enumerate() {
            seq += 1;
            let header = Header {
                cluster: self.cluster,
                origin: self.origin,
                seq,
                previous,
                stamp: sealing.stamp,
                database: sealing.database.to_string(),
                applied: std::mem::take(&mut applied),
                schema: sealing.schema,
                continues: position + 1 < count,
                note: sealing.note.to_string(),
            };
            let event = Event { header, tables: part.tables, changes: part.changes };
            let bytes = encode_event(&event);
            let hash = event_hash(&bytes);
            let signature = self.key.sign(&head_signature_message(&self.cluster, &hash)).to_bytes();
            previous = hash;
            sealed.push(Sealed { event, bytes, hash, signature });
        }
        sealed
    }
}
