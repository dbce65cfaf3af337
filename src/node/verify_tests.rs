//! Verification on real files: what differs is found at every tier that can see it, named, explained, healed; what the app
//! writes meanwhile is never taken for drift.
//!
//! Damage is done by connections whose triggers are switched off: as a program that goes around the app, a bit that flips,
//! or a lost page would. Invariant: time and frames are carried by hand. Not tested here: bits of the file itself (the ordeal
//! `damage` does that).

#![allow(clippy::unwrap_used)]

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::pair_tests::{Pair, Site};
use super::verify_schedule::{Schedule, VerifySettings};
use super::*;
use crate::model::{DriftAction, DriftCause, DriftKind, DriftRecord, RunRecord, RunState, Tier};

const NOTES: &str = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL, points INTEGER DEFAULT 0);
    CREATE TABLE tag (name TEXT PRIMARY KEY, note INTEGER);
    CREATE INDEX by_text ON note (text);";

/// A node alone, with so many notes.
struct Alone {
    site: Site,
    node: Node,
    now: Now,
}

impl Alone {
    fn with(rows: u32, settings: VerifySettings) -> Alone {
        let site = Site::new(1).with("app", NOTES, &[]);
        let now = Now { mono_ms: 1_000, wall_ms: super::pair_tests::CLOCK_MS };
        Node::found(&site.log(), &site.settings().key_seed, "first", "test", now).unwrap();
        let node = Node::open(site.settings(), site.log(), now).unwrap();
        let mut alone = Alone { site, node, now };
        alone.node.set_verification(settings);
        let rows: Vec<String> = (1..=rows).map(|id| format!("({id}, 'a longer text for note {id}', {id})")).collect();
        alone.site.app(
            "app",
            &format!("INSERT INTO note VALUES {}; INSERT INTO tag VALUES ('x', 1), ('y', 2)", rows.join(",")),
        );
        alone.tick(40);
        alone
    }

    fn tick(&mut self, times: u32) {
        for _ in 0..times {
            self.now = Now { mono_ms: self.now.mono_ms + 50, wall_ms: self.now.wall_ms + 50 };
            self.node.handle(Input::Tick, self.now).unwrap();
            while self.node.poll_effect().is_some() {}
        }
    }

    /// Runs a tier to its end.
    fn run(&mut self, tier: Tier, repair: bool) -> RunRecord {
        let number = self.node.order_verification(Some("app"), tier, repair, self.now).unwrap()[0];
        self.ended(number)
    }

    fn ended(&mut self, number: u64) -> RunRecord {
        for _ in 0..4_000 {
            self.tick(1);
            let run = self.node.verify_runs(50).unwrap().into_iter().find(|run| run.number == number);
            if let Some(run) = run.filter(|run| matches!(run.state, RunState::Done | RunState::Failed(_))) {
                assert_eq!(run.state, RunState::Done);
                return run;
            }
        }
        panic!("it does not end: {:?}", self.node.verify_runs(5));
    }

    fn drift(&self) -> Vec<DriftRecord> {
        self.node.log().read().unwrap().drift(0, 1_000).unwrap()
    }

    /// What a program does that goes around the triggers.
    fn unmarked(&self, sql: &str) {
        unmarked(&self.site, sql);
    }

    fn ask(&self, sql: &str) -> Vec<String> {
        self.site.ask("app", sql)
    }
}

fn unmarked(site: &Site, sql: &str) {
    let app = Connection::open(site.path("app")).unwrap();
    app.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    app.execute_batch(sql).unwrap();
}

fn said(drift: &DriftRecord) -> (DriftKind, DriftCause, DriftAction) {
    (drift.kind, drift.cause, drift.action)
}

#[test]
fn equal_is_equal_at_every_tier() {
    let mut alone = Alone::with(700, VerifySettings::default());
    for tier in Tier::ALL {
        let run = alone.run(tier, false);
        assert_eq!((run.drift, run.unsettled, run.tables), (0, 0, 2), "{tier:?}");
        assert!(run.notes.is_empty() && run.ranges.is_empty(), "{run:?}");
    }
    assert!(alone.drift().is_empty() && alone.node.alerts.is_empty());
}

