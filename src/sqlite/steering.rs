//! Steering: SQLite's choice of a new row's id is moved into runs of ids that belong to this node, so that two servers
//! that write apart never make the same id.
//!
//! The node with slot `s` owns the ids with `(id / 16) % runs == s % runs`. A BEFORE INSERT trigger runs before SQLite
//! picks the rowid (the greatest there is, plus one): where the next id is not ours, it puts a **placeholder** row at the
//! id below the wanted one, and an AFTER INSERT trigger takes it away in the same statement. Inside a run nothing is done,
//! so about one insert in 16 pays. A high-water mark per table keeps the ids of deleted last rows from being used again.
//!
//! Invariants: the app sees the same results as without, but for the ids' values; no placeholder outlives its statement
//! (should one ever, the next insert or write of the node takes it away, and drain and scan do not see it); no mark about
//! one reaches the log; where anything is doubtful the ids are plain, and collisions are resolved by the merge.
//! - A placeholder holds the new row's own values wherever a constraint looks (NOT NULL, CHECK), so it is refused exactly
//!   where that row is refused; in UNIQUE indexes it holds NULL or a random value. It is not made where a row with the
//!   same UNIQUE key is there (OR IGNORE and UPSERT then insert nothing).
//! - Triggers act only in the schema they were tested in: the greatest rowid of `sqlite_master` is noted, and every object
//!   that an app makes moves it. A new UNIQUE index or trigger of the app thus switches steering off until the node has
//!   looked again, also while no node runs.
//! - No trigger names another table of the app: the app may drop it.
//!
//! What it rests on. Documented: BEFORE triggers run before the row is stored; a new rowid is the greatest plus one (with
//! AUTOINCREMENT also above `sqlite_sequence`); a conflict clause of the statement overrides those in its triggers;
//! `changes()`, `last_insert_rowid()` and RETURNING tell of the statement's own rows. Not documented but so in every
//! version since 3.22, and tested by SQLite itself: in a BEFORE INSERT trigger `NEW.id` is -1 while the id is still to be
//! chosen (the documentation calls it undefined), and the choice is made after the trigger. Therefore every table is tried
//! out before it is steered ([`trial`]), one table in a step of the node; until all are, ids are plain. The app's own library may be another version: nothing newer than 3.22 is used.
//!
//! Known limits. `ALTER TABLE … DROP COLUMN` of a NOT NULL column that is named here is refused while the triggers stand
//! (`steering = false` for the table, or `eject`, lets it pass). TEMP triggers of the app see placeholders. With
//! `foreign_keys` on, a row that refers to an id that never was a row here, and happens to be a placeholder's, is treated
//! as if its parent came and went.
//! Callers: install, preflight, drain, scan, apply.

mod columns;
mod decide;
mod trial;
mod twins;

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};

use super::outbox::{OUTBOX, Registered, TABLE_STRIDE};
use super::plan::TablePlan;
use super::quote::quote;
use super::schema::Layout;
use super::{SqliteError, meta, triggers};
pub(super) use columns::Placeholder;
pub(super) use decide::{Decisions, Subject};

/// Ids in one run.
const RUN: i64 = 16;

/// Ids that a placeholder makes SQLite choose are multiples of this (a divisor of [`RUN`]), so that few inserts have to
/// look whether a placeholder stands.
const STEP: i64 = 4;

/// From here on ids stay plain: nearer to the end of the numbers SQLite chooses otherwise.
const ID_MAX: i64 = 1 << 62;

/// Ids of deleted last rows, by table number; under 0, the greatest rowid of `sqlite_master` that triggers act in.
const HIGH_WATER: &str = "_litemesh_hw";

/// Placeholders that stand, by table number. Empty between statements.
const PLACEHOLDERS: &str = "_litemesh_ph";

/// The last object in `sqlite_master`. It never fires, and stands on a table of ours, so no app drops it.
const END: &str = "_litemesh_0_end";

