//! The way to `monitor.db`: one thread that owns it, behind a bounded queue.
//!
//! ```text
//!   node's thread ──note──▶ queue ──▶ monitor's thread ──▶ bursts ──▶ monitor.db
//!   http, guards ───ask───▶   "            "  ──────────▶ store ──▶     "
//! ```
//! Overflow: a note or an order that finds the queue full is dropped and counted (`litemesh_monitor_dropped_total`); a
//! question is refused at once ("busy"). Nobody ever waits to get in. An error of the file is told once, what was noted is
//! kept (it adds up, so memory stays bounded) and written when the file works again; a damaged file is set aside and a new
//! one begun. Invariants: one thread writes; what was noted before a question is in its answer. Callers: daemon, http.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{oneshot, watch};

use super::burst::{Bursts, Extent};
use super::guard::RunGuard;
use super::schema::is_unusable;
use super::store::{MonitorError, RunBegin, Store};
use crate::node::tally::{Ran, Work};

/// Messages that may wait.
const QUEUE_MAX: usize = 4_096;

/// Pause after the file failed.
const FAULT_PAUSE_MS: u64 = 5_000;

/// Longest sleep.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// How often old history is removed.
const CLEANUP_EVERY_MS: u64 = 24 * 3_600_000;

type Order = Box<dyn FnOnce(&mut Store, u64) -> Result<(), MonitorError> + Send>;

enum Message {
    Ran { ran: Vec<Ran>, took_us: u64, at_ms: u64 },
    Order(Order),
    Stop,
}

/// What the monitor is started with.
#[derive(Clone, Debug)]
pub struct MonitorSettings {
    /// The file.
    pub path: PathBuf,
    /// Name of this process in `service_instance`.
    pub instance: String,
    /// Names of the databases, in the order of the node's settings.
    pub databases: Vec<String>,
    /// History older than this goes; 0: it stays.
    pub days_to_keep: u32,
}

/// The way to the monitor. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Monitor {
    messages: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    /// Counts turns of the node that brought events: whoever follows the log waits for it to change.
    news: watch::Sender<u64>,
}

/// The running monitor.
#[derive(Debug)]
pub struct MonitorThread {
    /// The way to it.
    pub monitor: Monitor,
    thread: JoinHandle<()>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Message::Ran { ran, .. } => write!(f, "Ran({})", ran.len()),
            Message::Order(_) => write!(f, "Order"),
            Message::Stop => write!(f, "Stop"),
        }
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Monitor {
    /// Starts the thread. The file is opened there: a slow disk delays nobody.
    pub fn start(settings: MonitorSettings) -> std::io::Result<MonitorThread> {
        let (messages, queue) = sync_channel(QUEUE_MAX);
        let monitor = Monitor { messages, dropped: Arc::default(), news: watch::Sender::new(0) };
        let body = move || Writer::new(settings).run(&queue);
        let thread = std::thread::Builder::new().name("monitor".into()).spawn(body)?;
        Ok(MonitorThread { monitor, thread })
    }

    /// A monitor that records nothing: every question is answered with "busy".
    pub fn off() -> Monitor {
        let (messages, _) = sync_channel(1);
        Monitor { messages, dropped: Arc::default(), news: watch::Sender::new(0) }
    }

    /// Notes what the node did in one turn. Never waits.
    pub fn note(&self, ran: Vec<Ran>, took: Duration) {
        if ran.is_empty() {
            return;
        }
        let brings =
            |one: &Ran| matches!(one.work, Work::Capture | Work::Pull | Work::Receive | Work::Apply) && one.records > 0;
        if ran.iter().any(brings) {
            self.news.send_modify(|count| *count += 1);
        }
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.send(Message::Ran { ran, took_us, at_ms: now_ms() });
    }

    /// Changes whenever events came, were captured or applied.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Notes and orders that found the queue full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn send(&self, message: Message) {
        if self.messages.try_send(message).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Has something done whose result nobody waits for.
    pub(super) fn order(&self, work: impl FnOnce(&mut Store, u64) -> Result<(), MonitorError> + Send + 'static) {
        self.send(Message::Order(Box::new(work)));
    }

    /// Has something done; the answer comes when it is in the file.
    pub fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Store, u64) -> Result<T, MonitorError> + Send + 'static,
    ) -> impl Future<Output = Result<T, MonitorError>> + Send + 'static {
        let (reply, answer) = oneshot::channel();
        let order: Order = Box::new(move |store, now_ms| {
            match question(store, now_ms) {
                // A damaged file is the thread's business too.
                Err(MonitorError::Sqlite(error)) if is_unusable(&error) => {
                    let _ = reply.send(Err(MonitorError::Busy));
                    return Err(MonitorError::Sqlite(error));
                }
                // Nobody waits any more when sending fails: nothing to do.
                answered => drop(reply.send(answered)),
            }
            Ok(())
        });
        let sent = self.messages.try_send(Message::Order(order));
        async move {
            match sent {
                Ok(()) => answer.await.unwrap_or(Err(MonitorError::Busy)),
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(MonitorError::Busy),
            }
        }
    }

    /// Begins a run of this program.
    pub async fn begin(&self, run: RunBegin) -> RunGuard {
        let begun = self.ask(move |store, now_ms| store.begin(&run, now_ms)).await;
        if let Err(error) = &begun {
            tracing::debug!(%error, "a run is not recorded");
        }
        RunGuard::new(self.clone(), begun.ok())
    }
}

