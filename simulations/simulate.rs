//! Runs whole clusters under faults, seed after seed, until the time is over or something breaks.
//!
//! A run has a safety phase (apps write; frames are lost, links cut, nodes killed) and a liveness phase (all is mended; the
//! cluster must settle within [`SETTLE_MS_MAX`] of virtual time), then the checks of `world::check`. Every seed is run
//! twice when `--twice` is given: the traces must be equal. Exit codes: 0 all well, 101 a panic, 128 not
//! settled, 129 wrong. More in `README.md`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod crash;
mod disk;
mod plant;
mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use world::{World, check};

/// Virtual time in which a mended cluster must settle, ms.
const SETTLE_MS_MAX: u64 = 120_000;

/// Seeds that found a defect: `seed steps sentence`.
const REGRESSIONS: &str = include_str!("regressions.txt");

struct Options {
    seed: Option<u64>,
    first: u64,
    secs: u64,
    steps: u64,
    twice: bool,
    regressions: bool,
    crash: bool,
}

enum Verdict {
    Fine { trace: String, frames: u64, virtual_ms: u64 },
    NotSettled,
    Wrong(String),
}

/// What runs came to, added up.
#[derive(Default)]
struct Sum {
    runs: u64,
    virtual_ms: u64,
    frames: u64,
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!(
            "usage: simulate [--seed N | --first N | --regressions] [--secs N] [--steps N] [--twice] [--plant NAME]"
        );
        return ExitCode::from(2);
    };
    if options.crash {
        return crash(&options);
    }
    let started = Instant::now();
    let mut sum = Sum::default();
    let result = if options.regressions { regressions(&options, &mut sum) } else { seeds(&options, started, &mut sum) };
    if let Err(code) = result {
        return ExitCode::from(code);
    }
    println!(
        "{} clusters, {:.1} virtual hours, {} frames, 0 rows lost, 0 differences, in {:.0} s",
        sum.runs,
        sum.virtual_ms as f64 / 3_600_000.0,
        sum.frames,
        started.elapsed().as_secs_f64(),
    );
    ExitCode::SUCCESS
}

/// The scenario `crash`: every cycle a power cut or a kill.
fn crash(options: &Options) -> ExitCode {
    let Options { seed, first, secs, twice, .. } = *options;
    match crash::run(crash::Options { seed, first, secs, twice }) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(what) => {
            eprintln!("{what}");
            ExitCode::from(129)
        }
    }
}

/// One seed, or seed after seed until the time is over.
fn seeds(options: &Options, started: Instant, sum: &mut Sum) -> Result<(), u8> {
    let mut seed = options.seed.unwrap_or(options.first);
    loop {
        one(seed, options.steps, options.twice, options.seed.is_some(), sum)?;
        if options.seed.is_some() || started.elapsed() >= Duration::from_secs(options.secs) {
            return Ok(());
        }
        seed += 1;
    }
}

/// Every seed that ever found a defect.
fn regressions(options: &Options, sum: &mut Sum) -> Result<(), u8> {
    for line in REGRESSIONS.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let mut words = line.splitn(3, ' ');
        let mut number = || words.next().and_then(|word| word.parse().ok());
        let (Some(seed), Some(steps)) = (number(), number()) else {
            eprintln!("regressions.txt: neither seed nor steps: {line}");
            return Err(2);
        };
        one(seed, steps, options.twice, true, sum)?;
    }
    Ok(())
}

/// Runs one cluster and says what is wrong with it. The error is the exit code.
fn one(seed: u64, steps: u64, twice: bool, tell: bool, sum: &mut Sum) -> Result<(), u8> {
    let again = format!("Again: simulate --seed {seed} --steps {steps}");
    match run(seed, steps) {
        Verdict::Fine { trace, frames, virtual_ms } => {
            if twice && !matches!(run(seed, steps), Verdict::Fine { trace: second, .. } if second == trace) {
                eprintln!("seed {seed}: two runs differ. {again} --twice");
                return Err(129);
            }
            if tell {
                println!("seed {seed}: trace {trace}, {frames} frames, {} virtual s", virtual_ms / 1000);
            }
            sum.runs += 1;
            sum.frames += frames;
            sum.virtual_ms += virtual_ms;
            Ok(())
        }
        Verdict::NotSettled => {
            eprintln!("seed {seed}: not settled after {SETTLE_MS_MAX} ms. {again}");
            Err(128)
        }
        Verdict::Wrong(what) => {
            eprintln!("seed {seed}: {what}. {again}");
            Err(129)
        }
    }
}

fn options() -> Option<Options> {
    let mut options =
        Options { seed: None, first: 1, secs: 10, steps: 150, twice: false, regressions: false, crash: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next()?.parse::<u64>().ok();
        match word.as_str() {
            "--seed" => options.seed = Some(number()?),
            "--first" => options.first = number()?,
            "--secs" => options.secs = number()?,
            "--steps" => options.steps = number()?,
            "--twice" => options.twice = true,
            "--scenario" => options.crash = words.next()? == "crash",
            "--plant" => plant::plant(&words.next()?)?,
            "--regressions" => options.regressions = true,
            _ => return None,
        }
    }
    Some(options)
}

fn run(seed: u64, steps: u64) -> Verdict {
    let count = 2 + (seed % 3) as usize;
    let mut world = World::new(seed, count);
    for _ in 0..steps {
        let server = world.dice.below(count as u64) as usize;
        match world.dice.below(100) {
            0..=79 => world.write(server),
            80..=87 if world.faults.cuts => {
                let (other, cut) = (world.dice.below(count as u64) as usize, world.dice.chance(60));
                world.set_cut(server, other, cut);
            }
            88..=93 if world.faults.kills => {
                if world.servers[server].node.is_some() {
                    world.kill(server);
                } else {
                    world.start(server);
                }
            }
            94..=99 => world.disk_fault(server),
            _ => {}
        }
        let pause = world.dice.below(if world.dice.clone().chance(10) { 5_000 } else { 60 });
        world.run(pause);
        if let Err(what) = check::check_fingerprints(&world) {
            return Verdict::Wrong(format!("at {} ms: {what}", world.now_ms));
        }
    }
    world.heal();
    let deadline = world.now_ms + SETTLE_MS_MAX;
    while !world.is_settled() {
        if world.now_ms >= deadline {
            return Verdict::NotSettled;
        }
        world.run(100);
    }
    if let Err(what) = check::check(&world) {
        return Verdict::Wrong(what);
    }
    let (trace, frames) = world.trace();
    Verdict::Fine { trace, frames, virtual_ms: world.now_ms }
}
