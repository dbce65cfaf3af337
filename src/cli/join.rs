//! `litemesh join`.
//!
//! Invariant: rows that are here already are never touched without a yes, and never at all by the join itself: the first
//! `run` does what the plan says. Called by [`super`].

use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;

use clap::Args;

use super::error::CommandError;
use super::output::count;
use super::{Context, database, meeting_text, request};
use crate::config::Config;
use crate::daemon::{self, Choice, DaemonError, DataDir, Entrance, Meetings};
use crate::node::meeting::Meeting;
use crate::wire::invite::InviteCode;

/// Enrol this data directory in a cluster; the member that made the code must be reachable
///
/// Where this server's databases hold rows already, it first becomes a member (only members may read), takes the
/// cluster's rows beside, and shows a plan; nothing here is touched before you say yes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The line that `litemesh invite` printed
    #[arg(required_unless_present_any = ["lan", "request"])]
    code: Option<String>,
    /// Where no network leads to a member: write a request to FILE (- is stdout), to be carried to one
    #[arg(long, value_name = "FILE", conflicts_with_all = ["code", "plan", "lan"])]
    request: Option<PathBuf>,
    /// Without a code: a node on the local network must just now run with `litemesh trust-lan`. Name the cluster where several
    /// could answer
    #[arg(long, value_name = "CLUSTER-NAME", num_args = 0..=1, default_missing_value = "", conflicts_with = "code")]
    lan: Option<String>,
    /// With --lan: knock at this address instead of looking around; may be repeated
    #[arg(long = "peer", value_name = "MULTIADDR", requires = "lan")]
    peers: Vec<String>,
    /// A database to replicate; may be repeated. Remembered for later starts
    #[arg(long = "db", value_name = "NAME=PATH", value_parser = database)]
    databases: Vec<(String, PathBuf)>,
    /// Name of this server for people [default: the host name]
    #[arg(long)]
    name: Option<String>,
    /// These files were never copied from the cluster's: rows with equal content are different rows
    #[arg(long, conflicts_with = "bases")]
    independent: bool,
    /// The file that both sides once started from; what each did since is put together. NAME=OLD.db says of which database
    #[arg(long = "base", value_name = "OLD.db")]
    bases: Vec<String>,
    /// Only show what would happen to the rows that are here
    #[arg(long)]
    plan: bool,
    /// Accept the plan, the one shown before or unseen
    #[arg(long)]
    yes: bool,
}

pub(super) fn call(context: &Context, arguments: Arguments) -> Result<(), CommandError> {
    let code = arguments.code.as_deref().map(InviteCode::from_text).transpose().map_err(DaemonError::from)?;
    let lan = arguments.lan.unwrap_or_default();
    let entrance = match &code {
        Some(code) => Entrance::Code(code),
        None => Entrance::Lan { cluster: &lan, addresses: &arguments.peers },
    };
    let (names, databases) = (arguments.name, arguments.databases);
    let config = context.config(|flags| {
        flags.databases = databases;
        flags.name = names;
    })?;
    let choice = choose(context, &config)?;
    let mut meetings = meetings(context, &choice, arguments.independent, &arguments.bases)?;
    if let Some(target) = arguments.request {
        return request::call(context, &config, (&choice, meetings, arguments.yes), &target);
    };
    if meetings.is_empty() && (arguments.plan || !arguments.yes) {
        // A plan without flags is one of copies; a yes without flags is to the plan that was shown.
        meetings = choice.databases.iter().map(|database| (database.name.clone(), Meeting::Copy)).collect();
    }
    let asks = arguments.plan || daemon::rows_here(&choice)? > 0 && !arguments.yes;
    let joined = daemon::admit(&config, entrance, &choice, meetings, asks)?;
    if asks {
        let notice = |held: u64| context.output.notice(&format!("{} of the cluster", count(held, "event")));
        let plan = daemon::plan_join(&config, &choice, &mut { notice })?;
        context.output.result(&plan, meeting_text::plan);
        if arguments.plan {
            let how = if code.is_some() { "CODE" } else { "--lan" };
            let next = format!("litemesh --data {} join {how} --yes", joined.data);
            context
                .output
                .notice(&format!("this server is a member now; no row was touched. To accept the plan: {next}"));
            return Ok(());
        }
        if !says_yes(context) {
            return Err(DaemonError::PlanNotAccepted.into());
        }
        daemon::accept(&config)?;
    }
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

/// A typed yes, where somebody sits at the terminal.
fn says_yes(context: &Context) -> bool {
    if context.output.json || !context.output.is_terminal() || !std::io::stdin().is_terminal() {
        return false;
    }
    context.output.notice("type \"yes\" to accept this plan:");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).is_ok() && answer.trim().eq_ignore_ascii_case("yes")
}

/// How each file is to be read.
fn meetings(context: &Context, choice: &Choice, independent: bool, bases: &[String]) -> Result<Meetings, CommandError> {
    let names: Vec<&str> = choice.databases.iter().map(|database| database.name.as_str()).collect();
    if independent {
        return Ok(names.iter().map(|name| ((*name).to_string(), Meeting::Independent)).collect());
    }
    let mut meetings = Meetings::new();
    for base in bases {
        let named = base.split_once('=').filter(|(name, _)| names.contains(name));
        let (name, path) = match named {
            Some((name, path)) => (Some(name.to_string()), context.directory.join(path)),
            None => (None, context.directory.join(base)),
        };
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let name = match (name, &names[..]) {
            (Some(name), _) => name,
            (None, [only]) => (*only).to_string(),
            (None, names) if names.contains(&stem.as_str()) => stem,
            (None, names) => return Err(DaemonError::WhichBase { path, names: names.join(", ") }.into()),
        };
        meetings.push((name, Meeting::Base(path)));
    }
    Ok(meetings)
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
