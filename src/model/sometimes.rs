//! Marks at rare places: "this was reached", counted, so that a simulation can prove that it reaches them.
//!
//! `sometimes!("text")` counts with debug assertions on and is nothing at all without. Every text stands in [`MARKS`] once:
//! one that does not is an error of the compiler, so the list names also what no run ever reached. Put a mark where a rule
//! exists for a rare case, one line, never in a hot loop. Invariant: marks change nothing; no code reads them but
//! simulations. Callers: L0 to L3 mark, `simulate` reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// All marks, by what they are about.
pub const MARKS: &[&str] = &[
    "adopt: a file without rows is filled like any other",
    "adopt: a row is the joiner's own",
    "adopt: nobody answered in time",
    "adopt: rows are enrolled by content",
    "adopt: the app held up the end of it",
    "adopt: the file is a copy of a member's",
    "adopt: the file shows what its member wrote and the log lacks",
    "adopt: the log lacks what its events build on",
    "apply: SQLite refuses a row",
    "apply: a row to insert is there already",
    "apply: an event waits for its causes",
    "apply: an id means another row from here on",
    "apply: ids wait for a quiet moment",
    "apply: the newest whole row is shown instead of a mix that SQLite refuses",
    "apply: what moves no id is shown before what does",
    "capture: marks that are in the log already are skipped",
    "capture: the file that this one refers to is drained first",
    "clock: a stamp too far ahead is not absorbed",
    "clock: one that was never set goes on from the last stamp",
    "clock: peers correct this one's clock",
    "compare: two nodes know that their content is equal",
    "drain: the outbox is another one than was drained",
    "drift: a damaged event comes from a peer",
    "drift: a damaged record is derived again from the events",
    "drift: a dropped table is made again",
    "drift: the indexes of a table are made again",
    "exchange: a fork is refused",
    "exchange: a peer asks for patience in its quiet hours",
    "exchange: a pull is answered in pages",
    "exchange: a pull without an answer is repeated",
    "exchange: a range is left to a peer that answers better",
    "exchange: an answer brings nothing, though the peer holds more",
    "exchange: an event comes before its author's admission",
    "exchange: an event is not pushed to a peer that lacks those before it",
    "exchange: an origin is left to the peer that was asked for it",
    "exchange: another peer goes on with a large event",
    "exchange: bulk waits for its pace",
    "exchange: events that came too early wait for those in front of them",
    "exchange: hearsay starts a question",
    "exchange: one origin comes from several peers at once",
    "exchange: the end of a run is unsigned and left",
    "exchange: what lies behind a base comes before the history",
    "merge: a merge becomes void",
    "merge: a merge is void when it comes, a name was changed meanwhile",
    "merge: a row lives because another one needs it",
    "merge: a write that did not know the delete revives the row",
    "merge: an id moves, two rows claimed it",
    "merge: of two values written apart one loses",
    "merge: rows become one",
    "merge: rows part again",
    "recover: SQLite had refused a row of that apply",
    "recover: a file waits to hear the cluster before it is read",
    "recover: a peer holds more of this node's chain",
    "recover: an apply is evaluated again",
    "recover: the app wrote since the apply that is evaluated again",
    "recover: the app's file notes a longer chain than the log",
    "recover: the data directory stands somewhere else",
    "recover: the file is older than the log, or another one",
    "recover: the file was replaced under the running node",
    "rescan: a row went through a key that triggers cannot see",
    "rescan: rows differ that no trigger had marked",
    "rescan: waits for events that the log lost",
    "restore: a row deleted or moved since the backup stands there again",
    "restore: a row that the log does not know is new",
    "shelf: a row comes back",
    "shelf: a row waits for the one it needs",
    "shelf: its rows are tried again",
    "snapshot: a damaged part is refused",
    "snapshot: a new member takes one",
    "snapshot: a node joins with one",
    "snapshot: a part that is held is not sent again",
    "snapshot: another peer is asked for the rest",
    "snapshot: goes on after a stop",
    "snapshot: left to the events",
    "snapshot: one is given",
    "snapshot: parts of an earlier one are held",
    "snapshot: the app took the place of a row",
    "snapshot: the filling pauses while the app writes",
    "snapshot: the history of a snapshot has come",
    "steering: trials go on at the next look",
    "step: a file is busy",
    "step: an apply moves what rows of the other file refer to",
    "step: an apply waits for what the app wrote meanwhile",
    "step: an older copy was written over the open file",
    "step: rows are merged before they are shown",
    "store: it works again",
    "store: the log's storage failed",
    "unique: a tag tells two rows with one key apart",
    "unique: one of two rows with one key goes to the shelf",
    "verify: SQLite cannot read a table",
    "verify: a run goes on where a stop had cut it short",
    "verify: an event of the log is damaged",
    "verify: numbers of rows differ, or move, and keys are compared",
    "verify: rows that the app keeps writing are set aside and looked at again",
    "verify: sums differ, or move, and rows are compared",
    "verify: the file is busy or its schema moves, the page is read again",
];

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

/// Marks a place that a simulation should reach sometimes; with a condition, when that holds.
#[macro_export]
macro_rules! sometimes {
    ($text:literal) => {
        #[cfg(debug_assertions)]
        {
            const PLACE: usize = $crate::model::sometimes::place($text);
            $crate::model::sometimes::hit(PLACE);
        }
    };
    ($when:expr, $text:literal) => {
        #[cfg(debug_assertions)]
        if $when {
            $crate::sometimes!($text);
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_mark_stands_twice_in_the_list() {
        let mut sorted = MARKS.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted, MARKS, "the list is sorted, and every mark stands once");
    }

    #[test]
    fn a_mark_counts_when_its_condition_holds() {
        let count = || counts().into_iter().find(|(text, _)| *text == MARKS[0]).map(|(_, count)| count);
        let before = count();
        hit(0);
        assert!(count() > before, "other tests of this process may count too, never down");
    }
}
