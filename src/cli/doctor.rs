//! `litemesh doctor`.
//!
//! Invariant: works in every state of an installation, looks only. Called by [`super`].

use clap::Args;
use serde_json::json;

use super::Context;
use super::client::Client;
use super::error::{CommandError, Kind};
use super::output::table;
use crate::daemon::{self, DataDir};
use crate::http::Check;
use crate::net;

/// Check the installation and say what to do; works with and without a running node
#[derive(Debug, Args)]
pub(super) struct Arguments {}

#[derive(serde::Deserialize)]
struct Report {
    checks: Vec<Check>,
    #[serde(default)]
    network: serde_json::Value,
}

pub(super) fn call(context: &Context, _arguments: &Arguments) -> Result<(), CommandError> {
    let config = context.config(|_| {})?;
    let data = DataDir::at(&config.data_dir);
    let (mut checks, mut network, mut running) = (Vec::new(), serde_json::Value::Null, false);
    match Client::connect(&config).and_then(|client| client.get::<Report>("/api/v1/doctor", &[])) {
        Ok(report) => (checks, network, running) = (report.checks, report.network, true),
        Err(error) => {
            let (state, next) = match error.kind {
                Kind::Unreachable => ("warning", format!("litemesh --data {} run", data.path().display())),
                _ => ("failed", String::new()),
            };
            let found = error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_string();
            checks.push(Check { check: "running node".into(), state: state.into(), found, next });
            checks.extend(daemon::checks(&config, &data));
            let line = |f: net::Finding| Check { check: f.check, state: f.state, found: f.found, next: f.next };
            checks.extend(net::look_at_interfaces().into_iter().map(line));
        }
    }
    let document = json!({ "running": running, "checks": checks, "network": network });
    context.output.result(&document, |_| {
        let line = |c: &Check| vec![c.state.clone(), c.check.clone(), c.found.clone(), c.next.clone()];
        table(&["state", "check", "found", "next"], &checks.iter().map(line).collect::<Vec<_>>())
    });
    let failed: Vec<_> =
        checks.iter().filter(|check| check.state == "failed").map(|check| check.check.as_str()).collect();
    match failed.is_empty() {
        true => Ok(()),
        false => {
            Err(CommandError::user(format!("failed: {}", failed.join(", "))).hint("do what the list says under NEXT"))
        }
    }
}
