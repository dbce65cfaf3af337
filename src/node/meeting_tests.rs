//! First meetings of two files that both have rows already, on real nodes.

#![allow(clippy::unwrap_used)]

use super::super::Node;
use super::super::pair_tests::{Pair, Site};
use super::Meeting;

const TEAMS: &str = "CREATE TABLE team(id INTEGER PRIMARY KEY, number INTEGER, name TEXT, place TEXT);
    CREATE TABLE event(id INTEGER PRIMARY KEY, name TEXT);
    CREATE TABLE team_event(team_id INTEGER NOT NULL REFERENCES team(id), event_id INTEGER NOT NULL REFERENCES event(id),
        PRIMARY KEY (team_id, event_id));
    CREATE TABLE note(id INTEGER PRIMARY KEY, team_id INTEGER REFERENCES team(id) ON DELETE SET NULL, text TEXT);";

const OLD: &str = "INSERT INTO event VALUES (1, 'kickoff');
    INSERT INTO team VALUES (1, 11, 'eleven', 'A'), (2, 22, 'twentytwo', 'B'), (3, 33, 'thirtythree', 'C'),
        (4, 44, 'fortyfour', 'D');
    INSERT INTO team_event VALUES (1, 1), (2, 1); INSERT INTO note VALUES (1, 1, 'fast'), (2, 2, 'slow');";

fn meet(here: [&Site; 2], meetings: &[(&str, Meeting)]) {
    let mut pair = Pair::start(here, meetings);
    pair.meet();
}

fn same(sites: [&Site; 2], name: &str, sql: &str, wanted: &[&str]) {
    for site in sites {
        assert_eq!(site.ask(name, sql), wanted, "{}", site.path(name).display());
    }
}

const ALL_TEAMS: &str = "SELECT id || ' ' || number || ' ' || name || ' ' || place FROM team";
const ALL_NOTES: &str = "SELECT note.id || ' ' || name || ' ' || text FROM note JOIN team ON team.id = team_id";
const ALL_ENTRIES: &str = "SELECT team.name FROM team_event JOIN team ON team.id = team_id ORDER BY team.id";

#[test]
fn copies_edited_apart_keep_every_row_and_double_none() {
    let first = Site::new(1).with("app", &format!("{TEAMS}{OLD} UPDATE team SET place = 'X' WHERE id = 3"), &[]);
    let second = Site::new(2).with(
        "app",
        &format!("{TEAMS}{OLD} INSERT INTO team VALUES (5, 55, 'mine', 'E'); DELETE FROM team WHERE id = 4"),
        &[],
    );
    meet([&first, &second], &[]);
    let wanted = [
        "1 11 eleven A",
        "2 22 twentytwo B",
        "3 33 thirtythree X",
        "4 44 fortyfour D",
        "5 55 mine E",
        "2000003 33 thirtythree C",
    ];
    same([&first, &second], "app", ALL_TEAMS, &wanted);
    same([&first, &second], "app", ALL_NOTES, &["1 eleven fast", "2 twentytwo slow"]);
}

/// Team 1 here and team 1 there are two teams, though both files say "team 1 is at event 1" and hold the same note.
#[test]
fn equal_children_of_different_parents_are_different_rows() {
    let first = Site::new(1).with("app", &format!("{TEAMS}{OLD}"), &[]);
    let second = Site::new(2).with(
        "app",
        &format!("{TEAMS}{OLD} UPDATE team SET number = 99, name = 'other', place = 'Z' WHERE id = 1"),
        &[],
    );
    meet([&first, &second], &[]);
    same([&first, &second], "app", ALL_ENTRIES, &["eleven", "twentytwo", "other"]);
    same([&first, &second], "app", ALL_NOTES, &["1 eleven fast", "2 twentytwo slow", "2000001 other fast"]);
}

