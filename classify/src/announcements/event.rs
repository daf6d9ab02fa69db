//! Handles one event, a pushed or pulled message that announces an image.
//!
//! The handler decides whether the announced image is classified, and returns the outcome of the event.

use std::sync::Arc;

use axum::http::HeaderMap;
use contract::{Failure, GcsPath, PredictionRecord};
use metrics::counter;
use platform::{
    http::{BodyReceiver, media_type},
    memory_budget::ReservedBytes,
    telemetry::error_chain,
    text::excerpt,
    topic::{
        announcement::{Announcement, Announcer, EventContent, ReceivedEvent, parse_delivery, parse_request},
        push::{Delivery, DeliveryError},
    },
};

use super::{
    error::EventError,
    in_flight::InFlightImages,
    outcome::{Action, Outcome, parse_recorded_reason},
    reason::{DeadReason, IgnoreReason},
    records::{RecordKey, StoredRecord},
};
use crate::{
    config::Settings,
    error::ClassifyError,
    json::LargeJsonPermits,
    pixels,
    queue_permits::{Caller, QueuePermit},
    service::{Answer, ImageResult, Service},
};

/// Maximum length of a path in bytes. Cloud Storage refuses longer paths.
const MAX_PATH_LENGTH: usize = 2048;

/// Handles announcements: reads, classifies and records the announced images.
pub(crate) struct AnnouncementHandler {
    service: Arc<Service>,
    in_flight: InFlightImages,
}

/// The outcome and the result of an event, from which the response is built.
pub(crate) struct HandledEvent {
    pub(crate) outcome: Outcome,
    /// The announced path of the image. `None` if the path is missing, too long or has control characters.
    pub(crate) gcs_path: Option<String>,
    pub(crate) result: EventResult,
}

/// Content of the response to an event.
pub(crate) enum EventResult {
    /// The event is acknowledged, and its image has a prediction or an embedding.
    Classified(Answer<ImageResult>),
    /// The event is acknowledged without a prediction, because the event is ignored or can never succeed. The
    /// text is the reason.
    NotClassified(String),
    /// The event is refused, so that it is delivered again.
    Refused(ClassifyError),
}

/// Decision about an event that did not fail.
enum Disposition {
    /// The image has a prediction or an embedding.
    Classified(Answer<ImageResult>),
    /// The event is not for this service. The text describes the reason.
    Ignored(IgnoreReason, String),
}

impl AnnouncementHandler {
    /// Creates a handler.
    ///
    /// A service must have only one handler, because two handlers might classify the same image at the same
    /// time.
    pub(crate) fn new(service: Arc<Service>) -> Self {
        Self { service, in_flight: InFlightImages::default() }
    }

    /// Returns the maximum number of events that are in the queues at the same time.
    pub(crate) fn max_queued_events(&self) -> usize {
        self.service.queue_permits.max_events()
    }

    /// Returns the receiver of pushed bodies.
    pub(crate) fn bodies(&self) -> &BodyReceiver {
        &self.service.bodies
    }

    /// Returns the settings of the service.
    pub(crate) fn settings(&self) -> &Settings {
        &self.service.settings
    }

    /// Returns the permits for large events.
    pub(crate) fn json_permits(&self) -> &LargeJsonPermits {
        &self.service.json_permits
    }

    /// Parses the request of a pushed event, whose body has at most [`Settings::max_event_bytes`] bytes.
    pub(crate) async fn parse_push(&self, headers: HeaderMap, body: ReservedBytes) -> ReceivedEvent {
        let byte_count = body.bytes.len();
        self.json_permits().run_parser(byte_count, move || parse_request(&headers, &body.bytes)).await
    }

    /// Parses a pulled event.
    pub(crate) async fn parse_pulled(&self, delivery: Delivery) -> ReceivedEvent {
        if delivery.data.len() > self.settings().max_event_bytes {
            return self.refuse_too_large();
        }
        let byte_count = delivery.data.len();
        self.json_permits().run_parser(byte_count, move || parse_delivery(&delivery)).await
    }

    /// Returns an event that has more than [`Settings::max_event_bytes`] bytes and is not parsed.
    pub(crate) fn refuse_too_large(&self) -> ReceivedEvent {
        invalid_event(DeliveryError::TooLarge { limit: self.settings().max_event_bytes })
    }

    /// Handles an event of `caller` and counts its outcome.
    ///
    /// This function logs acknowledged events. The caller logs refused events. For a pushed event, the HTTP
    /// middleware does so when it logs the problem.
    pub(crate) async fn handle(&self, received: ReceivedEvent, caller: Caller) -> HandledEvent {
        let ReceivedEvent { message_id, traceparent, content } = received;
        let gcs_path = match &content {
            Ok(EventContent::Image(image)) if is_plain_path(&image.gcs_path) => Some(image.gcs_path.clone()),
            _ => None,
        };
        let disposition = self.process(content, traceparent, caller).await;
        let outcome = match &disposition {
            Ok(Disposition::Classified(answer)) if answer.duplicate => Outcome::Duplicate,
            Ok(Disposition::Classified(_)) => Outcome::Accepted,
            Ok(Disposition::Ignored(reason, _)) => Outcome::Ignored(*reason),
            Err(error) => Outcome::of_error(error),
        };
        count_and_log(outcome, &disposition, message_id.as_deref(), gcs_path.as_deref());
        let result = match disposition {
            Ok(Disposition::Classified(answer)) => EventResult::Classified(answer),
            Ok(Disposition::Ignored(_, message)) => EventResult::NotClassified(message),
            Err(EventError::Classify(error)) if outcome.handling().action == Action::Redeliver => {
                EventResult::Refused(error)
            }
            Err(error) => EventResult::NotClassified(excerpt(error).to_string()),
        };
        HandledEvent { outcome, gcs_path, result }
    }

