//! Delivers a topic's messages by HTTP POST.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::http::header::CONTENT_TYPE;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    RetryPolicy, SqliteTopic,
    store::{Claimed, StoreError},
};
use crate::{
    clock::{millis, unix_millis},
    telemetry::error_chain,
    topic::push::Delivery,
};

/// So much of a refusing answer is kept for the dead letter.
const MAX_REASON: usize = 500;
/// Pause after the file could not be read.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Delivers a topic's messages.
#[derive(Debug)]
pub struct Pusher {
    push: Arc<Push>,
}

/// What a single push needs to know.
#[derive(Debug)]
struct Push {
    topic: Arc<SqliteTopic>,
    url: String,
    policy: RetryPolicy,
}

impl Pusher {
    pub(super) fn new(topic: Arc<SqliteTopic>, url: &str, policy: RetryPolicy) -> Self {
        Self { push: Arc::new(Push { topic, url: url.to_owned(), policy }) }
    }

    /// Delivers until `stop` is cancelled, then waits for the pushes under way (at most the ack
    /// deadline of the policy; what is not acknowledged is delivered again after the next start).
    pub async fn run(self, stop: CancellationToken) {
        let push = self.push;
        let mut pushes = JoinSet::new();
        // Only in memory: after a kill -9 there is no lease to wait for.
        let mut under_way = HashSet::new();
        while !stop.is_cancelled() {
            let free = push.policy.max_outstanding.max(1) - under_way.len();
            let mut pause = None;
            if free > 0 {
                match push.claim(under_way.clone(), free).await {
                    Ok((claimed, until_next)) => {
                        pause = until_next;
                        for message in claimed {
                            under_way.insert(message.id);
                            let push = Arc::clone(&push);
                            pushes.spawn(async move {
                                let id = message.id;
                                push.deliver(message).await;
                                id
                            });
                        }
                    }
                    Err(error) => {
                        tracing::error!(error = error_chain(&error), "the topic cannot be read");
                        pause = Some(STORE_PAUSE);
                    }
                }
            }
            let room = under_way.len() < push.policy.max_outstanding.max(1);
            tokio::select! {
                () = stop.cancelled() => {}
                Some(done) = pushes.join_next() => {
                    forget(&mut under_way, done);
                    // Places that came free together are filled by one look at the file.
                    while let Some(done) = pushes.try_join_next() {
                        forget(&mut under_way, done);
                    }
                }
                () = push.topic.published.notified(), if room => {}
                () = sleep(pause.unwrap_or_default()), if room && pause.is_some() => {}
            }
        }
        let all_done = async { while pushes.join_next().await.is_some() {} };
        if timeout(push.policy.ack_deadline, all_done).await.is_err() {
            tracing::warn!("some pushes were still under way; they come again at the next start");
        }
    }
}

/// A push that panicked has no id to tell, and keeps its place until the next start: its message was
/// neither acknowledged nor postponed, and at once again it would only panic again.
fn forget(under_way: &mut HashSet<i64>, done: Result<i64, tokio::task::JoinError>) {
    match done {
        Ok(id) => {
            under_way.remove(&id);
        }
        Err(error) => tracing::error!(%error, "a push ended by itself"),
    }
}

impl Push {
    /// Messages to deliver now, and how long until the next one is due.
    async fn claim(
        &self,
        under_way: HashSet<i64>,
        limit: usize,
    ) -> Result<(Vec<Claimed>, Option<Duration>), StoreError> {
        let now = unix_millis(SystemTime::now());
        let horizon = now.saturating_add(millis(self.policy.max_backoff));
        let due = self.topic.store.claim(now, horizon, under_way, limit).await?;
        let until_next = due.next_ms.map(|next| {
            // One more, because the clock has parts of milliseconds that due times have not.
            Duration::from_millis(next.saturating_sub(now).unsigned_abs() + 1)
        });
        Ok((due.claimed, until_next))
    }

    /// One attempt and what follows from it.
    async fn deliver(&self, claimed: Claimed) {
        let (id, attempt) = (claimed.id, claimed.attempt);
        let outcome = if attempt > self.policy.max_attempts {
            // Killed in the middle of the last attempt.
            Err("no answer to the last attempt".to_owned())
        } else {
            self.post(claimed).await
        };
        let store = &self.topic.store;
        let (word, settled) = match outcome {
            Ok(()) => ("acknowledged", store.acknowledge(id).await),
            Err(reason) if attempt >= self.policy.max_attempts => {
                tracing::error!(id, attempt, reason, "a message is given up");
                ("dead", store.bury(id, unix_millis(SystemTime::now()), reason).await)
            }
            Err(reason) => {
                let pause = backoff(&self.policy, id, attempt);
                tracing::info!(id, attempt, reason, ?pause, "a message will be delivered again");
                let due = unix_millis(SystemTime::now()).saturating_add(millis(pause));
                ("refused", store.postpone(id, due).await)
            }
        };
        metrics::counter!("topic_push_total", "outcome" => word).increment(1);
        if let Err(error) = settled {
            // It stays due, and is delivered again.
            tracing::error!(id, error = error_chain(&error), "an outcome cannot be recorded");
        }
    }

    /// Posts a message; `Err` is why that was no acknowledgement.
    async fn post(&self, claimed: Claimed) -> Result<(), String> {
        let published = UNIX_EPOCH + Duration::from_millis(claimed.published_ms.unsigned_abs());
        let delivery = Delivery {
            data: claimed.message.data,
            attributes: claimed.message.attributes,
            message_id: Some(claimed.id.to_string()),
            subscription: None,
            delivery_attempt: Some(claimed.attempt),
        };
        let request = self
            .topic
            .client
            .post(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .body(delivery.to_envelope(published));
        let exchange = async {
            let mut response = request.send().await.map_err(|error| error_chain(&error))?;
            let status = response.status().as_u16();
            if matches!(status, 102 | 200 | 201 | 202 | 204) {
                // Read to its end so that the connection can be used again; what it says, or that
                // it breaks off, changes nothing.
                while let Ok(Some(_)) = response.chunk().await {}
                return Ok(());
            }
            let mut text = Vec::new();
            while let Ok(Some(chunk)) = response.chunk().await
                && text.len() < MAX_REASON
            {
                text.extend_from_slice(&chunk);
            }
            text.truncate(MAX_REASON);
            Err(match String::from_utf8_lossy(&text).trim() {
                "" => format!("status {status}"),
                text => format!("status {status}: {text}"),
            })
        };
        match timeout(self.policy.ack_deadline, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {:?}", self.policy.ack_deadline)),
        }
    }
}

/// Pause after the given attempt (the first is 1): doubling, bounded, and up to a fifth shorter by
/// message and attempt, so that what failed together does not come back together.
pub(super) fn backoff(policy: &RetryPolicy, id: i64, attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(31);
    let full = policy.min_backoff.saturating_mul(1 << doublings).min(policy.max_backoff);
    let mut hasher = DefaultHasher::new();
    (id, attempt).hash(&mut hasher);
    let shorter = u32::try_from(hasher.finish() % 200).unwrap_or_default();
    full / 1000 * (1000 - shorter)
}
