//! Feeds hostile and random bytes to everything that takes bytes from outside, and random values through two whole nodes.
//!
//! The targets are plain functions ([`target`]). This driver mutates and generates ([`drive`]), every target in a process of
//! its own with bounded memory ([`supervise`]). What ever failed lies in `fuzz/found/` and is tried first. Exit codes: 0 all well, 1 a target failed, 2
//! wrong options. More in `README.md`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

#[cfg(feature = "daemon")]
#[path = "fuzz/api.rs"]
mod api;
#[path = "fuzz/arena.rs"]
mod arena;
#[path = "fuzz/bundle.rs"]
mod bundle;
#[path = "fuzz/codec.rs"]
mod codec;
#[path = "world/dice.rs"]
mod dice;
#[path = "fuzz/draws.rs"]
mod draws;
#[path = "fuzz/drive.rs"]
mod drive;
#[path = "fuzz/duo.rs"]
mod duo;
#[path = "fuzz/found.rs"]
mod found;
#[path = "fuzz/made.rs"]
mod made;
#[path = "fuzz/member.rs"]
mod member;
#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "fuzz/records.rs"]
mod records;
#[path = "world/scratch.rs"]
mod scratch;
#[cfg(feature = "daemon")]
#[path = "fuzz/settings.rs"]
mod settings;
#[path = "fuzz/shape.rs"]
mod shape;
#[path = "fuzz/shrink.rs"]
mod shrink;
#[path = "fuzz/supervise.rs"]
mod supervise;
#[path = "fuzz/target.rs"]
mod target;
#[path = "fuzz/values.rs"]
mod values;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use drive::{Plan, drive};
use target::{TARGETS, Target, find};

const USAGE: &str = "usage: fuzz [--target NAME|all] [--secs N | --runs N] [--seed N] [--jobs N]\n       \
                     fuzz --target NAME --hex HEX | --file PATH [--shrink SECS]\n       fuzz --list | --found";

/// What the command line asks for.
pub struct Options {
    targets: Vec<&'static Target>,
    secs: u64,
    runs: Option<u64>,
    seed: u64,
    jobs: u64,
    input: Option<Vec<u8>>,
    /// Seconds to make the input small.
    shrink: Option<u64>,
    /// Set in the process of one target: the folder for its files.
    inside: Option<PathBuf>,
    list: bool,
    found: bool,
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let fine = match (&options.input, &options.inside) {
        _ if options.list => {
            TARGETS.iter().for_each(|target| println!("{:10} {}", target.name, target.promise));
            true
        }
        (Some(input), _) => options.targets.iter().all(|target| try_one(target, input, options.shrink)),
        (None, Some(folder)) => options.targets.iter().all(|target| inside(target, &options, folder.clone())),
        (None, None) if options.found => found::run_all(),
        (None, None) => outside(&options),
    };
    if fine { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// All targets asked for, one after the other.
fn outside(options: &Options) -> bool {
    let started = Instant::now();
    let fine = found::run_all()
        & options.targets.iter().fold(true, |fine, target| fine & supervise::supervise(target, options));
    println!(
        "{} targets in {:.0} s: {}",
        options.targets.len(),
        started.elapsed().as_secs_f64(),
        if fine { "ok" } else { "FAILED" }
    );
    fine
}

/// One target, in its own process.
fn inside(target: &'static Target, options: &Options, folder: PathBuf) -> bool {
    drive::quiet_panics();
    let started = Instant::now();
    let plan = Plan { target, secs: options.secs, runs: options.runs, seed: options.seed, jobs: options.jobs, folder };
    let report = drive(&plan);
    let secs = started.elapsed().as_secs_f64();
    let resident = resident_kib_peak();
    let large = resident > supervise::RESIDENT_KIB_MAX;
    println!(
        "{:10} {:>9} runs in {secs:.1} s, {:.0} runs/s, {} outcomes, {} MiB at the peak{}",
        target.name,
        report.runs,
        report.runs as f64 / secs,
        report.outcomes,
        resident >> 10,
        if large { ": TOO MUCH" } else { "" },
    );
    match values::COMPARED.load(std::sync::atomic::Ordering::Relaxed) {
        0 => {}
        compared => println!("{:10} {compared:>9} values the same bits on the far server", target.name),
    }
    if let Some(failure) = &report.failure {
        println!("{} FAILED (it promises: {}): {failure}", target.name, target.promise);
    }
    report.failure.is_none() && !large
}

fn try_one(target: &'static Target, input: &[u8], secs: Option<u64>) -> bool {
    drive::quiet_panics();
    match drive::attempt_fresh(target, input) {
        Ok(outcome) => println!("{}: {outcome}", target.name),
        Err(words) => {
            println!("{} FAILED: {words}", target.name);
            if let Some(secs) = secs {
                let fails = |input: &[u8]| drive::attempt_fresh(target, input).is_err();
                let small = shrink::shrink(input, Duration::from_secs(secs), fails);
                println!("{}", drive::again(target.name, &small));
            }
            return false;
        }
    }
    true
}

/// The most memory this process ever had in use, as the system counts it; 0 where it does not tell.
fn resident_kib_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn options() -> Option<Options> {
    let all = || TARGETS.iter().collect::<Vec<_>>();
    let mut options = Options {
        targets: all(),
        secs: 3,
        runs: None,
        seed: 1,
        jobs: 2,
        input: None,
        shrink: None,
        inside: None,
        list: false,
        found: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut text = || words.next();
        match word.as_str() {
            "--target" => match text()?.as_str() {
                "all" => options.targets = all(),
                name => options.targets = vec![find(name)?],
            },
            "--secs" => options.secs = text()?.parse().ok()?,
            "--runs" => options.runs = Some(text()?.parse().ok()?),
            "--seed" => options.seed = text()?.parse().ok()?,
            "--jobs" => options.jobs = text()?.parse().ok().filter(|jobs| (1..=64).contains(jobs))?,
            "--hex" => options.input = Some(data_encoding::HEXLOWER_PERMISSIVE.decode(text()?.as_bytes()).ok()?),
            "--file" => options.input = Some(std::fs::read(text()?).ok()?),
            "--shrink" => options.shrink = Some(text()?.parse().ok()?),
            "--inside" => options.inside = Some(PathBuf::from(text()?)),
            "--list" => options.list = true,
            "--found" => options.found = true,
            _ => return None,
        }
    }
    Some(options)
}
