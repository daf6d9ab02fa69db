//! The service, which reads and decodes an image, runs the network and stores the prediction.
//!
//! [`announcements`](crate::announcements) calls the same functions to classify an announced image.

use std::sync::Arc;

use contract::{Embedding, GcsPath, Prediction, PredictionRecord};
use metrics::counter;
use platform::{
    bucket::{BucketError, SharedBucket},
    cpu::{CpuError, CpuPool},
    http::{BodyReceiver, Readiness, RefusalDelay},
    memory_budget::{MemoryBudget, MemoryBudgetError, ReservedBytes},
};
use tokio::{sync::watch, task::JoinError};

use crate::{
    announcements::{Records, StoredRecord, parse_object_name},
    backend::Backend,
    config::Settings,
    engine::InferenceQueue,
    enlargement::EnlargementReport,
    error::ClassifyError,
    json::LargeJsonPermits,
    model::{GEOMETRY, Head, labels},
    pixels::{self, ImageError, ImageHeader},
    queue_permits::{Caller, QueueFull, QueuePermit, QueuePermits},
};

/// Limits of the attempts to read a file from the bucket, in bytes. The last attempt has the limit of the
/// settings.
///
/// The length of a file is not known before it is read, so each attempt reserves memory for its limit. Images
/// that preprocess has stored are shorter than the first one.
const READ_LIMITS: [usize; 2] = [512 << 10, 4 << 20];

/// Classifies images. All requests and events share one service.
pub(crate) struct Service {
    pub(crate) settings: Settings,
    /// Head of the model, which is that of the compiled-in model except in tests.
    pub(crate) head: Head,
    /// Backend that runs the network. It changes if the engines on a GPU do not warm up.
    pub(crate) backend: watch::Sender<Backend>,
    pub(crate) readiness: Readiness,
    /// Receives request bodies, in the memory for files.
    pub(crate) bodies: BodyReceiver,
    pub(crate) refusal_delay: RefusalDelay,
    /// Memory for request bodies and for files that are read from the bucket.
    pub(crate) file_memory: MemoryBudget,
    pub(crate) decoding_memory: MemoryBudget,
    /// Maximum number of bytes that decoding one image may need.
    pub(crate) max_image_memory: u64,
    pub(crate) bucket: SharedBucket,
    pub(crate) records: Records,
    pub(crate) queue_permits: QueuePermits,
    pub(crate) decoder_pool: CpuPool,
    pub(crate) queue: InferenceQueue,
    pub(crate) json_permits: LargeJsonPermits,
    pub(crate) enlargements: EnlargementReport,
}

/// Handle to the service that the routes share.
pub(crate) type SharedService = Arc<Service>;

/// An image that was read from the bucket.
pub(crate) struct StoredImage {
    pub(crate) file: ReservedBytes,
    /// Version of the object, in a bucket with versions.
    pub(crate) generation: Option<i64>,
}

/// The result for an image of a request or an event.
pub(crate) struct Answer<T> {
    pub(crate) result: T,
    /// True if the result comes from a record that was stored earlier.
    pub(crate) duplicate: bool,
}

