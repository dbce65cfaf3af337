//! Capture: from marks and images to changes of an event (or of several that belong together).
//!
//! Steps: read the marks ([`super::marks`]), compare images with what the store shows, plan one change per row, give every
//! new row its birth, then translate values: references become the rows they point to, as of the snapshot. Invariants:
//! - The changes applied to the state the file showed before give exactly the snapshot.
//! - A deleted row's children that the app left behind keep their value and refer to nobody: a live reference would
//!   revive the parent that the app deleted on purpose. Children written elsewhere, unseen, still revive it (R7).
//! - Cells of one composite foreign key are written together.
//!
//! Caller: [`super::Node`]'s capture step; tests.

use std::collections::{BTreeMap, BTreeSet};

use super::marks::{Occupant, Reading, Trace, image_of, shown};
use crate::merge::Evaluator;
use crate::merge::claims::{Claimant, occupant, remainder};
use crate::merge::image::{Shown, image_hash};
use crate::merge::store::{AuditKind, Row, Store};
use crate::model::{
    Birth, Bug, Cell, Change, DatabaseSchema, ForeignKey, Identity, OriginId, Reference, RowId, Stamp, TableColumns,
    TableSchema, Value, planted,
};
use crate::sqlite::{Drain, Image, Mark};

/// At most this many changes in one event; a capture with more becomes several that continue each other.
pub const CHANGES_MAX: usize = 4_096;

/// An event is cut when its values weigh more than this, in bytes.
pub const WEIGHT_MAX: usize = 768 * 1024;

/// For this long after an id changed its meaning, writes to it are flagged, ms.
const SUSPECT_MS: u64 = 24 * 3_600_000;

/// What it means that a new row has an id which a row of the log claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// The app saw that the id was free, so it is used again.
    Reused,
    /// The row was found in a file that knew nothing of the other row: two rows, one id.
    Found,
}

/// Who captures and when.
#[derive(Clone, Copy, Debug)]
pub struct Author {
    /// The capturing origin.
    pub origin: OriginId,
    /// The sequence number of the first event that will be written.
    pub first_seq: u64,
    /// What the ids of new rows mean.
    pub ids: Ids,
    /// The corrected time minus the machine's, ms.
    pub offset_ms: i64,
    /// The machine's time now, ms since 1970: no mark counts as later.
    pub wall_ms: u64,
}

/// The body of one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Tables and columns that the changes name.
    pub tables: Vec<TableColumns>,
    /// The changes.
    pub changes: Vec<Change>,
}

/// What a drain turned out to be.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    /// Bodies of the events to write; empty when nothing changed.
    pub parts: Vec<Part>,
    /// What the file shows of every row that was touched.
    pub observed: Vec<(RowId, Option<Shown>)>,
    /// When the last mark was written, ms since 1970 by the machine's clock.
    pub last_wall_ms: u64,
    /// Writes that perhaps meant another row: for the audit.
    pub suspects: Vec<(RowId, AuditKind)>,
}

/// One change to be.
struct Planned {
    table: usize,
    row: Occupant,
    wall_ms: u64,
    what: What,
}

enum What {
    Delete,
    Insert,
    /// Columns to write.
    Update(Vec<usize>),
    Claim(i64),
}

pub(super) struct Capture<'c, 'a, S: Store> {
    pub(super) evaluator: &'c mut Evaluator<'a, S>,
    schemas: &'a [DatabaseSchema],
    pub(super) schema: &'a DatabaseSchema,
    pub(super) drain: &'c Drain,
    pub(super) reading: Reading,
    author: Author,
    pub(super) births: BTreeMap<usize, RowId>,
    /// Touched rows by what other columns than the key hold, for (table, columns) that references name.
    pub(super) named: BTreeMap<(usize, Vec<usize>), BTreeMap<Vec<Value>, Occupant>>,
    suspects: Vec<(RowId, AuditKind)>,
}

