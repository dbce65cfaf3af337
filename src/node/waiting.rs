//! When a file may be adopted: once the cluster was heard, in the order of references.
//!
//! Invariant: rows are compared with all that the cluster told and its causes. After a bounded wait without those they are
//! enrolled by content, as if nobody had answered: what is equal there has the same births, while rows that a part of the
//! log does not know would all be taken for new. No file is written before those that refer to it were read.
//! Callers: the step; daemon (joining).

use super::meeting::Meeting;
use super::{Node, NodeError, Now};
use crate::model::{Cut, DatabaseSchema, Heads};
use crate::sqlite::FileMeta;
use crate::wire::decode_event;

/// How long a joined node waits for the cluster before it gives births to the rows of its files, ms.
pub(super) const WAIT_MS: u64 = 15_000;

/// How long one waits that holds all of a bundle: a network may be there all the same, and know more.
const CARRIED_WAIT_MS: u64 = 2_000;

impl Node {
    /// Whether somebody told all that the cluster holds, or the wait is over.
    fn may_adopt(&self, position: usize, deadline_ms: u64, now: Now) -> Result<bool, NodeError> {
        if self.holds_causes(position)? {
            let carried = now.mono_ms + WAIT_MS >= deadline_ms + CARRIED_WAIT_MS && self.holds_what_was_carried();
            let told = carried || self.has_caught_up();
            return Ok(now.mono_ms >= deadline_ms || told && !self.lacks_last_writes(position)?);
        }
        crate::sometimes!("adopt: the log lacks what its events build on");
        Ok(now.mono_ms >= deadline_ms && !self.needs_cluster(position)?)
    }

    /// Whether a file says nothing without the cluster's rows: it carries a cut of them, or is to be compared with a base.
    pub(super) fn needs_cluster(&self, position: usize) -> Result<bool, NodeError> {
        let file = &self.databases[position].file;
        let copied = file.is_enrolled()? && file.meta()?.applied.iter().any(|dot| self.heads.contains_key(dot.actor));
        Ok(copied || matches!(self.meeting(&self.schemas[position].database)?, Meeting::Base(_)))
    }

    /// Whether the file is a copy of a member's and shows what that member wrote last, while the log does not hold it yet:
    /// another peer may bring it. (Nobody may, where the member's log is lost: then these rows are the file's own.)
    fn lacks_last_writes(&self, position: usize) -> Result<bool, NodeError> {
        let file = &self.databases[position].file;
        let logged = if file.is_enrolled()? { file.meta()?.logged } else { None };
        let lacks = logged.is_some_and(|(origin, seq)| self.heads.get(&origin).is_none_or(|held| held.seq < seq));
        crate::sometimes!(lacks, "adopt: the file shows what its member wrote and the log lacks");
        Ok(lacks)
    }

    /// Whether some connected peer told what it holds and this log holds all of it.
    pub fn has_caught_up(&self) -> bool {
        let holds = |peer: &super::exchange::Peer| {
            peer.heads.iter().all(|(id, head)| self.heads.get(id).is_some_and(|mine| mine.seq >= head.seq))
        };
        self.exchange.peers.values().any(|peer| peer.connected && peer.heard && holds(peer))
    }

    /// Whether this log holds all that the maker of some bundle held, and nobody is connected who could tell more.
    fn holds_what_was_carried(&self) -> bool {
        let holds =
            |heads: &Heads| heads.iter().all(|(id, head)| self.heads.get(id).is_some_and(|own| own.seq >= head.seq));
        !self.exchange.peers.values().any(|peer| peer.connected) && self.receipts.carried_heads().any(holds)
    }

