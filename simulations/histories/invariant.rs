//! What must hold of the rows themselves at the end of a history, read from the events and from the evaluators' stores.
//!
//! Invariant: no check asks F for the answer that it checks, except where its sentence says so. Caller: `check::finally`.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Violation, World, wrong};
use crate::reference::{Bond, Fact, Gathered, Told, Write, evaluate};
use crate::shown::fold;
use litemesh::merge::Evaluator;
use litemesh::merge::image::Shown;
use litemesh::merge::memory::MemoryStore;
use litemesh::merge::store::{AuditKind, Row};
use litemesh::model::{Cell, Collation, Dot, Identity, RowId, Value};

/// The end of a history as node 0's evaluator has it.
struct End<'e> {
    facts: Vec<&'e Fact>,
    told: Gathered,
    rows: BTreeMap<RowId, Row>,
    shown: BTreeMap<RowId, Shown>,
}

impl End<'_> {
    fn canonical(&self, row: &RowId) -> RowId {
        self.rows.get(row).and_then(|record| record.members().first()).copied().unwrap_or(*row)
    }

    fn class(&self, row: &RowId) -> Vec<RowId> {
        let members = self.rows.get(row).map(Row::members).unwrap_or_default();
        if members.is_empty() { vec![*row] } else { members.to_vec() }
    }

    fn together(&self, one: &RowId, other: &RowId) -> bool {
        self.canonical(one) == self.canonical(other)
    }

    fn knew(&self, by: usize, dot: &Dot) -> bool {
        self.facts[by].knew(dot)
    }
}

/// All of them.
pub fn all(world: &mut World<'_>) -> Result<(), Violation> {
    let mut store = world.nodes[0].store.clone();
    let rows: BTreeMap<RowId, Row> = store.rows().iter().map(|(id, row)| (*id, Row::clone(row))).collect();
    let mut shown = BTreeMap::new();
    let mut evaluator = Evaluator::new(&mut store, &world.scene.ranks, &world.scene.schemas, 0);
    for row in rows.keys() {
        let Ok(target) = evaluator.target(row);
        shown.extend(target.map(|target| (*row, target)));
    }
    let facts: Vec<&Fact> = world.entries.iter().map(|entry| &entry.fact).collect();
    let told = Told::gather(world.scene, &facts);
    let end = End { facts, told, rows, shown };
    let mut reached: Vec<&'static str> = Vec::new();
    births(&end)?;
    for node in &world.nodes {
        values(world, &end, &node.store)?;
    }
    causal_writes(world, &end)?;
    references(world, &end, &mut reached)?;
    deletes(world, &end)?;
    soundness(world, &end, &mut reached)?;
    voids(&end)?;
    splits(world, &end)?;
    founder(world, &end)?;
    for name in reached {
        world.mark(name);
    }
    Ok(())
}

/// I5: every birth is shown as its own row, or by its class, or deleted by who knew it, or on the shelf: exactly one.
/// Does not verify: that the shelf's reason is good (I2 does).
fn births(end: &End<'_>) -> Result<(), Violation> {
    for (row, told) in end.told.rows.iter().filter(|(_, told)| !told.births.is_empty()) {
        let canonical = end.canonical(row);
        let own = end.shown.contains_key(row) && canonical == *row;
        let by_class = canonical != *row && end.shown.contains_key(&canonical);
        let record = &end.rows[&canonical];
        let shelved = record.alive && record.shelved.is_some();
        let class = end.class(row);
        let deleted = class.iter().all(|member| {
            let told = &end.told.rows[member];
            told.touches.iter().all(|touch| told.deletes.iter().any(|by| end.knew(*by, touch)))
        }) && !record.alive;
        let ways = [own, by_class, shelved, deleted];
        if ways.iter().filter(|way| **way).count() != 1 {
            return wrong("I5 no lost birth", format!("{row} ({told:?}): own, class, shelf, deleted: {ways:?}"));
        }
    }
    Ok(())
}

