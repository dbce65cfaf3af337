//! The built-in driver: mutates and generates, keeps what led somewhere new, and makes what fails small.
//!
//! Invariant: a job's inputs follow from seed and job number alone. Every input is on disk before it is tried, so that a
//! process that dies leaves it behind. Caller: `main`, in the process that `supervise` watches.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::dice::Dice;
use crate::mutate::mutate;
use crate::shrink::{PATIENCE, shrink};
use crate::target::{Outcome, Target};

/// Inputs that a job keeps.
const CORPUS_MAX: usize = 4_000;

/// A run that takes longer hangs.
const RUN_SECS_MAX: u64 = 30;

/// Names the folder of inputs that failed, to a target's own process.
pub const KEEP: &str = "LITEMESH_FUZZ_KEEP";

/// Exit code of a process whose target hangs.
pub const HANGS: i32 = 124;

/// What to do with one target.
pub struct Plan {
    /// What is fed.
    pub target: &'static Target,
    /// For how long.
    pub secs: u64,
    /// So many runs of each job instead.
    pub runs: Option<u64>,
    /// First number of all draws.
    pub seed: u64,
    /// Threads.
    pub jobs: u64,
    /// Where inputs under way lie.
    pub folder: PathBuf,
}

/// What a target came to.
pub struct Report {
    /// Inputs tried.
    pub runs: u64,
    /// Ways they went.
    pub outcomes: usize,
    /// The first failure: words and the command that does it again.
    pub failure: Option<String>,
}

struct Failure {
    input: Vec<u8>,
    words: String,
    run: u64,
}

#[derive(Default)]
struct Job {
    runs: u64,
    outcomes: BTreeSet<Outcome>,
    failure: Option<Failure>,
}

thread_local! {
    static PANIC: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

/// Keeps what panics say instead of printing it.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| PANIC.with(|words| *words.borrow_mut() = info.to_string())));
}

/// One input; the error is what the panic said.
pub fn attempt(target: &Target, input: &[u8]) -> Result<Outcome, String> {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|_| PANIC.with(|words| words.borrow().clone()))
}

/// One input before anything else happened: targets keep their state by thread.
pub fn attempt_fresh(target: &'static Target, input: &[u8]) -> Result<Outcome, String> {
    std::thread::scope(|scope| {
        scope.spawn(|| attempt(target, input)).join().unwrap_or_else(|_| Err("the thread died".to_string()))
    })
}

/// Feeds the target until its time is over or it fails.
pub fn drive(plan: &Plan) -> Report {
    let started = Instant::now();
    let stop = AtomicBool::new(false);
    let begun: Vec<AtomicU64> = (0..plan.jobs).map(|_| AtomicU64::new(0)).collect();
    let jobs: Vec<Job> = std::thread::scope(|scope| {
        let spawn = |job: u64| {
            let (stop, begun) = (&stop, &begun[job as usize]);
            scope.spawn(move || run_job(plan, job, started, stop, begun))
        };
        let handles: Vec<_> = (0..plan.jobs).map(spawn).collect();
        while handles.iter().any(|handle| !handle.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
            let now = started.elapsed().as_secs();
            if begun.iter().any(|begun| now.saturating_sub(begun.load(Ordering::Relaxed)) > RUN_SECS_MAX) {
                std::process::exit(HANGS);
            }
        }
        handles.into_iter().map(|handle| handle.join().expect("a job catches its panics")).collect()
    });
    let runs = jobs.iter().map(|job| job.runs).sum();
    let outcomes: BTreeSet<&Outcome> = jobs.iter().flat_map(|job| &job.outcomes).collect();
    let failed = jobs.iter().enumerate().find_map(|(job, done)| Some((job, done.failure.as_ref()?)));
    let failure = failed.map(|(job, failure)| explain(plan, job, failure));
    Report { runs, outcomes: outcomes.len(), failure }
}

