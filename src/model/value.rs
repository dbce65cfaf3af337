//! SQLite values, exactly: what the app stored is what the far node stores, bit for bit.
//!
//! Invariant: text is raw bytes (SQLite keeps NULs and invalid UTF-8), reals are compared and hashed by their bits, so
//! `1` and `1.0`, `0.0` and `-0.0` stay different values. Callers: every module that carries a cell.

use serde::{Deserialize, Serialize};

/// One SQLite value. The order is total (type first, then content) and means nothing to SQL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A 64-bit integer.
    Integer(i64),
    /// A 64-bit float, as its IEEE 754 bits.
    Real(u64),
    /// Text as the raw bytes of its UTF-8 form; may hold NULs and invalid UTF-8.
    Text(Vec<u8>),
    /// A blob.
    Blob(Vec<u8>),
}

/// The values of a row's key columns, in key order (a rowid table without a declared key: its rowid).
pub type Key = Vec<Value>;

impl Value {
    /// A real value from a float.
    pub fn real(value: f64) -> Value {
        Value::Real(value.to_bits())
    }

    /// A text value from valid UTF-8.
    pub fn text(value: &str) -> Value {
        Value::Text(value.as_bytes().to_vec())
    }

    /// The integer held, if it is one.
    pub fn as_integer(&self) -> Option<i64> {
        if let Value::Integer(value) = self { Some(*value) } else { None }
    }

    /// Whether this is SQL NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Appends the canonical, self-delimiting bytes used for hashes and index keys: equal values give equal bytes,
    /// different values different bytes.
    pub fn write_canonical(&self, out: &mut Vec<u8>) {
        match self {
            Value::Null => out.push(0),
            Value::Integer(value) => {
                out.push(1);
                out.extend_from_slice(&value.to_be_bytes());
            }
            Value::Real(bits) => {
                out.push(2);
                out.extend_from_slice(&bits.to_be_bytes());
            }
            Value::Text(bytes) => write_bytes(3, bytes, out),
            Value::Blob(bytes) => write_bytes(4, bytes, out),
        }
    }

    /// Bytes this value takes in memory and, nearly, on the wire.
    pub fn weight(&self) -> usize {
        match self {
            Value::Null => 1,
            Value::Integer(_) | Value::Real(_) => 9,
            Value::Text(bytes) | Value::Blob(bytes) => 5 + bytes.len(),
        }
    }
}

fn write_bytes(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// How a person reads the value: SQL literals, text cut after 80 characters, blobs by length.
impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Null => write!(f, "NULL"),
            Value::Integer(value) => write!(f, "{value}"),
            Value::Real(bits) => write!(f, "{:?}", f64::from_bits(*bits)),
            Value::Text(bytes) => {
                let text = String::from_utf8_lossy(bytes);
                let cut: String = text.chars().take(80).collect();
                let more = if cut.len() < text.len() { "…" } else { "" };
                write!(f, "'{}{more}'", cut.replace('\'', "''"))
            }
            Value::Blob(bytes) => write!(f, "blob of {} bytes", bytes.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_bytes_tell_all_values_apart() {
        let values = [
            Value::Null,
            Value::Integer(1),
            Value::real(1.0),
            Value::real(0.0),
            Value::real(-0.0),
            Value::text(""),
            Value::text("1"),
            Value::Blob(b"1".to_vec()),
            Value::Text(vec![0xff, 0]),
        ];
        for (i, a) in values.iter().enumerate() {
            for (j, b) in values.iter().enumerate() {
                let (mut x, mut y) = (Vec::new(), Vec::new());
                a.write_canonical(&mut x);
                b.write_canonical(&mut y);
                assert_eq!(x == y, i == j, "{a:?} against {b:?}");
            }
        }
    }
}
