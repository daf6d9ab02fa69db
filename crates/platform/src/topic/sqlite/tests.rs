//! The topic and its push, against a real receiver.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{pusher::backoff, *};
use crate::topic::{conformance, push::Delivery};

/// Far longer than anything here takes; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pauses that no test waits for.
fn policy() -> RetryPolicy {
    RetryPolicy {
        ack_deadline: PATIENCE,
        min_backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(2),
        max_attempts: 20,
        max_outstanding: 4,
    }
}

/// What a receiver does with its n-th push (counted from 0).
type Answer = fn(usize) -> Reaction;

enum Reaction {
    Say(StatusCode),
    SayNothing,
}

/// A push endpoint that passes on what it got.
struct Receiver {
    address: SocketAddr,
    deliveries: mpsc::UnboundedReceiver<Delivery>,
}

struct Endpoint {
    count: AtomicUsize,
    answer: Answer,
    deliveries: mpsc::UnboundedSender<Delivery>,
}

impl Receiver {
    async fn start(answer: Answer) -> Self {
        let (sender, deliveries) = mpsc::unbounded_channel();
        let endpoint = Arc::new(Endpoint { count: AtomicUsize::new(0), answer, deliveries: sender });
        let app = Router::new().route("/push", post(receive)).with_state(endpoint);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, deliveries }
    }

    fn url(&self) -> String {
        format!("http://{}/push", self.address)
    }

    async fn next(&mut self) -> Delivery {
        timeout(PATIENCE, self.deliveries.recv()).await.expect("a push in time").unwrap()
    }
}

async fn receive(State(endpoint): State<Arc<Endpoint>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!(headers["content-type"], "application/json");
    let number = endpoint.count.fetch_add(1, Ordering::SeqCst);
    endpoint.deliveries.send(Delivery::parse(&headers, &body).unwrap()).unwrap();
    match (endpoint.answer)(number) {
        Reaction::Say(status) => status,
        Reaction::SayNothing => std::future::pending().await,
    }
}

fn ok(_: usize) -> Reaction {
    Reaction::Say(StatusCode::OK)
}

fn never_ok(_: usize) -> Reaction {
    Reaction::Say(StatusCode::SERVICE_UNAVAILABLE)
}

async fn open(folder: &TempDir) -> Arc<SqliteTopic> {
    SqliteTopic::open(&folder.path().join("topic.sqlite")).await.unwrap()
}

fn start(topic: &Arc<SqliteTopic>, url: &str, policy: RetryPolicy) -> (CancellationToken, JoinHandle<()>) {
    let stop = CancellationToken::new();
    (stop.clone(), tokio::spawn(topic.pusher(url, policy).run(stop)))
}

async fn stop((stop, running): (CancellationToken, JoinHandle<()>)) {
    stop.cancel();
    timeout(PATIENCE, running).await.expect("stops in time").unwrap();
}

fn message(text: &str) -> Message {
    let attributes = BTreeMap::from([("name".to_owned(), text.to_owned())]);
    Message { data: Bytes::copy_from_slice(text.as_bytes()), attributes }
}

/// Asks again and again, because what is waited for leaves no other trace than this.
async fn eventually<F: Future<Output = bool>>(mut is_so: impl FnMut() -> F) {
    let polling = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, polling).await.expect("in time");
}

async fn wait_for_stats(topic: &SqliteTopic, stats: TopicStats) {
    eventually(|| async { topic.stats().await.unwrap() == stats }).await;
}

#[tokio::test]
async fn conforms() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open(&folder).await;
    let mut receiver = Receiver::start(ok).await;
    let pusher = start(&topic, &receiver.url(), policy());
    conformance::check(&*topic, |count| async move {
        let mut deliveries = Vec::new();
        while deliveries.len() < count {
            deliveries.push(receiver.next().await);
        }
        deliveries
    })
    .await;
    stop(pusher).await;
}

