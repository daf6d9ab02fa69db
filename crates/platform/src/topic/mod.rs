//! A [`Topic`] receives messages, which are delivered to a service by push or by pull. Most messages announce
//! an image to classify.
//!
//! - [`Topic`] publishes messages: `PubSubTopic` to Pub/Sub, [`SqliteTopic`] to an SQLite file.
//! - [`Pusher`] delivers the messages of a [`SqliteTopic`] by HTTP.
//! - [`Subscription`] pulls messages: `PubSubSubscription` from Pub/Sub.
//! - [`push`] parses and creates push requests in the JSON of Pub/Sub.
//! - [`announcement`] finds the image that a message announces.

pub mod announcement;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
#[cfg(any(test, feature = "testing"))]
mod in_memory;
mod json;
#[cfg(feature = "cloud")]
mod pubsub;
pub mod push;
mod sqlite;
mod subscription;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

#[cfg(any(test, feature = "testing"))]
pub use in_memory::InMemoryTopic;
#[cfg(feature = "cloud")]
pub use pubsub::{PubSubSubscription, PubSubTopic, SubscriptionName, TopicName};
pub use sqlite::{
    BacklogPolicy, DeadLetter, DeadLetterHandler, MessageKey, Pusher, RetryPolicy, SqliteTopic,
};
pub use subscription::{
    Acknowledgement, PullHandler, PullLimits, SharedSubscription, Subscription, SubscriptionError,
};

/// Name of the HTTP header and of the message attribute that contain the W3C trace context.
pub const TRACEPARENT: &str = "traceparent";

/// A message to publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Payload of the message.
    pub data: Bytes,
    /// Attributes of the message, such as `content-type` and `traceparent`.
    pub attributes: BTreeMap<String, String>,
}

/// Reason why a topic cannot be opened, or does not confirm a message.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// The topic is unreachable, failed, or did not respond in time. The same call may succeed later.
    #[error("the topic is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The topic accepts no message at present, because too many wait for their delivery.
    #[error("too many messages wait for their delivery")]
    Full {
        /// Time after which the topic may accept a message.
        retry_after: Duration,
    },
}

/// Permit to publish one message. Dropping the permit passes it on to another publisher.
#[derive(Debug, Default)]
pub struct PublishPermit {
    /// `None` if the topic does not count the permits at present.
    permit: Option<OwnedSemaphorePermit>,
}

impl PublishPermit {
    /// Creates the permit that `permit` of a semaphore stands for.
    pub(crate) fn new(permit: Option<OwnedSemaphorePermit>) -> Self {
        Self { permit }
    }

    /// Ends the permit, because its message was published.
    pub fn use_up(self) {
        if let Some(permit) = self.permit {
            permit.forget();
        }
    }
}

/// A topic to publish messages to. Each message is delivered at least once.
#[async_trait]
pub trait Topic: Send + Sync + 'static {
    /// Publishes `message`, waits until the message is durable, and returns its id.
    ///
    /// # Errors
    /// Returns [`TopicError`] if the topic does not confirm the message. The message may still have been
    /// published.
    async fn publish(&self, message: Message) -> Result<String, TopicError>;

    /// Returns an error if the topic would refuse a message at present. The default is `Ok`.
    ///
    /// # Errors
    /// Returns [`TopicError::Full`] if too many messages wait.
    fn check_capacity(&self) -> Result<(), TopicError> {
        Ok(())
    }

    /// Waits at most `max_wait` for the permit to publish a message. By default, the permit is given at once.
    ///
    /// A publisher that calls this method before it does expensive work is slowed down to the rate of the
    /// subscriber. [`Self::publish`] does not require a permit.
    ///
    /// # Errors
    /// Returns [`TopicError::Full`] if too many messages wait.
    async fn acquire_publish_permit(&self, _max_wait: Duration) -> Result<PublishPermit, TopicError> {
        Ok(PublishPermit::default())
    }

    /// Returns the number of messages that are delivered before the message with the key `key`.
    ///
    /// Returns `None` if no such message waits or the topic does not know, which is the default. A topic may
    /// stop counting at a maximum.
    ///
    /// # Errors
    /// Returns [`TopicError`] if the topic cannot be read.
    async fn count_ahead(&self, _key: &str) -> Result<Option<u64>, TopicError> {
        Ok(None)
    }

    /// Returns true if [`Self::count_ahead`] finds every waiting message. The default is false.
    ///
    /// If [`Self::count_ahead`] of such a topic returns `None`, no message with the key will be delivered.
    fn finds_every_message(&self) -> bool {
        false
    }

    /// Checks that messages can be published at present. The default is `Ok`.
    ///
    /// # Errors
    /// Returns [`TopicError`] if a message could not be published.
    async fn check_health(&self) -> Result<(), TopicError> {
        Ok(())
    }
}

/// A topic that the parts of a process share.
pub type SharedTopic = Arc<dyn Topic>;
