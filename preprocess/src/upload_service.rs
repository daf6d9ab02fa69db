//! Processes, stores and announces uploads.
//!
//! For each upload, the service reads the header and makes a [`ProcessingPlan`], which states the decoder and
//! the cost in pixels and bytes. It then acquires a CPU permit, reserves memory, converts the upload to a
//! JPEG, stores the JPEG in the bucket and announces it on the topic.
//!
//! Every step is idempotent. An upload can stop between two steps, for example because the caller disconnects
//! or the process is killed. Sending the same upload again completes the missing steps. A stored image is not
//! written again. An image without a prediction is announced again, because its announcement may be missing.
//! No step has to be undone, so the futures of this module may be dropped at any point.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use contract::{GcsPath, ImageEvent, ImageId};
use metrics::{counter, histogram};
use platform::{
    bucket::{BucketError, Created, ObjectName, SharedBucket},
    cpu::{CpuError, CpuPool},
    memory_budget::{MemoryBudget, MemoryBudgetError, MemoryReservation},
    topic::{Message, SharedTopic, TRACEPARENT},
};
use serde::Serialize;

use crate::{
    error::ServiceError,
    image::{self, ImageError, PlanOutcome, ProcessedImage, ProcessingPlan, Recipe, Timings},
    trace_context::TraceParent,
};

/// Content type of the stored image.
const JPEG_CONTENT_TYPE: &str = "image/jpeg";

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
}

impl UploadService {
    pub(crate) fn new(
        recipe: Recipe,
        cpu: CpuPool,
        processing_memory: MemoryBudget,
        bucket: SharedBucket,
        topic: Option<SharedTopic>,
    ) -> Self {
        let recipe_text = recipe.id_text().into();
        Self { recipe: Arc::new(recipe), recipe_text, cpu, processing_memory, bucket, topic }
    }

    /// Returns the text of the recipe, which is hashed into every image id.
    pub(crate) fn recipe_text(&self) -> &str {
        &self.recipe_text
    }

