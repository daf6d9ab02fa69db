//! Tests of `overlap` with a fake GPU that the test controls.

use std::{
    num::NonZeroUsize,
    sync::{Arc, mpsc as std_mpsc},
    time::{Duration, Instant},
};

use futures_executor::block_on;
use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use tokio::sync::oneshot;

use crate::{
    engine::{
        EngineError, Infer, InferError, InferenceQueue, PendingLogits, RunningEngines, inference_queue,
    },
    model::{CLASSES, GEOMETRY},
    pixels::Crop,
    queue_permits::{Caller, QueueLimits, QueuePermits},
};

/// A GPU that passes each batch to the test, which decides the result.
struct FakeGpu {
    batch_sender: std_mpsc::Sender<Batch>,
}

/// A batch that was submitted and has not finished yet.
struct Batch {
    image_count: usize,
    verdict_sender: oneshot::Sender<Verdict>,
}

/// Result of a batch, which the test chooses.
enum Verdict {
    Answer,
    Fail,
    Panic,
}

impl Infer for FakeGpu {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        block_on(self.submit(batch)?)
    }

    fn submit(&mut self, batch: &[Crop]) -> Result<PendingLogits, InferError> {
        let (verdict_sender, verdict) = oneshot::channel();
        let image_count = batch.len();
        self.batch_sender
            .send(Batch { image_count, verdict_sender })
            .map_err(|_| InferError("the device is gone".into()))?;
        Ok(Box::pin(async move {
            match verdict.await {
                Ok(Verdict::Answer) => Ok(vec![vec![0.0; CLASSES]; image_count]),
                Ok(Verdict::Fail) => Err(InferError("out of memory".into())),
                Ok(Verdict::Panic) => panic!("validation error"),
                Err(_) => std::future::pending().await,
            }
        }))
    }

    fn has_own_device(&self) -> bool {
        true
    }

    fn warm_up(&mut self) -> Result<(), InferError> {
        Ok(())
    }
}

/// A queue with one [`FakeGpu`], and the channel of the batches that the GPU has received.
struct Rig {
    queue: InferenceQueue,
    /// Permits for more crops than the queue can hold.
    queue_permits: Arc<QueuePermits>,
    running_engines: RunningEngines,
    submitted_batches: std_mpsc::Receiver<Batch>,
}

impl Rig {
    async fn new(max_batch: usize, batch_timeout: Duration) -> Self {
        let non_zero = |n| NonZeroUsize::new(n).unwrap();
        let (queue, starter) = inference_queue(non_zero(16), non_zero(max_batch), "fake");
        let (batch_sender, submitted_batches) = std_mpsc::channel();
        let starter = starter.with_batch_timeout(batch_timeout);
        let running_engines = starter.start(vec![Box::new(FakeGpu { batch_sender })]).await.unwrap();
        let limits = QueueLimits { max_images: non_zero(100), max_pixels: 0, reserved_percent: 0 };
        let queue_permits = Arc::new(QueuePermits::new(&limits));
        Self { queue, queue_permits, running_engines, submitted_batches }
    }

