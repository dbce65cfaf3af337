//! Endpoints about the past: a row's history, what changed between two times, undo, restore.
//!
//! Invariants: whatever reads the log runs in a thread of its own on a snapshot, one at a time (each evaluates the log in
//! memory); the node is asked for pages that it does between two inputs. An undo that was begun goes on when its caller
//! leaves; what an error stopped is finished by asking again. Called through [`super::routes`].

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::Services;
use super::act::parse;
use super::answer::ask;
use super::moment::{bad_moment, parse_moment};
use super::problem::Problem;
use crate::model::{counted, fits};
use crate::node::diff::DiffFilter;
use crate::node::travel_view::{DiffView, TakeBackView};
use crate::node::undo::{Order, Plan, Selection};
use crate::node::undo_do::PageDone;
use crate::node::{Node, NodeError, Now};
use crate::sqlite::SqliteError;

/// Rows listed: by default, and at most.
const ROWS: (usize, usize) = (200, 10_000);

/// Pause before a page is asked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Evaluations of the log at one time.
static LONG_READS: Semaphore = Semaphore::const_new(1);

type Shared = State<Arc<Services>>;
type Reply<T> = Result<Json<T>, Problem>;

/// `GET /api/v1/diff`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DiffQuery {
    from: String,
    #[serde(default)]
    to: Option<String>,
    #[serde(default)]
    db: Option<String>,
    #[serde(default)]
    table: Option<String>,
    #[serde(default)]
    node: Option<String>,
    #[serde(default)]
    limit: Option<usize>,
}

fn limit(asked: Option<usize>) -> usize {
    asked.unwrap_or(ROWS.0).min(ROWS.1)
}

fn moment(name: &str, text: &str, now: Now) -> Result<u64, Problem> {
    parse_moment(text, now.wall_ms).ok_or_else(|| Problem::invalid(bad_moment(name, text)))
}

/// Runs something long beside the node.
pub(super) async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NodeError> + Send + 'static,
) -> Result<T, Problem> {
    let _turn = LONG_READS.acquire().await.map_err(|_| Problem::node_busy())?;
    Ok(tokio::task::spawn_blocking(work).await.map_err(|_| Problem::node_busy())??)
}

pub(super) async fn diff(State(services): Shared, query: Result<Query<DiffQuery>, QueryRejection>) -> Reply<DiffView> {
    let query = query.map_err(|rejection| Problem::invalid(rejection.body_text()))?.0;
    let (replay, now) = ask(&services.port, |node, now| (node.replay(), now)).await?;
    let replay = replay?;
    let from_ms = moment("from", &query.from, now)?;
    let to_ms = query.to.map_or(Ok(now.wall_ms), |text| moment("to", &text, now))?;
    let filter = DiffFilter { database: query.db, table: query.table, node: query.node, limit: limit(query.limit) };
    Ok(Json(beside(move || replay.diff(from_ms, to_ms, &filter)).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Undo {
    #[serde(default)]
    change: Option<String>,
    #[serde(default)]
    node: Option<String>,
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    to: Option<String>,
    #[serde(default)]
    db: Option<String>,
    #[serde(default)]
    table: Option<String>,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    yes: bool,
    #[serde(default)]
    by: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    limit: Option<usize>,
}

impl Undo {
    fn selection(&self, now: Now) -> Result<Selection, Problem> {
        match (&self.change, &self.node, &self.from) {
            (Some(change), None, None) if self.to.is_none() && self.db.is_none() && self.table.is_none() => {
                Ok(Selection::Change(change.clone()))
            }
            (None, Some(name), Some(from)) => Ok(Selection::Node {
                name: name.clone(),
                from_ms: moment("from", from, now)?,
                to_ms: self.to.as_ref().map_or(Ok(now.wall_ms), |text| moment("to", text, now))?,
                database: self.db.clone(),
                table: self.table.clone(),
            }),
            _ => Err(Problem::invalid(
                "say what to undo: either `change` alone, or `node` and `from` (with `to`, `db`, `table` as you like)",
            )),
        }
    }
}

pub(super) async fn undo(State(services): Shared, body: Bytes) -> Reply<TakeBackView> {
    let asked: Undo = parse(&body)?;
    let (now, replay) = heard(&services).await?;
    let selection = asked.selection(now)?;
    let order = Order { by: asked.by, reason: asked.reason, force: asked.force };
    let plan = beside(move || replay.plan_undo(&selection, &order, now)).await?;
    Ok(Json(carry_out(services, plan, asked.yes, limit(asked.limit)).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Restore {
    as_of: String,
    #[serde(default)]
    db: Option<String>,
    #[serde(default)]
    table: Option<String>,
    #[serde(default)]
    yes: bool,
    #[serde(default)]
    by: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    limit: Option<usize>,
}

pub(super) async fn restore(State(services): Shared, body: Bytes) -> Reply<TakeBackView> {
    let asked: Restore = parse(&body)?;
    let (now, replay) = heard(&services).await?;
    let as_of_ms = moment("as_of", &asked.as_of, now)?;
    let order = Order { by: asked.by, reason: asked.reason, force: false };
    let of = (asked.db, asked.table);
    let plan = beside(move || {
        let (database, table) = (of.0.as_deref(), of.1.as_deref());
        replay.plan_restore(as_of_ms, (database, table), &order, now)
    });
    Ok(Json(carry_out(services, plan.await?, asked.yes, limit(asked.limit)).await?))
}

/// The log with all that the apps wrote until now, where this node may take anything back at all.
async fn heard(services: &Services) -> Result<(Now, crate::node::Replay), Problem> {
    let hear = |node: &mut Node, now: Now| {
        node.may_take_back()?;
        node.replay_heard(now).map(|replay| (now, replay))
    };
    Ok(ask(&services.port, hear).await??)
}

/// Page after page, in a task that outlives its caller.
async fn carry_out(services: Arc<Services>, plan: Plan, write: bool, limit: usize) -> Result<TakeBackView, Problem> {
    let task = tokio::spawn(async move {
        let plan = Arc::new(plan);
        let mut view = plan.view.clone();
        view.done = write;
        let mut page = plan.start();
        loop {
            let (shared, at) = (plan.clone(), page.clone());
            let done = ask(&services.port, move |node, now| node.take_back(&shared, at, write, now)).await;
            let done = match done {
                // The app holds its file, or the page before is not shown yet.
                Ok(Ok(PageDone { wait: true, .. }) | Err(NodeError::Sqlite(SqliteError::Busy))) => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                    continue;
                }
                Ok(Ok(done)) => done,
                Ok(Err(error)) => return Err(stopped(error.into(), &view)),
                Err(problem) => return Err(stopped(problem, &view)),
            };
            let next = done.next.clone();
            view.take(done, limit);
            match next {
                Some(next) => page = next,
                None => return Ok(view),
            }
        }
    });
    task.await.map_err(|_| Problem::node_busy())?
}

/// What a person must know of an order that was stopped half-way.
fn stopped(mut problem: Problem, view: &TakeBackView) -> Problem {
    if !view.events.is_empty() {
        let events = view.events.len();
        problem.detail += &format!(
            "; {} of it {} written already: ask again to do the rest",
            counted(events as u64, "event"),
            fits(events as u64, "is", "are")
        );
    }
    problem
}
