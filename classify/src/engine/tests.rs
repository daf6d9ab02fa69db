//! Tests of the queue and the engine threads, with an engine that the test controls.

use std::{
    num::NonZeroUsize,
    sync::{Arc, mpsc as std_mpsc},
    time::Duration,
};

use futures_util::{FutureExt, future::join_all};

use super::*;
use crate::{
    model::{CLASSES, GEOMETRY},
    pixels::Crop,
    queue_permits::{Caller, QueueLimits, QueuePermits},
};

/// An engine that reports each batch's size and waits for the test's verdict.
struct GatedEngine {
    size_sender: std_mpsc::Sender<usize>,
    verdict_receiver: std_mpsc::Receiver<Verdict>,
}

/// Result of a batch, which the test chooses.
#[derive(Clone, Copy)]
enum Verdict {
    Answer,
    Fail,
    Panic,
    /// Answers with one output too few.
    OmitOne,
}

impl Infer for GatedEngine {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        self.size_sender.send(batch.len()).unwrap();
        match self.verdict_receiver.recv().unwrap() {
            Verdict::Answer => Ok(batch.iter().map(|_| vec![0.0; CLASSES]).collect()),
            Verdict::Fail => Err(InferError("test failure".into())),
            Verdict::Panic => panic!("test panic"),
            Verdict::OmitOne => Ok(batch.iter().skip(1).map(|_| vec![0.0; CLASSES]).collect()),
        }
    }

    fn warm_up(&mut self) -> Result<(), InferError> {
        Ok(())
    }
}

/// A queue with one [`GatedEngine`], and the channels that control the engine.
struct Rig {
    queue: InferenceQueue,
    /// Permits for more crops than the queue can hold.
    queue_permits: Arc<QueuePermits>,
    running_engines: RunningEngines,
    batch_sizes: std_mpsc::Receiver<usize>,
    verdict_sender: std_mpsc::Sender<Verdict>,
}

impl Rig {
    async fn new(max_items: usize, max_batch: usize) -> Self {
        let non_zero = |n| NonZeroUsize::new(n).unwrap();
        let (queue, starter) = inference_queue(non_zero(max_items), non_zero(max_batch), "fake");
        let (size_sender, batch_sizes) = std_mpsc::channel();
        let (verdict_sender, verdict_receiver) = std_mpsc::channel();
        let engine = GatedEngine { size_sender, verdict_receiver };
        let running_engines = starter.start(vec![Box::new(engine)]).await.unwrap();
        let limits = QueueLimits { max_images: non_zero(100), max_pixels: 0, reserved_percent: 0 };
        let queue_permits = Arc::new(QueuePermits::new(&limits));
        Self { queue, queue_permits, running_engines, batch_sizes, verdict_sender }
    }

