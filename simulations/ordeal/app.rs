//! The application: a process of its own that writes through SQLite and says on a pipe what was committed.
//!
//! Invariant: `t` (what the transaction will do) is written before COMMIT, `c` after it returned; so the parent's record
//! never claims more than was acknowledged. The process ends when its stdin closes, so none outlives the ordeal. It knows
//! nothing of litemesh. Callers: `main` (the child's side), world and the commands (the parent's side).

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::dice::Dice;
use super::outcome::Trouble;
use super::record::{Record, Transaction};

/// The tables of every file; without a key on `marker`, so that a doubled row shows.
pub const SCHEMA: &str = "PRAGMA journal_mode = WAL;
    CREATE TABLE note (id INTEGER PRIMARY KEY, marker TEXT NOT NULL, n INTEGER NOT NULL, body BLOB);
    CREATE TABLE line (id INTEGER PRIMARY KEY, marker TEXT NOT NULL,
        note_id INTEGER NOT NULL REFERENCES note(id) ON DELETE CASCADE);
    CREATE INDEX note_by_marker ON note (marker);";

/// A record that several applications fill.
pub type Shared = Arc<Mutex<Record>>;

/// How an application works.
#[derive(Clone, Debug, clap::Args)]
pub struct Work {
    /// `NAME=PATH` of each file
    #[arg(long = "db", value_parser = database)]
    pub databases: Vec<(String, PathBuf)>,
    /// What its rows' markers begin with
    #[arg(long)]
    pub prefix: String,
    /// Its draws
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Pause between two transactions, µs
    #[arg(long, default_value_t = 2_000)]
    pub pause_us: u64,
    /// Transactions, then it ends by itself; 0: no end
    #[arg(long, default_value_t = 0)]
    pub count: u64,
    /// Bytes of each row's body
    #[arg(long, default_value_t = 40)]
    pub body: usize,
}

impl Default for Work {
    fn default() -> Work {
        Work { databases: Vec::new(), prefix: String::new(), seed: 1, pause_us: 2_000, count: 0, body: 40 }
    }
}

fn database(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("write it as NAME=PATH")?;
    Ok((name.to_owned(), PathBuf::from(path)))
}

/// A running application.
#[derive(Debug)]
pub struct App {
    child: Child,
    reader: Option<JoinHandle<()>>,
}

