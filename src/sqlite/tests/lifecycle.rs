//! Opening, enrolling, fencing, clearing, ejecting.

use super::*;
use crate::model::{Cut, OriginId};

fn open(path: PathBuf) -> Result<AppFile, SqliteError> {
    AppFile::open(FileSettings { name: "app".into(), path, ..FileSettings::default() })
}

#[test]
fn opening_refuses_what_cannot_be_replicated_and_changes_nothing() {
    let place = Place::new("CREATE TABLE t(id INTEGER PRIMARY KEY);");
    let directory = place.directory.path();
    assert!(matches!(open(directory.join("none.db")), Err(SqliteError::Missing { .. })));
    assert!(matches!(open(directory.to_owned()), Err(SqliteError::NotADatabase { .. })));
    let text = directory.join("text.db");
    std::fs::write(&text, "this is not a database, but it is long enough to be looked at".repeat(40)).unwrap();
    assert!(matches!(open(text), Err(SqliteError::NotADatabase { .. })));
    let before = std::fs::read(place.path()).unwrap();
    let file = open(place.path()).unwrap();
    file.preflight().unwrap();
    assert!(!file.is_enrolled().unwrap());
    assert!(matches!(file.meta(), Err(SqliteError::NotEnrolled)));
    drop(file);
    assert_eq!(std::fs::read(place.path()).unwrap(), before);
    let mut permissions = std::fs::metadata(place.path()).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(place.path(), permissions).unwrap();
    assert!(matches!(open(place.path()), Err(SqliteError::ReadOnly { .. })));
}

#[test]
fn enrolling_is_idempotent_and_survives_a_restart() {
    let place = Place::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (1, 'old');");
    let mut file = open(place.path()).unwrap();
    let first = file.enroll().unwrap();
    assert_eq!(first.new, ["t"]);
    assert_eq!(file.tables_to_scan(), ["t"]);
    let meta = file.meta().unwrap();
    assert_ne!(meta.file_id, [0; 16]);
    assert_eq!((meta.epoch, meta.applied.clone()), (0, Cut::default()));
    // Not acknowledged: told again.
    assert_eq!(file.enroll().unwrap().new, ["t"]);
    file.schema_seen().unwrap();
    drop(file);
    run(Writer::Python, &place.path(), &["INSERT INTO t(a) VALUES ('while the node was down')"]);
    let mut file = open(place.path()).unwrap();
    let again = file.enroll().unwrap();
    assert!(again.new.is_empty() && again.altered.is_empty() && again.unguarded.is_empty(), "{again:?}");
    assert_eq!(file.tables_to_scan(), ["t"], "the scan is still due");
    file.table_scanned("t").unwrap();
    assert_eq!(file.meta().unwrap(), meta);
    assert_eq!(show_marks(&file.drain().unwrap()), ["I t 2"]);
    assert_eq!(run(Writer::Python, &place.path(), &["PRAGMA journal_mode"]), ["['wal'] 0 0"]);
    drop(file);
    assert!(open(place.path()).unwrap().is_enrolled().unwrap());
}

#[test]
fn fences_and_applies_raise_the_epoch_and_keep_the_cut() {
    let place = Place::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a);");
    let mut file = place.enrolled();
    assert_eq!(file.fence().unwrap(), 1);
    assert_eq!(file.fence().unwrap(), 2);
    let mut cut = Cut::default();
    cut.dots.insert(OriginId([7; 16]), 900);
    cut.dots.insert(OriginId([9; 16]), u64::MAX);
    assert_eq!(file.begin_apply().unwrap().commit(&cut).unwrap(), 3);
    let drain = file.drain().unwrap();
    assert_eq!((drain.meta.epoch, &drain.meta.applied), (3, &cut));
    assert_eq!((drain.marks.len(), drain.through_seq), (0, 0));
    file.clear_marks(drain.through_seq).unwrap();
}

#[test]
fn only_drained_marks_are_cleared() {
    let place = Place::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a);");
    let mut file = place.enrolled();
    run(Writer::Bundled, &place.path(), &["INSERT INTO t VALUES (1, 1)"]);
    let drain = file.drain().unwrap();
    run(Writer::Bundled, &place.path(), &["INSERT INTO t VALUES (2, 2)"]);
    file.clear_marks(drain.through_seq).unwrap();
    assert_eq!(show_marks(&file.drain().unwrap()), ["I t 2"]);
}

