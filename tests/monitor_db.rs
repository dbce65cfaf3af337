//! `monitor.db` as dashboards see it: every kind of run, ended well, failed and cut short; the documented queries.
//!
//! Invariant: the file is read by Python's own SQLite, read-only, while the node runs. Kinds that do not fail here are named in
//! [`NEVER_FAIL`], with the reason. Not verified here: runs of a stopped node's commands, which nobody records.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use serde_json::{Value, json};
use support::cluster::Cluster;
use support::monitor::monitor;
use support::server::Server;
use support::{app, until};

/// Kinds of the design, the connections and calls beneath them, and a job of the user's own.
const KINDS: &[&str] = &[
    "capture",
    "announce",
    "pull",
    "reconcile",
    "apply",
    "verify",
    "cleanup",
    "bundle",
    "sync",
    "connection",
    "dial",
    "import",
];

/// An announcement goes to whoever listens, and nobody listening is no fault (who connects gets the heads). A comparison of
/// heads fails only with a peer that breaks the protocol, which is shut out for it. A pull fails when its answer is cut off,
/// which nobody outside can time: the node's own tests do (`node::tally`, `node::exchange`). Before every apply the same file is
/// drained: what breaks it ends there.
const NEVER_FAIL: &[&str] = &["announce", "reconcile", "pull", "apply"];

/// Waits until a query gives this.
#[track_caller]
fn seen(server: &Server, sql: &str, want: &Value) {
    until(sql, 60, || {
        let rows = Value::from(monitor(server, sql));
        if rows == *want { Ok(()) } else { Err(rows.to_string()) }
    });
}

/// Kinds with a run that ended so, on any of the servers.
fn kinds(servers: &[Server], status: &str) -> Vec<String> {
    let sql = format!("SELECT DISTINCT sync_type FROM sync_history WHERE status = '{status}'");
    let running = servers.iter().filter(|server| server.is_running());
    running.flat_map(|server| monitor(server, &sql)).map(|row| row[0].as_str().unwrap().to_owned()).collect()
}

/// A program that goes around the triggers.
fn unmarked(server: &Server, sql: &str) {
    let file = Connection::open(server.database("scouting")).unwrap();
    file.busy_timeout(support::patience(10)).unwrap();
    file.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    file.execute_batch(sql).unwrap();
}

/// An order by HTTP that nobody waits for.
fn order(server: &Server, path: &str, body: &str) {
    let token = std::fs::read_to_string(server.data().join("api-token")).unwrap();
    let address = server.http().strip_prefix("http://").unwrap().to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        token.trim(),
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

fn many(server: &Server, transactions: u32) {
    let one = |number: u32| {
        format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)
             INSERT INTO team (team_number, team_name) SELECT {} + i, hex(randomblob(60)) FROM n;",
            100_000 + 2_000 * number
        )
    };
    (0..transactions).for_each(|number| app(server.database("scouting"), &one(number)));
}

/// Two servers. The first one leaves differences for a person, the second one verifies slowly: what is cut short is met in
/// the middle.
fn pair() -> Cluster {
    let fixtures = &[("scouting", "scouting.sql"), ("users", "users.sql")];
    let mut cluster = Cluster::unjoined(2, fixtures, Some("scouting.toml"));
    let more = ["[verify]\nrepair = \"ask\"\n", "[verify]\nshare_by_hand = 10\n"];
    for (server, more) in cluster.servers.iter().zip(more) {
        let toml = server.folder.join("litemesh.toml");
        let text = std::fs::read_to_string(&toml).unwrap();
        std::fs::write(&toml, format!("{text}\n{more}")).unwrap();
    }
    cluster.enrol();
    cluster
}

