//! `cargo bench`: what litemesh costs, each thing against its baseline in the same run.
//!
//! One command, one harness. Every line says what was on (durability, verification, audit) and is the median of several
//! rounds in which the measured thing and its baseline take turns; nothing is switched off for a figure. What was measured
//! is kept after every line (`--json`, and PERFORMANCE.md with `--write`), so an interrupted run loses nothing; a part that
//! fails is named and the others go on, but the command then ends with 1.
//! Invariant: nothing is printed that was not measured in this run. Caller: people; `cargo bench -- --help`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod app_cost;
mod app_file;
mod asked;
mod capture;
mod cluster;
mod compare;
mod end_to_end;
mod footprint;
mod hand_written;
mod joining;
mod machine;
mod mesh;
mod receive;
mod report;
mod sample;
mod scale;
mod shape;

// Measured by the simulator as well: one source, two callers, each of which uses a part.
#[allow(dead_code)]
#[path = "../../simulations/bytes.rs"]
mod bytes;
#[allow(dead_code)]
#[path = "../../simulations/reconcile.rs"]
mod reconcile;
#[allow(dead_code)]
#[path = "../../simulations/joining.rs"]
mod stocked;
#[path = "../../tests/support/mod.rs"]
mod support;
/// The simulator's scratch folders, where the shared measurements look for them.
#[path = "../../simulations/world"]
mod world {
    #[allow(dead_code)]
    pub mod scratch;
}

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use asked::{Asked, Item};
use report::Report;

/// The same as the program's: what is measured here is to hold there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Why something could not be measured.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measures one item, line by line.
type Measure = fn(&Asked, &mut Report) -> Result<(), Failure>;

fn measure_of(item: Item) -> Measure {
    match item {
        Item::App => app_cost::measure,
        Item::Capture => capture::measure,
        Item::Receive => receive::measure,
        Item::EndToEnd => end_to_end::measure,
        Item::Compare => compare::measure,
        Item::Joining => joining::measure,
        Item::Footprint => footprint::measure,
        Item::Scale => scale::measure,
    }
}

fn main() -> ExitCode {
    let asked = match Asked::from_arguments(std::env::args().skip(1)) {
        Ok(Some(asked)) => asked,
        Ok(None) => {
            println!("{}", asked::HELP);
            return ExitCode::SUCCESS;
        }
        Err(words) => {
            eprintln!("{words}\n\n{}", asked::HELP);
            return ExitCode::from(2);
        }
    };
    let mut report = match Report::begin(&asked) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut failed = Vec::new();
    for item in &asked.items {
        report.open(*item);
        let measure = measure_of(*item);
        // A process or a file that misbehaves ends one item, not the run.
        let result = catch_unwind(AssertUnwindSafe(|| measure(&asked, &mut report)));
        let words = match result {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("it panicked; the words are above".to_owned()),
        };
        if let Err(error) = report.close(words.as_deref()) {
            failed.push(format!("{}: cannot be kept: {error}", item.name()));
        }
        failed.extend(words.map(|words| format!("{}: {words}", item.name())));
    }
    let unmet = report.unmet();
    println!("\n{} lines measured; budgets not met: {}", report.lines(), unmet.len());
    unmet.iter().for_each(|line| println!("  {line}"));
    failed.iter().for_each(|line| eprintln!("not measured: {line}"));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
