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

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

#[cfg(any(test, feature = "testing"))]
pub use in_memory::InMemoryTopic;
#[cfg(feature = "cloud")]
pub use pubsub::{PubSubSubscription, PubSubTopic, SubscriptionName, TopicName};
pub use sqlite::{Pusher, RetryPolicy, SqliteTopic};
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
}

/// A topic that the parts of a process share.
pub type SharedTopic = Arc<dyn Topic>;
