//! `ordeal flips`: one bit of one file is wrong, at rest or under the running node.
//!
//! A flip hits the log, an application's file, its `-wal`, the key, or one of the small files, while everything is stopped
//! or while node and application run. Afterwards the node runs, its application writes, a peer is there. Allowed ends:
//! *harmless* (both servers show what the record says), *refused* (the node, or SQLite towards the application, says what
//! is wrong and what to do) and *told* (`status` or `log verify` says it). Never allowed: a panic, a process ended by a
//! signal, a peer whose rows differ from the record, rows lost or doubled on a server that says nothing. A value that
//! changed inside an application's file and that nothing names is counted as *unseen*: SQLite has no checksums, finding it
//! is the work of verification. A damaged log is healed as its words say (`join` with a code of the peer) and must then
//! hold everything. Does not verify: two flips, lost sectors, and flips in memory. Called by `main`.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::app::{Work, locked};
use super::dice::Dice;
use super::outcome::{Figures, Trouble, per_minute};
use super::record::Record;
use super::server::{Answer, Start};
use super::world::World;
use super::{Asked, progress};

/// The one that is hit, and its peer.
const HIT: usize = 1;
const PEER: usize = 0;

/// Worlds that are hit at the same time.
const LANES: u64 = 2;

/// How long the two may take to agree before the end is looked at.
const AGREED_WITHIN: Duration = Duration::from_secs(3);

/// What became of a flip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Harmless,
    Refused,
    Told,
    Unseen,
}

/// What is hit, and how often in a hundred.
const TARGETS: [(&str, u64); 9] = [
    ("data/events.redb", 40),
    ("files/one.db", 14),
    ("files/two.db", 8),
    ("files/one.db-wal", 10),
    ("data/identity.key", 10),
    ("data/databases.json", 6),
    ("data/node.json", 4),
    ("data/api-token", 4),
    ("litemesh.toml", 4),
];

/// A configuration that says something, so that a flip in it can matter.
const CONFIG: &str = "[network]\nmdns = false\n";

#[derive(Default)]
struct Found {
    ends: BTreeMap<(&'static str, End), u64>,
    healed: u64,
    flips: u64,
    wrong: Vec<String>,
}

struct Lane {
    world: World,
    template: Record,
    /// What the peer had before.
    arrived: Record,
    kept: PathBuf,
    healed: u64,
}

pub fn call(asked: &Asked, litemesh: &Path, root: &Path) -> Result<Figures, Trouble> {
    let mut lanes = Vec::new();
    for number in 0..LANES {
        lanes.push(Lane::new(litemesh, &root.join(format!("lane{number}")))?);
    }
    let (found, started) = (Mutex::new(Found::default()), Instant::now());
    let begun = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for lane in &mut lanes {
            let (found, begun) = (&found, &begun);
            scope.spawn(move || {
                loop {
                    let number = begun.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if !asked.goes_on(number, started) {
                        return;
                    }
                    lane.flip(asked.seed.wrapping_add(number), number, found);
                }
            });
        }
    });
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !found.wrong.is_empty() {
        let first = found.wrong.iter().take(3).cloned().collect::<Vec<_>>().join(" || ");
        return Err(Trouble::wrong(format!("{} of {} flips: {first}", found.wrong.len(), found.flips)));
    }
    let mut figures = Figures::default();
    figures.set("flips", found.flips);
    figures.set("flips_per_minute", per_minute(found.flips, started.elapsed()));
    for end in [End::Harmless, End::Refused, End::Told, End::Unseen] {
        let of_end = found.ends.iter().filter(|((_, each), _)| *each == end);
        let parts: Vec<String> = of_end.clone().map(|((target, _), count)| format!("{target} {count}")).collect();
        figures.set(&format!("{end:?}").to_lowercase(), of_end.map(|(_, count)| count).sum::<u64>());
        if !parts.is_empty() {
            figures.set(&format!("{end:?}_where").to_lowercase(), format!("({})", parts.join(", ")));
        }
    }
    figures.set("logs_healed_from_the_peer", found.healed);
    figures.set("panics", 0);
    figures.set("peers_changed", 0);
    Ok(figures)
}

