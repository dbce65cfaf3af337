//! `GET /metrics`: the node's figures in Prometheus' text format.
//!
//! Names end in their unit (`_seconds`, `_bytes`), counters in `_total`; labels are few and bounded (databases, peers, kinds
//! of runs). Invariant: made from the same views as `status`; label values are escaped, so no name can forge a line.
//! Called through [`super::routes`].

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::Services;
use super::answer::ask;
use super::problem::Problem;
use super::read::scored_status;
use crate::monitor::view::KindView;
use crate::node::fates::Fates;
use crate::node::view::Status;

/// What became of the events is counted again after this.
const FATES_EVERY: Duration = Duration::from_secs(600);

pub(super) async fn metrics(State(services): State<Arc<Services>>) -> Result<Response, Problem> {
    let status = scored_status(&services).await?;
    // Without run tracking its figures are left out.
    let kinds = services.monitor.ask(|store, _| store.kinds()).await.unwrap_or_default();
    let mut page = Page::default();
    write_node(&status, &mut page);
    write_databases(&status, &mut page);
    write_peers(&status, &mut page);
    write_runs(&kinds, &mut page);
    write_fates(&FATES.of(&services).await, &mut page);
    page.family("litemesh_monitor_dropped_total", "counter", "Notes that run tracking had no room for.");
    page.line(&[], services.monitor.dropped() as f64);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.text).into_response())
}

/// What became of the events, counted beside the node and kept for a while: it takes a look at every row.
struct KeptFates {
    kept: tokio::sync::Mutex<Option<(Instant, Vec<Fates>)>>,
}

/// One program runs one node.
static FATES: KeptFates = KeptFates { kept: tokio::sync::Mutex::const_new(None) };

impl KeptFates {
    /// Them, at most [`FATES_EVERY`] old; none while they cannot be counted.
    async fn of(&self, services: &Services) -> Vec<Fates> {
        let mut kept = self.kept.lock().await;
        if let Some((_, fates)) = kept.as_ref().filter(|(at, _)| at.elapsed() < FATES_EVERY) {
            return fates.clone();
        }
        let Ok(counting) = ask(&services.port, |node, _| node.fate_count()).await else { return Vec::new() };
        let counted = tokio::task::spawn_blocking(move || counting.count()).await;
        let fates = counted.ok().and_then(Result::ok).unwrap_or_default();
        *kept = Some((Instant::now(), fates.clone()));
        fates
    }
}

fn write_fates(fates: &[Fates], page: &mut Page) {
    let help =
        "What became of the events: applied + superseded + held + shelved are all of them (at most ten minutes old).";
    page.family("litemesh_database_events_by_outcome", "gauge", help);
    for one in fates {
        let outcomes =
            [("applied", one.applied), ("superseded", one.superseded), ("held", one.held), ("shelved", one.shelved)];
        for (outcome, events) in outcomes {
            page.line(&[("database", &one.database), ("outcome", outcome)], events as f64);
        }
    }
}

/// A page in the making: families one after the other, each with its lines.
#[derive(Default)]
struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(self.name);
        if !labels.is_empty() {
            let labels = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
            let _ = write!(self.text, "{{{}}}", labels.collect::<Vec<_>>().join(","));
        }
        let _ = writeln!(self.text, " {value}");
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn write_node(status: &Status, page: &mut Page) {
    page.family("litemesh_info", "gauge", "This node; always 1.");
    page.line(
        &[("node", &status.node.name), ("version", &status.node.version), ("cluster", &status.cluster.name)],
        1.0,
    );
    page.family("litemesh_uptime_seconds", "gauge", "Time since the start.");
    page.line(&[], status.node.uptime_s as f64);
    page.family("litemesh_cluster_members", "gauge", "Members of the cluster, this node included.");
    page.line(&[], f64::from(status.cluster.members));
    page.family("litemesh_only_here_events", "gauge", "Events that no other member is known to hold.");
    page.line(&[], status.only_here.events as f64);
    page.family("litemesh_only_here_rows", "gauge", "Rows that those events changed, as far as they were counted.");
    page.line(&[], status.only_here.rows as f64);
    page.family("litemesh_alerts", "gauge", "What a person should look at.");
    page.line(&[], status.alerts.len() as f64);
}

