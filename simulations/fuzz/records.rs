//! The log's own records, damaged or forged behind redb's back: every table, any bytes, then everything is read.
//!
//! Invariant checked: the log and the node on it return errors; no record makes them panic or take memory by a number in
//! it. What it does not verify: damage to redb's own pages. Caller: the table of targets.

use std::path::Path;
use std::sync::Arc;

use litemesh::log::Log;
use litemesh::node::Node;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use crate::arena::Arena;
use crate::draws::{Draws, random};
use crate::target::{Outcome, Target};

/// Records of the log.
pub const RECORDS: Target = Target {
    name: "records",
    promise: "no record of the log, whatever its bytes, makes a node panic",
    run,
    generate: |dice| random(dice, 200),
    words: &[],
};

const NAMED: [&str; 3] = ["meta", "databases", "cursors"];
const NUMBERED: [&str; 3] = ["names", "rules", "fingerprints"];

thread_local! {
    static LOG: std::cell::RefCell<Option<Vec<u8>>> = const { std::cell::RefCell::new(None) };
}

fn run(bytes: &[u8]) -> Outcome {
    let image = LOG.take().unwrap_or_else(sample);
    let folder = crate::scratch::Scratch::new();
    let path = folder.path().join("log.redb");
    std::fs::write(&path, &image).expect("the folder of the run can be written");
    LOG.set(Some(image));
    let mut draws = Draws::new(bytes);
    let mut hit = String::new();
    for _ in 0..1 + draws.below(2) {
        hit.push_str(&forge(&path, &mut draws));
    }
    let settings = Arena::settings_at(folder.path());
    rusqlite::Connection::open(folder.path().join("app.db"))
        .and_then(|app| app.execute_batch(crate::arena::SCHEMA))
        .expect("the schema is SQL");
    let outcome = match Log::open(&path) {
        Err(error) => error.to_string(),
        Ok(log) => use_all(Arc::new(log), settings),
    };
    format!("{hit}: {}", outcome.split(':').next().unwrap_or_default()).into()
}

/// Opens a node on the log and has it do everything that reads records.
fn use_all(log: Arc<Log>, settings: litemesh::node::NodeSettings) -> String {
    let mut now = litemesh::node::Now { mono_ms: 1_000, wall_ms: 1_748_736_000_000 };
    let mut node = match Node::open(settings, log, now) {
        Ok(node) => node,
        Err(error) => return error.to_string(),
    };
    let mut told = String::new();
    for _ in 0..4 {
        now.mono_ms += 20_000;
        if let Err(error) = node.handle(litemesh::node::Input::Tick, now) {
            told = error.to_string();
        }
        while node.poll_effect().is_some() {}
    }
    let questions = [
        node.status(now).map(drop),
        node.verify_log().map(drop),
        node.shelf().map(drop),
        node.conflicts(0, 100).map(drop),
        node.rules().map(drop),
        node.history("app", "t", "1").map(drop),
        node.where_is("app", "t", "1", None).map(drop),
        node.duplicates(10).map(drop),
    ];
    let failed = questions.into_iter().filter_map(Result::err).map(|error| error.to_string()).next();
    failed.unwrap_or(if told.is_empty() { "fine".to_string() } else { told })
}

/// A log with something in every table that a short life fills.
fn sample() -> Vec<u8> {
    let mut arena = Arena::new();
    arena.check();
    for sql in ["UPDATE t SET a = 'changed'", "DELETE FROM u WHERE id = 2", "INSERT INTO n VALUES (5, 6)"] {
        arena.app(sql);
        arena.work(3);
    }
    arena.into_log()
}

/// Overwrites one record of one table.
fn forge(path: &Path, draws: &mut Draws<'_>) -> String {
    let database = Database::open(path).expect("redb opens its own file");
    let result = match draws.below(12) {
        at @ 0..=2 => forge_in::<&str>(&database, NAMED[at as usize], draws),
        at @ 3..=5 => forge_in::<u32>(&database, NUMBERED[at as usize - 3], draws),
        6 => forge_in::<u64>(&database, "audit", draws),
        7 => forge_in::<&[u8; 24]>(&database, "events", draws),
        8 => forge_in::<&[u8; 16]>(&database, "heads", draws),
        9 => forge_in::<&[u8; 29]>(&database, "rows", draws),
        10 => forge_in::<&[u8; 28]>(&database, "cuts", draws),
        _ => forge_in::<&[u8; 32]>(&database, "members", draws),
    };
    result.unwrap_or_else(|error| format!("({error})"))
}

fn forge_in<K: redb::Key + 'static>(
    database: &Database,
    table: &'static str,
    draws: &mut Draws<'_>,
) -> Result<String, TableError> {
    let definition: TableDefinition<'_, K, &[u8]> = TableDefinition::new(table);
    let keys: Vec<Vec<u8>> = {
        let read = database.begin_read().expect("redb reads its own file").open_table(definition)?;
        let entries = read.iter()?;
        entries.filter_map(Result::ok).map(|(key, _)| K::as_bytes(&key.value()).as_ref().to_vec()).collect()
    };
    if keys.is_empty() {
        return Ok(format!("{table} empty"));
    }
    let key = &keys[draws.below(keys.len() as u64) as usize];
    let write = database.begin_write().expect("redb writes its own file");
    {
        let mut open = write.open_table(definition)?;
        let old = open.get(K::from_bytes(key))?.map(|value| value.value().to_vec()).unwrap_or_default();
        let new = changed(old, draws);
        open.insert(K::from_bytes(key), new.as_slice())?;
    }
    write.commit().expect("redb commits");
    Ok(table.to_string())
}

fn changed(mut bytes: Vec<u8>, draws: &mut Draws<'_>) -> Vec<u8> {
    let length = bytes.len() as u64;
    match draws.below(5) {
        0 if !bytes.is_empty() => {
            let at = draws.below(length) as usize;
            bytes[at] ^= 1 << draws.below(8);
        }
        1 => bytes.truncate(draws.below(length + 1) as usize),
        2 => {
            let more = draws.below(40) as usize;
            bytes.extend(draws.take(more));
        }
        3 => {
            let length = draws.below(60) as usize;
            bytes = draws.take(length);
        }
        _ => {
            let at = draws.below(length + 1) as usize;
            let number = draws.number().to_be_bytes();
            bytes.splice(at..at, number);
        }
    }
    bytes
}
