//! Who wrote and which row: node keys, origins, births, row identities.
//!
//! Invariant: an identity is fixed at its making and holds no clock value; equal identities mean the same thing on every
//! node and in every cluster. Callers: every module above L0.

use serde::{Deserialize, Serialize};
use std::fmt;

use super::value::Value;
use super::{event::Cell, stamp::Dot};

/// A node's ed25519 public key: its identity on the network and the signer of its events.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub [u8; 32]);

/// A node key and one of its incarnations: the writer of one hash chain of events. A node takes a new incarnation when
/// its data directory was copied or restored, so that two writers never share a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The node's public key.
    pub node: NodeId,
    /// Random, drawn when the incarnation began.
    pub incarnation: u64,
}

/// The short name of an [`Origin`]: the first 16 bytes of the blake3 hash of key and incarnation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OriginId(pub [u8; 16]);

/// The identity a row got from its insert: the event that holds it and the position of the change in that event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Birth {
    /// The origin that captured the insert.
    pub origin: OriginId,
    /// The event's sequence number in that origin.
    pub seq: u64,
    /// The position of the change in the event.
    pub index: u32,
}

/// A row's identity, for ever, in all tables of all databases of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RowId {
    /// A row that was there when the file was enrolled: the hash of its content, so that copies of a file agree.
    Genesis([u8; 16]),
    /// A row inserted while litemesh watched, in a table whose ids SQLite makes (or without any key).
    Born(Birth),
    /// A row of a table whose declared key is its identity: the hash of database, table and key.
    Keyed([u8; 16]),
}

impl Origin {
    /// The short name of this origin.
    pub fn id(&self) -> OriginId {
        let mut hasher = blake3::Hasher::new_derive_key("litemesh 1 origin");
        hasher.update(&self.node.0);
        hasher.update(&self.incarnation.to_be_bytes());
        OriginId(first_16(&hasher))
    }
}

impl Birth {
    /// The same position, as a [`Dot`].
    pub fn dot(&self) -> Dot {
        Dot { origin: self.origin, seq: self.seq, index: self.index }
    }
}

impl RowId {
    /// The identity of a row by its key: equal keys are the same row. References in the key count by the row they point
    /// to, not by its id, so that association rows follow their parents.
    pub fn keyed(database: &str, table: &str, key: &[Cell]) -> RowId {
        let mut hasher = blake3::Hasher::new_derive_key("litemesh 1 keyed row");
        let mut bytes = Vec::new();
        for name in [database, table] {
            Value::text(name).write_canonical(&mut bytes);
        }
        for cell in key {
            cell.write_canonical(&mut bytes);
        }
        hasher.update(&bytes);
        RowId::Keyed(first_16(&hasher))
    }

    /// Fixed-size bytes, in the order of the type: the key of a row in the log's indexes.
    pub fn to_bytes(&self) -> [u8; 29] {
        let mut out = [0u8; 29];
        match self {
            RowId::Genesis(hash) => {
                out[1..17].copy_from_slice(hash);
            }
            RowId::Born(birth) => {
                out[0] = 1;
                out[1..17].copy_from_slice(&birth.origin.0);
                out[17..25].copy_from_slice(&birth.seq.to_be_bytes());
                out[25..29].copy_from_slice(&birth.index.to_be_bytes());
            }
            RowId::Keyed(hash) => {
                out[0] = 2;
                out[1..17].copy_from_slice(hash);
            }
        }
        out
    }

    /// The inverse of [`RowId::to_bytes`]; `None` for bytes that no identity gives.
    pub fn from_bytes(bytes: &[u8]) -> Option<RowId> {
        let bytes: &[u8; 29] = bytes.try_into().ok()?;
        let hash: [u8; 16] = bytes[1..17].try_into().ok()?;
        match bytes[0] {
            0 => Some(RowId::Genesis(hash)),
            1 => Some(RowId::Born(Birth {
                origin: OriginId(hash),
                seq: u64::from_be_bytes(bytes[17..25].try_into().ok()?),
                index: u32::from_be_bytes(bytes[25..29].try_into().ok()?),
            })),
            2 => Some(RowId::Keyed(hash)),
            _ => None,
        }
    }
}

/// The first 16 bytes of the blake3 hash of `bytes` under a context that no other use shares.
pub fn hash_16(context: &str, bytes: &[u8]) -> [u8; 16] {
    first_16(blake3::Hasher::new_derive_key(context).update(bytes))
}

/// The first 16 bytes of a finished blake3 hash.
pub fn first_16(hasher: &blake3::Hasher) -> [u8; 16] {
    let mut out = [0u8; 16];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    out
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", data_encoding::HEXLOWER.encode(&self.0[..4]))
    }
}

impl fmt::Display for OriginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for OriginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OriginId({})", data_encoding::HEXLOWER.encode(&self.0[..4]))
    }
}

/// Short and stable: what `history` and `conflicts` print.
impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        match self {
            RowId::Genesis(hash) => write!(f, "genesis:{}", hex(&hash[..8])),
            RowId::Born(birth) => write!(f, "{}:{}:{}", hex(&birth.origin.0[..4]), birth.seq, birth.index),
            RowId::Keyed(hash) => write!(f, "key:{}", hex(&hash[..8])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_ids_survive_their_bytes_and_keep_their_order() {
        let birth = |seq, index| RowId::Born(Birth { origin: OriginId([7; 16]), seq, index });
        let ids = [RowId::Genesis([1; 16]), birth(1, 9), birth(2, 0), birth(256, 3), RowId::Keyed([0; 16])];
        for pair in ids.windows(2) {
            assert!(pair[0] < pair[1]);
            assert!(pair[0].to_bytes() < pair[1].to_bytes());
        }
        for id in ids {
            assert_eq!(RowId::from_bytes(&id.to_bytes()), Some(id));
        }
        assert_eq!(RowId::from_bytes(&[9; 29]), None);
    }
}
