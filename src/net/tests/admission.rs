//! The gate: strangers get nothing, joiners get in, new members are believed by their chain of signatures.

use futures::StreamExt as _;
use libp2p::core::muxing::StreamMuxerExt as _;
use libp2p::core::transport::{DialOpts, PortUse, Transport as _};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, Swarm, SwarmBuilder, gossipsub, identify, noise, tcp, yamux};

use super::*;
use crate::net::gate::{GateError, drive, open_stream, receive_up_to, send};
use crate::net::key::keypair;
use crate::net::transport::open_transport;
use crate::wire::limits::PROTOCOL_VERSION;
use crate::wire::proto;

const HOUR_MS: u64 = 3_600_000;

fn invite(running: &Running, secret: [u8; 16]) -> InviteCode {
    let membership = running.node.membership.lock().unwrap().clone();
    let times = (NOW_MS, HOUR_MS);
    let addresses = running.listening.clone();
    running.node.invites.lock().unwrap().create(&running.node.seed, &membership, secret, addresses, times).unwrap()
}

async fn joins_and_connects(listen: &str) {
    let mut one = Running::start(1, &cluster(2), &[listen], &[]).await;
    let code = InviteCode::from_text(&invite(&one, [9; 16]).to_text()).unwrap();
    let joined = soon("the join", join(&code, [3; 32], "node 3")).await.unwrap();
    assert_eq!((joined.own.member.rank, joined.own.member.slot), (2, 3));
    assert_eq!(joined.own.member.name, "node 3");
    assert_eq!((joined.records.len(), joined.inviter), (3, one.id));
    // The answer may have been lost: the same key may ask again, another may not.
    assert_eq!(soon("the join", join(&code, [3; 32], "node 3")).await.unwrap(), joined);
    let stolen = soon("the refusal", join(&code, [4; 32], "thief")).await;
    assert!(matches!(stolen, Err(JoinError::Refused(Refusal::Used))), "{stolen:?}");

    let mut membership = Membership::new(joined.founder.clone()).unwrap();
    joined.records.iter().for_each(|record| drop(membership.add(record.clone())));
    let mut three = Running::start(3, &membership, &[listen], &joined.addresses).await;
    three.connected(one.id).await;
    one.connected(three.id).await;
}

#[tokio::test]
async fn a_node_joins_by_code_over_tcp() {
    joins_and_connects(TCP).await;
}

#[tokio::test]
async fn a_node_joins_by_code_over_quic() {
    joins_and_connects(QUIC).await;
}

#[tokio::test]
async fn a_wrong_expired_or_foreign_code_is_refused_with_its_reason() {
    let one = Running::start(1, &cluster(1), &[TCP, QUIC], &[]).await;
    let good = invite(&one, [9; 16]);
    let refused = |code: InviteCode| async move { soon("the refusal", join(&code, [3; 32], "x")).await.unwrap_err() };

    let unknown = InviteCode { secret: [8; 16], ..good.clone() };
    assert!(matches!(refused(unknown).await, JoinError::Refused(Refusal::Unknown)));
    // A proof for another cluster is a wrong proof: the id of the cluster is part of it.
    let foreign = InviteCode { cluster: crate::model::ClusterId([1; 32]), ..good.clone() };
    for left in (1..5).rev() {
        let error = refused(foreign.clone()).await;
        assert!(matches!(error, JoinError::Refused(Refusal::WrongProof(tries)) if tries == left), "{error}");
    }
    assert!(matches!(refused(foreign).await, JoinError::Refused(Refusal::Void)));
    assert!(matches!(refused(good.clone()).await, JoinError::Refused(Refusal::Void)));

    let membership = one.node.membership.lock().unwrap().clone();
    let past = one.node.invites.lock().unwrap().create(
        &[1; 32],
        &membership,
        [7; 16],
        one.listening.clone(),
        (NOW_MS - HOUR_MS, HOUR_MS),
    );
    assert!(matches!(refused(past.unwrap()).await, JoinError::Refused(Refusal::Expired)));
    assert!(matches!(join(&good, [1; 32], "x").await, Err(JoinError::OwnCode)));
    let nobody = InviteCode { addresses: vec!["/ip4/127.0.0.1/tcp/1".into()], ..good };
    assert!(matches!(refused(nobody).await, JoinError::Unreachable { .. }));
}

