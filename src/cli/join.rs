//! `litemesh join`.
//!
//! Invariant: rows that are here already are never touched without `--yes`, and never at all by the join itself: the
//! first `run` does what the plan says. Called by [`super`].

use std::path::PathBuf;

use clap::Args;

use super::error::CommandError;
use super::output::{count, table};
use super::{Context, database};
use crate::config::Config;
use crate::daemon::{self, Choice, DaemonError, DataDir, JoinPlan};
use crate::wire::invite::InviteCode;

/// Enrol this data directory in a cluster; the member that made the code must be reachable
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The line that `litemesh invite` printed
    code: String,
    /// A database to replicate; may be repeated. Remembered for later starts
    #[arg(long = "db", value_name = "NAME=PATH", value_parser = database)]
    databases: Vec<(String, PathBuf)>,
    /// Name of this server for people [default: the host name]
    #[arg(long)]
    name: Option<String>,
    /// Treat rows with equal content as different rows
    #[arg(long, hide = true)]
    independent: bool,
    /// The file that both sides once started from
    #[arg(long, value_name = "OLD.db", hide = true)]
    base: Option<PathBuf>,
    /// Only show what would happen to the rows that are here
    #[arg(long)]
    plan: bool,
    /// Accept the plan
    #[arg(long)]
    yes: bool,
}

pub(super) fn call(context: &Context, arguments: Arguments) -> Result<(), CommandError> {
    if arguments.independent || arguments.base.is_some() {
        let flag = if arguments.independent { "--independent" } else { "--base" };
        return Err(CommandError::usage(format!("{flag} comes with a later version"))
            .hint("leave it out: rows with equal content are recognised as the same row"));
    }
    let code = InviteCode::from_text(&arguments.code).map_err(DaemonError::from)?;
    let (names, databases) = (arguments.name, arguments.databases);
    let config = context.config(|flags| {
        flags.databases = databases;
        flags.name = names;
    })?;
    let choice = choose(context, &config)?;
    let plan = daemon::plan(&choice)?;
    if arguments.plan {
        context.output.result(&plan, describe);
        return Ok(());
    }
    if plan.rows > 0 && !arguments.yes {
        context.output.result(&plan, describe);
        return Err(DaemonError::PlanNotAccepted.into());
    }
    let joined = daemon::join(&config, &code, &choice)?;
    context.output.result(&joined, |joined| {
        let (name, cluster) = (&joined.name, &joined.cluster_name);
        format!(
            "node {name} ({}) joined the cluster \"{cluster}\": {}",
            &joined.node_id[..8],
            count(joined.members as u64, "member")
        )
    });
    context.output.notice(&format!("next: litemesh --data {} run", joined.data));
    Ok(())
}

/// A node may join before its databases are named: `run --db` names them then.
fn choose(context: &Context, config: &Config) -> Result<Choice, CommandError> {
    match daemon::choose(config, &DataDir::at(&config.data_dir), &context.directory, false) {
        Ok(choice) => Ok(choice),
        Err(DaemonError::NoDatabases { .. }) => {
            context.output.notice("no database is named yet: name them at the start with litemesh run --db NAME=PATH");
            Ok(Choice { databases: Vec::new(), source: String::new() })
        }
        Err(error) => Err(error.into()),
    }
}

fn describe(plan: &JoinPlan) -> String {
    let mut text = String::new();
    for database in &plan.databases {
        text += &format!("database {} ({}): {}\n", database.name, database.path, count(database.rows, "row"));
        let rows: Vec<_> =
            database.tables.iter().map(|(name, rows, how)| vec![name.clone(), rows.to_string(), how.clone()]).collect();
        text += &format!("{}\n\n", table(&["table", "rows here", "told apart"], &rows));
    }
    text + "Rows whose content is the same here and in the cluster are recognised as the same row: nothing moves.\n\
            Rows that are only here go to every member, rows that are only there come here.\n\
            Different rows that have the same id are both kept; the one of the member that joined later (this one) gets\n\
            another id, and everything that refers to it follows. No row is deleted or overwritten."
}
