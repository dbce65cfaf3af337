//! Taking back: changes undone, and whole databases rolled back to a time, as ordinary events.
//!
//! **What undo means.** Of the selected changes U, the tables shall show of the rows that U touched what they would show
//! had U never been made: F(all events without U), by the very merge that shows everything else. What others wrote since
//! is not theirs to lose, so it stays, and is said:
//! - *update*: a cell is set back to the strongest value that is not of U, where its winner is of U. Where somebody wrote
//!   it since ("changed again by B at 10:31"), it is kept; `--force` sets it to the value that U had replaced.
//! - *insert*: the row is deleted, unless somebody touched it since (`--force` deletes it all the same) or a row that is
//!   not deleted with it refers to it (never forced: the reference keeps it alive anyway).
//! - *delete*: the row comes back, the same row with its values, unless somebody else deleted it too. A row it needs that
//!   somebody deleted since would come back with it: then it is kept (`--force`: both come back).
//! - *change of id*: the row gets its id back, where that is free.
//! - *merge, split*: a person's merge is split, a split merged. Merges that a node found by itself (one UNIQUE value) are
//!   no writes of anybody: only naming the very change undoes one.
//! - *counter*: U's steps are subtracted, whoever counted since. *set*: what U added and took away. *max*, *min*: a greatest
//!   value stays the greatest whatever is written later, so it is kept, and said. *Rules* of tables are set, not undone.
//!
//! **What restore means.** The same, with F(all events up to a time) as what shall be shown, of every row that changed since,
//! and without asking who wrote since. Nothing leaves the log: `restore --as-of` a later time brings it forward again. Ids
//! that had to move since (two rows claimed one) and rows that were found to be one stay so; the time is an event's stamp.
//!
//! **How.** The plan is made beside the node, from a snapshot of its log ([`super::undo_plan`]), and names of every cell
//! the write that it expects to win. The node takes it page by page ([`super::undo_do`]): it checks each step against what
//! holds by then, and the same check makes the preview. A page is one set of events, shown together or not at all, durable
//! when the call returns; their stamps exceed what they replace, so they win everywhere under any clock. A larger undo takes
//! several pages: if the node dies between two, what is left is undone by asking again, because a change whose value does
//! not show any more is "already" undone. All of an order's events carry one note (what, who, when, why), which `history`
//! and `log` print and by which the undo of one of them takes all back.
//!
//! Invariants: cells that U did not write are never written; equal orders in a row do nothing the second time; undoing the
//! undo shows what was shown before (but where `--force` or a later write came between). Callers: http.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::query::rfc3339;
use super::rebuild::Replay;
use super::travel::World;
use super::travel_view::TakeBackView;
use super::undo_note::Covers;
use super::undo_plan::{DatabasePlan, Planner, Policy};
use super::undo_select::{Undone, Worlds};
use super::{Node, NodeError, Now};
use crate::merge::store::Store;
use crate::model::Role;

pub use super::undo_do::Page;

/// Which changes shall be undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// A change or a whole event, as `log` and `history` print it: `ORIGIN:SEQ` or `ORIGIN:SEQ:INDEX`; of the origin the
    /// first 8 characters do.
    Change(String),
    /// What one node wrote in a span of time.
    Node {
        /// Its name.
        name: String,
        /// From this time on, ms since 1970.
        from_ms: u64,
        /// Through this time, ms since 1970.
        to_ms: u64,
        /// Only in this database.
        database: Option<String>,
        /// Only in this table.
        table: Option<String>,
    },
}

/// Who asks, and why: for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// The person, as far as known.
    pub by: String,
    /// Why, in the person's words.
    pub reason: String,
    /// Also what others changed since.
    pub force: bool,
}

/// What is to be taken back, step by step.
pub struct Plan {
    pub(super) databases: Vec<DatabasePlan>,
    /// What is said in every event.
    pub(super) note: String,
    /// What was asked for, counted; lists are filled page by page.
    pub view: TakeBackView,
}

impl Plan {
    /// Where the first page begins.
    pub fn start(&self) -> Page {
        Page::default()
    }
}

