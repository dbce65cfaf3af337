//! Several servers written on at once, together and apart, end with the same files, and every acknowledged row is there.
//!
//! The witness is the writers' own record (`support::recorder`), not the node. What it does not verify: crashes
//! (`tests/crash.rs`), real networks that delay and reorder (the simulator).

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used)]

mod support;

use support::cluster::{Cluster, dumps, settled};
use support::dump::{assert_sound, difference, dump, number, texts};
use support::recorder::{Record, Writer, assert_references_hold};
use support::server::Server;
use support::{app, until};

/// Length of the long run; five seconds where every change is checked, a minute and more by `LITEMESH_SOAK_SECS`.
fn soak_seconds() -> u64 {
    std::env::var("LITEMESH_SOAK_SECS").ok().map_or(5, |text| text.parse().expect("LITEMESH_SOAK_SECS is a number"))
}

#[track_caller]
fn assert_everything_kept(cluster: &Cluster, record: &Record) {
    assert!(record.inserts() > 0, "the writers wrote nothing");
    for server in cluster.running() {
        record.assert_kept(server);
        assert_references_hold(server);
        server.databases.iter().for_each(|(_, path)| assert_sound(path));
    }
}

/// The log is what happened: its chains hold, and replaying it alone gives the live tables.
#[track_caller]
fn assert_log_is_the_truth(server: &Server) {
    server.cli(&["log", "verify"]).done();
    let out = server.folder.join("rebuilt");
    server.cli(&["rebuild", "--out", out.to_str().unwrap()]).done();
    for ((name, path), live) in server.databases.iter().zip(dumps(server)) {
        let file = path.file_name().unwrap();
        let rebuilt = dump(&out.join(file), support::cluster::LOCAL);
        if let Some(difference) = difference(&live, &rebuilt) {
            panic!("{}: {name} live (left) and rebuilt from the log (right): {difference}", server.name);
        }
    }
}

/// Ids chosen by hand collide, the network is cut for half of the time, every server is written on all the time.
#[test]
fn three_servers_written_on_together_and_apart() {
    let seconds = soak_seconds();
    let mut cluster = Cluster::scouting(3);
    cluster.part();
    let write = |cluster: &Cluster, part: &str| -> Vec<Writer> {
        cluster.running().map(|server| Writer::start(server, part, seconds, 50, &["--explicit-ids"])).collect()
    };
    let apart = write(&cluster, "apart");
    let mut record = apart.into_iter().map(Writer::finish).fold(Record::default(), Record::and);
    let together = write(&cluster, "together");
    cluster.heal();
    record = together.into_iter().map(Writer::finish).fold(record, Record::and);
    let written = std::time::Instant::now();
    cluster.settled(60);
    println!("equal {:.1} s after the last write", written.elapsed().as_secs_f64());
    assert_everything_kept(&cluster, &record);
    cluster.servers.iter().for_each(assert_log_is_the_truth);
}

/// The node is off, the app goes on writing: nothing of it is special afterwards.
#[test]
fn what_was_written_while_the_node_was_off_arrives() {
    let mut cluster = Cluster::scouting(2);
    cluster.servers[1].stop();
    let offline = Writer::start(&cluster.servers[1], "offline", 2, 60, &[]);
    let online = Writer::start(&cluster.servers[0], "online", 2, 60, &[]);
    let record = offline.finish().and(online.finish());
    cluster.servers[1].start();
    cluster.settled(30);
    assert_everything_kept(&cluster, &record);
}

/// The users file and the scouting file were both written while the node was off: the id of the scout is one that
/// another server gave to somebody else meanwhile. The work must not become another person's.
#[test]
fn a_reference_across_files_written_while_the_node_was_off_follows() {
    let mut cluster = Cluster::scouting(2);
    cluster.servers[1].stop();
    for server in &cluster.servers {
        let name = &server.name;
        let user = format!("INSERT INTO user (id, username, marker) VALUES (2, '{name}', 'user-{name}')");
        app(server.database("users"), &user);
        let work = format!(
            "INSERT INTO observation (match_id, team_id, scout_id, data_json, marker, match_marker, team_marker, scout_marker)
             VALUES (1, 1, 2, '{{}}', 'observation-{name}', 'match-1', 'team-1', 'user-{name}')"
        );
        app(server.database("scouting"), &work);
    }
    cluster.servers[1].start();
    cluster.settled(30);
    cluster.servers.iter().for_each(assert_references_hold);
}