/// The runs of ids that belong to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Runs {
    /// Number of runs, at least 1.
    count: i64,
    /// Which of them is ours.
    own: i64,
}

impl Runs {
    /// The runs of a slot; `None` where steering is off.
    pub(super) fn new(slot: Option<u32>, count: u32) -> Option<Runs> {
        let slot = slot.filter(|_| count > 0)?;
        Some(Runs { count: i64::from(count), own: i64::from(slot % count) })
    }

    /// Whether an id is ours.
    pub(super) fn owns(&self, id: i64) -> bool {
        id >= 0 && id / RUN % self.count == self.own
    }

    /// SQL: whether the id that an expression gives is ours.
    fn is_own(&self, id: &str) -> String {
        format!("({id}) / {RUN} % {} = {}", self.count, self.own)
    }

    /// SQL: the first id of ours that is not below `x`: `x`, or the start of the first run of ours that ends behind it.
    fn next_own(&self, x: &str) -> String {
        let (stride, start) = (self.count * RUN, self.own * RUN);
        format!("max({x}, ({x} + {}) / {stride} * {stride} + {start})", stride - start - RUN)
    }
}

/// (name, CREATE TRIGGER text) of the triggers that steer a table.
pub(super) fn statements(plan: &TablePlan, holder: &Placeholder, number: i64, runs: Runs) -> Vec<(String, String)> {
    let sql = Sql::new(plan, holder, number, runs);
    let mut all = vec![
        (triggers::name(number, "steer"), sql.steer(plan, holder)),
        (triggers::name(number, "steered"), sql.steered()),
    ];
    if !holder.autoincrement {
        let water = |kind: &str, event: &str, moved: &str| {
            let name = triggers::name(number, kind);
            let text = sql.high_water(&name, event, moved);
            (name, text)
        };
        all.push(water("water", "DELETE", ""));
        all.push(water("water_update", &format!("UPDATE OF {}", sql.id), &format!("OLD.{0} <> NEW.{0} AND ", sql.id)));
    }
    all
}

/// Parts of the trigger texts of one table.
struct Sql {
    number: i64,
    table: String,
    id: String,
    runs: Runs,
    /// The greatest id in the table, 0 in an empty one.
    last: String,
    /// Ids up to here are used up, though no row may have them.
    floor: String,
    autoincrement: bool,
}

impl Sql {
    fn new(plan: &TablePlan, holder: &Placeholder, number: i64, runs: Runs) -> Sql {
        let (table, id) = (plan.table.clone(), plan.key[0].clone());
        // Not max(): inside coalesce SQLite reads the whole table for it.
        let last = format!("coalesce((SELECT {id} FROM {table} ORDER BY {id} DESC LIMIT 1), 0)");
        let floor = if holder.autoincrement {
            format!("coalesce((SELECT seq FROM sqlite_sequence WHERE name = {}), 0)", literal(&holder.table))
        } else {
            format!("coalesce((SELECT id FROM {HIGH_WATER} WHERE number = {number}), 0)")
        };
        Sql { number, table, id, runs, last, floor, autoincrement: holder.autoincrement }
    }

    /// SQL: whether SQLite's own choice is not one of ours, or was used before. Every insert asks this: the table's end is
    /// looked up once.
    fn plain_is_wrong(&self) -> String {
        let Sql { table, id, floor, .. } = self;
        if self.autoincrement {
            return format!("NOT {}", self.runs.is_own(&format!("max({}, {floor}) + 1", self.last)));
        }
        let own = self.runs.is_own(&format!("{id} + 1"));
        format!(
            "coalesce((SELECT CASE WHEN {own} THEN {id} END FROM {table} ORDER BY {id} DESC LIMIT 1), -1) < {floor}"
        )
    }

    /// SQL: the id that SQLite shall choose: the first of ours above all that was used that is a multiple of [`STEP`].
    fn wanted(&self) -> String {
        let wanted = self.runs.next_own("x");
        format!("SELECT {wanted} AS wanted FROM (SELECT ({} + {STEP}) / {STEP} * {STEP} AS x)", self.used())
    }

