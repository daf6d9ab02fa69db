//! Pushes one message, and records the outcome.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::http::header::CONTENT_TYPE;
use tokio::time::{Instant, timeout};

use super::{
    super::{
        backlog::Backlog,
        store::{ClaimedMessage, Store, StoreError},
    },
    DeadLetter, DeadLetterHandler, RetryPolicy, retry_pause,
};
use crate::{
    clock::{millis, unix_millis},
    telemetry::error_chain,
    topic::push::Delivery,
};

/// Maximum number of bytes of an error response that become part of the reason for a redelivery.
const MAX_REASON_BYTES: usize = 500;
/// Minimum duration of an outage of the subscriber, in multiples of the minimum backoff.
///
/// A subscriber that is busy refuses some messages and acknowledges others. Without a minimum, each of these
/// acknowledgements would make all refused messages due.
const MIN_OUTAGE_BACKOFFS: u32 = 8;

/// State that all pushes share.
pub(super) struct PushContext {
    pub(super) store: Arc<Store>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) client: reqwest::Client,
    pub(super) url: String,
    pub(super) policy: RetryPolicy,
    pub(super) dead_letters: Arc<dyn DeadLetterHandler>,
    /// Time of the first refusal since the last acknowledgement.
    pub(super) first_refusal: Mutex<Option<Instant>>,
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
pub(super) struct Lease {
    pub(super) id: i64,
    pub(super) attempt: u32,
}

impl PushContext {
    /// Pushes a message, and records the outcome in the store.
    pub(super) async fn deliver(&self, claimed: ClaimedMessage) {
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

    pub(super) async fn record_failure(&self, lease: Lease, reason: String) {
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
pub(super) fn log_store_error(id: i64, recorded: Result<(), StoreError>) {
    if let Err(error) = recorded {
        tracing::error!(id, error = error_chain(&error), "the outcome of a push cannot be recorded");
    }
}

/// Returns the time after `pause` in milliseconds since the Unix epoch.
fn due_after(pause: Duration) -> i64 {
    unix_millis(SystemTime::now()).saturating_add(millis(pause))
}
