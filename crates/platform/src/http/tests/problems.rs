//! Tests of problems and other error responses.

use std::time::Duration;

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::Query,
    http::{Request, StatusCode},
    response::IntoResponse,
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};
use tower::ServiceExt;

use super::{TEST_TIMEOUT, TestService, expect_problem};
use crate::http::{Problem, with_middleware};

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
async fn extractor_of_axum_accepts_2_mib_and_refuses_more_with_413() {
    let respond_with_length = |body: Bytes| async move { body.len().to_string() };
    let app = with_middleware(Router::new().route("/", post(respond_with_length)), "test", TEST_TIMEOUT);
    for (length, status) in [(2 << 20, 200), ((2 << 20) + 1, 413)] {
        let request = Request::post("/").body(Body::from(vec![0; length])).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{length} bytes");
    }
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
