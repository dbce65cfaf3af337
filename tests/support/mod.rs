//! The bench that black-box tests stand on: real processes, real files, a real application's SQLite (Python's).
//!
//! Invariant: a test sees only what a user sees: the command line, the ready line, the app's own files. It waits for
//! public state with a deadline, never for a duration.
//! Callers: every file in `tests/` that starts a node.

// Each test file is a crate of its own and uses a part of the bench.
#![allow(dead_code, clippy::unwrap_used, clippy::print_stderr)]

pub(crate) mod cluster;
pub(crate) mod dump;
pub(crate) mod monitor;
pub(crate) mod packages;
pub(crate) mod recorder;
pub(crate) mod server;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a condition may take that normally holds within a second. `LITEMESH_TEST_PATIENCE=3` triples it.
pub(crate) fn patience(seconds: u64) -> Duration {
    let factor = std::env::var("LITEMESH_TEST_PATIENCE").ok().and_then(|text| text.parse().ok()).unwrap_or(1.0f64);
    Duration::from_secs(seconds).mul_f64(factor)
}

/// Asks until the answer is there; at the deadline fails with what was wanted and why the last answer was not it.
pub(crate) fn until<T>(wanted: &str, seconds: u64, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience(seconds);
    loop {
        match probe() {
            Ok(answer) => return answer,
            Err(reason) if Instant::now() > deadline => panic!("{wanted}: not within {seconds} s: {reason}"),
            // Leave the two cores to the nodes between two questions; the condition, not this pause, decides.
            Err(_) => std::thread::park_timeout(Duration::from_millis(30)),
        }
    }
}

/// A file that ships with these tests.
pub(crate) fn shipped(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(relative)
}

/// Data that lies beside the repository on some machines: the real application's databases, Chinook. None elsewhere.
pub(crate) fn beside(relative: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(relative);
    let other = std::env::var_os("LITEMESH_TEST_DATA").map(|folder| PathBuf::from(folder).join(relative));
    let found = other.into_iter().chain([path]).find(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: {relative} is not beside this repository (set LITEMESH_TEST_DATA to its folder)");
    }
    found
}

/// Makes a database from one of `tests/fixtures/*.sql`, as the application would.
pub(crate) fn make(database: &Path, fixture: &str) {
    let script = std::fs::read_to_string(shipped("fixtures").join(fixture)).unwrap();
    app(database, &script);
}

/// Runs statements as the application does: another process, another SQLite library, its own transaction.
pub(crate) fn app(database: &Path, script: &str) {
    if let Err(reason) = try_app(database, script) {
        panic!("the app could not write to {}: {reason}\n{script}", database.display());
    }
}

/// Like [`app`], for statements that are allowed to fail.
pub(crate) fn try_app(database: &Path, script: &str) -> Result<String, String> {
    let program = "import sqlite3, sys\n\
                   c = sqlite3.connect(sys.argv[1], timeout=10)\n\
                   c.executescript(sys.argv[2])\n\
                   c.close()";
    python(&["-c", program, database.to_str().unwrap(), script])
}

/// Runs Python with the arguments; what it printed, or why it failed.
pub(crate) fn python(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("python3").args(arguments).output().expect("python3 is part of the test machine");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(text) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}
