//! A [`Backlog`] measures how long messages wait, and slows down publishers that are faster than the subscriber.
//!
//! A topic is *congested* while the oldest due message waits longer than the target delay although the
//! subscriber acknowledges messages. Each acknowledgement then permits one new message, and only every second
//! one if the delay is far above the target. So the backlog settles near the target.
//!
//! During an outage of the subscriber, nothing is acknowledged, and the topic is not congested: it accepts
//! messages until the maximum number is pending.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::Args;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout},
};

use super::store::BacklogSample;
use crate::{
    config::{parse_defaults, parse_seconds},
    topic::{PublishPermit, TopicError},
};

/// Maximum number of permits that are kept for later publishers. More would only add to a burst.
const MAX_KEPT_PERMITS: usize = 16;
/// Retry-After while the rate of acknowledgements is unknown.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(5);
const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);
/// Weight of the latest measurement in the average rate of acknowledgements.
const RATE_WEIGHT: f64 = 0.2;

/// Settings that bound the messages of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[group(id = "topic_backlog")]
pub struct BacklogPolicy {
    /// Maximum number of undelivered messages; further uploads are refused (429)
    #[arg(
        id = "topic_max_pending",
        long = "topic-max-pending",
        env = "TOPIC_MAX_PENDING",
        value_name = "COUNT",
        default_value = "100000",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub max_pending: u64,
    /// Seconds that a message may wait before uploads are slowed down to the rate of classification
    #[arg(
        id = "topic_target_delay",
        long = "topic-target-delay",
        env = "TOPIC_TARGET_DELAY",
        value_name = "SECONDS",
        default_value = "5",
        value_parser = parse_seconds
    )]
    pub target_delay: Duration,
}

impl Default for BacklogPolicy {
    fn default() -> Self {
        parse_defaults()
    }
}

/// The measured backlog of a topic, and the permits to publish messages.
#[derive(Debug)]
pub(super) struct Backlog {
    policy: BacklogPolicy,
    pending: AtomicU64,
    flow: Mutex<Flow>,
    is_congested: watch::Sender<bool>,
    permits: Arc<Semaphore>,
}

#[derive(Debug)]
struct Flow {
    measured_at: Instant,
    last_acknowledged_at: Option<Instant>,
    /// Number of acknowledgements since the last measurement.
    acknowledged: u32,
    /// Average number of acknowledgements per second.
    rate: Option<f64>,
    /// True if only every second acknowledgement permits a message.
    is_far_behind: bool,
    /// True if the next acknowledgement permits no message.
    skips_next: bool,
}

impl Backlog {
    pub(super) fn new(policy: BacklogPolicy) -> Self {
        let flow = Flow {
            measured_at: Instant::now(),
            last_acknowledged_at: None,
            acknowledged: 0,
            rate: None,
            is_far_behind: false,
            skips_next: false,
        };
        Self {
            policy,
            pending: AtomicU64::default(),
            flow: Mutex::new(flow),
            is_congested: watch::Sender::new(false),
            permits: Arc::new(Semaphore::new(0)),
        }
    }

