//! Pull mode, in which the service pulls events from a subscription.

use std::sync::Arc;

use platform::{
    telemetry::error_chain,
    topic::{Acknowledgement, PullHandler, PullLimits, Subscription, SubscriptionError, push::Delivery},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    announcements::{AnnouncementHandler, EventResult, HandledEvent},
    queue_permits::Caller,
};

/// Pulls and handles events until `stop_token` is cancelled.
///
/// The number of events in progress is at most the number of events that the queues hold. If requests use some
/// of that room, an event waits for it and is not refused: its lease is extended meanwhile.
pub(crate) async fn run(
    subscription: &dyn Subscription,
    announcements: Arc<AnnouncementHandler>,
    stop_token: CancellationToken,
) -> Result<(), SubscriptionError> {
    let settings = announcements.settings();
    let limits = PullLimits {
        max_outstanding: announcements.max_queued_events(),
        drain_timeout: settings.drain_timeout,
    };
    let handler = PullHandler::new(move |delivery: Delivery| {
        let span = tracing::info_span!("message", id = delivery.message_id);
        handle(Arc::clone(&announcements), delivery).instrument(span)
    });
    subscription.pull(limits, stop_token, handler).await
}

/// Handles one event, and acknowledges or refuses it by the same rules as a pushed event.
async fn handle(announcements: Arc<AnnouncementHandler>, delivery: Delivery) -> Acknowledgement {
    let received = announcements.parse_pulled(delivery).await;
    let timeout = announcements.settings().request_timeout;
    let Ok(handled) =
        tokio::time::timeout(timeout, announcements.handle(received, Caller::PulledEvent)).await
    else {
        tracing::warn!(seconds = timeout.as_secs_f64(), "an event timed out and will be delivered again");
        return Acknowledgement::Nack;
    };
    let HandledEvent { outcome, result, .. } = handled;
    if let EventResult::Refused(error) = &result {
        tracing::warn!(
            outcome = outcome.handling().label,
            error = error_chain(error),
            "an event is refused and will be delivered again"
        );
        return Acknowledgement::Nack;
    }
    Acknowledgement::Ack
}
