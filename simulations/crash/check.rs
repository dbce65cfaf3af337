//! What must hold when a cycle is over, from the app's record, the files, and the log.
//!
//! Invariant: a failure here is a defect of the product or of the simulation, never chance. Does not verify: who wins a
//! conflict (there are none), ids. Caller: `crash`.

use std::collections::{BTreeMap, BTreeSet};

use litemesh::merge::image::image_hash;
use litemesh::merge::store::Fingerprint;
use litemesh::model::{Cell, Change, OriginId, Value};
use litemesh::node::Node;
use litemesh::wire::decode_event;
use rusqlite::types::ValueRef;

use super::Cluster;
use super::server::{FILES, Server, TABLES};
use crate::world::scratch::Scratch;

/// What earlier checks saw of the logs.
pub struct Seen {
    /// Markers of commits that count, ever.
    written: BTreeSet<String>,
    logs: Vec<SeenLog>,
}

/// Of one server's log.
#[derive(Default)]
struct SeenLog {
    heads: BTreeMap<OriginId, u64>,
    born: BTreeSet<String>,
}

impl Seen {
    pub fn new(count: usize) -> Seen {
        Seen { written: BTreeSet::new(), logs: (0..count).map(|_| SeenLog::default()).collect() }
    }
}

impl Cluster {
    /// All checks; `thorough`: the slow ones too.
    pub fn check(&mut self, thorough: bool) -> Result<(), String> {
        let mut expected: [BTreeMap<String, i64>; 2] = Default::default();
        for (position, server) in self.servers.iter_mut().enumerate() {
            server.survey(false).map_err(|what| format!("server {position}: {what}"))?;
            for (file, record) in server.records.iter_mut().enumerate() {
                self.seen.written.extend(record.fresh().cloned());
                record.secure();
                expected[file].extend(record.rows());
            }
        }
        for (position, server) in self.servers.iter().enumerate() {
            let wrong = |what: String| format!("server {position}: {what}");
            let node = server.node.as_ref().ok_or("a node is down")?;
            for (file, rows) in expected.iter().enumerate() {
                check_file(server, file, rows).map_err(wrong)?;
                check_state(node, server, file).map_err(wrong)?;
            }
            check_log(node, &self.seen.written, &mut self.seen.logs[position], &expected).map_err(wrong)?;
            if thorough {
                check_whole(node).map_err(wrong)?;
            }
        }
        Ok(())
    }
}

/// The file shows every row, once, with its value, and SQLite finds it whole.
fn check_file(server: &Server, file: usize, expected: &BTreeMap<String, i64>) -> Result<(), String> {
    let connection = server.file(file);
    let mut shown = BTreeMap::new();
    for table in TABLES[file] {
        let wrong = |error: rusqlite::Error| format!("{table}: {error}");
        let mut statement = connection.prepare_cached(&format!("SELECT marker, value FROM {table}")).map_err(wrong)?;
        let rows =
            statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))).map_err(wrong)?;
        for row in rows {
            let (marker, value) = row.map_err(wrong)?;
            if shown.insert(marker.clone(), value).is_some() {
                return Err(format!("{marker} is shown twice"));
            }
        }
    }
    for (marker, value) in expected {
        match shown.get(marker) {
            None => return Err(format!("{marker} is lost")),
            Some(other) if other != value => return Err(format!("{marker} shows {other}, and {value} was written")),
            Some(_) => {}
        }
    }
    if let Some(marker) = shown.keys().find(|marker| !expected.contains_key(*marker)) {
        return Err(format!("{marker} is shown, and should not be"));
    }
    let verdict: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(|error| error.to_string())?;
    if verdict == "ok" { Ok(()) } else { Err(format!("{}: {verdict}", FILES[file])) }
}

