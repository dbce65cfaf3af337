//! `GET /api/sync/sqlite3/optimized-changes`: what a server of the older protocol fetches.
//!
//! Every change is the whole row as it stands now, or a delete; a row is on a page once. The time of the last change is the
//! cursor for the next page ([`crate::monitor::feed`]). What the asking server itself sent, and nobody changed since, is not
//! given back to it: it names itself by `server_id` (or the header `X-Server-Id`); without a name, the only server that ever
//! sent something is meant.
//! Invariants: a page ends between two changes, never within one; the answer says `has_more`; the work of one request is
//! bounded ([`CHANGES_LOOKED_MAX`], [`PAGE_BYTES_MAX`]). Called through [`super::routes`].

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::Services;
use super::answer::ask;
use super::canonical::{sha256, write_cells, write_text};
use super::moment::parse_moment;
use super::problem::Problem;
use super::read::checked;
use crate::model::Value;
use crate::monitor::feed::{FeedPlace, Seen};
use crate::monitor::{RunBegin, RunEnd};
use crate::node::feed::FeedRow;

pub(super) const ASKED: &[&str] = &["since", "limit", "server_id"];

/// Changes on one page: when nobody says how many, and at most.
const LIMIT: (usize, usize) = (1_000, 10_000);

/// Bytes of one page, about.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Changes looked at for one page, at most.
const CHANGES_LOOKED_MAX: usize = 50_000;

/// Changes, and events, that the node is asked for at once.
const CHANGES_AT_ONCE: usize = 100;
const EVENTS_AT_ONCE: usize = 500;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ChangesQuery {
    since: Option<String>,
    limit: Option<usize>,
    server_id: Option<String>,
}

/// A time as older servers write it, in µs since 1970: with a blank or a T, with or without a zone (then UTC).
pub(super) fn parse_since(text: &str, now_ms: u64) -> Option<i64> {
    let text = text.trim();
    let (clock, offset_s) = match text.get(10..).and_then(|rest| rest.rfind(['+', '-', ' ']).map(|at| at + 10)) {
        // `+` in a query stands for a blank unless it was escaped.
        Some(at) if at > 12 => (text.get(..at)?, offset(text.get(at..)?)?),
        _ => (text, 0),
    };
    let fraction = clock.split_once('.').map_or("", |(_, rest)| rest.trim_end_matches('Z'));
    let whole = clock.split('.').next()?.trim_end_matches('Z');
    let ms = parse_moment(whole, now_ms)?;
    let micros: i64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    i64::try_from(ms).ok()?.checked_mul(1000)?.checked_add(micros)?.checked_sub(offset_s * 1_000_000)
}

/// `+02:00` or `-0500`, in seconds.
fn offset(text: &str) -> Option<i64> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let (hours, minutes) =
        (digits.get(..2)?.parse::<i64>().ok()?, digits.get(2..4).unwrap_or("0").parse::<i64>().ok()?);
    Some(sign * (hours * 3600 + minutes * 60))
}

/// Time of a change as it is given out: UTC with microseconds.
fn time_text(at_us: i64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_micros(at_us.unsigned_abs());
    humantime::format_rfc3339_micros(time).to_string().trim_end_matches('Z').to_string() + "+00:00"
}

/// A change that may go on the page.
struct Candidate {
    row: FeedRow,
    at_us: i64,
}

/// What a server holds of a row that it got, or sent, like this.
pub(super) fn seen(database: &str, table: &str, record_id: &str, data: Option<&[(String, Value)]>) -> Seen {
    let mut text = String::new();
    match data {
        Some(data) => write_cells(data, &mut text),
        None => text.push_str("deleted"),
    }
    Seen { place: format!("{database}.{table}"), record_id: record_id.to_string(), hash: sha256(&text) }
}

