//! Drift records, verification runs and the place of the running one, kept across restarts.
//!
//! Invariant: each under its number, behind a check, ascending; pruning takes the oldest closed ones only, so that what was
//! kept aside and waits for a person never goes. They lie beside the node's other records by name, so that logs without
//! them need no new table. Caller: node::drift, node::verify.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::read::LogRead;
use super::write::LogWrite;
use super::{LogError, record};
use crate::model::{DriftAction, DriftRecord, RunPlace, RunRecord, RunState};

const DRIFT: &str = "drift ";
const RUN: &str = "verify run ";
const PLACE: &str = "verify place";

/// Drift records kept; the oldest healed ones go first.
pub const DRIFT_KEPT_MAX: usize = 10_000;

/// Runs kept.
pub const RUNS_KEPT_MAX: usize = 1_000;

/// Records looked at in one pruning.
const PRUNED_MAX: usize = 2_000;

fn key(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:020}")
}

/// Behind the last key of a prefix: no number begins with this.
fn end(prefix: &str) -> String {
    format!("{prefix}~")
}

impl LogRead {
    fn numbered<T: DeserializeOwned>(&self, prefix: &str, after: u64, limit: usize) -> Result<Vec<T>, LogError> {
        let (from, to) = (key(prefix, after.saturating_add(1)), end(prefix));
        let mut found = Vec::new();
        for entry in self.meta.range(from.as_str()..to.as_str())?.take(limit) {
            let (key, value) = entry?;
            found.extend(record::unseal("verification", key.value().as_bytes(), value.value()).ok());
        }
        Ok(found)
    }

    fn newest<T: DeserializeOwned>(&self, prefix: &str, limit: usize) -> Result<Vec<T>, LogError> {
        let (from, to) = (key(prefix, 0), end(prefix));
        let mut found = Vec::new();
        for entry in self.meta.range(from.as_str()..to.as_str())?.rev().take(limit) {
            let (key, value) = entry?;
            found.extend(record::unseal("verification", key.value().as_bytes(), value.value()).ok());
        }
        found.reverse();
        Ok(found)
    }

    fn last_number(&self, prefix: &str) -> Result<u64, LogError> {
        let (from, to) = (key(prefix, 0), end(prefix));
        let last = self.meta.range(from.as_str()..to.as_str())?.next_back().transpose()?;
        Ok(last.and_then(|(key, _)| key.value().strip_prefix(prefix)?.parse().ok()).unwrap_or(0))
    }

    /// Drift records behind a number, oldest first. Damaged ones are left out.
    pub fn drift(&self, after: u64, limit: usize) -> Result<Vec<DriftRecord>, LogError> {
        self.numbered(DRIFT, after, limit)
    }

    /// The newest drift records, oldest of them first.
    pub fn newest_drift(&self, limit: usize) -> Result<Vec<DriftRecord>, LogError> {
        self.newest(DRIFT, limit)
    }

    /// The number of the last drift record; 0: there is none.
    pub fn last_drift(&self) -> Result<u64, LogError> {
        self.last_number(DRIFT)
    }

    /// The newest runs, oldest of them first.
    pub fn newest_runs(&self, limit: usize) -> Result<Vec<RunRecord>, LogError> {
        self.newest(RUN, limit)
    }

    /// The number of the last run; 0: there was none.
    pub fn last_run(&self) -> Result<u64, LogError> {
        self.last_number(RUN)
    }

    /// Where the running verification stood; a damaged place is none, and the run begins again.
    pub fn run_place(&self) -> Result<Option<RunPlace>, LogError> {
        let stored = self.meta(PLACE)?.filter(|bytes| !bytes.is_empty());
        Ok(stored.and_then(|bytes| record::unseal("verification", PLACE.as_bytes(), &bytes).ok()))
    }
}

impl LogWrite<'_> {
    fn put_numbered<T: Serialize>(&mut self, prefix: &str, number: u64, value: &T) -> Result<(), LogError> {
        let key = key(prefix, number);
        self.put_meta(&key, &record::seal(key.as_bytes(), value))
    }

    /// The drift record of a number, as committed.
    pub fn drift(&self, number: u64) -> Result<Option<DriftRecord>, LogError> {
        let found = self.base.drift(number.saturating_sub(1), 1)?.pop();
        Ok(found.filter(|found| found.number == number))
    }

    /// Keeps a drift record under its number.
    pub fn put_drift(&mut self, drift: &DriftRecord) -> Result<(), LogError> {
        self.put_numbered(DRIFT, drift.number, drift)
    }

    /// Keeps a run under its number.
    pub fn put_run(&mut self, run: &RunRecord) -> Result<(), LogError> {
        self.put_numbered(RUN, run.number, run)
    }

    /// Keeps where the running verification stands; `None`: none runs.
    pub fn put_run_place(&mut self, place: Option<&RunPlace>) -> Result<(), LogError> {
        let bytes = place.map(|place| record::seal(PLACE.as_bytes(), place)).unwrap_or_default();
        self.put_meta(PLACE, &bytes)
    }

    /// Forgets the oldest closed records beyond what is kept. Numbers have no gaps until something was pruned, so the
    /// span of them bounds their number.
    pub fn prune_drift(&mut self) -> Result<(), LogError> {
        let first = self.base.drift(0, 1)?.first().map_or(0, |drift| drift.number);
        let span = self.base.last_drift()?.saturating_sub(first) as usize;
        if span > DRIFT_KEPT_MAX {
            let closed = |drift: &DriftRecord| match drift.action {
                DriftAction::Waits => false,
                DriftAction::Captured => true,
                _ => drift.healed_ms.is_some(),
            };
            let old = self.base.drift(0, PRUNED_MAX.min(span - DRIFT_KEPT_MAX))?;
            for drift in old.iter().filter(|drift| closed(drift)) {
                self.drop_meta(&key(DRIFT, drift.number))?;
            }
        }
        let runs: Vec<RunRecord> = self.base.numbered(RUN, 0, RUNS_KEPT_MAX + PRUNED_MAX)?;
        for run in runs.iter().take(runs.len().saturating_sub(RUNS_KEPT_MAX)) {
            if !matches!(run.state, RunState::Waiting | RunState::Running) {
                self.drop_meta(&key(RUN, run.number))?;
            }
        }
        Ok(())
    }
}
