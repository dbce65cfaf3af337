//! One step of a run, and how it is done to a world.
//!
//! A step has its time and draws of its own, so a run with a step left out is the same run without it. A step that cannot
//! be done (its server is gone, its copy cannot be taken now) does nothing and says so. A new kind of step goes into
//! [`Act`], into [`Act::class`] (what the shrinker can switch off), into [`Act::servers`] and into [`done`]; scenarios name
//! it by [`Act::parse`]. Invariant: a step names servers by number; the numbers of machines that join go on from there.
//! Callers: `plan` draws, `play` does.

use crate::world::World;
use crate::world::dice::Dice;
use crate::world::machines::Restored;
use crate::world::storage::SOON;

/// What happens at one moment of a run.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Step {
    /// Its number in the run as drawn.
    pub number: usize,
    /// When, virtual ms.
    pub at_ms: u64,
    /// Seed of what it draws.
    pub draws: u64,
    /// What is done.
    pub act: Act,
}

/// The kinds of steps.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// A server's app does one random thing.
    Write { server: usize },
    /// The same, and the node dies at one of its next operations on the disk.
    Crash { server: usize, operation: u64 },
    /// The power fails, now or at one of the node's next operations on the disk.
    Power { server: usize, operation: u64 },
    /// One of the node's next syncs fails.
    FailSync { server: usize, number: u64 },
    /// One of the node's next reads fails.
    FailRead { server: usize, number: u64 },
    /// The disk is full, or has room again.
    Full { server: usize, full: bool },
    /// A node is killed.
    Kill { server: usize },
    /// A node is started.
    Start { server: usize },
    /// A link is cut.
    Cut { a: usize, b: usize },
    /// A link works again.
    Join { a: usize, b: usize },
    /// Frames in one direction are swallowed.
    Deafen { from: usize, to: usize },
    /// All links work.
    Mend,
    /// All links are cut.
    Isolate,
    /// The cluster falls into so many groups, drawn.
    Groups { count: usize },
    /// Two servers meet, all other links of both are cut; the next step about them ends it.
    Meet { a: usize, b: usize },
    /// A clock is off by so much from here on.
    Clock { server: usize, error_ms: i64 },
    /// A new server joins, admitted by one; perhaps with a copy of the app files of another.
    Enter { by: usize, files_of: Option<usize> },
    /// A second machine runs with a copy of everything.
    Clone { server: usize },
    /// The present state of a server is kept.
    Snapshot { server: usize },
    /// What was kept is put back.
    Restore { server: usize, what: Restored },
    /// A server moves all that every member holds into its archive, in its next ticks.
    Archive { server: usize },
    /// A machine is taken out of service, if it is safe to unplug, and a new one joins in its place.
    Replace { server: usize },
}

/// Names of kinds for scenarios, and the class that switches them off.
pub const KINDS: [(&str, &str); 24] = [
    ("write", "writes"),
    ("crash", "crashes"),
    ("power", "power"),
    ("fail-sync", "disk-errors"),
    ("fail-read", "disk-errors"),
    ("fill-disk", "full-disks"),
    ("free-disk", "full-disks"),
    ("kill", "kills"),
    ("start", "kills"),
    ("cut", "cuts"),
    ("join", "cuts"),
    ("deafen", "one-way"),
    ("mend", "cuts"),
    ("isolate", "groups"),
    ("groups", "groups"),
    ("meet", "groups"),
    ("clock", "clocks"),
    ("enter", "joiners"),
    ("enter-with-files", "joiners"),
    ("clone", "clones"),
    ("snapshot", "restores"),
    ("restore-log", "restores"),
    ("restore-files", "restores"),
    ("archive", "archives"),
];

/// A kind that only a scenario's timetable names.
pub const REPLACE: &str = "replace";

