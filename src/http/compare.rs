//! Comparing the content of this server's files with other members', now.
//!
//! Invariant: a request waits a few seconds at most; who asks goes on with `since_ms`. Called through [`super::routes`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Services;
use super::act::parse;
use super::answer::ask;
use super::problem::Problem;
use super::query::parse_peer;
use super::read::status_of;
use crate::node::Input;
use crate::node::compare_view::PeerComparison;

/// Seconds that one request waits.
const WAIT_S_MAX: f64 = 5.0;

/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

type Shared = State<Arc<Services>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Compare {
    #[serde(default)]
    peer: Option<String>,
    #[serde(default)]
    wait_s: f64,
    /// Goes on with a comparison that was asked for then.
    #[serde(default)]
    since: Option<String>,
}

/// What is known of every other member's content.
pub(super) async fn comparisons(State(services): Shared) -> Result<Json<Value>, Problem> {
    let peers = ask(&services.port, |node, _| node.peer_comparisons()).await??;
    Ok(Json(json!({ "peers": peers })))
}

/// Asks one peer, or all that are connected, for their content, and looks until all is compared or the time is over.
pub(super) async fn compare(State(services): Shared, body: Bytes) -> Result<Json<Value>, Problem> {
    let Compare { peer, wait_s, since } = parse(&body)?;
    let peer = match peer {
        Some(text) => Some(parse_peer(&status_of(&services).await?, &text).map_err(Problem::not_found)?),
        None => None,
    };
    let since = match since {
        Some(since) => since,
        None => {
            let asked = move |node: &mut crate::node::Node, now: crate::node::Now| {
                node.handle(Input::CompareRequested(peer), now).map(|()| node.time_words(now))
            };
            ask(&services.port, asked).await??
        }
    };
    let until = Instant::now() + Duration::from_secs_f64(wait_s.clamp(0.0, WAIT_S_MAX));
    loop {
        let mut peers: Vec<PeerComparison> = ask(&services.port, |node, _| node.peer_comparisons()).await??;
        peers.retain(|view| peer.is_none_or(|id| view.peer == id.to_string()));
        let compared = |view: &PeerComparison| view.complete && view.compared >= since;
        let done = peers.iter().filter(|view| view.state == "connected").all(compared);
        if done || Instant::now() >= until {
            return Ok(Json(json!({ "done": done, "since": since, "peers": peers })));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
