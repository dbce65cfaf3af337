//! `ordeal all`: every ordeal that can run on this machine, each for its share of the time.
//!
//! Invariant: what cannot run is named with its reason, and is not counted as fine; what is wrong in one ordeal does not keep
//! the others from running. Setting up and the checks at the end come on top of the shares, so the whole takes about a
//! third longer than asked on two cores. Called by `main`, by continuous integration.

use std::path::Path;

use super::outcome::{Figures, Trouble};
use super::{Asked, clock, flips, full, kill, power, progress, syscalls, twice};

type Ordeal = fn(&Asked, &Path, &Path) -> Result<Figures, Trouble>;

/// Name, share of the time in a hundred, what it is.
const ORDEALS: [(&str, u64, Ordeal); 7] = [
    ("kill", 10, kill::call),
    ("syscalls", 30, syscalls::call),
    ("power", 10, power::call),
    ("full", 10, full::call),
    ("flips", 14, flips::call),
    ("clock", 4, clock::call),
    ("twice", 22, twice::call),
];

/// Seconds when none are asked for.
const SECS: u64 = 60;

pub fn call(asked: &Asked, litemesh: &Path, root: &Path) -> Result<Figures, Trouble> {
    let secs = asked.secs.unwrap_or(SECS);
    let (mut figures, mut wrong, mut fine) = (Figures::default(), Vec::new(), 0u64);
    for (name, share, ordeal) in ORDEALS {
        let part = Asked { secs: Some((secs * share / 100).max(2)), count: None, seed: asked.seed, every: 1 };
        let place = root.join(name);
        std::fs::create_dir_all(&place)?;
        match ordeal(&part, litemesh, &place) {
            Ok(found) => {
                fine += 1;
                progress(&format!("{name}: fine: {}", found.line()));
                figures.set(name, found.json());
                // Only what is wrong is worth its room.
                let _ = std::fs::remove_dir_all(&place);
            }
            Err(Trouble::Cannot { because, next }) => {
                let why = format!("not run, because {because}; {next}");
                progress(&format!("{name}: {why}"));
                figures.set(name, why);
            }
            Err(trouble) => {
                progress(&format!("{name}: {trouble}"));
                wrong.push(format!("{name}: {trouble}"));
            }
        }
    }
    if !wrong.is_empty() {
        return Err(Trouble::wrong(wrong.join(" || ")));
    }
    figures.set("ordeals", fine);
    Ok(figures)
}