#[test]
fn each_tier_finds_what_it_can_see_and_all_is_healed() {
    use DriftAction::{Captured, Rewritten};
    use DriftKind::{Changed, Missing, Unknown};
    type Case = (&'static str, &'static str, (DriftKind, DriftAction), [bool; 4]);
    let cases: [Case; 3] = [
        ("DELETE FROM note WHERE id = 350", "350 1", (Missing, Rewritten), [true; 4]),
        ("INSERT INTO note VALUES (90000, 'unseen', 1)", "90000 1", (Unknown, Captured), [true; 4]),
        (
            "UPDATE note SET text = 'an edit that nobody marked' WHERE id = 8",
            "8 1",
            (Changed, Captured),
            [false, false, true, true],
        ),
    ];
    for (sql, row, (kind, action), seen) in cases {
        for (tier, seen) in Tier::ALL.into_iter().zip(seen) {
            let mut alone = Alone::with(600, VerifySettings::default());
            alone.unmarked(sql);
            let run = alone.run(tier, false);
            assert_eq!((run.drift, run.healed), (u64::from(seen), u64::from(seen)), "{sql} at {tier:?}");
            let Some(drift) = alone.drift().pop() else { continue };
            assert_eq!((drift.kind, drift.action), (kind, action), "{sql} at {tier:?}");
            assert!(drift.healed_ms.is_some(), "{drift:?}");
            let id = row.split(' ').next().unwrap();
            assert_eq!(alone.ask(&format!("SELECT id || ' ' || count(*) FROM note WHERE id = {id}")), [row]);
            let again = alone.run(Tier::Full, false);
            assert_eq!(again.drift, 0, "{sql}: {:?}", alone.drift());
        }
    }
}

#[test]
fn a_flipped_bit_and_an_old_value_are_written_again_and_kept_aside() {
    let mut alone = Alone::with(300, VerifySettings::default());
    alone.site.app(
        "app",
        "UPDATE note SET text = 'the second text', points = 77 WHERE id = 9; DELETE FROM note WHERE id = 10",
    );
    alone.tick(20);
    // 'l' is one bit from 'm'; note 9 as it was; note 10 as it was.
    alone.unmarked("UPDATE note SET text = 'a monger text for note 7' WHERE id = 7");
    alone.unmarked("UPDATE note SET text = 'a longer text for note 9', points = 9 WHERE id = 9");
    alone.unmarked("INSERT INTO note VALUES (10, 'a longer text for note 10', 10)");
    let run = alone.run(Tier::Checksum, false);
    assert_eq!((run.drift, run.healed), (3, 3), "{:?}", alone.drift());
    assert!(!run.ranges.is_empty(), "the range is named");
    let drift = alone.drift();
    let of = |id: i64| drift.iter().find(|one| one.key == [crate::model::Value::Integer(id)]).unwrap();
    assert_eq!(said(of(7)), (DriftKind::Changed, DriftCause::BitRot, DriftAction::Rewritten));
    assert_eq!(of(7).columns, ["text"]);
    assert_eq!(of(7).file.as_ref().unwrap()[1], crate::model::Value::text("a monger text for note 7"), "kept aside");
    assert_eq!(said(of(9)), (DriftKind::Changed, DriftCause::Earlier, DriftAction::Rewritten));
    assert_eq!(said(of(10)), (DriftKind::Unknown, DriftCause::Earlier, DriftAction::Removed));
    assert!(drift.iter().all(|one| one.healed_ms.is_some()));
    let shown = alone.ask("SELECT id || text || points FROM note WHERE id IN (7, 9, 10) ORDER BY id");
    assert_eq!(shown, ["7a longer text for note 77", "9the second text77"]);
    assert_eq!(alone.run(Tier::Full, false).drift, 0);
}

