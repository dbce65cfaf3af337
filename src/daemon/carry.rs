//! Bundles, receipts and requests on a node that does not run, straight on its data directory.
//!
//! A newcomer that never meets a member asks by a file (`join --request`), is admitted by a member (`admit`), and enters the
//! cluster with the first bundle made after that. Until then `run` refuses: it would found a cluster of its own.
//! Invariant: holds the data directory's lock; an import opens no app's file (the next start shows what came), an export
//! opens those that are enrolled, because what the app wrote since the last run is in them. Called by cli.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::databases::{Choice, choose, remember};
use super::enrol::open_without_files;
use super::machine::{clock_now, random};
use super::node_thread::{Start, open};
use super::run::{node_name, node_settings};
use super::supervised::{Meetings, check_decided, decide, rows_here};
use super::{DaemonError, DataDir};
use crate::config::Config;
use crate::http::parse_peer;
use crate::log::Log;
use crate::node::bundle::BundleError;
use crate::node::bundle_read::{BundleCheck, open_bundle};
use crate::node::bundle_view::{AdmittedView, BundleView, ExportView, ImportView, ReceiptsView};
use crate::node::membership::node_id;
use crate::node::{Input, Node};
use crate::wire::request::AdmissionRequest;

/// Looks at the app's files before an export, at most: each takes a part of what waits there.
const LOOKS_MAX: usize = 1_000;

/// Where a bundle goes.
pub enum Outlet<'o> {
    /// A file, or a directory in which it gets a name of its own.
    Path(&'o Path),
    /// Anything else.
    Stream(&'o mut dyn Write),
}

/// A request to be admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Requested {
    /// The request, one line.
    pub request: String,
    /// The node's key in hex.
    pub node_id: String,
    /// Its name.
    pub name: String,
    /// What both sides can compare by voice.
    pub fingerprint: String,
}

