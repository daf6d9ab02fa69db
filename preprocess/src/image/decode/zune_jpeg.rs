//! JPEG decoder that uses zune-jpeg and decodes at full size.

use resize::Channels;
use srgb::JpegInks;
use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::JpegDecoder;

use super::{Decode, DecodeFailure, DecodeJob, DecodedImage, corrupt, size_mismatch, working_row_bytes};
use crate::image::{
    crop::CropWindow,
    error::ImageError,
    exif,
    header::{Coding, ImageHeader, JpegHeader, JpegProcess, jpeg},
    scratch::Scratch,
    size::to_usize,
};

/// The decoder of zune-jpeg.
pub(super) struct ZuneJpegDecoder;

impl Decode for ZuneJpegDecoder {
    fn name(&self) -> &'static str {
        "zune-jpeg"
    }

    /// Accepts every file except baseline JPEGs in several scans that jpeg-scaled accepts. zune-jpeg 0.5
    /// decodes such a file to wrong pixels if it is subsampled.
    fn accepts(&self, header: &ImageHeader) -> bool {
        let Coding::Jpeg(jpeg) = header.coding else { return true };
        !(jpeg.is_baseline_in_several_scans() && matches!(jpeg.component_count, 1 | 3))
    }

    /// Counts the pixels, the working rows and the segments. If no row is ready before the last scan, also
    /// counts all coefficients, with two bytes each.
    fn max_bytes(&self, header: &ImageHeader, _: (u32, u32)) -> u64 {
        let Coding::Jpeg(jpeg) = header.coding else { return u64::MAX };
        let pixel_bytes = header.pixel_count() * channel_count(&jpeg);
        let coefficient_bytes = if jpeg.needs_all_scans() { 2 * jpeg.sample_count } else { 0 };
        pixel_bytes + coefficient_bytes + working_row_bytes(header) + jpeg.segment_bytes
    }

    fn decode(&self, job: &DecodeJob<'_>, scratch: &mut Scratch) -> Result<DecodedImage, DecodeFailure> {
        let header = job.header;
        let Coding::Jpeg(jpeg) = header.coding else {
            return Err(corrupt(job, "the file is not a JPEG").into());
        };
        if jpeg.process == JpegProcess::Other {
            let source = "arithmetic coding, lossless coding or more than 8 bits per sample".into();
            return Err(ImageError::UnsupportedFeature { format: header.format(), source }.into());
        }
        if jpeg.is_baseline_in_several_scans() && jpeg.is_subsampled {
            let source = "subsampled CMYK in several scans".into();
            return Err(ImageError::UnsupportedFeature { format: header.format(), source }.into());
        }
        let is_grey = jpeg.component_count == 1;
        let options = DecoderOptions::default()
            .jpeg_set_out_colorspace(if is_grey { ColorSpace::Luma } else { ColorSpace::RGB })
            .jpeg_set_max_scans(to_usize(job.max_scans.into()))
            .set_max_width(to_usize(header.width.into()))
            .set_max_height(to_usize(header.height.into()))
            // Strict mode would refuse the bytes that cameras leave between segments, and would still not
            // detect missing pixels before an end marker.
            .set_strict_mode(false);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(job.bytes), options);
        decoder.decode_headers().map_err(|error| corrupt(job, error))?;
        let (channels, inks) = match (jpeg.component_count, decoder.input_colorspace()) {
            (1, _) => (Channels::Grey, None),
            (4, Some(ColorSpace::CMYK)) => (Channels::Cmyk, Some(JpegInks::Cmyk)),
            (4, Some(ColorSpace::YCCK)) => (Channels::Cmyk, Some(JpegInks::Ycck)),
            _ => (Channels::Rgb, None),
        };
        if let (Some(_), Some(stored)) = (inks, decoder.input_colorspace()) {
            // zune-jpeg converts to RGB without a profile. It returns the stored samples if they are asked for.
            decoder.set_options(options.jpeg_set_out_colorspace(stored));
        }
        if decoder.dimensions() != Some((to_usize(header.width.into()), to_usize(header.height.into()))) {
            return Err(size_mismatch(job).into());
        }
        let pixel_bytes = header.pixel_count() * u64::from(channels.count());
        let pixels = scratch.zeroed_pixels(to_usize(pixel_bytes));
        if decoder.output_buffer_size() != Some(pixels.len()) {
            return Err(corrupt(job, "the decoder found other components than the header states").into());
        }
        decoder.decode_into(pixels).map_err(|error| corrupt(job, error))?;
        if let Some(inks) = inks {
            srgb::convert_jpeg_samples_to_inks(pixels, inks);
        }
        let metadata = jpeg::read_metadata(job.bytes);
        Ok(DecodedImage {
            width: header.width,
            height: header.height,
            channels,
            crop: CropWindow::whole(header.width, header.height),
            orientation: exif::read_orientation(metadata.exif),
            icc_profile: metadata.icc_profile,
        })
    }
}

/// Returns the maximum number of channels of a decoded pixel, each of which has one byte.
fn channel_count(jpeg: &JpegHeader) -> u64 {
    match jpeg.component_count {
        1 => 1,
        4 => 4,
        _ => 3,
    }
}
