//! The triggers that note, in the app's own transaction, which rows it wrote.
//!
//! Invariants: bodies name key columns and UNIQUE columns only, so an app may drop any other column; they use functions
//! that every SQLite since 3.22 has, and no UPSERT; the outbox they write has no constraint, so no conflict clause of the
//! app's statement (it overrides ours) can swallow a mark.
//!
//! Why hints: `OR REPLACE` removes the rows in its way without any delete trigger. A BEFORE trigger therefore notes the
//! rows that are about to collide; the drain sees whether they are still there. A hint whose row stayed (`OR IGNORE`,
//! UPSERT) is harmless.
//!
//! Known limit: under `PRAGMA legacy_alter_table` a renamed table's hints still name the old table, and the app's next
//! insert fails until the node has put the triggers right (it watches the schema version).
//!
//! Callers: install.

use super::outbox::{DELETE, EVICTED, INSERT, OUTBOX, REPLACED, UPDATE};
use super::plan::{ConflictKey, TablePlan};
use super::quote::quote;

/// The three without which writes go unseen.
pub(super) const VITAL_KINDS: [&str; 3] = ["insert", "update", "delete"];

/// Milliseconds since 1970, to the half millisecond that julianday's precision gives.
const NOW_MS: &str = "CAST((julianday('now') - 2440587.5) * 86400000.0 + 0.5 AS INTEGER)";

/// The trigger of this kind for the table with this number.
pub(super) fn name(number: i64, kind: &str) -> String {
    format!("_litemesh_{number}_{kind}")
}

/// The table number in a trigger's name.
pub(super) fn number_of(name: &str) -> Option<i64> {
    name.strip_prefix("_litemesh_")?.split('_').next()?.parse().ok()
}

/// (name, CREATE TRIGGER text) of every trigger the table needs.
pub(super) fn statements(plan: &TablePlan, number: i64) -> Vec<(String, String)> {
    let mut all = vec![
        after(plan, number, "insert", INSERT, &prefixed("NEW", &plan.key), &[]),
        after(plan, number, "update", UPDATE, &prefixed("NEW", &plan.key), &prefixed("OLD", &plan.key)),
        after(plan, number, "delete", DELETE, &prefixed("OLD", &plan.key), &[]),
        before_insert(plan, number),
    ];
    all.extend(before_update(plan, number));
    all
}

fn after(
    plan: &TablePlan,
    number: i64,
    kind: &str,
    operation: i64,
    key: &[String],
    old_key: &[String],
) -> (String, String) {
    let name = name(number, kind);
    let columns = outbox_columns(key.len(), old_key.len());
    let values: Vec<&str> = key.iter().chain(old_key).map(String::as_str).collect();
    let sql = format!(
        "CREATE TRIGGER {} AFTER {} ON {} BEGIN INSERT INTO {OUTBOX}({columns}) \
         VALUES (randomblob(16), {operation}, {number}, {NOW_MS}, {}); END",
        quote(&name),
        kind.to_ascii_uppercase(),
        plan.table,
        values.join(", "),
    );
    (name, sql)
}

fn before_insert(plan: &TablePlan, number: i64) -> (String, String) {
    let mut conditions = Vec::new();
    // A rowid that SQLite is still to choose reads as -1 or NULL here, and meets no row.
    if let Some(alias) = &plan.alias {
        conditions.push((REPLACED.to_string(), format!("{0} = NEW.{0}", quote(alias))));
    } else if plan.by_rowid {
        conditions.push((REPLACED.to_string(), format!("{0} = NEW.{0}", plan.key[0])));
    }
    for conflict in &plan.conflicts {
        let equal = equality(conflict);
        if conflict.is_key {
            conditions.push((replaced_or_evicted(plan, conflict), equal));
        } else {
            conditions.push((EVICTED.to_string(), format!("{equal} AND NOT ({})", same_key(plan, "NEW"))));
        }
    }
    let name = name(number, "before_insert");
    let sql = hint_trigger(plan, number, &name, "INSERT", &conditions);
    (name, sql)
}

