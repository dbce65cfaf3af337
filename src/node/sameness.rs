//! Which rows found in a file are the cluster's rows.
//!
//! Equal values at equal ids do not make two rows the same: a child here that refers to team 57 is the cluster's child only
//! if team 57 here is the cluster's team 57. So sameness is the greatest set of pairs that agree in their cells *and* whose
//! parents are pairs again: start with every pair whose values agree, take out those whose references lead to different
//! rows, until nothing changes. Rings and self-references need no special case. Keyed rows follow from the parents in their
//! key. Invariant: a function of the file and the log; pairs that are sure (enrolled with this content, or a person said
//! so) are never taken out. Caller: `adopt`.

use std::collections::{BTreeMap, BTreeSet};

use super::NodeError;
use super::found::FoundIndex;
use super::genesis::{Elsewhere, parents_first};
use crate::model::{Cell, DatabaseSchema, ForeignKey, Identity, Key, Reference, RowId, TableSchema, Value};
use crate::sqlite::Image;

/// A row that the cluster shows.
pub(super) struct Known {
    pub(super) row: RowId,
    pub(super) key: Key,
    /// The id it was born with.
    pub(super) claim: Option<i64>,
    pub(super) image: Image,
    /// Its cells by column of the schema; references name the row that stands for the class.
    pub(super) cells: Vec<Option<Cell>>,
}

/// All that the cluster shows of a database.
#[derive(Default)]
pub(super) struct There {
    /// By position of the table, in no order.
    pub(super) tables: Vec<Vec<Known>>,
    /// Where a key is shown: position in [`There::tables`].
    pub(super) by_key: Vec<BTreeMap<Key, usize>>,
    /// Where a row is shown: (table, position).
    pub(super) by_row: BTreeMap<RowId, (usize, usize)>,
    /// The row that stands for each row that is one with others.
    pub(super) canonical: BTreeMap<RowId, RowId>,
}

impl There {
    pub(super) fn add(&mut self, table: usize, known: Known) {
        self.by_key[table].insert(known.key.clone(), self.tables[table].len());
        self.by_row.insert(known.row, (table, self.tables[table].len()));
        self.tables[table].push(known);
    }

    /// The row that stands for the class of a row.
    pub(super) fn canonical(&self, row: RowId) -> RowId {
        self.canonical.get(&row).copied().unwrap_or(row)
    }

    /// What is shown of a row's class.
    pub(super) fn shown(&self, row: RowId) -> Option<&Known> {
        let (table, position) = *self.by_row.get(&self.canonical(row))?;
        Some(&self.tables[table][position])
    }
}

/// Where a reference of a row here leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leads {
    /// To a row of the cluster.
    Same(RowId),
    /// To a row of this file only.
    Fresh,
    /// To no row.
    Nowhere,
}

/// The pairs found so far.
pub(super) struct Sameness<'s> {
    pub(super) schema: &'s DatabaseSchema,
    pub(super) index: &'s FoundIndex<'s>,
    pub(super) there: &'s There,
    pub(super) elsewhere: &'s Elsewhere<'s>,
    /// Whether the log knows an insert of a row.
    pub(super) is_born: &'s dyn Fn(&RowId) -> Result<bool, NodeError>,
    /// Whether a row was born here.
    pub(super) is_mine: &'s dyn Fn(&RowId) -> bool,
    /// By table: the cluster's row that a row found here is.
    pub(super) same: Vec<BTreeMap<Key, RowId>>,
    /// Pairs that nothing takes out.
    pub(super) sure: BTreeSet<(usize, Key)>,
}

