//! Decoders, which convert uploaded bytes to opaque pixels.
//!
//! Each format has a list of decoders, the preferred one first ([`decoders_for`]). A decoder states which
//! headers it accepts and how much memory it needs. If a decoder accepts the header but refuses the file, the
//! next decoder is tried.

#[cfg(feature = "heic")]
mod heif;
mod image_crate;
mod jpeg_scaled;
#[cfg(feature = "turbo")]
mod libwebp;
mod opaque;
mod patched_file;
mod png;
mod scale;
mod tiff;

use std::{
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind},
};

use ::resize::Channels;
use image::metadata::Orientation;

use super::{crop::CropWindow, error::ImageError, format::Format, header::ImageHeader, scratch::Scratch};

/// A file to decode.
pub(super) struct DecodeJob<'a> {
    /// The whole file.
    pub(super) bytes: &'a [u8],
    /// The header of the file. The header is within the limits.
    pub(super) header: &'a ImageHeader,
    /// Size to which the image will be resized, before the orientation is applied. A decoder may scale the
    /// image down while it decodes, but not below twice this size in either direction.
    pub(super) target_size: (u32, u32),
    /// Maximum number of scans of a JPEG.
    pub(super) max_scans: u32,
}

/// Properties of a decoded image.
///
/// The pixels themselves are in the [`Scratch`], row by row and without padding. They are opaque pixels with 8
/// bits per channel.
#[derive(Debug)]
pub(super) struct DecodedImage {
    /// Width in pixels as decoded.
    pub(super) width: u32,
    /// Height in pixels as decoded.
    pub(super) height: u32,
    /// The channels of a pixel.
    pub(super) channels: Channels,
    /// The part of the pixels that shows the image. If the image was scaled down, this part may end inside
    /// the last column and row.
    pub(super) crop: CropWindow,
    /// Orientation that remains to be applied. The caller applies it after resizing, when there are few
    /// pixels.
    pub(super) orientation: Orientation,
    /// ICC profile of the pixels. The caller converts the colours after resizing.
    pub(super) icc_profile: Option<Vec<u8>>,
}

/// The reason why a decoder refused a file.
#[derive(Debug)]
pub(super) enum DecodeFailure {
    /// Another decoder may accept the file.
    #[cfg_attr(
        not(feature = "turbo"),
        expect(dead_code, reason = "only libwebp is followed by another decoder")
    )]
    TryNextDecoder(Box<dyn Error + Send + Sync>),
    /// The file is at fault, so no other decoder is tried.
    Final(ImageError),
}

impl From<ImageError> for DecodeFailure {
    fn from(error: ImageError) -> Self {
        Self::Final(error)
    }
}

/// A decoder of one or more formats.
pub(super) trait Decode: Sync {
    /// Returns the name of the library, for the log.
    fn name(&self) -> &'static str;

    /// Returns true if the decoder supports a file with this header.
    fn accepts(&self, header: &ImageHeader) -> bool;

    /// Returns the maximum number of bytes that decoding a file with this header needs, including the pixels.
    fn max_bytes(&self, header: &ImageHeader, target_size: (u32, u32)) -> u64;

    /// Decodes a file into the buffer for decoded pixels of `scratch`.
    ///
    /// # Errors
    /// Returns [`DecodeFailure`] when the decoder refuses the file.
    fn decode(&self, job: &DecodeJob<'_>, scratch: &mut Scratch) -> Result<DecodedImage, DecodeFailure>;
}

/// Returns the decoders of a format, the preferred one first. At least one of them accepts every file.
fn decoders_of_format(format: Format) -> &'static [&'static dyn Decode] {
    match format {
        Format::Jpeg => &[&jpeg_scaled::JpegScaledDecoder],
        Format::Png => &[&png::PngDecoder],
        Format::WebP => &[
            #[cfg(feature = "turbo")]
            &libwebp::LibwebpDecoder,
            &image_crate::ImageCrateDecoder,
        ],
        Format::Gif | Format::Bmp => &[&image_crate::ImageCrateDecoder],
        Format::Tiff => &[&tiff::TiffDecoder],
        #[cfg(feature = "heic")]
        Format::Heic => &[&heif::HeifDecoder { name: "heifer" }],
        #[cfg(feature = "avif")]
        Format::Avif => &[&heif::HeifDecoder { name: "rav1d" }],
    }
}

/// Returns the decoders that accept a file with this header, in the order in which they are tried.
pub(super) fn decoders_for(header: &ImageHeader) -> impl Iterator<Item = &'static dyn Decode> {
    decoders_of_format(header.format()).iter().copied().filter(move |decoder| decoder.accepts(header))
}

/// Returns the names of the JPEG decoders, in the order in which they are tried.
pub fn jpeg_decoder_names() -> Vec<&'static str> {
    decoders_of_format(Format::Jpeg).iter().map(|decoder| decoder.name()).collect()
}

/// Decodes a file with `decoder`.
///
/// # Errors
/// Returns [`DecodeFailure`] when the decoder refuses the file or panics.
pub(super) fn decode(
    decoder: &dyn Decode,
    job: &DecodeJob<'_>,
    scratch: &mut Scratch,
) -> Result<DecodedImage, DecodeFailure> {
    // Most decoders are third-party code. They process untrusted bytes, and some have panicked on them. A file that
    // causes a panic is reported as corrupt.
    catch_unwind(AssertUnwindSafe(|| decoder.decode(job, scratch)))
        .unwrap_or_else(|_| Err(corrupt(job, "the decoder panicked").into()))
}

fn corrupt(job: &DecodeJob<'_>, source: impl Into<Box<dyn Error + Send + Sync>>) -> ImageError {
    ImageError::Corrupt { format: job.header.format(), source: source.into() }
}

/// Returns the error for a file whose pixels have a different size than its header states.
fn size_mismatch(job: &DecodeJob<'_>) -> ImageError {
    corrupt(job, "the header and the pixels state different sizes")
}

/// Returns the number of bytes in the rows that a JPEG or WebP decoder works on at the same time.
///
/// Counts 64 rows of coefficients for each of three components, with 16 bits per coefficient. The largest MCU
/// (minimum coded unit) of a JPEG has 32 rows.
fn working_row_bytes(header: &ImageHeader) -> u64 {
    u64::from(header.width) * 64 * 3 * 2
}
