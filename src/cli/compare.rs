//! `litemesh peers compare`.
//!
//! Invariant: exit 0 only when the content of every server that was asked for is equal, at a moment when it held the same
//! events; 4 when rows differ, each of them named. Called by [`super::peers`].

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Context;
use super::error::{CommandError, Kind};
use super::output::{count, table};
use crate::model::fits;
use crate::node::compare_view::PeerComparison;

pub(super) fn call(context: &Context, peer: Option<&str>, wait_s: f64) -> Result<(), CommandError> {
    if !(0.0..=86_400.0).contains(&wait_s) {
        return Err(CommandError::usage(format!("--wait is {wait_s}, but must be 0 to 86400 seconds")));
    }
    let client = context.client()?;
    let (start, wait) = (Instant::now(), Duration::from_secs_f64(wait_s));
    let mut since = Value::Null;
    let answer = loop {
        let left = wait.saturating_sub(start.elapsed()).as_secs_f64();
        let mut body = json!({ "peer": peer, "wait_s": left.min(2.0) });
        if !since.is_null() {
            body["since"] = since.clone();
        }
        let answer: Value = client.post("/api/v1/peers/compare", &body, None)?;
        since = answer["since"].clone();
        if answer["done"] == true || start.elapsed() >= wait {
            break answer;
        }
    };
    let peers: Vec<PeerComparison> = serde_json::from_value(answer["peers"].clone()).unwrap_or_default();
    let document = json!({ "done": answer["done"], "peers": peers });
    context.output.result(&document, |_| words(&peers));
    let (differ, known): (Vec<_>, Vec<_>) = peers.iter().partition(|view| view.content == "differs");
    if !differ.is_empty() {
        let rows: u64 = differ.iter().map(|view| view.rows).sum();
        let names: Vec<&str> = differ.iter().map(|view| view.name.as_str()).collect();
        let message = format!(
            "{} {} from {}, which {} the same events",
            count(rows, "row"),
            fits(rows, "differs", "differ"),
            names.join(", "),
            fits(names.len() as u64, "holds", "hold")
        );
        return Err(CommandError::new(Kind::Integrity, message)
            .hint("replay the log on both sides and compare: litemesh rebuild --out DIR"));
    }
    let away: Vec<&str> =
        known.iter().filter(|view| view.state != "connected").map(|view| view.name.as_str()).collect();
    if answer["done"] != true || away.len() == peers.len() {
        let message = match (peers.is_empty(), away.is_empty()) {
            (true, _) => "there is no other server to compare with".to_string(),
            (false, false) => format!("not compared: {} cannot be reached", away.join(", ")),
            (false, true) => {
                format!("not compared within {wait_s} s: the servers do not hold the same events, or apply them still")
            }
        };
        return Err(CommandError::user(message).hint("bring them together first: litemesh sync"));
    }
    if !away.is_empty() {
        context.output.notice(&format!("not reached: {}", away.join(", ")));
    }
    Ok(())
}

fn words(peers: &[PeerComparison]) -> String {
    let line = |view: &PeerComparison| {
        let since = if view.since.is_empty() { "-".to_string() } else { view.since.clone() };
        let numbers =
            [view.rows.to_string(), view.rounds.to_string(), (view.bytes_sent + view.bytes_received).to_string()];
        [vec![view.name.clone(), view.state.clone(), view.content.clone(), since], numbers.to_vec()].concat()
    };
    let rows: Vec<_> = peers.iter().map(line).collect();
    let mut text = table(&["peer", "state", "content", "since", "rows", "round trips", "bytes"], &rows);
    let differing = peers.iter().flat_map(|view| view.differences.iter().map(move |row| (view, row)));
    let named: Vec<_> = differing
        .map(|(view, row)| {
            let id = if row.id.is_empty() { "-".to_string() } else { row.id.clone() };
            vec![format!("{}.{}", row.database, row.table), id, row.row.clone(), row.side.clone(), view.name.clone()]
        })
        .collect();
    if !named.is_empty() {
        text += "\n\n";
        text += &table(&["table", "id here", "row", "how", "peer"], &named);
    }
    for view in peers.iter().filter(|view| !view.not_compared.is_empty()) {
        text += &format!("\nnot compared with {} (another schema): {}", view.name, view.not_compared.join(", "));
    }
    text
}