impl MonitorThread {
    /// Writes what waits, and ends, within `patience`. `false`: it is still at work.
    pub fn stop(self, patience: Duration) -> bool {
        // A full queue is worked off first: then the senders are gone and it ends as well.
        let _ = self.monitor.messages.try_send(Message::Stop);
        drop(self.monitor);
        let until = std::time::Instant::now() + patience;
        while !self.thread.is_finished() {
            if std::time::Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.thread.join().is_ok()
    }
}

/// The thread's state.
struct Writer {
    settings: MonitorSettings,
    store: Option<Store>,
    bursts: Bursts,
    said: String,
    again_ms: u64,
    cleanup_ms: u64,
}

impl Writer {
    fn new(settings: MonitorSettings) -> Writer {
        let bursts = Bursts::default();
        Writer { settings, store: None, bursts, said: String::new(), again_ms: 0, cleanup_ms: 0 }
    }

    fn run(mut self, queue: &Receiver<Message>) {
        self.open(now_ms());
        loop {
            match queue.recv_timeout(self.wait(now_ms())) {
                Ok(Message::Ran { ran, took_us, at_ms }) => {
                    self.bursts.note(ran, &self.settings.databases, took_us, at_ms);
                }
                Ok(Message::Order(order)) => self.take(order),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            }
            self.write(Extent::Due);
        }
        self.write(Extent::All);
    }

    fn open(&mut self, now_ms: u64) {
        match Store::open(&self.settings.path, &self.settings.instance, now_ms) {
            Ok(store) => self.store = Some(store),
            Err(error) => self.failed(&error, now_ms),
        }
    }

    fn failed(&mut self, error: &MonitorError, now_ms: u64) {
        self.again_ms = now_ms + FAULT_PAUSE_MS;
        let words = error.to_string();
        if words != self.said {
            tracing::warn!("{words}: runs are not recorded until it works again; replication goes on");
            self.said = words;
        }
    }

    /// Until something is to be done.
    fn wait(&self, now_ms: u64) -> Duration {
        let bursts = self.bursts.due_ms().map(|due| due.max(self.again_ms));
        let reopen = self.store.is_none().then_some(self.again_ms);
        let due = [bursts, reopen, Some(self.cleanup_ms.max(self.again_ms))].into_iter().flatten().min();
        let until = due.map_or(IDLE_MAX, |due| Duration::from_millis(due.saturating_sub(now_ms)));
        let lease = self.store.as_ref().and_then(|store| store.next_lease(now_ms).ok().flatten());
        until.min(lease.unwrap_or(IDLE_MAX)).min(IDLE_MAX)
    }

    fn take(&mut self, order: Order) {
        let now_ms = now_ms();
        // What was noted before stands in the answer.
        self.write(Extent::Status);
        // Without a file the order is dropped: who waits for it is told "busy".
        let Some(store) = &mut self.store else { return };
        if let Err(error) = order(store, now_ms) {
            self.after(error, now_ms);
        }
    }

    fn write(&mut self, extent: Extent) {
        let now_ms = now_ms();
        if now_ms < self.again_ms {
            return;
        }
        if self.store.is_none() {
            self.open(now_ms);
        }
        let Some(store) = &mut self.store else { return };
        let mut written = self.bursts.write(store, extent, now_ms).and_then(|()| store.reap(now_ms).map(drop));
        if written.is_ok() && now_ms >= self.cleanup_ms {
            self.cleanup_ms = now_ms + CLEANUP_EVERY_MS;
            if self.settings.days_to_keep > 0 {
                written = store.cleanup(self.settings.days_to_keep, now_ms).map(drop);
            }
        }
        match written {
            Ok(()) => self.said.clear(),
            Err(error) => self.after(error, now_ms),
        }
    }

