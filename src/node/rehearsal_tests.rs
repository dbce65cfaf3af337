//! The plan of a join says what the join then does.

#![allow(clippy::unwrap_used)]

use super::super::meeting::Meeting;
use super::super::meeting_view::{MeetingPlan, MoveView};
use super::super::pair_tests::{Pair, Site};
use super::super::{Node, NodeSettings};
use crate::log::Log;
use crate::sqlite::copy_file;

const TABLES: &str = "CREATE TABLE team(id INTEGER PRIMARY KEY, name TEXT, place TEXT, color TEXT);
    CREATE TABLE badge(id INTEGER PRIMARY KEY, code TEXT UNIQUE, text TEXT);
    CREATE TABLE user(id INTEGER PRIMARY KEY, username TEXT UNIQUE, password_hash TEXT);";

/// Plays the joiner's meeting on copies, then for real.
fn plan(sites: [&Site; 2], meetings: &[(&str, Meeting)]) -> (MeetingPlan, Pair) {
    let mut pair = Pair::start(sites, meetings);
    pair.meet_without_files();
    let scratch = tempfile::tempdir().unwrap();
    let mut settings: NodeSettings = sites[1].settings();
    for database in &mut settings.databases {
        let copy = scratch.path().join(format!("{}.db", database.name));
        copy_file(&database.path, &copy).unwrap();
        database.path = copy;
    }
    let log = scratch.path().join("events.redb");
    std::fs::copy(sites[1].directory.path().join("events.redb"), &log).unwrap();
    let log = std::sync::Arc::new(Log::open(&log).unwrap());
    let before = sites[1].ask("app", "SELECT group_concat(id) FROM team");
    let plan = Node::rehearse(settings, log, pair.now).unwrap();
    assert_eq!(sites[1].ask("app", "SELECT group_concat(id) FROM team"), before, "a rehearsal touches copies only");
    pair.meet();
    (plan, pair)
}

#[test]
fn the_plan_names_what_is_equal_what_moves_what_merges_and_what_looks_alike() {
    let first = Site::new(1).with(
        "app",
        &format!(
            "{TABLES} INSERT INTO team VALUES (1, 'same', 'A', 'red'), (2, 'theirs', 'B', 'blue'), (3, 'typo', 'C', 'x');
             INSERT INTO badge VALUES (1, 'gold', 'theirs'); INSERT INTO user VALUES (1, 'admin', 'pw-one');"
        ),
        &[],
    );
    let second = Site::new(2).with(
        "app",
        &format!(
            "{TABLES} INSERT INTO team VALUES (1, 'same', 'A', 'red'), (2, 'mine', 'Z', 'green'), (3, 'fixed', 'C', 'x');
             INSERT INTO badge VALUES (7, 'gold', 'mine'); INSERT INTO user VALUES (1, 'admin', 'pw-two');"
        ),
        &[],
    );
    let (plan, pair) = plan([&first, &second], &[]);
    let table = |name: &str| plan.databases[0].tables.iter().find(|table| table.table == name).unwrap().clone();
    let team = table("team");
    assert_eq!((team.here, team.there, team.equal, team.only_here, team.same_id_different), (3, 3, 1, 2, 2));
    assert_eq!(team.moves, [MoveView { rows: 2, by: 2_000_000, from: 2, to: 2_000_002 }]);
    assert_eq!((team.near_equal_count, team.near_equal[0].equal_cells, team.near_equal[0].cells), (1, 2, 3));
    assert_eq!(team.near_equal[0].command, "litemesh merge app.team 3 2000003");
    assert_eq!(team.different[0].here.label, "name mine");
    let badge = table("badge");
    assert_eq!((badge.unique[0].outcome.as_str(), badge.unique[0].with.as_str()), ("merges", "1"));
    let user = table("user");
    assert!(user.accounts);
    assert_eq!(user.unique[0].outcome, "suffix");
    assert_eq!((user.account_moves[0].id.as_str(), user.account_moves[0].id_after.as_str()), ("1", "2000001"));
    assert!(plan.warnings.iter().any(|text| text.contains("exist on both servers: username admin")), "{plan:?}");
    assert!(plan.warnings.iter().any(|text| text.contains("SECRET_KEY")), "{plan:?}");
    assert!(!format!("{plan:?}").contains("pw-"), "no secret is shown");
    // And that is what happened.
    assert_eq!(
        second.ask("app", "SELECT id || name FROM team"),
        ["1same", "2theirs", "3typo", "2000002mine", "2000003fixed"]
    );
    assert_eq!(second.ask("app", "SELECT count(*) FROM badge"), ["1"]);
    let shown = second.ask("app", "SELECT username FROM user WHERE id = 2000001");
    assert_eq!(shown[0], user.unique[0].with);
    // Whoever made the account is told when it moved.
    let alerts = |at: usize| pair.nodes[at].status(pair.now).unwrap().alerts.join(" ");
    assert!(alerts(1).contains("app.user") && alerts(1).contains("1 -> 2000001"), "{}", alerts(1));
    assert!(!alerts(0).contains("SECRET_KEY"), "{}", alerts(0));
    // Both nodes go on proposing what a person did not join yet.
    for node in &pair.nodes {
        let commands: Vec<String> = node.duplicates(10).unwrap().into_iter().map(|pair| pair.command).collect();
        assert_eq!(commands, ["litemesh merge app.team 3 2000003"]);
    }
}

#[test]
fn independent_files_with_a_common_ancestor_are_found_out() {
    let rows = format!("{TABLES} INSERT INTO user VALUES (1, 'admin', 'scrypt:32768:8:1$0123456789abcdef')");
    let (first, second) = (Site::new(1).with("app", &rows, &[]), Site::new(2).with("app", &rows, &[]));
    let (plan, _pair) = plan([&first, &second], &[("app", Meeting::Independent)]);
    assert_eq!(plan.databases[0].meeting, "independent");
    assert!(plan.warnings.iter().any(|text| text.contains("common ancestor")), "{plan:?}");
}
