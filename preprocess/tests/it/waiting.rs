//! Uploads that arrive slowly, or for which there is no memory yet.

use std::time::Duration;

use preprocess::Settings;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{TestApp, json, problem, sample};

/// An upload whose body has been asked for and does not come: there is memory for it by then.
async fn stalled(app: &TestApp, length: usize) -> TcpStream {
    let mut stream = TcpStream::connect(app.address()).await.unwrap();
    let head = format!(
        "POST /preprocess HTTP/1.1\r\nHost: test\r\nContent-Type: image/jpeg\r\n\
         Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let expected = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut answer = [0; 25];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, expected);
    stream.write_all(&[0xFF, 0xD8]).await.unwrap();
    stream
}

/// Room for one upload of the largest size, or several small ones.
fn one_at_a_time() -> Settings {
    let max_body_bytes = 80 << 20;
    Settings { max_body_bytes, max_memory: max_body_bytes * 2, ..Settings::default() }
}

#[tokio::test]
async fn an_upload_that_takes_too_long_is_refused_and_leaves_nothing_behind() {
    let app = TestApp::start(Settings { upload_timeout: Duration::from_millis(50), ..one_at_a_time() }).await;
    for _ in 0..2 {
        let mut stream = stalled(&app, 80 << 20).await;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("\"kind\":\"upload_timeout\""), "{answer}");
    }
    assert_eq!(json(app.post("image/jpeg", sample("coffee.jpg")).await).await.0, 200);
}

#[tokio::test]
async fn uploads_wait_for_memory_and_are_refused_when_too_many_wait() {
    let app = TestApp::start(Settings { queue_items: 1.try_into().unwrap(), ..one_at_a_time() }).await;
    let half_read = stalled(&app, 80 << 20).await;
    // One of these two waits; the other one is the one too many.
    let (mut first, mut second) = (
        Box::pin(app.post("image/jpeg", sample("coffee.jpg"))),
        Box::pin(app.post("image/jpeg", sample("coffee.jpg"))),
    );
    let (refused, waiting) = tokio::select! {
        refused = &mut first => (refused, second),
        refused = &mut second => (refused, first),
    };
    assert_eq!(refused.headers()["retry-after"], "1");
    let (status, body) = problem(refused).await;
    assert_eq!((status, body["kind"].as_str().unwrap()), (429, "overloaded"));
    // What a caller who leaves had is there for the next.
    drop(half_read);
    assert_eq!(json(waiting.await).await.0, 200);
}

#[tokio::test]
async fn an_upload_that_waits_too_long_for_memory_is_refused() {
    let settings = Settings { queue_timeout: Duration::from_millis(50), ..one_at_a_time() };
    let app = TestApp::start(settings).await;
    let _half_read = stalled(&app, 80 << 20).await;
    let (status, body) = problem(app.post("image/jpeg", sample("coffee.jpg")).await).await;
    assert_eq!((status, body["kind"].as_str().unwrap()), (429, "overloaded"));
}

#[tokio::test]
async fn a_body_of_unknown_length_is_taken_for_the_largest() {
    let app = TestApp::start(Settings { queue_timeout: Duration::from_millis(50), ..one_at_a_time() }).await;
    let piece = || Ok::<_, std::io::Error>(sample("coffee.jpg"));
    let chunked = || reqwest::Body::wrap_stream(futures_util::stream::iter([piece()]));
    assert_eq!(json(app.post("image/jpeg", chunked()).await).await.0, 200);
    let half_read = stalled(&app, 1 << 20).await;
    assert_eq!(problem(app.post("image/jpeg", chunked()).await).await.0, 429);
    assert_eq!(json(app.post("image/jpeg", sample("coffee.jpg")).await).await.0, 200, "it says its length");
    drop(half_read);
}
