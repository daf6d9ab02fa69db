//! Compares a simplified graph with the original graph in another runtime, tract.
//!
//! Both graphs get the same random images.

use std::io::Cursor;
use std::path::Path;

use onnx_proto::Message as _;
use tract_onnx::Onnx;
use tract_onnx::prelude::*;

use crate::Error;
use crate::check::Comparison;
use crate::graph::{Layout, SimplifiedGraph};

/// Largest difference between two outputs, relative to the largest output, that is attributed to rounding.
const TOLERANCE: f32 = 1e-4;
/// Batch sizes of the simplified graph. The original graph runs one image at a time.
const BATCH_SIZES: [usize; 2] = [1, 2];

/// Compares the outputs of a simplified graph with those of the original file.
///
/// Returns the reason if tract cannot run the original.
///
/// # Errors
/// Returns [`Error::GraphDiffers`] if tract runs the original, but the simplified graph has other outputs or does
/// not accept a batch.
pub fn compare(onnx_path: &Path, simplified: &SimplifiedGraph) -> Result<Result<Comparison, String>, Error> {
    let report = &simplified.report;
    let image_count = BATCH_SIZES.into_iter().max().unwrap_or(1);
    let images = random_values(image_count * report.channels * report.height * report.width);
    let expected = match run_original(onnx_path, simplified, &images) {
        Ok(expected) => expected,
        Err(error) => return Ok(Err(format!("tract cannot run it: {error:#}"))),
    };
    let differs = |reason: String| Error::GraphDiffers { onnx_path: onnx_path.into(), reason };
    if expected.len() != image_count * report.class_count {
        let count = expected.len() / image_count;
        return Err(differs(format!(
            "the original has {count} outputs per image, not {}",
            report.class_count
        )));
    }
    let largest_output = expected.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
    let mut largest_differences = Vec::new();
    for batch_size in BATCH_SIZES {
        let (image_len, row_len) = (images.len() / image_count, report.class_count);
        let actual = run_simplified(simplified, &images[..batch_size * image_len], batch_size)
            .map_err(|error| {
                differs(format!(
                    "a batch of {batch_size} does not run; export the network with a dynamic batch size ({error:#})"
                ))
            })?;
        let difference = largest_difference(&expected[..batch_size * row_len], &actual);
        if !difference.is_some_and(|difference| difference <= TOLERANCE * largest_output) {
            let difference = difference.map_or("not a number".into(), |difference| difference.to_string());
            return Err(differs(format!(
                "in a batch of {batch_size}, the largest difference is {difference}, and the largest output is \
                 {largest_output}; this is a bug of model-import, so please report it"
            )));
        }
        largest_differences.push((batch_size, difference.unwrap_or_default()));
    }
    Ok(Ok(Comparison { largest_differences, largest_output }))
}

/// Runs the original graph on one image after another.
fn run_original(onnx_path: &Path, simplified: &SimplifiedGraph, images: &[f32]) -> TractResult<Vec<f32>> {
    let report = &simplified.report;
    let (channels, height, width) = (report.channels, report.height, report.width);
    let (shape, images) = match report.layout {
        Layout::ChannelsFirst => ([1, channels, height, width], images.to_vec()),
        Layout::ChannelsLast => {
            ([1, height, width, channels], to_channels_last(images, channels, height * width))
        }
    };
    let model = runtime().model_for_path(onnx_path)?;
    let runnable = prepare(model, shape, &report.output_name)?;
    let mut outputs = Vec::new();
    for image in images.chunks(channels * height * width) {
        outputs.extend(run(&runnable, &shape, image)?);
    }
    Ok(outputs)
}

/// Runs the simplified graph on a batch of images.
fn run_simplified(simplified: &SimplifiedGraph, images: &[f32], batch_size: usize) -> TractResult<Vec<f32>> {
    let report = &simplified.report;
    let bytes = simplified.model.write_to_bytes()?;
    let model = runtime().model_for_read(&mut Cursor::new(bytes))?;
    let shape = [batch_size, report.channels, report.height, report.width];
    run(&prepare(model, shape, &report.output_name)?, &shape, images)
}

/// Returns tract's importer. The shapes of inner values may contain a symbolic batch, which contradicts the batch size
/// of a run, so they are ignored.
fn runtime() -> Onnx {
    tract_onnx::onnx().with_ignore_value_info(true)
}

type Runnable = std::sync::Arc<TypedRunnableModel>;

/// Prepares a graph for inputs of this shape. Only the named output is computed.
fn prepare(model: InferenceModel, shape: [usize; 4], output_name: &str) -> TractResult<Runnable> {
    let mut model = model.with_input_fact(0, f32::fact(shape).into())?;
    let outlets = model.output_outlets()?.to_vec();
    if let Some(outlet) = outlets.iter().find(|outlet| model.outlet_label(**outlet) == Some(output_name)) {
        model.select_output_outlets(&[*outlet])?;
    }
    model.into_optimized()?.into_runnable()
}

fn run(model: &Runnable, shape: &[usize], images: &[f32]) -> TractResult<Vec<f32>> {
    let outputs = model.run(tvec!(Tensor::from_shape(shape, images)?.into()))?;
    Ok(outputs[0].to_plain_array_view::<f32>()?.iter().copied().collect())
}

/// Converts images from channels-first to channels-last.
fn to_channels_last(images: &[f32], channels: usize, pixel_count: usize) -> Vec<f32> {
    let convert = |image: &[f32]| -> Vec<f32> {
        (0..pixel_count)
            .flat_map(|pixel| (0..channels).map(move |channel| (channel, pixel)))
            .map(|(channel, pixel)| image[channel * pixel_count + pixel])
            .collect()
    };
    images.chunks(channels * pixel_count).flat_map(convert).collect()
}

/// Returns the largest difference, or `None` if the lengths differ or a value is not a number.
fn largest_difference(left: &[f32], right: &[f32]) -> Option<f32> {
    let differences = || left.iter().zip(right).map(|(left, right)| (left - right).abs());
    let is_comparable = left.len() == right.len() && differences().all(f32::is_finite);
    is_comparable.then(|| differences().fold(0.0, f32::max))
}

/// Returns the same random values at each call, in the range of normalised photos: from -2 to 2.5.
fn random_values(count: usize) -> Vec<f32> {
    let mut state: u32 = 0x9e37_79b9;
    let mut next_value = || {
        // Xorshift.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        // The upper 16 bits, as a fraction.
        let [.., low, high] = state.to_le_bytes();
        f32::from(u16::from_le_bytes([low, high])) / 65536.0 * 4.5 - 2.0
    };
    (0..count).map(|_| next_value()).collect()
}