    /// Waits for the batch that is submitted next.
    fn next_batch(&self) -> Batch {
        self.submitted_batches.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    /// Starts `count` requests. Their crops are in the queue when this function returns.
    fn start_requests(&self, count: usize) -> Vec<Request> {
        let request = |_| {
            let (queue, queue_permits) = (self.queue.clone(), Arc::clone(&self.queue_permits));
            let mut request = async move { infer_black(&queue, &queue_permits).await }.boxed();
            // The first poll puts the crop in the queue.
            match (&mut request).now_or_never() {
                Some(result) => std::future::ready(result).boxed(),
                None => request,
            }
        };
        (0..count).map(request).collect()
    }
}

/// Computes the logits of a black crop.
async fn infer_black(queue: &InferenceQueue, queue_permits: &QueuePermits) -> Result<Vec<f32>, EngineError> {
    let permit = queue_permits.acquire(Caller::Request).await.unwrap();
    queue.infer(Crop::black(GEOMETRY.crop), permit).await
}

type Request = BoxFuture<'static, Result<Vec<f32>, EngineError>>;

async fn all_succeed(requests: Vec<Request>) -> bool {
    join_all(requests).await.iter().all(Result::is_ok)
}

/// Timeout that no batch of these tests reaches.
const LONG_TIMEOUT: Duration = Duration::from_secs(600);

/// Finishes `batch` and returns its number of images.
fn finish(batch: Batch) -> usize {
    batch.verdict_sender.send(Verdict::Answer).ok().unwrap();
    batch.image_count
}

#[tokio::test]
async fn next_batch_is_submitted_before_the_first_has_finished() {
    let rig = Rig::new(4, LONG_TIMEOUT).await;
    let mut requests = rig.start_requests(1);
    let first = rig.next_batch();
    assert_eq!(first.image_count, 1, "a lone request does not wait");
    requests.extend(rig.start_requests(1));
    let second = rig.next_batch();
    assert_eq!(
        second.image_count, 1,
        "the second batch waits for as many requests as the first batch has images"
    );
    requests.extend(rig.start_requests(6));
    assert!(rig.submitted_batches.try_recv().is_err(), "at most two batches are submitted at once");
    finish(first);
    let third = rig.next_batch();
    assert_eq!(third.image_count, 4, "a full batch is submitted");
    finish(second);
    assert_eq!(finish(third) + finish(rig.next_batch()), 6);
    assert!(all_succeed(requests).await);
}

#[tokio::test]
async fn small_batch_waits_until_the_running_batch_has_finished() {
    let rig = Rig::new(4, LONG_TIMEOUT).await;
    let mut requests = rig.start_requests(1);
    let first = rig.next_batch();
    requests.extend(rig.start_requests(1));
    let second = rig.next_batch();
    requests.extend(rig.start_requests(4));
    finish(first);
    let large = rig.next_batch();
    assert_eq!(large.image_count, 4);
    finish(second);
    requests.extend(rig.start_requests(1));
    assert!(
        rig.submitted_batches.recv_timeout(Duration::from_millis(50)).is_err(),
        "the request waits for the running batch"
    );
    finish(large);
    assert_eq!(finish(rig.next_batch()), 1, "the request runs as soon as the GPU is idle");
    assert!(all_succeed(requests).await);
}

#[tokio::test]
async fn every_caller_gets_an_error_if_a_batch_fails() {
    for (verdict, reason) in
        [(Verdict::Fail, "out of memory"), (Verdict::Panic, "panicked: validation error")]
    {
        let rig = Rig::new(1, LONG_TIMEOUT).await;
        let requests = rig.start_requests(3);
        let first = rig.next_batch();
        first.verdict_sender.send(verdict).ok().unwrap();
        for result in join_all(requests).await {
            let error = result.unwrap_err();
            assert!(matches!(error, EngineError::Lost(_) | EngineError::Failed(_)), "{error}");
        }
        assert_eq!(rig.queue.wait_until_lost().await, reason);
        let late = infer_black(&rig.queue, &rig.queue_permits).await;
        assert_eq!(late, Err(EngineError::Lost(reason.to_owned())));
        rig.running_engines.wait_until_ended().await;
    }
}

#[tokio::test]
async fn engine_is_lost_if_its_gpu_refuses_a_batch() {
    let rig = Rig::new(1, LONG_TIMEOUT).await;
    drop(rig.submitted_batches);
    assert!(matches!(
        infer_black(&rig.queue, &rig.queue_permits).await,
        Err(EngineError::Lost(reason)) if reason == "the device is gone"
    ));
}

#[tokio::test]
async fn engine_is_lost_if_its_gpu_hangs() {
    let rig = Rig::new(1, Duration::from_millis(50)).await;
    let requests = rig.start_requests(2);
    let unfinished = rig.next_batch();
    for result in join_all(requests).await {
        assert!(matches!(result, Err(EngineError::Lost(_))));
    }
    assert_eq!(rig.queue.wait_until_lost().await, "a batch has run for more than 0.05 s");
    drop(unfinished);
}

#[tokio::test]
async fn engine_is_not_lost_while_its_gpu_is_idle() {
    let rig = Rig::new(1, Duration::from_millis(20)).await;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(200) {
        let request = rig.start_requests(1);
        finish(rig.next_batch());
        assert!(all_succeed(request).await);
    }
    let result = tokio::time::timeout(Duration::from_millis(100), rig.queue.wait_until_lost()).await;
    assert!(result.is_err(), "{result:?}");
}

#[tokio::test]
async fn closed_queue_finishes_its_crops_and_refuses_new_ones() {
    let rig = Rig::new(2, LONG_TIMEOUT).await;
    let requests = rig.start_requests(5);
    let first = rig.next_batch();
    rig.queue.close();
    assert_eq!(infer_black(&rig.queue, &rig.queue_permits).await, Err(EngineError::Closed));
    let mut finished_count = finish(first);
    while finished_count < 5 {
        finished_count += finish(rig.next_batch());
    }
    assert!(all_succeed(requests).await);
    rig.running_engines.wait_until_ended().await;
}
