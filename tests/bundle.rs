//! Servers that never meet: what one writes reaches the other on a stick, and nobody else can read or change the stick.
//!
//! Invariant: no server of these tests knows an address of another one, and none ever connects. What it does not verify:
//! real sticks and their file systems.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};

use serde_json::Value;
use support::cluster::{Cluster, connected_peers, dumps, settled};
use support::dump::{difference, number};
use support::server::{Answer, Server};
use support::{app, until};

const FIXTURES: &[(&str, &str)] = &[("scouting", "scouting.sql"), ("users", "users.sql")];

/// A folder that both "laptops" get in turn.
fn stick(cluster: &Cluster) -> PathBuf {
    let stick = cluster.root.path().join("stick");
    std::fs::create_dir_all(&stick).unwrap();
    stick
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Admits the second server by a request on the stick; the answer lies there as a bundle.
#[track_caller]
fn admit_by_stick(cluster: &Cluster, number: usize, stick: &Path) {
    let (founder, newcomer) = (&cluster.servers[0], &cluster.servers[number]);
    let request = stick.join(format!("{}.request", newcomer.name));
    let flags = newcomer.database_flags();
    let arguments = ["join", "--request", text(&request), "--name", &newcomer.name, "--yes"];
    newcomer.cli(&arguments.into_iter().chain(flags.iter().map(String::as_str)).collect::<Vec<_>>()).done();
    founder.cli(&["admit", text(&request)]).done();
    founder.cli(&["bundle", "export", text(stick)]).done();
}

/// Waits until what the app wrote is in the log.
#[track_caller]
fn logged(server: &Server) {
    until(&format!("{} has logged what its app wrote", server.name), 20, || {
        let status = server.status();
        let waiting = |database: &&Value| database["outbox"] != 0 || database["state"] != "ok";
        status["databases"].as_array().unwrap().iter().find(waiting).map_or(Ok(()), |one| Err(one.to_string()))
    });
}

/// Two running servers without a network that hold the same.
fn cluster_by_stick() -> (Cluster, PathBuf) {
    let mut cluster = Cluster::unjoined(2, FIXTURES, Some("scouting.toml"));
    let stick = stick(&cluster);
    cluster.servers[0].start();
    admit_by_stick(&cluster, 1, &stick);
    cluster.servers[1].cli(&["bundle", "import", text(&stick)]).done();
    cluster.servers[1].start();
    cluster.adopted();
    (cluster, stick)
}

/// Show 5: one stick, three times back and forth. The second laptop never was online, not even to join.
#[test]
fn two_laptops_that_never_meet_are_equal_by_one_stick() {
    let (cluster, stick) = cluster_by_stick();
    let [first, second] = &cluster.servers[..] else { panic!("two servers") };
    for trip in 0..3 {
        for (server, name) in [(first, "first"), (second, "second")] {
            let file = server.database("scouting");
            app(file, &format!("INSERT INTO team (team_number, marker) VALUES ({}, '{name} {trip}')", 100 + trip));
            app(file, &format!("UPDATE team SET location = '{name} in trip {trip}' WHERE id = 1"));
            app(server.database("users"), &format!("UPDATE user SET email = '{name}{trip}@example.org' WHERE id = 1"));
        }
        for (from, to) in [(first, second), (second, first)] {
            logged(from);
            let mine = ["--for", &to.name];
            let made: &[&str] = if trip == 1 { &mine } else { &[] };
            from.cli(&[&["bundle", "export", text(&stick)], made].concat()).done();
            to.cli(&["bundle", "import", text(&stick)]).done();
        }
        // The last one to export has what both have; the other one's news came on this very trip.
        settled(&[first, second], 30);
        let rows = "SELECT count(*) FROM team WHERE marker LIKE 'first %' OR marker LIKE 'second %'";
        assert_eq!(number(first.database("scouting"), rows), 2 * (trip + 1));
    }
    assert_eq!(connected_peers(first) + connected_peers(second), 0, "they met");
    let receipts = first.json(&["receipts"]);
    assert_eq!(receipts["sentence"], "safe to unplug: 2 of 2 servers hold everything", "{receipts}");
    assert_eq!(receipts["peers"][0]["way"], "bundle");
}

/// What only one laptop has is named, by table, until the stick came back.
#[test]
fn what_exists_only_here_is_told_until_a_receipt_comes_back() {
    let (mut cluster, stick) = cluster_by_stick();
    let sentence = |server: &Server| server.json(&["receipts"])["sentence"].as_str().unwrap().to_owned();
    cluster.servers[1].cli(&["bundle", "export", text(&stick)]).done();
    cluster.servers[0].cli(&["bundle", "import", text(&stick)]).done();
    until("all is held twice", 10, || match sentence(&cluster.servers[0]) {
        good if good.starts_with("safe to unplug: 2 of 2") => Ok(()),
        other => Err(other),
    });
    app(
        cluster.servers[0].database("scouting"),
        "INSERT INTO team (team_number) VALUES (71), (72), (73); INSERT INTO event (name, code, year) VALUES ('new', 'N1', 2026)",
    );
    logged(&cluster.servers[0]);
    let want = "NOT safe to unplug: 4 rows (team 3, event 1) exist only here";
    assert_eq!(sentence(&cluster.servers[0]), want);
    assert_eq!(cluster.servers[0].status()["only_here"]["rows"], 4);
    // Remembered across a restart, and told of a stopped node too.
    cluster.servers[0].stop();
    assert_eq!(sentence(&cluster.servers[0]), want);
    cluster.servers[0].start();
    assert_eq!(sentence(&cluster.servers[0]), want);
    cluster.servers[0].cli(&["bundle", "export", text(&stick)]).done();
    // Carried away is not received: until the other one says so, it is only here.
    assert_eq!(sentence(&cluster.servers[0]), want);
    cluster.servers[1].cli(&["bundle", "import", text(&stick)]).done();
    cluster.servers[1].cli(&["bundle", "export", text(&stick)]).done();
    cluster.servers[0].cli(&["bundle", "import", text(&stick)]).done();
    assert_eq!(sentence(&cluster.servers[0]), "safe to unplug: 2 of 2 servers hold everything");
}

/// Stopped nodes carry as well as running ones, through files and through pipes; what the app wrote while the node was
/// down is in the bundle.
#[test]
fn stopped_nodes_and_pipes_carry_too() {
    let (mut cluster, stick) = cluster_by_stick();
    for server in &mut cluster.servers {
        server.stop();
    }
    app(
        cluster.servers[0].database("scouting"),
        "INSERT INTO team (team_number, marker) VALUES (7, 'written while down')",
    );
    let file = stick.join("one.litemesh");
    cluster.servers[0].cli(&["bundle", "export", text(&file), "--for", "s1"]).done();
    assert!(!stick.join("one.litemesh.part").exists());
    let inspected = cluster.servers[1].json(&["bundle", "inspect", text(&file)]);
    assert_eq!((&inspected["exporter"], &inspected["made_for"]), (&Value::from("s0"), &Value::from("s1")));
    assert!(inspected["new_events"].as_u64().unwrap() > 0, "{inspected}");
    assert!(!inspected.to_string().contains("written while down"), "values are nobody's business: {inspected}");
    let piped = cluster.servers[1].cli_with_input(&["--json", "bundle", "import", "-"], &std::fs::read(&file).unwrap());
    assert!(piped.done().json()["taken"].as_u64().unwrap() > 0);
    let again = cluster.servers[1].json(&["bundle", "import", text(&file)]);
    assert_eq!(again["taken"], 0);
    cluster.servers[1].start();
    until("the row is shown after the start", 20, || {
        let rows = "SELECT count(*) FROM team WHERE marker = 'written while down'";
        match number(cluster.servers[1].database("scouting"), rows) {
            1 => Ok(()),
            other => Err(format!("{other} rows")),
        }
    });
    // And out of a running node, to stdout.
    let bytes = cluster.servers[1].cli_bytes(&["bundle", "export", "-"]);
    let taken = cluster.servers[0].cli_with_input(&["--json", "bundle", "import", "-"], &bytes).done().json();
    assert_eq!(taken["bundle"].as_str(), None, "the import is one flat document: {taken}");
    assert_eq!(taken["exporter"], "s1");
    cluster.servers[0].start();
    settled(&[&cluster.servers[0], &cluster.servers[1]], 30);
    assert!(difference(&dumps(&cluster.servers[0])[0], &dumps(&cluster.servers[1])[0]).is_none());
}

/// Every refusal has its exit code, its cause, and the next step; nothing is stored.
#[test]
fn refusals_say_why_and_what_to_do() {
    let (cluster, stick) = cluster_by_stick();
    let [first, second] = &cluster.servers[..] else { panic!("two servers") };
    app(first.database("scouting"), "INSERT INTO team (team_number) VALUES (5)");
    logged(first);
    let good = stick.join("good.litemesh");
    first.cli(&["bundle", "export", text(&good)]).done();
    let events = |server: &Server| server.database_status("scouting")["events"].clone();
    let before = events(second);
    let bytes = std::fs::read(&good).unwrap();
    let mut changed = bytes.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 4;
    let cases: [(&str, Vec<u8>, i32, &str); 5] = [
        ("changed", changed, 4, "damaged"),
        ("cut", bytes[..bytes.len() - 30].to_vec(), 4, "cut off"),
        ("longer", [bytes.as_slice(), b"more"].concat(), 4, "behind its end"),
        ("photo", b"\xff\xd8\xff\xe0 a photo of the pit".to_vec(), 1, "no litemesh bundle"),
        ("empty", Vec::new(), 1, "no litemesh bundle"),
    ];
    for (name, bytes, code, words) in cases {
        let path = stick.join(name);
        std::fs::write(&path, bytes).unwrap();
        let answer = second.cli(&["bundle", "import", text(&path)]);
        refused(&answer, code, words);
        assert_eq!(events(second), before, "{name}");
    }
    // A server of another cluster, and one of no cluster.
    let mut others = Cluster::unjoined(2, FIXTURES, Some("scouting.toml"));
    others.servers[0].start();
    refused(&others.servers[0].cli(&["bundle", "import", text(&good)]), 1, "another cluster");
    refused(&others.servers[1].cli(&["bundle", "import", text(&good)]), 1, "holds no node");
    let request = stick.join("other.request");
    let flags = others.servers[1].database_flags();
    let arguments = ["join", "--request", text(&request)].into_iter().chain(flags.iter().map(String::as_str));
    // Rows that are here want a word first.
    refused(&others.servers[1].cli(&arguments.clone().collect::<Vec<_>>()), 1, "--yes");
    others.servers[1].cli(&arguments.chain(["--yes"]).collect::<Vec<_>>()).done();
    refused(&others.servers[1].cli(&["bundle", "import", text(&good)]), 1, "made for another server");
    let started = others.servers[1].try_start(&[]).unwrap_err();
    refused(&started, 1, "asked to join");
    // A file that is no bundle is not overwritten.
    refused(&first.cli(&["bundle", "export", text(&stick.join("photo"))]), 1, "is no bundle");
    second.cli(&["bundle", "import", text(&good)]).done();
    assert!(events(second).as_u64() > before.as_u64());
}

#[track_caller]
fn refused(answer: &Answer, code: i32, words: &str) {
    assert_eq!(answer.code, Some(code), "{answer:?}");
    let said = if answer.stderr.is_empty() { &answer.stdout } else { &answer.stderr };
    assert!(said.contains(words), "no `{words}` in: {answer:?}");
}

/// A data directory was put back from a copy: what is made for that server begins behind what it holds now. That is no
/// success, and the older bundle closes the gap, whatever the order of their names.
#[test]
fn a_gap_is_no_success_and_the_older_bundle_closes_it() {
    let (mut cluster, stick) = cluster_by_stick();
    let write = |cluster: &Cluster, number: u32| {
        let row = format!("INSERT INTO team (team_number, marker) VALUES ({number}, 'gap')");
        app(cluster.servers[0].database("scouting"), &row);
        logged(&cluster.servers[0]);
    };
    cluster.servers[1].stop();
    let kept = stick.join("kept");
    let copy = |from: &Path, to: &Path| {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    };
    let data = cluster.servers[1].data();
    copy(&data, &kept);
    write(&cluster, 81);
    let folder = stick.join("folder");
    std::fs::create_dir(&folder).unwrap();
    let (older, newer) = (folder.join("b.litemesh"), folder.join("a.litemesh"));
    cluster.servers[0].cli(&["bundle", "export", text(&older)]).done();
    cluster.servers[1].cli(&["bundle", "import", text(&older)]).done();
    let said = stick.join("said.litemesh");
    cluster.servers[1].cli(&["bundle", "export", text(&said)]).done();
    cluster.servers[0].cli(&["bundle", "import", text(&said)]).done();
    std::fs::remove_dir_all(&data).unwrap();
    copy(&kept, &data);
    write(&cluster, 82);
    cluster.servers[0].cli(&["bundle", "export", text(&newer), "--for", "s1"]).done();
    let gap = cluster.servers[1].cli(&["bundle", "import", text(&newer)]);
    refused(&gap, 1, "begins after event");
    assert!(gap.stderr.contains("of s0") && gap.stderr.contains("older one"), "{gap:?}");
    cluster.servers[1].cli(&["bundle", "import", text(&folder)]).done();
    let nothing = cluster.servers[1].json(&["bundle", "import", text(&folder)]);
    assert_eq!((&nothing["bundles"], &nothing["taken"]), (&Value::from(2), &Value::from(0)));
    cluster.servers[1].start();
    settled(&[&cluster.servers[0], &cluster.servers[1]], 30);
}
