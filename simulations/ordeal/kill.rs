//! `ordeal kill`: kill -9 in a loop, of nodes and of applications, while all of them write.
//!
//! Every round ends one node, one application, or both of a server, and starts it again at once; a node's life between two
//! kills is shorter than its start as often as not, so recoveries are killed, too. At intervals everything is let run and
//! checked. Does not verify: power cuts (what a killed process gave to the kernel is kept); see `ordeal power`. Called by
//! `main`.

use std::path::Path;
use std::time::{Duration, Instant};

use super::app::{App, Work, locked};
use super::dice::Dice;
use super::outcome::{Figures, Trouble, per_minute};
use super::world::World;
use super::{Asked, progress};

/// Rounds between two checks.
const CHECK_EVERY: u64 = 250;

/// Longest life of a node between two kills, ms; a start takes about 80.
const LIFE_MS_MAX: u64 = 220;

pub fn call(asked: &Asked, litemesh: &Path, root: &Path) -> Result<Figures, Trouble> {
    let mut world = World::new(litemesh, root, 2)?;
    let mut dice = Dice::new(asked.seed);
    let work = Work { seed: asked.seed, pause_us: 4_000, body: 40, ..Work::default() };
    let mut apps = [Some(world.app(0, &work)?), Some(world.app(1, &work)?)];
    let (mut rounds, mut nodes_killed, mut apps_killed, mut checks) = (0, 0u64, 0u64, 0u64);
    let mut killing = Duration::ZERO;
    let started = Instant::now();
    while asked.goes_on(rounds, started) {
        let began = Instant::now();
        let victim = dice.pick(&[0, 1]).copied().unwrap_or(0);
        std::thread::sleep(Duration::from_millis(dice.below(LIFE_MS_MAX)));
        let kind = dice.below(100);
        if kind < 85 {
            world.servers[victim].kill()?;
            nodes_killed += 1;
        }
        if kind >= 70 {
            apps_killed += 1;
            if let Some(app) = apps[victim].take() {
                app.kill()?;
            }
            apps[victim] = Some(world.app(victim, &work)?);
        }
        if kind < 85 {
            world.servers[victim].spawn()?;
        }
        killing += began.elapsed();
        rounds += 1;
        if rounds % CHECK_EVERY == 0 {
            checks += 1;
            check(&mut world, &mut apps).map_err(|trouble| trouble.at(&format!("by round {rounds}")))?;
            for (number, app) in apps.iter_mut().enumerate() {
                *app = Some(world.app(number, &work)?);
            }
            progress(&format!(
                "{rounds} rounds, {} transactions, 0 lost, 0 doubled",
                locked(&world.record).acknowledged
            ));
        }
    }
    check(&mut world, &mut apps)?;
    world.check_all()?;
    let record = locked(&world.record);
    if let Some((why, times)) = record.refused.iter().next() {
        return Err(Trouble::wrong(format!("an app was refused a transaction {times} times: {why}")));
    }
    let mut figures = Figures::default();
    figures.set("rounds", rounds);
    figures.set("rounds_per_minute", per_minute(rounds, killing));
    figures.set("nodes_killed", nodes_killed);
    figures.set("apps_killed", apps_killed);
    figures.set("transactions", record.acknowledged);
    figures.set("rows", record.rows());
    figures.set("checks", checks + 1);
    figures.set("slowest_transaction_ms", record.slowest_us / 1_000);
    figures.set("lost", 0);
    figures.set("doubled", 0);
    Ok(figures)
}

/// Lets every node run without kills and without writers, and compares.
fn check(world: &mut World, apps: &mut [Option<App>; 2]) -> Result<(), Trouble> {
    for app in apps.iter_mut() {
        if let Some(app) = app.take() {
            app.stop()?;
        }
    }
    for server in &mut world.servers {
        if let super::server::Start::Ended(answer) = server.ready()? {
            return Err(Trouble::wrong(format!("{} does not start: {}", server.name, answer.words())));
        }
    }
    world.check()
}