fn write_databases(status: &Status, page: &mut Page) {
    type Figure = fn(&crate::node::view::DatabaseView) -> f64;
    let figures: [(&'static str, &str, &str, Figure); 8] = [
        ("litemesh_database_healthy", "gauge", "1 when the database needs no person.", |one| {
            f64::from(u8::from(one.state.starts_with("ok")))
        }),
        ("litemesh_database_tables", "gauge", "Replicated tables.", |one| f64::from(one.tables)),
        ("litemesh_database_rows", "gauge", "Rows shown in the replicated tables.", |one| one.rows as f64),
        ("litemesh_database_outbox_rows", "gauge", "Captured rows that are not in the log yet.", |one| {
            one.outbox as f64
        }),
        ("litemesh_database_events", "gauge", "Events of the database in the log.", |one| one.events as f64),
        ("litemesh_database_held_events", "gauge", "Events that wait for a schema or a cause.", |one| {
            one.held_events as f64
        }),
        ("litemesh_database_shelved_rows", "gauge", "Rows that live but cannot be shown.", |one| one.shelved as f64),
        ("litemesh_database_conflicts_total", "counter", "Audit records: what lost.", |one| one.conflicts as f64),
    ];
    for (name, kind, help, figure) in figures {
        page.family(name, kind, help);
        for database in &status.databases {
            page.line(&[("database", &database.name)], figure(database));
        }
    }
}

fn write_peers(status: &Status, page: &mut Page) {
    type Figure = fn(&crate::node::view::PeerView) -> Option<f64>;
    let figures: [(&'static str, &str, Figure); 6] = [
        ("litemesh_peer_connected", "1 while the peer is connected.", |one| {
            Some(f64::from(u8::from(one.state == "connected")))
        }),
        ("litemesh_peer_behind_events", "Events that the peer has and this node lacks.", |one| Some(one.behind as f64)),
        ("litemesh_peer_ahead_events", "Events that this node has and the peer lacks.", |one| Some(one.ahead as f64)),
        ("litemesh_peer_round_trip_seconds", "Last measured round trip.", |one| one.rtt_ms.map(|ms| ms / 1000.0)),
        ("litemesh_peer_clock_skew_seconds", "The peer's clock minus this one's.", |one| {
            one.clock_skew_ms.map(|ms| ms as f64 / 1000.0)
        }),
        ("litemesh_peer_reliability_score", "How well operations with the peer go, 0 to 1.", |one| Some(one.score)),
    ];
    for (name, help, figure) in figures {
        page.family(name, "gauge", help);
        for peer in &status.peers {
            if let Some(value) = figure(peer) {
                // Names need not be unique; keys are.
                page.line(&[("peer", &peer.name), ("id", peer.id.get(..12).unwrap_or(&peer.id))], value);
            }
        }
    }
}

fn write_runs(kinds: &[KindView], page: &mut Page) {
    page.family("litemesh_runs_total", "counter", "Runs that ended, by kind, subject and how.");
    for kind in kinds {
        let labels =
            |status| [("kind", kind.sync_type.as_str()), ("subject", kind.subject.as_str()), ("status", status)];
        page.line(&labels("success"), kind.successful_sync_count as f64);
        page.line(&labels("error"), kind.failed_sync_count as f64);
    }
    page.family("litemesh_run_records_total", "counter", "Records of runs that ended well.");
    for kind in kinds {
        page.line(&[("kind", &kind.sync_type), ("subject", &kind.subject)], kind.total_records_processed as f64);
    }
    page.family("litemesh_run_last_success", "gauge", "1 when the last run of the kind ended well, 0 when it failed.");
    for kind in kinds.iter().filter(|kind| ["success", "error"].contains(&kind.last_sync_status.as_str())) {
        let well = f64::from(u8::from(kind.last_sync_status == "success"));
        page.line(&[("kind", &kind.sync_type), ("subject", &kind.subject)], well);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::view::{DatabaseView, PeerView};

    #[test]
    fn a_name_cannot_forge_a_line_and_units_are_base_units() {
        let hostile = "pit\"} 1\nlitemesh_alerts 99\\".to_string();
        let peer = PeerView { name: hostile, id: "ab".repeat(32), rtt_ms: Some(1.5), ..PeerView::default() };
        let database = DatabaseView { name: "scouting".into(), state: "ok".into(), rows: 7, ..DatabaseView::default() };
        let status = Status { peers: vec![peer], databases: vec![database], ..Status::default() };
        let mut page = Page::default();
        write_node(&status, &mut page);
        write_databases(&status, &mut page);
        write_peers(&status, &mut page);
        write_runs(
            &[KindView { sync_type: "apply".into(), subject: "scouting".into(), ..KindView::default() }],
            &mut page,
        );
        assert!(page.text.contains("litemesh_database_rows{database=\"scouting\"} 7\n"), "{}", page.text);
        let trip = "litemesh_peer_round_trip_seconds{peer=\"pit\\\"} 1\\nlitemesh_alerts 99\\\\\",id=\"abababababab\"} 0.0015\n";
        assert!(page.text.contains(trip), "{}", page.text);
        assert!(!page.text.contains("litemesh_peer_clock_skew_seconds{"), "{}", page.text);
        for line in page.text.lines() {
            assert!(line.starts_with("# ") || line.starts_with("litemesh_"), "{line}");
        }
    }
}
