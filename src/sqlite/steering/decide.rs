//! Which tables are steered, and why the others are not.
//!
//! Invariant: reads only, and holds no lock while it tries a table out; the answer is a function of schema, settings,
//! runs and (for tables with a CHECK) one row. Callers: install, preflight.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};

use super::super::plan::TablePlan;
use super::super::quote::{matches_pattern, quote};
use super::super::schema::{Layout, text};
use super::super::{FileSettings, SqliteError, triggers, value};
use super::{Placeholder, Runs, statements, trial, twins};
use crate::model::identity::first_16;
use crate::model::{Identity, TableSchema, Value};

/// Everything that is needed to try a table out apart from its file.
pub(in super::super) struct Subject<'s> {
    pub(super) schema: &'s TableSchema,
    pub(super) plan: &'s TablePlan,
    pub(super) holder: &'s Placeholder,
    pub(super) runs: Runs,
    /// CREATE TABLE, then every CREATE INDEX.
    pub(super) sql: Vec<String>,
    /// The stored values of a row, where a CHECK must be satisfied and there is one.
    pub(super) sample: Option<Vec<Value>>,
}

/// What was decided for a file.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Decisions {
    /// The schema version it is for.
    pub(in super::super) version: i64,
    /// How a table is steered, or why it is not, by its name.
    pub(in super::super) tables: BTreeMap<String, Result<Placeholder, String>>,
    /// Results of trials by what was tried: the same is never tried twice.
    tried: BTreeMap<[u8; 16], Result<(), String>>,
}

impl Decisions {
    /// Decides for every table of a layout, trying out at most so many. `runs` is an error where the whole file stays
    /// plain, for this reason. `false`: some tables are still to be tried; call again.
    pub(in super::super) fn make(
        &mut self,
        connection: &Connection,
        layout: &Layout,
        settings: &FileSettings,
        runs: Result<Runs, &str>,
        mut trials: usize,
    ) -> Result<bool, SqliteError> {
        self.version = layout.version;
        self.tables.clear();
        for (schema, plan) in layout.schema.tables.iter().zip(&layout.plans) {
            if !matches!(schema.identity, Identity::Surrogate(_)) {
                continue;
            }
            let off = settings.unsteered.iter().any(|pattern| matches_pattern(pattern, &schema.name));
            let decision = match runs {
                Err(reason) => Err(reason.to_owned()),
                Ok(_) if off => Err("the configuration says so (steering = false)".to_owned()),
                Ok(runs) => match self.decide(connection, schema, plan, runs, &mut trials)? {
                    Some(decision) => decision,
                    None => return Ok(false),
                },
            };
            self.tables.insert(schema.name.clone(), decision);
        }
        Ok(true)
    }

    fn decide(
        &mut self,
        connection: &Connection,
        schema: &TableSchema,
        plan: &TablePlan,
        runs: Runs,
        trials: &mut usize,
    ) -> Result<Option<Result<Placeholder, String>>, SqliteError> {
        let sql = definition(connection, &schema.name)?;
        let create = sql.first().map(String::as_str).unwrap_or_default();
        let holder = match Placeholder::read(connection, schema, plan, create)? {
            Ok(holder) => holder,
            Err(reason) => return Ok(Some(Err(reason))),
        };
        let mut hasher = blake3::Hasher::new();
        if is_installed(connection, schema, plan, &holder, runs)? {
            return Ok(Some(Ok(holder)));
        }
        let texts = statements(plan, &holder, twins::NUMBER, runs);
        for text in sql.iter().chain(texts.iter().map(|(_, text)| text)) {
            hasher.update(text.as_bytes()).update(&[0]);
        }
        let key = first_16(&hasher);
        let result = match self.tried.get(&key) {
            Some(result) => result.clone(),
            None if *trials == 0 => return Ok(None),
            None => {
                *trials -= 1;
                let sample = if holder.checked.is_empty() { None } else { read_sample(connection, schema)? };
                let result = trial::run(&Subject { schema, plan, holder: &holder, runs, sql, sample });
                self.tried.insert(key, result.clone());
                result
            }
        };
        Ok(Some(result.map(|()| holder)))
    }
}

/// Whether the very triggers that would be tried stand in the file: they passed when they were made, for another definition
/// of the table or another slot has other triggers.
fn is_installed(
    connection: &Connection,
    schema: &TableSchema,
    plan: &TablePlan,
    holder: &Placeholder,
    runs: Runs,
) -> Result<bool, SqliteError> {
    let mut statement = connection.prepare_cached(
        "SELECT name, sql FROM main.sqlite_master WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE \
         AND name GLOB '_litemesh_*'",
    )?;
    let rows = statement.query_map([&schema.name], |row| Ok((text(row, 0)?, text(row, 1)?)))?;
    let present: BTreeMap<String, String> = rows.collect::<rusqlite::Result<_>>()?;
    let Some(number) = present.keys().find_map(|name| triggers::number_of(name)) else { return Ok(false) };
    let wanted = statements(plan, holder, number, runs);
    Ok(wanted.iter().all(|(name, sql)| present.get(name) == Some(sql)))
}

/// CREATE TABLE and every CREATE INDEX of a table.
fn definition(connection: &Connection, table: &str) -> Result<Vec<String>, SqliteError> {
    let mut statement = connection.prepare_cached(
        "SELECT sql FROM main.sqlite_master WHERE tbl_name = ?1 COLLATE NOCASE AND type IN ('table', 'index') \
         AND sql IS NOT NULL ORDER BY type = 'index', name",
    )?;
    let texts = statement.query_map([table], |row| text(row, 0))?;
    Ok(texts.collect::<rusqlite::Result<_>>()?)
}

fn read_sample(connection: &Connection, schema: &TableSchema) -> Result<Option<Vec<Value>>, SqliteError> {
    let columns: Vec<String> = schema.columns.iter().map(|column| quote(&column.name)).collect();
    let sql = format!("SELECT {} FROM main.{} LIMIT 1", columns.join(", "), quote(&schema.name));
    let sample = connection.query_row(&sql, [], |row| value::read_columns(row, 0, columns.len())).optional()?;
    Ok(sample)
}
