//! Endpoints of bundles and receipts.
//!
//! Invariant: files are read and written beside the node's thread, which gets one bounded step of a bundle at a time; paths
//! are of this machine, absolute, and come from who holds the token. Called through [`super::routes`], and by
//! [`super::parcel`] for bundles that come and go with the request itself.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use serde::Deserialize;

use super::Services;
use super::act::parse;
use super::answer::ask;
use super::problem::Problem;
use super::query::{check_absolute, parse_peer};
use super::read::status_of;
use crate::monitor::{RunBegin, RunEnd};
use crate::node::bundle::{BundleError, Carried};
use crate::node::bundle_read::open_bundle;
use crate::node::bundle_view::{AdmittedView, BundleView, ExportView, ImportView, ReceiptsView};
use crate::node::bundle_write::BundleExport;
use crate::node::port::NodePort;
use crate::wire::request::AdmissionRequest;

/// How long one step of a bundle waits for the node.
const STEP_WITHIN: Duration = Duration::from_secs(60);

/// Pause when the node's queue is full.
const STEP_AGAIN: Duration = Duration::from_millis(20);

type Shared = State<Arc<Services>>;
type Reply<T> = Result<Json<T>, Problem>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Export {
    path: PathBuf,
    #[serde(default, rename = "for")]
    made_for: Option<String>,
}

pub(super) async fn export(State(services): Shared, body: Bytes) -> Reply<ExportView> {
    let Export { path, made_for } = parse(&body)?;
    check_absolute("path", &path)?;
    let export = prepare(&services, made_for).await?;
    beside(&services, "export", move || export.write_file(&path)).await
}

/// All that an export needs: of everything, or of what a peer is not known to hold.
pub(super) async fn prepare(services: &Services, made_for: Option<String>) -> Result<BundleExport, Problem> {
    let made_for = match made_for {
        Some(text) => Some(parse_peer(&status_of(services).await?, &text).map_err(Problem::not_found)?),
        None => None,
    };
    let mut dice = [0; 32];
    getrandom::fill(&mut dice).map_err(|_| Problem::invalid("the system gives no random bytes"))?;
    Ok(ask(&services.port, move |node, now| node.bundle_export(made_for, dice, now)).await??)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Import {
    path: PathBuf,
    #[serde(default)]
    news_only: bool,
}

pub(super) async fn import(State(services): Shared, body: Bytes) -> Reply<ImportView> {
    let Import { path, news_only } = parse(&body)?;
    check_absolute("path", &path)?;
    let shown = path.display().to_string();
    take(&services, shown, news_only, move || open_bundle(&path)).await
}

/// Takes the bundle that `open` gives, called beside the node; `shown` is its name for people.
pub(super) async fn take(
    services: &Services,
    shown: String,
    news_only: bool,
    open: impl FnOnce() -> Result<File, BundleError> + Send + 'static,
) -> Reply<ImportView> {
    let check = ask(&services.port, |node, now| node.bundle_check(now)).await?;
    let port = services.port.clone();
    beside(services, "import", move || {
        let mut view = check.take(&mut open()?, news_only, &mut |step| give(&port, &step))?;
        view.bundle.path = shown;
        Ok(view)
    })
    .await
}

/// Hands one step to the node and waits until it is durable: never two at once, so that peers and the app get their turn.
fn give(port: &Arc<dyn NodePort>, step: &Carried) -> Result<u64, BundleError> {
    let until = Instant::now() + STEP_WITHIN;
    loop {
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        let step = step.clone();
        let job = move |node: &mut crate::node::Node, now| {
            // Nobody waits any more when sending fails: nothing to do.
            let _ = reply.send(node.take_carried(step, now));
        };
        if port.submit(Box::new(job)) {
            return Ok(answer.recv_timeout(STEP_WITHIN).map_err(|_| BundleError::Stopped)??);
        }
        if Instant::now() >= until {
            return Err(BundleError::Stopped);
        }
        std::thread::sleep(STEP_AGAIN);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Inspect {
    path: PathBuf,
}

pub(super) async fn inspect(State(services): Shared, body: Bytes) -> Reply<BundleView> {
    let Inspect { path } = parse(&body)?;
    check_absolute("path", &path)?;
    let shown = path.display().to_string();
    look_into(&services, shown, move || open_bundle(&path)).await
}

/// Says what the bundle that `open` gives holds; stores nothing.
pub(super) async fn look_into(
    services: &Services,
    shown: String,
    open: impl FnOnce() -> Result<File, BundleError> + Send + 'static,
) -> Reply<BundleView> {
    let check = ask(&services.port, |node, now| node.bundle_check(now)).await?;
    beside(services, "inspect", move || {
        let mut view = check.check(open()?, true)?.view;
        view.path = shown;
        Ok(view)
    })
    .await
}

pub(super) async fn receipts(State(services): Shared) -> Reply<ReceiptsView> {
    Ok(Json(ask(&services.port, |node, _| node.receipts()).await??))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Admit {
    request: String,
}

pub(super) async fn admit(State(services): Shared, body: Bytes) -> Reply<AdmittedView> {
    let Admit { request } = parse(&body)?;
    let request = AdmissionRequest::from_text(&request).map_err(|error| Problem::invalid(error.to_string()))?;
    Ok(Json(ask(&services.port, move |node, now| node.admit_request(&request, now)).await??))
}

/// Beside the node's thread, as a run.
async fn beside<T: Send + 'static>(
    services: &Services,
    what: &str,
    work: impl FnOnce() -> Result<T, BundleError> + Send + 'static,
) -> Reply<T> {
    let run = RunBegin { kind: "bundle".into(), subject: what.into(), ..RunBegin::default() };
    let guard = services.monitor.begin(run).await;
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| Problem::node_busy())?;
    Ok(Json(guard.finish_with(done, |_| RunEnd::default())?))
}
