//! The file that both sides once started from, and what each side did to its rows since.
//!
//! The rules stand in [`super::meeting`]. Two details: rows are compared as the files hold them, ids included, because
//! both files descend from one and SQLite gives no id twice while its row lives; and since it does give the greatest id
//! again after a delete, a row that shares not one cell with the base's row of that id is another row. Invariant: reads
//! only; a base that lacks a table or column knows nothing of it. Caller: `adopt`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::found::{Found, FoundIndex};
use super::genesis::{Elsewhere, births, parents_first};
use super::meeting::{Fate, MetTable, Verdict};
use super::sameness::{Known, Sameness, There};
use super::{DatabaseSettings, NodeError};
use crate::log::LogRead;
use crate::merge::claims::remainder;
use crate::model::{Cell, DatabaseSchema, Identity, Key, Reference, RowId, TableSchema, Value};
use crate::sqlite::{AppFile, Image};

/// Rows read in one step.
const PAGE: usize = 2_000;

/// The rows of a base.
pub(super) struct Base {
    schema: DatabaseSchema,
    found: Vec<Found>,
    births: BTreeMap<(usize, Key), RowId>,
}

/// A base whose rows are known among the cluster's.
pub(super) struct Identified<'b> {
    schema: &'b DatabaseSchema,
    index: FoundIndex<'b>,
    /// By table: the cluster's row that a row of the base became.
    rows: Vec<BTreeMap<Key, RowId>>,
}

impl Base {
    /// Reads the rows of a base as a file of this schema would hold them.
    pub(super) fn read(path: &Path, settings: &DatabaseSettings, schema: &DatabaseSchema) -> Result<Base, NodeError> {
        let file = AppFile::open(DatabaseSettings { path: path.to_path_buf(), ..settings.clone() })?;
        let mut found = Vec::new();
        for (position, table) in schema.tables.iter().enumerate() {
            let Some(old) = file.schema().table(&table.name) else { continue };
            if table.identity == Identity::Rowid || old.identity == Identity::Rowid {
                continue;
            }
            let columns: Vec<Option<usize>> = table.columns.iter().map(|column| old.column(&column.name)).collect();
            let mut after: Option<Key> = None;
            loop {
                let page = file.scan_page(&old.name, after.as_ref(), PAGE)?;
                let Some((last, _)) = page.last() else { break };
                after = Some(last.clone());
                for (_, row) in page {
                    let image: Image = (columns.iter().zip(&table.columns))
                        .map(|(from, column)| from.map_or_else(|| column.default.clone(), |from| row[from].clone()))
                        .collect();
                    found.push(Found { table: position, key: table.key_of(&image, None), image });
                }
            }
        }
        found.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
        let births = births(schema, &found);
        Ok(Base { schema: schema.clone(), found, births })
    }

    /// Finds what the cluster made of every row of the base.
    pub(super) fn identify<'b>(
        &'b self,
        read: &LogRead,
        there: &There,
        elsewhere: &Elsewhere<'_>,
    ) -> Result<Identified<'b>, NodeError> {
        let index = FoundIndex::new(&self.schema, &self.found);
        let rows = vec![BTreeMap::new(); self.schema.tables.len()];
        let mut base = Identified { schema: &self.schema, index, rows };
        for table in parents_first(&self.schema) {
            let keys: Vec<(Key, Image)> =
                base.index.rows(table).map(|(key, image)| (key.clone(), image.clone())).collect();
            for (key, image) in keys {
                let row = match self.schema.tables[table].identity {
                    Identity::Surrogate(_) => self.enrolled(read, there, table, &key)?,
                    Identity::Keyed(_) => base.named(read, table, &image, elsewhere)?,
                    Identity::Rowid => None,
                };
                if let Some(row) = row {
                    base.rows[table].insert(key, row);
                }
            }
        }
        Ok(base)
    }

    /// The row that was enrolled with exactly this content, or else the one living row found at enrolment that claims the
    /// key.
    fn enrolled(&self, read: &LogRead, there: &There, table: usize, key: &Key) -> Result<Option<RowId>, NodeError> {
        let birth = self.births[&(table, key.clone())];
        if is_born(read, &birth)? {
            return Ok(Some(birth));
        }
        let id = read.find_table(&self.schema.database, &self.schema.tables[table].name)?;
        let (Some(id), Some(number)) = (id, key[0].as_integer()) else { return Ok(None) };
        let claims = read.claims(id, remainder(number))?;
        let mut living = claims.into_iter().filter(|(claimed, row)| {
            *claimed == number && matches!(row, RowId::Genesis(_)) && there.shown(*row).is_some()
        });
        Ok(match (living.next(), living.next()) {
            (Some((_, row)), None) => Some(row),
            _ => None,
        })
    }
}

