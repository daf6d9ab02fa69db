//! A [`Subscription`] is a source of messages to pull.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::push::Delivery;

/// The handler's decision about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledgement {
    /// The message is handled and is not delivered again.
    Ack,
    /// The message is delivered again, to this receiver or to a different one.
    Nack,
}

/// Limits of a pull.
#[derive(Clone, Copy, Debug)]
pub struct PullLimits {
    /// Maximum number of messages handled at the same time.
    pub max_outstanding: usize,
    /// Maximum time to finish the open messages after the stop token is cancelled.
    pub drain_timeout: Duration,
}

/// The permanent error of pulling from a subscription that does not exist or that the credentials do not
/// allow.
#[derive(Debug, thiserror::Error)]
#[error("the subscription {name} cannot be pulled from")]
pub struct SubscriptionError {
    name: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl SubscriptionError {
    /// Creates the error of the subscription `name`.
    pub fn new(name: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { name: name.to_owned(), source: source.into() }
    }
}

type BoxedAcknowledgement = Pin<Box<dyn Future<Output = Acknowledgement> + Send>>;

/// A handler for each message that is pulled.
pub struct PullHandler(Box<dyn Fn(Delivery) -> BoxedAcknowledgement + Send + Sync>);

impl PullHandler {
    /// Wraps an async function.
    pub fn new<F>(handle: impl Fn(Delivery) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Acknowledgement> + Send + 'static,
    {
        Self(Box::new(move |delivery| Box::pin(handle(delivery))))
    }

    /// Handles `delivery`.
    pub fn handle(&self, delivery: Delivery) -> impl Future<Output = Acknowledgement> + Send + 'static {
        (self.0)(delivery)
    }
}

impl fmt::Debug for PullHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullHandler").finish_non_exhaustive()
    }
}

/// A source of messages to pull.
#[async_trait]
pub trait Subscription: Send + Sync + 'static {
    /// Returns the name, `projects/PROJECT/subscriptions/NAME`.
    fn name(&self) -> &str;

    /// Pulls messages until `stop` is cancelled, and handles each in a task of its own.
    ///
    /// The lease of a message is held until `handler` has decided about the message. After `stop` is
    /// cancelled, no more messages are handled, and the open messages are finished. Messages that are still
    /// open after the drain timeout are delivered again.
    ///
    /// # Errors
    /// Returns [`SubscriptionError`] if pulling fails permanently.
    async fn pull(
        &self,
        limits: PullLimits,
        stop: CancellationToken,
        handler: PullHandler,
    ) -> Result<(), SubscriptionError>;
}

/// A subscription that the parts of a process share.
pub type SharedSubscription = Arc<dyn Subscription>;
