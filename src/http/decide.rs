//! Endpoints by which a person decides against the merge.
//!
//! Invariant: each answer says what holds from here on and names the event that says so. Called through
//! [`super::routes`].

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Services;
use super::act::parse;
use super::answer::ask;
use super::problem::Problem;
use crate::node::query_rows::Place;
use crate::node::view::DecisionView;

type Shared = State<Arc<Services>>;
type Reply<T> = Result<Json<T>, Problem>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Two {
    db: String,
    table: String,
    id: String,
    other: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    db: String,
    table: String,
    id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

pub(super) async fn restore(
    State(services): Shared,
    number: Result<Path<u64>, PathRejection>,
    body: Bytes,
) -> Reply<DecisionView> {
    let _: Nothing = parse(&body)?;
    let Path(number) =
        number.map_err(|_| Problem::invalid("the number of a conflict is a number: see /api/v1/conflicts"))?;
    Ok(Json(ask(&services.port, move |node, now| node.restore(number, now)).await??))
}

pub(super) async fn merge(State(services): Shared, body: Bytes) -> Reply<DecisionView> {
    let Two { db, table, id, other } = parse(&body)?;
    let place = Place { database: db, table };
    Ok(Json(ask(&services.port, move |node, now| node.merge_rows(&place, &id, &other, now)).await??))
}

pub(super) async fn split(State(services): Shared, body: Bytes) -> Reply<DecisionView> {
    let One { db, table, id } = parse(&body)?;
    let place = Place { database: db, table };
    Ok(Json(ask(&services.port, move |node, now| node.split_row(&place, &id, now)).await??))
}

pub(super) async fn retry_shelf(State(services): Shared, body: Bytes) -> Reply<Value> {
    let _: Nothing = parse(&body)?;
    ask(&services.port, |node, now| node.retry_refused(now)).await??;
    Ok(Json(json!({ "said": "rows that SQLite refused are tried again now" })))
}