/// Marks that are cleared later than they were drained.
#[test]
fn a_drain_is_cleared_later_and_only_while_the_outbox_is_the_same() {
    let place = Place::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a);");
    let mut file = place.enrolled();
    run(Writer::Bundled, &place.path(), &["INSERT INTO t VALUES (1, 1)"]);
    file.drain().unwrap();
    let first = file.last_drain().unwrap();
    run(Writer::Bundled, &place.path(), &["INSERT INTO t VALUES (2, 2)"]);
    let both = file.drain().unwrap().through_seq;
    file.clear_drained(first).unwrap();
    assert_eq!(show_marks(&file.drain().unwrap()), ["I t 2"], "what was not in it stays");
    file.clear_marks(both).unwrap();
    // Other marks under the same numbers.
    run(Writer::Bundled, &place.path(), &["INSERT INTO t VALUES (3, 3)"]);
    file.clear_drained(first).unwrap();
    assert_eq!(show_marks(&file.drain().unwrap()), ["I t 3"]);
}

/// A backup put back under a running node holds other marks under the same numbers.
#[test]
fn marks_of_a_file_that_went_back_are_not_cleared_unseen() {
    let place = Place::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a);");
    let mut file = place.enrolled();
    let backup = place.directory.path().join("backup.db");
    place.app().execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
    run(Writer::Bundled, &place.path(), &["INSERT INTO t VALUES (1, 1)"]);
    let drain = file.drain().unwrap();
    let restore = "
import sqlite3, sys
a, b = sqlite3.connect(sys.argv[2]), sqlite3.connect(sys.argv[1])
a.backup(b)
b.execute('INSERT INTO t VALUES (5, 5)')
b.commit()
";
    python(&place.path(), restore, &[backup.to_str().unwrap()]);
    assert!(matches!(file.clear_marks(drain.through_seq), Err(SqliteError::WentBack)));
    match file.drain() {
        Ok(drain) => assert_eq!(show_marks(&drain), ["I t 5"]),
        Err(error) => {
            assert!(matches!(error, SqliteError::SchemaChanged), "{error}");
            file.refresh_schema().unwrap();
            assert_eq!(show_marks(&file.drain().unwrap()), ["I t 5"]);
        }
    }
}

#[test]
fn a_replaced_file_is_noticed() {
    let place = Place::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a);");
    let file = place.enrolled();
    assert!(!file.is_replaced());
    let other = place.directory.path().join("other.db");
    std::fs::copy(place.path(), &other).unwrap();
    std::fs::rename(&other, place.path()).unwrap();
    assert!(file.is_replaced());
    std::fs::remove_file(place.path()).unwrap();
    assert!(file.is_replaced());
}

#[test]
fn data_version_tells_the_commits_of_others_only() {
    let place = Place::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a);");
    let mut file = place.enrolled();
    let before = file.data_version().unwrap();
    file.fence().unwrap();
    assert_eq!(file.data_version().unwrap(), before);
    run(Writer::Python, &place.path(), &["INSERT INTO t VALUES (1, 1)"]);
    assert_ne!(file.data_version().unwrap(), before);
    let (pages, moved) = file.checkpoint().unwrap();
    assert_eq!(pages, moved);
}

#[test]
fn a_writer_makes_us_busy_at_once_and_nothing_is_half_done() {
    let place = Place::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a);");
    let mut file = place.enrolled();
    let app = place.app();
    app.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1, 1)").unwrap();
    assert!(file.fence().unwrap_err().is_retryable());
    assert!(matches!(file.begin_apply().err(), Some(SqliteError::Busy)));
    assert!(file.clear_marks(9).unwrap_err().is_retryable());
    assert!(!file.has_marks().unwrap(), "reading goes on");
    app.execute_batch("COMMIT").unwrap();
    assert_eq!(file.fence().unwrap(), 1);
    assert_eq!(show_marks(&file.drain().unwrap()), ["I t 1"]);
}

