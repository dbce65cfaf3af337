//! A file's life beside the node: migrated, dropped, restored from a backup, replaced, left alone again.
//!
//! What it does not verify: damage inside a file (flipped bits); the tests of `src/log` and the simulator do that.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use support::cluster::{Cluster, connected_peers};
use support::dump::{assert_sound, dump, number, texts};
use support::{app, python, until};

fn schema(path: &Path) -> Vec<String> {
    texts(path, "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_master ORDER BY 1")
}

/// Copies a live file as an administrator does: with SQLite's own backup.
fn back_up(from: &Path, to: &Path) {
    let program = "import sqlite3, sys\n\
                   a = sqlite3.connect(sys.argv[1]); b = sqlite3.connect(sys.argv[2]); a.backup(b); b.close(); a.close()";
    python(&["-c", program, from.to_str().unwrap(), to.to_str().unwrap()]).unwrap();
}

/// After `eject` the file is the app's alone, as if nothing had ever been there, and the app goes on.
#[test]
fn eject_leaves_no_trace() {
    let mut cluster =
        Cluster::unjoined(2, &[("scouting", "scouting.sql"), ("users", "users.sql")], Some("scouting.toml"));
    let file = cluster.servers[1].database("scouting").to_owned();
    let before = schema(&file);
    cluster.enrol();
    app(&file, "INSERT INTO team (team_number) VALUES (1)");
    let data = cluster.settled(20).remove(0);
    assert_ne!(schema(&file), before, "the triggers are in the file while the node runs");
    cluster.servers[1].stop();
    let flags = cluster.servers[1].database_flags();
    let eject = cluster.servers[1].cli(&["eject"]);
    assert_eq!(eject.code, Some(0), "{eject:?} {flags:?}");
    for (_, path) in &cluster.servers[1].databases {
        let traces = "SELECT count(*) FROM sqlite_master WHERE name LIKE '%litemesh%' OR sql LIKE '%litemesh%'";
        assert_eq!(number(path, traces), 0);
        assert_sound(path);
    }
    assert_eq!(schema(&file), before);
    assert_eq!(dump(&file, support::cluster::LOCAL), data, "the data stays");
    app(&file, "INSERT INTO team (team_number) VALUES (2); DELETE FROM team WHERE team_number = 1");
}

/// A column is added on one server first: its rows wait on the other, then show by themselves.
#[test]
fn a_column_added_on_one_server_then_on_the_other() {
    let cluster = Cluster::scouting(2);
    let (first, second) = (&cluster.servers[0], &cluster.servers[1]);
    app(first.database("scouting"), "ALTER TABLE team ADD COLUMN nickname VARCHAR(50)");
    app(first.database("scouting"), "INSERT INTO team (team_number, nickname, marker) VALUES (12, 'Nick', 'nick')");
    app(first.database("scouting"), "UPDATE team SET nickname = 'One' WHERE id = 1");
    until("the event waits on the other server", 20, || {
        let database = second.database_status("scouting");
        if database["held_events"].as_u64() > Some(0) { Ok(()) } else { Err(database.to_string()) }
    });
    // What needs no new column goes on in both directions, as far as causes allow.
    app(second.database("users"), "INSERT INTO role (name) VALUES ('drive team')");
    until("other files go on", 20, || {
        let found = number(first.database("users"), "SELECT count(*) FROM role WHERE name = 'drive team'");
        if found == 1 { Ok(()) } else { Err("not there".to_owned()) }
    });
    app(second.database("scouting"), "ALTER TABLE team ADD COLUMN nickname VARCHAR(50)");
    cluster.settled(30);
    let nicknames = "SELECT nickname FROM team WHERE nickname IS NOT NULL ORDER BY 1";
    assert_eq!(texts(second.database("scouting"), nicknames), ["Nick", "One"]);
}

