//! Decoder for JPEG that uses jpeg-scaled, which scales down while it decodes.

use jpeg_scaled::{Error, JpegHeader, Scale};

use super::{
    Decode, DecodeFailure, DecodeJob, DecodedImage, corrupt,
    scale::{largest_denominator, scaled_size},
    size_mismatch, working_row_bytes,
};
use crate::image::{
    crop::scaled_window,
    error::ImageError,
    header::{Coding, ImageHeader, jpeg},
    scratch::Scratch,
    size::{pixel_count, to_usize},
};

/// The decoder of jpeg-scaled.
pub(super) struct JpegScaledDecoder;

/// Returns the scale to decode at. See [`largest_denominator`].
fn scale_for(header: &ImageHeader, target_size: (u32, u32)) -> Scale {
    let denominator = largest_denominator(header.width, header.height, target_size);
    Scale::ALL.into_iter().find(|scale| scale.denominator() == denominator).unwrap_or(Scale::Full)
}

impl Decode for JpegScaledDecoder {
    fn name(&self) -> &'static str {
        "jpeg-scaled"
    }

    fn accepts(&self, _: &ImageHeader) -> bool {
        true
    }

    /// Counts the decoded pixels, the working rows and the tables of all scans. jpeg-scaled does not copy the
    /// segments.
    fn max_bytes(&self, header: &ImageHeader, target_size: (u32, u32)) -> u64 {
        let Coding::Jpeg(jpeg) = header.coding else { return u64::MAX };
        let (width, height) = scaled_size(header, scale_for(header, target_size).denominator());
        // Two components are not supported.
        let channel_count = if jpeg.component_count < 4 { u64::from(jpeg.component_count) } else { 4 };
        pixel_count(width, height) * channel_count
            + working_row_bytes(header)
            + u64::from(jpeg.scan_count) * jpeg_scaled::MAX_TABLE_BYTES_PER_SCAN
    }

    fn decode(&self, job: &DecodeJob<'_>, scratch: &mut Scratch) -> Result<DecodedImage, DecodeFailure> {
        let decode_error = |error: Error| match error {
            Error::Truncated | Error::Corrupt(_) => corrupt(job, error),
            Error::Unsupported(_) => {
                ImageError::UnsupportedFeature { format: job.header.format(), source: error.into() }
            }
        };
        let scale = scale_for(job.header, job.target_size);
        let colour_space = JpegHeader::read(job.bytes).map_err(decode_error)?.colour_space;
        let max_scans = to_usize(job.max_scans.into());
        let (width, height) =
            scratch.decode_with_jpeg_scaled(job.bytes, scale, max_scans).map_err(decode_error)?;
        if (width, height) != scaled_size(job.header, scale.denominator()) {
            return Err(size_mismatch(job).into());
        }
        srgb::convert_jpeg_samples_to_inks(scratch.pixels_mut(), colour_space);
        let metadata = jpeg::read_metadata(job.bytes);
        Ok(DecodedImage {
            width,
            height,
            channels: srgb::jpeg_channels(colour_space),
            crop: scaled_window(job.header, scale.denominator()),
            orientation: metadata.orientation,
            icc_profile: metadata.icc_profile,
        })
    }
}
