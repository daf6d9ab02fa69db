//! Makes sure that an image is handled by one task at a time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use contract::GcsPath;
use tokio::sync::OwnedMutexGuard;

/// The images that are being handled.
///
/// An image that is announced twice at the same time is classified once. The second announcement waits for a
/// permit and then finds the record that the first announcement has led to.
#[derive(Debug, Default)]
pub(super) struct InFlightImages {
    /// The lock of each image that a task handles or waits for.
    locks: Mutex<HashMap<GcsPath, Arc<tokio::sync::Mutex<()>>>>,
}

/// Exclusive permit to handle an image. Dropping the permit releases the image.
#[derive(Debug)]
pub(super) struct InFlightPermit<'a> {
    in_flight: &'a InFlightImages,
    image: GcsPath,
    /// Guard of the image's lock, or `None` until the permit is granted.
    guard: Option<OwnedMutexGuard<()>>,
}

impl InFlightImages {
    /// Waits until no other task handles `image`.
    pub(super) async fn acquire(&self, image: &GcsPath) -> InFlightPermit<'_> {
        let lock = Arc::clone(self.lock_map().entry(image.clone()).or_default());
        // The permit is created before the wait, so that its `Drop` removes the lock from the map even if the
        // caller stops waiting.
        let mut permit = InFlightPermit { in_flight: self, image: image.clone(), guard: None };
        permit.guard = Some(lock.lock_owned().await);
        permit
    }

    fn lock_map(&self) -> MutexGuard<'_, HashMap<GcsPath, Arc<tokio::sync::Mutex<()>>>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InFlightPermit<'_> {
    fn drop(&mut self) {
        let mut locks = self.in_flight.lock_map();
        self.guard = None;
        // If only the map refers to the lock, no task handles the image or waits for a permit.
        if locks.get(&self.image).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(&self.image);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    fn image(name: &str) -> GcsPath {
        GcsPath::new("b", name).unwrap()
    }

    #[tokio::test]
    async fn permits_of_an_image_are_granted_in_order_and_other_images_do_not_wait() {
        let (in_flight, a) = (InFlightImages::default(), image("a"));
        let first = in_flight.acquire(&a).await;
        let mut second = pin!(in_flight.acquire(&a));
        let mut third = pin!(in_flight.acquire(&a));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        let other = in_flight.acquire(&image("b")).await;
        drop(first);
        assert!(third.as_mut().now_or_never().is_none(), "the permits are granted in order");
        let second = second.await;
        assert!(third.as_mut().now_or_never().is_none(), "one permit is granted at a time");
        drop(second);
        drop((third.await, other));
        assert!(in_flight.lock_map().is_empty());
    }

    #[tokio::test]
    async fn caller_that_stops_waiting_leaves_no_lock_behind() {
        let (in_flight, a) = (InFlightImages::default(), image("a"));
        let first = in_flight.acquire(&a).await;
        {
            let mut cancelled = pin!(in_flight.acquire(&a));
            assert!(cancelled.as_mut().now_or_never().is_none());
        }
        {
            let mut cancelled = pin!(in_flight.acquire(&a));
            assert!(cancelled.as_mut().now_or_never().is_none());
            // Dropping `first` grants the permit, but `cancelled` is dropped before it is polled again.
            drop(first);
        }
        assert!(in_flight.lock_map().is_empty());
        drop(in_flight.acquire(&a).await);
        assert!(in_flight.lock_map().is_empty());
    }
}