    /// Waits for the engine's next batch and returns its size.
    fn next_batch_size(&self) -> usize {
        self.batch_sizes.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    /// Starts a request. Its crop is in the queue when this function returns.
    fn start_request(&self) -> impl Future<Output = Result<Vec<f32>, EngineError>> + Unpin {
        let queue = self.queue.clone();
        let queue_permits = Arc::clone(&self.queue_permits);
        let mut request = async move {
            let permit = queue_permits.acquire(Caller::Request).await.unwrap();
            queue.infer(Crop::black(GEOMETRY.crop), permit).await
        }
        .boxed();
        // The first poll puts the crop in the queue.
        match (&mut request).now_or_never() {
            Some(result) => std::future::ready(result).boxed(),
            None => request,
        }
    }
}

#[tokio::test]
async fn lone_request_runs_at_once_and_queued_requests_run_together() {
    let rig = Rig::new(8, 3).await;
    let first = rig.start_request();
    assert_eq!(rig.next_batch_size(), 1, "the request runs alone and at once");
    let queued: Vec<_> = (0..4).map(|_| rig.start_request()).collect();
    for _ in 0..3 {
        rig.verdict_sender.send(Verdict::Answer).unwrap();
    }
    assert!(first.await.is_ok());
    assert!(join_all(queued).await.iter().all(Result::is_ok));
    assert_eq!(
        (rig.next_batch_size(), rig.next_batch_size()),
        (3, 1),
        "the remaining request runs after a full batch"
    );
}

#[tokio::test]
async fn request_to_a_full_queue_is_refused_at_once() {
    let rig = Rig::new(1, 1).await;
    let running = rig.start_request();
    rig.next_batch_size();
    let queued = rig.start_request();
    assert_eq!(rig.start_request().await, Err(EngineError::Overloaded));
    rig.verdict_sender.send(Verdict::Answer).unwrap();
    rig.verdict_sender.send(Verdict::Answer).unwrap();
    assert!(running.await.is_ok() && queued.await.is_ok(), "admitted requests succeed");
}

#[tokio::test]
async fn crop_of_a_caller_who_left_is_dropped() {
    let rig = Rig::new(8, 8).await;
    let first = rig.start_request();
    rig.next_batch_size();
    let (gone, stays) = (rig.start_request(), rig.start_request());
    drop(gone);
    rig.verdict_sender.send(Verdict::Answer).unwrap();
    rig.verdict_sender.send(Verdict::Answer).unwrap();
    assert!(first.await.is_ok() && stays.await.is_ok());
    assert_eq!(rig.next_batch_size(), 1, "the batch has only the crop of the caller who stayed");
}

#[tokio::test]
async fn callers_of_a_failed_batch_get_an_error_and_the_engine_continues() {
    let rig = Rig::new(8, 8).await;
    for (verdict, reason) in [
        (Verdict::Panic, "panicked: test panic"),
        (Verdict::Fail, "test failure"),
        (Verdict::OmitOne, "0 outputs for 1 images"),
    ] {
        rig.verdict_sender.send(verdict).unwrap();
        assert_eq!(rig.start_request().await, Err(EngineError::FailedAlone(reason.to_owned())));
    }
    rig.verdict_sender.send(Verdict::Answer).unwrap();
    assert!(rig.start_request().await.is_ok());
}

#[tokio::test]
async fn closed_queue_finishes_its_crops_and_refuses_new_ones() {
    let rig = Rig::new(8, 2).await;
    let first = rig.start_request();
    rig.next_batch_size();
    let queued: Vec<_> = (0..3).map(|_| rig.start_request()).collect();
    rig.queue.close();
    assert_eq!(rig.start_request().await, Err(EngineError::Closed));
    for _ in 0..3 {
        rig.verdict_sender.send(Verdict::Answer).unwrap();
    }
    assert!(first.await.is_ok());
    assert!(join_all(queued).await.iter().all(Result::is_ok));
    rig.running_engines.wait_until_ended().await;
}

/// An engine whose logits are all infinite.
struct BrokenEngine;

impl Infer for BrokenEngine {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        Ok(batch.iter().map(|_| vec![f32::INFINITY; CLASSES]).collect())
    }
}

/// An engine that hangs in its warm-up until the test drops the channel's sender.
struct HangingEngine {
    test_is_running: std_mpsc::Receiver<()>,
}

impl Infer for HangingEngine {
    fn infer(&mut self, _batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        self.test_is_running.recv().map_err(|_| InferError("the test is over".into()))?;
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn start_times_out_if_an_engine_hangs_in_its_warm_up() {
    let (_queue, starter) = inference_queue(NonZeroUsize::MIN, NonZeroUsize::MIN, "fake");
    let (end_of_test, test_is_running) = std_mpsc::channel();
    let starter = starter.with_warm_up_timeout(Duration::from_millis(50));
    let error = starter.start(vec![Box::new(HangingEngine { test_is_running })]).await.unwrap_err();
    let expected = "an engine did not warm up within 0.05 s (CLASSIFY_WARM_UP_TIMEOUT)";
    assert_eq!(error.to_string(), expected);
    drop(end_of_test);
}

#[tokio::test]
async fn start_fails_if_an_engine_gives_unusable_logits() {
    let (_queue, starter) = inference_queue(NonZeroUsize::MIN, NonZeroUsize::MIN, "fake");
    let error = starter.start(vec![Box::new(BrokenEngine)]).await.unwrap_err();
    assert!(error.to_string().contains("did not warm up"), "{error}");
}
