//! A write transaction's changes to sets of keys, laid over the committed set.
//!
//! Invariant: reads see the changes made before them; nothing reaches redb before [`KeySet::flush`], and then in
//! ascending order. Callers: [`super::write`], [`super::store`].

use std::collections::BTreeMap;

use redb::{ReadOnlyTable, ReadableTableMetadata, TableDefinition, WriteTransaction};

use super::LogError;

/// A committed set of fixed-width keys.
pub(super) type Keys<const N: usize> = ReadOnlyTable<&'static [u8; N], ()>;

/// Keys added (`true`) and removed (`false`).
#[derive(Debug, Default)]
pub(super) struct KeySet<const N: usize> {
    changes: BTreeMap<[u8; N], bool>,
}

impl<const N: usize> KeySet<N> {
    /// Whether nothing changed.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub(super) fn set(&mut self, key: [u8; N], present: bool) {
        self.changes.insert(key, present);
    }

    /// At most `limit` keys of the range (both ends included), ascending, as they are after the changes.
    pub(super) fn range(
        &self,
        base: &Keys<N>,
        from: &[u8; N],
        through: &[u8; N],
        limit: usize,
    ) -> Result<Vec<[u8; N]>, LogError> {
        let mut changes = self.changes.range(*from..=*through).peekable();
        let mut found = Vec::new();
        if base.is_empty()? {
            // A search in an empty table is not free either, and many tables of most logs are.
            found.extend(changes.filter(|(_, present)| **present).map(|(key, _)| *key).take(limit));
            return Ok(found);
        }
        for entry in base.range::<&[u8; N]>(from..=through)? {
            let stored = *entry?.0.value();
            while let Some((&key, &present)) = changes.next_if(|(key, _)| **key < stored) {
                if present {
                    found.push(key);
                }
            }
            let changed = changes.next_if(|(key, _)| **key == stored);
            if changed.is_none_or(|(_, &present)| present) {
                found.push(stored);
            }
            if found.len() >= limit {
                found.truncate(limit);
                return Ok(found);
            }
        }
        found.extend(changes.filter(|(_, present)| **present).map(|(key, _)| *key));
        found.truncate(limit);
        Ok(found)
    }

    pub(super) fn flush(
        self,
        transaction: &WriteTransaction,
        definition: TableDefinition<'_, &'static [u8; N], ()>,
    ) -> Result<(), LogError> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let mut table = transaction.open_table(definition)?;
        // What came and went within the transaction was never there.
        let was_empty = table.is_empty()?;
        for (key, present) in self.changes {
            if present {
                table.insert(&key, ())?;
            } else if !was_empty {
                table.remove(&key)?;
            }
        }
        Ok(())
    }
}
