//! What happens to a picture: bytes in, one upright opaque RGB JPEG out, its colours sRGB. No input, no
//! output, no clock but for the timings; the same bytes under the same recipe always give the same
//! picture.
//!
//! - [`inspect`]: format, size and kind from the header, and whether the limits let it in
//! - [`Plan`]: which decoder, and what that costs
//! - [`process`]: the whole way: decode → resize → convert colours → turn upright → encode
//! - [`pixels`]: the same, but for the encoding

mod colour;
mod decode;
mod encode;
mod error;
mod header;
#[cfg(test)]
mod quality;
mod resize;
mod scratch;

use std::time::{Duration, Instant};

use bytes::Bytes;
use image::{DynamicImage, RgbImage, metadata::Orientation};

pub use error::ImageError;
pub use header::{Coding, Format, Gif, Header, Jpeg, Png, Process, Tiff, WebP};

use self::{
    decode::{Decode, Job, Refusal},
    scratch::Scratch,
};

/// Changed by hand whenever the code below would make another picture of the same upload under the
/// same settings: a stored image is then never taken for one that this version would make. Which
/// decoder and encoder are compiled in does not count: no two of them differ by more than a few levels.
///
/// 2: colours are converted to sRGB.
const VERSION: u32 = 2;

/// What is made of an upload, and which uploads are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Length of the shorter side in pixels; smaller pictures stay as they are.
    pub shorter_side: u32,
    /// JPEG quality, 1 to 100.
    pub jpeg_quality: u8,
    /// Which uploads are refused; no part of what is made.
    pub limits: Limits,
}

impl Recipe {
    /// The recipe as text, for [`contract::ImageId::from_upload`]: changes whenever the same upload
    /// would give another picture.
    pub fn id_text(&self) -> String {
        let Self { shorter_side, jpeg_quality, limits: _ } = self;
        let (filter, chroma) = (resize::FILTER, encode::CHROMA);
        format!("v{VERSION} shorter-side={shorter_side} filter={filter} jpeg={jpeg_quality} chroma={chroma}")
    }
}

/// Which uploads are refused, and how much memory the others may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most pixels of a baseline JPEG.
    pub max_pixels: u64,
    /// Most pixels of everything else, which takes longer and more memory; `max_pixels` where that is
    /// less.
    pub max_pixels_other: u64,
    /// Longest side in pixels.
    pub max_side: u32,
    /// Most scans of a JPEG. Each costs as much as the whole picture has pixels, and takes a few bytes.
    pub max_scans: u32,
    /// Most bytes that making one picture may take, besides the upload itself.
    pub max_bytes: u64,
    /// Most bytes that a thread keeps from one picture for the next.
    pub kept_bytes: usize,
}

impl Limits {
    /// # Errors
    /// [`ImageError::TooManyPixels`], [`ImageError::SideTooLong`], [`ImageError::TooManyScans`];
    /// [`ImageError::Corrupt`] where a JPEG has no end.
    fn check(&self, header: &Header) -> Result<(), ImageError> {
        let &Header { width, height, .. } = header;
        let max_side = self.max_side.min(encode::MAX_SIDE);
        if width.max(height) > max_side {
            return Err(ImageError::SideTooLong { width, height, limit: max_side });
        }
        let max_pixels = match header.is_baseline_jpeg() {
            true => self.max_pixels,
            false => self.max_pixels_other.min(self.max_pixels),
        };
        if header.pixels() > max_pixels {
            return Err(ImageError::TooManyPixels { width, height, limit: max_pixels });
        }
        match header.coding {
            Coding::Jpeg(jpeg) if jpeg.scans > self.max_scans => {
                Err(ImageError::TooManyScans { limit: self.max_scans })
            }
            Coding::Jpeg(Jpeg { whole: false, .. }) => {
                Err(ImageError::Corrupt { format: Format::Jpeg, source: "it ends too early".into() })
            }
            _ => Ok(()),
        }
    }
}

