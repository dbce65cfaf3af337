//! Knowledge in the log of a settled cluster: what a write must say about the writes that its author knew.
//!
//! Checked: every update of a cell has a greater stamp than every write of that cell that its author's file showed, under
//! any clock: else the newer value would lose to the one it replaces; the stamps of one chain grow from capture to
//! capture. Does not verify: rows that are one by a merge (each is taken by itself), what was known of deletes.
//! Caller: `check`.

use std::collections::BTreeMap;

use litemesh::log::LogRead;
use litemesh::model::{Change, Cut, Event, OriginId, RowId, Stamp};
use litemesh::wire::decode_event;

use super::World;

/// The origin's sequence number and the stamp of a write, by what it wrote.
type Writes = BTreeMap<(RowId, String), Vec<(OriginId, u64, Stamp)>>;

/// Runs both checks on the first log; all logs hold the same events.
pub fn check(world: &World) -> Result<(), String> {
    let node = world.servers.iter().find_map(|server| server.node.as_ref()).ok_or("no node is up")?;
    let read = node.log().read().map_err(|error| error.to_string())?;
    let mut events: Vec<(Event, Cut)> = Vec::new();
    for (origin, head) in read.heads().map_err(|error| error.to_string())? {
        let chain = chain(&read, origin, head.seq)?;
        grows(&chain)?;
        events.extend(chain);
    }
    let mut writes = Writes::new();
    for (event, _) in &events {
        for (at, stamp) in updates(event) {
            writes.entry(at).or_default().push((event.header.origin.id(), event.header.seq, stamp));
        }
    }
    for (event, cut) in &events {
        let (own, seq) = (event.header.origin.id(), event.header.seq);
        for (at, stamp) in updates(event) {
            let known = |(origin, other, _): &&(OriginId, u64, Stamp)| {
                if *origin == own { *other < seq } else { *other <= cut.get(origin) }
            };
            let later = writes[&at].iter().filter(known).find(|(_, _, earlier)| *earlier >= stamp);
            if let Some((origin, other, earlier)) = later {
                let (row, column) = at;
                return Err(format!(
                    "event {seq} of {own} writes {column} of {row} with {stamp:?}; its author knew event {other} of \
                     {origin}, which has {earlier:?}"
                ));
            }
        }
    }
    Ok(())
}

/// The events of one origin, with what their authors' files showed.
fn chain(read: &LogRead, origin: OriginId, last: u64) -> Result<Vec<(Event, Cut)>, String> {
    let mut chain = Vec::new();
    for seq in 1..=last {
        let stored = read.event(&origin, seq).map_err(|error| error.to_string())?;
        let stored = stored.ok_or_else(|| format!("event {seq} of {origin} is not there"))?;
        let event = decode_event(&stored.bytes).map_err(|error| error.to_string())?;
        let cut = read.cut_of(&event.header.database, origin, seq).map_err(|error| error.to_string())?;
        chain.push((event, cut));
    }
    Ok(chain)
}

/// Captures of one node come one after the other; the events of one capture share its stamp. What was there at enrolment
/// has no time.
fn grows(chain: &[(Event, Cut)]) -> Result<(), String> {
    for pair in chain.windows(2) {
        let (earlier, later) = (&pair[0].0.header, &pair[1].0.header);
        if earlier.stamp >= later.stamp && !earlier.continues && later.stamp != Stamp(0) {
            return Err(format!(
                "event {} of {} has {:?}, the one before it {:?}",
                later.seq,
                later.origin.id(),
                later.stamp,
                earlier.stamp
            ));
        }
    }
    Ok(())
}

/// What an event updates: (row, table's column), with its stamp.
fn updates(event: &Event) -> Vec<((RowId, String), Stamp)> {
    let mut found = Vec::new();
    for change in &event.changes {
        let Change::Update { table, row, cells } = change else { continue };
        let entry = &event.tables[*table as usize];
        for (column, _, stamp) in cells {
            found.push(((*row, format!("{}.{}", entry.table, entry.columns[*column as usize])), *stamp));
        }
    }
    found
}