/// Turns a drain's marks (those not logged yet) into changes.
pub fn capture<'a, S: Store>(
    evaluator: &mut Evaluator<'a, S>,
    schemas: &'a [DatabaseSchema],
    database: usize,
    drain: &Drain,
    marks: &[&Mark],
    author: Author,
) -> Result<Captured, S::Error> {
    let schema = &schemas[database];
    let mut reading = Reading::read(evaluator, schema, marks)?;
    reading.confirm(schema, drain);
    let last_wall_ms = marks.iter().map(|mark| mark.wall_ms).max().unwrap_or_default();
    let (births, named) = (BTreeMap::new(), BTreeMap::new());
    let mut capture =
        Capture { evaluator, schemas, schema, drain, reading, author, births, named, suspects: Vec::new() };
    let mut planned = capture.plan_inserts();
    // The births of these rows depend on their places alone, and keys that refer to them need their births.
    capture.cut(&planned);
    capture.name_keyed_rows()?;
    planned.extend(capture.plan()?);
    let cuts = capture.cut(&planned);
    let parts = capture.translate(&planned, &cuts)?;
    let observed = capture.observe();
    Ok(Captured { parts, observed, last_wall_ms, suspects: capture.suspects })
}

impl<S: Store> Capture<'_, '_, S> {
    /// New rows of keyed tables have their identity from their key; one that was there before is the same row again.
    fn name_keyed_rows(&mut self) -> Result<(), S::Error> {
        for position in 0..self.reading.fresh.len() {
            self.keyed_identity(position, 0)?;
        }
        Ok(())
    }

    pub(super) fn keyed_identity(&mut self, fresh: usize, depth: u32) -> Result<Option<RowId>, S::Error> {
        if let Some(row) = self.births.get(&fresh) {
            return Ok(Some(*row));
        }
        let trace = self.reading.fresh[fresh].clone();
        let table = &self.schema.tables[trace.table];
        let (Identity::Keyed(columns), Some(key)) = (&table.identity, &trace.key) else { return Ok(None) };
        let Some(image) = image_of(self.drain, &table.name, key) else { return Ok(None) };
        let mut cells = Vec::with_capacity(columns.len());
        for column in columns {
            cells.push(self.cell(table, *column, image, depth + 1)?);
        }
        let row = RowId::keyed(&self.schema.database, &table.name, &cells);
        self.births.insert(fresh, row);
        Ok(Some(row))
    }

    /// New rows whose identity is their birth.
    fn plan_inserts(&self) -> Vec<Planned> {
        let born = |trace: &Trace| !matches!(self.schema.tables[trace.table].identity, Identity::Keyed(_));
        let fresh = self.reading.fresh.iter().enumerate().filter(|(_, trace)| trace.key.is_some() && born(trace));
        fresh
            .map(|(position, trace)| Planned {
                table: trace.table,
                row: Occupant::Fresh(position),
                wall_ms: trace.wall_ms,
                what: What::Insert,
            })
            .collect()
    }

