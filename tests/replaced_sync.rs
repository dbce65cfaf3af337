//! The thirteen ways in which the sync that litemesh replaces lost data, one test each, in its own order.
//!
//! Each test opens with the story of the failure as it was seen in a run of that program. What it does not verify: that
//! program itself; only that the same situation ends well here.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::cluster::{Cluster, dumps};
use support::dump::{assert_sound, number, texts};
use support::recorder::assert_references_hold;
use support::server::Server;
use support::{app, beside, until};

/// Everyone writes on its own server while the network is cut; then it heals.
#[track_caller]
fn apart(count: usize, write: impl Fn(usize, &Cluster)) -> Cluster {
    let mut cluster = Cluster::scouting(count);
    cluster.part();
    (0..count).for_each(|number| write(number, &cluster));
    cluster.heal();
    cluster.settled(30);
    cluster
}

/// Failure 1: Both servers, apart, insert user, team and scouting row. Ids collided; "full sync" reported success; one server's
/// rows were gone.
#[test]
fn f01_rows_made_apart_all_survive() {
    let cluster = apart(2, |number, cluster| {
        let server = &cluster.servers[number];
        let name = &server.name;
        app(
            server.database("users"),
            &format!("INSERT INTO user (id, username, marker) VALUES (2, 'scout-{name}', 'user-{name}')"),
        );
        app(
            server.database("scouting"),
            &format!(
                "INSERT INTO team (id, team_number, marker) VALUES (5, 55{number}, 'team-{name}');
             INSERT INTO observation (id, match_id, team_id, scout_id, data_json, marker, match_marker, team_marker,
                 scout_marker)
                 VALUES (2, 1, 5, 2, '{{}}', 'observation-{name}', 'match-1', 'team-{name}', 'user-{name}')"
            ),
        );
    });
    for server in &cluster.servers {
        for (database, table) in [("users", "user"), ("scouting", "team"), ("scouting", "observation")] {
            let query = format!("SELECT count(*) FROM {table} WHERE marker LIKE '{table}-s%'");
            assert_eq!(number(server.database(database), &query), 2, "{table} on {}", server.name);
        }
        assert_references_hold(server);
        assert_sound(server.database("scouting"));
    }
}

/// Failure 2: Rows deleted on one server came back from the other.
#[test]
fn f02_what_was_deleted_stays_deleted() {
    let mut cluster = Cluster::scouting(2);
    app(cluster.servers[0].database("scouting"), "INSERT INTO team (team_number) SELECT 600 + id FROM team");
    cluster.settled(20);
    cluster.servers[1].stop();
    app(cluster.servers[0].database("scouting"), "DELETE FROM team WHERE team_number > 600; DELETE FROM observation");
    cluster.servers[1].start();
    cluster.settled(20);
    for turn in 0..2 {
        cluster.servers[turn].stop();
        cluster.servers[turn].start();
        cluster.connected();
        cluster.settled(20);
        for server in &cluster.servers {
            assert_eq!(number(server.database("scouting"), "SELECT count(*) FROM team WHERE team_number > 600"), 0);
            assert_eq!(number(server.database("scouting"), "SELECT count(*) FROM observation"), 0);
        }
    }
}

