//! Floor L5: the command line, one file per command.
//!
//! Every command asks the running node over HTTP, or works on a data directory without one; it prints results on stdout
//! and everything else on stderr. Invariant: all text is here, all exit codes are [`error::Kind`]'s; every error a user can
//! cause names its cause and the next action. Called by `main`.

mod admit;
mod alerts;
mod archive;
mod bundle;
mod cleanup;
mod client;
mod compare;
mod completions;
mod conflicts;
mod dashboard;
mod decide;
mod demo;
mod demo_cluster;
mod diff;
mod doctor;
mod duplicates;
mod eject;
mod error;
mod history;
mod init;
mod invite;
mod join;
mod key;
mod log;
mod man;
mod meeting_text;
mod migrate;
mod output;
mod peers;
mod preflight;
mod rebuild;
mod receipts;
mod recover_admin;
mod reliability;
mod request;
mod rules;
mod run;
mod shelf;
mod status;
mod sync;
mod track;
mod trust_lan;
mod undo;
mod verify;
mod whereabouts;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, Config, Flags};
use client::Client;
use error::{CommandError, Kind};
use output::Output;

/// Keeps an ordinary application's SQLite files the same on every server: no hub, no change to the application, no row
/// lost.
#[derive(Debug, Parser)]
#[command(name = "litemesh", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 your error or the data's, 2 usage, 3 the node does not run, 4 integrity, 70 internal."
)]
pub struct Cli {
    /// Data directory: event log, key and token [default: ./litemesh-data]
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Configuration file [default: ./litemesh.toml when it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON document (JSON lines for streams)
    #[arg(long, global = true)]
    json: bool,
    /// Say more on stderr; twice: still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
    /// Say only errors on stderr
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Form of the log lines on stderr: text, or json (one object per line)
    #[arg(long, global = true, value_name = "FORMAT", value_parser = ["text", "json"])]
    log_format: Option<String>,
    /// Say everything about one part of the program, like net or node::exchange; may be repeated
    #[arg(long, global = true, value_name = "PART")]
    debug_target: Vec<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Arguments),
    Init(init::Arguments),
    Invite(invite::Arguments),
    Join(join::Arguments),
    Admit(admit::Arguments),
    Preflight(preflight::Arguments),
    Status(status::Arguments),
    Sync(sync::Arguments),
    Log(log::Arguments),
    History(history::Arguments),
    Conflicts(conflicts::Arguments),
    Duplicates(duplicates::Arguments),
    Shelf(shelf::Arguments),
    Merge(decide::MergeArguments),
    Split(decide::SplitArguments),
    Where(whereabouts::Arguments),
    Rules(rules::Arguments),
    Peers(peers::Arguments),
    TrustLan(trust_lan::Arguments),
    RecoverAdmin(recover_admin::Arguments),
    Key(key::Arguments),
    Bundle(bundle::Arguments),
    Receipts(receipts::Arguments),
    Reliability(reliability::Arguments),
    Alerts(alerts::Arguments),
    Track(track::Arguments),
    Rebuild(rebuild::Arguments),
    AsOf(rebuild::AsOfArguments),
    Dashboard(dashboard::Arguments),
    Cleanup(cleanup::Arguments),
    Archive(archive::Arguments),
    Diff(diff::Arguments),
    Undo(undo::Arguments),
    Restore(undo::RestoreArguments),
    Verify(verify::Arguments),
    Drift(verify::DriftArguments),
    Migrate(migrate::Arguments),
    Doctor(doctor::Arguments),
    Eject(eject::Arguments),
    Demo(demo::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

/// What every command gets besides its own arguments.
struct Context {
    flags: Flags,
    directory: PathBuf,
    output: Output,
}

impl Context {
    /// All settings, with a command's own flags on top.
    fn config(&self, adjust: impl FnOnce(&mut Flags)) -> Result<Config, CommandError> {
        let mut flags = self.flags.clone();
        adjust(&mut flags);
        let environment = |name: &str| std::env::var(name).ok();
        Ok(config::load(&flags, &environment, &self.directory)?)
    }

    /// The way to the running node.
    fn client(&self) -> Result<Client, CommandError> {
        Client::connect(&self.config(|_| {})?)
    }
}

/// Parses the arguments, does what they say, gives the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout and are no errors; a closed pipe is nobody's error.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { Kind::Usage.exit_code() } else { 0 });
        }
    };
    if let Err(error) = start_log(&cli) {
        return finish(&error);
    }
    let output = Output::new(cli.json, cli.quiet);
    let directory = match std::env::current_dir() {
        Ok(directory) => directory,
        Err(source) => return finish(&CommandError::user("the working directory is gone").because(&source)),
    };
    let flags = Flags { config: cli.config, data: cli.data, ..Flags::default() };
    let context = Context { flags, directory, output };
    match call(cli.command, &context) {
        Ok(code) => code,
        Err(error) => finish(&error),
    }
}

