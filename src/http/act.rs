//! Endpoints that do something.
//!
//! Invariant: what takes long runs on a snapshot beside the node's thread; bodies with unknown members are refused.
//! Called through [`super::routes`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Services;
use super::answer::ask;
use super::moment::{bad_moment, parse_moment};
use super::problem::Problem;
use super::query::{check_absolute, parse_peer};
use super::read::status_of;
use crate::model::{NodeId, Role, counted, fits};
use crate::monitor::{RunBegin, RunEnd};
use crate::node::view::{LogReport, PeerView, RebuildReport, RuleView};
use crate::node::{Input, Node};

/// Seconds that a sync may wait in one request; callers ask again.
const SYNC_WAIT_S_MAX: f64 = 5.0;

/// Pause between two rounds of asking.
const SYNC_LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long a peer may take to say where it stands.
const SYNC_ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Equal in this many rounds is equal: in the first, a peer may not have captured yet what its app wrote just before.
const SYNC_ROUNDS: u32 = 2;

/// Life of an invite, in seconds: default and limits.
const INVITE_S: (u64, u64, u64) = (24 * 3600, 60, 30 * 24 * 3600);

type Shared = State<Arc<Services>>;
type Reply<T> = Result<Json<T>, Problem>;

/// The body's members; an empty body has none.
pub(super) fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    let body = if body.is_empty() { b"{}" } else { body.as_ref() };
    serde_json::from_slice(body).map_err(|error| Problem::invalid(format!("the body is not what is expected: {error}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddPeer {
    address: String,
}

pub(super) async fn add_peer(State(services): Shared, body: Bytes) -> Reply<Value> {
    let AddPeer { address } = parse(&body)?;
    services.network.add_peer(address.clone()).await.map_err(Problem::invalid)?;
    Ok(Json(json!({ "address": address, "remembered": true })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Invite {
    #[serde(default)]
    expires_s: Option<u64>,
    #[serde(default)]
    role: Option<String>,
}

pub(super) async fn invite(State(services): Shared, body: Bytes) -> Reply<Value> {
    let (default, min, max) = INVITE_S;
    let Invite { expires_s, role } = parse(&body)?;
    let role = super::members::role(role.as_deref().unwrap_or(Role::Member.word()))?;
    let life_s = expires_s.unwrap_or(default);
    if !(min..=max).contains(&life_s) {
        return Err(Problem::invalid(format!("`expires_s` is `{life_s}`, but must be {min} to {max} seconds")));
    }
    let addresses = services.network.addresses().await;
    let mut secret = [0; 16];
    getrandom::fill(&mut secret).map_err(|_| Problem::invalid("the system gives no random bytes"))?;
    let code = ask(&services.port, move |node, now| node.invite_as(secret, role, addresses, life_s * 1000, now));
    let code = code.await??;
    let expires = rfc3339(code.expires_ms);
    let text = code.to_text();
    let picture = picture(&text);
    Ok(Json(json!({
        "code": text, "expires": expires, "addresses": code.addresses, "role": role.word(), "qr": picture,
    })))
}

/// The code as a QR picture: a string of 0 and 1 (dark) for each line, without the margin; none where it does not fit.
fn picture(text: &str) -> Option<Vec<String>> {
    let made = qrcode::QrCode::with_error_correction_level(text, qrcode::EcLevel::L).ok()?;
    let digit = |color: &qrcode::Color| if *color == qrcode::Color::Dark { '1' } else { '0' };
    Some(made.to_colors().chunks(made.width()).map(|line| line.iter().map(digit).collect()).collect())
}

pub(super) fn rfc3339(ms: u64) -> String {
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetRule {
    db: String,
    table: String,
    #[serde(default)]
    column: Option<String>,
    rule: String,
}

pub(super) async fn set_rule(State(services): Shared, body: Bytes) -> Reply<RuleView> {
    let SetRule { db, table, column, rule } = parse(&body)?;
    let set = move |node: &mut Node, now| node.set_rule(&db, &table, column.as_deref(), &rule, now);
    Ok(Json(ask(&services.port, set).await??))
}

/// On a snapshot of the log, in a thread of its own.
pub(super) async fn verify_log(State(services): Shared, body: Bytes) -> Reply<LogReport> {
    let _: Empty = parse(&body)?;
    let (log, membership) = ask(&services.port, |node, _| (node.log(), node.membership().clone())).await?;
    let guard = services.monitor.begin(RunBegin { kind: "verify_log".into(), ..RunBegin::default() }).await;
    let checked = tokio::task::spawn_blocking(move || Node::verify_log_of(&log, &membership));
    let checked = checked.await.map_err(|_| Problem::node_busy())?;
    let end = |report: &LogReport| RunEnd {
        records: Some(report.events),
        bytes: report.bytes,
        error: report.faults.first().map(|fault| format!("data: {fault}")),
        ..RunEnd::default()
    };
    Ok(Json(guard.finish_with(checked, end)?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rebuild {
    out: PathBuf,
    /// As of this time.
    time: Option<String>,
}

/// On a snapshot of the log, in a thread of its own.
pub(super) async fn rebuild(State(services): Shared, body: Bytes) -> Reply<RebuildReport> {
    let Rebuild { out, time } = parse(&body)?;
    check_absolute("out", &out)?;
    let (replay, now) = ask(&services.port, |node, now| (node.replay(), now)).await?;
    let until_ms = time.map(|text| parse_moment(&text, now.wall_ms).ok_or_else(|| bad_moment("time", &text)));
    let (replay, until_ms) = (replay?, until_ms.transpose().map_err(Problem::invalid)?);
    let guard = services.monitor.begin(RunBegin { kind: "rebuild".into(), ..RunBegin::default() }).await;
    let written = tokio::task::spawn_blocking(move || replay.write(&out, until_ms));
    let written = written.await.map_err(|_| Problem::node_busy())?;
    let rows = |report: &RebuildReport| report.databases.iter().map(|database| database.rows).sum();
    let end = |report: &RebuildReport| RunEnd { records: Some(rows(report)), ..RunEnd::default() };
    Ok(Json(guard.finish_with(written, end)?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sync {
    #[serde(default)]
    peer: Option<String>,
    #[serde(default)]
    wait_s: f64,
    /// Whoever asks asks again when not all are equal yet: that counts as one sync, which has not failed.
    #[serde(default)]
    again: bool,
}

/// Why a sync failed, its class first.
fn why_not(name: &str, peers: &[&PeerView], outbox: u64, held: u64) -> String {
    if !name.is_empty() && peers.iter().all(|peer| peer.state != "connected") {
        return format!("network: {name} is away");
    }
    let behind: u64 = peers.iter().map(|peer| peer.behind).sum();
    let ahead: u64 = peers.iter().map(|peer| peer.ahead).sum();
    match (held, outbox + behind + ahead) {
        (1.., 0) => format!("data: {} for a schema or another event", waiting(held)),
        _ => format!(
            "timeout: not equal in time: {} to come, {} to go, {outbox} captured rows not in the log yet, {held} held",
            counted(behind, "event"),
            counted(ahead, "event"),
        ),
    }
}

fn waiting(held: u64) -> String {
    format!("{} {}", counted(held, "event"), fits(held, "waits", "wait"))
}

/// Asks everybody for their heads, then looks until all are equal or the time is over.
pub(super) async fn sync(State(services): Shared, body: Bytes) -> Reply<Value> {
    let Sync { peer, wait_s, again } = parse(&body)?;
    let (peer, name) = match peer {
        Some(text) => {
            let status = status_of(&services).await?;
            let peer = parse_peer(&status, &text).map_err(Problem::not_found)?;
            let view = status.peers.iter().find(|view| view.id == peer.to_string());
            (Some(peer), view.map(|view| view.name.clone()).unwrap_or_default())
        }
        None => (None, String::new()),
    };
    let until = Instant::now() + Duration::from_secs_f64(wait_s.clamp(0.0, SYNC_WAIT_S_MAX));
    let run = RunBegin { kind: "sync".into(), subject: name.clone(), server: peer, ..RunBegin::default() };
    let guard = if again { None } else { Some(services.monitor.begin(run.clone()).await) };
    let mut rounds = 0;
    let in_sync = loop {
        rounds = if equal_now(&services, peer).await? { rounds + 1 } else { 0 };
        if rounds == SYNC_ROUNDS {
            break true;
        }
        if rounds == 0 && Instant::now() >= until {
            break false;
        }
        tokio::time::sleep(SYNC_LOOK_AGAIN).await;
    };
    let status = status_of(&services).await?;
    let peers: Vec<_> = status.peers.iter().filter(|view| peer.is_none_or(|id| view.id == id.to_string())).collect();
    let outbox: u64 = status.databases.iter().map(|database| database.outbox).sum();
    let held: u64 = status.databases.iter().map(|database| database.held_events).sum();
    let guard = match guard {
        // Whoever asks again has not failed yet.
        None if in_sync => Some(services.monitor.begin(run).await),
        guard => guard,
    };
    if let Some(guard) = guard {
        let error = (!in_sync).then(|| why_not(&name, &peers, outbox, held));
        guard.end(RunEnd { metadata: Some(json!({ "in_sync": in_sync })), error, ..RunEnd::default() });
    }
    Ok(Json(json!({ "in_sync": in_sync, "peers": peers, "outbox": outbox, "held_events": held })))
}

/// One round: everybody is asked where it stands, everybody answers, and all stand at the same place.
pub(super) async fn equal_now(services: &Services, peer: Option<NodeId>) -> Result<bool, Problem> {
    let asked =
        ask(&services.port, move |node, now| node.handle(Input::SyncRequested(peer), now).map(|()| now.wall_ms));
    let asked_ms = asked.await??;
    let until = Instant::now() + SYNC_ANSWER_WITHIN;
    loop {
        let peers: Vec<_> = peer.into_iter().collect();
        let look = move |node: &mut Node, _| (node.heard_since(&peers, asked_ms), node.in_sync(&peers));
        match ask(&services.port, look).await? {
            (true, equal) => return Ok(equal),
            (false, _) if Instant::now() >= until => return Ok(false),
            (false, _) => tokio::time::sleep(SYNC_LOOK_AGAIN / 5).await,
        }
    }
}