#[test]
fn ejecting_leaves_no_trace() {
    for mode in ["delete", "wal"] {
        let setup = format!(
            "PRAGMA journal_mode = {mode}; CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a, b);
             CREATE INDEX i ON t(a); CREATE TRIGGER own AFTER INSERT ON t BEGIN SELECT 1; END; INSERT INTO t(a) VALUES (1);"
        );
        let place = Place::new(&setup);
        let everything =
            "SELECT group_concat(type || name || tbl_name || coalesce(sql, ''), char(10)) FROM sqlite_master";
        let read = || place.app().query_row(everything, [], |row| row.get::<_, String>(0)).unwrap();
        let before = read();
        let mut file = place.enrolled();
        run(Writer::Python, &place.path(), &["INSERT INTO t(a) VALUES (2)", "ANALYZE"]);
        let report = file.eject().unwrap();
        assert_eq!(report.marks_dropped, 1);
        assert_eq!(report.tables.len(), 5);
        assert_eq!(report.triggers, 5);
        assert!(report.journal_restored, "{report:?}");
        assert_eq!(report.journal_mode, mode);
        assert!(matches!(file.drain(), Err(SqliteError::NotEnrolled)));
        assert!(matches!(file.fence(), Err(SqliteError::NotEnrolled)));
        let after = read();
        assert_eq!(after.lines().filter(|line| !line.contains("sqlite_stat")).collect::<Vec<_>>().join("\n"), before);
        for table in ["sqlite_sequence WHERE name", "sqlite_stat1 WHERE tbl"] {
            let sql = format!("SELECT count(*) FROM {table} GLOB '_litemesh*'");
            assert_eq!(place.app().query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
        }
        assert_eq!(file.eject().unwrap().triggers, 0);
        file.enroll().unwrap();
    }
}

#[test]
fn ejecting_beside_a_running_app_says_that_the_journal_mode_stays() {
    let place = Place::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a);");
    let mut file = place.enrolled();
    let app = place.app();
    app.execute_batch("BEGIN; SELECT * FROM t").unwrap();
    app.query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap();
    app.execute_batch("COMMIT").unwrap();
    let report = file.eject().unwrap();
    assert_eq!((report.journal_restored, report.journal_mode.as_str()), (false, "wal"));
    app.execute_batch("INSERT INTO t VALUES (1, 1)").unwrap();
}

#[test]
fn everything_works_in_rollback_journal_mode_too() {
    let place = Place::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a);");
    let mut file = place.enrolled();
    drop(file);
    assert_eq!(run(Writer::Bundled, &place.path(), &["PRAGMA journal_mode = DELETE"]), ["['delete'] 0 0"]);
    file = open(place.path()).unwrap();
    file.refresh_schema().unwrap();
    run(Writer::Python, &place.path(), &["INSERT INTO t VALUES (1, 'x')"]);
    let drain = file.drain().unwrap();
    assert_eq!(show_images(&drain), ["t 1: 1,'x'"]);
    file.fence().unwrap();
    file.clear_marks(drain.through_seq).unwrap();
    let mut apply = file.begin_apply().unwrap();
    let write =
        RowWrite { table: "t".into(), old_key: None, new: Some((vec![int(9)], vec![int(9), Value::text("y")])) };
    assert_eq!(apply.write(&[write]).unwrap(), []);
    // A reader in rollback-journal mode stops the commit: all is undone, and it can be tried again.
    let app = place.app();
    let mut statement = app.prepare("SELECT * FROM t").unwrap();
    let mut rows = statement.query([]).unwrap();
    rows.next().unwrap();
    assert!(matches!(apply.commit(&Cut::default()), Err(SqliteError::Busy)));
    drop(rows);
    assert_eq!(file.count_rows("t").unwrap(), 1);
    file.begin_apply().unwrap().commit(&Cut::default()).unwrap();
}

/// What the node depends on for safety: `INSERT OR IGNORE` must not be able to swallow a mark.
#[test]
fn the_outbox_has_no_constraint_of_any_kind() {
    let place = Place::new("CREATE TABLE t(a, b, c, PRIMARY KEY (a, b, c)) WITHOUT ROWID;");
    let _file = place.enrolled();
    let app = place.app();
    let sql: String =
        app.query_row("SELECT sql FROM sqlite_master WHERE name = '_litemesh_outbox'", [], |row| row.get(0)).unwrap();
    for word in ["UNIQUE", "NOT NULL", "CHECK", "REFERENCES", "TEXT", "BLOB", "AUTOINCREMENT"] {
        assert!(!sql.to_uppercase().contains(word), "{sql}");
    }
    let columns: Vec<String> = app
        .prepare("SELECT name FROM pragma_table_info('_litemesh_outbox')")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(columns, ["seq", "rid", "mark", "at", "k0", "o0", "k1", "o1", "k2", "o2"]);
}
