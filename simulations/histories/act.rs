//! What apps and people do on a node: changes made from what its file shows, as capture would make them.
//!
//! Stamps exceed what they replace, references name the canonical row of the class they lead to, an id that is used again
//! names who held it, deletes name all known members of a class and cascade as the app's file would. Invariant: an act
//! that the file's own constraints would refuse is not done. Caller: the history.

use std::collections::{BTreeMap, BTreeSet};

use crate::dice::Dice;
use crate::history::{Deed, World};
use crate::reference::{Seen, State};
use crate::scene::{At, origin};
use crate::shown::fold;
use litemesh::model::identity::first_16;
use litemesh::model::{
    Birth, Cell, Change, Cut, ForeignKey, Identity, Reference, RowId, Stamp, TableColumns, TableSchema, Value,
};

/// So many tables are tried before an act is given up.
const ATTEMPTS: u32 = 4;

/// A child whose parent goes, with what its columns get.
type LeftBehind = (At, RowId, Vec<(usize, Cell)>);

/// The body of an event to be.
#[derive(Clone, Default)]
pub struct Draft {
    /// Database.
    pub database: usize,
    /// Tables that the changes name.
    pub tables: Vec<TableColumns>,
    /// The changes.
    pub changes: Vec<Change>,
}

/// The event's entry for a table, with all its columns.
pub fn table_entry(tables: &mut Vec<TableColumns>, schema: &TableSchema) -> u32 {
    if let Some(position) = tables.iter().position(|entry| entry.table == schema.name) {
        return position as u32;
    }
    let columns = schema.columns.iter().map(|column| column.name.clone()).collect();
    tables.push(TableColumns { table: schema.name.clone(), columns });
    tables.len() as u32 - 1
}

/// One act of a node, sometimes two in one transaction; `None` when nothing can be done.
pub fn draft(world: &World<'_>, node: usize, deed: Deed, dice: &mut Dice) -> Option<Draft> {
    let first = (0..ATTEMPTS).find_map(|_| attempt(world, node, deed, dice, Draft::default()))?;
    if !matches!(deed, Deed::Insert | Deed::Update) || !dice.chance(20) {
        return Some(first);
    }
    Some(attempt(world, node, Deed::Insert, dice, first.clone()).unwrap_or(first))
}

/// One act, added to what the event holds already: in another table of the same database.
fn attempt(world: &World<'_>, node: usize, deed: Deed, dice: &mut Dice, draft: Draft) -> Option<Draft> {
    let at = *dice.pick(&world.options.tables)?;
    let before = draft.changes.len();
    let name = &world.scene.table(at).name;
    if before > 0 && (at.0 != draft.database || draft.tables.iter().any(|entry| entry.table == *name)) {
        return None;
    }
    let mut act = Act { world, node, state: &world.nodes[node].state, dice, draft };
    act.draft.database = at.0;
    let done = match deed {
        Deed::Insert => act.insert(at),
        Deed::Update => act.update(at),
        Deed::Delete => act.delete(at),
        Deed::Claim => act.claim(at),
        Deed::Merge => act.merge(at),
        Deed::Split => act.split(at),
        Deed::Pull | Deed::Repeat => None,
    };
    (done.is_some() && act.draft.changes.len() > before).then_some(act.draft)
}

struct Act<'a> {
    world: &'a World<'a>,
    node: usize,
    state: &'a State,
    dice: &'a mut Dice,
    draft: Draft,
}

