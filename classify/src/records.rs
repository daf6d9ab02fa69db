//! What is on record of an image, and how a new record comes there and to the results topic.

use std::time::SystemTime;

use bytes::Bytes;
use contract::{GcsPath, PredictionRecord, ResultMessage};
use metrics::counter;
use platform::{
    bucket::{BucketError, Created, ObjectName, SharedBucket},
    clock,
    topic::{Message, SharedTopic, TRACEPARENT},
};

use crate::{error::ClassifyError, outcome::Dead};

/// Larger than any prediction that this service writes.
const MAX_RECORD_BYTES: usize = 1 << 20;
const JSON: &str = "application/json";

/// The records in the bucket, and the topic on which new ones are told.
pub(crate) struct Records {
    bucket: SharedBucket,
    results: Option<SharedTopic>,
}

/// Where an image's record belongs, and what stands there.
pub(crate) struct Place {
    object: ObjectName,
    pub(crate) found: Found,
}

/// What stands in the place of a record.
pub(crate) enum Found {
    Nothing,
    Record(PredictionRecord),
    /// Something that is not one of this service's records. It stays, as everything does.
    Unreadable,
}

impl Records {
    pub(crate) fn new(bucket: SharedBucket, results: Option<SharedTopic>) -> Self {
        Self { bucket, results }
    }

    /// Looks at the place of the record of the image at `path` in that `generation`.
    pub(crate) async fn look(&self, path: &GcsPath, generation: Option<i64>) -> Result<Place, ClassifyError> {
        let object = object_name(path.prediction_object(generation))?;
        let found = self.find(&object).await?;
        Ok(Place { object, found })
    }

    /// Looks again.
    pub(crate) async fn look_again(&self, place: &Place) -> Result<Found, ClassifyError> {
        self.find(&place.object).await
    }

    /// Publishes `record`, if it is the first one in its place, and writes it down, if it still is.
    /// `traceparent` is that of the announcement.
    pub(crate) async fn add(
        &self,
        place: &Place,
        record: &PredictionRecord,
        traceparent: Option<String>,
    ) -> Result<Created, ClassifyError> {
        // In this order: after a crash between the two, or if the bucket fails, the event comes again,
        // finds no record, and the result is published twice. The other way round it would find the
        // record, and the result would never be published.
        if matches!(place.found, Found::Nothing) {
            self.publish(record, traceparent).await?;
        }
        let json = to_json(record)?;
        Ok(self.bucket.create(&place.object, json, JSON).await?)
    }

    async fn publish(
        &self,
        record: &PredictionRecord,
        traceparent: Option<String>,
    ) -> Result<(), ClassifyError> {
        let Some(results) = &self.results else {
            return Ok(());
        };
        let content_type = ("content-type".to_owned(), JSON.to_owned());
        let traceparent = traceparent.map(|value| (TRACEPARENT.to_owned(), value));
        let message = Message {
            data: to_json(&ResultMessage::new(record.clone(), clock::format_rfc3339(SystemTime::now())))?,
            attributes: traceparent.into_iter().chain([content_type]).collect(),
        };
        let published = results.publish(message).await;
        let outcome = if published.is_ok() { "published" } else { "failed" };
        counter!("classify_results_total", "outcome" => outcome).increment(1);
        published.map(drop).map_err(ClassifyError::Topic)
    }

    async fn find(&self, object: &ObjectName) -> Result<Found, ClassifyError> {
        let bytes = match self.bucket.read(object, MAX_RECORD_BYTES).await {
            Ok(found) => found.data,
            Err(BucketError::NotFound(_)) => return Ok(Found::Nothing),
            Err(BucketError::TooLarge { .. }) => Bytes::new(),
            Err(other) => return Err(other.into()),
        };
        let record = serde_json::from_slice(&bytes).ok().filter(|record| match record {
            PredictionRecord::Done(_) => true,
            PredictionRecord::Failed { error, .. } => Dead::recorded_as(&error.reason).is_some(),
        });
        if record.is_none() {
            tracing::warn!(%object, "what stands in place of the prediction is not one of this service's records");
        }
        Ok(record.map_or(Found::Unreadable, Found::Record))
    }
}

/// `name` as a name that a bucket can have.
pub(crate) fn object_name(name: impl Into<String>) -> Result<ObjectName, ClassifyError> {
    ObjectName::new(name).map_err(|_| ClassifyError::BadPath)
}

fn to_json(value: &impl serde::Serialize) -> Result<Bytes, ClassifyError> {
    let json = serde_json::to_vec(value).map_err(|error| BucketError::Unavailable(error.into()))?;
    Ok(json.into())
}
