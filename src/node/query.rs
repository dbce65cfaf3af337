//! Getters about the whole node: status, events, audit, shelf, the log's integrity.
//!
//! Invariant: nothing here changes anything; times are RFC 3339 in UTC. Callers: http, cli, daemon.

use super::membership::Membership;
use super::transfer::band;
use super::view::{
    ChangeView, ClusterView, DatabaseView, EventFilter, EventPage, EventView, LogReport, NodeView, PeerView, ShelfView,
    Status,
};
use super::{Node, NodeError, Now};
use crate::log::{Log, LogRead, verify};
use crate::merge::image::digest;
use crate::merge::store::Shelved;
use crate::model::{Cell, Change, Event, Heads, NodeId, Origin, OriginId, Role, RowId, Stamp};
use crate::node::genesis::GENESIS_INCARNATION;
use crate::wire::decode_event;

/// Events listed when nobody says how many.
const EVENTS_DEFAULT: usize = 100;

/// Events counted per origin as waiting, at most: status must stay cheap.
const PENDING_MAX: usize = 10_000;

/// Events looked at behind one listing, at most.
const EVENTS_SCANNED_MAX: usize = 200_000;

impl Node {
    /// What `status` shows.
    pub fn status(&self, now: Now) -> Result<Status, NodeError> {
        let read = self.log.read()?;
        let own = self.membership.member(&self.id());
        let node = NodeView {
            id: self.id().to_string(),
            name: self.settings.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            uptime_s: now.mono_ms.saturating_sub(self.started.mono_ms) / 1000,
            origin_rank: own.map_or(0, |member| member.rank),
            slot: own.map_or(0, |member| member.slot),
            role: self.membership.role(&self.id()).map_or("none", Role::word).to_string(),
        };
        let cluster = ClusterView {
            id: data_encoding::HEXLOWER.encode(&self.membership.cluster().0),
            name: self.membership.cluster_name().to_string(),
            members: self.membership.len() as u32,
        };
        let mut databases = Vec::new();
        for position in 0..self.databases.len() {
            databases.push(self.database_view(&read, position)?);
        }
        let others: Vec<NodeId> =
            self.membership.members().iter().map(|member| member.node).filter(|node| *node != self.id()).collect();
        let mut peers = Vec::new();
        for peer in others {
            peers.push(self.peer_view(&peer)?);
        }
        let alerts = self.fault.iter().map(|fault| fault.words.clone()).chain(self.alerts.clone());
        let alerts = self.member_alerts(now)?.into_iter().chain(alerts).collect();
        Ok(Status {
            node,
            cluster,
            databases,
            peers,
            only_here: self.only_here(&read)?,
            alerts,
            pace: self.pace_view(now),
            disk: self.disk_of(&read)?,
            cleanup: self.cleanup(),
            joining: self.joining_view(now),
        })
    }

    fn database_view(&self, read: &LogRead, position: usize) -> Result<DatabaseView, NodeError> {
        let database = &self.databases[position];
        let schema = &self.schemas[position];
        let name = database.settings.name.clone();
        let mut tables = Vec::with_capacity(schema.tables.len());
        for table in &schema.tables {
            let fingerprint = match read.find_table(&name, &table.name)? {
                Some(id) => read.fingerprint(id)?,
                None => Default::default(),
            };
            tables.push((table.name.as_str(), fingerprint));
        }
        tables.sort_by(|a, b| a.0.cmp(b.0));
        let shelved = self.shelved_rows(read)?.into_iter().filter(|(_, owner, _)| *owner == name).count() as u64;
        let state = if let Some(fault) = &self.fault {
            fault.words.clone()
        } else if !database.trouble.is_empty() {
            database.trouble.clone()
        } else if self.takes_snapshot() {
            "ok: takes a snapshot of the cluster's rows".to_string()
        } else if database.adopt_by_ms.is_some() {
            "ok: waits for the cluster before it reads the rows that are here".to_string()
        } else if database.waits_for_quiet() {
            "ok: waits for a quiet moment to move ids".to_string()
        } else if database.behind {
            "ok: catching up".to_string()
        } else {
            "ok".to_string()
        };
        Ok(DatabaseView {
            path: database.settings.path.display().to_string(),
            tables: schema.tables.len() as u32,
            rows: tables.iter().map(|(_, fingerprint)| fingerprint.rows).sum(),
            outbox: database.file.outbox_len().unwrap_or_default(),
            events: read.events_of_database(&name)?,
            digest: data_encoding::HEXLOWER.encode(&digest(tables.into_iter())),
            conflicts: read.audit_count(&name)?,
            shelved,
            held_events: read.held(&name)?.len() as u64 + self.pending(read, position)?,
            state,
            name,
        })
    }

