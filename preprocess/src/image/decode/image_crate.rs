//! Decoder for GIF, BMP and WebP that uses the `image` crate and decodes at full size.

use std::{
    error::Error,
    io::{BufReader, Cursor},
};

use image::{
    ColorType, ImageDecoder,
    codecs::{bmp::BmpDecoder, gif::GifDecoder, webp::WebPDecoder},
    error::ImageFormatHint,
    metadata::Orientation,
};
use resize::Channels;

use super::{
    Decode, DecodeFailure, DecodeJob, DecodedImage, corrupt,
    opaque::{self, PixelLayout},
    patched_file::PatchedFile,
    size_mismatch, working_row_bytes,
};
use crate::image::{
    crop::CropWindow,
    error::ImageError,
    format::Format,
    header::{Coding, ImageHeader, WebPHeader, bmp, gif, webp},
    metadata::Metadata,
    scratch::Scratch,
    size::to_usize,
};

/// The decoders of the `image` crate.
pub(super) struct ImageCrateDecoder;

/// Memory per pixel, in bytes.
struct BytesPerPixel {
    /// The decoded pixels.
    output: u64,
    /// Internal buffers of the decoder.
    internal: u64,
}

impl Decode for ImageCrateDecoder {
    fn name(&self) -> &'static str {
        "image"
    }

    fn accepts(&self, _: &ImageHeader) -> bool {
        true
    }

    /// Counts the bytes that `image` 0.25 and image-webp 0.2 allocate according to their source code: a fixed
    /// number per pixel, working rows, tables and metadata.
    fn max_bytes(&self, header: &ImageHeader, _: (u32, u32)) -> u64 {
        let BytesPerPixel { output, internal } = bytes_per_pixel(header);
        let pixel_bytes = header.pixel_count().saturating_mul(output + internal);
        pixel_bytes.saturating_add(working_row_bytes(header) + table_bytes(header) + metadata_bytes(header))
    }

    fn decode(&self, job: &DecodeJob<'_>, scratch: &mut Scratch) -> Result<DecodedImage, DecodeFailure> {
        let ImageHeader { width, height, .. } = *job.header;
        let to_image_error = |error| image_error(job.header.format(), error);
        let mut decoder = open_decoder(job).map_err(to_image_error)?;
        if decoder.dimensions() != (width, height) {
            return Err(size_mismatch(job).into());
        }
        let total_bytes = decoder.total_bytes();
        if total_bytes > job.header.pixel_count().saturating_mul(bytes_per_pixel(job.header).output) {
            return Err(ImageError::DecoderExceedsEstimate.into());
        }
        let metadata = match job.header.format() {
            Format::WebP => webp::read_metadata(job.bytes),
            _ => Metadata {
                // GIF and BMP have no EXIF.
                orientation: Orientation::NoTransforms,
                // A profile that cannot be read is no reason to refuse the image.
                icc_profile: decoder.icc_profile().ok().flatten(),
            },
        };
        let colour = decoder.color_type();
        let pixels = scratch.zeroed_pixels(to_usize(total_bytes));
        decoder.read_image_boxed(pixels).map_err(to_image_error)?;
        Ok(DecodedImage {
            width,
            height,
            channels: convert_to_opaque(job, pixels, colour)?,
            crop: CropWindow::whole(width, height),
            orientation: metadata.orientation,
            icc_profile: metadata.icc_profile.filter(|profile| profile.len() <= srgb::MAX_PROFILE_BYTES),
        })
    }
}

/// Opens the decoder of the file's format and sets its limits.
///
/// `image::ImageReader` is not used, because it would compile the decoders of every format into this crate.
/// This crate decodes JPEG and PNG with other libraries.
fn open_decoder<'a>(job: &DecodeJob<'a>) -> image::ImageResult<Box<dyn ImageDecoder + 'a>> {
    let mut decoder: Box<dyn ImageDecoder + 'a> = match job.header.format() {
        Format::WebP => Box::new(WebPDecoder::new(Cursor::new(job.bytes))?),
        Format::Gif => {
            let screen = gif::encode_screen_size(job.header);
            let file = PatchedFile::new(job.bytes).with_patch(gif::SCREEN_SIZE_OFFSET, &screen);
            Box::new(GifDecoder::new(BufReader::new(file))?)
        }
        Format::Bmp => {
            let offset = bmp::pixels_offset(job.bytes).unwrap_or_default().to_le_bytes();
            let file = PatchedFile::new(job.bytes)
                .with_patch(bmp::PIXELS_OFFSET_OFFSET, &offset)
                .with_zeros(bmp::row_padding(job.bytes, job.header.width));
            Box::new(BmpDecoder::new(BufReader::new(file))?)
        }
        _ => {
            return Err(image::ImageError::Unsupported(ImageFormatHint::Unknown.into()));
        }
    };
    decoder.set_limits(decoder_limits(job.header))?;
    Ok(decoder)
}

