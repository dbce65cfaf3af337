//! Rehearsal: a first meeting played on copies, to tell what it will do.
//!
//! The plan of a join is no second implementation: a real node opens copies of this server's log and files, adopts them
//! with the same code, applies with the same code, and this module looks at what became of every row. Nothing leaves the
//! copies: no peer is connected, effects are dropped. Invariant: the plan is what the join does if neither side writes
//! before it; whoever writes afterwards changes both in the same way. Caller: daemon (join), with a scratch directory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::likeness::{is_unlikely_twice, label, nearly_equal};
use super::meeting::{Fate, Lacking, Meeting, MetRow, MetTable, Verdict};
use super::meeting_view::{
    DatabaseMeeting, MeetingPlan, MoveView, NearView, PairView, RowView, TableMeeting, UniqueView,
};
use super::query::key_text;
use super::{Input, Node, NodeError, NodeSettings, Now};
use crate::log::{Log, LogRead};
use crate::merge::store::{Row, Shelved};
use crate::model::{Identity, Key, RowId, TableSchema, counted, fits};

/// Examples of a kind in a plan.
const EXAMPLES_MAX: usize = 5;

/// Rows of a list that a person must read whole.
const LISTED_MAX: usize = 200;

/// Time between two steps on the copies, ms: nobody writes there, so every wait is over.
const STEP_MS: u64 = 40_000;

/// Steps without any progress before the rest is given up (a file that cannot be written).
const IDLE_STEPS_MAX: usize = 20;

/// A table's meeting with the rows' identities, as they stand right after adoption.
struct Played {
    table: TableSchema,
    met: MetTable,
    /// Parallel to `met.here`.
    rows: Vec<Option<RowId>>,
}

impl Node {
    /// Plays the first meeting of all files of `settings` that wait for it. They and the log are copies.
    pub fn rehearse(settings: NodeSettings, log: Arc<Log>, mut now: Now) -> Result<MeetingPlan, NodeError> {
        let mut node = Node::open(settings, log, now)?;
        let mut played: BTreeMap<usize, (String, Vec<Played>)> = BTreeMap::new();
        for position in node.parents_first() {
            if node.databases[position].adopt_by_ms.is_none() {
                continue;
            }
            let name = node.schemas[position].database.clone();
            let meeting = match node.meeting(&name)? {
                Meeting::Copy if !node.knows_rows(position)? => "first",
                Meeting::Copy => "copy",
                Meeting::Independent => "independent",
                Meeting::Base(_) => "base",
            };
            let mut met = node.enrol_comparing(position, now)?;
            if met.is_empty() {
                met = node.all_new(position)?;
            }
            played.insert(position, (meeting.to_string(), node.played(position, met)?));
        }
        for database in &mut node.databases {
            database.adopt_by_ms = None;
        }
        node.play(&mut now)?;
        let read = node.log.read()?;
        let mut plan = MeetingPlan::default();
        for (position, (meeting, tables)) in played {
            let settings = &node.databases[position].settings;
            let mut view = DatabaseMeeting {
                name: settings.name.clone(),
                path: settings.path.display().to_string(),
                meeting,
                ..DatabaseMeeting::default()
            };
            for table in &tables {
                view.tables.push(Telling { read: &read, database: &settings.name, played: table }.table()?);
            }
            view.rows = view.tables.iter().map(|table| table.here).sum();
            plan.rows += view.rows;
            plan.warnings.extend(warnings(&view, &tables));
            plan.databases.push(view);
        }
        Ok(plan)
    }

    /// A cluster without any row of this database: all that is here is new.
    fn all_new(&self, position: usize) -> Result<Vec<MetTable>, NodeError> {
        let mut met: Vec<MetTable> = Vec::new();
        met.resize_with(self.schemas[position].tables.len(), MetTable::default);
        for row in self.find_all(position)? {
            let (key, image) = (row.key, row.image);
            met[row.table].here.push(MetRow { key, image, verdict: Verdict::New, row: None });
        }
        Ok(met)
    }

