//! An ordinary app: it writes to its two files as it likes, knows nothing of litemesh, and records what it committed.
//!
//! The record is independent of the node's code: every row gets a text of its own ("marker"), kept with the fate the app
//! gave it. Invariant: an insert that SQLite
//! acknowledged is in the record. Caller: the world.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, params};

use super::dice::Dice;
use super::errors::Errors;

const SCOUTING: &str = "
CREATE TABLE team (id INTEGER NOT NULL, number INTEGER NOT NULL, name VARCHAR(100), marker TEXT, PRIMARY KEY (id), UNIQUE (number));
CREATE TABLE event (id INTEGER NOT NULL, name TEXT NOT NULL, marker TEXT, PRIMARY KEY (id));
CREATE TABLE team_event (team_id INTEGER NOT NULL, event_id INTEGER NOT NULL, PRIMARY KEY (team_id, event_id),
  FOREIGN KEY (team_id) REFERENCES team (id), FOREIGN KEY (event_id) REFERENCES event (id));
CREATE TABLE entry (id INTEGER NOT NULL, team_id INTEGER NOT NULL, previous_id INTEGER, score REAL, data TEXT, marker TEXT,
  PRIMARY KEY (id), FOREIGN KEY (team_id) REFERENCES team (id), FOREIGN KEY (previous_id) REFERENCES entry (id) ON DELETE SET NULL);
