//! R3: which row gets which id, a function of claims alone.
//!
//! For one id the claims form a forest (`after` = the row that held the id before, in the author's view). The occupant is
//! the most senior claimant, then the most senior of its successors, and so on; it holds the id dead or alive. Every other
//! claimant takes `id + STRIDE * (slot + 64 * j)`, the first that nobody claims and no more senior loser took.
//! Invariants: ids are unique; deletes and cell values never move an id; a row loses its claimed id at most once.
//! All ids that can meet share a remainder modulo [`STRIDE`], so one remainder is evaluated at a time.
//! Caller: the evaluator's settling.

use std::collections::{BTreeMap, BTreeSet};

use super::rank::Seniority;
use crate::model::{Bug, RowId, planted};

/// Distance by which displaced ids move, times (slot + 64 j): readable, explainable, below 2^31 in practice.
pub const STRIDE: i64 = 1_000_000;

/// Slots repeat after this many.
const SLOTS: i64 = 64;

/// One claim with what decides about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// The claimed id.
    pub id: i64,
    /// Who claims it.
    pub row: RowId,
    /// Its seniority.
    pub seniority: Seniority,
    /// Who held it before, in the author's view.
    pub after: Option<RowId>,
    /// Its origin's slot.
    pub slot: u32,
}

/// The remainder under which an id is kept.
pub fn remainder(id: i64) -> u32 {
    id.rem_euclid(STRIDE) as u32
}

/// The occupant of one id among its claimants (all with the same id; never empty).
pub fn occupant(claimants: &[&Claimant]) -> RowId {
    let rows: BTreeSet<RowId> = claimants.iter().map(|claimant| claimant.row).collect();
    let mut children: BTreeMap<RowId, Vec<&Claimant>> = BTreeMap::new();
    for claimant in claimants {
        if let Some(before) = claimant.after.filter(|before| rows.contains(before) && *before != claimant.row)
            && !planted(Bug::ClaimsIgnoreAfter)
        {
            children.entry(before).or_default().push(claimant);
        }
    }
    let eldest = |set: &[&Claimant]| set.iter().min_by_key(|claimant| claimant.seniority).map(|claimant| claimant.row);
    let mut current = eldest(claimants).expect("an id is only asked about when somebody claims it");
    let mut passed = BTreeSet::from([current]);
    loop {
        let mut descendants = Vec::new();
        let mut open = vec![current];
        let mut seen = passed.clone();
        while let Some(row) = open.pop() {
            for child in children.get(&row).into_iter().flatten() {
                if seen.insert(child.row) {
                    descendants.push(*child);
                    open.push(child.row);
                }
            }
        }
        match eldest(&descendants) {
            Some(next) => {
                passed.insert(next);
                current = next;
            }
            None => return current,
        }
    }
}

/// The id of every claimant of one remainder class.
pub fn assign(claimants: &[Claimant]) -> BTreeMap<RowId, i64> {
    let mut by_id: BTreeMap<i64, Vec<&Claimant>> = BTreeMap::new();
    for claimant in claimants {
        by_id.entry(claimant.id).or_default().push(claimant);
    }
    let mut ids = BTreeMap::new();
    let mut losers: Vec<&Claimant> = Vec::new();
    for (id, group) in &by_id {
        let holder = if group.len() == 1 { group[0].row } else { occupant(group) };
        ids.insert(holder, *id);
        losers.extend(group.iter().copied().filter(|claimant| claimant.row != holder));
    }
    losers.sort_by_key(|claimant| claimant.seniority);
    let mut taken: BTreeSet<i64> = by_id.keys().copied().collect();
    for loser in losers {
        let id = (0..)
            .map(|round| derived(loser.id, loser.slot, round))
            .find(|candidate| !taken.contains(candidate))
            .expect("there are more ids than claims");
        taken.insert(id);
        ids.insert(loser.row, id);
    }
    ids
}

/// The `round`-th candidate of a loser; beyond 2^63 the ids go down instead of up.
fn derived(id: i64, slot: u32, round: i64) -> i64 {
    let distance = STRIDE.saturating_mul(i64::from(slot) + SLOTS * round);
    id.checked_add(distance).unwrap_or_else(|| id - distance)
}

#[cfg(test)]
mod tests {
    use super::super::rank::Ranks;
    use super::super::store::{Row, TableId};
    use super::*;
    use crate::model::{Birth, OriginId, Stamp};

    fn claimant(origin: u8, seq: u64, id: i64, after: Option<RowId>) -> Claimant {
        let mut ranks = Ranks::default();
        ranks.set(OriginId([origin; 16]), u32::from(origin), u32::from(origin) + 1);
        let birth = Birth { origin: OriginId([origin; 16]), seq, index: 0 };
        let row = RowId::Born(birth);
        let record = Row { births: vec![(birth.dot(), Stamp(0))], ..Row::new(TableId(0)) };
        Claimant { id, row, seniority: ranks.seniority(&row, &record), after, slot: ranks.slot(&row) }
    }

    #[test]
    fn the_founder_keeps_its_id_and_the_joiner_moves_by_its_slot() {
        let (a, b) = (claimant(0, 1, 57, None), claimant(1, 1, 57, None));
        let ids = assign(&[b.clone(), a.clone()]);
        assert_eq!((ids[&a.row], ids[&b.row]), (57, 57 + 2 * STRIDE));
    }

    #[test]
    fn a_reused_id_belongs_to_its_newest_user() {
        let first = claimant(0, 1, 57, None);
        let second = claimant(1, 1, 57, Some(first.row));
        let ids = assign(&[first.clone(), second.clone()]);
        assert_eq!((ids[&second.row], ids[&first.row]), (57, 57 + STRIDE));
    }

    #[test]
    fn derived_ids_step_around_claimed_ones() {
        let (a, b) = (claimant(0, 1, 5, None), claimant(1, 1, 5, None));
        let native = claimant(0, 2, 5 + 2 * STRIDE, None);
        let ids = assign(&[a, b.clone(), native]);
        assert_eq!(ids[&b.row], 5 + STRIDE * (2 + 64));
    }

    #[test]
    fn the_greatest_id_does_not_overflow() {
        let (a, b) = (claimant(0, 1, i64::MAX, None), claimant(1, 1, i64::MAX, None));
        let ids = assign(&[a, b.clone()]);
        assert_eq!(ids[&b.row], i64::MAX - 2 * STRIDE);
    }

    #[test]
    fn links_that_form_a_ring_end() {
        let a = claimant(0, 1, 7, None);
        let b = claimant(1, 1, 7, Some(a.row));
        let ring = Claimant { after: Some(b.row), ..a };
        assert_eq!(assign(&[ring, b]).len(), 2);
    }
}
