//! Numbers for tables and columns: given at first use, never changed, local to this node.
//!
//! Invariant: numbers are dense and only added. Names are matched without ASCII case, as SQLite does.
//! Callers: [`super::Log`] keeps the last committed state, [`super::write`] adds to a copy.

use serde::{Deserialize, Serialize};

use super::{LogError, record, tables};
use crate::merge::store::TableId;
use redb::{ReadOnlyTable, ReadableTable, TableHandle};

/// One numbered table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NamedTable {
    pub(super) database: String,
    pub(super) table: String,
    pub(super) columns: Vec<String>,
}

/// All numbered tables, by number.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) tables: Vec<NamedTable>,
}

impl Names {
    pub(super) fn load(table: &ReadOnlyTable<u32, &'static [u8]>) -> Result<Names, LogError> {
        let mut names = Names::default();
        for entry in table.iter()? {
            let (number, value) = entry?;
            let corrupt = LogError::CorruptRecord { table: tables::NAMES.name() };
            if number.value() as usize != names.tables.len() {
                return Err(corrupt);
            }
            let key = number.value().to_be_bytes();
            names.tables.push(record::unseal(tables::NAMES.name(), &key, value.value())?);
        }
        Ok(names)
    }

    pub(super) fn find(&self, database: &str, table: &str) -> Option<TableId> {
        let found =
            self.tables.iter().position(|entry| entry.database == database && entry.table.eq_ignore_ascii_case(table));
        found.map(|position| TableId(position as u32))
    }

    pub(super) fn table(&self, table: TableId) -> Result<&NamedTable, LogError> {
        self.tables.get(table.0 as usize).ok_or(LogError::CorruptRecord { table: tables::NAMES.name() })
    }

    /// The numbers of a database's tables, ascending.
    pub(super) fn of_database(&self, database: &str) -> Vec<TableId> {
        let all = self.tables.iter().enumerate();
        all.filter(|(_, entry)| entry.database == database).map(|(number, _)| TableId(number as u32)).collect()
    }
}
