//! Why a row differs, and what is right to do: the rule, without any I/O.
//!
//! The question is always which of two copies is the good one. The log keeps every value it ever showed, so taking the
//! file's value as a new event loses nothing; writing the log's value over the file's loses the file's, unless it is kept
//! aside (it always is, in the drift record) and is surely no write of a person. So, for rows that differ without a mark
//! while the triggers stand:
//!
//! | what is seen                                                     | cause              | done                        |
//! |------------------------------------------------------------------|--------------------|-----------------------------|
//! | the file shows what the log wants shown                          | apply not noted    | the state takes it over     |
//! | a value that SQL would have refused (NULL in NOT NULL, text that |                    |                             |
//! | is no UTF-8 where it was), at most [`BITS_MAX`] bits differ, or  | bit rot            | written again from the log  |
//! | the bytes are the same and the borders between columns are not   |                    |                             |
//! | the content of another row, which is gone (or was found gone     | bit rot            | both written again          |
//! | lately, its key one bit away): a rowid changed inside its page   |                    | from the log                |
//! | every differing value is one that the row had before             | earlier            | written again from the log  |
//! | anything else                                                    | written unmarked   | captured as a change        |
//! | a row is gone                                                    | lost unmarked      | written again from the log  |
//! | a row is gone and stands under a key that is one bit away        | bit rot            | back under its key          |
//! | … under any other key                                            | written unmarked   | captured: its key changed   |
//! | a row that the log showed there before, with values it had       | earlier            | taken out again             |
//! | any other row that the log does not show                         | written unmarked   | captured as new             |
//!
//! A deletion without a mark is never believed: a row comes back rather than being lost everywhere. When in doubt a row is
//! captured: both values are in its history then, on all servers. The one-bit rule may be wrong for an edit made by a
//! program that switched the triggers off and changed one letter into its neighbour; the record keeps that edit.
//! Captures are refused beyond [`Judged::too_many`]: a file that somebody encrypted must not become everybody's truth.
//! Invariant: pure. Caller: [`super::drift`].

use crate::model::{DriftAction, DriftCause, Key, Value};

/// Bits that may differ in all of a row for it to be bit rot.
const BITS_MAX: u32 = 2;

/// As many rows of a table may be captured by one run, whatever its size; beyond it, a quarter of it.
const CAPTURED_FREE: u64 = 50;

/// What became of a row, with what is known to tell why.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen<'s> {
    /// What the file holds.
    pub(super) file: Option<&'s [Value]>,
    /// What the log noted as shown (or wants shown, where that is not known any more).
    pub(super) log: Option<&'s [Value]>,
    /// What the log wants shown.
    pub(super) wanted: Option<&'s [Value]>,
    /// Every differing value is one that the row had before.
    pub(super) earlier: bool,
    /// The row stands under another key now.
    pub(super) moved: Option<(&'s Key, &'s Key)>,
    /// The file shows the content of another row here, which is gone; or this is the one that is gone.
    pub(super) borrowed: bool,
}

/// What is to be done with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) cause: DriftCause,
    pub(super) action: DriftAction,
}

impl Judged {
    const fn new(cause: DriftCause, action: DriftAction) -> Judged {
        Judged { cause, action }
    }

    /// Whether so many rows of a table are captured that a person should see them first.
    pub(super) fn too_many(captured: u64, rows: u64) -> bool {
        captured > CAPTURED_FREE.max(rows / 4)
    }
}

/// The rule above. `not_null`: by column, whether NULL is refused.
pub(super) fn judge(not_null: &[bool], seen: &Seen<'_>) -> Judged {
    use DriftAction as Do;
    use DriftCause as Why;
    if let Some((from, to)) = seen.moved {
        let rot = Judged::new(Why::BitRot, Do::Rewritten);
        return if are_near(from, to) { rot } else { Judged::new(Why::WrittenUnmarked, Do::Captured) };
    }
    if seen.borrowed && seen.wanted != seen.file {
        return Judged::new(Why::BitRot, Do::Rewritten);
    }
    let Some(file) = seen.file else { return Judged::new(Why::LostUnmarked, Do::Rewritten) };
    let Some(log) = seen.log else {
        return if seen.earlier {
            Judged::new(Why::Earlier, Do::Removed)
        } else {
            Judged::new(Why::WrittenUnmarked, Do::Captured)
        };
    };
    if seen.wanted == Some(file) && log != file {
        return Judged::new(Why::ApplyNotNoted, Do::TakenOver);
    }
    if is_impossible(not_null, file, log) || is_rotten(file, log) {
        return Judged::new(Why::BitRot, Do::Rewritten);
    }
    if seen.earlier {
        return Judged::new(Why::Earlier, Do::Rewritten);
    }
    Judged::new(Why::WrittenUnmarked, Do::Captured)
}

