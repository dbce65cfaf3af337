//! Drift of more than a row: dropped tables, tables that SQLite cannot read, scans, restored files, damaged events.
//!
//! A dropped table is never made again by itself: the app may have meant it (and an older schema would break it). Its
//! definition is kept with the record, so that `verify --repair` can. A table whose pages are damaged cannot be healed in
//! place while the app has the file: the record says what a person does. Rows that a scan or a restored file differ in are
//! kept aside before the scan heals them, the first [`ROWS_NAMED`] by name, the others by number: a backup of a large table
//! must not make the log as large again. Invariant: records come to the disk before anything is healed.
//! Callers: verify_run, rescan, recover.

use std::collections::BTreeSet;

use super::database::{SCHEMA_SEPARATOR, schema_key};
use super::drift::Confirm;
use super::rescan::Difference;
use super::verify_run::Run;
use super::{Node, NodeError, Now};
use crate::merge::Evaluator;
use crate::merge::store::{Fingerprint, Store, TableId};
use crate::model::{
    DriftAction, DriftCause, DriftKind, DriftRecord, Identity, Key, OriginId, RowId, Tier, Value, counted, fits,
};
use crate::sqlite::Image;

/// Keys of records that are about a table's pages and its indexes.
const PAGES: &str = "pages";
const INDEX: &str = "index";
const TRIGGERS: &str = "triggers";

/// Rows of one scan of one table that are kept by name.
const ROWS_NAMED: usize = 500;

impl Node {
    /// Tables that the log knows rows of and the file lacks; those that came back.
    pub(super) fn note_dropped(&mut self, run: &mut Run, position: usize, now: Now) -> Result<(), NodeError> {
        run.record.drift += self.tables_dropped(position, (run.record.number, Some(run.record.tier)), now)?;
        let name = self.schemas[position].database.clone();
        let waiting: Vec<(String, u64)> = (self.verify.open.iter())
            .filter(|((database, table, key), _)| *database == name && !table.is_empty() && key.is_empty())
            .map(|((_, table, _), number)| (table.clone(), *number))
            .collect();
        for (table, number) in waiting {
            let Some(mut record) = self.log.read()?.drift(number.saturating_sub(1), 1)?.pop() else { continue };
            if record.number != number || record.kind != DriftKind::TableGone {
                continue;
            }
            let stands = self.schemas[position].table(&table).is_some();
            if stands || run.record.repair && !record.sql.is_empty() {
                // First the table: should the record not be written, the next run finds that it stands.
                if !stands {
                    crate::sometimes!("drift: a dropped table is made again");
                    self.databases[position].file.recreate(&record.sql)?;
                }
                record.action = DriftAction::Recreated;
                self.keep_aside(std::slice::from_mut(&mut record))?;
                run.record.healed += 1;
                let confirm = Confirm::of(&DriftRecord { run: run.record.number, ..record });
                self.verify.confirm.push_back(confirm);
                self.databases[position].data_version = None;
                self.databases[position].touch(now);
            }
        }
        Ok(())
    }

    /// Records tables that went, with what makes them again. Returns how many are gone.
    pub(super) fn tables_dropped(
        &mut self,
        position: usize,
        (run, tier): (u64, Option<Tier>),
        now: Now,
    ) -> Result<u64, NodeError> {
        let schema = &self.schemas[position];
        let name = schema.database.clone();
        let read = self.log.read()?;
        let noted = read.meta(&schema_key(&name))?.unwrap_or_default();
        let noted = String::from_utf8_lossy(&noted).into_owned();
        let (mut records, mut gone) = (Vec::new(), 0);
        for id in read.tables_of(&name) {
            let (_, table) = read.table_name(id)?;
            let rows = read.fingerprint(id)?.rows;
            let left_out = schema.left_out.iter().any(|(other, _)| other.eq_ignore_ascii_case(&table));
            if rows == 0 || left_out || schema.table(&table).is_some() {
                continue;
            }
            gone += 1;
            if self.verify.open.contains_key(&(name.clone(), table.clone(), Key::new())) {
                continue;
            }
            let statements = noted.split(SCHEMA_SEPARATOR).filter(|sql| is_about(sql, &table));
            records.push(DriftRecord {
                run,
                tier,
                kind: DriftKind::TableGone,
                cause: DriftCause::Dropped,
                rows,
                sql: statements.map(str::to_string).collect(),
                words: "the other servers keep it; `litemesh verify --repair` makes it again".to_string(),
                ..self.blank_record(position, &table, now)
            });
        }
        drop(read);
        for record in &records {
            self.alert(format!(
                "database {name}: table {} with {} was dropped or renamed here; the other servers keep theirs. If it was \
                 not meant: `litemesh verify --repair`",
                record.table,
                counted(record.rows, "row")
            ));
        }
        self.keep_aside(&mut records)?;
        Ok(gone)
    }

