//! Random histories: the incremental evaluator against the reference, after every event, on every node.
//!
//! Nodes with real evaluators over stores in memory write, pull in any order, merge and split; after every event what the
//! evaluator says is compared with F of the set of events ([`reference`]). At the end everything is delivered and the
//! invariants are checked. A failing history is made small and told step by step. Exit codes: 0 all well, 1 something is
//! wrong, 2 wrong options. More in `README.md`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "histories/act.rs"]
mod act;
#[path = "histories/check.rs"]
mod check;
#[path = "world/dice.rs"]
mod dice;
#[path = "histories/history.rs"]
mod history;
#[path = "histories/invariant.rs"]
mod invariant;
mod plant;
#[path = "histories/reference.rs"]
mod reference;
#[path = "histories/scene.rs"]
mod scene;
#[path = "histories/shown.rs"]
mod shown;
#[path = "histories/shrink.rs"]
mod shrink;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dice::Dice;
use history::{Step, World, draw_steps};
use scene::{Options, Scene};
use shrink::Failure;

/// What the command line asks for.
#[derive(Clone, Default)]
struct Asked {
    first: u64,
    count: Option<u64>,
    secs: Option<u64>,
    seed: Option<u64>,
    trace: bool,
    jobs: u64,
    plant: Option<String>,
    keep: Option<Vec<usize>>,
    without: Vec<String>,
}

/// What a run came to.
#[derive(Default)]
struct Sum {
    histories: u64,
    events: u64,
    evaluations: u64,
    marks: BTreeMap<&'static str, u64>,
}

fn main() -> ExitCode {
    let Some(asked) = asked() else {
        eprintln!(
            "usage: histories [--first N] [--count N] [--secs N] [--jobs N] [--plant NAME]\n       histories --seed N \
             [--trace] [--keep STEP,STEP] [--without NAME,NAME] [--plant NAME]"
        );
        return ExitCode::from(2);
    };
    std::panic::set_hook(Box::new(|_| {}));
    let scene = Scene::new();
    if let Some(seed) = asked.seed {
        return one(&scene, seed, &asked);
    }
    many(&scene, &asked)
}

/// One seed, perhaps with fewer steps.
fn one(scene: &Scene, seed: u64, asked: &Asked) -> ExitCode {
    let (mut options, mut steps) = draw(scene, seed);
    for name in &asked.without {
        options.without(name);
    }
    if let Some(keep) = &asked.keep {
        steps.retain(|step| keep.contains(&step.number));
    }
    let found = shrink::outcome(scene, seed, &options, &steps);
    if asked.trace || found.is_some() {
        let violation = found.clone();
        tell(scene, seed, &options, &steps, violation.as_ref().map(|violation| violation.check));
    }
    match found {
        Some(violation) => {
            println!("WRONG: {}: {}", violation.check, violation.what);
            ExitCode::from(1)
        }
        None => {
            println!("seed {seed}: {} steps, nothing wrong", steps.len());
            ExitCode::SUCCESS
        }
    }
}

fn draw(scene: &Scene, seed: u64) -> (Options, Vec<Step>) {
    let mut dice = Dice::new(seed);
    let options = Options::draw(&mut dice, scene);
    let steps = draw_steps(&mut dice, &options);
    (options, steps)
}

