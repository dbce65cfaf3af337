//! One server: a folder with the app's files, a data directory, and the node's process when it runs.
//!
//! Invariant: a process started here is ended here, by its own id, also when the test fails; its words on stderr are
//! kept and shown with the failure.
//! Callers: `cluster`, and tests that need a server outside any cluster.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{patience, until};

const BINARY: &str = env!("CARGO_BIN_EXE_litemesh");

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Answer {
    /// The answer of a command that had to succeed.
    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// The one JSON document on stdout.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error} in: {}\nstderr: {}", self.stdout, self.stderr))
    }

    /// The rows of a list: JSON lines, one array, or one object that holds the array.
    #[track_caller]
    pub(crate) fn json_rows(&self) -> Vec<Value> {
        match serde_json::from_str(&self.stdout) {
            Ok(Value::Array(rows)) => rows,
            Ok(Value::Object(mut one)) => match one.values_mut().find_map(Value::as_array_mut) {
                Some(rows) => std::mem::take(rows),
                None => vec![Value::Object(one)],
            },
            _ => self
                .stdout
                .lines()
                .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
                .collect(),
        }
    }
}

/// A running node: the process, and what its ready line said.
struct Running {
    child: Child,
    ready: Value,
}

pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    /// (name, path) of each database.
    pub(crate) databases: Vec<(String, PathBuf)>,
    /// Where it listens: port 0 first, then the ports it got, so that a restart is found again.
    pub(crate) listen: Vec<String>,
    /// More arguments for `run`.
    pub(crate) extra: Vec<String>,
    running: Option<Running>,
}

impl Server {
    /// A server with an empty folder of its own.
    pub(crate) fn new(root: &Path, name: &str) -> Self {
        let folder = root.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
        Self { name: name.to_owned(), folder, databases: Vec::new(), listen, extra: Vec::new(), running: None }
    }

    /// The path of a database by its name.
    pub(crate) fn database(&self, name: &str) -> &Path {
        let found = self.databases.iter().find(|(have, _)| have == name);
        &found.unwrap_or_else(|| panic!("{} has no database {name}", self.name)).1
    }

    /// Waits until new ids of these tables come from this server's own runs.
    #[track_caller]
    pub(crate) fn steered(&self, database: &str, tables: &[&str]) {
        until(&format!("ids of {} are steered", self.name), 60, || {
            let plain = tables.iter().find(|table| {
                let query = format!(
                    "SELECT count(*) FROM sqlite_master WHERE tbl_name = '{table}' AND name GLOB '_litemesh_*_steer'"
                );
                super::dump::number(self.database(database), &query) == 0
            });
            plain.map_or(Ok(()), |table| Err(format!("{database}.{table} is not yet")))
        });
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// `--db NAME=PATH` for each database.
    pub(crate) fn database_flags(&self) -> Vec<String> {
        let flag = |(name, path): &(String, PathBuf)| ["--db".to_owned(), format!("{name}={}", path.display())];
        self.databases.iter().flat_map(flag).collect()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(BINARY);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LITEMESH_")) {
            command.env_remove(name);
        }
        command.current_dir(&self.folder).arg("--data").arg(self.data());
        if self.folder.join("litemesh.toml").exists() {
            command.arg("--config").arg(self.folder.join("litemesh.toml"));
        }
        command.stdin(Stdio::null());
        command
    }

