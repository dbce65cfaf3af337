//! `litemesh shelf`.
//!
//! Invariant: shows, changes nothing. Called by [`super`].

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
}

#[derive(Deserialize, Serialize)]
struct Shelf {
    shelf: Vec<ShelfView>,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
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
