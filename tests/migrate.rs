//! `litemesh migrate`: migrations that triggers are in the way of, what they change, and that triggers always come back.
//!
//! What it does not verify: every migration tool; what a migration does to its own data.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use support::cluster::Cluster;
use support::dump::{number, texts};
use support::server::{Answer, Server};
use support::{app, try_app, until};

/// How many triggers of litemesh stand.
fn triggers(path: &Path) -> i64 {
    number(path, "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND name GLOB '_litemesh_*'")
}

/// A program that runs statements as a migration tool does, when no trigger of litemesh is there.
const TOOL: &str = "import sqlite3, sys\n\
    c = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None)\n\
    there = [name for (name,) in c.execute(\"SELECT name FROM sqlite_master WHERE type = 'trigger'\")\n\
             if name.startswith('_litemesh_')]\n\
    assert not there, there\n\
    c.executescript(sys.argv[2])\n\
    c.close()\n\
    sys.exit(int(sys.argv[3]))";

/// Runs statements on the scouting file by `litemesh migrate`; the command ends with this code.
fn migrate(server: &Server, script: &str, code: &str) -> Answer {
    let database = server.database("scouting").to_str().unwrap();
    server.cli(&["migrate", "--", "python3", "-c", TOOL, database, script, code])
}

/// The triggers of a file are all there.
#[track_caller]
fn guarded(server: &Server, before: i64) {
    let database = server.database("scouting");
    until("the triggers are back", 60, || match triggers(database) {
        there if there == before => Ok(()),
        there => Err(format!("{there} instead of {before}")),
    });
}

fn steered_cluster() -> Cluster {
    let cluster = Cluster::scouting(2);
    for server in &cluster.servers {
        server.steered("scouting", &["team", "event", "match"]);
    }
    cluster
}

#[test]
fn a_column_that_triggers_name_goes_and_what_a_rebuild_changes_arrives_elsewhere() {
    let cluster = steered_cluster();
    let [one, two] = &cluster.servers[..] else { panic!("two servers") };
    let database = one.database("scouting");
    app(database, "INSERT INTO event (name, code, year, marker) VALUES ('Regional', 'r', 2026, 'm-event')");
    cluster.settled(30);
    let before = triggers(database);
    let drop = "ALTER TABLE event DROP COLUMN year";
    let refused = try_app(database, drop).unwrap_err();
    assert!(refused.contains("year"), "{refused}");
    // The same, and data: changed rows, a new row, a table that is rebuilt as migration tools do.
    let rebuild = "ALTER TABLE event DROP COLUMN year;
        UPDATE event SET code = 'changed' WHERE marker = 'm-event';
        INSERT INTO event (name, code, marker) VALUES ('New', 'n', 'm-new');
        CREATE TABLE team_new (id INTEGER NOT NULL, team_number INTEGER NOT NULL, team_name VARCHAR(100),
                               location VARCHAR(100) DEFAULT 'somewhere', marker VARCHAR(36), PRIMARY KEY (id));
        INSERT INTO team_new SELECT id, team_number, upper(team_name), location, marker FROM team;
        DROP TABLE team;
        ALTER TABLE team_new RENAME TO team;";
    let answer = migrate(one, rebuild, "0").done();
    assert!(answer.stderr.contains("the triggers are back"), "{answer:?}");
    guarded(one, before);
    // A schema is migrated on every server; what the first one changed is here already and changes nothing twice.
    migrate(two, drop, "0").done();
    let events = "SELECT name || ' ' || code FROM event ORDER BY name";
    let names = "SELECT team_name FROM team WHERE team_name IS NOT NULL ORDER BY id";
    until("both show what the migration made", 60, || {
        let of = |server: &Server| [events, names].map(|query| texts(server.database("scouting"), query));
        let (here, there) = (of(one), of(two));
        let expected =
            here[0].iter().any(|text| text == "New n") && here[0].iter().any(|text| text == "Regional changed");
        match here == there && expected {
            true => Ok(()),
            false => Err(format!("{here:?} and {there:?}")),
        }
    });
    assert!(texts(database, names).iter().all(|name| *name == name.to_uppercase()));
    // And the app's writes are captured again.
    app(database, "UPDATE team SET location = 'after' WHERE id = (SELECT min(id) FROM team)");
    until("a write of the app arrives", 30, || {
        match number(two.database("scouting"), "SELECT count(*) FROM team WHERE location = 'after'") {
            1 => Ok(()),
            other => Err(other.to_string()),
        }
    });
    assert_eq!(two.json(&["verify", "--tier", "full"])["equal"], true);
}

#[test]
fn a_command_that_fails_brings_its_code_and_the_triggers_back() {
    let cluster = steered_cluster();
    let one = &cluster.servers[0];
    let before = triggers(one.database("scouting"));
    let answer = migrate(one, "UPDATE team SET location = 'half' WHERE id = 1", "7");
    assert_eq!(answer.code, Some(7), "{answer:?}");
    guarded(one, before);
    until("what it did before it failed arrives", 30, || {
        let query = "SELECT location FROM team WHERE id = 1";
        match texts(cluster.servers[1].database("scouting"), query) {
            now if now == ["half"] => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let answer = one.cli(&["migrate", "--", "no-such-command"]);
    assert!(answer.code == Some(1) && answer.stderr.contains("check the command behind `--`"), "{answer:?}");
    guarded(one, before);
}

#[test]
fn a_migration_that_is_killed_or_whose_node_dies_leaves_no_table_unwatched() {
    let mut cluster = steered_cluster();
    let before = triggers(cluster.servers[0].database("scouting"));
    let hanging = |server: &Server| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_litemesh"));
        command.arg("--data").arg(server.data()).args(["migrate", "--", "cat"]).stdin(Stdio::piped());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("the triggers are out of the way", 30, || match triggers(server.database("scouting")) {
            0 => Ok(()),
            there => Err(format!("{there} stand")),
        });
        child
    };
    // The program is killed: nobody tells the node the end, and it helps itself when the lease is over.
    let mut child = hanging(&cluster.servers[0]);
    app(cluster.servers[0].database("scouting"), "UPDATE team SET location = 'unseen' WHERE id = 1");
    let refused = cluster.servers[0].cli(&["migrate", "--", "true"]);
    assert!(refused.stderr.contains("under way already"), "{refused:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    guarded(&cluster.servers[0], before);
    let location = |server: &Server| texts(server.database("scouting"), "SELECT location FROM team WHERE id = 1");
    until("what was written meanwhile arrives", 30, || match location(&cluster.servers[1]) {
        now if now == ["unseen"] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // The node is killed: its next start finds tables without triggers.
    let mut child = hanging(&cluster.servers[0]);
    cluster.servers[0].kill();
    app(cluster.servers[0].database("scouting"), "UPDATE team SET location = 'without node' WHERE id = 1");
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!(triggers(cluster.servers[0].database("scouting")), 0);
    cluster.servers[0].start();
    guarded(&cluster.servers[0], before);
    until("what was written without a node arrives", 30, || match location(&cluster.servers[1]) {
        now if now == ["without node"] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // Without a running node the command does both itself.
    cluster.servers[0].stop();
    let answer = migrate(&cluster.servers[0], "UPDATE team SET location = 'offline' WHERE id = 1", "3");
    assert_eq!(answer.code, Some(3), "{answer:?}");
    guarded(&cluster.servers[0], before);
    cluster.servers[0].start();
    until("what an offline migration changed arrives", 30, || match location(&cluster.servers[1]) {
        now if now == ["offline"] => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
