//! Reads the record of an image from the bucket, and publishes and stores new records.
//!
//! A record is the prediction or the embedding of an image, or the reason why the image can never be classified. Each
//! model has its own record. The first model that classifies an image stores its record under the first name,
//! `prediction.json`. A later model finds the record of the first model there, and stores its own record beside it,
//! under a name with the model's key. In the same way, the first model that computes an embedding of the image stores
//! `embedding.json`. So a lookup reads one object if the image has no record or the first record is the model's own.
//! It reads two objects if the first record is of another model, or is damaged and may be of any model.

use std::time::SystemTime;

use bytes::Bytes;
use contract::{GcsPath, MAX_PREDICTION_BYTES, ModelId, PredictionRecord, RecordedModel, ResultMessage};
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

/// The records of one model in the bucket, and the topic on which new records are published.
#[derive(Clone)]
pub(crate) struct Records {
    bucket: SharedBucket,
    results_topic: Option<SharedTopic>,
    model: ModelId,
    /// Base name of the records, which depends on the kind of the model's outputs.
    base_name: &'static str,
}

/// Name of the object that holds an image's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordKey {
    object: ObjectName,
    /// Name of this model's own record, which is beside the first one. `None` if `object` has this name.
    own_name: Option<String>,
}

/// Content of the object at a [`RecordKey`].
pub(crate) enum StoredRecord {
    /// There is no object.
    Missing,
    /// The object is a record of this service and of this model.
    Record(PredictionRecord),
    /// The object is the record of another model. The object is kept.
    OtherModel,
    /// The object is damaged. A new record replaces it, if the bucket can replace objects.
    Damaged,
    /// The object is a record that this version of the service cannot read. The object is kept, because only
    /// damaged objects are ever replaced.
    Unreadable,
}

impl Records {
    /// Creates access to the records of `model` in `bucket`, which have the base name `base_name`.
    ///
    /// New records are published on `results_topic`, if given.
    pub(crate) fn new(
        bucket: SharedBucket,
        results_topic: Option<SharedTopic>,
        model: ModelId,
        base_name: &'static str,
    ) -> Self {
        Self { bucket, results_topic, model, base_name }
    }

    /// Returns the model that makes the records.
    pub(crate) fn model(&self) -> &ModelId {
        &self.model
    }

    /// Reads the model's record of the version `generation` of the image at `path`.
    ///
    /// Also returns the key of the record, at which a new record can be stored.
    pub(crate) async fn look_up(
        &self,
        path: &GcsPath,
        generation: Option<i64>,
    ) -> Result<(RecordKey, StoredRecord), ClassifyError> {
        let own_name = path.record_object_name(self.base_name, generation, Some(&self.model.key()));
        let first_name = path.record_object_name(self.base_name, generation, None);
        let first = RecordKey { object: parse_object_name(first_name)?, own_name: Some(own_name) };
        self.read_first_or_own(first).await
    }

    /// Reads the record at `first`, and this model's own record if the first one is damaged or of another model.
    ///
    /// A new record replaces a damaged first one, unless this model has a record already.
    async fn read_first_or_own(&self, first: RecordKey) -> Result<(RecordKey, StoredRecord), ClassifyError> {
        let stored = self.read(&first.object).await?;
        let own_name = match (&stored, &first.own_name) {
            (StoredRecord::OtherModel | StoredRecord::Damaged, Some(own_name)) => own_name,
            _ => return Ok((first, stored)),
        };
        let own = RecordKey { object: parse_object_name(own_name.as_str())?, own_name: None };
        let own_record = self.read(&own.object).await?;
        if matches!(own_record, StoredRecord::OtherModel) {
            tracing::warn!(object = %excerpt(&own.object), "the record of another model has the name of this model's record");
        }
        Ok(match (stored, own_record) {
            (
                StoredRecord::Damaged,
                StoredRecord::Missing | StoredRecord::Damaged | StoredRecord::OtherModel,
            ) => (first, StoredRecord::Damaged),
            (_, own_record) => (own, own_record),
        })
    }