impl Lane {
    /// Two servers with rows, both killed so that a `-wal` with commits is left.
    fn new(litemesh: &Path, root: &Path) -> Result<Lane, Trouble> {
        std::fs::create_dir_all(root)?;
        let mut world = World::new(litemesh, root, 2)?;
        for server in [PEER, HIT] {
            world.app(server, &Work { count: 40, pause_us: 500, ..Work::default() })?.wait()?;
        }
        world.check()?;
        world.servers[HIT].kill()?;
        let arrived = locked(&world.record).clone();
        let late = world.app(HIT, &Work { pause_us: 500, ..Work::default() })?;
        std::thread::sleep(Duration::from_millis(60));
        late.kill()?;
        world.servers[PEER].stop_well()?;
        // The configuration is the server's own; it comes after, so that the template holds it.
        std::fs::write(world.servers[HIT].folder.join("litemesh.toml"), CONFIG)?;
        let (template, kept) = (locked(&world.record).clone(), root.join("kept"));
        world.save(&kept)?;
        Ok(Lane { world, template, arrived, kept, healed: 0 })
    }

    fn flip(&mut self, seed: u64, number: u64, found: &Mutex<Found>) {
        let mut dice = Dice::new(seed);
        let target = target(&mut dice);
        let running = dice.chance(35);
        let result = self.one(target, running, &mut dice);
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        found.flips += 1;
        found.healed += std::mem::take(&mut self.healed);
        match result {
            Ok(end) => *found.ends.entry((target, end)).or_default() += 1,
            Err(trouble) => {
                let text = format!("flip {number} (--seed {seed} --count 1), {target}, running {running}: {trouble}");
                progress(&text);
                found.wrong.push(text);
            }
        }
        if found.flips.is_multiple_of(50) {
            progress(&format!("{} flips, {} wrong", found.flips, found.wrong.len()));
        }
    }

    fn one(&mut self, target: &'static str, running: bool, dice: &mut Dice) -> Result<End, Trouble> {
        self.world.put_back(&self.kept)?;
        *locked(&self.world.record) = self.template.clone();
        std::fs::write(self.world.servers[HIT].folder.join("litemesh.toml"), CONFIG)?;
        for server in &self.world.servers {
            server.hush()?;
        }
        self.world.servers[PEER].start()?;
        let path = self.world.servers[HIT].folder.join(target);
        if running {
            self.world.servers[HIT].start()?;
            flip_bit(&path, dice)?;
            self.work()?;
            self.world.servers[HIT].stop().and_then(|answer| unhurt("the stop", &answer))?;
        } else {
            flip_bit(&path, dice)?;
        }
        let start = self.world.servers[HIT].try_start()?;
        let end = match start {
            Start::Ended(answer) => self.refused(target, &answer)?,
            Start::Ready => self.ran(target)?,
        };
        let said = self.world.servers[HIT].said();
        if said.contains("panicked at") {
            let line = said.lines().find(|line| line.contains("panicked at")).unwrap_or_default();
            return Err(Trouble::wrong(format!("a panic: {line}")));
        }
        self.peer_unchanged()?;
        Ok(end)
    }

    /// The application writes as far as SQLite lets it; the two servers get time to agree.
    fn work(&mut self) -> Result<bool, Trouble> {
        let mut app = self.world.app(HIT, &Work { count: 3, pause_us: 0, ..Work::default() })?;
        // A damaged file may refuse to be opened: SQLite says so to the application.
        let opened = app.wait().is_ok();
        let agreed = self.world.settled(AGREED_WITHIN).is_ok();
        Ok(opened && agreed)
    }

    /// The node does not start: in words, with the file or what to do, and by no panic. A damaged log is healed.
    fn refused(&mut self, target: &str, answer: &Answer) -> Result<End, Trouble> {
        unhurt("the start", answer)?;
        let named =
            ["log", "database", "key", "token", "config", "databases.json", "node.json", "toml", "file", "member"];
        if !matches!(answer.code, Some(1 | 4)) || !named.iter().any(|word| answer.err.contains(word)) {
            return Err(Trouble::wrong(format!("the refusal says too little: {}", answer.words())));
        }
        if target == "data/events.redb" {
            self.heal()?;
        }
        Ok(End::Refused)
    }

