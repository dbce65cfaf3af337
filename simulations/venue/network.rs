//! The network of a run: a bridge and hosts on it, each a network namespace, joined by pairs of virtual Ethernet cards.
//!
//! Invariant: all of it lives in namespaces that the run made for itself (`isolate`): no cable leads out, names cannot
//! meet anybody else's, and the kernel takes everything away with the last process of the run, however that ended.
//! Packets are never merged (no segmentation offload), so counters count what a real cable would carry.
//! Callers: isolate, cluster, the commands.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use super::host::{run, tool};
use super::outcome::Trouble;

/// The interface of every host.
const CARD: &str = "eth0";

/// Which addresses the hosts have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// 10.77.x.y.
    V4,
    /// fd77::x:y and link-local, no IPv4 at all.
    V6,
}

/// A switch that joins hosts, in the run's own namespace.
#[derive(Clone, Debug)]
pub struct Bridge {
    name: String,
}

/// One machine of the venue.
#[derive(Clone, Debug)]
pub struct Host {
    name: String,
    /// The bridge's end of its cable.
    port: String,
    address: String,
    family: Family,
}

/// What went over one host's cable, both directions, since it was made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Carried {
    /// IP bytes that the host sent.
    pub sent: u64,
    /// IP bytes that reached it.
    pub received: u64,
    /// Packets it sent.
    pub packets: u64,
}

impl Carried {
    /// What was added since `before`.
    pub fn since(self, before: Carried) -> Carried {
        Carried {
            sent: self.sent.saturating_sub(before.sent),
            received: self.received.saturating_sub(before.received),
            packets: self.packets.saturating_sub(before.packets),
        }
    }
}

/// Runs `ip WORDS…`.
pub fn ip(words: &str) -> Result<String, Trouble> {
    run(&tool("ip", "iproute2")?, &words.split(' ').collect::<Vec<_>>())
}

impl Bridge {
    /// A switch with nothing on it.
    pub fn new(name: &str) -> Result<Bridge, Trouble> {
        ip(&format!("link add name {name} type bridge mcast_snooping 0 stp_state 0 forward_delay 0"))?;
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1")?;
        ip(&format!("link set {name} up"))?;
        Ok(Bridge { name: name.to_owned() })
    }

    /// Its name, for who listens on it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A host with one address; `number` is its own on this bridge.
    pub fn host(&self, number: usize, family: Family) -> Result<Host, Trouble> {
        let (name, port) = (format!("{}h{number}", self.name), format!("{}p{number}", self.name));
        ip(&format!("netns add {name}"))?;
        ip(&format!("link add name {port} type veth peer name {CARD} netns {name}"))?;
        let mut host = Host { name, port, address: String::new(), family };
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", host.port), "1")?;
        ip(&format!("link set {} gso_max_size 1500 gso_max_segs 1 master {} up", host.port, self.name))?;
        host.within(&format!("link set {CARD} gso_max_size 1500 gso_max_segs 1"))?;
        let (v6_off, seen_at_once) = (u8::from(family == Family::V4), "net.ipv6.conf.all.accept_dad=0");
        host.enter("sysctl", &["-qw", &format!("net.ipv6.conf.all.disable_ipv6={v6_off}"), seen_at_once])?;
        host.enter("sysctl", &["-qw", &format!("net.ipv6.conf.{CARD}.accept_dad=0")])?;
        host.within("link set lo up")?;
        host.within(&format!("link set {CARD} up"))?;
        host.readdress(number)?;
        Ok(host)
    }
}

impl Host {
    /// The words before a command that shall run on this host.
    pub fn place(&self) -> Result<Vec<OsString>, Trouble> {
        let nsenter = tool("nsenter", "util-linux")?;
        Ok(vec![nsenter.into(), format!("--net=/run/netns/{}", self.name).into(), "--".into()])
    }

