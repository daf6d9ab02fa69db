//! Cloud Storage and Pub/Sub as the services use them, on emulators. Each test has emulators of its
//! own; where `.ci/emulators` has not put one, it says SKIPPED and passes.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test helper that fails fails the test"
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

/// What these tests wait for comes within seconds; this is for machines that are very busy.
const PATIENCE: Duration = Duration::from_secs(60);

fn object(name: &str) -> ObjectName {
    ObjectName::new(name).unwrap()
}

/// The address of a server that `app` answers for.
async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    format!("http://{address}")
}

/// Configuration of a Cloud Storage and a Pub/Sub at `url`, with little patience.
fn impatient(url: &str) -> CloudArgs {
    CloudArgs {
        storage_emulator_host: Some(url.parse().unwrap()),
        pubsub_emulator_host: Some(url.parse().unwrap()),
        cloud_timeout: Duration::from_secs(2),
        ..CloudArgs::default()
    }
}

#[tokio::test]
async fn cloud_storage_is_a_bucket() {
    let Some(emulator) = StorageEmulator::start().await.unwrap() else { return };
    emulator.create_bucket("images").await.unwrap();
    let cloud = cloud_args(Some(&emulator), None).unwrap();
    let bucket = GcsBucket::open("images", &cloud).await.unwrap();
    assert_eq!(bucket.name(), "images");
    bucket::conformance::check(&bucket).await;
}

