//! The log as a stream of rows: for servers that speak only the older sync protocol, and for the change table.
//!
//! An event tells what an author wrote; who cannot merge needs what the row is now. So every change is given with the whole
//! row as this node's file shows it at the time of asking, or as a delete when it is not shown any more. Where a row came to
//! an id that another row had, that other row (and what refers to it) is given too: its id moved here without an event.
//! Rows of a table without a key go by their rowid on this server, and their deletes say what they held.
//! Invariants: only events that the file shows are given; a row is given as a delete only where nothing is shown under its
//! key; giving a row twice does no harm. Work per call is bounded by the caller. Callers: http.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::query::{key_text, rfc3339};
use super::{Node, NodeError};
use crate::log::LogRead;
use crate::merge::claims::remainder;
use crate::merge::store::{Row, TableId};
use crate::model::{Cell, Change, DatabaseSchema, Event, Heads, Identity, Key, NodeId, RowId, TableSchema, Value};
use crate::wire::decode_event;

/// Rows given because one row's id moved, at most.
const MOVED_WITH_MAX: usize = 200;

/// Stands for the rows of a snapshot, which came without an event: no event has this place.
pub const BASE_ARRIVAL: u64 = 0;

/// Rows of a base, dead ones and those that come while it is read included. Each has a µs of its own, so this is a minute.
const BASE_ROWS_MAX: u64 = 60_000_000;

/// Events that one look counts the changes of, at most.
const LACKING_EVENTS_MAX: usize = 2_000;

/// One event of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedEvent {
    /// Its place in the order in which this node stored events.
    pub arrival: u64,
    /// Its changes of rows; `None`: the files do not show it yet.
    pub changes: Option<u64>,
}

/// A place among the rows of the base: how many lie before it, in which table it is, and the row behind which it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BasePlace {
    index: u64,
    table: usize,
    after: Option<RowId>,
}

/// Where the log stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncMarks {
    /// The last event stored.
    pub arrival: u64,
    /// The last audit record.
    pub audits: u64,
    /// Changes that the peer is not known to hold.
    pub lacking: u64,
}

/// One row of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedRow {
    /// The event's place.
    pub arrival: u64,
    /// The change's place in it.
    pub index: u64,
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
    /// Key values joined by commas.
    pub record_id: String,
    /// `insert`, `update` or `delete`.
    pub operation: &'static str,
    /// (column, value) of the whole row; of a delete, of its key.
    pub data: Vec<(String, Value)>,
    /// Name of the node that captured the change.
    pub node: String,
    /// When it was written, RFC 3339.
    pub written: String,
}

/// A database as who writes to it like an app must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedTarget {
    /// Its file.
    pub path: PathBuf,
    /// Its replicated tables.
    pub schema: DatabaseSchema,
}

impl Node {
    /// The databases, for who writes to them like an app.
    pub fn feed_targets(&self) -> Vec<FeedTarget> {
        let both = self.databases.iter().zip(&self.schemas);
        both.map(|(database, schema)| FeedTarget { path: database.settings.path.clone(), schema: schema.clone() })
            .collect()
    }

    /// The place of the last event stored.
    pub fn last_arrival(&self) -> Result<u64, NodeError> {
        Ok(self.log.read()?.last_arrival()?)
    }

    /// Events behind `after`, at most `limit`, and those of `again`, each with whether the files show it. While the history
    /// behind a snapshot has not come, the rows of its base come first, as one ([`BASE_ARRIVAL`]).
    pub fn feed_events(&self, again: &[u64], after: u64, limit: usize) -> Result<Vec<FeedEvent>, NodeError> {
        let read = self.log.read()?;
        let mut places = Vec::new();
        for number in again {
            places.extend(read.arrivals(number.saturating_sub(1), 1)?.into_iter().filter(|it| it.number == *number));
        }
        places.extend(read.arrivals(after, limit)?);
        let mut found = Vec::new();
        if after == 0 && !self.exchange.tails.is_empty() && !self.takes_snapshot() {
            found.push(FeedEvent { arrival: BASE_ARRIVAL, changes: Some(BASE_ROWS_MAX) });
        }
        for arrival in places {
            let Some(stored) = read.event(&arrival.origin, arrival.seq)? else { continue };
            let event = decode_event(&stored.bytes)?;
            let database = self.databases.iter().find(|database| database.settings.name == event.header.database);
            let changes = match database {
                Some(database) if database.cursor.get(&arrival.origin) < arrival.seq => None,
                Some(_) => Some(event.changes.len() as u64),
                None => Some(0),
            };
            found.push(FeedEvent { arrival: arrival.number, changes });
        }
        Ok(found)
    }