CREATE TABLE setting (key TEXT NOT NULL PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE note (text TEXT, marker TEXT);
CREATE TABLE board (id INTEGER PRIMARY KEY, hits INTEGER NOT NULL, best INTEGER NOT NULL, who TEXT);
INSERT INTO board VALUES (1, 0, 0, ''), (2, 0, 0, ''), (3, 0, 0, '');
";

const USERS: &str = "
CREATE TABLE user (id INTEGER PRIMARY KEY AUTOINCREMENT, username TEXT NOT NULL UNIQUE COLLATE NOCASE, email TEXT UNIQUE, marker TEXT);
CREATE TABLE role (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE user_role (user_id INTEGER NOT NULL REFERENCES user (id) ON DELETE CASCADE, role_id INTEGER NOT NULL REFERENCES role (id), PRIMARY KEY (user_id, role_id));
INSERT INTO role (name) VALUES ('admin'), ('scout'), ('viewer');
";

/// Tables with markers, by file.
pub const MARKED: [(&str, &str); 5] =
    [("scouting", "team"), ("scouting", "event"), ("scouting", "entry"), ("scouting", "note"), ("users", "user")];

/// The app of one server.
pub struct App {
    scouting: Connection,
    users: Connection,
    position: usize,
    next: u64,
    /// What SQLite refused, and whether the app has itself to blame.
    pub errors: Errors,
    /// Markers of committed inserts, by table.
    pub inserted: BTreeMap<String, BTreeSet<String>>,
    /// Markers whose row this app deleted or replaced by another row.
    pub removed: BTreeSet<String>,
    /// Markers that this app wrote over in the same row, and by which.
    pub replaced: BTreeMap<String, String>,
    /// What this app added to each `board.hits`, and the greatest value it wrote to each `board.best`.
    pub board: BTreeMap<i64, (i64, i64)>,
}

impl App {
    /// Opens the files; makes those that are not there. A copy of another app's files may lie there already.
    pub fn new(root: &Path, position: usize) -> App {
        let (scouting, users) = open(root);
        for (file, schema) in [(&scouting, SCOUTING), (&users, USERS)] {
            let tables = "SELECT count(*) FROM sqlite_master";
            if file.query_row(tables, [], |row| row.get::<_, i64>(0)).expect("a query") == 0 {
                file.execute_batch(schema).expect("the schema is valid");
            }
        }
        let (removed, replaced, board) = Default::default();
        let (inserted, errors) = (BTreeMap::new(), Errors::default());
        App { scouting, users, position, next: 0, errors, inserted, removed, replaced, board }
    }

    /// Closes the files, to be opened by [`App::restart`].
    pub fn stop(&mut self) {
        self.scouting = Connection::open_in_memory().expect("a database in memory");
        self.users = Connection::open_in_memory().expect("a database in memory");
    }

    /// Starts the app again, after the power was gone or its files were put back.
    pub fn restart(&mut self, root: &Path) {
        (self.scouting, self.users) = open(root);
    }

    /// The connection to one of the files.
    pub fn file(&self, database: &str) -> &Connection {
        if database == "users" { &self.users } else { &self.scouting }
    }

    /// Marks that wait in both files.
    pub fn outbox(&self) -> i64 {
        let count = |file: &Connection| {
            file.query_row("SELECT count(*) FROM _litemesh_outbox", [], |row| row.get::<_, i64>(0)).unwrap_or(0)
        };
        count(&self.scouting) + count(&self.users)
    }

    /// Whether a file is under replication; before, the node waits for the cluster.
    pub fn enrolled(&self, database: &str) -> bool {
        let found = "SELECT count(*) FROM sqlite_master WHERE name = '_litemesh_outbox'";
        self.file(database).query_row(found, [], |row| row.get::<_, i64>(0)).is_ok_and(|count| count > 0)
    }

    fn marker(&mut self, table: &str) -> String {
        self.next += 1;
        let marker = format!("{table}-{}-{}", self.position, self.next);
        self.inserted.entry(table.to_string()).or_default().insert(marker.clone());
        marker
    }

    /// Takes the record of an insert back that SQLite refused.
    fn unmark(&mut self, table: &str, marker: &str) {
        if let Some(markers) = self.inserted.get_mut(table) {
            markers.remove(marker);
        }
    }

    fn ids(&self, database: &str, table: &str) -> Vec<i64> {
        let mut statement =
            self.file(database).prepare(&format!("SELECT id FROM {table} ORDER BY id")).expect("a table");
        let ids = statement.query_map([], |row| row.get(0)).expect("a query");
        ids.map(|id| id.expect("an id")).collect()
    }

    fn insert(&mut self, database: &str, table: &str, sql: &str, values: &[&dyn rusqlite::ToSql]) -> bool {
        let marker = self.marker(table);
        let mut all: Vec<&dyn rusqlite::ToSql> = vec![&marker];
        all.extend_from_slice(values);
        let done = self.file(database).execute(sql, all.as_slice());
        let done = self.errors.note(sql, done).is_some_and(|rows| rows > 0);
        if !done {
            self.unmark(table, &marker);
        }
        done
    }

    /// Notes the markers of rows that a statement is about to remove.
    fn removing(&mut self, database: &str, table: &str, condition: &str) {
        let found = self.markers_of(database, table, condition);
        self.removed.extend(found);
    }

    fn markers_of(&self, database: &str, table: &str, condition: &str) -> Vec<String> {
        let sql = format!("SELECT marker FROM {table} WHERE {condition}");
        let mut statement = self.file(database).prepare(&sql).expect("a table with markers");
        let rows = statement.query_map([], |row| row.get::<_, Option<String>>(0)).expect("a query");
        rows.filter_map(|row| row.expect("a marker")).collect()
    }

    /// Does one random thing; says what.
    pub fn act(&mut self, dice: &mut Dice) -> &'static str {
        match dice.below(17) {
            0..=2 => self.add_team(dice),
            3 => self.add_event(dice),
            4..=6 => self.add_entry(dice),
            7 => self.add_user(dice),
            8 => self.change_team(dice),
            9 => self.change_entry(dice),
            10 => self.set_setting(dice),
            11 => self.add_note(dice),
            12 => self.link(dice),
            13 => self.delete_entry(dice),
            14 => self.delete_team(dice),
            15 => self.change_user(dice),
            _ => self.replace_team(dice),
        }
    }

    /// Adds to a sum that all servers add to, and to a best value that all servers better. (A value that the app lowers
    /// itself before the node has looked was never seen by anybody: the record holds what stays.)
    pub fn hit(&mut self, turn: u64) {
        let (id, by, best) = (1 + (turn % 3) as i64, (turn * 7 % 11) as i64 - 3, (turn * 31 % 97) as i64);
        let sql = "UPDATE board SET hits = hits + ?2, best = max(best, ?3), who = ?4 WHERE id = ?1";
        let done = self.scouting.execute(sql, params![id, by, best, format!("{}", self.position)]);
        if self.errors.note(sql, done).is_some_and(|rows| rows > 0) {
            let (sum, greatest) = self.board.entry(id).or_default();
            (*sum, *greatest) = (*sum + by, best.max(*greatest));
        }
    }

    fn add_team(&mut self, dice: &mut Dice) -> &'static str {
        let (number, name) = (dice.below(60) as i64, format!("n{}", dice.below(100)));
        self.insert(
            "scouting",
            "team",
            "INSERT INTO team (marker, number, name) VALUES (?1, ?2, ?3)",
            &[&number, &name],
        );
        "add team"
    }

    fn add_event(&mut self, dice: &mut Dice) -> &'static str {
        let name = format!("event {}", dice.below(5));
        self.insert("scouting", "event", "INSERT INTO event (marker, name) VALUES (?1, ?2)", &[&name]);
        "add event"
    }

    fn add_entry(&mut self, dice: &mut Dice) -> &'static str {
        let teams = self.ids("scouting", "team");
        let Some(team) = dice.pick(&teams).copied() else { return "nothing" };
        let entries = self.ids("scouting", "entry");
        let previous = if dice.chance(30) { dice.pick(&entries).copied() } else { None };
        let score = dice.below(1000) as f64 / 8.0;
        let data = format!("{{\"auto\": {}}}", dice.below(9));
        let sql = "INSERT INTO entry (marker, team_id, previous_id, score, data) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.insert("scouting", "entry", sql, &[&team, &previous, &score, &data]);
        "add entry"
    }

    fn add_user(&mut self, dice: &mut Dice) -> &'static str {
        let name = format!("{}ser{}", if dice.chance(50) { "U" } else { "u" }, dice.below(25));
        let email = dice.chance(50).then(|| format!("{}@x", dice.below(30)));
        let added = self.insert(
            "users",
            "user",
            "INSERT INTO user (marker, username, email) VALUES (?1, ?2, ?3)",
            &[&name, &email],
        );
        if added {
            let (user, role) = (self.users.last_insert_rowid(), 1 + dice.below(3) as i64);
            // The role may be gone or hidden on this server.
            let sql = "INSERT INTO user_role VALUES (?1, ?2)";
            let refused = self.users.execute(sql, params![user, role]);
            self.errors.note(sql, refused);
        }
        "add user"
    }

    fn change_team(&mut self, dice: &mut Dice) -> &'static str {
        let teams = self.ids("scouting", "team");
        let Some(team) = dice.pick(&teams).copied() else { return "nothing" };
        if dice.chance(30) {
            // Refused where the number is taken.
            let number = dice.below(60) as i64;
            let sql = "UPDATE team SET number = ?1 WHERE id = ?2";
            let taken = self.scouting.execute(sql, params![number, team]);
            self.errors.note(sql, taken);
            return "renumber team";
        }
        let name = format!("n{}", dice.below(100));
        self.scouting.execute("UPDATE team SET name = ?1 WHERE id = ?2", params![name, team]).expect("an update");
        "rename team"
    }

    fn change_entry(&mut self, dice: &mut Dice) -> &'static str {
        let (entries, teams) = (self.ids("scouting", "entry"), self.ids("scouting", "team"));
        let (Some(entry), Some(team)) = (dice.pick(&entries), dice.pick(&teams)) else { return "nothing" };
        let sql = if dice.chance(40) {
            format!("UPDATE entry SET team_id = {team} WHERE id = {entry}")
        } else {
            format!("UPDATE entry SET score = score + 1, data = NULL WHERE id >= {entry} AND id < {entry} + 3")
        };
        self.scouting.execute_batch(&sql).expect("an update");
        "change entry"
    }

    fn set_setting(&mut self, dice: &mut Dice) -> &'static str {
        let (key, value) = (format!("k{}", dice.below(6)), dice.bits().to_be_bytes().to_vec());
        let sql = match dice.below(3) {
            0 => "INSERT OR REPLACE INTO setting VALUES (?1, ?2)",
            1 => "INSERT INTO setting VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            _ => "DELETE FROM setting WHERE key = ?1 AND value IS NOT ?2",
        };
        self.scouting.execute(sql, params![key, value]).expect("a setting");
        "set setting"
    }

    fn add_note(&mut self, dice: &mut Dice) -> &'static str {
        let text = format!("note {}", dice.below(4));
        self.insert("scouting", "note", "INSERT INTO note (marker, text) VALUES (?1, ?2)", &[&text]);
        if dice.chance(20) {
            self.removing("scouting", "note", "rowid = (SELECT min(rowid) FROM note)");
            self.scouting
                .execute_batch("DELETE FROM note WHERE rowid = (SELECT min(rowid) FROM note)")
                .expect("a delete");
        }
        "add note"
    }

    fn link(&mut self, dice: &mut Dice) -> &'static str {
        let (teams, events) = (self.ids("scouting", "team"), self.ids("scouting", "event"));
        let (Some(team), Some(event)) = (dice.pick(&teams), dice.pick(&events)) else { return "nothing" };
        let sql = if dice.chance(80) {
            format!("INSERT OR IGNORE INTO team_event VALUES ({team}, {event})")
        } else {
            format!("DELETE FROM team_event WHERE team_id = {team}")
        };
        self.scouting.execute_batch(&sql).expect("a link");
        "link"
    }

    fn delete_entry(&mut self, dice: &mut Dice) -> &'static str {
        let entries = self.ids("scouting", "entry");
        let Some(entry) = dice.pick(&entries).copied() else { return "nothing" };
        self.removing("scouting", "entry", &format!("id = {entry}"));
        self.scouting.execute("DELETE FROM entry WHERE id = ?1", [entry]).expect("a delete");
        "delete entry"
    }

    /// A well-behaved app takes the children along; a careless one (foreign keys are off by default) leaves them.
    fn delete_team(&mut self, dice: &mut Dice) -> &'static str {
        let teams = self.ids("scouting", "team");
        let Some(team) = dice.pick(&teams).copied() else { return "nothing" };
        self.removing("scouting", "team", &format!("id = {team}"));
        if dice.chance(80) {
            self.removing("scouting", "entry", &format!("team_id = {team}"));
            let sql = format!(
                "BEGIN; DELETE FROM team_event WHERE team_id = {team}; DELETE FROM entry WHERE team_id = {team}; \
                 DELETE FROM team WHERE id = {team}; COMMIT"
            );
            self.scouting.execute_batch(&sql).expect("a delete with its children");
        } else {
            self.scouting.execute("DELETE FROM team WHERE id = ?1", [team]).expect("a delete");
        }
        "delete team"
    }

    fn change_user(&mut self, dice: &mut Dice) -> &'static str {
        let users = self.ids("users", "user");
        let Some(user) = dice.pick(&users).copied() else { return "nothing" };
        if dice.chance(30) {
            self.removing("users", "user", &format!("id = {user}"));
            self.users.execute("DELETE FROM user WHERE id = ?1", [user]).expect("a delete that cascades");
            return "delete user";
        }
        // Refused where the name is taken.
        let name = format!("user{}", dice.below(25));
        let sql = "UPDATE user SET username = ?1 WHERE id = ?2";
        let taken = self.users.execute(sql, params![name, user]);
        self.errors.note(sql, taken);
        "rename user"
    }

    /// REPLACE through a UNIQUE index: the row that had the number goes without a delete trigger. With an id that is there
    /// it is the same row that gets other values.
    fn replace_team(&mut self, dice: &mut Dice) -> &'static str {
        let teams = self.ids("scouting", "team");
        let same = dice.clone().chance(40) && !teams.is_empty();
        let number = dice.below(60) as i64;
        let name = format!("r{}", dice.below(100));
        if !same {
            self.removing("scouting", "team", &format!("number = {number}"));
            let sql = "INSERT OR REPLACE INTO team (marker, number, name) VALUES (?1, ?2, ?3)";
            self.insert("scouting", "team", sql, &[&number, &name]);
            return "replace team";
        }
        let id = teams[dice.clone().below(teams.len() as u64) as usize];
        self.removing("scouting", "team", &format!("number = {number} AND id <> {id}"));
        let gone = self.markers_of("scouting", "team", &format!("id = {id}"));
        let sql = "INSERT OR REPLACE INTO team (marker, number, name, id) VALUES (?1, ?2, ?3, ?4)";
        if self.insert("scouting", "team", sql, &[&number, &name, &id]) {
            let new = format!("team-{}-{}", self.position, self.next);
            self.replaced.extend(gone.into_iter().map(|old| (old, new.clone())));
        }
        "replace team by id"
    }
}

/// The app's connections. A commit that returned is on the disk: SQLite's default (FULL) says that of the WAL, but leaves
/// the end of a rollback journal, as the file has it before it is enrolled, to the next sync of its directory; EXTRA does not.
fn open(root: &Path) -> (Connection, Connection) {
    let [scouting, users] = ["scouting.db", "users.db"].map(|name| {
        let connection = Connection::open(root.join(name)).expect("a database can be made");
        connection.busy_timeout(std::time::Duration::from_secs(5)).expect("a timeout can be set");
        // As Python and the sqlite3 shell have it; the bundled library is built the other way round.
        connection.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA synchronous = EXTRA").expect("a pragma");
        connection
    });
    users.execute_batch("PRAGMA foreign_keys = ON").expect("a pragma");
    (scouting, users)
}

/// All rows of a table, as they come.
pub fn rows(file: &Connection, table: &str) -> Vec<Vec<Value>> {
    let mut statement = file.prepare(&format!("SELECT * FROM {table}")).expect("a table");
    let width = statement.column_count();
    let rows =
        statement.query_map([], |row| (0..width).map(|column| row.get::<_, Value>(column)).collect()).expect("a query");
    rows.map(|row| row.expect("a row")).collect()
}
