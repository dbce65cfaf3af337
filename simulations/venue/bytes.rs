//! `venue bytes`: what a cluster costs on the wire, at rest and at work, counted at the cards of all hosts.
//!
//! Counted are IP bytes that hosts sent (each packet once), handshakes, acknowledgements and multicast included, less what
//! the cluster sends anyway when nothing happens. The payload is what the rows hold: texts and blobs by their length,
//! numbers as 8 bytes; it has to reach every other server. A control counts known packets first.
//! Does not verify: bytes of links with small packets, bytes of a relay. Callers: `main`.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cluster::{Cluster, Transports};
use super::network::Family;
use super::outcome::Trouble;
use super::table::{Table, round};
use super::worker::{Attack, Kind, Work};
use super::{Asked, progress};

/// Bytes of a row's body, beside its marker and two numbers.
const BODY: usize = 150;
/// What one thing that happens may cause later on is counted, too.
const WINDOW: Duration = Duration::from_secs(4);
const IDLE: Duration = Duration::from_secs(15);
const ROWS_PER_COMMIT: usize = 1000;

/// What it takes beside the options of all commands.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Clusters of so many servers
    #[arg(long, value_delimiter = ',', default_values_t = [2, 5, 12])]
    nodes: Vec<u8>,
    /// So many rows behind [default: 10000; 100000 with --long]
    #[arg(long)]
    behind: Option<usize>,
    /// So many rows in the log before [default: 0; 1000000 with --long]
    #[arg(long)]
    before: Option<usize>,
}

/// See the module.
pub fn call(asked: &Asked, options: &Options, litemesh: &Path, root: &Path) -> Result<Table, Trouble> {
    let columns =
        ["servers", "transport", "what", "payload_bytes", "sent_bytes", "packets", "times_payload", "of_ideal", "ms"];
    let mut table = Table::new(&columns);
    for nodes in &options.nodes {
        for transports in [Transports::Both, Transports::Tcp] {
            if transports == Transports::Tcp && *nodes != 2 {
                continue;
            }
            let bridge = format!("{}x{nodes}", if transports == Transports::Tcp { "t" } else { "b" });
            let shape = (Family::V4, transports);
            let cluster = Cluster::new(litemesh, root, &bridge, usize::from(*nodes), shape)?;
            if *nodes == 2 && transports == Transports::Both {
                control(&cluster)?;
            }
            progress(&format!("{nodes} servers, {}", transports.name()));
            let rounds = asked.rounds.unwrap_or(5);
            let mut scale = Scale { cluster, idle: 0.0, table: &mut table };
            scale.at_rest()?;
            scale.rows(1, rounds)?;
            scale.rows(100, rounds)?;
            if *nodes == 2 {
                scale.meet_again()?;
                let before = options.before.unwrap_or(if asked.long { 1_000_000 } else { 0 });
                scale.behind(options.behind.unwrap_or(if asked.long { 100_000 } else { 10_000 }), before)?;
            }
            scale.cluster.check()?;
        }
    }
    Ok(table)
}

/// Sends known packets and looks whether they are counted as what they are.
fn control(cluster: &Cluster) -> Result<(), Trouble> {
    let stranger = cluster.bridge.host(200, Family::V4)?;
    let (before, text) = (stranger.carried()?, "x".repeat(1000));
    let mut work = Work::new(Kind::Shout, &cluster.hosts[0], 1)?;
    work.text = Some(text);
    for _ in 0..10 {
        Attack::start(&work, &stranger)?.done()?;
    }
    let sent = stranger.carried()?.since(before).sent;
    // 28 bytes of headers each; once the question for the other's card, and once what IPv4 asks of the switch.
    if (10_280..10_600).contains(&sent) {
        return Ok(());
    }
    Err(Trouble::wrong(format!("10 packets of 1028 IP bytes are counted as {sent}: the counters cannot be trusted")))
}

struct Scale<'t> {
    cluster: Cluster,
    /// IP bytes a second that all hosts together send when nothing happens.
    idle: f64,
    table: &'t mut Table,
}

/// What was counted between two moments.
struct Counted {
    sent: f64,
    packets: u64,
}

