//! Join codes as one line of text, and a node's invites as bytes.
//!
//! Invariant: a join code carries a checksum, so a typing error is told from a refusal. A code with an unknown prefix is
//! of another version. Callers: node::invite, cli, net (join).

use data_encoding::BASE64URL_NOPAD;
use prost::Message as _;

use super::limits::*;
use super::member::{fixed, role_number, role_of};
use super::message::{MessageError, check_field_count};
use super::proto;
use crate::model::{ClusterId, NodeId, Role};

const PREFIX: &str = "litemesh1:";

/// What `invite` prints and `join` takes: where to knock and what to prove.
#[derive(Clone, PartialEq, Eq)]
pub struct InviteCode {
    /// The cluster to join.
    pub cluster: ClusterId,
    /// The member that made the invite and redeems it.
    pub inviter: NodeId,
    /// Multiaddrs of the inviter.
    pub addresses: Vec<String>,
    /// Proof of having been invited.
    pub secret: [u8; 16],
    /// Until when, ms since 1970 by the inviter's clock.
    pub expires_ms: u64,
}

/// Why a text is no join code. Nothing was asked of anybody; ask the person for the code again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Another text, or a code of another version.
    #[error("this is not a join code: it must begin with \"{PREFIX}\" and be one line")]
    NotACode,
    /// The checksum is wrong: a typing error or a part is missing.
    #[error("this join code is incomplete or mistyped: copy the whole line again")]
    Mistyped,
    /// The checksum is right and the content is not.
    #[error("this join code is not valid: {0}")]
    Invalid(#[from] MessageError),
}

/// One invite as a node keeps it.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredInvite {
    /// The secret of the code.
    pub secret: [u8; 16],
    /// Until when, ms since 1970.
    pub expires_ms: u64,
    /// Wrong proofs left until it is void.
    pub tries_left: u32,
    /// Who redeemed it.
    pub used_by: Option<NodeId>,
    /// What who redeems it may do.
    pub role: Role,
}

impl InviteCode {
    /// One line of text.
    pub fn to_text(&self) -> String {
        let mut bytes = proto::InviteCode {
            cluster: self.cluster.0.to_vec(),
            inviter: self.inviter.0.to_vec(),
            addresses: self.addresses.iter().take(INVITE_ADDRESSES_MAX).cloned().collect(),
            secret: self.secret.to_vec(),
            expires_ms: self.expires_ms,
        }
        .encode_to_vec();
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }

    /// The inverse of [`InviteCode::to_text`]; blanks around and inside (line breaks of a mail) do not matter.
    pub fn from_text(text: &str) -> Result<InviteCode, CodeError> {
        if text.len() > INVITE_TEXT_BYTES_MAX {
            return Err(CodeError::NotACode);
        }
        let text: String = text.chars().filter(|character| !character.is_whitespace()).collect();
        let encoded = text.strip_prefix(PREFIX).ok_or(CodeError::NotACode)?;
        let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| CodeError::Mistyped)?;
        let (content, sum) = bytes.split_last_chunk::<4>().ok_or(CodeError::Mistyped)?;
        if checksum(content) != *sum {
            return Err(CodeError::Mistyped);
        }
        Ok(InviteCode::from_content(content)?)
    }

    fn from_content(content: &[u8]) -> Result<InviteCode, MessageError> {
        check_field_count(content, INVITE_ADDRESSES_MAX + 4)?;
        let code = proto::InviteCode::decode(content).map_err(|_| MessageError::Malformed("join code"))?;
        if code.addresses.iter().any(|address| address.len() > ADDRESS_BYTES_MAX) {
            return Err(MessageError::TooLarge("address"));
        }
        Ok(InviteCode {
            cluster: ClusterId(fixed(&code.cluster, "cluster")?),
            inviter: NodeId(fixed(&code.inviter, "key of the inviter")?),
            addresses: code.addresses,
            secret: fixed(&code.secret, "secret")?,
            expires_ms: code.expires_ms,
        })
    }
}

