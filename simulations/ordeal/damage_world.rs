//! Two nodes in this process, with real files, and everything that can happen to the second one's.
//!
//! Invariant: time and frames are carried by hand; a node that fails is opened again, as the daemon does. Caller: `damage`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use litemesh::log::Log;
use litemesh::model::Tier;
use litemesh::node::drift_view::RunView;
use litemesh::node::membership::{Membership, admit, found_cluster, node_id};
use litemesh::node::verify_schedule::VerifySettings;
use litemesh::node::{DatabaseSettings, Effect, Input, Node, NodeError, NodeSettings, Now};
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::dice::Dice;
use super::outcome::Trouble;

pub const PEER: usize = 0;
pub const HIT: usize = 1;

const CLOCK_MS: u64 = 1_795_000_000_000;

const SCHEMA: &str = "PRAGMA journal_mode = WAL;
    CREATE TABLE team (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, points INTEGER DEFAULT 0, notes TEXT);
    CREATE TABLE game (id INTEGER PRIMARY KEY, team INTEGER, score INTEGER CHECK (score >= 0), comment TEXT);
    CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
    CREATE INDEX by_team ON game (team);";

const TABLES: [(&str, &str); 3] = [("team", "id"), ("game", "id"), ("setting", "name")];

/// Ticks without anything to do until the two are at rest: longer than a file goes unlooked-at.
const CALM_TICKS: u32 = 14;

const TICK_MS: u64 = 25;

pub struct World {
    sites: [Site; 2],
    nodes: [Option<Node>; 2],
    now: Now,
    opened: u64,
}

struct Site {
    root: PathBuf,
    settings: NodeSettings,
}

impl Site {
    fn new(root: &Path, position: usize) -> Result<Site, Trouble> {
        let root = root.join(format!("s{position}"));
        std::fs::create_dir_all(root.join("data"))?;
        let database = DatabaseSettings {
            name: "app".to_string(),
            path: root.join("app.db"),
            include: vec!["*".to_string()],
            steering_runs: 16,
            ..DatabaseSettings::default()
        };
        let settings = NodeSettings {
            data_dir: root.join("data"),
            key_seed: [position as u8 + 1; 32],
            name: format!("s{position}"),
            databases: vec![database],
            entropy: [position as u8 + 1; 32],
            machine_id: "ordeal".to_string(),
            pace: Default::default(),
            retention: Default::default(),
        };
        Ok(Site { root, settings })
    }

    fn file(&self) -> &Path {
        &self.settings.databases[0].path
    }

    fn log(&self) -> Result<Arc<Log>, Trouble> {
        Ok(Arc::new(Log::open(&self.settings.data_dir.join("events.redb")).map_err(said)?))
    }
}

fn said(error: impl std::fmt::Display) -> Trouble {
    Trouble::wrong(error.to_string())
}

impl World {
    /// Two servers that hold the same rows.
    pub fn new(root: &Path, seed: u64) -> Result<World, Trouble> {
        let sites = [Site::new(root, PEER)?, Site::new(root, HIT)?];
        let founder = &sites[PEER].settings;
        let first = found_cluster(&founder.key_seed, &founder.name, "ordeal", CLOCK_MS);
        let membership = Membership::new(first.clone()).map_err(said)?;
        let other = node_id(&sites[HIT].settings.key_seed);
        let records = vec![first, admit(&founder.key_seed, &membership, other, "s1", CLOCK_MS)];
        for site in &sites {
            Connection::open(site.file())?.execute_batch(SCHEMA)?;
            Node::enter(site.log()?.as_ref(), records.clone()).map_err(said)?;
        }
        let now = Now { mono_ms: 1_000, wall_ms: CLOCK_MS };
        let mut world = World { sites, nodes: [None, None], now, opened: seed };
        world.open(PEER)?;
        world.open(HIT)?;
        world.work();
        let mut dice = Dice::new(seed);
        let app = world.app(PEER)?;
        for id in 1..=150 {
            let notes = "n".repeat(dice.below(120) as usize);
            app.execute(
                "INSERT INTO team (name, points, notes) VALUES (?1, ?2, ?3)",
                (format!("team {id}"), id, notes),
            )?;
        }
        for id in 1..=300_i64 {
            let comment = format!("comment {} of game {id}", dice.below(1_000_000));
            app.execute(
                "INSERT INTO game (team, score, comment) VALUES (?1, ?2, ?3)",
                (1 + id % 150, id % 97, comment),
            )?;
        }
        for id in 1..=60 {
            app.execute("INSERT INTO setting VALUES (?1, ?2)", (format!("setting.{id}"), format!("value {id}")))?;
        }
        drop(app);
        world.work();
        match world.is_sound()? {
            true => Ok(world),
            false => Err(Trouble::wrong("the pair was never sound")),
        }
    }

