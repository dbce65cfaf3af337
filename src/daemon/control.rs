//! The network as the API sees it: commands to the running loop of `net`.
//!
//! Invariant: a network that does not answer costs the API a second, never more. Called by run.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::http::{Answer, NetworkControl};
use crate::net::{Diagnosis, NetCommand, parse_address};

/// How long the network may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) commands: mpsc::Sender<NetCommand>,
    /// What it said when it was ready.
    pub(super) listening: Vec<String>,
}

impl Control {
    async fn diagnose(&self) -> Option<Diagnosis> {
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(NetCommand::Diagnose(reply)).ok()?;
        tokio::time::timeout(ANSWER_WITHIN, answer).await.ok()?.ok()
    }
}

impl NetworkControl for Control {
    fn add_peer(&self, address: String) -> Answer<'_, Result<(), String>> {
        Box::pin(async move {
            parse_address(&address).map_err(|error| error.to_string())?;
            let busy = |_| "the network is busy: ask again in a second".to_string();
            self.commands.try_send(NetCommand::AddPeer(address)).map_err(busy)
        })
    }

    fn addresses(&self) -> Answer<'_, Vec<String>> {
        Box::pin(async {
            let now = self.diagnose().await.map(|diagnosis| diagnosis.listening).unwrap_or_default();
            let mut addresses = if now.is_empty() { self.listening.clone() } else { now };
            // Addresses of this machine alone help nobody else: they go last. Link-local IPv6 means nothing elsewhere.
            addresses.retain(|address| !address.starts_with("/ip6/fe80:"));
            let is_own = |address: &String| address.starts_with("/ip4/127.") || address.starts_with("/ip6/::1/");
            addresses.sort_by_key(|address| (is_own(address), address.starts_with("/ip6/")));
            addresses
        })
    }

    fn diagnosis(&self) -> Answer<'_, serde_json::Value> {
        Box::pin(async { serde_json::to_value(self.diagnose().await).unwrap_or_default() })
    }
}
