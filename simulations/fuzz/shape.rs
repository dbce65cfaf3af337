//! Tables of every kind with names of every kind, and values of every kind and size.
//!
//! Invariant: total; what SQLite does not take (a name twice, a bad mix) is left to the caller to drop. Callers: the
//! targets of values and names, `tests/values.rs`.

use litemesh::model::Value;

use crate::draws::Draws;
use crate::duo::quote;

/// Names that break SQL made by hand.
const NAMES: [&str; 30] = [
    "t",
    "select",
    "a\"b",
    "\"",
    "\"\"",
    "''",
    "'",
    "x; DROP TABLE t",
    "\"; DROP TABLE t; --",
    "/* c */",
    "-- c",
    "[b]",
    "]",
    "`t`",
    "a.b",
    "main.t",
    "%",
    "*",
    "?1",
    "\u{1f600}",
    "é",
    "e\u{301}",
    "\n",
    " ",
    "\ttab",
    "ROWID",
    "_rowid_",
    "oid",
    "NEW",
    "\u{7f}\u{1}",
];

const AFFINITIES: [&str; 12] = [
    "",
    "TEXT",
    "INTEGER",
    "REAL",
    "NUMERIC",
    "BLOB",
    "VARCHAR(3)",
    "BOOLEAN",
    "FLOATING POINT",
    "DATETIME",
    "TEXT COLLATE NOCASE",
    "TEXT COLLATE RTRIM",
];

const STRICT: [&str; 5] = ["ANY", "TEXT", "INTEGER", "REAL", "BLOB"];

/// A table to be.
pub struct Table {
    /// Its name.
    pub name: String,
    /// Columns that can be written.
    pub columns: Vec<String>,
    /// CREATE TABLE and its indexes.
    pub sql: Vec<String>,
    /// Rows can be addressed by their rowid.
    pub has_rowid: bool,
}

/// A name; with `wild`, any characters.
pub fn name(draws: &mut Draws<'_>, wild: bool, number: usize) -> String {
    let mut name = (*draws.pick(&NAMES)).to_string();
    if wild {
        let length = draws.below(24) as usize;
        let bytes = draws.take(length);
        name.push_str(&String::from_utf8_lossy(&bytes).replace('\0', ""));
    }
    // The same name twice, but for case, is no schema.
    if number > 0 { format!("{name}{number}") } else { name }
}

/// A table of any kind.
pub fn table(draws: &mut Draws<'_>, wild: bool, number: usize) -> Table {
    let name = name(draws, wild, number);
    let names: Vec<String> = (0..2 + draws.below(5) as usize).map(|column| self::name(draws, wild, column)).collect();
    let kind = draws.below(10);
    let strict = draws.chance(20);
    let types: &[&str] = if strict { &STRICT } else { &AFFINITIES };
    let mut columns: Vec<String> = names.iter().map(|name| format!("{} {}", quote(name), draws.pick(types))).collect();
    let (first, second) = (quote(&names[0]), quote(&names[1]));
    // Rows whose key holds NULL cannot be told apart: they stay on their server, and a person is told.
    let keys = match kind {
        3 | 5 => 1,
        4 | 6 => 2,
        _ => 0,
    };
    columns.iter_mut().take(keys).for_each(|column| column.push_str(" NOT NULL"));
    let (mut options, mut writable) = (Vec::new(), names.clone());
    let mut has_rowid = true;
    match kind {
        0..=2 => columns[0] = format!("{first} INTEGER PRIMARY KEY{}", if kind == 2 { " AUTOINCREMENT" } else { "" }),
        3 => columns.push(format!("PRIMARY KEY({first})")),
        4 => columns.push(format!("PRIMARY KEY({first}, {second})")),
        5 | 6 => {
            columns
                .push(format!("PRIMARY KEY({first}{})", if kind == 6 { format!(", {second}") } else { String::new() }));
            options.push("WITHOUT ROWID");
            has_rowid = false;
        }
        7 => columns.push(format!("UNIQUE({first}, {second})")),
        _ => {}
    }
    if draws.chance(25) {
        let stored = if draws.chance(50) { "STORED" } else { "VIRTUAL" };
        let of_type = if strict { "ANY" } else { "" };
        let generated = quote("gen\"erated");
        // Constraints of the table stand last.
        let at = names.len();
        columns.insert(at, format!("{generated} {of_type} AS ({second} || 'x') {stored}"));
    }
    if strict {
        options.push("STRICT");
    }
    let mut sql = vec![format!("CREATE TABLE {}({}) {}", quote(&name), columns.join(", "), options.join(", "))];
    if draws.chance(20) {
        sql.push(format!("CREATE INDEX {} ON {}({second})", quote(&format!("index of {name}")), quote(&name)));
    }
    if kind <= 1 {
        // SQLite chooses the id.
        writable.remove(0);
    }
    Table { name, columns: writable, sql, has_rowid }
}

