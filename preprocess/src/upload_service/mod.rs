//! Processes, stores and announces uploads.
//!
//! For each upload, the service reads the header and makes a [`ProcessingPlan`], which states the decoder and
//! the cost in pixels and bytes. It then acquires a CPU permit, reserves memory, converts the upload to a
//! JPEG, stores the JPEG in the bucket and announces it on the topic.
//!
//! Every step is idempotent. An upload can stop between two steps, for example because the caller disconnects or the
//! process is killed. Sending the same upload again completes the missing steps. A stored image is not written again,
//! unless it is damaged. An image without a prediction of the current model is announced again, because its
//! announcement may be missing, or the model may be new. If the current model is not known, every image is announced
//! again, and classify recognises the duplicates. No step has to be undone, so the futures of this module may be
//! dropped at any point.

mod predictions;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use contract::{GcsPath, ImageEvent, ImageId, ModelKey};
use metrics::{counter, gauge, histogram};
use platform::{
    bucket::{Created, ObjectName, SharedBucket},
    cpu::{CpuError, CpuPool},
    memory_budget::{MemoryBudget, MemoryBudgetError, MemoryReservation},
    topic::{Message, PublishPermit, SharedTopic, TopicError},
};
use serde::Serialize;
use tokio::sync::Semaphore;

use self::predictions::Reannouncements;
pub(crate) use self::predictions::{FoundPrediction, RecordRead, WantedModel};
use crate::{
    announcement::{self, JPEG_CONTENT_TYPE},
    error::ServiceError,
    image::{self, ImageError, PlanOutcome, ProcessedImage, ProcessingPlan, Recipe, Timings},
    trace_context::TraceParent,
};

/// An uploaded file.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    pub(crate) bytes: Bytes,
    /// Memory reserved for all files of the request, which share the reservation.
    pub(crate) reservation: Arc<MemoryReservation>,
}

/// Description of a stored image in the response.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StoredImage {
    gcs_path: GcsPath,
    id: ImageId,
    width: u32,
    height: u32,
    /// True if the same upload was stored before.
    duplicate: bool,
}

/// Limits on uploads that wait for the permit to publish their announcements.
pub(crate) struct PublishQueueLimits {
    /// Maximum number of waiting uploads.
    pub(crate) max_waiting: usize,
    /// Maximum time that an upload waits.
    pub(crate) timeout: Duration,
}

/// Processes, stores and announces uploads, and reads their predictions.
pub(crate) struct UploadService {
    /// Parameters of the stored image, and limits on uploads.
    recipe: Arc<Recipe>,
    recipe_text: Arc<str>,
    cpu: CpuPool,
    /// Memory for processing uploads. The uploaded files have a budget of their own.
    processing_memory: MemoryBudget,
    bucket: SharedBucket,
    topic: Option<SharedTopic>,
    /// Model that classifies the announced images, if it is known.
    current_model: Option<ModelKey>,
    /// Bounds the number of uploads that wait for a permit of the topic.
    publish_queue: Semaphore,
    publish_timeout: Duration,
    reannouncements: Reannouncements,
}

impl UploadService {
    pub(crate) fn new(
        recipe: Recipe,
        cpu: CpuPool,
        processing_memory: MemoryBudget,
        bucket: SharedBucket,
        topic: Option<SharedTopic>,
        current_model: Option<ModelKey>,
        publish_queue: &PublishQueueLimits,
    ) -> Self {
        let recipe_text = recipe.id_text().into();
        Self {
            recipe: Arc::new(recipe),
            recipe_text,
            cpu,
            processing_memory,
            bucket,
            topic,
            current_model,
            publish_queue: Semaphore::new(publish_queue.max_waiting),
            publish_timeout: publish_queue.timeout,
            reannouncements: Reannouncements::default(),
        }
    }

    /// Returns the text of the recipe, which is hashed into every image id.
    pub(crate) fn recipe_text(&self) -> &str {
        &self.recipe_text
    }

    /// Returns an error if no CPU permit is free, or if the topic is full.
    ///
    /// The caller checks the capacity before it reads a body. The check acquires no permit, so
    /// [`Self::process`] can still fail with the same error.
    pub(crate) fn check_capacity(&self) -> Result<(), ServiceError> {
        if self.cpu.is_full() {
            return Err(count_cpu_error(CpuError::Overloaded));
        }
        self.topic.as_ref().map_or(Ok(()), |topic| topic.check_capacity().map_err(count_topic_error))
    }

