//! Keys over expressions and of partial indexes: equal exactly where SQLite refuses the second row.

use super::*;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b NUMERIC, c TEXT COLLATE NOCASE, \
                     d INT GENERATED ALWAYS AS (length(a)) VIRTUAL, CHECK (b < 100))";

const VALUES: [&str; 10] = ["NULL", "'x'", "'X'", "' x'", "1", "1.0", "2", "'2'", "-2", "x'78'"];

fn insert(id: usize, row: usize) -> String {
    let (a, b, c) = (VALUES[row % 10], VALUES[(row * 7 + 4) % 10], VALUES[(row * 3 + row / 10) % 10]);
    format!("INSERT INTO t (id, a, b, c) VALUES ({id}, {a}, {b}, {c})")
}

#[test]
fn keys_agree_with_what_sqlite_refuses() {
    for index in [
        "CREATE UNIQUE INDEX i ON t (lower(a))",
        "CREATE UNIQUE INDEX i ON t (a) WHERE b > 1",
        "CREATE UNIQUE INDEX i ON t (c, abs(b) DESC) WHERE a IS NOT NULL -- the end",
        "CREATE UNIQUE INDEX i ON t (trim(a) COLLATE NOCASE ASC)",
        "CREATE UNIQUE INDEX i ON t (d) WHERE c IS NOT NULL",
        "CREATE UNIQUE INDEX \"i)\" ON t (coalesce(a, 'none') , c)",
        "CREATE UNIQUE INDEX i ON t (b + 0)",
    ] {
        let place = Place::new(&format!("{TABLE}; {index}"));
        let file = place.enrolled();
        let table = file.schema().table("t").unwrap();
        let computed = table.unique[0].computed.as_ref().unwrap_or_else(|| panic!("{index} is computed"));
        let app = Connection::open_in_memory().unwrap();
        app.execute_batch(&format!("{TABLE}; {index}")).unwrap();
        let image = || {
            let read = |row: &rusqlite::Row<'_>| crate::sqlite::value::read_columns(row, 0, 4);
            app.query_row("SELECT id, a, b, c FROM t ORDER BY id LIMIT 1", [], read).ok()
        };
        let mut refusals = 0;
        for (one, two) in (0..30).flat_map(|one| (0..30).map(move |two| (one, two))) {
            app.execute_batch("DELETE FROM t").unwrap();
            // Some of the second rows break the CHECK: such a row has no key to compare.
            let _ = app.execute_batch(&insert(2, two));
            let second = image();
            app.execute_batch("DELETE FROM t").unwrap();
            let _ = app.execute_batch(&insert(1, one));
            let (Some(first), Some(second)) = (image(), second) else { continue };
            let refused = app.execute_batch(&insert(2, two)).is_err();
            let (x, y) = (computed.function.key(&first), computed.function.key(&second));
            assert_eq!(x.is_some() && x == y, refused, "{index}: {} against {}", insert(1, one), insert(2, two));
            refusals += usize::from(refused);
        }
        assert!(refusals > 5, "{index}: {refusals} pairs collided: too few to prove anything");
    }
}

#[test]
fn an_index_that_this_sqlite_cannot_compute_is_left_to_its_refusal() {
    let place = Place::new("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)");
    let file = place.enrolled();
    let table = file.schema().table("t").unwrap();
    let table_sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)";
    let of_app = "CREATE UNIQUE INDEX i ON t (soundslike(a))";
    let collations = vec![crate::model::Collation::Binary];
    assert!(crate::sqlite::keys::computed_key(table, table_sql, of_app, collations).is_none());
}
