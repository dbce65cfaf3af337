//! The gate: the first stream of every connection, inside the transport. Who is not a member never reaches the swarm,
//! so no protocol above has to ask again.
//!
//! Invariant: before a side has seen that the other knows the cluster's id (a hash salted with nonces and both keys
//! proves it) it sends nothing but nonce and hash; before it knows the other for a member it sends at most the records
//! that prove its own membership, and only as dialer; to who was shut out, the record that did it. The other side's key is the connection's, proven by noise or TLS,
//! never one from a message. Every step has a size limit and the whole a time limit.
//! Callers: transport, join.
//!
//! Why not a pre-shared key: libp2p has it for TCP only, and it cannot be taken from one node alone. Why not after the
//! connection is up: gossip and streams already run before the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::Poll;
use std::time::Duration;

use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt as _, SubstreamBox};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use super::door::Door;
use super::frame::{read_frame, write_frame};
use super::key::node_of;
use crate::model::{ClusterId, Member, MemberRecord, NodeId};
use crate::node::Input;
use crate::node::invite::{JoinRequest, LanKnock, Refusal};
use crate::node::membership::Membership;
use crate::wire::limits::{
    GATE_CHAIN_BYTES_MAX, GATE_MESSAGE_BYTES_MAX, GATE_RECORDS_MAX, NAME_BYTES_MAX, PROTOCOL_VERSION,
    PROTOCOL_VERSION_MIN, RECORD_AFTER_MAX,
};
use crate::wire::member::{all_from_proto, fixed, hashes, to_proto};
use crate::wire::message::{MessageError, check_field_count};
use crate::wire::proto;

const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// A redeemed invite is on the inviter's disk before the answer.
const REDEEM_TIMEOUT: Duration = Duration::from_secs(8);
/// Refusal in a chain: the other side was revoked, or its key is retired.
const SHUT_OUT: u32 = 1;

