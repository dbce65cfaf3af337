//! Undo and restore on real nodes: what is set back, what is kept, and that taking back can be taken back.
//!
//! Invariant: time is carried by hand; files are read as the app reads them. Random histories print their seed;
//! `LITEMESH_UNDO_SEEDS=100` runs more of them. Callers: cargo test.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::collections::{BTreeMap, BTreeSet};

use super::{Order, Page, Plan, Selection};
use crate::model::Change;
use crate::node::diff::DiffFilter;
use crate::node::pair_tests::{Pair, Site};
use crate::node::travel_view::{TakeBackRow, TakeBackView};
use crate::node::undo_do::PageDone;
use crate::node::{Input, Now};
use crate::wire::decode_event;

const SCHEMA: &str = "
    CREATE TABLE team (id INTEGER PRIMARY KEY, name TEXT, score INTEGER DEFAULT 0, tags TEXT, chief INTEGER REFERENCES team(id));
    CREATE TABLE note (id INTEGER PRIMARY KEY, team_id INTEGER NOT NULL REFERENCES team(id) ON DELETE CASCADE, text TEXT);
    CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT)";
const TEAMS: &str = "SELECT id || ' ' || ifnull(name, '-') || ' ' || ifnull(score, '-') || ' ' || ifnull(tags, '-') || ' ' || \
                     ifnull(chief, '-') FROM team ORDER BY id";
const NOTES: &str = "SELECT id || ' ' || team_id || ' ' || ifnull(text, '-') FROM note ORDER BY id";
const SETTINGS: &str = "SELECT name || ' ' || ifnull(value, '-') FROM setting ORDER BY name";

fn start() -> ([Site; 2], Pair) {
    let sites = [1, 2].map(|seed| Site::new(seed).with("app", SCHEMA, &[]));
    let mut pair = Pair::start([&sites[0], &sites[1]], &[]);
    pair.meet();
    pair.nodes[0].set_rule("app", "team", Some("score"), "counter", pair.now).unwrap();
    pair.nodes[0].set_rule("app", "team", Some("tags"), "set", pair.now).unwrap();
    pair.work();
    (sites, pair)
}

/// Lets an app write and both nodes come to rest, a minute later.
fn write(pair: &mut Pair, site: &Site, sql: &str) {
    later(pair, 60_000);
    site.app("app", sql);
    pair.work();
}

fn later(pair: &mut Pair, ms: u64) {
    pair.now = Now { mono_ms: pair.now.mono_ms + ms, wall_ms: pair.now.wall_ms + ms };
}

fn order(force: bool) -> Order {
    Order { by: "chris".into(), reason: "a test".into(), force }
}

/// Previews or does a plan.
fn run(pair: &mut Pair, at: usize, plan: &Plan, write: bool) -> TakeBackView {
    let mut view = plan.view.clone();
    view.done = write;
    let mut page: Page = plan.start();
    loop {
        let PageDone { rows, events, next, wait } =
            pair.nodes[at].take_back(plan, page.clone(), write, pair.now).unwrap();
        if wait {
            later(pair, 10);
            pair.nodes[at].handle(Input::Tick, pair.now).unwrap();
            while pair.nodes[at].poll_effect().is_some() {}
            continue;
        }
        view.take(PageDone { rows, events, ..PageDone::default() }, usize::MAX);
        match next {
            Some(next) => page = next,
            None => return view,
        }
    }
}

fn plan_undo(pair: &mut Pair, at: usize, selection: &Selection, force: bool) -> Plan {
    let now = pair.now;
    pair.nodes[at].replay_heard(now).unwrap().plan_undo(selection, &order(force), now).unwrap()
}

/// Previews, then does it; both must say the same.
fn undo(pair: &mut Pair, at: usize, selection: &Selection, force: bool) -> TakeBackView {
    later(pair, 60_000);
    let plan = plan_undo(pair, at, selection, force);
    let before = digests(pair, at);
    let preview = run(pair, at, &plan, false);
    assert_eq!(digests(pair, at), before, "a preview changes nothing");
    let done = run(pair, at, &plan, true);
    assert_eq!((&preview.list, preview.rows, preview.kept), (&done.list, done.rows, done.kept));
    pair.work();
    done
}

