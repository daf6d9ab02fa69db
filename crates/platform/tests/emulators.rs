//! Tests of the bucket and the topic of Google Cloud, with emulators.
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

/// Timeout for everything a test waits for. Only a failing test reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

fn object(name: &str) -> ObjectName {
    ObjectName::new(name).unwrap()
}

/// Serves `app` and returns its address.
async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    format!("http://{address}")
}

/// Returns settings for emulators of Cloud Storage and Pub/Sub at `url`, with a short timeout.
fn short_timeout(url: &str) -> CloudArgs {
    CloudArgs {
        storage_emulator_host: Some(url.parse().unwrap()),
        pubsub_emulator_host: Some(url.parse().unwrap()),
        cloud_timeout: Duration::from_secs(2),
        ..CloudArgs::default()
    }
}

#[tokio::test]
async fn cloud_storage_bucket_conforms() {
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
        let read = bucket.read(&object("a/b c.jpg"), 10).await.unwrap();
        assert_eq!(read.data, data);
        generations.insert(read.generation.unwrap());
    }
    assert_eq!(generations.len(), 2, "{generations:?}");
}

/// Uses a fake server, because fake-gcs-server has the same response for a missing bucket and a missing
/// object. Cloud Storage has two responses for a missing bucket.
#[tokio::test]
async fn opening_a_missing_bucket_is_an_error() {
    const TEXT: &str = "The specified bucket does not exist.";
    let json = json!({ "error": { "code": 404, "message": TEXT, "errors": [] } });
    for body in [TEXT.to_owned(), json.to_string()] {
        let url = serve(Router::new().fallback(any((StatusCode::NOT_FOUND, body)))).await;
        let error = GcsBucket::open("nowhere", &short_timeout(&url)).await.unwrap_err();
        let BucketError::Unavailable(reason) = error else { panic!("{error}") };
        assert_eq!(reason.to_string(), "there is no bucket gs://nowhere");
    }
}

#[tokio::test]
async fn temporary_failure_is_retried() {
    let Some(emulator) = StorageEmulator::start().await.unwrap() else { return };
    emulator.create_bucket("images").await.unwrap();
    let upstream = emulator.endpoint().unwrap().to_string();
    // The first attempt of every call fails with 503, and the second attempt succeeds.
    let attempts = Arc::new(AtomicUsize::new(0));
    let client = reqwest::Client::new();
    let flaky = any({
        let attempts = Arc::clone(&attempts);
        move |method: reqwest::Method, uri: axum::http::Uri, headers: HeaderMap, body: Bytes| async move {
            if attempts.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
                return (StatusCode::SERVICE_UNAVAILABLE, HeaderMap::new(), Bytes::new());
            }
            let answer = client.request(method, format!("{upstream}{uri}")).headers(headers).body(body);
            let answer = answer.send().await.unwrap();
            (answer.status(), answer.headers().clone(), answer.bytes().await.unwrap())
        }
    });
    let url = serve(Router::new().fallback(flaky)).await;
    let cloud = CloudArgs { cloud_timeout: Duration::from_secs(10), ..short_timeout(&url) };
    let bucket = GcsBucket::open("images", &cloud).await.unwrap();
    let created = bucket.create(&object("a"), "data".into(), "text/plain").await.unwrap();
    assert_eq!(created, Created::New);
    assert_eq!(bucket.read(&object("a"), 10).await.unwrap().data, "data");
    assert!(!bucket.exists(&object("b")).await.unwrap());
    assert_eq!(attempts.load(Ordering::SeqCst), 8, "two for each of four calls");
}

#[tokio::test]
async fn forbidden_call_is_not_retried() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let refusing = any(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { StatusCode::FORBIDDEN }
    });
    let url = serve(Router::new().fallback(refusing)).await;
    let error = GcsBucket::open("images", &short_timeout(&url)).await.unwrap_err();
    let BucketError::Unavailable(reason) = error else { panic!("{error}") };
    assert!(reason.to_string().contains("Storage Object Viewer"), "{reason}");
    assert_eq!(attempts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn unreachable_or_hanging_cloud_is_unavailable_after_the_timeout() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let hanging = serve(Router::new().fallback(any(std::future::pending::<StatusCode>))).await;
    for url in [format!("http://{closed}"), hanging] {
        let cloud = short_timeout(&url);
        let begin = Instant::now();
        // An unreachable Cloud Storage does not prevent the start.
        let bucket = GcsBucket::open("images", &cloud).await.unwrap();
        let unavailable = |error: &BucketError| matches!(error, BucketError::Unavailable(_));
        let data = Bytes::from_static(b"data");
        assert!(unavailable(&bucket.create(&object("a"), data, "text/plain").await.unwrap_err()), "{url}");
        assert!(unavailable(&bucket.read(&object("a"), 10).await.unwrap_err()), "{url}");
        assert!(unavailable(&bucket.exists(&object("a")).await.unwrap_err()), "{url}");
        let topic = PubSubTopic::open("projects/test/topics/images", &cloud).await.unwrap();
        topic.publish(Message { data: "x".into(), ..Message::default() }).await.unwrap_err();
        assert!(begin.elapsed() < PATIENCE, "{url}: {:?}", begin.elapsed());
    }
}

