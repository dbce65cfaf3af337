//! `litemesh rebuild`.
//!
//! Invariant: exit 0 means that replaying the log gives what the live files show. Called by [`super`].

use std::path::PathBuf;

use clap::Args;

use super::Context;
use super::client::{Client, LONG};
use super::error::{CommandError, Kind};
use super::output::table;
use crate::daemon::{self, DataDir};
use crate::node::view::RebuildReport;

/// Replay the replicated tables from the log alone, into new files; works with and without a running node
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Directory of the new files; nothing is overwritten
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    let config = context.config(|_| {})?;
    let out = context.directory.join(&arguments.out);
    let data = DataDir::at(&config.data_dir);
    let report: RebuildReport = if data.is_locked() {
        Client::connect(&config)?.post("/api/v1/rebuild", &serde_json::json!({ "out": out }), Some(LONG))?
    } else {
        let choice = daemon::choose(&config, &data, &context.directory, false)?;
        daemon::rebuild(&config, choice, &out)?
    };
    context.output.result(&report, |report| {
        let line = |d: &crate::node::view::RebuiltDatabase| {
            let verdict =
                if d.digest == d.live_digest { "equal to the live file" } else { "DIFFERENT from the live file" };
            vec![d.name.clone(), d.path.clone(), d.rows.to_string(), verdict.to_string()]
        };
        table(&["database", "new file", "rows", "content"], &report.databases.iter().map(line).collect::<Vec<_>>())
    });
    let different: Vec<_> =
        report.databases.iter().filter(|d| d.digest != d.live_digest).map(|d| d.name.as_str()).collect();
    if different.is_empty() {
        return Ok(());
    }
    let message = format!("the log does not rebuild what the file shows: {}", different.join(", "));
    Err(CommandError::new(Kind::Integrity, message)
        .hint("compare the two files; see litemesh log verify and litemesh status"))
}
