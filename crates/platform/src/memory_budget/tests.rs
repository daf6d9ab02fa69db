//! Tests of the limits and the order of reservations, and of their freedom from deadlocks.

use std::{future::Future, task::Poll};

use proptest::prelude::*;

use super::*;

const KIB: u64 = 1024;

/// Creates a budget of 100 KiB. With `max_reservation_bytes` of at most 87 KiB, the share for small requests
/// has 12.5 KiB, and a request of up to 3.125 KiB is small.
fn budget(max_reservation_bytes: u64, max_waiting: usize) -> MemoryBudget {
    let limits = MemoryBudgetLimits {
        max_bytes: 100 * KIB,
        max_reservation_bytes,
        max_waiting,
        wait_timeout: Duration::from_secs(5),
    };
    MemoryBudget::new("test", "tests", &limits)
}

/// Polls `future` once. Returns its output if it is ready.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn dropped_and_shrunk_reservations_are_released() {
    let budget = budget(100 * KIB, 0);
    let large = budget.reserve(99 * KIB).await.unwrap();
    let mut small = budget.reserve(KIB).await.unwrap();
    assert_eq!(budget.reserved_bytes(), 100 * KIB);
    small.shrink_to(KIB);
    small.shrink_to(5 * KIB);
    assert_eq!(budget.reserved_bytes(), 100 * KIB, "a smaller reservation must not grow");
    small.shrink_to(0);
    assert_eq!(budget.reserved_bytes(), 99 * KIB);
    drop((large, small));
    assert_eq!(budget.reserved_bytes(), 0);
}

#[tokio::test]
async fn request_larger_than_the_budget_is_refused() {
    let budget = budget(100 * KIB, 9);
    assert_eq!(budget.reserve(100 * KIB + 1).await.unwrap_err(), MemoryBudgetError::ExceedsBudget);
    assert_eq!(budget.reserve(u64::MAX).await.unwrap_err(), MemoryBudgetError::ExceedsBudget);
    drop(budget.reserve(100 * KIB).await.unwrap());
    let whole_budget = budget.reserve(100 * KIB).await.unwrap();
    assert_eq!(budget.reserved_bytes(), 100 * KIB);
    drop(whole_budget);
    let mut growing = budget.reserve_growing(KIB, 9 * KIB).await.unwrap();
    assert_eq!(growing.grow_to(9 * KIB + 1).await.unwrap_err(), MemoryBudgetError::ExceedsBudget);
}

#[tokio::test(start_paused = true)]
async fn waiting_callers_are_bounded_in_number_and_time() {
    let budget = budget(100 * KIB, 1);
    let whole_budget = budget.reserve(100 * KIB).await.unwrap();
    let (first, second) = tokio::join!(budget.reserve(KIB), budget.reserve(KIB));
    assert_eq!(first.unwrap_err(), MemoryBudgetError::TimedOut);
    assert_eq!(second.unwrap_err(), MemoryBudgetError::Overloaded);
    drop(whole_budget);
    budget.reserve(100 * KIB).await.unwrap();
}

#[tokio::test]
async fn medium_request_does_not_overtake_a_large_one() {
    let budget = budget(80 * KIB, 2);
    let held = budget.reserve(50 * KIB).await.unwrap();
    let mut large = Box::pin(budget.reserve(80 * KIB));
    let mut medium = Box::pin(budget.reserve(10 * KIB));
    assert!(poll_once(&mut large).await.is_none(), "too little is free");
    assert!(poll_once(&mut medium).await.is_none(), "the large request came first");
    drop(held);
    drop(large.await.unwrap());
    medium.await.unwrap();
}

#[tokio::test]
async fn small_request_is_not_queued_behind_a_large_one() {
    let budget = budget(80 * KIB, 2);
    let held = budget.reserve(50 * KIB).await.unwrap();
    let mut large = Box::pin(budget.reserve(80 * KIB));
    assert!(poll_once(&mut large).await.is_none());
    let small = [budget.reserve(3 * KIB).await.unwrap(), budget.reserve(3 * KIB).await.unwrap()];
    drop(held);
    let _large = large.await.expect("small requests do not delay the large one");
    drop(small);
    // With the large reservation, the common share is nearly full. The other share still serves small ones.
    for _ in 0..9 {
        budget.reserve(3 * KIB).await.unwrap();
    }
}

#[tokio::test]
async fn small_requests_use_the_common_share_only_while_nobody_waits_for_it() {
    let budget = budget(80 * KIB, 2);
    let mut small = Vec::new();
    while budget.reserved_bytes() <= 90 * KIB {
        small.push(budget.reserve(3 * KIB).await.unwrap());
    }
    let mut large = Box::pin(budget.reserve(80 * KIB));
    assert!(poll_once(&mut large).await.is_none());
    // Each of these would fit in what is free in the common share, but the large request comes first.
    let mut late = Box::pin(budget.reserve(3 * KIB));
    assert!(poll_once(&mut late).await.is_none());
    drop(small);
    large.await.unwrap();
    late.await.unwrap();
}

