//! `litemesh verify` and `litemesh drift`.
//!
//! Invariant: exit 0 of `verify` means that every run came to its end and found nothing; each difference is named on
//! stdout, also those that were healed at once (exit 4: there was drift). Called by [`super`].

use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Context;
use super::client::Client;
use super::error::{CommandError, Kind};
use super::output::{count, one_line, table};
use crate::daemon::{self, DataDir};
use crate::model::Tier;
use crate::node::drift_view::{DriftPage, DriftPatterns, DriftView, RunView};

/// Differences that are named.
const NAMED_MAX: usize = 1_000;

/// A look at how far it is.
const LOOK: Duration = Duration::from_millis(100);

/// Compare the app's files with the log, and name each row that differs; works with and without a running node
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How deep: numbers of rows, keys, sums over all rows, or every row, record and event
    #[arg(long, value_name = "count|ids|checksum|full", default_value = "full", value_parser = tier)]
    tier: Tier,
    /// Only this database
    #[arg(long, value_name = "NAME")]
    db: Option<String>,
    /// Heal what is found although the settings say "ask"; make dropped tables again; take what waits for a person
    #[arg(long)]
    repair: bool,
    /// Only list the newest verifications
    #[arg(long, conflicts_with_all = ["repair", "db"])]
    list: bool,
}

/// Show where files and log differed, why, what became of it, and where and when it comes up
#[derive(Debug, Args)]
pub(super) struct DriftArguments {
    /// At most so many, the newest
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Only this database
    #[arg(long, value_name = "NAME")]
    db: Option<String>,
    /// Only what waits for a person
    #[arg(long)]
    waiting: bool,
}

fn tier(word: &str) -> Result<Tier, String> {
    Tier::parse(word).ok_or_else(|| "write count, ids, checksum or full".to_string())
}

#[derive(Deserialize, Serialize)]
struct Runs {
    runs: Vec<RunView>,
}

#[derive(Deserialize)]
struct Ordered {
    runs: Vec<u64>,
}

/// What `verify` prints.
#[derive(Serialize)]
struct Report {
    equal: bool,
    runs: Vec<RunView>,
    drift: Vec<DriftView>,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    let config = context.config(|_| {})?;
    let data = DataDir::at(&config.data_dir);
    if arguments.list {
        let runs: Runs = Client::connect(&config)?.get("/api/v1/verify", &[])?;
        context.output.result(&runs, |runs| list(&runs.runs));
        return Ok(());
    }
    let (runs, drift) = if data.is_locked() {
        with_node(&Client::connect(&config)?, arguments)?
    } else {
        let choice = daemon::choose(&config, &data, &context.directory, false)?;
        let bar = progress();
        let order = (arguments.db.as_deref(), arguments.tier, arguments.repair);
        let verified = daemon::verify_files(&config, choice, order, &mut |runs| show(&bar, runs));
        bar.finish_and_clear();
        verified?
    };
    let failed: Vec<&RunView> = runs.iter().filter(|run| run.state == "failed").collect();
    if let Some(run) = failed.first() {
        let message = format!("the verification of database {} could not end: {}", run.database, run.reason);
        return Err(CommandError::user(message).hint("see litemesh status; then verify again"));
    }
    let found: u64 = runs.iter().map(|run| run.drift).sum();
    let healed: u64 = runs.iter().map(|run| run.healed).sum();
    let report = Report { equal: found == 0, runs, drift };
    context.output.result(&report, describe);
    if report.equal {
        return Ok(());
    }
    let left = found.saturating_sub(healed);
    let error = CommandError::new(Kind::Integrity, format!("{} found, {healed} healed", count(found, "difference")));
    Err(match left {
        0 => error.hint("verify again: it should find nothing now").hint("see why: litemesh drift"),
        _ => error.hint("heal the rest: litemesh verify --repair").hint("see why: litemesh drift"),
    })
}

