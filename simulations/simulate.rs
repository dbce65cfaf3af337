//! Runs whole clusters of real nodes under faults, seed after seed, until the time is over or something breaks.
//!
//! A run is drawn from a scenario and a seed ([`run::plan`]), played on a virtual network and clock ([`world`]), and made
//! small when it fails. `README.md` in this folder tells the options and the exit codes.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bytes;
mod crash;
mod disk;
mod joining;
mod ledger;
mod plant;
mod reconcile;
mod run;
mod world;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use run::command::{Asked, USAGE};
use run::plan::Plan;
use run::play::{Outcome, Show, exit_code, keep_panics, play};
use run::regression::{self, Regression, narrow};
use run::scenario::Scenario;
use run::shrink::{Failure, shrink};
use run::tell::{self, Sum};
use world::Violation;

/// The same as the program's: what is measured here is to hold there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seeds are begun for so long when nobody says how long or how many, s.
const SECS_DEFAULT: u64 = 10;

/// A scenario with a world of its own.
const CRASH: &str = "crash";

/// Figures instead of faults.
const BYTES: &str = "bytes";
const RECONCILE: &str = "reconcile";
const JOINING: &str = "joining";

/// A failure is made small for at most so long.
const SHRINK_LIMIT: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let asked = match Asked::parse(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(what) => return usage(&what),
    };
    if asked.scenario == "list" {
        for scenario in Scenario::all() {
            println!("{:<16} {}", scenario.name, scenario.about);
            if asked.trace {
                println!("{:<16} Does not verify: {}", "", scenario.does_not_verify.trim());
            }
        }
        println!("{:<16} one or two small servers, and a crash in every cycle, at any operation of their disks", CRASH);
        println!("{:<16} no faults: what travels, in sync and behind, among 2, 5 and 12 servers", BYTES);
        println!(
            "{:<16} no faults: what it takes to find the rows that differ, and to keep the fingerprints",
            RECONCILE
        );
        println!(
            "{:<16} no faults, real time: a new server by events and by a snapshot, apps writing meanwhile",
            JOINING
        );
        return ExitCode::SUCCESS;
    }
    let measured = match asked.scenario.as_str() {
        BYTES => Some(bytes::run(asked.count)),
        RECONCILE => Some(reconcile::run(asked.count)),
        JOINING => Some(joining::run(asked.count)),
        _ => None,
    };
    if let Some(measured) = measured {
        return match measured {
            Ok(table) => {
                println!("{table}");
                ExitCode::SUCCESS
            }
            Err(what) => {
                eprintln!("{what}");
                ExitCode::from(1)
            }
        };
    }
    if asked.plant.as_deref().is_some_and(|bug| plant::plant(bug).is_none()) {
        return ExitCode::from(2);
    }
    if asked.scenario == CRASH {
        return crash(&asked);
    }
    keep_panics();
    let scenario = match Scenario::load(&asked.scenario) {
        Ok(scenario) => scenario,
        Err(what) => return usage(&what),
    };
    let mut command = Command { asked, scenario, sum: Sum::default(), started: Instant::now() };
    let result = if command.asked.regressions {
        command.regressions()
    } else if command.asked.seed.is_some() {
        command.one()
    } else {
        command.seeds()
    };
    match result.and_then(|()| command.finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(code) => ExitCode::from(code),
    }
}

/// The scenario `crash` has a world of its own.
fn crash(asked: &Asked) -> ExitCode {
    let Asked { seed, first, secs, twice, .. } = *asked;
    match crash::run(crash::Options { seed, first, secs: secs.unwrap_or(SECS_DEFAULT), twice }) {
        Ok(report) => {
            println!("{report}");
            let entry = ledger::Entry {
                method: format!("simulate --scenario crash{}", if twice { " --twice" } else { "" }),
                commit: ledger::commit(),
                seeds: format!("{}-{}", seed.unwrap_or(first), seed.unwrap_or(first + report.runs.saturating_sub(1))),
                runs: report.runs,
                crashes: report.power_cuts + report.kills,
                hours: 0.0,
                reached: format!(
                    "{} power cuts, {} kills, {} disk errors",
                    report.power_cuts, report.kills, report.errors
                ),
                result: format!("{} commits, 0 lost, 0 doubled", report.commits),
            };
            asked.ledger.as_ref().map_or(ExitCode::SUCCESS, |path| entered(path, &entry))
        }
        Err(what) => {
            eprintln!("{what}");
            ExitCode::from(1)
        }
    }
}

