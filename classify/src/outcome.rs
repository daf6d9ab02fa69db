//! What becomes of an event: one table, for those that are pushed and those that are pulled.
//!
//! An acknowledged event never comes back. What can never succeed is therefore acknowledged as dead,
//! what is none of this service's business as ignored, and everything that may succeed later is
//! refused, so that it is delivered again. A push is acknowledged by answering 200: some emulators do
//! not take the other statuses of success for it.

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

/// Why an event is none of this service's business. Buckets announce every object, whatever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// The object is a prediction, which must never be taken for an image: it would bring forth
    /// another one, and so on.
    OurPrediction,
    /// The object only makes a folder visible: its name ends with `/`.
    Folder,
    /// The object's name does not begin with the prefix that is set.
    OtherPrefix,
    /// The event is about something else than a new object.
    OtherEvent,
    /// The object is not an image, by its content type or its first bytes.
    NotAnImage,
    /// The object has more bytes than are taken, and nobody says that it is an image.
    TooLarge,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Classified and written down now.
    Accepted,
    /// Had been classified before.
    Duplicate,
    /// Not to be classified, and nothing is wrong with that.
    Ignored(Ignored),
    /// Can never be classified.
    Dead(Dead),
    /// The bucket, the results topic or an engine failed; it may work next time.
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
    /// The answer's member `status`, and the label `outcome` of `classify_events_total`.
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
    pub const ALL: [Self; 21] = [
        Self::Accepted,
        Self::Duplicate,
        Self::Ignored(Ignored::OurPrediction),
        Self::Ignored(Ignored::Folder),
        Self::Ignored(Ignored::OtherPrefix),
        Self::Ignored(Ignored::OtherEvent),
        Self::Ignored(Ignored::NotAnImage),
        Self::Ignored(Ignored::TooLarge),
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
            Self::Ignored(Ignored::OurPrediction) => row(S::OK, "ignored", "our_prediction", false),
            Self::Ignored(Ignored::Folder) => row(S::OK, "ignored", "folder", false),
            Self::Ignored(Ignored::OtherPrefix) => row(S::OK, "ignored", "other_prefix", false),
            Self::Ignored(Ignored::OtherEvent) => row(S::OK, "ignored", "other_event", false),
            Self::Ignored(Ignored::NotAnImage) => row(S::OK, "ignored", "not_an_image", false),
            Self::Ignored(Ignored::TooLarge) => row(S::OK, "ignored", "too_large", false),
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

    /// What an error means for an event.
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
            ClassifyError::Bucket(_)
            | ClassifyError::Topic(_)
            | ClassifyError::Engine(EngineError::Failed(_) | EngineError::Lost(_)) => Self::Transient,
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
    fn what_is_never_classified_has_a_reason_and_only_what_is_dead_is_recorded() {
        for outcome in Outcome::ALL {
            let row = outcome.row();
            let never = matches!(outcome, Outcome::Dead(_) | Outcome::Ignored(_));
            assert_eq!(never, !row.reason.is_empty(), "{outcome:?}");
            assert!(!never || row.acknowledged(), "{outcome:?}: it would come back for nothing");
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
