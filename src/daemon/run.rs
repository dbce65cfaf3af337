//! `litemesh run`: from the lock to the last byte.
//!
//! Invariant: nothing is announced before everything listens; at the end the network says goodbye first, the node commits
//! last, and all of it takes less than five seconds. Called by cli.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::carry::check_asked;
use super::control::Control;
use super::databases::{Choice, remember};
use super::enrol::new_phrase;
use super::follow::Follower;
use super::machine::{machine_id, random};
use super::node_thread::{Founding, NodeThread, Start, while_busy};
use super::observe::{Observer, channels};
use super::reserve::Reserve;
use super::rotate::finish_rotation;
use super::supervised::check_decided;
use super::{DaemonError, DataDir, DataLock, RunInfo, checks, choose, file_settings, host_name, watch as file_watch};
use crate::config::Config;
use crate::http::{self, Services};
use crate::model::NodeId;
use crate::monitor::deliver::Channels;
use crate::monitor::recorder::MonitorThread;
use crate::monitor::{Monitor, MonitorSettings};
use crate::net::{self, NetCommand, NetError, NetSettings};
use crate::node::membership::node_id;
use crate::node::port::NodePort as _;
use crate::node::{Effect, Node, NodeSettings, Now};
use crate::sqlite::AppFile;

/// Effects that may wait for the network.
pub(super) const EFFECTS_MAX: usize = 1_024;

/// Commands that may wait for the network.
const COMMANDS_MAX: usize = 16;

/// How long the goodbyes may take, and the node's last commit.
const GOODBYE: (Duration, Duration) = (Duration::from_millis(1_000), Duration::from_millis(2_500));

/// How long run tracking may take for its last rows.
const MONITOR_GOODBYE: Duration = Duration::from_millis(500);

/// What the ready line tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ready {
    /// The node's key in hex.
    pub node_id: String,
    /// Multiaddrs that peers can dial.
    pub listen: Vec<String>,
    /// URL of the API; empty when it is off.
    pub http: String,
    /// The recovery phrase of a cluster that was founded just now: for a person's eyes, once.
    #[serde(skip)]
    pub recovery_phrase: Option<String>,
}

/// What `run` is asked for beside the settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Make and use sample databases when none is named.
    pub sample: bool,
    /// Admit whoever knocks from the local network, for so long.
    pub trust_lan_for: Option<Duration>,
}

/// Runs a node until SIGTERM or SIGINT. `announce` is called once, when everything listens.
pub fn run(
    config: &Config,
    directory: &Path,
    wishes: Wishes,
    announce: &mut dyn FnMut(&Ready),
) -> Result<(), DaemonError> {
    match run_once(config, directory, wishes, announce) {
        // Not even a pid could be written: with the room that was set aside the node can start, and say what is wrong.
        Err(DaemonError::Files { source, .. })
            if source.kind() == std::io::ErrorKind::StorageFull && Reserve::of(&config.data_dir).give_up() =>
        {
            run_once(config, directory, wishes, announce)
        }
        done => done,
    }
}

fn run_once(
    config: &Config,
    directory: &Path,
    wishes: Wishes,
    announce: &mut dyn FnMut(&Ready),
) -> Result<(), DaemonError> {
    let use_sample = wishes.sample;
    let data = DataDir::at(&config.data_dir);
    if use_sample {
        // The sample may go into it: closed to others before anything is in it.
        data.create()?;
    }
    let choice = choose(config, &data, directory, use_sample)?;
    data.create()?;
    let lock = data.lock()?;
    check_decided(&data)?;
    finish_rotation(&data)?;
    check_asked(&data)?;
    if !data.log_path().exists() && !data.remembered()?.is_empty() {
        return Err(DaemonError::LogGone { path: data.path().to_path_buf() });
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|source| DaemonError::Runtime { source })?;
    let result = runtime.block_on(run_locked(config, &data, choice, wishes, announce));
    data.remove_run_info();
    // Not waited for: whatever still runs there has had its time.
    runtime.shutdown_background();
    drop::<DataLock>(lock);
    result
}

/// Settings of the node over a choice of databases.
pub(super) fn node_settings(config: &Config, data: &DataDir, choice: Choice) -> Result<NodeSettings, DaemonError> {
    Ok(NodeSettings {
        data_dir: data.path().to_path_buf(),
        key_seed: data.key_seed_or_new()?,
        name: node_name(config, data)?,
        databases: choice.databases,
        entropy: random()?,
        machine_id: machine_id(),
        pace: config.network.pace.clone(),
        retention: config.retention,
    })
}

/// The name in the settings, else the one it had before, else the host's. Remembered for later starts.
pub(super) fn node_name(config: &Config, data: &DataDir) -> Result<String, DaemonError> {
    let before = data.remembered_name()?;
    let name = match (config.name.is_empty(), before) {
        (false, _) => config.name.clone(),
        (true, Some(name)) => name,
        (true, None) => host_name(),
    };
    data.remember_name(&name)?;
    Ok(name)
}

