//! Processes, stores and announces uploads.
//!
//! For each upload, the service reads the header and makes a [`ProcessingPlan`], which states the decoder and
//! the cost in pixels and bytes. It then acquires a CPU permit, reserves memory, converts the upload to a
//! JPEG, stores the JPEG in the bucket and announces it on the topic.
//!
//! Every step is idempotent. An upload can stop between two steps, for example because the caller disconnects
//! or the process is killed. Sending the same upload again completes the missing steps. A stored image is not
//! written again, unless it is damaged. An image without a prediction is announced again, because its announcement may be missing.
//! No step has to be undone, so the futures of this module may be dropped at any point.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use contract::{GcsPath, ImageEvent, ImageId, PredictionRecord};
use metrics::{counter, gauge, histogram};
use platform::{
    bucket::{BucketError, Created, ObjectName, SharedBucket},
    cpu::{CpuError, CpuPool},
    memory_budget::{MemoryBudget, MemoryBudgetError, MemoryReservation},
    telemetry::error_chain,
    topic::{Admission, SharedTopic, TopicError},
};
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::{
    announcement::{self, JPEG_CONTENT_TYPE},
    error::ServiceError,
    image::{self, ImageError, PlanOutcome, ProcessedImage, ProcessingPlan, Recipe, Timings},
    trace_context::TraceParent,
};

/// Minimum time between two announcements of an image whose prediction is damaged.
const REANNOUNCEMENT_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of images that can be announced again during [`REANNOUNCEMENT_INTERVAL`].
const MAX_REANNOUNCEMENTS: usize = 1000;

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

/// Limits on uploads that wait until the topic admits their announcements.
pub(crate) struct AdmissionLimits {
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
    /// Places for uploads that wait until the topic admits their announcements.
    admission_queue: Semaphore,
    admission_timeout: Duration,
    reannouncements: Reannouncements,
}

/// The object that has the name of an image's prediction.
enum StoredPrediction {
    Missing,
    /// The content is a record of a prediction or of a failure.
    Intact(Bytes),
    Damaged,
}

