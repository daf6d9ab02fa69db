//! A topic in an SQLite file, with its own push.
//!
//! - `store`: the file, behind one thread of its own
//! - `pusher`: what delivers

mod pusher;
mod store;
#[cfg(test)]
mod tests;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use clap::{Args, builder::RangedU64ValueParser};
use tokio::sync::Notify;

pub use self::pusher::Pusher;
use self::store::Store;
use super::{Message, Topic, TopicError};
use crate::{clock::unix_millis, config::parse_seconds};

/// Settings of redelivery: when an unacknowledged message is sent again, and when it is given up.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[group(id = "topic")]
pub struct RetryPolicy {
    /// Seconds that a subscriber has to answer before its message is delivered again
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
        Self {
            ack_deadline: Duration::from_secs(60),
            min_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(60),
            max_attempts: 20,
            max_outstanding: 16,
        }
    }
}

/// How many messages there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicStats {
    /// Published and not yet acknowledged.
    pub pending: u64,
    /// Given up.
    pub dead: u64,
}

/// A topic in an SQLite file: durable when `publish` returns, delivered at least once to one push
/// address, also across `kill -9`.
///
/// One process publishes and delivers; one pusher runs at a time.
#[derive(Debug)]
pub struct SqliteTopic {
    store: Store,
    client: reqwest::Client,
    /// Wakes the pusher.
    published: Notify,
}

impl SqliteTopic {
    /// Opens the topic in the file at `path`, which is made if it is not there, with its folder.
    ///
    /// # Errors
    /// [`TopicError`] when the file is not usable.
    pub async fn open(path: &Path) -> Result<Arc<Self>, TopicError> {
        // The address is ours: a redirect or a proxy could only take the message elsewhere.
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| TopicError(error.into()))?;
        let store = Store::open(path).await?;
        Ok(Arc::new(Self { store, client, published: Notify::new() }))
    }

    /// How many messages wait and how many were given up.
    ///
    /// # Errors
    /// [`TopicError`].
    pub async fn stats(&self) -> Result<TopicStats, TopicError> {
        Ok(self.store.stats().await?)
    }

    /// What delivers this topic's messages to `push_url` by HTTP POST.
    pub fn pusher(self: &Arc<Self>, push_url: &str, policy: RetryPolicy) -> Pusher {
        Pusher::new(Arc::clone(self), push_url, policy)
    }
}

#[async_trait]
impl Topic for SqliteTopic {
    async fn publish(&self, message: Message) -> Result<String, TopicError> {
        let id = self.store.insert(message, unix_millis(SystemTime::now())).await?;
        self.published.notify_one();
        Ok(id.to_string())
    }
}
