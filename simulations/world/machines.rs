//! Machines: built at the start, joining later, copied, put back from a snapshot, taken out of service.
//!
//! | what happens  | what is copied                                     | who it is then                                        |
//! |---------------|----------------------------------------------------|-------------------------------------------------------|
//! | joins         | nothing, or another server's app files of now       | a new key, admitted by a member                       |
//! | is cloned     | data directory and app files                       | the same key on another machine id                    |
//! | is restored   | its data directory, or its app files, of a snapshot | itself, the log or the file older than the other      |
//! | is retired    | nothing                                            | gone; only when its node says it is safe to unplug     |
//!
//! Copies are taken when the app's outbox is empty: what a copied outbox holds would be captured by both machines, as two
//! rows, and nothing could tell. Invariant: a machine that is gone comes never back. Caller: the steps of a run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use litemesh::model::rule::StatedRule;
use litemesh::model::{MemberRecord, Role, Rule};
use litemesh::node::membership::{Membership, admit_as, found_cluster, node_id};
use litemesh::node::{DatabaseSettings, Input, Node, NodeSettings};

use super::app::App;
use super::dice::Dice;
use super::network::Network;
use super::storage::Storage;
use super::trace::Trace;
use super::watch::Watch;
use super::{Server, Setting, WALL_BASE_MS, World, scratch};
use crate::disk::Image;

/// What servers had on their disks at an earlier time.
pub type Snapshots = BTreeMap<usize, Image>;

/// Whether a file is the node's; all others are the app's.
fn is_log(name: &str) -> bool {
    name.ends_with(".redb")
}

/// What is put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restored {
    /// The node's data directory; the app's files stay.
    Log,
    /// The app's files; the node's data directory stays.
    Files,
}

impl World {
    /// A cluster on the same (empty) schema, all members, all connected.
    pub fn new(setting: Setting) -> World {
        crate::disk::begin(setting.seed, WALL_BASE_MS);
        let directory = scratch::Scratch::new();
        let network = Network::new(setting.weather.clone());
        let mut world = World {
            servers: Vec::new(),
            seed: setting.seed,
            now_ms: 0,
            trace: Trace::default(),
            network,
            watch: Watch::default(),
            violation: None,
            reached: BTreeMap::new(),
            snapshots: Snapshots::default(),
            dial_again: false,
            directory,
            setting,
        };
        let mut records: Vec<MemberRecord> = Vec::new();
        for position in 0..world.setting.servers {
            let settings = world.settings(position, position);
            records.push(member(&settings, position, &records));
            world.add(settings, &Image::default());
        }
        for server in &world.servers {
            let log = server.storage.open_log().expect("a new log can be made");
            Node::enter(&log, records.clone()).expect("the records fit together");
        }
        world
    }

    /// Starts every node.
    pub fn start_all(&mut self) {
        (0..self.servers.len()).for_each(|position| self.start(position));
    }

    fn root(&self, position: usize) -> PathBuf {
        self.directory.path().join(format!("server-{position}"))
    }

    /// A server whose node does not run yet, with these files on its disk.
    fn add(&mut self, settings: NodeSettings, image: &Image) {
        let position = self.servers.len();
        let root = self.root(position);
        let dice = Dice::new(self.seed ^ (position as u64 + 1) << 40);
        let storage = Storage::with_image(&root, dice, image);
        let app = App::new(&root, position);
        let clock_ms = self.setting.clocks_ms.get(position).copied().unwrap_or(0);
        let id = node_id(&settings.key_seed);
        let clock_was_right = clock_ms == 0;
        self.servers.push(Server {
            node: None,
            app,
            storage,
            id,
            settings,
            gone: false,
            clock_ms,
            clock_was_right,
            epoch: 0,
            counts: false,
            busy_at_ms: 0,
            ticked_at_ms: 0,
        });
    }

    /// A new machine joins, admitted by the member `by`; with `files_of`, it brings a copy of that server's app files.
    /// False when nobody can admit it now.
    pub fn join(&mut self, by: usize, files_of: Option<usize>) -> bool {
        if files_of.is_some_and(|from| !self.can_copy(from) || !self.holds_all_of(by, from)) {
            return false;
        }
        let position = self.servers.len();
        let settings = self.settings(position, position);
        let Some(host) = self.servers[by].node.as_ref() else { return false };
        let membership = host.membership();
        let seed = &self.servers[by].settings.key_seed;
        let at_ms = self.now(by).wall_ms;
        let joiner = (node_id(&settings.key_seed), settings.name.as_str());
        let record = admit_as(seed, membership, joiner, Role::Admin, at_ms);
        let mut records: Vec<MemberRecord> = membership.records().into_iter().cloned().collect();
        records.push(record.clone());
        let mut image = Image::default();
        if let Some(from) = files_of {
            image = self.servers[from].storage.disk.image().only(|name| !is_log(name));
            self.reach("a server joined with a copy of the files");
        } else {
            self.reach("a server joined with empty files");
        }
        self.add(settings, &image);
        let log = self.servers[position].storage.open_log().expect("a new log can be made");
        Node::enter(&log, records).expect("the records fit together");
        drop(log);
        self.input(by, Input::MembersLearnt(vec![record]));
        self.start(position);
        true
    }

