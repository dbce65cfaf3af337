//! What apps and their migration tools do to a schema.

use super::*;
use crate::model::{Collation, Identity};

const PLAIN: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); INSERT INTO t VALUES (1,'x',1),(2,'y',2);
    CREATE TABLE other(id INTEGER PRIMARY KEY, v);";

fn table<'f>(file: &'f AppFile, name: &str) -> &'f crate::model::TableSchema {
    file.schema().table(name).unwrap()
}

fn names(tables: &[&str]) -> Vec<String> {
    tables.iter().map(|name| name.to_string()).collect()
}

#[test]
fn identities_follow_the_declared_keys() {
    let place = Place::new(
        "CREATE TABLE parent(id INTEGER PRIMARY KEY, name TEXT NOT NULL COLLATE NOCASE UNIQUE);
         CREATE TABLE child(id INTEGER PRIMARY KEY REFERENCES parent(id), x);
         CREATE TABLE team(number INTEGER PRIMARY KEY, x);
         CREATE TABLE text_key(k TEXT PRIMARY KEY, p INTEGER NOT NULL REFERENCES parent ON DELETE SET NULL,
             q INTEGER REFERENCES parent ON DELETE SET NULL, r INTEGER, e TEXT REFERENCES nowhere(x));
         CREATE TABLE no_alias(id INT PRIMARY KEY, x);
         CREATE TABLE quirk(id INTEGER PRIMARY KEY DESC, x);
         CREATE TABLE pair(a, b, c, PRIMARY KEY (b, a)) WITHOUT ROWID;
         CREATE TABLE stand_in(a NOT NULL, b NOT NULL, c TEXT NOT NULL, UNIQUE (a, b));
         CREATE UNIQUE INDEX narrow ON stand_in(c COLLATE NOCASE);
         CREATE UNIQUE INDEX part ON stand_in(a) WHERE b > 1;
         CREATE UNIQUE INDEX expr ON stand_in(lower(c));
         CREATE TABLE bare(a, b UNIQUE);",
    );
    let mut settings = place.settings();
    settings.natural_keys = vec!["te?m".into()];
    settings.references = vec![("text_key".into(), "r".into(), "users.user.id".into())];
    let file = AppFile::open(settings).unwrap();
    let identity = |name: &str| table(&file, name).identity.clone();
    assert_eq!(identity("parent"), Identity::Surrogate(0));
    assert_eq!(identity("child"), Identity::Keyed(vec![0]), "its id is its parent's");
    assert_eq!(identity("team"), Identity::Keyed(vec![0]), "natural by the settings");
    assert_eq!(identity("text_key"), Identity::Keyed(vec![0]));
    assert_eq!(identity("no_alias"), Identity::Keyed(vec![0]));
    assert_eq!(identity("quirk"), Identity::Keyed(vec![0]));
    assert_eq!(identity("pair"), Identity::Keyed(vec![1, 0]));
    assert_eq!(identity("stand_in"), Identity::Keyed(vec![2]), "the narrowest");
    assert_eq!(identity("bare"), Identity::Rowid);
    let unique = &table(&file, "parent").unique;
    assert_eq!((unique.len(), &unique[0].columns), (1, &vec![(1, Collation::NoCase)]));
    let exact: Vec<bool> = table(&file, "stand_in").unique.iter().map(|key| key.exact).collect();
    assert_eq!(exact.iter().filter(|exact| **exact).count(), 1);
    assert_eq!(exact.len(), 3);
    let keys = &table(&file, "text_key").foreign_keys;
    let parts: Vec<_> = keys.iter().map(|key| (key.columns[0], key.keeps_parent, key.declared)).collect();
    assert_eq!(parts, [(1, true, true), (2, false, true), (3, false, false)]);
    assert_eq!(keys[0].parent_columns, ["id"]);
    assert_eq!((keys[2].database.as_deref(), keys[2].parent.as_str()), (Some("users"), "user"));
}