impl<'a> Act<'a> {
    fn schema(&self, at: At) -> &'a TableSchema {
        self.world.scene.table(at)
    }

    /// The draft's entry for a table.
    fn entry(&mut self, at: At) -> u32 {
        let schema = self.schema(at);
        table_entry(&mut self.draft.tables, schema)
    }

    fn pick_shown(&mut self, at: At) -> Option<(RowId, &'a Seen)> {
        let rows: Vec<(RowId, &'a Seen)> = self.state.shown(at).map(|(row, seen, _)| (*row, seen)).collect();
        self.dice.pick(&rows).copied()
    }

    /// A value for a column, as it travels and as the file shows it; with it those of the other columns of its foreign key.
    fn value(&mut self, at: At, column: usize) -> Option<Vec<(usize, Cell, Value)>> {
        let schema = self.schema(at);
        if let Some(key) = schema.foreign_keys.iter().find(|key| key.columns.contains(&column)) {
            return self.reference(at, key);
        }
        let in_key = schema.unique.iter().any(|unique| unique.columns.iter().any(|entry| entry.0 == column))
            || schema.key_columns().contains(&column);
        let value = if in_key && self.dice.chance(92) {
            let number = self.dice.below(self.world.options.values);
            if self.world.options.numbers {
                Value::Integer(number as i64 + 1)
            } else {
                let letter = char::from(b'a' + number as u8);
                Value::text(&if self.dice.chance(20) { letter.to_uppercase().to_string() } else { letter.to_string() })
            }
        } else if self.dice.chance(15) && !schema.key_columns().contains(&column) {
            Value::Null
        } else {
            Value::text(&format!("v{}", self.world.entries.len()))
        };
        Some(vec![(column, Cell::Plain(value.clone()), value)])
    }

    fn reference(&mut self, at: At, key: &ForeignKey) -> Option<Vec<(usize, Cell, Value)>> {
        let not_null = self.schema(at).columns[key.columns[0]].not_null;
        let parent_at = self.world.scene.parent(at, key)?;
        let wants_none = !not_null && self.dice.chance(25);
        if self.world.options.dangling && key.columns.len() == 1 && self.dice.chance(15) {
            let value = Value::Integer(1 + self.dice.below(5) as i64);
            if self.state.under(parent_at, std::slice::from_ref(&value)).is_none() {
                return Some(vec![(key.columns[0], Cell::Plain(value.clone()), value)]);
            }
        }
        let parent = self.pick_shown(parent_at).filter(|_| !wants_none);
        if parent.is_none() && not_null {
            return None;
        }
        let mut values = Vec::new();
        for (column, name) in key.columns.iter().zip(&key.parent_columns) {
            let Some((row, seen)) = parent else {
                values.push((*column, Cell::Plain(Value::Null), Value::Null));
                continue;
            };
            let shown = &seen.shown.as_ref()?.1[self.schema(parent_at).column(name)?];
            let cell = Cell::Ref(Reference {
                database: self.world.scene.schemas[parent_at.0].database.clone(),
                table: self.schema(parent_at).name.clone(),
                row,
                column: name.clone(),
            });
            values.push((*column, cell, shown.clone()));
        }
        Some(values)
    }

    /// Whether the file would take this image beside the rows it shows.
    fn fits(&self, at: At, image: &[Value], except: Option<RowId>) -> bool {
        let schema = self.schema(at);
        let mut others = self.state.shown(at).filter(|(row, _, _)| Some(**row) != except);
        let clash = |other: &[Value]| {
            let same_key =
                matches!(&schema.identity, Identity::Keyed(key) if key.iter().all(|c| other[*c] == image[*c]));
            same_key
                || schema.unique.iter().any(|unique| {
                    unique.columns.iter().all(|(column, collation)| {
                        !image[*column].is_null()
                            && fold(image[*column].clone(), *collation) == fold(other[*column].clone(), *collation)
                    })
                })
        };
        !others.any(|(_, _, shown)| clash(&shown.1))
    }

    fn free_id(&mut self, at: At) -> Option<i64> {
        let shown: BTreeSet<i64> = self.state.shown(at).filter_map(|(_, seen, _)| seen.id).collect();
        let id = match self.dice.below(10) {
            0..=5 => shown.last().copied().unwrap_or_default() + 1,
            6 | 7 => 1 + self.dice.below(5) as i64,
            8 => {
                let known: Vec<i64> =
                    self.state.rows.values().filter(|seen| seen.at == at).filter_map(|seen| seen.id).collect();
                *self.dice.pick(&known)?
            }
            // Where a row that loses its claim would go.
            _ => 1 + self.dice.below(3) as i64 + 1_000_000 * (1 + self.dice.below(4) as i64),
        };
        (!shown.contains(&id)).then_some(id)
    }

    fn insert(&mut self, at: At) -> Option<()> {
        let schema = self.schema(at);
        let keyed = matches!(schema.identity, Identity::Keyed(_));
        let id = if keyed { None } else { Some(self.free_id(at)?) };
        let mut values: BTreeMap<usize, (Cell, Value)> = BTreeMap::new();
        for column in 0..schema.columns.len() {
            if schema.identity != Identity::Surrogate(column) && !values.contains_key(&column) {
                values.extend(self.value(at, column)?.into_iter().map(|(column, cell, value)| (column, (cell, value))));
            }
        }
        let (mut cells, mut image) = (Vec::new(), Vec::new());
        for column in 0..schema.columns.len() {
            let Some((cell, value)) = values.remove(&column) else {
                image.push(Value::Integer(id?));
                continue;
            };
            image.push(value);
            cells.push((column as u32, cell));
        }
        if !self.fits(at, &image, None) {
            return None;
        }
        self.born(at, id, cells)
    }

    /// A new row, or a keyed one that was known before.
    fn born(&mut self, at: At, id: Option<i64>, cells: Vec<(u32, Cell)>) -> Option<()> {
        let schema = self.schema(at);
        let table = self.entry(at);
        let index = self.draft.changes.len() as u32;
        let (origin, seq) = (self.world.scene.ids[self.node], self.world.nodes[self.node].seq + 1);
        let mut row = RowId::Born(Birth { origin, seq, index });
        if let Identity::Keyed(columns) = &schema.identity {
            let key: Vec<Cell> = columns.iter().map(|column| cells[*column].1.clone()).collect();
            row = RowId::keyed(&self.world.scene.schemas[at.0].database, &schema.name, &key);
            if let Some(known) = self.state.rows.get(&row) {
                let canonical = &self.state.rows[&known.class[0]];
                if canonical.shown.is_some() {
                    return None;
                }
                let cells = cells.into_iter().map(|(column, cell)| {
                    let stamp = self.stamp(canonical, column as usize);
                    (column, cell, stamp)
                });
                let cells = cells.collect();
                self.draft.changes.push(Change::Update { table, row, cells });
                return Some(());
            }
        }
        let after = id.and_then(|id| self.state.holders.get(&(at, id)).copied());
        self.draft.changes.push(Change::Insert { table, row, claim: id, after, cells });
        Some(())
    }

    /// A stamp that exceeds the one it replaces. (Sealing gives the event a stamp that exceeds this node's clock too.)
    fn stamp(&self, seen: &Seen, column: usize) -> Stamp {
        let node = &self.world.nodes[self.node];
        let wall = Stamp::from_wall_ms(self.world.now_ms.saturating_add_signed(node.skew_ms));
        let own = wall.max(Stamp(node.clock + 1));
        seen.cells.get(&column).map_or(own, |write| own.max(write.stamp.next()))
    }

    fn update(&mut self, at: At) -> Option<()> {
        let schema = self.schema(at);
        let (row, seen) = self.pick_shown(at)?;
        let mut image = seen.shown.as_ref()?.1.clone();
        let count = 1 + usize::from(self.dice.chance(30));
        let mut changed: BTreeMap<u32, Cell> = BTreeMap::new();
        for _ in 0..count {
            let column = self.dice.below(schema.columns.len() as u64) as usize;
            if schema.identity == Identity::Surrogate(column) {
                continue;
            }
            // Cells of one foreign key are written together.
            let values = self.value(at, column)?;
            if values.iter().any(|(column, _, value)| *value != image[*column]) {
                for (column, cell, value) in values {
                    image[column] = value;
                    changed.insert(column as u32, cell);
                }
            }
        }
        if changed.is_empty() || !self.fits(at, &image, Some(row)) {
            return None;
        }
        if schema.key_columns().iter().any(|column| changed.contains_key(&(*column as u32))) {
            return self.rename(at, seen, changed);
        }
        let cells = changed.into_iter().map(|(column, cell)| {
            let stamp = self.stamp(seen, column as usize);
            (column, cell, stamp)
        });
        let cells = cells.collect();
        let table = self.entry(at);
        self.draft.changes.push(Change::Update { table, row, cells });
        Some(())
    }

    /// Where the key is the identity, another key is another row.
    fn rename(&mut self, at: At, seen: &'a Seen, changed: BTreeMap<u32, Cell>) -> Option<()> {
        let key = &seen.shown.as_ref()?.0;
        for (child_at, foreign) in self.children_of(at) {
            if self.state.shown(child_at).any(|shown| leads_to(foreign, &shown.2.1, key)) {
                return None;
            }
        }
        self.remove(at, seen);
        let mut cells: Vec<(u32, Cell)> = Vec::new();
        for column in 0..self.schema(at).columns.len() as u32 {
            let old = || seen.cells.get(&(column as usize)).map(|write| write.cell.clone());
            cells.push((column, changed.get(&column).cloned().or_else(old)?));
        }
        self.born(at, None, cells)
    }

    /// Deletes all known members of a class.
    fn remove(&mut self, at: At, seen: &Seen) {
        let table = self.entry(at);
        self.draft.changes.extend(seen.class.iter().map(|row| Change::Delete { table, row: *row }));
    }

    fn delete(&mut self, at: At) -> Option<()> {
        let (row, _) = self.pick_shown(at)?;
        let (mut gone, mut open) = (BTreeSet::new(), vec![(at, row)]);
        let mut left: Vec<LeftBehind> = Vec::new();
        // With foreign keys off the app leaves children behind, with the bare value.
        let orphans = self.world.options.dangling && self.dice.chance(40);
        while let Some((at, row)) = open.pop() {
            if !gone.insert((at, row)) {
                continue;
            }
            let key = &self.state.rows[&row].shown.as_ref()?.0;
            for (child_at, foreign) in self.children_of(at) {
                for (child, ..) in self.state.shown(child_at).filter(|shown| leads_to(foreign, &shown.2.1, key)) {
                    let with = |value: &dyn Fn(usize) -> Value| {
                        let places = foreign.columns.iter().enumerate();
                        places.map(|(place, column)| (*column, Cell::Plain(value(place)))).collect::<Vec<_>>()
                    };
                    if orphans {
                        left.push((child_at, *child, with(&|place| key[place].clone())));
                    } else if foreign.keeps_parent {
                        open.push((child_at, *child));
                    } else {
                        left.push((child_at, *child, with(&|_| Value::Null)));
                    }
                }
            }
        }
        for (at, row) in &gone {
            self.remove(*at, &self.state.rows[row]);
        }
        for (at, row, cells) in left.into_iter().filter(|left| !gone.contains(&(left.0, left.1))) {
            let table = self.entry(at);
            let seen = &self.state.rows[&row];
            let cells = cells.into_iter().map(|(column, cell)| (column as u32, cell, self.stamp(seen, column)));
            let cells = cells.collect();
            self.draft.changes.push(Change::Update { table, row, cells });
        }
        Some(())
    }

    /// Declared foreign keys, of the same file, that lead to a table.
    fn children_of(&self, at: At) -> Vec<(At, &'a ForeignKey)> {
        let schema = &self.world.scene.schemas[at.0];
        let mut found = Vec::new();
        for (position, table) in schema.tables.iter().enumerate() {
            let keys = table.foreign_keys.iter().filter(|key| key.declared && key.database.is_none());
            let keys = keys.filter(|key| key.parent == schema.tables[at.1].name);
            found.extend(keys.map(|key| ((at.0, position), key)));
        }
        found
    }

    fn claim(&mut self, at: At) -> Option<()> {
        let (row, seen) = self.pick_shown(at)?;
        let id = self.free_id(at).filter(|_| seen.id.is_some())?;
        let after = self.state.holders.get(&(at, id)).copied().filter(|holder| *holder != row);
        let table = self.entry(at);
        self.draft.changes.push(Change::Claim { table, row, id, after, depth: seen.depth + 1 });
        Some(())
    }

    fn merge(&mut self, at: At) -> Option<()> {
        let (row, other) = (self.pick_shown(at)?.0, self.pick_shown(at)?.0);
        let table = self.entry(at);
        let change = Change::Merge { table, row, other, columns: Vec::new() };
        (row != other).then(|| self.draft.changes.push(change))
    }

    fn split(&mut self, at: At) -> Option<()> {
        let classes = self.state.rows.iter().filter(|(row, seen)| seen.class[0] == **row && seen.class.len() > 1);
        let classes: Vec<&Seen> = classes.map(|(_, seen)| seen).collect();
        let (at, row, other) = match self.dice.pick(&classes) {
            Some(seen) => (seen.at, *self.dice.pick(&seen.class)?, *self.dice.pick(&seen.class)?),
            None => (at, self.pick_shown(at)?.0, self.pick_shown(at)?.0),
        };
        self.draft.database = at.0;
        let table = self.entry(at);
        (row != other).then(|| self.draft.changes.push(Change::Split { table, row, other }))
    }
}

