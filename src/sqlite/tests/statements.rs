//! Every kind of statement an app may use: which marks it leaves, and that the app sees no difference.

use super::*;

struct Case {
    name: &'static str,
    setup: &'static str,
    statements: &'static [&'static str],
    marks: &'static [&'static str],
    images: &'static [&'static str],
}

const PLAIN: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); INSERT INTO t VALUES (1,'x',1),(2,'y',2),(3,'z',3);";
const UNIQUE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT UNIQUE, b);
    INSERT INTO t VALUES (1,'x',1),(2,'y',2),(3,'z',3);";
const FAMILY: &str = "CREATE TABLE p(id INTEGER PRIMARY KEY, n);
    CREATE TABLE c(id INTEGER PRIMARY KEY, p INTEGER REFERENCES p(id) ON DELETE CASCADE);
    CREATE TABLE s(id INTEGER PRIMARY KEY, p INTEGER REFERENCES p(id) ON DELETE SET NULL);
    INSERT INTO p VALUES (1,'one'),(2,'two'); INSERT INTO c VALUES (10,1),(11,1),(12,2); INSERT INTO s VALUES (20,1);";

const CASES: &[Case] = &[
    Case {
        name: "insert",
        setup: PLAIN,
        statements: &["INSERT INTO t(a) VALUES ('n')"],
        marks: &["I t 4"],
        images: &["t 4: 4,'n',NULL"],
    },
    Case {
        name: "multi-row insert",
        setup: PLAIN,
        statements: &["INSERT INTO t(a) VALUES ('n'), ('m')"],
        marks: &["I t 4", "I t 5"],
        images: &["t 4: 4,'n',NULL", "t 5: 5,'m',NULL"],
    },
    Case {
        name: "insert from select",
        setup: PLAIN,
        statements: &["INSERT INTO t(a, b) SELECT a, b FROM t WHERE id > 1"],
        marks: &["I t 4", "I t 5"],
        images: &["t 4: 4,'y',2", "t 5: 5,'z',3"],
    },
    Case {
        name: "update",
        setup: PLAIN,
        statements: &["UPDATE t SET a = 'n' WHERE id = 2"],
        marks: &["U t 2"],
        images: &["t 2: 2,'n',2"],
    },
    Case {
        name: "update of the key",
        setup: PLAIN,
        statements: &["UPDATE t SET id = 9 WHERE id = 2"],
        marks: &["U t 2>9"],
        images: &["t 2: -", "t 9: 9,'y',2"],
    },
    Case {
        name: "update that changes nothing",
        setup: PLAIN,
        statements: &["UPDATE t SET a = a WHERE id = 2"],
        marks: &["U t 2"],
        images: &["t 2: 2,'y',2"],
    },
    Case {
        name: "delete",
        setup: PLAIN,
        statements: &["DELETE FROM t WHERE id = 2"],
        marks: &["D t 2"],
        images: &["t 2: -"],
    },
    Case {
        name: "delete without where",
        setup: PLAIN,
        statements: &["DELETE FROM t"],
        marks: &["D t 1", "D t 2", "D t 3"],
        images: &["t 1: -", "t 2: -", "t 3: -"],
    },
    Case {
        name: "delete, then insert with the same id",
        setup: PLAIN,
        statements: &["DELETE FROM t WHERE id = 2", "INSERT INTO t VALUES (2,'n',0)"],
        marks: &["D t 2", "I t 2"],
        images: &["t 2: 2,'n',0"],
    },
    Case {
        name: "replace by key",
        setup: PLAIN,
        statements: &["INSERT OR REPLACE INTO t VALUES (2,'n',0)"],
        marks: &["H t 2", "I t 2"],
        images: &["t 2: 2,'n',0"],
    },
    Case {
        name: "replace by key where nothing is in the way",
        setup: PLAIN,
        statements: &["REPLACE INTO t VALUES (7,'n',0)"],
        marks: &["I t 7"],
        images: &["t 7: 7,'n',0"],
    },
    Case {
        name: "replace by a UNIQUE column",
        setup: UNIQUE,
        statements: &["INSERT OR REPLACE INTO t(u, b) VALUES ('y', 0)"],
        marks: &["H t 2", "I t 4"],
        images: &["t 2: -", "t 4: 4,'y',0"],
    },
    Case {
        name: "replace that evicts by key and by a UNIQUE column",
        setup: UNIQUE,
        statements: &["INSERT OR REPLACE INTO t VALUES (1, 'y', 0)"],
        marks: &["H t 2", "H t 1", "I t 1"],
        images: &["t 1: 1,'y',0", "t 2: -"],
    },
    Case {
        name: "replace declared by the constraint",
        setup: "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE ON CONFLICT REPLACE); INSERT INTO t VALUES (1,'x'),(2,'y');",
        statements: &["INSERT INTO t(u) VALUES ('x')"],
        marks: &["H t 1", "I t 3"],
        images: &["t 1: -", "t 3: 3,'x'"],
    },
    Case {
        name: "update or replace",
        setup: UNIQUE,
        statements: &["UPDATE OR REPLACE t SET u = 'x' WHERE id = 3"],
        marks: &["H t 1", "U t 3"],
        images: &["t 1: -", "t 3: 3,'x',3"],
    },
    Case {
        name: "update or replace of the key",
        setup: PLAIN,
        statements: &["UPDATE OR REPLACE t SET id = 1 WHERE id = 3"],
        marks: &["H t 1", "U t 3>1"],
        images: &["t 1: 1,'z',3", "t 3: -"],
    },
    Case {
        name: "insert or ignore of a key",
        setup: PLAIN,
        statements: &["INSERT OR IGNORE INTO t VALUES (2,'n',0)"],
        marks: &[],
        images: &[],
    },
    Case {
        name: "insert or ignore of a UNIQUE column",
        setup: UNIQUE,
        statements: &["INSERT OR IGNORE INTO t(u) VALUES ('y')"],
        marks: &["H t 2"],
        images: &["t 2: 2,'y',2"],
    },
    Case {
        name: "insert or ignore, then an update, then delete and insert",
        setup: PLAIN,
        statements: &[
            "INSERT OR IGNORE INTO t VALUES (2,'n',0)",
            "DELETE FROM t WHERE id = 2",
            "INSERT INTO t VALUES (2,'m',0)",
        ],
        marks: &["D t 2", "I t 2"],
        images: &["t 2: 2,'m',0"],
    },
    Case {
        name: "upsert that updates",
        setup: UNIQUE,
        statements: &["INSERT INTO t(u, b) VALUES ('y', 5) ON CONFLICT(u) DO UPDATE SET b = excluded.b"],
        marks: &["H t 2", "U t 2"],
        images: &["t 2: 2,'y',5"],
    },
    Case {
        name: "upsert by key",
        setup: PLAIN,
        statements: &["INSERT INTO t VALUES (2,'n',0) ON CONFLICT(id) DO UPDATE SET a = 'm'"],
        marks: &["U t 2"],
        images: &["t 2: 2,'m',2"],
    },
    Case {
        name: "upsert that does nothing",
        setup: UNIQUE,
        statements: &["INSERT INTO t(u, b) VALUES ('y', 5) ON CONFLICT DO NOTHING"],
        marks: &["H t 2"],
        images: &["t 2: 2,'y',2"],
    },
    Case {
        name: "returning",
        setup: PLAIN,
        statements: &["INSERT INTO t(a) VALUES ('n') RETURNING id, a", "DELETE FROM t WHERE id < 3 RETURNING a"],
        marks: &["I t 4", "D t 1", "D t 2"],
        images: &["t 1: -", "t 2: -", "t 4: 4,'n',NULL"],
    },
    Case {
        name: "cascade and set null",
        setup: FAMILY,
        statements: &["PRAGMA foreign_keys = ON", "DELETE FROM p WHERE id = 1"],
        marks: &["D c 10", "D c 11", "U s 20", "D p 1"],
        images: &["c 10: -", "c 11: -", "p 1: -", "s 20: 20,NULL"],
    },
    Case {
        name: "replace of a parent cascades, and the parent is still replaced",
        setup: FAMILY,
        statements: &["PRAGMA foreign_keys = ON", "REPLACE INTO p VALUES (1,'uno')"],
        marks: &["D c 10", "D c 11", "U s 20", "H p 1", "I p 1"],
        images: &["c 10: -", "c 11: -", "p 1: 1,'uno'", "s 20: 20,NULL"],
    },
    Case {
        name: "rollback",
        setup: UNIQUE,
        statements: &["BEGIN", "REPLACE INTO t(u) VALUES ('x')", "DELETE FROM t", "ROLLBACK"],
        marks: &[],
        images: &[],
    },
    Case {
        name: "savepoint rolled back",
        setup: PLAIN,
        statements: &[
            "BEGIN",
            "UPDATE t SET b = 9 WHERE id = 1",
            "SAVEPOINT s",
            "DELETE FROM t",
            "ROLLBACK TO s",
            "INSERT INTO t(a) VALUES ('n')",
            "COMMIT",
        ],
        marks: &["U t 1", "I t 4"],
        images: &["t 1: 1,'x',9", "t 4: 4,'n',NULL"],
    },
    Case {
        name: "a statement that fails leaves nothing",
        setup: UNIQUE,
        statements: &["INSERT INTO t(u) VALUES ('new'), ('x')", "UPDATE t SET u = 'y'"],
        marks: &[],
        images: &[],
    },
    Case {
        name: "or fail keeps what went before",
        setup: UNIQUE,
        statements: &["INSERT OR FAIL INTO t(u) VALUES ('new'), ('x')"],
        marks: &["I t 4", "H t 1"],
        images: &["t 1: 1,'x',1", "t 4: 4,'new',NULL"],
    },
    Case {
        name: "without rowid",
        setup: "CREATE TABLE t(a TEXT, b INTEGER, c, PRIMARY KEY (b, a)) WITHOUT ROWID; INSERT INTO t VALUES ('x',1,0);",
        statements: &[
            "REPLACE INTO t VALUES ('x', 1, 5)",
            "INSERT INTO t VALUES ('y', 1, 6)",
            "UPDATE t SET a = 'z' WHERE a = 'y'",
            "DELETE FROM t WHERE a = 'x'",
        ],
        marks: &["H t 1,'x'", "I t 1,'x'", "I t 1,'y'", "U t 1,'y'>1,'z'", "D t 1,'x'"],
        images: &["t 1,'x': -", "t 1,'y': -", "t 1,'z': 'z',1,6"],
    },
    Case {
        name: "text key, with a UNIQUE column beside",
        setup: "CREATE TABLE t(code TEXT PRIMARY KEY, u UNIQUE); INSERT INTO t VALUES ('a',1),('b',2);",
        statements: &[
            "REPLACE INTO t VALUES ('c', 1)",
            "REPLACE INTO t VALUES ('b', 3)",
            "UPDATE t SET code = 'd' WHERE u = 3",
        ],
        marks: &["H t 'a'", "I t 'c'", "H t 'b'", "I t 'b'", "U t 'b'>'d'"],
        images: &["t 'a': -", "t 'b': -", "t 'c': 'c',1", "t 'd': 'd',3"],
    },
    Case {
        name: "a key that ignores case: another spelling is another key",
        setup: "CREATE TABLE t(code TEXT COLLATE NOCASE PRIMARY KEY, v); INSERT INTO t VALUES ('a',1);",
        statements: &["REPLACE INTO t VALUES ('A', 2)", "REPLACE INTO t VALUES ('A', 3)"],
        marks: &["H t 'a'", "I t 'A'", "H t 'A'", "I t 'A'"],
        images: &["t 'A': 'A',3", "t 'a': -"],
    },
    Case {
        name: "no key",
        setup: "CREATE TABLE t(a, b); INSERT INTO t VALUES (1,1),(1,1);",
        statements: &[
            "INSERT INTO t VALUES (1,1)",
            "UPDATE t SET b = 2 WHERE rowid = 1",
            "DELETE FROM t WHERE rowid = 2",
        ],
        marks: &["I t 3", "U t 1", "D t 2"],
        images: &["t 1: 1,2", "t 2: -", "t 3: 1,1"],
    },
    Case {
        name: "a UNIQUE NOT NULL index stands in for the key",
        setup: "CREATE TABLE t(a TEXT NOT NULL, b); CREATE UNIQUE INDEX i ON t(a); INSERT INTO t VALUES ('x',1);",
        statements: &["REPLACE INTO t VALUES ('x', 2)", "INSERT INTO t VALUES ('y', 3)"],
        marks: &["H t 'x'", "I t 'x'", "I t 'y'"],
        images: &["t 'x': 'x',2", "t 'y': 'y',3"],
    },
    Case {
        name: "generated columns",
        setup: "CREATE TABLE t(id INTEGER PRIMARY KEY, a, g AS (a * 2) STORED, h AS (a || 'h') VIRTUAL UNIQUE, b);
            INSERT INTO t(a, b) VALUES (1, 1), (2, 2);",
        statements: &["INSERT INTO t(a, b) VALUES (5, 6)", "UPDATE OR REPLACE t SET a = 1 WHERE id = 2"],
        marks: &["I t 3", "H t 1", "U t 2"],
        images: &["t 1: -", "t 2: 2,1,2", "t 3: 3,5,6"],
    },
    Case {
        name: "a partial UNIQUE index",
        setup: "CREATE TABLE t(id INTEGER PRIMARY KEY, team, is_lead);
            CREATE UNIQUE INDEX lead ON t(team) WHERE is_lead = 1 -- one lead for each team
            ;
            INSERT INTO t VALUES (1, 'a', 1), (2, 'a', 0), (3, 'b', 1), (4, 'b', 0);",
        statements: &["REPLACE INTO t VALUES (9, 'a', 1)", "UPDATE OR REPLACE t SET is_lead = 1 WHERE id = 4"],
        marks: &["H t 1", "I t 9", "H t 3", "U t 4"],
        images: &["t 1: -", "t 3: -", "t 4: 4,'b',1", "t 9: 9,'a',1"],
    },
    Case {
        name: "strict",
        setup: "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, n ANY) STRICT;",
        statements: &["INSERT INTO t(a, n) VALUES ('x', 1.0)", "INSERT INTO t(a, n) VALUES ('y', '1')"],
        marks: &["I t 1", "I t 2"],
        images: &["t 1: 1,'x',1.0", "t 2: 2,'y','1'"],
    },
    Case {
        name: "full-text index beside, kept by the app's triggers",
        setup: "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT);
            CREATE VIRTUAL TABLE f USING fts5(a, content='t', content_rowid='id');
            CREATE TRIGGER ti AFTER INSERT ON t BEGIN INSERT INTO f(rowid, a) VALUES (NEW.id, NEW.a); END;",
        statements: &["INSERT INTO t(a) VALUES ('hello world')", "SELECT rowid FROM f WHERE f MATCH 'hello'"],
        marks: &["I t 1"],
        images: &["t 1: 1,'hello world'"],
    },
    Case {
        name: "the app's triggers write elsewhere, before and after",
        setup: "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TABLE l(id INTEGER PRIMARY KEY, w);
            INSERT INTO t VALUES (1, 'x');
            CREATE TRIGGER tb BEFORE INSERT ON t BEGIN INSERT INTO l(w) VALUES ('before'); END;
            CREATE TRIGGER ta AFTER INSERT ON t BEGIN INSERT INTO l(w) VALUES ('after'); END;",
        statements: &["REPLACE INTO t VALUES (1, 'y')"],
        marks: &["I l 1", "H t 1", "I t 1", "I l 2"],
        images: &["l 1: 1,'before'", "l 2: 2,'after'", "t 1: 1,'y'"],
    },
    Case {
        name: "autoincrement",
        setup: "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a); INSERT INTO t(a) VALUES (1),(2); DELETE FROM t;",
        statements: &["INSERT INTO t(a) VALUES (3)", "INSERT INTO t(id, a) VALUES (NULL, 4)"],
        marks: &["I t 3", "I t 4"],
        images: &["t 3: 3,3", "t 4: 4,4"],
    },
    Case {
        name: "composite foreign key as key, many-to-many",
        setup: "CREATE TABLE x(id INTEGER PRIMARY KEY); CREATE TABLE y(id INTEGER PRIMARY KEY);
            CREATE TABLE xy(x INTEGER REFERENCES x, y INTEGER REFERENCES y, PRIMARY KEY (x, y));
            INSERT INTO x VALUES (1); INSERT INTO y VALUES (2);",
        statements: &["INSERT INTO xy VALUES (1, 2)", "DELETE FROM xy"],
        marks: &["I xy 1,2", "D xy 1,2"],
        images: &["xy 1,2: -"],
    },
    Case {
        name: "names that need quoting",
        setup: "CREATE TABLE \"order by 'x' \"\"y\"\" 🦀\"(\"select\" INTEGER PRIMARY KEY, \"a \"\"b\" TEXT UNIQUE);",
        statements: &[
            "INSERT INTO \"order by 'x' \"\"y\"\" 🦀\"(\"a \"\"b\") VALUES ('v')",
            "REPLACE INTO \"order by 'x' \"\"y\"\" 🦀\"(\"a \"\"b\") VALUES ('v')",
        ],
        marks: &["I order by 'x' \"y\" 🦀 1", "H order by 'x' \"y\" 🦀 1", "I order by 'x' \"y\" 🦀 2"],
        images: &["order by 'x' \"y\" 🦀 1: -", "order by 'x' \"y\" 🦀 2: 2,'v'"],
    },
    Case {
        name: "columns that hide the rowid's names",
        setup: "CREATE TABLE t(rowid TEXT, oid TEXT);",
        statements: &["INSERT INTO t VALUES ('a', 'b')"],
        marks: &["I t 1"],
        images: &["t 1: 'a','b'"],
    },
    Case {
        name: "insert through a view's trigger",
        setup: "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE VIEW v AS SELECT a FROM t;
            CREATE TRIGGER vi INSTEAD OF INSERT ON v BEGIN INSERT INTO t(a) VALUES (NEW.a); END;",
        statements: &["INSERT INTO v VALUES ('x')"],
        marks: &["I t 1"],
        images: &["t 1: 1,'x'"],
    },
    Case {
        name: "UTF-16",
        setup: "PRAGMA encoding = 'UTF-16le'; CREATE TABLE t(k TEXT PRIMARY KEY, v TEXT); INSERT INTO t VALUES ('ä','ö');",
        statements: &["REPLACE INTO t VALUES ('ä', '🦀')", "INSERT INTO t VALUES ('ß', 'ü')"],
        marks: &["H t 'ä'", "I t 'ä'", "I t 'ß'"],
        images: &["t 'ß': 'ß','ü'", "t 'ä': 'ä','🦀'"],
    },
];

