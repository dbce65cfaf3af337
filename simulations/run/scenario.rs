//! Scenarios: what a run is drawn from, as data in `scenarios/*.toml`.
//!
//! A scenario says how many servers there are, how bad network and clocks may be, and what happens in phases. Each phase
//! lasts some steps or some time; a step comes after a drawn pause and is of a drawn kind (by weight); a timetable adds
//! steps at fixed times. What a seed draws within this is the plan. All files are compiled in; a path names another one.
//! Invariant: a scenario that is read is sound: kinds and times were checked. Callers: `command`, `plan`.

use std::collections::BTreeMap;

use super::step::{Act, KINDS, REPLACE};
use crate::world::network::Weather;

/// The files that come with the binary.
const FILES: [(&str, &str); 11] = [
    ("swarm", include_str!("../scenarios/swarm.toml")),
    ("calm", include_str!("../scenarios/calm.toml")),
    ("partition-heals", include_str!("../scenarios/partition-heals.toml")),
    ("flaky-wifi", include_str!("../scenarios/flaky-wifi.toml")),
    ("clocks", include_str!("../scenarios/clocks.toml")),
    ("late-joiner", include_str!("../scenarios/late-joiner.toml")),
    ("clone", include_str!("../scenarios/clone.toml")),
    ("restored", include_str!("../scenarios/restored.toml")),
    ("replaced-server", include_str!("../scenarios/replaced-server.toml")),
    ("season", include_str!("../scenarios/season.toml")),
    ("weekend", include_str!("../scenarios/weekend.toml")),
];

/// A scenario.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// Its name.
    #[serde(skip)]
    pub name: String,
    /// One line: what it is.
    pub about: String,
    /// What a run of it says nothing about.
    pub does_not_verify: String,
    /// Servers at the beginning, from and to.
    pub servers: [usize; 2],
    /// Each class of faults is off in so many percent of the seeds.
    #[serde(default)]
    pub off_percent: u64,
    /// The worst network; each figure is drawn up to this.
    #[serde(default)]
    pub network: Weather,
    /// Clocks.
    #[serde(default)]
    pub clocks: Clocks,
    /// A mended cluster settles within this.
    #[serde(default = "two_minutes")]
    pub settles_within: String,
    /// An idle node looks at its files this often; empty: as often as it asks for, or (drawn) every few seconds.
    #[serde(default)]
    pub idle_tick: String,
    /// Fingerprints and chains are looked at after every so many steps.
    #[serde(default = "one")]
    pub look_every: usize,
    /// Frames with events per event and server, at most, where the network loses and repeats none.
    pub frames_per_event_max: Option<f64>,
    /// What happens.
    #[serde(rename = "phase")]
    pub phases: Vec<Phase>,
    /// Marks and faults that runs of this scenario exist to reach.
    #[serde(default)]
    pub requires: Vec<String>,
}

/// How wrong clocks are.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Clocks {
    /// Off by up to this, to either side, at the start (but server 0) and after a jump.
    #[serde(default)]
    pub error: String,
    /// Only this server's is ever wrong.
    pub only: Option<usize>,
}

/// A stretch of a run.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// So many steps (`--steps` of the command line counts here), …
    pub steps: Option<u64>,
    /// … or so long.
    pub lasts: Option<String>,
    /// Between two steps: (percent, pause up to).
    #[serde(default)]
    pub pauses: Vec<(u64, String)>,
    /// Kinds of steps by weight.
    #[serde(default)]
    pub weights: BTreeMap<String, u64>,
    /// Steps at fixed times.
    #[serde(default)]
    pub at: Vec<At>,
}

/// A step at a fixed time of its phase.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct At {
    /// When, from the phase's beginning.
    pub time: String,
    /// Its kind.
    pub act: String,
    /// The server it is about (drawn when it does not say).
    pub server: Option<usize>,
    /// The other one.
    pub other: Option<usize>,
    /// How far off a clock goes: `100y`, `-3d`.
    pub error: Option<String>,
    /// How many groups.
    pub groups: Option<usize>,
}