impl Scale<'_> {
    fn sent(&self) -> Result<(u64, u64), Trouble> {
        let carried = self.cluster.carried()?;
        Ok((carried.iter().map(|host| host.sent).sum(), carried.iter().map(|host| host.packets).sum()))
    }

    /// Counts what happens in a window, less what is sent anyway.
    fn count(
        &mut self,
        act: impl FnOnce(&mut Cluster) -> Result<Duration, Trouble>,
    ) -> Result<(Counted, Duration), Trouble> {
        let (began, before) = (Instant::now(), self.sent()?);
        let took = act(&mut self.cluster)?;
        std::thread::sleep(WINDOW.saturating_sub(began.elapsed()));
        let (after, seconds) = (self.sent()?, began.elapsed().as_secs_f64());
        let sent = (after.0 - before.0) as f64 - self.idle * seconds;
        Ok((Counted { sent: sent.max(0.0), packets: after.1 - before.1 }, took))
    }

    fn tell(&mut self, what: &str, payload: usize, counted: &Counted, took: Duration) {
        let others = (self.cluster.servers.len() - 1) as f64;
        let (times, ideal) = match payload {
            0 => (Value::Null, Value::Null),
            payload => {
                let times = counted.sent / payload as f64;
                (round(times, 2), round(times / others, 2))
            }
        };
        let ms = round(took.as_secs_f64() * 1000.0, 1);
        let (servers, transport) = (json!(self.cluster.servers.len()), json!(self.cluster.transports.name()));
        let (payload, sent) = (json!(payload), round(counted.sent, 0));
        self.table.row(vec![servers, transport, json!(what), payload, sent, json!(counted.packets), times, ideal, ms]);
    }

    fn at_rest(&mut self) -> Result<(), Trouble> {
        // What the start still causes is over when nothing else begins.
        std::thread::sleep(WINDOW);
        let (began, before) = (Instant::now(), self.sent()?);
        std::thread::sleep(IDLE);
        let after = self.sent()?;
        self.idle = (after.0 - before.0) as f64 / began.elapsed().as_secs_f64();
        let each = self.idle / self.cluster.servers.len() as f64;
        let counted = Counted { sent: self.idle, packets: (after.1 - before.1) / IDLE.as_secs() };
        self.tell("idle, a second, all servers", 0, &counted, Duration::ZERO);
        self.table.target(&format!("{} servers idle, bytes/s each", self.cluster.servers.len()), each, 100.0);
        Ok(())
    }

    fn rows(&mut self, rows: usize, rounds: u64) -> Result<(), Trouble> {
        let every = self.cluster.every();
        let mut all = Vec::new();
        let mut payload = 0;
        for number in 0..rounds as usize {
            let from = number % every.len();
            let (counted, took) = self.count(|cluster| {
                let began = Instant::now();
                let markers = cluster.write_many(from, rows, BODY)?;
                payload = markers.iter().map(|marker| marker.len() + BODY + 16).sum();
                Ok(cluster.shown_on(&markers, &every, began)?.into_iter().max().unwrap_or_default())
            })?;
            all.push((counted, took));
        }
        all.sort_by(|one, other| one.0.sent.total_cmp(&other.0.sent));
        let (counted, took) = &all[all.len() / 2];
        self.tell(&format!("{rows} rows, median"), payload, counted, *took);
        Ok(())
    }

    /// One server stops and comes back; nobody wrote anything.
    fn meet_again(&mut self) -> Result<(), Trouble> {
        let last = self.cluster.servers.len() - 1;
        self.cluster.servers[last].stop_well()?;
        let (counted, took) = self.count(|cluster| {
            let began = Instant::now();
            cluster.start_all(began)?;
            cluster.connected(last, began)
        })?;
        self.tell("comes back, nothing to do", 0, &counted, took);
        Ok(())
    }

    /// One server stops, the others write, it comes back.
    fn behind(&mut self, rows: usize, before: usize) -> Result<(), Trouble> {
        let (last, every) = (self.cluster.servers.len() - 1, self.cluster.every());
        let earlier = self.bulk(before)?;
        self.cluster.shown_on(&earlier, &every, Instant::now())?;
        self.cluster.servers[last].stop_well()?;
        let markers = self.bulk(rows)?;
        let until = Instant::now() + self.cluster.patience;
        while self.cluster.waiting(0)? > 0 {
            if Instant::now() > until {
                return Err(Trouble::wrong("the rows are not taken into the log"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let (counted, took) = self.count(|cluster| {
            let began = Instant::now();
            cluster.start_all(began)?;
            Ok(cluster.shown_on(&markers, &every, began)?.into_iter().max().unwrap_or_default())
        })?;
        let payload = rows * (BODY + 16) + markers.iter().map(String::len).sum::<usize>() / markers.len().max(1) * rows;
        self.tell(&format!("{rows} rows behind, {before} before"), payload, &counted, took);
        Ok(())
    }

    /// Many rows on the first server; the last marker of each transaction.
    fn bulk(&mut self, rows: usize) -> Result<Vec<String>, Trouble> {
        let mut last = Vec::new();
        let mut left = rows;
        while left > 0 {
            let some = left.min(ROWS_PER_COMMIT);
            last.extend(self.cluster.write_many(0, some, BODY)?.pop());
            left -= some;
        }
        Ok(last)
    }
}
