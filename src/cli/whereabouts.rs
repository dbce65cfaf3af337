//! `litemesh where`.
//!
//! Invariant: lists every row that ever had the id. Called by [`super`].

use clap::Args;

use super::error::CommandError;
use super::output::table;
use super::{Context, table_of};
use crate::node::view::WhereView;

/// Show where an id went: every row that was born with it or shown under it
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Database and table, like scouting.team
    #[arg(value_name = "DB.TABLE", value_parser = table_of)]
    table: (String, String),
    /// The id (several key columns: values joined by commas)
    id: String,
    /// Only rows born on this node
    #[arg(long)]
    node: Option<String>,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    let (db, table_name) = arguments.table.clone();
    let mut query = vec![("db", db), ("table", table_name), ("id", arguments.id.clone())];
    query.extend(arguments.node.clone().map(|node| ("node", node)));
    let found: WhereView = context.client()?.get("/api/v1/where", &query)?;
    context.output.result(&found, describe);
    Ok(())
}

fn describe(found: &WhereView) -> String {
    if found.rows.is_empty() {
        return format!("no row of {}.{} ever had the id {}", found.database, found.table, found.id);
    }
    let line = |row: &crate::node::view::WhereRow| {
        vec![row.born_as.clone(), row.node.clone(), row.now.clone(), row.state.clone(), row.row.clone()]
    };
    table(&["born as", "on", "now", "state", "row"], &found.rows.iter().map(line).collect::<Vec<_>>())
}
