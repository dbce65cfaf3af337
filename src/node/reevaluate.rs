//! Rows that differ from another member's are evaluated again.
//!
//! Both sides hold the same events, so one of them shows what its log does not say. Each looks at its own: the row is
//! presented anew from what was evaluated (a write that was never made is made), in pages; sums that are kept wrong are
//! built anew from their rows. Then the peer is told, and both compare again.
//! Invariant: only what the log says is ever shown; a page is one transaction. Durable: nothing (the next comparison finds
//! the rest). Callers: [`super::compare`]; rows that SQLite refused are tried again by it too ([`super::rescan`]).

use super::{Node, NodeError, Now, standing};
use crate::merge::Evaluator;
use crate::model::RowId;

/// Rows evaluated in one step.
const ROWS_PER_STEP: usize = 100;

impl Node {
    /// The next page, if there is one.
    pub(super) fn reevaluate_step(&mut self, now: Now) -> Result<(), NodeError> {
        if let Some(table) = self.compare.sums.pop_front() {
            let (_, wrong) = self.log.read()?.check_prints(table)?;
            if wrong > 0 {
                let mut write = self.log.write()?;
                write.rebuild_prints(table)?;
                write.commit_durable()?;
                self.relaxed = false;
                let (database, name) = self.log.read()?.table_name(table)?;
                self.alert(format!(
                    "{wrong} sums over rows of {database}.{name} were kept wrong; they were built anew from the rows"
                ));
            }
        }
        if !self.compare.rows.is_empty() {
            let most = ROWS_PER_STEP.min(self.compare.rows.len());
            let page: Vec<RowId> = self.compare.rows.drain(..most).collect();
            self.reevaluate(page, now)?;
        } else if self.compare.sums.is_empty() && self.applied_all() && !self.compare.told.is_empty() {
            self.refresh_content()?;
            for peer in std::mem::take(&mut self.compare.told) {
                let standing = standing(&self.log, &self.heads, &self.membership, &self.settings, &self.databases, now);
                let effects = self.exchange.greet(Some(peer), &standing);
                self.effects.extend(effects);
            }
        }
        Ok(())
    }

    /// Presents rows anew; the next apply writes those that are to be shown otherwise.
    pub(super) fn reevaluate(&mut self, rows: Vec<RowId>, now: Now) -> Result<(), NodeError> {
        let mut write = self.log.write()?;
        let mut evaluator = Evaluator::new(&mut write, &self.ranks, &self.schemas, now.wall_ms);
        evaluator.touch_again(rows)?;
        evaluator.settle()?;
        evaluator.finish()?;
        write.commit_relaxed()?;
        self.relaxed = true;
        for database in &mut self.databases {
            database.behind = true;
        }
        Ok(())
    }
}