/// Where a job's input lies while it is tried.
pub fn input_path(folder: &Path, job: u64) -> PathBuf {
    folder.join(format!("input-{job}"))
}

fn run_job(plan: &Plan, job: u64, started: Instant, stop: &AtomicBool, begun: &AtomicU64) -> Job {
    let mut dice = Dice::new(plan.seed.wrapping_mul(1_000).wrapping_add(job));
    let mut corpus: Vec<Vec<u8>> = (0..20).map(|_| (plan.target.generate)(&mut dice)).collect();
    let mut done = Job::default();
    let file = std::fs::File::create(input_path(&plan.folder, job)).expect("the folder of the run can be written");
    let more = |runs: u64| match plan.runs {
        Some(most) => runs < most,
        None => started.elapsed() < Duration::from_secs(plan.secs),
    };
    while more(done.runs) && !stop.load(Ordering::Relaxed) {
        let input = draw(plan.target, &corpus, &mut dice);
        note(&file, &input);
        begun.store(started.elapsed().as_secs(), Ordering::Relaxed);
        let result = attempt(plan.target, &input);
        done.runs += 1;
        match result {
            Ok(outcome) => {
                if !done.outcomes.contains(&outcome) && done.outcomes.len() < CORPUS_MAX {
                    done.outcomes.insert(outcome);
                    corpus.push(input);
                }
            }
            Err(words) => {
                stop.store(true, Ordering::Relaxed);
                done.failure = Some(Failure { input, words, run: done.runs });
            }
        }
    }
    // Done: nothing hangs any more.
    begun.store(u64::MAX, Ordering::Relaxed);
    done
}

fn draw(target: &Target, corpus: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    match dice.below(100) {
        0..=24 => (target.generate)(dice),
        25..=27 => crate::draws::random(dice, 400),
        _ => {
            let base = &corpus[dice.below(corpus.len() as u64) as usize];
            mutate(base, corpus, target.words, dice)
        }
    }
}

/// Length and bytes, written over the input before: no system call more than one.
fn note(file: &std::fs::File, input: &[u8]) {
    let mut noted = (input.len() as u64).to_le_bytes().to_vec();
    noted.extend_from_slice(input);
    file.write_all_at(&noted, 0).expect("the folder of the run can be written");
}

/// The input that was under way in a job of a dead process.
pub fn noted(folder: &Path, job: u64) -> Option<Vec<u8>> {
    let bytes = std::fs::read(input_path(folder, job)).ok()?;
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    rest.get(..u64::from_le_bytes(*length) as usize).map(<[u8]>::to_vec)
}

fn explain(plan: &Plan, job: usize, failure: &Failure) -> String {
    let (target, words) = (plan.target, &failure.words);
    if attempt_fresh(target, &failure.input).is_ok() {
        return format!(
            "{words}\n(only after what came before it: job {job}, run {})\nAgain: fuzz --target {} --seed {} --jobs {} --runs {}",
            failure.run, target.name, plan.seed, plan.jobs, failure.run
        );
    }
    let small = shrink(&failure.input, PATIENCE, |input| attempt_fresh(target, input).is_err());
    let words = attempt_fresh(target, &small).err().unwrap_or_default();
    format!("{words}\n{}", again(target.name, &small))
}

/// The command that tries an input again.
pub fn again(target: &str, input: &[u8]) -> String {
    if input.len() <= 2_000 {
        return format!("Again: fuzz --target {target} --hex {}", data_encoding::HEXLOWER.encode(input));
    }
    // A target's own process has a temporary folder that goes with it.
    let folder = std::env::var_os(KEEP).map_or_else(std::env::temp_dir, PathBuf::from);
    let path = folder.join(format!("litemesh-fuzz-{target}.bin"));
    match std::fs::write(&path, input) {
        Ok(()) => format!("Again: fuzz --target {target} --file {}", path.display()),
        Err(error) => format!("({} bytes that cannot be written to {}: {error})", input.len(), path.display()),
    }
}
