//! What comparisons with peers came to, and how it is told.
//!
//! Invariant: field names are the surface that outside checks use; add freely, rename nothing. Filled by [`super::compare`],
//! printed by `cli`, served by `http`.

use serde::{Deserialize, Serialize};

use super::query::rfc3339;
use super::view::ContentView;
use super::{Node, NodeError, Now};
use crate::model::{NodeId, RowId, counted, fits};
use crate::reconcile::Side;

/// Rows that are named per peer.
pub(super) const DIFFERENCES_SHOWN: usize = 1_000;

/// What is known of one peer's content.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    pub(super) state: State,
    /// Since when it is so, and when that was looked at last; wall ms.
    pub(super) since_ms: u64,
    pub(super) at_ms: u64,
    pub(super) count: u64,
    pub(super) rows: Vec<Difference>,
    pub(super) complete: bool,
    /// Tables that cannot be compared.
    pub(super) unlike: Vec<(String, String)>,
    pub(super) rounds: u32,
    /// Sent and received.
    pub(super) bytes: (u64, u64),
    pub(super) took_ms: u64,
    /// The next session is not before this, monotonic ms.
    pub(super) next_ms: u64,
    pub(super) pause_ms: u64,
    /// What people were told.
    pub(super) alert: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Unknown,
    Equal,
    /// The prints differ; the rows are not known yet.
    Differs,
    /// They were looked for.
    Found,
    /// Nothing that can be compared differs, but one lacks a table or has it with another schema.
    Unlike,
}

/// A row that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) database: String,
    pub(super) table: String,
    pub(super) row: RowId,
    pub(super) side: Side,
}

/// What is known of another server's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerComparison {
    /// Public key in hex.
    pub peer: String,
    /// Name for people.
    pub name: String,
    /// `connected` or `away`.
    pub state: String,
    /// `equal`, `differs`, `unlike` (equal but for tables that one lacks or has with another schema) or `unknown` (the two
    /// were never at the same place since the start).
    pub content: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// When it was looked at last, RFC 3339.
    pub compared: String,
    /// Rows that differ.
    pub rows: u64,
    /// The first of them.
    pub differences: Vec<DifferenceView>,
    /// All rows were compared; false: too many differ, or they are looked for now.
    pub complete: bool,
    /// Tables that one of the two lacks or has with another schema: not compared.
    pub not_compared: Vec<String>,
    /// Round trips of the last search for rows.
    pub rounds: u32,
    /// Bytes that it sent.
    pub bytes_sent: u64,
    /// Bytes that it received.
    pub bytes_received: u64,
    /// How long it took, ms.
    pub took_ms: u64,
}

/// One row that differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferenceView {
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
    /// Identity of the row.
    pub row: String,
    /// Where this server shows it; empty: nowhere.
    pub id: String,
    /// `only here`, `only there` or `differs`.
    pub side: String,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            State::Unknown => "unknown",
            State::Equal => "equal",
            State::Differs | State::Found => "differs",
            State::Unlike => "unlike",
        }
    }
}

fn time(ms: u64) -> String {
    if ms == 0 { String::new() } else { rfc3339(ms) }
}

impl Outcome {
    pub(super) fn turn(&mut self, state: State, now: Now) {
        let differs = |state: State| matches!(state, State::Differs | State::Found);
        if self.state != state && !(differs(self.state) && differs(state)) {
            self.since_ms = now.wall_ms;
        }
        // That the prints differ still is no news beside what was found.
        if !(matches!(self.state, State::Found | State::Unlike) && state == State::Differs) {
            self.state = state;
        }
        self.at_ms = now.wall_ms;
    }

    /// The alert; empty where there is nothing to tell.
    pub(super) fn words(&self, peer: &str) -> String {
        let tables: std::collections::BTreeSet<String> =
            self.rows.iter().map(|row| format!("{}.{}", row.database, row.table)).collect();
        let tables: Vec<String> = tables.into_iter().collect();
        match (self.count, self.unlike.is_empty()) {
            // Another schema is told elsewhere, and no damage.
            (0, false) => String::new(),
            (0, true) => {
                format!("the sums over the rows here and on {peer} differ, their rows do not: checked against the rows")
            }
            (count, _) => format!(
                "{} of {} {} other here than on {peer}, which holds the same events, and evaluated again from the log; if this \
                 stays, run `litemesh peers compare {peer}` and `litemesh rebuild --out DIR` on both",
                counted(count, "row"),
                tables.join(", "),
                fits(count, "is", "are")
            ),
        }
    }
}

impl Node {
    /// The wall clock's time as [`PeerComparison::compared`] says it.
    pub fn time_words(&self, now: Now) -> String {
        rfc3339(now.wall_ms)
    }

    /// What is known of every other member's content, by name.
    pub fn peer_comparisons(&self) -> Result<Vec<PeerComparison>, NodeError> {
        let mut views = Vec::new();
        for member in self.membership.members().iter().filter(|member| member.node != self.id()) {
            views.push(self.comparison(&member.node)?);
        }
        Ok(views)
    }

    /// The same in short, for one peer.
    pub(super) fn content_view(&self, peer: &NodeId) -> ContentView {
        let unknown = Outcome::default();
        let outcome = self.compare.outcomes.get(peer).unwrap_or(&unknown);
        ContentView {
            state: outcome.state.word().to_string(),
            since: time(outcome.since_ms),
            compared: time(outcome.at_ms),
            rows: outcome.count,
        }
    }

    fn comparison(&self, peer: &NodeId) -> Result<PeerComparison, NodeError> {
        let outcome = self.compare.outcomes.get(peer).cloned().unwrap_or_default();
        let mut differences = Vec::new();
        if !outcome.rows.is_empty() {
            let read = self.log.read()?;
            for row in &outcome.rows {
                let shown = read.row(&row.row)?.and_then(|record| record.shown);
                let id = shown.as_deref().map(super::query::key_text).unwrap_or_default();
                let side = match row.side {
                    Side::OnlyHere => "only here",
                    Side::OnlyThere => "only there",
                    Side::Differs => "differs",
                };
                differences.push(DifferenceView {
                    database: row.database.clone(),
                    table: row.table.clone(),
                    row: row.row.to_string(),
                    id,
                    side: side.to_string(),
                });
            }
        }
        let connected = self.exchange.peers.get(peer).is_some_and(|peer| peer.connected);
        Ok(PeerComparison {
            state: if connected { "connected" } else { "away" }.to_string(),
            peer: peer.to_string(),
            name: self.membership.member(peer).map(|member| member.name.clone()).unwrap_or_default(),
            content: outcome.state.word().to_string(),
            since: time(outcome.since_ms),
            compared: time(outcome.at_ms),
            rows: outcome.count,
            differences,
            complete: match outcome.state {
                State::Equal => true,
                State::Found | State::Unlike => outcome.complete,
                State::Unknown | State::Differs => false,
            },
            not_compared: outcome.unlike.iter().map(|(database, table)| format!("{database}.{table}")).collect(),
            rounds: outcome.rounds,
            bytes_sent: outcome.bytes.0,
            bytes_received: outcome.bytes.1,
            took_ms: outcome.took_ms,
        })
    }
}
