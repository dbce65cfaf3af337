//! Runs, reliability and the surfaces on them, through the program: what a job, a dashboard and an older server see.
//!
//! Invariant: `monitor.db` is read here as anybody reads it: by Python's own SQLite, while the node runs.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::cluster::{Cluster, server_with};
use support::server::Server;
use support::{app, python, until};
use tempfile::TempDir;

fn alone(root: &TempDir) -> Server {
    let fixtures = &[("scouting", "scouting.sql"), ("users", "users.sql")];
    let mut server = server_with(root, "pit", fixtures, Some("scouting.toml"));
    server.start();
    server
}

/// Rows of a query on `monitor.db`, each a list.
#[track_caller]
fn monitor(server: &Server, sql: &str) -> Vec<Value> {
    let program = "import json, sqlite3, sys\n\
                   c = sqlite3.connect('file:' + sys.argv[1] + '?mode=ro', uri=True, timeout=10)\n\
                   print(json.dumps(c.execute(sys.argv[2]).fetchall()))";
    let path = server.data().join("monitor.db");
    let printed = python(&["-c", program, path.to_str().unwrap(), sql]).unwrap();
    serde_json::from_str::<Vec<Value>>(&printed).unwrap()
}

#[test]
fn a_job_of_the_users_is_tracked_from_begin_to_end() {
    let root = TempDir::new().unwrap();
    let mut server = alone(&root);
    let ran = server.cli(&[
        "track",
        "run",
        "import",
        "--subject",
        "photos",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 7",
    ]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(7), "out\n"), "{ran:?}");
    assert_eq!(ran.stderr, "err\n");
    assert_eq!(server.cli(&["track", "run", "import", "--subject", "photos", "--", "true"]).done().stdout, "");
    assert_eq!(server.cli(&["track", "run", "import", "--", "no such program"]).code, Some(1));

    let id = server.cli(&["track", "start", "upload", "--total", "3", "--metadata", "{\"match\": 12}"]).done();
    let id = id.stdout.trim().to_owned();
    let held = server.cli(&["track", "run", "upload", "--", "true"]);
    assert!(held.code == Some(1) && held.stderr.contains("--parallel"), "{held:?}");
    server.cli(&["track", "progress", &id, "--records", "2", "--message", "second photo"]).done();
    server.cli(&["track", "complete", &id, "--watermark", "photo 3"]).done();
    assert_eq!(server.cli(&["track", "fail", &id]).code, Some(1));
    let waited = server.cli(&["track", "run", "upload", "--wait", "20", "--", "true"]).done();
    assert_eq!(waited.code, Some(0));

    let history = "SELECT sync_type, subject, status, error_class, records_processed, json_extract(sync_metadata, '$.match') \
                   FROM sync_history WHERE sync_type IN ('import', 'upload') ORDER BY id";
    let want = serde_json::json!([
        ["import", "photos", "error", "other", null, null],
        ["import", "photos", "success", null, null, null],
        ["import", "", "error", "other", null, null],
        ["upload", "", "success", null, 2, 12],
        ["upload", "", "success", null, null, null],
    ]);
    assert_eq!(Value::from(monitor(&server, history)), want);
    let status =
        "SELECT last_sync_status, watermark, successful_sync_count FROM sync_status WHERE sync_type = 'upload'";
    assert_eq!(Value::from(monitor(&server, status)), serde_json::json!([["success", "photo 3", 2]]));
    let told = server.json(&["track", "status", "upload"]);
    assert_eq!((told["kinds"].as_array().unwrap().len(), &told["runs"][1]["records_processed"]), (1, &2.into()));

    // Where no node runs, the job is run all the same.
    server.stop();
    let alone = server.cli(&["track", "run", "import", "--", "sh", "-c", "exit 3"]);
    assert!(alone.code == Some(3) && alone.stderr.contains("not recorded"), "{alone:?}");
}

#[test]
fn what_the_node_does_is_status_history_and_reliability() {
    let cluster = Cluster::scouting(2);
    let [one, two] = &cluster.servers[..] else { panic!("two servers") };
    for number in 0..5 {
        app(
            one.database("scouting"),
            &format!("INSERT INTO team (team_number, team_name) VALUES ({}, 'new')", 9_000 + number),
        );
    }
    cluster.settled(30);
    let applied =
        "SELECT sum(total_records_processed) FROM sync_status WHERE sync_type = 'apply' AND subject = 'scouting'";
    until("the apply is in the status", 20, || match monitor(two, applied)[0][0].as_i64() {
        Some(rows) if rows >= 5 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let captured =
        "SELECT sum(total_records_processed), max(failed_sync_count) FROM sync_status WHERE sync_type = 'capture'";
    until("the capture is in the status", 20, || match &monitor(one, captured)[0] {
        row if row[0].as_i64() >= Some(5) && row[1] == 0 => Ok(()),
        other => Err(other.to_string()),
    });
    let report = two.json(&["reliability", "s0"]);
    assert_eq!((&report["band"], &report["server"]), (&"excellent".into(), &"s0".into()), "{report}");
    let operations: Vec<&str> =
        report["operations"].as_array().unwrap().iter().map(|one| one["operation"].as_str().unwrap()).collect();
    assert!(["connection", "pull", "reconcile"].iter().all(|name| operations.contains(name)), "{report}");
    assert_eq!(two.status()["peers"][0]["band"], "excellent");
    let logged = "SELECT direction, items_synced FROM sync_log_sqlite3 WHERE sync_type = 'pull' AND status = 'success'";
    until("a pull is in the history", 20, || match monitor(two, logged).first() {
        Some(row) if row[0] == "receive" => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
