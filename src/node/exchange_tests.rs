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

/// A server that joined elsewhere writes; a peer that knows it passes its event on before the admission has come here. The
/// peer used to be blamed for a stranger's event, and its connection dropped.
#[test]
fn an_event_that_comes_before_its_authors_admission_is_nobodys_fault() {
    let sites = [1, 2].map(|seed| Site::new(seed).with("app", SCHEMA, &[]));
    let mut pair = Pair::start([&sites[0], &sites[1]], &[]);
    pair.meet();
    let record = admit(&[1; 32], pair.nodes[0].membership(), node_id(&[3; 32]), "third", CLOCK_LATER_MS);
    let chain = chain::Chain::new(&[3; 32], pair.nodes[0].membership().cluster().0, 5);
    let sealing = chain::Sealing {
        database: "app",
        applied: Default::default(),
        schema: [0; 16],
        stamp: crate::model::Stamp(1),
        note: "",
    };
    let sealed = chain.seal(None, vec![Default::default()], sealing);
    let (head, event) = sealed.into_iter().map(chain::Sealed::into_signed).next().unwrap();
    let events = crate::wire::message::Events { events: vec![event], heads: vec![head], ..Default::default() };
    let frame = Message::Events(events).encode();
    let peer = pair.nodes[1].id();
    let pass_on = |pair: &mut Pair| {
        pair.nodes[0].handle(Input::Received { peer, frame: frame.clone() }, pair.now).unwrap();
        let mut sent = 0;
        while let Some(effect) = pair.nodes[0].poll_effect() {
            assert!(!matches!(effect, Effect::PeerFault { .. }), "{effect:?}");
            sent += u32::from(matches!(effect, Effect::Send { .. }));
        }
        sent
    };
    assert_eq!(pass_on(&mut pair), 0, "what cannot be stored yet is not asked for");
    assert!(!pair.nodes[0].heads.contains_key(&head.origin.id()));
    pair.nodes[0].handle(Input::MembersLearnt(vec![record]), pair.now).unwrap();
    pass_on(&mut pair);
    assert!(pair.nodes[0].heads.contains_key(&head.origin.id()), "the member's event is taken");
}

const CLOCK_LATER_MS: u64 = super::pair_tests::CLOCK_MS + 60_000;

/// A whole machine was put back from its image and wrote before it met anybody: two histories under one number. The refusal
/// of the second one used to drop whole frames, and to ask for them again at once: no other server's events came through
/// any more, and two nodes spoke as fast as the network let them.
#[test]
fn a_fork_stops_its_own_origin_only_and_nobody_asks_for_it_without_end() {
    let sites = [1, 2].map(|seed| Site::new(seed).with("app", SCHEMA, &[]));
    let mut pair = Pair::start([&sites[0], &sites[1]], &[]);
    pair.meet();
    sites[1].app("app", "INSERT INTO note (text) VALUES ('shared')");
    pair.work();
    pair.part();
    // What the second one writes now is replaced below by another event under the same number.
    let origin = pair.nodes[1].chain.origin().id();
    sites[1].app("app", "INSERT INTO note (text) VALUES ('second history')");
    alone(&mut pair, 1);
    let mut forged = pair.nodes[0].heads[&origin];
    forged.hash = [7; 32];
    let seq = forged.seq;
    pair.nodes[0].heads.insert(origin, forged);
    sites[0].app("app", "INSERT INTO note (text) VALUES ('from the first')");
    alone(&mut pair, 0);
    let ids = [pair.nodes[0].id(), pair.nodes[1].id()];
    for at in [0, 1] {
        let connected = Input::PeerConnected { peer: ids[1 - at], address: String::new() };
        pair.nodes[at].handle(connected, pair.now).unwrap();
    }
    let mut frames = 0;
    for _ in 0..100 {
        frames += travel(&mut pair);
    }
    assert_eq!(pair.nodes[0].heads[&origin].seq, seq, "the second history was refused");
    assert!(sites[1].ask("app", "SELECT text FROM note").contains(&"from the first".to_string()));
    assert!(frames < 100, "{frames} frames in five seconds");
    let alerts = pair.nodes[0].status(pair.now).unwrap().alerts;
    assert!(alerts.iter().any(|alert| alert.contains("two histories")), "{alerts:?}");
}

/// One turn of both nodes, 50 ms later: what they send arrives. The number of frames.
fn travel(pair: &mut Pair) -> usize {
    let ids = [pair.nodes[0].id(), pair.nodes[1].id()];
    let mut frames = 0;
    pair.now = Now { mono_ms: pair.now.mono_ms + 50, wall_ms: pair.now.wall_ms + 50 };
    for at in [0, 1] {
        // As often as the node asks for it within these 50 ms.
        for _ in 0..50 {
            if pair.nodes[at].next_deadline(pair.now).is_none_or(|deadline| deadline > pair.now.mono_ms) {
                break;
            }
            pair.nodes[at].handle(Input::Tick, pair.now).unwrap();
            while let Some(effect) = pair.nodes[at].poll_effect() {
                if let Effect::Send { frame, .. } = effect {
                    frames += 1;
                    pair.nodes[1 - at].handle(Input::Received { peer: ids[at], frame }, pair.now).unwrap();
                }
            }
        }
    }
    frames
}

/// One node works for itself.
fn alone(pair: &mut Pair, at: usize) {
    for _ in 0..20 {
        pair.now = Now { mono_ms: pair.now.mono_ms + 50, wall_ms: pair.now.wall_ms + 50 };
        pair.nodes[at].handle(Input::Tick, pair.now).unwrap();
        while pair.nodes[at].poll_effect().is_some() {}
    }
}
