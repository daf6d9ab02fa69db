//! The image pipeline, which converts an upload to an upright, opaque sRGB JPEG.
//!
//! The pipeline performs no I/O, and reads the clock only to report [`Timings`]. The same bytes with the same
//! [`Recipe`] always give the same JPEG.
//!
//! - [`inspect`] reads format, size and coding from the header and checks them against the [`Limits`].
//! - [`ProcessingPlan`] selects a decoder for an upload and states the cost in pixels and memory.
//! - [`run_plan`] processes an upload with the decoder of a plan.
//! - [`process`] makes and runs the plans itself. The steps are: decode → resize → convert colours → apply
//!   the orientation → encode.
//! - [`process_to_pixels`] runs the same steps without encoding.

mod crop;
mod decode;
mod encode;
mod error;
mod exif;
mod format;
mod header;
mod metadata;
mod plan;
mod process;
#[cfg(test)]
mod quality;
mod recipe;
mod resize;
mod scratch;
mod size;

#[cfg(feature = "heic")]
pub use self::header::HeifHeader;
pub use self::{
    decode::jpeg_decoder_names,
    error::ImageError,
    format::Format,
    header::{Coding, GifHeader, ImageHeader, JpegHeader, JpegProcess, PngHeader, TiffHeader, WebPHeader},
    plan::{Cost, ProcessingPlan, inspect},
    process::{PlanOutcome, ProcessedImage, Timings, process, process_to_pixels, run_plan},
    recipe::{Limits, Recipe},
};
