//! Servers of one cluster, and the checks at the end.
//!
//! Invariant: servers find each other by addresses they are told, never by multicast. "Settled" means: connected, nothing
//! waits in an outbox or for a cause, and the digests are equal; only then the files are compared with the record.
//! Callers: the commands.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::app::{App, Shared, Work, locked};
use super::outcome::Trouble;
use super::server::Server;

/// How long the servers may take to hold the same.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// See the module.
pub struct World {
    /// The servers; the first founded the cluster.
    pub servers: Vec<Server>,
    /// What the applications were told.
    pub record: Shared,
    apps_started: u64,
}

impl World {
    /// So many servers with empty tables that know nothing of each other; none runs.
    pub fn apart(litemesh: &Path, root: &Path, count: usize) -> Result<World, Trouble> {
        let mut world = World { servers: Vec::new(), record: Shared::default(), apps_started: 0 };
        for number in 0..count {
            world.servers.push(Server::new(litemesh, root, &format!("s{number}"))?);
        }
        Ok(world)
    }

    /// So many servers of one cluster, running and connected, with empty tables.
    pub fn new(litemesh: &Path, root: &Path, count: usize) -> Result<World, Trouble> {
        let mut world = World::apart(litemesh, root, count)?;
        world.servers[0].start()?;
        for number in 1..count {
            world.join(number)?;
        }
        world.settled(SETTLED_WITHIN)?;
        Ok(world)
    }

    /// Lets one server join the first one's cluster, and starts it.
    pub fn join(&mut self, number: usize) -> Result<(), Trouble> {
        let code = self.servers[0].cli(&["invite"])?.done("invite")?.out.trim().to_owned();
        self.servers[number].join_with(&code, &[])?.done("join")?;
        self.servers[number].peer = self.servers[0].address();
        self.servers[number].start()
    }

    /// An application beside a server.
    pub fn app(&mut self, server: usize, work: &Work) -> Result<App, Trouble> {
        self.apps_started += 1;
        let work = Work {
            databases: self.servers[server].databases(),
            prefix: format!("{}{}.", self.servers[server].name, self.apps_started),
            seed: work.seed.wrapping_add(self.apps_started),
            ..work.clone()
        };
        App::start(&work, &self.record)
    }

    /// Waits until all servers that run hold the same.
    pub fn settled(&self, within: Duration) -> Result<(), Trouble> {
        let until = Instant::now() + within;
        loop {
            match self.unsettled() {
                Ok(None) => return Ok(()),
                Ok(Some(why)) if Instant::now() > until => {
                    return Err(Trouble::wrong(format!("not settled within {} s: {why}", within.as_secs())));
                }
                Err(trouble) if Instant::now() > until => return Err(trouble),
                _ => std::thread::sleep(Duration::from_millis(30)),
            }
        }
    }

    /// Why the servers do not hold the same yet.
    pub fn unsettled(&self) -> Result<Option<String>, Trouble> {
        let mut digests: Option<Vec<Value>> = None;
        let running = self.servers.iter().filter(|server| server.is_started()).count();
        for server in self.servers.iter().filter(|server| server.is_started()) {
            let status = server.status()?;
            let empty = Vec::new();
            let databases = status["databases"].as_array().unwrap_or(&empty);
            for database in databases {
                let waits = database["state"].as_str().is_some_and(|state| state.contains("waits for the cluster"));
                if database["outbox"] != 0 || database["held_events"] != 0 || waits {
                    return Ok(Some(format!("{} has work left: {database}", server.name)));
                }
            }
            let peers = status["peers"].as_array().unwrap_or(&empty);
            if running > 1 && !peers.iter().any(|peer| peer["state"] == "connected") {
                return Ok(Some(format!("{} has no connection", server.name)));
            }
            // A row that was inserted and deleted leaves the digest as it was: the number of events tells.
            let state = |database: &Value| serde_json::json!([database["digest"], database["events"]]);
            let mine: Vec<Value> = databases.iter().map(state).collect();
            match &digests {
                Some(first) if *first != mine => {
                    return Ok(Some(format!("digests and events differ: {first:?} and {mine:?}")));
                }
                _ => digests = Some(mine),
            }
        }
        Ok(None)
    }

    /// Settled, and every file as the applications were told.
    pub fn check(&self) -> Result<(), Trouble> {
        self.settled(SETTLED_WITHIN)?;
        for server in &self.servers {
            self.check_files(server)?;
        }
        Ok(())
    }

    /// One server's files against the record.
    pub fn check_files(&self, server: &Server) -> Result<(), Trouble> {
        for (name, path) in server.databases() {
            locked(&self.record).check(&server.name, &name, &path)?;
        }
        Ok(())
    }

    /// The check at the end: settled, equal to the record, every chain right, and rebuilt from the logs alone.
    pub fn check_all(&self) -> Result<(), Trouble> {
        self.check()?;
        for server in &self.servers {
            server.verify()?;
            if server.said().contains("panicked at") {
                return Err(Trouble::wrong(format!("{} panicked: {}", server.name, server.last_words())));
            }
        }
        Ok(())
    }

    /// Keeps every server's directories as they are.
    pub fn save(&self, to: &Path) -> Result<(), Trouble> {
        for server in &self.servers {
            for (folder, part) in [(&server.files, "files"), (&server.data, "data")] {
                if folder.exists() {
                    copy_folder(folder, &to.join(&server.name).join(part))?;
                }
            }
        }
        Ok(())
    }

    /// Ends all nodes and puts the directories' content back, into the same directories: a data directory in another place
    /// is another incarnation.
    pub fn put_back(&mut self, kept: &Path) -> Result<(), Trouble> {
        for server in &mut self.servers {
            server.kill()?;
            for (folder, part) in [(&server.files, "files"), (&server.data, "data")] {
                let from = kept.join(&server.name).join(part);
                if from.exists() {
                    std::fs::create_dir_all(folder)?;
                    empty(folder)?;
                    copy_folder(&from, folder)?;
                } else if folder.exists() {
                    std::fs::remove_dir_all(folder)?;
                }
            }
        }
        Ok(())
    }
}

fn empty(folder: &Path) -> Result<(), Trouble> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
    }
    Ok(())
}

/// Copies a folder's content, holes and rights as they are.
pub fn copy_folder(from: &Path, to: &Path) -> Result<(), Trouble> {
    std::fs::create_dir_all(to)?;
    let from = from.join(".");
    let mut command = Command::new("cp");
    let status = command.args(["-a", "--sparse=always"]).arg(from).arg(to).stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(Trouble::wrong("cp failed")) }
}