/// Why a connection was refused. It is closed; both sides' state is as before, unless the variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GateError {
    /// The link broke. Worth a retry.
    #[error("the connection broke at the gate: {0}")]
    Io(#[from] io::Error),
    /// The other side took too long. Worth a retry.
    #[error("no answer at the gate")]
    Timeout,
    /// Not this protocol. A retry does not help.
    #[error("the other side is no litemesh node of this version ({0})")]
    Malformed(#[from] MessageError),
    /// A litemesh node that does not know this cluster. A retry does not help.
    #[error("the other side belongs to another cluster")]
    OtherCluster,
    /// The other side knows the cluster and its key is no member's. A retry helps once it is admitted.
    #[error("{0:?} is not a member of this cluster")]
    NotAMember(NodeId),
    /// The other side says that this node was shut out of the cluster. A retry helps once it is let in again.
    #[error("{0:?} says that this node was shut out of the cluster")]
    ShutOut(NodeId),
    /// A member that broke the protocol. A retry helps after ten minutes.
    #[error("{0:?} broke the protocol and is shut out for a while")]
    Banned(NodeId),
    /// The node's queue is full. Worth a retry.
    #[error("the node is busy")]
    Busy,
    /// The node gave no answer in time, or the system no random bytes. Worth a retry.
    #[error("the node cannot answer now")]
    Unavailable,
    /// An invite was redeemed, or refused: the joiner connects again as a member. The invite's state is on the disk.
    #[error("the connection was a join and is done")]
    Join,
}

/// What the gate decides by: a copy of the membership, renewed whenever the node says that it changed.
pub(crate) struct Gate {
    own: NodeId,
    membership: RwLock<Membership>,
    /// Members that broke the protocol and are shut out for a while; bounded by the network.
    banned: RwLock<BTreeSet<NodeId>>,
    door: Arc<dyn Door>,
}

impl Gate {
    pub(crate) fn new(own: NodeId, membership: Membership, door: Arc<dyn Door>) -> Gate {
        Gate { own, membership: RwLock::new(membership), banned: RwLock::default(), door }
    }

    /// Takes the node's current membership. Records that the gate learnt while the copy was on its way stay.
    pub(crate) fn renew(&self, mut membership: Membership) {
        let mut current = self.membership.write().unwrap_or_else(PoisonError::into_inner);
        membership.add_all(current.records().into_iter().cloned().collect());
        *current = membership;
    }

    /// Whether a node may be connected now: asked at the gate, and again for every connection when members change.
    pub(crate) fn is_open_to(&self, node: &NodeId) -> bool {
        self.knows(node) && !self.is_banned(node)
    }

    /// Shuts a member out.
    pub(crate) fn ban(&self, node: NodeId) {
        self.banned.write().unwrap_or_else(PoisonError::into_inner).insert(node);
    }

    /// Lets it in again.
    pub(crate) fn unban(&self, node: &NodeId) {
        self.banned.write().unwrap_or_else(PoisonError::into_inner).remove(node);
    }

    fn is_banned(&self, node: &NodeId) -> bool {
        self.banned.read().unwrap_or_else(PoisonError::into_inner).contains(node)
    }

    fn knows(&self, node: &NodeId) -> bool {
        self.read(|membership| membership.may_connect(node))
    }

    /// This node.
    pub(crate) fn own(&self) -> NodeId {
        self.own
    }

    /// The members that may connect, by the names that people gave them.
    pub(crate) fn names(&self) -> BTreeMap<NodeId, String> {
        let name = |member: &Member| (member.node, member.name.clone());
        self.read(|membership| {
            let members = membership.members().into_iter().filter(|member| membership.may_connect(&member.node));
            members.map(name).collect()
        })
    }

    pub(crate) fn cluster(&self) -> ClusterId {
        self.read(|membership| membership.cluster())
    }

    fn read<T>(&self, ask: impl FnOnce(&Membership) -> T) -> T {
        ask(&self.membership.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn heads(&self) -> Vec<Vec<u8>> {
        self.read(|membership| membership.heads().iter().map(|hash| hash.to_vec()).collect())
    }

    /// What proves this node's membership and the other side lacks, by the heads it named.
    fn chain_for(&self, known: bool, heads: &[Vec<u8>]) -> Result<proto::GateChain, GateError> {
        let heads = hashes(heads, RECORD_AFTER_MAX)?;
        let mut records = if known { Vec::new() } else { self.read(|membership| membership.proof(&self.own, &heads)) };
        // Oldest first: what does not fit now fits when the first part is known.
        records.truncate(GATE_RECORDS_MAX);
        Ok(proto::GateChain { records: records.iter().map(to_proto).collect(), member_heads: self.heads(), refusal: 0 })
    }

    /// What a node is shown that was shut out: the record that did it.
    fn refusal_for(&self, node: &NodeId) -> Option<proto::GateChain> {
        let record = self.read(|membership| membership.shut_out_by(node).map(to_proto))?;
        Some(proto::GateChain { records: vec![record], member_heads: Vec::new(), refusal: SHUT_OUT })
    }

    /// The other side says that this node was shut out: the node is told, and judges the record.
    fn refused_by(&self, node: &NodeId, chain: proto::GateChain) -> GateError {
        if let Ok(Some(record)) = all_from_proto(chain.records).map(|records| records.into_iter().next()) {
            // Lost when the node is busy: the next dial brings it again.
            let _ = self.door.try_deliver(Input::ShutOut { by: *node, record: Box::new(record) });
        }
        GateError::ShutOut(*node)
    }

    /// Checks the records that a node showed. They count, and go to the node, only when they prove its membership.
    fn take_chain(&self, node: &NodeId, chain: proto::GateChain) -> Result<(), GateError> {
        if self.is_banned(node) {
            return Err(GateError::Banned(*node));
        }
        if self.knows(node) {
            return Ok(());
        }
        let records = all_from_proto(chain.records)?;
        let mut grown = self.read(Membership::clone);
        if records.is_empty() || !grown.add_all(records.clone()).1.is_empty() {
            return Err(GateError::NotAMember(*node));
        }
        if !grown.may_connect(node) {
            return Err(GateError::NotAMember(*node));
        }
        // The node learns of the member before it learns of the connection: both go through the same queue.
        self.door.try_deliver(Input::MembersLearnt(records.clone())).map_err(|_| GateError::Busy)?;
        self.membership.write().unwrap_or_else(PoisonError::into_inner).add_all(records);
        Ok(())
    }
}

/// Lets a connection through or closes it. `dialer`: the part that this side plays; the address is the other side's.
pub(crate) async fn admit(
    gate: Arc<Gate>,
    peer: PeerId,
    mut muxer: StreamMuxerBox,
    (dialer, address): (bool, &Multiaddr),
) -> Result<(PeerId, StreamMuxerBox), GateError> {
    let remote = node_of(&peer).ok_or(GateError::OtherCluster)?;
    let result = match dialer {
        true => dial_in(&gate, remote, &mut muxer).await,
        false => answer(&gate, remote, local_address(address), &mut muxer).await,
    };
    if let Err(error) = &result {
        tracing::debug!(%peer, dialer, %error, "refused at the gate");
    }
    result.map(|()| (peer, muxer))
}

/// The dialer's side: opening, reply, both chains, accepted.
async fn dial_in(gate: &Gate, remote: NodeId, muxer: &mut StreamMuxerBox) -> Result<(), GateError> {
    let mut stream = within(STEP_TIMEOUT, open_stream(muxer)).await??;
    let steps = async {
        let cluster = gate.cluster();
        let nonce = random()?;
        let tag = tag("dialer", &cluster, [&nonce, &[0; 32], &gate.own.0, &remote.0]);
        let knows_you = gate.knows(&remote);
        let opening = proto::GateOpening {
            version: PROTOCOL_VERSION_MIN,
            nonce: nonce.to_vec(),
            tag: tag.as_bytes().to_vec(),
            knows_you,
        };
        send(&mut stream, &opening).await?;
        let reply: proto::GateReply = receive(&mut stream, 8 + RECORD_AFTER_MAX).await?;
        let expected =
            self::tag("listener", &cluster, [&nonce, &fixed(&reply.nonce, "nonce")?, &gate.own.0, &remote.0]);
        if expected != blake3::Hash::from_bytes(fixed(&reply.tag, "tag")?) {
            return Err(GateError::OtherCluster);
        }
        if let Some(refusal) = gate.refusal_for(&remote) {
            send(&mut stream, &refusal).await?;
            close(stream).await;
            return Err(GateError::NotAMember(remote));
        }
        send(&mut stream, &gate.chain_for(reply.knows_you, &reply.member_heads)?).await?;
        let chain = receive_chain(&mut stream).await?;
        if chain.refusal != 0 {
            return Err(gate.refused_by(&remote, chain));
        }
        gate.take_chain(&remote, chain)?;
        send(&mut stream, &proto::GateAccepted { accepted: true }).await?;
        close(stream).await;
        Ok(())
    };
    within(STEP_TIMEOUT, drive(muxer, steps)).await??
}

/// The listener's side, up to the place where it is clear whether a member or a joiner knocks.
async fn answer(
    gate: &Gate,
    remote: NodeId,
    local: Option<String>,
    muxer: &mut StreamMuxerBox,
) -> Result<(), GateError> {
    let mut stream = within(STEP_TIMEOUT, accept_stream(muxer)).await??;
    let (opening, nonce) = within(
        STEP_TIMEOUT,
        drive(muxer, async {
            let opening: proto::GateOpening = receive(&mut stream, 8).await?;
            // It says the oldest version that the dialer still speaks; what both speak is told by their hellos.
            if !(1..=PROTOCOL_VERSION).contains(&opening.version) {
                return Err(GateError::Malformed(MessageError::Malformed("version")));
            }
            Ok((opening, random()?))
        }),
    )
    .await???;
    if opening.tag.is_empty() {
        let nonces = [fixed(&opening.nonce, "nonce")?, nonce];
        return within(
            STEP_TIMEOUT + REDEEM_TIMEOUT,
            drive(muxer, answer_joiner(gate, (remote, local), stream, nonces)),
        )
        .await??;
    }
    within(STEP_TIMEOUT, drive(muxer, answer_member(gate, remote, stream, (opening, nonce)))).await??
}

async fn answer_member(
    gate: &Gate,
    remote: NodeId,
    mut stream: SubstreamBox,
    (opening, nonce): (proto::GateOpening, [u8; 32]),
) -> Result<(), GateError> {
    let cluster = gate.cluster();
    let their_nonce = fixed(&opening.nonce, "nonce")?;
    let expected = tag("dialer", &cluster, [&their_nonce, &[0; 32], &remote.0, &gate.own.0]);
    if expected != blake3::Hash::from_bytes(fixed(&opening.tag, "tag")?) {
        return Err(GateError::OtherCluster);
    }
    let tag = tag("listener", &cluster, [&their_nonce, &nonce, &remote.0, &gate.own.0]);
    let reply = proto::GateReply {
        version: PROTOCOL_VERSION_MIN,
        nonce: nonce.to_vec(),
        tag: tag.as_bytes().to_vec(),
        knows_you: gate.knows(&remote),
        member_heads: gate.heads(),
    };
    send(&mut stream, &reply).await?;
    let chain = receive_chain(&mut stream).await?;
    if chain.refusal != 0 {
        return Err(gate.refused_by(&remote, chain));
    }
    let heads = chain.member_heads.clone();
    if let Err(error) = gate.take_chain(&remote, chain) {
        // Who was a member may know why it is none any more; a stranger hears nothing.
        if let Some(refusal) = gate.refusal_for(&remote) {
            send(&mut stream, &refusal).await?;
            // Until it has read that, the connection stays.
            let _ = receive::<proto::GateAccepted>(&mut stream, 1).await;
        }
        return Err(error);
    }
    // Only now, to a member: who this node is, unless the dialer knows it.
    send(&mut stream, &gate.chain_for(opening.knows_you, &heads)?).await?;
    let accepted: proto::GateAccepted = receive(&mut stream, 1).await?;
    if !accepted.accepted {
        return Err(GateError::Malformed(MessageError::Malformed("accepted")));
    }
    close(stream).await;
    Ok(())
}

/// A joiner proves its invite and gets the records of all members, or a number that says why not.
async fn answer_joiner(
    gate: &Gate,
    (joiner, local): (NodeId, Option<String>),
    mut stream: SubstreamBox,
    nonces: [[u8; 32]; 2],
) -> Result<(), GateError> {
    let nonce = nonces[1].to_vec();
    let (version, tag) = (PROTOCOL_VERSION_MIN, Vec::new());
    let reply = proto::GateReply { version, nonce, tag, knows_you: false, member_heads: Vec::new() };
    send(&mut stream, &reply).await?;
    let join: proto::GateJoin = receive(&mut stream, 4).await?;
    if join.name.len() > NAME_BYTES_MAX || join.cluster_name.len() > NAME_BYTES_MAX {
        return Err(GateError::Malformed(MessageError::TooLarge("name")));
    }
    let request = match (join.invite.is_empty(), local) {
        (true, Some(from)) => {
            let lan = Some(LanKnock { from, cluster_name: join.cluster_name });
            JoinRequest { invite: [0; 8], proof: [0; 32], joiner, name: join.name, nonces, lan }
        }
        // From elsewhere it gets the same answer as where nothing is trusted.
        (true, None) => {
            let refusal = Refusal::NotTrusting.code();
            send(&mut stream, &proto::GateWelcome { refusal, ..proto::GateWelcome::default() }).await?;
            let _ = receive::<proto::GateAccepted>(&mut stream, 1).await;
            return Err(GateError::Join);
        }
        (false, _) => {
            let (invite, proof) = (fixed(&join.invite, "invite")?, fixed(&join.proof, "proof")?);
            JoinRequest { invite, proof, joiner, name: join.name, nonces, lan: None }
        }
    };
    let redeemed = tokio::time::timeout(REDEEM_TIMEOUT, gate.door.redeem(request)).await;
    let welcome = match redeemed.ok().and_then(Result::ok).unwrap_or(Err(Refusal::Busy)) {
        Ok(records) => welcome(&records),
        Err(refusal) => {
            let tries_left = if let Refusal::WrongProof(left) = refusal { left } else { 0 };
            proto::GateWelcome { refusal: refusal.code(), tries_left, records: Vec::new() }
        }
    };
    send(&mut stream, &welcome).await?;
    // The connection ends here; wait until the joiner has read its answer.
    let _ = receive::<proto::GateAccepted>(&mut stream, 1).await;
    close(stream).await;
    Err(GateError::Join)
}

fn welcome(records: &[MemberRecord]) -> proto::GateWelcome {
    proto::GateWelcome { refusal: 0, tries_left: 0, records: records.iter().map(to_proto).collect() }
}

/// Proves to somebody who knows the cluster's id that the sender knows it too, and tells nobody else anything.
fn tag(role: &str, cluster: &ClusterId, parts: [&[u8; 32]; 4]) -> blake3::Hash {
    let key = blake3::derive_key("litemesh 1 gate", &cluster.0);
    let mut hasher = blake3::Hasher::new_keyed(&key);
    for part in parts {
        hasher.update(part);
    }
    hasher.update(role.as_bytes());
    hasher.finalize()
}

pub(crate) fn random() -> Result<[u8; 32], GateError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| GateError::Unavailable)?;
    Ok(bytes)
}

/// Where a joiner comes from, when that is the local network: an address of a private, link-local or own range.
fn local_address(address: &Multiaddr) -> Option<String> {
    // A relay on the local network says nothing of who calls over it.
    if address.iter().any(|part| part == Protocol::P2pCircuit) {
        return None;
    }
    let local = match address.iter().next()? {
        Protocol::Ip4(ip) => ip.is_private() || ip.is_link_local() || ip.is_loopback(),
        Protocol::Ip6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => ip.is_private() || ip.is_link_local() || ip.is_loopback(),
            None => ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback(),
        },
        _ => false,
    };
    local.then(|| address.to_string())
}

