//! Joining by snapshot: real nodes with real files and logs, frames carried by hand, each one's fate chosen by the test.
//!
//! What they do not verify: speed (`simulate --scenario joining` measures it), power cuts (the scenario `crash` does).

#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::membership::{admit, node_id};
use super::pair_tests::{CLOCK_MS, Site, ask};
use super::*;
use crate::wire::snapshot::{Snapshot, SnapshotPart};

const SCHEMA: &str = "
    CREATE TABLE team (id INTEGER PRIMARY KEY, number INTEGER UNIQUE, name TEXT, tag BLOB);
    CREATE TABLE visit (id INTEGER PRIMARY KEY, team_id INTEGER NOT NULL REFERENCES team(id), note TEXT DEFAULT 'none');
    CREATE TABLE badge (owner TEXT PRIMARY KEY, team_id INTEGER REFERENCES team(id) ON DELETE SET NULL);
    CREATE TABLE scribble (text TEXT, value REAL);";

const EDITS: &str = "
    UPDATE team SET name = 'renamed ' || id WHERE id % 7 = 0;
    UPDATE visit SET note = NULL WHERE id % 11 = 0;
    DELETE FROM scribble WHERE value > 10;
    DELETE FROM visit WHERE id % 13 = 0;
    DELETE FROM team WHERE id NOT IN (SELECT team_id FROM visit) AND id % 2 = 0;";

fn rows(teams: u32) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {teams})
           INSERT INTO team(number, name, tag) SELECT i + 1000, 'team ' || i, randomblob(i % 50) FROM n;
         INSERT INTO visit(team_id, note) SELECT id, 'visit of ' || name FROM team;
         INSERT INTO badge SELECT 'owner ' || id, id FROM team WHERE id % 3 = 0;
         INSERT INTO scribble SELECT 'line ' || id, id * 0.25 FROM team WHERE id % 5 = 0;"
    )
}

/// What becomes of a frame (from, to, its message): `None` loses it.
type Fate<'f> = dyn FnMut(usize, usize, Message) -> Option<Message> + 'f;

fn arrives(_: usize, _: usize, message: Message) -> Option<Message> {
    Some(message)
}

/// Servers of one cluster, of which the last ones came later.
struct Mesh {
    sites: Vec<Site>,
    nodes: Vec<Option<Node>>,
    now: Now,
    part_bytes: usize,
}

impl Mesh {
    /// The first one has rows with a past; the others are members with empty files.
    fn new(count: u8, teams: u32, part_bytes: usize) -> Mesh {
        let sites: Vec<Site> = (1..=count).map(|seed| Site::new(seed).with("app", SCHEMA, &[])).collect();
        Mesh::of(sites, teams, part_bytes)
    }

    fn of(sites: Vec<Site>, teams: u32, part_bytes: usize) -> Mesh {
        let now = Now { mono_ms: 1_000, wall_ms: CLOCK_MS };
        let seed = |at: usize| [at as u8 + 1; 32];
        let log = sites[0].log();
        Node::found(&log, &seed(0), "first", "test", now).unwrap();
        let mut membership = orders::load_membership(&log).unwrap().unwrap();
        let first = Node::open(sites[0].settings(), log, now).unwrap();
        let mut mesh = Mesh { nodes: vec![Some(first)], sites, now, part_bytes };
        for at in 1..mesh.sites.len() {
            let record = admit(&seed(0), &membership, node_id(&seed(at)), &format!("n{at}"), now.wall_ms);
            membership.add(record).unwrap();
        }
        let records: Vec<_> = membership.records().into_iter().cloned().collect();
        mesh.node(0).handle(Input::MembersLearnt(records.clone()), now).unwrap();
        mesh.node(0).snapshots_from(1, part_bytes);
        for at in 1..mesh.sites.len() {
            Node::enter(&mesh.sites[at].log(), records.clone()).unwrap();
            mesh.nodes.push(None);
        }
        for sql in [rows(teams).as_str(), EDITS] {
            mesh.sites[0].app("app", sql);
            (0..8).for_each(|_| mesh.round(&mut arrives));
        }
        mesh
    }

