//! `litemesh peers`.
//!
//! Invariant: the numbers of the list are good wherever a peer is named. Called by [`super`].

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Context;
use super::error::CommandError;
use super::status;
use crate::node::view::Status;

/// Show the other members, or name an address of one
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
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    let client = context.client()?;
    if let Some(What::Add { address }) = &arguments.what {
        let added: Value = client.post("/api/v1/peers", &json!({ "address": address }), None)?;
        context.output.result(&added, |_| format!("remembered; this node now stays connected to {address}"));
        return Ok(());
    }
    let status: Status = client.get("/api/v1/status", &[])?;
    let document = json!({ "peers": status.peers });
    context.output.result(&document, |_| status::peers(&status));
    Ok(())
}
