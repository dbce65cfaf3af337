//! Keys of bundles: who can open one, and who made it.
//!
//! A fresh key per file seals its parts (ChaCha20-Poly1305, the part's number as nonce, the header's hash and the part's kind
//! beside it). That key is locked for every member alone: X25519 between a key made for this file and the member's own
//! (its ed25519 key on the Montgomery curve; one key pair for both uses is sound for signatures and such a KEM, eprint
//! 2021/509), hashed with everything that identifies the file. The exporter signs all of it.
//! Invariant: no randomness is made here; the same dice never serve two files, because what is exported is hashed into
//! everything drawn from them. Callers: bundle_write, bundle_read.

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, KeyInit as _, Nonce};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::model::{ClusterId, NodeId};
use crate::wire::bundle::{BundleHeader, LOCK_BYTES, PartKind, seal_message};

/// Bytes in front of a lock by which its owner finds it.
const HINT_BYTES: usize = 8;

/// What one file's secrets are drawn from.
pub(super) struct Draw {
    seed: [u8; 32],
}

/// A file's key and what its parts are bound to.
pub(super) struct FileKey {
    cipher: ChaCha20Poly1305,
    header: [u8; 32],
}

impl Draw {
    /// From fresh random bytes; `content` is what the file will say, so that dice drawn twice do no harm.
    pub(super) fn new(dice: &[u8; 32], key_seed: &[u8; 32], content: &[u8]) -> Draw {
        let mut hasher = blake3::Hasher::new_derive_key("litemesh 1 bundle draw");
        hasher.update(dice);
        hasher.update(key_seed);
        hasher.update(content);
        Draw { seed: *hasher.finalize().as_bytes() }
    }

    /// Header and key of a file that these members can open.
    pub(super) fn lock(&self, cluster: &ClusterId, members: &[NodeId]) -> (BundleHeader, FileSecret) {
        let secret = FileSecret(blake3::derive_key("litemesh 1 bundle file key", &self.seed));
        let nonce = blake3::derive_key("litemesh 1 bundle nonce", &self.seed);
        let ephemeral = SigningKey::from_bytes(&blake3::derive_key("litemesh 1 bundle ephemeral", &self.seed));
        let public = ephemeral.verifying_key().to_bytes();
        let mut locks: Vec<[u8; LOCK_BYTES]> = Vec::with_capacity(members.len());
        for member in members {
            let Some(shared) = agree(&ephemeral, &member.0) else { continue };
            let (hint, key) = lock_keys(&shared, &public, member, &nonce);
            let sealed = key.encrypt(&Nonce::default(), secret.0.as_slice()).expect("32 bytes are few");
            let mut lock = [0; LOCK_BYTES];
            lock[..HINT_BYTES].copy_from_slice(&hint);
            lock[HINT_BYTES..].copy_from_slice(&sealed);
            locks.push(lock);
        }
        // In an order that says nothing of the members.
        locks.sort_unstable();
        (BundleHeader { nonce, tag: tag(cluster, &nonce), ephemeral: public, locks }, secret)
    }
}

/// The key of one file, not yet bound to its header.
pub(super) struct FileSecret([u8; 32]);

impl FileSecret {
    /// Binds the key to the header as it stands in the file.
    pub(super) fn bind(self, opening: &[u8]) -> FileKey {
        let cipher = ChaCha20Poly1305::new(Key::from_slice(&self.0));
        FileKey { cipher, header: *blake3::hash(opening).as_bytes() }
    }
}

/// Proves to who knows the cluster that a file is its own; to others it is noise.
pub(super) fn tag(cluster: &ClusterId, nonce: &[u8; 32]) -> [u8; 32] {
    let key = blake3::derive_key("litemesh 1 bundle tag", &cluster.0);
    *blake3::keyed_hash(&key, nonce).as_bytes()
}

/// The file's key, when one of the locks is this node's.
pub(super) fn unlock(header: &BundleHeader, key_seed: &[u8; 32]) -> Option<FileSecret> {
    let own = SigningKey::from_bytes(key_seed);
    let node = NodeId(own.verifying_key().to_bytes());
    let shared = agree(&own, &header.ephemeral)?;
    let (hint, key) = lock_keys(&shared, &header.ephemeral, &node, &header.nonce);
    let mine = header.locks.iter().filter(|lock| lock[..HINT_BYTES] == hint);
    let mut opened = mine.filter_map(|lock| key.decrypt(&Nonce::default(), &lock[HINT_BYTES..]).ok());
    opened.next()?.try_into().ok().map(FileSecret)
}

impl FileKey {
    /// Seals a part.
    pub(super) fn seal(&self, number: u64, kind: PartKind, plain: &[u8]) -> Vec<u8> {
        let beside = self.beside(kind);
        let payload = Payload { msg: plain, aad: &beside };
        self.cipher.encrypt(&nonce(number), payload).expect("a part is far shorter than the cipher's limit")
    }

