//! Values of every kind and size from one server to another: the targets of the fuzzer over a fixed run of seeds, and the
//! sizes at which the product says something.
//!
//! The long runs are `fuzz --target values` and `fuzz --target names`. Every failure names its seed.

#![allow(clippy::unwrap_used, dead_code)]

#[path = "../simulations/world/dice.rs"]
mod dice;
#[path = "../simulations/fuzz/draws.rs"]
mod draws;
#[path = "../simulations/fuzz/duo.rs"]
mod duo;
#[path = "../simulations/world/scratch.rs"]
mod scratch;
#[path = "../simulations/fuzz/shape.rs"]
mod shape;
#[path = "support/target.rs"]
mod target;
#[path = "../simulations/fuzz/values.rs"]
mod values;

use dice::Dice;
use duo::{Bits, Duo};
use litemesh::model::Value;
use litemesh::wire::limits::VALUE_BYTES_MAX;

#[test]
fn any_values_in_any_tables_are_the_same_bits_on_the_far_server() {
    for target in [values::VALUES, values::NAMES] {
        for seed in 0..12 {
            println!("{} seed {seed}", target.name);
            (target.run)(&(target.generate)(&mut Dice::new(seed)));
        }
    }
}

fn put(duo: &Duo, id: i64, value: &Value) {
    duo.apps[0].execute("INSERT OR REPLACE INTO t(id, v) VALUES (?1, ?2)", (id, Bits(value))).unwrap();
}

/// Larger than a frame: it travels in pieces.
#[test]
fn a_value_of_some_megabytes_travels() {
    let mut duo = Duo::new(&["CREATE TABLE t(id INTEGER PRIMARY KEY, v)".to_string()], 0);
    put(&duo, 1, &Value::Blob(vec![7; 3 << 20]));
    duo.work();
    assert!(duo.rows(0, "t") == duo.rows(1, "t"));
}

/// An event that holds such a value is refused by every peer, and with it all that the node writes after it.
#[test]
fn a_value_above_the_limit_stays_and_holds_up_nobody() {
    let mut duo = Duo::new(&["CREATE TABLE t(id INTEGER PRIMARY KEY, v)".to_string()], 0);
    put(&duo, 1, &Value::text("before"));
    duo.work();
    put(&duo, 2, &Value::Blob(vec![8; VALUE_BYTES_MAX + 1]));
    put(&duo, 3, &Value::text("after"));
    duo.work();
    let ids = |duo: &Duo, at| -> Vec<Value> { duo.rows(at, "t").into_iter().map(|row| row[0].clone()).collect() };
    assert_eq!(ids(&duo, 0), [1, 2, 3].map(Value::Integer), "it stays where it was written");
    assert_eq!(ids(&duo, 1), [1, 3].map(Value::Integer));
    put(&duo, 2, &Value::text("smaller"));
    duo.work();
    assert!(duo.rows(0, "t") == duo.rows(1, "t"), "once it is smaller it travels");
}

/// 1 and 1.0 are one key to SQLite and two values: a REPLACE of one by the other was taken for an insert beside it, and the
/// far server went on showing the old row.
#[test]
fn keys_that_sqlite_takes_for_equal_are_told_apart() {
    const KEYS: [(&str, &str, &str); 4] = [
        ("k", "1", "1.0"),
        ("k", "1.0", "1"),
        ("k TEXT COLLATE NOCASE", "'a'", "'A'"),
        ("k TEXT COLLATE RTRIM", "'a'", "'a '"),
    ];
    for (key, one, same) in KEYS {
        for options in ["", "WITHOUT ROWID"] {
            for sql in [
                format!("INSERT OR REPLACE INTO t VALUES ({same}, 'new')"),
                format!("UPDATE t SET k = {same}"),
                format!("DELETE FROM t; INSERT INTO t VALUES ({same}, 'new')"),
                format!("INSERT INTO t VALUES ({same}, 'new') ON CONFLICT(k) DO UPDATE SET v = 'upsert'"),
            ] {
                let mut duo = Duo::new(&[format!("CREATE TABLE t({key} NOT NULL PRIMARY KEY, v) {options}")], 0);
                duo.apps[0].execute_batch(&format!("INSERT INTO t VALUES ({one}, 'old')")).unwrap();
                duo.work();
                duo.apps[0].execute_batch(&sql).unwrap();
                let written = duo.rows(0, "t");
                duo.work();
                assert_eq!([duo.rows(0, "t"), duo.rows(1, "t")], [written.clone(), written], "{key} {one}: {sql}");
            }
        }
    }
}
