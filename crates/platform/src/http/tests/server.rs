//! Tests of readiness, of draining and of the connections of the server.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{NEVER, TEST_TIMEOUT, TestService, expect_problem};
use crate::http::{ConnectionLimits, Readiness, Server, ServerConfig};

#[tokio::test]
async fn ready_is_503_while_starting_and_draining() {
    let service = TestService::start(Router::new()).await;
    assert_eq!(service.get("/live").await.status(), 200);
    let response = service.get("/ready").await;
    assert_eq!(response.headers()["retry-after"], "1");
    expect_problem(response, 503, "starting").await;
    service.readiness.set_ready(json!({ "model": "m" }));
    let response = service.get("/ready").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.json::<Value>().await.unwrap(), json!({ "model": "m" }));
    service.readiness.set_draining();
    expect_problem(service.get("/ready").await, 503, "draining").await;
    assert_eq!(service.get("/live").await.status(), 200);
}

/// Returns a route whose handler sends to `started` and then waits for `gate`.
fn gated_route(started: mpsc::Sender<()>, gate: Arc<Notify>) -> Router {
    let wait = move || {
        let (started, gate) = (started.clone(), Arc::clone(&gate));
        async move {
            started.send(()).await.unwrap();
            gate.notified().await;
            "done"
        }
    };
    Router::new().route("/gated", get(wait))
}

#[tokio::test]
async fn open_request_is_answered_while_draining() {
    let gate = Arc::new(Notify::new());
    let (started, mut has_started) = mpsc::channel(1);
    let service = TestService::start(gated_route(started, Arc::clone(&gate))).await;
    let request = tokio::spawn(service.client.get(service.url("/gated")).send());
    has_started.recv().await.unwrap();
    assert!(!service.readiness.is_draining());
    service.stop.cancel();
    // The listener is closed once connections are refused.
    let listener_closed = async { while TcpStream::connect(service.address).await.is_ok() {} };
    timeout(TEST_TIMEOUT, listener_closed).await.unwrap();
    assert!(service.readiness.is_draining());
    assert!(!service.serving.is_finished(), "the server must wait for the open request");
    gate.notify_one();
    let response = request.await.unwrap().unwrap();
    assert_eq!(response.text().await.unwrap(), "done");
    service.wait_until_drained().await;
}

/// Sends a message when it is dropped.
struct DropSignal(Option<oneshot::Sender<()>>);

impl Drop for DropSignal {
    fn drop(&mut self) {
        let _ = self.0.take().unwrap().send(());
    }
}

#[tokio::test]
async fn connections_are_closed_after_the_drain_timeout() {
    let (dropped, is_dropped) = oneshot::channel();
    let (started, mut has_started) = mpsc::channel(1);
    let signal = Arc::new(std::sync::Mutex::new(Some(DropSignal(Some(dropped)))));
    let stuck = move || {
        let (signal, started) = (signal.lock().unwrap().take(), started.clone());
        async move {
            let _signal = signal;
            started.send(()).await.unwrap();
            std::future::pending::<()>().await
        }
    };
    let routes = Router::new().route("/stuck", get(stuck));
    let service = TestService::start_with_timeouts(routes, TEST_TIMEOUT, Duration::from_millis(20)).await;
    let request = tokio::spawn(service.client.get(service.url("/stuck")).send());
    has_started.recv().await.unwrap();
    let mut partial_request = TcpStream::connect(service.address).await.unwrap();
    partial_request.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-le").await.unwrap();
    service.stop.cancel();
    service.wait_until_drained().await;
    assert!(request.await.unwrap().is_err(), "the connection must be closed");
    timeout(TEST_TIMEOUT, is_dropped).await.expect("the handler is dropped").unwrap();
    // The connection ends or is reset. In both cases it is closed.
    let _ = timeout(TEST_TIMEOUT, partial_request.read_to_end(&mut Vec::new()))
        .await
        .expect("the connection is closed");
}

