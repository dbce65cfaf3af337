//! The comparison after every event, and what is checked while a history runs and at its end.
//!
//! Numbers are those of the invariants of the merge rules. Here: I2 (after every event, and in other orders), I1, I3, I10,
//! I11, I20, I21, I22; in `invariant.rs`: I5, I6, I8, I12, I13, I14, I15, I16. Elsewhere: I4, I9, I17, I18, I19, I24 and
//! I25 in `simulate` (whole nodes, kills, real files and frames) and the tests of `log` and `node`; I7 there too, by
//! SQLite itself; I23 with compaction's own tests; I26 in the tests of `sqlite`.
//! Invariant: a check reads events and stores, it changes nothing that the history goes on with. Caller: the history.

use std::collections::{BTreeMap, BTreeSet};

use crate::dice::Dice;
use crate::history::{Entry, Node, Violation, World, apply, wrong};
use crate::invariant;
use crate::reference::{Fact, Pair, Reason, State, Write, evaluate};
use crate::scene::Scene;
use litemesh::merge::Evaluator;
use litemesh::merge::image::{digest, image_hash};
use litemesh::merge::memory::MemoryStore;
use litemesh::merge::store::{Fingerprint, Row, Shelved, Store};
use litemesh::model::{Cell, Change, Identity, Key, RowId, Stamp, Value};

/// Situations that a long run must have reached: else it looked at less than it says.
pub const MARKS: [&str; 22] = [
    "chain of re-used ids",
    "claim changed",
    "class by equal keys",
    "class of three",
    "cross-file reference to a row that moved",
    "cross-file parent that is unknown here",
    "genesis: files that differ",
    "id moved",
    "live row needed only by another",
    "merge by a node",
    "merge written before its rows",
    "merge that a bar stopped",
    "probe past a taken id",
    "redelivered",
    "ring of parents",
    "row of a class in pieces again",
    "shelf: key taken",
    "shelf: parent hidden",
    "split",
    "suffix",
    "two tags on one row",
    "void merge",
];

/// I2: the incremental evaluator's answers are those of F. Does not verify: the audit, and what SQLite refuses (R9).
pub fn same(scene: &Scene, store: &mut MemoryStore, state: &State, now_ms: u64) -> Result<(), Violation> {
    let known: Vec<RowId> =
        store.rows().iter().filter(|(_, row)| !row.births.is_empty()).map(|(row, _)| *row).collect();
    let expected: Vec<RowId> = state.rows.keys().copied().collect();
    if known != expected {
        return wrong("I2 rows", format!("the evaluator knows {known:?}, F {expected:?}"));
    }
    let shelf = store.shelf().clone();
    let mut evaluator = Evaluator::new(store, &scene.ranks, &scene.schemas, now_ms);
    for (row, seen) in &state.rows {
        let Ok(Some(record)) = evaluator.row(row).map(|record| record.cloned()) else { continue };
        if record.id != seen.id {
            return wrong("I2 id", format!("{row} has id {:?}, F says {:?}", record.id, seen.id));
        }
        let members = if record.members().is_empty() { std::slice::from_ref(row) } else { record.members() };
        if members != seen.class {
            return wrong("I2 class", format!("{row} is one with {members:?}, F says {:?}", seen.class));
        }
        let canonical = seen.class[0] == *row;
        if record.alive != (seen.alive && canonical) {
            return wrong("I2 alive", format!("{row} alive: {}, F says {}", record.alive, seen.alive && canonical));
        }
        if record.uncovered() != seen.uncovered {
            return wrong("I2 covered", format!("{row} uncovered: {}, F: {}", record.uncovered(), seen.uncovered));
        }
        let same = match (&record.shelved, &seen.shelved) {
            (None, None) => true,
            (Some(Shelved::Unique { index, holder }), Some(Reason::Unique(name, other))) => {
                index == name && holder == other
            }
            (Some(Shelved::Parent { parent }), Some(Reason::Parent(any))) => any.contains(parent),
            _ => false,
        };
        if (record.alive || seen.shelved.is_some()) && !same || shelf.contains(row) != seen.shelved.is_some() {
            return wrong("I2 shelf", format!("{row}: {:?}, F says {:?}", record.shelved, seen.shelved));
        }
        let Ok(target) = evaluator.target(row);
        if target != seen.shown {
            return wrong("I2 image", format!("{row} shows {}, F says {}", image(&target), image(&seen.shown)));
        }
        let Ok(change) = evaluator.presentation(row);
        if let Some(change) = change {
            return wrong("I2 written", format!("{row} was not written: {change:?}"));
        }
    }
    let all: BTreeSet<RowId> = state.rows.keys().copied().collect();
    let Ok(found) = evaluator.mergeable(&all);
    let found: BTreeSet<Pair> =
        found.into_iter().map(|pair| (state.rows[&pair.row].at, pair.row, pair.other, pair.columns)).collect();
    if found != state.pairs {
        return wrong("I2 pairs", format!("mergeable: {found:?}, F says {:?}", state.pairs));
    }
    Ok(())
}

