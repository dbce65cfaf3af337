//! Writing what others wrote.

use super::*;
use crate::model::Cut;

fn write(table: &str, old: Option<Key>, new: Option<(Key, Image)>) -> RowWrite {
    RowWrite { table: table.into(), old_key: old, new }
}

/// A row of `t(id, …)` that stays under its id.
fn put(id: i64, old: bool, rest: &[Value]) -> RowWrite {
    let mut image = vec![int(id)];
    image.extend_from_slice(rest);
    write("t", old.then(|| vec![int(id)]), Some((vec![int(id)], image)))
}

fn text(value: &str) -> Value {
    Value::text(value)
}

/// Applies and commits; returns what was refused, as (index, message).
fn apply(file: &mut AppFile, writes: &[RowWrite]) -> Vec<(usize, String)> {
    let mut apply = file.begin_apply().unwrap();
    let refused = apply.write(writes).unwrap();
    apply.commit(&Cut::default()).unwrap();
    refused.into_iter().map(|refused| (refused.index, refused.message)).collect()
}

fn rows(place: &Place, sql: &str) -> Vec<String> {
    run(Writer::Python, &place.path(), &[sql])[0].split(']').next().unwrap()[1..]
        .split(", ")
        .map(|row| row.trim_matches('\'').to_owned())
        .filter(|row| !row.is_empty())
        .collect()
}

#[test]
fn inserts_updates_and_deletes_without_an_echo() {
    let place = Place::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, g AS (a || '!') STORED);
         CREATE TABLE log(id INTEGER PRIMARY KEY, w);
         CREATE TRIGGER own AFTER INSERT ON t BEGIN INSERT INTO log(w) VALUES (NEW.a); END;
         INSERT INTO t VALUES (1, 'x'), (2, 'y'), (3, 'z'); DELETE FROM log;",
    );
    let mut file = place.enrolled();
    let writes = [
        put(1, true, &[text("changed")]),
        write("t", Some(vec![int(2)]), None),
        put(4, false, &[text("new")]),
        write("t", Some(vec![int(3)]), Some((vec![int(30)], vec![int(30), text("moved")]))),
    ];
    assert_eq!(apply(&mut file, &writes), []);
    assert_eq!(rows(&place, "SELECT * FROM t"), ["1|changed|changed!", "4|new|new!", "30|moved|moved!"]);
    assert_eq!(
        rows(&place, "SELECT * FROM log"),
        Vec::<String>::new(),
        "the app's triggers ran where the row was written"
    );
    assert!(!file.has_marks().unwrap());
    // Done a second time after a crash: the same.
    assert_eq!(apply(&mut file, &writes), []);
    assert_eq!(rows(&place, "SELECT * FROM t"), ["1|changed|changed!", "4|new|new!", "30|moved|moved!"]);
}

/// A table that is all key has nothing to update: a row of it that came again from peers, after the data directory had been
/// put back from a backup, was taken for refused, and stood on the shelf while the file showed it.
#[test]
fn a_row_that_is_all_key_and_there_already_is_not_refused() {
    let place = Place::new("CREATE TABLE t(a INTEGER, b INTEGER, PRIMARY KEY (a, b)); INSERT INTO t VALUES (1, 2);");
    let mut file = place.enrolled();
    let row = vec![int(1), int(2)];
    assert_eq!(apply(&mut file, &[write("t", None, Some((row.clone(), row)))]), []);
    assert_eq!(rows(&place, "SELECT * FROM t"), ["1|2"]);
}

#[test]
fn swapped_ids_and_swapped_unique_values_pass() {
    let place = Place::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT UNIQUE, v); INSERT INTO t VALUES (1,'a',1),(2,'b',2),(3,'c',3);",
    );
    let mut file = place.enrolled();
    let writes = [
        write("t", Some(vec![int(1)]), Some((vec![int(2)], vec![int(2), text("a"), int(1)]))),
        write("t", Some(vec![int(2)]), Some((vec![int(1)], vec![int(1), text("b"), int(2)]))),
    ];
    assert_eq!(apply(&mut file, &writes), []);
    assert_eq!(rows(&place, "SELECT * FROM t"), ["1|b|2", "2|a|1", "3|c|3"]);
    let writes =
        [put(1, true, &[text("a"), int(2)]), put(2, true, &[text("c"), int(1)]), put(3, true, &[text("b"), int(3)])];
    assert_eq!(apply(&mut file, &writes), []);
    assert_eq!(rows(&place, "SELECT * FROM t"), ["1|a|2", "2|c|1", "3|b|3"]);
    let writes = [write("t", Some(vec![int(1)]), None), put(9, false, &[text("a"), Value::Null])];
    assert_eq!(apply(&mut file, &writes), []);
    assert_eq!(rows(&place, "SELECT id, u FROM t ORDER BY id"), ["2|c", "3|b", "9|a"]);
}

