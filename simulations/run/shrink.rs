//! From a run that fails to a small one that fails the same way: fewer classes of faults, fewer servers, fewer steps.
//!
//! Every attempt plays the whole plan again, which is deterministic. Steps go in halves, quarters, … down to one by one, and
//! again from the start until nothing more can go (ddmin without its complements; Zeller, Hildebrandt 2002).
//! Invariant: the result fails the same check. Caller: `simulate`.

use std::time::{Duration, Instant};

use super::plan::{CLASSES, Plan};
use super::play::{Show, play};
use crate::world::Violation;

/// A plan that fails, and how.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The plan.
    pub plan: Plan,
    /// What is wrong.
    pub violation: Violation,
}

/// Makes a failure small, for at most so long.
pub fn shrink(mut failure: Failure, limit: Duration, progress: &mut dyn FnMut(&Plan)) -> Failure {
    let until = Instant::now() + limit;
    loop {
        let before = (failure.plan.steps.len(), failure.plan.servers, failure.plan.without.len());
        for class in CLASSES.iter().chain(&["replacements"]) {
            attempt(&mut failure, until, |plan| plan.wish_off(class));
        }
        while failure.plan.servers > 2 {
            let fewer = failure.plan.servers - 1;
            let done = attempt(&mut failure, until, |plan| {
                plan.with_servers(fewer);
                true
            });
            if !done {
                break;
            }
        }
        progress(&failure.plan);
        let mut size = failure.plan.steps.len().div_ceil(2);
        while size > 0 {
            let mut end = failure.plan.steps.len();
            // From the back: what came before a failure matters more than what came after.
            while end > 0 {
                let from = end.saturating_sub(size);
                attempt(&mut failure, until, |plan| {
                    plan.steps.drain(from..end.min(plan.steps.len()));
                    true
                });
                end = from;
            }
            progress(&failure.plan);
            size /= 2;
        }
        let after = (failure.plan.steps.len(), failure.plan.servers, failure.plan.without.len());
        if before == after || Instant::now() >= until {
            return failure;
        }
    }
}

/// Plays a changed plan; takes it over when it fails the same check.
fn attempt(failure: &mut Failure, until: Instant, change: impl FnOnce(&mut Plan) -> bool) -> bool {
    let mut plan = failure.plan.clone();
    if Instant::now() >= until || !change(&mut plan) {
        return false;
    }
    let found = play(&plan, Show::Nothing).violation;
    match found {
        Some(violation) if violation.check == failure.violation.check => {
            *failure = Failure { plan, violation };
            true
        }
        _ => false,
    }
}
