//! Which rule holds for a table or column, and what changes when another one comes.
//!
//! Rules are changes of events. Of all rules for one table and column that answer the same question ([`Aspect`]) those
//! count that no other one's author knew, and of these the one with the greatest (stamp, event) holds: whoever changes a
//! rule changes it, also one that a wrong clock dated a year ahead. Equal rules that were set without knowing each other are one: several servers
//! started from the same config do not cut each other's counting ([`Ruling::reign`]). Invariants: a function of the set of
//! rules; a rule that comes after the values it governs finds nothing to do, because no author of them knew it
//! (see [`super::registers`]); rows that show something else by it are touched in the same transaction.
//! States of a question: default (of the schema) → ruled, for ever; `lww` is the way back for values.
//! Callers: integration, settling ([`Evaluator::held_up`]), UNIQUE ([`Evaluator::collision_rule`]), the view of a class
//! ([`Evaluator::ruling`]), node (capture, orders, `rules`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Evaluator;
use super::integrate::Position;
use super::registers::{Part, Tally};
use super::store::{CellState, Row, Store, TableId};
use super::{lists, registers};
use crate::model::{Aspect, Cell, Cut, Dot, Edit, RowId, Rule, Stamp, Value};

/// Rows looked at in one go when a rule changes.
const PAGE: usize = 1_000;

/// One rule as an event said it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RuleRecord {
    /// When; first, because of several the greatest record holds.
    pub stamp: Stamp,
    /// The change that says so.
    pub dot: Dot,
    /// The column; `None` for the whole table.
    pub column: Option<u16>,
    /// The rule.
    pub rule: Rule,
    /// The rules that its author knew and that answer the same question: it takes their place.
    pub replaced: Vec<Dot>,
}

/// The rule in force for a column's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// The rule.
    pub rule: Rule,
    /// The changes that set it: the one that holds, and the same rule set without knowing of that one. Who knew any of them
    /// wrote under the rule.
    pub reign: BTreeSet<Dot>,
}

/// All rules of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableRules {
    records: Vec<RuleRecord>,
    columns: BTreeMap<u16, Ruling>,
    deletes_win: bool,
    collisions: Option<Rule>,
    trees: BTreeSet<u16>,
}

impl Default for Ruling {
    fn default() -> Ruling {
        Ruling { rule: Rule::Lww, reign: BTreeSet::new() }
    }
}

impl Ruling {
    /// Whether the rule governs the writes of a part.
    pub(super) fn governs(&self, part: &Part) -> bool {
        part.known.iter().any(|dot| self.reign.contains(dot))
    }

    /// Whether two writes both count, so that none of them loses: steps of a counter, edits of a set.
    pub(super) fn adds_up(&self, one: &CellState, other: &CellState) -> bool {
        let both = |counts: fn(&Value) -> bool| {
            [one, other].iter().all(|state| matches!(&state.cell, Cell::Plain(value) if counts(value)))
        };
        match self.rule {
            Rule::Counter => both(|value| value.as_integer().is_some()),
            Rule::Set => both(|value| lists::elements(value).is_some()),
            _ => false,
        }
    }
}

impl RuleRecord {
    fn question(&self) -> (Option<u16>, Aspect) {
        (self.column, self.rule.aspect())
    }
}

impl TableRules {
    /// The rules that hold, one for each question.
    pub fn in_force(records: &[RuleRecord]) -> Vec<&RuleRecord> {
        let replaced: BTreeSet<&Dot> = records.iter().flat_map(|record| &record.replaced).collect();
        let mut held: BTreeMap<(Option<u16>, Aspect), &RuleRecord> = BTreeMap::new();
        for record in records.iter().filter(|record| !replaced.contains(&record.dot)) {
            let holder = held.entry(record.question()).or_insert(record);
            *holder = (*holder).max(record);
        }
        held.into_values().collect()
    }

    /// The rule for a column's values.
    pub fn ruling(&self, column: u16) -> Ruling {
        self.columns.get(&column).cloned().unwrap_or_default()
    }

    /// Whether a delete beats the updates its author did not know.
    pub fn deletes_win(&self) -> bool {
        self.deletes_win
    }

    /// Columns whose references must form a tree.
    pub(super) fn trees(&self) -> &BTreeSet<u16> {
        &self.trees
    }