#[test]
fn statements_from_python_leave_their_marks_and_the_app_sees_no_difference() {
    for case in CASES {
        check(case, Writer::Python);
    }
}

#[test]
fn statements_from_the_bundled_library_leave_their_marks_and_the_app_sees_no_difference() {
    for case in CASES {
        check(case, Writer::Bundled);
    }
}

fn check(case: &Case, writer: Writer) {
    let context = format!("{} ({writer:?})", case.name);
    let untouched = Place::new(case.setup);
    let expected = run(writer, &untouched.path(), case.statements);
    let place = Place::new(case.setup);
    let mut file = place.enrolled();
    let seen = run(writer, &place.path(), case.statements);
    assert_eq!(seen, expected, "{context}: what the app sees");
    let drain = file.drain().unwrap();
    let mut marks = show_marks(&drain);
    if case.name == "cascade and set null" || case.name.starts_with("replace of a parent") {
        // SQLite runs foreign-key actions in an order of its own.
        let is_child = |mark: &String| mark.contains(" c ") || mark.contains(" s ");
        let children = marks.iter().take_while(|mark| is_child(mark)).count();
        marks[..children].sort();
    }
    assert_eq!(marks, case.marks, "{context}: marks");
    let mut images = show_images(&drain);
    let mut wanted: Vec<String> = case.images.iter().map(|line| line.to_string()).collect();
    images.sort();
    wanted.sort();
    assert_eq!(images, wanted, "{context}: images");
    assert!(drain.unkeyed.is_empty() && drain.orphaned.is_empty(), "{context}");
    file.clear_marks(drain.through_seq).unwrap();
    assert_eq!(file.outbox_len().unwrap(), 0, "{context}");
}

