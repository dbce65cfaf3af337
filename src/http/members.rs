//! Endpoints about members: who they are, who may do what, who is let in.
//!
//! Invariant: every order is a record that this node signs, or is refused with the reason; the recovery phrase is used and
//! forgotten. Called through [`super::routes`].

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Services;
use super::act::{parse, rfc3339};
use super::answer::ask;
use super::problem::Problem;
use crate::model::Role;
use crate::node::members::{MemberView, TRUST_MS_MAX};
use crate::wire::phrase::{phrase_seed, read_phrase};

type Shared = State<Arc<Services>>;
type Reply<T> = Result<Json<T>, Problem>;

pub(super) async fn members(State(services): Shared) -> Reply<Value> {
    let members = ask(&services.port, |node, _| node.member_views()).await?;
    Ok(Json(json!({ "members": members })))
}

pub(super) async fn log(State(services): Shared) -> Reply<Value> {
    let records = ask(&services.port, |node, _| node.member_records()).await?;
    Ok(Json(json!({ "records": records })))
}

pub(super) async fn late(State(services): Shared) -> Reply<Value> {
    let late = ask(&services.port, |node, _| node.late_events()).await??;
    Ok(Json(json!({ "events": late })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

pub(super) async fn revoke(State(services): Shared, body: Bytes) -> Reply<MemberView> {
    let Named { name } = parse(&body)?;
    Ok(Json(ask(&services.port, move |node, now| node.revoke(&name, now)).await??))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WithRole {
    name: String,
    role: String,
}

/// A role by its word.
pub(super) fn role(word: &str) -> Result<Role, Problem> {
    let unknown = || Problem::invalid(format!("`role` is `{word}`, but must be admin, member or read-only"));
    Role::from_word(word).ok_or_else(unknown)
}

pub(super) async fn set_role(State(services): Shared, body: Bytes) -> Reply<MemberView> {
    let WithRole { name, role: word } = parse(&body)?;
    let role = role(&word)?;
    Ok(Json(ask(&services.port, move |node, now| node.set_role(&name, role, now)).await??))
}

pub(super) async fn readmit(State(services): Shared, body: Bytes) -> Reply<MemberView> {
    let WithRole { name, role: word } = parse(&body)?;
    let role = role(&word)?;
    Ok(Json(ask(&services.port, move |node, now| node.readmit(&name, role, now)).await??))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rename {
    name: String,
    to: String,
}

pub(super) async fn rename(State(services): Shared, body: Bytes) -> Reply<MemberView> {
    let Rename { name, to } = parse(&body)?;
    Ok(Json(ask(&services.port, move |node, now| node.rename(&name, &to, now)).await??))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Trust {
    for_s: u64,
}

pub(super) async fn trust_lan(State(services): Shared, body: Bytes) -> Reply<Value> {
    let Trust { for_s } = parse(&body)?;
    let for_ms = for_s.saturating_mul(1000);
    if for_ms > TRUST_MS_MAX {
        let most = TRUST_MS_MAX / 1000;
        return Err(Problem::invalid(format!("`for_s` is `{for_s}`, but must be 0 (off) to {most} seconds")));
    }
    let until = ask(&services.port, move |node, now| node.trust_lan(for_ms, now)).await??;
    Ok(Json(json!({ "until": until.map(rfc3339) })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recover {
    phrase: String,
    #[serde(default)]
    revoke: Option<String>,
}

pub(super) async fn recover(State(services): Shared, body: Bytes) -> Reply<MemberView> {
    let Recover { phrase, revoke } = parse(&body)?;
    let secret = read_phrase(&phrase).map_err(|error| Problem::invalid(error.to_string()))?;
    let seed = phrase_seed(&secret);
    let recovered = ask(&services.port, move |node, now| node.recover_admin(&seed, revoke.as_deref(), now));
    Ok(Json(recovered.await??))
}
