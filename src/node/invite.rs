//! Invites: one-time secrets that admit a node, without any state but a short list.
//!
//! Invariant: a secret admits one key only. It is burnt, durably, before the answer leaves: the caller writes
//! [`Invites::to_bytes`] to its disk after every [`redeem`], whatever the result, and answers only then. A joiner whose
//! answer was lost may ask again with the same key. Five wrong proofs void an invite.
//! Callers: node (invite, redeem), net (proofs at the gate).

use crate::model::{ClusterId, MemberRecord, NodeId, Role};
use crate::wire::invite::{InviteCode, StoredInvite, decode_invites, encode_invites};
use crate::wire::limits::{INVITE_TRIES_MAX, INVITES_MAX, NAME_BYTES_MAX};
use crate::wire::message::MessageError;

use super::membership::{Membership, Standing, admit_as, node_id};

/// How long an invite that is expired or used stays listed, so that the reason can be told.
const KEEP_CLOSED_MS: u64 = 7 * 24 * 3_600_000;

/// The invites of this node, open and used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invites {
    list: Vec<StoredInvite>,
}

/// What a joiner proves, as the gate received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// Which invite.
    pub invite: [u8; 8],
    /// See [`proof`].
    pub proof: [u8; 32],
    /// The joiner's key, proven by the encrypted channel.
    pub joiner: NodeId,
    /// Name for people that the joiner wants.
    pub name: String,
    /// The joiner's and the inviter's nonce of this handshake.
    pub nonces: [[u8; 32]; 2],
    /// Set: it brings no code, and asks whether the local network is trusted just now. Then `invite` and `proof` say nothing.
    pub lan: Option<LanKnock>,
}

/// A joiner without a code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanKnock {
    /// Its address, as the network sees it. Only addresses of the local network get this far.
    pub from: String,
    /// The cluster it means; empty: any.
    pub cluster_name: String,
}

/// Why a join is refused. Only [`Refusal::Busy`] is worth a retry with the same code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such invite here: made by another member, or long closed. Nothing changed.
    #[error("this node has no such invite: ask for a new code")]
    Unknown,
    /// Its time is over. Nothing changed.
    #[error("the invite has expired: ask for a new code")]
    Expired,
    /// Another node has used it. Nothing changed.
    #[error("the invite has been used by another node: ask for a new code")]
    Used,
    /// Too many wrong proofs. It stays void.
    #[error("the invite is void after too many wrong tries: ask for a new code")]
    Void,
    /// The proof is wrong; one try is gone.
    #[error("the proof of the invite is wrong ({0} tries left)")]
    WrongProof(u32),
    /// The cluster has as many members as it can have, or the inviter is no admin (any more). Nothing changed.
    #[error("the inviting node cannot admit anybody: it is no admin (any more), or the cluster is full")]
    CannotAdmit,
    /// The node is stopping or overloaded. Nothing changed: try again.
    #[error("the inviting node is busy: try again")]
    Busy,
    /// It admits nobody without a code now. Nothing changed.
    #[error("the node there admits nobody without a code now: on it, `litemesh trust-lan 10m` opens it for a while")]
    NotTrusting,
    /// It is of another cluster than the one that was named. Nothing changed.
    #[error("the node there belongs to a cluster of another name")]
    OtherName,
}

impl Refusal {
    /// Number on the wire; 0 is a welcome.
    pub fn code(&self) -> u32 {
        match self {
            Refusal::Unknown => 1,
            Refusal::Expired => 2,
            Refusal::Used => 3,
            Refusal::Void => 4,
            Refusal::WrongProof(_) => 5,
            Refusal::CannotAdmit => 6,
            Refusal::Busy => 7,
            Refusal::NotTrusting => 8,
            Refusal::OtherName => 9,
        }
    }

