//! `ordeal syscalls`: the node is struck at every write, sync, rename, unlink and creation of one full cycle.
//!
//! A counting run under strace lists every such call by stage, file and number; then each is struck once: by SIGKILL
//! instead of the call, by EIO, by ENOSPC. After each blow the node starts again without strace, its application writes
//! again, and everything must be there once, on the peer as well, with a log that verifies. A call that was not reached
//! (threads take turns) is tried again. Does not verify: two blows in one cycle, calls of the application, and calls that
//! only larger data make (log growth beyond its first region, long merges). Called by `main`.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::cycle::{Blow, Lane, Stage};
use super::dice::Dice;
use super::host::tool;
use super::outcome::{Figures, Trouble, per_minute};
use super::trace::Point;
use super::{Asked, progress};

/// Servers that are struck at the same time.
const LANES: usize = 2;

/// How often a call that was not reached is tried.
const TRIES: u32 = 4;

/// What was found so far.
#[derive(Default)]
struct Found {
    struck: [u64; 3],
    missed: Vec<String>,
    wrong: Vec<String>,
}

type Work = VecDeque<(Stage, Point, Blow, u32)>;

pub fn call(asked: &Asked, litemesh: &Path, root: &Path) -> Result<Figures, Trouble> {
    let strace = tool("strace", "strace")?;
    let mut lanes = Vec::new();
    for number in 0..LANES {
        lanes.push(Lane::new(litemesh, &strace, &root.join(format!("lane{number}")))?);
    }
    let (mut points, mut calls, mut shadowed) = (Work::new(), 0u64, 0u64);
    for stage in Stage::ALL {
        let (counted, hidden) = lanes[0].count(stage)?;
        shadowed += hidden;
        progress(&format!("{stage:?}: {} calls", counted.len()));
        calls += counted.len() as u64;
        for blow in Blow::ALL {
            points.extend(counted.iter().map(|point| (stage, point.clone(), blow, TRIES)));
        }
    }
    let chosen: Work =
        points.into_iter().skip((asked.seed % asked.every) as usize).step_by(asked.every as usize).collect();
    let mut chosen: Vec<_> = chosen.into();
    if asked.secs.is_some() || asked.count.is_some() {
        // A part must be a part of every stage.
        let mut dice = Dice::new(asked.seed);
        for left in (1..chosen.len()).rev() {
            chosen.swap(left, dice.below(left as u64 + 1) as usize);
        }
    }
    let total = asked.count.map_or(chosen.len(), |count| chosen.len().min(count as usize));
    let queue = Mutex::new(chosen.into_iter().take(total).collect::<Work>());
    let (found, started) = (Mutex::new(Found::default()), Instant::now());
    let in_time = || asked.secs.is_none_or(|secs| started.elapsed() < Duration::from_secs(secs));
    std::thread::scope(|scope| {
        for lane in &mut lanes {
            scope.spawn(|| strike_all(lane, &queue, &found, &in_time));
        }
    });
    let (found, left) =
        (found.into_inner().unwrap_or_else(PoisonError::into_inner), queue.into_inner().map_or(0, |left| left.len()));
    if !found.wrong.is_empty() {
        let first = found.wrong.iter().take(3).cloned().collect::<Vec<_>>().join(" || ");
        return Err(Trouble::wrong(format!("{} of {total} points: {first}", found.wrong.len())));
    }
    let struck: u64 = found.struck.iter().sum();
    let mut figures = Figures::default();
    figures.set("calls_of_the_cycle", calls);
    figures.set("calls_shadowed_by_another_thread", shadowed);
    figures.set("points", total as u64);
    figures.set("struck", struck);
    for (blow, count) in Blow::ALL.iter().zip(found.struck) {
        figures.set(&format!("struck_by_{blow:?}").to_lowercase(), count);
    }
    figures.set("not_reached", found.missed.len() as u64);
    figures.set("left_for_want_of_time", left as u64);
    figures.set("points_per_minute", per_minute(struck, started.elapsed()));
    figures.set("lost", 0);
    figures.set("doubled", 0);
    figures.set("unopenable", 0);
    Ok(figures)
}

/// Takes point after point from the queue until it is empty or the time is over.
fn strike_all(lane: &mut Lane, queue: &Mutex<Work>, found: &Mutex<Found>, in_time: &dyn Fn() -> bool) {
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    while in_time() {
        let Some((stage, point, blow, tries)) = next() else { return };
        let result = lane.strike(stage, &point, blow);
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(true) => found.struck[blow as usize] += 1,
            Ok(false) if tries > 1 => {
                queue.lock().unwrap_or_else(PoisonError::into_inner).push_back((stage, point, blow, tries - 1));
            }
            Ok(false) => {
                progress(&format!("not reached: {stage:?} {point}"));
                found.missed.push(point.to_string());
            }
            Err(trouble) => {
                let text = format!("{stage:?}, {blow:?} at {point}: {trouble}");
                progress(&text);
                lane.keep_evidence(found.wrong.len());
                found.wrong.push(text);
            }
        }
        let done = found.struck.iter().sum::<u64>();
        if done.is_multiple_of(50) && done > 0 {
            progress(&format!("{done} points struck, {} wrong", found.wrong.len()));
        }
    }
}
