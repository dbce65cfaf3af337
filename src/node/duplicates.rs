//! Duplicates: different rows that look like one, for a person to judge.
//!
//! Rows that met under one id or one UNIQUE key and share at least half of their cells, with the command that joins them.
//! Content alone makes no pair: two equal votes are two votes. Invariant: reads only; a pair that somebody split is not
//! proposed again. Callers: http; the plan of a join shows the same pairs before they are two.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::likeness::{label, nearly_equal};
use super::meeting_view::{NearView, RowView};
use super::query::key_text;
use super::rehearsal::near_view;
use super::{Node, NodeError};
use crate::log::LogWrite;
use crate::merge::Evaluator;
use crate::merge::store::{AuditKind, Row, Shelved};
use crate::model::{DatabaseSchema, RowId, TableSchema};
use crate::sqlite::Image;

/// Audit records read at once.
const PAGE: usize = 1_000;

/// A row of a pair.
struct Side<'s> {
    database: &'s DatabaseSchema,
    table: &'s TableSchema,
    record: Arc<Row>,
    image: Image,
}

impl Node {
    /// At most `limit` pairs, in the order in which they met.
    pub fn duplicates(&self, limit: usize) -> Result<Vec<NearView>, NodeError> {
        let mut pairs: Vec<(RowId, RowId, &str)> = Vec::new();
        let read = self.log.read()?;
        let mut after = 0;
        loop {
            let page = read.audit_page(after, PAGE)?;
            let Some(last) = page.last() else { break };
            after = last.number;
            for record in &page {
                if let AuditKind::IdMoved { holder, .. } = &record.kind {
                    pairs.push((*holder, record.row, "the same id"));
                }
            }
        }
        for row in read.shelf()? {
            if let Some(Shelved::Unique { holder, .. }) = read.row(&row)?.and_then(|record| record.shelved) {
                pairs.push((holder, row, "the same UNIQUE key"));
            }
        }
        let mut write = self.log.write()?;
        let mut evaluator = Evaluator::new(&mut write, &self.ranks, &self.schemas, 0);
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for (one, other, reason) in pairs {
            let (one, other) = (evaluator.canonical(&one)?, evaluator.canonical(&other)?);
            if found.len() == limit {
                break;
            }
            if one != other && seen.insert((one.min(other), one.max(other))) {
                found.extend(self.pair(&mut evaluator, (&one, &other), reason)?);
            }
        }
        Ok(found)
    }

    fn pair(
        &self,
        evaluator: &mut Evaluator<'_, LogWrite>,
        (one, other): (&RowId, &RowId),
        reason: &str,
    ) -> Result<Option<NearView>, NodeError> {
        let (Some(left), Some(right)) = (self.side(evaluator, one)?, self.side(evaluator, other)?) else {
            return Ok(None);
        };
        if evaluator.barred(one, other)? {
            return Ok(None);
        }
        let Some(cells) = nearly_equal(&left.record, &right.record) else { return Ok(None) };
        let pair = (left.view(one), right.view(other));
        Ok(Some(near_view(&left.database.database, &left.table.name, pair, cells, reason)))
    }

    /// A row that lives, with what it shows or would show.
    fn side(&self, evaluator: &mut Evaluator<'_, LogWrite>, row: &RowId) -> Result<Option<Side<'_>>, NodeError> {
        let Some(record) = evaluator.view(row)?.filter(|record| record.alive) else { return Ok(None) };
        let (database, table) = crate::merge::store::Store::table_name(evaluator.store(), record.table)?;
        let Some(database) = self.schemas.iter().find(|schema| schema.database == database) else { return Ok(None) };
        // Two accounts are joined by somebody who knows both, never because they look alike.
        let Some(table) = database.table(&table).filter(|table| !table.holds_accounts()) else { return Ok(None) };
        let image = evaluator.image(&record, table)?;
        Ok(Some(Side { database, table, record, image }))
    }
}

impl Side<'_> {
    /// A row that is not shown is named by its identity, as other commands print it.
    fn view(&self, row: &RowId) -> RowView {
        let id = self.record.shown.as_deref().map_or_else(|| row.to_string(), key_text);
        RowView { label: label(self.table, &self.image), id: id.clone(), id_after: id }
    }
}
