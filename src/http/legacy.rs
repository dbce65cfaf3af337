//! What existing superadmin pages and servers of the older sync protocol know, in the shapes they know.
//!
//! A server that speaks only these endpoints exchanges rows with a node as with one of its own kind: it fetches what changed
//! ([`super::legacy_read`]) and sends what it has. Its rows are written to the app's file as the app itself would write
//! them, over a connection of their own with the triggers on: the node captures them, and to the cluster they are this
//! node's events. That protocol knows a row by table and id and nothing of merging: between it and the cluster the last
//! write of a row wins, with what lost in the audit.
//! Invariants: a batch with a wrong checksum is refused whole; a row that cannot be written is named in `errors` and not
//! counted, the others are written in one transaction per file; what a server sent is not sent back to it. Called through
//! [`super::routes`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::Services;
use super::act::{equal_now, parse};
use super::answer::ask;
use super::archive::clean_up;
use super::canonical::{canonical, read_value, sha256};
use super::legacy_read::seen;
use super::problem::Problem;
use super::query::parse_peer;
use super::read::status_of;
use crate::model::{DatabaseSchema, Identity, TableSchema};
use crate::monitor::{RunBegin, RunEnd};
use crate::node::Input;
use crate::node::feed::FeedTarget;
use crate::sqlite::{GuestOutcome, GuestWrite, write_as_app};

pub(super) const SYNC: &str = "/api/sync/sqlite3/sync/{server_id}";
pub(super) const CHANGES: &str = "/api/sync/sqlite3/optimized-changes";
pub(super) const RECEIVE: &str = "/api/sync/sqlite3/receive-changes";
pub(super) const RELIABILITY: &str = "/api/sync/sqlite3/reliability/{server_id}";
pub(super) const CLEANUP: &str = "/api/sync/sqlite3/cleanup";
pub(super) const BATCH: &[&str] = &["changes", "checksum", "count", "server_id"];

/// Changes of one batch, at most.
const BATCH_MAX: usize = 10_000;

/// How long a sync that somebody waits for may take.
const SYNC_WITHIN: Duration = Duration::from_secs(25);

/// How long a cleanup is waited for; it goes on by itself.
const CLEANUP_WITHIN: Duration = Duration::from_secs(20);

/// Errors that are listed, at most.
const ERRORS_MAX: usize = 100;

type Shared = State<Arc<Services>>;
type Reply<T> = Result<Json<T>, Problem>;

#[derive(Deserialize)]
struct Batch<'b> {
    #[serde(borrow)]
    changes: &'b RawValue,
    #[serde(default)]
    checksum: Option<String>,
    #[serde(default)]
    server_id: Option<Value>,
}

#[derive(Deserialize)]
struct Change<'b> {
    table: String,
    #[serde(default)]
    database: Option<String>,
    #[serde(default)]
    record_id: Value,
    operation: String,
    #[serde(borrow, default)]
    data: Option<BTreeMap<String, &'b RawValue>>,
    #[serde(default)]
    server_id: Option<Value>,
}

