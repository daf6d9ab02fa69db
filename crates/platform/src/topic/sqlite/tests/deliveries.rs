//! Tests of deliveries, redeliveries and the stop of the pusher.

use axum::{Router, extract::State, http::HeaderMap, routing::post};
use tokio::sync::mpsc;

use super::*;
use crate::topic::{
    conformance,
    push::Delivery,
    sqlite::{pusher::retry_pause, store::MessageState},
};

#[tokio::test]
async fn topic_passes_the_conformance_suite() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open_topic(&folder).await;
    let mut receiver = Receiver::start(always_ok).await;
    let pusher = start_pusher(&topic, &receiver.url(), policy());
    conformance::check(&*topic, |count| async move {
        let mut deliveries = Vec::new();
        while deliveries.len() < count {
            deliveries.push(receiver.next_delivery().await);
        }
        deliveries
    })
    .await;
    stop_pusher(pusher).await;
}

#[tokio::test]
async fn acknowledged_message_is_delivered_once() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open_topic(&folder).await;
    let mut receiver = Receiver::start(always_ok).await;
    let pusher = start_pusher(&topic, &receiver.url(), policy());
    let id = topic.publish(message("a")).await.unwrap();
    let delivery = receiver.next_delivery().await;
    assert_eq!(delivery.message_id, Some(id));
    assert_eq!(delivery.data, "a");
    assert_eq!(delivery.attributes["name"], "a");
    assert_eq!(delivery.delivery_attempt, Some(1));
    wait_for_stats(&topic, TopicStats::default()).await;
    stop_pusher(pusher).await;
    assert!(receiver.deliveries.try_recv().is_err(), "the message was delivered twice");
}

#[tokio::test]
async fn status_200_201_202_or_204_acknowledges() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open_topic(&folder).await;
    let responder: Responder =
        |number| Response::Status(StatusCode::from_u16([200, 201, 202, 204][number]).unwrap());
    let mut receiver = Receiver::start(responder).await;
    let pusher = start_pusher(&topic, &receiver.url(), policy());
    for text in ["a", "b", "c", "d"] {
        topic.publish(message(text)).await.unwrap();
        receiver.next_delivery().await;
    }
    wait_for_stats(&topic, TopicStats::default()).await;
    stop_pusher(pusher).await;
}

#[tokio::test]
async fn any_other_status_causes_a_redelivery() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open_topic(&folder).await;
    let responder: Responder =
        |number| Response::Status(StatusCode::from_u16([503, 429, 500, 301, 203, 400, 200][number]).unwrap());
    let mut receiver = Receiver::start(responder).await;
    let pusher = start_pusher(&topic, &receiver.url(), policy());
    topic.publish(message("a")).await.unwrap();
    for attempt in 1..=7 {
        let delivery = receiver.next_delivery().await;
        assert_eq!((delivery.data.as_ref(), delivery.delivery_attempt), (&b"a"[..], Some(attempt)));
    }
    wait_for_stats(&topic, TopicStats::default()).await;
    stop_pusher(pusher).await;
}

#[tokio::test]
async fn message_is_delivered_once_a_receiver_is_reachable() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open_topic(&folder).await;
    let unused_port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/push", unused_port.local_addr().unwrap());
    drop(unused_port);
    let pusher = start_pusher(&topic, &url, policy());
    let id = publish(&topic, "a").await;
    wait_until(|| async { topic.store.state(id).await.unwrap().attempts >= 3 }).await;
    stop_pusher(pusher).await;
    let mut receiver = Receiver::start(always_ok).await;
    let pusher = start_pusher(&topic, &receiver.url(), policy());
    assert_eq!(receiver.next_delivery().await.data, "a");
    stop_pusher(pusher).await;
}

#[tokio::test]
async fn response_after_the_ack_deadline_causes_a_redelivery() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open_topic(&folder).await;
    let responder: Responder = |number| {
        if number == 0 { Response::Never } else { always_ok(number) }
    };
    let mut receiver = Receiver::start(responder).await;
    let short_deadline = RetryPolicy { ack_deadline: Duration::from_millis(100), ..policy() };
    let pusher = start_pusher(&topic, &receiver.url(), short_deadline);
    topic.publish(message("a")).await.unwrap();
    assert_eq!(receiver.next_delivery().await.delivery_attempt, Some(1));
    assert_eq!(receiver.next_delivery().await.delivery_attempt, Some(2));
    wait_for_stats(&topic, TopicStats::default()).await;
    stop_pusher(pusher).await;
}

#[test]
fn pause_doubles_up_to_the_maximum_with_jitter() {
    let policy =
        RetryPolicy { min_backoff: Duration::from_secs(1), max_backoff: Duration::from_secs(60), ..policy() };
    for id in 0..100 {
        for (attempt, full_seconds) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (u32::MAX, 60)] {
            let full = Duration::from_secs(full_seconds);
            let pause = retry_pause(&policy, id, attempt);
            assert!(pause <= full && pause > full * 79 / 100, "{id} {attempt}: {pause:?}");
        }
    }
    let distinct_pauses: BTreeSet<_> = (0..100).map(|id| retry_pause(&policy, id, 1)).collect();
    assert!(distinct_pauses.len() > 50, "{distinct_pauses:?}");
}