    /// SQLite cannot read a table.
    pub(super) fn note_unreadable(
        &mut self,
        run: &mut Run,
        (position, table): (usize, &str),
        words: &str,
        now: Now,
    ) -> Result<(), NodeError> {
        run.record.drift += 1;
        let mut record = DriftRecord {
            run: run.record.number,
            tier: Some(run.record.tier),
            kind: DriftKind::Unreadable,
            cause: DriftCause::BitRot,
            key: vec![Value::text(PAGES)],
            words: format!("{words}; the log holds all of its rows"),
            ..self.blank_record(position, table, now)
        };
        self.keep_aside(std::slice::from_mut(&mut record))?;
        run.waiting.insert(record.number);
        Ok(())
    }

    /// Behind a full run: what waited, and was not found again, has become equal by another way (a rebuilt file, a write).
    pub(super) fn close_equal(&mut self, run: &Run, now: Now) -> Result<(), NodeError> {
        if run.resumed {
            return Ok(());
        }
        let schema = &self.schemas[position_of(&self.schemas, &run.record.database)?];
        let looked_at = |table: &str| {
            let tier = self.verify.settings.tier_of(Tier::Full, &schema.database, table);
            table.is_empty() || tier.is_some() && schema.table(table).is_some()
        };
        let numbers: Vec<u64> = (self.verify.open.iter())
            .filter(|((database, table, _), number)| {
                *database == schema.database && looked_at(table) && !run.waiting.contains(number)
            })
            .map(|(_, number)| *number)
            .collect();
        for number in numbers {
            let found = self.log.read()?.drift(number.saturating_sub(1), 1)?.pop();
            let Some(mut record) = found.filter(|record| record.number == number) else { continue };
            if matches!(record.kind, DriftKind::TableGone | DriftKind::Event) {
                continue;
            }
            (record.action, record.healed_ms) = (DriftAction::TakenOver, Some(now.wall_ms));
            self.keep_aside(std::slice::from_mut(&mut record))?;
        }
        Ok(())
    }

    /// What SQLite says of the file's structure. Wrong indexes are made again from the rows, which are right.
    pub(super) fn note_structure(
        &mut self,
        run: &mut Run,
        position: usize,
        found: &[String],
        now: Now,
    ) -> Result<(), NodeError> {
        let file = &self.databases[position].file;
        let mut of_index: BTreeSet<String> = BTreeSet::new();
        let mut other: Vec<&String> = Vec::new();
        for words in found {
            match words.rsplit_once(" index ") {
                Some((_, index)) => match file.table_of_index(index.trim())? {
                    Some(table) => drop(of_index.insert(table)),
                    None => other.push(words),
                },
                None => other.push(words),
            }
        }
        let may = self.verify.settings.repair || run.record.repair;
        for table in of_index {
            run.record.drift += 1;
            let action = if may { DriftAction::Reindexed } else { DriftAction::Waits };
            let mut record = DriftRecord {
                run: run.record.number,
                tier: Some(run.record.tier),
                kind: DriftKind::Unreadable,
                cause: DriftCause::BitRot,
                action,
                key: vec![Value::text(INDEX)],
                words: format!("an index does not fit the rows: {}", found.first().cloned().unwrap_or_default()),
                ..self.blank_record(position, &table, now)
            };
            self.keep_aside(std::slice::from_mut(&mut record))?;
            if !may {
                run.waiting.insert(record.number);
            }
            if may {
                crate::sometimes!("drift: the indexes of a table are made again");
                match self.databases[position].file.reindex(&table) {
                    Ok(()) => {
                        record.healed_ms = Some(now.wall_ms);
                        run.record.healed += 1;
                    }
                    Err(error) => {
                        run.waiting.insert(record.number);
                        record.action = DriftAction::Waits;
                        record.words = format!("{}; they cannot be made again: {error}", record.words);
                    }
                }
                self.keep_aside(std::slice::from_mut(&mut record))?;
            }
        }
        if let Some(words) = other.first() {
            let words = format!("SQLite says: {words}. Stop the app, keep the file, run `litemesh rebuild`");
            self.note_unreadable(run, (position, ""), &words, now)?;
        }
        Ok(())
    }

