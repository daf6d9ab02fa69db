//! [`SqliteTopic`] is a topic in an SQLite file.
//!
//! - `store` reads and writes the file in one thread.
//! - `pusher` delivers the messages.

mod pusher;
mod store;
#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use tokio::sync::Notify;

pub use self::pusher::{Pusher, RetryPolicy};
#[cfg(test)]
use self::store::TopicStats;
use self::store::{Store, StoreError};
use super::{Message, Topic, TopicError};
use crate::clock::unix_millis;

/// A topic in an SQLite file, whose messages are pushed to one address.
///
/// A message is durable when [`Topic::publish`] returns, and is delivered at least once, even if the process
/// is killed. Only one process may use the file, and only one [`Pusher`] may run, because the pusher keeps in
/// memory which messages it is delivering.
#[derive(Debug)]
pub struct SqliteTopic {
    store: Arc<Store>,
    client: reqwest::Client,
    /// Wakes the pusher when a message is published.
    published: Arc<Notify>,
}

impl SqliteTopic {
    /// Opens the topic in the file at `path`, and creates the file and its folder if they are missing.
    ///
    /// # Errors
    /// Returns [`TopicError`] if the file cannot be used.
    pub async fn open(path: &Path) -> Result<Arc<Self>, TopicError> {
        // The push address is that of a local service, so a redirect or a proxy can only be a mistake.
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| TopicError::Unavailable(error.into()))?;
        let store = Arc::new(Store::open(path).await?);
        Ok(Arc::new(Self { store, client, published: Arc::default() }))
    }

    /// Creates the pusher, which delivers the messages to `push_url` by HTTP POST.
    pub fn pusher(&self, push_url: &str, policy: RetryPolicy) -> Pusher {
        Pusher::new(
            Arc::clone(&self.store),
            Arc::clone(&self.published),
            self.client.clone(),
            push_url,
            policy,
        )
    }

    /// Returns the number of waiting messages and of dead letters.
    #[cfg(test)]
    async fn stats(&self) -> Result<TopicStats, StoreError> {
        self.store.stats().await
    }
}

impl From<StoreError> for TopicError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.into())
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
