//! `ordeal power`: real power cuts, on ext4 in a loop file.
//!
//! A node and an application work on the file system; both are stopped (SIGSTOP), the backing file is copied: what the
//! kernel had not written back yet is not in the copy, as when the plug is pulled. Then both are killed, the copy takes the
//! backing file's place and is mounted (ext4 recovers its journal), and they go on there; so every cut builds on the ones
//! before it. Every transaction acknowledged before the copy began (the application runs with `synchronous=FULL`) must be
//! there. A peer on another disk stays on: what it once got must come back, and at intervals both must be equal. Does not
//! verify: a disk that lies about its cache or tears a sector (the simulated disk does), and the cut of a machine in the
//! middle of ext4's own commit. Called by `main`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::app::{App, Work, locked};
use super::dice::Dice;
use super::host::{Mount, is_root, run, signal, tool};
use super::outcome::{Figures, Trouble, per_minute};
use super::record::read;
use super::server::Start;
use super::world::World;
use super::{Asked, progress};

/// Size of the file system.
const IMAGE_BYTES: u64 = 96 << 20;

/// Cuts between two comparisons with the peer.
const CHECK_EVERY: u64 = 10;

/// Cuts between two fresh starts: so long a history fits the file system.
const FRESH_EVERY: u64 = 100;

/// A file system in a file, mounted.
struct Disk {
    image: PathBuf,
    at: PathBuf,
    mount: Option<Mount>,
}

impl Disk {
    fn new(root: &Path) -> Result<Disk, Trouble> {
        let (image, at) = (root.join("disk.img"), root.join("disk"));
        std::fs::File::create(&image)?.set_len(IMAGE_BYTES)?;
        run(&tool("mkfs.ext4", "e2fsprogs")?, &["-q", "-F", &image.display().to_string()])?;
        let mut disk = Disk { image, at, mount: None };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&mut self) -> Result<(), Trouble> {
        let image = self.image.display().to_string();
        self.mount = Some(Mount::new(&["-o", "loop", &image], &self.at)?);
        Ok(())
    }

    /// What is on the disk now, as a file of its own.
    fn copy(&self) -> Result<PathBuf, Trouble> {
        let copy = self.image.with_extension("cut");
        run(
            &tool("cp", "coreutils")?,
            &["--sparse=always", &self.image.display().to_string(), &copy.display().to_string()],
        )?;
        Ok(copy)
    }

    /// Goes back to the copy: nothing of the file system may be in use.
    fn cut(&mut self, copy: &Path) -> Result<(), Trouble> {
        if let Some(mount) = self.mount.take() {
            mount.unmount()?;
        }
        std::fs::rename(copy, &self.image)?;
        self.mount()
    }
}

/// A disk, the servers with the first one's folder on it, and its application. In this order, so that the processes end
/// before the disk is unmounted.
struct Bench {
    app: Option<App>,
    world: World,
    disk: Disk,
    /// Cuts that lost the file that nobody had synced.
    bitten: u64,
}

impl Bench {
    fn new(litemesh: &Path, root: &Path) -> Result<Bench, Trouble> {
        std::fs::create_dir_all(root)?;
        let disk = Disk::new(root)?;
        std::os::unix::fs::symlink(disk.at.join("s0"), root.join("s0"))?;
        std::fs::create_dir_all(disk.at.join("s0"))?;
        let world = World::new(litemesh, root, 2)?;
        Ok(Bench { app: None, world, disk, bitten: 0 })
    }

    /// Works for a while, then the plug is pulled.
    fn cut(&mut self, dice: &mut Dice, seed: u64) -> Result<(), Trouble> {
        if self.app.is_none() {
            self.app = Some(self.world.app(0, &Work { seed, pause_us: 1_000, ..Work::default() })?);
        }
        std::thread::sleep(Duration::from_millis(dice.below(300)));
        let node = self.world.servers[0].node_pid()?;
        let app = self.app.as_ref().map_or(node, App::pid);
        // In either order: the one that goes on for a moment must do no harm.
        for pid in if dice.chance(50) { [node, app] } else { [app, node] } {
            signal(pid, "-STOP")?;
        }
        // Written and not synced: the proof that what follows is a power cut, and not a copy of a file system at rest.
        // A new name each time: ext4 writes a file that was cut to nothing and filled again to the disk by itself.
        let unsynced = self.disk.at.join(format!("unsynced{node}"));
        std::fs::write(&unsynced, vec![1; 65_536])?;
        let copy = self.disk.copy()?;
        // Killed processes say nothing more: the record is what was acknowledged before the copy began.
        if let Some(app) = self.app.take() {
            app.kill()?;
        }
        self.world.servers[0].kill()?;
        self.disk.cut(&copy)?;
        self.bitten += u64::from(!std::fs::read(&unsynced).is_ok_and(|bytes| bytes.contains(&1)));
        for (name, path) in self.world.servers[0].databases() {
            self.own_commits(&name, &path)?;
        }
        match self.world.servers[0].try_start()? {
            Start::Ready => Ok(()),
            Start::Ended(answer) => Err(Trouble::wrong(format!("the node does not start: {}", answer.words()))),
        }
    }

