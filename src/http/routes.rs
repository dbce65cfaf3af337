//! The table of all endpoints, the router made from it, and its OpenAPI description.
//!
//! Invariant: what the description lists is what the router knows; both come from [`ROUTES`]. Called by [`super::serve`].

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router, middleware};

use super::guard::{Expected, guard};
use super::problem::Problem;
use super::{
    Services, act, archive, carry, compare, dashboard, decide, legacy, legacy_read, members, metrics, migration,
    parcel, read, runs, stream,
};
use super::{travel, verify};

/// One endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// `get` or `post`.
    pub method: &'static str,
    /// Path, with `{n}` for a number.
    pub path: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// Query parameters, or members of the JSON body of a `post`.
    pub parameters: &'static [&'static str],
}

const fn route(
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    parameters: &'static [&'static str],
) -> Route {
    Route { method, path, summary, parameters }
}

/// All endpoints.
pub const ROUTES: &[Route] = &[
    route("get", "/healthz", "200 while the program runs; needs no token", &[]),
    route("get", "/api/v1/openapi.json", "This description", &[]),
    route("get", "/api/v1/status", "Node, cluster, databases, peers, what exists only here", &[]),
    route(
        "get",
        "/api/v1/tables",
        "Table by table: rows, what waits, what is on the shelf, a digest of the content",
        &[],
    ),
    route("get", "/api/v1/peers", "The other members, the network, and where this one is reached", &[]),
    route("post", "/api/v1/peers", "Stays connected to the peer at an address, across restarts", &["address"]),
    route("get", "/api/v1/comparisons", "Whether the other members' files show the same rows, and which differ", &[]),
    route(
        "post",
        "/api/v1/peers/compare",
        "Compares content now; waits up to wait_s (at most 5) seconds",
        &["peer", "wait_s", "since"],
    ),
    route("post", "/api/v1/invites", "Makes a join code", &["expires_s", "role"]),
    route("get", "/api/v1/members", "Everybody who was ever admitted: role, rank, slot, state", &[]),
    route("get", "/api/v1/members/log", "The membership log: every signed record, and whether it counts", &[]),
    route("get", "/api/v1/members/late", "Events that say that they were written after their author's revocation", &[]),
    route("post", "/api/v1/members/revoke", "Shuts a member out", &["name"]),
    route("post", "/api/v1/members/readmit", "Lets a member in again that was shut out", &["name", "role"]),
    route("post", "/api/v1/members/role", "Gives a member another role: admin, member or read-only", &["name", "role"]),
    route("post", "/api/v1/members/rename", "Gives a member another name", &["name", "to"]),
    route(
        "post",
        "/api/v1/trust-lan",
        "Admits whoever knocks from the local network, for so long; 0 ends it",
        &["for_s"],
    ),
    route("post", "/api/v1/recover-admin", "Makes this node an admin by the recovery phrase", &["phrase", "revoke"]),
    route(
        "get",
        "/api/v1/events",
        "A page of the event log, oldest first; pass last_arrival as `after` to go on",
        &["db", "table", "origin", "since", "until", "limit", "after"],
    ),
    route(
        "get",
        "/api/v1/events/stream",
        "The event log as it grows, as server-sent events; `after` or Last-Event-ID tell where to go on",
        &["db", "table", "origin", "since", "until", "after"],
    ),
    route("get", "/metrics", "The node's figures in Prometheus' text format", &[]),
    route("get", "/api/v1/conflicts", "What lost, newest last", &["after", "limit"]),
    route("get", "/api/v1/conflicts/{n}", "One conflict", &[]),
    route("get", "/api/v1/duplicates", "Different rows that look like one, and what joins them", &["limit"]),
    route("post", "/api/v1/conflicts/{n}/restore", "Puts back what lost, as a new event", &[]),
    route("post", "/api/v1/merge", "Says that two rows are one", &["db", "table", "id", "other"]),
    route("post", "/api/v1/split", "Takes a row apart into the rows it was merged from", &["db", "table", "id"]),
    route("post", "/api/v1/shelf/retry", "Tries rows again that SQLite refused", &[]),
    route("get", "/api/v1/shelf", "Rows that cannot be shown now, and why", &[]),
    route("get", "/api/v1/where", "Where an id went", &["db", "table", "id", "node"]),
    route("get", "/api/v1/history", "Every version of one row", &["db", "table", "id"]),
    route(
        "get",
        "/api/v1/diff",
        "What changed between two times: rows added, changed, deleted, moved",
        &["from", "to", "db", "table", "node", "limit"],
    ),
    route(
        "post",
        "/api/v1/undo",
        "Takes changes back: a preview, or with `yes` by new events",
        &["change", "node", "from", "to", "db", "table", "force", "yes", "by", "reason", "limit"],
    ),
    route(
        "post",
        "/api/v1/restore",
        "Rolls databases back to a time: a preview, or with `yes` by new events",
        &["as_of", "db", "table", "yes", "by", "reason", "limit"],
    ),
    route("get", "/api/v1/rules", "Rules of tables and columns that somebody set", &[]),
    route(
        "post",
        "/api/v1/rules",
        "Sets the rule of a table, or of one of its columns, on all servers",
        &["db", "table", "column", "rule"],
    ),
    route("post", "/api/v1/log/verify", "Checks every hash chain and signature", &[]),
    route(
        "post",
        "/api/v1/rebuild",
        "Replays the log into new files in a directory of this machine, as of `time` where it is given",
        &["out", "time"],
    ),
    route("post", "/api/v1/sync", "Syncs now; waits up to wait_s (at most 5) seconds", &["peer", "wait_s", "again"]),
    route("get", "/api/v1/receipts", "Who holds what, what exists only here, whether this machine can go", &[]),
    route("post", "/api/v1/bundle/export", "Writes a bundle to a file or directory of this machine", &["path", "for"]),
    route("post", "/api/v1/bundle/import", "Takes a bundle from a file of this machine", &["path", "news_only"]),
    route("post", "/api/v1/bundle/inspect", "Says what a bundle holds; stores nothing", &["path"]),
    route("get", parcel::DOWNLOAD, "Gives a bundle as the answer's body: all, or what one peer lacks", &["for"]),
    route("post", parcel::UPLOADS[0], "Says what the bundle in the request's body holds; stores nothing", &[]),
    route("post", parcel::UPLOADS[1], "Takes the bundle in the request's body", &[]),
    route("post", "/api/v1/admit", "Admits who asked by a request that was carried here", &["request"]),
    route("get", "/api/v1/cleanup", "The cleanup that is under way, or the last one", &[]),
    route(
        "post",
        "/api/v1/cleanup",
        "Moves old events that every member holds into compressed segments; waits up to wait_s (at most 25) seconds",
        &["days_to_keep", "all", "dry_run", "wait_s"],
    ),
    route("get", "/api/v1/disk", "What log, archive and files take on the disk", &[]),
    route("get", "/api/v1/archive", "The segments of the archive, and how far each author's events lie in them", &[]),
    route("post", "/api/v1/archive", "Copies the archive into a directory of this machine", &["out"]),
    route(
        "get",
        "/api/v1/runs",
        "A page of runs, the newest first; pass next_before as `before` to go on",
        runs::LISTED,
    ),
    route("post", "/api/v1/runs", "Begins a run of a job of yours; it must end, or give a sign of life", runs::BEGUN),
    route("get", "/api/v1/runs/kinds", "How every kind of run stands now", &[]),
    route("get", "/api/v1/runs/{n}", "One run", &[]),
    route("post", "/api/v1/runs/{n}/heartbeat", "A sign of life", &[]),
    route("post", "/api/v1/runs/{n}/progress", "How far a run is; also a sign of life", runs::PROGRESSED),
    route("post", "/api/v1/runs/{n}/complete", "Ends a run well", runs::COMPLETED),
    route("post", "/api/v1/runs/{n}/fail", "Ends a run that failed", runs::FAILED),
    route("get", "/api/v1/reliability", "How well every peer does each operation", &[]),
    route("get", "/api/v1/reliability/{peer}", "The same of one peer: its name, id, or number in `peers list`", &[]),
    route("post", "/api/v1/verify", "Compares the files with the log, in line with others", &["tier", "db", "repair"]),
    route("get", "/api/v1/verify", "The newest verifications, and how far they are", &["limit"]),
    route(
        "get",
        "/api/v1/drift",
        "Where files and log differed: rows, causes, what became of it, patterns",
        &["after", "limit", "run", "db", "table", "waiting"],
    ),
    route("get", "/api/v1/join", "The plan of the join by which this server came in; null: there was none", &[]),
    route("get", "/api/v1/archive/repair", "The repair of the archive that is under way, or the last one", &[]),
    route("post", "/api/v1/archive/repair", "Fetches what is missing or damaged of the archive from peers", &[]),
    route("post", legacy::SYNC, "Older protocol: syncs with a peer now, and says what that brought", &[]),
    route("get", legacy::CHANGES, "Older protocol: rows that changed since a time", legacy_read::ASKED),
    route("post", legacy::RECEIVE, "Older protocol: takes rows from a server outside the cluster", legacy::BATCH),
    route("get", legacy::RELIABILITY, "Older protocol: how well a peer does each operation", &[]),
    route("post", legacy::CLEANUP, "Older protocol: removes old history of runs", &["days_to_keep"]),
    route(
        "post",
        "/api/v1/migration",
        "Takes the triggers out of the way of a migration of the app for so many seconds (1 to 60)",
        &["lease_s"],
    ),
    route("post", "/api/v1/migration/renew", "Says that the migration goes on", &["lease_s"]),
    route("post", "/api/v1/migration/end", "Puts the triggers back and takes in what changed", &[]),
    route("get", "/api/v1/alerts", "What a person should look at, what is over, and where alerts go", &[]),
    route("post", "/api/v1/alerts/test", "Tells a test by every channel of [alerts]", &[]),
    route("get", "/api/v1/doctor", "Checks of the installation", &[]),
];

