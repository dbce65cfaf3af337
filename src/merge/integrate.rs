//! R5 and the bookkeeping of births, claims and deletes: what one event adds to what is known.
//!
//! Invariant: after [`Evaluator::integrate`] every index that [`super::settle`] needs names the rows to look at again;
//! nothing the file shows has changed. Redelivered changes add nothing. Caller: node, one event after the other in causal
//! order.

use crdts::CmRDT;

use super::Evaluator;
use super::claims::remainder;
use super::registers::Tally;
use super::store::{AuditKind, AuditRecord, CellState, CellVersion, Claim, LinkKind, Row, Store, TableId};
use crate::model::{Bug, Cell, Change, Cut, Dot, Event, OriginId, RowId, Stamp, planted};

/// The origin under which rows found at enrolment are born: every author knew it.
pub const GENESIS_ORIGIN: OriginId = OriginId([0; 16]);

/// The dot of the birth of every row found at enrolment.
pub const GENESIS_DOT: Dot = Dot { origin: GENESIS_ORIGIN, seq: 1, index: 0 };

/// An event's table, resolved to numbers.
struct Resolved {
    table: TableId,
    columns: Vec<u16>,
}

/// Where a change stands: the event's cut, the change's own dot and the event's stamp.
pub(super) struct Position<'e> {
    pub(super) cut: &'e Cut,
    pub(super) dot: Dot,
    pub(super) stamp: Stamp,
}

