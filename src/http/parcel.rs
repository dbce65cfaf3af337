//! Bundles that come and go with the request itself: a browser saves one, and hands one in, without a path of this machine.
//!
//! Invariant: memory stays flat (a few pieces each way); what is handed in lies in a file of the data directory that has no
//! name any more, so that nothing is left behind however this ends, and never takes the room that the node itself needs;
//! nothing of it is stored before all of it was checked. A download that breaks off is no bundle, and import says so. Called
//! through [`super::routes`]; the guard leaves the body of an upload to this room.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde::Deserialize;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use super::Services;
use super::answer::ask;
use super::archive::free_bytes;
use super::carry::{look_into, prepare, take};
use super::listener::PATIENCE;
use super::problem::Problem;
use crate::monitor::{RunBegin, RunEnd};
use crate::node::bundle_view::{BundleView, ImportView};

/// The kind of a bundle's body. Pages of other origins cannot send it without asking first, which is refused.
pub(super) const KIND: &str = "application/octet-stream";

/// Endpoints that take a bundle as their body.
pub(super) const UPLOADS: [&str; 2] = ["/api/v1/bundle/upload/inspect", "/api/v1/bundle/upload/import"];

/// The endpoint that gives one.
pub(super) const DOWNLOAD: &str = "/api/v1/bundle/download";

/// Bytes of a bundle that is handed in, at most.
pub(super) const UPLOAD_BYTES_MAX: u64 = 4 << 30;

/// Room on the disk that an upload leaves to the node.
const ROOM_KEPT_BYTES: u64 = 64 << 20;

/// Bytes of a bundle that wait for whoever takes them, or for the disk: this many pieces, of this size when they go out.
const PIECES_AHEAD: usize = 4;
const PIECE_BYTES: usize = 1 << 16;

/// Bundles that come or go at one time.
static TURNS: Semaphore = Semaphore::const_new(2);

/// Tells files of one moment apart.
static NUMBER: AtomicU64 = AtomicU64::new(0);

type Shared = State<Arc<Services>>;

fn turn() -> Result<SemaphorePermit<'static>, Problem> {
    TURNS.try_acquire().map_err(|_| {
        let detail = "two bundles are on their way already: wait until one has arrived, then do this again";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "bundles_under_way", detail)
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    #[serde(default, rename = "for")]
    made_for: Option<String>,
}

