//! The reference: F of a set of events, all at once, from the rules alone. Slow and obvious.
//!
//! Nothing is kept between two calls and nothing depends on the order of the events: the rules at the head of
//! `merge/mod.rs` are computed one after the other over the whole set. Where they are silent this file says "decided".
//! Invariant: shares no code with the incremental evaluator except plain data. Callers: the history, the checks.

use std::collections::{BTreeMap, BTreeSet};

use crate::scene::{At, Scene};
use litemesh::merge::image::Shown;
use litemesh::merge::integrate::GENESIS_ORIGIN;
use litemesh::model::{Cell, Change, Cut, Dot, Event, Identity, OriginId, RowId, Stamp, TableSchema, Value};

/// One event with all that its author had applied of the same database (its own earlier events included).
#[derive(Clone, Debug)]
pub struct Fact {
    /// The event.
    pub event: Event,
    /// The short name of its origin.
    pub origin: OriginId,
    /// What its author knew.
    pub cut: Cut,
}

impl Fact {
    /// Whether this event's author knew a change.
    pub fn knew(&self, dot: &Dot) -> bool {
        dot.origin == GENESIS_ORIGIN
            || self.cut.get(&dot.origin) >= dot.seq
            || (self.origin == dot.origin && dot.seq <= self.event.header.seq)
    }

    /// The dot of one of its changes.
    pub fn dot(&self, index: usize) -> Dot {
        Dot { origin: self.origin, seq: self.event.header.seq, index: index as u32 }
    }
}

/// K: seniority.
pub type K = (u8, u32, RowId);

/// A value that somebody wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The value.
    pub cell: Cell,
    /// Its stamp.
    pub stamp: Stamp,
    /// The change.
    pub dot: Dot,
    /// A birth value (else an update).
    pub born: bool,
    /// Position of the event among the facts.
    pub by: usize,
}

/// Claimants of one id: seniority, row, who held the id before.
type Claimants = Vec<(K, RowId, Option<RowId>)>;

/// A wish for an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The id.
    pub id: i64,
    /// Who held it.
    pub after: Option<RowId>,
    /// Earlier claims known.
    pub depth: u32,
    /// The change.
    pub dot: Dot,
}

/// All that the events say of one row.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Its table.
    pub at: At,
    /// Inserts.
    pub births: BTreeSet<(Dot, Stamp)>,
    /// Inserts, updates and claims.
    pub touches: BTreeSet<Dot>,
    /// Values by column.
    pub writes: BTreeMap<usize, Vec<Write>>,
    /// Wishes for ids.
    pub claims: Vec<Claim>,
    /// Events that deleted it.
    pub deletes: Vec<usize>,
}

/// A merge or split.
#[derive(Clone, Debug)]
pub struct Bond {
    /// The two rows, the lesser first.
    pub pair: (RowId, RowId),
    /// Position of the event.
    pub by: usize,
    /// The change.
    pub dot: Dot,
    /// Columns of a merge.
    pub columns: Vec<usize>,
}

/// Why a live class is not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Another one shows its key: (index, holder).
    Unique(String, RowId),
    /// It needs rows that are not shown: one of these.
    Parent(BTreeSet<RowId>),
}

/// What F says of one row.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its table.
    pub at: At,
    /// Its seniority.
    pub k: K,
    /// Its id.
    pub id: Option<i64>,
    /// The members of its class in K order (itself alone: one).
    pub class: Vec<RowId>,
    /// Some touch is not covered by a delete.
    pub uncovered: bool,
    /// Its class lives (said of every member).
    pub alive: bool,
    /// Why its class is not shown (said of the canonical row).
    pub shelved: Option<Reason>,
    /// What the file shows (canonical rows only).
    pub shown: Option<Shown>,
    /// The class's values by column (canonical rows only).
    pub cells: BTreeMap<usize, Write>,
    /// Tagged columns (canonical rows only).
    pub tags: BTreeMap<usize, Value>,
    /// Depth of its claim.
    pub depth: u32,
}

/// A pair that a node shall merge: table, first, other, names of the key's columns.
pub type Pair = (At, RowId, RowId, Vec<String>);

