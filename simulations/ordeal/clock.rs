//! `ordeal clock`: the clock of one server is wrong by up to a century, and another one after every restart.
//!
//! `faketime` stands around the first node: 1970, 1926, 2126, minutes and days off, back and forth between restarts. The
//! applications write on both servers all the time. Nothing may be lost, and the peer, whose clock is right, must not be
//! dragged along: the stamps of its own later events stay within five minutes of its clock. Does not verify: who wins a
//! cell that both wrote at the same time (the wrong clock may; both values are kept), and a clock that jumps while the
//! node runs. Called by `main`.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::app::{Work, locked};
use super::dice::Dice;
use super::host::{run, tool};
use super::outcome::{Figures, Trouble};
use super::world::World;
use super::{Asked, progress};

/// What the clock says, as faketime takes it.
const CLOCKS: [&str; 10] = [
    "1970-01-01 00:00:01",
    "+36500d",
    "-10000d",
    "+3d",
    "-3d",
    "+61s",
    "-400s",
    "2099-12-31 23:59:50",
    "+0s",
    "1970-01-02 00:00:00",
];

/// How far the peer's stamps may be from its clock.
const DRAGGED_MS_MAX: u64 = 5 * 60 * 1_000;

pub fn call(asked: &Asked, litemesh: &Path, root: &Path) -> Result<Figures, Trouble> {
    // Its library stands in the environment; the wrapper itself would be a process between us and the node.
    let faketime = tool("faketime", "faketime")?;
    let preload = run(&faketime, &["-f", "+0s", "printenv", "LD_PRELOAD"])?.trim().to_owned();
    let mut world = World::new(litemesh, root, 2)?;
    let mut dice = Dice::new(asked.seed);
    let (mut rounds, mut dragged_ms, started) = (0, 0, Instant::now());
    while asked.goes_on(rounds, started) {
        // Each once, then at random.
        let clock = if rounds < CLOCKS.len() as u64 {
            CLOCKS[rounds as usize]
        } else {
            dice.pick(&CLOCKS).copied().unwrap_or("+0s")
        };
        let place = format!("round {}, clock {clock}", rounds + 1);
        if dice.chance(50) {
            world.servers[0].kill()?
        } else {
            world.servers[0].stop_well()?
        }
        // Faked waiting would slow every timer.
        let (time, still) = (format!("FAKETIME={}", absolute(clock)), "FAKETIME_DONT_FAKE_MONOTONIC=1");
        world.servers[0].wrap = vec!["env".into(), format!("LD_PRELOAD={preload}").into(), time.into(), still.into()];
        world.servers[0].start().map_err(|trouble| trouble.at(&place))?;
        for server in [0, 1, 0, 1] {
            let work = Work { seed: dice.bits(), pause_us: 500, count: 10, ..Work::default() };
            world.app(server, &work)?.wait()?;
        }
        world.check().map_err(|trouble| trouble.at(&place))?;
        let off = dragged(&world)?;
        dragged_ms = dragged_ms.max(off);
        if off > DRAGGED_MS_MAX {
            return Err(Trouble::wrong(format!("the peer's stamps are {off} ms from its clock")).at(&place));
        }
        rounds += 1;
        progress(&format!(
            "{place}: {} transactions, 0 lost, the peer's stamps within {off} ms",
            locked(&world.record).acknowledged
        ));
    }
    world.check_all()?;
    let mut figures = Figures::default();
    figures.set("rounds", rounds);
    figures.set("transactions", locked(&world.record).acknowledged);
    figures.set("peer_dragged_ms", dragged_ms);
    figures.set("lost", 0);
    figures.set("doubled", 0);
    Ok(figures)
}

/// An absolute time stands still for faketime unless an `@` says that it runs.
fn absolute(clock: &str) -> String {
    if clock.starts_with(['+', '-']) { clock.to_owned() } else { format!("@{clock}") }
}

/// How far the stamp of the peer's newest own event is from the time now, ms.
fn dragged(world: &World) -> Result<u64, Trouble> {
    let peer = &world.servers[1];
    let id = peer.status()?["node"]["id"].as_str().unwrap_or_default().to_owned();
    let answer = peer.cli(&["--json", "log", "--limit", "200"])?.done("log")?;
    let page: Value = serde_json::from_str(&answer.out).map_err(|error| Trouble::wrong(format!("log: {error}")))?;
    let events = page["events"].as_array().cloned().unwrap_or_default();
    let own = events.iter().rev().find(|event| event["node"] == "s1" || event["origin"].as_str() == Some(&id));
    let time = own
        .and_then(|event| event["time"].as_str())
        .ok_or_else(|| Trouble::wrong(format!("the peer has no event: {}", answer.out)))?;
    let stamp = humantime::parse_rfc3339(time).map_err(|error| Trouble::wrong(format!("{time}: {error}")))?;
    let off = match SystemTime::now().duration_since(stamp) {
        Ok(behind) => behind,
        Err(ahead) => ahead.duration(),
    };
    Ok(off.min(Duration::from_secs(u32::MAX.into())).as_millis() as u64)
}