#[tokio::test]
async fn a_message_is_delivered_once_when_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open(&folder).await;
    let mut receiver = Receiver::start(ok).await;
    let pusher = start(&topic, &receiver.url(), policy());
    let id = topic.publish(message("a")).await.unwrap();
    let delivery = receiver.next().await;
    assert_eq!(delivery.message_id, Some(id));
    assert_eq!(delivery.data, "a");
    assert_eq!(delivery.attributes["name"], "a");
    assert_eq!(delivery.delivery_attempt, Some(1));
    wait_for_stats(&topic, TopicStats::default()).await;
    stop(pusher).await;
    assert!(receiver.deliveries.try_recv().is_err(), "it came a second time");
}

#[tokio::test]
async fn every_status_that_pubsub_takes_for_an_acknowledgement() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open(&folder).await;
    let statuses: Answer =
        |number| Reaction::Say(StatusCode::from_u16([200, 201, 202, 204][number]).unwrap());
    let mut receiver = Receiver::start(statuses).await;
    let pusher = start(&topic, &receiver.url(), policy());
    for text in ["a", "b", "c", "d"] {
        topic.publish(message(text)).await.unwrap();
        receiver.next().await;
    }
    wait_for_stats(&topic, TopicStats::default()).await;
    stop(pusher).await;
}

#[tokio::test]
async fn a_refused_message_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open(&folder).await;
    let answer: Answer =
        |number| Reaction::Say(StatusCode::from_u16([503, 429, 500, 301, 203, 400, 200][number]).unwrap());
    let mut receiver = Receiver::start(answer).await;
    let pusher = start(&topic, &receiver.url(), policy());
    topic.publish(message("a")).await.unwrap();
    for attempt in 1..=7 {
        let delivery = receiver.next().await;
        assert_eq!((delivery.data.as_ref(), delivery.delivery_attempt), (&b"a"[..], Some(attempt)));
    }
    wait_for_stats(&topic, TopicStats::default()).await;
    stop(pusher).await;
}

#[tokio::test]
async fn a_receiver_that_is_not_there_yet() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open(&folder).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/push", free.local_addr().unwrap());
    drop(free);
    let patient = RetryPolicy { max_attempts: u32::MAX, ..policy() };
    let pusher = start(&topic, &url, patient);
    let id: i64 = topic.publish(message("a")).await.unwrap().parse().unwrap();
    eventually(|| async { topic.store.due_and_attempts(id).await.unwrap().1 >= 3 }).await;
    stop(pusher).await;
    let mut receiver = Receiver::start(ok).await;
    let pusher = start(&topic, &receiver.url(), policy_for_ever());
    assert_eq!(receiver.next().await.data, "a");
    stop(pusher).await;
}

fn policy_for_ever() -> RetryPolicy {
    RetryPolicy { max_attempts: u32::MAX, ..policy() }
}

#[tokio::test]
async fn an_answer_that_is_too_slow_counts_as_none() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open(&folder).await;
    let answer: Answer = |number| {
        if number == 0 { Reaction::SayNothing } else { ok(number) }
    };
    let mut receiver = Receiver::start(answer).await;
    let impatient = RetryPolicy { ack_deadline: Duration::from_millis(100), ..policy_for_ever() };
    let pusher = start(&topic, &receiver.url(), impatient);
    topic.publish(message("a")).await.unwrap();
    assert_eq!(receiver.next().await.delivery_attempt, Some(1));
    assert_eq!(receiver.next().await.delivery_attempt, Some(2));
    wait_for_stats(&topic, TopicStats::default()).await;
    stop(pusher).await;
}

#[tokio::test]
async fn a_message_that_is_never_acknowledged_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open(&folder).await;
    let mut receiver = Receiver::start(never_ok).await;
    let pusher = start(&topic, &receiver.url(), RetryPolicy { max_attempts: 3, ..policy() });
    let id = topic.publish(message("a")).await.unwrap();
    for _ in 0..3 {
        receiver.next().await;
    }
    wait_for_stats(&topic, TopicStats { pending: 0, dead: 1 }).await;
    stop(pusher).await;
    assert!(receiver.deliveries.try_recv().is_err(), "it came a fourth time");
    let dead = topic.store.dead(id.parse().unwrap()).await;
    assert_eq!(dead, Some((3, "status 503".to_owned())));
}