fn entered(path: &std::path::Path, entry: &ledger::Entry) -> ExitCode {
    match ledger::append(path, entry) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            ExitCode::from(2)
        }
    }
}

fn usage(what: &str) -> ExitCode {
    eprintln!("simulate: {what}\n{USAGE}");
    ExitCode::from(2)
}

/// The command under way. Errors are exit codes.
struct Command {
    asked: Asked,
    scenario: Scenario,
    sum: Sum,
    started: Instant,
}

impl Command {
    fn plan(&self, seed: u64) -> Plan {
        let mut plan = Plan::draw(&self.scenario, seed, self.asked.steps);
        narrow(&mut plan, self.asked.servers, &self.asked.without, self.asked.keep.as_deref());
        plan
    }

    /// One seed, told.
    fn one(&mut self) -> Result<(), u8> {
        let plan = self.plan(self.asked.seed.unwrap_or(1));
        let outcome = if self.asked.trace { play(&plan, Show::Loud) } else { self.played(&plan) };
        self.take(&plan, outcome, true)
    }

    /// Seed after seed, here or in several processes.
    fn seeds(&mut self) -> Result<(), u8> {
        if self.asked.count.is_none() && self.asked.secs.is_none() {
            self.asked.secs = Some(SECS_DEFAULT);
        }
        if self.asked.jobs > 1 {
            return self.in_processes();
        }
        let (first, stride) = (self.asked.first, self.asked.stride);
        for number in 0..self.asked.count.unwrap_or(u64::MAX) {
            if self.asked.secs.is_some_and(|secs| self.started.elapsed() >= Duration::from_secs(secs)) {
                break;
            }
            let plan = self.plan(first + number * stride);
            let outcome = self.played(&plan);
            self.take(&plan, outcome, false)?;
        }
        Ok(())
    }

    fn in_processes(&mut self) -> Result<(), u8> {
        let asked = self.asked.clone();
        let mut result = Ok(());
        let ran = run::jobs::run(&asked, &mut |outcome| {
            let plan = self.plan(outcome.seed);
            result = self.take(&plan, outcome, false);
            result.is_ok()
        });
        result?;
        ran.map_err(|what| {
            eprintln!("simulate: {what}");
            101
        })
    }

    /// All that ever failed.
    fn regressions(&mut self) -> Result<(), u8> {
        let all = regression::all().map_err(|what| {
            eprintln!("simulate: {what}");
            2
        })?;
        for (name, regression) in all {
            let plan = regression.plan().map_err(|what| {
                eprintln!("simulate: {name}: {what}");
                2
            })?;
            let outcome = self.played(&plan);
            if !self.asked.json {
                println!("{name}: {}", regression.sentence);
            }
            self.take(&plan, outcome, true)?;
        }
        Ok(())
    }

    /// Plays a plan, twice when that was asked: then the traces must be equal.
    fn played(&self, plan: &Plan) -> Outcome {
        let mut outcome = play(plan, Show::Nothing);
        if self.asked.twice && outcome.violation.is_none() {
            let second = play(plan, Show::Nothing);
            if second.trace != outcome.trace {
                let (one, other) = (play(plan, Show::Lines), play(plan, Show::Lines));
                let what = format!(
                    "two runs differ ({} and {}), {}",
                    outcome.trace,
                    second.trace,
                    tell::first_difference(&one.lines, &other.lines)
                );
                outcome.violation = Some(Violation { check: "determinism".to_string(), what });
            }
        }
        outcome
    }

    /// Takes an outcome in: counts it, tells it, or makes its failure small.
    fn take(&mut self, plan: &Plan, outcome: Outcome, tell: bool) -> Result<(), u8> {
        if self.asked.json {
            println!("{}", serde_json::to_string(&outcome).unwrap_or_default());
        } else if tell && outcome.violation.is_none() {
            println!("{}", tell::run_line(&outcome));
        }
        self.sum.add(&outcome);
        self.progress(&outcome);
        let Some(violation) = outcome.violation else { return Ok(()) };
        if self.asked.worker {
            return Err(exit_code(&violation));
        }
        Err(self.report(plan, violation))
    }

