//! One server of the scenario: a disk, an app with two files and its own record of them, and a node.
//!
//! Invariant: the app's record follows from what its own statements returned and what its own files say, never from the
//! node. After a power cut the app reads its files before the node starts, and finds every commit that returned (with
//! `synchronous=NORMAL`: every one that had reached the log). Caller: `crash`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use litemesh::log::Log;
use litemesh::model::NodeId;
use litemesh::node::store_fault::StoreFault;
use litemesh::node::{Node, NodeError, NodeSettings, Now};
use rusqlite::{Connection, params};

use super::record::{Change, Record};
use crate::disk::{self, Disk};
use crate::world::dice::Dice;

/// The app's files.
pub const FILES: [&str; 2] = ["scouting", "users"];

/// Tables with markers, by file.
pub const TABLES: [&[&str]; 2] = [&["team", "entry"], &["user"]];

/// Their schemas.
const SCHEMAS: [&str; 2] = [
    "CREATE TABLE team (id INTEGER PRIMARY KEY, marker TEXT, value INTEGER, seen INTEGER);
     CREATE TABLE entry (id INTEGER PRIMARY KEY, team_id INTEGER REFERENCES team (id), marker TEXT, value INTEGER,
       seen INTEGER);
     CREATE TABLE progress (name TEXT PRIMARY KEY, number INTEGER NOT NULL);",
    "CREATE TABLE user (id INTEGER PRIMARY KEY AUTOINCREMENT, marker TEXT UNIQUE, value INTEGER, seen INTEGER);
     CREATE TABLE progress (name TEXT PRIMARY KEY, number INTEGER NOT NULL);",
];

/// How an app opens its files.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// `PRAGMA synchronous`.
    pub synchronous: &'static str,
    /// Pages in the WAL at which the app makes a checkpoint.
    pub checkpoint: u32,
    /// The app puts its files back into rollback mode whenever it can.
    pub rollback: bool,
}

/// A server.
pub struct Server {
    pub disk: Disk,
    pub node: Option<Node>,
    pub process: u32,
    pub settings: NodeSettings,
    pub id: NodeId,
    pub habits: Habits,
    files: Vec<Connection>,
    pub records: [Record; 2],
    /// Why the node was dropped, until it is open again.
    pub fault: Option<StoreFault>,
    name: String,
    root: PathBuf,
}

impl Server {
    /// A server on a disk that may hold something already.
    pub fn new(disk: Disk, root: &Path, settings: NodeSettings, habits: Habits) -> Server {
        let id = litemesh::node::membership::node_id(&settings.key_seed);
        let (name, root) = (settings.name.clone(), root.to_owned());
        let (files, records) = (Vec::new(), Default::default());
        Server {
            disk,
            node: None,
            process: disk::APP + 1,
            settings,
            id,
            habits,
            files,
            records,
            fault: None,
            name,
            root,
        }
    }

    /// Makes the app's tables.
    pub fn make_files(&mut self) {
        for (name, schema) in FILES.iter().zip(SCHEMAS) {
            let file = Connection::open(self.root.join(format!("{name}.db"))).expect("an empty disk takes a file");
            file.execute_batch(schema).expect("the schema is valid");
        }
    }

    /// Opens the app's files, where the disk lets it; what was open is closed.
    pub fn start_app(&mut self) -> Result<(), String> {
        self.files.clear();
        for name in FILES {
            let path = self.root.join(format!("{name}.db"));
            self.files.push(self.open_file(&path).map_err(|error| format!("the app cannot open {name}: {error}"))?);
        }
        Ok(())
    }