impl Identified<'_> {
    /// The row of a keyed table, if the cluster knows it.
    fn named(
        &self,
        read: &LogRead,
        table: usize,
        image: &Image,
        elsewhere: &Elsewhere<'_>,
    ) -> Result<Option<RowId>, NodeError> {
        let schema = &self.schema.tables[table];
        let mut cells = Vec::new();
        for column in schema.key_columns() {
            let mut cell = Cell::Plain(image[column].clone());
            for key in schema.foreign_keys.iter().filter(|key| key.columns.contains(&column)) {
                let values: Vec<Value> = key.columns.iter().map(|column| image[*column].clone()).collect();
                let parent = match self.index.parent(key, image) {
                    Some((parent, parent_key)) => match self.rows[parent].get(parent_key) {
                        Some(row) => Some(*row),
                        None => return Ok(None),
                    },
                    None if key.database.is_some() => elsewhere(key, &values)?,
                    None => None,
                };
                if let Some(row) = parent {
                    let at = key.columns.iter().position(|other| *other == column).unwrap_or_default();
                    let database = key.database.clone().unwrap_or_else(|| self.schema.database.clone());
                    let (table, column) = (key.parent.clone(), key.parent_columns[at].clone());
                    cell = Cell::Ref(Reference { database, table, row, column });
                }
            }
            cells.push(cell);
        }
        let row = RowId::keyed(&self.schema.database, &schema.name, &cells);
        Ok(is_born(read, &row)?.then_some(row))
    }

    /// Whether the base holds this very row.
    pub(super) fn knows(&self, table: usize, key: &Key, image: &Image) -> bool {
        let schema = &self.schema.tables[table];
        self.index.row(table, key).is_some_and(|old| {
            let (equal, compared) = likeness(schema, old, image);
            equal > 0 || compared == 0
        })
    }

    /// Adds the pairs that the base proves.
    pub(super) fn settle(&self, sameness: &mut Sameness<'_>) {
        for (table, rows) in self.rows.iter().enumerate() {
            for (key, row) in rows {
                if sameness.index.row(table, key).is_some_and(|image| self.knows(table, key, image)) {
                    sameness.settle(table, key, *row);
                }
            }
        }
    }

    /// Three-way: what was done here, and what of it the cluster has decided otherwise.
    pub(super) fn compare(
        &self,
        table: usize,
        key: &Key,
        image: &Image,
        known: Option<&Known>,
        there: &There,
    ) -> Verdict {
        let schema = &self.schema.tables[table];
        let keys = schema.key_columns();
        let Some(old) = self.index.row(table, key) else { return Verdict::Older };
        let changed =
            (0..schema.columns.len()).filter(|column| !keys.contains(column) && old[*column] != image[*column]);
        let Some(known) = known else {
            let columns: Vec<usize> = changed.collect();
            return if columns.is_empty() { Verdict::Deleted } else { Verdict::Edited { columns, lost: Vec::new() } };
        };
        let (mut columns, mut lost) = (BTreeSet::new(), BTreeSet::new());
        for column in changed {
            if self.is_unchanged(table, column, old, known, there) {
                columns.insert(column);
            } else if known.image[column] != image[column] {
                lost.insert(column);
            }
        }
        // The columns of one reference are written together or not at all.
        for key in schema.foreign_keys.iter().filter(|key| key.columns.len() > 1) {
            if key.columns.iter().any(|column| lost.contains(column)) {
                key.columns.iter().filter(|column| columns.remove(*column)).for_each(|column| {
                    lost.insert(*column);
                });
            } else if key.columns.iter().any(|column| columns.contains(column)) {
                columns.extend(key.columns.iter().copied());
            }
        }
        if !columns.is_empty() || !lost.is_empty() {
            return Verdict::Edited { columns: columns.into_iter().collect(), lost: lost.into_iter().collect() };
        }
        if known.key == *key && known.image == *image { Verdict::Equal } else { Verdict::Older }
    }

    /// Whether the cluster still shows what the base held, references by the row they lead to.
    fn is_unchanged(&self, table: usize, column: usize, old: &Image, known: &Known, there: &There) -> bool {
        let Some(Cell::Ref(reference)) = &known.cells[column] else { return known.image[column] == old[column] };
        let mut keys = self.schema.tables[table].foreign_keys.iter().filter(|key| key.columns.contains(&column));
        let parent = keys.find_map(|key| self.index.parent(key, old));
        match parent.and_then(|(parent, key)| self.rows[parent].get(key)) {
            Some(row) => there.canonical(*row) == reference.row,
            None => known.image[column] == old[column],
        }
    }

    /// Rows of the base that are missing here: deleted, unless the cluster has changed them or needs them.
    pub(super) fn find_deleted(&self, sameness: &Sameness<'_>, met: &mut [MetTable]) {
        let there = sameness.there;
        let mut children: BTreeMap<RowId, Vec<RowId>> = BTreeMap::new();
        for known in there.tables.iter().flatten() {
            for cell in known.cells.iter().flatten() {
                if let Cell::Ref(reference) = cell {
                    children.entry(reference.row).or_default().push(known.row);
                }
            }
        }
        let mut deleted = BTreeSet::new();
        for (table, rows) in self.rows.iter().enumerate() {
            let gone = |key: &Key| sameness.index.row(table, key).is_none_or(|image| !self.knows(table, key, image));
            let gone: BTreeMap<RowId, &Image> = rows
                .iter()
                .filter(|(key, _)| gone(key))
                .filter_map(|(key, row)| Some((there.canonical(*row), self.index.row(table, key)?)))
                .collect();
            let keys = self.schema.tables[table].key_columns();
            for row in &mut met[table].lacking {
                let (Some(old), Some(known)) = (gone.get(&row.row), there.shown(row.row)) else { continue };
                let mut columns = (0..old.len()).filter(|column| !keys.contains(column));
                let unchanged = columns.all(|column| self.is_unchanged(table, column, old, known, there));
                row.fate = if unchanged { Fate::Deleted } else { Fate::ComesBack };
                if unchanged {
                    deleted.insert(row.row);
                }
            }
        }
        loop {
            let needed = |row: &RowId| children.get(row).into_iter().flatten().any(|child| !deleted.contains(child));
            let kept: Vec<RowId> = deleted.iter().copied().filter(needed).collect();
            if kept.is_empty() {
                break;
            }
            kept.iter().for_each(|row| {
                deleted.remove(row);
            });
        }
        for row in met.iter_mut().flat_map(|table| &mut table.lacking) {
            if row.fate == Fate::Deleted && !deleted.contains(&row.row) {
                row.fate = Fate::ComesBack;
            }
        }
    }
}

/// How many cells two rows share: (equal, compared). Keys, and cells that are NULL in both, say nothing.
fn likeness(schema: &TableSchema, one: &Image, other: &Image) -> (usize, usize) {
    let keys = schema.key_columns();
    let says = (0..schema.columns.len())
        .filter(|column| !(keys.contains(column) || one[*column].is_null() && other[*column].is_null()));
    let (mut equal, mut compared) = (0, 0);
    for column in says {
        compared += 1;
        equal += usize::from(one[column] == other[column]);
    }
    (equal, compared)
}

fn is_born(read: &LogRead, row: &RowId) -> Result<bool, NodeError> {
    Ok(read.row(row)?.is_some_and(|record| !record.births.is_empty()))
}
