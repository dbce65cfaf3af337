//! Runs whole clusters under faults, seed after seed, until the time is over or something breaks.
//!
//! A run has a safety phase (apps write; frames are lost, links cut, nodes killed) and a liveness phase (all is mended; the
//! cluster must settle within [`SETTLE_MS_MAX`] of virtual time), then the checks of `world::check`. Every seed is run
//! twice when `--twice` is given: the traces must be equal. Exit codes: 0 all well, 127 crash (a panic, Rust's 101),
//! 128 not settled, 129 wrong.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use world::{World, check};

/// Virtual time in which a mended cluster must settle, ms.
const SETTLE_MS_MAX: u64 = 120_000;

struct Options {
    seed: Option<u64>,
    first: u64,
    secs: u64,
    steps: u64,
    twice: bool,
}

enum Verdict {
    Fine { trace: String, frames: u64, virtual_ms: u64 },
    NotSettled,
    Wrong(String),
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("usage: simulate [--seed N | --first N] [--secs N] [--steps N] [--twice]");
        return ExitCode::from(2);
    };
    let started = Instant::now();
    let (mut runs, mut virtual_ms, mut frames) = (0u64, 0u64, 0u64);
    let mut seed = options.seed.unwrap_or(options.first);
    loop {
        let verdict = run(seed, options.steps);
        match &verdict {
            Verdict::Fine { trace, frames: sent, virtual_ms: passed } => {
                if options.twice
                    && !matches!(run(seed, options.steps), Verdict::Fine { trace: again, .. } if again == *trace)
                {
                    eprintln!(
                        "seed {seed}: two runs differ. Again: simulate --seed {seed} --steps {} --twice",
                        options.steps
                    );
                    return ExitCode::from(129);
                }
                if options.seed.is_some() {
                    println!("seed {seed}: trace {trace}, {sent} frames, {} virtual s", passed / 1000);
                }
                runs += 1;
                frames += sent;
                virtual_ms += passed;
            }
            Verdict::NotSettled => {
                eprintln!(
                    "seed {seed}: not settled after {SETTLE_MS_MAX} ms. Again: simulate --seed {seed} --steps {}",
                    options.steps
                );
                return ExitCode::from(128);
            }
            Verdict::Wrong(what) => {
                eprintln!("seed {seed}: {what}. Again: simulate --seed {seed} --steps {}", options.steps);
                return ExitCode::from(129);
            }
        }
        if options.seed.is_some() || started.elapsed() >= Duration::from_secs(options.secs) {
            break;
        }
        seed += 1;
    }
    println!(
        "{runs} clusters, {:.1} virtual hours, {frames} frames, 0 rows lost, 0 differences, in {:.0} s (first seed {})",
        virtual_ms as f64 / 3_600_000.0,
        started.elapsed().as_secs_f64(),
        options.seed.unwrap_or(options.first)
    );
    ExitCode::SUCCESS
}

fn options() -> Option<Options> {
    let mut options = Options { seed: None, first: 1, secs: 10, steps: 150, twice: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next()?.parse::<u64>().ok();
        match word.as_str() {
            "--seed" => options.seed = Some(number()?),
            "--first" => options.first = number()?,
            "--secs" => options.secs = number()?,
            "--steps" => options.steps = number()?,
            "--twice" => options.twice = true,
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
            _ => {}
        }
        let pause = world.dice.below(if world.dice.clone().chance(10) { 5_000 } else { 60 });
        world.run(pause);
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
