//! `venue attacks`: a machine on the same switch attacks one server of two, whose application goes on writing.
//!
//! Measured before, during and after each attack: the node's share of a core and its memory, how long a committed row
//! waits for the log and how long until the other server shows it; during the attack also how long the other server,
//! started anew, needs to be back; and afterwards how long until all is as before. The attacker runs at the lowest
//! priority, because it has no machine of its own here. Does not verify: attacks that fill the cable itself, attackers with
//! more processors than the venue. Callers: `main`.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cluster::{Cluster, PORT, Transports};
use super::network::{Family, Host};
use super::outcome::Trouble;
use super::server::Server;
use super::table::{Table, Times, round};
use super::worker::{Attack, Kind, Work};
use super::{Asked, progress};

/// Between two rows.
const PAUSE: Duration = Duration::from_millis(40);
/// How long each state is measured.
const SAMPLE: Duration = Duration::from_secs(6);
/// How long an attack lasts at most; every measurement in it fits.
const LASTS: f64 = 18.0;
/// An attack has begun when this has passed.
const UNDER_WAY: Duration = Duration::from_secs(1);
/// Figure 14.
const TIMES_IDLE: f64 = 2.0;
const CORE_PERCENT: f64 = 25.0;
const MEMORY_MB: f64 = 256.0;
const NORMAL_AFTER_S: f64 = 10.0;
/// Two reads of a share of a core differ by this when nothing happens.
const NOISE_PERCENT: f64 = 5.0;

/// What it takes beside the options of all commands.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Only these attacks: mdns, beacons, connects, handshakes, slow, garbage, bombs, stranger, liar, invites, api
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// How a server does for a while.
#[derive(Debug, Default)]
struct Sample {
    /// From the commit until the log has the row.
    logged: Times,
    /// From the commit until the other server shows it.
    shown: Times,
    core_percent: f64,
    memory_mb: f64,
}

struct Scene {
    cluster: Cluster,
    attacker: Host,
    /// Further addresses of the attacker.
    from: Vec<std::net::Ipv4Addr>,
    /// Joined, never runs: the liar's key, and the code that was used for it.
    member: Server,
    code: String,
    seed: u64,
}

/// See the module.
pub fn call(asked: &Asked, options: &Options, litemesh: &Path, root: &Path) -> Result<Table, Trouble> {
    let mut scene = scene(asked, litemesh, root)?;
    let mut table = Table::new(&[
        "attack",
        "what_it_did",
        "core_percent",
        "memory_mb",
        "logged_p50_ms",
        "logged_p99_ms",
        "shown_p50_ms",
        "shown_p99_ms",
        "back_ms",
        "normal_after_s",
    ]);
    let idle = scene.sample(SAMPLE)?;
    let back = scene.peer_returns()?;
    row(&mut table, ("none", "nothing".to_owned()), &idle, back, Value::Null);
    progress("idle is measured");
    let all =
        ["mdns", "beacons", "connects", "handshakes", "slow", "garbage", "bombs", "stranger", "invites", "api", "liar"];
    for name in all.into_iter().filter(|name| options.only.is_empty() || options.only.iter().any(|only| only == name)) {
        let attacked = scene.attacked(name, root, litemesh).map_err(|trouble| trouble.at(name))?;
        let normal = scene.normal(&idle)?;
        let (sample, back, done) = attacked;
        progress(&format!("{name}: {done}"));
        row(&mut table, (name, told(&done)), &sample, back, round(normal, 1));
        let times = sample.logged.percentile(99) / idle.logged.percentile(99);
        table.target(&format!("{name}: lag until logged, p99, times that of idle"), times, TIMES_IDLE);
        table.target(&format!("{name}: share of a core, percent"), sample.core_percent, CORE_PERCENT);
        table.target(&format!("{name}: memory, MB"), sample.memory_mb, MEMORY_MB);
        table.target(&format!("{name}: s until all is as before"), normal, NORMAL_AFTER_S);
        judge(name, &done, &mut table);
    }
    scene.cluster.check()?;
    Ok(table)
}

