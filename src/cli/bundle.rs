//! `litemesh bundle`.
//!
//! Invariant: works with and without a running node; a bundle on stdout is alone there. Called by [`super`].

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use super::client::{Client, LONG};
use super::error::{CommandError, Kind};
use super::output::{count, table};
use crate::config::Config;
use crate::daemon::{self, DataDir, Outlet};
use crate::node::bundle_view::{BundleView, ExportView, ImportView};
use crate::node::bundle_write::BUNDLE_ENDING;

/// Sync by file, for places without a network: on a stick, by mail, through a pipe
///
/// A bundle is encrypted to the cluster's members and signed by the server that made it. It can be imported any number of
/// times, in any order, on any member.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Write a bundle to a file, into a directory under a name of its own, or to stdout (-)
    Export {
        /// File, directory, or -
        target: PathBuf,
        /// Only what this member is not known to hold, for it alone: name, id, or number in `peers list`
        #[arg(long = "for", value_name = "PEER")]
        made_for: Option<String>,
    },
    /// Take a bundle from a file or stdin (-), or all new ones of a directory
    Import {
        /// File, directory, or -
        source: PathBuf,
    },
    /// Show who made a bundle, when, for whom, and what is in it; store nothing
    Inspect {
        /// File, or -
        file: PathBuf,
    },
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    let config = context.config(|_| {})?;
    match &arguments.what {
        What::Export { target, made_for } => export(context, &config, target, made_for.as_deref()),
        What::Import { source } => import(context, &config, source),
        What::Inspect { file } => inspect(context, &config, file),
    }
}

fn runs(config: &Config) -> bool {
    DataDir::at(&config.data_dir).is_locked()
}

fn export(context: &Context, config: &Config, target: &Path, made_for: Option<&str>) -> Result<(), CommandError> {
    if target == Path::new("-") {
        return export_to_stdout(context, config, made_for);
    }
    let path = context.directory.join(target);
    let made: ExportView = if runs(config) {
        let order = json!({ "path": path, "for": made_for });
        Client::connect(config)?.post("/api/v1/bundle/export", &order, Some(LONG))?
    } else {
        daemon::export_bundle(config, &context.directory, made_for, Outlet::Path(&path))?
    };
    context.output.result(&made, |made| format!("{}: {}", made.path, describe_export(made)));
    context.output.notice("next: on the other server: litemesh bundle import FILE");
    Ok(())
}

fn describe_export(made: &ExportView) -> String {
    let readers = match made.made_for.as_str() {
        "" => format!("for all {}", count(made.readers.into(), "member")),
        name => format!("for {name}"),
    };
    format!("{}, {} bytes, {readers}", count(made.events, "event"), made.bytes)
}

fn export_to_stdout(context: &Context, config: &Config, made_for: Option<&str>) -> Result<(), CommandError> {
    let unwritable = |error: std::io::Error| CommandError::user("stdout cannot be written").because(&error);
    let mut out = std::io::stdout().lock();
    let made: ExportView = if runs(config) {
        let spool = daemon::spool(config, None)?;
        let order = json!({ "path": spool.path(), "for": made_for });
        let made = Client::connect(config)?.post("/api/v1/bundle/export", &order, Some(LONG))?;
        std::fs::File::open(spool.path())
            .and_then(|mut file| std::io::copy(&mut file, &mut out))
            .map_err(unwritable)?;
        made
    } else {
        daemon::export_bundle(config, &context.directory, made_for, Outlet::Stream(&mut out))?
    };
    out.flush().map_err(unwritable)?;
    context.output.notice(&describe_export(&made));
    Ok(())
}

fn import(context: &Context, config: &Config, source: &Path) -> Result<(), CommandError> {
    let path = context.directory.join(source);
    if path.is_dir() {
        return import_directory(context, config, &path);
    }
    let taken = if source == Path::new("-") {
        let spool = daemon::spool(config, Some(&mut std::io::stdin().lock()))?;
        take(config, spool.path(), false)?
    } else {
        take(config, &path, false)?
    };
    context.output.result(&taken, describe_import);
    tell_next(context, config, taken.entered);
    incomplete(&taken.bundle.gaps)
}

fn take(config: &Config, path: &Path, news_only: bool) -> Result<ImportView, CommandError> {
    if runs(config) {
        let order = json!({ "path": path, "news_only": news_only });
        return Client::connect(config)?.post("/api/v1/bundle/import", &order, Some(LONG));
    }
    Ok(daemon::import_bundle(config, path, news_only)?)
}

fn tell_next(context: &Context, config: &Config, entered: bool) {
    let shown = config.data_dir.display();
    if entered {
        context.output.notice(&format!("this server is a member now; next: litemesh --data {shown} run"));
    } else if !runs(config) {
        context.output.notice(&format!("shown in the app's files by the next: litemesh --data {shown} run"));
    }
}

/// What is behind a gap was not taken: that is no success.
fn incomplete(gaps: &[String]) -> Result<(), CommandError> {
    match gaps {
        [] => Ok(()),
        gaps => Err(CommandError::user(format!("not all of it could be taken: {}", gaps.join("; ")))
            .hint("export one that goes further back there (without --for), and import that")),
    }
}