#[tokio::test]
async fn every_version_of_an_object_has_a_generation_of_its_own() {
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

/// fake-gcs-server says the same of a bucket and of an object that is not there, so this is a stand-in
/// with the two ways in which Cloud Storage says it.
#[tokio::test]
async fn a_bucket_that_is_not_there_is_told_at_the_start() {
    const TEXT: &str = "The specified bucket does not exist.";
    let json = json!({ "error": { "code": 404, "message": TEXT, "errors": [] } });
    for body in [TEXT.to_owned(), json.to_string()] {
        let url = serve(Router::new().fallback(any((StatusCode::NOT_FOUND, body)))).await;
        let error = GcsBucket::open("nowhere", &impatient(&url)).await.unwrap_err();
        let BucketError::Unavailable(reason) = error else { panic!("{error}") };
        assert_eq!(reason.to_string(), "there is no bucket gs://nowhere");
    }
}

#[tokio::test]
async fn what_fails_for_a_moment_is_attempted_again() {
    let Some(emulator) = StorageEmulator::start().await.unwrap() else { return };
    emulator.create_bucket("images").await.unwrap();
    let upstream = emulator.endpoint().unwrap().to_string();
    // The first attempt of every call ends in 503, the second gets through.
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
    let cloud = CloudArgs { cloud_timeout: Duration::from_secs(10), ..impatient(&url) };
    let bucket = GcsBucket::open("images", &cloud).await.unwrap();
    let created = bucket.create(&object("a"), "data".into(), "text/plain").await.unwrap();
    assert_eq!(created, Created::New);
    assert_eq!(bucket.read(&object("a"), 10).await.unwrap().data, "data");
    assert!(!bucket.exists(&object("b")).await.unwrap());
    assert_eq!(attempts.load(Ordering::SeqCst), 8, "two for each of four calls");
}

#[tokio::test]
async fn what_is_forbidden_is_attempted_once() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let refusing = any(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { StatusCode::FORBIDDEN }
    });
    let url = serve(Router::new().fallback(refusing)).await;
    let error = GcsBucket::open("images", &impatient(&url)).await.unwrap_err();
    let BucketError::Unavailable(reason) = error else { panic!("{error}") };
    assert!(reason.to_string().contains("Storage Object Viewer"), "{reason}");
    assert_eq!(attempts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_cloud_that_cannot_be_reached_or_never_answers_is_given_up_in_time() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let hanging = serve(Router::new().fallback(any(std::future::pending::<StatusCode>))).await;
    for url in [format!("http://{closed}"), hanging] {
        let cloud = impatient(&url);
        let begin = Instant::now();
        // Not there yet is no reason not to start.
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

/// A server that acknowledges every push, and what it was sent.
async fn receiver() -> (String, mpsc::UnboundedReceiver<Delivery>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let push = any(move |headers: HeaderMap, body: Bytes| async move {
        sender.send(Delivery::parse(&headers, &body).unwrap()).unwrap();
        StatusCode::OK
    });
    (serve(Router::new().fallback(push)).await, receiver)
}

/// Takes deliveries until `expected` different messages have come.
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
async fn pubsub_is_a_topic_that_pushes() {
    let Some(emulator) = PubSubEmulator::start().await.unwrap() else { return };
    let name = emulator.create_topic("images").await.unwrap();
    let (url, mut deliveries) = receiver().await;
    let options = PushOptions::default();
    emulator.create_push_subscription("push", &name, &url, &options).await.unwrap();
    let topic = PubSubTopic::open(&name, &cloud_args(None, Some(&emulator)).unwrap()).await.unwrap();
    topic::conformance::check(&topic, async |expected| collect(&mut deliveries, expected).await).await;
}

#[tokio::test]
async fn publishing_goes_on_after_a_topic_was_missing() {
    let Some(emulator) = PubSubEmulator::start().await.unwrap() else { return };
    let cloud = cloud_args(None, Some(&emulator)).unwrap();
    let topic = PubSubTopic::open("projects/test/topics/later", &cloud).await.unwrap();
    let message = Message { data: "x".into(), ..Message::default() };
    let begin = Instant::now();
    let error = topic.publish(message.clone()).await.unwrap_err();
    assert!(begin.elapsed() < cloud.cloud_timeout, "a missing topic is not worth another attempt");
    assert!(platform::telemetry::error_chain(&error).to_lowercase().contains("not found"), "{error:?}");
    emulator.create_topic("later").await.unwrap();
    topic.publish(message).await.unwrap();
}

const LIMITS: PullLimits = PullLimits { max_outstanding: 2, drain_timeout: Duration::from_secs(8) };

/// Publishes `count` messages, `0`, `1`, …
async fn publish(emulator: &PubSubEmulator, topic: &str, count: usize) {
    for number in 0..count {
        emulator.publish(topic, number.to_string().as_bytes(), &json!({ "a": "b" })).await.unwrap();
    }
}

#[tokio::test]
async fn pubsub_can_be_pulled_from() {
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
async fn no_more_is_under_way_than_the_limit_and_what_is_refused_comes_again() {
    let Some(emulator) = PubSubEmulator::start().await.unwrap() else { return };
    let cloud = cloud_args(None, Some(&emulator)).unwrap();
    let topic = emulator.create_topic("images").await.unwrap();
    let name = emulator.create_pull_subscription("pull", &topic).await.unwrap();
    publish(&emulator, &topic, 6).await;

    let (sender, mut seen) = mpsc::unbounded_channel();
    let under_way = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let stop = CancellationToken::new();
    let pulling = tokio::spawn({
        let (stop, under_way, most) = (stop.clone(), Arc::clone(&under_way), Arc::clone(&most));
        async move {
            let subscription = PubSubSubscription::open(&name, &cloud).await.unwrap();
            let times = Arc::new(AtomicUsize::new(0));
            let handle = move |delivery: Delivery| {
                let (sender, times) = (sender.clone(), Arc::clone(&times));
                let (under_way, most) = (Arc::clone(&under_way), Arc::clone(&most));
                async move {
                    most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    // So that others have the time to come, too, if they may.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    under_way.fetch_sub(1, Ordering::SeqCst);
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
    assert_eq!(most.load(Ordering::SeqCst), LIMITS.max_outstanding);
    stop.cancel();
    pulling.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_message_is_held_for_as_long_as_it_takes() {
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
                    // Longer than the subscription's ack deadline of 10 seconds.
                    tokio::time::sleep(Duration::from_secs(14)).await;
                    Acknowledgement::Ack
                }
            };
            let limits = PullLimits { drain_timeout: PATIENCE, ..LIMITS };
            subscription.pull(limits, stop, PullHandler::new(handle)).await
        }
    });
    tokio::time::timeout(PATIENCE, seen.recv()).await.unwrap().unwrap();
    // Stopped in the middle: it is finished, acknowledged, and does not come again.
    stop.cancel();
    pulling.await.unwrap().unwrap();
    assert!(seen.recv().await.is_none(), "it came twice");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(emulator.pull("projects/test/subscriptions/pull").await.unwrap(), []);
}

#[tokio::test]
async fn what_is_not_finished_in_time_goes_back() {
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
async fn a_subscription_that_is_not_there_is_an_error() {
    let Some(emulator) = PubSubEmulator::start().await.unwrap() else { return };
    let cloud = cloud_args(None, Some(&emulator)).unwrap();
    let name = "projects/test/subscriptions/nowhere";
    let subscription = PubSubSubscription::open(name, &cloud).await.unwrap();
    let handler = PullHandler::new(|_| std::future::ready(Acknowledgement::Ack));
    let pull = subscription.pull(LIMITS, CancellationToken::new(), handler);
    let error = tokio::time::timeout(PATIENCE, pull).await.unwrap().unwrap_err();
    assert!(error.to_string().contains(name), "{error}");
}
