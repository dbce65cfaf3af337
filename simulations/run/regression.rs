//! Plans that once failed: `regressions/NNN-name.toml`, each with a sentence.
//!
//! A file names a scenario, a seed and perhaps what is left of the run; or it spells the run out (`[[step]]`), so that it
//! stays the same when scenarios change. Invariant: files run in the order of their names. Caller: `simulate`.

use std::path::{Path, PathBuf};

use super::plan::{Plan, numbers};
use super::scenario::Scenario;
use super::step::Step;
use crate::world::network::Weather;

/// One file.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Regression {
    /// What was wrong.
    pub sentence: String,
    /// Its scenario.
    pub scenario: String,
    /// Its seed.
    pub seed: u64,
    /// Steps, where the scenario counts by steps.
    pub steps: Option<u64>,
    /// Fewer servers than drawn.
    pub servers: Option<usize>,
    /// Classes of faults that are off.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
    /// The steps that are left.
    pub keep: Option<String>,
    /// What was drawn, spelt out with the steps.
    pub drawn: Option<Drawn>,
    /// The steps themselves.
    #[serde(default, rename = "step", skip_serializing_if = "Vec::is_empty")]
    pub explicit: Vec<Step>,
}

/// Options of a run that is spelt out.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Drawn {
    weather: Weather,
    steering_runs: u32,
    clocks_ms: Vec<i64>,
    idle_tick_ms: u64,
    ends_ms: u64,
}

impl Regression {
    /// The plan.
    pub fn plan(&self) -> Result<Plan, String> {
        let scenario = Scenario::load(&self.scenario)?;
        let mut plan = Plan::draw(&scenario, self.seed, self.steps);
        narrow(&mut plan, self.servers, &self.without, self.keep.as_deref().and_then(numbers).as_deref());
        if let Some(drawn) = &self.drawn {
            plan.weather = drawn.weather.clone();
            plan.steering_runs = drawn.steering_runs;
            plan.clocks_ms.clone_from(&drawn.clocks_ms);
            plan.idle_tick_ms = drawn.idle_tick_ms;
            plan.ends_ms = drawn.ends_ms;
            plan.steps.clone_from(&self.explicit);
        }
        Ok(plan)
    }

    /// A plan spelt out.
    pub fn of(plan: &Plan, sentence: &str) -> Regression {
        let drawn = Drawn {
            weather: plan.weather.clone(),
            steering_runs: plan.steering_runs,
            clocks_ms: plan.clocks_ms.clone(),
            idle_tick_ms: plan.idle_tick_ms,
            ends_ms: plan.ends_ms,
        };
        Regression {
            sentence: sentence.to_string(),
            scenario: plan.scenario.clone(),
            seed: plan.seed,
            steps: Some(plan.step_count).filter(|steps| *steps > 0),
            servers: Some(plan.servers),
            drawn: Some(drawn),
            explicit: plan.steps.clone(),
            ..Regression::default()
        }
    }
}

/// Leaves out servers, classes and steps, as the command line or a file says.
pub fn narrow(plan: &mut Plan, servers: Option<usize>, without: &[String], keep: Option<&[usize]>) {
    for class in without {
        plan.wish_off(class);
    }
    if let Some(servers) = servers.filter(|servers| *servers < plan.servers) {
        plan.with_servers(servers);
    }
    if let Some(keep) = keep {
        plan.steps.retain(|step| keep.contains(&step.number));
    }
}

/// All files of the folder, by name.
pub fn all() -> Result<Vec<(String, Regression)>, String> {
    let here = Path::new("simulations/regressions");
    let folder = if here.is_dir() {
        here.to_path_buf()
    } else {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("simulations/regressions")
    };
    let wrong = |error: std::io::Error| format!("{}: {error}", folder.display());
    let entries: Vec<_> = std::fs::read_dir(&folder).map_err(wrong)?.filter_map(Result::ok).collect();
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let text = std::fs::read_to_string(&path).map_err(wrong)?;
        let regression = toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        found.push((name, regression));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_regression_reads_and_says_what_was_wrong() {
        let all = all().unwrap();
        assert!(!all.is_empty());
        for (name, regression) in all {
            assert!(regression.sentence.len() > 20, "{name}");
            assert!(!regression.plan().unwrap().steps.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_run_spelt_out_is_the_same_run() {
        let scenario = Scenario::load("swarm").unwrap();
        let plan = Plan::draw(&scenario, 11, Some(20));
        let text = toml::to_string(&Regression::of(&plan, "a sentence")).unwrap();
        let again: Regression = toml::from_str(&text).unwrap();
        assert_eq!(again.plan().unwrap().steps, plan.steps);
    }
}
