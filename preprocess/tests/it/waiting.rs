//! Tests with uploads that arrive slowly or wait for memory.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use preprocess::Settings;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{TestApp, read_json, read_problem, read_sample};

/// Maximum length of a body in these tests.
const MAX_BODY_BYTES: usize = 16 << 20;

/// Starts an upload and sends only the start of its body.
///
/// Returns after the service has asked for the body, because at that time the service has reserved memory for
/// the body.
async fn start_stalled_upload(app: &TestApp, content_type: &str, start_of_body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(app.address()).await.unwrap();
    let head = format!(
        "POST /preprocess HTTP/1.1\r\nHost: test\r\nContent-Type: {content_type}\r\n\
         Content-Length: {MAX_BODY_BYTES}\r\nExpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let expected = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut response = [0; 25];
    stream.read_exact(&mut response).await.unwrap();
    assert_eq!(&response, expected);
    stream.write_all(start_of_body).await.unwrap();
    stream
}

/// Returns settings with which one form of the maximum length fits in the memory for uploaded files, and
/// nothing beside it.
fn settings_with_memory_for_one_upload() -> Settings {
    Settings {
        preprocess_max_body_bytes: MAX_BODY_BYTES,
        // An eighth of this memory would be shorter than the longest body.
        preprocess_max_memory: MAX_BODY_BYTES + (64 << 20),
        ..Settings::default()
    }
}

#[tokio::test]
async fn slow_upload_is_refused_with_408_and_its_connection_is_closed() {
    let (short, long) = (Duration::from_millis(50), Duration::from_secs(50));
    for (timeout, grace, kind) in [(short, long, "upload_timeout"), (long, short, "upload_too_slow")] {
        let app = TestApp::start(Settings {
            preprocess_upload_timeout: timeout,
            preprocess_upload_grace: grace,
            ..Settings::default()
        })
        .await;
        let mut stream = start_stalled_upload(&app, "image/jpeg", &[0xFF, 0xD8]).await;
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
        assert!(response.contains(&format!("\"kind\":\"{kind}\"")), "{response}");
    }
}

#[tokio::test]
async fn many_stalled_uploads_do_not_keep_the_service_from_storing_others() {
    // With the default memory, the stalled uploads together leave room for one of the maximum length.
    let settings = Settings { preprocess_max_body_bytes: MAX_BODY_BYTES, ..Settings::default() };
    let app = TestApp::start(settings).await;
    let mut stalled = Vec::new();
    for _ in 0..80 {
        stalled.push(start_stalled_upload(&app, "image/jpeg", &[0xFF, 0xD8]).await);
    }
    let longest = || {
        let mut file = read_sample("coffee.jpg");
        file.resize(MAX_BODY_BYTES, 0);
        file
    };
    for file in [read_sample("coffee.jpg"), longest()] {
        assert_eq!(read_json(app.post("image/jpeg", file).await).await.0, 200);
    }
    let chunk = Ok::<_, std::io::Error>(longest());
    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter([chunk]));
    assert_eq!(read_json(app.post("image/jpeg", chunked).await).await.0, 200);
}

#[tokio::test]
async fn upload_without_memory_is_refused_with_429_until_memory_is_released() {
    let settings = Settings {
        preprocess_queue_timeout: Duration::from_millis(20),
        ..settings_with_memory_for_one_upload()
    };
    let app = TestApp::start(settings).await;
    let mut form = b"--BOUNDARY\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n".to_vec();
    form.resize(MAX_BODY_BYTES - 1, 0);
    let stalled = start_stalled_upload(&app, "multipart/form-data; boundary=BOUNDARY", &form).await;
    // The service may still be reading the stalled upload.
    let refused = loop {
        let response = app.post("image/jpeg", read_sample("coffee.jpg")).await;
        if response.status() != 200 {
            break response;
        }
    };
    assert_eq!(refused.headers()["retry-after"], "1");
    let (status, body) = read_problem(refused).await;
    assert_eq!((status, body["kind"].as_str().unwrap()), (429, "overloaded"));
    drop(stalled);
    while app.post("image/jpeg", read_sample("coffee.jpg")).await.status() != 200 {}
}

#[tokio::test]
async fn upload_is_refused_with_429_before_its_body_is_read_while_the_topic_is_full() {
    let app = TestApp::start(Settings::default()).await;
    app.topic.full.store(true, Ordering::SeqCst);
    let refused = app.post("image/jpeg", read_sample("coffee.jpg")).await;
    assert_eq!(refused.headers()["retry-after"], "7");
    let (status, body) = read_problem(refused).await;
    assert_eq!((status, body["kind"].as_str().unwrap()), (429, "overloaded"));
    app.topic.full.store(false, Ordering::SeqCst);
    let (status, body) = read_json(app.post("image/jpeg", read_sample("coffee.jpg")).await).await;
    assert_eq!(
        (status.as_u16(), &body["duplicate"]),
        (200, &false.into()),
        "the refused upload was not stored"
    );
}

#[tokio::test]
async fn upload_waits_for_a_congested_topic_and_nothing_is_stored() {
    let app = Arc::new(
        TestApp::start(Settings {
            preprocess_queue_items: 1.try_into().unwrap(),
            preprocess_queue_timeout: Duration::from_millis(300),
            ..Settings::default()
        })
        .await,
    );
    app.topic.congested.store(true, Ordering::SeqCst);
    let waiting = tokio::spawn({
        let app = Arc::clone(&app);
        async move { app.post("image/jpeg", read_sample("coffee.jpg")).await }
    });
    app.topic.permit_requested.notified().await;
    let refused = app.post("image/jpeg", read_sample("rocket.jpg")).await;
    assert_eq!(read_problem(refused).await.0, 429, "only one upload may wait");
    let expired = waiting.await.unwrap();
    assert_eq!(expired.headers()["retry-after"], "7");
    assert_eq!(read_problem(expired).await.0, 429);
    app.topic.congested.store(false, Ordering::SeqCst);
    for photo in ["coffee.jpg", "rocket.jpg"] {
        let (status, body) = read_json(app.post("image/jpeg", read_sample(photo)).await).await;
        assert_eq!((status.as_u16(), &body["duplicate"]), (200, &false.into()), "{photo} was stored before");
    }
}
