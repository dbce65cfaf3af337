//! Who is in and who is not: codes, strangers, two clusters on one wire.
//!
//! What it does not verify: floods and forged frames; the fuzz targets and the simulator do that.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used)]

mod support;

use support::app;
use support::cluster::{Cluster, connected_peers};
use support::dump::number;

const FIXTURES: &[(&str, &str)] = &[("scouting", "scouting.sql"), ("users", "users.sql")];

#[test]
fn a_code_works_once() {
    let cluster = Cluster::unjoined(3, FIXTURES, Some("scouting.toml"));
    let mut cluster = cluster;
    cluster.servers[0].start();
    let code = cluster.servers[0].invite();
    let join = |number: usize| {
        let server = &cluster.servers[number];
        let flags = server.database_flags();
        let arguments = ["join", &code, "--name", &server.name, "--yes"];
        server.cli(&arguments.into_iter().chain(flags.iter().map(String::as_str)).collect::<Vec<_>>())
    };
    join(1).done();
    let second = join(2);
    assert_eq!(second.code, Some(1), "a burnt code is the user's error: {second:?}");
    assert!(second.stderr.contains("invite"), "the error names the next action: {}", second.stderr);
}

#[test]
fn a_wrong_or_mangled_code_is_refused_in_words() {
    let mut cluster = Cluster::unjoined(2, FIXTURES, Some("scouting.toml"));
    cluster.servers[0].start();
    let code = cluster.servers[0].invite();
    let mut mangled: Vec<char> = code.chars().collect();
    let middle = mangled.len() / 2;
    mangled[middle] = if mangled[middle] == 'a' { 'b' } else { 'a' };
    for wrong in [mangled.into_iter().collect::<String>(), "nonsense".to_owned(), code[..code.len() - 4].to_owned()] {
        let answer = cluster.servers[1].cli(&["join", &wrong, "--yes"]);
        assert_eq!(answer.code, Some(1), "{wrong}: {answer:?}");
        assert!(!answer.stderr.trim().is_empty() && !answer.stderr.contains("panicked"), "{}", answer.stderr);
    }
    // The code itself is still good: nobody used it up by guessing badly.
    let flags = cluster.servers[1].database_flags();
    let arguments = ["join", &code, "--yes"].into_iter().chain(flags.iter().map(String::as_str)).collect::<Vec<_>>();
    cluster.servers[1].cli(&arguments).done();
}

/// Two clusters on one wire that know each other's addresses: neither sees a row, a name or a member of the other.
#[test]
fn two_clusters_do_not_see_each_other() {
    let ours = Cluster::scouting(2);
    let theirs = Cluster::scouting(2);
    for (here, there) in [(&ours, &theirs), (&theirs, &ours)] {
        let _ = here.servers[0].cli(&["peers", "add", &there.servers[0].address()]);
        let _ = here.servers[1].cli(&["peers", "add", &there.servers[0].address()]);
    }
    app(ours.servers[0].database("scouting"), "INSERT INTO team (team_number, marker) VALUES (1, 'ours')");
    app(theirs.servers[1].database("scouting"), "INSERT INTO team (team_number, marker) VALUES (2, 'theirs')");
    ours.settled(20);
    theirs.settled(20);
    for (cluster, foreign) in [(&ours, "theirs"), (&theirs, "ours")] {
        for server in &cluster.servers {
            let query = format!("SELECT count(*) FROM team WHERE marker = '{foreign}'");
            assert_eq!(number(server.database("scouting"), &query), 0);
            let status = server.status();
            assert_eq!(status["cluster"]["members"], 2);
            assert!(connected_peers(server) <= 1, "{status}");
        }
    }
    assert_ne!(ours.servers[0].status()["cluster"]["id"], theirs.servers[0].status()["cluster"]["id"]);
}

/// Secrets are for their owner only.
#[cfg(unix)]
#[test]
fn keys_and_tokens_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let cluster = Cluster::scouting(1);
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(cluster.servers[0].data()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o077;
        if entry.metadata().unwrap().is_file() {
            assert_eq!(mode, 0, "{} is open to others", entry.path().display());
        }
        seen.push(entry.file_name().into_string().unwrap());
    }
    assert!(seen.iter().any(|name| name == "api-token"), "{seen:?}");
}
