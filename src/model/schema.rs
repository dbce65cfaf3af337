//! The replicated part of an app's schema, as plain data: what identity, merge and apply need to know of a table.
//!
//! Invariant: derived from the file alone (plus the config's overrides), so equal files give equal schemas.
//! Callers: sqlite reads it from a file; merge and node use it.

/// All replicated tables of one database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatabaseSchema {
    /// Name of the database in the cluster.
    pub database: String,
    /// Replicated tables, by name in ascending order.
    pub tables: Vec<TableSchema>,
    /// Tables that are not replicated, with the reason a person reads.
    pub left_out: Vec<(String, String)>,
    /// Fingerprint of the replicated tables' definitions.
    pub fingerprint: [u8; 16],
}

/// How a row of a table is told from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Ids made by SQLite (`INTEGER PRIMARY KEY`): identity by birth, the id is a claim. Holds the column's position.
    Surrogate(usize),
    /// The declared key is the identity: column positions in key order.
    Keyed(Vec<usize>),
    /// No key at all: identity by birth, the rowid is a claim that the app does not see.
    Rowid,
}

/// One replicated table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSchema {
    /// Name as declared.
    pub name: String,
    /// Stored columns (generated ones are left out), in declared order.
    pub columns: Vec<Column>,
    /// How rows are told apart.
    pub identity: Identity,
    /// Declared foreign keys, and references that the config declares.
    pub foreign_keys: Vec<ForeignKey>,
    /// UNIQUE constraints and indexes other than the key itself.
    pub unique: Vec<UniqueKey>,
    /// What becomes of rows with the same UNIQUE key, as far as the schema alone tells (R8): [`super::Rule::UniqueSuffix`]
    /// for tables that hold accounts, else [`super::Rule::UniqueMerge`]. A replicated rule comes before it.
    pub collisions: super::Rule,
    /// Whether the table is WITHOUT ROWID.
    pub without_rowid: bool,
}

/// One stored column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name as declared.
    pub name: String,
    /// Declared type, verbatim.
    pub declared_type: String,
    /// Whether NULL is refused.
    pub not_null: bool,
    /// What rows show that were written before the column was added: its constant default, else NULL.
    pub default: super::Value,
}

/// One reference from a table's columns to another row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignKey {
    /// Positions of the referring columns.
    pub columns: Vec<usize>,
    /// Database of the parent table, when it is another one (declared in the config).
    pub database: Option<String>,
    /// Parent table.
    pub parent: String,
    /// Parent columns, as many as `columns`.
    pub parent_columns: Vec<String>,
    /// A live row keeps its parent alive (NOT NULL, CASCADE, RESTRICT, NO ACTION). Else a dead parent shows as NULL
    /// (SET NULL) or, for a reference that only the config declares, as the id it had.
    pub keeps_parent: bool,
    /// Declared by the schema (enforced by SQLite) rather than by the config.
    pub declared: bool,
}

/// One UNIQUE constraint or index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueKey {
    /// Name of the index.
    pub name: String,
    /// Positions and collations of its columns; empty where `exact` is false.
    pub columns: Vec<(usize, Collation)>,
    /// False for partial indexes and indexes over expressions: such a key is known to SQLite only.
    pub exact: bool,
    /// How SQLite is asked for an inexact key; `None` where it cannot be asked (functions that only the app has).
    pub computed: Option<ComputedKey>,
}

/// A key that SQLite computes from a row.
#[derive(Clone, Debug)]
pub struct ComputedKey {
    /// What it is computed by: keys with the same text are the same.
    pub text: String,
    /// Columns that its terms name, ascending.
    pub terms: Vec<usize>,
    /// Columns that it depends on, its condition included, ascending.
    pub depends_on: Vec<usize>,
    /// The function.
    pub function: std::sync::Arc<dyn KeyFunction>,
}

impl PartialEq for ComputedKey {
    fn eq(&self, other: &ComputedKey) -> bool {
        self.text == other.text
    }
}

impl Eq for ComputedKey {}

/// Computes a key from a row's stored columns.
pub trait KeyFunction: std::fmt::Debug + Send + Sync {
    /// The key, in a form in which equal keys are equal values; `None` for a row that is not in the index or has a NULL in
    /// its key, and for a row that SQLite does not take.
    fn key(&self, image: &[super::Value]) -> Option<Vec<super::Value>>;
}

/// SQLite's built-in collations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collation {
    /// Bytes.
    Binary,
    /// ASCII letters without case.
    NoCase,
    /// Without trailing spaces.
    RTrim,
}

impl Collation {
    /// Brings values that SQLite holds equal under the collation to one form.
    pub fn fold(self, value: super::Value) -> super::Value {
        use super::Value;
        match value {
            Value::Text(mut bytes) => {
                match self {
                    Collation::Binary => {}
                    Collation::NoCase => bytes.make_ascii_lowercase(),
                    Collation::RTrim => {
                        while bytes.last() == Some(&b' ') {
                            bytes.pop();
                        }
                    }
                }
                Value::Text(bytes)
            }
            Value::Real(bits) => {
                let value = f64::from_bits(bits);
                let whole = value as i64;
                // Only values that convert back exactly; 2^63 does not.
                if whole as f64 == value && whole != i64::MAX { Value::Integer(whole) } else { Value::Real(bits) }
            }
            other => other,
        }
    }
}

impl DatabaseSchema {
    /// The replicated table of this name (ASCII case ignored, as SQLite does).
    pub fn table(&self, name: &str) -> Option<&TableSchema> {
        self.tables.iter().find(|table| table.name.eq_ignore_ascii_case(name))
    }
}

impl TableSchema {
    /// Position of a column by name (ASCII case ignored, as SQLite does).
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// Whether the table holds accounts: a column whose name says password, token or secret.
    pub fn holds_accounts(&self) -> bool {
        const MARKS: [&str; 7] = ["password", "passwd", "pwhash", "pw_hash", "token", "secret", "api_key"];
        self.columns.iter().any(|column| {
            let name = column.name.to_ascii_lowercase();
            MARKS.iter().any(|mark| name.contains(mark))
        })
    }

    /// Column positions that form the key; empty for a table without one.
    pub fn key_columns(&self) -> Vec<usize> {
        match &self.identity {
            Identity::Surrogate(column) => vec![*column],
            Identity::Keyed(columns) => columns.clone(),
            Identity::Rowid => Vec::new(),
        }
    }

    /// The key of a row: its key columns' values, or the rowid where there is no key.
    pub fn key_of(&self, image: &[super::Value], rowid: Option<i64>) -> super::Key {
        match &self.identity {
            Identity::Rowid => vec![super::Value::Integer(rowid.unwrap_or_default())],
            Identity::Surrogate(_) | Identity::Keyed(_) => {
                self.key_columns().iter().map(|&position| image[position].clone()).collect()
            }
        }
    }
}