#[test]
fn what_is_not_replicated_is_left_out_with_a_reason() {
    let place = Place::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE VIEW v AS SELECT * FROM t;
         CREATE TABLE sync_log(id INTEGER PRIMARY KEY AUTOINCREMENT);
         CREATE VIRTUAL TABLE f USING fts5(a, content='t', content_rowid='id');
         CREATE VIRTUAL TABLE g USING fts5(a); CREATE VIRTUAL TABLE r USING rtree(id, x0, x1);
         CREATE TABLE hidden(rowid, oid, _rowid_);",
    );
    let mut settings = place.settings();
    settings.exclude = vec!["SYNC_*".into()];
    let file = AppFile::open(settings).unwrap();
    let replicated: Vec<&str> = file.schema().tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(replicated, ["t"]);
    let reason = |name: &str| {
        let found = file.schema().left_out.iter().find(|(table, _)| table == name);
        found.unwrap_or_else(|| panic!("{name}")).1.clone()
    };
    for (name, words) in [
        ("v", "view"),
        ("sync_log", "excluded"),
        ("f", "rebuilt"),
        ("f_data", "virtual table"),
        ("g", "own content"),
        ("r", "virtual table"),
        ("r_node", "virtual table"),
        ("hidden", "rowid"),
    ] {
        assert!(reason(name).contains(words), "{name}: {}", reason(name));
    }
    assert!(!file.schema().left_out.iter().any(|(name, _)| name.starts_with("sqlite_")));
}

#[test]
fn add_rename_and_drop_column_pass_and_marks_go_on() {
    let place = Place::new(PLAIN);
    let mut file = place.enrolled();
    for (statement, change, image) in [
        ("ALTER TABLE t ADD COLUMN c DEFAULT 7", true, "t 1: 1,'n',1,7"),
        ("ALTER TABLE t RENAME COLUMN a TO aa", true, "t 1: 1,'n',1,7"),
        ("ALTER TABLE t DROP COLUMN b", true, "t 1: 1,'n',7"),
        ("ALTER TABLE t RENAME COLUMN id TO key", true, "t 1: 1,'n',7"),
        ("CREATE INDEX i ON t(aa)", false, "t 1: 1,'n',7"),
    ] {
        run(Writer::Python, &place.path(), &[statement]);
        assert!(matches!(file.drain(), Err(SqliteError::SchemaChanged)), "{statement}");
        let told = file.refresh_schema().unwrap();
        assert_eq!(told.altered, if change { names(&["t"]) } else { vec![] }, "{statement}");
        assert!(told.unguarded.is_empty() && told.new.is_empty() && told.gone.is_empty(), "{statement}: {told:?}");
        file.schema_seen().unwrap();
        let column = if statement.contains("ADD") { "a" } else { "aa" };
        run(Writer::Python, &place.path(), &[&format!("UPDATE t SET {column} = 'n' WHERE rowid = 1")]);
        let drain = file.drain().unwrap();
        assert_eq!(show_images(&drain), [image], "{statement}");
        file.clear_marks(drain.through_seq).unwrap();
    }
    assert_eq!(file.refresh_schema().unwrap(), SchemaChange::default());
}

/// Marks that were written before the migration and drained after it keep their meaning.
#[test]
fn a_renamed_table_keeps_its_marks() {
    let place = Place::new(PLAIN);
    let mut file = place.enrolled();
    let statements = [
        "UPDATE t SET a = 'n' WHERE id = 1",
        "ALTER TABLE t RENAME TO \"t new\"",
        "DELETE FROM \"t new\" WHERE id = 2",
    ];
    run(Writer::Python, &place.path(), &statements);
    let told = file.refresh_schema().unwrap();
    assert_eq!(told.renamed, [("t".to_owned(), "t new".to_owned())]);
    assert!(told.new.is_empty() && told.gone.is_empty() && told.unguarded.is_empty(), "{told:?}");
    assert_eq!(show_marks(&file.drain().unwrap()), ["U t new 1", "D t new 2"]);
    file.schema_seen().unwrap();
    // A new table under the old name is another one.
    run(Writer::Bundled, &place.path(), &["CREATE TABLE t(id INTEGER PRIMARY KEY)"]);
    let told = file.refresh_schema().unwrap();
    assert_eq!((told.new, told.renamed.len()), (names(&["t"]), 0));
    run(Writer::Bundled, &place.path(), &["INSERT INTO t VALUES (1)", "INSERT INTO \"t new\"(id) VALUES (5)"]);
    assert_eq!(show_marks(&file.drain().unwrap())[2..], ["I t 1", "I t new 5"]);
}