#[tokio::test]
async fn unfinished_head_does_not_delay_the_shutdown() {
    let service = TestService::start_with_timeouts(Router::new(), TEST_TIMEOUT, NEVER).await;
    let mut held = Vec::new();
    for head in ["", "G", "POST / HTTP/1.1\r\nhost: x\r\ncontent-le", "GET /live HTTP/1.1\r\nhost: x\r\n\r\n"]
    {
        let mut stream = TcpStream::connect(service.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        held.push(stream);
    }
    // The server has accepted these connections when it answers a later one.
    service.get("/live").await;
    service.stop.cancel();
    service.wait_until_drained().await;
}

#[tokio::test]
async fn health_is_answered_while_more_silent_connections_are_held_than_the_server_accepts() {
    let config = SocketAddr::from(([127, 0, 0, 1], 0)).into();
    let max_connections = 5;
    let limits =
        ConnectionLimits { max_connections, head_timeout: NEVER, idle_timeout: NEVER, write_timeout: NEVER };
    let config = ServerConfig { limits, ..config };
    let service = TestService::start_with_config(Router::new(), TEST_TIMEOUT, NEVER, config).await;
    let mut held = Vec::new();
    for number in 0..100 {
        let mut stream = TcpStream::connect(service.address).await.unwrap();
        // A half head, or nothing.
        let length = if number % 2 == 0 { 0 } else { 20 };
        stream.write_all(&b"GET /live HTTP/1.1\r\nhost"[..length]).await.unwrap();
        held.push(stream);
    }
    // Each client opens a connection and keeps it.
    let clients: Vec<Client> = (0..2 * max_connections)
        .map(|_| Client::builder().no_proxy().timeout(TEST_TIMEOUT).build().unwrap())
        .collect();
    for client in &clients {
        let response = client.get(service.url("/live")).send().await.unwrap();
        assert_eq!(response.status(), 200);
    }
    // The connections of the clients have replaced all others.
    for stream in &mut held {
        let closed = timeout(TEST_TIMEOUT, stream.read(&mut [0; 1])).await.expect("the connection is closed");
        assert!(closed.is_err() || closed.is_ok_and(|count| count == 0));
    }
}

#[tokio::test]
async fn port_in_use_is_an_error_that_names_the_setting() {
    let first = Server::bind("test", SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = first.local_addr();
    let config = ServerConfig { port_setting: "PREPROCESS_PORT", ..address.into() };
    let error = Server::bind("test", config).await.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!(
            "cannot listen on {address} (PREPROCESS_PORT): the address is already in use"
        )),
        "{error}"
    );
}

#[tokio::test]
async fn closed_connections_are_counted_by_reason() {
    crate::telemetry::init("off", crate::telemetry::LogFormat::Json);
    let limits = ConnectionLimits {
        max_connections: 1,
        head_timeout: NEVER,
        idle_timeout: NEVER,
        write_timeout: NEVER,
    };
    let config = ServerConfig { limits, ..SocketAddr::from(([127, 0, 0, 1], 0)).into() };
    let server = Server::bind("counted", config).await.unwrap();
    let address = server.local_addr();
    let routes = crate::telemetry::metrics_routes();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.serve(routes, Readiness::default(), stop.clone(), NEVER));
    let mut replaced = TcpStream::connect(address).await.unwrap();
    let client = Client::builder().no_proxy().timeout(TEST_TIMEOUT).build().unwrap();
    let metrics_url = format!("http://{address}/metrics");
    client.get(&metrics_url).send().await.unwrap();
    timeout(TEST_TIMEOUT, replaced.read(&mut [0; 1])).await.expect("the connection is closed").ok();
    let text = client.get(&metrics_url).send().await.unwrap().text().await.unwrap();
    let line = "http_connections_closed_total{service=\"counted\",reason=\"replaced\"} 1";
    assert!(text.contains(line), "{text}");
    assert!(text.contains("http_connections{service=\"counted\"} 1"), "{text}");
    stop.cancel();
    serving.await.unwrap();
}
