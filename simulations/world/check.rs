//! What must hold when a run has settled.
//!
//! Checked: every file shows the same rows; digests agree, with each other and with a rebuild from the log alone; every
//! row that was inserted and that no app deleted is shown, on the shelf, or lost to a concurrent REPLACE of its row and told
//! so; no row is shown or born twice, no replaced row and no deleted note comes back; sums and best values that the rules
//! promise are those of the apps' own record; SQLite refused an app nothing that it had not provoked; SQLite's own
//! integrity; chains and signatures; and the log's side ([`check_events`]).
//! Does not verify: which of two concurrent values won (the reference evaluator's task, `histories`); that every lost
//! value is in the audit; how long it took; what was readable in between; rows written on a machine that is gone and was
//! not safe to unplug. Callers: `run::play`, tests.

use std::collections::{BTreeMap, BTreeSet};

use litemesh::model::{Cell, Change};
use litemesh::wire::decode_event;
use rusqlite::types::Value;

use super::app::{MARKED, rows};
use super::{Server, Violation, World, check_events, check_known};

/// Runs every check. The first that fails says what is wrong, where.
pub fn check(world: &World) -> Result<(), Violation> {
    type Check = fn(&World) -> Result<(), String>;
    let all: [(&str, Check); 16] = [
        ("same events", check_events::same_events),
        ("same rows", check_rows),
        ("fingerprints", check_fingerprints),
        ("shown as said", check_events::shown_as_said),
        ("known writes", check_known::check),
        ("digests", check_digests),
        ("rows by the record", check_markers),
        ("deletes", check_deletes),
        ("births", check_births),
        ("sums", check_board),
        ("balance", check_events::balance),
        ("rows accounted for", check_events::rows_accounted_for),
        ("stamps", check_events::stamps),
        ("app errors", check_errors),
        ("files", check_files),
        ("log", check_log),
    ];
    for (name, check) in all {
        check(world).map_err(|what| Violation { check: name.to_string(), what })?;
    }
    Ok(())
}

/// The server that stands for all of them once they are equal.
fn first(world: &World) -> &Server {
    let position = world.present().next().unwrap_or(0);
    &world.servers[position]
}

/// All files show the same rows.
fn check_rows(world: &World) -> Result<(), String> {
    let one = world.present().next().unwrap_or(0);
    for (database, table) in &tables(world) {
        let first = dump(world.servers[one].app.file(database), table);
        for server in world.present().skip(1) {
            let other = dump(world.servers[server].app.file(database), table);
            if first != other {
                let only = |a: &[Vec<Value>], b: &[Vec<Value>]| {
                    a.iter().filter(|row| !b.contains(row)).cloned().collect::<Vec<_>>()
                };
                let (here, there) = (only(&first, &other), only(&other, &first));
                let told: String =
                    here.iter().chain(&there).take(3).map(|row| tell(world, server, database, table, row)).collect();
                return Err(format!(
                    "{database}.{table} differs: only on server {one}: {here:?}; only on server {server}: {there:?}{told}"
                ));
            }
        }
    }
    Ok(())
}

/// SQLite refused nothing that the app had not provoked.
fn check_errors(world: &World) -> Result<(), String> {
    for (position, server) in world.servers.iter().enumerate() {
        if let Some(error) = &server.app.errors.foreign {
            return Err(format!("the app of server {position} was refused: {error}"));
        }
    }
    Ok(())
}

/// SQLite finds its own structure sound.
fn check_files(world: &World) -> Result<(), String> {
    for position in world.present() {
        for database in ["scouting", "users"] {
            let file = world.servers[position].app.file(database);
            let verdict: String =
                file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(|e| e.to_string())?;
            if verdict != "ok" {
                return Err(format!("server {position}: {database}: {verdict}"));
            }
        }
    }
    Ok(())
}

/// Every chain and every signature holds.
fn check_log(world: &World) -> Result<(), String> {
    for position in world.present() {
        let node = world.servers[position].node.as_ref().ok_or("a node is down")?;
        let report = node.verify_log().map_err(|error| error.to_string())?;
        if !report.faults.is_empty() {
            return Err(format!("server {position}: {:?}", report.faults));
        }
    }
    Ok(())
}

