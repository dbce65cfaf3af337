//! `litemesh undo` and `litemesh restore`.
//!
//! Invariant: nothing is changed without `--yes`; what is left alone is always said, with the reason. Called by [`super`].

use clap::Args;
use serde_json::{Value, json};

use super::Context;
use super::client::LONG;
use super::diff::cells;
use super::error::CommandError;
use super::output::{count, one_line, table};
use super::rebuild::moment;
use crate::node::travel_view::{TakeBackRow, TakeBackTable, TakeBackView};

/// Take changes back, on all servers: one change, an event, or what one server wrote in a span of time
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["change", "node"]))]
pub(super) struct Arguments {
    /// A change or event as `log` and `history` print it: ORIGIN:SEQ or ORIGIN:SEQ:INDEX
    #[arg(value_name = "CHANGE")]
    change: Option<String>,
    /// What this server wrote
    #[arg(long, requires = "from")]
    node: Option<String>,
    /// From this time on: 2025-03-06T09:00:00Z, an age like 2h, or a time of day like 10:00
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with = "change")]
    from: Option<u64>,
    /// Through this time [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with = "change")]
    to: Option<u64>,
    /// Only in this database
    #[arg(long, conflicts_with = "change")]
    db: Option<String>,
    /// Only in this table
    #[arg(long, conflicts_with = "change")]
    table: Option<String>,
    /// Also what others changed since
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    order: OrderArguments,
}

/// Roll databases back to a time, on all servers; nothing is lost, a later --as-of brings them forward again
#[derive(Debug, Args)]
pub(super) struct RestoreArguments {
    /// The time: 2025-03-06T09:00:00Z, 2025-03-06, an age like 2h, or a time of day like 10:00
    #[arg(long, value_name = "TIME", value_parser = moment)]
    as_of: u64,
    /// Only this database
    #[arg(long)]
    db: Option<String>,
    /// Only this table
    #[arg(long)]
    table: Option<String>,
    #[command(flatten)]
    order: OrderArguments,
}

/// How it is ordered.
#[derive(Debug, Args)]
struct OrderArguments {
    /// Do it; without this, only show what would be done
    #[arg(long)]
    yes: bool,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Rows shown, at most
    #[arg(long, default_value_t = 200)]
    limit: usize,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    let text = |ms: Option<u64>| ms.map(|ms| ms.to_string());
    let body = json!({
        "change": arguments.change, "node": arguments.node, "from": text(arguments.from), "to": text(arguments.to),
        "db": arguments.db, "table": arguments.table, "force": arguments.force,
    });
    order(context, "/api/v1/undo", body, &arguments.order)
}

pub(super) fn call_restore(context: &Context, arguments: &RestoreArguments) -> Result<(), CommandError> {
    let body = json!({ "as_of": arguments.as_of.to_string(), "db": arguments.db, "table": arguments.table });
    order(context, "/api/v1/restore", body, &arguments.order)
}

fn order(context: &Context, path: &str, mut body: Value, order: &OrderArguments) -> Result<(), CommandError> {
    let by = ["USER", "LOGNAME", "USERNAME"].iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default();
    body["yes"] = json!(order.yes);
    body["reason"] = json!(order.reason);
    body["by"] = json!(by);
    body["limit"] = json!(order.limit);
    let view: TakeBackView = context.client()?.post(path, &body, Some(LONG))?;
    context.output.result(&view, describe);
    Ok(())
}

fn describe(view: &TakeBackView) -> String {
    let mut text = view.what.clone();
    if view.selected > 0 {
        text += &format!(": {}", count(view.selected, "change"));
    }
    if !view.tables.is_empty() {
        let line = |t: &TakeBackTable| {
            let counts = [t.set_back, t.deleted, t.revived, t.other, t.kept].map(|count| count.to_string());
            [format!("{}.{}", t.database, t.table)].into_iter().chain(counts).collect::<Vec<_>>()
        };
        let counts: Vec<Vec<String>> = view.tables.iter().map(line).collect();
        let headings = ["table", "set back", "deleted", "revived", "other", "kept"];
        text += &format!("\n{}\n", table(&headings, &counts));
    }
    for row in &view.list {
        text += &describe_row(row);
    }
    if view.more > 0 {
        text += &format!("\n… and {} more (--limit)", view.more);
    }
    if view.already > 0 {
        text += &format!("\n{} as wanted already", count(view.already, "row or cell is"));
    }
    for remark in &view.remarks {
        text += &format!("\n{remark}");
    }
    text + &verdict(view)
}

fn verdict(view: &TakeBackView) -> String {
    match (view.rows, view.done, view.events.first()) {
        (0, _, _) => "\nnothing to do".to_string(),
        (rows, false, _) => {
            format!("\n{} would change. Nothing was changed yet: --yes does it, on all servers", count(rows, "row"))
        }
        (rows, true, Some(event)) => {
            format!(
                "\n{} changed, on all servers as they hear of it. To take it back: litemesh undo {event}",
                count(rows, "row")
            )
        }
        (_, true, None) => "\nnothing was changed".to_string(),
    }
}

fn describe_row(row: &TakeBackRow) -> String {
    let id = if row.id.is_empty() { &row.row } else { &row.id };
    let mut text = format!("\n{}.{} {}  {}{}", row.database, row.table, one_line(id), row.action, cells(&row.cells));
    for kept in &row.kept {
        let what = if kept.column.is_empty() { String::new() } else { format!("{}: ", kept.column) };
        let event = if kept.event.is_empty() { String::new() } else { format!(" ({})", kept.event) };
        text += &format!("\n    kept  {what}{}{event}", one_line(&kept.why));
    }
    text
}
