//! R5 under a rule: what the writes to one cell add up to (`max`, `min`, `counter`, `set`, else the last writer).
//!
//! A rule governs the writes whose authors knew it, and only those: what was written before, or by a server that had not
//! heard of it yet, is one value beside them, the winner by last-writer. So a rule that comes to a column changes nothing
//! that is shown, an old mistake does not come back as the greatest value, and switching `counter` off and on again does
//! not count twice. Writes are kept apart by which rules their authors knew ([`Part::known`]); each part is a sum, a
//! maximum or a last-per-element, all free of order, and the parts are put together anew whenever the rule in force
//! changes. Nothing is ever read again from the log.
//!
//! - `max`, `min`: SQLite's order of values, except that NULL loses to everything in both (as in SQL's own `min()`).
//! - `counter`: the strongest whole number that is no step, plus all steps. A number written by somebody who did not know
//!   the rule knew none of the steps either, so nothing counts twice. What is no whole number is shown while it is the last
//!   write, and counting goes on where it was.
//! - `set`: the strongest list that is no edit; per element the last edit decides. What is no list is shown while it is the
//!   last write.
//!
//! Invariants: a function of the set of writes and the rules; the same write added twice changes nothing (steps are sums
//! per origin, with the last change that is in them). [`CellState::cell`] is always what shall be shown.
//! Callers: integration ([`Tally::add`]), rules (when one changes), the view of a class ([`fold`]), node (capture).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::lists;
use super::rules::Ruling;
use super::store::CellState;
use crate::model::{Cell, Dot, OriginId, Rule, Stamp, Value};

/// One write to a cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The value, without its difference.
    pub cell: Cell,
    /// Its stamp.
    pub stamp: Stamp,
    /// The change that wrote it.
    pub dot: Dot,
    /// Whether the row was born with it: then any update beats it.
    pub born: bool,
}

/// What a cell must keep because its column has, or had, a rule. Boxed in few cells, absent in most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// By the rules known, ascending; in a class also by member.
    pub parts: Vec<Part>,
}

/// The writes of authors who knew the same rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The rules of the column that are more than last-writer, as far as the authors knew them, ascending.
    pub known: Vec<Dot>,
    /// The place of its row among the members of a class; 0 in a stored row.
    pub member: u16,
    /// The last writer's value.
    pub last: Write,
    /// The greatest value.
    pub greatest: Option<Write>,
    /// The least value.
    pub least: Option<Write>,
    /// The strongest whole number that is no step.
    pub number: Option<Write>,
    /// The strongest list that is no edit.
    pub list: Option<Write>,
    /// Sums of the steps, by origin: the last one counted (sequence, position), and the sum.
    pub steps: Vec<(OriginId, (u64, u32), i128)>,
    /// Per element its last edit: whether it is there.
    pub edits: BTreeMap<Vec<u8>, (Stamp, Dot, bool)>,
}

impl Tally {
    /// Adds a write to what a cell holds already. `kinds`: the rules known to its author, as in `known`.
    pub(super) fn add(old: Option<&CellState>, new: &CellState, known: Vec<Dot>, kinds: &BTreeSet<Rule>) -> Tally {
        let mut tally = Tally { parts: old.map(|state| parts(state, 0)).unwrap_or_default() };
        let write = Write { cell: new.cell.without_difference(), stamp: new.stamp, dot: new.dot, born: new.born };
        match tally.parts.binary_search_by(|part| part.known.cmp(&known)) {
            Ok(position) => tally.parts[position].add(&new.cell, &write, kinds),
            Err(position) => {
                let mut part = Part::new(known, 0, write.clone());
                part.add(&new.cell, &write, kinds);
                tally.parts.insert(position, part);
            }
        }
        tally
    }

    /// The cell that these writes make under a rule. Without anybody who knew a rule, no tally is kept.
    pub(super) fn show(self, column: u16, ruling: &Ruling) -> Option<CellState> {
        let write = shown(ruling, &self.parts)?;
        let plain = matches!(&self.parts[..], [part] if part.known.is_empty());
        let tally = (!plain).then(|| Box::new(self));
        Some(CellState { column, cell: write.cell, stamp: write.stamp, dot: write.dot, born: write.born, tally })
    }
}

