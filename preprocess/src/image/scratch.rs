//! Buffers that a thread keeps from one image to the next.

use std::cell::Cell;

use platform::scratch::with_scratch;
use resize::Resizer;
use srgb::Converter;

/// Buffers for processing one image.
#[derive(Default)]
pub(super) struct Scratch {
    /// The decoded pixels.
    pixels: Vec<u8>,
    /// The resized pixels.
    pub(super) resized: Vec<u8>,
    /// The encoded image.
    pub(super) jpeg: Vec<u8>,
    /// The resizer, which has its own buffer for the intermediate image (resized in width only).
    resizer: Resizer,
    /// Decoder state of jpeg-scaled. The state is boxed, because its tables take tens of kilobytes.
    jpeg_scaled: Box<jpeg_scaled::Decoder>,
    /// Converter to sRGB, which keeps the transform of the last image that had a profile.
    pub(super) colour_converter: Converter,
}

impl Scratch {
    /// Calls `work` with this thread's buffers, which it keeps up to `max_kept_bytes`. See [`with_scratch`].
    pub(super) fn with<R>(max_kept_bytes: usize, work: impl FnOnce(&mut Self) -> R) -> R {
        thread_local! {
            static KEPT: Cell<Option<Scratch>> = const { Cell::new(None) };
        }
        with_scratch(&KEPT, max_kept_bytes, work)
    }

    /// Returns the buffer for decoded pixels, filled with `length` zeros.
    ///
    /// The buffer is cleared, so that a decoder that leaves a gap does not reveal pixels of an earlier
    /// upload.
    pub(super) fn zeroed_pixels(&mut self, length: usize) -> &mut [u8] {
        if self.pixels.capacity() < length {
            // Drops the old buffer before the new one is allocated, so that they never exist at the same
            // time.
            self.pixels = Vec::new();
            self.pixels = vec![0; length];
        } else {
            self.pixels.clear();
            self.pixels.resize(length, 0);
        }
        &mut self.pixels
    }

    /// Decodes a JPEG of at most `max_scans` scans with jpeg-scaled into the buffer for decoded pixels. Returns the
    /// decoded width and height.
    ///
    /// # Errors
    /// Returns any [`jpeg_scaled::Error`].
    pub(super) fn decode_with_jpeg_scaled(
        &mut self,
        bytes: &[u8],
        scale: jpeg_scaled::Scale,
        max_scans: usize,
    ) -> Result<(u32, u32), jpeg_scaled::Error> {
        self.jpeg_scaled.set_max_scans(max_scans);
        self.jpeg_scaled.decode_into(bytes, scale, &mut self.pixels)
    }

    /// Returns the decoded pixels.
    pub(super) fn pixels_mut(&mut self) -> &mut [u8] {
        &mut self.pixels
    }

    /// Replaces the buffer for decoded pixels with a buffer that the decoder allocated itself.
    #[cfg(feature = "turbo")]
    pub(super) fn replace_pixels(&mut self, pixels: Vec<u8>) {
        self.pixels = pixels;
    }

    /// Returns the decoded pixels, the resizer and the buffer for resized pixels.
    pub(super) fn for_resizing(&mut self) -> (&mut [u8], &mut Resizer, &mut Vec<u8>) {
        (&mut self.pixels, &mut self.resizer, &mut self.resized)
    }
}

impl platform::scratch::Scratch for Scratch {
    fn allocated_bytes(&self) -> usize {
        let buffers = [&self.pixels, &self.resized, &self.jpeg].map(Vec::capacity);
        buffers.into_iter().sum::<usize>()
            + self.jpeg_scaled.allocated_bytes()
            + self.resizer.buffer_bytes()
            + self.colour_converter.allocated_bytes()
    }
}

#[cfg(test)]
mod tests {
    use platform::scratch::Scratch as _;

    use super::*;

    #[test]
    fn buffers_within_the_limit_are_kept_and_cleared_and_larger_ones_are_dropped() {
        Scratch::with(1000, |scratch| scratch.zeroed_pixels(500).fill(7));
        Scratch::with(1000, |scratch| {
            assert_eq!(scratch.allocated_bytes(), 500);
            assert_eq!(scratch.zeroed_pixels(400), [0; 400]);
            scratch.zeroed_pixels(1001);
        });
        Scratch::with(1000, |scratch| assert_eq!(scratch.allocated_bytes(), 0));
    }
}
