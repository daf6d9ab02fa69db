//! Tests the server of a process that has run out of file descriptors.
//!
//! The test is a program of its own, because the limit applies to the whole process.
#![cfg(unix)]

use std::{fs::File, net::SocketAddr, time::Duration};

use axum::{Router, routing::get};
use platform::{
    http::{Readiness, Server, ServerConfig},
    telemetry::CapturedLog,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::yield_now,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Timeout of every wait. Only a test that hangs reaches it.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);
const DESCRIPTOR_LIMIT: u64 = 128;

#[tokio::test]
async fn server_serves_again_after_the_process_had_no_descriptor_left() {
    let limit = Rlimit { current: Some(DESCRIPTOR_LIMIT), maximum: Some(DESCRIPTOR_LIMIT) };
    setrlimit(Resource::Nofile, limit).unwrap();
    let log = CapturedLog::start("error");
    let config = ServerConfig::from(SocketAddr::from(([127, 0, 0, 1], 0)));
    assert!((config.limits.max_connections as u64) < DESCRIPTOR_LIMIT);
    let server = Server::bind("test", config).await.unwrap();
    let address = server.local_addr();
    let stop = CancellationToken::new();
    let app = Router::new().route("/", get(|| async { "ok" }));
    let serving = tokio::spawn(server.serve(app, Readiness::default(), stop.clone(), TEST_TIMEOUT));

    // The system opens the connection. The server cannot accept it, because it has not run yet.
    let client = std::net::TcpStream::connect(address).unwrap();
    client.set_nonblocking(true).unwrap();
    let mut client = tokio::net::TcpStream::from_std(client).unwrap();
    let files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    let lines = timeout(TEST_TIMEOUT, async {
        loop {
            match log.take_lines() {
                lines if lines.is_empty() => yield_now().await,
                lines => return lines,
            }
        }
    });
    let lines = lines.await.expect("the server logs that it cannot accept connections");
    assert!(lines[0].contains("connections cannot be accepted"), "{lines:?}");
    assert!(!serving.is_finished());

    drop(files);
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut response = String::new();
    timeout(TEST_TIMEOUT, client.read_to_string(&mut response)).await.unwrap().unwrap();
    assert!(response.starts_with("HTTP/1.1 200") && response.ends_with("ok"), "{response}");
    stop.cancel();
    timeout(TEST_TIMEOUT, serving).await.unwrap().unwrap();
}
