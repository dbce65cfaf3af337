//! Members that come and go, at two real nodes: what is taken from whom, and what people are told.
//!
//! Invariant: no process, no socket, no wait. Callers: cargo test.

#![allow(clippy::unwrap_used)]

use super::invite::{JoinRequest, LanKnock, Refusal};
use super::membership::{admit, admit_as, node_id, revoke, set_role};
use super::pair_tests::{CLOCK_MS, Pair, Site};
use super::*;
use crate::model::{Head, MemberRecord, Role};
use crate::wire::message::{Events, SignedEvent};

const SCHEMA: &str = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT)";

fn pair() -> ([Site; 2], Pair) {
    let sites = [1, 2].map(|seed| Site::new(seed).with("app", SCHEMA, &[]));
    let mut pair = Pair::start([&sites[0], &sites[1]], &[]);
    pair.meet();
    (sites, pair)
}

/// An event of a third node, stamped at this time.
fn written(pair: &Pair, by: u8, wall_ms: u64) -> (Head, SignedEvent) {
    let chain = chain::Chain::new(&[by; 32], pair.nodes[0].membership().cluster().0, 5);
    let stamp = crate::model::Stamp::from_wall_ms(wall_ms);
    let sealing = chain::Sealing { database: "app", applied: Default::default(), schema: [0; 16], stamp, note: "" };
    chain.seal(None, vec![Default::default()], sealing).into_iter().map(chain::Sealed::into_signed).next().unwrap()
}

fn learn(pair: &mut Pair, at: usize, record: MemberRecord) {
    pair.nodes[at].handle(Input::MembersLearnt(vec![record]), pair.now).unwrap();
}

fn hand_over(pair: &mut Pair, from: NodeId, (head, event): (Head, SignedEvent)) {
    let events = Events { events: vec![event], heads: vec![head], ..Default::default() };
    let frame = Message::Events(events).encode();
    pair.nodes[0].handle(Input::Received { peer: from, frame }, pair.now).unwrap();
    while let Some(effect) = pair.nodes[0].poll_effect() {
        assert!(!matches!(effect, Effect::PeerFault { .. }), "{effect:?}");
    }
}

#[test]
fn what_a_revoked_member_wrote_is_taken_from_others_and_told_when_it_is_late() {
    let (_sites, mut pair) = pair();
    let (second, third) = (pair.nodes[1].id(), node_id(&[3; 32]));
    let record = admit(&[1; 32], pair.nodes[0].membership(), third, "third", CLOCK_MS);
    learn(&mut pair, 0, record);
    let connected = Input::PeerConnected { peer: third, address: String::new() };
    pair.nodes[0].handle(connected, pair.now).unwrap();
    pair.nodes[0].revoke("third", pair.now).unwrap();
    let revoked_ms = pair.now.wall_ms;
    // From itself: not even looked at. From a member in good standing: taken, and told.
    let late = written(&pair, 3, revoked_ms + 5_000);
    hand_over(&mut pair, third, late.clone());
    assert!(!pair.nodes[0].heads.contains_key(&late.0.origin.id()));
    hand_over(&mut pair, second, late.clone());
    assert!(pair.nodes[0].heads.contains_key(&late.0.origin.id()));
    let listed = pair.nodes[0].late_events().unwrap();
    assert_eq!((listed.len(), listed[0].author.as_str(), listed[0].taken_from.as_str()), (1, "third", "second"));
    let alerts = pair.nodes[0].status(pair.now).unwrap().alerts;
    assert!(alerts.iter().any(|alert| alert.starts_with("1 event of third")), "{alerts:?}");
    assert!(pair.nodes[0].verify_log().unwrap().faults.is_empty());
}

#[test]
fn what_was_written_before_the_revocation_is_no_alarm() {
    let (_sites, mut pair) = pair();
    let second = pair.nodes[1].id();
    let record = admit(&[1; 32], pair.nodes[0].membership(), node_id(&[3; 32]), "third", CLOCK_MS);
    learn(&mut pair, 0, record);
    let early = written(&pair, 3, CLOCK_MS - 5_000);
    pair.nodes[0].revoke("third", pair.now).unwrap();
    hand_over(&mut pair, second, early.clone());
    assert!(pair.nodes[0].heads.contains_key(&early.0.origin.id()));
    assert!(pair.nodes[0].late_events().unwrap().is_empty());
}

#[test]
fn a_read_only_members_own_events_are_not_taken_from_it() {
    let (_sites, mut pair) = pair();
    let (second, third) = (pair.nodes[1].id(), node_id(&[3; 32]));
    let joiner = (third, "third");
    let record = admit_as(&[1; 32], pair.nodes[0].membership(), joiner, Role::ReadOnly, CLOCK_MS);
    learn(&mut pair, 0, record);
    let own = written(&pair, 3, CLOCK_MS);
    hand_over(&mut pair, third, own.clone());
    assert!(!pair.nodes[0].heads.contains_key(&own.0.origin.id()));
    // Somebody who did not know yet took it: then everybody does.
    hand_over(&mut pair, second, own.clone());
    assert!(pair.nodes[0].heads.contains_key(&own.0.origin.id()));
}