fn restore(pair: &mut Pair, at: usize, as_of_ms: u64) -> TakeBackView {
    later(pair, 60_000);
    let now = pair.now;
    let plan =
        pair.nodes[at].replay_heard(now).unwrap().plan_restore(as_of_ms, (None, None), &order(false), now).unwrap();
    let preview = run(pair, at, &plan, false);
    let done = run(pair, at, &plan, true);
    assert_eq!((&preview.list, preview.rows), (&done.list, done.rows));
    pair.work();
    done
}

fn digests(pair: &Pair, at: usize) -> Vec<String> {
    let status = pair.nodes[at].status(pair.now).unwrap();
    status.databases.into_iter().map(|database| database.digest).collect()
}

fn all(site: &Site) -> Vec<String> {
    [TEAMS, NOTES, SETTINGS].iter().flat_map(|sql| site.ask("app", sql)).collect()
}

fn written_by(name: &str, from_ms: u64, to_ms: u64) -> Selection {
    Selection::Node { name: name.into(), from_ms, to_ms, database: None, table: None }
}

fn actions(view: &TakeBackView) -> Vec<String> {
    let said = |row: &TakeBackRow| {
        let cells: Vec<String> =
            row.cells.iter().map(|cell| format!("{} {}->{}", cell.column, cell.from, cell.to)).collect();
        let kept: Vec<String> = row.kept.iter().map(|kept| format!("{}|{}", kept.column, kept.why)).collect();
        format!("{} {} {} [{}] [{}]", row.table, row.id, row.action, cells.join(", "), kept.join(", "))
    };
    view.list.iter().map(said).collect()
}

