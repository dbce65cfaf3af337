//! Capture's way from a reference to the row it names: whoever is there at the end, and foreign keys to a UNIQUE key.
//!
//! Invariant: as of the drain's snapshot: what the capture itself wrote comes before what the store shows. Caller:
//! [`super::capture`].

use super::capture::Capture;
use super::marks::Occupant;
use crate::merge::store::Store;
use crate::model::{DatabaseSchema, RowId, TableSchema, Value};

impl<S: Store> Capture<'_, '_, S> {
    pub(super) fn identity_of(&mut self, occupant: Occupant, depth: u32) -> Result<Option<RowId>, S::Error> {
        match occupant {
            Occupant::Existing(row) => Ok(Some(row)),
            Occupant::Fresh(fresh) if depth < 16 => match self.births.get(&fresh) {
                Some(row) => Ok(Some(*row)),
                None => self.keyed_identity(fresh, depth),
            },
            Occupant::Fresh(_) => Ok(None),
        }
    }

    /// The row that holds these values in columns other than its key: a foreign key to a UNIQUE key. `here`: the parent's
    /// table, when it is of this file.
    pub(super) fn named_by(
        &mut self,
        schema: &DatabaseSchema,
        here: Option<usize>,
        parent: &TableSchema,
        (columns, values): (&[usize], &[Value]),
        depth: u32,
    ) -> Result<Option<RowId>, S::Error> {
        if let Some(table) = here {
            let at = (table, columns.to_vec());
            if !self.named.contains_key(&at) {
                let held = self.reading.by_columns(self.schema, self.drain, table, columns);
                self.named.insert(at.clone(), held);
            }
            if let Some(occupant) = self.named[&at].get(values).copied() {
                return self.identity_of(occupant, depth);
            }
        }
        let row = self.evaluator.shown_by(&schema.database, parent, columns, values)?;
        // A row that was touched holds other values now, or it would have been found above.
        Ok(row.filter(|row| here.is_none() || !self.reading.existing.contains_key(row)))
    }
}
