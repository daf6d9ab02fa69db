//! Tests of the middleware stack and the server over real sockets.

mod problems;
mod requests;
mod server;
mod unread_body;

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use reqwest::Client;
use serde_json::Value;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::*;

/// Timeout for everything a test waits for. Only a failing test reaches it.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Timeout of the server that must not have an effect on a test.
const NEVER: Duration = Duration::from_secs(100_000);

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
        let app = with_middleware(routes.merge(health_routes(readiness.clone())), "test", request_timeout);
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
