//! An app's file, with and without litemesh in it, and one app that writes to it.
//!
//! Invariant: the three kinds differ in the triggers only: made by the node itself, with the same tables, rows and PRAGMAs;
//! the node does not run while the app is timed (`app_cost` says where it does). Between two stretches the outbox is
//! emptied, as a running node would have. Caller: app_cost.

use std::path::{Path, PathBuf};
use std::time::Duration;

use litemesh::node::DatabaseSettings;
use rusqlite::{Connection, TransactionBehavior};

use crate::Failure;
use crate::mesh::{STEERING_RUNS, enrol, run_alone};
use crate::sample::timed;
use crate::shape::{self, DATABASE, Ids, Shape, TABLE};

/// What is in the file beside the app's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Capture,
    Steered,
}

/// What a stretch does to rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Insert,
    Update,
    Delete,
}

impl Act {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Act::Insert => "insert",
            Act::Update => "update",
            Act::Delete => "delete",
        }
    }
}

/// A file and the app's connection to it.
pub(crate) struct Subject {
    pub(crate) path: PathBuf,
    pub(crate) app: Connection,
    shape: Shape,
    kind: Kind,
    /// Number of the next row.
    next: u64,
}

impl Subject {
    /// A new file of a kind in a folder of its own.
    pub(crate) fn new(folder: &Path, kind: Kind, shape: Shape, synchronous: &str) -> Result<Subject, Failure> {
        let home = folder.join(format!("{kind:?}"));
        let _old = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(&home)?;
        let path = home.join("scouting.db");
        shape::make(&path, &shape.schema())?;
        if kind != Kind::Plain {
            let steering_runs = if kind == Kind::Steered { STEERING_RUNS } else { 0 };
            let database =
                DatabaseSettings { name: DATABASE.into(), path: path.clone(), steering_runs, ..Default::default() };
            let mut node = enrol(&home, database)?;
            let mut now = litemesh::node::Now { mono_ms: 2_000, wall_ms: 1_748_736_002_000 };
            run_alone(&mut node, &mut now, 5_000)?;
            node.close()?;
        }
        let app = shape::open(&path, synchronous)?;
        let triggers = |like: &str| -> Result<i64, rusqlite::Error> {
            let query = "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ? AND name GLOB ?";
            app.query_row(query, (TABLE, like), |row| row.get(0))
        };
        let (all, steering) = (triggers("_litemesh_*")?, triggers("_litemesh_*_steer")?);
        if (all > 0) != (kind != Kind::Plain) || (steering > 0) != (kind == Kind::Steered) {
            return Err(format!("{all} triggers, {steering} that steer: that is no {kind:?} file").into());
        }
        Ok(Subject { path, app, shape, kind, next: 1 })
    }

    /// Rows to work on, not timed.
    pub(crate) fn fill(&mut self, rows: u64) -> Result<(), Failure> {
        shape::insert_rows(&mut self.app, self.shape, self.next..self.next + rows, Ids::Free)?;
        self.next += rows;
        Ok(())
    }

    /// Before a stretch: no marks, nothing in the WAL.
    pub(crate) fn tidy(&mut self) -> Result<(), Failure> {
        if self.kind != Kind::Plain {
            self.app.execute_batch("DELETE FROM _litemesh_outbox")?;
        }
        self.app.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }

    /// Writes `transactions` of `rows` each; how long from the first statement to the last commit.
    pub(crate) fn write(&mut self, act: Act, transactions: u64, rows: u64) -> Result<Duration, Failure> {
        self.tidy()?;
        let count = transactions * rows;
        let made: Vec<_> = (self.next..self.next + count).map(|number| self.shape.whole_row(None, number)).collect();
        self.next += count;
        let ids = self.ids(act, count)?;
        let sql = match act {
            Act::Insert => self.shape.insert(),
            Act::Update => format!("UPDATE {TABLE} SET n0 = ?2, {} = ?3 WHERE id = ?1", self.last_column()),
            Act::Delete => format!("DELETE FROM {TABLE} WHERE id = ?1"),
        };
        let (_, took) = timed(|| -> Result<(), Failure> {
            for at in 0..transactions {
                let transaction = self.app.transaction_with_behavior(TransactionBehavior::Immediate)?;
                {
                    let mut statement = transaction.prepare_cached(&sql)?;
                    for number in (at * rows) as usize..((at + 1) * rows) as usize {
                        let row = &made[number];
                        let changed = match act {
                            Act::Insert => statement.execute(rusqlite::params_from_iter(row))?,
                            Act::Update => statement.execute((ids[number], &row[1], &row[row.len() - 1]))?,
                            Act::Delete => statement.execute([ids[number]])?,
                        };
                        if changed != 1 {
                            return Err(format!("{sql}: {changed} rows changed instead of one").into());
                        }
                    }
                }
                transaction.commit()?;
            }
            Ok(())
        })?;
        Ok(took)
    }

    /// One statement over all rows.
    pub(crate) fn statement(&mut self, sql: &str, rows: u64) -> Result<Duration, Failure> {
        self.tidy()?;
        let (changed, took) = timed(|| self.app.execute(sql, []))?;
        if changed as u64 != rows {
            return Err(format!("{sql}: {changed} rows changed instead of {rows}").into());
        }
        Ok(took)
    }

    fn last_column(&self) -> String {
        self.shape.names().pop().unwrap_or_default()
    }

    fn ids(&self, act: Act, count: u64) -> Result<Vec<i64>, Failure> {
        if act == Act::Insert {
            return Ok(Vec::new());
        }
        let mut query = self.app.prepare(&format!("SELECT id FROM {TABLE} ORDER BY id LIMIT ?"))?;
        let ids: Vec<i64> = query.query_map([count as i64], |row| row.get(0))?.collect::<Result<_, _>>()?;
        if ids.len() as u64 != count {
            return Err(format!("{} rows instead of {count} to work on", ids.len()).into());
        }
        Ok(ids)
    }
}