    /// Everything but the inserts of [`Capture::plan_inserts`].
    fn plan(&mut self) -> Result<Vec<Planned>, S::Error> {
        let mut deletes = Vec::new();
        let mut writes = Vec::new();
        let reborn: BTreeSet<RowId> = self.births.values().copied().collect();
        for (row, trace) in self.reading.existing.clone() {
            let planned =
                |what| Planned { table: trace.table, row: Occupant::Existing(row), wall_ms: trace.wall_ms, what };
            let Some(key) = trace.key.clone() else {
                // Whoever deletes a row deletes all that it is made of, but what the file still shows apart.
                for member in self.evaluator.members(&row)? {
                    let apart = member != row && self.evaluator.row(&member)?.is_some_and(|row| row.shown.is_some());
                    if !apart && !reborn.contains(&member) {
                        deletes.push(Planned { row: Occupant::Existing(member), ..planned(What::Delete) });
                    }
                }
                continue;
            };
            let table = &self.schema.tables[trace.table];
            let Some(image) = image_of(self.drain, &table.name, &key) else { continue };
            // Where it stood may be another id than it has by now.
            let stays = |row: &Row| row.shown.as_ref() == Some(&key) || row.id == key[0].as_integer();
            if let Some(id) = key[0].as_integer()
                && !matches!(table.identity, Identity::Keyed(_))
                && !self.evaluator.row(&row)?.is_some_and(stays)
            {
                writes.push(planned(What::Claim(id)));
            }
            let columns = self.changed_columns(&row, table, image)?;
            if !columns.is_empty() {
                writes.push(planned(What::Update(columns)));
            }
        }
        for (position, trace) in self.reading.fresh.clone().into_iter().enumerate() {
            if trace.key.is_some()
                && let Some(identity) = self.births.get(&position).copied()
                && matches!(identity, RowId::Keyed(_))
            {
                let what = self.plan_keyed(identity, position, trace.table)?;
                let (table, row, wall_ms) = (trace.table, Occupant::Fresh(position), trace.wall_ms);
                writes.extend(what.map(|what| Planned { table, row, wall_ms, what }));
            }
        }
        writes.extend(self.plan_orphans(&deletes)?);
        deletes.extend(writes);
        Ok(deletes)
    }

    /// A keyed row that the store knows (dead or alive) is written over, another is inserted.
    fn plan_keyed(&mut self, identity: RowId, position: usize, table: usize) -> Result<Option<What>, S::Error> {
        if self.evaluator.row(&identity)?.is_none_or(|row| row.births.is_empty()) {
            return Ok(Some(What::Insert));
        }
        let Some(record) = self.evaluator.view(&identity)? else { return Ok(Some(What::Insert)) };
        let schema = &self.schema.tables[table];
        if !record.visible() {
            return Ok(Some(What::Update((0..schema.columns.len()).collect())));
        }
        let key = self.reading.fresh[position].key.clone().unwrap_or_default();
        let Some(image) = image_of(self.drain, &schema.name, &key) else { return Ok(None) };
        let columns = self.changed_columns(&identity, schema, image)?;
        Ok((!columns.is_empty()).then_some(What::Update(columns)))
    }

    /// Columns whose value differs from what the store shows, with their whole composite foreign keys.
    fn changed_columns(&mut self, row: &RowId, table: &TableSchema, image: &Image) -> Result<Vec<usize>, S::Error> {
        let Some(record) = self.evaluator.view(row)? else { return Ok(Vec::new()) };
        let before = self.image_before(row, &record, table)?;
        let hash = self.evaluator.row(row)?.map_or(record.image_hash, |row| row.image_hash);
        let mut changed: BTreeSet<usize> = (0..table.columns.len())
            .filter(|column| table.identity != Identity::Surrogate(*column) && before[*column] != image[*column])
            .collect();
        // A column that was added since the row was last shown holds its default: that says nothing, while the log may know
        // values for it from servers that had the column earlier.
        if changed.iter().any(|column| image[*column] == table.columns[*column].default) {
            let width = |width: &usize| image_hash(&table.name, &before[..*width]) == hash;
            let shown = (0..=before.len()).rev().find(width).unwrap_or(before.len());
            changed.retain(|column| *column < shown || image[*column] != table.columns[*column].default);
        }
        for key in table.foreign_keys.iter().filter(|key| key.columns.len() > 1) {
            if key.columns.iter().any(|column| changed.contains(column)) {
                changed.extend(key.columns.iter().copied());
            }
        }
        Ok(changed.into_iter().collect())
    }

    /// What the app saw of a row that lags; what is found in a file is put beside what the log shows instead.
    fn lag(&mut self, row: &RowId) -> Result<Option<Image>, S::Error> {
        if self.author.ids == Ids::Found { Ok(None) } else { self.evaluator.lag(row) }
    }

