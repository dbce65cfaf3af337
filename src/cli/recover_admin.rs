//! `litemesh recover-admin`.
//!
//! Invariant: the phrase is read from the terminal or stdin rather than from the command line, where others can see it and
//! the shell keeps it; it goes to this machine's node only. Called by [`super`].

use std::io::{BufRead as _, IsTerminal as _};

use clap::Args;
use serde_json::json;

use super::Context;
use super::error::CommandError;
use crate::node::members::MemberView;

/// Make this server an admin by the recovery phrase; read from stdin
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Shut this member out as well, and void what it signed that is not known here: for a stolen admin
    #[arg(long, value_name = "NAME")]
    revoke: Option<String>,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    let client = context.client()?;
    if std::io::stdin().is_terminal() {
        context.output.notice("type the recovery phrase of the cluster:");
    }
    let mut phrase = String::new();
    if std::io::stdin().lock().read_line(&mut phrase).is_err() || phrase.trim().is_empty() {
        return Err(
            CommandError::user("no recovery phrase on stdin").hint("litemesh recover-admin < phrase.txt, or type it")
        );
    }
    let body = json!({ "phrase": phrase.trim(), "revoke": arguments.revoke });
    let view: MemberView = client.post("/api/v1/recover-admin", &body, None)?;
    context.output.result(&view, |view| format!("{} ({}) is {} now", view.name, &view.id[..8], view.role));
    if let Some(name) = &arguments.revoke {
        context.output.notice(&format!("{name} is shut out, with all that it signed and this server did not know"));
    }
    Ok(())
}
