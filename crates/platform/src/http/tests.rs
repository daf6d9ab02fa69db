//! Tests of the middleware stack and the server over real sockets.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::Query,
    http::StatusCode,
    routing::{get, post},
};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::*;

/// Timeout for everything a test waits for. Only a failing test reaches it.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

struct TestService {
    address: SocketAddr,
    readiness: Readiness,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    client: Client,
}

impl TestService {
    async fn start(routes: Router) -> Self {
        Self::start_with_timeouts(routes, TEST_TIMEOUT, TEST_TIMEOUT).await
    }

    async fn start_with_timeouts(routes: Router, request_timeout: Duration, drain_timeout: Duration) -> Self {
        let config = SocketAddr::from(([127, 0, 0, 1], 0)).into();
        Self::start_with_config(routes, request_timeout, drain_timeout, config).await
    }

    async fn start_with_config(
        routes: Router,
        request_timeout: Duration,
        drain_timeout: Duration,
        config: ServerConfig,
    ) -> Self {
        let readiness = Readiness::default();
        let limits = HttpLimits { max_body_bytes: 1000, request_timeout };
        let app = with_middleware(routes.merge(health_routes(readiness.clone())), "test", &limits);
        let server = Server::bind("test", config).await.unwrap();
        let address = server.local_addr();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server.serve(app, readiness.clone(), stop.clone(), drain_timeout));
        // A proxy that the environment sets must not affect the tests.
        let client = Client::builder().no_proxy().timeout(TEST_TIMEOUT).build().unwrap();
        Self { address, readiness, stop, serving, client }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    async fn wait_until_drained(self) {
        timeout(TEST_TIMEOUT, self.serving).await.expect("the service drains in time").unwrap();
    }
}

/// Checks that `response` is a problem with this status and kind, and returns its body.
async fn expect_problem(response: reqwest::Response, status: u16, kind: &str) -> Value {
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["status"], status);
    assert_eq!(body["kind"], kind);
    assert_eq!(body["type"], format!("urn:problem:{kind}"));
    assert_eq!(body["request_id"], id);
    assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{body}");
    body
}

fn secret_error() -> std::io::Error {
    std::io::Error::other("a secret path")
}

#[tokio::test]
async fn problem_is_sent_with_its_members_and_headers_but_without_its_source() {
    let refuse = || async {
        Problem::overloaded("Too many pixels are waiting.", Duration::from_millis(2100))
            .with("limit", 7)
            .with("status", "cannot be replaced")
            .with_source(secret_error())
    };
    let service = TestService::start(Router::new().route("/refuse", get(refuse))).await;
    let request = service.client.get(service.url("/refuse")).header("x-request-id", "fixed.id-1");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "3");
    assert_eq!(response.headers()["x-request-id"], "fixed.id-1");
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    insta::assert_snapshot!(response.text().await.unwrap(), @r#"{"type":"urn:problem:overloaded","title":"Too Many Requests","status":429,"kind":"overloaded","detail":"Too many pixels are waiting.","request_id":"fixed.id-1","limit":7}"#);
}

#[tokio::test]
async fn problem_without_the_middleware_hides_its_source() {
    use axum::response::IntoResponse;
    let response = Problem::internal(secret_error()).into_response();
    assert_eq!(response.status(), 500);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["kind"], "internal");
    assert!(!body.to_string().contains("secret"), "{body}");
}

#[tokio::test]
async fn retry_after_is_at_least_a_second() {
    let refuse = || async { Problem::unavailable("x", "Later.", Duration::ZERO) };
    let service = TestService::start(Router::new().route("/", get(refuse))).await;
    assert_eq!(service.get("/").await.headers()["retry-after"], "1");
}

#[tokio::test]
async fn valid_request_id_is_kept_and_any_other_replaced() {
    let echo = |axum::Extension(id): axum::Extension<RequestId>| async move { id.0 };
    let service = TestService::start(Router::new().route("/", get(echo))).await;
    let long = "x".repeat(128);
    for good in ["a", "A-b_c.9", &long] {
        let request = service.client.get(service.url("/")).header("x-request-id", good);
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["x-request-id"], good);
        assert_eq!(response.text().await.unwrap(), good);
    }
    let too_long = "x".repeat(129);
    for bad in ["", "a b", "a/b", "a\"b", &too_long] {
        let request = service.client.get(service.url("/")).header("x-request-id", bad);
        let response = request.send().await.unwrap();
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        assert!(uuid::Uuid::parse_str(&id).is_ok(), "{bad:?}: {id:?}");
        assert_eq!(response.text().await.unwrap(), id);
    }
}

