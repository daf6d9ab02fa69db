//! Tests of `GcsBucket`, `PubSubTopic` and `PubSubSubscription` with emulators of Google Cloud.
//!
//! Each test starts its own emulators. If `.ci/emulators` has not installed them, the test prints SKIPPED and
//! passes.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic in a helper fails the test"
)]

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, http::HeaderMap, http::StatusCode, routing::any};
use bytes::Bytes;
use platform::{
    bucket::{self, Bucket, BucketError, Created, GcsBucket, ObjectName},
    cloud::CloudArgs,
    emulators::{PubSubEmulator, PushOptions, StorageEmulator, cloud_args},
    topic::{
        self, Acknowledgement, Message, PubSubSubscription, PubSubTopic, PullHandler, PullLimits,
        Subscription, Topic, push::Delivery,
    },
};
use serde_json::json;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

/// Maximum time that a test waits for anything. Only a failing test reaches it.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

fn object_name(name: &str) -> ObjectName {
    ObjectName::new(name).unwrap()
}

/// Serves `app` and returns its address.
async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    format!("http://{address}")
}

/// Returns settings for emulators of Cloud Storage and Pub/Sub at `url`. The timeout is two seconds.
fn cloud_args_with_short_timeout(url: &str) -> CloudArgs {
    CloudArgs {
        storage_emulator_host: Some(url.parse().unwrap()),
        pubsub_emulator_host: Some(url.parse().unwrap()),
        cloud_timeout: Duration::from_secs(2),
        ..CloudArgs::default()
    }
}

#[tokio::test]
async fn cloud_storage_bucket_passes_the_conformance_suite() {
    let Some(emulator) = StorageEmulator::start().await.unwrap() else { return };
    emulator.create_bucket("images").await.unwrap();
    let cloud = cloud_args(Some(&emulator), None).unwrap();
    let bucket = GcsBucket::open("images", &cloud).await.unwrap();
    assert_eq!(bucket.name(), "images");
    bucket::conformance::check(&bucket).await;
}

#[tokio::test]
async fn every_version_of_an_object_has_its_own_generation() {
    let Some(emulator) = StorageEmulator::start().await.unwrap() else { return };
    emulator.create_bucket("images").await.unwrap();
    let cloud = cloud_args(Some(&emulator), None).unwrap();
    let bucket = GcsBucket::open("images", &cloud).await.unwrap();
    let mut generations = BTreeSet::new();
    for data in ["one", "two"] {
        emulator.upload("images", "a/b c.jpg", "image/jpeg", data.into()).await.unwrap();
        let read = bucket.read(&object_name("a/b c.jpg"), 10).await.unwrap();
        assert_eq!(read.data, data);
        generations.insert(read.generation.unwrap());
    }
    assert_eq!(generations.len(), 2, "{generations:?}");
}

/// This test does not use fake-gcs-server, whose response for a missing bucket is the same as for a missing
/// object. The response of Cloud Storage for a missing bucket contains the text alone or in JSON.
#[tokio::test]
async fn opening_a_missing_bucket_is_an_error() {
    const TEXT: &str = "The specified bucket does not exist.";
    let json = json!({ "error": { "code": 404, "message": TEXT, "errors": [] } });
    for body in [TEXT.to_owned(), json.to_string()] {
        let url = serve(Router::new().fallback(any((StatusCode::NOT_FOUND, body)))).await;
        let error = GcsBucket::open("nowhere", &cloud_args_with_short_timeout(&url)).await.unwrap_err();
        let BucketError::Unavailable(reason) = error else { panic!("{error}") };
        assert_eq!(reason.to_string(), "there is no bucket gs://nowhere");
    }
}