/// Migration tools rebuild a table: new table, copy, drop, rename. The triggers go with it; nothing else may.
#[test]
fn a_table_rebuilt_as_migration_tools_do() {
    let cluster = Cluster::scouting(2);
    let rebuild = "BEGIN;
        CREATE TABLE _new_alliance (id INTEGER NOT NULL, alliance_name VARCHAR(100) NOT NULL, marker VARCHAR(36),
            motto TEXT, PRIMARY KEY (id));
        INSERT INTO _new_alliance (id, alliance_name, marker) SELECT id, alliance_name, marker FROM alliance;
        INSERT INTO _new_alliance (alliance_name, marker, motto) VALUES ('made by the migration', 'migration', 'm');
        DROP TABLE alliance; ALTER TABLE _new_alliance RENAME TO alliance; COMMIT;
        INSERT INTO alliance (alliance_name, marker) VALUES ('right after', 'after')";
    app(cluster.servers[0].database("scouting"), rebuild);
    let change = "ALTER TABLE alliance ADD COLUMN motto TEXT";
    app(cluster.servers[1].database("scouting"), change);
    cluster.settled(40);
    app(cluster.servers[0].database("scouting"), "UPDATE alliance SET motto = 'later' WHERE marker = 'alliance-1'");
    cluster.settled(20);
    let found = texts(
        cluster.servers[1].database("scouting"),
        "SELECT marker || ':' || coalesce(motto, '') FROM alliance ORDER BY 1",
    );
    assert_eq!(found, ["after:", "alliance-1:later", "migration:m"]);
}

/// Dropping a table is a change of one server's schema, not a deletion of everybody's rows.
#[test]
fn a_dropped_table_is_not_a_deletion() {
    let cluster = Cluster::scouting(2);
    app(cluster.servers[1].database("scouting"), "DROP TABLE share; INSERT INTO team (team_number) VALUES (3)");
    app(cluster.servers[0].database("scouting"), "INSERT INTO share (match_id, token) VALUES (1, 'kept')");
    until("the other table goes on", 20, || {
        let found = number(cluster.servers[0].database("scouting"), "SELECT count(*) FROM team WHERE team_number = 3");
        if found == 1 { Ok(()) } else { Err("not there".to_owned()) }
    });
    assert_eq!(number(cluster.servers[0].database("scouting"), "SELECT count(*) FROM share"), 1);
    let again = "CREATE TABLE share (id INTEGER NOT NULL, match_id INTEGER NOT NULL, token VARCHAR(128) NOT NULL,
                 created_by INTEGER, PRIMARY KEY (id), FOREIGN KEY(match_id) REFERENCES \"match\" (id));
                 CREATE UNIQUE INDEX ix_share_token ON share (token)";
    app(cluster.servers[1].database("scouting"), again);
    cluster.settled(30);
    assert_eq!(texts(cluster.servers[1].database("scouting"), "SELECT token FROM share"), ["kept"]);
}

/// An old backup is put in the file's place. Nobody is rolled back; the server itself comes forward again.
#[test]
fn an_old_backup_rolls_nobody_back() {
    let mut cluster = Cluster::scouting(2);
    let file = cluster.servers[1].database("scouting").to_owned();
    app(&file, "INSERT INTO team (team_number, marker) VALUES (1, 'before the backup')");
    cluster.settled(20);
    let backup = cluster.root.path().join("backup.db");
    back_up(&file, &backup);
    app(&file, "INSERT INTO team (team_number, marker) VALUES (2, 'after the backup'); DELETE FROM observation");
    app(cluster.servers[0].database("scouting"), "UPDATE team SET location = 'newer' WHERE id = 1");
    cluster.settled(20);
    cluster.servers[1].stop();
    for leftover in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{leftover}", file.display()));
    }
    std::fs::copy(&backup, &file).unwrap();
    cluster.servers[1].start();
    cluster.connected();
    cluster.settled(30);
    for server in &cluster.servers {
        let file = server.database("scouting");
        assert_eq!(number(file, "SELECT count(*) FROM team WHERE marker LIKE '% the backup'"), 2, "{}", server.name);
        assert_eq!(number(file, "SELECT count(*) FROM observation"), 0, "the deletion stands");
        assert_eq!(texts(file, "SELECT location FROM team WHERE id = 1"), ["newer"]);
    }
    // And what the app writes from now on counts.
    app(&file, "INSERT INTO team (team_number, marker) VALUES (3, 'after the restore')");
    cluster.settled(20);
    let count = "SELECT count(*) FROM team WHERE marker = 'after the restore'";
    assert_eq!(number(cluster.servers[0].database("scouting"), count), 1);
}

