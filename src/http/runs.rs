//! Endpoints of run tracking and reliability.
//!
//! Invariant: whoever begins a run ends it, or it counts as interrupted when it gave no sign of life for the time it
//! promised (`lease_s`); of two exclusive runs of one kind and subject the second is refused (`lease_held`). The lease holds
//! on this node: servers that shall not both run a job agree on the one that does. Called through [`super::routes`].

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Services;
use super::act::parse;
use super::problem::Problem;
use super::query::{node_of, parse_peer};
use super::read::{checked, status_of};
use crate::model::NodeId;
use crate::monitor::store::RunProgress;
use crate::monitor::view::{ReliabilityView, RunFilter, RunView};
use crate::monitor::{RunBegin, RunEnd};

/// A run that does not say how long it may be silent may be so for an hour.
const LEASE_S_DEFAULT: f64 = 3_600.0;

/// Runs on one page when nobody says how many.
const PAGE_DEFAULT: usize = 100;

pub(super) const LISTED: &[&str] = &["kind", "status", "before", "limit"];
pub(super) const BEGUN: &[&str] =
    &["sync_type", "subject", "service_instance", "exclusive", "lease_s", "records_total", "metadata"];
pub(super) const PROGRESSED: &[&str] = &["records_processed", "records_total", "message", "metadata"];
pub(super) const COMPLETED: &[&str] = &["records_processed", "records_failed", "bytes", "latest_timestamp", "metadata"];
pub(super) const FAILED: &[&str] = &["error_message", "records_processed", "records_failed", "bytes", "metadata"];

type Shared = State<Arc<Services>>;
type Reply<T> = Result<Json<T>, Problem>;
type Number = Result<Path<i64>, PathRejection>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ListQuery {
    kind: Option<String>,
    status: Option<String>,
    before: Option<i64>,
    limit: Option<usize>,
}

pub(super) async fn list(State(services): Shared, query: Result<Query<ListQuery>, QueryRejection>) -> Reply<Value> {
    let query = checked(query)?;
    let limit = query.limit.unwrap_or(PAGE_DEFAULT).max(1);
    let filter = RunFilter { kind: query.kind, status: query.status, before: query.before, limit };
    let runs = services.monitor.ask(move |store, _| store.runs(&filter)).await?;
    let next = if runs.len() < limit { None } else { runs.last().map(|run| run.id) };
    Ok(Json(json!({ "runs": runs, "next_before": next })))
}

pub(super) async fn kinds(State(services): Shared) -> Reply<Value> {
    Ok(Json(json!({ "kinds": services.monitor.ask(|store, _| store.kinds()).await? })))
}

fn number(number: Number) -> Result<i64, Problem> {
    number.map(|path| path.0).map_err(|_| Problem::invalid("the number of a run is a number: see /api/v1/runs"))
}