/// Does it. Only a command that runs another one has an exit code of its own.
fn call(command: Command, context: &Context) -> Result<ExitCode, CommandError> {
    match command {
        Command::Run(arguments) => run::call(context, arguments),
        Command::Init(arguments) => init::call(context, arguments),
        Command::Invite(arguments) => invite::call(context, &arguments),
        Command::Join(arguments) => join::call(context, arguments),
        Command::Admit(arguments) => admit::call(context, &arguments),
        Command::Preflight(arguments) => preflight::call(context, arguments),
        Command::Status(arguments) => status::call(context, &arguments),
        Command::Sync(arguments) => sync::call(context, &arguments),
        Command::Log(arguments) => log::call(context, arguments),
        Command::History(arguments) => history::call(context, &arguments),
        Command::Conflicts(arguments) => conflicts::call(context, &arguments),
        Command::Duplicates(arguments) => duplicates::call(context, &arguments),
        Command::Shelf(arguments) => shelf::call(context, &arguments),
        Command::Merge(arguments) => decide::merge(context, &arguments),
        Command::Split(arguments) => decide::split(context, &arguments),
        Command::Where(arguments) => whereabouts::call(context, &arguments),
        Command::Rules(arguments) => rules::call(context, &arguments),
        Command::Peers(arguments) => peers::call(context, &arguments),
        Command::TrustLan(arguments) => trust_lan::call(context, &arguments),
        Command::RecoverAdmin(arguments) => recover_admin::call(context, &arguments),
        Command::Key(arguments) => key::call(context, &arguments),
        Command::Bundle(arguments) => bundle::call(context, &arguments),
        Command::Receipts(arguments) => receipts::call(context, &arguments),
        Command::Reliability(arguments) => reliability::call(context, &arguments),
        Command::Alerts(arguments) => alerts::call(context, &arguments),
        Command::Track(arguments) => return track::call(context, arguments),
        Command::Rebuild(arguments) => rebuild::call(context, &arguments),
        Command::AsOf(arguments) => rebuild::call_as_of(context, &arguments),
        Command::Dashboard(arguments) => dashboard::call(context, &arguments),
        Command::Cleanup(arguments) => cleanup::call(context, &arguments),
        Command::Archive(arguments) => archive::call(context, &arguments),
        Command::Diff(arguments) => diff::call(context, &arguments),
        Command::Undo(arguments) => undo::call(context, &arguments),
        Command::Restore(arguments) => undo::call_restore(context, &arguments),
        Command::Verify(arguments) => verify::call(context, &arguments),
        Command::Drift(arguments) => verify::call_drift(context, &arguments),
        Command::Migrate(arguments) => return migrate::call(context, &arguments),
        Command::Doctor(arguments) => doctor::call(context, &arguments),
        Command::Eject(arguments) => eject::call(context, arguments),
        Command::Demo(arguments) => demo::call(context, &arguments),
        Command::Completions(arguments) => completions::call(context, &arguments),
        Command::Man(arguments) => man::call(context, &arguments),
    }
    .map(|()| ExitCode::SUCCESS)
}

fn finish(error: &CommandError) -> ExitCode {
    output::write_error(&error.to_string());
    ExitCode::from(error.kind.exit_code())
}

/// Log lines on stderr: for `run` what happens, for the others what goes wrong. `LITEMESH_LOG` overrides. Values of rows are
/// in no line above debug.
fn start_log(cli: &Cli) -> Result<(), CommandError> {
    use tracing_subscriber::EnvFilter;
    let usual = if matches!(cli.command, Command::Run(_)) { "info" } else { "warn" };
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => "error",
        (false, 0) => usual,
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    let own = format!("warn,litemesh={level}");
    let filter = std::env::var("LITEMESH_LOG").ok().and_then(|text| EnvFilter::try_new(text).ok());
    let mut filter = filter.unwrap_or_else(|| EnvFilter::new(if cli.verbose > 2 { level } else { &own }));
    for part in &cli.debug_target {
        let part = part.strip_prefix("litemesh::").unwrap_or(part);
        let fits = part.split("::").all(|name| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        });
        let directive = format!("litemesh::{part}=trace").parse();
        match directive {
            Ok(directive) if fits => filter = filter.add_directive(directive),
            _ => {
                let error = CommandError::usage(format!("`--debug-target {part}` is no part of the program"));
                return Err(error.hint("name a module, like net, node or node::exchange"));
            }
        }
    }
    let subscriber = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).with_ansi(false);
    // Only a second call can fail, and there is none.
    let _ = match wants_json(cli) {
        true => subscriber.json().flatten_event(true).try_init(),
        false => subscriber.with_target(!cli.debug_target.is_empty()).try_init(),
    };
    Ok(())
}

/// The flag, else the settings; settings that cannot be read are told of by the command itself.
fn wants_json(cli: &Cli) -> bool {
    if let Some(format) = &cli.log_format {
        return format == "json";
    }
    let flags = Flags { config: cli.config.clone(), data: cli.data.clone(), ..Flags::default() };
    let environment = |name: &str| std::env::var(name).ok();
    let directory = std::env::current_dir().unwrap_or_default();
    config::load(&flags, &environment, &directory).is_ok_and(|config| config.log_json)
}

/// `NAME=PATH` of `--db`.
fn database(text: &str) -> Result<(String, PathBuf), String> {
    config::parse_database(text).map_err(|_| "write it as NAME=PATH, like scouting=instance/scouting.db".to_string())
}

/// `DB.TABLE` of several commands.
fn table_of(text: &str) -> Result<(String, String), String> {
    match text.split_once('.') {
        Some((database, table)) if !database.is_empty() && !table.is_empty() => Ok((database.into(), table.into())),
        _ => Err("write it as DB.TABLE, like scouting.team".to_string()),
    }
}
