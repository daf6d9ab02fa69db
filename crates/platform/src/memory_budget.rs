//! Bounds the memory of concurrent jobs: each reserves its bytes before it allocates them.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Bytes per semaphore permit. Reservations are rounded up to it, because a semaphore hands out fewer
/// than 2^32 permits per call.
const UNIT_BYTES: u64 = 1024;

/// Size of a budget and of its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryBudgetLimits {
    /// Maximum number of bytes reserved at any time.
    pub bytes: u64,
    /// Maximum number of waiting callers.
    pub max_waiting: usize,
    /// Maximum time that a caller waits.
    pub wait_timeout: Duration,
}

/// Reason why memory was not reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemoryBudgetError {
    /// More bytes were requested than the whole budget has. Waiting does not help.
    #[error("the request is larger than the memory budget")]
    ExceedsBudget,
    /// Too many callers are waiting already. The same call may succeed later.
    #[error("the queue for memory is full")]
    Overloaded,
    /// Not enough memory was released in time. The same call may succeed later.
    #[error("not enough memory was released in time")]
    TimedOut,
}

/// A bounded number of bytes, reserved in the order of the requests.
///
/// Because of that order, many small requests cannot starve a large one.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    free_units: Arc<Semaphore>,
    queue: Semaphore,
    total_units: u64,
    wait_timeout: Duration,
    gauge: Arc<str>,
    purpose: &'static str,
}

impl MemoryBudget {
    /// Creates a budget. `name` is the prefix of its gauge `<name>_memory_bytes`, and `purpose` the value
    /// of the gauge's label `for`.
    pub fn new(name: &str, purpose: &'static str, limits: &MemoryBudgetLimits) -> Self {
        let total_units = (limits.bytes / UNIT_BYTES).min(u32::MAX.into());
        let permits = usize::try_from(total_units).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self {
            shared: Arc::new(Shared {
                free_units: Arc::new(Semaphore::new(permits)),
                queue: Semaphore::new(limits.max_waiting),
                total_units,
                wait_timeout: limits.wait_timeout,
                gauge: format!("{name}_memory_bytes").into(),
                purpose,
            }),
        }
    }

    /// Reserves `bytes`, and waits until they are free if necessary.
    ///
    /// Dropping the future gives up the place in the queue.
    ///
    /// # Errors
    /// [`MemoryBudgetError`].
    pub async fn reserve(&self, bytes: u64) -> Result<MemoryReservation, MemoryBudgetError> {
        let shared = &self.shared;
        let units = units(bytes).filter(|&units| u64::from(units) <= shared.total_units);
        let units = units.ok_or(MemoryBudgetError::ExceedsBudget)?;
        let free_units = || Arc::clone(&shared.free_units);
        let permit = match free_units().try_acquire_many_owned(units) {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = shared.queue.try_acquire().map_err(|_| MemoryBudgetError::Overloaded)?;
                let permit = timeout(shared.wait_timeout, free_units().acquire_many_owned(units)).await;
                // The inner error means that the semaphore is closed, which never happens.
                permit.map_err(|_| MemoryBudgetError::TimedOut)?.map_err(|_| MemoryBudgetError::TimedOut)?
            }
        };
        shared.report();
        Ok(MemoryReservation { permit: Some(permit), shared: Arc::clone(shared) })
    }

    /// Returns the number of bytes that are reserved now.
    #[cfg(any(test, feature = "testing"))]
    pub fn reserved_bytes(&self) -> u64 {
        self.shared.reserved_bytes()
    }
}

/// Returns `bytes` in units, rounded up, or `None` if that is more than a semaphore can hand out.
fn units(bytes: u64) -> Option<u32> {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).ok()
}

impl Shared {
    fn reserved_bytes(&self) -> u64 {
        self.total_units.saturating_sub(self.free_units.available_permits() as u64) * UNIT_BYTES
    }

    #[expect(clippy::cast_precision_loss, reason = "exact up to 8 PiB, far beyond any budget")]
    fn report(&self) {
        metrics::gauge!(Arc::clone(&self.gauge), "for" => self.purpose).set(self.reserved_bytes() as f64);
    }
}

