//! One history: nodes, each with a real evaluator over a store in memory, that write, pull and merge, step after step.
//!
//! A node's file is what its evaluator marked as shown; the app acts on what the reference says, which was just compared
//! with it. Invariant: a function of options and steps. Callers: `main`, the shrinker.

use std::collections::{BTreeMap, BTreeSet};

use crate::act;
use crate::check;
use crate::dice::Dice;
use crate::reference::{Fact, Pair, State, evaluate};
use crate::scene::{Options, Scene};
use litemesh::merge::Evaluator;
use litemesh::merge::memory::MemoryStore;
use litemesh::merge::store::Store;
use litemesh::model::{Change, Cut, Event, Header, Origin, RowId, Stamp, TableColumns};

/// Wall time at which every history begins, ms.
const START_MS: u64 = 1_700_000_000_000;

/// A year, ms.
const YEAR_MS: i64 = 31_536_000_000;

/// At most this many merges in a row may be found before the search counts as endless.
const EMISSIONS_MAX: usize = 40;

/// What somebody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The app inserts.
    Insert,
    /// The app updates.
    Update,
    /// The app deletes, with cascades.
    Delete,
    /// The app changes an id.
    Claim,
    /// A person merges two rows.
    Merge,
    /// A person splits two rows.
    Split,
    /// The node pulls from another one.
    Pull,
    /// Events are delivered again.
    Repeat,
}

/// One step. It carries its own draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Position in the history as drawn.
    pub number: usize,
    /// Who.
    pub node: usize,
    /// What.
    pub deed: Deed,
    /// The seed of its draws.
    pub draws: u64,
}

/// Something that must not be.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The name of the check.
    pub check: &'static str,
    /// What is wrong.
    pub what: String,
}

/// Shorthand for a failed check.
pub fn wrong<T>(check: &'static str, what: String) -> Result<T, Violation> {
    Err(Violation { check, what })
}

/// One event of the history.
pub struct Entry {
    /// Event and cut.
    pub fact: Fact,
    /// Its database.
    pub database: usize,
    /// Facts that must be applied before.
    pub needs: BTreeSet<usize>,
    /// The node that wrote it; none for rows found at enrolment.
    pub author: Option<usize>,
}

/// One node.
pub struct Node {
    /// What its evaluator keeps.
    pub store: MemoryStore,
    /// Facts applied.
    pub has: BTreeSet<usize>,
    /// F of these.
    pub state: State,
    /// Greatest stamp made or absorbed.
    pub clock: u64,
    /// How far its clock is off, ms.
    pub skew_ms: i64,
    /// Last sequence number written.
    pub seq: u64,
    /// Ids each row had here, in order.
    pub ids: BTreeMap<RowId, Vec<i64>>,
}

/// A history under way.
pub struct World<'w> {
    /// Schemas and names.
    pub scene: &'w Scene,
    /// What may happen.
    pub options: Options,
    /// All events, causes first.
    pub entries: Vec<Entry>,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// Wall time.
    pub now_ms: u64,
    /// Rare situations reached.
    pub marks: BTreeMap<&'static str, u64>,
    /// Evaluations compared.
    pub evaluations: u64,
    /// What happened, for people.
    pub trace: Option<Vec<String>>,
}

/// Draws the steps of a history.
pub fn draw_steps(dice: &mut Dice, options: &Options) -> Vec<Step> {
    let count = 20 + dice.below(50) as usize;
    let mut steps = Vec::with_capacity(count);
    for number in 0..count {
        let deed = match dice.below(100) {
            0..=26 => Deed::Insert,
            27..=48 => Deed::Update,
            49..=57 if options.delete => Deed::Delete,
            58..=62 if options.claim => Deed::Claim,
            63..=66 if options.merge => Deed::Merge,
            67..=70 if options.split => Deed::Split,
            71..=73 if options.repeat => Deed::Repeat,
            _ => Deed::Pull,
        };
        steps.push(Step { number, node: dice.below(options.nodes as u64) as usize, deed, draws: dice.bits() });
    }
    steps
}

