//! `litemesh join`: proves an invite to the inviting node and takes home the records of all members.
//!
//! Invariant: needs no running node and changes nothing here; what comes back is checked against the cluster's id in the
//! code, so an inviter cannot slip in another cluster. Asking again with the same key after a lost answer is safe.
//! Callers: cli (join).

use std::time::Duration;

use futures::future::select_ok;
use libp2p::core::Endpoint;
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt as _};
use libp2p::core::transport::{Boxed, DialOpts, PortUse, Transport as _};

use super::gate::{GateError, close, drive, open_stream, random, receive_up_to, send, within};
use super::key::{keypair, parse_address, peer_of, with_peer};
use super::transport::{Connection, TransportError, open_transport};
use crate::model::{ClusterId, MemberRecord, NodeId, RecordKind};
use crate::node::invite::{Refusal, invite_id, proof};
use crate::node::membership::{Membership, cluster_id, node_id, shortened};
use crate::wire::invite::InviteCode;
use crate::wire::limits::{GATE_WELCOME_BYTES_MAX, MEMBER_RECORDS_MAX, PROTOCOL_VERSION_MIN, REVOKING_RECORDS_MAX};
use crate::wire::member::{all_from_proto, fixed};
use crate::wire::proto;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(6);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
const WELCOME_FIELDS_MAX: usize = MEMBER_RECORDS_MAX + REVOKING_RECORDS_MAX + 2;
const TRIES: u32 = 3;
const PAUSE_BETWEEN_TRIES: Duration = Duration::from_millis(700);

/// What a joiner takes home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The founder's record: it defines the cluster.
    pub founder: MemberRecord,
    /// This node's own record.
    pub own: MemberRecord,
    /// All records, the founder's first and this node's included, in the order of seniority.
    pub records: Vec<MemberRecord>,
    /// The node that let this one in.
    pub inviter: NodeId,
    /// Where it answers.
    pub addresses: Vec<String>,
}

/// Why a join failed. This machine is as before.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The inviter says no. A retry helps only where the refusal says so.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No address of the code answers: the inviter is off, or a firewall is between. Try again when it runs.
    #[error("the inviting node cannot be reached at {addresses} ({reason}): is it running, and on the same network?")]
    Unreachable {
        /// The addresses tried.
        addresses: String,
        /// The last failure.
        reason: String,
    },
    /// The code was made by this very node.
    #[error("this join code was made by this node itself: use it on the other machine")]
    OwnCode,
    /// Nobody on the local network lets this node in. Helps after `litemesh trust-lan 10m` on an admin.
    #[error(
        "nobody on the local network lets this node in without a code ({said}): on an admin's server say \
         `litemesh trust-lan 10m`, or make a code there with `litemesh invite`"
    )]
    NobodyOnLan {
        /// What the last one said.
        said: String,
    },
    /// The answer does not prove the cluster of the code. Ask for another code.
    #[error("the inviting node's answer does not fit the join code: ask for a new code")]
    WrongAnswer,
    /// Encryption cannot be set up.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// How a joiner proves that it may come in.
pub(super) enum Ticket<'t> {
    Code(&'t InviteCode),
    /// Not at all: the local network is trusted for a while. The name of the cluster that is meant; empty: any.
    Lan(&'t str),
}

/// Redeems a join code with this node's key.
pub async fn join(code: &InviteCode, key_seed: [u8; 32], name: &str) -> Result<Joined, JoinError> {
    let own = node_id(&key_seed);
    if own == code.inviter {
        return Err(JoinError::OwnCode);
    }
    let mut reason = String::from("no address");
    for attempt in 0..TRIES {
        if attempt > 0 {
            tokio::time::sleep(PAUSE_BETWEEN_TRIES).await;
        }
        let mut muxer = match connect(code.inviter, &code.addresses, &key_seed).await? {
            Ok(muxer) => muxer,
            Err(words) => {
                reason = words;
                continue;
            }
        };
        match ask((Ticket::Code(code), code.inviter), own, name, &mut muxer).await {
            Ok(welcome) if welcome.refusal == 0 => {
                let from = (code.inviter, code.addresses.clone());
                let joined = check(Some(code.cluster), from, own, welcome).ok_or(JoinError::WrongAnswer);
                end(muxer).await;
                return joined;
            }
            Ok(welcome) => match Refusal::from_code(welcome.refusal, welcome.tries_left) {
                Refusal::Busy => reason = Refusal::Busy.to_string(),
                refusal => return Err(refusal.into()),
            },
            Err(error) => reason = error.to_string(),
        }
    }
    Err(JoinError::Unreachable { addresses: code.addresses.join(", "), reason })
}

/// Ends a connection in order; the other side may be gone.
pub(super) async fn end(muxer: StreamMuxerBox) {
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, muxer.close()).await;
}

