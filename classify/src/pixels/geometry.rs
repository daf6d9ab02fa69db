//! Resize and crop that turn an image into the network's input.

use resize::NearestSpan;

/// Shape of the network's input image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CropShape {
    /// Height in pixels.
    pub height: u32,
    /// Width in pixels.
    pub width: u32,
    /// Channels of a pixel, and their order.
    pub channels: ChannelOrder,
}

impl CropShape {
    /// Returns the number of pixels.
    pub const fn pixel_count(self) -> usize {
        self.height as usize * self.width as usize
    }

    /// Returns the number of bytes, which is one per pixel and channel.
    pub const fn byte_count(self) -> usize {
        self.pixel_count() * self.channels.count()
    }
}

/// Channels of the network's input, and their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelOrder {
    /// Red, green and blue.
    Rgb,
    /// Blue, green and red, as in OpenCV.
    Bgr,
    /// One channel: the luma of ITU-R BT.601, as in Pillow's `convert("L")`.
    Grey,
}

impl ChannelOrder {
    /// Returns the number of channels.
    pub const fn count(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Grey => 1,
        }
    }
}

/// The method that resizes an image before the crop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// The shorter side gets this length in pixels and the aspect ratio is kept, as torchvision's `Resize` does.
    ShorterSide(u32),
    /// The image becomes as small as possible without a side below these, and the aspect ratio is kept, as timm's
    /// `ResizeKeepRatio` does.
    Cover {
        /// Minimum height in pixels.
        height: u32,
        /// Minimum width in pixels.
        width: u32,
    },
    /// The image gets the size of the crop. The aspect ratio is not kept.
    Squash,
    /// The whole image fits into the crop and keeps its aspect ratio. The rest has this colour: red, green and blue.
    /// The result is that of Pillow's `ImageOps.pad`.
    Letterbox([u8; 3]),
}

/// The filter that computes the resized pixels. Each filter is the one of the same name in Pillow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// A triangle whose radius is a pixel.
    Bilinear,
    /// A cubic curve with a = -0.5, whose radius is two pixels.
    Bicubic,
    /// Lanczos, whose radius is three pixels.
    Lanczos,
    /// The pixel at the centre, without a filter.
    Nearest,
}

impl Filter {
    /// Returns the radius of the filter in pixels of the image, or of the result if the image is reduced.
    fn radius(self) -> f64 {
        match self {
            Self::Nearest => 0.0,
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }
}

/// Resize and crop that turn an image into the network's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The resize before the crop.
    pub resize: Resize,
    /// The filter of the resize.
    pub filter: Filter,
    /// The crop at the centre of the resized image. It is not larger than the resized image.
    pub crop: CropShape,
}

/// Returns the first pixel of `inner` pixels at the centre of a side of `outer` pixels.
///
/// Half a pixel is rounded to the nearest even number, as in torchvision's `CenterCrop` and Pillow's `ImageOps.pad`.
pub(super) fn centre_start(outer: u64, inner: u32) -> u64 {
    let margin = outer.saturating_sub(inner.into());
    let half = margin / 2;
    if margin % 2 == 1 && half % 2 == 1 { half + 1 } else { half }
}

/// The part of a resized side that the crop contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Length of the side in the image, in pixels.
    source: u32,
    /// Length of the whole side after resizing, in pixels.
    pub(super) resized: u64,
    /// First pixel of the crop along the resized side.
    start: u64,
    /// Number of pixels of the crop along the resized side.
    pub(super) length: u32,
}

impl Span {
    /// Returns a span that contains the whole resized side.
    fn whole(source: u32, length: u32) -> Self {
        Self { source, resized: length.into(), start: 0, length }
    }

    /// Returns the span at the centre of a resized side.
    fn centre(source: u32, resized: u64, length: u32) -> Self {
        Self { source, resized, start: centre_start(resized, length), length }
    }

    /// Computes the start and the length of the span in pixels of the image.
    ///
    /// The result is exact if the image is not resized.
    pub(super) fn in_source(self) -> (f64, f64) {
        // The conversion to f64 is exact, because the numbers are far below 2^53.
        let scale = |pixels: u64| pixels as f64 * f64::from(self.source) / self.resized as f64;
        (scale(self.start), scale(self.length.into()))
    }

    /// Returns the span for a resize without a filter.
    pub(super) fn nearest(self) -> NearestSpan {
        NearestSpan { resized: self.resized, start: self.start, length: self.length }
    }

    /// Returns true if the side becomes longer.
    fn is_enlarged(self) -> bool {
        self.resized > self.source.into()
    }

