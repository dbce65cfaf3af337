//! Joining: how soon a new server is of use, by events and by a snapshot, side by side.
//!
//! Real nodes with real logs and files, each in a thread of its own, real time; frames go through channels, so the link is as
//! fast as memory, and what is measured is the two nodes. The giver's app wrote all rows before, in transactions of 5,000; the
//! rows have 10 columns: an id, five whole numbers and four random texts of 40 letters (raw: 178 bytes; random text does not
//! compress below about 105 of its 160). In the last line the apps of both servers write all the time, ten rows a transaction,
//! the newcomer's from the moment its first row could come (before, its rows would make it one with rows of its own).
//! *usable*: the app's file shows all rows that the giver had. *joined*: what the app writes here travels. *complete*: all
//! events are here. Bytes: all frames to the newcomer. Does not count: the transport, a network's delay.
//! Callers: `simulate --scenario joining [--count ROWS]`, `cargo bench -- joining`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use litemesh::log::Log;
use litemesh::node::membership::{admit, found_cluster, node_id};
use litemesh::node::{DatabaseSettings, Effect, Input, Node, NodeSettings, Now};
use rusqlite::Connection;

const SCHEMA: &str = "CREATE TABLE scouting_data (id INTEGER PRIMARY KEY, team INT, match INT, auto INT, teleop INT, \
                      endgame INT, scout TEXT, robot TEXT, notes TEXT, photo TEXT)";

/// Bytes of a row's values as plain data.
pub(crate) const RAW: u64 = 8 + 5 * 2 + 4 * 40;

const WALL_MS: u64 = 1_748_736_000_000;

/// After so long something is wrong.
const PATIENCE: Duration = Duration::from_secs(600);

/// Both ways, by rows.
pub fn run(count: Option<u64>) -> Result<String, String> {
    let mut table = String::from(
        "| rows | way | usable s | rows/s | joined s | complete s | bytes to usable | of raw | bytes in all | busy |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    let rows = count.map_or(vec![100_000, 1_000_000], |count| vec![count]);
    for rows in rows {
        let scratch = crate::world::scratch::Scratch::new();
        let stock = stock(scratch.path(), rows).map_err(|error| error.to_string())?;
        for way in [Way::Events, Way::Snapshot, Way::SnapshotWriting] {
            let joined = measure(&stock, scratch.path(), rows, way).map_err(|error| error.to_string())?;
            let line = joined.line(rows, way);
            eprint!("{line}");
            table += &line;
        }
    }
    Ok(table)
}

/// How the rows come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Events,
    Snapshot,
    SnapshotWriting,
}

impl Way {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Way::Events => "events",
            Way::Snapshot => "snapshot",
            Way::SnapshotWriting => "snapshot, both apps write",
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A directory with a giver's log and file.
pub(crate) fn stock(folder: &Path, rows: u64) -> Result<PathBuf, Failure> {
    let stock = folder.join("stock");
    std::fs::create_dir_all(&stock)?;
    let app = Connection::open(stock.join("scouting.db"))?;
    app.execute_batch(SCHEMA)?;
    let now = |step: u64| Now { mono_ms: 1_000 + step * 300, wall_ms: WALL_MS + step * 300 };
    {
        let log = Log::open(&stock.join("events.redb"))?;
        Node::enter(&log, vec![found_cluster(&[1; 32], "giver", "measured", WALL_MS)])?;
    }
    let mut node = open(&stock, 1, now(0))?;
    let mut state = 7u64;
    let mut written = 0;
    let mut step = 0;
    while written < rows {
        let count = 5_000.min(rows - written);
        insert(&app, count, &mut state)?;
        written += count;
        step += 1;
        node.handle(Input::Tick, now(step))?;
        while node.poll_effect().is_some() {}
    }
    node.close()?;
    Ok(stock)
}

fn insert(app: &Connection, count: u64, state: &mut u64) -> Result<(), rusqlite::Error> {
    let mut draw = || {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    };
    app.execute_batch("BEGIN IMMEDIATE")?;
    {
        let mut statement = app.prepare_cached("INSERT INTO scouting_data VALUES (NULL,?,?,?,?,?,?,?,?,?)")?;
        for _ in 0..count {
            let numbers: Vec<i64> = (0..5).map(|_| (draw() % 200) as i64).collect();
            let mut text = || -> String {
                (0..40).map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[draw() as usize % 36])).collect()
            };
            let texts = [text(), text(), text(), text()];
            statement.execute((
                numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], &texts[0], &texts[1], &texts[2], &texts[3],
            ))?;
        }
    }
    app.execute_batch("COMMIT")
}