    /// Where the log stands, for who wants to know what a sync brought. Counts at most [`LACKING_EVENTS_MAX`] events.
    pub fn sync_marks(&self, peer: &NodeId) -> Result<SyncMarks, NodeError> {
        let read = self.log.read()?;
        let none = Heads::new();
        let known = self.exchange.peers.get(peer).map(|peer| &peer.heads);
        let theirs = known.filter(|heads| !heads.is_empty()).or(self.receipts.heads_of(peer)).unwrap_or(&none);
        let (mut lacking, mut left) = (0, LACKING_EVENTS_MAX);
        for (origin, head) in &self.heads {
            let from = theirs.get(origin).map_or(0, |head| head.seq) + 1;
            for seq in (from..=head.seq).take(left) {
                left -= 1;
                if let Some(stored) = read.event(origin, seq)? {
                    lacking += decode_event(&stored.bytes)?.changes.len() as u64;
                }
            }
        }
        Ok(SyncMarks { arrival: read.last_arrival()?, audits: read.last_audit()?, lacking })
    }

    /// Changes that others wrote and that came since an arrival; at most [`LACKING_EVENTS_MAX`] events are looked at.
    pub fn changes_since(&self, arrival: u64) -> Result<u64, NodeError> {
        let read = self.log.read()?;
        let mut changes = 0;
        for place in read.arrivals(arrival, LACKING_EVENTS_MAX)? {
            let own = self.heads.get(&place.origin).is_some_and(|head| head.origin.node == self.id());
            if let (false, Some(stored)) = (own, read.event(&place.origin, place.seq)?) {
                changes += decode_event(&stored.bytes)?.changes.len() as u64;
            }
        }
        Ok(changes)
    }

    /// Rows of one event from a change on, those of at most `limit` changes. The second number: the next change; `None`
    /// when there is none.
    pub fn feed_rows(
        &mut self,
        arrival: u64,
        from: u64,
        limit: usize,
    ) -> Result<(Vec<FeedRow>, Option<u64>), NodeError> {
        if arrival == BASE_ARRIVAL {
            return self.base_rows(from, limit);
        }
        let read = self.log.read()?;
        let Some(place) = read.arrivals(arrival.saturating_sub(1), 1)?.pop().filter(|it| it.number == arrival) else {
            return Ok((Vec::new(), None));
        };
        let Some(stored) = read.event(&place.origin, place.seq)? else { return Ok((Vec::new(), None)) };
        let event = decode_event(&stored.bytes)?;
        let Ok(position) = self.position_of(&event.header.database) else { return Ok((Vec::new(), None)) };
        let mut rows = Vec::new();
        let begin = usize::try_from(from).unwrap_or(usize::MAX).min(event.changes.len());
        let end = begin.saturating_add(limit).min(event.changes.len());
        for (index, change) in event.changes.iter().enumerate().take(end).skip(begin) {
            let wanted = self.rows_of_change(&read, position, &event, change)?;
            for row in wanted {
                let given = self.feed_row(&read, position, &row)?;
                rows.extend(given.map(|(table, record_id, data, shown)| FeedRow {
                    arrival,
                    index: index as u64,
                    database: event.header.database.clone(),
                    table,
                    record_id,
                    operation: match (shown, change) {
                        (false, _) => "delete",
                        (true, Change::Insert { row: born, .. }) if *born == row => "insert",
                        (true, _) => "update",
                    },
                    data,
                    node: self.author(&place.origin),
                    written: rfc3339(event.header.stamp.wall_ms()),
                }));
            }
        }
        Ok((rows, (end < event.changes.len()).then_some(end as u64)))
    }

