//! Endpoints about verifications and drift.
//!
//! Invariant: an order answers at once with the numbers of its runs; who wants to wait asks for them. Called through
//! [`super::routes`].

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Services;
use super::act::parse;
use super::answer::ask;
use super::problem::Problem;
use crate::model::Tier;
use crate::node::drift_view::{DriftFilter, DriftPage};

type Shared = State<Arc<Services>>;
type Reply<T> = Result<Json<T>, Problem>;

/// Runs listed when nobody says how many.
const RUNS_DEFAULT: usize = 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    tier: Option<String>,
    db: Option<String>,
    #[serde(default)]
    repair: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RunsQuery {
    limit: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DriftQuery {
    after: Option<u64>,
    limit: Option<usize>,
    run: Option<u64>,
    db: Option<String>,
    table: Option<String>,
    waiting: Option<bool>,
}

pub(super) async fn order(State(services): Shared, body: Bytes) -> Reply<Value> {
    let Order { tier, db, repair } = parse(&body)?;
    let tier = match tier.as_deref() {
        None => Tier::Full,
        Some(word) => Tier::parse(word)
            .ok_or_else(|| Problem::invalid(format!("`tier` is {word}, but must be count, ids, checksum or full")))?,
    };
    let runs =
        ask(&services.port, move |node, now| node.order_verification(db.as_deref(), tier, repair, now)).await??;
    Ok(Json(json!({ "runs": runs })))
}

pub(super) async fn runs(State(services): Shared, query: Result<Query<RunsQuery>, QueryRejection>) -> Reply<Value> {
    let query = query.map_err(|rejection| Problem::invalid(rejection.body_text()))?.0;
    let limit = query.limit.unwrap_or(RUNS_DEFAULT);
    let runs = ask(&services.port, move |node, _| node.verify_views(limit)).await??;
    Ok(Json(json!({ "runs": runs })))
}

pub(super) async fn drift(
    State(services): Shared,
    query: Result<Query<DriftQuery>, QueryRejection>,
) -> Reply<DriftPage> {
    let query = query.map_err(|rejection| Problem::invalid(rejection.body_text()))?.0;
    let filter = DriftFilter {
        after: query.after,
        limit: query.limit.unwrap_or(0),
        runs: query.run.into_iter().collect(),
        database: query.db,
        table: query.table,
        waiting: query.waiting.unwrap_or(false),
    };
    Ok(Json(ask(&services.port, move |node, _| node.drift(&filter)).await??))
}
