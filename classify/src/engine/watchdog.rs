//! Detects a batch that never finishes, and signals that an engine is lost.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;

/// Signal that an engine is lost, and the reason. Clones share the signal.
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

    /// Returns the reason why an engine is lost, or `None` if no engine is lost.
    pub(super) fn reason(&self) -> Option<String> {
        self.reason.borrow().clone()
    }

    /// Waits until an engine is lost and returns the reason.
    pub(super) async fn wait(&self) -> String {
        let mut reasons = self.reason.subscribe();
        // Waiting cannot fail, because `self` holds the sender.
        let reason = reasons.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_default()
    }
}

/// Timer of an engine's current batch. Clones share the timer.
///
/// The engine's thread starts and stops the timer. That thread may hang in a driver for ever, so a separate
/// task, the watchdog, watches the timer.
#[derive(Clone, Debug, Default)]
pub(super) struct BatchTimer {
    /// Time at which the timer was started, or `None` while no batch runs.
    start: Arc<Mutex<Option<Instant>>>,
}

impl BatchTimer {
    /// Starts the timer from zero, even if it is already running.
    pub(super) fn restart(&self) {
        *self.lock_start() = Some(Instant::now());
    }

    /// Starts the timer unless it is already running.
    ///
    /// A batch that is submitted while the previous batch runs does not start the timer. The timer is
    /// restarted when the previous batch has finished.
    pub(super) fn start_if_idle(&self) {
        self.lock_start().get_or_insert_with(Instant::now);
    }

    /// Stops the timer, because no batch runs any more.
    pub(super) fn stop(&self) {
        *self.lock_start() = None;
    }

    fn lock_start(&self) -> MutexGuard<'_, Option<Instant>> {
        self.start.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a batch exceeds `batch_timeout`, then reports the engine as lost.
    pub(super) async fn watch_for_timeout(&self, batch_timeout: Duration, lost_signal: &LostSignal) {
        loop {
            let start = *self.lock_start();
            let remaining = match start {
                Some(start) => batch_timeout.saturating_sub(start.elapsed()),
                None => batch_timeout,
            };
            if remaining.is_zero() {
                let seconds = batch_timeout.as_secs_f64();
                return lost_signal.report(&format!("a batch has run for more than {seconds} s"));
            }
            // A batch that starts during this sleep cannot exceed the timeout before the sleep ends.
            tokio::time::sleep(remaining).await;
        }
    }
}
