//! Pulling among several nodes: what travels, from whom, in which order, and what when somebody is slow, lies or is cut off.
//!
//! Invariant: bytes and order are asserted, time only as the clock of the test. Callers: cargo test.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::chain::{Chain, Sealed};
use super::group_tests::{Group, chain_of, events_in, is_answer, origin_of, part, sealing};
use super::pair_tests::CLOCK_MS;
use super::*;
use crate::model::{Cut, NodeId, OriginId};
use crate::wire::message::{Events, Hello, SignedEvent};

#[test]
fn in_sync_costs_less_than_a_kilobyte_with_twelve_members_and_a_hundred_incarnations() {
    let stock = |_: usize, cluster| (0..100).flat_map(|number| chain_of(1, cluster, 1_000 + number, 1, 20)).collect();
    let mut group = Group::new(12, stock);
    group.sent.clear();
    group.connect(0, 1);
    group.run(5_000);
    let session = group.bytes();
    assert!(group.nodes[0].in_sync(&[]) && group.nodes[1].in_sync(&[]), "both know that they are equal");
    assert!(session <= 1_024, "{session} bytes for a session in sync");
    group.sent.clear();
    group.run(60_000);
    assert!(group.bytes() <= 1_024, "{} bytes in an idle minute", group.bytes());
    // And again after a cut.
    group.sent.clear();
    group.cut(0, 1);
    group.connect(0, 1);
    group.run(5_000);
    assert!(group.bytes() <= 1_024, "{} bytes for a session after a cut", group.bytes());
}

#[test]
fn more_heads_than_fit_one_hello_are_told_in_several_and_all_events_come() {
    const ORIGINS: u64 = limits_heads() as u64 + 400;
    fn stock(at: usize, cluster: [u8; 32]) -> Vec<Sealed> {
        if at > 0 {
            Vec::new()
        } else {
            (0..ORIGINS).flat_map(|number| chain_of(1, cluster, 1_000 + number, 1, 5)).collect()
        }
    }
    let mut group = Group::new(2, stock);
    group.connect(0, 1);
    group.run_until("all origins", 60_000, |group| group.nodes[1].heads.len() as u64 >= ORIGINS);
    group.run_until("both know it", 10_000, |group| group.nodes[0].in_sync(&[]) && group.nodes[1].in_sync(&[]));
}

const fn limits_heads() -> usize {
    crate::wire::limits::HEADS_MAX
}

fn large_history(at: usize, cluster: [u8; 32]) -> Vec<Sealed> {
    if at == 0 { Vec::new() } else { chain_of(2, cluster, 77, 3_000, 600) }
}

#[test]
fn one_large_history_comes_from_all_who_hold_it_and_nothing_twice() {
    let mut group = Group::new(5, large_history);
    let origin = origin_of(2, 77);
    for peer in 1..5 {
        group.connect(0, peer);
    }
    group.run_until("all events", 20_000, |group| group.seq(0, &origin) == 3_000);
    let carried = group.carried(0, &origin);
    assert_eq!(carried.len(), 3_000);
    let twice: Vec<_> = carried.iter().filter(|(_, from)| from.len() > 1).collect();
    assert!(twice.is_empty(), "fetched twice: {twice:?}");
    for peer in 1..5 {
        let share = carried.values().filter(|from| from.contains(&peer)).count();
        assert!(share >= 300, "peer {peer} brought {share} of 3000");
    }
}

#[test]
fn a_peer_that_never_answers_holds_up_nobody_and_its_part_is_given_to_another() {
    let time = |silent: bool| {
        let mut group = Group::new(4, large_history);
        group.fate = Box::new(move |from, _, frame| (!(silent && from == 1 && is_answer(frame))).then_some(20));
        for peer in 1..4 {
            group.connect(0, peer);
        }
        let origin = origin_of(2, 77);
        let took = group.run_until("all events", 30_000, |group| group.seq(0, &origin) == 3_000);
        let score = group.nodes[0].exchange.peers[&group.nodes[1].id()].score();
        (took, score)
    };
    let ((well, good), (ill, poor)) = (time(false), time(true));
    assert!(ill < well + 2 * 3_000, "{ill} ms with a silent peer, {well} ms without");
    assert!(poor < good, "the silent one is known: {poor} {good}");
}

