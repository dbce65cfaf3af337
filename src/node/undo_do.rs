//! One page of an undo or a restore on the node: what still holds of its steps, as a preview or as events.
//!
//! The same check makes the preview and the events. It runs after the app's own writes were captured and looks at what the
//! log holds by then: a cell that somebody wrote since the plan was made, a row that somebody refers to now, is left alone
//! and said. States of an order: page after page → done; between two pages the node works on, and a page waits until the
//! file shows the one before, so that no write lock grows with the order. Invariants: a page is one set of events, durable
//! and evaluated when the call returns; a step that is left alone changes nothing; what other steps of the order rest on
//! it is left alone as well ([`Page`] carries what was). Callers: http, tests.

use std::collections::{BTreeMap, BTreeSet};

use super::capture::{Part, WEIGHT_MAX, table_entry};
use super::query::key_text;
use super::travel_view::{CellChange, KeptView, TakeBackRow, TakeBackTable, TakeBackView};
use super::undo::Plan;
use super::undo_plan::{CellStep, CellWrite, DatabasePlan, Step, What, changed_since};
use super::{Node, NodeError, Now};
use crate::log::LogWrite;
use crate::merge::Evaluator;
use crate::merge::claims::{Claimant, occupant, remainder};
use crate::merge::registers::counted;
use crate::merge::store::{CellState, Row, Store};
use crate::model::{Cell, Change, Edit, Identity, RowId, Stamp, TableSchema, Value};

/// Steps of one page.
const STEPS_PER_PAGE: usize = 500;

/// How far an order has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    database: usize,
    step: usize,
    /// Rows that were to be deleted and are not.
    spared: BTreeSet<RowId>,
    /// References that were to be set back and are not: (row, column).
    unfreed: BTreeSet<(RowId, usize)>,
}

/// What one page came to.
#[derive(Debug, Default)]
pub struct PageDone {
    /// The rows it is about.
    pub rows: Vec<TakeBackRow>,
    /// The events that it wrote.
    pub events: Vec<String>,
    /// Where to go on; `None`: all is done.
    pub next: Option<Page>,
    /// Nothing was done: the file does not show the page before yet. Ask again.
    pub wait: bool,
}

/// The check of one step under way.
struct Check<'c, 'e, 'l> {
    node: &'c Node,
    evaluator: &'c mut Evaluator<'e, LogWrite<'l>>,
    plan: &'c Plan,
    of: &'c DatabasePlan,
    page: &'c mut Page,
    written: Stamp,
}

impl Node {
    /// Checks one page of a plan and, with `write`, does it.
    pub fn take_back(&mut self, plan: &Plan, mut page: Page, write: bool, now: Now) -> Result<PageDone, NodeError> {
        self.may_take_back()?;
        while plan.databases.get(page.database).is_some_and(|of| page.step >= of.steps.len()) {
            (page.database, page.step) = (page.database + 1, 0);
        }
        let Some(of) = plan.databases.get(page.database) else { return Ok(PageDone::default()) };
        let database = &self.databases[of.position];
        if write && database.behind && !database.waits_for_quiet() {
            return Ok(PageDone { next: Some(page), wait: true, ..PageDone::default() });
        }
        if write {
            self.hear_app_first(of.position, now)?;
        }
        let end = (page.step + STEPS_PER_PAGE).min(of.steps.len());
        let mut done = PageDone::default();
        let mut changes: Vec<(usize, Change)> = Vec::new();
        {
            let mut log = self.log.write()?;
            let mut evaluator = Evaluator::new(&mut log, &self.ranks, &self.schemas, now.wall_ms);
            let written = Stamp::from_wall_ms(now.wall_ms.saturating_add_signed(self.clock.offset_ms()));
            for step in &of.steps[page.step..end] {
                let (evaluator, page) = (&mut evaluator, &mut page);
                let mut check = Check { node: self, evaluator, plan, of, page, written };
                let (row, found) = check.step(step)?;
                changes.extend(found.into_iter().map(|change| (step.table, change)));
                done.rows.push(row);
            }
        }
        if write && !changes.is_empty() {
            let parts = self.parts_of(of.position, changes);
            let origin = self.chain.origin().id();
            let before = self.heads.get(&origin).map_or(0, |head| head.seq);
            self.write_ordered(of.position, parts, &plan.note, now)?;
            let after = self.heads.get(&origin).map_or(0, |head| head.seq);
            done.events = (before + 1..=after).map(|seq| format!("{origin}:{seq}")).collect();
        }
        page.step = end;
        done.next = Some(page);
        Ok(done)
    }

