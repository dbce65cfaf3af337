//! Words for people: a run's story, the sum of many runs, the table of marks.
//!
//! Invariant: nothing here runs anything but [`story`], which plays a plan once more. Caller: `simulate`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::Plan;
use super::play::{Outcome, Show, play};
use super::shrink::Failure;

/// What runs came to, added up.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Sum {
    /// Runs.
    pub runs: u64,
    /// First and last seed.
    pub seeds: Option<(u64, u64)>,
    /// Virtual ms.
    pub virtual_ms: u64,
    /// Frames sent.
    pub frames: u64,
    /// Events in the logs.
    pub events: u64,
    /// Steps done.
    pub steps: u64,
    /// Longest time from mending to settled, ms.
    pub settled_ms_max: u64,
    /// Most frames with events per event and server.
    pub frames_per_event_max: f64,
    /// Faults and turns reached.
    pub reached: BTreeMap<String, u64>,
    /// Marks of the product.
    pub marks: BTreeMap<String, u64>,
}

impl Sum {
    /// Adds a run.
    pub fn add(&mut self, outcome: &Outcome) {
        let (first, last) = self.seeds.unwrap_or((outcome.seed, outcome.seed));
        self.seeds = Some((first.min(outcome.seed), last.max(outcome.seed)));
        self.runs += 1;
        self.virtual_ms += outcome.virtual_ms;
        self.frames += outcome.frames;
        self.events += outcome.events;
        self.steps += outcome.steps;
        self.settled_ms_max = self.settled_ms_max.max(outcome.settled_ms);
        self.frames_per_event_max = self.frames_per_event_max.max(outcome.frames_per_event);
        for (sum, more) in [(&mut self.reached, &outcome.reached), (&mut self.marks, &outcome.marks)] {
            for (what, count) in more {
                *sum.entry(what.clone()).or_default() += count;
            }
        }
    }

    /// Nodes that died, in whatever way.
    pub fn crashes(&self) -> u64 {
        self.reached.get("a node was killed").copied().unwrap_or(0)
    }

    /// Virtual hours of whole clusters.
    pub fn hours(&self) -> f64 {
        self.virtual_ms as f64 / 3_600_000.0
    }

    /// What of a list of marks and faults was never reached.
    pub fn never<'l>(&self, required: impl Iterator<Item = &'l str>) -> Vec<&'l str> {
        let count = |what: &str| self.marks.get(what).or(self.reached.get(what)).copied().unwrap_or(0);
        required.filter(|what| count(what) == 0).collect()
    }
}

/// One line about one run.
pub fn run_line(outcome: &Outcome) -> String {
    format!(
        "seed {}: trace {}, {} steps, {} events, {} frames ({:.2} with events per event and server), {:.1} virtual s, settled \
         after {:.1} s, {:.1} frames per idle server and minute, {} refusals that the apps provoked",
        outcome.seed,
        outcome.trace,
        outcome.steps,
        outcome.events,
        outcome.frames,
        outcome.frames_per_event,
        outcome.virtual_ms as f64 / 1000.0,
        outcome.settled_ms as f64 / 1000.0,
        outcome.idle_frames,
        outcome.provoked,
    )
}

/// The last lines of a command.
pub fn summary(sum: &Sum, took: Duration) -> String {
    let minutes = (took.as_secs_f64() / 60.0).max(1e-9);
    format!(
        "{} clusters, {:.1} virtual hours, {} events, {} frames, {} nodes killed, in {:.0} s ({:.0} seeds and {:.0} virtual \
         hours per minute); 0 rows lost, 0 differences; settled within {:.1} s at most",
        sum.runs,
        sum.hours(),
        sum.events,
        sum.frames,
        sum.crashes(),
        took.as_secs_f64(),
        sum.runs as f64 / minutes,
        sum.hours() / minutes,
        sum.settled_ms_max as f64 / 1000.0,
    )
}

/// Faults and marks with their counts; what was never reached comes last, by name.
pub fn table(sum: &Sum) -> String {
    let mut text = String::new();
    for (title, counts) in [("faults reached", &sum.reached), ("marks of the product", &sum.marks)] {
        text += &format!("{title}:\n");
        for (what, count) in counts.iter().filter(|(_, count)| **count > 0) {
            text += &format!("  {count:>10}  {what}\n");
        }
    }
    let never: Vec<&str> = sum.marks.iter().filter(|(_, count)| **count == 0).map(|(what, _)| what.as_str()).collect();
    if never.is_empty() {
        text += "every mark was reached\n";
    } else {
        text += &format!(
            "NEVER REACHED:\n{}\n",
            never.iter().map(|what| format!("  {what}")).collect::<Vec<_>>().join("\n")
        );
    }
    text
}

/// What a (small) failing run does, step by step, and how it ends.
pub fn story(failure: &Failure) -> String {
    let plan = &failure.plan;
    let told = play(plan, Show::Steps);
    let mut text = setting(plan);
    for line in &told.lines {
        text += line;
        text.push('\n');
    }
    text += &format!("WRONG: {}: {}\n", failure.violation.check, failure.violation.what);
    text
}

/// The options of a run in words.
fn setting(plan: &Plan) -> String {
    let clocks: Vec<String> = plan
        .clocks_ms
        .iter()
        .enumerate()
        .filter(|(_, error)| **error != 0)
        .map(|(server, error)| format!("clock of {server} off by {} s", error / 1000))
        .collect();
    format!(
        "scenario {}, seed {}: {} servers, {}% of frames lost, {}% repeated, delays to {} ms, steering {}, idle nodes look \
         every {} ms, off: {}{}{}\n",
        plan.scenario,
        plan.seed,
        plan.servers,
        plan.weather.loss,
        plan.weather.repeat,
        plan.weather.delay_ms,
        plan.steering_runs,
        plan.idle_tick_ms,
        if plan.off.is_empty() { "nothing".to_string() } else { plan.off.join(", ") },
        if clocks.is_empty() { "" } else { "; " },
        clocks.join(", "),
    )
}

/// The first line in which two runs differ.
pub fn first_difference(one: &[String], other: &[String]) -> String {
    let at = one.iter().zip(other).position(|(a, b)| a != b).unwrap_or(one.len().min(other.len()));
    let line = |lines: &[String]| lines.get(at).cloned().unwrap_or_else(|| "(its end)".to_string());
    format!("line {} of the trace\n  first:  {}\n  second: {}", at + 1, line(one), line(other))
}
