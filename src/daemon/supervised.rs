//! Supervised joining: admission, then the plan, then a person's word.
//!
//! A plan needs the cluster's rows, and nobody reads a byte without being a member. So a join first makes this server a
//! member (that uses the code up), then takes the cluster's events into the log with no app's file open, plays the meeting
//! on copies ([`crate::node::Node::rehearse`]), and shows what came of it. Until the plan is accepted the data directory is
//! *undecided*: the same `join CODE` works again without the network's leave, and `run` refuses, so no row here is born,
//! moved or sent. `--yes` at the first call accepts unseen.
//!
//! A member whose log is damaged comes back the same way: the log is set aside under another name, the node keeps its key and
//! takes everything from the other members and from its own files.
//!
//! Invariant: the app's files are only read here; the copies are removed whatever happens. Called by cli (join) and run.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::databases::{Choice, remember};
use super::enrol::{Enrolled, describe, open_without_files};
use super::machine::clock_now;
use super::node_thread::{NodeThread, Start, while_busy};
use super::run::{EFFECTS_MAX, node_name, node_settings, start_network, stop_node};
use super::{DaemonError, DataDir, file_settings};
use crate::config::Config;
use crate::log::Log;
use crate::model::ClusterId;
use crate::net;
use crate::node::meeting::Meeting;
use crate::node::meeting_view::MeetingPlan;
use crate::node::port::NodePort as _;
use crate::node::view::KnownAddress;
use crate::node::{Node, NodeError, NodeSettings};
use crate::sqlite::{AppFile, copy_file};
use crate::wire::invite::InviteCode;

/// How long the inviter may be silent while the cluster's events come.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// Between two looks at what has come.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// How the files are to be read, as the command line says it: (database, meeting). Empty: as was said before, else copies.
pub type Meetings = Vec<(String, Meeting)>;

/// How a data directory comes into a cluster.
#[derive(Clone, Copy, Debug)]
pub enum Entrance<'e> {
    /// By a join code.
    Code(&'e InviteCode),
    /// Without one, from a node that trusts the local network just now.
    Lan {
        /// The cluster that is meant; empty: any.
        cluster: &'e str,
        /// Where to knock; empty: at whoever is found.
        addresses: &'e [String],
    },
}

impl Entrance<'_> {
    fn leads_to(&self, cluster: ClusterId) -> bool {
        match self {
            Entrance::Code(code) => code.cluster == cluster,
            Entrance::Lan { .. } => true,
        }
    }

    async fn join(&self, key_seed: [u8; 32], name: &str) -> Result<net::Joined, net::JoinError> {
        match self {
            Entrance::Code(code) => net::join(code, key_seed, name).await,
            Entrance::Lan { cluster, addresses } => net::join_lan(cluster, addresses, key_seed, name).await,
        }
    }
}

/// Makes this data directory a member of the code's cluster, or finds that it is one that waits for its plan to be
/// accepted. `undecided`: rows here wait for a person's word.
pub fn admit(
    config: &Config,
    entrance: Entrance<'_>,
    choice: &Choice,
    meetings: Meetings,
    undecided: bool,
) -> Result<Enrolled, DaemonError> {
    let data = DataDir::at(&config.data_dir);
    data.create()?;
    let _lock = data.lock()?;
    let found = Found::look(config, &data, entrance)?;
    let log = if let Found::Undecided(log) = found {
        remember(&data, &choice.databases)?;
        decide(&log, &data, meetings)?;
        if !undecided {
            data.set_undecided(false)?;
        }
        log
    } else {
        let key_seed = data.key_seed_or_new()?;
        let name = node_name(config, &data)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| DaemonError::Runtime { source })?;
        let joined = runtime.block_on(entrance.join(key_seed, &name))?;
        remember(&data, &choice.databases)?;
        let log = found.empty(&data)?;
        // First the mark and what was said of the files, then the membership: a crash in between leaves a directory that
        // belongs to no cluster, and joins again. The addresses come with it: a member takes no second code.
        data.set_undecided(undecided)?;
        decide(&log, &data, meetings)?;
        let peer = joined.inviter.to_string();
        let addresses = joined.addresses.iter();
        let known =
            addresses.map(|address| KnownAddress { peer: peer.clone(), address: address.clone(), reached_ms: 0 });
        Node::enter_at(&log, joined.records, &known.collect::<Vec<_>>())?;
        data.token_or_new(config.http.token_file.as_deref())?;
        log
    };
    drop(log);
    describe(config, &data)
}

