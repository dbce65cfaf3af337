//! Membership: any order of arrival, nothing forged, nothing grafted.

use proptest::prelude::*;

use super::*;

fn seed(number: u8) -> [u8; 32] {
    [number; 32]
}

/// A chain: every member admitted by the one before it.
fn grown(count: u8) -> (Membership, Vec<MemberRecord>) {
    let founder = found_cluster(&seed(1), "one", "venue", 1000);
    let mut membership = Membership::new(founder.clone()).unwrap();
    let mut records = vec![founder];
    for number in 2..=count {
        let name = format!("node {number}");
        let record = admit(&seed(number - 1), &membership, node_id(&seed(number)), &name, 1000);
        assert_eq!(membership.add(record.clone()), Ok(true));
        records.push(record);
    }
    (membership, records)
}

#[test]
fn ranks_and_slots_are_dense_and_start_with_the_founder() {
    let (membership, _) = grown(5);
    let members: Vec<(u32, u32)> = membership.members().iter().map(|member| (member.rank, member.slot)).collect();
    assert_eq!(members, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]);
    assert_eq!(membership.cluster_name(), "venue");
    assert_eq!(membership.ranks()[&node_id(&seed(3))], 2);
    assert_eq!(membership.by_name("node 3").len(), 1);
    assert_eq!(membership.by_name("NODE").len(), 4);
    assert_eq!(membership.by_name(&node_id(&seed(4)).to_string()[..8]).len(), 1);
    assert_eq!(membership.by_name(""), Vec::<&Member>::new());
    assert_eq!(admit(&seed(1), &membership, node_id(&seed(5)), "again", 9), *membership.records()[4]);
}

proptest! {
    #[test]
    fn the_order_of_arrival_does_not_matter(order in Just((1..12usize).collect::<Vec<_>>()).prop_shuffle()) {
        let (grown, records) = grown(12);
        let mut membership = Membership::new(records[0].clone()).unwrap();
        for position in order {
            membership.add(records[position].clone()).unwrap();
        }
        prop_assert_eq!(membership.records(), grown.records());
        prop_assert_eq!(membership.digest(), grown.digest());
        prop_assert!(membership.waiting.is_empty());
    }

    #[test]
    fn admissions_made_apart_settle_alike(order in Just((0..6usize).collect::<Vec<_>>()).prop_shuffle()) {
        // Two members admit the same nodes without knowing of each other, one of them under a higher rank.
        let (base, founding) = grown(3);
        let mut other = base.clone();
        other.add(admit(&seed(3), &other, node_id(&seed(9)), "nine", 5)).unwrap();
        let late = |signer: u8, view: &Membership, node: u8| admit(&seed(signer), view, node_id(&seed(node)), "x", 7);
        let records = [
            founding[1].clone(),
            founding[2].clone(),
            other.records()[3].clone(),
            late(2, &base, 8),
            late(3, &other, 8),
            late(1, &base, 7),
        ];
        let mut membership = Membership::new(founding[0].clone()).unwrap();
        let mut reference = membership.clone();
        records.iter().for_each(|record| { reference.add(record.clone()).unwrap(); });
        order.iter().for_each(|&position| { membership.add(records[position].clone()).unwrap(); });
        prop_assert_eq!(membership.records(), reference.records());
        prop_assert_eq!(membership.member(&node_id(&seed(8))).unwrap().rank, 3);
    }
}