    fn node(&mut self, at: usize) -> &mut Node {
        self.nodes[at].as_mut().unwrap()
    }

    /// Starts a server, or kills and starts it again.
    fn start(&mut self, at: usize) {
        self.nodes[at] = None;
        let mut node = Node::open(self.sites[at].settings(), self.sites[at].log(), self.now).unwrap();
        node.snapshots_from(1, self.part_bytes);
        self.nodes[at] = Some(node);
    }

    fn link(&mut self, a: usize, b: usize) {
        let ids = [self.node(a).id(), self.node(b).id()];
        for (at, peer) in [(a, ids[1]), (b, ids[0])] {
            let now = self.now;
            self.node(at).handle(Input::PeerDisconnected { peer }, now).unwrap();
            self.node(at).handle(Input::PeerConnected { peer, address: String::new() }, now).unwrap();
        }
    }

    fn cut(&mut self, a: usize, b: usize) {
        let ids = [self.node(a).id(), self.node(b).id()];
        for (at, peer) in [(a, ids[1]), (b, ids[0])] {
            let now = self.now;
            self.node(at).handle(Input::PeerDisconnected { peer }, now).unwrap();
        }
    }

    /// Everybody does what is due once, and what is said arrives.
    fn round(&mut self, fate: &mut Fate<'_>) {
        self.now = Now { mono_ms: self.now.mono_ms + 50, wall_ms: self.now.wall_ms + 50 };
        let ids: Vec<Option<NodeId>> = self.nodes.iter().map(|node| node.as_ref().map(Node::id)).collect();
        for from in 0..self.nodes.len() {
            let (Some(id), now) = (ids[from], self.now) else { continue };
            self.node(from).handle(Input::Tick, now).unwrap();
            while let Some(effect) = self.node(from).poll_effect() {
                let Effect::Send { peer, frame } = effect else { continue };
                let Some(to) = ids.iter().position(|known| *known == Some(peer)) else { continue };
                let Some(message) = fate(from, to, Message::decode(&frame).unwrap()) else { continue };
                self.node(to).handle(Input::Received { peer: id, frame: message.encode() }, now).unwrap();
            }
        }
    }

    /// Rows that the feed gives, without times and authors: what is behind in it counts.
    fn given(&mut self, at: usize) -> std::collections::BTreeSet<(String, String, String)> {
        let mut rows = std::collections::BTreeMap::new();
        for event in self.node(at).feed_events(&[], 0, 10_000).unwrap() {
            let mut from = event.changes.map(|_| 0);
            while let Some(first) = from {
                let (page, next) = self.node(at).feed_rows(event.arrival, first, 7).unwrap();
                for row in page {
                    let key = (row.table, row.record_id);
                    match row.operation {
                        "delete" => rows.remove(&key),
                        _ => rows.insert(key, format!("{:?}", row.data)),
                    };
                }
                from = next;
            }
        }
        rows.into_iter().map(|((table, id), data)| (table, id, data)).collect()
    }

    /// The same of what the file shows.
    fn shown_rows(&mut self, at: usize) -> std::collections::BTreeSet<(String, String, String)> {
        let node = self.node(at);
        let read = node.log.read().unwrap();
        let mut rows = std::collections::BTreeSet::new();
        for table in &node.schemas[0].tables {
            for (key, image) in node.databases[0].file.scan_page(&table.name, None, 10_000).unwrap() {
                assert!(read.find_table("app", &table.name).unwrap().is_some());
                let data: Vec<_> = table.columns.iter().map(|column| column.name.clone()).zip(image).collect();
                rows.insert((table.name.clone(), query::key_text(&key), format!("{data:?}")));
            }
        }
        rows
    }

    fn stage(&mut self, at: usize) -> String {
        let now = self.now;
        self.node(at).status(now).unwrap().joining.map(|joining| joining.stage).unwrap_or_default()
    }

