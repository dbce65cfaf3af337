//! Tables and rows to measure with: any number of columns and UNIQUE keys, values by a fixed draw.
//!
//! The usual row has 10 columns: the id, five whole numbers and four random texts of 40 letters, about 170 bytes, as the
//! measurements of others that the budgets are compared with. Random text does not compress well: real rows do better.
//! Invariant: row `number` has the same values in every run and on both sides of a comparison. Caller: every item.

use rusqlite::Connection;
use rusqlite::types::Value;

use crate::Failure;

/// A table's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Columns, the id among them: at least 3.
    pub(crate) columns: usize,
    /// UNIQUE indexes, each over one of the whole numbers.
    pub(crate) unique: usize,
    /// Rows refer to one of [`PARENTS`] rows of another table.
    pub(crate) refers: bool,
}

/// Rows of the table that is referred to.
pub(crate) const PARENTS: u64 = 100;

pub(crate) const DATABASE: &str = "scouting";
pub(crate) const TABLE: &str = "scouting_data";

/// 10 columns, no UNIQUE key, no reference.
pub(crate) const USUAL: Shape = Shape { columns: 10, unique: 0, refers: false };

/// Bytes of a usual row's values as plain data.
pub(crate) const RAW: u64 = 8 + 5 * 2 + 4 * 40;

impl Shape {
    /// Whole numbers beside the id.
    fn numbers(self) -> usize {
        (self.columns - 1).div_ceil(2)
    }

    /// Names of all columns but the id.
    pub(crate) fn names(self) -> Vec<String> {
        let kind = |at: usize| if at < self.numbers() { 'n' } else { 't' };
        (0..self.columns - 1).map(|at| format!("{}{at}", kind(at))).collect()
    }

    pub(crate) fn schema(self) -> String {
        let typed = |name: &String| format!("{name} {}", if name.starts_with('n') { "INTEGER" } else { "TEXT" });
        let mut columns: Vec<String> = self.names().iter().map(typed).collect();
        let mut sql = String::new();
        if self.refers {
            sql += "CREATE TABLE team (id INTEGER PRIMARY KEY, name TEXT NOT NULL);\n";
            columns[0] += " NOT NULL REFERENCES team(id)";
        }
        sql += &format!("CREATE TABLE {TABLE} (id INTEGER PRIMARY KEY, {});\n", columns.join(", "));
        for at in 0..self.unique {
            sql += &format!("CREATE UNIQUE INDEX {TABLE}_n{at} ON {TABLE} (n{at});\n");
        }
        sql
    }

    /// `INSERT INTO …` of all columns; the id first, NULL where SQLite shall choose.
    pub(crate) fn insert(self) -> String {
        format!("INSERT INTO {TABLE} VALUES ({})", vec!["?"; self.columns].join(", "))
    }

    /// The values of row `number`, without the id.
    pub(crate) fn row(self, number: u64) -> Vec<Value> {
        let mut state = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let mut values = Vec::with_capacity(self.columns - 1);
        for at in 0..self.columns - 1 {
            values.push(if at >= self.numbers() {
                let letter = |_| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[draw() as usize % 36]);
                Value::Text((0..40).map(letter).collect())
            } else if at < self.unique {
                // Nobody else has it, and it does not ascend.
                Value::Integer((number.wrapping_mul(2_654_435_761) % (1 << 32)) as i64)
            } else if at == 0 && self.refers {
                Value::Integer((number % PARENTS) as i64 + 1)
            } else {
                Value::Integer((draw() % 200) as i64)
            });
        }
        values
    }

    /// The same with the id before them.
    pub(crate) fn whole_row(self, id: Option<i64>, number: u64) -> Vec<Value> {
        let mut values = vec![id.map_or(Value::Null, Value::Integer)];
        values.extend(self.row(number));
        values
    }
}

/// A connection as an app opens it.
pub(crate) fn open(path: &std::path::Path, synchronous: &str) -> Result<Connection, rusqlite::Error> {
    let app = Connection::open(path)?;
    app.busy_timeout(std::time::Duration::from_secs(10))?;
    app.execute_batch(&format!("PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous};"))?;
    Ok(app)
}

/// A file with empty tables.
pub(crate) fn make(path: &std::path::Path, schema: &str) -> Result<(), rusqlite::Error> {
    open(path, "FULL")?.execute_batch(schema)
}

/// Writes the rows that others refer to.
pub(crate) fn write_parents(app: &Connection) -> Result<(), rusqlite::Error> {
    let filled = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {PARENTS}) \
         INSERT INTO team SELECT i, 'team ' || i FROM n"
    );
    app.execute_batch(&filled)
}

/// How rows get their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ids {
    /// SQLite chooses.
    Free,
    /// The app says: the row's number, less this.
    Less(u64),
}

/// Inserts rows `from..to` in one transaction.
pub(crate) fn insert_rows(
    app: &mut Connection,
    shape: Shape,
    rows: std::ops::Range<u64>,
    ids: Ids,
) -> Result<(), Failure> {
    let transaction = app.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    {
        let mut statement = transaction.prepare_cached(&shape.insert())?;
        for number in rows {
            let id = match ids {
                Ids::Free => None,
                Ids::Less(shift) => Some((number - shift) as i64),
            };
            statement.execute(rusqlite::params_from_iter(shape.whole_row(id, number)))?;
        }
    }
    Ok(transaction.commit()?)
}
