//! [`RefusalDelay`] delays the answers to refused requests, so that retries leave the CPU time to accepted work.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

/// Delay of a refusal while few refusals are delayed.
const MIN_DELAY: Duration = Duration::from_millis(100);
/// Maximum delay of a refusal. Clients expect an answer within seconds.
const MAX_DELAY: Duration = Duration::from_secs(2);
/// Share of each second by which one delayed refusal lengthens the delay of the next one. Callers that retry at
/// once are therefore refused 250 times per second, until the delay reaches [`MAX_DELAY`].
const DELAY_PER_REFUSAL: Duration = Duration::from_millis(4);

/// Delays the refusals of a service. Clones share the number of delayed refusals.
///
/// A refusal costs CPU time, and often a new connection. With a constant delay, the number of refusals per
/// second is proportional to the number of callers that retry at once, and so many callers take the CPU time
/// from the work that was accepted. The delay therefore grows with the number of callers.
#[derive(Debug, Clone, Default)]
pub struct RefusalDelay {
    delayed_count: Arc<AtomicU32>,
}

impl RefusalDelay {
    /// Waits for 0.1 s, or for 4 ms per refusal that is delayed now, up to 2 s.
    pub async fn wait(&self) {
        let delayed = DelayedRefusal::new(&self.delayed_count);
        tokio::time::sleep(DELAY_PER_REFUSAL.saturating_mul(delayed.position).clamp(MIN_DELAY, MAX_DELAY))
            .await;
    }
}

/// Counts a refusal until it is dropped, which also happens when the client disconnects.
struct DelayedRefusal<'a> {
    delayed_count: &'a AtomicU32,
    position: u32,
}

impl<'a> DelayedRefusal<'a> {
    fn new(delayed_count: &'a AtomicU32) -> Self {
        let position = delayed_count.fetch_add(1, Ordering::Relaxed) + 1;
        Self { delayed_count, position }
    }
}

impl Drop for DelayedRefusal<'_> {
    fn drop(&mut self) {
        self.delayed_count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::{task::JoinSet, time::Instant};

    use super::*;

    /// Starts `count` delays and returns when all of them have begun.
    async fn start_delays(delay: &RefusalDelay, count: u32) -> JoinSet<()> {
        let mut delays = JoinSet::new();
        for _ in 0..count {
            let delay = delay.clone();
            delays.spawn(async move { delay.wait().await });
        }
        while delay.delayed_count.load(Ordering::Relaxed) < count {
            tokio::task::yield_now().await;
        }
        delays
    }

    #[tokio::test(start_paused = true)]
    async fn delay_grows_with_the_number_of_delayed_refusals() {
        for (count, milliseconds) in [(0, 100), (24, 100), (49, 200), (199, 800), (499, 2000), (5000, 2000)] {
            let delay = RefusalDelay::default();
            let _others = start_delays(&delay, count).await;
            let start = Instant::now();
            delay.wait().await;
            assert_eq!(start.elapsed(), Duration::from_millis(milliseconds), "{count}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn refusal_of_a_client_that_disconnected_no_longer_counts() {
        let delay = RefusalDelay::default();
        start_delays(&delay, 200).await.shutdown().await;
        let start = Instant::now();
        delay.wait().await;
        assert_eq!(start.elapsed(), MIN_DELAY);
    }
}
