//! What an app did to one of its files, by its own account: the oracle of the scenario.
//!
//! Every transaction has a number, kept in the file in the same transaction; so the file itself says which of them it
//! holds. Invariants: a commit that returned counts from then on; one that failed counts if and only if the file shows its
//! number as the last one. Independent of the node's code. Caller: `server`.

use std::collections::BTreeMap;

/// One change of one row, which is known by its marker.
#[derive(Clone, Debug)]
pub enum Change {
    /// The row has this value now.
    Put(String, i64),
    /// The row is gone.
    Gone(String),
}

#[derive(Clone, Debug)]
struct Commit {
    number: u64,
    acknowledged: bool,
    changes: Vec<Change>,
}

/// The record of one file.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// What is out of danger: in the log, and checked.
    base: BTreeMap<String, i64>,
    through: u64,
    commits: Vec<Commit>,
    next: u64,
    secured: u64,
}

impl Record {
    /// The number of the next transaction.
    pub fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Notes a transaction and whether its commit returned.
    pub fn note(&mut self, number: u64, acknowledged: bool, changes: Vec<Change>) {
        self.commits.push(Commit { number, acknowledged, changes });
    }

    /// The last transaction whose commit returned.
    pub fn acknowledged(&self) -> u64 {
        self.commits.iter().rev().find(|commit| commit.acknowledged).map_or(self.through, |commit| commit.number)
    }

    /// Takes over what the file says of itself: it holds everything up to this number, and nothing after. `last_word`:
    /// whether a commit that failed cannot come back any more (what it wrote may lie in the WAL until somebody writes on).
    pub fn holds(&mut self, number: u64, last_word: bool) -> Result<(), String> {
        if number < self.through {
            return Err(format!("the file went back to {number}, and {} was safe", self.through));
        }
        if number > self.through && !self.commits.iter().any(|commit| commit.number == number) {
            return Err(format!("the file says {number}, which nobody wrote"));
        }
        self.commits.retain(|commit| match commit.number.cmp(&number) {
            std::cmp::Ordering::Less => commit.acknowledged,
            std::cmp::Ordering::Equal => true,
            std::cmp::Ordering::Greater => !commit.acknowledged && !last_word,
        });
        for commit in self.commits.iter_mut().filter(|commit| commit.number == number) {
            commit.acknowledged = true;
        }
        Ok(())
    }

    /// The rows, by marker.
    pub fn rows(&self) -> BTreeMap<String, i64> {
        self.rows_through(u64::MAX)
    }

    /// The rows as they were after a transaction; what is out of danger counts always.
    pub fn rows_through(&self, number: u64) -> BTreeMap<String, i64> {
        let mut rows = self.base.clone();
        let counts = |commit: &&Commit| commit.acknowledged && commit.number <= number;
        for change in self.commits.iter().filter(counts).flat_map(|commit| &commit.changes) {
            match change {
                Change::Put(marker, value) => {
                    rows.insert(marker.clone(), *value);
                }
                Change::Gone(marker) => {
                    rows.remove(marker);
                }
            }
        }
        rows
    }

    /// All that is recorded is out of danger.
    pub fn secure(&mut self) {
        self.base = self.rows();
        self.through = self.acknowledged();
        self.secured += self.commits.iter().filter(|commit| commit.acknowledged).count() as u64;
        self.commits.retain(|commit| !commit.acknowledged);
    }

    /// Number of transactions that were out of danger when it was looked.
    pub fn secured(&self) -> u64 {
        self.secured
    }

    /// Every marker that was ever written by a commit that counts, as far as that is not out of danger.
    pub fn fresh(&self) -> impl Iterator<Item = &String> {
        let changes = self.commits.iter().filter(|commit| commit.acknowledged).flat_map(|commit| &commit.changes);
        changes.filter_map(|change| if let Change::Put(marker, _) = change { Some(marker) } else { None })
    }
}