fn two_minutes() -> String {
    "2min".to_string()
}

fn one() -> usize {
    1
}

impl Scenario {
    /// The scenario of a name, or of a file when the name ends with `.toml`.
    pub fn load(name: &str) -> Result<Scenario, String> {
        if name.ends_with(".toml") {
            let text = std::fs::read_to_string(name).map_err(|error| format!("{name}: {error}"))?;
            return Scenario::parse(name, &text);
        }
        match FILES.iter().find(|(known, _)| *known == name) {
            Some((name, text)) => Scenario::parse(name, text),
            None => Err(format!("no scenario is called {name}; `--scenario list` tells them")),
        }
    }

    /// All that come with the binary.
    pub fn all() -> Vec<Scenario> {
        FILES.iter().filter_map(|(name, text)| Scenario::parse(name, text).ok()).collect()
    }

    fn parse(name: &str, text: &str) -> Result<Scenario, String> {
        let mut scenario: Scenario = toml::from_str(text).map_err(|error| format!("{name}: {error}"))?;
        scenario.name = name.to_string();
        scenario.verify().map_err(|what| format!("{name}: {what}"))?;
        Ok(scenario)
    }

    fn verify(&self) -> Result<(), String> {
        let [from, to] = self.servers;
        if from < 2 || to < from || to > 16 {
            return Err("servers: from 2 to 16".to_string());
        }
        for text in [&self.settles_within, &self.idle_tick, &self.clocks.error] {
            duration_ms(text)?;
        }
        for phase in &self.phases {
            if phase.steps.is_none() == phase.lasts.is_none() {
                return Err(format!("phase {}: either `steps` or `lasts`", phase.name));
            }
            duration_ms(phase.lasts.as_deref().unwrap_or_default())?;
            let percent: u64 = phase.pauses.iter().map(|(percent, _)| percent).sum();
            if !phase.weights.is_empty() && percent != 100 {
                return Err(format!("phase {}: pauses come to {percent} percent", phase.name));
            }
            for (_, pause) in &phase.pauses {
                duration_ms(pause)?;
            }
            if let Some(kind) = phase.weights.keys().find(|kind| KINDS.iter().all(|(known, _)| known != kind)) {
                return Err(format!("phase {}: no step is called {kind}", phase.name));
            }
            for at in &phase.at {
                duration_ms(&at.time)?;
                signed_ms(at.error.as_deref().unwrap_or_default())?;
                if at.act != REPLACE && Act::parse(&at.act, 0, 1, 0, 2).is_none() {
                    return Err(format!("phase {}: no step is called {}", phase.name, at.act));
                }
            }
        }
        Ok(())
    }
}

/// `90s`, `2min`, `3h`, `1d`, `100y`, `250ms`; nothing is 0.
pub fn duration_ms(text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..split].parse().map_err(|_| format!("{text}: no duration"))?;
    let unit = match &text[split..] {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "y" => 31_557_600_000,
        _ => return Err(format!("{text}: no duration (250ms, 90s, 2min, 3h, 1d, 100y)")),
    };
    Ok(number * unit)
}

/// A duration to either side of nothing.
pub fn signed_ms(text: &str) -> Result<i64, String> {
    match text.strip_prefix('-') {
        Some(rest) => duration_ms(rest).map(|ms| -(ms as i64)),
        None => duration_ms(text).map(|ms| ms as i64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_that_comes_with_the_binary_is_sound() {
        for (name, text) in FILES {
            let scenario = Scenario::parse(name, text).unwrap();
            assert!(!scenario.about.is_empty() && !scenario.about.contains('\n'), "{name}: one line about it");
            assert!(scenario.does_not_verify.len() > 20, "{name}: says what it does not verify");
        }
    }

    #[test]
    fn a_scenario_with_an_unknown_step_is_refused() {
        let text = "about='x'\ndoes-not-verify='x'\nservers=[2,2]\n[[phase]]\nname='p'\nsteps=1\npauses=[[100,'1s']]\nweights={fly=1}";
        assert!(Scenario::parse("x", text).unwrap_err().contains("no step is called fly"));
    }
}
