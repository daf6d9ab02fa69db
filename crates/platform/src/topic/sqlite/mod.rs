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
use tokio::sync::Notify;

pub use self::pusher::Pusher;
use self::store::Store;
use super::{Message, Topic, TopicError};
use crate::clock::unix_millis;

/// When an unacknowledged message is delivered again, and when it is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// An answer slower than this counts as none, and the message is delivered again.
    pub ack_deadline: Duration,
    /// Pause before the second attempt; it doubles with each further one.
    pub min_backoff: Duration,
    /// The pause never grows beyond this.
    pub max_backoff: Duration,
    /// After so many attempts the message is moved to the dead letters.
    pub max_attempts: u32,
    /// So many pushes are under way at once at most.
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