fn open(folder: &Path, seed: u8, now: Now) -> Result<Node, Failure> {
    let settings = NodeSettings {
        data_dir: folder.to_path_buf(),
        key_seed: [seed; 32],
        name: format!("server {seed}"),
        databases: vec![DatabaseSettings {
            name: "scouting".into(),
            path: folder.join("scouting.db"),
            ..DatabaseSettings::default()
        }],
        entropy: [seed; 32],
        machine_id: "measured".into(),
        pace: Default::default(),
        retention: Default::default(),
    };
    Ok(Node::open(settings, Arc::new(Log::open(&folder.join("events.redb"))?), now)?)
}

/// What one server's thread shares.
struct Server {
    node: Node,
    inbox: Receiver<Vec<u8>>,
    outbox: Sender<Vec<u8>>,
    bytes: Arc<AtomicU64>,
    started: Instant,
    peer: litemesh::model::NodeId,
}

impl Server {
    fn now(&self) -> Now {
        let ms = self.started.elapsed().as_millis() as u64;
        Now { mono_ms: 1_000_000_000 + ms, wall_ms: WALL_MS + 1_000_000_000 + ms }
    }

    fn input(&mut self, input: Input) -> Result<(), Failure> {
        self.node.handle(input, self.now())?;
        while let Some(effect) = self.node.poll_effect() {
            match effect {
                Effect::Send { frame, .. } => {
                    self.bytes.fetch_add(frame.len() as u64 + 4, Ordering::Relaxed);
                    // The other one may have stopped.
                    let _gone = self.outbox.send(frame);
                }
                Effect::PeerFault { reason, .. } => return Err(reason.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Waits for a frame or a deadline, and handles it.
    fn turn(&mut self) -> Result<(), Failure> {
        let now = self.now();
        let wait = self.node.next_deadline(now).map_or(100, |at| at.saturating_sub(now.mono_ms)).min(100);
        match self.inbox.recv_timeout(Duration::from_millis(wait)) {
            Ok(frame) => self.input(Input::Received { peer: self.peer, frame })?,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        let now = self.now();
        if self.node.next_deadline(now).is_some_and(|at| at <= now.mono_ms) {
            self.input(Input::Tick)?;
        }
        Ok(())
    }
}

/// One newcomer's way, with copies of the stock in `folder`.
pub(crate) fn measure(stock: &Path, folder: &Path, rows: u64, way: Way) -> Result<Joined, Failure> {
    let (giver_dir, joiner_dir) = (folder.join("giver"), folder.join("joiner"));
    for folder in [&giver_dir, &joiner_dir] {
        let _old = std::fs::remove_dir_all(folder);
        std::fs::create_dir_all(folder)?;
    }
    for name in ["scouting.db", "events.redb"] {
        std::fs::copy(stock.join(name), giver_dir.join(name))?;
    }
    Connection::open(joiner_dir.join("scouting.db"))?.execute_batch(SCHEMA)?;
    let started = Instant::now();
    let now = Now { mono_ms: 1_000_000_000, wall_ms: WALL_MS + 1_000_000_000 };
    let giver = open(&giver_dir, 1, now)?;
    let mut records: Vec<_> = giver.membership().records().into_iter().cloned().collect();
    records.push(admit(&[1; 32], giver.membership(), node_id(&[2; 32]), "joiner", now.wall_ms));
    {
        let log = Log::open(&joiner_dir.join("events.redb"))?;
        Node::enter(&log, records.clone())?;
    }
    let joiner = open(&joiner_dir, 2, now)?;
    let ((to_joiner, joiner_in), (to_giver, giver_in)) = (channel(), channel());
    let bytes = Arc::new(AtomicU64::new(0));
    let server = |node: Node, inbox, outbox, bytes: &Arc<AtomicU64>, peer: u8| {
        let (bytes, peer) = (bytes.clone(), node_id(&[peer; 32]));
        Server { node, inbox, outbox, bytes, started, peer }
    };
    let mut giver = server(giver, giver_in, to_joiner, &bytes, 2);
    let mut joiner = server(joiner, joiner_in, to_giver, &Arc::default(), 1);
    if way == Way::Events {
        joiner.node.snapshots_from(u64::MAX, 0);
    }
    giver.input(Input::MembersLearnt(records))?;
    let stop = Arc::new(AtomicBool::new(false));
    let writes = way == Way::SnapshotWriting;
    let apps: Vec<_> = [&giver_dir, &joiner_dir]
        .into_iter()
        .filter(|_| writes)
        .map(|folder| app(folder.join("scouting.db"), stop.clone()))
        .collect();
    let stopped = stop.clone();
    let giving = std::thread::spawn(move || -> Result<Server, Failure> {
        giver.input(Input::PeerConnected { peer: giver.peer, address: String::new() })?;
        while !stopped.load(Ordering::Relaxed) {
            giver.turn()?;
        }
        Ok(giver)
    });
    let result = join(joiner, &joiner_dir, rows, &bytes);
    stop.store(true, Ordering::Relaxed);
    let _giver = giving.join().map_err(|_| "the giver's thread ended")??;
    let mut busy = String::from("-");
    for app in apps {
        let (written, refused) = app.join().map_err(|_| "an app's thread ended")??;
        busy = if busy == "-" { format!("{refused} of {written}") } else { format!("{busy}, {refused} of {written}") };
    }
    Ok(Joined { times: result?, busy })
}

/// How one newcomer's joining went.
pub(crate) struct Joined {
    pub(crate) times: Times,
    /// Transactions of the apps that found the file busy, in words.
    pub(crate) busy: String,
}

impl Joined {
    fn line(&self, rows: u64, way: Way) -> String {
        let Times { usable, joined, complete, bytes_usable, bytes_all } = &self.times;
        format!(
            "| {rows} | {} | {:.2} | {:.0} | {:.2} | {:.2} | {bytes_usable} | {:.2} | {bytes_all} | {} |\n",
            way.words(),
            usable.as_secs_f64(),
            rows as f64 / usable.as_secs_f64(),
            joined.as_secs_f64(),
            complete.as_secs_f64(),
            *bytes_usable as f64 / (rows * RAW) as f64,
            self.busy,
        )
    }
}

/// When, since the two met, and after how many bytes.
pub(crate) struct Times {
    pub(crate) usable: Duration,
    pub(crate) joined: Duration,
    pub(crate) complete: Duration,
    pub(crate) bytes_usable: u64,
    pub(crate) bytes_all: u64,
}

/// Runs the newcomer until it holds all.
fn join(mut joiner: Server, folder: &Path, rows: u64, bytes: &AtomicU64) -> Result<Times, Failure> {
    let file = Connection::open(folder.join("scouting.db"))?;
    let begun = Instant::now();
    joiner.input(Input::PeerConnected { peer: joiner.peer, address: String::new() })?;
    let (mut usable, mut joined, mut looked) = (None, None, Instant::now());
    loop {
        joiner.turn()?;
        if begun.elapsed() > PATIENCE {
            return Err(format!("not joined: {:?}", joiner.node.status(joiner.now())?).into());
        }
        if usable.is_none() && looked.elapsed() > Duration::from_millis(50) {
            looked = Instant::now();
            let shown: u64 = file.query_row("SELECT max(rowid) FROM scouting_data", [], |row| {
                Ok(row.get::<_, Option<i64>>(0)?.unwrap_or(0) as u64)
            })?;
            let all = shown >= rows && {
                let count: i64 = file.query_row("SELECT count(*) FROM scouting_data", [], |row| row.get(0))?;
                count as u64 >= rows
            };
            if all {
                usable = Some((begun.elapsed(), bytes.load(Ordering::Relaxed)));
            }
        }
        let Some((at, bytes_usable)) = usable else { continue };
        let status = joiner.node.status(joiner.now())?;
        if joined.is_none() && status.joining.as_ref().is_none_or(|joining| joining.joined_ms.is_some()) {
            joined = Some(begun.elapsed());
        }
        let came = status.joining.as_ref().is_none_or(|joining| joining.complete_ms.is_some());
        if let Some(joined) = joined.filter(|_| came && joiner.node.has_caught_up()) {
            let (complete, bytes_all) = (begun.elapsed(), bytes.load(Ordering::Relaxed));
            joiner.node.close()?;
            return Ok(Times { usable: at, joined, complete, bytes_usable, bytes_all });
        }
    }
}

/// An app that writes ten rows every 20 ms: (transactions, those that found the file busy for 100 ms).
fn app(path: PathBuf, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<Result<(u64, u64), rusqlite::Error>> {
    std::thread::spawn(move || {
        let app = Connection::open(path)?;
        app.busy_timeout(Duration::from_millis(100))?;
        let (mut state, mut written, mut refused) = (11, 0, 0);
        let enrolled = "SELECT count(*) FROM sqlite_master WHERE name = '_litemesh_meta'";
        while !stop.load(Ordering::Relaxed) && app.query_row(enrolled, [], |row| row.get::<_, i64>(0))? == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        while !stop.load(Ordering::Relaxed) {
            match insert(&app, 10, &mut state) {
                Ok(()) => {}
                Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
                    refused += 1;
                    let _open = app.execute_batch("ROLLBACK");
                }
                Err(error) => return Err(error),
            }
            written += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok((written, refused))
    })
}