    /// Opens a part; `None`: it is not what was sealed there.
    pub(super) fn open(&self, number: u64, kind: PartKind, sealed: &[u8]) -> Option<Vec<u8>> {
        let beside = self.beside(kind);
        self.cipher.decrypt(&nonce(number), Payload { msg: sealed, aad: &beside }).ok()
    }

    fn beside(&self, kind: PartKind) -> [u8; 33] {
        let mut beside = [kind.code(); 33];
        beside[..32].copy_from_slice(&self.header);
        beside
    }
}

/// The exporter's signature over everything before the seal.
pub(super) fn sign(key_seed: &[u8; 32], cluster: &ClusterId, hash: &[u8; 32], parts: u64) -> [u8; 64] {
    SigningKey::from_bytes(key_seed).sign(&seal_message(&cluster.0, hash, parts)).to_bytes()
}

/// Whether the exporter signed this.
pub(super) fn is_signed(
    exporter: &NodeId,
    cluster: &ClusterId,
    hash: &[u8; 32],
    (parts, signature): (u64, &[u8; 64]),
) -> bool {
    let message = seal_message(&cluster.0, hash, parts);
    VerifyingKey::from_bytes(&exporter.0)
        .is_ok_and(|key| key.verify_strict(&message, &Signature::from_bytes(signature)).is_ok())
}

/// X25519 between two ed25519 keys; `None` with a key that would give the secret away.
fn agree(own: &SigningKey, other: &[u8; 32]) -> Option<[u8; 32]> {
    let other = VerifyingKey::from_bytes(other).ok().filter(|key| !key.is_weak())?;
    Some(other.to_montgomery().mul_clamped(own.to_scalar_bytes()).to_bytes())
}

/// Hint and key of one member's lock.
fn lock_keys(
    shared: &[u8; 32],
    ephemeral: &[u8; 32],
    member: &NodeId,
    nonce: &[u8; 32],
) -> ([u8; HINT_BYTES], ChaCha20Poly1305) {
    let all = [shared.as_slice(), ephemeral, &member.0, nonce].concat();
    let mut hint = [0; HINT_BYTES];
    hint.copy_from_slice(&blake3::derive_key("litemesh 1 bundle lock hint", &all)[..HINT_BYTES]);
    (hint, ChaCha20Poly1305::new(Key::from_slice(&blake3::derive_key("litemesh 1 bundle lock", &all))))
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::from(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::membership::node_id;

    #[test]
    fn only_those_it_was_locked_for_open_it() {
        let cluster = ClusterId([9; 32]);
        let draw = Draw::new(&[1; 32], &[2; 32], b"content");
        let (header, secret) = draw.lock(&cluster, &[node_id(&[2; 32]), node_id(&[3; 32])]);
        let key = secret.bind(b"opening");
        let sealed = key.seal(4, PartKind::Events, b"rows");
        for seed in [[2; 32], [3; 32]] {
            let opened = unlock(&header, &seed).unwrap().bind(b"opening");
            assert_eq!(opened.open(4, PartKind::Events, &sealed).as_deref(), Some(b"rows".as_slice()));
            assert!(opened.open(5, PartKind::Events, &sealed).is_none(), "another place");
            assert!(opened.open(4, PartKind::Manifest, &sealed).is_none(), "another kind");
        }
        assert!(unlock(&header, &[4; 32]).is_none(), "a stranger");
        let other = unlock(&header, &[3; 32]).unwrap().bind(b"another header");
        assert!(other.open(4, PartKind::Events, &sealed).is_none());
        assert_eq!(header.tag, tag(&cluster, &header.nonce));
        assert_ne!(header.tag, tag(&ClusterId([8; 32]), &header.nonce));
        // The same dice for another content: nothing is used twice.
        let (again, _) = Draw::new(&[1; 32], &[2; 32], b"other").lock(&cluster, &[node_id(&[2; 32])]);
        assert_ne!((again.nonce, again.ephemeral), (header.nonce, header.ephemeral));
    }

    #[test]
    fn a_seal_is_of_one_exporter_one_cluster_one_content() {
        let (cluster, hash) = (ClusterId([9; 32]), [5; 32]);
        let signature = sign(&[2; 32], &cluster, &hash, 3);
        let node = node_id(&[2; 32]);
        assert!(is_signed(&node, &cluster, &hash, (3, &signature)));
        assert!(!is_signed(&node_id(&[3; 32]), &cluster, &hash, (3, &signature)));
        assert!(!is_signed(&node, &ClusterId([8; 32]), &hash, (3, &signature)));
        assert!(!is_signed(&node, &cluster, &[6; 32], (3, &signature)));
        assert!(!is_signed(&node, &cluster, &hash, (4, &signature)));
    }
}
