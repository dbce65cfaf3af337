//! Rebuild: the replicated tables from the log alone, into new files; as they are, or as they were at a time.
//!
//! All events of a database are evaluated from nothing, in memory, and the shown rows written to a new file with the
//! schema that the log keeps. An event's stamp exceeds those of all it builds on, so the events up to a time are causally
//! closed, and F of them is what a server that held them all showed then. The schema is today's: a column that was added
//! since is there, with what was written to it until then.
//! Invariant: nothing of the live file is read; equal digests mean that replaying the log gives exactly what the file
//! shows. Runs beside the node, on a snapshot of the log. Callers: http, daemon.

use std::path::Path;
use std::sync::Arc;

use super::database::{SCHEMA_SEPARATOR, schema_key};
use super::membership::Membership;
use super::rescan::all_rows;
use super::travel::World;
use super::view::{RebuildReport, RebuiltDatabase};
use super::{DatabaseSettings, Node, NodeError};
use crate::log::{Log, LogRead};
use crate::merge::Evaluator;
use crate::merge::image::{digest, image_hash};
use crate::merge::memory::MemoryStore;
use crate::merge::rank::Ranks;
use crate::merge::store::{Fingerprint, Store};
use crate::model::{Cut, DatabaseSchema, Heads, Key, NodeId, OriginId, Stamp, Value};
use crate::sqlite::{FileSettings, NewFile};
use crate::wire::event::peek_header;

/// What a node's log says, to be replayed wherever there is time for it.
pub struct Replay {
    pub(super) log: Arc<Log>,
    pub(super) ranks: Ranks,
    pub(super) schemas: Vec<DatabaseSchema>,
    /// Settings, what the file shows, and the digest of it; parallel to `schemas`.
    pub(super) databases: Vec<(DatabaseSettings, Cut, String)>,
    pub(super) heads: Heads,
    pub(super) membership: Membership,
    /// The node whose log it is.
    pub(super) own: NodeId,
}

impl Node {
    /// Rebuilds every database into `out`, as `NAME.db`.
    pub fn rebuild(&self, out: &Path) -> Result<RebuildReport, NodeError> {
        self.replay()?.write(out, None)
    }

    /// Evaluates all that the files show once more, into an empty store. Reads events only, no record of the evaluator's.
    pub(super) fn evaluate_again(&self, store: MemoryStore) -> Result<MemoryStore, NodeError> {
        let replay = self.replay_beside(|_| String::new());
        let mut world = World { store, ..World::before_all(&replay) };
        world.advance(&replay, &replay.now(), &mut |_| {})?;
        Ok(world.store)
    }

    /// What is needed to replay the log as it is now.
    pub fn replay(&self) -> Result<Replay, NodeError> {
        let live = self.status(super::Now { mono_ms: self.started.mono_ms, wall_ms: 0 })?;
        Ok(self.replay_beside(|position| live.databases[position].digest.clone()))
    }

    fn replay_beside(&self, digest: impl Fn(usize) -> String) -> Replay {
        let parts = self.databases.iter().enumerate();
        Replay {
            log: self.log.clone(),
            ranks: self.ranks.clone(),
            schemas: self.schemas.clone(),
            databases: parts.map(|(at, one)| (one.settings.clone(), one.cursor.clone(), digest(at))).collect(),
            heads: self.heads.clone(),
            membership: self.membership.clone(),
            own: self.id(),
        }
    }
}

impl Replay {
    /// Writes every database into `out`, as `NAME.db`; with `until_ms`, as it was at that time (ms since 1970, that
    /// millisecond included). A file that is there already is left alone, with an error.
    pub fn write(&self, out: &Path, until_ms: Option<u64>) -> Result<RebuildReport, NodeError> {
        std::fs::create_dir_all(out).map_err(|source| NodeError::Io { path: out.display().to_string(), source })?;
        let cuts = self.cuts(until_ms)?;
        let mut report = RebuildReport { as_of_ms: until_ms, databases: Vec::new() };
        for (position, (settings, _, live_digest)) in self.databases.iter().enumerate() {
            let name = &settings.name;
            let path = out.join(format!("{name}.db"));
            let sql = self.log.read()?.meta(&schema_key(name))?.unwrap_or_default();
            let sql: Vec<String> = String::from_utf8_lossy(&sql).split(SCHEMA_SEPARATOR).map(str::to_string).collect();
            let settings = FileSettings { path: path.clone(), ..settings.clone() };
            let mut file = NewFile::create(&path, &sql, &settings)?;
            let (rows, digest) = self.replay(position, &cuts, &mut file)?;
            file.finish()?;
            report.databases.push(RebuiltDatabase {
                name: name.clone(),
                path: path.display().to_string(),
                rows,
                digest,
                live_digest: live_digest.clone(),
            });
        }
        Ok(report)
    }