#[test]
fn forged_and_grafted_records_are_refused() {
    let (mut membership, records) = grown(3);
    let mut renamed = records[2].clone();
    renamed.member.name = "mallory".into();
    assert_eq!(membership.add(renamed), Err(MembershipError::BadSignature));
    let mut truncated = admit(&seed(1), &membership, node_id(&seed(7)), "x", 1);
    truncated.signature.pop();
    assert_eq!(membership.add(truncated), Err(MembershipError::BadSignature));

    let foreign = found_cluster(&seed(50), "other", "other", 1000);
    let other = Membership::new(foreign.clone()).unwrap();
    assert_eq!(membership.add(foreign), Err(MembershipError::OtherCluster));
    let theirs = admit(&seed(50), &other, node_id(&seed(51)), "theirs", 1);
    assert_eq!(membership.add(theirs), Err(MembershipError::OtherCluster));

    // A stranger admits itself, and a friend: signed well, but leading to nobody.
    let own = admit(&seed(60), &membership, node_id(&seed(60)), "self", 1);
    assert_eq!(membership.add(own), Ok(false));
    let friend = admit(&seed(60), &membership, node_id(&seed(61)), "friend", 1);
    assert_eq!(membership.add(friend), Ok(false));
    assert!(!membership.may_connect(&node_id(&seed(60))) && !membership.may_connect(&node_id(&seed(61))));

    // A member cannot make somebody its senior, nor replace the founder.
    let mut senior = admit(&seed(3), &membership, node_id(&seed(70)), "senior", 1);
    senior.member.rank = 1;
    let senior = signed(&seed(3), senior);
    assert_eq!(membership.add(senior), Ok(false));
    assert!(!membership.may_connect(&node_id(&seed(70))));
    let mut usurper = records[1].clone();
    usurper.member.node = records[0].member.node;
    assert_eq!(membership.add(signed(&seed(1), usurper)), Err(MembershipError::OutOfRange("rank")));
    assert_eq!(membership.len(), 3);
}

#[test]
fn a_founder_that_breaks_the_rules_founds_nothing() {
    let founder = found_cluster(&seed(1), "one", "venue", 1000);
    let broken = |change: fn(&mut MemberRecord)| {
        let mut record = founder.clone();
        change(&mut record);
        Membership::new(signed(&seed(1), record)).map(|_| ())
    };
    assert_eq!(broken(|_| ()), Ok(()));
    assert!(broken(|record| record.member.rank = 1).is_err());
    assert!(broken(|record| record.member.slot = 2).is_err());
    assert!(broken(|record| record.member.slot = 0).is_err());
    assert!(broken(|record| record.cluster = [1; 32]).is_err());
    assert!(broken(|record| record.signer = NodeId([3; 32])).is_err());
    assert!(broken(|record| record.cluster_name = "x".repeat(65)).is_err());
}

#[test]
fn strangers_cannot_fill_the_memory() {
    let (mut membership, _) = grown(2);
    for number in 0..WAITING_RECORDS_MAX as u32 + 10 {
        let mut node = [9; 32];
        node[..4].copy_from_slice(&number.to_be_bytes());
        let record = admit(&seed(60), &membership, NodeId(node), "x", 1);
        let expected = if (number as usize) < WAITING_RECORDS_MAX { Ok(false) } else { Err(MembershipError::Full) };
        assert_eq!(membership.add(record), expected);
    }
}

#[test]
fn names_are_cut_between_characters() {
    assert_eq!(shortened("é"), "é");
    let long = shortened(&"é".repeat(40));
    assert_eq!(long.len(), 64);
    assert_eq!(shortened(&format!("a{}", "é".repeat(40))).len(), 63);
}

#[test]
fn a_chain_leads_from_a_member_to_the_founder() {
    let (membership, records) = grown(5);
    let chain = membership.chain(&node_id(&seed(5)));
    assert_eq!(chain.len(), 4);
    let mut fresh = Membership::new(records[0].clone()).unwrap();
    for record in chain {
        fresh.add(record).unwrap();
    }
    assert!(fresh.may_connect(&node_id(&seed(5))));
    assert!(membership.chain(&node_id(&seed(1))).is_empty());
}

#[test]
fn a_new_member_knows_the_way_to_others_from_its_first_commit() {
    use crate::log::Log;
    use crate::node::Node;
    use crate::node::view::KnownAddress;

    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(&directory.path().join("events.redb")).unwrap();
    let (_, records) = grown(2);
    let inviter =
        KnownAddress { peer: node_id(&seed(1)).to_string(), address: "/ip4/10.0.0.1/tcp/1".to_string(), reached_ms: 0 };
    // What is refused leaves neither a membership nor addresses.
    assert!(Node::enter_at(&log, records[1..].to_vec(), std::slice::from_ref(&inviter)).is_err());
    assert!(!Node::has_cluster(&log).unwrap() && log.read().unwrap().addresses().unwrap().is_empty());
    Node::enter_at(&log, records, std::slice::from_ref(&inviter)).unwrap();
    assert!(Node::has_cluster(&log).unwrap());
    assert_eq!(log.read().unwrap().addresses().unwrap(), [(inviter.address, inviter.peer, 0)]);
}