    /// Returns the maximum number of source pixels along the side that a filter reads.
    fn max_pixels_read(self, filter: Filter) -> u64 {
        let reduction = (f64::from(self.source) / self.resized as f64).max(1.0);
        // Two pixels are added because the edges of the span may cut through pixels.
        let pixels = self.in_source().1 + 2.0 * filter.radius() * reduction + 2.0;
        to_pixels(pixels.ceil()).min(self.source.into())
    }
}

/// Converts a whole number of pixels, which is not negative.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the number is rounded, and at most the square of a side"
)]
fn to_pixels(length: f64) -> u64 {
    length as u64
}

/// The part of the resized image that the crop contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    pub(super) columns: Span,
    pub(super) rows: Span,
}

impl Placement {
    /// Returns true if a side of the image becomes longer.
    pub(super) fn is_enlarged(self) -> bool {
        self.columns.is_enlarged() || self.rows.is_enlarged()
    }
}

impl Geometry {
    /// Returns the length of the shorter side from which on no image is enlarged, whatever its aspect ratio.
    ///
    /// A letterbox enlarges an image only if both sides are shorter than the crop, so the crop's shorter side is
    /// enough.
    pub const fn min_shorter_side(self) -> u32 {
        let (longer, shorter) = match self.crop {
            CropShape { height, width, .. } if height > width => (height, width),
            CropShape { height, width, .. } => (width, height),
        };
        match self.resize {
            Resize::ShorterSide(side) => side,
            Resize::Cover { height, width } if height > width => height,
            Resize::Cover { width, .. } => width,
            Resize::Squash => longer,
            Resize::Letterbox(_) => shorter,
        }
    }

    /// Returns the geometry for an image that is turned by 90° after the resize.
    pub(super) fn transposed(self) -> Self {
        let resize = match self.resize {
            Resize::Cover { height, width } => Resize::Cover { height: width, width: height },
            same => same,
        };
        let crop = CropShape { height: self.crop.width, width: self.crop.height, ..self.crop };
        Self { resize, crop, ..self }
    }

    /// Computes which part of a resized `width` × `height` image the crop contains.
    ///
    /// Sides are rounded as in the tools that the variants of [`Resize`] name. torchvision rounds the longer side down,
    /// and the others round to the nearest number.
    pub(super) fn place(self, width: u32, height: u32) -> Placement {
        let CropShape { height: crop_height, width: crop_width, .. } = self.crop;
        let spans = |columns, rows| Placement { columns, rows };
        match self.resize {
            Resize::ShorterSide(side) => {
                let shorter = u64::from(width.min(height));
                let resized = |length: u32| u64::from(side) * u64::from(length) / shorter;
                spans(
                    Span::centre(width, resized(width), crop_width),
                    Span::centre(height, resized(height), crop_height),
                )
            }
            Resize::Cover { height: min_height, width: min_width } => {
                let reduction =
                    (f64::from(width) / f64::from(min_width)).min(f64::from(height) / f64::from(min_height));
                let resized = |length: u32, crop: u32| {
                    to_pixels((f64::from(length) / reduction).round_ties_even()).max(crop.into())
                };
                spans(
                    Span::centre(width, resized(width, crop_width), crop_width),
                    Span::centre(height, resized(height, crop_height), crop_height),
                )
            }
            Resize::Squash => spans(Span::whole(width, crop_width), Span::whole(height, crop_height)),
            Resize::Letterbox(_) => {
                let ratio = f64::from(width) / f64::from(height);
                let crop_ratio = f64::from(crop_width) / f64::from(crop_height);
                let scaled = |ratio: f64, side: u32| {
                    let scaled = to_pixels((ratio * f64::from(side)).round_ties_even());
                    u32::try_from(scaled).unwrap_or(u32::MAX).max(1)
                };
                let (resized_width, resized_height) = if ratio > crop_ratio {
                    let ratio = f64::from(height) / f64::from(width);
                    (crop_width, scaled(ratio, crop_width).min(crop_height))
                } else {
                    (scaled(ratio, crop_height).min(crop_width), crop_height)
                };
                spans(Span::whole(width, resized_width), Span::whole(height, resized_height))
            }
        }
    }

