//! Keeps the triggers what the app's schema needs, and tells what the app did to its schema.
//!
//! Invariant: triggers and registry change in one transaction; a table whose writes may have gone unseen is flagged for a
//! scan in that same transaction and stays so until the caller has scanned it, whatever crashes in between.
//! Callers: enroll, node (on every wake-up, by [`super::AppFile::refresh_schema`]).

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, TransactionBehavior};

use super::outbox::{self, Registered};
use super::quote::quote;
use super::schema::{self, Layout};
use super::steering::{self, Decisions, Runs};
use super::{AppFile, SqliteError, triggers};
use crate::model::{Identity, TableSchema, Value};

/// What the app did to its schema since it was last acknowledged by [`AppFile::schema_seen`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaChange {
    /// The schema version moved; all else is empty when it did not.
    pub changed: bool,
    /// Replicated tables that were not there before.
    pub new: Vec<String>,
    /// Tables that were replicated and are not any more (dropped, or excluded by the settings).
    pub gone: Vec<String>,
    /// (old name, new name).
    pub renamed: Vec<(String, String)>,
    /// Tables whose columns, keys or references changed.
    pub altered: Vec<String>,
    /// Tables that had lost triggers: writes may have gone unseen.
    pub unguarded: Vec<String>,
    /// Tables without a key, whose rowids a VACUUM may have renumbered.
    pub renumbered: Vec<String>,
}

impl AppFile {
    /// Brings schema and triggers up to date. Costs next to nothing while `PRAGMA schema_version` stands still.
    pub fn refresh_schema(&mut self) -> Result<SchemaChange, SqliteError> {
        self.refresh(Runs::new(self.slot, self.settings.steering_runs))
    }

    /// The same with these runs.
    pub(super) fn refresh(&mut self, runs: Option<Runs>) -> Result<SchemaChange, SqliteError> {
        let same = self.installed && schema::schema_version(&self.connection)? == self.layout.version;
        if same && runs == self.steered {
            return Ok(SchemaChange::default());
        }
        // Trials take their time: before the write lock, not under it, and one table in a call.
        let decided = self.decide_steering(runs)?;
        if same && !decided {
            return Ok(SchemaChange::default());
        }
        let runs = runs.filter(|_| decided);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if !is_enrolled(&transaction)? {
            return Err(SqliteError::NotEnrolled);
        }
        let mut layout = schema::read_layout(&transaction, &self.settings)?;
        let mut registry = outbox::read_registry(&transaction)?;
        // The app may have changed its schema during the trials: that is a change like any other, and its ids stay plain
        // until the next look.
        let same = same && layout.version == self.layout.version;
        let runs = runs.filter(|_| layout.version == self.decisions.version);
        let change = install(&transaction, &layout, &mut registry, runs.map(|runs| (runs, &self.decisions)))?;
        let outbox_width = outbox::width(&transaction)?;
        layout.version = schema::schema_version(&transaction)?;
        transaction.commit()?;
        self.layout = layout;
        self.registry = registry;
        self.outbox_width = outbox_width;
        self.installed = true;
        self.steered = runs;
        Ok(if same { SchemaChange::default() } else { change })
    }

    /// Replicated tables with a trigger of ours that is not as it was written: its text is a part of the file, and a bit of
    /// it can flip. None while the schema moves: then a refresh looks at all of them anyway.
    pub fn rotten_triggers(&self) -> Result<Vec<String>, SqliteError> {
        if !self.installed || schema::schema_version(&self.connection)? != self.layout.version {
            return Ok(Vec::new());
        }
        let present = present_triggers(&self.connection)?;
        let mut rotten = Vec::new();
        for (table, plan) in self.layout.schema.tables.iter().zip(&self.layout.plans) {
            let Some(number) = find_number(table, &self.registry, &present) else { continue };
            let mut wanted = triggers::statements(plan, number);
            if let (Some(runs), Some(Ok(holder))) = (self.steered, self.decisions.tables.get(&table.name)) {
                wanted.extend(steering::statements(plan, holder, number, runs));
            }
            let differs = |(name, sql): &(String, String)| {
                present.get(name).is_some_and(|trigger| trigger.sql != *sql) && !steering::is_end(name)
            };
            if wanted.iter().any(differs) {
                rotten.push(table.name.clone());
            }
        }
        Ok(rotten)
    }

    /// Has the triggers of these tables looked at by the next refresh, and the tables scanned: what a damaged trigger noted
    /// of a write, or did not, nobody knows.
    pub fn distrust_triggers(&mut self, tables: &[String]) -> Result<(), SqliteError> {
        let mut registry = self.registry.clone();
        for entry in registry.values_mut().filter(|entry| !entry.gone && tables.contains(&entry.name)) {
            entry.scan = true;
        }
        self.store_registry(registry)?;
        self.installed = false;
        Ok(())
    }

