//! Tests of the limits on CPU and memory, and of announcements whose caller disconnects.

use std::{
    num::NonZeroUsize,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use async_trait::async_trait;
use axum::http::HeaderMap;
use contract::PREDICTION;
use platform::{bucket::InMemoryBucket, cpu::CpuLimits, memory_budget::MemoryBudgetLimits, topic::Topic};
use tokio::{sync::oneshot, task::JoinHandle};

use super::*;
use crate::Settings;

const MEMORY_BYTES: u64 = 64 << 20;

fn new_service(bucket: &Arc<InMemoryBucket>, max_jobs: usize, max_weight: u64) -> Arc<UploadService> {
    new_service_with_topic(bucket, None, max_jobs, max_weight)
}

fn new_service_with_topic(
    bucket: &Arc<InMemoryBucket>,
    topic: Option<SharedTopic>,
    max_jobs: usize,
    max_weight: u64,
) -> Arc<UploadService> {
    let limits = CpuLimits { threads: NonZeroUsize::MIN, max_jobs, max_weight };
    let cpu = CpuPool::new("test", limits).unwrap();
    let recipe = Settings::default().recipe();
    let memory = new_memory_budget(MEMORY_BYTES);
    let publish_queue = PublishQueueLimits { max_waiting: 1, timeout: Duration::ZERO };
    Arc::new(UploadService::new(recipe, cpu, memory, bucket.clone(), topic, None, &publish_queue))
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
    bucket.replace(
        &ObjectName::new(id.record_object_name(PREDICTION, None)).unwrap(),
        Bytes::from_static(b"{"),
    );
    let error = service.read_prediction(&id, &WantedModel::First, RecordRead::First).await.unwrap_err();
    assert!(error.to_string().contains(&id.record_object_name(PREDICTION, None)), "{error}");
    assert_eq!(error.kind(), "damaged_prediction");
}

/// A topic whose first message is never confirmed.
#[derive(Default)]
struct TopicWithLostFirstMessage {
    call_count: AtomicUsize,
}

#[async_trait]
impl Topic for TopicWithLostFirstMessage {
    async fn publish(&self, _message: Message) -> Result<String, TopicError> {
        if self.call_count.fetch_add(1, Ordering::SeqCst) == 0 {
            std::future::pending::<()>().await;
        }
        Ok(String::new())
    }
}

#[tokio::test]
async fn image_is_announced_by_the_next_request_if_the_caller_disconnected_during_the_announcement() {
    let bucket = Arc::new(InMemoryBucket::default());
    let topic = Arc::new(TopicWithLostFirstMessage::default());
    let service = new_service_with_topic(&bucket, Some(topic.clone()), 1, 1);
    let id: ImageId = "0".repeat(32).parse().unwrap();
    for name in [id.image_object_name(), id.record_object_name(PREDICTION, None)] {
        bucket.replace(&ObjectName::new(name).unwrap(), Bytes::from_static(b"{"));
    }
    let disconnected = tokio::time::timeout(
        Duration::ZERO,
        service.read_prediction(&id, &WantedModel::First, RecordRead::First),
    )
    .await;
    assert!(disconnected.is_err(), "the topic should not confirm the message");
    for _ in 0..2 {
        let found = service.read_prediction(&id, &WantedModel::First, RecordRead::First).await.unwrap();
        assert_eq!(found, FoundPrediction::Missing);
    }
    assert_eq!(topic.call_count.load(Ordering::SeqCst), 2);
}
