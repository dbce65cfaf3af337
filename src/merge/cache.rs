//! The rows that one evaluator has met, as they are so far.
//!
//! Nearly every question about a row is followed by another one about the same row or the one that was met behind it: these
//! two are found without a search. Records are shared: a view of a row costs no copy, and one that changes while somebody holds a view is copied
//! then. Invariant: a row is read from the store once; [`RowCache::changed`] names, ascending, exactly those that somebody
//! could have written to. Caller: [`super::Evaluator`].

use std::collections::BTreeMap;
use std::sync::Arc;

use super::store::Row;
use crate::model::RowId;

/// Rows by identity; also those that the store does not know.
#[derive(Default)]
pub(super) struct RowCache {
    places: BTreeMap<RowId, usize>,
    slots: Vec<Slot>,
    /// The place of the row asked for last.
    last: usize,
}

struct Slot {
    id: RowId,
    row: Option<Arc<Row>>,
    changed: bool,
    /// The store did not know it.
    new: bool,
}

impl RowCache {
    /// The place of a row that was met.
    pub(super) fn place(&mut self, id: &RowId) -> Option<usize> {
        let beside = self.slots.iter().enumerate().skip(self.last).take(2).find(|(_, slot)| slot.id == *id);
        self.last = match beside {
            Some((place, _)) => place,
            None => *self.places.get(id)?,
        };
        Some(self.last)
    }

    /// Adds a row as the store knows it; its place.
    pub(super) fn add(&mut self, id: RowId, row: Option<Arc<Row>>) -> usize {
        let place = self.slots.len();
        let new = row.is_none();
        self.slots.push(Slot { id, row, changed: false, new });
        self.places.insert(id, place);
        self.last = place;
        place
    }

    /// The row at a place.
    pub(super) fn at(&self, place: usize) -> Option<&Arc<Row>> {
        self.slots[place].row.as_ref()
    }

    /// The same, to be changed.
    pub(super) fn at_mut(&mut self, place: usize) -> Option<&mut Row> {
        let slot = &mut self.slots[place];
        slot.changed = true;
        slot.row.as_mut().map(Arc::make_mut)
    }

    /// Puts another record at a place.
    pub(super) fn replace(&mut self, place: usize, row: Row) {
        let slot = &mut self.slots[place];
        (slot.row, slot.changed) = (Some(Arc::new(row)), true);
    }

    /// All rows that were met and are known, ascending.
    pub(super) fn known(&self) -> impl Iterator<Item = (&RowId, &Arc<Row>)> {
        self.places.iter().filter_map(|(id, place)| self.at(*place).map(|row| (id, row)))
    }

    /// The rows that may have changed, ascending, and whether the store did not know them.
    pub(super) fn changed(&self) -> impl Iterator<Item = (&RowId, &Arc<Row>, bool)> {
        let changed = self.places.iter().filter(|(_, place)| self.slots[**place].changed);
        changed.filter_map(|(id, place)| self.at(*place).map(|row| (id, row, self.slots[*place].new)))
    }
}
