//! Cleanup on whole nodes: what moves, what waits and for whom, and that nobody misses anything.

use std::collections::BTreeSet;

use super::super::group_tests::{Group, chain_of, events_in, is_answer, origin_of};
use super::super::pair_tests::{CLOCK_MS, Pair, Site};
use super::super::*;
use super::*;
use crate::wire::decode_event;

const NOTE: &str = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT)";

/// Lets a node work alone until its cleanup is over.
fn clean(node: &mut Node, days: Option<u32>, now: &mut Now) -> CleanupView {
    node.start_cleanup(days, *now).unwrap();
    for _ in 0..100_000 {
        *now = Now { mono_ms: now.mono_ms + 5, wall_ms: now.wall_ms + 5 };
        node.handle(Input::Tick, *now).unwrap();
        while node.poll_effect().is_some() {}
        if node.cleanup().state != "running" {
            return node.cleanup();
        }
    }
    panic!("the cleanup does not end: {:?}", node.cleanup());
}

/// Cleans up on one node of a group, while all go on.
fn clean_one(group: &mut Group, at: usize, days: Option<u32>) -> CleanupView {
    let now = group.now;
    group.nodes[at].start_cleanup(days, now).unwrap();
    group.run_until("the cleanup", 60_000, |group| group.nodes[at].cleanup().state != "running");
    group.nodes[at].cleanup()
}

#[test]
fn a_cleanup_moves_what_all_hold_and_names_who_it_waits_for() {
    let stock = |at: usize, cluster| if at == 0 { chain_of(1, cluster, 77, 900, 100) } else { Vec::new() };
    let mut group = Group::new(3, stock);
    let origin = origin_of(1, 77);
    group.connect(0, 1);
    group.run_until("the second has all", 60_000, |group| group.seq(1, &origin) == 900);
    group.run(10_000);
    let plan = group.nodes[0].plan_cleanup(None, group.now).unwrap();
    assert_eq!((plan.wanted, plan.state.as_str()), (0, "planned"), "the third one was never heard");
    assert!(plan.blocked >= 900 && plan.blocking.len() == 1, "{plan:?}");
    let third = &plan.blocking[0];
    assert!(third.name == "n2" && third.heard.is_empty() && third.lacks >= 900, "{third:?}");
    let done = clean_one(&mut group, 0, None);
    assert_eq!((done.state.as_str(), done.removed), ("done", 0), "{done:?}");

    group.connect(0, 2);
    group.run_until("the third has all", 60_000, |group| group.seq(2, &origin) == 900);
    group.run(10_000);
    // Young events stay: they are stamped 1,000 s before the clock of the test.
    let young = clean_one(&mut group, 0, Some(1));
    assert_eq!((young.removed, young.blocked), (0, 0), "{young:?}");
    let done = clean_one(&mut group, 0, Some(0));
    assert!(done.state == "done" && done.removed >= 900 && done.segments > 0, "{done:?}");
    assert!(done.bytes < done.hot_bytes, "{} bytes of {}", done.bytes, done.hot_bytes);
    assert!(done.blocking.is_empty() && done.problem.is_empty(), "{done:?}");
    let disk = group.nodes[0].disk().unwrap();
    assert!(disk.segments > 0 && disk.segment_events >= 900 && disk.segments_missing.is_empty(), "{disk:?}");
    assert!(group.nodes[0].log().read().unwrap().first_in_log(&origin, 0).unwrap().is_none(), "its bodies are gone");
    // Nothing moved on the others, and everybody still agrees.
    assert_eq!(group.nodes[1].disk().unwrap().segments, 0);
    assert!(group.nodes[0].verify_log().unwrap().faults.is_empty());
    assert_eq!(clean_one(&mut group, 0, Some(0)).removed, 0, "a second cleanup finds nothing");
}

#[test]
fn a_member_that_was_gone_for_a_season_gets_everything_from_the_archive() {
    // The third one held the first 300 events and was gone; then its disk was changed, and it begins with nothing.
    let stock = |at: usize, cluster| chain_of(1, cluster, 77, if at < 2 { 1_500 } else { 300 }, 120);
    let mut group = Group::new(3, stock);
    let origin = origin_of(1, 77);
    group.connect(0, 1);
    group.connect(0, 2);
    group.run_until("all have all", 120_000, |group| group.seq(2, &origin) == 1_500);
    group.run(10_000);
    group.cut(0, 2);
    assert!(clean_one(&mut group, 0, None).removed >= 1_500);
    let away = Site::new(3).with("app", NOTE, &[]);
    let log = away.log();
    let records: Vec<_> = group.nodes[0].membership().records().into_iter().cloned().collect();
    Node::enter(&log, records).unwrap();
    group.nodes[2] = Node::open(away.settings(), log, group.now).unwrap();
    group.sent.clear();
    group.connect(0, 2);
    group.run_until("the one that came back has all", 120_000, |group| group.seq(2, &origin) == 1_500);
    let archived = group.nodes[0].log();
    let (here, there) = (archived.read().unwrap(), group.nodes[2].log().read().unwrap());
    for seq in 1..=1_500 {
        assert_eq!(here.event(&origin, seq).unwrap(), there.event(&origin, seq).unwrap(), "event {seq}");
    }
    assert!(group.nodes[2].verify_log().unwrap().faults.is_empty());
    let answers = group.sent.iter().filter(|(from, to, frame)| (*from, *to) == (0, 2) && is_answer(frame));
    let carried: usize = answers.map(|(_, _, frame)| events_in(frame).events.len()).sum();
    assert!((1_500..1_800).contains(&carried), "{carried} events were sent for 1,500");
}

