//! Says, before a file is touched, what will be replicated and how, and what will not and why.
//!
//! Invariant: reads only. Callers: cli (`preflight`), node (at joining).

use serde::{Deserialize, Serialize};

use super::{AppFile, SqliteError, enroll};
use crate::model::{Identity, TableSchema};

/// The report for one database. Field names are stable: `--json` prints them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preflight {
    /// Name of the database in the cluster.
    pub database: String,
    /// The file.
    pub path: String,
    /// Whether litemesh's tables are in it already.
    pub enrolled: bool,
    /// Journal mode now; WAL after enrolling.
    pub journal_mode: String,
    /// Text encoding of the file.
    pub encoding: String,
    /// Tables that will be replicated.
    pub tables: Vec<TablePreflight>,
    /// (table, reason) of those that will not.
    pub left_out: Vec<(String, String)>,
    /// What concerns the whole file.
    pub warnings: Vec<String>,
}

/// The report for one table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablePreflight {
    /// Name.
    pub table: String,
    /// Rows in it.
    pub rows: u64,
    /// `birth`, `key` or `rowid`.
    pub identity: String,
    /// Key columns.
    pub key: Vec<String>,
    /// How its rows are told apart, in a sentence.
    pub how: String,
    /// What a person should know.
    pub warnings: Vec<String>,
}

impl AppFile {
    /// What will be replicated and how. Changes nothing.
    pub fn preflight(&self) -> Result<Preflight, SqliteError> {
        let schema = self.schema();
        let mut tables = Vec::new();
        for table in &schema.tables {
            tables.push(self.describe(table)?);
        }
        Ok(Preflight {
            database: schema.database.clone(),
            path: self.settings.path.display().to_string(),
            enrolled: self.is_enrolled()?,
            journal_mode: enroll::journal_mode(&self.connection)?,
            encoding: self.connection.query_row("PRAGMA main.encoding", [], |row| row.get(0))?,
            tables,
            left_out: schema.left_out.clone(),
            warnings: Vec::new(),
        })
    }

    fn describe(&self, table: &TableSchema) -> Result<TablePreflight, SqliteError> {
        let key: Vec<String> = table.key_columns().iter().map(|column| table.columns[*column].name.clone()).collect();
        let (identity, how) = match &table.identity {
            Identity::Surrogate(_) => {
                ("birth", format!("rows made apart stay apart; {} follows if two collide", key[0]))
            }
            Identity::Keyed(_) => ("key", format!("rows with the same {} are the same row", key.join(", "))),
            Identity::Rowid => ("rowid", "no key: every insert is a row of its own".to_owned()),
        };
        Ok(TablePreflight {
            table: table.name.clone(),
            rows: self.count_rows(&table.name)?,
            identity: identity.to_owned(),
            key,
            how,
            warnings: Vec::new(),
        })
    }
}
