//! The decoder, the resizer and the converter that a thread keeps from one image to the next.

use std::cell::Cell;

use platform::scratch::with_scratch;
use resize::Resizer;
use srgb::Converter;

/// Maximum total length, in bytes, of the buffers that a thread keeps for the next image.
const MAX_KEPT_BYTES: usize = 8 << 20;

/// Buffers for decoding, resizing and converting one image.
#[derive(Default)]
pub(super) struct Scratch {
    /// The decoder of JPEGs. It is boxed, because its tables take tens of kilobytes.
    pub(super) jpeg_decoder: Box<jpeg_scaled::Decoder>,
    /// The resizer. Allocating its buffers takes as long as a resize.
    pub(super) resizer: Resizer,
    /// The converter to sRGB, which keeps the transform of the last image that had a profile.
    pub(super) converter: Converter,
}

impl Scratch {
    /// Calls `work` with this thread's buffers. See [`with_scratch`].
    pub(super) fn with<R>(work: impl FnOnce(&mut Self) -> R) -> R {
        thread_local! {
            static KEPT: Cell<Option<Scratch>> = const { Cell::new(None) };
        }
        with_scratch(&KEPT, MAX_KEPT_BYTES, work)
    }
}

impl platform::scratch::Scratch for Scratch {
    fn allocated_bytes(&self) -> usize {
        self.jpeg_decoder.allocated_bytes() + self.resizer.buffer_bytes() + self.converter.allocated_bytes()
    }
}