#[tokio::test]
async fn call_is_retried_after_a_temporary_failure() {
    let Some(emulator) = StorageEmulator::start().await.unwrap() else { return };
    emulator.create_bucket("images").await.unwrap();
    let upstream = emulator.endpoint().unwrap().to_string();
    // The first attempt of every call fails with 503, and the second attempt succeeds.
    let attempt_count = Arc::new(AtomicUsize::new(0));
    let client = reqwest::Client::new();
    let flaky = any({
        let attempt_count = Arc::clone(&attempt_count);
        move |method: reqwest::Method, uri: axum::http::Uri, headers: HeaderMap, body: Bytes| async move {
            if attempt_count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
                return (StatusCode::SERVICE_UNAVAILABLE, HeaderMap::new(), Bytes::new());
            }
            let request = client.request(method, format!("{upstream}{uri}")).headers(headers).body(body);
            let response = request.send().await.unwrap();
            (response.status(), response.headers().clone(), response.bytes().await.unwrap())
        }
    });
    let url = serve(Router::new().fallback(flaky)).await;
    let cloud = CloudArgs { cloud_timeout: Duration::from_secs(10), ..cloud_args_with_short_timeout(&url) };
    let bucket = GcsBucket::open("images", &cloud).await.unwrap();
    let created = bucket.create(&object_name("a"), "data".into(), "text/plain").await.unwrap();
    assert_eq!(created, Created::New);
    assert_eq!(bucket.read(&object_name("a"), 10).await.unwrap().data, "data");
    assert!(!bucket.exists(&object_name("b")).await.unwrap());
    assert_eq!(attempt_count.load(Ordering::SeqCst), 8, "each of the four calls takes two attempts");
}

