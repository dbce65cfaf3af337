//! Verifications and drift as people read them: `litemesh verify`, `litemesh drift`, the API.
//!
//! Invariant: reads only; every difference is one sentence that names database, table, row, what differs, why and what
//! became of it. Callers: http, cli, daemon (drift history of other tools).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::query::{key_text, rfc3339};
use super::{Node, NodeError};
use crate::model::{DriftAction, DriftCause, DriftKind, DriftRecord, RunRecord, RunState, Value, counted};

/// Records that patterns are looked for in, the newest.
const PATTERN_RECORDS: usize = 2_000;

/// Records on a page when nobody says how many, and at most.
const PAGE: (usize, usize) = (100, 1_000);

/// Characters of a value that are shown.
const VALUE_CHARS: usize = 400;

/// One verification.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunView {
    /// Its number on this node.
    pub number: u64,
    /// Database.
    pub database: String,
    /// `count`, `ids`, `checksum` or `full`.
    pub tier: String,
    /// A person ordered it.
    pub by_hand: bool,
    /// `waiting`, `running`, `done` or `failed`.
    pub state: String,
    /// Why it failed; empty else.
    pub reason: String,
    /// RFC 3339.
    pub started: String,
    /// RFC 3339; empty while it runs.
    pub ended: String,
    /// 0.0 to 1.0.
    pub progress: f64,
    /// Tables looked at.
    pub tables: u64,
    /// Rows looked at.
    pub rows: u64,
    /// Differences found.
    pub drift: u64,
    /// Of these, healed.
    pub healed: u64,
    /// Rows that kept changing, so that nothing can be said of them.
    pub unsettled: u64,
    /// Ranges of keys whose sums differed.
    pub ranges: Vec<RangeView>,
    /// The longest time between two of its steps, ms: no read took longer.
    pub longest_ms: u64,
    /// What was left out.
    pub notes: Vec<String>,
}

/// Keys from one to another, both included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RangeView {
    /// Table.
    pub table: String,
    /// First key.
    pub first: String,
    /// Last key.
    pub last: String,
    /// Rows in it.
    pub rows: u64,
}

/// One difference.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DriftView {
    /// Its number on this node.
    pub number: u64,
    /// RFC 3339.
    pub found: String,
    /// The verification that found it; 0: none did.
    pub run: u64,
    /// How deep that one looked; empty: none did.
    pub tier: String,
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
    /// Key values, joined by commas.
    pub id: String,
    /// Identity of the row; empty where the log knows none.
    pub row: String,
    /// `changed`, `missing`, `unknown`, `record`, `table`, `unreadable`, `event` or `restored`.
    pub kind: String,
    /// `triggers-missing`, `restored`, `bit-rot`, `earlier-value`, `apply-not-noted`, `lost`, `written-unmarked`, `dropped`
    /// or `log-damaged`.
    pub cause: String,
    /// `waits`, `captured`, `rewritten`, `removed`, `taken-over`, `recreated`, `fetched` or `reindexed`.
    pub action: String,
    /// RFC 3339; empty until file and log were seen equal again.
    pub healed: String,
    /// The server that helped; empty: none.
    pub from: String,
    /// Rows that it stands for.
    pub rows: u64,
    /// What differs: (column, in the file, in the log).
    pub values: Vec<(String, String, String)>,
    /// All of it in one sentence.
    pub sentence: String,
}

/// Where and when differences come up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DriftPatterns {
    /// Differences looked at, the newest.
    pub looked_at: u64,
    /// By table, most first.
    pub tables: Vec<(String, u64)>,
    /// By cause, most first.
    pub causes: Vec<(String, u64)>,
    /// By hour of the day, local time, most first.
    pub hours: Vec<(u32, u64)>,
    /// By day (RFC 3339 date, UTC), newest last.
    pub days: Vec<(String, u64)>,
    /// What stands out, in words.
    pub sentences: Vec<String>,
}

/// The drift history of this node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DriftPage {
    /// This node's name: drift is of one file, so of one server.
    pub node: String,
    /// Differences, oldest first.
    pub drift: Vec<DriftView>,
    /// Those that wait for a person.
    pub waiting: u64,
    /// Where and when they come up.
    pub patterns: DriftPatterns,
}

