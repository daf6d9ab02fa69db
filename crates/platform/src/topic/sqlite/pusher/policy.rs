//! [`RetryPolicy`] decides when a message is delivered again.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use clap::{Args, builder::RangedU64ValueParser};

use crate::config::{parse_defaults, parse_seconds};

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

/// Returns the pause after the attempt with the number `attempt`. The first attempt is 1.
///
/// The pause doubles with every attempt up to the maximum backoff. It is then shortened by up to a fifth. The
/// amount depends on the message and the attempt, so that messages that failed together are not delivered
/// together again.
pub(in crate::topic::sqlite) fn retry_pause(policy: &RetryPolicy, id: i64, attempt: u32) -> Duration {
    // A shift by more than 31 bits would overflow.
    let doublings = attempt.saturating_sub(1).min(31);
    let full_pause = policy.min_backoff.saturating_mul(1 << doublings).min(policy.max_backoff);
    let mut hasher = DefaultHasher::new();
    (id, attempt).hash(&mut hasher);
    let removed_permille = u32::try_from(hasher.finish() % 200).unwrap_or_default();
    full_pause / 1000 * (1000 - removed_permille)
}
