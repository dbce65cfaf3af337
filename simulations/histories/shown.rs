//! The second half of F: which live classes are shown, under which key, with which values (R6, R8), and what R11 asks for.
//!
//! Invariant: as in `reference.rs`. Caller: the reference.

use std::collections::{BTreeMap, BTreeSet};

use crate::reference::{K, Reason, Seen, Work, Write};
use crate::scene::At;
use litemesh::merge::integrate::GENESIS_ORIGIN;
use litemesh::model::{Cell, Collation, Identity, OriginId, RowId, Rule, Stamp, UniqueKey, Value};

/// A UNIQUE key: table, position of the index (the own key of a keyed table: after the last), folded values.
type Key = (At, usize, Vec<Value>);

/// Who comes first under a key: when it was written, then seniority.
type Order = (Stamp, K);

/// A UNIQUE key as a class holds it.
struct Held {
    key: Key,
    order: Order,
    born: bool,
    tag: Option<(usize, Vec<u8>)>,
}

impl Work<'_> {
    /// R8 and R11.
    pub(crate) fn unique(&mut self) {
        let mut contenders: BTreeMap<RowId, Vec<Held>> = BTreeMap::new();
        for (row, seen) in self.canonicals().filter(|(_, seen)| seen.alive) {
            contenders.insert(*row, self.keys(row, seen));
        }
        self.pairs(&contenders);
        self.contest(contenders);
    }

    fn pairs(&mut self, contenders: &BTreeMap<RowId, Vec<Held>>) {
        let mut groups: BTreeMap<&Key, BTreeSet<(Order, RowId)>> = BTreeMap::new();
        for (row, keys) in contenders {
            for held in keys.iter().filter(|held| held.born) {
                groups.entry(&held.key).or_default().insert((held.order, *row));
            }
        }
        for ((at, index, _), group) in groups {
            let schema = self.scene.table(*at);
            let Some(unique) = schema.unique.get(*index).filter(|_| schema.collisions == Rule::UniqueMerge) else {
                continue;
            };
            let names: Vec<String> =
                unique.columns.iter().map(|(column, _)| schema.columns[*column].name.clone()).collect();
            let mut rows = group.into_iter().map(|(_, row)| row);
            let Some(first) = rows.next() else { continue };
            for other in rows {
                if self.two_origins(&first, &other) && !self.apart(&first, &other) {
                    self.state.pairs.insert((*at, first, other, names.clone()));
                }
            }
        }
    }

    /// Whether the rows of two classes were not all born at one origin (whose file would have refused the second).
    fn two_origins(&self, one: &RowId, other: &RowId) -> bool {
        let rows = &self.state.rows;
        let members = rows[one].class.iter().chain(&rows[other].class);
        let origins: BTreeSet<OriginId> =
            members.flat_map(|member| self.rows[member].births.iter().map(|birth| birth.0.origin)).collect();
        origins.len() > 1 || origins.contains(&GENESIS_ORIGIN)
    }

    /// Whether a split keeps some member of one class from some member of the other.
    fn apart(&self, one: &RowId, other: &RowId) -> bool {
        let (one, other) = (&self.state.rows[one].class, &self.state.rows[other].class);
        self.state
            .bars
            .iter()
            .any(|(a, b)| (one.contains(a) && other.contains(b)) || (one.contains(b) && other.contains(a)))
    }

    /// Again and again somebody who comes first in all the keys it still holds is shown, and takes these from the others:
    /// who can carry a tag goes on without that key, who cannot goes to the shelf. Where nobody comes first everywhere, the
    /// most senior one is shown. Decided: of several who come first everywhere the least row is taken first; who is shown
    /// does not depend on it, only which of several holders a row on the shelf names.
    fn contest(&mut self, mut open: BTreeMap<RowId, Vec<Held>>) {
        let mut holders: BTreeMap<Key, u32> = BTreeMap::new();
        for held in open.values().flatten() {
            *holders.entry(held.key.clone()).or_default() += 1;
        }
        open.retain(|_, keys| keys.iter().any(|held| holders[&held.key] > 1));
        while !open.is_empty() {
            let mut first: BTreeMap<&Key, (&Order, RowId)> = BTreeMap::new();
            for (row, keys) in &open {
                for held in keys {
                    let best = first.entry(&held.key).or_insert((&held.order, *row));
                    *best = (*best).min((&held.order, *row));
                }
            }
            let wins = |keys: &[Held], row: &RowId| keys.iter().all(|held| first[&held.key].1 == *row);
            let winner = open.iter().find(|(row, keys)| wins(keys, row)).map(|(row, _)| *row);
            let senior = || open.keys().min_by_key(|row| self.state.rows[*row].k).copied();
            let Some(winner) = winner.or_else(senior) else { return };
            for lost in open.remove(&winner).unwrap_or_default() {
                self.take_key(&mut open, &lost.key, winner);
            }
        }
    }

    fn take_key(&mut self, open: &mut BTreeMap<RowId, Vec<Held>>, key: &Key, winner: RowId) {
        for row in open.keys().copied().collect::<Vec<_>>() {
            let Some(position) = open[&row].iter().position(|held| held.key == *key) else { continue };
            let held = open.get_mut(&row).map(|keys| keys.remove(position));
            let Some(seen) = self.state.rows.get_mut(&row) else { continue };
            match held.and_then(|held| held.tag) {
                Some((column, text)) => drop(seen.tags.insert(column, tagged(text, &row))),
                None => {
                    let schema = self.scene.table(key.0);
                    let name = schema.unique.get(key.1).map_or("PRIMARY KEY", |unique| &unique.name);
                    seen.shelved = Some(Reason::Unique(name.to_string(), winner));
                    seen.tags.clear();
                    open.remove(&row);
                }
            }
        }
    }

    /// The UNIQUE keys of a class. One with a NULL or with the id in it never collides.
    fn keys(&self, row: &RowId, seen: &Seen) -> Vec<Held> {
        let schema = self.scene.table(seen.at);
        let mut uniques: Vec<UniqueKey> = schema.unique.iter().filter(|unique| unique.exact).cloned().collect();
        if let Identity::Keyed(columns) = &schema.identity {
            let columns = columns.iter().map(|column| (*column, Collation::Binary)).collect();
            uniques.push(UniqueKey { name: String::new(), columns, exact: true, computed: None });
        }
        let mut held = Vec::new();
        for (index, unique) in uniques.iter().enumerate() {
            let writes: Vec<Option<&Write>> = unique.columns.iter().map(|(column, _)| seen.cells.get(column)).collect();
            let values: Vec<Value> = writes
                .iter()
                .zip(&unique.columns)
                .map(|(write, (_, collation))| {
                    fold(write.map_or(Value::Null, |write| self.value(&write.cell)), *collation)
                })
                .collect();
            if values.contains(&Value::Null) {
                continue;
            }
            let updates = writes.iter().flatten().filter(|write| !write.born);
            // Decided: a key that was born was written with the first birth of the canonical row.
            let birth = self.rows[row].births.first().map_or(Stamp(0), |birth| birth.1);
            let written = updates.clone().map(|write| write.stamp).max().map_or(birth, |stamp| stamp.max(birth));
            let own = index == schema.unique.len();
            let tag =
                unique.columns.iter().zip(&writes).rev().find_map(|((column, _), write)| match &write.as_ref()?.cell {
                    Cell::Plain(Value::Text(text)) if !schema.key_columns().contains(column) => {
                        Some((*column, text.clone()))
                    }
                    _ => None,
                });
            held.push(Held {
                key: (seen.at, index, values),
                order: (written, seen.k),
                born: updates.count() == 0,
                tag: tag.filter(|_| !own && schema.collisions != Rule::UniqueShelve),
            });
        }
        held
    }

    /// R6: what a cell shows, dead or alive.
    fn value(&self, cell: &Cell) -> Value {
        let reference = match cell {
            Cell::Ref(reference) => reference,
            plain => match plain.without_difference() {
                Cell::Plain(value) => return value,
                _ => return Value::Null,
            },
        };
        let canonical = self.state.canonical(&reference.row);
        let Some(parent) = self.state.rows.get(&canonical) else { return Value::Null };
        let schema = self.scene.table(parent.at);
        match schema.column(&reference.column) {
            Some(column) if schema.identity == Identity::Surrogate(column) => {
                parent.id.map_or(Value::Null, Value::Integer)
            }
            Some(column) if parent.tags.contains_key(&column) => parent.tags[&column].clone(),
            Some(column) => parent.cells.get(&column).map_or(Value::Null, |write| self.value(&write.cell)),
            None => Value::Null,
        }
    }

    /// A class that needs one that is on the shelf by itself, or unknown, goes to the shelf too.
    pub(crate) fn shelf(&mut self) {
        let mut hidden: Vec<(RowId, BTreeSet<RowId>)> = Vec::new();
        for (row, seen) in self.canonicals().filter(|(_, seen)| seen.alive && seen.shelved.is_none()) {
            let mut reached = BTreeSet::from([*row]);
            let mut open: Vec<RowId> = self.needs(seen).into_iter().collect();
            let mut culprits = BTreeSet::new();
            while let Some(parent) = open.pop() {
                match self.state.rows.get(&parent) {
                    Some(seen) if seen.shelved.is_none() => {
                        if reached.insert(parent) {
                            open.extend(self.needs(seen));
                        }
                    }
                    Some(_) | None => drop(culprits.insert(parent)),
                }
            }
            if !culprits.is_empty() {
                hidden.push((*row, culprits));
            }
        }
        for (row, culprits) in hidden {
            self.state.rows.entry(row).and_modify(|seen| seen.shelved = Some(Reason::Parent(culprits)));
        }
    }

    /// R6: key and values of every class that is shown.
    pub(crate) fn images(&mut self) {
        let mut shown = Vec::new();
        for (row, seen) in self.canonicals().filter(|(_, seen)| seen.alive && seen.shelved.is_none()) {
            let schema = self.scene.table(seen.at);
            let image: Vec<Value> = (0..schema.columns.len()).map(|column| self.shows(seen, column)).collect();
            shown.push((*row, (schema.key_of(&image, seen.id), image)));
        }
        for (row, image) in shown {
            self.state.rows.entry(row).and_modify(|seen| seen.shown = Some(image));
        }
    }

    fn shows(&self, seen: &Seen, column: usize) -> Value {
        let schema = self.scene.table(seen.at);
        if schema.identity == Identity::Surrogate(column) {
            return seen.id.map_or(Value::Null, Value::Integer);
        }
        if let Some(tagged) = seen.tags.get(&column) {
            return tagged.clone();
        }
        let Some(write) = seen.cells.get(&column) else { return schema.columns[column].default.clone() };
        if let Cell::Ref(reference) = &write.cell {
            // R7: SET NULL shows NULL while its parent is not shown.
            let nulls =
                |key: &&litemesh::model::ForeignKey| key.declared && !key.keeps_parent && key.columns.contains(&column);
            let parent = self.state.rows.get(&self.state.canonical(&reference.row));
            let visible = parent.is_some_and(|parent| parent.alive && parent.shelved.is_none());
            if schema.foreign_keys.iter().any(|key| nulls(&key)) && !visible {
                return Value::Null;
            }
        }
        self.value(&write.cell)
    }
}

/// One form for all values that are equal under a collation.
pub fn fold(value: Value, collation: Collation) -> Value {
    match (value, collation) {
        (Value::Text(bytes), Collation::NoCase) => Value::Text(bytes.to_ascii_lowercase()),
        (value, _) => value,
    }
}

/// `value~tag`: four characters of the base-32 form of the hash of the row's name.
fn tagged(mut text: Vec<u8>, row: &RowId) -> Value {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let hash = blake3::hash(&row.to_bytes());
    let bits = u32::from_be_bytes([hash.as_bytes()[0], hash.as_bytes()[1], hash.as_bytes()[2], hash.as_bytes()[3]]);
    text.push(b'~');
    text.extend((0..4).map(|place| LETTERS[(bits >> (27 - 5 * place)) as usize & 31]));
    Value::Text(text)
}