impl Act {
    /// A step of a kind, about servers and amounts that the dice draw.
    pub fn draw(kind: &str, dice: &mut Dice, servers: usize, clocks_ms: u64) -> Option<Act> {
        let server = dice.below(servers as u64) as usize;
        // Another one than the first, when there is one.
        let other = (server + 1 + dice.below(servers.max(2) as u64 - 1) as usize) % servers;
        let amount = dice.below(clocks_ms.saturating_mul(2) + 1) as i64 - clocks_ms as i64;
        // Clocks are right again in a third of the jumps.
        let error_ms = if dice.chance(33) { 0 } else { amount };
        let count = 2 + dice.below((servers as u64 / 2).max(1)) as usize;
        let act = Act::parse(kind, server, other, error_ms, count)?;
        Some(match act {
            Act::Crash { server, .. } => Act::Crash { server, operation: 1 + dice.below(SOON) },
            // At once in a third of the cuts.
            Act::Power { server, .. } if dice.chance(67) => Act::Power { server, operation: 1 + dice.below(SOON) },
            Act::FailSync { server, .. } => Act::FailSync { server, number: 1 + dice.below(6) },
            Act::FailRead { server, .. } => Act::FailRead { server, number: 1 + dice.below(30) },
            other => other,
        })
    }

    /// A step of a kind about given servers.
    pub fn parse(kind: &str, server: usize, other: usize, error_ms: i64, count: usize) -> Option<Act> {
        Some(match kind {
            "write" => Act::Write { server },
            "crash" => Act::Crash { server, operation: 1 },
            "power" => Act::Power { server, operation: 0 },
            "fail-sync" => Act::FailSync { server, number: 1 },
            "fail-read" => Act::FailRead { server, number: 1 },
            "fill-disk" => Act::Full { server, full: true },
            "free-disk" => Act::Full { server, full: false },
            "kill" => Act::Kill { server },
            "start" => Act::Start { server },
            "cut" => Act::Cut { a: server, b: other },
            "join" => Act::Join { a: server, b: other },
            "deafen" => Act::Deafen { from: server, to: other },
            "mend" => Act::Mend,
            "isolate" => Act::Isolate,
            "groups" => Act::Groups { count },
            "meet" => Act::Meet { a: server, b: other },
            "clock" => Act::Clock { server, error_ms },
            "enter" => Act::Enter { by: server, files_of: None },
            "enter-with-files" => Act::Enter { by: server, files_of: Some(other) },
            "clone" => Act::Clone { server },
            "snapshot" => Act::Snapshot { server },
            "restore-log" => Act::Restore { server, what: Restored::Log },
            "restore-files" => Act::Restore { server, what: Restored::Files },
            "archive" => Act::Archive { server },
            REPLACE => Act::Replace { server },
            _ => return None,
        })
    }

    /// The class of faults that this step belongs to.
    pub fn class(&self) -> &'static str {
        match self {
            Act::Write { .. } => "writes",
            Act::Crash { .. } => "crashes",
            Act::Power { .. } => "power",
            Act::FailSync { .. } | Act::FailRead { .. } => "disk-errors",
            Act::Full { .. } => "full-disks",
            Act::Kill { .. } | Act::Start { .. } => "kills",
            Act::Cut { .. } | Act::Join { .. } | Act::Mend => "cuts",
            Act::Deafen { .. } => "one-way",
            Act::Isolate | Act::Groups { .. } | Act::Meet { .. } => "groups",
            Act::Clock { .. } => "clocks",
            Act::Enter { .. } => "joiners",
            Act::Clone { .. } => "clones",
            Act::Snapshot { .. } | Act::Restore { .. } => "restores",
            Act::Archive { .. } => "archives",
            Act::Replace { .. } => "replacements",
        }
    }

    /// The servers it is about.
    pub fn servers(&self) -> Vec<usize> {
        match *self {
            Act::Write { server } | Act::Kill { server } | Act::Start { server } => vec![server],
            Act::Crash { server, .. } | Act::Power { server, .. } | Act::Full { server, .. } => vec![server],
            Act::FailSync { server, .. } | Act::FailRead { server, .. } => vec![server],
            Act::Clock { server, .. } | Act::Clone { server } | Act::Snapshot { server } => vec![server],
            Act::Restore { server, .. } | Act::Archive { server } | Act::Replace { server } => vec![server],
            Act::Cut { a, b } | Act::Join { a, b } | Act::Meet { a, b } => vec![a, b],
            Act::Deafen { from, to } => vec![from, to],
            Act::Enter { by, files_of } => std::iter::once(by).chain(files_of).collect(),
            Act::Mend | Act::Isolate | Act::Groups { .. } => Vec::new(),
        }
    }
}

