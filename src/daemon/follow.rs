//! What the node keeps of itself, carried into `monitor.db`: verifications and cleanups as runs, drift records as a table.
//!
//! The node does these by itself, in pages over its ticks, and keeps its own records of them in the log; nobody calls them
//! and waits. So they are looked at: every [`IDLE`], while one is under way every [`BUSY`]. A run has the times of the
//! node's record, not those of the look. One that a crash cut short is interrupted in the history; when the node goes on
//! with it, that is another run of the same number.
//! Invariants: every run that ended is told once, also across restarts; what cannot be told now (the monitor or the node is
//! busy) is told by a later look. Not told: verifications and cleanups of a stopped node. Called by run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;

use super::NodeHandle;
use super::observe::ask;
use crate::model::{RunRecord, RunState};
use crate::monitor::recorder::now_ms;
use crate::monitor::store::RunProgress;
use crate::monitor::{Monitor, MonitorError, RunBegin, RunEnd};
use crate::node::archive_view::CleanupView;

/// Pauses between two looks.
const IDLE: Duration = Duration::from_secs(2);
const BUSY: Duration = Duration::from_millis(500);

/// Verifications that one look sees, the newest.
const RUNS_SEEN: usize = 50;

/// Drift records taken in one look.
const DRIFT_AT_ONCE: usize = 200;

/// What a verification and a cleanup are called in `sync_history`.
const VERIFY: &str = "verify";
const CLEANUP: &str = "cleanup";

/// See the module.
pub(super) struct Follower {
    handle: Arc<NodeHandle>,
    monitor: Monitor,
    since_ms: u64,
    /// Verifications under way, and those that are told to their end: number → number in the history.
    runs: BTreeMap<u64, Told>,
    /// The cleanup under way.
    cleanup: Option<i64>,
    /// The last drift record that was taken, and those that were not put right then.
    drift: Option<(u64, Vec<u64>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Begun(i64),
    Ended,
}

impl Follower {
    pub(super) fn new(handle: NodeHandle, monitor: Monitor) -> Follower {
        let (runs, cleanup, drift) = Default::default();
        Follower { handle: Arc::new(handle), monitor, since_ms: now_ms(), runs, cleanup, drift }
    }

    /// Looks until `shutdown` holds `true`.
    pub(super) fn start(mut self, mut shutdown: watch::Receiver<bool>) {
        tokio::spawn(async move {
            loop {
                let busy = self.look().await.unwrap_or_else(|error| {
                    tracing::debug!(%error, "a look at the node's own runs waits");
                    false
                });
                tokio::select! {
                    () = tokio::time::sleep(if busy { BUSY } else { IDLE }) => {}
                    // The sender gone means the same as `true`.
                    _ = shutdown.wait_for(|stop| *stop) => return,
                }
            }
        });
    }

    /// True: something is under way.
    async fn look(&mut self) -> Result<bool, MonitorError> {
        let seen = ask(&self.handle, |node, _| (node.verify_runs(RUNS_SEEN), node.cleanup(), node.take_cleanups()));
        let Some((runs, cleanup, ended)) = seen.await else { return Ok(false) };
        // Taken is taken: these first, and their failure is no reason to leave out the others.
        let cleanups = self.tell_cleanups(&cleanup, ended).await;
        let runs = runs.unwrap_or_default();
        for run in &runs {
            self.tell_run(run).await?;
        }
        let first = runs.first().map_or(0, |run| run.number);
        self.runs.retain(|number, _| *number >= first);
        self.tell_drift().await?;
        cleanups?;
        let waits = runs.iter().any(|run| matches!(run.state, RunState::Waiting | RunState::Running));
        Ok(waits || self.cleanup.is_some())
    }

    async fn tell_run(&mut self, run: &RunRecord) -> Result<(), MonitorError> {
        let told = self.runs.get(&run.number).copied();
        if run.state == RunState::Waiting || told == Some(Told::Ended) {
            return Ok(());
        }
        let before = run.started_ms < self.since_ms;
        if told.is_none() && before && run.ended_ms.is_some_and(|ended_ms| ended_ms < self.since_ms) {
            let (subject, at_ms) = (run.database.clone(), run.started_ms);
            if self.monitor.ask(move |store, _| store.began_since(VERIFY, &subject, at_ms)).await? {
                self.runs.insert(run.number, Told::Ended);
                return Ok(());
            }
        }
        let resumed = before && run.ended_ms.is_none_or(|ended_ms| ended_ms >= self.since_ms);
        let begin = begin_of(run, resumed);
        let begun_ms = if resumed { self.since_ms } else { run.started_ms };
        let progress = RunProgress {
            records: Some(run.rows),
            total: Some(run.rows_wanted.max(run.rows)),
            ..RunProgress::default()
        };
        let end = run.ended_ms.map(|ended_ms| (end_of(run), ended_ms));
        let ended = end.is_some();
        let id = self.monitor.ask(move |store, now_ms| {
            let id = match told {
                Some(Told::Begun(id)) => id,
                _ => store.begin(&begin, begun_ms)?,
            };
            // The monitor may have begun a new file since: then nobody knows of that run, and it is not told again.
            let noted = store.progress(id, &progress, now_ms);
            let noted = noted.and_then(|()| end.map_or(Ok(()), |(end, ended_ms)| store.end(id, end, ended_ms)));
            match noted {
                Ok(()) | Err(MonitorError::Unknown(_) | MonitorError::Ended { .. }) => Ok(id),
                Err(error) => Err(error),
            }
        });
        let id = id.await?;
        self.runs.insert(run.number, if ended { Told::Ended } else { Told::Begun(id) });
        Ok(())
    }