fn handler(route: &Route) -> MethodRouter<Arc<Services>> {
    match (route.method, route.path) {
        ("get", "/healthz") => get(async || "ok\n"),
        ("get", "/api/v1/openapi.json") => get(async || Json(openapi())),
        ("get", "/api/v1/status") => get(read::status),
        ("get", "/api/v1/tables") => get(read::tables),
        ("get", "/api/v1/peers") => get(read::peers),
        ("post", "/api/v1/peers") => post(act::add_peer),
        ("get", "/api/v1/comparisons") => get(compare::comparisons),
        ("post", "/api/v1/peers/compare") => post(compare::compare),
        ("post", "/api/v1/invites") => post(act::invite),
        ("get", "/api/v1/members") => get(members::members),
        ("get", "/api/v1/members/log") => get(members::log),
        ("get", "/api/v1/members/late") => get(members::late),
        ("post", "/api/v1/members/revoke") => post(members::revoke),
        ("post", "/api/v1/members/readmit") => post(members::readmit),
        ("post", "/api/v1/members/role") => post(members::set_role),
        ("post", "/api/v1/members/rename") => post(members::rename),
        ("post", "/api/v1/trust-lan") => post(members::trust_lan),
        ("post", "/api/v1/recover-admin") => post(members::recover),
        ("get", "/api/v1/events") => get(read::events),
        ("get", "/api/v1/events/stream") => get(stream::events),
        ("get", "/metrics") => get(metrics::metrics),
        ("get", "/api/v1/conflicts") => get(read::conflicts),
        ("get", "/api/v1/conflicts/{n}") => get(read::conflict),
        ("get", "/api/v1/duplicates") => get(read::duplicates),
        ("post", "/api/v1/conflicts/{n}/restore") => post(decide::restore),
        ("post", "/api/v1/merge") => post(decide::merge),
        ("post", "/api/v1/split") => post(decide::split),
        ("post", "/api/v1/shelf/retry") => post(decide::retry_shelf),
        ("get", "/api/v1/shelf") => get(read::shelf),
        ("get", "/api/v1/where") => get(read::where_is),
        ("get", "/api/v1/history") => get(read::history),
        ("get", "/api/v1/diff") => get(travel::diff),
        ("post", "/api/v1/undo") => post(travel::undo),
        ("post", "/api/v1/restore") => post(travel::restore),
        ("get", "/api/v1/rules") => get(read::rules),
        ("post", "/api/v1/rules") => post(act::set_rule),
        ("post", "/api/v1/log/verify") => post(act::verify_log),
        ("post", "/api/v1/rebuild") => post(act::rebuild),
        ("post", "/api/v1/sync") => post(act::sync),
        ("get", "/api/v1/receipts") => get(carry::receipts),
        ("post", "/api/v1/bundle/export") => post(carry::export),
        ("post", "/api/v1/bundle/import") => post(carry::import),
        ("post", "/api/v1/bundle/inspect") => post(carry::inspect),
        ("get", parcel::DOWNLOAD) => get(parcel::download),
        ("post", path) if path == parcel::UPLOADS[0] => post(parcel::inspect),
        ("post", path) if path == parcel::UPLOADS[1] => post(parcel::import),
        ("post", "/api/v1/admit") => post(carry::admit),
        (method, path) => upkeep_handler(method, path),
    }
}