#[tokio::test]
async fn a_message_whose_last_attempt_was_cut_short_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open(&folder).await;
    let id: i64 = topic.publish(message("a")).await.unwrap().parse().unwrap();
    let now = unix_millis(SystemTime::now());
    for attempt in 1..=2 {
        let due = topic.store.claim(now, now, Default::default(), 1).await.unwrap();
        assert_eq!(due.claimed[0].attempt, attempt);
    }
    let mut receiver = Receiver::start(ok).await;
    let pusher = start(&topic, &receiver.url(), RetryPolicy { max_attempts: 2, ..policy() });
    wait_for_stats(&topic, TopicStats { pending: 0, dead: 1 }).await;
    stop(pusher).await;
    assert!(receiver.deliveries.try_recv().is_err());
    assert_eq!(topic.store.dead(id).await.unwrap().1, "no answer to the last attempt");
}

#[test]
fn pauses_double_up_to_the_bound_with_jitter() {
    let policy =
        RetryPolicy { min_backoff: Duration::from_secs(1), max_backoff: Duration::from_secs(60), ..policy() };
    for id in 0..100 {
        for (attempt, full) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (u32::MAX, 60)] {
            let full = Duration::from_secs(full);
            let pause = backoff(&policy, id, attempt);
            assert!(pause <= full && pause > full * 79 / 100, "{id} {attempt}: {pause:?}");
        }
    }
    let different: BTreeSet<_> = (0..100).map(|id| backoff(&policy, id, 1)).collect();
    assert!(different.len() > 50, "{different:?}");
}

#[tokio::test]
async fn a_refused_message_is_due_after_the_pause() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open(&folder).await;
    let mut receiver = Receiver::start(never_ok).await;
    let hour = Duration::from_secs(3600);
    let slow = RetryPolicy { min_backoff: hour, max_backoff: 8 * hour, ..policy() };
    let id: i64 = topic.publish(message("a")).await.unwrap().parse().unwrap();
    for attempt in 1..=3 {
        let before = unix_millis(SystemTime::now());
        let pusher = start(&topic, &receiver.url(), slow.clone());
        receiver.next().await;
        stop(pusher).await;
        let after = unix_millis(SystemTime::now());
        let (due, attempts) = topic.store.due_and_attempts(id).await.unwrap();
        let pause = crate::clock::millis(backoff(&slow, id, attempt));
        assert_eq!(attempts, attempt);
        assert!((before + pause..=after + pause).contains(&due), "{attempt}: {due}");
        topic.store.postpone(id, 0).await.unwrap();
    }
}

#[tokio::test]
async fn a_clock_that_was_set_back_strands_no_message() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open(&folder).await;
    let id: i64 = topic.publish(message("a")).await.unwrap().parse().unwrap();
    topic.store.postpone(id, i64::MAX).await.unwrap();
    let mut receiver = Receiver::start(ok).await;
    let pusher = start(&topic, &receiver.url(), policy());
    assert_eq!(receiver.next().await.data, "a");
    stop(pusher).await;
}

#[tokio::test]
async fn what_was_not_acknowledged_is_delivered_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open(&folder).await;
    for text in ["a", "b", "c"] {
        topic.publish(message(text)).await.unwrap();
    }
    let mut silent = Receiver::start(|_| Reaction::SayNothing).await;
    let (_, running) = start(&topic, &silent.url(), RetryPolicy { max_outstanding: 2, ..policy() });
    silent.next().await;
    silent.next().await;
    // As a crash ends it: nothing is settled.
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    drop(topic);

    let topic = open(&folder).await;
    assert_eq!(topic.stats().await.unwrap(), TopicStats { pending: 3, dead: 0 });
    let mut receiver = Receiver::start(ok).await;
    let pusher = start(&topic, &receiver.url(), policy());
    let mut delivered = BTreeMap::new();
    for _ in 0..3 {
        let delivery = receiver.next().await;
        delivered.insert(delivery.data, delivery.delivery_attempt);
    }
    let expected = [("a", 2), ("b", 2), ("c", 1)];
    assert_eq!(delivered, expected.map(|(text, n)| (Bytes::from(text), Some(n))).into());
    stop(pusher).await;
    let id = topic.publish(message("d")).await.unwrap();
    assert_eq!(id, "4", "ids are not used again");
}