/// Every hit of every app counts once, and the best value is the best.
fn check_board(world: &World) -> Result<(), String> {
    let mut expected: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for (id, (sum, best)) in world.servers.iter().flat_map(|server| &server.app.board) {
        let all = expected.entry(*id).or_default();
        *all = (all.0 + sum, all.1.max(*best));
    }
    for (id, (sum, best)) in expected {
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        let file = first(world).app.file("scouting");
        let shown = file.query_row("SELECT hits, best FROM board WHERE id = ?1", [id], read);
        if shown.as_ref().ok() != Some(&(sum, best)) {
            return Err(format!("board {id} shows {shown:?}, but {sum} hits were made and {best} is the best"));
        }
    }
    Ok(())
}

/// What two servers know of a row, for the person who debugs.
fn tell(world: &World, server: usize, database: &str, table: &str, row: &[Value]) -> String {
    let key = |width: usize| -> String {
        let text = |value: &Value| match value {
            Value::Integer(number) => number.to_string(),
            Value::Text(text) => text.clone(),
            other => format!("{other:?}"),
        };
        row.iter().take(width).map(text).collect::<Vec<_>>().join(",")
    };
    let mut told = String::new();
    let one = world.present().next().unwrap_or(0);
    for (position, width) in [(one, 1), (one, 2), (server, 1), (server, 2)] {
        let Some(node) = world.servers[position].node.as_ref() else { continue };
        let Ok(history) = node.history(database, table, &key(width)) else { continue };
        told += &format!("\n server {position}: {history:?}");
        for (other, server) in world.servers.iter().enumerate().filter(|(other, _)| *other != position) {
            let theirs = server.node.as_ref().map(|node| node.history(database, table, &history.row));
            told += &format!("\n server {other} on the same row: {theirs:?}");
        }
    }
    told
}

/// Digests are equal on all nodes and equal to what the log alone gives.
fn check_digests(world: &World) -> Result<(), String> {
    let mut seen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for position in world.present() {
        let server = &world.servers[position];
        let node = server.node.as_ref().ok_or("a node is down")?;
        let status = node.status(world.now(position)).map_err(|error| error.to_string())?;
        for database in status.databases {
            seen.entry(database.name).or_default().insert(database.digest);
        }
        let out = super::scratch::Scratch::new();
        let report = node.rebuild(&out.path().join("rebuilt")).map_err(|error| error.to_string())?;
        for rebuilt in report.databases {
            if rebuilt.digest != rebuilt.live_digest {
                let copy = rusqlite::Connection::open(&rebuilt.path).map_err(|error| error.to_string())?;
                let tables = tables(world).into_iter().filter(|(database, _)| *database == rebuilt.name);
                let differing = tables.filter_map(|(database, table)| {
                    let (live, log) = (dump(server.app.file(&database), &table), dump(&copy, &table));
                    (live != log).then(|| format!("{table}: {}", difference(&live, &log)))
                });
                let differing: Vec<String> = differing.collect();
                return Err(format!("server {position}: the log rebuilds {} differently: {differing:?}", rebuilt.name));
            }
        }
    }
    match seen.iter().find(|(_, digests)| digests.len() > 1) {
        Some((database, digests)) => Err(format!("{database}: digests differ though rows are equal: {digests:?}")),
        None => Ok(()),
    }
}

/// The fingerprints kept with every write equal those computed anew from the rows shown (I21).
pub fn check_fingerprints(world: &World) -> Result<(), String> {
    for (position, server) in world.servers.iter().enumerate() {
        let Some(node) = server.node.as_ref() else { continue };
        let wrong = |error: litemesh::log::LogError| error.to_string();
        let log = node.log();
        let read = log.read().map_err(wrong)?;
        for (database, table) in tables(world) {
            let Some(id) = read.find_table(&database, &table).map_err(wrong)? else { continue };
            let mut anew = litemesh::merge::store::Fingerprint::default();
            for row in read.rows_of(id, None, usize::MAX).map_err(wrong)? {
                if let Some(record) = read.row(&row).map_err(wrong)?.filter(|record| record.shown.is_some()) {
                    anew.add(&record.image_hash);
                    let key = record.shown.unwrap_or_default();
                    let holder = read.shown(id, &key).map_err(wrong)?;
                    if holder != Some(row) {
                        return Err(format!(
                            "server {position}: {database}.{table} {key:?} is said to show {row}, and {holder:?}"
                        ));
                    }
                }
            }
            let kept = read.fingerprint(id).map_err(wrong)?;
            if anew != kept {
                return Err(format!("server {position}: {database}.{table} has {kept:?}, its rows give {anew:?}"));
            }
            let (blocks, wrong_sums) = read.check_prints(id).map_err(wrong)?;
            if wrong_sums > 0 {
                return Err(format!(
                    "server {position}: {database}.{table}: {wrong_sums} of {blocks} kept sums are wrong"
                ));
            }
        }
    }
    Ok(())
}

