//! Beyond the local network: two members that can only call each other over a third.

use super::*;

/// Two addresses of loopback that a node listens on are ways that others would find: these nodes listen nowhere.
async fn waits_at_relay(running: &Running) {
    soon("a place at the relay", async {
        while !running.diagnose().await.relays.iter().any(|(_, state)| state == "reserved") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn two_members_that_listen_nowhere_meet_over_a_relay() {
    for listen in [TCP, QUIC] {
        let membership = cluster(3);
        let mut relay = Running::start_with_wan(1, &membership, &[listen], &[String::new()]).await;
        let mut two = Running::start_with_wan(2, &membership, &[], &relay.listening[..1]).await;
        waits_at_relay(&two).await;
        let mut three = Running::start_with_wan(3, &membership, &[], &relay.listening[..1]).await;
        waits_at_relay(&three).await;
        relay.connected(two.id).await;
        relay.connected(three.id).await;
        two.connected(three.id).await;
        three.connected(two.id).await;
        two.send(three.id, vec![7; crate::wire::limits::FRAME_BYTES_MAX]).await;
        assert_eq!(three.frame().await.1.len(), crate::wire::limits::FRAME_BYTES_MAX);
        three.send(two.id, b"back".to_vec()).await;
        assert_eq!(two.frame().await, (three.id, b"back".to_vec()));
        let by = two.diagnose().await.peers.into_iter().find(|peer| peer.id == three.id.to_string()).unwrap();
        assert!(by.connected_by.contains("p2p-circuit"), "{by:?}");
    }
}

#[tokio::test]
async fn a_stranger_gets_no_place_and_a_node_without_wan_gives_none() {
    let membership = cluster(3);
    let relay = Running::start_with_wan(1, &membership, &[TCP], &[String::new()]).await;
    let other = Membership::new(found_cluster(&[50; 32], "other", "other", NOW_MS)).unwrap();
    let stranger = Running::start_with_wan(50, &other, &[], &relay.listening).await;
    // It knows the cluster's id and records, as somebody who saw a join code; it is no member all the same.
    let intruder = Running::start_with_wan(60, &membership, &[], &relay.listening).await;
    for running in [&stranger, &intruder] {
        soon("a refused dial", async {
            while running.diagnose().await.failures.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        assert!(running.diagnose().await.relays.iter().all(|(_, state)| state != "reserved"));
    }
    assert!(relay.diagnose().await.peers.is_empty());

    let mut plain = Running::start(2, &membership, &[TCP], &[]).await;
    let three = Running::start_with_wan(3, &membership, &[], &plain.listening).await;
    plain.connected(three.id).await;
    let refused = soon("a refused place", async {
        loop {
            let (_, state) = three.diagnose().await.relays.remove(0);
            if state != "not connected" && state != "asked" {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let state = refused.await;
    assert!(state != "reserved" && !state.is_empty(), "{state}");
    let line = three.diagnose().await.findings.into_iter().find(|line| line.check.starts_with("relay")).unwrap();
    assert!(line.state == "warning" && line.next.contains("network.wan"), "{line:?}");
}