    /// The inverse of [`Refusal::code`]; an unknown number counts as "cannot admit".
    pub fn from_code(code: u32, tries_left: u32) -> Refusal {
        match code {
            1 => Refusal::Unknown,
            2 => Refusal::Expired,
            3 => Refusal::Used,
            4 => Refusal::Void,
            5 => Refusal::WrongProof(tries_left),
            7 => Refusal::Busy,
            8 => Refusal::NotTrusting,
            9 => Refusal::OtherName,
            _ => Refusal::CannotAdmit,
        }
    }
}

/// Why no invite is made. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// Too many open invites. They close with use or time.
    #[error("there are {INVITES_MAX} open invites already: let some expire or be used first")]
    TooMany,
    /// A read-only server lets in nobody, and only an admin lets in admins.
    #[error(
        "this node is no admin of the cluster, so it cannot let that in: make the code on an admin, or let one say `litemesh peers role NAME admin`"
    )]
    NoAdmin,
}

impl Invites {
    /// The list as it was written by [`Invites::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Invites, MessageError> {
        Ok(Invites { list: decode_invites(bytes)? })
    }

    /// The list, for the disk.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode_invites(&self.list)
    }

    /// Number of invites that can still be redeemed.
    pub fn open(&self, now_ms: u64) -> usize {
        self.list.iter().filter(|invite| invite.is_open(now_ms)).count()
    }

    /// Makes an invite from 16 random bytes, for an ordinary member. The caller stores the list before it shows the code.
    pub fn create(
        &mut self,
        key_seed: &[u8; 32],
        membership: &Membership,
        secret: [u8; 16],
        addresses: Vec<String>,
        times: (u64, u64),
    ) -> Result<InviteCode, InviteError> {
        self.create_for(key_seed, membership, (secret, Role::Member), addresses, times)
    }

    /// The same for a role.
    pub fn create_for(
        &mut self,
        key_seed: &[u8; 32],
        membership: &Membership,
        (secret, role): ([u8; 16], Role),
        addresses: Vec<String>,
        (now_ms, lifetime_ms): (u64, u64),
    ) -> Result<InviteCode, InviteError> {
        if !membership.may_admit_as(&node_id(key_seed), role) {
            return Err(InviteError::NoAdmin);
        }
        self.list.retain(|invite| invite.expires_ms.saturating_add(KEEP_CLOSED_MS) > now_ms);
        if self.list.len() >= INVITES_MAX {
            // The closed ones are kept for their explanation only.
            self.list.retain(|invite| invite.is_open(now_ms));
        }
        if self.list.len() >= INVITES_MAX {
            return Err(InviteError::TooMany);
        }
        let expires_ms = now_ms.saturating_add(lifetime_ms);
        self.list.push(StoredInvite { secret, expires_ms, tries_left: INVITE_TRIES_MAX, used_by: None, role });
        let (cluster, inviter) = (membership.cluster(), node_id(key_seed));
        Ok(InviteCode { cluster, inviter, addresses, secret, expires_ms })
    }
}

impl StoredInvite {
    fn is_open(&self, now_ms: u64) -> bool {
        self.used_by.is_none() && self.tries_left > 0 && now_ms < self.expires_ms
    }
}

/// Names an invite without giving its secret away.
pub fn invite_id(secret: &[u8; 16]) -> [u8; 8] {
    let hash = blake3::derive_key("litemesh 1 invite id", secret);
    let mut id = [0; 8];
    id.copy_from_slice(&hash[..8]);
    id
}

/// What only a holder of the secret can compute, for one handshake between two keys: worth nothing to anybody else.
pub fn proof(
    secret: &[u8; 16],
    cluster: &ClusterId,
    joiner: &NodeId,
    inviter: &NodeId,
    nonces: &[[u8; 32]; 2],
) -> blake3::Hash {
    let key = blake3::derive_key("litemesh 1 invite proof", secret);
    let mut hasher = blake3::Hasher::new_keyed(&key);
    hasher.update(&invite_id(secret));
    for part in [&cluster.0, &joiner.0, &inviter.0, &nonces[0], &nonces[1]] {
        hasher.update(part);
    }
    hasher.finalize()
}