    /// Bodies of events, none too large.
    fn parts_of(&self, position: usize, changes: Vec<(usize, Change)>) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        let mut weight = WEIGHT_MAX + 1;
        for (table, mut change) in changes {
            let size = 32
                + match &change {
                    Change::Update { cells, .. } => cells.iter().map(|(_, cell, _)| cell.weight()).sum(),
                    _ => 0,
                };
            if weight + size > WEIGHT_MAX {
                parts.push(Part::default());
                weight = 0;
            }
            weight += size;
            let last = parts.len() - 1;
            let entry = table_entry(&mut parts[last].tables, &self.schemas[position].tables[table]);
            match &mut change {
                Change::Update { table, .. }
                | Change::Delete { table, .. }
                | Change::Claim { table, .. }
                | Change::Merge { table, .. }
                | Change::Split { table, .. }
                | Change::Insert { table, .. }
                | Change::Rule { table, .. } => *table = entry,
            }
            parts[last].changes.push(change);
        }
        parts
    }
}

impl Check<'_, '_, '_> {
    fn schema(&self, step: &Step) -> &'_ TableSchema {
        &self.node.schemas[self.of.position].tables[step.table]
    }

    /// What is left of a step, in words and as changes.
    fn step(&mut self, step: &Step) -> Result<(TakeBackRow, Vec<Change>), NodeError> {
        let row = self.evaluator.canonical(&step.row)?;
        let schema = self.schema(step);
        let mut view = TakeBackRow {
            database: self.of.name.clone(),
            table: schema.name.clone(),
            row: row.to_string(),
            kept: step.kept.clone(),
            ..TakeBackRow::default()
        };
        let Some(record) = self.evaluator.view(&row)? else {
            view.action = "keep".to_string();
            view.kept.push(whole("the row is not known any more"));
            return Ok((view, Vec::new()));
        };
        view.id = match (&record.shown, record.id) {
            (Some(key), _) => key_text(key),
            (None, Some(id)) => id.to_string(),
            (None, None) => String::new(),
        };
        let table = 0;
        let (action, changes) = match &step.what {
            What::Keep => ("keep", Vec::new()),
            What::SetBack | What::Revive => self.cells(step, (row, &record), &mut view)?,
            What::Delete(touched) => match self.stays(&row, touched)? {
                Some(why) => {
                    self.page.spared.extend(touched.iter().map(|(member, _)| *member).chain([row]));
                    view.kept.push(why);
                    if step.cells.is_empty() {
                        ("keep", Vec::new())
                    } else {
                        self.cells(step, (row, &record), &mut view)?
                    }
                }
                None => {
                    let delete = |(row, _): &(RowId, _)| Change::Delete { table, row: *row };
                    ("delete", touched.iter().map(delete).collect())
                }
            },
            What::Id(id) => match self.claim((step, row, &record), *id)? {
                Ok(change) => {
                    let from = record.claim.map(|claim| claim.id.to_string()).unwrap_or_default();
                    view.cells.push(CellChange { column: "(id)".to_string(), from, to: id.to_string() });
                    ("id", vec![change])
                }
                Err(why) => {
                    view.kept.push(why);
                    ("keep", Vec::new())
                }
            },
            What::Split(other) => ("split", vec![Change::Split { table, row: step.row, other: *other }]),
            What::Merge(other) => {
                ("merge", vec![Change::Merge { table, row: step.row, other: *other, columns: Vec::new() }])
            }
        };
        view.action = action.to_string();
        Ok((view, changes))
    }

    /// Cells that are set back, of a row that lives or comes back.
    fn cells(
        &mut self,
        step: &Step,
        (row, record): (RowId, &Row),
        view: &mut TakeBackRow,
    ) -> Result<(&'static str, Vec<Change>), NodeError> {
        let revive = matches!(step.what, What::Revive);
        if !revive && !record.alive {
            self.spare_cells(row, &step.cells);
            view.kept.push(whole("it was deleted since"));
            return Ok(("keep", Vec::new()));
        }
        if revive && let Some(why) = self.lacks_parent(step, record)? {
            self.spare_cells(row, &step.cells);
            view.kept.push(why);
            return Ok(("keep", Vec::new()));
        }
        let names = self.evaluator.store().columns(record.table)?;
        let mut cells: Vec<(u32, Cell, Stamp)> = Vec::new();
        for one in &step.cells {
            let name = self.schema(step).columns[one.column].name.clone();
            let number = names.iter().position(|known| known.eq_ignore_ascii_case(&name));
            let held = number.and_then(|number| record.cell(number as u16)).cloned();
            match self.cell(record, held.as_ref(), (one, &name))? {
                Ok(cell) => {
                    let default = Cell::Plain(self.schema(step).columns[one.column].default.clone());
                    let before = held.as_ref().map_or(default, |held| held.cell.clone());
                    let from = self.evaluator.cell_value(&before, 0)?.to_string();
                    let to = self.evaluator.cell_value(&cell, 0)?.to_string();
                    view.cells.push(CellChange { column: name, from, to });
                    let stamp = held.map_or(self.written, |held| self.written.max(held.latest().next()));
                    cells.push((one.column as u32, cell, stamp));
                }
                Err(why) => {
                    self.page.unfreed.insert((row, one.column));
                    view.kept.push(why);
                }
            }
        }
        self.keep_whole_references((step, row), &mut cells, view);
        if cells.is_empty() && !revive {
            return Ok(("keep", Vec::new()));
        }
        cells.sort_by_key(|(column, _, _)| *column);
        Ok((if revive { "revive" } else { "set back" }, vec![Change::Update { table: 0, row, cells }]))
    }

    /// The columns of one reference are set back together or not at all.
    fn keep_whole_references(
        &mut self,
        (step, row): (&Step, RowId),
        cells: &mut Vec<(u32, Cell, Stamp)>,
        view: &mut TakeBackRow,
    ) {
        let schema = &self.node.schemas[self.of.position].tables[step.table];
        for key in schema.foreign_keys.iter().filter(|key| key.columns.len() > 1) {
            let refused = |column: &&usize| self.page.unfreed.contains(&(row, **column));
            let Some(refused) = key.columns.iter().find(refused).copied() else { continue };
            let (cut, kept) = std::mem::take(cells)
                .into_iter()
                .partition::<Vec<_>, _>(|(column, _, _)| key.columns.contains(&(*column as usize)));
            *cells = kept;
            for (column, _, _) in cut {
                let name = &schema.columns[column as usize].name;
                self.page.unfreed.insert((row, column as usize));
                view.cells.retain(|cell| cell.column != *name);
                view.kept.push(about(name, &format!("it belongs to {}, which is kept", schema.columns[refused].name)));
            }
        }
    }

    fn spare_cells(&mut self, row: RowId, cells: &[CellStep]) {
        self.page.unfreed.extend(cells.iter().map(|cell| (row, cell.column)));
    }

    /// The value of one cell as it travels, or why it is left alone.
    fn cell(
        &mut self,
        record: &Row,
        held: Option<&CellState>,
        (step, name): (&CellStep, &str),
    ) -> Result<Result<Cell, KeptView>, NodeError> {
        let (cell, expect) = match &step.write {
            CellWrite::Value { cell, expect } => (cell, expect),
            CellWrite::Step(by) => {
                let Some(held) = held else { return Ok(Err(about(name, "nobody counted there"))) };
                let ruling = self.evaluator.ruling(record.table, held.column)?;
                let value = counted(&ruling, held) + i128::from(*by);
                let value = value.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
                return Ok(Ok(Cell::Step { value, by: *by }));
            }
            CellWrite::Edit { value, added, removed } => {
                let (added, removed) = (added.iter().cloned().collect(), removed.iter().cloned().collect());
                return Ok(Ok(Cell::Edit(Box::new(Edit { value: value.clone(), added, removed }))));
            }
        };
        if let Some(held) = held.filter(|held| Some((held.stamp, held.dot)) != *expect) {
            let author = self.node.author(&held.dot.origin);
            return Ok(Err(changed_since(name.to_string(), author, &held.dot, held.stamp)));
        }
        match (cell, held) {
            (Cell::Ref(reference), _) if !self.of.force && !self.stands(&reference.row)? => {
                Ok(Err(about(name, "the row it referred to was deleted since")))
            }
            (Cell::Plain(value), Some(held)) => {
                Ok(Ok(self.evaluator.difference(record.table, held, None, value.clone())?))
            }
            _ => Ok(Ok(cell.clone())),
        }
    }

    /// Whether a row lives, or comes back by this order.
    fn stands(&mut self, row: &RowId) -> Result<bool, NodeError> {
        let canonical = self.evaluator.canonical(row)?;
        let revived = self.plan.databases.iter().any(|of| of.revived.contains(&canonical));
        Ok(revived || self.evaluator.row(&canonical)?.is_some_and(|record| record.alive))
    }

    /// Why a row that was deleted cannot come back alone.
    fn lacks_parent(&mut self, step: &Step, record: &Row) -> Result<Option<KeptView>, NodeError> {
        if self.of.force {
            return Ok(None);
        }
        let names = self.evaluator.store().columns(record.table)?;
        let parents: Vec<(u16, RowId)> = record.parents().map(|(column, parent)| (column, parent.row)).collect();
        for (number, parent) in parents {
            let name = &names[number as usize];
            let set = |cell: &CellStep| self.schema(step).columns[cell.column].name.eq_ignore_ascii_case(name);
            let needed = crate::merge::settle::needs_parent(self.schema(step), name);
            if needed && !step.cells.iter().any(set) && !self.stands(&parent)? {
                return Ok(Some(whole(&format!("the row that its {name} refers to was deleted since"))));
            }
        }
        Ok(None)
    }

    /// Why a row cannot be deleted: somebody touched it since the plan was made, or needs it.
    fn stays(&mut self, row: &RowId, touched: &[(RowId, crate::model::Cut)]) -> Result<Option<KeptView>, NodeError> {
        for (member, known) in touched {
            let Some(record) = self.evaluator.row(member)? else { continue };
            if record.touched != *known {
                return Ok(Some(whole("somebody changed it just now: look again")));
            }
        }
        for child in self.evaluator.class_referrers(row)? {
            let doomed = self.plan.databases.iter().any(|of| of.doomed.contains(&child));
            if doomed && !self.page.spared.contains(&child) || child == *row {
                continue;
            }
            let Some(record) = self.evaluator.view(&child)?.filter(|child| child.visible()) else { continue };
            if let Some(name) = self.refers(&child, &record, row)? {
                let (_, table) = self.evaluator.store().table_name(record.table)?;
                let id = record.shown.as_deref().map(key_text).unwrap_or_else(|| child.to_string());
                return Ok(Some(whole(&format!("row {id} of {table} refers to it ({name})"))));
            }
        }
        Ok(None)
    }

    /// The column by which a row goes on referring to another one.
    fn refers(&mut self, child: &RowId, record: &Row, parent: &RowId) -> Result<Option<String>, NodeError> {
        let (database, table) = self.evaluator.store().table_name(record.table)?;
        let names = self.evaluator.store().columns(record.table)?;
        let schemas = &self.node.schemas;
        let schema = schemas.iter().find(|schema| schema.database == database).and_then(|schema| schema.table(&table));
        let references: Vec<(u16, RowId)> = record.parents().map(|(column, to)| (column, to.row)).collect();
        for (number, to) in references {
            let name = &names[number as usize];
            let Some(column) = schema.and_then(|schema| schema.column(name)) else { continue };
            let freed = self.plan.databases.iter().any(|of| of.freed.contains(&(*child, column)))
                && !self.page.unfreed.contains(&(*child, column));
            if !freed && self.evaluator.canonical(&to)? == *parent {
                return Ok(Some(name.clone()));
            }
        }
        Ok(None)
    }

    /// The claim that gives a row its id back, where nobody has it.
    fn claim(
        &mut self,
        (step, row, record): (&Step, RowId, &Row),
        id: i64,
    ) -> Result<Result<Change, KeptView>, NodeError> {
        debug_assert!(!matches!(self.schema(step).identity, Identity::Keyed(_)));
        let key = [Value::Integer(id)];
        let shown = self.evaluator.store().shown(record.table, &key)?;
        if shown.is_some_and(|holder| holder != row) {
            return Ok(Err(about("(id)", &format!("{id} is another row's now"))));
        }
        let mut claimants: Vec<Claimant> = Vec::new();
        for (claimed, other) in self.evaluator.store().claims(record.table, remainder(id))? {
            if claimed == id && other != row {
                claimants.extend(self.evaluator.claimant(id, &other)?);
            }
        }
        let others: Vec<&Claimant> = claimants.iter().collect();
        let after = (!others.is_empty()).then(|| occupant(&others));
        let depth = record.claim.map_or(0, |claim| claim.depth) + 1;
        Ok(Ok(Change::Claim { table: 0, row, id, after, depth }))
    }
}