/// Which differences.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DriftFilter {
    /// Only behind this number, oldest first; else the newest.
    pub after: Option<u64>,
    /// At most so many; 0: 100.
    pub limit: usize,
    /// Only of these verifications.
    pub runs: Vec<u64>,
    /// Only of this database.
    pub database: Option<String>,
    /// Only of this table.
    pub table: Option<String>,
    /// Only those that wait.
    pub waiting: bool,
}

impl Node {
    /// The drift history.
    pub fn drift(&self, filter: &DriftFilter) -> Result<DriftPage, NodeError> {
        let read = self.log.read()?;
        let limit = if filter.limit == 0 { PAGE.0 } else { filter.limit.min(PAGE.1) };
        let fits = |drift: &DriftRecord| {
            (filter.runs.is_empty() || filter.runs.contains(&drift.run))
                && filter.database.as_ref().is_none_or(|name| *name == drift.database)
                && filter.table.as_ref().is_none_or(|name| name.eq_ignore_ascii_case(&drift.table))
                && (!filter.waiting || drift.action == DriftAction::Waits)
        };
        let newest = read.newest_drift(PATTERN_RECORDS)?;
        let mut found: Vec<DriftRecord> = match filter.after {
            Some(after) => read.drift(after, PATTERN_RECORDS)?.into_iter().filter(fits).take(limit).collect(),
            None => newest.iter().filter(|drift| fits(drift)).cloned().collect(),
        };
        found.drain(..found.len().saturating_sub(limit));
        let mut views = Vec::with_capacity(found.len());
        for drift in &found {
            views.push(self.drift_view(drift));
        }
        Ok(DriftPage {
            node: self.settings.name.clone(),
            drift: views,
            waiting: self.verify.open.len() as u64,
            patterns: patterns(&newest, self.exchange.pace.offset_minutes),
        })
    }

    /// Records behind a number, at most `limit`, and those of `again`: for who keeps a copy of the history. A number that this
    /// log never gave belongs to another one: then all are told.
    pub fn drift_news(
        &self,
        after: u64,
        again: &[u64],
        limit: usize,
    ) -> Result<Vec<(DriftRecord, DriftView)>, NodeError> {
        let last = self.verify.last_drift;
        let after = if after > last { 0 } else { after };
        if after == last && again.is_empty() {
            return Ok(Vec::new());
        }
        let read = self.log.read()?;
        let mut found = Vec::new();
        for number in again.iter().filter(|number| **number <= after) {
            let record = read.drift(number.saturating_sub(1), 1)?.pop();
            found.extend(record.filter(|record| record.number == *number));
        }
        found.extend(read.drift(after, limit)?);
        Ok(found
            .into_iter()
            .map(|record| (self.drift_view(&record), record))
            .map(|(view, record)| (record, view))
            .collect())
    }

    /// The newest verifications, for people.
    pub fn verify_views(&self, limit: usize) -> Result<Vec<RunView>, NodeError> {
        Ok(self.verify_runs(limit.clamp(1, PAGE.1))?.iter().map(run_view).collect())
    }

    fn drift_view(&self, drift: &DriftRecord) -> DriftView {
        let columns = self.schemas.iter().find(|schema| schema.database == drift.database);
        let columns = columns.and_then(|schema| schema.table(&drift.table)).map(|table| table.columns.as_slice());
        let shown = |image: &Option<Vec<Value>>, at: usize| {
            image.as_ref().and_then(|image| image.get(at)).map(short).unwrap_or_default()
        };
        let mut values = Vec::new();
        for (at, column) in columns.unwrap_or_default().iter().enumerate() {
            if drift.columns.is_empty() || drift.columns.contains(&column.name) {
                values.push((column.name.clone(), shown(&drift.file, at), shown(&drift.log, at)));
            }
        }
        if drift.file.is_none() && drift.log.is_none() {
            values.clear();
        }
        let from = drift.from.map(|node| self.member_name(&node)).unwrap_or_default();
        let time = |ms: Option<u64>| ms.map(rfc3339).unwrap_or_default();
        DriftView {
            number: drift.number,
            found: rfc3339(drift.found_ms),
            run: drift.run,
            tier: drift.tier.map(|tier| tier.word().to_string()).unwrap_or_default(),
            database: drift.database.clone(),
            table: drift.table.clone(),
            id: key_text(&drift.key),
            row: drift.row.map(|row| row.to_string()).unwrap_or_default(),
            kind: kind_word(drift.kind).to_string(),
            cause: cause_word(drift.cause).to_string(),
            action: action_word(drift.action).to_string(),
            healed: time(drift.healed_ms),
            sentence: sentence(drift, &values, &from),
            from,
            rows: drift.rows,
            values,
        }
    }
}

