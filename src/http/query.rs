//! Parameters as callers write them.
//!
//! Invariant: unknown parameters are refused, times are checked, numbers are bounded. Called by `read`, `act` and `cli`.

use std::path::Path;

use serde::Deserialize;

use super::moment::{bad_moment, parse_moment};
use super::problem::Problem;
use crate::model::NodeId;
use crate::node::view::{EventFilter, Status};

/// Events on one page, at most.
pub(super) const PAGE_MAX: usize = 1_000;

/// `GET /api/v1/events`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EventsQuery {
    db: Option<String>,
    table: Option<String>,
    origin: Option<String>,
    since: Option<String>,
    until: Option<String>,
    limit: Option<usize>,
    after: Option<u64>,
}

/// `GET /api/v1/conflicts`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ConflictsQuery {
    pub(super) after: Option<u64>,
    pub(super) limit: Option<usize>,
}

/// `GET /api/v1/where` and `GET /api/v1/history`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RowQuery {
    pub(super) db: String,
    pub(super) table: String,
    pub(super) id: String,
    #[serde(default)]
    pub(super) node: Option<String>,
}

impl EventsQuery {
    /// The filter, with times read against `now_ms`.
    pub(super) fn filter(self, now_ms: u64) -> Result<EventFilter, Problem> {
        let moment = |name: &str, text: Option<String>| {
            text.map(|text| parse_moment(&text, now_ms).ok_or_else(|| Problem::invalid(bad_moment(name, &text))))
                .transpose()
        };
        Ok(EventFilter {
            database: self.db,
            table: self.table,
            origin: self.origin,
            since_ms: moment("since", self.since)?,
            until_ms: moment("until", self.until)?,
            limit: self.limit.unwrap_or(0).min(PAGE_MAX),
            after_arrival: self.after,
        })
    }
}

/// A path of this machine in a request must not depend on where the node was started.
pub(super) fn check_absolute(name: &str, path: &Path) -> Result<(), Problem> {
    match path.is_absolute() {
        true => Ok(()),
        false => Err(Problem::invalid(format!("`{name}` is `{}`, but must be an absolute path", path.display()))),
    }
}

/// A peer as people name it: its name, its id or the beginning of it, or its number in `peers list`. The error says
/// what else there is.
pub fn parse_peer(status: &Status, text: &str) -> Result<NodeId, String> {
    let by_number = text.parse::<usize>().ok().and_then(|number| status.peers.get(number.checked_sub(1)?));
    let named: Vec<_> = status.peers.iter().filter(|peer| peer.name == text).collect();
    let long = text.len() >= 6;
    let by_id: Vec<_> = status.peers.iter().filter(|peer| long && peer.id.starts_with(&text.to_lowercase())).collect();
    let peer = match (&named[..], &by_id[..], by_number) {
        ([peer], _, _) | ([], [peer], _) => *peer,
        ([], [], Some(peer)) => peer,
        ([], [], None) => {
            let known: Vec<_> = status.peers.iter().map(|peer| peer.name.as_str()).collect();
            let known = if known.is_empty() { "no peers yet".to_string() } else { known.join(", ") };
            return Err(format!("there is no peer `{text}` (known: {known}): see `litemesh peers list`"));
        }
        _ => {
            return Err(format!(
                "several peers are called `{text}`: name one by its id or its number in `litemesh peers list`"
            ));
        }
    };
    node_of(&peer.id).ok_or_else(|| format!("the id of peer `{text}` cannot be read"))
}

/// A node's key from its hex.
pub fn node_of(hex: &str) -> Option<NodeId> {
    data_encoding::HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok().map(NodeId)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::view::PeerView;

    #[test]
    fn peers_go_by_name_id_and_number() {
        let peer = |name: &str, byte: u8| PeerView {
            name: name.into(),
            id: NodeId([byte; 32]).to_string(),
            ..Default::default()
        };
        let status = Status { peers: vec![peer("pit", 1), peer("stand", 2), peer("stand", 3)], ..Default::default() };
        assert_eq!(parse_peer(&status, "pit"), Ok(NodeId([1; 32])));
        assert_eq!(parse_peer(&status, "2"), Ok(NodeId([2; 32])));
        assert_eq!(parse_peer(&status, "030303"), Ok(NodeId([3; 32])));
        assert!(parse_peer(&status, "stand").unwrap_err().contains("several peers"));
        for unknown in ["0", "4", "nobody"] {
            assert!(parse_peer(&status, unknown).unwrap_err().contains("no peer"), "{unknown}");
        }
    }
}