    fn open(&mut self, at: usize) -> Result<(), Trouble> {
        self.opened += 1;
        let mut entropy = [at as u8; 32];
        entropy[..8].copy_from_slice(&self.opened.to_be_bytes());
        let settings = NodeSettings { entropy, ..self.sites[at].settings.clone() };
        let mut node = Node::open(settings, self.sites[at].log()?, self.now).map_err(said)?;
        node.set_verification(VerifySettings { share_by_hand: 100, ..VerifySettings::default() });
        self.nodes[at] = Some(node);
        self.connect();
        Ok(())
    }

    fn close(&mut self, at: usize) {
        if let Some(node) = self.nodes[at].take() {
            let id = node.id();
            // What a damaged file does not let it tidy is what this is about.
            let _ = node.close();
            if let Some(other) = &mut self.nodes[1 - at] {
                let _ = other.handle(Input::PeerDisconnected { peer: id }, self.now);
            }
        }
    }

    fn connect(&mut self) {
        let [Some(first), Some(second)] = &mut self.nodes else { return };
        let ids = [first.id(), second.id()];
        for (node, peer) in [(first, ids[1]), (second, ids[0])] {
            let _ = node.handle(Input::PeerConnected { peer, address: String::new() }, self.now);
        }
    }

    /// Lets time pass and frames travel until nothing is left to do.
    pub fn work(&mut self) {
        let mut calm = 0;
        for _ in 0..1_200 {
            self.tick();
            let rests = self.nodes.iter().flatten().all(|node| node.in_sync(&[]));
            calm = if rests { calm + 1 } else { 0 };
            if calm >= CALM_TICKS || self.trouble().is_some() && calm == 0 && self.waited() {
                return;
            }
        }
    }

    /// A file in trouble never comes to rest: a while is enough.
    fn waited(&self) -> bool {
        self.now.mono_ms.is_multiple_of(5_000)
    }

    fn tick(&mut self) {
        self.now = Now { mono_ms: self.now.mono_ms + TICK_MS, wall_ms: self.now.wall_ms + TICK_MS };
        for at in [PEER, HIT] {
            let mut sent = Vec::new();
            if let Some(node) = &mut self.nodes[at] {
                // The daemon says it and goes on, too.
                let _ = node.handle(Input::Tick, self.now);
                let id = node.id();
                while let Some(effect) = node.poll_effect() {
                    if let Effect::Send { frame, .. } = effect {
                        sent.push((id, frame));
                    }
                }
            }
            if let Some(other) = &mut self.nodes[1 - at] {
                for (peer, frame) in sent {
                    let _ = other.handle(Input::Received { peer, frame }, self.now);
                }
            }
        }
    }

    /// What the second server's own status says is wrong with its file.
    pub fn trouble(&self) -> Option<String> {
        let status = self.nodes[HIT].as_ref()?.status(self.now).ok()?;
        let state = status.databases.first()?.state.clone();
        (!state.starts_with("ok")).then_some(state)
    }

    /// Asks a node.
    pub fn ask<T>(&self, at: usize, question: impl FnOnce(&Node) -> Result<T, NodeError>) -> Result<T, Trouble> {
        let node = self.nodes[at].as_ref().ok_or_else(|| Trouble::wrong("the node is not open"))?;
        question(node).map_err(said)
    }

    /// Runs a tier on the second server to its end.
    pub fn verify(&mut self, tier: Tier, repair: bool) -> Result<RunView, Trouble> {
        let now = self.now;
        let node = self.nodes[HIT].as_mut().ok_or_else(|| Trouble::wrong("the node is not open"))?;
        let number = node.order_verification(None, tier, repair, now).map_err(said)?[0];
        for _ in 0..40_000 {
            self.tick();
            let runs = self.ask(HIT, |node| node.verify_views(3))?;
            if let Some(run) = runs.into_iter().find(|run| run.number == number)
                && (run.state == "done" || run.state == "failed")
            {
                return Ok(run);
            }
        }
        Err(Trouble::wrong(format!("a run at {} does not end: {:?}", tier.word(), self.trouble())))
    }

    fn app(&self, at: usize) -> Result<Connection, Trouble> {
        let app = Connection::open(self.sites[at].file())?;
        app.busy_timeout(std::time::Duration::from_secs(5))?;
        app.pragma_update(None, "synchronous", "NORMAL")?;
        Ok(app)
    }