    /// A command that will run on this host.
    pub fn command(&self, program: &Path) -> Result<Command, Trouble> {
        let place = self.place()?;
        let mut command = Command::new(&place[0]);
        command.args(&place[1..]).arg(program).stdin(Stdio::null());
        Ok(command)
    }

    /// Its address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The multiaddr prefix of its address.
    pub fn multiaddr(&self) -> String {
        match self.family {
            Family::V4 => format!("/ip4/{}", self.address),
            Family::V6 => format!("/ip6/{}", self.address),
        }
    }

    /// Gives it another address (one of 60,000) in place of the one it has.
    pub fn readdress(&mut self, number: usize) -> Result<(), Trouble> {
        let (high, low) = (number / 250, number % 250 + 1);
        let (address, bits) = match self.family {
            Family::V4 => (format!("10.77.{high}.{low}"), 16),
            Family::V6 => (format!("fd77::{high:x}:{low:x}"), 64),
        };
        if !self.address.is_empty() {
            self.within(&format!("addr del {}/{bits} dev {CARD}", self.address))?;
        }
        let now = if self.family == Family::V6 { " nodad" } else { "" };
        self.within(&format!("addr add {address}/{bits} dev {CARD}{now}"))?;
        if self.family == Family::V4 {
            // Multicast needs a route; the kernel takes it away with the address.
            self.within(&format!("route replace default dev {CARD}"))?;
        }
        self.address = address;
        Ok(())
    }

    /// A further address beside its own.
    pub fn also(&self, number: usize) -> Result<String, Trouble> {
        let address = format!("10.77.{}.{}", number / 250, number % 250 + 1);
        self.within(&format!("addr add {address}/16 dev {CARD}"))?;
        Ok(address)
    }

    /// Pulls the cable, or puts it back.
    pub fn plugged(&self, plugged: bool) -> Result<(), Trouble> {
        ip(&format!("link set {} {}", self.port, if plugged { "up" } else { "down" })).map(drop)
    }

    /// Of what arrives, drops so many in a hundred packets; at 100 it still sends and hears nothing.
    pub fn lossy(&self, percent: u32) -> Result<(), Trouble> {
        self.nft("add table inet venue")?;
        self.nft("flush table inet venue")?;
        self.nft("add chain inet venue arrives { type filter hook input priority 0; }")?;
        match percent {
            0 => Ok(()),
            100 => self.nft(&format!("add rule inet venue arrives iif {CARD} drop")),
            some => self.nft(&format!("add rule inet venue arrives iif {CARD} numgen random mod 100 < {some} drop")),
        }
    }

    /// What went over its cable.
    pub fn carried(&self) -> Result<Carried, Trouble> {
        let text = std::fs::read_to_string("/proc/self/net/dev")?;
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        let line = lines.find(|(name, _)| name.trim() == self.port).map(|(_, numbers)| numbers);
        let numbers: Vec<u64> = line.unwrap_or_default().split_whitespace().filter_map(|it| it.parse().ok()).collect();
        if numbers.len() < 10 {
            return Err(Trouble::wrong(format!("{} has no counters", self.port)));
        }
        // What the port received the host sent; 14 bytes of each frame are Ethernet's.
        Ok(Carried {
            sent: numbers[0].saturating_sub(14 * numbers[1]),
            received: numbers[8].saturating_sub(14 * numbers[9]),
            packets: numbers[1],
        })
    }

    fn within(&self, words: &str) -> Result<String, Trouble> {
        ip(&format!("-n {} {words}", self.name))
    }

    fn nft(&self, rule: &str) -> Result<(), Trouble> {
        self.enter("nft", &[rule])
    }

    fn enter(&self, program: &str, arguments: &[&str]) -> Result<(), Trouble> {
        let package = if program == "nft" { "nftables" } else { "procps" };
        let output = self.command(&tool(program, package)?)?.args(arguments).output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Trouble::wrong(format!("{}: `{program} {}` failed: {said}", self.name, arguments.join(" "))))
    }
}
