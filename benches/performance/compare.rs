//! Reconciliation: what it takes to find the rows that differ, and to bring what is behind.
//!
//! The measurements are the simulator's (`simulations/reconcile.rs`, `simulations/bytes.rs`): real logs, the real codec.
//! Invariant: as there: exactly the rows that differ are found. Caller: main.

use crate::Failure;
use crate::asked::Asked;
use crate::bytes::{Case, Met, meet};
use crate::reconcile::{Stock, bound};
use crate::report::{Budget, Line, Report};
use crate::sample::Sample;

const FINGERPRINTS: &str = "every message encoded, decoded and bounded; logs on disk";
const FRAMES: &str = "all frames; logs durable, verified; rows of random text";

pub(crate) fn measure(asked: &Asked, report: &mut Report) -> Result<(), Failure> {
    for rows in asked.of(vec![10_000], vec![10_000, 100_000], vec![10_000, 100_000, 1_000_000, 10_000_000]) {
        descents(asked, report, rows).map_err(|error| error.to_string())?;
    }
    let base = asked.of(2_000, 20_000, 1_000_000);
    for (words, behind) in
        [("in sync", (0, 0)), ("100 rows behind, one by one", (100, 1)), ("100,000 rows behind", (200, 500))]
    {
        let scratch = tempfile::tempdir_in(&asked.folder)?;
        let Met { rows_bytes, bytes, took, .. } = meet(scratch.path(), base, &Case { words, servers: 2, behind })?;
        let mut line =
            Line::new(format!("{base} events, {words}: bytes both ways"), Sample::of(bytes as f64), "B", FRAMES);
        line = match behind {
            (0, _) => line.value_within(Budget::Most(1_024.0, "≤ 1 KB")),
            (100, _) => line.value_within(Budget::Most(rows_bytes as f64 + 4_096.0, "≤ payload + 4 KB")),
            _ => line,
        };
        if rows_bytes > 0 {
            line = line.against("the rows as plain data", Sample::of(rows_bytes as f64));
        }
        report.push(line.also(format!("{took} virtual ms, 5 ms a frame")))?;
    }
    Ok(())
}

fn descents(asked: &Asked, report: &mut Report, rows: u64) -> Result<(), Box<dyn std::error::Error>> {
    let scratch = tempfile::tempdir_in(&asked.folder)?;
    let (stock, _, micros) = Stock::new(scratch.path(), rows)?;
    for (differ, recent) in [(0, false), (1, false), (100, false), (100, true), (10_000, false)] {
        if differ * 2 > rows {
            continue;
        }
        let found = stock.find(&stock.other(differ, recent)?, differ)?;
        let which = if recent { "the newest " } else { "" };
        let words = format!("{rows} rows, {which}{differ} differ: bytes both ways");
        let mut line = Line::new(words, Sample::of(found.bytes as f64), "B", FINGERPRINTS);
        if differ == 0 {
            line = line.value_within(Budget::Most(100.0, "≤ 100 bytes"));
        } else {
            line = line.against("all ids, 16 B each", Sample::of(rows as f64 * 16.0));
        }
        let bound = bound(rows, differ);
        let words = format!(
            "{} round trips, {:.1} ms of both sides; bound {bound} B; root in {micros} µs",
            found.rounds, found.ms
        );
        report.push(line.also(words)).map_err(|error| error.to_string())?;
    }
    Ok(())
}