/// As Alembic's batch mode and Django do it.
#[test]
fn a_twelve_step_rebuild_is_noticed_and_wants_a_scan() {
    let place = Place::new(PLAIN);
    let mut file = place.enrolled();
    let statements = [
        "DELETE FROM t WHERE id = 1",
        "BEGIN",
        "CREATE TABLE tmp(id INTEGER PRIMARY KEY, a TEXT NOT NULL, b, c)",
        "INSERT INTO tmp SELECT id, a, b, 0 FROM t",
        "DROP TABLE t",
        "ALTER TABLE tmp RENAME TO t",
        "COMMIT",
        "UPDATE t SET c = 5",
    ];
    run(Writer::Python, &place.path(), &statements);
    let told = file.refresh_schema().unwrap();
    assert_eq!((&told.unguarded, &told.altered), (&names(&["t"]), &names(&["t"])));
    assert!(told.gone.is_empty() && told.new.is_empty(), "{told:?}");
    assert_eq!(file.tables_to_scan(), ["t"]);
    // The mark from before still counts, the unseen update is left to the scan.
    assert_eq!(show_marks(&file.drain().unwrap()), ["D t 1"]);
    let mut rows = Vec::new();
    let end = file.scan("t", &mut |key, image| {
        rows.push((show(&key), show(&image)));
        std::ops::ControlFlow::Continue(())
    });
    assert!(end.unwrap().is_continue());
    assert_eq!(rows, [("2".to_owned(), "2,'y',2,5".to_owned())]);
    run(Writer::Python, &place.path(), &["INSERT INTO t(a) VALUES ('n')"]);
    assert_eq!(show_marks(&file.drain().unwrap()), ["D t 1", "I t 3"]);
}

#[test]
fn lost_triggers_are_put_back() {
    let place = Place::new(PLAIN);
    let mut file = place.enrolled();
    run(
        Writer::Python,
        &place.path(),
        &["DROP TRIGGER _litemesh_2_delete", "DELETE FROM t", "DROP TRIGGER _litemesh_1_before_insert"],
    );
    let told = file.refresh_schema().unwrap();
    assert_eq!(told.unguarded, ["t"]);
    assert_eq!(file.tables_to_scan(), ["t"]);
    run(Writer::Python, &place.path(), &["INSERT INTO other VALUES (1,1)", "REPLACE INTO other VALUES (1,2)"]);
    assert_eq!(show_marks(&file.drain().unwrap()), ["I other 1", "H other 1", "I other 1"]);
}

#[test]
fn a_dropped_table_takes_its_marks_out_of_the_drain_and_a_new_one_is_new() {
    let place = Place::new(PLAIN);
    let mut file = place.enrolled();
    run(
        Writer::Python,
        &place.path(),
        &["DELETE FROM t WHERE id = 1", "INSERT INTO other VALUES (1, 1)", "DROP TABLE t"],
    );
    let told = file.refresh_schema().unwrap();
    assert_eq!((&told.gone, told.new.len()), (&names(&["t"]), 0));
    let drain = file.drain().unwrap();
    assert_eq!(show_marks(&drain), ["I other 1"]);
    assert_eq!(drain.orphaned, BTreeMap::from([("t".to_owned(), 1)]));
    file.schema_seen().unwrap();
    file.clear_marks(drain.through_seq).unwrap();
    run(Writer::Python, &place.path(), &["CREATE TABLE t(id INTEGER PRIMARY KEY, z)", "INSERT INTO t VALUES (1, 2)"]);
    let told = file.refresh_schema().unwrap();
    assert_eq!(told.new, ["t"]);
    assert_eq!(file.tables_to_scan(), ["t"]);
    assert_eq!(file.drain().unwrap().marks.len(), 0, "the first row came before the triggers: the scan finds it");
}

#[test]
fn a_key_that_changes_orphans_old_marks_and_wants_a_scan() {
    let place = Place::new("CREATE TABLE t(a TEXT NOT NULL, b INTEGER NOT NULL);");
    let mut file = place.enrolled();
    run(Writer::Python, &place.path(), &["INSERT INTO t VALUES ('x', 1)", "CREATE UNIQUE INDEX i ON t(b)"]);
    let told = file.refresh_schema().unwrap();
    assert_eq!(told.altered, ["t"]);
    assert!(told.gone.is_empty() && told.new.is_empty(), "{told:?}");
    assert_eq!(file.tables_to_scan(), ["t"]);
    assert_eq!(file.drain().unwrap().orphaned, BTreeMap::from([("t".to_owned(), 1)]));
    run(Writer::Python, &place.path(), &["INSERT INTO t VALUES ('y', 2)"]);
    assert_eq!(show_marks(&file.drain().unwrap()), ["I t 2"]);
}

