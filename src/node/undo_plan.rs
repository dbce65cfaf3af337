//! From two states of some rows to the steps that lead from the one to the other: what undo and restore have in common.
//!
//! What the steps mean stands at the head of [`super::undo`]. Every step says what it expects of the row, so that the node
//! can see later whether it still holds. Invariants: a function of the two states; what is left alone is among the steps
//! with its reason; deletes come last, so that no step names a row that an earlier one took away. Caller: [`super::undo`].

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use super::genesis::parents_first;
use super::query::stamp_text;
use super::rebuild::Replay;
use super::travel_view::{KeptView, TakeBackView};
use super::undo_select::{Steps, Trails, Undone, Worlds, step_back};
use crate::merge::Evaluator;
use crate::merge::memory::MemoryStore;
use crate::merge::registers::{counted, present};
use crate::merge::store::{CellState, LinkKind, Row, Store};
use crate::model::{Cell, Cut, Dot, Identity, RowId, Rule, Stamp, TableSchema, Value};

type World<'e> = Evaluator<'e, MemoryStore>;

/// What a plan goes by.
pub(super) struct Policy<'p> {
    /// Also what somebody wrote since.
    pub(super) force: bool,
    /// Also merges that a node found by itself.
    pub(super) merges: bool,
    /// The changes to undo; `None` for a restore.
    pub(super) undone: Option<&'p Undone>,
}

/// One database's steps.
pub(super) struct DatabasePlan {
    pub(super) position: usize,
    pub(super) name: String,
    pub(super) force: bool,
    pub(super) steps: Vec<Step>,
    /// Rows that are deleted.
    pub(super) doomed: BTreeSet<RowId>,
    /// Rows that come back.
    pub(super) revived: BTreeSet<RowId>,
    /// Cells that refer to somebody else afterwards: (row, column's position).
    pub(super) freed: BTreeSet<(RowId, usize)>,
}

/// What becomes of one row.
pub(super) struct Step {
    /// Position of its table in the schema.
    pub(super) table: usize,
    /// The row (that stands for its class).
    pub(super) row: RowId,
    pub(super) what: What,
    pub(super) cells: Vec<CellStep>,
    pub(super) kept: Vec<KeptView>,
}

pub(super) enum What {
    SetBack,
    Revive,
    /// All that the row is made of, with the touches that are known of each.
    Delete(Vec<(RowId, Cut)>),
    /// It gets another id.
    Id(i64),
    Split(RowId),
    Merge(RowId),
    /// Nothing: why, is among `kept`.
    Keep,
}

/// One cell to write.
pub(super) struct CellStep {
    /// Position in the schema.
    pub(super) column: usize,
    pub(super) write: CellWrite,
}

pub(super) enum CellWrite {
    /// This value, if that write is still the one that shows.
    Value { cell: Cell, expect: Option<(Stamp, Dot)> },
    /// So much more.
    Step(i64),
    /// These elements more and those less.
    Edit { value: Value, added: BTreeSet<Vec<u8>>, removed: BTreeSet<Vec<u8>> },
}

/// Makes the steps of one database.
pub(super) struct Planner<'p> {
    replay: &'p Replay,
    plan: DatabasePlan,
    policy: Policy<'p>,
    trails: &'p Trails,
    counters: &'p Steps,
    already: u64,
}

/// One row in both states.
struct Both {
    table: usize,
    row: RowId,
    is: Arc<Row>,
    was: Option<Arc<Row>>,
}

