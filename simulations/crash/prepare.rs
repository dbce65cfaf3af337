//! How a run of the scenario begins: servers on disks that were prepared once, or on empty ones.
//!
//! A prepared disk is that of a settled cluster, closed in order; every run gets copies. Invariant: a copy is the same,
//! byte for byte, whichever runs were before. Caller: `crash`.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use litemesh::node::membership::{Membership, admit, found_cluster};
use litemesh::node::{DatabaseSettings, Node, NodeSettings};

use super::server::{FILES, Habits, Server};
use super::{Cluster, Report, WALL_BASE_MS, check};
use crate::disk::{self, Disk, Image};
use crate::world::dice::Dice;
use crate::world::scratch::Scratch;

thread_local! {
    /// Disks of settled clusters, by what they depend on: (servers, runs of ids).
    static PREPARED: RefCell<BTreeMap<(usize, u32), Vec<Image>>> = const { RefCell::new(BTreeMap::new()) };
}

impl Cluster {
    /// The servers of a seed.
    pub(super) fn new(seed: u64) -> Cluster {
        let mut dice = Dice::new(seed);
        let count = 1 + usize::from(dice.chance(70));
        let runs = [0, 0, 0, 0, 0, 0, 2, 16][dice.below(8) as usize];
        let images = PREPARED.with_borrow(|prepared| prepared.get(&(count, runs)).cloned()).unwrap_or_else(|| {
            let mut cluster = Cluster::empty(0, count, runs);
            cluster.make();
            let images: Vec<Image> = cluster.servers.iter().map(|server| server.disk.image()).collect();
            PREPARED.with_borrow_mut(|prepared| prepared.insert((count, runs), images.clone()));
            images
        });
        let mut cluster = Cluster::empty(seed, count, runs);
        cluster.dice = dice;
        cluster.errors = cluster.dice.chance(40);
        let new_start = cluster.dice.chance(10);
        let strict = new_start || cluster.errors || cluster.dice.chance(30);
        for (server, image) in cluster.servers.iter_mut().zip(&images) {
            server.habits = habits(&mut cluster.dice, strict);
            if !new_start {
                let root = cluster._directory.path().join(&server.settings.name);
                server.disk = Disk::from_image(&root, image);
                if cluster.dice.chance(50) {
                    server.disk.set_log_apart();
                }
            }
        }
        cluster
    }

    /// Servers on empty disks.
    fn empty(seed: u64, count: usize, runs: u32) -> Cluster {
        disk::begin(seed, WALL_BASE_MS);
        let directory = Scratch::new();
        let server = |position: usize| {
            let settings = settings(directory.path(), seed, position, runs);
            let root = directory.path().join(&settings.name);
            std::fs::create_dir_all(&root).expect("a temporary directory can be filled");
            let habits = Habits { synchronous: "EXTRA", checkpoint: 1_000, rollback: false };
            Server::new(Disk::new(&root), &root, settings, habits)
        };
        Cluster {
            servers: (0..count).map(server).collect(),
            queue: VecDeque::new(),
            dice: Dice::new(seed),
            now_ms: 0,
            report: Report::default(),
            last: vec![None; count],
            aims: vec![None; count],
            given: vec![0; count],
            again_at_ms: vec![None; count],
            runs: vec![false; count],
            errors: false,
            seen: check::Seen::new(count),
            _directory: directory,
        }
    }

    /// Makes the app's files and the cluster, and has it settle.
    fn make(&mut self) {
        self.found();
        for position in 0..self.servers.len() {
            self.servers[position].start_app().expect("the app starts on a sound disk");
            self.start(position).expect("a node starts on a sound disk");
        }
        self.settle().expect("a new cluster settles");
        for position in 0..self.servers.len() {
            let server = &mut self.servers[position];
            let node = server.node.take();
            let closed = server.disk.as_process(server.process, || node.map(Node::close).transpose());
            closed.expect("a node closes on a sound disk");
            server.stop_app();
        }
    }

    /// Makes the app's files and puts the member records into the logs.
    pub(super) fn found(&mut self) {
        let records = members(&self.servers);
        for server in &mut self.servers {
            server.make_files();
            let file = server.disk.backend("log.redb").expect("an empty disk takes a log");
            let log = litemesh::log::Log::with_backend(file).expect("a new log can be made");
            Node::enter(&log, records.clone()).expect("the records fit together");
        }
    }
}

/// How an app opens its files; the last answer of a rollback journal needs EXTRA to be sure.
fn habits(dice: &mut Dice, strict: bool) -> Habits {
    let synchronous = if strict { "EXTRA" } else { *dice.pick(&["FULL", "NORMAL"]).unwrap_or(&"FULL") };
    let checkpoint = if dice.chance(50) { 1_000 } else { 1 + dice.below(30) as u32 };
    Habits { synchronous, checkpoint, rollback: strict && dice.chance(50) }
}

fn settings(directory: &Path, seed: u64, position: usize, runs: u32) -> NodeSettings {
    let mut entropy = [0; 32];
    entropy[..8].copy_from_slice(&(seed ^ 0x6372_6173_6865_7321).to_be_bytes());
    entropy[8] = position as u8;
    let name = format!("s{position}");
    let root = directory.join(&name);
    let database = |name: &str| DatabaseSettings {
        name: name.to_string(),
        path: root.join(format!("{name}.db")),
        include: vec!["*".to_string()],
        steering_runs: runs,
        ..DatabaseSettings::default()
    };
    NodeSettings {
        // Not there: a node binds its incarnation to the directory's inode, which no seed decides.
        data_dir: root.join("data"),
        key_seed: [position as u8 + 1; 32],
        name,
        databases: FILES.iter().map(|name| database(name)).collect(),
        entropy,
        machine_id: "simulated".to_string(),
        pace: Default::default(),
        retention: Default::default(),
    }
}

fn members(servers: &[Server]) -> Vec<litemesh::model::MemberRecord> {
    let founder = &servers[0].settings;
    let first = found_cluster(&founder.key_seed, &founder.name, "simulated", WALL_BASE_MS);
    let mut membership = Membership::new(first.clone()).expect("the founder's record is sound");
    let mut records = vec![first];
    for server in &servers[1..] {
        let record = admit(&founder.key_seed, &membership, server.id, &server.settings.name, WALL_BASE_MS);
        membership.add(record.clone()).expect("the founder signed it");
        records.push(record);
    }
    records
}
