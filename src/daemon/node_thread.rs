//! The thread that owns the node, and the way to it.
//!
//! One loop: wait for a message or the node's deadline, hand it over with the time, drain the effects. Invariant: the
//! node is touched by this thread only; the queue of messages is bounded (full: the caller is told at once, nothing
//! waits), file notifications take at most one place per database; effects go to the network one by one, and a slow
//! network holds the node back rather than filling memory. A node whose log's storage failed is dropped with its log and
//! both are opened again ([`crate::node::store_fault`]); while they cannot be, questions are answered with "not now" and
//! the app goes on. Callers: run, offline.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::DaemonError;
use super::machine::clock_now;
use super::reserve::Reserve;
use crate::log::Log;
use crate::model::NodeId;
use crate::monitor::Monitor;
use crate::node::archive::{compact, is_worth_compacting};
use crate::node::port::{Job, NodePort};
use crate::node::store_fault::StoreFault;
use crate::node::{Effect, Input, Node, NodeError, NodeSettings, Now};

/// Messages that may wait for the node.
const QUEUE_MAX: usize = 1_024;

/// Messages handled before the node's own work gets its turn.
const MESSAGES_PER_TICK: usize = 64;

/// Longest sleep of an idle node.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Pause after a store failed: first and longest. A full disk may have room again at any moment.
const FAULT_PAUSE_MS: (u64, u64) = (250, 30_000);
const FULL_PAUSE_MS_MAX: u64 = 2_000;

/// Local time is read again after this.
const LOCAL_TIME_EVERY_MS: u64 = 600_000;

/// Pause while an app holds a lock: first and longest.
const BUSY_PAUSE: (Duration, Duration) = (Duration::from_millis(3), Duration::from_millis(200));

/// An app that holds a lock for longer is stuck.
const BUSY_WITHIN: Duration = Duration::from_secs(60);

enum Message {
    Job(Job),
    Touched(usize),
    Stop,
}

/// What a node is started with.
#[derive(Debug)]
pub struct Start {
    /// The node's settings.
    pub settings: NodeSettings,
    /// The event log's file.
    pub log_path: PathBuf,
    /// What to found when the log belongs to no cluster.
    pub found: Option<Founding>,
    /// When files are verified.
    pub verify: crate::node::verify_schedule::VerifySettings,
}

/// A cluster to found.
#[derive(Clone, Debug)]
pub struct Founding {
    /// Its name.
    pub cluster_name: String,
    /// Public key of its recovery phrase.
    pub recovery: NodeId,
}

/// The way to a running node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    messages: SyncSender<Message>,
    touched: Arc<[AtomicBool]>,
    stop: Arc<AtomicBool>,
}

/// A running node.
#[derive(Debug)]
pub struct NodeThread {
    /// The way to it.
    pub handle: NodeHandle,
    /// Fires (by error) when the thread has ended, for whatever reason.
    pub ended: oneshot::Receiver<()>,
    thread: JoinHandle<Result<(), NodeError>>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Message::Job(_) => write!(f, "Job"),
            Message::Touched(position) => write!(f, "Touched({position})"),
            Message::Stop => write!(f, "Stop"),
        }
    }
}

impl NodePort for NodeHandle {
    fn submit(&self, job: Job) -> bool {
        self.messages.try_send(Message::Job(job)).is_ok()
    }
}

impl NodeHandle {
    /// Says that something changed in a database's directory. Repeated calls count once until the node has looked.
    pub fn touch(&self, position: usize) {
        let Some(flag) = self.touched.get(position) else { return };
        if !flag.swap(true, Ordering::AcqRel) && self.messages.try_send(Message::Touched(position)).is_err() {
            // The queue is full: the node looks by itself before long.
            flag.store(false, Ordering::Release);
        }
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        // A full queue needs no wake-up: the thread is at work and sees the flag.
        let _ = self.messages.try_send(Message::Stop);
    }
}

impl NodeThread {
    /// Opens the node on a thread of its own; returns when it is open. Effects go to `effects`.
    pub fn start(start: Start, effects: mpsc::Sender<Effect>) -> Result<NodeThread, DaemonError> {
        NodeThread::start_watched(start, effects, None)
    }

