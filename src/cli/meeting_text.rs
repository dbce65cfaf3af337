//! The plan of a join in words.
//!
//! Invariant: what needs a person comes last, where it is read. Called by `join` and `duplicates`.

use super::output::{count, one_line, table};
use crate::node::meeting_view::{DatabaseMeeting, MeetingPlan, NearView, TableMeeting};

/// Pairs of one table in the text of a plan.
const PAIRS_SHOWN: usize = 5;

/// The whole plan.
pub(super) fn plan(plan: &MeetingPlan) -> String {
    let mut text = String::new();
    for database in &plan.databases {
        text += &describe(database);
        text += "\n";
    }
    if plan.databases.is_empty() {
        text += "There is nothing to decide: no database here waits to be enrolled.\n";
    }
    for warning in &plan.warnings {
        text += &format!("ATTENTION: {}\n", one_line(warning));
    }
    text + "No row of either side is dropped. What is only on one side goes to all members."
}

fn describe(database: &DatabaseMeeting) -> String {
    let read = match database.meeting.as_str() {
        "first" => "the cluster has no rows of it yet",
        "independent" => "read as independent: no row here is a row there",
        "base" => "read with a common base: what each side did since is put together",
        _ => "rows that are equal on both sides are the same rows",
    };
    let mut text =
        format!("database {} ({}): {} here; {read}\n", database.name, database.path, count(database.rows, "row"));
    let line = |one: &TableMeeting| {
        let numbers = [
            one.here,
            one.there,
            one.equal,
            one.newer_there,
            one.only_here,
            one.only_there,
            one.same_id_different,
            one.moves.iter().map(|part| part.rows).sum(),
        ];
        std::iter::once(one.table.clone()).chain(numbers.iter().map(u64::to_string)).collect::<Vec<_>>()
    };
    let (empty, filled): (Vec<_>, Vec<_>) = database.tables.iter().partition(|one| one.here + one.there == 0);
    let lines: Vec<Vec<String>> = filled.into_iter().map(line).collect();
    let heads = [
        "table",
        "here",
        "there",
        "equal",
        "newer there",
        "only here",
        "only there",
        "same id, different",
        "get another id",
    ];
    text += &table(&heads, &lines);
    text += "\n";
    if !empty.is_empty() {
        text += &format!("and {} without rows on either side\n", count(empty.len() as u64, "table"));
    }
    for one in &database.tables {
        details(&mut text, database, one);
    }
    text
}

fn details(text: &mut String, database: &DatabaseMeeting, one: &TableMeeting) {
    let name = format!("{}.{}", database.name, one.table);
    let mut say = |line: String| *text += &format!("  {name}: {}\n", one_line(&line));
    for part in &one.moves {
        let get = if part.rows == 1 { "gets" } else { "get" };
        say(format!("{} made here {get} {:+}: {} -> {}", count(part.rows, "row"), part.by, part.from, part.to));
    }
    for pair in &one.different {
        say(format!(
            "id {} is two rows: there \"{}\" (will be {}), here \"{}\" (will be {})",
            pair.here.id, pair.there.label, pair.there.id_after, pair.here.label, pair.here.id_after
        ));
    }
    if one.same_id_different > one.different.len() as u64 {
        say(format!("… and {} more", one.same_id_different - one.different.len() as u64));
    }
    if one.edited_here + one.deleted_here + one.come_back + one.deleted_there + one.kept + one.cells_lost > 0 {
        let parts = [
            (one.edited_here, "changed here: the changed cells are written"),
            (one.deleted_here, "deleted here: deleted everywhere"),
            (one.deleted_there, "deleted there: deleted here too"),
            (
                one.come_back,
                "deleted here, but changed or needed there: they come back; delete them again if you mean it",
            ),
            (one.kept, "in the base and not in the cluster: kept; delete them if they were deleted there on purpose"),
        ];
        for (number, what) in parts.into_iter().filter(|(number, _)| *number > 0) {
            say(format!("{} {what}", count(number, "row")));
        }
        if one.cells_lost > 0 {
            let cells = count(one.cells_lost, "cell");
            say(format!(
                "{cells} differ where the cluster's value stays; the values from here are kept: litemesh conflicts"
            ));
        }
    }
    for row in &one.unique {
        let outcome = match row.outcome.as_str() {
            "merges" => format!("is one with row {} there (same UNIQUE key): they become one row", row.with),
            "suffix" => format!("has a UNIQUE value that is taken there: shown as \"{}\" until it is free", row.with),
            _ => {
                format!("has a UNIQUE value that is taken there ({}): it waits on the shelf until it is free", row.with)
            }
        };
        say(format!("\"{}\" {outcome}", row.here.label));
    }
    if one.unique_count > one.unique.len() as u64 {
        say(format!("… and {} more", one.unique_count - one.unique.len() as u64));
    }
    if !one.near_equal.is_empty() {
        say(format!("{} look alike; join those that are one, after the join:", count(one.near_equal_count, "pair")));
        let shown = &one.near_equal[..one.near_equal.len().min(PAIRS_SHOWN)];
        *text += &near(shown);
        let more = one.near_equal_count - shown.len() as u64;
        if more > 0 {
            *text += &format!("    … and {more} more, listed by: litemesh duplicates\n");
        }
    }
}

/// Pairs that look like one row.
pub(super) fn near(pairs: &[NearView]) -> String {
    let mut text = String::new();
    for pair in pairs {
        text += &format!(
            "    {}   # \"{}\" and \"{}\": {} of {} cells equal, {}\n",
            pair.command,
            one_line(&pair.one.label),
            one_line(&pair.other.label),
            pair.equal_cells,
            pair.cells,
            pair.reason
        );
    }
    text
}