/// What it costs to make a picture of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Pixels to decode.
    pub pixels: u64,
    /// Most bytes of memory held at once, besides the upload itself: by the decoder, the resizer and
    /// the encoder.
    pub bytes: u64,
}

/// How a picture is going to be made: by which decoder, and at what cost.
#[derive(Clone, Copy)]
pub struct Plan {
    header: Header,
    decoder: &'static dyn Decode,
    /// Its place among those that take such a file.
    attempt: usize,
    target: (u32, u32),
    cost: Cost,
}

impl Plan {
    /// Reads the header, checks it against the limits, and picks the best decoder. Decodes nothing.
    ///
    /// # Errors
    /// [`ImageError`], any but those of decoding.
    pub fn of(bytes: &[u8], options: &Recipe) -> Result<Self, ImageError> {
        let header = inspect(bytes, &options.limits)?;
        Self::attempt(header, 0, options)?.ok_or(ImageError::NotAnImage)
    }

    /// What the upload is.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What it costs to follow this plan.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// Name of the decoder.
    pub fn decoder(&self) -> &'static str {
        self.decoder.name()
    }

    fn attempt(header: Header, attempt: usize, options: &Recipe) -> Result<Option<Self>, ImageError> {
        let target = resize::target(header.width, header.height, options.shorter_side);
        let Some(decoder) = decode::of(&header).nth(attempt) else { return Ok(None) };
        let decoding = decoder.bytes(&header, target);
        let bytes = decoding
            .saturating_add(resize::bytes((header.width, header.height), target))
            .saturating_add(encode::bytes(target))
            .saturating_add(FIXED_BYTES);
        if bytes > options.limits.max_bytes {
            return Err(ImageError::TooCostly { bytes, limit: options.limits.max_bytes });
        }
        let cost = Cost { pixels: header.pixels(), bytes };
        Ok(Some(Self { header, decoder, attempt, target, cost }))
    }

    /// The plan to follow when this one's decoder has refused the file.
    fn after(&self, refusal: Refusal, options: &Recipe) -> Result<Self, ImageError> {
        let source = match refusal {
            Refusal::Image(error) => return Err(error),
            Refusal::NotMine(source) => source,
        };
        tracing::debug!(decoder = self.decoder(), error = %source, "the decoder refused the file");
        let next = Self::attempt(self.header, self.attempt + 1, options)?;
        next.ok_or(ImageError::Corrupt { format: self.header.format(), source })
    }
}

/// Tables of decoders and the encoder, a colour profile and the curves made of it.
const FIXED_BYTES: u64 = 3 << 20;

/// What came of a plan.
pub enum Outcome {
    /// The picture.
    Done(Box<Processed>),
    /// The decoder refused the file, and this is the next one to try. It may cost more.
    Next(Box<Plan>),
}

/// A picture ready to be stored.
#[derive(Clone, Debug)]
pub struct Processed {
    /// The JPEG.
    pub jpeg: Bytes,
    /// Its width in pixels.
    pub width: u32,
    /// Its height in pixels.
    pub height: u32,
    /// What the upload was.
    pub source: Header,
    /// Where the time went.
    pub timings: Timings,
}

/// How long each step of [`process`] took.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// Bytes to opaque RGB pixels.
    pub decode: Duration,
    /// Resizing, converting colours and turning upright.
    pub resize: Duration,
    /// Pixels to JPEG.
    pub encode: Duration,
}

/// Names of the decoders of JPEG, in the order in which they are tried: the first that takes a file
/// decodes it.
pub fn jpeg_decoders() -> Vec<&'static str> {
    decode::jpeg_decoders()
}

/// Reads the header and checks it against the limits. Costs next to nothing, however large the upload.
///
/// # Errors
/// [`ImageError`], any but those of decoding.
pub fn inspect(bytes: &[u8], limits: &Limits) -> Result<Header, ImageError> {
    let header = header::read(bytes, limits.max_scans)?;
    limits.check(&header)?;
    Ok(header)
}

