//! `GET /api/v1/events/stream`: the event log as server-sent events, as it grows.
//!
//! States of a stream: catching up (pages of the log) → waiting for news, with a comment every few seconds so that a dead
//! connection is noticed on both sides. The `id` of an event is the place to go on from (`Last-Event-ID`, or `after`).
//! Invariants: an event of the log is never left out, however slow the reader: the log itself is the queue, nothing is kept
//! in memory but one page; at most [`STREAMS_MAX`] streams are open. Called through [`super::routes`].

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::Services;
use super::answer::ask;
use super::problem::Problem;
use super::query::EventsQuery;
use super::read::checked;
use crate::node::view::EventFilter;

/// Open streams, at most.
const STREAMS_MAX: usize = 8;

/// Events of one page.
const PAGE: usize = 100;

/// A sign of life comes this often; connections that take nothing for longer are dropped.
const SIGN: Duration = Duration::from_secs(4);

static STREAMS: Semaphore = Semaphore::const_new(STREAMS_MAX);

struct Following {
    services: Arc<Services>,
    filter: EventFilter,
    after: u64,
    news: watch::Receiver<u64>,
    ready: VecDeque<Event>,
    _permit: SemaphorePermit<'static>,
}

pub(super) async fn events(
    State(services): State<Arc<Services>>,
    headers: HeaderMap,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let query = checked(query)?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| id.trim().parse().ok());
    let permit = STREAMS.try_acquire().map_err(|_| {
        let detail = format!("{STREAMS_MAX} streams are open already: close one");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", detail)
    })?;
    // Before the place is looked up: what comes in between wakes the stream.
    let news = services.monitor.news();
    let (filter, now) = ask(&services.port, move |node, now| {
        let filter = query.filter(now.wall_ms)?;
        let last = node.events(&EventFilter { limit: 1, ..EventFilter::default() })?.last_arrival;
        Ok::<_, Problem>((filter, last))
    })
    .await??;
    let after = filter.after_arrival.or(last).unwrap_or(now);
    let following = Following { services, filter, after, news, ready: VecDeque::new(), _permit: permit };
    Ok(Sse::new(futures::stream::unfold(following, next)).into_response())
}

/// The next event, or a sign of life; the end when the node is gone.
async fn next(mut following: Following) -> Option<(Result<Event, Infallible>, Following)> {
    loop {
        if let Some(event) = following.ready.pop_front() {
            return Some((Ok(event), following));
        }
        following.news.mark_unchanged();
        let filter = EventFilter { after_arrival: Some(following.after), limit: PAGE, ..following.filter.clone() };
        let page = ask(&following.services.port, move |node, _| node.events(&filter)).await.ok()?.ok()?;
        let fresh = page.last_arrival > following.after;
        following.after = page.last_arrival;
        let count = page.events.len();
        for (position, event) in page.events.into_iter().enumerate() {
            let data = serde_json::to_string(&event).ok()?;
            let told = Event::default().event("change").data(data);
            // Whoever goes on from the last one of a page goes on behind the page.
            let told = if position + 1 == count { told.id(page.last_arrival.to_string()) } else { told };
            following.ready.push_back(told);
        }
        if fresh {
            continue;
        }
        let woken = tokio::time::timeout(SIGN, following.news.changed()).await;
        match woken {
            Ok(Ok(())) => {}
            // Nobody tells news without run tracking: the log is looked at with every sign of life.
            Ok(Err(_)) => tokio::time::sleep(SIGN).await,
            Err(_) => return Some((Ok(Event::default().comment("alive")), following)),
        }
    }
}
