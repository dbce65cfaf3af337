//! Scenario `crash`: one or two small servers, and a crash in every cycle, at any operation of SQLite, redb or the app.
//!
//! A cycle: apps commit, nodes work, and one machine loses its power (or its node is killed) at any operation, or at
//! one of a step that the dice choose; then the same again, in most cycles, while the node recovers; then everything settles
//! and is checked: every commit that returned is shown, once, with its value, and in the log; nothing else is; the file and
//! the log's state agree row by row; SQLite and the log find themselves whole. Right after a crash every file shows whole
//! transactions of the others ([`whole`]). Now and then a sync fails or a disk is full. Every seed has an [`ending`].
//! Invariant: equal seeds give equal operations, to the byte. What it does not verify: conflicts (what an app writes into
//! another one's rows no check reads), ids, frames lost (the world's task), first starts of the log's file (it is made aside and renamed).
//! Caller: `simulate`.

mod check;
mod ending;
mod prepare;
mod record;
mod server;
mod step;
mod whole;

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use litemesh::node::{Effect, Input, Node, NodeError, Now};

use crate::disk::{self, Crash};
use crate::world::dice::Dice;
use crate::world::scratch::Scratch;
use record::Record;
use server::{FILES, Server};
use step::{Coverage, STEPS, step_of};

/// 2025-06-01.
const WALL_BASE_MS: u64 = 1_748_736_000_000;

/// Virtual time in which all servers must agree after the last crash of a cycle, ms.
const SETTLE_MS_MAX: u64 = 120_000;

/// A node whose store failed is opened again after this, ms.
const REOPEN_MS: u64 = 1_000;

/// Frames that may arrive at one moment: each may be answered at once, but an exchange comes to an end.
const FRAMES_MAX: u64 = 10_000;

/// Cycles of one seed.
const CYCLES: u64 = 24;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// This seed only.
    pub seed: Option<u64>,
    /// Else seed after seed from here.
    pub first: u64,
    /// Until so much time is over.
    pub secs: u64,
    /// Every seed twice: its operations must be the same.
    pub twice: bool,
}

/// What runs came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Seeds.
    pub runs: u64,
    /// Crashes, by kind.
    pub power_cuts: u64,
    /// Nodes killed.
    pub kills: u64,
    /// Errors that disks gave.
    pub errors: u64,
    /// Transactions of apps whose commit returned.
    pub commits: u64,
    /// Operations of disks.
    pub operations: u64,
    /// Hash over the operations of all seeds.
    pub hash: u64,
    /// Steps and pairs.
    pub coverage: Coverage,
    /// Real time.
    pub elapsed: Duration,
    /// Time of the processor; real time where the system does not tell.
    pub processor: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let crashes = self.power_cuts + self.kills;
        writeln!(out, "{}", self.coverage)?;
        write!(
            out,
            "{} seeds, {crashes} crashes ({} power cuts, {} kills), {} disk errors, {} commits, 0 lost, 0 doubled; {} \
             operations, hash {:016x}; {:.0} s, {:.0} crashes per second of processor time",
            self.runs,
            self.power_cuts,
            self.kills,
            self.errors,
            self.commits,
            self.operations,
            self.hash,
            self.elapsed.as_secs_f64(),
            crashes as f64 / self.processor.as_secs_f64().max(0.001),
        )
    }
}

