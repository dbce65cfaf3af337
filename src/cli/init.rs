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

pub(super) fn call(context: &Context, arguments: Arguments) -> Result<(), CommandError> {
    let config = context.config(|flags| flags.name = arguments.name)?;
    let made = daemon::init(&config, arguments.cluster_name.as_deref())?;
    context.output.result(&made, |made| {
        let (name, cluster, data) = (&made.name, &made.cluster_name, &made.data);
        format!("node {name} ({}) founded the cluster \"{cluster}\"\ndata directory: {data}", &made.node_id[..8])
    });
    context.output.notice(&format!("next: litemesh --data {} run", made.data));
    Ok(())
}
