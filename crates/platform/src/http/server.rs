//! [`Server`] binds an address and serves requests. At shutdown, it waits for the open requests, up to the
//! drain timeout.

use std::{
    future::{Future, IntoFuture},
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, serve::Listener};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::Readiness;

/// A bound listener that does not serve requests yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Binds `address`. If the port is 0, the system picks a free port.
    ///
    /// # Errors
    /// Returns an error if the address cannot be bound.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Returns the address that the server listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves requests until `stop` is cancelled, then drains.
    ///
    /// To drain, the server marks `readiness` as draining, closes the listener, and waits until all open
    /// requests are answered. After `drain_timeout` it closes the remaining connections and drops their
    /// handlers.
    ///
    /// # Errors
    /// Returns an error if the listener fails.
    pub async fn serve(
        self,
        app: Router,
        readiness: Readiness,
        stop: CancellationToken,
        drain_timeout: Duration,
    ) -> io::Result<()> {
        // Each connection runs in its own task. The guard aborts the connections when this future ends or is
        // dropped.
        let abort = CancellationToken::new();
        let _abort_on_drop = abort.clone().drop_guard();
        let listener = AbortableListener { listener: self.listener, abort };
        let graceful_stop = stop.clone();
        let serving = axum::serve(listener, app)
            .with_graceful_shutdown(async move {
                graceful_stop.cancelled().await;
                readiness.set_draining();
            })
            .into_future();
        let drain_deadline = async {
            stop.cancelled().await;
            tokio::time::sleep(drain_timeout).await;
        };
        tokio::select! {
            result = serving => result,
            () = drain_deadline => {
                tracing::warn!(
                    seconds = drain_timeout.as_secs_f64(),
                    "the drain timeout is over; open connections are closed"
                );
                Ok(())
            }
        }
    }
}

/// A listener whose connections all end when `abort` is cancelled.
struct AbortableListener {
    listener: TcpListener,
    abort: CancellationToken,
}

impl Listener for AbortableListener {
    type Io = AbortableStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        // Each response is written as a whole, so Nagle's algorithm would only delay its last packet.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY cannot be set");
        }
        let aborted = Box::pin(self.abort.clone().cancelled_owned());
        (AbortableStream { stream, aborted }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection whose reads and writes fail after `aborted` completes. The failure ends the task of the
/// connection, and the end of the task drops the handler.
struct AbortableStream {
    stream: TcpStream,
    aborted: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl AbortableStream {
    /// Returns the stream, or an error if the connection is aborted. A later abort wakes the task of
    /// `context`.
    fn poll_unless_aborted(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Pin<&mut TcpStream>>> {
        match self.aborted.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            Poll::Pending => Poll::Ready(Ok(Pin::new(&mut self.stream))),
        }
    }
}

impl AsyncRead for AbortableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_unless_aborted(context))?.poll_read(context, buffer)
    }
}

impl AsyncWrite for AbortableStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_unless_aborted(context))?.poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_unless_aborted(context))?.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unless_aborted(context))?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unless_aborted(context))?.poll_shutdown(context)
    }
}
