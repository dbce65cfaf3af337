//! `venue eavesdrop`: what can be read by who is no member, from a capture of everything that crosses the switch.
//!
//! Three servers of one cluster form it, meet again and carry rows whose texts stand nowhere else. On the same switch: who
//! listens; a libp2p node without membership; a server of another cluster; a machine with a join code that was used
//! already; a member that was sent away. Nothing of the rows may be readable in the capture or be given to any of them.
//! A control first sends a text in clear, which must be found. Does not verify: sizes, times and addresses, which a
//! listener always sees. Callers: `main`.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::capture::{Capture, Heard};
use super::cluster::{Cluster, Transports};
use super::network::{Family, Host};
use super::outcome::Trouble;
use super::server::Server;
use super::table::Table;
use super::worker::{Attack, Kind, Work};
use super::{Asked, progress};

const CONTROL: &str = "the control text that everybody hears";
const STRANGER_LASTS: f64 = 12.0;
const SERVERS: usize = 3;

/// Somebody who shall learn nothing.
struct Outsider {
    host: Host,
    server: Server,
}

/// See the module.
pub fn call(asked: &Asked, litemesh: &Path, root: &Path) -> Result<Table, Trouble> {
    let mut table = Table::new(&["who", "tried", "answers", "data_bytes", "markers_read"]);
    let mut cluster = Cluster::new(litemesh, root, "ear", SERVERS, (Family::V4, Transports::Both))?;
    let outside = |number, name: &str| -> Result<Outsider, Trouble> {
        let host = cluster.bridge.host(number, Family::V4)?;
        let mut server = Server::new(litemesh, root, name)?;
        server.place = host.place()?;
        server.mdns = true;
        server.listen = vec!["/ip4/0.0.0.0/udp/7481/quic-v1".to_owned(), "/ip4/0.0.0.0/tcp/7481".to_owned()];
        Ok(Outsider { host, server })
    };
    let (stranger, mut other, replayer) =
        (outside(200, "stranger")?, outside(201, "other")?, outside(202, "replayer")?);
    let mut revoked = outside(203, "revoked")?;
    let capture = Capture::start(&cluster.bridge, root)?;
    control(&cluster, &stranger.host)?;
    // A member that will be sent away: it joins while somebody listens, with a code that is then used up.
    let code = cluster.servers[0].cli(&["invite"])?.done("invite")?.out.trim().to_owned();
    revoked.server.join_with(&code, &[])?.done("join")?;
    replay(&replayer, &code, &mut table)?;
    let gone = send_away(&mut cluster, &mut revoked)?;
    other.server.start()?;
    let (addresses, mut work) = (cluster.hosts.clone(), Work::new(Kind::Stranger, &cluster.hosts[0], asked.seed)?);
    let introduce = format!("{}/udp/7481/quic-v1", addresses[0].multiaddr());
    other.server.cli(&["peers", "add", &introduce])?.done("peers add")?;
    work.lasts = STRANGER_LASTS;
    let attack = Attack::start(&work, &stranger.host)?;
    let markers = travel(&mut cluster, asked.rounds.unwrap_or(5))?;
    let done = attack.done()?;
    progress(&format!("{} rows travelled", markers.len()));
    let heard = capture.stop()?;
    told_stranger(&done, &mut table);
    for (who, tried, outsider) in
        [("a server of another cluster", true, &other), ("a member sent away", gone, &revoked)]
    {
        let read = markers_in(outsider, &markers)?;
        let payload: usize = addresses.iter().map(|host| heard.payload(host.address(), outsider.host.address())).sum();
        let answers = json!(format!("{payload} encrypted bytes"));
        table.row(vec![json!(who), json!(if tried { "yes" } else { "not built yet" }), answers, json!(0), json!(read)]);
        if read > 0 {
            table.wrong(format!("{who} shows {read} rows"));
        }
    }
    listened(&heard, &cluster, &markers, &code, &mut table)?;
    cluster.check()?;
    Ok(table)
}

/// A packet in clear, which the capture must show.
fn control(cluster: &Cluster, from: &Host) -> Result<(), Trouble> {
    let mut work = Work::new(Kind::Shout, &cluster.hosts[0], 1)?;
    work.text = Some(CONTROL.to_owned());
    Attack::start(&work, from)?.done().map(drop)
}

