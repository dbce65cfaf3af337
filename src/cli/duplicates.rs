//! `litemesh duplicates`.
//!
//! Invariant: changes nothing; says what would. Called by [`super`].

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::Context;
use super::error::CommandError;
use super::meeting_text::near;
use crate::node::meeting_view::NearView;

/// Show different rows that look like one, with the command that joins them
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All of them
    List,
}

#[derive(Serialize, Deserialize)]
struct Duplicates {
    duplicates: Vec<NearView>,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    let (None | Some(What::List)) = arguments.what;
    let found: Duplicates = context.client()?.get("/api/v1/duplicates", &[])?;
    context.output.result(&found, |found| match found.duplicates.is_empty() {
        true => "no rows that met look like one".to_string(),
        false => near(&found.duplicates),
    });
    Ok(())
}