    /// Notes which row stands at every key now, before anything is written.
    fn played(&self, position: usize, met: Vec<MetTable>) -> Result<Vec<Played>, NodeError> {
        let schema = &self.schemas[position];
        let read = self.log.read()?;
        let mut played = Vec::new();
        for (table, mut met) in schema.tables.iter().zip(met) {
            let id = read.find_table(&schema.database, &table.name)?;
            let mut rows = Vec::with_capacity(met.here.len());
            for row in &met.here {
                let shown = id.map(|id| read.shown(id, &row.key)).transpose()?.flatten();
                rows.push(row.row.or(shown));
            }
            met.lacking.sort_by(|a, b| a.key.cmp(&b.key));
            played.push(Played { table: table.clone(), met, rows });
        }
        Ok(played)
    }

    /// Steps until the copies show all, or nothing moves any more.
    fn play(&mut self, now: &mut Now) -> Result<(), NodeError> {
        let mut idle = 0;
        while idle < IDLE_STEPS_MAX {
            let cursors: Vec<_> = self.databases.iter().map(|database| database.cursor.clone()).collect();
            let behind: Vec<bool> = self.databases.iter().map(|database| database.behind).collect();
            *now = Now { mono_ms: now.mono_ms + STEP_MS, wall_ms: now.wall_ms };
            self.handle(Input::Tick, *now)?;
            while self.poll_effect().is_some() {}
            if self.applied_all() {
                return Ok(());
            }
            let moved = self.databases.iter().zip(&cursors).any(|(database, cursor)| database.cursor != *cursor)
                || self.databases.iter().zip(&behind).any(|(database, behind)| database.behind != *behind);
            idle = if moved { 0 } else { idle + 1 };
        }
        Ok(())
    }
}

/// Tells one table.
struct Telling<'t> {
    read: &'t LogRead,
    database: &'t str,
    played: &'t Played,
}

