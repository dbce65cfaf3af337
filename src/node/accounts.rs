//! Accounts whose id moved: what a browser remembers is then somebody else's id.
//!
//! A join shows such moves in its plan. Later ones are rare (two servers apart made accounts with one id), and holding them
//! back would hold back everybody's accounts, so they happen and a person is told at once, on the server that made the
//! account: its sessions hold the old id. Invariant: every such move is told once per start. Caller: the step, after an
//! apply.

use super::{Node, NodeError};
use crate::merge::store::{AuditKind, AuditRecord};
use crate::model::RowId;

/// Audit records read at once.
const PAGE: usize = 500;

/// Moves named in one alert.
const NAMED_MAX: usize = 10;

impl Node {
    /// Tells of accounts of this server that got other ids since it was asked last.
    pub(super) fn tell_moved_accounts(&mut self) -> Result<(), NodeError> {
        let mut moved: Vec<(String, String)> = Vec::new();
        loop {
            let page = self.log.read()?.audit_page(self.accounts_told, PAGE)?;
            let Some(last) = page.last() else { break };
            self.accounts_told = last.number;
            for record in &page {
                if let Some(ids) = self.moved_account(record) {
                    let name = format!("{}.{}", record.database, record.table);
                    moved.retain(|(table, earlier)| *table != name || *earlier != ids);
                    moved.push((name, ids));
                }
            }
        }
        moved.sort();
        while let Some((table, _)) = moved.first().cloned() {
            let (of_table, rest): (Vec<_>, Vec<_>) = moved.into_iter().partition(|(name, _)| *name == table);
            let named: Vec<&str> = of_table.iter().take(NAMED_MAX).map(|(_, ids)| ids.as_str()).collect();
            self.alert(format!(
                "{} accounts of {table} that were made on this server have other ids now ({}): a browser that is logged in \
                 here holds the old id, which is somebody else's: rotate the app's SECRET_KEY, or delete its sessions",
                of_table.len(),
                named.join(", ")
            ));
            moved = rest;
        }
        Ok(())
    }

    /// `from -> to`, where the record tells that an account made here moved.
    fn moved_account(&self, record: &AuditRecord) -> Option<String> {
        let AuditKind::IdMoved { from, to, .. } = &record.kind else { return None };
        let RowId::Born(birth) = &record.row else { return None };
        let schema = self.schemas.iter().find(|schema| schema.database == record.database)?;
        let accounts = schema.table(&record.table)?.holds_accounts();
        (accounts && self.is_own(&birth.origin)).then(|| format!("{from} -> {to}"))
    }
}