/// F.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Every row that was born.
    pub rows: BTreeMap<RowId, Seen>,
    /// Who holds which id by claim.
    pub holders: BTreeMap<(At, i64), RowId>,
    /// What R11 asks for.
    pub pairs: BTreeSet<Pair>,
    /// Pairs that a split keeps apart.
    pub bars: BTreeSet<(RowId, RowId)>,
    /// Merges that were void.
    pub voids: usize,
    /// Ids that were used again by a row whose own id was used again.
    pub chains: usize,
}

impl State {
    /// The row that stands for the class of this one.
    pub fn canonical(&self, row: &RowId) -> RowId {
        self.rows.get(row).map_or(*row, |seen| seen.class[0])
    }

    /// The rows shown of a table.
    pub fn shown(&self, at: At) -> impl Iterator<Item = (&RowId, &Seen, &Shown)> {
        let of_table = self.rows.iter().filter(move |(_, seen)| seen.at == at);
        of_table.filter_map(|(row, seen)| seen.shown.as_ref().map(|shown| (row, seen, shown)))
    }

    /// The row that a table shows under a key.
    pub fn under(&self, at: At, key: &[Value]) -> Option<RowId> {
        self.shown(at).find(|(_, _, shown)| shown.0 == key).map(|(row, _, _)| *row)
    }
}

/// F of a set of events.
pub fn evaluate(scene: &Scene, facts: &[&Fact]) -> State {
    let told = Told::gather(scene, facts);
    let mut work = Work { scene, facts, rows: &told.rows, state: State::default() };
    work.births();
    work.ids();
    work.classes(&told);
    work.cells();
    work.liveness();
    work.unique();
    work.shelf();
    work.images();
    work.state
}

/// What all events say.
pub struct Gathered {
    /// By row.
    pub rows: BTreeMap<RowId, Told>,
    /// All merges.
    pub merges: Vec<Bond>,
    /// All splits.
    pub splits: Vec<Bond>,
}

impl Told {
    /// Sorts what the events say by row.
    pub fn gather(scene: &Scene, facts: &[&Fact]) -> Gathered {
        let mut all = Gathered { rows: BTreeMap::new(), merges: Vec::new(), splits: Vec::new() };
        for (by, fact) in facts.iter().enumerate() {
            for (index, change) in fact.event.changes.iter().enumerate() {
                all.add(scene, fact, by, index, change);
            }
        }
        all
    }

    /// Whether some delete knew this touch.
    fn covered(&self, facts: &[&Fact], touch: &Dot) -> bool {
        self.deletes.iter().any(|by| facts[*by].knew(touch))
    }

    /// The value of a column by this row's own events.
    pub fn winner(&self, column: usize) -> Option<&Write> {
        let writes = self.writes.get(&column)?;
        let updates = writes.iter().filter(|write| !write.born);
        if let Some(best) = updates.max_by_key(|write| (write.stamp, write.dot)) {
            return Some(best);
        }
        // Decided: of several births of one row (a keyed one, or one found in several files) the latest that says something,
        // and among equal ones the least value.
        writes.iter().max_by_key(|write| {
            (write.cell != Cell::Plain(Value::Null), write.stamp, write.dot, std::cmp::Reverse(write.cell.clone()))
        })
    }
}

