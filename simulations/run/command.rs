//! The command line of `simulate`.
//!
//! Invariant: what is not understood is refused, with the reason; nothing is guessed. Caller: `main`.

use std::path::PathBuf;

use super::plan::{is_class, numbers};

/// How to call it.
pub const USAGE: &str = "\
usage: simulate [--scenario NAME|FILE.toml|list] [--seed N | --first N | --regressions]
                [--count N] [--secs N] [--steps N] [--twice] [--jobs N] [--json] [--ledger FILE]
                [--marks | --marks require] [--trace] [--servers N] [--keep 1-9,12] [--without CLASS,CLASS]
                [--no-shrink] [--save FILE.toml] [--plant BUG]
       simulate --scenario bytes [--count EVENTS]
       simulate --scenario crash [--seed N | --first N] [--secs N] [--twice] [--plant BUG] [--ledger FILE]
Runs whole clusters under faults; README.md in simulations/ tells all. Exit codes: 0 well, 1 wrong, 2 usage,
3 a required mark was never reached, 101 a panic, 128 not settled, 129 not deterministic.";

/// What the command line asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The scenario.
    pub scenario: String,
    /// This seed only.
    pub seed: Option<u64>,
    /// Seed after seed from here.
    pub first: u64,
    /// … in steps of this (one of several processes).
    pub stride: u64,
    /// So many seeds.
    pub count: Option<u64>,
    /// Begin no new seed after so many seconds.
    pub secs: Option<u64>,
    /// Steps of phases that count by steps.
    pub steps: Option<u64>,
    /// Every run twice: the traces must be equal.
    pub twice: bool,
    /// Processes.
    pub jobs: u64,
    /// One JSON object per run.
    pub json: bool,
    /// This process plays for another one: nothing is shrunk or summed up.
    pub worker: bool,
    /// Append a row to this file.
    pub ledger: Option<PathBuf>,
    /// Print the table of marks.
    pub marks: bool,
    /// A required mark that was never reached is a failure.
    pub require: bool,
    /// Print every event.
    pub trace: bool,
    /// Run what once failed.
    pub regressions: bool,
    /// So many servers.
    pub servers: Option<usize>,
    /// These steps only.
    pub keep: Option<Vec<usize>>,
    /// These classes of faults off.
    pub without: Vec<String>,
    /// Leave a failure as it is.
    pub no_shrink: bool,
    /// Plant this bug first.
    pub plant: Option<String>,
    /// Write the (small) failing run to this file, as a regression.
    pub save: Option<PathBuf>,
}

impl Asked {
    /// Reads the words of a command line.
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Asked, String> {
        let scenario = "swarm".to_string();
        let mut asked = Asked { scenario, first: 1, stride: 1, jobs: 1, ..Asked::default() };
        let mut words = words.peekable();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            let number = |text: String| text.parse::<u64>().map_err(|_| format!("{word}: {text} is no number"));
            match word.as_str() {
                "--scenario" => asked.scenario = value()?,
                "--seed" => asked.seed = Some(number(value()?)?),
                "--first" => asked.first = number(value()?)?,
                "--stride" => asked.stride = number(value()?)?.max(1),
                "--count" => asked.count = Some(number(value()?)?),
                "--secs" => asked.secs = Some(number(value()?)?),
                "--steps" => asked.steps = Some(number(value()?)?),
                "--jobs" => asked.jobs = number(value()?)?.clamp(1, 64),
                "--servers" => asked.servers = Some(number(value()?)?.clamp(2, 16) as usize),
                "--ledger" => asked.ledger = Some(PathBuf::from(value()?)),
                "--plant" => asked.plant = Some(value()?),
                "--save" => asked.save = Some(PathBuf::from(value()?)),
                "--twice" => asked.twice = true,
                "--json" => asked.json = true,
                "--worker" => asked.worker = true,
                "--trace" => asked.trace = true,
                "--regressions" => asked.regressions = true,
                "--no-shrink" => asked.no_shrink = true,
                "--marks" => asked.marks = true,
                "--keep" => {
                    let text = value()?;
                    asked.keep = Some(numbers(&text).ok_or_else(|| format!("--keep: {text} are no step numbers"))?);
                }
                "--without" => asked.without = value()?.split(',').map(str::to_string).collect(),
                "require" if asked.marks && !asked.require => asked.require = true,
                other => return Err(format!("{other}: not understood")),
            }
        }
        asked.verify()?;
        Ok(asked)
    }

    fn verify(&self) -> Result<(), String> {
        if let Some(name) = self.without.iter().find(|name| !is_class(name)) {
            return Err(format!("--without: no class of faults is called {name}"));
        }
        let one = self.seed.is_some();
        if one && (self.count.is_some() || self.regressions) || self.regressions && self.count.is_some() {
            return Err("--seed, --regressions and --count exclude each other".to_string());
        }
        let list = self.scenario == "list";
        if !one && !list && (self.trace || self.keep.is_some() || self.servers.is_some()) {
            return Err("--trace, --keep and --servers are about one seed: add --seed".to_string());
        }
        if (self.marks || self.require) && !cfg!(debug_assertions) {
            return Err("--marks: this binary was built without debug assertions, where marks do not count".to_string());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Asked, String> {
        Asked::parse(text.split_whitespace().map(str::to_string))
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in
            ["--fly", "--seed", "--seed x", "--trace", "--seed 1 --count 2", "--without luck", "--keep 1-x --seed 1"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_printed_command_reads_back() {
        let asked = parse("--scenario calm --seed 7 --steps 9 --servers 3 --without loss,kills --keep 1-3,7").unwrap();
        assert_eq!(asked.keep, Some(vec![1, 2, 3, 7]));
        assert_eq!((asked.seed, asked.servers, asked.steps), (Some(7), Some(3), Some(9)));
    }
}