async fn run_locked(
    config: &Config,
    data: &DataDir,
    choice: Choice,
    wishes: Wishes,
    announce: &mut dyn FnMut(&Ready),
) -> Result<(), DaemonError> {
    // Signals count from here on: a stop during a long recovery is not lost.
    let mut stop = Stop::new()?;
    for database in &choice.databases {
        tracing::info!(name = database.name, path = %database.path.display(), "database ({})", choice.source);
        // A wrong path must not leave a new cluster behind.
        while_busy(|| Ok(AppFile::open(file_settings(database)).map(drop)?))?;
    }
    let listener = match config.http.listen {
        Some(address) => Some(http::bind(address).await?),
        None => None,
    };
    let settings = node_settings(config, data, choice)?;
    let (key_seed, databases) = (settings.key_seed, settings.databases.clone());
    let (effects, effects_out) = mpsc::channel(EFFECTS_MAX);
    let (phrase, recovery) = new_phrase()?;
    let found = Some(Founding { cluster_name: format!("{}'s cluster", settings.name), recovery });
    let start = Start { settings, log_path: data.log_path(), found, verify: config.verify.clone() };
    let tracking = start_monitor(data, &databases, config.run_days_to_keep)?;
    let monitor = tracking.monitor.clone();
    let Some(thread) = start_node(start, effects, monitor.clone(), &mut stop).await? else { return Ok(()) };
    remember(data, &databases)?;
    let paths: Vec<_> = databases.into_iter().map(|database| database.path).collect();
    let told = Arc::new(channels(&config.alerts, &node_name(config, data)?));
    let watcher = file_watch::watch(&paths, thread.handle.clone());

    let (shut, shutdown) = watch::channel(false);
    let started = start_network(config, key_seed, &thread, effects_out, shutdown.clone()).await;
    let mut network = match started {
        Ok(network) => network,
        Err(error) => {
            stop_node(thread).await?;
            return Err(error);
        }
    };
    let recovery_phrase = match admitting(&thread, recovery, wishes).await {
        Ok(founded) => founded.then_some(phrase),
        Err(error) => {
            stop_node(thread).await?;
            return Err(error);
        }
    };
    let observer = Observer::new(config, thread.handle.clone(), monitor.clone(), told.clone(), &paths);
    observer.start(&shutdown);
    Follower::new(thread.handle.clone(), monitor.clone()).start(shutdown.clone());
    let (services, token_file) = services(config, data, &thread, &network, (monitor, told))?;
    let url = listener.as_ref().and_then(|listener| listener.local_addr().ok()).map(|it| format!("http://{it}"));
    let serving = listener.map(|listener| tokio::spawn(http::serve(listener, services, shutdown)));
    let ready = Ready {
        node_id: node_id(&key_seed).to_string(),
        listen: network.control.listening.clone(),
        http: url.clone().unwrap_or_default(),
        recovery_phrase,
    };
    let (node, listen) = (ready.node_id.clone(), ready.listen.clone());
    data.write_run_info(&RunInfo { pid: std::process::id(), http: url, token_file, node_id: node, listen })?;
    announce(&ready);
    let outcome = wait(&mut stop, &mut network, thread, shut, serving).await;
    drop(watcher);
    // Its last rows are worth a moment, no more.
    let _ = tokio::task::spawn_blocking(move || tracking.stop(MONITOR_GOODBYE)).await;
    outcome
}

/// Opens the node on its thread. `None`: a stop came first.
async fn start_node(
    start: Start,
    effects: mpsc::Sender<Effect>,
    monitor: Monitor,
    stop: &mut Stop,
) -> Result<Option<NodeThread>, DaemonError> {
    let starting = tokio::task::spawn_blocking(move || NodeThread::start_watched(start, effects, Some(monitor)));
    tokio::select! {
        thread = starting => Ok(Some(thread.map_err(|_| DaemonError::NodeDied)??)),
        () = stop.wait() => {
            tracing::info!("stopped while starting: the next start goes on from there");
            Ok(None)
        }
    }
}

/// Starts run tracking beside the node.
fn start_monitor(
    data: &DataDir,
    databases: &[crate::node::DatabaseSettings],
    days_to_keep: u32,
) -> Result<MonitorThread, DaemonError> {
    let settings = MonitorSettings {
        path: data.path().join("monitor.db"),
        instance: format!("{}:{}", host_name(), std::process::id()),
        databases: databases.iter().map(|database| database.name.clone()).collect(),
        days_to_keep,
    };
    Monitor::start(settings).map_err(|source| DaemonError::Runtime { source })
}

