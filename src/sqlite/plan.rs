//! The SQL texts for one replicated table: how its rows are found, deleted, updated, inserted.
//!
//! Invariant: the app's own conflict clauses never act on our statements (`OR ABORT` overrides them), and no statement is
//! ever `OR REPLACE`. Made by schema; used by triggers, drain, apply, scan, rebuild.

use super::quote::quote;
use crate::model::{Collation, Identity, Key, TableSchema, Value};

/// Columns whose equality makes an insert evict another row under `OR REPLACE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConflictKey {
    /// (column, collation of the index).
    pub(super) columns: Vec<(String, String)>,
    /// Whether it is the table's identity.
    pub(super) is_key: bool,
    /// Whether an update of any column may change what is compared: a generated column is among them, or the index is
    /// partial.
    pub(super) any_update: bool,
    /// The WHERE of a partial index, verbatim: it speaks of the rows that are in the way.
    pub(super) partial: Option<String>,
}

/// Which columns may collide with other rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Watched {
    /// These (none: only the key itself can).
    Columns(Vec<usize>),
    /// Any: the table has a UNIQUE index that only SQLite can evaluate.
    All,
}

/// How SQLite converts what is stored in a key column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyKind {
    /// Integers compare equal only to themselves.
    Integer,
    /// Texts compare equal only to themselves.
    Text,
    /// Different values may compare equal (1 and 1.0, `a` and `A`): read and compare.
    Loose,
}

/// Statements and names of one table.
#[derive(Clone, Debug)]
pub(super) struct TablePlan {
    /// Quoted name.
    pub(super) table: String,
    /// The column that is the rowid, where there is one.
    pub(super) alias: Option<String>,
    /// Quoted key columns (or the rowid).
    pub(super) key: Vec<String>,
    /// UNIQUE keys that triggers can compare, the declared primary key among them.
    pub(super) conflicts: Vec<ConflictKey>,
    /// Names of UNIQUE indexes that they cannot (expressions).
    pub(super) blind: Vec<String>,
    /// Columns that may collide with other rows.
    pub(super) watched: Watched,
    /// All stored columns, quoted, joined by commas.
    pub(super) columns: String,
    /// Number of stored columns.
    pub(super) width: usize,
    /// Stored columns of the row with a key.
    pub(super) select: String,
    /// Deletes the row with a key.
    pub(super) delete: String,
    /// Sets all columns that are not in the key (`?n+1…`) where the key is `?1…?n`; `None` where there are none.
    pub(super) update: Option<String>,
    /// Positions of the columns that `update` sets.
    pub(super) updated: Vec<usize>,
    /// Inserts all stored columns (behind the rowid, in a table without a key).
    pub(super) insert: String,
    /// Whether `insert` and the key take a rowid.
    pub(super) by_rowid: bool,
    kinds: Vec<KeyKind>,
    collations: Vec<Collation>,
}

impl TablePlan {
    /// Statements for a table.
    pub(super) fn new(
        schema: &TableSchema,
        rowid: Option<String>,
        alias: Option<String>,
        (conflicts, blind): (Vec<ConflictKey>, Vec<String>),
        key_collations: &[Collation],
    ) -> TablePlan {
        let table = quote(&schema.name);
        let by_rowid = schema.identity == Identity::Rowid;
        let key_columns = schema.key_columns();
        let name = |position: &usize| quote(&schema.columns[*position].name);
        let key: Vec<String> =
            if by_rowid { rowid.iter().cloned().collect() } else { key_columns.iter().map(name).collect() };
        let collations = if by_rowid { vec![Collation::Binary] } else { key_collations.to_vec() };
        let key_condition = (key.iter().zip(&collations).enumerate())
            .map(|(i, (column, collation))| format!("{column} = ?{}{}", i + 1, collate(*collation)))
            .collect::<Vec<_>>()
            .join(" AND ");
        let all: Vec<String> = schema.columns.iter().map(|column| quote(&column.name)).collect();
        let columns = all.join(", ");
        let updated: Vec<usize> = (0..all.len()).filter(|position| !key_columns.contains(position)).collect();
        let set: Vec<String> =
            updated.iter().enumerate().map(|(i, p)| format!("{} = ?{}", all[*p], key.len() + i + 1)).collect();
        let update = (!set.is_empty())
            .then(|| format!("UPDATE OR ABORT main.{table} SET {} WHERE {key_condition}", set.join(", ")));
        let mut inserted = all.clone();
        if by_rowid {
            inserted.insert(0, key[0].clone());
        }
        let marks = (1..=inserted.len()).map(|i| format!("?{i}")).collect::<Vec<_>>().join(", ");
        let kinds = if by_rowid {
            vec![KeyKind::Integer]
        } else {
            key_columns
                .iter()
                .zip(&collations)
                .map(|(p, collation)| key_kind(&schema.columns[*p].declared_type, *collation))
                .collect()
        };
        TablePlan {
            select: format!("SELECT {columns} FROM main.{table} WHERE {key_condition}"),
            delete: format!("DELETE FROM main.{table} WHERE {key_condition}"),
            insert: format!("INSERT OR ABORT INTO main.{table} ({}) VALUES ({marks})", inserted.join(", ")),
            watched: watched(schema),
            width: all.len(),
            table,
            alias,
            key,
            conflicts,
            blind,
            columns,
            update,
            updated,
            by_rowid,
            kinds,
            collations,
        }
    }

