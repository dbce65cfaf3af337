//! Marks at rare places: "this was reached", counted, so that a simulation can prove that it reaches them.
//!
//! `sometimes!("text")` counts with debug assertions on and is nothing at all without. Every text stands in [`MARKS`] once:
//! one that does not is an error of the compiler, so the list names also what no run ever reached. Put a mark where a rule
//! exists for a rare case, one line, never in a hot loop. Invariant: marks change nothing; no code reads them but
//! simulations. Callers: L0 to L3 mark, `simulate` reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// All marks, by room.
pub const MARKS: [&str; 1] = ["a peer holds more of this node's chain: new incarnation"];

static COUNTS: [AtomicU64; MARKS.len()] = [const { AtomicU64::new(0) }; MARKS.len()];

/// Where a mark stands in the list. Evaluated by the compiler.
pub const fn place(text: &str) -> usize {
    let mut at = 0;
    while at < MARKS.len() {
        if same(MARKS[at].as_bytes(), text.as_bytes()) {
            return at;
        }
        at += 1;
    }
    panic!("this mark is not in the list in model/sometimes.rs")
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Counts a mark.
pub fn hit(place: usize) {
    if let Some(count) = COUNTS.get(place) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// All marks with their counts since the last [`reset`].
pub fn counts() -> Vec<(&'static str, u64)> {
    MARKS.iter().zip(&COUNTS).map(|(text, count)| (*text, count.load(Ordering::Relaxed))).collect()
}

/// Begins at zero.
pub fn reset() {
    COUNTS.iter().for_each(|count| count.store(0, Ordering::Relaxed));
}

/// Marks a place that a simulation should reach sometimes.
#[macro_export]
macro_rules! sometimes {
    ($text:literal) => {
        #[cfg(debug_assertions)]
        {
            const PLACE: usize = $crate::model::sometimes::place($text);
            $crate::model::sometimes::hit(PLACE);
        }
    };
}