fn verify_fails_and_succeeds(server: &Server) {
    unmarked(server, "UPDATE team SET team_name = 'past the triggers', location = 'nowhere' WHERE id = 3");
    assert_eq!(server.cli(&["verify", "--db", "scouting"]).code, Some(4));
    let drift = "SELECT database_name, table_name, record_id, kind, likely_cause, action, repaired_at IS NULL FROM drift_history";
    seen(server, drift, &json!([["scouting", "team", "3", "changed", "written-unmarked", "waits", 1]]));
    let run = "SELECT status, error_class, records_failed, json_extract(sync_metadata, '$.drift'), records_processed > 0, \
               json_extract(sync_metadata, '$.number') = (SELECT max(verification) FROM drift_history) \
               FROM sync_history WHERE sync_type = 'verify' AND subject = 'scouting' AND json_extract(sync_metadata, '$.by_hand')";
    seen(server, run, &json!([["error", "data", 1, 1, 1, 1]]));
    assert_eq!(server.cli(&["verify", "--db", "scouting", "--repair"]).code, Some(4), "it was found, and healed");
    seen(server, drift, &json!([["scouting", "team", "3", "changed", "written-unmarked", "captured", 0]]));
    server.cli(&["verify", "--db", "scouting"]).done();
}

fn cleanup_fails_and_succeeds(server: &Server) {
    until("the other server said that it holds all", 60, || {
        let plan = server.json(&["cleanup", "--dry-run", "--days-to-keep", "0"]);
        let ready = plan["wanted"].as_u64() > Some(0) && plan["blocked"] == 0;
        if ready { Ok(()) } else { Err(plan.to_string()) }
    });
    let folder: PathBuf = server.data().join("segments");
    let away = folder.with_extension("away");
    if folder.exists() {
        std::fs::rename(&folder, &away).unwrap();
    }
    std::fs::write(&folder, "no folder").unwrap();
    let failed = server.cli(&["cleanup", "--days-to-keep", "0"]);
    assert_ne!(failed.code, Some(0), "{failed:?}");
    std::fs::remove_file(&folder).unwrap();
    if away.exists() {
        std::fs::rename(&away, &folder).unwrap();
    }
    server.cli(&["cleanup", "--days-to-keep", "0"]).done();
    let ended = "SELECT status, error_message IS NULL, records_processed > 0 FROM sync_history WHERE sync_type = 'cleanup' ORDER BY id";
    seen(server, ended, &json!([["error", 0, 0], ["success", 1, 1]]));
}

/// The peer dies.
fn calls_fail_and_succeed(cluster: &mut Cluster) {
    cluster.servers[0].kill();
    let away = cluster.servers[1].cli(&["sync", "s0", "--wait", "0"]);
    assert_eq!(away.code, Some(1), "{away:?}");
    // An answer that was late already is a timeout.
    let failed = "SELECT DISTINCT sync_type, subject, replace(error_class, 'timeout', 'network') FROM sync_history \
                  WHERE status = 'error' AND sync_type IN ('connection', 'dial', 'sync') ORDER BY sync_type";
    let want = json!([["connection", "s0", "network"], ["dial", "s0", "network"], ["sync", "s0", "network"],]);
    seen(&cluster.servers[1], failed, &want);
    let report = cluster.servers[1].json(&["reliability", "s0"]);
    let dials = report["operations"].as_array().unwrap().iter().find(|one| one["operation"] == "dial").unwrap().clone();
    assert!(dials["failure_count"].as_u64() >= Some(1) && dials["last_error"].is_string(), "{report}");
    cluster.servers[0].start();
    cluster.connected();
    app(cluster.servers[0].database("scouting"), "INSERT INTO team (team_number) VALUES (4711)");
    cluster.settled(60);
    cluster.servers[1].cli(&["sync", "s0"]).done();
}

/// A file that is no database any more cannot be captured from.
fn capture_fails(second: &Server) {
    let file = second.database("users").to_owned();
    for end in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", file.display()));
    }
    std::fs::write(&file, vec![0x5a; 8192]).unwrap();
    let failed = "SELECT DISTINCT sync_type, error_class FROM sync_history WHERE status = 'error' AND subject = 'users' \
                  AND sync_type = 'capture'";
    seen(second, failed, &json!([["capture", "database"]]));
}

