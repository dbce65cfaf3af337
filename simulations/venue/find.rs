//! `venue find`: servers of one cluster on one switch, all started cold at the same time.
//!
//! Every server has a row that was written while it was off. Measured from the first start of a process: when each shows a
//! row of another (it found somebody), when all show all, and then how long one more row takes to be everywhere. Once with
//! the addresses of before, which the nodes remember, and once with new ones, which only multicast can tell.
//! Does not verify: several switches, access points that keep their clients apart. Callers: `main`.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::cluster::{Cluster, Transports};
use super::network::Family;
use super::outcome::Trouble;
use super::table::{Table, Times};
use super::{Asked, progress};

/// The figure to reach: from cold to a row of every server on every server, in seconds.
const WITHIN_S: f64 = 5.0;

/// Who was not found by then is not found.
const PATIENCE: Duration = Duration::from_secs(20);

/// What it takes beside the options of all commands.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// So many servers
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(2..=32))]
    nodes: u8,
    /// IPv4 only, IPv6 only, or one after the other
    #[arg(long, value_enum, default_value = "both")]
    family: Families,
    /// Without multicast, to see that this command can fail
    #[arg(long)]
    no_mdns: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Families {
    V4,
    V6,
    Both,
}

/// See the module.
pub fn call(asked: &Asked, options: &Options, litemesh: &Path, root: &Path) -> Result<Table, Trouble> {
    let columns = [
        "family",
        "transport",
        "addresses",
        "starts",
        "ready_ms",
        "first_met_ms",
        "all_met_ms",
        "all_rows_ms",
        "row_p50_ms",
        "row_max_ms",
    ];
    let mut table = Table::new(&columns);
    let rounds = asked.rounds.unwrap_or(2);
    let families = match options.family {
        Families::V4 => vec![Family::V4],
        Families::V6 => vec![Family::V6],
        Families::Both => vec![Family::V4, Family::V6],
    };
    for family in families {
        let bridge = if family == Family::V4 { "four" } else { "six" };
        let shape = (family, Transports::Both);
        let mut cluster = Cluster::new(litemesh, root, bridge, options.nodes.into(), shape)
            .map_err(|trouble| trouble.at(&format!("{} servers on {family:?}", options.nodes)))?;
        progress(&format!("{} servers of one cluster on {family:?}", options.nodes));
        cluster.patience = PATIENCE;
        for server in &mut cluster.servers {
            server.mdns = !options.no_mdns;
        }
        for transports in [Transports::Both, Transports::Quic, Transports::Tcp] {
            for moved in [false, true] {
                let place = format!("{family:?} {}, {}", transports.name(), addresses(moved));
                cluster.transports = transports;
                if let Err(trouble) = measure(&mut cluster, moved, rounds, &mut table) {
                    let (family, transport) = (cluster.family_name(), transports.name());
                    let mut row = vec![json!(family), json!(transport), json!(addresses(moved)), json!(rounds)];
                    row.resize(columns.len(), json!("never"));
                    table.row(row);
                    table.wrong(trouble.at(&place).to_string().trim_start_matches("WRONG: ").to_owned());
                }
                progress(&place);
            }
        }
        if !table.is_wrong() {
            cluster.check()?;
        }
    }
    Ok(table)
}

fn addresses(moved: bool) -> &'static str {
    if moved { "new" } else { "known" }
}

fn measure(cluster: &mut Cluster, moved: bool, rounds: u64, table: &mut Table) -> Result<(), Trouble> {
    let (mut ready, mut met, mut all, mut row) =
        (Times::default(), Times::default(), Times::default(), Times::default());
    let every = cluster.every();
    for _ in 0..rounds {
        cluster.stop_all()?;
        if moved {
            cluster.move_all()?;
        }
        let waiting = every.iter().map(|number| cluster.write(*number)).collect::<Result<Vec<_>, _>>()?;
        let began = Instant::now();
        let starts = cluster.start_all(began)?;
        starts.iter().for_each(|time| ready.add(*time));
        cluster.met_on(&waiting, &every, began)?.iter().for_each(|time| met.add(*time));
        cluster.shown_on(&waiting, &every, began)?.iter().for_each(|time| all.add(*time));
        let began = Instant::now();
        let marker = cluster.write(every.len() - 1)?;
        cluster.shown_on(&[marker], &every, began)?.iter().for_each(|time| row.add(*time));
    }
    let (family, transport) = (cluster.family_name(), cluster.transports.name());
    table.row(vec![
        json!(family),
        json!(transport),
        json!(addresses(moved)),
        json!(rounds),
        ready.ms(100),
        met.ms(0),
        met.ms(100),
        all.ms(100),
        row.ms(50),
        row.ms(100),
    ]);
    let what = format!("{family} {transport} {} addresses, cold to all rows on all, s", addresses(moved));
    table.target(&what, all.percentile(100) / 1000.0, WITHIN_S);
    Ok(())
}