/// Does a step. Says what happened.
pub fn done(world: &mut World, step: &Step) -> String {
    let mut dice = Dice::new(step.draws);
    if step.act.servers().iter().any(|server| *server >= world.servers.len()) {
        return format!("{:?}: not here (yet)", step.act);
    }
    let could = |done: bool| if done { "" } else { ": not possible now" };
    match &step.act {
        Act::Write { server } => format!("the app of {server}: {}", world.write(*server, &mut dice)),
        Act::Crash { server, operation } => {
            world.kill_at(*server, *operation);
            let wrote = world.write(*server, &mut dice);
            format!("the app of {server}: {wrote}; the node dies at operation {operation} from here")
        }
        Act::Kill { server } => {
            world.kill(*server);
            format!("{server} is killed")
        }
        Act::Start { server } => {
            world.start(*server);
            format!("{server} is started")
        }
        Act::Clock { server, error_ms } => {
            world.set_clock(*server, *error_ms);
            format!("the clock of {server} is off by {} s", error_ms / 1000)
        }
        Act::Enter { by, files_of } => {
            let done = could(world.join(*by, *files_of));
            let files = files_of.map(|from| format!(" with a copy of {from}'s files")).unwrap_or_default();
            format!("a new server joins, admitted by {by}{files}{done}")
        }
        Act::Clone { server } => format!("{server} is cloned{}", could(world.clone_machine(*server))),
        Act::Snapshot { server } => format!("a snapshot of {server}{}", could(world.snapshot(*server))),
        Act::Restore { server, what } => {
            let done = could(world.restore(*server, *what));
            format!("{what:?} of {server} put back from its snapshot{done}")
        }
        Act::Archive { server } => format!("{server} archives what all hold{}", could(world.archive(*server))),
        Act::Replace { server } => replace(world, *server),
        other => on_a_disk(world, other).or_else(|| on_the_network(world, other, &mut dice)).unwrap_or_default(),
    }
}

/// What befalls a disk; `None` when the act is another one.
fn on_a_disk(world: &mut World, act: &Act) -> Option<String> {
    Some(match act {
        Act::Power { server, operation: 0 } => {
            world.power_cut(*server);
            format!("the power of {server} fails")
        }
        Act::Power { server, operation } => {
            world.power_cut_at(*server, *operation);
            format!("the power of {server} fails at operation {operation} from here")
        }
        Act::FailSync { server, number } => {
            world.fail_sync(*server, *number);
            format!("sync {number} from here fails on the disk of {server}")
        }
        Act::FailRead { server, number } => {
            world.fail_read(*server, *number);
            format!("read {number} from here fails on the disk of {server}")
        }
        Act::Full { server, full } => {
            world.fill_disk(*server, *full);
            format!("the disk of {server} {}", if *full { "is full" } else { "has room" })
        }
        _ => return None,
    })
}

/// What befalls the network; `None` when the act is another one.
fn on_the_network(world: &mut World, act: &Act, dice: &mut Dice) -> Option<String> {
    Some(match act {
        Act::Cut { a, b } => {
            world.set_cut(*a, *b, true);
            format!("the link {a}-{b} is cut")
        }
        Act::Join { a, b } => {
            for (from, to) in [(*a, *b), (*b, *a)] {
                world.set_deaf(from, to, false);
            }
            world.set_cut(*a, *b, false);
            format!("the link {a}-{b} works again")
        }
        Act::Deafen { from, to } => {
            world.set_deaf(*from, *to, true);
            format!("{to} does not hear {from} any more")
        }
        Act::Mend => {
            world.mend();
            "all links work".to_string()
        }
        Act::Isolate => {
            world.set_groups(|server| server);
            "nobody reaches anybody".to_string()
        }
        Act::Groups { count } => {
            let groups: Vec<usize> = world.servers.iter().map(|_| dice.below(*count as u64) as usize).collect();
            world.set_groups(|server| groups[server]);
            format!("groups: {groups:?}")
        }
        Act::Meet { a, b } => {
            world.meet(*a, *b);
            format!("{a} and {b} meet")
        }
        _ => return None,
    })
}

fn replace(world: &mut World, server: usize) -> String {
    if !world.retire(server) {
        return format!("{server} is to be replaced, but is not safe to unplug: it stays");
    }
    let host = world.present().find(|other| world.servers[*other].node.is_some());
    let joined = host.is_some_and(|host| world.join(host, None));
    format!(
        "{server} is taken out of service, a new machine joins{}",
        if joined { "" } else { ": nobody can admit it" }
    )
}
