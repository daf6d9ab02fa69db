//! Handles one announcement.
//!
//! The handler decides whether the announced image is classified, and returns the outcome of the event.

use std::sync::Arc;

use bytes::Bytes;
use contract::{Failure, GcsPath, PredictionRecord};
use metrics::counter;
use platform::{
    bucket::Created,
    http::media_type,
    telemetry::error_chain,
    topic::{
        announcement::{Announcement, Announcer, EventContent, ReceivedEvent},
        push::PushError,
    },
};

use super::{
    error::EventError,
    in_flight::InFlight,
    outcome::{Action, Outcome, recorded_reason},
    reason::{DeadReason, IgnoreReason},
    records::{RecordKey, StoredRecord},
};
use crate::{
    config::Settings,
    error::ClassifyError,
    pixels,
    service::{Answer, Service},
};

/// Maximum length in bytes of a path in logs and responses. Cloud Storage refuses longer paths.
const MAX_PATH_LENGTH: usize = 2048;

/// Handles announcements with the parts of the service.
pub(crate) struct AnnouncementHandler {
    service: Arc<Service>,
    in_flight: InFlight,
}

/// The outcome and the result of an event, from which the response is built.
pub(crate) struct HandledEvent {
    pub(crate) outcome: Outcome,
    /// The announced path of the image. `None` if the path is missing or too long.
    pub(crate) gcs_path: Option<String>,
    pub(crate) result: EventResult,
}

/// Content of the response to an event.
pub(crate) enum EventResult {
    /// The event is acknowledged, and its image has a prediction.
    Classified(Answer),
    /// The event is acknowledged without a prediction, because it is ignored or dead.
    ///
    /// The text says why.
    NotClassified(String),
    /// The event is refused, so that it is delivered again.
    Refused(ClassifyError),
}

/// Result of an event that did not fail.
enum Processed {
    Classified(Answer),
    /// The event is not for this service. The text says why.
    Ignored(IgnoreReason, String),
}

impl AnnouncementHandler {
    /// Creates a handler.
    ///
    /// A service must have only one handler, because two handlers may handle the same image at the same time.
    pub(crate) fn new(service: Arc<Service>) -> Self {
        Self { service, in_flight: InFlight::default() }
    }

    /// Returns the settings of the service.
    pub(crate) fn settings(&self) -> &Settings {
        &self.service.settings
    }

    /// Handles an event and counts its outcome.
    ///
    /// This function logs acknowledged events. The caller logs the error of a refused event, because the
    /// routes log every problem.
    pub(crate) async fn handle(&self, received: ReceivedEvent) -> HandledEvent {
        let ReceivedEvent { message_id, traceparent, content } = received;
        let gcs_path = match &content {
            Ok(EventContent::Image(image)) if image.gcs_path.len() <= MAX_PATH_LENGTH => {
                Some(image.gcs_path.clone())
            }
            _ => None,
        };
        let processed = self.process(content, traceparent).await;
        let outcome = match &processed {
            Ok(Processed::Classified(answer)) if answer.duplicate => Outcome::Duplicate,
            Ok(Processed::Classified(_)) => Outcome::Accepted,
            Ok(Processed::Ignored(reason, _)) => Outcome::Ignored(*reason),
            Err(error) => Outcome::of_error(error),
        };
        count_and_log(outcome, &processed, message_id.as_deref(), gcs_path.as_deref());
        let result = match processed {
            Ok(Processed::Classified(answer)) => EventResult::Classified(answer),
            Ok(Processed::Ignored(_, message)) => EventResult::NotClassified(message),
            Err(EventError::Classify(error)) if outcome.handling().action == Action::Redeliver => {
                EventResult::Refused(error)
            }
            Err(error) => EventResult::NotClassified(error.to_string()),
        };
        HandledEvent { outcome, gcs_path, result }
    }

    async fn process(
        &self,
        content: Result<EventContent, PushError>,
        traceparent: Option<String>,
    ) -> Result<Processed, EventError> {
        self.service.admit()?;
        match content? {
            EventContent::Image(image) => self.process_image(&image, traceparent).await,
            EventContent::Other(message) => Ok(Processed::Ignored(IgnoreReason::OtherEvent, message)),
        }
    }

    /// Classifies an announced image, unless its version has a record.
    ///
    /// A further announcement of the same version is answered from the record. An image that can never be
    /// classified gets a record of its failure.
    async fn process_image(
        &self,
        announcement: &Announcement,
        traceparent: Option<String>,
    ) -> Result<Processed, EventError> {
        let path: GcsPath = announcement.gcs_path.parse().map_err(|_| ClassifyError::BadPath)?;
        self.service.check_bucket(&path)?;
        if let Some(ignored) = self.ignore_by_name(&path, announcement) {
            return Ok(ignored);
        }
        let _permit = self.in_flight.acquire(&path).await;

        // A preprocessed image is named by its content, so it has only one version. The announcement of any
        // other image may name the version.
        let named_by_content = path.image_id().is_some();
        let announced_key = if named_by_content || announcement.generation.is_some() {
            match self.service.records.look_up(&path, announcement.generation).await? {
                (_, StoredRecord::Record(record)) => {
                    return answer_from_record(record).map(Processed::Classified);
                }
                entry => Some(entry),
            }
        } else {
            None
        };
        let (generation, image) = match self.service.read_image(&path).await {
            Ok(image) => (image.generation, Ok(image.data)),
            // The bucket does not report the version of an object that is too large to read.
            Err(error @ ClassifyError::TooManyBytes { .. }) => (announcement.generation, Err(error)),
            Err(error) => return Err(error.into()),
        };
        if let Some(ignored) = ignore_by_content(&image, announcement) {
            return Ok(ignored);
        }
        let (key, stored) = match announced_key {
            Some(entry) if named_by_content || generation == announcement.generation => entry,
            // The version in the bucket is not the announced version, and may have its own record.
            _ => match self.service.records.look_up(&path, generation).await? {
                (_, StoredRecord::Record(record)) => {
                    return answer_from_record(record).map(Processed::Classified);
                }
                entry => entry,
            },
        };
        self.classify_and_record(&key, &stored, &path, image, traceparent).await.map(Processed::Classified)
    }