    async fn process(
        &self,
        content: Result<EventContent, DeliveryError>,
        traceparent: Option<String>,
        caller: Caller,
    ) -> Result<Disposition, EventError> {
        self.service.check_ready()?;
        match content? {
            EventContent::Image(image) => self.process_image(&image, traceparent, caller).await,
            EventContent::NoImage(reason) => {
                Ok(Disposition::Ignored(IgnoreReason::OtherEvent, excerpt(reason).to_string()))
            }
        }
    }

    /// Classifies an announced image, unless its version has a record of this model.
    ///
    /// A further announcement of the same version is answered from the record. An image that can never be
    /// classified gets a record of the failure.
    async fn process_image(
        &self,
        announcement: &Announcement,
        traceparent: Option<String>,
        caller: Caller,
    ) -> Result<Disposition, EventError> {
        // Responses, records and the log repeat the path, so its length is checked first.
        let path = Some(&announcement.gcs_path).filter(|path| path.len() <= MAX_PATH_LENGTH);
        let path: GcsPath = path.and_then(|path| path.parse().ok()).ok_or(ClassifyError::BadPath)?;
        self.service.check_bucket(&path)?;
        if let Some(ignored) = self.ignore_by_metadata(&path, announcement) {
            return Ok(ignored);
        }
        let _in_flight_permit = self.in_flight.acquire(&path).await;

        // The name of a preprocessed image is derived from its content, so the image has only one version.
        // Any other image may have several versions, which Cloud Storage calls generations. Its announcement
        // may contain the version. If the version is known, the record is looked up before the image is read.
        let named_by_content = path.image_id().is_some();
        let announced_record = if named_by_content || announcement.generation.is_some() {
            match self.service.records.look_up(&path, announcement.generation).await? {
                (_, StoredRecord::Record(record)) => {
                    return answer_from_record(record).map(Disposition::Classified);
                }
                entry => Some(entry),
            }
        } else {
            None
        };
        let permit = self.service.queue_permits.acquire(caller).await.map_err(ClassifyError::from)?;
        let (generation, image) = match self.service.read_image(&path).await {
            Ok(image) => (image.generation, Ok((image.file, permit))),
            // The bucket does not report the version of an object that is too large to read.
            Err(error @ ClassifyError::TooManyBytes { .. }) => (announcement.generation, Err(error)),
            Err(error) => return Err(error.into()),
        };
        if let Some(ignored) = ignore_by_content(&image, announcement) {
            return Ok(ignored);
        }
        let (key, existing_object) = match announced_record {
            Some(entry) if named_by_content || generation == announcement.generation => entry,
            // The record of the version that was read has not been looked up yet.
            _ => match self.service.records.look_up(&path, generation).await? {
                (_, StoredRecord::Record(record)) => {
                    return answer_from_record(record).map(Disposition::Classified);
                }
                entry => entry,
            },
        };
        self.classify_and_record(&key, &existing_object, &path, image, traceparent)
            .await
            .map(Disposition::Classified)
    }

    /// Classifies an image that has no record yet, and stores its record at `key`.
    ///
    /// `image` is the image with its permit, or an error if the object is too large to read. This error is
    /// recorded like any other failure.
    async fn classify_and_record(
        &self,
        key: &RecordKey,
        existing_object: &StoredRecord,
        path: &GcsPath,
        image: Result<(ReservedBytes, QueuePermit), ClassifyError>,
        traceparent: Option<String>,
    ) -> Result<Answer<ImageResult>, EventError> {
        let records = &self.service.records;
        let values = match image {
            Ok((image, permit)) => self.service.run_network(image, permit).await,
            Err(error) => Err(error),
        };
        let record = match values {
            Ok(values) => self.service.build_record(path, &values),
            Err(error) => {
                let handling = Outcome::of_classify_error(&error).handling();
                if handling.action == Action::RecordAndAcknowledge {
                    let message = excerpt(&error).to_string();
                    let failure = Failure { reason: handling.reason.to_owned(), message };
                    // The reason lies in the image, so the record names no model and counts for every model.
                    let record = PredictionRecord::Failed {
                        gcs_path: path.clone(),
                        model: None,
                        model_sha256: None,
                        error: failure,
                    };
                    records.publish_and_store(key, existing_object, &record, traceparent).await?;
                }
                return Err(error.into());
            }
        };
        if let Some(first_record) =
            records.publish_and_store(key, existing_object, &record, traceparent).await?
        {
            return answer_from_record(first_record);
        }
        answer_from_record(record).map(|answer| Answer { duplicate: false, ..answer })
    }