/// A change on its way into a file.
struct Order {
    /// Position of the file among the targets.
    target: usize,
    record_id: String,
    write: GuestWrite,
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Whether the batch is what its sender summed up: with text beyond ASCII escaped, as Python does, or as it is.
fn is_verified(changes: &RawValue, checksum: &str) -> bool {
    [true, false]
        .into_iter()
        .any(|ascii| canonical(changes, ascii).is_some_and(|text| sha256(&text).eq_ignore_ascii_case(checksum.trim())))
}

pub(super) async fn receive(State(services): Shared, body: Bytes) -> Reply<Value> {
    let bad = |error: serde_json::Error| Problem::invalid(format!("the body is not what is expected: {error}"));
    let batch: Batch<'_> = serde_json::from_slice(&body).map_err(bad)?;
    let raw: Vec<&RawValue> = serde_json::from_str(batch.changes.get()).map_err(bad)?;
    if raw.len() > BATCH_MAX {
        return Err(Problem::invalid(format!("a batch may have {BATCH_MAX} changes, this one has {}", raw.len())));
    }
    let verified = match &batch.checksum {
        Some(checksum) if !is_verified(batch.changes, checksum) => {
            let detail = "the checksum is not that of `changes` (SHA-256 of their JSON with sorted keys and no blanks): \
                          nothing was applied";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "checksum_wrong", detail));
        }
        checksum => checksum.is_some(),
    };
    let targets = ask(&services.port, |node, _| node.feed_targets()).await?;
    let mut server = batch.server_id.as_ref().map(plain).unwrap_or_default();
    let (mut orders, mut errors) = (Vec::new(), Vec::new());
    for one in &raw {
        match serde_json::from_str::<Change<'_>>(one.get()) {
            Ok(change) => {
                if server.is_empty() {
                    server = change.server_id.as_ref().map(plain).unwrap_or_default();
                }
                match order(&targets, &change) {
                    Ok(order) => orders.push(order),
                    Err(error) => errors.push(format!("{} {}: {error}", change.table, plain(&change.record_id))),
                }
            }
            Err(error) => errors.push(format!("a change cannot be read: {error}")),
        }
    }
    let subject: String = server.chars().filter(|c| !c.is_control()).take(100).collect();
    let run = RunBegin { kind: "legacy_receive".into(), subject: subject.clone(), ..RunBegin::default() };
    let guard = services.monitor.begin(run).await;
    let applied = write(&services, targets, orders, &subject, &mut errors).await;
    let end = |applied: &usize| RunEnd {
        records: Some(*applied as u64),
        failed: (raw.len() - applied) as u64,
        bytes: body.len() as u64,
        error: errors.first().map(|first| format!("data: {first}")),
        ..RunEnd::default()
    };
    let applied = guard.finish_with(applied.map_err(Told), end).map_err(|told| told.0)?;
    let success = errors.is_empty();
    errors.truncate(ERRORS_MAX);
    Ok(Json(json!({
        "success": success,
        "applied_count": applied,
        "total_received": raw.len(),
        "errors": errors,
        "checksum_verified": verified,
    })))
}

/// A problem, for the record of a run.
struct Told(Problem);

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.detail)
    }
}

/// What a change orders; the words say why it cannot be.
fn order(targets: &[FeedTarget], change: &Change<'_>) -> Result<Order, String> {
    let fits = |schema: &DatabaseSchema| {
        change.database.as_ref().is_none_or(|name| *name == schema.database) && schema.table(&change.table).is_some()
    };
    let found: Vec<usize> = (0..targets.len()).filter(|at| fits(&targets[*at].schema)).collect();
    let target = match found[..] {
        [one] => one,
        [] => return Err("no such table is replicated here".to_string()),
        _ => return Err("several databases have this table: say which by `database`".to_string()),
    };
    let schema = targets[target].schema.table(&change.table).ok_or("no such table is replicated here")?;
    let mut data = Vec::new();
    for (name, raw) in change.data.iter().flatten() {
        data.push((name.clone(), read_value(raw).map_err(|error| format!("{name}: {error}"))?));
    }
    let (key, record_id) = key_of(schema, &data, &plain(&change.record_id))?;
    let is_key = |name: &str| key.iter().any(|(of_key, _)| of_key.eq_ignore_ascii_case(name));
    let cells = match change.operation.to_ascii_lowercase().as_str() {
        "delete" => None,
        "insert" | "update" | "upsert" | "create" => {
            Some(data.iter().filter(|(name, _)| !is_key(name)).cloned().collect())
        }
        other => return Err(format!("`{other}` is no operation: insert, update or delete")),
    };
    Ok(Order { target, record_id, write: GuestWrite { table: schema.name.clone(), key, cells } })
}

type Cells = Vec<(String, crate::model::Value)>;

