//! What people go by: names of rows, pairs that look like one row, values that two files cannot have by chance.
//!
//! Invariant: secrets are never shown. Callers: `rehearsal`, `near_equal`.

use std::collections::BTreeSet;

use crate::merge::store::Row;
use crate::model::{Cell, TableSchema, Value};
use crate::sqlite::Image;

/// Characters of a row's name that are shown, at most.
const LABEL_MAX: usize = 60;

/// Words in names of columns that people know rows by, best first.
const NAMES: [&str; 11] =
    ["username", "name", "title", "number", "nickname", "code", "label", "email", "slug", "key", "text"];

/// Words in names of columns that are nobody's business.
const SECRETS: [&str; 6] = ["password", "passwd", "hash", "token", "secret", "salt"];

/// A row by its name or number: at most two columns, else what stands first.
pub(super) fn label(schema: &TableSchema, image: &Image) -> String {
    let keys = schema.key_columns();
    let name = |column: &usize| schema.columns[*column].name.to_ascii_lowercase();
    let open = |column: &usize| {
        !keys.contains(column) && !image[*column].is_null() && !SECRETS.iter().any(|word| name(column).contains(word))
    };
    let place = |column: &usize| NAMES.iter().position(|word| name(column).ends_with(word));
    let mut named: Vec<usize> =
        (0..schema.columns.len()).filter(open).filter(|column| place(column).is_some()).collect();
    // The shortest is the row's own: `team_number` before `scouting_team_number`.
    named.sort_by_key(|column| (place(column), schema.columns[*column].name.len()));
    if named.is_empty() {
        named.extend((0..schema.columns.len()).filter(open).take(2));
    }
    let cell = |column: &usize| format!("{} {}", schema.columns[*column].name, plain(&image[*column]));
    let text = named.iter().take(2).map(cell).collect::<Vec<_>>().join(", ");
    text.chars().take(LABEL_MAX).collect()
}

fn plain(value: &Value) -> String {
    match value {
        Value::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => other.to_string(),
    }
}

/// (equal, compared) when at least half of the cells are equal. A reference counts by the row it leads to: match 5 here and
/// match 5 there are two matches. Cells that are NULL in both say nothing.
pub(super) fn nearly_equal(one: &Row, other: &Row) -> Option<(u64, u64)> {
    let null = Cell::Plain(Value::Null);
    let columns: BTreeSet<u16> = one.cells.iter().chain(&other.cells).map(|state| state.column).collect();
    let (mut equal, mut compared) = (0, 0);
    for column in columns {
        let cell = |row: &Row| row.cell(column).map_or_else(|| null.clone(), |state| state.cell.clone());
        let (left, right) = (cell(one), cell(other));
        if left != null || right != null {
            compared += 1;
            equal += u64::from(left == right);
        }
    }
    (compared > 0 && equal * 2 >= compared).then_some((equal, compared))
}

/// Whether two files that never met can hold this value only by a miracle: hashes, tokens, UUIDs, times with fractions of
/// a second.
pub(super) fn is_unlikely_twice(column: &str, value: &Value) -> bool {
    let bytes = match value {
        Value::Blob(bytes) => return bytes.len() >= 16,
        Value::Text(bytes) => bytes,
        Value::Null | Value::Integer(_) | Value::Real(_) => return false,
    };
    let column = column.to_ascii_lowercase();
    let secret = SECRETS.iter().any(|word| column.contains(word));
    secret && bytes.len() >= 20 && bytes.iter().any(u8::is_ascii_digit) || is_uuid(bytes) || has_fraction(bytes)
}

fn is_uuid(bytes: &[u8]) -> bool {
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// `…-09-06 23:00:00.123456`: a fraction of three digits or more that are not all zero.
fn has_fraction(bytes: &[u8]) -> bool {
    let dated = bytes.len() >= 23 && bytes[4] == b'-' && bytes[7] == b'-' && bytes[13] == b':' && bytes[16] == b':';
    let fraction = bytes.get(20..).unwrap_or_default();
    let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    dated && bytes[19] == b'.' && digits >= 3 && fraction[..digits].iter().any(|byte| *byte != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_types_twice_proves_an_ancestor() {
        let text = |text: &str| Value::text(text);
        assert!(is_unlikely_twice("password_hash", &text("pbkdf2:sha256:600000$abc$0123456789")));
        assert!(is_unlikely_twice("x", &text("123e4567-e89b-12d3-a456-426614174000")));
        assert!(is_unlikely_twice("created_at", &text("2025-09-06 23:00:00.123456")));
        for common in ["2025-09-06 23:00:00", "2025-09-06 23:00:00.000000", "Robotics team of the town of"] {
            assert!(!is_unlikely_twice("created_at", &text(common)), "{common}");
        }
        assert!(!is_unlikely_twice("token", &text("none")));
    }
}
