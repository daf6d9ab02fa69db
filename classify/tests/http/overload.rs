//! Tests of full queues, requests that time out, failing engines and the shutdown.

use std::{num::NonZeroUsize, time::Duration};

use classify::Settings;
use futures_util::future::{Either, select, select_all};
use reqwest::RequestBuilder;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

use crate::rig::{Gate, Rig, Verdict, encode_png, read_json};

/// Returns settings with a queue that holds one crop.
fn shortest_queue() -> Settings {
    Settings { queue_items: NonZeroUsize::MIN, ..Settings::default() }
}

#[tokio::test]
async fn request_to_a_full_queue_is_refused_with_429_and_admitted_requests_succeed() {
    let (engine, mut gate) = Gate::new(false);
    let rig = Rig::with_engines(shortest_queue(), vec![engine]).await;
    let running = tokio::spawn(rig.post_image(encode_png()).send());
    assert_eq!(gate.next_batch().await, 1);
    // One of these two requests waits in the queue. The other request finds the queue full.
    let (refused, waiting) = match select(
        tokio::spawn(rig.post_image(encode_png()).send()),
        tokio::spawn(rig.post_image(encode_png()).send()),
    )
    .await
    {
        Either::Left((first, other)) | Either::Right((first, other)) => (first.unwrap(), other),
    };
    assert_eq!(refused.as_ref().unwrap().headers()["retry-after"], "1");
    let (status, body) = read_json(refused).await;
    assert_eq!((status, body["kind"].as_str()), (429, Some("overloaded")), "{body}");
    gate.release(Verdict::Espresso);
    gate.release(Verdict::Espresso);
    for request in [running, waiting] {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
}

#[tokio::test]
async fn network_does_not_run_for_requests_that_timed_out() {
    let (engine, mut gate) = Gate::new(false);
    let settings = Settings { request_timeout: Duration::from_secs(2), ..Settings::default() };
    let rig = Rig::with_engines(settings, vec![engine]).await;
    let running = tokio::spawn(rig.post_image(encode_png()).send());
    gate.next_batch().await;
    let waiting = rig.post_image(encode_png()).send();
    assert_eq!(read_json(waiting.await).await.0, 504);
    assert_eq!(running.await.unwrap().unwrap().status(), 504);
    // The queue contains the crop of the second request, which timed out. The network must not run for this
    // crop, so the next batch must contain only the image of the third request.
    gate.release(Verdict::Espresso);
    gate.release(Verdict::Espresso);
    assert_eq!(rig.post_image(encode_png()).send().await.unwrap().status(), 200);
    assert_eq!(gate.next_batch().await, 1);
}

#[tokio::test]
async fn panic_of_an_engine_on_one_image_gives_500_and_the_engine_continues() {
    let (engine, gate) = Gate::new(false);
    let rig = Rig::with_engines(Settings::default(), vec![engine]).await;
    gate.release(Verdict::Panic);
    let (status, body) = read_json(rig.post_image(encode_png()).send().await).await;
    assert_eq!((status, body["kind"].as_str()), (500, Some("model_failure")), "{body}");
    assert!(!body.to_string().contains("panic for this test"), "the panic message is private: {body}");
    gate.release(Verdict::Espresso);
    assert_eq!(rig.post_image(encode_png()).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn nan_logits_give_500() {
    let (engine, gate) = Gate::new(false);
    let rig = Rig::with_engines(Settings::default(), vec![engine]).await;
    gate.release(Verdict::Nan);
    let (status, body) = read_json(rig.post_image(encode_png()).send().await).await;
    assert_eq!((status, body["kind"].as_str()), (500, Some("model_failure")), "{body}");
}

#[tokio::test]
async fn shutdown_finishes_admitted_requests_and_closes_the_port() {
    let (engine, mut gate) = Gate::new(false);
    let mut rig = Rig::with_engines(shortest_queue(), vec![engine]).await;
    let running = tokio::spawn(rig.post_image(encode_png()).send());
    gate.next_batch().await;
    // When one of these two requests is refused, the other request is in the queue.
    let (refused, waiting) = match select(
        tokio::spawn(rig.post_image(encode_png()).send()),
        tokio::spawn(rig.post_image(encode_png()).send()),
    )
    .await
    {
        Either::Left((first, other)) | Either::Right((first, other)) => (first.unwrap(), other),
    };
    assert_eq!(refused.unwrap().status(), 429);
    rig.stop.cancel();
    gate.release(Verdict::Espresso);
    gate.release(Verdict::Espresso);
    for request in [running, waiting] {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
    (&mut rig.task).await.unwrap().unwrap();
    assert!(rig.post_image(encode_png()).send().await.is_err(), "the port is closed");
}

type Responses = Vec<JoinHandle<reqwest::Result<reqwest::Response>>>;

/// Sends `requests` at the same time and waits until one of them is refused with 429. Returns the others, which
/// wait in the queue if there is room for all but one.
async fn send_until_one_is_refused(requests: impl IntoIterator<Item = RequestBuilder>) -> Responses {
    let responses = requests.into_iter().map(|request| tokio::spawn(request.send()));
    let (refused, _, waiting) = select_all(responses).await;
    assert_eq!(refused.unwrap().unwrap().status(), 429);
    waiting
}

#[tokio::test]
async fn events_and_requests_cannot_take_the_share_of_the_other() {
    for requests_come_first in [true, false] {
        let (engine, mut gate) = Gate::new(false);
        let settings = Settings { queue_items: NonZeroUsize::new(8).unwrap(), ..Settings::default() };
        let rig = Rig::with_engines(settings, vec![engine]).await;
        for number in 0..10 {
            rig.store(&format!("{number}.png"), encode_png()).await;
        }
        let images = |count: usize| Vec::from_iter((0..count).map(|_| rig.post_image(encode_png())));
        let events =
            |count: usize| Vec::from_iter((0..count).map(|number| rig.push_event(&format!("{number}.png"))));
        let running = tokio::spawn(rig.post_image(encode_png()).send());
        assert_eq!(gate.next_batch().await, 1);
        // The queue has room for eight images. A quarter is reserved for each of the two.
        let (first, second) =
            if requests_come_first { (images(7), events(3)) } else { (events(7), images(3)) };
        let mut admitted = send_until_one_is_refused(first).await;
        admitted.extend(send_until_one_is_refused(second).await);
        assert_eq!(admitted.len(), 8);
        for _ in 0..9 {
            gate.release(Verdict::Espresso);
        }
        for response in admitted.into_iter().chain([running]) {
            assert_eq!(response.await.unwrap().unwrap().status(), 200);
        }
        assert_eq!(gate.count_further_batches(), 8, "no image was classified twice or for nothing");
    }
}

#[tokio::test]
async fn request_to_a_full_queue_is_refused_before_its_body_is_read() {
    let (engine, mut gate) = Gate::new(false);
    let rig = Rig::with_engines(shortest_queue(), vec![engine]).await;
    let recorded = "0123456789abcdef0123456789abcdef/image.jpg";
    rig.store(recorded, encode_png()).await;
    gate.release(Verdict::Espresso);
    assert_eq!(rig.push_event(recorded).send().await.unwrap().status(), 200);
    gate.next_batch().await;

    let running = tokio::spawn(rig.post_image(encode_png()).send());
    gate.next_batch().await;
    let waiting = send_until_one_is_refused([(); 2].map(|()| rig.post_image(encode_png()))).await;

    // The client does not send the body before the server asks for it.
    let url = rig.get("/").build().unwrap().url().clone();
    let mut connection = TcpStream::connect((url.host_str().unwrap(), url.port().unwrap())).await.unwrap();
    let head = "POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n\
                Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n";
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut status_line = [0; 12];
    connection.read_exact(&mut status_line).await.unwrap();
    assert_eq!(&status_line, b"HTTP/1.1 429");
    // A client that sends a large body at once also receives the response.
    assert_eq!(rig.post_image(vec![0; 5 << 20]).send().await.unwrap().status(), 429);
    // A recorded prediction needs no place in the queue.
    let request = rig.post("/classify").json(&json!({"gcs_path": format!("gs://local/{recorded}")}));
    let (status, body) = read_json(request.send().await).await;
    assert_eq!((status, &body["duplicate"]), (200, &json!(true)), "{body}");

    gate.release(Verdict::Espresso);
    gate.release(Verdict::Espresso);
    for response in waiting.into_iter().chain([running]) {
        assert_eq!(response.await.unwrap().unwrap().status(), 200);
    }
}