    /// Classifies an image that has no record yet, and stores its record at `key`.
    async fn classify_and_record(
        &self,
        key: &RecordKey,
        stored: &StoredRecord,
        path: &GcsPath,
        image: Result<Bytes, ClassifyError>,
        traceparent: Option<String>,
    ) -> Result<Answer, EventError> {
        let records = &self.service.records;
        let probabilities = match image {
            Ok(image) => self.service.compute_probabilities(image).await,
            Err(error) => Err(error),
        };
        let record = match probabilities {
            Ok(probabilities) => self.service.new_record(path, &probabilities),
            Err(error) => {
                let handling = Outcome::of_classify_error(&error).handling();
                if handling.action == Action::RecordAndAcknowledge {
                    let failure = Failure { reason: handling.reason.to_owned(), message: error.to_string() };
                    let record = PredictionRecord::Failed { gcs_path: path.clone(), error: failure };
                    records.publish_and_store(key, stored, &record, traceparent).await?;
                }
                return Err(error.into());
            }
        };
        if records.publish_and_store(key, stored, &record, traceparent).await? == Created::AlreadyThere {
            // Another instance of the service has stored a record of the image in the meantime. Nothing is
            // overwritten, so the answer comes from that record.
            if let StoredRecord::Record(first_record) = records.read(key).await? {
                return answer_from_record(first_record);
            }
        }
        answer_from_record(record).map(|answer| Answer { duplicate: false, ..answer })
    }

    /// Returns why the announcement is ignored because of the object's name or content type.
    ///
    /// Returns `None` if the name and content type are acceptable.
    fn ignore_by_name(&self, path: &GcsPath, announcement: &Announcement) -> Option<Processed> {
        let by_bucket = announcement.announcer == Announcer::Bucket;
        let prefix = &self.settings().prefix;
        let (reason, message) = if path.is_prediction() {
            (IgnoreReason::OurPrediction, format!("{path} is a prediction"))
        } else if path.object().ends_with('/') {
            (IgnoreReason::Folder, format!("{path} is the placeholder of a folder"))
        } else if by_bucket && !path.object().starts_with(prefix) {
            (IgnoreReason::OtherPrefix, format!("the name does not begin with {prefix}"))
        } else if by_bucket && !may_be_image(announcement.content_type.as_deref()) {
            (IgnoreReason::NotAnImage, "the object's content type is not that of an image".to_owned())
        } else {
            return None;
        };
        Some(Processed::Ignored(reason, message))
    }
}

/// Returns why the announcement is ignored because of the object's content.
///
/// Returns `None` if the content is acceptable.
///
/// Only an announcement of the bucket is ignored here, because the bucket announces every object. A publisher
/// who names an object gets an error instead.
fn ignore_by_content(image: &Result<Bytes, ClassifyError>, announcement: &Announcement) -> Option<Processed> {
    if announcement.announcer == Announcer::Message {
        return None;
    }
    let (reason, message) = match image {
        Ok(bytes) if !pixels::looks_like_image(bytes) => {
            (IgnoreReason::NotAnImage, "the object does not begin like an image".to_owned())
        }
        Err(error) if !is_image(announcement.content_type.as_deref().unwrap_or_default()) => {
            (IgnoreReason::TooLarge, format!("{error}, if it is one"))
        }
        _ => return None,
    };
    Some(Processed::Ignored(reason, message))
}

/// Returns true if an object of this content type may be an image. `None` is an unknown content type.
fn may_be_image(content_type: Option<&str>) -> bool {
    let is_unknown = |content_type: &str| media_type(content_type) == "application/octet-stream";
    content_type.is_none_or(|content_type| is_image(content_type) || is_unknown(content_type))
}

fn is_image(content_type: &str) -> bool {
    media_type(content_type).starts_with("image/")
}

/// Returns the answer that a stored record gives.
fn answer_from_record(record: PredictionRecord) -> Result<Answer, EventError> {
    match record {
        PredictionRecord::Done(prediction) => Ok(Answer { prediction, duplicate: true }),
        PredictionRecord::Failed { error, .. } => Err(EventError::Recorded {
            reason: recorded_reason(&error.reason).unwrap_or(DeadReason::NotAnImage),
            message: error.message,
        }),
    }
}

fn count_and_log(
    outcome: Outcome,
    processed: &Result<Processed, EventError>,
    message_id: Option<&str>,
    gcs_path: Option<&str>,
) {
    let handling = outcome.handling();
    counter!("classify_events_total", "outcome" => handling.label, "reason" => handling.reason).increment(1);
    match processed {
        Ok(Processed::Classified(Answer { prediction, duplicate })) => tracing::info!(
            gcs_path,
            label = prediction.label,
            confidence = prediction.confidence,
            duplicate,
            "classified"
        ),
        Ok(Processed::Ignored(_, message)) => {
            tracing::debug!(
                reason = handling.reason,
                message_id,
                gcs_path,
                why = message,
                "an event is ignored"
            );
        }
        // This is a warning, which is logged by default, because the event is never delivered again.
        Err(error) if handling.is_acknowledged() => tracing::warn!(
            reason = handling.reason,
            message_id,
            gcs_path,
            error = error_chain(error),
            "an event can never be classified and is acknowledged as dead"
        ),
        Err(_) => {}
    }
}
