//! What must hold all the time: looked at after every step, and while the cluster is idle.
//!
//! Checked: chains only grow and never change (the head that a node had at the last look is still the event at that place
//! of its chain, unless its data directory was put back from a snapshot); no node asks for its turn again and again
//! without end. Does not verify: events between two looks that were stored and vanished before anybody looked; who caused
//! a busy loop. Caller: the world (ticks), `run::play` (looks).

use std::collections::BTreeMap;

use litemesh::model::{Head, OriginId};

use super::{Violation, World};

/// A node may ask for so many turns in one virtual second: one per ms in the burst after each file notification, and
/// retries. A node that always asks at once comes to 1000.
const TICKS_PER_SECOND_MAX: u64 = 900;

/// … in so many seconds, one after the other.
const BUSY_SECONDS_MAX: u64 = 20;

/// Turns of an idle node in one virtual second, at most: two files looked at every 250 ms, and its peers.
pub const IDLE_TICKS_PER_SECOND_MAX: u64 = 20;

/// What was seen so far.
#[derive(Default)]
pub struct Watch {
    /// Heads of every node at the last look.
    heads: BTreeMap<usize, BTreeMap<OriginId, Head>>,
    /// Turns of every node: the second under way, turns in it, busy seconds before it.
    turns: BTreeMap<usize, (u64, u64, u64)>,
    busiest: Option<(usize, u64)>,
}

impl Watch {
    /// A node was given a turn.
    pub(super) fn ticked(&mut self, server: usize, now_ms: u64) {
        let second = now_ms / 1000;
        let (last, turns, busy) = self.turns.entry(server).or_insert((second, 0, 0));
        if *last != second {
            *busy = if *turns > TICKS_PER_SECOND_MAX && second == *last + 1 { *busy + 1 } else { 0 };
            (*last, *turns) = (second, 0);
        }
        *turns += 1;
        if *busy > BUSY_SECONDS_MAX {
            self.busiest = Some((server, *turns));
        }
    }

    /// A server's log is an older one from here on.
    pub(super) fn went_back(&mut self, server: usize) {
        self.heads.remove(&server);
    }
}

/// Looks at every node that runs.
pub fn look(world: &mut World) -> Result<(), Violation> {
    let wrong = |check: &str, what: String| Violation { check: check.to_string(), what };
    if let Some((server, _)) = world.watch.busiest {
        let what = format!("server {server} asked for its turn every millisecond for {BUSY_SECONDS_MAX} s");
        return Err(wrong("busy loop", what));
    }
    for position in 0..world.servers.len() {
        let Some(node) = world.servers[position].node.as_ref() else { continue };
        let failed = |error: litemesh::log::LogError| wrong("chains", format!("server {position}: {error}"));
        let log = node.log();
        let read = log.read().map_err(failed)?;
        let heads = read.heads().map_err(failed)?;
        for (origin, before) in world.watch.heads.get(&position).into_iter().flatten() {
            let now = heads.get(origin).map_or(0, |head| head.seq);
            if now < before.seq {
                let what = format!("server {position} held {} events of {origin} and holds {now}", before.seq);
                return Err(wrong("chains", what));
            }
            let stored = read.event(origin, before.seq).map_err(failed)?;
            if stored.is_none_or(|stored| stored.hash != before.hash) {
                let what = format!("server {position}: event {} of {origin} is another one than before", before.seq);
                return Err(wrong("chains", what));
            }
        }
        world.watch.heads.insert(position, heads.into_iter().collect());
    }
    Ok(())
}

/// Lets an idle cluster stand for a while: what it does then must be little. The number of frames per server and minute.
pub fn stand_idle(world: &mut World, ms: u64) -> Result<f64, Violation> {
    let wrong = |what: String| Violation { check: "busy loop".to_string(), what };
    let frames = world.network.frames;
    let turns = |world: &World| world.trace.events;
    let before = turns(world);
    world.run_until(world.now_ms + ms);
    let servers = world.present().count() as u64;
    let per_second = (turns(world) - before) * 1000 / ms / servers.max(1);
    if per_second > IDLE_TICKS_PER_SECOND_MAX {
        return Err(wrong(format!("{per_second} inputs per server and second in a cluster that has nothing to do")));
    }
    let frames = (world.network.frames - frames) as f64;
    Ok(frames * 60_000.0 / ms as f64 / servers.max(1) as f64)
}
