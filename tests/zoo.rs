//! One table of every kind: each is replicated exactly, or preflight says beforehand that it is not, and why.
//!
//! The statements go through another SQLite than the node's. What it does not verify: every conflict clause on every
//! kind of table; the tests of `src/sqlite` do that.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use serde_json::Value;
use support::cluster::{Cluster, dumps};
use support::dump::{Dump, difference, dump, number, texts};
use support::server::Server;
use support::{app, beside, until};

const INSERTS: &str = "
    INSERT INTO rowid_alias (v) VALUES (1), (1.0), ('1'), (x'31'), (NULL), (-0.0), (9e999), (-9e999);
    INSERT INTO rowid_alias (id, v) VALUES (-5, 'negative'), (9007199254740993, 'past 2^53'), (0, 'zero');
    INSERT INTO counted (v) VALUES ('a'), ('b'), ('c');
    INSERT INTO no_rowid VALUES ('a', 1), ('b', 2), ('', 3);
    INSERT INTO no_rowid_pair VALUES (1, 'x', 'p'), (2, 'x', 'q');
    INSERT INTO pair VALUES (1, 1, 'p'), (1, 2, 'q');
    INSERT INTO text_key VALUES ('k1', 1), ('k2', 2), ('ключ', 3);
    INSERT INTO text_key_nocase VALUES ('Key', 1), ('other', 2);
    INSERT INTO nullable_text_key VALUES ('k', 1), (NULL, 2), (NULL, 3);
    INSERT INTO blob_key VALUES (x'00', 1), (x'', 2), (x'ff00', 3);
    INSERT INTO keyless VALUES (1, 2), (1, 2), (NULL, NULL), ('twin', x'00');
    INSERT INTO unique_but_no_key VALUES ('u1', 1), ('u2', 2);
    INSERT INTO generated (price, amount) VALUES (1.5, 2), (0.1, 3);
    INSERT INTO strict_kinds (i, r, t, b, a) VALUES (1, 1.0, 't', x'00', 'any'), (NULL, NULL, NULL, NULL, 5);
    INSERT INTO any_kind (v) VALUES (CAST(x'6100ff' AS TEXT)), (9223372036854775807), (-9223372036854775808), ('näh🤖');
    INSERT INTO defaults (made) VALUES ('fixed'); INSERT INTO defaults DEFAULT VALUES;
    INSERT INTO checked (low, high) VALUES (1, 2), (3, 3);
    INSERT INTO partial_unique (owner, active) VALUES ('o', 1), ('o', 0), ('o', 0);
    INSERT INTO expression_unique (mail) VALUES ('A@x'), ('b@x');
    INSERT INTO unique_pair (a, b) VALUES ('1', '1'), ('1', '2'), (NULL, '1'), (NULL, '1');
    INSERT INTO node VALUES (1, NULL, 'root'), (2, 1, 'child'), (3, 2, 'grandchild'), (4, 4, 'own parent');
    INSERT INTO owner VALUES (1, 'stays'), (2, 'goes');
    INSERT INTO dies_with_owner VALUES (1, 1, 'a'), (2, 2, 'b');
    INSERT INTO forgets_owner VALUES (1, 1, 'a'), (2, 2, 'b');
    INSERT INTO follows_owner VALUES (1, 'k1', 'a');
    INSERT INTO \"with spaces\" (\"first name\", \"a\"\"quote\") VALUES ('n', 'q');
    INSERT INTO \"say \"\"hi\"\"\" (v) VALUES ('x');
    INSERT INTO \"select\" (\"where\", \"group\") VALUES ('w', 'g');
    INSERT INTO \"🤖 robots\" (\"🔧\") VALUES ('wrench');
    INSERT INTO \"x; DROP TABLE pair; --\" (v) VALUES ('still here');
    INSERT INTO \"Größe\" (\"Änderung\") VALUES ('ä');
    INSERT INTO has_trigger (v) VALUES ('seen once');
    INSERT INTO touched (v) VALUES ('a'), ('b');
    INSERT INTO document (body) VALUES ('the quick robot'), ('a slow robot'), ('nothing');
    INSERT INTO own_text (body) VALUES ('only here');
    INSERT INTO wide (c1, c20) VALUES (1, 20);";

