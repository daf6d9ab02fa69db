//! Tests of connections with a request body that the handler does not read.

use axum::{Router, http::StatusCode, routing::post};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{TEST_TIMEOUT, TestService};

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
    let refuse = || async { StatusCode::FORBIDDEN };
    let service = TestService::start(Router::new().route("/refuse", post(refuse))).await;
    // The body is larger than the read buffer of the server.
    let body = "x".repeat(600_000);
    let refused_request =
        format!("POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let next_request = "GET /live HTTP/1.1\r\nhost: x\r\n\r\n";
    let received =
        send_raw(&service, format!("{refused_request}{next_request}").as_bytes(), "HTTP/1.1 200").await;
    assert!(received.starts_with("HTTP/1.1 403"), "{received}");
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