/// The first address that answers with the inviter's key.
async fn connect(
    inviter: NodeId,
    addresses: &[String],
    key_seed: &[u8; 32],
) -> Result<Result<StreamMuxerBox, String>, TransportError> {
    let Some(inviter) = peer_of(&inviter) else { return Ok(Err("the inviter's key is no key".into())) };
    let mut dials = Vec::new();
    for address in addresses {
        let Ok((_, address)) = parse_address(address) else { continue };
        // The key is part of the address, so whoever else listens there is not even spoken to. Every dial has a
        // transport of its own: they race, and the losers' sockets go with them.
        dials.push(Box::pin(dial(open_transport(&keypair(key_seed))?, with_peer(address, inviter))));
    }
    if dials.is_empty() {
        return Ok(Err("the code names no usable address".into()));
    }
    match within(CONNECT_TIMEOUT, select_ok(dials)).await {
        Ok(Ok(((peer, muxer), _))) if peer == inviter => Ok(Ok(muxer)),
        Ok(Ok(_)) => Ok(Err("another node answers there".into())),
        Ok(Err(words)) => Ok(Err(words)),
        Err(_) => Ok(Err("no answer".into())),
    }
}

pub(super) async fn dial(mut transport: Boxed<Connection>, address: libp2p::Multiaddr) -> Result<Connection, String> {
    let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    let dial = transport.dial(address, options).map_err(|error| error.to_string())?;
    dial.await.map_err(|error| error.to_string())
}

/// Opening, reply, proof, welcome.
pub(super) async fn ask(
    (ticket, inviter): (Ticket<'_>, NodeId),
    own: NodeId,
    name: &str,
    muxer: &mut StreamMuxerBox,
) -> Result<proto::GateWelcome, GateError> {
    let mut stream = within(CONNECT_TIMEOUT, open_stream(muxer)).await??;
    let steps = async {
        let nonce = random()?;
        let opening = proto::GateOpening {
            version: PROTOCOL_VERSION_MIN,
            nonce: nonce.to_vec(),
            tag: Vec::new(),
            knows_you: false,
        };
        send(&mut stream, &opening).await?;
        let reply: proto::GateReply = receive_up_to(&mut stream, 256, 8).await?;
        let nonces = [nonce, fixed(&reply.nonce, "nonce")?];
        let name = shortened(name);
        let join = match ticket {
            Ticket::Code(code) => {
                let proof = proof(&code.secret, &code.cluster, &own, &inviter, &nonces).as_bytes().to_vec();
                proto::GateJoin { invite: invite_id(&code.secret).to_vec(), proof, name, cluster_name: String::new() }
            }
            Ticket::Lan(cluster) => {
                proto::GateJoin { name, cluster_name: cluster.to_string(), ..proto::GateJoin::default() }
            }
        };
        send(&mut stream, &join).await?;
        let welcome: proto::GateWelcome =
            receive_up_to(&mut stream, GATE_WELCOME_BYTES_MAX, WELCOME_FIELDS_MAX).await?;
        send(&mut stream, &proto::GateAccepted { accepted: true }).await?;
        close(stream).await;
        Ok::<_, GateError>(welcome)
    };
    within(ANSWER_TIMEOUT, drive(muxer, steps)).await??
}

/// Only a chain of signatures from the founder whose record hashes to the code's cluster makes this node a member.
/// Without a code the founder's record that comes defines the cluster: that is what trusting the local network means.
pub(super) fn check(
    cluster: Option<ClusterId>,
    (inviter, addresses): (NodeId, Vec<String>),
    own: NodeId,
    welcome: proto::GateWelcome,
) -> Option<Joined> {
    let records = all_from_proto(welcome.records).ok().filter(|records| !records.is_empty())?;
    let founds = |record: &&MemberRecord| match cluster {
        Some(cluster) => cluster_id(record) == cluster,
        None => record.kind == RecordKind::Found,
    };
    let founder = records.iter().find(founds)?.clone();
    let mut membership = Membership::new(founder.clone()).ok()?;
    if !membership.add_all(records).1.is_empty() || !membership.may_connect(&own) {
        return None;
    }
    let records: Vec<MemberRecord> = membership.records().into_iter().cloned().collect();
    let lets_in = |record: &&MemberRecord| record.kind == RecordKind::Admit && record.member.node == own;
    let own = records.iter().find(lets_in)?.clone();
    membership.may_connect(&inviter).then_some(Joined { founder, own, records, inviter, addresses })
}
