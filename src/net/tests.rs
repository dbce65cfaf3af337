//! Real sockets on loopback: gated networks of real swarms, with a node behind the door that only remembers.
//!
//! mDNS does not work on loopback; its bounds are tested in `discovery` and `dial`.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::door::Door;
use super::{Channels, Diagnosis, JoinError, NetCommand, NetError, NetSettings, join, run_behind};
use crate::model::{MemberRecord, NodeId, Role};
use crate::node::invite::{Invites, JoinRequest, Refusal, redeem};
use crate::node::membership::{Membership, admit_as, found_cluster, node_id};
use crate::node::view::KnownAddress;
use crate::node::{Effect, Input};
use crate::wire::invite::InviteCode;

mod admission;
mod discovered;
mod links;
mod relayed;

const NOW_MS: u64 = 1_700_000_000_000;
const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// Generous: the machine may be busy with other tests.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(40), future).await {
        Ok(value) => value,
        Err(_) => panic!("waited too long for {what}"),
    }
}

/// A node that knows members and invites, and remembers its inputs.
struct FakeNode {
    seed: [u8; 32],
    membership: Mutex<Membership>,
    invites: Mutex<Invites>,
    addresses: Mutex<Vec<KnownAddress>>,
    inputs: mpsc::UnboundedSender<Input>,
    effects: mpsc::Sender<Effect>,
    /// Refuses this many deliveries first.
    refusals: AtomicU64,
}

impl Door for FakeNode {
    fn try_deliver(&self, input: Input) -> Result<(), Input> {
        let busy = self.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if busy.is_ok() {
            return Err(input);
        }
        if let Input::MembersLearnt(records) = &input {
            let mut membership = self.membership.lock().unwrap();
            for record in records {
                membership.add(record.clone()).unwrap();
            }
            let _ = self.effects.try_send(Effect::MembersChanged);
        }
        self.inputs.send(input.clone()).map_err(|_| input)
    }

    fn membership(&self) -> oneshot::Receiver<Membership> {
        let (answer, receiver) = oneshot::channel();
        let _ = answer.send(self.membership.lock().unwrap().clone());
        receiver
    }

    fn redeem(&self, request: JoinRequest) -> oneshot::Receiver<Result<Vec<MemberRecord>, Refusal>> {
        let (answer, receiver) = oneshot::channel();
        let (mut invites, mut membership) = (self.invites.lock().unwrap(), self.membership.lock().unwrap());
        let redeemed = redeem(&mut invites, &membership, &self.seed, &request, NOW_MS);
        let result = redeemed.map(|record| {
            membership.add(record).unwrap();
            let _ = self.effects.try_send(Effect::MembersChanged);
            membership.records().into_iter().cloned().collect()
        });
        let _ = answer.send(result);
        receiver
    }

    fn remember(&self, address: KnownAddress) {
        self.addresses.lock().unwrap().push(address);
    }

    fn known_addresses(&self) -> oneshot::Receiver<Vec<KnownAddress>> {
        let (answer, receiver) = oneshot::channel();
        let _ = answer.send(self.addresses.lock().unwrap().clone());
        receiver
    }
}

/// A running network and what its node saw.
struct Running {
    node: Arc<FakeNode>,
    id: NodeId,
    listening: Vec<String>,
    inputs: mpsc::UnboundedReceiver<Input>,
    /// Inputs that came while another was waited for.
    seen: VecDeque<Input>,
    effects: mpsc::Sender<Effect>,
    control: mpsc::Sender<NetCommand>,
    shutdown: watch::Sender<bool>,
    task: JoinHandle<Result<(), NetError>>,
}

impl Running {
    async fn start(seed: u8, membership: &Membership, listen: &[&str], peers: &[String]) -> Running {
        Running::start_network(seed, membership, (listen, peers, false), &[]).await
    }

    /// With `network.wan`; an empty relay is none.
    async fn start_with_wan(seed: u8, membership: &Membership, listen: &[&str], relays: &[String]) -> Running {
        Running::start_network(seed, membership, (listen, &[], false), relays).await
    }

    async fn start_with_mdns(seed: u8, membership: &Membership, listen: &[&str]) -> Running {
        Running::start_network(seed, membership, (listen, &[], true), &[]).await
    }

