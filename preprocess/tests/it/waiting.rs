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

/// Starts an upload and sends only two bytes of its body.
///
/// Returns after the service has asked for the body, because at that time the service has reserved memory for
/// the body.
async fn start_stalled_upload(app: &TestApp, length: usize) -> TcpStream {
    let mut stream = TcpStream::connect(app.address()).await.unwrap();
    let head = format!(
        "POST /preprocess HTTP/1.1\r\nHost: test\r\nContent-Type: image/jpeg\r\n\
         Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let expected = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut response = [0; 25];
    stream.read_exact(&mut response).await.unwrap();
    assert_eq!(&response, expected);
    stream.write_all(&[0xFF, 0xD8]).await.unwrap();
    stream
}

/// Returns settings with which one body of the maximum length fits in the memory for uploaded files, but two
/// do not.
fn settings_with_memory_for_one_upload() -> Settings {
    let max_body_bytes = 80 << 20;
    Settings {
        preprocess_max_body_bytes: max_body_bytes,
        // The service sets the larger of `preprocess_max_body_bytes` and a quarter of this memory aside for
        // uploaded files: here, the length of one body. Processing gets the rest.
        preprocess_max_memory: max_body_bytes * 2,
        ..Settings::default()
    }
}

#[tokio::test]
async fn slow_upload_is_refused_with_408_and_its_memory_is_released() {
    let app = TestApp::start(Settings {
        preprocess_upload_timeout: Duration::from_millis(50),
        ..settings_with_memory_for_one_upload()
    })
    .await;
    for _ in 0..2 {
        let mut stream = start_stalled_upload(&app, 80 << 20).await;
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
        assert!(response.contains("\"kind\":\"upload_timeout\""), "{response}");
    }
    assert_eq!(read_json(app.post("image/jpeg", read_sample("coffee.jpg")).await).await.0, 200);
}

#[tokio::test]
async fn upload_waits_for_memory_and_is_refused_with_429_when_too_many_wait() {
    let app = TestApp::start(Settings {
        preprocess_queue_items: 1.try_into().unwrap(),
        ..settings_with_memory_for_one_upload()
    })
    .await;
    let stalled = start_stalled_upload(&app, 80 << 20).await;
    // One of these two uploads waits. The other upload exceeds the limit on waiting uploads.
    let (mut first, mut second) = (
        Box::pin(app.post("image/jpeg", read_sample("coffee.jpg"))),
        Box::pin(app.post("image/jpeg", read_sample("coffee.jpg"))),
    );
    let (refused, waiting) = tokio::select! {
        refused = &mut first => (refused, second),
        refused = &mut second => (refused, first),
    };
    assert_eq!(refused.headers()["retry-after"], "1");
    let (status, body) = read_problem(refused).await;
    assert_eq!((status, body["kind"].as_str().unwrap()), (429, "overloaded"));
    // When the stalled upload disconnects, its memory is released.
    drop(stalled);
    assert_eq!(read_json(waiting.await).await.0, 200);
}

#[tokio::test]
async fn upload_that_waits_too_long_for_memory_is_refused_with_429() {
    let settings = Settings {
        preprocess_queue_timeout: Duration::from_millis(50),
        ..settings_with_memory_for_one_upload()
    };
    let app = TestApp::start(settings).await;
    let _stalled = start_stalled_upload(&app, 80 << 20).await;
    let (status, body) = read_problem(app.post("image/jpeg", read_sample("coffee.jpg")).await).await;
    assert_eq!((status, body["kind"].as_str().unwrap()), (429, "overloaded"));
}

#[tokio::test]
async fn body_of_unknown_length_reserves_memory_for_the_maximum_length() {
    let app = TestApp::start(Settings {
        preprocess_queue_timeout: Duration::from_millis(50),
        ..settings_with_memory_for_one_upload()
    })
    .await;
    let chunk = || Ok::<_, std::io::Error>(read_sample("coffee.jpg"));
    let chunked_body = || reqwest::Body::wrap_stream(futures_util::stream::iter([chunk()]));
    assert_eq!(read_json(app.post("image/jpeg", chunked_body()).await).await.0, 200);
    let stalled = start_stalled_upload(&app, 1 << 20).await;
    assert_eq!(read_problem(app.post("image/jpeg", chunked_body()).await).await.0, 429);
    assert_eq!(
        read_json(app.post("image/jpeg", read_sample("coffee.jpg")).await).await.0,
        200,
        "an upload with a Content-Length needs less memory"
    );
    drop(stalled);
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
    app.topic.admit_called.notified().await;
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
