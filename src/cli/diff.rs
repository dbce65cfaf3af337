//! `litemesh diff`.
//!
//! Invariant: counts first, then rows; shows what the node says. Called by [`super`].

use clap::Args;

use super::Context;
use super::client::LONG;
use super::error::CommandError;
use super::output::{one_line, table};
use super::rebuild::moment;
use crate::node::travel_view::{CellChange, DiffRow, DiffTable, DiffView};

/// Show what changed between two times: rows added, changed, deleted, moved, and who wrote them
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The earlier time: 2025-03-06T09:00:00Z, 2025-03-06, an age like 2h, or a time of day like 10:00
    #[arg(value_name = "TIME", value_parser = moment)]
    from: u64,
    /// The later time [default: now]
    #[arg(value_name = "TIME", value_parser = moment)]
    to: Option<u64>,
    /// Only this database
    #[arg(long)]
    db: Option<String>,
    /// Only this table
    #[arg(long)]
    table: Option<String>,
    /// Only rows that this server wrote to
    #[arg(long)]
    node: Option<String>,
    /// Rows shown, at most
    #[arg(long, default_value_t = 200)]
    limit: usize,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    let mut query = vec![("from", arguments.from.to_string()), ("limit", arguments.limit.to_string())];
    query.extend(arguments.to.map(|to| ("to", to.to_string())));
    for (name, value) in [("db", &arguments.db), ("table", &arguments.table), ("node", &arguments.node)] {
        query.extend(value.clone().map(|value| (name, value)));
    }
    let view: DiffView = context.client()?.get_within("/api/v1/diff", &query, LONG)?;
    context.output.result(&view, describe);
    Ok(())
}

fn describe(view: &DiffView) -> String {
    let mut text = format!("from {} to {}", view.from, view.to);
    if view.tables.is_empty() {
        return text + ": nothing changed";
    }
    let line = |t: &DiffTable| {
        let counts = [t.added, t.changed, t.deleted, t.moved].map(|count| count.to_string());
        [format!("{}.{}", t.database, t.table)].into_iter().chain(counts).collect::<Vec<_>>()
    };
    let counts: Vec<Vec<String>> = view.tables.iter().map(line).collect();
    text += &format!("\n{}\n", table(&["table", "added", "changed", "deleted", "moved"], &counts));
    for row in &view.rows {
        text += &describe_row(row);
    }
    if view.more > 0 {
        text += &format!("\n… and {} more (--limit)", view.more);
    }
    text
}

fn describe_row(row: &DiffRow) -> String {
    let id = if row.was.is_empty() { row.id.clone() } else { format!("{} -> {}", row.was, row.id) };
    let by = if row.by.is_empty() { String::new() } else { format!("  by {}", row.by.join(", ")) };
    format!("\n{}.{} {}  {}{by}{}", row.database, row.table, one_line(&id), row.what, cells(&row.cells))
}

/// Columns from and to, one on a line.
pub(super) fn cells(cells: &[CellChange]) -> String {
    let width = cells.iter().map(|cell| cell.column.chars().count()).max().unwrap_or(0);
    let said = |cell: &CellChange| match (cell.from.as_str(), cell.to.as_str()) {
        ("", value) => format!("\n    {:width$}  {}", cell.column, one_line(value)),
        (value, "") => format!("\n    {:width$}  was {}", cell.column, one_line(value)),
        (from, to) => format!("\n    {:width$}  {} -> {}", cell.column, one_line(from), one_line(to)),
    };
    cells.iter().map(said).collect()
}
