//! The node is killed in the middle of its work, again and again, while the applications write.
//!
//! `LITEMESH_KILL_ROUNDS` sets the number of kills (10 where every change is checked; 200 before a release). What it does
//! not verify: power cuts and torn sectors, where unsynced bytes vanish; the simulator does that.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::cluster::Cluster;
use support::dump::assert_sound;
use support::recorder::{Record, Writer, assert_references_hold};
use support::server::for_about;

fn rounds() -> u64 {
    std::env::var("LITEMESH_KILL_ROUNDS")
        .ok()
        .map_or(10, |text| text.parse().expect("LITEMESH_KILL_ROUNDS is a number"))
}

/// Nothing acknowledged to an app is lost, nothing is there twice, the files and the log stay sound.
#[test]
fn killed_again_and_again_nothing_is_lost_and_nothing_doubled() {
    let rounds = rounds();
    let mut cluster = Cluster::scouting(2);
    let seconds = 2 + rounds / 2;
    let writers: Vec<Writer> =
        cluster.servers.iter().map(|server| Writer::start(server, "kill", seconds, 40, &["--explicit-ids"])).collect();
    // Without luck in the choice of moments: a fixed sequence, printed with a failure by the round's number.
    let mut moment: u64 = 0x9E37_79B9;
    for round in 0..rounds {
        moment = moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let alive = Duration::from_millis(20 + (moment >> 33) % 400);
        let victim = usize::try_from(round % 2).unwrap();
        let mut goes_on = for_about(alive);
        while goes_on() {
            std::thread::park_timeout(Duration::from_millis(5)); // the life that the node is given, not a wait for it
        }
        cluster.servers[victim].kill();
        cluster.servers[victim].start();
    }
    let record = writers.into_iter().map(Writer::finish).fold(Record::default(), Record::and);
    cluster.connected();
    cluster.settled(90);
    for server in &cluster.servers {
        record.assert_kept(server);
        assert_references_hold(server);
        server.databases.iter().for_each(|(_, path)| assert_sound(path));
        server.cli(&["log", "verify"]).done();
    }
}

/// Killed before it ever became ready: the next start finds no half-made key, log or outbox.
#[test]
fn killed_during_the_first_start() {
    for turn in 0..8 {
        let mut cluster =
            Cluster::unjoined(1, &[("scouting", "scouting.sql"), ("users", "users.sql")], Some("scouting.toml"));
        let server = &mut cluster.servers[0];
        server.start_and_kill_after(Duration::from_millis(turn * 12));
        server.start();
        let database = server.database_status("scouting");
        assert!(database["state"].as_str().is_some_and(|state| !state.is_empty()), "{database}");
        server.cli(&["log", "verify"]).done();
        support::app(server.database("scouting"), "INSERT INTO team (team_number) VALUES (1)");
        support::until("the row is in the log", 20, || {
            let database = server.database_status("scouting");
            if database["outbox"] == 0 && database["events"].as_u64() > Some(0) {
                Ok(())
            } else {
                Err(database.to_string())
            }
        });
    }
}

/// A second node on the same data directory steps back and says who is there.
#[test]
fn a_second_node_on_the_same_data_is_refused() {
    let cluster = Cluster::scouting(1);
    let first = &cluster.servers[0];
    let flags = first.database_flags();
    let mut arguments = vec!["run", "--no-mdns", "--http", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"];
    arguments.extend(flags.iter().map(String::as_str));
    let second = first.cli(&arguments);
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains(&first.pid().to_string()), "the running process is named: {}", second.stderr);
    assert!(first.status()["node"]["id"].is_string(), "the first one goes on");
}
