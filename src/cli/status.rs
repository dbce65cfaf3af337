//! `litemesh status`.
//!
//! Invariant: the document is the API's, unchanged. Called by [`super`].

use std::time::Duration;

use clap::Args;

use super::Context;
use super::cleanup::bytes;
use super::error::CommandError;
use super::output::{count, table};
use crate::node::view::{JoiningView, Status};

/// Show node, databases, peers, and what exists only here
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Draw again each second, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    let client = context.client()?;
    loop {
        let status: Status = client.get("/api/v1/status", &[])?;
        if !arguments.watch {
            context.output.result(&status, describe);
            return Ok(());
        }
        if context.output.json {
            context.output.line(&status);
        } else {
            let clear = if context.output.is_terminal() { "\x1b[H\x1b[2J" } else { "" };
            context.output.text(&format!("{clear}{}\n", describe(&status)));
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

pub(super) fn describe(status: &Status) -> String {
    let (node, cluster) = (&status.node, &status.cluster);
    let up = humantime::format_duration(Duration::from_secs(node.uptime_s));
    let mut text = format!(
        "node     {} ({}), up {up}, rank {}, slot {}\n",
        node.name,
        short(&node.id),
        node.origin_rank,
        node.slot
    );
    text +=
        &format!("cluster  {} ({}), {}\n", cluster.name, short(&cluster.id), count(cluster.members.into(), "member"));
    let rows: Vec<_> = status
        .databases
        .iter()
        .map(|d| {
            let numbers = [d.rows, d.events, d.outbox, d.held_events, d.conflicts, d.shelved].map(|n| n.to_string());
            [vec![d.name.clone(), d.tables.to_string()], numbers.to_vec(), vec![short(&d.digest), d.state.clone()]]
                .concat()
        })
        .collect();
    let headings =
        ["database", "tables", "rows", "events", "to log", "held", "conflicts", "shelved", "content", "state"];
    text += &format!("\n{}\n", table(&headings, &rows));
    text += &format!("\n{}\n", peers(status));
    text += &status.joining.as_ref().map(joining).unwrap_or_default();
    text += &transfers(status);
    text += &disk(status);
    text += &match status.only_here.events {
        0 => "\nnothing exists only here\n".to_string(),
        events => format!(
            "\nonly here: {} ({}{} changed): keep this machine on until a peer has them; by table: litemesh receipts\n",
            count(events, "event"),
            if status.only_here.counted_all { "" } else { "more than " },
            count(status.only_here.rows, "row")
        ),
    };
    for alert in &status.alerts {
        text += &format!("\nALERT {alert}");
    }
    text
}

/// What it all takes, and a cleanup under way.
fn disk(status: &Status) -> String {
    let (disk, cleanup) = (&status.disk, &status.cleanup);
    let mut text = format!("\ndisk: log {}", bytes(disk.log_bytes));
    if disk.segments > 0 {
        let events = count(disk.segment_events, "older event");
        text += &format!(", archive {} ({events} in {})", bytes(disk.segment_bytes), count(disk.segments, "segment"));
    }
    let lost: u64 = disk.segments_missing.iter().map(|missing| missing.events).sum();
    if lost > 0 {
        text += &format!(
            "; MISSING: {} with {}: see litemesh doctor",
            count(disk.segments_missing.len() as u64, "segment"),
            count(lost, "event")
        );
    }
    if cleanup.state == "running" {
        text += &format!("; a cleanup is under way, {} of {} events moved", cleanup.removed, cleanup.wanted);
    }
    text + "\n"
}

/// How joining by a snapshot goes, or went.
pub(super) fn joining(joining: &JoiningView) -> String {
    let seconds = |ms: u64| format!("{:.1} s", ms as f64 / 1000.0);
    let rows = count(joining.rows, "row");
    let done = (joining.rows_done * 100).checked_div(joining.rows).unwrap_or(0).min(100);
    let usable = joining.usable_ms.map_or(String::new(), |ms| format!("usable after {} ({rows}), ", seconds(ms)));
    let now = match joining.stage.as_str() {
        "pulling" => format!("a snapshot of {rows} comes: {done} %"),
        "filling" => format!("the files are filled: {done} % of {rows}"),
        "loading" => format!("what is written here travels in a moment: {done} %"),
        "complete" => joining
            .complete_ms
            .map_or("history complete".to_string(), |ms| format!("history complete after {}", seconds(ms))),
        _ => format!("history {} %", joining.history_percent),
    };
    format!("\njoined by a snapshot: {usable}{now}\n")
}

/// What is on its way, and what holds it back.
fn transfers(status: &Status) -> String {
    let pulls = status.peers.iter().filter_map(|peer| peer.pull.map(|pull| (peer, pull)));
    let mut text: String = pulls
        .map(|(peer, pull)| {
            let left = pull.left_s.map_or(String::new(), |left| {
                format!(", {} left", humantime::format_duration(Duration::from_secs(left)))
            });
            let rate = pull.bytes_per_s / 1000;
            format!("\nfrom {}: {} of {} events, {rate} kB/s{left}\n", peer.name, pull.received, pull.wanted)
        })
        .collect();
    if status.pace.quiet_now {
        text += &format!("\nquiet hours ({}): only small fresh changes travel\n", status.pace.quiet_hours.join(", "));
    }
    if status.pace.bandwidth > 0 {
        text += &format!("\nbulk takes at most {} kB/s\n", status.pace.bandwidth / 1000);
    }
    text
}

/// The table of peers.
pub(super) fn peers(status: &Status) -> String {
    if status.peers.is_empty() {
        return "no peers yet: invite one with litemesh invite".to_string();
    }
    let line = |(position, peer): (usize, &crate::node::view::PeerView)| {
        let number = |n: Option<String>| n.unwrap_or_else(|| "-".into());
        vec![
            (position + 1).to_string(),
            peer.name.clone(),
            short(&peer.id),
            peer.state.clone(),
            peer.behind.to_string(),
            peer.ahead.to_string(),
            match peer.content.rows {
                0 => peer.content.state.clone(),
                rows => format!("{} ({})", peer.content.state, count(rows, "row")),
            },
            number(peer.rtt_ms.map(|ms| format!("{ms:.1} ms"))),
            number(peer.clock_skew_ms.map(|ms| format!("{ms} ms"))),
            if peer.last_seen.is_empty() { "never".into() } else { peer.last_seen.clone() },
            peer.addresses.first().cloned().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = status.peers.iter().enumerate().map(line).collect();
    let headings =
        ["#", "peer", "id", "state", "we lack", "it lacks", "content", "round trip", "clock", "last seen", "address"];
    table(&headings, &rows)
}

/// Enough of an id for people.
fn short(id: &str) -> String {
    id.chars().take(8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joining_is_told_in_one_line() {
        let mut view =
            JoiningView { stage: "pulling".into(), rows: 1_000_000, rows_done: 400_000, ..Default::default() };
        assert_eq!(joining(&view), "\njoined by a snapshot: a snapshot of 1000000 rows comes: 40 %\n");
        view = JoiningView { stage: "history".into(), usable_ms: Some(3_100), history_percent: 40, ..view };
        assert_eq!(joining(&view), "\njoined by a snapshot: usable after 3.1 s (1000000 rows), history 40 %\n");
    }
}
