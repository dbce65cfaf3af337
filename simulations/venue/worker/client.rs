//! A libp2p connection without a swarm: encryption as the product's, then streams on which anything can be said.
//!
//! Invariant: nothing of the product's network is used, so a defect there is not met on both sides; every wait is bounded.
//! The gate's messages are written here once more, from `proto/member.proto`. Callers: hostile.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddrV4;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt as _, SubstreamBox};
use libp2p::core::transport::{DialOpts, PortUse, Transport as _};
use libp2p::core::upgrade::Version;
use libp2p::core::{Endpoint, transport::Boxed};
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, noise, quic, tcp, yamux};

const WAIT: Duration = Duration::from_secs(6);

/// How a stream's negotiation begins, on both sides.
const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";

/// First message of the gate.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Opening {
    /// Of the protocol.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// 32 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub nonce: Vec<u8>,
    /// Proof of knowing the cluster; empty in a join.
    #[prost(bytes = "vec", tag = "3")]
    pub tag: Vec<u8>,
    /// The sender has the receiver's record.
    #[prost(bool, tag = "4")]
    pub knows_you: bool,
}

/// A joiner's proof.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Join {
    /// 8 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub invite: Vec<u8>,
    /// 32 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub proof: Vec<u8>,
    /// Of the joiner.
    #[prost(string, tag = "3")]
    pub name: String,
}

/// The end of the gate.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Accepted {
    /// Always true.
    #[prost(bool, tag = "1")]
    pub accepted: bool,
}

/// A connection behind its handshake.
pub struct Client {
    muxer: StreamMuxerBox,
    /// The other side's key.
    pub remote: PeerId,
    /// Bytes given to us on streams.
    pub received: u64,
    /// Closed or broken. QUIC's connection panics when it is asked again after that.
    over: bool,
}

fn transport(key: &Keypair, over_quic: bool) -> io::Result<Boxed<(PeerId, StreamMuxerBox)>> {
    if over_quic {
        let quic = quic::tokio::Transport::new(quic::Config::new(key));
        return Ok(quic.map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection))).boxed());
    }
    Ok(tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key).map_err(io::Error::other)?)
        .multiplex(yamux::Config::default())
        .boxed())
}

/// One line of a negotiation.
fn line(word: &str) -> Vec<u8> {
    let mut line = vec![word.len() as u8 + 1];
    line.extend_from_slice(word.as_bytes());
    line.push(b'\n');
    line
}

/// The protocol that the other side proposes first.
async fn hear_proposal(stream: &mut SubstreamBox) -> io::Result<Vec<u8>> {
    let mut header = vec![0; HEADER.len()];
    stream.read_exact(&mut header).await?;
    let mut length = [0];
    stream.read_exact(&mut length).await?;
    let mut line = vec![length[0]; usize::from(length[0]) + 1];
    stream.read_exact(&mut line[1..]).await?;
    Ok(line)
}

