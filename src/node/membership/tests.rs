//! Membership: any order of arrival, nothing forged, nothing grafted, what is taken away stays taken away.

use proptest::prelude::*;

use super::sign::{shortened, signed};
use super::*;

fn seed(number: u8) -> [u8; 32] {
    [number; 32]
}

fn id(number: u8) -> NodeId {
    node_id(&seed(number))
}

const RECOVERY: [u8; 32] = [200; 32];

fn founded() -> Membership {
    Membership::new(found_cluster_with(&seed(1), "one", "venue", node_id(&RECOVERY).0, 1000)).unwrap()
}

/// A chain: every member an admin, admitted by the one before it.
fn grown(count: u8) -> (Membership, Vec<MemberRecord>) {
    let mut membership = founded();
    for number in 2..=count {
        let name = format!("node {number}");
        let record = admit_as(&seed(number - 1), &membership, (id(number), &name), Role::Admin, 1000);
        assert_eq!(membership.add(record), Ok(true));
    }
    let records = membership.records().into_iter().cloned().collect();
    (membership, records)
}

type Said = (u64, Vec<Person>, Vec<(RecordHash, bool)>, Vec<RecordHash>);

/// Everything a membership says, to compare two.
fn said(membership: &Membership) -> Said {
    let mut counts: Vec<_> = membership.listed().iter().map(|listed| (listed.hash, listed.counts)).collect();
    counts.sort();
    let people = membership.people().into_iter().cloned().collect();
    (membership.digest(), people, counts, membership.heads())
}

/// Takes over records that were made apart.
fn met(base: &Membership, others: &[&Membership]) -> Membership {
    let mut all = base.clone();
    for other in others {
        let records = other.records().into_iter().cloned().collect();
        assert_eq!(all.add_all(records).1, []);
    }
    all
}

fn with(membership: &Membership, record: MemberRecord) -> Membership {
    let mut grown = membership.clone();
    assert_eq!(grown.add(record), Ok(true));
    grown
}

#[test]
fn ranks_and_slots_are_dense_and_start_with_the_founder() {
    let (membership, _) = grown(5);
    let members: Vec<(u32, u32)> = membership.members().iter().map(|member| (member.rank, member.slot)).collect();
    assert_eq!(members, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]);
    assert_eq!(membership.cluster_name(), "venue");
    assert_eq!(membership.ranks()[&id(3)], 2);
    assert_eq!(membership.by_name("node 3").len(), 1);
    assert_eq!(membership.by_name("NODE").len(), 4);
    assert_eq!(membership.by_name(&id(4).to_string()[..8]).len(), 1);
    assert_eq!(membership.by_name(""), Vec::<&Member>::new());
    assert_eq!(admit(&seed(1), &membership, id(5), "again", 9), *membership.records()[4]);
}

/// One step of a random history: which of four admins' views acts, how, on whom, and who hears of it.
fn step() -> impl Strategy<Value = (u8, u8, u8, u8)> {
    (0..4u8, 0..12u8, 0..9u8, 0..16u8)
}

/// Four nodes act apart, hear of one another now and then, and rightly or wrongly do all that can be done: the records
/// that anybody holds.
fn history(steps: &[(u8, u8, u8, u8)]) -> (MemberRecord, Vec<MemberRecord>) {
    let (base, _) = grown(4);
    let mut views = vec![base.clone(); 4];
    for (at, (who, what, whom, hears)) in steps.iter().enumerate() {
        let (view, key, target) = (views[*who as usize].clone(), seed(who + 1), id(whom + 1));
        let now = 2000 + at as u64;
        let record = match what {
            0..=3 => admit_as(&key, &view, (id(10 + at as u8), "guest"), [Role::Admin, Role::Member][at % 2], now),
            4 | 5 => revoke(&key, &view, target, now),
            6 => set_role(&key, &view, target, [Role::ReadOnly, Role::Member, Role::Admin][at % 3], now),
            7 => rename(&key, &view, target, &format!("name {at}"), now),
            8 => rotate(&key, &view, id(100 + at as u8), now),
            9 => recover(&RECOVERY, &view, target, now),
            10 => revoke(&RECOVERY, &view, target, now),
            _ => admit_as(&key, &view, (target, "back"), Role::Member, now),
        };
        // Without the right to it, or about nobody: refused at once.
        let _ = views[*who as usize].add(record);
        for other in (0..4).filter(|other| hears >> other & 1 == 1) {
            views[other as usize] = met(&views[other as usize], &[&views[*who as usize]]);
        }
    }
    let all = met(&base, &views.iter().collect::<Vec<_>>());
    let founder = all.records()[0].clone();
    (founder, all.records()[1..].iter().map(|record| (*record).clone()).collect())
}

