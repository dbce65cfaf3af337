//! Real nodes for the demo: child processes of this very program, on loopback, each beside its own copy of the sample
//! databases.
//!
//! Invariant: every child is stopped when the cluster is dropped; nothing outside its directory is touched. Called by
//! [`super::demo`].

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::{Value, json};

use super::client::Client;
use super::error::{CommandError, Kind};
use crate::daemon::{self, DataDir};
use crate::node::view::Status;

/// How long a node may take to start or to stop.
const START_WITHIN: Duration = Duration::from_secs(20);

/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One server: an app's files and a node beside them.
pub(super) struct Server {
    pub(super) name: &'static str,
    directory: PathBuf,
    port: u16,
    running: Option<(Child, Client)>,
}

fn failed(what: &str, error: &dyn std::error::Error) -> CommandError {
    CommandError::new(Kind::Internal, format!("the demo cannot {what}")).because(error)
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16, CommandError> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| failed("find a free port", &error))?;
    Ok(listener.local_addr().map_err(|error| failed("find a free port", &error))?.port())
}

impl Server {
    /// A server with its copy of the sample databases; its node does not run yet.
    pub(super) fn new(name: &'static str, parent: &Path) -> Result<Server, CommandError> {
        let directory = parent.join(name);
        daemon::create_sample(&directory)?;
        Ok(Server { name, directory, port: free_port()?, running: None })
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn command(&self) -> Result<Command, CommandError> {
        let program = std::env::current_exe().map_err(|error| failed("find its own program", &error))?;
        let mut command = Command::new(program);
        command.current_dir(&self.directory).stdin(Stdio::null()).stderr(Stdio::null());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LITEMESH_")) {
            command.env_remove(name);
        }
        command.args(["--quiet", "--data"]).arg(self.data());
        Ok(command)
    }

    fn databases(&self) -> [String; 4] {
        let pair = |name: &str| format!("{name}={}", self.path(name).display());
        ["--db".into(), pair("scouting"), "--db".into(), pair("users")]
    }

    fn path(&self, database: &str) -> PathBuf {
        self.directory.join(format!("{database}.db"))
    }

    /// The address that others dial.
    pub(super) fn address(&self) -> String {
        format!("/ip4/127.0.0.1/tcp/{}", self.port)
    }

    /// Enrols this server with a join code.
    pub(super) fn join(&self, code: &str) -> Result<(), CommandError> {
        let mut command = self.command()?;
        let output =
            command.args(["join", code, "--yes", "--name", self.name]).args(self.databases()).stderr(Stdio::piped());
        let output = output.output().map_err(|error| failed("start a process", &error))?;
        if output.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(CommandError::new(Kind::Internal, format!("{} could not join: {words}", self.name)))
    }