/// Whether a child's image names this key of its parent.
fn leads_to(key: &ForeignKey, image: &[Value], parent: &[Value]) -> bool {
    key.columns.len() == parent.len() && key.columns.iter().zip(parent).all(|(column, value)| image[*column] == *value)
}

/// Rows that files hold at enrolment: one file, copies of it, and a file that differs. Returns (node, event).
pub fn genesis(world: &mut World<'_>, dice: &mut Dice) -> Vec<(usize, usize)> {
    let mut events = Vec::new();
    for (file, differs) in [false, true].into_iter().enumerate() {
        for database in 0..world.scene.schemas.len() {
            let (tables, changes) = found_rows(world, database, differs);
            let author = origin(100 + file as u8 * 2 + database as u8, 0);
            let (cut, needs) = (Cut::default(), BTreeSet::new());
            let entry = world.seal(author, 1, Stamp(0), database, cut, needs, tables, changes, None);
            events.push((file, entry));
        }
    }
    let mut held = Vec::new();
    for node in 0..world.nodes.len() {
        let file = dice.below(3) as usize;
        if file < 2 {
            held.extend(events.iter().filter(|event| event.0 == file).map(|event| (node, event.1)));
        }
    }
    if held.iter().any(|(_, entry)| *entry >= 2) && held.iter().any(|(_, entry)| *entry < 2) {
        world.mark("genesis: files that differ");
    }
    // Events that nobody holds never happened: only the trailing ones can be dropped, the others go to node 0.
    for entry in 0..world.entries.len() {
        if held.iter().all(|(_, other)| *other != entry) {
            held.push((0, entry));
        }
    }
    held
}

