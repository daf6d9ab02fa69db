//! These tests use and stop the whole pipeline while clients hold connections and unfinished requests.
#![allow(clippy::allow_attributes, clippy::unwrap_used, reason = "a panic in a helper fails the test")]

mod common;

use std::{path::Path, time::Duration};

use common::{Client, RunningPipeline, read_sample, start_pipeline_with};
use reqwest::StatusCode;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::Instant};

/// Starts a pipeline whose services have this drain timeout.
async fn start_with_drain_timeout(folder: &Path, seconds: &str) -> RunningPipeline {
    let flags = ["--preprocess-drain-timeout", seconds, "--classify-drain-timeout", seconds];
    start_pipeline_with(folder, &flags).await
}

/// Sends the beginning of a request to both services, and returns the open connections.
async fn hold(client: &Client, path_and_head: [&str; 2]) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for (url, beginning) in [&client.preprocess_url, &client.classify_url].into_iter().zip(path_and_head) {
        let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        held.push(stream);
        // The service has accepted the connection when it answers a later one.
        reqwest::get(format!("{url}/live")).await.unwrap();
    }
    held
}

#[tokio::test]
async fn upload_gets_its_prediction_while_more_connections_are_held_than_a_service_accepts() {
    let folder = tempfile::tempdir().unwrap();
    let flags =
        ["--http-max-connections", "16", "--http-head-timeout", "100000", "--http-idle-timeout", "100000"];
    let pipeline = start_pipeline_with(folder.path(), &flags).await;
    let mut held = Vec::new();
    for beginning in ["", "POST /preprocess HTTP/1.1\r\nho", "GET /live HTTP/1.1\r\nhost: x\r\n\r\n"] {
        for _ in 0..20 {
            held.extend(hold(&pipeline.client, [beginning, beginning]).await);
        }
    }
    let id = pipeline.client.upload_and_get_id(read_sample("coffee.jpg")).await;
    pipeline.client.await_label(&id).await;
    for url in [&pipeline.client.preprocess_url, &pipeline.client.classify_url] {
        for path in ["/live", "/ready", "/metrics"] {
            let response = reqwest::get(format!("{url}{path}")).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{url}{path}");
        }
    }
    pipeline.stop().await.unwrap();
}

#[tokio::test]
async fn unfinished_heads_do_not_delay_the_shutdown() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = start_with_drain_timeout(folder.path(), "100000").await;
    let _held = hold(&pipeline.client, ["POST /preprocess HTTP/1.1\r\nhos", "GET /li"]).await;
    pipeline.stop().await.unwrap();
}

#[tokio::test]
async fn unfinished_bodies_delay_the_shutdown_by_one_drain_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = start_with_drain_timeout(folder.path(), "8").await;
    let upload =
        "POST /preprocess HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\ncontent-length: 99\r\n\r\nx";
    let image =
        "POST /classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\ncontent-length: 99\r\n\r\nx";
    let _held = hold(&pipeline.client, [upload, image]).await;
    // From here on, only timers make time pass.
    tokio::time::pause();
    let start = Instant::now();
    pipeline.stop().await.unwrap();
    let elapsed = start.elapsed();
    assert!(elapsed <= Duration::from_secs(9), "{elapsed:?}");
}