impl App {
    /// Starts one; what it says goes into `record`.
    pub fn start(work: &Work, record: &Shared) -> Result<App, Trouble> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("app");
        for (name, path) in &work.databases {
            command.arg("--db").arg(format!("{name}={}", path.display()));
        }
        for (option, value) in [
            ("--seed", work.seed),
            ("--pause-us", work.pause_us),
            ("--count", work.count),
            ("--body", work.body as u64),
        ] {
            command.arg(option).arg(value.to_string());
        }
        command.args(["--prefix", &work.prefix]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let lines = child.stdout.take().ok_or_else(|| Trouble::wrong("the app has no stdout"))?;
        let record = record.clone();
        let reader = std::thread::spawn(move || listen(BufReader::new(lines), &record));
        Ok(App { child, reader: Some(reader) })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a power switch would. When this returns, the record holds all it had said.
    pub fn kill(mut self) -> Result<(), Trouble> {
        self.child.kill()?;
        self.child.wait()?;
        self.hear_out();
        Ok(())
    }

    /// Lets it finish its transaction and end.
    pub fn stop(mut self) -> Result<(), Trouble> {
        self.end()
    }

    /// See [`App::stop`].
    pub fn end(&mut self) -> Result<(), Trouble> {
        drop(self.child.stdin.take());
        self.wait()
    }

    /// Waits until it has done its `--count`.
    pub fn wait(&mut self) -> Result<(), Trouble> {
        // Held open: its end is the order to stop, and waiting for a child closes what is still in it.
        let _stdin = self.child.stdin.take();
        let status = self.child.wait()?;
        self.hear_out();
        if status.success() { Ok(()) } else { Err(Trouble::wrong(format!("the app ended with {status}"))) }
    }

    fn hear_out(&mut self) {
        if let Some(reader) = self.reader.take() {
            // It ends with the pipe.
            let _ = reader.join();
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // Ended already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The record, whoever panicked with it.
pub fn locked(record: &Shared) -> std::sync::MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes an application's words into the record until the pipe closes.
fn listen(lines: impl BufRead, record: &Shared) {
    let mut open: Option<Transaction> = None;
    for line in lines.lines().map_while(Result::ok) {
        let mut words = line.split(' ');
        match (words.next(), open.take()) {
            (Some("t"), _) => {
                let database = words.next().unwrap_or_default().to_owned();
                open = Some(Transaction { database, steps: words.filter_map(step).collect() });
            }
            (Some(end @ ("c" | "f")), Some(transaction)) => {
                let took = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
                let mut record = locked(record);
                record.slowest_us = record.slowest_us.max(took);
                if end == "c" {
                    record.commit(transaction);
                } else {
                    *record.refused.entry(words.collect::<Vec<_>>().join(" ")).or_default() += 1;
                    record.doubt(transaction);
                }
            }
            _ => {}
        }
    }
    if let Some(transaction) = open {
        locked(record).doubt(transaction);
    }
}

/// `MARKER:NUMBER`, or `MARKER:` for a deletion. Half a line of a killed process has no colon, or a shorter number: its
/// transaction is in doubt and was not committed, so nothing may show it.
fn step(word: &str) -> Option<(String, Option<i64>)> {
    let (marker, number) = word.split_once(':')?;
    Some((marker.to_owned(), number.parse().ok()))
}

/// The child's side: writes until stdin closes or `--count` is done. Gives the process's exit code.
pub fn work(work: &Work) -> u8 {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    std::thread::spawn(move || {
        // Ends with the parent, however that ended.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        seen.store(true, Ordering::Release);
    });
    let mut writers = Vec::new();
    for (name, path) in &work.databases {
        match Writer::open(name, path, work) {
            Ok(writer) => writers.push(writer),
            Err(error) => {
                eprintln!("{}: {error}", path.display());
                return 1;
            }
        }
    }
    let mut dice = Dice::new(work.seed);
    let mut done = 0;
    while !stop.load(Ordering::Acquire) && (work.count == 0 || done < work.count) {
        let turn = dice.below(writers.len() as u64) as usize;
        if !writers[turn].once(&mut dice) {
            return 0;
        }
        done += 1;
        std::thread::sleep(Duration::from_micros(work.pause_us));
    }
    0
}

/// One file, and the rows of it that are this process's own.
struct Writer {
    name: String,
    file: Connection,
    prefix: String,
    body: usize,
    next: u64,
    own: Vec<(String, i64)>,
}

impl Writer {
    fn open(name: &str, path: &Path, work: &Work) -> rusqlite::Result<Writer> {
        let file = Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        file.busy_timeout(Duration::from_secs(10))?;
        file.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON")?;
        let (name, prefix) = (name.to_owned(), format!("{}{}", work.prefix, &name[..1]));
        Ok(Writer { name, file, prefix, body: work.body, next: 0, own: Vec::new() })
    }

    /// One transaction. `false`: nobody listens any more.
    fn once(&mut self, dice: &mut Dice) -> bool {
        let steps = self.draw(dice);
        let words: Vec<_> = steps
            .iter()
            .map(|(marker, n)| format!("{marker}:{}", n.map_or(String::new(), |n| n.to_string())))
            .collect();
        if !say(&format!("t {} {}", self.name, words.join(" "))) {
            return false;
        }
        let began = Instant::now();
        let result = self.write(&steps);
        let took = began.elapsed().as_micros();
        match result {
            Ok(()) => {
                self.own.extend(steps.into_iter().filter_map(|(marker, number)| Some((marker, number?))));
                self.own.truncate(200);
                say(&format!("c {took}"))
            }
            // What it touched is in doubt and is never touched again.
            Err(error) => say(&format!("f {took} {error}")),
        }
    }

    /// What to do; rows of its own that it touches are taken out until it is done.
    fn draw(&mut self, dice: &mut Dice) -> Vec<(String, Option<i64>)> {
        let kind = dice.below(100);
        let mut steps = Vec::new();
        if kind < 25 && !self.own.is_empty() {
            let (marker, number) = self.own.swap_remove(dice.below(self.own.len() as u64) as usize);
            steps.push((marker, Some(number + 1)));
        } else if kind < 35 && !self.own.is_empty() {
            let (marker, _) = self.own.swap_remove(dice.below(self.own.len() as u64) as usize);
            steps.push((marker, None));
        }
        if steps.is_empty() || dice.chance(20) {
            let many = if dice.chance(4) { 30 } else { 1 + dice.below(3) };
            for _ in 0..many {
                self.next += 1;
                steps.push((format!("{}{}", self.prefix, self.next), Some(0)));
            }
        }
        steps
    }

    fn write(&mut self, steps: &[(String, Option<i64>)]) -> rusqlite::Result<()> {
        let transaction = self.file.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for (marker, number) in steps {
            match number {
                Some(0) => {
                    let insert = "INSERT INTO note (marker, n, body) VALUES (?1, 0, randomblob(?2))";
                    transaction.prepare_cached(insert)?.execute((marker, self.body as i64))?;
                    let note = transaction.last_insert_rowid();
                    transaction
                        .prepare_cached("INSERT INTO line (marker, note_id) VALUES (?1, ?2)")?
                        .execute((marker, note))?;
                }
                Some(number) => {
                    transaction
                        .prepare_cached("UPDATE note SET n = ?2 WHERE marker = ?1")?
                        .execute((marker, number))?;
                }
                None => {
                    transaction.prepare_cached("DELETE FROM note WHERE marker = ?1")?.execute([marker])?;
                }
            }
        }
        transaction.commit()
    }
}

fn say(line: &str) -> bool {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
}
