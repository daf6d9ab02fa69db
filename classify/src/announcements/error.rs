//! The error of an event whose image gets no prediction.

use platform::topic::push::DeliveryError;

use super::reason::DeadReason;
use crate::error::ClassifyError;

/// Reason why the image of an event gets no prediction.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EventError {
    /// The announcement cannot be parsed.
    #[error(transparent)]
    BadDelivery(#[from] DeliveryError),
    /// An earlier attempt failed permanently and recorded the failure in place of the prediction.
    #[error("{message}")]
    Recorded { reason: DeadReason, message: String },
    /// The image cannot be classified.
    #[error(transparent)]
    Classify(#[from] ClassifyError),
}
