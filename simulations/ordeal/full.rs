//! `ordeal full`: the disk is full, for the log and for the application's files, again and again.
//!
//! A server's data directory and its application's files lie on two small tmpfs. A round fills one of them to the last
//! byte while applications write. Log full: the application must go on undisturbed, `status` must say in plain words that
//! the disk is full, and when room is made all of it must be in the log within five seconds, with nobody's help. Files
//! full: the application is refused as it would be without a node, a peer's rows wait, and come within five seconds. At
//! intervals both servers are compared with the record. Does not verify: quotas, a disk that fills in the middle of a
//! join, and how many rounds a disk takes that loses data when full. Called by `main`.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::app::{Work, locked};
use super::host::{Mount, is_root, tool};
use super::outcome::{Figures, Trouble};
use super::world::World;
use super::{Asked, progress};

/// How long a node may take to go on when there is room again.
const RESUMED_WITHIN: Duration = Duration::from_secs(5);

/// How long it may take until `status` says what is wrong.
const SAID_WITHIN: Duration = Duration::from_secs(5);

/// Longest transaction of an application beside a node whose log is full.
const BLOCKED_MS_MAX: u64 = 2_000;

/// Size of each tmpfs.
const SIZE: &str = "size=192m";

/// Rounds between two comparisons.
const CHECK_EVERY: u64 = 10;

/// Rounds between two fresh starts: so long a history fits the small disks.
const FRESH_EVERY: u64 = 20;

/// Set in the process that runs in a user namespace of its own.
const INSIDE: &str = "ORDEAL_INSIDE";

/// The servers; the first one's directories are small. In this order, so that processes end before disks go.
struct Bench {
    world: World,
    disks: [PathBuf; 2],
    _mounts: [Mount; 2],
}

/// What rounds came to.
#[derive(Default)]
struct Sum {
    transactions: u64,
    said: u64,
    said_ms: u64,
    resumed_ms: u64,
    blocked_ms: u64,
    refused: u64,
}

pub fn call(asked: &Asked, litemesh: &Path, root: &Path) -> Result<Figures, Trouble> {
    can_run(root)?;
    let mut bench = Bench::new(litemesh, &root.join("b0"))?;
    let (mut rounds, mut sum, started) = (0, Sum::default(), Instant::now());
    while asked.goes_on(rounds, started) {
        if rounds > 0 && rounds % FRESH_EVERY == 0 {
            bench.world.check_all()?;
            sum.transactions += locked(&bench.world.record).acknowledged;
            drop(bench);
            bench = Bench::new(litemesh, &root.join(format!("b{rounds}")))?;
        }
        let place = format!("round {}", rounds + 1);
        let result =
            if rounds % 2 == 0 { bench.log_full(asked.seed, &mut sum) } else { bench.files_full(asked.seed, &mut sum) };
        result.map_err(|trouble| trouble.at(&place))?;
        rounds += 1;
        if rounds % CHECK_EVERY == 0 {
            bench.world.check().map_err(|trouble| trouble.at(&place))?;
            progress(&format!("{rounds} rounds, resumed within {} ms, 0 lost", sum.resumed_ms));
        }
    }
    bench.world.check_all()?;
    sum.transactions += locked(&bench.world.record).acknowledged;
    let mut figures = Figures::default();
    figures.set("rounds", rounds);
    figures.set("transactions", sum.transactions);
    figures.set("rounds_in_which_status_said_full", sum.said);
    figures.set("slowest_resume_ms", sum.resumed_ms);
    figures.set("slowest_word_ms", sum.said_ms);
    figures.set("slowest_transaction_beside_a_full_log_ms", sum.blocked_ms);
    figures.set("refused_by_sqlite_on_full_files", sum.refused);
    figures.set("lost", 0);
    figures.set("doubled", 0);
    Ok(figures)
}

impl Bench {
    fn new(litemesh: &Path, root: &Path) -> Result<Bench, Trouble> {
        let disks = [root.join("log-disk"), root.join("files-disk")];
        let mounts = [small(&disks[0])?, small(&disks[1])?];
        let folder = root.join("s0");
        std::fs::create_dir_all(&folder)?;
        for (disk, part) in disks.iter().zip(["data", "files"]) {
            std::fs::create_dir_all(disk.join(part))?;
            std::os::unix::fs::symlink(disk.join(part), folder.join(part))?;
        }
        Ok(Bench { world: World::new(litemesh, root, 2)?, disks, _mounts: mounts })
    }