/// "The tablet that wrote garbage from 10:00 to 10:20", and what others did meanwhile and since.
#[test]
fn what_one_node_wrote_in_a_span_is_taken_back_and_what_others_wrote_stays() {
    let (sites, mut pair) = start();
    write(
        &mut pair,
        &sites[0],
        "INSERT INTO team VALUES (1, 'one', 5, 'a,b', NULL), (2, 'two', 0, NULL, 1), (3, 'three', 0, NULL, NULL);
        INSERT INTO note VALUES (1, 1, 'first'), (2, 2, 'second'); INSERT INTO setting VALUES ('k', 'v')",
    );
    let good = all(&sites[0]);
    later(&mut pair, 60_000);
    let from = pair.now.wall_ms;
    write(&mut pair, &sites[1], "UPDATE team SET name = 'garbage', score = score + 10, tags = 'b,x' WHERE id = 1;
        UPDATE team SET name = 'garbage' WHERE id = 2; INSERT INTO team VALUES (50, 'made up', 1, NULL, 1);
        INSERT INTO note VALUES (50, 50, 'made up'); DELETE FROM team WHERE id = 3; UPDATE setting SET value = 'garbage'");
    let to = pair.now.wall_ms;
    write(
        &mut pair,
        &sites[0],
        "UPDATE team SET name = 'two again', score = 7 WHERE id = 2; UPDATE team SET score = score + 1 WHERE id = 1",
    );
    let before = digests(&pair, 0);
    let view = undo(&mut pair, 0, &written_by("second", from, to), false);
    assert_eq!(
        sites[1].ask("app", TEAMS),
        ["1 one 6 a,b -", "2 two again 7 - 1", "3 three 0 - -"],
        "{:#?}",
        actions(&view)
    );
    assert_eq!(sites[1].ask("app", NOTES), good[3..5]);
    assert_eq!(sites[1].ask("app", SETTINGS), ["k v"]);
    assert_eq!(view.kept, 1, "{:#?}", actions(&view));
    let kept = view.list.iter().flat_map(|row| &row.kept).next().unwrap();
    assert!(
        kept.column == "name" && kept.node == "first" && kept.why.starts_with("changed again by first at "),
        "{kept:?}"
    );
    let again = undo(&mut pair, 0, &written_by("second", from, to), false);
    assert_eq!((again.rows, again.events.len()), (0, 0), "{:#?}", actions(&again));
    let back = undo(&mut pair, 1, &Selection::Change(view.events[0].clone()), false);
    assert_eq!(digests(&pair, 0), before, "{:#?}", actions(&back));
    assert_eq!(digests(&pair, 1), before);
}

#[test]
fn a_row_that_somebody_needs_or_touched_stays_and_force_says_so() {
    let (sites, mut pair) = start();
    let from = pair.now.wall_ms;
    write(
        &mut pair,
        &sites[1],
        "INSERT INTO team VALUES (1, 'needed', 0, NULL, NULL), (2, 'touched', 0, NULL, NULL), (3, 'alone', 0, NULL, NULL)",
    );
    let to = pair.now.wall_ms;
    write(
        &mut pair,
        &sites[0],
        "INSERT INTO note VALUES (1, 1, 'needs it'); UPDATE team SET tags = 'mine' WHERE id = 2",
    );
    let view = undo(&mut pair, 0, &written_by("second", from, to), false);
    assert_eq!(sites[1].ask("app", "SELECT name FROM team ORDER BY id"), ["needed", "touched"]);
    let said = actions(&view).join("\n");
    assert!(said.contains("row 1 of note refers to it (team_id)") && said.contains("changed again by first"), "{said}");
    undo(&mut pair, 0, &written_by("second", from, to), true);
    assert_eq!(sites[1].ask("app", "SELECT name FROM team ORDER BY id"), ["needed"]);
}

#[test]
fn one_change_or_one_event_is_taken_back_by_its_name() {
    let (sites, mut pair) = start();
    write(&mut pair, &sites[0], "INSERT INTO team VALUES (1, 'one', 0, NULL, NULL), (2, 'two', 0, NULL, NULL)");
    write(
        &mut pair,
        &sites[0],
        "UPDATE team SET name = 'first' WHERE id = 1; UPDATE team SET name = 'second' WHERE id = 2",
    );
    let history = pair.nodes[0].history("app", "team", "1").unwrap();
    let event = history.versions.last().unwrap().event.clone();
    let view = undo(&mut pair, 1, &Selection::Change(format!("{event}:0")), false);
    assert_eq!((view.selected, view.rows), (1, 1));
    assert_eq!(sites[0].ask("app", "SELECT name FROM team ORDER BY id"), ["one", "second"]);
    let view = undo(&mut pair, 1, &Selection::Change(event.clone()), false);
    assert_eq!((view.selected, view.rows, view.already), (2, 1, 1), "{:#?}", actions(&view));
    assert_eq!(sites[0].ask("app", "SELECT name FROM team ORDER BY id"), ["one", "two"]);
    let short = Selection::Change(event[..8].to_string() + &event[32..]);
    assert_eq!(undo(&mut pair, 1, &short, false).rows, 0);
    for (name, says) in [("x", "no number"), ("00000000:1", "no such origin"), (&format!("{event}:99"), "not so many")]
    {
        let now = pair.now;
        let replay = pair.nodes[0].replay_heard(now).unwrap();
        let error = replay.plan_undo(&Selection::Change((*name).to_string()), &order(false), now).err().unwrap();
        assert!(error.to_string().contains(says), "{name}: {error}");
    }
}

#[test]
fn a_database_is_rolled_back_and_brought_forward_again() {
    let (sites, mut pair) = start();
    let mut moments = Vec::new();
    for (number, sql) in [
        "INSERT INTO team VALUES (1, 'one', 5, 'a', NULL), (2, 'two', 0, NULL, 1); INSERT INTO note VALUES (1, 1, 'first')",
        "UPDATE team SET name = 'changed', score = score + 3, tags = 'a,b' WHERE id = 1; INSERT INTO note VALUES (2, 2, 'x')",
        "DELETE FROM note WHERE team_id = 1; UPDATE team SET chief = NULL; DELETE FROM team WHERE id = 1; UPDATE setting SET value = 'w'; INSERT INTO setting VALUES ('k', 'v')",
        "DELETE FROM note; UPDATE team SET id = 20 WHERE id = 2",
    ]
    .into_iter()
    .enumerate()
    {
        write(&mut pair, &sites[number % 2], sql);
        moments.push((pair.now.wall_ms, all(&sites[0]), digests(&pair, 0)));
    }
    for at in [0, 2, 1, 3, 0, 3] {
        let (ms, rows, digest) = &moments[at];
        let view = restore(&mut pair, at % 2, *ms);
        assert_eq!(all(&sites[1]), *rows, "as of {at}: {:#?}", actions(&view));
        assert_eq!((digests(&pair, 0), digests(&pair, 1)), (digest.clone(), digest.clone()));
        assert_eq!(restore(&mut pair, at % 2, *ms).rows, 0, "the second time there is nothing to do");
    }
}

#[test]
fn what_changed_between_two_times_is_counted_and_listed() {
    let (sites, mut pair) = start();
    write(
        &mut pair,
        &sites[0],
        "INSERT INTO team VALUES (1, 'one', 5, 'a', NULL), (2, 'two', 0, NULL, 1), (3, 'three', 0, NULL, NULL)",
    );
    let from = pair.now.wall_ms;
    write(
        &mut pair,
        &sites[1],
        "UPDATE team SET name = 'first' WHERE id = 1; DELETE FROM team WHERE id = 3; INSERT INTO note VALUES (9, 1, 'new')",
    );
    write(&mut pair, &sites[0], "UPDATE team SET id = 20 WHERE id = 2");
    let to = pair.now.wall_ms;
    write(&mut pair, &sites[0], "DELETE FROM note; DELETE FROM team");
    let diff = |filter: DiffFilter| pair.nodes[1].replay().unwrap().diff(from, to, &filter).unwrap();
    let view = diff(DiffFilter { limit: 10, ..DiffFilter::default() });
    let counts: Vec<_> =
        view.tables.iter().map(|t| (t.table.as_str(), t.added, t.changed, t.deleted, t.moved)).collect();
    assert_eq!(counts, [("note", 1, 0, 0, 0), ("team", 0, 1, 1, 1)]);
    let rows: Vec<String> = view
        .rows
        .iter()
        .map(|row| {
            let cells: Vec<String> =
                row.cells.iter().map(|cell| format!("{} {}->{}", cell.column, cell.from, cell.to)).collect();
            format!("{} {} {} {} {:?} by {}", row.table, row.was, row.id, row.what, cells, row.by.join(","))
        })
        .collect();
    assert_eq!(
        rows,
        [
            "note  9 added [\"team_id ->1\", \"text ->'new'\"] by second",
            "team  1 changed [\"name 'one'->'first'\"] by second",
            "team  3 deleted [\"name 'three'->\", \"score 0->\"] by second",
            "team 2 20 moved [] by first",
        ]
    );
    let few =
        diff(DiffFilter { limit: 1, table: Some("team".into()), node: Some("second".into()), ..Default::default() });
    assert_eq!((few.rows.len(), few.more, few.tables.len()), (1, 1, 1));
    let replay = pair.nodes[0].replay().unwrap();
    for (filter, says) in [
        (DiffFilter { table: Some("x".into()), ..Default::default() }, "litemesh preflight"),
        (DiffFilter { node: Some("x".into()), ..Default::default() }, "these did: first, second"),
    ] {
        assert!(replay.diff(from, to, &filter).unwrap_err().to_string().contains(says));
    }
}

/// More rows than one page: several sets of events, one order.
#[test]
fn a_large_undo_goes_in_pages_and_comes_back_as_one() {
    let (sites, mut pair) = start();
    later(&mut pair, 1);
    let from = pair.now.wall_ms;
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 700)
        INSERT INTO team (name, score) SELECT 'garbage', i FROM n; UPDATE team SET chief = (SELECT min(id) FROM team) WHERE id > 600";
    write(&mut pair, &sites[1], many);
    let (to, before) = (pair.now.wall_ms, digests(&pair, 0));
    let view = undo(&mut pair, 0, &written_by("second", from, to), false);
    assert_eq!((view.rows, view.events.len()), (700, 2), "{:?} {:?}", view.tables, view.list.first());
    assert_eq!(sites[1].ask("app", "SELECT count(*) FROM team"), ["0"]);
    let back = undo(&mut pair, 1, &Selection::Change(view.events[1].clone()), false);
    assert_eq!((back.rows, digests(&pair, 0)), (700, before));
}