/// The same for what keeps a server in order, and for the older protocol.
fn upkeep_handler(method: &str, path: &str) -> MethodRouter<Arc<Services>> {
    match (method, path) {
        ("get", "/api/v1/cleanup") => get(archive::cleanup_state),
        ("post", "/api/v1/cleanup") => post(archive::cleanup),
        ("get", "/api/v1/disk") => get(archive::disk),
        ("get", "/api/v1/archive") => get(archive::list),
        ("post", "/api/v1/archive") => post(archive::copy),
        ("get", "/api/v1/runs") => get(runs::list),
        ("post", "/api/v1/runs") => post(runs::begin),
        ("get", "/api/v1/runs/kinds") => get(runs::kinds),
        ("get", "/api/v1/runs/{n}") => get(runs::show),
        ("post", "/api/v1/runs/{n}/heartbeat") => post(runs::heartbeat),
        ("post", "/api/v1/runs/{n}/progress") => post(runs::progress),
        ("post", "/api/v1/runs/{n}/complete") => post(runs::complete),
        ("post", "/api/v1/runs/{n}/fail") => post(runs::fail),
        ("get", "/api/v1/reliability") => get(runs::reliability_of_all),
        ("get", "/api/v1/reliability/{peer}") => get(runs::reliability_of_one),
        ("post", "/api/v1/verify") => post(verify::order),
        ("get", "/api/v1/verify") => get(verify::runs),
        ("get", "/api/v1/drift") => get(verify::drift),
        ("get", "/api/v1/join") => get(read::join_plan),
        ("get", "/api/v1/archive/repair") => get(archive::repair_state),
        ("post", "/api/v1/archive/repair") => post(archive::repair),
        ("post", legacy::SYNC) => post(legacy::sync),
        ("get", legacy::CHANGES) => get(legacy_read::changes),
        ("post", legacy::RECEIVE) => post(legacy::receive),
        ("get", legacy::RELIABILITY) => get(legacy::reliability),
        ("post", legacy::CLEANUP) => post(legacy::cleanup),
        ("post", "/api/v1/migration") => post(migration::begin),
        ("post", "/api/v1/migration/renew") => post(migration::renew),
        ("post", "/api/v1/migration/end") => post(migration::end),
        ("get", "/api/v1/alerts") => get(runs::alerts),
        ("post", "/api/v1/alerts/test") => post(runs::test_alerts),
        ("get", "/api/v1/doctor") => get(read::doctor),
        (method, path) => unreachable!("{method} {path} is in the table of routes without a handler"),
    }
}

