//! Every value survives bit for bit: app to drain, image to another file, and back out.

use std::ops::ControlFlow;

use super::*;
use crate::model::Cut;

/// Values of every type with their hard cases, as SQL that makes them and as they must arrive.
fn values() -> Vec<(&'static str, Value)> {
    vec![
        ("NULL", Value::Null),
        ("0", int(0)),
        ("9223372036854775807", int(i64::MAX)),
        ("-9223372036854775807 - 1", int(i64::MIN)),
        ("1.0", Value::real(1.0)),
        ("-0.0", Value::real(-0.0)),
        ("9e999", Value::real(f64::INFINITY)),
        ("-9e999", Value::real(f64::NEG_INFINITY)),
        ("4.9e-324", Value::real(5e-324)),
        ("0.1 + 0.2", Value::real(0.1 + 0.2)),
        ("9007199254740993.0", Value::real(9_007_199_254_740_992.0)),
        ("''", Value::text("")),
        ("'1'", Value::text("1")),
        ("'äß🦀'", Value::text("äß🦀")),
        ("x''", Value::Blob(vec![])),
        ("x'31'", Value::Blob(b"1".to_vec())),
        ("x'00ff00'", Value::Blob(vec![0, 255, 0])),
        ("CAST(x'610062' AS TEXT)", Value::Text(b"a\0b".to_vec())),
        ("CAST(x'ff00fec3' AS TEXT)", Value::Text(vec![0xff, 0, 0xfe, 0xc3])),
    ]
}

fn insert_all() -> String {
    let rows: Vec<String> = values().iter().enumerate().map(|(id, (sql, _))| format!("({}, {sql})", id + 1)).collect();
    format!("INSERT INTO t VALUES {}", rows.join(", "))
}

#[test]
fn values_travel_bit_for_bit_from_one_file_to_another() {
    for writer in [Writer::Python, Writer::Bundled] {
        let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, v);";
        let (from, to) = (Place::new(schema), Place::new(schema));
        let (mut a, mut b) = (from.enrolled(), to.enrolled());
        run(writer, &from.path(), &[&insert_all()]);
        let drain = a.drain().unwrap();
        let mut writes = Vec::new();
        for (id, (sql, value)) in values().into_iter().enumerate() {
            let key = vec![int(id as i64 + 1)];
            let image = drain.images[&("t".to_owned(), key.clone())].clone().unwrap();
            assert_eq!(image[1], value, "{sql} ({writer:?})");
            writes.push(RowWrite { table: "t".into(), old_key: None, new: Some((key, image)) });
        }
        let mut apply = b.begin_apply().unwrap();
        assert_eq!(apply.write(&writes).unwrap(), []);
        apply.commit(&Cut::default()).unwrap();
        assert_eq!(b.scan_page("t", None, 100).unwrap(), a.scan_page("t", None, 100).unwrap());
        let dump = "SELECT group_concat(typeof(v) || hex(v)) FROM t";
        assert_eq!(run(Writer::Python, &from.path(), &[dump]), run(Writer::Python, &to.path(), &[dump]));
    }
}

/// Keys too: as TEXT, as anything, in tables with and without rowids.
#[test]
fn keys_of_every_value_are_marked_found_scanned_and_written() {
    for (schema, skip_text) in [
        ("CREATE TABLE t(n, k, PRIMARY KEY (k)) WITHOUT ROWID;", false),
        ("CREATE TABLE t(n, k PRIMARY KEY);", false),
        ("CREATE TABLE t(n, k NOT NULL); CREATE UNIQUE INDEX i ON t(k);", false),
        ("CREATE TABLE t(n, k TEXT COLLATE RTRIM PRIMARY KEY);", true),
    ] {
        let (from, to) = (Place::new(schema), Place::new(schema));
        let (mut a, mut b) = (from.enrolled(), to.enrolled());
        // 1 and 1.0, 0 and -0.0 are one key to SQLite.
        let wanted: Vec<(usize, &str, Value)> = values()
            .into_iter()
            .enumerate()
            .filter(|(_, (sql, value))| !value.is_null() && *sql != "-0.0")
            .filter(|(_, (_, value))| !skip_text || matches!(value, Value::Text(_) | Value::Blob(_)))
            .map(|(id, (sql, value))| (id, sql, value))
            .collect();
        let statements: Vec<String> =
            wanted.iter().map(|(id, sql, _)| format!("INSERT INTO t VALUES ({id}, {sql})")).collect();
        run(Writer::Python, &from.path(), &statements.iter().map(String::as_str).collect::<Vec<_>>());
        let drain = a.drain().unwrap();
        assert_eq!(drain.marks.len(), wanted.len(), "{schema}");
        let mut writes = Vec::new();
        for (mark, (id, sql, value)) in drain.marks.iter().zip(&wanted) {
            assert_eq!(mark.key, std::slice::from_ref(value), "{sql} in {schema}");
            let image = drain.images[&("t".to_owned(), mark.key.clone())].clone();
            assert_eq!(image, Some(vec![int(*id as i64), value.clone()]), "{sql} in {schema}");
            writes.push(RowWrite {
                table: "t".into(),
                old_key: None,
                new: image.map(|image| (mark.key.clone(), image)),
            });
        }
        for round in 0..2 {
            let mut apply = b.begin_apply().unwrap();
            assert_eq!(apply.write(&writes).unwrap(), [], "{schema} round {round}");
            apply.commit(&Cut::default()).unwrap();
            for write in &mut writes {
                write.old_key = write.new.as_ref().map(|(key, _)| key.clone());
            }
        }
        // Pages of two, so that every key is once the place to go on from.
        let mut pages = Vec::new();
        let mut after: Option<Key> = None;
        loop {
            let page = b.scan_page("t", after.as_ref(), 2).unwrap();
            let Some((key, _)) = page.last() else { break };
            after = Some(key.clone());
            pages.extend(page);
        }
        assert_eq!(pages, a.scan_page("t", None, 1000).unwrap(), "{schema}");
        assert_eq!(pages.len(), wanted.len());
        for write in &mut writes {
            write.new = None;
        }
        let mut apply = b.begin_apply().unwrap();
        assert_eq!(apply.write(&writes).unwrap(), []);
        apply.commit(&Cut::default()).unwrap();
        assert_eq!(b.count_rows("t").unwrap(), 0, "{schema}");
    }
}

