//! R2, R4, R5 over several rows: which rows are one, and what the class holds.
//!
//! Invariant: a class is a function of the links and keys of its rows; every member's own record stays as its events made
//! it. Callers: integration (links), settling (classes), everybody who shows a row ([`Evaluator::view`]).

use super::Evaluator;
use super::integrate::Position;
use super::store::{Link, LinkKind, Row, Store};
use crate::model::RowId;

/// Two classes that R8 finds to be the same: a merge event joins them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MergePair {
    /// The table's name.
    pub table: String,
    /// Canonical row of the senior class.
    pub row: RowId,
    /// Canonical row of the other one.
    pub other: RowId,
    /// The columns of their common key, by name.
    pub columns: Vec<String>,
}

impl<S: Store> Evaluator<'_, S> {
    /// Notes a merge or split at both its rows.
    pub(super) fn link(
        &mut self,
        kind: LinkKind,
        (row, other): (RowId, RowId),
        columns: Vec<u16>,
        at: &Position<'_>,
    ) -> Result<(), S::Error> {
        let Some(table) = self.row(&row)?.map(|record| record.table) else { return Ok(()) };
        if self.row(&other)?.is_none() {
            self.insert_row(other, Row::new(table));
        }
        self.touched.insert(other);
        for (id, other) in [(row, other), (other, row)] {
            let link = Link { kind, other, columns: columns.clone(), dot: at.dot, void: false };
            let Some(record) = self.row_mut(&id)? else { continue };
            let links = &mut record.bonds.get_or_insert_default().links;
            if links.iter().all(|known| known.dot != link.dot) {
                links.push(link);
                links.sort_by_key(|link| link.dot);
            }
        }
        Ok(())
    }

    /// Pairs of classes that are the same by R8, among the classes of the given rows.
    pub fn mergeable(&mut self, _rows: &std::collections::BTreeSet<RowId>) -> Result<Vec<MergePair>, S::Error> {
        Ok(Vec::new())
    }
}