/// The node over the files that it has enrolled; without files where there are none, or where a person's word is missing.
fn open_with_files(config: &Config, data: &DataDir, directory: &Path) -> Result<Node, DaemonError> {
    if data.remembered()?.is_empty() || check_decided(data).is_err() {
        return open_without_files(config, data);
    }
    let settings = node_settings(config, data, choose(config, data, directory, false)?)?;
    let mut node = open(&Start { settings, log_path: data.log_path(), found: None, verify: Default::default() })?;
    for _ in 0..LOOKS_MAX {
        node.handle(Input::Tick, clock_now())?;
        while node.poll_effect().is_some() {}
        let waiting: u64 = node.status(clock_now())?.databases.iter().map(|database| database.outbox).sum();
        if waiting == 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Ok(node)
}

/// Makes a bundle. `made_for`: a member's name, id or number.
pub fn export_bundle(
    config: &Config,
    directory: &Path,
    made_for: Option<&str>,
    outlet: Outlet<'_>,
) -> Result<ExportView, DaemonError> {
    let (data, _lock) = DataDir::lock_node(config)?;
    let node = open_with_files(config, &data, directory)?;
    let now = clock_now();
    let made_for = match made_for {
        Some(text) => Some(parse_peer(&node.status(now)?, text).map_err(crate::node::NodeError::Invalid)?),
        None => None,
    };
    let export = node.bundle_export(made_for, random()?, now)?;
    let view = match outlet {
        Outlet::Path(path) => export.write_file(path)?,
        Outlet::Stream(mut out) => export.write(&mut out)?,
    };
    node.close()?;
    Ok(view)
}

/// Takes a bundle; enters the cluster with it, when this server asked to be admitted.
pub fn import_bundle(config: &Config, path: &Path, news_only: bool) -> Result<ImportView, DaemonError> {
    let (data, _lock) = DataDir::lock_node(config)?;
    let mut file = open_bundle(path)?;
    let log = Log::open(&data.log_path())?;
    let entered = !Node::has_cluster(&log)?;
    let mut view = if entered {
        if !data.request_path().exists() {
            return Err(DaemonError::NotAsked { path: data.path().to_path_buf() });
        }
        let view = enter(config, &data, log, &mut file)?;
        data.token_or_new(config.http.token_file.as_deref())?;
        view
    } else {
        drop(log);
        let mut node = open_without_files(config, &data)?;
        let check = node.bundle_check(clock_now());
        let give = &mut |step| Ok(node.take_carried(step, clock_now())?);
        let view = check.take(&mut file, news_only, give)?;
        node.close()?;
        view
    };
    data.forget_request()?;
    view.entered = entered;
    view.bundle.path = path.display().to_string();
    Ok(view)
}

/// The cluster is the one whose member admitted this server: nothing is entered before the whole bundle was found good.
fn enter(config: &Config, data: &DataDir, log: Log, file: &mut File) -> Result<ImportView, DaemonError> {
    let nothing = Choice { databases: Vec::new(), source: String::new() };
    let settings = node_settings(config, data, nothing)?;
    let log = Arc::new(log);
    let check = BundleCheck::newcomer(settings.key_seed, log.clone(), clock_now());
    let mut node: Option<Node> = None;
    let view = check.take(file, false, &mut |step| {
        let now = clock_now();
        if let (crate::node::bundle::Carried::Members(manifest), None) = (&step, &node) {
            Node::enter(&log, manifest.members.clone())?;
            node = Some(Node::open(settings.clone(), log.clone(), now)?);
        }
        match &mut node {
            Some(node) => Ok(node.take_carried(step, now)?),
            None => Err(BundleError::Stopped),
        }
    })?;
    if let Some(node) = node {
        node.close()?;
    }
    Ok(view)
}

/// Says what a bundle holds. Stores nothing.
pub fn inspect_bundle(config: &Config, path: &Path) -> Result<BundleView, DaemonError> {
    let (data, _lock) = DataDir::lock_node(config)?;
    let mut file = open_bundle(path)?;
    let log = Log::open(&data.log_path())?;
    let check = if Node::has_cluster(&log)? {
        drop(log);
        open_without_files(config, &data)?.bundle_check(clock_now())
    } else {
        BundleCheck::newcomer(data.key_seed()?, Arc::new(log), clock_now())
    };
    let mut view = check.check(&mut file, true)?.view;
    view.path = path.display().to_string();
    Ok(view)
}

/// Who holds what.
pub fn receipts(config: &Config, directory: &Path) -> Result<ReceiptsView, DaemonError> {
    let (data, _lock) = DataDir::lock_node(config)?;
    let node = open_with_files(config, &data, directory)?;
    let view = node.receipts()?;
    node.close()?;
    Ok(view)
}

/// Admits who asked.
pub fn admit_request(config: &Config, text: &str) -> Result<AdmittedView, DaemonError> {
    let request = AdmissionRequest::from_text(text)?;
    let (data, _lock) = DataDir::lock_node(config)?;
    let mut node = open_without_files(config, &data)?;
    let view = node.admit_request(&request, clock_now())?;
    node.close()?;
    Ok(view)
}

/// Makes this data directory a server that asks to be admitted. `accepted`: a person said yes to what will happen to the
/// rows that are here.
pub fn request_admission(
    config: &Config,
    choice: &Choice,
    meetings: Meetings,
    accepted: bool,
) -> Result<Requested, DaemonError> {
    let (data, _lock, log) = DataDir::lock_newcomer(config)?;
    let rows = rows_here(choice)?;
    if rows > 0 && !accepted && meetings.is_empty() {
        return Err(DaemonError::RequestRows { rows });
    }
    let key_seed = data.key_seed_or_new()?;
    let request =
        AdmissionRequest { node: node_id(&key_seed), name: node_name(config, &data)?, created_ms: clock_now().wall_ms };
    remember(&data, &choice.databases)?;
    decide(&log, &data, meetings)?;
    let text = request.to_text(&key_seed);
    data.write(&data.request_path(), format!("{text}\n").as_bytes())?;
    Ok(Requested {
        node_id: request.node.to_string(),
        fingerprint: request.fingerprint(),
        name: request.name,
        request: text,
    })
}

/// Refuses to start while an answer to a request is awaited.
pub(super) fn check_asked(data: &DataDir) -> Result<(), DaemonError> {
    if !data.request_path().exists() {
        return Ok(());
    }
    if data.log_path().exists() && Node::has_cluster(&Log::open(&data.log_path())?)? {
        // The answer came, and the note of the request was left behind by a crash.
        return data.forget_request();
    }
    Err(DaemonError::RequestPending { request: data.request_path() })
}

/// A file in the data directory that is gone when this is: for bundles that come or go through a pipe.
#[derive(Debug)]
pub struct Spool(PathBuf);

/// Makes room for a bundle from or for a pipe, and fills it from `source`.
pub fn spool(config: &Config, source: Option<&mut dyn Read>) -> Result<Spool, DaemonError> {
    let data = DataDir::of_node(config)?;
    let spool = Spool(data.path().join(format!("bundle-{}.spool", std::process::id())));
    if let Some(mut source) = source {
        let failed = |source| DaemonError::Files { action: "write", path: spool.0.clone(), source };
        let mut file = File::create(&spool.0).map_err(failed)?;
        std::io::copy(&mut source, &mut file).map_err(failed)?;
    }
    Ok(spool)
}

impl Spool {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // Encrypted, and told by its name: left behind, it does no harm.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl DataDir {
    fn request_path(&self) -> PathBuf {
        self.path().join("join-request")
    }

    fn forget_request(&self) -> Result<(), DaemonError> {
        let path = self.request_path();
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(DaemonError::Files { action: "remove", path, source })
            }
            _ => Ok(()),
        }
    }
}