/// What others wrote at the same time, the app of this very node among them, between plan and deed.
#[test]
fn what_is_written_between_the_plan_and_the_deed_stays() {
    let (sites, mut pair) = start();
    write(&mut pair, &sites[0], "INSERT INTO team VALUES (1, 'one', 5, NULL, NULL), (2, 'two', 0, NULL, NULL)");
    let from = pair.now.wall_ms;
    write(
        &mut pair,
        &sites[1],
        "UPDATE team SET name = 'garbage', score = score + 1; INSERT INTO team VALUES (3, 'made up', 0, NULL, NULL)",
    );
    let to = pair.now.wall_ms;
    let plan = plan_undo(&mut pair, 0, &written_by("second", from, to), false);
    sites[0].app(
        "app",
        "UPDATE team SET name = 'mine', score = score + 100 WHERE id = 1; INSERT INTO note VALUES (1, 3, 'mine')",
    );
    let done = run(&mut pair, 0, &plan, true);
    pair.work();
    assert_eq!(
        sites[1].ask("app", TEAMS),
        ["1 mine 105 - -", "2 two 0 - -", "3 made up 0 - -"],
        "{:#?}",
        actions(&done)
    );
}

#[test]
fn a_read_only_member_takes_nothing_back() {
    let (sites, mut pair) = start();
    write(&mut pair, &sites[0], "INSERT INTO team (name) VALUES ('one')");
    let now = pair.now;
    pair.nodes[0].set_role("second", crate::model::Role::ReadOnly, now).unwrap();
    pair.work();
    let plan = plan_undo(&mut pair, 1, &written_by("first", 0, now.wall_ms), false);
    let error = pair.nodes[1].take_back(&plan, plan.start(), false, now).unwrap_err();
    assert!(error.to_string().contains("read-only"), "{error}");
}