fn run_view(run: &RunRecord) -> RunView {
    let (state, reason) = match &run.state {
        RunState::Waiting => ("waiting", ""),
        RunState::Running => ("running", ""),
        RunState::Done => ("done", ""),
        RunState::Failed(why) => ("failed", why.as_str()),
    };
    let range = |range: &crate::model::RangeFound| RangeView {
        table: range.table.clone(),
        first: key_text(&range.first),
        last: key_text(&range.last),
        rows: range.rows,
    };
    let progress = match (&run.state, run.rows_wanted) {
        (RunState::Done, _) => 1.0,
        (_, 0) => 0.0,
        (_, wanted) => (run.rows as f64 / wanted as f64).min(0.99),
    };
    RunView {
        number: run.number,
        database: run.database.clone(),
        tier: run.tier.word().to_string(),
        by_hand: run.by_hand,
        state: state.to_string(),
        reason: reason.to_string(),
        started: rfc3339(run.started_ms),
        ended: run.ended_ms.map(rfc3339).unwrap_or_default(),
        progress,
        tables: run.tables,
        rows: run.rows,
        drift: run.drift,
        healed: run.healed,
        unsettled: run.unsettled,
        ranges: run.ranges.iter().map(range).collect(),
        longest_ms: run.longest_ms,
        notes: run.notes.clone(),
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(VALUE_CHARS) {
        Some((end, _)) => format!("{}… ({} characters)", &text[..end], text.chars().count()),
        None => text,
    }
}

fn kind_word(kind: DriftKind) -> &'static str {
    match kind {
        DriftKind::Changed => "changed",
        DriftKind::Missing => "missing",
        DriftKind::Unknown => "unknown",
        DriftKind::Record => "record",
        DriftKind::TableGone => "table",
        DriftKind::Unreadable => "unreadable",
        DriftKind::Event => "event",
        DriftKind::WentBack => "restored",
    }
}

fn cause_word(cause: DriftCause) -> &'static str {
    match cause {
        DriftCause::TriggersMissing => "triggers-missing",
        DriftCause::Restored => "restored",
        DriftCause::BitRot => "bit-rot",
        DriftCause::Earlier => "earlier-value",
        DriftCause::ApplyNotNoted => "apply-not-noted",
        DriftCause::LostUnmarked => "lost",
        DriftCause::WrittenUnmarked => "written-unmarked",
        DriftCause::Dropped => "dropped",
        DriftCause::LogDamaged => "log-damaged",
    }
}

/// The cause, in words.
fn cause_sentence(cause: DriftCause) -> &'static str {
    match cause {
        DriftCause::TriggersMissing => "written while the table's triggers were missing",
        DriftCause::Restored => "an older or another file was put in its place",
        DriftCause::BitRot => "damage of the storage: nothing that an application would have written",
        DriftCause::Earlier => {
            "the file holds what the row held before: an old page, an old copy or an apply that did not last"
        }
        DriftCause::ApplyNotNoted => "the file shows what it shall, the log's state had not noted it",
        DriftCause::LostUnmarked => "it went without a delete that any trigger saw",
        DriftCause::WrittenUnmarked => "written past the triggers, or damaged beyond recognition",
        DriftCause::Dropped => "the table was dropped or renamed",
        DriftCause::LogDamaged => "damage of the event log's own storage",
    }
}

fn action_word(action: DriftAction) -> &'static str {
    match action {
        DriftAction::Waits => "waits",
        DriftAction::Captured => "captured",
        DriftAction::Rewritten => "rewritten",
        DriftAction::Removed => "removed",
        DriftAction::TakenOver => "taken-over",
        DriftAction::Recreated => "recreated",
        DriftAction::Fetched => "fetched",
        DriftAction::Reindexed => "reindexed",
    }
}

