//! What the routes ask for: read the image, make the crop, run the network, write the prediction.
//! What is done with an announced image, from any source, is in [`event`](crate::event).

use std::sync::Arc;

use bytes::Bytes;
use contract::{GcsPath, Prediction, PredictionRecord};
use metrics::counter;
use platform::{
    bucket::{BucketError, Object, SharedBucket},
    cpu::{CpuError, CpuPool},
    http::Readiness,
};

use crate::{
    backend::Backend,
    classes::prediction,
    config::Settings,
    engine::Engines,
    error::ClassifyError,
    in_flight::InFlight,
    network::{GEOMETRY, spec},
    pixels::{self, Header},
    records::{Found, Records, object_name},
};

/// The parts that classify an image, shared by all requests.
pub(crate) struct Service {
    pub(crate) settings: Settings,
    pub(crate) backend: Backend,
    pub(crate) readiness: Readiness,
    pub(crate) bucket: SharedBucket,
    pub(crate) records: Records,
    pub(crate) decoders: CpuPool,
    pub(crate) engines: Engines,
    pub(crate) in_flight: InFlight,
}

/// A prediction, and whether it had been made before.
pub(crate) struct Answer {
    pub(crate) prediction: Prediction,
    pub(crate) duplicate: bool,
}

impl Service {
    /// Lets work in, unless the model is not loaded yet or the service is on its way out.
    pub(crate) fn admit(&self) -> Result<(), ClassifyError> {
        if self.readiness.is_draining() {
            Err(ClassifyError::Draining)
        } else if self.readiness.is_ready() {
            Ok(())
        } else {
            Err(ClassifyError::Starting)
        }
    }

    /// Classifies an image that came with the request; nothing is stored.
    pub(crate) async fn classify_bytes(&self, image: Bytes, top_k: usize) -> Result<Answer, ClassifyError> {
        let limit = self.settings.max_image_bytes;
        if image.len() > limit {
            return Err(ClassifyError::TooManyBytes { limit });
        }
        let probabilities = self.probabilities(image).await?;
        Ok(Answer { prediction: prediction(&probabilities, top_k, self.backend, None), duplicate: false })
    }

    /// Answers a request for a stored image with `top_k` classes: from the prediction on record where
    /// that is by this model and long enough, else by classifying the image. It does not wait for an
    /// announcement of the same image that is being handled: the caller is there now.
    pub(crate) async fn classify_object(
        &self,
        path: &GcsPath,
        top_k: usize,
    ) -> Result<Answer, ClassifyError> {
        self.check_bucket(path)?;
        // A preprocessed image has one version. Of any other the record goes by what is read.
        let image = match path.image_id() {
            Some(_) => None,
            None => Some(self.image(path).await?),
        };
        let generation = image.as_ref().and_then(|image| image.generation);
        let place = self.records.look(path, generation).await?;
        match &place.found {
            Found::Record(PredictionRecord::Done(found))
                if found.model == spec::NAME && found.top.len() >= top_k =>
            {
                return Ok(Answer { prediction: found.clone(), duplicate: true });
            }
            // A failure on record may be due to limits that were since raised: let the image speak.
            _ => {}
        }
        let image = match image {
            Some(image) => image,
            None => self.image(path).await?,
        };
        let probabilities = self.probabilities(image.data).await?;
        self.records.add(&place, &self.record_of(path, &probabilities), None).await?;
        let prediction = prediction(&probabilities, top_k, self.backend, Some(path.clone()));
        Ok(Answer { prediction, duplicate: false })
    }

    /// Only one bucket is served here.
    pub(crate) fn check_bucket(&self, path: &GcsPath) -> Result<(), ClassifyError> {
        if path.bucket() == self.bucket.name() {
            Ok(())
        } else {
            Err(ClassifyError::WrongBucket(self.bucket.name().to_owned()))
        }
    }

    /// The image at `path`, which is in the bucket served here.
    pub(crate) async fn image(&self, path: &GcsPath) -> Result<Object, ClassifyError> {
        let object = object_name(path.object())?;
        let limit = self.settings.max_image_bytes;
        self.bucket.read(&object, limit).await.map_err(|error| match error {
            BucketError::NotFound(_) => ClassifyError::NoSuchObject(path.clone()),
            BucketError::TooLarge { .. } => ClassifyError::TooManyBytes { limit },
            other => other.into(),
        })
    }

    /// The record of an image with these `probabilities`.
    pub(crate) fn record_of(&self, path: &GcsPath, probabilities: &[f32]) -> PredictionRecord {
        let top_k = self.settings.top_k.get();
        PredictionRecord::Done(prediction(probabilities, top_k, self.backend, Some(path.clone())))
    }

    /// Crop and network: the CPU's part.
    pub(crate) async fn probabilities(&self, image: Bytes) -> Result<Vec<f32>, ClassifyError> {
        let header = Header::read(&image, self.settings.max_pixels)?;
        let crop = self
            .decoders
            .run(header.pixels(), move || pixels::crop(&image, &header, GEOMETRY))
            .await
            .inspect_err(|error| {
                if *error == CpuError::Overloaded {
                    counter!("classify_shed_total", "reason" => "decoders_busy").increment(1);
                }
            })??;
        Ok(self.engines.infer(crop).await?)
    }
}

/// The service as the routes share it.
pub(crate) type SharedService = Arc<Service>;