/// The file is replaced by another one under the running node.
#[test]
fn a_file_replaced_under_a_running_node() {
    let cluster = Cluster::scouting(2);
    let file = cluster.servers[1].database("scouting").to_owned();
    app(&file, "INSERT INTO team (team_number, marker) VALUES (1, 'first')");
    cluster.settled(20);
    let backup = cluster.servers[1].folder.join("backup.db");
    back_up(&file, &backup);
    app(&file, "INSERT INTO team (team_number, marker) VALUES (2, 'second')");
    cluster.settled(20);
    for leftover in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{leftover}", file.display()));
    }
    std::fs::rename(&backup, &file).unwrap();
    cluster.settled(40);
    assert_eq!(number(&file, "SELECT count(*) FROM team WHERE marker IN ('first', 'second')"), 2);
    app(&file, "INSERT INTO team (team_number, marker) VALUES (3, 'third')");
    cluster.settled(20);
    let count = "SELECT count(*) FROM team WHERE marker = 'third'";
    assert_eq!(number(cluster.servers[0].database("scouting"), count), 1);
}

/// The data directory is gone. A new invitation brings everything back, also what had not travelled yet.
#[test]
fn a_lost_data_directory_costs_an_invitation_and_nothing_else() {
    let mut cluster = Cluster::scouting(2);
    app(cluster.servers[1].database("scouting"), "INSERT INTO team (team_number, marker) VALUES (1, 'travelled')");
    cluster.settled(20);
    cluster.servers[1].stop();
    app(cluster.servers[1].database("scouting"), "INSERT INTO team (team_number, marker) VALUES (2, 'not yet')");
    std::fs::remove_dir_all(cluster.servers[1].data()).unwrap();
    cluster.join(1);
    let address = cluster.servers[0].address();
    cluster.servers[1].start_with(&["--peer", &address]);
    until("the server is back", 20, || {
        let peers = connected_peers(&cluster.servers[1]);
        if peers > 0 { Ok(()) } else { Err("no peer".to_owned()) }
    });
    cluster.settled(40);
    let count = "SELECT count(*) FROM team WHERE marker IN ('travelled', 'not yet')";
    cluster.servers.iter().for_each(|server| assert_eq!(number(server.database("scouting"), count), 2));
}

/// The log itself is gone or damaged, the app's files are whole: it is built again from them and from the peers.
#[test]
fn a_damaged_log_is_put_aside_and_built_again() {
    let mut cluster = Cluster::scouting(2);
    app(cluster.servers[1].database("scouting"), "INSERT INTO team (team_number, marker) VALUES (1, 'logged')");
    cluster.settled(20);
    cluster.servers[1].stop();
    let logs: Vec<_> = std::fs::read_dir(cluster.servers[1].data())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "redb"))
        .collect();
    assert_eq!(logs.len(), 1, "one log: {logs:?}");
    let mut bytes = std::fs::read(&logs[0]).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
    std::fs::write(&logs[0], bytes).unwrap();
    match cluster.servers[1].try_start(&[]) {
        Ok(()) => {
            cluster.settled(40);
        }
        // Giving up is allowed only with the integrity code and the way out in words.
        Err(answer) => {
            assert_eq!(answer.code, Some(4), "{answer:?}");
            assert!(answer.stderr.contains("join"), "{}", answer.stderr);
            // The way out in words is the way out: same directory, same key, the damaged log kept.
            cluster.join(1);
            let mut entries = std::fs::read_dir(cluster.servers[1].data()).unwrap();
            let kept = |name: std::ffi::OsString| name.to_string_lossy().starts_with("events.redb.damaged-");
            assert!(entries.any(|entry| kept(entry.unwrap().file_name())), "the damaged log is evidence");
            let address = cluster.servers[0].address();
            cluster.servers[1].start_with(&["--peer", &address]);
            cluster.connected();
            cluster.settled(40);
        }
    }
    let count = "SELECT count(*) FROM team WHERE marker = 'logged'";
    cluster.servers.iter().for_each(|server| assert_eq!(number(server.database("scouting"), count), 1));
}

/// The app holds the write lock for a long time; the node waits, and loses nothing.
#[test]
fn a_long_transaction_of_the_app_is_waited_for() {
    let cluster = Cluster::scouting(2);
    let mut app_connection = support::dump::open(cluster.servers[1].database("scouting"));
    let long = app_connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    long.execute("INSERT INTO team (team_number, marker) VALUES (1, 'long')", []).unwrap();
    app(cluster.servers[0].database("scouting"), "INSERT INTO team (team_number, marker) VALUES (2, 'meanwhile')");
    until("the event is received though it cannot be shown yet", 20, || {
        let peers = cluster.servers[0].status()["peers"][0]["ahead"].clone();
        if peers == 0 { Ok(()) } else { Err(format!("ahead {peers}")) }
    });
    long.commit().unwrap();
    cluster.settled(20);
    let count = "SELECT count(*) FROM team WHERE marker IN ('long', 'meanwhile')";
    cluster.servers.iter().for_each(|server| assert_eq!(number(server.database("scouting"), count), 2));
}

