//! What becomes of a pushed event: one table.
//!
//! An acknowledged push never comes back. What can never succeed is therefore acknowledged as dead,
//! and everything that may succeed later is refused, so that it is delivered again. Acknowledging is
//! answering 200: some emulators do not take the other statuses of success for it.

use axum::http::StatusCode;

use crate::{engine::EngineError, error::ClassifyError, pixels::ImageError};

/// Why an event can never be turned into a prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dead {
    /// The body or the message's data is not the JSON of an event.
    BadJson,
    /// The message's data is not base64.
    BadBase64,
    /// The event's path is no `gs://BUCKET/OBJECT`.
    BadPath,
    /// The event is about another bucket than the one served here.
    WrongBucket,
    /// There is no object at the path.
    NoSuchObject,
    /// The object cannot be read as an image.
    NotAnImage,
    /// The object is an image of a format that is not taken.
    UnsupportedFormat,
    /// The object is larger than what is taken, in bytes or pixels.
    TooLarge,
}

/// What became of a pushed event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Classified and written down now.
    Accepted,
    /// Had been classified before.
    Duplicate,
    /// Can never be classified.
    Dead(Dead),
    /// The bucket or an engine failed; it may work next time.
    Transient,
    /// Too much work is waiting.
    Overloaded,
    /// The model is not loaded yet.
    NotReady,
    /// The service is on its way out.
    Draining,
    /// The model gives no usable answer. Refused all the same: another build of the service may
    /// answer, and until then the message ends among the subscription's dead letters.
    ModelFailure,
}

/// How an outcome is answered, counted and recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Status of the answer.
    pub status: StatusCode,
    /// The answer's member `status`, and the label `outcome` of `classify_push_total`.
    pub word: &'static str,
    /// The answer's member `reason`, and the label of that name; empty where `word` says it all.
    pub reason: &'static str,
    /// Whether the failure is written where the prediction would be, so that nobody waits in vain.
    pub recorded: bool,
}

impl Row {
    /// Whether the event is acknowledged and never comes back.
    pub fn acknowledged(&self) -> bool {
        self.status == StatusCode::OK
    }
}

impl Outcome {
    /// Every outcome there is.
    pub const ALL: [Self; 15] = [
        Self::Accepted,
        Self::Duplicate,
        Self::Dead(Dead::BadJson),
        Self::Dead(Dead::BadBase64),
        Self::Dead(Dead::BadPath),
        Self::Dead(Dead::WrongBucket),
        Self::Dead(Dead::NoSuchObject),
        Self::Dead(Dead::NotAnImage),
        Self::Dead(Dead::UnsupportedFormat),
        Self::Dead(Dead::TooLarge),
        Self::Transient,
        Self::Overloaded,
        Self::NotReady,
        Self::Draining,
        Self::ModelFailure,
    ];

    /// The table.
    pub const fn row(self) -> Row {
        use StatusCode as S;
        match self {
            Self::Accepted => row(S::OK, "ok", "", false),
            Self::Duplicate => row(S::OK, "duplicate", "", false),
            Self::Dead(Dead::BadJson) => row(S::OK, "dead", "bad_json", false),
            Self::Dead(Dead::BadBase64) => row(S::OK, "dead", "bad_base64", false),
            Self::Dead(Dead::BadPath) => row(S::OK, "dead", "bad_path", false),
            Self::Dead(Dead::WrongBucket) => row(S::OK, "dead", "wrong_bucket", false),
            Self::Dead(Dead::NoSuchObject) => row(S::OK, "dead", "no_such_object", false),
            Self::Dead(Dead::NotAnImage) => row(S::OK, "dead", "not_an_image", true),
            Self::Dead(Dead::UnsupportedFormat) => row(S::OK, "dead", "unsupported_format", true),
            Self::Dead(Dead::TooLarge) => row(S::OK, "dead", "too_large", true),
            Self::Transient => row(S::SERVICE_UNAVAILABLE, "transient", "", false),
            Self::Overloaded => row(S::TOO_MANY_REQUESTS, "overloaded", "", false),
            Self::NotReady => row(S::SERVICE_UNAVAILABLE, "not_ready", "", false),
            Self::Draining => row(S::SERVICE_UNAVAILABLE, "draining", "", false),
            Self::ModelFailure => row(S::INTERNAL_SERVER_ERROR, "model_failure", "", false),
        }
    }