    /// SQL: up to here ids are used up, by a row or otherwise; never below 0.
    fn used(&self) -> String {
        format!("max({}, {}, 0)", self.last, self.floor)
    }

    /// SQL: the id of the placeholder that stands.
    fn standing(&self) -> String {
        format!("SELECT id FROM {PLACEHOLDERS} WHERE number = {}", self.number)
    }

    /// SQL: takes the marks away that tell of a placeholder's coming and going. They are among the last three: the only
    /// other mark that can stand between them is the new row's own.
    fn unmark(&self, id: &str) -> String {
        format!(
            "DELETE FROM {OUTBOX} WHERE seq > (SELECT seq FROM {OUTBOX} ORDER BY seq DESC LIMIT 1) - 3 \
             AND mark / {TABLE_STRIDE} = {} AND k0 = ({id});",
            self.number
        )
    }

    fn steer(&self, plan: &TablePlan, holder: &Placeholder) -> String {
        let Sql { number, table, id, last, .. } = self;
        let armed = format!(
            "(SELECT rowid FROM sqlite_master ORDER BY rowid DESC LIMIT 1) = \
             (SELECT id FROM {HIGH_WATER} WHERE number = 0)"
        );
        let mut when = vec![
            format!("NEW.{id} = -1"),
            self.plain_is_wrong(),
            armed,
            format!("{} < {ID_MAX}", self.used()),
            format!("NOT EXISTS (SELECT 1 FROM {table} WHERE {id} = -1)"),
        ];
        for conflict in &plan.conflicts {
            when.push(format!("NOT EXISTS (SELECT 1 FROM {table} WHERE {})", triggers::equality(conflict)));
        }
        let columns: Vec<&str> = holder.values.iter().map(|(column, _)| column.as_str()).collect();
        let values: Vec<&str> = holder.values.iter().map(|(_, value)| value.as_str()).collect();
        let lead = |list: Vec<&str>| list.iter().map(|item| format!(", {item}")).collect::<String>();
        let name = quote(&triggers::name(*number, "steer"));
        format!(
            "CREATE TRIGGER {name} BEFORE INSERT ON {table} WHEN {} BEGIN \
             INSERT INTO {table} ({id}{}) VALUES ((SELECT wanted - 1 FROM ({})){}); \
             INSERT INTO {PLACEHOLDERS}(number, id) SELECT {number}, {last} WHERE changes(); END",
            when.join(" AND "),
            lead(columns),
            self.wanted(),
            lead(values),
        )
    }

    fn steered(&self) -> String {
        let Sql { number, table, id, .. } = self;
        let name = quote(&triggers::name(*number, "steered"));
        // Also fired by a placeholder's own insert, which then clears what an earlier one might have left, and by a row that
        // the app itself gives the id -1, for which a placeholder was made in vain.
        let other = format!("{} AND id <> NEW.{id}", self.standing());
        // The id is a multiple of STEP or one below. Not IN: SQLite builds a table of a list, for every row inserted.
        let mask = STEP - 2;
        format!(
            "CREATE TRIGGER {name} AFTER INSERT ON {table} WHEN (NEW.{id} + 1) & {mask} = 0 \
             AND EXISTS (SELECT 1 FROM {PLACEHOLDERS} WHERE number = {number}) BEGIN DELETE FROM {table} WHERE {id} = ({other}); {} DELETE FROM {PLACEHOLDERS} WHERE number = {number}; END",
            self.unmark(&other),
        )
    }