fn sentence(drift: &DriftRecord, values: &[(String, String, String)], from: &str) -> String {
    let of_row = matches!(drift.kind, DriftKind::Changed | DriftKind::Missing | DriftKind::Unknown);
    let of_row = of_row || drift.kind == DriftKind::Record && drift.row.is_some();
    let place = match (drift.table.as_str(), drift.key.is_empty() || !of_row) {
        ("", _) => drift.database.clone(),
        (table, true) => format!("{}.{table}", drift.database),
        (table, false) => format!("{}.{table} {}", drift.database, key_text(&drift.key)),
    };
    let differ = || {
        let one = |(column, file, log): &(String, String, String)| {
            format!("{column} is {file} in the file, {log} in the log")
        };
        values.iter().take(4).map(one).collect::<Vec<_>>().join("; ")
    };
    let what = match drift.kind {
        _ if drift.rows > 1 && drift.key.is_empty() && drift.kind != DriftKind::TableGone => counted(drift.rows, "row"),
        DriftKind::Changed => differ(),
        DriftKind::Missing => "the file lacks the row".to_string(),
        DriftKind::Unknown => "the log does not show such a row".to_string(),
        DriftKind::Record => "the log's own record of it is wrong".to_string(),
        DriftKind::TableGone => format!("the file lacks the table ({} in the log)", counted(drift.rows, "row")),
        DriftKind::Unreadable => "SQLite finds it damaged".to_string(),
        DriftKind::Event => "an event cannot be read".to_string(),
        DriftKind::WentBack => "the file went back".to_string(),
    };
    let done = match (drift.action, drift.healed_ms.is_some()) {
        (DriftAction::Waits, _) => "waits for a person: `litemesh verify --repair`",
        (DriftAction::Captured, _) => {
            "taken for the application's write and sent to the others; the old value is in the row's history"
        }
        (DriftAction::Rewritten, true) => "written again from the log; what stood there is kept here",
        (DriftAction::Rewritten, false) => "is being written again from the log; what stood there is kept here",
        (DriftAction::Removed, _) => "taken out again: the log knows it as gone; it is kept here",
        (DriftAction::TakenOver, _) => "the log's state took it over",
        (DriftAction::Recreated, _) => "made again and filled from the log",
        (DriftAction::Fetched, _) => "taken from another server",
        (DriftAction::Reindexed, _) => "its indexes were made again from its rows",
    };
    let mut text = format!("{place}: {what}: {}; {done}", cause_sentence(drift.cause));
    if !from.is_empty() {
        text += &format!(" ({from})");
    }
    if !drift.words.is_empty() {
        text += &format!(". {}", drift.words);
    }
    text
}

fn most_first<K: Ord + Clone>(counts: BTreeMap<K, u64>) -> Vec<(K, u64)> {
    let mut list: Vec<(K, u64)> = counts.into_iter().collect();
    list.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    list
}

fn patterns(drift: &[DriftRecord], offset_minutes: i32) -> DriftPatterns {
    let (mut tables, mut causes) = (BTreeMap::new(), BTreeMap::new());
    let (mut hours, mut days) = (BTreeMap::new(), BTreeMap::new());
    for one in drift {
        let place = if one.table.is_empty() { one.database.clone() } else { format!("{}.{}", one.database, one.table) };
        *tables.entry(place).or_insert(0) += one.rows;
        *causes.entry(cause_word(one.cause).to_string()).or_insert(0) += one.rows;
        let minutes = (one.found_ms / 60_000) as i64 + i64::from(offset_minutes);
        *hours.entry((minutes.rem_euclid(1_440) / 60) as u32).or_insert(0) += one.rows;
        *days.entry(rfc3339(one.found_ms)[..10].to_string()).or_insert(0) += one.rows;
    }
    let total: u64 = drift.iter().map(|one| one.rows).sum();
    let mut found = DriftPatterns {
        looked_at: drift.len() as u64,
        tables: most_first(tables),
        causes: most_first(causes),
        hours: most_first(hours),
        days: days.into_iter().collect(),
        sentences: Vec::new(),
    };
    let stands_out = |count: u64| total >= 4 && count * 2 > total;
    if let Some((table, count)) = found.tables.first().filter(|(_, count)| stands_out(*count) && found.tables.len() > 1)
    {
        found.sentences.push(format!("{count} of {total} differences are in {table}"));
    }
    if let Some((cause, count)) = found.causes.first().filter(|(_, count)| stands_out(*count)) {
        found.sentences.push(format!("{count} of {total} have the cause {cause}"));
    }
    if let Some((hour, count)) = found.hours.first().filter(|(_, count)| stands_out(*count) && found.hours.len() > 1) {
        found.sentences.push(format!("{count} of {total} were found between {hour}:00 and {}:00", (hour + 1) % 24));
    }
    if found.days.len() > 1 && found.days.last().is_some_and(|(_, count)| stands_out(*count)) {
        found.sentences.push("most of them came on the last day: look at the disk and at what ran there".to_string());
    }
    found
}