/// The log's state says of every row what the file shows, and its fingerprint is theirs.
fn check_state(node: &Node, server: &Server, file: usize) -> Result<(), String> {
    let wrong = |error: litemesh::log::LogError| error.to_string();
    let read = node.log().read().map_err(wrong)?;
    for table in TABLES[file].iter().chain(&["progress"]) {
        let Some(id) = read.find_table(FILES[file], table).map_err(wrong)? else { continue };
        let mut state = Fingerprint::default();
        for row in read.rows_of(id, None, usize::MAX).map_err(wrong)? {
            if let Some(record) = read.row(&row).map_err(wrong)?.filter(|record| record.shown.is_some()) {
                state.add(&record.image_hash);
            }
        }
        let kept = read.fingerprint(id).map_err(wrong)?;
        let shown = fingerprint(server.file(file), table).map_err(|error| error.to_string())?;
        if state != kept || shown != kept {
            let [kept, state, shown] = [kept.rows, state.rows, shown.rows];
            return Err(format!("{table}: fingerprints differ (rows: kept {kept}, log {state}, file {shown})"));
        }
    }
    Ok(())
}

fn fingerprint(file: &rusqlite::Connection, table: &str) -> rusqlite::Result<Fingerprint> {
    let mut statement = file.prepare_cached(&format!("SELECT * FROM {table}"))?;
    let width = statement.column_count();
    let mut rows = statement.query([])?;
    let mut fingerprint = Fingerprint::default();
    while let Some(row) = rows.next()? {
        let mut image = Vec::with_capacity(width);
        for column in 0..width {
            image.push(match row.get_ref(column)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(value) => Value::Integer(value),
                ValueRef::Real(value) => Value::real(value),
                ValueRef::Text(value) => Value::Text(value.to_vec()),
                ValueRef::Blob(value) => Value::Blob(value.to_vec()),
            });
        }
        fingerprint.add(&image_hash(table, &image));
    }
    Ok(fingerprint)
}

/// The log holds every row's birth, once, and none that no app committed; no event that was there is gone.
fn check_log(
    node: &Node,
    written: &BTreeSet<String>,
    seen: &mut SeenLog,
    expected: &[BTreeMap<String, i64>; 2],
) -> Result<(), String> {
    let read = node.log().read().map_err(|error| error.to_string())?;
    let heads = read.heads().map_err(|error| error.to_string())?;
    for (origin, seq) in &seen.heads {
        if heads.get(origin).is_none_or(|head| head.seq < *seq) {
            return Err(format!("the log had event {seq} of {origin}, and has it no more"));
        }
    }
    for (origin, head) in heads {
        let from = seen.heads.insert(origin, head.seq).unwrap_or(0);
        for seq in from + 1..=head.seq {
            let stored = read.event(&origin, seq).map_err(|error| error.to_string())?;
            let stored = stored.ok_or_else(|| format!("event {seq} of {origin} is not there"))?;
            for change in decode_event(&stored.bytes).map_err(|error| error.to_string())?.changes {
                let Change::Insert { cells, .. } = change else { continue };
                for (_, cell) in cells {
                    let Cell::Plain(Value::Text(text)) = cell else { continue };
                    let text = String::from_utf8_lossy(&text).into_owned();
                    // The names in `progress` are no markers.
                    if !text.contains('-') {
                        continue;
                    }
                    if !written.contains(&text) {
                        return Err(format!("{text} is in the log, and no commit that counts wrote it"));
                    }
                    if !seen.born.insert(text.clone()) {
                        return Err(format!("{text} was born twice"));
                    }
                }
            }
        }
    }
    match expected.iter().flat_map(BTreeMap::keys).find(|marker| !seen.born.contains(*marker)) {
        Some(marker) => Err(format!("{marker} is not in the log")),
        None => Ok(()),
    }
}

/// Hashes, chains and signatures hold, and the log alone gives what the files show.
fn check_whole(node: &Node) -> Result<(), String> {
    let report = node.verify_log().map_err(|error| error.to_string())?;
    if !report.faults.is_empty() {
        return Err(format!("log: {:?}", report.faults));
    }
    let out = Scratch::new();
    let report = node.rebuild(&out.path().join("rebuilt")).map_err(|error| error.to_string())?;
    match report.databases.iter().find(|database| database.digest != database.live_digest) {
        Some(database) => Err(format!("the log rebuilds {} differently", database.name)),
        None => Ok(()),
    }
}
