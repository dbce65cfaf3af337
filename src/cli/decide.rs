//! `litemesh merge`, `litemesh split`, and how all overrides are said.
//!
//! Invariant: prints what holds from here on and the event that says so. Called by [`super`], `conflicts` and `shelf`.

use clap::Args;
use serde_json::json;

use super::error::CommandError;
use super::{Context, table_of};
use crate::node::view::DecisionView;

/// Say that two rows are one: the older one's id stays, references follow
#[derive(Debug, Args)]
pub(super) struct MergeArguments {
    /// Database and table, like scouting.team
    #[arg(value_name = "DB.TABLE", value_parser = table_of)]
    table: (String, String),
    /// The id of one row
    id: String,
    /// The id of the other row; of a row on the shelf, which is shown under none, `row` in `litemesh shelf list --json`
    other: String,
}

/// Take a row apart into the rows that it was merged from
#[derive(Debug, Args)]
pub(super) struct SplitArguments {
    /// Database and table, like scouting.team
    #[arg(value_name = "DB.TABLE", value_parser = table_of)]
    table: (String, String),
    /// The id of the row
    id: String,
}

pub(super) fn merge(context: &Context, arguments: &MergeArguments) -> Result<(), CommandError> {
    let (db, table) = &arguments.table;
    let body = json!({ "db": db, "table": table, "id": arguments.id, "other": arguments.other });
    say(context, "/api/v1/merge", &body)
}

pub(super) fn split(context: &Context, arguments: &SplitArguments) -> Result<(), CommandError> {
    let (db, table) = &arguments.table;
    say(context, "/api/v1/split", &json!({ "db": db, "table": table, "id": arguments.id }))
}

/// Orders an override and says what came of it.
pub(super) fn say(context: &Context, path: &str, body: &serde_json::Value) -> Result<(), CommandError> {
    let decision: DecisionView = context.client()?.post(path, body, None)?;
    context.output.result(&decision, |decision| format!("{}\n  event {}", decision.said, decision.event));
    Ok(())
}
