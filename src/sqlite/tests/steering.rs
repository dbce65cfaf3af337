//! Steering: no app may tell a steered table from a plain one but by the values of the ids, and nodes with different slots
//! never make the same id.

use std::collections::BTreeSet;

use super::*;
use crate::model::Cut;

/// The simplest table there is.
const SIMPLE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT NOT NULL);";

fn steered_settings(place: &Place) -> FileSettings {
    FileSettings { steering_runs: 16, ..place.settings() }
}

/// Lets the node look until it has tried all tables.
fn steer(file: &mut AppFile) {
    while file.steering_pending() {
        assert_eq!(file.refresh_schema().unwrap(), SchemaChange::default());
    }
}

/// litemesh's side, with a slot.
fn steered(place: &Place, slot: u32) -> AppFile {
    let mut file = AppFile::open(steered_settings(place)).unwrap();
    file.set_slot(Some(slot));
    file.enroll().unwrap();
    steer(&mut file);
    file.schema_seen().unwrap();
    for table in file.tables_to_scan() {
        file.table_scanned(&table).unwrap();
    }
    file
}

fn is_own(id: i64, slot: i64) -> bool {
    id / 16 % 16 == slot % 16
}

fn ids(app: &Connection, table: &str) -> Vec<i64> {
    let mut statement = app.prepare(&format!("SELECT id FROM {table} ORDER BY id")).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn insert(app: &Connection) -> i64 {
    app.execute("INSERT INTO t(name) VALUES ('x')", []).unwrap();
    app.last_insert_rowid()
}

/// What became of table `t` of a schema.
fn decision(schema: &str) -> (String, String) {
    let place = Place::new(schema);
    let report = AppFile::open(steered_settings(&place)).unwrap().preflight().unwrap();
    let table = report.tables.into_iter().find(|table| table.table == "t").unwrap();
    (table.ids, table.ids_because)
}

#[test]
fn tables_of_every_kind_are_steered() {
    for schema in [
        SIMPLE,
        "CREATE TABLE t(id INTEGER PRIMARY KEY)",
        "CREATE TABLE t(\"the \"\"id\" INTEGER PRIMARY KEY AUTOINCREMENT, [a b] VARCHAR(9) NOT NULL UNIQUE)",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER NOT NULL, b INTEGER NOT NULL, c TEXT COLLATE NOCASE UNIQUE, UNIQUE(a, b))",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, n INT NOT NULL UNIQUE, r REAL NOT NULL UNIQUE, b BLOB NOT NULL UNIQUE, \
         x ANY NOT NULL UNIQUE) STRICT",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER NOT NULL DEFAULT 3, g AS (a + 1) STORED, h AS (a * 2))",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); CREATE UNIQUE INDEX i ON t(a) WHERE b = 1",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a BOOLEAN NOT NULL CHECK (a IN (0, 1)), b TEXT CHECK (length(b) > 2));
         INSERT INTO t(a, b) VALUES (1, 'abc')",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, up INTEGER REFERENCES t(id), other INTEGER NOT NULL UNIQUE REFERENCES u(id));
         CREATE TABLE u(id INTEGER PRIMARY KEY)",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, d DATETIME NOT NULL UNIQUE);
         CREATE TRIGGER touch AFTER UPDATE ON t BEGIN UPDATE t SET at = 'now' WHERE id = NEW.id; END",
    ] {
        assert_eq!(decision(schema), ("steered".into(), String::new()), "{schema}");
    }
}

#[test]
fn where_ids_stay_plain_the_reason_is_told() {
    for (schema, reason) in [
        ("CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE UNIQUE INDEX i ON t(lower(a))", "over an expression"),
        ("CREATE TABLE t(id INTEGER PRIMARY KEY, a NOT NULL UNIQUE CHECK (a > 0))", "looks at the UNIQUE key (a)"),
        ("CREATE TABLE t(id INTEGER PRIMARY KEY CHECK (id > 0), a)", "looks at the id"),
        ("CREATE TABLE t(id INTEGER PRIMARY KEY, a CHECK (a LIKE '%@%'))", "it holds none"),
        ("CREATE TABLE t(id INTEGER PRIMARY KEY, a, g AS (a || 'x') STORED NOT NULL)", "generated column"),
        ("CREATE TABLE t(id INTEGER PRIMARY KEY, a, g AS (a || 'x') UNIQUE)", "generated column"),
        (
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TRIGGER seen AFTER INSERT ON t BEGIN SELECT 1; END",
            "seen",
        ),
        ("CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TRIGGER gone DELETE ON t BEGIN SELECT 1; END", "gone"),
    ] {
        let (ids, because) = decision(schema);
        assert_eq!(ids, "plain", "{schema}");
        assert!(because.contains(reason), "{schema}: {because}");
    }
    let key = "CREATE TABLE t(k TEXT PRIMARY KEY, v)";
    assert_eq!(decision(key), (String::new(), String::new()));
}