/// Writes a bundle into the answer.
pub(super) async fn download(
    State(services): Shared,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Problem> {
    let Wanted { made_for } = query.map_err(|rejection| Problem::invalid(rejection.body_text()))?.0;
    let turn = turn()?;
    let export = prepare(&services, made_for).await?;
    let run = RunBegin { kind: "bundle".into(), subject: "export".into(), ..RunBegin::default() };
    let run = services.monitor.begin(run).await;
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let mut pieces = Pieces { sender, held: Vec::with_capacity(PIECE_BYTES) };
        let written = run.finish_with(export.write(&mut pieces), |_| RunEnd::default());
        if let Err(error) = written {
            // The answer breaks off, so that nobody takes it for a whole bundle; it may have no taker any more.
            let _ = pieces.sender.blocking_send(Err(io::Error::other(error.to_string())));
        }
    });
    let body = futures::stream::unfold(receiver, async |mut receiver: mpsc::Receiver<io::Result<Bytes>>| {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    let headers =
        [(header::CONTENT_TYPE, KIND), (header::CONTENT_DISPOSITION, "attachment; filename=\"bundle.litemesh\"")];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// Bytes on their way out, in pieces; waits for whoever takes them.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    held: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(bytes);
        if self.held.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.held, Vec::with_capacity(PIECE_BYTES));
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

pub(super) async fn inspect(State(services): Shared, request: Request) -> Result<Json<BundleView>, Problem> {
    let _turn = turn()?;
    let file = handed_in(&services, request).await?;
    look_into(&services, String::new(), || Ok(file)).await
}

pub(super) async fn import(State(services): Shared, request: Request) -> Result<Json<ImportView>, Problem> {
    let _turn = turn()?;
    let file = handed_in(&services, request).await?;
    take(&services, String::new(), false, || Ok(file)).await
}

/// The body as a file without a name.
async fn handed_in(services: &Services, request: Request) -> Result<File, Problem> {
    let folder = PathBuf::from(ask(&services.port, |node, _| node.disk()).await??.data_dir);
    let most = most_bytes(free_bytes(&folder));
    let stated = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if stated.is_some_and(|bytes: u64| bytes > most) {
        return Err(too_large(most));
    }
    let (sender, mut receiver) = mpsc::channel::<Bytes>(PIECES_AHEAD);
    let written = tokio::task::spawn_blocking(move || {
        let mut file = nameless(&folder)?;
        while let Some(piece) = receiver.blocking_recv() {
            file.write_all(&piece)?;
        }
        file.rewind()?;
        Ok(file)
    });
    let mut bytes = 0u64;
    let mut pieces = request.into_body().into_data_stream();
    loop {
        let piece = tokio::time::timeout(PATIENCE, pieces.next()).await;
        match piece
            .map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the file did not arrive in time"))?
        {
            None => break,
            Some(Err(_)) => return Err(Problem::invalid("the file broke off on its way: hand it in again")),
            Some(Ok(piece)) => {
                bytes += piece.len() as u64;
                if bytes > most {
                    return Err(too_large(most));
                }
                // Nobody takes it any more when writing failed: that is said below.
                if sender.send(piece).await.is_err() {
                    break;
                }
            }
        }
    }
    drop(sender);
    written.await.map_err(|_| Problem::node_busy())?.map_err(|error: io::Error| {
        let detail = format!("the file cannot be kept for the check ({error}): is there room in the data directory?");
        Problem::new(StatusCode::CONFLICT, "cannot_write", detail)
    })
}

/// What an upload may have: its limit, or less where the disk has no room for that.
fn most_bytes(free: Option<u64>) -> u64 {
    free.map_or(UPLOAD_BYTES_MAX, |free| UPLOAD_BYTES_MAX.min(free.saturating_sub(ROOM_KEPT_BYTES)))
}

fn too_large(most: u64) -> Problem {
    let detail = if most < UPLOAD_BYTES_MAX {
        format!(
            "the disk of the data directory has room for {} MB of it: make room there, then hand it in again",
            most / 1_000_000
        )
    } else {
        format!("a file may have {} MB here; larger ones: litemesh bundle import FILE", most / 1_000_000)
    };
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
}

/// A new file whose name is gone at once: the system frees it when it is closed, also when this program dies.
fn nameless(folder: &Path) -> io::Result<File> {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!("bundle-in-{}-{number}.spool", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn an_upload_leaves_room_to_the_node() {
        assert_eq!(most_bytes(None), UPLOAD_BYTES_MAX);
        assert_eq!(most_bytes(Some(UPLOAD_BYTES_MAX * 2)), UPLOAD_BYTES_MAX);
        assert_eq!(most_bytes(Some(ROOM_KEPT_BYTES + 5)), 5);
        assert_eq!(most_bytes(Some(1)), 0);
        assert!(too_large(5).detail.contains("make room"), "{:?}", too_large(5));
        assert!(too_large(UPLOAD_BYTES_MAX).detail.contains("litemesh bundle import"));
    }

    #[test]
    fn what_is_handed_in_leaves_no_file_behind() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = nameless(folder.path()).unwrap();
        file.write_all(b"bundle").unwrap();
        file.rewind().unwrap();
        let mut read = String::new();
        file.read_to_string(&mut read).unwrap();
        assert_eq!((read.as_str(), std::fs::read_dir(folder.path()).unwrap().count()), ("bundle", 0));
    }
}
