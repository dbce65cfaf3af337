//! Frames, gossip, reconnection, bans between members.

use super::*;

async fn pair(listen: &str) -> (Running, Running) {
    let membership = cluster(2);
    let mut one = Running::start(1, &membership, &[listen], &[]).await;
    let mut two = Running::start(2, &membership, &[listen], &one.listening).await;
    two.connected(one.id).await;
    one.connected(two.id).await;
    (one, two)
}

async fn frames_and_gossip_pass(listen: &str) {
    let (mut one, mut two) = pair(listen).await;
    one.send(two.id, b"from one".to_vec()).await;
    two.send(one.id, vec![7; crate::wire::limits::FRAME_BYTES_MAX]).await;
    two.send(one.id, b"next".to_vec()).await;
    assert_eq!(two.frame().await, (one.id, b"from one".to_vec()));
    assert_eq!(one.frame().await.1.len(), crate::wire::limits::FRAME_BYTES_MAX);
    assert_eq!(one.frame().await, (two.id, b"next".to_vec()));

    // Gossip begins when both know of the other's subscription: announce until it arrives, as a node does.
    let announced = |input: &Input| match input {
        Input::Announced { frame } => Some(frame.clone()),
        _ => None,
    };
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let effects = one.effects.clone();
    let announcing = tokio::spawn(async move {
        for number in 0u32.. {
            tick.tick().await;
            let _ = effects.send(Effect::Announce { frame: number.to_be_bytes().to_vec() }).await;
        }
    });
    assert_eq!(two.wait("an announcement", announced).await.len(), 4);
    announcing.abort();

    let diagnosis = two.diagnose().await;
    assert_eq!(diagnosis.peers.len(), 1);
    assert_eq!(diagnosis.discovery, "off");
    assert!(diagnosis.failures.is_empty() && diagnosis.listening == two.listening);
    assert_eq!(two.node.addresses.lock().unwrap()[0].peer, one.id.to_string(), "the way to a peer is remembered");
    one.stop().await;
    two.disconnected(node_id(&[1; 32])).await;
    two.stop().await;
}

#[tokio::test]
async fn two_members_exchange_frames_and_gossip_over_tcp() {
    frames_and_gossip_pass(TCP).await;
}

#[tokio::test]
async fn two_members_exchange_frames_and_gossip_over_quic() {
    frames_and_gossip_pass(QUIC).await;
}

#[tokio::test]
async fn many_frames_arrive_in_order_though_the_node_is_busy() {
    let (one, mut two) = pair(TCP).await;
    two.node.refusals.store(20, Ordering::Relaxed);
    for number in 0..500u32 {
        // No faster than the queue takes them: a full queue drops by design.
        one.send(two.id, number.to_be_bytes().to_vec()).await;
        assert_eq!(two.frame().await.1, number.to_be_bytes());
    }
    assert_eq!(one.diagnose().await.peers[0].dropped_frames, 0);
}

#[tokio::test]
async fn a_restarted_peer_is_found_again_by_its_remembered_address() {
    let (one, mut two) = pair(TCP).await;
    let (old_address, one_id) = (one.listening[0].clone(), one.id);
    one.stop().await;
    two.disconnected(one_id).await;
    // The same port again; nobody tells node 1 of node 2: node 2 dials.
    let address = old_address.split("/p2p/").next().unwrap().to_string();
    let mut one = Running::start(1, &cluster(2), &[&address], &[]).await;
    two.connected(one_id).await;
    one.connected(two.id).await;
    two.send(one_id, b"again".to_vec()).await;
    assert_eq!(one.frame().await, (two.id, b"again".to_vec()));
}

#[tokio::test]
async fn a_restarted_peer_that_dials_from_a_new_port_is_the_same_peer() {
    let (one, mut two) = pair(QUIC).await;
    let one_id = one.id;
    one.stop().await;
    two.disconnected(one_id).await;
    let mut one = Running::start(1, &cluster(2), &[QUIC], &two.listening).await;
    two.connected(one_id).await;
    one.connected(two.id).await;
    two.send(one_id, b"again".to_vec()).await;
    one.send(two.id, b"and back".to_vec()).await;
    assert_eq!(one.frame().await, (two.id, b"again".to_vec()));
    assert_eq!(two.frame().await, (one_id, b"and back".to_vec()));
}