    /// Whether the log holds all that the authors of its events of a database knew. A fresh event can be pushed here before
    /// what it builds on has come; to compare rows then would take them all for new.
    pub(super) fn holds_causes(&self, position: usize) -> Result<bool, NodeError> {
        let read = self.log.read()?;
        for (origin, head) in &self.heads {
            let causes = read.cut_of(&self.schemas[position].database, *origin, head.seq)?;
            if causes.iter().any(|dot| self.heads.get(dot.actor).is_none_or(|held| held.seq < dot.counter)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What a file shows and the log does not hold (any more); `None` where the log is whole.
    pub(super) fn lost_of(&self, meta: &FileMeta) -> Option<Cut> {
        let mut shown = meta.applied.clone();
        if let Some((origin, seq)) = meta.logged {
            crdts::CmRDT::apply(&mut shown, crdts::Dot::new(origin, seq));
        }
        self.lacks_of(&shown).then_some(shown)
    }

    fn lacks_of(&self, cut: &Cut) -> bool {
        cut.iter().any(|dot| self.heads.get(dot.actor).is_none_or(|held| held.seq < dot.counter))
    }

    /// What the log had lost is back and shown: tables that had to wait for it are scanned.
    pub(super) fn scan_what_waited(&mut self, position: usize, now: Now) -> Result<(), NodeError> {
        let database = &self.databases[position];
        let back = database.lost.as_ref().is_some_and(|lost| !database.behind && !self.lacks_of(lost));
        if back {
            self.databases[position].lost = None;
            self.adopt_schema(position, now)?;
        }
        Ok(())
    }

    /// Number of events in the log.
    pub fn events_held(&self) -> u64 {
        self.heads.values().map(|head| head.seq).sum()
    }

    /// Adopts a file whose time has come. False while it, or one that refers to it, waits.
    pub(super) fn is_adopted(&mut self, position: usize, now: Now) -> Result<bool, NodeError> {
        if let Some(deadline_ms) = self.databases[position].adopt_by_ms {
            if self.takes_snapshot() {
                self.databases[position].look_again(now);
                return Ok(false);
            }
            // What its rows refer to across files comes first.
            let waits = self.parents_first().into_iter().take_while(|other| *other != position);
            let first = !waits.into_iter().any(|other| self.databases[other].adopt_by_ms.is_some());
            if !first || !self.may_adopt(position, deadline_ms, now)? {
                self.databases[position].look_again(now);
                return Ok(false);
            }
            crate::sometimes!(!self.has_caught_up(), "adopt: nobody answered in time");
            if self.is_noted(position)? {
                // The births are logged, and the app held the file when the rest was to follow: as after a crash there. To
                // compare the file again would take what the app changed meanwhile for other rows.
                crate::sometimes!("adopt: the app held up the end of it");
                self.open_again(position, now)?;
            } else {
                self.enrol(position, now)?;
                self.databases[position].adopt_by_ms = None;
            }
        }
        // Ids must not move here before those who refer to them were read by the ids of now.
        if self.is_referred_to_by_waiting(position) {
            self.databases[position].was_busy(now);
            return Ok(false);
        }
        Ok(true)
    }

    /// Whether a file that refers to this one still waits to be adopted.
    fn is_referred_to_by_waiting(&self, position: usize) -> bool {
        let name = self.schemas[position].database.as_str();
        let refers = |schema: &DatabaseSchema| {
            let mut keys = schema.tables.iter().flat_map(|table| &table.foreign_keys);
            keys.any(|key| key.database.as_deref() == Some(name))
        };
        (0..self.schemas.len()).any(|other| {
            other != position && self.databases[other].adopt_by_ms.is_some() && refers(&self.schemas[other])
        })
    }

    /// Whether the log knows rows of a database; rules alone are none.
    pub(super) fn knows_rows(&self, position: usize) -> Result<bool, NodeError> {
        let read = self.log.read()?;
        for origin in self.heads.keys() {
            let mut from = 1;
            while let Some((seq, stored)) = read.next_of_database(origin, from, &self.schemas[position].database)? {
                if decode_event(&stored.bytes)?.changes.iter().any(|change| change.row().is_some()) {
                    return Ok(true);
                }
                from = seq + 1;
            }
        }
        Ok(false)
    }
}