const CHANGES: &str = "
    PRAGMA foreign_keys = ON;
    UPDATE rowid_alias SET v = 2 WHERE v IS 1; DELETE FROM rowid_alias WHERE id = 0; UPDATE rowid_alias SET id = 500 WHERE id = -5;
    DELETE FROM counted; INSERT INTO counted (v) VALUES ('after all');
    UPDATE no_rowid SET code = 'moved' WHERE code = 'a'; DELETE FROM no_rowid WHERE code = 'b';
    UPDATE no_rowid_pair SET a = 9 WHERE a = 1; REPLACE INTO no_rowid_pair VALUES (2, 'x', 'replaced');
    INSERT INTO pair VALUES (1, 1, 'upsert') ON CONFLICT (a, b) DO UPDATE SET v = excluded.v; DELETE FROM pair WHERE b = 2;
    UPDATE text_key SET code = 'k1 renamed' WHERE code = 'k1';
    UPDATE text_key_nocase SET code = 'KEY' WHERE code = 'key';
    UPDATE nullable_text_key SET v = 9 WHERE code = 'k';
    UPDATE blob_key SET v = 9 WHERE code = x'';
    UPDATE unique_but_no_key SET v = 9 WHERE code = 'u1'; DELETE FROM unique_but_no_key WHERE code = 'u2';
    UPDATE generated SET amount = amount + 1;
    UPDATE strict_kinds SET a = x'00', r = -0.0 WHERE id = 1;
    UPDATE defaults SET n = 8; UPDATE checked SET low = 0, high = 9 WHERE id = 2;
    UPDATE partial_unique SET active = 1 - active WHERE id IN (1, 2) AND active = 1; UPDATE partial_unique SET active = 1 WHERE id = 3;
    REPLACE INTO expression_unique (mail) VALUES ('a@X');
    REPLACE INTO unique_pair (a, b) VALUES ('1', '2');
    UPDATE node SET parent = 1 WHERE id = 3; DELETE FROM owner WHERE id = 2;
    UPDATE \"with spaces\" SET \"a\"\"quote\" = 'changed'; UPDATE \"select\" SET \"from\" = 77;
    UPDATE touched SET v = 'changed' WHERE id = 1;
    UPDATE document SET body = 'the quick fox' WHERE id = 1; DELETE FROM document WHERE id = 2;
    INSERT INTO wide (c2) SELECT v FROM rowid_alias; VACUUM;";

/// What preflight says before any file is touched.
struct Promise {
    /// Tables that are replicated.
    replicated: Vec<String>,
    /// The others, each with the reason.
    left_out: BTreeMap<String, String>,
    /// Tables whose key may be NULL: rows that have no key stay where they were written.
    keyless_rows_stay: Vec<String>,
}

