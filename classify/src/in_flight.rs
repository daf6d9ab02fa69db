//! One piece of work at a time for each image.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use contract::GcsPath;
use tokio::sync::OwnedMutexGuard;

/// The images that are being worked on. An image that is announced twice at the same time is
/// classified once: the second announcement waits for its turn, and finds the first one's record.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    images: Mutex<HashMap<GcsPath, Arc<tokio::sync::Mutex<()>>>>,
}

/// The right to work on an image, until dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    in_flight: &'a InFlight,
    image: GcsPath,
    /// `None` while it waits.
    held: Option<OwnedMutexGuard<()>>,
}

impl InFlight {
    /// Waits until nobody else works on `image`.
    pub(crate) async fn turn(&self, image: &GcsPath) -> Turn<'_> {
        let lock = Arc::clone(self.images().entry(image.clone()).or_default());
        // Made before the wait, so that a caller who leaves while waiting cleans up as any other.
        let mut turn = Turn { in_flight: self, image: image.clone(), held: None };
        turn.held = Some(lock.lock_owned().await);
        turn
    }

    fn images(&self) -> MutexGuard<'_, HashMap<GcsPath, Arc<tokio::sync::Mutex<()>>>> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut images = self.in_flight.images();
        self.held = None;
        // The map's own is the last one: nobody works on the image and nobody waits.
        if images.get(&self.image).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            images.remove(&self.image);
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
    async fn the_second_waits_for_the_first_and_nobody_for_another_image() {
        let (in_flight, a) = (InFlight::default(), image("a"));
        let first = in_flight.turn(&a).await;
        let mut second = pin!(in_flight.turn(&a));
        let mut third = pin!(in_flight.turn(&a));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        let other = in_flight.turn(&image("b")).await;
        drop(first);
        assert!(third.as_mut().now_or_never().is_none(), "in turn");
        let second = second.await;
        assert!(third.as_mut().now_or_never().is_none(), "one at a time");
        drop(second);
        drop((third.await, other));
        assert!(in_flight.images().is_empty());
    }

    #[tokio::test]
    async fn who_leaves_while_waiting_leaves_nothing_behind() {
        let (in_flight, a) = (InFlight::default(), image("a"));
        let first = in_flight.turn(&a).await;
        {
            let mut left = pin!(in_flight.turn(&a));
            assert!(left.as_mut().now_or_never().is_none());
        }
        {
            let mut left = pin!(in_flight.turn(&a));
            assert!(left.as_mut().now_or_never().is_none());
            // It is its turn now, but it does not know.
            drop(first);
        }
        assert!(in_flight.images().is_empty());
        drop(in_flight.turn(&a).await);
        assert!(in_flight.images().is_empty());
    }
}