#[test]
fn a_refused_row_is_not_there_and_the_rest_goes_on() {
    let place = Place::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER NOT NULL CHECK (n < 10), u UNIQUE);
         INSERT INTO t VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c');",
    );
    let mut file = place.enrolled();
    let writes = [
        put(1, true, &[int(99), text("a")]),
        put(5, false, &[int(5), text("b")]),
        put(6, false, &[Value::Null, text("f")]),
        put(7, false, &[int(7), text("g")]),
        put(8, false, &[text("seven"), text("h")]),
        write("t", Some(vec![int(3)]), Some((vec![text("x")], vec![text("x"), int(3), text("c")]))),
    ];
    let refused = apply(&mut file, &writes);
    let indexes: Vec<usize> = refused.iter().map(|(index, _)| *index).collect();
    assert_eq!(indexes, [0, 1, 2, 4, 5], "{refused:?}");
    assert!(refused[0].1.contains("CHECK"), "{refused:?}");
    assert!(refused[1].1.contains("UNIQUE"), "{refused:?}");
    assert!(refused[2].1.contains("NOT NULL"), "{refused:?}");
    assert_eq!(rows(&place, "SELECT * FROM t"), ["2|2|b", "7|7|g"]);
}

/// A column with another affinity here would silently change the value.
#[test]
fn a_value_that_this_schema_would_change_is_refused() {
    let place = Place::new("CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER, s TEXT);");
    let mut file = place.enrolled();
    let refused = apply(
        &mut file,
        &[
            put(1, false, &[text("7"), text("x")]),
            put(2, false, &[int(7), int(7)]),
            put(3, false, &[Value::real(1.0), text("x")]),
            put(4, false, &[Value::real(1.5), text("x")]),
            put(5, false, &[Value::real(f64::NAN), text("x")]),
        ],
    );
    assert_eq!(refused.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1, 2], "{refused:?}");
    assert_eq!(rows(&place, "SELECT * FROM t"), ["4|1.5|x", "5|None|x"]);
}

#[test]
fn declared_conflict_clauses_never_evict_a_row() {
    let place = Place::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY ON CONFLICT REPLACE, u UNIQUE ON CONFLICT REPLACE,
            i UNIQUE ON CONFLICT IGNORE, r UNIQUE ON CONFLICT ROLLBACK);
         INSERT INTO t VALUES (1, 'u', 'i', 'r');",
    );
    let mut file = place.enrolled();
    let refused = apply(
        &mut file,
        &[
            put(2, false, &[text("u"), text("i2"), text("r2")]),
            put(3, false, &[text("u3"), text("i"), text("r3")]),
            put(4, false, &[text("u4"), text("i4"), text("r")]),
            put(5, false, &[text("u5"), text("i5"), text("r5")]),
        ],
    );
    assert_eq!(refused.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1, 2], "{refused:?}");
    assert_eq!(rows(&place, "SELECT id FROM t"), ["1", "5"]);
}