#[test]
fn a_peer_that_claims_what_it_does_not_have_is_asked_last() {
    let mut group = Group::new(3, large_history);
    let origin = origin_of(2, 77);
    // The first one claims a longer history than there is.
    let mut claimed = group.nodes[1].heads[&origin];
    claimed.seq = 1_000_000;
    group.nodes[1].heads.insert(origin, claimed);
    group.connect(0, 1);
    group.connect(0, 2);
    group.run_until("all events", 20_000, |group| group.seq(0, &origin) == 3_000);
    group.run(60_000);
    let pulls = |group: &Group, to: usize| {
        let pull = |frame: &[u8]| matches!(Message::decode(frame), Ok(Message::Pull(_)));
        group.sent.iter().filter(|(from, target, frame)| (*from, *target) == (0, to) && pull(frame)).count()
    };
    let before = pulls(&group, 1);
    let liar = &group.nodes[0].exchange.peers[&group.nodes[1].id()];
    assert!(liar.misses > 0 && liar.score() < 0.6, "{} misses", liar.misses);
    group.run(60_000);
    let more = pulls(&group, 1) - before;
    assert!(more <= 3, "it was asked {more} times in a minute");
    assert!(group.nodes[0].exchange.peers[&group.nodes[2].id()].misses == 0);
}

#[test]
fn a_large_event_goes_on_after_a_cut_and_from_another_peer() {
    let stock = |at: usize, cluster| if at == 0 { Vec::new() } else { chain_of(2, cluster, 77, 1, 3_000_000) };
    let mut group = Group::new(3, stock);
    let origin = origin_of(2, 77);
    let pieces = |group: &Group| -> u64 {
        let all = group.sent.iter().filter(|(_, to, _)| *to == 0);
        all.filter_map(|(_, _, frame)| events_in(frame).piece).map(|piece| piece.bytes.len() as u64).sum()
    };
    group.connect(0, 1);
    group.run_until("a third", 10_000, |group| pieces(group) > 1_000_000);
    group.cut(0, 1);
    group.run(100);
    group.connect(0, 1);
    group.run_until("two thirds", 10_000, |group| pieces(group) > 2_000_000);
    group.cut(0, 1);
    group.connect(0, 2);
    group.run_until("the event", 10_000, |group| group.seq(0, &origin) == 1);
    let extra = pieces(&group) - 3_000_000;
    assert!(extra < 3 * crate::wire::limits::PIECE_BYTES as u64, "{extra} bytes came twice");
}

/// Two origins whose events build on each other: each has seen the one before of the other.
fn woven(_: usize, cluster: [u8; 32]) -> Vec<Sealed> {
    let chains = [Chain::new(&[1; 32], cluster, 50), Chain::new(&[2; 32], cluster, 60)];
    let mut sealed: Vec<Sealed> = Vec::new();
    for number in 0..200u64 {
        let at = (number % 2) as usize;
        let own = |one: &&Sealed| one.event.header.origin == chains[at].origin();
        let head = sealed.iter().rev().find(own).map(|one| crate::model::Head {
            origin: chains[at].origin(),
            seq: one.event.header.seq,
            hash: one.hash,
        });
        let mut applied = Cut::new();
        if let Some(last) = sealed.last() {
            applied.dots.insert(last.event.header.origin.id(), last.event.header.seq);
        }
        // The second one's clock is far behind: stamps alone would order them wrongly.
        let stamp = if at == 0 { 500_000 + number } else { number };
        let parts = vec![part(chains[at].origin(), head.map_or(0, |head| head.seq) + 1, 3_000)];
        let batch = chains[at].seal(head, parts, sealing(stamp, applied));
        sealed.extend(batch);
    }
    sealed
}