    /// Triggers of this node that are not as it wrote them: made again, and their tables scanned. They are no data of the app,
    /// so nobody is asked.
    pub(super) fn note_triggers(&mut self, run: &mut Run, position: usize, now: Now) -> Result<(), NodeError> {
        let rotten = self.databases[position].file.rotten_triggers()?;
        if rotten.is_empty() {
            return Ok(());
        }
        let record = |table: &String| {
            DriftRecord {
            run: run.record.number,
            tier: Some(run.record.tier),
            kind: DriftKind::Unreadable,
            cause: DriftCause::BitRot,
            action: DriftAction::Rewritten,
            key: vec![Value::text(TRIGGERS)],
            healed_ms: Some(now.wall_ms),
            words: "a trigger that notes the app's writes was not as it was written (the app's writes may have failed): it is \
                    made again, and the table is compared with the log"
                .to_string(),
            ..self.blank_record(position, table, now)
        }
        };
        let mut records: Vec<DriftRecord> = rotten.iter().map(record).collect();
        self.keep_aside(&mut records)?;
        self.databases[position].file.distrust_triggers(&rotten)?;
        self.databases[position].data_version = None;
        self.databases[position].touch(now);
        run.record.drift += records.len() as u64;
        run.record.healed += records.len() as u64;
        Ok(())
    }

    /// An event of the log is not what was stored: it is asked of the peers.
    pub(super) fn note_event(
        &mut self,
        run: &mut Run,
        position: usize,
        (origin, seq): (OriginId, u64),
        now: Now,
    ) -> Result<(), NodeError> {
        run.record.drift += 1;
        let mut record = DriftRecord {
            run: run.record.number,
            tier: Some(Tier::Full),
            kind: DriftKind::Event,
            cause: DriftCause::LogDamaged,
            key: vec![Value::text(&origin.to_string()), Value::Integer(seq as i64)],
            words: format!("event {seq} of {} ({origin}) is damaged in the log", self.author(&origin)),
            ..self.blank_record(position, "", now)
        };
        self.keep_aside(std::slice::from_mut(&mut record))?;
        self.verify.damaged.insert((origin, seq), (run.record.number, record.number));
        Ok(())
    }

    /// The sum that the log keeps of a table is not that of its rows: the rows say what it is.
    pub(super) fn put_sum_right(
        &mut self,
        run: &mut Run,
        (position, table): (usize, &str),
        (id, sum): (TableId, Fingerprint),
        now: Now,
    ) -> Result<(), NodeError> {
        run.record.drift += 1;
        let mut record = DriftRecord {
            run: run.record.number,
            tier: Some(Tier::Full),
            kind: DriftKind::Record,
            action: DriftAction::TakenOver,
            key: vec![Value::text("sum")],
            healed_ms: Some(now.wall_ms),
            words: "the sum that the log keeps of the table was not that of its rows".to_string(),
            ..self.blank_record(position, table, now)
        };
        self.keep_aside(std::slice::from_mut(&mut record))?;
        let mut write = self.log.write()?;
        write.put_fingerprint(id, sum)?;
        write.commit_durable()?;
        self.relaxed = false;
        run.record.healed += 1;
        Ok(())
    }

