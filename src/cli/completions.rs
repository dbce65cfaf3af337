//! `litemesh completions`.
//!
//! Invariant: made from the same definitions as the commands. Called by [`super`].

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::error::CommandError;
use super::{Cli, Context};

/// Print completions for a shell
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "litemesh", &mut text);
    context.output.text(&String::from_utf8_lossy(&text));
    Ok(())
}
