//! What the figures were measured on: machine, versions, load; and what one process has used.
//!
//! Invariant: read from the system at the beginning of a run, never assumed; what the system does not tell is "unknown".
//! Caller: report, footprint, end_to_end.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// Load average above which figures are noise.
const QUIET_LOAD: f64 = 0.5;

/// As Cargo.toml has it.
const PROFILE: &str = if cfg!(debug_assertions) {
    "with every assertion, for tests"
} else {
    "bench: optimised as a release, without the link-time pass"
};

/// (name, value) of everything worth knowing, and a warning when others use the machine.
pub(crate) fn facts(folder: &Path) -> (Vec<(&'static str, String)>, Option<String>) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| -> String {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map_or("unknown".into(), |(_, value)| value.trim().to_owned())
    };
    let said = |command: &mut Command| -> String {
        let text = command.output().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".into())
    };
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let facts = vec![
        ("date", said(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))),
        ("commit", said(Command::new("git").args(["describe", "--always", "--dirty"]))),
        ("CPU", field(&read("/proc/cpuinfo"), "model name")),
        ("cores", cores.to_string()),
        ("memory", field(&read("/proc/meminfo"), "MemTotal")),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("file system", file_system(folder)),
        ("load average at the start", load.clone()),
        ("litemesh", env!("CARGO_PKG_VERSION").into()),
        ("rustc", said(Command::new("rustc").arg("--version"))),
        ("profile", PROFILE.into()),
        ("SQLite", rusqlite::version().to_owned()),
        ("redb", locked("redb")),
        ("libp2p", locked("libp2p")),
        (
            "python3's SQLite",
            said(Command::new("python3").args(["-c", "import sqlite3; print(sqlite3.sqlite_version)"])),
        ),
    ];
    let busy = load.parse::<f64>().is_ok_and(|load| load > QUIET_LOAD);
    let slow = cfg!(debug_assertions).then(|| "the program is not optimised: only `cargo bench` measures".to_owned());
    let warning = busy.then(|| {
        format!(
            "the machine is not idle (load average {load}): compare ratios, not figures, and run again when it is quiet"
        )
    });
    (facts, slow.or(warning))
}

/// The version of a library in the lock file this was built with.
fn locked(name: &str) -> String {
    let lock: toml::Table = include_str!("../../Cargo.lock").parse().unwrap_or_default();
    let packages = lock.get("package").and_then(toml::Value::as_array);
    let found =
        packages.and_then(|all| all.iter().find(|one| one.get("name").and_then(toml::Value::as_str) == Some(name)));
    found.and_then(|one| one.get("version")?.as_str()).unwrap_or("unknown").to_owned()
}

fn file_system(folder: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let real = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let of = |line: &str| -> Option<(usize, String)> {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        real.starts_with(place).then(|| (place.len(), kind.to_owned()))
    };
    mounts.lines().filter_map(of).max().map_or("unknown".into(), |(_, kind)| kind)
}

/// Whether files there are only in memory: no fsync to measure.
pub(crate) fn is_in_memory(folder: &Path) -> bool {
    matches!(file_system(folder).as_str(), "tmpfs" | "ramfs" | "devtmpfs")
}

/// Seconds that a process and all its threads have computed; threads that ended do not count.
pub(crate) fn computed_s(pid: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanos = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    nanos.sum::<f64>() / 1e9
}

/// KiB of a line of /proc/PID/status: `VmRSS` (now), `VmHWM` (at most so far).
pub(crate) fn memory_kib(pid: u32, line: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    found.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(f64::NAN)
}

/// Bytes that the loopback interface has carried.
pub(crate) fn loopback_bytes() -> u64 {
    std::fs::read_to_string("/sys/class/net/lo/statistics/tx_bytes")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or_default()
}

/// The facts on one line of text.
pub(crate) fn in_words(facts: &[(&'static str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in facts {
        let comma = if text.is_empty() { "" } else { ", " };
        let _never = write!(text, "{comma}{name} {value}");
    }
    text
}
