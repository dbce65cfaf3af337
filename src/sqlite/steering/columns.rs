//! What a placeholder row of a table holds, or why there can be none.
//!
//! Invariant: whatever a constraint of the table looks at is copied from the new row, so the placeholder passes exactly
//! where that row passes; what a UNIQUE index looks at differs from every row. Callers: decide.

use std::collections::BTreeSet;

use rusqlite::Connection;

use super::super::plan::{ConflictKey, TablePlan};
use super::super::quote::{quote, tokens};
use super::super::schema::text;
use crate::model::{Identity, TableSchema};

/// What a placeholder holds besides its id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Placeholder {
    /// The table's name, as `sqlite_sequence` has it.
    pub(super) table: String,
    /// Whether `sqlite_sequence` keeps the table's high-water mark.
    pub(super) autoincrement: bool,
    /// (quoted column, SQL of its value in the trigger). Columns that are not here get their default.
    pub(super) values: Vec<(String, String)>,
    /// Stored columns that a CHECK names, by position.
    pub(super) checked: BTreeSet<usize>,
}

/// A column as `PRAGMA table_xinfo` tells it, generated ones too.
struct Seen {
    name: String,
    generated: bool,
    not_null: bool,
}

impl Placeholder {
    /// For a table whose ids SQLite makes. The inner error says why its ids stay plain.
    pub(super) fn read(
        connection: &Connection,
        schema: &TableSchema,
        plan: &TablePlan,
        sql: &str,
    ) -> rusqlite::Result<Result<Placeholder, String>> {
        let Identity::Surrogate(id) = schema.identity else {
            return Ok(Err("SQLite does not make its ids".to_owned()));
        };
        if let Some(index) = plan.blind.first() {
            return Ok(Err(format!("the UNIQUE index {index:?} is over an expression")));
        }
        if let Some(reason) = reacting_triggers(connection, &schema.name)? {
            return Ok(Err(reason));
        }
        let seen = read_columns(connection, &schema.name)?;
        let named = names_in_checks(sql);
        let is_named = |name: &str| named.contains(&name.to_ascii_lowercase());
        if is_named(&schema.columns[id].name) {
            return Ok(Err("a CHECK looks at the id".to_owned()));
        }
        if let Some(column) = seen.iter().find(|c| c.generated && (c.not_null || is_named(&c.name))) {
            return Ok(Err(format!("a constraint looks at the generated column {:?}", column.name)));
        }
        let checked = (0..schema.columns.len()).filter(|at| is_named(&schema.columns[*at].name)).collect();
        let values = match values(schema, id, plan, &checked) {
            Ok(values) => values,
            Err(reason) => return Ok(Err(reason)),
        };
        let autoincrement = tokens(sql).any(|token| token.eq_ignore_ascii_case("autoincrement"));
        Ok(Ok(Placeholder { table: schema.name.clone(), autoincrement, values, checked }))
    }
}

/// What the columns hold: copies where a constraint looks, something of their own in UNIQUE indexes.
fn values(
    schema: &TableSchema,
    id: usize,
    plan: &TablePlan,
    checked: &BTreeSet<usize>,
) -> Result<Vec<(String, String)>, String> {
    let copied = |at: usize| schema.columns[at].not_null || checked.contains(&at);
    let mut tokens: BTreeSet<usize> = BTreeSet::new();
    let mut nulls: BTreeSet<usize> = BTreeSet::new();
    for conflict in &plan.conflicts {
        let columns = positions(schema, conflict)
            .ok_or_else(|| format!("the UNIQUE key ({}) is over a generated column", names(conflict)))?;
        nulls.extend(columns.iter().filter(|at| **at != id && !copied(**at)));
        let differs = |at: &usize| *at == id || nulls.contains(at) || tokens.contains(at);
        if columns.iter().any(differs) {
            continue;
        }
        let refers = |at: usize| schema.foreign_keys.iter().any(|key| key.columns.contains(&at));
        let free = columns.iter().filter(|at| !checked.contains(at)).min_by_key(|at| refers(**at));
        tokens.insert(*free.ok_or_else(|| format!("a CHECK looks at the UNIQUE key ({})", names(conflict)))?);
    }
    let value = |at: usize| {
        let column = quote(&schema.columns[at].name);
        let value = match (tokens.contains(&at), nulls.contains(&at), copied(at)) {
            // NULL where the new row has one: what is refused there is refused here.
            (true, _, _) => format!(
                "CASE WHEN NEW.{column} IS NULL THEN NULL ELSE {} END",
                token(&schema.columns[at].declared_type)
            ),
            (false, true, _) => "NULL".to_owned(),
            (false, false, true) => format!("NEW.{column}"),
            (false, false, false) => return None,
        };
        Some((column, value))
    };
    Ok((0..schema.columns.len()).filter(|at| *at != id).filter_map(value).collect())
}

