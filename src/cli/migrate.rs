//! `litemesh migrate -- COMMAND`.
//!
//! Invariant: however the command ends, the triggers come back: by this program, else by the running node when its lease
//! ends, else by the next start. The exit code is the command's own. Called by [`super`].

use std::ffi::OsString;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Context;
use super::client::Client;
use super::error::{CommandError, Kind};
use super::track::exit_code;
use crate::daemon::{self, DataDir};

/// How long the node waits for a sign of life, and how often it gets one.
const LEASE_S: u64 = 15;
const BEAT: Duration = Duration::from_secs(3);

/// How long the app may be in the way of taking triggers down, and the scan may take afterwards.
const BEGIN_WITHIN: Duration = Duration::from_secs(30);
const BACK_WITHIN: Duration = Duration::from_secs(600);

/// Pause before the app's lock is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// Run a migration of the app with litemesh's triggers out of its way, and take in what it changed
#[derive(Debug, Args)]
#[command(
    after_help = "Works with and without a running node. Stop the app meanwhile, as for any migration. Rows that the \
                        migration changes or makes travel to the other servers; rows that it takes away come back: delete \
                        rows by the app. Schemas do not travel: migrate every server."
)]
pub(super) struct Arguments {
    /// The command and its arguments, behind `--`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<ExitCode, CommandError> {
    let config = context.config(|_| {})?;
    let data = DataDir::at(&config.data_dir);
    if data.is_locked() {
        return with_node(context, &Client::connect(&config)?, &arguments.command);
    }
    let choice = daemon::choose(&config, &data, &context.directory, false)?;
    let ended = daemon::migrate(&config, choice, || run(&arguments.command))?;
    context.output.notice("the triggers are back, and what the command changed is in the log");
    Ok(exit_code(ended?))
}

#[derive(Deserialize)]
struct Ended {
    back: bool,
}

fn with_node(context: &Context, client: &Client, command: &[OsString]) -> Result<ExitCode, CommandError> {
    begin(client)?;
    let (ended, heart) = channel::<()>();
    let status = std::thread::scope(|scope| {
        let beats = scope.spawn(move || beat(client, &heart));
        let status = run(command);
        drop(ended);
        // A heart that panicked has nothing left to say.
        let over_early = beats.join().unwrap_or_default();
        (status, over_early)
    });
    let (status, over_early) = status;
    if over_early {
        context.output.notice(
            "warning: the node put its triggers back before the command ended (it was started again, or heard nothing for \
             too long); if the command failed by that, repeat it",
        );
    }
    let until = Instant::now() + BACK_WITHIN;
    loop {
        let ended = client.post::<Ended>("/api/v1/migration/end", &json!({}), None);
        let ended = ended.map_err(|error| {
            error.hint(
                "the command has ended; the triggers come back, and what it changed is taken in, when the node starts",
            )
        })?;
        if ended.back {
            break;
        }
        if Instant::now() >= until {
            let message = "the triggers are not back yet: something holds a database file";
            return Err(CommandError::user(message).hint("see which, and why: litemesh status"));
        }
    }
    context.output.notice("the triggers are back, and what the command changed is in the log");
    Ok(exit_code(status?))
}

/// An app that writes right now is waited for.
fn begin(client: &Client) -> Result<(), CommandError> {
    let until = Instant::now() + BEGIN_WITHIN;
    loop {
        match client.post::<Value>("/api/v1/migration", &json!({ "lease_s": LEASE_S }), None) {
            Ok(_) => return Ok(()),
            Err(error) if error.code() == Some("node_busy") && Instant::now() < until => {
                std::thread::sleep(TRY_AGAIN);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Says that the migration goes on until nobody holds the other end. `true`: the node had ended it before.
fn beat(client: &Client, heart: &Receiver<()>) -> bool {
    let mut over_early = false;
    while heart.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
        let renewed = client.post::<Value>("/api/v1/migration/renew", &json!({ "lease_s": LEASE_S }), None);
        if let Err(error) = renewed {
            over_early |= error.code() == Some("migration_over");
            tracing::debug!(%error, "sign of life");
        }
    }
    over_early
}

fn run(command: &[OsString]) -> Result<ExitStatus, CommandError> {
    Command::new(&command[0]).args(&command[1..]).status().map_err(|source| {
        let name = command[0].to_string_lossy().into_owned();
        CommandError::new(Kind::User, format!("cannot start `{name}`"))
            .because(&source)
            .hint("check the command behind `--`")
    })
}