    /// Returns [`Disposition::Ignored`] if the object's name or content type excludes it from classification.
    fn ignore_by_metadata(&self, path: &GcsPath, announcement: &Announcement) -> Option<Disposition> {
        let is_from_bucket = announcement.announcer == Announcer::Bucket;
        let prefix = &self.settings().prefix;
        let (reason, message) = if path.is_record() {
            (IgnoreReason::OurPrediction, format!("{} is a prediction", excerpt(path)))
        } else if path.object().ends_with('/') {
            (IgnoreReason::Folder, format!("{} is the placeholder of a folder", excerpt(path)))
        } else if is_from_bucket && !path.object().starts_with(prefix) {
            (IgnoreReason::OtherPrefix, format!("the object's name does not begin with {prefix}"))
        } else if is_from_bucket && !may_be_image(announcement.content_type.as_deref()) {
            (IgnoreReason::NotAnImage, "the object's content type is not an image type".to_owned())
        } else {
            return None;
        };
        Some(Disposition::Ignored(reason, message))
    }
}

/// Returns [`Disposition::Ignored`] if the object's content excludes it from classification.
///
/// Only an announcement that the bucket sends is ignored here, because the bucket announces every object. A
/// publisher who names an object gets an error instead.
fn ignore_by_content(
    image: &Result<(ReservedBytes, QueuePermit), ClassifyError>,
    announcement: &Announcement,
) -> Option<Disposition> {
    if announcement.announcer == Announcer::Publisher {
        return None;
    }
    let (reason, message) = match image {
        Ok((file, _)) if !pixels::looks_like_image(&file.bytes) => (
            IgnoreReason::NotAnImage,
            "the object does not begin with the signature of an image format".to_owned(),
        ),
        Err(ClassifyError::TooManyBytes { limit })
            if !is_image(announcement.content_type.as_deref().unwrap_or_default()) =>
        {
            let message = format!("the object is larger than {limit} bytes and is not declared as an image");
            (IgnoreReason::TooLarge, message)
        }
        _ => return None,
    };
    Some(Disposition::Ignored(reason, message))
}

/// Returns an event without metadata, whose content is `error`.
fn invalid_event(error: DeliveryError) -> ReceivedEvent {
    ReceivedEvent { message_id: None, traceparent: None, content: Err(error) }
}

/// Returns true if an object of this content type may be an image. `None` is an unknown content type.
fn may_be_image(content_type: Option<&str>) -> bool {
    let is_unknown = |content_type: &str| media_type(content_type) == "application/octet-stream";
    content_type.is_none_or(|content_type| is_image(content_type) || is_unknown(content_type))
}

fn is_image(content_type: &str) -> bool {
    media_type(content_type).starts_with("image/")
}

/// Converts a stored record to an answer, or to an error if the record is of a failure.
fn answer_from_record(record: PredictionRecord) -> Result<Answer<ImageResult>, EventError> {
    match record {
        PredictionRecord::Done(prediction) => {
            Ok(Answer { result: ImageResult::Prediction(prediction), duplicate: true })
        }
        PredictionRecord::Embedded(embedding) => {
            Ok(Answer { result: ImageResult::Embedding(embedding), duplicate: true })
        }
        PredictionRecord::Failed { error, .. } => Err(EventError::Recorded {
            // The default is never used, because `Records::read` accepts no record with another reason.
            reason: parse_recorded_reason(&error.reason).unwrap_or(DeadReason::NotAnImage),
            message: error.message,
        }),
    }
}

/// Returns true if `path` can be repeated in a response as it is.
fn is_plain_path(path: &str) -> bool {
    path.len() <= MAX_PATH_LENGTH && !path.contains(char::is_control)
}

fn count_and_log(
    outcome: Outcome,
    disposition: &Result<Disposition, EventError>,
    message_id: Option<&str>,
    gcs_path: Option<&str>,
) {
    let message_id = message_id.map(|id| tracing::field::display(excerpt(id)));
    let gcs_path = gcs_path.map(|path| tracing::field::display(excerpt(path)));
    let handling = outcome.handling();
    counter!("classify_events_total", "outcome" => handling.label, "reason" => handling.reason).increment(1);
    match disposition {
        Ok(Disposition::Classified(Answer { result: ImageResult::Prediction(prediction), duplicate })) => {
            tracing::info!(
                gcs_path,
                label = prediction.label,
                confidence = prediction.confidence,
                duplicate,
                "classified"
            );
        }
        Ok(Disposition::Classified(Answer { result: ImageResult::Embedding(_), duplicate })) => {
            tracing::info!(gcs_path, duplicate, "embedded");
        }
        Ok(Disposition::Ignored(_, message)) => {
            tracing::debug!(
                reason = handling.reason,
                message_id,
                gcs_path,
                why = message,
                "an event is ignored"
            );
        }
        // The level is `warn` and not `debug`, because the event is never delivered again.
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