/// SQL of a value that no row has and that a column of this type (STRICT too) stores.
fn token(declared_type: &str) -> &'static str {
    let declared = declared_type.to_ascii_uppercase();
    let is = |words: &[&str]| words.iter().any(|word| declared.contains(word));
    // The rules of SQLite's "Determination Of Column Affinity", in its order.
    if is(&["INT"]) {
        "random()"
    } else if is(&["CHAR", "CLOB", "TEXT"]) {
        "hex(randomblob(16))"
    } else if declared.is_empty() || is(&["BLOB"]) {
        "randomblob(16)"
    } else {
        "random()"
    }
}

fn positions(schema: &TableSchema, conflict: &ConflictKey) -> Option<Vec<usize>> {
    conflict.columns.iter().map(|(name, _)| schema.column(name)).collect()
}

fn names(conflict: &ConflictKey) -> String {
    conflict.columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}

fn read_columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Seen>> {
    let mut statement = connection.prepare_cached("SELECT name, hidden, \"notnull\" FROM pragma_table_xinfo(?1)")?;
    let rows = statement.query_map([table], |row| {
        Ok(Seen { name: text(row, 0)?, generated: row.get::<_, i64>(1)? > 1, not_null: row.get::<_, i64>(2)? != 0 })
    })?;
    rows.collect()
}

/// Why the app's own triggers on a table forbid placeholders: they would see them come or go.
fn reacting_triggers(connection: &Connection, table: &str) -> rusqlite::Result<Option<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT name, sql FROM main.sqlite_master WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE \
         AND name NOT GLOB '_litemesh_*' ORDER BY name",
    )?;
    let rows = statement.query_map([table], |row| Ok((text(row, 0)?, text(row, 1)?)))?;
    for row in rows {
        let (name, sql) = row?;
        if !is_update_trigger(&sql) {
            return Ok(Some(format!("the app's trigger {name:?} would see placeholders")));
        }
    }
    Ok(None)
}

/// Whether a CREATE TRIGGER text is surely one ON UPDATE.
fn is_update_trigger(sql: &str) -> bool {
    let words: Vec<&str> = tokens(sql).collect();
    let is = |at: usize, word: &str| words.get(at).is_some_and(|found| found.eq_ignore_ascii_case(word));
    let Some(mut at) = words.iter().position(|word| word.eq_ignore_ascii_case("trigger")) else { return false };
    at += if is(at + 1, "if") { 4 } else { 1 };
    // The name, perhaps with the database's before it.
    at += if is(at + 1, ".") { 3 } else { 1 };
    at += match () {
        () if is(at, "before") || is(at, "after") => 1,
        () if is(at, "instead") => 2,
        () => 0,
    };
    is(at, "update")
}

/// Every word inside a CHECK of a CREATE TABLE text, unquoted and in lower case.
fn names_in_checks(sql: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let (mut depth, mut outside, mut pending) = (0usize, None, false);
    for token in tokens(sql) {
        match token {
            "(" => {
                if pending && outside.is_none() {
                    outside = Some(depth);
                }
                depth += 1;
            }
            ")" => {
                depth = depth.saturating_sub(1);
                if outside == Some(depth) {
                    outside = None;
                }
            }
            word if outside.is_some() => {
                names.insert(unquoted(word).to_ascii_lowercase());
            }
            _ => {}
        }
        pending = token.eq_ignore_ascii_case("check");
    }
    names
}

fn unquoted(token: &str) -> String {
    let inner = || token.get(1..token.len().saturating_sub(1)).unwrap_or_default();
    match token.chars().next() {
        Some(quote @ ('"' | '`' | '\'')) => inner().replace(&format!("{quote}{quote}"), &quote.to_string()),
        Some('[') => inner().to_owned(),
        _ => token.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_checks_are_found_whatever_their_quotes() {
        let sql = "CREATE TABLE t(id INTEGER PRIMARY KEY, a CHECK (a > 0), [b c] TEXT DEFAULT ('check (x)'), \"d\"\"e\" INT, \
                   f /* CHECK (g) */, CONSTRAINT k CHECK(length(\"d\"\"e\") > (1) AND [b c] <> 'z') , h DEFAULT (1))";
        let names = names_in_checks(sql);
        for column in ["a", "b c", "d\"e"] {
            assert!(names.contains(column), "{column} in {names:?}");
        }
        for column in ["id", "f", "g", "h", "x"] {
            assert!(!names.contains(column), "{column} in {names:?}");
        }
    }

    #[test]
    fn only_update_triggers_let_placeholders_pass() {
        for (sql, update) in [
            ("CREATE TRIGGER a AFTER UPDATE ON t BEGIN SELECT 1; END", true),
            ("create trigger if not exists main.\"insert\" before update of x on t begin select 1; end", true),
            ("CREATE TRIGGER a UPDATE ON t BEGIN SELECT 1; END", true),
            ("CREATE TRIGGER \"update\" AFTER INSERT ON t BEGIN SELECT 1; END", false),
            ("CREATE TRIGGER a DELETE ON t BEGIN UPDATE t SET x = 1; END", false),
            ("", false),
        ] {
            assert_eq!(is_update_trigger(sql), update, "{sql}");
        }
    }
}