/// 1 and 1.0 are one key to SQLite but not to us: the row is found only under the one it has.
#[test]
fn a_row_is_not_found_under_an_equal_looking_key() {
    let place = Place::new("CREATE TABLE t(k PRIMARY KEY, v); INSERT INTO t VALUES (1, 'x');");
    let mut file = place.enrolled();
    let keys = [vec![int(1)], vec![Value::real(1.0)], vec![Value::text("1")]];
    let found: Vec<bool> = file.read_rows("t", &keys).unwrap().iter().map(Option::is_some).collect();
    assert_eq!(found, [true, false, false]);
    run(Writer::Python, &place.path(), &["UPDATE t SET k = 1.0"]);
    let drain = file.drain().unwrap();
    assert_eq!(show_marks(&drain), ["U t 1>1.0"]);
    assert_eq!(show_images(&drain), ["t 1: -", "t 1.0: 1.0,'x'"]);
}

#[test]
fn reals_in_real_columns_and_integers_in_real_columns_stay_what_they_are() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, r REAL, n NUMERIC, i INTEGER);";
    let (from, to) = (Place::new(schema), Place::new(schema));
    let (mut a, mut b) = (from.enrolled(), to.enrolled());
    run(
        Writer::Python,
        &from.path(),
        &["INSERT INTO t VALUES (1, 3, 3.0, 3.0), (2, -0.0, -0.0, 1.5), (3, 1e15, 'x', '12'), (4, 9e999, 9e999, 1e30)"],
    );
    let drain = a.drain().unwrap();
    let writes: Vec<RowWrite> = drain
        .images
        .iter()
        .map(|((table, key), image)| RowWrite {
            table: table.as_str().into(),
            old_key: None,
            new: image.clone().map(|image| (key.clone(), image)),
        })
        .collect();
    let mut apply = b.begin_apply().unwrap();
    assert_eq!(apply.write(&writes).unwrap(), []);
    apply.commit(&Cut::default()).unwrap();
    assert_eq!(b.scan_page("t", None, 9).unwrap(), a.scan_page("t", None, 9).unwrap());
}

#[test]
fn text_crosses_between_utf8_and_utf16_files() {
    let (from, to) = (
        Place::new("CREATE TABLE t(k TEXT PRIMARY KEY, v TEXT);"),
        Place::new("PRAGMA encoding = 'UTF-16be'; CREATE TABLE t(k TEXT PRIMARY KEY, v TEXT);"),
    );
    let (mut a, mut b) = (from.enrolled(), to.enrolled());
    run(Writer::Python, &from.path(), &["INSERT INTO t VALUES ('ключ', '🦀 a'), ('k2', 'b' || char(0) || 'c')"]);
    let bad = "INSERT INTO t VALUES ('k3', CAST(x'ff' AS TEXT))";
    run(Writer::Bundled, &from.path(), &[bad]);
    let drain = a.drain().unwrap();
    let writes: Vec<RowWrite> = drain
        .marks
        .iter()
        .map(|mark| RowWrite {
            table: "t".into(),
            old_key: None,
            new: drain.images[&("t".to_owned(), mark.key.clone())].clone().map(|image| (mark.key.clone(), image)),
        })
        .collect();
    let mut apply = b.begin_apply().unwrap();
    let refused = apply.write(&writes).unwrap();
    apply.commit(&Cut::default()).unwrap();
    // UTF-16 cannot hold bytes that are no text: that row is refused, not changed.
    assert_eq!(refused.iter().map(|refused| refused.index).collect::<Vec<_>>(), [2], "{refused:?}");
    let mut rows = Vec::new();
    let end = b.scan("t", &mut |key, image| {
        rows.push((key, image));
        ControlFlow::Continue(())
    });
    assert!(end.unwrap().is_continue());
    let mut expected = a.scan_page("t", None, 9).unwrap();
    expected.retain(|(key, _)| *key != [Value::text("k3")]);
    rows.sort();
    expected.sort();
    assert_eq!(rows, expected);
    let row = [Value::text("ключ")];
    assert!(b.read_rows("t", &[row.to_vec()]).unwrap()[0].is_some());
}