    /// Before the node touches anything: SQLite alone must show every acknowledged transaction.
    fn own_commits(&self, name: &str, path: &Path) -> Result<(), Trouble> {
        let shown = read(path).map_err(|trouble| trouble.at("after the cut, before the node"))?;
        let wrong = locked(&self.world.record).compare(name, &shown);
        match wrong.first() {
            None => Ok(()),
            Some(first) => {
                Err(Trouble::wrong(format!("before the node even started, {} differences: {first}", wrong.len())))
            }
        }
    }

    fn check(&mut self) -> Result<(), Trouble> {
        if let Some(app) = self.app.take() {
            app.stop()?;
        }
        self.world.check()?;
        for server in &self.world.servers {
            server.cli(&["log", "verify"])?.done(&format!("{}: log verify", server.name))?;
        }
        Ok(())
    }
}

pub fn call(asked: &Asked, litemesh: &Path, root: &Path) -> Result<Figures, Trouble> {
    can_run(root)?;
    let mut dice = Dice::new(asked.seed);
    let (mut cuts, mut checks, mut transactions, mut benches, mut bitten) = (0, 0u64, 0, 0u64, 0);
    let mut cutting = Duration::ZERO;
    let mut bench = Bench::new(litemesh, &root.join("b0"))?;
    let started = Instant::now();
    while asked.goes_on(cuts, started) {
        if cuts > 0 && cuts % FRESH_EVERY == 0 {
            bench.world.check_all()?;
            transactions += locked(&bench.world.record).acknowledged;
            benches += 1;
            bitten += bench.bitten;
            drop(bench);
            bench = Bench::new(litemesh, &root.join(format!("b{benches}")))?;
        }
        let began = Instant::now();
        bench.cut(&mut dice, asked.seed).map_err(|trouble| trouble.at(&format!("cut {}", cuts + 1)))?;
        cutting += began.elapsed();
        cuts += 1;
        if cuts % CHECK_EVERY == 0 {
            checks += 1;
            bench.check().map_err(|trouble| trouble.at(&format!("after cut {cuts}")))?;
            progress(&format!("{cuts} cuts, 0 lost, 0 doubled, 0 unopenable"));
        }
    }
    bench.check()?;
    bench.world.check_all()?;
    transactions += locked(&bench.world.record).acknowledged;
    bitten += bench.bitten;
    // The kernel may write back by itself at any moment; if it mostly did, these were no power cuts.
    if bitten * 2 < cuts {
        return Err(Trouble::wrong(format!("only {bitten} of {cuts} cuts lost what nobody had synced")));
    }
    let mut figures = Figures::default();
    figures.set("cuts", cuts);
    figures.set("cuts_that_lost_unsynced_data", bitten);
    figures.set("cuts_per_minute", per_minute(cuts, cutting));
    figures.set("transactions", transactions);
    figures.set("checks_with_the_peer", checks + 1);
    figures.set("lost", 0);
    figures.set("doubled", 0);
    figures.set("unopenable", 0);
    Ok(figures)
}

/// Whether this machine can mount a file.
fn can_run(root: &Path) -> Result<(), Trouble> {
    if !is_root() {
        return Err(Trouble::cannot("mounting a file needs root", "run it again with sudo, or leave it out"));
    }
    tool("mkfs.ext4", "e2fsprogs")?;
    let probe = root.join("probe");
    std::fs::create_dir_all(&probe)?;
    match Disk::new(&probe) {
        Ok(disk) => {
            disk.mount.map_or(Ok(()), Mount::unmount)?;
            Ok(std::fs::remove_dir_all(&probe)?)
        }
        Err(Trouble::Wrong(why)) => {
            Err(Trouble::cannot(why, "run it on a machine with loop devices, not in a container without them"))
        }
        Err(other) => Err(other),
    }
}
