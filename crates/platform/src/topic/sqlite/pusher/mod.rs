//! A [`Pusher`] delivers the messages of a topic by HTTP POST.
//!
//! # Refusals and failures
//!
//! A response of success acknowledges a message. Status 500 means that the message itself made the subscriber
//! fail, and counts as a failure. After the maximum number of failures, the [`DeadLetterHandler`] records the
//! failure, and the message becomes a dead letter. Any other response, or none, is a refusal. A refusal is no
//! fault of the message, so a message can be refused any number of times. The pause between two attempts grows
//! up to a maximum. The first acknowledgement after an outage makes the refused messages due.
//!
//! # Crashes
//!
//! A message can crash the process that delivers and handles it. The store therefore remembers which messages
//! are being delivered. After a crash, these messages are suspects, because any of them may be the cause.
//!
//! A suspect is delivered alone: nothing else is delivered at the same time. The other messages that were due
//! at the start go first, so that they are delivered even if a suspect crashes every process. An outcome clears
//! the suspect. A crash during the delivery of a lone suspect counts as a failure, and the pause before the
//! next attempt grows with the number of failures. A requested stop is not a crash. A message that always crashes the process thus becomes a dead
//! letter. If the process is killed for other reasons, the kills would have to hit the short lone delivery of
//! the same message again and again, although every hit makes the pause before it longer.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use axum::http::header::CONTENT_TYPE;
use clap::{Args, builder::RangedU64ValueParser};
use tokio::{
    sync::Notify,
    task::{self, JoinError, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    SqliteTopic,
    backlog::Backlog,
    store::{Claim, ClaimRequest, ClaimedMessage, Store, StoreError},
};
use crate::{
    clock::{millis, unix_millis},
    config::{parse_defaults, parse_seconds},
    telemetry::error_chain,
    topic::{Message, push::Delivery},
};

/// Maximum number of bytes of an error response that become part of the reason for a redelivery.
const MAX_REASON_BYTES: usize = 500;
/// Pause after an error of the store, before the pusher claims messages again.
const STORE_ERROR_PAUSE: Duration = Duration::from_secs(1);
/// Minimum duration of an outage of the subscriber, in multiples of the minimum backoff.
///
/// A subscriber that is busy refuses some messages and acknowledges others. Without a minimum, each of these
/// acknowledgements would make all refused messages due.
const MIN_OUTAGE_BACKOFFS: u32 = 8;

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
    /// Failures of a message itself after which the message becomes a dead letter
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

/// A message that has failed too often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The message.
    pub message: Message,
    /// Id of the message.
    pub message_id: String,
    /// Number of failures.
    pub failures: u32,
    /// Description of the last failure, for the log.
    pub reason: String,
}

/// Records the failure of a message that is not delivered again.
#[async_trait]
pub trait DeadLetterHandler: Send + Sync + 'static {
    /// Records that the message of `letter` failed, where the publisher looks for the result.
    ///
    /// The method may be called again for a letter that is recorded already.
    ///
    /// # Errors
    /// Returns an error if the failure cannot be recorded at present. The message is then kept, and the method
    /// is called again after a pause.
    async fn record(&self, letter: DeadLetter) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// A task that delivers the messages of a topic.
pub struct Pusher {
    context: Arc<PushContext>,
    /// Wakes the pusher when a message is published.
    published: Arc<Notify>,
}

/// State that all pushes share.
struct PushContext {
    store: Arc<Store>,
    backlog: Arc<Backlog>,
    client: reqwest::Client,
    url: String,
    policy: RetryPolicy,
    dead_letters: Arc<dyn DeadLetterHandler>,
    /// Time of the first refusal since the last acknowledgement.
    first_refusal: Mutex<Option<Instant>>,
}

/// Reason why a message was not acknowledged.
enum PushError {
    /// The subscriber did not accept the message at present.
    Refused(String),
    /// The message itself made the subscriber fail.
    Failed(String),
}