    /// Starts the node and waits for its ready line.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        self.start_with(&[]);
    }

    #[track_caller]
    pub(crate) fn start_with(&mut self, arguments: &[&str]) {
        if let Err(answer) = self.try_start(arguments) {
            panic!("{} did not become ready: {answer:?}", self.name);
        }
    }

    /// Starts the node; the answer of the process when it ended instead of becoming ready.
    pub(crate) fn try_start(&mut self, arguments: &[&str]) -> Result<(), Answer> {
        assert!(self.running.is_none(), "{} runs already", self.name);
        let mut command = self.command();
        command.arg("run").args(self.database_flags());
        command.args(["--no-mdns", "--http", "127.0.0.1:0", "--name", &self.name]);
        command.args(self.listen.iter().flat_map(|address| ["--listen", address]));
        command.args(&self.extra).args(arguments);
        let said = File::options().create(true).append(true).open(self.said_path()).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(said).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, receiver) = mpsc::channel();
        // Reads to the end, so that a node that goes on talking never blocks on a full pipe.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let deadline = Instant::now() + patience(30);
        let mut stdout = String::new();
        while let Ok(line) = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if let Some(ready) = line.strip_prefix("ready ") {
                let ready: Value = serde_json::from_str(ready).expect("the ready line carries JSON");
                self.listen = listened(&ready);
                self.running = Some(Running { child, ready });
                return Ok(());
            }
            stdout.push_str(&line);
            stdout.push('\n');
        }
        // It closed its stdout, or the time is up. A process that is ending says its code when it has ended, not before;
        // one that neither speaks nor ends is ended here and has no code.
        let mut within = for_about(deadline.saturating_duration_since(Instant::now()));
        let mut ended = child.try_wait().unwrap();
        while ended.is_none() && within() {
            std::thread::park_timeout(Duration::from_millis(10));
            ended = child.try_wait().unwrap();
        }
        if ended.is_none() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let code = ended.and_then(|status| status.code());
        Err(Answer { code, stdout, stderr: self.said() })
    }

    /// Starts the node and kills it after a while, ready or not.
    pub(crate) fn start_and_kill_after(&self, life: Duration) {
        let mut command = self.command();
        command.arg("run").args(self.database_flags()).args(["--no-mdns", "--http", "127.0.0.1:0"]);
        command.args(self.listen.iter().flat_map(|address| ["--listen", address]));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut goes_on = for_about(life);
        while goes_on() {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// What the ready line said.
    pub(crate) fn ready(&self) -> &Value {
        &self.running.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name)).ready
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name)).child.id()
    }

    pub(crate) fn node_id(&self) -> String {
        self.ready()["node_id"].as_str().expect("node_id is a string").to_owned()
    }

    /// The first address with `/p2p/…`, as a peer is told it.
    pub(crate) fn address(&self) -> String {
        self.ready()["listen"][0].as_str().expect("listen holds addresses").to_owned()
    }

    /// The base of its HTTP surface.
    pub(crate) fn http(&self) -> String {
        self.ready()["http"].as_str().expect("http is an address").to_owned()
    }

    /// Ends the node as a power switch would: nothing gets a chance to be tidied.
    pub(crate) fn kill(&mut self) {
        let mut running = self.running.take().unwrap_or_else(|| panic!("{} does not run", self.name));
        running.child.kill().unwrap();
        running.child.wait().unwrap();
    }

    /// Ends the node with SIGTERM; it has five seconds, and has to say that it ended well.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.signal("-TERM");
        let mut running = self.running.take().unwrap();
        let status = until(&format!("{} stops", self.name), 5, || {
            running.child.try_wait().unwrap().ok_or_else(|| "it still runs".to_owned())
        });
        assert_eq!(status.code(), Some(0), "{} stopped badly: {status}\n{}", self.name, self.said());
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Moves the node to other ports, so that nobody who remembers its address finds it. It must not run.
    pub(crate) fn forget_ports(&mut self) {
        assert!(self.running.is_none(), "{} still listens", self.name);
        for address in &mut self.listen {
            *address = if address.contains("/quic-v1") {
                "/ip4/127.0.0.1/udp/0/quic-v1".to_owned()
            } else {
                "/ip4/127.0.0.1/tcp/0".to_owned()
            };
        }
    }

    /// Runs a command of the CLI to its end, within a minute.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Answer {
        self.cli_with(arguments, "")
    }

    /// The same with a line on stdin.
    pub(crate) fn cli_with(&self, arguments: &[&str], stdin: &str) -> Answer {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Who does not read it may have ended already.
        let _ = child.stdin.take().map(|mut pipe| std::io::Write::write_all(&mut pipe, stdin.as_bytes()));
        let pid = child.id().to_string();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        let Ok(output) = receiver.recv_timeout(patience(60)) else {
            let _ = Command::new("kill").args(["-9", &pid]).status();
            panic!("`litemesh {}` on {} did not end within a minute\n{}", arguments.join(" "), self.name, self.said());
        };
        let output = output.unwrap();
        Answer {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// A command with bytes on its stdin.
    pub(crate) fn cli_with_input(&self, arguments: &[&str], input: &[u8]) -> Answer {
        let path = self.folder.join("stdin");
        std::fs::write(&path, input).unwrap();
        let mut command = self.command();
        let output = command.args(arguments).stdin(File::open(&path).unwrap()).output().unwrap();
        Answer {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// What a command that has to succeed writes to its stdout, to the byte.
    #[track_caller]
    pub(crate) fn cli_bytes(&self, arguments: &[&str]) -> Vec<u8> {
        let output = self.command().args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// A command that has to succeed, and its JSON document.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        self.cli(&[&["--json"], arguments].concat()).done().json()
    }

    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.json(&["status"])
    }

    /// One database's part of `status`.
    #[track_caller]
    pub(crate) fn database_status(&self, name: &str) -> Value {
        let status = self.status();
        let databases = status["databases"].as_array().expect("status lists databases");
        let found = databases.iter().find(|database| database["name"] == name);
        found.unwrap_or_else(|| panic!("{} reports no database {name}: {status}", self.name)).clone()
    }

    /// A one-time code for a newcomer.
    #[track_caller]
    pub(crate) fn invite(&self) -> String {
        let answer = self.cli(&["invite"]).done();
        let code = answer.stdout.trim().to_owned();
        assert!(!code.is_empty() && code.lines().count() == 1, "a join code is one line: {answer:?}");
        code
    }

    /// Everything the node said on stderr since its folder was made.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.said_path()).unwrap_or_default()
    }

    fn said_path(&self) -> PathBuf {
        self.folder.join("stderr.txt")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.kill();
        }
        if std::thread::panicking() {
            let said = self.said();
            let last: Vec<&str> = said.lines().rev().take(30).collect();
            eprintln!("--- {} said last:\n{}", self.name, last.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}

/// The addresses of a ready line, without the identity, as `--listen` takes them.
fn listened(ready: &Value) -> Vec<String> {
    let addresses = ready["listen"].as_array().expect("listen is a list");
    let plain = |address: &Value| address.as_str().unwrap().split("/p2p/").next().unwrap().to_owned();
    addresses.iter().map(plain).collect()
}

/// Waits for a process that the test started itself, for instance a writer.
#[track_caller]
pub(crate) fn finish(what: &str, mut child: Child, seconds: u64) {
    let status = until(what, seconds, || child.try_wait().unwrap().ok_or_else(|| "it still runs".to_owned()));
    assert!(status.success(), "{what} ended with {status}");
}

/// A deadline for loops that do work until then.
pub(crate) fn for_about(duration: Duration) -> impl FnMut() -> bool {
    let end = Instant::now() + duration;
    move || Instant::now() < end
}