impl<'w> World<'w> {
    /// The beginning: nodes, and what their files hold.
    pub fn new(scene: &'w Scene, options: &Options, seed: u64, trace: bool) -> World<'w> {
        let mut dice = Dice::new(seed ^ 0x005c_e4e0);
        let nodes = (0..options.nodes).map(|_| {
            let skew_ms = match dice.below(4) {
                0 if options.skew => YEAR_MS,
                1 if options.skew => -YEAR_MS,
                _ => dice.below(2_000) as i64 - 1_000,
            };
            Node {
                store: MemoryStore::default(),
                has: BTreeSet::new(),
                state: State::default(),
                clock: 0,
                skew_ms,
                seq: 0,
                ids: BTreeMap::new(),
            }
        });
        let nodes = nodes.collect();
        let trace = trace.then(Vec::new);
        World {
            scene,
            options: options.clone(),
            entries: Vec::new(),
            nodes,
            now_ms: START_MS,
            marks: BTreeMap::new(),
            evaluations: 0,
            trace,
        }
    }

    /// Runs the steps, then delivers everything to everybody.
    pub fn run(&mut self, steps: &[Step], seed: u64) -> Result<(), Violation> {
        if self.options.genesis {
            for (node, entry) in act::genesis(self, &mut Dice::new(seed ^ 0x6e5)) {
                self.take(node, &[entry])?;
            }
        }
        let late = self.options.nodes - 1;
        for step in steps {
            if step.node >= self.nodes.len() || (self.options.late && step.node == late && step.number < 30) {
                continue;
            }
            self.step(step)?;
        }
        self.calm()?;
        check::finally(self, seed)
    }

    fn step(&mut self, step: &Step) -> Result<(), Violation> {
        let mut dice = Dice::new(step.draws);
        self.now_ms += 1 + dice.below(20_000);
        let node = step.node;
        match step.deed {
            Deed::Pull => {
                let from = (node + 1 + dice.below(self.nodes.len() as u64 - 1) as usize) % self.nodes.len();
                self.pull(node, from, if dice.chance(50) { 0 } else { dice.below(80) }, &mut dice)
            }
            Deed::Repeat => check::redeliver(self, node, &mut dice),
            _ => {
                let Some(draft) = act::draft(self, node, step.deed, &mut dice) else { return Ok(()) };
                let number = step.number;
                let entry = self.write(node, draft.database, draft.tables, draft.changes);
                self.say(|world| format!("step {number}: {}", act::tell(world, entry)));
                self.take(node, &[entry])?;
                check::after_own(self, node, entry)?;
                self.emit(node)
            }
        }
    }

    /// Everybody gets everything, until nobody finds anything to merge.
    fn calm(&mut self) -> Result<(), Violation> {
        self.say(|_| "everything is delivered to everybody".to_string());
        let mut dice = Dice::new(1);
        loop {
            let before = self.entries.len();
            for node in 0..self.nodes.len() {
                for from in 0..self.nodes.len() {
                    if from != node {
                        self.pull(node, from, 0, &mut dice)?;
                    }
                }
            }
            let complete = self.nodes.iter().all(|node| node.has.len() == self.entries.len());
            if complete && before == self.entries.len() {
                return Ok(());
            }
            if self.entries.len() > 3_000 {
                return wrong("R11 emission ends", format!("{} events and no end", self.entries.len()));
            }
        }
    }

    /// Tells what happens, where somebody listens.
    pub fn say(&mut self, what: impl FnOnce(&World<'_>) -> String) {
        if self.trace.is_some() {
            let line = what(self);
            if let Some(trace) = &mut self.trace {
                trace.push(line);
            }
        }
    }

    /// Counts a rare situation.
    pub fn mark(&mut self, name: &'static str) {
        *self.marks.entry(name).or_default() += 1;
    }

    /// What a node applied of one database, as a cut.
    pub fn cut(&self, node: usize, database: usize) -> Cut {
        let mut cut = Cut::default();
        for fact in self.nodes[node].has.iter().map(|entry| &self.entries[*entry]).filter(|e| e.database == database) {
            crdts::CmRDT::apply(&mut cut, crdts::Dot::new(fact.fact.origin, fact.fact.event.header.seq));
        }
        cut
    }

    /// The next stamp of a node's clock.
    fn stamp(&mut self, node: usize) -> Stamp {
        let wall = Stamp::from_wall_ms(self.now_ms.saturating_add_signed(self.nodes[node].skew_ms)).0;
        let node = &mut self.nodes[node];
        node.clock = wall.max(node.clock + 1);
        Stamp(node.clock)
    }

    /// Seals an event of a node: not applied yet, not even by its author.
    pub fn write(&mut self, node: usize, database: usize, tables: Vec<TableColumns>, changes: Vec<Change>) -> usize {
        let stamp = self.stamp(node);
        self.nodes[node].seq += 1;
        let seq = self.nodes[node].seq;
        let origin = self.scene.origins[node];
        let mut cut = self.cut(node, database);
        if seq > 1 {
            crdts::CmRDT::apply(&mut cut, crdts::Dot::new(self.scene.ids[node], seq - 1));
        }
        let has = &self.nodes[node].has;
        let needs = has.iter().copied().filter(|entry| self.entries[*entry].database == database).collect();
        self.seal(origin, seq, stamp, database, cut, needs, tables, changes, Some(node))
    }

    /// Adds an event to the history.
    #[allow(clippy::too_many_arguments)]
    pub fn seal(
        &mut self,
        origin: Origin,
        seq: u64,
        stamp: Stamp,
        database: usize,
        cut: Cut,
        needs: BTreeSet<usize>,
        tables: Vec<TableColumns>,
        changes: Vec<Change>,
        author: Option<usize>,
    ) -> usize {
        let header = Header {
            cluster: [0; 32],
            origin,
            seq,
            previous: [0; 32],
            stamp,
            database: self.scene.schemas[database].database.clone(),
            applied: Cut::default(),
            schema: [0; 16],
            continues: false,
            note: String::new(),
        };
        let fact = Fact { event: Event { header, tables, changes }, origin: origin.id(), cut };
        self.entries.push(Entry { fact, database, needs, author });
        self.entries.len() - 1
    }

    /// Takes what another node has and this one lacks, causes first. `skipped`: percent left for later.
    fn pull(&mut self, node: usize, from: usize, skipped: u64, dice: &mut Dice) -> Result<(), Violation> {
        let mut has = self.nodes[node].has.clone();
        let mut taken = Vec::new();
        for entry in self.nodes[from].has.difference(&self.nodes[node].has).copied().collect::<Vec<_>>() {
            if !dice.chance(skipped) && self.entries[entry].needs.is_subset(&has) {
                has.insert(entry);
                taken.push(entry);
            }
        }
        if taken.is_empty() {
            return Ok(());
        }
        self.say(|world| {
            let names: Vec<String> = taken.iter().map(|entry| act::name_of(world, *entry)).collect();
            format!("node {node} gets {} from node {from}", names.join(", "))
        });
        let wall = self.now_ms.saturating_add_signed(self.nodes[node].skew_ms);
        for entry in &taken {
            let stamp = self.entries[*entry].fact.event.header.stamp;
            if stamp.wall_ms() <= wall + 60_000 {
                self.nodes[node].clock = self.nodes[node].clock.max(stamp.0);
            }
        }
        let chunk = if self.options.single { 1 } else { taken.len() };
        for chunk in taken.chunks(chunk) {
            if self.options.emit && self.options.early {
                self.emit_before(node, chunk)?;
            }
            self.take(node, chunk)?;
            self.emit(node)?;
        }
        Ok(())
    }

    /// R11 as a node does it that shall never show both rows of a pair: it merges them before it takes the events in.
    fn emit_before(&mut self, node: usize, chunk: &[usize]) -> Result<(), Violation> {
        for _ in 0..EMISSIONS_MAX {
            let mut store = self.nodes[node].store.clone();
            let entries: Vec<&Entry> = chunk.iter().map(|entry| &self.entries[*entry]).collect();
            let mut evaluator = Evaluator::new(&mut store, &self.scene.ranks, &self.scene.schemas, self.now_ms);
            for entry in entries {
                feed(&mut evaluator, self.scene, entry);
            }
            let Ok(_) = evaluator.settle();
            let met = evaluator.collided();
            let Ok(found) = evaluator.mergeable(&met);
            let pairs: BTreeSet<Pair> = found
                .into_iter()
                .filter_map(|pair| Some((self.table_named(&pair.table)?, pair.row, pair.other, pair.columns)))
                .collect();
            if pairs.is_empty() {
                return Ok(());
            }
            self.mark("merge written before its rows");
            self.write_merges(node, &pairs)?;
        }
        wrong("R11 emission ends", format!("node {node} goes on finding pairs"))
    }

    fn table_named(&self, name: &str) -> Option<(usize, usize)> {
        self.scene.schemas.iter().find_map(|schema| self.scene.find(&schema.database, name))
    }

    /// R11: merges what the node sees, until it sees nothing.
    fn emit(&mut self, node: usize) -> Result<(), Violation> {
        if !self.options.emit {
            return Ok(());
        }
        for _ in 0..EMISSIONS_MAX {
            let pairs = self.nodes[node].state.pairs.clone();
            if pairs.is_empty() {
                return Ok(());
            }
            self.write_merges(node, &pairs)?;
        }
        wrong("R11 emission ends", format!("node {node} goes on finding pairs"))
    }

    fn write_merges(&mut self, node: usize, pairs: &BTreeSet<Pair>) -> Result<(), Violation> {
        for database in 0..self.scene.schemas.len() {
            let (mut tables, mut changes) = (Vec::new(), Vec::new());
            for (at, row, other, names) in pairs.iter().filter(|pair| pair.0.0 == database) {
                let schema = self.scene.table(*at);
                let table = act::table_entry(&mut tables, schema);
                let mut columns: Vec<u32> =
                    names.iter().filter_map(|name| schema.column(name)).map(|column| column as u32).collect();
                columns.sort_unstable();
                changes.push(Change::Merge { table, row: *row, other: *other, columns });
            }
            if changes.is_empty() {
                continue;
            }
            self.mark("merge by a node");
            let entry = self.write(node, database, tables, changes);
            self.say(|world| act::tell(world, entry));
            self.take(node, &[entry])?;
        }
        Ok(())
    }

    /// Evaluates events on a node and compares what comes of them with F.
    pub fn take(&mut self, node: usize, entries: &[usize]) -> Result<(), Violation> {
        self.nodes[node].has.extend(entries.iter().copied());
        let facts: Vec<&Fact> = self.nodes[node].has.iter().map(|entry| &self.entries[*entry].fact).collect();
        let state = evaluate(self.scene, &facts);
        self.evaluations += 1;
        let fed: Vec<&Entry> = entries.iter().map(|entry| &self.entries[*entry]).collect();
        let (scene, now_ms) = (self.scene, self.now_ms);
        apply(&mut self.nodes[node].store, scene, &fed, now_ms);
        check::same(scene, &mut self.nodes[node].store, &state, now_ms)
            .map_err(|violation| Violation { what: format!("node {node}: {}", violation.what), ..violation })?;
        let before = std::mem::replace(&mut self.nodes[node].state, state);
        check::movement(self, node, &before)?;
        check::reached(self, node);
        Ok(())
    }
}

/// Integrates one event.
pub fn feed(evaluator: &mut Evaluator<'_, MemoryStore>, scene: &Scene, entry: &Entry) {
    let (event, cut) = (&entry.fact.event, entry.fact.cut.clone());
    let database = &scene.schemas[entry.database].database;
    evaluator.store_mut().put_cut(database, entry.fact.origin, event.header.seq, cut);
    let Ok(()) = evaluator.integrate(event);
}

/// What the node's apply does: evaluate, settle, write every dirty row's image, finish.
pub fn apply(store: &mut MemoryStore, scene: &Scene, entries: &[&Entry], now_ms: u64) {
    let mut evaluator = Evaluator::new(store, &scene.ranks, &scene.schemas, now_ms);
    for entry in entries {
        feed(&mut evaluator, scene, entry);
    }
    let Ok(_) = evaluator.settle();
    for schema in &scene.schemas {
        let Ok(dirty) = evaluator.store().dirty(&schema.database);
        let mut changes = Vec::new();
        for row in &dirty {
            let Ok(change) = evaluator.presentation(row);
            changes.extend(change);
        }
        for change in changes {
            let Ok(()) = evaluator.mark_shown(&change.row, change.new.as_ref());
        }
        for row in dirty {
            let Ok(record) = evaluator.row(&row);
            let Some(table) = record.map(|record| record.table) else { continue };
            let Ok(()) = evaluator.store_mut().set_dirty(table, row, false);
        }
    }
    let Ok(()) = evaluator.finish();
}