    /// Events of a database in the log that its file does not show yet.
    fn pending(&self, read: &LogRead, position: usize) -> Result<u64, NodeError> {
        let database = &self.databases[position];
        if !database.behind {
            return Ok(0);
        }
        let mut pending = 0;
        for origin in self.heads.keys() {
            let from = database.cursor.get(origin) + 1;
            pending += read.count_of_database(origin, from, &database.settings.name, PENDING_MAX)?;
        }
        Ok(pending)
    }

    fn peer_view(&self, id: &NodeId) -> Result<PeerView, NodeError> {
        let peer = self.exchange.peers.get(id).cloned().unwrap_or_default();
        let mut addresses: Vec<String> = self
            .known_addresses()?
            .into_iter()
            .filter(|known| known.peer == id.to_string())
            .map(|known| known.address)
            .collect();
        if !peer.address.is_empty() && !addresses.contains(&peer.address) {
            addresses.push(peer.address.clone());
        }
        // What it said last, also before this node was started.
        let said = self.receipts.heads_of(id).unwrap_or(&peer.heads);
        let last_seen_ms = peer.last_seen_ms.max(self.receipts.as_of_ms(id).unwrap_or(0));
        let behind = said
            .iter()
            .map(|(origin, head)| head.seq.saturating_sub(self.heads.get(origin).map_or(0, |mine| mine.seq)));
        let ahead = self
            .heads
            .iter()
            .map(|(origin, head)| head.seq.saturating_sub(said.get(origin).map_or(0, |theirs| theirs.seq)));
        // One number for now: reachable or not, and how well it answers. Success rates come with run tracking.
        let score = peer.score();
        Ok(PeerView {
            id: id.to_string(),
            name: self.membership.member(id).map(|member| member.name.clone()).unwrap_or_default(),
            state: if peer.connected { "connected" } else { "away" }.to_string(),
            addresses,
            last_seen: if last_seen_ms == 0 { String::new() } else { rfc3339(last_seen_ms) },
            behind: behind.sum(),
            ahead: ahead.sum(),
            rtt_ms: peer.round_trip_micros.map(|micros| micros as f64 / 1000.0),
            clock_skew_ms: peer.skew_ms,
            score,
            band: band(score).to_string(),
            pull: self.pull_view(&peer),
            protocol: peer.version,
            unknown_frames: peer.unknown_frames,
            role: self.membership.role(id).map_or("none", Role::word).to_string(),
            content: self.content_view(id),
        })
    }

    /// A page of the event log.
    pub fn events(&self, filter: &EventFilter) -> Result<EventPage, NodeError> {
        let read = self.log.read()?;
        let limit = if filter.limit == 0 { EVENTS_DEFAULT } else { filter.limit };
        let mut found = Vec::new();
        let mut last_arrival = read.last_arrival()?;
        if let Some(after) = filter.after_arrival {
            for arrival in read.arrivals(after, EVENTS_SCANNED_MAX)? {
                last_arrival = arrival.number;
                found.extend(self.listed(&read, arrival.origin, arrival.seq, filter)?);
                if found.len() >= limit {
                    break;
                }
            }
            return Ok(EventPage { events: found, last_arrival });
        }
        let mut before = last_arrival;
        let mut scanned = 0;
        while before > 0 && found.len() < limit && scanned < EVENTS_SCANNED_MAX {
            let from = before.saturating_sub(256);
            let page = read.arrivals(from, (before - from) as usize)?;
            for arrival in page.iter().rev() {
                scanned += 1;
                if found.len() < limit {
                    found.extend(self.listed(&read, arrival.origin, arrival.seq, filter)?);
                }
            }
            before = from;
        }
        found.reverse();
        Ok(EventPage { events: found, last_arrival })
    }

    fn listed(
        &self,
        read: &LogRead,
        origin: OriginId,
        seq: u64,
        filter: &EventFilter,
    ) -> Result<Option<EventView>, NodeError> {
        let Some(stored) = read.event(&origin, seq)? else { return Ok(None) };
        let event = decode_event(&stored.bytes)?;
        let header = &event.header;
        let node = self.author(&header.origin.id());
        let stamp = header.stamp.wall_ms();
        let fits = filter.database.as_ref().is_none_or(|name| *name == header.database)
            && filter.table.as_ref().is_none_or(|name| event.tables.iter().any(|entry| entry.table == *name))
            && filter.origin.as_ref().is_none_or(|name| origin.to_string().starts_with(name.as_str()) || node == *name)
            && filter.since_ms.is_none_or(|since| stamp >= since)
            && filter.until_ms.is_none_or(|until| stamp < until);
        if !fits {
            return Ok(None);
        }
        let mut changes = Vec::new();
        for change in &event.changes {
            changes.push(self.change_view(read, &event, change)?);
        }
        Ok(Some(EventView {
            origin: origin.to_string(),
            node,
            seq,
            database: header.database.clone(),
            time: rfc3339(stamp),
            hash: data_encoding::HEXLOWER.encode(&stored.hash),
            changes,
            note: super::undo_note::words(&header.note).to_string(),
        }))
    }

