//! The log's side of a settled cluster: every event everywhere, and every one accounted for.
//!
//! Checked: all logs hold the same set of events (one hash over origins, numbers and hashes); events of a database =
//! events that its file shows + those held or pending, by the node's own status, and none is pending; both files stand at
//! the same point: neither lacks an event of its own that the log holds; a file shows every row exactly as its log says it
//! does, and no other; every row that was born and lives is shown, on
//! the shelf, or one with a row that is; where one clock at most was wrong, the others' stamps lie in the run's time.
//! Does not verify: that the events say what the apps did (`check` does, by the apps' own record); rows of servers that
//! are gone but were never shared; the stamps of cells, which may exceed the clock on purpose. Caller: `check`.

use std::collections::BTreeMap;

use litemesh::log::{LogError, LogRead};
use litemesh::merge::image::image_hash;
use litemesh::model::Value;
use litemesh::wire::decode_event;

use super::app::rows;
use super::{WALL_BASE_MS, World};

/// A stamp may be this much ahead of the true time, ms: the minute that a clock absorbs from its peers, and the counter.
const AHEAD_MS_MAX: u64 = 5 * 60_000;

/// All logs hold the same events.
pub fn same_events(world: &World) -> Result<(), String> {
    let mut seen: Option<(usize, String, u64)> = None;
    for position in world.present() {
        let read = read(world, position)?;
        let mut hasher = blake3::Hasher::new();
        let mut count = 0;
        for (origin, head) in read.heads().map_err(words)? {
            for seq in 1..=head.seq {
                let stored = read.event(&origin, seq).map_err(words)?;
                let stored = stored.ok_or_else(|| format!("server {position} lacks event {seq} of {origin}"))?;
                hasher.update(&origin.0).update(&seq.to_be_bytes()).update(&stored.hash);
                count += 1;
            }
        }
        let hash = hasher.finalize().to_hex()[..16].to_string();
        match &seen {
            None => seen = Some((position, hash, count)),
            Some((first, theirs, events)) if *theirs != hash => {
                return Err(format!(
                    "server {first} holds {events} events ({theirs}), server {position} {count} ({hash})"
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Events = shown + held; none pending; each file has all of its own.
pub fn balance(world: &World) -> Result<(), String> {
    for position in world.present() {
        let read = read(world, position)?;
        let heads = read.heads().map_err(words)?;
        let node = world.servers[position].node.as_ref().ok_or("a node is down")?;
        let status = node.status(world.now(position)).map_err(|error| error.to_string())?;
        let all: u64 = heads.values().map(|head| head.seq).sum();
        let told: u64 = status.databases.iter().map(|database| database.events).sum();
        if all != told {
            return Err(format!("server {position} holds {all} events, its databases {told}"));
        }
        for database in &status.databases {
            let (cursor, _) = read.cursor(&database.name).map_err(words)?.unwrap_or_default();
            let mut shown = 0;
            for (origin, head) in &heads {
                let until = cursor.get(origin);
                shown += read.count_of_database(origin, 1, &database.name, usize::MAX).map_err(words)?;
                if let Some((seq, _)) = read.next_of_database(origin, until + 1, &database.name).map_err(words)? {
                    let (name, head) = (&database.name, head.seq);
                    return Err(format!(
                        "server {position}: {name} shows {origin} up to {until}, {seq} of {head} waits"
                    ));
                }
            }
            if shown != database.events || database.held_events != 0 {
                return Err(format!(
                    "server {position}: {}: {shown} shown of {}, {} held",
                    database.name, database.events, database.held_events
                ));
            }
        }
    }
    Ok(())
}

/// Every row that lives is somewhere.
pub fn rows_accounted_for(world: &World) -> Result<(), String> {
    for position in world.present() {
        let read = read(world, position)?;
        for database in ["scouting", "users"] {
            for table in read.tables_of(database) {
                for row in read.rows_of(table, None, usize::MAX).map_err(words)? {
                    let Some(record) = read.row(&row).map_err(words)? else { continue };
                    let canonical = record.members().first().copied().unwrap_or(row);
                    let class = if canonical == row { Some(record) } else { read.row(&canonical).map_err(words)? };
                    let Some(class) = class.filter(|class| class.alive && !class.births.is_empty()) else { continue };
                    if class.shown.is_none() && class.shelved.is_none() {
                        return Err(format!(
                            "server {position}: {row} of {database} lives, and is neither shown nor shelved"
                        ));
                    }
                }
            }
        }
    }
    Ok(())
}

/// What the log says that a file shows is what it shows, row by row.
pub fn shown_as_said(world: &World) -> Result<(), String> {
    for position in world.present() {
        let read = read(world, position)?;
        for database in ["scouting", "users"] {
            let file = world.servers[position].app.file(database);
            for table in read.tables_of(database) {
                let name = read.table_name(table).map_err(words)?.1;
                let mut there: BTreeMap<[u8; 32], Vec<String>> = BTreeMap::new();
                for row in rows(file, &name) {
                    let image: Vec<Value> = row.iter().map(value).collect();
                    there.entry(image_hash(&name, &image)).or_default().push(format!("{row:?}"));
                }
                for row in read.rows_of(table, None, usize::MAX).map_err(words)? {
                    let record = read.row(&row).map_err(words)?.filter(|record| record.shown.is_some());
                    let Some(record) = record else { continue };
                    if there.get_mut(&record.image_hash).and_then(Vec::pop).is_none() {
                        let left: Vec<&String> = there.values().flatten().collect();
                        return Err(format!(
                            "server {position}: the file does not show {database}.{name} {:?} ({row}) as the log says it \
                             does; not said of any row: {left:?}",
                            record.shown
                        ));
                    }
                }
                if let Some(row) = there.values().flatten().next() {
                    return Err(format!(
                        "server {position}: {database}.{name} shows {row}, of which the log knows nothing"
                    ));
                }
            }
        }
    }
    Ok(())
}

fn value(value: &rusqlite::types::Value) -> Value {
    use rusqlite::types::Value as Stored;
    match value {
        Stored::Null => Value::Null,
        Stored::Integer(number) => Value::Integer(*number),
        Stored::Real(number) => Value::Real(number.to_bits()),
        Stored::Text(text) => Value::Text(text.clone().into_bytes()),
        Stored::Blob(bytes) => Value::Blob(bytes.clone()),
    }
}

/// Nobody with a right clock was drawn away by a wrong one.
pub fn stamps(world: &World) -> Result<(), String> {
    // Nodes go by the median of their peers: several wrong clocks may outvote a right one.
    if world.servers.iter().filter(|server| !server.clock_was_right).count() > 1 {
        return Ok(());
    }
    let right: BTreeMap<_, _> = world
        .servers
        .iter()
        .enumerate()
        .filter(|(_, server)| server.clock_was_right)
        .map(|(position, server)| (server.id, position))
        .collect();
    let Some(any) = world.present().next() else { return Ok(()) };
    let read = read(world, any)?;
    for (origin, head) in read.heads().map_err(words)? {
        let Some(server) = right.get(&head.origin.node).filter(|_| head.origin.incarnation != 0) else { continue };
        for seq in 1..=head.seq {
            let Some(stored) = read.event(&origin, seq).map_err(words)? else { continue };
            let stamp = decode_event(&stored.bytes).map_err(|error| error.to_string())?.header.stamp.wall_ms();
            if stamp > WALL_BASE_MS + world.now_ms + AHEAD_MS_MAX || stamp + AHEAD_MS_MAX < WALL_BASE_MS {
                let off = stamp as i64 - WALL_BASE_MS as i64;
                return Err(format!(
                    "server {server}, whose clock was right, stamped event {seq} at {off} ms of the run"
                ));
            }
        }
    }
    Ok(())
}

fn read(world: &World, position: usize) -> Result<LogRead, String> {
    let node = world.servers[position].node.as_ref().ok_or("a node is down")?;
    node.log().read().map_err(words)
}

fn words(error: LogError) -> String {
    error.to_string()
}