impl<S: Store> Evaluator<'_, S> {
    /// Adds an event to what is known. `event`'s causes must have been added before.
    pub fn integrate(&mut self, event: &Event) -> Result<(), S::Error> {
        self.integrate_chosen(event, &|_, _| true)
    }

    /// Adds those changes of an event that `chosen` says (position, change), as if its author had made no others.
    pub fn integrate_chosen(&mut self, event: &Event, chosen: &dyn Fn(u32, &Change) -> bool) -> Result<(), S::Error> {
        let header = &event.header;
        let cut = self.store.cut_of(&header.database, header.origin.id(), header.seq)?;
        let mut tables = Vec::with_capacity(event.tables.len());
        for entry in &event.tables {
            let table = self.store.table_id(&header.database, &entry.table)?;
            let mut columns = Vec::with_capacity(entry.columns.len());
            for column in &entry.columns {
                columns.push(self.column_number(table, column)?);
            }
            tables.push(Resolved { table, columns });
        }
        let changes = event.changes.iter().enumerate();
        for (index, change) in changes.filter(|(index, change)| chosen(*index as u32, change)) {
            let at = Position { cut: &cut, dot: event.dot(index as u32), stamp: header.stamp };
            self.integrate_change(change, &tables[change.table() as usize], &at)?;
        }
        Ok(())
    }

    fn integrate_change(&mut self, change: &Change, to: &Resolved, at: &Position<'_>) -> Result<(), S::Error> {
        if let Change::Rule { column, rule, .. } = change {
            let column = column.map(|column| to.columns[column as usize]);
            return self.consider_rule(to.table, column, *rule, at);
        }
        let Some(id) = change.row() else { return Ok(()) };
        if !self.can_be(change, &id, to.table, at)? {
            return Ok(());
        }
        if self.row(&id)?.is_none() {
            self.insert_row(id, Row::new(to.table));
        }
        self.touched.insert(id);
        self.forget_whole(&id)?;
        match change {
            Change::Insert { claim, after, cells, .. } => {
                let dot = if matches!(id, RowId::Genesis(_)) { GENESIS_DOT } else { at.dot };
                if self.add_birth(&id, dot, at.stamp)? {
                    self.touch(&id, dot, at)?;
                }
                if let Some(claimed) = *claim {
                    self.consider_claim(&id, Claim { id: claimed, after: *after, depth: 0, dot })?;
                }
                self.put_born(&id, (to, cells), dot, at)?;
            }
            Change::Update { cells, .. } => {
                self.touch(&id, at.dot, at)?;
                for (column, cell, stamp) in cells {
                    let column = to.columns[*column as usize];
                    let (cell, stamp, dot) = (cell.clone(), *stamp, at.dot);
                    let state = CellState { column, cell, stamp, dot, born: false, tally: None };
                    let before = self.row(&id)?.and_then(|row| row.cell(column)).cloned();
                    self.put_cell(&id, state, at.cut)?;
                    self.note_update(&id, before, column, at)?;
                    self.void_merges(&id, column, at)?;
                    self.audit_members(&id, column, at)?;
                }
            }
            Change::Delete { .. } => self.cover(&id, at)?,
            Change::Claim { id: claimed, after, depth, .. } => {
                self.touch(&id, at.dot, at)?;
                self.consider_claim(&id, Claim { id: *claimed, after: *after, depth: *depth, dot: at.dot })?;
            }
            Change::Merge { other, columns, .. } => {
                let columns = columns.iter().map(|column| to.columns[*column as usize]).collect();
                self.link(LinkKind::Merge, (id, *other), columns, at)?;
            }
            Change::Split { other, .. } => self.link(LinkKind::Split, (id, *other), Vec::new(), at)?,
            // Taken over above.
            Change::Rule { .. } => {}
        }
        Ok(())
    }

    /// Whether a change can be what an honest node captured. A row is of one table, that of its birth; it is born by the
    /// change that it is named after, and written by those who know it. Anything else is a member's fault and says nothing:
    /// its column numbers would mean columns of another table. (A node merges rows that its file does not show yet.)
    fn can_be(&mut self, change: &Change, id: &RowId, table: TableId, at: &Position<'_>) -> Result<bool, S::Error> {
        let (birth, second) = match (change, id) {
            (Change::Merge { other, .. } | Change::Split { other, .. }, _) => (true, Some(*other)),
            (Change::Insert { .. }, RowId::Born(birth)) => (birth.dot() == at.dot, None),
            (_, RowId::Born(birth)) => (knows(at, &birth.dot()) && birth.dot() != at.dot, None),
            (_, RowId::Genesis(_) | RowId::Keyed(_)) => (true, None),
        };
        if !birth {
            return Ok(false);
        }
        for row in [Some(*id), second].into_iter().flatten() {
            let Some(record) = self.row(&row)? else { continue };
            if record.table == table {
                continue;
            }
            let bare = record.births.is_empty() && record.cells.is_empty() && record.claim.is_none();
            if !bare || !matches!(change, Change::Insert { .. }) {
                return Ok(false);
            }
            self.forget_links(&row)?;
            self.insert_row(row, Row::new(table));
        }
        Ok(true)
    }

    /// Adds a birth; false when it is known.
    fn add_birth(&mut self, id: &RowId, dot: Dot, stamp: Stamp) -> Result<bool, S::Error> {
        let Some(row) = self.row_mut(id)? else { return Ok(false) };
        let new = row.births.iter().all(|(known, _)| *known != dot);
        if new {
            row.births.push((dot, stamp));
            row.births.sort();
        }
        Ok(new)
    }

    /// Notes an insert or update. One that did not know the row's delete revives it (or, where deletes win, says nothing),
    /// and the audit tells.
    fn touch(&mut self, id: &RowId, dot: Dot, at: &Position<'_>) -> Result<(), S::Error> {
        let Some(table) = self.row(id)?.map(|row| row.table) else { return Ok(()) };
        let deletes_win = self.table_rules(table)?.deletes_win();
        let Some(row) = self.row_mut(id)? else { return Ok(()) };
        let was_dead = !row.uncovered();
        row.touched.apply(crdts::Dot::new(dot.origin, dot.seq));
        row.granted |= row.deletes.iter().all(|delete| knows_event(at, delete.actor, delete.counter));
        let revived = was_dead && row.uncovered();
        let lost = row.deleted.filter(|(delete, _)| !knows(at, delete));
        match lost {
            Some((delete, stamp)) if deletes_win && !row.granted => {
                self.audit(table, *id, AuditKind::WriteLost { write: dot, delete, stamp })
            }
            Some((delete, stamp)) if !deletes_win && revived => {
                crate::sometimes!("merge: a write that did not know the delete revives the row");
                self.audit(table, *id, AuditKind::DeleteLost { delete, stamp })
            }
            _ => Ok(()),
        }
    }

    /// R7: a delete covers exactly the inserts and updates its author's file had applied.
    fn cover(&mut self, id: &RowId, at: &Position<'_>) -> Result<(), S::Error> {
        let Some(table) = self.row(id)?.map(|row| row.table) else { return Ok(()) };
        let deletes_win = self.table_rules(table)?.deletes_win();
        let Some(row) = self.row_mut(id)? else { return Ok(()) };
        let touches: Vec<(OriginId, u64)> = row.touched.iter().map(|dot| (*dot.actor, dot.counter)).collect();
        for (origin, seq) in &touches {
            let all = *origin == GENESIS_ORIGIN || planted(Bug::GreedyDelete);
            let known = if all { *seq } else { at.cut.get(origin) };
            row.covered.apply(crdts::Dot::new(*origin, known.min(*seq)));
        }
        let outlived = row.uncovered();
        // Nobody can have known this delete yet; a repeated one ends nothing.
        if row.deletes.get(&at.dot.origin) < at.dot.seq {
            row.deletes.apply(crdts::Dot::new(at.dot.origin, at.dot.seq));
            row.granted = false;
        }
        let newer = row.deleted.is_none_or(|(delete, stamp)| (stamp, delete) < (at.stamp, at.dot));
        if newer {
            row.deleted = Some((at.dot, at.stamp));
        }
        let unknown = touches.into_iter().find(|(origin, seq)| *seq > row.covered.get(origin));
        let (delete, stamp) = (at.dot, at.stamp);
        match unknown {
            Some((origin, seq)) if deletes_win => {
                let write = Dot { origin, seq, index: 0 };
                self.audit(table, *id, AuditKind::WriteLost { write, delete, stamp })
            }
            _ if outlived => self.audit(table, *id, AuditKind::DeleteLost { delete, stamp }),
            _ => Ok(()),
        }
    }

    /// Of a row's claims the one that knew most earlier ones counts; ties go to the most senior author.
    fn consider_claim(&mut self, id: &RowId, claim: Claim) -> Result<(), S::Error> {
        let Some(row) = self.row(id)? else { return Ok(()) };
        let table = row.table;
        let current = row.claim;
        let wins = match current {
            None => true,
            Some(current) => {
                let order = |claim: &Claim| {
                    // Copies of a file may hold one row without a key under different rowids: then the least.
                    (std::cmp::Reverse(claim.depth), self.ranks.place(&claim.dot), claim.dot, claim.id)
                };
                order(&claim) < order(&current)
            }
        };
        if !wins {
            return Ok(());
        }
        if let Some(current) = current {
            self.store.remove_claim(table, current.id, *id)?;
            self.classes.insert((table, remainder(current.id)));
        }
        self.store.add_claim(table, claim.id, *id)?;
        self.classes.insert((table, remainder(claim.id)));
        if let Some(row) = self.row_mut(id)? {
            row.claim = Some(claim);
        }
        Ok(())
    }

    /// Puts the cells that a row is born with. Most rows are new and their columns have no rule: then all go in at once.
    fn put_born(
        &mut self,
        id: &RowId,
        (to, cells): (&Resolved, &[(u32, Cell)]),
        dot: Dot,
        at: &Position<'_>,
    ) -> Result<(), S::Error> {
        let born = cells.iter().map(|(column, cell)| {
            let (column, cell) = (to.columns[*column as usize], cell.clone());
            CellState { column, cell, stamp: at.stamp, dot, born: true, tally: None }
        });
        let rules = self.table_rules(to.table)?;
        let ruled = cells.iter().any(|(column, _)| rules.adds_up(to.columns[*column as usize]));
        let fresh = self.row(id)?.is_some_and(|row| row.cells.is_empty() && row.members().is_empty());
        if ruled || !fresh {
            for state in born {
                self.put_cell(id, state, at.cut)?;
            }
            return Ok(());
        }
        let mut states: Vec<CellState> = born.collect();
        for state in &mut states {
            if matches!(state.cell, Cell::Step { .. } | Cell::Edit(_)) {
                state.cell = state.cell.without_difference();
            }
        }
        // Of two values for one column the first counts, as everywhere.
        states.sort_by_key(|state| state.column);
        states.dedup_by_key(|state| state.column);
        for state in &states {
            if let Cell::Ref(reference) = &state.cell {
                self.store.add_referrer(reference.row, *id)?;
                self.liveness.insert(reference.row);
            }
        }
        if let Some(row) = self.row_mut(id)? {
            row.cells = states;
        }
        Ok(())
    }

    /// R5: an update beats what a row was born with; else the greatest (stamp, event) wins, unless the column has a rule.
    fn put_cell(&mut self, id: &RowId, mut new: CellState, cut: &Cut) -> Result<(), S::Error> {
        let Some(table) = self.row(id)?.map(|row| row.table) else { return Ok(()) };
        if self.table_rules(table)?.adds_up(new.column) {
            return self.put_ruled(id, table, new, cut);
        }
        if matches!(new.cell, Cell::Step { .. } | Cell::Edit(_)) {
            new.cell = new.cell.without_difference();
        }
        let Some(row) = self.row_mut(id)? else { return Ok(()) };
        let position = row.cells.binary_search_by_key(&new.column, |state| state.column);
        let Ok(position) = position else {
            row.cells.insert(position.unwrap_or_else(|free| free), new.clone());
            return self.refer(id, None, Some(&new.cell));
        };
        let old = row.cells[position].clone();
        if old.dot == new.dot && old.stamp == new.stamp {
            return Ok(());
        }
        let wins = strength(&new) > strength(&old) || planted(Bug::LastArrivalWins) && !new.born;
        if wins {
            row.cells[position] = new.clone();
            self.refer(id, Some(&old.cell), Some(&new.cell))?;
        }
        self.note_loser(id, (old, new, wins), cut)
    }

    /// The same in a column that has, or had, a rule by which writes add up.
    fn put_ruled(&mut self, id: &RowId, table: TableId, mut new: CellState, cut: &Cut) -> Result<(), S::Error> {
        let rules = self.table_rules(table)?;
        let (known, kinds) = rules.known(new.column, cut, &new.dot);
        let ruling = rules.ruling(new.column);
        let Some(row) = self.row_mut(id)? else { return Ok(()) };
        let position = row.cells.binary_search_by_key(&new.column, |state| state.column);
        let old = position.ok().map(|position| row.cells[position].clone());
        if old.as_ref().is_some_and(|old| old.dot == new.dot && old.stamp == new.stamp) {
            return Ok(());
        }
        let tally = Tally::add(old.as_ref(), &new, known, &kinds);
        let Some(shown) = tally.show(new.column, &ruling) else { return Ok(()) };
        let (before, after) = (old.as_ref().map(|old| old.cell.clone()), shown.cell.clone());
        let wins = shown.dot == new.dot;
        match position {
            Ok(position) => row.cells[position] = shown,
            Err(position) => row.cells.insert(position, shown),
        }
        if before.as_ref() != Some(&after) {
            self.refer(id, before.as_ref(), Some(&after))?;
        }
        new.cell = new.cell.without_difference();
        match old {
            Some(old) if !ruling.adds_up(&old, &new) => self.note_loser(id, (old, new, wins), cut),
            _ => Ok(()),
        }
    }

    /// Of two writes of one cell that did not know each other, the one that is not shown goes to the audit.
    fn note_loser(
        &mut self,
        id: &RowId,
        (old, new, wins): (CellState, CellState, bool),
        cut: &Cut,
    ) -> Result<(), S::Error> {
        let concurrent = old.dot.origin != new.dot.origin && cut.get(&old.dot.origin) < old.dot.seq;
        if !concurrent || old.dot.origin == GENESIS_ORIGIN || old.cell == new.cell || planted(Bug::LoserForgotten) {
            return Ok(());
        }
        crate::sometimes!("merge: of two values written apart one loses");
        let column = new.column;
        let (winner, loser) = if wins { (new, old) } else { (old, new) };
        self.audit_cell(id, column, winner, loser)
    }

    /// Of two values that did not know each other one lost.
    pub(super) fn audit_cell(
        &mut self,
        id: &RowId,
        column: u16,
        winner: CellState,
        loser: CellState,
    ) -> Result<(), S::Error> {
        let Some(table) = self.row(id)?.map(|row| row.table) else { return Ok(()) };
        let column = self.info(table)?.columns[column as usize].clone();
        let (winner, loser) = (Box::new(CellVersion::from(winner)), Box::new(CellVersion::from(loser)));
        self.audit(table, *id, AuditKind::Cell { column, winner, loser })
    }

    /// Keeps the index of referrers when a cell's value changes.
    fn refer(&mut self, id: &RowId, old: Option<&Cell>, new: Option<&Cell>) -> Result<(), S::Error> {
        if let Some(Cell::Ref(reference)) = old {
            let parent = reference.row;
            let still = self.row(id)?.is_some_and(|row| row.parents().any(|(_, other)| other.row == parent));
            if !still {
                self.store.remove_referrer(parent, *id)?;
            }
            self.liveness.insert(parent);
        }
        if let Some(Cell::Ref(reference)) = new {
            self.store.add_referrer(reference.row, *id)?;
            self.liveness.insert(reference.row);
        }
        // The class may have shown another member's reference until now.
        if self.row(id)?.is_none_or(|row| row.members().len() < 2) {
            return Ok(());
        }
        for member in self.members(id)? {
            let parents = self.row(&member)?.map(|row| row.parents().map(|(_, parent)| parent.row).collect::<Vec<_>>());
            self.liveness.extend(parents.unwrap_or_default());
        }
        Ok(())
    }

    /// Adds to the audit.
    pub fn audit(&mut self, table: TableId, row: RowId, kind: AuditKind) -> Result<(), S::Error> {
        let seen_ms = self.seen_ms;
        let info = self.info(table)?;
        let (database, table) = (info.database.clone(), info.name.to_string());
        self.store.add_audit(AuditRecord { number: 0, database, table, row, kind, seen_ms })
    }
}

/// Whether the change at this position knew another change.
pub(super) fn knows(at: &Position<'_>, other: &Dot) -> bool {
    at.cut.get(&other.origin) >= other.seq || (other.origin == at.dot.origin && other.seq <= at.dot.seq)
}

/// Whether the change at this position knew an event.
fn knows_event(at: &Position<'_>, origin: &OriginId, seq: u64) -> bool {
    at.cut.get(origin) >= seq || (*origin == at.dot.origin && seq < at.dot.seq)
}

/// The order in which cell values beat each other. Among values that rows were born with, one that says something beats
/// NULL, so that a re-import erases nothing.
pub fn strength(state: &CellState) -> (bool, bool, Stamp, Dot) {
    let says_something = !matches!(state.cell, Cell::Plain(crate::model::Value::Null));
    (!state.born, !state.born || says_something, state.stamp, state.dot)
}
