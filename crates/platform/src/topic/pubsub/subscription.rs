//! [`PubSubSubscription`] pulls from a subscription of Pub/Sub.

use std::{future::Future, time::Duration};

use async_trait::async_trait;
use google_cloud_pubsub::{client::Subscriber, model, subscriber::handler::Handler};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    cloud::{CloudArgs, EmulatorAddress},
    topic::{Acknowledgement, PullHandler, PullLimits, Subscription, SubscriptionError, push::Delivery},
};

/// Time between the handler's decision and the nack that is sent to Pub/Sub. Without this delay, a
/// subscription that has no retry policy would deliver the message again at once, in a loop.
const NACK_DELAY: Duration = Duration::from_secs(1);
/// Duration of each lease extension. Pub/Sub allows no shorter one.
///
/// A message is redelivered after this time if the process crashes, or if Pub/Sub sends the message while the
/// stream is being closed. A process that stalls for longer receives its messages twice, which is harmless.
const LEASE_EXTENSION: Duration = Duration::from_secs(10);
/// Maximum time to send the last acknowledgements when pulling ends.
const ACK_FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// A subscription in Pub/Sub or in an emulator of Pub/Sub, from which messages are pulled.
#[derive(Debug, Clone)]
pub struct PubSubSubscription {
    subscriber: Subscriber,
    name: String,
}

impl PubSubSubscription {
    /// Creates a subscriber to the subscription `name`, which has the form
    /// `projects/PROJECT/subscriptions/NAME`.
    ///
    /// If the subscription does not exist, this function succeeds and [`Subscription::pull`] fails.
    ///
    /// # Errors
    /// Returns [`SubscriptionError`] if there are no credentials.
    pub async fn open(name: &str, cloud: &CloudArgs) -> Result<Self, SubscriptionError> {
        let mut builder = Subscriber::builder();
        if let Some(emulator) = &cloud.pubsub_emulator_host {
            builder =
                builder.with_endpoint(emulator.as_str()).with_credentials(EmulatorAddress::credentials());
        }
        let subscriber = builder.build().await.map_err(|error| SubscriptionError::new(name, error))?;
        Ok(Self { subscriber, name: name.to_owned() })
    }

    fn to_delivery(&self, message: model::Message, receipt: &Handler) -> Delivery {
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

    /// Pulls messages as the trait describes, and reconnects if the connection breaks.
    async fn pull(
        &self,
        limits: PullLimits,
        stop: CancellationToken,
        handler: PullHandler,
    ) -> Result<(), SubscriptionError> {
        let mut message_stream = self
            .subscriber
            .subscribe(&self.name)
            .set_max_outstanding_messages(i64::try_from(limits.max_outstanding).unwrap_or(i64::MAX))
            .set_max_lease_extension(LEASE_EXTENSION)
            .build();
        let shutdown_token = message_stream.shutdown_token();
        let mut in_progress = JoinSet::new();
        let result = loop {
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                Some(done) = in_progress.join_next() => log_if_panicked(done),
                // Pub/Sub enforces `max_outstanding` itself, but its emulator does not.
                next = message_stream.next(), if in_progress.len() < limits.max_outstanding => match next {
                    Some(Ok((message, receipt))) => {
                        let handling = handler.handle(self.to_delivery(message, &receipt));
                        in_progress.spawn(send_decision(handling, receipt, stop.clone()));
                    }
                    Some(Err(error)) => break Err(SubscriptionError::new(&self.name, error)),
                    None => break Ok(()),
                },
            }
        };
        // The stream is dropped before the wait, so that Pub/Sub sends no more messages to this process. The
        // client still extends the leases of the messages in progress. Messages that the stream has received
        // but not returned are delivered again.
        drop(message_stream);
        let all_done = async {
            while let Some(done) = in_progress.join_next().await {
                log_if_panicked(done);
            }
        };
        if timeout(limits.drain_timeout, all_done).await.is_err() {
            tracing::warn!("the drain timeout is over; unfinished messages are delivered again");
        }
        // This ends the remaining tasks. The end of a task drops the receipt of its message, so that the
        // message is delivered again.
        in_progress.shutdown().await;
        if timeout(ACK_FLUSH_TIMEOUT, shutdown_token.shutdown()).await.is_err() {
            tracing::warn!("the last acknowledgements could not be sent; the messages are delivered again");
        }
        result
    }
}

/// Waits for the handler's decision, and sends it to Pub/Sub. If this future is dropped, or the handler
/// panics, the message is delivered again.
async fn send_decision(
    handling: impl Future<Output = Acknowledgement> + Send + 'static,
    receipt: Handler,
    stop: CancellationToken,
) {
    match handling.await {
        Acknowledgement::Ack => receipt.ack(),
        Acknowledgement::Nack => {
            tokio::select! {
                () = tokio::time::sleep(NACK_DELAY) => {}
                () = stop.cancelled() => {}
            }
            receipt.nack();
        }
    }
}

fn log_if_panicked(done: Result<(), tokio::task::JoinError>) {
    if let Err(error) = done {
        // The panic hook has logged the panic as an error.
        tracing::warn!(%error, "the handler of a message panicked; the message is delivered again");
    }
}
