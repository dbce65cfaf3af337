//! The tree keeps its shape: floors, bans, sizes and names, as the map in `src/lib.rs` says.
//!
//! Invariant: every rule here can be broken on purpose (see `planted`) and is then found, with file and rule named.
//! What it does not verify: meaning. It reads text, not types; a dependency smuggled through a macro is not seen.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

#[path = "support/source.rs"]
mod source;

use source::{code_only, functions, paths_in, without_tests};

/// Rooms from the ground up. A room may name only rooms of lower floors.
const FLOORS: &[&[&str]] = &[
    &["model"],
    &["clock", "merge", "reconcile"],
    &["wire"],
    &["log", "sqlite"],
    &["node"],
    &["net", "monitor", "http", "config"],
    &["daemon"],
    &["cli"],
];

/// Neighbours on one floor that may know each other: (who, whom, why).
const NEIGHBOURS: &[(&str, &str, &str)] = &[
    ("reconcile", "merge", "a block's sum is the evaluator's fingerprint, over fewer rows"),
    ("http", "monitor", "the API shows runs, reliability and alerts, and its orders are runs themselves"),
];

/// The deterministic rooms (L0–L3).
const CORE: &[&str] = &["model", "clock", "merge", "reconcile", "wire", "log", "sqlite", "node"];

/// Paths (or single names) that would let the outside world into the core.
const BANNED_IN_CORE: &[&str] = &[
    "tokio",
    "libp2p",
    "axum",
    "clap",
    "SystemTime",
    "Instant::now",
    "rand",
    "getrandom",
    "std::env",
    "std::thread",
    "HashMap",
    "HashSet",
    "RandomState",
];

/// Libraries that have one home; everyone else speaks to that room instead.
const HOMES: &[(&str, &[&str])] = &[
    ("libp2p", &["net"]),
    ("axum", &["http", "daemon"]),
    ("clap", &["cli"]),
    ("redb", &["log"]),
    ("bincode", &["log"]),
];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "manager", "helper", "helpers", "types", "misc"];

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// One file as the rules see it: its path from the root of the repository, and its text.
struct Source {
    path: String,
    text: String,
}

/// A broken rule.
struct Violation {
    file: String,
    rule: &'static str,
    detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: [{}] {}", self.file, self.rule, self.detail)
    }
}

#[test]
fn the_tree_keeps_its_shape() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for folder in ["src", "simulations", "benches"] {
        collect(root, &root.join(folder), &mut sources);
    }
    assert!(sources.len() > 10, "found only {} source files: is the walk broken?", sources.len());
    let violations = check(&sources);
    let listed: Vec<String> = violations.iter().map(Violation::to_string).collect();
    assert!(listed.is_empty(), "{} broken rules:\n{}", listed.len(), listed.join("\n"));
}

/// The test of the test: each rule is broken once and must be the one, and the only one, reported.
#[test]
fn every_planted_violation_is_found() {
    for (path, text, rule) in planted() {
        let found = check(&[Source { path: path.to_owned(), text: text.clone() }]);
        let rules: Vec<&str> = found.iter().map(|violation| violation.rule).collect();
        assert_eq!(rules, [rule], "in {path}:\n{}", text.lines().take(6).collect::<Vec<_>>().join("\n"));
    }
}

/// What looks like a violation and is none.
#[test]
fn innocent_code_is_left_alone() {
    let innocent = [
        ("src/node/a.rs", "//! x\nuse crate::{log::Store, model::Event};\n"),
        ("src/model/a.rs", "//! x\n// HashMap in a comment, tokio too\nconst A: &str = \"std::env unsafe {\";\n"),
        ("src/model/a.rs", "//! x\nfn a() {}\n#[cfg(test)]\nmod tests { use std::collections::HashMap; }\n"),
        ("src/sqlite/tests.rs", "//! x\nuse std::thread;\n"),
        (
            "src/log/a.rs",
            "//! x\nfn operand(rand_like: u8) -> char { let _ = rand_like; '\"' }\nconst B: char = '{';\n",
        ),
        ("src/cli/a.rs", "//! x\nfn a() { println!(\"ok\"); }\n"),
        ("benches/a.rs", "//! x\nfn a() { println!(\"ok\"); }\n"),
    ];
    for (path, text) in innocent {
        let found = check(&[Source { path: path.to_owned(), text: text.to_owned() }]);
        assert!(found.is_empty(), "{}", found[0]);
    }
}