#[test]
fn independent_files_share_no_row_though_they_are_equal() {
    let first = Site::new(1).with("app", &format!("{TEAMS}{OLD}"), &[]);
    let second = Site::new(2).with("app", &format!("{TEAMS}{OLD}"), &[]);
    meet([&first, &second], &[("app", Meeting::Independent)]);
    same([&first, &second], "app", "SELECT count(*) FROM team", &["8"]);
    same([&first, &second], "app", "SELECT max(id) FROM team", &["2000004"]);
    same([&first, &second], "app", "SELECT count(*) FROM team_event", &["4"]);
    let notes = ["1 eleven fast", "2 twentytwo slow", "2000001 eleven fast", "2000002 twentytwo slow"];
    same([&first, &second], "app", ALL_NOTES, &notes);
    same(
        [&first, &second],
        "app",
        "SELECT group_concat(team_id) FROM (SELECT team_id FROM note ORDER BY id)",
        &["1,2,2000001,2000002"],
    );
}

#[test]
fn independent_births_survive_a_crash_in_the_middle() {
    let first = Site::new(1).with("app", &format!("{TEAMS}{OLD}"), &[]);
    let second = Site::new(2).with("app", &format!("{TEAMS}{OLD}"), &[]);
    let mut pair = Pair::start([&first, &second], &[("app", Meeting::Independent)]);
    pair.meet_without_files();
    // The births are in the log, the note that the file is enrolled is not: as if the power went in between.
    let now = pair.now;
    pair.nodes[1].databases[0].file.enroll().unwrap();
    pair.nodes[1].adopt(0, now).unwrap();
    pair.nodes[1].adopt(0, now).unwrap();
    pair.meet();
    same([&first, &second], "app", "SELECT count(*) FROM team", &["8"]);
}

/// The births are in the log, the marks not cleared: what the app writes then is a change of rows that were born already.
#[test]
fn a_row_changed_after_a_crash_of_adoption_is_not_born_again() {
    let first = Site::new(1).with("app", &format!("{TEAMS}{OLD}"), &[]);
    let second = Site::new(2).with("app", &format!("{TEAMS}{OLD} INSERT INTO team VALUES (5, 55, 'mine', 'E')"), &[]);
    let mut pair = Pair::start([&first, &second], &[]);
    pair.meet_without_files();
    pair.nodes[1].databases[0].file.enroll().unwrap();
    second.app("app", "INSERT INTO team VALUES (6, 66, 'marked', 'F')");
    let attach = format!("ATTACH '{}' AS aside;", second.path("aside").display());
    second.app("app", &format!("{attach} CREATE TABLE aside.marks AS SELECT * FROM _litemesh_outbox"));
    let (log, now) = (pair.nodes[1].log(), pair.now);
    pair.nodes[1].adopt(0, now).unwrap();
    second.app("app", &format!("{attach} INSERT INTO _litemesh_outbox SELECT * FROM aside.marks"));
    second.app("app", "UPDATE team SET name = name || ' changed' WHERE id IN (2, 5, 6); DELETE FROM team WHERE id = 4");
    pair.nodes[1] = Node::open(second.settings(), log, now).unwrap();
    pair.meet();
    let wanted = [
        "1 11 eleven A",
        "2 22 twentytwo changed B",
        "3 33 thirtythree C",
        "5 55 mine changed E",
        "6 66 marked changed F",
    ];
    same([&first, &second], "app", ALL_TEAMS, &wanted);
}

/// The cluster's newer values are evaluated and not written yet: the app changes one column of the old row it sees.
#[test]
fn a_write_to_an_old_row_before_the_first_apply_carries_no_old_values_with_it() {
    let first = Site::new(1).with("app", &format!("{TEAMS}{OLD}"), &[]);
    let second = Site::new(2).with("app", &format!("{TEAMS}{OLD}"), &[]);
    let mut pair = Pair::start([&first, &second], &[]);
    first.app("app", "UPDATE team SET place = 'X', number = 34 WHERE id = 3");
    let now = pair.now;
    assert!(pair.nodes[0].capture(0, now).unwrap());
    pair.meet_without_files();
    pair.nodes[1].enrol(0, now).unwrap();
    second.app("app", "UPDATE team SET name = 'changed' WHERE id = 3");
    pair.nodes[1].capture(0, now).unwrap();
    assert_eq!(second.ask("app", "SELECT place FROM team WHERE id = 3"), ["C"], "not written yet");
    pair.meet();
    same([&first, &second], "app", "SELECT number || name || place FROM team WHERE id = 3", &["34changedX"]);
}