/// All invites of a node, for its disk.
pub fn encode_invites(invites: &[StoredInvite]) -> Vec<u8> {
    let invite = |invite: &StoredInvite| proto::Invite {
        secret: invite.secret.to_vec(),
        expires_ms: invite.expires_ms,
        tries_left: invite.tries_left,
        used_by: invite.used_by.map(|node| node.0.to_vec()).unwrap_or_default(),
        role: role_number(invite.role),
    };
    proto::Invites { invites: invites.iter().map(invite).collect() }.encode_to_vec()
}

/// The inverse of [`encode_invites`].
pub fn decode_invites(bytes: &[u8]) -> Result<Vec<StoredInvite>, MessageError> {
    let stored = proto::Invites::decode(bytes).map_err(|_| MessageError::Malformed("invites"))?;
    let invite = |invite: proto::Invite| {
        let used_by = match invite.used_by.is_empty() {
            true => None,
            false => Some(NodeId(fixed(&invite.used_by, "key of a joiner")?)),
        };
        let secret = fixed(&invite.secret, "secret")?;
        let (expires_ms, tries_left, role) = (invite.expires_ms, invite.tries_left, role_of(invite.role)?);
        Ok(StoredInvite { secret, expires_ms, tries_left, used_by, role })
    };
    stored.invites.into_iter().map(invite).collect()
}

/// The secret stays out of logs.
impl std::fmt::Debug for InviteCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "InviteCode(cluster {:?}, inviter {:?})", self.cluster, self.inviter)
    }
}

/// The secret stays out of logs.
impl std::fmt::Debug for StoredInvite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StoredInvite(expires {}, tries {})", self.expires_ms, self.tries_left)
    }
}

fn checksum(content: &[u8]) -> [u8; 4] {
    let hash = blake3::derive_key("litemesh 1 join code checksum", content);
    [hash[0], hash[1], hash[2], hash[3]]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code() -> InviteCode {
        InviteCode {
            cluster: ClusterId([1; 32]),
            inviter: NodeId([2; 32]),
            addresses: vec!["/ip4/10.0.0.7/udp/4001/quic-v1".into(), "/ip4/10.0.0.7/tcp/4001".into()],
            secret: [3; 16],
            expires_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn a_code_is_one_line_and_survives_a_mail() {
        let text = code().to_text();
        assert!(!text.contains('\n') && text.len() < 320, "{} bytes", text.len());
        assert_eq!(InviteCode::from_text(&text), Ok(code()));
        let (head, tail) = text.split_at(100);
        assert_eq!(InviteCode::from_text(&format!("  {head}\r\n {tail}\n")), Ok(code()));
    }

    #[test]
    fn every_single_typing_error_is_noticed() {
        let text = code().to_text();
        for position in PREFIX.len()..text.len() {
            let mut typo = text.clone().into_bytes();
            typo[position] = if typo[position] == b'A' { b'B' } else { b'A' };
            let typo = String::from_utf8(typo).unwrap();
            assert_eq!(InviteCode::from_text(&typo), Err(CodeError::Mistyped), "at {position}");
        }
        assert_eq!(InviteCode::from_text(&text[..text.len() - 3]), Err(CodeError::Mistyped));
        assert_eq!(InviteCode::from_text("hello"), Err(CodeError::NotACode));
        assert_eq!(InviteCode::from_text(""), Err(CodeError::NotACode));
        assert_eq!(InviteCode::from_text("litemesh1:"), Err(CodeError::Mistyped));
    }

    #[test]
    fn invites_survive_the_disk() {
        let open = StoredInvite { secret: [1; 16], expires_ms: 9, tries_left: 5, used_by: None, role: Role::Admin };
        let used_by = Some(NodeId([7; 32]));
        let used = StoredInvite { secret: [2; 16], expires_ms: 8, tries_left: 0, used_by, role: Role::ReadOnly };
        let all = vec![open, used];
        assert_eq!(decode_invites(&encode_invites(&all)), Ok(all));
        assert_eq!(decode_invites(&[]), Ok(Vec::new()));
        assert!(decode_invites(&[255]).is_err());
    }
}
