//! `litemesh receipts`.
//!
//! Invariant: the first line is the node's own sentence. Called by [`super`].

use clap::Args;

use super::Context;
use super::client::Client;
use super::error::CommandError;
use super::output::{count, table};
use crate::daemon::{self, DataDir};
use crate::node::bundle_view::{ReceiptView, ReceiptsView};

/// Show who holds what, what exists only here, and whether this machine can go; works with and without a running node
#[derive(Debug, Args)]
pub(super) struct Arguments {}

pub(super) fn call(context: &Context, _: &Arguments) -> Result<(), CommandError> {
    let config = context.config(|_| {})?;
    let receipts: ReceiptsView = if DataDir::at(&config.data_dir).is_locked() {
        Client::connect(&config)?.get("/api/v1/receipts", &[])?
    } else {
        daemon::receipts(&config, &context.directory)?
    };
    context.output.result(&receipts, describe);
    Ok(())
}

fn describe(receipts: &ReceiptsView) -> String {
    let mut text = receipts.sentence.clone();
    if !receipts.only_here.tables.is_empty() {
        let rows: Vec<Vec<String>> = receipts
            .only_here
            .tables
            .iter()
            .map(|one| vec![one.database.clone(), one.table.clone(), one.rows.to_string()])
            .collect();
        text += &format!("\n\n{}", table(&["database", "table", "rows only here"], &rows));
    }
    if !receipts.peers.is_empty() {
        let rows: Vec<Vec<String>> = receipts.peers.iter().map(line).collect();
        text += &format!("\n\n{}", table(&["server", "holds", "as of", "known by"], &rows));
    }
    text
}

fn line(peer: &ReceiptView) -> Vec<String> {
    let holds = match (peer.holds_everything, peer.as_of.is_empty()) {
        (true, _) => "everything".to_string(),
        (false, true) => "nothing, as far as is known".to_string(),
        (false, false) => format!("all but {}", count(peer.lacks, "event")),
    };
    let as_of = if peer.as_of.is_empty() { "never heard" } else { &peer.as_of };
    vec![peer.name.clone(), holds, as_of.to_string(), peer.way.clone()]
}
