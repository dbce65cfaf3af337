//! Ways to peers are remembered with the time they last worked, and bounded.

use super::pair_tests::{Pair, Site};
use super::view::KnownAddress;
use crate::wire::limits::REMEMBERED_PER_PEER_MAX;

fn way(peer: &str, port: u64, reached_ms: u64) -> KnownAddress {
    KnownAddress { peer: peer.into(), address: format!("/ip4/10.0.0.1/tcp/{port}"), reached_ms }
}

#[test]
fn a_way_keeps_its_newest_time_and_the_oldest_way_of_a_peer_makes_room() {
    let sites = [Site::new(1), Site::new(2)];
    let mut pair = Pair::start([&sites[0], &sites[1]], &[]);
    let node = &mut pair.nodes[0];
    for known in [way("ab", 1, 0), way("ab", 1, 70), way("ab", 1, 30), way("", 9, 0)] {
        node.add_address(known).unwrap();
    }
    let mut known = node.known_addresses().unwrap();
    known.sort_by(|one, other| one.address.cmp(&other.address));
    assert_eq!(known, [way("ab", 1, 70), way("", 9, 0)]);

    let many = REMEMBERED_PER_PEER_MAX as u64 + 10;
    (100..100 + many).for_each(|port| node.add_address(way("ab", port, port)).unwrap());
    let mut known = node.known_addresses().unwrap();
    known.retain(|known| known.peer == "ab");
    known.sort_by_key(|known| known.reached_ms);
    assert_eq!(known.len(), REMEMBERED_PER_PEER_MAX);
    assert_eq!(known[0], way("ab", 110, 110), "the newest ones stay");
    assert!(node.known_addresses().unwrap().contains(&way("", 9, 0)), "what a person named stays");
}