    /// Until all hold and show the same.
    fn settle(&mut self, fate: &mut Fate<'_>) {
        let mut calm = 0;
        for _ in 0..8_000 {
            self.round(fate);
            let ready = |node: &Node| {
                node.in_sync(&[])
                    && node.applied_all()
                    && node.databases.iter().all(|one| one.ready && !one.file.has_marks().unwrap())
            };
            calm = if self.nodes.iter().flatten().all(ready) { calm + 1 } else { 0 };
            if calm > 60 {
                return;
            }
        }
        let now = self.now;
        let status: Vec<_> = self.nodes.iter().flatten().map(|node| node.status(now)).collect();
        panic!("they did not come to rest: {status:#?}");
    }

    /// All show the same, and so does every log, replayed alone.
    fn assert_equal(&mut self) {
        let now = self.now;
        let shown = content(&self.sites[0].path("app"));
        let digest = self.node(0).status(now).unwrap().databases[0].digest.clone();
        for at in 0..self.nodes.len() {
            let status = self.node(at).status(now).unwrap();
            assert_eq!(status.databases[0].digest, digest, "server {at}");
            assert_eq!(content(&self.sites[at].path("app")), shown, "server {at}");
            assert!(status.alerts.is_empty(), "{:?}", status.alerts);
            let out = tempfile::tempdir().unwrap();
            let report = self.node(at).rebuild(out.path()).unwrap();
            assert_eq!(report.databases[0].digest, digest, "the log of server {at}, replayed");
        }
    }
}

fn content(path: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for table in ["team", "visit", "badge", "scribble"] {
        let columns: Vec<String> = ask(path, &format!("SELECT name FROM pragma_table_info('{table}')"));
        let quoted: Vec<String> = columns.iter().map(|column| format!("quote({column})")).collect();
        all.extend(ask(path, &format!("SELECT {} FROM {table} ORDER BY 1", quoted.join(" || ',' || "))));
    }
    all
}

fn is_part(message: &Message) -> Option<&SnapshotPart> {
    if let Message::Snapshot(Snapshot::Part(part)) = message { Some(part) } else { None }
}

#[test]
fn a_new_member_gets_the_state_then_the_history_and_all_is_equal() {
    let mut mesh = Mesh::new(2, 300, 4_000);
    mesh.start(1);
    mesh.link(0, 1);
    let (mut parts, mut events_before) = (0, 0);
    let mut watch = |_: usize, _: usize, message: Message| {
        parts += u64::from(is_part(&message).is_some());
        events_before += u64::from(parts == 0 && matches!(message, Message::Events(_)));
        Some(message)
    };
    mesh.settle(&mut watch);
    assert!(parts > 5 && events_before == 0, "{parts} parts, {events_before} events before them");
    assert_eq!(mesh.stage(1), "complete");
    mesh.assert_equal();
    // Both go on, and what one writes comes to the other.
    mesh.sites[1]
        .app("app", "UPDATE team SET name = 'of 2' WHERE id = 7; INSERT INTO team(number, name) VALUES (1, 'new')");
    mesh.sites[0].app("app", "UPDATE team SET tag = x'00' WHERE id = 7; DELETE FROM badge WHERE owner = 'owner 9'");
    mesh.settle(&mut arrives);
    mesh.assert_equal();
    assert_eq!(mesh.sites[0].ask("app", "SELECT name FROM team WHERE id = 7"), ["of 2"]);
}