    async fn tell_cleanups(&mut self, now: &CleanupView, ended: Vec<CleanupView>) -> Result<(), MonitorError> {
        for view in &ended {
            let id = self.tell_cleanup(view).await?;
            let (end, ended_ms) = (end_of_cleanup(view), time_of(&view.ended));
            self.monitor.ask(move |store, _| store.end(id, end, ended_ms)).await?;
            self.cleanup = None;
        }
        if now.state == "running" {
            self.cleanup = Some(self.tell_cleanup(now).await?);
        }
        Ok(())
    }

    /// Its number in the history.
    async fn tell_cleanup(&self, view: &CleanupView) -> Result<i64, MonitorError> {
        let begin = RunBegin {
            kind: CLEANUP.into(),
            subject: "archive".into(),
            total: Some(view.wanted),
            metadata: Some(json!({ "days_to_keep": view.days_to_keep, "blocked": view.blocked })),
            ..RunBegin::default()
        };
        let (known, begun_ms) = (self.cleanup, time_of(&view.started));
        let progress = RunProgress { records: Some(view.removed), total: Some(view.wanted), ..RunProgress::default() };
        let told = self.monitor.ask(move |store, now_ms| {
            let id = known.map_or_else(|| store.begin(&begin, begun_ms), Ok)?;
            store.progress(id, &progress, now_ms)?;
            Ok(id)
        });
        told.await
    }

    async fn tell_drift(&mut self) -> Result<(), MonitorError> {
        let (after, open) = match &self.drift {
            Some(known) => known.clone(),
            None => self.monitor.ask(|store, _| store.drift_known()).await?,
        };
        let asked = open.clone();
        let news = ask(&self.handle, move |node, _| node.drift_news(after, &asked, DRIFT_AT_ONCE)).await;
        let Some(Ok(news)) = news else { return Ok(()) };
        if news.is_empty() && open.is_empty() {
            self.drift = Some((after, open));
            return Ok(());
        }
        let known = self.monitor.ask(move |store, now_ms| {
            store.note_drift(&news, &open, now_ms)?;
            store.drift_known()
        });
        self.drift = Some(known.await?);
        Ok(())
    }
}

fn begin_of(run: &RunRecord, resumed: bool) -> RunBegin {
    let metadata = json!({
        "number": run.number,
        "tier": run.tier.word(),
        "by_hand": run.by_hand,
        "repair": run.repair,
        "resumed": resumed,
    });
    RunBegin {
        kind: VERIFY.into(),
        subject: run.database.clone(),
        total: Some(run.rows_wanted),
        metadata: Some(metadata),
        ..RunBegin::default()
    }
}

/// A verification failed when it could not be done, or when a difference is left that it could not put right.
fn end_of(run: &RunRecord) -> RunEnd {
    let left = run.drift.saturating_sub(run.healed);
    let error = match &run.state {
        RunState::Failed(why) => Some(why.clone()),
        _ if left > 0 => Some(format!(
            "data: {} of {} not put right: litemesh drift, litemesh verify --repair",
            left,
            crate::model::counted(run.drift, "difference"),
        )),
        _ => None,
    };
    let metadata = json!({
        "tables": run.tables,
        "drift": run.drift,
        "healed": run.healed,
        "unsettled": run.unsettled,
    });
    RunEnd { records: Some(run.rows), failed: left, metadata: Some(metadata), error, ..RunEnd::default() }
}

fn end_of_cleanup(view: &CleanupView) -> RunEnd {
    let metadata = json!({ "segments": view.segments, "orphans": view.orphans });
    RunEnd {
        records: Some(view.removed),
        bytes: view.bytes,
        metadata: Some(metadata),
        error: (view.state == "failed").then(|| view.problem.clone()),
        ..RunEnd::default()
    }
}

/// A time as views show it, ms since 1970; now, where it says none.
fn time_of(text: &str) -> u64 {
    let parsed = humantime::parse_rfc3339_weak(text).ok();
    let since = parsed.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or_else(now_ms, |since| since.as_millis() as u64)
}
