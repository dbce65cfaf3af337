//! `litemesh dashboard`.
//!
//! The token goes into the link's fragment: a browser keeps that part to itself and sends it to no server. Invariant:
//! the link is printed only to who could read the token's file. Called by [`super`].

use std::process::{Command, Stdio};

use clap::Args;
use serde_json::json;

use super::Context;
use super::error::CommandError;

/// Print a link to this node's dashboard that signs you in; keep it to yourself
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Open it in the browser too
    #[arg(long)]
    open: bool,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    let link = context.client()?.page_link();
    context.output.result(&json!({ "link": link }), |_| link.clone());
    if arguments.open {
        open(&link)?;
    }
    context.output.notice("whoever has this link can do everything on this node; it works on this machine only");
    Ok(())
}

/// Lets the desktop open it.
fn open(link: &str) -> Result<(), CommandError> {
    let (program, before): (&str, &[&str]) = match std::env::consts::OS {
        "macos" => ("open", &[]),
        "windows" => ("rundll32", &["url.dll,FileProtocolHandler"]),
        _ => ("xdg-open", &[]),
    };
    let mut command = Command::new(program);
    command.args(before).arg(link).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map(drop).map_err(|error| {
        let failed = CommandError::user(format!("{program} could not be started")).because(&error);
        failed.hint("open the printed link in a browser of this machine yourself")
    })
}
