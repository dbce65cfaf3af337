//! Ordeals: the real `litemesh` binary, with real processes, real files and real faults of the machine.
//!
//! Every command makes its own servers in a scratch directory, puts them through one kind of fault, and compares what is
//! left with what the applications were told (`ordeal/record.rs`). Progress goes to stderr, one line with the figures to
//! stdout. Exit codes: 0 fine, 1 something was lost, doubled or cannot be opened, 2 usage, 4 cannot run here. More in
//! `README.md`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "ordeal/all.rs"]
mod all;
#[path = "ordeal/app.rs"]
mod app;
#[path = "ordeal/clock.rs"]
mod clock;
#[path = "ordeal/cycle.rs"]
mod cycle;
#[path = "ordeal/damage.rs"]
mod damage;
#[path = "ordeal/damage_world.rs"]
mod damage_world;
#[path = "world/dice.rs"]
mod dice;
#[path = "ordeal/flips.rs"]
mod flips;
#[path = "ordeal/full.rs"]
mod full;
#[path = "ordeal/host.rs"]
mod host;
#[path = "ordeal/kill.rs"]
mod kill;
#[path = "ordeal/outcome.rs"]
mod outcome;
#[path = "ordeal/power.rs"]
mod power;
#[path = "ordeal/record.rs"]
mod record;
#[path = "ordeal/server.rs"]
mod server;
#[path = "ordeal/syscalls.rs"]
mod syscalls;
#[path = "ordeal/trace.rs"]
mod trace;
#[path = "ordeal/twice.rs"]
mod twice;
#[path = "ordeal/world.rs"]
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};

use host::{Scratch, litemesh};
use outcome::{Figures, Trouble};

/// Puts the real litemesh through what a machine can do to it.
#[derive(Debug, Parser)]
#[command(name = "ordeal", disable_help_subcommand = true)]
#[command(after_help = "Exit codes: 0 fine, 1 lost, doubled or unopenable, 2 usage, 4 cannot run here.")]
struct Cli {
    #[command(flatten)]
    asked: Asked,
    /// The program under test [default: `litemesh` beside this one]
    #[arg(long, global = true, value_name = "PATH")]
    litemesh: Option<PathBuf>,
    /// Where the scratch directory is made [default: the system's]
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print the figures as one JSON document
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Ordeal,
}

/// How much, and which draws.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Asked {
    /// Begin nothing new after so many seconds
    #[arg(long, global = true)]
    secs: Option<u64>,
    /// So many rounds
    #[arg(long, global = true)]
    count: Option<u64>,
    /// Where the draws begin
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    /// Only every so many-th point (`syscalls`)
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
}

#[derive(Debug, Subcommand)]
enum Ordeal {
    /// kill -9 of nodes and applications, in a loop, while both write
    Kill,
    /// SIGKILL, EIO and ENOSPC at every write, sync, rename, unlink and creation of a full cycle (needs strace)
    Syscalls,
    /// Power cuts: ext4 in a loop file, its backing file copied while node and application work (needs root)
    Power,
    /// Full disks: the log's, and the application's (needs root or user namespaces)
    Full,
    /// One-bit flips in the log, the files, the key and the small files
    Flips,
    /// A replica's file damaged 1,000 times: found, named, healed? (in this process, no servers)
    Damage,
    /// Clocks that are wrong by up to a century, another one after each restart (needs faketime)
    Clock,
    /// Two processes on one directory, a copied directory, files replaced, read-only, with a foreign -wal
    Twice,
    /// Everything that can run here, each for its share of --secs (default 60)
    All,
    /// The application of the other commands; not for people
    #[command(hide = true)]
    App(app::Work),
}

impl Asked {
    /// Whether another round is wanted. Without `--count` and `--secs`: 20 seconds.
    fn goes_on(&self, done: u64, started: Instant) -> bool {
        let secs = self.secs.or(if self.count.is_none() { Some(20) } else { None });
        self.count.is_none_or(|count| done < count)
            && secs.is_none_or(|secs| started.elapsed() < Duration::from_secs(secs))
    }
}

/// Tells how far it is.
fn progress(text: &str) {
    eprintln!("  {text}");
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Ordeal::App(work) = &cli.command {
        return ExitCode::from(app::work(work));
    }
    let started = Instant::now();
    let name = name(&cli.command);
    let result = call(&cli, name);
    match result {
        Ok(mut figures) => {
            figures.set("seconds", started.elapsed().as_secs());
            figures.set("seed", cli.asked.seed);
            if cli.json {
                println!("{}", figures.json());
            } else {
                println!("ordeal {name}: fine: {}", figures.line());
            }
            ExitCode::SUCCESS
        }
        Err(trouble) => {
            if cli.json {
                println!(
                    "{}",
                    serde_json::json!({ "ordeal": name, "trouble": trouble.to_string(), "seed": cli.asked.seed })
                );
            } else {
                println!("ordeal {name}: {trouble} (seed {})", cli.asked.seed);
            }
            ExitCode::from(trouble.exit_code())
        }
    }
}

fn name(command: &Ordeal) -> &'static str {
    match command {
        Ordeal::Kill => "kill",
        Ordeal::Syscalls => "syscalls",
        Ordeal::Power => "power",
        Ordeal::Full => "full",
        Ordeal::Clock => "clock",
        Ordeal::Flips => "flips",
        Ordeal::Damage => "damage",
        Ordeal::Twice => "twice",
        Ordeal::All => "all",
        Ordeal::App(_) => "app",
    }
}

fn call(cli: &Cli, name: &str) -> Result<Figures, Trouble> {
    // The nodes of this one are in this process.
    let inside = matches!(cli.command, Ordeal::Damage);
    let litemesh = if inside { PathBuf::new() } else { litemesh(cli.litemesh.as_deref())? };
    let base = cli.dir.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = Scratch::new(&base, name)?;
    let result = one(&cli.command, &cli.asked, &litemesh, &scratch);
    if let Err(Trouble::Wrong(_)) = &result {
        scratch.keep();
        progress(&format!("what is left is kept in {}", scratch.path().display()));
    }
    result
}

fn one(command: &Ordeal, asked: &Asked, litemesh: &Path, scratch: &Scratch) -> Result<Figures, Trouble> {
    match command {
        Ordeal::Kill => kill::call(asked, litemesh, scratch.path()),
        Ordeal::Syscalls => syscalls::call(asked, litemesh, scratch.path()),
        Ordeal::Power => power::call(asked, litemesh, scratch.path()),
        Ordeal::Full => full::call(asked, litemesh, scratch.path()),
        Ordeal::Clock => clock::call(asked, litemesh, scratch.path()),
        Ordeal::Flips => flips::call(asked, litemesh, scratch.path()),
        Ordeal::Damage => damage::call(asked, scratch.path()),
        Ordeal::Twice => twice::call(asked, litemesh, scratch.path()),
        Ordeal::All => all::call(asked, litemesh, scratch.path()),
        Ordeal::App(_) => Ok(Figures::default()),
    }
}