proptest! {
    #[test]
    fn the_order_of_arrival_does_not_matter(order in Just((1..12usize).collect::<Vec<_>>()).prop_shuffle()) {
        let (grown, records) = grown(12);
        let mut membership = Membership::new(records[0].clone()).unwrap();
        for position in order {
            membership.add(records[position].clone()).unwrap();
        }
        prop_assert_eq!(said(&membership), said(&grown));
        prop_assert!(membership.waiting.is_empty());
    }

    #[test]
    fn the_members_are_a_function_of_the_set_of_records(
        steps in prop::collection::vec(step(), 0..24),
        shuffle in any::<prop::sample::Index>(),
        seeds in any::<u64>(),
    ) {
        let (founder, records) = history(&steps);
        let mut reference = Membership::new(founder.clone()).unwrap();
        reference.add_all(records.clone());
        let mut order: Vec<usize> = (0..records.len()).collect();
        order.sort_by_key(|at| blake3::hash(&[&seeds.to_be_bytes()[..], &at.to_be_bytes()].concat()).as_bytes().to_vec());
        if !order.is_empty() {
            order.rotate_left(shuffle.index(records.len()));
        }
        let mut membership = Membership::new(founder).unwrap();
        for at in order {
            let _ = membership.add(records[at].clone());
        }
        prop_assert!(membership.waiting.is_empty());
        prop_assert_eq!(said(&membership), said(&reference));
    }

    /// Nobody who was shut out by a record of the set is a member, unless somebody who knew it let it in again.
    #[test]
    fn what_is_taken_away_stays_taken_away(steps in prop::collection::vec(step(), 0..24)) {
        let (founder, records) = history(&steps);
        let mut membership = Membership::new(founder).unwrap();
        membership.add_all(records);
        for revocation in membership.listed().iter().filter(|one| one.record.kind == RecordKind::Revoke && one.counts) {
            let target = revocation.record.member.node;
            let past = |hash: &RecordHash| {
                let behind = membership.graph.known_at(&[*hash]);
                *hash != revocation.hash && behind.has(membership.graph.by_hash[&revocation.hash])
            };
            let lets_in = |one: &&Listed<'_>| {
                matches!(one.record.kind, RecordKind::Admit | RecordKind::Recover) && one.record.member.node == target
            };
            let back = membership.listed().iter().filter(lets_in).any(|one| one.counts && past(&one.hash));
            prop_assert!(back || !membership.may_connect(&target));
        }
    }
}

#[test]
fn admissions_made_apart_settle_alike() {
    let (base, _) = grown(3);
    let one = with(&base, admit(&seed(3), &base, id(8), "x", 7));
    let two = with(&base, admit(&seed(2), &base, id(8), "x", 7));
    let both = met(&one, &[&two]);
    assert_eq!(said(&both), said(&met(&two, &[&one])));
    assert_eq!(both.member(&id(8)).unwrap().rank, 3);
}