/// Starts a server that acknowledges every push. Returns its address and its deliveries.
async fn start_receiver() -> (String, mpsc::UnboundedReceiver<Delivery>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let push = any(move |headers: HeaderMap, body: Bytes| async move {
        sender.send(Delivery::parse(&headers, &body).unwrap()).unwrap();
        StatusCode::OK
    });
    (serve(Router::new().fallback(push)).await, receiver)
}

/// Receives deliveries until they include `expected` different messages.
async fn collect(deliveries: &mut mpsc::UnboundedReceiver<Delivery>, expected: usize) -> Vec<Delivery> {
    let mut ids = BTreeSet::new();
    let mut collected = Vec::new();
    while ids.len() < expected {
        let delivery = tokio::time::timeout(PATIENCE, deliveries.recv()).await.unwrap().unwrap();
        ids.insert(delivery.message_id.clone());
        collected.push(delivery);
    }
    collected
}

#[tokio::test]
async fn pushing_pubsub_topic_conforms() {
    let Some(emulator) = PubSubEmulator::start().await.unwrap() else { return };
    let name = emulator.create_topic("images").await.unwrap();
    let (url, mut deliveries) = start_receiver().await;
    let options = PushOptions::default();
    emulator.create_push_subscription("push", &name, &url, &options).await.unwrap();
    let topic = PubSubTopic::open(&name, &cloud_args(None, Some(&emulator)).unwrap()).await.unwrap();
    topic::conformance::check(&topic, async |expected| collect(&mut deliveries, expected).await).await;
}

