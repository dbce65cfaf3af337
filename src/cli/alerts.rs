//! `litemesh alerts`.
//!
//! Invariant: shows; only `test` tells somebody something. Called by [`super`].

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Context;
use super::error::CommandError;
use super::output::table;
use crate::monitor::alert_store::AlertView;
use crate::monitor::deliver::Delivery;

/// Show what needs a person, and what is over; try whether alerts arrive
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// What needs a person now, and what is over
    List,
    /// Tell a test by every channel of [alerts], and say whether it was taken
    Test,
}

#[derive(Deserialize, Serialize)]
struct Listed {
    alerts: Vec<AlertView>,
    past: Vec<AlertView>,
    channels: Vec<String>,
}

#[derive(Deserialize, Serialize)]
struct Tested {
    channels: Vec<Delivery>,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    match arguments.what {
        Some(What::Test) => test(context),
        Some(What::List) | None => {
            let listed: Listed = context.client()?.get("/api/v1/alerts", &[])?;
            context.output.result(&listed, describe);
            Ok(())
        }
    }
}

fn test(context: &Context) -> Result<(), CommandError> {
    let tested: Tested = context.client()?.post("/api/v1/alerts/test", &json!({}), None)?;
    if tested.channels.is_empty() {
        return Err(CommandError::user("[alerts] names neither a webhook nor a mail server")
            .hint("set alerts.webhook, or alerts.smtp, smtp_from and smtp_to, in litemesh.toml and start again"));
    }
    context.output.result(&tested, |tested| {
        let words = |one: &Delivery| match one.ok {
            true => format!("{}: taken", one.channel),
            false => format!("{}: {}", one.channel, one.detail),
        };
        tested.channels.iter().map(words).collect::<Vec<_>>().join("\n")
    });
    match tested.channels.iter().find(|one| !one.ok) {
        None => Ok(()),
        Some(failed) => Err(CommandError::user(format!("the test did not arrive by {}", failed.channel))
            .hint("correct [alerts] in litemesh.toml, or start the server that it names")),
    }
}

fn describe(listed: &Listed) -> String {
    let line = |alert: &AlertView| {
        let until = alert.recovered_at.clone().unwrap_or_else(|| "now".to_string());
        vec![alert.severity.clone(), alert.raised_at.clone(), until, alert.message.clone(), alert.next_step.clone()]
    };
    let rows: Vec<Vec<String>> = listed.alerts.iter().chain(&listed.past).map(line).collect();
    let head = match listed.alerts.len() {
        0 => "nothing needs a person".to_string(),
        1 => "1 alert".to_string(),
        many => format!("{many} alerts"),
    };
    let told = if listed.channels.is_empty() {
        "told by: this list and the log (set [alerts] for a webhook or mail)".to_string()
    } else {
        format!("told by: {}", listed.channels.join(", "))
    };
    match rows.is_empty() {
        true => format!("{head}; {told}"),
        false => format!("{head}; {told}\n{}", table(&["severity", "since", "until", "what", "next"], &rows)),
    }
}