#[test]
fn forged_and_grafted_records_are_refused() {
    let (mut membership, records) = grown(3);
    let mut renamed = records[2].clone();
    renamed.member.name = "mallory".into();
    assert_eq!(membership.add(renamed), Err(MembershipError::BadSignature));
    let mut truncated = admit(&seed(1), &membership, id(7), "x", 1);
    truncated.signature.pop();
    assert_eq!(membership.add(truncated), Err(MembershipError::BadSignature));

    let foreign = found_cluster(&seed(50), "other", "other", 1000);
    let other = Membership::new(foreign.clone()).unwrap();
    assert_eq!(membership.add(foreign), Err(MembershipError::OtherCluster));
    let theirs = admit(&seed(50), &other, id(51), "theirs", 1);
    assert_eq!(membership.add(theirs), Err(MembershipError::OtherCluster));

    // A stranger admits itself, and a friend; a member that is no admin makes an admin: signed well, and no right to it.
    let refused = |record: MemberRecord| {
        let mut membership = membership.clone();
        matches!(membership.add(record), Err(MembershipError::NotEntitled { .. }))
    };
    assert!(refused(admit(&seed(60), &membership, id(60), "self", 1)));
    assert!(refused(admit(&seed(60), &membership, id(61), "friend", 1)));
    let guest = with(&membership, admit(&seed(1), &membership, id(9), "guest", 1));
    for record in [
        admit_as(&seed(9), &guest, (id(61), "friend"), Role::Admin, 1),
        revoke(&seed(9), &guest, id(1), 1),
        set_role(&seed(9), &guest, id(9), Role::Admin, 1),
        rename(&seed(9), &guest, id(1), "fool", 1),
        rotate(&seed(9), &guest, id(1), 1),
        recover(&seed(9), &guest, id(9), 1),
    ] {
        let error = guest.clone().add(record).unwrap_err();
        assert!(matches!(error, MembershipError::NotEntitled { .. } | MembershipError::OutOfRange(_)), "{error}");
    }

    // A member cannot make somebody its senior, nor replace the founder.
    let mut senior = admit(&seed(3), &membership, id(70), "senior", 1);
    senior.member.rank = 1;
    assert!(refused(signed(&seed(3), senior)));
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
    assert!(broken(|record| record.member.role = Role::Member).is_err());
    assert!(broken(|record| record.kind = RecordKind::Admit).is_err());
    assert!(broken(|record| record.after = vec![[1; 32]]).is_err());
    assert!(broken(|record| record.cluster = [1; 32]).is_err());
    assert!(broken(|record| record.signer = NodeId([3; 32])).is_err());
    assert!(broken(|record| record.cluster_name = "x".repeat(65)).is_err());
}

#[test]
fn a_revoked_member_is_out_and_signs_nothing_more() {
    let (base, _) = grown(3);
    let before = with(&base, admit(&seed(3), &base, id(4), "four", 5));
    let after = with(&before, revoke(&seed(1), &before, id(3), 6));
    assert_eq!(after.standing(&id(3)), Some(Standing::Revoked { by: id(1), at_ms: 6 }));
    assert!(!after.may_connect(&id(3)) && !after.may_write(&id(3)) && after.len() == 3);
    // Its rank stays, for what it wrote; what it had signed stands, for the revocation knew it.
    assert_eq!(after.member(&id(3)).unwrap().rank, 2);
    assert!(after.may_connect(&id(4)));
    let late = admit(&seed(3), &after, id(5), "five", 7);
    assert!(matches!(after.clone().add(late), Err(MembershipError::NotEntitled { .. })));
    assert_eq!(after.shut_out_by(&id(3)).unwrap().signer, id(1));
}

#[test]
fn an_admission_that_the_revocation_did_not_know_is_void_and_what_rests_on_it() {
    let (base, _) = grown(3);
    let revoked = with(&base, revoke(&seed(1), &base, id(3), 6));
    // The thief of 3 acts as if it had never heard of it: an admin, and a guest of that admin.
    let thief = with(&base, admit_as(&seed(3), &base, (id(4), "four"), Role::Admin, 7));
    let thief = with(&thief, admit(&seed(4), &thief, id(5), "five", 8));
    let all = met(&revoked, &[&thief]);
    for node in [3, 4, 5] {
        assert!(!all.may_connect(&id(node)), "{node}");
    }
    assert_eq!(all.standing(&id(4)), Some(Standing::Void));
    assert_eq!(all.standing(&id(5)), Some(Standing::Void));
    // An honest admin can admit the same node for good.
    let again = with(&all, admit(&seed(1), &all, id(5), "five", 9));
    assert!(again.may_connect(&id(5)));
}