    /// Counts a published message. The next measurement corrects the number.
    pub(super) fn record_published(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an acknowledged message, and permits another one if the topic is congested.
    pub(super) fn record_acknowledged(&self) {
        // The number of pending messages is corrected by the next measurement.
        let _ = self.pending.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        let mut flow = self.lock_flow();
        flow.acknowledged = flow.acknowledged.saturating_add(1);
        flow.last_acknowledged_at = Some(Instant::now());
        if !*self.is_congested.borrow() {
            return;
        }
        flow.skips_next = flow.is_far_behind && !flow.skips_next;
        if !flow.skips_next && self.permits.available_permits() < MAX_KEPT_PERMITS {
            self.permits.add_permits(1);
        }
    }

    /// Updates the state of the topic from a measurement at the time `now_ms`.
    pub(super) fn update(&self, sample: BacklogSample, now_ms: i64) {
        let BacklogSample { pending, oldest_published_ms, due_since_ms } = sample;
        self.pending.store(pending, Ordering::Relaxed);
        let age = |since_ms: Option<i64>| {
            since_ms.map_or(Duration::ZERO, |since_ms| {
                Duration::from_millis(u64::try_from(now_ms.saturating_sub(since_ms)).unwrap_or_default())
            })
        };
        let delay = age(due_since_ms);
        let mut flow = self.lock_flow();
        let seconds = flow.measured_at.elapsed().as_secs_f64();
        if seconds > 0.0 {
            let latest = f64::from(flow.acknowledged) / seconds;
            flow.rate = Some(flow.rate.map_or(latest, |rate| rate + RATE_WEIGHT * (latest - rate)));
            flow.acknowledged = 0;
            flow.measured_at = Instant::now();
        }
        // Without a recent acknowledgement, the subscriber is not slow but out of service.
        let is_in_service =
            flow.last_acknowledged_at.is_some_and(|at| at.elapsed() <= 2 * self.policy.target_delay);
        let is_congested = is_in_service && delay > self.policy.target_delay;
        flow.is_far_behind = delay > 2 * self.policy.target_delay;
        drop(flow);
        self.is_congested
            .send_if_modified(|congested| std::mem::replace(congested, is_congested) != is_congested);
        if !is_congested {
            self.permits.forget_permits(MAX_KEPT_PERMITS);
        }
        metrics::gauge!("topic_pending_messages").set(pending as f64);
        metrics::gauge!("topic_oldest_message_age_seconds").set(age(oldest_published_ms).as_secs_f64());
        metrics::gauge!("topic_delivery_delay_seconds").set(delay.as_secs_f64());
    }

    /// Returns an error if the maximum number of messages is pending.
    pub(super) fn check_capacity(&self) -> Result<(), TopicError> {
        if self.pending.load(Ordering::Relaxed) < self.policy.max_pending {
            Ok(())
        } else {
            Err(TopicError::Full { retry_after: self.retry_after() })
        }
    }

    /// Waits at most `max_wait` for the permit to publish a message.
    pub(super) async fn acquire_publish_permit(
        &self,
        max_wait: Duration,
    ) -> Result<PublishPermit, TopicError> {
        self.check_capacity()?;
        let mut is_congested = self.is_congested.subscribe();
        if !*is_congested.borrow() {
            return Ok(PublishPermit::default());
        }
        let waiting = async {
            tokio::select! {
                // The semaphore is never closed.
                permit = Arc::clone(&self.permits).acquire_owned() => PublishPermit::new(permit.ok()),
                _ = is_congested.wait_for(|congested| !congested) => PublishPermit::default(),
            }
        };
        let expired = |_| TopicError::Full { retry_after: self.retry_after() };
        timeout(max_wait, waiting).await.map_err(expired)
    }

    /// Returns the time in which the backlog shrinks to the target, at the measured rate.
    fn retry_after(&self) -> Duration {
        let Some(rate) = self.lock_flow().rate.filter(|rate| *rate > 0.0) else {
            return DEFAULT_RETRY_AFTER;
        };
        let target =
            (rate * self.policy.target_delay.as_secs_f64()).min(self.policy.max_pending as f64 - 1.0);
        let excess = self.pending.load(Ordering::Relaxed) as f64 - target;
        Duration::try_from_secs_f64(excess / rate)
            .map_or(MIN_RETRY_AFTER, |time| time.clamp(MIN_RETRY_AFTER, MAX_RETRY_AFTER))
    }

    fn lock_flow(&self) -> std::sync::MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time of all measurements, in milliseconds since the Unix epoch.
    const NOW_MS: i64 = 1_000_000_000;

    fn new_backlog(max_pending: u64) -> Backlog {
        Backlog::new(BacklogPolicy { max_pending, target_delay: Duration::from_secs(5) })
    }

    /// Reports `pending` messages, the first of which is due for `delay_seconds`.
    fn measure(backlog: &Backlog, pending: u64, delay_seconds: i64) {
        let since_ms = Some(NOW_MS - 1000 * delay_seconds);
        let sample = BacklogSample { pending, oldest_published_ms: since_ms, due_since_ms: since_ms };
        backlog.update(sample, NOW_MS);
    }

    async fn must_wait(backlog: &Backlog) {
        let refused = backlog.acquire_publish_permit(Duration::from_secs(10)).await;
        assert!(matches!(refused, Err(TopicError::Full { .. })), "{refused:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn congested_topic_admits_one_message_per_acknowledgement() {
        let backlog = new_backlog(1000);
        backlog.record_acknowledged();
        measure(&backlog, 100, 5);
        backlog.acquire_publish_permit(Duration::ZERO).await.unwrap();
        measure(&backlog, 100, 6);
        must_wait(&backlog).await;
        for _ in 0..3 {
            backlog.record_acknowledged();
            backlog.acquire_publish_permit(Duration::ZERO).await.unwrap().use_up();
            must_wait(&backlog).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn topic_far_behind_admits_one_message_per_two_acknowledgements() {
        let backlog = new_backlog(1000);
        backlog.record_acknowledged();
        measure(&backlog, 100, 60);
        for _ in 0..3 {
            backlog.record_acknowledged();
            must_wait(&backlog).await;
            backlog.record_acknowledged();
            backlog.acquire_publish_permit(Duration::ZERO).await.unwrap().use_up();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn permit_that_is_not_used_up_passes_to_the_next_publisher() {
        let backlog = new_backlog(1000);
        backlog.record_acknowledged();
        measure(&backlog, 100, 6);
        backlog.record_acknowledged();
        for _ in 0..2 {
            drop(backlog.acquire_publish_permit(Duration::ZERO).await.unwrap());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_publishers_get_permits_when_the_congestion_ends() {
        let backlog = new_backlog(1000);
        backlog.record_acknowledged();
        measure(&backlog, 100, 6);
        let mut waiting = std::pin::pin!(backlog.acquire_publish_permit(Duration::from_secs(10)));
        assert!(timeout(Duration::ZERO, waiting.as_mut()).await.is_err());
        measure(&backlog, 100, 5);
        waiting.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn outage_of_the_subscriber_admits_messages_up_to_the_maximum() {
        let backlog = new_backlog(2);
        measure(&backlog, 0, 3600);
        backlog.acquire_publish_permit(Duration::ZERO).await.unwrap();
        backlog.record_acknowledged();
        measure(&backlog, 0, 3600);
        must_wait(&backlog).await;
        // `must_wait` has taken as long as the subscriber may be silent.
        tokio::time::advance(Duration::from_millis(1)).await;
        measure(&backlog, 0, 3600);
        backlog.acquire_publish_permit(Duration::ZERO).await.unwrap();

        backlog.record_published();
        backlog.check_capacity().unwrap();
        backlog.record_published();
        assert!(matches!(backlog.check_capacity(), Err(TopicError::Full { .. })));
        let refused = timeout(Duration::ZERO, backlog.acquire_publish_permit(Duration::from_secs(10))).await;
        assert!(refused.is_ok_and(|permit| permit.is_err()), "a full topic refuses at once");
        backlog.record_acknowledged();
        backlog.check_capacity().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_the_time_that_the_excess_takes_at_the_measured_rate() {
        let backlog = new_backlog(1000);
        assert_eq!(backlog.retry_after(), DEFAULT_RETRY_AFTER);
        for _ in 0..20 {
            backlog.record_acknowledged();
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        // Ten messages a second, of which 50 may wait.
        measure(&backlog, 170, 17);
        assert_eq!(backlog.retry_after(), Duration::from_secs(12));
        measure(&backlog, 50, 5);
        assert_eq!(backlog.retry_after(), MIN_RETRY_AFTER);
        measure(&backlog, 1000, 100);
        assert_eq!(backlog.retry_after(), MAX_RETRY_AFTER);
    }
}