/// Seed after seed, on several threads.
fn many(scene: &Scene, asked: &Asked) -> ExitCode {
    let started = Instant::now();
    let (next, stop) = (AtomicU64::new(asked.first), AtomicBool::new(false));
    let sum = Mutex::new(Sum::default());
    let failure: Mutex<Option<Failure>> = Mutex::new(None);
    let last = asked.count.map(|count| asked.first + count);
    let over = || asked.secs.is_some_and(|secs| started.elapsed() >= Duration::from_secs(secs));
    std::thread::scope(|threads| {
        for _ in 0..asked.jobs {
            threads.spawn(|| {
                while !stop.load(Ordering::Relaxed) && !over() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if last.is_some_and(|last| seed >= last) {
                        return;
                    }
                    if let Some(found) = attempt(scene, seed, &sum) {
                        let mut failure = failure.lock().unwrap_or_else(|poison| poison.into_inner());
                        if failure.as_ref().is_none_or(|earlier| earlier.seed > seed) {
                            *failure = Some(found);
                        }
                        stop.store(true, Ordering::Relaxed);
                    }
                    if seed.is_multiple_of(1_000) {
                        eprintln!("seed {seed}, {:.0} s", started.elapsed().as_secs_f64());
                    }
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap_or_else(|poison| poison.into_inner());
    let failure = failure.into_inner().unwrap_or_else(|poison| poison.into_inner());
    summary(&sum, started.elapsed(), asked.plant.is_none());
    match failure {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            report(scene, failure, asked.plant.as_deref());
            ExitCode::from(1)
        }
    }
}

fn attempt(scene: &Scene, seed: u64, sum: &Mutex<Sum>) -> Option<Failure> {
    let (options, steps) = draw(scene, seed);
    let mut world = World::new(scene, &options, seed, false);
    let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run(&steps, seed)));
    let violation = match run {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(violation),
        Err(_) => shrink::outcome(scene, seed, &options, &steps),
    };
    let mut sum = sum.lock().unwrap_or_else(|poison| poison.into_inner());
    sum.histories += 1;
    sum.events += world.entries.len() as u64;
    sum.evaluations += world.evaluations;
    for (name, count) in &world.marks {
        *sum.marks.entry(name).or_default() += count;
    }
    violation.map(|violation| Failure { seed, options, without: Vec::new(), steps, violation })
}

fn summary(sum: &Sum, took: Duration, marks: bool) {
    println!(
        "{} histories, {} events, {} evaluations compared, {:.0} s",
        sum.histories,
        sum.events,
        sum.evaluations,
        took.as_secs_f64()
    );
    if !marks {
        return;
    }
    for name in check::MARKS {
        println!("  {:>9}  {name}", sum.marks.get(name).copied().unwrap_or_default());
    }
    let never: Vec<&str> = check::MARKS.into_iter().filter(|name| !sum.marks.contains_key(name)).collect();
    if !never.is_empty() && sum.histories >= 1_000 {
        println!("NEVER REACHED: {}", never.join(", "));
    }
}

/// Makes a failure small and tells it.
fn report(scene: &Scene, failure: Failure, plant: Option<&str>) {
    let (seed, count) = (failure.seed, failure.steps.len());
    println!("seed {seed}: {}: {}", failure.violation.check, failure.violation.what);
    let started = Instant::now();
    let small = shrink::shrink(scene, failure);
    println!("\n{count} steps became {} in {:.1} s:\n", small.steps.len(), started.elapsed().as_secs_f64());
    tell(scene, seed, &small.options, &small.steps, Some(small.violation.check));
    println!("WRONG: {}: {}", small.violation.check, small.violation.what);
    let keep: Vec<String> = small.steps.iter().map(|step| step.number.to_string()).collect();
    let mut again = format!("histories --seed {seed} --trace --keep {}", keep.join(","));
    if !small.without.is_empty() {
        again += &format!(" --without {}", small.without.join(","));
    }
    if let Some(plant) = plant {
        again += &format!(" --plant {plant}");
    }
    println!("Again: {again}");
}

/// Runs a history once more and tells what everybody did and what each node shows at the end.
fn tell(scene: &Scene, seed: u64, options: &Options, steps: &[Step], failed: Option<&'static str>) {
    let mut world = World::new(scene, options, seed, true);
    let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(world.run(steps, seed))));
    println!("options: {options:?}");
    for node in 0..world.nodes.len() {
        println!("node {node} is {}, rank {node}, clock off by {} ms", scene.ids[node], world.nodes[node].skew_ms);
    }
    for line in world.trace.take().unwrap_or_default() {
        println!("{line}");
    }
    if run.is_err() {
        println!("(a panic ended it)");
    }
    let mut before = String::new();
    for node in 0..world.nodes.len() {
        let shows = act::show(&mut world, node, failed.is_some());
        let same = if shows == before { "as the node before\n" } else { &shows };
        print!("node {node}: {same}");
        before = shows;
    }
}

fn asked() -> Option<Asked> {
    let mut asked = Asked { first: 1, jobs: 1, ..Asked::default() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--trace" => asked.trace = true,
            "--first" => asked.first = words.next()?.parse().ok()?,
            "--count" => asked.count = Some(words.next()?.parse().ok()?),
            "--secs" => asked.secs = Some(words.next()?.parse().ok()?),
            "--seed" => asked.seed = Some(words.next()?.parse().ok()?),
            "--jobs" => asked.jobs = words.next()?.parse().ok().filter(|jobs| (1..=64).contains(jobs))?,
            "--keep" => {
                let numbers: Result<Vec<usize>, _> = words.next()?.split(',').map(str::parse).collect();
                asked.keep = Some(numbers.ok()?);
            }
            "--without" => asked.without = words.next()?.split(',').map(str::to_string).collect(),
            "--plant" => {
                let name = words.next()?;
                plant::plant(&name)?;
                asked.plant = Some(name);
            }
            _ => return None,
        }
    }
    if asked.seed.is_none() && asked.count.is_none() && asked.secs.is_none() {
        asked.secs = Some(if asked.plant.is_none() { 20 } else { 60 });
    }
    Some(asked)
}