impl TakeBackView {
    /// Takes in what a page came to; lists rows up to `limit`.
    pub fn take(&mut self, done: PageDone, limit: usize) {
        let mut tables: BTreeMap<(String, String), TakeBackTable> = std::mem::take(&mut self.tables)
            .into_iter()
            .map(|table| ((table.database.clone(), table.table.clone()), table))
            .collect();
        self.events.extend(done.events);
        for row in done.rows {
            let table = tables.entry((row.database.clone(), row.table.clone())).or_insert_with(|| TakeBackTable {
                database: row.database.clone(),
                table: row.table.clone(),
                ..TakeBackTable::default()
            });
            match row.action.as_str() {
                "set back" => table.set_back += 1,
                "delete" => table.deleted += 1,
                "revive" => table.revived += 1,
                "keep" => {}
                _ => table.other += 1,
            }
            let kept = row.kept.len() as u64;
            table.kept += kept;
            self.kept += kept;
            self.rows += u64::from(row.action != "keep");
            if self.list.len() < limit { self.list.push(row) } else { self.more += 1 }
        }
        self.tables = tables.into_values().collect();
    }
}

fn whole(why: &str) -> KeptView {
    about("", why)
}

fn about(column: &str, why: &str) -> KeptView {
    KeptView { column: column.to_string(), why: why.to_string(), ..KeptView::default() }
}
