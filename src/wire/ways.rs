//! Where members can be reached, as members tell each other.
//!
//! Invariant: decoding takes no more than the limits, whatever the bytes claim; an address stays a text here, the network
//! decides what it can use. Callers: net.

use prost::Message as _;

use super::limits::{ADDRESS_BYTES_MAX, WAYS_ADDRESSES_MAX, WAYS_BYTES_MAX, WAYS_MEMBERS_MAX};
use super::member::fixed;
use super::message::{MessageError, check_field_count};
use super::proto;
use crate::model::NodeId;

/// Where one member can be reached: multiaddrs, the best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaysTo {
    /// The member.
    pub node: NodeId,
    /// Multiaddrs without the node's key.
    pub addresses: Vec<String>,
}

/// One message. The caller keeps to the limits.
pub fn encode_ways(ways: &[WaysTo]) -> Vec<u8> {
    let to_proto = |to: &WaysTo| proto::WaysTo { node: to.node.0.to_vec(), addresses: to.addresses.clone() };
    proto::Ways { members: ways.iter().map(to_proto).collect() }.encode_to_vec()
}

/// The inverse of [`encode_ways`].
pub fn decode_ways(bytes: &[u8]) -> Result<Vec<WaysTo>, MessageError> {
    if bytes.len() > WAYS_BYTES_MAX {
        return Err(MessageError::TooLarge("ways"));
    }
    check_field_count(bytes, WAYS_MEMBERS_MAX)?;
    let ways = proto::Ways::decode(bytes).map_err(|_| MessageError::Malformed("ways"))?;
    ways.members.into_iter().map(from_proto).collect()
}

fn from_proto(to: proto::WaysTo) -> Result<WaysTo, MessageError> {
    let fits = |address: &String| address.len() <= ADDRESS_BYTES_MAX;
    if to.addresses.len() > WAYS_ADDRESSES_MAX || !to.addresses.iter().all(fits) {
        return Err(MessageError::TooLarge("addresses"));
    }
    Ok(WaysTo { node: NodeId(fixed(&to.node, "node")?), addresses: to.addresses })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(number: u8, addresses: usize) -> WaysTo {
        let address = |port| format!("/ip4/10.0.0.7/tcp/{port}");
        WaysTo { node: NodeId([number; 32]), addresses: (0..addresses).map(address).collect() }
    }

    #[test]
    fn ways_come_back_and_too_many_are_refused() {
        let ways: Vec<WaysTo> = (0..WAYS_MEMBERS_MAX).map(|number| to(number as u8, WAYS_ADDRESSES_MAX)).collect();
        assert_eq!(decode_ways(&encode_ways(&ways)), Ok(ways.clone()));
        assert_eq!(decode_ways(&[]), Ok(Vec::new()));
        assert!(decode_ways(&encode_ways(&[ways, vec![to(1, 1)]].concat())).is_err());
        assert!(decode_ways(&encode_ways(&[to(1, WAYS_ADDRESSES_MAX + 1)])).is_err());
        let long = WaysTo { node: NodeId([1; 32]), addresses: vec!["x".repeat(ADDRESS_BYTES_MAX + 1)] };
        assert!(decode_ways(&encode_ways(&[long])).is_err());
        assert!(decode_ways(&vec![0; WAYS_BYTES_MAX + 1]).is_err());
        let bytes = encode_ways(&[to(1, 2)]);
        (1..bytes.len()).for_each(|cut| assert!(decode_ways(&bytes[..cut]).is_err(), "cut at {cut}"));
    }
}
