//! Says, before a file is touched, what will be replicated and how, and what will not and why.
//!
//! Invariant: reads only. Callers: cli (`preflight`), node (at joining).

use serde::{Deserialize, Serialize};

use super::plan::TablePlan;
use super::quote::quote;
use super::steering::{Decisions, Runs};
use super::suspects::suggest;
use super::{AppFile, ReferenceProposal, SqliteError, enroll, schema};
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
    /// References that nobody declares, as far as names and values tell.
    #[serde(default)]
    pub references: Vec<ReferenceProposal>,
    /// The lines of configuration that declare them; empty when there are none.
    #[serde(default)]
    pub config: String,
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
    /// Where SQLite makes the ids: `steered` (into the node's own runs, so that servers never make the same one) or
    /// `plain`; empty elsewhere.
    pub ids: String,
    /// Why they are plain.
    pub ids_because: String,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// The reports of all files of a node, with the references between them that nobody declares.
pub fn preflight_all(files: &[AppFile]) -> Result<Vec<Preflight>, SqliteError> {
    let mut reports = files.iter().map(AppFile::preflight).collect::<Result<Vec<_>, _>>()?;
    for (report, suggestions) in reports.iter_mut().zip(suggest(files)?) {
        for (table, what) in suggestions.told {
            report
                .tables
                .iter_mut()
                .filter(|entry| entry.table == table)
                .for_each(|entry| entry.warnings.push(what.clone()));
        }
        report.references = suggestions.references;
        report.config = suggestions.config;
    }
    Ok(reports)
}

impl AppFile {
    /// What will be replicated and how. Changes nothing.
    pub fn preflight(&self) -> Result<Preflight, SqliteError> {
        let transaction = self.connection.unchecked_transaction()?;
        let schema = self.schema();
        let mut decisions = Decisions::default();
        // Which slot the node will get does not matter here.
        let runs =
            Runs::new(self.slot.or(Some(1)), self.settings.steering_runs).ok_or("steering is off (steering_runs)");
        decisions.make(&transaction, &self.layout, &self.settings, runs, usize::MAX)?;
        let mut tables = Vec::new();
        for (table, plan) in schema.tables.iter().zip(&self.layout.plans) {
            let mut described = self.describe(table, plan)?;
            (described.ids, described.ids_because) = match decisions.tables.get(&table.name) {
                Some(Ok(_)) => ("steered".to_owned(), String::new()),
                Some(Err(reason)) => ("plain".to_owned(), reason.clone()),
                None => Default::default(),
            };
            tables.push(described);
        }
        let report = Preflight {
            database: schema.database.clone(),
            path: self.settings.path.display().to_string(),
            enrolled: self.is_enrolled()?,
            journal_mode: enroll::journal_mode(&self.connection)?,
            encoding: self.connection.query_row("PRAGMA main.encoding", [], |row| row.get(0))?,
            tables,
            left_out: schema.left_out.clone(),
            warnings: self.file_warnings()?,
            ..Preflight::default()
        };
        drop(transaction);
        Ok(report)
    }

    fn describe(&self, table: &TableSchema, plan: &TablePlan) -> Result<TablePreflight, SqliteError> {
        let key: Vec<String> = table.key_columns().iter().map(|column| table.columns[*column].name.clone()).collect();
        let (identity, how) = match &table.identity {
            Identity::Surrogate(_) => {
                let how = format!(
                    "ids made by SQLite: rows born apart stay two rows; where two got the same {}, one moves and every \
                     reference follows",
                    key[0]
                );
                ("birth", how)
            }
            Identity::Keyed(_) => ("key", format!("rows with the same {} are the same row", key.join(", "))),
            Identity::Rowid => {
                ("rowid", "no key: every insert is a row of its own, even with equal content".to_owned())
            }
        };
        Ok(TablePreflight {
            table: table.name.clone(),
            rows: self.count_rows(&table.name)?,
            identity: identity.to_owned(),
            key,
            how,
            ids: String::new(),
            ids_because: String::new(),
            warnings: self.table_warnings(table, plan)?,
        })
    }

    fn table_warnings(&self, table: &TableSchema, plan: &TablePlan) -> Result<Vec<String>, SqliteError> {
        let mut warnings = Vec::new();
        if let Some(nullable) = self.nullable_key(table) {
            let sql = format!("SELECT count(*) FROM main.{} WHERE {} IS NULL", plan.table, quote(nullable));
            let rows: i64 = self.connection.query_row(&sql, [], |row| row.get(0))?;
            warnings.push(format!(
                "the key column {nullable:?} may hold NULL; rows without a key cannot be told apart and stay on this \
                 server ({rows} now). Declare it NOT NULL"
            ));
        }
        for index in &plan.blind {
            warnings.push(format!(
                "UNIQUE index {index:?} is over an expression: rows that INSERT OR REPLACE removes through it are noticed \
                 only by the next scan"
            ));
        }
        for column in undeclared_references(table) {
            warnings.push(format!(
                "column {column:?} looks like a reference but declares none: it keeps its value when the id it means \
                 moves. If it is one, declare it under `references` in the configuration"
            ));
        }
        let triggers = self.app_triggers(&table.name)?;
        if !triggers.is_empty() {
            warnings.push(format!(
                "the app's triggers ({}) run where a row is written; what they write is replicated, they do not run again \
                 on other servers",
                triggers.join(", ")
            ));
        }
        if table.identity == Identity::Rowid {
            warnings
                .push("it has no key: VACUUM renumbers its rows, which then costs a scan. Give it a key".to_owned());
        }
        for sql in [Some(&plan.insert), plan.update.as_ref()].into_iter().flatten() {
            if let Err(error) = self.connection.prepare(sql) {
                warnings.push(format!("rows of other servers cannot be written here: {error}"));
                break;
            }
        }
        Ok(warnings)
    }