/// What a plan costs: `cargo test --profile sim --no-default-features --lib cost_of -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn cost_of_diff_undo_and_history() {
    let count: u64 = std::env::var("LITEMESH_EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000);
    let (sites, mut pair) = start();
    pair.part();
    let began = std::time::Instant::now();
    let app = rusqlite::Connection::open(sites[1].path("app")).unwrap();
    for number in 0..count {
        let sql = match number % 2 {
            0 => format!("INSERT INTO team (name, score) VALUES ('team {number}', 1)"),
            _ => format!("UPDATE team SET name = 'again {number}' WHERE id = (SELECT max(id) FROM team)"),
        };
        app.execute_batch(&sql).unwrap();
        later(&mut pair, 300);
        pair.nodes[1].handle(Input::FileTouched(0), pair.now).unwrap();
        pair.nodes[1].handle(Input::Tick, pair.now).unwrap();
        while pair.nodes[1].poll_effect().is_some() {}
    }
    let span = pair.now.wall_ms - 300 * count;
    eprintln!("{count} events made in {:?}", began.elapsed());
    let timed = |what: &str, work: &mut dyn FnMut() -> String| {
        let began = std::time::Instant::now();
        let said = work();
        eprintln!("{what}: {:?} {said}", began.elapsed());
    };
    let (now, middle) = (pair.now, span + 300 * count / 2);
    let replay = pair.nodes[1].replay_heard(now).unwrap();
    let filter = DiffFilter { limit: 10, ..DiffFilter::default() };
    timed("diff of all", &mut || format!("{:?}", replay.diff(span - 1, now.wall_ms, &filter).unwrap().tables));
    timed("diff of the last hundredth", &mut || {
        format!("{:?}", replay.diff(now.wall_ms - 3 * count, now.wall_ms, &filter).unwrap().tables)
    });
    let mut plan = None;
    for (what, from) in [("plan of undo of a hundredth", now.wall_ms - 3 * count), ("plan of undo of a half", middle)] {
        timed(what, &mut || {
            let made = replay.plan_undo(&written_by("second", from, now.wall_ms), &order(false), now).unwrap();
            let said = format!("{} changes", made.view.selected);
            plan = Some(made);
            said
        });
    }
    timed("plan of restore of a half", &mut || {
        format!("{:?}", replay.plan_restore(middle, (None, None), &order(false), now).unwrap().databases[0].steps.len())
    });
    timed("history of a row", &mut || pair.nodes[1].history("app", "team", "1").unwrap().versions.len().to_string());
    let plan = plan.unwrap();
    let (mut page, mut slowest, mut pages) = (Some(plan.start()), std::time::Duration::ZERO, 0);
    timed("undo of a half, in pages", &mut || {
        while let Some(at) = page.take() {
            let began = std::time::Instant::now();
            let done = pair.nodes[1].take_back(&plan, at, true, pair.now).unwrap();
            slowest = slowest.max(began.elapsed());
            pages += 1;
            later(&mut pair, 3_000);
            let began = std::time::Instant::now();
            pair.nodes[1].handle(Input::Tick, pair.now).unwrap();
            slowest = slowest.max(began.elapsed());
            while pair.nodes[1].poll_effect().is_some() {}
            page = done.next;
        }
        format!("{pages} pages, the slowest step {slowest:?}")
    });
}

