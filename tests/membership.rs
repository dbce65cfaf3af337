//! Who is in and who is not: codes, strangers, two clusters on one wire.
//!
//! What it does not verify: floods and forged frames; the fuzz targets and the simulator do that.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used)]

mod support;

use support::cluster::{Cluster, connected_peers};
use support::dump::number;
use support::{app, until};

const FIXTURES: &[(&str, &str)] = &[("scouting", "scouting.sql"), ("users", "users.sql")];

/// Names may have 64 bytes.
const LONG_NAME: &str = "stands-of-the-north-hall-laptop-3-of-the-école-at-the-far-en-é";

#[test]
fn a_code_works_once() {
    let cluster = Cluster::unjoined(3, FIXTURES, Some("scouting.toml"));
    let mut cluster = cluster;
    cluster.servers[0].start();
    let code = cluster.servers[0].invite();
    let join = |number: usize| {
        let server = &cluster.servers[number];
        let flags = server.database_flags();
        let arguments = ["join", &code, "--name", LONG_NAME, "--yes"];
        server.cli(&arguments.into_iter().chain(flags.iter().map(String::as_str)).collect::<Vec<_>>())
    };
    join(1).done();
    until("the newcomer is known by its whole name", 20, || {
        let name = cluster.servers[0].status()["peers"][0]["name"].clone();
        if name == LONG_NAME { Ok(()) } else { Err(name.to_string()) }
    });
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

/// The ids of the events that a server holds, by origin.
fn events_of(server: &support::server::Server) -> u64 {
    server.status()["databases"].as_array().unwrap().iter().map(|database| database["events"].as_u64().unwrap()).sum()
}

fn alerts(server: &support::server::Server) -> String {
    server.status()["alerts"].to_string()
}

/// Revoked while one member is off: its connection ends, the member that was off refuses it as well, and what the others
/// write reaches it no more. It says so itself.
#[test]
fn a_revoked_member_is_cut_off_everywhere() {
    let mut cluster = Cluster::scouting(3);
    cluster.settled(30);
    let third = cluster.servers[2].address();
    cluster.servers[1].cli(&["peers", "add", &third]).done();
    cluster.servers[1].stop();
    let refused = cluster.servers[2].cli(&["peers", "revoke", "s0"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("no admin") && refused.stderr.contains("s0"), "{}", refused.stderr);

    cluster.servers[0].cli(&["peers", "revoke", "s2"]).done();
    until("the connection ends", 10, || match connected_peers(&cluster.servers[0]) {
        0 => Ok(()),
        more => Err(format!("{more} peers")),
    });
    until("the revoked server knows why", 20, || {
        let said = alerts(&cluster.servers[2]);
        if said.contains("shut out") && said.contains("readmit s2") { Ok(()) } else { Err(said) }
    });
    assert_eq!(cluster.servers[2].status()["node"]["role"], "none");
    let before = events_of(&cluster.servers[2]);

    // The member that was off hears of it from the first one, and never lets the third one in.
    cluster.servers[1].start();
    until("the other two are connected", 20, || match connected_peers(&cluster.servers[0]) {
        1 => Ok(()),
        more => Err(format!("{more} peers")),
    });
    app(cluster.servers[0].database("scouting"), "INSERT INTO team (team_number, marker) VALUES (4711, 'secret')");
    app(cluster.servers[2].database("scouting"), "INSERT INTO team (team_number, marker) VALUES (4712, 'late')");
    let has = |server: usize, marker: &str| {
        let query = format!("SELECT count(*) FROM team WHERE marker = '{marker}'");
        number(cluster.servers[server].database("scouting"), &query)
    };
    until("the others go on", 20, || if has(1, "secret") == 1 { Ok(()) } else { Err("not yet".to_owned()) });
    until("the second one knows", 20, || {
        let members = cluster.servers[1].json(&["peers", "members"]);
        let states: Vec<_> = members["members"].as_array().unwrap().iter().map(|one| one["state"].clone()).collect();
        if states == ["active", "active", "revoked"] { Ok(()) } else { Err(format!("{states:?}")) }
    });
    assert_eq!((has(2, "secret"), has(0, "late"), has(1, "late")), (0, 0, 0));
    // Its own capture goes on; nothing came from elsewhere.
    until("its own write is in its log", 20, || {
        if events_of(&cluster.servers[2]) == before + 1 {
            Ok(())
        } else {
            Err(events_of(&cluster.servers[2]).to_string())
        }
    });

    // Let in again, all of it becomes equal.
    cluster.servers[0].cli(&["peers", "readmit", "s2"]).done();
    cluster.settled(40);
    assert_eq!(has(0, "late"), 1);
    until("it hears that it is in again", 20, || {
        let said = alerts(&cluster.servers[2]);
        if said.contains("shut out") { Err(said) } else { Ok(()) }
    });
}

/// A read-only server gets everything; what is written there stays until it is given the right.
#[test]
fn what_a_read_only_server_writes_stays_there() {
    let mut cluster = Cluster::unjoined(2, FIXTURES, Some("scouting.toml"));
    cluster.servers[0].start();
    let code = cluster.servers[0].cli(&["invite", "--role", "read-only"]).done().stdout.trim().to_owned();
    let flags = cluster.servers[1].database_flags();
    let arguments = ["join", &code, "--name", "s1", "--yes"].into_iter().chain(flags.iter().map(String::as_str));
    cluster.servers[1].cli(&arguments.collect::<Vec<_>>()).done();
    let address = cluster.servers[0].address();
    cluster.servers[1].start_with(&["--peer", &address]);
    cluster.connected();
    cluster.adopted();
    assert_eq!(cluster.servers[1].status()["node"]["role"], "read-only");
    app(cluster.servers[0].database("scouting"), "INSERT INTO team (team_number, marker) VALUES (4711, 'down')");
    app(cluster.servers[1].database("scouting"), "INSERT INTO team (team_number, marker) VALUES (4712, 'up')");
    let has = |server: usize, marker: &str| {
        let query = format!("SELECT count(*) FROM team WHERE marker = '{marker}'");
        number(cluster.servers[server].database("scouting"), &query)
    };
    until("it gets everything", 20, || if has(1, "down") == 1 { Ok(()) } else { Err("not yet".to_owned()) });
    until("it says that its own writes stay", 20, || {
        let said = alerts(&cluster.servers[1]);
        if said.contains("1 local writes (events) stay here") { Ok(()) } else { Err(said) }
    });
    cluster.servers[1].cli(&["sync", "--wait", "10"]).done();
    assert_eq!(has(0, "up"), 0);
    cluster.servers[0].cli(&["peers", "role", "s1", "member"]).done();
    cluster.settled(30);
    assert_eq!(has(0, "up"), 1);
    // Its writes can be taken before it hears that they are.
    until("it hears of its right", 20, || {
        let said = alerts(&cluster.servers[1]);
        if said.contains("stay here") { Err(said) } else { Ok(()) }
    });
}

/// Without a code, and only while somebody holds the door open.
#[test]
fn the_local_network_is_trusted_for_a_while() {
    let mut cluster = Cluster::unjoined(3, FIXTURES, Some("scouting.toml"));
    cluster.servers[0].start();
    let address = cluster.servers[0].address();
    let join = |number: usize, cluster_name: &str| {
        let server = &cluster.servers[number];
        let flags = server.database_flags();
        let arguments = ["join", "--lan", cluster_name, "--peer", &address, "--name", &server.name, "--yes"];
        server.cli(&arguments.into_iter().chain(flags.iter().map(String::as_str)).collect::<Vec<_>>())
    };
    let refused = join(1, "");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("trust-lan"), "{}", refused.stderr);
    cluster.servers[0].cli(&["trust-lan", "5m"]).done();
    assert!(alerts(&cluster.servers[0]).contains("without a code"));
    let other = join(1, "another cluster");
    assert!(other.stderr.contains("another name"), "{}", other.stderr);
    join(1, "s0's cluster").done();
    assert!(alerts(&cluster.servers[0]).contains("s1"), "who came in is told");
    cluster.servers[0].cli(&["trust-lan", "off"]).done();
    assert_eq!(join(2, "").code, Some(1));
    // Never across restarts.
    cluster.servers[0].cli(&["trust-lan", "5m"]).done();
    cluster.servers[0].stop();
    cluster.servers[0].start();
    let address = cluster.servers[0].address();
    let flags = cluster.servers[2].database_flags();
    let arguments = ["join", "--lan", "--peer", &address, "--yes"];
    let again =
        cluster.servers[2].cli(&arguments.into_iter().chain(flags.iter().map(String::as_str)).collect::<Vec<_>>());
    assert_eq!(again.code, Some(1), "{again:?}");
    cluster.servers[1].start_with(&["--peer", &address]);
    cluster.connected();
}

/// The founding server is lost: the phrase, shown once, makes another one an admin, and shuts the lost one out.
#[test]
fn the_recovery_phrase_is_the_way_back() {
    let mut cluster = Cluster::scouting(2);
    let said = cluster.servers[0].said();
    let phrase = said.split("recovery phrase of the new cluster: ").nth(1).expect("it is shown at the first start");
    let phrase = phrase.lines().next().unwrap().trim().to_owned();
    for entry in std::fs::read_dir(cluster.servers[0].data()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap_or_default();
        assert!(!bytes.windows(phrase.len()).any(|part| part == phrase.as_bytes()), "the phrase is stored");
    }
    cluster.servers[0].stop();
    cluster.servers[1].invite();
    assert_eq!(cluster.servers[1].cli(&["invite", "--role", "admin"]).code, Some(1), "a member makes no admins");
    let wrong = cluster.servers[1].cli_with(&["recover-admin"], &format!("A{}", &phrase[1..]));
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    cluster.servers[1].cli_with(&["recover-admin", "--revoke", "s0"], &phrase).done();
    assert_eq!(cluster.servers[1].status()["node"]["role"], "admin");
    cluster.servers[1].invite();
    // The lost one comes back in other hands: nobody takes it in.
    let address = cluster.servers[1].address();
    cluster.servers[0].start_with(&["--peer", &address]);
    until("the lost server is told", 20, || {
        let said = alerts(&cluster.servers[0]);
        if said.contains("shut out") { Ok(()) } else { Err(said) }
    });
    assert_eq!(connected_peers(&cluster.servers[1]), 0);
    // Only the first start shows a phrase.
    assert_eq!(cluster.servers[0].said().matches("recovery phrase of the new cluster").count(), 1);
}

/// Another key in the same place: the others take it for the same server.
#[test]
fn a_rotated_key_keeps_its_place() {
    let mut cluster = Cluster::scouting(2);
    cluster.settled(30);
    let before = cluster.servers[1].status();
    let running = cluster.servers[1].cli(&["key", "rotate"]);
    assert_eq!(running.code, Some(1), "{running:?}");
    cluster.servers[1].stop();
    cluster.servers[1].cli(&["key", "rotate"]).done();
    let address = cluster.servers[0].address();
    cluster.servers[1].start_with(&["--peer", &address]);
    cluster.connected();
    app(cluster.servers[1].database("scouting"), "INSERT INTO team (team_number, marker) VALUES (4713, 'new key')");
    cluster.settled(30);
    let after = cluster.servers[1].status();
    assert_ne!(before["node"]["id"], after["node"]["id"]);
    assert_eq!(before["node"]["origin_rank"], after["node"]["origin_rank"]);
    assert_eq!(before["node"]["slot"], after["node"]["slot"]);
    assert_eq!(cluster.servers[0].status()["cluster"]["members"], 2);
    let query = "SELECT count(*) FROM team WHERE marker = 'new key'";
    assert_eq!(number(cluster.servers[0].database("scouting"), query), 1);
}