#[tokio::test]
async fn errors_of_axum_become_problems() {
    async fn json_body(Json(_): Json<Vec<u8>>) {}
    async fn query(Query(_): Query<Vec<(String, u8)>>) {}
    let routes = Router::new()
        .route("/json", post(json_body))
        .route("/query", get(query))
        .route("/text", get(|| async { (StatusCode::INTERNAL_SERVER_ERROR, "a secret path") }));
    let service = TestService::start(routes).await;

    expect_problem(service.get("/nowhere").await, 404, "not_found").await;
    let response = service.get("/json").await;
    assert_eq!(response.headers()["allow"], "POST");
    expect_problem(response, 405, "method_not_allowed").await;
    expect_problem(service.get("/query?a=x").await, 400, "bad_request").await;
    let body = expect_problem(service.get("/text").await, 500, "internal").await;
    assert!(!body.to_string().contains("secret"), "{body}");

    let post = |body: &'static str| service.client.post(service.url("/json")).body(body);
    expect_problem(post("[]").send().await.unwrap(), 415, "unsupported_media_type").await;
    let json = |body| post(body).header("content-type", "application/json").send();
    expect_problem(json("[").await.unwrap(), 400, "bad_request").await;
    expect_problem(json("{}").await.unwrap(), 422, "unprocessable").await;
}

#[tokio::test]
async fn json_error_and_plain_text_success_of_a_handler_are_unchanged() {
    let json_error = || async { (StatusCode::CONFLICT, Json(json!({ "mine": true }))) };
    let text = || async { "plain text" };
    let service = TestService::start(Router::new().route("/", get(json_error)).route("/ok", get(text))).await;
    let response = service.get("/").await;
    assert_eq!(response.status(), 409);
    assert_eq!(response.json::<Value>().await.unwrap(), json!({ "mine": true }));
    assert_eq!(service.get("/ok").await.text().await.unwrap(), "plain text");
}