#[tokio::test]
async fn a_static_address_without_a_key_works_and_so_does_a_command() {
    let membership = cluster(3);
    let mut one = Running::start(1, &membership, &[TCP], &[]).await;
    let bare = one.listening[0].split("/p2p/").next().unwrap().to_string();
    let mut two = Running::start(2, &membership, &[QUIC], &[bare]).await;
    two.connected(one.id).await;
    let three = Running::start(3, &membership, &[TCP], &[]).await;
    three.control.send(NetCommand::AddPeer(one.listening[0].clone())).await.unwrap();
    three.control.send(NetCommand::Dial("nonsense".into())).await.unwrap();
    one.connected(three.id).await;
    assert_eq!(three.diagnose().await.peers[0].id, one.id.to_string());
}

#[tokio::test]
async fn who_breaks_the_protocol_is_shut_out() {
    let (one, mut two) = pair(TCP).await;
    one.effect(Effect::PeerFault { peer: two.id, reason: "nonsense".into() }).await;
    two.disconnected(one.id).await;
    assert_eq!(one.diagnose().await.banned, [two.id.to_string()]);
    // Node 2 dials again and again; it is refused each time.
    soon("a refused dial", async {
        while two.diagnose().await.failures.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(one.diagnose().await.peers.is_empty() && two.diagnose().await.peers.is_empty());
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_it() {
    let membership = cluster(1);
    let one = Running::start(1, &membership, &[TCP, QUIC], &[]).await;
    let (_running, shutdown) = watch::channel(false);
    let start = |listen: String| {
        let settings = NetSettings {
            key_seed: [1; 32],
            listen: vec![listen],
            peers: vec![],
            mdns: false,
            wan: false,
            relays: vec![],
        };
        let channels = Channels {
            effects: mpsc::channel(1).1,
            ready: None,
            control: mpsc::channel(1).1,
            shutdown: shutdown.clone(),
        };
        run_behind(settings, one.node.clone(), channels)
    };
    for taken in &one.listening {
        let address = taken.split("/p2p/").next().unwrap().to_string();
        let error = soon("the error", start(address.clone())).await.unwrap_err().to_string();
        assert!(error.contains(&address) && error.contains("in use"), "{error}");
    }
    assert!(matches!(soon("the error", start("10.0.0.1".into())).await, Err(NetError::Address(_))));
}

/// Nodes 2 and 3 know node 1 only.
#[tokio::test]
async fn members_that_reach_one_common_member_learn_the_way_to_each_other() {
    let membership = cluster(3);
    let mut one = Running::start(1, &membership, &[TCP], &[]).await;
    let mut two = Running::start(2, &membership, &[TCP], &one.listening).await;
    let mut three = Running::start(3, &membership, &[QUIC], &one.listening).await;
    one.connected(two.id).await;
    one.connected(three.id).await;
    two.connected(three.id).await;
    three.connected(two.id).await;
    // What was told is a way like any other: node 1 is gone, the two stay.
    let one_id = one.id;
    one.stop().await;
    two.disconnected(one_id).await;
    two.send(three.id, b"without one".to_vec()).await;
    assert_eq!(three.frame().await, (two.id, b"without one".to_vec()));
}

#[tokio::test]
async fn why_a_member_is_away_is_said_in_words() {
    let (one, two) = pair(TCP).await;
    let (one_id, address) = (one.id, one.listening[0].clone());
    let told = one.diagnose().await.findings;
    assert!(told.iter().all(|line| line.check.starts_with("interface")), "nobody is away: {told:?}");
    one.stop().await;
    let line = soon("a refused dial", async {
        loop {
            let diagnosis = two.diagnose().await;
            if let Some(line) = diagnosis.findings.into_iter().find(|line| line.found.contains("no node listens")) {
                return (line, diagnosis.away);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let (line, away) = line.await;
    assert_eq!((line.check.as_str(), line.state.as_str()), ("peer node 1", "warning"));
    assert!(line.found.contains("at 127.0.0.1") && line.next.contains("litemesh run"), "{line:?}");
    assert_eq!((away[0].id.clone(), away[0].tried.len()), (one_id.to_string(), 1));
    assert!(address.starts_with(&away[0].tried[0].0));

    // Somebody else has taken the address.
    let address = address.split("/p2p/").next().unwrap().to_string();
    let _other = Running::start(3, &cluster(3), &[&address], &[]).await;
    soon("another key", async {
        while !two.diagnose().await.findings.iter().any(|line| line.found.contains("another node answers")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