#[test]
fn rows_history_and_replay_are_the_same_before_and_after() {
    let sites = [Site::new(1).with("app", NOTE, &[]), Site::new(2).with("app", NOTE, &[])];
    let mut pair = Pair::start([&sites[0], &sites[1]], &[]);
    pair.meet();
    for round in 0..40 {
        sites[round % 2].app("app", &format!("INSERT INTO note (text) VALUES ('n{round}')"));
        sites[(round + 1) % 2].app("app", &format!("UPDATE note SET text = text || '.{round}' WHERE id % 3 = 1"));
        pair.work();
    }
    pair.work();
    let look = |node: &Node| {
        let history: Vec<_> = sites[0]
            .ask("app", "SELECT id FROM note ORDER BY id")
            .iter()
            .map(|id| node.history("app", "note", id).unwrap())
            .collect();
        let page = node.events(&view::EventFilter { limit: 10_000, ..Default::default() }).unwrap();
        (history, page, node.status(pair.now).unwrap().databases)
    };
    let before = look(&pair.nodes[0]);
    let out = tempfile::tempdir().unwrap();
    let replayed = pair.nodes[0].rebuild(&out.path().join("before")).unwrap();
    let then = Some(CLOCK_MS + 60_000);
    let shown = pair.nodes[0].replay().unwrap().write(&out.path().join("then before"), then).unwrap();
    let mut now = pair.now;
    let done = clean(&mut pair.nodes[0], None, &mut now);
    assert!(done.removed > 60, "{done:?}");
    assert_eq!(look(&pair.nodes[0]), before);
    let again = pair.nodes[0].rebuild(&out.path().join("after")).unwrap();
    assert_eq!(again.databases[0].digest, replayed.databases[0].digest);
    assert_eq!(again.databases[0].digest, again.databases[0].live_digest);
    let shown_again = pair.nodes[0].replay().unwrap().write(&out.path().join("then after"), then).unwrap();
    assert_eq!(shown_again.databases[0].digest, shown.databases[0].digest);
    // And both go on, over a restart too.
    sites[0].app("app", "INSERT INTO note (text) VALUES ('later')");
    pair.now = now;
    pair.work();
    let [first, second] = pair.nodes;
    first.close().unwrap();
    let first = Node::open(sites[0].settings(), sites[0].log(), now).unwrap();
    let mut pair = Pair { nodes: [first, second], now };
    pair.part();
    pair.meet();
    sites[1].app("app", "UPDATE note SET text = 'last' WHERE id = 1");
    pair.work();
    assert_eq!(
        sites[0].ask("app", "SELECT text FROM note ORDER BY id"),
        sites[1].ask("app", "SELECT text FROM note ORDER BY id")
    );
    assert!(pair.nodes[0].verify_log().unwrap().faults.is_empty());
}

#[test]
fn a_cleanup_that_was_cut_off_at_any_step_goes_on_at_the_next_start() {
    let sites = [Site::new(1).with("app", NOTE, &[]), Site::new(2).with("app", NOTE, &[])];
    let mut pair = Pair::start([&sites[0], &sites[1]], &[]);
    pair.meet();
    for round in 0..30 {
        sites[0].app("app", &format!("INSERT INTO note (text) VALUES ('n{round}')"));
        pair.work();
    }
    let [mut node, _] = pair.nodes;
    let mut now = pair.now;
    let events = node.events_held();
    let mut went_on = 0;
    for steps in 1..=12 {
        node.start_cleanup(None, now).unwrap();
        for _ in 0..steps {
            now = Now { mono_ms: now.mono_ms + 5, wall_ms: now.wall_ms + 5 };
            node.handle(Input::Tick, now).unwrap();
        }
        drop(node);
        node = Node::open(sites[0].settings(), sites[0].log(), now).unwrap();
        went_on += u32::from(node.cleanup().state == "running");
        assert_eq!(node.events_held(), events);
        assert!(node.verify_log().unwrap().faults.is_empty());
    }
    assert!(went_on > 0, "no start found anything to go on with");
    let done = clean(&mut node, None, &mut now);
    assert_eq!(done.state, "done");
    let disk = node.disk().unwrap();
    // The other one may not have said yet that it holds the last one.
    assert!(disk.log_events <= 1 && disk.log_events + disk.segment_events == events, "{disk:?}");
}

