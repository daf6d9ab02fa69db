//! The table of outcomes, which decides whether an event is acknowledged.
//!
//! The table is the same for pushed and pulled events. An acknowledged event is never delivered again. An
//! event that can never succeed is called dead and is acknowledged. An event that is not for this service is
//! called ignored and is acknowledged. An event that may succeed later is refused, so that it is delivered
//! again. The response to an acknowledged push has the status 200, because some emulators accept no other
//! status of success. The response to a refused push is a problem, which describes the error.

use platform::{memory_budget::MemoryBudgetError, topic::push::DeliveryError};

use super::{
    error::EventError,
    reason::{DeadReason, IgnoreReason},
};
use crate::{engine::EngineError, error::ClassifyError, pixels::ImageError};

/// Result of handling an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The image was classified, and its prediction was recorded.
    Accepted,
    /// The image had been classified before.
    Duplicate,
    /// The event is not for this service.
    Ignored(IgnoreReason),
    /// The event can never lead to a prediction.
    Dead(DeadReason),
    /// The bucket, the results topic or an engine failed. A later attempt may succeed.
    Transient,
    /// Too many images wait for memory, for decoding or for an engine.
    Overloaded,
    /// The model is not loaded yet.
    NotReady,
    /// The service is shutting down.
    Draining,
    /// The model fails on this image, or its outputs are unusable.
    ///
    /// The event is refused, because a later attempt may succeed. An event that fails too often becomes a dead
    /// letter. Before the topic in SQLite stops the delivery, [`super::RepeatedFailures`] records the failure.
    ModelFailure,
}

/// Reaction to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The event is acknowledged.
    Acknowledge,
    /// The failure is recorded and the event is acknowledged.
    ///
    /// The record takes the place of the prediction, so that nobody waits for a prediction.
    RecordAndAcknowledge,
    /// The event is refused, so that it is delivered again.
    Redeliver,
}

/// A row of the table: the reaction to an outcome, and the names of the outcome in responses and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handling {
    /// The member `status` of the response, and the label `outcome` of `classify_events_total`.
    pub label: &'static str,
    /// The member `reason` of the response, and the label `reason` of `classify_events_total`. Empty unless
    /// the event is ignored or dead.
    pub reason: &'static str,
    /// Reaction to the event.
    pub action: Action,
}