    /// Makes a failure small and tells it. The exit code.
    fn report(&self, plan: &Plan, violation: Violation) -> u8 {
        let code = exit_code(&violation);
        println!("\nseed {}: {}: {}", plan.seed, violation.check, violation.what);
        println!("As drawn: {}", plan.again());
        let (steps, servers) = (plan.steps.len(), plan.servers);
        let mut failure = Failure { plan: plan.clone(), violation };
        if !self.asked.no_shrink && failure.violation.check != "determinism" {
            let started = Instant::now();
            failure = shrink(failure, SHRINK_LIMIT, &mut |plan| {
                if std::io::stderr().is_terminal() {
                    eprint!("\r{} steps, {} servers \x1b[K", plan.steps.len(), plan.servers);
                }
            });
            println!(
                "\n{steps} steps on {servers} servers became {} on {} in {:.1} s:\n",
                failure.plan.steps.len(),
                failure.plan.servers,
                started.elapsed().as_secs_f64()
            );
            print!("{}", tell::story(&failure));
        }
        println!("Commit: {}", ledger::commit());
        println!("Again: {}", failure.plan.again());
        if let Some(path) = &self.asked.save {
            let sentence = "What was wrong, in one sentence.";
            let text = toml::to_string(&Regression::of(&failure.plan, sentence)).unwrap_or_default();
            match std::fs::write(path, text) {
                Ok(()) => println!("Saved: {}", path.display()),
                Err(error) => eprintln!("{}: {error}", path.display()),
            }
        }
        code
    }

    fn progress(&self, outcome: &Outcome) {
        if std::io::stderr().is_terminal() && !self.asked.worker {
            let (runs, hours) = (self.sum.runs, self.sum.hours());
            eprint!(
                "\r{runs} runs, seed {}, {hours:.1} virtual hours, {:.0} s \x1b[K",
                outcome.seed,
                self.started.elapsed().as_secs_f64()
            );
        }
    }

    /// Sums up; what was required and never reached is a failure of its own.
    fn finish(&self) -> Result<(), u8> {
        if self.asked.worker {
            return Ok(());
        }
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
        let summary = tell::summary(&self.sum, self.started.elapsed());
        if self.asked.json {
            println!("{}", serde_json::to_string(&self.sum).unwrap_or_default());
        } else {
            println!("{summary}");
        }
        if self.asked.marks && !self.asked.json {
            print!("{}", tell::table(&self.sum));
        }
        self.enter()?;
        let never = self.sum.never(self.scenario.requires.iter().map(String::as_str));
        if self.asked.require && !never.is_empty() {
            eprintln!("{} requires, and no run reached: {}", self.scenario.name, never.join("; "));
            return Err(3);
        }
        Ok(())
    }

    /// Appends to the ledger, when that was asked.
    fn enter(&self) -> Result<(), u8> {
        let Some(path) = &self.asked.ledger else { return Ok(()) };
        let reached = self.sum.marks.values().filter(|count| **count > 0).count();
        let faults = self.sum.reached.len();
        let steps = self.asked.steps.map(|steps| format!(" --steps {steps}")).unwrap_or_default();
        let twice = if self.asked.twice { " --twice" } else { "" };
        let (first, last) = self.sum.seeds.unwrap_or_default();
        let entry = ledger::Entry {
            method: format!("simulate --scenario {}{steps}{twice}", self.scenario.name),
            commit: ledger::commit(),
            seeds: format!("{first}-{last}"),
            runs: self.sum.runs,
            crashes: self.sum.crashes(),
            hours: self.sum.hours(),
            reached: format!("{faults} kinds of faults, {reached} of {} marks", self.sum.marks.len()),
            result: "0 lost, 0 differences, all settled".to_string(),
        };
        ledger::append(path, &entry).map_err(|error| {
            eprintln!("{}: {error}", path.display());
            2
        })
    }
}
