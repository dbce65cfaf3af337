//! Plays a plan: the safety phase with all its faults, the liveness phase in which everything is mended, then the checks.
//!
//! Safety phase: the steps, each at its time; after them the looks of `world::watch` and the fingerprints. Liveness phase:
//! all links work, all nodes run, no frame is lost; the cluster must settle within the plan's bound of virtual time, and
//! then have little to do. Invariant: the outcome is a function of the plan and the binary. A panic is a violation too.
//! Callers: `simulate`, `shrink`.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use super::plan::Plan;
use super::step;
use crate::world::check::{check, check_fingerprints};
use crate::world::check_chains::one_history;
use crate::world::{Violation, World, app, watch};

/// An idle cluster is watched for so long, ms.
const IDLE_MS: u64 = 60_000;

/// How much is told while it plays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Show {
    /// Nothing.
    #[default]
    Nothing,
    /// The steps, as lines of the outcome.
    Steps,
    /// Every event, as lines of the outcome.
    Lines,
    /// Every event, on standard output at once.
    Loud,
}

/// What a run came to.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// The hash over everything.
    pub trace: String,
    /// What is wrong, if something is.
    pub violation: Option<Violation>,
    /// Virtual ms.
    pub virtual_ms: u64,
    /// Events of the trace.
    pub turns: u64,
    /// Frames sent.
    pub frames: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Events in the logs.
    pub events: u64,
    /// Frames with events in them, per event and server.
    pub frames_per_event: f64,
    /// Virtual time from the mending until all was settled, ms.
    pub settled_ms: u64,
    /// Frames per server and minute of the idle cluster.
    pub idle_frames: f64,
    /// Steps done.
    pub steps: u64,
    /// Statements that SQLite refused an app by the app's own fault.
    pub provoked: u64,
    /// Faults and turns reached.
    pub reached: BTreeMap<String, u64>,
    /// Marks of the product reached.
    pub marks: BTreeMap<String, u64>,
    /// The lines that were asked for.
    #[serde(skip)]
    pub lines: Vec<String>,
}

/// Exit code of a kind of failure.
pub fn exit_code(violation: &Violation) -> u8 {
    match violation.check.as_str() {
        "panic" => 101,
        "liveness" => 128,
        "determinism" => 129,
        _ => 1,
    }
}

static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// Panics are violations like others: kept with their place instead of printed.
pub fn keep_panics() {
    std::panic::set_hook(Box::new(|panic| {
        if let Ok(mut last) = LAST_PANIC.lock() {
            *last = panic.to_string();
        }
    }));
}

fn last_panic() -> String {
    LAST_PANIC.lock().map(|last| last.clone()).unwrap_or_default()
}

/// Plays a plan.
pub fn play(plan: &Plan, show: Show) -> Outcome {
    litemesh::model::sometimes::reset();
    let mut world: Option<World> = None;
    let mut outcome = Outcome { seed: plan.seed, ..Outcome::default() };
    let run = catch_unwind(AssertUnwindSafe(|| {
        let world = world.insert(World::new(plan.setting()));
        world.trace.loud = show == Show::Loud;
        world.trace.lines = (show == Show::Lines).then(Vec::new);
        drive(world, plan, show, &mut outcome)
    }));
    outcome.violation = match run {
        Ok(result) => result.err(),
        Err(_) => Some(Violation { check: "panic".to_string(), what: last_panic() }),
    };
    if let Some(world) = world {
        gather(world, &mut outcome);
    }
    outcome.marks =
        litemesh::model::sometimes::counts().into_iter().map(|(text, count)| (text.to_string(), count)).collect();
    outcome
}

