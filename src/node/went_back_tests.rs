//! A data directory that went back: a backup of it was put in place while the node was stopped, and the server goes on alone
//! before it meets the others.
//!
//! Invariant: time and frames are carried by hand. Not tested: a copy of the whole machine, which nothing on it can tell
//! (see `recover`). Callers: cargo test.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::pair_tests::{Pair, Site};
use super::*;

const SCHEMA: &str = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT, edits INTEGER DEFAULT 0)";

/// Puts bytes in a file's place as a restore does: another file under the same name.
fn put_back(path: &Path, bytes: &[u8]) {
    let aside = path.with_extension("restored");
    std::fs::write(&aside, bytes).unwrap();
    std::fs::rename(&aside, path).unwrap();
}

/// Two servers in sync; the second one writes `texts`, a row each, every one captured and sent.
fn two_in_sync(sites: [&Site; 2], texts: &[&str]) -> Pair {
    let mut pair = Pair::start(sites, &[]);
    pair.meet();
    write(sites[1], &mut pair, texts);
    pair
}

fn write(site: &Site, pair: &mut Pair, texts: &[&str]) {
    for text in texts {
        site.app("app", &format!("INSERT INTO note (text) VALUES ('{text}')"));
        pair.work();
    }
}

/// The second node goes on from what lies in its folder, alone: its app writes a row and changes an older one.
fn alone(mut pair: Pair, site: &Site) -> Pair {
    let settings = NodeSettings { entropy: [99; 32], ..site.settings() };
    let mut second = Node::open(settings, site.log(), pair.now).unwrap();
    site.app("app", "INSERT INTO note (text) VALUES ('alone'); UPDATE note SET edits = edits + 1 WHERE text = 'one'");
    for _ in 0..10 {
        pair.now.mono_ms += 500;
        pair.now.wall_ms += 500;
        second.handle(Input::Tick, pair.now).unwrap();
        while second.poll_effect().is_some() {}
    }
    pair.nodes[1] = second;
    pair.meet();
    pair
}

fn assert_equal(sites: [&Site; 2], want: &[&str]) {
    for site in sites {
        assert_eq!(site.ask("app", "SELECT text || ' ' || edits FROM note ORDER BY text"), want);
    }
}

/// Stops the second node and leaves a placeholder, so that its files are closed.
fn stop_second(pair: Pair, idle: &Site) -> Pair {
    let Pair { nodes: [first, second], now } = pair;
    second.close().unwrap();
    Node::found(&idle.log(), &idle.settings().key_seed, "idle", "idle", now).unwrap();
    let placeholder = Node::open(idle.settings(), idle.log(), now).unwrap();
    let mut pair = Pair { nodes: [first, placeholder], now };
    let gone =
        pair.nodes[0].membership().members().iter().map(|member| member.node).find(|node| *node != pair.nodes[0].id());
    pair.nodes[0].handle(Input::PeerDisconnected { peer: gone.unwrap() }, now).unwrap();
    pair
}

#[test]
fn the_log_alone_was_put_back_and_no_row_is_lost_or_changed_into_another() {
    let (sites, idle) = ([1, 2].map(|seed| Site::new(seed).with("app", SCHEMA, &[])), Site::new(9));
    let mut pair = two_in_sync([&sites[0], &sites[1]], &["one"]);
    let log = sites[1].directory.path().join("events.redb");
    let backup = std::fs::read(&log).unwrap();
    write(&sites[1], &mut pair, &["two", "three"]);
    let pair = stop_second(pair, &idle);
    // Into the same file: its identity tells nothing.
    std::fs::write(&log, &backup).unwrap();
    let pair = alone(pair, &sites[1]);
    assert_equal([&sites[0], &sites[1]], &["alone 0", "one 1", "three 0", "two 0"]);
    drop(pair);
}

