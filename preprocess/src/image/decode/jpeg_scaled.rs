//! Decoder for baseline JPEG that uses jpeg-scaled, which scales down while it decodes.

use jpeg_scaled::{Error, Scale};

use super::{
    Decode, DecodeFailure, DecodeJob, DecodedImage, corrupt,
    scale::{largest_denominator, scaled_size},
    size_mismatch, working_row_bytes,
};
use crate::image::{
    crop::scaled_window,
    exif,
    header::{Coding, ImageHeader, jpeg},
    scratch::Scratch,
    size::pixel_count,
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

    fn accepts(&self, header: &ImageHeader) -> bool {
        let is_grey_or_colour =
            matches!(header.coding, Coding::Jpeg(jpeg) if matches!(jpeg.component_count, 1 | 3));
        is_grey_or_colour && header.is_baseline_jpeg()
    }

    /// Counts the decoded pixels and the working rows. jpeg-scaled does not copy the segments.
    fn max_bytes(&self, header: &ImageHeader, target_size: (u32, u32)) -> u64 {
        let scale = scale_for(header, target_size);
        let (width, height) = scaled_size(header, scale.denominator());
        let channel_count = if header.is_grey_jpeg() { 1 } else { 3 };
        pixel_count(width, height) * channel_count + working_row_bytes(header)
    }

    fn decode(&self, job: &DecodeJob<'_>, scratch: &mut Scratch) -> Result<DecodedImage, DecodeFailure> {
        let scale = scale_for(job.header, job.target_size);
        let (width, height) =
            scratch.decode_with_jpeg_scaled(job.bytes, scale).map_err(|error| match error {
                Error::Truncated => corrupt(job, error).into(),
                // The next decoder is less strict and may decode the file.
                Error::Corrupt(_) | Error::Unsupported(_) => DecodeFailure::TryNextDecoder(error.into()),
            })?;
        if (width, height) != scaled_size(job.header, scale.denominator()) {
            return Err(size_mismatch(job).into());
        }
        let metadata = jpeg::read_metadata(job.bytes);
        Ok(DecodedImage {
            width,
            height,
            is_grey: job.header.is_grey_jpeg(),
            crop: scaled_window(job.header, scale.denominator()),
            orientation: exif::read_orientation(metadata.exif),
            icc_profile: metadata.icc_profile,
        })
    }
}