/// What an attack may never get.
fn judge(name: &str, done: &Value, table: &mut Table) {
    for (forbidden, words) in [
        ("data_bytes", "was given data"),
        ("opened", "reached the API from another machine"),
        ("admitted", "was admitted with a used code"),
    ] {
        if done[forbidden].as_u64().unwrap_or(0) > 0 {
            table.wrong(format!("{name}: the attacker {words}"));
        }
    }
    let effect = ["sent", "stood", "tried", "thrown", "refused", "repeated"];
    if !effect.iter().any(|effect| done[*effect].as_u64().unwrap_or(0) > 0) {
        table.wrong(format!("{name}: the attack did nothing, so it proves nothing"));
    }
}

fn told(done: &Value) -> String {
    let empty = serde_json::Map::new();
    let parts = done.as_object().unwrap_or(&empty).iter().map(|(name, number)| format!("{number} {name}"));
    parts.collect::<Vec<_>>().join(", ").replace('_', " ")
}

fn row(table: &mut Table, (attack, did): (&str, String), sample: &Sample, back: Duration, normal: Value) {
    let (logged, shown) = (&sample.logged, &sample.shown);
    table.row(vec![
        json!(attack),
        json!(did),
        round(sample.core_percent, 1),
        round(sample.memory_mb, 0),
        logged.ms(50),
        logged.ms(99),
        shown.ms(50),
        shown.ms(99),
        round(back.as_secs_f64() * 1000.0, 0),
        normal,
    ]);
}

fn scene(asked: &Asked, litemesh: &Path, root: &Path) -> Result<Scene, Trouble> {
    let cluster = Cluster::new(litemesh, root, "duo", 2, (Family::V4, Transports::Both))?;
    let attacker = cluster.bridge.host(200, Family::V4)?;
    let more = (201..209).map(|number| attacker.also(number)).collect::<Result<Vec<_>, _>>()?;
    let from = more.iter().filter_map(|address| address.parse().ok()).collect();
    let mut member = Server::new(litemesh, root, "liar")?;
    member.place = attacker.place()?;
    let code = cluster.servers[0].cli(&["invite"])?.done("invite")?.out.trim().to_owned();
    member.join_with(&code, &[])?.done("join")?;
    Ok(Scene { cluster, attacker, from, member, code, seed: asked.seed })
}

impl Scene {
    /// Writes and looks for a while.
    fn sample(&mut self, lasts: Duration) -> Result<Sample, Trouble> {
        let pid = self.cluster.servers[0].pid().ok_or_else(|| Trouble::wrong("the target does not run"))?;
        let (began, before) = (Instant::now(), busy(pid)?);
        let mut sample = Sample::default();
        while began.elapsed() < lasts {
            let committed = Instant::now();
            let marker = self.cluster.write(0)?;
            let until = committed + self.cluster.patience;
            let (mut logged, mut shown) = (None, None);
            while logged.is_none() || shown.is_none() {
                if logged.is_none() && self.cluster.waiting(0)? == 0 {
                    logged = Some(committed.elapsed());
                }
                if shown.is_none() && self.cluster.shows(1, &marker)? {
                    shown = Some(committed.elapsed());
                }
                if Instant::now() > until {
                    return Err(Trouble::wrong(format!("row {marker} does not arrive, logged: {logged:?}")));
                }
                std::thread::sleep(Duration::from_micros(500));
            }
            logged.into_iter().for_each(|time| sample.logged.add(time));
            shown.into_iter().for_each(|time| sample.shown.add(time));
            sample.memory_mb = sample.memory_mb.max(memory_mb(pid)?);
            std::thread::sleep(PAUSE);
        }
        sample.core_percent = (busy(pid)? - before) * 100.0 / began.elapsed().as_secs_f64();
        Ok(sample)
    }

    /// The other server's node is killed and started: until it shows a row that was written meanwhile.
    fn peer_returns(&mut self) -> Result<Duration, Trouble> {
        self.cluster.servers[1].kill()?;
        let marker = self.cluster.write(0)?;
        let began = Instant::now();
        self.cluster.start_all(began)?;
        let times = self.cluster.shown_on(&[marker], &[1], began)?;
        Ok(times.into_iter().max().unwrap_or_default())
    }

