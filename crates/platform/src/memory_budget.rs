//! Memory that is asked for before it is used, so that all of it together stays within a bound.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Memory is counted in these, rounded up: a semaphore gives out fewer than 2^32 permits at once.
const UNIT_BYTES: u64 = 1024;

/// How much memory there is, and who may wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryBudgetLimits {
    /// Bytes that may be reserved at once.
    pub bytes: u64,
    /// Callers that may wait at once.
    pub max_waiting: usize,
    /// Longest that one waits.
    pub max_wait: Duration,
}

/// Why memory was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemoryBudgetError {
    /// More than there is, however long one waits.
    #[error("more memory than there is")]
    TooMuch,
    /// Too many are waiting already; try again later.
    #[error("too many are waiting for memory")]
    Overloaded,
    /// None became free in time; try again later.
    #[error("no memory became free in time")]
    TimedOut,
}

/// Memory, given out in the order in which it is asked for: whoever wants much is not overtaken by
/// those who want little.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    free: Arc<Semaphore>,
    waiting: Semaphore,
    total: u64,
    max_wait: Duration,
    gauge: Arc<str>,
    purpose: &'static str,
}

impl MemoryBudget {
    /// Memory for one purpose; `name` is the prefix of its gauge (`<name>_memory_bytes {for}`).
    pub fn new(name: &str, purpose: &'static str, limits: &MemoryBudgetLimits) -> Self {
        let total = (limits.bytes / UNIT_BYTES).min(u32::MAX.into());
        let permits = usize::try_from(total).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self {
            shared: Arc::new(Shared {
                free: Arc::new(Semaphore::new(permits)),
                waiting: Semaphore::new(limits.max_waiting),
                total,
                max_wait: limits.max_wait,
                gauge: format!("{name}_memory_bytes").into(),
                purpose,
            }),
        }
    }

    /// Waits until `bytes` are free, and takes them. A caller who stops waiting (this future was
    /// dropped) leaves nothing behind.
    ///
    /// # Errors
    /// [`MemoryBudgetError`].
    pub async fn reserve(&self, bytes: u64) -> Result<MemoryReservation, MemoryBudgetError> {
        let shared = &self.shared;
        let units = units(bytes).filter(|&units| u64::from(units) <= shared.total);
        let units = units.ok_or(MemoryBudgetError::TooMuch)?;
        let free = || Arc::clone(&shared.free);
        let permit = match free().try_acquire_many_owned(units) {
            Ok(permit) => permit,
            Err(_) => {
                let _place = shared.waiting.try_acquire().map_err(|_| MemoryBudgetError::Overloaded)?;
                let permit = timeout(shared.max_wait, free().acquire_many_owned(units)).await;
                // Nobody closes the semaphore; were it closed, nothing would ever become free.
                permit.map_err(|_| MemoryBudgetError::TimedOut)?.map_err(|_| MemoryBudgetError::TimedOut)?
            }
        };
        shared.report();
        Ok(MemoryReservation { permit: Some(permit), shared: Arc::clone(shared) })
    }

    /// Bytes that are reserved now.
    pub fn reserved(&self) -> u64 {
        self.shared.reserved()
    }
}

fn units(bytes: u64) -> Option<u32> {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).ok()
}

impl Shared {
    fn reserved(&self) -> u64 {
        self.total.saturating_sub(self.free.available_permits() as u64) * UNIT_BYTES
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge shows no single bytes of petabytes")]
    fn report(&self) {
        metrics::gauge!(Arc::clone(&self.gauge), "for" => self.purpose).set(self.reserved() as f64);
    }
}

/// Memory that was given; given back when dropped.
#[derive(Debug)]
pub struct MemoryReservation {
    /// Always there until the end.
    permit: Option<OwnedSemaphorePermit>,
    shared: Arc<Shared>,
}

impl MemoryReservation {
    /// Gives back what is more than `bytes`.
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

    fn memory(max_waiting: usize) -> MemoryBudget {
        let limits = MemoryBudgetLimits { bytes: 100 * KIB, max_waiting, max_wait: Duration::from_secs(5) };
        MemoryBudget::new("test", "tests", &limits)
    }

    #[tokio::test]
    async fn what_is_reserved_is_given_back() {
        let memory = memory(0);
        let most = memory.reserve(99 * KIB).await.unwrap();
        let mut rest = memory.reserve(1).await.unwrap();
        assert_eq!(memory.reserved(), 100 * KIB, "counted in whole units");
        rest.shrink_to(1);
        rest.shrink_to(5 * KIB);
        assert_eq!(memory.reserved(), 100 * KIB, "nothing to give back");
        rest.shrink_to(0);
        assert_eq!(memory.reserved(), 99 * KIB);
        drop((most, rest));
        assert_eq!(memory.reserved(), 0);
    }

    #[tokio::test]
    async fn more_than_there_is_is_never_given() {
        let memory = memory(9);
        assert_eq!(memory.reserve(100 * KIB + 1).await.unwrap_err(), MemoryBudgetError::TooMuch);
        assert_eq!(memory.reserve(u64::MAX).await.unwrap_err(), MemoryBudgetError::TooMuch);
        drop(memory.reserve(100 * KIB).await.unwrap());
        assert_eq!(memory.reserve(100 * KIB).await.unwrap().shared.reserved(), 100 * KIB);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_are_bounded_in_number_and_time() {
        let memory = memory(1);
        let all = memory.reserve(100 * KIB).await.unwrap();
        let (first, second) = tokio::join!(memory.reserve(KIB), memory.reserve(KIB));
        assert_eq!(first.unwrap_err(), MemoryBudgetError::TimedOut);
        assert_eq!(second.unwrap_err(), MemoryBudgetError::Overloaded);
        drop(all);
        memory.reserve(100 * KIB).await.unwrap();
    }

    #[tokio::test]
    async fn the_large_are_not_overtaken() {
        let memory = memory(2);
        let held = memory.reserve(50 * KIB).await.unwrap();
        let mut large = std::pin::pin!(memory.reserve(100 * KIB));
        let mut small = std::pin::pin!(memory.reserve(KIB));
        tokio::select! {
            biased;
            _ = &mut large => panic!("there is not so much"),
            _ = &mut small => panic!("it came later"),
            () = std::future::ready(()) => {}
        }
        drop(held);
        drop(large.await.unwrap());
        small.await.unwrap();
    }

    #[tokio::test]
    async fn who_stops_waiting_leaves_nothing_behind() {
        let memory = memory(1);
        let held = memory.reserve(60 * KIB).await.unwrap();
        for _ in 0..3 {
            let left = timeout(Duration::ZERO, memory.reserve(100 * KIB)).await;
            assert!(left.is_err(), "it waits");
        }
        drop(held);
        assert_eq!(memory.reserved(), 0);
        memory.reserve(100 * KIB).await.unwrap();
    }
}
