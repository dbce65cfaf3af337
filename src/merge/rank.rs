//! Seniority: the clock-free total order K of births, and where displaced ids go.
//!
//! Invariant: fixed with membership, the same on every node. Callers: the evaluator; node fills it from the members.

use std::collections::BTreeMap;

use super::store::Row;
use crate::model::{Bug, OriginId, RowId, planted};

/// Rank and slot of every origin's node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranks(BTreeMap<OriginId, (u32, u32)>);

/// K(b): the place of a row in the order of seniority; the least wins an id. Rows found at enrolment come first, in the
/// order of their content; then (rank, origin, sequence, position).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seniority {
    class: u8,
    rank: u32,
    row: RowId,
}

impl Ranks {
    /// Sets rank and slot of an origin's node.
    pub fn set(&mut self, origin: OriginId, rank: u32, slot: u32) {
        self.0.insert(origin, (rank, slot));
    }

    /// Whether the origin is known.
    pub fn knows(&self, origin: &OriginId) -> bool {
        self.0.contains_key(origin)
    }

    /// Seniority of a row.
    pub fn seniority(&self, id: &RowId, row: &Row) -> Seniority {
        let rank_of = |origin: &OriginId| self.0.get(origin).map_or(u32::MAX, |entry| entry.0);
        let (class, rank) = match id {
            RowId::Genesis(_) => (0, 0),
            // Seconds: within one, the birth itself decides.
            RowId::Born(_) if planted(Bug::IdsByClock) => {
                (1, row.births.first().map_or(0, |(_, stamp)| (stamp.wall_ms() / 1000) as u32))
            }
            RowId::Born(birth) => (1, rank_of(&birth.origin)),
            RowId::Keyed(_) => (1, row.births.iter().map(|(dot, _)| rank_of(&dot.origin)).min().unwrap_or(u32::MAX)),
        };
        Seniority { class, rank, row: *id }
    }

    /// Rank of the author of a change; unknown origins come last.
    pub fn place(&self, dot: &crate::model::Dot) -> u32 {
        self.0.get(&dot.origin).map_or(u32::MAX, |entry| entry.0)
    }

    /// The slot that decides where a row's id goes when it loses its claim: its origin's, 0 for rows found at enrolment.
    pub fn slot(&self, id: &RowId) -> u32 {
        match id {
            RowId::Born(birth) => self.0.get(&birth.origin).map_or(0, |entry| entry.1),
            RowId::Genesis(_) | RowId::Keyed(_) => 0,
        }
    }
}