/// The router behind its guard.
pub(super) fn router(services: Services, port: u16) -> Router {
    let expected = Expected { token: services.token.clone(), port };
    let mut router = Router::new();
    for entry in ROUTES {
        router = router.route(entry.path, handler(entry));
    }
    router
        .method_not_allowed_fallback(wrong_method)
        .fallback(dashboard::serve)
        .layer(middleware::from_fn_with_state(expected, guard))
        .layer(middleware::from_fn(dashboard::harden))
        .with_state(Arc::new(services))
}

async fn wrong_method() -> Response {
    let detail = "this endpoint knows another method: see /api/v1/openapi.json";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail).into_response()
}

/// The OpenAPI description.
fn openapi() -> serde_json::Value {
    use serde_json::json;
    let mut paths = serde_json::Map::new();
    for entry in ROUTES {
        let mut operation = json!({
            "summary": entry.summary,
            "responses": {
                "200": { "description": "done", "content": { "application/json": {} } },
                "default": { "description": "why not", "content": { "application/problem+json": {} } },
            },
        });
        if entry.path == "/healthz" {
            operation["security"] = json!([]);
        }
        let mut parameters = Vec::new();
        for name in entry.path.split('{').skip(1).filter_map(|part| part.split('}').next()) {
            let kind = if name == "n" { "integer" } else { "string" };
            parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": { "type": kind } }));
        }
        if entry.path == parcel::DOWNLOAD {
            operation["responses"]["200"]["content"] = json!({ parcel::KIND: {} });
        }
        if entry.method == "get" {
            parameters.extend(entry.parameters.iter().map(|name| json!({ "name": name, "in": "query", "schema": {} })));
        } else if parcel::UPLOADS.contains(&entry.path) {
            operation["requestBody"] = json!({ "required": true, "content": { parcel::KIND: {} } });
        } else {
            let members: serde_json::Map<_, _> =
                entry.parameters.iter().map(|name| (name.to_string(), json!({}))).collect();
            let schema = json!({ "type": "object", "properties": members, "additionalProperties": false });
            operation["requestBody"] = json!({ "content": { "application/json": { "schema": schema } } });
        }
        if !parameters.is_empty() {
            operation["parameters"] = json!(parameters);
        }
        let path = paths.entry(entry.path).or_insert_with(|| json!({}));
        path[entry.method] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "litemesh", "version": env!("CARGO_PKG_VERSION") },
        "security": [{ "token": [] }],
        "components": { "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } } },
        "paths": paths,
    })
}
