//! Every target in a process of its own, with a bound on its memory: what kills a process is found too.
//!
//! Invariant: a target's peak memory is its own; a process that dies (no memory, no stack, an abort) or hangs leaves its
//! input, which is tried alone and made small. Caller: `main`.

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use crate::Options;
use crate::drive::{HANGS, KEEP, again, noted};
use crate::scratch::Scratch;
use crate::shrink::{PATIENCE, shrink};
use crate::target::Target;

/// Address space of a target's process, KiB: an allocation sized by an untrusted number does not fit.
const ADDRESSES_KIB_MAX: u64 = 1 << 20;

/// Resident memory of a target's process at its peak, KiB.
pub const RESIDENT_KIB_MAX: u64 = 256 << 10;

/// Runs one target in its process; false when it failed.
pub fn supervise(target: &'static Target, options: &Options) -> bool {
    let folder = Scratch::new();
    let mut words = vec![
        "--target".to_string(),
        target.name.to_string(),
        "--seed".to_string(),
        options.seed.to_string(),
        "--jobs".to_string(),
        options.jobs.to_string(),
        "--inside".to_string(),
        folder.path().display().to_string(),
    ];
    match options.runs {
        Some(runs) => words.extend(["--runs".to_string(), runs.to_string()]),
        None => words.extend(["--secs".to_string(), options.secs.to_string()]),
    }
    match spawn(&words, folder.path(), Stdio::inherit()) {
        Ok(status) if status.success() => true,
        Ok(status) if status.code() == Some(1) => false,
        Ok(status) => {
            println!("{}: the process ended with {status}", target.name);
            explain_death(target, options, folder.path(), status);
            false
        }
        Err(error) => {
            println!("{}: cannot start: {error}", target.name);
            false
        }
    }
}

fn spawn(words: &[String], temporary: &Path, output: Stdio) -> std::io::Result<ExitStatus> {
    let program = std::env::current_exe()?;
    let limited = format!("ulimit -v {ADDRESSES_KIB_MAX}; ulimit -c 0; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &limited]).arg(program).args(words).env("TMPDIR", temporary).env("MALLOC_ARENA_MAX", "2");
    command.env(KEEP, std::env::temp_dir());
    command.stdout(output).stderr(Stdio::inherit()).status()
}

fn explain_death(target: &Target, options: &Options, folder: &Path, status: ExitStatus) {
    let trial = folder.join("trial");
    let dies = |input: &[u8]| {
        if std::fs::write(&trial, input).is_err() {
            return false;
        }
        let words = ["--target", target.name, "--file", &trial.display().to_string()].map(str::to_string);
        spawn(&words, folder, Stdio::null()).is_ok_and(|status| !status.success())
    };
    for input in (0..options.jobs).filter_map(|job| noted(folder, job)) {
        if status.code() == Some(HANGS) {
            println!("one of these hangs: {}", again(target.name, &input));
        } else if dies(&input) {
            println!("{}", again(target.name, &shrink(&input, PATIENCE, dies)));
            return;
        }
    }
    println!("Again: fuzz --target {} --seed {} --jobs {}", target.name, options.seed, options.jobs);
}
