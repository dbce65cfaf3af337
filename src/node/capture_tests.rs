//! When the peers hear of a write, and when its marks go: the log first, then the peers, then the outbox.

#![allow(clippy::unwrap_used)]

use super::pair_tests::{Pair, Site};
use super::{Effect, Input, Node, Now};

const NOTES: &str = "CREATE TABLE note(id INTEGER PRIMARY KEY, text TEXT);
    INSERT INTO note VALUES (1, 'one');";

fn marks(site: &Site) -> String {
    site.ask("app", "SELECT count(*) FROM _litemesh_outbox").remove(0)
}

/// Two that agree; then the first one's app writes, and the first one looks once.
fn written() -> ([Site; 2], Pair) {
    let sites = [Site::new(1).with("app", NOTES, &[]), Site::new(2).with("app", NOTES, &[])];
    let mut pair = Pair::start([&sites[0], &sites[1]], &[]);
    pair.meet();
    sites[0].app("app", "INSERT INTO note VALUES (16, 'new')");
    pair.now = Now { mono_ms: pair.now.mono_ms + 1_000, wall_ms: pair.now.wall_ms + 1_000 };
    pair.nodes[0].handle(Input::Tick, pair.now).unwrap();
    (sites, pair)
}

fn events(node: &Node) -> u64 {
    node.log().read().unwrap().heads().unwrap().values().map(|head| head.seq).sum()
}

#[test]
fn peers_hear_of_a_write_before_its_marks_are_cleared() {
    let (sites, mut pair) = written();
    let now = pair.now;
    assert_eq!(marks(&sites[0]), "1", "logged, told, and not cleared yet");
    let mut frames = Vec::new();
    while let Some(effect) = pair.nodes[0].poll_effect() {
        if let Effect::Send { frame, .. } = effect {
            frames.push(frame);
        }
    }
    let [from, to] = [pair.nodes[0].id(), pair.nodes[1].id()];
    assert_ne!(from, to);
    for frame in frames {
        pair.nodes[1].handle(Input::Received { peer: from, frame }, now).unwrap();
    }
    pair.nodes[1].handle(Input::Tick, now).unwrap();
    assert_eq!(sites[1].ask("app", "SELECT text FROM note WHERE id = 16"), ["new"]);
    assert_eq!(pair.nodes[0].next_deadline(now), Some(now.mono_ms), "it goes on at once");
    let told = events(&pair.nodes[0]);
    pair.nodes[0].handle(Input::Tick, now).unwrap();
    assert_eq!((marks(&sites[0]).as_str(), events(&pair.nodes[0])), ("0", told));
}

#[test]
fn a_write_in_between_is_not_cleared_with_the_others() {
    let (sites, mut pair) = written();
    sites[0].app("app", "INSERT INTO note VALUES (32, 'newer')");
    let before = events(&pair.nodes[0]);
    pair.work();
    assert_eq!(events(&pair.nodes[0]), before + 1);
    for site in &sites {
        assert_eq!(site.ask("app", "SELECT text FROM note ORDER BY id"), ["one", "new", "newer"]);
        assert_eq!(marks(site), "0");
    }
}

#[test]
fn who_stops_in_between_clears_them_and_who_is_cut_off_logs_nothing_twice() {
    let (sites, pair) = written();
    let (before, [first, _]) = (events(&pair.nodes[0]), pair.nodes);
    first.close().unwrap();
    assert_eq!(marks(&sites[0]), "0");

    let (sites_cut, pair) = written();
    let now = pair.now;
    drop(pair);
    assert_eq!(marks(&sites_cut[0]), "1");
    let mut again = Node::open(sites_cut[0].settings(), sites_cut[0].log(), now).unwrap();
    for step in 1..20 {
        let now = Now { mono_ms: now.mono_ms + step * 300, wall_ms: now.wall_ms + step * 300 };
        again.handle(Input::Tick, now).unwrap();
    }
    assert_eq!((marks(&sites_cut[0]).as_str(), events(&again)), ("0", before));
}