/// No row is lost, none is doubled.
fn check_markers(world: &World) -> Result<(), String> {
    let removed: BTreeSet<&String> = world.servers.iter().flat_map(|server| &server.app.removed).collect();
    let shelf: BTreeSet<String> = first(world)
        .node
        .as_ref()
        .ok_or("a node is down")?
        .shelf()
        .map_err(|error| error.to_string())?
        .into_iter()
        .flat_map(|row| row.cells.into_iter().map(|(_, value)| value.trim_matches('\'').to_string()))
        .collect();
    let mut replaced: BTreeMap<&String, BTreeSet<&String>> = BTreeMap::new();
    for (old, new) in world.servers.iter().flat_map(|server| &server.app.replaced) {
        replaced.entry(old).or_default().insert(new);
    }
    let outwritten = outwritten(world)?;
    let merged = merged(world)?;
    for (database, table) in MARKED {
        let mut shown: BTreeMap<String, u64> = BTreeMap::new();
        for row in markers(world, database, table) {
            *shown.entry(row).or_default() += 1;
        }
        if let Some((marker, count)) = shown.iter().find(|(_, count)| **count > 1) {
            return Err(format!("{marker} is shown {count} times"));
        }
        if let Some(marker) =
            shown.keys().find(|marker| is_outdated(marker, &replaced, &removed) && !merged.contains(*marker))
        {
            return Err(format!("{marker} was written over in its row and is shown again"));
        }
        for server in &world.servers {
            for marker in server.app.inserted.get(table).into_iter().flatten() {
                let gone = removed.contains(marker) || replaced.contains_key(marker) || outwritten.contains(marker);
                let gone = gone || merged.contains(marker);
                if !shown.contains_key(marker) && !gone && !shelf.contains(marker) {
                    return Err(format!("{marker} is lost"));
                }
            }
        }
    }
    Ok(())
}

/// A deleted note is gone for good: nobody changes notes and nothing refers to them.
fn check_deletes(world: &World) -> Result<(), String> {
    let removed: BTreeSet<&String> = world.servers.iter().flat_map(|server| &server.app.removed).collect();
    match markers(world, "scouting", "note").into_iter().find(|marker| removed.contains(marker)) {
        Some(marker) => Err(format!("{marker} was deleted and is shown")),
        None => Ok(()),
    }
}

/// No row was born twice: what the outbox held is logged once, however often it is read.
fn check_births(world: &World) -> Result<(), String> {
    let log = first(world).node.as_ref().ok_or("a node is down")?.log();
    let read = log.read().map_err(|error| error.to_string())?;
    let all: BTreeSet<&String> =
        world.servers.iter().flat_map(|server| server.app.inserted.values().flatten()).collect();
    let mut born: BTreeSet<String> = BTreeSet::new();
    for (origin, head) in read.heads().map_err(|error| error.to_string())? {
        for seq in 1..=head.seq {
            let Some(stored) = read.event(&origin, seq).map_err(|error| error.to_string())? else { continue };
            let event = decode_event(&stored.bytes).map_err(|error| error.to_string())?;
            for change in event.changes {
                let Change::Insert { cells, .. } = change else { continue };
                for (_, cell) in cells {
                    let Cell::Plain(litemesh::model::Value::Text(text)) = cell else { continue };
                    let text = String::from_utf8_lossy(&text).into_owned();
                    if all.contains(&text) && !born.insert(text.clone()) {
                        return Err(format!("{text} was born twice"));
                    }
                }
            }
        }
    }
    Ok(())
}

