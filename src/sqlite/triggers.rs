//! The triggers that note, in the app's own transaction, which rows it wrote.
//!
//! Invariants: bodies name columns of keys and UNIQUE indexes only (SQLite itself refuses to drop those), so an app may
//! drop any other column; they use functions
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

use super::outbox::{DELETE, EVICTED, INSERT, OUTBOX, REPLACED, TABLE_STRIDE, UPDATE};
use super::plan::{ConflictKey, TablePlan};
use super::quote::quote;

/// The three without which writes go unseen.
pub(super) const VITAL_KINDS: [&str; 3] = ["insert", "update", "delete"];

/// What every mark begins with: a random number, the table with the operation, the time. Kept small: a mark's size and
/// its function calls are what capture costs the app (measured on bulk writes: 16 random bytes, and milliseconds instead
/// of a julian day, cost 0.1x to 0.2x of the bare write more).
fn stem(code: &str) -> String {
    format!("random(), {code}, julianday('now')")
}

fn code(number: i64, operation: i64) -> String {
    (number * TABLE_STRIDE + operation).to_string()
}

/// Which rows of the table are noted before a write.
struct Hint {
    /// SQL of the mark's code.
    code: String,
    /// Over NEW alone: cheap, and false for most writes.
    only_if: Option<String>,
    /// Over NEW and the table's rows.
    condition: String,
}

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
        "CREATE TRIGGER {} AFTER {} ON {} BEGIN INSERT INTO {OUTBOX}({columns}) VALUES ({}, {}); END",
        quote(&name),
        kind.to_ascii_uppercase(),
        plan.table,
        stem(&code(number, operation)),
        values.join(", "),
    );
    (name, sql)
}

fn before_insert(plan: &TablePlan, number: i64) -> (String, String) {
    let mut hints = Vec::new();
    // A rowid that SQLite is still to choose reads as -1 here (as NULL it would meet no row either). A row that really
    // has the id -1 is taken for deleted and inserted anew when it is replaced: nothing is lost.
    let rowid = plan.alias.as_deref().map(quote).or_else(|| plan.by_rowid.then(|| plan.key[0].clone()));
    if let Some(rowid) = rowid {
        let only_if = Some(format!("NEW.{rowid} IS NOT -1"));
        hints.push(Hint { code: code(number, REPLACED), only_if, condition: format!("{rowid} = NEW.{rowid}") });
    }
    for conflict in &plan.conflicts {
        let equal = equality(conflict);
        let (code, condition) = if conflict.is_key {
            (replaced_or_evicted(plan, number), equal)
        } else {
            (code(number, EVICTED), format!("{equal} AND NOT ({})", same_key(plan, "NEW")))
        };
        hints.push(Hint { code, only_if: None, condition });
    }
    let name = name(number, "before_insert");
    let sql = hint_trigger(plan, &name, "INSERT", &hints);
    (name, sql)
}

fn before_update(plan: &TablePlan, number: i64) -> Option<(String, String)> {
    let mut columns: Vec<&str> = plan.alias.as_deref().into_iter().collect();
    let mut equal: Vec<String> = plan.alias.iter().map(|alias| format!("{0} = NEW.{0}", quote(alias))).collect();
    for conflict in &plan.conflicts {
        columns.extend(conflict.columns.iter().map(|(column, _)| column.as_str()));
        equal.push(equality(conflict));
    }
    if equal.is_empty() {
        return None;
    }
    columns.sort_unstable();
    columns.dedup();
    let columns: Vec<String> = columns.into_iter().map(quote).collect();
    let any = plan.conflicts.iter().any(|conflict| conflict.any_update);
    let event = if any { "UPDATE".to_owned() } else { format!("UPDATE OF {}", columns.join(", ")) };
    let other = same_key(plan, "OLD");
    let hints: Vec<Hint> = equal
        .into_iter()
        .map(|equal| format!("{equal} AND NOT ({other})"))
        .map(|condition| Hint { code: code(number, EVICTED), only_if: None, condition })
        .collect();
    let name = name(number, "before_update");
    let sql = hint_trigger(plan, &name, &event, &hints);
    Some((name, sql))
}

fn hint_trigger(plan: &TablePlan, name: &str, event: &str, hints: &[Hint]) -> String {
    let columns = outbox_columns(plan.key.len(), 0);
    let table = &plan.table;
    let key = plan.key.join(", ");
    // The guard keeps the common case, nothing in the way, free of a write cursor on the outbox.
    let guard: Vec<String> = hints
        .iter()
        .map(|hint| {
            let exists = format!("EXISTS (SELECT 1 FROM {table} WHERE {})", hint.condition);
            hint.only_if.as_ref().map_or(exists.clone(), |only_if| format!("({only_if} AND {exists})"))
        })
        .collect();
    let body: Vec<String> = hints
        .iter()
        .map(|hint| {
            let only_if = hint.only_if.as_ref().map(|only_if| format!(" AND {only_if}")).unwrap_or_default();
            format!(
                "INSERT INTO {OUTBOX}({columns}) SELECT {}, {key} FROM {table} WHERE {}{only_if};",
                stem(&hint.code),
                hint.condition
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

pub(super) fn equality(conflict: &ConflictKey) -> String {
    // The index's own WHERE stands there as the app wrote it, so that SQLite sees that it can use the index.
    let partial = conflict.partial.iter().map(|condition| format!("({condition})"));
    let columns =
        conflict.columns.iter().map(|(column, collation)| format!("{0} = NEW.{0} COLLATE {collation}", quote(column)));
    partial.chain(columns).collect::<Vec<_>>().join(" AND ")
}

/// The row in the way may have another key that is equal to SQLite: under NOCASE or RTRIM, or 1 beside 1.0 in a column
/// without affinity. Then it goes, and another one comes. (Known limit: no SQL of 3.22 tells -0.0 from 0.0.)
fn replaced_or_evicted(plan: &TablePlan, number: i64) -> String {
    let (replaced, evicted) = (code(number, REPLACED), code(number, EVICTED));
    let same =
        |column: &String| format!("{column} = NEW.{column} COLLATE BINARY AND typeof({column}) = typeof(NEW.{column})");
    let same: Vec<String> = plan.key.iter().map(same).collect();
    format!("CASE WHEN {} THEN {replaced} ELSE {evicted} END", same.join(" AND "))
}

fn same_key(plan: &TablePlan, row: &str) -> String {
    let terms: Vec<String> = plan.key.iter().map(|column| format!("{column} IS {row}.{column}")).collect();
    terms.join(" AND ")
}

fn prefixed(row: &str, key: &[String]) -> Vec<String> {
    key.iter().map(|column| format!("{row}.{column}")).collect()
}

fn outbox_columns(keys: usize, old_keys: usize) -> String {
    let mut columns = vec!["rid".to_owned(), "mark".to_owned(), "at".to_owned()];
    columns.extend((0..keys).map(|i| format!("k{i}")));
    columns.extend((0..old_keys).map(|i| format!("o{i}")));
    columns.join(", ")
}