    /// Rows as they are shown now, whoever they came from, table by table; those that are not shown count in the places.
    /// Rows that come meanwhile lie in between: what stands behind them may be given again, and is never left out, for no row
    /// ever leaves the log's state. The end is where there are no more.
    fn base_rows(&mut self, from: u64, limit: usize) -> Result<(Vec<FeedRow>, Option<u64>), NodeError> {
        let read = self.log.read()?;
        let of = |(position, schema): (usize, &DatabaseSchema)| {
            read.tables_of(&schema.database).into_iter().map(move |id| (position, id)).collect::<Vec<_>>()
        };
        let tables: Vec<(usize, TableId)> = self.schemas.iter().enumerate().flat_map(of).collect();
        let mut place = if self.feed_place.index <= from { self.feed_place } else { BasePlace::default() };
        let mut rows = Vec::new();
        while let Some((position, table)) = tables.get(place.table) {
            let Some(row) = read.rows_of(*table, place.after, 1)?.pop() else {
                place = BasePlace { index: place.index, table: place.table + 1, after: None };
                continue;
            };
            if place.index >= from.saturating_add(limit as u64) {
                self.feed_place = place;
                return Ok((rows, Some(place.index)));
            }
            if place.index >= from
                && let Some(record) = read.row(&row)?.filter(|record| record.shown.is_some())
                && let Some((table, record_id, data, true)) = self.feed_row(&read, *position, &row)?
            {
                let (origin, stamp) = record.births.first().map(|(dot, stamp)| (dot.origin, *stamp)).unzip();
                rows.push(FeedRow {
                    arrival: BASE_ARRIVAL,
                    index: place.index,
                    database: self.schemas[*position].database.clone(),
                    table,
                    record_id,
                    operation: "insert",
                    data,
                    node: origin.map(|origin| self.author(&origin)).unwrap_or_default(),
                    written: rfc3339(stamp.unwrap_or_default().wall_ms()),
                });
            }
            place = BasePlace { index: place.index + 1, after: Some(row), ..place };
        }
        Ok((rows, None))
    }

    /// The rows that a change concerns: those it names, and those whose ids it moved.
    fn rows_of_change(
        &self,
        read: &LogRead,
        position: usize,
        event: &Event,
        change: &Change,
    ) -> Result<Vec<RowId>, NodeError> {
        let Some(row) = change.row() else { return Ok(Vec::new()) };
        let name = &event.tables[change.table() as usize].table;
        let Some(schema) = self.schemas[position].table(name) else { return Ok(Vec::new()) };
        let mut rows = vec![row];
        if let Change::Merge { other, .. } | Change::Split { other, .. } = change {
            rows.push(*other);
        }
        let id = match change {
            Change::Insert { claim: Some(id), .. } | Change::Claim { id, .. } => Some(*id),
            _ => None,
        };
        if let (Some(id), Identity::Surrogate(_), Some(table)) =
            (id, &schema.identity, read.find_table(&event.header.database, &schema.name)?)
        {
            self.add_moved(read, table, id, &mut rows)?;
        }
        // Of rows that are one, the one that stands for all is shown; the others are given as deletes where they were.
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        for row in rows {
            let record = read.row(&row)?;
            let canonical = record.as_ref().and_then(|record| record.members().first().copied());
            all.extend(canonical.into_iter().chain([row]).filter(|row| seen.insert(*row)));
        }
        Ok(all)
    }