    /// Returns an error if no CPU permit is free.
    ///
    /// The caller checks the capacity before it reads a body. The check acquires no permit, so
    /// [`Self::process`] can still fail with the same error.
    pub(crate) fn check_capacity(&self) -> Result<(), ServiceError> {
        if self.cpu.is_full() { Err(count_cpu_error(CpuError::Overloaded)) } else { Ok(()) }
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
        let (id, processed) = self.run_plans(upload, plan).await?;
        record_timings(&processed.timings);

        let bytes_out = processed.jpeg.len();
        let ProcessedImage { width, height, .. } = processed;
        let (gcs_path, duplicate) = self.store(&id, processed.jpeg).await?;
        let stored = StoredImage { gcs_path, id, width, height, duplicate };
        if !duplicate || !self.has_prediction(&stored.id).await? {
            self.announce(&stored, trace).await?;
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
    /// The longer the upload, the longer reading its header can take, up to tens of milliseconds for a header
    /// that is crafted to be expensive. The header of a long upload is therefore read on a blocking thread.
    async fn make_plan(&self, upload: &Upload) -> Result<ProcessingPlan, ServiceError> {
        const MAX_BYTES_ON_ASYNC_WORKER: usize = 64 << 10;
        if upload.bytes.len() <= MAX_BYTES_ON_ASYNC_WORKER {
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

    /// Stores an image. Returns the path of the object, and true if the object existed before.
    async fn store(&self, id: &ImageId, jpeg: Bytes) -> Result<(GcsPath, bool), ServiceError> {
        let started = Instant::now();
        let object = image_object_name(id)?;
        let gcs_path = GcsPath::new(self.bucket.name(), object.as_str()).map_err(ServiceError::internal)?;
        let created = self.bucket.create(&object, jpeg, JPEG_CONTENT_TYPE).await?;
        record_stage("store", started.elapsed());
        Ok((gcs_path, created == Created::AlreadyThere))
    }

    /// Publishes the announcement of a stored image, if the service has a topic.
    async fn announce(&self, stored: &StoredImage, trace: &TraceParent) -> Result<(), ServiceError> {
        let Some(topic) = &self.topic else {
            return Ok(());
        };
        let started = Instant::now();
        let event = ImageEvent {
            gcs_path: stored.gcs_path.clone(),
            id: Some(stored.id.clone()),
            width: Some(stored.width),
            height: Some(stored.height),
        };
        let message = Message {
            data: serde_json::to_vec(&event).map_err(ServiceError::internal)?.into(),
            attributes: [
                ("content-type".to_owned(), JPEG_CONTENT_TYPE.to_owned()),
                (TRACEPARENT.to_owned(), trace.next_header()),
            ]
            .into(),
        };
        topic.publish(message).await?;
        record_stage("publish", started.elapsed());
        Ok(())
    }

    /// Returns true if an image with this id is stored.
    pub(crate) async fn has_image(&self, id: &ImageId) -> Result<bool, ServiceError> {
        Ok(self.bucket.exists(&image_object_name(id)?).await?)
    }

    async fn has_prediction(&self, id: &ImageId) -> Result<bool, ServiceError> {
        Ok(self.bucket.exists(&prediction_object_name(id)?).await?)
    }

    /// Reads the stored JSON of an image's prediction. Returns `None` if the image has no prediction yet.
    pub(crate) async fn read_prediction(&self, id: &ImageId) -> Result<Option<Bytes>, ServiceError> {
        /// Maximum length of a prediction in bytes, far above the length of any prediction.
        const MAX_PREDICTION_BYTES: usize = 1 << 20;
        match self.bucket.read(&prediction_object_name(id)?, MAX_PREDICTION_BYTES).await {
            Ok(prediction) => Ok(Some(prediction.data)),
            Err(BucketError::NotFound(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
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

fn image_object_name(id: &ImageId) -> Result<ObjectName, ServiceError> {
    ObjectName::new(id.image_object_name()).map_err(ServiceError::internal)
}

fn prediction_object_name(id: &ImageId) -> Result<ObjectName, ServiceError> {
    ObjectName::new(id.prediction_object_name()).map_err(ServiceError::internal)
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
mod tests {
    use std::{num::NonZeroUsize, sync::mpsc};

    use axum::http::HeaderMap;
    use platform::{bucket::InMemoryBucket, cpu::CpuLimits, memory_budget::MemoryBudgetLimits};
    use tokio::{sync::oneshot, task::JoinHandle};

    use super::*;
    use crate::Settings;

    const MEMORY_BYTES: u64 = 64 << 20;

    fn new_service(bucket: &Arc<InMemoryBucket>, max_jobs: usize, max_weight: u64) -> Arc<UploadService> {
        let limits = CpuLimits { threads: NonZeroUsize::MIN, max_jobs, max_weight };
        let cpu = CpuPool::new("test", limits).unwrap();
        let recipe = Settings::default().recipe();
        Arc::new(UploadService::new(recipe, cpu, new_memory_budget(MEMORY_BYTES), bucket.clone(), None))
    }

    fn new_memory_budget(max_bytes: u64) -> MemoryBudget {
        let limits = MemoryBudgetLimits {
            max_bytes,
            max_reservation_bytes: max_bytes,
            max_waiting: 1,
            wait_timeout: Duration::from_secs(3600),
        };
        MemoryBudget::new("test", "tests", &limits)
    }

    async fn new_upload(bytes: impl Into<Bytes>) -> Upload {
        let reservation = new_memory_budget(MEMORY_BYTES).reserve(1).await.unwrap();
        Upload { bytes: bytes.into(), reservation: Arc::new(reservation) }
    }

    fn encode_png(side: u32) -> Bytes {
        let mut file = std::io::Cursor::new(Vec::new());
        ::image::RgbImage::new(side, side).write_to(&mut file, ::image::ImageFormat::Png).unwrap();
        file.into_inner().into()
    }

    /// Occupies the only thread with a job of `weight` pixels, until a message is sent through the returned
    /// sender.
    async fn occupy_thread(service: &Arc<UploadService>, weight: u64) -> (mpsc::Sender<()>, JoinHandle<()>) {
        let (release, release_receiver) = mpsc::channel();
        let (start_sender, start_receiver) = oneshot::channel();
        let service = Arc::clone(service);
        let job = tokio::spawn(async move {
            let wait = move || {
                start_sender.send(()).unwrap();
                release_receiver.recv().unwrap();
            };
            service.cpu.run(weight, wait).await.unwrap();
        });
        start_receiver.await.unwrap();
        (release, job)
    }

    fn new_trace() -> TraceParent {
        TraceParent::from_headers_or_new(&HeaderMap::new())
    }

    #[tokio::test]
    async fn uploads_above_the_limit_of_jobs_or_pixels_are_shed_until_a_job_ends() {
        // The first case reaches the limit on jobs, the second case reaches the limit on pixels.
        for (max_jobs, max_weight, held_weight) in [(1, 1_000_000, 1), (10, 100, 60)] {
            let service = new_service(&Arc::default(), max_jobs, max_weight);
            let (release, job) = occupy_thread(&service, held_weight).await;
            let error = service.process(new_upload(encode_png(8)).await, &new_trace()).await.unwrap_err();
            assert!(matches!(error, ServiceError::Cpu(CpuError::Overloaded)), "{error:?}");
            // `check_capacity` is called before the upload is read, so it cannot apply the limit on pixels.
            assert_eq!(service.check_capacity().is_err(), max_jobs == 1);
            release.send(()).unwrap();
            job.await.unwrap();
            assert!(service.check_capacity().is_ok());
            assert!(!service.process(new_upload(encode_png(8)).await, &new_trace()).await.unwrap().duplicate);
        }
    }

    #[tokio::test]
    async fn upload_without_a_valid_header_is_refused_while_the_only_thread_is_busy() {
        let service = new_service(&Arc::default(), 1, 1);
        let (release, job) = occupy_thread(&service, 1).await;
        let error = service.process(new_upload(&b"hello"[..]).await, &new_trace()).await.unwrap_err();
        assert_eq!(error.kind(), "not_an_image");
        release.send(()).unwrap();
        job.await.unwrap();
    }

    #[tokio::test]
    async fn nothing_is_stored_for_a_caller_that_disconnected_before_its_job_started() {
        let bucket = Arc::new(InMemoryBucket::default());
        let service = new_service(&bucket, 10, 1_000_000);
        let (release, job) = occupy_thread(&service, 1).await;
        let upload = new_upload(encode_png(8)).await;
        let trace = new_trace();
        let result = tokio::time::timeout(Duration::ZERO, service.process(upload.clone(), &trace)).await;
        assert!(result.is_err(), "the upload should wait for the only thread");
        release.send(()).unwrap();
        job.await.unwrap();
        // The only thread runs its jobs in order. When this later job has ended, the job of the upload has
        // been skipped or has ended, too.
        service.cpu.run(1, || ()).await.unwrap();
        let id = ImageId::from_upload(service.recipe_text(), &upload.bytes);
        assert!(!service.has_image(&id).await.unwrap());
    }

    #[tokio::test]
    async fn upload_waits_for_memory_and_releases_its_reservation_when_done() {
        let service = new_service(&Arc::default(), 10, 1_000_000);
        let reservation = service.processing_memory.reserve(MEMORY_BYTES - 1024).await.unwrap();
        let upload = new_upload(encode_png(8)).await;
        let trace = new_trace();
        let mut processing = std::pin::pin!(service.process(upload, &trace));
        assert!(
            tokio::time::timeout(Duration::ZERO, &mut processing).await.is_err(),
            "the upload should wait for memory"
        );
        // Only one upload may wait.
        let refused = service.processing_memory.reserve(2048).await.unwrap_err();
        assert_eq!(refused, MemoryBudgetError::Overloaded);
        assert_eq!(count_memory_error(refused).kind(), "overloaded");
        drop(reservation);
        assert!(!processing.await.unwrap().duplicate);
        assert_eq!(service.processing_memory.reserved_bytes(), 0);
    }
}