#[test]
fn settings_switch_steering_off() {
    let place = Place::new(SIMPLE);
    for (settings, slot) in [
        (FileSettings { steering_runs: 0, ..place.settings() }, Some(1)),
        (FileSettings { steering_runs: 16, unsteered: vec!["T".into()], ..place.settings() }, Some(1)),
        (steered_settings(&place), None),
    ] {
        let mut file = AppFile::open(settings).unwrap();
        file.set_slot(slot);
        file.enroll().unwrap();
        file.refresh_schema().unwrap();
        let triggers: i64 = place
            .app()
            .query_row("SELECT count(*) FROM sqlite_master WHERE name GLOB '_litemesh_*_steer*'", [], |row| row.get(0))
            .unwrap();
        assert_eq!(triggers, 0);
    }
}

#[test]
fn new_ids_are_the_nodes_own_whatever_else_is_there() {
    for schema in [SIMPLE.to_owned(), SIMPLE.replace("PRIMARY KEY", "PRIMARY KEY AUTOINCREMENT")] {
        let place = Place::new(&schema);
        let mut file = steered(&place, 3);
        let app = place.app();
        assert_eq!(insert(&app), 48, "the first run of slot 3");
        for _ in 0..40 {
            assert!(is_own(insert(&app), 3));
        }
        // Rows of other nodes arrive.
        for foreign in [5_000, 70_000, 70_001] {
            let mut apply = file.begin_apply().unwrap();
            let drain = apply.drain().unwrap();
            apply.clear_marks(drain.through_seq).unwrap();
            let row = (key([int(foreign)]), vec![int(foreign), Value::text("far")]);
            let writes = [RowWrite { table: "t".into(), old_key: None, new: Some(row) }];
            assert_eq!(apply.write(&writes).unwrap(), []);
            apply.commit(&Cut::default()).unwrap();
            let id = insert(&app);
            assert!(id > foreign && is_own(id, 3), "{id}");
        }
        for explicit in [-7, 90_000, 1_000_000] {
            app.execute("INSERT INTO t(id, name) VALUES (?1, 'explicit')", [explicit]).unwrap();
            assert_eq!(app.last_insert_rowid(), explicit);
            assert!(is_own(insert(&app), 3));
        }
        // -1 is what a new id reads as in a trigger.
        app.execute("INSERT INTO t(id, name) VALUES (-1, 'odd')", []).unwrap();
        assert_eq!(app.execute("INSERT OR IGNORE INTO t(id, name) VALUES (-1, 'odd')", []).unwrap(), 0);
        let drain = file.drain().unwrap();
        let rows: BTreeSet<i64> = ids(&app, "t").into_iter().collect();
        for mark in &drain.marks {
            assert!(rows.contains(&mark.key[0].as_integer().unwrap()), "{mark:?}");
        }
        assert!(drain.images.values().all(Option::is_some));
    }
}

#[test]
fn ids_near_the_end_of_the_numbers_and_below_zero_stay_sqlites() {
    let place = Place::new(SIMPLE);
    let _file = steered(&place, 1);
    let app = place.app();
    app.execute("INSERT INTO t(id, name) VALUES (-5, 'below')", []).unwrap();
    assert_eq!(insert(&app), 16);
    let huge = (1_i64 << 62) + 7;
    app.execute("INSERT INTO t(id, name) VALUES (?1, 'huge')", [huge]).unwrap();
    assert_eq!(insert(&app), huge + 1);
    app.execute("INSERT INTO t(id, name) VALUES (?1, 'last')", [i64::MAX]).unwrap();
    assert!(insert(&app) > 0, "SQLite draws a number");
    assert_eq!(ids(&app, "t").len(), 6);
}

/// In a BEFORE trigger -1 means "to be chosen": an app that says -1 itself saw the placeholder from then on, as a row of its
/// own, and lost what it wrote there.
#[test]
fn an_id_of_minus_one_that_the_app_gives_leaves_no_placeholder() {
    for key in ["INTEGER PRIMARY KEY", "INTEGER PRIMARY KEY AUTOINCREMENT"] {
        let place = Place::new(&format!("CREATE TABLE t(id {key}, name TEXT NOT NULL)"));
        let mut file = steered(&place, 3);
        let app = place.app();
        app.execute("INSERT INTO t(id, name) VALUES (-1, 'mine')", []).unwrap();
        assert_eq!(ids(&app, "t"), [-1], "{key}");
        assert_eq!(file.drain().unwrap().marks.len(), 1, "{key}");
        app.execute("DELETE FROM t", []).unwrap();
        assert!(is_own(insert(&app), 3), "{key}");
    }
}

#[test]
fn two_nodes_that_write_apart_make_no_equal_id() {
    let made: Vec<BTreeSet<i64>> = [1, 2]
        .map(|slot| {
            let place = Place::new(SIMPLE);
            let _file = steered(&place, slot);
            let app = place.app();
            let mut made = BTreeSet::new();
            app.execute_batch("BEGIN").unwrap();
            for number in 0..10_000 {
                assert!(made.insert(insert(&app)), "an id was used twice");
                if number % 7 == 0 {
                    app.execute_batch("DELETE FROM t WHERE id = (SELECT max(id) FROM t)").unwrap();
                }
                if number % 1_000 == 999 {
                    app.execute_batch("DELETE FROM t").unwrap();
                }
            }
            app.execute_batch("COMMIT").unwrap();
            made
        })
        .into();
    assert_eq!(made[0].len() + made[1].len(), 20_000);
    assert_eq!(made[0].intersection(&made[1]).count(), 0);
}