/// After a restart on the same ports nobody has to be told anything.
#[test]
fn a_restart_keeps_identity_peers_and_state() {
    let mut cluster = Cluster::scouting(2);
    let id = cluster.servers[1].node_id();
    for turn in 0..2 {
        cluster.servers[turn].stop();
        app(cluster.servers[1 - turn].database("scouting"), "INSERT INTO team (team_number) VALUES (777)");
        cluster.servers[turn].start();
        cluster.connected();
        cluster.settled(20);
    }
    assert_eq!(cluster.servers[1].node_id(), id);
    assert_eq!(number(cluster.servers[0].database("scouting"), "SELECT count(*) FROM team WHERE team_number = 777"), 2);
}

/// The same id was given to two teams; both stay, the references of each follow it, and the way of the id is told.
#[test]
fn two_rows_with_one_id_both_stay() {
    let mut cluster = Cluster::scouting(2);
    cluster.part();
    for server in &cluster.servers {
        let name = &server.name;
        app(
            server.database("scouting"),
            &format!(
                "BEGIN;
                 INSERT INTO team (id, team_number, team_name, marker) VALUES (57, 57, 'of {name}', 'team-{name}');
                 INSERT INTO \"match\" (id, match_number, match_type, event_id, marker, event_marker)
                     VALUES (57, 1, 'Final', 1, 'match-{name}', 'event-1');
                 INSERT INTO observation (id, match_id, team_id, scout_id, data_json, marker, match_marker, team_marker,
                         scout_marker)
                     VALUES (57, 57, 57, 1, '{{}}', 'observation-{name}', 'match-{name}', 'team-{name}', 'user-1');
                 INSERT INTO team_event VALUES (57, 1);
                 COMMIT"
            ),
        );
    }
    cluster.heal();
    cluster.settled(30);
    let file = cluster.servers[0].database("scouting");
    let ids = texts(file, "SELECT CAST(id AS TEXT) FROM team WHERE marker IN ('team-s0', 'team-s1') ORDER BY marker");
    assert_eq!(ids.len(), 2, "both teams stay");
    assert_eq!(ids[0], "57", "the founder's row keeps its id");
    assert!(ids[1].parse::<i64>().unwrap() < 1 << 31, "an id that every program can hold: {}", ids[1]);
    assert_eq!(
        number(
            file,
            "SELECT count(*) FROM team_event te JOIN team t ON t.id = te.team_id WHERE t.marker LIKE 'team-s%'"
        ),
        2
    );
    cluster.servers.iter().for_each(assert_references_hold);
    let told = cluster.servers[0].cli(&["where", "scouting.team", "57"]).done();
    assert!(told.stdout.contains(&ids[1]), "`where` names the new id {}:\n{}", ids[1], told.stdout);
}

/// Of two concurrent values of one cell one is shown, the same on both, and the other is listed on both with its author.
#[test]
fn the_losing_value_is_kept_and_listed() {
    let cluster = Cluster::with_one_cell_written_twice();
    let file = cluster.servers[0].database("scouting");
    let shown = texts(file, "SELECT location FROM team WHERE id = 1").remove(0);
    let lost = if shown == "by s0" { "by s1" } else { "by s0" };
    for server in &cluster.servers {
        let conflicts = server.cli(&["--json", "conflicts", "list"]).done().json_rows();
        let of_cell: Vec<_> =
            conflicts.iter().filter(|one| one["table"] == "team" && one["column"] == "location").collect();
        let [conflict] = of_cell[..] else { panic!("one entry on {}, not {of_cell:?}", server.name) };
        let said = |side: &str, field: &str| conflict[side][field].as_str().unwrap().to_owned();
        assert!(said("loser", "value").contains(lost) && said("winner", "value").contains(&shown), "{conflict}");
        assert_eq!(format!("by {}", said("loser", "node")), lost);
        let number = conflict["number"].to_string();
        let told = server.cli(&["conflicts", "show", &number]).done().stdout;
        assert!(told.contains(lost) && told.contains(&shown), "{told}");
        let history = server.cli(&["history", "scouting.team", "1"]).done().stdout;
        assert!(history.contains(lost) && history.contains(&shown), "{history}");
    }
}

