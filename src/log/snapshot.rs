//! State in bulk: read page by page to be given away, loaded page by page when it was taken; and what a node keeps aside
//! while it takes a snapshot.
//!
//! Loading writes rows and every index that their records tell (claims, references, UNIQUE keys, the shelf, keys shown) in
//! key order, past the evaluator: what is loaded was evaluated elsewhere, from the same events.
//! Kept aside, under names of the node's own records: the note of how far it is, the parts, and the rows that the file could
//! not take. They are made and taken away in the transactions of what they tell of.
//! Invariants: tables are numbered by a load only where no table has a number yet; a part is stored with its content's name
//! and nothing that does not fit it ever leaves `wire::snapshot`. Caller: node (snapshots).

use redb::TableHandle;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::names::{NamedTable, Names};
use super::prints::PRINTS;
use super::read::database_key;
use super::state::{claim_key, referrer_key, row_at_end, shown_key, table_row_key, table_row_range, unique_key};
use super::tables;
use super::{LogError, LogRead, LogWrite, record, row_record};
use crate::merge::rules::RuleRecord;
use crate::merge::store::{Row, Store, TableId};
use crate::model::{Cut, OriginId, RowId};
use crate::wire::snapshot_cuts::CutRecord;

const NOTE: &str = "snapshot note";
const PART: &str = "snapshot part ";
const BYTES: &str = "snapshot bytes ";
const ASIDE: &str = "snapshot aside ";

/// How far a node is that takes a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotStage {
    /// Parts come from a peer.
    Pulling,
    /// All parts are here; the app's files are filled from them.
    Filling,
    /// The files show all; the evaluator's records are made from the parts.
    Loading,
}

/// What a node keeps while it takes a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotNote {
    /// The plan, as the wire has it.
    pub plan: Vec<u8>,
    /// How far it is.
    pub stage: SnapshotStage,
    /// The section at which the stage goes on.
    pub section: u32,
    /// Behind this place of it.
    pub after: [u8; 29],
    /// Records gone through in this stage.
    pub records: u64,
}

/// A part kept aside; its bytes lie beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPart {
    /// Its last place.
    pub through: [u8; 29],
    /// Name of its content.
    pub content: [u8; 16],
    /// Bytes of its content.
    pub unpacked: u32,
    /// It is the last of its section.
    pub ends: bool,
    /// Records in it.
    pub rows: u32,
}

/// A table as the giver numbers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedTable {
    /// Its database.
    pub database: String,
    /// Its name.
    pub table: String,
    /// Its columns, by number.
    pub columns: Vec<String>,
    /// Rules that events said of it.
    pub rules: Vec<RuleRecord>,
}

/// A row and, where the file shows it, its key and image's hash (which the record holds as well).
pub type LoadedRow = (RowId, Row);

impl LogRead {
    /// Every table that events named, in the order of their numbers: (database, table, columns).
    pub fn tables(&self) -> Vec<(String, String, Vec<String>)> {
        let all = self.names.tables.iter();
        all.map(|entry| (entry.database.clone(), entry.table.clone(), entry.columns.clone())).collect()
    }

    /// At most `limit` records of a table's rows behind `after`, ascending.
    pub fn rows_page(&self, table: TableId, after: Option<RowId>, limit: usize) -> Result<Vec<(RowId, Row)>, LogError> {
        let (from, through) = table_row_range(table, after);
        let mut found = Vec::with_capacity(limit);
        for entry in self.table_rows.range::<&[u8; 33]>(&from..=&through)?.take(limit) {
            let id = row_at_end(tables::TABLE_ROWS.name(), entry?.0.value())?;
            let row = self.row(&id)?.ok_or(LogError::CorruptRecord { table: tables::ROWS.name() })?;
            found.push((id, row));
        }
        Ok(found)
    }

    /// At most `limit` cut records of a database's events behind one, ascending.
    pub fn cuts_page(&self, database: &str, after: (OriginId, u64), limit: usize) -> Result<Vec<CutRecord>, LogError> {
        let Some(number) = self.database(database)?.map(|record| record.number) else { return Ok(Vec::new()) };
        let from = database_key(number, after.0, after.1.saturating_add(1));
        let through = database_key(number, OriginId([0xff; 16]), u64::MAX);
        // Those of archived events lie in their segments; an event whose body is being moved is in both.
        let mut found: BTreeMap<(OriginId, u64), Cut> = BTreeMap::new();
        for (origin, seq, cut) in self.archive.cuts_behind(number, after, limit)? {
            found.insert((origin, seq), cut);
        }
        for entry in self.cuts.range::<&[u8; 28]>(&from..=&through)?.take(limit) {
            let (key, value) = entry?;
            let place = super::read::split_database_key(key.value());
            found.insert(place, record::unseal(tables::CUTS.name(), key.value(), value.value())?);
        }
        Ok(found.into_iter().take(limit).map(|((origin, seq), cut)| (origin, seq, cut)).collect())
    }

