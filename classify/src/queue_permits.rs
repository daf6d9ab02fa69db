//! Decides which images may enter the queues, and keeps part of the queues free for events and for requests.
//!
//! An image needs a [`QueuePermit`] from before its bytes are read until an engine runs it, so every image
//! that is decoded can also be classified. Requests and events share the permits, and each of the two always
//! finds its reserved share free of the other. A flood of requests therefore never keeps events from being
//! handled, and a flood of events never keeps requests from being answered.

use std::{num::NonZeroUsize, sync::Arc};

use metrics::counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Number of pixels that a permit of the semaphore for pixels stands for. One call can acquire at most
/// [`u32::MAX`] permits.
const PIXELS_PER_UNIT: u64 = 1024;

/// Sender of an image, for which a share of the queues is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A client of `POST /classify`. It is refused if the queue is full.
    Request,
    /// A pushed event. It is refused if the queue is full, and is delivered again.
    PushedEvent,
    /// A pulled event. It waits if the queue is full. The number of pulled events is bounded.
    PulledEvent,
}

/// Error of an image that finds the queue full. A later attempt may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the queue is full")]
pub(crate) struct QueueFull;

/// Limits of the queues.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueLimits {
    /// Maximum number of images.
    pub(crate) max_images: NonZeroUsize,
    /// Maximum number of pixels of the images that wait for decoding or are decoded.
    pub(crate) max_pixels: u64,
    /// Percentage of both maxima that is reserved for events. The same percentage is reserved for requests.
    pub(crate) reserved_percent: u8,
}

/// The permits of the queues.
#[derive(Debug)]
pub(crate) struct QueuePermits {
    images: Capacity,
    pixels: Capacity,
}

/// Permit for one image to be in the queues. Dropping the permit makes room for another image.
#[derive(Debug)]
pub(crate) struct QueuePermit {
    caller: Caller,
    _image: CapacityPermit,
}

/// Permit for the pixels of an image to be decoded.
#[derive(Debug)]
pub(crate) struct PixelPermit {
    _pixels: CapacityPermit,
}

impl QueuePermits {
    /// Creates the permits. The reserved shares are rounded down to whole images and units of pixels.
    pub(crate) fn new(limits: &QueueLimits) -> Self {
        let units = usize::try_from(limits.max_pixels / PIXELS_PER_UNIT).unwrap_or(usize::MAX);
        let new_capacity = |total| Capacity::new(total, limits.reserved_percent);
        Self { images: new_capacity(limits.max_images.get()), pixels: new_capacity(units) }
    }

    /// Returns true if the queue has no room for a further image of `caller`.
    pub(crate) fn is_full(&self, caller: Caller) -> bool {
        self.images.is_exhausted(caller)
    }

    /// Returns the maximum number of events that have a permit at the same time.
    pub(crate) fn max_events(&self) -> usize {
        self.images.max_per_kind
    }

    /// Acquires the permit for an image of `caller`. Only a pulled event waits until there is room.
    ///
    /// # Errors
    /// Returns [`QueueFull`] if there is no room. The refusal is counted in the metrics.
    pub(crate) async fn acquire(&self, caller: Caller) -> Result<QueuePermit, QueueFull> {
        let image = self.images.acquire(caller, 1).await.inspect_err(|_| self.count_refusal(caller))?;
        Ok(QueuePermit { caller, _image: image })
    }

    /// Counts an image of `caller` that is refused because the queue is full.
    pub(crate) fn count_refusal(&self, caller: Caller) {
        count_refusal(caller, "queue_full", "event_queue_full");
    }

    /// Acquires the permit to decode the pixels of the image of `permit`.
    ///
    /// An image with more pixels than its caller may use at all is decoded while its caller has no other.
    ///
    /// # Errors
    /// Returns [`QueueFull`] if there is no room. The refusal is counted in the metrics.
    pub(crate) async fn acquire_pixels(
        &self,
        permit: &QueuePermit,
        pixels: u64,
    ) -> Result<PixelPermit, QueueFull> {
        let units = usize::try_from(pixels.div_ceil(PIXELS_PER_UNIT)).unwrap_or(usize::MAX);
        let pixels = self.pixels.acquire(permit.caller, units).await;
        let pixels =
            pixels.inspect_err(|_| count_refusal(permit.caller, "decoders_busy", "event_decoders_busy"))?;
        Ok(PixelPermit { _pixels: pixels })
    }
}

fn count_refusal(caller: Caller, request_reason: &'static str, event_reason: &'static str) {
    let reason = if caller == Caller::Request { request_reason } else { event_reason };
    counter!("classify_shed_total", "reason" => reason).increment(1);
}

/// A number of units that requests and events share.
#[derive(Debug)]
struct Capacity {
    /// The units that neither requests nor events use.
    all: Arc<Semaphore>,
    /// The units that requests may still use.
    requests: Arc<Semaphore>,
    /// The units that events may still use.
    events: Arc<Semaphore>,
    /// Maximum number of units that requests alone, or events alone, use.
    max_per_kind: usize,
}

/// Units of a [`Capacity`]. Dropping the permit releases them.
///
/// The units are released in the order of the fields. If those of the kind were released first, a caller of the
/// same kind could take units of the other kind's share before `_of_all` is released.
#[derive(Debug)]
struct CapacityPermit {
    _of_all: OwnedSemaphorePermit,
    _of_kind: OwnedSemaphorePermit,
}

impl Capacity {
    fn new(total: usize, reserved_percent: u8) -> Self {
        let total = total.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let reserved =
            total / 100 * usize::from(reserved_percent) + total % 100 * usize::from(reserved_percent) / 100;
        // At least one unit remains, so that neither requests nor events are refused for ever.
        let max_per_kind = total.saturating_sub(reserved).max(1);
        let semaphore = |units| Arc::new(Semaphore::new(units));
        Self {
            all: semaphore(total),
            requests: semaphore(max_per_kind),
            events: semaphore(max_per_kind),
            max_per_kind,
        }
    }