    /// Keeps aside what a scan found, before it is healed. Returns how many rows: (changed, missing, new, taken out).
    pub(super) fn note_scan(
        &mut self,
        position: usize,
        table: usize,
        difference: &Difference,
        cause: DriftCause,
        now: Now,
    ) -> Result<[u64; 4], NodeError> {
        let schema = self.schemas[position].tables[table].clone();
        let restored = cause == DriftCause::Restored;
        // Rows without a key that stand under other rowids: the app cannot see it.
        let changed: &[(Key, Image, RowId)] =
            if schema.identity == Identity::Rowid { &[] } else { &difference.changed };
        let blank = self.blank_record(position, &schema.name, now);
        if !restored
            && changed.is_empty()
            && difference.unknown.is_empty()
            && self.are_all(position, table, difference)?
        {
            // The table was dropped and made again: there is nothing to keep aside.
            let rows = difference.missing.len() as u64;
            let made_again = |confirm: &Confirm| confirm.is_of_table(&schema.name);
            if self.verify.confirm.iter().any(made_again) {
                return Ok([0, rows, 0, 0]);
            }
            let (kind, cause, action) = (DriftKind::TableGone, DriftCause::Dropped, DriftAction::Recreated);
            let words = "the table was empty and is filled from the log".to_string();
            let mut record = DriftRecord { rows, kind, cause, action, words, ..blank };
            self.keep_aside(std::slice::from_mut(&mut record))?;
            self.verify.confirm.push_back(Confirm::of(&record));
            return Ok([0, rows, 0, 0]);
        }
        let mut records = Vec::new();
        let action = if restored { DriftAction::Rewritten } else { DriftAction::Captured };
        for (key, image, row) in changed.iter().take(ROWS_NAMED) {
            let log = self.target_image(row, now)?.map(|(_, image)| image);
            let columns = log.iter().flat_map(|log| super::drift_cause::differing(image, log));
            let columns = columns.filter_map(|at| Some(schema.columns.get(at)?.name.clone())).collect();
            let (key, file) = (key.clone(), Some(image.clone()));
            records.push(DriftRecord { row: Some(*row), key, file, log, columns, cause, action, ..blank.clone() });
        }
        for row in difference.missing.iter().take(ROWS_NAMED) {
            let (key, log) = self.target_image(row, now)?.map_or((Key::new(), None), |(key, image)| (key, Some(image)));
            let (row, kind, action) = (Some(*row), DriftKind::Missing, DriftAction::Rewritten);
            records.push(DriftRecord { row, key, log, kind, cause, action, ..blank.clone() });
        }
        let mut removed = 0;
        for (at, (key, image)) in difference.unknown.iter().enumerate() {
            let former = if restored { self.former_holder(position, table, key)? } else { None };
            removed += u64::from(former.is_some());
            if at >= ROWS_NAMED {
                continue;
            }
            let action = if former.is_some() { DriftAction::Removed } else { DriftAction::Captured };
            let (key, file, kind) = (key.clone(), Some(image.clone()), DriftKind::Unknown);
            records.push(DriftRecord { row: former, key, file, kind, cause, action, ..blank.clone() });
        }
        let all = changed.len() + difference.missing.len() + difference.unknown.len();
        if all > records.len() {
            let (rows, healed_ms) = ((all - records.len()) as u64, Some(now.wall_ms));
            let words = "more rows of the same scan, not kept by name".to_string();
            records.push(DriftRecord { rows, healed_ms, words, cause, action, ..blank });
        }
        self.keep_aside(&mut records)?;
        self.verify.confirm.extend(records.iter().filter(|record| record.healed_ms.is_none()).map(Confirm::of));
        let unknown = difference.unknown.len() as u64 - removed;
        Ok([changed.len() as u64, difference.missing.len() as u64, unknown, removed])
    }

    /// Whether a scan misses all that the log shows of a table.
    fn are_all(&self, position: usize, table: usize, difference: &Difference) -> Result<bool, NodeError> {
        let (read, schema) = (self.log.read()?, &self.schemas[position]);
        let id = read.find_table(&schema.database, &schema.tables[table].name)?;
        let rows = id.map(|id| read.fingerprint(id)).transpose()?.unwrap_or_default().rows;
        Ok(rows > 1 && rows == difference.missing.len() as u64)
    }

    /// What the log wants shown of a row.
    fn target_image(&mut self, row: &RowId, now: Now) -> Result<Option<(Key, Image)>, NodeError> {
        let mut write = self.log.write()?;
        Ok(Evaluator::new(&mut write, &self.ranks, &self.schemas, now.wall_ms).target(row)?)
    }