/// `ordeal damage --seed 11`: a flipped bit made rowid 41 a second 43 inside its page, SQLite showed the one's content under
/// the other's id, and that was taken for a write of the app: an event, and all servers showed it.
#[test]
fn the_content_of_a_row_that_is_gone_under_another_id_is_rot_and_no_write() {
    let mut alone = Alone::with(100, VerifySettings::default());
    alone.site.app("app", "UPDATE note SET text = 'robot ' || hex(id * 7919), points = id * id");
    alone.tick(20);
    let before = alone.ask("SELECT id || text || points FROM note ORDER BY id");
    let flip = "UPDATE note SET (text, points) = (SELECT text, points FROM note WHERE id = 41) WHERE id = 43;
                DELETE FROM note WHERE id = 41";
    alone.unmarked(flip);
    alone.run(Tier::Full, false);
    let rot = (DriftCause::BitRot, DriftAction::Rewritten);
    let said_of = |alone: &Alone| -> Vec<_> {
        alone.drift().iter().map(|one| (one.key.clone(), (one.cause, one.action))).collect()
    };
    let id = |id: i64| vec![crate::model::Value::Integer(id)];
    let mut both = said_of(&alone);
    both.sort_by_key(|(key, _)| key.clone());
    assert_eq!(both, [(id(41), rot), (id(43), rot)]);
    assert!(alone.drift()[0].words.contains("the content of"), "{:?}", alone.drift()[0].words);
    // A tier that sees keys only heals the one; then the other shows the content of a row that was missing lately.
    alone.unmarked(flip);
    assert_eq!(alone.run(Tier::Ids, false).drift, 1);
    assert_eq!(alone.run(Tier::Full, false).drift, 1);
    assert_eq!(said_of(&alone)[3..], [(id(43), rot)]);
    assert_eq!(alone.ask("SELECT id || text || points FROM note ORDER BY id"), before);
}

/// The same ordeal: the record that told of the capture was written over by what was found at that row next.
#[test]
fn a_record_that_says_captured_stays_and_what_is_found_later_is_another() {
    let mut alone = Alone::with(50, VerifySettings::default());
    alone.unmarked("UPDATE note SET text = 'somebody wrote this', points = 1000 WHERE id = 43");
    let run = alone.node.order_verification(Some("app"), Tier::Full, false, alone.now).unwrap()[0];
    while alone.drift().is_empty() {
        alone.tick(1);
    }
    assert_eq!(alone.drift()[0].healed_ms, None, "seen equal later than captured");
    alone.unmarked("UPDATE note SET text = 'and somebody else this', points = 9 WHERE id = 43");
    alone.ended(run);
    alone.run(Tier::Full, false);
    let told: Vec<_> = alone.drift().iter().map(|one| (one.number, one.action, one.healed_ms.is_some())).collect();
    assert_eq!(told, [(1, DriftAction::Captured, false), (2, DriftAction::Captured, true)]);
    assert_eq!(alone.ask("SELECT text FROM note WHERE id = 43"), ["and somebody else this"]);
}

/// `ordeal damage --seed 11`, damage 122: a flipped bit turned `random()` in a trigger's text into `randoe()`. Nothing that was
/// verified saw it, and the app's next write failed.
#[test]
fn a_damaged_trigger_is_made_again_and_what_it_did_not_note_is_found() {
    let mut alone = Alone::with(50, VerifySettings::default());
    let file = Connection::open(alone.site.path("app")).unwrap();
    let rot = "PRAGMA writable_schema = 1;
               UPDATE sqlite_master SET sql = replace(sql, 'random()', 'randoe()') WHERE name GLOB '_litemesh_*_update';";
    file.execute_batch(rot).unwrap();
    drop(file);
    let write = "UPDATE note SET points = 7 WHERE id = 3";
    let broken = Connection::open(alone.site.path("app")).unwrap().execute_batch(write).unwrap_err();
    assert!(broken.to_string().contains("randoe"), "{broken}");
    alone.unmarked("UPDATE note SET text = 'not noted', points = 99 WHERE id = 4");
    let run = alone.run(Tier::Full, false);
    assert!(run.drift >= 2 && run.healed == run.drift, "{run:?}");
    alone.tick(40);
    alone.site.app("app", write);
    alone.tick(40);
    assert_eq!(
        alone.ask("SELECT points || text FROM note WHERE id IN (3, 4)"),
        ["7a longer text for note 3", "99not noted"]
    );
    let tables: Vec<String> =
        alone.drift().iter().filter(|one| one.words.contains("trigger")).map(|one| one.table.clone()).collect();
    assert_eq!(tables, ["note", "tag"]);
    assert_eq!(alone.run(Tier::Full, false).drift, 0);
}

