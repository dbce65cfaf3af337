//! Drift: suspects become records, causes are found, rows are healed.
//!
//! ```text
//! suspects ─▶ look (a capture, then one snapshot) ─▶ evidence (the rows' own values in the log, paged) ─▶ look again, judge
//!    ─▶ records with both images, durable ─▶ heal: capture as a change │ write again │ take out ─▶ seen equal: healed
//! ```
//! Invariants:
//! - What is overwritten in a file is on disk in a record before; what is captured is an ordinary event, and what it
//!   replaced is in the row's history.
//! - A row that is equal, marked, or waits for an apply at any of the looks is no drift: it is looked at again, and after
//!   [`TRIES_MAX`] looks counted as unsettled.
//! - A difference that waits for a person keeps one record, however often it is found. A record that says "captured" says so
//!   for ever, for an event says it too: what is found at that row later is another record.
//!
//! The rule stands in [`super::drift_cause`]; dropped tables, scans and restored files in [`super::drift_table`].
//! Callers: [`super::verify_run`], `rescan`.

use std::collections::{BTreeMap, BTreeSet};

use super::drift_cause::{Judged, differing};
use super::drift_evidence::{Evidence, judge_all, pair_borrowed, pair_moved};
use super::step::clean_equal;
use super::verify_run::Run;
use super::{Node, NodeError, Now};
use crate::log::LogError;
use crate::merge::Evaluator;
use crate::merge::image::image_hash;
use crate::merge::store::Store;
use crate::model::{DriftAction, DriftCause, DriftKind, DriftRecord, Key, RowId, Tier};
use crate::node::capture::Ids;
use crate::sqlite::{Drain, Image, Mark, MarkOp};

/// Looks at a row that keeps changing.
const TRIES_MAX: u32 = 40;

/// Looks at a healed row that does not become equal.
const CONFIRM_TRIES_MAX: u32 = 50;

/// Healed rows looked at in one tick.
const CONFIRMED_PAGE: usize = 100;

/// Differences that wait for a person and are kept by name.
const WAITING_NAMED_MAX: usize = 5_000;

/// Records, the newest, that rows are looked for in which were missing lately.
const LATELY_MAX: usize = 500;

/// A pause between two looks at rows that keep changing, ms.
const AGAIN_MS: u64 = 150;

/// Suspects of one table under judgement.
pub(super) struct Judging {
    table: String,
    evidence: Option<Evidence>,
}

impl Judging {
    pub(super) fn new(table: String) -> Judging {
        Judging { table, evidence: None }
    }
}

/// A healed row that was not seen equal yet.
#[derive(Clone, Debug)]
pub(super) struct Confirm {
    pub(super) run: u64,
    number: u64,
    database: String,
    table: String,
    key: Key,
    tries: u32,
}

impl Confirm {
    pub(super) fn of(drift: &DriftRecord) -> Confirm {
        let (database, table, key) = (drift.database.clone(), drift.table.clone(), drift.key.clone());
        Confirm { run: drift.run, number: drift.number, database, table, key, tries: 0 }
    }

    /// Whether it is about the whole of a table.
    pub(super) fn is_of_table(&self, table: &str) -> bool {
        self.key.is_empty() && self.table == table
    }
}

/// A row that differs.
pub(super) struct Finding {
    pub(super) key: Key,
    pub(super) row: Option<RowId>,
    /// The log shows the row under this key.
    pub(super) shown: bool,
    pub(super) file: Option<Image>,
    /// What the log noted as shown, where it can be told, else what it wants shown.
    pub(super) log: Option<Image>,
    /// What the log wants shown.
    pub(super) wanted: Option<Image>,
}

/// What a look at suspects came to.
struct Looked {
    findings: Vec<Finding>,
    /// Marked, or waiting for an apply.
    unsettled: Vec<Key>,
}

