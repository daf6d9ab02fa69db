//! Resizes 8-bit grey, RGB and CMYK images with fast_image_resize.
//!
//! fast_image_resize has generic loops, which the compiler instantiates in the crate that calls them. Both
//! services call this crate instead. The loops are then compiled once, only for three of the thirteen pixel types,
//! and not again after each change to a service.

use fast_image_resize::{
    PixelTrait, ResizeAlg, ResizeOptions,
    images::{TypedImage, TypedImageRef},
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
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Pixels in row-major order, `[height, width, channels]`.
    pub pixels: &'a [u8],
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Channels of a pixel.
    pub channels: Channels,
    /// Part of the image that fills the target. Pixels outside are not read.
    pub crop: CropWindow,
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
        source: &Source<'_>,
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
        source: &Source<'_>,
        options: &ResizeOptions,
        (width, height): (u32, u32),
        target: &mut [u8],
    ) -> Result<(), Error> {
        let source = TypedImageRef::<P>::from_buffer(source.width, source.height, source.pixels)?;
        let mut target = TypedImage::<P>::from_buffer(width, height, target)?;
        Ok(self.0.resize_typed(&source, &mut target, options)?)
    }

    /// Returns the size of the kept buffer in bytes.
    pub fn buffer_bytes(&self) -> usize {
        self.0.size_of_internal_buffers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two columns of grey pixels: the left one is black, the right one is white.
    const BLACK_AND_WHITE: [u8; 4] = [0, 255, 0, 255];

    fn source(pixels: &[u8], channels: Channels, crop: CropWindow) -> Source<'_> {
        Source { pixels, width: 2, height: 2, channels, crop }
    }

    const RIGHT_COLUMN: CropWindow = CropWindow { left: 1.0, top: 0.0, width: 1.0, height: 2.0 };

    #[test]
    fn pixels_outside_the_crop_window_are_not_read() {
        let mut target = [0; 1];
        let source = source(&BLACK_AND_WHITE, Channels::Grey, RIGHT_COLUMN);
        Resizer::default().resize(&source, FilterType::Bilinear, (1, 1), &mut target).unwrap();
        assert_eq!(target, [255]);
    }

    #[test]
    fn grey_and_rgb_give_the_same_values() {
        let rgb = BLACK_AND_WHITE.map(|value| [value; 3]);
        let whole = CropWindow::whole(2, 2);
        let (mut grey_target, mut rgb_target) = ([0; 6], [0; 18]);
        let mut resizer = Resizer::default();
        let grey = source(&BLACK_AND_WHITE, Channels::Grey, whole);
        resizer.resize(&grey, FilterType::Lanczos3, (3, 2), &mut grey_target).unwrap();
        let rgb = source(rgb.as_flattened(), Channels::Rgb, whole);
        resizer.resize(&rgb, FilterType::Lanczos3, (3, 2), &mut rgb_target).unwrap();
        assert_eq!(rgb_target.as_chunks::<3>().0, grey_target.map(|value| [value; 3]));
    }

    #[test]
    fn black_ink_does_not_change_how_the_other_inks_are_resized() {
        let cmyk = BLACK_AND_WHITE.map(|value| [value, value, 9, 255 - value]);
        let whole = CropWindow::whole(2, 2);
        let (mut grey_target, mut cmyk_target) = ([0; 6], [0; 24]);
        let mut resizer = Resizer::default();
        let grey = source(&BLACK_AND_WHITE, Channels::Grey, whole);
        resizer.resize(&grey, FilterType::Bilinear, (3, 2), &mut grey_target).unwrap();
        let cmyk = source(cmyk.as_flattened(), Channels::Cmyk, whole);
        resizer.resize(&cmyk, FilterType::Bilinear, (3, 2), &mut cmyk_target).unwrap();
        assert_eq!(grey_target[1], 128);
        for (&[cyan, magenta, yellow, _], grey) in cmyk_target.as_chunks::<4>().0.iter().zip(grey_target) {
            assert_eq!([cyan, magenta, yellow], [grey, grey, 9]);
        }
    }

    #[test]
    fn buffer_that_is_too_short_is_an_error() {
        let mut resizer = Resizer::default();
        let short_source = source(&BLACK_AND_WHITE, Channels::Rgb, RIGHT_COLUMN);
        let result = resizer.resize(&short_source, FilterType::Bilinear, (1, 1), &mut [0; 3]);
        assert!(matches!(result, Err(Error::Buffer(_))), "{result:?}");
        let grey = source(&BLACK_AND_WHITE, Channels::Grey, RIGHT_COLUMN);
        let result = resizer.resize(&grey, FilterType::Bilinear, (2, 2), &mut [0; 3]);
        assert!(matches!(result, Err(Error::Buffer(_))), "{result:?}");
    }

    #[test]
    fn crop_window_outside_the_source_is_an_error() {
        let outside = CropWindow { width: 2.0, ..RIGHT_COLUMN };
        let grey = source(&BLACK_AND_WHITE, Channels::Grey, outside);
        let result = Resizer::default().resize(&grey, FilterType::Bilinear, (1, 1), &mut [0; 1]);
        assert!(matches!(result, Err(Error::Resize(_))), "{result:?}");
    }
}
