//! Detects a batch that never ends, and signals the rest of the service that an engine is lost.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;

/// Signals that an engine is lost, and the reason. Clones share the signal.
#[derive(Clone, Debug, Default)]
pub(super) struct LostSignal {
    reason: watch::Sender<Option<String>>,
}

impl LostSignal {
    /// Signals that an engine is lost. Only the first reason is kept.
    pub(super) fn report(&self, reason: &str) {
        self.reason.send_if_modified(|current| {
            let is_first = current.is_none();
            current.get_or_insert_with(|| reason.to_owned());
            is_first
        });
    }

    /// Returns the reason if an engine is lost.
    pub(super) fn reason(&self) -> Option<String> {
        self.reason.borrow().clone()
    }

    /// Waits until an engine is lost and returns the reason.
    pub(super) async fn wait(&self) -> String {
        let mut reasons = self.reason.subscribe();
        // Waiting cannot fail: the sender lives as long as `self`.
        let reason = reasons.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_default()
    }
}

/// Start time of an engine's current batch. Clones share it.
///
/// The engine's thread sets it. The thread may then hang in a driver for ever, which the watchdog task
/// observes from outside.
#[derive(Clone, Debug, Default)]
pub(super) struct BatchTimer {
    since: Arc<Mutex<Option<Instant>>>,
}

impl BatchTimer {
    /// Starts the timer, from zero if it runs.
    pub(super) fn restart(&self) {
        *self.lock() = Some(Instant::now());
    }

    /// Starts the timer unless it runs.
    ///
    /// A batch that is submitted while another one runs is timed from the end of that one.
    pub(super) fn start_if_idle(&self) {
        self.lock().get_or_insert_with(Instant::now);
    }

    /// Stops the timer because no batch runs.
    pub(super) fn stop(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a batch has run for longer than `limit`, then reports the engine as lost.
    pub(super) async fn watch(&self, limit: Duration, lost: &LostSignal) {
        loop {
            let since = *self.lock();
            let left = match since {
                Some(since) => limit.saturating_sub(since.elapsed()),
                None => limit,
            };
            if left.is_zero() {
                return lost.report(&format!("a batch has run for more than {} s", limit.as_secs_f64()));
            }
            tokio::time::sleep(left).await;
        }
    }
}
