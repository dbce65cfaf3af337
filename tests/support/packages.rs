//! Packages of the Python package index, for the tests that run somebody else's library.
//!
//! Invariant: an environment is used only when it was made whole; each set of packages is installed once, under the build's
//! own temporary directory. Callers: tests that are ignored unless asked for.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The interpreter of an environment of this name that has these packages.
pub(crate) fn interpreter(name: &str, packages: &[&str]) -> PathBuf {
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let (python, complete) = (environment.join("bin/python3"), environment.join("complete"));
    if complete.exists() {
        return python;
    }
    let run = |command: &mut Command| {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "{command:?} failed. This test installs {packages:?} from the Python package index; without a way to it (or \
             without python3-venv) it cannot run, and says nothing about litemesh.\n{words}"
        );
    };
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment));
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages));
    std::fs::write(complete, "").unwrap();
    python
}