    fn change_view(&self, read: &LogRead, event: &Event, change: &Change) -> Result<ChangeView, NodeError> {
        let (operation, cells) = describe(event, change);
        Ok(ChangeView {
            table: event.tables[change.table() as usize].table.clone(),
            operation,
            row: change.row().map(|row| row.to_string()).unwrap_or_default(),
            id: change.row().map(|row| self.shown_id(read, &row)).transpose()?.unwrap_or_default(),
            cells,
        })
    }

    /// Where a row is shown: its key values joined by commas; empty when it is not in the file.
    pub(super) fn shown_id(&self, read: &LogRead, row: &RowId) -> Result<String, NodeError> {
        let Some(record) = read.row(row)? else { return Ok(String::new()) };
        let shown = match record.members().first() {
            Some(canonical) if canonical != row => read.row(canonical)?.and_then(|row| row.shown),
            _ => record.shown,
        };
        Ok(shown.map(|key| key_text(&key)).unwrap_or_default())
    }

    /// Name of the node that wrote under an origin.
    pub(super) fn author(&self, origin: &OriginId) -> String {
        author_of(&self.heads, &self.membership, origin)
    }

    /// (row, database, reason) of everything on the shelf.
    pub(super) fn shelved_rows(&self, read: &LogRead) -> Result<Vec<(RowId, String, Shelved)>, NodeError> {
        let mut rows = Vec::new();
        for id in read.shelf()? {
            let Some(row) = read.row(&id)? else { continue };
            let Some(reason) = row.shelved.filter(|_| row.alive) else { continue };
            rows.push((id, read.table_name(row.table)?.0, reason));
        }
        Ok(rows)
    }

    /// Rows that live but cannot be shown, with the reason.
    pub fn shelf(&self) -> Result<Vec<ShelfView>, NodeError> {
        let read = self.log.read()?;
        let mut views = Vec::new();
        for (number, (id, database, reason)) in self.shelved_rows(&read)?.into_iter().enumerate() {
            let Some(row) = read.row(&id)? else { continue };
            let columns = read.columns(row.table)?;
            let cells = row.cells.iter().map(|state| (columns[state.column as usize].clone(), cell_text(&state.cell)));
            let table = read.table_name(row.table)?.1;
            let (holder, key) = match &reason {
                Shelved::Unique { index, holder } => {
                    (self.named(&read, holder)?, self.key_columns(&database, &table, index))
                }
                Shelved::Parent { parent } => (self.named(&read, parent)?, Vec::new()),
                Shelved::Refused { .. } => Default::default(),
            };
            views.push(ShelfView {
                number: number as u64 + 1,
                database,
                table,
                holder,
                key,
                row: id.to_string(),
                id: row.id.map(|id| id.to_string()).unwrap_or_default(),
                reason: self.shelf_reason(&read, &reason)?,
                cells: cells.collect(),
            });
        }
        Ok(views)
    }

    pub(super) fn shelf_reason(&self, read: &LogRead, reason: &Shelved) -> Result<String, NodeError> {
        Ok(match reason {
            Shelved::Unique { index, holder } => {
                format!(
                    "row {} holds the same unique key ({index}); it comes back when the key is free",
                    self.named(read, holder)?
                )
            }
            Shelved::Parent { parent } => format!("the row it needs is not shown ({})", self.named(read, parent)?),
            Shelved::Refused { message } => format!("SQLite refused it here: {message}; it is tried again"),
        })
    }

    /// The columns of a UNIQUE index by their names; none where only SQLite knows what it is over.
    fn key_columns(&self, database: &str, table: &str, index: &str) -> Vec<String> {
        let position = self.databases.iter().position(|one| one.settings.name == database);
        let table = position.and_then(|position| self.schemas[position].table(table));
        let key = table.and_then(|table| Some((table, table.unique.iter().find(|key| key.name == index)?)));
        let Some((table, key)) = key.filter(|(_, key)| key.exact) else { return Vec::new() };
        key.columns.iter().map(|(column, _)| table.columns[*column].name.clone()).collect()
    }

    fn named(&self, read: &LogRead, row: &RowId) -> Result<String, NodeError> {
        let id = self.shown_id(read, row)?;
        Ok(if id.is_empty() { row.to_string() } else { id })
    }