fn bytes_per_pixel(header: &ImageHeader) -> BytesPerPixel {
    let (output, internal) = match header.coding {
        // The decoder holds the decoded frame (4 bytes), at first together with the data that the frame is
        // decoded from (at most 5), and afterwards together with the canvas (4).
        Coding::WebP(WebPHeader { is_animated: true, .. }) => (4, 9),
        // The transforms and the entropy image have one entry per block of at least 4×4 pixels, which is
        // counted as 1 byte per pixel. Opaque pixels are decoded as RGBA (4 bytes) and then copied to RGB.
        Coding::WebP(WebPHeader { is_lossless: true, has_alpha, .. }) => {
            if has_alpha {
                (4, 1)
            } else {
                (3, 5)
            }
        }
        // The YUV planes have 1.5 bytes per pixel, rounded up to 2 here. Alpha is decoded as a separate
        // lossless image, which needs 6 bytes: 4 for RGBA, 1 for the transforms and 1 for a copy of the alpha
        // samples.
        Coding::WebP(WebPHeader { is_lossless: false, has_alpha, .. }) => {
            if has_alpha {
                (4, 8)
            } else {
                (3, 2)
            }
        }
        // The decoder holds the palette indices of the frame (1 byte). A frame that is smaller than the
        // canvas is decoded into a buffer of its own (4 bytes).
        Coding::Gif(_) => (4, 5),
        Coding::Bmp => (4, 0),
        // Other decoders decode these formats, so these numbers are never used.
        _ => (4, 4),
    };
    BytesPerPixel { output, internal }
}

fn table_bytes(header: &ImageHeader) -> u64 {
    match header.coding {
        Coding::WebP(webp) => webp.table_bytes,
        _ => 0,
    }
}

/// Returns the number of bytes that a decoder allocates when it is opened, before limits can be set.
fn metadata_bytes(header: &ImageHeader) -> u64 {
    match header.coding {
        // When the buffer for the metadata is full, it is copied to a buffer of twice its length. During the
        // copy, both buffers exist, with three times the length of the full buffer.
        Coding::Gif(gif) => 3 * gif.metadata_bytes,
        _ => 0,
    }
}

/// Returns the limits to set for the decoder. They do not count the output buffer, which the caller
/// allocates.
fn decoder_limits(header: &ImageHeader) -> image::Limits {
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(header.width);
    limits.max_image_height = Some(header.height);
    let internal = header.pixel_count().saturating_mul(bytes_per_pixel(header).internal);
    limits.max_alloc = Some(internal.saturating_add(table_bytes(header)));
    limits
}

fn image_error(format: Format, error: image::ImageError) -> ImageError {
    let source: Box<dyn Error + Send + Sync> = Box::new(error);
    match source.downcast_ref::<image::ImageError>() {
        Some(image::ImageError::Limits(_)) => ImageError::DecoderExceedsEstimate,
        Some(image::ImageError::Unsupported(_)) => ImageError::UnsupportedFeature { format, source },
        _ => ImageError::Corrupt { format, source },
    }
}

/// Converts the pixels in place to opaque pixels. Returns their channels.
fn convert_to_opaque(
    job: &DecodeJob<'_>,
    pixels: &mut [u8],
    colour: ColorType,
) -> Result<Channels, ImageError> {
    let layout = match colour {
        ColorType::L8 => PixelLayout::Grey,
        ColorType::La8 => PixelLayout::GreyAlpha,
        ColorType::Rgb8 => PixelLayout::Rgb,
        ColorType::Rgba8 => PixelLayout::Rgba,
        _ => return Err(corrupt(job, "the colour type is unknown")),
    };
    let length = to_usize(job.header.pixel_count() * layout.bytes_per_pixel());
    Ok(opaque::make_opaque(&mut pixels[..length], layout))
}