#[test]
fn every_kind_of_run_ends_well_fails_and_is_reaped_after_a_kill() {
    let mut cluster = pair();
    many(&cluster.servers[0], 3);
    cluster.settled(60);
    calls_fail_and_succeed(&mut cluster);
    verify_fails_and_succeeds(&cluster.servers[0]);
    cleanup_fails_and_succeeds(&cluster.servers[1]);
    let second = &cluster.servers[1];
    second.cli(&["bundle", "export", "all.bundle"]).done();
    std::fs::write(second.folder.join("no.bundle"), vec![7; 4096]).unwrap();
    assert_ne!(second.cli(&["bundle", "import", "no.bundle"]).code, Some(0));
    second.cli(&["track", "run", "import", "--", "true"]).done();
    assert_eq!(second.cli(&["track", "run", "import", "--", "false"]).code, Some(1));

    // A kill leaves runs open: those of the node itself are interrupted at the next start, and the node goes on.
    order(second, "/api/v1/verify", "{\"tier\": \"full\", \"db\": \"scouting\"}");
    let open = "SELECT count(*), coalesce(max(json_extract(sync_metadata, '$.number')), 0) FROM sync_history \
                WHERE sync_type = 'verify' AND status = 'in_progress' AND records_processed > 0";
    let number = until("a verification is under way", 60, || match &monitor(second, open)[0] {
        row if row[0] == 1 => Ok(row[1].as_i64().unwrap()),
        row => Err(row.to_string()),
    });
    let job = second.cli(&["track", "start", "upload"]).done().stdout.trim().to_owned();
    cluster.servers[1].kill();
    cluster.servers[1].start();
    let ended = format!(
        "SELECT status, coalesce(error_class, ''), json_extract(sync_metadata, '$.resumed') FROM sync_history \
         WHERE sync_type = 'verify' AND json_extract(sync_metadata, '$.number') = {number} ORDER BY id"
    );
    seen(&cluster.servers[1], &ended, &json!([["error", "interrupted", 0], ["success", "", 1]]));
    // The job's program lives, for all the node knows: its lease holds.
    let alive = format!("SELECT status FROM sync_history WHERE id = {job}");
    seen(&cluster.servers[1], &alive, &json!([["in_progress"]]));
    cluster.servers[1].cli(&["track", "fail", &job]).done();
    let left = "SELECT sync_type FROM sync_history WHERE status = 'in_progress'";
    seen(&cluster.servers[1], left, &json!([]));

    capture_fails(&cluster.servers[1]);
    until("all kinds are in the history", 30, || {
        let (well, badly) = (kinds(&cluster.servers, "success"), kinds(&cluster.servers, "error"));
        let missing = |kind: &&&str| {
            !well.iter().any(|one| one == **kind)
                || !NEVER_FAIL.contains(kind) && !badly.iter().any(|one| one == **kind)
        };
        let missing: Vec<_> = KINDS.iter().filter(missing).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}; well {well:?}; badly {badly:?}")) }
    });
}

/// What `config/queries.sql` promises: every statement of it runs on a real node's file and finds something.
#[test]
fn the_documented_queries_run_on_a_real_nodes_file() {
    let cluster = pair();
    let server = &cluster.servers[0];
    app(server.database("scouting"), "INSERT INTO team (team_number) VALUES (4711)");
    server.cli(&["track", "run", "main_submissions", "--", "true"]).done();
    server.cli(&["track", "run", "image_processing", "--", "false"]);
    cluster.settled(30);
    unmarked(server, "UPDATE team SET team_name = 'past the triggers', location = 'nowhere' WHERE id = 3");
    assert_eq!(server.cli(&["verify", "--db", "scouting"]).code, Some(4));
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/queries.sql")).unwrap();
    let statements: Vec<&str> = text.split(';').map(str::trim).filter(|sql| sql.contains("SELECT")).collect();
    assert_eq!(statements.len(), 7);
    for sql in statements {
        let rows = until(sql, 30, || match monitor(server, sql) {
            rows if rows.is_empty() => Err("nothing".to_string()),
            rows => Ok(rows),
        });
        println!("{sql}");
        rows.iter().for_each(|row| println!("    {row}"));
    }
    let status =
        "SELECT sync_type, last_sync_status FROM sync_status WHERE sync_type LIKE '%\\_%' ESCAPE '\\' ORDER BY 1";
    let want = json!([["image_processing", "error"], ["main_submissions", "success"]]);
    assert_eq!(Value::from(monitor(server, status)), want);
}
