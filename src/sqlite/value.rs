//! rusqlite's values and ours, bit for bit.
//!
//! Invariant: what is bound is what is read back: text goes as raw bytes, reals by their bits. One exception is
//! SQLite's own: NaN becomes NULL. Callers: drain, apply, scan, rebuild.

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Row};

use crate::model::{Key, Value};

/// A value on its way into a statement.
pub(super) struct Bound<'a>(pub(super) &'a Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Integer(value) => ValueRef::Integer(*value),
            Value::Real(bits) => ValueRef::Real(f64::from_bits(*bits)),
            Value::Text(bytes) => ValueRef::Text(bytes),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// Binds values to the parameters from `first` (1-based) on.
pub(super) fn bind<'a>(
    statement: &mut CachedStatement<'_>,
    first: usize,
    values: impl IntoIterator<Item = &'a Value>,
) -> rusqlite::Result<()> {
    for (offset, value) in values.into_iter().enumerate() {
        statement.raw_bind_parameter(first + offset, Bound(value))?;
    }
    Ok(())
}

/// A value out of a row.
pub(super) fn read(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Integer(value),
        ValueRef::Real(value) => Value::real(value),
        ValueRef::Text(bytes) => Value::Text(bytes.to_vec()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

/// `count` values of a row from column `first` (0-based) on.
pub(super) fn read_columns(row: &Row<'_>, first: usize, count: usize) -> rusqlite::Result<Vec<Value>> {
    (first..first + count).map(|column| Ok(read(row.get_ref(column)?))).collect()
}

/// Whether a stored value is the one that was to be stored (NaN is stored as NULL).
pub(super) fn is_stored_as(wanted: &Value, stored: ValueRef<'_>) -> bool {
    match (wanted, stored) {
        (Value::Null, ValueRef::Null) => true,
        (Value::Integer(a), ValueRef::Integer(b)) => *a == b,
        (Value::Real(bits), ValueRef::Real(b)) => *bits == b.to_bits(),
        (Value::Real(bits), ValueRef::Null) => f64::from_bits(*bits).is_nan(),
        (Value::Text(a), ValueRef::Text(b)) | (Value::Blob(a), ValueRef::Blob(b)) => a == b,
        (Value::Null | Value::Integer(_) | Value::Real(_) | Value::Text(_) | Value::Blob(_), _) => false,
    }
}

/// Whether a key holds a NULL: such a row cannot be told from others.
pub(super) fn has_null(key: &Key) -> bool {
    key.iter().any(Value::is_null)
}
