//! R9: the newest whole row, for rows whose mix of cells SQLite refuses.
//!
//! The row as the author of its newest update had it: of all changes that this author knew, the strongest value per
//! column. Read from the log (refusals are rare, and nothing is kept for them with every write). Invariant: a function of
//! the row's events, so all nodes with one schema fall back to the same row. Caller: apply.

use std::collections::BTreeMap;

use super::NodeError;
use crate::log::{LogRead, LogWrite};
use crate::merge::Evaluator;
use crate::merge::integrate::{GENESIS_DOT, GENESIS_ORIGIN, strength};
use crate::merge::store::{CellState, Store};
use crate::model::{Cell, Change, Cut, Dot, RowId, Stamp};
use crate::wire::event::decode_event;

/// The cells of a row's newest whole image; `None` where no update was ever made, or nothing is left to fall back to.
pub(super) fn newest_whole(
    read: &LogRead,
    evaluator: &mut Evaluator<'_, LogWrite>,
    row: &RowId,
) -> Result<Option<Vec<CellState>>, NodeError> {
    // A part of the history must not make another row of it than all others have.
    for (origin, tail) in read.tails()? {
        if tail.is_open(read.head(&origin)?.map_or(0, |head| head.seq)) {
            return Ok(None);
        }
    }
    let Some(view) = evaluator.view(row)? else { return Ok(None) };
    let updates = view.cells.iter().filter(|state| !state.born);
    let newest = updates.max_by_key(|state| (state.stamp, state.dot)).map(|state| state.dot);
    let (database, _) = evaluator.store().table_name(view.table)?;
    let canonical = evaluator.canonical(row)?;
    let (cut, members) = match newest {
        Some(dot) => (through(evaluator.store().cut_of(&database, dot.origin, dot.seq)?, dot), evaluator.members(row)?),
        // Rows that were merged and never updated: what the senior one was born with.
        None => (evaluator.row(&canonical)?.map(|record| record.touched.clone()).unwrap_or_default(), vec![canonical]),
    };
    let mut cells: BTreeMap<u16, CellState> = BTreeMap::new();
    for member in members {
        for (name, mut state) in known(read, &database, &member, &cut)? {
            state.column = evaluator.store_mut().column_id(view.table, &name)?;
            let held = cells.get(&state.column);
            if held.is_none_or(|held| strength(held) < strength(&state)) {
                cells.insert(state.column, state);
            }
        }
    }
    let cells: Vec<CellState> = cells.into_values().collect();
    Ok((cells != view.cells && !cells.is_empty()).then_some(cells))
}

/// All that a change's author knew, the change itself included.
fn through(mut cut: Cut, dot: Dot) -> Cut {
    crdts::CmRDT::apply(&mut cut, crdts::Dot::new(dot.origin, dot.seq));
    cut
}

/// All values written to a row by the events of a cut: (column, value).
fn known(read: &LogRead, database: &str, row: &RowId, cut: &Cut) -> Result<Vec<(String, CellState)>, NodeError> {
    let mut values = Vec::new();
    for (origin, head) in read.heads()? {
        let genesis = head.origin.incarnation == super::genesis::GENESIS_INCARNATION;
        let last = if genesis { head.seq } else { cut.get(&origin) };
        let mut from = 1;
        while from <= last {
            let Some((seq, stored)) = read.next_of_database(&origin, from, database)? else { break };
            from = seq + 1;
            if seq > last {
                break;
            }
            let event = decode_event(&stored.bytes)?;
            for (index, change) in event.changes.iter().enumerate().filter(|(_, change)| change.row() == Some(*row)) {
                let columns = &event.tables[change.table() as usize].columns;
                let dot = if matches!(row, RowId::Genesis(_)) { GENESIS_DOT } else { event.dot(index as u32) };
                let mut add = |column: u32, cell: &Cell, stamp: Stamp, dot: Dot, born: bool| {
                    let state = CellState { column: 0, cell: cell.without_difference(), stamp, dot, born, tally: None };
                    values.push((columns[column as usize].clone(), state));
                };
                match change {
                    Change::Insert { cells, .. } => {
                        cells.iter().for_each(|(column, cell)| add(*column, cell, event.header.stamp, dot, true));
                    }
                    Change::Update { cells, .. } => {
                        let dot = event.dot(index as u32);
                        cells.iter().for_each(|(column, cell, stamp)| add(*column, cell, *stamp, dot, false));
                    }
                    _ => {}
                }
            }
        }
    }
    debug_assert!(values.iter().all(|(_, state)| state.dot.origin != GENESIS_ORIGIN || state.born));
    Ok(values)
}