    /// Rules of a column that are more than last-writer, whether or not they hold.
    fn beyond_lww(&self, column: u16) -> impl Iterator<Item = &RuleRecord> {
        let of_column = self.records.iter().filter(move |record| record.column == Some(column));
        of_column.filter(|record| matches!(record.rule, Rule::Max | Rule::Min | Rule::Counter | Rule::Set))
    }

    /// Whether writes of a column add up, or did, by some rule.
    pub(super) fn adds_up(&self, column: u16) -> bool {
        self.beyond_lww(column).next().is_some()
    }

    /// Those of them that the author of a change knew, and their kinds.
    pub(super) fn known(&self, column: u16, cut: &Cut, dot: &Dot) -> (Vec<Dot>, BTreeSet<Rule>) {
        let known: Vec<&RuleRecord> = self.beyond_lww(column).filter(|record| knew((cut, dot), &record.dot)).collect();
        let mut dots: Vec<Dot> = known.iter().map(|record| record.dot).collect();
        dots.sort();
        (dots, known.into_iter().map(|record| record.rule).collect())
    }
}

/// Whether the author of a change, whose event had this cut, knew another change.
fn knew((cut, dot): (&Cut, &Dot), other: &Dot) -> bool {
    if other.origin == dot.origin {
        return (other.seq, other.index) < (dot.seq, dot.index);
    }
    cut.get(&other.origin) >= other.seq
}

/// The changes that set the rule that holds: it, and the same rule set without either knowing of the other.
fn reign(held: &RuleRecord, records: &[RuleRecord]) -> BTreeSet<Dot> {
    let same = |other: &&RuleRecord| other.column == held.column && other.rule == held.rule;
    let apart = |other: &&RuleRecord| !held.replaced.contains(&other.dot) && !other.replaced.contains(&held.dot);
    records.iter().filter(same).filter(apart).map(|record| record.dot).collect()
}