#[test]
fn log_and_file_were_put_back_and_no_row_is_lost_or_changed_into_another() {
    let (sites, idle) = ([1, 2].map(|seed| Site::new(seed).with("app", SCHEMA, &[])), Site::new(9));
    let pair = two_in_sync([&sites[0], &sites[1]], &["one"]);
    let paths = [sites[1].directory.path().join("events.redb"), sites[1].path("app")];
    let pair = stop_second(pair, &idle);
    let backup = paths.clone().map(|path| std::fs::read(path).unwrap());
    let second = Node::open(sites[1].settings(), sites[1].log(), pair.now).unwrap();
    let Pair { nodes: [first, _], now } = pair;
    let mut pair = Pair { nodes: [first, second], now };
    pair.meet();
    write(&sites[1], &mut pair, &["two", "three"]);
    drop(idle);
    let idle = Site::new(8);
    let pair = stop_second(pair, &idle);
    for (path, bytes) in paths.iter().zip(&backup) {
        put_back(path, bytes);
    }
    let pair = alone(pair, &sites[1]);
    assert_equal([&sites[0], &sites[1]], &["alone 0", "one 1", "three 0", "two 0"]);
    drop(pair);
}

/// Tables without a key are scanned at every start, since their rows may have been renumbered. On a log that went back the
/// scan took what others had written since for rows of its own: they stood twice, on every server.
#[test]
fn rows_without_a_key_that_the_log_lost_are_not_taken_for_new() {
    let keyless = "CREATE TABLE slip (text TEXT)";
    let (sites, idle) = ([1, 2].map(|seed| Site::new(seed).with("app", keyless, &[])), Site::new(9));
    let mut pair = Pair::start([&sites[0], &sites[1]], &[]);
    pair.meet();
    let log = sites[1].directory.path().join("events.redb");
    let backup = std::fs::read(&log).unwrap();
    sites[0].app("app", "INSERT INTO slip VALUES ('from the first')");
    pair.work();
    let mut pair = stop_second(pair, &idle);
    std::fs::write(&log, &backup).unwrap();
    pair.nodes[1] = Node::open(sites[1].settings(), sites[1].log(), pair.now).unwrap();
    pair.meet();
    for site in &sites {
        assert_eq!(site.ask("app", "SELECT text FROM slip"), ["from the first"]);
    }
    // What waited is done: a row that no trigger saw is found at the next start.
    assert!(pair.nodes[1].databases.iter().all(|database| database.lost.is_none()));
}

/// A row that had to give up its id stood in the backup at another one than it claims: it came back as a second row.
#[test]
fn a_row_that_had_moved_and_was_deleted_since_the_backup_of_a_file_stays_deleted() {
    let with = |seed| Site::new(seed).with("app", SCHEMA, &[]);
    let (sites, idle) = ([with(1), with(2)], Site::new(9));
    let mut pair = Pair::start([&sites[0], &sites[1]], &[]);
    pair.meet();
    pair.part();
    for (site, text) in sites.iter().zip(["senior", "junior"]) {
        site.app("app", &format!("INSERT INTO note (id, text) VALUES (500, '{text}')"));
    }
    pair.meet();
    let moved = "SELECT text FROM note WHERE id > 1000000";
    assert_eq!(sites[1].ask("app", moved), ["junior"], "the test needs a row that moved");
    let pair = stop_second(pair, &idle);
    let backup = std::fs::read(sites[1].path("app")).unwrap();
    let second = Node::open(sites[1].settings(), sites[1].log(), pair.now).unwrap();
    let Pair { nodes: [first, _], now } = pair;
    let mut pair = Pair { nodes: [first, second], now };
    pair.meet();
    sites[0].app("app", "DELETE FROM note WHERE text = 'junior'");
    pair.work();
    drop(idle);
    let mut pair = stop_second(pair, &Site::new(8));
    put_back(&sites[1].path("app"), &backup);
    pair.nodes[1] = Node::open(sites[1].settings(), sites[1].log(), pair.now).unwrap();
    pair.meet();
    assert_equal([&sites[0], &sites[1]], &["senior 0"]);
}