impl Gathered {
    fn add(&mut self, scene: &Scene, fact: &Fact, by: usize, index: usize, change: &Change) {
        let names = &fact.event.tables[change.table() as usize];
        let (Some(at), Some(row)) = (scene.find(&fact.event.header.database, &names.table), change.row()) else {
            return;
        };
        let dot = fact.dot(index);
        let told = self.rows.entry(row).or_default();
        told.at = at;
        let mut write = |column: u32, cell: &Cell, stamp: Stamp, dot: Dot, born: bool| {
            let Some(column) = scene.table(at).column(&names.columns[column as usize]) else { return };
            let write = Write { cell: cell.clone(), stamp, dot, born, by };
            told.writes.entry(column).or_default().push(write);
        };
        match change {
            Change::Insert { claim, after, cells, .. } => {
                // A row found at enrolment is born before everything: all copies of the birth are one.
                let found = Dot { origin: GENESIS_ORIGIN, seq: 1, index: 0 };
                let dot = if matches!(row, RowId::Genesis(_)) { found } else { dot };
                for (column, cell) in cells {
                    write(*column, cell, fact.event.header.stamp, dot, true);
                }
                told.births.insert((dot, fact.event.header.stamp));
                told.touches.insert(dot);
                told.claims.extend(claim.map(|id| Claim { id, after: *after, depth: 0, dot }));
            }
            Change::Update { cells, .. } => {
                for (column, cell, stamp) in cells {
                    write(*column, cell, *stamp, dot, false);
                }
                told.touches.insert(dot);
            }
            Change::Delete { .. } => told.deletes.push(by),
            Change::Claim { id, after, depth, .. } => {
                told.touches.insert(dot);
                told.claims.push(Claim { id: *id, after: *after, depth: *depth, dot });
            }
            Change::Merge { other, columns, .. } => {
                let columns =
                    columns.iter().filter_map(|at_event| scene.table(at).column(&names.columns[*at_event as usize]));
                let pair = (row.min(*other), row.max(*other));
                self.merges.push(Bond { pair, by, dot, columns: columns.collect() });
            }
            Change::Split { other, .. } => {
                let pair = (row.min(*other), row.max(*other));
                self.splits.push(Bond { pair, by, dot, columns: Vec::new() });
            }
            Change::Rule { .. } => {}
        }
    }

    /// R2: whether an update of one of its columns, concurrent with it, or a split that knew it makes a merge void.
    pub fn void(&self, facts: &[&Fact], merge: &Bond) -> bool {
        let renamed = |row: &RowId| {
            let Some(told) = self.rows.get(row) else { return false };
            merge
                .columns
                .iter()
                .flat_map(|column| told.writes.get(column).into_iter().flatten())
                .any(|write| !write.born && !facts[merge.by].knew(&write.dot) && !facts[write.by].knew(&merge.dot))
        };
        let split = |split: &Bond| split.pair == merge.pair && facts[split.by].knew(&merge.dot);
        renamed(&merge.pair.0) || renamed(&merge.pair.1) || self.splits.iter().any(split)
    }

    /// R2: the pairs that a split keeps apart.
    pub fn bars(&self, facts: &[&Fact]) -> BTreeSet<(RowId, RowId)> {
        let ended = |split: &Bond| {
            let by_person = self.merges.iter().filter(|merge| merge.columns.is_empty() && merge.pair == split.pair);
            by_person.into_iter().any(|merge| facts[merge.by].knew(&split.dot))
        };
        self.splits.iter().filter(|split| !ended(split)).map(|split| split.pair).collect()
    }
}

pub(crate) struct Work<'w> {
    pub(crate) scene: &'w Scene,
    pub(crate) facts: &'w [&'w Fact],
    pub(crate) rows: &'w BTreeMap<RowId, Told>,
    pub(crate) state: State,
}