pub(super) async fn show(State(services): Shared, id: Number) -> Reply<RunView> {
    let id = number(id)?;
    Ok(Json(services.monitor.ask(move |store, _| store.run(id)).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    sync_type: String,
    #[serde(default)]
    subject: String,
    #[serde(default)]
    service_instance: String,
    exclusive: Option<bool>,
    lease_s: Option<f64>,
    records_total: Option<u64>,
    metadata: Option<Value>,
}

pub(super) async fn begin(State(services): Shared, body: Bytes) -> Reply<RunView> {
    let body: Begin = parse(&body)?;
    let lease_s = body.lease_s.unwrap_or(LEASE_S_DEFAULT);
    if !(1.0..=7.0 * 86_400.0).contains(&lease_s) {
        return Err(Problem::invalid(format!("`lease_s` is `{lease_s}`, but must be 1 to 604800 seconds")));
    }
    let instance = if body.service_instance.is_empty() { "api".to_string() } else { body.service_instance };
    let run = RunBegin {
        kind: body.sync_type,
        subject: body.subject,
        instance,
        exclusive: body.exclusive.unwrap_or(true),
        lease_ms: Some((lease_s * 1000.0) as u64),
        total: body.records_total,
        metadata: body.metadata,
        server: None,
    };
    Ok(Json(services.monitor.ask(move |store, now_ms| store.begin(&run, now_ms).and_then(|id| store.run(id))).await?))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Progress {
    records_processed: Option<u64>,
    records_total: Option<u64>,
    message: Option<String>,
    metadata: Option<Value>,
}

pub(super) async fn heartbeat(State(services): Shared, id: Number, body: Bytes) -> Reply<RunView> {
    let (id, Nothing {}) = (number(id)?, parse(&body)?);
    note(&services, id, RunProgress::default()).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

pub(super) async fn progress(State(services): Shared, id: Number, body: Bytes) -> Reply<RunView> {
    let (id, body): (_, Progress) = (number(id)?, parse(&body)?);
    let (records, total) = (body.records_processed, body.records_total);
    note(&services, id, RunProgress { records, total, message: body.message, metadata: body.metadata }).await
}

async fn note(services: &Services, id: i64, progress: RunProgress) -> Reply<RunView> {
    let noted = services.monitor.ask(move |store, now_ms| {
        store.progress(id, &progress, now_ms)?;
        store.run(id)
    });
    Ok(Json(noted.await?))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Complete {
    records_processed: Option<u64>,
    records_failed: u64,
    bytes: u64,
    latest_timestamp: Option<String>,
    metadata: Option<Value>,
}

pub(super) async fn complete(State(services): Shared, id: Number, body: Bytes) -> Reply<RunView> {
    let (id, body): (_, Complete) = (number(id)?, parse(&body)?);
    let end = RunEnd {
        records: body.records_processed,
        failed: body.records_failed,
        bytes: body.bytes,
        watermark: body.latest_timestamp,
        metadata: body.metadata,
        error: None,
    };
    ended(&services, id, end).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fail {
    error_message: String,
    records_processed: Option<u64>,
    #[serde(default)]
    records_failed: u64,
    #[serde(default)]
    bytes: u64,
    metadata: Option<Value>,
}

pub(super) async fn fail(State(services): Shared, id: Number, body: Bytes) -> Reply<RunView> {
    let (id, body): (_, Fail) = (number(id)?, parse(&body)?);
    let end = RunEnd {
        records: body.records_processed,
        failed: body.records_failed,
        bytes: body.bytes,
        watermark: None,
        metadata: body.metadata,
        error: Some(body.error_message),
    };
    ended(&services, id, end).await
}

async fn ended(services: &Services, id: i64, end: RunEnd) -> Reply<RunView> {
    let ended = services.monitor.ask(move |store, now_ms| {
        store.end(id, end, now_ms)?;
        store.run(id)
    });
    Ok(Json(ended.await?))
}

pub(super) async fn reliability_of_all(State(services): Shared) -> Reply<Value> {
    let status = status_of(&services).await?;
    let named: Vec<(NodeId, String)> =
        status.peers.iter().filter_map(|peer| Some((node_of(&peer.id)?, peer.name.clone()))).collect();
    let reports = services.monitor.ask(move |store, now_ms| {
        store.name_servers(&named, now_ms)?;
        named.iter().map(|(node, _)| store.reliability(node, now_ms)).collect::<Result<Vec<_>, _>>()
    });
    Ok(Json(json!({ "servers": reports.await? })))
}

pub(super) async fn reliability_of_one(
    State(services): Shared,
    peer: Result<Path<String>, PathRejection>,
) -> Reply<ReliabilityView> {
    let Path(peer) = peer.map_err(|error| Problem::invalid(error.body_text()))?;
    Ok(Json(report_on(&services, &peer).await?))
}

/// The report on a peer as people name it.
pub(super) async fn report_on(services: &Services, peer: &str) -> Result<ReliabilityView, Problem> {
    let status = status_of(services).await?;
    let node = parse_peer(&status, peer).map_err(Problem::not_found)?;
    let name = status.peers.iter().find(|view| view.id == node.to_string()).map(|view| view.name.clone());
    let report = services.monitor.ask(move |store, now_ms| {
        store.name_servers(&[(node, name.unwrap_or_default())], now_ms)?;
        store.reliability(&node, now_ms)
    });
    Ok(report.await?)
}

/// Alerts that are over and still shown.
const PAST_ALERTS: usize = 50;

pub(super) async fn alerts(State(services): Shared) -> Reply<Value> {
    let both = services.monitor.ask(|store, _| Ok((store.open_alerts()?, store.past_alerts(PAST_ALERTS)?)));
    let (open, past) = both.await?;
    Ok(Json(json!({ "alerts": open, "past": past, "channels": services.alerts.names() })))
}

/// Tells a test by every channel, now.
pub(super) async fn test_alerts(State(services): Shared, body: Bytes) -> Reply<Value> {
    let Nothing {} = parse(&body)?;
    let channels = services.alerts.clone();
    let told = tokio::task::spawn_blocking(move || channels.test(crate::monitor::recorder::now_ms()));
    let told = told.await.map_err(|_| Problem::node_busy())?;
    Ok(Json(json!({ "channels": told })))
}