fn found_rows(world: &World<'_>, database: usize, differs: bool) -> (Vec<TableColumns>, Vec<Change>) {
    let schema = &world.scene.schemas[database];
    let (mut tables, mut changes) = (Vec::new(), Vec::new());
    for table in &schema.tables {
        let entry = table_entry(&mut tables, table);
        if !table.foreign_keys.is_empty() && table.identity != Identity::Rowid {
            continue;
        }
        for number in 1..=2i64 {
            let id = number + i64::from(differs && table.identity == Identity::Rowid);
            let mut cells = Vec::new();
            for column in 0..table.columns.len() {
                if table.identity == Identity::Surrogate(column) {
                    continue;
                }
                let refers = table.foreign_keys.iter().any(|key| key.columns.contains(&column));
                let word = match (column, differs && number == 2) {
                    _ if refers => Value::Null,
                    (0 | 1, _) if world.options.numbers => Value::Integer(number),
                    (0 | 1, false) => Value::text(&char::from(b'a' + number as u8 - 1).to_string()),
                    (0 | 1, true) => Value::text("b"),
                    (_, differs) => Value::text(&format!("g{number}{differs}")),
                };
                cells.push((column as u32, Cell::Plain(word)));
            }
            let mut hasher = blake3::Hasher::new();
            let shown_id = if table.identity == Identity::Rowid { 0 } else { id };
            hasher.update(format!("{}.{} {shown_id} {cells:?}", schema.database, table.name).as_bytes());
            let (row, claim) = match &table.identity {
                Identity::Keyed(columns) => {
                    let key: Vec<Cell> = columns.iter().map(|column| cells[*column].1.clone()).collect();
                    (RowId::keyed(&schema.database, &table.name, &key), None)
                }
                Identity::Surrogate(_) | Identity::Rowid => (RowId::Genesis(first_16(&hasher)), Some(id)),
            };
            changes.push(Change::Insert { table: entry, row, claim, after: None, cells });
        }
    }
    (tables, changes)
}

