//! `litemesh admit`.
//!
//! Invariant: who is admitted is shown with its key, so that it can be compared with what the new server shows. Called by
//! [`super`].

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::Context;
use super::client::Client;
use super::error::CommandError;
use super::output::count;
use crate::daemon::{self, DataDir};
use crate::node::bundle_view::AdmittedView;

/// Bytes of a request that are read: it is one line.
const REQUEST_BYTES_MAX: u64 = 4_096;

/// Admit a server by the request it made with `join --request`; works with and without a running node
///
/// For places where no network joins the two. The next bundle tells the new server that it is a member.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The request; - is stdin
    file: PathBuf,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    use std::io::Read as _;
    let mut text = String::new();
    let path = context.directory.join(&arguments.file);
    let read = if arguments.file.as_os_str() == "-" {
        std::io::stdin().take(REQUEST_BYTES_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(&path).and_then(|file| file.take(REQUEST_BYTES_MAX).read_to_string(&mut text))
    };
    read.map_err(|error| {
        let result = CommandError::user(format!("cannot read {}", arguments.file.display())).because(&error);
        result.hint("name the file that `litemesh join --request FILE` wrote on the new server")
    })?;
    let config = context.config(|_| {})?;
    let admitted: AdmittedView = if DataDir::at(&config.data_dir).is_locked() {
        Client::connect(&config)?.post("/api/v1/admit", &json!({ "request": text }), None)?
    } else {
        daemon::admit_request(&config, &text)?
    };
    context.output.result(&admitted, |admitted| {
        let what = if admitted.new { "is a member now" } else { "was a member before" };
        let members = count(admitted.members.into(), "member");
        format!("{} {what}, key {} ({members})", admitted.name, admitted.fingerprint)
    });
    context.output.notice("the key must be the one that the new server showed; if it is not, revoke it");
    context.output.notice("next: litemesh bundle export FILE, and there: litemesh bundle import FILE");
    Ok(())
}
