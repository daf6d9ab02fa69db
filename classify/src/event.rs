//! What is done with an announced image, however the announcement came: pushed or pulled, from a
//! publisher or from the bucket itself.

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

use crate::{
    error::ClassifyError,
    outcome::{Dead, Ignored, Outcome},
    pixels,
    records::{Found, Place},
    service::{Answer, Service},
};

/// A path longer than any that Cloud Storage takes is neither logged nor sent back.
const MAX_PATH: usize = 2048;

/// What became of an event. The row of its outcome says whether it is acknowledged.
pub(crate) struct Handled {
    pub(crate) outcome: Outcome,
    /// The image's address as it was announced.
    pub(crate) gcs_path: Option<String>,
    pub(crate) result: Result<Attended, ClassifyError>,
}

/// An event that did not fail.
pub(crate) enum Attended {
    Classified(Answer),
    /// None of this service's business; the text says why.
    Ignored(Ignored, String),
}

impl Service {
    /// Does what an event asks for, and counts it. What is acknowledged is logged here; why something
    /// is refused is for the caller to log, as the routes do with every problem that they answer.
    pub(crate) async fn handle(&self, received: ReceivedEvent) -> Handled {
        let ReceivedEvent { message_id, traceparent, content } = received;
        let gcs_path = match &content {
            Ok(EventContent::Image(image)) if image.gcs_path.len() <= MAX_PATH => {
                Some(image.gcs_path.clone())
            }
            _ => None,
        };
        let result = self.attend(content, traceparent).await;
        let outcome = match &result {
            Ok(Attended::Classified(answer)) if answer.duplicate => Outcome::Duplicate,
            Ok(Attended::Classified(_)) => Outcome::Accepted,
            Ok(Attended::Ignored(why, _)) => Outcome::Ignored(*why),
            Err(error) => Outcome::of(error),
        };
        let handled = Handled { outcome, gcs_path, result };
        handled.count_and_log(message_id.as_deref());
        handled
    }

    async fn attend(
        &self,
        content: Result<EventContent, PushError>,
        traceparent: Option<String>,
    ) -> Result<Attended, ClassifyError> {
        self.admit()?;
        match content? {
            EventContent::Image(image) => self.classify_announced(&image, traceparent).await,
            EventContent::Other(why) => Ok(Attended::Ignored(Ignored::OtherEvent, why)),
        }
    }

    /// Classifies an announced image, once a version: if it is announced again it is answered from the
    /// record, and if it can never be classified it gets a record that says so.
    async fn classify_announced(
        &self,
        announcement: &Announcement,
        traceparent: Option<String>,
    ) -> Result<Attended, ClassifyError> {
        let path: GcsPath = announcement.gcs_path.parse().map_err(|_| ClassifyError::BadPath)?;
        self.check_bucket(&path)?;
        if let Some(ignored) = self.ignored_by_name(&path, announcement) {
            return Ok(ignored);
        }
        let _turn = self.in_flight.turn(&path).await;

        // A preprocessed image has one version; of any other the announcement may name it.
        let by_content = path.image_id().is_some();
        let announced_place = if by_content || announcement.generation.is_some() {
            match self.records.look(&path, announcement.generation).await? {
                Place { found: Found::Record(record), .. } => {
                    return on_record(record).map(Attended::Classified);
                }
                place => Some(place),
            }
        } else {
            None
        };
        let (generation, image) = match self.image(&path).await {
            Ok(image) => (image.generation, Ok(image.data)),
            // The bucket does not tell the version of what it does not hand out.
            Err(error @ ClassifyError::TooManyBytes { .. }) => (announcement.generation, Err(error)),
            Err(error) => return Err(error),
        };
        if let Some(ignored) = ignored_by_content(&image, announcement) {
            return Ok(ignored);
        }
        let place = match announced_place {
            Some(place) if by_content || generation == announcement.generation => place,
            // What is there now is not what was announced: it may have a record of its own.
            _ => match self.records.look(&path, generation).await? {
                Place { found: Found::Record(record), .. } => {
                    return on_record(record).map(Attended::Classified);
                }
                place => place,
            },
        };
        self.classify_into(&place, &path, image, traceparent).await.map(Attended::Classified)
    }

