//! Scale: what one change costs a cluster of 2 to 64 servers.
//!
//! All in one thread, virtual time, every frame takes 5 ms; every server is connected to every other, each with a real log and
//! file. Announcements are counted as sent to everybody once (a mesh that works). The first server's app writes rows one at a
//! time, and each has arrived before the next. Invariant: afterwards all files are equal. Does not count: the transport,
//! gossip's own traffic, computing. Caller: main.

use crate::Failure;
use crate::asked::Asked;
use crate::mesh::{Mesh, file_of};
use crate::report::{Line, Report};
use crate::sample::Sample;
use crate::shape::{self, Ids, USUAL};

const ON: &str = "logs durable, verified, audit on; rows of 178 B";
const DELAY_MS: u64 = 5;

pub(crate) fn measure(asked: &Asked, report: &mut Report) -> Result<(), Failure> {
    let mut costs = Vec::new();
    for count in asked.of(vec![2, 4], vec![2, 4, 8, 16, 32], vec![2, 4, 8, 16, 32, 64]) {
        let cost = change(asked, count)?;
        let words = format!("{count} servers: frames per change");
        let line = Line::new(words, Sample::of(cost.frames), "frames", ON);
        report.push(line.also(format!(
            "{:.0} B in all, {:.0} B per receiver; on all servers after {:.0} virtual ms; hellos of an idle minute {:.0} B",
            cost.bytes,
            cost.bytes / (count - 1) as f64,
            cost.ms,
            cost.idle,
        )))?;
        costs.push((count as f64, cost));
    }
    for (words, of) in [
        ("frames", (|cost| cost.frames) as fn(&Cost) -> f64),
        ("bytes", |cost| cost.bytes),
        ("virtual ms", |cost| cost.ms),
    ] {
        let points: Vec<(f64, f64)> = costs.iter().map(|(count, cost)| (*count, of(cost))).collect();
        let words = format!("growth law: {words} per change grow with the number of servers to the power of");
        report.push(Line::new(
            words,
            Sample::of(exponent(&points)),
            "",
            "least squares over the lines above, in logarithms",
        ))?;
    }
    Ok(())
}

/// What one change costs.
struct Cost {
    frames: f64,
    bytes: f64,
    ms: f64,
    /// Bytes of a minute in which nobody writes.
    idle: f64,
}

fn change(asked: &Asked, count: usize) -> Result<Cost, Failure> {
    let scratch = tempfile::tempdir_in(&asked.folder)?;
    let mut mesh = Mesh::found(scratch.path(), count, &USUAL.schema())?;
    mesh.delay_ms = DELAY_MS;
    mesh.meet()?;
    mesh.pass(1_000)?;
    let quiet = mesh.bytes;
    mesh.pass(60_000)?;
    let idle = (mesh.bytes - quiet) as f64;
    let mut app = shape::open(&file_of(scratch.path(), 0), "NORMAL")?;
    let changes = asked.of(3, 10, 10);
    let (mut frames, mut bytes, mut ms) = (0, 0, 0);
    for number in 0..changes {
        let before = (mesh.frames, mesh.bytes, mesh.now.mono_ms);
        shape::insert_rows(&mut app, USUAL, number..number + 1, Ids::Free)?;
        mesh.capture(0)?;
        mesh.until("the change is everywhere", |mesh| {
            let mut all = true;
            for node in &mesh.nodes {
                all &= node.status(mesh.now)?.databases[0].rows == number + 1;
            }
            Ok(all)
        })?;
        ms += mesh.now.mono_ms - before.2;
        // What is said of it afterwards counts as well.
        mesh.pass(1_000)?;
        frames += mesh.frames - before.0;
        bytes += mesh.bytes - before.1;
    }
    mesh.settle()?;
    let each = |sum: u64| sum as f64 / changes as f64;
    Ok(Cost { frames: each(frames), bytes: each(bytes), ms: each(ms), idle })
}

/// The k of y = c·xᵏ that fits best.
fn exponent(points: &[(f64, f64)]) -> f64 {
    let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let n = logs.len() as f64;
    let (mean_x, mean_y) = (logs.iter().map(|p| p.0).sum::<f64>() / n, logs.iter().map(|p| p.1).sum::<f64>() / n);
    let over: f64 = logs.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    over / logs.iter().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>()
}
