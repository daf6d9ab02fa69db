//! Parameters of the stored image, and limits on uploads.

use super::{
    encode,
    error::ImageError,
    format::Format,
    header::{Coding, ImageHeader, JpegHeader, JpegProcess},
    resize,
};

/// Version of the image pipeline, and a part of [`Recipe::id_text`].
///
/// Increase the version by hand whenever a change of the code gives a different image for the same upload and
/// settings. Otherwise the response for an upload would name the image that an earlier version stored.
/// Different decoders and encoders do not need different versions, because their results differ by a few
/// levels at most.
///
/// Since version 2, colours are converted to sRGB. Version 3 mends pictures that were sideways or in wrong colours:
/// orientations that are not of the type SHORT or have a prefix, JPEGs in several scans, and kinds of TIFF and BMP.
/// Since version 4, profiles with tables are used, which all profiles of CMYK are. Since version 5, an AVIF of another
/// size than its boxes state is stretched and not cropped, and the first shown frame counts.
const VERSION: u32 = 5;

/// Ratio of the maximum number of pixels of all parts of a HEIC or AVIF to [`Limits::max_pixels_other`].
///
/// An alpha channel doubles the number of pixels, and tiles may exceed the picture. With the default limits, a picture
/// of about 45 megapixels may have an alpha channel.
#[cfg(feature = "heic")]
const CODED_PIXELS_FACTOR: u64 = 3;

/// Parameters of the stored image, and limits on uploads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Length of the shorter side in pixels. Smaller images keep their size.
    pub shorter_side: u32,
    /// JPEG quality, 1 to 100.
    pub jpeg_quality: u8,
    /// Limits on uploads. They do not change the stored image and are not part of [`Self::id_text`].
    pub limits: Limits,
}

impl Recipe {
    /// Returns the text of the recipe, which [`contract::ImageId::from_upload`] hashes into the image id.
    ///
    /// The text changes whenever the same upload would give a different image.
    pub fn id_text(&self) -> String {
        let Self { shorter_side, jpeg_quality, limits: _ } = self;
        let (filter, chroma) = (resize::FILTER_NAME, encode::CHROMA_SUBSAMPLING);
        format!("v{VERSION} shorter-side={shorter_side} filter={filter} jpeg={jpeg_quality} chroma={chroma}")
    }
}

/// Limits on the size of uploads and on the memory used to process them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of pixels of a baseline JPEG, a HEIC or an AVIF.
    pub max_pixels: u64,
    /// Maximum number of pixels of every other upload, which needs more time and memory per pixel. A value
    /// above `max_pixels` has the same effect as `max_pixels`.
    pub max_pixels_other: u64,
    /// Maximum length of a side in pixels.
    pub max_side: u32,
    /// Maximum number of scans of a JPEG. Even for a scan of a few bytes, the decoder passes over the whole
    /// image.
    pub max_scans: u32,
    /// Maximum number of bytes used to process one upload. The upload itself is not included.
    pub max_processing_bytes: u64,
    /// Maximum total length, in bytes, of the buffers that a thread keeps for the next upload.
    pub max_kept_bytes: usize,
}

impl Limits {
    /// Checks the header of an upload.
    ///
    /// # Errors
    /// - [`ImageError::SideTooLong`], [`ImageError::TooManyPixels`], [`ImageError::TooManyCodedPixels`] or
    ///   [`ImageError::TooManyScans`] when the header exceeds a limit.
    /// - [`ImageError::Corrupt`] when a JPEG has no scan.
    pub(super) fn check(&self, header: &ImageHeader) -> Result<(), ImageError> {
        let &ImageHeader { width, height, .. } = header;
        let max_side = self.max_side.min(encode::MAX_SIDE);
        if width.max(height) > max_side {
            return Err(ImageError::SideTooLong { width, height, limit: max_side });
        }
        let max_pixels_other = self.max_pixels_other.min(self.max_pixels);
        let max_pixels = match header.coding {
            Coding::Jpeg(JpegHeader { process: JpegProcess::Baseline, .. }) => self.max_pixels,
            #[cfg(feature = "heic")]
            Coding::Heif(_) => self.max_pixels,
            _ => max_pixels_other,
        };
        if header.pixel_count() > max_pixels {
            return Err(ImageError::TooManyPixels { width, height, limit: max_pixels });
        }
        match header.coding {
            #[cfg(feature = "heic")]
            Coding::Heif(heif)
                if heif.coded_pixels > max_pixels_other.saturating_mul(CODED_PIXELS_FACTOR) =>
            {
                let limit = max_pixels_other.saturating_mul(CODED_PIXELS_FACTOR);
                Err(ImageError::TooManyCodedPixels { pixel_count: heif.coded_pixels, limit })
            }
            Coding::Jpeg(jpeg) if jpeg.scan_count > self.max_scans => {
                Err(ImageError::TooManyScans { limit: self.max_scans })
            }
            Coding::Jpeg(JpegHeader { scan_count: 0, .. }) => {
                Err(ImageError::Corrupt { format: Format::Jpeg, source: "the file has no scan".into() })
            }
            _ => Ok(()),
        }
    }
}
