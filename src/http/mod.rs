//! Floor L4: the API on localhost.
//!
//! ```text
//!   listener   how many may connect, and how long they may take     problem   errors as problem+json
//!   guard      who may ask: Host, Origin, token, size               routes    the table of all endpoints
//!   answer     asking the node between two of its inputs            read, act endpoints that look, that do
//!   members    endpoints about members
//!   carry      bundles, receipts, requests              runs      run tracking, reliability
//!   parcel     bundles that a browser saves and hands in
//!   archive    cleanup, disk use, the season's archive              dashboard the page at `/`
//!   verify     verifications and drift
//!   stream     the log as it grows                             metrics   for Prometheus
//!   changes    the table of the newest changes
//!   legacy     what servers of the older sync protocol know   canonical JSON for checksums
//! ```
//!
//! Invariant: nothing behind the guard runs for a caller without the token; the node's thread is asked only short
//! questions, long work happens on snapshots beside it; every queue, body and connection is bounded.
//! Callers: daemon.

mod act;
mod answer;
mod archive;
mod canonical;
mod carry;
mod changes;
mod compare;
mod dashboard;
mod decide;
mod guard;
mod legacy;
mod legacy_read;
mod listener;
mod members;
mod metrics;
mod migration;
mod moment;
mod parcel;
mod problem;
mod query;
mod read;
mod routes;
mod runs;
mod stream;
mod verify;

#[cfg(test)]
mod tests;
mod travel;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;

pub use archive::{CleanupReply, free_bytes};
pub use changes::follow_changes;
pub use moment::parse_moment;
pub use query::{node_of, parse_peer};
pub use routes::{ROUTES, Route};

use crate::monitor::Monitor;
use crate::monitor::deliver::Channels;
use crate::node::meeting_view::MeetingPlan;
use crate::node::port::NodePort;
use listener::{ConnectionState, LimitedListener};

/// A future that an object-safe trait can return.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the API asks of the network.
pub trait NetworkControl: Send + Sync {
    /// Stays connected to the peer at this multiaddr, across restarts. The words say what is wrong with it.
    fn add_peer(&self, address: String) -> Answer<'_, Result<(), String>>;
    /// Multiaddrs that peers can dial, with `/p2p/`, the best first.
    fn addresses(&self) -> Answer<'_, Vec<String>>;
    /// How the network is doing, as a document; null when it cannot tell.
    fn diagnosis(&self) -> Answer<'_, serde_json::Value>;
}

/// One line of `doctor`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Check {
    /// What was looked at.
    pub check: String,
    /// `ok`, `warning` or `failed`.
    pub state: String,
    /// What was found.
    pub found: String,
    /// What to do; empty when all is well.
    pub next: String,
}

/// What the API stands on.
#[derive(Clone)]
pub struct Services {
    /// The node.
    pub port: Arc<dyn NodePort>,
    /// The network.
    pub network: Arc<dyn NetworkControl>,
    /// The checks of `doctor` that look at files; called off the async threads.
    pub checks: Arc<dyn Fn() -> Vec<Check> + Send + Sync>,
    /// The plan of the join by which this server came in, where there is one; called off the async threads.
    pub join_plan: Arc<dyn Fn() -> Option<MeetingPlan> + Send + Sync>,
    /// Run tracking.
    pub monitor: Monitor,
    /// Where alerts go.
    pub alerts: Arc<Channels>,
    /// The bearer token.
    pub token: String,
}

/// Why the API cannot start. Nothing is left open.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is not of this machine alone. Choose a loopback address.
    #[error("the API listens on loopback addresses only, not on {0}")]
    NotLoopback(SocketAddr),
    /// The address is in use or not there. A retry helps when the other program has stopped.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's words.
        source: std::io::Error,
    },
}

/// Takes the address; port 0 takes a free port.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, HttpError> {
    if !address.ip().is_loopback() {
        return Err(HttpError::NotLoopback(address));
    }
    TcpListener::bind(address).await.map_err(|source| HttpError::Listen { address, source })
}

/// Serves until `shutdown` holds `true`.
pub async fn serve(listener: TcpListener, services: Services, shutdown: watch::Receiver<bool>) {
    serve_within(listener, services, shutdown, listener::PATIENCE).await;
}

async fn serve_within(
    listener: TcpListener,
    services: Services,
    mut shutdown: watch::Receiver<bool>,
    patience: std::time::Duration,
) {
    let Ok(address) = listener.local_addr() else { return };
    let router = routes::router(services, address.port());
    let limited = LimitedListener::new(listener, patience);
    let service = router.into_make_service_with_connect_info::<ConnectionState>();
    let serving = axum::serve(limited, service).with_graceful_shutdown(async move {
        // The sender gone means the same as `true`.
        let _ = shutdown.wait_for(|stop| *stop).await;
    });
    if let Err(error) = serving.await {
        tracing::error!(%error, "the API stopped");
    }
}