/// Rows in ordinary work, after a pulled cable, and written while a server was off.
fn travel(cluster: &mut Cluster, rounds: u64) -> Result<Vec<String>, Trouble> {
    let every = cluster.every();
    let mut all = Vec::new();
    for round in 0..rounds {
        let from = round as usize % every.len();
        let mut markers = cluster.write_many(from, 20, 60)?;
        cluster.shown_on(&markers, &every, Instant::now())?;
        cluster.hosts[from].plugged(false)?;
        markers.extend(cluster.write_many(from, 20, 60)?);
        std::thread::sleep(Duration::from_secs(1));
        cluster.hosts[from].plugged(true)?;
        cluster.shown_on(&markers, &every, Instant::now())?;
        all.extend(markers);
    }
    cluster.stop_all()?;
    for number in &every {
        all.extend(cluster.write_many(*number, 20, 60)?);
    }
    cluster.start_all(Instant::now())?;
    cluster.shown_on(&all, &every, Instant::now())?;
    Ok(all)
}

/// The used code again, from another machine.
fn replay(replayer: &Outsider, code: &str, table: &mut Table) -> Result<(), Trouble> {
    let answer = replayer.server.join_with(code, &[])?;
    let words = answer.err.lines().next().unwrap_or_default().to_owned();
    table.row(vec![json!("a join code used twice"), json!(1), json!(words), json!(0), json!(0)]);
    if answer.code == Some(0) {
        table.wrong("a join code was good twice".to_owned());
    }
    Ok(())
}

/// Sends a member away that runs and was given a row before; it goes on running and asks again.
fn send_away(cluster: &mut Cluster, revoked: &mut Outsider) -> Result<bool, Trouble> {
    revoked.server.start()?;
    let (before, until) = ([cluster.write(0)?], Instant::now() + cluster.patience);
    while shown_by(revoked, &before)? == 0 {
        if Instant::now() > until {
            return Err(Trouble::wrong(
                "the member that shall be sent away was given nothing before, so it proves nothing",
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let answer = cluster.servers[0].cli(&["peers", "revoke", "revoked"])?;
    if answer.code == Some(2) {
        return Ok(false);
    }
    answer.done("peers revoke").map(|_| true)
}

/// How many of these rows an outsider's files show.
fn shown_by(outsider: &Outsider, markers: &[String]) -> Result<usize, Trouble> {
    let mut shown = 0;
    for (_, path) in outsider.server.databases() {
        let rows = super::record::read(&path)?;
        shown += rows.notes.iter().filter(|(marker, _)| markers.contains(marker)).count();
    }
    Ok(shown)
}

fn markers_in(outsider: &Outsider, markers: &[String]) -> Result<usize, Trouble> {
    // The log, too: what is there but not shown would have been given all the same.
    let log = outsider.server.cli(&["--json", "log", "--limit", "100000"])?.out;
    let logged = markers.iter().filter(|marker| log.contains(marker.as_str()));
    Ok(shown_by(outsider, markers)? + logged.count())
}

fn told_stranger(done: &Value, table: &mut Table) {
    let number = |name: &str| done[name].as_u64().unwrap_or(0);
    let answers = format!("{} handshakes, {} bytes at the gate", number("handshakes"), number("gate_bytes"));
    let data = number("data_bytes");
    table.row(vec![
        json!("a libp2p node without membership"),
        json!(number("tried")),
        json!(answers),
        json!(data),
        json!(0),
    ]);
    if data > 0 {
        table.wrong(format!("a stranger was given {data} bytes of data"));
    }
    if number("handshakes") == 0 {
        table.wrong("the stranger never shook hands: it proves nothing".to_owned());
    }
}

/// What the capture shows of rows, names and the cluster.
fn listened(
    heard: &Heard,
    cluster: &Cluster,
    markers: &[String],
    code: &str,
    table: &mut Table,
) -> Result<(), Trouble> {
    if heard.finds(CONTROL.as_bytes()) == 0 {
        return Err(Trouble::wrong("the control text is not in the capture: it proves nothing"));
    }
    let status = cluster.servers[0].status()?;
    let id = status["cluster"]["id"].as_str().unwrap_or_default().to_owned();
    let raw = data_encoding::HEXLOWER_PERMISSIVE.decode(id.as_bytes()).unwrap_or_default();
    // Every marker begins with the switch's name: where that is nowhere, none is.
    let any = heard.finds(cluster.bridge.name().as_bytes()) > 0;
    let read = markers.iter().filter(|marker| any && heard.finds(marker.as_bytes()) > 0).count();
    let mut secrets = vec![("the join code", code.as_bytes()), ("the table's name", b"CREATE TABLE")];
    if raw.len() >= 8 {
        secrets.push(("the cluster's id", &raw[..]));
    }
    for (what, text) in secrets {
        if heard.finds(text) > 0 {
            table.wrong(format!("{what} can be read on the wire"));
        }
    }
    let answers = format!("{} packets, {} bytes", heard.packets, heard.bytes);
    table.row(vec![json!("who listens on the switch"), json!("everything"), json!(answers), json!(0), json!(read)]);
    if read > 0 {
        table.wrong(format!("{read} of {} rows can be read on the wire", markers.len()));
    }
    Ok(())
}
