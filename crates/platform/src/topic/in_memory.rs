//! A topic in memory, for tests.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Message, Topic, TopicError};

/// A topic in memory that keeps what is published and delivers nothing, for tests. It can be told to
/// fail.
#[derive(Debug, Default)]
pub struct InMemoryTopic {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    messages: Vec<Message>,
    failures: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("a test asked for this failure")]
struct AskedFor;

impl InMemoryTopic {
    /// Makes the next `calls` publishes fail.
    pub fn fail_next(&self, calls: usize) {
        self.state().failures = calls;
    }

    /// Everything that was published, in order.
    pub fn messages(&self) -> Vec<Message> {
        self.state().messages.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Topic for InMemoryTopic {
    async fn publish(&self, message: Message) -> Result<String, TopicError> {
        let mut state = self.state();
        if state.failures > 0 {
            state.failures -= 1;
            return Err(TopicError(AskedFor.into()));
        }
        state.messages.push(message);
        Ok(state.messages.len().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::{conformance, push::Delivery};

    #[tokio::test]
    async fn conforms() {
        let topic = InMemoryTopic::default();
        let delivered = async |expected: usize| {
            let messages = topic.messages();
            assert_eq!(messages.len(), expected);
            let delivery = |(message, place): (Message, usize)| Delivery {
                data: message.data,
                attributes: message.attributes,
                message_id: Some(place.to_string()),
                subscription: Some("projects/local/subscriptions/test".to_owned()),
                delivery_attempt: None,
            };
            messages.into_iter().zip(1..).map(delivery).collect()
        };
        conformance::check(&topic, delivered).await;
    }

    #[tokio::test]
    async fn fails_as_often_as_asked() {
        let topic = InMemoryTopic::default();
        topic.fail_next(1);
        assert!(topic.publish(Message::default()).await.is_err());
        assert!(topic.messages().is_empty());
        assert!(topic.publish(Message::default()).await.is_ok());
        assert_eq!(topic.messages(), [Message::default()]);
    }
}
