//! `litemesh reliability`.
//!
//! Invariant: shows, changes nothing. Called by [`super`].

use clap::Args;
use serde::{Deserialize, Serialize};

use super::Context;
use super::error::CommandError;
use super::output::table;
use crate::monitor::view::ReliabilityView;

/// Show how well every peer does each operation: rates, durations, errors, score and trend
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// One peer: its name, id, or number in `peers list`
    peer: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct Servers {
    servers: Vec<ReliabilityView>,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    let client = context.client()?;
    if let Some(peer) = &arguments.peer {
        let escaped: String = peer.bytes().map(escape).collect();
        let report: ReliabilityView = client.get(&format!("/api/v1/reliability/{escaped}"), &[])?;
        context.output.result(&report, describe);
        return Ok(());
    }
    let all: Servers = client.get("/api/v1/reliability", &[])?;
    context.output.result(&all, |all| match all.servers.is_empty() {
        true => "there are no peers yet".to_string(),
        false => all.servers.iter().map(describe).collect::<Vec<_>>().join("\n\n"),
    });
    Ok(())
}

/// A byte of a name in a path.
fn escape(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    }
}

fn describe(report: &ReliabilityView) -> String {
    let head = format!("{}: {:.2} {}, {}", report.server, report.score, report.band, report.trend);
    if report.operations.is_empty() {
        return format!("{head}\n  nothing was done with it yet");
    }
    let rows: Vec<Vec<String>> = report
        .operations
        .iter()
        .map(|one| {
            vec![
                one.operation.clone(),
                format!("{:.2} {}", one.score, one.band),
                format!("{:.1} %", 100.0 * one.success_rate),
                one.success_count.to_string(),
                one.failure_count.to_string(),
                format!("{:.3} s", one.avg_duration),
                one.last_error.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let listed = table(&["operation", "score", "rate", "well", "failed", "mean", "last error"], &rows);
    let patterns = report
        .patterns
        .iter()
        .map(|one| format!("\n  {} x {} ({}): {}", one.count, one.operation, one.class, one.pattern));
    format!("{head}\n{}{}", listed.trim_end(), patterns.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_a_path() {
        let escaped: String = "pit/ä 1".bytes().map(escape).collect();
        assert_eq!(escaped, "pit%2F%C3%A4%201");
    }
}
