//! Header of a HEIC or AVIF, which consists of its boxes and the parameter sets or sequence headers of its parts.

use heif_picture::{ColourSpace, Error, Plan, Rectangle};

use super::{Coding, ImageHeader};
use crate::image::{error::ImageError, format::Format};

/// The format of a HEIC or AVIF, and the parts of its header that determine the cost of decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeifHeader {
    /// Format according to the brands of the file.
    pub format: Format,
    /// Number of pixels of all parts, such as tiles and the alpha channel, according to their coded data.
    pub coded_pixels: u64,
    /// Number of bytes for the decoded pixels and the alpha channel.
    pub pixel_bytes: u64,
    /// Maximum number of bytes that the decoder needs besides the pixels.
    pub decoder_bytes: u64,
    /// Height of the decoded pixels before the crop, which can be stretched to the stated height.
    pub decoded_height: u32,
    /// Length in bytes of the ICC profile, or of the one that stands for the stated colour space, or 0 for none.
    pub profile_bytes: u64,
}

pub(super) fn read_header(bytes: &[u8], format: Format) -> Result<ImageHeader, ImageError> {
    let plan = Plan::read(bytes).map_err(|error| image_error(error, format))?;
    let Rectangle { width, height, .. } = plan.crop();
    let heif = HeifHeader {
        format,
        coded_pixels: plan.coded_pixels(),
        pixel_bytes: (plan.colour_bytes() as u64).saturating_add(plan.alpha_bytes() as u64),
        decoder_bytes: plan.decoder_bytes(),
        decoded_height: plan.decoded_size().1,
        profile_bytes: match plan.colour_space() {
            ColourSpace::Unspecified => 0,
            ColourSpace::Icc(profile) => profile.len() as u64,
            ColourSpace::Cicp { primaries, transfer } => {
                srgb::cicp_profile(primaries, transfer).map_or(0, |profile| profile.len() as u64)
            }
        },
    };
    Ok(ImageHeader { width, height, coding: Coding::Heif(heif) })
}

pub(in crate::image) fn image_error(error: Error, format: Format) -> ImageError {
    let unsupported_format = |format_name: String| ImageError::UnsupportedFormat { format_name };
    match error {
        #[cfg(not(feature = "avif"))]
        Error::OtherCodec(kind) if kind == *b"av01" => unsupported_format(super::AVIF_NAME.to_owned()),
        Error::OtherCodec(kind) => {
            unsupported_format(format!("HEIF with the codec `{}`", kind.escape_ascii()))
        }
        #[cfg(feature = "avif")]
        Error::Av1Grid => unsupported_format("A grid in AVIF".to_owned()),
        error if error.is_unsupported() => ImageError::UnsupportedFeature { format, source: error.into() },
        error => ImageError::Corrupt { format, source: error.into() },
    }
}
