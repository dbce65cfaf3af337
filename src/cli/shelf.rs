//! `litemesh shelf`.
//!
//! Invariant: shows; only `retry` starts something, and nothing is ever taken off for good. Called by [`super`].

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::Context;
use super::error::CommandError;
use super::output::{pairs, table};
use crate::node::view::ShelfView;

/// Show rows that cannot be shown in the app now, and why; they are kept and come back by themselves
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All of them
    List,
    /// One of them, with its values
    Show {
        /// Its number in the list
        number: u64,
    },
    /// Try rows again that SQLite refused (they are also tried again by themselves, every 30 seconds)
    Retry,
}

#[derive(Deserialize, Serialize)]
struct Shelf {
    shelf: Vec<ShelfView>,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    if let Some(What::Retry) = arguments.what {
        let said: serde_json::Value = context.client()?.post("/api/v1/shelf/retry", &serde_json::json!({}), None)?;
        context.output.result(&said, |said| said["said"].as_str().unwrap_or_default().to_string());
        return Ok(());
    }
    let shelf: Shelf = context.client()?.get("/api/v1/shelf", &[])?;
    if let Some(What::Show { number }) = arguments.what {
        let missing = || {
            CommandError::user(format!("there is no row {number} on the shelf"))
                .hint("see them all: litemesh shelf list")
        };
        let row = shelf.shelf.iter().find(|row| row.number == number).ok_or_else(missing)?;
        context.output.result(row, |row| {
            let place = format!("{}.{} {} ({})", row.database, row.table, row.id, row.row);
            format!("{place}\n  why:    {}\n  values: {}", row.reason, pairs(&row.cells))
        });
        return Ok(());
    }
    context.output.result(&shelf, |shelf| {
        let line = |row: &ShelfView| {
            let place = format!("{}.{}", row.database, row.table);
            vec![row.number.to_string(), place, row.id.clone(), row.reason.clone()]
        };
        match shelf.shelf.is_empty() {
            true => "the shelf is empty: every live row is shown".to_string(),
            false => {
                table(&["#", "table", "id", "why it is not shown"], &shelf.shelf.iter().map(line).collect::<Vec<_>>())
            }
        }
    });
    Ok(())
}
