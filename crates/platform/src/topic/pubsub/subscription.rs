//! Pulling from a subscription of Pub/Sub: messages come as fast as they are settled.

use std::{future::Future, time::Duration};

use async_trait::async_trait;
use google_cloud_pubsub::{client::Subscriber, model, subscriber::handler::Handler};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    cloud::{CloudArgs, Endpoint},
    topic::{PullHandler, PullLimits, Subscription, SubscriptionError, Verdict, push::Delivery},
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
        let subscriber = builder.build().await.map_err(|error| SubscriptionError::new(name, error))?;
        Ok(Self { subscriber, name: name.to_owned() })
    }
    fn delivery(&self, message: model::Message, receipt: &Handler) -> Delivery {
        let attempt = receipt.delivery_attempt().and_then(|attempt| u32::try_from(attempt).ok());
        Delivery {
            data: message.data,
            attributes: message.attributes.into_iter().collect(),
            message_id: Some(message.message_id),
            subscription: Some(self.name.clone()),
            delivery_attempt: attempt,
        }
    }
}

#[async_trait]
impl Subscription for PubSubSubscription {
    fn name(&self) -> &str {
        &self.name
    }

    /// The lease of a message is extended until its verdict is there; a connection that breaks is made
    /// anew.
    async fn pull(
        &self,
        limits: PullLimits,
        stop: CancellationToken,
        handler: PullHandler,
    ) -> Result<(), SubscriptionError> {
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
                    Some(Ok((message, receipt))) => {
                        let verdict = handler.handle(self.delivery(message, &receipt));
                        under_way.spawn(settle(verdict, receipt, stop.clone()));
                    }
                    Some(Err(error)) => break Err(SubscriptionError::new(&self.name, error)),
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
}

/// Waits for the verdict and tells Pub/Sub. A task that is dropped or panics gives the message back.
async fn settle(
    verdict: impl Future<Output = Verdict> + Send + 'static,
    receipt: Handler,
    stop: CancellationToken,
) {
    match verdict.await {
        Verdict::Acknowledged => receipt.ack(),
        Verdict::Refused => {
            tokio::select! {
                () = tokio::time::sleep(REFUSAL_PAUSE) => {}
                () = stop.cancelled() => {}
            }
            receipt.nack();
        }
    }
}

fn report(done: Result<(), tokio::task::JoinError>) {
    if let Err(error) = done {
        tracing::error!(%error, "a message's task ended by itself; the message comes again");
    }
}