    fn attacked(&mut self, name: &str, root: &Path, litemesh: &Path) -> Result<(Sample, Duration, Value), Trouble> {
        if name == "invites" {
            return self.replayed(root, litemesh);
        }
        let attack = self.begin(name)?;
        std::thread::sleep(UNDER_WAY);
        let sample = self.sample(SAMPLE)?;
        // The liar is told apart by its own node only while that runs.
        let back = self.peer_returns()?;
        Ok((sample, back, attack.done()?))
    }

    fn begin(&self, name: &str) -> Result<Attack, Trouble> {
        let kind = match name {
            "mdns" => Kind::Mdns,
            "beacons" => Kind::Beacons,
            "connects" => Kind::Connects,
            "handshakes" => Kind::Handshakes,
            "slow" => Kind::Slow,
            "garbage" => Kind::Garbage,
            "bombs" => Kind::Bombs,
            "stranger" => Kind::Stranger,
            "api" => Kind::Api,
            _ => Kind::Liar,
        };
        let mut work = Work::new(kind, &self.cluster.hosts[0], self.seed)?;
        work.lasts = LASTS;
        work.from.clone_from(&self.from);
        work.port = PORT;
        if kind == Kind::Api {
            work.port = self.api_port()?;
        }
        if kind == Kind::Liar {
            let status = self.cluster.servers[0].status()?;
            work.cluster = status["cluster"]["id"].as_str().map(str::to_owned);
            work.key = Some(self.member.data.join("identity.key"));
        }
        Attack::start(&work, &self.attacker)
    }

    /// The port that the target's node listens on for its own machine.
    fn api_port(&self) -> Result<u16, Trouble> {
        let said = std::fs::read_to_string(self.cluster.servers[0].folder.join("stdout.txt"))?;
        let ready = said.lines().find_map(|line| line.strip_prefix("ready "));
        let ready: Option<Value> = ready.and_then(|ready| serde_json::from_str(ready).ok());
        let port = ready.and_then(|ready| ready["http"].as_str()?.rsplit(':').next()?.parse().ok());
        port.ok_or_else(|| Trouble::wrong("the target does not say where its API is"))
    }

    /// The used code, again and again, from the attacker's machine.
    fn replayed(&mut self, root: &Path, litemesh: &Path) -> Result<(Sample, Duration, Value), Trouble> {
        let mut thief = Server::new(litemesh, root, "thief")?;
        thief.place = self.attacker.place()?;
        let code = self.code.clone();
        let until = Instant::now() + Duration::from_secs_f64(LASTS);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let tries = scope.spawn(|| {
                let (mut refused, mut admitted) = (0u64, 0u64);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) && Instant::now() < until {
                    let answer = thief.join_with(&code, &[])?;
                    *(if answer.code == Some(0) { &mut admitted } else { &mut refused }) += 1;
                }
                Ok::<_, Trouble>(json!({ "refused": refused, "admitted": admitted }))
            });
            let measured = self.sample(SAMPLE).and_then(|sample| Ok((sample, self.peer_returns()?)));
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            let done = tries.join().unwrap_or_else(|_| Err(Trouble::wrong("panicked")))?;
            let (sample, back) = measured?;
            Ok((sample, back, done))
        })
    }

    /// Seconds until lag and share of a core are as before.
    fn normal(&mut self, idle: &Sample) -> Result<f64, Trouble> {
        let began = Instant::now();
        loop {
            let after = began.elapsed().as_secs_f64();
            let sample = self.sample(Duration::from_secs(1))?;
            let lag = sample.logged.percentile(50) <= idle.logged.percentile(99) * TIMES_IDLE;
            let calm = sample.core_percent <= idle.core_percent + NOISE_PERCENT;
            if (lag && calm) || began.elapsed() > Duration::from_secs(30) {
                return Ok(after);
            }
        }
    }
}

/// Seconds of a processor that a process has used.
fn busy(pid: u32) -> Result<f64, Trouble> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = text.rsplit(')').next().unwrap_or_default();
    let ticks: Vec<f64> = after.split_whitespace().skip(11).take(2).filter_map(|it| it.parse().ok()).collect();
    // A tick is a hundredth of a second wherever Linux runs today.
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

/// Megabytes of memory that a process has in use.
fn memory_mb(pid: u32) -> Result<f64, Trouble> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: f64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(f64::NAN);
    Ok(kilobytes / 1024.0)
}
