//! The other receiver's side: messages are taken as fast as they are settled.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::push::Delivery;

/// What becomes of a message that was pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Done; it never comes back.
    Acknowledged,
    /// To be delivered again, here or elsewhere.
    Refused,
}

/// How much is pulled and how long it is held.
#[derive(Clone, Copy, Debug)]
pub struct PullLimits {
    /// Messages under way at once.
    pub max_outstanding: usize,
    /// Time that the messages under way are given to finish after the stop.
    pub drain: Duration,
}

/// The stream of messages ended for good: no such subscription, no right to it.
#[derive(Debug, thiserror::Error)]
#[error("nothing can be pulled from {name}")]
pub struct SubscriptionError {
    name: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl SubscriptionError {
    /// Of the subscription `name`.
    pub fn new(name: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { name: name.to_owned(), source: source.into() }
    }
}

type BoxedVerdict = Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// What is done with each message.
pub struct PullHandler(Box<dyn Fn(Delivery) -> BoxedVerdict + Send + Sync>);

impl PullHandler {
    /// Does `handle` with each.
    pub fn new<F>(handle: impl Fn(Delivery) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Verdict> + Send + 'static,
    {
        Self(Box::new(move |delivery| Box::pin(handle(delivery))))
    }

    /// What becomes of `delivery`.
    pub fn handle(&self, delivery: Delivery) -> impl Future<Output = Verdict> + Send + 'static {
        (self.0)(delivery)
    }
}

impl fmt::Debug for PullHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullHandler").finish_non_exhaustive()
    }
}

/// A place to take messages from.
#[async_trait]
pub trait Subscription: Send + Sync + 'static {
    /// `projects/PROJECT/subscriptions/NAME`.
    fn name(&self) -> &str;

    /// Pulls until `stop` is cancelled, each message handled in a task of its own, at most
    /// `limits.max_outstanding` at once. A message is held until its verdict is there. After the stop
    /// nothing more is taken, and what is under way is finished; what is not within the drain time is
    /// delivered again.
    ///
    /// # Errors
    /// [`SubscriptionError`].
    async fn pull(
        &self,
        limits: PullLimits,
        stop: CancellationToken,
        handler: PullHandler,
    ) -> Result<(), SubscriptionError>;
}

/// A subscription that several parts of a process know.
pub type SharedSubscription = Arc<dyn Subscription>;
