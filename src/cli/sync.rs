//! `litemesh sync`.
//!
//! Invariant: exit 0 only when the node says that all are equal and applied. A peer that is away is given a few seconds
//! to be reached, then it does not count, unless it was named. Called by [`super`].

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::Context;
use super::error::CommandError;

/// How long peers that are away are waited for.
const REACH_WITHIN: Duration = Duration::from_secs(3);

/// Sync now; done when this node and every reachable peer hold the same and have applied it
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only with this peer: name, id, or number in `peers list`
    peer: Option<String>,
    /// How long to wait
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    wait: f64,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    if !(0.0..=86_400.0).contains(&arguments.wait) {
        return Err(CommandError::usage(format!("--wait is {}, but must be 0 to 86400 seconds", arguments.wait)));
    }
    let client = context.client()?;
    let start = Instant::now();
    let wait = Duration::from_secs_f64(arguments.wait);
    let bar = indicatif::ProgressBar::new_spinner();
    loop {
        let left = wait.saturating_sub(start.elapsed());
        let body = json!({ "peer": arguments.peer, "wait_s": left.as_secs_f64().min(1.0) });
        let answer: Value = client.post("/api/v1/sync", &body, None)?;
        let away = names(&answer, |peer| peer["state"] != "connected");
        let equal = answer["in_sync"] == true;
        let reached = away.is_empty() || start.elapsed() >= REACH_WITHIN.min(wait);
        bar.set_message(describe(&answer, &away));
        bar.tick();
        if equal && reached {
            bar.finish_and_clear();
            if !away.is_empty() {
                context.output.notice(&format!("not reached: {}", away.join(", ")));
            }
            let document =
                json!({ "in_sync": true, "took_ms": start.elapsed().as_millis() as u64, "peers": answer["peers"] });
            context.output.result(&document, |_| format!("in sync after {:.1} s", start.elapsed().as_secs_f64()));
            return Ok(());
        }
        if start.elapsed() >= wait {
            bar.finish_and_clear();
            let message = format!("not in sync after {} s: {}", arguments.wait, describe(&answer, &away));
            return Err(CommandError::user(message).hint("wait longer with --wait SECONDS, or see litemesh status"));
        }
        if equal {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn names(answer: &Value, which: impl Fn(&Value) -> bool) -> Vec<String> {
    let peers = answer["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
    peers.iter().filter(|peer| which(peer)).map(|peer| peer["name"].as_str().unwrap_or_default().to_string()).collect()
}

/// What is missing, in words.
fn describe(answer: &Value, away: &[String]) -> String {
    let sum = |name: &str| -> u64 {
        answer["peers"].as_array().into_iter().flatten().filter_map(|peer| peer[name].as_u64()).sum()
    };
    let mut parts = vec![format!("we lack {}, peers lack {} events", sum("behind"), sum("ahead"))];
    for (name, words) in
        [("outbox", "captured rows wait for the log"), ("held_events", "events wait for schema or cause")]
    {
        match answer[name].as_u64() {
            Some(0) | None => {}
            Some(number) => parts.push(format!("{number} {words}")),
        }
    }
    if !away.is_empty() {
        parts.push(format!("away: {}", away.join(", ")));
    }
    parts.join("; ")
}