/// The key of a row and how it is written: out of its data, else out of the record's id.
fn key_of(schema: &TableSchema, data: &Cells, record_id: &str) -> Result<(Cells, String), String> {
    use crate::model::Value as Sql;
    let columns = schema.key_columns();
    if columns.is_empty() || schema.identity == Identity::Rowid {
        return Err("the table has no key: its rows cannot be told apart from outside".to_string());
    }
    let parts: Vec<&str> = if columns.len() == 1 { vec![record_id] } else { record_id.split(',').collect() };
    let mut key = Cells::new();
    for (position, at) in columns.iter().enumerate() {
        let name = &schema.columns[*at].name;
        let given = data.iter().find(|(given, value)| given.eq_ignore_ascii_case(name) && !value.is_null());
        let typed = |part: &&str| {
            let whole = matches!(schema.identity, Identity::Surrogate(_))
                || schema.columns[*at].declared_type.to_ascii_uppercase().contains("INT");
            match part.trim().parse() {
                Ok(number) if whole => Sql::Integer(number),
                _ => Sql::text(part),
            }
        };
        let from_id = (parts.len() == columns.len()).then(|| parts[position]).filter(|part| !part.is_empty());
        let value = given.map(|(_, value)| value.clone()).or(from_id.as_ref().map(typed));
        let value = value.ok_or_else(|| format!("neither `data` nor `record_id` says its {name}"))?;
        let integer = matches!(value, Sql::Integer(_));
        if matches!(schema.identity, Identity::Surrogate(_)) && !integer {
            return Err(format!("`{name}` must be a whole number"));
        }
        key.push((name.clone(), value));
    }
    let text = |value: &Sql| match value {
        Sql::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => other.to_string(),
    };
    let record_id = key.iter().map(|(_, value)| text(value)).collect::<Vec<_>>().join(",");
    Ok((key, record_id))
}

/// Writes file by file; how many changes are in them now.
async fn write(
    services: &Services,
    targets: Vec<FeedTarget>,
    orders: Vec<Order>,
    server: &str,
    errors: &mut Vec<String>,
) -> Result<usize, Problem> {
    let mut applied = 0;
    let mut held = Vec::new();
    for (position, target) in targets.into_iter().enumerate() {
        let mine: Vec<&Order> = orders.iter().filter(|order| order.target == position).collect();
        if mine.is_empty() {
            continue;
        }
        let writes: Vec<GuestWrite> = mine.iter().map(|order| order.write.clone()).collect();
        let schema = target.schema.clone();
        let written = tokio::task::spawn_blocking(move || write_as_app(&target.path, &target.schema, &writes));
        let outcomes: Vec<GuestOutcome> =
            written.await.map_err(|_| Problem::node_busy())?.map_err(crate::node::NodeError::from)?;
        for (order, outcome) in mine.into_iter().zip(outcomes) {
            let table = &order.write.table;
            if let Some(error) = outcome.error {
                errors.push(format!("{table} {}: {error}", order.record_id));
                continue;
            }
            applied += 1;
            let columns = schema.table(table).map(|table| table.columns.as_slice()).unwrap_or_default();
            let data = outcome
                .image
                .map(|image| columns.iter().map(|column| column.name.clone()).zip(image).collect::<Vec<_>>());
            held.push(seen(&schema.database, table, &order.record_id, data.as_deref()));
        }
        // The file's directory tells the node as well; this is faster. A node that cannot be told looks by itself.
        let _ = ask(&services.port, move |node, now| node.handle(Input::FileTouched(position), now)).await;
    }
    let server = server.to_string();
    services.monitor.ask(move |store, now_ms| store.note_seen(&server, &held, now_ms)).await?;
    Ok(applied)
}