    /// A second machine with a copy of everything, the node's key included. False when it cannot be copied now.
    pub fn clone_machine(&mut self, from: usize) -> bool {
        if !self.can_copy(from) {
            return false;
        }
        self.reach("a machine was cloned");
        let position = self.servers.len();
        let mut settings = self.settings(position, position);
        settings.key_seed = self.servers[from].settings.key_seed;
        settings.name.clone_from(&self.servers[from].settings.name);
        let image = self.servers[from].storage.disk.image();
        self.add(settings, &image);
        self.start(position);
        true
    }

    /// Keeps what a server has now, for [`World::restore`]. False when it cannot be copied now.
    pub fn snapshot(&mut self, position: usize) -> bool {
        if !self.can_copy(position) {
            return false;
        }
        self.reach("a snapshot was taken");
        self.snapshots.insert(position, self.servers[position].storage.disk.image());
        true
    }

    /// Puts an earlier state back and starts the node on it. False when there is none, or when the present state holds
    /// what nobody could bring back (marks in the outbox, events that only this server has).
    pub fn restore(&mut self, position: usize, what: Restored) -> bool {
        let Some(then) = self.snapshots.get(&position).cloned().filter(|_| self.is_safe_to_unplug(position)) else {
            return false;
        };
        self.kill(position);
        let root = self.root(position);
        let server = &mut self.servers[position];
        server.app.stop();
        let now = server.storage.disk.image();
        let image = match what {
            Restored::Log => then.only(is_log).over(now.only(|name| !is_log(name))),
            Restored::Files => then.only(|name| !is_log(name)).over(now.only(is_log)),
        };
        server.storage.replace(&image);
        server.app.restart(&root);
        match what {
            Restored::Log => {
                self.reach("a data directory was put back from a snapshot");
                self.watch.went_back(position);
            }
            Restored::Files => self.reach("an app's files were put back from a snapshot"),
        }
        self.start(position);
        true
    }

    /// Whether a server's status says that nothing would be lost with it.
    pub fn is_safe_to_unplug(&self, position: usize) -> bool {
        let server = &self.servers[position];
        let only_here = |node: &Node| node.status(self.now(position)).map(|status| status.only_here.events);
        server.app.outbox() == 0
            && server.node.as_ref().is_some_and(|node| only_here(node).is_ok_and(|events| events == 0))
    }

    /// Takes a machine out of service for good, if it is safe to unplug.
    pub fn retire(&mut self, position: usize) -> bool {
        if self.present().count() < 3 || !self.is_safe_to_unplug(position) {
            return false;
        }
        self.reach("a machine was taken out of service");
        self.kill(position);
        self.servers[position].gone = true;
        true
    }

    /// Whether files can be copied as an operator would: the node runs, knows its files and has drained them.
    fn can_copy(&self, from: usize) -> bool {
        let server = &self.servers[from];
        let enrolled = ["scouting", "users"].iter().all(|name| server.app.enrolled(name));
        !server.gone && server.node.is_some() && enrolled && server.app.outbox() == 0
    }

    /// Whether a server's log holds all that another one's does. (Brought to a member that lacks what the copied file's own
    /// member wrote last, a file's rows are new there: nothing in the cluster says otherwise.)
    fn holds_all_of(&self, server: usize, other: usize) -> bool {
        let heads = |server: usize| {
            let node = self.servers[server].node.as_ref()?;
            node.log().read().ok()?.heads().ok()
        };
        let (Some(here), Some(there)) = (heads(server), heads(other)) else { return false };
        there.iter().all(|(origin, head)| here.get(origin).is_some_and(|held| held.seq >= head.seq))
    }

    /// Settings of the node of machine `position` with the key of `key`.
    fn settings(&self, position: usize, key: usize) -> NodeSettings {
        let root = self.root(position);
        let mut entropy = [0; 32];
        entropy[..8].copy_from_slice(&(self.seed ^ 0x6c69_7465_6d65_7368).to_be_bytes());
        entropy[8] = position as u8;
        // The incarnation is taken from the first bytes: machines with one key must not draw the same.
        entropy[0] ^= position as u8;
        let database = |name: &str, path: PathBuf| DatabaseSettings {
            name: name.to_string(),
            path,
            include: vec!["*".to_string()],
            steering_runs: self.setting.steering_runs,
            ..DatabaseSettings::default()
        };
        let mut scouting = database("scouting", root.join("scouting.db"));
        scouting.rules = [("hits", Rule::Counter), ("best", Rule::Max)]
            .map(|(column, rule)| {
                let (table, column) = ("board".to_string(), Some(column.to_string()));
                StatedRule { table, column, rule, by_default: false }
            })
            .to_vec();
        NodeSettings {
            // Not there: a node binds its incarnation to the directory's inode, which no seed decides.
            data_dir: root.join("data"),
            key_seed: [key as u8 + 1; 32],
            name: format!("server-{key}"),
            databases: vec![scouting, database("users", root.join("users.db"))],
            entropy,
            machine_id: format!("machine-{position}"),
            pace: Default::default(),
            retention: Default::default(),
        }
    }
}

fn member(settings: &NodeSettings, position: usize, before: &[MemberRecord]) -> MemberRecord {
    if position == 0 {
        return found_cluster(&settings.key_seed, &settings.name, "simulated", WALL_BASE_MS);
    }
    let mut membership = Membership::new(before[0].clone()).expect("the founder's record is sound");
    for record in &before[1..] {
        membership.add(record.clone()).expect("every record was signed by the founder");
    }
    // The founder has key [1; 32].
    let joiner = (node_id(&settings.key_seed), settings.name.as_str());
    // Whoever is asked may let in the next one.
    admit_as(&[1; 32], &membership, joiner, Role::Admin, WALL_BASE_MS)
}
