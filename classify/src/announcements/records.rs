//! Reads the record of an image from the bucket, and publishes and stores new records.
//!
//! A record is the prediction of an image, or the reason why the image can never be classified.

use std::time::SystemTime;

use bytes::Bytes;
use contract::{GcsPath, MAX_PREDICTION_BYTES, PredictionRecord, ResultMessage};
use metrics::counter;
use platform::{
    bucket::{BucketError, Created, ObjectName, SharedBucket},
    clock,
    text::excerpt,
    topic::{Message, SharedTopic, TRACEPARENT},
};

use super::outcome::parse_recorded_reason;
use crate::error::ClassifyError;

const JSON_CONTENT_TYPE: &str = "application/json";

/// The records in the bucket, and the topic on which new records are published.
#[derive(Clone)]
pub(crate) struct Records {
    bucket: SharedBucket,
    results_topic: Option<SharedTopic>,
}

/// Name of the object that holds an image's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordKey(ObjectName);

/// Content of the object at a [`RecordKey`].
pub(crate) enum StoredRecord {
    /// There is no object.
    Missing,
    /// The object is a record of this service.
    Record(PredictionRecord),
    /// The object is damaged. A new record replaces it, if the bucket can replace objects.
    Damaged,
    /// The object is a record that this version of the service cannot read. The object is kept, because only
    /// damaged objects are ever replaced.
    Unreadable,
}

impl Records {
    /// Creates access to the records in `bucket`. New records are published on `results_topic`, if given.
    pub(crate) fn new(bucket: SharedBucket, results_topic: Option<SharedTopic>) -> Self {
        Self { bucket, results_topic }
    }

    /// Reads the record of the version `generation` of the image at `path`.
    ///
    /// Also returns the key of the record, at which a new record can be stored.
    pub(crate) async fn look_up(
        &self,
        path: &GcsPath,
        generation: Option<i64>,
    ) -> Result<(RecordKey, StoredRecord), ClassifyError> {
        let key = RecordKey(parse_object_name(path.prediction_object_name(generation))?);
        let stored = self.read(&key).await?;
        Ok((key, stored))
    }

    /// Reads the record at `key`.
    pub(crate) async fn read(&self, key: &RecordKey) -> Result<StoredRecord, ClassifyError> {
        let RecordKey(object) = key;
        let stored = match self.bucket.read(object, MAX_PREDICTION_BYTES).await {
            Ok(content) => parse_record(&content.data),
            Err(BucketError::NotFound(_)) => StoredRecord::Missing,
            Err(BucketError::Damaged(_)) => StoredRecord::Damaged,
            // The object is too large to be a record.
            Err(BucketError::TooLarge { .. }) => StoredRecord::Unreadable,
            Err(other) => return Err(other.into()),
        };
        match stored {
            StoredRecord::Missing | StoredRecord::Record(_) => {}
            StoredRecord::Unreadable => {
                tracing::warn!(object = %excerpt(object), "this version of the service cannot read the record of the image");
            }
            StoredRecord::Damaged => {
                counter!("classify_damaged_records_total").increment(1);
                if self.bucket.replaces_broken_objects() {
                    tracing::warn!(object = %excerpt(object), "the record of the image is damaged and will be replaced");
                } else {
                    tracing::error!(
                        object = %excerpt(object),
                        "the record of the image is damaged; delete the object and upload the image again"
                    );
                }
            }
        }
        Ok(stored)
    }

    /// Publishes `record`, then stores the record at `key` unless an intact object exists at `key` by then.
    ///
    /// `existing_object` is the object at `key` that [`Self::look_up`] found. The record is published only if
    /// `existing_object` is missing, or is damaged and can be replaced. `traceparent` is the trace context of
    /// the announcement.
    pub(crate) async fn publish_and_store(
        &self,
        key: &RecordKey,
        existing_object: &StoredRecord,
        record: &PredictionRecord,
        traceparent: Option<String>,
    ) -> Result<Created, ClassifyError> {
        // The record is published before it is stored. If the process crashes in between or the bucket fails,
        // the event is delivered again. Its handler then finds no record, so the record is published twice.
        // If the record were stored first, the handler would find it, and it would never be published.
        let may_be_stored = match existing_object {
            StoredRecord::Missing => true,
            StoredRecord::Damaged => self.bucket.replaces_broken_objects(),
            StoredRecord::Record(_) | StoredRecord::Unreadable => false,
        };
        if may_be_stored {
            self.publish(record, traceparent).await?;
        }
        let (json, looks_intact) = (to_json(record)?, PredictionRecord::is_record);
        Ok(self.bucket.replace_if_broken(&key.0, json, JSON_CONTENT_TYPE, looks_intact).await?)
    }

    async fn publish(
        &self,
        record: &PredictionRecord,
        traceparent: Option<String>,
    ) -> Result<(), ClassifyError> {
        let Some(results_topic) = &self.results_topic else {
            return Ok(());
        };
        let content_type = ("content-type".to_owned(), JSON_CONTENT_TYPE.to_owned());
        let traceparent = traceparent.map(|value| (TRACEPARENT.to_owned(), value));
        let message = Message {
            data: to_json(&ResultMessage::new(record.clone(), clock::format_rfc3339(SystemTime::now())))?,
            attributes: traceparent.into_iter().chain([content_type]).collect(),
        };
        let published = results_topic.publish(message).await;
        let outcome = if published.is_ok() { "published" } else { "failed" };
        counter!("classify_results_total", "outcome" => outcome).increment(1);
        published.map(drop).map_err(ClassifyError::Topic)
    }
}

/// Parses the content of the object that has the name of a record.
fn parse_record(content: &[u8]) -> StoredRecord {
    let has_known_reason = |record: &PredictionRecord| match record {
        PredictionRecord::Done(_) => true,
        PredictionRecord::Failed { error, .. } => parse_recorded_reason(&error.reason).is_some(),
    };
    match serde_json::from_slice(content) {
        Ok(record) if has_known_reason(&record) => StoredRecord::Record(record),
        _ if PredictionRecord::is_record(content) => StoredRecord::Unreadable,
        _ => StoredRecord::Damaged,
    }
}

/// Converts `name` to an object name.
///
/// # Errors
/// Returns [`ClassifyError::BadPath`] when `name` is not a valid object name.
pub(crate) fn parse_object_name(name: impl Into<String>) -> Result<ObjectName, ClassifyError> {
    ObjectName::new(name).map_err(|_| ClassifyError::BadPath)
}

fn to_json(value: &impl serde::Serialize) -> Result<Bytes, ClassifyError> {
    let json = serde_json::to_vec(value).map_err(|error| BucketError::Unavailable(error.into()))?;
    Ok(json.into())
}
