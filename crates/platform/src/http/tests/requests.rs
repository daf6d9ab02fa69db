//! Tests of the request id, the metrics of requests and the check of their origin.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    routing::{get, post},
};

use super::{TEST_TIMEOUT, TestService, expect_problem};
use crate::http::{RequestId, ServerConfig};

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
