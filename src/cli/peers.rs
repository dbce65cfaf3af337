//! `litemesh peers`.
//!
//! Invariant: the numbers of the list are good wherever a peer is named. Called by [`super`].

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Context;
use super::client::Client;
use super::error::CommandError;
use super::output::table;
use super::status;
use crate::node::members::{LateEvent, MemberView, RecordView};
use crate::node::view::Status;

const ROLES: [&str; 3] = ["admin", "member", "read-only"];

/// Show the other members, shut one out, change what it may do
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All of them
    List,
    /// Stay connected to the peer at this address, across restarts
    Add {
        /// Like /ip4/192.168.1.20/udp/7481/quic-v1
        address: String,
    },
    /// Shut a member out: its connections end, and nobody takes anything from it any more
    Revoke {
        /// Name, or the beginning of the id
        name: String,
    },
    /// Let somebody in again who was shut out
    Readmit {
        /// Name, or the beginning of the id
        name: String,
        /// What it may do then
        #[arg(long, default_value = "member", value_parser = ROLES)]
        role: String,
    },
    /// Give a member another role: admin (may let others in and shut them out), member, read-only
    Role {
        /// Name, or the beginning of the id
        name: String,
        /// The role
        #[arg(value_parser = ROLES)]
        role: String,
    },
    /// Give a member another name
    Rename {
        /// Name, or the beginning of the id
        name: String,
        /// The new name
        to: String,
    },
    /// Whether the others' files show the same rows as this server's, looked at now; 4: they do not, each row is named
    Compare {
        /// Only this peer: name, id, or number in the list
        peer: Option<String>,
        /// How long to wait
        #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
        wait: f64,
    },
    /// Everybody who was ever admitted, this server included
    Members,
    /// The membership log: every signed record, and whether it counts
    Log,
    /// Events that say that they were written after their author was shut out
    Late,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    let client = context.client()?;
    match &arguments.what {
        None | Some(What::List) => {
            let status: Status = client.get("/api/v1/status", &[])?;
            let document = json!({ "peers": status.peers });
            context.output.result(&document, |_| status::peers(&status));
        }
        Some(What::Add { address }) => {
            let added: Value = client.post("/api/v1/peers", &json!({ "address": address }), None)?;
            context.output.result(&added, |_| format!("remembered; this node now stays connected to {address}"));
        }
        Some(What::Revoke { name }) => {
            let view = order(&client, "revoke", &json!({ "name": name }))?;
            let told = "is shut out: its connections end now, and every member hears of it with its next contact";
            context.output.result(&view, |view| format!("{} ({}) {told}", view.name, &view.id[..8]));
            context.output.notice("what it wrote stays; see what came later: litemesh peers late");
        }
        Some(What::Readmit { name, role }) => {
            let view = order(&client, "readmit", &json!({ "name": name, "role": role }))?;
            context
                .output
                .result(&view, |view| format!("{} ({}) is in again as {}", view.name, &view.id[..8], view.role));
        }
        Some(What::Role { name, role }) => {
            let view = order(&client, "role", &json!({ "name": name, "role": role }))?;
            context.output.result(&view, |view| format!("{} ({}) is {} now", view.name, &view.id[..8], view.role));
        }
        Some(What::Rename { name, to }) => {
            let view = order(&client, "rename", &json!({ "name": name, "to": to }))?;
            context.output.result(&view, |view| format!("{} is called {} now", &view.id[..8], view.name));
        }
        Some(What::Compare { peer, wait }) => super::compare::call(context, peer.as_deref(), *wait)?,
        Some(What::Members) => members(context, &client)?,
        Some(What::Log) => log(context, &client)?,
        Some(What::Late) => late(context, &client)?,
    }
    Ok(())
}

fn order(client: &Client, what: &str, body: &Value) -> Result<MemberView, CommandError> {
    client.post(&format!("/api/v1/members/{what}"), body, None)
}

/// One list of a document.
fn listed<T: serde::de::DeserializeOwned>(document: &Value, list: &str) -> Vec<T> {
    serde_json::from_value(document[list].clone()).unwrap_or_default()
}

fn short(id: &str) -> String {
    id.chars().take(8).collect()
}

fn members(context: &Context, client: &Client) -> Result<(), CommandError> {
    let document: Value = client.get("/api/v1/members", &[])?;
    let line = |view: &MemberView| {
        let by = match (view.by.is_empty(), view.at.is_empty()) {
            (true, _) => String::new(),
            (false, true) => format!("by {}", short(&view.by)),
            (false, false) => format!("by {} at {}", view.by, view.at),
        };
        let numbers = [view.rank.to_string(), view.slot.to_string()];
        [vec![view.name.clone(), short(&view.id), view.role.clone()], numbers.to_vec(), vec![view.state.clone(), by]]
            .concat()
    };
    context.output.result(&document, |document| {
        let rows: Vec<_> = listed(document, "members").iter().map(line).collect();
        table(&["member", "id", "role", "rank", "slot", "state", ""], &rows)
    });
    Ok(())
}

fn log(context: &Context, client: &Client) -> Result<(), CommandError> {
    let document: Value = client.get("/api/v1/members/log", &[])?;
    let line = |view: &RecordView| {
        let counts = if view.counts { "" } else { "does not count" };
        let after: Vec<String> = view.after.iter().map(|hash| short(hash)).collect();
        let who = if view.name.is_empty() { short(&view.node) } else { view.name.clone() };
        let cells = [&short(&view.hash), &view.time, &view.kind, &who, &view.says, &view.by, &after.join(" ")];
        cells.into_iter().cloned().chain([counts.to_string()]).collect::<Vec<_>>()
    };
    context.output.result(&document, |document| {
        let rows: Vec<_> = listed(document, "records").iter().map(line).collect();
        table(&["record", "time", "kind", "member", "says", "signed by", "knew", ""], &rows)
    });
    Ok(())
}

fn late(context: &Context, client: &Client) -> Result<(), CommandError> {
    let document: Value = client.get("/api/v1/members/late", &[])?;
    let line = |event: &LateEvent| {
        let taken = if event.taken_from.is_empty() { "-".to_string() } else { event.taken_from.clone() };
        vec![
            event.author.clone(),
            event.seq.to_string(),
            event.database.clone(),
            event.written.clone(),
            event.revoked.clone(),
            taken,
        ]
    };
    context.output.result(&document, |document| {
        let rows: Vec<_> = listed(document, "events").iter().map(line).collect();
        match rows.is_empty() {
            true => "nothing that came says that it was written after its author's revocation".to_string(),
            false => table(&["author", "event", "database", "written", "shut out", "came from"], &rows),
        }
    });
    Ok(())
}