/// The end of a season: what both servers hold moves into segments, a copy is made and checked, the log's file shrinks, and
/// nobody misses anything, history and replay included. What is missing of the segments is said by everything that looks.
#[test]
fn a_season_is_archived_and_nothing_is_missed() {
    let mut cluster = Cluster::scouting(2);
    for number in 1..=40 {
        let file = cluster.servers[number % 2].database("scouting").to_owned();
        app(&file, &format!("INSERT INTO team (team_number, marker) VALUES ({number}, 'season {number}')"));
    }
    let data = cluster.settled(30).remove(0);
    let first = &cluster.servers[0];
    let history = |server: &support::server::Server| server.json(&["history", "scouting.team", "1"]);
    let log = |server: &support::server::Server| server.cli(&["--json", "log", "--limit", "1000"]).done().stdout;
    let (history_before, log_before) = (history(first), log(first));
    // The rows that were there before have no age; nothing else is a month old.
    let old = first.json(&["cleanup"])["removed"].as_u64().unwrap();
    assert!(old < 10, "{old}");
    let held = until("the other server said that it holds all", 40, || {
        let plan = first.json(&["cleanup", "--dry-run", "--days-to-keep", "0"]);
        match (plan["wanted"].as_u64(), plan["blocked"].as_u64()) {
            (Some(wanted), Some(0)) if wanted > 0 => Ok(wanted),
            _ => Err(plan.to_string()),
        }
    });
    let made = first.json(&["archive", "--out", "season"]);
    assert_eq!(made["cleanup"]["removed"].as_u64(), Some(held), "{made}");
    let all = held + old;
    assert_eq!(made["archive"]["events"].as_u64(), Some(all), "{made}");
    assert_eq!((history(first), log(first)), (history_before.clone(), log_before.clone()));
    first.cli(&["log", "verify"]).done();
    let rebuilt = first.cli(&["rebuild", "--out", "replayed"]).done();
    assert!(rebuilt.stdout.contains("equal to the live file"), "{}", rebuilt.stdout);
    let disk = first.status()["disk"].clone();
    assert!(
        disk["segment_events"].as_u64() == Some(all) && disk["segments_missing"] == serde_json::json!([]),
        "{disk}"
    );

    // The copy stands alone, and every flipped bit of it is found.
    let season = first.folder.join("season");
    let check = first.json(&["archive", "verify", season.to_str().unwrap()]);
    assert_eq!((check["fault_count"].as_u64(), check["events"].as_u64()), (Some(0), Some(all)), "{check}");
    let segment = std::fs::read_dir(&season).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.into_iter().find(|path| path.extension().is_some_and(|end| end == "segment")).unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    assert_eq!(first.cli(&["archive", "verify", season.to_str().unwrap()]).code, Some(4));

    // Stopped, the log's file gives its room back; then it goes on where it was.
    cluster.servers[0].stop();
    let cleaned = cluster.servers[0].json(&["cleanup", "--days-to-keep", "0"]);
    let sizes = (cleaned["log_bytes_before"].as_u64(), cleaned["log_bytes_after"].as_u64());
    assert!(sizes.1 > Some(0) && sizes.1 <= sizes.0, "{cleaned}");
    cluster.servers[0].start();
    app(cluster.servers[0].database("scouting"), "UPDATE team SET marker = 'next season' WHERE team_number = 7");
    let after = cluster.settled(30).remove(0);
    assert_ne!(after, data);

    // A segment is lost: its events are named, everything else works.
    let folder = cluster.servers[0].data().join("segments");
    let away = folder.with_extension("away");
    std::fs::rename(&folder, &away).unwrap();
    let first = &cluster.servers[0];
    let verify = first.cli(&["log", "verify"]);
    assert!(verify.code == Some(4) && verify.stdout.contains("is missing"), "{verify:?}");
    let doctor = first.cli(&["doctor"]);
    assert!(doctor.code == Some(1) && doctor.stdout.contains("MISSING"), "{doctor:?}");
    app(first.database("scouting"), "UPDATE team SET marker = 'all the same' WHERE team_number = 8");
    cluster.settled(30);
    std::fs::rename(&away, &folder).unwrap();
    cluster.servers[0].cli(&["log", "verify"]).done();
    assert_eq!(history(&cluster.servers[0]), history_before);
}
