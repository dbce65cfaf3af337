//! Attacks below libp2p: packets and connections of which no handshake comes.
//!
//! Invariant: bounded in rate and time. Callers: worker.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use libp2p::identity::Keypair;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::super::dice::Dice;
use super::{Done, Work};

const MDNS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 251), 5353);
const BEACON: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 251), 7482);
/// What every beacon has.
const BEACON_BYTES: usize = 140;
const SERVICE: &[&str] = &["_p2p", "_udp", "local"];
const SLOW_CONNECTIONS: usize = 64;

/// Sends packets at the asked rate; each is made from draws.
fn at_rate(work: &Work, mut one: impl FnMut(&mut Dice) -> io::Result<u64>) -> io::Result<(u64, u64)> {
    let (began, until) = (Instant::now(), work.until());
    let mut dice = Dice::new(work.draws);
    let (mut sent, mut failed) = (0, 0);
    while Instant::now() < until {
        let due = (began.elapsed().as_secs_f64() * f64::from(work.rate)) as u64;
        while sent < due {
            failed += one(&mut dice)?;
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok((sent, failed))
}

fn name(labels: &[&str]) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    for label in labels {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// An answer of a peer that does not exist, as libp2p's mDNS writes it.
fn answer(dice: &mut Dice) -> Vec<u8> {
    let key = Keypair::generate_ed25519().public().to_peer_id();
    let label = format!("{:032x}", u128::from(dice.bits()) << 64 | u128::from(dice.bits()));
    let instance = name(&[&label, "_p2p", "_udp", "local"]);
    let address = format!("dnsaddr=/ip4/10.77.200.{}/tcp/{}/p2p/{key}", dice.below(250) + 1, 1 + dice.below(65535));
    let mut packet = vec![0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 1];
    record(&mut packet, &name(SERVICE), 12, 1, &instance);
    let mut text = vec![address.len() as u8];
    text.extend_from_slice(address.as_bytes());
    record(&mut packet, &instance, 16, 0x8001, &text);
    packet
}

fn record(packet: &mut Vec<u8>, name: &[u8], kind: u16, class: u16, data: &[u8]) {
    packet.extend_from_slice(name);
    packet.extend_from_slice(&kind.to_be_bytes());
    packet.extend_from_slice(&class.to_be_bytes());
    packet.extend_from_slice(&120u32.to_be_bytes());
    packet.extend_from_slice(&(data.len() as u16).to_be_bytes());
    packet.extend_from_slice(data);
}

/// The question that every node answers.
fn question(dice: &mut Dice) -> Vec<u8> {
    let mut packet = (dice.bits() as u16).to_be_bytes().to_vec();
    packet.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    packet.extend_from_slice(&name(SERVICE));
    packet.extend_from_slice(&[0, 12, 0, 1]);
    packet
}

/// Half answers, half questions; some to the service alone, so that a filter by port sees them, too.
pub fn mdns(work: &Work) -> io::Result<Done> {
    let socket = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, MDNS.port()))?;
    socket.set_multicast_ttl_v4(255)?;
    let (sent, failed) = at_rate(work, |dice| {
        let packet = if dice.chance(50) { answer(dice) } else { question(dice) };
        Ok(u64::from(socket.send_to(&packet, MDNS).is_err()))
    })?;
    Ok(Done::from([("sent", sent), ("failed", failed)]))
}

/// From all addresses: half random bytes of a beacon's length, the rest what members said, half of it with a bit turned.
pub fn beacons(work: &Work) -> io::Result<Done> {
    let ear = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, BEACON.port()))?;
    ear.join_multicast_v4(BEACON.ip(), &Ipv4Addr::UNSPECIFIED)?;
    ear.set_multicast_loop_v4(false)?;
    ear.set_nonblocking(true)?;
    let mouth = |from: &Ipv4Addr| {
        let socket = UdpSocket::bind(SocketAddrV4::new(*from, 0))?;
        socket.set_multicast_loop_v4(false)?;
        Ok::<_, io::Error>(socket)
    };
    let mouths = work.from.iter().map(mouth).collect::<io::Result<Vec<_>>>()?;
    let (mut heard, mut repeated) = (Vec::<Vec<u8>>::new(), 0);
    let (sent, failed) = at_rate(work, |dice| {
        let mut buffer = [0; 2048];
        while let Ok(bytes) = ear.recv(&mut buffer) {
            if heard.len() < 256 {
                heard.push(buffer[..bytes].to_vec());
            }
        }
        let mut packet: Vec<u8> = (0..BEACON_BYTES).map(|_| dice.bits() as u8).collect();
        if let Some(real) = dice.pick(&heard).filter(|real| !real.is_empty() && dice.clone().chance(50)) {
            packet.clone_from(real);
            repeated += 1;
            if dice.chance(50) {
                let at = dice.below(packet.len() as u64) as usize;
                packet[at] ^= 1 << dice.below(8);
            }
        }
        let mouth = dice.pick(&mouths).unwrap_or(&ear);
        Ok(u64::from(mouth.send_to(&packet, BEACON).is_err()))
    })?;
    Ok(Done::from([("sent", sent), ("failed", failed), ("heard_first", heard.len() as u64), ("from_heard", repeated)]))
}