impl<'p> Planner<'p> {
    pub(super) fn new(replay: &'p Replay, position: usize, policy: Policy<'p>, worlds: &'p Worlds) -> Planner<'p> {
        let name = replay.schemas[position].database.clone();
        let (doomed, revived, freed) = Default::default();
        let plan = DatabasePlan { position, name, force: policy.force, steps: Vec::new(), doomed, revived, freed };
        Planner { replay, plan, policy, trails: &worlds.trails, counters: &worlds.steps, already: 0 }
    }

    /// Compares these rows.
    pub(super) fn plan(&mut self, now: &mut World<'_>, wanted: &mut World<'_>, rows: &BTreeSet<RowId>) {
        let mut seen = BTreeSet::new();
        for row in rows {
            let Ok(canonical) = now.canonical(row);
            if !seen.insert(canonical) {
                continue;
            }
            let Ok(members) = now.members(row);
            let Ok(Some(record)) = now.row(&canonical) else { continue };
            let record = record.clone();
            let Some(table) = self.table_of(now, &record) else { continue };
            let parts = self.plan_links(now, wanted, (table, &members));
            if parts {
                for member in &members {
                    let Ok(Some(is)) = now.row(member) else { continue };
                    let is = Arc::new(is.clone());
                    self.plan_row(now, wanted, &[*member], (table, is));
                }
            } else if let Ok(Some(is)) = now.view(&canonical) {
                self.plan_row(now, wanted, &members, (table, is));
            }
        }
    }

    fn table_of(&self, now: &World<'_>, record: &Row) -> Option<usize> {
        let Ok((database, name)) = now.store().table_name(record.table);
        let schema = &self.replay.schemas[self.plan.position];
        let tables = || schema.tables.iter().position(|table| table.name.eq_ignore_ascii_case(&name));
        (database == schema.database).then(tables).flatten()
    }

    /// Merges and splits that are not wanted. True when the class is to fall apart.
    fn plan_links(&mut self, now: &mut World<'_>, wanted: &mut World<'_>, (table, members): (usize, &[RowId])) -> bool {
        let mut parts = false;
        for row in members {
            let Ok(Some(is)) = now.row(row) else { continue };
            let links = is.links().to_vec();
            let Ok(was) = wanted.row(row);
            let old: BTreeSet<Dot> = was.iter().flat_map(|was| was.links()).map(|link| link.dot).collect();
            for link in links.iter().filter(|link| !link.void && !old.contains(&link.dot) && *row < link.other) {
                let one = |world: &mut World<'_>| -> bool {
                    let (Ok(a), Ok(b)) = (world.canonical(row), world.canonical(&link.other));
                    a == b
                };
                let by_person = link.columns.is_empty() || self.policy.merges;
                let what = match (link.kind, one(now), one(wanted)) {
                    (LinkKind::Merge, true, false) if by_person => What::Split(link.other),
                    (LinkKind::Split, false, true) => What::Merge(link.other),
                    _ => continue,
                };
                parts |= matches!(what, What::Split(_));
                self.plan.steps.push(Step { table, row: *row, what, cells: Vec::new(), kept: Vec::new() });
            }
        }
        parts
    }

    /// One row, or rows that are one.
    fn plan_row(
        &mut self,
        now: &mut World<'_>,
        wanted: &mut World<'_>,
        members: &[RowId],
        (table, is): (usize, Arc<Row>),
    ) {
        let row = members[0];
        let born =
            |world: &mut World<'_>, row: &RowId| matches!(world.row(row), Ok(Some(one)) if !one.births.is_empty());
        let lives = |world: &mut World<'_>, row: &RowId| born(world, row) && matches!(world.held_up(row), Ok(true));
        let stood = members.iter().find(|member| born(wanted, member)).copied();
        let was = stood.and_then(|stood| wanted.view(&stood).unwrap_or_else(|never: Infallible| match never {}));
        let alive = members.iter().any(|member| lives(now, member));
        let lived = members.iter().any(|member| lives(wanted, member));
        // A restore knows all rows, also those that stood only because others needed them.
        let needed = self.policy.undone.is_none() && was.as_ref().is_some_and(|was| was.alive);
        let both = Both { table, row, is, was };
        match (alive, lived) {
            (true, false) if !needed => self.plan_delete(now, wanted, (members, stood.is_some()), both),
            (true, _) => {
                let (cells, kept) = self.plan_cells(now, members, &both);
                let what = if cells.is_empty() { What::Keep } else { What::SetBack };
                if !cells.is_empty() || !kept.is_empty() {
                    self.plan.steps.push(Step { table, row, what, cells, kept });
                }
                self.plan_id(&both);
            }
            (false, true) => {
                self.plan.revived.insert(row);
                let (cells, kept) = self.plan_cells(now, members, &both);
                self.plan.steps.push(Step { table, row, what: What::Revive, cells, kept });
            }
            // Who needs it brings it back; with other values it must be written.
            (false, false) if needed => {
                self.plan.revived.insert(row);
                let (cells, kept) = self.plan_cells(now, members, &both);
                if !cells.is_empty() {
                    self.plan.steps.push(Step { table, row, what: What::Revive, cells, kept });
                }
            }
            (false, false) => self.already += 1,
        }
    }