impl Sameness<'_> {
    /// Adds a pair that is sure.
    pub(super) fn settle(&mut self, table: usize, key: &Key, row: RowId) {
        self.same[table].insert(key.clone(), row);
        self.sure.insert((table, key.clone()));
    }

    /// Adds the rows of this file that an earlier attempt gave a birth to before it was cut off: ids may have moved since.
    pub(super) fn resume(&mut self, table: usize) {
        let mine = self.there.tables[table].iter().filter(|known| (self.is_mine)(&known.row));
        let mine: BTreeMap<i64, &Known> = mine.filter_map(|known| Some((known.claim?, known))).collect();
        for (key, image) in self.index.rows(table) {
            let Some(known) = key[0].as_integer().and_then(|id| mine.get(&id)) else { continue };
            let plain = |(column, cell): (usize, &Option<Cell>)| match cell {
                Some(Cell::Plain(value)) => *value == image[column],
                // References are looked at with the parents; what a rule composed was born as a plain value.
                Some(Cell::Ref(_) | Cell::Step { .. } | Cell::Edit(_)) | None => true,
            };
            if known.cells.iter().enumerate().all(plain) {
                self.same[table].insert(key.clone(), known.row);
            }
        }
    }

    /// Adds every pair of a table whose rows have ids and whose values agree.
    pub(super) fn suppose(&mut self, table: usize) {
        let schema = &self.schema.tables[table];
        let mut taken: BTreeSet<RowId> = self.same[table].values().map(|row| self.there.canonical(*row)).collect();
        let mut by_content: BTreeMap<&Image, Vec<&Known>> = BTreeMap::new();
        if schema.identity == Identity::Rowid {
            for known in &self.there.tables[table] {
                by_content.entry(&known.image).or_default().push(known);
            }
            by_content.values_mut().for_each(|rows| rows.sort_by(|a, b| (&a.key, a.row).cmp(&(&b.key, b.row))));
        }
        for (key, image) in self.index.rows(table) {
            if self.same[table].contains_key(key) {
                continue;
            }
            let known = match schema.identity {
                Identity::Keyed(_) => None,
                Identity::Surrogate(_) => {
                    let at = self.there.by_key[table].get(key).map(|at| &self.there.tables[table][*at]);
                    at.filter(|known| known.image == *image && !taken.contains(&known.row))
                }
                Identity::Rowid => {
                    let rows = by_content.get(image).into_iter().flatten();
                    rows.copied().find(|known| !taken.contains(&known.row))
                }
            };
            if let Some(known) = known {
                taken.insert(known.row);
                self.same[table].insert(key.clone(), known.row);
            }
        }
    }

    /// Takes out what does not agree, until all does.
    pub(super) fn agree(&mut self) -> Result<(), NodeError> {
        let order = parents_first(self.schema);
        loop {
            let mut changed = false;
            for table in &order {
                changed |= match self.schema.tables[*table].identity {
                    Identity::Keyed(_) => self.name_keyed(*table)?,
                    Identity::Surrogate(_) | Identity::Rowid => self.drop_strangers(*table)?,
                };
            }
            if !changed {
                return Ok(());
            }
        }
    }

    /// Keyed rows are what their key, with the parents in it, says.
    fn name_keyed(&mut self, table: usize) -> Result<bool, NodeError> {
        let mut changed = false;
        for (key, image) in self.index.rows(table) {
            if self.sure.contains(&(table, key.clone())) {
                continue;
            }
            let identity = self.identity(table, image)?;
            let row = match identity {
                Some(row) if (self.is_born)(&row)? => Some(row),
                Some(_) | None => None,
            };
            if self.same[table].get(key) != row.as_ref() {
                changed = true;
                match row {
                    Some(row) => self.same[table].insert(key.clone(), row),
                    None => self.same[table].remove(key),
                };
            }
        }
        Ok(changed)
    }

    /// The identity of a keyed row; `None` where its key refers to a row of this file only.
    fn identity(&self, table: usize, image: &Image) -> Result<Option<RowId>, NodeError> {
        let schema = &self.schema.tables[table];
        let mut cells = Vec::new();
        for column in schema.key_columns() {
            match self.cell(schema, column, image)? {
                Some(cell) => cells.push(cell),
                None => return Ok(None),
            }
        }
        Ok(Some(RowId::keyed(&self.schema.database, &schema.name, &cells)))
    }

    /// A value with the cluster's row that it refers to; `None` where that row is of this file only.
    fn cell(&self, schema: &TableSchema, column: usize, image: &Image) -> Result<Option<Cell>, NodeError> {
        for key in schema.foreign_keys.iter().filter(|key| key.columns.contains(&column)) {
            let at = key.columns.iter().position(|other| *other == column).unwrap_or_default();
            match self.leads(key, image)? {
                Leads::Same(row) => {
                    let database = key.database.clone().unwrap_or_else(|| self.schema.database.clone());
                    let (table, column) = (key.parent.clone(), key.parent_columns[at].clone());
                    return Ok(Some(Cell::Ref(Reference { database, table, row, column })));
                }
                Leads::Fresh => return Ok(None),
                Leads::Nowhere => {}
            }
        }
        Ok(Some(Cell::Plain(image[column].clone())))
    }

    /// Where a reference of a row here leads.
    pub(super) fn leads(&self, key: &ForeignKey, image: &Image) -> Result<Leads, NodeError> {
        let values: Vec<Value> = key.columns.iter().map(|column| image[*column].clone()).collect();
        if values.iter().any(Value::is_null) {
            return Ok(Leads::Nowhere);
        }
        if key.database.as_ref().is_some_and(|name| *name != self.schema.database) {
            return Ok((self.elsewhere)(key, &values)?.map_or(Leads::Nowhere, Leads::Same));
        }
        let Some((table, parent)) = self.index.parent(key, image) else { return Ok(Leads::Nowhere) };
        Ok(self.same[table].get(parent).map_or(Leads::Fresh, |row| Leads::Same(*row)))
    }

    fn drop_strangers(&mut self, table: usize) -> Result<bool, NodeError> {
        let mut gone = Vec::new();
        for (key, row) in &self.same[table] {
            if self.sure.contains(&(table, key.clone())) {
                continue;
            }
            let (Some(image), Some(known)) = (self.index.row(table, key), self.there.shown(*row)) else { continue };
            if !self.same_parents(table, image, known)? {
                gone.push(key.clone());
            }
        }
        gone.iter().for_each(|key| {
            self.same[table].remove(key);
        });
        Ok(!gone.is_empty())
    }

    /// Whether the references of a row here lead where those of an equal row there lead.
    fn same_parents(&self, table: usize, image: &Image, known: &Known) -> Result<bool, NodeError> {
        for key in &self.schema.tables[table].foreign_keys {
            let there = key.columns.iter().find_map(|column| match &known.cells[*column] {
                Some(Cell::Ref(reference)) => Some(reference.row),
                Some(Cell::Plain(_) | Cell::Step { .. } | Cell::Edit(_)) | None => None,
            });
            let agrees = match (self.leads(key, image)?, there) {
                (Leads::Same(row), Some(there)) => self.there.canonical(row) == there,
                // The cluster holds a bare number: it means whatever the cluster shows there, never a row of ours.
                (Leads::Same(row), None) => !(self.is_mine)(&row),
                (Leads::Fresh, _) => false,
                // The values are equal, and there is nothing here that they could mean.
                (Leads::Nowhere, _) => true,
            };
            if !agrees {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