impl Telling<'_> {
    fn table(&self) -> Result<TableMeeting, NodeError> {
        let Played { table, met, rows } = self.played;
        let mut view =
            TableMeeting { table: table.name.clone(), accounts: table.holds_accounts(), ..TableMeeting::default() };
        view.here = met.here.len() as u64;
        let mut shared: BTreeSet<RowId> = BTreeSet::new();
        for row in &met.here {
            shared.extend(row.row);
            match &row.verdict {
                Verdict::Equal => view.equal += 1,
                Verdict::Older => view.newer_there += 1,
                Verdict::Lost(columns) => {
                    view.newer_there += 1;
                    view.cells_lost += columns.len() as u64;
                }
                Verdict::Edited { columns, lost } => {
                    let kind = if columns.is_empty() { &mut view.newer_there } else { &mut view.edited_here };
                    *kind += 1;
                    view.cells_lost += lost.len() as u64;
                }
                Verdict::Deleted => view.deleted_there += 1,
                Verdict::New => view.only_here += 1,
                Verdict::Kept => {
                    view.only_here += 1;
                    view.kept += 1;
                }
            }
        }
        for row in &met.lacking {
            match row.fate {
                Fate::Comes => view.only_there += 1,
                Fate::Deleted => view.deleted_here += 1,
                Fate::ComesBack => view.come_back += 1,
            }
        }
        view.there = shared.len() as u64 - view.deleted_there.min(shared.len() as u64) + met.lacking.len() as u64;
        let there: BTreeMap<&Key, &Lacking> = met.lacking.iter().map(|row| (&row.key, row)).collect();
        let by_row: BTreeMap<RowId, &Lacking> = met.lacking.iter().map(|row| (row.row, row)).collect();
        for (row, id) in met.here.iter().zip(rows) {
            let Some(id) = id else { continue };
            self.tell(&mut view, row, id, (&there, &by_row))?;
        }
        Ok(view)
    }

    /// What becomes of one row that is here.
    fn tell(
        &self,
        view: &mut TableMeeting,
        row: &MetRow,
        id: &RowId,
        (there, by_row): (&BTreeMap<&Key, &Lacking>, &BTreeMap<RowId, &Lacking>),
    ) -> Result<(), NodeError> {
        let table = &self.played.table;
        let Some((record, members)) = self.class(id)? else { return Ok(()) };
        let here = RowView {
            label: label(table, &row.image),
            id: key_text(&row.key),
            id_after: record.shown.as_deref().map(key_text).unwrap_or_default(),
        };
        let joined = members.iter().find_map(|member| by_row.get(member).copied());
        if matches!(table.identity, Identity::Surrogate(_))
            && let (Some(from), Some(to)) =
                (row.key[0].as_integer(), record.shown.as_ref().and_then(|key| key[0].as_integer()))
            && from != to
        {
            if joined.is_none() {
                count_move(&mut view.moves, from, to);
            }
            if view.accounts && view.account_moves.len() < LISTED_MAX {
                view.account_moves.push(here.clone());
            }
        }
        if !matches!(row.verdict, Verdict::New | Verdict::Kept) {
            return Ok(());
        }
        let opposite = there.get(&row.key).copied().filter(|_| matches!(table.identity, Identity::Surrogate(_)));
        if let Some(opposite) = opposite.filter(|opposite| !members.contains(&opposite.row)) {
            view.same_id_different += 1;
            if view.different.len() < EXAMPLES_MAX {
                view.different.push(PairView { here: here.clone(), there: self.view_of(opposite)? });
            }
        }
        let met = met_key(&record, joined);
        let holder = match &record.shelved {
            Some(Shelved::Unique { holder, .. }) => by_row.get(holder).copied(),
            _ => None,
        };
        if let Some((outcome, with)) = met {
            view.unique_count += 1;
            if view.unique.len() < LISTED_MAX {
                view.unique.push(UniqueView { here: here.clone(), outcome, with });
            }
        }
        let near = [(opposite, "the same id"), (holder, "the same UNIQUE key")];
        for (other, reason) in near.into_iter().filter(|_| joined.is_none() && !view.accounts) {
            let Some(other) = other else { continue };
            let Some((theirs, _)) = self.class(&other.row)? else { continue };
            let Some((equal_cells, cells)) = nearly_equal(&record, &theirs) else { continue };
            view.near_equal_count += 1;
            if view.near_equal.len() < LISTED_MAX {
                let one = self.view_of(other)?;
                view.near_equal.push(near_view(
                    self.database,
                    &table.name,
                    (one, here.clone()),
                    (equal_cells, cells),
                    reason,
                ));
            }
            break;
        }
        Ok(())
    }

    /// What its UNIQUE keys bring a row: (outcome, with what).
    /// The record that stands for a row, and all rows it is one with.
    fn class(&self, id: &RowId) -> Result<Option<(Row, Vec<RowId>)>, NodeError> {
        let Some(record) = self.read.row(id)? else { return Ok(None) };
        let members = record.members().to_vec();
        match members.first() {
            Some(canonical) if canonical != id => Ok(self.read.row(canonical)?.map(|canonical| (canonical, members))),
            _ => Ok(Some((record, if members.is_empty() { vec![*id] } else { members }))),
        }
    }

    fn view_of(&self, row: &Lacking) -> Result<RowView, NodeError> {
        let after = self.class(&row.row)?.and_then(|(record, _)| record.shown);
        Ok(RowView {
            label: label(&self.played.table, &row.image),
            id: key_text(&row.key),
            id_after: after.as_deref().map(key_text).unwrap_or_default(),
        })
    }
}

/// A pair with the command that joins it.
pub(super) fn near_view(
    database: &str,
    table: &str,
    (one, other): (RowView, RowView),
    (equal_cells, cells): (u64, u64),
    reason: &str,
) -> NearView {
    let id = |row: &RowView| if row.id_after.is_empty() { row.id.clone() } else { row.id_after.clone() };
    let command = format!("litemesh merge {database}.{table} {} {}", id(&one), id(&other));
    let (database, table, reason) = (database.to_string(), table.to_string(), reason.to_string());
    NearView { database, table, one, other, equal_cells, cells, reason, command }
}

