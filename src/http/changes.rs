//! The table `database_changes` of `monitor.db`, kept behind the log: the newest changes, for whoever asks with SQL.
//!
//! States: waiting for news → a pause, so that what comes together is taken together → taking what is new, a page at a time →
//! waiting. More than the table holds is never taken: in a bulk load what would be pushed out again is left out.
//! Invariants: the node is asked for one small page at a time, with pauses between them; the table is behind by seconds at
//! most, and never holds anything that is not in the log. Called by daemon, for as long as the node runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::answer::ask;
use super::canonical::{sha256, write_cells};
use super::problem::Problem;
use crate::monitor::Monitor;
use crate::monitor::feed::{CHANGES_KEPT, ChangeRow};
use crate::node::feed::{BASE_ARRIVAL, FeedEvent};
use crate::node::port::NodePort;

/// What comes within this is taken together.
const GATHER: Duration = Duration::from_secs(2);

/// Pause between two pages: the node has other work.
const BREATH: Duration = Duration::from_millis(20);

/// Events and changes that the node is asked for at once.
const EVENTS_AT_ONCE: usize = 250;
const CHANGES_AT_ONCE: usize = 50;

/// Follows the log until `shutdown` holds `true`.
pub async fn follow_changes(port: Arc<dyn NodePort>, monitor: Monitor, mut shutdown: watch::Receiver<bool>) {
    let mut news = monitor.news();
    loop {
        news.mark_unchanged();
        if let Err(problem) = take(&port, &monitor).await {
            tracing::debug!(code = problem.code, "the change table waits");
        }
        tokio::select! {
            changed = news.changed() => if changed.is_err() { return },
            // The sender gone means the same as `true`.
            _ = shutdown.wait_for(|stop| *stop) => return,
        }
        tokio::time::sleep(GATHER).await;
    }
}

/// Takes what is newer than the table.
async fn take(port: &Arc<dyn NodePort>, monitor: &Monitor) -> Result<(), Problem> {
    let known = monitor.ask(|store, _| store.last_change()).await?;
    let last = ask(port, |node, _| node.last_arrival()).await??;
    // Every event has a change at least: what lies further back would not stay.
    let mut from = known.max(last.saturating_sub(CHANGES_KEPT));
    let mut events: Vec<FeedEvent> = Vec::new();
    while from < last {
        let page = ask(port, move |node, _| node.feed_events(&[], from, EVENTS_AT_ONCE)).await??;
        let Some(end) = page.last() else { break };
        from = end.arrival;
        // What no file shows yet is taken when one does: nothing behind it goes before.
        let waits = page.iter().position(|event| event.changes.is_none());
        // Rows of a snapshot are no changes.
        let taken = page.iter().take(waits.unwrap_or(page.len()));
        events.extend(taken.filter(|event| event.arrival != BASE_ARRIVAL));
        if waits.is_some() {
            break;
        }
        tokio::time::sleep(BREATH).await;
    }
    let mut room = CHANGES_KEPT;
    let mut kept = Vec::new();
    for event in events.into_iter().rev() {
        let changes = event.changes.unwrap_or(0);
        let taken = changes.min(room);
        room -= taken;
        kept.push((event.arrival, changes - taken, taken));
    }
    for (arrival, first, taken) in kept.into_iter().rev() {
        let mut from = (taken > 0).then_some(first);
        while let Some(at) = from {
            let (rows, next) = ask(port, move |node, _| node.feed_rows(arrival, at, CHANGES_AT_ONCE)).await??;
            let rows: Vec<ChangeRow> = rows.into_iter().map(row).collect();
            monitor.ask(move |store, now_ms| store.add_changes(&rows, now_ms)).await?;
            from = next;
            tokio::time::sleep(BREATH).await;
        }
    }
    Ok(())
}

fn row(row: crate::node::feed::FeedRow) -> ChangeRow {
    let mut data = String::new();
    write_cells(&row.data, &mut data);
    ChangeRow {
        arrival: row.arrival,
        index: row.index,
        hash: sha256(&format!("{} {} {} {} {data}", row.database, row.table, row.record_id, row.operation)),
        data,
        // The form of the other times in that file.
        timestamp: row.written.trim_end_matches('Z').replace('T', " "),
        database: row.database,
        table: row.table,
        record_id: row.record_id,
        operation: row.operation,
        node: row.node,
    }
}
