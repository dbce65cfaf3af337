//! Planted bugs stay where they belong: one place each in `src/`, and nothing of them in the real program.
//!
//! Read from the text of `src/model/planted.rs`, so that it holds in a build without the feature `planted` too. What it
//! does not verify: that the place is the right one, and that the bug is found (the drill does).

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Bug, name and sentence, as `bugs!` in the source lists them.
fn bugs() -> Vec<(String, String, String)> {
    let text = std::fs::read_to_string(root().join("src/model/planted.rs")).unwrap();
    let entry = |line: &str| {
        let (bug, rest) = line.trim().split_once(" = \"")?;
        let (name, rest) = rest.split_once("\": \"")?;
        Some((bug.to_owned(), name.to_owned(), rest.strip_suffix('"')?.to_owned()))
    };
    text.lines().filter_map(entry).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push((path.clone(), std::fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn every_bug_has_one_place() {
    let bugs = bugs();
    assert!(bugs.len() >= 20, "only {} bugs are listed: is the list read as it is written?", bugs.len());
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    files.retain(|(path, _)| !path.ends_with("model/planted.rs"));
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, text) in &files {
        for (number, line) in text.lines().enumerate() {
            for call in line.split("planted(Bug::").skip(1) {
                let bug = call.split(')').next().unwrap_or_default().to_owned();
                places.entry(bug).or_default().push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    for (bug, ..) in &bugs {
        let found = places.remove(bug).unwrap_or_default();
        assert_eq!(found.len(), 1, "Bug::{bug} must have one place, it has {found:?}");
    }
    assert!(places.is_empty(), "places of bugs that are not listed: {places:?}");
}

/// The compiler removes what [`litemesh::model::planted`] guards: a program without the feature knows no sentence of a bug.
/// Python looks for them: in a build for tests the same search would take minutes.
#[cfg(all(feature = "daemon", not(feature = "planted")))]
#[test]
fn the_program_holds_no_planted_bug() {
    let script = "import sys; program = open(sys.argv[1], 'rb').read(); \
                  print([text for text in sys.argv[2:] if text.encode() in program])";
    let says: Vec<String> = bugs().into_iter().map(|(_, _, says)| says).collect();
    let find = |texts: &[String]| {
        let program = env!("CARGO_BIN_EXE_litemesh");
        let found = std::process::Command::new("python3").args(["-c", script, program]).args(texts).output().unwrap();
        String::from_utf8(found.stdout).unwrap()
    };
    assert_eq!(find(&["litemesh".to_owned()]).trim(), "['litemesh']", "this finds no text in the program at all");
    assert_eq!(find(&says).trim(), "[]", "the program holds sentences of planted bugs");
}