pub(super) async fn changes(
    State(services): State<Arc<Services>>,
    headers: HeaderMap,
    query: Result<Query<ChangesQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let query = checked(query)?;
    let now_ms = crate::monitor::recorder::now_ms();
    let since = query.since.filter(|text| !text.is_empty());
    let bad = |text: &str| format!("`since` is `{text}`, but must be a time like 2025-03-06T09:00:00");
    let since_us = match &since {
        Some(text) => parse_since(text, now_ms).ok_or_else(|| Problem::invalid(bad(text)))?,
        None => -1,
    };
    let named = headers.get("x-server-id").and_then(|name| name.to_str().ok()).map(str::to_string);
    let asker = query.server_id.filter(|name| !name.is_empty()).or(named);
    let limit = query.limit.unwrap_or(LIMIT.0).clamp(1, LIMIT.1);
    let page = Page::collect(&services, since_us, limit, asker.as_deref()).await?;
    let own = ask(&services.port, |node, _| node.id().to_string()).await?;
    if page.count > 0 {
        let run = RunBegin { kind: "legacy_send".into(), subject: asker.unwrap_or_default(), ..RunBegin::default() };
        let (records, bytes) = (Some(page.count as u64), page.text.len() as u64);
        services.monitor.begin(run).await.end(RunEnd { records, bytes, ..RunEnd::default() });
    }
    let changes = format!("[{}]", page.text);
    let next = if page.next_us < 0 { String::new() } else { time_text(page.next_us) };
    let body = format!(
        "{{\"changes\":{changes},\"checksum\":\"{}\",\"count\":{},\"has_more\":{},\"next_since\":\"{next}\",\"server_id\":\"{own}\"}}",
        sha256(&changes),
        page.count,
        page.more,
    );
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// A page in the making.
#[derive(Default)]
struct Page {
    text: String,
    count: usize,
    given: BTreeSet<(String, String, String)>,
    looked: usize,
    next_us: i64,
    more: bool,
}

impl Page {
    async fn collect(services: &Services, since_us: i64, limit: usize, asker: Option<&str>) -> Result<Page, Problem> {
        let cursor = services.monitor.ask(move |store, _| store.feed_cursor(since_us)).await?;
        let mut page = Page { next_us: if since_us < 0 { -1 } else { cursor }, ..Page::default() };
        let mut cursor = if since_us < 0 { -1 } else { cursor };
        loop {
            let from = cursor;
            let places = services.monitor.ask(move |store, _| store.feed_from(from, EVENTS_AT_ONCE)).await?;
            if places.is_empty() && !index_more(services).await? {
                return Ok(page);
            }
            for place in places {
                if !page.take(services, &place, cursor, limit, asker).await? {
                    page.more = true;
                    return Ok(page);
                }
                cursor = place.at_us + place.changes as i64 - 1;
            }
        }
    }

    /// Takes the changes of an event that are later than the cursor. `false`: the page is full.
    async fn take(
        &mut self,
        services: &Services,
        place: &FeedPlace,
        cursor_us: i64,
        limit: usize,
        asker: Option<&str>,
    ) -> Result<bool, Problem> {
        let mut from = Some((cursor_us - place.at_us + 1).max(0).unsigned_abs());
        while let Some(first) = from {
            if self.count >= limit || self.text.len() >= PAGE_BYTES_MAX || self.looked >= CHANGES_LOOKED_MAX {
                return Ok(false);
            }
            let at_once = CHANGES_AT_ONCE.min(limit - self.count);
            let arrival = place.arrival;
            let (rows, next) = ask(&services.port, move |node, _| node.feed_rows(arrival, first, at_once)).await??;
            self.looked += at_once;
            let candidates: Vec<Candidate> =
                rows.into_iter().map(|row| Candidate { at_us: place.at_us + row.index as i64, row }).collect();
            self.write(services, candidates, asker).await?;
            self.next_us = place.at_us + next.unwrap_or(place.changes) as i64 - 1;
            from = next;
        }
        Ok(true)
    }

    /// Writes those that the asker does not hold.
    async fn write(&mut self, services: &Services, all: Vec<Candidate>, asker: Option<&str>) -> Result<(), Problem> {
        let held = |row: &FeedRow| {
            let data = (row.operation != "delete").then_some(row.data.as_slice());
            seen(&row.database, &row.table, &row.record_id, data)
        };
        let rows: Vec<Seen> = all.iter().map(|one| held(&one.row)).collect();
        let server = asker.map(str::to_string);
        let known = services.monitor.ask(move |store, _| store.is_seen(server.as_deref(), &rows)).await?;
        for (one, known) in all.into_iter().zip(known) {
            let row = one.row;
            let key = (row.database.clone(), row.table.clone(), row.record_id.clone());
            if known || !self.given.insert(key) {
                continue;
            }
            if self.count > 0 {
                self.text.push(',');
            }
            self.count += 1;
            write_change(&row, one.at_us, &mut self.text);
        }
        Ok(())
    }
}

/// Gives more events their times. `false`: there are none.
async fn index_more(services: &Services) -> Result<bool, Problem> {
    let (waiting, last) = services.monitor.ask(|store, _| store.feed_state(EVENTS_AT_ONCE)).await?;
    let events = ask(&services.port, move |node, _| node.feed_events(&waiting, last, EVENTS_AT_ONCE)).await??;
    let fresh = events.iter().any(|event| event.arrival > last);
    let timed = services.monitor.ask(move |store, now_ms| store.feed_add(&events, now_ms)).await?;
    Ok(timed > 0 || fresh)
}

/// A change in canonical form: its members are sorted.
fn write_change(row: &FeedRow, at_us: i64, out: &mut String) {
    let mut data = String::new();
    write_cells(&row.data, &mut data);
    let member = |name: &str, text: &str, out: &mut String| {
        let _ = write!(out, "\"{name}\":");
        write_text(text, true, out);
    };
    let mut hashed = String::from("{\"data\":");
    hashed.push_str(&data);
    for (name, text) in [("operation", row.operation), ("record_id", &row.record_id), ("table", &row.table)] {
        hashed.push(',');
        member(name, text, &mut hashed);
    }
    hashed.push('}');
    out.push('{');
    member("change_hash", &sha256(&hashed), out);
    let _ = write!(out, ",\"data\":{data}");
    for (name, text) in [
        ("database", row.database.as_str()),
        ("operation", row.operation),
        ("record_id", &row.record_id),
        ("server_id", &row.node),
        ("table", &row.table),
        ("timestamp", &time_text(at_us)),
        ("written_at", &row.written),
    ] {
        out.push(',');
        member(name, text, out);
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_older_servers_write_them() {
        let noon = 1_741_262_400_000_000;
        for (text, want) in [
            ("2025-03-06T12:00:00", Some(noon)),
            ("2025-03-06 12:00:00", Some(noon)),
            ("2025-03-06T12:00:00.000007", Some(noon + 7)),
            ("2025-03-06T12:00:00.5Z", Some(noon + 500_000)),
            ("2025-03-06T12:00:00.000007+00:00", Some(noon + 7)),
            ("2025-03-06T12:00:00.000007 00:00", Some(noon + 7)),
            ("2025-03-06T14:00:00+02:00", Some(noon)),
            ("2025-03-06T07:00:00-0500", Some(noon)),
            ("2025-03-06", Some(noon - 12 * 3_600_000_000)),
            ("1970-01-01T00:00:00", Some(0)),
            ("then", None),
            ("2025-03-06T12:00:00+x", None),
        ] {
            assert_eq!(parse_since(text, 0), want, "{text}");
        }
        assert_eq!(parse_since(&time_text(noon + 123_456), 0), Some(noon + 123_456));
    }
}