    /// Starts the node. `reachable`: on its own address, with these peers; else on another address, with nobody to call.
    pub(super) fn start(&mut self, peers: Option<&[String]>) -> Result<(), CommandError> {
        let listen = match peers {
            Some(_) => self.address(),
            None => format!("/ip4/127.0.0.1/tcp/{}", free_port()?),
        };
        let mut command = self.command()?;
        command.args(["run", "--no-mdns", "--http", "127.0.0.1:0", "--name", self.name, "--listen", &listen]);
        for peer in peers.unwrap_or_default() {
            command.args(["--peer", peer]);
        }
        command.args(self.databases()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| failed("start a process", &error))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            // A node that cannot start ends, and its pipe with it.
            BufReader::new(stdout).read_line(&mut line).map_err(|error| failed("read from a node", &error))?;
        }
        let ready: Value = serde_json::from_str(line.trim_start_matches("ready ")).unwrap_or_default();
        let Some(http) = ready["http"].as_str() else {
            stop(child);
            let message = format!("the node {} did not start", self.name);
            return Err(CommandError::new(Kind::Internal, message).hint("run the demo again with -v"));
        };
        let (token, _) = DataDir::at(&self.data()).token_or_new(None)?;
        self.running = Some((child, Client::to(http.to_string(), token)));
        Ok(())
    }

    /// Stops the node, as a service manager would.
    pub(super) fn stop(&mut self) {
        if let Some((child, _)) = self.running.take() {
            stop(child);
        }
    }

    fn client(&self) -> Result<&Client, CommandError> {
        let missing = || CommandError::new(Kind::Internal, format!("the node {} does not run", self.name));
        self.running.as_ref().map(|(_, client)| client).ok_or_else(missing)
    }

    /// Asks the node.
    pub(super) fn get<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, CommandError> {
        self.client()?.get(path, query)
    }

    /// A join code.
    pub(super) fn invite(&self) -> Result<String, CommandError> {
        let made: Value = self.client()?.post("/api/v1/invites", &json!({}), None)?;
        Ok(made["code"].as_str().unwrap_or_default().to_string())
    }

    /// Writes as an ordinary app does: its own connection, its own settings, no knowledge of litemesh.
    pub(super) fn write(&self, database: &str, sql: &str) -> Result<(), CommandError> {
        let wrong = |error: rusqlite::Error| failed("write as an app would", &error);
        let app = Connection::open(self.path(database)).map_err(wrong)?;
        app.busy_timeout(Duration::from_secs(5)).map_err(wrong)?;
        app.execute_batch("PRAGMA foreign_keys = ON").map_err(wrong)?;
        app.execute_batch(sql).map_err(wrong)
    }

    /// Reads one number as an app does.
    pub(super) fn read(&self, database: &str, sql: &str) -> Result<i64, CommandError> {
        let wrong = |error: rusqlite::Error| failed("read as an app would", &error);
        let app = Connection::open(self.path(database)).map_err(wrong)?;
        app.busy_timeout(Duration::from_secs(5)).map_err(wrong)?;
        app.query_row(sql, [], |row| row.get(0)).map_err(wrong)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// SIGTERM first, by the system's own `kill`; what does not listen is ended.
fn stop(mut child: Child) {
    let asked = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    let until = Instant::now() + if asked.is_ok_and(|status| status.success()) { START_WITHIN } else { Duration::ZERO };
    while Instant::now() < until {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    // It may have ended just now: both calls then have nothing to do.
    let _ = child.kill();
    let _ = child.wait();
}

/// Looks at all nodes until `good` likes what it sees; `None` when the time is over.
pub(super) fn wait_until(
    servers: &[Server],
    within: Duration,
    good: impl Fn(&[Status]) -> bool,
) -> Result<Option<Vec<Status>>, CommandError> {
    let until = Instant::now() + within;
    loop {
        let seen: Vec<Status> =
            servers.iter().map(|server| server.get("/api/v1/status", &[])).collect::<Result<_, _>>()?;
        if good(&seen) {
            return Ok(Some(seen));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Everybody is connected, nothing waits, and every database has the same content everywhere.
pub(super) fn all_equal(seen: &[Status]) -> bool {
    let connected =
        |status: &Status| status.peers.len() == seen.len() - 1 && status.peers.iter().all(|p| p.state == "connected");
    let idle =
        |status: &Status| status.databases.iter().all(|d| d.outbox == 0 && d.held_events == 0 && d.state == "ok");
    let level = |status: &Status| status.peers.iter().all(|peer| peer.behind == 0 && peer.ahead == 0);
    seen.iter().all(|status| connected(status) && idle(status) && level(status)) && digests_equal(seen)
}

/// Every database has the same content everywhere.
pub(super) fn digests_equal(seen: &[Status]) -> bool {
    let digests =
        |status: &Status| status.databases.iter().map(|d| (d.name.clone(), d.digest.clone())).collect::<Vec<_>>();
    seen.windows(2).all(|pair| digests(&pair[0]) == digests(&pair[1]))
}