/// All bundles of a directory, until none of them brings anything more: one may close the gap before another.
fn import_directory(context: &Context, config: &Config, folder: &Path) -> Result<(), CommandError> {
    let unreadable =
        |error: std::io::Error| CommandError::user(format!("cannot read {}", folder.display())).because(&error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|ending| ending == BUNDLE_ENDING) {
            files.push(path);
        }
    }
    files.sort();
    let mut taken: Vec<ImportView> = Vec::new();
    let mut refused: Vec<(PathBuf, CommandError)> = Vec::new();
    loop {
        refused.clear();
        let mut more = false;
        for path in &files {
            match take(config, path, true) {
                Ok(view) if view.nothing_new => {}
                Ok(view) => {
                    more |= view.taken > 0 || view.entered;
                    taken.retain(|earlier| earlier.bundle.path != view.bundle.path || earlier.taken > 0);
                    taken.push(view);
                }
                Err(error) if error.kind == Kind::Unreachable => return Err(error),
                Err(error) => refused.push((path.clone(), error)),
            }
        }
        if !more {
            break;
        }
    }
    let events = taken.iter().map(|view| view.taken).sum::<u64>();
    let document = json!({
        "bundles": files.len(),
        "taken": events,
        "imported": taken,
        "refused": refused.iter().map(|(path, error)| json!({ "path": path, "why": error.to_string() })).collect::<Vec<_>>(),
    });
    context.output.result(&document, |_| {
        let mut text: String =
            taken.iter().map(|view| format!("{}: {}\n", view.bundle.path, describe_import(view))).collect();
        text += &format!(
            "{} from {} in {}",
            count(events, "new event"),
            count(files.len() as u64, "bundle"),
            folder.display()
        );
        text
    });
    for (path, error) in &refused {
        context.output.notice(&format!("{}: {error}", path.display()));
    }
    tell_next(context, config, taken.iter().any(|view| view.entered));
    if refused.iter().any(|(_, error)| error.kind == Kind::Integrity) {
        return Err(
            CommandError::new(Kind::Integrity, "damaged bundles were refused, see above").hint("copy them again")
        );
    }
    // What a later one closed is no gap any more.
    let last = taken.iter().rev().take_while(|view| view.taken == 0);
    incomplete(&last.flat_map(|view| view.bundle.gaps.clone()).collect::<Vec<_>>())
}

fn describe_import(taken: &ImportView) -> String {
    let bundle = &taken.bundle;
    let mut text = format!(
        "{} of {} from {} (made {}): ",
        count(taken.taken, "new event"),
        bundle.events,
        bundle.exporter,
        bundle.created
    );
    let tables: Vec<String> = bundle.tables.iter().map(|one| format!("{} {}", one.table, one.changes)).collect();
    text += &if tables.is_empty() { "nothing that was not here".to_string() } else { tables.join(", ") };
    if taken.entered {
        text += &format!("\nentered the cluster \"{}\" ({})", bundle.cluster, short(&bundle.cluster_id));
    }
    text
}

fn inspect(context: &Context, config: &Config, file: &Path) -> Result<(), CommandError> {
    let look = |path: &Path| -> Result<BundleView, CommandError> {
        if runs(config) {
            return Client::connect(config)?.post("/api/v1/bundle/inspect", &json!({ "path": path }), Some(LONG));
        }
        Ok(daemon::inspect_bundle(config, path)?)
    };
    let bundle = if file == Path::new("-") {
        look(daemon::spool(config, Some(&mut std::io::stdin().lock()))?.path())?
    } else {
        look(&context.directory.join(file))?
    };
    context.output.result(&bundle, describe);
    Ok(())
}

fn describe(bundle: &BundleView) -> String {
    let readers = if bundle.made_for.is_empty() { "all members" } else { &bundle.made_for };
    let mut text = format!(
        "made by  {} ({}) at {}, for {readers}\ncluster  {} ({})\nholds    {}, {} bytes; {} new here\n",
        bundle.exporter,
        short(&bundle.exporter_id),
        bundle.created,
        bundle.cluster,
        short(&bundle.cluster_id),
        count(bundle.events, "event"),
        bundle.bytes,
        bundle.new_events
    );
    let origins: Vec<Vec<String>> = bundle
        .origins
        .iter()
        .map(|one| {
            let events = format!("{} to {}", one.after + 1, one.through);
            vec![one.node.clone(), short(&one.origin), events, one.held.to_string()]
        })
        .collect();
    text += &format!("\n{}\n", table(&["author", "origin", "events", "held here"], &origins));
    let tables: Vec<Vec<String>> = bundle
        .tables
        .iter()
        .map(|one| vec![one.database.clone(), one.table.clone(), one.changes.to_string(), one.inserts.to_string()])
        .collect();
    text += &format!("\n{}\n", table(&["database", "table", "changes", "of them new rows"], &tables));
    if !bundle.new_members.is_empty() {
        text += &format!("\nmembers not known here: {}\n", bundle.new_members.join(", "));
    }
    for gap in &bundle.gaps {
        text += &format!("\n{gap}\n");
    }
    text
}

/// Enough of an id for people.
fn short(id: &str) -> String {
    id.chars().take(8).collect()
}