/// Runs seeds until the time is over. The error says what is wrong, and how to see it again.
pub fn run(options: Options) -> Result<Report, String> {
    let (started, before) = (Instant::now(), processor());
    let mut report = Report::default();
    let mut seed = options.seed.unwrap_or(options.first);
    loop {
        let wrong = |what: String| format!("seed {seed}: {what}. Again: simulate --scenario crash --seed {seed}");
        let one = Cluster::new(seed).run().map_err(wrong)?;
        if options.twice {
            let again = Cluster::new(seed).run().map_err(wrong)?;
            if (one.operations, one.hash) != (again.operations, again.hash) {
                return Err(wrong("two runs differ".to_string()));
            }
        }
        report.runs += 1;
        report.power_cuts += one.power_cuts;
        report.kills += one.kills;
        report.errors += one.errors;
        report.commits += one.commits;
        report.operations += one.operations;
        report.hash = (report.hash.rotate_left(5) ^ one.hash).wrapping_mul(0x517c_c1b7_2722_0a95);
        report.coverage.add(&one.coverage);
        report.elapsed = started.elapsed();
        report.processor = processor().zip(before).map_or(report.elapsed, |(now, before)| now - before);
        if options.seed.is_some() || report.elapsed >= Duration::from_secs(options.secs) {
            return Ok(report);
        }
        seed += 1;
    }
}

/// What this thread took of the processor so far (Linux).
fn processor() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
}

/// A frame under way.
struct Packet {
    to: usize,
    /// The processes that it was sent between: it is lost with either.
    processes: (u32, u32),
    input: Input,
    from: usize,
}

/// What strikes besides the disk's own fuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Aim {
    step: usize,
    crash: Crash,
}

/// One seed's servers.
struct Cluster {
    servers: Vec<Server>,
    queue: VecDeque<Packet>,
    dice: Dice,
    now_ms: u64,
    report: Report,
    /// By server: the crash that it recovers from, if any, and what is to come.
    last: Vec<Option<usize>>,
    aims: Vec<Option<Aim>>,
    /// Errors that disks had given when the node was last well, by server.
    given: Vec<u64>,
    /// When a node that failed is opened again, by server.
    again_at_ms: Vec<Option<u64>>,
    /// A node was started and has not ended.
    runs: Vec<bool>,
    errors: bool,
    seen: check::Seen,
    _directory: Scratch,
}

impl Cluster {
    fn run(mut self) -> Result<Report, String> {
        if self.servers.iter().any(|server| server.disk.number("log.redb").is_none()) {
            self.found();
        }
        for server in &mut self.servers {
            server.start_app()?;
        }
        for position in 0..self.servers.len() {
            self.recover(position)?;
        }
        self.settle()?;
        self.check(false)?;
        for cycle in 0..CYCLES {
            self.cycle().map_err(|what| format!("cycle {cycle} at {} ms: {what}", self.now_ms))?;
        }
        self.check(true)?;
        self.ending().map_err(|what| format!("at the end: {what}"))?;
        (self.report.operations, self.report.hash) = disk::operations();
        self.report.errors = self.servers.iter().map(|server| server.disk.counts().1).sum();
        self.report.commits = self.servers.iter().flat_map(|server| &server.records).map(Record::secured).sum();
        Ok(self.report)
    }

    /// Work, a crash, recovery with more crashes, and all checks.
    fn cycle(&mut self) -> Result<(), String> {
        let victim = self.dice.below(self.servers.len() as u64) as usize;
        self.arm(victim);
        for _ in 0..=self.dice.below(3) {
            let position = self.dice.below(self.servers.len() as u64) as usize;
            self.act(position)?;
            let pause = if self.dice.chance(20) { 1_200 } else { self.dice.below(40) };
            self.pass(pause)?;
        }
        self.servers[victim].disk.disarm();
        self.aims[victim] = None;
        if self.last[victim].is_none() {
            let crash = self.crash_kind();
            self.crash(victim, crash, STEPS)?;
        }
        for position in 0..self.servers.len() {
            self.recover(position)?;
        }
        self.settle()?;
        self.check(false)?;
        self.last.fill(None);
        Ok(())
    }

    fn crash_kind(&mut self) -> Crash {
        if self.dice.chance(60) { Crash::Power } else { Crash::Kill }
    }

