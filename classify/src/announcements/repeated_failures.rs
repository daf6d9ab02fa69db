//! [`RepeatedFailures`] records the failures of images that the topic no longer delivers.

use std::error::Error;

use async_trait::async_trait;
use contract::{Failure, GcsPath, PredictionRecord};
use platform::topic::{
    DeadLetter, DeadLetterHandler,
    announcement::{self, EventContent, ReceivedEvent},
    push::Delivery,
};

use super::{
    reason::DeadReason,
    records::{Records, StoredRecord},
};
use crate::error::ClassifyError;

/// Stores a record of the failure for each image whose announcement has failed too often.
///
/// The record takes the place of the prediction, so that nobody waits for a prediction.
pub struct RepeatedFailures {
    records: Records,
    bucket_name: String,
}

impl RepeatedFailures {
    pub(crate) fn new(records: Records, bucket_name: &str) -> Self {
        Self { records, bucket_name: bucket_name.to_owned() }
    }

    async fn record_failure(&self, letter: DeadLetter) -> Result<(), ClassifyError> {
        let DeadLetter { message, failures, .. } = letter;
        let delivery = Delivery { data: message.data, attributes: message.attributes, ..Delivery::default() };
        let ReceivedEvent { traceparent, content, .. } = announcement::parse_delivery(&delivery);
        // Without a path in the bucket of this service, there is no place for a record.
        let Ok(EventContent::Image(image)) = content else { return Ok(()) };
        let Ok(path) = image.gcs_path.parse::<GcsPath>() else { return Ok(()) };
        if path.bucket() != self.bucket_name {
            return Ok(());
        }
        let (key, existing_object) = match self.records.look_up(&path, image.generation).await {
            Err(ClassifyError::BadPath) => return Ok(()),
            result => result?,
        };
        if matches!(existing_object, StoredRecord::Record(_)) {
            return Ok(());
        }
        let error = Failure {
            reason: DeadReason::FailedRepeatedly.name().to_owned(),
            message: format!("the image could not be classified in {failures} attempts"),
        };
        // Another model may not fail on the image, so the record names the model.
        let model = self.records.model();
        let record = PredictionRecord::Failed {
            gcs_path: path,
            model: Some(model.name().to_owned()),
            model_sha256: Some(model.sha256().to_owned()),
            error,
        };
        self.records.publish_and_store(&key, &existing_object, &record, traceparent).await?;
        Ok(())
    }
}

#[async_trait]
impl DeadLetterHandler for RepeatedFailures {
    async fn record(&self, letter: DeadLetter) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(self.record_failure(letter).await?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use contract::{ModelId, PREDICTION};
    use platform::{
        bucket::{Bucket, InMemoryBucket, ObjectName},
        topic::{InMemoryTopic, Message},
    };
    use serde_json::{Value, json};

    use super::*;

    const RECORD: &str = "x.jpg.prediction.json";

    fn new_failures() -> (RepeatedFailures, Arc<InMemoryBucket>, Arc<InMemoryTopic>) {
        let (bucket, results) = (Arc::<InMemoryBucket>::default(), Arc::<InMemoryTopic>::default());
        let model = ModelId::new("m", "0a".repeat(32));
        let records = Records::new(bucket.clone(), Some(results.clone()), model, PREDICTION);
        (RepeatedFailures::new(records, bucket.name()), bucket, results)
    }

    fn letter(data: &str) -> DeadLetter {
        let message = Message { data: Bytes::copy_from_slice(data.as_bytes()), ..Message::default() };
        DeadLetter { message, message_id: "1".to_owned(), failures: 20, reason: "secret".to_owned() }
    }

    fn announcement() -> String {
        json!({ "gcs_path": "gs://local/x.jpg" }).to_string()
    }

    #[tokio::test]
    async fn failure_is_published_and_stored_once() {
        let (failures, bucket, results) = new_failures();
        for _ in 0..2 {
            failures.record(letter(&announcement())).await.unwrap();
        }
        let record = bucket.read(&ObjectName::new(RECORD).unwrap(), 1000).await.unwrap();
        let record: Value = serde_json::from_slice(&record.data).unwrap();
        let expected = json!({
            "gcs_path": "gs://local/x.jpg",
            "model": "m",
            "model_sha256": "0a".repeat(32),
            "error": {
                "reason": "failed_repeatedly",
                "message": "the image could not be classified in 20 attempts",
            },
        });
        assert_eq!(record, expected);
        assert_eq!(results.messages().len(), 1);
    }

    #[tokio::test]
    async fn prediction_that_exists_is_kept() {
        let (failures, bucket, results) = new_failures();
        let prediction = json!({
            "gcs_path": "gs://local/x.jpg", "label": "espresso", "confidence": 0.5, "top": [], "model": "m",
            "backend": "b",
        });
        let name = ObjectName::new(RECORD).unwrap();
        bucket.replace(&name, prediction.to_string().into());
        failures.record(letter(&announcement())).await.unwrap();
        assert_eq!(bucket.read(&name, 1000).await.unwrap().data, prediction.to_string());
        assert!(results.messages().is_empty());
    }

    #[tokio::test]
    async fn failure_is_stored_beside_the_record_of_another_model_and_image_failures_count_for_every_model() {
        let own_name = "x.jpg.prediction.m-0a0a0a0a.json";
        let other_failure = json!({
            "gcs_path": "gs://local/x.jpg", "model": "other", "model_sha256": "0b".repeat(32),
            "error": { "reason": "failed_repeatedly", "message": "" },
        });
        let image_failure = json!({
            "gcs_path": "gs://local/x.jpg", "error": { "reason": "not_an_image", "message": "" },
        });
        for (first_record, expected) in
            [(other_failure, [RECORD, own_name].as_slice()), (image_failure, [RECORD].as_slice())]
        {
            let (failures, bucket, results) = new_failures();
            bucket.replace(&ObjectName::new(RECORD).unwrap(), first_record.to_string().into());
            for _ in 0..2 {
                failures.record(letter(&announcement())).await.unwrap();
            }
            let mut expected = expected.to_vec();
            expected.sort_unstable();
            assert_eq!(bucket.names(), expected);
            assert_eq!(results.messages().len(), expected.len() - 1);
        }
    }

    #[tokio::test]
    async fn unavailable_bucket_or_topic_is_an_error_so_that_the_record_is_made_later() {
        let (failures, bucket, results) = new_failures();
        bucket.fail_next(1);
        failures.record(letter(&announcement())).await.unwrap_err();
        results.fail_next(1);
        failures.record(letter(&announcement())).await.unwrap_err();
        assert!(bucket.names().is_empty());
    }

    #[tokio::test]
    async fn message_that_names_no_image_of_this_bucket_needs_no_record() {
        let (failures, bucket, _) = new_failures();
        for data in ["not JSON", "{}", r#"{"gcs_path":"x"}"#, r#"{"gcs_path":"gs://other/x.jpg"}"#] {
            failures.record(letter(data)).await.unwrap();
        }
        assert!(bucket.names().is_empty());
    }
}
