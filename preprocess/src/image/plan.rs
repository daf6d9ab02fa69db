//! The choice of a decoder for an upload, and the cost of processing the upload.

use super::{
    decode::{self, Decode, DecodeFailure},
    encode,
    error::ImageError,
    header::{self, ImageHeader},
    metadata,
    recipe::{Limits, Recipe},
    resize,
};

/// Upper estimate, in bytes, of the memory that any upload needs besides its pixels.
///
/// Counts the tables of the decoder and the encoder, and the file's metadata other than an ICC profile.
const FIXED_BYTES: u64 = 3 << 20;

/// Reads the header of an upload and checks it against the limits.
///
/// Takes at most two milliseconds for a usual upload, and tens of milliseconds for a header that is crafted
/// to be expensive.
///
/// # Errors
/// Returns any [`ImageError`] that can be found without decoding.
pub fn inspect(upload: &[u8], limits: &Limits) -> Result<ImageHeader, ImageError> {
    let header = header::read_header(upload, limits.max_scans)?;
    limits.check(&header)?;
    Ok(header)
}

/// Cost of processing an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Number of pixels to decode.
    pub pixels: u64,
    /// Maximum number of bytes that decoder, resizer and encoder hold together at any time. The upload itself
    /// is not included.
    pub bytes: u64,
}

/// The decoder selected for an upload, the size of the resized image, and the cost of processing.
#[derive(Clone, Copy)]
pub struct ProcessingPlan {
    pub(super) header: ImageHeader,
    pub(super) decoder: &'static dyn Decode,
    /// Index of `decoder` among the decoders that accept the header of the upload.
    decoder_index: usize,
    /// Size of the resized image, before the orientation is applied.
    pub(super) target_size: (u32, u32),
    /// Maximum number of bytes for the ICC profile and its transform.
    colour_bytes: u64,
    cost: Cost,
}

impl ProcessingPlan {
    /// Returns true if [`Self::new`] takes so little time for this upload that it can run on an async worker.
    ///
    /// The longer the upload, the longer its header can take. The profile of a PNG is inflated to learn its length, and
    /// a few kilobytes can inflate to megabytes. The parts of a HEIC or AVIF can share data, which is then parsed for
    /// each part.
    pub fn is_cheap(upload: &[u8]) -> bool {
        const MAX_BYTES: usize = 64 << 10;
        let has_heif_boxes = upload.get(4..8) == Some(b"ftyp");
        upload.len() <= MAX_BYTES && !has_heif_boxes && !srgb::has_png_profile(upload)
    }

    /// Reads the header of an upload, checks it against the limits and selects the preferred decoder.
    ///
    /// Decodes no pixels.
    ///
    /// # Errors
    /// Returns any [`ImageError`] that can be found without decoding.
    pub fn new(upload: &[u8], recipe: &Recipe) -> Result<Self, ImageError> {
        let header = inspect(upload, &recipe.limits)?;
        let colour_bytes = match metadata::max_profile_bytes(upload, &header) {
            0 => 0,
            profile_bytes => srgb::max_bytes(profile_bytes, header.max_channels()),
        };
        Self::with_decoder(header, 0, colour_bytes, recipe)?.ok_or(ImageError::NotAnImage)
    }

    /// Returns the header of the upload.
    pub fn header(&self) -> &ImageHeader {
        &self.header
    }

    /// Returns the cost of running this plan.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// Returns the name of the selected decoder.
    pub fn decoder_name(&self) -> &'static str {
        self.decoder.name()
    }

    /// Returns the plan for the decoder at `decoder_index`, or `None` when there are no more decoders.
    fn with_decoder(
        header: ImageHeader,
        decoder_index: usize,
        colour_bytes: u64,
        recipe: &Recipe,
    ) -> Result<Option<Self>, ImageError> {
        let target_size = resize::target_size(header.width, header.height, recipe.shorter_side);
        let Some(decoder) = decode::decoders_for(&header).nth(decoder_index) else { return Ok(None) };
        let channel_count = header.max_channels().count();
        let bytes = decoder
            .max_bytes(&header, target_size)
            .saturating_add(resize::max_bytes((header.width, header.height), target_size, channel_count))
            .saturating_add(encode::max_bytes(target_size))
            .saturating_add(colour_bytes)
            .saturating_add(FIXED_BYTES);
        let limit = recipe.limits.max_processing_bytes;
        if bytes > limit {
            return Err(ImageError::ExceedsMemoryLimit { bytes, limit });
        }
        let cost = Cost { pixels: header.pixel_count(), bytes };
        Ok(Some(Self { header, decoder, decoder_index, target_size, colour_bytes, cost }))
    }

    /// Returns the plan for the next decoder, after the decoder of this plan has failed with `failure`.
    ///
    /// # Errors
    /// Returns an error when the failure is final or no decoder is left.
    pub(super) fn next_plan(&self, failure: DecodeFailure, recipe: &Recipe) -> Result<Self, ImageError> {
        let source = match failure {
            DecodeFailure::Final(error) => return Err(error),
            DecodeFailure::TryNextDecoder(source) => source,
        };
        tracing::debug!(decoder = self.decoder_name(), error = %source, "the decoder refused the file");
        let next = Self::with_decoder(self.header, self.decoder_index + 1, self.colour_bytes, recipe)?;
        next.ok_or(ImageError::Corrupt { format: self.header.format(), source })
    }
}
