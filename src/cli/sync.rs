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
    let style = indicatif::ProgressStyle::with_template("{wide_bar} {msg}");
    loop {
        let left = wait.saturating_sub(start.elapsed());
        let again = left > Duration::from_secs(1);
        let body = json!({ "peer": arguments.peer, "wait_s": left.as_secs_f64().min(1.0), "again": again });
        let answer: Value = client.post("/api/v1/sync", &body, None)?;
        let away = names(&answer, |peer| peer["state"] != "connected");
        let equal = answer["in_sync"] == true;
        let reached = away.is_empty() || start.elapsed() >= REACH_WITHIN.min(wait);
        bar.set_message(describe(&answer, &away));
        match (Pulls::of(&answer), &style) {
            (Some(pulls), Ok(style)) => {
                bar.set_style(style.clone());
                bar.set_length(pulls.wanted);
                bar.set_position(pulls.received);
            }
            _ => bar.tick(),
        }
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

/// What all peers bring together.
#[derive(Debug, Default, PartialEq)]
struct Pulls {
    received: u64,
    wanted: u64,
    bytes_per_s: u64,
    left_s: Option<u64>,
}

impl Pulls {
    /// `None`: nobody brings anything.
    fn of(answer: &Value) -> Option<Pulls> {
        let peers = answer["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let pulls: Vec<&Value> = peers.iter().map(|peer| &peer["pull"]).filter(|pull| pull.is_object()).collect();
        let sum = |name: &str| -> u64 { pulls.iter().filter_map(|pull| pull[name].as_u64()).sum() };
        // Several peers may hold the same events: what is missing is what the one with most has, at all peers' rate.
        let missing = |pull: &&Value| pull["wanted"].as_u64().unwrap_or(0) - pull["received"].as_u64().unwrap_or(0);
        let missing = pulls.iter().map(missing).max()?;
        let (received, rate) = (sum("received"), sum("events_per_s"));
        let left_s = (rate > 0).then(|| missing.div_ceil(rate));
        Some(Pulls { received, wanted: received + missing, bytes_per_s: sum("bytes_per_s"), left_s })
    }

    fn words(&self) -> String {
        let rate = format!("{}/s", indicatif::HumanBytes(self.bytes_per_s));
        let left = self.left_s.map_or("time left unknown".to_string(), |left| {
            format!("about {} left", indicatif::HumanDuration(Duration::from_secs(left)))
        });
        format!("{} of {} events, {rate}, {left}", self.received, self.wanted)
    }
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
    if let Some(pulls) = Pulls::of(answer) {
        parts.push(pulls.words());
    }
    if !away.is_empty() {
        parts.push(format!("away: {}", away.join(", ")));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_adds_up_what_all_peers_bring() {
        let pull = |received: u64, wanted: u64| json!({ "received": received, "wanted": wanted, "events_per_s": 50, "bytes_per_s": 1024 });
        let answer = json!({ "peers": [{ "pull": pull(100, 400) }, { "pull": pull(50, 350) }, { "behind": 0 }] });
        let pulls = Pulls::of(&answer).expect("two bring something");
        assert_eq!(pulls, Pulls { received: 150, wanted: 450, bytes_per_s: 2048, left_s: Some(3) });
        assert_eq!(pulls.words(), "150 of 450 events, 2.00 KiB/s, about 3 seconds left");
        assert_eq!(Pulls::of(&json!({ "peers": [{ "behind": 3 }] })), None);
    }
}