#[test]
fn every_kind_of_key_is_written_and_found() {
    let place = Place::new(
        "CREATE TABLE pair(a TEXT, b INTEGER, c, PRIMARY KEY (b, a)) WITHOUT ROWID;
         CREATE TABLE bare(a, b); CREATE TABLE only(x, y, PRIMARY KEY (x, y));
         CREATE TABLE nocase(k TEXT COLLATE NOCASE PRIMARY KEY, v); INSERT INTO nocase VALUES ('a', 1);",
    );
    let mut file = place.enrolled();
    let pair = |old: Option<i64>, b: i64, c: i64| {
        let key = |b: i64| vec![int(b), text("k")];
        write("pair", old.map(key), Some((key(b), vec![text("k"), int(b), int(c)])))
    };
    let bare = |id: i64, old: bool, b: i64| {
        write("bare", old.then(|| vec![int(id)]), Some((vec![int(id)], vec![int(1), int(b)])))
    };
    let only = |old: bool| {
        let key = vec![int(1), Value::real(1.0)];
        write("only", old.then(|| key.clone()), Some((key.clone(), key)))
    };
    assert_eq!(apply(&mut file, &[pair(None, 1, 5), bare(70, false, 1), bare(71, false, 1), only(false)]), []);
    assert_eq!(apply(&mut file, &[pair(Some(1), 2, 6), bare(70, true, 2), only(true)]), []);
    assert_eq!(rows(&place, "SELECT * FROM pair"), ["k|2|6"]);
    assert_eq!(rows(&place, "SELECT rowid, * FROM bare"), ["70|1|2", "71|1|1"]);
    assert_eq!(rows(&place, "SELECT *, typeof(y) FROM only"), ["1|1.0|real"]);
    // The same place under another spelling is held by another row: that one stays.
    let other = write("nocase", None, Some((vec![text("A")], vec![text("A"), int(2)])));
    assert_eq!(apply(&mut file, std::slice::from_ref(&other)).len(), 1);
    assert_eq!(rows(&place, "SELECT * FROM nocase"), ["a|1"]);
    assert_eq!(apply(&mut file, &[write("nocase", Some(vec![text("A")]), None)]), []);
    assert_eq!(rows(&place, "SELECT * FROM nocase"), ["a|1"], "a key is deleted only where it is exactly that key");
    assert_eq!(apply(&mut file, &[write("nocase", Some(vec![text("a")]), None), other]), []);
    assert_eq!(rows(&place, "SELECT * FROM nocase"), ["A|2"]);
    assert_eq!(file.read_rows("nocase", &[vec![text("a")], vec![text("A")]]).unwrap()[0], None);
}

#[test]
fn what_only_the_app_can_evaluate_is_refused_row_by_row() {
    let place = Place::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TABLE u(id INTEGER PRIMARY KEY, a);");
    let app = "
import sqlite3, sys
c = sqlite3.connect(sys.argv[1])
c.create_function('mine', 1, lambda x: 1, deterministic=True)
c.execute('CREATE INDEX i ON t(mine(a))')
";
    python(&place.path(), app, &[]);
    let mut file = place.enrolled();
    let refused =
        apply(&mut file, &[put(1, false, &[int(1)]), write("u", None, Some((vec![int(1)], vec![int(1), int(1)])))]);
    assert_eq!(refused.len(), 1);
    assert!(refused[0].1.contains("mine"), "{refused:?}");
    assert_eq!(rows(&place, "SELECT * FROM u"), ["1|1"]);
}

#[test]
fn a_dropped_apply_leaves_nothing_and_a_drain_inside_sees_all() {
    let place = Place::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a);");
    let mut file = place.enrolled();
    run(Writer::Python, &place.path(), &["INSERT INTO t VALUES (1, 'x')"]);
    let mut open = file.begin_apply().unwrap();
    assert!(open.has_marks().unwrap());
    let drain = open.drain().unwrap();
    assert_eq!(show_images(&drain), ["t 1: 1,'x'"]);
    open.clear_marks(drain.through_seq).unwrap();
    assert_eq!(open.write(&[put(2, false, &[text("y")])]).unwrap(), []);
    assert_eq!(open.file().count_rows("t").unwrap(), 2);
    drop(open);
    assert_eq!((file.count_rows("t").unwrap(), file.outbox_len().unwrap()), (1, 1));
    assert!(matches!(
        file.begin_apply().unwrap().write(&[write("nope", None, None)]),
        Err(SqliteError::UnknownTable(_))
    ));
    run(Writer::Python, &place.path(), &["ALTER TABLE t ADD COLUMN b"]);
    assert!(matches!(file.begin_apply().err(), Some(SqliteError::SchemaChanged)));
    file.refresh_schema().unwrap();
    file.begin_apply().unwrap();
}

const SEARCHED: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT); CREATE TABLE u(id INTEGER PRIMARY KEY);
    CREATE VIRTUAL TABLE f USING fts5(a, content='t', content_rowid='id');
    CREATE TRIGGER ti AFTER INSERT ON t BEGIN INSERT INTO f(rowid, a) VALUES (NEW.id, NEW.a); END;
    CREATE TRIGGER td AFTER DELETE ON t BEGIN INSERT INTO f(f, rowid, a) VALUES ('delete', OLD.id, OLD.a); END;";

