//! One server: a folder with two files of an application, a data directory, and the real node's process when it runs.
//!
//! Invariant: a process started here is ended here, by its own id; a node that does not become ready, answers nothing or
//! dies is told with its last words. Ports are drawn at the first start and kept, so that peers find a restarted node.
//! Callers: world, the commands.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::Value;

use super::app::SCHEMA;
use super::host::signal;
use super::outcome::Trouble;

/// How long a node may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// How long a node may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// The names of every server's databases.
pub const DATABASES: [&str; 2] = ["one", "two"];

/// What a command of the product left behind.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Exit code; `None`: a signal ended it.
    pub code: Option<i32>,
    /// Its stdout.
    pub out: String,
    /// Its stderr.
    pub err: String,
}

impl Answer {
    /// The same answer when the command did what it was asked.
    pub fn done(self, what: &str) -> Result<Answer, Trouble> {
        if self.code == Some(0) { Ok(self) } else { Err(Trouble::wrong(format!("{what} failed: {}", self.words()))) }
    }

    /// Code and words on one line.
    pub fn words(&self) -> String {
        let code = self.code.map_or("a signal".to_owned(), |code| format!("exit {code}"));
        format!(
            "{code}: {}",
            self.err.lines().rev().take(6).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join(" | ")
        )
    }

    /// Whether a panic shows in its words.
    pub fn panicked(&self) -> bool {
        self.err.contains("panicked at") || self.code == Some(101) || self.code == Some(134)
    }
}

/// How a start ended.
#[derive(Debug)]
pub enum Start {
    /// The node is ready.
    Ready,
    /// It ended instead.
    Ended(Answer),
}

struct Running {
    child: Child,
    listen: Vec<String>,
}

/// See the module.
pub struct Server {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Folder of the application's files.
    pub files: PathBuf,
    /// The data directory.
    pub data: PathBuf,
    /// A program and arguments put before the node's own command line (strace, faketime).
    pub wrap: Vec<OsString>,
    /// A program and arguments put before the node's and every command's line, that becomes what it starts (`nsenter`).
    pub place: Vec<OsString>,
    /// Whether the node looks for others by multicast.
    pub mdns: bool,
    /// Where it listens.
    pub listen: Vec<String>,
    /// An address to dial at the next start.
    pub peer: Option<String>,
    /// The program.
    pub litemesh: PathBuf,
    running: Option<Running>,
}

impl Server {
    /// A server in a folder of its own, with the application's two files, not enrolled in anything.
    pub fn new(litemesh: &Path, root: &Path, name: &str) -> Result<Server, Trouble> {
        let folder = root.join(name);
        let files = folder.join("files");
        std::fs::create_dir_all(&files)?;
        for database in DATABASES {
            let path = files.join(format!("{database}.db"));
            if !path.exists() {
                Connection::open(&path)?.execute_batch(SCHEMA)?;
            }
        }
        Ok(Server {
            name: name.to_owned(),
            data: folder.join("data"),
            folder,
            files,
            wrap: Vec::new(),
            place: Vec::new(),
            mdns: false,
            listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
            peer: None,
            litemesh: litemesh.to_path_buf(),
            running: None,
        })
    }

    /// (name, path) of each database.
    pub fn databases(&self) -> Vec<(String, PathBuf)> {
        DATABASES.iter().map(|name| ((*name).to_owned(), self.files.join(format!("{name}.db")))).collect()
    }