fn preflight(server: &Server) -> Promise {
    let flags = server.database_flags();
    let arguments: Vec<&str> = ["--json", "preflight"].into_iter().chain(flags.iter().map(String::as_str)).collect();
    let answer = server.cli(&arguments).done();
    let reports = match answer.json() {
        Value::Array(reports) => reports,
        Value::Object(mut one) => match one.remove("databases") {
            Some(Value::Array(reports)) => reports,
            _ => vec![Value::Object(one)],
        },
        other => panic!("preflight answered {other}"),
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let tables: Vec<&Value> = reports.iter().flat_map(|report| report["tables"].as_array().unwrap()).collect();
    let left_out = reports.iter().flat_map(|report| report["left_out"].as_array().unwrap());
    let warned = |table: &&&Value| table["warnings"].to_string().contains("may hold NULL");
    Promise {
        replicated: tables.iter().map(|table| text(&table["table"])).collect(),
        left_out: left_out.map(|pair| (text(&pair[0]), text(&pair[1]))).collect(),
        keyless_rows_stay: tables.iter().filter(warned).map(|table| text(&table["table"])).collect(),
    }
}

/// The dump without the tables and rows that preflight said would stay.
fn promised(dump: Dump, promise: &Promise) -> Dump {
    let mut dump: Dump = dump.into_iter().filter(|(table, _)| !promise.left_out.contains_key(table)).collect();
    for table in &promise.keyless_rows_stay {
        dump.get_mut(table).unwrap().retain(|row| !row.starts_with("code=NULL"));
    }
    dump
}

#[track_caller]
fn equal_as_promised(cluster: &Cluster, promise: &Promise) {
    until("what preflight promised is equal", 40, || {
        let left = promised(dumps(&cluster.servers[0]).remove(0), promise);
        let right = promised(dumps(&cluster.servers[1]).remove(0), promise);
        difference(&left, &right).map_or(Ok(()), Err)
    });
}

#[test]
fn every_kind_of_table_is_replicated_or_refused_with_a_reason() {
    let mut cluster = Cluster::unjoined(2, &[("zoo", "zoo.sql")], Some("plain_ids.toml"));
    let promise = preflight(&cluster.servers[0]);
    let Promise { replicated, left_out, keyless_rows_stay } = &promise;
    assert_eq!(keyless_rows_stay, &["nullable_text_key"], "keys that may be NULL are told beforehand, and no others");
    let file = cluster.servers[0].database("zoo").to_owned();
    for table in dump(&file, &[]).keys() {
        let spoken_of = replicated.contains(table) || left_out.get(table).is_some_and(|reason| !reason.is_empty());
        assert!(spoken_of, "preflight says nothing about {table:?}");
    }
    for must in
        ["no_rowid", "pair", "text_key", "keyless", "generated", "strict_kinds", "select", "🤖 robots", "document"]
    {
        assert!(replicated.iter().any(|table| table == must), "{must} is left out: {:?}", left_out.get(must));
    }
    cluster.enrol();
    app(&file, INSERTS);
    equal_as_promised(&cluster, &promise);
    assert!(dumps(&cluster.servers[1]).remove(0)["any_kind"].len() == 4, "the rows are there, not just equal");
    app(cluster.servers[1].database("zoo"), CHANGES);
    equal_as_promised(&cluster, &promise);
    let other = cluster.servers[0].database("zoo");
    assert_eq!(texts(other, "SELECT v FROM counted"), ["after all"]);
    assert_eq!(texts(other, "SELECT code FROM follows_owner"), ["k1 renamed"], "ON UPDATE CASCADE travelled");
    assert_eq!(texts(other, "SELECT v FROM dies_with_owner"), ["a"], "ON DELETE CASCADE travelled");
    assert_eq!(number(other, "SELECT count(*) FROM forgets_owner WHERE owner_id IS NULL"), 1);
    assert_eq!(number(other, "SELECT changed FROM touched WHERE id = 1"), 1, "the app's trigger ran once, not twice");
    assert_eq!(texts(other, "SELECT seen FROM trigger_log"), ["seen once"]);
    assert_eq!(
        texts(other, "SELECT mail FROM expression_unique ORDER BY 1"),
        ["a@X", "b@x"],
        "the evicted row is gone"
    );
    cluster.servers.iter().for_each(|server| drop(server.cli(&["log", "verify"]).done()));
}

/// A search index over replicated rows finds them on every server.
#[test]
fn a_full_text_index_finds_replicated_rows() {
    let cluster = Cluster::of(2, &[("zoo", "zoo.sql")], None);
    let find = "SELECT count(*) FROM document_index WHERE document_index MATCH 'robot'";
    app(cluster.servers[0].database("zoo"), "INSERT INTO document (body) VALUES ('a robot'), ('robot arm'), ('none')");
    cluster.settled(20);
    until("the index knows the rows", 20, || {
        let found = number(cluster.servers[1].database("zoo"), find);
        if found == 2 { Ok(()) } else { Err(format!("{found} hits")) }
    });
    // The app's own trigger keeps the index; on an index that lacks the row it would fail, and the app's write with it.
    app(cluster.servers[1].database("zoo"), "DELETE FROM document WHERE body = 'a robot'");
    cluster.settled(20);
    until("the index forgot the row", 20, || {
        let found = number(cluster.servers[0].database("zoo"), find);
        if found == 1 { Ok(()) } else { Err(format!("{found} hits")) }
    });
}

/// One server's file is UTF-16: the same text on both.
#[test]
fn a_utf16_file_holds_the_same_text() {
    let mut cluster = Cluster::unjoined(2, &[("shop", "music.sql")], None);
    let wide = cluster.servers[1].database("shop").to_owned();
    std::fs::remove_file(&wide).unwrap();
    let script = std::fs::read_to_string(support::shipped("fixtures/music.sql")).unwrap();
    app(&wide, &format!("PRAGMA encoding = 'UTF-16le';\n{script}\nPRAGMA journal_mode = WAL;"));
    assert_eq!(texts(&wide, "PRAGMA encoding"), ["UTF-16le"]);
    cluster.enrol();
    app(&wide, "INSERT INTO artist (name) VALUES ('Мотор 🎸'), ('')");
    app(cluster.servers[0].database("shop"), "UPDATE artist SET name = 'Zoë' WHERE artist_id = 1");
    cluster.settled(30);
    let names = "SELECT count(*) FROM artist WHERE name IN ('Мотор 🎸', 'Zoë')";
    cluster.servers.iter().for_each(|server| assert_eq!(number(server.database("shop"), names), 2));
}

/// A shop: self-references, composite keys, decimals; worked on from both sides, apart.
#[test]
fn a_music_shop_run_by_two() {
    let mut cluster = Cluster::of(2, &[("shop", "music.sql")], None);
    cluster.part();
    for (number, server) in cluster.servers.iter().enumerate() {
        let name = &server.name;
        app(
            server.database("shop"),
            &format!(
                "BEGIN;
                 INSERT INTO artist VALUES (41, 'of {name}'); INSERT INTO album VALUES (101, 'of {name}', 41);
                 INSERT INTO track VALUES (401, 'of {name}', 101, 1, 0.99); INSERT INTO playlist_track VALUES (1, 401);
                 INSERT INTO employee VALUES (5, 'chief of {name}', 1), (6, 'of {name}', 5);
                 INSERT INTO invoice VALUES (3, 1, '2025-02-0{number}', 1.5); INSERT INTO invoice_line VALUES (4, 3, 401, 0.99, 1);
                 UPDATE employee SET reports_to = 6 WHERE employee_id = {last};
                 COMMIT",
                last = 3 + number
            ),
        );
    }
    cluster.heal();
    cluster.settled(40);
    let file = cluster.servers[1].database("shop");
    let chains = "SELECT count(*) FROM track t JOIN album a USING (album_id) JOIN artist r USING (artist_id) \
                  JOIN playlist_track p USING (track_id) WHERE t.name = a.title AND a.title = r.name AND t.name LIKE 'of s%'";
    assert_eq!(number(file, chains), 2);
    let chiefs = "SELECT count(*) FROM employee e JOIN employee c ON c.employee_id = e.reports_to \
                  WHERE e.name LIKE 'of s%' AND c.name = 'chief ' || e.name";
    assert_eq!(number(file, chiefs), 2);
    support::dump::assert_sound(file);
}

/// The public sample database, when it is beside the repository.
#[test]
fn chinook_travels_whole() {
    let Some(chinook) = beside("chinook.db") else { return };
    let mut cluster = Cluster::unjoined(2, &[], None);
    for server in &mut cluster.servers {
        let to = server.folder.join("chinook.db");
        std::fs::write(&to, std::fs::read(&chinook).unwrap()).unwrap();
        server.databases.push(("chinook".to_owned(), to));
    }
    cluster.enrol();
    let before = cluster.settled(60).remove(0);
    assert_eq!(before.values().map(Vec::len).sum::<usize>(), 15_607);
    app(
        cluster.servers[1].database("chinook"),
        "UPDATE Track SET UnitPrice = UnitPrice + 1; DELETE FROM PlaylistTrack WHERE PlaylistId = 1;
         UPDATE Employee SET ReportsTo = 1 WHERE ReportsTo = 2",
    );
    let after = cluster.settled(60).remove(0);
    assert!(difference(&before, &after).is_some());
    assert_eq!(
        number(cluster.servers[0].database("chinook"), "SELECT count(*) FROM PlaylistTrack WHERE PlaylistId = 1"),
        0
    );
}

/// The key of a referenced row is changed; SQLite carries the change to the rows that refer to it.
#[test]
fn a_changed_text_key_takes_its_references_along() {
    let cluster = Cluster::of(2, &[("zoo", "zoo.sql")], None);
    let file = cluster.servers[1].database("zoo");
    app(file, "INSERT INTO text_key VALUES ('k1', 1); INSERT INTO follows_owner VALUES (1, 'k1', 'a')");
    cluster.settled(20);
    app(file, "PRAGMA foreign_keys = ON; UPDATE text_key SET code = 'k1 renamed' WHERE code = 'k1'");
    cluster.settled(20);
    for server in &cluster.servers {
        assert_eq!(texts(server.database("zoo"), "SELECT code FROM text_key"), ["k1 renamed"], "{}", server.name);
        assert_eq!(texts(server.database("zoo"), "SELECT code FROM follows_owner"), ["k1 renamed"], "{}", server.name);
    }
}
