//! `litemesh join --request FILE`.
//!
//! Invariant: the request holds no secret; what it asks for happens with the first bundle that says so. Called by
//! [`super::join`].

use std::path::Path;

use super::Context;
use super::error::CommandError;
use crate::config::Config;
use crate::daemon::{self, Choice, Meetings};

pub(super) fn call(
    context: &Context,
    config: &Config,
    (choice, meetings, accepted): (&Choice, Meetings, bool),
    target: &Path,
) -> Result<(), CommandError> {
    let requested = daemon::request_admission(config, choice, meetings, accepted)?;
    let shown = target.display();
    if target == Path::new("-") {
        context.output.text(&requested.request);
    } else {
        let path = context.directory.join(target);
        std::fs::write(&path, format!("{}\n", requested.request)).map_err(|error| {
            let result = CommandError::user(format!("cannot write {shown}")).because(&error);
            result.hint("name a file in a directory where you may write")
        })?;
        context.output.result(&requested, |requested| {
            format!("{} asks to be admitted, key {}: {shown}", requested.name, requested.fingerprint)
        });
    }
    context.output.notice("next: on a member: litemesh admit FILE (compare the key), then litemesh bundle export FILE");
    context.output.notice("then here: litemesh bundle import FILE");
    Ok(())
}
