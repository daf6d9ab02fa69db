//! A [`Subscription`] pulls messages and passes them to a handler.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::push::Delivery;

/// The handler's decision about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledgement {
    /// The message is handled and is not delivered again.
    Ack,
    /// The message is delivered again, to this process or to a different one.
    Nack,
}

/// Limits of [`Subscription::pull`].
#[derive(Clone, Copy, Debug)]
pub struct PullLimits {
    /// Maximum number of messages handled at the same time.
    pub max_outstanding: usize,
    /// Maximum time to finish the messages in progress after the stop token is cancelled.
    pub drain_timeout: Duration,
}

/// Permanent error: the subscription does not exist, or there are no credentials that allow pulling from it.
#[derive(Debug, thiserror::Error)]
#[error("pulling from the subscription {name} failed")]
pub struct SubscriptionError {
    name: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl SubscriptionError {
    /// Creates an error of the subscription `name` with the cause `source`.
    pub fn new(name: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { name: name.to_owned(), source: source.into() }
    }
}

type AcknowledgementFuture = Pin<Box<dyn Future<Output = Acknowledgement> + Send>>;

/// An async function that handles each pulled message.
pub struct PullHandler(Box<dyn Fn(Delivery) -> AcknowledgementFuture + Send + Sync>);

impl PullHandler {
    /// Creates a handler that calls `handle`.
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

/// A source from which messages are pulled.
#[async_trait]
pub trait Subscription: Send + Sync + 'static {
    /// Returns the full name, which has the form `projects/PROJECT/subscriptions/NAME`.
    fn name(&self) -> &str;

    /// Pulls messages until `stop` is cancelled, and runs `handler` for each message in a separate task.
    ///
    /// The lease of a message is extended until the handler has decided about the message. After `stop` is
    /// cancelled, the handler gets no more messages, and this method waits for the messages in progress.
    /// Messages that are unfinished after the drain timeout are delivered again.
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