fn before_update(plan: &TablePlan, number: i64) -> Option<(String, String)> {
    let mut conditions = Vec::new();
    let mut columns: Vec<&str> = plan.alias.as_deref().into_iter().collect();
    if let Some(alias) = &plan.alias {
        conditions.push(format!("{0} = NEW.{0}", quote(alias)));
    }
    let mut any = false;
    for conflict in &plan.conflicts {
        columns.extend(conflict.columns.iter().map(|(column, _)| column.as_str()));
        conditions.push(equality(conflict));
        any |= conflict.generated;
    }
    if conditions.is_empty() {
        return None;
    }
    columns.sort_unstable();
    columns.dedup();
    let columns: Vec<String> = columns.into_iter().map(quote).collect();
    let event = if any { "UPDATE".to_owned() } else { format!("UPDATE OF {}", columns.join(", ")) };
    let other = same_key(plan, "OLD");
    let conditions: Vec<(String, String)> = conditions
        .into_iter()
        .map(|condition| (EVICTED.to_string(), format!("{condition} AND NOT ({other})")))
        .collect();
    let name = name(number, "before_update");
    let sql = hint_trigger(plan, number, &name, &event, &conditions);
    Some((name, sql))
}

/// `conditions`: (operation, which rows of the table are hinted).
fn hint_trigger(plan: &TablePlan, number: i64, name: &str, event: &str, conditions: &[(String, String)]) -> String {
    let columns = outbox_columns(plan.key.len(), 0);
    let table = &plan.table;
    let key = plan.key.join(", ");
    // The guard keeps the common case, nothing in the way, free of a write cursor on the outbox.
    let guard: Vec<String> =
        conditions.iter().map(|(_, condition)| format!("EXISTS (SELECT 1 FROM {table} WHERE {condition})")).collect();
    let body: Vec<String> = conditions
        .iter()
        .map(|(operation, condition)| {
            format!(
                "INSERT INTO {OUTBOX}({columns}) SELECT randomblob(16), {operation}, {number}, {NOW_MS}, {key} \
                 FROM {table} WHERE {condition};"
            )
        })
        .collect();
    format!(
        "CREATE TRIGGER {} BEFORE {event} ON {table} WHEN {} BEGIN {} END",
        quote(name),
        guard.join(" OR "),
        body.join(" ")
    )
}

fn equality(conflict: &ConflictKey) -> String {
    let terms: Vec<String> = conflict
        .columns
        .iter()
        .map(|(column, collation)| format!("{0} = NEW.{0} COLLATE {collation}", quote(column)))
        .collect();
    terms.join(" AND ")
}

/// Under NOCASE or RTRIM the row in the way may have another key: then it goes, and another one comes.
fn replaced_or_evicted(plan: &TablePlan, conflict: &ConflictKey) -> String {
    if conflict.columns.iter().all(|(_, collation)| collation.eq_ignore_ascii_case("BINARY")) {
        return REPLACED.to_string();
    }
    let same: Vec<String> = plan.key.iter().map(|column| format!("{column} = NEW.{column} COLLATE BINARY")).collect();
    format!("CASE WHEN {} THEN {REPLACED} ELSE {EVICTED} END", same.join(" AND "))
}

fn same_key(plan: &TablePlan, row: &str) -> String {
    let terms: Vec<String> = plan.key.iter().map(|column| format!("{column} IS {row}.{column}")).collect();
    terms.join(" AND ")
}

fn prefixed(row: &str, key: &[String]) -> Vec<String> {
    key.iter().map(|column| format!("{row}.{column}")).collect()
}

fn outbox_columns(keys: usize, old_keys: usize) -> String {
    let mut columns = vec!["rid".to_owned(), "op".to_owned(), "tbl".to_owned(), "at".to_owned()];
    columns.extend((0..keys).map(|i| format!("k{i}")));
    columns.extend((0..old_keys).map(|i| format!("o{i}")));
    columns.join(", ")
}
