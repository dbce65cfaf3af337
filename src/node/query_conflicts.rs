//! What lost, in words: the audit as people read it.
//!
//! Invariant: every kind of audit record has its sentence and names what can be done; nothing here changes anything.
//! Callers: http, cli (through `query_rows`).

use super::query::{cell_text, rfc3339};
use super::view::{AuthoredView, ConflictView};
use super::{Node, NodeError};
use crate::log::LogRead;
use crate::merge::store::{AuditKind, AuditRecord, CellVersion};
use crate::model::{Cell, RowId};

impl Node {
    /// Audit records numbered above `after`, at most `limit`.
    pub fn conflicts(&self, after: u64, limit: usize) -> Result<Vec<ConflictView>, NodeError> {
        let read = self.log.read()?;
        read.audit_page(after, limit)?.iter().map(|record| self.conflict_view(&read, record)).collect()
    }

    /// One audit record.
    pub fn conflict(&self, number: u64) -> Result<Option<ConflictView>, NodeError> {
        let read = self.log.read()?;
        read.audit(number)?.map(|record| self.conflict_view(&read, &record)).transpose()
    }

    pub(super) fn conflict_view(&self, read: &LogRead, record: &AuditRecord) -> Result<ConflictView, NodeError> {
        let mut view = ConflictView {
            number: record.number,
            database: record.database.clone(),
            table: record.table.clone(),
            row: record.row.to_string(),
            id: self.shown_id(read, &record.row)?,
            seen: rfc3339(record.seen_ms),
            ..ConflictView::default()
        };
        match &record.kind {
            AuditKind::IdMoved { .. }
            | AuditKind::Merged { .. }
            | AuditKind::Parted { .. }
            | AuditKind::Suspect { .. } => self.tell_rows(read, record, &mut view)?,
            AuditKind::Cell { column, winner, loser } => {
                view.kind = "cell".to_string();
                view.column = column.clone();
                view.winner = self.authored(winner);
                view.loser = self.authored(loser);
                view.now = written_since(read, record, column, winner)?;
                view.reason = "both were written without knowing the other; the later stamp is shown".to_string();
            }
            AuditKind::DeleteLost { delete, stamp } => {
                view.kind = "delete".to_string();
                view.loser = AuthoredView {
                    value: "deleted".to_string(),
                    node: self.author(&delete.origin),
                    time: rfc3339(stamp.wall_ms()),
                };
                view.reason = "somebody changed the row without knowing of its delete: it lives on".to_string();
            }
            AuditKind::WriteLost { write, delete, stamp } => {
                view.kind = "write".to_string();
                view.winner = AuthoredView {
                    value: "deleted".to_string(),
                    node: self.author(&delete.origin),
                    time: rfc3339(stamp.wall_ms()),
                };
                view.loser.value = "changed".to_string();
                view.loser.node = self.author(&write.origin);
                view.reason =
                    "somebody changed the row without knowing of its delete; in this table a delete wins: `litemesh \
                     conflicts restore` brings it back"
                        .to_string();
            }
            AuditKind::RingCut { column, loser } => {
                view.kind = "ring".to_string();
                view.column = column.clone();
                view.loser = self.authored(loser);
                view.reason = "rows would have been each other's parents: the youngest reference of the ring is not \
                               shown; give the row another parent"
                    .to_string();
            }
        }
        Ok(view)
    }

    /// What became of whole rows: moved, merged, split, or perhaps written by mistake.
    fn tell_rows(&self, read: &LogRead, record: &AuditRecord, view: &mut ConflictView) -> Result<(), NodeError> {
        match &record.kind {
            AuditKind::IdMoved { from, to, holder } => {
                view.kind = "id".to_string();
                view.winner.value = format!("{from} belongs to {holder}");
                view.winner.node = self.birthplace(holder);
                view.loser.value = format!("{from} became {to}");
                view.loser.node = self.birthplace(&record.row);
                view.reason = "two rows were born with one id; the senior one keeps it, references follow".to_string();
            }
            AuditKind::Merged { into, lost } => {
                view.kind = "merge".to_string();
                view.column = lost.iter().map(|(column, _)| column.as_str()).collect::<Vec<_>>().join(", ");
                view.winner.value = format!("one row with {into}");
                view.winner.node = self.birthplace(into);
                let lost = lost.iter().map(|(column, version)| format!("{column} {}", cell_text(&version.cell)));
                view.loser.value = lost.collect::<Vec<_>>().join(", ");
                view.loser.node = self.birthplace(&record.row);
                view.reason = "two rows with one key, or that a person said are the same, became one".to_string();
            }
            AuditKind::Suspect { id, meant, before, after } => {
                let cells = |cells: &[(String, Cell)]| -> String {
                    let text = cells.iter().map(|(column, cell)| format!("{column} {}", cell_text(cell)));
                    text.collect::<Vec<_>>().join(", ")
                };
                view.kind = "suspect".to_string();
                view.column = before.iter().map(|(column, _)| column.as_str()).collect::<Vec<_>>().join(", ");
                view.winner.value = if after.is_empty() { "deleted".to_string() } else { cells(after) };
                view.winner.node = self.settings.name.clone();
                view.loser.value = cells(before);
                view.loser.node = self.birthplace(&record.row);
                view.reason = format!(
                    "id {id} belonged to {} ({meant}) until shortly before: the app may have meant that row",
                    self.shown_id(read, meant)?
                );
            }
            AuditKind::Parted { from } => {
                view.kind = "split".to_string();
                view.winner.value = format!("no more one row with {from}");
                view.winner.node = self.birthplace(from);
                view.reason = "a person split them, or their key was changed before the merge was known".to_string();
            }
            _ => {}
        }
        Ok(())
    }

    /// Name of the node a row was born on.
    fn birthplace(&self, row: &RowId) -> String {
        match row {
            RowId::Born(birth) => self.author(&birth.origin),
            RowId::Genesis(_) => "genesis".to_string(),
            RowId::Keyed(_) => String::new(),
        }
    }

    fn authored(&self, version: &CellVersion) -> AuthoredView {
        AuthoredView {
            value: cell_text(&version.cell),
            node: self.author(&version.dot.origin),
            time: rfc3339(version.stamp.wall_ms()),
        }
    }
}

/// What a cell shows that somebody wrote after it was fought for; empty while what won then is still there.
fn written_since(
    read: &LogRead,
    record: &AuditRecord,
    column: &str,
    winner: &CellVersion,
) -> Result<String, NodeError> {
    let Some(row) = read.row(&record.row)? else { return Ok(String::new()) };
    let row = match row.members().first() {
        Some(canonical) if *canonical != record.row => read.row(canonical)?.unwrap_or(row),
        _ => row,
    };
    let columns = read.columns(row.table)?;
    let state = row.cells.iter().find(|state| columns.get(state.column as usize).is_some_and(|name| name == column));
    Ok(state.filter(|state| state.dot != winner.dot).map(|state| cell_text(&state.cell)).unwrap_or_default())
}