/// Makes the picture that `options` ask for out of an upload. Uses as much CPU as the upload has
/// pixels, and never panics, whatever the bytes.
///
/// # Errors
/// [`ImageError`]: all of them are about the upload, and permanent.
pub fn process(bytes: &[u8], options: &Recipe) -> Result<Processed, ImageError> {
    let mut plan = Plan::of(bytes, options)?;
    loop {
        match follow(&plan, bytes, options)? {
            Outcome::Done(processed) => return Ok(*processed),
            Outcome::Next(next) => plan = *next,
        }
    }
}

/// Follows the plan made of `bytes` and `options`: [`process`], but it stops where the plan's decoder
/// refuses the file, so that the cost of the next one can be seen to first.
///
/// # Errors
/// [`ImageError`]: all of them are about the upload, and permanent.
pub fn follow(plan: &Plan, bytes: &[u8], options: &Recipe) -> Result<Outcome, ImageError> {
    match Scratch::with(options.limits.kept_bytes, |scratch| make(plan, bytes, options, scratch)) {
        Ok(processed) => Ok(Outcome::Done(Box::new(processed))),
        Err(refusal) => Ok(Outcome::Next(Box::new(plan.after(refusal, options)?))),
    }
}

fn make(plan: &Plan, bytes: &[u8], options: &Recipe, scratch: &mut Scratch) -> Result<Processed, Refusal> {
    let started = Instant::now();
    let (picture, decoded_at) = shrink(plan, bytes, options, scratch)?;
    let resized_at = Instant::now();

    let jpeg = encode::jpeg(&picture, options.jpeg_quality, &mut scratch.jpeg)?;
    let processed = Processed {
        jpeg: Bytes::copy_from_slice(jpeg),
        width: picture.width(),
        height: picture.height(),
        source: plan.header,
        timings: Timings {
            decode: decoded_at - started,
            resize: resized_at - decoded_at,
            encode: resized_at.elapsed(),
        },
    };
    scratch.small = picture.into_raw();
    Ok(processed)
}

/// The small picture, and when it was decoded.
fn shrink(
    plan: &Plan,
    bytes: &[u8],
    options: &Recipe,
    scratch: &mut Scratch,
) -> Result<(RgbImage, Instant), Refusal> {
    let job = Job { bytes, header: &plan.header, target: plan.target, max_scans: options.limits.max_scans };
    let decoded = decode::decode(plan.decoder, &job, scratch)?;
    let decoded_at = Instant::now();
    // Converted and turned only once it is small.
    resize::resize(&decoded, plan.target, scratch)?;
    let Scratch { small, converter, .. } = scratch;
    colour::to_srgb(small, decoded.grey, decoded.profile.as_deref(), converter);
    let picture = upright(std::mem::take(&mut scratch.small), plan.target, decoded.orientation);
    Ok((picture, decoded_at))
}

/// A length in memory. What is more than the machine can address is refused long before.
fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn upright(pixels: Vec<u8>, (width, height): (u32, u32), orientation: Orientation) -> RgbImage {
    // The resizer wrote just as many pixels; were they fewer, there would be no picture.
    let picture = RgbImage::from_raw(width, height, pixels).unwrap_or_default();
    let mut picture = DynamicImage::ImageRgb8(picture);
    picture.apply_orientation(orientation);
    picture.into_rgb8()
}

/// The picture as [`process`] encodes it, for comparing what becomes of the pixels.
///
/// # Errors
/// [`ImageError`], as [`process`].
pub fn pixels(bytes: &[u8], options: &Recipe) -> Result<RgbImage, ImageError> {
    let mut plan = Plan::of(bytes, options)?;
    loop {
        match Scratch::with(options.limits.kept_bytes, |scratch| shrink(&plan, bytes, options, scratch)) {
            Ok((picture, _)) => return Ok(picture),
            Err(refusal) => plan = plan.after(refusal, options)?,
        }
    }
}