#[test]
fn what_was_captured_reaches_the_others_and_what_was_lost_stays_there() {
    let sites = [1, 2].map(|seed| Site::new(seed).with("app", NOTES, &[]));
    let mut pair = Pair::start([&sites[0], &sites[1]], &[]);
    pair.meet();
    sites[0].app("app", "INSERT INTO note (text, points) VALUES ('one', 1), ('two', 2), ('three', 3)");
    pair.work();
    let ids = sites[1].ask("app", "SELECT id FROM note ORDER BY points");
    unmarked(&sites[1], &format!("UPDATE note SET text = 'a person wrote this' WHERE id = {}", ids[0]));
    unmarked(&sites[1], &format!("DELETE FROM note WHERE id = {}", ids[1]));
    // A row whose id was changed past the triggers.
    unmarked(&sites[1], &format!("UPDATE note SET id = 4000 WHERE id = {}", ids[2]));
    let now = pair.now;
    pair.nodes[1].order_verification(None, Tier::Full, false, now).unwrap();
    for _ in 0..20 {
        pair.work();
    }
    for site in &sites {
        let shown = site.ask("app", "SELECT text || points FROM note ORDER BY points");
        assert_eq!(shown, ["a person wrote this1", "two2", "three3"]);
        assert_eq!(site.ask("app", "SELECT id FROM note WHERE points = 3"), ["4000"]);
    }
    let runs = pair.nodes[1].verify_runs(5).unwrap();
    assert_eq!((runs[0].drift, runs[0].healed), (3, 3), "{runs:?}");
}

#[test]
fn an_app_that_writes_all_the_time_is_never_taken_for_drift() {
    for tier in Tier::ALL {
        let mut alone = Alone::with(900, VerifySettings { share_by_hand: 100, ..VerifySettings::default() });
        let number = alone.node.order_verification(None, tier, false, alone.now).unwrap()[0];
        let mut ended = None;
        for round in 0..600_u64 {
            // One write of each kind between any two ticks, all over the table; the node is not told, it finds the marks.
            let id = 1 + round * 37 % 900;
            alone.site.app(
                "app",
                &format!(
                    "UPDATE note SET text = 'round {round}', points = points + 1 WHERE id = {id};
                     INSERT INTO note (text) VALUES ('new {round}');
                     DELETE FROM note WHERE id = {};
                     INSERT OR REPLACE INTO tag VALUES ('x', {id})",
                    1 + round * 53 % 900
                ),
            );
            alone.now = Now { mono_ms: alone.now.mono_ms + 3, wall_ms: alone.now.wall_ms + 3 };
            alone.node.handle(Input::Tick, alone.now).unwrap();
            while alone.node.poll_effect().is_some() {}
            let run = alone.node.verify_runs(5).unwrap().into_iter().find(|run| run.number == number).unwrap();
            if run.state == RunState::Done {
                ended = Some(run);
                break;
            }
        }
        let run = ended.unwrap_or_else(|| alone.ended(number));
        assert_eq!(run.drift, 0, "{tier:?}: {:?}", alone.drift());
        assert_eq!(run.unsettled, 0, "{tier:?}: {run:?}");
        let again = alone.run(Tier::Full, false);
        assert_eq!(again.drift, 0, "{tier:?}: {:?}", alone.drift());
    }
}

#[test]
fn with_ask_nothing_is_touched_until_a_person_says_so() {
    let settings = VerifySettings { repair: false, ..VerifySettings::default() };
    let mut alone = Alone::with(100, settings);
    alone.unmarked("DELETE FROM note WHERE id = 5; UPDATE note SET text = 'unmarked' WHERE id = 6");
    for _ in 0..2 {
        let run = alone.run(Tier::Checksum, false);
        assert_eq!((run.drift, run.healed), (2, 0));
    }
    assert_eq!(alone.drift().len(), 2, "found twice, recorded once");
    assert!(alone.drift().iter().all(|one| one.action == DriftAction::Waits && one.healed_ms.is_none()));
    assert_eq!(alone.ask("SELECT count(*) FROM note WHERE id = 5"), ["0"]);
    let run = alone.run(Tier::Checksum, true);
    assert_eq!((run.drift, run.healed), (2, 2));
    assert_eq!(alone.drift().len(), 2, "the same two records");
    assert!(alone.drift().iter().all(|one| one.healed_ms.is_some()), "{:?}", alone.drift());
    assert_eq!(alone.ask("SELECT text FROM note WHERE id IN (5, 6)"), ["a longer text for note 5", "unmarked"]);
}

