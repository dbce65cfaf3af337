//! `litemesh join --lan`: looks for a node on the local network that admits without a code just now.
//!
//! Invariant: whoever welcomes first is believed, because a person opened the door for these minutes and another person
//! asked to be let in; where that is too little, there are codes. At most a fixed number of nodes is asked, each once.
//! Callers: daemon (join).

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use tokio::sync::mpsc;

use super::doorbell;
use super::join::{JoinError, Joined, Ticket, ask, check, dial, end};
use super::key::{keypair, node_of, parse_address, with_peer};
use super::transport::open_transport;
use crate::node::invite::Refusal;
use crate::node::membership::node_id;

/// How long others on the network are listened for.
const LOOK: Duration = Duration::from_secs(10);
const DIAL: Duration = Duration::from_secs(4);
/// Addresses tried; a venue has dozens of nodes with a few each.
const ASKED_MAX: usize = 64;

/// Joins whatever cluster of this name (empty: any) trusts the local network now. `addresses`: where to knock; empty: at
/// whoever answers the doorbell.
pub async fn join_lan(
    cluster: &str,
    addresses: &[String],
    key_seed: [u8; 32],
    name: &str,
) -> Result<Joined, JoinError> {
    let mut search = Search { cluster, key_seed, name, asked: BTreeSet::new(), said: Vec::new() };
    let mut known = Vec::new();
    for address in addresses {
        let (peer, address) =
            parse_address(address).map_err(|error| JoinError::NobodyOnLan { said: error.to_string() })?;
        known.push(peer.map_or(address.clone(), |peer| with_peer(address, peer)));
    }
    for address in &known {
        if let Some(joined) = search.knock(address).await? {
            return Ok(joined);
        }
    }
    if known.is_empty()
        && let Ok(found) = tokio::time::timeout(LOOK, search.look()).await
    {
        return found;
    }
    let said = match search.said.last() {
        Some(said) => said.clone(),
        None => "no litemesh node was found; name its address with --peer MULTIADDR".to_string(),
    };
    Err(JoinError::NobodyOnLan { said })
}

struct Search<'s> {
    cluster: &'s str,
    key_seed: [u8; 32],
    name: &'s str,
    asked: BTreeSet<Multiaddr>,
    /// Why each of them did not let this node in.
    said: Vec<String>,
}

impl Search<'_> {
    /// Knocks at everybody who answers the bell, until somebody opens.
    async fn look(&mut self) -> Result<Joined, JoinError> {
        let (found, mut answers) = mpsc::channel(16);
        let asking = tokio::spawn(doorbell::ask(found));
        while let Some(address) = answers.recv().await {
            if let Some(joined) = self.knock(&address).await? {
                asking.abort();
                return Ok(joined);
            }
        }
        let error = asking.await.map_err(io::Error::other).and_then(|asked| asked);
        let said = error.err().map_or_else(String::new, |error| format!("multicast does not work: {error}"));
        Err(JoinError::NobodyOnLan { said })
    }

    /// One address: `None` when nobody lets this node in there.
    async fn knock(&mut self, address: &Multiaddr) -> Result<Option<Joined>, JoinError> {
        if self.asked.len() >= ASKED_MAX || !self.asked.insert(address.clone()) {
            return Ok(None);
        }
        let transport = open_transport(&keypair(&self.key_seed))?;
        let dialed = tokio::time::timeout(DIAL, dial(transport, address.clone())).await;
        let (peer, mut muxer): (PeerId, _) = match dialed {
            Ok(Ok(connection)) => connection,
            Ok(Err(words)) => return self.no(address, words),
            Err(_) => return self.no(address, "no answer".to_string()),
        };
        let Some(inviter) = node_of(&peer) else { return self.no(address, "no litemesh node".to_string()) };
        let own = node_id(&self.key_seed);
        match ask((Ticket::Lan(self.cluster), inviter), own, self.name, &mut muxer).await {
            Ok(welcome) if welcome.refusal == 0 => {
                let from = (inviter, vec![with_peer(address.clone(), peer).to_string()]);
                let joined = check(None, from, own, welcome).ok_or(JoinError::WrongAnswer)?;
                end(muxer).await;
                Ok(Some(joined))
            }
            Ok(welcome) => self.no(address, Refusal::from_code(welcome.refusal, 0).to_string()),
            Err(error) => self.no(address, error.to_string()),
        }
    }

    fn no(&mut self, address: &Multiaddr, why: String) -> Result<Option<Joined>, JoinError> {
        tracing::debug!(%address, why, "not let in");
        self.said.push(format!("{address}: {why}"));
        Ok(None)
    }
}