/// A message that is being delivered.
#[derive(Clone, Copy)]
struct Lease {
    id: i64,
    attempt: u32,
}

/// The pushes in progress.
#[derive(Default)]
struct Pushes {
    tasks: JoinSet<()>,
    /// The messages that are being delivered, by the task of their push.
    leases: HashMap<task::Id, Lease>,
    /// True if the only message is a suspect.
    is_alone: bool,
}

impl Pusher {
    pub(super) fn new(
        topic: &SqliteTopic,
        url: &str,
        policy: RetryPolicy,
        dead_letters: Arc<dyn DeadLetterHandler>,
    ) -> Self {
        let context = PushContext {
            store: Arc::clone(&topic.store),
            backlog: Arc::clone(&topic.backlog),
            client: topic.client.clone(),
            url: url.to_owned(),
            policy,
            dead_letters,
            first_refusal: Mutex::default(),
        };
        Self { context: Arc::new(context), published: Arc::clone(&topic.published) }
    }

    /// Delivers messages until `stop` is cancelled, then waits for the pushes in progress.
    ///
    /// This method waits for at most the ack deadline. Messages that are not acknowledged by then are
    /// delivered again after the next start.
    pub async fn run(self, stop: CancellationToken) {
        let Self { context, published } = self;
        let started_ms = unix_millis(SystemTime::now());
        if stop.run_until_cancelled(context.recover_interrupted(started_ms)).await.is_none() {
            return;
        }
        let mut pushes = Pushes::default();
        let max_outstanding = context.policy.max_outstanding.max(1);
        while !stop.is_cancelled() {
            let mut pause = None;
            if pushes.has_capacity(max_outstanding) {
                let limit = max_outstanding - pushes.leases.len();
                match context.claim(pushes.leased_ids(), limit, started_ms).await {
                    Ok((Claim { messages, is_alone, .. }, until_next)) => {
                        pause = until_next;
                        pushes.is_alone = is_alone;
                        for message in messages {
                            pushes.start(Arc::clone(&context), message);
                        }
                    }
                    Err(error) => {
                        tracing::error!(error = error_chain(&error), "the topic cannot be read");
                        pause = Some(STORE_ERROR_PAUSE);
                    }
                }
            }
            let has_capacity = pushes.has_capacity(max_outstanding);
            tokio::select! {
                () = stop.cancelled() => {}
                Some(ended) = pushes.tasks.join_next_with_id() => {
                    pushes.end(&context, ended).await;
                    // The leases of other pushes that have ended are released, too, so that one query claims
                    // the next messages for all of them.
                    while let Some(ended) = pushes.tasks.try_join_next_with_id() {
                        pushes.end(&context, ended).await;
                    }
                }
                () = published.notified(), if has_capacity => {}
                () = sleep(pause.unwrap_or_default()), if has_capacity && pause.is_some() => {}
            }
        }
        if pushes.is_alone {
            // If the process ends before the push does, that is not the fault of the suspect.
            let pardoned = context.store.pardon_lone_delivery().await;
            pushes.leases.values().for_each(|lease| log_store_error(lease.id, pardoned.clone()));
        }
        let all_ended = async {
            while let Some(ended) = pushes.tasks.join_next_with_id().await {
                pushes.end(&context, ended).await;
            }
        };
        if timeout(context.policy.ack_deadline, all_ended).await.is_err() {
            tracing::warn!(
                "some pushes have not ended; their messages are delivered again after the next start"
            );
        }
    }
}

impl Pushes {
    /// Returns true if another message may be claimed.
    fn has_capacity(&self, max_outstanding: usize) -> bool {
        if self.is_alone { self.leases.is_empty() } else { self.leases.len() < max_outstanding }
    }

    fn leased_ids(&self) -> HashSet<i64> {
        self.leases.values().map(|lease| lease.id).collect()
    }

