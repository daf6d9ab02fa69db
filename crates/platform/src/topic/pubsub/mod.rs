//! Topics and subscriptions of Pub/Sub. [`super::push`] parses the push requests of Pub/Sub.

mod name;
mod publisher;
mod subscription;

pub use name::{SubscriptionName, TopicName};
pub use publisher::PubSubTopic;
pub use subscription::PubSubSubscription;