    async fn read(&self, object: &ObjectName) -> Result<StoredRecord, ClassifyError> {
        let stored = match self.bucket.read(object, MAX_PREDICTION_BYTES).await {
            Ok(content) => self.parse_record(&content.data),
            Err(BucketError::NotFound(_)) => StoredRecord::Missing,
            Err(BucketError::Damaged(_)) => StoredRecord::Damaged,
            // The object is too large to be a record.
            Err(BucketError::TooLarge { .. }) => StoredRecord::Unreadable,
            Err(other) => return Err(other.into()),
        };
        match stored {
            StoredRecord::Missing | StoredRecord::Record(_) | StoredRecord::OtherModel => {}
            StoredRecord::Unreadable => {
                tracing::warn!(object = %excerpt(object), "this version of the service cannot read the record of the image");
            }
            StoredRecord::Damaged => {
                counter!("classify_damaged_records_total").increment(1);
                if self.bucket.replaces_broken_objects() {
                    tracing::warn!(object = %excerpt(object), "the record of the image is damaged; the next record replaces it");
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
    ///
    /// Returns the record of the same model that another instance of the service has stored in the meantime, if any.
    /// Nothing is overwritten, so that record is the one to answer from. If another model was faster, the record is
    /// stored beside the record of that model.
    pub(crate) async fn publish_and_store(
        &self,
        key: &RecordKey,
        existing_object: &StoredRecord,
        record: &PredictionRecord,
        traceparent: Option<String>,
    ) -> Result<Option<PredictionRecord>, ClassifyError> {
        // The record is published before it is stored. If the process crashes in between or the bucket fails,
        // the event is delivered again. Its handler then finds no record, so the record is published twice.
        // If the record were stored first, the handler would find it, and it would never be published.
        let may_be_stored = match existing_object {
            StoredRecord::Missing => true,
            StoredRecord::Damaged => self.bucket.replaces_broken_objects(),
            StoredRecord::Record(_) | StoredRecord::OtherModel | StoredRecord::Unreadable => false,
        };
        if may_be_stored {
            self.publish(record, traceparent).await?;
        }
        let json = to_json(record)?;
        if self.store(&key.object, json.clone()).await? != Created::AlreadyThere || !may_be_stored {
            return Ok(None);
        }
        let (key, mut stored) = self.read_first_or_own(key.clone()).await?;
        if matches!(stored, StoredRecord::Missing | StoredRecord::Damaged)
            && self.store(&key.object, json).await? == Created::AlreadyThere
        {
            stored = self.read(&key.object).await?;
        }
        Ok(match stored {
            StoredRecord::Record(first_record) => Some(first_record),
            _ => None,
        })
    }

    async fn store(&self, object: &ObjectName, json: Bytes) -> Result<Created, ClassifyError> {
        let looks_intact = PredictionRecord::is_record;
        Ok(self.bucket.replace_if_broken(object, json, JSON_CONTENT_TYPE, looks_intact).await?)
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

    /// Parses the content of the object that has the name of a record.
    fn parse_record(&self, content: &[u8]) -> StoredRecord {
        let has_known_reason = |record: &PredictionRecord| match record {
            PredictionRecord::Done(_) | PredictionRecord::Embedded(_) => true,
            PredictionRecord::Failed { error, .. } => parse_recorded_reason(&error.reason).is_some(),
        };
        let is_own = |model: &RecordedModel| model.may_be(&self.model.key());
        match serde_json::from_slice::<PredictionRecord>(content) {
            Ok(record) if !is_own(&record.model()) => StoredRecord::OtherModel,
            Ok(record) if has_known_reason(&record) => StoredRecord::Record(record),
            _ => match RecordedModel::read(content) {
                None => StoredRecord::Damaged,
                Some(model) if !is_own(&model) => StoredRecord::OtherModel,
                Some(_) => StoredRecord::Unreadable,
            },
        }
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