/// Dice of its own: a history is its seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn sql(&mut self) -> String {
        let (id, other, word) = (1 + self.below(6), 1 + self.below(6), self.below(1000));
        match self.below(12) {
            0 | 1 => format!(
                "INSERT OR IGNORE INTO team (name, score, chief) VALUES ('t{word}', {word}, (SELECT min(id) FROM team))"
            ),
            2 => format!("UPDATE team SET name = 'n{word}' WHERE id = {id}"),
            3 => format!("UPDATE team SET score = score + {word} WHERE id = {id}"),
            4 => format!("UPDATE team SET tags = '{},{}' WHERE id = {id}", word % 5, 5 + word % 3),
            5 => format!("UPDATE team SET chief = (SELECT id FROM team WHERE id = {other}) WHERE id = {id}"),
            6 => format!("UPDATE team SET chief = NULL WHERE chief = {id}; DELETE FROM team WHERE id = {id}"),
            7 => format!("INSERT INTO note (team_id, text) SELECT id, 'x{word}' FROM team WHERE id = {id}"),
            8 => format!("UPDATE note SET text = 'y{word}' WHERE id = {id}"),
            9 => format!("DELETE FROM note WHERE id = {id}"),
            10 => format!("INSERT OR REPLACE INTO setting VALUES ('k{}', 'v{word}')", id % 3),
            _ => format!("DELETE FROM setting WHERE name = 'k{}'", id % 3),
        }
    }
}

/// Rows and columns that one node's events of a span wrote: read from the log itself.
fn touched(pair: &Pair, at: usize, (from, to): (u64, u64)) -> BTreeMap<String, BTreeSet<String>> {
    let node = &pair.nodes[at];
    let writer = pair.nodes[1].id();
    let read = node.log().read().unwrap();
    let mut touched: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (origin, head) in read.heads().unwrap() {
        for seq in (1..=head.seq).filter(|_| head.origin.node == writer) {
            let event = decode_event(&read.event(&origin, seq).unwrap().unwrap().bytes).unwrap();
            if !(from..=to).contains(&event.header.stamp.wall_ms()) {
                continue;
            }
            for change in &event.changes {
                let Some(row) = change.row() else { continue };
                let columns = touched.entry(row.to_string()).or_default();
                if let Change::Update { table, cells, .. } = change {
                    let names = &event.tables[*table as usize].columns;
                    columns.extend(cells.iter().map(|(column, _, _)| names[*column as usize].clone()));
                } else {
                    columns.insert("*".to_string());
                }
            }
        }
    }
    touched
}

