//! `venue links`: what happens to a link in a venue, and how long it takes until all servers hold the same again.
//!
//! Every round one server, drawn, gets the fault; it and the others go on writing. Measured from the moment the fault is
//! gone: until every row written during it is shown on every server. QUIC and TCP have a cluster and a switch each, and
//! run at the same time. Does not verify: delay and reordering (they need a relay; the virtual network of `simulate` has
//! them), faults of several servers at once. Callers: `main`.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::cluster::{Cluster, Transports};
use super::dice::Dice;
use super::network::Family;
use super::outcome::Trouble;
use super::table::{Table, Times};
use super::{Asked, progress};

/// The figure to reach: in sync after the fault is gone, p99, in seconds.
const WITHIN_S: f64 = 3.0;

/// Between two rows of one server while the fault lasts.
const PAUSE: Duration = Duration::from_millis(500);

/// Between two rounds, at most.
const BETWEEN_MS: u64 = 4_000;

/// What it takes beside the options of all commands.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// So many servers
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(2..=32))]
    nodes: u8,
    /// Only these faults
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Fault>,
}

/// What happens to the link of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// The cable is out for 2 s
    Down2s,
    /// The cable is out for 30 s
    Down30s,
    /// The cable is out for 10 minutes (only with --long)
    Down10m,
    /// Another address, at once
    Address,
    /// For 15 s it sends and hears nothing
    OneWay,
    /// For 10 s every server loses 40 of 100 packets that reach it
    Loss40,
    /// The node is killed, and started again at once
    Restart,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Fault::Down2s => "link down 2 s",
            Fault::Down30s => "link down 30 s",
            Fault::Down10m => "link down 10 min",
            Fault::Address => "address change",
            Fault::OneWay => "deaf for 15 s",
            Fault::Loss40 => "40 % loss for 10 s",
            Fault::Restart => "node killed, started",
        }
    }

    fn lasts(self) -> Duration {
        Duration::from_secs(match self {
            Fault::Down2s => 2,
            Fault::Down30s => 30,
            Fault::Down10m => 600,
            Fault::Address | Fault::Restart => 0,
            Fault::OneWay => 15,
            Fault::Loss40 => 10,
        })
    }

    /// Rounds when nothing is said: what is quick is done more often.
    fn rounds(self) -> u64 {
        match self {
            Fault::Down2s | Fault::Address | Fault::Restart => 10,
            Fault::OneWay | Fault::Loss40 => 4,
            Fault::Down30s => 3,
            Fault::Down10m => 1,
        }
    }

    fn begin(self, cluster: &mut Cluster, victim: usize) -> Result<(), Trouble> {
        match self {
            Fault::Down2s | Fault::Down30s | Fault::Down10m => cluster.hosts[victim].plugged(false),
            Fault::Address => cluster.move_one(victim),
            Fault::OneWay => cluster.hosts[victim].lossy(100),
            Fault::Loss40 => cluster.hosts.iter().try_for_each(|host| host.lossy(40)),
            Fault::Restart => cluster.servers[victim].kill(),
        }
    }

    fn end(self, cluster: &mut Cluster, victim: usize) -> Result<(), Trouble> {
        match self {
            Fault::Down2s | Fault::Down30s | Fault::Down10m => cluster.hosts[victim].plugged(true),
            Fault::Address => Ok(()),
            Fault::OneWay => cluster.hosts[victim].lossy(0),
            Fault::Loss40 => cluster.hosts.iter().try_for_each(|host| host.lossy(0)),
            Fault::Restart => cluster.start_all(Instant::now()).map(drop),
        }
    }
}

/// See the module.
pub fn call(asked: &Asked, options: &Options, litemesh: &Path, root: &Path) -> Result<Table, Trouble> {
    let all =
        [Fault::Down2s, Fault::Address, Fault::Restart, Fault::OneWay, Fault::Loss40, Fault::Down30s, Fault::Down10m];
    let named = |fault: &Fault| options.only.is_empty() || options.only.contains(fault);
    let faults: Vec<Fault> =
        all.into_iter().filter(named).filter(|fault| *fault != Fault::Down10m || asked.long).collect();
    let measured = std::thread::scope(|scope| {
        let runs: Vec<_> = [Transports::Quic, Transports::Tcp]
            .into_iter()
            .map(|transports| {
                let faults = &faults;
                scope.spawn(move || measure(asked, options.nodes.into(), faults, transports, (litemesh, root)))
            })
            .collect();
        let joined = runs.into_iter().map(|run| run.join().unwrap_or_else(|_| Err(Trouble::wrong("panicked"))));
        joined.collect::<Result<Vec<_>, _>>()
    })?;
    let mut table = Table::new(&["transport", "fault", "rounds", "in_sync_p50_ms", "in_sync_p99_ms", "in_sync_max_ms"]);
    for (transports, fault, times) in measured.into_iter().flatten() {
        let (name, fault) = (transports.name(), fault.name());
        table.row(vec![json!(name), json!(fault), json!(times.count()), times.ms(50), times.ms(99), times.ms(100)]);
        if times.count() > 0 {
            table.target(&format!("{name}, {fault}, in sync again, p99, s"), times.percentile(99) / 1000.0, WITHIN_S);
        }
    }
    Ok(table)
}

type Measured = (Transports, Fault, Times);

fn measure(
    asked: &Asked,
    nodes: usize,
    faults: &[Fault],
    transports: Transports,
    (litemesh, root): (&Path, &Path),
) -> Result<Vec<Measured>, Trouble> {
    let began = Instant::now();
    let name = transports.name();
    let mut cluster = Cluster::new(litemesh, root, name, nodes, (Family::V4, transports))?;
    let mut dice = Dice::new(asked.seed);
    let mut measured = Vec::new();
    for fault in faults {
        let mut times = Times::default();
        for _ in 0..asked.rounds.unwrap_or(fault.rounds()) {
            if asked.secs.is_some_and(|secs| began.elapsed() + fault.lasts() > Duration::from_secs(secs)) {
                break;
            }
            let place = format!("{name}, {}", fault.name());
            times.add(round(&mut cluster, *fault, &mut dice).map_err(|trouble| trouble.at(&place))?);
        }
        progress(&format!("{name}, {}: p99 {} ms of {}", fault.name(), times.ms(99), times.count()));
        measured.push((transports, *fault, times));
    }
    cluster.check()?;
    Ok(measured)
}

/// One fault, and how long it took afterwards.
fn round(cluster: &mut Cluster, fault: Fault, dice: &mut Dice) -> Result<Duration, Trouble> {
    let every = cluster.every();
    let victim = dice.below(every.len() as u64) as usize;
    let other = (victim + 1 + dice.below(every.len() as u64 - 1) as usize) % every.len();
    // No fault comes at a fixed time after the one before.
    std::thread::sleep(Duration::from_millis(dice.below(BETWEEN_MS)));
    fault.begin(cluster, victim)?;
    let until = Instant::now() + fault.lasts();
    let mut markers = Vec::new();
    loop {
        markers.push(cluster.write(victim)?);
        markers.push(cluster.write(other)?);
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        std::thread::sleep(left.min(PAUSE));
    }
    let ended = Instant::now();
    fault.end(cluster, victim)?;
    let times = cluster.shown_on(&markers, &every, ended)?;
    Ok(times.into_iter().max().unwrap_or_default())
}