    /// The log's disk is full while the application writes.
    fn log_full(&mut self, seed: u64, sum: &mut Sum) -> Result<(), Trouble> {
        let app = self.world.app(0, &Work { seed, pause_us: 2_000, body: 6_000, ..Work::default() })?;
        locked(&self.world.record).slowest_us = 0;
        let filler = fill(&self.disks[0])?;
        self.said(false, sum)?;
        let before = locked(&self.world.record).acknowledged;
        std::thread::sleep(Duration::from_millis(200));
        let after = locked(&self.world.record).acknowledged;
        app.stop()?;
        let slowest = locked(&self.world.record).slowest_us / 1_000;
        sum.blocked_ms = sum.blocked_ms.max(slowest);
        if after == before || slowest > BLOCKED_MS_MAX {
            return Err(Trouble::wrong(format!(
                "the app was blocked: {} commits in 200 ms, slowest {slowest} ms",
                after - before
            )));
        }
        if let Some((why, _)) = locked(&self.world.record).refused.iter().find(|(why, _)| !why.contains("full")) {
            return Err(Trouble::wrong(format!("the app was refused a transaction: {why}")));
        }
        // Events of others must not be lost either: they wait at the peer.
        self.world.app(1, &Work { seed, pause_us: 0, count: 5, ..Work::default() })?.wait()?;
        self.resumed(&filler, sum)
    }

    /// The disk of the application's files is full while both applications write.
    fn files_full(&mut self, seed: u64, sum: &mut Sum) -> Result<(), Trouble> {
        let filler = fill(&self.disks[1])?;
        let refused = |world: &World| locked(&world.record).refused.values().sum::<u64>();
        let before = refused(&self.world);
        let mut here = self.world.app(0, &Work { seed, pause_us: 0, count: 15, body: 200_000, ..Work::default() })?;
        let mut there = self.world.app(1, &Work { seed, pause_us: 0, count: 30, body: 30_000, ..Work::default() })?;
        here.wait()?;
        there.wait()?;
        sum.refused += refused(&self.world) - before;
        self.said(true, sum)?;
        self.resumed(&filler, sum)
    }

    /// Waits until `status` says that a disk is full, and what to do.
    fn said(&self, may_fit: bool, sum: &mut Sum) -> Result<(), Trouble> {
        let began = Instant::now();
        loop {
            // "Ask again in a second" is an answer, too, as long as it is not the last one.
            let text =
                self.world.servers[0].status().map_or_else(|trouble| trouble.to_string(), |status| status.to_string());
            if says_full(&text) && text.contains("room") {
                sum.said += 1;
                break;
            }
            // SQLite may have found room inside its own files: then nothing is wrong.
            if matches!(self.world.unsettled(), Ok(None)) && may_fit {
                return Ok(());
            }
            if began.elapsed() > SAID_WITHIN {
                return Err(Trouble::wrong(format!("status does not say that the disk is full: {text}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        sum.said_ms = sum.said_ms.max(began.elapsed().as_millis() as u64);
        Ok(())
    }

    /// Makes room and waits until the servers hold the same.
    fn resumed(&self, filler: &Path, sum: &mut Sum) -> Result<(), Trouble> {
        std::fs::remove_file(filler)?;
        let began = Instant::now();
        self.world.settled(RESUMED_WITHIN).map_err(|trouble| trouble.at("after room was made"))?;
        while says_full(&self.world.servers[0].status()?.to_string()) {
            if began.elapsed() > RESUMED_WITHIN {
                return Err(Trouble::wrong("status still says that the disk is full"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        sum.resumed_ms = sum.resumed_ms.max(began.elapsed().as_millis() as u64);
        Ok(())
    }
}

fn says_full(status: &str) -> bool {
    status.contains("disk full") || status.contains("disk is full")
}

fn small(at: &Path) -> Result<Mount, Trouble> {
    Mount::new(&["-t", "tmpfs", "-o", SIZE, "ordeal"], at)
}

/// Fills a disk to the last byte.
fn fill(disk: &Path) -> Result<PathBuf, Trouble> {
    let path = disk.join("filler");
    let mut file = std::fs::File::create(&path)?;
    for size in [1 << 20, 4_096, 1] {
        let block = vec![0x5a; size];
        while file.write_all(&block).is_ok() {}
    }
    Ok(path)
}

/// Whether this machine can mount a tmpfs: as root, or as root of a user namespace (this process starts itself again there).
fn can_run(root: &Path) -> Result<(), Trouble> {
    if !is_root() && std::env::var_os(INSIDE).is_none() {
        let unshare = tool("unshare", "util-linux")?;
        let mut command = Command::new(unshare);
        command.args(["--user", "--map-root-user", "--mount"]).arg(std::env::current_exe()?);
        let error = command.args(std::env::args_os().skip(1)).env(INSIDE, "1").exec();
        return Err(Trouble::cannot(format!("a namespace cannot be made ({error})"), "run it again with sudo"));
    }
    match small(&root.join("probe")) {
        Ok(mount) => mount.unmount(),
        Err(Trouble::Wrong(why)) => Err(Trouble::cannot(why, "run it again with sudo, outside of a container")),
        Err(other) => Err(other),
    }
}
