//! `litemesh archive`: the end of a season, as a deliberate act.
//!
//! Invariant: exit 0 of `verify` means that every byte is what its author signed; 4 names what is not. Called by [`super`].

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use super::cleanup::{self, bytes};
use super::client::Client;
use super::error::{CommandError, Kind};
use super::output::{count, table};
use crate::daemon::{self, DataDir};
use crate::node::archive_copy::check_archive;
use crate::node::archive_view::{ArchiveView, MadeView, OriginView, RepairView, SegmentView};

/// Archive this season: move all that every member holds into segments, whatever its age, and copy them where you say.
/// Works with and without a running node
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    /// Directory for a copy that stands alone (a stick); segments that are there already are kept
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the segments, and how far each server's events lie in them
    List,
    /// Fetch what is missing or damaged of this node's archive from connected peers
    Repair,
    /// Check an archive's directory, or one segment; needs nothing else
    Verify {
        /// The directory, or a file HASH.segment
        path: PathBuf,
    },
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    match &arguments.action {
        None => make(context, arguments.out.as_ref()),
        Some(Action::List) => list(context),
        Some(Action::Repair) => repair(context),
        Some(Action::Verify { path }) => verify(context, &context.directory.join(path)),
    }
}

fn make(context: &Context, out: Option<&PathBuf>) -> Result<(), CommandError> {
    let config = context.config(|_| {})?;
    let view = cleanup::run(context, &config, None, false)?;
    let mut text = cleanup::describe(&view);
    let Some(out) = out.filter(|_| view.state == "done") else { return cleanup::report(context, &view, text) };
    let out = context.directory.join(out);
    let made: MadeView = match DataDir::at(&config.data_dir).is_locked() {
        true => Client::connect(&config)?.post("/api/v1/archive", &json!({ "out": out }), Some(super::client::LONG))?,
        false => daemon::copy_archive(&config, &out)?,
    };
    text += &format!(
        "\n{} with {} written to {} ({}); check it where it lies: litemesh archive verify {}",
        count(made.segments, "segment"),
        count(made.events, "event"),
        made.path,
        bytes(made.bytes),
        made.path
    );
    context.output.result(&json!({ "cleanup": view, "archive": made }), |_| text);
    Ok(())
}

fn repair(context: &Context) -> Result<(), CommandError> {
    let client = context.client()?;
    let mut view: RepairView = client.post("/api/v1/archive/repair", &json!({}), None)?;
    while view.state == "running" {
        std::thread::sleep(std::time::Duration::from_millis(300));
        view = client.get("/api/v1/archive/repair", &[])?;
    }
    context.output.result(&view, |view| match view.damaged {
        0 => format!("{} read: all well", count(view.looked, "block")),
        damaged => format!(
            "{} read, {damaged} missing or damaged: {} brought again by peers, {} not",
            count(view.looked, "block"),
            view.repaired,
            view.not_repaired
        ),
    });
    match view.not_repaired {
        0 => Ok(()),
        left => Err(CommandError::new(Kind::Integrity, format!("{} not repaired", count(left, "block")))
            .hint("connect a member that holds these events, or put the segment files back, and say it again")),
    }
}

fn list(context: &Context) -> Result<(), CommandError> {
    let config = context.config(|_| {})?;
    let view: ArchiveView = match DataDir::at(&config.data_dir).is_locked() {
        true => Client::connect(&config)?.get("/api/v1/archive", &[])?,
        false => daemon::list_archive(&config)?,
    };
    context.output.result(&view, |view| {
        if view.segments.is_empty() {
            return "nothing is archived: see litemesh cleanup --dry-run".to_string();
        }
        let segment = |one: &SegmentView| {
            let state = if one.present { "there" } else { "MISSING" };
            vec![one.name.clone(), one.events.to_string(), bytes(one.bytes), state.to_string()]
        };
        let origin = |one: &OriginView| {
            let short = one.origin.chars().take(8).collect();
            vec![one.node.clone(), short, one.through.to_string(), one.of.to_string()]
        };
        format!(
            "{}\n\n{}",
            table(&["segment", "events", "size", "file"], &view.segments.iter().map(segment).collect::<Vec<_>>()),
            table(&["server", "origin", "archived", "of"], &view.origins.iter().map(origin).collect::<Vec<_>>())
        )
    });
    Ok(())
}

fn verify(context: &Context, path: &std::path::Path) -> Result<(), CommandError> {
    let check = check_archive(path).map_err(daemon::DaemonError::from)?;
    let document = json!({
        "path": path, "segments": check.segments, "events": check.events, "signatures": check.signatures,
        "fault_count": check.fault_count, "faults": check.faults,
    });
    context.output.result(&document, |_| {
        let found = format!(
            "{}, {}, {} checked",
            count(check.segments, "segment"),
            count(check.events, "event"),
            count(check.signatures, "signature")
        );
        [vec![found], check.faults.clone()].concat().join("\n")
    });
    match check.fault_count {
        0 => Ok(()),
        faults => Err(CommandError::new(Kind::Integrity, format!("{} in {}", count(faults, "fault"), path.display()))
            .hint("make the archive again on a server that holds it: litemesh archive --out DIR")),
    }
}
