//! Tests of the limits on connections, over streams in memory and with a paused clock.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    routing::{get, post},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex, join, sink},
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    ConnectionLimits,
    connection::{ConnectionContext, MAX_BUFFER_BYTES, serve_connection},
    connections::{CloseReason, Connections},
    settings::RESERVED_CONNECTIONS,
};
use crate::http::{Readiness, health_routes, with_middleware};

const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

/// Size of the buffers between a test and the server. A response that is larger blocks until the test reads.
const STREAM_BUFFER_BYTES: usize = 1 << 10;
const LARGE_RESPONSE_BYTES: usize = 1 << 20;

/// A server without a listener.
struct Rig {
    connections: Connections,
    app: Router,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    /// Receives a message whenever a request for `/gated` begins.
    gated_started: mpsc::UnboundedReceiver<()>,
    /// Lets one request for `/gated` finish.
    gate: Arc<Notify>,
}

impl Rig {
    fn new(max_connections: usize) -> Self {
        let (started, gated_started) = mpsc::unbounded_channel();
        let gate = Arc::new(Notify::new());
        let gated = {
            let gate = Arc::clone(&gate);
            move || {
                started.send(()).unwrap();
                async move {
                    gate.notified().await;
                    "done"
                }
            }
        };
        let routes = Router::new()
            .route("/ok", get(|| async { "ok" }))
            .route("/gated", get(gated.clone()))
            .route(crate::http::PUSH_PATH, axum::routing::post(|| async { "pushed" }))
            .route("/large", get(|| async { "x".repeat(LARGE_RESPONSE_BYTES) }))
            .merge(health_routes(Readiness::default()));
        let limits = ConnectionLimits {
            max_connections,
            head_timeout: HEAD_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
        };
        Self {
            connections: Connections::new("test", limits),
            app: with_middleware(routes, "test", 10 * HOUR),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
            gated_started,
            gate,
        }
    }

    /// Opens a connection, as the accept loop does.
    fn connect(&mut self) -> Client {
        let (client, server) = duplex(STREAM_BUFFER_BYTES);
        let connection = self.connections.open();
        let context = ConnectionContext { allowed_origins: [].into(), is_reserved: connection.is_reserved() };
        self.tasks.spawn(serve_connection(server, self.app.clone(), connection, context, self.stop.clone()));
        Client(client)
    }

    /// Waits until every task waits for something, so that replaced connections are closed.
    async fn let_tasks_run(&mut self) {
        // The paused clock advances when there is nothing else to do.
        sleep(Duration::from_millis(1)).await;
        while let Some(result) = self.tasks.try_join_next() {
            result.unwrap();
        }
    }

    /// Opens a connection with a request for `/gated` in progress.
    async fn connect_busy(&mut self) -> Client {
        let mut client = self.connect();
        client.send("GET /gated HTTP/1.1\r\nhost: x\r\n\r\n").await;
        self.gated_started.recv().await.unwrap();
        client
    }
}

/// The client's end of a connection.
struct Client(DuplexStream);

impl Client {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Sends a request without a body and returns the response.
    async fn get(&mut self, path: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        self.receive_response().await
    }

