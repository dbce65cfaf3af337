//! A new server: how soon it is of use, by events and by a snapshot.
//!
//! The measurement is the simulator's (`simulations/joining.rs`): two real nodes in threads of their own, frames through
//! memory. The baseline is a copy of the giver's file with its sync, which knows nothing of history or later writes.
//! Invariant: as there. Caller: main.

use std::fs::File;

use crate::Failure;
use crate::asked::Asked;
use crate::report::{Budget, Line, Report};
use crate::sample::{in_turns, timed};
use crate::stocked::{RAW, Way, measure as join, stock};

const ON: &str = "log durable, verified, audit on, FULL";

pub(crate) fn measure(asked: &Asked, report: &mut Report) -> Result<(), Failure> {
    let rows = asked.of(12_000, 100_000, 1_000_000);
    let scratch = tempfile::tempdir_in(&asked.folder)?;
    let stock = stock(scratch.path(), rows)?;
    let ways = [Way::Events, Way::Snapshot, Way::SnapshotWriting];
    let mut also = vec![String::new(); ways.len()];
    let samples = in_turns(asked.rounds(2), ways.len() + 1, |way, _| -> Result<f64, Failure> {
        let Some(chosen) = ways.get(way) else {
            let copied = scratch.path().join("copied.db");
            let (_, took) = timed(|| -> std::io::Result<()> {
                std::fs::copy(stock.join("scouting.db"), &copied)?;
                File::open(&copied)?.sync_all()
            })?;
            return Ok(rows as f64 / took.as_secs_f64());
        };
        let joined = join(&stock, scratch.path(), rows, *chosen)?;
        let times = &joined.times;
        also[way] = format!(
            "joined {:.2} s, whole history {:.2} s; {:.2} of the raw bytes until usable; apps refused: {}",
            times.joined.as_secs_f64(),
            times.complete.as_secs_f64(),
            times.bytes_usable as f64 / (rows * RAW) as f64,
            joined.busy,
        );
        Ok(rows as f64 / times.usable.as_secs_f64())
    })?;
    for (at, way) in ways.iter().enumerate() {
        let words = format!("{rows} rows, by {}: meeting to all rows visible", way.words());
        let mut line = Line::new(words, samples[at].clone(), "rows/s", ON);
        line = line.against("a file copy, synced", samples[ways.len()].clone());
        if *way == Way::Snapshot {
            line = line.value_within(Budget::Least(400_000.0, "≥ 400,000 rows/s"));
        }
        report.push(line.also(also[at].clone()))?;
    }
    Ok(())
}