#[test]
fn what_is_written_now_is_shown_before_the_history_has_come() {
    let mut mesh = Mesh::new(2, 60, 1_500);
    mesh.start(1);
    mesh.link(0, 1);
    // The history does not come: events without a snapshot's base before them are lost.
    let lost = |_: usize, to: usize, message: Message| {
        let Message::Events(events) = &message else { return Some(message) };
        let first = events.events.first().map(|event| crate::wire::decode_event(&event.bytes).unwrap().header.seq);
        if (first, to) == (Some(1), 1) { None } else { Some(message) }
    };
    for round in 0..600 {
        mesh.round(&mut { lost });
        if round == 100 {
            assert_eq!(mesh.stage(1), "history");
            mesh.sites[0].app("app", "UPDATE team SET name = 'fresh' WHERE id = 3");
            mesh.sites[1].app("app", "INSERT INTO team(number, name) VALUES (5, 'of the second')");
        }
        if round == 200 {
            assert_eq!(
                mesh.given(1),
                mesh.shown_rows(1),
                "servers of the older protocol get the rows of the base as well"
            );
        }
        // A restart in between changes nothing.
        if round == 300 {
            mesh.sites[0].app("app", "UPDATE team SET name = 'fresher' WHERE id = 5");
            mesh.start(1);
            mesh.link(0, 1);
        }
    }
    assert_eq!(mesh.stage(1), "history");
    let names = mesh.sites[1].ask("app", "SELECT name FROM team WHERE id IN (3, 5) ORDER BY id");
    assert_eq!(names, ["fresh", "fresher"]);
    assert_eq!(mesh.sites[0].ask("app", "SELECT count(*) FROM team WHERE number = 5"), ["1"]);
    // Nobody is told of bodies that are not here.
    let first = mesh.node(0).id();
    let held: u64 = mesh.node(1).heads.values().filter(|head| head.origin.node == first).map(|head| head.seq).sum();
    assert_eq!(held, 0);
    let report = mesh.node(1).verify_log().unwrap();
    assert_eq!(report.faults.len(), 0, "{:?}", report.faults);
    mesh.settle(&mut arrives);
    mesh.assert_equal();
}

#[test]
fn apps_write_on_both_sides_while_a_snapshot_is_taken_and_nothing_is_lost() {
    let mut mesh = Mesh::new(2, 500, 1_500);
    mesh.start(1);
    mesh.link(0, 1);
    let (mut written, mut taken) = (0, 0);
    let mut seen: Vec<String> = Vec::new();
    for round in 0..400 {
        mesh.round(&mut arrives);
        let stage = mesh.stage(1);
        if !seen.contains(&stage) {
            seen.push(stage.clone());
        }
        mesh.sites[0].app("app", &format!("INSERT INTO team(number, name) VALUES ({round} + 50000, 'giver {round}')"));
        // From the first row on the joiner's app writes too: new rows, ids and UNIQUE values that are on their way to here, and
        // changes of rows that have come.
        if ["filling", "loading"].contains(&stage.as_str()) {
            written += 1;
            let sql = format!(
                "INSERT OR IGNORE INTO team(number, name) VALUES ({written} + 1480, 'joiner {written}');
                 INSERT OR IGNORE INTO team(id, number, name) VALUES (500 - {written}, {written} + 90000, 'taken {written}');
                 INSERT OR IGNORE INTO badge VALUES ('owner ' || (498 - 3 * {written}), NULL);
                 UPDATE visit SET note = 'seen {written}' WHERE id = {written} * 3 + 1;
                 DELETE FROM visit WHERE id = {written} * 3 + 2;"
            );
            mesh.sites[1].app("app", &sql);
            let count = "SELECT count(*) FROM team WHERE name LIKE 'taken %'";
            taken = mesh.sites[1].ask("app", count)[0].parse().unwrap();
        }
        if stage == "complete" {
            break;
        }
    }
    assert!(written > 3 && seen.contains(&"pulling".to_string()), "{written} writes, {seen:?}");
    mesh.settle(&mut arrives);
    mesh.assert_equal();
    let came = mesh.sites[0].ask("app", "SELECT count(*) FROM team WHERE name LIKE 'taken %'");
    assert!(taken > 0);
    assert_eq!(came, [taken.to_string()], "what the joiner's app wrote under ids on their way is a row of its own");
    let seen = mesh.sites[0].ask("app", "SELECT count(*) FROM visit WHERE note LIKE 'seen %'");
    assert_ne!(seen, ["0"], "changes of rows that had come are captured");
}

