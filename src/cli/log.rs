//! `litemesh log` and `litemesh log verify`.
//!
//! Invariant: `--follow` misses nothing and repeats nothing: it goes on from the arrival number of the page before.
//! Called by [`super`].

use std::time::Duration;

use clap::{Args, Subcommand};

use super::client::LONG;
use super::error::{CommandError, HEAL, Kind};
use super::output::{count, one_line, pairs};
use super::rebuild::moment;
use super::{Context, client::Client};
use crate::daemon::{self, DataDir};
use crate::node::view::{EventPage, EventView, LogReport};

/// How often `--follow` looks for more.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Show the event log, oldest first
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    /// Only this database
    #[arg(long)]
    db: Option<String>,
    /// Only events that change this table
    #[arg(long)]
    table: Option<String>,
    /// Only what this node captured: its name, or the beginning of the origin's id
    #[arg(long)]
    origin: Option<String>,
    /// Only from this time on: 2025-03-06T09:00:00Z, 2025-03-06, or an age like 2h
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<u64>,
    /// Only before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<u64>,
    /// At most this many, the newest
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
    /// Go on showing events as they arrive, until Ctrl-C
    #[arg(long)]
    follow: bool,
    #[command(subcommand)]
    check: Option<Check>,
}

#[derive(Debug, Subcommand)]
enum Check {
    /// Check every hash chain and signature; works with and without a running node
    Verify,
}

pub(super) fn call(context: &Context, arguments: Arguments) -> Result<(), CommandError> {
    if arguments.check.is_some() {
        return verify(context);
    }
    let client = context.client()?;
    let page: EventPage = client.get("/api/v1/events", &query(&arguments, None))?;
    if !arguments.follow {
        context.output.result(&page, |page| page.events.iter().map(describe).collect::<Vec<_>>().join("\n"));
        return Ok(());
    }
    follow(context, &client, &arguments, page)
}

fn follow(context: &Context, client: &Client, arguments: &Arguments, mut page: EventPage) -> Result<(), CommandError> {
    loop {
        for event in &page.events {
            if context.output.json { context.output.line(event) } else { context.output.text(&describe(event)) }
        }
        if page.events.is_empty() {
            std::thread::sleep(LOOK_AGAIN);
        }
        page = client.get("/api/v1/events", &query(arguments, Some(page.last_arrival)))?;
    }
}

fn query(arguments: &Arguments, after: Option<u64>) -> Vec<(&'static str, String)> {
    let number = |n: Option<u64>| n.map(|n| n.to_string());
    [
        ("db", arguments.db.clone()),
        ("table", arguments.table.clone()),
        ("origin", arguments.origin.clone()),
        ("since", number(arguments.since)),
        ("until", number(arguments.until)),
        ("limit", number(Some(arguments.limit))),
        ("after", number(after)),
    ]
    .into_iter()
    .filter_map(|(name, value)| value.map(|value| (name, value)))
    .collect()
}

fn describe(event: &EventView) -> String {
    let origin: String = event.origin.chars().take(8).collect();
    let mut text = format!("{}  {} {origin}:{}  {}", event.time, event.node, event.seq, event.database);
    if !event.note.is_empty() {
        text += &format!("\n    {}", one_line(&event.note));
    }
    for (index, change) in event.changes.iter().enumerate() {
        let id = if change.id.is_empty() { &change.row } else { &change.id };
        let said = pairs(&change.cells);
        text += &format!("\n    :{index}  {} {} {}  {said}", change.operation, change.table, one_line(id));
    }
    text
}

fn verify(context: &Context) -> Result<(), CommandError> {
    let config = context.config(|_| {})?;
    let report: LogReport = if DataDir::at(&config.data_dir).is_locked() {
        Client::connect(&config)?.post("/api/v1/log/verify", &serde_json::json!({}), Some(LONG))?
    } else {
        daemon::verify_log(&config)?
    };
    context.output.result(&report, |report| {
        let (events, origins) = (count(report.events, "event"), count(report.origins, "origin"));
        let verdict = if report.faults.is_empty() { "every hash and signature is right" } else { "DAMAGED" };
        let faults: String = report.faults.iter().map(|fault| format!("\n    {fault}")).collect();
        format!("{events} of {origins} checked ({} bytes): {verdict}{faults}", report.bytes)
    });
    match report.faults.len() {
        0 => Ok(()),
        number => {
            Err(CommandError::new(Kind::Integrity, format!("{} in the log", count(number as u64, "fault"))).hint(HEAL))
        }
    }
}
