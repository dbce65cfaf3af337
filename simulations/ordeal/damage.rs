//! `ordeal damage`: a replica's file is damaged, again and again: is it found, named, healed?
//!
//! Two real nodes with real files and logs in this process, their frames carried by hand under a clock of their own (so that
//! a thousand damages take minutes); the second one's file is hit: a bit of the file, a sector, rows deleted, edited, inserted
//! or set back past the triggers, triggers dropped and rows written, a table dropped, an older copy put back (stopped, or
//! written over the open file), an event of the log. Then the tiers run from the lightest on until one finds it, and again
//! until nothing is found. Allowed ends: *harmless* (nothing a reader could see, SQLite's own check passes), *healed* (by
//! the node; by a person's `verify --repair` where a table was dropped; with an event from the peer), *rebuilt* (SQLite
//! cannot read the file: a person puts the log's rebuild in its place). Never allowed: a difference that no tier names, rows
//! of the peer lost, an end with unequal files. A flipped bit that was taken for the app's write is counted as *believed*.
//! Does not verify: two damages at once, damage of both servers. Called by `main`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use litemesh::model::Tier;
use litemesh::node::drift_view::{DriftFilter, DriftView};

use super::damage_world::{HIT, PEER, World};
use super::dice::Dice;
use super::outcome::{Figures, Trouble};
use super::{Asked, progress};

/// Damages when nobody says how many.
const COUNT: u64 = 1_000;

/// Runs until nothing is found.
const ROUNDS_MAX: u32 = 6;

/// Kinds of damage, and how often each comes up in a hundred.
const KINDS: [(&str, u64); 12] = [
    ("bit", 38),
    ("sector", 4),
    ("rows deleted", 9),
    ("rows edited", 9),
    ("rows inserted", 5),
    ("rows set back", 7),
    ("triggers dropped", 8),
    ("table dropped", 5),
    ("backup while stopped", 4),
    ("backup over the open file", 3),
    ("event of the log", 5),
    ("key changed", 3),
];

#[derive(Default)]
struct Found {
    /// (kind, what became of it) → how often.
    ends: BTreeMap<(&'static str, &'static str), u64>,
    /// Where it was found → how long that took, real µs.
    tiers: BTreeMap<String, Vec<u64>>,
    causes: BTreeMap<String, u64>,
    by_peer: u64,
    believed: u64,
    named: u64,
}

pub fn call(asked: &Asked, root: &Path) -> Result<Figures, Trouble> {
    let (started, mut found) = (Instant::now(), Found::default());
    let mut world = World::new(root, asked.seed)?;
    let count = asked.count.unwrap_or(if asked.secs.is_some() { u64::MAX } else { COUNT });
    let secs = asked.secs.unwrap_or(u64::MAX);
    let mut done = 0;
    while done < count && started.elapsed().as_secs() < secs {
        let mut dice = Dice::new(asked.seed.wrapping_mul(1_000_003).wrapping_add(done));
        let kind = kind_of(&mut dice);
        one(&mut world, &mut dice, kind, &mut found)
            .map_err(|trouble| trouble.at(&format!("damage {done} ({kind})")))?;
        done += 1;
        if done % 100 == 0 {
            progress(&format!("{done} damages, {} s", started.elapsed().as_secs()));
        }
    }
    Ok(figures(&found, done))
}

fn kind_of(dice: &mut Dice) -> &'static str {
    let mut draw = dice.below(100);
    for (kind, share) in KINDS {
        if draw < share {
            return kind;
        }
        draw -= share;
    }
    KINDS[0].0
}

/// One damage, from a sound pair to a sound pair.
fn one(world: &mut World, dice: &mut Dice, kind: &'static str, found: &mut Found) -> Result<(), Trouble> {
    world.ordinary_writes(dice)?;
    let before = world.rows(PEER)?;
    let known = world.drift_count()?;
    world.damage(dice, kind)?;
    let (at, micros) = detect(world, known)?;
    found.tiers.entry(at.clone()).or_default().push(micros);
    let end = match at.as_str() {
        "nothing" => {
            if !world.is_sound()? {
                return Err(Trouble::wrong("no tier names it, and the file is not what the log says"));
            }
            "harmless"
        }
        _ => heal(world, found)?,
    };
    let drift = world.drift_since(known)?;
    note(&drift, found);
    if end != "harmless" && drift.is_empty() && end != "rebuilt" {
        return Err(Trouble::wrong("it was healed, and no record names it"));
    }
    found.named += u64::from(!drift.is_empty());
    *found.ends.entry((kind, end)).or_default() += 1;
    let after = world.rows(PEER)?;
    let physical = kind == "bit" || kind == "sector" || kind == "event of the log";
    if physical {
        let believed = drift.iter().filter(|one| one.action == "captured").count() as u64;
        found.believed += believed;
        let changed = before.iter().filter(|row| !after.contains(*row)).count() as u64;
        if changed > believed {
            return Err(Trouble::wrong(format!(
                "{changed} rows of the peer changed, {believed} were taken for writes"
            )));
        }
    }
    let lost = before.len().saturating_sub(after.len());
    if lost > 0 && kind != "backup over the open file" {
        return Err(Trouble::wrong(format!("{lost} rows of the peer are lost")));
    }
    Ok(())
}

