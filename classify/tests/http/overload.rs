//! Tests of full queues, requests that time out, failing engines and the shutdown.

use std::{num::NonZeroUsize, time::Duration};

use classify::Settings;
use futures_util::future::{Either, select};

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
async fn panic_of_an_engine_gives_503_and_the_engine_continues() {
    let (engine, gate) = Gate::new(false);
    let rig = Rig::with_engines(Settings::default(), vec![engine]).await;
    gate.release(Verdict::Panic);
    let (status, body) = read_json(rig.post_image(encode_png()).send().await).await;
    assert_eq!((status, body["kind"].as_str()), (503, Some("engine_failed")), "{body}");
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