fn random_history(seed: u64) {
    eprintln!("seed {seed}");
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let (sites, mut pair) = start();
    let mut span = (0, 0);
    for phase in 0..3 {
        for _ in 0..2 + dice.below(3) {
            let apart = dice.below(2) == 0;
            if apart {
                pair.part();
            }
            for _ in 0..1 + dice.below(4) {
                later(&mut pair, 1_000);
                for site in &sites {
                    site.app("app", &format!("PRAGMA foreign_keys = ON; {}", dice.sql()));
                }
                for node in &mut pair.nodes {
                    node.handle(Input::FileTouched(0), pair.now).unwrap();
                    node.handle(Input::Tick, pair.now).unwrap();
                    while node.poll_effect().is_some() {}
                }
            }
            pair.meet();
        }
        if phase == 0 {
            span.0 = pair.now.wall_ms + 1;
        } else if phase == 1 {
            span.1 = pair.now.wall_ms;
        }
        later(&mut pair, 1_000);
    }
    let touched = touched(&pair, 0, span);
    let (before, asked_ms) = (digests(&pair, 0), pair.now.wall_ms);
    let selection = written_by("second", span.0, span.1);
    if touched.is_empty() {
        return;
    }
    let view = undo(&mut pair, 0, &selection, false);
    assert_eq!(digests(&pair, 0), digests(&pair, 1), "seed {seed}");
    let filter = DiffFilter { limit: usize::MAX, ..DiffFilter::default() };
    let diff = pair.nodes[0].replay().unwrap().diff(asked_ms, pair.now.wall_ms, &filter).unwrap();
    for row in &diff.rows {
        let columns = touched.get(&row.row).unwrap_or_else(|| panic!("seed {seed}: {row:?} was not theirs"));
        let theirs = |column: &String| columns.contains("*") || columns.contains(column);
        let foreign: Vec<_> = row.cells.iter().filter(|cell| !theirs(&cell.column)).collect();
        assert!(row.what != "changed" || foreign.is_empty(), "seed {seed}: {row:?} {foreign:?}");
    }
    let again = undo(&mut pair, 1, &selection, false);
    assert_eq!(again.rows, 0, "seed {seed}: {:#?}", actions(&again));
    if let Some(event) = view.events.first() {
        let back = undo(&mut pair, 1, &Selection::Change(event.clone()), false);
        assert_eq!(digests(&pair, 0), before, "seed {seed}: {:#?} then {:#?}", actions(&view), actions(&back));
    }
    // The roll-back leads to what was shown before the span, but for ids that had to move since and what refers to them.
    let view = restore(&mut pair, 0, span.0);
    let diff = pair.nodes[1].replay().unwrap().diff(span.0, pair.now.wall_ms, &filter).unwrap();
    let moved = diff.rows.iter().any(|row| row.what == "moved");
    for row in &diff.rows {
        let follows = row.cells.iter().all(|cell| moved && ["chief", "team_id"].contains(&cell.column.as_str()));
        assert!(
            ["moved", "changed"].contains(&row.what.as_str()) && follows,
            "seed {seed}: {row:?} {:#?}",
            actions(&view)
        );
    }
    let forward = restore(&mut pair, 1, asked_ms);
    let differs = || pair.nodes[0].replay().unwrap().diff(asked_ms, pair.now.wall_ms, &filter).unwrap().rows;
    assert_eq!(
        digests(&pair, 0),
        before,
        "seed {seed}: {:#?} then {:#?}: {:#?}",
        actions(&view),
        actions(&forward),
        differs()
    );
}

#[test]
fn random_histories_are_taken_back_and_forth() {
    let seeds = std::env::var("LITEMESH_UNDO_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let first = std::env::var("LITEMESH_UNDO_FIRST").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for seed in first..first + seeds {
        random_history(seed);
    }
}