    fn command(&self, wrap: &[OsString]) -> Command {
        let mut words: Vec<OsString> = [&self.place[..], wrap].concat();
        words.push(self.litemesh.clone().into());
        let mut command = Command::new(&words[0]);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LITEMESH_")) {
            command.env_remove(name);
        }
        command.args(&words[1..]).current_dir(&self.folder).arg("--data").arg(&self.data).stdin(Stdio::null());
        let config = self.folder.join("litemesh.toml");
        if config.exists() {
            command.arg("--config").arg(config);
        }
        command
    }

    /// Starts the node's process without waiting for it.
    pub fn spawn(&mut self) -> Result<(), Trouble> {
        let mut command = self.command(&self.wrap);
        command.arg("run").args(["--http", "127.0.0.1:0", "--name", &self.name]);
        command.args((!self.mdns).then_some("--no-mdns"));
        for (name, path) in self.databases() {
            command.arg("--db").arg(format!("{name}={}", path.display()));
        }
        command.args(self.listen.iter().flat_map(|address| ["--listen", address]));
        command.args(self.peer.iter().flat_map(|address| ["--peer", address]));
        let said = File::options().create(true).append(true).open(self.said_path())?;
        let out = File::create(self.folder.join("stdout.txt"))?;
        let child = command.stdout(out).stderr(said).spawn()?;
        self.running = Some(Running { child, listen: Vec::new() });
        Ok(())
    }

    /// Starts the node and waits until it is ready or has ended.
    pub fn try_start(&mut self) -> Result<Start, Trouble> {
        self.spawn()?;
        self.ready()
    }

    /// Waits until the node that was spawned is ready or has ended.
    pub fn ready(&mut self) -> Result<Start, Trouble> {
        let until = Instant::now() + READY_WITHIN;
        loop {
            let ended = self.running()?.child.try_wait()?;
            let text = std::fs::read_to_string(self.folder.join("stdout.txt"))?;
            let ready = text.lines().find_map(|line| line.strip_prefix("ready "));
            if let Some(ready) = ready.and_then(|ready| serde_json::from_str::<Value>(ready).ok()) {
                let addresses = ready["listen"].as_array().cloned().unwrap_or_default();
                let texts: Vec<String> = addresses.iter().filter_map(|it| Some(it.as_str()?.to_owned())).collect();
                self.listen = texts.iter().filter_map(|it| Some(it.split("/p2p/").next()?.to_owned())).collect();
                self.running()?.listen = texts;
                return Ok(Start::Ready);
            }
            if let Some(status) = ended {
                self.running = None;
                return Ok(Start::Ended(Answer { code: status.code(), out: text, err: self.said() }));
            }
            if Instant::now() > until {
                self.kill()?;
                return Err(Trouble::wrong(format!("{} was not ready within 30 s: {}", self.name, self.last_words())));
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Starts the node; anything but ready is an error.
    pub fn start(&mut self) -> Result<(), Trouble> {
        match self.try_start()? {
            Start::Ready => Ok(()),
            Start::Ended(answer) => Err(Trouble::wrong(format!("{} does not start: {}", self.name, answer.words()))),
        }
    }

    fn running(&mut self) -> Result<&mut Running, Trouble> {
        let name = self.name.clone();
        self.running.as_mut().ok_or_else(|| Trouble::wrong(format!("{name} does not run")))
    }

    /// Whether a node was started and not ended by us.
    pub fn is_started(&self) -> bool {
        self.running.is_some()
    }

    /// The code of a node that ended by itself; `None` while it runs.
    pub fn ended(&mut self) -> Result<Option<Answer>, Trouble> {
        let status = self.running()?.child.try_wait()?;
        let Some(status) = status else { return Ok(None) };
        self.running = None;
        Ok(Some(Answer { code: status.code(), out: String::new(), err: self.said() }))
    }

    /// The process that was started.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.child.id())
    }

    /// The first address, as a peer dials it.
    pub fn address(&self) -> Option<String> {
        self.running.as_ref().and_then(|running| running.listen.first().cloned())
    }

    /// Ends the node as a power switch would.
    pub fn kill(&mut self) -> Result<(), Trouble> {
        let inner = if self.running.is_some() && !self.wrap.is_empty() { Some(self.node_pid()?) } else { None };
        if let Some(mut running) = self.running.take() {
            if let Some(pid) = inner {
                // What stands around the node would leave it alone when killed itself. Gone already is fine.
                let _ = signal(pid, "-KILL");
                // It ends by itself when it has seen the node's end; then nothing holds the node's lock any more.
                for _ in 0..400 {
                    if running.child.try_wait()?.is_some() {
                        return Ok(());
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            running.child.kill()?;
            running.child.wait()?;
        }
        Ok(())
    }

    /// Stops the node by SIGTERM; its answer.
    pub fn stop(&mut self) -> Result<Answer, Trouble> {
        let pid = self.node_pid()?;
        if self.running()?.child.try_wait()?.is_none() {
            signal(pid, "-TERM")?;
        }
        let until = Instant::now() + STOP_WITHIN;
        loop {
            if let Some(answer) = self.ended()? {
                return Ok(answer);
            }
            if Instant::now() > until {
                self.kill()?;
                return Err(Trouble::wrong(format!("{} did not stop within 10 s: {}", self.name, self.last_words())));
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Stops the node, which must say that it ended well.
    pub fn stop_well(&mut self) -> Result<(), Trouble> {
        let name = self.name.clone();
        self.stop()?.done(&format!("the stop of {name}")).map(drop)
    }

    /// The node's own pid: of the process itself, or of the first child of what stands around it.
    pub fn node_pid(&mut self) -> Result<u32, Trouble> {
        let wrapped = !self.wrap.is_empty();
        let pid = self.running()?.child.id();
        if !wrapped {
            return Ok(pid);
        }
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        Ok(children.split_whitespace().next().and_then(|child| child.parse().ok()).unwrap_or(pid))
    }

    /// `litemesh join`, with another program around it or none.
    pub fn join_with(&self, code: &str, wrap: &[OsString]) -> Result<Answer, Trouble> {
        let flags = self.databases().into_iter().map(|(name, path)| format!("--db={name}={}", path.display()));
        let flags: Vec<String> = flags.collect();
        let mut arguments = vec!["join", code, "--yes", "--name", &self.name];
        arguments.extend(flags.iter().map(String::as_str));
        self.cli_with(wrap, &arguments)
    }

    /// Runs a command of the product to its end, at most a minute.
    pub fn cli(&self, arguments: &[&str]) -> Result<Answer, Trouble> {
        self.cli_with(&[], arguments)
    }

    fn cli_with(&self, wrap: &[OsString], arguments: &[&str]) -> Result<Answer, Trouble> {
        let mut command = self.command(wrap);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn()?;
        let pid = child.id();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        let Ok(output) = receiver.recv_timeout(Duration::from_secs(60)) else {
            signal(pid, "-KILL")?;
            return Err(Trouble::wrong(format!(
                "{}: `litemesh {}` did not end in a minute",
                self.name,
                arguments.join(" ")
            )));
        };
        let output = output?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Answer { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
    }

    /// The document of `litemesh status`.
    pub fn status(&self) -> Result<Value, Trouble> {
        let answer = self.cli(&["--json", "status"])?.done(&format!("{}: status", self.name))?;
        serde_json::from_str(&answer.out).map_err(|error| Trouble::wrong(format!("{}: status: {error}", self.name)))
    }

    /// Every hash and signature of the log, and the tables it rebuilds.
    pub fn verify(&self) -> Result<(), Trouble> {
        self.cli(&["log", "verify"])?.done(&format!("{}: log verify", self.name))?;
        let out = self.folder.join("rebuilt");
        if out.exists() {
            std::fs::remove_dir_all(&out)?;
        }
        let answer = self.cli(&["rebuild", "--out", &out.display().to_string()])?;
        answer.done(&format!("{}: rebuild", self.name)).map(drop)
    }

    /// All that its node said on stderr.
    pub fn said(&self) -> String {
        std::fs::read(self.said_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The end of it.
    pub fn last_words(&self) -> String {
        let said = self.said();
        let last: Vec<&str> = said.lines().rev().take(4).collect();
        last.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    /// Forgets what was said so far.
    pub fn hush(&self) -> Result<(), Trouble> {
        Ok(std::fs::write(self.said_path(), "")?)
    }

    fn said_path(&self) -> PathBuf {
        self.folder.join("stderr.txt")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nobody is there to be told.
        let _ = self.kill();
    }
}