#[test]
fn an_answer_is_in_causal_order_also_where_clocks_are_wrong() {
    let mut group = Group::new(2, |at, cluster| if at == 0 { Vec::new() } else { woven(at, cluster) });
    group.connect(0, 1);
    let origin = origin_of(2, 60);
    group.run_until("all events", 10_000, |group| group.seq(0, &origin) == 100);
    let mut came: BTreeMap<OriginId, u64> = BTreeMap::new();
    let mut number = 0;
    for (_, _, frame) in group.sent.iter().filter(|(from, _, _)| *from == 1) {
        for event in events_in(frame).events {
            let header = crate::wire::decode_event(&event.bytes).unwrap().header;
            for dot in header.applied.iter() {
                let have = came.get(dot.actor).copied().unwrap_or(0);
                assert!(have >= dot.counter, "event {number} came before what it builds on");
            }
            came.insert(header.origin.id(), header.seq);
            number += 1;
        }
    }
    assert_eq!(number, 200);
}

#[test]
fn who_asks_all_the_time_starves_nobody() {
    let stock = |at: usize, cluster| if at == 0 { chain_of(2, cluster, 77, 400, 20_000) } else { Vec::new() };
    let mut group = Group::new(3, stock);
    group.connect(0, 1);
    group.connect(0, 2);
    group.run_until("heads", 1_000, |group| group.nodes[0].exchange.peers.values().all(|peer| peer.heard));
    group.sent.clear();
    let greedy = group.nodes[1].id();
    let range = crate::wire::message::Range { origin: origin_of(2, 77), after: 0, through: 400, offset: 0 };
    for request in 0..300 {
        for more in 0..3 {
            let request = 1_000_000 + request * 3 + more;
            let pull =
                crate::wire::message::Pull { request, max_bytes: 1 << 19, ranges: vec![range], ..Default::default() };
            let frame = Message::Pull(pull).encode();
            group.nodes[0].handle(Input::Received { peer: greedy, frame }, group.now).unwrap();
        }
        group.run(1);
    }
    let origin = origin_of(2, 77);
    assert_eq!(group.seq(2, &origin), 400, "the modest one has everything");
}

#[test]
fn a_fresh_write_overtakes_the_bulk_that_waits() {
    let stock = |at: usize, cluster| if at == 0 { chain_of(2, cluster, 77, 400, 20_000) } else { Vec::new() };
    let mut group = Group::new(2, stock);
    group.connect(0, 1);
    group.run_until("the bulk", 5_000, |group| group.seq(1, &origin_of(2, 77)) > 0);
    group.sites[0].app("app", "INSERT INTO note (text) VALUES ('fresh')");
    group.nodes[0].handle(Input::FileTouched(0), group.now).unwrap();
    group.sent.clear();
    group.run_until("a push", 1_000, |group| {
        group.sent.iter().any(|(from, _, frame)| {
            *from == 0 && matches!(Message::decode(frame), Ok(Message::Events(events)) if events.request == 0)
        })
    });
    let frames: Vec<bool> =
        group.sent.iter().filter(|(from, _, _)| *from == 0).map(|(_, _, frame)| is_answer(frame)).collect();
    assert!(
        frames.iter().filter(|answer| **answer).count() <= 1,
        "at most what was under way goes before it: {frames:?}"
    );
    assert!(group.seq(1, &origin_of(2, 77)) < 400, "the bulk is still under way");
}

