//! Decoder for PNG that uses the `png` crate and decodes at full size.
//!
//! The `image` crate is not used, because it inflates an ICC profile without a limit.

use std::io::{self, BufRead, Chain, Cursor, Read, Seek, SeekFrom};

use png::{ColorType, DecodeOptions, Decoder, DecodingError, Limits, Transformations};

use super::{
    Decode, DecodeFailure, DecodeJob, DecodedImage, corrupt,
    opaque::{self, PixelLayout},
    size_mismatch,
};
use crate::image::{
    crop::CropWindow,
    error::ImageError,
    exif,
    header::{Coding, ImageHeader, png::find_end_of_intact_pixels},
    scratch::Scratch,
    size::to_usize,
};

/// Maximum number of bytes that the decoder may allocate besides the pixels.
const MAX_TABLE_BYTES: usize = 1 << 20;

/// The decoder of the `png` crate.
pub(super) struct PngDecoder;

impl Decode for PngDecoder {
    fn name(&self) -> &'static str {
        "image-png"
    }

    fn accepts(&self, _: &ImageHeader) -> bool {
        true
    }

    /// Counts the pixels with 8 bits per channel, four rows of RGBA with 16 bits per channel, and tables.
    fn max_bytes(&self, header: &ImageHeader, _: (u32, u32)) -> u64 {
        let Coding::Png(png) = header.coding else { return u64::MAX };
        let channel_count = if png.has_colour { 3 } else { 1 } + u64::from(png.has_alpha);
        let four_row_bytes = u64::from(header.width) * 8 * 4;
        header.pixel_count() * channel_count + four_row_bytes + MAX_TABLE_BYTES as u64
    }

    /// Decodes a second time if only the end of the file or a checksum of a chunk with pixels is damaged. Other
    /// programs show such a file.
    fn decode(&self, job: &DecodeJob<'_>, scratch: &mut Scratch) -> Result<DecodedImage, DecodeFailure> {
        let strict = decode(job, Cursor::new(job.bytes), DecodeOptions::default(), scratch);
        let Err(ImageError::Corrupt { .. }) = strict else { return Ok(strict?) };
        let Some(end) = find_end_of_intact_pixels(job.bytes, max_inflated_bytes(job.header)) else {
            return Ok(strict?);
        };
        let mut options = DecodeOptions::default();
        options.set_ignore_crc(true);
        let file = job.bytes.get(..end).unwrap_or_default();
        Ok(decode(job, FileWithEnd(Cursor::new(file).chain(Cursor::new(END))), options, scratch)?)
    }
}

/// The bytes after the compressed pixels of a file: a checksum, which is ignored, and the chunk IEND.
const END: &[u8; 16] = b"\0\0\0\0\0\0\0\0IEND\xAE\x42\x60\x82";

/// Reads a file with a new end. The `png` crate requires [`Seek`] and never seeks.
struct FileWithEnd<'a>(Chain<Cursor<&'a [u8]>, Cursor<&'static [u8; 16]>>);

impl Read for FileWithEnd<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl BufRead for FileWithEnd<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.0.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.0.consume(count);
    }
}

impl Seek for FileWithEnd<'_> {
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Returns the length of the decompressed pixels with 16 bits per channel.
fn max_inflated_bytes(header: &ImageHeader) -> u64 {
    /// Rows of an interlaced image are stored in seven parts. Each part begins with a byte for its filter.
    const MAX_ROW_PARTS: u64 = 7;
    header.pixel_count() * 8 + u64::from(header.height) * MAX_ROW_PARTS
}

fn decode(
    job: &DecodeJob<'_>,
    file: impl BufRead + Seek,
    mut options: DecodeOptions,
    scratch: &mut Scratch,
) -> Result<DecodedImage, ImageError> {
    let ImageHeader { width, height, .. } = *job.header;
    let to_image_error = |error| image_error(job, error);
    // Compressed XMP is inflated here, before the decoder allocates its tables.
    let orientation = exif::to_orientation(exif_orientation::read_png_orientation(job.bytes));
    options.set_ignore_text_chunk(true);
    // The profile is inflated below, where its length is limited.
    options.set_ignore_iccp_chunk(true);
    let mut decoder = Decoder::new_with_options(file, options);
    decoder.set_limits(Limits { bytes: MAX_TABLE_BYTES });
    decoder.set_transformations(Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(to_image_error)?;
    if (reader.info().width, reader.info().height) != (width, height) {
        return Err(size_mismatch(job));
    }
    let layout = match reader.output_color_type().0 {
        ColorType::Grayscale => PixelLayout::Grey,
        ColorType::GrayscaleAlpha => PixelLayout::GreyAlpha,
        ColorType::Rgb => PixelLayout::Rgb,
        ColorType::Rgba => PixelLayout::Rgba,
        ColorType::Indexed => return Err(corrupt(job, "the palette is missing")),
    };
    let pixels = scratch.zeroed_pixels(to_usize(job.header.pixel_count() * layout.bytes_per_pixel()));
    let frame = reader.next_frame(pixels).map_err(to_image_error)?;
    if (frame.width, frame.height) != (width, height) {
        return Err(size_mismatch(job));
    }
    Ok(DecodedImage {
        width,
        height,
        channels: opaque::make_opaque(pixels, layout),
        crop: CropWindow::whole(width, height),
        orientation,
        icc_profile: srgb::read_png_profile(job.bytes),
    })
}

fn image_error(job: &DecodeJob<'_>, error: DecodingError) -> ImageError {
    match error {
        DecodingError::LimitsExceeded => ImageError::DecoderExceedsEstimate,
        error => corrupt(job, error),
    }
}
