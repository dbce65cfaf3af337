//! Bugs planted on purpose: classical mistakes of replication, so that the drill can show that the simulators find them.
//!
//! Without the feature `planted` (every ordinary build), [`planted`] is a constant `false`: the compiler removes the call
//! and the branch behind it. With the feature a simulator chooses one bug, before anything starts, by [`plant`].
//! Invariants: while no bug is chosen nothing differs; every bug has exactly one place in `src/` (`tests/planted.rs`).
//! Callers: the places of the bugs; `simulate`, `histories` and `drill` by name.

/// Makes the enum, and with the feature the names and sentences.
macro_rules! bugs {
    ($($bug:ident = $name:literal: $says:literal)+) => {
        /// A mistake that somebody tired could make. The place that asks for it is the place where it would be made.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug {
            $(#[doc = $says] $bug,)+
        }

        #[cfg(any(test, feature = "planted"))]
        impl Bug {
            /// All of them.
            pub const ALL: &[Bug] = &[$(Bug::$bug),+];

            /// What the command lines call it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Bug::$bug => $name,)+
                }
            }

            /// What it is, in one sentence.
            pub fn says(self) -> &'static str {
                match self {
                    $(Bug::$bug => $says,)+
                }
            }

            /// The bug of this name.
            pub fn parse(name: &str) -> Option<Bug> {
                Bug::ALL.iter().copied().find(|bug| bug.name() == name)
            }
        }
    };
}

bugs! {
    RidFromSequence = "rid-from-sequence": "A mark is known by its number in the outbox, which SQLite gives out again."
    RidsIgnored = "rids-ignored": "Marks that are in the log already are logged once more."
    NoFence = "no-fence": "The log takes changes that the app's file may still lose."
    MarksClearedEarly = "marks-cleared-early": "Marks leave the outbox before the log holds what they say."
    PublishedEarly = "published-early": "Events go to peers before they are on this server's disk."
    DrainSplits = "drain-splits": "A drain ends in the middle of one of the app's transactions."
    HintsIgnored = "hints-ignored": "Rows that REPLACE evicted through a UNIQUE index stay alive everywhere else."
    StampNotGreater = "stamp-not-greater": "A write gets the clock's time, though the value that it replaces has a later one."
    ClockGoesBack = "clock-goes-back": "A stamp is the machine's time, also where a later one was given out before."
    FutureAbsorbed = "future-absorbed": "A peer's clock that is a year ahead becomes everybody's clock."
    CounterSendsTotal = "counter-sends-total": "A counter's new value travels instead of what was added to it."
    GenesisPerServer = "genesis-per-server": "Rows that every copy of a file had from the start count as different rows."
    OneIncarnation = "one-incarnation": "A node is known by its key alone, whatever became of its data directory."
    OwnPastIgnored = "own-past-ignored": "A log that was put back from a backup numbers new events as old ones."
    CatchUpSkipped = "catch-up-skipped": "Recovery leaves out what the file shows and the log's state does not know."
    OneCursor = "one-cursor": "Recovery takes the first file's cursor for all files."
    RestoreDeletes = "restore-deletes": "Rows that a restored backup lacks are deleted on every server."
    MigrationDeletes = "migration-deletes": "Rows that a dropped or rebuilt table lacks are deleted on every server."
    AnnouncementTrusted = "announcement-trusted": "A peer's announcement counts as having its events."
    HelloOnce = "hello-once": "What a lost hello said is never said again."
    PullOnce = "pull-once": "A request whose answer was lost is never sent again."
    SinceByTime = "since-by-time": "An event that is older than the newest one known counts as known."
    SignatureUnchecked = "signature-unchecked": "A relay may put any words into another author's mouth."
    LogUnchecked = "log-unchecked": "What the log returns is not held against its hashes."
    CauseNotAwaited = "cause-not-awaited": "An event is shown before the events that its author had seen."
    CursorApart = "cursor-apart": "The cursor moves in a transaction of its own, after the rows'."
    TornApply = "torn-apply": "Every table of an event is written in a transaction of its own."
    RefusedDropped = "refused-dropped": "A row that SQLite refuses is left out and never tried again."
    EchoOnApply = "echo-on-apply": "The triggers see the node's own writes and capture them once more."
    CascadeAgain = "cascade-again": "Foreign-key actions run on every replica, beside the changes that carry their effect."
    ShelfForgets = "shelf-forgets": "A row that the file cannot show is listed nowhere."
    LastArrivalWins = "last-arrival-wins": "Of two concurrent values the one that arrives last is shown."
    LoserForgotten = "loser-forgotten": "A value that loses to a concurrent one leaves no trace."
    GreedyDelete = "greedy-delete": "A delete covers updates that its author had not seen."
    MergeStands = "merge-stands": "A merge of two rows stands though one of them was renamed meanwhile."
    IdsByClock = "ids-by-clock": "Whose clock was behind keeps the id that two servers gave out."
    ClaimsIgnoreAfter = "claims-ignore-after": "An id that is used again is contested as if nobody had freed it."
}

/// Whether this bug is planted: never, without the feature.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn planted(_bug: Bug) -> bool {
    false
}

#[cfg(feature = "planted")]
pub use chosen::{plant, planted};

#[cfg(feature = "planted")]
mod chosen {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Bug;

    /// The chosen bug's position plus one; 0 while none is.
    static CHOSEN: AtomicUsize = AtomicUsize::new(0);

    /// Whether this bug is planted.
    pub fn planted(bug: Bug) -> bool {
        CHOSEN.load(Ordering::Relaxed) == bug as usize + 1
    }

    /// Plants a bug in this process, for good: before anything starts.
    pub fn plant(bug: Bug) {
        CHOSEN.store(bug as usize + 1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_bug_is_planted_by_itself() {
        for bug in Bug::ALL {
            assert!(!planted(*bug), "{} is planted", bug.name());
        }
    }

    #[test]
    fn every_bug_has_a_name_and_a_sentence_of_its_own() {
        let names: BTreeSet<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        let sentences: BTreeSet<&str> = Bug::ALL.iter().map(|bug| bug.says()).collect();
        assert_eq!((names.len(), sentences.len()), (Bug::ALL.len(), Bug::ALL.len()));
        for bug in Bug::ALL {
            assert_eq!(Bug::parse(bug.name()), Some(*bug));
            assert!(bug.name().chars().all(|letter| letter.is_ascii_lowercase() || letter == '-'), "{}", bug.name());
            assert!(bug.says().ends_with('.'), "{}: {}", bug.name(), bug.says());
        }
        assert_eq!(Bug::parse("no such bug"), None);
    }
}