    /// One record, and one alert, that says in words what became of a file that went back.
    pub(super) fn tell_restored(&mut self, position: usize, rows: [u64; 4], now: Now) -> Result<(), NodeError> {
        let [changed, missing, new, removed] = rows;
        let words = format!(
            "an older or another file stood in its place (a backup was put back?): {} had other values than the log and {} written \
             again, {missing} missing came back, {new} unknown {} taken as new, {removed} that had been deleted or moved since {} \
             taken out",
            counted(changed, "row"),
            fits(changed, "was", "were"),
            fits(new, "was", "were"),
            fits(removed, "was", "were"),
        );
        let mut record = DriftRecord {
            kind: DriftKind::WentBack,
            cause: DriftCause::Restored,
            action: DriftAction::Rewritten,
            rows: rows.iter().sum(),
            healed_ms: Some(now.wall_ms),
            key: vec![Value::text("file")],
            words: words.clone(),
            ..self.blank_record(position, "", now)
        };
        self.keep_aside(std::slice::from_mut(&mut record))?;
        let name = &self.schemas[position].database;
        self.alert(format!("database {name}: {words}. Each row: `litemesh drift`"));
        Ok(())
    }
}

fn position_of(schemas: &[crate::model::DatabaseSchema], database: &str) -> Result<usize, NodeError> {
    let gone = || NodeError::Invalid(format!("no database is named {database}"));
    schemas.iter().position(|schema| schema.database == database).ok_or_else(gone)
}

/// Whether a CREATE statement makes a table, or an index of it.
fn is_about(sql: &str, table: &str) -> bool {
    let mut words = Words { rest: sql };
    if !words.next().is_some_and(|word| word.eq_ignore_ascii_case("create")) {
        return false;
    }
    let mut kind = words.next().unwrap_or_default();
    if kind.eq_ignore_ascii_case("unique") {
        kind = words.next().unwrap_or_default();
    }
    let mut name = words.next().unwrap_or_default();
    if name.eq_ignore_ascii_case("if") {
        name = words.nth(2).unwrap_or_default();
    }
    if kind.eq_ignore_ascii_case("table") {
        return name.eq_ignore_ascii_case(table);
    }
    let on = words.next().is_some_and(|word| word.eq_ignore_ascii_case("on"));
    kind.eq_ignore_ascii_case("index") && on && words.next().is_some_and(|of| of.eq_ignore_ascii_case(table))
}

/// Words and quoted names of a statement.
struct Words<'s> {
    rest: &'s str,
}

impl Iterator for Words<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.rest = self.rest.trim_start();
        let first = self.rest.chars().next()?;
        let close = match first {
            '"' | '`' | '\'' => first,
            '[' => ']',
            _ => {
                let end =
                    self.rest.find(|c: char| c.is_whitespace() || "(,;\"`[".contains(c)).unwrap_or(self.rest.len());
                let (word, rest) = self.rest.split_at(end.max(first.len_utf8()));
                self.rest = rest;
                return Some(word.to_string());
            }
        };
        let mut word = String::new();
        let mut chars = self.rest.char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            if c != close {
                word.push(c);
                continue;
            }
            if chars.peek().is_some_and(|(_, next)| *next == close) && close != ']' {
                word.push(c);
                chars.next();
                continue;
            }
            self.rest = &self.rest[at + c.len_utf8()..];
            return Some(word);
        }
        self.rest = "";
        Some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::is_about;

    #[test]
    fn statements_are_told_by_their_table() {
        for sql in [
            "CREATE TABLE note (id INTEGER PRIMARY KEY)",
            "CREATE TABLE \"note\"(id)",
            "create table if not exists [Note] (id)",
            "CREATE UNIQUE INDEX note_text ON note (text)",
            "CREATE INDEX `a b` ON \"note\"(text)",
        ] {
            assert!(is_about(sql, "note"), "{sql}");
        }
        for sql in ["CREATE TABLE notes (id)", "CREATE INDEX note ON other (x)", "CREATE TABLE \"no\"\"te\" (id)", ""] {
            assert!(!is_about(sql, "note"), "{sql}");
        }
    }
}