#[tokio::test]
async fn publishing_succeeds_once_the_missing_topic_exists() {
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

/// Publishes `count` messages with the data `0`, `1` and so on.
async fn publish(emulator: &PubSubEmulator, topic: &str, count: usize) {
    for number in 0..count {
        emulator.publish(topic, number.to_string().as_bytes(), &json!({ "a": "b" })).await.unwrap();
    }
}

#[tokio::test]
async fn pulled_pubsub_topic_conforms() {
    let Some(emulator) = PubSubEmulator::start().await.unwrap() else { return };
    let cloud = cloud_args(None, Some(&emulator)).unwrap();
    let topic = PubSubTopic::open(&emulator.create_topic("images").await.unwrap(), &cloud).await.unwrap();
    let name = emulator.create_pull_subscription("pull", "projects/test/topics/images").await.unwrap();
    let (sender, mut deliveries) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let pulling = tokio::spawn({
        let stop = stop.clone();
        async move {
            let subscription = PubSubSubscription::open(&name, &cloud).await.unwrap();
            let handler = PullHandler::new(move |delivery| {
                sender.send(delivery).unwrap();
                std::future::ready(Acknowledgement::Ack)
            });
            subscription.pull(LIMITS, stop, handler).await
        }
    });
    topic::conformance::check(&topic, async |expected| collect(&mut deliveries, expected).await).await;
    stop.cancel();
    pulling.await.unwrap().unwrap();
}

#[tokio::test]
async fn pull_respects_max_outstanding_and_redelivers_refused_messages() {
    let Some(emulator) = PubSubEmulator::start().await.unwrap() else { return };
    let cloud = cloud_args(None, Some(&emulator)).unwrap();
    let topic = emulator.create_topic("images").await.unwrap();
    let name = emulator.create_pull_subscription("pull", &topic).await.unwrap();
    publish(&emulator, &topic, 6).await;

    let (sender, mut seen) = mpsc::unbounded_channel();
    let open = Arc::new(AtomicUsize::new(0));
    let max_open = Arc::new(AtomicUsize::new(0));
    let stop = CancellationToken::new();
    let pulling = tokio::spawn({
        let (stop, open, max_open) = (stop.clone(), Arc::clone(&open), Arc::clone(&max_open));
        async move {
            let subscription = PubSubSubscription::open(&name, &cloud).await.unwrap();
            let times = Arc::new(AtomicUsize::new(0));
            let handle = move |delivery: Delivery| {
                let (sender, times) = (sender.clone(), Arc::clone(&times));
                let (open, max_open) = (Arc::clone(&open), Arc::clone(&max_open));
                async move {
                    max_open.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    // This is long enough for a third message to arrive, if the limit did not prevent it.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    open.fetch_sub(1, Ordering::SeqCst);
                    let refused = delivery.data == "3" && times.fetch_add(1, Ordering::SeqCst) == 0;
                    sender.send(delivery).unwrap();
                    if refused { Acknowledgement::Nack } else { Acknowledgement::Ack }
                }
            };
            subscription.pull(LIMITS, stop, PullHandler::new(handle)).await
        }
    });
    let mut numbers = Vec::new();
    while numbers.len() < 7 {
        let delivery = tokio::time::timeout(PATIENCE, seen.recv()).await.unwrap().unwrap();
        numbers.push(String::from_utf8(delivery.data.to_vec()).unwrap());
    }
    numbers.sort();
    assert_eq!(numbers, ["0", "1", "2", "3", "3", "4", "5"]);
    assert_eq!(max_open.load(Ordering::SeqCst), LIMITS.max_outstanding);
    stop.cancel();
    pulling.await.unwrap().unwrap();
}

#[tokio::test]
async fn lease_is_extended_while_a_message_is_handled() {
    let Some(emulator) = PubSubEmulator::start().await.unwrap() else { return };
    let cloud = cloud_args(None, Some(&emulator)).unwrap();
    let topic = emulator.create_topic("images").await.unwrap();
    let name = emulator.create_pull_subscription("pull", &topic).await.unwrap();
    publish(&emulator, &topic, 1).await;
    let (sender, mut seen) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let pulling = tokio::spawn({
        let stop = stop.clone();
        async move {
            let subscription = PubSubSubscription::open(&name, &cloud).await.unwrap();
            let handle = move |_| {
                sender.send(()).unwrap();
                async {
                    // This is longer than the ack deadline of the subscription, which is 10 seconds.
                    tokio::time::sleep(Duration::from_secs(14)).await;
                    Acknowledgement::Ack
                }
            };
            let limits = PullLimits { drain_timeout: PATIENCE, ..LIMITS };
            subscription.pull(limits, stop, PullHandler::new(handle)).await
        }
    });
    tokio::time::timeout(PATIENCE, seen.recv()).await.unwrap().unwrap();
    // The open message is finished and acknowledged after the stop, and is not delivered again.
    stop.cancel();
    pulling.await.unwrap().unwrap();
    assert!(seen.recv().await.is_none(), "the message was delivered twice");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(emulator.pull("projects/test/subscriptions/pull").await.unwrap(), []);
}

#[tokio::test]
async fn message_open_after_the_drain_timeout_is_redelivered() {
    let Some(emulator) = PubSubEmulator::start().await.unwrap() else { return };
    let cloud = cloud_args(None, Some(&emulator)).unwrap();
    let topic = emulator.create_topic("images").await.unwrap();
    let name = emulator.create_pull_subscription("pull", &topic).await.unwrap();
    publish(&emulator, &topic, 5).await;
    let stop = CancellationToken::new();
    let subscription = PubSubSubscription::open(&name, &cloud).await.unwrap();
    let limits = PullLimits { drain_timeout: Duration::from_millis(10), ..LIMITS };
    let stopping = stop.clone();
    let handler = PullHandler::new(move |_| {
        stopping.cancel();
        std::future::pending()
    });
    subscription.pull(limits, stop, handler).await.unwrap();
    let begin = Instant::now();
    let mut back = BTreeSet::new();
    while back.len() < 5 {
        assert!(begin.elapsed() < PATIENCE, "{back:?}");
        back.extend(emulator.pull(&name).await.unwrap().into_iter().map(|message| message.data));
    }
}

#[tokio::test]
async fn pulling_from_a_missing_subscription_is_an_error() {
    let Some(emulator) = PubSubEmulator::start().await.unwrap() else { return };
    let cloud = cloud_args(None, Some(&emulator)).unwrap();
    let name = "projects/test/subscriptions/nowhere";
    let subscription = PubSubSubscription::open(name, &cloud).await.unwrap();
    let handler = PullHandler::new(|_| std::future::ready(Acknowledgement::Ack));
    let pull = subscription.pull(LIMITS, CancellationToken::new(), handler);
    let error = tokio::time::timeout(PATIENCE, pull).await.unwrap().unwrap_err();
    assert!(error.to_string().contains(name), "{error}");
}
