//! The service, which reads and decodes an image, runs the network and stores the prediction.
//!
//! [`announcements`](crate::announcements) calls the same functions to classify an announced image.

use std::sync::Arc;

use bytes::Bytes;
use contract::{GcsPath, Prediction, PredictionRecord};
use metrics::counter;
use platform::{
    bucket::{BucketError, Object, SharedBucket},
    cpu::CpuPool,
    http::Readiness,
};

use crate::{
    admission::{Admission, Caller, QueueFull, QueuePermit},
    announcements::{Records, StoredRecord, parse_object_name},
    backend::Backend,
    config::Settings,
    engine::InferenceQueue,
    error::ClassifyError,
    json::LargeJsonPermits,
    model::{GEOMETRY, labels, spec},
    pixels::{self, ImageHeader},
};

/// Classifies images. All requests and events share one service.
pub(crate) struct Service {
    pub(crate) settings: Settings,
    pub(crate) backend: Backend,
    pub(crate) readiness: Readiness,
    pub(crate) bucket: SharedBucket,
    pub(crate) records: Records,
    pub(crate) admission: Admission,
    pub(crate) decoder_pool: CpuPool,
    pub(crate) queue: InferenceQueue,
    pub(crate) json_permits: LargeJsonPermits,
}

/// Handle to the service that the routes share.
pub(crate) type SharedService = Arc<Service>;

/// A prediction for a request or an event.
pub(crate) struct Answer {
    pub(crate) prediction: Prediction,
    /// True if the prediction comes from a record that was stored earlier.
    pub(crate) duplicate: bool,
}

impl Service {
    /// Checks that the service is ready to classify images.
    ///
    /// # Errors
    /// Returns [`ClassifyError::Starting`] until every engine has warmed up, and [`ClassifyError::Draining`]
    /// after the shutdown has begun.
    pub(crate) fn check_ready(&self) -> Result<(), ClassifyError> {
        if self.readiness.is_draining() {
            Err(ClassifyError::Draining)
        } else if self.readiness.is_ready() {
            Ok(())
        } else {
            Err(ClassifyError::Starting)
        }
    }

    /// Checks that the service is ready to classify an image in the body of a request, before the body is read.
    ///
    /// # Errors
    /// Returns an error of [`Self::check_ready`], or [`ClassifyError::QueueFull`] if the queue is full.
    pub(crate) fn check_room_for_request(&self) -> Result<(), ClassifyError> {
        self.check_ready()?;
        if self.admission.is_full(Caller::Request) {
            self.admission.count_refusal(Caller::Request);
            return Err(QueueFull.into());
        }
        Ok(())
    }

    /// Classifies an image from the body of a request. Stores nothing.
    pub(crate) async fn classify_bytes(&self, image: Bytes, top_k: usize) -> Result<Answer, ClassifyError> {
        let limit = self.settings.max_image_bytes;
        if image.len() > limit {
            return Err(ClassifyError::TooManyBytes { limit });
        }
        let permit = self.admission.admit(Caller::Request).await?;
        let probabilities = self.compute_probabilities(image, permit).await?;
        Ok(Answer { prediction: self.build_prediction(&probabilities, top_k, None), duplicate: false })
    }