    fn open_file(&self, path: &Path) -> rusqlite::Result<Connection> {
        let file = Connection::open(path)?;
        file.execute_batch(&format!("PRAGMA foreign_keys = OFF; PRAGMA synchronous = {}", self.habits.synchronous))?;
        file.query_row(&format!("PRAGMA wal_autocheckpoint = {}", self.habits.checkpoint), [], |_| Ok(()))?;
        if self.habits.rollback {
            // Refused while the node has the file open.
            let _refused = file.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()));
        }
        Ok(file)
    }

    /// The app is gone with its machine.
    pub fn stop_app(&mut self) {
        self.files.clear();
    }

    /// The app's connection to a file.
    pub fn file(&self, position: usize) -> &Connection {
        &self.files[position]
    }

    /// The app commits one transaction.
    pub fn act(&mut self, position: usize, dice: &mut Dice) {
        let number = self.records[position].next();
        let rows = self.records[position].rows();
        let own: Vec<&String> = rows.keys().collect();
        let mut changes = Vec::new();
        let mut statements: Vec<(String, String, i64)> = Vec::new();
        for index in 0..1 + dice.below(3) {
            let table = TABLES[position][dice.below(TABLES[position].len() as u64) as usize];
            let value = dice.below(1_000) as i64;
            let marker = dice.pick(&own).map(|marker| (*marker).clone());
            match (dice.below(10), marker) {
                (0..=1, Some(marker)) if !changed(&changes, &marker) => {
                    let table = table_of(&marker);
                    statements.push((
                        format!("UPDATE {table} SET value = ?2 WHERE marker = ?1"),
                        marker.clone(),
                        value,
                    ));
                    changes.push(Change::Put(marker, value));
                }
                (2, Some(marker)) if !changed(&changes, &marker) && !is_shared(&marker) => {
                    let table = table_of(&marker);
                    statements.push((format!("DELETE FROM {table} WHERE marker = ?1 AND ?2"), marker.clone(), 1));
                    changes.push(Change::Gone(marker));
                }
                _ => {
                    let marker = format!("{table}-{}-{number}-{index}", self.name);
                    let insert = format!("INSERT INTO {table} (marker, value) VALUES (?1, ?2)");
                    statements.push((insert, marker.clone(), value));
                    changes.push(Change::Put(marker, value));
                }
            }
        }
        let done = self.commit(position, number, &statements);
        self.records[position].note(number, done.is_ok(), changes);
    }

    fn commit(&self, position: usize, number: u64, statements: &[(String, String, i64)]) -> rusqlite::Result<()> {
        let file = &self.files[position];
        let transaction = file.unchecked_transaction()?;
        for (sql, marker, value) in statements {
            file.prepare_cached(sql)?.execute(params![marker, value])?;
        }
        let sql = "INSERT INTO progress VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET number = excluded.number";
        file.prepare_cached(sql)?.execute(params![self.name, number as i64])?;
        transaction.commit()
    }

    /// The app adds one row with this value.
    pub fn put(&mut self, position: usize, value: i64) -> String {
        let (table, number) = (TABLES[position][0], self.records[position].next());
        let marker = format!("{table}-{}-{number}-0", self.name);
        let insert = format!("INSERT INTO {table} (marker, value) VALUES (?1, ?2)");
        let done = self.commit(position, number, &[(insert, marker.clone(), value)]);
        self.records[position].note(number, done.is_ok(), vec![Change::Put(marker.clone(), value)]);
        marker
    }

    /// The app writes into the newest shared row of another server: what of it stands in no record is the column alone.
    pub fn touch(&self, position: usize, dice: &mut Dice) {
        let table = TABLES[position][dice.below(TABLES[position].len() as u64) as usize];
        let sql = format!(
            "UPDATE {table} SET seen = ?1 WHERE id = (SELECT max(id) FROM {table} WHERE marker LIKE '%-2' AND marker NOT \
             LIKE ?2)"
        );
        // Refused by a full disk: then nothing was written.
        let _refused =
            self.files[position].execute(&sql, params![dice.below(1_000) as i64, format!("%-{}-%", self.name)]);
    }

    /// The last transaction of this app that a file holds.
    pub fn holds(&self, position: usize) -> rusqlite::Result<u64> {
        let sql = "SELECT coalesce(max(number), 0) FROM progress WHERE name = ?1";
        let number: i64 = self.files[position].prepare_cached(sql)?.query_row([&self.name], |row| row.get(0))?;
        Ok(number.unsigned_abs())
    }

    /// The app rebuilds a table as a careless migration does: it drops it and makes it anew, with nothing in it.
    pub fn remake_users(&self, check: &str) -> rusqlite::Result<()> {
        let made = SCHEMAS[1].split(';').next().unwrap_or_default();
        let made = made.replace("value INTEGER", &format!("value INTEGER {check}"));
        self.files[1].execute_batch(&format!("BEGIN IMMEDIATE; DROP TABLE user; {made}; COMMIT"))
    }

    /// The name in its markers.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads what the files hold of the app's own commits: every one that returned, unless the app does not insist.
    pub fn survey(&mut self, after_cut: bool) -> Result<(), String> {
        for (position, name) in FILES.iter().enumerate() {
            let number = self.holds(position).map_err(|error| format!("{name}: {error}"))?;
            let record = &mut self.records[position];
            let may_lose = after_cut && self.habits.synchronous == "NORMAL";
            if number < record.acknowledged() && !may_lose {
                return Err(format!("{name} holds commit {number}, and {} had returned", record.acknowledged()));
            }
            record.holds(number, after_cut).map_err(|what| format!("{name}: {what}"))?;
        }
        Ok(())
    }

    /// Whether the node took a file for one that went back: the fence promises that no crash does that, only a failing disk.
    pub fn took_for_older(&self, now: Now) -> Option<String> {
        let status = self.node.as_ref()?.status(now).ok()?;
        status.alerts.into_iter().find(|alert| alert.contains("is older than the log"))
    }

    /// Marks that wait.
    pub fn marks(&self) -> i64 {
        let count = |file: &Connection| {
            let sql = "SELECT count(*) FROM _litemesh_outbox";
            file.prepare_cached(sql).and_then(|mut sql| sql.query_row([], |row| row.get::<_, i64>(0))).unwrap_or(0)
        };
        self.files.iter().map(count).sum()
    }

    /// Opens log and node, as a new process.
    pub fn open_node(&mut self, now: Now) -> Result<(), NodeError> {
        self.process += 1;
        let (disk, settings) = (&self.disk, self.settings.clone());
        let node = disk.as_process(self.process, || {
            let file = disk.backend("log.redb").map_err(litemesh::log::LogError::Storage)?;
            Node::open(settings, Arc::new(Log::with_backend(file)?), now)
        })?;
        self.node = Some(node);
        Ok(())
    }
}

fn changed(changes: &[Change], marker: &str) -> bool {
    changes.iter().any(|change| matches!(change, Change::Put(other, _) | Change::Gone(other) if other == marker))
}

/// A row that other servers' apps write into, so nobody deletes it: the third of its transaction.
fn is_shared(marker: &str) -> bool {
    marker.ends_with("-2")
}

/// A marker begins with its table.
fn table_of(marker: &str) -> &str {
    marker.split('-').next().unwrap_or(marker)
}