    /// Classifies an image that has no record yet, and makes it one in `place`.
    async fn classify_into(
        &self,
        place: &Place,
        path: &GcsPath,
        image: Result<Bytes, ClassifyError>,
        traceparent: Option<String>,
    ) -> Result<Answer, ClassifyError> {
        let probabilities = match image {
            Ok(image) => self.probabilities(image).await,
            Err(error) => Err(error),
        };
        let record = match probabilities {
            Ok(probabilities) => self.record_of(path, &probabilities),
            Err(error) => {
                let row = Outcome::of(&error).row();
                if row.recorded {
                    let failure = Failure { reason: row.reason.to_owned(), message: error.to_string() };
                    let record = PredictionRecord::Failed { gcs_path: path.clone(), error: failure };
                    self.records.add(place, &record, traceparent).await?;
                }
                return Err(error);
            }
        };
        if self.records.add(place, &record, traceparent).await? == Created::AlreadyThere {
            // The same event was handled elsewhere in the meantime; what stands there counts.
            if let Found::Record(found) = self.records.look_again(place).await? {
                return on_record(found);
            }
        }
        on_record(record).map(|answer| Answer { duplicate: false, ..answer })
    }

    /// What need not be read to know that it is not to be classified.
    fn ignored_by_name(&self, path: &GcsPath, announcement: &Announcement) -> Option<Attended> {
        let by_bucket = announcement.announcer == Announcer::Bucket;
        let (why, message) = if path.is_prediction() {
            (Ignored::OurPrediction, format!("{path} is a prediction"))
        } else if path.object().ends_with('/') {
            (Ignored::Folder, format!("{path} only makes a folder visible"))
        } else if by_bucket && !path.object().starts_with(&self.settings.prefix) {
            (Ignored::OtherPrefix, format!("the name does not begin with {}", self.settings.prefix))
        } else if by_bucket && !may_be_image(announcement.content_type.as_deref()) {
            (Ignored::NotAnImage, "the object's content type is not that of an image".to_owned())
        } else {
            return None;
        };
        Some(Attended::Ignored(why, message))
    }
}

/// What turns out not to be meant for this service when it is read. A bucket announces whatever is put
/// there; a publisher who names an object is told what is wrong with it.
fn ignored_by_content(image: &Result<Bytes, ClassifyError>, announcement: &Announcement) -> Option<Attended> {
    if announcement.announcer == Announcer::Message {
        return None;
    }
    let (why, message) = match image {
        Ok(bytes) if !pixels::is_picture(bytes) => {
            (Ignored::NotAnImage, "the object does not begin as an image does".to_owned())
        }
        Err(error) if !is_image(announcement.content_type.as_deref().unwrap_or_default()) => {
            (Ignored::TooLarge, format!("{error}, if it is one"))
        }
        _ => return None,
    };
    Some(Attended::Ignored(why, message))
}

/// Whether an object of this content type is worth a look.
fn may_be_image(content_type: Option<&str>) -> bool {
    let unknown = |content_type: &str| media_type(content_type) == "application/octet-stream";
    content_type.is_none_or(|content_type| is_image(content_type) || unknown(content_type))
}

fn is_image(content_type: &str) -> bool {
    media_type(content_type).starts_with("image/")
}

/// The answer that a record gives.
fn on_record(record: PredictionRecord) -> Result<Answer, ClassifyError> {
    match record {
        PredictionRecord::Done(prediction) => Ok(Answer { prediction, duplicate: true }),
        PredictionRecord::Failed { error, .. } => Err(ClassifyError::Recorded {
            dead: Dead::recorded_as(&error.reason).unwrap_or(Dead::NotAnImage),
            message: error.message,
        }),
    }
}

impl Handled {
    fn count_and_log(&self, message_id: Option<&str>) {
        let row = self.outcome.row();
        counter!("classify_events_total", "outcome" => row.word, "reason" => row.reason).increment(1);
        let gcs_path = self.gcs_path.as_deref();
        match &self.result {
            Ok(Attended::Classified(Answer { prediction, duplicate })) => tracing::info!(
                gcs_path,
                label = prediction.label,
                confidence = prediction.confidence,
                duplicate,
                "classified"
            ),
            Ok(Attended::Ignored(_, message)) => {
                tracing::debug!(
                    reason = row.reason,
                    message_id,
                    gcs_path,
                    why = message,
                    "an event is ignored"
                );
            }
            // It never comes back: whoever looks for it finds it here.
            Err(error) if row.acknowledged() => tracing::warn!(
                reason = row.reason,
                message_id,
                gcs_path,
                error = error_chain(error),
                "an event can never be classified and is acknowledged as dead"
            ),
            Err(_) => {}
        }
    }
}
