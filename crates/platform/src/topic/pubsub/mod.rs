//! Pub/Sub: publishes to a topic, and pulls from a subscription. Push requests are in [`super::push`].

mod name;
mod publisher;
mod subscription;

pub use name::{SubscriptionName, TopicName};
pub use publisher::PubSubTopic;
pub use subscription::PubSubSubscription;