/// One username given to two people apart: accounts never merge. Both are there, the later one under a tagged name, and
/// its true name comes back when it is free.
#[test]
fn of_two_accounts_with_one_name_the_later_one_is_tagged_until_the_name_is_free() {
    let mut cluster = Cluster::scouting(2);
    cluster.part();
    for server in &cluster.servers {
        let name = &server.name;
        let account =
            format!("INSERT INTO user (username, email, marker) VALUES ('chris', '{name}@x.org', 'of {name}')");
        app(server.database("users"), &account);
    }
    cluster.heal();
    cluster.settled(30);
    let names = "SELECT username FROM user WHERE marker LIKE 'of s%' ORDER BY length(username)";
    let seen = texts(cluster.servers[0].database("users"), names);
    let [kept, tagged] = &seen[..] else { panic!("both accounts are shown: {seen:?}") };
    assert!(kept == "chris" && tagged.starts_with("chris~") && tagged.len() == 10, "{seen:?}");
    for server in &cluster.servers {
        assert_eq!(texts(server.database("users"), names), seen, "the same on {}", server.name);
        assert_eq!(server.cli(&["--json", "shelf", "list"]).done().json_rows().len(), 0);
    }
    // A person who gives the first one another name frees it.
    app(cluster.servers[1].database("users"), "UPDATE user SET username = 'chris the elder' WHERE username = 'chris'");
    until("the true name is back everywhere", 60, || {
        let seen: Vec<_> = cluster.servers.iter().map(|server| texts(server.database("users"), names)).collect();
        if seen.iter().all(|names| names[..] == ["chris", "chris the elder"]) {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    });
    cluster.settled(30);
    for server in &cluster.servers {
        assert_sound(server.database("users"));
    }
}

/// A collision that nothing can tag (a number): the row waits on the shelf, listed, and comes when the number is free.
#[test]
fn a_row_whose_number_is_taken_by_an_update_waits_and_comes_back() {
    let mut cluster = Cluster::scouting(2);
    app(
        cluster.servers[0].database("scouting"),
        "INSERT INTO team_settings (team_number, locked) VALUES (7001, 21), (7002, 22)",
    );
    cluster.settled(30);
    cluster.part();
    for (server, marker) in cluster.servers.iter().zip([21, 22]) {
        app(
            server.database("scouting"),
            &format!("UPDATE team_settings SET team_number = 7100 WHERE locked = {marker}"),
        );
    }
    cluster.heal();
    cluster.settled(30);
    let numbers = "SELECT team_number FROM team_settings WHERE locked > 20 ORDER BY 1";
    for server in &cluster.servers {
        assert_eq!(texts(server.database("scouting"), numbers), ["7100"]);
        let shelf = server.cli(&["--json", "shelf", "list"]).done().json_rows();
        assert!(shelf.len() == 1 && shelf[0]["cells"].to_string().contains("7100"), "{shelf:?}");
    }
    let free = "UPDATE team_settings SET team_number = 7101 WHERE team_number = 7100";
    app(cluster.servers[1].database("scouting"), free);
    until("the other row is shown everywhere", 60, || {
        let seen: Vec<_> = cluster.servers.iter().map(|server| texts(server.database("scouting"), numbers)).collect();
        if seen.iter().all(|seen| seen[..] == ["7100", "7101"]) { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}

/// Two changes that SQLite refuses together: the newest whole row is shown, the same one everywhere, and told.
#[test]
fn of_a_mix_that_a_check_refuses_the_newest_whole_row_is_shown() {
    let mut cluster = Cluster::scouting(2);
    let slots = "CREATE TABLE slot (id INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL,
                 CHECK (first <= last));";
    for server in &cluster.servers {
        app(server.database("scouting"), slots);
    }
    app(cluster.servers[0].database("scouting"), "INSERT INTO slot VALUES (1, 10, 20)");
    let file = cluster.servers[1].database("scouting").to_owned();
    let seen = |query: &str| texts(&file, query);
    until("the slot arrives", 30, || {
        if seen("SELECT id FROM slot") == ["1"] { Ok(()) } else { Err("not yet".to_owned()) }
    });
    cluster.settled(30);
    cluster.part();
    app(cluster.servers[0].database("scouting"), "UPDATE slot SET first = 18 WHERE id = 1");
    app(cluster.servers[1].database("scouting"), "UPDATE slot SET last = 12 WHERE id = 1");
    cluster.heal();
    cluster.settled(30);
    let slot = "SELECT first || '-' || last FROM slot WHERE id = 1";
    let shown = seen(slot);
    assert!(shown == ["18-20"] || shown == ["10-12"], "{shown:?}");
    for server in &cluster.servers {
        assert_eq!(texts(server.database("scouting"), slot), shown);
        assert_eq!(server.cli(&["--json", "shelf", "list"]).done().json_rows().len(), 0);
        let history = server.cli(&["history", "scouting.slot", "1"]).done().stdout;
        assert!(history.contains("CHECK constraint"), "{history}");
    }
    // A change that fits both ends it.
    app(cluster.servers[0].database("scouting"), "UPDATE slot SET first = 1, last = 30 WHERE id = 1");
    until("the new row is everywhere", 30, || {
        let seen = seen(slot);
        if seen == ["1-30"] { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    cluster.settled(30);
}

/// Different cells of one row changed apart: both changes are in the row.
#[test]
fn two_cells_of_one_row_do_not_fight() {
    let mut cluster = Cluster::scouting(2);
    cluster.part();
    app(cluster.servers[0].database("scouting"), "UPDATE team SET location = 'Here' WHERE id = 2");
    app(cluster.servers[1].database("scouting"), "UPDATE team SET team_name = 'Renamed' WHERE id = 2");
    cluster.heal();
    cluster.settled(30);
    let found = texts(cluster.servers[0].database("scouting"), "SELECT location || team_name FROM team WHERE id = 2");
    assert_eq!(found, ["HereRenamed"]);
}

/// A source transaction is seen whole: no reader ever meets a match without its six observations.
#[test]
fn a_transaction_is_never_torn() {
    let cluster = Cluster::scouting(2);
    let source = cluster.servers[0].database("scouting").to_owned();
    let writer = std::thread::spawn(move || {
        let mut app = support::dump::open(&source);
        for turn in 0..150 {
            let whole = app.transaction().unwrap();
            let insert =
                "INSERT INTO \"match\" (match_number, match_type, event_id, marker) VALUES (?1, 'Whole', 1, 'w')";
            whole.execute(insert, [turn]).unwrap();
            let id = whole.last_insert_rowid();
            for _ in 0..6 {
                let insert = "INSERT INTO observation (match_id, team_id, data_json) VALUES (?1, 1, 'whole')";
                whole.execute(insert, [id]).unwrap();
            }
            whole.commit().unwrap();
        }
    });
    let reader = support::dump::open(cluster.servers[1].database("scouting"));
    let both = "SELECT (SELECT count(*) FROM \"match\" WHERE marker = 'w'), \
                (SELECT count(*) FROM observation WHERE data_json = 'whole')";
    until("every match arrives", 30, || {
        let (matches, observations): (i64, i64) =
            reader.query_row(both, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(observations, 6 * matches, "a transaction was torn");
        if matches == 150 { Ok(()) } else { Err(format!("{matches} matches")) }
    });
    writer.join().unwrap();
}

/// A server that joins a cluster with history gets everything; what it brought stays.
#[test]
fn a_newcomer_with_an_old_copy_gets_everything_and_loses_nothing() {
    let fixtures = [("scouting", "scouting.sql"), ("users", "users.sql")];
    let mut cluster = Cluster::unjoined(2, &fixtures, Some("scouting.toml"));
    cluster.servers[0].start();
    let record = Writer::start(&cluster.servers[0], "before", 2, 80, &[]).finish();
    // The newcomer's own work, done before it ever heard of the cluster.
    app(
        cluster.servers[1].database("scouting"),
        "INSERT INTO team (team_number, team_name, marker) VALUES (888, 'brought along', 'team-brought');
         INSERT INTO observation (match_id, team_id, scout_id, data_json, marker, match_marker, team_marker, scout_marker)
             SELECT 1, id, 1, '{}', 'observation-brought', 'match-1', 'team-brought', 'user-1' FROM team
             WHERE marker = 'team-brought'",
    );
    let code = cluster.servers[0].invite();
    let flags = cluster.servers[1].database_flags();
    let plan: Vec<&str> = ["join", &code, "--plan"].into_iter().chain(flags.iter().map(String::as_str)).collect();
    let shown = cluster.servers[1].cli(&plan).done();
    assert!(shown.stdout.contains("team"), "the plan names tables:\n{}", shown.stdout);
    cluster.join(1);
    let address = cluster.servers[0].address();
    cluster.servers[1].start_with(&["--peer", &address]);
    cluster.connected();
    cluster.settled(60);
    assert_everything_kept(&cluster, &record);
    for server in &cluster.servers {
        assert_eq!(number(server.database("scouting"), "SELECT count(*) FROM team WHERE marker = 'team-brought'"), 1);
        assert_eq!(number(server.database("scouting"), "SELECT count(*) FROM team WHERE marker = 'team-1'"), 1);
    }
}

/// The administrator copies the live file of a member to a new machine and joins: the same rows, none of them twice.
#[test]
fn a_newcomer_with_a_copy_of_a_members_file_doubles_nothing() {
    let fixtures = [("scouting", "scouting.sql"), ("users", "users.sql")];
    let mut cluster = Cluster::unjoined(2, &fixtures, Some("scouting.toml"));
    cluster.servers[0].start();
    let record = Writer::start(&cluster.servers[0], "before", 1, 80, &[]).finish();
    until("the node has taken it all in", 20, || {
        let outbox = cluster.servers[0].database_status("scouting")["outbox"].clone();
        if outbox == 0 { Ok(()) } else { Err(outbox.to_string()) }
    });
    for name in ["scouting", "users"] {
        let copy = cluster.servers[1].database(name);
        std::fs::remove_file(copy).unwrap();
        let from = support::dump::open(cluster.servers[0].database(name));
        from.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    }
    cluster.join(1);
    let address = cluster.servers[0].address();
    cluster.servers[1].start_with(&["--peer", &address]);
    cluster.connected();
    cluster.settled(30);
    assert_everything_kept(&cluster, &record);
}

/// The server in the middle is the only link; what is written on one end reaches the other.
#[test]
fn a_relay_passes_on_what_it_did_not_write() {
    let mut cluster = Cluster::scouting(3);
    // s1 and s2 know only s0. s1 writes and goes; s2 was off meanwhile and gets it from s0 alone.
    cluster.servers[2].stop();
    app(cluster.servers[1].database("scouting"), "INSERT INTO team (team_number, marker) VALUES (999, 'team-relayed')");
    settled(&[&cluster.servers[0], &cluster.servers[1]], 20);
    cluster.servers[1].stop();
    cluster.servers[2].start();
    settled(&[&cluster.servers[0], &cluster.servers[2]], 20);
    let count = "SELECT count(*) FROM team WHERE marker = 'team-relayed'";
    assert_eq!(number(cluster.servers[2].database("scouting"), count), 1);
}

/// `sync --wait` says when it is done, and what only this server holds is told beforehand.
#[test]
fn only_here_counts_down_to_nothing() {
    let mut cluster = Cluster::scouting(2);
    cluster.servers[1].stop();
    app(cluster.servers[0].database("scouting"), "INSERT INTO team (team_number) VALUES (111)");
    until("the row is known to be only here", 20, || {
        let only_here = cluster.servers[0].status()["only_here"].clone();
        if only_here["events"].as_u64().unwrap() > 0 { Ok(()) } else { Err(only_here.to_string()) }
    });
    cluster.servers[1].start();
    cluster.connected();
    cluster.servers[0].cli(&["sync", "--wait", "20"]).done();
    assert_eq!(number(cluster.servers[1].database("scouting"), "SELECT count(*) FROM team WHERE team_number = 111"), 1);
    until("nothing is only here", 20, || {
        let only_here = cluster.servers[0].status()["only_here"].clone();
        if only_here["events"] == 0 { Ok(()) } else { Err(only_here.to_string()) }
    });
}