#[tokio::test]
async fn members_that_never_met_believe_each_other_by_their_chains() {
    // Node 1 admitted 2 and 3 apart: each knows itself and the founder only.
    let (mut two_view, mut three_view) = (cluster(1), cluster(1));
    add_member(&mut two_view, 1, 2);
    add_member(&mut three_view, 1, 3);
    // Node 3 admitted 4, so node 2 has to follow two signatures.
    let mut four_view = three_view.clone();
    add_member(&mut four_view, 3, 4);
    for listen in [TCP, QUIC] {
        let mut two = Running::start(2, &two_view, &[listen], &[]).await;
        let mut four = Running::start(4, &four_view, &[listen], &two.listening).await;
        let learnt = |input: &Input| matches!(input, Input::MembersLearnt(_)).then_some(());
        two.wait("the records", learnt).await;
        two.connected(four.id).await;
        four.connected(two.id).await;
        assert!(two.node.membership.lock().unwrap().may_connect(&four.id));
        assert!(four.node.membership.lock().unwrap().may_connect(&two.id));
    }
}

#[tokio::test]
async fn another_cluster_is_refused_in_both_directions() {
    let mut one = Running::start(1, &cluster(2), &[TCP, QUIC], &[]).await;
    let other = Membership::new(found_cluster(&[50; 32], "other", "other", NOW_MS)).unwrap();
    let mut stranger = Running::start(50, &other, &[TCP], &one.listening).await;
    refused_by(&mut one, &mut stranger).await;
}

#[tokio::test]
async fn knowing_the_cluster_is_not_enough() {
    // Somebody who saw a join code knows the cluster's id, and even its records: not a member all the same.
    let mut one = Running::start(1, &cluster(2), &[TCP, QUIC], &[]).await;
    let mut stranger = Running::start(60, &cluster(2), &[TCP], &one.listening).await;
    refused_by(&mut one, &mut stranger).await;
}

async fn refused_by(one: &mut Running, stranger: &mut Running) {
    soon("a refused dial", async {
        while stranger.diagnose().await.failures.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for running in [one, stranger] {
        assert!(running.diagnose().await.peers.is_empty());
        // That a call of one's own failed is no word of the other one.
        while let Ok(input) = running.inputs.try_recv() {
            assert!(matches!(input, Input::Dialed { problem: Some(_), .. }), "an input reaches the node: {input:?}");
        }
    }
}

#[derive(NetworkBehaviour)]
struct Plain {
    gossip: gossipsub::Behaviour,
    identify: identify::Behaviour,
    frames: libp2p_stream::Behaviour,
}

/// Any libp2p program: the same transports, the same protocols, no gate.
fn plain(seed: u8) -> Swarm<Plain> {
    SwarmBuilder::with_existing_identity(keypair(&[seed; 32]))
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_quic()
        .with_behaviour(|keypair| Plain {
            gossip: gossipsub::Behaviour::new(
                gossipsub::MessageAuthenticity::Signed(keypair.clone()),
                gossipsub::Config::default(),
            )
            .unwrap(),
            identify: identify::Behaviour::new(identify::Config::new("litemesh/1".into(), keypair.public())),
            frames: libp2p_stream::Behaviour::new(),
        })
        .unwrap()
        .build()
}

#[tokio::test]
async fn a_plain_libp2p_node_gets_no_message_of_any_protocol() {
    let mut one = Running::start(1, &cluster(2), &[TCP, QUIC], &[]).await;
    for address in one.listening.clone() {
        let mut swarm = plain(70);
        swarm.dial(address.parse::<Multiaddr>().unwrap()).unwrap();
        // It may believe for a moment that it is connected: its side has no gate.
        soon("the end of the connection", async {
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::ConnectionClosed { .. } | SwarmEvent::OutgoingConnectionError { .. } => break,
                    SwarmEvent::Behaviour(PlainEvent::Identify(identify::Event::Error { .. })) => {}
                    SwarmEvent::Behaviour(event) => panic!("a protocol answered: {event:?}"),
                    _ => {}
                }
            }
        })
        .await;
    }
    assert!(one.diagnose().await.peers.is_empty() && one.inputs.try_recv().is_err());
}