    /// The same; what the node does is noted by `monitor`.
    pub fn start_watched(
        start: Start,
        effects: mpsc::Sender<Effect>,
        monitor: Option<Monitor>,
    ) -> Result<NodeThread, DaemonError> {
        let (messages, queue) = sync_channel(QUEUE_MAX);
        let touched: Arc<[AtomicBool]> = start.settings.databases.iter().map(|_| AtomicBool::new(false)).collect();
        let handle = NodeHandle { messages, touched, stop: Arc::new(AtomicBool::new(false)) };
        let (opened, answer) = sync_channel(1);
        let (alive, ended) = oneshot::channel();
        let inside = handle.clone();
        let body = move || {
            let _alive = alive;
            let reserve = Reserve::of(&start.settings.data_dir);
            let (node, fault) = match open_making_room(&start, &reserve) {
                Ok(opened) => opened,
                Err(error) => {
                    // The starter waits for exactly this answer.
                    let _ = opened.send(Err(error));
                    return Ok(());
                }
            };
            let _ = opened.send(Ok(()));
            if fault.is_none() && reserve.keep().is_err() {
                tracing::warn!("the disk of the data directory is almost full");
            }
            let fault = Fault { store: fault, ..Fault::default() };
            let local_time_at_ms = 0;
            let handle = inside;
            Loop { start, reserve, node: Some(node), queue, effects, handle, fault, local_time_at_ms, monitor }.run()
        };
        let thread = std::thread::Builder::new().name("node".into()).spawn(body);
        let thread = thread.map_err(|source| DaemonError::Runtime { source })?;
        match answer.recv() {
            Ok(Ok(())) => Ok(NodeThread { handle, ended, thread }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(DaemonError::NodeDied),
        }
    }

    /// Asks the node to stop, and waits at most `patience` for its last commit. `false`: it is still at work.
    pub fn stop(self, patience: Duration) -> Result<bool, DaemonError> {
        self.handle.stop();
        let until = Instant::now() + patience;
        while !self.thread.is_finished() {
            if Instant::now() >= until {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        match self.thread.join() {
            // What could not be tidied because the app was writing is tidied at the next start.
            Ok(Err(NodeError::Sqlite(error))) if error.is_retryable() => Ok(true),
            Ok(closed) => closed.map(|()| true).map_err(DaemonError::from),
            Err(_) => Err(DaemonError::NodeDied),
        }
    }
}

/// Opens the log, founds a cluster when asked and needed, opens the node. An app that is writing just now is waited for.
pub(super) fn open(start: &Start) -> Result<Node, DaemonError> {
    open_after(start, None)
}

fn open_after(start: &Start, fault: Option<StoreFault>) -> Result<Node, DaemonError> {
    let mut log = Log::open(&start.log_path).map_err(NodeError::from)?;
    // Nobody reads or writes yet. A disk that is in trouble is spared.
    if fault.is_none() && is_worth_compacting(&log)? {
        compact(&mut log)?;
    }
    let log = Arc::new(log);
    if let Some(founding) = &start.found
        && !Node::has_cluster(&log)?
    {
        let names = (start.settings.name.as_str(), founding.cluster_name.as_str());
        Node::found_with(&log, &start.settings.key_seed, names, founding.recovery.0, clock_now())?;
    }
    let mut node =
        while_busy(|| Ok(Node::open_after(start.settings.clone(), log.clone(), clock_now(), fault.clone())?))?;
    node.set_verification(start.verify.clone());
    Ok(node)
}

/// Opens with the room that was set aside, when the disk is full; the fault, then.
fn open_making_room(start: &Start, reserve: &Reserve) -> Result<(Node, Option<StoreFault>), DaemonError> {
    match open(start) {
        Ok(node) => Ok((node, None)),
        Err(DaemonError::Node(error)) => {
            let fault = error.store_fault().filter(|fault| fault.full && reserve.give_up());
            let Some(fault) = fault else { return Err(error.into()) };
            Ok((open_after(start, Some(fault.clone()))?, Some(fault)))
        }
        Err(error) => Err(error),
    }
}

/// Tries again, with growing pauses, while an app holds a lock.
pub(super) fn while_busy<T>(mut attempt: impl FnMut() -> Result<T, DaemonError>) -> Result<T, DaemonError> {
    let (mut pause, longest) = BUSY_PAUSE;
    let until = Instant::now() + BUSY_WITHIN;
    loop {
        match attempt() {
            Err(error) if is_busy(&error) && Instant::now() < until => std::thread::sleep(pause),
            done => return done,
        }
        pause = (pause * 2).min(longest);
    }
}

fn is_busy(error: &DaemonError) -> bool {
    match error {
        DaemonError::Sqlite(error) | DaemonError::Node(NodeError::Sqlite(error)) => error.is_retryable(),
        _ => false,
    }
}

/// The thread's state.
struct Loop {
    start: Start,
    reserve: Reserve,
    /// `None`: its log cannot be opened at the moment.
    node: Option<Node>,
    queue: Receiver<Message>,
    effects: mpsc::Sender<Effect>,
    handle: NodeHandle,
    fault: Fault,
    /// When the node is told again what local time is.
    local_time_at_ms: u64,
    monitor: Option<Monitor>,
}

/// A store that fails: how long to leave it alone, and what was said about it.
#[derive(Default)]
struct Fault {
    pause_ms: u64,
    until_ms: u64,
    said: String,
    /// What broke the node, until it works again.
    store: Option<StoreFault>,
}

impl Loop {
    fn run(mut self) -> Result<(), NodeError> {
        self.drain(Instant::now());
        while !self.handle.stop.load(Ordering::Acquire) {
            let now = clock_now();
            self.tell_local_time(now);
            let wait = Duration::from_millis(self.due_ms(now).saturating_sub(now.mono_ms)).min(IDLE_MAX);
            match self.queue.recv_timeout(wait) {
                Ok(message) => {
                    self.handle_message(message);
                    // A tick may take long: what waits goes first, but not without end.
                    for _ in 0..MESSAGES_PER_TICK {
                        let Ok(message) = self.queue.try_recv() else { break };
                        self.handle_message(message);
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.tick(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            // Messages without end must not keep the deadline waiting.
            let now = clock_now();
            if self.due_ms(now) <= now.mono_ms {
                self.tick();
            }
        }
        let failing = self.fault.store.is_some();
        match self.node.map_or(Ok(()), Node::close) {
            // Nobody expects a last commit from a disk that fails: the next start tidies.
            Err(error) if failing && error.needs_reopen() => Ok(()),
            closed => closed,
        }
    }

    /// Quiet hours and schedules are local time, which may change: summer ends, a laptop travels.
    fn tell_local_time(&mut self, now: Now) {
        if now.mono_ms < self.local_time_at_ms {
            return;
        }
        self.local_time_at_ms = now.mono_ms + LOCAL_TIME_EVERY_MS;
        if let Some(offset_minutes) = crate::sqlite::local_offset_minutes() {
            self.handle_input(Input::LocalTime { offset_minutes });
        }
    }

    /// When the node wants its turn, and may have it; without a node, when it is tried to open it.
    fn due_ms(&self, now: Now) -> u64 {
        let node = self.node.as_ref();
        let due = node.map_or(Some(now.mono_ms), |node| node.next_deadline(now));
        due.map_or(u64::MAX, |due| due.max(self.fault.until_ms))
    }

    fn tick(&mut self) {
        if self.node.is_none() {
            self.reopen();
        }
        // There is room again when the reserve fits: what was freed to answer questions is not for writing.
        if let Some(fault) = self.fault.store.clone().filter(|fault| fault.full)
            && self.reserve.keep().is_err()
        {
            return self.pause(&fault.words, clock_now());
        }
        self.handle_input(Input::Tick);
    }

    fn handle_message(&mut self, message: Message) {
        match message {
            // A job without a node is dropped: who waits for its answer is told "not now".
            Message::Job(job) => {
                let began = Instant::now();
                if let Some(node) = &mut self.node {
                    job(node, clock_now());
                    self.look_after(began);
                }
            }
            Message::Touched(position) => {
                // Before the look: what changes while the node looks must be told again.
                self.handle.touched[position].store(false, Ordering::Release);
                self.handle_input(Input::FileTouched(position));
            }
            // The loop sees the flag.
            Message::Stop => {}
        }
    }

    fn handle_input(&mut self, input: Input) {
        let Some(node) = &mut self.node else { return };
        let (now, tick, began) = (clock_now(), input == Input::Tick, Instant::now());
        match node.handle(input, now) {
            // Only a tick writes what waits: success of anything else proves nothing.
            Ok(()) if tick => self.fault = Fault::default(),
            Ok(()) => {}
            Err(error) => self.pause(&error.to_string(), now),
        }
        self.look_after(began);
    }

    /// After whatever the node began then: its effects, and its health.
    fn look_after(&mut self, began: Instant) {
        self.drain(began);
        let Some(node) = self.node.as_ref().filter(|node| node.is_broken()) else { return };
        self.fault.store = node.store_fault().cloned().or(self.fault.store.take());
        // Dropped before it is opened: the log's lock goes with it.
        self.node = None;
        let now = clock_now();
        if self.fault.until_ms <= now.mono_ms {
            let words = self.fault.store.as_ref().map_or_else(String::new, |fault| fault.words.clone());
            self.pause(&words, now);
        }
        self.reopen();
    }

    /// Opens log and node again, if they can be: then people can ask what is wrong, and the next tick tries to write.
    fn reopen(&mut self) {
        if self.fault.store.as_ref().is_some_and(|fault| fault.full) {
            self.reserve.give_up();
        }
        match open_after(&self.start, self.fault.store.clone()) {
            Ok(node) => {
                self.node = Some(node);
                self.local_time_at_ms = 0;
                // The network has ended: nobody to tell.
                let _ = self.effects.blocking_send(Effect::Reopened);
                self.drain(Instant::now());
            }
            Err(error) => self.pause(&error.to_string(), clock_now()),
        }
    }

    /// Leaves the stores alone for a while, longer each time.
    fn pause(&mut self, words: &str, now: Now) {
        let (first, longest) = FAULT_PAUSE_MS;
        let full = self.node.as_ref().and_then(Node::store_fault).or(self.fault.store.as_ref());
        let longest = if full.is_some_and(|fault| fault.full) { FULL_PAUSE_MS_MAX } else { longest };
        self.fault.pause_ms = (self.fault.pause_ms * 2).clamp(first, longest);
        self.fault.until_ms = now.mono_ms + self.fault.pause_ms;
        if words != self.fault.said {
            tracing::error!("{words} (trying again)");
            self.fault.said = words.to_string();
        }
    }

    fn drain(&mut self, began: Instant) {
        if let (Some(node), Some(monitor)) = (&mut self.node, &self.monitor) {
            monitor.note(node.take_ran(), began.elapsed());
        }
        while let Some(effect) = self.node.as_mut().and_then(Node::poll_effect) {
            // The network has ended: its effects have nowhere to go.
            let _ = self.effects.blocking_send(effect);
        }
    }
}