async fn receive_chain(stream: &mut SubstreamBox) -> Result<proto::GateChain, GateError> {
    receive_up_to(stream, GATE_CHAIN_BYTES_MAX, GATE_RECORDS_MAX + RECORD_AFTER_MAX + 1).await
}

pub(crate) async fn send(stream: &mut SubstreamBox, message: &impl prost::Message) -> Result<(), GateError> {
    Ok(write_frame(stream, &message.encode_to_vec()).await?)
}

/// Reads a message of the gate's usual size with at most this many fields.
async fn receive<M: prost::Message + Default>(stream: &mut SubstreamBox, fields: usize) -> Result<M, GateError> {
    receive_up_to(stream, GATE_MESSAGE_BYTES_MAX, fields).await
}

pub(crate) async fn receive_up_to<M: prost::Message + Default>(
    stream: &mut SubstreamBox,
    bytes_max: usize,
    fields_max: usize,
) -> Result<M, GateError> {
    let bytes = read_frame(stream, bytes_max).await?;
    check_field_count(&bytes, fields_max)?;
    Ok(M::decode(&bytes[..]).map_err(|_| MessageError::Malformed("gate"))?)
}

/// Tells the other side that nothing more comes. It may be gone already: then nobody needs to know.
pub(crate) async fn close(mut stream: SubstreamBox) {
    let _ = futures::AsyncWriteExt::close(&mut stream).await;
}

