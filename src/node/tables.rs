//! Table by table: rows, what waits, what cannot be shown, and a digest to compare with other servers.
//!
//! Invariant: reads only, and a bounded part of what waits, so that asking stays cheap however much waits; equal content of
//! equal tables gives equal digests on every server. Callers: http (the dashboard).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Node, NodeError};
use crate::log::LogRead;
use crate::merge::image::digest;
use crate::wire::decode_event;

/// Held events that are looked into per database, at most.
const HELD_MAX: usize = 1_000;

/// One replicated table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableView {
    /// Database.
    pub database: String,
    /// Name.
    pub table: String,
    /// Rows shown in it.
    pub rows: u64,
    /// Marks of the application's writes that are not in the log yet.
    pub outbox: u64,
    /// Events that wait for a schema or a cause and change this table.
    pub held_events: u64,
    /// Its rows on the shelf.
    pub shelved: u64,
    /// Hex digest of its content.
    pub digest: String,
}

impl Node {
    /// All replicated tables, by database and name.
    pub fn tables(&self) -> Result<Vec<TableView>, NodeError> {
        let read = self.log.read()?;
        let shelved = self.shelved_by_table(&read)?;
        let mut views = Vec::new();
        for (database, schema) in self.databases.iter().zip(&self.schemas) {
            let name = &database.settings.name;
            let waiting = database.file.outbox_by_table().unwrap_or_default();
            let held = held_by_table(&read, name)?;
            for table in &schema.tables {
                let fingerprint = match read.find_table(name, &table.name)? {
                    Some(id) => read.fingerprint(id)?,
                    None => Default::default(),
                };
                let of = |counts: &BTreeMap<String, u64>| counts.get(&table.name).copied().unwrap_or(0);
                views.push(TableView {
                    database: name.clone(),
                    table: table.name.clone(),
                    rows: fingerprint.rows,
                    outbox: of(&waiting),
                    held_events: of(&held),
                    shelved: shelved.get(&(name.clone(), table.name.clone())).copied().unwrap_or(0),
                    digest: data_encoding::HEXLOWER.encode(&digest([(table.name.as_str(), fingerprint)].into_iter())),
                });
            }
        }
        views.sort_by(|a, b| (&a.database, &a.table).cmp(&(&b.database, &b.table)));
        Ok(views)
    }

    fn shelved_by_table(&self, read: &LogRead) -> Result<BTreeMap<(String, String), u64>, NodeError> {
        let mut counts = BTreeMap::new();
        for id in read.shelf()? {
            if let Some(row) = read.row(&id)?.filter(|row| row.alive && row.shelved.is_some()) {
                *counts.entry(read.table_name(row.table)?).or_insert(0) += 1;
            }
        }
        Ok(counts)
    }
}

/// Held events by the tables that they change; an event that changes two counts for both.
fn held_by_table(read: &LogRead, database: &str) -> Result<BTreeMap<String, u64>, NodeError> {
    let mut counts = BTreeMap::new();
    for (origin, seq, _) in read.held(database)?.into_iter().take(HELD_MAX) {
        let Some(stored) = read.event(&origin, seq)? else { continue };
        for table in decode_event(&stored.bytes)?.tables {
            *counts.entry(table.table).or_insert(0) += 1;
        }
    }
    Ok(counts)
}