/// An event's short name: who and which.
pub fn name_of(world: &World<'_>, entry: usize) -> String {
    let entry = &world.entries[entry];
    match entry.author {
        Some(author) => format!("n{author}:{}", entry.fact.event.header.seq),
        None => format!("genesis {}", entry.fact.event.header.origin.node.0[0]),
    }
}

/// A row's short name.
pub fn row_name(world: &World<'_>, row: &RowId) -> String {
    match row {
        RowId::Born(birth) => {
            let node = world.scene.ids.iter().position(|id| *id == birth.origin).unwrap_or(99);
            format!("n{node}:{}.{}", birth.seq, birth.index)
        }
        RowId::Genesis(_) | RowId::Keyed(_) => row.to_string()[..row.to_string().len().min(14)].to_string(),
    }
}

/// A value as it travels, for people.
pub fn cell_name(world: &World<'_>, cell: &Cell) -> String {
    match cell {
        Cell::Plain(value) => value.to_string(),
        Cell::Ref(reference) => format!("→{}", row_name(world, &reference.row)),
        Cell::Step { value, by } => format!("{value} ({by:+})"),
        Cell::Edit(edit) => edit.value.to_string(),
    }
}

/// An event, for people.
pub fn tell(world: &World<'_>, entry: usize) -> String {
    let event = &world.entries[entry].fact.event;
    let mut said = Vec::new();
    for change in &event.changes {
        let names = &event.tables[change.table() as usize];
        let row = change.row().map_or(String::new(), |row| row_name(world, &row));
        let name = |column: &u32| names.columns[*column as usize].as_str();
        said.push(match change {
            Change::Insert { claim, after, cells, .. } => {
                let cells: Vec<String> =
                    cells.iter().map(|(column, cell)| format!("{}={}", name(column), cell_name(world, cell))).collect();
                let id = claim.map_or(String::new(), |id| format!(" id {id}"));
                let after = after.map_or(String::new(), |row| format!(" after {}", row_name(world, &row)));
                format!("insert {} {row}{id}{after} ({})", names.table, cells.join(", "))
            }
            Change::Update { cells, .. } => {
                let cells: Vec<String> = cells
                    .iter()
                    .map(|(column, cell, stamp)| {
                        format!("{}={} @{}", name(column), cell_name(world, cell), stamp_name(stamp))
                    })
                    .collect();
                format!("update {} {row} ({})", names.table, cells.join(", "))
            }
            Change::Delete { .. } => format!("delete {} {row}", names.table),
            Change::Claim { id, after, depth, .. } => {
                let after = after.map_or(String::new(), |row| format!(" after {}", row_name(world, &row)));
                format!("{} {row} takes id {id}{after}, depth {depth}", names.table)
            }
            Change::Merge { other, columns, .. } => {
                let columns: Vec<&str> = columns.iter().map(name).collect();
                let by = if columns.is_empty() { "a person".to_string() } else { columns.join(", ") };
                format!("merge {} {row} and {} by {by}", names.table, row_name(world, other))
            }
            Change::Split { other, .. } => format!("split {} {row} from {}", names.table, row_name(world, other)),
            Change::Rule { .. } => "rule".to_string(),
        });
    }
    format!("{} @{}: {}", name_of(world, entry), stamp_name(&event.header.stamp), said.join("; "))
}