impl Node {
    /// Refuses what this node may not take back: a read-only member's events would stay with it.
    pub fn may_take_back(&self) -> Result<(), NodeError> {
        match self.membership.role(&self.id()) {
            Some(Role::ReadOnly) => Err(NodeError::NotEntitled(
                "this server is a read-only member: what it undoes would stay here; ask on another server".to_string(),
            )),
            _ => Ok(()),
        }
    }
}

impl Replay {
    /// Plans the undo of changes. Reads the log; changes nothing.
    pub fn plan_undo(&self, selection: &Selection, order: &Order, now: Now) -> Result<Plan, NodeError> {
        let undone = Undone::find(self, selection)?;
        let note = undone.covers.note(&format!("undo of {}", undone.words), order, &self.own_name(), now.wall_ms)?;
        let mut view = TakeBackView { what: undone.words.clone(), selected: undone.changes, ..Default::default() };
        view.remarks = undone.remarks.clone();
        let mut databases = Vec::new();
        for position in 0..self.databases.len() {
            let rows = undone.rows_of(position);
            if rows.is_empty() {
                continue;
            }
            let mut worlds = undone.worlds(self, position)?;
            let policy = Policy { force: order.force, merges: undone.merges, undone: Some(&undone) };
            let (mut now, mut wanted) = (std::mem::take(&mut worlds.now), std::mem::take(&mut worlds.wanted));
            let (mut now, mut wanted) = (self.evaluator(&mut now), self.evaluator(&mut wanted));
            let mut planner = Planner::new(self, position, policy, &worlds);
            planner.plan(&mut now, &mut wanted, rows);
            databases.push(planner.finish(&mut view));
        }
        Ok(Plan { databases, note, view })
    }

    /// Plans the roll-back of databases to a time (ms since 1970, included).
    pub fn plan_restore(
        &self,
        as_of_ms: u64,
        (database, table): (Option<&str>, Option<&str>),
        order: &Order,
        now: Now,
    ) -> Result<Plan, NodeError> {
        self.check_names(database, table)?;
        if as_of_ms > now.wall_ms {
            return Err(NodeError::Invalid(format!("{} is not over yet: name a time that is", rfc3339(as_of_ms))));
        }
        let of = match (database, table) {
            (Some(database), Some(table)) => format!("{database}.{table}"),
            (Some(one), None) | (None, Some(one)) => one.to_string(),
            (None, None) => "all databases".to_string(),
        };
        let what = format!("{of} as of {}", rfc3339(as_of_ms));
        let (database_name, table_name) = (database.map(str::to_string), table.map(str::to_string));
        let covers =
            Covers { since_ms: Some(as_of_ms), database: database_name, table: table_name, ..Covers::default() };
        let note = covers.note(&format!("restore of {what}"), order, &self.own_name(), now.wall_ms)?;
        let mut world = World::before_all(self);
        world.advance(self, &self.cuts(Some(as_of_ms))?, &mut |_| {})?;
        world.store.forget_dirty();
        let mut then = world.clone();
        world.advance(self, &self.now(), &mut |_| {})?;
        let mut view = TakeBackView { what, ..Default::default() };
        let mut databases = Vec::new();
        for (position, schema) in self.schemas.iter().enumerate() {
            if database.is_some_and(|name| name != schema.database) {
                continue;
            }
            let Ok(dirty) = world.store.dirty(&schema.database);
            let mut rows = BTreeSet::new();
            for row in dirty {
                let Ok(Some(record)) = world.store.row(&row) else { continue };
                let Ok((_, name)) = world.store.table_name(record.table);
                if table.is_none_or(|table| name.eq_ignore_ascii_case(table)) {
                    rows.insert(row);
                }
            }
            let (mut now, mut wanted) = (self.evaluator(&mut world.store), self.evaluator(&mut then.store));
            let nothing = Worlds::default();
            let policy = Policy { force: true, merges: false, undone: None };
            let mut planner = Planner::new(self, position, policy, &nothing);
            planner.plan(&mut now, &mut wanted, &rows);
            databases.push(planner.finish(&mut view));
        }
        Ok(Plan { databases, note, view })
    }

    fn own_name(&self) -> String {
        self.membership.member(&self.own).map_or_else(|| self.own.to_string(), |member| member.name.clone())
    }
}

/// A plan that several threads look at.
pub type SharedPlan = Arc<Plan>;

#[cfg(test)]
#[path = "undo_tests.rs"]
mod tests;
