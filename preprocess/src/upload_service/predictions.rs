//! Reads the predictions of stored images, and announces images again whose prediction is damaged or whose
//! announcement is lost.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use contract::{ImageId, MAX_PREDICTION_BYTES, PredictionRecord};
use metrics::counter;
use platform::{
    bucket::{BucketError, ObjectName},
    telemetry::error_chain,
};
use tokio::time::Instant;

use super::UploadService;
use crate::{announcement::announce_again, error::ServiceError};

/// Minimum time between two repeated announcements of the same image.
const REANNOUNCEMENT_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of images that can be announced again during [`REANNOUNCEMENT_INTERVAL`].
const MAX_REANNOUNCEMENTS: usize = 1000;

/// The object that has the name of an image's prediction.
enum StoredPrediction {
    Missing,
    /// The content is a record of a prediction or of a failure.
    Intact(Bytes),
    Damaged,
    /// The object is larger than any prediction of this version. classify does not replace it.
    TooLarge(BucketError),
}

impl UploadService {
    /// Returns true if the image has a prediction, or a record of its failure.
    pub(super) async fn has_prediction(&self, id: &ImageId) -> Result<bool, ServiceError> {
        let prediction = self.load_prediction(id).await?;
        Ok(matches!(prediction, StoredPrediction::Intact(_) | StoredPrediction::TooLarge(_)))
    }

    /// Reads the stored JSON of an image's prediction. Returns `None` if the image has no prediction yet.
    ///
    /// A damaged prediction counts as missing. Its image is announced again, so that a new prediction replaces
    /// the damaged one.
    pub(crate) async fn read_prediction(&self, id: &ImageId) -> Result<Option<Bytes>, ServiceError> {
        match self.load_prediction(id).await? {
            StoredPrediction::Missing => Ok(None),
            StoredPrediction::Intact(json) => Ok(Some(json)),
            StoredPrediction::TooLarge(error) => Err(error.into()),
            StoredPrediction::Damaged => {
                self.handle_damaged_prediction(id).await?;
                Ok(None)
            }
        }
    }