#[tokio::test]
async fn stopping_waits_for_what_is_under_way_and_starts_nothing_new() {
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
    let topic = open(&folder).await;
    for text in ["a", "b", "c"] {
        topic.publish(message(text)).await.unwrap();
    }
    let (stop, running) = start(&topic, &url, RetryPolicy { max_outstanding: 2, ..policy() });
    arrived.recv().await.unwrap();
    arrived.recv().await.unwrap();
    stop.cancel();
    tokio::task::yield_now().await;
    assert!(!running.is_finished(), "two pushes are under way");
    GATE.add_permits(2);
    timeout(PATIENCE, running).await.unwrap().unwrap();
    assert_eq!(topic.stats().await.unwrap(), TopicStats { pending: 1, dead: 0 });
    assert!(arrived.try_recv().is_err(), "a third push was started");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_messages_eight_at_once() {
    #[derive(Default)]
    struct Load {
        now: AtomicUsize,
        most: AtomicUsize,
    }
    async fn counted(
        State((load, seen)): State<(Arc<Load>, mpsc::UnboundedSender<String>)>,
        headers: HeaderMap,
        body: Bytes,
    ) -> StatusCode {
        let now = load.now.fetch_add(1, Ordering::SeqCst) + 1;
        load.most.fetch_max(now, Ordering::SeqCst);
        tokio::task::yield_now().await;
        seen.send(Delivery::parse(&headers, &body).unwrap().message_id.unwrap()).unwrap();
        load.now.fetch_sub(1, Ordering::SeqCst);
        StatusCode::OK
    }
    let load = Arc::new(Load::default());
    let (sender, mut seen) = mpsc::unbounded_channel();
    let app = Router::new().route("/push", post(counted)).with_state((Arc::clone(&load), sender));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/push", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });

    let folder = tempfile::tempdir().unwrap();
    let topic = open(&folder).await;
    let pusher = start(&topic, &url, RetryPolicy { max_outstanding: 8, ..policy() });
    let mut publishing = tokio::task::JoinSet::new();
    for number in 0..2000 {
        let topic = Arc::clone(&topic);
        publishing.spawn(async move { topic.publish(message(&number.to_string())).await.unwrap() });
    }
    let published: BTreeSet<String> = publishing.join_all().await.into_iter().collect();
    assert_eq!(published.len(), 2000);
    wait_for_stats(&topic, TopicStats::default()).await;
    stop(pusher).await;
    let mut delivered = BTreeSet::new();
    while let Ok(id) = seen.try_recv() {
        assert!(delivered.insert(id), "delivered twice though acknowledged");
    }
    assert_eq!(delivered, published);
    let most = load.most.load(Ordering::SeqCst);
    assert!((2..=8).contains(&most), "{most} at once");
}

#[tokio::test]
async fn the_file_is_written_durably() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open(&folder).await;
    let pragma = |name: &'static str| {
        topic.store.call(move |connection| {
            connection.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
        })
    };
    assert_eq!(pragma("journal_mode").await.unwrap(), "wal".to_owned().into());
    let full = rusqlite::types::Value::Integer(2);
    assert_eq!(pragma("synchronous").await.unwrap(), full);
}

#[tokio::test]
async fn a_file_that_is_no_database() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("topic.sqlite");
    std::fs::write(&path, "no database ".repeat(1000)).unwrap();
    assert!(SqliteTopic::open(&path).await.is_err());
    assert!(SqliteTopic::open(Path::new("/dev/null/topic")).await.is_err());
}
