//! Bytes to opaque pixels. This is the one place where a decoder is chosen.
//!
//! For each format there is a list of decoders, the best one first ([`of`]). A decoder says whether it
//! takes a file, what memory that needs, and decodes; what it refuses after all goes to the next one.

mod general;
mod jpeg_scaled;
#[cfg(feature = "turbo")]
mod libjpeg_turbo;
#[cfg(feature = "turbo")]
mod libwebp;
mod opaque;
mod png;
mod scale;
mod zune;

use std::{
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind},
};

use image::metadata::Orientation;

use super::{Format, Header, ImageError, length, resize::Window, scratch::Scratch};

/// A file that is to be decoded, and what is wanted of it.
pub(super) struct Job<'a> {
    /// The whole file.
    pub(super) bytes: &'a [u8],
    /// What it says of itself; it has been let in.
    pub(super) header: &'a Header,
    /// Size that the picture will be made into, before it is turned upright. A decoder may decode to
    /// less than the whole size, but not to less than twice this one in either direction.
    pub(super) target: (u32, u32),
    /// Most scans of a JPEG.
    pub(super) max_scans: u32,
}

/// A decoded picture. Its pixels are in the scratch memory, row by row and without gaps: opaque, with 8
/// bits, red, green and blue or grey alone.
#[derive(Debug)]
pub(super) struct Decoded {
    /// Width in pixels as decoded.
    pub(super) width: u32,
    /// Height in pixels as decoded.
    pub(super) height: u32,
    /// A pixel is one byte of grey; otherwise three bytes.
    pub(super) grey: bool,
    /// The part that shows the picture. The last pixels of a picture that is scaled down may stand
    /// half outside.
    pub(super) window: Window,
    /// How the picture must still be turned. Left to the caller, because turning is cheap once the
    /// picture is small.
    pub(super) orientation: Orientation,
    /// ICC profile that the colours are of. Left to the caller for the same reason.
    pub(super) profile: Option<Vec<u8>>,
}

/// Why a decoder gives no picture.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Another decoder may do better.
    NotMine(Box<dyn Error + Send + Sync>),
    /// The file is at fault.
    Image(ImageError),
}

impl From<ImageError> for Refusal {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

/// A decoder.
pub(super) trait Decode: Sync {
    /// Name of the library, for the log.
    fn name(&self) -> &'static str;

    /// Whether such a file is worth trying.
    fn takes(&self, header: &Header) -> bool;

    /// Most bytes that are held at once while such a file is decoded, the pixels included.
    fn bytes(&self, header: &Header, target: (u32, u32)) -> u64;

    /// Decodes into `scratch.pixels`.
    ///
    /// # Errors
    /// [`Refusal`].
    fn decode(&self, job: &Job<'_>, scratch: &mut Scratch) -> Result<Decoded, Refusal>;
}

/// The decoders of a format, the best one first. The last one takes every file.
fn all_of(format: Format) -> &'static [&'static dyn Decode] {
    match format {
        // Which is faster where: `jpeg-scaled/benches/`.
        Format::Jpeg => &[
            &jpeg_scaled::JpegScaled,
            #[cfg(feature = "turbo")]
            &libjpeg_turbo::LibjpegTurbo,
            &zune::Zune,
        ],
        Format::Png => &[&png::Png],
        Format::WebP => &[
            #[cfg(feature = "turbo")]
            &libwebp::LibWebP,
            &general::General,
        ],
        Format::Gif | Format::Bmp | Format::Tiff => &[&general::General],
    }
}

/// The decoders that take such a file, in the order in which they are tried.
pub(super) fn of(header: &Header) -> impl Iterator<Item = &'static dyn Decode> {
    all_of(header.format()).iter().copied().filter(move |decoder| decoder.takes(header))
}

/// Names of the decoders of JPEG, in the order in which they are tried.
pub(super) fn jpeg_decoders() -> Vec<&'static str> {
    all_of(Format::Jpeg).iter().map(|decoder| decoder.name()).collect()
}

/// Decodes with one decoder.
///
/// # Errors
/// [`Refusal`].
pub(super) fn decode(decoder: &dyn Decode, job: &Job<'_>, scratch: &mut Scratch) -> Result<Decoded, Refusal> {
    // Decoders are other people's code fed with strangers' bytes; some have panicked on them
    // (zune-jpeg 0.5, its issue 409). For the sender that is just another corrupt image.
    catch_unwind(AssertUnwindSafe(|| decoder.decode(job, scratch)))
        .unwrap_or_else(|_| Err(corrupt(job, "the decoder panicked").into()))
}

fn corrupt(job: &Job<'_>, source: impl Into<Box<dyn Error + Send + Sync>>) -> ImageError {
    ImageError::Corrupt { format: job.header.format(), source: source.into() }
}

/// The decoder found another size than the header said.
fn disagreement(job: &Job<'_>) -> Refusal {
    corrupt(job, "its header and its pixels disagree about its size").into()
}

/// Rows that a decoder of JPEG or WebP works on at once, as bytes: for each column some 64 samples in
/// three components, as 16-bit coefficients.
fn working_rows(header: &Header) -> u64 {
    u64::from(header.width) * 64 * 3 * 2
}