    fn plan_delete(
        &mut self,
        now: &mut World<'_>,
        wanted: &mut World<'_>,
        (members, stood): (&[RowId], bool),
        both: Both,
    ) {
        let (table, row) = (both.table, both.row);
        let stranger = |world: &mut World<'_>, row: &RowId| match world.row(row) {
            Ok(Some(record)) if record.uncovered() => record.touched.iter().map(|dot| (*dot.actor, dot.counter)).last(),
            _ => None,
        };
        let since = if stood { None } else { members.iter().find_map(|member| stranger(wanted, member)) };
        if let Some((origin, seq)) = since.filter(|_| !self.policy.force) {
            let stamp = self.stamp_of(&Dot { origin, seq, index: 0 });
            let kept = vec![self.changed_since(String::new(), &Dot { origin, seq, index: 0 }, stamp)];
            self.plan.steps.push(Step { table, row, what: What::Keep, cells: Vec::new(), kept });
            return;
        }
        let mut touched = Vec::new();
        for member in members {
            if let Ok(Some(record)) = now.row(member)
                && !record.births.is_empty()
            {
                touched.push((*member, record.touched.clone()));
            }
        }
        // Should somebody need it, it stays with the values that it had.
        let cells = if stood { self.plan_cells(now, members, &both).0 } else { Vec::new() };
        self.plan.doomed.extend(members.iter().copied());
        self.plan.steps.push(Step { table, row, what: What::Delete(touched), cells, kept: Vec::new() });
    }

    fn plan_id(&mut self, both: &Both) {
        let claims = (both.is.claim, both.was.as_ref().and_then(|was| was.claim));
        if let (Some(is), Some(was)) = claims
            && is.id != was.id
        {
            let (table, row, what) = (both.table, both.row, What::Id(was.id));
            self.plan.steps.push(Step { table, row, what, cells: Vec::new(), kept: Vec::new() });
        }
    }

    /// The cells that differ, and those that are left alone.
    fn plan_cells(&mut self, now: &mut World<'_>, members: &[RowId], both: &Both) -> (Vec<CellStep>, Vec<KeptView>) {
        let schema = &self.replay.schemas[self.plan.position].tables[both.table];
        let Ok(names) = now.store().columns(both.is.table);
        let (mut cells, mut kept) = (Vec::new(), Vec::new());
        for (number, name) in names.iter().enumerate() {
            let number = number as u16;
            let Some(column) = schema.column(name).filter(|column| !is_key(schema, *column)) else { continue };
            let held = both.is.cell(number);
            let old = both.was.as_ref().and_then(|was| was.cell(number));
            let write = match self.difference(now, (both, number), (schema, column), (held, old)) {
                Err(view) => {
                    kept.push(view);
                    continue;
                }
                Ok(Some(write)) => Some(write),
                Ok(None) => self.written_since(now, members, (both, number), (schema, column), &mut kept),
            };
            if let Some(write) = write {
                if matches!(held.map(|held| &held.cell), Some(Cell::Ref(_))) {
                    self.plan.freed.insert((both.row, column));
                }
                cells.push(CellStep { column, write });
            }
        }
        (cells, kept)
    }

    /// How a cell gets from what it shows to what it shall show; an error where no write can do that.
    fn difference(
        &self,
        now: &mut World<'_>,
        (both, number): (&Both, u16),
        (schema, column): (&TableSchema, usize),
        (held, old): (Option<&CellState>, Option<&CellState>),
    ) -> Result<Option<CellWrite>, KeptView> {
        let default = || Cell::Plain(schema.columns[column].default.clone());
        let wanted = old.map_or_else(default, |old| old.cell.without_difference());
        let shown = held.map_or_else(default, |held| held.cell.without_difference());
        let Ok(ruling) = now.ruling(both.is.table, number);
        let whole = |cell: &Cell| matches!(cell, Cell::Plain(Value::Integer(_)));
        let list = |cell: &Cell| matches!(cell, Cell::Plain(value) if crate::merge::lists::elements(value).is_some());
        match (ruling.rule, held, old) {
            (Rule::Counter, Some(held), _) if whole(&shown) && whole(&wanted) => {
                let made = self.counters.get(&(both.row, schema.columns[column].name.clone()));
                let by = match (self.policy.undone, made, old) {
                    (Some(_), Some(made), _) => step_back(made),
                    (_, _, Some(old)) => counted(&ruling, old) - counted(&ruling, held),
                    (_, _, None) => 0,
                };
                let by = by.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
                Ok((by != 0).then_some(CellWrite::Step(by)))
            }
            (Rule::Set, Some(held), Some(old)) if list(&shown) && list(&wanted) => {
                let (before, after) = (present(&ruling, held), present(&ruling, old));
                let added: BTreeSet<Vec<u8>> = after.difference(&before).cloned().collect();
                let removed: BTreeSet<Vec<u8>> = before.difference(&after).cloned().collect();
                let value = if let Cell::Plain(value) = wanted { value } else { Value::Null };
                Ok((!added.is_empty() || !removed.is_empty()).then_some(CellWrite::Edit { value, added, removed }))
            }
            _ if shown == wanted => Ok(None),
            (Rule::Max | Rule::Min, ..) => Err(KeptView {
                column: schema.columns[column].name.clone(),
                why: format!("its rule is {}: no later write makes another value of it", ruling.rule.name()),
                ..KeptView::default()
            }),
            _ => {
                let expect = held.map(|held| (held.stamp, held.dot));
                Ok(Some(CellWrite::Value { cell: wanted, expect }))
            }
        }
    }

    /// A cell of which an undone write is not shown: somebody wrote it since.
    fn written_since(
        &mut self,
        now: &mut World<'_>,
        members: &[RowId],
        (both, number): (&Both, u16),
        (schema, column): (&TableSchema, usize),
        kept: &mut Vec<KeptView>,
    ) -> Option<CellWrite> {
        let undone = self.policy.undone?;
        let name = &schema.columns[column].name;
        let writes = |member: &&RowId| undone.cells_of(member).any(|written| written.eq_ignore_ascii_case(name));
        let member = members.iter().find(writes)?;
        let held = both.is.cell(number)?;
        let Ok(ruling) = now.ruling(both.is.table, number);
        let trail = self.trails.get(&(*member, name.clone())).map(|(_, cell)| cell.clone());
        let replaced = trail.unwrap_or_else(|| Cell::Plain(schema.columns[column].default.clone()));
        let adds_up = matches!(ruling.rule, Rule::Counter | Rule::Set | Rule::Max | Rule::Min);
        if adds_up || undone.wrote(&held.dot) || held.cell.without_difference() == replaced {
            self.already += 1;
            return None;
        }
        if self.policy.force {
            return Some(CellWrite::Value { cell: replaced, expect: Some((held.stamp, held.dot)) });
        }
        kept.push(self.changed_since(name.clone(), &held.dot, held.stamp));
        None
    }

    fn changed_since(&self, column: String, dot: &Dot, stamp: Stamp) -> KeptView {
        changed_since(column, self.replay.author(&dot.origin), dot, stamp)
    }

    /// The stamp of an event; the least where it cannot be read.
    fn stamp_of(&self, dot: &Dot) -> Stamp {
        let read = self.replay.log.read().ok();
        let stored = read.and_then(|read| read.event(&dot.origin, dot.seq).ok()).flatten();
        let peeked = stored.and_then(|stored| crate::wire::event::peek_header(&stored.bytes).ok());
        peeked.map_or(Stamp(0), |(stamp, _)| stamp)
    }

    /// The plan, ordered; what was found without a step goes into `view`.
    pub(super) fn finish(mut self, view: &mut TakeBackView) -> DatabasePlan {
        // Of a restore every row that changed and changed back is as wanted: that says nothing to anybody.
        view.already += if self.policy.undone.is_some() { self.already } else { 0 };
        let order = |step: &Step| match step.what {
            What::Split(_) => 0,
            What::Merge(_) => 1,
            What::Revive => 2,
            What::SetBack => 3,
            What::Id(_) => 4,
            What::Delete(_) => 5,
            What::Keep => 6,
        };
        // Children before their parents, the younger of one table first: whether a row is needed is known when it is met.
        let tables = parents_first(&self.replay.schemas[self.plan.position]);
        let place = |step: &Step| match step.what {
            What::Delete(_) => tables.iter().rev().position(|table| *table == step.table).unwrap_or_default(),
            _ => step.table,
        };
        self.plan.steps.sort_by(|a, b| {
            let rows = if matches!(a.what, What::Delete(_)) { b.row.cmp(&a.row) } else { a.row.cmp(&b.row) };
            (order(a), place(a)).cmp(&(order(b), place(b))).then(rows)
        });
        self.plan
    }
}

/// Somebody wrote there since.
pub(super) fn changed_since(column: String, node: String, dot: &Dot, stamp: Stamp) -> KeptView {
    let time = stamp_text(stamp);
    let why = format!("changed again by {node} at {time}");
    KeptView { column, why, node, time, event: format!("{}:{}", dot.origin, dot.seq) }
}

/// Whether a column says which row it is: it is no value of its own.
fn is_key(schema: &TableSchema, column: usize) -> bool {
    match &schema.identity {
        Identity::Surrogate(id) => *id == column,
        Identity::Keyed(columns) => columns.contains(&column),
        Identity::Rowid => false,
    }
}