#[test]
fn two_admins_that_revoke_each_other_are_both_out_and_the_phrase_is_the_way_back() {
    let (base, _) = grown(3);
    let one = with(&base, revoke(&seed(2), &base, id(3), 6));
    let two = with(&base, revoke(&seed(3), &base, id(2), 6));
    let both = met(&one, &[&two]);
    assert!(!both.may_connect(&id(2)) && !both.may_connect(&id(3)) && both.may_connect(&id(1)));
    let back = with(&both, recover(&RECOVERY, &both, id(2), 9));
    assert_eq!(back.role(&id(2)), Some(Role::Admin));
    assert!(!back.may_connect(&id(3)));
}

/// The founder's laptop was stolen; the thief shuts out everybody. The phrase seals away what it does.
#[test]
fn a_recovery_seals_away_what_a_thief_signs() {
    let (base, _) = grown(3);
    let owner = with(&base, revoke(&RECOVERY, &base, id(1), 6));
    let owner = with(&owner, recover(&RECOVERY, &owner, id(3), 7));
    let mut thief = base.clone();
    for node in [2, 3] {
        thief = with(&thief, revoke(&seed(1), &thief, id(node), 8));
    }
    let thief = with(&thief, admit_as(&seed(1), &thief, (id(9), "nine"), Role::Admin, 9));
    let thief = with(&thief, admit(&seed(9), &thief, id(10), "ten", 9));
    let all = met(&owner, &[&thief]);
    assert_eq!(said(&all), said(&met(&thief, &[&owner])));
    assert!(all.may_connect(&id(2)) && all.role(&id(3)) == Some(Role::Admin));
    for node in [1, 9, 10] {
        assert!(!all.may_connect(&id(node)), "{node}");
    }
    // Without sealing, the thief's revocations stand: remove wins.
    let plain = with(&base, revoke(&seed(3), &base, id(1), 6));
    let all = met(&plain, &[&thief]);
    assert!(!all.may_connect(&id(1)) && !all.may_connect(&id(2)) && !all.may_connect(&id(3)));
}

#[test]
fn roles_are_changed_by_admins_and_the_lesser_wins() {
    let (base, _) = grown(2);
    let base = with(&base, admit(&seed(1), &base, id(3), "three", 5));
    let up = with(&base, set_role(&seed(1), &base, id(3), Role::Admin, 6));
    let down = with(&base, set_role(&seed(2), &base, id(3), Role::ReadOnly, 6));
    let both = met(&up, &[&down]);
    assert_eq!(both.role(&id(3)), Some(Role::ReadOnly));
    assert!(both.may_connect(&id(3)) && !both.may_write(&id(3)));
    let later = with(&both, set_role(&seed(2), &both, id(3), Role::Admin, 7));
    assert_eq!(later.role(&id(3)), Some(Role::Admin));
    // An admin that was made an ordinary member apart: what it admitted meanwhile is void.
    let lowered = with(&later, set_role(&seed(1), &later, id(3), Role::Member, 8));
    let meanwhile = with(&later, admit(&seed(3), &later, id(4), "four", 8));
    let all = met(&lowered, &[&meanwhile]);
    assert!(all.may_connect(&id(3)) && !all.may_connect(&id(4)));
}