/// I6: every value written is shown, or was overwritten by who knew it, or stands in this node's audit, or is kept by a row
/// that is dead, on the shelf or inside a class. Does not verify: key columns of keyed tables (they never change).
fn values(world: &World<'_>, end: &End<'_>, store: &MemoryStore) -> Result<(), Violation> {
    let mut audited: BTreeSet<(Dot, String)> = BTreeSet::new();
    for record in store.audit() {
        match &record.kind {
            AuditKind::Cell { column, loser, .. } => drop(audited.insert((loser.dot, column.clone()))),
            AuditKind::Merged { lost, .. } => {
                audited.extend(lost.iter().map(|(column, loser)| (loser.dot, column.clone())));
            }
            _ => {}
        }
    }
    for (row, told) in &end.told.rows {
        for (column, writes) in &told.writes {
            let Some(kept) = told.winner(*column) else { continue };
            let name = &world.scene.table(told.at).columns[*column].name;
            for write in writes {
                // The same value, written by several, is lost only where nobody's writing of it is accounted for.
                let equal = || writes.iter().filter(|other| other.cell == write.cell);
                let over =
                    |one: &Write| writes.iter().any(|later| later.dot != one.dot && end.knew(later.by, &one.dot));
                let overwritten = equal().any(over);
                let same = kept.cell == write.cell;
                let listed = equal().any(|one| audited.contains(&(one.dot, name.clone())));
                if !overwritten && !same && !listed && write.cell != Cell::Plain(Value::Null) {
                    let what = format!("{row} {name}: {:?} lost against {:?} without a word", write, kept);
                    return wrong("I6 no lost value", what);
                }
            }
        }
    }
    Ok(())
}

/// I8: a write that knew all others of its cell, in the class its author saw, is the one that counts. Asks F for that class.
/// Does not verify: writes to rows that became one with others later; keys of keyed tables (the canonical row's counts).
fn causal_writes(world: &World<'_>, end: &End<'_>) -> Result<(), Violation> {
    let mut store = world.nodes[0].store.clone();
    let mut evaluator = Evaluator::new(&mut store, &world.scene.ranks, &world.scene.schemas, 0);
    for row in end.told.rows.keys().filter(|row| end.canonical(row) == **row) {
        let class = end.class(row);
        let mut columns: BTreeMap<usize, Vec<(&RowId, &Write)>> = BTreeMap::new();
        for member in &class {
            for (column, writes) in &end.told.rows[member].writes {
                let updates = writes.iter().filter(|write| !write.born);
                columns.entry(*column).or_default().extend(updates.map(|write| (member, write)));
            }
        }
        let Ok(Some(view)) = evaluator.view(row) else { continue };
        let at = end.told.rows[row].at;
        let key = match &world.scene.table(at).identity {
            Identity::Keyed(key) => key.clone(),
            Identity::Surrogate(_) | Identity::Rowid => Vec::new(),
        };
        for (column, writes) in columns.into_iter().filter(|(column, _)| !key.contains(column)) {
            let last = writes.iter().find(|(_, write)| writes.iter().all(|(_, other)| end.knew(write.by, &other.dot)));
            let Some((member, last)) = last else { continue };
            let others: BTreeSet<&RowId> = writes.iter().map(|(row, _)| *row).filter(|row| row != member).collect();
            if !others.is_empty() {
                let seen: Vec<&Fact> =
                    world.entries[last.by].needs.iter().map(|entry| &world.entries[*entry].fact).collect();
                let then = evaluate(world.scene, &seen);
                if others.iter().any(|other| then.canonical(other) != then.canonical(member)) {
                    continue;
                }
            }
            let name = &world.scene.table(at).columns[column].name;
            let Ok(columns) = litemesh::merge::store::Store::columns(evaluator.store(), view.table);
            let number = columns.iter().position(|known| known == name).unwrap_or_default();
            if view.cell(number as u16).is_some_and(|state| state.cell != last.cell) {
                let held = view.cell(number as u16);
                return wrong("I8 causal write", format!("{row} {name}: {last:?} knew all others, {held:?} counts"));
            }
        }
    }
    Ok(())
}