fn planted() -> Vec<(&'static str, String, &'static str)> {
    let long_function = format!("//! x\nfn long() {{\n{}}}\n", "    work();\n".repeat(FUNCTION_LINES_MAX));
    let long_file = format!("//! x\n{}", "const A: u8 = 1;\n".repeat(FILE_LINES_MAX));
    let of = |text: &str| format!("//! x\n{text}\n");
    vec![
        ("src/model/a.rs", of("use crate::node::Node;"), "floors"),
        ("src/log/a.rs", of("use crate::{model::Event, sqlite::Scan};"), "floors"),
        ("src/merge/a.rs", of("fn a() { crate::daemon::wake(); }"), "floors"),
        ("src/wire/deep/a.rs", of("use super::super::super::log::Store;"), "floors"),
        ("src/attic/a.rs", of("use crate::model::Event;"), "floors"),
        ("src/node/a.rs", of("use std::time::{Duration, SystemTime};"), "bans"),
        ("src/node/a.rs", of("fn a() { let _ = std::time::Instant::now(); }"), "bans"),
        ("src/clock/a.rs", of("use std::{collections::BTreeMap, env};"), "bans"),
        ("src/merge/a.rs", of("use std::collections::{BTreeMap, HashMap};"), "bans"),
        ("src/sqlite/a.rs", of("fn a() { std::thread::yield_now(); }"), "bans"),
        ("src/http/a.rs", of("use libp2p::Swarm;"), "homes"),
        ("src/net/a.rs", of("fn a() { println!(\"x\"); }"), "printing"),
        ("src/net/a.rs", of("fn a() { unsafe { b() } }"), "unsafe"),
        ("simulations/disk/machine.rs", of("fn a() { unsafe { b() } }"), "unsafe"),
        ("src/net/util.rs", of(""), "names"),
        ("src/net/a.rs", of("// FIXME later"), "unfinished"),
        ("src/net/a.rs", of("fn a() { todo!() }"), "unfinished"),
        ("src/net/a.rs", "use std::fmt;\n".to_owned(), "opening"),
        ("src/net/a.rs", long_function, "function length"),
        ("src/net/a.rs", long_file, "file length"),
    ]
}

fn collect(root: &Path, folder: &Path, into: &mut Vec<Source>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(root, &path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            into.push(Source { path: name, text: std::fs::read_to_string(&path).unwrap() });
        }
    }
}

fn check(sources: &[Source]) -> Vec<Violation> {
    let floors: BTreeMap<&str, usize> =
        FLOORS.iter().enumerate().flat_map(|(floor, rooms)| rooms.iter().map(move |room| (*room, floor))).collect();
    let mut found = Vec::new();
    for source in sources {
        check_text(source, &mut found);
        if is_test_file(&source.path) {
            continue;
        }
        let code = without_tests(&code_only(&source.text));
        check_sizes(source, &code, &mut found);
        let paths = paths_in(&code);
        check_words(source, &code, &paths, &mut found);
        if let Some(room) = room_of(&source.path) {
            check_floors(source, room, &paths, &floors, &mut found);
            check_libraries(source, room, &paths, &mut found);
        }
    }
    found
}

/// `tests.rs` beside a module, or a folder `tests/` in a room: test code, held only to the rules about text.
fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.ends_with("_tests.rs")
}

/// The room a file belongs to; none for `lib.rs`, `main.rs`, the simulations and the benchmarks.
fn room_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let room = inside.split('/').next()?;
    let room = room.strip_suffix(".rs").unwrap_or(room);
    (room != "lib" && room != "main").then_some(room)
}

fn check_text(source: &Source, found: &mut Vec<Violation>) {
    let mut report = |rule, detail: String| found.push(Violation { file: source.path.clone(), rule, detail });
    if !source.text.starts_with("//!") {
        report("opening", "the file does not open with `//!` (purpose, invariant, who calls it)".to_owned());
    }
    for unfinished in ["FIXME", "TODO", "todo!(", "unimplemented!("] {
        if source.text.contains(unfinished) {
            report("unfinished", format!("contains `{unfinished}`"));
        }
    }
    for part in source.path.split('/') {
        let name = part.strip_suffix(".rs").unwrap_or(part);
        if EMPTY_NAMES.contains(&name) {
            report("names", format!("a module named `{name}` says nothing about what is inside"));
        }
    }
}