#[test]
fn a_missing_segment_is_told_and_stops_nothing_but_itself() {
    let stock = |at: usize, cluster| if at < 2 { chain_of(1, cluster, 77, 700, 100) } else { Vec::new() };
    let mut group = Group::new(3, stock);
    let origin = origin_of(1, 77);
    // For the first one, the third one holds all: it said so once, and lost its disk since.
    group.connect_all();
    group.run_until("all have all", 60_000, |group| group.seq(2, &origin) == 700);
    group.run(10_000);
    assert!(clean_one(&mut group, 0, None).removed >= 700);
    let folder = group.sites[0].directory.path().join(crate::log::SEGMENT_FOLDER);
    std::fs::rename(&folder, folder.with_extension("away")).unwrap();
    let disk = group.nodes[0].disk().unwrap();
    assert_eq!(disk.segments_missing.iter().map(|one| one.events).sum::<u64>(), disk.segment_events, "{disk:?}");
    let report = group.nodes[0].verify_log().unwrap();
    assert!(report.faults[0].contains("is missing"), "{:?}", report.faults.first());
    // A member that begins with nothing gets all of it from the other one.
    let away = Site::new(3).with("app", NOTE, &[]);
    let log = away.log();
    let records: Vec<_> = group.nodes[1].membership().records().into_iter().cloned().collect();
    Node::enter(&log, records).unwrap();
    group.cut(0, 2);
    group.cut(1, 2);
    group.nodes[2] = Node::open(away.settings(), log, group.now).unwrap();
    group.connect(0, 2);
    group.run(3_000);
    assert_eq!(group.seq(2, &origin), 0, "what is gone cannot be sent");
    group.connect(1, 2);
    group.run_until("all from the other", 60_000, |group| group.seq(2, &origin) == 700);
    let told: BTreeSet<u64> = {
        let read = group.nodes[2].log().read().unwrap();
        let all = read.events_from(&origin, 1, usize::MAX).unwrap();
        all.iter().map(|stored| decode_event(&stored.bytes).unwrap().header.seq).collect()
    };
    assert_eq!(told.len(), 700);
    // And what is gone is fetched again, from whoever is connected.
    group.nodes[0].start_repair();
    group.run_until("the repair", 60_000, |group| group.nodes[0].repair().state == "done");
    let repaired = group.nodes[0].repair();
    assert!(repaired.damaged >= 3 && repaired.repaired == repaired.damaged, "{repaired:?}");
    assert!(group.nodes[0].verify_log().unwrap().faults.is_empty());
    assert_eq!(group.nodes[0].disk().unwrap().segments_missing, []);
    group.nodes[0].start_repair();
    group.run_until("another one", 60_000, |group| group.nodes[0].repair().state == "done");
    assert_eq!(group.nodes[0].repair().damaged, 0, "there is nothing left to do");
}

#[test]
fn the_daily_cleanup_begins_once_a_day_at_its_minute() {
    let site = Site::new(1).with("app", NOTE, &[]);
    let log = site.log();
    // 1,795,000,000 s: 09:46:40 of some day in UTC.
    let mut now = Now { mono_ms: 1_000, wall_ms: CLOCK_MS };
    Node::found(&log, &[1; 32], "alone", "test", now).unwrap();
    let mut settings = site.settings();
    settings.retention = RetentionSettings { days_to_keep: 0, daily_at: Some(10 * 60) };
    let mut node = Node::open(settings.clone(), log, now).unwrap();
    let mut pass = |node: &mut Node, minutes: u64| {
        let mut begun = 0;
        for _ in 0..minutes {
            now = Now { mono_ms: now.mono_ms + 60_000, wall_ms: now.wall_ms + 60_000 };
            let before = node.cleanup().started.clone();
            node.handle(Input::Tick, now).unwrap();
            begun += u32::from(node.cleanup().started != before);
        }
        begun
    };
    assert_eq!(pass(&mut node, 5), 0, "09:51");
    assert_eq!(pass(&mut node, 30), 1, "10:21");
    drop(node);
    let mut node = Node::open(settings, site.log(), Now { mono_ms: 1_000, wall_ms: CLOCK_MS }).unwrap();
    assert_eq!(pass(&mut node, 60), 0, "a start does not begin it again");
    assert_eq!(pass(&mut node, 48 * 60), 2, "two days later");
}