    /// Starts the push of `message`, which stays leased until [`Self::end`].
    fn start(&mut self, context: Arc<PushContext>, message: ClaimedMessage) {
        let lease = Lease { id: message.id, attempt: message.attempt };
        let task = self.tasks.spawn(async move { context.deliver(message).await });
        self.leases.insert(task.id(), lease);
    }

    /// Releases the lease of a push that has ended. A panic counts as a failure of the message.
    async fn end(&mut self, context: &PushContext, ended: Result<(task::Id, ()), JoinError>) {
        let task_id = match &ended {
            Ok((task_id, ())) => *task_id,
            Err(error) => error.id(),
        };
        let lease = self.leases.remove(&task_id);
        if let (Err(error), Some(lease)) = (ended, lease) {
            tracing::error!(id = lease.id, %error, "a push panicked");
            context.record_failure(lease, "the push panicked".to_owned()).await;
        }
    }
}

impl PushContext {
    /// Makes suspects of the messages whose delivery a crash interrupted. Tries again until the store responds.
    async fn recover_interrupted(&self, now_ms: i64) {
        loop {
            let policy = self.policy.clone();
            let compute_pause_ms = move |id, failures| millis(retry_pause(&policy, id, failures));
            match self.store.recover_interrupted(now_ms, compute_pause_ms).await {
                Ok(0) => return,
                Ok(suspects) => {
                    tracing::warn!(
                        suspects,
                        "a crash interrupted deliveries; they are repeated one at a time"
                    );
                    return;
                }
                Err(error) => {
                    tracing::error!(error = error_chain(&error), "the topic cannot be read");
                    sleep(STORE_ERROR_PAUSE).await;
                }
            }
        }
    }

    /// Claims messages that are due. Returns the claim, and the time until the next message is due.
    async fn claim(
        &self,
        leased_ids: HashSet<i64>,
        limit: usize,
        started_ms: i64,
    ) -> Result<(Claim, Option<Duration>), StoreError> {
        let now_ms = unix_millis(SystemTime::now());
        let latest_valid_due_ms = now_ms.saturating_add(millis(self.policy.max_backoff));
        let request = ClaimRequest { now_ms, latest_valid_due_ms, started_ms, leased_ids, limit };
        let claim = self.store.claim(request).await?;
        let until_next = claim.next_due_ms.map(|next_due_ms| {
            // Due times are rounded down to milliseconds, so the message may be due up to one millisecond
            // later.
            Duration::from_millis(next_due_ms.saturating_sub(now_ms).unsigned_abs() + 1)
        });
        Ok((claim, until_next))
    }

    /// Pushes a message, and records the outcome in the store.
    async fn deliver(&self, claimed: ClaimedMessage) {
        let lease = Lease { id: claimed.id, attempt: claimed.attempt };
        if claimed.failures >= self.policy.max_attempts {
            // The last failure was a crash, or could not be recorded.
            return self.bury(claimed).await;
        }
        match self.post(&claimed).await {
            Ok(()) => self.record_acknowledgement(lease).await,
            Err(PushError::Refused(reason)) => self.record_refusal(lease, reason).await,
            Err(PushError::Failed(reason)) => {
                self.record_failure(lease, reason.clone()).await;
                let failures = claimed.failures.saturating_add(1);
                if failures >= self.policy.max_attempts {
                    self.bury(ClaimedMessage { failures, last_failure: Some(reason), ..claimed }).await;
                }
            }
        }
    }

    async fn record_acknowledgement(&self, lease: Lease) {
        count_outcome("acknowledged");
        log_store_error(lease.id, self.store.acknowledge(lease.id).await);
        self.backlog.record_acknowledged();
        let outage = self.first_refusal().take().map(|refused_at| refused_at.elapsed());
        if outage.is_some_and(|outage| outage >= self.policy.min_backoff * MIN_OUTAGE_BACKOFFS) {
            match self.store.wake_refused(unix_millis(SystemTime::now())).await {
                Ok(woken) => tracing::info!(woken, "the subscriber accepts messages again"),
                Err(error) => log_store_error(lease.id, Err(error)),
            }
        }
    }