impl Part {
    fn new(known: Vec<Dot>, member: u16, last: Write) -> Part {
        let (steps, edits) = (Vec::new(), BTreeMap::new());
        Part { known, member, last, greatest: None, least: None, number: None, list: None, steps, edits }
    }

    fn add(&mut self, cell: &Cell, write: &Write, kinds: &BTreeSet<Rule>) {
        if strength(write) > strength(&self.last) {
            self.last = write.clone();
        }
        if kinds.contains(&Rule::Max) {
            keep(&mut self.greatest, write, |new, old| above(new, old, false));
        }
        if kinds.contains(&Rule::Min) {
            keep(&mut self.least, write, |new, old| above(new, old, true));
        }
        match cell {
            Cell::Step { by, .. } => self.count(write.dot, *by),
            Cell::Edit(edit) => {
                let all = edit.added.iter().map(|element| (element, true));
                for (element, there) in all.chain(edit.removed.iter().map(|element| (element, false))) {
                    let new = (write.stamp, write.dot, there);
                    let last = self.edits.entry(element.clone()).or_insert(new);
                    *last = (*last).max(new);
                }
            }
            Cell::Plain(value) => {
                if kinds.contains(&Rule::Counter) && value.as_integer().is_some() {
                    keep(&mut self.number, write, |new, old| strength(new) > strength(old));
                }
                if kinds.contains(&Rule::Set) && lists::elements(value).is_some() {
                    keep(&mut self.list, write, |new, old| strength(new) > strength(old));
                }
            }
            Cell::Ref(_) => {}
        }
    }

    fn count(&mut self, dot: Dot, by: i64) {
        let at = (dot.seq, dot.index);
        match self.steps.binary_search_by_key(&dot.origin, |(origin, _, _)| *origin) {
            // An origin's changes come in their order: what is not behind the last one was counted.
            Ok(position) if self.steps[position].1 < at => {
                let (_, last, sum) = &mut self.steps[position];
                (*last, *sum) = (at, sum.saturating_add(i128::from(by)));
            }
            Ok(_) => {}
            Err(position) => self.steps.insert(position, (dot.origin, at, i128::from(by))),
        }
    }
}

impl CellState {
    /// The greatest stamp of all writes to the cell: what a later write's stamp must exceed.
    pub fn latest(&self) -> Stamp {
        let lasts = self.tally.iter().flat_map(|tally| &tally.parts).map(|part| part.last.stamp);
        lasts.fold(self.stamp, Stamp::max)
    }
}

/// One cell over several rows that are one: the members' cells of one column, the canonical row's first, then in the order
/// of seniority (members without such a cell left out). `None` of none.
pub fn fold(ruling: &Ruling, members: &[&CellState]) -> Option<CellState> {
    let column = members.first()?.column;
    let all = members.iter().enumerate().flat_map(|(member, state)| parts(state, member as u16));
    let tally = Tally { parts: all.collect() };
    let mut state = tally.show(column, ruling)?;
    if members.iter().all(|member| member.tally.is_none()) {
        state.tally = None;
    }
    Some(state)
}

/// What a counter has counted: the number that a step adds to.
pub fn counted(ruling: &Ruling, state: &CellState) -> i128 {
    count(ruling, &parts(state, 0))
}

/// The elements of a set, whether or not the last write shows them.
pub fn present(ruling: &Ruling, state: &CellState) -> BTreeSet<Vec<u8>> {
    gather(ruling, &parts(state, 0)).0
}

/// A cell's writes as parts.
fn parts(state: &CellState, member: u16) -> Vec<Part> {
    let of_class = |tally: &Tally| tally.parts.iter().any(|part| part.member > 0);
    match &state.tally {
        Some(tally) if of_class(tally) => tally.parts.clone(),
        Some(tally) => tally.parts.iter().map(|part| Part { member, ..part.clone() }).collect(),
        None => {
            let (cell, stamp, dot, born) = (state.cell.clone(), state.stamp, state.dot, state.born);
            vec![Part::new(Vec::new(), member, Write { cell, stamp, dot, born })]
        }
    }
}

