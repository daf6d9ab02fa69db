//! The steps from uploaded bytes to the stored JPEG.

use std::time::{Duration, Instant};

use bytes::Bytes;
use image::{DynamicImage, RgbImage, metadata::Orientation};

use super::{
    decode::{self, DecodeFailure, DecodeJob},
    encode,
    error::ImageError,
    plan::ProcessingPlan,
    recipe::Recipe,
    resize,
    scratch::Scratch,
};

/// An image ready to be stored.
#[derive(Clone, Debug)]
pub struct ProcessedImage {
    /// The JPEG.
    pub jpeg: Bytes,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Duration of each step.
    pub timings: Timings,
}

/// Duration of each step of [`process`].
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// Decoding to opaque grey, RGB or CMYK pixels.
    pub decode: Duration,
    /// Resizing, converting colours and applying the orientation.
    pub resize: Duration,
    /// Encoding to JPEG.
    pub encode: Duration,
}

/// Result of [`run_plan`].
pub enum PlanOutcome {
    /// The image was processed.
    Done(Box<ProcessedImage>),
    /// The decoder refused the upload. The contained plan uses the next decoder and may cost more.
    TryNext(Box<ProcessingPlan>),
}

/// Processes an upload according to `recipe`. If a decoder refuses the upload, tries the next decoder.
///
/// The CPU time grows with the number of pixels. No input makes this function panic.
///
/// # Errors
/// Returns any [`ImageError`]. Repeating the call gives the same error.
pub fn process(upload: &[u8], recipe: &Recipe) -> Result<ProcessedImage, ImageError> {
    let mut plan = ProcessingPlan::new(upload, recipe)?;
    loop {
        match run_plan(&plan, upload, recipe)? {
            PlanOutcome::Done(processed) => return Ok(*processed),
            PlanOutcome::TryNext(next) => plan = *next,
        }
    }
}

/// Processes an upload with the decoder of `plan` only.
///
/// `plan` must have been made from `upload` and `recipe`. If the decoder refuses the upload, the function
/// returns the plan for the next decoder, so that the caller can reserve memory for that plan before running
/// it.
///
/// # Errors
/// Returns any [`ImageError`]. Repeating the call gives the same error.
pub fn run_plan(plan: &ProcessingPlan, upload: &[u8], recipe: &Recipe) -> Result<PlanOutcome, ImageError> {
    let result = Scratch::with(recipe.limits.max_kept_bytes, |scratch| {
        decode_resize_and_encode(plan, upload, recipe, scratch)
    });
    match result {
        Ok(processed) => Ok(PlanOutcome::Done(Box::new(processed))),
        Err(failure) => Ok(PlanOutcome::TryNext(Box::new(plan.next_plan(failure, recipe)?))),
    }
}

/// Returns the pixels that [`process`] would encode, for comparisons of image quality.
///
/// # Errors
/// Returns any [`ImageError`] that [`process`] returns.
pub fn process_to_pixels(upload: &[u8], recipe: &Recipe) -> Result<RgbImage, ImageError> {
    let mut plan = ProcessingPlan::new(upload, recipe)?;
    loop {
        let result = Scratch::with(recipe.limits.max_kept_bytes, |scratch| {
            decode_and_resize(&plan, upload, recipe, scratch)
        });
        match result {
            Ok((image, _)) => return Ok(image),
            Err(failure) => plan = plan.next_plan(failure, recipe)?,
        }
    }
}

/// Runs every step with the decoder of `plan`.
fn decode_resize_and_encode(
    plan: &ProcessingPlan,
    upload: &[u8],
    recipe: &Recipe,
    scratch: &mut Scratch,
) -> Result<ProcessedImage, DecodeFailure> {
    let started = Instant::now();
    let (image, decoded_at) = decode_and_resize(plan, upload, recipe, scratch)?;
    let resized_at = Instant::now();

    let jpeg = encode::encode_jpeg(&image, recipe.jpeg_quality, &mut scratch.jpeg)?;
    let processed = ProcessedImage {
        jpeg: Bytes::copy_from_slice(jpeg),
        width: image.width(),
        height: image.height(),
        timings: Timings {
            decode: decoded_at - started,
            resize: resized_at - decoded_at,
            encode: resized_at.elapsed(),
        },
    };
    scratch.resized = image.into_raw();
    Ok(processed)
}

/// Decodes, resizes, converts colours and applies the orientation.
///
/// Returns the resulting image, and the time at which decoding ended.
fn decode_and_resize(
    plan: &ProcessingPlan,
    upload: &[u8],
    recipe: &Recipe,
    scratch: &mut Scratch,
) -> Result<(RgbImage, Instant), DecodeFailure> {
    let job = DecodeJob {
        bytes: upload,
        header: &plan.header,
        target_size: plan.target_size,
        max_scans: recipe.limits.max_scans,
    };
    let decoded = decode::decode(plan.decoder, &job, scratch)?;
    let decoded_at = Instant::now();
    resize::resize(&decoded, plan.target_size, scratch)?;
    // Converting and rotating come after resizing, because they take less time for a small image.
    let resized = std::mem::take(&mut scratch.resized);
    let srgb = scratch.colour_converter.convert(resized, decoded.channels, decoded.icc_profile.as_deref());
    let image = apply_orientation(srgb, plan.target_size, decoded.orientation);
    Ok((image, decoded_at))
}

/// Rotates and flips RGB pixels so that the image is upright.
fn apply_orientation(pixels: Vec<u8>, (width, height): (u32, u32), orientation: Orientation) -> RgbImage {
    // `from_raw` returns `None` only for fewer than `width` × `height` pixels, but the resizer writes all of
    // them. The empty default image is therefore never used.
    let image = RgbImage::from_raw(width, height, pixels).unwrap_or_default();
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    image.into_rgb8()
}
