//! One full cycle of a node, struck at one call or at none, and what must be true afterwards.
//!
//! Stages: `Found`: first start of a server that founds its cluster, with rows in its files (key, log, enrolment, capture,
//! fence, log commit, clear, checkpoint, stop). `Join`: `litemesh join` into the peer's cluster. `Run`: first start after
//! the join (adoption, capture, apply of the peer's rows, checkpoint, stop). Invariant: every point begins with the same
//! bytes: the template is put back into the same directories (a data directory in another place is another incarnation).
//! Called by syscalls.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::app::{Work, locked};
use super::outcome::Trouble;
use super::record::Record;
use super::server::{Server, Start};
use super::trace::{CALLS, Point, points};
use super::world::{World, copy_folder};

/// How long a struck node may go on before it is stopped.
const STRUCK_LIFE: Duration = Duration::from_millis(2_500);

/// The one that is struck, and its peer.
const STRUCK: usize = 1;
const PEER: usize = 0;

/// A part of the cycle with a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// See the module.
    Found,
    /// See the module.
    Join,
    /// See the module.
    Run,
}

/// What happens instead of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// The process dies.
    Kill,
    /// The disk fails.
    Eio,
    /// The disk is full.
    Enospc,
}

impl Stage {
    /// All of them, in the order of a server's life.
    pub const ALL: [Stage; 3] = [Stage::Found, Stage::Join, Stage::Run];
}

impl Blow {
    /// All of them.
    pub const ALL: [Blow; 3] = [Blow::Kill, Blow::Eio, Blow::Enospc];

    fn injection(self) -> &'static str {
        match self {
            Blow::Kill => "signal=SIGKILL",
            Blow::Eio => "error=EIO",
            Blow::Enospc => "error=ENOSPC",
        }
    }
}

/// Two servers that are put through cycle after cycle.
pub struct Lane {
    world: World,
    strace: PathBuf,
    root: PathBuf,
    template: Record,
}

impl Lane {
    /// Makes the servers and the template: a peer with rows, and a server with rows that has joined but never run.
    pub fn new(litemesh: &Path, strace: &Path, root: &Path) -> Result<Lane, Trouble> {
        std::fs::create_dir_all(root)?;
        let mut world = World::apart(litemesh, root, 2)?;
        for server in [PEER, STRUCK] {
            world.app(server, &Work { count: 8, pause_us: 0, ..Work::default() })?.wait()?;
        }
        world.servers[PEER].start()?;
        world.settled(Duration::from_secs(20))?;
        world.servers[PEER].stop_well()?;
        let mut lane =
            Lane { world, strace: strace.to_path_buf(), root: root.to_path_buf(), template: Record::default() };
        lane.template = locked(&lane.world.record).clone();
        lane.world.save(&lane.root.join("apart"))?;
        lane.world.servers[PEER].start()?;
        let code = lane.invite()?;
        lane.join(&code, &[])?.done("the template's join")?;
        lane.world.servers[PEER].stop_well()?;
        lane.world.save(&lane.root.join("joined"))?;
        Ok(lane)
    }

    /// The calls of a stage, and how many are shadowed.
    pub fn count(&mut self, stage: Stage) -> Result<(Vec<Point>, u64), Trouble> {
        let trace = self.root.join("trace.txt");
        let calls = format!("trace={CALLS}");
        let words = ["-f", "-y", "--seccomp-bpf", "-e", &calls, "-o"];
        let mut wrap: Vec<OsString> = words.into_iter().map(OsString::from).collect();
        wrap.push(trace.clone().into());
        self.cycle(stage, wrap)?;
        let text = String::from_utf8_lossy(&std::fs::read(&trace)?).into_owned();
        Ok(points(&text, &self.world.servers[STRUCK].folder.display().to_string()))
    }

    /// Strikes one call and checks everything. `false`: the call was not reached.
    pub fn strike(&mut self, stage: Stage, point: &Point, blow: Blow) -> Result<bool, Trouble> {
        let trace = self.root.join("trace.txt");
        // The point was counted in another lane's folder.
        let mine = self.world.servers[STRUCK].folder.display().to_string();
        let (_, inside) = point.path.split_once("/s1").unwrap_or(("", ""));
        let inject = format!("inject={}:{}:when={}", point.call, blow.injection(), point.number);
        let mut wrap = vec!["-f".into(), "-e".into(), format!("trace={}", point.call), "-e".into(), inject];
        if blow != Blow::Kill {
            // strace 6.1 delivers no signals with this.
            wrap.insert(0, "--seccomp-bpf".into());
        }
        wrap.extend(["-P".into(), format!("{mine}{inside}"), "-o".into(), trace.display().to_string()]);
        self.cycle(stage, wrap.into_iter().map(OsString::from).collect())?;
        let text = String::from_utf8_lossy(&std::fs::read(&trace)?).into_owned();
        Ok(text.contains("(INJECTED)") || text.contains("killed by SIGKILL"))
    }

