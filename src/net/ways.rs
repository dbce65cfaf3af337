//! The streams on which members tell each other where others can be reached.
//!
//! Invariant: one message per stream, bounded in bytes and time, few at once; what comes is a hint. Callers: network.

use std::io;
use std::time::Duration;

use futures::AsyncWriteExt as _;
use libp2p::{PeerId, Stream, StreamProtocol};
use libp2p_stream::Control;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::frame::{read_frame, write_frame};
use super::network::News;
use crate::model::NodeId;
use crate::wire::limits::WAYS_BYTES_MAX;
use crate::wire::ways::{WaysTo, decode_ways, encode_ways};

/// The protocol.
pub(crate) const WAYS: StreamProtocol = StreamProtocol::new("/litemesh/ways/1");

/// Streams heard at once; one more is refused, and what it says comes again with the next connection.
pub(crate) const HEARD_AT_ONCE_MAX: usize = 8;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Tells a peer; a broken stream loses a hint.
pub(crate) async fn tell(peer: PeerId, mut control: Control, ways: Vec<WaysTo>) {
    let telling = async {
        let mut stream = control.open_stream(peer, WAYS).await.map_err(io::Error::other)?;
        write_frame(&mut stream, &encode_ways(&ways)).await?;
        stream.close().await
    };
    if let Ok(Err(error)) = tokio::time::timeout(TIMEOUT, telling).await {
        tracing::debug!(%peer, %error, "a peer was not told of the others");
    }
}

/// Hears what a peer tells.
pub(crate) async fn hear(node: NodeId, mut stream: Stream, news: mpsc::Sender<News>, _place: OwnedSemaphorePermit) {
    let Ok(Ok(bytes)) = tokio::time::timeout(TIMEOUT, read_frame(&mut stream, WAYS_BYTES_MAX)).await else { return };
    let heard = match decode_ways(&bytes) {
        Ok(ways) => News::Ways { peer: node, ways },
        Err(error) => News::Fault { peer: node, reason: error.to_string() },
    };
    let _ = news.send(heard).await;
}
