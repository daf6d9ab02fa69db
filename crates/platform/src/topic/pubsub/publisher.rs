//! Publishing to a topic of Pub/Sub.

use std::time::Duration;

use async_trait::async_trait;
use google_cloud_gax::retry_policy::RetryPolicyExt;
use google_cloud_pubsub::{client::Publisher, model, retry_policy::RetryableErrors};

use crate::{
    cloud::{CloudArgs, Endpoint, TimedOut, backoff},
    topic::{Message, Topic, TopicError},
};

/// Messages that are published within this time of one another travel together. Short, because each
/// has an upload waiting for it.
const BATCH_DELAY: Duration = Duration::from_millis(2);

/// A topic of Pub/Sub, or of an emulator of it.
///
/// A message is published when Pub/Sub has said so. Every call is given up after the time limit,
/// further attempts included; a message that was given up may have been published all the same.
#[derive(Debug, Clone)]
pub struct PubSubTopic {
    publisher: Publisher,
    timeout: Duration,
}

impl PubSubTopic {
    /// Gets ready to publish to `topic`, `projects/PROJECT/topics/NAME`. Whether it is there shows
    /// with the first message: asking needs a right that publishing does not.
    ///
    /// # Errors
    /// [`TopicError`] when there are no credentials.
    pub async fn open(topic: &str, cloud: &CloudArgs) -> Result<Self, TopicError> {
        let mut builder = Publisher::builder(topic)
            .set_delay_threshold(BATCH_DELAY)
            .with_retry_policy(RetryableErrors.with_time_limit(cloud.cloud_timeout))
            .with_backoff_policy(backoff());
        if let Some(emulator) = &cloud.pubsub_emulator_host {
            builder = builder.with_endpoint(emulator.as_str()).with_credentials(Endpoint::credentials());
        }
        let publisher = builder.build().await.map_err(|error| TopicError(error.into()))?;
        Ok(Self { publisher, timeout: cloud.cloud_timeout })
    }
}

#[async_trait]
impl Topic for PubSubTopic {
    async fn publish(&self, message: Message) -> Result<String, TopicError> {
        // Without an ordering key: a key that failed once would stay shut for all that follow.
        let message = model::Message::new().set_data(message.data).set_attributes(message.attributes);
        match tokio::time::timeout(self.timeout, self.publisher.publish(message)).await {
            Ok(Ok(id)) => Ok(id),
            Ok(Err(error)) => Err(TopicError(error.into())),
            Err(_) => Err(TopicError(TimedOut(self.timeout).into())),
        }
    }
}