    fn of_kind(&self, caller: Caller) -> &Arc<Semaphore> {
        match caller {
            Caller::Request => &self.requests,
            Caller::PushedEvent | Caller::PulledEvent => &self.events,
        }
    }

    fn is_exhausted(&self, caller: Caller) -> bool {
        self.all.available_permits() == 0 || self.of_kind(caller).available_permits() == 0
    }

    /// Acquires `units`, or the maximum of the caller's kind if that is less.
    async fn acquire(&self, caller: Caller, units: usize) -> Result<CapacityPermit, QueueFull> {
        let units = u32::try_from(units.min(self.max_per_kind)).unwrap_or(u32::MAX);
        let (of_kind, of_all) = (Arc::clone(self.of_kind(caller)), Arc::clone(&self.all));
        // The semaphores are never closed, so `acquire_many_owned` does not fail. The share of the kind comes
        // first, so that a caller without a share takes nothing from the other kind, not even for a moment.
        let (of_kind, of_all) = if caller == Caller::PulledEvent {
            let of_kind = of_kind.acquire_many_owned(units).await.map_err(|_| QueueFull)?;
            (of_kind, of_all.acquire_many_owned(units).await.map_err(|_| QueueFull)?)
        } else {
            let of_kind = of_kind.try_acquire_many_owned(units).map_err(|_| QueueFull)?;
            (of_kind, of_all.try_acquire_many_owned(units).map_err(|_| QueueFull)?)
        };
        Ok(CapacityPermit { _of_all: of_all, _of_kind: of_kind })
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;
    use crate::config::Settings;

    const CALLERS: [Caller; 2] = [Caller::Request, Caller::PushedEvent];

    fn new_permits(max_images: usize, max_pixels: u64) -> QueuePermits {
        let max_images = NonZeroUsize::new(max_images).unwrap();
        QueuePermits::new(&QueueLimits { max_images, max_pixels, reserved_percent: 25 })
    }

    /// Acquires permits for images of `caller` until one is refused.
    async fn fill(queue_permits: &QueuePermits, caller: Caller) -> Vec<QueuePermit> {
        let mut permits = Vec::new();
        while let Ok(permit) = queue_permits.acquire(caller).await {
            permits.push(permit);
        }
        permits
    }

    #[tokio::test]
    async fn share_of_each_kind_is_free_when_the_other_kind_fills_the_queue() {
        for (first, second) in [(CALLERS[0], CALLERS[1]), (CALLERS[1], CALLERS[0])] {
            let queue_permits = new_permits(8, 1 << 20);
            let of_first = fill(&queue_permits, first).await;
            assert!(queue_permits.is_full(first) && !queue_permits.is_full(second));
            let of_second = fill(&queue_permits, second).await;
            assert_eq!((of_first.len(), of_second.len()), (6, 2), "{first:?} first");
            drop(of_first);
            assert_eq!(fill(&queue_permits, second).await.len(), 4, "the other kind uses what is free");
            drop(of_second);
            assert_eq!(fill(&queue_permits, first).await.len(), 6);
        }
    }

    #[test]
    fn cloud_run_sends_at_most_as_many_pushes_as_the_default_queue_admits() {
        let script_path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/lib.sh");
        let script = std::fs::read_to_string(script_path).unwrap();
        let defaults = script.split("${CLASSIFY_CONCURRENCY:=").skip(1);
        let concurrencies: Vec<usize> =
            defaults.map(|rest| rest.split_once('}').unwrap().0.parse().unwrap()).collect();
        let max_events = QueuePermits::new(&Settings::default().queue_limits()).max_events();
        assert_eq!(concurrencies.iter().max(), Some(&max_events), "{concurrencies:?}");
    }

    #[tokio::test]
    async fn smallest_queue_admits_one_image_of_either_kind() {
        for caller in CALLERS {
            assert_eq!(fill(&new_permits(1, 0), caller).await.len(), 1);
        }
    }

    #[tokio::test]
    async fn pixels_are_shared_like_images_and_the_largest_image_is_decoded_alone() {
        let queue_permits = new_permits(8, 100 * PIXELS_PER_UNIT);
        let request = queue_permits.acquire(Caller::Request).await.unwrap();
        let event = queue_permits.acquire(Caller::PushedEvent).await.unwrap();
        let huge = queue_permits.acquire_pixels(&request, u64::MAX).await.unwrap();
        assert_eq!(queue_permits.acquire_pixels(&request, 1).await.unwrap_err(), QueueFull);
        let share = queue_permits.acquire_pixels(&event, 25 * PIXELS_PER_UNIT).await.unwrap();
        assert_eq!(queue_permits.acquire_pixels(&event, 1).await.unwrap_err(), QueueFull);
        drop((huge, share));
        queue_permits.acquire_pixels(&event, 75 * PIXELS_PER_UNIT).await.unwrap();
    }

    #[tokio::test]
    async fn pulled_event_waits_for_room_and_gets_the_next_permit_before_a_request() {
        let queue_permits = new_permits(2, 1 << 20);
        let mut permits = fill(&queue_permits, Caller::Request).await;
        let mut waiting = pin!(queue_permits.acquire(Caller::PulledEvent));
        assert!(waiting.as_mut().now_or_never().is_none());
        permits.pop();
        assert_eq!(queue_permits.acquire(Caller::Request).await.unwrap_err(), QueueFull);
        assert!(waiting.now_or_never().unwrap().is_ok());
    }
}
