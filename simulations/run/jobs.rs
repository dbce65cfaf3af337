//! Many seeds in several processes: this binary, started again with `--worker` and every N-th seed.
//!
//! Processes, not threads: SQLite has one random generator per process, and a seed must not meet another's draws. A worker
//! prints one JSON object per run. The first failure ends all. Invariant: no worker outlives this call. Caller: `simulate`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use super::command::Asked;
use super::play::Outcome;

/// Runs the seeds. `each` takes every outcome and says whether to go on.
pub fn run(asked: &Asked, each: &mut dyn FnMut(Outcome) -> bool) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let (sender, outcomes) = mpsc::channel::<Outcome>();
    let mut workers: Vec<Child> = Vec::new();
    let mut readers = Vec::new();
    for job in 0..asked.jobs {
        let mut command = Command::new(&program);
        command.args(["--worker", "--json", "--scenario", &asked.scenario]);
        command.args(["--first", &(asked.first + job).to_string(), "--stride", &asked.jobs.to_string()]);
        let share = asked.count.map(|count| count / asked.jobs + u64::from(job < count % asked.jobs));
        for (name, value) in [("--count", share), ("--secs", asked.secs), ("--steps", asked.steps)] {
            if let Some(value) = value {
                command.args([name, &value.to_string()]);
            }
        }
        if let Some(bug) = &asked.plant {
            command.args(["--plant", bug]);
        }
        if asked.twice {
            command.arg("--twice");
        }
        if !asked.without.is_empty() {
            command.args(["--without", &asked.without.join(",")]);
        }
        let mut worker = command.stdout(Stdio::piped()).spawn().map_err(|error| format!("{program:?}: {error}"))?;
        let output = worker.stdout.take();
        workers.push(worker);
        let sender = sender.clone();
        readers.push(std::thread::spawn(move || {
            for line in output.into_iter().flat_map(|output| BufReader::new(output).lines().map_while(Result::ok)) {
                // The receiver is gone once something failed.
                let read = serde_json::from_str(&line).map_err(|error| error.to_string());
                if read.is_ok_and(|outcome| sender.send(outcome).is_err()) {
                    return;
                }
            }
        }));
    }
    drop(sender);
    let mut went_well = true;
    for outcome in outcomes {
        if !each(outcome) {
            went_well = false;
            break;
        }
    }
    let mut died = None;
    for worker in &mut workers {
        if !went_well {
            // It may have ended by itself.
            let _ended = worker.kill();
        }
        let status = worker.wait().map_err(|error| error.to_string())?;
        if went_well && !status.success() {
            died = Some(format!("a worker ended with {status} and said nothing"));
        }
    }
    for reader in readers {
        // A reader cannot fail: what it could not read it left out.
        let _joined = reader.join();
    }
    died.map_or(Ok(()), Err)
}
