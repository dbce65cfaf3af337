//! Several servers of one cluster on one machine, and what "the same everywhere" means.
//!
//! Invariant: servers find each other by addresses they are told, never by multicast, so tests do not meet.
//! Callers: most test files.

use tempfile::TempDir;

use super::dump::{Dump, difference, dump};
use super::server::Server;
use super::{make, shipped, until};

/// Tables that stay on their node, by `tests/fixtures/scouting.toml`.
pub(crate) const LOCAL: &[&str] = &["sync_servers", "database_changes"];

pub(crate) struct Cluster {
    pub(crate) servers: Vec<Server>,
    pub(crate) root: TempDir,
}

impl Cluster {
    /// Servers that run, connected, each with its own copy of the scouting and users files.
    #[track_caller]
    pub(crate) fn scouting(count: usize) -> Self {
        Self::of(count, &[("scouting", "scouting.sql"), ("users", "users.sql")], Some("scouting.toml"))
    }

    /// Two servers that met again after both had written the location of team 1: `by s0` and `by s1`.
    #[track_caller]
    pub(crate) fn with_one_cell_written_twice() -> Self {
        let mut cluster = Self::scouting(2);
        cluster.part();
        for server in &cluster.servers {
            let change = format!("UPDATE team SET location = 'by {}' WHERE id = 1", server.name);
            super::app(server.database("scouting"), &change);
        }
        cluster.heal();
        cluster.settled(30);
        cluster
    }

    /// Servers that run, connected, each with a copy of the fixtures (database name, script).
    #[track_caller]
    pub(crate) fn of(count: usize, fixtures: &[(&str, &str)], config: Option<&str>) -> Self {
        let mut cluster = Self::unjoined(count, fixtures, config);
        cluster.enrol();
        cluster
    }

    /// Servers with their files, not yet started, not yet one cluster.
    pub(crate) fn unjoined(count: usize, fixtures: &[(&str, &str)], config: Option<&str>) -> Self {
        let root = TempDir::new().unwrap();
        let servers = (0..count).map(|number| server_with(&root, &format!("s{number}"), fixtures, config)).collect();
        // LITEMESH_TEST_KEEP=1 leaves the servers' folders for a look afterwards.
        let mut root = root;
        root.disable_cleanup(std::env::var_os("LITEMESH_TEST_KEEP").is_some());
        Self { servers, root }
    }

    /// Starts the first server, lets the others join it, and starts them.
    #[track_caller]
    pub(crate) fn enrol(&mut self) {
        self.servers[0].start();
        for number in 1..self.servers.len() {
            self.join(number);
            let address = self.servers[0].address();
            self.servers[number].start_with(&["--peer", &address]);
        }
        self.connected();
        self.adopted();
    }

    /// Waits until no running server's file waits for the cluster any more: cut off before, its rows would count as its own.
    #[track_caller]
    pub(crate) fn adopted(&self) {
        until("the files are adopted", 20, || {
            let waits = |server: &&Server| server.status()["databases"].to_string().contains("waits for the cluster");
            self.running().find(waits).map_or(Ok(()), |server| Err(format!("{} waits", server.name)))
        });
    }

    /// Lets one server join the first one's cluster.
    #[track_caller]
    pub(crate) fn join(&self, number: usize) {
        self.join_with(number, &[]);
    }

    #[track_caller]
    pub(crate) fn join_with(&self, number: usize, more: &[&str]) {
        let code = self.servers[0].invite();
        let server = &self.servers[number];
        let flags = server.database_flags();
        let mut arguments = vec!["join", &code, "--name", &server.name, "--yes"];
        arguments.extend(flags.iter().map(String::as_str));
        arguments.extend(more);
        server.cli(&arguments).done();
    }

    /// Waits until every running server is connected to the first, and the first to all.
    #[track_caller]
    pub(crate) fn connected(&self) {
        let running = self.running().count();
        until("the servers are connected", 20, || {
            let peers = connected_peers(&self.servers[0]);
            if peers + 1 >= running { Ok(()) } else { Err(format!("{peers} of {} peers", running - 1)) }
        });
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|server| server.is_running())
    }

    /// Restarts all servers where nobody who remembers an address finds them: a cut network.
    #[track_caller]
    pub(crate) fn part(&mut self) {
        for server in &mut self.servers {
            if server.is_running() {
                server.stop();
            }
            server.forget_ports();
        }
        for server in &mut self.servers {
            server.start();
        }
    }

    /// Tells every server where the first one is now.
    #[track_caller]
    pub(crate) fn heal(&self) {
        let address = self.servers[0].address();
        for server in self.running().skip(1) {
            server.cli(&["peers", "add", &address]).done();
        }
        self.connected();
    }

    /// Waits until all running servers hold the same, and returns that.
    #[track_caller]
    pub(crate) fn settled(&self, seconds: u64) -> Vec<Dump> {
        let servers: Vec<&Server> = self.running().collect();
        settled(&servers, seconds)
    }
}

/// A server with files made from fixtures, in its own folder.
pub(crate) fn server_with(root: &TempDir, name: &str, fixtures: &[(&str, &str)], config: Option<&str>) -> Server {
    let mut server = Server::new(root.path(), name);
    for (database, fixture) in fixtures {
        let path = server.folder.join(format!("{database}.db"));
        make(&path, fixture);
        super::app(&path, "PRAGMA journal_mode = WAL");
        server.databases.push(((*database).to_owned(), path));
    }
    if let Some(config) = config {
        std::fs::copy(shipped("fixtures").join(config), server.folder.join("litemesh.toml")).unwrap();
    }
    server
}

/// How many of its peers a server is connected to.
pub(crate) fn connected_peers(server: &Server) -> usize {
    let status = server.status();
    let peers = status["peers"].as_array().expect("status lists peers");
    peers.iter().filter(|peer| peer["state"] == "connected").count()
}

/// Every database of the server, dumped.
pub(crate) fn dumps(server: &Server) -> Vec<Dump> {
    server.databases.iter().map(|(_, path)| dump(path, LOCAL)).collect()
}

/// Waits until the servers' files are equal to the last bit and their digests say so; then the digests must agree with
/// the files, or the digest is worth nothing.
#[track_caller]
pub(crate) fn settled(servers: &[&Server], seconds: u64) -> Vec<Dump> {
    until("the servers hold the same", seconds, || {
        let reports = servers.iter().map(|server| calm(server)).collect::<Result<Vec<_>, _>>()?;
        let dumps: Vec<Vec<Dump>> = servers.iter().map(|server| dumps(server)).collect();
        for (server, other) in servers.iter().zip(&dumps).skip(1) {
            for (left, right) in dumps[0].iter().zip(other) {
                if let Some(difference) = difference(left, right) {
                    return Err(format!("{} (left) and {} (right): {difference}", servers[0].name, server.name));
                }
            }
        }
        if reports.iter().any(|report| *report != reports[0]) {
            return Err(format!("the files are equal, the digests are not: {reports:?}"));
        }
        Ok(dumps.into_iter().next().expect("at least one server"))
    })
}

/// The digests of a server that has nothing left to do.
fn calm(server: &Server) -> Result<Vec<String>, String> {
    let status = server.status();
    let mut digests = Vec::new();
    for database in status["databases"].as_array().expect("status lists databases") {
        if database["outbox"] != 0 || database["held_events"] != 0 {
            return Err(format!("{} has work left: {database}", server.name));
        }
        digests.push(format!("{}:{}", database["name"], database["digest"]));
    }
    Ok(digests)
}
