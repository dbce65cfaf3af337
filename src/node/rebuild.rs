//! Rebuild: the replicated tables from the log alone, into new files.
//!
//! All events of a database are evaluated from nothing, in memory, and the shown rows written to a new file with the
//! schema that the log keeps. Invariant: nothing of the live file is read; equal digests mean that replaying the log gives
//! exactly what the file shows. Callers: http, cli.

use std::path::Path;

use super::apply::ready_events;
use super::database::{SCHEMA_SEPARATOR, schema_key};
use super::rescan::all_rows;
use super::view::{RebuildReport, RebuiltDatabase};
use super::{Node, NodeError};
use crate::merge::Evaluator;
use crate::merge::image::{digest, image_hash};
use crate::merge::memory::MemoryStore;
use crate::merge::store::{Fingerprint, Store};
use crate::model::{Cut, DatabaseSchema, Key, Value};
use crate::sqlite::{FileSettings, NewFile};

impl Node {
    /// Rebuilds every database into `out`, as `NAME.db`.
    pub fn rebuild(&self, out: &Path) -> Result<RebuildReport, NodeError> {
        std::fs::create_dir_all(out).map_err(|source| NodeError::Io { path: out.display().to_string(), source })?;
        let live = self.status(super::Now { mono_ms: self.started.mono_ms, wall_ms: 0 })?;
        let mut report = RebuildReport::default();
        for (position, database) in self.databases.iter().enumerate() {
            let name = &database.settings.name;
            let path = out.join(format!("{name}.db"));
            let sql = self.log.read()?.meta(&schema_key(name))?.unwrap_or_default();
            let sql: Vec<String> = String::from_utf8_lossy(&sql).split(SCHEMA_SEPARATOR).map(str::to_string).collect();
            let settings = FileSettings { path: path.clone(), ..database.settings.clone() };
            let mut file = NewFile::create(&path, &sql, &settings)?;
            let (rows, digest) = self.replay(position, &mut file)?;
            file.finish()?;
            report.databases.push(RebuiltDatabase {
                name: name.clone(),
                path: path.display().to_string(),
                rows,
                digest,
                live_digest: live.databases[position].digest.clone(),
            });
        }
        Ok(report)
    }

    fn replay(&self, position: usize, file: &mut NewFile) -> Result<(u64, String), NodeError> {
        // References may lead to other files: all databases are evaluated, one is written.
        let mut store = MemoryStore::default();
        for database in &self.databases {
            self.evaluate_all(&database.settings.name, &database.cursor, &mut store)?;
        }
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

    /// Evaluates a database's events up to what its file shows.
    fn evaluate_all(&self, name: &str, through: &Cut, store: &mut MemoryStore) -> Result<(), NodeError> {
        let mut cut = Cut::default();
        loop {
            let mut events = ready_events(&self.log, name, &cut, super::capture::CHANGES_MAX)?;
            events.retain(|event| event.header.seq <= through.get(&event.header.origin.id()));
            if events.is_empty() {
                return Ok(());
            }
            let read = self.log.read()?;
            for event in &events {
                let (origin, seq) = (event.header.origin.id(), event.header.seq);
                store.put_cut(name, origin, seq, read.cut_of(name, origin, seq)?);
                crdts::CmRDT::apply(&mut cut, crdts::Dot::new(origin, seq));
            }
            let mut evaluator = Evaluator::new(store, &self.ranks, &self.schemas, 0);
            for event in &events {
                let Ok(()) = evaluator.integrate(event);
            }
            let Ok(_) = evaluator.settle();
            let Ok(()) = evaluator.finish();
        }
    }
}