#[tokio::test]
async fn too_large_body_is_refused_with_413() {
    let respond_with_length = |body: Bytes| async move { body.len().to_string() };
    let service = TestService::start(Router::new().route("/", post(respond_with_length))).await;
    let post = || service.client.post(service.url("/"));
    let fits = post().body(vec![0; 1000]).send().await.unwrap();
    assert_eq!(fits.text().await.unwrap(), "1000");
    let body = expect_problem(post().body(vec![0; 1001]).send().await.unwrap(), 413, "body_too_large").await;
    assert_eq!(body["limit_bytes"], 1000);
    assert!(body["detail"].as_str().unwrap().contains("1000 bytes"), "{body}");

    // A chunked body does not announce its length.
    let mut stream = TcpStream::connect(service.address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("2bc\r\n{}\r\n", "x".repeat(700));
    stream.write_all(format!("{chunk}{chunk}0\r\n\r\n").as_bytes()).await.unwrap();
    let mut response = String::new();
    timeout(TEST_TIMEOUT, stream.read_to_string(&mut response)).await.unwrap().unwrap();
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
    assert!(response.contains("\"limit_bytes\":1000"), "{response}");
}

#[tokio::test]
async fn body_above_the_limit_of_axum_is_accepted() {
    let limits = HttpLimits { max_body_bytes: 5 << 20, request_timeout: TEST_TIMEOUT };
    let respond_with_length = |body: Bytes| async move { body.len().to_string() };
    let app = with_middleware(Router::new().route("/", post(respond_with_length)), "test", &limits);
    let request = axum::http::Request::post("/").body(axum::body::Body::from(vec![0; 4 << 20])).unwrap();
    let response = tower::ServiceExt::oneshot(app, request).await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn panic_becomes_500_and_the_server_keeps_running() {
    async fn boom() {
        panic!("a secret reason");
    }
    let service = TestService::start(Router::new().route("/boom", get(boom))).await;
    for _ in 0..3 {
        let body = expect_problem(service.get("/boom").await, 500, "internal").await;
        assert!(!body.to_string().contains("secret"), "{body}");
    }
    assert_eq!(service.get("/live").await.status(), 200);
}

#[tokio::test]
async fn slow_handler_is_dropped_with_504() {
    let (sender, mut receiver) = mpsc::channel::<()>(1);
    let stuck = move || {
        let sender = sender.clone();
        async move {
            let _sender = sender;
            std::future::pending::<()>().await
        }
    };
    let routes = Router::new().route("/", get(stuck));
    let service = TestService::start_with_timeouts(routes, Duration::from_millis(20), Duration::ZERO).await;
    let body = expect_problem(service.get("/").await, 504, "timeout").await;
    assert!(body["detail"].as_str().unwrap().contains("0.02 s"), "{body}");
    service.stop.cancel();
    service.wait_until_drained().await;
    // `recv` returns `None` when the handler and the routes have dropped their senders.
    assert_eq!(timeout(TEST_TIMEOUT, receiver.recv()).await, Ok(None));
}

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
async fn requests_are_counted_by_route_and_status() {
    crate::telemetry::init("off", crate::telemetry::LogFormat::Json);
    let routes =
        Router::new().route("/counted/{name}", get(|| async {})).merge(crate::telemetry::metrics_routes());
    let service = TestService::start(routes).await;
    service.get("/counted/a").await;
    service.get("/counted/b").await;
    service.get("/somewhere/else").await;
    let text = service.get("/metrics").await.text().await.unwrap();
    let line = "test_requests_total{route=\"/counted/{name}\",status=\"200\"} 2";
    assert!(text.contains(line), "{text}");
    assert!(text.contains("test_requests_total{route=\"unmatched\",status=\"404\"}"), "{text}");
    let bucket = "test_request_duration_seconds_bucket{route=\"/counted/{name}\",le=\"+Inf\"} 2";
    assert!(text.contains(bucket), "{text}");
}

/// Sends `request` on a new connection. Returns the received text as soon as it contains `end_marker` or the
/// server closes the connection.
async fn send_raw(service: &TestService, request: &[u8], end_marker: &str) -> String {
    let mut stream = TcpStream::connect(service.address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut received = Vec::new();
    timeout(TEST_TIMEOUT, async {
        while !String::from_utf8_lossy(&received).contains(end_marker) {
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer).await.unwrap() {
                0 => break,
                count => received.extend_from_slice(&buffer[..count]),
            }
        }
    })
    .await
    .unwrap();
    String::from_utf8(received).unwrap()
}

#[tokio::test]
async fn connection_is_reused_after_an_unread_body() {
    let service = TestService::start(Router::new().route("/refuse", post(|| async { "no" }))).await;
    // The body is larger than the read buffer of the server and than the body limit.
    let body = "x".repeat(600_000);
    let refused_request =
        format!("POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let next_request = "GET /live HTTP/1.1\r\nhost: x\r\n\r\n";
    let received =
        send_raw(&service, format!("{refused_request}{next_request}").as_bytes(), "HTTP/1.1 200").await;
    assert!(received.starts_with("HTTP/1.1 413"), "{received}");
    assert!(received.contains("HTTP/1.1 200"), "{received}");
    assert!(!received.contains("connection: close"), "{received}");
    service.stop.cancel();
    service.wait_until_drained().await;
}

#[tokio::test]
async fn connection_is_closed_if_the_body_does_not_arrive() {
    let service = TestService::start(Router::new().route("/refuse", post(|| async { "no" }))).await;
    for expect_header in ["", "expect: 100-continue\r\n"] {
        let head = format!("POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n{expect_header}\r\n");
        let received = send_raw(&service, head.as_bytes(), "never").await;
        assert!(received.starts_with("HTTP/1.1 200"), "{received}");
        assert!(received.contains("connection: close"), "{received}");
        assert!(received.ends_with("no"), "{received}");
    }
    service.stop.cancel();
    service.wait_until_drained().await;
}

/// Drain timeout of a test in which the server must not wait for it.
const NEVER: Duration = Duration::from_secs(100_000);

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
async fn web_page_of_another_site_may_read_but_not_post() {
    let posted = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&posted);
    let count = move || async move {
        counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    };
    let config = ServerConfig {
        allowed_origins: vec!["https://page.example".parse().unwrap()],
        ..SocketAddr::from(([127, 0, 0, 1], 0)).into()
    };
    let routes = Router::new().route("/", post(count));
    let service = TestService::start_with_config(routes, TEST_TIMEOUT, TEST_TIMEOUT, config).await;
    let post_as = |name: &'static str, value: String| {
        let request = service.client.post(service.url("/")).header(name, value).body("x");
        async { request.send().await.unwrap() }
    };
    for (name, value) in
        [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")]
    {
        expect_problem(post_as(name, value.to_owned()).await, 403, "cross_site").await;
    }
    assert_eq!(posted.load(std::sync::atomic::Ordering::SeqCst), 0);
    for (name, value) in [
        ("origin", format!("http://{}", service.address)),
        ("origin", "https://page.example".to_owned()),
        ("sec-fetch-site", "none".to_owned()),
        ("x-other", "x".to_owned()),
    ] {
        assert_eq!(post_as(name, value).await.status(), 200);
    }
    let read = service.client.get(service.url("/live")).header("origin", "https://evil.example");
    assert_eq!(read.send().await.unwrap().status(), 200);
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