/// Bytes reserved from a [`MemoryBudget`]; released on drop.
#[derive(Debug)]
pub struct MemoryReservation {
    /// `Some` until the reservation is dropped.
    permit: Option<OwnedSemaphorePermit>,
    shared: Arc<Shared>,
}

impl MemoryReservation {
    /// Reduces the reservation to `bytes`. Does nothing if it is smaller already.
    pub fn shrink_to(&mut self, bytes: u64) {
        let Some(permit) = &mut self.permit else { return };
        let wanted = units(bytes).and_then(|units| usize::try_from(units).ok()).unwrap_or(usize::MAX);
        let surplus = permit.num_permits().saturating_sub(wanted);
        drop(permit.split(surplus));
        self.shared.report();
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        drop(self.permit.take());
        self.shared.report();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    fn budget(max_waiting: usize) -> MemoryBudget {
        let limits =
            MemoryBudgetLimits { bytes: 100 * KIB, max_waiting, wait_timeout: Duration::from_secs(5) };
        MemoryBudget::new("test", "tests", &limits)
    }

    #[tokio::test]
    async fn dropped_and_shrunk_reservations_are_released() {
        let budget = budget(0);
        let most = budget.reserve(99 * KIB).await.unwrap();
        let mut rest = budget.reserve(1).await.unwrap();
        assert_eq!(budget.reserved_bytes(), 100 * KIB, "rounded up to whole units");
        rest.shrink_to(1);
        rest.shrink_to(5 * KIB);
        assert_eq!(budget.reserved_bytes(), 100 * KIB, "already smaller");
        rest.shrink_to(0);
        assert_eq!(budget.reserved_bytes(), 99 * KIB);
        drop((most, rest));
        assert_eq!(budget.reserved_bytes(), 0);
    }

    #[tokio::test]
    async fn request_larger_than_the_budget_is_refused() {
        let budget = budget(9);
        assert_eq!(budget.reserve(100 * KIB + 1).await.unwrap_err(), MemoryBudgetError::ExceedsBudget);
        assert_eq!(budget.reserve(u64::MAX).await.unwrap_err(), MemoryBudgetError::ExceedsBudget);
        drop(budget.reserve(100 * KIB).await.unwrap());
        assert_eq!(budget.reserve(100 * KIB).await.unwrap().shared.reserved_bytes(), 100 * KIB);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_callers_are_bounded_in_number_and_time() {
        let budget = budget(1);
        let all = budget.reserve(100 * KIB).await.unwrap();
        let (first, second) = tokio::join!(budget.reserve(KIB), budget.reserve(KIB));
        assert_eq!(first.unwrap_err(), MemoryBudgetError::TimedOut);
        assert_eq!(second.unwrap_err(), MemoryBudgetError::Overloaded);
        drop(all);
        budget.reserve(100 * KIB).await.unwrap();
    }

    #[tokio::test]
    async fn small_request_does_not_overtake_a_large_one() {
        let budget = budget(2);
        let held = budget.reserve(50 * KIB).await.unwrap();
        let mut large = std::pin::pin!(budget.reserve(100 * KIB));
        let mut small = std::pin::pin!(budget.reserve(KIB));
        tokio::select! {
            biased;
            _ = &mut large => panic!("only half of the budget is free"),
            _ = &mut small => panic!("the large request came first"),
            () = std::future::ready(()) => {}
        }
        drop(held);
        drop(large.await.unwrap());
        small.await.unwrap();
    }

    #[tokio::test]
    async fn dropped_future_reserves_nothing() {
        let budget = budget(1);
        let held = budget.reserve(60 * KIB).await.unwrap();
        for _ in 0..3 {
            let dropped = timeout(Duration::ZERO, budget.reserve(100 * KIB)).await;
            assert!(dropped.is_err(), "it must wait");
        }
        drop(held);
        assert_eq!(budget.reserved_bytes(), 0);
        budget.reserve(100 * KIB).await.unwrap();
    }
}