impl Handling {
    /// Returns true if the event is acknowledged.
    pub fn is_acknowledged(&self) -> bool {
        self.action != Action::Redeliver
    }
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 23] = [
        Self::Accepted,
        Self::Duplicate,
        Self::Ignored(IgnoreReason::OurPrediction),
        Self::Ignored(IgnoreReason::Folder),
        Self::Ignored(IgnoreReason::OtherPrefix),
        Self::Ignored(IgnoreReason::OtherEvent),
        Self::Ignored(IgnoreReason::NotAnImage),
        Self::Ignored(IgnoreReason::TooLarge),
        Self::Dead(DeadReason::BadJson),
        Self::Dead(DeadReason::BadBase64),
        Self::Dead(DeadReason::EventTooLarge),
        Self::Dead(DeadReason::BadPath),
        Self::Dead(DeadReason::WrongBucket),
        Self::Dead(DeadReason::NoSuchObject),
        Self::Dead(DeadReason::NotAnImage),
        Self::Dead(DeadReason::UnsupportedFormat),
        Self::Dead(DeadReason::TooLarge),
        Self::Dead(DeadReason::FailedRepeatedly),
        Self::Transient,
        Self::Overloaded,
        Self::NotReady,
        Self::Draining,
        Self::ModelFailure,
    ];

    /// Returns this outcome's row of the table.
    pub const fn handling(self) -> Handling {
        use DeadReason::{FailedRepeatedly, NotAnImage, TooLarge, UnsupportedFormat};
        match self {
            Self::Accepted => row("ok", "", Action::Acknowledge),
            Self::Duplicate => row("duplicate", "", Action::Acknowledge),
            Self::Ignored(reason) => row("ignored", reason.name(), Action::Acknowledge),
            Self::Dead(reason @ (NotAnImage | UnsupportedFormat | TooLarge | FailedRepeatedly)) => {
                row("dead", reason.name(), Action::RecordAndAcknowledge)
            }
            Self::Dead(reason) => row("dead", reason.name(), Action::Acknowledge),
            Self::Transient => row("transient", "", Action::Redeliver),
            Self::Overloaded => row("overloaded", "", Action::Redeliver),
            Self::NotReady => row("not_ready", "", Action::Redeliver),
            Self::Draining => row("draining", "", Action::Redeliver),
            Self::ModelFailure => row("model_failure", "", Action::Redeliver),
        }
    }

    /// Returns the outcome of an event that failed with `error`.
    pub(crate) fn of_error(error: &EventError) -> Self {
        match error {
            EventError::BadDelivery(DeliveryError::BadJson(_)) => Self::Dead(DeadReason::BadJson),
            EventError::BadDelivery(DeliveryError::BadBase64(_)) => Self::Dead(DeadReason::BadBase64),
            EventError::BadDelivery(DeliveryError::TooLarge { .. }) => Self::Dead(DeadReason::EventTooLarge),
            EventError::Recorded { reason, .. } => Self::Dead(*reason),
            EventError::Classify(error) => Self::of_classify_error(error),
        }
    }

    /// Returns the outcome of an event whose image could not be classified because of `error`.
    pub(crate) fn of_classify_error(error: &ClassifyError) -> Self {
        match error {
            ClassifyError::BadPath => Self::Dead(DeadReason::BadPath),
            ClassifyError::WrongBucket(_) => Self::Dead(DeadReason::WrongBucket),
            ClassifyError::NoSuchObject(_) => Self::Dead(DeadReason::NoSuchObject),
            ClassifyError::Image(ImageError::NotAnImage(_)) => Self::Dead(DeadReason::NotAnImage),
            ClassifyError::Image(ImageError::UnsupportedFormat(_)) => {
                Self::Dead(DeadReason::UnsupportedFormat)
            }
            ClassifyError::Image(ImageError::TooManyPixels { .. } | ImageError::TooMuchMemory { .. })
            | ClassifyError::TooManyBytes { .. } => Self::Dead(DeadReason::TooLarge),
            ClassifyError::QueueFull(_)
            | ClassifyError::Memory(MemoryBudgetError::Overloaded | MemoryBudgetError::TimedOut)
            | ClassifyError::Engine(EngineError::Overloaded) => Self::Overloaded,
            // A damaged image can be classified once it has been uploaded again.
            ClassifyError::DamagedImage(_)
            // Only a bug causes this error, and a later version may not have the bug.
            | ClassifyError::Memory(MemoryBudgetError::ExceedsBudget)
            | ClassifyError::Bucket(_)
            | ClassifyError::Topic(_)
            | ClassifyError::Engine(EngineError::Failed(_) | EngineError::Lost(_)) => Self::Transient,
            ClassifyError::UnusableOutputs(_) | ClassifyError::Engine(EngineError::FailedAlone(_)) => {
                Self::ModelFailure
            }
            ClassifyError::Starting => Self::NotReady,
            ClassifyError::Draining | ClassifyError::Engine(EngineError::Closed) => Self::Draining,
        }
    }
}

/// Parses the reason of a recorded failure from its `name`.
///
/// Returns `None` if this service never records `name`.
pub(super) fn parse_recorded_reason(name: &str) -> Option<DeadReason> {
    Outcome::ALL.into_iter().find_map(|outcome| match outcome {
        Outcome::Dead(reason)
            if outcome.handling().action == Action::RecordAndAcknowledge && reason.name() == name =>
        {
            Some(reason)
        }
        _ => None,
    })
}

const fn row(label: &'static str, reason: &'static str, action: Action) -> Handling {
    Handling { label, reason, action }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_and_dead_events_are_acknowledged_and_only_they_have_a_reason() {
        for outcome in Outcome::ALL {
            let handling = outcome.handling();
            let never_classified = matches!(outcome, Outcome::Dead(_) | Outcome::Ignored(_));
            assert_eq!(never_classified, !handling.reason.is_empty(), "{outcome:?}");
            assert!(!never_classified || handling.is_acknowledged(), "{outcome:?}");
            let recorded = handling.action == Action::RecordAndAcknowledge;
            assert!(!recorded || matches!(outcome, Outcome::Dead(_)), "{outcome:?}");
        }
    }

    #[test]
    fn every_outcome_has_a_unique_pair_of_label_and_reason() {
        for (position, outcome) in Outcome::ALL.into_iter().enumerate() {
            let names = |outcome: Outcome| (outcome.handling().label, outcome.handling().reason);
            let first = Outcome::ALL.iter().position(|other| names(*other) == names(outcome));
            assert_eq!(first, Some(position), "{outcome:?}");
        }
    }

    #[test]
    fn only_reasons_that_are_recorded_are_parsed() {
        assert_eq!(parse_recorded_reason("too_large"), Some(DeadReason::TooLarge));
        assert_eq!(parse_recorded_reason("no_such_object"), None);
        assert_eq!(parse_recorded_reason(""), None);
    }
}