    /// Classifies an image in the bucket, or returns the recorded prediction of the image.
    ///
    /// A recorded prediction is used if it comes from this model and has at least `top_k` classes. An event
    /// that announces the same image may be handled at the same time. This function does not wait until that
    /// event has a prediction, because a client waits for the response.
    pub(crate) async fn classify_object(
        &self,
        path: &GcsPath,
        top_k: usize,
    ) -> Result<Answer, ClassifyError> {
        self.check_bucket(path)?;
        // The name of a preprocessed image is derived from its content, so the image has only one version.
        // Any other image has a record per version, so the image is read first to learn its version.
        let image = match path.image_id() {
            Some(_) => None,
            None => Some(self.read_image_for_request(path).await?),
        };
        let generation = image.as_ref().and_then(|(image, _)| image.generation);
        let (key, existing_object) = self.records.look_up(path, generation).await?;
        match &existing_object {
            StoredRecord::Record(PredictionRecord::Done(prediction))
                if prediction.model == spec::NAME && prediction.top.len() >= top_k =>
            {
                return Ok(Answer { prediction: prediction.clone(), duplicate: true });
            }
            // In every other case the image is classified, even if its record is a failure. The failure may
            // come from limits that have been raised since.
            _ => {}
        }
        let (image, permit) = match image {
            Some(image) => image,
            None => self.read_image_for_request(path).await?,
        };
        let probabilities = self.compute_probabilities(image.data, permit).await?;
        let record = self.build_record(path, &probabilities);
        self.records.publish_and_store(&key, &existing_object, &record, None).await?;
        let prediction = self.build_prediction(&probabilities, top_k, Some(path.clone()));
        Ok(Answer { prediction, duplicate: false })
    }

    /// Returns an error unless `path` is in the bucket of this service.
    pub(crate) fn check_bucket(&self, path: &GcsPath) -> Result<(), ClassifyError> {
        if path.bucket() == self.bucket.name() {
            Ok(())
        } else {
            Err(ClassifyError::WrongBucket(self.bucket.name().to_owned()))
        }
    }

    /// Admits a request to the queue, then reads the image at `path`.
    async fn read_image_for_request(&self, path: &GcsPath) -> Result<(Object, QueuePermit), ClassifyError> {
        let permit = self.admission.admit(Caller::Request).await?;
        Ok((self.read_image(path).await?, permit))
    }

    /// Reads the image at `path`, which must be in the bucket of this service.
    pub(crate) async fn read_image(&self, path: &GcsPath) -> Result<Object, ClassifyError> {
        let object = parse_object_name(path.object())?;
        let limit = self.settings.max_image_bytes;
        let image = self.bucket.read(&object, limit).await.map_err(|error| match error {
            BucketError::NotFound(_) => ClassifyError::NoSuchObject(path.clone()),
            BucketError::TooLarge { .. } => ClassifyError::TooManyBytes { limit },
            other => other.into(),
        })?;
        // An image without a checksum may be damaged, too. Without this check the damage would be recorded as
        // a failure of the image, and uploading the image again would not lead to a prediction.
        if path.image_id().is_some() && !contract::stored_image_looks_intact(&image.data) {
            return Err(BucketError::Damaged(object.to_string()).into());
        }
        Ok(image)
    }

    /// Builds the record of the image at `path` from the `probabilities` of its classes.
    pub(crate) fn build_record(&self, path: &GcsPath, probabilities: &[f32]) -> PredictionRecord {
        let top_k = self.settings.top_k.get();
        PredictionRecord::Done(self.build_prediction(probabilities, top_k, Some(path.clone())))
    }

    /// Decodes `image`, runs the network on its crop and computes the probabilities of the classes.
    ///
    /// `permit` is the permit with which the image was read. It is released when an engine runs the crop.
    pub(crate) async fn compute_probabilities(
        &self,
        image: Bytes,
        permit: QueuePermit,
    ) -> Result<Vec<f32>, ClassifyError> {
        let header = ImageHeader::read(&image, self.settings.max_pixels)?;
        let pixel_permit = self.admission.admit_pixels(&permit, header.pixels()).await?;
        // The job owns the permits, so they are held until the job ends even if the caller has gone by then.
        let (crop, permit) = self
            .decoder_pool
            .run(header.pixels(), move || {
                let crop = pixels::crop(&image, &header, GEOMETRY);
                drop(pixel_permit);
                (crop, permit)
            })
            .await?;
        let logits = self.queue.infer(crop?, permit).await?;
        let probabilities = labels::compute_probabilities(&logits)
            .inspect_err(|_| counter!("classify_unsound_outputs_total").increment(1))?;
        Ok(probabilities)
    }

    fn build_prediction(&self, probabilities: &[f32], top_k: usize, gcs_path: Option<GcsPath>) -> Prediction {
        labels::build_prediction(probabilities, top_k, self.backend.name(), gcs_path)
    }
}