#[tokio::test]
async fn refused_message_becomes_due_after_the_retry_pause() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open_topic(&folder).await;
    let mut receiver = Receiver::start(always_503).await;
    let hour = Duration::from_secs(3600);
    let long_backoff = RetryPolicy { min_backoff: hour, max_backoff: 8 * hour, ..policy() };
    let id = publish(&topic, "a").await;
    for attempt in 1..=3 {
        let before = unix_millis(SystemTime::now());
        let pusher = start_pusher(&topic, &receiver.url(), long_backoff.clone());
        receiver.next_delivery().await;
        stop_pusher(pusher).await;
        let after = unix_millis(SystemTime::now());
        let MessageState { due_ms: due, attempts, .. } = topic.store.state(id).await.unwrap();
        let pause = crate::clock::millis(retry_pause(&long_backoff, id, attempt));
        assert_eq!(attempts, attempt);
        assert!((before + pause..=after + pause).contains(&due), "{attempt}: {due}");
        topic.store.reschedule(id, 0).await.unwrap();
    }
}

#[tokio::test]
async fn message_is_delivered_after_the_clock_was_set_back() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open_topic(&folder).await;
    let id = publish(&topic, "a").await;
    topic.store.reschedule(id, i64::MAX).await.unwrap();
    let mut receiver = Receiver::start(always_ok).await;
    let pusher = start_pusher(&topic, &receiver.url(), policy());
    assert_eq!(receiver.next_delivery().await.data, "a");
    stop_pusher(pusher).await;
}

#[tokio::test]
async fn stopped_pusher_finishes_the_pushes_in_progress_and_starts_no_others() {
    static GATE: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(0);
    async fn gated(State(arrived): State<mpsc::UnboundedSender<()>>) -> StatusCode {
        arrived.send(()).unwrap();
        GATE.acquire().await.unwrap().forget();
        StatusCode::NO_CONTENT
    }
    let (sender, mut arrived) = mpsc::unbounded_channel();
    let app = Router::new().route("/push", post(gated)).with_state(sender);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/push", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });

    let folder = tempfile::tempdir().unwrap();
    let topic = open_topic(&folder).await;
    for text in ["a", "b", "c"] {
        topic.publish(message(text)).await.unwrap();
    }
    let (stop, running) = start_pusher(&topic, &url, RetryPolicy { max_outstanding: 2, ..policy() });
    arrived.recv().await.unwrap();
    arrived.recv().await.unwrap();
    stop.cancel();
    tokio::task::yield_now().await;
    assert!(!running.is_finished(), "the pusher stopped although two pushes are in progress");
    GATE.add_permits(2);
    timeout(TEST_TIMEOUT, running).await.unwrap().unwrap();
    assert_eq!(topic.store.stats().await.unwrap(), TopicStats { pending: 1, dead: 0 });
    assert!(arrived.try_recv().is_err(), "a third push was started");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_2000_messages_is_delivered_once_and_at_most_eight_at_a_time() {
    #[derive(Default)]
    struct Concurrency {
        current: AtomicUsize,
        max: AtomicUsize,
    }
    async fn counted(
        State((concurrency, seen)): State<(Arc<Concurrency>, mpsc::UnboundedSender<String>)>,
        headers: HeaderMap,
        body: Bytes,
    ) -> StatusCode {
        let current = concurrency.current.fetch_add(1, Ordering::SeqCst) + 1;
        concurrency.max.fetch_max(current, Ordering::SeqCst);
        tokio::task::yield_now().await;
        seen.send(Delivery::parse(&headers, &body).unwrap().message_id.unwrap()).unwrap();
        concurrency.current.fetch_sub(1, Ordering::SeqCst);
        StatusCode::OK
    }
    let concurrency = Arc::new(Concurrency::default());
    let (sender, mut seen) = mpsc::unbounded_channel();
    let app = Router::new().route("/push", post(counted)).with_state((Arc::clone(&concurrency), sender));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/push", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });

    let folder = tempfile::tempdir().unwrap();
    let topic = open_topic(&folder).await;
    let pusher = start_pusher(&topic, &url, RetryPolicy { max_outstanding: 8, ..policy() });
    let mut publishing = tokio::task::JoinSet::new();
    for number in 0..2000 {
        let topic = Arc::clone(&topic);
        publishing.spawn(async move { topic.publish(message(&number.to_string())).await.unwrap() });
    }
    let published: BTreeSet<String> = publishing.join_all().await.into_iter().collect();
    assert_eq!(published.len(), 2000);
    wait_for_stats(&topic, TopicStats::default()).await;
    stop_pusher(pusher).await;
    let mut delivered = BTreeSet::new();
    while let Ok(id) = seen.try_recv() {
        assert!(delivered.insert(id), "a message was delivered twice although it was acknowledged");
    }
    assert_eq!(delivered, published);
    let max = concurrency.max.load(Ordering::SeqCst);
    assert!((2..=8).contains(&max), "{max} pushes at the same time");
}
