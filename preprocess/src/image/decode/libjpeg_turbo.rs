//! JPEG decoder that uses the C library libjpeg-turbo through the `turbojpeg` crate.
//!
//! The decoder is used for files that jpeg-scaled does not accept, mainly progressive JPEGs. libjpeg-turbo
//! scales down while it decodes.

use resize::Channels;
use turbojpeg::{Decompressor, Error, Image, PixelFormat, ScalingFactor};

use super::{
    Decode, DecodeFailure, DecodeJob, DecodedImage, corrupt,
    scale::{largest_denominator, scaled_size},
    working_row_bytes,
};
use crate::image::{
    crop::scaled_window,
    exif,
    header::{Coding, ImageHeader, jpeg},
    scratch::Scratch,
    size::{pixel_count, to_usize},
};

/// The decoder of libjpeg-turbo.
pub(super) struct LibjpegTurboDecoder;

impl Decode for LibjpegTurboDecoder {
    fn name(&self) -> &'static str {
        "libjpeg-turbo"
    }

    /// Accepts grey and colour JPEGs with 8 bits per sample. libjpeg-turbo converts neither CMYK nor more
    /// than 8 bits per sample to 8-bit RGB.
    fn accepts(&self, header: &ImageHeader) -> bool {
        matches!(
            header.coding,
            Coding::Jpeg(jpeg) if jpeg.bits_per_sample == 8 && matches!(jpeg.component_count, 1 | 3)
        )
    }

    /// Counts the decoded pixels, the working rows and three copies of the segments. If no row is ready
    /// before the last scan, also counts all coefficients, with two bytes each.
    fn max_bytes(&self, header: &ImageHeader, target_size: (u32, u32)) -> u64 {
        let Coding::Jpeg(jpeg) = header.coding else { return u64::MAX };
        let coefficient_bytes = if jpeg.needs_all_scans() { 2 * jpeg.sample_count } else { 0 };
        let denominator = largest_denominator(header.width, header.height, target_size);
        let (width, height) = scaled_size(header, denominator);
        let pixel_bytes = pixel_count(width, height) * if header.is_grey_jpeg() { 1 } else { 3 };
        pixel_bytes + coefficient_bytes + working_row_bytes(header) + 3 * jpeg.segment_bytes
    }

    /// Treats every warning of libjpeg-turbo as a failure, because libjpeg-turbo only warns about missing
    /// pixels and fills them with grey.
    ///
    /// A file that ends too early is refused. After any other failure, zune-jpeg is tried.
    fn decode(&self, job: &DecodeJob<'_>, scratch: &mut Scratch) -> Result<DecodedImage, DecodeFailure> {
        let try_next = |error: Error| DecodeFailure::TryNextDecoder(error.into());
        let is_grey = job.header.is_grey_jpeg();
        let (format, channel_count) = if is_grey { (PixelFormat::GRAY, 1) } else { (PixelFormat::RGB, 3) };
        let denominator = largest_denominator(job.header.width, job.header.height, job.target_size);
        let (width, height) = scaled_size(job.header, denominator);

        // Each file gets a new decompressor. A reused decompressor would decode a file without tables with
        // the tables of the previous file.
        let mut decompressor = Decompressor::new().map_err(try_next)?;
        let factor = ScalingFactor::new(1, to_usize(denominator.into()));
        decompressor.set_scaling_factor(factor).map_err(try_next)?;
        decompressor.set_scan_limit(job.max_scans).map_err(try_next)?;
        let header = decompressor.read_header(job.bytes).map_err(try_next)?;
        if (header.width, header.height)
            != (to_usize(job.header.width.into()), to_usize(job.header.height.into()))
        {
            return Err(DecodeFailure::TryNextDecoder(
                "the decoder found a different size than the header states".into(),
            ));
        }
        let row_pixel_count = to_usize(width.into());
        let image = Image {
            pixels: scratch.zeroed_pixels(to_usize(pixel_count(width, height)) * channel_count),
            width: row_pixel_count,
            pitch: row_pixel_count * channel_count,
            height: to_usize(height.into()),
            format,
        };
        decompressor.decompress(job.bytes, image).map_err(|error| match &error {
            // Matches "Premature end of JPEG file" and "premature end of data segment".
            Error::TurboJpegError(message) if message.contains("remature end") => corrupt(job, error).into(),
            _ => try_next(error),
        })?;

        let metadata = jpeg::read_metadata(job.bytes);
        Ok(DecodedImage {
            width,
            height,
            channels: if is_grey { Channels::Grey } else { Channels::Rgb },
            crop: scaled_window(job.header, denominator),
            orientation: exif::read_orientation(metadata.exif),
            icc_profile: metadata.icc_profile,
        })
    }
}
