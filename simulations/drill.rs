//! The drill: plants every bug of `litemesh::model::planted`, one at a time, and shows that a simulator finds it in time.
//!
//! Every bug is hunted in a process of its own by the command that [`hunt`] names, seed after seed from the first one on.
//! Exit codes: 0 all were found, 1 one was not, 2 wrong options or a simulator is missing. Invariant: a bug without a hunter
//! does not compile. Does not verify: that the simulators are silent without a bug (their own runs do). Run by `drill.sh`,
//! which builds the simulators first. More in `README.md`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use litemesh::model::Bug;

/// A simulator looks at the time between two seeds only: it is ended when it is late by more than this.
const GRACE: Duration = Duration::from_secs(20);

/// Who looks for a bug, and with what options.
type Hunt = (&'static str, &'static [&'static str]);

const HISTORIES: Hunt = ("histories", &[]);
const CLUSTER: Hunt = ("simulate", &["--no-shrink", "--steps", "100"]);
const CLOCKS: Hunt = ("simulate", &["--no-shrink", "--scenario", "clocks"]);
const CLONE: Hunt = ("simulate", &["--no-shrink", "--scenario", "clone"]);
const RESTORED: Hunt = ("simulate", &["--no-shrink", "--scenario", "restored"]);
const WIFI: Hunt = ("simulate", &["--no-shrink", "--scenario", "flaky-wifi"]);
const CRASH: Hunt = ("simulate", &["--scenario", "crash"]);

/// The simulator that is to find a bug. None finds all: each looks where the others do not.
fn hunt(bug: Bug) -> Hunt {
    match bug {
        // Which of several values or rows is shown: F of the events says it, event by event.
        Bug::LastArrivalWins
        | Bug::LoserForgotten
        | Bug::GreedyDelete
        | Bug::MergeStands
        | Bug::IdsByClock
        | Bug::ClaimsIgnoreAfter => HISTORIES,
        // Who knew what, and when: several servers, and frames that go astray.
        Bug::DrainSplits
        | Bug::HintsIgnored
        | Bug::CounterSendsTotal
        | Bug::GenesisPerServer
        | Bug::PullOnce
        | Bug::CauseNotAwaited
        | Bug::CascadeAgain => CLUSTER,
        Bug::StampNotGreater | Bug::ClockGoesBack | Bug::FutureAbsorbed => CLOCKS,
        Bug::OneIncarnation => CLONE,
        Bug::OwnPastIgnored | Bug::RestoreDeletes => RESTORED,
        Bug::HelloOnce => WIFI,
        // What is left after a power cut, a kill, a liar or a rotten bit.
        Bug::RidFromSequence
        | Bug::RidsIgnored
        | Bug::NoFence
        | Bug::MarksClearedEarly
        | Bug::PublishedEarly
        | Bug::CatchUpSkipped
        | Bug::OneCursor
        | Bug::MigrationDeletes
        | Bug::AnnouncementTrusted
        | Bug::SinceByTime
        | Bug::SignatureUnchecked
        | Bug::LogUnchecked
        | Bug::CursorApart
        | Bug::TornApply
        | Bug::RefusedDropped
        | Bug::EchoOnApply
        | Bug::ShelfForgets => CRASH,
    }
}

/// What the command line asks for.
struct Asked {
    /// Time for one bug.
    secs: u64,
    /// Bugs hunted at the same time.
    jobs: usize,
    /// Time for all; bugs whose turn does not come are left out.
    within: Option<u64>,
    bugs: Vec<Bug>,
}

/// What became of one bug.
enum Found {
    /// After so long, with so many seeds, in these words.
    Yes { secs: f64, seeds: Option<u64>, said: String },
    /// The time was over first.
    No,
    /// The time for all was over before it was this bug's turn, or before its own time was.
    LeftOut,
    /// The simulator could not be run.
    Broken(String),
}

fn main() -> ExitCode {
    let Some(asked) = asked() else {
        eprintln!("usage: drill [--secs N] [--jobs N] [--within N] [--draw N] [--only NAME,NAME]\n       drill --list");
        return ExitCode::from(2);
    };
    let folder = match std::env::current_exe() {
        Ok(program) => program.parent().map(Path::to_path_buf).unwrap_or_default(),
        Err(error) => {
            eprintln!("the drill does not know where it is: {error}");
            return ExitCode::from(2);
        }
    };
    println!("{:<22} {:<9} {:>6} {:>6}  said", "bug", "found by", "s", "seeds");
    let started = Instant::now();
    let waiting: Mutex<VecDeque<Bug>> = Mutex::new(asked.bugs.iter().copied().collect());
    let results: Mutex<Vec<Found>> = Mutex::new(Vec::new());
    std::thread::scope(|threads| {
        for _ in 0..asked.jobs {
            threads.spawn(|| {
                while let Some(bug) = take(&waiting) {
                    let found = chase(bug, &folder, &asked, started);
                    tell(bug, &found);
                    results.lock().unwrap_or_else(|poison| poison.into_inner()).push(found);
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(|poison| poison.into_inner());
    let count = |what: fn(&Found) -> bool| results.iter().filter(|found| what(found)).count();
    let found = count(|found| matches!(found, Found::Yes { .. }));
    let out = count(|found| matches!(found, Found::LeftOut));
    let missed = results.len() - found - out;
    println!("{found} planted bugs found, {missed} not, {out} left out, in {:.0} s", started.elapsed().as_secs_f64());
    if results.iter().any(|found| matches!(found, Found::Broken(_))) {
        return ExitCode::from(2);
    }
    ExitCode::from(u8::from(missed > 0 || found == 0))
}

fn take(waiting: &Mutex<VecDeque<Bug>>) -> Option<Bug> {
    waiting.lock().unwrap_or_else(|poison| poison.into_inner()).pop_front()
}

/// Runs the hunter of a bug until it finds something or the time is over.
fn chase(bug: Bug, folder: &Path, asked: &Asked, started: Instant) -> Found {
    let left = asked.within.map(|within| within.saturating_sub(started.elapsed().as_secs()));
    if left == Some(0) {
        return Found::LeftOut;
    }
    let secs = left.unwrap_or(asked.secs).min(asked.secs);
    let (program, options) = hunt(bug);
    let words = folder.join(format!("drill-{}.txt", bug.name()));
    let begun = Instant::now();
    let code = match run(&folder.join(program), bug, options, secs, &words) {
        Ok(code) => code,
        Err(error) => return Found::Broken(format!("{program}: {error}")),
    };
    let text = std::fs::read_to_string(&words).unwrap_or_default();
    // Left from the hunt: nothing reads it again.
    let _ = std::fs::remove_file(&words);
    let took = begun.elapsed().as_secs_f64();
    match code {
        Some(0) | None if secs < asked.secs => Found::LeftOut,
        Some(0) | None => Found::No,
        Some(2) => Found::Broken(text),
        Some(_) => Found::Yes { secs: took, seeds: seed_in(&text), said: said(&text) },
    }
}

/// Runs a program with a bug planted, and gives its exit code; `None` when it had to be ended.
fn run(program: &Path, bug: Bug, options: &[&str], secs: u64, words: &PathBuf) -> std::io::Result<Option<i32>> {
    let (out, err) = (File::create(words)?, File::options().append(true).open(words)?);
    let mut child = Command::new(program)
        .args(["--plant", bug.name(), "--secs", &secs.to_string()])
        .args(options)
        .stdin(Stdio::null())
        .stdout(out.try_clone().unwrap_or(err.try_clone()?))
        .stderr(err)
        .spawn()?;
    let end = Instant::now() + Duration::from_secs(secs) + GRACE;
    loop {
        if let Some(status) = child.try_wait()? {
            // Without a code a signal ended it: an abort says that something is wrong.
            return Ok(Some(status.code().unwrap_or(101)));
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The first seed that a simulator named; it began with seed 1.
fn seed_in(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("seed ")?.split([':', ' ', ',']).next()?.parse().ok())
}

/// The line that says what is wrong.
fn said(text: &str) -> String {
    let wrong = text.lines().find(|line| line.starts_with("seed ") && line.contains(": "));
    let panic = text.lines().skip_while(|line| !line.contains("panicked at")).nth(1);
    wrong.or(panic).or(text.lines().last()).unwrap_or_default().chars().take(150).collect()
}

fn tell(bug: Bug, found: &Found) {
    let by = hunt(bug).0;
    match found {
        Found::Yes { secs, seeds, said } => {
            let seeds = seeds.map_or("?".to_string(), |seeds| seeds.to_string());
            println!("{:<22} {by:<9} {secs:>6.1} {seeds:>6}  {said}", bug.name());
        }
        Found::No => println!("{:<22} NOT FOUND by {by}: {}", bug.name(), bug.says()),
        Found::LeftOut => println!("{:<22} left out: the time for all was over", bug.name()),
        Found::Broken(why) => println!("{:<22} cannot be hunted: {}", bug.name(), why.trim()),
    }
}

fn asked() -> Option<Asked> {
    let mut asked = Asked { secs: 60, jobs: 1, within: None, bugs: Bug::ALL.to_vec() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--secs" => asked.secs = words.next()?.parse().ok().filter(|secs| *secs > 0)?,
            "--jobs" => asked.jobs = words.next()?.parse().ok().filter(|jobs| (1..=64).contains(jobs))?,
            "--within" => asked.within = Some(words.next()?.parse().ok()?),
            "--draw" => {
                let number: u64 = words.next()?.parse().ok()?;
                asked.bugs.sort_by_key(|bug| *blake3::hash(format!("{number} {}", bug.name()).as_bytes()).as_bytes());
            }
            "--only" => asked.bugs = words.next()?.split(',').map(Bug::parse).collect::<Option<Vec<_>>>()?,
            "--list" => {
                for bug in Bug::ALL {
                    println!("{:<22} {}", bug.name(), bug.says());
                }
                std::process::exit(0);
            }
            _ => return None,
        }
    }
    Some(asked)
}