/// Random bytes: two of three by UDP, the rest on TCP connections.
pub fn garbage(work: &Work) -> io::Result<Done> {
    let socket = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))?;
    let target = work.socket();
    let mut received = 0;
    let (sent, failed) = at_rate(work, |dice| {
        let mut bytes = vec![0; 1 + dice.below(1200) as usize];
        bytes.iter_mut().for_each(|byte| *byte = dice.bits() as u8);
        if dice.chance(50) {
            // The long header of QUIC, version 1: it gets further.
            bytes[0] = 0xc0 | bytes[0] & 0x0f;
            bytes.splice(1..bytes.len().min(5), [0, 0, 0, 1]);
        }
        if dice.chance(67) {
            return Ok(u64::from(socket.send_to(&bytes, target).is_err()));
        }
        let stream = std::net::TcpStream::connect_timeout(&target.into(), Duration::from_millis(100));
        let Ok(mut stream) = stream else { return Ok(1) };
        let _ = io::Write::write_all(&mut stream, &bytes);
        stream.set_nonblocking(true)?;
        received += io::Read::read(&mut stream, &mut [0; 4096]).unwrap_or(0) as u64;
        Ok(0)
    })?;
    Ok(Done::from([("sent", sent), ("failed", failed), ("received_bytes", received)]))
}

/// One packet in clear.
pub fn shout(work: &Work) -> io::Result<Done> {
    let socket = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))?;
    socket.send_to(work.text.clone().unwrap_or_default().as_bytes(), work.socket())?;
    Ok(Done::from([("sent", 1)]))
}

async fn connect(work: &Work, number: usize) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(from) = work.from.get(number % work.from.len().max(1)) {
        socket.bind(SocketAddrV4::new(*from, 0).into())?;
    }
    let connected = tokio::time::timeout(Duration::from_secs(2), socket.connect(work.socket().into())).await;
    connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Connections from all addresses, closed as soon as they stand.
pub async fn connects(work: &Work) -> io::Result<Done> {
    let (began, until) = (Instant::now(), work.until());
    let (mut tried, mut stood) = (0u64, 0);
    let mut tasks = tokio::task::JoinSet::new();
    while Instant::now() < until {
        let due = (began.elapsed().as_secs_f64() * f64::from(work.rate)) as u64;
        while tried < due && tasks.len() < 256 {
            let (work, number) = (work.clone(), tried as usize);
            tasks.spawn(async move { connect(&work, number).await.is_ok() });
            tried += 1;
        }
        while let Some(result) = tasks.try_join_next() {
            stood += u64::from(result.unwrap_or(false));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(Done::from([("tried", tried), ("stood", stood)]))
}

/// Knocks ten times a second; `opened`: somebody answered.
pub async fn api(work: &Work) -> io::Result<Done> {
    let until = work.until();
    let (mut tried, mut opened) = (0, 0);
    while Instant::now() < until {
        tried += 1;
        opened += u64::from(connect(work, 0).await.is_ok());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(Done::from([("tried", tried), ("opened", opened)]))
}

/// Many connections at the same time: every other one silent, the rest say the first line of libp2p, a byte a second.
pub async fn slow(work: &Work) -> io::Result<Done> {
    let until = work.until();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..SLOW_CONNECTIONS {
        let work = work.clone();
        tasks.spawn(async move {
            let mut counts = [0u64; 2];
            while Instant::now() < until {
                if let Ok(stream) = connect(&work, number).await {
                    counts[0] += 1;
                    counts[1] += dribble(stream, number % 2 == 0, until).await;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            counts
        });
    }
    let (mut stood, mut received) = (0, 0);
    while let Some(counts) = tasks.join_next().await {
        let [more, bytes] = counts.unwrap_or_default();
        stood += more;
        received += bytes;
    }
    Ok(Done::from([("stood", stood), ("received_bytes", received)]))
}

/// Holds a connection until the other side closes it; the bytes it was given.
async fn dribble(mut stream: TcpStream, silent: bool, until: Instant) -> u64 {
    let mut words = b"\x13/multistream/1.0.0\n\x07/noise\n".iter().cycle();
    let (mut received, mut buffer) = (0, [0; 1024]);
    while Instant::now() < until {
        if !silent && stream.write_all(&[*words.next().unwrap_or(&0)]).await.is_err() {
            break;
        }
        match tokio::time::timeout(Duration::from_secs(1), stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(bytes)) => received += bytes as u64,
            Err(_) => {}
        }
    }
    received
}
