//! Resizes 8-bit grey, RGB and CMYK images with fast_image_resize.
//!
//! fast_image_resize has generic loops, which the compiler instantiates in the crate that calls them. Both
//! services call this crate instead. The loops are then compiled once, only for three of the thirteen pixel types,
//! and not again after each change to a service.

use fast_image_resize::{
    PixelTrait, ResizeAlg, ResizeOptions,
    images::TypedImage,
    pixels::{U8, U8x3, U8x4},
};

pub use fast_image_resize::{Filter, FilterType};

/// Channels of a pixel, one byte per channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// One byte per pixel.
    Grey,
    /// Three bytes per pixel: red, green and blue.
    Rgb,
    /// Four bytes per pixel: cyan, magenta, yellow and black, of which 0 means no ink.
    Cmyk,
}

impl Channels {
    /// Returns the number of channels, which is also the number of bytes per pixel.
    pub fn count(self) -> u8 {
        match self {
            Self::Grey => 1,
            Self::Rgb => 3,
            Self::Cmyk => 4,
        }
    }
}

/// A rectangle of the source, in pixels. The edges of the rectangle may cut through pixels.
///
/// The resizer reads only the pixels inside the rectangle, so cropping needs no separate pass over the pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CropWindow {
    /// Distance from the left edge of the source.
    pub left: f64,
    /// Distance from the upper edge of the source.
    pub top: f64,
    /// Width of the rectangle.
    pub width: f64,
    /// Height of the rectangle.
    pub height: f64,
}

impl CropWindow {
    /// Returns the window that covers a whole `width` × `height` image.
    pub fn whole(width: u32, height: u32) -> Self {
        Self { left: 0.0, top: 0.0, width: f64::from(width), height: f64::from(height) }
    }
}

/// The image to resize.
#[derive(Debug)]
pub struct Source<'a> {
    /// Pixels in row-major order, `[height, width, channels]`.
    ///
    /// The resizer does not change them. They are mutable because the target and the intermediate image are: with one
    /// type of image, the generic loops are compiled once, which takes half of the time.
    pub pixels: &'a mut [u8],
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Channels of a pixel.
    pub channels: Channels,
    /// Part of the image that fills the target. Pixels outside are not read.
    pub crop: CropWindow,
}

/// The part of a resized side that [`Resizer::resize_nearest`] computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NearestSpan {
    /// Length of the whole side after resizing, in pixels.
    pub resized: u64,
    /// First pixel of the part.
    pub start: u64,
    /// Number of pixels of the part. The part ends within the resized side.
    pub length: u32,
}

impl NearestSpan {
    /// Maximum start at which the positions are summed as in Pillow.
    const MAX_SUMMED_START: u64 = 1 << 16;

    /// Returns the index of a source pixel for each pixel of the part.
    ///
    /// Pillow adds the distance between two pixels again and again, so the sum is rounded at each step. The same sum is
    /// computed here, because another rounding can select the next pixel. Only a side of extreme length is not summed
    /// from its start, because the sum would take too long.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a position is from 0 to `source_length`, and rounded down"
    )]
    fn source_indices(self, source_length: u32) -> impl Iterator<Item = usize> {
        let step = f64::from(source_length) / self.resized as f64;
        let first = match self.start {
            start if start <= Self::MAX_SUMMED_START => (0..start).fold(step * 0.5, |sum, _| sum + step),
            start => (start as f64 + 0.5) * step,
        };
        let last_index = source_length.saturating_sub(1) as usize;
        let positions = std::iter::successors(Some(first), move |position| Some(position + step));
        positions.take(self.length as usize).map(move |position| (position as usize).min(last_index))
    }
}

/// Reason why an image cannot be resized.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A buffer has fewer bytes than its width, height and channels require.
    #[error("a buffer does not match the size of its image")]
    Buffer(#[from] fast_image_resize::ImageBufferError),
    /// The crop window is not inside the source.
    #[error("the image cannot be resized")]
    Resize(#[from] fast_image_resize::ResizeError),
    /// A buffer has fewer bytes than its width, height and channels require.
    #[error("a buffer is shorter than its image")]
    ShortBuffer,
}

/// Resizes images and keeps the buffer for the intermediate image, which is resized in one direction only.
#[derive(Default)]
pub struct Resizer(fast_image_resize::Resizer);

impl Resizer {
    /// Resizes the crop window of `source` to `size`, the width and height in pixels.
    ///
    /// Writes the pixels to `target`, in the layout of the source. The filter grows with the reduction, as in
    /// Pillow.
    ///
    /// # Errors
    /// Returns [`Error::Buffer`] when `source.pixels` or `target` is too short, and [`Error::Resize`] when the
    /// crop window is not inside the source.
    pub fn resize(
        &mut self,
        source: &mut Source<'_>,
        filter: FilterType,
        size: (u32, u32),
        target: &mut [u8],
    ) -> Result<(), Error> {
        let CropWindow { left, top, width: crop_width, height: crop_height } = source.crop;
        // The fourth channel of a pixel is black, and never alpha.
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).use_alpha(false).crop(
            left,
            top,
            crop_width,
            crop_height,
        );
        match source.channels {
            Channels::Grey => self.resize_typed::<U8>(source, &options, size, target),
            Channels::Rgb => self.resize_typed::<U8x3>(source, &options, size, target),
            Channels::Cmyk => self.resize_typed::<U8x4>(source, &options, size, target),
        }
    }

    fn resize_typed<P: PixelTrait>(
        &mut self,
        source: &mut Source<'_>,
        options: &ResizeOptions,
        (width, height): (u32, u32),
        target: &mut [u8],
    ) -> Result<(), Error> {
        let source = TypedImage::<P>::from_buffer(source.width, source.height, source.pixels)?;
        let mut target = TypedImage::<P>::from_buffer(width, height, target)?;
        Ok(self.0.resize_typed(&source, &mut target, options)?)
    }

    /// Copies a part of `source`, resized without a filter, to `target`.
    ///
    /// Each pixel is the one of the source at its centre, as in Pillow's NEAREST. `columns` and `rows` select the
    /// part. `source.crop` is not used.
    ///
    /// # Errors
    /// Returns [`Error::ShortBuffer`] when `source.pixels` or `target` is too short.
    pub fn resize_nearest(
        &self,
        source: &Source<'_>,
        columns: NearestSpan,
        rows: NearestSpan,
        target: &mut [u8],
    ) -> Result<(), Error> {
        let bytes_per_pixel = usize::from(source.channels.count());
        let (width, height) = (source.width as usize, source.height as usize);
        let (target_width, target_height) = (columns.length as usize, rows.length as usize);
        if source.pixels.len() < width * height * bytes_per_pixel
            || target.len() < target_width * target_height * bytes_per_pixel
        {
            return Err(Error::ShortBuffer);
        }
        let offsets: Vec<usize> =
            columns.source_indices(source.width).map(|column| column * bytes_per_pixel).collect();
        let target_rows = target.chunks_exact_mut((target_width * bytes_per_pixel).max(1));
        for (row, target_row) in rows.source_indices(source.height).zip(target_rows) {
            let source_row = &source.pixels[row * width * bytes_per_pixel..];
            for (&offset, pixel) in offsets.iter().zip(target_row.chunks_exact_mut(bytes_per_pixel)) {
                pixel.copy_from_slice(&source_row[offset..offset + bytes_per_pixel]);
            }
        }
        Ok(())
    }

    /// Returns the size of the kept buffer in bytes.
    pub fn buffer_bytes(&self) -> usize {
        self.0.size_of_internal_buffers()
    }
}