#[tokio::test]
async fn dropped_future_reserves_nothing_and_lets_the_next_caller_pass() {
    let budget = budget(100 * KIB, 2);
    let held = budget.reserve(60 * KIB).await.unwrap();
    for _ in 0..3 {
        let mut dropped = Box::pin(budget.reserve(100 * KIB));
        assert!(poll_once(&mut dropped).await.is_none());
        let mut next = Box::pin(budget.reserve(KIB));
        assert!(poll_once(&mut next).await.is_none());
        drop(dropped);
        next.await.unwrap();
    }
    drop(held);
    assert_eq!(budget.reserved_bytes(), 0);
    budget.reserve(100 * KIB).await.unwrap();
}

#[tokio::test]
async fn bytes_that_the_most_advanced_reservation_needs_are_not_given_to_others() {
    let budget = budget(100 * KIB, 9);
    let mut first = budget.reserve_growing(60 * KIB, 100 * KIB).await.unwrap();
    let mut second = budget.reserve_growing(0, 100 * KIB).await.unwrap();
    // 40 KiB are free, and the first reservation may need all of them.
    let mut growth = Box::pin(second.grow_to(KIB));
    assert!(poll_once(&mut growth).await.is_none());
    first.grow_to(100 * KIB).await.unwrap();
    first.shrink_to(70 * KIB);
    growth.await.unwrap();
    // The first reservation no longer grows, so it will end without more bytes.
    second.grow_to(30 * KIB).await.unwrap();
    drop(first);
    second.grow_to(100 * KIB).await.unwrap();
}

#[tokio::test]
async fn reservation_that_cannot_grow_keeps_its_bytes_when_its_future_is_dropped() {
    let budget = budget(100 * KIB, 9);
    let _first = budget.reserve_growing(60 * KIB, 100 * KIB).await.unwrap();
    let mut second = budget.reserve_growing(0, 50 * KIB).await.unwrap();
    let mut growth = Box::pin(second.grow_to(50 * KIB));
    assert!(poll_once(&mut growth).await.is_none());
    drop(growth);
    assert_eq!(budget.reserved_bytes(), 60 * KIB);
    drop(second);
    assert_eq!(budget.reserved_bytes(), 60 * KIB);
}

/// A job that reserves `first` bytes, grows by `step` up to `max`, then keeps only `kept` bytes for a while.
#[derive(Clone, Debug)]
struct Job {
    first: u64,
    step: u64,
    max: u64,
    kept: u64,
    pauses: usize,
}

impl Job {
    /// Returns the job with at most `max` bytes.
    fn with_max(self, max: u64) -> Self {
        Self { first: self.first.min(max), max: self.max.min(max), ..self }
    }
}

fn any_job() -> impl Strategy<Value = Job> {
    (1..=100u64, 1..40u64, 1..=100u64, 0..=100u64, 0..3usize).prop_map(|(first, step, max, kept, pauses)| {
        Job { first: first.min(max) * KIB, step: step * KIB, max: max * KIB, kept: kept * KIB, pauses }
    })
}

async fn run_job(budget: MemoryBudget, job: Job) -> Result<(), MemoryBudgetError> {
    let mut reservation = budget.reserve_growing(job.first, job.max).await?;
    let mut held = job.first;
    while held < job.max {
        for _ in 0..job.pauses {
            tokio::task::yield_now().await;
        }
        held = job.max.min(held + job.step);
        reservation.grow_to(held).await?;
        assert!(budget.reserved_bytes() <= 100 * KIB, "more is reserved than the budget has");
    }
    reservation.shrink_to(job.kept);
    tokio::task::yield_now().await;
    Ok(())
}

proptest! {
    #[test]
    fn jobs_that_grow_side_by_side_all_finish(
        jobs in prop::collection::vec(any_job(), 1..30),
        has_small_share: bool,
    ) {
        let max_reservation_bytes = if has_small_share { 80 * KIB } else { 100 * KIB };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let budget = budget(max_reservation_bytes, jobs.len());
            let tasks: Vec<_> = jobs
                .into_iter()
                .map(|job| tokio::spawn(run_job(budget.clone(), job.with_max(max_reservation_bytes))))
                .collect();
            // With a paused clock, jobs that waited for each other would all run into the timeout.
            for task in tasks {
                assert_eq!(task.await.unwrap(), Ok(()));
            }
            assert_eq!(budget.reserved_bytes(), 0);
        });
    }
}