/// I12: what a reference shows leads to the class it names. Does not verify: references that led nowhere at capture.
fn references(world: &World<'_>, end: &End<'_>, reached: &mut Vec<&'static str>) -> Result<(), Violation> {
    for (row, (_, image)) in &end.shown {
        let seen = &world.nodes[0].state.rows[row];
        let schema = world.scene.table(seen.at);
        for (column, write) in &seen.cells {
            let Cell::Ref(reference) = &write.cell else { continue };
            let Some(parent_at) = world.scene.find(&reference.database, &reference.table) else { continue };
            let parent = end.canonical(&reference.row);
            let value = &image[*column];
            let at_parent = world.scene.table(parent_at).column(&reference.column).unwrap_or_default();
            let shows = |shown: &Shown| shown.1[at_parent] == *value;
            let right = match end.shown.get(&parent) {
                Some(shown) => shows(shown),
                // Nobody shows a value that leads elsewhere; a composite one may share a part.
                None => {
                    let whole = schema.foreign_keys.iter().any(|key| key.columns == [*column]);
                    let others =
                        || end.shown.iter().filter(|(other, _)| world.nodes[0].state.rows[*other].at == parent_at);
                    !whole || !others().any(|(_, shown)| shows(shown))
                }
            };
            if !right {
                let name = &schema.columns[*column].name;
                return wrong("I12 references follow", format!("{row} {name} shows {value} and means {parent}"));
            }
            let moved = end.rows[&parent].id != end.rows[&parent].claim.map(|claim| claim.id);
            if parent_at.0 != seen.at.0 && moved {
                reached.push("cross-file reference to a row that moved");
            }
        }
    }
    Ok(())
}

/// I13: no shown row points to a parent that is not shown, but by SET NULL or by the config alone. (That a class nobody needs is dead
/// exactly when all is covered is part of I5.) Does not verify: rows on the shelf.
fn deletes(world: &World<'_>, end: &End<'_>) -> Result<(), Violation> {
    for row in end.shown.keys() {
        let seen = &world.nodes[0].state.rows[row];
        let schema = world.scene.table(seen.at);
        for key in schema.foreign_keys.iter().filter(|key| key.keeps_parent) {
            let Some(write) = seen.cells.get(&key.columns[0]) else { continue };
            if let Cell::Ref(reference) = &write.cell
                && !end.shown.contains_key(&end.canonical(&reference.row))
            {
                return wrong("I13 parents", format!("{row} is shown, {} that it needs is not", reference.row));
            }
        }
    }
    Ok(())
}

/// I14: members of a class hang together by merges that are not void or by equal keys; a node merges only what was born with
/// one key. Does not verify: which of several merges a bar stopped; keys that are references (what they show changes).
fn soundness(world: &World<'_>, end: &End<'_>, reached: &mut Vec<&'static str>) -> Result<(), Violation> {
    let sound: Vec<&Bond> = end.told.merges.iter().filter(|merge| !end.told.void(&end.facts, merge)).collect();
    for row in end.rows.keys().filter(|row| end.canonical(row) == **row && end.class(row).len() > 1) {
        let class = end.class(row);
        let keyed = matches!(world.scene.table(end.told.rows[row].at).identity, Identity::Keyed(_));
        let mut connected = BTreeSet::from([class[0]]);
        while let Some(merge) =
            sound.iter().find(|merge| connected.contains(&merge.pair.0) != connected.contains(&merge.pair.1))
        {
            connected.extend([merge.pair.0, merge.pair.1]);
        }
        if !keyed && class.iter().any(|member| !connected.contains(member)) {
            return wrong("I14 merge soundness", format!("{class:?} hang together by nothing"));
        }
    }
    for merge in end.told.merges.iter().filter(|merge| !merge.columns.is_empty()) {
        let births = |row: &RowId| end.told.rows.get(row).map(|told| &told.births);
        if births(&merge.pair.0).is_none_or(BTreeSet::is_empty) || births(&merge.pair.1).is_none_or(BTreeSet::is_empty)
        {
            continue;
        }
        let schema = world.scene.table(end.told.rows[&merge.pair.0].at);
        let refers = |column: &&usize| schema.foreign_keys.iter().any(|key| key.columns.contains(column));
        for column in merge.columns.iter().filter(|column| !refers(column)) {
            // The classes' values were equal: some member of each was born with it.
            let born =
                |row: &RowId| -> BTreeSet<Value> {
                    let mut reachable = BTreeSet::from([*row]);
                    while let Some(other) = end.told.merges.iter().find(|m| {
                        reachable.contains(&m.pair.0) != reachable.contains(&m.pair.1) && m.pair != merge.pair
                    }) {
                        reachable.extend([other.pair.0, other.pair.1]);
                    }
                    let told = reachable.iter().filter_map(|row| end.told.rows.get(row));
                    told.flat_map(|told| told.writes.get(column).into_iter().flatten())
                        .filter(|write| write.born)
                        .map(|write| match &write.cell {
                            Cell::Plain(value) => fold(value.clone(), Collation::NoCase),
                            _ => Value::Null,
                        })
                        .collect()
                };
            if born(&merge.pair.0).is_disjoint(&born(&merge.pair.1)) {
                return wrong("I14 merge soundness", format!("{merge:?}: born with different keys"));
            }
        }
    }
    let apart = |merge: &&&Bond| !end.together(&merge.pair.0, &merge.pair.1) && births_known(end, merge);
    if sound.iter().any(|merge| apart(&merge)) {
        reached.push("merge that a bar stopped");
    }
    if end.told.merges.iter().any(|merge| apart(&&merge) && end.told.void(&end.facts, merge)) {
        reached.push("row of a class in pieces again");
    }
    Ok(())
}