    /// How far this node is with a snapshot it takes; `None`: it takes none.
    pub fn snapshot_note(&self) -> Result<Option<SnapshotNote>, LogError> {
        self.sealed(NOTE)
    }

    /// A part kept aside, by section and the place it begins behind.
    pub fn snapshot_part(&self, section: u32, after: &[u8; 29]) -> Result<Option<StoredPart>, LogError> {
        self.sealed(&part_key(PART, section, after))
    }

    /// The packed bytes of a part kept aside; the caller checks them against its content's name.
    pub fn snapshot_bytes(&self, section: u32, after: &[u8; 29]) -> Result<Vec<u8>, LogError> {
        Ok(self.meta(&part_key(BYTES, section, after))?.unwrap_or_default())
    }

    /// Rows that the file could not take.
    pub fn snapshot_aside(&self) -> Result<Vec<RowId>, LogError> {
        let mut found = Vec::new();
        for entry in self.meta.range(ASIDE..end_of(ASIDE).as_str())? {
            let key = entry?.0;
            let bytes =
                key.value().strip_prefix(ASIDE).and_then(|hex| data_encoding::HEXLOWER.decode(hex.as_bytes()).ok());
            let row = bytes.and_then(|bytes| RowId::from_bytes(&bytes));
            found.push(row.ok_or(LogError::CorruptRecord { table: tables::META.name() })?);
        }
        Ok(found)
    }

    /// Whether no event of any database was ever evaluated here.
    pub fn knows_no_table(&self) -> bool {
        self.names.tables.is_empty()
    }

    fn sealed<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<Option<T>, LogError> {
        match self.meta.get(key)? {
            Some(value) => record::unseal(tables::META.name(), key.as_bytes(), value.value()).map(Some),
            None => Ok(None),
        }
    }
}

