//! Rows that are evaluated further than they are written: what the file shows of them meanwhile.
//!
//! A file that was adopted shows its old rows until the first apply; rows that became one stand there apart until a quiet
//! moment. The app goes on writing to what it sees, so its writes are differences to that, not to what the log evaluates:
//! else an update of one column would carry the old values of all others with it, and a counter would be set back.
//! Invariants: what is noted of a row has the hash of what the file shows; it goes with the next writing of the row. A row is
//! shown under one key, and every key of the file belongs to one row. Callers: whatever evaluates without writing (`step`,
//! `adopt`, `decide`, `recover`, `rescan`).

use std::collections::BTreeMap;

use super::NodeError;
use crate::log::LogWrite;
use crate::merge::Evaluator;
use crate::merge::image::Shown;
use crate::merge::store::Store;
use crate::model::RowId;
use crate::sqlite::{AppFile, Image};

/// What the file shows of a row.
pub(super) type Seen = (RowId, Option<Shown>);

/// Takes over what the file shows: first the rows that leave their keys, then those that have them now. Of rows that are
/// one, the first stands for the class where the file does not show the canonical one itself; the others are shown apart.
pub(super) fn take_over<S: Store>(evaluator: &mut Evaluator<'_, S>, observed: &[Seen]) -> Result<(), S::Error> {
    for (row, _) in observed {
        evaluator.mark_shown(row, None)?;
    }
    let mut others = Vec::new();
    for (row, shown) in observed.iter().filter(|(_, shown)| shown.is_some()) {
        let canonical = evaluator.canonical(row)?;
        if canonical == *row {
            evaluator.mark_shown(row, shown.as_ref())?;
        } else {
            others.push((row, canonical, shown));
        }
    }
    for (row, canonical, shown) in others {
        let key = shown.as_ref().map(|(key, _)| key);
        let stands = evaluator.row(&canonical)?.and_then(|record| record.shown.as_ref());
        let taken = stands.is_some_and(|stands| Some(stands) != key);
        evaluator.mark_shown(if taken { row } else { &canonical }, shown.as_ref())?;
    }
    Ok(())
}

/// Notes what the file shows of the rows of a database that are still to be written. `seen`: what was read of it just now.
pub(super) fn note_lag(
    evaluator: &mut Evaluator<'_, LogWrite>,
    database: &str,
    file: &AppFile,
    seen: &[Seen],
) -> Result<(), NodeError> {
    let mut images: BTreeMap<RowId, &Image> = BTreeMap::new();
    for (row, shown) in seen {
        if let Some((_, image)) = shown {
            images.insert(*row, image);
            images.entry(evaluator.canonical(row)?).or_insert(image);
        }
    }
    for row in evaluator.store().dirty(database)? {
        let Some(record) = evaluator.row(&row)?.filter(|record| record.lag.is_none()) else { continue };
        let (Some(key), table) = (record.shown.clone(), record.table) else { continue };
        if let Some(image) = images.get(&row)
            && evaluator.note_lag(&row, image)?
        {
            continue;
        }
        let (_, table) = evaluator.store().table_name(table)?;
        if file.schema().table(&table).is_some()
            && let Some(Some(image)) = file.read_rows(&table, &[key])?.pop()
        {
            // The app may have written since; then its mark tells.
            evaluator.note_lag(&row, &image)?;
        }
    }
    Ok(())
}