/// A value of any kind. One in a hundred is large.
pub fn value(draws: &mut Draws<'_>) -> Value {
    const INTEGERS: [i64; 12] = [
        0,
        1,
        -1,
        i64::MAX,
        i64::MIN,
        i64::MAX - 1,
        1 << 53,
        (1 << 53) + 1,
        255,
        65_536,
        i32::MAX as i64,
        i32::MIN as i64,
    ];
    const REALS: [u64; 14] = [
        0,
        1 << 63,
        0x3ff0_0000_0000_0000,
        0x7ff0_0000_0000_0000,
        0xfff0_0000_0000_0000,
        0x7ff8_0000_0000_0000,
        0xfff8_0000_0000_0001,
        1,
        0x000f_ffff_ffff_ffff,
        0x7fef_ffff_ffff_ffff,
        0x3fb9_9999_9999_999a,
        0x4340_0000_0000_0001,
        0x43e0_0000_0000_0000,
        0x8000_0000_0000_0001,
    ];
    const TEXTS: [&[u8]; 16] = [
        b"",
        b"1",
        b"1.0",
        b" 1 ",
        b"1e3",
        b"0x10",
        b"-0.0",
        b"9223372036854775808",
        b"a\0b",
        b"\0",
        b"\xff",
        b"\xc3\x28",
        b"\xed\xa0\x80",
        "e\u{301}\u{1f600}".as_bytes(),
        b"nan",
        b"'; --",
    ];
    match draws.below(16) {
        0 => Value::Null,
        1 | 2 => Value::Integer(*draws.pick(&INTEGERS)),
        3 => Value::Integer(draws.bits() as i64),
        4 | 5 => Value::Real(*draws.pick(&REALS)),
        6 => Value::Real(draws.bits()),
        7 => Value::Real((draws.below(1_000) as f64).to_bits()),
        8 | 9 => Value::Text(draws.pick(&TEXTS).to_vec()),
        10 => Value::Text(bytes(draws, 40)),
        11 => Value::Text(bytes(draws, 8).repeat(6)),
        12 => Value::Blob(draws.pick(&TEXTS).to_vec()),
        13 => Value::Blob(bytes(draws, 40)),
        14 => Value::Integer(draws.byte().into()),
        _ => large(draws),
    }
}

fn bytes(draws: &mut Draws<'_>, most: u64) -> Vec<u8> {
    let length = draws.below(most) as usize;
    draws.take(length)
}

/// Around the sizes at which something is cut: pages, pieces, an event's weight.
fn large(draws: &mut Draws<'_>) -> Value {
    const SIZES: [usize; 10] = [500, 4_000, 4_096, 65_536, 200_000, 262_143, 262_144, 262_145, 300_000, 800_000];
    let most = if draws.chance(12) { SIZES.len() } else { 3 };
    let size = SIZES[draws.below(most as u64) as usize];
    let pattern = draws.take(7);
    let content: Vec<u8> = pattern.into_iter().cycle().take(size).collect();
    if draws.chance(50) { Value::Text(content) } else { Value::Blob(content) }
}