/// What its UNIQUE keys bring a row: (outcome, with what).
fn met_key(record: &Row, joined: Option<&Lacking>) -> Option<(String, String)> {
    if let Some(joined) = joined {
        return Some(("merges".to_string(), key_text(&joined.key)));
    }
    if let Some(Shelved::Unique { index, .. }) = &record.shelved {
        return Some(("shelf".to_string(), index.clone()));
    }
    let shown: Vec<String> = record.overlay.iter().map(|(_, value)| key_text(std::slice::from_ref(value))).collect();
    (!shown.is_empty()).then(|| ("suffix".to_string(), shown.join(", ")))
}

fn count_move(moves: &mut Vec<MoveView>, from: i64, to: i64) {
    let by = to.saturating_sub(from);
    match moves.iter_mut().find(|one| one.by == by) {
        Some(one) => {
            one.rows += 1;
            if from < one.from {
                (one.from, one.to) = (from, to);
            }
        }
        None => moves.push(MoveView { rows: 1, by, from, to }),
    }
}

/// What a person should know of one database before saying yes.
fn warnings(view: &DatabaseMeeting, tables: &[Played]) -> Vec<String> {
    let mut warnings = Vec::new();
    for table in view.tables.iter().filter(|table| table.accounts) {
        let name = format!("{}.{}", view.name, table.table);
        let twice: Vec<&str> = table.unique.iter().map(|row| row.here.label.as_str()).collect();
        if !twice.is_empty() {
            warnings.push(format!(
                "{name} holds accounts, and these exist on both servers: {}. They are not joined (whoever knows one \
                 password would get the other's account): the ones from here get another name. Two that are one person's are \
                 joined by: litemesh merge {name} ID ID",
                twice.join("; ")
            ));
        }
        if !table.account_moves.is_empty() {
            let moved = table.account_moves.iter().map(|row| format!("{} ({} -> {})", row.label, row.id, row.id_after));
            warnings.push(format!(
                "{name} holds accounts, and these get another id: {}. A browser that is logged in on this server holds the \
                 old id, which is then somebody else's: rotate the app's SECRET_KEY (or delete its sessions) before it is \
                 used again",
                moved.collect::<Vec<_>>().join("; ")
            ));
        }
    }
    if view.meeting == "independent" {
        let (count, example) = proofs(tables);
        if count > 0 {
            warnings.push(format!(
                "{}: {} here {} values that cannot be in two files by chance ({example}): these files do have a \
                 common ancestor. Joined as independent, every such row will stand there twice; leave --independent out, or \
                 name the ancestor with --base",
                view.name,
                counted(count, "row"),
                fits(count, "holds", "hold")
            ));
        }
    }
    warnings
}

/// Rows here that share a value with a row there that nobody types twice: (how many, for example where).
fn proofs(tables: &[Played]) -> (u64, String) {
    let (mut count, mut example) = (0, String::new());
    for played in tables {
        let mut there = BTreeSet::new();
        for row in &played.met.lacking {
            for (column, value) in played.table.columns.iter().zip(&row.image) {
                if is_unlikely_twice(&column.name, value) {
                    there.insert((column.name.as_str(), value));
                }
            }
        }
        for row in played.met.here.iter().filter(|row| row.row.is_none()) {
            let mut cells = played.table.columns.iter().zip(&row.image);
            if let Some((column, _)) = cells.find(|(column, value)| there.contains(&(column.name.as_str(), *value))) {
                count += 1;
                example = format!("{}.{}", played.table.name, column.name);
            }
        }
    }
    (count, example)
}

#[cfg(test)]
#[path = "rehearsal_tests.rs"]
mod tests;
