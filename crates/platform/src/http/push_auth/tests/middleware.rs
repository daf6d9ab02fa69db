//! Tests of the check of push tokens on a route, within the middleware stack.

use axum::{
    Extension,
    body::{Body, to_bytes},
    http::Request,
    middleware::from_fn_with_state,
    routing::post,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;

use super::*;
use crate::http::{SharedPushGuard, guard_pushes, with_middleware};

/// Returns an app with the middleware stack, and a counter of the calls of its handler `POST /push`. The
/// check protects `POST /push`, but not `POST /open`.
fn build_app(auth: &Arc<PushAuth>) -> (Router, Arc<AtomicUsize>) {
    let call_count = Arc::new(AtomicUsize::new(0));
    let handler_call_count = Arc::clone(&call_count);
    let push = move |Extension(claims): Extension<Claims>, body: String| async move {
        handler_call_count.fetch_add(1, SeqCst);
        format!("{} {body}", claims.email)
    };
    let guard: SharedPushGuard = Arc::clone(auth) as SharedPushGuard;
    let guard = from_fn_with_state(guard, guard_pushes);
    let routes =
        Router::new().route("/push", post(push)).route_layer(guard).route("/open", post(|| async { "open" }));
    (with_middleware(routes, "test", TEST_TIMEOUT), call_count)
}

async fn send(app: &Router, path: &str, authorization: Option<HeaderValue>) -> (Response<()>, String) {
    let mut request = Request::post(path).body(Body::from("hello")).unwrap();
    if let Some(value) = authorization {
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    let (parts, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    let body = to_bytes(body, 10_000).await.unwrap();
    (Response::from_parts(parts, ()), String::from_utf8(body.to_vec()).unwrap())
}

/// Checks that the response is a problem with this status and kind.
fn assert_problem((response, body): &(Response<()>, String), status: u16, kind: &str) {
    assert_eq!(response.status().as_u16(), status, "{body}");
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["kind"], kind);
    assert_eq!(body["request_id"], response.headers()["x-request-id"].to_str().unwrap());
}

#[tokio::test]
async fn only_a_push_with_a_valid_token_reaches_the_handler() {
    let rig = Rig::start_warm().await;
    let (app, call_count) = build_app(&rig.auth);

    let refused = send(&app, "/push", None).await;
    assert_problem(&refused, 401, "unauthenticated");
    assert_eq!(refused.0.headers()["www-authenticate"], "Bearer");
    let refused = send(&app, "/push", Some(forged_authorization("a"))).await;
    assert_problem(&refused, 401, "unauthenticated");
    let other = with(valid_claims(), "email", "other@project.iam.gserviceaccount.com");
    let refused = send(&app, "/push", Some(bearer(&signed_token(&other)))).await;
    assert_problem(&refused, 403, "forbidden");
    assert!(!refused.1.contains("other@") && !refused.1.contains(ACCOUNT), "{}", refused.1);
    assert!(!refused.0.headers().contains_key("www-authenticate"));
    assert_eq!(call_count.load(SeqCst), 0);

    let (response, body) = send(&app, "/push", Some(valid_authorization())).await;
    assert_eq!((response.status(), body), (StatusCode::OK, format!("{ACCOUNT} hello")));
    assert_eq!(call_count.load(SeqCst), 1);
    let (response, body) = send(&app, "/open", None).await;
    assert_eq!((response.status(), body.as_str()), (StatusCode::OK, "open"));
}

#[tokio::test]
async fn push_without_available_keys_is_refused_with_503_and_retry_after() {
    let rig = Rig::start(Reply::failing()).await;
    let (app, call_count) = build_app(&rig.auth);
    let refused = send(&app, "/push", Some(valid_authorization())).await;
    assert_problem(&refused, 503, "keys_unavailable");
    let seconds: u64 = refused.0.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=30).contains(&seconds), "{seconds}");
    assert_eq!(call_count.load(SeqCst), 0);
}

#[tokio::test]
async fn push_is_refused_before_its_body_arrives() {
    let rig = Rig::start_warm().await;
    let (app, _) = build_app(&rig.auth);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = "POST /push HTTP/1.1\r\nhost: here\r\ncontent-length: 1000000\r\n\r\n";
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    time::timeout(TEST_TIMEOUT, connection.read_exact(&mut status)).await.unwrap().unwrap();
    assert_eq!(&status, b"HTTP/1.1 401");
}