fn image(shown: &Option<(Key, Vec<Value>)>) -> String {
    let words = |values: &[Value]| values.iter().map(Value::to_string).collect::<Vec<_>>().join(", ");
    shown.as_ref().map_or("nothing".to_string(), |(key, image)| format!("({}) under ({})", words(image), words(key)))
}

/// I10 and I11: how ids move. Does not verify: histories in which apps change
/// ids, and rowids of tables without a key that several files give one row.
pub fn movement(world: &mut World<'_>, node: usize, before: &State) -> Result<(), Violation> {
    if world.nodes[node].state.rows.values().any(|seen| seen.depth > 0) {
        return Ok(());
    }
    let (scene, genesis) = (world.scene, world.options.genesis);
    let Node { state, ids, .. } = &mut world.nodes[node];
    let mut moved = 0;
    for (row, seen) in &state.rows {
        let Some(id) = seen.id else { continue };
        if genesis && scene.table(seen.at).identity == Identity::Rowid {
            continue;
        }
        let history = ids.entry(*row).or_default();
        let last = history.last().copied();
        if last == Some(id) {
            continue;
        }
        if history.contains(&id) && matches!(row, RowId::Born(_)) {
            let claimed = history[0] == id && before.rows.get(row).is_some_and(|_| history.len() > 1);
            if claimed && state.holders.get(&(seen.at, id)) == Some(row) && own_claim(row, state, &seen.at, id) {
                return wrong("I11 a lost id is never regained", format!("{row}: {history:?} and again {id}"));
            }
        }
        if let Some(last) = last {
            moved += 1;
            // Away from a derived id only when somebody else has it.
            let taken = state
                .rows
                .iter()
                .any(|(other, seen_other)| other != row && seen_other.at == seen.at && seen_other.id == Some(last));
            if !taken {
                return wrong("I10 ids move only for others", format!("{row}: {history:?}, now {id}, {last} is free"));
            }
        }
        history.push(id);
    }
    if moved > 0 {
        *world.marks.entry("id moved").or_default() += moved;
    }
    Ok(())
}

/// Whether the row held the id by claim (and not as a derived one).
fn own_claim(row: &RowId, state: &State, at: &(usize, usize), id: i64) -> bool {
    state.holders.get(&(*at, id)) == Some(row)
}

/// I11: what the app just inserted keeps its id. Does not verify: changes of ids.
pub fn after_own(world: &World<'_>, node: usize, entry: usize) -> Result<(), Violation> {
    for change in &world.entries[entry].fact.event.changes {
        let Change::Insert { row, claim: Some(id), .. } = change else { continue };
        let seen = &world.nodes[node].state.rows[row];
        if seen.id != Some(*id) {
            return wrong("I11 own insert keeps its id", format!("{row} was born as {id} and is {:?}", seen.id));
        }
    }
    Ok(())
}

/// I3: what was delivered before changes nothing. Does not verify: the audit's length.
pub fn redeliver(world: &mut World<'_>, node: usize, dice: &mut Dice) -> Result<(), Violation> {
    let has: Vec<usize> = world.nodes[node].has.iter().copied().collect();
    let again: Vec<&Entry> = has.iter().filter(|_| dice.chance(30)).map(|entry| &world.entries[*entry]).collect();
    let (scene, now_ms) = (world.scene, world.now_ms);
    let before = world.nodes[node].store.rows().clone();
    apply(&mut world.nodes[node].store, scene, &again, now_ms);
    let state = world.nodes[node].state.clone();
    same(scene, &mut world.nodes[node].store, &state, now_ms).map_err(|violation| Violation {
        check: "I3 redelivery changes nothing",
        what: format!("node {node}, {}: {}", violation.check, violation.what),
    })?;
    let after = world.nodes[node].store.rows();
    for (row, record) in &before {
        // How far deletes reach is kept as a prefix per origin: another one may name the same touches.
        let again = after.get(row).map(|again| Row { covered: record.covered.clone(), ..Row::clone(again) });
        if again.as_ref() != Some(record) {
            return wrong("I3 redelivery changes nothing", format!("node {node}: {record:?} became {again:?}"));
        }
    }
    world.mark("redelivered");
    Ok(())
}

