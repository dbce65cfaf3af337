//! The ledger in `RELIABILITY.md` was written by commands, row by row, and by nobody's hand.
//!
//! Invariant: every row reads, and every seal covers its row and the one before. Not verified: that the figures are true;
//! whoever wants to can run the command in the row again.

#![allow(clippy::unwrap_used)]

#[path = "../simulations/ledger.rs"]
mod ledger;

use ledger::{Entry, append, commit, rows};

#[test]
fn the_ledger_reads_and_no_row_was_edited() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/RELIABILITY.md")).unwrap();
    rows(&text).unwrap();
}

#[test]
fn a_row_that_was_edited_moved_or_left_out_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.md");
    std::fs::write(&file, format!("# Ledger\n\n{}\n|---|\n", ledger::HEADER)).unwrap();
    for seed in 1..=3 {
        let entry = Entry {
            method: "simulate | with a bar".to_string(),
            commit: commit(),
            seeds: format!("{seed}-{seed}"),
            runs: 1,
            crashes: 7,
            hours: 0.25,
            reached: "3 kinds of faults".to_string(),
            result: "0 lost".to_string(),
        };
        append(&file, &entry).unwrap();
    }
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(rows(&text).unwrap().len(), 3);
    assert!(rows(&text.replacen("| 7 |", "| 8 |", 1)).unwrap_err().contains("row 1"));
    let lines: Vec<&str> = text.lines().collect();
    let without_second = [&lines[..5], &lines[6..]].concat().join("\n");
    assert!(rows(&without_second).unwrap_err().contains("row 2"));
}
