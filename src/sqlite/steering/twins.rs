//! Two copies of one table in memory, a plain and a steered one, that must answer every statement alike.
//!
//! Invariant: touches no file; a difference is an error in words. Callers: trial.

use std::collections::BTreeSet;

use rusqlite::{Connection, params_from_iter};

use super::super::quote::quote;
use super::super::{outbox, triggers, value};
use super::{RUN, Runs, Subject, arm, create, left, statements};
use crate::model::Value;

/// The number that tables have in trials.
pub(super) const NUMBER: i64 = 1;

/// Rows compared after each statement, and all are counted: what a statement does, it does at the end of the table.
const ROWS: usize = 30;

/// The copies.
pub(super) struct Twins {
    plain: Connection,
    steered: Connection,
    runs: Runs,
    table: String,
    id: String,
    /// What of the rows is compared.
    compared: String,
    /// Every id that a row of the steered copy ever had.
    seen: BTreeSet<i64>,
}

/// What a statement did, ids told by their place among all ids.
#[derive(Debug, PartialEq)]
struct Outcome {
    returned: Result<Vec<Option<usize>>, String>,
    changes: i64,
    last: Option<usize>,
    autocommit: bool,
    count: i64,
    rows: Vec<Vec<Value>>,
}

impl Outcome {
    /// What differs, in words.
    fn difference(&self, steered: &Outcome) -> String {
        match (&self.returned, &steered.returned) {
            (Ok(_), Err(error)) => return format!("its result (refused: {error})"),
            (Err(error), Ok(_)) => return format!("its result (not refused: {error})"),
            (Err(plain), Err(error)) if plain != error => return format!("its result ({error} instead of {plain})"),
            (Ok(plain), Ok(steered)) if plain != steered => return "the rows it returns".to_owned(),
            _ => {}
        }
        match () {
            () if self.changes != steered.changes => "changes()".to_owned(),
            () if self.last != steered.last => "last_insert_rowid()".to_owned(),
            () if self.autocommit != steered.autocommit => "the end of the transaction".to_owned(),
            () => format!("the table's rows ({} instead of {})", steered.count, self.count),
        }
    }
}

impl Twins {
    /// Builds both, empty.
    pub(super) fn new(subject: &Subject<'_>, id: &str) -> Result<Twins, String> {
        let apart = |error: rusqlite::Error| format!("it cannot be built apart from its file ({error})");
        let (plain, steered) = (build(subject).map_err(apart)?, build(subject).map_err(apart)?);
        install(&steered, subject).map_err(|error| format!("its triggers cannot be made ({error})"))?;
        Ok(Twins {
            plain,
            steered,
            runs: subject.runs,
            table: subject.plan.table.clone(),
            id: id.to_owned(),
            compared: "1".to_owned(),
            seen: BTreeSet::new(),
        })
    }

    /// Compares those of these columns whose default depends neither on the time nor on dice.
    pub(super) fn compare(&mut self, table: &str, columns: &[&str]) {
        let steady = columns.iter().filter(|column| !is_volatile(&self.plain, table, column));
        let list: Vec<String> = steady.map(|column| quote(column)).collect();
        if !list.is_empty() {
            self.compared = list.join(", ");
        }
    }

    /// The plain copy alone.
    pub(super) fn plain(&self) -> &Connection {
        &self.plain
    }

    /// Runs a statement on both and compares. Gives the ids that are new in the steered copy.
    pub(super) fn step(&mut self, what: &str, sql: &str, values: &[Value]) -> Result<Vec<i64>, String> {
        let before = ids(&self.steered, &self.table, &self.id).map_err(|error| error.to_string())?;
        let [plain, steered] = [&self.plain, &self.steered].map(|connection| self.outcome(connection, sql, values));
        let (plain, steered) = (plain.map_err(|e| e.to_string())?, steered.map_err(|e| e.to_string())?);
        if plain != steered {
            return Err(format!("{what} differs in {}", plain.difference(&steered)));
        }
        let after = ids(&self.steered, &self.table, &self.id).map_err(|error| error.to_string())?;
        self.seen.extend(&after);
        if !left(&self.steered).map_err(|error| error.to_string())?.is_empty() {
            return Err(format!("{what} leaves a placeholder"));
        }
        Ok(after.into_iter().filter(|id| !before.contains(id)).collect())
    }

    /// The same for a statement whose new ids must be our own.
    pub(super) fn own_step(&mut self, what: &str, sql: &str, values: &[Value]) -> Result<(), String> {
        let foreign = self.step(what, sql, values)?.into_iter().find(|id| !self.runs.owns(*id));
        foreign.map_or(Ok(()), |id| Err(format!("{what} makes the id {id}, which is another node's")))
    }