/// Waits, but not for ever.
pub async fn within<T>(limit: Duration, future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(limit, future).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

impl Client {
    /// Shakes hands with a key.
    pub async fn connect(key: &Keypair, to: SocketAddrV4, over_quic: bool) -> io::Result<Client> {
        let last = if over_quic { format!("udp/{}/quic-v1", to.port()) } else { format!("tcp/{}", to.port()) };
        let address: Multiaddr = format!("/ip4/{}/{last}", to.ip()).parse().map_err(io::Error::other)?;
        let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let mut transport = transport(key, over_quic)?;
        let dial = transport.dial(address, options).map_err(io::Error::other)?;
        let (remote, muxer) = within(WAIT, async { dial.await.map_err(io::Error::other) }).await?;
        Ok(Client { muxer, remote, received: 0, over: false })
    }

    /// Opens a stream.
    pub async fn open(&mut self) -> io::Result<SubstreamBox> {
        self.poll(|muxer, context| match muxer.poll_outbound_unpin(context) {
            Poll::Ready(stream) => Poll::Ready((stream.is_err(), stream)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Runs a future over a stream.
    async fn drive<T>(&mut self, future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let mut future = pin!(future);
        self.poll(|_, context| future.as_mut().poll(context).map(|output| (false, output))).await
    }

    /// Polls until there is a result; `true` beside it: the connection is over. It moves only while it is polled itself.
    async fn poll<T>(
        &mut self,
        mut one: impl FnMut(&mut StreamMuxerBox, &mut Context<'_>) -> Poll<(bool, io::Result<T>)>,
    ) -> io::Result<T> {
        let (muxer, over) = (&mut self.muxer, &mut self.over);
        let polled = poll_fn(|context| {
            if *over {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            }
            if let Poll::Ready((ends, output)) = one(muxer, context) {
                *over = ends;
                return Poll::Ready(output);
            }
            while let Poll::Ready(event) = muxer.poll_unpin(context) {
                if let Err(error) = event {
                    *over = true;
                    return Poll::Ready(Err(error));
                }
            }
            Poll::Pending
        });
        within(WAIT, polled).await
    }

    /// Waits until the other side opens a stream for `protocol`; all others are told that they are not spoken here.
    pub async fn accept(&mut self, protocol: &str) -> io::Result<SubstreamBox> {
        let wanted = line(protocol);
        for _ in 0..16 {
            let mut stream = self
                .poll(|muxer, context| match muxer.poll_inbound_unpin(context) {
                    Poll::Ready(stream) => Poll::Ready((stream.is_err(), stream)),
                    Poll::Pending => Poll::Pending,
                })
                .await?;
            let asked = self.drive(hear_proposal(&mut stream)).await?;
            self.received += asked.len() as u64 + 20;
            let answer =
                if asked == wanted { [HEADER, &wanted[..]].concat() } else { [HEADER, &line("na")[..]].concat() };
            self.say(&mut stream, &answer).await?;
            if asked == wanted {
                return Ok(stream);
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// Says bytes as they are.
    pub async fn say(&mut self, stream: &mut SubstreamBox, bytes: &[u8]) -> io::Result<()> {
        self.drive(async {
            stream.write_all(bytes).await?;
            stream.flush().await
        })
        .await
    }

    /// Says bytes behind their length.
    pub async fn say_frame(&mut self, stream: &mut SubstreamBox, bytes: &[u8]) -> io::Result<()> {
        let mut whole = (bytes.len() as u32).to_be_bytes().to_vec();
        whole.extend_from_slice(bytes);
        self.say(stream, &whole).await
    }

    /// Hears one frame.
    pub async fn hear_frame(&mut self, stream: &mut SubstreamBox) -> io::Result<Vec<u8>> {
        let bytes = self
            .drive(async {
                let mut length = [0; 4];
                stream.read_exact(&mut length).await?;
                let mut bytes = vec![0; (u32::from_be_bytes(length) as usize).min(1 << 20)];
                stream.read_exact(&mut bytes).await?;
                Ok(bytes)
            })
            .await?;
        self.received += 4 + bytes.len() as u64;
        Ok(bytes)
    }

    /// Hears until the stream or the connection ends, at most so long; everything that came.
    pub async fn hear_out(&mut self, stream: &mut SubstreamBox, at_most: Duration) -> Vec<u8> {
        let mut heard = Vec::new();
        let until = tokio::time::Instant::now() + at_most;
        let mut buffer = [0; 4096];
        while let Ok(Ok(bytes)) = tokio::time::timeout_at(until, self.drive(stream.read(&mut buffer))).await {
            if bytes == 0 {
                break;
            }
            heard.extend_from_slice(&buffer[..bytes]);
        }
        self.received += heard.len() as u64;
        heard
    }

    /// Asks for a protocol on a new stream, as libp2p does; whether it was given.
    pub async fn negotiate(&mut self, protocol: &str) -> io::Result<(SubstreamBox, bool)> {
        let mut stream = self.open().await?;
        let words = [HEADER, &line(protocol)[..]].concat();
        self.say(&mut stream, &words).await?;
        let expected = words.len();
        let answer = self
            .drive(async {
                let mut answer = vec![0; expected];
                stream.read_exact(&mut answer).await?;
                Ok(answer)
            })
            .await?;
        self.received += answer.len() as u64;
        Ok((stream, answer == words))
    }

    /// Closes the connection, briefly.
    pub async fn close(self) {
        if !self.over {
            let _ = tokio::time::timeout(Duration::from_millis(200), self.muxer.close()).await;
        }
    }
}
