//! Steps of the pipeline, and which of them were met by a crash, and by a second one during the recovery of the first.
//!
//! The steps are those of the table at the head of `node/recover.rs`. A crash belongs to the step whose operation it hit: of
//! the app, of the node's statement (as [`crate::disk::Phase`] has it), or of the log. What it cannot tell: which file a
//! commit of the log's state followed; it counts for the file whose statements came last. Caller: `crash`.

use std::fmt;

use crate::disk::{APP, Kind, Phase, Site};

/// The number of steps.
pub const STEPS: usize = 11;

/// What the node was given when it died ([`crate::disk::set_role`]).
pub const TICK: u8 = 0;
/// A frame of a peer.
pub const FRAME: u8 = 1;

/// Published, not yet sent: the crash comes between the log's commit and the first frame.
pub const PUBLISH: usize = 4;
/// The peer has it, and its answer does not arrive.
pub const ANSWER: usize = 6;

/// Names of the steps.
const NAMES: [&str; STEPS] = [
    "app commit",
    "drain read",
    "fence",
    "log commit",
    "publish",
    "peer's log commit",
    "answer",
    "clear marks",
    "apply file 1",
    "apply file 2",
    "checkpoint",
];

/// The step that an operation belongs to. `second`: the number of the second file.
pub fn step_of(site: &Site, second: Option<usize>) -> usize {
    let apply = if Some(site.base) == second { 9 } else { 8 };
    match (site.kind, site.phase) {
        _ if site.process == APP => 0,
        (Kind::Log, _) if site.role == FRAME => 5,
        (Kind::Log, Phase::Apply) => 8,
        (Kind::Log, _) => 3,
        (_, Phase::Fence) => 2,
        (_, Phase::Clear) => 7,
        (_, Phase::Apply) => apply,
        (_, Phase::Checkpoint) => 10,
        (_, Phase::Idle | Phase::Drain) => 1,
    }
}

/// How often each step, and each pair of steps, was met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// By the step of the crash; the last one: at rest.
    pub crashes: [u64; STEPS + 1],
    /// First crash, then the one during its recovery.
    pub pairs: [[u64; STEPS]; STEPS],
}

impl Coverage {
    /// Number of pairs that were met.
    pub fn met(&self) -> usize {
        self.pairs.iter().flatten().filter(|count| **count > 0).count()
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Coverage) {
        for (own, other) in self.crashes.iter_mut().zip(other.crashes) {
            *own += other;
        }
        for (own, other) in self.pairs.iter_mut().flatten().zip(other.pairs.iter().flatten()) {
            *own += other;
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:20} {:>8}  second crash, during the recovery:", "first crash", "crashes")?;
        for step in 0..STEPS {
            write!(out, " {:>5}", format!("s{step}"))?;
        }
        for (step, name) in NAMES.iter().enumerate() {
            write!(out, "\ns{step:<3} {name:16} {:>8}  {:34}", self.crashes[step], "")?;
            for second in self.pairs[step] {
                write!(out, " {second:>5}")?;
            }
        }
        write!(out, "\nat rest              {:>8}\npairs met: {} of {}", self.crashes[STEPS], self.met(), STEPS * STEPS)
    }
}