    /// What an error means for a push.
    pub(crate) fn of(error: &ClassifyError) -> Self {
        use platform::topic::push::PushError;
        match error {
            ClassifyError::BadRequest(_) | ClassifyError::BadPush(PushError::BadJson(_)) => {
                Self::Dead(Dead::BadJson)
            }
            ClassifyError::BadPush(PushError::BadBase64(_)) => Self::Dead(Dead::BadBase64),
            ClassifyError::BadPath => Self::Dead(Dead::BadPath),
            ClassifyError::WrongBucket(_) => Self::Dead(Dead::WrongBucket),
            ClassifyError::NoSuchObject(_) => Self::Dead(Dead::NoSuchObject),
            ClassifyError::Image(ImageError::NotAnImage(_)) => Self::Dead(Dead::NotAnImage),
            ClassifyError::Image(ImageError::UnsupportedFormat(_)) => Self::Dead(Dead::UnsupportedFormat),
            ClassifyError::Image(ImageError::TooManyPixels { .. }) | ClassifyError::TooManyBytes { .. } => {
                Self::Dead(Dead::TooLarge)
            }
            ClassifyError::Recorded { dead, .. } => Self::Dead(*dead),
            ClassifyError::DecodersBusy | ClassifyError::Engine(EngineError::Overloaded) => Self::Overloaded,
            ClassifyError::Bucket(_) | ClassifyError::Engine(EngineError::Failed(_)) => Self::Transient,
            ClassifyError::Engine(EngineError::Unsound(_)) => Self::ModelFailure,
            ClassifyError::Starting => Self::NotReady,
            ClassifyError::Draining | ClassifyError::Engine(EngineError::Closed) => Self::Draining,
        }
    }
}

impl Dead {
    /// The reason, a word for programs.
    pub fn reason(self) -> &'static str {
        Outcome::Dead(self).row().reason
    }

    /// The reason that a failure on record gives; `None` for what this service never records.
    pub(crate) fn recorded_as(reason: &str) -> Option<Self> {
        Outcome::ALL.into_iter().find_map(|outcome| match outcome {
            Outcome::Dead(dead) if outcome.row().recorded && dead.reason() == reason => Some(dead),
            _ => None,
        })
    }
}

const fn row(status: StatusCode, word: &'static str, reason: &'static str, recorded: bool) -> Row {
    Row { status, word, reason, recorded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_dead_has_a_reason_and_only_what_is_dead_is_recorded() {
        for outcome in Outcome::ALL {
            let row = outcome.row();
            assert_eq!(matches!(outcome, Outcome::Dead(_)), !row.reason.is_empty(), "{outcome:?}");
            assert!(!row.recorded || matches!(outcome, Outcome::Dead(_)), "{outcome:?}");
            assert!(row.acknowledged() || !row.recorded, "{outcome:?}: what comes back is not written off");
        }
    }

    #[test]
    fn outcomes_can_be_told_apart() {
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            let same = |other: &Outcome| {
                (other.row().word, other.row().reason) == (outcome.row().word, outcome.row().reason)
            };
            assert_eq!(Outcome::ALL.iter().position(same), Some(place), "{outcome:?}");
        }
    }

    #[test]
    fn reasons_on_record_are_read_back() {
        assert_eq!(Dead::recorded_as("too_large"), Some(Dead::TooLarge));
        assert_eq!(Dead::recorded_as("no_such_object"), None);
        assert_eq!(Dead::recorded_as(""), None);
    }
}