    /// Notes the id of a last row that goes. The id behind it is left out too: the placeholder takes an id that never was
    /// a row's, to which nothing can refer.
    fn high_water(&self, name: &str, event: &str, moved: &str) -> String {
        let Sql { number, table, id, last, floor, .. } = self;
        format!(
            "CREATE TRIGGER {} AFTER {event} ON {table} WHEN {moved}OLD.{id} > {last} AND OLD.{id} >= {floor} \
             AND OLD.{id} < {ID_MAX} BEGIN DELETE FROM {HIGH_WATER} WHERE number = {number}; \
             INSERT INTO {HIGH_WATER}(number, id) VALUES ({number}, OLD.{id} + 1); END",
            quote(name)
        )
    }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Makes the tables where they are missing; in a write transaction.
pub(super) fn create(connection: &Connection) -> Result<(), SqliteError> {
    connection.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS main.{HIGH_WATER}(number INTEGER PRIMARY KEY, id);
         CREATE TABLE IF NOT EXISTS main.{PLACEHOLDERS}(number INTEGER PRIMARY KEY, id);"
    ))?;
    Ok(())
}

/// Whether a trigger is the one that marks the end of the schema; it is no table's.
pub(super) fn is_end(name: &str) -> bool {
    name == END
}

/// Lets the triggers act in the schema as it is now. Call when all else is in place, in the same transaction.
pub(super) fn arm(connection: &Connection) -> Result<(), SqliteError> {
    if armed_at(connection)?.is_some_and(|at| last_object(connection).is_ok_and(|last| last == Some((at, END.into()))))
    {
        return Ok(());
    }
    disarm(connection)?;
    connection
        .execute_batch(&format!("CREATE TRIGGER main.{END} AFTER DELETE ON {HIGH_WATER} WHEN 0 BEGIN SELECT 1; END"))?;
    if let Some((at, name)) = last_object(connection)?
        && name == END
    {
        connection.execute(&format!("INSERT INTO main.{HIGH_WATER}(number, id) VALUES (0, ?1)"), [at])?;
    }
    Ok(())
}

/// No trigger acts any more.
pub(super) fn disarm(connection: &Connection) -> Result<(), SqliteError> {
    connection.execute_batch(&format!("DROP TRIGGER IF EXISTS main.{END}"))?;
    connection.execute(&format!("DELETE FROM main.{HIGH_WATER} WHERE number = 0"), [])?;
    Ok(())
}

fn armed_at(connection: &Connection) -> Result<Option<i64>, SqliteError> {
    let sql = format!("SELECT id FROM main.{HIGH_WATER} WHERE number = 0");
    Ok(connection.query_row(&sql, [], |row| row.get(0)).optional()?)
}

fn last_object(connection: &Connection) -> Result<Option<(i64, String)>, SqliteError> {
    let sql = "SELECT rowid, name FROM main.sqlite_master ORDER BY rowid DESC LIMIT 1";
    Ok(connection.query_row(sql, [], |row| Ok((row.get(0)?, super::schema::text(row, 1)?))).optional()?)
}

/// Placeholders that a statement left: (table number, id). None, as far as is known.
fn left(connection: &Connection) -> Result<Vec<(i64, i64)>, SqliteError> {
    let mut statement = meta::prepare(connection, "SELECT number, id FROM main._litemesh_ph")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The same by table name: rows that are none of the app's.
pub(super) fn leftovers(
    connection: &Connection,
    registry: &BTreeMap<i64, Registered>,
) -> Result<BTreeMap<String, i64>, SqliteError> {
    let named = |(number, id)| Some((registry.get(&number).filter(|entry| !entry.gone)?.name.clone(), id));
    Ok(left(connection)?.into_iter().filter_map(named).collect())
}

/// Takes leftovers away, in a write transaction: then no statement of the app is under way.
pub(super) fn sweep(
    connection: &Connection,
    layout: &Layout,
    registry: &BTreeMap<i64, Registered>,
) -> Result<(), SqliteError> {
    for (table, id) in leftovers(connection, registry)? {
        if let Ok((_, plan)) = layout.find(&table) {
            connection.execute(&plan.delete, [id])?;
        }
        connection.execute("DELETE FROM main._litemesh_ph", [])?;
    }
    Ok(())
}