    fn after(&mut self, error: MonitorError, now_ms: u64) {
        // Such an answer is the caller's, not the file's.
        if !matches!(error, MonitorError::Sqlite(_)) {
            tracing::debug!(%error, "run tracking");
            return;
        }
        let damaged = matches!(&error, MonitorError::Sqlite(error) if is_unusable(error));
        self.failed(&error, now_ms);
        if let (true, Some(store)) = (damaged, &mut self.store)
            && let Err(error) = store.open_again(now_ms)
        {
            self.store = None;
            self.failed(&error, now_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::RunFilter;
    use super::*;
    use crate::monitor::RunEnd;
    use crate::node::tally::Subject;

    fn started(path: PathBuf) -> MonitorThread {
        let settings =
            MonitorSettings { path, instance: "pit:1".into(), databases: vec!["scouting".into()], days_to_keep: 30 };
        Monitor::start(settings).unwrap()
    }

    fn wait<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn captured(records: u64) -> Vec<Ran> {
        let (work, subject) = (Work::Capture, Subject::Database(0));
        vec![Ran { work, subject, runs: 1, records, bytes: 0, took_ms: 0, error: None }]
    }

    #[test]
    fn what_was_noted_is_in_the_next_answer_and_in_the_file_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("monitor.db");
        let thread = started(path.clone());
        let monitor = thread.monitor.clone();
        let news = monitor.news();
        for _ in 0..100 {
            monitor.note(captured(2), Duration::from_micros(50));
        }
        let kinds = wait(monitor.ask(|store, _| store.kinds())).unwrap();
        assert_eq!((kinds.len(), kinds[0].successful_sync_count, kinds[0].total_records_processed), (1, 100, 200));
        assert!(news.has_changed().unwrap());
        monitor.note(captured(1), Duration::ZERO);
        drop(monitor);
        assert!(thread.stop(Duration::from_secs(20)));
        let other = rusqlite::Connection::open(&path).unwrap();
        let runs: i64 = other.query_row("SELECT sum(runs) FROM sync_history", [], |row| row.get(0)).unwrap();
        assert_eq!(runs, 101);
    }

    #[test]
    fn every_guarded_run_ends() {
        let directory = tempfile::tempdir().unwrap();
        let thread = started(directory.path().join("monitor.db"));
        let monitor = thread.monitor.clone();
        let begin = |kind: &str| wait(monitor.begin(RunBegin { kind: kind.into(), ..RunBegin::default() }));
        begin("completed").end(RunEnd { records: Some(4), ..RunEnd::default() });
        let failed: Result<(), String> =
            begin("failed").finish_with(Err("it broke".to_string()), |()| RunEnd::default());
        assert!(failed.is_err());
        drop(begin("dropped"));
        let runs = wait(monitor.ask(|store, _| store.runs(&RunFilter::default()))).unwrap();
        let ended: Vec<(&str, &str, &str)> = runs
            .iter()
            .map(|run| (run.sync_type.as_str(), run.status.as_str(), run.error_class.as_deref().unwrap_or_default()))
            .collect();
        assert_eq!(
            ended,
            [("dropped", "error", "interrupted"), ("failed", "error", "other"), ("completed", "success", "")]
        );
        drop(monitor);
        assert!(thread.stop(Duration::from_secs(20)));
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_nobody_waits() {
        let directory = tempfile::tempdir().unwrap();
        let thread = started(directory.path().join("monitor.db"));
        let monitor = thread.monitor.clone();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (busy, is_busy) = std::sync::mpsc::channel::<()>();
        let blocked = monitor.ask(move |_, _| {
            let _ = busy.send(());
            let _ = held.recv();
            Ok(())
        });
        is_busy.recv().unwrap();
        for _ in 0..QUEUE_MAX + 10 {
            monitor.note(captured(1), Duration::ZERO);
        }
        assert_eq!(monitor.dropped(), 10);
        assert!(matches!(wait(monitor.ask(|_, _| Ok(()))), Err(MonitorError::Busy)));
        release.send(()).unwrap();
        wait(blocked).unwrap();
        let kinds = loop {
            // The queue is full until the thread has come to it.
            if let Ok(kinds) = wait(monitor.ask(|store, _| store.kinds())) {
                break kinds;
            }
        };
        assert_eq!(kinds[0].successful_sync_count, QUEUE_MAX as u64);
        drop(monitor);
        assert!(thread.stop(Duration::from_secs(20)));
    }
}