fn drive(world: &mut World, plan: &Plan, show: Show, outcome: &mut Outcome) -> Result<(), Violation> {
    world.start_all();
    for (count, step) in plan.steps.iter().enumerate() {
        world.run_until(step.at_ms.max(world.now_ms));
        take(world)?;
        let told = step::done(world, step);
        if show == Show::Steps {
            outcome.lines.push(format!("{:>12.3} step {}: {told}", world.now_ms as f64 / 1000.0, step.number));
        }
        world.trace.update(told.as_bytes());
        world.trace.event(world.now_ms, || format!("step {}: {told}", step.number));
        outcome.steps += 1;
        take(world)?;
        if count.is_multiple_of(plan.look_every) {
            look(world)?;
        }
    }
    world.run_until(plan.ends_ms.max(world.now_ms));
    take(world)?;
    look(world)?;
    world.heal();
    world.trace.update(b"healed");
    world.trace.event(world.now_ms, || "everything is mended".to_string());
    let healed = world.now_ms;
    while !world.is_settled() {
        if world.now_ms >= healed + plan.settles_ms {
            return Err(Violation { check: "liveness".to_string(), what: unsettled(world, plan.settles_ms) });
        }
        world.run_until(world.now_ms + 100);
        take(world)?;
    }
    outcome.settled_ms = world.now_ms - healed;
    outcome.idle_frames = watch::stand_idle(world, IDLE_MS)?;
    take(world)?;
    look(world)?;
    check(world)?;
    // The rows themselves belong to the trace: two runs that sent the same frames must show the same.
    for position in 0..world.servers.len() {
        for (database, table) in app::MARKED {
            let rows = app::rows(world.servers[position].app.file(database), table);
            world.trace.update(format!("{rows:?}").as_bytes());
        }
    }
    world.trace.event(world.now_ms, || "settled, and all checks passed".to_string());
    bounded(world, plan)
}

fn take(world: &mut World) -> Result<(), Violation> {
    world.violation.take().map_or(Ok(()), Err)
}

fn look(world: &mut World) -> Result<(), Violation> {
    watch::look(world)?;
    let at_ms = world.now_ms;
    one_history(world)
        .map_err(|what| Violation { check: "one history".to_string(), what: format!("at {at_ms} ms: {what}") })?;
    check_fingerprints(world)
        .map_err(|what| Violation { check: "fingerprints".to_string(), what: format!("at {at_ms} ms: {what}") })
}

/// Where nothing is lost, every event travels to every server about once.
fn bounded(world: &World, plan: &Plan) -> Result<(), Violation> {
    let Some(most) = plan.frames_per_event_max else { return Ok(()) };
    let found = frames_per_event(world);
    if found > most {
        let what = format!("{found:.2} frames with events per event and server; {most} is the bound");
        return Err(Violation { check: "frames per event".to_string(), what });
    }
    Ok(())
}

fn frames_per_event(world: &World) -> f64 {
    let deliveries = events(world) * (world.present().count() as u64).saturating_sub(1);
    if deliveries == 0 { 0.0 } else { world.network.event_frames as f64 / deliveries as f64 }
}

fn events(world: &World) -> u64 {
    world
        .present()
        .filter_map(|server| world.servers[server].node.as_ref())
        .map(|node| node.events_held())
        .max()
        .unwrap_or(0)
}

/// Who is not done, and with what.
fn unsettled(world: &World, bound_ms: u64) -> String {
    let mut words = format!("not settled {bound_ms} ms after everything was mended");
    for position in world.present() {
        let server = &world.servers[position];
        let Some(node) = server.node.as_ref() else { continue };
        let Ok(status) = node.status(world.now(position)) else { continue };
        let databases: Vec<String> = status
            .databases
            .iter()
            .map(|database| {
                format!(
                    "{} {} events, {} held, {}",
                    database.name, database.events, database.held_events, database.state
                )
            })
            .collect();
        let peers: Vec<String> = status
            .peers
            .iter()
            .map(|peer| format!("{} {} -{} +{}", peer.name, peer.state, peer.behind, peer.ahead))
            .collect();
        words += &format!(
            "\n  server {position} ({}): outbox {}, in sync {}, {databases:?}, peers {peers:?}, alerts {:?}",
            status.node.name,
            server.app.outbox(),
            node.in_sync(&[]),
            status.alerts
        );
    }
    words
}

fn gather(mut world: World, outcome: &mut Outcome) {
    let (trace, frames) = world.trace();
    (outcome.trace, outcome.frames, outcome.bytes) = (trace, frames, world.network.bytes);
    (outcome.virtual_ms, outcome.turns) = (world.now_ms, world.trace.events);
    outcome.events = events(&world);
    outcome.frames_per_event = frames_per_event(&world);
    outcome.provoked = world.servers.iter().map(|server| server.app.errors.provoked).sum();
    outcome.reached = world.reached.iter().map(|(what, count)| (what.to_string(), *count)).collect();
    if let Some(lines) = world.trace.lines.take() {
        outcome.lines = lines;
    }
}
