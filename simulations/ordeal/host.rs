//! What this machine has: the program under test, tools, rights, mounts, and a scratch directory.
//!
//! Invariant: what is mounted here is unmounted here, whatever happens; a missing tool or right is told in words with the
//! next step. Callers: all of `ordeal`, `venue`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use super::outcome::Trouble;

/// A directory of one command; removed at the end unless something was wrong.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    keep: AtomicBool,
}

impl Scratch {
    /// A new, empty directory below `base`.
    pub fn new(base: &Path, command: &str) -> Result<Scratch, Trouble> {
        let path = base.join(format!("litemesh-ordeal-{command}-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Scratch { path: path.canonicalize()?, keep: AtomicBool::new(false) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it behind as evidence.
    pub fn keep(&self) {
        self.keep.store(true, Ordering::Relaxed);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep.load(Ordering::Relaxed) {
            // A directory that stays behind harms nobody.
            let _left = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// The program under test: the one that is named, or `litemesh` beside this one.
pub fn litemesh(named: Option<&Path>) -> Result<PathBuf, Trouble> {
    let beside = std::env::current_exe()?.with_file_name("litemesh");
    let path = named.map_or(beside, Path::to_path_buf);
    if path.is_file() {
        return Ok(path.canonicalize()?);
    }
    Err(Trouble::cannot(format!("there is no {}", path.display()), "build it: cargo build; or name it with --litemesh"))
}

/// The path of a program, looked for where administrators' programs lie, too.
pub fn tool(name: &str, package: &str) -> Result<PathBuf, Trouble> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    let found = std::env::split_paths(&path).chain(more).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        Trouble::cannot(
            format!("`{name}` is not installed"),
            format!("install the package {package}, for Debian: apt install {package}"),
        )
    })
}

/// Whether this process may mount.
pub fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    uids.and_then(|uids| uids.split_whitespace().nth(1)) == Some("0")
}

/// Runs a program to its end; its stdout.
pub fn run(program: &Path, arguments: &[&str]) -> Result<String, Trouble> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Trouble::wrong(format!("`{} {}` failed: {said}", program.display(), arguments.join(" "))))
}

/// Sends a signal (`-STOP`, `-CONT`, `-TERM`) to one process.
pub fn signal(pid: u32, signal: &str) -> Result<(), Trouble> {
    run(&tool("kill", "procps")?, &[signal, &pid.to_string()]).map(drop)
}

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub struct Mount(PathBuf);

impl Mount {
    /// `mount ARGUMENTS… AT`.
    pub fn new(arguments: &[&str], at: &Path) -> Result<Mount, Trouble> {
        std::fs::create_dir_all(at)?;
        let place = at.display().to_string();
        run(&tool("mount", "mount")?, &[arguments, &[place.as_str()]].concat())?;
        Ok(Mount(at.to_path_buf()))
    }

    /// Unmounts; an error when something still uses it.
    pub fn unmount(self) -> Result<(), Trouble> {
        let place = self.0.display().to_string();
        let done = run(&tool("umount", "mount")?, &[&place]);
        if done.is_ok() {
            std::mem::forget(self);
        }
        done.map(drop)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily, because on the way out of a failure something may still have a file open there.
        let place = self.0.display().to_string();
        let _ = tool("umount", "mount").and_then(|umount| run(&umount, &["-l", &place]));
    }
}
