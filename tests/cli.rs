//! The program as a person meets it: help, errors with their exit codes and next actions, and one node's life.
//!
//! Invariant: every error names its cause and what to do, on stderr; stdout carries results only.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

fn litemesh(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_litemesh"));
    command.current_dir(directory).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LITEMESH_")) {
        command.env_remove(name);
    }
    command
}

fn call(directory: &Path, arguments: &[&str]) -> Output {
    litemesh(directory).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The call must fail with this code, say all of `parts` on stderr and nothing on stdout.
fn refused(directory: &Path, arguments: &[&str], code: i32, parts: &[&str]) {
    let output = call(directory, arguments);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{arguments:?} does not say {part:?}: {said}");
    }
    assert_eq!(text(&output.stdout), "", "{arguments:?}");
}

fn json(directory: &Path, arguments: &[&str]) -> Value {
    let output = litemesh(directory).arg("--json").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A running node, stopped when dropped.
struct Running {
    child: Child,
    ready: Value,
}

impl Running {
    fn start(directory: &Path, arguments: &[&str]) -> Running {
        let fixed = ["run", "--no-mdns", "--http", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"];
        let mut child = litemesh(directory)
            .args(fixed)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = line.strip_prefix("ready ").unwrap_or_else(|| panic!("no ready line but {line:?}"));
        Running { ready: serde_json::from_str(ready).unwrap(), child }
    }

    /// SIGTERM, and how long it took.
    fn stop(mut self) -> (Option<i32>, Duration) {
        let start = Instant::now();
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        (self.child.wait().unwrap().code(), start.elapsed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn help_names_every_command_of_this_version_and_no_other() {
    let here = tempfile::tempdir().unwrap();
    let output = call(here.path(), &["--help"]);
    let help = text(&output.stdout);
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let want = "run init invite join admit preflight status sync log history conflicts duplicates shelf merge \
                split where rules peers trust-lan recover-admin key bundle receipts reliability alerts track rebuild as-of dashboard cleanup archive diff undo restore verify drift migrate doctor eject demo completions man";
    assert_eq!(commands, want.split_whitespace().collect::<Vec<_>>());
    assert!(output.status.success() && output.stderr.is_empty());
    for flag in ["--data <DIR>", "--config <FILE>", "--json", "--verbose", "--quiet"] {
        assert!(help.contains(flag), "{flag}");
    }
    for (command, flags) in [
        ("run", "--db <NAME=PATH> --listen <MULTIADDR> --peer <MULTIADDR> --no-mdns --http <ADDR|off> --name --sample"),
        ("join", "--db <NAME=PATH> --name --independent --base <OLD.db> --plan --yes"),
        ("log", "--db --table --origin --since --until --limit --follow verify"),
        ("sync", "--wait <SECONDS> [PEER]"),
        ("verify", "--tier <count|ids|checksum|full> --db <NAME> --repair"),
        ("status", "--watch"),
        ("rebuild", "--out <DIR>"),
        ("as-of", "<TIME> --out <DIR>"),
        ("diff", "<TIME> [TIME] --db --table --node --limit"),
        ("undo", "[CHANGE] --node --from <TIME> --to <TIME> --db --table --force --yes --reason --limit"),
        ("restore", "--as-of <TIME> --db --table --yes --reason --limit"),
        ("where", "<DB.TABLE> <ID> --node"),
        ("rules", "list set"),
        ("invite", "--expires --qr --role"),
        ("bundle", "export import inspect"),
        ("peers", "list add revoke role"),
        ("init", "--name --cluster-name"),
    ] {
        let help = text(&call(here.path(), &[command, "--help"]).stdout);
        for flag in flags.split(' ') {
            assert!(help.contains(flag), "{command} {flag}: {help}");
        }
    }
}

/// Equal is 0; a row that went past the triggers is 4, named, healed by itself, and in the history.
fn verified(at: &Path) {
    let equal = json(at, &["verify"]);
    assert!(equal["equal"] == true && equal["runs"][0]["tier"] == "full", "{equal}");
    let app = rusqlite::Connection::open(at.join("litemesh-sample/scouting.db")).unwrap();
    app.busy_timeout(Duration::from_secs(5)).unwrap();
    app.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    app.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    let id: i64 = app.query_row("SELECT min(id) FROM team", [], |row| row.get(0)).unwrap();
    app.execute("DELETE FROM team WHERE id = ?1", [id]).unwrap();
    let output = call(at, &["verify", "--tier", "count", "--db", "scouting"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(text(&output.stdout).contains(&format!("scouting.team {id}: the file lacks the row")), "{output:?}");
    assert!(text(&output.stderr).contains("next:"), "{output:?}");
    assert_eq!(json(at, &["verify", "--db", "scouting"])["equal"], true);
    assert_eq!(app.query_row("SELECT min(id) FROM team", [], |row| row.get::<_, i64>(0)).unwrap(), id);
    let drift = json(at, &["drift"]);
    assert_eq!((&drift["drift"][0]["cause"], &drift["drift"][0]["action"]), (&"lost".into(), &"rewritten".into()));
    assert!(drift["drift"][0]["healed"].as_str().unwrap().ends_with('Z') && drift["waiting"] == 0, "{drift}");
    refused(at, &["verify", "--db", "nothing"], 1, &["no database is named nothing"]);
}

#[test]
fn usage_errors_are_exit_2() {
    let here = tempfile::tempdir().unwrap();
    for arguments in [
        &["frobnicate"][..],
        &[],
        &["run", "--db", "scouting.db"],
        &["run", "--db", "My DB=x"],
        &["where", "team", "1"],
        &["log", "--since", "yesterday"],
        &["log", "--limit", "0"],
        &["invite", "--expires", "soon"],
        &["invite", "--role", "king"],
        &["join", "x", "--independent", "--base", "y"],
        &["-v", "-q", "status"],
        &["sync", "--wait", "-1"],
        &["completions", "tcsh"],
    ] {
        let output = call(here.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn user_errors_are_exit_1_and_say_what_to_do() {
    let here = tempfile::tempdir().unwrap();
    let at = here.path();
    refused(
        at,
        &["run"],
        1,
        &["no database to replicate", "instance/scouting.db", "next: ", "--db scouting=", "--sample"],
    );
    refused(at, &["preflight"], 1, &["no database to replicate"]);
    refused(at, &["run", "--db", "a=nowhere.db"], 1, &["nowhere.db", "no such file", "correct the path"]);
    std::fs::write(
        at.join("letter.db"),
        "Dear reader, this is no database, but it is long enough to look like one.".repeat(20),
    )
    .unwrap();
    refused(at, &["run", "--db", "a=letter.db"], 1, &["letter.db", "not a SQLite database"]);
    refused(at, &["run", "--http", "0.0.0.0:7480"], 1, &["`http.listen` is `0.0.0.0:7480`", "loopback", "next: "]);
    refused(at, &["run", "--peer", "10.0.0.1"], 1, &["`network.peers` is `10.0.0.1`", "multiaddr"]);
    refused(at, &["join", "litemesh1:AAAA"], 1, &["mistyped", "next: ", "litemesh invite"]);
    refused(at, &["--config", "nowhere.toml", "run"], 1, &["nowhere.toml", "next: "]);
    refused(at, &["log", "verify"], 1, &["holds no node", "litemesh run"]);
    // None of that left a node behind.
    assert!(!at.join("litemesh-data").join("identity.key").exists());

    std::fs::write(at.join("litemesh.toml"), "[network]\nlisten = []\npeer = []\n").unwrap();
    refused(at, &["run"], 1, &["line 3", "unknown key `peer`", "`peers`"]);
}

#[test]
fn a_node_that_does_not_run_is_exit_3() {
    let here = tempfile::tempdir().unwrap();
    for arguments in [
        &["status"][..],
        &["sync"],
        &["log"],
        &["invite"],
        &["peers"],
        &["conflicts"],
        &["shelf", "list"],
        &["where", "scouting.team", "1"],
        &["history", "scouting.team", "1"],
        &["diff", "2h"],
        &["undo", "--node", "pit", "--from", "2h"],
        &["restore", "--as-of", "2h"],
    ] {
        refused(here.path(), arguments, 3, &["no node is running", "next: start it with: litemesh"]);
    }
}

#[test]
fn one_nodes_life() {
    let here = tempfile::tempdir().unwrap();
    let at = here.path();
    let node = Running::start(at, &["--sample", "--name", "pit"]);
    let status = json(at, &["status"]);
    assert_eq!(status["node"]["id"], node.ready["node_id"]);
    assert_eq!((status["node"]["name"].as_str(), status["node"]["origin_rank"].as_u64()), (Some("pit"), Some(0)));
    assert_eq!(status["databases"].as_array().unwrap().len(), 2);
    assert!(node.ready["listen"][0].as_str().unwrap().contains("/p2p/"));
    assert!(at.join("litemesh-sample/scouting.db").is_file());

    refused(at, &["run"], 1, &[&format!("already running, pid {}", node.child.id())]);
    refused(at, &["eject"], 1, &[&format!("is running, pid {}", node.child.id()), "next: stop it"]);
    refused(at, &["where", "scouting.nothing", "1"], 1, &["nothing"]);
    refused(at, &["conflicts", "show", "7"], 1, &["no conflict 7"]);
    refused(at, &["shelf", "show", "7"], 1, &["no row 7 on the shelf"]);
    refused(at, &["sync", "nobody"], 1, &["no peer `nobody`"]);
    refused(at, &["peers", "add", "here"], 1, &["here"]);
    assert_eq!(json(at, &["sync"])["in_sync"], true);
    assert_eq!(json(at, &["log", "verify"])["faults"].as_array().unwrap().len(), 0);
    assert_eq!(json(at, &["doctor"])["running"], true);
    verified(at);
    let code = text(&call(at, &["invite"]).stdout);
    assert!(code.starts_with("litemesh1:") && code.lines().count() == 1);
    let rebuilt = json(at, &["rebuild", "--out", "live"]);
    assert_eq!(rebuilt["databases"][0]["digest"], rebuilt["databases"][0]["live_digest"]);
    refused(at, &["rebuild", "--out", "live"], 1, &["there already"]);
    let now = json(at, &["as-of", "0s", "--out", "now"]);
    assert_eq!(now["databases"][0]["digest"], rebuilt["databases"][0]["digest"]);
    refused(at, &["as-of", "yesterday", "--out", "then"], 2, &["write a time like"]);

    let (code, took) = node.stop();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(5), "{took:?}");
    refused(at, &["status"], 3, &["no node is running"]);
    assert_eq!(json(at, &["log", "verify"])["faults"].as_array().unwrap().len(), 0);
    assert_eq!(json(at, &["verify", "--tier", "ids", "--db", "users"])["equal"], true);
    assert_eq!(json(at, &["rebuild", "--out", "stopped"])["databases"][0]["digest"], rebuilt["databases"][0]["digest"]);

    // Databases are remembered, also from another directory.
    let elsewhere = tempfile::tempdir().unwrap();
    let data = at.join("litemesh-data");
    let again = Running::start(elsewhere.path(), &["--data", data.to_str().unwrap()]);
    assert_eq!(again.ready["node_id"], status["node"]["id"]);
    assert_eq!(json(at, &["status"])["node"]["name"], "pit");
    let digests = |status: &Value| [0, 1].map(|n| status["databases"][n]["digest"].clone());
    assert_eq!(digests(&json(at, &["status"])), digests(&status));
    assert_eq!(again.stop().0, Some(0));

    let ejected = json(at, &["eject"]);
    assert!(ejected["databases"][0]["report"]["triggers"].as_u64().unwrap() > 0);
    let file = rusqlite::Connection::open(at.join("litemesh-sample/scouting.db")).unwrap();
    let traces: u32 = file
        .query_row("SELECT count(*) FROM sqlite_master WHERE name GLOB '_litemesh_*'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(traces, 0);
}

#[test]
fn a_join_shows_its_plan_and_waits_for_yes() {
    let (pit, stand) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let node = Running::start(pit.path(), &["--sample", "--name", "pit"]);
    std::fs::create_dir(stand.path().join("instance")).unwrap();
    for name in ["scouting.db", "users.db"] {
        std::fs::copy(pit.path().join("litemesh-sample").join(name), stand.path().join("instance").join(name)).unwrap();
    }
    let code = text(&call(pit.path(), &["-q", "invite", "--expires", "1h"]).stdout).trim().to_string();
    let plan = json(stand.path(), &["join", &code, "--plan", "--name", "stand"]);
    assert!(plan["rows"].as_u64().unwrap() > 0);
    let table = &plan["databases"][0]["tables"][0];
    assert_eq!((&table["here"], &table["only_here"]), (&table["equal"], &Value::from(0)), "{plan}");
    let output = call(stand.path(), &["join", &code]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--yes") && text(&output.stdout).contains("scouting_entry"));
    // It is a member now (nobody else may read), but no row was touched, and none is before somebody says yes.
    refused(stand.path(), &["run", "--http", "off", "--no-mdns"], 1, &["not accepted yet", "--yes"]);

    let joined = json(stand.path(), &["join", &code, "--yes", "--name", "stand"]);
    assert_eq!((joined["members"].as_u64(), joined["origin_rank"].as_u64()), (Some(2), Some(1)));
    refused(stand.path(), &["join", &code, "--yes"], 1, &["holds a node already"]);
    let third = tempfile::tempdir().unwrap();
    refused(third.path(), &["join", &code], 1, &["used by another node", "next: "]);

    let other = Running::start(stand.path(), &["--name", "stand"]);
    assert_eq!(json(stand.path(), &["sync", "pit", "--wait", "30"])["in_sync"], true);
    assert_eq!(json(pit.path(), &["peers", "list"])["peers"][0]["name"], "stand");
    assert_eq!((node.stop().0, other.stop().0), (Some(0), Some(0)));
}

#[test]
fn completions_are_made_for_every_shell() {
    let here = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = call(here.path(), &["completions", shell]);
        assert!(output.status.success() && text(&output.stdout).contains("litemesh"), "{shell}");
    }
}
