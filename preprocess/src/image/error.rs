//! Why an upload gives no picture. All of it is about the upload, and permanent.

use std::error::Error;

use fast_image_resize::{ImageBufferError, ResizeError};

use super::Format;

/// Why an upload gives no picture.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The bytes are no picture of any known format.
    #[error("not an image")]
    NotAnImage,
    /// A picture, but of a format that is not accepted.
    #[error("{found} is not accepted")]
    UnsupportedFormat {
        /// Name of the format.
        found: String,
    },
    /// An accepted format, but a rare kind of it that cannot be read.
    #[error("this kind of {format} cannot be read")]
    UnsupportedFeature {
        /// The format.
        format: Format,
        /// What the decoder said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The picture has more pixels than the limit.
    #[error("{width}×{height} is more than {limit} pixels")]
    TooManyPixels {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Most pixels that are accepted.
        limit: u64,
    },
    /// A side of the picture is longer than the limit.
    #[error("{width}×{height} has a side longer than {limit}")]
    SideTooLong {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Longest side that is accepted.
        limit: u32,
    },
    /// The JPEG has more scans than the limit.
    #[error("more than {limit} scans")]
    TooManyScans {
        /// Most scans that are accepted.
        limit: u32,
    },
    /// Decoding would take more memory than the limit.
    #[error("decoding takes {bytes} bytes, more than {limit}")]
    TooCostly {
        /// Bytes that decoding would take.
        bytes: u64,
        /// Most bytes that it may take.
        limit: u64,
    },
    /// Decoding would take more memory than such a picture needs.
    #[error("decoding takes too much memory")]
    TooMuchMemory,
    /// The format is known, but the bytes break its rules or end too early.
    #[error("corrupt {format}")]
    Corrupt {
        /// The format.
        format: Format,
        /// What the decoder said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The picture could not be resized. Sizes are checked before, so this is a mistake here.
    #[error("resizing failed")]
    Resize(#[from] ResizeError),
    /// What was decoded is not what is to be resized. A mistake here, too.
    #[error("resizing failed")]
    Buffer(#[from] ImageBufferError),
    /// The picture could not be encoded. Sizes are checked before, so this is a mistake here.
    #[error("encoding failed")]
    Encode(#[source] Box<dyn Error + Send + Sync>),
}

impl ImageError {
    /// Stable word for programs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotAnImage => "not_an_image",
            Self::UnsupportedFormat { .. } | Self::UnsupportedFeature { .. } => "unsupported_format",
            Self::TooManyPixels { .. } => "too_many_pixels",
            Self::SideTooLong { .. } => "side_too_long",
            Self::TooManyScans { .. } => "too_many_scans",
            Self::TooCostly { .. } | Self::TooMuchMemory => "too_much_memory",
            Self::Corrupt { .. } => "corrupt_image",
            Self::Resize(_) | Self::Buffer(_) | Self::Encode(_) => "internal",
        }
    }
}