/// Positions of the columns that differ.
pub(super) fn differing(file: &[Value], log: &[Value]) -> Vec<usize> {
    let width = file.len().max(log.len());
    (0..width).filter(|column| file.get(*column) != log.get(*column)).collect()
}

/// Whether one key may be the other with a flipped bit.
pub(super) fn are_near(one: &Key, other: &Key) -> bool {
    bits_between(one, other).is_some_and(|bits| bits <= BITS_MAX)
}

/// A value that no statement could have stored there.
fn is_impossible(not_null: &[bool], file: &[Value], log: &[Value]) -> bool {
    differing(file, log).into_iter().any(|column| {
        let (Some(value), Some(known)) = (file.get(column), log.get(column)) else { return false };
        let text = |value: &Value| match value {
            Value::Text(bytes) => Some(std::str::from_utf8(bytes).is_ok()),
            _ => None,
        };
        let refused = value.is_null() && not_null.get(column) == Some(&true);
        let control = |value: &Value| match value {
            Value::Text(bytes) => bytes.iter().any(|byte| *byte < 0x20 && !b"\t\n\r".contains(byte)),
            _ => false,
        };
        refused || text(value) == Some(false) && text(known) != Some(false) || control(value) && !control(known)
    })
}

/// Whether two rows differ by a few bits, or by the borders between their columns alone.
fn is_rotten(file: &[Value], log: &[Value]) -> bool {
    if let Some(bits) = bits_between(file, log) {
        return bits <= BITS_MAX;
    }
    // A bit of a record's header moves the borders: many columns differ, though hardly a byte does.
    let (one, other) = (stored_bytes(file), stored_bytes(log));
    let prefix = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
    let left = one.len().min(other.len()) - prefix;
    let suffix = one.iter().rev().zip(other.iter().rev()).take(left).take_while(|(a, b)| a == b).count();
    let columns = differing(file, log).len();
    columns >= 2 && prefix + suffix + 1 >= one.len().max(other.len())
}

/// Bits that differ between two rows whose values are stored alike; `None`: they are not.
fn bits_between(one: &[Value], other: &[Value]) -> Option<u32> {
    if one.len() != other.len() {
        return None;
    }
    let of_bytes = |a: &[u8], b: &[u8]| {
        (a.len() == b.len()).then(|| a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>())
    };
    let mut bits = 0;
    for (one, other) in one.iter().zip(other) {
        bits += match (one, other) {
            (Value::Null, Value::Null) => 0,
            (Value::Integer(a), Value::Integer(b)) => (a ^ b).count_ones(),
            (Value::Real(a), Value::Real(b)) => (a ^ b).count_ones(),
            (Value::Text(a), Value::Text(b)) | (Value::Blob(a), Value::Blob(b)) => of_bytes(a, b)?,
            // The kind of a value is a bit of its header.
            (Value::Text(a), Value::Blob(b)) | (Value::Blob(a), Value::Text(b)) => 1 + of_bytes(a, b)?,
            _ => return None,
        };
    }
    Some(bits)
}