impl<S: Store> Evaluator<'_, S> {
    /// All rules of a table.
    pub fn table_rules(&mut self, table: TableId) -> Result<&TableRules, S::Error> {
        if !self.rules.contains_key(&table) {
            let rules = self.load_rules(table)?;
            self.rules.insert(table, rules);
        }
        Ok(&self.rules[&table])
    }

    /// The rule for the values of a column.
    pub fn ruling(&mut self, table: TableId, column: u16) -> Result<Ruling, S::Error> {
        Ok(self.table_rules(table)?.ruling(column))
    }

    /// R8: what becomes of rows of a table with the same UNIQUE key: the cluster's rule, else what the schema suggests.
    pub fn collision_rule(&mut self, table: TableId) -> Result<Rule, S::Error> {
        if let Some(rule) = self.table_rules(table)?.collisions {
            return Ok(rule);
        }
        Ok(self.schema(table)?.map_or(Rule::UniqueMerge, |schema| schema.collisions))
    }

    /// R7: whether some touch of a row itself holds it up, under its table's rule.
    pub fn held_up(&mut self, id: &RowId) -> Result<bool, S::Error> {
        let Some(table) = self.row(id)?.map(|row| row.table) else { return Ok(false) };
        let deletes_win = self.table_rules(table)?.deletes_win;
        Ok(self.row(id)?.is_some_and(|row| row.held_up(deletes_win)))
    }

    fn load_rules(&mut self, table: TableId) -> Result<TableRules, S::Error> {
        let records = self.store.rules(table)?;
        let mut rules = TableRules::default();
        for held in TableRules::in_force(&records) {
            match (held.column, held.rule) {
                (None, Rule::DeleteWins) => rules.deletes_win = true,
                (None, Rule::UniqueMerge | Rule::UniqueSuffix | Rule::UniqueShelve) => {
                    rules.collisions = Some(held.rule);
                }
                (Some(column), Rule::Tree) => {
                    rules.trees.insert(column);
                }
                (Some(column), rule) => {
                    rules.columns.insert(column, Ruling { rule, reign: reign(held, &records) });
                }
                (None, _) => {}
            }
        }
        rules.records = records;
        Ok(rules)
    }

    /// Takes a rule over, and touches the rows that show something else by it.
    pub(super) fn consider_rule(
        &mut self,
        table: TableId,
        column: Option<u16>,
        rule: Rule,
        at: &Position<'_>,
    ) -> Result<(), S::Error> {
        let before = self.table_rules(table)?.clone();
        let known = before.records.iter().any(|record| record.dot == at.dot);
        if known || !rule.fits(column.is_some()) {
            return Ok(());
        }
        let mut record = RuleRecord { stamp: at.stamp, dot: at.dot, column, rule, replaced: Vec::new() };
        let same = before.records.iter().filter(|other| other.question() == record.question());
        record.replaced = same.map(|other| other.dot).filter(|dot| knew((at.cut, &at.dot), dot)).collect();
        record.replaced.sort();
        self.store.put_rule(table, &record)?;
        self.rules.remove(&table);
        let after = self.table_rules(table)?.clone();
        let new_ruling = |column: &u16| before.ruling(*column) != after.ruling(*column);
        // Only where somebody knew an earlier rule is there anything to put together anew.
        let columns: Vec<u16> =
            column.into_iter().filter(new_ruling).filter(|column| before.adds_up(*column)).collect();
        let lives = before.deletes_win != after.deletes_win;
        let collisions = before.collisions != after.collisions;
        let trees: Vec<u16> = after.trees.difference(&before.trees).copied().collect();
        if columns.is_empty() && !lives && !collisions && trees.is_empty() {
            return Ok(());
        }
        self.walk(table, |row| {
            let other_life = lives && row.held_up(true) != row.held_up(false);
            let in_tree = row.parents().any(|(column, _)| trees.contains(&column));
            let mut concerned = other_life || in_tree || collisions && !row.unique.is_empty();
            for column in &columns {
                let Ok(position) = row.cells.binary_search_by_key(column, |state| state.column) else { continue };
                let state = &row.cells[position];
                let Some(tally) = &state.tally else { continue };
                let shown = Tally::clone(tally).show(*column, &after.ruling(*column));
                if let Some(shown) = shown.filter(|shown| shown != state) {
                    row.cells[position] = shown;
                    concerned = true;
                }
            }
            concerned
        })
    }

    /// Shows every row of a table to `look`; those of which it says so are changed and touched.
    fn walk(&mut self, table: TableId, look: impl Fn(&mut Row) -> bool) -> Result<(), S::Error> {
        // Rows that this transaction made are not in the store yet.
        let met = self.rows.known().filter(|(_, row)| row.table == table);
        let mut rows: BTreeSet<RowId> = met.map(|(id, _)| *id).collect();
        let mut after = None;
        loop {
            for id in std::mem::take(&mut rows) {
                // What was not met is not kept: a table may have more rows than memory.
                let known = match self.rows.place(&id) {
                    Some(place) => self.rows.at(place).cloned(),
                    None => self.store.row(&id)?,
                };
                let Some(mut row) = known.map(Arc::unwrap_or_clone) else { continue };
                if look(&mut row) {
                    self.insert_row(id, row);
                    self.touched.insert(id);
                }
            }
            let page = self.store.rows_of(table, after, PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(*last);
            rows.extend(page);
        }
    }
}

impl<S: Store> Evaluator<'_, S> {
    /// A new value of a cell as it travels: with what it adds to the value before, where the column's rule asks for that.
    /// `seen`: what the author had before its eyes, where that is not what the cell shows.
    pub fn difference(
        &mut self,
        table: TableId,
        before: &CellState,
        seen: Option<&Value>,
        new: Value,
    ) -> Result<Cell, S::Error> {
        let ruling = self.ruling(table, before.column)?;
        Ok(match (ruling.rule, &new) {
            (Rule::Counter, Value::Integer(value)) => {
                let seen = seen.and_then(Value::as_integer).map(i128::from);
                let by = i128::from(*value) - seen.unwrap_or_else(|| registers::counted(&ruling, before));
                // Only beyond SQLite's own numbers is a difference cut short.
                let by = by.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
                Cell::Step { value: *value, by }
            }
            (Rule::Set, _) => match lists::elements(&new) {
                Some(elements) => {
                    let seen = seen.and_then(lists::elements).map(|seen| seen.into_iter().collect());
                    let before: BTreeSet<Vec<u8>> = seen.unwrap_or_else(|| registers::present(&ruling, before));
                    let after: BTreeSet<Vec<u8>> = elements.into_iter().collect();
                    let added = after.difference(&before).cloned().collect();
                    let removed = before.difference(&after).cloned().collect();
                    Cell::Edit(Box::new(Edit { value: new, added, removed }))
                }
                None => Cell::Plain(new),
            },
            _ => Cell::Plain(new),
        })
    }
}
