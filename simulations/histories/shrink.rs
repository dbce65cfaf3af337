//! From a history that fails to a small one that fails the same way: fewer features, fewer nodes, fewer steps.
//!
//! Every attempt runs the whole history again, which is deterministic. Invariant: the result fails the same check.
//! Caller: `main`.

use crate::history::{Step, Violation, World};
use crate::scene::{Options, Scene};

/// A failing history.
#[derive(Clone)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// Its options.
    pub options: Options,
    /// Switches that the shrinker turned off.
    pub without: Vec<&'static str>,
    /// Its steps.
    pub steps: Vec<Step>,
    /// What is wrong.
    pub violation: Violation,
}

/// Runs a history. A panic counts as a violation.
pub fn outcome(scene: &Scene, seed: u64, options: &Options, steps: &[Step]) -> Option<Violation> {
    let run = || World::new(scene, options, seed, false).run(steps, seed).err();
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let what =
            panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|what| what.to_string()));
        Some(Violation { check: "panic", what: what.unwrap_or_default() })
    })
}

/// Makes a failure small.
pub fn shrink(scene: &Scene, mut failure: Failure) -> Failure {
    loop {
        let before = (failure.steps.len(), failure.without.len(), failure.options.nodes);
        for name in Options::SWITCHES {
            let mut options = failure.options.clone();
            if options.without(name) && attempt(scene, &mut failure, &options, None) {
                failure.without.push(name);
            }
        }
        let mut size = failure.steps.len().div_ceil(2);
        while size > 0 {
            let mut from = 0;
            while from < failure.steps.len() {
                let mut steps = failure.steps.clone();
                steps.drain(from..(from + size).min(steps.len()));
                let options = failure.options.clone();
                if !attempt(scene, &mut failure, &options, Some(steps)) {
                    from += size;
                }
            }
            size /= 2;
        }
        if before == (failure.steps.len(), failure.without.len(), failure.options.nodes) {
            return failure;
        }
    }
}

fn attempt(scene: &Scene, failure: &mut Failure, options: &Options, steps: Option<Vec<Step>>) -> bool {
    let steps = steps.unwrap_or_else(|| failure.steps.clone());
    let Some(violation) = outcome(scene, failure.seed, options, &steps) else { return false };
    if violation.check != failure.violation.check {
        return false;
    }
    (failure.options, failure.steps, failure.violation) = (options.clone(), steps, violation);
    true
}
