//! Endpoints that look and change nothing.
//!
//! Invariant: each asks the node one short question. Called through [`super::routes`].

use std::path::Path as FilePath;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use serde_json::{Value, json};

use super::answer::ask;
use super::archive::free_bytes;
use super::problem::Problem;
use super::query::{ConflictsQuery, EventsQuery, PAGE_MAX, RowQuery, node_of};
use super::{Check, Services};
use crate::model::{NodeId, counted, fits};
use crate::node::archive_view::DiskView;
use crate::node::view::{ConflictView, EventPage, HistoryView, PaceView, PeerView, Status, WhereView};
use crate::node::{Node, NodeError};

/// Conflicts on one page when nobody says how many.
const CONFLICTS_DEFAULT: usize = 100;

/// Less room than this on the data directory's disk is told.
const FREE_BYTES_LOW: u64 = 200 << 20;

type Shared = State<Arc<Services>>;
type Reply<T> = Result<Json<T>, Problem>;

pub(super) fn checked<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    query.map(|query| query.0).map_err(|rejection| Problem::invalid(rejection.body_text()))
}

/// The status document, for this and other endpoints.
pub(super) async fn status_of(services: &Services) -> Result<Status, Problem> {
    Ok(ask(&services.port, |node, now| node.status(now)).await??)
}

/// The same, with what run tracking knows of the peers.
pub(super) async fn scored_status(services: &Services) -> Result<Status, Problem> {
    let mut status = status_of(services).await?;
    let ids: Vec<_> = status.peers.iter().map(|peer| node_of(&peer.id)).collect();
    let scores = services.monitor.ask(move |store, now_ms| {
        let of = |id: &Option<NodeId>| id.map(|id| store.server_score(&id, now_ms)).transpose();
        ids.iter().map(of).collect::<Result<Vec<_>, _>>()
    });
    if let Ok(open) = services.monitor.ask(|store, _| store.open_alerts()).await {
        // What the node says itself is in its own list already.
        let rules = open.into_iter().filter(|alert| !alert.key.starts_with("node:")).map(|alert| alert.message);
        let fresh: Vec<String> = rules.filter(|message| !status.alerts.contains(message)).collect();
        status.alerts.extend(fresh);
    }
    // Without run tracking the node's own estimate stands.
    for (peer, (score, band)) in status.peers.iter_mut().zip(scores.await.unwrap_or_default().into_iter().flatten()) {
        (peer.score, peer.band) = (score, band.to_string());
    }
    Ok(status)
}

pub(super) async fn status(State(services): Shared) -> Reply<Status> {
    Ok(Json(scored_status(&services).await?))
}

pub(super) async fn peers(State(services): Shared) -> Reply<Value> {
    let status = scored_status(&services).await?;
    let network = services.network.diagnosis().await;
    let own = services.network.addresses().await;
    Ok(Json(json!({ "peers": status.peers, "network": network, "own_addresses": own })))
}

pub(super) async fn tables(State(services): Shared) -> Reply<Value> {
    let tables = ask(&services.port, |node, _| node.tables()).await??;
    Ok(Json(json!({ "tables": tables })))
}