/// A stamp, for people: seconds since the histories begin.
pub fn stamp_name(stamp: &Stamp) -> String {
    let ms = stamp.wall_ms() as i64 - 1_700_000_000_000;
    let counter = stamp.0 & 0xffff;
    if counter == 0 { format!("{}s", ms / 1000) } else { format!("{}s+{counter}", ms / 1000) }
}

/// What a node shows, and where F says something else.
pub fn show(world: &mut World<'_>, node: usize, compare: bool) -> String {
    let mut out = String::from("\n");
    let (scene, now_ms) = (world.scene, world.now_ms);
    let mut store = world.nodes[node].store.clone();
    let mut evaluator = litemesh::merge::Evaluator::new(&mut store, &scene.ranks, &scene.schemas, now_ms);
    let facts: Vec<_> = world.nodes[node].has.iter().map(|entry| &world.entries[*entry].fact).collect();
    let state = crate::reference::evaluate(scene, &facts);
    for (row, seen) in &state.rows {
        let Ok(record) = evaluator.row(row).map(|record| record.cloned());
        let Ok(target) = evaluator.target(row);
        let words = |image: &Option<(Vec<Value>, Vec<Value>)>| match image {
            Some((_, image)) => image.iter().map(Value::to_string).collect::<Vec<_>>().join(", "),
            None => "-".to_string(),
        };
        let names = |rows: &[RowId]| rows.iter().map(|row| row_name(world, row)).collect::<Vec<_>>().join(" ");
        let own = record.as_ref().map(|record| record.members().to_vec()).unwrap_or_default();
        let mut line = format!("  {} {} shows {}", scene.table(seen.at).name, row_name(world, row), words(&target));
        if own.len() > 1 {
            line += &format!(" [one: {}]", names(&own));
        }
        if let Some(shelved) = record.as_ref().and_then(|record| record.shelved.clone()) {
            line += &format!(" [shelf: {shelved:?}]");
        }
        out += &line;
        out.push('\n');
        let id = record.as_ref().and_then(|record| record.id);
        let class = if own.is_empty() { vec![*row] } else { own };
        if compare && (target != seen.shown || id != seen.id || class != seen.class) {
            let shelf = seen.shelved.as_ref().map_or(String::new(), |reason| format!(" [shelf: {reason:?}]"));
            out += &format!("      F: id {:?}, {} [{}]{shelf}\n", seen.id, words(&seen.shown), names(&seen.class));
        }
    }
    out
}
