//! What changed between two times: rows added, changed, deleted, moved.
//!
//! One pass over the log ([`super::travel`]): the state at the earlier time is kept, the evaluation goes on to the later
//! one, and only rows that some event between the two concerned are compared, by what a file showed of them. Invariants:
//! a row is itself by its identity, whatever id it is shown under; the counts are of all rows, also where few are listed;
//! nothing is changed. Runs beside the node. Callers: http, daemon.

use std::collections::{BTreeMap, BTreeSet};

use super::NodeError;
use super::query::{key_text, rfc3339};
use super::rebuild::Replay;
use super::travel::World;
use super::travel_view::{CellChange, DiffRow, DiffTable, DiffView};
use crate::merge::image::Shown;
use crate::merge::store::Store;
use crate::model::{DatabaseSchema, OriginId, RowId, TableSchema};

/// Of what the difference is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiffFilter {
    /// Only this database.
    pub database: Option<String>,
    /// Only this table.
    pub table: Option<String>,
    /// Only rows that the node of this name wrote to.
    pub node: Option<String>,
    /// Rows listed, at most.
    pub limit: usize,
}

impl Replay {
    /// What changed between two times (ms since 1970, both included; `None` as the later one: now).
    pub fn diff(&self, from_ms: u64, to_ms: u64, filter: &DiffFilter) -> Result<DiffView, NodeError> {
        self.check_names(filter.database.as_deref(), filter.table.as_deref())?;
        let (from_ms, to_ms) = (from_ms.min(to_ms), from_ms.max(to_ms));
        let writers = filter.node.as_deref().map(|name| self.origins_of(name)).transpose()?;
        let mut world = World::before_all(self);
        world.advance(self, &self.cuts(Some(from_ms))?, &mut |_| {})?;
        world.store.forget_dirty();
        let mut before = world.clone();
        let mut touched: BTreeMap<RowId, BTreeSet<OriginId>> = BTreeMap::new();
        world.advance(self, &self.cuts(Some(to_ms))?, &mut |event| {
            let origin = event.header.origin.id();
            for row in event.changes.iter().filter_map(crate::model::Change::row) {
                touched.entry(row).or_default().insert(origin);
            }
        })?;
        let mut view = DiffView { from: rfc3339(from_ms), to: rfc3339(to_ms), ..DiffView::default() };
        for schema in &self.schemas {
            if filter.database.as_ref().is_none_or(|name| *name == schema.database) {
                let concerned = |row: &RowId| {
                    let by = touched.get(row);
                    writers.as_ref().is_none_or(|writers| by.is_some_and(|by| !by.is_disjoint(writers)))
                };
                let found = self.differing(schema, (&mut before, &mut world), filter.table.as_deref(), &concerned);
                let found = found.into_iter().map(|(at, shown, row, mut change)| {
                    let by: BTreeSet<String> =
                        touched.get(&row).into_iter().flatten().map(|origin| self.author(origin)).collect();
                    change.by = by.into_iter().collect();
                    (at, shown, row, change)
                });
                list(&mut view, found.collect(), filter.limit);
            }
        }
        Ok(view)
    }

    /// The rows of one database that two states show differently: (position of the table, what was or is shown, row, how).
    fn differing(
        &self,
        schema: &DatabaseSchema,
        (before, after): (&mut World, &mut World),
        table: Option<&str>,
        concerned: &dyn Fn(&RowId) -> bool,
    ) -> Vec<Found> {
        let Ok(dirty) = after.store.dirty(&schema.database);
        let mut old = self.evaluator(&mut before.store);
        let mut new = self.evaluator(&mut after.store);
        let mut found = Vec::new();
        for row in dirty.into_iter().filter(concerned) {
            let Ok(Some(number)) = new.row(&row).map(|record| record.map(|record| record.table)) else { continue };
            let Ok((_, name)) = new.store().table_name(number);
            let Some(at) = schema.tables.iter().position(|table| table.name.eq_ignore_ascii_case(&name)) else {
                continue;
            };
            if table.is_some_and(|wanted| !wanted.eq_ignore_ascii_case(&name)) {
                continue;
            }
            let (Ok(was), Ok(is)) = (old.target(&row), new.target(&row));
            let Some(mut change) = row_change(&schema.tables[at], was.as_ref(), is.as_ref()) else { continue };
            change.database = schema.database.clone();
            change.row = row.to_string();
            found.extend(is.or(was).map(|shown| (at, shown, row, change)));
        }
        found
    }

