//! The table of dials by itself: no clock, no sockets.

use super::*;

fn peer(number: u8) -> PeerId {
    crate::net::key::keypair(&[number; 32]).public().to_peer_id()
}

fn address(number: u16) -> Multiaddr {
    format!("/ip4/10.0.0.1/tcp/{}", 1000 + number).parse().unwrap()
}

fn table() -> DialTable {
    DialTable::new(peer(0), 42)
}

#[test]
fn a_lost_peer_is_dialed_again_and_again_but_not_in_step() {
    let mut table = table();
    table.learn(peer(1), address(1), Source::Known, 0);
    let target = Target::Peer(peer(1));
    assert_eq!(table.due(0), [(target.clone(), vec![address(1)])]);
    assert!(table.due(5000).is_empty(), "one dial at a time");
    table.connected(peer(1), Some(&target), 0);
    assert!(table.due(100_000).is_empty() && table.next_ms(100_000).is_none());
    table.disconnected(peer(1), 100_000);
    let mut now = 100_000;
    let mut waits = Vec::new();
    for _ in 0..40 {
        let next = table.next_ms(now).unwrap();
        waits.push(next - now);
        now = next;
        assert_eq!(table.due(now).len(), 1);
        table.failed(&target, &[], now);
    }
    assert!(waits[0] < 1000, "{waits:?}");
    assert!(waits[1..LOST_DIALS as usize].iter().all(|wait| *wait <= LOST_RETRY_MS * 5 / 4), "{waits:?}");
    assert!(waits[35..].iter().all(|wait| *wait >= RETRY_MS_MAX * 3 / 4), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= RETRY_MS_MAX * 5 / 4), "{waits:?}");
    assert!(waits[10..].windows(2).any(|pair| pair[0] != pair[1]), "{waits:?}");
}

#[test]
fn a_connection_that_falls_at_once_is_a_failure() {
    let mut table = table();
    table.learn(peer(1), address(1), Source::Static, 0);
    let mut now_ms = 0;
    for _ in 0..6 {
        assert_eq!(table.due(now_ms).len(), 1);
        table.connected(peer(1), None, now_ms);
        table.disconnected(peer(1), now_ms + 10);
        now_ms = table.next_ms(now_ms + 10).unwrap();
    }
    assert!(now_ms > 25_000, "{now_ms}");
}

#[test]
fn a_dial_without_a_result_is_forgotten() {
    let mut table = table();
    table.learn(peer(1), address(1), Source::Known, 0);
    assert_eq!(table.due(0).len(), 1);
    assert_eq!(table.due(DIAL_LOST_MS).len(), 1);
}

#[test]
fn strangers_wait_longer_and_give_way() {
    let mut table = table();
    let learnt = (10..200).filter(|number| table.learn(peer(*number), address(u16::from(*number)), Source::Found, 0));
    assert_eq!(learnt.count(), STRANGERS_MAX);
    table.learn(peer(1), address(1), Source::Known, 0);
    assert_eq!(table.due(0)[0].0, Target::Peer(peer(1)), "a known peer goes first");
    let dials: usize = (0..100).map(|step| table.due(step * 100).len()).sum();
    assert!((40..=56).contains(&dials), "{dials} dials in 10 s");
    let stranger = Target::Peer(peer(10));
    (0..12).for_each(|_| table.failed(&stranger, &[], 0));
    assert!(table.targets[&stranger].next_ms > 80_000);
}

fn addresses(table: &DialTable, number: u8) -> Vec<Multiaddr> {
    table.ways(&Target::Peer(peer(number))).iter().map(|way| way.address.clone()).collect()
}

