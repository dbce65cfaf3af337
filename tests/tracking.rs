//! Runs, reliability and the surfaces on them, through the program: what a job, a dashboard and an older server see.
//!
//! Invariant: `monitor.db` is read here as anybody reads it: by Python's own SQLite, while the node runs.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use serde_json::Value;
use support::cluster::{Cluster, server_with};
use support::monitor::monitor;
use support::server::Server;
use support::{app, make, python, shipped, until};
use tempfile::TempDir;

fn alone(root: &TempDir) -> Server {
    let fixtures = &[("scouting", "scouting.sql"), ("users", "users.sql")];
    let mut server = server_with(root, "pit", fixtures, Some("scouting.toml"));
    server.start();
    server
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
    let changes = "SELECT operation, server_id, json_extract(data, '$.team_name') FROM database_changes \
                   WHERE table_name = 'team' AND json_extract(data, '$.team_number') = 9004";
    until("the change is in the table of changes", 30, || match monitor(two, changes).first() {
        Some(row) if *row == serde_json::json!(["insert", "s0", "new"]) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let report = two.json(&["reliability", "s0"]);
    assert_eq!((&report["band"], &report["server"]), (&"excellent".into(), &"s0".into()), "{report}");
    let operations: Vec<&str> =
        report["operations"].as_array().unwrap().iter().map(|one| one["operation"].as_str().unwrap()).collect();
    assert!(["connection", "reconcile"].iter().all(|name| operations.contains(name)), "{report}");
    assert!(["pull", "receive"].iter().any(|name| operations.contains(name)), "{report}");
    assert_eq!(two.status()["peers"][0]["band"], "excellent");
    let logged = "SELECT direction, items_synced FROM sync_log_sqlite3 WHERE sync_type IN ('pull', 'receive') AND status = 'success'";
    until("a pull is in the history", 20, || match monitor(two, logged).first() {
        Some(row) if row[0] == "receive" => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// The older server beside a node: what it printed.
#[track_caller]
fn legacy(node: &Server, file: &Path, order: &[&str]) -> Value {
    let token = std::fs::read_to_string(node.data().join("api-token")).unwrap();
    let (script, http) = (shipped("legacy_server.py"), node.http());
    let fixed = [script.to_str().unwrap(), file.to_str().unwrap(), &http, token.trim()];
    serde_json::from_str(&python(&[&fixed, order].concat()).unwrap()).unwrap()
}

/// A table whose rows nothing tells apart.
const KEYLESS: &str = "CREATE TABLE sighting (what TEXT, at INTEGER);";

/// Rows of the tables that both exchange, as text.
fn content(path: &Path) -> Vec<String> {
    ["team", "event", "match", "observation", "pit_report", "sighting"]
        .iter()
        .flat_map(|table| {
            let rows = support::dump::rows(&support::dump::open(path), table);
            rows.into_iter().map(move |row| format!("{table} {row}"))
        })
        .collect()
}

#[test]
fn a_server_of_the_older_protocol_exchanges_rows_with_the_cluster() {
    let mut cluster =
        Cluster::unjoined(2, &[("scouting", "scouting.sql"), ("users", "users.sql")], Some("scouting.toml"));
    for server in &cluster.servers {
        app(server.database("scouting"), KEYLESS);
    }
    cluster.enrol();
    let [one, two] = &cluster.servers[..] else { panic!("two servers") };
    let root = TempDir::new().unwrap();
    let old = root.path().join("old.db");
    // It begins with the app's tables and nothing in them.
    make(&old, "scouting.sql");
    app(&old, KEYLESS);
    app(
        &old,
        "DELETE FROM observation; DELETE FROM pit_report; DELETE FROM match; DELETE FROM team_event; DELETE FROM team; DELETE FROM event;",
    );
    app(
        one.database("scouting"),
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)
         INSERT INTO team (team_number, team_name, location, marker) SELECT 20000 + i, 'Zwölf \u{1f600} ' || i, i * 0.5, randomblob(9) FROM n;
         DELETE FROM team WHERE team_number = 20007;
         INSERT INTO sighting VALUES ('a robot', 1), ('a robot', 1), (NULL, 2), ('a robot', 3);",
    );
    cluster.settled(60);
    let fetched = legacy(one, &old, &["fetch", "400"]);
    assert!(fetched["pages"].as_u64() >= Some(4), "{fetched}");
    assert_eq!(content(&old), content(one.database("scouting")));

    // Writes on both sides, the other way round.
    app(
        &old,
        "CREATE TABLE to_send (tab TEXT, record INTEGER, operation TEXT);
         INSERT INTO team (id, team_number, team_name, location, marker) VALUES (500001, 30001, 'from ''old''', NULL, x'00ff');
         UPDATE team SET team_name = 'renamed by old' WHERE team_number = 20001;
         INSERT INTO to_send VALUES ('team', 500001, 'insert');
         INSERT INTO to_send SELECT 'team', id, 'update' FROM team WHERE team_number = 20001;
         INSERT INTO to_send SELECT 'team', id, 'delete' FROM team WHERE team_number = 20002;
         DELETE FROM team WHERE team_number = 20002;",
    );
    let damaged = legacy(one, &old, &["damaged"]);
    assert_eq!((&damaged[0], &damaged[1]["code"]), (&400.into(), &"checksum_wrong".into()), "{damaged}");
    let sent = legacy(one, &old, &["send"]);
    let want = serde_json::json!(
        {"success": true, "applied_count": 3, "total_received": 3, "errors": [], "checksum_verified": true}
    );
    assert_eq!((&sent[0], &sent[1]), (&200.into(), &want));
    app(
        two.database("scouting"),
        "UPDATE team SET location = 'by s1' WHERE team_number = 20003; DELETE FROM team WHERE team_number = 20004;
         DELETE FROM sighting WHERE rowid = 2; DELETE FROM sighting WHERE what IS NULL;",
    );
    until("both have what the other wrote", 30, || {
        cluster.settled(30);
        let sql = "SELECT count(*) FROM team WHERE team_number IN (30001, 20003) AND (location = 'by s1' OR marker = x'00ff')";
        match (
            support::dump::number(one.database("scouting"), sql),
            support::dump::number(two.database("scouting"), sql),
        ) {
            (2, 2) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let fetched = legacy(one, &old, &["fetch"]);
    // What it sent itself does not come back: the row of s1 and its deletes do, those of a table without a key too.
    assert_eq!((&fetched["changes"], &fetched["tables"]["sighting"]), (&4.into(), &2.into()), "{fetched}");
    assert_eq!(content(&old), content(two.database("scouting")));
    // Sent a second time, it changes nothing.
    let events = one.database_status("scouting")["events"].clone();
    app(&old, "DELETE FROM to_send WHERE operation = 'delete'");
    assert_eq!(legacy(one, &old, &["send"])[1]["applied_count"], 2);
    cluster.settled(30);
    assert_eq!(one.database_status("scouting")["events"], events);

    let page = legacy(one, &old, &["sync", "s1"]);
    let shown = (&page["sync"][1]["success"], &page["sync"][1]["stats"]["errors"], &page["cleanup"][1]["success"]);
    assert_eq!(shown, (&true.into(), &serde_json::json!([]), &true.into()), "{page}");
    assert!(page["cleanup"][1]["archived_events"].is_u64(), "{page}");
    let cleanup = "SELECT status, subject FROM sync_history WHERE sync_type = 'cleanup'";
    until("the older page's cleanup is one of the archive", 20, || match Value::from(monitor(one, cleanup)) {
        rows if rows == serde_json::json!([["success", "archive"]]) => Ok(()),
        rows => Err(rows.to_string()),
    });
    assert!(page["reliability"][1]["operations"]["sync"]["success_count"].as_u64() >= Some(1), "{page}");
    assert!(page["reliability"][1]["overall_reliability"].as_f64() > Some(0.9), "{page}");
}

/// One request over a plain socket; the answer's head and what follows come line by line.
fn ask(node: &Server, line: &str) -> BufReader<TcpStream> {
    let token = std::fs::read_to_string(node.data().join("api-token")).unwrap();
    let address = node.http().strip_prefix("http://").unwrap().to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(support::patience(30))).unwrap();
    let head = format!("{line} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\r\n", token.trim());
    stream.write_all(head.as_bytes()).unwrap();
    BufReader::new(stream)
}

/// Lines up to one that begins so; that line's rest.
#[track_caller]
fn line_with(lines: &mut BufReader<TcpStream>, start: &str) -> String {
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0, "no line begins with {start:?}: {seen}");
        if let Some(rest) = line.strip_prefix(start) {
            return rest.trim_end().to_owned();
        }
        seen.push_str(&line);
    }
}

#[test]
fn a_job_that_fails_is_told_by_webhook_and_so_is_its_recovery_and_the_log_streams() {
    let sink = TcpListener::bind("127.0.0.1:0").unwrap();
    let hook = sink.local_addr().unwrap();
    let (sender, letters) = std::sync::mpsc::channel::<Value>();
    std::thread::spawn(move || {
        for stream in sink.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(stream);
            let length = line_with(&mut lines, "content-length: ").parse().unwrap();
            line_with(&mut lines, "\r");
            let mut body = vec![0; length];
            lines.read_exact(&mut body).unwrap();
            lines.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            let _ = sender.send(serde_json::from_slice(&body).unwrap());
        }
    });
    let root = TempDir::new().unwrap();
    let fixtures = &[("scouting", "scouting.sql"), ("users", "users.sql")];
    let mut server = server_with(&root, "pit", fixtures, Some("scouting.toml"));
    let toml = server.folder.join("litemesh.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    let more = format!("\n[alerts]\nwebhook = \"http://{hook}/\"\ndisk_free = \"off\"\n[log]\nformat = \"json\"\n");
    std::fs::write(&toml, text + &more).unwrap();
    server.start();
    let letter = || letters.recv_timeout(support::patience(40)).unwrap();

    assert!(server.cli(&["alerts", "test"]).done().stdout.contains("webhook: taken"));
    assert_eq!(letter()["state"], "test");
    server.cli(&["track", "run", "import", "--", "false"]);
    let raised = letter();
    assert_eq!((&raised["state"], &raised["key"]), (&"raised".into(), &"failing:import:".into()), "{raised}");
    assert!(server.cli(&["alerts"]).done().stdout.contains("import fails"), "the list");
    let shown = server.status()["alerts"].to_string();
    assert!(shown.contains("import fails"), "{shown}");
    server.cli(&["track", "run", "import", "--", "true"]).done();
    let over = letter();
    assert_eq!((&over["state"], &over["key"]), (&"recovered".into(), &"failing:import:".into()), "{over}");

    let mut stream = ask(&server, "GET /api/v1/events/stream?db=scouting");
    assert!(line_with(&mut stream, "HTTP/1.1 ").starts_with("200"));
    assert_eq!(line_with(&mut stream, "content-type: "), "text/event-stream");
    app(server.database("scouting"), "INSERT INTO team (team_number, team_name) VALUES (7001, 'streamed')");
    assert_eq!(line_with(&mut stream, "event: "), "change");
    let event: Value = serde_json::from_str(&line_with(&mut stream, "data: ")).unwrap();
    assert!(event["changes"][0]["cells"].to_string().contains("streamed"), "{event}");
    let metrics = &mut ask(&server, "GET /metrics");
    assert_eq!(line_with(metrics, "litemesh_database_healthy{database=\"scouting\"} "), "1");
    let rest: Vec<u64> = ["applied", "superseded", "held", "shelved"]
        .map(|outcome| {
            let start = format!("litemesh_database_events_by_outcome{{database=\"scouting\",outcome=\"{outcome}\"}} ");
            line_with(&mut ask(&server, "GET /metrics"), &start).parse().unwrap()
        })
        .to_vec();
    let events = line_with(&mut ask(&server, "GET /metrics"), "litemesh_database_events{database=\"scouting\"} ");
    assert_eq!(rest.iter().sum::<u64>().to_string(), events, "{rest:?}");
    server.stop();
    let lines: Vec<Value> = server
        .said()
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        lines.iter().any(|line| line["message"].as_str().is_some_and(|text| text.starts_with("alert: import fails")))
    );
    assert!(!server.said().contains("streamed"), "a row's value is in the log");
}