    /// Whether [`AppFile::refresh_schema`] must be called again, though the schema stands still, until all tables that
    /// can be are steered.
    pub fn steering_pending(&self) -> bool {
        Runs::new(self.slot, self.settings.steering_runs) != self.steered
    }

    /// Decides in a read snapshot which tables are steered. `false`: not for all tables yet.
    fn decide_steering(&mut self, runs: Option<Runs>) -> Result<bool, SqliteError> {
        let Some(runs) = runs else { return Ok(true) };
        let snapshot = self.connection.unchecked_transaction()?;
        let layout = schema::read_layout(&snapshot, &self.settings)?;
        if !self.decisions.make(&snapshot, &layout, &self.settings, Ok(runs), 1)? {
            crate::sometimes!("steering: trials go on at the next look");
            return Ok(false);
        }
        for (table, decision) in &self.decisions.tables {
            if let Err(reason) = decision {
                tracing::debug!(table, reason, "the ids of this table are chosen by SQLite alone");
            }
        }
        Ok(true)
    }

    /// Acknowledges what [`AppFile::refresh_schema`] told; until then it is told again after every start.
    pub fn schema_seen(&mut self) -> Result<(), SqliteError> {
        let mut registry = self.registry.clone();
        for entry in registry.values_mut() {
            entry.seen_name = (!entry.gone).then(|| entry.name.clone());
            entry.seen_shape = if entry.gone { Vec::new() } else { entry.shape.clone() };
        }
        self.store_registry(registry)
    }

    /// Replicated tables whose rows may have been written unseen: new ones, those that had lost triggers, those whose
    /// rowids may have been renumbered. They stay listed until [`AppFile::table_scanned`].
    pub fn tables_to_scan(&self) -> Vec<String> {
        self.registry.values().filter(|entry| entry.scan && !entry.gone).map(|entry| entry.name.clone()).collect()
    }

    /// Takes a table off the list of [`AppFile::tables_to_scan`].
    pub fn table_scanned(&mut self, table: &str) -> Result<(), SqliteError> {
        let mut registry = self.registry.clone();
        for entry in registry.values_mut().filter(|entry| entry.name.eq_ignore_ascii_case(table)) {
            entry.scan = false;
        }
        self.store_registry(registry)
    }