pub(crate) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, GateError> {
    tokio::time::timeout(limit, future).await.map_err(|_| GateError::Timeout)
}

/// Runs a future over a stream of this connection. A connection moves only while it is polled itself.
pub(crate) async fn drive<F: Future>(muxer: &mut StreamMuxerBox, future: F) -> Result<F::Output, io::Error> {
    let mut future = pin!(future);
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        while let Poll::Ready(event) = muxer.poll_unpin(context) {
            if let Err(error) = event {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Pending
    })
    .await
}

pub(crate) async fn open_stream(muxer: &mut StreamMuxerBox) -> Result<SubstreamBox, io::Error> {
    poll_fn(|context| {
        if let Poll::Ready(stream) = muxer.poll_outbound_unpin(context) {
            return Poll::Ready(stream);
        }
        poll_connection(muxer, context)
    })
    .await
}

async fn accept_stream(muxer: &mut StreamMuxerBox) -> Result<SubstreamBox, io::Error> {
    poll_fn(|context| {
        if let Poll::Ready(stream) = muxer.poll_inbound_unpin(context) {
            return Poll::Ready(stream);
        }
        poll_connection(muxer, context)
    })
    .await
}

fn poll_connection<T>(muxer: &mut StreamMuxerBox, context: &mut std::task::Context<'_>) -> Poll<Result<T, io::Error>> {
    while let Poll::Ready(event) = muxer.poll_unpin(context) {
        if let Err(error) = event {
            return Poll::Ready(Err(error));
        }
    }
    Poll::Pending
}