#[test]
fn in_quiet_hours_bulk_waits_and_fresh_writes_travel() {
    // 12:00 UTC or so is 14:00 where they are.
    let minute = (CLOCK_MS / 60_000 % 1_440 + 120) % 1_440;
    let span = QuietHours { from: (minute as u16 + 1_439) % 1_440, until: (minute as u16 + 30) % 1_440 };
    let settings = PaceSettings { bandwidth: 0, quiet_hours: vec![span] };
    for quiet in 0..2 {
        let stock = |at: usize, cluster| if at == 0 { chain_of(2, cluster, 77, 400, 2_000) } else { Vec::new() };
        let mut group = Group::new(2, stock);
        group.nodes[quiet].exchange.pace.settings = settings.clone();
        group.nodes[quiet].handle(Input::LocalTime { offset_minutes: 120 }, group.now).unwrap();
        group.connect(0, 1);
        group.run(5_000);
        assert_eq!(group.seq(1, &origin_of(2, 77)), 0, "node {quiet} is quiet");
        group.sites[0].app("app", "INSERT INTO note (text) VALUES ('fresh')");
        group.nodes[0].handle(Input::FileTouched(0), group.now).unwrap();
        group.run_until("the fresh write", 1_000, |group| group.has_fresh(1));
        assert!(group.bytes() < 20_000, "{} bytes in quiet hours", group.bytes());
        assert_eq!(group.seq(1, &origin_of(2, 77)), 0);
        group.now.wall_ms += 31 * 60_000;
        group.run_until("the bulk afterwards", 70_000, |group| group.seq(1, &origin_of(2, 77)) == 400);
    }
}

#[test]
fn bandwidth_holds_bulk_back_and_not_what_is_fresh() {
    for limited in 0..2 {
        let stock = |at: usize, cluster| if at == 0 { chain_of(2, cluster, 77, 400, 2_000) } else { Vec::new() };
        let mut group = Group::new(2, stock);
        group.nodes[limited].exchange.pace.settings = PaceSettings { bandwidth: 100_000, quiet_hours: vec![] };
        group.connect(0, 1);
        group.run(1_000);
        group.sites[0].app("app", "INSERT INTO note (text) VALUES ('fresh')");
        group.nodes[0].handle(Input::FileTouched(0), group.now).unwrap();
        group.run_until("the fresh write", 1_000, |group| group.has_fresh(1));
        let origin = origin_of(2, 77);
        let took = group.run_until("the bulk", 30_000, |group| group.seq(1, &origin) == 400) + 1_000;
        let bytes = group.bytes() as u64;
        let rate = bytes * 1_000 / took;
        assert!((40_000..=130_000).contains(&rate), "{rate} bytes a second, node {limited} limited");
        let misses = group.nodes[1].exchange.peers.values().map(|peer| peer.misses).sum::<u32>();
        assert_eq!(misses, 0, "who is held back is not to blame");
    }
}

#[test]
fn a_node_of_version_1_and_one_of_version_2_become_equal() {
    for old in 0..3 {
        let mut group =
            Group::new(3, |at, cluster| if at == 1 { chain_of(2, cluster, 77, 300, 2_000) } else { Vec::new() });
        group.nodes[old].exchange.version = 1;
        for at in 0..3 {
            group.sites[at].app("app", &format!("INSERT INTO note (text) VALUES ('from {at}')"));
        }
        group.run(1_500);
        group.connect_all();
        group.run_until("equal", 60_000, |group| group.nodes.iter().all(|node| node.in_sync(&[])));
        for site in &group.sites {
            assert_eq!(site.ask("app", "SELECT count(*) FROM note"), ["3"]);
        }
        for (_, _, frame) in group.sent.iter().filter(|(from, to, _)| *from == old || *to == old) {
            assert!(frame[0] >> 3 <= 3, "a kind of frame that version 1 does not know");
            if let Ok(Message::Pull(pull)) = Message::decode(frame) {
                assert!(pull.ranges.is_empty(), "ranges in a pull to or from version 1");
            }
        }
    }
}

