//! Feeding and losing a device, with one that waits to be let go.

use std::{sync::mpsc as std_mpsc, time::Duration};

use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use tokio::sync::oneshot;

use super::super::*;

/// A device that tells what it was given, and is done with a batch when the test says so.
struct Device {
    given: std_mpsc::Sender<Batch>,
}

/// A batch that the device has.
struct Batch {
    images: usize,
    done: oneshot::Sender<Verdict>,
}

enum Verdict {
    Answer,
    Fail,
    Panic,
}

impl Infer for Device {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        block_on(self.begin(batch)?)
    }

    fn begin(&mut self, batch: &[Crop]) -> Result<Pending, InferError> {
        let (done, verdict) = oneshot::channel();
        let images = batch.len();
        self.given.send(Batch { images, done }).map_err(|_| InferError("the device is gone".into()))?;
        Ok(Box::pin(async move {
            match verdict.await {
                Ok(Verdict::Answer) => Ok(vec![vec![0.0; CLASSES]; images]),
                Ok(Verdict::Fail) => Err(InferError("out of memory".into())),
                Ok(Verdict::Panic) => panic!("validation error"),
                Err(_) => std::future::pending().await,
            }
        }))
    }

    fn overlaps(&self) -> bool {
        true
    }

    fn warm_up(&mut self) -> Result<(), InferError> {
        Ok(())
    }
}

struct Rig {
    engines: Engines,
    running: Running,
    given: std_mpsc::Receiver<Batch>,
}

impl Rig {
    async fn new(max_batch: usize, time_limit: Duration) -> Self {
        let some = |n| NonZeroUsize::new(n).unwrap();
        let (engines, workers) = queue(some(16), some(max_batch), "fake");
        let (to_test, given) = std_mpsc::channel();
        let workers = workers.with_time_limit(time_limit);
        let running = workers.start(vec![Box::new(Device { given: to_test })]).await.unwrap();
        Self { engines, running, given }
    }

    /// The batch that the device is given next.
    fn batch(&self) -> Batch {
        self.given.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    /// Requests that have been put in the queue already.
    fn requests(&self, count: usize) -> Vec<Request> {
        let request = |_| {
            let engines = self.engines.clone();
            let mut request = async move { engines.infer(Crop::black(GEOMETRY.crop)).await }.boxed();
            // Polled once, which is what puts it in the queue.
            match (&mut request).now_or_never() {
                Some(result) => std::future::ready(result).boxed(),
                None => request,
            }
        };
        (0..count).map(request).collect()
    }
}

type Request = BoxFuture<'static, Result<Vec<f32>, EngineError>>;

async fn all_answered(requests: Vec<Request>) -> bool {
    join_all(requests).await.iter().all(Result::is_ok)
}

const LONG: Duration = Duration::from_secs(600);

fn answer(batch: Batch) -> usize {
    batch.done.send(Verdict::Answer).ok().unwrap();
    batch.images
}

#[tokio::test]
async fn the_next_batch_is_handed_over_before_the_first_is_done() {
    let rig = Rig::new(4, LONG).await;
    let mut requests = rig.requests(1);
    let first = rig.batch();
    assert_eq!(first.images, 1, "nobody is waited for");
    requests.extend(rig.requests(1));
    let second = rig.batch();
    assert_eq!(second.images, 1, "as many as the device is working on");
    requests.extend(rig.requests(6));
    assert!(rig.given.try_recv().is_err(), "two are as many as it has at once");
    answer(first);
    let third = rig.batch();
    assert_eq!(third.images, 4, "as many as fit");
    answer(second);
    assert_eq!(answer(third) + answer(rig.batch()), 6);
    assert!(all_answered(requests).await);
}

#[tokio::test]
async fn fewer_than_the_device_works_on_wait_until_it_is_done() {
    let rig = Rig::new(4, LONG).await;
    let mut requests = rig.requests(1);
    let first = rig.batch();
    requests.extend(rig.requests(1));
    let second = rig.batch();
    requests.extend(rig.requests(4));
    answer(first);
    let large = rig.batch();
    assert_eq!(large.images, 4);
    answer(second);
    requests.extend(rig.requests(1));
    assert!(rig.given.recv_timeout(Duration::from_millis(50)).is_err(), "it waits for company");
    answer(large);
    assert_eq!(answer(rig.batch()), 1, "and no longer");
    assert!(all_answered(requests).await);
}

#[tokio::test]
async fn a_failure_loses_the_device_for_all_who_wait() {
    for (verdict, reason) in
        [(Verdict::Fail, "out of memory"), (Verdict::Panic, "panicked: validation error")]
    {
        let rig = Rig::new(1, LONG).await;
        let requests = rig.requests(3);
        let first = rig.batch();
        first.done.send(verdict).ok().unwrap();
        for answer in join_all(requests).await {
            let error = answer.unwrap_err();
            assert!(matches!(error, EngineError::Lost(_) | EngineError::Failed(_)), "{error}");
        }
        assert_eq!(rig.engines.lost().await, reason);
        let late = rig.engines.infer(Crop::black(GEOMETRY.crop)).await;
        assert_eq!(late, Err(EngineError::Lost(reason.to_owned())));
        rig.running.finished().await;
    }
}

#[tokio::test]
async fn a_device_that_takes_no_work_is_lost() {
    let rig = Rig::new(1, LONG).await;
    drop(rig.given);
    assert!(matches!(
        rig.engines.infer(Crop::black(GEOMETRY.crop)).await,
        Err(EngineError::Lost(reason)) if reason == "the device is gone"
    ));
}

#[tokio::test]
async fn a_device_that_hangs_is_lost() {
    let rig = Rig::new(1, Duration::from_millis(50)).await;
    let requests = rig.requests(2);
    let never = rig.batch();
    for answer in join_all(requests).await {
        assert!(matches!(answer, Err(EngineError::Lost(_))));
    }
    assert_eq!(rig.engines.lost().await, "a batch has run for more than 0.05 s");
    drop(never);
}

#[tokio::test]
async fn an_idle_device_is_not_lost_however_short_the_limit() {
    let rig = Rig::new(1, Duration::from_millis(20)).await;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(200) {
        let request = rig.requests(1);
        answer(rig.batch());
        assert!(all_answered(request).await);
    }
    let lost = tokio::time::timeout(Duration::from_millis(100), rig.engines.lost()).await;
    assert!(lost.is_err(), "{lost:?}");
}

#[tokio::test]
async fn closing_finishes_what_is_queued_and_takes_no_more() {
    let rig = Rig::new(2, LONG).await;
    let requests = rig.requests(5);
    let first = rig.batch();
    rig.engines.close();
    assert_eq!(rig.engines.infer(Crop::black(GEOMETRY.crop)).await, Err(EngineError::Closed));
    let mut done = answer(first);
    while done < 5 {
        done += answer(rig.batch());
    }
    assert!(all_answered(requests).await);
    rig.running.finished().await;
}