#[test]
fn a_newcomer_that_is_cut_off_or_killed_again_and_again_goes_on_where_it_was() {
    for every in [2, 3, 5] {
        let mut mesh = Mesh::new(2, 150, 1_200);
        mesh.start(1);
        mesh.link(0, 1);
        let (mut round, mut kills, mut bodies) = (0, 0, 0);
        while mesh.stage(1) != "complete" {
            round += 1;
            assert!(round < 3_000, "every {every}: {}", mesh.stage(1));
            mesh.round(&mut |_, _, message| {
                bodies += u64::from(is_part(&message).is_some_and(|part| !part.zstd.is_empty()));
                Some(message)
            });
            if mesh.stage(1) == "history" {
                break;
            }
            if round % every == 0 {
                kills += 1;
                if round % 2 == 0 {
                    mesh.start(1);
                }
                mesh.link(0, 1);
            }
        }
        assert!(kills > 2, "every {every}: {kills} kills");
        mesh.settle(&mut arrives);
        mesh.assert_equal();
        assert!(bodies < 400, "every {every}: {bodies} bodies of parts came");
    }
}

#[test]
fn a_damaged_part_is_refused_and_the_rows_come_all_the_same() {
    let mut mesh = Mesh::new(2, 100, 1_200);
    mesh.start(1);
    mesh.link(0, 1);
    let (mut parts, mut damaged) = (0, 0);
    let mut fate = |_: usize, _: usize, message: Message| {
        let Message::Snapshot(Snapshot::Part(mut part)) = message else { return Some(message) };
        parts += 1;
        if parts == 4 {
            let middle = part.zstd.len() / 2;
            part.zstd[middle] ^= 1;
            damaged += 1;
        }
        Some(Message::Snapshot(Snapshot::Part(part)))
    };
    mesh.settle(&mut fate);
    assert_eq!(damaged, 1);
    mesh.assert_equal();
}

#[test]
fn another_giver_goes_on_and_what_is_held_is_not_sent_again() {
    let mut mesh = Mesh::new(3, 300, 1_500);
    mesh.start(1);
    mesh.link(0, 1);
    mesh.settle(&mut arrives);
    mesh.start(2);
    mesh.link(0, 2);
    mesh.link(1, 2);
    let (mut by, mut cut) = ([(0, 0); 2], false);
    for _ in 0..2_000 {
        mesh.round(&mut |from, to, message| {
            if let (2, Some(part)) = (to, is_part(&message)) {
                let (bodies, held) = &mut by[from];
                *(if part.zstd.is_empty() { held } else { bodies }) += 1;
            }
            Some(message)
        });
        if !cut && by[0].0 + by[1].0 >= 8 {
            // Whoever gave goes away.
            let giver = usize::from(by[1].0 > 0);
            mesh.cut(giver, 2);
            cut = true;
        }
        if mesh.stage(2) == "history" || mesh.stage(2) == "complete" {
            break;
        }
    }
    let ((first, _), (second, held)) = if by[0].1 > 0 { (by[1], by[0]) } else { (by[0], by[1]) };
    assert!(cut && first >= 8 && held >= first - 1 && second > 0, "{by:?}");
    mesh.link(0, 2);
    mesh.link(1, 2);
    mesh.settle(&mut arrives);
    mesh.assert_equal();
}

#[test]
fn where_tables_differ_or_rows_stand_already_the_events_come() {
    let other = SCHEMA.replace("note TEXT DEFAULT 'none'", "note TEXT DEFAULT 'none', stars INTEGER");
    for sql in [other, format!("{SCHEMA} INSERT INTO team(number, name) VALUES (77, 'was here');")] {
        let sites = vec![Site::new(1).with("app", SCHEMA, &[]), Site::new(2).with("app", &sql, &[])];
        let mut mesh = Mesh::of(sites, 40, 1_200);
        mesh.start(1);
        mesh.link(0, 1);
        let mut parts = 0;
        let mut watch = |_: usize, _: usize, message: Message| {
            parts += u64::from(is_part(&message).is_some());
            Some(message)
        };
        mesh.settle(&mut watch);
        assert_eq!((parts, mesh.stage(1).as_str()), (0, ""));
        let count = |site: &Site| site.ask("app", "SELECT count(*) FROM team");
        assert_eq!(count(&mesh.sites[0]), count(&mesh.sites[1]));
    }
}