    async fn load_prediction(&self, id: &ImageId) -> Result<StoredPrediction, ServiceError> {
        match self.bucket.read(&prediction_object_name(id)?, MAX_PREDICTION_BYTES).await {
            Ok(prediction) if PredictionRecord::is_record(&prediction.data) => {
                Ok(StoredPrediction::Intact(prediction.data))
            }
            Ok(_) | Err(BucketError::Damaged(_)) => Ok(StoredPrediction::Damaged),
            Err(BucketError::NotFound(_)) => Ok(StoredPrediction::Missing),
            Err(error @ BucketError::TooLarge { .. }) => Ok(StoredPrediction::TooLarge(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the number of images that are classified before the image `id`, which has no prediction. Returns
    /// `None` if the topic does not know the number.
    ///
    /// If the topic has lost the announcement of the image, the image is announced again. Otherwise it would never
    /// get a prediction.
    pub(crate) async fn count_ahead(&self, id: &ImageId) -> Result<Option<u64>, ServiceError> {
        let Some(topic) = &self.topic else { return Ok(None) };
        match topic.count_ahead(id.as_str()).await {
            Ok(None) if topic.finds_every_message() => {
                self.announce_lost_image(id).await?;
                Ok(None)
            }
            Ok(ahead) => Ok(ahead),
            Err(error) => {
                // The prediction is pending with or without the number.
                tracing::debug!(%id, error = error_chain(&error), "the images ahead cannot be counted");
                Ok(None)
            }
        }
    }

    /// Announces an image that has no message on the topic, unless it has a prediction or this was done a short time
    /// ago.
    async fn announce_lost_image(&self, id: &ImageId) -> Result<(), ServiceError> {
        // A message is removed after the prediction is stored. So the prediction may have been stored since the caller
        // looked for it.
        if !matches!(self.load_prediction(id).await?, StoredPrediction::Missing) {
            return Ok(());
        }
        let Some(reannouncement) = self.reannouncements.begin(id) else { return Ok(()) };
        tracing::warn!(%id, "an image has neither a prediction nor an announcement; it is announced again");
        self.finish_reannouncement(reannouncement).await?;
        counter!("topic_reannounced_images_total").increment(1);
        Ok(())
    }

    /// Announces the image of a damaged prediction again, unless this was done a short time ago.
    ///
    /// # Errors
    /// Returns [`ServiceError::DamagedPrediction`] if the bucket cannot replace the damaged prediction.
    async fn handle_damaged_prediction(&self, id: &ImageId) -> Result<(), ServiceError> {
        counter!("preprocess_damaged_predictions_total").increment(1);
        if !self.bucket.replaces_broken_objects() {
            return Err(ServiceError::DamagedPrediction(id.prediction_object_name()));
        }
        if !self.has_image(id).await? {
            return Ok(());
        }
        let Some(reannouncement) = self.reannouncements.begin(id) else { return Ok(()) };
        tracing::warn!(%id, "a stored prediction is damaged; its image is announced again");
        self.finish_reannouncement(reannouncement).await
    }

    async fn finish_reannouncement(&self, reannouncement: Reannouncement<'_>) -> Result<(), ServiceError> {
        let (_, gcs_path) = self.image_object(reannouncement.id)?;
        self.announce(announce_again(gcs_path)).await?;
        reannouncement.finish();
        Ok(())
    }
}

/// The images that were announced again a short time ago.
///
/// Clients may ask for the same prediction many times before it is stored. Only the first request announces the
/// image.
#[derive(Debug, Default)]
pub(super) struct Reannouncements {
    /// Time of each announcement.
    times: Mutex<HashMap<ImageId, Instant>>,
}

/// An announcement in progress. Dropping this value before the announcement is finished forgets the announcement, so
/// that the next request repeats it.
struct Reannouncement<'a> {
    id: &'a ImageId,
    reannouncements: &'a Reannouncements,
    is_finished: bool,
}

impl Reannouncements {
    /// Begins to announce an image. Returns `None` if the image must not be announced now.
    fn begin<'a>(&'a self, id: &'a ImageId) -> Option<Reannouncement<'a>> {
        let now = Instant::now();
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.retain(|_, time| now - *time < REANNOUNCEMENT_INTERVAL);
        if times.len() >= MAX_REANNOUNCEMENTS || times.contains_key(id) {
            return None;
        }
        times.insert(id.clone(), now);
        Some(Reannouncement { id, reannouncements: self, is_finished: false })
    }
}

impl Reannouncement<'_> {
    /// Records that the image was announced.
    fn finish(mut self) {
        self.is_finished = true;
    }
}

impl Drop for Reannouncement<'_> {
    fn drop(&mut self) {
        if !self.is_finished {
            self.reannouncements.times.lock().unwrap_or_else(PoisonError::into_inner).remove(self.id);
        }
    }
}

fn prediction_object_name(id: &ImageId) -> Result<ObjectName, ServiceError> {
    ObjectName::new(id.prediction_object_name()).map_err(ServiceError::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn image_is_announced_again_once_per_interval() {
        let id = |number: usize| format!("{number:032x}").parse::<ImageId>().unwrap();
        let reannouncements = Reannouncements::default();
        let announce = |id: &ImageId| reannouncements.begin(id).map(Reannouncement::finish).is_some();
        assert!(announce(&id(0)) && !announce(&id(0)));
        let other = id(1);
        let unfinished = reannouncements.begin(&other);
        assert!(unfinished.is_some() && !announce(&other), "one announcement at a time");
        drop(unfinished);
        assert!(announce(&other) && !announce(&other));
        tokio::time::advance(REANNOUNCEMENT_INTERVAL).await;
        assert!(announce(&id(0)) && !announce(&id(0)));
        assert_eq!(reannouncements.times.lock().unwrap().len(), 1, "old announcements are forgotten");
        for number in 0..MAX_REANNOUNCEMENTS {
            announce(&id(number));
        }
        assert!(!announce(&id(MAX_REANNOUNCEMENTS)));
        assert_eq!(reannouncements.times.lock().unwrap().len(), MAX_REANNOUNCEMENTS);
    }
}
