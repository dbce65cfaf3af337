//! `litemesh rebuild` and `litemesh as-of`.
//!
//! Invariant: exit 0 of `rebuild` means that replaying the log gives what the live files show. Called by [`super`].

use std::path::{Path, PathBuf};

use clap::Args;

use super::Context;
use super::client::{Client, LONG};
use super::error::{CommandError, Kind};
use super::output::table;
use crate::daemon::{self, DataDir};
use crate::http::parse_moment;
use crate::node::view::{RebuildReport, RebuiltDatabase};

/// Replay the replicated tables from the log alone, into new files; works with and without a running node
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Directory of the new files; nothing is overwritten
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Write the databases as they were at a time, into new files; works with and without a running node
#[derive(Debug, Args)]
pub(super) struct AsOfArguments {
    /// The time: 2025-03-06T09:00:00Z, 2025-03-06, or an age like 2h
    #[arg(value_parser = moment)]
    time: u64,
    /// Directory of the new files; nothing is overwritten
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// A time as people write it, in ms since 1970.
pub(super) fn moment(text: &str) -> Result<u64, String> {
    let now = daemon::clock_now().wall_ms;
    parse_moment(text, now)
        .ok_or_else(|| "write a time like 2025-03-06T09:00:00Z, 2025-03-06, or an age like 2h".into())
}

fn replay(context: &Context, out: &Path, until_ms: Option<u64>) -> Result<RebuildReport, CommandError> {
    let config = context.config(|_| {})?;
    let out = context.directory.join(out);
    let data = DataDir::at(&config.data_dir);
    if data.is_locked() {
        let time = until_ms.map(|ms| ms.to_string());
        return Client::connect(&config)?.post(
            "/api/v1/rebuild",
            &serde_json::json!({ "out": out, "time": time }),
            Some(LONG),
        );
    }
    let choice = daemon::choose(&config, &data, &context.directory, false)?;
    Ok(daemon::rebuild(&config, choice, &out, until_ms)?)
}

pub(super) fn call_as_of(context: &Context, arguments: &AsOfArguments) -> Result<(), CommandError> {
    let report = replay(context, &arguments.out, Some(arguments.time))?;
    context.output.result(&report, |report| {
        let line = |d: &RebuiltDatabase| vec![d.name.clone(), d.path.clone(), d.rows.to_string()];
        table(&["database", "new file", "rows"], &report.databases.iter().map(line).collect::<Vec<_>>())
    });
    Ok(())
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    let report = replay(context, &arguments.out, None)?;
    context.output.result(&report, |report| {
        let line = |d: &RebuiltDatabase| {
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