fn base(sql_first: &str, sql_second: &str) -> [Site; 3] {
    let old = Site::new(9).with("app", &format!("{TEAMS}{OLD}"), &[]);
    let first = Site::new(1).with("app", &format!("{TEAMS}{OLD}{sql_first}"), &[]);
    let second = Site::new(2).with("app", &format!("{TEAMS}{OLD}{sql_second}"), &[]);
    meet([&first, &second], &[("app", Meeting::Base(old.path("app")))]);
    [old, first, second]
}

#[test]
fn with_a_base_what_both_did_is_put_together_cell_by_cell() {
    let [_old, first, second] = base(
        "UPDATE team SET place = 'X' WHERE id IN (1, 3); INSERT INTO team VALUES (5, 50, 'theirs', 'T');",
        "UPDATE team SET name = 'ELEVEN' WHERE id = 1; UPDATE team SET place = 'Y' WHERE id = 3;
         INSERT INTO team VALUES (5, 55, 'mine', 'E'); DELETE FROM team WHERE id = 4;
         INSERT INTO note VALUES (3, 5, 'new'); UPDATE note SET team_id = 5 WHERE id = 2;",
    );
    let wanted = ["1 11 ELEVEN X", "2 22 twentytwo B", "3 33 thirtythree X", "5 50 theirs T", "2000005 55 mine E"];
    same([&first, &second], "app", ALL_TEAMS, &wanted);
    same([&first, &second], "app", ALL_NOTES, &["1 ELEVEN fast", "2 mine slow", "3 mine new"]);
}

#[test]
fn with_a_base_a_delete_does_not_take_what_the_other_side_still_needs() {
    let [_old, first, second] = base(
        "UPDATE team SET place = 'X' WHERE id = 4; INSERT INTO note VALUES (7, 3, 'needs it'); DELETE FROM note WHERE id = 2;",
        "DELETE FROM team WHERE id IN (3, 4); UPDATE note SET text = 'edited' WHERE id = 2;",
    );
    // 4 was changed there, 3 is needed there; note 2 was deleted before the cluster came: nobody knows that it was.
    same([&first, &second], "app", "SELECT count(*) FROM team", &["4"]);
    same([&first, &second], "app", "SELECT text FROM note ORDER BY id", &["fast", "edited", "needs it"]);
}

/// What the cluster changed after it was enrolled counts as well, and a delete there beats an unchanged row here.
#[test]
fn with_a_base_the_clusters_later_history_counts() {
    let old = Site::new(9).with("app", &format!("{TEAMS}{OLD}"), &[]);
    let first = Site::new(1).with("app", &format!("{TEAMS}{OLD}"), &[]);
    let edits = "UPDATE team SET name = 'here' WHERE id = 2; UPDATE team SET number = 4 WHERE id = 4;";
    let second = Site::new(2).with("app", &format!("{TEAMS}{OLD}{edits}"), &[]);
    let mut pair = Pair::start([&first, &second], &[("app", Meeting::Base(old.path("app")))]);
    first.app("app", "UPDATE team SET place = 'there' WHERE id = 2; DELETE FROM team WHERE id IN (3, 4)");
    pair.nodes[0].handle(super::super::Input::FileTouched(0), pair.now).unwrap();
    pair.meet();
    let wanted = ["1 11 eleven A", "2 22 here there", "4 4 fortyfour D"];
    same([&first, &second], "app", ALL_TEAMS, &wanted);
}

