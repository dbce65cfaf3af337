//! Range fingerprints on redb: the sums of the kept blocks of every table's shown rows.
//!
//! What a row adds to is said by [`crate::reconcile::print`]: the table's root and two or three blocks. A write transaction
//! notes per row what the file showed before and shows now; the commit adds the differences up, block by block in ascending
//! order, and writes each touched block once. So they are durable exactly when the rows' records are, and a crash between
//! leaves neither.
//! Invariant (I21): every kept sum equals the one computed anew from the rows ([`LogRead::check_prints`]); blocks without
//! rows are not there. A log that was made before has none: they are built in one transaction when it is opened.
//! Callers: the evaluator (by way of the store), node (comparisons, verification).

use std::collections::BTreeMap;

use redb::{Database, Durability, ReadTransaction, ReadableTable, TableDefinition, TableError, TableHandle};

use super::state::{row_at_end, table_row_range};
use super::tables::{self, join};
use super::{LogError, LogRead, LogWrite, record, row_record};
use crate::merge::store::{Fingerprint, TableId};
use crate::model::RowId;
use crate::reconcile::print::{Source, add, item, kept, single, sources};
use crate::reconcile::{Prefix, Tree};

/// Table (4), length of the prefix in nibbles (1), prefix (29) -> sum of the block's shown rows. Length 0 is the table's
/// root. Written with every commit that changes what files show.
pub(super) const PRINTS: TableDefinition<&[u8; 34], &[u8]> = TableDefinition::new("prints");

/// What the file showed of rows before a transaction, and shows after it.
#[derive(Debug, Default)]
pub(super) struct PrintNotes(BTreeMap<(TableId, RowId), (Image, Image)>);

/// Hash of the image that a file shows; `None`: it shows none.
type Image = Option<[u8; 32]>;

/// Sums by block.
type Sums = BTreeMap<Prefix, Fingerprint>;

impl PrintNotes {
    /// Notes one row: the hash of the image that was shown, and of the one that is.
    pub(super) fn note(&mut self, table: TableId, row: &RowId, was: Option<[u8; 32]>, is: Option<[u8; 32]>) {
        self.0.entry((table, *row)).or_insert((was, is)).1 = is;
    }

    /// Adds what changed to the kept sums.
    pub(super) fn flush(self, transaction: &redb::WriteTransaction) -> Result<(), LogError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let prints = &mut transaction.open_table(PRINTS)?;
        let mut tables: BTreeMap<TableId, BTreeMap<u8, Vec<(Prefix, Fingerprint)>>> = BTreeMap::new();
        for ((table, row), (was, is)) in self.0 {
            if was == is {
                continue;
            }
            let mut change = Fingerprint::default();
            if let Some(is) = is {
                change.add(&item(&row, &is));
            }
            if let Some(was) = was {
                change.remove(&item(&row, &was));
            }
            let levels = tables.entry(table).or_default();
            for block in blocks(&row) {
                let level = levels.entry(block.len()).or_default();
                // Rows come in ascending order, so a block's rows come one after the other.
                match level.last_mut().filter(|(last, _)| *last == block) {
                    Some((_, sum)) => add(sum, &change),
                    None => level.push((block, change)),
                }
            }
        }
        for (table, levels) in tables {
            for (block, change) in levels.into_values().flatten() {
                let key = key(table, &block);
                let mut sum = match prints.get(&key)? {
                    Some(value) => record::unseal(PRINTS.name(), &key, value.value())?,
                    None => Fingerprint::default(),
                };
                add(&mut sum, &change);
                put(prints, &key, &sum)?;
            }
        }
        Ok(())
    }
}

/// The table's root and the kept blocks of a row.
fn blocks(row: &RowId) -> impl Iterator<Item = Prefix> {
    std::iter::once(Prefix::ALL).chain(kept(row))
}

fn key(table: TableId, block: &Prefix) -> [u8; 34] {
    join(&[&table.0.to_be_bytes(), &[block.len()], block.bytes()])
}

/// The first and the last key of the kept blocks of a length within a prefix.
fn range(table: TableId, length: u8, within: &Prefix) -> ([u8; 34], [u8; 34]) {
    let (from, through) = within.range();
    let key = |end: &[u8; 29]| join(&[&table.0.to_be_bytes(), &[length], end]);
    (key(&from), key(&through))
}