/// Which tier finds it, and how long that took.
fn detect(world: &mut World, known: u64) -> Result<(String, u64), Trouble> {
    let started = Instant::now();
    world.work();
    if world.drift_count()? > known {
        return Ok(("at once".to_string(), started.elapsed().as_micros() as u64));
    }
    if world.trouble().is_some() {
        return Ok(("the node's own trouble".to_string(), started.elapsed().as_micros() as u64));
    }
    for tier in Tier::ALL {
        let started = Instant::now();
        let run = world.verify(tier, false)?;
        if run.drift > 0 || run.state == "failed" || world.trouble().is_some() {
            return Ok((tier.word().to_string(), started.elapsed().as_micros() as u64));
        }
    }
    Ok(("nothing".to_string(), started.elapsed().as_micros() as u64))
}

/// Brings the pair back to soundness; says how.
fn heal(world: &mut World, found: &mut Found) -> Result<&'static str, Trouble> {
    let mut by_person = false;
    for round in 0..ROUNDS_MAX {
        world.work();
        if world.trouble().is_some() {
            break;
        }
        let run = world.verify(Tier::Full, by_person)?;
        world.work();
        if run.state == "done" && run.drift == 0 && world.is_sound()? {
            return Ok(if by_person { "healed by verify --repair" } else { "healed by itself" });
        }
        by_person |= round >= 2;
    }
    // SQLite cannot read the file, or what it cannot read is no row: a person's turn.
    world.rebuild()?;
    world.work();
    let run = world.verify(Tier::Full, false)?;
    if run.drift > 0 || !world.is_sound()? {
        let last: Vec<String> = world.drift_since(0)?.into_iter().rev().take(5).map(|one| one.sentence).collect();
        return Err(Trouble::wrong(format!("the rebuild does not heal it: {run:?}; {}", last.join(" || "))));
    }
    let _ = found;
    Ok("rebuilt")
}

fn note(drift: &[DriftView], found: &mut Found) {
    for one in drift {
        *found.causes.entry(one.cause.clone()).or_default() += one.rows;
        found.by_peer += u64::from(!one.from.is_empty());
    }
}

fn figures(found: &Found, done: u64) -> Figures {
    let mut figures = Figures::default();
    figures.set("damages", done);
    for kind in KINDS.map(|(kind, _)| kind) {
        let ends: Vec<String> = (found.ends.iter())
            .filter(|((of, _), _)| *of == kind)
            .map(|((_, end), count)| format!("{count} {end}"))
            .collect();
        if !ends.is_empty() {
            figures.set(kind, ends.join(", "));
        }
    }
    for (tier, micros) in &found.tiers {
        let mut sorted = micros.clone();
        sorted.sort_unstable();
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default() / 1_000;
        let most = sorted.last().copied().unwrap_or_default() / 1_000;
        let what = if tier == "nothing" { "nothing to find".to_string() } else { format!("found {tier}") };
        figures.set(&what, format!("{} (median {median} ms, most {most} ms)", micros.len()));
    }
    for (cause, count) in &found.causes {
        figures.set(&format!("cause {cause}"), *count);
    }
    figures.set("named", found.named);
    figures.set("needed_a_peer", found.by_peer);
    figures.set("believed", found.believed);
    figures
}

impl World {
    /// What the second server's drift history says since then.
    fn drift_since(&self, known: u64) -> Result<Vec<DriftView>, Trouble> {
        let filter = DriftFilter { after: Some(known), limit: 1_000, ..DriftFilter::default() };
        self.ask(HIT, |node| node.drift(&filter)).map(|page| page.drift)
    }

    fn drift_count(&self) -> Result<u64, Trouble> {
        let newest = DriftFilter { limit: 1, ..DriftFilter::default() };
        let page = self.ask(HIT, |node| node.drift(&newest))?;
        Ok(page.drift.last().map_or(0, |one| one.number))
    }
}