#[test]
fn a_new_unique_index_gets_its_hints() {
    let place = Place::new(PLAIN);
    let mut file = place.enrolled();
    run(Writer::Python, &place.path(), &["CREATE UNIQUE INDEX i ON t(a)"]);
    assert_eq!(file.refresh_schema().unwrap().altered, ["t"]);
    run(Writer::Python, &place.path(), &["REPLACE INTO t(a) VALUES ('x')"]);
    assert_eq!(show_marks(&file.drain().unwrap()), ["H t 1", "I t 3"]);
    run(Writer::Python, &place.path(), &["DROP INDEX i", "ALTER TABLE t DROP COLUMN b"]);
    file.refresh_schema().unwrap();
    run(Writer::Python, &place.path(), &["ALTER TABLE t DROP COLUMN a"]);
    file.refresh_schema().unwrap();
}

#[test]
fn vacuum_flags_tables_without_a_key() {
    let place =
        Place::new("CREATE TABLE k(a); CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO k VALUES (1),(2),(3);");
    let mut file = place.enrolled();
    run(Writer::Python, &place.path(), &["DELETE FROM k WHERE a = 1", "VACUUM"]);
    let told = file.refresh_schema().unwrap();
    assert_eq!(told.renumbered, ["k"]);
    assert!(told.altered.is_empty() && told.unguarded.is_empty(), "{told:?}");
    assert_eq!(file.tables_to_scan(), ["k"]);
    assert_eq!(show_marks(&file.drain().unwrap()), ["D k 1"]);
}

#[test]
fn a_wider_key_widens_the_outbox() {
    let place = Place::new(PLAIN);
    let mut file = place.enrolled();
    run(
        Writer::Python,
        &place.path(),
        &["INSERT INTO t(a) VALUES (1)", "CREATE TABLE w(a, b, c, d, PRIMARY KEY (a, b, c, d))"],
    );
    assert_eq!(file.refresh_schema().unwrap().new, ["w"]);
    run(Writer::Python, &place.path(), &["INSERT INTO w VALUES (1, 2.5, 'c', x'00')"]);
    assert_eq!(show_marks(&file.drain().unwrap()), ["I t 3", "I w 1,2.5,'c',blob of 1 bytes"]);
}

#[test]
fn equal_schemas_have_equal_fingerprints_however_they_came_to_be() {
    let one = Place::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b TEXT)");
    let two = Place::new("create table t (id integer primary key, a text); -- a comment\nALTER TABLE t ADD b text;");
    let other = Place::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b TEXT NOT NULL)");
    let fingerprint = |place: &Place| AppFile::open(place.settings()).unwrap().schema().fingerprint;
    assert_eq!(fingerprint(&one), fingerprint(&two));
    assert_ne!(fingerprint(&one), fingerprint(&other));
}

/// The app ran without the node, migrated and wrote; nothing is forgotten at the next start.
#[test]
fn changes_while_the_node_was_down_are_told_at_the_next_start() {
    let place = Place::new(PLAIN);
    let file = place.enrolled();
    drop(file);
    let statements = [
        "INSERT INTO t(a) VALUES ('n')",
        "ALTER TABLE t RENAME TO u",
        "ALTER TABLE u ADD COLUMN c",
        "INSERT INTO u(c) VALUES ('m')",
        "DROP TABLE other",
        "CREATE TABLE fresh(id INTEGER PRIMARY KEY)",
    ];
    run(Writer::Python, &place.path(), &statements);
    for _ in 0..2 {
        let mut file = AppFile::open(place.settings()).unwrap();
        let told = file.enroll().unwrap();
        assert_eq!(told.renamed, [("t".to_owned(), "u".to_owned())]);
        assert_eq!((told.altered, told.gone, told.new), (names(&["u"]), names(&["other"]), names(&["fresh"])));
        assert_eq!(show_marks(&file.drain().unwrap()), ["I u 3", "I u 4"]);
    }
}
