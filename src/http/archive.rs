//! Endpoints of the archive: cleanup, disk use, the season's archive.
//!
//! Invariant: a cleanup runs in the node's own ticks; who asked waits a bounded time and is told how far it is. Files are
//! written beside the node's thread. Called through [`super::routes`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::Services;
use super::act::parse;
use super::answer::ask;
use super::problem::Problem;
use super::query::check_absolute;
use crate::node::archive_view::{ArchiveView, CleanupView, DiskView, MadeView, RepairView};

/// Seconds that one request waits for a cleanup: when nobody says, and at most.
const WAIT_S: (f64, f64) = (20.0, 25.0);

/// Pause between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(50);

type Shared = State<Arc<Services>>;
type Reply<T> = Result<Json<T>, Problem>;

/// What a cleanup came to, or how far it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CleanupReply {
    /// False: it failed; `problem` says why.
    pub success: bool,
    /// All of it; `removed` are the events whose bodies were moved out of the log.
    #[serde(flatten)]
    pub cleanup: CleanupView,
}

impl From<CleanupView> for CleanupReply {
    fn from(cleanup: CleanupView) -> CleanupReply {
        CleanupReply { success: cleanup.state != "failed", cleanup }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cleanup {
    #[serde(default)]
    days_to_keep: Option<u32>,
    /// Everything that every member holds, whatever its age.
    #[serde(default)]
    all: bool,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    wait_s: Option<f64>,
}

pub(super) async fn cleanup(State(services): Shared, body: Bytes) -> Reply<CleanupReply> {
    let Cleanup { days_to_keep, all, dry_run, wait_s } = parse(&body)?;
    if dry_run {
        let plan = ask(&services.port, move |node, now| {
            node.plan_cleanup(days(days_to_keep, all, node.retention().days_to_keep), now)
        });
        return Ok(Json(plan.await??.into()));
    }
    let wait = Duration::from_secs_f64(wait_s.unwrap_or(WAIT_S.0).clamp(0.0, WAIT_S.1));
    Ok(Json(clean_up(&services, days_to_keep, all, wait).await?))
}

fn days(days_to_keep: Option<u32>, all: bool, usual: u32) -> Option<u32> {
    if all { None } else { Some(days_to_keep.unwrap_or(usual)) }
}

/// Begins a cleanup and waits for it, for a while. `all`: whatever the age.
pub(super) async fn clean_up(
    services: &Services,
    days_to_keep: Option<u32>,
    all: bool,
    wait: Duration,
) -> Result<CleanupReply, Problem> {
    let until = Instant::now() + wait;
    let begun = ask(&services.port, move |node, now| {
        node.start_cleanup(days(days_to_keep, all, node.retention().days_to_keep), now)
    });
    let mut view = begun.await??;
    while view.state == "running" && Instant::now() < until {
        tokio::time::sleep(LOOK_EVERY).await;
        view = ask(&services.port, |node, _| node.cleanup()).await?;
    }
    Ok(view.into())
}

pub(super) async fn cleanup_state(State(services): Shared) -> Reply<CleanupReply> {
    Ok(Json(ask(&services.port, |node, _| node.cleanup()).await?.into()))
}

pub(super) async fn disk(State(services): Shared) -> Reply<DiskView> {
    let mut view = ask(&services.port, |node, _| node.disk()).await??;
    view.free_bytes = free_bytes(Path::new(&view.data_dir));
    Ok(Json(view))
}

/// Bytes that this user may still write on the disk of a directory.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let found = nix::sys::statvfs::statvfs(path).ok()?;
    // On a 32-bit board these are 32-bit numbers.
    #[allow(clippy::useless_conversion)]
    Some(u64::from(found.blocks_available()).saturating_mul(u64::from(found.fragment_size())))
}

pub(super) async fn list(State(services): Shared) -> Reply<ArchiveView> {
    Ok(Json(ask(&services.port, |node, _| node.archive_list()).await??))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Copy {
    out: PathBuf,
}

/// Copies all segments, and what they are, into a directory of this machine.
pub(super) async fn copy(State(services): Shared, body: Bytes) -> Reply<MadeView> {
    let Copy { out } = parse(&body)?;
    check_absolute("out", &out)?;
    let copy = ask(&services.port, |node, now| node.archive_copy(now)).await??;
    let made = tokio::task::spawn_blocking(move || copy.write(&out));
    Ok(Json(made.await.map_err(|_| Problem::node_busy())??))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

pub(super) async fn repair(State(services): Shared, body: Bytes) -> Reply<RepairView> {
    let Empty {} = parse(&body)?;
    Ok(Json(ask(&services.port, |node, _| node.start_repair()).await?))
}

pub(super) async fn repair_state(State(services): Shared) -> Reply<RepairView> {
    Ok(Json(ask(&services.port, |node, _| node.repair()).await?))
}