impl Node {
    /// One step of judging.
    pub(super) fn judge_step(&mut self, run: &mut Run, position: usize, now: Now) -> Result<(), NodeError> {
        let Some(mut judging) = run.judging.take() else { return Ok(()) };
        self.capture(position, now)?;
        if self.databases[position].behind {
            run.judging = Some(judging);
            return Ok(());
        }
        self.verify.spent(run.suspects.len() as u64 + 10, now);
        if let Some(evidence) = &mut judging.evidence
            && !evidence.collect(&self.log.read()?, &self.heads)?
        {
            run.judging = Some(judging);
            return Ok(());
        }
        let mut looked = self.look_at_suspects(run, (position, &judging.table), now)?;
        let left: BTreeSet<&Key> = looked.unsettled.iter().chain(looked.findings.iter().map(|one| &one.key)).collect();
        run.suspects.retain(|key, _| left.contains(key));
        let Some(evidence) = judging.evidence.take() else {
            if !looked.findings.is_empty() {
                let schema = &self.schemas[position];
                judging.evidence = Some(Evidence::of(&judging.table, schema, &looked.findings));
                run.judging = Some(judging);
                return Ok(());
            }
            return self.end_judging(run, (position, judging), &looked.unsettled, now);
        };
        // What came to differ only now is asked about in another round.
        let (known, fresh): (Vec<Finding>, Vec<Finding>) =
            looked.findings.into_iter().partition(|finding| evidence.asked.contains(&finding.key));
        looked.unsettled.extend(fresh.into_iter().map(|finding| finding.key));
        run.suspects.retain(|key, _| !known.iter().any(|finding| finding.key == *key));
        self.heal(run, (position, &judging.table), (known, &evidence), now)?;
        self.end_judging(run, (position, judging), &looked.unsettled, now)
    }

    /// Behind a round: records, and what is to be looked at once more.
    fn end_judging(
        &mut self,
        run: &mut Run,
        (position, judging): (usize, Judging),
        unsettled: &[Key],
        now: Now,
    ) -> Result<(), NodeError> {
        self.judge_records(run, (position, &judging.table), now)?;
        for key in unsettled {
            let Some((_, tries)) = run.suspects.get_mut(key) else { continue };
            *tries += 1;
            if *tries >= TRIES_MAX {
                run.suspects.remove(key);
                run.record.unsettled += 1;
            }
        }
        if !run.suspects.is_empty() {
            crate::sometimes!("verify: rows that the app keeps writing are set aside and looked at again");
            self.verify.put_off(now.mono_ms + AGAIN_MS);
            run.judging = Some(Judging::new(judging.table));
        }
        Ok(())
    }

