//! Planted bugs: lies told to the real evaluator, so that it behaves as if it had one of five classical defects.
//!
//! Product code carries no switch for this. Each must be found within a minute; `histories --plant all` is the drill.
//! Callers: the history, `main`.

use crate::reference::Fact;
use crate::scene::Scene;
use litemesh::merge::memory::MemoryStore;
use litemesh::merge::rank::Ranks;
use litemesh::merge::store::Store;
use litemesh::model::{Change, Cut, Event, OriginId, RowId, Stamp};

/// One planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// A merge stands although somebody renamed one of its rows meanwhile.
    NoVoid,
    /// A delete covers updates that its author had not seen.
    GreedyDelete,
    /// Ids go to whom the clock says came first... here: to the node that joined last.
    RankReversed,
    /// The value that arrives last wins.
    ArrivalOrder,
    /// An id that is used again is contested as if nobody had deleted its holder.
    NoAfter,
}

impl Plant {
    /// All of them.
    pub const ALL: [Plant; 5] =
        [Plant::NoVoid, Plant::GreedyDelete, Plant::RankReversed, Plant::ArrivalOrder, Plant::NoAfter];

    /// What the command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Plant::NoVoid => "no-void",
            Plant::GreedyDelete => "greedy-delete",
            Plant::RankReversed => "rank-reversed",
            Plant::ArrivalOrder => "arrival-order",
            Plant::NoAfter => "no-after",
        }
    }

    /// The event and its cut as the evaluator gets them. `arrived`: how much it knows already.
    pub fn lie(self, scene: &Scene, fact: &Fact, arrived: u64) -> (Event, Cut) {
        let (mut event, mut cut) = (fact.event.clone(), fact.cut.clone());
        for change in &mut event.changes {
            match (self, change) {
                (Plant::NoVoid, Change::Merge { columns, .. }) => columns.clear(),
                (Plant::GreedyDelete, Change::Delete { .. }) => {
                    cut.dots.extend(scene.ids.iter().map(|origin| (*origin, u64::MAX)));
                }
                (Plant::ArrivalOrder, Change::Update { cells, .. }) => {
                    for cell in cells {
                        cell.2 = Stamp(arrived);
                    }
                }
                (Plant::NoAfter, Change::Insert { after, .. } | Change::Claim { after, .. }) => *after = None,
                _ => {}
            }
        }
        (event, cut)
    }

    /// The ranks as the evaluator gets them, where they are a lie.
    pub fn ranks(self, scene: &Scene) -> Option<Ranks> {
        if self != Plant::RankReversed {
            return None;
        }
        let mut ranks = Ranks::default();
        for (node, id) in scene.ids.iter().enumerate() {
            ranks.set(*id, (scene.ids.len() - node) as u32, node as u32 + 1);
        }
        Some(ranks)
    }
}

/// What a store must give for events to be fed into it.
pub trait Planted: Store<Error = std::convert::Infallible> {
    /// All rows known.
    fn rows(&self) -> &std::collections::BTreeMap<RowId, litemesh::merge::store::Row>;
    /// Notes a cut.
    fn put_cut(&mut self, database: &str, origin: OriginId, seq: u64, cut: Cut);
}

impl Planted for MemoryStore {
    fn rows(&self) -> &std::collections::BTreeMap<RowId, litemesh::merge::store::Row> {
        MemoryStore::rows(self)
    }

    fn put_cut(&mut self, database: &str, origin: OriginId, seq: u64, cut: Cut) {
        MemoryStore::put_cut(self, database, origin, seq, cut);
    }
}