/// Result of the network for an image. The head of the model decides which one it is.
pub(crate) enum ImageResult {
    Prediction(Prediction),
    Embedding(Embedding),
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
        if self.queue_permits.is_full(Caller::Request) {
            self.queue_permits.count_refusal(Caller::Request);
            return Err(QueueFull.into());
        }
        Ok(())
    }

    /// Classifies an image from the body of a request. Stores nothing.
    pub(crate) async fn classify_bytes(
        &self,
        image: ReservedBytes,
        top_k: usize,
    ) -> Result<Answer<Prediction>, ClassifyError> {
        let probabilities = self.run_on_bytes(image).await?;
        Ok(Answer { result: self.build_prediction(&probabilities, top_k, None), duplicate: false })
    }

    /// Computes the embedding of an image from the body of a request. Stores nothing.
    pub(crate) async fn embed_bytes(&self, image: ReservedBytes) -> Result<Answer<Embedding>, ClassifyError> {
        let embedding = self.run_on_bytes(image).await?;
        Ok(Answer { result: self.build_embedding(embedding, None), duplicate: false })
    }

    async fn run_on_bytes(&self, image: ReservedBytes) -> Result<Vec<f32>, ClassifyError> {
        let limit = self.settings.max_image_bytes;
        if image.bytes.len() > limit {
            return Err(ClassifyError::TooManyBytes { limit });
        }
        let permit = self.queue_permits.acquire(Caller::Request).await?;
        self.run_network(image, permit).await
    }

    /// Classifies an image in the bucket, or returns the recorded prediction of the image.
    ///
    /// A recorded prediction of this model is used if it lists the `top_k` best classes, each with a confidence of at
    /// least `threshold`.
    pub(crate) async fn classify_object(
        &self,
        path: &GcsPath,
        top_k: usize,
        threshold: f32,
    ) -> Result<Answer<Prediction>, ClassifyError> {
        let recorded_top_k = self.settings.top_k.get();
        let find_prediction = |record: &PredictionRecord| match record {
            PredictionRecord::Done(prediction)
                if labels::lists_enough_classes(&self.head, prediction, top_k, threshold, recorded_top_k) =>
            {
                Some(prediction.clone())
            }
            _ => None,
        };
        self.process_object(path, find_prediction, |probabilities| {
            self.build_prediction(&probabilities, top_k, Some(path.clone()))
        })
        .await
    }

    /// Computes the embedding of an image in the bucket, or returns the recorded embedding of the image.
    pub(crate) async fn embed_object(&self, path: &GcsPath) -> Result<Answer<Embedding>, ClassifyError> {
        let find_embedding = |record: &PredictionRecord| match record {
            PredictionRecord::Embedded(embedding) => Some(embedding.clone()),
            _ => None,
        };
        self.process_object(path, find_embedding, |embedding| {
            self.build_embedding(embedding, Some(path.clone()))
        })
        .await
    }

    /// Runs the network on an image in the bucket and records the result, unless there is a usable record.
    ///
    /// `find_result` returns the result of a record that is usable, and `build_result` builds the result from the
    /// values of [`Self::run_network`]. An event that announces the same image may be handled at the same time.
    /// This function does not wait until that event has a result, because a client waits for the response.
    async fn process_object<T>(
        &self,
        path: &GcsPath,
        find_result: impl FnOnce(&PredictionRecord) -> Option<T>,
        build_result: impl FnOnce(Vec<f32>) -> T,
    ) -> Result<Answer<T>, ClassifyError> {
        self.check_bucket(path)?;
        // The name of a preprocessed image is derived from its content, so the image has only one version.
        // Any other image has a record per version, so the image is read first to learn its version.
        let image = match path.image_id() {
            Some(_) => None,
            None => Some(self.read_image_for_request(path).await?),
        };
        let generation = image.as_ref().and_then(|(image, _)| image.generation);
        let (key, existing_object) = self.records.look_up(path, generation).await?;
        // Without a usable record the image is processed, even if its record is a failure. The failure may come
        // from limits that have been raised since.
        if let StoredRecord::Record(record) = &existing_object
            && let Some(result) = find_result(record)
        {
            return Ok(Answer { result, duplicate: true });
        }
        let (image, permit) = match image {
            Some(image) => image,
            None => self.read_image_for_request(path).await?,
        };
        let values = self.run_network(image.file, permit).await?;
        let record = self.build_record(path, &values);
        self.records.publish_and_store(&key, &existing_object, &record, None).await?;
        Ok(Answer { result: build_result(values), duplicate: false })
    }

    /// Returns an error unless `path` is in the bucket of this service.
    pub(crate) fn check_bucket(&self, path: &GcsPath) -> Result<(), ClassifyError> {
        if path.bucket() == self.bucket.name() {
            Ok(())
        } else {
            Err(ClassifyError::WrongBucket(self.bucket.name().to_owned()))
        }
    }

    /// Acquires the permit for a request, then reads the image at `path`.
    async fn read_image_for_request(
        &self,
        path: &GcsPath,
    ) -> Result<(StoredImage, QueuePermit), ClassifyError> {
        let permit = self.queue_permits.acquire(Caller::Request).await?;
        Ok((self.read_image(path).await?, permit))
    }

    /// Reads the image at `path`, which must be in the bucket of this service.
    ///
    /// An image without a checksum may be damaged, too. If its damage were recorded as a failure of the image,
    /// uploading the image again would not lead to a prediction.
    pub(crate) async fn read_image(&self, path: &GcsPath) -> Result<StoredImage, ClassifyError> {
        let name = parse_object_name(path.object())?;
        let max_limit = self.settings.max_image_bytes;
        let limits = READ_LIMITS.into_iter().filter(|&limit| limit < max_limit).chain([max_limit]);
        for limit in limits {
            let mut reservation = self.file_memory.reserve(limit as u64).await.map_err(count_memory_error)?;
            match self.bucket.read(&name, limit).await {
                Ok(object) => {
                    if path.image_id().is_some() && !contract::stored_image_looks_intact(&object.data) {
                        return Err(BucketError::Damaged(name.to_string()).into());
                    }
                    reservation.shrink_to(object.data.len() as u64);
                    let file = ReservedBytes { bytes: object.data, reservation };
                    return Ok(StoredImage { file, generation: object.generation });
                }
                Err(BucketError::TooLarge { .. }) => {}
                Err(BucketError::NotFound(_)) => return Err(ClassifyError::NoSuchObject(path.clone())),
                Err(other) => return Err(other.into()),
            }
        }
        Err(ClassifyError::TooManyBytes { limit: max_limit })
    }

    /// Builds the record of the image at `path` from the `values` of [`Self::run_network`].
    pub(crate) fn build_record(&self, path: &GcsPath, values: &[f32]) -> PredictionRecord {
        let path = Some(path.clone());
        if self.head.is_embedding() {
            return PredictionRecord::Embedded(self.build_embedding(values.to_vec(), path));
        }
        let top_k = self.settings.top_k.get();
        let prediction = self.build_prediction(values, top_k, path);
        PredictionRecord::Done(labels::shorten(prediction, top_k, self.head.min_confidence()))
    }

    /// Decodes `image` and runs the network on its crop. Returns the probabilities of the classes, or the
    /// embedding.
    ///
    /// `permit` is the permit with which the image was read. It is released when an engine runs the crop.
    pub(crate) async fn run_network(
        &self,
        file: ReservedBytes,
        permit: QueuePermit,
    ) -> Result<Vec<f32>, ClassifyError> {
        let (header, file) = self.read_header(file).await?;
        let (bytes, limit) = (header.max_crop_bytes(GEOMETRY), self.max_image_memory);
        if bytes > limit {
            return Err(ImageError::TooMuchMemory { bytes, limit }.into());
        }
        let pixel_permit = self.queue_permits.acquire_pixels(&permit, header.pixels()).await?;
        let reservation = self.decoding_memory.reserve(bytes).await.map_err(count_memory_error)?;
        let job = move || {
            // The job owns the permits and the reservations, so they are held until the job ends even if the
            // caller has disconnected.
            let (file, _reservation, _pixel_permit) = (file, reservation, pixel_permit);
            (pixels::crop(&file.bytes, &header, GEOMETRY), permit)
        };
        let (crop, permit) = self.decoder_pool.run(header.pixels(), job).await?;
        let crop = crop?;
        if crop.is_enlarged() {
            self.enlargements.count(header.width(), header.height(), GEOMETRY);
        }
        let logits = self.queue.infer(crop, permit).await?;
        let values = labels::interpret_outputs(&self.head, &logits)
            .inspect_err(|_| counter!("classify_unsound_outputs_total").increment(1))?;
        Ok(values)
    }

    /// Reads the header of `file`, on a blocking thread if that may take long. Returns the file as well.
    async fn read_header(&self, file: ReservedBytes) -> Result<(ImageHeader, ReservedBytes), ClassifyError> {
        let (limits, is_cheap) = (self.settings.image_limits(), ImageHeader::is_cheap(&file.bytes));
        // The job owns the reservation, so the memory is counted until the job ends.
        let read = move || (ImageHeader::read(&file.bytes, &limits), file);
        let (header, file) = if is_cheap {
            read()
        } else {
            match tokio::task::spawn_blocking(read).await.map_err(JoinError::try_into_panic) {
                Ok(read) => read,
                Err(Ok(_)) => return Err(CpuError::Panicked.into()),
                // The runtime is shutting down and drops this future as well.
                Err(Err(_)) => std::future::pending().await,
            }
        };
        Ok((header?, file))
    }

    fn build_prediction(&self, probabilities: &[f32], top_k: usize, gcs_path: Option<GcsPath>) -> Prediction {
        let (model, backend) = (self.records.model(), self.backend.borrow());
        labels::build_prediction(&self.head, probabilities, top_k, model, backend.name(), gcs_path)
    }

    fn build_embedding(&self, embedding: Vec<f32>, gcs_path: Option<GcsPath>) -> Embedding {
        let model = self.records.model();
        Embedding {
            gcs_path,
            embedding,
            model: model.name().to_owned(),
            model_sha256: Some(model.sha256().to_owned()),
            backend: self.backend.borrow().name().to_owned(),
        }
    }
}

/// Converts an error of the memory budget, and increments `classify_shed_total`.
fn count_memory_error(error: MemoryBudgetError) -> ClassifyError {
    counter!("classify_shed_total", "reason" => "memory").increment(1);
    error.into()
}