#[tokio::test]
async fn a_listening_stranger_sees_a_nonce_and_a_hash_only() {
    let mut swarm = plain(70);
    swarm.listen_on(TCP.parse().unwrap()).unwrap();
    let address = soon("its address", async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                return address.to_string();
            }
        }
    })
    .await;
    let one = Running::start(1, &cluster(2), &[TCP], &[address]).await;
    soon("a refused dial", async {
        loop {
            tokio::select! {
                event = swarm.select_next_some() => {
                    let protocol = matches!(
                        event,
                        SwarmEvent::Behaviour(PlainEvent::Identify(identify::Event::Received { .. }) | PlainEvent::Gossip(_))
                    );
                    assert!(!protocol, "a protocol spoke: {event:?}");
                }
                diagnosis = one.diagnose() => {
                    if !diagnosis.failures.is_empty() { break }
                }
            }
        }
    })
    .await;
    assert!(one.diagnose().await.peers.is_empty());
}

/// Dials as a stranger and sends any opening: the bytes that come back, and how it ended.
async fn knock(address: &str, opening: proto::GateOpening) -> Result<proto::GateReply, GateError> {
    let mut transport = open_transport(&keypair(&[80; 32])).unwrap();
    let options = DialOpts { role: libp2p::core::Endpoint::Dialer, port_use: PortUse::New };
    let (_, mut muxer) = transport.dial(address.parse().unwrap(), options).unwrap().await.unwrap();
    let mut stream = open_stream(&mut muxer).await?;
    let reply = drive(&mut muxer, async {
        send(&mut stream, &opening).await?;
        receive_up_to(&mut stream, 1 << 20, 8).await
    })
    .await?;
    let _ = muxer.close().await;
    reply
}

#[tokio::test]
async fn a_stranger_that_speaks_the_gates_language_learns_nothing() {
    let one = Running::start(1, &cluster(2), &[TCP, QUIC], &[]).await;
    let opening = |tag: Vec<u8>, version| proto::GateOpening { version, nonce: vec![1; 32], tag, knows_you: true };
    for address in &one.listening {
        // A guessed tag, another version, and nonsense: closed without a byte.
        for wrong in [opening(vec![5; 32], 1), opening(vec![5; 32], 2), opening(vec![5; 7], 1)] {
            let answer = soon("the refusal", knock(address, wrong)).await;
            assert!(matches!(answer, Err(GateError::Io(_))), "{answer:?}");
        }
        // A would-be joiner gets a random nonce, and nothing derived from the cluster.
        let reply = soon("the reply", knock(address, opening(Vec::new(), PROTOCOL_VERSION))).await.unwrap();
        assert!(reply.tag.is_empty() && !reply.knows_you && reply.nonce.len() == 32);
    }
    assert!(one.diagnose().await.peers.is_empty());
}

