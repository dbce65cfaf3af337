//! The streams to and from one peer: two long-lived outgoing **lanes** (urgent and bulk), each a stream with a bounded queue
//! before it, and readers of what comes in.
//!
//! A frame above [`PUSH_BYTES_MAX`] is bulk; hellos, pulls, pushes and small answers are urgent and never wait behind it, not
//! even behind the half of a frame that is on its way. The lane of bulk is opened with its first frame.
//! Invariants: a slow peer fills its own queues and nobody else's; when one is full the newest frame is dropped (the node
//! asks again). Frames keep their order within a lane only. A node that cannot follow is not read from.
//! Callers: net::network.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use libp2p::{PeerId, Stream, StreamProtocol};
use libp2p_stream::Control;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::frame::{read_body, read_length, write_frame};
use super::network::News;
use crate::model::NodeId;
use crate::node::Input;
use crate::wire::limits::{FRAME_BYTES_MAX, PUSH_BYTES_MAX};

/// The one protocol of frames between members.
pub(crate) const FRAMES: StreamProtocol = StreamProtocol::new("/litemesh/frames/1");

const QUEUED_FRAMES_MAX: usize = 64;
const QUEUED_BYTES_MAX: usize = 8 << 20;
/// A peer normally has two incoming streams; a reconnection may overlap with the old ones.
const READERS_MAX: usize = 6;
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// One frame has to pass within this: a peer that stops in the middle gives its stream up.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);

/// The streams of one connected peer; dropping it ends them.
pub(crate) struct Link {
    node: NodeId,
    urgent: Lane,
    bulk: Lane,
    dropped: u64,
    readers: Vec<AbortHandle>,
}

/// One outgoing stream and what waits for it.
struct Lane {
    queue: mpsc::Sender<Vec<u8>>,
    queued_bytes: Arc<AtomicUsize>,
    writer: AbortHandle,
}

impl Lane {
    fn open(peer: PeerId, control: Control) -> Lane {
        let (queue, frames) = mpsc::channel(QUEUED_FRAMES_MAX);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let writer = tokio::spawn(write_all(peer, control, frames, queued_bytes.clone())).abort_handle();
        Lane { queue, queued_bytes, writer }
    }

    /// `false`: it is full.
    fn send(&self, frame: Vec<u8>) -> bool {
        let bytes = frame.len();
        let fits = bytes <= FRAME_BYTES_MAX && self.queued_bytes.load(Ordering::Relaxed) + bytes <= QUEUED_BYTES_MAX;
        self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let sent = fits && self.queue.try_send(frame).is_ok();
        if !sent {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        sent
    }
}

impl Link {
    pub(crate) fn open(node: NodeId, peer: PeerId, control: Control) -> Link {
        let (urgent, bulk) = (Lane::open(peer, control.clone()), Lane::open(peer, control));
        Link { node, urgent, bulk, dropped: 0, readers: Vec::new() }
    }

    /// Queues a frame, or drops it when the peer is slow.
    pub(crate) fn send(&mut self, frame: Vec<u8>) {
        let lane = if frame.len() > PUSH_BYTES_MAX { &self.bulk } else { &self.urgent };
        if !lane.send(frame) {
            self.dropped += 1;
            tracing::debug!(peer = ?self.node, dropped = self.dropped, "frame dropped: the peer reads too slowly");
        }
    }

    /// Reads an incoming stream until it ends; beyond a few at a time the stream is refused.
    pub(crate) fn read(&mut self, stream: Stream, inputs: mpsc::Sender<Input>, news: mpsc::Sender<News>) {
        self.readers.retain(|reader| !reader.is_finished());
        if self.readers.len() < READERS_MAX {
            self.readers.push(tokio::spawn(read_all(self.node, stream, inputs, news)).abort_handle());
        }
    }

    /// Frames dropped since the peer connected.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.urgent.writer.abort();
        self.bulk.writer.abort();
        self.readers.iter().for_each(AbortHandle::abort);
    }
}

async fn write_all(
    peer: PeerId,
    mut control: Control,
    mut frames: mpsc::Receiver<Vec<u8>>,
    queued_bytes: Arc<AtomicUsize>,
) {
    let mut stream = None;
    while let Some(frame) = frames.recv().await {
        let result = write_one(peer, &mut control, &mut stream, &frame).await;
        queued_bytes.fetch_sub(frame.len(), Ordering::Relaxed);
        if let Err(error) = result {
            // The frame is lost, as frames may be. The next one tries a new stream, on whatever connection is left.
            tracing::debug!(%peer, %error, "the stream to a peer broke");
            stream = None;
        }
    }
}

async fn write_one(
    peer: PeerId,
    control: &mut Control,
    stream: &mut Option<Stream>,
    frame: &[u8],
) -> Result<(), io::Error> {
    let stream = match stream {
        Some(stream) => stream,
        None => {
            let opened = tokio::time::timeout(OPEN_TIMEOUT, control.open_stream(peer, FRAMES)).await;
            stream.insert(opened.map_err(|_| io::ErrorKind::TimedOut)?.map_err(io::Error::other)?)
        }
    };
    tokio::time::timeout(FRAME_TIMEOUT, write_frame(stream, frame)).await.map_err(|_| io::ErrorKind::TimedOut)?
}

async fn read_all(node: NodeId, mut stream: Stream, inputs: mpsc::Sender<Input>, news: mpsc::Sender<News>) {
    let error = loop {
        let length = match read_length(&mut stream, FRAME_BYTES_MAX).await {
            Ok(length) => length,
            Err(error) => break error,
        };
        let frame = match tokio::time::timeout(FRAME_TIMEOUT, read_body(&mut stream, length)).await {
            Ok(Ok(frame)) => frame,
            Ok(Err(error)) => break error,
            Err(_) => break io::ErrorKind::TimedOut.into(),
        };
        if inputs.send(Input::Received { peer: node, frame }).await.is_err() {
            return;
        }
    };
    if error.kind() == io::ErrorKind::InvalidData {
        let _ = news.send(News::Fault { peer: node, reason: error.to_string() }).await;
    }
}