#[test]
fn a_file_that_somebody_rewrote_waits_for_a_person() {
    let mut alone = Alone::with(200, VerifySettings::default());
    alone.unmarked("UPDATE note SET text = hex(randomblob(20))");
    let run = alone.run(Tier::Checksum, false);
    assert_eq!((run.drift, run.healed), (200, 0));
    assert!(alone.drift().iter().all(|one| one.action == DriftAction::Waits));
    let run = alone.run(Tier::Checksum, true);
    assert_eq!((run.drift, run.healed), (200, 200));
}

#[test]
fn a_run_goes_on_after_a_restart_and_finds_what_lies_behind_its_place() {
    let settings = VerifySettings { share_by_hand: 1, ..VerifySettings::default() };
    let mut alone = Alone::with(3_000, settings.clone());
    alone.unmarked("DELETE FROM note WHERE id IN (3, 2900)");
    let number = alone.node.order_verification(None, Tier::Full, false, alone.now).unwrap()[0];
    // The place is kept each five seconds of the clock.
    alone.tick(220);
    let before = alone.node.verify_runs(1).unwrap().remove(0);
    assert!(before.state == RunState::Running && before.rows > 0, "{before:?}");
    let (site, now) = (alone.site, alone.now);
    alone.node.close().unwrap();
    let mut node = Node::open(site.settings(), site.log(), now).unwrap();
    node.set_verification(VerifySettings::default());
    let mut alone = Alone { site, node, now };
    let run = alone.ended(number);
    assert!(run.rows >= before.rows, "{run:?}");
    assert_eq!((run.drift, run.healed), (2, 2), "{:?}", alone.drift());
    assert_eq!(alone.ask("SELECT count(*) FROM note"), ["3000"]);
}

#[test]
fn tiers_come_by_their_schedules_and_critical_tables_one_deeper() {
    let every = |text: &str| Schedule::parse(text).unwrap();
    let critical = ("app".to_string(), "note".to_string(), super::verify_schedule::Criticality::Critical);
    let settings = VerifySettings {
        ids: every("1m"),
        full: every("1h"),
        share: 100,
        tables: vec![critical],
        ..VerifySettings::default()
    };
    let mut alone = Alone::with(50, settings);
    // The ids tier sees no edit: of a critical table the sums are compared.
    alone.unmarked("UPDATE note SET text = 'unmarked and not a bit away' WHERE id = 3");
    alone.unmarked("UPDATE tag SET note = 40 WHERE name = 'x'");
    alone.tick(1_300);
    let runs = alone.node.verify_runs(50).unwrap();
    assert!(runs.iter().all(|run| run.tier == Tier::Ids && !run.by_hand), "{runs:?}");
    assert_eq!(runs.iter().map(|run| run.drift).sum::<u64>(), 1, "{runs:?}");
    alone.tick(72_000);
    let runs = alone.node.verify_runs(500).unwrap();
    assert!(runs.iter().any(|run| run.tier == Tier::Full && run.drift == 1), "{:?}", runs.last());
}

#[test]
fn a_dropped_table_is_named_and_made_again_when_a_person_says_so() {
    let mut alone = Alone::with(60, VerifySettings::default());
    alone.site.app("app", "DROP TABLE note");
    alone.tick(30);
    let drift = alone.drift();
    assert_eq!(drift.len(), 1, "{drift:?}");
    assert_eq!((drift[0].kind, drift[0].rows, drift[0].sql.len()), (DriftKind::TableGone, 60, 2), "{drift:?}");
    assert_eq!(alone.run(Tier::Count, false).drift, 1, "it is named by every run");
    assert_eq!(alone.ask("SELECT count(*) FROM sqlite_master WHERE name = 'note'"), ["0"], "and not made again");
    alone.run(Tier::Count, true);
    alone.tick(100);
    assert_eq!(alone.ask("SELECT count(*) FROM note"), ["60"]);
    assert_eq!(alone.ask("SELECT count(*) FROM sqlite_master WHERE name = 'by_text'"), ["1"]);
    assert!(alone.drift()[0].healed_ms.is_some(), "{:?}", alone.drift());
    assert_eq!(alone.run(Tier::Full, false).drift, 0, "{:?}", alone.drift());
}

