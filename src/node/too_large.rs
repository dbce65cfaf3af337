//! Rows that no event can hold: larger than what peers take.
//!
//! Such a row stays on its server, its marks are cleared, and a person is told; it holds up nobody. When it has become
//! smaller it is captured like any other. Invariant: no event is written that peers would refuse, because with it they would
//! refuse everything that this node writes after it. Caller: `step`.

use std::collections::BTreeSet;

use super::Node;
use crate::model::{Key, Value};
use crate::sqlite::{Drain, Image, Mark, MarkOp};
use crate::wire::limits;

impl Node {
    /// Rows that no event can hold stay on this server, and a person is told.
    pub(super) fn tell_too_large(&mut self, position: usize, drain: &Drain) {
        let tables: BTreeSet<&str> = too_large(drain).into_iter().map(|(table, _)| table.as_str()).collect();
        for table in tables {
            let name = self.databases[position].settings.name.clone();
            self.alert(format!(
                "a row of {name}.{table} holds more than {} MiB: it stays on this server until it is smaller; keep such content in \
                 files",
                limits::VALUE_BYTES_MAX >> 20
            ));
        }
    }
}

/// Rows of a drain that no event can hold: peers would refuse it, and with it everything this node writes after it.
pub(super) fn too_large(drain: &Drain) -> BTreeSet<&(String, Key)> {
    let bytes = |value: &Value| match value {
        Value::Text(bytes) | Value::Blob(bytes) => bytes.len(),
        Value::Null | Value::Integer(_) | Value::Real(_) => 0,
    };
    let large = |image: &Image| image.iter().map(bytes).sum::<usize>() > limits::VALUE_BYTES_MAX;
    drain.images.iter().filter(|(_, image)| image.as_ref().is_some_and(large)).map(|(row, _)| row).collect()
}

/// Whether a mark says what one of these rows holds. That an earlier row under the same key went is said all the same.
pub(super) fn is_about(mark: &Mark, rows: &BTreeSet<&(String, Key)>) -> bool {
    mark.op != MarkOp::Delete && rows.iter().any(|(table, key)| *table == mark.table && *key == mark.key)
}