    /// A key column of a table with rowids that is not declared NOT NULL (SQLite lets such keys be NULL). The rowid under
    /// another name cannot be.
    fn nullable_key<'t>(&self, table: &'t TableSchema) -> Option<&'t str> {
        let Identity::Keyed(columns) = &table.identity else { return None };
        let (_, plan) = self.layout.find(&table.name).ok()?;
        if table.without_rowid || plan.alias.is_some() {
            return None;
        }
        columns.iter().map(|column| &table.columns[*column]).find(|column| !column.not_null).map(|c| c.name.as_str())
    }

    fn app_triggers(&self, table: &str) -> Result<Vec<String>, SqliteError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT name FROM main.sqlite_master WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE \
             AND name NOT GLOB '_litemesh_*' ORDER BY name",
        )?;
        let names = statement.query_map([table], |row| schema::text(row, 0))?.collect::<rusqlite::Result<_>>()?;
        Ok(names)
    }

    fn file_warnings(&self) -> Result<Vec<String>, SqliteError> {
        let mut warnings = Vec::new();
        let mode = enroll::journal_mode(&self.connection)?;
        if mode != "wal" && !self.is_enrolled()? {
            warnings.push(format!(
                "the journal mode will change from {mode} to wal (back with `litemesh eject`): copies of the file must \
                 then be made with SQLite's own backup, not by copying the file alone"
            ));
        }
        for table in &self.layout.search {
            warnings.push(format!(
                "full-text index {:?} is rebuilt after changes from other servers arrive; until then it does not find them",
                table.name
            ));
        }
        if self.layout.schema.tables.is_empty() {
            warnings.push("there is no table to replicate".to_owned());
        }
        Ok(warnings)
    }
}

/// Columns that are named like references and are neither declared as such nor the key.
fn undeclared_references(table: &TableSchema) -> Vec<&str> {
    let key = table.key_columns();
    let is_key = |position: &usize| key.len() == 1 && key[0] == *position;
    (0..table.columns.len())
        .filter(|position| !is_key(position))
        .filter(|position| !table.foreign_keys.iter().any(|key| key.columns.contains(position)))
        .map(|position| table.columns[position].name.as_str())
        .filter(|name| name.len() > 3 && (name.to_ascii_lowercase().ends_with("_id") || name.ends_with("Id")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::FileSettings;
    use super::*;

    #[test]
    fn the_report_names_every_trap_and_writes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.db");
        let app = rusqlite::Connection::open(&path).unwrap();
        app.execute_batch(
            "CREATE TABLE user(id INTEGER PRIMARY KEY, name TEXT UNIQUE);
             CREATE TABLE post(id INTEGER PRIMARY KEY, user_id INTEGER REFERENCES user(id), editor_id INTEGER);
             CREATE TABLE code(k TEXT PRIMARY KEY, v); INSERT INTO code VALUES (NULL, 1), ('a', 2);
             CREATE TABLE bare(a); CREATE TABLE part(id INTEGER PRIMARY KEY, a, b);
             CREATE UNIQUE INDEX one_b ON part(a) WHERE b = 1; CREATE UNIQUE INDEX low ON part(lower(a));
             CREATE TRIGGER stamp AFTER INSERT ON bare BEGIN SELECT 1; END;
             CREATE VIRTUAL TABLE words USING fts5(name, content='user', content_rowid='id');",
        )
        .unwrap();
        let settings = FileSettings { name: "app".into(), path, ..FileSettings::default() };
        let report = AppFile::open(settings).unwrap().preflight().unwrap();
        let warnings = |name: &str| {
            report.tables.iter().find(|table| table.table == name).map(|table| table.warnings.join("\n")).unwrap()
        };
        assert_eq!(warnings("user"), "");
        assert!(warnings("post").contains("editor_id") && !warnings("post").contains("user_id"));
        assert!(warnings("code").contains("1 now"), "{}", warnings("code"));
        let ids = |name: &str| {
            let table = report.tables.iter().find(|table| table.table == name).unwrap();
            (table.ids.as_str(), table.ids_because.as_str())
        };
        assert_eq!((ids("user"), ids("code")), (("plain", "steering is off (steering_runs)"), ("", "")));
        assert!(warnings("bare").contains("stamp") && warnings("bare").contains("VACUUM"));
        assert!(warnings("part").contains("low") && !warnings("part").contains("one_b"));
        assert!(report.warnings.iter().any(|warning| warning.contains("words")));
        assert!(report.warnings.iter().any(|warning| warning.contains("journal mode")));
        assert!(report.left_out.iter().any(|(table, _)| table == "words"));
        assert_eq!((report.enrolled, report.encoding.as_str()), (false, "UTF-8"));
        let rows: Vec<u64> = report.tables.iter().map(|table| table.rows).collect();
        assert_eq!(rows.iter().sum::<u64>(), 2);
        assert!(serde_json::to_string(&report).unwrap().contains("\"identity\":\"birth\""));
    }
}