pub(super) async fn events(
    State(services): Shared,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Reply<EventPage> {
    let query = checked(query)?;
    let page = ask(&services.port, move |node, now| {
        let filter = query.filter(now.wall_ms)?;
        node.events(&filter).map_err(Problem::from)
    });
    Ok(Json(page.await??))
}

pub(super) async fn duplicates(
    State(services): Shared,
    query: Result<Query<ConflictsQuery>, QueryRejection>,
) -> Reply<Value> {
    let limit = checked(query)?.limit.unwrap_or(PAGE_MAX).min(PAGE_MAX);
    let found = ask(&services.port, move |node, _| node.duplicates(limit)).await??;
    Ok(Json(json!({ "duplicates": found })))
}

pub(super) async fn conflicts(
    State(services): Shared,
    query: Result<Query<ConflictsQuery>, QueryRejection>,
) -> Reply<Value> {
    let query = checked(query)?;
    let (after, limit) = (query.after.unwrap_or(0), query.limit.unwrap_or(CONFLICTS_DEFAULT).min(PAGE_MAX));
    let conflicts = ask(&services.port, move |node, _| node.conflicts(after, limit)).await??;
    Ok(Json(json!({ "conflicts": conflicts })))
}

pub(super) async fn conflict(State(services): Shared, number: Result<Path<u64>, PathRejection>) -> Reply<ConflictView> {
    let Path(number) =
        number.map_err(|_| Problem::invalid("the number of a conflict is a number: see /api/v1/conflicts"))?;
    let conflict = ask(&services.port, move |node, _| node.conflict(number)).await??;
    conflict
        .map(Json)
        .ok_or_else(|| Problem::not_found(format!("there is no conflict {number}: see `litemesh conflicts list`")))
}

pub(super) async fn rules(State(services): Shared) -> Reply<Value> {
    Ok(Json(json!({ "rules": ask(&services.port, |node, _| node.rules()).await?? })))
}

pub(super) async fn shelf(State(services): Shared) -> Reply<Value> {
    let shelf = ask(&services.port, |node, _| node.shelf()).await??;
    Ok(Json(json!({ "shelf": shelf })))
}

pub(super) async fn where_is(
    State(services): Shared,
    query: Result<Query<RowQuery>, QueryRejection>,
) -> Reply<WhereView> {
    let q = checked(query)?;
    let found = ask(&services.port, move |node, _| node.where_is(&q.db, &q.table, &q.id, q.node.as_deref()));
    Ok(Json(found.await??))
}

/// The log is read beside the node.
pub(super) async fn history(
    State(services): Shared,
    query: Result<Query<RowQuery>, QueryRejection>,
) -> Reply<HistoryView> {
    let q = checked(query)?;
    let RowQuery { db, table, id, .. } = q;
    let place = (db.clone(), table.clone(), id.clone());
    let known = move |node: &mut Node, _| {
        let (db, table, id) = place;
        Ok::<_, NodeError>((node.known_under(&db, &table, &id)?, node.replay()?))
    };
    let (mut rows, replay) = ask(&services.port, known).await??;
    let place = (db.clone(), table.clone(), id.clone());
    let (once, replay) =
        super::travel::beside(move || Ok((replay.once_under(&place.0, &place.1, &place.2)?, replay))).await?;
    rows.extend(once);
    let asked = ask(&services.port, move |node, _| node.asked(&db, &table, &id, &rows)).await??;
    Ok(Json(super::travel::beside(move || replay.life(asked)).await?))
}

/// Log, archive and free room.
fn disk_check(disk: &DiskView) -> Check {
    let free = free_bytes(FilePath::new(&disk.data_dir));
    let lost: u64 = disk.segments_missing.iter().map(|missing| missing.events).sum();
    let mb = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let (state, next) = match (lost, free) {
        (1.., _) => {
            ("failed", "litemesh archive repair (with a peer connected), or put the segment files back".to_string())
        }
        (0, Some(free)) if free < FREE_BYTES_LOW => ("warning", "make room on the data directory's disk".to_string()),
        _ => ("ok", String::new()),
    };
    let mut found = format!(
        "log {} ({}), archive {} ({} in {}), {} free",
        mb(disk.log_bytes),
        counted(disk.log_events, "event"),
        mb(disk.segment_bytes),
        counted(disk.segment_events, "event"),
        counted(disk.segments, "segment"),
        free.map_or("unknown".to_string(), mb)
    );
    if lost > 0 {
        let names: Vec<&str> = disk.segments_missing.iter().map(|missing| missing.name.as_str()).collect();
        found += &format!("; MISSING: {} with {}", names.join(", "), counted(lost, "event"));
    }
    Check { check: "disk".into(), state: state.into(), found, next }
}

pub(super) async fn join_plan(State(services): Shared) -> Reply<Value> {
    let look = services.join_plan.clone();
    let plan = tokio::task::spawn_blocking(move || look()).await.unwrap_or_default();
    Ok(Json(json!({ "plan": plan })))
}

pub(super) async fn doctor(State(services): Shared) -> Reply<Value> {
    let status = status_of(&services).await?;
    let network = services.network.diagnosis().await;
    let look = services.checks.clone();
    let mut checks = tokio::task::spawn_blocking(move || look()).await.unwrap_or_default();
    checks.extend(status.databases.iter().map(|database| Check {
        check: format!("database {}", database.name),
        state: if database.state.starts_with("ok") { "ok" } else { "failed" }.into(),
        found: format!(
            "{}; {}, {} {} for the log",
            database.state,
            counted(database.rows, "row"),
            counted(database.outbox, "captured row"),
            fits(database.outbox, "waits", "wait")
        ),
        next: String::new(),
    }));
    checks.push(disk_check(&status.disk));
    let connected = status.peers.iter().filter(|peer| peer.state == "connected").count();
    let alone = !status.peers.is_empty() && connected == 0;
    checks.push(Check {
        check: "peers".into(),
        state: if alone { "warning" } else { "ok" }.into(),
        found: format!("{connected} of {} connected", status.peers.len()),
        next: if alone {
            "check the network, or name an address: litemesh peers add MULTIADDR".into()
        } else {
            String::new()
        },
    });
    // The network's findings have the shape of checks.
    let findings = serde_json::from_value::<Vec<Check>>(network["findings"].clone());
    checks.extend(findings.unwrap_or_default());
    checks.extend(status.peers.iter().filter_map(clock_check));
    checks.extend(pace_check(&status.pace));
    checks.extend(status.peers.iter().filter_map(newer_check));
    checks.extend(status.alerts.iter().map(|alert| Check {
        check: "alert".into(),
        state: "warning".into(),
        found: alert.clone(),
        next: String::new(),
    }));
    Ok(Json(json!({ "running": true, "checks": checks, "network": network })))
}

/// Bandwidth and quiet hours, where some are set: whoever wonders why a server does not catch up finds it here.
fn pace_check(pace: &PaceView) -> Option<Check> {
    if pace.bandwidth == 0 && pace.quiet_hours.is_empty() {
        return None;
    }
    let limit = match pace.bandwidth {
        0 => "no limit of bandwidth".to_string(),
        rate => format!("bulk takes at most {} kB/s", rate / 1000),
    };
    let hours = match (pace.quiet_hours.is_empty(), pace.quiet_now) {
        (true, _) => String::new(),
        (false, true) => format!("; quiet now ({}): only small fresh changes travel", pace.quiet_hours.join(", ")),
        (false, false) => format!("; quiet hours {}", pace.quiet_hours.join(", ")),
    };
    let waiting = match pace.waiting_peers {
        0 => String::new(),
        peers => format!("; {} {} for events", counted(peers, "peer"), fits(peers, "waits", "wait")),
    };
    Some(Check {
        check: "pace".into(),
        state: "ok".into(),
        found: format!("{limit}{hours}{waiting}"),
        next: if pace.quiet_now {
            "to catch up now, empty [network] quiet_hours and start again".into()
        } else {
            String::new()
        },
    })
}

/// A peer that says what this version does not know.
fn newer_check(peer: &PeerView) -> Option<Check> {
    (peer.unknown_frames > 0).then(|| Check {
        check: format!("peer {}", peer.name),
        state: "warning".into(),
        found: format!("{} messages of kinds that this version does not know were skipped", peer.unknown_frames),
        next: "update this server: the peer runs a newer version".into(),
    })
}

/// A peer whose clock is off by more than a minute: its changes are kept all the same, but win or lose wrongly.
fn clock_check(peer: &PeerView) -> Option<Check> {
    let skew_s = peer.clock_skew_ms? / 1000;
    (skew_s.abs() >= 60).then(|| Check {
        check: format!("clock of {}", peer.name),
        state: "warning".into(),
        found: format!("{} s {} this machine's", skew_s.abs(), if skew_s > 0 { "ahead of" } else { "behind" }),
        next: "set the clock of whichever is wrong".into(),
    })
}