#[test]
fn what_was_written_while_triggers_were_missing_is_recorded_with_its_cause() {
    let mut alone = Alone::with(30, VerifySettings::default());
    let triggers = alone.ask("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'note'");
    let drop: String = triggers.iter().map(|name| format!("DROP TRIGGER \"{name}\";")).collect();
    alone
        .site
        .app("app", &format!("{drop} UPDATE note SET text = 'unseen' WHERE id = 4; DELETE FROM note WHERE id = 5"));
    alone.tick(60);
    let drift = alone.drift();
    let all: Vec<_> = drift.iter().map(|one| (said(one), one.healed_ms.is_some())).collect();
    let cause = DriftCause::TriggersMissing;
    assert_eq!(
        all,
        [
            ((DriftKind::Changed, cause, DriftAction::Captured), true),
            ((DriftKind::Missing, cause, DriftAction::Rewritten), true)
        ]
    );
    assert_eq!(alone.ask("SELECT text FROM note WHERE id IN (4, 5)"), ["unseen", "a longer text for note 5"]);
}

#[test]
fn a_backup_put_back_is_told_in_words_and_healed() {
    let mut alone = Alone::with(40, VerifySettings::default());
    let (site, now) = (alone.site, alone.now);
    alone.node.close().unwrap();
    let backup = std::fs::read(site.path("app")).unwrap();
    let node = Node::open(site.settings(), site.log(), now).unwrap();
    alone = Alone { site, node, now };
    alone.site.app(
        "app",
        "UPDATE note SET text = 'newer' WHERE id = 1; DELETE FROM note WHERE id = 2;
        INSERT INTO note (id, text) VALUES (5000, 'newest')",
    );
    alone.tick(20);
    let (site, now) = (alone.site, alone.now);
    alone.node.close().unwrap();
    std::fs::write(site.path("app"), &backup).unwrap();
    site.app("app", "INSERT INTO note (id, text) VALUES (6000, 'written into the backup')");
    let node = Node::open(site.settings(), site.log(), now).unwrap();
    alone = Alone { site, node, now };
    alone.tick(40);
    let shown = alone.ask("SELECT text FROM note WHERE id IN (1, 2, 5000, 6000) ORDER BY id");
    assert_eq!(shown, ["newer", "newest", "written into the backup"]);
    let told = alone.node.alerts.join("\n");
    assert!(told.contains("1 row had other values") && told.contains("1 missing came back"), "{told}");
    assert!(told.contains("1 unknown was taken") && told.contains("1 that had been deleted"), "{told}");
    let drift = alone.drift();
    assert_eq!(drift.iter().filter(|one| one.cause == DriftCause::Restored).count(), 5, "{drift:?}");
    assert!(drift.iter().all(|one| one.healed_ms.is_some()), "{drift:?}");
    assert_eq!(alone.run(Tier::Full, false).drift, 0, "{:?}", alone.drift());
}

