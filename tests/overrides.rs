//! What a person sees and decides: rows that became one, rows taken apart, values put back, writes that hit a moved id.
//!
//! Invariant: everything is ordered by the command line and seen in the app's own files, on both servers.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::json;
use support::cluster::Cluster;
use support::dump::{number, texts};
use support::{app, until};

/// The settings of one team made on both servers of a cut network.
const SETTINGS: &str = "SELECT locked FROM team_settings WHERE team_number = 8123";

/// … and the ids that it had there.
fn two_settings() -> (Cluster, Vec<String>) {
    let mut cluster = Cluster::scouting(2);
    cluster.part();
    for (server, mark) in cluster.servers.iter().zip([20, 21]) {
        let row = format!("INSERT INTO team_settings (team_number, locked) VALUES (8123, {mark})");
        app(server.database("scouting"), &row);
    }
    let born = "SELECT id FROM team_settings WHERE team_number = 8123";
    let born = cluster.servers.iter().map(|server| number(server.database("scouting"), born).to_string()).collect();
    cluster.heal();
    cluster.settled(30);
    (cluster, born)
}

#[test]
fn rows_born_with_one_unique_value_are_one_row_until_a_person_splits_them() {
    let (cluster, born) = two_settings();
    let [first, second] = &cluster.servers[..] else { panic!("two servers") };
    for server in &cluster.servers {
        assert_eq!(texts(server.database("scouting"), SETTINGS), ["20"], "one row on {}", server.name);
        let conflicts = server.cli(&["--json", "conflicts", "list"]).done().json_rows();
        let merges: Vec<_> = conflicts.iter().filter(|one| one["kind"] == "merge").collect();
        assert!(merges.iter().any(|one| one["loser"]["value"].to_string().contains("locked 21")), "{conflicts:?}");
    }
    // Both ids lead to the row: one where the servers gave the same, two where each gave one of its own runs.
    let id = number(first.database("scouting"), "SELECT id FROM team_settings WHERE team_number = 8123").to_string();
    for born_as in &born {
        let place = first.cli(&["--json", "where", "scouting.team_settings", born_as]).done().json();
        let rows = place["rows"].as_array().unwrap();
        assert!(rows.iter().any(|row| row["born_as"] == **born_as && row["now"] == *id), "{place}");
    }

    second.cli(&["split", "scouting.team_settings", &id]).done();
    cluster.settled(30);
    for server in &cluster.servers {
        let rows = number(server.database("scouting"), "SELECT count(*) FROM team_settings WHERE locked >= 20");
        let shelf = server.cli(&["--json", "shelf", "list"]).done().json_rows();
        // A number carries no tag: the second row waits on the shelf until one of them has another number.
        assert_eq!((rows, shelf.len()), (1, 1), "{shelf:?}");
    }
    // It says who is in its way, and by what; a person may say that both are one after all, naming it by its identity.
    let shelved = first.cli(&["--json", "shelf", "list"]).done().json_rows().remove(0);
    assert_eq!(
        (shelved["holder"].as_str(), &shelved["key"]),
        (Some(id.as_str()), &json!(["team_number"])),
        "{shelved}"
    );
    first.cli(&["merge", "scouting.team_settings", &id, shelved["row"].as_str().unwrap()]).done();
    cluster.settled(30);
    let shelf = second.cli(&["--json", "shelf", "list"]).done().json_rows();
    assert!(shelf.is_empty(), "the row that was made one with the one in its way waits no more: {shelf:?}");
    second.cli(&["split", "scouting.team_settings", &id]).done();
    cluster.settled(30);
    app(first.database("scouting"), "UPDATE team_settings SET team_number = 8124 WHERE team_number = 8123");
    until("both rows are shown", 60, || {
        let seen = texts(second.database("scouting"), "SELECT locked FROM team_settings WHERE locked >= 20");
        if seen.len() == 2 { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    cluster.settled(30);

    let ids = texts(first.database("scouting"), "SELECT id FROM team_settings WHERE locked >= 20 ORDER BY id");
    first.cli(&["merge", "scouting.team_settings", &ids[0], &ids[1]]).done();
    cluster.settled(30);
    for server in &cluster.servers {
        let rows = number(server.database("scouting"), "SELECT count(*) FROM team_settings WHERE locked >= 20");
        assert_eq!(rows, 1, "a person says that they are one");
    }
    let history = first.cli(&["history", "scouting.team_settings", &ids[0]]).done().stdout;
    for word in ["merge", "split", "by a person"] {
        assert!(history.contains(word), "{word} is missing in {history}");
    }
}

#[test]
fn nonsense_is_refused_with_the_way_out() {
    let cluster = Cluster::scouting(1);
    let server = &cluster.servers[0];
    for (command, says) in [
        (vec!["split", "scouting.team", "1"], "nothing to split"),
        (vec!["merge", "scouting.team", "1", "1"], "one row already"),
        (vec!["merge", "scouting.team", "1", "99999"], "litemesh where"),
        (vec!["merge", "scouting.nowhere", "1", "2"], "litemesh preflight"),
        (vec!["merge", "nowhere.team", "1", "2"], "this node has"),
        (vec!["merge", "users.user_roles", "1,1", "1,1"], "one row already"),
        (vec!["conflicts", "restore", "4711"], "litemesh conflicts list"),
    ] {
        let answer = server.cli(&command);
        assert_eq!(answer.code, Some(1), "{command:?}: {}", answer.stderr);
        assert!(answer.stderr.contains(says), "{command:?}: {}", answer.stderr);
    }
}

#[test]
fn a_value_that_lost_is_put_back_everywhere() {
    let cluster = Cluster::with_one_cell_written_twice();
    let location = "SELECT location FROM team WHERE id = 1";
    let shown = texts(cluster.servers[0].database("scouting"), location).remove(0);
    let lost = if shown == "by s0" { "by s1" } else { "by s0" };
    let conflicts = cluster.servers[0].cli(&["--json", "conflicts", "list"]).done().json_rows();
    let conflict = conflicts.iter().find(|one| one["column"] == "location").expect("the conflict is listed");
    cluster.servers[0].cli(&["conflicts", "restore", &conflict["number"].to_string()]).done();
    let settled = cluster.servers[0].json(&["conflicts", "show", &conflict["number"].to_string()]);
    assert_eq!(
        (&conflict["now"], settled["now"].as_str()),
        (&json!(""), Some(format!("'{lost}'").as_str())),
        "{settled}"
    );
    cluster.settled(30);
    for server in &cluster.servers {
        assert_eq!(texts(server.database("scouting"), location), [lost], "on {}", server.name);
    }
}

/// A form that was open while an id moved: its write hits the row that has the id now. It is flagged, and one command
/// moves it to the row it was meant for.
#[test]
fn a_write_to_a_moved_id_is_flagged_and_can_be_moved() {
    let mut cluster = Cluster::scouting(2);
    cluster.part();
    for server in &cluster.servers {
        let row = format!("INSERT INTO team (id, team_number, marker) VALUES (777, 777, 'by {}')", server.name);
        app(server.database("scouting"), &row);
    }
    cluster.heal();
    cluster.settled(40);
    let second = &cluster.servers[1];
    let marker = |id: &str| texts(second.database("scouting"), &format!("SELECT marker FROM team WHERE id = {id}"));
    assert_eq!(marker("777"), ["by s0"], "the senior server's row has the id");
    let moved = texts(second.database("scouting"), "SELECT id FROM team WHERE marker = 'by s1'").remove(0);
    app(second.database("scouting"), "UPDATE team SET location = 'meant for s1' WHERE id = 777");
    cluster.settled(30);
    let conflicts = second.cli(&["--json", "conflicts", "list"]).done().json_rows();
    let suspect = conflicts.iter().find(|one| one["kind"] == "suspect").unwrap_or_else(|| panic!("{conflicts:?}"));
    second.cli(&["conflicts", "restore", &suspect["number"].to_string()]).done();
    cluster.settled(30);
    for server in &cluster.servers {
        let at = |id: &str| {
            texts(server.database("scouting"), &format!("SELECT coalesce(location, '-') FROM team WHERE id = {id}"))
        };
        assert_eq!((at("777"), at(&moved)), (vec!["-".to_owned()], vec!["meant for s1".to_owned()]));
    }
}

/// "The tablet that wrote garbage from 10:00 to 10:20": seen in `diff`, taken back by `undo`, told by `history`, and the
/// whole database rolled back and brought forward again.
#[test]
fn what_one_server_wrote_is_taken_back_on_all() {
    let cluster = Cluster::scouting(2);
    let (pit, tablet) = (&cluster.servers[0], &cluster.servers[1]);
    let query = "SELECT id || ' ' || ifnull(location, '-') FROM team ORDER BY id";
    let good = texts(pit.database("scouting"), query);
    let before = pit.status()["databases"][0]["digest"].clone();
    let from = wall_ms().to_string();
    app(
        tablet.database("scouting"),
        "UPDATE team SET location = 'garbage'; INSERT INTO team (team_number) VALUES (9999)",
    );
    cluster.settled(30);
    let to = wall_ms().to_string();
    app(pit.database("scouting"), "UPDATE team SET location = 'by hand' WHERE id = 1");
    cluster.settled(30);
    let after = wall_ms().to_string();

    let diff = pit.cli(&["--json", "diff", &from, &to, "--node", "s1"]).done().json();
    let counts = &diff["tables"][0];
    assert_eq!((counts["added"].as_u64(), counts["changed"].as_u64()), (Some(1), Some(good.len() as u64)), "{diff}");
    let asked = ["undo", "--node", "s1", "--from", &from, "--to", &to, "--reason", "garbage"];
    let preview = pit.cli(&asked).done().stdout;
    assert!(preview.contains("Nothing was changed yet") && preview.contains("changed again by s0"), "{preview}");
    assert_eq!(pit.cli(&[&["--json"], &asked[..]].concat()).done().json()["done"], false);
    assert!(texts(tablet.database("scouting"), query).iter().any(|row| row.contains("garbage")));
    let done = pit.cli(&[&["--json"], &asked[..], &["--yes"]].concat()).done().json();
    cluster.settled(30);
    let mut wanted = good.clone();
    wanted[0] = "1 by hand".to_owned();
    assert_eq!(texts(tablet.database("scouting"), query), wanted, "{done}");
    let history = tablet.cli(&["history", "scouting.team", "2"]).done().stdout;
    assert!(history.contains("undo of what s1 wrote from") && history.contains(": garbage"), "{history}");
    let again = pit.cli(&[&["--json"], &asked[..], &["--yes"]].concat()).done().json();
    assert_eq!((again["rows"].as_u64(), again["events"].as_array().map(Vec::len)), (Some(0), Some(0)), "{again}");

    let digest = |at: usize| cluster.servers[at].status()["databases"][0]["digest"].clone();
    tablet.cli(&["restore", "--as-of", &from, "--db", "scouting", "--yes", "--reason", "again"]).done();
    cluster.settled(30);
    assert_eq!((digest(0), digest(1)), (before.clone(), before.clone()));
    pit.cli(&["restore", "--as-of", &after, "--yes"]).done();
    cluster.settled(30);
    assert!(texts(tablet.database("scouting"), query).iter().any(|row| row.contains("garbage")), "brought forward");
    let log = pit.cli(&["--json", "log", "--limit", "1"]).done().json();
    let event = log["events"].as_array().unwrap().last().unwrap();
    assert!(event["note"].as_str().unwrap().starts_with("restore of all databases as of"), "{event}");
    tablet.cli(&["undo", &format!("{}:{}", event["origin"].as_str().unwrap(), event["seq"]), "--yes"]).done();
    cluster.settled(30);
    assert_eq!(digest(0), before, "the roll-back holds again");
}

fn wall_ms() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()
}
