//! Errors of the image pipeline.

use std::error::Error;

use super::format::Format;

/// The reason why an upload cannot be converted.
///
/// Only a bug causes [`Self::Resize`] and [`Self::Encode`]. The upload causes every other error. Every error
/// is permanent: the same upload gives the same error again.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The bytes are not an image of any known format.
    #[error("not an image")]
    NotAnImage,
    /// The image has a known format that is not accepted.
    #[error("{format_name} is not accepted")]
    UnsupportedFormat {
        /// Name of the format.
        format_name: String,
    },
    /// The format is accepted, but the file uses a feature of the format that no decoder supports.
    #[error("this kind of {format} cannot be read")]
    UnsupportedFeature {
        /// Format of the upload.
        format: Format,
        /// Error of the decoder.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The image has more pixels than the limit.
    #[error("{width}×{height} is more than {limit} pixels")]
    TooManyPixels {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Maximum number of pixels.
        limit: u64,
    },
    /// The parts of the image, such as tiles and an alpha channel, have more pixels than the limit.
    #[error("the parts have {pixel_count} pixels, more than {limit}")]
    TooManyCodedPixels {
        /// Number of pixels of all parts together.
        pixel_count: u64,
        /// Maximum number of pixels of all parts together.
        limit: u64,
    },
    /// A side of the image is longer than the limit.
    #[error("{width}×{height} has a side longer than {limit}")]
    SideTooLong {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Maximum length of a side in pixels.
        limit: u32,
    },
    /// The JPEG has more scans than the limit.
    #[error("more than {limit} scans")]
    TooManyScans {
        /// Maximum number of scans.
        limit: u32,
    },
    /// The header shows that processing would need more memory than the limit.
    #[error("processing needs {bytes} bytes, more than {limit}")]
    ExceedsMemoryLimit {
        /// Number of bytes that processing would need.
        bytes: u64,
        /// Maximum number of bytes.
        limit: u64,
    },
    /// Decoding would need more memory than was estimated from the header.
    #[error("decoding needs too much memory")]
    DecoderExceedsEstimate,
    /// The format is accepted, but the file is damaged or ends too early.
    #[error("corrupt {format}")]
    Corrupt {
        /// Format of the upload.
        format: Format,
        /// Error of the decoder, or a description of the damage.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Resizing failed. This is a bug, because the sizes are checked before resizing.
    #[error("resizing failed")]
    Resize(#[from] resize::Error),
    /// Encoding failed. This is a bug, because the size is checked before encoding.
    #[error("encoding failed")]
    Encode(#[source] Box<dyn Error + Send + Sync>),
}

impl ImageError {
    /// Returns the stable name of the error, which appears in responses and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotAnImage => "not_an_image",
            Self::UnsupportedFormat { .. } | Self::UnsupportedFeature { .. } => "unsupported_format",
            Self::TooManyPixels { .. } | Self::TooManyCodedPixels { .. } => "too_many_pixels",
            Self::SideTooLong { .. } => "side_too_long",
            Self::TooManyScans { .. } => "too_many_scans",
            Self::ExceedsMemoryLimit { .. } | Self::DecoderExceedsEstimate => "too_much_memory",
            Self::Corrupt { .. } => "corrupt_image",
            Self::Resize(_) | Self::Encode(_) => "internal",
        }
    }
}