impl LogWrite<'_> {
    /// Notes how far a snapshot is.
    pub fn put_snapshot_note(&mut self, note: &SnapshotNote) -> Result<(), LogError> {
        self.put_meta(NOTE, &record::seal(NOTE.as_bytes(), note))
    }

    /// Keeps a part aside.
    pub fn put_snapshot_part(
        &mut self,
        section: u32,
        after: &[u8; 29],
        part: &StoredPart,
        bytes: &[u8],
    ) -> Result<(), LogError> {
        let key = part_key(PART, section, after);
        self.put_meta(&key, &record::seal(key.as_bytes(), part))?;
        self.put_meta(&part_key(BYTES, section, after), bytes)
    }

    /// Notes a row that the file could not take.
    pub fn put_snapshot_aside(&mut self, row: &RowId) -> Result<(), LogError> {
        self.put_meta(&format!("{ASIDE}{}", data_encoding::HEXLOWER.encode(&row.to_bytes())), &[])
    }

    /// Forgets all that was kept aside.
    pub fn drop_snapshot(&mut self) -> Result<(), LogError> {
        let mut meta = self.transaction.open_table(tables::META)?;
        meta.remove(NOTE)?;
        for name in [PART, BYTES, ASIDE] {
            meta.retain_in::<&str, _>(name..end_of(name).as_str(), |_, _| false)?;
        }
        Ok(())
    }

    /// Numbers the tables as a giver does, with what rules say of them. False: tables have other numbers here.
    pub fn load_tables(&mut self, loaded: &[LoadedTable]) -> Result<bool, LogError> {
        let named = |table: &LoadedTable| NamedTable {
            database: table.database.clone(),
            table: table.table.clone(),
            columns: table.columns.clone(),
        };
        let wanted: Vec<NamedTable> = loaded.iter().map(named).collect();
        if !self.names.tables.is_empty() {
            return Ok(self.names.tables == wanted);
        }
        self.names_changed.extend(0..wanted.len() as u32);
        self.names = Arc::new(Names { tables: wanted });
        for (number, table) in loaded.iter().enumerate().filter(|(_, table)| !table.rules.is_empty()) {
            self.changed.rules.insert(TableId(number as u32), table.rules.clone());
        }
        Ok(true)
    }

    /// Stores rows of one table, ascending, that are not there yet, with every index that their records tell.
    pub fn load_rows(&mut self, table: TableId, loaded: &[LoadedRow]) -> Result<(), LogError> {
        let transaction = &self.transaction;
        let mut rows = transaction.open_table(tables::ROWS)?;
        let mut table_rows = transaction.open_table(tables::TABLE_ROWS)?;
        let mut shelf = transaction.open_table(tables::SHELF)?;
        let mut dirty = transaction.open_table(tables::DIRTY)?;
        let (mut claims, mut unique, mut referrers) = (Vec::new(), Vec::new(), Vec::new());
        let mut shown: BTreeMap<Vec<u8>, [u8; 29]> = BTreeMap::new();
        let mut fingerprint = Store::fingerprint(&*self, table)?;
        for (id, row) in loaded {
            rows.insert(&id.to_bytes(), row_record::pack(id, row).as_slice())?;
            table_rows.insert(&table_row_key(table, id), ())?;
            if let Some(key) = &row.shown {
                shown.insert(shown_key(table, key), id.to_bytes());
                fingerprint.add(&row.image_hash);
                self.changed.prints.note(table, id, None, Some(row.image_hash));
            } else if row.visible() {
                dirty.insert(&table_row_key(table, id), ())?;
            }
            claims.extend(row.claim.map(|claim| claim_key(table, claim.id, id)));
            let bond = row.bonds.as_ref().and_then(|bonds| bonds.key);
            unique.extend(row.unique.iter().copied().chain(bond).map(|key| unique_key(table, &key, id)));
            referrers.extend(row.parents().map(|(_, parent)| referrer_key(&parent.row, id)));
            if row.alive && row.shelved.is_some() {
                shelf.insert(&id.to_bytes(), ())?;
            }
        }
        let mut index = transaction.open_table(tables::SHOWN)?;
        for (key, row) in &shown {
            index.insert(key.as_slice(), row)?;
        }
        insert_sorted(&mut transaction.open_table(tables::CLAIMS)?, claims)?;
        insert_sorted(&mut transaction.open_table(tables::UNIQUE)?, unique)?;
        insert_sorted(&mut transaction.open_table(tables::REFERRERS)?, referrers)?;
        self.changed.fingerprints.insert(table, fingerprint);
        Ok(())
    }

    /// Stores cut records of a database's events.
    pub fn load_cuts(&mut self, database: &str, loaded: &[CutRecord]) -> Result<(), LogError> {
        let number = self.database_mut(database).number;
        let mut cuts = self.transaction.open_table(tables::CUTS)?;
        for (origin, seq, cut) in loaded {
            let key = database_key(number, *origin, *seq);
            cuts.insert(&key, record::seal(&key, cut).as_slice())?;
        }
        Ok(())
    }

    /// Forgets all state, as if no event had ever been evaluated: a load that failed is begun anew, or left to the events.
    pub fn clear_state(&mut self) -> Result<(), LogError> {
        let transaction = &self.transaction;
        transaction.delete_table(tables::NAMES)?;
        transaction.delete_table(tables::RULES)?;
        transaction.delete_table(tables::ROWS)?;
        transaction.delete_table(tables::TABLE_ROWS)?;
        transaction.delete_table(tables::SHOWN)?;
        transaction.delete_table(tables::CLAIMS)?;
        transaction.delete_table(tables::REFERRERS)?;
        transaction.delete_table(tables::UNIQUE)?;
        transaction.delete_table(tables::FINGERPRINTS)?;
        transaction.delete_table(PRINTS)?;
        transaction.delete_table(tables::SHELF)?;
        transaction.delete_table(tables::DIRTY)?;
        tables::create_state(transaction)?;
        self.names = Arc::default();
        // No such number: it only says that the committed names are others now.
        self.names_changed.insert(u32::MAX);
        Ok(())
    }
}

fn insert_sorted<const N: usize>(
    table: &mut redb::Table<'_, &'static [u8; N], ()>,
    mut keys: Vec<[u8; N]>,
) -> Result<(), LogError> {
    keys.sort_unstable();
    for key in keys {
        table.insert(&key, ())?;
    }
    Ok(())
}

fn part_key(name: &str, section: u32, after: &[u8; 29]) -> String {
    format!("{name}{section:08x} {}", data_encoding::HEXLOWER.encode(after))
}

/// The end of all keys that begin with a name.
fn end_of(name: &str) -> String {
    format!("{name}~")
}