    /// Plans a crash: at some operation, or at one of the first of some step.
    fn arm(&mut self, position: usize) {
        let crash = self.crash_kind();
        let reachable: &[usize] =
            if self.servers.len() > 1 { &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10] } else { &[0, 1, 2, 3, 4, 7, 10] };
        let step = *self.dice.pick(reachable).unwrap_or(&0);
        let server = &self.servers[position];
        // The app is never killed alone: where its own commit is the target, the power fails.
        let crash = if step == 0 { Crash::Power } else { crash };
        self.aims[position] = Some(Aim { step, crash });
        if step == step::PUBLISH || step == step::ANSWER {
            return;
        }
        if self.dice.chance(40) {
            server.disk.crash_at(1 + self.dice.below(70), crash);
        } else {
            let second = server.disk.number("users.db");
            let counted = Box::new(move |site: &disk::Site| step_of(site, second) == step);
            server.disk.crash_when(1 + self.dice.below(5), counted, crash);
        }
        if self.errors && self.dice.chance(15) {
            match self.dice.below(3) {
                0 => server.disk.fail_sync(1 + self.dice.below(8)),
                1 => server.disk.refuse(50, &self.dice),
                _ => server.disk.fill(true),
            }
        }
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.now_ms, wall_ms: WALL_BASE_MS + self.now_ms }
    }

    /// An app commits something.
    fn act(&mut self, position: usize) -> Result<(), String> {
        disk::set_wall_ms(self.now().wall_ms);
        disk::set_role(step::TICK);
        let file = self.dice.below(2) as usize;
        self.servers[position].act(file, &mut self.dice);
        if !self.look(position)? {
            return Ok(());
        }
        for file in 0..FILES.len() {
            self.input(position, Input::FileTouched(file))?;
        }
        Ok(())
    }

    /// Gives a node an input.
    fn input(&mut self, position: usize, input: Input) -> Result<(), String> {
        let now = self.now();
        disk::set_wall_ms(now.wall_ms);
        let server = &mut self.servers[position];
        let Some(node) = server.node.as_mut() else { return Ok(()) };
        let frame = matches!(input, Input::Received { .. });
        if frame && self.aims[position].is_some_and(|aim| aim.step == step::ANSWER) {
            return self.strike(position);
        }
        disk::set_role(if frame { step::FRAME } else { step::TICK });
        let handled = server.disk.as_process(server.process, || node.handle(input, now));
        if !self.look(position)? {
            return Ok(());
        }
        match handled {
            Ok(()) => {
                self.given[position] = self.servers[position].disk.counts().1;
                self.effects(position)
            }
            Err(error) => self.failed(position, &error),
        }
    }

    /// A node met an error that a disk gave on purpose. As the daemon does: where its log is concerned it is dropped and
    /// opened again after a pause; a node that did not open is tried again; else it goes on.
    fn failed(&mut self, position: usize, error: &NodeError) -> Result<(), String> {
        let server = &mut self.servers[position];
        let given = server.disk.counts().1;
        if given == self.given[position] && server.fault.is_none() {
            return Err(format!("server {position}: {error}"));
        }
        self.given[position] = given;
        if server.node.is_some() && !error.needs_reopen() {
            return self.effects(position);
        }
        server.fault = error.store_fault().or(server.fault.take());
        let node = server.node.take();
        server.disk.as_process(server.process, || drop(node));
        if !self.look(position)? {
            return Ok(());
        }
        self.end(position)?;
        let pause = if self.dice.chance(50) { REOPEN_MS } else { 1 };
        self.again_at_ms[position] = Some(self.now_ms + pause);
        Ok(())
    }

    /// Sees whether a fuse struck; if so the machine is dealt with, and the answer is no.
    fn look(&mut self, position: usize) -> Result<bool, String> {
        let server = &self.servers[position];
        let crash = match (server.disk.is_on(), server.disk.is_alive(server.process)) {
            (false, _) => Crash::Power,
            (true, false) if self.runs[position] => Crash::Kill,
            (true, _) => return Ok(true),
        };
        let site = server.disk.site().ok_or("a crash without a place")?;
        self.crash(position, crash, step_of(&site, server.disk.number("users.db")))?;
        Ok(false)
    }

    /// The crash that was aimed at a step without operations of its own.
    fn strike(&mut self, position: usize) -> Result<(), String> {
        let Some(aim) = self.aims[position] else { return Ok(()) };
        self.crash(position, aim.crash, aim.step)
    }

    /// A machine loses its power, or its node is killed.
    fn crash(&mut self, position: usize, crash: Crash, step: usize) -> Result<(), String> {
        self.report.coverage.crashes[step] += 1;
        if let Some(first) = self.last[position].filter(|first| *first < STEPS && step < STEPS) {
            self.report.coverage.pairs[first][step] += 1;
        }
        self.last[position] = Some(step);
        let power = crash == Crash::Power;
        let server = &mut self.servers[position];
        server.disk.disarm();
        if power {
            server.disk.cut();
            self.report.power_cuts += 1;
        } else {
            server.disk.kill(server.process);
            self.report.kills += 1;
        }
        self.end(position)?;
        if power {
            let server = &mut self.servers[position];
            server.stop_app();
            server.disk.power_on(&mut self.dice);
            disk::set_role(step::TICK);
            server.start_app()?;
            server.survey(true).map_err(|what| {
                let habits = server.habits;
                format!("server {position} after a power cut in s{step}: {what} ({habits:?}, errors: {})", self.errors)
            })?;
        }
        self.check_prefix(position).map_err(|what| format!("server {position} after a crash in s{step}: {what}"))?;
        Ok(())
    }

    /// A node is gone: its objects are dropped, its peers notice.
    fn end(&mut self, position: usize) -> Result<(), String> {
        self.aims[position] = None;
        self.again_at_ms[position] = None;
        self.runs[position] = false;
        let server = &mut self.servers[position];
        server.disk.kill(server.process);
        server.disk.bury(server.process, server.node.take());
        let peer = server.id;
        for other in (0..self.servers.len()).filter(|other| *other != position) {
            self.input(other, Input::PeerDisconnected { peer })?;
        }
        Ok(())
    }

    /// Starts a server's node and connects it.
    fn start(&mut self, position: usize) -> Result<(), String> {
        let now = self.now();
        disk::set_wall_ms(now.wall_ms);
        disk::set_role(step::TICK);
        self.again_at_ms[position] = None;
        self.runs[position] = true;
        let opened = self.servers[position].open_node(now);
        if !self.look(position)? {
            return Ok(());
        }
        if let Err(error) = opened {
            return self.failed(position, &error);
        }
        let server = &mut self.servers[position];
        self.given[position] = server.disk.counts().1;
        if let (Some(node), Some(fault)) = (server.node.as_mut(), server.fault.take()) {
            node.resume_after(fault);
        }
        if let Some(alert) = server.took_for_older(now).filter(|_| !self.errors) {
            return Err(format!("server {position}: {alert}"));
        }
        for other in (0..self.servers.len()).filter(|other| *other != position) {
            if self.servers[other].node.is_some() {
                for (one, to) in [(position, other), (other, position)] {
                    let peer = self.servers[to].id;
                    self.input(one, Input::PeerConnected { peer, address: String::new() })?;
                }
            }
        }
        self.effects(position)
    }

    /// Starts a node, with more crashes while it recovers, until it stands.
    fn recover(&mut self, position: usize) -> Result<(), String> {
        for chance in [80, 60, 50, 40, 0] {
            if self.servers[position].node.is_some() {
                break;
            }
            for file in 0..FILES.len() {
                if self.dice.chance(70) {
                    self.servers[position].touch(file, &mut self.dice);
                }
            }
            let other = self.dice.below(self.servers.len() as u64) as usize;
            for writer in [position, other] {
                if self.dice.chance(40) {
                    self.act(writer)?;
                }
            }
            if self.dice.chance(chance) {
                self.arm(position);
            }
            self.start(position)?;
            let pause = if self.dice.chance(30) { 1_300 } else { self.dice.below(60) };
            self.pass(pause)?;
            if self.dice.chance(30) {
                self.act(position)?;
                self.pass(20)?;
            }
            self.mend(position);
        }
        if self.servers[position].node.is_none() && self.again_at_ms[position].is_none() {
            self.start(position)?;
        }
        Ok(())
    }

    /// No more faults for a machine.
    fn mend(&mut self, position: usize) {
        let disk = &self.servers[position].disk;
        disk.disarm();
        disk.fill(false);
        disk.refuse(0, &self.dice);
        self.aims[position] = None;
    }

    fn effects(&mut self, from: usize) -> Result<(), String> {
        while let Some(effect) = self.servers[from].node.as_mut().and_then(Node::poll_effect) {
            let announced = matches!(effect, Effect::Announce { .. });
            if announced && self.aims[from].is_some_and(|aim| aim.step == step::PUBLISH) {
                return self.strike(from);
            }
            match effect {
                Effect::Send { peer, frame } => {
                    let Some(to) = self.servers.iter().position(|server| server.id == peer) else { continue };
                    let peer = self.servers[from].id;
                    self.send(from, to, Input::Received { peer, frame });
                }
                Effect::Announce { frame } => {
                    for to in (0..self.servers.len()).filter(|to| *to != from) {
                        self.send(from, to, Input::Announced { frame: frame.clone() });
                    }
                }
                Effect::PeerFault { peer, reason } => return Err(format!("server {from} blames {peer}: {reason}")),
                Effect::MembersChanged | Effect::LanTrusted(_) | Effect::Reopened | Effect::Applied(_) => {}
            }
        }
        Ok(())
    }

    fn send(&mut self, from: usize, to: usize, input: Input) {
        let processes = (self.servers[from].process, self.servers[to].process);
        self.queue.push_back(Packet { from, to, processes, input });
    }

    /// Lets time pass: frames arrive at once, ticks when they are due.
    fn pass(&mut self, ms: u64) -> Result<(), String> {
        let end = self.now_ms + ms;
        loop {
            let mut frames = 0;
            while let Some(packet) = self.queue.pop_front() {
                frames += 1;
                if frames > FRAMES_MAX {
                    return Err(format!("more than {FRAMES_MAX} frames at one moment: they go round in circles"));
                }
                let Packet { from, to, processes, input } = packet;
                if processes == (self.servers[from].process, self.servers[to].process) {
                    self.input(to, input)?;
                }
            }
            let next = (0..self.servers.len()).filter_map(|position| self.deadline(position)).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now_ms = end;
                return Ok(());
            };
            self.now_ms = next.max(self.now_ms + 1);
            for position in 0..self.servers.len() {
                if self.deadline(position).is_some_and(|deadline| deadline <= self.now_ms) {
                    match self.again_at_ms[position] {
                        Some(_) => self.start(position)?,
                        None => self.input(position, Input::Tick)?,
                    }
                }
            }
        }
    }

    fn deadline(&self, position: usize) -> Option<u64> {
        let node = self.servers[position].node.as_ref();
        self.again_at_ms[position].or_else(|| node?.next_deadline(self.now()))
    }

    /// Ends all faults, and waits until every server shows everything.
    fn settle(&mut self) -> Result<(), String> {
        (0..self.servers.len()).for_each(|position| self.mend(position));
        let deadline = self.now_ms + SETTLE_MS_MAX;
        loop {
            let mut settled = true;
            for position in 0..self.servers.len() {
                let server = &self.servers[position];
                settled &= server.node.as_ref().is_some_and(|node| node.in_sync(&[])) && server.marks() == 0;
            }
            if settled && self.queue.is_empty() {
                return Ok(());
            }
            if self.now_ms >= deadline {
                return Err(format!("not settled after {SETTLE_MS_MAX} ms"));
            }
            self.pass(50)?;
        }
    }
}