    /// What the file showed of a row before the app wrote. While the id of a row in another file has moved there and not yet
    /// in this one, that is the id the other row was born with, not the one it has: the hash of what was shown tells.
    fn image_before(&mut self, row: &RowId, record: &Row, table: &TableSchema) -> Result<Image, S::Error> {
        let image = self.evaluator.image(record, table)?;
        if let Some(mut lag) = self.lag(row)?.filter(|lag| lag.len() <= image.len()) {
            lag.extend_from_slice(&image[lag.len()..]);
            return Ok(lag);
        }
        if image_hash(&table.name, &image) == record.image_hash {
            return Ok(image);
        }
        let names = self.evaluator.store().columns(record.table)?;
        let mut earlier = image.clone();
        for (number, reference) in record.parents() {
            let (Some(column), Some(parent)) =
                (table.column(&names[number as usize]), self.evaluator.view(&reference.row)?)
            else {
                continue;
            };
            if let (Some(id), Some(claim)) = (parent.id, parent.claim)
                && earlier[column] == Value::Integer(id)
            {
                earlier[column] = Value::Integer(claim.id);
            }
        }
        let shown = image_hash(&table.name, &earlier) == record.image_hash;
        Ok(if shown { earlier } else { image })
    }

    /// Rows that were left behind by the deletes of this capture.
    fn plan_orphans(&mut self, deletes: &[Planned]) -> Result<Vec<Planned>, S::Error> {
        let gone: BTreeSet<Occupant> = deletes.iter().map(|planned| planned.row).collect();
        let mut orphans = Vec::new();
        for planned in deletes {
            let Occupant::Existing(parent) = planned.row else { continue };
            for child in self.evaluator.class_referrers(&parent)? {
                let touched = self.reading.existing.contains_key(&child);
                if gone.contains(&Occupant::Existing(child)) || touched && self.rewritten(&child, &parent)? {
                    continue;
                }
                if let Some((table, columns)) = self.orphaned_columns(&child, &parent)? {
                    let (row, wall_ms) = (Occupant::Existing(child), planned.wall_ms);
                    orphans.push(Planned { table, row, wall_ms, what: What::Update(columns) });
                }
            }
        }
        Ok(orphans)
    }

    /// Whether a touched child's reference to the deleted parent is written anew by this capture anyway.
    fn rewritten(&mut self, child: &RowId, parent: &RowId) -> Result<bool, S::Error> {
        let Some(trace) = self.reading.existing.get(child).cloned() else { return Ok(false) };
        let Some(key) = trace.key else { return Ok(true) };
        let table = &self.schema.tables[trace.table];
        let Some(image) = image_of(self.drain, &table.name, &key) else { return Ok(true) };
        let changed = self.changed_columns(child, table, image)?;
        let orphaned = self.orphaned_columns(child, parent)?;
        Ok(orphaned.is_none_or(|(_, columns)| columns.iter().all(|column| changed.contains(column))))
    }

    /// The declared references of a shown row to another one: (position of its table, columns).
    fn orphaned_columns(&mut self, child: &RowId, parent: &RowId) -> Result<Option<(usize, Vec<usize>)>, S::Error> {
        let Some(record) = self.evaluator.view(child)? else { return Ok(None) };
        if !record.visible() {
            return Ok(None);
        }
        let (database, name) = self.evaluator.store().table_name(record.table)?;
        let position = self.schema.tables.iter().position(|table| table.name.eq_ignore_ascii_case(&name));
        let Some(position) = position.filter(|_| database == self.schema.database) else { return Ok(None) };
        let table = &self.schema.tables[position];
        let names = self.evaluator.store().columns(record.table)?;
        let mut numbers = Vec::new();
        for (number, reference) in record.parents() {
            if self.evaluator.canonical(&reference.row)? == *parent {
                numbers.push(number);
            }
        }
        let columns: Vec<usize> = numbers
            .into_iter()
            .filter_map(|number| table.column(&names[number as usize]))
            .filter(|column| table.foreign_keys.iter().any(|key| key.declared && key.columns.contains(column)))
            .collect();
        Ok((!columns.is_empty()).then_some((position, columns)))
    }

