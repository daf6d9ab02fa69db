//! How an image is announced, and how the announcement reaches the classifier.
//!
//! [`Topic`] is the publisher's side. [`push`] is the receiver's: the JSON that Pub/Sub posts.
//! [`announcement`] is which image a delivery is about, in whichever form it came.
//! [`Subscription`] is for receivers that take messages instead of being pushed. `PubSubTopic` and
//! `PubSubSubscription` are those of Pub/Sub; [`SqliteTopic`] is a topic on one machine, with its own
//! push.

pub mod announcement;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod in_memory;
#[cfg(feature = "cloud")]
mod pubsub;
pub mod push;
mod sqlite;
mod subscription;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

pub use in_memory::InMemoryTopic;
#[cfg(feature = "cloud")]
pub use pubsub::{PubSubSubscription, PubSubTopic, SubscriptionName, TopicName};
pub use sqlite::{Pusher, RetryPolicy, SqliteTopic, TopicStats};
pub use subscription::{
    PullHandler, PullLimits, SharedSubscription, Subscription, SubscriptionError, Verdict,
};

/// Name of the HTTP header, and of the message attribute, that carries a W3C trace context.
pub const TRACEPARENT: &str = "traceparent";

/// What is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Payload.
    pub data: Bytes,
    /// Names and values beside the payload: content type, `traceparent`.
    pub attributes: BTreeMap<String, String>,
}

/// Why a message was not published. The same call may succeed later.
#[derive(Debug, thiserror::Error)]
#[error("topic is unavailable")]
pub struct TopicError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Where images are announced.
#[async_trait]
pub trait Topic: Send + Sync + 'static {
    /// Publishes and returns the message's id once the message is durable. Delivery is at least once.
    ///
    /// # Errors
    /// [`TopicError`]: nothing may be assumed to have been published.
    async fn publish(&self, message: Message) -> Result<String, TopicError>;
}

/// A topic that several parts of a process share.
pub type SharedTopic = Arc<dyn Topic>;
