//! `litemesh conflicts`.
//!
//! Invariant: pages until the end, so that nothing that lost stays unseen. Called by [`super`] and `history`.

use clap::{Args, Subcommand};
use serde::Deserialize;

use super::Context;
use super::error::CommandError;
use super::output::{one_line, table};
use crate::node::view::ConflictView;

/// Conflicts asked for at once.
const PAGE: usize = 1_000;

/// Show what lost when two servers changed the same thing
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All of them, oldest first
    List,
    /// One of them, with both values and authors
    Show {
        /// Its number in the list
        number: u64,
    },
    /// Put back what lost in one of them, as a new event; a suspect write moves to the row it was meant for
    Restore {
        /// Its number in the list
        number: u64,
    },
}

#[derive(Deserialize)]
struct Page {
    conflicts: Vec<ConflictView>,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    if let Some(What::Restore { number }) = arguments.what {
        return super::decide::say(context, &format!("/api/v1/conflicts/{number}/restore"), &serde_json::json!({}));
    }
    let client = context.client()?;
    if let Some(What::Show { number }) = arguments.what {
        let conflict: ConflictView = client.get(&format!("/api/v1/conflicts/{number}"), &[])?;
        context.output.result(&conflict, describe);
        return Ok(());
    }
    let mut all: Vec<ConflictView> = Vec::new();
    loop {
        let after = all.last().map_or(0, |conflict| conflict.number);
        let query = [("after", after.to_string()), ("limit", PAGE.to_string())];
        let page: Page = client.get("/api/v1/conflicts", &query)?;
        let last = page.conflicts.len() < PAGE;
        all.extend(page.conflicts);
        if last {
            break;
        }
    }
    let document = serde_json::json!({ "conflicts": all });
    context.output.result(&document, |_| if all.is_empty() { "nothing lost".to_string() } else { list(&all) });
    Ok(())
}

/// As a table.
pub(super) fn list(conflicts: &[ConflictView]) -> String {
    let line = |c: &ConflictView| {
        let place = format!("{}.{} {}", c.database, c.table, if c.id.is_empty() { &c.row } else { &c.id });
        let authored = |a: &crate::node::view::AuthoredView| format!("{} ({})", a.value, a.node);
        vec![
            c.number.to_string(),
            place,
            c.kind.clone(),
            c.column.clone(),
            authored(&c.winner),
            authored(&c.loser),
            c.reason.clone(),
        ]
    };
    table(&["#", "row", "kind", "column", "shown", "lost", "why"], &conflicts.iter().map(line).collect::<Vec<_>>())
}

fn describe(c: &ConflictView) -> String {
    let authored =
        |a: &crate::node::view::AuthoredView| format!("{}\n          by {} at {}", one_line(&a.value), a.node, a.time);
    let column = if c.column.is_empty() { String::new() } else { format!(", column {}", c.column) };
    format!(
        "conflict {} in {}.{} {} ({}){column}\n  shown:  {}\n  lost:   {}\n  why:    {}\n  seen:   {}",
        c.number,
        c.database,
        c.table,
        c.id,
        c.row,
        authored(&c.winner),
        authored(&c.loser),
        c.reason,
        c.seen
    )
}