/// Whether a marker was written over and what came in its place still stands. A row that was replaced and then deleted
/// between two captures may be revived by another server with the values it had before: nobody else saw the later ones.
fn is_outdated(marker: &String, replaced: &BTreeMap<&String, BTreeSet<&String>>, removed: &BTreeSet<&String>) -> bool {
    let mut open: Vec<&String> = replaced.get(marker).into_iter().flatten().copied().collect();
    let outdated = !open.is_empty();
    let mut seen = BTreeSet::new();
    while let Some(next) = open.pop() {
        if removed.contains(next) {
            return false;
        }
        if seen.insert(next) {
            open.extend(replaced.get(next).into_iter().flatten().copied());
        }
    }
    outdated
}

/// Values that lost to a concurrent one: two apps replaced one row without knowing each other.
fn outwritten(world: &World) -> Result<BTreeSet<String>, String> {
    let node = first(world).node.as_ref().ok_or("a node is down")?;
    let conflicts = node.conflicts(0, usize::MAX).map_err(|error| error.to_string())?;
    Ok(conflicts.into_iter().map(|conflict| conflict.loser.value.trim_matches('\'').to_string()).collect())
}

/// Markers of rows that a merge or split names: they are one with another row (shown, on the shelf, or deleted as one), or
/// were. Of a class that lives and is nowhere this says nothing.
fn merged(world: &World) -> Result<BTreeSet<String>, String> {
    let wrong = |error: litemesh::log::LogError| error.to_string();
    let log = first(world).node.as_ref().ok_or("a node is down")?.log();
    let read = log.read().map_err(wrong)?;
    let mut merged = BTreeSet::new();
    for (origin, head) in read.heads().map_err(wrong)? {
        for seq in 1..=head.seq {
            let Some(stored) = read.event(&origin, seq).map_err(wrong)? else { continue };
            for change in decode_event(&stored.bytes).map_err(|error| error.to_string())?.changes {
                let (Change::Insert { cells, .. }, Some(row)) = (&change, change.row()) else { continue };
                let Some(record) = read.row(&row).map_err(wrong)?.filter(|record| !record.links().is_empty()) else {
                    continue;
                };
                let canonical = record.members().first().copied().unwrap_or(row);
                let class = read.row(&canonical).map_err(wrong)?.unwrap_or(record);
                if class.alive && class.shown.is_none() && class.shelved.is_none() {
                    continue;
                }
                let texts = cells.iter().filter_map(|(_, cell)| match cell {
                    Cell::Plain(litemesh::model::Value::Text(text)) => Some(String::from_utf8_lossy(text).into_owned()),
                    _ => None,
                });
                merged.extend(texts);
            }
        }
    }
    Ok(merged)
}

fn markers(world: &World, database: &str, table: &str) -> Vec<String> {
    let file = first(world).app.file(database);
    let mut statement = file.prepare(&format!("SELECT marker FROM {table} WHERE marker IS NOT NULL")).expect("a table");
    let rows = statement.query_map([], |row| row.get(0)).expect("a query");
    rows.map(|row| row.expect("a marker")).collect()
}

fn tables(world: &World) -> Vec<(String, String)> {
    let mut tables = Vec::new();
    for database in ["scouting", "users"] {
        let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT GLOB 'sqlite_*' AND name NOT GLOB '_litemesh_*'";
        let mut statement = first(world).app.file(database).prepare(sql).expect("a query");
        let names = statement.query_map([], |row| row.get::<_, String>(0)).expect("a query");
        tables.extend(names.map(|name| (database.to_string(), name.expect("a name"))));
    }
    tables
}

/// What only one of two dumps holds.
fn difference(one: &[Vec<Value>], other: &[Vec<Value>]) -> String {
    let only =
        |a: &[Vec<Value>], b: &[Vec<Value>]| a.iter().filter(|row| !b.contains(row)).cloned().collect::<Vec<_>>();
    format!("only in the first: {:?}; only in the second: {:?}", only(one, other), only(other, one))
}

fn dump(file: &rusqlite::Connection, table: &str) -> Vec<Vec<Value>> {
    let mut rows = rows(file, table);
    rows.sort_by_key(|row| format!("{row:?}"));
    rows
}
