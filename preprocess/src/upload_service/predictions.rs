//! Reads the predictions and embeddings of stored images, and announces images again whose prediction is damaged, whose
//! announcement is lost, or which the current model has not classified.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use contract::{ImageId, MAX_PREDICTION_BYTES, ModelKey, ModelSelector, RECORD_BASE_NAMES, RecordedModel};
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

/// The model whose record is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WantedModel {
    /// The first model that classified the image, whichever it is, because the current model is not known.
    First,
    /// The model that classifies images at present.
    Current(ModelKey),
    /// A model that a client names, and that is not known to be the current one.
    Named(ModelSelector),
}

/// Position of a read of the records in its request.
///
/// The first model's record is rarely deleted while a record of a later model remains. So only the first read of a
/// request looks for the record of a later model if the image has no first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordRead {
    First,
    /// The request has read the records before, and waits for a new one.
    Repeated,
}

/// Result of looking for the prediction or the embedding of an image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FoundPrediction {
    /// The stored JSON of the prediction, the embedding or the record of a failure.
    Json(Bytes),
    /// The image has no record.
    Missing,
    /// The image has records of other models only.
    OfOtherModel,
}

/// The stored record of an image: a prediction, an embedding or a failure.
enum StoredPrediction {
    Missing,
    /// The content is a record, which names `model`.
    Intact {
        json: Bytes,
        model: RecordedModel,
    },
    /// The first object is an intact record of another model, and the wanted model has none.
    OfOtherModel,
    /// The object of this name is damaged.
    Damaged(ObjectName),
    /// The object is larger than any prediction of this version. classify does not replace it.
    TooLarge(BucketError),
}

impl WantedModel {
    /// Returns true if a record that names `recorded` may be of the wanted model.
    fn may_be(&self, recorded: &RecordedModel) -> bool {
        match self {
            Self::First => true,
            Self::Current(key) => recorded.may_be(key),
            Self::Named(selector) => recorded.may_be_selected_by(selector),
        }
    }

    /// Returns the key in the name of the prediction, if the model was not the first one. Returns `None` if the key is
    /// not known.
    fn key(&self) -> Option<ModelKey> {
        match self {
            Self::First => None,
            Self::Current(key) => Some(key.clone()),
            Self::Named(selector) => selector.key(),
        }
    }
}

impl StoredPrediction {
    /// Returns true if this is a record that names the model that made it.
    fn names_its_model(&self) -> bool {
        matches!(self, Self::Intact { model, .. } if model.has_name())
    }

    /// Returns a number that is higher, the more this object says about the wanted model's record.
    fn precedence(&self) -> u8 {
        match self {
            Self::Missing => 0,
            Self::OfOtherModel => 1,
            Self::Damaged(_) => 2,
            Self::TooLarge(_) => 3,
            Self::Intact { .. } => 4,
        }
    }
}

impl UploadService {
    /// Returns the model whose prediction a client wants that selects the model `selected`, or none.
    pub(crate) fn wanted_model(&self, selected: Option<ModelSelector>) -> WantedModel {
        match (&self.current_model, selected) {
            (None, None) => WantedModel::First,
            (Some(key), None) => WantedModel::Current(key.clone()),
            (Some(key), Some(selector)) if key.is_selected_by(&selector) => WantedModel::Current(key.clone()),
            (_, Some(selector)) => WantedModel::Named(selector),
        }
    }

    /// Returns true if the model makes no further predictions, because another model is the current one.
    pub(crate) fn is_former_model(&self, wanted: &WantedModel) -> bool {
        matches!(wanted, WantedModel::Named(_)) && self.current_model.is_some()
    }

    /// Returns true if the current model has made a prediction of the image, or a record of its failure.
    ///
    /// Returns false if the current model is not known.
    pub(super) async fn has_current_prediction(&self, id: &ImageId) -> Result<bool, ServiceError> {
        let Some(key) = &self.current_model else { return Ok(false) };
        let prediction =
            self.load_prediction(id, &WantedModel::Current(key.clone()), RecordRead::First).await?;
        Ok(matches!(prediction, StoredPrediction::Intact { .. } | StoredPrediction::TooLarge(_)))
    }

    /// Reads the stored JSON of the prediction or the embedding that the wanted model has made of an image.
    ///
    /// A damaged prediction counts as missing. Its image is announced again, so that a new prediction replaces
    /// the damaged one.
    pub(crate) async fn read_prediction(
        &self,
        id: &ImageId,
        wanted: &WantedModel,
        read: RecordRead,
    ) -> Result<FoundPrediction, ServiceError> {
        match self.load_prediction(id, wanted, read).await? {
            StoredPrediction::Missing => Ok(FoundPrediction::Missing),
            StoredPrediction::Intact { json, .. } => Ok(FoundPrediction::Json(json)),
            StoredPrediction::OfOtherModel => Ok(FoundPrediction::OfOtherModel),
            StoredPrediction::TooLarge(error) => Err(error.into()),
            StoredPrediction::Damaged(name) => {
                self.handle_damaged_prediction(id, &name).await?;
                Ok(FoundPrediction::Missing)
            }
        }
    }