fn with_node(client: &Client, arguments: &Arguments) -> Result<(Vec<RunView>, Vec<DriftView>), CommandError> {
    let body = json!({ "tier": arguments.tier.word(), "db": arguments.db, "repair": arguments.repair });
    let ordered: Ordered = client.post("/api/v1/verify", &body, None)?;
    let bar = progress();
    let runs = loop {
        let all: Runs = client.get("/api/v1/verify", &[("limit", "200".to_string())])?;
        let runs: Vec<RunView> = all.runs.into_iter().filter(|run| ordered.runs.contains(&run.number)).collect();
        show(&bar, &runs);
        if runs.iter().all(|run| run.state == "done" || run.state == "failed") {
            break runs;
        }
        std::thread::sleep(LOOK);
    };
    bar.finish_and_clear();
    let mut drift = Vec::new();
    for run in runs.iter().filter(|run| run.drift > 0) {
        let query = [("run", run.number.to_string()), ("limit", NAMED_MAX.to_string())];
        let page: DriftPage = client.get("/api/v1/drift", &query)?;
        drift.extend(page.drift);
    }
    Ok((runs, drift))
}

fn progress() -> indicatif::ProgressBar {
    let bar = indicatif::ProgressBar::new(1_000);
    if let Ok(style) = indicatif::ProgressStyle::with_template("{wide_bar} {percent} % {msg}") {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &indicatif::ProgressBar, runs: &[RunView]) {
    let all: f64 = runs.iter().map(|run| if run.state == "failed" { 1.0 } else { run.progress }).sum();
    bar.set_position((all / runs.len().max(1) as f64 * 1_000.0) as u64);
    if let Some(run) = runs.iter().find(|run| run.state == "running") {
        bar.set_message(format!("{} ({}): {}", run.database, run.tier, count(run.rows, "row")));
    }
}

fn describe(report: &Report) -> String {
    let mut text = String::new();
    for run in &report.runs {
        let rows = count(run.rows, "row");
        let tables = count(run.tables, "table");
        text += &match run.drift {
            0 => format!("{}: equal ({}: {tables}, {rows} looked at)\n", run.database, run.tier),
            drift => format!(
                "{}: {} ({}: {tables}, {rows} looked at), {} healed\n",
                run.database,
                count(drift, "difference"),
                run.tier,
                run.healed
            ),
        };
        if run.unsettled > 0 {
            let rows = count(run.unsettled, "row");
            text +=
                &format!("  {rows} kept changing: nothing can be said of them; verify again when the app is quieter\n");
        }
        for note in &run.notes {
            text += &format!("  {note}\n");
        }
    }
    for drift in &report.drift {
        text += &format!("{}\n", one_line(&drift.sentence));
    }
    text
}

fn list(runs: &[RunView]) -> String {
    let line = |run: &RunView| {
        vec![
            run.number.to_string(),
            run.started.clone(),
            run.database.clone(),
            run.tier.clone(),
            if run.by_hand { "a person" } else { "schedule" }.to_string(),
            if run.state == "running" { format!("{:.0} %", run.progress * 100.0) } else { run.state.clone() },
            run.rows.to_string(),
            run.drift.to_string(),
            run.healed.to_string(),
        ]
    };
    let headings = ["number", "started", "database", "tier", "by", "state", "rows", "drift", "healed"];
    table(&headings, &runs.iter().map(line).collect::<Vec<_>>())
}

pub(super) fn call_drift(context: &Context, arguments: &DriftArguments) -> Result<(), CommandError> {
    let mut query = vec![("limit", arguments.limit.to_string()), ("waiting", arguments.waiting.to_string())];
    query.extend(arguments.db.clone().map(|db| ("db", db)));
    let page: DriftPage = context.client()?.get("/api/v1/drift", &query)?;
    context.output.result(&page, describe_drift);
    Ok(())
}

fn describe_drift(page: &DriftPage) -> String {
    if page.drift.is_empty() {
        return format!("no drift is known on {}", page.node);
    }
    let mut text = String::new();
    for drift in &page.drift {
        let state = match (drift.action.as_str(), drift.healed.is_empty()) {
            ("waits", _) => "WAITS",
            (_, true) => "healing",
            (_, false) => "healed",
        };
        text += &format!("{:>5}  {}  {state:7}  {}\n", drift.number, drift.found, one_line(&drift.sentence));
    }
    text + &describe_patterns(&page.patterns)
}

fn describe_patterns(patterns: &DriftPatterns) -> String {
    let most = |list: &[(String, u64)]| {
        list.iter().take(6).map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    };
    let hours = patterns.hours.iter().take(6).map(|(hour, count)| format!("{hour}:00 {count}")).collect::<Vec<_>>();
    let mut text = format!(
        "\nby table: {}\nby cause: {}\nby hour:  {}\n",
        most(&patterns.tables),
        most(&patterns.causes),
        hours.join(", ")
    );
    for sentence in &patterns.sentences {
        text += &format!("{sentence}\n");
    }
    text
}