#[test]
fn executemany_and_a_rolled_back_context_manager_from_python() {
    let place = Place::new(PLAIN);
    let mut file = place.enrolled();
    let program = "
import sqlite3, sys
c = sqlite3.connect(sys.argv[1])
cursor = c.executemany('INSERT INTO t(a, b) VALUES (?, ?)', [('p', 1.5), ('q', None), ('r', b'\\x00\\xff')])
print(cursor.rowcount)
c.commit()
try:
    with c:
        c.execute('DELETE FROM t')
        raise KeyError
except KeyError:
    pass
print(c.execute(\"INSERT INTO t(a) VALUES ('s')\").lastrowid)
c.commit()
";
    assert_eq!(python(&place.path(), program, &[]), "3\n7\n");
    let drain = file.drain().unwrap();
    assert_eq!(show_marks(&drain), ["I t 4", "I t 5", "I t 6", "I t 7"]);
    assert_eq!(drain.images[&("t".to_owned(), key([int(4)]))].as_ref().unwrap()[2], Value::real(1.5));
    assert_eq!(drain.images[&("t".to_owned(), key([int(6)]))].as_ref().unwrap()[2], Value::Blob(vec![0, 255]));
}

/// The one case in which a REPLACE looks like delete and insert: the app switched `recursive_triggers` on.
#[test]
fn recursive_triggers_show_a_replace_as_delete_and_insert() {
    let place = Place::new(PLAIN);
    let mut file = place.enrolled();
    run(Writer::Python, &place.path(), &["PRAGMA recursive_triggers = ON", "REPLACE INTO t VALUES (2,'n',0)"]);
    assert_eq!(show_marks(&file.drain().unwrap()), ["D t 2", "I t 2"]);
}

/// A row with a NULL in its declared key has no identity: its marks are counted, not reported; getting a full key is its
/// birth and losing it its death.
#[test]
fn rows_with_null_in_their_key_stay_local_and_are_counted() {
    let place = Place::new("CREATE TABLE t(k TEXT PRIMARY KEY, v); INSERT INTO t VALUES (NULL, 0);");
    let mut file = place.enrolled();
    let statements = [
        "INSERT INTO t VALUES (NULL, 1)",
        "INSERT INTO t VALUES ('a', 2)",
        "UPDATE t SET k = 'b' WHERE v = 1",
        "UPDATE t SET k = NULL WHERE k = 'a'",
        "DELETE FROM t WHERE v = 0",
    ];
    run(Writer::Python, &place.path(), &statements);
    let drain = file.drain().unwrap();
    assert_eq!(show_marks(&drain), ["I t 'a'", "I t 'b'", "D t 'a'"]);
    assert_eq!(show_images(&drain), ["t 'a': -", "t 'b': 'b',1"]);
    assert_eq!(drain.unkeyed, BTreeMap::from([("t".to_owned(), 2)]));
}

#[test]
fn marks_carry_time_order_and_random_ids() {
    let place = Place::new(PLAIN);
    let mut file = place.enrolled();
    let clock = "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)";
    let before: i64 = place.app().query_row(clock, [], |row| row.get(0)).unwrap();
    run(Writer::Python, &place.path(), &["INSERT INTO t(a) VALUES (1)", "INSERT INTO t(a) VALUES (2)"]);
    let after: i64 = place.app().query_row(clock, [], |row| row.get(0)).unwrap();
    let drain = file.drain().unwrap();
    assert_eq!(drain.marks.len(), 2);
    assert_ne!(drain.marks[0].rid, drain.marks[1].rid);
    for mark in &drain.marks {
        assert!((before as u64 - 1..=after as u64 + 1).contains(&mark.wall_ms), "{before} {mark:?} {after}");
    }
}
