//! `litemesh history`.
//!
//! Invariant: shows what the node says, in its order. Called by [`super`].

use clap::Args;

use super::client::LONG;
use super::error::CommandError;
use super::{Context, conflicts, table_of};
use crate::node::view::HistoryView;

/// Show every version of one row: who, when, what, and what lost
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Database and table, like scouting.team
    #[arg(value_name = "DB.TABLE", value_parser = table_of)]
    table: (String, String),
    /// The row's id (several key columns: values joined by commas)
    id: String,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    let (db, table) = arguments.table.clone();
    let query = [("db", db), ("table", table), ("id", arguments.id.clone())];
    let history: HistoryView = context.client()?.get_within("/api/v1/history", &query, LONG)?;
    context.output.result(&history, |history| {
        let mut text = history.text();
        if !history.conflicts.is_empty() {
            text += &format!("\n\nwhat lost:\n{}", conflicts::list(&history.conflicts));
        }
        text
    });
    Ok(())
}
