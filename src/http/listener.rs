//! Connections: a bounded number, each with a bounded time to ask and to take the answer.
//!
//! Invariant: at most [`CONNECTIONS_MAX`] are open, further ones wait in the system's backlog; a peer that sends or takes
//! nothing for [`PATIENCE`] is dropped, however it drips: the time runs from the last answer, not from the last byte.
//! Called by [`super::serve`].

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// Open connections, at most.
pub(super) const CONNECTIONS_MAX: usize = 32;

/// Time for a whole request to arrive, or for a part of an answer to be taken.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Pause when the system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// See the module.
pub(super) struct LimitedListener {
    inner: TcpListener,
    permits: Arc<Semaphore>,
    patience: Duration,
}

/// What guard and connection share.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionState {
    /// A request is being answered: the caller may take its time.
    pub(super) answering: Arc<AtomicBool>,
}

/// One connection.
pub(super) struct LimitedStream {
    inner: TcpStream,
    state: ConnectionState,
    deadline: Pin<Box<Sleep>>,
    patience: Duration,
    _permit: OwnedSemaphorePermit,
}

impl LimitedListener {
    pub(super) fn new(inner: TcpListener, patience: Duration) -> LimitedListener {
        LimitedListener { inner, permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)), patience }
    }
}

impl axum::serve::Listener for LimitedListener {
    type Io = LimitedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (LimitedStream, SocketAddr) {
        let permit = self
            .permits
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore lives as long as the listener, never closed");
        loop {
            match self.inner.accept().await {
                Ok((inner, address)) => {
                    let (patience, state) = (self.patience, ConnectionState::default());
                    let deadline = Box::pin(tokio::time::sleep(patience));
                    return (LimitedStream { inner, state, deadline, patience, _permit: permit }, address);
                }
                Err(error) => {
                    tracing::debug!(%error, "accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

impl Connected<IncomingStream<'_, LimitedListener>> for ConnectionState {
    fn connect_info(stream: IncomingStream<'_, LimitedListener>) -> ConnectionState {
        stream.io().state.clone()
    }
}

impl LimitedStream {
    /// Pending while there is time, an error behind the deadline.
    fn wait<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if self.state.answering.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        self.deadline.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn restart(&mut self) {
        self.deadline.as_mut().reset(Instant::now() + self.patience);
    }
}

impl AsyncRead for LimitedStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.state.answering.load(Ordering::Relaxed) && this.deadline.is_elapsed() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        match Pin::new(&mut this.inner).poll_read(context, buffer) {
            Poll::Pending => this.wait(context),
            done => done,
        }
    }
}

impl AsyncWrite for LimitedStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_write(context, bytes) {
            Poll::Pending => this.wait(context),
            done => {
                this.restart();
                done
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}
