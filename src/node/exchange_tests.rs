//! The exchange on a network that loses what matters.
//!
//! Invariant: frames are lost on purpose, one by one, never by chance. Callers: cargo test.

#![allow(clippy::unwrap_used)]

use super::membership::{admit, node_id};
use super::pair_tests::{Pair, Site};
use super::*;

const SCHEMA: &str = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT)";

#[test]
fn member_records_that_were_lost_on_the_way_are_told_again() {
    let sites = [1, 2].map(|seed| Site::new(seed).with("app", SCHEMA, &[]));
    let mut pair = Pair::start([&sites[0], &sites[1]], &[]);
    pair.meet();
    let third = node_id(&[3; 32]);
    let record = admit(&[1; 32], pair.nodes[0].membership(), third, "third", CLOCK_LATER_MS);
    pair.nodes[0].handle(Input::MembersLearnt(vec![record]), pair.now).unwrap();
    // Everything that the first node says of it at once is lost.
    let mut lost = 0;
    for _ in 0..10 {
        pair.now.mono_ms += 50;
        pair.nodes[0].handle(Input::Tick, pair.now).unwrap();
        while let Some(effect) = pair.nodes[0].poll_effect() {
            lost += u32::from(matches!(effect, Effect::Send { .. }));
        }
    }
    assert!(lost > 0, "nothing was said that could be lost");
    assert!(pair.nodes[1].membership().member(&third).is_none());
    pair.now.mono_ms += 31_000;
    pair.work();
    assert!(pair.nodes[1].membership().member(&third).is_some(), "the second node never heard of the third");
}

const CLOCK_LATER_MS: u64 = super::pair_tests::CLOCK_MS + 60_000;
