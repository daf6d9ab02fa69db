//! A [`MemoryBudget`] bounds the memory of concurrent jobs. A job reserves its bytes before it allocates
//! them.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Number of bytes in a unit. A permit of the semaphore stands for one unit, so reservations are rounded up
/// to whole units.
///
/// A unit is larger than a byte, because one call can acquire at most [`u32::MAX`] permits, and a budget can
/// have more bytes than that.
const UNIT_BYTES: u64 = 1024;

/// Limits of a [`MemoryBudget`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryBudgetLimits {
    /// Maximum number of bytes that are reserved at the same time.
    pub max_bytes: u64,
    /// Maximum number of callers that wait for memory.
    pub max_waiting: usize,
    /// Maximum time that a caller waits for memory.
    pub wait_timeout: Duration,
}

/// Reason why memory was not reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemoryBudgetError {
    /// The caller requested more bytes than the whole budget has. The same call always fails.
    #[error("the request is larger than the memory budget")]
    ExceedsBudget,
    /// The maximum number of callers is waiting already. The same call may succeed later.
    #[error("the queue for memory is full")]
    Overloaded,
    /// Not enough memory was released in time. The same call may succeed later.
    #[error("not enough memory was released in time")]
    TimedOut,
}

/// A bounded number of bytes that jobs can reserve.
///
/// Waiting callers get their bytes in the order of their calls. Small requests therefore cannot starve a
/// large one.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    free_units: Arc<Semaphore>,
    /// Every waiting caller holds one of these permits.
    waiting_permits: Semaphore,
    total_units: u64,
    wait_timeout: Duration,
    gauge_name: Arc<str>,
    purpose: &'static str,
}

impl MemoryBudget {
    /// Creates a budget. The number of reserved bytes is the gauge `<name>_memory_bytes`, whose label `for`
    /// has the value `purpose`.
    pub fn new(name: &str, purpose: &'static str, limits: &MemoryBudgetLimits) -> Self {
        let total_units = (limits.max_bytes / UNIT_BYTES).min(u32::MAX.into());
        let unit_permits = usize::try_from(total_units).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self {
            shared: Arc::new(Shared {
                free_units: Arc::new(Semaphore::new(unit_permits)),
                waiting_permits: Semaphore::new(limits.max_waiting),
                total_units,
                wait_timeout: limits.wait_timeout,
                gauge_name: format!("{name}_memory_bytes").into(),
                purpose,
            }),
        }
    }

    /// Reserves `bytes` bytes. If fewer bytes are free, the caller waits in a queue.
    ///
    /// Dropping the future removes the caller from the queue.
    ///
    /// # Errors
    /// Returns a [`MemoryBudgetError`] if the bytes cannot be reserved.
    pub async fn reserve(&self, bytes: u64) -> Result<MemoryReservation, MemoryBudgetError> {
        let shared = &self.shared;
        let units = units_for(bytes).filter(|&units| u64::from(units) <= shared.total_units);
        let units = units.ok_or(MemoryBudgetError::ExceedsBudget)?;
        let semaphore = || Arc::clone(&shared.free_units);
        let permit = match semaphore().try_acquire_many_owned(units) {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting_permit =
                    shared.waiting_permits.try_acquire().map_err(|_| MemoryBudgetError::Overloaded)?;
                let permit = timeout(shared.wait_timeout, semaphore().acquire_many_owned(units)).await;
                // The inner error means that the semaphore is closed. This semaphore is never closed.
                permit.map_err(|_| MemoryBudgetError::TimedOut)?.map_err(|_| MemoryBudgetError::TimedOut)?
            }
        };
        shared.set_gauge();
        Ok(MemoryReservation { permit: Some(permit), shared: Arc::clone(shared) })
    }

    /// Returns the number of bytes that are reserved now.
    #[cfg(any(test, feature = "testing"))]
    pub fn reserved_bytes(&self) -> u64 {
        self.shared.reserved_bytes()
    }
}

/// Returns the number of units for `bytes` bytes, rounded up. Returns `None` if one call cannot acquire that
/// many units.
fn units_for(bytes: u64) -> Option<u32> {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).ok()
}

impl Shared {
    fn reserved_bytes(&self) -> u64 {
        self.total_units.saturating_sub(self.free_units.available_permits() as u64) * UNIT_BYTES
    }

    #[expect(clippy::cast_precision_loss, reason = "exact up to 8 PiB, far beyond any budget")]
    fn set_gauge(&self) {
        metrics::gauge!(Arc::clone(&self.gauge_name), "for" => self.purpose)
            .set(self.reserved_bytes() as f64);
    }
}

/// Bytes that are reserved from a [`MemoryBudget`]. Dropping the reservation releases them.
#[derive(Debug)]
pub struct MemoryReservation {
    /// `Some` until the reservation is dropped.
    permit: Option<OwnedSemaphorePermit>,
    shared: Arc<Shared>,
}

impl MemoryReservation {
    /// Reduces the reservation to `bytes` bytes. This does nothing if the reservation is already smaller.
    pub fn shrink_to(&mut self, bytes: u64) {
        let Some(permit) = &mut self.permit else { return };
        let kept_units = units_for(bytes).and_then(|units| usize::try_from(units).ok()).unwrap_or(usize::MAX);
        let surplus_units = permit.num_permits().saturating_sub(kept_units);
        drop(permit.split(surplus_units));
        self.shared.set_gauge();
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        drop(self.permit.take());
        self.shared.set_gauge();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    fn budget(max_waiting: usize) -> MemoryBudget {
        let limits =
            MemoryBudgetLimits { max_bytes: 100 * KIB, max_waiting, wait_timeout: Duration::from_secs(5) };
        MemoryBudget::new("test", "tests", &limits)
    }

    #[tokio::test]
    async fn dropped_and_shrunk_reservations_are_released() {
        let budget = budget(0);
        let large = budget.reserve(99 * KIB).await.unwrap();
        let mut small = budget.reserve(1).await.unwrap();
        assert_eq!(budget.reserved_bytes(), 100 * KIB, "reservations are rounded up to whole KiB");
        small.shrink_to(1);
        small.shrink_to(5 * KIB);
        assert_eq!(budget.reserved_bytes(), 100 * KIB, "a smaller reservation must not grow");
        small.shrink_to(0);
        assert_eq!(budget.reserved_bytes(), 99 * KIB);
        drop((large, small));
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
        let whole_budget = budget.reserve(100 * KIB).await.unwrap();
        let (first, second) = tokio::join!(budget.reserve(KIB), budget.reserve(KIB));
        assert_eq!(first.unwrap_err(), MemoryBudgetError::TimedOut);
        assert_eq!(second.unwrap_err(), MemoryBudgetError::Overloaded);
        drop(whole_budget);
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
            assert!(dropped.is_err(), "the call must wait");
        }
        drop(held);
        assert_eq!(budget.reserved_bytes(), 0);
        budget.reserve(100 * KIB).await.unwrap();
    }
}
