//! `litemesh eject`.
//!
//! Invariant: refuses while the node runs; removes litemesh's own triggers and tables and nothing else. Called by
//! [`super`].

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::error::CommandError;
use super::output::{count, table};
use super::{Context, database};
use crate::daemon::{self, DaemonError, DataDir};

/// Remove every trigger and table of litemesh from the app's databases
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A database to free; may be repeated [default: all that this node knows]
    #[arg(long = "db", value_name = "NAME=PATH", value_parser = database)]
    databases: Vec<(String, PathBuf)>,
}

pub(super) fn call(context: &Context, arguments: Arguments) -> Result<(), CommandError> {
    let config = context.config(|flags| flags.databases = arguments.databases)?;
    let choice = daemon::choose(&config, &DataDir::at(&config.data_dir), &context.directory, false)?;
    let reports = daemon::eject(&config, &choice).map_err(|error| match error {
        DaemonError::AlreadyRunning { pid } => {
            CommandError::user(format!("the node is running, pid {pid}: it would put its triggers back"))
                .hint(format!("stop it (kill {pid}), then repeat litemesh eject"))
        }
        other => other.into(),
    })?;
    let document = json!({ "databases": reports.iter().map(|(name, report)| json!({ "name": name, "report": report })).collect::<Vec<_>>() });
    context.output.result(&document, |_| {
        let lines: Vec<_> = reports
            .iter()
            .map(|(name, r)| {
                vec![name.clone(), r.triggers.to_string(), r.tables.len().to_string(), r.journal_mode.clone()]
            })
            .collect();
        table(&["database", "triggers removed", "tables removed", "journal mode"], &lines)
    });
    for (name, report) in &reports {
        if report.marks_dropped > 0 {
            let rows = count(report.marks_dropped, "captured row");
            context.output.notice(&format!(
                "{name}: {rows} had not reached the log; the rows stay in the file, and were sent to nobody"
            ));
        }
        if !report.journal_restored {
            context.output.notice(&format!(
                "{name}: the journal mode stays {} while another program has the file open: stop it and eject again",
                report.journal_mode
            ));
        }
    }
    Ok(())
}