    /// Returns the maximum number of pixels, other than those of the decoded image, in memory at the same time.
    ///
    /// Counts the image between the two passes of the resize. Bilinear resizes in height first, and the filters with
    /// negative weights in width. Three copies of the result follow, and the letterbox adds one.
    pub(super) fn max_pixels_in_memory(self, width: u32, height: u32) -> u64 {
        // The orientation is not known before the image is decoded.
        let orientations = [self, self.transposed()];
        let pixels = orientations.map(|geometry| {
            let Placement { columns, rows } = geometry.place(width, height);
            let copies = if matches!(self.resize, Resize::Letterbox(_)) { 4 } else { 3 };
            let between_passes = match self.filter {
                Filter::Bilinear => u64::from(rows.length) * columns.max_pixels_read(self.filter),
                Filter::Bicubic | Filter::Lanczos => u64::from(columns.length) * u64::from(rows.source),
                Filter::Nearest => 0,
            };
            between_passes + copies * self.crop.pixel_count() as u64
        });
        pixels[0].max(pixels[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(resize: Resize, height: u32, width: u32) -> Geometry {
        let crop = CropShape { height, width, channels: ChannelOrder::Rgb };
        Geometry { resize, filter: Filter::Bilinear, crop }
    }

    /// Returns the resized size and the start of the crop: width, height, left, top.
    fn place(geometry: Geometry, width: u32, height: u32) -> [u64; 4] {
        let Placement { columns, rows } = geometry.place(width, height);
        [columns.resized, rows.resized, columns.start, rows.start]
    }

    #[test]
    fn crop_is_the_centre_of_the_resized_image() {
        let geometry = geometry(Resize::ShorterSide(256), 224, 224);
        // An image of 600 x 400 is resized to 384 x 256. The crop begins at (80, 16) of the resized image.
        assert_eq!(place(geometry, 600, 400), [384, 256, 80, 16]);
        let Placement { columns, rows } = geometry.place(600, 400);
        assert_eq!((columns.in_source(), rows.in_source()), ((125.0, 350.0), (25.0, 350.0)));
        // The longer side is 401 * 256 / 400 = 256.64 after the resize, rounded down to 256.
        let (left, width) = geometry.place(401, 400).columns.in_source();
        assert_eq!((left, width), (16.0 * 401.0 / 256.0, 224.0 * 401.0 / 256.0));
    }

    #[test]
    fn margin_of_half_a_pixel_is_rounded_to_even() {
        let geometry = geometry(Resize::ShorterSide(256), 224, 224);
        for (length, start) in [(257, 16.0), (259, 18.0), (261, 18.0), (263, 20.0)] {
            assert_eq!(geometry.place(length, 256).columns.in_source(), (start, 224.0), "{length}");
        }
    }

    #[test]
    fn crop_that_is_not_square_is_centred_in_each_direction() {
        let geometry = geometry(Resize::ShorterSide(256), 256, 128);
        assert_eq!(place(geometry, 600, 400), [384, 256, 128, 0]);
        assert_eq!(place(geometry, 400, 600), [256, 384, 64, 64]);
    }

    #[test]
    fn cover_reaches_both_minimum_sides_with_one_of_them_exact() {
        let geometry = geometry(Resize::Cover { height: 128, width: 256 }, 112, 224);
        assert_eq!(place(geometry, 600, 400), [256, 171, 16, 30]);
        assert_eq!(place(geometry, 1000, 100), [1280, 128, 528, 8]);
    }

    #[test]
    fn letterbox_keeps_the_aspect_ratio_and_at_least_one_pixel() {
        let geometry = geometry(Resize::Letterbox([0; 3]), 224, 320);
        assert_eq!(place(geometry, 600, 400)[..2], [320, 213]);
        assert_eq!(place(geometry, 400, 600)[..2], [149, 224]);
        assert_eq!(place(geometry, 60_000, 1)[..2], [320, 1]);
        assert_eq!(place(geometry, 1, 60_000)[..2], [1, 224]);
    }

    #[test]
    fn image_with_the_minimum_shorter_side_is_never_enlarged() {
        for resize in [
            Resize::ShorterSide(96),
            Resize::Cover { height: 97, width: 110 },
            Resize::Squash,
            Resize::Letterbox([0; 3]),
        ] {
            for (height, width) in [(64, 64), (64, 96), (96, 64)] {
                let geometry = geometry(resize, height, width);
                let side = geometry.min_shorter_side();
                for longer in (side..4 * side).step_by(7) {
                    for (width, height) in [(side, longer), (longer, side)] {
                        assert!(
                            !geometry.place(width, height).is_enlarged(),
                            "{geometry:?} {width}x{height}"
                        );
                    }
                }
                assert!(geometry.place(side - 1, side - 1).is_enlarged(), "{geometry:?}");
            }
        }
    }
}