pub(super) async fn sync(
    State(services): Shared,
    server: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Reply<Value> {
    let Path(server) = server.map_err(|error| Problem::invalid(error.body_text()))?;
    // Such pages send whatever they like along.
    let _: Map<String, Value> = parse(&body)?;
    let status = status_of(&services).await?;
    let peer = parse_peer(&status, &server).map_err(Problem::not_found)?;
    let name = status.peers.iter().find(|view| view.id == peer.to_string());
    let name = name.map(|view| view.name.clone()).unwrap_or_default();
    let run = RunBegin { kind: "sync".into(), subject: name.clone(), server: Some(peer), ..RunBegin::default() };
    let guard = services.monitor.begin(run).await;
    let id = guard.id();
    let before = ask(&services.port, move |node, _| node.sync_marks(&peer)).await??;
    let until = Instant::now() + SYNC_WITHIN;
    let mut rounds = 0;
    while rounds < 2 && Instant::now() < until {
        let connected = status_of(&services)
            .await?
            .peers
            .iter()
            .any(|view| view.id == peer.to_string() && view.state == "connected");
        if !connected {
            break;
        }
        rounds = if equal_now(&services, Some(peer)).await? { rounds + 1 } else { 0 };
    }
    let looked = ask(&services.port, move |node, _| {
        Ok::<_, crate::node::NodeError>((node.sync_marks(&peer)?, node.changes_since(before.arrival)?))
    });
    let (after, received) = looked.await??;
    let sent = before.lacking.saturating_sub(after.lacking);
    let problem = match rounds {
        2 => None,
        _ => Some(format!("network: {name} is away, or could not be brought up to date in time")),
    };
    let metadata = json!({ "sent": sent, "received": received, "conflicts": after.audits - before.audits });
    guard.end(RunEnd {
        records: Some(sent + received),
        metadata: Some(metadata),
        error: problem.clone(),
        ..RunEnd::default()
    });
    let errors: Vec<&String> = problem.iter().collect();
    let mut answer = json!({
        "success": problem.is_none(),
        "stats": {
            "local_changes_sent": sent,
            "remote_changes_received": received,
            "conflicts_resolved": after.audits - before.audits,
            "errors": errors,
        },
        "operation_id": id.map_or(String::new(), |id| id.to_string()),
    });
    if let Some(problem) = problem {
        answer["error"] = problem.into();
    }
    Ok(Json(answer))
}

pub(super) async fn reliability(State(services): Shared, server: Result<Path<String>, PathRejection>) -> Reply<Value> {
    let Path(server) = server.map_err(|error| Problem::invalid(error.body_text()))?;
    let report = super::runs::report_on(&services, &server).await?;
    let operations: Map<String, Value> = report
        .operations
        .iter()
        .map(|one| {
            let of = json!({
                "success_rate": one.success_rate,
                "success_count": one.success_count,
                "failure_count": one.failure_count,
                "avg_duration": one.avg_duration,
                "last_success": one.last_success,
                "last_failure": one.last_failure,
            });
            (one.operation.clone(), of)
        })
        .collect();
    Ok(Json(json!({
        "overall_reliability": report.overall_reliability,
        "operations": operations,
        "band": report.band,
        "trend": report.trend,
    })))
}

#[derive(Deserialize)]
struct Cleanup {
    #[serde(default = "month")]
    days_to_keep: u32,
}

fn month() -> u32 {
    30
}

pub(super) async fn cleanup(State(services): Shared, body: Bytes) -> Reply<Value> {
    let Cleanup { days_to_keep } = parse(&body)?;
    let removed = services.monitor.ask(move |store, now_ms| store.cleanup(days_to_keep, now_ms)).await?;
    // That page knows one number: old history that is gone. Old events move into the archive, and stay readable there.
    let archived = clean_up(&services, Some(days_to_keep), false, CLEANUP_WITHIN).await?;
    let mut answer = json!({
        "success": archived.success,
        "removed": removed.runs + removed.others + archived.cleanup.removed,
        "removed_history": removed.runs + removed.others,
        "archived_events": archived.cleanup.removed,
        "state": archived.cleanup.state,
    });
    if !archived.success {
        answer["error"] = archived.cleanup.problem.into();
    }
    Ok(Json(answer))
}