impl UploadService {
    pub(crate) fn new(
        recipe: Recipe,
        cpu: CpuPool,
        processing_memory: MemoryBudget,
        bucket: SharedBucket,
        topic: Option<SharedTopic>,
        admission: &AdmissionLimits,
    ) -> Self {
        let recipe_text = recipe.id_text().into();
        Self {
            recipe: Arc::new(recipe),
            recipe_text,
            cpu,
            processing_memory,
            bucket,
            topic,
            admission_queue: Semaphore::new(admission.max_waiting),
            admission_timeout: admission.timeout,
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

    /// Waits until the topic admits the announcement of another image.
    ///
    /// While messages wait too long on the topic, uploads are thereby slowed down to the rate at which images
    /// are classified.
    async fn admit(&self) -> Result<Admission, ServiceError> {
        let Some(topic) = &self.topic else { return Ok(Admission::default()) };
        let full = TopicError::Full { retry_after: self.admission_timeout };
        let _place = self.admission_queue.try_acquire().map_err(|_| count_topic_error(full))?;
        topic.admit(self.admission_timeout).await.map_err(count_topic_error)
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
        let admission = self.admit().await?;
        let (id, processed) = self.run_plans(upload, plan).await?;
        record_timings(&processed.timings);

        let bytes_out = processed.jpeg.len();
        let ProcessedImage { width, height, .. } = processed;
        let (gcs_path, duplicate) = self.store(&id, processed.jpeg).await?;
        let stored = StoredImage { gcs_path, id, width, height, duplicate };
        let has_prediction = async || {
            let prediction = self.load_prediction(&stored.id).await?;
            Ok::<_, ServiceError>(matches!(prediction, StoredPrediction::Intact(_)))
        };
        if !duplicate || !has_prediction().await? {
            let event = ImageEvent {
                gcs_path: stored.gcs_path.clone(),
                id: Some(stored.id.clone()),
                width: Some(width),
                height: Some(height),
            };
            self.announce(&event, trace).await?;
            admission.use_up();
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
    async fn announce(&self, event: &ImageEvent, trace: &TraceParent) -> Result<(), ServiceError> {
        let Some(topic) = &self.topic else {
            return Ok(());
        };
        let started = Instant::now();
        topic.publish(announcement::to_message(event, trace)).await.map_err(count_topic_error)?;
        record_stage("publish", started.elapsed());
        Ok(())
    }

    /// Returns the number of images that are classified before the image `id`, if the topic knows it.
    pub(crate) async fn count_ahead(&self, id: &ImageId) -> Option<u64> {
        match self.topic.as_ref()?.count_ahead(id.as_str()).await {
            Ok(ahead) => ahead,
            Err(error) => {
                // The prediction is pending with or without the number.
                tracing::debug!(%id, error = error_chain(&error), "the images ahead cannot be counted");
                None
            }
        }
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

    /// Reads the stored JSON of an image's prediction. Returns `None` if the image has no prediction yet.
    ///
    /// A damaged prediction counts as missing. Its image is announced again, so that a new prediction replaces
    /// the damaged one.
    pub(crate) async fn read_prediction(&self, id: &ImageId) -> Result<Option<Bytes>, ServiceError> {
        match self.load_prediction(id).await? {
            StoredPrediction::Missing => Ok(None),
            StoredPrediction::Intact(json) => Ok(Some(json)),
            StoredPrediction::Damaged => {
                self.handle_damaged_prediction(id).await?;
                Ok(None)
            }
        }
    }

    async fn load_prediction(&self, id: &ImageId) -> Result<StoredPrediction, ServiceError> {
        /// Maximum length of a prediction in bytes, far above the length of any prediction.
        const MAX_PREDICTION_BYTES: usize = 1 << 20;
        match self.bucket.read(&prediction_object_name(id)?, MAX_PREDICTION_BYTES).await {
            Ok(prediction) if PredictionRecord::is_record(&prediction.data) => {
                Ok(StoredPrediction::Intact(prediction.data))
            }
            Ok(_) | Err(BucketError::Damaged(_)) => Ok(StoredPrediction::Damaged),
            Err(BucketError::NotFound(_)) => Ok(StoredPrediction::Missing),
            Err(error) => Err(error.into()),
        }
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
        if !self.has_image(id).await? || !self.reannouncements.begin(id) {
            return Ok(());
        }
        tracing::warn!(%id, "a stored prediction is damaged; its image is announced again");
        let (_, gcs_path) = self.image_object(id)?;
        let event = ImageEvent { gcs_path, id: Some(id.clone()), width: None, height: None };
        self.announce(&event, &TraceParent::new()).await.inspect_err(|_| self.reannouncements.forget(id))
    }

    /// Returns the name and the path of an image.
    fn image_object(&self, id: &ImageId) -> Result<(ObjectName, GcsPath), ServiceError> {
        let object = image_object_name(id)?;
        let gcs_path = GcsPath::new(self.bucket.name(), object.as_str()).map_err(ServiceError::internal)?;
        Ok((object, gcs_path))
    }
}

/// The images with damaged predictions that were announced again a short time ago.
///
/// Clients may ask for the same prediction many times before it is replaced. Only the first request announces
/// the image.
#[derive(Debug, Default)]
struct Reannouncements {
    /// Time of each announcement.
    times: Mutex<HashMap<ImageId, tokio::time::Instant>>,
}

impl Reannouncements {
    /// Records an announcement. Returns false if the image must not be announced now.
    fn begin(&self, id: &ImageId) -> bool {
        let now = tokio::time::Instant::now();
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.retain(|_, time| now - *time < REANNOUNCEMENT_INTERVAL);
        let is_due = times.len() < MAX_REANNOUNCEMENTS && !times.contains_key(id);
        if is_due {
            times.insert(id.clone(), now);
        }
        is_due
    }

    /// Forgets an announcement that failed.
    fn forget(&self, id: &ImageId) {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
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
        let memory = new_memory_budget(MEMORY_BYTES);
        let admission = AdmissionLimits { max_waiting: 1, timeout: Duration::ZERO };
        Arc::new(UploadService::new(recipe, cpu, memory, bucket.clone(), None, &admission))
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

    #[tokio::test]
    async fn damaged_prediction_is_an_error_if_the_bucket_replaces_nothing() {
        let bucket = Arc::new(InMemoryBucket::with_generations());
        let service = new_service(&bucket, 10, 1_000_000);
        let id: ImageId = "0".repeat(32).parse().unwrap();
        bucket.replace(&prediction_object_name(&id).unwrap(), Bytes::from_static(b"{"));
        let error = service.read_prediction(&id).await.unwrap_err();
        assert!(error.to_string().contains(&id.prediction_object_name()), "{error}");
        assert_eq!(error.kind(), "damaged_prediction");
    }

    #[tokio::test(start_paused = true)]
    async fn image_is_announced_again_once_per_interval() {
        let (id, other): (ImageId, ImageId) =
            ("0".repeat(32).parse().unwrap(), "1".repeat(32).parse().unwrap());
        let reannouncements = Reannouncements::default();
        assert!(reannouncements.begin(&id) && !reannouncements.begin(&id));
        assert!(reannouncements.begin(&other));
        reannouncements.forget(&other);
        assert!(reannouncements.begin(&other));
        tokio::time::advance(REANNOUNCEMENT_INTERVAL).await;
        assert!(reannouncements.begin(&id) && !reannouncements.begin(&id));
        assert_eq!(reannouncements.times.lock().unwrap().len(), 1, "old announcements are forgotten");
        for number in 0..MAX_REANNOUNCEMENTS {
            reannouncements.begin(&format!("{number:032x}").parse().unwrap());
        }
        assert_eq!(reannouncements.times.lock().unwrap().len(), MAX_REANNOUNCEMENTS);
    }
}
