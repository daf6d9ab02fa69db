//! What the routes ask for: read the image, make the crop, run the network, write the prediction.

use std::sync::Arc;

use bytes::Bytes;
use metrics::counter;
use platform::{
    bucket::{BucketError, Created, ObjectName, SharedBucket},
    contract::{Failure, GcsPath, Prediction, PredictionRecord},
    cpu::{CpuError, CpuPool},
    http::Readiness,
};

use crate::{
    backend::Backend,
    classes::prediction,
    config::Settings,
    engine::Engines,
    error::ClassifyError,
    network::{GEOMETRY, spec},
    outcome::{Dead, Outcome},
    pixels::{self, Header},
};

/// Larger than any prediction that this service writes.
const MAX_RECORD_BYTES: usize = 1 << 20;
const JSON: &str = "application/json";

/// The parts that classify an image, shared by all requests.
pub(crate) struct Service {
    pub(crate) settings: Settings,
    pub(crate) readiness: Readiness,
    pub(crate) bucket: SharedBucket,
    pub(crate) decoders: CpuPool,
    pub(crate) engines: Engines,
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
        Ok(Answer { prediction: prediction(&probabilities, top_k, self.backend(), None), duplicate: false })
    }

    /// Answers a request for a stored image with `top_k` classes: from the prediction on record where
    /// that is by this model and long enough, else by classifying the image.
    pub(crate) async fn classify_object(
        &self,
        path: &GcsPath,
        top_k: usize,
    ) -> Result<Answer, ClassifyError> {
        let place = self.place(path)?;
        match self.record(&place.prediction).await? {
            Some(PredictionRecord::Done(found)) if found.model == spec::NAME && found.top.len() >= top_k => {
                return Ok(Answer { prediction: found, duplicate: true });
            }
            // A failure on record may be due to limits that were since raised: let the image speak.
            _ => {}
        }
        let image = self.image(path, &place.image).await?;
        let probabilities = self.probabilities(image).await?;
        self.write(&place.prediction, &self.record_of(path, &probabilities)).await?;
        let prediction = prediction(&probabilities, top_k, self.backend(), Some(path.clone()));
        Ok(Answer { prediction, duplicate: false })
    }

    /// Classifies the image of an event, once: an event that comes again is answered from the record,
    /// and an image that can never be classified gets a record that says so.
    pub(crate) async fn classify_event(&self, path: &GcsPath) -> Result<Answer, ClassifyError> {
        let place = self.place(path)?;
        if let Some(record) = self.record(&place.prediction).await? {
            return on_record(record);
        }
        let image = async {
            let image = self.image(path, &place.image).await?;
            self.probabilities(image).await
        };
        let record = match image.await {
            Ok(probabilities) => self.record_of(path, &probabilities),
            Err(error) => {
                self.record_failure(path, &place.prediction, &error).await?;
                return Err(error);
            }
        };
        if self.write(&place.prediction, &record).await? == Created::AlreadyThere {
            // The same event was handled elsewhere in the meantime; what stands there counts.
            if let Some(found) = self.record(&place.prediction).await? {
                return on_record(found);
            }
        }
        on_record(record).map(|answer| Answer { duplicate: false, ..answer })
    }

    fn backend(&self) -> Backend {
        self.settings.backend
    }

    /// Where the image at `path` and its prediction are in the bucket served here.
    fn place(&self, path: &GcsPath) -> Result<Place, ClassifyError> {
        if path.bucket() != self.bucket.name() {
            return Err(ClassifyError::WrongBucket(self.bucket.name().to_owned()));
        }
        let object = |name: String| ObjectName::new(name).map_err(|_| ClassifyError::BadPath);
        Ok(Place { image: object(path.object().to_owned())?, prediction: object(path.prediction_object())? })
    }

    async fn image(&self, path: &GcsPath, object: &ObjectName) -> Result<Bytes, ClassifyError> {
        let limit = self.settings.max_image_bytes;
        self.bucket.read(object, limit).await.map_err(|error| match error {
            BucketError::NotFound(_) => ClassifyError::NoSuchObject(path.clone()),
            BucketError::TooLarge { .. } => ClassifyError::TooManyBytes { limit },
            other => other.into(),
        })
    }

    /// What stands in `object`, if it can be understood.
    async fn record(&self, object: &ObjectName) -> Result<Option<PredictionRecord>, ClassifyError> {
        let bytes = match self.bucket.read(object, MAX_RECORD_BYTES).await {
            Ok(bytes) => bytes,
            Err(BucketError::NotFound(_)) => return Ok(None),
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
        Ok(record)
    }

    fn record_of(&self, path: &GcsPath, probabilities: &[f32]) -> PredictionRecord {
        let top_k = self.settings.top_k.get();
        PredictionRecord::Done(prediction(probabilities, top_k, self.backend(), Some(path.clone())))
    }

    /// Writes down that an image can never be classified, if that is what `error` means.
    async fn record_failure(
        &self,
        path: &GcsPath,
        object: &ObjectName,
        error: &ClassifyError,
    ) -> Result<(), ClassifyError> {
        let row = Outcome::of(error).row();
        if row.recorded {
            let error = Failure { reason: row.reason.to_owned(), message: error.to_string() };
            self.write(object, &PredictionRecord::Failed { gcs_path: path.clone(), error }).await?;
        }
        Ok(())
    }

    async fn write(&self, object: &ObjectName, record: &PredictionRecord) -> Result<Created, ClassifyError> {
        let json = serde_json::to_vec(record).map_err(|error| BucketError::Unavailable(error.into()))?;
        Ok(self.bucket.create(object, json.into(), JSON).await?)
    }

    /// Crop and network: the CPU's part.
    async fn probabilities(&self, image: Bytes) -> Result<Vec<f32>, ClassifyError> {
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

struct Place {
    image: ObjectName,
    prediction: ObjectName,
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

/// The service as the routes share it.
pub(crate) type SharedService = Arc<Service>;
