//! `litemesh cleanup`.
//!
//! Invariant: nothing is dropped, so nothing is asked; exit 0 means that all that may be moved was. Called by [`super`].

use clap::Args;
use serde_json::json;

use super::Context;
use super::client::Client;
use super::error::{CommandError, Kind};
use super::output::{count, table};
use crate::config::Config;
use crate::daemon::{self, DataDir};
use crate::http::CleanupReply;
use crate::node::archive_view::{BlockingView, CleanupView};

/// Move old events that every member holds into compressed segments; nothing is lost. Works with and without a running
/// node; without one, the log's file shrinks too
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Younger events stay in the log [default: the setting retention.days_to_keep, 30]
    #[arg(long, value_name = "DAYS")]
    days_to_keep: Option<u32>,
    /// Say what would be moved, and who it waits for; move nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    let config = context.config(|_| {})?;
    let days = arguments.days_to_keep.unwrap_or(config.retention.days_to_keep);
    let view = run(context, &config, Some(days), arguments.dry_run)?;
    report(context, &view, describe(&view))
}

/// Prints a cleanup; one that failed is an error.
pub(super) fn report(context: &Context, view: &CleanupView, text: String) -> Result<(), CommandError> {
    let reply: CleanupReply = view.clone().into();
    context.output.result(&reply, |_| text);
    match view.state.as_str() {
        "failed" => Err(CommandError::new(Kind::Integrity, format!("the cleanup stopped: {}", view.problem))
            .hint("nothing is lost: what was not moved is where it was; see litemesh log verify")),
        _ => Ok(()),
    }
}

/// Cleans up and waits until it is over. `days`: `None` for whatever the age.
pub(super) fn run(
    context: &Context,
    config: &Config,
    days: Option<u32>,
    dry_run: bool,
) -> Result<CleanupView, CommandError> {
    if !DataDir::at(&config.data_dir).is_locked() {
        return Ok(daemon::cleanup(config, days, dry_run, &mut |view| tell(context, view))?);
    }
    let client = Client::connect(config)?;
    let body = json!({ "days_to_keep": days, "all": days.is_none(), "dry_run": dry_run, "wait_s": 2.0 });
    let mut reply: CleanupReply = client.post("/api/v1/cleanup", &body, None)?;
    while reply.cleanup.state == "running" {
        tell(context, &reply.cleanup);
        std::thread::sleep(std::time::Duration::from_secs(1));
        reply = client.get("/api/v1/cleanup", &[])?;
    }
    Ok(reply.cleanup)
}

fn tell(context: &Context, view: &CleanupView) {
    context.output.notice(&format!("{} of {} events moved", view.removed, view.wanted));
}

pub(super) fn describe(view: &CleanupView) -> String {
    let mut text = match view.state.as_str() {
        "planned" => format!("{} would be moved into segments", count(view.wanted, "event")),
        _ if view.removed == 0 => "nothing was old enough and held by all: nothing moved".to_string(),
        _ => format!(
            "{} moved into {}: {} instead of {}",
            count(view.removed, "event"),
            count(view.segments, "segment"),
            bytes(view.bytes),
            bytes(view.hot_bytes)
        ),
    };
    if view.log_bytes_after > 0 {
        text +=
            &format!("\nthe log's file: {} before, {} now", bytes(view.log_bytes_before), bytes(view.log_bytes_after));
    } else if view.removed > 0 {
        text += "\nthe room in the log's file is used again by what comes; to give it back to the disk, run this while the \
                 node is stopped, or restart it after a large cleanup";
    }
    if view.blocked > 0 {
        text +=
            &format!("\n\n{} wait, because not every member is known to hold them:\n", count(view.blocked, "event"));
        let line = |one: &BlockingView| {
            let heard = if one.heard.is_empty() { "never" } else { &one.heard };
            vec![one.name.clone(), one.lacks.to_string(), heard.to_string()]
        };
        text += &table(&["member", "lacks", "last heard"], &view.blocking.iter().map(line).collect::<Vec<_>>());
        text += "\nconnect it, carry it a bundle, or revoke it if it is gone for good: litemesh peers revoke NAME";
    }
    text
}

/// `12.3 MB`.
pub(super) fn bytes(number: u64) -> String {
    match number {
        0..1_000 => format!("{number} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", number as f64 / 1e3),
        _ => format!("{:.1} MB", number as f64 / 1e6),
    }
}
