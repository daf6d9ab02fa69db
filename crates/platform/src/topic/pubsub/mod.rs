//! Pub/Sub: publishing to a topic, and pulling from a subscription. (What a push looks like is in
//! [`super::push`].)

mod name;
mod publisher;
mod subscription;

pub use name::{SubscriptionName, TopicName};
pub use publisher::PubSubTopic;
pub use subscription::PubSubSubscription;