/// Notes which rare situations a node is in.
pub fn reached(world: &mut World<'_>, node: usize) {
    let state = &world.nodes[node].state;
    let mut found: Vec<&'static str> = Vec::new();
    for (row, seen) in state.rows.iter().filter(|(row, seen)| seen.class[0] == **row) {
        let keyed = matches!(row, RowId::Keyed(_)) && seen.class.len() > 1;
        let alone = !seen.class.iter().any(|member| state.rows[member].uncovered);
        let told = [
            (seen.class.len() > 2, "class of three"),
            (keyed, "class by equal keys"),
            (seen.alive && alone, "live row needed only by another"),
            (!seen.tags.is_empty(), "suffix"),
            (seen.tags.len() > 1, "two tags on one row"),
            (matches!(seen.shelved, Some(Reason::Unique(..))), "shelf: key taken"),
            (matches!(seen.shelved, Some(Reason::Parent(_))), "shelf: parent hidden"),
            (seen.depth > 0, "claim changed"),
            (seen.id.is_some_and(|id| id > 64_000_000), "probe past a taken id"),
        ];
        found.extend(told.into_iter().filter(|(is, _)| *is).map(|(_, name)| name));
        let unknown = |write: &Write| match &write.cell {
            Cell::Ref(reference) => !state.rows.contains_key(&reference.row),
            _ => false,
        };
        if seen.cells.values().any(unknown) {
            found.push("cross-file parent that is unknown here");
        }
    }
    if ring(state) {
        found.push("ring of parents");
    }
    if state.chains > 0 {
        found.push("chain of re-used ids");
    }
    if state.voids > 0 {
        found.push("void merge");
    }
    if !state.bars.is_empty() {
        found.push("split");
    }
    for name in found {
        world.mark(name);
    }
}

/// Whether rows of one table are each other's ancestors.
fn ring(state: &State) -> bool {
    let above = |row: &RowId| -> Option<RowId> {
        state.rows[row].cells.values().find_map(|write| match &write.cell {
            Cell::Ref(reference) if reference.table == "task" => Some(state.canonical(&reference.row)),
            _ => None,
        })
    };
    state.rows.keys().any(|row| {
        let mut at = above(row).filter(|at| state.rows.contains_key(at));
        for _ in 0..8 {
            if at == Some(*row) {
                return true;
            }
            at = at.and_then(|at| above(&at)).filter(|at| state.rows.contains_key(at));
        }
        false
    })
}

/// The checks at the end.
pub fn finally(world: &mut World<'_>, seed: u64) -> Result<(), Violation> {
    convergence(world)?;
    other_orders(world, seed)?;
    good_clocks(world)?;
    let mut dice = Dice::new(seed);
    for node in 0..world.nodes.len() {
        redeliver(world, node, &mut dice)?;
        fingerprints(world, node)?;
    }
    invariant::all(world)
}

/// What a store shows, and what it keeps on the shelf.
type Face = (BTreeMap<RowId, (Option<Key>, [u8; 32])>, BTreeSet<RowId>);

fn face(store: &MemoryStore) -> Face {
    let rows = store.rows().iter().filter(|(_, row)| !row.births.is_empty());
    (rows.map(|(row, record)| (*row, (record.shown.clone(), record.image_hash))).collect(), store.shelf().clone())
}

/// I1 (and I22 for copies of one file): equal sets of events, equal tables. Does not verify: bytes of real files.
fn convergence(world: &World<'_>) -> Result<(), Violation> {
    let first = face(&world.nodes[0].store);
    for (number, node) in world.nodes.iter().enumerate() {
        if node.has.len() == world.entries.len() && face(&node.store) != first {
            return wrong("I1 convergence", format!("node {number} shows other rows than node 0"));
        }
    }
    Ok(())
}

