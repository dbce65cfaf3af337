//! A newcomer's request, carried to a member by hand where no network joins the two.
//!
//! Invariant: signed with the very key that asks to be admitted, so nobody can ask in another's name; it holds no secret.
//! Callers: daemon (join, admit), node (admit).

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use prost::Message as _;

use super::limits::{NAME_BYTES_MAX, REQUEST_TEXT_BYTES_MAX};
use super::member::fixed;
use super::proto;
use crate::model::NodeId;

/// What every request begins with.
const PREFIX: &str = "litemesh-request1:";

/// Who asks to be admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionRequest {
    /// The newcomer's key.
    pub node: NodeId,
    /// The name it wants.
    pub name: String,
    /// When it asked, ms since 1970 by its clock.
    pub created_ms: u64,
}

/// Why a text is no request. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Something else.
    #[error("this is no request to be admitted: on the new server make one with `litemesh join --request FILE`")]
    NotARequest,
    /// Cut, changed, or signed by somebody else.
    #[error("the request is damaged: on the new server make it again with `litemesh join --request FILE`")]
    Damaged,
}

impl AdmissionRequest {
    /// One line of text, signed.
    pub fn to_text(&self, key_seed: &[u8; 32]) -> String {
        let signature = SigningKey::from_bytes(key_seed).sign(&self.signed_bytes()).to_bytes().to_vec();
        let message = proto::AdmissionRequest {
            node: self.node.0.to_vec(),
            name: self.name.clone(),
            created_ms: self.created_ms,
            signature,
        };
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&message.encode_to_vec()))
    }

    /// Reads a request, white space around it ignored.
    pub fn from_text(text: &str) -> Result<AdmissionRequest, RequestError> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(RequestError::NotARequest)?;
        if body.len() > REQUEST_TEXT_BYTES_MAX {
            return Err(RequestError::Damaged);
        }
        let bytes = BASE64URL_NOPAD.decode(body.as_bytes()).map_err(|_| RequestError::Damaged)?;
        let message = proto::AdmissionRequest::decode(bytes.as_slice()).map_err(|_| RequestError::Damaged)?;
        let node = NodeId(fixed(&message.node, "key").map_err(|_| RequestError::Damaged)?);
        let request = AdmissionRequest { node, name: message.name, created_ms: message.created_ms };
        let signature: [u8; 64] = fixed(&message.signature, "signature").map_err(|_| RequestError::Damaged)?;
        let signed = VerifyingKey::from_bytes(&node.0)
            .is_ok_and(|key| key.verify_strict(&request.signed_bytes(), &Signature::from_bytes(&signature)).is_ok());
        if signed && request.name.len() <= NAME_BYTES_MAX { Ok(request) } else { Err(RequestError::Damaged) }
    }

    /// What two people compare by voice: six groups of four digits, of the key alone.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.node)
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let mut out = b"litemesh 1 admission request\0".to_vec();
        out.extend_from_slice(&self.node.0);
        out.extend_from_slice(&self.created_ms.to_be_bytes());
        out.extend_from_slice(self.name.as_bytes());
        out
    }
}

/// A key as two people compare it.
pub fn fingerprint(node: &NodeId) -> String {
    let hex = node.to_string();
    let groups: Vec<&str> = (0..6).map(|at| &hex[at * 4..at * 4 + 4]).collect();
    groups.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_its_askers_own() {
        let seed = [7; 32];
        let node = NodeId(SigningKey::from_bytes(&seed).verifying_key().to_bytes());
        let request = AdmissionRequest { node, name: "pit".into(), created_ms: 9 };
        let text = request.to_text(&seed);
        assert_eq!(AdmissionRequest::from_text(&format!("\n {text} \r\n")), Ok(request.clone()));
        assert_eq!(AdmissionRequest::from_text("hello"), Err(RequestError::NotARequest));
        // Signed by another key: nobody asks in another's name.
        assert_eq!(AdmissionRequest::from_text(&request.to_text(&[8; 32])), Err(RequestError::Damaged));
        for position in PREFIX.len()..text.len() {
            let mut typo = text.clone().into_bytes();
            typo[position] = if typo[position] == b'A' { b'B' } else { b'A' };
            let read = AdmissionRequest::from_text(&String::from_utf8(typo).unwrap());
            assert_eq!(read, Err(RequestError::Damaged), "at {position}");
        }
    }
}