/// The bytes of a row's values one behind the other, as a SQLite record holds them.
fn stored_bytes(image: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in image {
        match value {
            Value::Null | Value::Integer(0 | 1) => {}
            Value::Integer(number) => {
                let all = number.to_be_bytes();
                let width = [1, 2, 3, 4, 6, 8].into_iter().find(|width| {
                    let shift = 64 - 8 * *width as u32;
                    number << shift >> shift == *number
                });
                bytes.extend_from_slice(&all[8 - width.unwrap_or(8)..]);
            }
            Value::Real(bits) => bytes.extend_from_slice(&bits.to_be_bytes()),
            Value::Text(text) | Value::Blob(text) => bytes.extend_from_slice(text),
        }
    }
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NOT_NULL: [bool; 3] = [true, true, false];

    fn row(text: &str, points: i64) -> Vec<Value> {
        vec![Value::Integer(7), Value::text(text), Value::Integer(points)]
    }

    fn of(file: &[Value], log: &[Value], earlier: bool) -> (DriftCause, DriftAction) {
        let judged = judge(&NOT_NULL, &Seen { file: Some(file), log: Some(log), earlier, ..Seen::default() });
        (judged.cause, judged.action)
    }

    #[test]
    fn a_bit_is_rot_an_edit_is_captured_an_old_value_is_written_again() {
        use DriftAction::{Captured, Rewritten};
        use DriftCause::{BitRot, Earlier, WrittenUnmarked};
        let log = row("strong defence", 12);
        let mut flipped = log.clone();
        flipped[1] = Value::text("strong dEfence");
        assert_eq!(of(&flipped, &log, false), (BitRot, Rewritten));
        assert_eq!(of(&row("weak defence", 12), &log, false), (WrittenUnmarked, Captured));
        assert_eq!(of(&row("weak defence", 12), &log, true), (Earlier, Rewritten));
        // The border between two columns moved by a byte: the same bytes.
        let moved = [Value::Integer(7), Value::text("strong defenc"), Value::Integer(i64::from(b'e') << 8 | 12)];
        assert_eq!(of(&moved, &log, false), (BitRot, Rewritten));
        let null = [Value::Integer(7), Value::Null, Value::Integer(99)];
        assert_eq!(of(&null, &log, false), (BitRot, Rewritten), "NULL in a column that refuses it");
        let broken = [Value::Integer(7), Value::Text(vec![0xff, 0xfe, b'x']), Value::Integer(12)];
        assert_eq!(of(&broken, &log, false), (BitRot, Rewritten));
    }

    #[test]
    fn rows_that_came_or_went() {
        let (log, file) = (row("a", 1), row("b", 2));
        let of = |seen: Seen<'_>| judge(&NOT_NULL, &seen);
        let gone = of(Seen { log: Some(&log), ..Seen::default() });
        assert_eq!(gone, Judged::new(DriftCause::LostUnmarked, DriftAction::Rewritten));
        let new = of(Seen { file: Some(&file), ..Seen::default() });
        assert_eq!(new, Judged::new(DriftCause::WrittenUnmarked, DriftAction::Captured));
        let old = of(Seen { file: Some(&file), earlier: true, ..Seen::default() });
        assert_eq!(old, Judged::new(DriftCause::Earlier, DriftAction::Removed));
        let (from, near, far) = (vec![Value::Integer(57)], vec![Value::Integer(313)], vec![Value::Integer(1000)]);
        let bit = of(Seen { file: Some(&log), moved: Some((&from, &near)), ..Seen::default() });
        assert_eq!(bit, Judged::new(DriftCause::BitRot, DriftAction::Rewritten));
        let other = of(Seen { file: Some(&log), moved: Some((&from, &far)), ..Seen::default() });
        assert_eq!(other, Judged::new(DriftCause::WrittenUnmarked, DriftAction::Captured));
        let seen = Seen { file: Some(&file), log: Some(&log), wanted: Some(&log), borrowed: true, ..Seen::default() };
        assert_eq!(of(seen.clone()), Judged::new(DriftCause::BitRot, DriftAction::Rewritten));
        let gone = of(Seen { file: None, ..seen });
        assert_eq!(gone, Judged::new(DriftCause::BitRot, DriftAction::Rewritten));
        let shown = of(Seen { file: Some(&file), log: Some(&log), wanted: Some(&file), ..Seen::default() });
        assert_eq!(shown, Judged::new(DriftCause::ApplyNotNoted, DriftAction::TakenOver));
    }

    #[test]
    fn a_file_that_somebody_encrypted_is_not_taken_for_the_truth() {
        assert!(!Judged::too_many(50, 10) && Judged::too_many(51, 100));
        assert!(!Judged::too_many(250, 1_000) && Judged::too_many(251, 1_000));
    }
}
