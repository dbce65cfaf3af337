//! The attacker: a process of its own on a host of its own, which sends what no member would.
//!
//! Invariant: it sends only to addresses of the venue (10.77.0.0/16, which lead nowhere outside of the run's namespaces),
//! for a bounded time, and ends by itself; it says at the end how much it did and how many bytes it was given.
//! Callers: `main` (the child's side), attacks and eavesdrop (the parent's side).

#[path = "worker/client.rs"]
mod client;
#[path = "worker/floods.rs"]
mod floods;
#[path = "worker/hostile.rs"]
mod hostile;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cluster::PORT;
use super::host::tool;
use super::network::Host;
use super::outcome::Trouble;

/// What is done to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Forged mDNS answers and questions
    Mdns,
    /// Packets like a beacon's: forged, repeated as they were heard, and with a bit turned
    Beacons,
    /// TCP connections, closed at once
    Connects,
    /// Whole handshakes with keys of nobody, over TCP and QUIC
    Handshakes,
    /// Connections that say one byte at a time, or nothing
    Slow,
    /// Random bytes by TCP and UDP
    Garbage,
    /// Lengths of gigabytes, before and behind the handshake
    Bombs,
    /// A libp2p node that is no member, and asks for everything
    Stranger,
    /// A member that lies
    Liar,
    /// Knocks at a port that is open to its own machine only
    Api,
    /// One packet in clear, to see that who listens hears
    Shout,
}

/// How an attack is made.
#[derive(Clone, Debug, clap::Args)]
pub struct Work {
    /// What
    #[arg(long, value_enum)]
    pub kind: Kind,
    /// On whom
    #[arg(long)]
    pub target: Ipv4Addr,
    /// At this port
    #[arg(long, default_value_t = PORT)]
    pub port: u16,
    /// From these addresses
    #[arg(long, value_delimiter = ',')]
    pub from: Vec<Ipv4Addr>,
    /// So long
    #[arg(long, default_value_t = 10.0)]
    pub lasts: f64,
    /// So many a second
    #[arg(long, default_value_t = 1000)]
    pub rate: u32,
    /// Where the draws begin
    #[arg(long, default_value_t = 1)]
    pub draws: u64,
    /// A member's key (`liar`)
    #[arg(long)]
    pub key: Option<PathBuf>,
    /// The cluster, in hex (`liar`)
    #[arg(long)]
    pub cluster: Option<String>,
    /// What to say (`shout`)
    #[arg(long)]
    pub text: Option<String>,
}

/// What an attack did, by name.
pub type Done = BTreeMap<&'static str, u64>;

impl Work {
    /// An attack on a host.
    pub fn new(kind: Kind, target: &Host, seed: u64) -> Result<Work, Trouble> {
        let target = target.address().parse().map_err(|_| Trouble::wrong("an attack needs an IPv4 address"))?;
        let (from, key, cluster, text) = (Vec::new(), None, None, None);
        Ok(Work { kind, target, port: PORT, from, lasts: 10.0, rate: 1000, draws: seed, key, cluster, text })
    }

    fn socket(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.target, self.port)
    }

    fn until(&self) -> Instant {
        Instant::now() + Duration::from_secs_f64(self.lasts.min(60.0))
    }
}

/// A running attack.
#[derive(Debug)]
pub struct Attack {
    child: Child,
    within: Duration,
}

impl Attack {
    /// Starts one on a host.
    pub fn start(work: &Work, on: &Host) -> Result<Attack, Trouble> {
        let mut command = on.command(&tool("nice", "coreutils")?)?;
        command.args(["-n", "19"]).arg(std::env::current_exe()?);
        let kind = clap::ValueEnum::to_possible_value(&work.kind).map(|value| value.get_name().to_owned());
        command.arg("attacker").args(["--kind", &kind.unwrap_or_default()]);
        command.args(["--target", &work.target.to_string(), "--lasts", &work.lasts.to_string()]);
        command.args([
            "--port",
            &work.port.to_string(),
            "--rate",
            &work.rate.to_string(),
            "--draws",
            &work.draws.to_string(),
        ]);
        if !work.from.is_empty() {
            let from: Vec<String> = work.from.iter().map(Ipv4Addr::to_string).collect();
            command.args(["--from", &from.join(",")]);
        }
        if let Some(key) = &work.key {
            command.arg("--key").arg(key);
        }
        for (option, value) in [("--cluster", &work.cluster), ("--text", &work.text)] {
            command.args(value.iter().flat_map(|value| [option, value.as_str()]));
        }
        let child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        Ok(Attack { child, within: Duration::from_secs_f64(work.lasts) + Duration::from_secs(30) })
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> Result<bool, Trouble> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits for its end; what it did.
    pub fn done(mut self) -> Result<Value, Trouble> {
        let until = Instant::now() + self.within;
        while !self.ended()? {
            if Instant::now() > until {
                return Err(Trouble::wrong("an attack did not end by itself"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut text = String::new();
        if let Some(mut out) = self.child.stdout.take() {
            std::io::Read::read_to_string(&mut out, &mut text)?;
        }
        serde_json::from_str(text.trim()).map_err(|_| Trouble::wrong(format!("an attack failed: {text}")))
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        // Ended already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child's side: attacks, tells what it did, and ends. Gives the process's exit code.
pub fn work(work: &Work) -> u8 {
    if work.target.octets()[..2] != [10, 77] {
        eprintln!("{} is no host of a venue", work.target);
        return 2;
    }
    let done = match work.kind {
        Kind::Mdns => floods::mdns(work),
        Kind::Beacons => floods::beacons(work),
        Kind::Garbage => floods::garbage(work),
        Kind::Shout => floods::shout(work),
        Kind::Api => asynchronous(floods::api(work)),
        Kind::Connects => asynchronous(floods::connects(work)),
        Kind::Slow => asynchronous(floods::slow(work)),
        Kind::Handshakes => asynchronous(hostile::handshakes(work)),
        Kind::Bombs => asynchronous(hostile::bombs(work)),
        Kind::Stranger => asynchronous(hostile::stranger(work)),
        Kind::Liar => asynchronous(hostile::liar(work)),
    };
    match done {
        Ok(done) => {
            println!("{}", serde_json::json!(done));
            0
        }
        Err(error) => {
            eprintln!("the attack failed: {error}");
            1
        }
    }
}

fn asynchronous(attack: impl Future<Output = std::io::Result<Done>>) -> std::io::Result<Done> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(attack);
    // Connections that still hang are not waited for.
    runtime.shutdown_background();
    done
}