    /// Where events are cut: the event and position of every planned change. New rows get their births from it.
    fn cut(&mut self, planned: &[Planned]) -> Vec<(usize, u32)> {
        let (mut part, mut index, mut weight) = (0, 0, 0);
        let mut cuts = Vec::with_capacity(planned.len());
        for change in planned {
            let size = self.weight(change);
            if index > 0 && (index as usize >= CHANGES_MAX || weight + size > WEIGHT_MAX) {
                (part, index, weight) = (part + 1, 0, 0);
            }
            if let (Occupant::Fresh(position), What::Insert) = (change.row, &change.what) {
                let birth = Birth { origin: self.author.origin, seq: self.author.first_seq + part as u64, index };
                self.births.entry(position).or_insert(RowId::Born(birth));
            }
            cuts.push((part, index));
            index += 1;
            weight += size;
        }
        cuts
    }

    fn weight(&self, change: &Planned) -> usize {
        let table = &self.schema.tables[change.table];
        let image = self.trace_key(change.row).and_then(|key| image_of(self.drain, &table.name, key));
        let weigh = |image: &Image| image.iter().map(Value::weight).sum::<usize>();
        32 + match change.what {
            What::Insert | What::Update(_) => image.map_or(0, weigh),
            What::Delete | What::Claim(_) => 0,
        }
    }

    fn trace_key(&self, row: Occupant) -> Option<&crate::model::Key> {
        match row {
            Occupant::Existing(row) => self.reading.existing.get(&row)?.key.as_ref(),
            Occupant::Fresh(position) => self.reading.fresh[position].key.as_ref(),
        }
    }

    fn translate(&mut self, planned: &[Planned], cuts: &[(usize, u32)]) -> Result<Vec<Part>, S::Error> {
        let mut parts: Vec<Part> = Vec::new();
        for (change, (part, index)) in planned.iter().zip(cuts) {
            if *part == parts.len() {
                parts.push(Part::default());
            }
            let table = &self.schema.tables[change.table];
            let entry = table_entry(&mut parts[*part].tables, table);
            let change = self.translate_change(change, entry, table)?;
            parts[*part].changes.push(change);
            debug_assert_eq!(parts[*part].changes.len(), *index as usize + 1);
        }
        Ok(parts)
    }

    fn translate_change(&mut self, planned: &Planned, entry: u32, schema: &TableSchema) -> Result<Change, S::Error> {
        let row = match planned.row {
            Occupant::Existing(row) => row,
            Occupant::Fresh(position) => *self.births.get(&position).expect("every new row was given its birth"),
        };
        let written = self.written(planned.wall_ms);
        let key = self.trace_key(planned.row).cloned();
        let image = key.as_ref().and_then(|key| image_of(self.drain, &schema.name, key));
        Ok(match &planned.what {
            What::Delete => {
                self.suspect(&row, schema, &[])?;
                Change::Delete { table: entry, row }
            }
            What::Claim(id) => {
                let after = self.holder(schema, *id, &row)?;
                let depth = self.evaluator.row(&row)?.and_then(|row| row.claim).map_or(0, |claim| claim.depth) + 1;
                Change::Claim { table: entry, row, id: *id, after, depth }
            }
            What::Insert => {
                let image = image.expect("only rows of the snapshot are inserted");
                let claim = match schema.identity {
                    Identity::Keyed(_) => None,
                    Identity::Surrogate(_) | Identity::Rowid => key.as_ref().and_then(|key| key[0].as_integer()),
                };
                let reused = claim.filter(|_| self.author.ids == Ids::Reused);
                let after = reused.map(|id| self.holder(schema, id, &row)).transpose()?.flatten();
                let mut cells = Vec::with_capacity(schema.columns.len());
                for column in (0..schema.columns.len()).filter(|column| schema.identity != Identity::Surrogate(*column))
                {
                    cells.push((column as u32, self.cell(schema, column, image, 0)?));
                }
                Change::Insert { table: entry, row, claim, after, cells }
            }
            What::Update(columns) => {
                // A row left behind is not in the snapshot: what the store shows of it stands in the file.
                let image = match (image, self.evaluator.view(&row)?) {
                    (Some(image), _) => image.clone(),
                    (None, Some(record)) => self.evaluator.image(&record, schema)?,
                    (None, None) => Vec::new(),
                };
                let mut cells = Vec::with_capacity(columns.len());
                for column in columns {
                    let cell = self.cell(schema, *column, &image, 0)?;
                    let (cell, stamp) = self.rewrite(&row, schema, *column, (cell, written))?;
                    cells.push((*column as u32, cell, stamp));
                }
                self.suspect(&row, schema, &cells)?;
                Change::Update { table: entry, row, cells }
            }
        })
    }

