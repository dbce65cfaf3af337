//! Endpoints of a migration of the app: triggers out of its way, and back.
//!
//! Invariant: whoever begins must say every few seconds that it goes on; who dies leaves nothing behind. Called through
//! [`super::routes`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Services;
use super::act::parse;
use super::answer::ask;
use super::problem::Problem;

/// Seconds of a lease: usual, shortest, longest.
const LEASE_S: (u64, u64, u64) = (10, 1, 60);

/// How long an answer waits for the triggers to be back; callers ask again.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

type Shared = State<Arc<Services>>;
type Reply<T> = Result<Json<T>, Problem>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lease {
    #[serde(default)]
    lease_s: Option<u64>,
}

impl Lease {
    fn ms(body: &Bytes) -> Result<u64, Problem> {
        let Lease { lease_s } = parse(body)?;
        let (usual, shortest, longest) = LEASE_S;
        let seconds = lease_s.unwrap_or(usual);
        match (shortest..=longest).contains(&seconds) {
            true => Ok(seconds * 1_000),
            false => {
                Err(Problem::invalid(format!("`lease_s` is `{seconds}`, but must be {shortest} to {longest} seconds")))
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

pub(super) async fn begin(State(services): Shared, body: Bytes) -> Reply<Value> {
    let lease_ms = Lease::ms(&body)?;
    ask(&services.port, move |node, now| node.begin_migration(lease_ms, now)).await??;
    Ok(Json(json!({ "lease_s": lease_ms / 1_000 })))
}

pub(super) async fn renew(State(services): Shared, body: Bytes) -> Reply<Value> {
    let lease_ms = Lease::ms(&body)?;
    match ask(&services.port, move |node, now| node.renew_migration(lease_ms, now)).await? {
        true => Ok(Json(json!({ "lease_s": lease_ms / 1_000 }))),
        false => Err(Problem::new(
            StatusCode::CONFLICT,
            "migration_over",
            "no migration is under way: its lease ended, and the triggers are back",
        )),
    }
}

/// Ends it, and looks for a while whether the triggers are back.
pub(super) async fn end(State(services): Shared, body: Bytes) -> Reply<Value> {
    let _: Nothing = parse(&body)?;
    ask(&services.port, |node, now| node.end_migration(now)).await?;
    let until = Instant::now() + BACK_WITHIN;
    loop {
        let back = ask(&services.port, |node, _| node.is_guarded()).await?;
        if back || Instant::now() >= until {
            return Ok(Json(json!({ "back": back })));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