#[test]
fn a_damaged_event_is_named_and_comes_from_a_peer() {
    let sites = [1, 2].map(|seed| Site::new(seed).with("app", NOTES, &[]));
    let mut pair = Pair::start([&sites[0], &sites[1]], &[]);
    pair.meet();
    for text in ["one", "two", "three"] {
        sites[0].app("app", &format!("INSERT INTO note (text) VALUES ('{text}')"));
        pair.work();
    }
    // Two events that follow each other: the second one's hash proves the first.
    let origin = pair.nodes[0].chain.origin().id();
    let log = pair.nodes[1].log();
    let mut write = log.write().unwrap();
    for seq in [1, 2] {
        let stored = log.read().unwrap().event(&origin, seq).unwrap().unwrap();
        let event = crate::wire::decode_event(&stored.bytes).unwrap();
        let mut bytes = stored.bytes.clone();
        *bytes.last_mut().unwrap() ^= 1;
        write.put_body(&event, &bytes, stored.hash, stored.signature).unwrap();
    }
    write.commit_durable().unwrap();
    assert!(log.read().unwrap().event(&origin, 1).is_err(), "the test needs a damaged event");
    drop(log);
    let now = pair.now;
    let number = pair.nodes[1].order_verification(None, Tier::Full, false, now).unwrap()[0];
    for _ in 0..10 {
        pair.work();
    }
    let run = pair.nodes[1].verify_runs(5).unwrap().into_iter().find(|run| run.number == number).unwrap();
    assert_eq!((run.state, run.drift), (RunState::Done, 2));
    for seq in [1, 2] {
        assert!(pair.nodes[1].log().read().unwrap().event(&origin, seq).unwrap().is_some());
    }
    let drift = pair.nodes[1].log().read().unwrap().drift(0, 10).unwrap();
    let first = pair.nodes[0].id();
    assert!(drift.iter().all(|one| one.action == DriftAction::Fetched && one.from == Some(first)), "{drift:?}");
    assert!(pair.nodes[1].verify_log().unwrap().faults.is_empty());
}

#[test]
fn a_damaged_record_of_a_row_is_derived_again_from_the_events() {
    let alone = Alone::with(50, VerifySettings::default());
    let (site, now) = (alone.site, alone.now);
    alone.node.close().unwrap();
    {
        let rows: redb::TableDefinition<&[u8; 29], &[u8]> = redb::TableDefinition::new("rows");
        let database = redb::Database::open(site.directory.path().join("events.redb")).unwrap();
        let write = database.begin_write().unwrap();
        {
            let mut table = write.open_table(rows).unwrap();
            let (key, mut bytes) = {
                let read = redb::ReadableTable::iter(&table).unwrap().nth(7).unwrap().unwrap();
                (*read.0.value(), read.1.value().to_vec())
            };
            bytes[3] ^= 4;
            table.insert(&key, bytes.as_slice()).unwrap();
        }
        write.commit().unwrap();
    }
    let node = Node::open(site.settings(), site.log(), now).unwrap();
    let mut alone = Alone { site, node, now };
    let run = alone.run(Tier::Full, false);
    assert_eq!((run.drift, run.healed), (1, 1), "{:?}", alone.drift());
    assert_eq!(alone.drift()[0].kind, DriftKind::Record);
    assert!(alone.drift()[0].healed_ms.is_some());
    assert_eq!(alone.run(Tier::Full, false).drift, 0, "{:?}", alone.drift());
    alone.site.app("app", "UPDATE note SET points = points + 1");
    alone.tick(40);
    assert_eq!(alone.run(Tier::Full, false).drift, 0, "{:?}", alone.drift());
}

#[test]
fn a_backup_written_over_the_open_file_is_noticed_at_once() {
    let mut alone = Alone::with(40, VerifySettings::default());
    let backup = alone.site.directory.path().join("backup.db");
    alone.site.app("app", &format!("VACUUM INTO '{}'", backup.display()));
    alone.site.app("app", "UPDATE note SET text = 'newer' WHERE id = 1; DELETE FROM note WHERE id = 2");
    alone.tick(40);
    let older = Connection::open(&backup).unwrap();
    let mut open = Connection::open(alone.site.path("app")).unwrap();
    let copy = rusqlite::backup::Backup::new(&older, &mut open).unwrap();
    copy.run_to_completion(1_000, std::time::Duration::ZERO, None).unwrap();
    drop(copy);
    drop(open);
    assert_eq!(alone.ask("SELECT count(*) FROM note WHERE id = 2"), ["1"], "the test needs an older file");
    alone.tick(60);
    assert_eq!(alone.ask("SELECT text FROM note WHERE id < 4"), ["newer", "a longer text for note 3"]);
    let told = alone.node.alerts.join("\n");
    assert!(told.contains("1 row had other values") && told.contains("1 that had been deleted"), "{told}");
    assert_eq!(alone.run(Tier::Full, false).drift, 0, "{:?}", alone.drift());
}