/// What a join finds in the data directory.
enum Found {
    /// A log that belongs to no cluster.
    Empty(Log),
    /// A member of the code's cluster that waits for its plan to be accepted.
    Undecided(Log),
    /// A log that is damaged. A member's: a code for it is the word that it may be set aside.
    Damaged,
}

impl Found {
    fn look(config: &Config, data: &DataDir, entrance: Entrance<'_>) -> Result<Found, DaemonError> {
        let opened = Log::open(&data.log_path()).map(|log| (Node::cluster_of(&log), log));
        let (member, log) = match opened {
            Ok((Ok(member), log)) => (member, log),
            Ok((Err(error), _)) if is_damage(&error) => return Ok(Found::Damaged),
            Ok((Err(error), _)) => return Err(error.into()),
            Err(error) if error.is_damage() => return Ok(Found::Damaged),
            Err(error) => return Err(error.into()),
        };
        match member {
            None => return Ok(Found::Empty(log)),
            Some(cluster) if data.is_undecided() && entrance.leads_to(cluster) => return Ok(Found::Undecided(log)),
            Some(_) => drop(log),
        }
        let checked = open_without_files(config, data).and_then(|node| Ok(node.verify_log()?));
        match checked {
            Ok(report) if report.faults.is_empty() => Err(DaemonError::NodeExists { path: data.path().to_path_buf() }),
            Err(DaemonError::Node(error)) if !is_damage(&error) => Err(error.into()),
            Ok(_) | Err(DaemonError::Node(_)) => Ok(Found::Damaged),
            Err(error) => Err(error),
        }
    }

    /// The log to enter with; a damaged one is set aside, and kept. Not before the cluster has answered: without its log a
    /// member could not even ask.
    fn empty(self, data: &DataDir) -> Result<Log, DaemonError> {
        match self {
            Found::Empty(log) | Found::Undecided(log) => Ok(log),
            Found::Damaged => {
                // Until the new log holds the membership, nobody may take this directory for a new one.
                data.set_undecided(true)?;
                let aside = data.set_log_aside()?;
                tracing::warn!("the damaged log is kept as {}", aside.display());
                Ok(Log::open(&data.log_path())?)
            }
        }
    }
}

/// Whether this says that the log is not what was written.
fn is_damage(error: &NodeError) -> bool {
    match error {
        NodeError::Log(error) => error.is_damage(),
        NodeError::Wire(_) | NodeError::Record(_) | NodeError::Membership(_) => true,
        _ => false,
    }
}

/// Notes how the files are to be read. A base is copied: it may lie on a stick.
pub(super) fn decide(log: &Log, data: &DataDir, meetings: Meetings) -> Result<(), DaemonError> {
    for (database, mut meeting) in meetings {
        if let Meeting::Base(from) = &meeting {
            let kept = data.base_path(&database);
            if kept != *from {
                let _ = std::fs::remove_file(&kept);
                while_busy(|| Ok(copy_file(from, &kept)?))?;
            }
            meeting = Meeting::Base(kept);
        }
        meeting.decide(log, &database)?;
    }
    Ok(())
}

/// The plan was accepted: the next start does what it says.
pub fn accept(config: &Config) -> Result<(), DaemonError> {
    let data = DataDir::at(&config.data_dir);
    let _lock = data.lock()?;
    data.set_undecided(false)
}

/// What the join will do to the rows that are here. Takes the cluster's events first; `progress` is told how many came.
pub fn plan_join(config: &Config, choice: &Choice, progress: &mut dyn FnMut(u64)) -> Result<MeetingPlan, DaemonError> {
    let data = DataDir::at(&config.data_dir);
    let _lock = data.lock()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|source| DaemonError::Runtime { source })?;
    runtime.block_on(pull(config, &data, progress))?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    let plan = rehearse(config, &data, choice)?;
    data.keep_join_plan(&plan)?;
    Ok(plan)
}

/// Takes all that a reachable member holds into the log.
async fn pull(config: &Config, data: &DataDir, progress: &mut dyn FnMut(u64)) -> Result<(), DaemonError> {
    let mut quiet = config.clone();
    (quiet.network.listen, quiet.network.mdns, quiet.network.wan) = (Vec::new(), false, false);
    let nothing = Choice { databases: Vec::new(), source: String::new() };
    let settings = node_settings(&quiet, data, nothing)?;
    let key_seed = settings.key_seed;
    let (effects, effects_out) = mpsc::channel(EFFECTS_MAX);
    let start = Start { settings, log_path: data.log_path(), found: None, verify: Default::default() };
    let starting = tokio::task::spawn_blocking(move || NodeThread::start(start, effects));
    let thread = starting.await.map_err(|_| DaemonError::NodeDied)??;
    let (shut, shutdown) = watch::channel(false);
    let network = start_network(&quiet, key_seed, &thread, effects_out, shutdown).await;
    let pulled = match &network {
        Ok(_) => wait_until_pulled(&thread, progress).await,
        Err(_) => Ok(()),
    };
    let _ = shut.send(true);
    let outcome = match network {
        Ok(network) => {
            // A network that does not end by itself ends with the runtime.
            let _ = tokio::time::timeout(Duration::from_secs(1), network.task).await;
            pulled
        }
        Err(error) => Err(error),
    };
    stop_node(thread).await?;
    outcome
}

