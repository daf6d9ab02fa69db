//! [`Server`] binds an address and serves requests. At shutdown, it waits for the open requests, up to the
//! drain timeout.
//!
//! The server bounds the number of its connections and how long a client may keep one without using it.
//! `connections` decides which connections are closed, and `connection` serves one connection.

mod bind_error;
mod connection;
mod connections;
mod descriptors;
mod settings;
#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinError, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

pub use bind_error::BindError;
pub(super) use connection::ConnectionContext;
pub use settings::{ConnectionLimits, HttpServerArgs, Origin, ServerConfig};

use self::{connection::serve_connection, connections::Connections};
use super::Readiness;

/// Pause after an error of the listener, such as the lack of a file descriptor.
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(100);
/// Minimum time between two log lines about errors of the listener.
const ACCEPT_ERROR_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A bound listener that does not serve requests yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    connections: Connections,
    allowed_origins: Arc<[Origin]>,
}

impl Server {
    /// Binds the address of `config`. If the port is 0, the system picks a free port.
    ///
    /// `service` is the label `service` of the metrics `http_connections` and
    /// `http_connections_closed_total`.
    ///
    /// # Errors
    /// Returns an error that names the setting if the address cannot be bound.
    pub async fn bind(service: &'static str, config: impl Into<ServerConfig>) -> Result<Self, BindError> {
        let ServerConfig { address, port_setting, limits, allowed_origins } = config.into();
        let bind = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) =
            bind.await.map_err(|source| BindError::new(address, port_setting, source))?;
        let connections = Connections::new(service, limits);
        Ok(Self { listener, address, connections, allowed_origins: allowed_origins.into() })
    }

    /// Returns the address that the server listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves requests until `stop` is cancelled, then drains.
    ///
    /// To drain, the server marks `readiness` as draining, closes the listener and every connection without a
    /// request in progress, and waits until all open requests are answered. After `drain_timeout` it closes
    /// the remaining connections and drops their handlers.
    pub async fn serve(
        self,
        app: Router,
        readiness: Readiness,
        stop: CancellationToken,
        drain_timeout: Duration,
    ) {
        // Dropping the set aborts the tasks of all connections.
        let mut tasks = JoinSet::new();
        self.accept_until_stopped(&mut tasks, &app, &readiness, &stop).await;
        let all_closed = async {
            while let Some(result) = tasks.join_next().await {
                log_panic(result)
            }
        };
        if timeout(drain_timeout, all_closed).await.is_err() {
            tracing::warn!(
                seconds = drain_timeout.as_secs_f64(),
                "the drain timeout is over; open connections are closed"
            );
            tasks.shutdown().await;
        }
    }

    /// Accepts connections and spawns their tasks until `stop` is cancelled. Then closes the listener.
    async fn accept_until_stopped(
        self,
        tasks: &mut JoinSet<()>,
        app: &Router,
        readiness: &Readiness,
        stop: &CancellationToken,
    ) {
        let Self { listener, connections, allowed_origins, .. } = self;
        let mut last_logged: Option<Instant> = None;
        loop {
            // When there is no room, clients wait in the system's queue. A connection that ends or becomes idle
            // makes room.
            let has_room = connections.has_room();
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(result) = tasks.join_next(), if !tasks.is_empty() => {
                    log_panic(result);
                    continue;
                }
                () = connections.wait_until_one_becomes_idle(), if !has_room => continue,
                accepted = listener.accept(), if has_room => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    set_no_delay(&stream);
                    let connection = connections.open();
                    let context = ConnectionContext {
                        allowed_origins: Arc::clone(&allowed_origins),
                        is_reserved: connection.is_reserved(),
                    };
                    tasks.spawn(serve_connection(stream, app.clone(), connection, context, stop.clone()));
                }
                Err(error) if is_error_of_one_connection(&error) => {}
                Err(error) => {
                    // The usual cause is that the process has too many open files. Closing a connection
                    // helps, and without the pause this loop would use a whole CPU core.
                    connections.close_oldest_idle();
                    if last_logged.is_none_or(|logged| logged.elapsed() >= ACCEPT_ERROR_LOG_INTERVAL) {
                        last_logged = Some(Instant::now());
                        tracing::error!(%error, "connections cannot be accepted; an idle one is closed");
                    }
                    tokio::select! {
                        () = sleep(ACCEPT_ERROR_PAUSE) => {}
                        () = stop.cancelled() => break,
                    }
                }
            }
        }
        readiness.set_draining();
    }
}

/// Returns true if the client of a new connection has already closed it.
fn is_error_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Disables Nagle's algorithm. Each response is written as a whole, so the algorithm would only delay its last
/// packet.
fn set_no_delay(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
}

fn log_panic(result: Result<(), JoinError>) {
    if let Err(error) = result
        && error.is_panic()
    {
        tracing::error!(%error, "the task of a connection panicked");
    }
}