fn put(
    prints: &mut redb::Table<'_, &'static [u8; 34], &'static [u8]>,
    key: &[u8; 34],
    sum: &Fingerprint,
) -> Result<(), LogError> {
    if *sum == Fingerprint::default() {
        prints.remove(key)?;
    } else {
        prints.insert(key, record::seal(key, sum).as_slice())?;
    }
    Ok(())
}

/// Whether a log has kept sums.
fn are_kept(transaction: &ReadTransaction) -> Result<bool, LogError> {
    match transaction.open_table(PRINTS) {
        Ok(_) => Ok(true),
        Err(TableError::TableDoesNotExist(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Builds the sums of a log that has none, in one durable transaction.
pub(super) fn build_where_missing(database: &Database) -> Result<(), LogError> {
    use redb::ReadableDatabase;
    if are_kept(&database.begin_read()?)? {
        return Ok(());
    }
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_quick_repair(true);
    {
        let names = transaction.open_table(tables::NAMES)?;
        let members = transaction.open_table(tables::TABLE_ROWS)?;
        let rows = transaction.open_table(tables::ROWS)?;
        let mut prints = transaction.open_table(PRINTS)?;
        for entry in names.iter()? {
            let table = TableId(entry?.0.value());
            for (block, sum) in sums(table, &members, &rows)? {
                put(&mut prints, &key(table, &block), &sum)?;
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

/// All sums of a table, from its rows.
fn sums(
    table: TableId,
    members: &impl ReadableTable<&'static [u8; 33], ()>,
    rows: &impl ReadableTable<&'static [u8; 29], &'static [u8]>,
) -> Result<Sums, LogError> {
    let mut sums = Sums::new();
    let (from, through) = table_row_range(table, None);
    for entry in members.range::<&[u8; 33]>(&from..=&through)? {
        let row = row_at_end(tables::TABLE_ROWS.name(), entry?.0.value())?;
        if let Some(item) = item_of(&row, rows)? {
            for block in blocks(&row) {
                sums.entry(block).or_default().add(&item);
            }
        }
    }
    Ok(sums)
}

/// What a row adds up; `None` while the file does not show it.
fn item_of(
    row: &RowId,
    rows: &impl ReadableTable<&'static [u8; 29], &'static [u8]>,
) -> Result<Option<[u8; 32]>, LogError> {
    let Some(value) = rows.get(&row.to_bytes())? else { return Ok(None) };
    Ok(row_record::shown_image(row, value.value())?.map(|hash| item(row, &hash)))
}

impl LogRead {
    /// The sum over all shown rows of a table, each with its identity: equal rows, equal roots.
    pub fn table_root(&self, table: TableId) -> Result<Fingerprint, LogError> {
        self.kept_sum(table, &Prefix::ALL)
    }

    fn kept_sum(&self, table: TableId, block: &Prefix) -> Result<Fingerprint, LogError> {
        let key = key(table, block);
        match self.prints.get(&key)? {
            Some(value) => record::unseal(PRINTS.name(), &key, value.value()),
            None => Ok(Fingerprint::default()),
        }
    }

    /// The sums of the parts of a block of rows, ascending (see [`Tree::parts`]).
    pub fn print_parts(&self, table: TableId, block: &Prefix) -> Result<Vec<(Prefix, Fingerprint)>, LogError> {
        let mut parts = Vec::new();
        let sources = sources(block);
        let several = sources.len() > 1;
        for source in sources {
            match source {
                Source::Kept(length, within) => {
                    let (from, through) = range(table, length, &within);
                    for entry in self.prints.range::<&[u8; 34]>(&from..=&through)? {
                        let (key, value) = entry?;
                        let sum = record::unseal(PRINTS.name(), key.value(), value.value())?;
                        let bytes = key.value().last_chunk::<29>().copied().unwrap_or_default();
                        parts.push((Prefix::new(bytes, length), sum));
                    }
                }
                Source::Rows(within) => {
                    let rows = self.print_rows(table, &within, None, usize::MAX)?;
                    parts.extend(rows.iter().map(|(row, item)| (Prefix::row(row), single(item))));
                }
            }
        }
        if several {
            parts.sort_by(|one, other| one.0.bytes().cmp(other.0.bytes()));
        }
        Ok(parts)
    }

    /// At most `limit` shown rows of a block with what they add up, ascending, behind `after`.
    pub fn print_rows(
        &self,
        table: TableId,
        block: &Prefix,
        after: Option<RowId>,
        limit: usize,
    ) -> Result<Vec<(RowId, [u8; 32])>, LogError> {
        let (from, through) = block.range();
        let within = |end: &[u8; 29]| -> [u8; 33] { join(&[&table.0.to_be_bytes(), end]) };
        let from = match after {
            Some(after) => within(&from).max(table_row_range(table, Some(after)).0),
            None => within(&from),
        };
        let through = within(&through);
        let mut found = Vec::new();
        if from > through {
            return Ok(found);
        }
        for entry in self.table_rows.range::<&[u8; 33]>(&from..=&through)? {
            if found.len() >= limit {
                break;
            }
            let row = row_at_end(tables::TABLE_ROWS.name(), entry?.0.value())?;
            found.extend(item_of(&row, &self.rows)?.map(|item| (row, item)));
        }
        Ok(found)
    }

    /// Computes all sums of a table anew from its rows: how many blocks were looked at, and how many are kept wrong. Reads
    /// every row of the table.
    pub fn check_prints(&self, table: TableId) -> Result<(u64, u64), LogError> {
        let anew = sums(table, &self.table_rows, &self.rows)?;
        let mut wrong = 0;
        let (from, through) = tables::prefix::<34>(&table.0.to_be_bytes());
        for entry in self.prints.range::<&[u8; 34]>(&from..=&through)? {
            let (key, value) = entry?;
            let bytes = key.value().last_chunk::<29>().copied().unwrap_or_default();
            let block = Prefix::new(bytes, key.value()[4]);
            let sum = record::unseal::<Fingerprint>(PRINTS.name(), key.value(), value.value()).ok();
            wrong += u64::from(sum.is_none() || anew.get(&block).copied() != sum);
        }
        for (block, sum) in &anew {
            let missing = self.prints.get(&key(table, block))?.is_none();
            wrong += u64::from(missing && *sum != Fingerprint::default());
        }
        Ok((anew.len() as u64, wrong))
    }
}

impl LogWrite<'_> {
    /// Computes all sums of a table anew from the rows that were committed before this transaction, and keeps them. For
    /// sums that [`LogRead::check_prints`] found wrong.
    pub fn rebuild_prints(&mut self, table: TableId) -> Result<(), LogError> {
        let anew = sums(table, &self.base.table_rows, &self.base.rows)?;
        let mut prints = self.transaction.open_table(PRINTS)?;
        let (from, through) = tables::prefix::<34>(&table.0.to_be_bytes());
        prints.retain_in::<&[u8; 34], _>(&from..=&through, |_, _| false)?;
        for (block, sum) in anew {
            put(&mut prints, &key(table, &block), &sum)?;
        }
        Ok(())
    }
}

/// Tables of a snapshot as one side of a comparison, numbered by their places in the list; `None`: a table that this side
/// has no rows of.
pub struct Printed<'r> {
    /// The snapshot.
    pub read: &'r LogRead,
    /// The tables.
    pub tables: &'r [Option<TableId>],
}

impl Printed<'_> {
    fn table(&self, number: usize) -> Option<TableId> {
        self.tables.get(number).copied().flatten()
    }
}

impl Tree for Printed<'_> {
    type Error = LogError;

    fn root(&self, table: usize) -> Result<Fingerprint, LogError> {
        self.table(table).map_or(Ok(Fingerprint::default()), |table| self.read.table_root(table))
    }

    fn parts(&self, table: usize, block: &Prefix) -> Result<Vec<(Prefix, Fingerprint)>, LogError> {
        self.table(table).map_or(Ok(Vec::new()), |table| self.read.print_parts(table, block))
    }

    fn rows(
        &self,
        table: usize,
        block: &Prefix,
        after: Option<RowId>,
        limit: usize,
    ) -> Result<Vec<(RowId, [u8; 32])>, LogError> {
        self.table(table).map_or(Ok(Vec::new()), |table| self.read.print_rows(table, block, after, limit))
    }
}

#[cfg(test)]
#[path = "prints_tests.rs"]
mod tests;