#[test]
fn a_frame_of_an_unknown_kind_is_counted_and_nobody_is_blamed() {
    let mut group = Group::new(2, |_, _| Vec::new());
    group.connect(0, 1);
    let peer = group.nodes[1].id();
    let frame = Message::Unknown(12).encode();
    group.nodes[0].handle(Input::Received { peer, frame }, group.now).unwrap();
    group.run(100);
    assert_eq!(group.nodes[0].exchange.peers[&peer].unknown_frames, 1);
    assert!(group.nodes[0].status(group.now).unwrap().peers[0].unknown_frames == 1);
}

#[test]
fn an_unsigned_contradiction_stops_no_origin() {
    let mut group = Group::new(2, |at, cluster| if at == 1 { chain_of(2, cluster, 77, 5, 20) } else { Vec::new() });
    let mut forged = chain_of(2, group.nodes[0].membership.cluster().0, 77, 2, 21).remove(1);
    forged.event.header.previous = [9; 32];
    forged.event.header.seq = 1;
    let bytes = crate::wire::encode_event(&forged.event);
    let events =
        |signature| Events { events: vec![SignedEvent { bytes: bytes.clone(), signature }], ..Events::default() };
    for signature in [None, Some([1; 64])] {
        let frame = Message::Events(events(signature)).encode();
        let peer = group.nodes[1].id();
        group.nodes[0].handle(Input::Received { peer, frame }, group.now).unwrap();
    }
    group.connect(0, 1);
    group.run_until("the origin", 5_000, |group| group.seq(0, &origin_of(2, 77)) == 5);
}

#[test]
fn heads_that_were_lost_on_the_way_are_asked_for() {
    let mut group = Group::new(2, |at, cluster| if at == 1 { chain_of(2, cluster, 77, 5, 20) } else { Vec::new() });
    let mut lost = 0;
    group.fate = Box::new(move |from, _, frame| match Message::decode(frame) {
        Ok(Message::Hello(Hello { heads, .. })) if from == 1 && !heads.is_empty() && lost < 3 => {
            lost += 1;
            None
        }
        _ => Some(5),
    });
    group.connect(0, 1);
    group.run_until("the events", 3_000, |group| group.seq(0, &origin_of(2, 77)) == 5);
}

#[test]
fn progress_is_counted_with_rate_and_time_left() {
    let stock = |at: usize, cluster| if at == 1 { chain_of(2, cluster, 77, 3_000, 2_000) } else { Vec::new() };
    let mut group = Group::new(2, stock);
    group.fate = Box::new(|_, _, _| Some(300));
    group.connect(0, 1);
    group.run_until("half of it", 20_000, |group| group.seq(0, &origin_of(2, 77)) > 1_500);
    let peer = group.nodes[0].status(group.now).unwrap().peers.remove(0);
    let pull = peer.pull.unwrap();
    assert!(pull.received >= 1_500 && pull.wanted == 3_000, "{pull:?}");
    assert!(pull.events_per_s > 50 && pull.bytes_per_s > 100_000 && pull.left_s.is_some(), "{pull:?}");
    group.run_until("all of it", 20_000, |group| group.seq(0, &origin_of(2, 77)) == 3_000);
    group.run(1_000);
    assert!(group.nodes[0].status(group.now).unwrap().peers[0].pull.is_none());
}

/// Nobody needs this key twice.
#[test]
fn a_push_reaches_everybody_and_then_nothing_is_announced() {
    let mut group = Group::new(3, |_, _| Vec::new());
    group.connect_all();
    group.run(1_000);
    let id: NodeId = group.nodes[0].id();
    group.sites[0].app("app", "INSERT INTO note (text) VALUES ('x')");
    group.nodes[0].handle(Input::FileTouched(0), group.now).unwrap();
    group.nodes[0].handle(Input::Tick, group.now).unwrap();
    let effects: Vec<Effect> = std::iter::from_fn(|| group.nodes[0].poll_effect()).collect();
    let announced = effects.iter().filter(|effect| matches!(effect, Effect::Announce { .. })).count();
    assert_eq!(announced, 0, "all of {id}'s peers were pushed");
}
