//! [`SqliteTopic`] is a topic in an SQLite file.
//!
//! - `store` reads and writes the messages in one thread.
//! - `database` opens, migrates and replaces the file.
//! - `backlog` slows down publishers that are faster than the subscriber.
//! - `pusher` delivers the messages.

mod backlog;
mod database;
mod pusher;
mod store;
#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use tokio::{
    sync::{Notify, watch},
    time::{MissedTickBehavior, interval},
};

use self::{
    backlog::Backlog,
    store::{Store, StoreError},
};
pub use self::{
    backlog::BacklogPolicy,
    pusher::{DeadLetter, DeadLetterHandler, Pusher, RetryPolicy},
};
use super::{Message, PublishPermit, Topic, TopicError};
use crate::{clock::unix_millis, telemetry::error_chain};

/// Time between two measurements of the backlog.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);

/// Function that returns the key of a message, by which [`Topic::count_ahead`] and
/// [`SqliteTopic::find_keys`] find the message. If the function panics, the message has no key.
pub type MessageKey = fn(&Message) -> Option<String>;

/// Returns the key of `message`.
fn compute_key(message_key: MessageKey, message: &Message) -> Option<String> {
    // A message for which the function panics must not keep the file from being opened.
    catch_unwind(AssertUnwindSafe(|| message_key(message))).unwrap_or_default()
}

/// A topic in an SQLite file, whose messages are pushed to one address.
///
/// A message is durable when [`Topic::publish`] returns, and is delivered at least once, even if the process
/// is killed. Only one process may use the file, and only one [`Pusher`] may run, because the pusher keeps in
/// memory which messages it is delivering.
///
/// If the file is damaged, a new file takes its place when the topic is opened or when the damage is found.
/// If the file is removed while the topic is open, a new file is created. A message that cannot be read becomes a
/// dead letter. [`Self::losses`] reports all three.
#[derive(Debug)]
pub struct SqliteTopic {
    store: Arc<Store>,
    backlog: Arc<Backlog>,
    message_key: MessageKey,
    client: reqwest::Client,
    /// Wakes the pusher when a message is published.
    published: Arc<Notify>,
}

impl SqliteTopic {
    /// Opens the topic in the file at `path`, and creates the file and its folder if they are missing.
    ///
    /// A file of an earlier version is migrated. Its dead letters are delivered again.
    ///
    /// # Errors
    /// Returns [`TopicError`] if the file cannot be used, or was written by a newer version.
    pub async fn open(
        path: &Path,
        policy: BacklogPolicy,
        message_key: MessageKey,
    ) -> Result<Arc<Self>, TopicError> {
        // The push address is that of a local service, so a redirect or a proxy can only be a mistake.
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| TopicError::Unavailable(error.into()))?;
        let store = Arc::new(Store::open(path, message_key).await?);
        let backlog = Arc::new(Backlog::new(policy));
        let topic = Arc::new(Self { store, backlog, message_key, client, published: Arc::default() });
        topic.measure_backlog().await?;
        let weak = Arc::downgrade(&topic);
        tokio::spawn(async move {
            let mut ticks = interval(MEASURE_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(topic) = weak.upgrade() else { break };
                if let Err(error) = topic.measure_backlog().await {
                    tracing::warn!(
                        error = error_chain(&error),
                        "the backlog of the topic cannot be measured"
                    );
                }
            }
        });
        Ok(topic)
    }

    /// Creates the pusher, which delivers the messages to `push_url` by HTTP POST.
    ///
    /// `dead_letters` is called with each message that has failed too often.
    pub fn pusher(
        &self,
        push_url: &str,
        policy: RetryPolicy,
        dead_letters: Arc<dyn DeadLetterHandler>,
    ) -> Pusher {
        Pusher::new(self, push_url, policy, dead_letters)
    }

    /// Returns those of `keys` that a waiting message has.
    ///
    /// # Errors
    /// Returns [`TopicError`] if the file cannot be read.
    pub async fn find_keys(&self, keys: Vec<String>) -> Result<HashSet<String>, TopicError> {
        Ok(self.store.find_keys(keys).await?)
    }

    /// Returns the number of times that messages may have been lost since the topic was opened.
    pub fn losses(&self) -> watch::Receiver<u64> {
        self.store.losses()
    }

    async fn measure_backlog(&self) -> Result<(), StoreError> {
        let now_ms = unix_millis(SystemTime::now());
        self.backlog.update(self.store.sample_backlog(now_ms).await?, now_ms);
        Ok(())
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
        self.backlog.check_capacity()?;
        let key = compute_key(self.message_key, &message);
        let id = self.store.insert(message, key, unix_millis(SystemTime::now())).await?;
        self.backlog.record_published();
        self.published.notify_one();
        Ok(id.to_string())
    }

    fn check_capacity(&self) -> Result<(), TopicError> {
        self.backlog.check_capacity()
    }

    async fn acquire_publish_permit(&self, max_wait: Duration) -> Result<PublishPermit, TopicError> {
        self.backlog.acquire_publish_permit(max_wait).await
    }

    async fn count_ahead(&self, key: &str) -> Result<Option<u64>, TopicError> {
        Ok(self.store.count_ahead(key.to_owned()).await?)
    }

    fn finds_every_message(&self) -> bool {
        true
    }

    async fn check_health(&self) -> Result<(), TopicError> {
        Ok(self.store.check_writable().await?)
    }
}