async fn wait_until_pulled(thread: &NodeThread, progress: &mut dyn FnMut(u64)) -> Result<(), DaemonError> {
    let (mut held, mut moved) = (0, Instant::now());
    loop {
        let (reply, answer) = oneshot::channel();
        let job = move |node: &mut Node, _| {
            let _ = reply.send((node.has_caught_up(), node.events_held()));
        };
        if thread.handle.submit(Box::new(job)) {
            let (done, now_held) = answer.await.map_err(|_| DaemonError::NodeDied)?;
            if now_held != held {
                (held, moved) = (now_held, Instant::now());
                progress(held);
            }
            if done {
                return Ok(());
            }
        }
        if moved.elapsed() > SILENCE_MAX {
            return Err(DaemonError::NothingHeard);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A directory that is gone when this is.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: PathBuf) -> Result<Scratch, DaemonError> {
        let failed = |source| DaemonError::Files { action: "make a directory for copies", path: path.clone(), source };
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(failed)?;
        }
        std::fs::create_dir(&path).map_err(failed)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is removed by the next rehearsal.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn rehearse(config: &Config, data: &DataDir, choice: &Choice) -> Result<MeetingPlan, DaemonError> {
    let scratch = Scratch::new(data.path().join("rehearsal"))?;
    let mut settings: NodeSettings = node_settings(config, data, choice.clone())?;
    for database in &mut settings.databases {
        let copy = scratch.0.join(format!("{}.db", database.name));
        while_busy(|| Ok(copy_file(&database.path, &copy)?))?;
        database.path = copy;
    }
    let path = scratch.0.join("events.redb");
    let copied = std::fs::copy(data.log_path(), &path);
    copied.map_err(|source| DaemonError::Files { action: "copy the log to", path: path.clone(), source })?;
    let log = std::sync::Arc::new(Log::open(&path)?);
    // What the copies' node has to say is in the plan; on the log it would read as if it had happened.
    let silence = tracing::subscriber::NoSubscriber::default();
    let mut plan = tracing::subscriber::with_default(silence, || Node::rehearse(settings, log, clock_now()))?;
    for database in &mut plan.databases {
        let real = choice.databases.iter().find(|settings| settings.name == database.name);
        database.path = real.map(|settings| settings.path.display().to_string()).unwrap_or_default();
    }
    Ok(plan)
}

/// Rows in the replicated tables of these files. Changes nothing.
pub fn rows_here(choice: &Choice) -> Result<u64, DaemonError> {
    let mut rows = 0;
    for settings in &choice.databases {
        let report = while_busy(|| Ok(AppFile::open(file_settings(settings))?.preflight()?))?;
        rows += report.tables.iter().map(|table| table.rows).sum::<u64>();
    }
    Ok(rows)
}

/// Refuses to start while the plan of a join was not accepted.
pub(super) fn check_decided(data: &DataDir) -> Result<(), DaemonError> {
    if data.is_undecided() { Err(DaemonError::JoinUndecided) } else { Ok(()) }
}

impl DataDir {
    fn undecided_path(&self) -> PathBuf {
        self.path().join("undecided")
    }

    /// Whether the plan of a join waits to be accepted.
    fn is_undecided(&self) -> bool {
        self.undecided_path().exists()
    }

    fn set_undecided(&self, undecided: bool) -> Result<(), DaemonError> {
        let path = self.undecided_path();
        if undecided {
            return self.write(&path, b"the plan of a join was not accepted yet\n");
        }
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(DaemonError::Files { action: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    /// Where the base of a database is kept until it is enrolled.
    fn base_path(&self, database: &str) -> PathBuf {
        self.path().join(Path::new(&format!("base-{database}.db")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undecided_lasts_until_it_is_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::at(&directory.path().join("data"));
        data.create().unwrap();
        assert!(check_decided(&data).is_ok());
        data.set_undecided(true).unwrap();
        assert!(matches!(check_decided(&data), Err(DaemonError::JoinUndecided)));
        data.set_undecided(false).unwrap();
        data.set_undecided(false).unwrap();
        assert!(check_decided(&data).is_ok());
    }
}
