//! Attacks behind the handshake: at the gate, past it, and as a member that lies.
//!
//! Invariant: bounded in time and in what is held open; bytes that the target gave are counted. Callers: worker.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use libp2p::identity::Keypair;
use libp2p::{PeerId, core::muxing::SubstreamBox};
use prost::Message as _;

use super::super::dice::Dice;
use super::client::{Accepted, Client, Join, Opening, within};
use super::{Done, Work};

/// The product's protocol of frames.
const FRAMES: &str = "/litemesh/frames/1";
const VERSION: u32 = 1;

fn key() -> Keypair {
    Keypair::generate_ed25519()
}

fn random(dice: &mut Dice, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|_| dice.bits() as u8).collect()
}

/// Whole handshakes of strangers, sixteen at the same time; each then keeps its place as long as it is let.
pub async fn handshakes(work: &Work) -> io::Result<Done> {
    let (until, to) = (work.until(), work.socket());
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..16u64 {
        tasks.spawn(async move {
            let mut counts = [0u64; 2];
            while Instant::now() < until {
                counts[0] += 1;
                match Client::connect(&key(), to, number % 2 == 0).await {
                    Ok(client) => {
                        counts[1] += 1;
                        client.close().await;
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
            counts
        });
    }
    let (mut tried, mut stood) = (0, 0);
    while let Some(counts) = tasks.join_next().await {
        let [more, handshakes] = counts.unwrap_or_default();
        tried += more;
        stood += handshakes;
    }
    Ok(Done::from([("tried", tried), ("handshakes", stood)]))
}

/// Lengths that would take gigabytes: before the handshake, at the gate, and in place of a protocol's name.
pub async fn bombs(work: &Work) -> io::Result<Done> {
    let (until, to) = (work.until(), work.socket());
    let (mut thrown, mut received, mut turn) = (0u64, 0, 0u64);
    while Instant::now() < until {
        turn += 1;
        if turn % 4 == 0 {
            if let Ok(mut raw) = tokio::net::TcpStream::connect(std::net::SocketAddr::from(to)).await {
                let _ = tokio::io::AsyncWriteExt::write_all(&mut raw, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0x13]).await;
                thrown += 1;
            }
            continue;
        }
        let Ok(mut client) = Client::connect(&key(), to, turn % 2 == 0).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        if let Ok(mut stream) = client.open().await {
            let bomb: &[u8] = if turn % 3 == 0 { &[0x7f, 0xff, 0xff, 0xff] } else { &[0, 0, 0x5f, 0xff, 0x0a] };
            thrown += u64::from(client.say(&mut stream, bomb).await.is_ok());
            client.hear_out(&mut stream, Duration::from_millis(200)).await;
        }
        received += client.received;
        client.close().await;
    }
    Ok(Done::from([("thrown", thrown), ("received_bytes", received)]))
}

/// What a libp2p node without membership can get: it says nothing, says nonsense, joins without an invite, and asks for
/// every protocol. `data_bytes`: all that was given beyond the gate's own answers to a joiner (nonce and refusal).
pub async fn stranger(work: &Work) -> io::Result<Done> {
    let (until, to) = (work.until(), work.socket());
    let mut dice = Dice::new(work.draws);
    let (mut tried, mut handshakes, mut gate_bytes, mut data_bytes, mut turn) = (0u64, 0u64, 0u64, 0u64, 0u64);
    while Instant::now() < until {
        tried += 1;
        let Ok(mut client) = Client::connect(&key(), to, turn % 2 == 0).await else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        handshakes += 1;
        let joins = (turn / 2) % 4 == 2;
        // Refused is what is expected; what was given before is counted.
        let _ = knock(&mut client, (turn / 2) % 4, &mut dice).await;
        if joins {
            gate_bytes += client.received;
        } else {
            data_bytes += client.received;
        }
        client.close().await;
        turn += 1;
    }
    Ok(Done::from([
        ("tried", tried),
        ("handshakes", handshakes),
        ("gate_bytes", gate_bytes),
        ("data_bytes", data_bytes),
    ]))
}

async fn knock(client: &mut Client, way: u64, dice: &mut Dice) -> io::Result<()> {
    if way == 3 {
        for protocol in [FRAMES, "/meshsub/1.1.0", "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"] {
            if let Ok((mut stream, _)) = client.negotiate(protocol).await {
                client.hear_out(&mut stream, Duration::from_millis(500)).await;
            }
        }
        return Ok(());
    }
    let mut stream = client.open().await?;
    match way {
        0 => {
            let tag = random(dice, 32);
            let opening = Opening { version: VERSION, nonce: random(dice, 32), tag, knows_you: true };
            client.say_frame(&mut stream, &opening.encode_to_vec()).await?;
        }
        1 => {
            let nonsense = random(dice, 200);
            client.say_frame(&mut stream, &nonsense).await?;
        }
        _ => {
            let opening = Opening { version: VERSION, nonce: random(dice, 32), tag: Vec::new(), knows_you: false };
            client.say_frame(&mut stream, &opening.encode_to_vec()).await?;
            client.hear_frame(&mut stream).await?;
            let join = Join { invite: random(dice, 8), proof: random(dice, 32), name: "nobody".to_owned() };
            client.say_frame(&mut stream, &join.encode_to_vec()).await?;
        }
    }
    client.hear_out(&mut stream, Duration::from_millis(500)).await;
    Ok(())
}

/// A member's key: it repeats what it heard at the asked rate, stops in the middle of a frame, then sends what it heard
/// with bits turned until it is shut out, and comes back again and again.
pub async fn liar(work: &Work) -> io::Result<Done> {
    let key = member_key(work.key.as_deref())?;
    let cluster =
        work.cluster.as_deref().and_then(|hex| data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok());
    let cluster = cluster.ok_or(io::ErrorKind::InvalidInput)?;
    let began = Instant::now();
    let (until, half) = (work.until(), began + Duration::from_secs_f64(work.lasts / 2.0));
    let mut dice = Dice::new(work.draws);
    let mut counts = Done::new();
    let (mut client, mut stream, heard) = as_member(&key, &cluster, work).await?;
    *counts.entry("heard_bytes").or_default() += heard.len() as u64;
    while Instant::now() < half {
        let due = (began.elapsed().as_secs_f64() * f64::from(work.rate)) as u64;
        while counts.get("repeated").copied().unwrap_or(0) < due {
            client.say_frame(&mut stream, &heard).await?;
            *counts.entry("repeated").or_default() += 1;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // Half a frame, on a stream of its own that stays open.
    let (mut stalled, _) = client.negotiate(FRAMES).await?;
    client.say(&mut stalled, &[0, 0, 4, 0, 1, 2, 3]).await?;
    while Instant::now() < until {
        let mut turned = heard.clone();
        for _ in 0..3 {
            let at = dice.below(turned.len() as u64) as usize;
            turned[at] ^= 1 << dice.below(8);
        }
        if client.say_frame(&mut stream, &turned).await.is_ok() {
            *counts.entry("turned").or_default() += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        *counts.entry("shut_out").or_default() += 1;
        match back(&key, &cluster, work, until, &mut counts).await {
            Some(again) => (client, stream) = again,
            None => break,
        }
    }
    drop(stalled);
    Ok(counts)
}

async fn back(
    key: &Keypair,
    cluster: &[u8],
    work: &Work,
    until: Instant,
    counts: &mut Done,
) -> Option<(Client, SubstreamBox)> {
    while Instant::now() < until {
        match within(Duration::from_secs(5), as_member(key, cluster, work)).await {
            Ok((client, stream, _)) => {
                *counts.entry("let_in_again").or_default() += 1;
                return Some((client, stream));
            }
            Err(_) => *counts.entry("refused").or_default() += 1,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}

/// Through the gate with a member's key; a stream of frames, and the first frame that the node sent.
async fn as_member(key: &Keypair, cluster: &[u8], work: &Work) -> io::Result<(Client, SubstreamBox, Vec<u8>)> {
    let mut client = Client::connect(key, work.socket(), false).await?;
    let mut gate = client.open().await?;
    let (own, remote) = (node(&key.public().to_peer_id())?, node(&client.remote)?);
    let nonce = random(&mut Dice::new(work.draws ^ std::process::id() as u64), 32);
    let mut hasher = blake3::Hasher::new_keyed(&blake3::derive_key("litemesh 1 gate", cluster));
    for part in [&nonce[..], &[0; 32], &own, &remote] {
        hasher.update(part);
    }
    let tag = hasher.update(b"dialer").finalize().as_bytes().to_vec();
    let opening = Opening { version: VERSION, nonce, tag, knows_you: true };
    client.say_frame(&mut gate, &opening.encode_to_vec()).await?;
    client.hear_frame(&mut gate).await?;
    client.say_frame(&mut gate, &[]).await?;
    client.hear_frame(&mut gate).await?;
    client.say_frame(&mut gate, &Accepted { accepted: true }.encode_to_vec()).await?;
    let mut frames = client.accept(FRAMES).await?;
    let heard = client.hear_frame(&mut frames).await?;
    let (stream, spoken) = client.negotiate(FRAMES).await?;
    if !spoken {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok((client, stream, heard))
}

/// The key inside a peer id.
fn node(peer: &PeerId) -> io::Result<[u8; 32]> {
    let bytes = peer.to_bytes();
    bytes.last_chunk().copied().ok_or(io::ErrorKind::InvalidData.into())
}

/// The key of a data directory.
fn member_key(path: Option<&Path>) -> io::Result<Keypair> {
    let text = std::fs::read_to_string(path.ok_or(io::ErrorKind::InvalidInput)?)?;
    let seed = text.split_whitespace().find_map(|word| data_encoding::HEXLOWER.decode(word.as_bytes()).ok());
    let seed = seed.filter(|seed| seed.len() == 32).ok_or(io::ErrorKind::InvalidData)?;
    Keypair::ed25519_from_bytes(seed).map_err(io::Error::other)
}