    /// The node runs: both are as the record says, or somebody says that something is wrong.
    fn ran(&mut self, target: &str) -> Result<End, Trouble> {
        let agreed = self.work()?;
        if agreed && self.world.check_files(&self.world.servers[HIT]).is_ok() {
            let verified = self.world.servers[HIT].cli(&["log", "verify"])?;
            unhurt("log verify", &verified)?;
            if verified.code == Some(0) {
                return Ok(End::Harmless);
            }
            self.heal()?;
            return Ok(End::Told);
        }
        let verified = self.world.servers[HIT].cli(&["log", "verify"])?;
        unhurt("log verify", &verified)?;
        let status = self.world.servers[HIT].cli(&["--json", "status"])?;
        unhurt("status", &status)?;
        let alarmed =
            ["damaged", "malformed", "not a database", "corrupt", "is older than the log", "replaced", "cannot"];
        let told = alarmed.iter().any(|word| status.out.contains(word) || status.err.contains(word));
        if verified.code != Some(0) {
            self.heal()?;
            return Ok(End::Told);
        }
        let by_sqlite = locked(&self.world.record)
            .refused
            .keys()
            .any(|why| why.contains("malformed") || why.contains("not a database"));
        if told || by_sqlite {
            return Ok(End::Told);
        }
        if target.starts_with("files/") && agreed {
            return Ok(End::Unseen);
        }
        let why = self
            .world
            .check_files(&self.world.servers[HIT])
            .err()
            .map_or("they never agreed".to_owned(), |why| why.to_string());
        Err(Trouble::wrong(format!("nothing is said, and {why}; status {}", self.world.servers[HIT].status()?)))
    }

    /// As the words of a damaged log say: a code of the peer, a join, a start; then everything is there again.
    fn heal(&mut self) -> Result<(), Trouble> {
        if self.world.servers[HIT].is_started() {
            let stopped = self.world.servers[HIT].stop()?;
            unhurt("the stop", &stopped)?;
        }
        let code = self.world.servers[PEER].cli(&["invite"])?.done("invite")?.out.trim().to_owned();
        self.world.servers[HIT].join_with(&code, &[])?.done("the join that heals")?;
        self.world.servers[HIT].start().map_err(|trouble| trouble.at("after the join that heals"))?;
        self.world.settled(Duration::from_secs(20)).map_err(|trouble| trouble.at("after the join that heals"))?;
        self.world.check_files(&self.world.servers[HIT]).map_err(|trouble| trouble.at("healed"))?;
        self.world.servers[HIT].cli(&["log", "verify"])?.done("log verify after healing")?;
        self.healed += 1;
        Ok(())
    }

    /// What the peer shows is what applications wrote: rows of the hit server may be missing there, none may be wrong.
    fn peer_unchanged(&self) -> Result<(), Trouble> {
        let record = locked(&self.world.record);
        let peer = &self.world.servers[PEER];
        for (name, path) in peer.databases() {
            let shown = super::record::read(&path)?;
            // Rows written later may have arrived.
            let known = record.compare(&name, &shown);
            let wrong = self.arrived.compare(&name, &shown);
            let later = |text: &String| text.contains("was never written") && !known.contains(text);
            if let Some(first) = wrong.iter().find(|text| !later(text)) {
                return Err(Trouble::wrong(format!("the peer's rows changed: {first}")));
            }
        }
        Ok(())
    }
}

/// No panic, no signal.
fn unhurt(what: &str, answer: &Answer) -> Result<(), Trouble> {
    if answer.panicked() || answer.code.is_none() || answer.code == Some(70) {
        return Err(Trouble::wrong(format!("{what} ended badly: {}", answer.words())));
    }
    Ok(())
}

fn target(dice: &mut Dice) -> &'static str {
    let mut left = dice.below(TARGETS.iter().map(|(_, weight)| weight).sum());
    for (target, weight) in TARGETS {
        if left < weight {
            return target;
        }
        left -= weight;
    }
    TARGETS[0].0
}

/// Turns one bit over.
fn flip_bit(path: &Path, dice: &mut Dice) -> Result<(), Trouble> {
    let mut file = match std::fs::OpenOptions::new().read(true).write(true).open(path) {
        // A clean stop takes the `-wal` away: nothing to hit.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok(());
    }
    let mut byte = [0];
    // Most of a file of fixed regions is empty: look for a byte that holds something.
    for _ in 0..64 {
        file.seek(SeekFrom::Start(dice.below(length)))?;
        file.read_exact(&mut byte)?;
        if byte[0] != 0 {
            break;
        }
    }
    byte[0] ^= 1 << dice.below(8);
    file.seek(SeekFrom::Current(-1))?;
    Ok(file.write_all(&byte)?)
}
