//! An engine that is lost: it runs on something that does not come back in this process.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;

/// Whether an engine is lost, and why. Clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lost {
    reason: watch::Sender<Option<String>>,
}

impl Lost {
    /// The engine is lost. The first reason stays.
    pub(crate) fn report(&self, reason: &str) {
        self.reason.send_if_modified(|told| {
            let first = told.is_none();
            told.get_or_insert_with(|| reason.to_owned());
            first
        });
    }

    /// Why it is lost, if it is.
    pub(crate) fn reason(&self) -> Option<String> {
        self.reason.borrow().clone()
    }

    /// Comes back with the reason when an engine is lost; never, if none is.
    pub(crate) async fn wait(&self) -> String {
        let mut reasons = self.reason.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let reason = reasons.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_default()
    }
}

/// Since when an engine's batch runs. The engine's thread sets it and may then hang for ever in a driver;
/// the watchdog sees it from outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Busy {
    since: Arc<Mutex<Option<Instant>>>,
}

impl Busy {
    /// A batch begins now.
    pub(crate) fn begin(&self) {
        *self.lock() = Some(Instant::now());
    }

    /// A batch begins now if none is under way; else it begins when that one ends.
    pub(crate) fn begin_unless_busy(&self) {
        self.lock().get_or_insert_with(Instant::now);
    }

    /// No batch is under way.
    pub(crate) fn end(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports the engine as lost once a batch has run for longer than `limit`. Never comes back before.
    pub(crate) async fn watch(&self, limit: Duration, lost: &Lost) {
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