#[test]
fn a_small_full_text_index_is_right_with_the_rows() {
    let place = Place::new(SEARCHED);
    let mut file = place.enrolled();
    apply(&mut file, &[put(1, false, &[text("hello world")])]);
    assert!(!file.search_is_stale().unwrap());
    assert_eq!(rows(&place, "SELECT rowid FROM f WHERE f MATCH 'world'"), ["1"]);
    // FTS5 refuses to forget what it does not know.
    run(Writer::Python, &place.path(), &["DELETE FROM t"]);
    assert_eq!(rows(&place, "SELECT rowid FROM f WHERE f MATCH 'world'"), Vec::<String>::new());
}

#[test]
fn a_large_full_text_index_is_rebuilt_after_remote_writes() {
    let place = Place::new(SEARCHED);
    let many = "INSERT INTO t(a) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) \
                SELECT 'filler' FROM n";
    run(Writer::Python, &place.path(), &[many]);
    let mut file = place.enrolled();
    apply(&mut file, &[write("u", None, Some((vec![int(1)], vec![int(1)])))]);
    assert!(!file.search_is_stale().unwrap());
    apply(&mut file, &[put(9_000, false, &[text("hello world")])]);
    assert!(file.search_is_stale().unwrap());
    drop(file);
    let mut file = place.enrolled();
    assert_eq!(file.rebuild_search().unwrap(), ["f"]);
    assert!(!file.search_is_stale().unwrap());
    assert_eq!(rows(&place, "SELECT rowid FROM f WHERE f MATCH 'world'"), ["9000"]);
}

#[test]
fn a_rebuilt_file_is_the_same() {
    let place = Place::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a, g AS (a) STORED); CREATE INDEX i ON t(a);
         CREATE TABLE bare(a); CREATE TABLE pair(a, b, PRIMARY KEY (a, b)) WITHOUT ROWID; CREATE TABLE local_x(a);
         INSERT INTO t(a) VALUES ('x'), (1.5), (x'00'); INSERT INTO bare VALUES (1), (1); INSERT INTO pair VALUES (1, 2);",
    );
    let mut settings = place.settings();
    settings.exclude = vec!["local_*".into()];
    let mut file = AppFile::open(settings.clone()).unwrap();
    file.enroll().unwrap();
    let out = place.directory.path().join("new.db");
    let mut new = NewFile::create(&out, &file.schema_sql().unwrap(), &settings).unwrap();
    let tables: Vec<String> = file.schema().tables.iter().map(|table| table.name.clone()).collect();
    for table in &tables {
        let page = file.scan_page(table, None, 100).unwrap();
        let count = new.insert(table, page.iter().map(|(key, image)| (key, image))).unwrap();
        assert_eq!(count, file.count_rows(table).unwrap());
    }
    assert_eq!(new.schema().fingerprint, file.schema().fingerprint);
    new.finish().unwrap();
    assert!(matches!(NewFile::create(&out, &[], &settings), Err(SqliteError::Exists { .. })));
    let again = AppFile::open(FileSettings { path: out, ..settings }).unwrap();
    for table in &tables {
        assert_eq!(again.scan_page(table, None, 100).unwrap(), file.scan_page(table, None, 100).unwrap());
    }
    assert!(!again.is_enrolled().unwrap());
}

#[test]
fn rows_without_their_parents_are_named() {
    let place = Place::new(
        "CREATE TABLE p(id INTEGER PRIMARY KEY, a TEXT, b TEXT, UNIQUE (a, b));
         CREATE TABLE t(id INTEGER PRIMARY KEY, p REFERENCES p, a, b, FOREIGN KEY (a, b) REFERENCES p(a, b));
         INSERT INTO p VALUES (1, 'x', 'y');",
    );
    let mut file = place.enrolled();
    let writes = [
        put(1, false, &[int(1), text("x"), text("y")]),
        put(2, false, &[int(2), text("x"), text("z")]),
        put(3, false, &[Value::Null, Value::Null, text("z")]),
    ];
    let mut open = file.begin_apply().unwrap();
    assert_eq!(open.write(&writes).unwrap(), []);
    let missing = open.missing_parents(&writes).unwrap();
    assert_eq!(missing, [(1, "p".to_owned()), (1, "p".to_owned())]);
    open.commit(&Cut::default()).unwrap();
    let dangling = file.dangling("t").unwrap();
    assert_eq!(dangling.len(), 2);
    assert_eq!(dangling[0], Dangling { table: "t".into(), rowid: Some(2), parent: "p".into() });
}