    fn store_registry(&mut self, registry: BTreeMap<i64, Registered>) -> Result<(), SqliteError> {
        if registry == self.registry {
            return Ok(());
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for (number, entry) in &registry {
            if self.registry.get(number) != Some(entry) {
                outbox::write_registered(&transaction, *number, entry)?;
            }
        }
        transaction.commit()?;
        self.registry = registry;
        Ok(())
    }
}

/// Whether the file carries litemesh's tables.
pub(super) fn is_enrolled(connection: &Connection) -> Result<bool, SqliteError> {
    let tables: i64 = connection.query_row(
        "SELECT count(*) FROM main.sqlite_master WHERE type = 'table' \
         AND name IN ('_litemesh_meta', '_litemesh_outbox', '_litemesh_tables')",
        [],
        |row| row.get(0),
    )?;
    Ok(tables == 3)
}

/// A trigger of ours as the file has it.
pub(super) struct Present {
    table: String,
    sql: String,
}

pub(super) fn present_triggers(connection: &Connection) -> Result<BTreeMap<String, Present>, SqliteError> {
    let mut statement = connection.prepare(
        "SELECT name, tbl_name, sql FROM main.sqlite_master WHERE type = 'trigger' AND name GLOB '_litemesh_*'",
    )?;
    let rows = statement.query_map([], |row| {
        Ok((schema::text(row, 0)?, Present { table: schema::text(row, 1)?, sql: schema::text(row, 2)? }))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Makes triggers and registry what the layout needs.
fn install(
    connection: &Connection,
    layout: &Layout,
    registry: &mut BTreeMap<i64, Registered>,
    steering: Option<(Runs, &Decisions)>,
) -> Result<SchemaChange, SqliteError> {
    steering::create(connection)?;
    let present = present_triggers(connection)?;
    let before = registry.clone();
    let mut wanted: BTreeMap<String, String> = BTreeMap::new();
    let mut change = SchemaChange { changed: true, ..SchemaChange::default() };
    let mut alive: BTreeSet<i64> = BTreeSet::new();
    for (table, plan) in layout.schema.tables.iter().zip(&layout.plans) {
        let known = find_number(table, registry, &present).filter(|number| {
            registry[number].keys == key_bytes(table) || is_unchanged(&triggers::statements(plan, *number), &present)
        });
        let number = known.unwrap_or_else(|| registry.keys().next_back().map_or(1, |last| last + 1));
        let statements = triggers::statements(plan, number);
        let guarded = triggers::VITAL_KINDS
            .iter()
            .all(|kind| present.get(&triggers::name(number, kind)).is_some_and(|trigger| trigger.table == table.name));
        register(table, number, guarded, registry);
        if known.is_some() && !guarded {
            change.unguarded.push(table.name.clone());
        }
        alive.insert(number);
        wanted.extend(statements);
        if let Some((runs, decisions)) = steering
            && let Some(Ok(holder)) = decisions.tables.get(&table.name)
        {
            wanted.extend(steering::statements(plan, holder, number, runs));
        }
    }
    for (number, entry) in registry.iter_mut() {
        entry.gone |= !alive.contains(number);
    }
    tell(registry, &mut change);
    change.renumbered = schema::keyless_tables(&layout.schema).into_iter().map(str::to_owned).collect();
    outbox::widen(connection, layout.plans.iter().map(|plan| plan.key.len()).max().unwrap_or(1))?;
    for (name, trigger) in &present {
        if wanted.get(name) != Some(&trigger.sql) && !steering::is_end(name) {
            connection.execute_batch(&format!("DROP TRIGGER main.{}", quote(name)))?;
        }
    }
    for (name, sql) in &wanted {
        if present.get(name).map(|trigger| &trigger.sql) != Some(sql) {
            connection.execute_batch(sql)?;
        }
    }
    for (number, entry) in registry.iter() {
        if before.get(number) != Some(entry) {
            outbox::write_registered(connection, *number, entry)?;
        }
    }
    match steering {
        Some(_) => steering::arm(connection)?,
        None => steering::disarm(connection)?,
    }
    Ok(change)
}

/// The number of a table: by its triggers, which follow a rename; else by its name, for triggers that were lost.
fn find_number(
    table: &TableSchema,
    registry: &BTreeMap<i64, Registered>,
    present: &BTreeMap<String, Present>,
) -> Option<i64> {
    let numbers = |name: &str| {
        present
            .iter()
            .filter(|(_, trigger)| trigger.table.eq_ignore_ascii_case(name))
            .filter_map(|(trigger, _)| triggers::number_of(trigger))
            .find(|number| registry.contains_key(number))
    };
    let carried = |number: i64| present.keys().any(|name| triggers::number_of(name) == Some(number));
    numbers(&table.name).or_else(|| {
        let by_name = registry.iter().find(|(_, entry)| !entry.gone && entry.name.eq_ignore_ascii_case(&table.name));
        by_name.map(|(number, _)| *number).filter(|number| !carried(*number))
    })
}

/// Whether the file's triggers are the ones wanted, so that the marks they wrote mean what new ones will.
fn is_unchanged(statements: &[(String, String)], present: &BTreeMap<String, Present>) -> bool {
    statements
        .iter()
        .take(triggers::VITAL_KINDS.len())
        .all(|(name, sql)| present.get(name).is_some_and(|trigger| trigger.sql == *sql))
}

fn register(table: &TableSchema, number: i64, guarded: bool, registry: &mut BTreeMap<i64, Registered>) {
    let shape = schema::table_shape(table, false);
    let entry = registry.entry(number).or_insert_with(|| Registered {
        name: table.name.clone(),
        keys: Vec::new(),
        shape: Vec::new(),
        seen_name: None,
        seen_shape: Vec::new(),
        scan: true,
        gone: false,
    });
    // Another definition may have come with rows that no trigger saw (a rebuilt table), or with hints that were missing
    // (a new UNIQUE index); any change of the schema may have been a VACUUM, which renumbers rowids.
    entry.scan |= !guarded || entry.shape != shape || table.identity == Identity::Rowid || entry.gone;
    entry.name = table.name.clone();
    entry.keys = key_bytes(table);
    entry.shape = shape;
    entry.gone = false;
}

/// Compares the registry with what was last acknowledged.
fn tell(registry: &BTreeMap<i64, Registered>, change: &mut SchemaChange) {
    let here: BTreeSet<&str> = registry.values().filter(|e| !e.gone).map(|e| e.name.as_str()).collect();
    let seen: BTreeSet<&str> = registry.values().filter_map(|e| e.seen_name.as_deref()).collect();
    for entry in registry.values() {
        match (&entry.seen_name, entry.gone) {
            (Some(name), true) if !here.contains(name.as_str()) => change.gone.push(name.clone()),
            (Some(name), false) if *name != entry.name => {
                change.renamed.push((name.clone(), entry.name.clone()));
                if entry.seen_shape != entry.shape {
                    change.altered.push(entry.name.clone());
                }
            }
            (Some(_), false) if entry.seen_shape != entry.shape => change.altered.push(entry.name.clone()),
            // A known table under a new number: its key changed.
            (None, false) if seen.contains(entry.name.as_str()) => change.altered.push(entry.name.clone()),
            (None, false) => change.new.push(entry.name.clone()),
            (Some(_) | None, _) => {}
        }
    }
}

fn key_bytes(table: &TableSchema) -> Vec<u8> {
    let mut out = Vec::new();
    for position in table.key_columns() {
        Value::text(&table.columns[position].name).write_canonical(&mut out);
    }
    out
}