fn check_sizes(source: &Source, code: &str, found: &mut Vec<Violation>) {
    let lines = source.text.lines().count();
    let test_lines = code.lines().filter(|line| line.starts_with(source::TEST_LINE)).count();
    if lines - test_lines > FILE_LINES_MAX {
        found.push(Violation {
            file: source.path.clone(),
            rule: "file length",
            detail: format!("{} lines without tests, at most {FILE_LINES_MAX}", lines - test_lines),
        });
    }
    for function in functions(code) {
        if function.lines > FUNCTION_LINES_MAX {
            found.push(Violation {
                file: source.path.clone(),
                rule: "function length",
                detail: format!("`fn {}` has {} lines, at most {FUNCTION_LINES_MAX}", function.name, function.lines),
            });
        }
    }
}

fn check_words(source: &Source, code: &str, paths: &[Vec<String>], found: &mut Vec<Violation>) {
    let mut report = |rule, detail: String| found.push(Violation { file: source.path.clone(), rule, detail });
    let may_print = ["src/cli/", "simulations/", "benches/"].iter().any(|folder| source.path.starts_with(folder));
    if !may_print && let Some(call) = ["println!", "eprintln!", "print!"].iter().find(|call| code.contains(**call)) {
        report("printing", format!("`{call}` outside cli/"));
    }
    // A SQLite VFS is a table of C functions: the fault disk of the simulator cannot be written without `unsafe`.
    let may_be_unsafe = source.path == "simulations/disk/vfs.rs";
    if !may_be_unsafe && paths.iter().flatten().any(|word| word == "unsafe") {
        report("unsafe", "`unsafe` outside the simulator's VFS".to_owned());
    }
}

fn check_floors(
    source: &Source,
    room: &str,
    paths: &[Vec<String>],
    floors: &BTreeMap<&str, usize>,
    found: &mut Vec<Violation>,
) {
    let mut report = |detail| found.push(Violation { file: source.path.clone(), rule: "floors", detail });
    let Some(floor) = floors.get(room) else {
        report(format!("`{room}` has no floor: give it one in FLOORS and in the map of src/lib.rs"));
        return;
    };
    for path in paths {
        let Some(named) = room_named(&source.path, path) else { continue };
        let Some(named_floor) = floors.get(named) else { continue };
        let neighbours = NEIGHBOURS.iter().any(|(who, whom, _)| *who == room && *whom == named);
        if named != room && named_floor >= floor && !neighbours {
            report(format!("`{room}` names `{}`: dependencies point down only", path.join("::")));
        }
    }
}

/// The room that a path reaches from the file, by `crate::room` or by climbing with `super`.
fn room_named<'path>(file: &str, path: &'path [String]) -> Option<&'path str> {
    match path.first()?.as_str() {
        "crate" => path.get(1).map(String::as_str),
        "super" => {
            let climbed = path.iter().take_while(|segment| *segment == "super").count();
            let stem = file.strip_prefix("src/")?.strip_suffix(".rs")?;
            let depth = stem.split('/').filter(|part| *part != "mod").count();
            (climbed == depth).then(|| path.get(climbed).map(String::as_str)).flatten()
        }
        _ => None,
    }
}

fn check_libraries(source: &Source, room: &str, paths: &[Vec<String>], found: &mut Vec<Violation>) {
    for path in paths {
        let name = path.join("::");
        if CORE.contains(&room)
            && let Some(banned) = BANNED_IN_CORE.iter().find(|banned| mentions(path, banned))
        {
            let detail = format!("`{name}`: `{banned}` has no place below floor L4");
            found.push(Violation { file: source.path.clone(), rule: "bans", detail });
            continue;
        }
        for (library, homes) in HOMES {
            if path.first().is_some_and(|first| first == library) && path.len() > 1 && !homes.contains(&room) {
                let detail = format!("`{name}`: `{library}` lives in {}", homes.join(", "));
                found.push(Violation { file: source.path.clone(), rule: "homes", detail });
            }
        }
    }
}

/// Whether the segments of `banned` stand next to each other somewhere in the path.
fn mentions(path: &[String], banned: &str) -> bool {
    let banned: Vec<&str> = banned.split("::").collect();
    path.windows(banned.len()).any(|window| window.iter().zip(&banned).all(|(have, want)| have == want))
}