#[test]
fn a_rotated_key_takes_rank_slot_role_and_name_and_the_old_one_is_retired() {
    let (base, _) = grown(3);
    let rotated = with(&base, rotate(&seed(2), &base, id(20), 5));
    let (old, new) = (base.member(&id(2)).unwrap(), rotated.member(&id(20)).unwrap());
    assert_eq!((old.rank, old.slot, old.role, &old.name), (new.rank, new.slot, new.role, &new.name));
    assert_eq!(rotated.standing(&id(2)), Some(Standing::Retired { by: id(20) }));
    assert!(!rotated.may_connect(&id(2)) && rotated.role(&id(20)) == Some(Role::Admin));
    let late = admit(&seed(2), &rotated, id(9), "x", 6);
    assert!(matches!(rotated.clone().add(late), Err(MembershipError::NotEntitled { .. })));
    let admitted = with(&rotated, admit(&seed(20), &rotated, id(9), "x", 6));
    assert!(admitted.may_connect(&id(9)));
    // A second time, and revoked under the newest key: all of it is out.
    let again = with(&rotated, rotate(&seed(20), &rotated, id(21), 7));
    assert_eq!(again.member(&id(21)).unwrap().rank, 1);
    let out = with(&again, revoke(&seed(1), &again, id(21), 8));
    assert!([2, 20, 21].into_iter().all(|node| !out.may_connect(&id(node))));
    // Who was revoked apart does not slip away by a rotation.
    let revoked = with(&base, revoke(&seed(1), &base, id(2), 5));
    let all = met(&revoked, &[&rotated]);
    assert!(!all.may_connect(&id(2)) && !all.may_connect(&id(20)));
    // The old key, copied by a thief that pretends not to know: void.
    let thief = with(&base, admit(&seed(2), &base, id(30), "x", 9));
    assert!(!met(&rotated, &[&thief]).may_connect(&id(30)));
}

#[test]
fn who_was_shut_out_comes_back_by_somebody_who_knows_it() {
    let (base, _) = grown(3);
    let out = with(&base, revoke(&seed(1), &base, id(3), 5));
    let apart = with(&base, set_role(&seed(2), &base, id(3), Role::Member, 6));
    assert!(!met(&out, &[&apart]).may_connect(&id(3)));
    let back = with(&out, admit(&seed(1), &out, id(3), "three", 7));
    assert_eq!((back.role(&id(3)), back.member(&id(3)).unwrap().rank), (Some(Role::Member), 2));
}

#[test]
fn strangers_and_thieves_cannot_fill_the_memory() {
    let (mut membership, _) = grown(2);
    // Records that wait for others: the oldest gives way.
    for number in 0..WAITING_RECORDS_MAX as u32 + 10 {
        let mut record = admit(&seed(60), &membership, id(9), "x", 1);
        record.after = vec![*blake3::hash(&number.to_be_bytes()).as_bytes()];
        assert_eq!(membership.add(signed(&seed(60), record)), Ok(false));
    }
    assert_eq!(membership.waiting.len(), WAITING_RECORDS_MAX);
    // A member that is no admin: its share, under whatever key.
    membership = with(&membership, admit(&seed(1), &membership, id(9), "nine", 1));
    let mut taken = 0;
    for number in 0..3 * OWN_RECORDS_MAX as u64 {
        let record = match number % 8 {
            7 => rotate(&seed(9 + (number / 8) as u8), &membership, id(10 + (number / 8) as u8), number),
            _ => rename(&seed(9 + (number / 8) as u8), &membership, id(9 + (number / 8) as u8), "n", number),
        };
        taken += usize::from(membership.add(record) == Ok(true));
    }
    assert_eq!(taken, OWN_RECORDS_MAX);
    // A stolen admin fills the table; it can still be revoked, and its revocation is told.
    while membership.add(rename(&seed(2), &membership, id(2), "flood", membership.records().len() as u64)) == Ok(true) {
        if membership.graph.entries.len() % 512 != 0 {
            continue;
        }
    }
    assert_eq!(membership.graph.entries.len(), MEMBER_RECORDS_MAX);
    let ended = with(&membership, revoke(&seed(1), &membership, id(2), 9));
    assert!(!ended.may_connect(&id(2)));
    let bytes: usize = ended.lacking(&[]).iter().map(|record| encode_member(record).len()).sum();
    assert!(bytes <= MEMBER_RECORDS_BYTES);
}