    async fn record_refusal(&self, lease: Lease, reason: String) {
        count_outcome("refused");
        self.first_refusal().get_or_insert_with(Instant::now);
        let pause = retry_pause(&self.policy, lease.id, lease.attempt);
        tracing::info!(
            id = lease.id,
            attempt = lease.attempt,
            reason,
            ?pause,
            "a message will be delivered again"
        );
        log_store_error(lease.id, self.store.reschedule(lease.id, due_after(pause)).await);
    }

    async fn record_failure(&self, lease: Lease, reason: String) {
        count_outcome("failed");
        let pause = retry_pause(&self.policy, lease.id, lease.attempt);
        tracing::warn!(
            id = lease.id,
            attempt = lease.attempt,
            reason,
            ?pause,
            "a message made its push fail"
        );
        log_store_error(lease.id, self.store.add_failure(lease.id, due_after(pause), reason).await);
    }

    /// Records that a message has failed too often, and moves it to the dead letters.
    ///
    /// If the record cannot be made, the message stays, and the record is made later.
    async fn bury(&self, claimed: ClaimedMessage) {
        let ClaimedMessage { id, message, attempt, failures, last_failure, .. } = claimed;
        let reason = last_failure.unwrap_or_default();
        let letter = DeadLetter { message, message_id: id.to_string(), failures, reason: reason.clone() };
        let recorded = match timeout(self.policy.ack_deadline, self.dead_letters.record(letter)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error_chain(&*error)),
            Err(_) => Err(format!("no result within {:?}", self.policy.ack_deadline)),
        };
        match recorded {
            Ok(()) => {
                count_outcome("dead");
                tracing::error!(id, attempt, failures, reason, "a message becomes a dead letter");
                let died_ms = unix_millis(SystemTime::now());
                log_store_error(id, self.store.move_to_dead_letters(id, died_ms, reason).await);
            }
            Err(error) => {
                let pause = retry_pause(&self.policy, id, attempt);
                tracing::warn!(id, error, ?pause, "the failure of a message cannot be recorded yet");
                log_store_error(id, self.store.reschedule(id, due_after(pause)).await);
            }
        }
    }

    fn first_refusal(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.first_refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Posts a message. Only a response with a status of success acknowledges the message.
    async fn post(&self, claimed: &ClaimedMessage) -> Result<(), PushError> {
        let published = UNIX_EPOCH + Duration::from_millis(claimed.published_ms.unsigned_abs());
        let delivery = Delivery {
            data: claimed.message.data.clone(),
            attributes: claimed.message.attributes.clone(),
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
            let mut response =
                request.send().await.map_err(|error| PushError::Refused(error_chain(&error)))?;
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
            let reason = match String::from_utf8_lossy(&text).trim() {
                "" => format!("status {status}"),
                text => format!("status {status}: {text}"),
            };
            Err(if status == 500 { PushError::Failed(reason) } else { PushError::Refused(reason) })
        };
        match timeout(self.policy.ack_deadline, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(PushError::Refused(format!("no response within {:?}", self.policy.ack_deadline))),
        }
    }
}

fn count_outcome(outcome: &'static str) {
    metrics::counter!("topic_push_total", "outcome" => outcome).increment(1);
}

/// Logs that the outcome of a push is not in the store. The message stays due and is delivered again.
fn log_store_error(id: i64, recorded: Result<(), StoreError>) {
    if let Err(error) = recorded {
        tracing::error!(id, error = error_chain(&error), "the outcome of a push cannot be recorded");
    }
}

/// Returns the time after `pause` in milliseconds since the Unix epoch.
fn due_after(pause: Duration) -> i64 {
    unix_millis(SystemTime::now()).saturating_add(millis(pause))
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
