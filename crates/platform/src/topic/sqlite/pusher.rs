//! A [`Pusher`] delivers the messages of a topic by HTTP POST.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::http::header::CONTENT_TYPE;
use clap::{Args, builder::RangedU64ValueParser};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::store::{ClaimedMessage, Store, StoreError};
use crate::{
    clock::{millis, unix_millis},
    config::{parse_defaults, parse_seconds},
    telemetry::error_chain,
    topic::push::Delivery,
};

/// Maximum number of bytes of an error response that become part of the reason for a redelivery.
const MAX_REASON_BYTES: usize = 500;
/// Pause after an error of the store, before the pusher claims messages again.
const STORE_ERROR_PAUSE: Duration = Duration::from_secs(1);

/// Settings that decide when an unacknowledged message is delivered again, and when it becomes a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[group(id = "topic")]
pub struct RetryPolicy {
    /// Seconds that a subscriber has to answer before the message is delivered again
    #[arg(
        id = "topic_ack_deadline",
        long = "topic-ack-deadline",
        env = "TOPIC_ACK_DEADLINE",
        value_name = "SECONDS",
        default_value = "60",
        value_parser = parse_seconds
    )]
    pub ack_deadline: Duration,
    /// Seconds before the second attempt; doubled for each further attempt
    #[arg(
        id = "topic_min_backoff",
        long = "topic-min-backoff",
        env = "TOPIC_MIN_BACKOFF",
        value_name = "SECONDS",
        default_value = "0.1",
        value_parser = parse_seconds
    )]
    pub min_backoff: Duration,
    /// Maximum seconds between two attempts
    #[arg(
        id = "topic_max_backoff",
        long = "topic-max-backoff",
        env = "TOPIC_MAX_BACKOFF",
        value_name = "SECONDS",
        default_value = "60",
        value_parser = parse_seconds
    )]
    pub max_backoff: Duration,
    /// Attempts after which a message becomes a dead letter
    #[arg(
        id = "topic_max_attempts",
        long = "topic-max-attempts",
        env = "TOPIC_MAX_ATTEMPTS",
        value_name = "COUNT",
        default_value = "20",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_attempts: u32,
    /// Maximum number of deliveries in progress
    #[arg(
        id = "topic_max_outstanding",
        long = "topic-max-outstanding",
        env = "TOPIC_MAX_OUTSTANDING",
        value_name = "COUNT",
        default_value = "16",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..)
    )]
    pub max_outstanding: usize,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        parse_defaults()
    }
}

/// A task that delivers the messages of a topic.
#[derive(Debug)]
pub struct Pusher {
    context: Arc<PushContext>,
    /// Wakes the pusher when a message is published.
    published: Arc<Notify>,
}

/// State that all pushes share.
#[derive(Debug)]
struct PushContext {
    store: Arc<Store>,
    client: reqwest::Client,
    url: String,
    policy: RetryPolicy,
}

impl Pusher {
    pub(super) fn new(
        store: Arc<Store>,
        published: Arc<Notify>,
        client: reqwest::Client,
        url: &str,
        policy: RetryPolicy,
    ) -> Self {
        Self { context: Arc::new(PushContext { store, client, url: url.to_owned(), policy }), published }
    }

    /// Delivers messages until `stop` is cancelled, then waits for the pushes in progress.
    ///
    /// This method waits for at most the ack deadline. Messages that are not acknowledged by then are
    /// delivered again after the next start.
    pub async fn run(self, stop: CancellationToken) {
        let Self { context, published } = self;
        let mut pushes = JoinSet::new();
        // Ids of the leased messages, which are being delivered. They are kept only in memory, so that a
        // message can be delivered again immediately after a crash.
        let mut leased_ids = HashSet::new();
        while !stop.is_cancelled() {
            let free_capacity = context.policy.max_outstanding.max(1) - leased_ids.len();
            let mut pause = None;
            if free_capacity > 0 {
                match context.claim(leased_ids.clone(), free_capacity).await {
                    Ok((messages, until_next)) => {
                        pause = until_next;
                        for message in messages {
                            leased_ids.insert(message.id);
                            let context = Arc::clone(&context);
                            pushes.spawn(async move {
                                let id = message.id;
                                context.deliver(message).await;
                                id
                            });
                        }
                    }
                    Err(error) => {
                        tracing::error!(error = error_chain(&error), "the topic cannot be read");
                        pause = Some(STORE_ERROR_PAUSE);
                    }
                }
            }
            let has_capacity = leased_ids.len() < context.policy.max_outstanding.max(1);
            tokio::select! {
                () = stop.cancelled() => {}
                Some(done) = pushes.join_next() => {
                    release_lease(&mut leased_ids, done);
                    // The leases of other pushes that have ended are released, too, so that one query claims
                    // the next messages for all of them.
                    while let Some(done) = pushes.try_join_next() {
                        release_lease(&mut leased_ids, done);
                    }
                }
                () = published.notified(), if has_capacity => {}
                () = sleep(pause.unwrap_or_default()), if has_capacity && pause.is_some() => {}
            }
        }
        let all_done = async { while pushes.join_next().await.is_some() {} };
        if timeout(context.policy.ack_deadline, all_done).await.is_err() {
            tracing::warn!(
                "some pushes have not ended; their messages are delivered again after the next start"
            );
        }
    }
}