    /// Whether the row that SQLite finds under this key surely has exactly this key.
    pub(super) fn finds_exactly(&self, key: &Key) -> bool {
        self.kinds.iter().zip(key).all(|(kind, value)| match (kind, value) {
            (KeyKind::Integer, Value::Integer(_)) | (KeyKind::Text, Value::Text(_)) => true,
            (KeyKind::Integer | KeyKind::Text | KeyKind::Loose, _) => false,
        })
    }

    /// A page of the table in key order: `?1…?n` is the key to start behind (absent on the first page), the last
    /// parameter the number of rows.
    pub(super) fn page(&self, first: bool) -> String {
        let rowid = if self.by_rowid { format!("{}, ", self.key[0]) } else { String::new() };
        self.page_of(&format!("{rowid}{}", self.columns), first)
    }

    /// The same with the key's columns alone.
    pub(super) fn key_page(&self, first: bool) -> String {
        self.page_of(&self.key.join(", "), first)
    }

    fn page_of(&self, selected: &str, first: bool) -> String {
        let order: Vec<String> =
            self.key.iter().zip(&self.collations).map(|(column, c)| format!("{column}{}", collate(*c))).collect();
        let known: Vec<String> = self.key.iter().map(|column| format!("{column} IS NOT NULL")).collect();
        let behind = if first {
            String::new()
        } else {
            let marks: Vec<String> = (1..=order.len()).map(|i| format!("?{i}")).collect();
            format!("({}) > ({}) AND ", order.join(", "), marks.join(", "))
        };
        let limit = if first { 1 } else { order.len() + 1 };
        format!(
            "SELECT {selected} FROM main.{} WHERE {behind}{} ORDER BY {} LIMIT ?{limit}",
            self.table,
            known.join(" AND "),
            order.join(", ")
        )
    }
}

fn collate(collation: Collation) -> &'static str {
    match collation {
        Collation::Binary => "",
        Collation::NoCase => " COLLATE NOCASE",
        Collation::RTrim => " COLLATE RTRIM",
    }
}

fn key_kind(declared_type: &str, collation: Collation) -> KeyKind {
    let declared = declared_type.to_ascii_uppercase();
    // The rules of SQLite's "Determination Of Column Affinity", as far as they matter here.
    if declared.contains("INT") {
        KeyKind::Integer
    } else if ["CHAR", "CLOB", "TEXT"].iter().any(|word| declared.contains(word)) && collation == Collation::Binary {
        KeyKind::Text
    } else {
        KeyKind::Loose
    }
}

fn watched(schema: &TableSchema) -> Watched {
    if schema.unique.iter().any(|key| !key.exact) {
        return Watched::All;
    }
    let mut columns: Vec<usize> = schema.unique.iter().flat_map(|key| key.columns.iter().map(|(p, _)| *p)).collect();
    columns.sort_unstable();
    columns.dedup();
    Watched::Columns(columns)
}
