//! Tests of the topic and its pusher, which delivers to an HTTP server in the test.

mod crashes;
mod damaged_rows;
mod deliveries;
mod failures;
mod file;
mod receiver;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{body::Bytes, http::StatusCode};
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use self::receiver::{GatedReceiver, Receiver, Responder, Response, always_503, always_ok};
use super::{store::TopicStats, *};

/// Maximum time that a test waits for anything. Only a failing test reaches it.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Returns a policy with pauses too short to delay a test.
fn policy() -> RetryPolicy {
    RetryPolicy {
        ack_deadline: TEST_TIMEOUT,
        min_backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(2),
        max_attempts: 20,
        max_outstanding: 4,
    }
}

/// Returns the attribute `name` as the key of a message.
fn message_key(message: &Message) -> Option<String> {
    message.attributes.get("name").cloned()
}

async fn open_topic(folder: &TempDir) -> Arc<SqliteTopic> {
    let path = folder.path().join("topic.sqlite");
    SqliteTopic::open(&path, BacklogPolicy::default(), message_key).await.unwrap()
}

/// Records dead letters in memory.
#[derive(Default)]
struct Records {
    letters: Mutex<Vec<DeadLetter>>,
    /// Number of further calls that must panic.
    panics_left: AtomicUsize,
    /// Number of further calls that must fail.
    errors_left: AtomicUsize,
}

impl Records {
    fn letters(&self) -> Vec<DeadLetter> {
        self.letters.lock().unwrap().clone()
    }
}

/// Decrements `counter` and returns true, unless it is 0.
fn count_down(counter: &AtomicUsize) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

#[async_trait]
impl DeadLetterHandler for Records {
    async fn record(&self, letter: DeadLetter) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        assert!(!count_down(&self.panics_left), "panic for this test");
        if count_down(&self.errors_left) {
            return Err("the bucket is on fire".into());
        }
        self.letters.lock().unwrap().push(letter);
        Ok(())
    }
}

type RunningPusher = (CancellationToken, JoinHandle<()>);

fn start_pusher(topic: &Arc<SqliteTopic>, url: &str, policy: RetryPolicy) -> RunningPusher {
    start_pusher_with(topic, url, policy, Arc::default())
}

fn start_pusher_with(
    topic: &Arc<SqliteTopic>,
    url: &str,
    policy: RetryPolicy,
    records: Arc<Records>,
) -> RunningPusher {
    let stop = CancellationToken::new();
    (stop.clone(), tokio::spawn(topic.pusher(url, policy, records).run(stop)))
}

async fn stop_pusher((stop, running): RunningPusher) {
    stop.cancel();
    timeout(TEST_TIMEOUT, running).await.expect("the pusher should stop in time").unwrap();
}

fn message(text: &str) -> Message {
    let attributes = BTreeMap::from([("name".to_owned(), text.to_owned())]);
    Message { data: Bytes::copy_from_slice(text.as_bytes()), attributes }
}

/// Polls until `condition` returns true.
async fn wait_until<F: Future<Output = bool>>(mut condition: impl FnMut() -> F) {
    let polling = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(TEST_TIMEOUT, polling).await.expect("the condition should become true in time");
}

async fn wait_for_stats(topic: &SqliteTopic, stats: TopicStats) {
    wait_until(|| async { topic.store.stats().await.unwrap() == stats }).await;
}

async fn publish(topic: &SqliteTopic, text: &str) -> i64 {
    topic.publish(message(text)).await.unwrap().parse().unwrap()
}