#[test]
fn orders_without_the_right_to_them_are_refused_in_words() {
    let (_sites, mut pair) = pair();
    let now = pair.now;
    for refused in [
        pair.nodes[1].revoke("first", now).unwrap_err(),
        pair.nodes[1].set_role("second", Role::Admin, now).unwrap_err(),
        pair.nodes[1].readmit("first", Role::Member, now).unwrap_err(),
        pair.nodes[1].recover_admin(&[7; 32], None, now).unwrap_err(),
        pair.nodes[1].trust_lan(1000, now).unwrap_err(),
    ] {
        assert!(matches!(refused, NodeError::NotEntitled(_)), "{refused}");
    }
    let last = pair.nodes[0].revoke("first", now).unwrap_err().to_string();
    assert!(last.contains("only admin"), "{last}");
    assert!(pair.nodes[0].revoke("nobody", now).unwrap_err().to_string().contains("no member is called"));
    // Its own name is everybody's own.
    assert_eq!(pair.nodes[1].rename("second", "pit", now).unwrap().name, "pit");
}

#[test]
fn an_order_reaches_the_other_node_and_survives_a_restart() {
    let (sites, mut pair) = pair();
    pair.nodes[0].set_role("second", Role::ReadOnly, pair.now).unwrap();
    pair.work();
    assert_eq!(pair.nodes[1].status(pair.now).unwrap().node.role, "read-only");
    assert_eq!(pair.nodes[1].membership().digest(), pair.nodes[0].membership().digest());
    let digest = pair.nodes[0].membership().digest();
    let Pair { nodes: [first, second], now } = pair;
    drop((first, second));
    let again = Node::open(sites[1].settings(), sites[1].log(), now).unwrap();
    assert_eq!(again.membership().digest(), digest);
    assert_eq!(again.member_records().len(), 3);
}

#[test]
fn the_local_network_is_trusted_no_longer_than_was_said() {
    let (_sites, mut pair) = pair();
    let knock = |lan| JoinRequest {
        invite: [0; 8],
        proof: [0; 32],
        joiner: node_id(&[9; 32]),
        name: "guest".into(),
        nonces: [[1; 32]; 2],
        lan: Some(LanKnock { from: "/ip4/10.0.0.9/tcp/1".into(), cluster_name: lan }),
    };
    let now = pair.now;
    assert_eq!(pair.nodes[0].redeem(&knock(String::new()), now), Err(Refusal::NotTrusting));
    pair.nodes[0].trust_lan(1_000, now).unwrap();
    assert_eq!(pair.nodes[0].redeem(&knock("other".into()), now), Err(Refusal::OtherName));
    let after = Now { mono_ms: now.mono_ms + 1_000, ..now };
    assert_eq!(pair.nodes[0].redeem(&knock(String::new()), after), Err(Refusal::NotTrusting));
    let before = Now { mono_ms: now.mono_ms + 999, ..now };
    assert_eq!(pair.nodes[0].redeem(&knock("test".into()), before).unwrap().len(), 3);
    let alerts = pair.nodes[0].status(before).unwrap().alerts.join("\n");
    assert!(alerts.contains("guest") && alerts.contains("/ip4/10.0.0.9/tcp/1"), "{alerts}");
}

#[test]
fn a_node_that_is_shown_its_revocation_believes_it_only_when_it_is_signed() {
    let (_sites, mut pair) = pair();
    let (first, second, now) = (pair.nodes[0].id(), pair.nodes[1].id(), pair.now);
    let record = revoke(&[1; 32], pair.nodes[0].membership(), second, now.wall_ms);
    let show = |pair: &mut Pair, record: &MemberRecord| {
        let shown = Input::ShutOut { by: first, record: Box::new(record.clone()) };
        pair.nodes[1].handle(shown, now).unwrap();
        pair.nodes[1].status(now).unwrap().alerts.iter().any(|alert| alert.contains("shut out"))
    };
    let forged = MemberRecord { signature: vec![1; 64], ..record.clone() };
    assert!(!show(&mut pair, &forged));
    let of_other = revoke(&[1; 32], pair.nodes[0].membership(), first, now.wall_ms);
    assert!(!show(&mut pair, &of_other));
    let by_stranger = revoke(&[77; 32], pair.nodes[0].membership(), second, now.wall_ms);
    assert!(!show(&mut pair, &by_stranger));
    let no_revocation = set_role(&[1; 32], pair.nodes[0].membership(), second, Role::ReadOnly, now.wall_ms);
    assert!(!show(&mut pair, &no_revocation));
    assert!(show(&mut pair, &record));
}
