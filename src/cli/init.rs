//! `litemesh init`.
//!
//! Invariant: makes a node and a cluster, touches no database. Called by [`super`].

use clap::Args;

use super::Context;
use super::error::CommandError;
use crate::daemon;

/// Make a node and a cluster of its own without running it
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of this server for people [default: the host name]
    #[arg(long)]
    name: Option<String>,
    /// Name of the cluster for people
    #[arg(long)]
    cluster_name: Option<String>,
}

/// Said with every recovery phrase.
pub(super) const WRITE_DOWN: &str = "write the recovery phrase on paper: it is shown this once and stored nowhere, and it makes an admin when the founding \
     server is lost or stolen (litemesh recover-admin)";

pub(super) fn call(context: &Context, arguments: Arguments) -> Result<(), CommandError> {
    let config = context.config(|flags| flags.name = arguments.name)?;
    let made = daemon::init(&config, arguments.cluster_name.as_deref())?;
    context.output.result(&made, |made| {
        let (name, cluster, data) = (&made.name, &made.cluster_name, &made.data);
        let phrase = made.recovery_phrase.as_deref().unwrap_or_default();
        format!(
            "node {name} ({}) founded the cluster \"{cluster}\"\ndata directory: {data}\nrecovery phrase: {phrase}",
            &made.node_id[..8]
        )
    });
    context.output.notice(WRITE_DOWN);
    context.output.notice(&format!("next: litemesh --data {} run", made.data));
    Ok(())
}