fn births_known(end: &End<'_>, merge: &Bond) -> bool {
    let known = |row: &RowId| end.told.rows.get(row).is_some_and(|told| !told.births.is_empty());
    known(&merge.pair.0) && known(&merge.pair.1)
}

/// I15: rows of a void merge that nothing else joins are two. Does not verify: longer chains of merges (I14 does).
fn voids(end: &End<'_>) -> Result<(), Violation> {
    for merge in end.told.merges.iter().filter(|merge| end.told.void(&end.facts, merge)) {
        let sound = end.told.merges.iter().filter(|other| !end.told.void(&end.facts, other));
        let touches = |row: &RowId| sound.clone().any(|other| other.pair.0 == *row || other.pair.1 == *row);
        let keyed = matches!(merge.pair.0, RowId::Keyed(_));
        if !keyed && !touches(&merge.pair.0) && end.together(&merge.pair.0, &merge.pair.1) {
            return wrong("I15 void rule", format!("{:?} are one by a void merge", merge.pair));
        }
    }
    Ok(())
}

/// I16: rows that a person split, and nobody merged by hand since, are two, with two keys. Does not verify: rows of keyed
/// tables whose keys are equal (the key is the identity).
fn splits(world: &World<'_>, end: &End<'_>) -> Result<(), Violation> {
    for (one, other) in end.told.bars(&end.facts) {
        let (Some(a), Some(b)) = (world.nodes[0].state.rows.get(&one), world.nodes[0].state.rows.get(&other)) else {
            continue;
        };
        if end.together(&one, &other) && !matches!(one, RowId::Keyed(_)) {
            return wrong("I16 split sticks", format!("{one} and {other} are one again"));
        }
        let shows = |seen: &crate::reference::Seen| end.shown.get(&seen.class[0]).map(|shown| shown.0.clone());
        if !end.together(&one, &other) && shows(a).is_some() && shows(a) == shows(b) && a.at == b.at {
            return wrong("I16 split sticks", format!("{one} and {other} show one key"));
        }
    }
    Ok(())
}

/// I11: ids of the founder's rows, never given to another row by who saw them free, never move. Does not verify: histories
/// with changed ids, and ids that a row found at enrolment claims.
fn founder(world: &World<'_>, end: &End<'_>) -> Result<(), Violation> {
    let claims =
        || end.told.rows.iter().flat_map(|(row, told)| told.claims.iter().map(move |claim| (row, told, claim)));
    if claims().any(|(_, _, claim)| claim.depth > 0) {
        return Ok(());
    }
    for (row, told, claim) in claims() {
        let RowId::Born(birth) = row else { continue };
        if birth.origin != world.scene.ids[0] {
            continue;
        }
        let rivals = || claims().filter(|(_, other, rival)| other.at == told.at && rival.id == claim.id);
        let seniors = rivals().any(|(other, _, _)| {
            other != row && (matches!(other, RowId::Genesis(_)) || other < row && founder_of(world, other))
        });
        let reused = rivals().any(|(_, _, rival)| rival.after == Some(*row));
        if !seniors && !reused && end.rows[row].id != Some(claim.id) {
            return wrong(
                "I11 the founder's ids stay",
                format!("{row} was {} and is {:?}", claim.id, end.rows[row].id),
            );
        }
    }
    Ok(())
}

fn founder_of(world: &World<'_>, row: &RowId) -> bool {
    matches!(row, RowId::Born(birth) if birth.origin == world.scene.ids[0])
}
