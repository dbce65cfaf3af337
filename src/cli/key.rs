//! `litemesh key`.
//!
//! Invariant: refuses while the node runs. Called by [`super`].

use clap::{Args, Subcommand};

use super::Context;
use super::error::CommandError;
use crate::daemon;

/// Give this server another key
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A new key takes this server's place in the cluster, with its rank, slot, role and name; the old one is retired
    Rotate,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    let What::Rotate = arguments.what;
    let config = context.config(|_| {})?;
    let rotated = daemon::rotate_key(&config)?;
    context.output.result(&rotated, |rotated| {
        format!("the key {} is retired; this server is {} from now on", &rotated.old[..8], &rotated.node_id[..8])
    });
    context.output.notice("the others hear of it at the next start: litemesh run");
    Ok(())
}
