//! [`serve_connection`] serves the requests of one connection.

use std::{
    convert::Infallible,
    future::pending,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    http::{HeaderValue, Request, header},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::sleep_until,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    Origin,
    connections::{CloseReason, ConnectionMonitor, OpenConnection, RequestInProgress},
};

/// Maximum size of a request's head in bytes. hyper answers a larger one with 431.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// Maximum number of bytes that hyper reads at once, and about the maximum size of a connection's read buffer.
///
/// No memory budget counts these buffers. With hyper's default of 408 KiB, the 1024 connections of a server
/// could hold 400 MiB. With this maximum, they hold 64 MiB.
pub(super) const MAX_BUFFER_BYTES: usize = 64 << 10;

/// Facts about a connection. The server adds them to the extensions of each request.
#[derive(Clone, Debug)]
pub(in crate::http) struct ConnectionContext {
    /// Origins of other websites whose pages may send unsafe requests.
    pub(in crate::http) allowed_origins: Arc<[Origin]>,
    /// True if the connection exceeds the maximum number of connections. Such a connection serves one
    /// request, and only a health check or a push.
    pub(in crate::http) is_reserved: bool,
}

/// Serves HTTP/1.1 on `io` until the connection ends, is told to close, or has nothing to do while `stop` is
/// cancelled. A request in progress is finished, unless the table tells the connection to close.
pub(super) async fn serve_connection<I>(
    io: I,
    app: Router,
    connection: OpenConnection,
    context: ConnectionContext,
    stop: CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let monitor = connection.monitor();
    let io = TokioIo::new(MonitoredStream { stream: io, monitor: monitor.clone() });
    let service = service_fn(move |request| {
        // If the connection is closing, the request is not started. The client can safely send it again.
        let request_in_progress = monitor.begin_request();
        let (app, context) = (app.clone(), context.clone());
        async move {
            match request_in_progress {
                Some(in_progress) => respond(app, request, context, in_progress).await,
                None => pending().await,
            }
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_BUFFER_BYTES)
        // hyper's timeout would also close connections between two requests.
        .header_read_timeout(None);
    // The block drops the stream before the connection leaves the table.
    let reason = {
        let mut serving = pin!(builder.serve_connection(io, service));
        let mut is_draining = false;
        loop {
            tokio::select! {
                biased;
                result = serving.as_mut() => break match result {
                    Ok(()) => CloseReason::Ended,
                    Err(error) => {
                        tracing::debug!(%error, "a connection failed");
                        CloseReason::Failed
                    }
                },
                reason = connection.wait_until_told_to_close() => break reason,
                () = stop.cancelled(), if !is_draining => {
                    is_draining = true;
                    if !connection.close_if_idle(CloseReason::Draining) {
                        serving.as_mut().graceful_shutdown();
                    }
                }
                () = sleep_until(connection.next_check()) => connection.close_if_expired(),
            }
        }
    };
    connection.end(reason);
}

async fn respond(
    app: Router,
    request: Request<Incoming>,
    context: ConnectionContext,
    in_progress: RequestInProgress,
) -> Result<axum::http::Response<MonitoredBody>, Infallible> {
    let is_reserved = context.is_reserved;
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(context);
    let mut response = app.oneshot(request).await?;
    if is_reserved {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| MonitoredBody { body, _in_progress: in_progress }))
}

/// The body of a response. Its request is in progress until the body is dropped.
struct MonitoredBody {
    body: Body,
    _in_progress: RequestInProgress,
}

impl HttpBody for MonitoredBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// A stream that reports what arrives and what waits to be sent.
struct MonitoredStream<I> {
    stream: I,
    monitor: ConnectionMonitor,
}

impl<I> MonitoredStream<I> {
    /// Reports that bytes wait to be sent if `written` is pending.
    fn report_write<T>(&self, written: Poll<T>) -> Poll<T> {
        if written.is_pending() {
            self.monitor.record_unsent(true);
        }
        written
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for MonitoredStream<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length_before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > length_before {
            self.monitor.record_received();
        }
        result
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for MonitoredStream<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.report_write(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.report_write(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Flushes the stream. hyper flushes only after it has written all bytes, so that no byte waits to be sent
    /// after a successful flush.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() {
            self.monitor.record_unsent(false);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