fn shown(ruling: &Ruling, parts: &[Part]) -> Option<Write> {
    let last = strongest(parts.iter().map(|part| (part.member, &part.last)))?;
    Some(match ruling.rule {
        Rule::Max => extreme(ruling, parts, false).unwrap_or(last).clone(),
        Rule::Min => extreme(ruling, parts, true).unwrap_or(last).clone(),
        Rule::Counter if parts.iter().any(|part| ruling.governs(part)) && is_number(&last.cell) => {
            let sum = count(ruling, parts).clamp(i64::MIN.into(), i64::MAX.into()) as i64;
            Write { cell: Cell::Plain(Value::Integer(sum)), ..last.clone() }
        }
        Rule::Set if parts.iter().any(|part| ruling.governs(part)) => match &last.cell {
            Cell::Plain(value) if lists::elements(value).is_some() => {
                let (present, base) = gather(ruling, parts);
                Write { cell: Cell::Plain(lists::written_like(value, &present, base.as_ref())), ..last.clone() }
            }
            _ => last.clone(),
        },
        _ => last.clone(),
    })
}

fn is_number(cell: &Cell) -> bool {
    matches!(cell, Cell::Plain(Value::Integer(_)))
}

/// The last writer's value among those whom the rule does not govern, and the strongest start among the others.
fn base<'p>(ruling: &Ruling, parts: &'p [Part]) -> Option<&'p Write> {
    strongest(parts.iter().filter_map(|part| {
        let write = match (ruling.governs(part), ruling.rule) {
            (true, Rule::Set) => part.list.as_ref(),
            (true, _) => part.number.as_ref(),
            (false, _) => Some(&part.last),
        };
        write.map(|write| (part.member, write))
    }))
}

fn count(ruling: &Ruling, parts: &[Part]) -> i128 {
    let start = match base(ruling, parts).map(|write| &write.cell) {
        Some(Cell::Plain(Value::Integer(number))) => i128::from(*number),
        _ => 0,
    };
    let steps = parts.iter().filter(|part| ruling.governs(part)).flat_map(|part| &part.steps);
    steps.fold(start, |sum, (_, _, steps)| sum.saturating_add(*steps))
}

/// The elements of a set, and the value it started from.
fn gather(ruling: &Ruling, parts: &[Part]) -> (BTreeSet<Vec<u8>>, Option<Value>) {
    let base = match base(ruling, parts).map(|write| &write.cell) {
        Some(Cell::Plain(value)) => Some(value.clone()),
        _ => None,
    };
    let start = base.as_ref().and_then(lists::elements).unwrap_or_default();
    let mut present: BTreeSet<Vec<u8>> = start.into_iter().collect();
    let mut last: BTreeMap<&Vec<u8>, (Stamp, Dot, bool)> = BTreeMap::new();
    for (element, edit) in parts.iter().filter(|part| ruling.governs(part)).flat_map(|part| &part.edits) {
        let known = last.entry(element).or_insert(*edit);
        *known = (*known).max(*edit);
    }
    for (element, (_, _, there)) in last {
        if there {
            present.insert(element.clone())
        } else {
            present.remove(element)
        };
    }
    (present, base)
}

/// The greatest or least value that the rule's authors wrote, or what the others left.
fn extreme<'p>(ruling: &Ruling, parts: &'p [Part], least: bool) -> Option<&'p Write> {
    let others = parts.iter().filter(|part| !ruling.governs(part)).map(|part| (part.member, &part.last));
    let governed = parts.iter().filter(|part| ruling.governs(part));
    let tops = governed.filter_map(|part| if least { part.least.as_ref() } else { part.greatest.as_ref() });
    tops.chain(strongest(others)).reduce(|a, b| if above(b, a, least) { b } else { a })
}

fn keep(slot: &mut Option<Write>, new: &Write, wins: impl Fn(&Write, &Write) -> bool) {
    if slot.as_ref().is_none_or(|old| wins(new, old)) {
        *slot = Some(new.clone());
    }
}