#[test]
fn the_table_is_bounded_and_the_trusted_come_in_last() {
    let mut table = table();
    for number in 0..TARGETS_MAX as u16 {
        let mut seed = [9; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        let source = if number < 8 { Source::Found } else { Source::Known };
        let peer = crate::net::key::keypair(&seed).public().to_peer_id();
        assert!(table.learn(peer, address(number), source, 0));
    }
    for number in 1..=8 {
        assert!(table.learn(peer(number), address(1), Source::Known, 0), "a stranger makes room");
    }
    assert!(!table.learn(peer(9), address(1), Source::Known, 0));
    assert_eq!(table.targets.len(), TARGETS_MAX);
    for number in 0..20 {
        table.learn(peer(1), address(number), Source::Known, 0);
    }
    assert_eq!(addresses(&table, 1).len(), WAYS_PER_PEER_MAX);
    assert_eq!(addresses(&table, 1)[0], address(19), "the newest first");
    table.learn(peer(1), address(30), Source::Found, 0);
    assert!(!addresses(&table, 1).contains(&address(30)), "hearsay puts out nothing that is known");
    assert!(!table.learn(peer(0), address(1), Source::Static, 0), "never itself");
}

#[test]
fn an_address_without_a_key_rests_while_its_peer_is_here() {
    let mut table = table();
    table.learn_address(address(5), 0);
    let target = Target::Address(address(5));
    assert_eq!(table.due(0), [(target.clone(), vec![address(5)])]);
    table.connected(peer(3), Some(&target), 0);
    assert!(table.due(60_000).is_empty());
    table.disconnected(peer(3), 60_000);
    assert_eq!(table.due(61_000).len(), 1);
}

#[test]
fn old_hearsay_is_forgotten_and_what_a_person_gave_is_kept() {
    let mut table = table();
    table.learn(peer(1), address(1), Source::Found, 0);
    table.learn(peer(2), address(2), Source::Static, 0);
    table.learn(peer(2), address(2), Source::Found, 0);
    table.learn(peer(3), address(3), Source::Told, 0);
    table.learn(peer(3), address(3), Source::Told, HEARSAY_MS / 2);
    table.forget_hearsay(HEARSAY_MS);
    assert_eq!((addresses(&table, 1).len(), addresses(&table, 3).len()), (0, 1));
    table.forget_hearsay(2 * HEARSAY_MS);
    assert_eq!((table.targets.len(), addresses(&table, 2)), (1, vec![address(2)]));
    table.hold(peer(2), 2 * HEARSAY_MS + 500);
    assert!(table.due(2 * HEARSAY_MS + 499).is_empty());
    assert_eq!(table.due(2 * HEARSAY_MS + 500).len(), 1);
}

#[test]
fn a_way_out_means_that_everybody_is_tried_within_a_second_whatever_failed_before() {
    let mut table = table();
    for number in 1..=15 {
        table.learn(peer(number), address(u16::from(number)), Source::Known, 0);
        (0..20).for_each(|_| table.failed(&Target::Peer(peer(number)), &[], 0));
    }
    // One dial is on its way into the void since just before.
    table.learn(peer(16), address(16), Source::Known, 4_900);
    assert_eq!(table.due(4_950).len(), 1);
    assert!(table.due(5_000).is_empty());
    table.wake(5_000);
    let mut dialed = Vec::new();
    for step in 0..=50 {
        dialed.extend(table.due(5_000 + step * 20).into_iter().map(|(target, _)| target));
    }
    assert_eq!(dialed.len(), 16, "all, once: {dialed:?}");
    assert!(table.due(6_000).is_empty());
}

#[test]
fn a_beacon_hastens_the_next_dial_of_a_member_but_not_without_end() {
    let mut table = table();
    table.learn(peer(1), address(1), Source::Known, 0);
    table.learn(peer(2), address(2), Source::Found, 0);
    assert_eq!(table.due(0).len(), 2);
    for number in [1, 2] {
        (0..8).for_each(|_| table.failed(&Target::Peer(peer(number)), &[], 100));
    }
    let mut dials = 0;
    for now_ms in 200..7_000 {
        table.hint(peer(1), now_ms);
        table.hint(peer(2), now_ms);
        dials += table.due(now_ms).len();
    }
    assert_eq!(dials, 3, "every {HINT_MS} ms, and never a stranger");
}

#[test]
fn each_way_remembers_how_it_went() {
    let mut table = table();
    let target = Target::Peer(peer(1));
    table.learn(peer(1), address(1), Source::Known, 0);
    table.learn(peer(1), address(2), Source::Told, 0);
    table.reached(peer(1), &address(1), 7_000);
    table.reached(peer(1), &address(1), 5_000);
    table.failed(&target, &[(address(2), Reason::Refused), (address(9), Reason::Silence)], 0);
    let seen: Vec<_> = table.ways(&target).iter().map(|way| (way.reached_ms, way.failed.clone())).collect();
    assert_eq!(seen, [(7_000, None), (0, Some(Reason::Refused))]);
    table.learn(peer(1), address(2), Source::Known, 0);
    assert_eq!(table.ways(&target)[0].failed, Some(Reason::Refused), "learning it again is no success");
    table.reached(peer(1), &address(2), 8_000);
    assert_eq!(table.ways(&target)[0].failed, None);
    assert_eq!(table.targets().count(), 1);
}

#[test]
fn a_dial_into_the_void_does_not_keep_a_lost_peer_waiting() {
    let mut table = table();
    let target = Target::Peer(peer(1));
    table.learn(peer(1), address(1), Source::Known, 0);
    table.connected(peer(1), Some(&target), 0);
    table.disconnected(peer(1), 60_000);
    // No dial ever comes back with a result.
    let dials = (60_000..100_000).filter(|now_ms| !table.due(*now_ms).is_empty()).count();
    assert!((9..=11).contains(&dials), "{dials} in 40 s");
}