    /// Waits until the topic permits the announcement of another image.
    ///
    /// While messages wait too long on the topic, uploads are thereby slowed down to the rate at which images
    /// are classified.
    async fn acquire_publish_permit(&self) -> Result<PublishPermit, ServiceError> {
        let Some(topic) = &self.topic else { return Ok(PublishPermit::default()) };
        let full = TopicError::Full { retry_after: self.publish_timeout };
        let _queued = self.publish_queue.try_acquire().map_err(|_| count_topic_error(full))?;
        topic.acquire_publish_permit(self.publish_timeout).await.map_err(count_topic_error)
    }

    /// Processes, stores and announces an upload, and counts the outcome in the metrics.
    pub(crate) async fn process(
        &self,
        upload: Upload,
        trace: &TraceParent,
    ) -> Result<StoredImage, ServiceError> {
        let result = self.process_store_and_announce(upload, trace).await;
        let outcome = match &result {
            Ok(StoredImage { duplicate: false, .. }) => "stored",
            Ok(StoredImage { duplicate: true, .. }) => "duplicate",
            Err(error) => error.kind(),
        };
        counter!("preprocess_images_total", "outcome" => outcome).increment(1);
        result
    }

    async fn process_store_and_announce(
        &self,
        upload: Upload,
        trace: &TraceParent,
    ) -> Result<StoredImage, ServiceError> {
        if upload.bytes.is_empty() {
            return Err(ServiceError::EmptyUpload);
        }
        let bytes_in = upload.bytes.len();
        let plan = self.make_plan(&upload).await?;
        let header = *plan.header();
        let publish_permit = self.acquire_publish_permit().await?;
        let (id, processed) = self.run_plans(upload, plan).await?;
        record_timings(&processed.timings);

        let bytes_out = processed.jpeg.len();
        let ProcessedImage { width, height, .. } = processed;
        let (gcs_path, duplicate) = self.store(&id, processed.jpeg).await?;
        let stored = StoredImage { gcs_path, id, width, height, duplicate };
        if !duplicate || !self.has_current_prediction(&stored.id).await? {
            let event = ImageEvent {
                gcs_path: stored.gcs_path.clone(),
                id: Some(stored.id.clone()),
                width: Some(width),
                height: Some(height),
            };
            self.announce(announcement::to_message(&event, trace)).await?;
            publish_permit.use_up();
        }
        tracing::info!(
            id = %stored.id,
            format = header.format().name(),
            bytes_in,
            width_in = header.width,
            height_in = header.height,
            bytes_out,
            width,
            height,
            duplicate,
            "image stored"
        );
        Ok(stored)
    }

    /// Reads the header and selects a decoder.
    ///
    /// A header that is crafted to be expensive can take tens of milliseconds, so all but the cheapest ones are read on
    /// a blocking thread.
    async fn make_plan(&self, upload: &Upload) -> Result<ProcessingPlan, ServiceError> {
        if ProcessingPlan::is_cheap(&upload.bytes) {
            return Ok(ProcessingPlan::new(&upload.bytes, &self.recipe)?);
        }
        let (upload, recipe) = (upload.clone(), Arc::clone(&self.recipe));
        let plan = tokio::task::spawn_blocking(move || ProcessingPlan::new(&upload.bytes, &recipe));
        Ok(plan.await.map_err(ServiceError::internal)??)
    }

    /// Runs `plan`. If its decoder refuses the file, runs the plan of the next decoder, until a plan succeeds
    /// or no decoder is left.
    ///
    /// A plan's CPU permit and processing memory are released before the next plan reserves its own.
    /// Otherwise uploads that hold processing memory could wait for each other forever.
    async fn run_plans(
        &self,
        upload: Upload,
        mut plan: ProcessingPlan,
    ) -> Result<(ImageId, ProcessedImage), ServiceError> {
        loop {
            match self.run_plan(upload.clone(), plan).await? {
                (id, PlanOutcome::Done(processed)) => return Ok((id, *processed)),
                (_, PlanOutcome::TryNext(next)) => plan = *next,
            }
        }
    }