    /// Rows that wanted an id and are shown elsewhere, and the rows that refer to them.
    fn add_moved(&self, read: &LogRead, table: TableId, id: i64, rows: &mut Vec<RowId>) -> Result<(), NodeError> {
        for (claimed, other) in read.claims(table, remainder(id))? {
            if claimed != id || rows.contains(&other) || rows.len() >= MOVED_WITH_MAX {
                continue;
            }
            if read.row(&other)?.is_some_and(|record| record.alive && record.id != Some(id)) {
                rows.push(other);
                let room = MOVED_WITH_MAX.saturating_sub(rows.len());
                rows.extend(read.referrers(&other)?.into_iter().take(room));
            }
        }
        Ok(())
    }

    /// Table, key and columns of a row as the file shows it, and whether it does; `None` where there is nothing to say.
    #[allow(clippy::type_complexity)]
    fn feed_row(
        &self,
        read: &LogRead,
        position: usize,
        row: &RowId,
    ) -> Result<Option<(String, String, Vec<(String, Value)>, bool)>, NodeError> {
        let Some(record) = read.row(row)? else { return Ok(None) };
        let (database, table) = read.table_name(record.table)?;
        let Some(schema) = self.schemas[position].table(&table).filter(|_| database == self.schemas[position].database)
        else {
            return Ok(None);
        };
        let names = |columns: &[usize], key: &Key| -> Vec<(String, Value)> {
            columns.iter().zip(key).map(|(at, value)| (schema.columns[*at].name.clone(), value.clone())).collect()
        };
        if let Some(key) = &record.shown
            && let Some(Some(image)) =
                self.databases[position].file.read_rows(&schema.name, std::slice::from_ref(key))?.pop()
        {
            let data = schema.columns.iter().map(|column| column.name.clone()).zip(image).collect();
            return Ok(Some((schema.name.clone(), key_text(key), data, true)));
        }
        let Some(key) = self.last_key(read, schema, &record)? else { return Ok(None) };
        if record.alive || read.shown(record.table, &key)?.is_some() {
            return Ok(None);
        }
        let data = match schema.identity {
            // Who keeps no rowids finds the row by what it held.
            Identity::Rowid => {
                let columns: Vec<usize> = (0..schema.columns.len()).collect();
                let values = last_values(read, schema, &record, &columns)?;
                values.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
            }
            _ => names(&schema.key_columns(), &key),
        };
        Ok(Some((schema.name.clone(), key_text(&key), data, false)))
    }

    /// The key under which a row that is not shown was shown, as far as that is known.
    fn last_key(&self, read: &LogRead, schema: &TableSchema, record: &Row) -> Result<Option<Key>, NodeError> {
        let columns = match &schema.identity {
            Identity::Surrogate(_) => return Ok(record.id.map(|id| vec![Value::Integer(id)])),
            // The rowid that it was inserted with; after a VACUUM here it may have been shown under another one.
            Identity::Rowid => return Ok(record.id.map(|id| vec![Value::Integer(id)])),
            Identity::Keyed(columns) => columns,
        };
        let values = last_values(read, schema, record, columns)?;
        Ok(values.into_iter().map(|(_, value)| value).collect())
    }
}

/// What columns of a row that is not shown held last, as far as it is known.
fn last_values(
    read: &LogRead,
    schema: &TableSchema,
    record: &Row,
    columns: &[usize],
) -> Result<Vec<(String, Option<Value>)>, NodeError> {
    let known = read.columns(record.table)?;
    let mut values = Vec::new();
    for column in columns.iter().map(|at| &schema.columns[*at].name) {
        let number = known.iter().position(|name| name.eq_ignore_ascii_case(column));
        let cell = number.and_then(|number| record.cell(number as u16)).map(|state| &state.cell);
        let value = match cell {
            Some(Cell::Plain(value)) => Some(value.clone()),
            Some(Cell::Step { value, .. }) => Some(Value::Integer(*value)),
            Some(Cell::Edit(edit)) => Some(edit.value.clone()),
            Some(Cell::Ref(reference)) => read.row(&reference.row)?.and_then(|parent| parent.id).map(Value::Integer),
            None => None,
        };
        values.push((column.clone(), value));
    }
    Ok(values)
}
