//! A run of this program that always ends: it completes, it fails, and it fails when nobody says how it ended.
//!
//! Invariant: exactly one end is recorded per guard; a guard whose begin could not be recorded (the monitor is overloaded)
//! works on without any effect, because the work matters more than its record. Callers: daemon, http.

use super::recorder::Monitor;
use super::store::{RunEnd, RunProgress};

/// See the module.
#[derive(Debug)]
pub struct RunGuard {
    monitor: Monitor,
    id: Option<i64>,
}

impl RunGuard {
    pub(super) fn new(monitor: Monitor, id: Option<i64>) -> RunGuard {
        RunGuard { monitor, id }
    }

    /// Its number in `sync_history`; `None`: it could not be recorded.
    pub fn id(&self) -> Option<i64> {
        self.id
    }

    /// Says how far it is. Never waits.
    pub fn progress(&self, progress: RunProgress) {
        if let Some(id) = self.id {
            self.monitor.order(move |store, now_ms| store.progress(id, &progress, now_ms));
        }
    }

    /// Ends it, well or not. Never waits.
    pub fn end(mut self, end: RunEnd) {
        self.finish(end);
    }

    /// Ends it as a result says; the result goes on.
    pub fn finish_with<T, E: std::fmt::Display>(
        self,
        result: Result<T, E>,
        end: impl FnOnce(&T) -> RunEnd,
    ) -> Result<T, E> {
        let end = match &result {
            Ok(done) => end(done),
            Err(error) => RunEnd { error: Some(error.to_string()), ..RunEnd::default() },
        };
        self.end(end);
        result
    }

    fn finish(&mut self, end: RunEnd) {
        if let Some(id) = self.id.take() {
            self.monitor.order(move |store, now_ms| store.end(id, end.clone(), now_ms));
        }
    }
}

impl Drop for RunGuard {
    fn drop(&mut self) {
        let words = "interrupted: the run was dropped before it ended".to_string();
        self.finish(RunEnd { error: Some(words), ..RunEnd::default() });
    }
}