    /// One stage under strace with the arguments, then a healthy start and the checks.
    fn cycle(&mut self, stage: Stage, strace: Vec<OsString>) -> Result<(), Trouble> {
        let template = if stage == Stage::Run { "joined" } else { "apart" };
        self.world.put_back(&self.root.join(template))?;
        *locked(&self.world.record) = self.template.clone();
        for server in &self.world.servers {
            server.hush()?;
        }
        let mut wrap = vec![self.strace.clone().into()];
        wrap.extend(strace);
        if stage != Stage::Found {
            self.world.servers[PEER].start()?;
        }
        if stage == Stage::Join {
            let code = self.invite()?;
            let struck = self.join(&code, &wrap)?;
            self.after_join(&code, struck)?;
        } else {
            self.struck_run(wrap)?;
        }
        self.healthy_run(stage)
    }

    /// The node runs under strace, its application writes; it is stopped when it is done, or dead.
    fn struck_run(&mut self, wrap: Vec<OsString>) -> Result<(), Trouble> {
        self.world.servers[STRUCK].wrap = wrap;
        let start = self.world.servers[STRUCK].try_start();
        let mut app = self.world.app(STRUCK, &Work { count: 6, pause_us: 3_000, ..Work::default() })?;
        app.wait()?;
        if let Start::Ready = start? {
            let until = Instant::now() + STRUCK_LIFE;
            let mut ended = None;
            while Instant::now() < until && ended.is_none() && !matches!(self.world.unsettled(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(10));
                ended = self.world.servers[STRUCK].ended()?;
            }
            if ended.is_none() {
                self.world.servers[STRUCK].stop()?;
            }
        }
        self.world.servers[STRUCK].wrap.clear();
        no_panic(&self.world.servers[STRUCK])
    }

    /// A join that was struck is repeated, with a new code when the first one is used up.
    fn after_join(&mut self, code: &str, struck: super::server::Answer) -> Result<(), Trouble> {
        if struck.panicked() {
            return Err(Trouble::wrong(format!("the join panicked: {}", struck.words())));
        }
        if struck.code == Some(0) {
            return Ok(());
        }
        let again = self.join(code, &[])?;
        // "holds a node already" says that it had joined.
        if again.code == Some(0) || again.err.contains("holds a node already") {
            return Ok(());
        }
        let code = self.invite()?;
        let third = self.join(&code, &[])?;
        if third.code == Some(0) || third.err.contains("holds a node already") {
            return Ok(());
        }
        Err(Trouble::wrong(format!(
            "after a struck join ({}) no join works: {}; {}",
            struck.words(),
            again.words(),
            third.words()
        )))
    }

    /// Without faults: starts, takes what the application writes, holds everything once, verifies.
    fn healthy_run(&mut self, stage: Stage) -> Result<(), Trouble> {
        self.world.servers[STRUCK].start()?;
        let mut app = self.world.app(STRUCK, &Work { count: 2, pause_us: 0, ..Work::default() })?;
        app.wait()?;
        self.world.settled(Duration::from_secs(20))?;
        let servers: &[usize] = if stage == Stage::Found { &[STRUCK] } else { &[PEER, STRUCK] };
        for server in servers {
            let server = &self.world.servers[*server];
            for (name, path) in server.databases() {
                let mut record = locked(&self.world.record).clone();
                if stage == Stage::Found {
                    record.only("s1");
                }
                record.check(&server.name, &name, &path)?;
            }
        }
        let server = &self.world.servers[STRUCK];
        server.cli(&["log", "verify"])?.done("log verify")?;
        no_panic(server)?;
        if let Some((why, times)) = locked(&self.world.record).refused.iter().next() {
            return Err(Trouble::wrong(format!("the app was refused a transaction {times} times: {why}")));
        }
        for server in &mut self.world.servers {
            server.kill()?;
        }
        Ok(())
    }

    fn invite(&self) -> Result<String, Trouble> {
        Ok(self.world.servers[PEER].cli(&["invite"])?.done("invite")?.out.trim().to_owned())
    }

    fn join(&self, code: &str, wrap: &[OsString]) -> Result<super::server::Answer, Trouble> {
        self.world.servers[STRUCK].join_with(code, wrap)
    }

    /// Keeps both servers' folders as they are.
    pub fn keep_evidence(&mut self, number: usize) {
        for server in &mut self.world.servers {
            let _ = server.kill();
        }
        // A copy that fails leaves the words, which are what matters.
        let _ = copy_folder(&self.root.join("s1"), &self.root.join(format!("evidence{number}")));
    }
}

fn no_panic(server: &Server) -> Result<(), Trouble> {
    if server.said().contains("panicked at") {
        return Err(Trouble::wrong(format!("{} panicked: {}", server.name, server.last_words())));
    }
    Ok(())
}