    /// Checks every chain and signature of the log. Reads all of it: on a large log, run it on a snapshot elsewhere
    /// ([`Node::log`]).
    pub fn verify_log(&self) -> Result<LogReport, NodeError> {
        Node::verify_log_of(&self.log, &self.membership)
    }

    /// Checks a log beside the node, on a snapshot: [`Node::log`] and [`Node::membership`] go to another thread.
    pub fn verify_log_of(log: &Log, membership: &Membership) -> Result<LogReport, NodeError> {
        let read = log.read()?;
        let member =
            |origin: &Origin| origin.incarnation == GENESIS_INCARNATION || membership.member(&origin.node).is_some();
        let report = verify(&read, &membership.cluster().0, &member, &mut |_, _| {})?;
        let (events, origins, bytes, faults) = (report.events, report.origins, report.bytes, report.faults);
        Ok(LogReport { events, origins, bytes, faults })
    }

    /// The log, for long reads in other threads.
    pub fn log(&self) -> std::sync::Arc<Log> {
        self.log.clone()
    }
}

/// Name of the node that wrote under an origin.
pub(super) fn author_of(heads: &Heads, membership: &Membership, origin: &OriginId) -> String {
    match heads.get(origin) {
        Some(head) if head.origin.incarnation == GENESIS_INCARNATION => "genesis".to_string(),
        Some(head) => {
            let member = membership.member(&head.origin.node);
            member.map(|member| member.name.clone()).unwrap_or_else(|| head.origin.node.to_string())
        }
        None if *origin == crate::merge::integrate::GENESIS_ORIGIN => "genesis".to_string(),
        None => origin.to_string(),
    }
}

/// Operation and written cells of a change, in words.
pub(super) fn describe(event: &Event, change: &Change) -> (String, Vec<(String, String)>) {
    let columns = &event.tables[change.table() as usize].columns;
    let name = |column: &u32| columns[*column as usize].clone();
    match change {
        Change::Insert { claim, cells, .. } => {
            let id = claim.map(|id| ("(id)".to_string(), id.to_string()));
            let cells = cells.iter().map(|(column, cell)| (name(column), cell_text(cell)));
            ("insert".to_string(), id.into_iter().chain(cells).collect())
        }
        Change::Update { cells, .. } => {
            ("update".to_string(), cells.iter().map(|(column, cell, _)| (name(column), cell_text(cell))).collect())
        }
        Change::Delete { .. } => ("delete".to_string(), Vec::new()),
        Change::Claim { id, .. } => ("claim".to_string(), vec![("(id)".to_string(), id.to_string())]),
        Change::Merge { other, columns, .. } => {
            let reason = if columns.is_empty() {
                "by a person".to_string()
            } else {
                format!("same {}", columns.iter().map(name).collect::<Vec<_>>().join(", "))
            };
            ("merge".to_string(), vec![("(with)".to_string(), other.to_string()), ("(why)".to_string(), reason)])
        }
        Change::Split { other, .. } => ("split".to_string(), vec![("(from)".to_string(), other.to_string())]),
        Change::Rule { column, rule, .. } => {
            let of = column.as_ref().map_or("(table)".to_string(), name);
            ("rule".to_string(), vec![(of, rule.name().to_string())])
        }
    }
}

/// A cell as people read it.
pub(super) fn cell_text(cell: &Cell) -> String {
    match cell {
        Cell::Plain(value) => value.to_string(),
        Cell::Ref(reference) => format!("→ {}.{} {}", reference.table, reference.column, reference.row),
        Cell::Step { value, by } => format!("{value} ({by:+})"),
        Cell::Edit(edit) => edit.value.to_string(),
    }
}

/// A key as people type it: values joined by commas, text without quotes.
pub(super) fn key_text(key: &[crate::model::Value]) -> String {
    let plain = |value: &crate::model::Value| match value {
        crate::model::Value::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => other.to_string(),
    };
    key.iter().map(plain).collect::<Vec<_>>().join(",")
}

/// RFC 3339 in UTC with milliseconds. The civil date is computed as in Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms" (`civil_from_days`).
pub(super) fn rfc3339(ms: u64) -> String {
    let (days, rest) = ((ms / 86_400_000) as i64, ms % 86_400_000);
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hours, minutes, seconds, millis) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60, rest % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z")
}

/// The time of a stamp, as people read it.
pub(super) fn stamp_text(stamp: Stamp) -> String {
    rfc3339(stamp.wall_ms())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_rfc_3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(1_795_246_205_123), "2026-11-21T07:30:05.123Z");
    }
}
