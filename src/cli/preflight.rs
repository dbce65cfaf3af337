//! `litemesh preflight`.
//!
//! Invariant: changes nothing. Called by [`super`].

use std::path::PathBuf;

use clap::Args;

use super::error::CommandError;
use super::output::{count, table};
use super::{Context, database};
use crate::daemon::{self, DataDir};
use crate::sqlite::{Preflight, TablePreflight};

/// Show what will be replicated, how, and what will not; changes nothing
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A database to look at; may be repeated
    #[arg(long = "db", value_name = "NAME=PATH", value_parser = database)]
    databases: Vec<(String, PathBuf)>,
}

pub(super) fn call(context: &Context, arguments: Arguments) -> Result<(), CommandError> {
    let config = context.config(|flags| flags.databases = arguments.databases)?;
    let choice = daemon::choose(&config, &DataDir::at(&config.data_dir), &context.directory, false)?;
    let reports = daemon::preflight(&choice)?;
    let document = serde_json::json!({ "databases": reports });
    context.output.result(&document, |_| reports.iter().map(describe).collect::<Vec<_>>().join("\n\n"));
    Ok(())
}

/// Who makes the ids of new rows.
fn ids(table: &TablePreflight) -> String {
    match (table.ids.as_str(), table.ids_because.as_str()) {
        ("", _) => "-".to_owned(),
        (ids, "") => ids.to_owned(),
        (ids, because) => format!("{ids}, because {because}"),
    }
}

fn describe(report: &Preflight) -> String {
    let rows: u64 = report.tables.iter().map(|table| table.rows).sum();
    let state = if report.enrolled { "enrolled" } else { "not enrolled yet" };
    let mut text =
        format!("database {} ({}): {state}, journal mode {}\n", report.database, report.path, report.journal_mode);
    text += &format!("replicated: {}, {}\n", count(report.tables.len() as u64, "table"), count(rows, "row"));
    let lines: Vec<_> = report
        .tables
        .iter()
        .map(|table| {
            let key = table.key.join(", ");
            vec![table.table.clone(), table.rows.to_string(), key, ids(table), table.how.clone()]
        })
        .collect();
    text += &table(&["table", "rows", "key", "ids", "how"], &lines);
    if !report.left_out.is_empty() {
        let lines: Vec<_> = report.left_out.iter().map(|(name, why)| vec![name.clone(), why.clone()]).collect();
        text += &format!("\nnot replicated: {}\n{}", report.left_out.len(), table(&["table", "why"], &lines));
    }
    let warnings =
        report.tables.iter().flat_map(|table| table.warnings.iter().map(move |w| format!("{}: {w}", table.table)));
    for warning in report.warnings.iter().cloned().chain(warnings) {
        text += &format!("\nwarning: {warning}");
    }
    for one in &report.references {
        text += &format!(
            "\nundeclared reference: {}.{} -> {} ({}; {} of {} values are ids there)",
            one.table, one.column, one.to, one.reason, one.found, one.looked_at
        );
    }
    if !report.config.is_empty() {
        text += &format!("\nto have them follow when an id moves, put into litemesh.toml:\n{}", report.config);
    }
    text
}