    /// Rows as a reader sees them.
    pub fn rows(&self, at: usize) -> Result<Vec<String>, Trouble> {
        let app = self.app(at)?;
        let mut rows = Vec::new();
        for (table, key) in TABLES {
            let mut statement = app.prepare(&format!("SELECT * FROM {table} NOT INDEXED ORDER BY {key}"))?;
            let width = statement.column_count();
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                let cells: Vec<String> =
                    (0..width).map(|at| row.get_ref(at).map(|value| format!("{value:?}"))).collect::<Result<_, _>>()?;
                rows.push(format!("{table} {}", cells.join(" ")));
            }
        }
        Ok(rows)
    }

    /// Both show the same, and SQLite has nothing to say.
    pub fn is_sound(&self) -> Result<bool, Trouble> {
        let (here, there) = (self.rows(HIT), self.rows(PEER)?);
        let Ok(here) = here else { return Ok(false) };
        let app = self.app(HIT)?;
        let checked = app.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
        Ok(here == there && checked.is_ok_and(|words| words == "ok"))
    }

    /// What applications do all day.
    pub fn ordinary_writes(&mut self, dice: &mut Dice) -> Result<(), Trouble> {
        for at in [PEER, HIT] {
            let app = self.app(at)?;
            for _ in 0..2 {
                let (id, number) = (1 + dice.below(150) as i64, dice.below(100_000) as i64);
                match dice.below(5) {
                    0 => app.execute("UPDATE team SET points = points + 1 WHERE id = ?1", [id])?,
                    1 => app.execute("UPDATE game SET comment = ?2 WHERE id = ?1", (id, format!("said {number}")))?,
                    2 => app
                        .execute("INSERT INTO game (team, score, comment) VALUES (?1, ?2, 'new')", (id, number % 90))?,
                    3 => app.execute(
                        "UPDATE setting SET value = ?1 WHERE name = ?2",
                        (number, format!("setting.{}", id % 60)),
                    )?,
                    _ => {
                        app.execute("DELETE FROM game WHERE id = (SELECT max(id) FROM game WHERE id < 1000000)", [])?
                    }
                };
            }
        }
        self.work();
        match self.is_sound()? {
            true => Ok(()),
            false => Err(Trouble::wrong("ordinary writes left the pair unequal")),
        }
    }

    /// Does one kind of damage to the second server.
    pub fn damage(&mut self, dice: &mut Dice, kind: &str) -> Result<(), Trouble> {
        let (id, number) = (1 + dice.below(150), dice.below(1_000_000));
        let some = format!("(SELECT id FROM game ORDER BY id LIMIT {} OFFSET {})", 1 + dice.below(3), dice.below(250));
        match kind {
            "bit" => self.hit_file(dice, 1),
            "sector" => self.hit_file(dice, 512),
            "rows deleted" => self.unmarked(&format!("DELETE FROM game WHERE id IN {some}")),
            "rows edited" => {
                self.unmarked(&format!("UPDATE game SET comment = 'edited {number} unseen' WHERE id IN {some}"))
            }
            "rows inserted" => {
                self.unmarked(&format!("INSERT INTO team (name, points) VALUES ('unseen {number}', {id})"))
            }
            "rows set back" => self.set_back(id, number),
            "key changed" => self.unmarked(&format!(
                "UPDATE game SET id = {} WHERE id IN (SELECT min(id) + {} FROM game)",
                500_000 + number,
                id
            )),
            "triggers dropped" => {
                let sql = "SELECT group_concat('DROP TRIGGER \"' || name || '\"', ';') FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'game'";
                let app = self.app(HIT)?;
                let drop: String = app.query_row(sql, [], |row| row.get(0))?;
                app.execute_batch(&format!(
                    "BEGIN; {drop}; UPDATE game SET comment = 'unseen {number}' WHERE id IN {some};
                     INSERT INTO game (team, score, comment) VALUES ({id}, 1, 'unseen'); COMMIT"
                ))?;
                Ok(())
            }
            "table dropped" => {
                let table = dice.pick(&["game", "setting"]).copied().unwrap_or("game");
                self.app(HIT)?.execute_batch(&format!("DROP TABLE {table}"))?;
                Ok(())
            }
            "backup while stopped" | "backup over the open file" => {
                self.put_back(dice, kind == "backup while stopped", number)
            }
            _ => self.hit_event(dice),
        }
    }

    fn unmarked(&self, sql: &str) -> Result<(), Trouble> {
        let app = self.app(HIT)?;
        app.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
        app.execute_batch("PRAGMA foreign_keys = OFF")?;
        Ok(app.execute_batch(sql)?)
    }

    /// Rows get the values that they had before.
    fn set_back(&mut self, id: u64, number: u64) -> Result<(), Trouble> {
        let app = self.app(HIT)?;
        let before: String = app.query_row(
            "SELECT coalesce(notes, '') FROM team WHERE id = (SELECT min(id) FROM team WHERE id >= ?1)",
            [id as i64],
            |row| row.get(0),
        )?;
        let chosen = format!("(SELECT min(id) FROM team WHERE id >= {id})");
        app.execute_batch(&format!("UPDATE team SET notes = 'a later note {number}' WHERE id = {chosen}"))?;
        drop(app);
        self.work();
        self.unmarked(&format!("UPDATE team SET notes = '{before}' WHERE id = {chosen}"))
    }

    /// An older copy of the file is put back after both servers have gone on.
    fn put_back(&mut self, dice: &mut Dice, stopped: bool, number: u64) -> Result<(), Trouble> {
        let backup = self.sites[HIT].root.join("backup.db");
        let _ = std::fs::remove_file(&backup);
        self.app(HIT)?.execute_batch(&format!("VACUUM INTO '{}'", backup.display()))?;
        self.app(HIT)?.execute_batch(&format!(
            "UPDATE team SET notes = 'since the backup {number}' WHERE id % 7 = {}",
            dice.below(7)
        ))?;
        self.app(PEER)?
            .execute_batch(&format!("INSERT INTO game (team, score, comment) VALUES (1, 2, 'since {number}')"))?;
        self.work();
        if stopped {
            self.close(HIT);
            for suffix in ["-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{suffix}", self.sites[HIT].file().display()));
            }
            std::fs::rename(&backup, self.sites[HIT].file())?;
            return self.open(HIT);
        }
        let older = Connection::open(&backup)?;
        let mut open = self.app(HIT)?;
        let copy = rusqlite::backup::Backup::new(&older, &mut open)?;
        copy.run_to_completion(i32::MAX, std::time::Duration::ZERO, None)?;
        Ok(())
    }

    /// One bit, or so many bytes, of the file, under the open node.
    fn hit_file(&mut self, dice: &mut Dice, bytes: usize) -> Result<(), Trouble> {
        use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
        let app = self.app(HIT)?;
        app.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        drop(app);
        let path = self.sites[HIT].root.join("app.db");
        let mut file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
        let length = file.metadata()?.len();
        let at = if bytes == 1 { dice.below(length) } else { dice.below(length / bytes as u64) * bytes as u64 };
        file.seek(SeekFrom::Start(at))?;
        let mut hit = vec![0; bytes];
        file.read_exact(&mut hit)?;
        match bytes {
            1 => hit[0] ^= 1 << dice.below(8),
            _ => hit.fill(0),
        }
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&hit)?;
        Ok(())
    }

    /// A byte of an event in the second server's log.
    fn hit_event(&mut self, dice: &mut Dice) -> Result<(), Trouble> {
        let log = self.ask(HIT, |node| Ok(node.log()))?;
        let read = log.read().map_err(said)?;
        let heads: Vec<_> = read.heads().map_err(said)?.into_iter().collect();
        let Some((origin, head)) = dice.pick(&heads) else { return Err(Trouble::wrong("an empty log")) };
        let seq = 1 + dice.below(head.seq);
        let stored = read.event(origin, seq).map_err(said)?.ok_or_else(|| Trouble::wrong("an event is missing"))?;
        let event = litemesh::wire::decode_event(&stored.bytes).map_err(said)?;
        let mut bytes = stored.bytes.clone();
        let at = dice.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << dice.below(8);
        drop(read);
        let mut write = log.write().map_err(said)?;
        write.put_body(&event, &bytes, stored.hash, stored.signature).map_err(said)?;
        write.commit_durable().map_err(said)
    }

    /// What a person does with a file that SQLite cannot read: the log's rebuild takes its place.
    pub fn rebuild(&mut self) -> Result<(), Trouble> {
        let out = self.sites[HIT].root.join("rebuilt");
        let _ = std::fs::remove_dir_all(&out);
        self.ask(HIT, |node| node.rebuild(&out))?;
        self.close(HIT);
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", self.sites[HIT].file().display()));
        }
        std::fs::rename(out.join("app.db"), self.sites[HIT].file())?;
        Connection::open(self.sites[HIT].file())?.execute_batch("PRAGMA journal_mode = WAL")?;
        self.open(HIT)
    }
}
