//! `litemesh key rotate`: another key takes this node's place in the cluster.
//!
//! Order, and what a crash behind each step leaves: 1. the new key is written as `identity.key.next`: nothing has changed,
//! the next start removes it; 2. the record signed by the old key is durable in the log: the next start finds it there and
//! goes on; 3. the new key is renamed over the old one: done. Invariant: never a data directory whose key is retired
//! without the key that replaced it. Called by cli and [`super::run`].

use serde::Serialize;

use super::enrol::open_without_files;
use super::machine::{clock_now, random};
use super::{DaemonError, DataDir};
use crate::config::Config;
use crate::log::Log;
use crate::node::Node;
use crate::node::membership::{Standing, node_id};

/// What a rotation did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rotated {
    /// The retired key in hex.
    pub old: String,
    /// The node's key from now on, in hex.
    pub node_id: String,
}

/// Gives this node another key. It must not run.
pub fn rotate_key(config: &Config) -> Result<Rotated, DaemonError> {
    let (data, _lock) = DataDir::lock_node(config)?;
    finish_rotation(&data)?;
    let old = node_id(&data.key_seed()?);
    let mut node = open_without_files(config, &data)?;
    let fresh = random()?;
    data.write_next_key(&fresh)?;
    node.rotate_key(node_id(&fresh), clock_now())?;
    node.close()?;
    data.take_next_key()?;
    Ok(Rotated { old: old.to_string(), node_id: node_id(&fresh).to_string() })
}

/// Ends a rotation that a crash cut off. The directory is locked.
pub(super) fn finish_rotation(data: &DataDir) -> Result<(), DaemonError> {
    let Some(next) = data.next_key()? else { return Ok(()) };
    let log = Log::open(&data.log_path())?;
    let membership = Node::membership_of(&log)?;
    let old = node_id(&data.key_seed()?);
    let standing = membership.as_ref().and_then(|membership| membership.standing(&old));
    match standing == Some(Standing::Retired { by: node_id(&next) }) {
        true => data.take_next_key(),
        false => data.drop_next_key(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon;

    fn founded() -> (tempfile::TempDir, Config, DataDir) {
        let directory = tempfile::tempdir().unwrap();
        let flags = crate::config::Flags { data: Some(directory.path().join("data")), ..Default::default() };
        let config = crate::config::load(&flags, &|_| None, directory.path()).unwrap();
        daemon::init(&config, None).unwrap();
        let data = DataDir::at(&config.data_dir);
        (directory, config, data)
    }

    #[test]
    fn the_new_key_has_the_place_of_the_old_one() {
        let (_directory, config, data) = founded();
        let before = data.key_seed().unwrap();
        let rotated = rotate_key(&config).unwrap();
        let after = data.key_seed().unwrap();
        assert_ne!(before, after);
        assert_eq!(rotated.node_id, node_id(&after).to_string());
        let membership = Node::membership_of(&Log::open(&data.log_path()).unwrap()).unwrap().unwrap();
        assert_eq!(membership.member(&node_id(&after)).unwrap().rank, 0);
        assert!(membership.may_connect(&node_id(&after)) && !membership.may_connect(&node_id(&before)));
        assert_eq!(rotate_key(&config).unwrap().old, node_id(&after).to_string());
    }

    #[test]
    fn a_rotation_that_was_cut_off_ends_with_a_key_that_has_a_place() {
        // Before the record: the new key is dropped.
        let (_directory, config, data) = founded();
        let old = data.key_seed().unwrap();
        data.write_next_key(&[9; 32]).unwrap();
        finish_rotation(&data).unwrap();
        assert_eq!((data.key_seed().unwrap(), data.next_key().unwrap()), (old, None));
        // Behind it: the new key is taken.
        data.write_next_key(&[9; 32]).unwrap();
        let mut node = open_without_files(&config, &data).unwrap();
        node.rotate_key(node_id(&[9; 32]), clock_now()).unwrap();
        node.close().unwrap();
        finish_rotation(&data).unwrap();
        assert_eq!((data.key_seed().unwrap(), data.next_key().unwrap()), ([9; 32], None));
        // The next rotation ends it first, and names the key that it really replaces.
        data.write_next_key(&[10; 32]).unwrap();
        let mut node = open_without_files(&config, &data).unwrap();
        node.rotate_key(node_id(&[10; 32]), clock_now()).unwrap();
        node.close().unwrap();
        assert_eq!(rotate_key(&config).unwrap().old, node_id(&[10; 32]).to_string());
    }
}
