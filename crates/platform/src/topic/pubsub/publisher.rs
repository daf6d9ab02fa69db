//! [`PubSubTopic`] publishes to a topic of Pub/Sub.

use std::time::Duration;

use async_trait::async_trait;
use google_cloud_gax::retry_policy::RetryPolicyExt;
use google_cloud_pubsub::{client::Publisher, model, retry_policy::RetryableErrors};

use crate::{
    cloud::{CloudArgs, EmulatorAddress, TimedOut, retry_backoff},
    topic::{Message, Topic, TopicError},
};

/// Maximum time for which a message waits for other messages that can be published with the same request. The
/// time is short, because every upload waits until its message is published.
const BATCH_DELAY: Duration = Duration::from_millis(2);

/// A topic in Pub/Sub or in an emulator of Pub/Sub.
///
/// [`Topic::publish`] returns the id when Pub/Sub has confirmed the message. A call that fails is retried
/// until the timeout. If the timeout ends the call, Pub/Sub may still have published the message.
#[derive(Debug, Clone)]
pub struct PubSubTopic {
    publisher: Publisher,
    timeout: Duration,
}

impl PubSubTopic {
    /// Creates a publisher to the topic `topic_name`, which has the form `projects/PROJECT/topics/NAME`.
    ///
    /// If the topic does not exist, this function succeeds and [`Topic::publish`] fails. A check would need
    /// another permission besides the one to publish.
    ///
    /// # Errors
    /// Returns [`TopicError`] if there are no credentials.
    pub async fn open(topic_name: &str, cloud: &CloudArgs) -> Result<Self, TopicError> {
        let mut builder = Publisher::builder(topic_name)
            .set_delay_threshold(BATCH_DELAY)
            .with_retry_policy(RetryableErrors.with_time_limit(cloud.cloud_timeout))
            .with_backoff_policy(retry_backoff());
        if let Some(emulator) = &cloud.pubsub_emulator_host {
            builder =
                builder.with_endpoint(emulator.as_str()).with_credentials(EmulatorAddress::credentials());
        }
        let publisher = builder.build().await.map_err(|error| TopicError::Unavailable(error.into()))?;
        Ok(Self { publisher, timeout: cloud.cloud_timeout })
    }
}

#[async_trait]
impl Topic for PubSubTopic {
    async fn publish(&self, message: Message) -> Result<String, TopicError> {
        // The message has no ordering key, because the client publishes no more messages with the same key
        // after one of them has failed.
        let message = model::Message::new().set_data(message.data).set_attributes(message.attributes);
        match tokio::time::timeout(self.timeout, self.publisher.publish(message)).await {
            Ok(Ok(id)) => Ok(id),
            Ok(Err(error)) => Err(TopicError::Unavailable(error.into())),
            Err(_) => Err(TopicError::Unavailable(TimedOut(self.timeout).into())),
        }
    }
}
