//! `litemesh run`.
//!
//! Invariant: stdout carries the ready line and nothing else. Called by [`super`].

use std::path::PathBuf;

use clap::Args;

use super::error::CommandError;
use super::init::WRITE_DOWN;
use super::{Context, database};
use crate::{config, daemon};

/// Run the node in the foreground; on an empty data directory, make a node and a cluster of its own first
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A database to replicate; may be repeated. Remembered for later starts
    #[arg(long = "db", value_name = "NAME=PATH", value_parser = database)]
    databases: Vec<(String, PathBuf)>,
    /// Address to listen on for peers; may be repeated
    #[arg(long, value_name = "MULTIADDR")]
    listen: Vec<String>,
    /// Address of a peer to stay connected to; may be repeated
    #[arg(long, value_name = "MULTIADDR")]
    peer: Vec<String>,
    /// Do not look for peers by multicast
    #[arg(long)]
    no_mdns: bool,
    /// Loopback address of the API, or "off"
    #[arg(long, value_name = "ADDR|off")]
    http: Option<String>,
    /// Name of this server for people
    #[arg(long)]
    name: Option<String>,
    /// When no database is named or remembered, make and use a pair of sample databases
    #[arg(long)]
    sample: bool,
    /// For so long (10m), whoever says `litemesh join --lan` on the local network is let in without a code. Never
    /// across restarts
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    trust_lan_for: Option<std::time::Duration>,
}

pub(super) fn call(context: &Context, arguments: Arguments) -> Result<(), CommandError> {
    let wishes = daemon::Wishes { sample: arguments.sample, trust_lan_for: arguments.trust_lan_for };
    let config = context.config(|flags| {
        flags.databases = arguments.databases;
        flags.listen = arguments.listen;
        flags.peers = arguments.peer;
        flags.no_mdns = arguments.no_mdns;
        flags.http = arguments.http;
        flags.name = arguments.name;
    })?;
    for warning in &config.warnings {
        context.output.notice(&format!("warning: {warning}"));
    }
    for name in config::unknown_variables(std::env::vars().map(|(name, _)| name)) {
        context
            .output
            .notice(&format!("warning: the environment variable {name} is none of litemesh's and has no effect"));
    }
    let announce = &mut |ready: &daemon::Ready| {
        // Also with --quiet: it is said once.
        if let Some(phrase) = &ready.recovery_phrase {
            super::output::write_error(&format!("\n  recovery phrase of the new cluster: {phrase}\n  {WRITE_DOWN}\n"));
        }
        let line = serde_json::to_string(ready).expect("three strings serialise");
        context.output.text(&format!("ready {line}"));
    };
    Ok(daemon::run(&config, &context.directory, wishes, announce)?)
}