impl Work<'_> {
    /// Every row that was born, and what deletes cover of it.
    fn births(&mut self) {
        for (row, told) in self.rows.iter().filter(|(_, told)| !told.births.is_empty()) {
            let rank = |dot: &Dot| self.scene.rank(&dot.origin);
            let k = match row {
                RowId::Genesis(_) => (0, 0, *row),
                RowId::Born(birth) => (1, rank(&birth.dot()), *row),
                RowId::Keyed(_) => (1, told.births.iter().map(|birth| rank(&birth.0)).min().unwrap_or(u32::MAX), *row),
            };
            let seen = Seen {
                at: told.at,
                k,
                id: None,
                class: vec![*row],
                uncovered: told.touches.iter().any(|touch| !told.covered(self.facts, touch)),
                alive: false,
                shelved: None,
                shown: None,
                cells: BTreeMap::new(),
                tags: BTreeMap::new(),
                depth: 0,
            };
            self.state.rows.insert(*row, seen);
        }
    }

    /// R3.
    fn ids(&mut self) {
        let mut wanted: BTreeMap<(At, i64), Claimants> = BTreeMap::new();
        for (row, seen) in &mut self.state.rows {
            // Of a row's claims the one that knew most of the earlier ones; then the most senior author's. Decided: then
            // the least id (copies of a file may hold a row without a key under different rowids).
            let order = |claim: &&Claim| {
                (std::cmp::Reverse(claim.depth), self.scene.rank(&claim.dot.origin), claim.dot, claim.id)
            };
            let Some(claim) = self.rows[row].claims.iter().min_by_key(order) else { continue };
            seen.depth = claim.depth;
            wanted.entry((seen.at, claim.id)).or_default().push((seen.k, *row, claim.after));
        }
        let mut losers: Vec<(K, RowId, At, i64)> = Vec::new();
        let mut taken: BTreeSet<(At, i64)> = wanted.keys().copied().collect();
        for ((at, id), mut claimants) in wanted {
            claimants.sort();
            let holder = occupant(&claimants);
            let reuses = |row: &RowId| claimants.iter().any(|(_, other, after)| other == row && after.is_some());
            self.state.chains += claimants.iter().filter(|one| one.2.is_some_and(|after| reuses(&after))).count();
            self.state.holders.insert((at, id), holder);
            self.state.rows.entry(holder).and_modify(|seen| seen.id = Some(id));
            losers.extend(claimants.iter().filter(|one| one.1 != holder).map(|one| (one.0, one.1, at, id)));
        }
        losers.sort();
        for (_, row, at, id) in losers {
            let slot = match row {
                RowId::Born(birth) => self.scene.slot(&birth.origin),
                RowId::Genesis(_) | RowId::Keyed(_) => 0,
            };
            let mut candidates = (0..).map(|round: i64| id + 1_000_000 * (slot + 64 * round));
            let free = candidates.find(|candidate| taken.insert((at, *candidate)));
            self.state.rows.entry(row).and_modify(|seen| seen.id = free);
        }
    }

    /// R2 and R4: least partition, searched until nothing changes.
    fn classes(&mut self, told: &Gathered) {
        self.state.bars = told.bars(self.facts);
        let mut merges: Vec<&Bond> = told.merges.iter().filter(|merge| merge.pair.0 != merge.pair.1).collect();
        merges.retain(|merge| !told.void(self.facts, merge));
        self.state.voids = told.merges.len() - merges.len();
        merges.sort_by_key(|merge| merge.dot);
        loop {
            let mut partition: BTreeMap<RowId, BTreeSet<RowId>> =
                self.state.rows.keys().map(|row| (*row, BTreeSet::from([*row]))).collect();
            let mut by_key: BTreeMap<(At, Vec<Cell>), RowId> = BTreeMap::new();
            for (row, seen) in &self.state.rows {
                let Some(key) = self.resolved_key(row, seen) else { continue };
                let first = *by_key.entry((seen.at, key)).or_insert(*row);
                join(&mut partition, first, *row);
            }
            for merge in &merges {
                let (Some(one), Some(other)) = (partition.get(&merge.pair.0), partition.get(&merge.pair.1)) else {
                    continue;
                };
                let barred = |pair: &(RowId, RowId)| {
                    (one.contains(&pair.0) && other.contains(&pair.1))
                        || (one.contains(&pair.1) && other.contains(&pair.0))
                };
                if one == other || !self.state.bars.iter().any(barred) {
                    join(&mut partition, merge.pair.0, merge.pair.1);
                }
            }
            let mut changed = false;
            let ks: BTreeMap<RowId, K> = self.state.rows.iter().map(|(row, seen)| (*row, seen.k)).collect();
            for (row, class) in partition {
                let mut members: Vec<RowId> = class.into_iter().collect();
                members.sort_by_key(|member| ks[member]);
                let Some(seen) = self.state.rows.get_mut(&row) else { continue };
                changed |= seen.class != members;
                seen.class = members;
            }
            if !changed {
                return;
            }
        }
    }

    /// R4: the key of a keyed row, with every reference replaced by the canonical row of its class.
    fn resolved_key(&self, row: &RowId, seen: &Seen) -> Option<Vec<Cell>> {
        let Identity::Keyed(columns) = &self.scene.table(seen.at).identity else { return None };
        let mut key = Vec::new();
        for column in columns {
            let mut cell = self.rows[row].winner(*column)?.cell.clone();
            if let Cell::Ref(reference) = &mut cell {
                reference.row = self.state.canonical(&reference.row);
            }
            key.push(cell);
        }
        Some(key)
    }

    /// R5.
    fn cells(&mut self) {
        let classes: Vec<Vec<RowId>> = self.canonicals().map(|(_, seen)| seen.class.clone()).collect();
        for class in classes {
            let at = self.state.rows[&class[0]].at;
            let schema = self.scene.table(at);
            for column in 0..schema.columns.len() {
                let key = matches!(&schema.identity, Identity::Keyed(columns) if columns.contains(&column));
                let members = if key { &class[..1] } else { &class[..] };
                let of_member = members.iter().filter_map(|member| self.rows[member].winner(column));
                let winners: Vec<&Write> = of_member.collect();
                let updates = winners.iter().filter(|write| !write.born);
                let best = updates.max_by_key(|write| (write.stamp, write.dot));
                let says = winners.iter().find(|write| write.cell != Cell::Plain(Value::Null));
                if let Some(write) = best.or(says).or(winners.first()) {
                    let write = (*write).clone();
                    self.state.rows.entry(class[0]).and_modify(|seen| drop(seen.cells.insert(column, write)));
                }
            }
        }
    }

    pub(crate) fn canonicals(&self) -> impl Iterator<Item = (&RowId, &Seen)> {
        self.state.rows.iter().filter(|(row, seen)| seen.class[0] == **row)
    }

    /// The classes that a class needs to be shown: by foreign keys that keep their parent.
    pub(crate) fn needs(&self, seen: &Seen) -> BTreeSet<RowId> {
        let schema: &TableSchema = self.scene.table(seen.at);
        let keeping = schema.foreign_keys.iter().filter(|key| key.keeps_parent);
        let cells = keeping.flat_map(|key| &key.columns).filter_map(|column| seen.cells.get(column));
        let references = cells.filter_map(|write| match &write.cell {
            Cell::Ref(reference) => Some(self.state.canonical(&reference.row)),
            _ => None,
        });
        references.collect()
    }

    /// R7: the least set that holds every class with an uncovered touch and, with a class, those it needs.
    fn liveness(&mut self) {
        let mut alive: BTreeSet<RowId> = self
            .canonicals()
            .filter(|(_, seen)| seen.class.iter().any(|member| self.state.rows[member].uncovered))
            .map(|(row, _)| *row)
            .collect();
        loop {
            let mut more = BTreeSet::new();
            for row in &alive {
                let needed = self.needs(&self.state.rows[row]);
                more.extend(needed.into_iter().filter(|row| self.state.rows.contains_key(row) && !alive.contains(row)));
            }
            if more.is_empty() {
                break;
            }
            alive.extend(more);
        }
        for seen in self.state.rows.values_mut() {
            seen.alive = alive.contains(&seen.class[0]);
        }
    }
}

/// R3: who holds an id, of claimants in K order.
fn occupant(claimants: &[(K, RowId, Option<RowId>)]) -> RowId {
    let mut passed = BTreeSet::from([claimants[0].1]);
    let mut current = claimants[0].1;
    loop {
        // All that come after the current one, directly or through others.
        let mut later: BTreeSet<RowId> = BTreeSet::from([current]);
        loop {
            let more = claimants.iter().find(|(_, row, after)| {
                after.is_some_and(|after| later.contains(&after)) && !later.contains(row) && !passed.contains(row)
            });
            match more {
                Some((_, row, _)) => later.insert(*row),
                None => break,
            };
        }
        match claimants.iter().find(|(_, row, _)| *row != current && later.contains(row)) {
            Some((_, row, _)) => current = *row,
            None => return current,
        }
        passed.insert(current);
    }
}

fn join(partition: &mut BTreeMap<RowId, BTreeSet<RowId>>, one: RowId, other: RowId) {
    let union: BTreeSet<RowId> = partition[&one].union(&partition[&other]).copied().collect();
    if union.len() > partition[&one].len() {
        for member in &union {
            partition.insert(*member, union.clone());
        }
    }
}