    /// The greatest id that the steered copy ever showed.
    pub(super) fn greatest(&self) -> i64 {
        self.seen.iter().next_back().copied().unwrap_or_default()
    }

    /// Puts a row above all others, at an id whose next one is not ours, as if it had come from another node.
    pub(super) fn foreign_row(&mut self, columns: &[String], values: &[Value]) -> Result<(), String> {
        let names: String = columns.iter().map(|column| format!(", {column}")).collect();
        let above = self.greatest() + 1;
        let foreign = (above..above + RUN).find(|id| !self.runs.owns(id + 1)).unwrap_or(above);
        for (connection, id) in [(&self.plain, self.last_plain()? + 1), (&self.steered, foreign)] {
            let sql =
                format!("INSERT INTO {} ({}{names}) VALUES ({id}{})", self.table, self.id, ", ?".repeat(columns.len()));
            connection.execute(&sql, params_from_iter(values.iter().map(value::Bound))).map_err(|e| e.to_string())?;
        }
        self.seen.insert(foreign);
        Ok(())
    }

    /// Marks are about rows that were there, and about none else.
    pub(super) fn check_marks(&self) -> Result<(), String> {
        let read = || -> rusqlite::Result<Vec<i64>> {
            let mut statement = self.steered.prepare("SELECT k0 FROM _litemesh_outbox")?;
            let keys = statement.query_map([], |row| row.get(0))?;
            keys.collect()
        };
        let keys = read().map_err(|error| error.to_string())?;
        let strange = keys.into_iter().find(|id| !self.seen.contains(id));
        strange.map_or(Ok(()), |id| Err(format!("a mark tells of {id}, which never was a row's id")))
    }

    fn last_plain(&self) -> Result<i64, String> {
        let all = ids(&self.plain, &self.table, &self.id).map_err(|error| error.to_string())?;
        Ok(all.first().copied().unwrap_or_default())
    }

    fn outcome(&self, connection: &Connection, sql: &str, values: &[Value]) -> rusqlite::Result<Outcome> {
        let returned = returned(connection, sql, values);
        let (changes, last): (i64, i64) =
            connection.query_row("SELECT changes(), last_insert_rowid()", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let ids = ids(connection, &self.table, &self.id)?;
        let place = |id: i64| ids.iter().position(|other| *other == id);
        let sql = format!("SELECT {} FROM {} ORDER BY {} DESC LIMIT {ROWS}", self.compared, self.table, self.id);
        let mut statement = connection.prepare_cached(&sql)?;
        let width = statement.column_count();
        let rows =
            statement.query_map([], |row| value::read_columns(row, 0, width))?.collect::<rusqlite::Result<_>>()?;
        Ok(Outcome {
            returned: returned.map(|ids| ids.into_iter().map(place).collect()).map_err(|error| error.to_string()),
            changes,
            last: place(last),
            autocommit: connection.is_autocommit(),
            count: connection
                .prepare_cached(&format!("SELECT count(*) FROM {}", self.table))?
                .query_row([], |row| row.get(0))?,
            rows,
        })
    }
}

/// Runs a statement; its rows hold one id each.
fn returned(connection: &Connection, sql: &str, values: &[Value]) -> rusqlite::Result<Vec<i64>> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params_from_iter(values.iter().map(value::Bound)), |row| row.get(0))?;
    rows.collect()
}

/// The greatest ids, greatest first.
fn ids(connection: &Connection, table: &str, id: &str) -> rusqlite::Result<Vec<i64>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {id} FROM {table} ORDER BY {id} DESC LIMIT {ROWS}"))?;
    let ids = statement.query_map([], |row| row.get(0))?;
    ids.collect()
}

fn build(subject: &Subject<'_>) -> rusqlite::Result<Connection> {
    let connection = Connection::open_in_memory()?;
    // The parents of references are not here.
    connection.execute_batch("PRAGMA foreign_keys = OFF")?;
    for sql in &subject.sql {
        connection.execute_batch(sql)?;
    }
    Ok(connection)
}

fn install(connection: &Connection, subject: &Subject<'_>) -> Result<(), super::SqliteError> {
    outbox::create(connection, "memory")?;
    create(connection)?;
    let steering = statements(subject.plan, subject.holder, NUMBER, subject.runs);
    for (_, sql) in triggers::statements(subject.plan, NUMBER).into_iter().chain(steering) {
        connection.execute_batch(&sql)?;
    }
    arm(connection)
}

fn is_volatile(connection: &Connection, table: &str, column: &str) -> bool {
    let sql = "SELECT dflt_value FROM pragma_table_xinfo(?1) WHERE name = ?2";
    let default: Option<String> = connection.query_row(sql, [table, column], |row| row.get(0)).unwrap_or_default();
    default.is_some_and(|text| text.contains('(') || text.to_ascii_uppercase().starts_with("CURRENT_"))
}
