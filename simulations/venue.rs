//! Venues: the real `litemesh` binary on several hosts of a network that is made for the run, with links that fail,
//! attackers on the same switch, and somebody who listens.
//!
//! Every command makes its own hosts as network namespaces (`venue/network.rs`) inside namespaces of the whole run
//! (`venue/isolate.rs`), measures, and compares what is left with what was written. Progress goes to stderr, a table to
//! stdout. Exit codes: 0 fine, 1 something was lost, read by a stranger or never arrived (with `--strict`: or a target
//! was missed), 2 usage, 4 cannot run here. More in `README.md`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

// What `ordeal` uses of these and `venue` does not.
#[allow(dead_code)]
#[path = "ordeal/app.rs"]
mod app;
#[path = "venue/attacks.rs"]
mod attacks;
#[path = "venue/bytes.rs"]
mod bytes;
#[path = "venue/capture.rs"]
mod capture;
#[path = "venue/cluster.rs"]
mod cluster;
#[allow(dead_code)]
#[path = "world/dice.rs"]
mod dice;
#[path = "venue/eavesdrop.rs"]
mod eavesdrop;
#[path = "venue/find.rs"]
mod find;
#[allow(dead_code)]
#[path = "ordeal/host.rs"]
mod host;
#[path = "venue/isolate.rs"]
mod isolate;
#[path = "venue/links.rs"]
mod links;
#[path = "venue/network.rs"]
mod network;
#[allow(dead_code)]
#[path = "ordeal/outcome.rs"]
mod outcome;
#[allow(dead_code)]
#[path = "ordeal/record.rs"]
mod record;
#[allow(dead_code)]
#[path = "ordeal/server.rs"]
mod server;
#[path = "venue/table.rs"]
mod table;
#[path = "venue/worker.rs"]
mod worker;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};

use host::{Scratch, litemesh};
use outcome::Trouble;
use table::Table;

/// Puts the real litemesh on the networks of venues.
#[derive(Debug, Parser)]
#[command(name = "venue", disable_help_subcommand = true)]
#[command(after_help = "Exit codes: 0 fine, 1 lost, read or never arrived, 2 usage, 4 cannot run here.")]
struct Cli {
    #[command(flatten)]
    asked: Asked,
    /// The program under test [default: `litemesh` beside this one]
    #[arg(long, global = true, value_name = "PATH")]
    litemesh: Option<PathBuf>,
    /// Where the scratch directory is made [default: the system's]
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long, global = true)]
    json: bool,
    /// A missed target fails the run
    #[arg(long, global = true)]
    strict: bool,
    /// The scratch directory, when this process is inside already; not for people
    #[arg(long, global = true, hide = true)]
    inside: Option<PathBuf>,
    #[command(subcommand)]
    command: Venue,
}

/// How much, and which draws.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Asked {
    /// So many rounds of everything [default: each its own]
    #[arg(long, global = true)]
    pub rounds: Option<u64>,
    /// Begin nothing new after so many seconds
    #[arg(long, global = true)]
    pub secs: Option<u64>,
    /// Where the draws begin
    #[arg(long, global = true, default_value_t = 1)]
    pub seed: u64,
    /// What takes many minutes, too
    #[arg(long, global = true)]
    pub long: bool,
}

#[derive(Debug, Subcommand)]
enum Venue {
    /// Servers of one cluster, all started cold: until they found each other and hold the same
    Find(find::Options),
    /// Cables out, other addresses, one-way links, loss: until all hold the same again
    Links(links::Options),
    /// Floods, slow and lying peers from a machine on the same switch: what they cost the node and its application
    Attacks(attacks::Options),
    /// What somebody who listens, a stranger, another cluster and a used join code can read (needs tcpdump)
    Eavesdrop,
    /// Bytes on the wire: at rest, one row, many rows, a server that was away
    Bytes(bytes::Options),
    /// The attacker of the other commands; not for people
    #[command(hide = true)]
    Attacker(worker::Work),
}

/// Tells how far it is.
fn progress(text: &str) {
    eprintln!("  {text}");
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Venue::Attacker(work) = &cli.command {
        return ExitCode::from(worker::work(work));
    }
    let name = name(&cli.command);
    let Some(root) = &cli.inside else { return outside(&cli, name) };
    let began = Instant::now();
    let result = litemesh(cli.litemesh.as_deref()).and_then(|litemesh| {
        isolate::prepare()?;
        call(&cli, &litemesh, root)
    });
    match result {
        Ok(mut table) => {
            // Figures of a busy machine are figures of a busy machine.
            let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
            table.note(format!("load average at the end: {}", load.split(' ').take(3).collect::<Vec<_>>().join(" ")));
            let (seed, seconds) = (cli.asked.seed, began.elapsed().as_secs());
            if cli.json {
                let document = serde_json::json!({ "venue": name, "seed": seed, "seconds": seconds });
                println!("{}", merged(document, table.json()));
            } else {
                print!("{}", table.text());
                let end = if table.is_wrong() { "WRONG" } else { "fine" };
                println!("venue {name}: {end}, {} targets missed, {seconds} s, seed {seed}", table.missed());
            }
            ExitCode::from(u8::from(table.is_wrong() || cli.strict && table.missed() > 0))
        }
        Err(trouble) => told(&cli, name, &trouble),
    }
}

/// The process that a person starts: makes the scratch directory and starts this program again inside.
fn outside(cli: &Cli, name: &str) -> ExitCode {
    let base = cli.dir.clone().unwrap_or_else(std::env::temp_dir);
    let result = Scratch::new(&base, &format!("venue-{name}")).and_then(|scratch| {
        let code = isolate::again(scratch.path())?;
        if code == 1 {
            scratch.keep();
            progress(&format!("what is left is kept in {}", scratch.path().display()));
        }
        Ok(code)
    });
    result.map_or_else(|trouble| told(cli, name, &trouble), ExitCode::from)
}

fn told(cli: &Cli, name: &str, trouble: &Trouble) -> ExitCode {
    if cli.json {
        let document = serde_json::json!({ "venue": name, "trouble": trouble.to_string(), "seed": cli.asked.seed });
        println!("{document}");
    } else {
        println!("venue {name}: {trouble} (seed {})", cli.asked.seed);
    }
    ExitCode::from(trouble.exit_code())
}

fn merged(mut first: serde_json::Value, second: serde_json::Value) -> serde_json::Value {
    if let (Some(first), serde_json::Value::Object(second)) = (first.as_object_mut(), second) {
        first.extend(second);
    }
    first
}

fn name(command: &Venue) -> &'static str {
    match command {
        Venue::Find(_) => "find",
        Venue::Links(_) => "links",
        Venue::Attacks(_) => "attacks",
        Venue::Eavesdrop => "eavesdrop",
        Venue::Bytes(_) => "bytes",
        Venue::Attacker(_) => "attacker",
    }
}

fn call(cli: &Cli, litemesh: &Path, root: &Path) -> Result<Table, Trouble> {
    match &cli.command {
        Venue::Find(options) => find::call(&cli.asked, options, litemesh, root),
        Venue::Links(options) => links::call(&cli.asked, options, litemesh, root),
        Venue::Attacks(options) => attacks::call(&cli.asked, options, litemesh, root),
        Venue::Eavesdrop => eavesdrop::call(&cli.asked, litemesh, root),
        Venue::Bytes(options) => bytes::call(&cli.asked, options, litemesh, root),
        Venue::Attacker(_) => Ok(Table::default()),
    }
}
