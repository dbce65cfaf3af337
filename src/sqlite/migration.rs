//! Triggers out of the way of a migration of the app.
//!
//! A trigger of ours can make a migration fail: steering names NOT NULL columns (no `DROP COLUMN`), and SQLite checks every
//! trigger when a table is renamed.
//! Invariant: laying down is one transaction; a table without its triggers is scanned when they come back
//! ([`AppFile::refresh_schema`], [`AppFile::enroll`]), whoever puts them back and whenever. Caller: node.

use rusqlite::TransactionBehavior;

use super::quote::quote;
use super::{AppFile, SqliteError, install, steering};

impl AppFile {
    /// Takes every trigger of litemesh away until the next [`AppFile::refresh_schema`]. Marks stay.
    pub fn lay_down_triggers(&mut self) -> Result<(), SqliteError> {
        self.connection.flush_prepared_statement_cache();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if !install::is_enrolled(&transaction)? {
            return Err(SqliteError::NotEnrolled);
        }
        steering::create(&transaction)?;
        steering::disarm(&transaction)?;
        for name in install::present_triggers(&transaction)?.keys() {
            transaction.execute_batch(&format!("DROP TRIGGER main.{}", quote(name)))?;
        }
        transaction.commit()?;
        (self.installed, self.steered) = (false, None);
        Ok(())
    }

    /// Whether all triggers stand, and every table was scanned that had lost them.
    pub fn is_guarded(&self) -> bool {
        self.installed && !self.steering_pending() && self.tables_to_scan().is_empty()
    }
}