#[test]
fn who_lacks_records_gets_only_those() {
    let (membership, records) = grown(6);
    let known = Membership::new(records[0].clone()).unwrap();
    let mut known = with(&known, records[1].clone());
    let lacking = membership.lacking(&known.heads());
    assert_eq!(lacking, records[2..]);
    known.add_all(lacking);
    assert_eq!(said(&known), said(&membership));
    assert_eq!(membership.lacking(&known.heads()), []);
    assert_eq!(membership.lacking(&[[9; 32]]).len(), 6, "heads that are not here say nothing");
}

#[test]
fn names_are_cut_between_characters() {
    assert_eq!(shortened("é"), "é");
    let long = shortened(&"é".repeat(40));
    assert_eq!(long.len(), 64);
    assert_eq!(shortened(&format!("a{}", "é".repeat(40))).len(), 63);
}

#[test]
fn a_chain_proves_a_member() {
    let (membership, records) = grown(5);
    let chain = membership.chain(&id(5));
    assert_eq!(chain.len(), 4);
    let mut fresh = Membership::new(records[0].clone()).unwrap();
    assert_eq!(fresh.add_all(chain).1, []);
    assert!(fresh.may_connect(&id(5)));
    assert!(membership.chain(&id(1)).is_empty());
}

#[test]
fn a_new_member_knows_the_way_to_others_from_its_first_commit() {
    use crate::log::Log;
    use crate::node::Node;
    use crate::node::view::KnownAddress;

    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(&directory.path().join("events.redb")).unwrap();
    let (_, records) = grown(2);
    let inviter = KnownAddress { peer: id(1).to_string(), address: "/ip4/10.0.0.1/tcp/1".to_string(), reached_ms: 0 };
    // What is refused leaves neither a membership nor addresses.
    assert!(Node::enter_at(&log, records[1..].to_vec(), std::slice::from_ref(&inviter)).is_err());
    assert!(!Node::has_cluster(&log).unwrap() && log.read().unwrap().addresses().unwrap().is_empty());
    Node::enter_at(&log, records, std::slice::from_ref(&inviter)).unwrap();
    assert!(Node::has_cluster(&log).unwrap());
    assert_eq!(log.read().unwrap().addresses().unwrap(), [(inviter.address, inviter.peer, 0)]);
}

#[test]
fn a_member_lets_in_new_members_and_decides_over_nobody() {
    let member = |membership: &Membership, role| admit_as(&seed(2), membership, (id(3), "third"), role, 2000);
    let base = with(&founded(), admit_as(&seed(1), &founded(), (id(2), "second"), Role::Member, 1000));
    // New ones come in, admins do not.
    assert!(matches!(base.clone().add(member(&base, Role::Admin)), Err(MembershipError::NotEntitled { .. })));
    let grown = with(&base, member(&base, Role::Member));
    assert_eq!(grown.role(&id(3)), Some(Role::Member));
    assert!(grown.may_admit_as(&id(3), Role::ReadOnly) && !grown.may_admit_as(&id(3), Role::Admin));
    // Nor does who was shut out.
    let out = with(&grown, revoke(&seed(1), &grown, id(3), 3000));
    assert!(matches!(out.clone().add(member(&out, Role::Member)), Err(MembershipError::NotEntitled { .. })));
    // What an admin says of somebody stands, whatever a member says who did not know it (or says so).
    let by_admin = with(&base, admit_as(&seed(1), &base, (id(4), "fourth"), Role::Admin, 2000));
    let rank = by_admin.member(&id(4)).unwrap().rank;
    let apart = with(&base, admit_as(&seed(2), &base, (id(4), "fourth"), Role::ReadOnly, 2000));
    for both in [met(&by_admin, &[&apart]), met(&apart, &[&by_admin])] {
        assert_eq!(both.role(&id(4)), Some(Role::Admin));
        assert_eq!(both.member(&id(4)).unwrap().rank, rank);
    }
    // A read-only server lets in nobody.
    let lowered = with(&base, set_role(&seed(1), &base, id(2), Role::ReadOnly, 3000));
    assert!(matches!(lowered.clone().add(member(&lowered, Role::ReadOnly)), Err(MembershipError::NotEntitled { .. })));
}