#[test]
fn another_slot_and_no_slot_put_the_triggers_right() {
    let place = Place::new(SIMPLE);
    let mut file = steered(&place, 1);
    let app = place.app();
    assert_eq!(insert(&app), 16);
    assert!(file.set_slot(Some(4)) && !file.set_slot(Some(4)));
    steer(&mut file);
    assert_eq!(insert(&app), 64);
    file.set_slot(None);
    steer(&mut file);
    for _ in 0..30 {
        insert(&app);
    }
    assert_eq!(ids(&app, "t").last(), Some(&94));
    file.set_slot(Some(1));
    steer(&mut file);
    assert_eq!(insert(&app), 272);
    file.eject().unwrap();
    let left: i64 =
        app.query_row("SELECT count(*) FROM sqlite_master WHERE name GLOB '_litemesh*'", [], |row| row.get(0)).unwrap();
    assert_eq!((left, insert(&app)), (0, 273));
}

/// The app adds what a placeholder could be in the way of, while no node runs.
#[test]
fn in_a_schema_that_was_not_tried_the_triggers_do_nothing() {
    let place = Place::new(SIMPLE);
    drop(steered(&place, 1));
    let app = place.app();
    app.execute_batch(
        "CREATE TABLE seen(name); CREATE TRIGGER see AFTER INSERT ON t BEGIN INSERT INTO seen VALUES (NEW.name); END;
         CREATE UNIQUE INDEX one ON t(name)",
    )
    .unwrap();
    for number in 1..=40 {
        app.execute("INSERT INTO t(name) VALUES (?1)", [format!("n{number}")]).unwrap();
        assert_eq!(app.last_insert_rowid(), number);
    }
    assert_eq!(app.query_row("SELECT count(*) FROM seen", [], |row| row.get::<_, i64>(0)).unwrap(), 40);
    app.execute_batch("DROP TRIGGER see").unwrap();
    let mut file = steered(&place, 1);
    app.execute_batch("INSERT INTO t(name) VALUES ('after')").unwrap();
    assert_eq!(app.last_insert_rowid(), 272);
    app.execute_batch("VACUUM").unwrap();
    file.refresh_schema().unwrap();
    steer(&mut file);
    app.execute_batch("INSERT INTO t(id, name) VALUES (300, 'far'); INSERT INTO t(name) VALUES ('after VACUUM')")
        .unwrap();
    assert_eq!(app.last_insert_rowid(), 528);
}

#[test]
fn a_leftover_is_not_seen_and_goes() {
    let place = Place::new(SIMPLE);
    let mut file = steered(&place, 1);
    let app = place.app();
    insert(&app);
    // As a statement would leave it that ended between the two triggers.
    let leave = "INSERT INTO t(id, name) VALUES (99, 'placeholder');
                 INSERT INTO _litemesh_ph SELECT number, 99 FROM _litemesh_tables WHERE name = 't'";
    app.execute_batch(leave).unwrap();
    app.execute_batch("UPDATE t SET name = 'written over'").unwrap();
    let drain = file.drain().unwrap();
    assert_eq!(show_marks(&drain), ["I t 16", "U t 16"]);
    assert_eq!(file.scan_page("t", None, 2).unwrap().len(), 1);
    assert_eq!(file.scan_page("t", None, 1).unwrap().len(), 1);
    file.clear_marks(drain.through_seq).unwrap();
    assert_eq!(ids(&app, "t"), [16], "the node takes it away");
    app.execute_batch(leave).unwrap();
    assert_eq!(insert(&app), 272);
    assert_eq!(ids(&app, "t"), [16, 272], "so does the next insert");
}

/// `NEW.id % 4 IN (0, 3, -1)` made SQLite build a table in memory for every row inserted: half of what steering cost.
#[test]
fn no_trigger_of_an_insert_builds_a_table_in_memory() {
    let unique = "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, a, b, UNIQUE(a, b))";
    for schema in [SIMPLE.to_owned(), SIMPLE.replace("PRIMARY KEY", "PRIMARY KEY AUTOINCREMENT"), unique.to_owned()] {
        let place = Place::new(&schema);
        let _file = steered(&place, 1);
        let app = place.app();
        let mut statement = app.prepare("EXPLAIN INSERT INTO t(name) VALUES ('x')").unwrap();
        let names = statement.query_map([], |row| row.get::<_, String>(1)).unwrap();
        let names: Vec<String> = names.map(Result::unwrap).collect();
        assert!(names.iter().filter(|name| *name == "Program").count() >= 4, "the triggers are part of it: {names:?}");
        assert!(!names.iter().any(|name| name == "OpenEphemeral"), "{schema}");
    }
}