/// The order in which writes of one row beat each other. Among values that rows were born with, one that says something
/// beats NULL, so that a re-import erases nothing.
fn strength(write: &Write) -> (bool, bool, Stamp, Dot) {
    (!write.born, !write.born || says_something(&write.cell), write.stamp, write.dot)
}

fn says_something(cell: &Cell) -> bool {
    !matches!(cell, Cell::Plain(Value::Null))
}

/// The strongest of several members' writes: births of different members by their seniority, all else as in one row.
fn strongest<'w>(writes: impl Iterator<Item = (u16, &'w Write)>) -> Option<&'w Write> {
    let order = |(a_member, a): &(u16, &Write), (b_member, b): &(u16, &Write)| {
        if a.born && b.born && a_member != b_member {
            let says = says_something(&a.cell).cmp(&says_something(&b.cell));
            return says.then(b_member.cmp(a_member));
        }
        strength(a).cmp(&strength(b))
    };
    writes.max_by(order).map(|(_, write)| write)
}

/// Whether `new` comes before `old` under `max` (or `min`); equal values go by who wrote last.
fn above(new: &Write, old: &Write, least: bool) -> bool {
    let order = match (&new.cell, &old.cell) {
        (Cell::Plain(Value::Null), Cell::Plain(Value::Null)) => Ordering::Equal,
        (Cell::Plain(Value::Null), _) => return false,
        (_, Cell::Plain(Value::Null)) => return true,
        (Cell::Plain(a), Cell::Plain(b)) => compare(a, b),
        (a, b) => a.cmp(b),
    };
    let order = if least { order.reverse() } else { order };
    order.then((new.stamp, new.dot).cmp(&(old.stamp, old.dot))) == Ordering::Greater
}

/// SQLite's order of values: NULL, numbers by value, texts, blobs.
pub fn compare(a: &Value, b: &Value) -> Ordering {
    let class = |value: &Value| match value {
        Value::Null => 0,
        Value::Integer(_) | Value::Real(_) => 1,
        Value::Text(_) => 2,
        Value::Blob(_) => 3,
    };
    match (a, b) {
        (Value::Integer(a), Value::Integer(b)) => a.cmp(b),
        (Value::Real(a), Value::Real(b)) => (f64::from_bits(*a) + 0.0).total_cmp(&(f64::from_bits(*b) + 0.0)),
        (Value::Integer(a), Value::Real(b)) => compare_mixed(*a, f64::from_bits(*b)),
        (Value::Real(a), Value::Integer(b)) => compare_mixed(*b, f64::from_bits(*a)).reverse(),
        (Value::Text(a), Value::Text(b)) | (Value::Blob(a), Value::Blob(b)) => a.cmp(b),
        _ => class(a).cmp(&class(b)),
    }
}

/// A whole number against a float, exactly.
fn compare_mixed(whole: i64, real: f64) -> Ordering {
    // 2^63 as a float; every float below it and not below -2^63 has its whole part in i64.
    const BOUND: f64 = 9_223_372_036_854_775_808.0;
    // SQLite holds no NaN; a forged one has the place that `total_cmp` gives it.
    if real < -BOUND || real.is_nan() && real.is_sign_negative() {
        return Ordering::Greater;
    }
    if real >= BOUND || real.is_nan() {
        return Ordering::Less;
    }
    let part = real.trunc();
    whole.cmp(&(part as i64)).then_with(|| 0.0f64.total_cmp(&(real - part + 0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_ordered_as_sqlite_orders_them() {
        let ascending = [
            Value::Null,
            Value::real(f64::NEG_INFINITY),
            Value::Integer(i64::MIN),
            Value::real(-1.5),
            Value::Integer(-1),
            Value::Integer(0),
            Value::real(0.5),
            Value::Integer((1 << 53) + 1),
            Value::real(9_007_199_254_740_994.0),
            Value::Integer(i64::MAX),
            Value::real(9_223_372_036_854_775_808.0),
            Value::text(""),
            Value::text("a"),
            Value::Blob(vec![]),
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{a} {b}");
            }
        }
        for (a, b) in [(Value::Integer(1), Value::real(1.0)), (Value::real(0.0), Value::real(-0.0))] {
            assert_eq!(compare(&a, &b), Ordering::Equal);
        }
    }
}