    /// Receives a response that ends where its Content-Length says.
    async fn receive_response(&mut self) -> String {
        let mut received = String::new();
        loop {
            if let Some((head, body)) = received.split_once("\r\n\r\n") {
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .map_or(0, |length| length.parse().unwrap());
                if body.len() >= length {
                    return received;
                }
            }
            let mut buffer = [0; 1024];
            let count = self.0.read(&mut buffer).await.unwrap();
            assert!(count > 0, "the connection ended after {received:?}");
            received.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
    }

    /// Waits until the server closes the connection. Returns the time that passed and the received bytes.
    async fn wait_until_closed(&mut self) -> (Duration, usize) {
        let start = Instant::now();
        let mut received = Vec::new();
        self.0.read_to_end(&mut received).await.unwrap();
        (start.elapsed(), received.len())
    }
}

#[tokio::test(start_paused = true)]
async fn silent_connection_is_closed_after_the_head_timeout() {
    let mut rig = Rig::new(10);
    assert_eq!(rig.connect().wait_until_closed().await, (HEAD_TIMEOUT, 0));
}

#[tokio::test(start_paused = true)]
async fn head_that_arrives_byte_by_byte_is_cut_at_the_head_timeout() {
    let mut rig = Rig::new(10);
    // The first head of a connection, and one after an answered request.
    for first_requests in [0, 2] {
        let mut client = rig.connect();
        for _ in 0..first_requests {
            client.get("/ok").await;
            sleep(2 * HEAD_TIMEOUT).await;
        }
        let start = Instant::now();
        client.send("GET /ok HTTP/1.1\r\nx: ").await;
        while client.0.write_all(b"x").await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
        let elapsed = start.elapsed();
        assert!((HEAD_TIMEOUT..HEAD_TIMEOUT + Duration::from_secs(2)).contains(&elapsed), "{elapsed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn connection_between_requests_is_kept_until_the_idle_timeout() {
    let mut rig = Rig::new(10);
    let mut client = rig.connect();
    for _ in 0..3 {
        assert!(client.get("/ok").await.starts_with("HTTP/1.1 200"));
        sleep(IDLE_TIMEOUT - Duration::from_secs(1)).await;
    }
    assert!(client.get("/ok").await.starts_with("HTTP/1.1 200"));
    assert_eq!(client.wait_until_closed().await, (IDLE_TIMEOUT, 0));
}

#[tokio::test(start_paused = true)]
async fn no_timeout_of_the_connection_cuts_a_request_in_progress() {
    let mut rig = Rig::new(10);
    let mut client = rig.connect_busy().await;
    sleep(2 * HOUR).await;
    rig.gate.notify_one();
    assert!(client.receive_response().await.ends_with("done"));
    assert!(client.get("/ok").await.ends_with("ok"));
}

#[tokio::test(start_paused = true)]
async fn client_that_receives_too_slowly_is_cut_at_the_write_timeout() {
    for pause in [None, Some(Duration::from_secs(1))] {
        let mut rig = Rig::new(10);
        let mut client = rig.connect();
        client.send("GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let start = Instant::now();
        if let Some(pause) = pause {
            // Receives 64 bytes a second.
            while client.0.read_exact(&mut [0; 64]).await.is_ok() {
                sleep(pause).await;
            }
        } else {
            assert!(rig.tasks.join_next().await.unwrap().is_ok());
        }
        // What was in the buffer can still be received after the connection was closed.
        let buffered = Duration::from_secs((STREAM_BUFFER_BYTES / 64) as u64 + 1);
        let elapsed = start.elapsed();
        assert!((WRITE_TIMEOUT..=WRITE_TIMEOUT + buffered).contains(&elapsed), "{elapsed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn client_that_receives_everything_in_time_keeps_its_connection() {
    let mut rig = Rig::new(10);
    let mut client = rig.connect();
    assert!(client.get("/large").await.len() > LARGE_RESPONSE_BYTES);
    sleep(2 * WRITE_TIMEOUT).await;
    assert!(client.get("/ok").await.ends_with("ok"));
}

#[tokio::test(start_paused = true)]
async fn new_connection_replaces_the_one_that_has_been_idle_longest() {
    let mut rig = Rig::new(3);
    let (mut first, mut second, mut busy) = (rig.connect(), rig.connect(), rig.connect_busy().await);
    first.get("/ok").await;
    second.get("/ok").await;
    // `first` is used again, so `second` has been idle longest.
    first.get("/ok").await;

    let mut third = rig.connect();
    assert_eq!(second.wait_until_closed().await, (Duration::ZERO, 0));
    assert!(third.get("/ok").await.ends_with("ok"));
    assert!(first.get("/ok").await.ends_with("ok"));
    rig.gate.notify_one();
    assert!(busy.receive_response().await.ends_with("done"));
}

#[tokio::test(start_paused = true)]
async fn request_is_answered_while_any_number_of_silent_and_half_open_connections_is_held() {
    let mut rig = Rig::new(10);
    let mut held = Vec::new();
    for number in 0..500 {
        assert!(rig.connections.has_room(), "connection {number} is accepted");
        let mut client = rig.connect();
        if number % 2 == 0 {
            client.send("POST /ok HTTP/1.1\r\nhost: x\r\ncontent-").await;
        }
        held.push(client);
        rig.let_tasks_run().await;
    }
    assert!(rig.connect().get("/live").await.starts_with("HTTP/1.1 200"));
    let closed = held.iter_mut().take(490);
    for client in closed {
        assert_eq!(client.wait_until_closed().await.0, Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn only_probes_and_pushes_are_answered_while_every_connection_is_busy() {
    let mut rig = Rig::new(2);
    let mut busy = [rig.connect_busy().await, rig.connect_busy().await];

    let mut refused = rig.connect();
    let response = refused.get("/ok").await;
    assert!(response.starts_with("HTTP/1.1 503"), "{response}");
    assert!(response.contains("too_many_connections") && response.contains("retry-after: 1"), "{response}");
    assert_eq!(refused.wait_until_closed().await, (Duration::ZERO, 0));

    let mut probe = rig.connect();
    assert!(probe.get("/live").await.starts_with("HTTP/1.1 200"));
    assert_eq!(probe.wait_until_closed().await, (Duration::ZERO, 0));
    let mut push = rig.connect();
    push.send("POST /pubsub HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await;
    assert!(push.receive_response().await.ends_with("pushed"));

    for client in &mut busy {
        rig.gate.notify_one();
        assert!(client.receive_response().await.ends_with("done"));
    }
    assert!(rig.connect().get("/ok").await.ends_with("ok"));
}

#[tokio::test(start_paused = true)]
async fn silent_reserved_connections_do_not_keep_others_out() {
    let mut rig = Rig::new(1);
    let _busy = rig.connect_busy().await;
    let mut silent = Vec::new();
    for _ in 0..3 * RESERVED_CONNECTIONS {
        assert!(rig.connections.has_room());
        silent.push(rig.connect());
        rig.let_tasks_run().await;
    }
    assert!(rig.connections.has_room());
    assert!(rig.connect().get("/live").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(start_paused = true)]
async fn there_is_no_room_while_every_reserved_connection_is_busy() {
    let mut rig = Rig::new(1);
    let mut busy = rig.connect_busy().await;
    let mut pushing = Vec::new();
    for _ in 0..RESERVED_CONNECTIONS {
        assert!(rig.connections.has_room());
        let mut client = rig.connect();
        client.send("POST /pubsub HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n").await;
        pushing.push(client);
        rig.let_tasks_run().await;
    }
    assert!(!rig.connections.has_room());
    rig.gate.notify_one();
    rig.connections.wait_until_one_becomes_idle().await;
    assert!(busy.receive_response().await.ends_with("done"));
    assert!(rig.connections.has_room(), "an idle connection can be replaced");
}

#[tokio::test(start_paused = true)]
async fn draining_closes_idle_connections_at_once_and_answers_open_requests() {
    let mut rig = Rig::new(10);
    let mut silent = rig.connect();
    let mut half_open = rig.connect();
    half_open.send("GET /ok HTTP/1.1\r\nhos").await;
    let mut kept_alive = rig.connect();
    kept_alive.get("/ok").await;
    let mut busy = rig.connect_busy().await;

    rig.stop.cancel();
    for client in [&mut silent, &mut half_open, &mut kept_alive] {
        assert_eq!(client.wait_until_closed().await, (Duration::ZERO, 0));
    }
    sleep(HOUR).await;
    rig.gate.notify_one();
    assert!(busy.receive_response().await.ends_with("done"));
    assert_eq!(busy.wait_until_closed().await, (Duration::ZERO, 0));
    while let Some(result) = rig.tasks.join_next().await {
        result.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn closing_connection_starts_no_request_and_busy_connection_is_not_closed_as_idle() {
    let rig = Rig::new(10);
    let closing = rig.connections.open();
    assert!(closing.close_if_idle(CloseReason::Replaced));
    assert_eq!(closing.wait_until_told_to_close().await, CloseReason::Replaced);
    assert!(closing.monitor().begin_request().is_none());

    let busy = rig.connections.open();
    let request = busy.monitor().begin_request().unwrap();
    assert!(!busy.close_if_idle(CloseReason::Replaced));
    drop(request);
    assert!(busy.close_if_idle(CloseReason::Replaced));
}

#[tokio::test(start_paused = true)]
async fn head_above_the_limit_is_refused_with_431() {
    let mut rig = Rig::new(10);
    let mut client = rig.connect();
    let head = format!("GET /ok HTTP/1.1\r\nhost: x\r\nx: {}", "x".repeat(40_000));
    // Sending fails when the server has closed the connection.
    let _ = client.0.write_all(head.as_bytes()).await;
    let response = client.receive_response().await;
    assert!(response.starts_with("HTTP/1.1 431"), "{response}");
}

/// A client that sends an upload as fast as the server reads it.
struct FastUpload {
    head: &'static [u8],
    body_bytes_left: usize,
    /// Length of the largest buffer that the server has offered for a read.
    max_buffer_bytes: Arc<AtomicUsize>,
}

impl AsyncRead for FastUpload {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.max_buffer_bytes.fetch_max(buffer.remaining(), Ordering::SeqCst);
        if self.head.is_empty() && self.body_bytes_left == 0 {
            // The server closes the connection after its response.
            return Poll::Pending;
        }
        let head = std::mem::take(&mut self.head);
        buffer.put_slice(head);
        let count = buffer.remaining().min(self.body_bytes_left);
        buffer.put_slice(&vec![0; count]);
        self.body_bytes_left -= count;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn read_buffer_of_a_fast_upload_has_a_maximum_size() {
    const BODY_BYTES: usize = 2_000_000;
    let received_bytes = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&received_bytes);
    let count = move |body: Bytes| async move { counter.store(body.len(), Ordering::SeqCst) };
    let app = Router::new().route("/", post(count));
    let max_buffer_bytes = Arc::new(AtomicUsize::new(0));
    let client = FastUpload {
        head: b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2000000\r\n\r\n",
        body_bytes_left: BODY_BYTES,
        max_buffer_bytes: Arc::clone(&max_buffer_bytes),
    };
    let connection = Rig::new(10).connections.open();
    let context = ConnectionContext { allowed_origins: [].into(), is_reserved: false };
    serve_connection(join(client, sink()), app, connection, context, CancellationToken::new()).await;
    assert_eq!(received_bytes.load(Ordering::SeqCst), BODY_BYTES);
    // The buffer may have more capacity than hyper asks for.
    let max_buffer_bytes = max_buffer_bytes.load(Ordering::SeqCst);
    assert!(max_buffer_bytes <= 2 * MAX_BUFFER_BYTES, "{max_buffer_bytes} bytes");
}