    /// Flags a write to an id that changed its meaning within the last day.
    fn suspect(&mut self, row: &RowId, schema: &TableSchema, cells: &[(u32, Cell, Stamp)]) -> Result<(), S::Error> {
        let Some(took) = self.evaluator.row(row)?.and_then(|record| record.took) else { return Ok(()) };
        let Some(view) = self.evaluator.view(row)? else { return Ok(()) };
        let recent = self.author.wall_ms.saturating_sub(took.at_ms) < SUSPECT_MS;
        if !recent || view.shown.as_deref() != Some(&[Value::Integer(took.id)][..]) {
            return Ok(());
        }
        let names = self.evaluator.store().columns(view.table)?;
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for (column, cell, _) in cells {
            let name = &schema.columns[*column as usize].name;
            let number = names.iter().position(|known| known.eq_ignore_ascii_case(name));
            let held = number.and_then(|number| view.cell(number as u16)).map(|state| state.cell.clone());
            before.push((name.clone(), held.unwrap_or(Cell::Plain(Value::Null))));
            after.push((name.clone(), cell.clone()));
        }
        self.suspects.push((*row, AuditKind::Suspect { id: took.id, meant: took.from, before, after }));
        Ok(())
    }

    /// An updated cell with what its column's rule wants to know of the value before, and with a stamp greater than those it
    /// replaces: a causally later write wins under any clock.
    fn rewrite(
        &mut self,
        row: &RowId,
        table: &TableSchema,
        column: usize,
        (cell, written): (Cell, Stamp),
    ) -> Result<(Cell, Stamp), S::Error> {
        let Some(record) = self.evaluator.view(row)? else { return Ok((cell, written)) };
        let names = self.evaluator.store().columns(record.table)?;
        let name = &table.columns[column].name;
        let number = names.iter().position(|known| known.eq_ignore_ascii_case(name));
        let Some(before) = number.and_then(|number| record.cell(number as u16)) else { return Ok((cell, written)) };
        let seen = self.lag(row)?.and_then(|lag| lag.get(column).cloned());
        let cell = match cell {
            cell if planted(Bug::CounterSendsTotal) => cell,
            Cell::Plain(value) => self.evaluator.difference(record.table, before, seen.as_ref(), value)?,
            other => other,
        };
        Ok((cell, if planted(Bug::StampNotGreater) { written } else { written.max(before.latest().next()) }))
    }

    fn written(&self, wall_ms: u64) -> Stamp {
        Stamp::from_wall_ms(wall_ms.min(self.author.wall_ms).saturating_add_signed(self.author.offset_ms))
    }

    /// The row that holds an id by claim, in this node's view.
    fn holder(&mut self, table: &TableSchema, id: i64, except: &RowId) -> Result<Option<RowId>, S::Error> {
        let Some(table) = self.evaluator.store().find_table(&self.schema.database, &table.name)? else {
            return Ok(None);
        };
        let claims = self.evaluator.store().claims(table, remainder(id))?;
        let mut claimants = Vec::new();
        for (_, row) in claims.into_iter().filter(|(claimed, row)| *claimed == id && row != except) {
            claimants.extend(self.evaluator.claimant(id, &row)?);
        }
        let refs: Vec<&Claimant> = claimants.iter().collect();
        Ok((!refs.is_empty()).then(|| occupant(&refs)))
    }