    async fn start_network(
        seed: u8,
        membership: &Membership,
        (listen, peers, mdns): (&[&str], &[String], bool),
        relays: &[String],
    ) -> Running {
        let (inputs, received) = mpsc::unbounded_channel();
        let (effects, effects_received) = mpsc::channel(1024);
        let (control, control_received) = mpsc::channel(16);
        let (shutdown, shutdown_received) = watch::channel(false);
        let (ready, is_ready) = oneshot::channel();
        let node = Arc::new(FakeNode {
            seed: [seed; 32],
            membership: Mutex::new(membership.clone()),
            invites: Mutex::new(Invites::default()),
            addresses: Mutex::default(),
            inputs,
            effects: effects.clone(),
            refusals: AtomicU64::new(0),
        });
        let settings = NetSettings {
            key_seed: [seed; 32],
            listen: listen.iter().map(|address| address.to_string()).collect(),
            peers: peers.to_vec(),
            mdns,
            wan: !relays.is_empty(),
            relays: relays.iter().filter(|relay| !relay.is_empty()).cloned().collect(),
        };
        let channels = Channels {
            effects: effects_received,
            ready: Some(ready),
            control: control_received,
            shutdown: shutdown_received,
        };
        let task = tokio::spawn(run_behind(settings, node.clone(), channels));
        let Ok(listening) = soon("the listeners", is_ready).await else { panic!("{:?}", task.await) };
        let id = node_id(&[seed; 32]);
        Running { node, id, listening, inputs: received, seen: VecDeque::new(), effects, control, shutdown, task }
    }

    /// Waits for the first input that fits, keeping the others.
    async fn wait<T>(&mut self, what: &str, fits: impl Fn(&Input) -> Option<T>) -> T {
        if let Some((position, value)) = self.seen.iter().enumerate().find_map(|(i, input)| Some((i, fits(input)?))) {
            self.seen.remove(position);
            return value;
        }
        soon(what, async {
            loop {
                let input = self.inputs.recv().await.expect("the node lives");
                match fits(&input) {
                    Some(value) => return value,
                    None => self.seen.push_back(input),
                }
            }
        })
        .await
    }

    async fn connected(&mut self, to: NodeId) {
        let fits = |input: &Input| matches!(input, Input::PeerConnected { peer, .. } if *peer == to).then_some(());
        self.wait("a connection", fits).await;
    }

    async fn disconnected(&mut self, from: NodeId) {
        let fits = |input: &Input| matches!(input, Input::PeerDisconnected { peer } if *peer == from).then_some(());
        self.wait("a disconnection", fits).await;
    }

    async fn frame(&mut self) -> (NodeId, Vec<u8>) {
        let fits = |input: &Input| match input {
            Input::Received { peer, frame } => Some((*peer, frame.clone())),
            _ => None,
        };
        self.wait("a frame", fits).await
    }

    async fn effect(&self, effect: Effect) {
        self.effects.send(effect).await.unwrap();
    }

    async fn send(&self, peer: NodeId, frame: Vec<u8>) {
        self.effect(Effect::Send { peer, frame }).await;
    }

    async fn diagnose(&self) -> Diagnosis {
        let (answer, receiver) = oneshot::channel();
        self.control.send(NetCommand::Diagnose(answer)).await.unwrap();
        soon("a diagnosis", receiver).await.unwrap()
    }

    async fn stop(self) {
        self.shutdown.send(true).unwrap();
        soon("the end", self.task).await.unwrap().unwrap();
    }
}

/// A cluster in which node 1 admitted all others.
fn cluster(count: u8) -> Membership {
    let mut membership = Membership::new(found_cluster(&[1; 32], "node 1", "venue", NOW_MS)).unwrap();
    for number in 2..=count {
        add_member(&mut membership, 1, number);
    }
    membership
}

fn add_member(membership: &mut Membership, signer: u8, number: u8) {
    let joiner = (node_id(&[number; 32]), &*format!("node {number}"));
    let record = admit_as(&[signer; 32], membership, joiner, Role::Admin, NOW_MS);
    membership.add(record).unwrap();
}