    /// Compares suspects in one snapshot of the file.
    fn look_at_suspects(&mut self, run: &Run, (position, table): (usize, &str), now: Now) -> Result<Looked, NodeError> {
        let mut looked = Looked { findings: Vec::new(), unsettled: Vec::new() };
        let database = self.schemas[position].database.clone();
        let keys: Vec<Key> = run.suspects.keys().cloned().collect();
        let found = self.databases[position].file.inspect_rows(table, &keys)?;
        let Some(at) = self.schemas[position].tables.iter().position(|known| known.name == table) else {
            return Ok(looked);
        };
        let mut formers: BTreeMap<Key, RowId> = BTreeMap::new();
        let mut write = self.log.write()?;
        let id = write.find_table(&database, table)?;
        let dirty: BTreeSet<RowId> = write.dirty(&database)?.into_iter().collect();
        let mut evaluator = Evaluator::new(&mut write, &self.ranks, &self.schemas, now.wall_ms);
        for (key, image) in found.rows {
            let row = id.map(|id| evaluator.store().shown(id, &key)).transpose()?.flatten();
            let record = match row.map(|row| evaluator.row(&row).map(Option::<&_>::cloned)).transpose() {
                Ok(record) => record.flatten(),
                // Judged with the records.
                Err(LogError::CorruptRecord { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            let noted = record.as_ref().map(|record| record.image_hash);
            if found.marked.contains(&key) || row.is_some_and(|row| dirty.contains(&row)) {
                looked.unsettled.push(key);
                continue;
            }
            if image.as_ref().map(|image| image_hash(table, image)) == noted {
                continue;
            }
            let wanted = row.map(|row| evaluator.target(&row)).transpose()?.flatten().map(|(_, image)| image);
            let lag = record.and_then(|record| record.lag).map(|lag| lag.to_vec());
            let log = lag.filter(|lag| Some(image_hash(table, lag)) == noted).or_else(|| wanted.clone());
            let shown = row.is_some();
            looked.findings.push(Finding { key, row, shown, file: image, log, wanted });
        }
        drop(evaluator);
        drop(write);
        for finding in looked.findings.iter_mut().filter(|finding| !finding.shown) {
            if let Some(row) = self.former_holder(position, at, &finding.key)? {
                formers.insert(finding.key.clone(), row);
            }
            finding.row = formers.get(&finding.key).copied();
        }
        Ok(looked)
    }

    /// Judges findings, keeps them aside, heals them.
    fn heal(
        &mut self,
        run: &mut Run,
        (position, table): (usize, &str),
        (findings, evidence): (Vec<Finding>, &Evidence),
        now: Now,
    ) -> Result<(), NodeError> {
        if findings.is_empty() {
            return Ok(());
        }
        let schema = &self.schemas[position];
        let Some(columns) = schema.table(table).map(|table| table.columns.clone()) else { return Ok(()) };
        let keys = schema.table(table).map(crate::model::TableSchema::key_columns).unwrap_or_default();
        let moved = pair_moved(&findings, &keys);
        let may = self.verify.settings.repair || run.record.repair;
        let rows = self.table_rows(position, table)?;
        let captures = |judged: &Judged| judged.action == DriftAction::Captured;
        let lately = self.missing_lately((position, table), &findings)?;
        let borrowed = pair_borrowed(&findings, &lately, &keys);
        let judged = judge_all(&columns, &findings, (&moved, &borrowed), evidence);
        let captured = run.captured + judged.iter().filter(|judged| captures(judged)).count() as u64;
        let too_many = Judged::too_many(captured, rows) && !run.record.repair;
        let left: BTreeSet<&Key> = moved.values().collect();
        let mut records = Vec::new();
        for (finding, judged) in findings.iter().zip(&judged) {
            // The other half of a move speaks for both.
            if left.contains(&finding.key) {
                continue;
            }
            let waits = !may || captures(judged) && too_many;
            let mut record = self.record_of(run, (position, table), (finding, *judged), now);
            record.columns = names_of(finding, &columns);
            if let Some(from) = moved.get(&finding.key) {
                record.words = format!("stood under {}", super::query::key_text(from));
            } else if let Some(other) = borrowed.get(&finding.key) {
                record.words = format!("the file showed the content of {} under it", super::query::key_text(other));
            }
            if waits {
                record.action = DriftAction::Waits;
                if may {
                    record.words =
                        "so many rows were written without a mark that a person should look first".to_string();
                }
            }
            records.push(record);
        }
        run.record.drift += records.len() as u64;
        let waiting = records.iter().filter(|record| record.action == DriftAction::Waits);
        run.named.extend(waiting.map(|record| record.key.clone()));
        let named = |record: &DriftRecord| record.action != DriftAction::Waits || self.has_room(record);
        records.retain(named);
        self.keep_aside(&mut records)?;
        let waiting = records.iter().filter(|record| record.action == DriftAction::Waits);
        run.waiting.extend(waiting.map(|record| record.number));
        run.captured = captured;
        self.act(position, table, (&findings, &moved), &records, now)?;
        records.retain(|record| record.action != DriftAction::Waits);
        run.record.healed += records.len() as u64;
        self.verify.confirm.extend(records.iter().map(Confirm::of));
        Ok(())
    }

    /// Rows of a table that were missing not long ago, where something is to be compared with them: key and content.
    fn missing_lately(
        &self,
        (position, table): (usize, &str),
        findings: &[Finding],
    ) -> Result<Vec<(Key, Image)>, NodeError> {
        if !findings.iter().any(|finding| finding.shown && finding.file.is_some()) {
            return Ok(Vec::new());
        }
        let database = &self.schemas[position].database;
        let newest = self.log.read()?.newest_drift(LATELY_MAX)?.into_iter();
        let fits =
            |one: &DriftRecord| one.kind == DriftKind::Missing && one.database == *database && one.table == table;
        Ok(newest.filter(fits).filter_map(|one| Some((one.key, one.log?))).collect())
    }

    /// Whether a difference that waits is kept by name: those that are beyond all counting are only counted.
    fn has_room(&self, record: &DriftRecord) -> bool {
        let at = (record.database.clone(), record.table.clone(), record.key.clone());
        self.verify.open.len() < WAITING_NAMED_MAX || self.verify.open.contains_key(&at)
    }

    fn table_rows(&self, position: usize, table: &str) -> Result<u64, NodeError> {
        let read = self.log.read()?;
        let id = read.find_table(&self.schemas[position].database, table)?;
        Ok(id.map(|id| read.fingerprint(id)).transpose()?.unwrap_or_default().rows)
    }

    fn record_of(
        &self,
        run: &Run,
        (position, table): (usize, &str),
        (finding, judged): (&Finding, Judged),
        now: Now,
    ) -> DriftRecord {
        let shown = finding.row.filter(|_| finding.shown);
        DriftRecord {
            run: run.record.number,
            tier: Some(run.record.tier),
            kind: Node::kind_of(finding.file.as_ref(), shown),
            row: finding.row,
            key: finding.key.clone(),
            file: finding.file.clone(),
            log: finding.log.clone(),
            cause: judged.cause,
            action: judged.action,
            ..self.blank_record(position, table, now)
        }
    }

    /// A record that says nothing yet but where and when.
    pub(super) fn blank_record(&self, position: usize, table: &str, now: Now) -> DriftRecord {
        DriftRecord {
            number: 0,
            found_ms: now.wall_ms,
            run: 0,
            tier: None,
            database: self.schemas[position].database.clone(),
            table: table.to_string(),
            kind: DriftKind::Changed,
            row: None,
            key: Key::new(),
            columns: Vec::new(),
            file: None,
            log: None,
            cause: DriftCause::LogDamaged,
            action: DriftAction::Waits,
            healed_ms: None,
            from: None,
            rows: 1,
            words: String::new(),
            sql: Vec::new(),
        }
    }

    /// Numbers records and brings them to the disk. Those that waited already keep their number, and the time of their finding.
    pub(super) fn keep_aside(&mut self, records: &mut [DriftRecord]) -> Result<(), NodeError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut write = self.log.write()?;
        let mut last = self.verify.last_drift;
        for record in records.iter_mut() {
            let at = (record.database.clone(), record.table.clone(), record.key.clone());
            if record.number == 0 {
                let known = self.verify.open.get(&at).copied();
                let first = known.map(|known| write.drift(known)).transpose()?.flatten();
                // It has differed since it was found first.
                record.found_ms = first.map_or(record.found_ms, |first| first.found_ms);
                record.number = known.unwrap_or_else(|| {
                    last += 1;
                    last
                });
            }
            write.put_drift(record)?;
        }
        write.commit_durable()?;
        self.relaxed = false;
        self.verify.last_drift = last;
        for record in records {
            let at = (record.database.clone(), record.table.clone(), record.key.clone());
            match record.action {
                DriftAction::Waits => drop(self.verify.open.insert(at, record.number)),
                _ => drop(self.verify.open.remove(&at)),
            }
        }
        Ok(())
    }

    /// Does what the records say.
    fn act(
        &mut self,
        position: usize,
        table: &str,
        (findings, moved): (&[Finding], &BTreeMap<Key, Key>),
        records: &[DriftRecord],
        now: Now,
    ) -> Result<(), NodeError> {
        let by_key: BTreeMap<&Key, &Finding> = findings.iter().map(|finding| (&finding.key, finding)).collect();
        let mut drain = Drain { meta: self.databases[position].file.meta()?, ..Drain::default() };
        let mut again: Vec<(RowId, Option<(Key, Image)>)> = Vec::new();
        for record in records {
            let Some(finding) = by_key.get(&record.key) else { continue };
            let seen = finding.file.clone().map(|image| (record.key.clone(), image));
            let from = moved.get(&record.key);
            match record.action {
                DriftAction::Captured => add_mark(&mut drain, table, finding, from, now),
                DriftAction::Rewritten | DriftAction::Removed | DriftAction::TakenOver => {
                    let row = from.and_then(|from| by_key.get(from)).map_or(finding.row, |left| left.row);
                    again.extend(row.map(|row| (row, seen)));
                }
                _ => {}
            }
        }
        self.take_over_dirty(position, &again, now)?;
        if !drain.marks.is_empty() {
            self.log_drain(position, &drain, Ids::Reused, now)?;
        }
        Ok(())
    }

    /// Records that do not follow from their own cells, or cannot be read.
    fn judge_records(&mut self, run: &mut Run, (position, table): (usize, &str), now: Now) -> Result<(), NodeError> {
        if run.records.is_empty() || !self.applied_all() {
            return Ok(());
        }
        let rows: Vec<RowId> = std::mem::take(&mut run.records).into_iter().collect();
        let name = self.schemas[position].database.clone();
        let mut records = Vec::new();
        let (mut wrong, mut damaged) = (Vec::new(), Vec::new());
        {
            let mut write = self.log.write()?;
            let dirty: BTreeSet<RowId> = write.dirty(&name)?.into_iter().collect();
            let mut evaluator = Evaluator::new(&mut write, &self.ranks, &self.schemas, now.wall_ms);
            for row in rows.iter().filter(|row| !dirty.contains(*row)) {
                let mut record = DriftRecord {
                    run: run.record.number,
                    tier: Some(Tier::Full),
                    kind: DriftKind::Record,
                    row: Some(*row),
                    cause: DriftCause::LogDamaged,
                    action: DriftAction::Rewritten,
                    ..self.blank_record(position, table, now)
                };
                match evaluator.presentation(row) {
                    Ok(None) => continue,
                    Ok(Some(change)) => {
                        let new = change.new.clone();
                        record.key = change.old_key.clone().or(new.map(|(key, _)| key)).unwrap_or_default();
                        record.log = change.new.map(|(_, image)| image);
                        record.words = "the log's record of the row says something else than its cells".to_string();
                        wrong.push(*row);
                    }
                    Err(LogError::CorruptRecord { .. }) => {
                        damaged.push(*row);
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                }
                records.push(record);
            }
        }
        for record in records.iter_mut().filter(|record| !record.key.is_empty()) {
            let found = self.databases[position].file.inspect_rows(table, std::slice::from_ref(&record.key))?;
            record.file = found.rows.into_iter().next().and_then(|(_, image)| image);
        }
        if !damaged.is_empty() {
            let derived = self.derive_again(run, (position, table), &damaged, now)?;
            run.count_derived(&derived);
        }
        run.record.drift += records.len() as u64;
        self.keep_aside(&mut records)?;
        if !wrong.is_empty() {
            let mut write = self.log.write()?;
            let mut evaluator = Evaluator::new(&mut write, &self.ranks, &self.schemas, now.wall_ms);
            evaluator.touch_again(wrong.iter().copied())?;
            evaluator.settle()?;
            for row in &wrong {
                if let Some(table) = evaluator.row(row)?.map(|record| record.table) {
                    evaluator.store_mut().set_dirty(table, *row, true)?;
                }
            }
            let left = clean_equal(&mut evaluator, &name)?;
            evaluator.finish()?;
            write.commit_durable()?;
            self.databases[position].behind |= left;
            run.record.healed += wrong.len() as u64;
            self.verify.confirm.extend(records.iter().map(Confirm::of));
        }
        Ok(())
    }

    /// Looks at healed rows: equal is healed.
    pub(super) fn confirm_healed(&mut self, now: Now) -> Result<(), NodeError> {
        if self.verify.confirm.is_empty() {
            return Ok(());
        }
        let mut healed = Vec::new();
        let mut later = Vec::new();
        for _ in 0..CONFIRMED_PAGE.min(self.verify.confirm.len()) {
            let Some(mut confirm) = self.verify.confirm.pop_front() else { break };
            confirm.tries += 1;
            match self.is_healed(&confirm) {
                Ok(Some(true)) => healed.push((confirm.number, String::new())),
                Ok(None) if confirm.tries < CONFIRM_TRIES_MAX => later.push(confirm),
                Ok(_) | Err(NodeError::Sqlite(_)) if confirm.tries < CONFIRM_TRIES_MAX => later.push(confirm),
                Ok(_) | Err(NodeError::Sqlite(_)) => {
                    let words = "the row does not become equal: see `litemesh shelf` and `litemesh status`";
                    healed.push((confirm.number, words.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        if !later.is_empty() {
            self.verify.put_off(now.mono_ms + AGAIN_MS);
            self.verify.confirm.extend(later);
        }
        self.close_records(&healed, now)
    }

    /// Notes that records are healed, or (with words) why not.
    fn close_records(&mut self, numbers: &[(u64, String)], now: Now) -> Result<(), NodeError> {
        if numbers.is_empty() {
            return Ok(());
        }
        let mut write = self.log.write()?;
        let read = self.log.read()?;
        for (number, words) in numbers {
            let Some(mut record) = read.drift(number.saturating_sub(1), 1)?.pop() else { continue };
            if record.number != *number {
                continue;
            }
            if words.is_empty() {
                record.healed_ms = Some(now.wall_ms);
            } else if record.action == DriftAction::Captured {
                // An event says so on all servers: that stays told. What differs still is another record's business.
                record.words.clone_from(words);
            } else {
                record.words.clone_from(words);
                record.action = DriftAction::Waits;
                let at = (record.database.clone(), record.table.clone(), record.key.clone());
                self.verify.open.insert(at, record.number);
            }
            write.put_drift(&record)?;
        }
        write.commit_durable()?;
        self.relaxed = false;
        Ok(())
    }

    /// Whether file and log agree about a row again; `None`: it is too early to tell.
    fn is_healed(&self, confirm: &Confirm) -> Result<Option<bool>, NodeError> {
        let Some(position) = self.schemas.iter().position(|schema| schema.database == confirm.database) else {
            return Ok(Some(false));
        };
        if self.databases[position].behind || !self.databases[position].ready {
            return Ok(None);
        }
        let read = self.log.read()?;
        let Some(id) = read.find_table(&confirm.database, &confirm.table)? else { return Ok(Some(false)) };
        if confirm.key.is_empty() {
            let rows = self.databases[position].file.count_rows(&confirm.table)?;
            return Ok(Some(rows == read.fingerprint(id)?.rows));
        }
        let found = self.databases[position].file.inspect_rows(&confirm.table, std::slice::from_ref(&confirm.key))?;
        let noted = match read.shown(id, &confirm.key)? {
            Some(row) => read.row(&row)?.map(|record| record.image_hash),
            None => None,
        };
        let image = found.rows.first().and_then(|(_, image)| image.as_ref());
        Ok(Some(image.map(|image| image_hash(&confirm.table, image)) == noted))
    }
}

/// Columns that differ; all of them for rows that came or went.
fn names_of(finding: &Finding, columns: &[crate::model::Column]) -> Vec<String> {
    let (Some(file), Some(log)) = (&finding.file, &finding.log) else { return Vec::new() };
    differing(file, log).into_iter().filter_map(|at| columns.get(at)).map(|column| column.name.clone()).collect()
}

/// What the app would have marked.
fn add_mark(drain: &mut Drain, table: &str, finding: &Finding, from: Option<&Key>, now: Now) {
    let (key, name) = (finding.key.clone(), table.to_string());
    let op = if finding.shown || from.is_some() { MarkOp::Update } else { MarkOp::Insert };
    let old_key = Some(from.unwrap_or(&key).clone());
    drain.images.insert((name.clone(), key.clone()), finding.file.clone());
    if let Some(from) = from {
        drain.images.insert((name.clone(), from.clone()), None);
    }
    drain.marks.push(Mark { seq: 0, rid: [0; 16], op, table: name, key, old_key, wall_ms: now.wall_ms });
}
