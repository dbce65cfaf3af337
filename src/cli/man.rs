//! `litemesh man`.
//!
//! Invariant: made from the same definitions as `--help`, so that the two never tell different things. Called by [`super`].

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use serde_json::json;

use super::error::{CommandError, Kind};
use super::{Cli, Context};

/// Print the manual page, or write those of all commands
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Write one page per command into this directory, which is made if it is not there
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    let Some(out) = &arguments.out else {
        let mut page = Vec::new();
        let mut command = Cli::command();
        command.build();
        let made = clap_mangen::Man::new(command).render(&mut page);
        made.map_err(|error| CommandError::new(Kind::Internal, "the manual page could not be made").because(&error))?;
        context.output.text(&String::from_utf8_lossy(&page));
        return Ok(());
    };
    let failed = |error: std::io::Error| {
        CommandError::user(format!("the manual pages could not be written into {}", out.display()))
            .because(&error)
            .hint("name a directory that may be written, with --out")
    };
    std::fs::create_dir_all(out).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), out).map_err(failed)?;
    let document = json!({ "out": out.display().to_string() });
    context.output.result(&document, |_| {
        format!("manual pages are in {}; read one with: man {}", out.display(), out.join("litemesh.1").display())
    });
    Ok(())
}