    /// Runs one plan on the CPU pool.
    ///
    /// The pool also computes the id, because hashing a long upload takes too long for an async worker.
    async fn run_plan(
        &self,
        upload: Upload,
        plan: ProcessingPlan,
    ) -> Result<(ImageId, PlanOutcome), ServiceError> {
        let cost = plan.cost();
        let permit = self.cpu.try_acquire(cost.pixels).map_err(count_cpu_error)?;
        let reservation = self.processing_memory.reserve(cost.bytes).await.map_err(count_memory_error)?;
        let (recipe, recipe_text) = (Arc::clone(&self.recipe), Arc::clone(&self.recipe_text));
        let job = move || {
            // The job owns the reservations for processing and for the uploaded file. The memory stays
            // reserved until the job ends, even if the caller has disconnected.
            let (_processing, Upload { bytes, reservation: _uploaded }) = (reservation, upload);
            let outcome = image::run_plan(&plan, &bytes, &recipe)?;
            Ok::<_, ImageError>((ImageId::from_upload(&recipe_text, &bytes), outcome))
        };
        Ok(self.cpu.run_with_permit(permit, job).await.map_err(count_cpu_error)??)
    }

    /// Stores an image, or replaces a damaged one. Returns the path of the object, and true if an intact
    /// object existed before.
    async fn store(&self, id: &ImageId, jpeg: Bytes) -> Result<(GcsPath, bool), ServiceError> {
        let started = Instant::now();
        let (object, gcs_path) = self.image_object(id)?;
        let looks_intact = contract::stored_image_looks_intact;
        let created = self.bucket.replace_if_broken(&object, jpeg, JPEG_CONTENT_TYPE, looks_intact).await?;
        record_stage("store", started.elapsed());
        Ok((gcs_path, created == Created::AlreadyThere))
    }

    /// Publishes the announcement of a stored image, if the service has a topic.
    async fn announce(&self, announcement: Message) -> Result<(), ServiceError> {
        let Some(topic) = &self.topic else {
            return Ok(());
        };
        let started = Instant::now();
        topic.publish(announcement).await.map_err(count_topic_error)?;
        record_stage("publish", started.elapsed());
        Ok(())
    }

    /// Checks that images can be stored and announced at present.
    pub(crate) async fn check_dependencies(&self) -> Result<(), ServiceError> {
        let report = |dependency, is_up| {
            gauge!("preprocess_dependency_up", "dependency" => dependency).set(f64::from(u8::from(is_up)));
        };
        let bucket = self.bucket.check_health().await;
        report("bucket", bucket.is_ok());
        let topic = match &self.topic {
            Some(topic) => topic.check_health().await,
            None => Ok(()),
        };
        report("topic", topic.is_ok());
        bucket?;
        Ok(topic?)
    }

    /// Returns true if an image with this id is stored.
    pub(crate) async fn has_image(&self, id: &ImageId) -> Result<bool, ServiceError> {
        Ok(self.bucket.exists(&image_object_name(id)?).await?)
    }

    /// Returns the name and the path of an image.
    fn image_object(&self, id: &ImageId) -> Result<(ObjectName, GcsPath), ServiceError> {
        let object = image_object_name(id)?;
        let gcs_path = GcsPath::new(self.bucket.name(), object.as_str()).map_err(ServiceError::internal)?;
        Ok((object, gcs_path))
    }
}

/// Converts an error of the CPU pool. If the pool is overloaded, increments `preprocess_shed_total`.
fn count_cpu_error(error: CpuError) -> ServiceError {
    if error == CpuError::Overloaded {
        counter!("preprocess_shed_total", "reason" => "overloaded").increment(1);
    }
    error.into()
}

/// Converts an error of the memory budget, and increments `preprocess_shed_total`.
fn count_memory_error(error: MemoryBudgetError) -> ServiceError {
    counter!("preprocess_shed_total", "reason" => "memory").increment(1);
    error.into()
}

/// Converts an error of the topic. If the topic is full, increments `preprocess_shed_total`.
fn count_topic_error(error: TopicError) -> ServiceError {
    if matches!(error, TopicError::Full { .. }) {
        counter!("preprocess_shed_total", "reason" => "backlog").increment(1);
    }
    error.into()
}

fn image_object_name(id: &ImageId) -> Result<ObjectName, ServiceError> {
    ObjectName::new(id.image_object_name()).map_err(ServiceError::internal)
}

fn record_timings(timings: &Timings) {
    record_stage("decode", timings.decode);
    record_stage("resize", timings.resize);
    record_stage("encode", timings.encode);
}

fn record_stage(stage: &'static str, duration: Duration) {
    histogram!("preprocess_stage_duration_seconds", "stage" => stage).record(duration.as_secs_f64());
}

#[cfg(test)]
mod tests;