/// Failure 3: The same username created on two servers under two ids: one account was gone afterwards, grants and scout ids
/// dangled on both; roles merged under one id, so rights leaked between people.
#[test]
fn f03_equal_usernames_stay_two_accounts_with_their_own_rights() {
    let cluster = apart(2, |number, cluster| {
        let server = &cluster.servers[number];
        let (name, id, role) = (&server.name, 2 + number, 1 + 3 * number);
        app(server.database("users"), &format!(
            "INSERT INTO user (id, username, password_hash, marker) VALUES ({id}, 'chris', 'hash of {name}', 'user-{name}');
             INSERT INTO user_roles VALUES ({id}, {role})"));
        app(server.database("scouting"), &format!(
            "INSERT INTO observation (match_id, team_id, scout_id, data_json, marker, match_marker, team_marker, scout_marker)
                 VALUES (1, 1, {id}, '{{}}', 'observation-{name}', 'match-1', 'team-1', 'user-{name}')"));
    });
    for server in &cluster.servers {
        let file = server.database("users");
        assert_eq!(number(file, "SELECT count(*) FROM user WHERE username = 'chris'"), 1, "UNIQUE holds");
        // Both people are there: shown (the later one under a name of its own), or listed on the shelf with the reason.
        let shown = texts(file, "SELECT marker FROM user WHERE marker LIKE 'user-s%' ORDER BY 1");
        let shelf = server.cli(&["--json", "shelf", "list"]).done().stdout;
        for person in ["user-s0", "user-s1"] {
            let there = shown.iter().any(|marker| marker == person) || shelf.contains(person);
            assert!(there, "{person} is gone from {}: shown {shown:?}, shelf {shelf}", server.name);
        }
        // Whoever is shown has exactly the rights that were given to that person, and that person's password.
        let rights = texts(
            file,
            "SELECT u.marker || ' ' || u.password_hash || ' ' || coalesce(group_concat(r.role_id), '') FROM user u \
             LEFT JOIN user_roles r ON r.user_id = u.id WHERE u.marker LIKE 'user-s%' GROUP BY u.id ORDER BY 1",
        );
        for line in rights {
            assert!(
                ["user-s0 hash of s0 1", "user-s1 hash of s1 4"].contains(&line.as_str()),
                "{line} on {}",
                server.name
            );
        }
        // No observation is another person's now.
        let observations = texts(
            server.database("scouting"),
            "SELECT scout_marker || ' ' || scout_id FROM observation WHERE marker LIKE 'observation-s%' ORDER BY 1",
        );
        assert_eq!(observations.len(), 2);
        for line in observations {
            let (person, id) = line.split_once(' ').unwrap();
            let holder = texts(file, &format!("SELECT marker FROM user WHERE id = {id}"));
            assert!(holder.is_empty() || holder == [person], "the work of {person} is shown as done by {holder:?}");
        }
    }
}

/// Failure 4: One BLOB anywhere stopped every sync: it was not JSON.
#[test]
fn f04_blobs_and_odd_text_travel_exactly() {
    let cluster = Cluster::scouting(2);
    app(
        cluster.servers[0].database("scouting"),
        "UPDATE observation SET photo = x'00ff80c328', data_json = CAST(x'610062ff' AS TEXT) WHERE id = 1;
         INSERT INTO observation (match_id, team_id, data_json, photo) VALUES (1, 1, '', zeroblob(300000))",
    );
    cluster.settled(20);
    let kept = "SELECT hex(photo) || ' ' || hex(data_json) || ' ' || typeof(data_json) FROM observation WHERE id = 1";
    assert_eq!(texts(cluster.servers[1].database("scouting"), kept), ["00FF80C328 610062FF text"]);
    let big = "SELECT count(*) FROM observation WHERE photo = zeroblob(300000)";
    assert_eq!(number(cluster.servers[1].database("scouting"), big), 1);
}

/// Failure 5: Of five pending changes four failed to apply, all five were marked as synced; nobody was told.
#[test]
fn f05_nothing_is_called_applied_that_is_not() {
    // A constraint that only one server has makes applying impossible there.
    let mut cluster = Cluster::scouting(2);
    let strict = &cluster.servers[1];
    app(strict.database("scouting"), "CREATE UNIQUE INDEX only_here ON alliance (alliance_name)");
    cluster.part();
    app(
        cluster.servers[0].database("scouting"),
        "INSERT INTO alliance (alliance_name, marker) VALUES ('Same', 'a'), ('Same', 'b'), ('Same', 'c'), ('Other', 'd');
         UPDATE team SET location = 'still arrives' WHERE id = 3",
    );
    cluster.heal();
    let strict = &cluster.servers[1];
    until("the rest arrives", 30, || {
        let found = texts(strict.database("scouting"), "SELECT location FROM team WHERE id = 3");
        if found == ["still arrives"] { Ok(()) } else { Err(format!("{found:?}")) }
    });
    // Each of the four is visible, or the server says by number that it holds something back.
    until("the server tells what it could not show", 30, || {
        let visible =
            number(strict.database("scouting"), "SELECT count(*) FROM alliance WHERE marker IN ('a','b','c','d')");
        let report = strict.database_status("scouting");
        let aside = report["shelved"].as_i64().unwrap() + report["held_events"].as_i64().unwrap();
        if visible == 4 || (visible >= 1 && aside > 0) { Ok(()) } else { Err(format!("{visible} visible, {report}")) }
    });
    // And it comes by itself when the obstacle is gone.
    app(strict.database("scouting"), "DROP INDEX only_here");
    cluster.settled(30);
    let all = "SELECT count(*) FROM alliance WHERE marker IN ('a','b','c','d')";
    assert_eq!(number(cluster.servers[1].database("scouting"), all), 4);
}

/// Failure 6: Tables without timestamp columns were cut at 1,000 rows, without order.
#[test]
fn f06_large_tables_without_timestamps_arrive_whole() {
    let cluster = Cluster::scouting(2);
    app(
        cluster.servers[0].database("scouting"),
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
         INSERT INTO team (team_number, marker) SELECT 20000 + i, 'bulk-' || i FROM n;
         INSERT INTO team_event SELECT id, 2 FROM team WHERE marker LIKE 'bulk-%'",
    );
    cluster.settled(60);
    let file = cluster.servers[1].database("scouting");
    assert_eq!(number(file, "SELECT count(*) FROM team WHERE marker LIKE 'bulk-%'"), 3000);
    assert_eq!(number(file, "SELECT count(*) FROM team_event WHERE event_id = 2"), 3001);
}

/// Failure 7: `2025-09-06 23:00:00` compared as text with `2025-09-06T01:00:00`: a whole day was lost.
#[test]
fn f07_no_column_of_the_app_decides_what_is_sent() {
    let mut cluster = Cluster::scouting(2);
    app(cluster.servers[0].database("scouting"), "UPDATE \"match\" SET timestamp = '2025-09-06T23:00:00'");
    cluster.settled(20);
    cluster.servers[1].stop();
    app(
        cluster.servers[0].database("scouting"),
        "INSERT INTO \"match\" (match_number, match_type, event_id, timestamp) VALUES
             (90, 'Final', 1, '2025-09-06 23:00:00'), (91, 'Final', 1, '1970-01-01T00:00:00'), (92, 'Final', 1, NULL),
             (93, 'Final', 1, 'no time at all'), (94, 'Final', 1, '9999-12-31')",
    );
    cluster.servers[1].start();
    cluster.settled(20);
    let arrived = "SELECT count(*) FROM \"match\" WHERE match_number BETWEEN 90 AND 94";
    assert_eq!(number(cluster.servers[1].database("scouting"), arrived), 5);
}

/// Failure 8: Node-local tables were replicated: a server got its peer's address book and identity and synced with itself.
#[test]
fn f08_local_tables_stay_local() {
    let cluster = Cluster::scouting(2);
    for server in &cluster.servers {
        let change = format!("INSERT INTO sync_servers (name, host) VALUES ('me', '{}')", server.name);
        app(server.database("scouting"), &change);
        app(
            server.database("scouting"),
            &format!("INSERT INTO team (team_number, marker) VALUES (1, 't-{}')", server.name),
        );
    }
    cluster.settled(20);
    for server in &cluster.servers {
        assert_eq!(texts(server.database("scouting"), "SELECT host FROM sync_servers"), [server.name.as_str()]);
    }
}

/// Failure 9: "Synced" was one flag for all peers: with three servers the first success hid the change from the third.
#[test]
fn f09_a_late_third_server_gets_everything() {
    let mut cluster = Cluster::scouting(3);
    cluster.servers[2].stop();
    app(cluster.servers[0].database("scouting"), "INSERT INTO team (team_number, marker) VALUES (9, 'team-nine')");
    cluster.settled(20);
    cluster.servers[2].start();
    cluster.settled(20);
    let count = "SELECT count(*) FROM team WHERE marker = 'team-nine'";
    assert_eq!(number(cluster.servers[2].database("scouting"), count), 1);
}

/// Failure 10: The cursor moved to "now" after the exchange: what was written during it was skipped.
#[test]
fn f10_what_is_written_during_the_exchange_is_not_skipped() {
    let mut cluster = Cluster::scouting(2);
    cluster.servers[1].stop();
    app(
        cluster.servers[0].database("scouting"),
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
         INSERT INTO team (team_number, marker) SELECT i, 'before-' || i FROM n",
    );
    cluster.servers[1].start();
    // The exchange is under way; both sides go on.
    for turn in 0..100 {
        for server in &cluster.servers {
            let name = &server.name;
            let change = format!("INSERT INTO team (team_number, marker) VALUES ({turn}, 'during-{name}-{turn}')");
            let app = support::dump::open(server.database("scouting"));
            app.execute_batch(&change).unwrap();
        }
    }
    cluster.settled(90);
    let file = cluster.servers[1].database("scouting");
    assert_eq!(number(file, "SELECT count(*) FROM team WHERE marker LIKE 'before-%'"), 20_000);
    assert_eq!(number(file, "SELECT count(*) FROM team WHERE marker LIKE 'during-%'"), 200);
}

/// Failure 11: A change tracker fed by ORM hooks missed raw SQL, bulk updates and association tables, logged rolled-back rows,
/// and lost its queue at exit.
#[test]
fn f11_every_way_of_writing_is_captured_and_nothing_else() {
    let mut cluster = Cluster::scouting(2);
    app(
        cluster.servers[0].database("scouting"),
        "UPDATE team SET location = 'bulk';
         INSERT INTO team_event SELECT id, 2 FROM team WHERE id < 4;
         DELETE FROM team_event WHERE event_id = 1;
         BEGIN; INSERT INTO team (team_number, marker) VALUES (1, 'rolled-back'); DELETE FROM team_event; ROLLBACK;
         BEGIN; INSERT INTO team (team_number, marker) VALUES (1, 'kept'); SAVEPOINT a;
             INSERT INTO team (team_number, marker) VALUES (1, 'rolled-back'); ROLLBACK TO a; COMMIT;
         INSERT INTO team_settings (team_number, locked) VALUES (5, 0);
         INSERT OR REPLACE INTO team_settings (team_number, locked) VALUES (5, 1);
         INSERT INTO team_settings (team_number, locked) VALUES (6, 0), (7, 0);
         UPDATE OR REPLACE team_settings SET team_number = 7 WHERE team_number = 6;
         UPDATE alliance SET id = 40 WHERE id = 1",
    );
    // Killed right after the commit: the queue must be in the app's own transaction.
    cluster.servers[0].kill();
    cluster.servers[0].start();
    cluster.settled(30);
    let file = cluster.servers[1].database("scouting");
    assert_eq!(number(file, "SELECT count(*) FROM team WHERE location = 'bulk'"), 4);
    assert_eq!(number(file, "SELECT count(*) FROM team_event"), 4);
    assert_eq!(texts(file, "SELECT marker FROM team WHERE id NOT BETWEEN 1 AND 4"), ["kept"]);
    assert_eq!(
        texts(file, "SELECT team_number || ':' || locked FROM team_settings ORDER BY 1"),
        ["5:1", "7:0"],
        "rows evicted by OR REPLACE are gone everywhere"
    );
    assert_eq!(number(file, "SELECT id FROM alliance"), 40);
}

/// Failure 12: Anyone on the LAN could fetch every password hash.
#[test]
fn f12_nobody_reads_without_being_a_member_or_having_the_token() {
    let cluster = Cluster::scouting(1);
    let server = &cluster.servers[0];
    for path in [
        "/api/v1/status",
        "/api/v1/events",
        "/api/v1/openapi.json",
        "/metrics",
        "/",
        "/api/sync/sqlite3/optimized-changes?since=1970-01-01T00:00:00&limit=1000",
    ] {
        let answer = ureq::get(format!("{}{path}", server.http())).config().http_status_as_error(false).build().call();
        let mut answer = answer.unwrap();
        let status = answer.status().as_u16();
        let body = answer.body_mut().read_to_string().unwrap_or_default();
        assert!(!body.contains("placeholder"), "{path} shows a password hash");
        // The page itself may be served so that it can ask for the token; data may not.
        assert!(status == 401 || status == 403 || (path == "/" && status == 200), "{path} answered {status}");
    }
    // The network side: an outsider's own cluster, told this node's address, gets nothing.
    let mut stranger =
        Cluster::unjoined(1, &[("scouting", "scouting.sql"), ("users", "users.sql")], Some("scouting.toml"));
    app(stranger.servers[0].database("users"), "DELETE FROM user_roles; DELETE FROM user");
    let address = server.address();
    stranger.servers[0].start_with(&["--peer", &address]);
    let refused = stranger.servers[0].cli(&["sync", "--wait", "3"]);
    assert_ne!(refused.code, Some(70), "{refused:?}");
    assert_eq!(number(stranger.servers[0].database("users"), "SELECT count(*) FROM user"), 0);
    assert_eq!(support::cluster::connected_peers(server), 0);
}

/// Failure 13: A crash left a run "in progress" for ever; a failed start was ignored; a watermark that was never set re-read
/// everything; two changes of one millisecond counted as one.
#[test]
fn f13_a_crash_leaves_nothing_open_and_nothing_is_read_twice() {
    let mut cluster = Cluster::scouting(2);
    cluster.servers[1].stop();
    let rows = write_in_steps(&cluster.servers[0]);
    // In the middle of a sync: killed when the first rows are there and the last are not, first the receiver, then both.
    let count = "SELECT count(*) FROM team WHERE marker LIKE 'step-%'";
    let mut in_the_middle = 0;
    for turn in 0..3 {
        let before = number(cluster.servers[1].database("scouting"), count);
        cluster.servers[1].start();
        until("the sync goes on where it was", 30, || {
            let now = number(cluster.servers[1].database("scouting"), count);
            if now > before || now == rows { Ok(()) } else { Err(format!("{now} of {rows} rows")) }
        });
        cluster.servers[1].kill();
        in_the_middle += usize::from(number(cluster.servers[1].database("scouting"), count) < rows);
        if turn == 1 {
            cluster.servers[0].kill();
            cluster.servers[0].start();
        }
    }
    assert!(in_the_middle > 0, "the sync was over before every kill: more rows are needed");
    cluster.servers[1].start();
    cluster.settled(60);
    killed_while_it_applies(&mut cluster);
    for server in &cluster.servers {
        assert_eq!(number(server.database("scouting"), count), rows, "{}", server.name);
        let instant = "SELECT count(DISTINCT marker) FROM team WHERE marker LIKE 'instant-%'";
        assert_eq!(number(server.database("scouting"), instant), 200, "writes of one millisecond on {}", server.name);
        assert_nothing_open(server);
    }
    // Once more from the start: had a cursor not been kept, the same rows would be captured or fetched again.
    let told = counted(&cluster);
    assert_eq!(told[0], told[1], "both hold the same number of events and the same content");
    for server in &mut cluster.servers {
        server.kill();
        server.start();
    }
    cluster.connected();
    cluster.settled(30);
    cluster.servers.iter().for_each(assert_nothing_open);
    assert_eq!(counted(&cluster), told, "a restart reads nothing again");
}

/// Many captures, so that a sync of them takes many steps; and 200 commits, many of them in one millisecond.
fn write_in_steps(server: &Server) -> i64 {
    for step in 0..30 {
        let rows = format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600)
             INSERT INTO team (team_number, marker) SELECT {step} * 1000 + i, 'step-{step}-' || i FROM n"
        );
        app(server.database("scouting"), &rows);
        until("the step is an event of its own", 20, || {
            let outbox = number(server.database("scouting"), "SELECT count(*) FROM _litemesh_outbox");
            if outbox == 0 { Ok(()) } else { Err(format!("{outbox} marks")) }
        });
    }
    let commit = |turn| format!("INSERT INTO team (team_number, marker) VALUES ({turn}, 'instant-{turn}');");
    app(server.database("scouting"), &(0..200).map(commit).collect::<String>());
    30 * 600
}

/// The app holds the write lock, so what was received cannot be shown yet: there the receiver is killed.
fn killed_while_it_applies(cluster: &mut Cluster) {
    let mut app_connection = support::dump::open(cluster.servers[1].database("scouting"));
    let long = app_connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    let delayed = "INSERT INTO team (team_number, marker) VALUES (1, 'delayed'); UPDATE team SET location = 'delayed' WHERE id < 3";
    app(cluster.servers[0].database("scouting"), delayed);
    until("the event is received and not shown", 20, || {
        let waits = cluster.servers[1].database_status("scouting")["held_events"].clone();
        if waits.as_u64() > Some(0) { Ok(()) } else { Err(format!("{waits} wait")) }
    });
    cluster.servers[1].kill();
    long.rollback().unwrap();
    cluster.servers[1].start();
    cluster.settled(30);
    let shown = "SELECT count(*) FROM team WHERE marker = 'delayed' OR location = 'delayed'";
    assert_eq!(number(cluster.servers[1].database("scouting"), shown), 3);
}

/// Nothing is open, in progress, waiting or wrong, and the node itself says so.
#[track_caller]
fn assert_nothing_open(server: &Server) {
    server.cli(&["sync", "--wait", "20"]).done();
    let status = until(&format!("{} has nothing left to do", server.name), 20, || {
        let status = server.status();
        let calm = status["databases"].as_array().unwrap().iter().all(|database| {
            database["state"] == "ok"
                && database["outbox"] == 0
                && database["held_events"] == 0
                && database["shelved"] == 0
        });
        let calm = calm && status["only_here"]["events"] == 0;
        if calm { Ok(status) } else { Err(status.to_string()) }
    });
    assert_eq!(status["alerts"].as_array().map(Vec::len), Some(0), "{status}");
    server.cli(&["log", "verify"]).done();
}

/// Per server and database: how many events, what content.
fn counted(cluster: &Cluster) -> Vec<Vec<String>> {
    let of_database = |database: &Value| format!("{} {} {}", database["name"], database["events"], database["digest"]);
    let of_server =
        |server: &Server| server.status()["databases"].as_array().unwrap().iter().map(of_database).collect();
    cluster.servers.iter().map(of_server).collect()
}

/// The same schema, the real one: two servers of the real application, apart, with all its tables.
#[test]
fn the_real_application_converges() {
    let (Some(scouting), Some(users)) = (beside("real_app/scouting.db"), beside("real_app/users.db")) else { return };
    let mut cluster = Cluster::unjoined(2, &[], None);
    for server in &mut cluster.servers {
        for (name, from) in [("scouting", &scouting), ("users", &users)] {
            let to = server.folder.join(format!("{name}.db"));
            std::fs::write(&to, std::fs::read(from).unwrap()).unwrap();
            server.databases.push((name.to_owned(), to));
        }
    }
    cluster.enrol();
    cluster.part();
    for server in &cluster.servers {
        let name = &server.name;
        app(
            server.database("users"),
            &format!(
                "INSERT INTO user (username, email, password_hash) VALUES ('lead', 'lead-{name}@x.org', 'h-{name}');
             INSERT INTO user_roles SELECT id, 2 FROM user WHERE username = 'lead'"
            ),
        );
        app(server.database("scouting"), &format!(
            "INSERT INTO team (id, team_number, team_name) VALUES (1, 254, '{name}'), (2, 1678, '{name}');
             INSERT INTO event (id, name, code, year) VALUES (1, 'Event of {name}', 'X', 2025);
             INSERT INTO team_event VALUES (1, 1), (2, 1);
             INSERT INTO \"match\" (id, match_number, match_type, event_id, red_alliance) VALUES (1, 1, 'Q', 1, '254,1678');
             INSERT INTO scouting_data (id, match_id, team_id, scout_name, scout_id, data_json)
                 VALUES (1, 1, 1, '{name}', 2, '{{\"by\": \"{name}\"}}');
             INSERT INTO strategy_drawing (id, match_id, data_json) VALUES (1, 1, '{name}');
             INSERT INTO scouting_team_settings (scouting_team_number, account_creation_locked) VALUES (254, 0);
             INSERT INTO login_attempts (ip_address, attempt_time, success) VALUES ('{name}', '2025-01-01', 1)"));
    }
    cluster.heal();
    until("both hold the same", 30, || {
        let local =
            ["login_attempts", "sync_servers", "sync_config", "sync_logs", "database_changes", "file_checksums"];
        let dump = |number: usize, name: &str| support::dump::dump(cluster.servers[number].database(name), &local);
        for name in ["scouting", "users"] {
            if let Some(difference) = support::dump::difference(&dump(0, name), &dump(1, name)) {
                return Err(difference);
            }
        }
        let rows = number(cluster.servers[0].database("scouting"), "SELECT count(*) FROM scouting_data");
        if rows == 2 { Ok(()) } else { Err(format!("{rows} scouting rows")) }
    });
    for server in &cluster.servers {
        let file = server.database("scouting");
        assert_eq!(texts(file, "SELECT ip_address FROM login_attempts"), [server.name.as_str()]);
        // Each scouting row leads to its own server's match, event and team.
        let astray = "SELECT count(*) FROM scouting_data s JOIN \"match\" m ON m.id = s.match_id JOIN event e ON e.id = m.event_id \
                      JOIN team t ON t.id = s.team_id WHERE e.name <> 'Event of ' || s.scout_name OR t.team_name <> s.scout_name";
        assert_eq!(number(file, astray), 0);
        assert_eq!(number(file, "SELECT count(*) FROM team"), 4);
        assert_sound(file);
        assert_sound(server.database("users"));
    }
    assert!(!dumps(&cluster.servers[0]).is_empty());
    assert_two_leads_with_their_own_rights(&cluster);
}

/// Two accounts with one UNIQUE name: both are shown, the later one under a name with a tag, each with its own password
/// and rights; the settings that both made for team 254 are one row; nothing is hidden.
#[track_caller]
fn assert_two_leads_with_their_own_rights(cluster: &Cluster) {
    for server in &cluster.servers {
        let file = server.database("users");
        let accounts = texts(
            file,
            "SELECT email || ' ' || password_hash || ' ' || group_concat(r.role_id) FROM user u \
             JOIN user_roles r ON r.user_id = u.id WHERE username LIKE 'lead%' GROUP BY u.id ORDER BY 1",
        );
        assert_eq!(accounts, ["lead-s0@x.org h-s0 2", "lead-s1@x.org h-s1 2"], "{}", server.name);
        let names = texts(file, "SELECT username FROM user WHERE username LIKE 'lead%' ORDER BY 1");
        assert!(names[0] == "lead" && names[1].starts_with("lead~"), "{names:?} on {}", server.name);
        let settings = "SELECT count(*) FROM scouting_team_settings WHERE scouting_team_number = 254";
        assert_eq!(number(server.database("scouting"), settings), 1, "{}", server.name);
        assert_eq!(server.cli(&["--json", "shelf", "list"]).done().json_rows(), [] as [Value; 0], "{}", server.name);
    }
}