#[tokio::test]
async fn forbidden_call_is_not_retried() {
    let attempt_count = Arc::new(AtomicUsize::new(0));
    let handler_attempt_count = Arc::clone(&attempt_count);
    let refusing = any(move || {
        handler_attempt_count.fetch_add(1, Ordering::SeqCst);
        async { StatusCode::FORBIDDEN }
    });
    let url = serve(Router::new().fallback(refusing)).await;
    let error = GcsBucket::open("images", &cloud_args_with_short_timeout(&url)).await.unwrap_err();
    let BucketError::Unavailable(reason) = error else { panic!("{error}") };
    assert!(reason.to_string().contains("Storage Object Viewer"), "{reason}");
    assert_eq!(attempt_count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn calls_to_an_unreachable_or_hanging_cloud_fail_within_the_timeout() {
    let closed_address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let hanging_url = serve(Router::new().fallback(any(std::future::pending::<StatusCode>))).await;
    for url in [format!("http://{closed_address}"), hanging_url] {
        let cloud = cloud_args_with_short_timeout(&url);
        let begin = Instant::now();
        // Opening the bucket succeeds even if Cloud Storage is unreachable.
        let bucket = GcsBucket::open("images", &cloud).await.unwrap();
        let unavailable = |error: &BucketError| matches!(error, BucketError::Unavailable(_));
        let data = Bytes::from_static(b"data");
        assert!(
            unavailable(&bucket.create(&object_name("a"), data, "text/plain").await.unwrap_err()),
            "{url}"
        );
        assert!(unavailable(&bucket.read(&object_name("a"), 10).await.unwrap_err()), "{url}");
        assert!(unavailable(&bucket.exists(&object_name("a")).await.unwrap_err()), "{url}");
        let topic = PubSubTopic::open("projects/test/topics/images", &cloud).await.unwrap();
        topic.publish(Message { data: "x".into(), ..Message::default() }).await.unwrap_err();
        assert!(begin.elapsed() < TEST_TIMEOUT, "{url}: {:?}", begin.elapsed());
    }
}

/// Starts a server that acknowledges every push. Returns its address and the deliveries that it receives.
async fn start_receiver() -> (String, mpsc::UnboundedReceiver<Delivery>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let push = any(move |headers: HeaderMap, body: Bytes| async move {
        sender.send(Delivery::parse(&headers, &body).unwrap()).unwrap();
        StatusCode::OK
    });
    (serve(Router::new().fallback(push)).await, receiver)
}

/// Receives deliveries until they include `message_count` different messages.
async fn collect(deliveries: &mut mpsc::UnboundedReceiver<Delivery>, message_count: usize) -> Vec<Delivery> {
    let mut ids = BTreeSet::new();
    let mut collected = Vec::new();
    while ids.len() < message_count {
        let delivery = tokio::time::timeout(TEST_TIMEOUT, deliveries.recv()).await.unwrap().unwrap();
        ids.insert(delivery.message_id.clone());
        collected.push(delivery);
    }
    collected
}

#[tokio::test]
async fn pubsub_topic_with_a_push_subscription_passes_the_conformance_suite() {
    let Some(emulator) = PubSubEmulator::start().await.unwrap() else { return };
    let topic_name = emulator.create_topic("images").await.unwrap();
    let (url, mut deliveries) = start_receiver().await;
    let options = PushOptions::default();
    emulator.create_push_subscription("push", &topic_name, &url, &options).await.unwrap();
    let topic = PubSubTopic::open(&topic_name, &cloud_args(None, Some(&emulator)).unwrap()).await.unwrap();
    topic::conformance::check(&topic, async |count| collect(&mut deliveries, count).await).await;
}

#[tokio::test]
async fn publishing_fails_until_the_missing_topic_is_created() {
    let Some(emulator) = PubSubEmulator::start().await.unwrap() else { return };
    let cloud = cloud_args(None, Some(&emulator)).unwrap();
    let topic = PubSubTopic::open("projects/test/topics/later", &cloud).await.unwrap();
    let message = Message { data: "x".into(), ..Message::default() };
    let begin = Instant::now();
    let error = topic.publish(message.clone()).await.unwrap_err();
    assert!(begin.elapsed() < cloud.cloud_timeout, "a missing topic is not retried");
    assert!(platform::telemetry::error_chain(&error).to_lowercase().contains("not found"), "{error:?}");
    emulator.create_topic("later").await.unwrap();
    topic.publish(message).await.unwrap();
}

const LIMITS: PullLimits = PullLimits { max_outstanding: 2, drain_timeout: Duration::from_secs(8) };

/// Publishes `count` messages. Their data is `0`, `1` and so on.
async fn publish(emulator: &PubSubEmulator, topic_name: &str, count: usize) {
    for number in 0..count {
        emulator.publish(topic_name, number.to_string().as_bytes(), &json!({ "a": "b" })).await.unwrap();
    }
}

#[tokio::test]
async fn pubsub_topic_with_a_pull_subscription_passes_the_conformance_suite() {
    let Some(emulator) = PubSubEmulator::start().await.unwrap() else { return };
    let cloud = cloud_args(None, Some(&emulator)).unwrap();
    let topic = PubSubTopic::open(&emulator.create_topic("images").await.unwrap(), &cloud).await.unwrap();
    let subscription_name =
        emulator.create_pull_subscription("pull", "projects/test/topics/images").await.unwrap();
    let (sender, mut deliveries) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let pulling = tokio::spawn({
        let stop = stop.clone();
        async move {
            let subscription = PubSubSubscription::open(&subscription_name, &cloud).await.unwrap();
            let handler = PullHandler::new(move |delivery| {
                sender.send(delivery).unwrap();
                std::future::ready(Acknowledgement::Ack)
            });
            subscription.pull(LIMITS, stop, handler).await
        }
    });
    topic::conformance::check(&topic, async |count| collect(&mut deliveries, count).await).await;
    stop.cancel();
    pulling.await.unwrap().unwrap();
}

#[tokio::test]
async fn pull_respects_max_outstanding_and_redelivers_refused_messages() {
    let Some(emulator) = PubSubEmulator::start().await.unwrap() else { return };
    let cloud = cloud_args(None, Some(&emulator)).unwrap();
    let topic_name = emulator.create_topic("images").await.unwrap();
    let subscription_name = emulator.create_pull_subscription("pull", &topic_name).await.unwrap();
    publish(&emulator, &topic_name, 6).await;

    let (sender, mut seen) = mpsc::unbounded_channel();
    let in_progress = Arc::new(AtomicUsize::new(0));
    let max_in_progress = Arc::new(AtomicUsize::new(0));
    let stop = CancellationToken::new();
    let pulling = tokio::spawn({
        let (stop, in_progress, max_in_progress) =
            (stop.clone(), Arc::clone(&in_progress), Arc::clone(&max_in_progress));
        async move {
            let subscription = PubSubSubscription::open(&subscription_name, &cloud).await.unwrap();
            let attempt_count = Arc::new(AtomicUsize::new(0));
            let handle = move |delivery: Delivery| {
                let (sender, attempt_count) = (sender.clone(), Arc::clone(&attempt_count));
                let (in_progress, max_in_progress) = (Arc::clone(&in_progress), Arc::clone(&max_in_progress));
                async move {
                    max_in_progress
                        .fetch_max(in_progress.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    // Without the limit, a third message would arrive within this time.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    in_progress.fetch_sub(1, Ordering::SeqCst);
                    // Only the first attempt to handle message 3 is refused.
                    let refused = delivery.data == "3" && attempt_count.fetch_add(1, Ordering::SeqCst) == 0;
                    sender.send(delivery).unwrap();
                    if refused { Acknowledgement::Nack } else { Acknowledgement::Ack }
                }
            };
            subscription.pull(LIMITS, stop, PullHandler::new(handle)).await
        }
    });
    let mut numbers = Vec::new();
    while numbers.len() < 7 {
        let delivery = tokio::time::timeout(TEST_TIMEOUT, seen.recv()).await.unwrap().unwrap();
        numbers.push(String::from_utf8(delivery.data.to_vec()).unwrap());
    }
    numbers.sort();
    assert_eq!(numbers, ["0", "1", "2", "3", "3", "4", "5"]);
    assert_eq!(max_in_progress.load(Ordering::SeqCst), LIMITS.max_outstanding);
    stop.cancel();
    pulling.await.unwrap().unwrap();
}

#[tokio::test]
async fn lease_is_extended_while_a_message_is_handled() {
    let Some(emulator) = PubSubEmulator::start().await.unwrap() else { return };
    let cloud = cloud_args(None, Some(&emulator)).unwrap();
    let topic_name = emulator.create_topic("images").await.unwrap();
    let subscription_name = emulator.create_pull_subscription("pull", &topic_name).await.unwrap();
    publish(&emulator, &topic_name, 1).await;
    let (sender, mut seen) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let pulling = tokio::spawn({
        let stop = stop.clone();
        async move {
            let subscription = PubSubSubscription::open(&subscription_name, &cloud).await.unwrap();
            let handle = move |_| {
                sender.send(()).unwrap();
                async {
                    // This is longer than the ack deadline of the subscription, which is 10 seconds.
                    tokio::time::sleep(Duration::from_secs(14)).await;
                    Acknowledgement::Ack
                }
            };
            let limits = PullLimits { drain_timeout: TEST_TIMEOUT, ..LIMITS };
            subscription.pull(limits, stop, PullHandler::new(handle)).await
        }
    });
    tokio::time::timeout(TEST_TIMEOUT, seen.recv()).await.unwrap().unwrap();
    // After the stop, the handler finishes its message, which is acknowledged and not delivered again.
    stop.cancel();
    pulling.await.unwrap().unwrap();
    assert!(seen.recv().await.is_none(), "the message was delivered twice");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(emulator.pull("projects/test/subscriptions/pull").await.unwrap(), []);
}

#[tokio::test]
async fn message_unfinished_after_the_drain_timeout_is_redelivered() {
    let Some(emulator) = PubSubEmulator::start().await.unwrap() else { return };
    let cloud = cloud_args(None, Some(&emulator)).unwrap();
    let topic_name = emulator.create_topic("images").await.unwrap();
    let subscription_name = emulator.create_pull_subscription("pull", &topic_name).await.unwrap();
    publish(&emulator, &topic_name, 5).await;
    let stop = CancellationToken::new();
    let subscription = PubSubSubscription::open(&subscription_name, &cloud).await.unwrap();
    let limits = PullLimits { drain_timeout: Duration::from_millis(10), ..LIMITS };
    let handler_stop = stop.clone();
    let handler = PullHandler::new(move |_| {
        handler_stop.cancel();
        std::future::pending()
    });
    subscription.pull(limits, stop, handler).await.unwrap();
    let begin = Instant::now();
    let mut redelivered = BTreeSet::new();
    while redelivered.len() < 5 {
        assert!(begin.elapsed() < TEST_TIMEOUT, "{redelivered:?}");
        let messages = emulator.pull(&subscription_name).await.unwrap();
        redelivered.extend(messages.into_iter().map(|message| message.data));
    }
}

#[tokio::test]
async fn pulling_from_a_missing_subscription_is_an_error() {
    let Some(emulator) = PubSubEmulator::start().await.unwrap() else { return };
    let cloud = cloud_args(None, Some(&emulator)).unwrap();
    let subscription_name = "projects/test/subscriptions/nowhere";
    let subscription = PubSubSubscription::open(subscription_name, &cloud).await.unwrap();
    let handler = PullHandler::new(|_| std::future::ready(Acknowledgement::Ack));
    let pull = subscription.pull(LIMITS, CancellationToken::new(), handler);
    let error = tokio::time::timeout(TEST_TIMEOUT, pull).await.unwrap().unwrap_err();
    assert!(error.to_string().contains(subscription_name), "{error}");
}