const USERS: &str = "CREATE TABLE user(id INTEGER PRIMARY KEY, username TEXT, password_hash TEXT);
    CREATE TABLE role(id INTEGER PRIMARY KEY, name TEXT UNIQUE);
    CREATE TABLE user_roles(user_id INTEGER, role_id INTEGER, PRIMARY KEY (user_id, role_id));
    INSERT INTO role VALUES (1, 'admin'), (2, 'scout');";
const ENTRIES: &str = "CREATE TABLE entry(id INTEGER PRIMARY KEY, scout_id INTEGER, text TEXT);";
const TO_USER: &[(&str, &str, &str)] = &[("entry", "scout_id", "users.user.id")];
const IN_USERS: &[(&str, &str, &str)] = &[("user_roles", "user_id", "user.id"), ("user_roles", "role_id", "role.id")];

fn two_files(seed: u8, users: &str, entries: &str) -> Site {
    Site::new(seed).with("scouting", &format!("{ENTRIES}{entries}"), TO_USER).with(
        "users",
        &format!("{USERS}{users}"),
        IN_USERS,
    )
}

/// The real app's shape: two files, references that only the configuration knows, both sides began with user 1.
#[test]
fn references_between_files_follow_their_rows() {
    let first = two_files(
        1,
        "INSERT INTO user VALUES (1, 'anna', 'x1'), (2, 'ben', 'x2'); INSERT INTO user_roles VALUES (1, 1), (2, 2);",
        "INSERT INTO entry VALUES (1, 1, 'by anna'), (2, 2, 'by ben');",
    );
    let second = two_files(
        2,
        "INSERT INTO user VALUES (1, 'carl', 'y1'), (2, 'dora', 'y2'); INSERT INTO user_roles VALUES (1, 1), (2, 2);",
        "INSERT INTO entry VALUES (1, 1, 'by carl'), (2, 1, 'by carl too'), (3, 2, 'by dora');",
    );
    let mut pair = Pair::start([&first, &second], &[]);
    // Nobody has written for so long that ids may move at once: not before both files were read.
    pair.now.mono_ms += 10_000;
    pair.meet();
    let users = "SELECT id || ' ' || username FROM user";
    same([&first, &second], "users", users, &["1 anna", "2 ben", "2000001 carl", "2000002 dora"]);
    let roles = "SELECT username || ' ' || name FROM user_roles JOIN user ON user.id = user_id JOIN role ON role.id = role_id ORDER BY 1";
    same([&first, &second], "users", roles, &["anna admin", "ben scout", "carl admin", "dora scout"]);
    let entries = "SELECT scout_id || ' ' || text FROM entry ORDER BY text";
    let wanted = ["1 by anna", "2 by ben", "2000001 by carl", "2000001 by carl too", "2000002 by dora"];
    same([&first, &second], "scouting", entries, &wanted);
}

/// Equal copies of both files make the same events, references between the files included.
#[test]
fn equal_pairs_of_files_exchange_nothing() {
    let rows = ("INSERT INTO user VALUES (1, 'anna', 'x1');", "INSERT INTO entry VALUES (1, 1, 'by anna');");
    let (first, second) = (two_files(1, rows.0, rows.1), two_files(2, rows.0, rows.1));
    let mut pair = Pair::start([&first, &second], &[]);
    let before: u64 = pair.nodes[0].heads.values().map(|head| head.seq).sum();
    pair.meet();
    let after: u64 = pair.nodes[1].heads.values().map(|head| head.seq).sum();
    assert_eq!(before, after, "no event was made by the meeting");
    let referrers = pair.nodes[0].log().read().unwrap();
    let table = referrers.find_table("scouting", "entry").unwrap().unwrap();
    let row = referrers.rows_of(table, None, 1).unwrap()[0];
    let record = referrers.row(&row).unwrap().unwrap();
    assert_eq!(record.parents().count(), 1, "the reference into the other file travels as a row: {record:?}");
}
