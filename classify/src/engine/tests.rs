//! The queue and the threads, with an engine that waits to be let go.

use std::{sync::mpsc as std_mpsc, time::Duration};

use futures_util::{FutureExt, future::join_all};

use super::*;

/// An engine that tells what it was given and waits for a permit before it answers.
struct Gated {
    seen: std_mpsc::Sender<usize>,
    permits: std_mpsc::Receiver<Verdict>,
}

#[derive(Clone, Copy)]
enum Verdict {
    Answer,
    Fail,
    Panic,
    Nan,
    Short,
}

impl Infer for Gated {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        self.seen.send(batch.len()).unwrap();
        match self.permits.recv().unwrap() {
            Verdict::Answer => Ok(batch.iter().map(|_| vec![0.0; CLASSES]).collect()),
            Verdict::Fail => Err(InferError("out of luck".into())),
            Verdict::Panic => panic!("gone wrong"),
            Verdict::Nan => Ok(batch.iter().map(|_| vec![f32::NAN; CLASSES]).collect()),
            Verdict::Short => Ok(batch.iter().map(|_| vec![0.0; CLASSES - 1]).collect()),
        }
    }

    fn warm_up(&mut self) -> Result<(), InferError> {
        Ok(())
    }
}

struct Rig {
    engines: Engines,
    running: Running,
    seen: std_mpsc::Receiver<usize>,
    permits: std_mpsc::Sender<Verdict>,
}

impl Rig {
    async fn new(items: usize, max_batch: usize) -> Self {
        let some = |n| NonZeroUsize::new(n).unwrap();
        let (engines, workers) = queue(some(items), some(max_batch), "fake");
        let (seen_by_engine, seen) = std_mpsc::channel();
        let (permits, permits_of_engine) = std_mpsc::channel();
        let engine = Gated { seen: seen_by_engine, permits: permits_of_engine };
        let running = workers.start(vec![Box::new(engine)]).await.unwrap();
        Self { engines, running, seen, permits }
    }

    /// Size of the batch that the engine takes next.
    fn next_batch(&self) -> usize {
        self.seen.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    /// A request that has been put in the queue already.
    fn request(&self) -> impl Future<Output = Result<Vec<f32>, EngineError>> + Unpin {
        let engines = self.engines.clone();
        let mut request = async move { engines.infer(Crop::black(GEOMETRY.crop)).await }.boxed();
        // Polled once, which is what puts it in the queue.
        match (&mut request).now_or_never() {
            Some(result) => std::future::ready(result).boxed(),
            None => request,
        }
    }
}

#[tokio::test]
async fn a_lone_request_is_not_kept_waiting_and_queued_ones_run_together() {
    let rig = Rig::new(8, 3).await;
    let first = rig.request();
    assert_eq!(rig.next_batch(), 1, "runs alone, at once");
    let queued: Vec<_> = (0..4).map(|_| rig.request()).collect();
    for _ in 0..3 {
        rig.permits.send(Verdict::Answer).unwrap();
    }
    assert!(first.await.is_ok());
    assert!(join_all(queued).await.iter().all(Result::is_ok));
    assert_eq!((rig.next_batch(), rig.next_batch()), (3, 1), "as many as fit, then the rest");
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let rig = Rig::new(1, 1).await;
    let running = rig.request();
    rig.next_batch();
    let queued = rig.request();
    assert_eq!(rig.request().await, Err(EngineError::Overloaded));
    rig.permits.send(Verdict::Answer).unwrap();
    rig.permits.send(Verdict::Answer).unwrap();
    assert!(running.await.is_ok() && queued.await.is_ok(), "those that were let in are answered");
}

#[tokio::test]
async fn the_network_does_not_run_for_a_caller_who_left() {
    let rig = Rig::new(8, 8).await;
    let first = rig.request();
    rig.next_batch();
    let (gone, stays) = (rig.request(), rig.request());
    drop(gone);
    rig.permits.send(Verdict::Answer).unwrap();
    rig.permits.send(Verdict::Answer).unwrap();
    assert!(first.await.is_ok() && stays.await.is_ok());
    assert_eq!(rig.next_batch(), 1, "only the one who stayed");
}

#[tokio::test]
async fn a_failed_batch_is_an_error_for_its_callers_and_the_engine_lives_on() {
    let rig = Rig::new(8, 8).await;
    for (verdict, expected) in [
        (Verdict::Panic, EngineError::Failed("panicked: gone wrong".to_owned())),
        (Verdict::Fail, EngineError::Failed("out of luck".to_owned())),
        (Verdict::Nan, EngineError::Unsound(classes::NonFinite.to_string())),
        (Verdict::Short, EngineError::Unsound(format!("{} outputs for {CLASSES} classes", CLASSES - 1))),
    ] {
        rig.permits.send(verdict).unwrap();
        assert_eq!(rig.request().await, Err(expected));
    }
    rig.permits.send(Verdict::Answer).unwrap();
    assert!(rig.request().await.is_ok());
}

#[tokio::test]
async fn closing_finishes_what_is_queued_and_takes_no_more() {
    let rig = Rig::new(8, 2).await;
    let first = rig.request();
    rig.next_batch();
    let queued: Vec<_> = (0..3).map(|_| rig.request()).collect();
    rig.engines.close();
    assert_eq!(rig.request().await, Err(EngineError::Closed));
    for _ in 0..3 {
        rig.permits.send(Verdict::Answer).unwrap();
    }
    assert!(first.await.is_ok());
    assert!(join_all(queued).await.iter().all(Result::is_ok));
    rig.running.finished().await;
}

/// An engine that cannot run at all.
struct Broken;

impl Infer for Broken {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        Ok(batch.iter().map(|_| vec![f32::INFINITY; CLASSES]).collect())
    }
}

/// An engine that hangs in its warm-up for as long as the test has the other end.
struct Hanging {
    forever: std_mpsc::Receiver<()>,
}

impl Infer for Hanging {
    fn infer(&mut self, _batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        self.forever.recv().map_err(|_| InferError("the test is over".into()))?;
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn an_engine_that_hangs_in_its_warm_up_does_not_start() {
    let (_engines, workers) = queue(NonZeroUsize::MIN, NonZeroUsize::MIN, "fake");
    let (test_is_on, forever) = std_mpsc::channel();
    let workers = workers.with_warm_up_limit(Duration::from_millis(50));
    let error = workers.start(vec![Box::new(Hanging { forever })]).await.unwrap_err();
    let told = "an engine did not warm up: not within 0.05 s (CLASSIFY_WARM_UP_TIMEOUT)";
    assert_eq!(error.to_string(), told);
    drop(test_is_on);
}

#[tokio::test]
async fn an_engine_that_warms_up_to_nonsense_does_not_start() {
    let (_engines, workers) = queue(NonZeroUsize::MIN, NonZeroUsize::MIN, "fake");
    let error = workers.start(vec![Box::new(Broken)]).await.unwrap_err();
    assert!(error.to_string().contains("did not warm up"), "{error}");
}
