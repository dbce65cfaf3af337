//! What the events of an undo or a restore say of themselves: which changes they take back, who ordered it, when and why.
//!
//! The note is one line for people that begins with a part for nodes:
//! `undo ORIGIN:FROM-TO[,…][:INDEX][ in DB[.TABLE]]; …` or `restore to MS[ in DB[.TABLE]]; …`. Invariants: it decides
//! nothing of the merge; equal notes are one order; a note that does not parse is an ordinary remark. Callers:
//! [`super::undo`] (writes), [`super::undo_select`] (reads: a counter's step that was taken back is not subtracted twice),
//! history.

use std::collections::BTreeMap;

use super::NodeError;
use super::query::rfc3339;
use super::undo::Order;
use crate::model::{Dot, Event, OriginId, Stamp};
use crate::wire::limits::EVENT_NOTE_BYTES_MAX;

/// Bytes of a person's reason, and of the person's name.
const REASON_BYTES_MAX: usize = 400;

/// Which changes an order takes back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Covers {
    /// Spans of sequence numbers, both ends included.
    pub(super) spans: BTreeMap<OriginId, Vec<(u64, u64)>>,
    /// Only the change at this position.
    pub(super) index: Option<u32>,
    /// Everything later than this, instead of spans.
    pub(super) since_ms: Option<u64>,
    /// Only in this database.
    pub(super) database: Option<String>,
    /// Only in this table.
    pub(super) table: Option<String>,
}

impl Covers {
    /// Whether an event's change is meant.
    pub(super) fn meant(&self, event: &Event, index: u32, table: &str) -> bool {
        self.database.as_ref().is_none_or(|wanted| *wanted == event.header.database)
            && self.table.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(table))
            && self.place_meant(&event.dot(index), event.header.stamp)
    }

    /// The same for a change of the right database and table: its place, and its event's stamp.
    pub(super) fn place_meant(&self, dot: &Dot, stamp: Stamp) -> bool {
        let spans = self.spans.get(&dot.origin).into_iter().flatten();
        let in_span = spans.clone().any(|(from, to)| (*from..=*to).contains(&dot.seq));
        let since = self.since_ms.is_some_and(|ms| stamp >= Stamp::from_wall_ms(ms.saturating_add(1)));
        (in_span || since) && self.index.is_none_or(|wanted| wanted == dot.index)
    }

    /// `scouting.team`, `scouting`, or nothing.
    pub(super) fn place(&self) -> String {
        [self.database.as_deref(), self.table.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(".")
    }

    /// The line for an order. An error where it is too long to be said.
    pub(super) fn note(&self, words: &str, order: &Order, node: &str, wall_ms: u64) -> Result<String, NodeError> {
        if order.reason.len() > REASON_BYTES_MAX || order.by.len() > REASON_BYTES_MAX {
            return Err(NodeError::Invalid(format!("the reason is longer than {REASON_BYTES_MAX} bytes: shorten it")));
        }
        let verb = match self.since_ms {
            Some(ms) => format!("restore to {ms}"),
            None => {
                let spans = self.spans.iter().flat_map(|(origin, spans)| spans.iter().map(move |span| (origin, span)));
                let said: Vec<String> = spans.map(|(origin, (from, to))| format!("{origin}:{from}-{to}")).collect();
                let index = self.index.map(|index| format!(":{index}")).unwrap_or_default();
                format!("undo {}{index}", said.join(","))
            }
        };
        // Database and table always stand together or not: a table alone means that of every database.
        let place = match (&self.database, &self.table) {
            (None, None) => String::new(),
            (database, table) => {
                let (database, table) = (database.as_deref().unwrap_or("*"), table.as_deref().unwrap_or("*"));
                format!(" in {database}.{table}")
            }
        };
        let by = if order.by.is_empty() { String::new() } else { format!(" by {}", one_line(&order.by)) };
        let reason = if order.reason.is_empty() { String::new() } else { format!(": {}", one_line(&order.reason)) };
        let note = format!("{verb}{place}; {words}, ordered{by} on {node} at {}{reason}", rfc3339(wall_ms));
        if note.len() > EVENT_NOTE_BYTES_MAX {
            return Err(NodeError::Invalid(
                "this is made of too many separate events to be undone at once: undo it in several spans of time"
                    .to_string(),
            ));
        }
        Ok(note)
    }

    /// What the events with this note take back.
    pub(super) fn of_note(note: &str) -> Option<Covers> {
        let (said, _) = note.split_once(';')?;
        let (said, place) = said.split_once(" in ").map_or((said, None), |(said, place)| (said, Some(place)));
        let mut covers = Covers::default();
        if let Some((database, table)) = place.and_then(|place| place.split_once('.')) {
            covers.database = (database != "*").then(|| database.to_string());
            covers.table = (table != "*").then(|| table.to_string());
        }
        if let Some(ms) = said.strip_prefix("restore to ") {
            covers.since_ms = Some(ms.parse().ok()?);
            return Some(covers);
        }
        let mut parts = said.strip_prefix("undo ")?.split(',').peekable();
        while let Some(part) = parts.next() {
            let mut fields = part.split(':');
            let (origin, span) = (fields.next()?, fields.next()?);
            let (from, to) = span.split_once('-')?;
            let bytes = data_encoding::HEXLOWER.decode(origin.as_bytes()).ok()?;
            let span = (from.parse().ok()?, to.parse().ok()?);
            covers.spans.entry(OriginId(bytes.try_into().ok()?)).or_default().push(span);
            if let (Some(index), None) = (fields.next(), parts.peek()) {
                covers.index = Some(index.parse().ok()?);
            }
        }
        Some(covers)
    }
}

/// The words of a note that are for people.
pub(super) fn words(note: &str) -> &str {
    note.split_once("; ").map_or(note, |(_, words)| words)
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_what_it_takes_back() {
        let spans = BTreeMap::from([(OriginId([7; 16]), vec![(3, 9), (12, 12)]), (OriginId([9; 16]), vec![(1, 1)])]);
        let cases = [
            Covers { spans: spans.clone(), ..Covers::default() },
            Covers { spans: spans.clone(), database: Some("app".into()), ..Covers::default() },
            Covers { spans: spans.clone(), table: Some("note".into()), ..Covers::default() },
            Covers { spans: [(OriginId([1; 16]), vec![(4, 4)])].into(), index: Some(2), ..Covers::default() },
            Covers { since_ms: Some(5), database: Some("a".into()), table: Some("b".into()), ..Covers::default() },
        ];
        let order = Order { by: "chris".into(), reason: "garbage; see\nlist, 10:00".into(), force: false };
        for covers in cases {
            let note = covers.note("what tablet wrote", &order, "pit", 0).unwrap();
            assert_eq!(Covers::of_note(&note), Some(covers), "{note}");
            assert!(words(&note).starts_with("what tablet wrote, ordered by chris on pit at 1970"), "{note}");
            assert!(!note.contains('\n'));
        }
        for nothing in ["", "undo", "undo x; y", "undone; by hand", "restore to noon; x"] {
            assert_eq!(Covers::of_note(nothing), None, "{nothing}");
        }
    }
}