    /// Per database, what its file shows, or showed at a time.
    pub(super) fn cuts(&self, until_ms: Option<u64>) -> Result<Vec<Cut>, NodeError> {
        let shown = self.databases.iter().map(|(_, cursor, _)| cursor.clone());
        let Some(until_ms) = until_ms else { return Ok(shown.collect()) };
        let read = self.log.read()?;
        let mut cuts = vec![Cut::default(); self.databases.len()];
        for origin in read.heads()?.into_keys() {
            let from = self.last_at(&read, &origin, until_ms)?;
            for (cut, (_, cursor, _)) in cuts.iter_mut().zip(&self.databases) {
                crdts::CmRDT::apply(cut, crdts::Dot::new(origin, from.min(cursor.get(&origin))));
            }
        }
        Ok(cuts)
    }

    /// The last event of an origin up to a time, that millisecond included; 0: none.
    pub(super) fn last_at(&self, read: &LogRead, origin: &OriginId, until_ms: u64) -> Result<u64, NodeError> {
        let end = Stamp::from_wall_ms(until_ms.saturating_add(1));
        // Stamps grow along a chain.
        let (mut from, mut to) = (0, read.head(origin)?.map_or(0, |head| head.seq));
        while from < to {
            let middle = from + (to - from).div_ceil(2);
            let stored = read.event(origin, middle)?;
            let stamp = stored.map(|stored| peek_header(&stored.bytes)).transpose()?.map(|(stamp, _)| stamp);
            if stamp.is_some_and(|stamp| stamp < end) {
                from = middle;
            } else {
                to = middle - 1;
            }
        }
        Ok(from)
    }

    fn replay(&self, position: usize, cuts: &[Cut], file: &mut NewFile) -> Result<(u64, String), NodeError> {
        // References may lead to other files: all databases are evaluated, one is written.
        let mut world = World::before_all(self);
        world.advance(self, cuts, &mut |_| {})?;
        let mut store = world.store;
        let mut schemas: Vec<DatabaseSchema> = self.schemas.clone();
        schemas[position] = file.schema().clone();
        let mut evaluator = Evaluator::new(&mut store, &self.ranks, &schemas, 0);
        let mut total = 0;
        let mut fingerprints: Vec<(String, Fingerprint)> = Vec::new();
        for table in &schemas[position].tables {
            let mut fingerprint = Fingerprint::default();
            let known = evaluator.store().find_table(&schemas[position].database, &table.name);
            let rows = match known {
                Ok(Some(id)) => all_rows(evaluator.store(), id),
                Ok(None) => Ok(Vec::new()),
            };
            let mut shown: Vec<(Key, Vec<Value>)> = Vec::new();
            for row in rows.unwrap_or_default() {
                if let Ok(Some(target)) = evaluator.target(&row) {
                    fingerprint.add(&image_hash(&table.name, &target.1));
                    shown.push(target);
                }
            }
            shown.sort();
            total += file.insert(&table.name, shown.iter().map(|(key, image)| (key, image)))?;
            fingerprints.push((table.name.clone(), fingerprint));
        }
        fingerprints.sort_by(|a, b| a.0.cmp(&b.0));
        let root = digest(fingerprints.iter().map(|(name, fingerprint)| (name.as_str(), *fingerprint)));
        Ok((total, data_encoding::HEXLOWER.encode(&root)))
    }
}

#[cfg(test)]
#[path = "rebuild_tests.rs"]
mod tests;