/// Redeems an invite: the joiner's record, signed. The caller stores `invites` (and the record) before it answers.
pub fn redeem(
    invites: &mut Invites,
    membership: &Membership,
    key_seed: &[u8; 32],
    request: &JoinRequest,
    now_ms: u64,
) -> Result<MemberRecord, Refusal> {
    let inviter = node_id(key_seed);
    let known = |invite: &&mut StoredInvite| invite_id(&invite.secret) == request.invite;
    let invite = invites.list.iter_mut().find(known).ok_or(Refusal::Unknown)?;
    if invite.tries_left == 0 {
        return Err(Refusal::Void);
    }
    let expected = proof(&invite.secret, &membership.cluster(), &request.joiner, &inviter, &request.nonces);
    // The comparison of two blake3 hashes takes the same time wherever they differ.
    if expected != blake3::Hash::from_bytes(request.proof) {
        invite.tries_left -= 1;
        return Err(if invite.tries_left == 0 { Refusal::Void } else { Refusal::WrongProof(invite.tries_left) });
    }
    if invite.used_by.is_some_and(|user| user != request.joiner) {
        return Err(Refusal::Used);
    }
    if now_ms >= invite.expires_ms {
        return Err(Refusal::Expired);
    }
    let role = invite.role;
    may_admit(membership, (&inviter, role), request)?;
    if let Some(invite) = invites.list.iter_mut().find(known) {
        invite.used_by = Some(request.joiner);
    }
    Ok(admit_as(key_seed, membership, (request.joiner, &request.name), role, now_ms))
}

/// Admits a joiner without a code, where the local network is trusted: the caller knows that it is.
pub fn admit_lan(
    membership: &Membership,
    key_seed: &[u8; 32],
    (request, knock): (&JoinRequest, &LanKnock),
    now_ms: u64,
) -> Result<MemberRecord, Refusal> {
    if !knock.cluster_name.is_empty() && knock.cluster_name != membership.cluster_name() {
        return Err(Refusal::OtherName);
    }
    may_admit(membership, (&node_id(key_seed), Role::Admin), request)?;
    Ok(admit_as(key_seed, membership, (request.joiner, &request.name), Role::Member, now_ms))
}

/// Who was shut out does not come back by a code: an admin lets it in again by name.
fn may_admit(membership: &Membership, (inviter, role): (&NodeId, Role), request: &JoinRequest) -> Result<(), Refusal> {
    let room = match membership.standing(&request.joiner) {
        Some(standing) => matches!(standing, Standing::Active | Standing::Void),
        None => membership.has_room(),
    };
    match room && membership.may_admit_as(inviter, role) && request.name.len() <= NAME_BYTES_MAX {
        true => Ok(()),
        false => Err(Refusal::CannotAdmit),
    }
}

#[cfg(test)]
mod tests {
    use super::super::membership::found_cluster;
    use super::*;

    const INVITER: [u8; 32] = [1; 32];
    const JOINER: [u8; 32] = [2; 32];
    const HOUR_MS: u64 = 3_600_000;

    struct Scene {
        membership: Membership,
        invites: Invites,
        code: InviteCode,
    }

    fn scene() -> Scene {
        let membership = Membership::new(found_cluster(&INVITER, "one", "venue", 1)).unwrap();
        let mut invites = Invites::default();
        let code = invites.create(&INVITER, &membership, [7; 16], vec!["/x".into()], (1000, HOUR_MS)).unwrap();
        Scene { membership, invites, code }
    }

    impl Scene {
        fn request(&self, joiner: &[u8; 32], secret: [u8; 16]) -> JoinRequest {
            let (joiner, nonces) = (node_id(joiner), [[3; 32], [4; 32]]);
            let proof = proof(&secret, &self.code.cluster, &joiner, &self.code.inviter, &nonces);
            let invite = invite_id(&self.code.secret);
            JoinRequest { invite, proof: *proof.as_bytes(), joiner, name: "two".into(), nonces, lan: None }
        }