/// Whether the cluster was founded just now; opens the door to the local network where that was asked for.
async fn admitting(thread: &NodeThread, recovery: NodeId, wishes: Wishes) -> Result<bool, DaemonError> {
    let (reply, answer) = oneshot::channel();
    let trust_ms = wishes.trust_lan_for.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let job = Box::new(move |node: &mut Node, now: Now| {
        let trusted = trust_ms.map_or(Ok(()), |ms| node.trust_lan(ms, now).map(drop));
        // Nobody waits any more when the program is ending.
        let _ = reply.send(trusted.map(|()| node.membership().recovery() == Some(recovery)));
    });
    // A node that failed at once has other worries, and says them.
    if !thread.handle.submit(job) {
        return Ok(false);
    }
    Ok(answer.await.unwrap_or(Ok(false))?)
}

/// Waits for the end, then ends everything.
async fn wait(
    stop: &mut Stop,
    network: &mut RunningNetwork,
    mut thread: NodeThread,
    shut: watch::Sender<bool>,
    serving: Option<JoinHandle<()>>,
) -> Result<(), DaemonError> {
    let mut outcome = Ok(());
    let mut network_ended = false;
    tokio::select! {
        () = stop.wait() => tracing::info!("stopping"),
        _ = &mut thread.ended => outcome = Err(DaemonError::NodeDied),
        ended = &mut network.task => {
            network_ended = true;
            outcome = match ended {
                Ok(Ok(())) | Err(_) => Err(DaemonError::Net(NetError::NodeGone)),
                Ok(Err(error)) => Err(error.into()),
            };
        }
    }
    // Everybody watches this; nobody watching is fine as well.
    let _ = shut.send(true);
    if !network_ended && tokio::time::timeout(GOODBYE.0, &mut network.task).await.is_err() {
        network.task.abort();
    }
    if let Some(serving) = serving {
        // Open requests get what is left of the node's time.
        tokio::select! { _ = serving => {}, () = tokio::time::sleep(Duration::from_millis(300)) => {} }
    }
    stop_node(thread).await?;
    outcome
}

pub(super) async fn stop_node(thread: NodeThread) -> Result<(), DaemonError> {
    let stopped =
        tokio::task::spawn_blocking(move || thread.stop(GOODBYE.1)).await.map_err(|_| DaemonError::NodeDied)??;
    if !stopped {
        tracing::warn!("the node is in the middle of long work and is cut off; the next start goes on from there");
    }
    Ok(())
}

pub(super) struct RunningNetwork {
    pub(super) task: JoinHandle<Result<(), NetError>>,
    control: Arc<Control>,
}

pub(super) async fn start_network(
    config: &Config,
    key_seed: [u8; 32],
    thread: &NodeThread,
    effects: mpsc::Receiver<Effect>,
    shutdown: watch::Receiver<bool>,
) -> Result<RunningNetwork, DaemonError> {
    let settings = NetSettings {
        key_seed,
        listen: config.network.listen.clone(),
        peers: config.network.peers.clone(),
        mdns: config.network.mdns,
        wan: config.network.wan,
        relays: config.network.relays.clone(),
    };
    let (ready, is_ready) = oneshot::channel();
    let (commands, commands_out) = mpsc::channel::<NetCommand>(COMMANDS_MAX);
    let port = Arc::new(thread.handle.clone());
    let task = tokio::spawn(net::run(settings, port, effects, ready, commands_out, shutdown));
    match is_ready.await {
        Ok(listening) => Ok(RunningNetwork { task, control: Arc::new(Control { commands, listening }) }),
        // It ended before it was ready: the task knows why.
        Err(_) => match task.await {
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(())) | Err(_) => Err(NetError::NodeGone.into()),
        },
    }
}

/// What the API stands on, and the file of its token.
fn services(
    config: &Config,
    data: &DataDir,
    thread: &NodeThread,
    network: &RunningNetwork,
    (monitor, alerts): (Monitor, Arc<Channels>),
) -> Result<(Services, PathBuf), DaemonError> {
    let (token, token_file) = data.token_or_new(config.http.token_file.as_deref())?;
    let (config, data, joined) = (config.clone(), data.clone(), data.clone());
    let services = Services {
        port: Arc::new(thread.handle.clone()),
        network: network.control.clone(),
        checks: Arc::new(move || checks(&config, &data)),
        join_plan: Arc::new(move || joined.join_plan().ok().flatten()),
        monitor,
        alerts,
        token,
    };
    Ok((services, token_file))
}

/// SIGTERM and SIGINT.
struct Stop {
    term: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> Result<Stop, DaemonError> {
        use tokio::signal::unix::{SignalKind, signal};
        let failed = |source| DaemonError::Runtime { source };
        let (term, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Stop { term: signal(term).map_err(failed)?, interrupt: signal(interrupt).map_err(failed)? })
    }

    async fn wait(&mut self) {
        tokio::select! { _ = self.term.recv() => {}, _ = self.interrupt.recv() => {} }
    }
}
