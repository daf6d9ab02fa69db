//! The server: binds, serves, and drains within a timeout.

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
    /// Binds `address`. Port 0 picks a free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
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
    /// Draining sets `readiness`, closes the listener and waits until the open requests are answered.
    /// After `drain_timeout` the remaining connections are closed and their handlers dropped.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(
        self,
        app: Router,
        readiness: Readiness,
        stop: CancellationToken,
        drain_timeout: Duration,
    ) -> io::Result<()> {
        // Dropping this future must close the connections too: each runs in a task of its own.
        let cut = CancellationToken::new();
        let _cut_on_drop = cut.clone().drop_guard();
        let listener = CuttableListener { listener: self.listener, cut };
        let stopped = stop.clone();
        let serving = axum::serve(listener, app)
            .with_graceful_shutdown(async move {
                stopped.cancelled().await;
                readiness.set_draining();
            })
            .into_future();
        let deadline = async {
            stop.cancelled().await;
            tokio::time::sleep(drain_timeout).await;
        };
        tokio::select! {
            result = serving => result,
            () = deadline => {
                tracing::warn!(
                    seconds = drain_timeout.as_secs_f64(),
                    "the drain timeout is over; open connections are closed"
                );
                Ok(())
            }
        }
    }
}

/// A listener whose connections can all be closed at once, by cancelling `cut`.
struct CuttableListener {
    listener: TcpListener,
    cut: CancellationToken,
}

impl Listener for CuttableListener {
    type Io = CuttableStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        // A response is written at once, so that Nagle's algorithm would only delay it.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY cannot be set");
        }
        let cut = Box::pin(self.cut.clone().cancelled_owned());
        (CuttableStream { stream, cut }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that fails once `cut` is cancelled. The failure ends its task, which drops the handler.
struct CuttableStream {
    stream: TcpStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl CuttableStream {
    /// Returns the stream, or an error once it is cut. Registers the task to be woken when that happens.
    fn poll_uncut(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Pin<&mut TcpStream>>> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            Poll::Pending => Poll::Ready(Ok(Pin::new(&mut self.stream))),
        }
    }
}

impl AsyncRead for CuttableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_uncut(context))?.poll_read(context, buffer)
    }
}

impl AsyncWrite for CuttableStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_uncut(context))?.poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_uncut(context))?.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_uncut(context))?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_uncut(context))?.poll_shutdown(context)
    }
}