    /// All origins of the node of this name.
    pub(super) fn origins_of(&self, name: &str) -> Result<BTreeSet<OriginId>, NodeError> {
        let named = self.heads.keys().filter(|origin| {
            let author = self.author(origin);
            author == name && author != "genesis"
        });
        let origins: BTreeSet<OriginId> = named.copied().collect();
        if !origins.is_empty() {
            return Ok(origins);
        }
        let known: BTreeSet<String> = self.heads.keys().map(|origin| self.author(origin)).collect();
        let known: Vec<String> = known.into_iter().filter(|author| author != "genesis").collect();
        Err(NodeError::Invalid(format!("no server named {name} wrote anything: these did: {}", known.join(", "))))
    }
}

/// (Position of the table, what was or is shown, row, the difference.)
type Found = (usize, Shown, RowId, DiffRow);

/// Counts the rows and lists as many as are wanted.
fn list(view: &mut DiffView, mut found: Vec<Found>, limit: usize) {
    found.sort_by(|a, b| (a.0, &a.1.0, a.2).cmp(&(b.0, &b.1.0, b.2)));
    let mut tables: BTreeMap<usize, DiffTable> = BTreeMap::new();
    for (at, _, _, row) in found {
        let counts = tables.entry(at).or_insert_with(|| DiffTable {
            database: row.database.clone(),
            table: row.table.clone(),
            ..DiffTable::default()
        });
        match row.what.as_str() {
            "added" => counts.added += 1,
            "deleted" => counts.deleted += 1,
            "moved" => {
                counts.moved += 1;
                counts.changed += u64::from(!row.cells.is_empty());
            }
            _ => counts.changed += 1,
        }
        if view.rows.len() < limit { view.rows.push(row) } else { view.more += 1 }
    }
    view.tables.extend(tables.into_values());
}

/// The difference of two images of one row; `None` where there is none.
fn row_change(schema: &TableSchema, was: Option<&Shown>, is: Option<&Shown>) -> Option<DiffRow> {
    let mut change = DiffRow { table: schema.name.clone(), ..DiffRow::default() };
    let key = schema.key_columns();
    let cell =
        |column: usize, from: String, to: String| CellChange { column: schema.columns[column].name.clone(), from, to };
    let said = |image: &[crate::model::Value]| -> Vec<(usize, String)> {
        let says = |(column, value): &(usize, &crate::model::Value)| !key.contains(column) && !value.is_null();
        image.iter().enumerate().filter(says).map(|(column, value)| (column, value.to_string())).collect()
    };
    match (was, is) {
        (None, None) => return None,
        (None, Some((new_key, image))) => {
            change.what = "added".to_string();
            change.id = key_text(new_key);
            change.cells = said(image).into_iter().map(|(column, to)| cell(column, String::new(), to)).collect();
        }
        (Some((old_key, image)), None) => {
            change.what = "deleted".to_string();
            change.id = key_text(old_key);
            change.cells = said(image).into_iter().map(|(column, from)| cell(column, from, String::new())).collect();
        }
        (Some((old_key, old)), Some((new_key, new))) => {
            let differ = (0..new.len()).filter(|column| !key.contains(column) && old[*column] != new[*column]);
            change.cells =
                differ.map(|column| cell(column, old[column].to_string(), new[column].to_string())).collect();
            change.id = key_text(new_key);
            if old_key != new_key {
                change.was = key_text(old_key);
                change.what = "moved".to_string();
            } else if change.cells.is_empty() {
                return None;
            } else {
                change.what = "changed".to_string();
            }
        }
    }
    Some(change)
}
