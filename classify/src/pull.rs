//! Pull mode: events are taken from a subscription as fast as they are handled.

use std::sync::Arc;

use platform::{
    telemetry::error_chain,
    topic::{
        Acknowledgement, PullHandler, PullLimits, Subscription, SubscriptionError, announcement,
        push::Delivery,
    },
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::service::{Service, SharedService};

/// Pulls and handles events until `stop` is cancelled. No more are held than may wait for decoding, so
/// that none is refused for want of room.
pub(crate) async fn run(
    subscription: &dyn Subscription,
    service: &SharedService,
    stop: CancellationToken,
) -> Result<(), SubscriptionError> {
    let limits = PullLimits {
        max_outstanding: service.settings.queue_items.get(),
        drain_timeout: service.settings.drain_timeout,
    };
    let service = Arc::clone(service);
    let handler = PullHandler::new(move |delivery: Delivery| {
        let span = tracing::info_span!("message", id = delivery.message_id);
        verdict(Arc::clone(&service), delivery).instrument(span)
    });
    subscription.pull(limits, stop, handler).await
}

/// What a push would have been answered, as a verdict.
async fn verdict(service: Arc<Service>, delivery: Delivery) -> Acknowledgement {
    let received = announcement::parse_delivery(&delivery);
    let limit = service.settings.request_timeout;
    let Ok(handled) = tokio::time::timeout(limit, service.handle(received)).await else {
        tracing::warn!(seconds = limit.as_secs_f64(), "an event took too long; it comes again");
        return Acknowledgement::Nack;
    };
    let row = handled.outcome.row();
    if row.acknowledged() {
        return Acknowledgement::Ack;
    }
    if let Err(error) = &handled.result {
        tracing::warn!(outcome = row.word, error = error_chain(error), "an event is refused; it comes again");
    }
    Acknowledgement::Nack
}
