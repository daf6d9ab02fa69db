//! Pulling from a subscription of Pub/Sub: messages come as fast as they are settled.

use std::{future::Future, time::Duration};

use google_cloud_gax::error::Error;
use google_cloud_pubsub::{client::Subscriber, model, subscriber::handler::Handler};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    cloud::{CloudArgs, Endpoint},
    topic::push::Delivery,
};

/// A refused message is held back this long before it is given back: a subscription without a retry
/// policy would send it again at once, and again.
const REFUSAL_PAUSE: Duration = Duration::from_secs(1);
/// A lease is extended by this much, again and again; the least that Pub/Sub takes. When the process
/// dies, or a message is sent just when the stream is closed, the message comes again after this time.
/// A process that is stalled for longer gets it twice, which does no harm.
const LEASE: Duration = Duration::from_secs(10);
/// The last acknowledgements are given so long to get through at the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

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
    /// Messages under way at once; Pub/Sub sends no more until one is settled.
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

/// A subscription of Pub/Sub, or of an emulator of it, to pull from.
#[derive(Debug, Clone)]
pub struct PubSubSubscription {
    subscriber: Subscriber,
    name: String,
}

impl PubSubSubscription {
    /// Gets ready to pull from `name`, `projects/PROJECT/subscriptions/NAME`. Whether it is there
    /// shows when pulling begins.
    ///
    /// # Errors
    /// [`SubscriptionError`] when there are no credentials.
    pub async fn open(name: &str, cloud: &CloudArgs) -> Result<Self, SubscriptionError> {
        let mut builder = Subscriber::builder();
        if let Some(emulator) = &cloud.pubsub_emulator_host {
            builder = builder.with_endpoint(emulator.as_str()).with_credentials(Endpoint::credentials());
        }
        let subscriber = builder
            .build()
            .await
            .map_err(|error| SubscriptionError { name: name.to_owned(), source: error.into() })?;
        Ok(Self { subscriber, name: name.to_owned() })
    }

    /// `projects/PROJECT/subscriptions/NAME`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Pulls until `stop` is cancelled, each message in a task of its own, at most
    /// `limits.max_outstanding` at once. The lease of a message is extended until `handle` has said
    /// what becomes of it; a connection that breaks is made anew. After the stop nothing more is
    /// taken, and what is under way is finished; what is not within the drain time goes back.
    ///
    /// # Errors
    /// [`SubscriptionError`].
    pub async fn pull<H, F>(
        &self,
        limits: PullLimits,
        stop: CancellationToken,
        handle: H,
    ) -> Result<(), SubscriptionError>
    where
        H: Fn(Delivery) -> F,
        F: Future<Output = Verdict> + Send + 'static,
    {
        let mut messages = self
            .subscriber
            .subscribe(&self.name)
            .set_max_outstanding_messages(i64::try_from(limits.max_outstanding).unwrap_or(i64::MAX))
            .set_max_lease_extension(LEASE)
            .build();
        let shutdown = messages.shutdown_token();
        let mut under_way = JoinSet::new();
        let ended = loop {
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                Some(done) = under_way.join_next() => report(done),
                // The service knows the limit, too, but the emulator does not keep to it.
                next = messages.next(), if under_way.len() < limits.max_outstanding => match next {
                    Some(Ok((message, handler))) => {
                        let verdict = handle(self.delivery(message, &handler));
                        under_way.spawn(settle(verdict, handler, stop.clone()));
                    }
                    Some(Err(error)) => break Err(self.error(error)),
                    None => break Ok(()),
                },
            }
        };
        // First of all, so that nothing more is sent here. Leases are extended all the same, until each
        // message is settled; what was received and not yet looked at goes back in the end.
        drop(messages);
        let finish = async {
            while let Some(done) = under_way.join_next().await {
                report(done);
            }
        };
        if timeout(limits.drain, finish).await.is_err() {
            tracing::warn!("some messages were still under way; they are delivered again");
        }
        // A handler that is dropped gives its message back.
        under_way.shutdown().await;
        if timeout(LAST_WORDS, shutdown.shutdown()).await.is_err() {
            tracing::warn!("the last acknowledgements did not get through; their messages come again");
        }
        ended
    }

    fn delivery(&self, message: model::Message, handler: &Handler) -> Delivery {
        let attempt = handler.delivery_attempt().and_then(|attempt| u32::try_from(attempt).ok());
        Delivery {
            data: message.data,
            attributes: message.attributes.into_iter().collect(),
            message_id: Some(message.message_id),
            subscription: Some(self.name.clone()),
            delivery_attempt: attempt,
        }
    }

    fn error(&self, error: Error) -> SubscriptionError {
        SubscriptionError { name: self.name.clone(), source: error.into() }
    }
}

/// Waits for the verdict and tells Pub/Sub. A task that is dropped or panics gives the message back.
async fn settle(
    verdict: impl Future<Output = Verdict> + Send + 'static,
    handler: Handler,
    stop: CancellationToken,
) {
    match verdict.await {
        Verdict::Acknowledged => handler.ack(),
        Verdict::Refused => {
            tokio::select! {
                () = tokio::time::sleep(REFUSAL_PAUSE) => {}
                () = stop.cancelled() => {}
            }
            handler.nack();
        }
    }
}

fn report(done: Result<(), tokio::task::JoinError>) {
    if let Err(error) = done {
        tracing::error!(%error, "a message's task ended by itself; the message comes again");
    }
}
