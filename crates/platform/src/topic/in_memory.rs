//! [`InMemoryTopic`] takes the place of a real topic in tests.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Message, Topic, TopicError};

/// A topic in memory, for tests (feature `testing`).
///
/// The topic keeps the published messages and delivers none of them. [`Self::fail_next`] makes calls fail.
#[derive(Debug, Default)]
pub struct InMemoryTopic {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    messages: Vec<Message>,
    /// Number of further calls that must fail.
    failures_left: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("a test injected this failure")]
struct InjectedFailure;

impl InMemoryTopic {
    /// Makes the next `call_count` calls of [`Topic::publish`] fail.
    pub fn fail_next(&self, call_count: usize) {
        self.lock_state().failures_left = call_count;
    }

    /// Returns the published messages, in the order of their publication.
    pub fn messages(&self) -> Vec<Message> {
        self.lock_state().messages.clone()
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Topic for InMemoryTopic {
    async fn publish(&self, message: Message) -> Result<String, TopicError> {
        let mut state = self.lock_state();
        if state.failures_left > 0 {
            state.failures_left -= 1;
            return Err(TopicError::Unavailable(InjectedFailure.into()));
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
    async fn topic_passes_the_conformance_suite() {
        let topic = InMemoryTopic::default();
        let collect = async |message_count: usize| {
            let messages = topic.messages();
            assert_eq!(messages.len(), message_count);
            let to_delivery = |(message, id): (Message, usize)| Delivery {
                data: message.data,
                attributes: message.attributes,
                message_id: Some(id.to_string()),
                subscription: Some("projects/local/subscriptions/test".to_owned()),
                delivery_attempt: None,
            };
            messages.into_iter().zip(1..).map(to_delivery).collect()
        };
        conformance::check(&topic, collect).await;
    }

    #[tokio::test]
    async fn fail_next_makes_exactly_that_many_calls_fail() {
        let topic = InMemoryTopic::default();
        topic.fail_next(1);
        assert!(topic.publish(Message::default()).await.is_err());
        assert!(topic.messages().is_empty());
        assert!(topic.publish(Message::default()).await.is_ok());
        assert_eq!(topic.messages(), [Message::default()]);
    }
}
