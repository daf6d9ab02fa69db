//! Memory that a thread uses again from one picture to the next. Fresh memory costs twice: the system
//! clears it, and hands it out page by page.

use std::cell::Cell;

use fast_image_resize::Resizer;

use super::colour::Converter;

/// Buffers for one picture.
#[derive(Default)]
pub(super) struct Scratch {
    pixels: Vec<u8>,
    /// The picture in its final size.
    pub(super) small: Vec<u8>,
    /// The same, as a JPEG.
    pub(super) jpeg: Vec<u8>,
    /// With its own buffer for the picture that is small in one direction only.
    pub(super) resizer: Resizer,
    /// With its own rows in work. Boxed: its tables are tens of kilobytes.
    jpeg_scaled: Box<jpeg_scaled::Decoder>,
    /// For the colours of the last picture that had a profile.
    pub(super) converter: Option<Converter>,
}

impl Scratch {
    /// Lends this thread's buffers to `work`; keeps them afterwards unless they have grown to more than
    /// `kept_bytes`. A panic costs them.
    pub(super) fn with<R>(kept_bytes: usize, work: impl FnOnce(&mut Self) -> R) -> R {
        thread_local! {
            static KEPT: Cell<Option<Scratch>> = const { Cell::new(None) };
        }
        let mut scratch = KEPT.take().unwrap_or_default();
        let result = work(&mut scratch);
        if scratch.bytes() <= kept_bytes {
            KEPT.set(Some(scratch));
        }
        result
    }

    /// Room for what a decoder writes: `bytes` zeros. Cleared, because a decoder that leaves a gap must
    /// not show what was in somebody else's picture.
    pub(super) fn pixels(&mut self, bytes: usize) -> &mut [u8] {
        if self.pixels.capacity() < bytes {
            // First the old one goes: the two are never there at once.
            self.pixels = Vec::new();
            self.pixels = vec![0; bytes];
        } else {
            self.pixels.clear();
            self.pixels.resize(bytes, 0);
        }
        &mut self.pixels
    }

    /// Decodes with jpeg-scaled into the pixels; gives width and height.
    ///
    /// # Errors
    /// [`jpeg_scaled::Error`].
    pub(super) fn jpeg_scaled(
        &mut self,
        bytes: &[u8],
        scale: jpeg_scaled::Scale,
    ) -> Result<(u32, u32), jpeg_scaled::Error> {
        self.jpeg_scaled.decode_into(bytes, scale, &mut self.pixels)
    }

    /// Takes what a decoder wrote into memory of its own.
    #[cfg(feature = "turbo")]
    pub(super) fn take(&mut self, pixels: Vec<u8>) {
        self.pixels = pixels;
    }

    /// What the decoder wrote, and what the resizer needs besides.
    pub(super) fn for_resizing(&mut self) -> (&[u8], &mut Resizer, &mut Vec<u8>) {
        (&self.pixels, &mut self.resizer, &mut self.small)
    }

    fn bytes(&self) -> usize {
        let buffers = [&self.pixels, &self.small, &self.jpeg].map(Vec::capacity);
        let converter = self.converter.as_ref().map_or(0, Converter::bytes);
        buffers.into_iter().sum::<usize>() + self.resizer.size_of_internal_buffers() + converter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_kept_up_to_the_limit_and_always_cleared() {
        Scratch::with(1000, |scratch| scratch.pixels(500).fill(7));
        Scratch::with(1000, |scratch| {
            assert_eq!(scratch.bytes(), 500);
            assert_eq!(scratch.pixels(400), [0; 400]);
            scratch.pixels(1001);
        });
        Scratch::with(1000, |scratch| assert_eq!(scratch.bytes(), 0));
    }
}