/// I2: another causal order, one by one and all at once. Does not verify: all orders.
fn other_orders(world: &mut World<'_>, seed: u64) -> Result<(), Violation> {
    let facts: Vec<&Fact> = world.entries.iter().map(|entry| &entry.fact).collect();
    let state = evaluate(world.scene, &facts);
    let mut dice = Dice::new(seed ^ 0x0d2);
    for single in [true, false] {
        let order = shuffled(world, &mut dice);
        let mut backwards = facts.clone();
        backwards.sort_by_cached_key(|_| dice.bits());
        let again = evaluate(world.scene, &backwards);
        let shows = |state: &State| -> Vec<_> {
            state.rows.iter().map(|(row, seen)| (*row, seen.shown.clone(), seen.id, seen.class.clone())).collect()
        };
        if shows(&again) != shows(&state) {
            return wrong("I2 F itself is order-free", "the reference depends on the order of the events".to_string());
        }
        let mut store = MemoryStore::default();
        let entries: Vec<&Entry> = order.iter().map(|entry| &world.entries[*entry]).collect();
        for chunk in entries.chunks(if single { 1 } else { entries.len().max(1) }) {
            apply(&mut store, world.scene, chunk, world.now_ms);
        }
        world.evaluations += 1;
        same(world.scene, &mut store, &state, world.now_ms).map_err(|violation| {
            let names: Vec<String> = order.iter().map(|entry| crate::act::name_of(world, *entry)).collect();
            let how = if single { "one by one" } else { "all at once" };
            let what = format!("a fresh evaluator, {how}, order {}: {}", names.join(" "), violation.what);
            Violation { what, ..violation }
        })?;
        if face(&store) != face(&world.nodes[0].store) {
            return wrong("I2 order freedom", "a fresh evaluator shows other rows".to_string());
        }
    }
    Ok(())
}

/// Another causal order of all events.
fn shuffled(world: &World<'_>, dice: &mut Dice) -> Vec<usize> {
    let mut open: Vec<usize> = (0..world.entries.len()).collect();
    let (mut done, mut order) = (BTreeSet::new(), Vec::new());
    while !open.is_empty() {
        let ready: Vec<usize> =
            open.iter().copied().filter(|entry| world.entries[*entry].needs.is_subset(&done)).collect();
        let next = ready[dice.below(ready.len() as u64) as usize];
        open.retain(|entry| *entry != next);
        done.insert(next);
        order.push(next);
    }
    order
}

/// I20: with every stamp replaced by one of a good clock, births, coverage, ids and merges' effects stay. Does not verify:
/// that nodes do not absorb far times (the clock's own tests do).
fn good_clocks(world: &mut World<'_>) -> Result<(), Violation> {
    let restamped: Vec<Fact> = world
        .entries
        .iter()
        .enumerate()
        .map(|(at, entry)| {
            let mut fact = entry.fact.clone();
            let good = Stamp((at as u64 + 1) << 16);
            fact.event.header.stamp = good;
            for change in &mut fact.event.changes {
                if let Change::Update { cells, .. } = change {
                    cells.iter_mut().for_each(|cell| cell.2 = good);
                }
            }
            fact
        })
        .collect();
    let facts: Vec<&Fact> = restamped.iter().collect();
    let good = evaluate(world.scene, &facts);
    for (row, seen) in &world.nodes[0].state.rows {
        let other = &good.rows[row];
        let same = seen.id == other.id && seen.uncovered == other.uncovered && seen.class == other.class;
        if !same && !matches!(row, RowId::Keyed(_)) {
            return wrong("I20 clocks decide no identity", format!("{row}: {seen:?} with good clocks {other:?}"));
        }
    }
    Ok(())
}

/// I21: the fingerprint kept with every write is the one of the rows shown. Does not verify: ranges (reconcile's tests do).
fn fingerprints(world: &World<'_>, node: usize) -> Result<(), Violation> {
    let store = &world.nodes[node].store;
    for (database, schema) in world.scene.schemas.iter().enumerate() {
        let (mut kept, mut counted) = (Vec::new(), Vec::new());
        for (position, table) in schema.tables.iter().enumerate() {
            let Ok(Some(number)) = store.find_table(&schema.database, &table.name) else { continue };
            let Ok(fingerprint) = store.fingerprint(number);
            let mut sum = Fingerprint::default();
            for (_, _, shown) in world.nodes[node].state.shown((database, position)) {
                sum.add(&image_hash(&table.name, &shown.1));
            }
            kept.push((table.name.as_str(), fingerprint));
            counted.push((table.name.as_str(), sum));
        }
        if digest(kept.iter().copied()) != digest(counted.iter().copied()) {
            return wrong(
                "I21 fingerprints",
                format!("node {node}, {}: {kept:?}, counted {counted:?}", schema.database),
            );
        }
    }
    Ok(())
}