/// Releases the lease of a message whose push has ended.
///
/// A push that panicked returns no id, so its message stays leased until the next start. If the message were
/// delivered at once, it would probably cause a panic again.
fn release_lease(leased_ids: &mut HashSet<i64>, done: Result<i64, tokio::task::JoinError>) {
    match done {
        Ok(id) => {
            leased_ids.remove(&id);
        }
        Err(error) => tracing::error!(%error, "a push panicked"),
    }
}

impl PushContext {
    /// Claims messages that are due. Returns the messages, and the time until the next message is due.
    async fn claim(
        &self,
        leased_ids: HashSet<i64>,
        limit: usize,
    ) -> Result<(Vec<ClaimedMessage>, Option<Duration>), StoreError> {
        let now_ms = unix_millis(SystemTime::now());
        let latest_valid_due_ms = now_ms.saturating_add(millis(self.policy.max_backoff));
        let claim = self.store.claim(now_ms, latest_valid_due_ms, leased_ids, limit).await?;
        let until_next = claim.next_due_ms.map(|next_due_ms| {
            // Due times are rounded down to milliseconds, so the message may be due up to one millisecond
            // later.
            Duration::from_millis(next_due_ms.saturating_sub(now_ms).unsigned_abs() + 1)
        });
        Ok((claim.messages, until_next))
    }

    /// Pushes a message, and records the outcome in the store.
    async fn deliver(&self, claimed: ClaimedMessage) {
        let (id, attempt) = (claimed.id, claimed.attempt);
        let outcome = if attempt > self.policy.max_attempts {
            // The process ended during the last attempt, so the outcome of that attempt is unknown.
            Err("no response to the last attempt".to_owned())
        } else {
            self.post(claimed).await
        };
        let store = &self.store;
        let (outcome_label, recorded) = match outcome {
            Ok(()) => ("acknowledged", store.acknowledge(id).await),
            Err(reason) if attempt >= self.policy.max_attempts => {
                tracing::error!(id, attempt, reason, "a message becomes a dead letter");
                ("dead", store.move_to_dead_letters(id, unix_millis(SystemTime::now()), reason).await)
            }
            Err(reason) => {
                let pause = retry_pause(&self.policy, id, attempt);
                tracing::info!(id, attempt, reason, ?pause, "a message will be delivered again");
                let due_ms = unix_millis(SystemTime::now()).saturating_add(millis(pause));
                ("refused", store.reschedule(id, due_ms).await)
            }
        };
        metrics::counter!("topic_push_total", "outcome" => outcome_label).increment(1);
        if let Err(error) = recorded {
            // The message stays due and is delivered again.
            tracing::error!(id, error = error_chain(&error), "the outcome of a push cannot be recorded");
        }
    }

    /// Posts a message. The error is the reason why the message was not acknowledged.
    async fn post(&self, claimed: ClaimedMessage) -> Result<(), String> {
        let published = UNIX_EPOCH + Duration::from_millis(claimed.published_ms.unsigned_abs());
        let delivery = Delivery {
            data: claimed.message.data,
            attributes: claimed.message.attributes,
            message_id: Some(claimed.id.to_string()),
            subscription: None,
            delivery_attempt: Some(claimed.attempt),
        };
        let request = self
            .client
            .post(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .body(delivery.to_envelope(published));
        let exchange = async {
            let mut response = request.send().await.map_err(|error| error_chain(&error))?;
            let status = response.status().as_u16();
            // Pub/Sub treats these statuses as an acknowledgement.
            if matches!(status, 102 | 200 | 201 | 202 | 204) {
                // The body is read so that the connection can be reused. The content of the body, or an error
                // while reading it, does not matter.
                while let Ok(Some(_)) = response.chunk().await {}
                return Ok(());
            }
            let mut text = Vec::new();
            while let Ok(Some(chunk)) = response.chunk().await
                && text.len() < MAX_REASON_BYTES
            {
                text.extend_from_slice(&chunk);
            }
            text.truncate(MAX_REASON_BYTES);
            Err(match String::from_utf8_lossy(&text).trim() {
                "" => format!("status {status}"),
                text => format!("status {status}: {text}"),
            })
        };
        match timeout(self.policy.ack_deadline, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no response within {:?}", self.policy.ack_deadline)),
        }
    }
}

/// Returns the pause after the attempt with the number `attempt`. The first attempt is 1.
///
/// The pause doubles with every attempt up to the maximum backoff. It is then shortened by up to a fifth. The
/// amount depends on the message and the attempt, so that messages that failed together are not delivered
/// together again.
pub(super) fn retry_pause(policy: &RetryPolicy, id: i64, attempt: u32) -> Duration {
    // A shift by more than 31 bits would overflow.
    let doublings = attempt.saturating_sub(1).min(31);
    let full_pause = policy.min_backoff.saturating_mul(1 << doublings).min(policy.max_backoff);
    let mut hasher = DefaultHasher::new();
    (id, attempt).hash(&mut hasher);
    let removed_permille = u32::try_from(hasher.finish() % 200).unwrap_or_default();
    full_pause / 1000 * (1000 - removed_permille)
}