    /// Reads the record of the wanted model, which is a prediction or an embedding.
    ///
    /// Only classify knows which of the two its model makes, so records of both kinds are looked for. A record that
    /// names the wanted model takes precedence over a failure that counts for every model.
    async fn load_prediction(
        &self,
        id: &ImageId,
        wanted: &WantedModel,
        read: RecordRead,
    ) -> Result<StoredPrediction, ServiceError> {
        let mut best = StoredPrediction::Missing;
        for base_name in RECORD_BASE_NAMES {
            let stored = self.load_record(id, base_name, wanted, read).await?;
            if stored.names_its_model() {
                return Ok(stored);
            }
            if stored.precedence() > best.precedence() {
                best = stored;
            }
        }
        Ok(best)
    }

    /// Reads the first model's record of one kind, and the wanted model's one if the first record is of another model,
    /// damaged or missing.
    async fn load_record(
        &self,
        id: &ImageId,
        base_name: &str,
        wanted: &WantedModel,
        read: RecordRead,
    ) -> Result<StoredPrediction, ServiceError> {
        let first = match self.load_object(id.record_object_name(base_name, None)).await? {
            StoredPrediction::Intact { model, .. } if !wanted.may_be(&model) => {
                StoredPrediction::OfOtherModel
            }
            first @ (StoredPrediction::Intact { .. } | StoredPrediction::TooLarge(_)) => return Ok(first),
            StoredPrediction::Missing if read == RecordRead::Repeated => {
                return Ok(StoredPrediction::Missing);
            }
            first => first,
        };
        let Some(key) = wanted.key() else { return Ok(first) };
        Ok(match (self.load_object(id.record_object_name(base_name, Some(&key))).await?, &first) {
            (stored @ (StoredPrediction::Intact { .. } | StoredPrediction::TooLarge(_)), _)
            | (stored @ StoredPrediction::Damaged(_), StoredPrediction::OfOtherModel) => stored,
            // classify stores a new record under the first name.
            _ => first,
        })
    }

    async fn load_object(&self, name: String) -> Result<StoredPrediction, ServiceError> {
        let name = ObjectName::new(name).map_err(ServiceError::internal)?;
        match self.bucket.read(&name, MAX_PREDICTION_BYTES).await {
            Ok(object) => Ok(match RecordedModel::read(&object.data) {
                Some(model) => StoredPrediction::Intact { json: object.data, model },
                None => StoredPrediction::Damaged(name),
            }),
            Err(BucketError::Damaged(_)) => Ok(StoredPrediction::Damaged(name)),
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
        if !matches!(
            self.load_prediction(id, &WantedModel::First, RecordRead::First).await?,
            StoredPrediction::Missing
        ) {
            return Ok(());
        }
        let Some(reannouncement) = self.reannouncements.begin(id) else { return Ok(()) };
        tracing::warn!(%id, "an image has neither a prediction nor an announcement; it is announced again");
        self.finish_reannouncement(reannouncement).await?;
        counter!("topic_reannounced_images_total").increment(1);
        Ok(())
    }

    /// Announces an image again that has a prediction, but none of the current model.
    ///
    /// Does nothing if the image is announced already, or was announced again a short time ago. Returns false if the
    /// service has no topic, so that it cannot announce the image.
    pub(crate) async fn announce_to_current_model(&self, id: &ImageId) -> Result<bool, ServiceError> {
        let Some(topic) = &self.topic else { return Ok(false) };
        // Topics that do not count their messages return `None`. A second message is harmless there.
        if matches!(topic.count_ahead(id.as_str()).await, Ok(Some(_))) {
            return Ok(true);
        }
        let Some(reannouncement) = self.reannouncements.begin(id) else { return Ok(true) };
        tracing::info!(%id, "an image without a prediction of the current model is announced again");
        self.finish_reannouncement(reannouncement).await?;
        counter!("preprocess_new_model_announcements_total").increment(1);
        Ok(true)
    }

    /// Announces the image of the damaged prediction `name` again, unless this was done a short time ago.
    ///
    /// # Errors
    /// Returns [`ServiceError::DamagedPrediction`] if the bucket cannot replace the damaged prediction.
    async fn handle_damaged_prediction(&self, id: &ImageId, name: &ObjectName) -> Result<(), ServiceError> {
        counter!("preprocess_damaged_predictions_total").increment(1);
        if !self.bucket.replaces_broken_objects() {
            return Err(ServiceError::DamagedPrediction(name.to_string()));
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