/// A joiner's first half, with any nonce, and any invite and proof: what the inviter says.
async fn knock_to_join(address: &str, key: u8, nonce: [u8; 32], join: proto::GateJoin) -> (Vec<u8>, u32) {
    let mut transport = open_transport(&keypair(&[key; 32])).unwrap();
    let options = DialOpts { role: libp2p::core::Endpoint::Dialer, port_use: PortUse::New };
    let (_, mut muxer) = transport.dial(address.parse().unwrap(), options).unwrap().await.unwrap();
    let mut stream = open_stream(&mut muxer).await.unwrap();
    let steps = async {
        let opening =
            proto::GateOpening { version: PROTOCOL_VERSION, nonce: nonce.to_vec(), tag: Vec::new(), knows_you: false };
        send(&mut stream, &opening).await?;
        let reply: proto::GateReply = receive_up_to(&mut stream, 256, 8).await?;
        send(&mut stream, &join).await?;
        let welcome: proto::GateWelcome = receive_up_to(&mut stream, 1 << 20, 64).await?;
        Ok::<_, GateError>((reply.nonce, welcome.refusal))
    };
    drive(&mut muxer, steps).await.unwrap().unwrap()
}

/// Somebody recorded a whole handshake (a proof is worth nothing without its key's connection, and nothing twice).
#[tokio::test]
async fn a_recorded_proof_opens_nothing() {
    use crate::node::invite::{invite_id, proof};
    let one = Running::start(1, &cluster(1), &[TCP], &[]).await;
    let code = invite(&one, [9; 16]);
    let address = one.listening[0].clone();
    let joiner = node_id(&[3; 32]);
    let recorded = proof(&code.secret, &code.cluster, &joiner, &code.inviter, &[[1; 32], [2; 32]]);
    let join = proto::GateJoin {
        invite: invite_id(&code.secret).to_vec(),
        proof: recorded.as_bytes().to_vec(),
        name: "replayed".into(),
        ..proto::GateJoin::default()
    };
    // Under the same key, under another one: the inviter's nonce is new each time.
    let first = soon("an answer", knock_to_join(&address, 3, [1; 32], join.clone())).await;
    let second = soon("an answer", knock_to_join(&address, 4, [1; 32], join)).await;
    let wrong = Refusal::WrongProof(0).code();
    assert_eq!((first.1, second.1), (wrong, wrong));
    assert_ne!(first.0, second.0);
    assert!(!one.node.membership.lock().unwrap().may_connect(&joiner));
    // The invite itself still has tries left.
    assert!(soon("the join", join_code(&code)).await.is_ok());
}

async fn join_code(code: &InviteCode) -> Result<crate::net::Joined, JoinError> {
    join(code, [3; 32], "node 3").await
}

#[tokio::test]
async fn without_a_code_nobody_gets_in_by_saying_so() {
    let one = Running::start(1, &cluster(1), &[TCP], &[]).await;
    let address = one.listening[0].clone();
    let join = proto::GateJoin { name: "guest".into(), ..proto::GateJoin::default() };
    let answer = soon("an answer", knock_to_join(&address, 3, [1; 32], join)).await;
    assert_ne!(answer.1, 0);
    assert!(!one.node.membership.lock().unwrap().may_connect(&node_id(&[3; 32])));
}

#[tokio::test]
async fn a_revoked_member_is_disconnected_and_shown_why() {
    for listen in [TCP, QUIC] {
        let members = cluster(2);
        let mut one = Running::start(1, &members, &[listen], &[]).await;
        let mut two = Running::start(2, &members, &[listen], &one.listening).await;
        two.connected(one.id).await;
        one.connected(two.id).await;
        let record = crate::node::membership::revoke(&[1; 32], &members, two.id, NOW_MS);
        one.node.membership.lock().unwrap().add(record.clone()).unwrap();
        one.effects.send(Effect::MembersChanged).await.unwrap();
        one.wait("the end", |input| matches!(input, Input::PeerDisconnected { .. }).then_some(())).await;
        // It dials again, and is refused in words.
        let shown = |input: &Input| match input {
            Input::ShutOut { by, record } => Some((*by, record.clone())),
            _ => None,
        };
        let (by, why) = two.wait("the reason", shown).await;
        assert_eq!((by, *why), (one.id, record));
        assert!(one.diagnose().await.peers.is_empty());
    }
}