    /// A value as it travels: the row it refers to, where its column is a reference that leads somewhere.
    fn cell(&mut self, table: &TableSchema, column: usize, image: &Image, depth: u32) -> Result<Cell, S::Error> {
        for key in table.foreign_keys.iter().filter(|key| key.columns.contains(&column)) {
            let values: Vec<Value> = key.columns.iter().map(|column| image[*column].clone()).collect();
            if values.iter().any(Value::is_null) {
                continue;
            }
            if let Some(row) = self.referenced(key, &values, depth)? {
                let at = key.columns.iter().position(|other| *other == column).unwrap_or_default();
                return Ok(Cell::Ref(Reference {
                    database: key.database.clone().unwrap_or_else(|| self.schema.database.clone()),
                    table: key.parent.clone(),
                    row,
                    column: key.parent_columns[at].clone(),
                }));
            }
        }
        Ok(Cell::Plain(image[column].clone()))
    }

    /// The row that a reference's values point to: by the parent's key, as of the snapshot.
    fn referenced(&mut self, key: &ForeignKey, values: &[Value], depth: u32) -> Result<Option<RowId>, S::Error> {
        let other = key.database.as_deref().filter(|name| *name != self.schema.database);
        let schemas = self.schemas;
        let schema = match other {
            Some(name) => schemas.iter().find(|schema| schema.database == name),
            None => Some(self.schema),
        };
        let Some(schema) = schema else { return Ok(None) };
        let Some(position) = schema.tables.iter().position(|table| table.name.eq_ignore_ascii_case(&key.parent)) else {
            return Ok(None);
        };
        let parent = &schema.tables[position];
        let columns: Option<Vec<usize>> = key.parent_columns.iter().map(|name| parent.column(name)).collect();
        let Some(columns) = columns.filter(|columns| !columns.is_empty()) else { return Ok(None) };
        let at = |column: &usize| columns.iter().position(|referred| referred == column);
        let order: Option<Vec<usize>> = parent.key_columns().iter().map(at).collect();
        let Some(order) = order.filter(|order| !order.is_empty() && order.len() == columns.len()) else {
            return self.named_by(schema, other.is_none().then_some(position), parent, (&columns, values), depth);
        };
        let parent_key: Vec<Value> = order.into_iter().map(|at| values[at].clone()).collect();
        if other.is_none()
            && let Some(occupant) = self.reading.finally(position, &parent_key)
        {
            return occupant.map_or(Ok(None), |occupant| self.identity_of(occupant, depth));
        }
        shown(self.evaluator, schema, parent, &parent_key)
    }

    /// What the snapshot shows of every row that was touched.
    fn observe(&self) -> Vec<(RowId, Option<Shown>)> {
        let see = |trace: &Trace| {
            let name = &self.schema.tables[trace.table].name;
            let key = trace.key.as_ref()?;
            image_of(self.drain, name, key).map(|image| (key.clone(), image.clone()))
        };
        let mut seen: BTreeMap<RowId, Option<Shown>> = BTreeMap::new();
        for (row, trace) in &self.reading.existing {
            seen.insert(*row, see(trace));
        }
        for (position, trace) in self.reading.fresh.iter().enumerate() {
            if let (Some(row), Some(_)) = (self.births.get(&position), &trace.key) {
                let moved_away = matches!(self.schema.tables[trace.table].identity, Identity::Keyed(_));
                let shown = see(trace);
                if shown.is_some() || !moved_away || !seen.contains_key(row) {
                    seen.insert(*row, shown);
                }
            }
        }
        seen.into_iter().collect()
    }
}

/// The event's entry for a table, with all its columns in declared order.
pub(super) fn table_entry(tables: &mut Vec<TableColumns>, schema: &TableSchema) -> u32 {
    if let Some(position) = tables.iter().position(|entry| entry.table == schema.name) {
        return position as u32;
    }
    let columns = schema.columns.iter().map(|column| column.name.clone()).collect();
    tables.push(TableColumns { table: schema.name.clone(), columns });
    tables.len() as u32 - 1
}