        /// As a node does: the list goes over the disk after every try.
        fn redeem(&mut self, request: &JoinRequest, now_ms: u64) -> Result<MemberRecord, Refusal> {
            let result = redeem(&mut self.invites, &self.membership, &INVITER, request, now_ms);
            self.invites = Invites::from_bytes(&self.invites.to_bytes()).unwrap();
            result
        }
    }

    #[test]
    fn a_good_proof_admits_once_and_the_same_key_again() {
        let mut scene = scene();
        let request = scene.request(&JOINER, [7; 16]);
        let record = scene.redeem(&request, 2000).unwrap();
        assert_eq!((record.member.rank, record.member.slot), (1, 2));
        assert_eq!(scene.membership.add(record.clone()), Ok(true));
        assert_eq!(scene.invites.open(2000), 0);
        assert_eq!(scene.redeem(&request, 3000), Ok(record));
        let other = scene.request(&[9; 32], [7; 16]);
        assert_eq!(scene.redeem(&other, 3000), Err(Refusal::Used));
    }

    #[test]
    fn five_wrong_proofs_void_the_invite() {
        let mut scene = scene();
        let wrong = scene.request(&JOINER, [8; 16]);
        for left in (1..5).rev() {
            assert_eq!(scene.redeem(&wrong, 2000), Err(Refusal::WrongProof(left)));
        }
        assert_eq!(scene.redeem(&wrong, 2000), Err(Refusal::Void));
        let right = scene.request(&JOINER, [7; 16]);
        assert_eq!(scene.redeem(&right, 2000), Err(Refusal::Void));
    }

    #[test]
    fn time_and_strangers_are_told_apart() {
        let mut scene = scene();
        let mut request = scene.request(&JOINER, [7; 16]);
        assert_eq!(scene.redeem(&request, 1000 + HOUR_MS), Err(Refusal::Expired));
        request.invite = [0; 8];
        assert_eq!(scene.redeem(&request, 2000), Err(Refusal::Unknown));
    }

    #[test]
    fn a_proof_is_bound_to_its_handshake_and_its_key() {
        let mut scene = scene();
        let good = scene.request(&JOINER, [7; 16]);
        let mut replayed = good.clone();
        replayed.nonces[1] = [5; 32];
        assert_eq!(scene.redeem(&replayed, 2000), Err(Refusal::WrongProof(4)));
        let mut stolen = good.clone();
        stolen.joiner = node_id(&[6; 32]);
        assert_eq!(scene.redeem(&stolen, 2000), Err(Refusal::WrongProof(3)));
        assert!(scene.redeem(&good, 2000).is_ok());
    }

    #[test]
    fn the_list_is_bounded_and_closed_invites_make_room() {
        let mut scene = scene();
        for number in 1..INVITES_MAX as u8 {
            scene.invites.create(&INVITER, &scene.membership, [100 + number; 16], vec![], (1000, HOUR_MS)).unwrap();
        }
        let more = scene.invites.create(&INVITER, &scene.membership, [99; 16], vec![], (1000, HOUR_MS));
        assert_eq!(more.unwrap_err(), InviteError::TooMany);
        let request = scene.request(&JOINER, [7; 16]);
        scene.redeem(&request, 2000).unwrap();
        assert!(scene.invites.create(&INVITER, &scene.membership, [99; 16], vec![], (2000, HOUR_MS)).is_ok());
    }

    #[test]
    fn refusals_survive_the_wire() {
        use Refusal::*;
        for refusal in [Unknown, Expired, Used, Void, WrongProof(3), CannotAdmit, Busy, NotTrusting, OtherName] {
            assert_eq!(Refusal::from_code(refusal.code(), 3), refusal);
        }
    }
}
