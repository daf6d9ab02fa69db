//! Compares a simplified graph, or the code generated from it, with the original graph in another runtime, tract.
//!
//! Both get the same random images.

use std::io::Cursor;
use std::path::Path;

use onnx_proto::Message as _;
use tract_onnx::Onnx;
use tract_onnx::prelude::*;

use crate::Error;
use crate::check::Comparison;
use crate::compiled::CompiledNetwork;
use crate::graph::types;
use crate::graph::{InputValues, Layout, Precision, Report, SimplifiedGraph};
use crate::model::Model;

/// Batch sizes of the simplified graph. The original graph runs one image at a time.
const BATCH_SIZES: [usize; 2] = [1, 2];

/// Returns the largest difference between two outputs, relative to the largest output, that is attributed to rounding.
fn tolerance(precision: Precision) -> f32 {
    match precision {
        Precision::Full => 1e-4,
        // The original computes with 11 bits, the simplified graph with 24.
        Precision::Half => 1e-3,
        // The original rounds every value to 8 bits, the simplified graph none.
        Precision::Quantized => 3e-2,
    }
}

/// Returns the batch sizes that the simplified graph accepts.
fn batch_sizes(report: &Report) -> &'static [usize] {
    if report.batch_obstacle.is_some() { &BATCH_SIZES[..1] } else { &BATCH_SIZES }
}

/// Compares the outputs of a simplified graph with those of the original file.
///
/// Returns the reason if tract cannot run the original.
///
/// # Errors
/// Returns [`Error::OutputsDiffer`] if tract runs the original, but the simplified graph has other outputs or does
/// not accept a batch.
pub fn compare(onnx_path: &Path, simplified: &SimplifiedGraph) -> Result<Result<Comparison, String>, Error> {
    compare_outputs(onnx_path, &simplified.report, "simplified graph", |images, batch_size| {
        run_simplified(simplified, images, batch_size).map_err(|error| {
            format!("a batch of {batch_size} does not run; export the network with a dynamic batch size ({error:#})")
        })
    })
}

/// Compares the outputs of a model's generated code with those of the original file.
///
/// Returns the reason if tract cannot run the original.
///
/// # Errors
/// Returns [`Error::OutputsDiffer`] if tract runs the original, but the code cannot be compiled, has other outputs or
/// does not accept a batch.
pub fn compare_compiled(model: &Model, build: &CompiledNetwork) -> Result<Result<Comparison, String>, Error> {
    compare_outputs(&model.onnx_path, &model.graph.report, "generated code", |images, batch_size| {
        build.run(&model.spec.name, images, batch_size)
    })
}

/// Compares the outputs of the original file with those that `run` computes for a batch of images.
fn compare_outputs(
    onnx_path: &Path,
    report: &Report,
    part: &'static str,
    run: impl Fn(&[f32], usize) -> Result<Vec<f32>, String>,
) -> Result<Result<Comparison, String>, Error> {
    let batch_sizes = batch_sizes(report);
    let image_count = batch_sizes.iter().copied().max().unwrap_or(1);
    let value_count = image_count * report.channels * report.height * report.width;
    let images: Vec<f32> = match report.input_values {
        InputValues::Normalised => random_values(value_count).collect(),
        // From 0 to 255.
        InputValues::Bytes => {
            random_values(value_count).map(|value| ((value + 2.0) / 4.5 * 255.0).round()).collect()
        }
    };
    let expected = match run_original(onnx_path, report, &images) {
        Ok(expected) => expected,
        Err(error) => return Ok(Err(format!("tract cannot run it: {error:#}"))),
    };
    let differs = |reason: String| Error::OutputsDiffer { onnx_path: onnx_path.into(), part, reason };
    if expected.len() != image_count * report.class_count {
        let count = expected.len() / image_count;
        return Err(differs(format!(
            "the original has {count} outputs per image, not {}",
            report.class_count
        )));
    }
    let largest_output = expected.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
    let mut largest_differences = Vec::new();
    for &batch_size in batch_sizes {
        let (image_len, row_len) = (images.len() / image_count, report.class_count);
        let actual = run(&images[..batch_size * image_len], batch_size).map_err(differs)?;
        let expected = &expected[..batch_size * row_len];
        if actual.len() != expected.len() {
            let (got, expected) = (actual.len(), expected.len());
            return Err(differs(format!("it has {got} outputs in a batch of {batch_size}, not {expected}")));
        }
        let difference = largest_difference(expected, &actual);
        if !difference.is_some_and(|difference| difference <= tolerance(report.precision) * largest_output) {
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
fn run_original(onnx_path: &Path, report: &Report, images: &[f32]) -> TractResult<Vec<f32>> {
    let (channels, height, width) = (report.channels, report.height, report.width);
    let (shape, images) = match report.layout {
        Layout::ChannelsFirst => ([1, channels, height, width], images.to_vec()),
        Layout::ChannelsLast => {
            ([1, height, width, channels], to_channels_last(images, channels, height * width))
        }
    };
    let input_type = match report.input_element_type {
        types::UINT8 => u8::datum_type(),
        types::FLOAT16 => f16::datum_type(),
        types::DOUBLE => f64::datum_type(),
        _ => f32::datum_type(),
    };
    let model = runtime().model_for_path(onnx_path)?;
    let runnable = prepare(model, shape, input_type, &report.output_name)?;
    let mut outputs = Vec::new();
    for image in images.chunks(channels * height * width) {
        outputs.extend(run(&runnable, &shape, input_type, image)?);
    }
    Ok(outputs)
}

/// Runs the simplified graph on a batch of images.
fn run_simplified(simplified: &SimplifiedGraph, images: &[f32], batch_size: usize) -> TractResult<Vec<f32>> {
    let report = &simplified.report;
    let bytes = simplified.model.write_to_bytes()?;
    let model = runtime().model_for_read(&mut Cursor::new(bytes))?;
    let shape = [batch_size, report.channels, report.height, report.width];
    let input_type = f32::datum_type();
    run(&prepare(model, shape, input_type, &report.output_name)?, &shape, input_type, images)
}

/// Returns tract's importer. The shapes of inner values may contain a symbolic batch, which contradicts the batch size
/// of a run, so they are ignored.
fn runtime() -> Onnx {
    tract_onnx::onnx().with_ignore_value_info(true)
}

type Runnable = std::sync::Arc<TypedRunnableModel>;

/// Prepares a graph for inputs of this shape. Only the named output is computed.
fn prepare(
    model: InferenceModel,
    shape: [usize; 4],
    input_type: DatumType,
    output_name: &str,
) -> TractResult<Runnable> {
    let mut model = model.with_input_fact(0, input_type.fact(shape).into())?;
    let outlets = model.output_outlets()?.to_vec();
    if let Some(outlet) = outlets.iter().find(|outlet| model.outlet_label(**outlet) == Some(output_name)) {
        model.select_output_outlets(&[*outlet])?;
    }
    model.into_optimized()?.into_runnable()
}

fn run(model: &Runnable, shape: &[usize], input_type: DatumType, images: &[f32]) -> TractResult<Vec<f32>> {
    let input = Tensor::from_shape(shape, images)?.cast_to_dt(input_type)?.into_owned();
    let outputs = model.run(tvec!(input.into()))?;
    let output = outputs[0].cast_to::<f32>()?;
    Ok(output.to_plain_array_view::<f32>()?.iter().copied().collect())
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

/// Returns the largest difference, or `None` if a difference is not a number.
fn largest_difference(left: &[f32], right: &[f32]) -> Option<f32> {
    let differences = || left.iter().zip(right).map(|(left, right)| (left - right).abs());
    differences().all(f32::is_finite).then(|| differences().fold(0.0, f32::max))
}

/// Returns the same random values at each call, in the range of normalised photos: from -2 to 2.5.
fn random_values(count: usize) -> impl Iterator<Item = f32> {
    let mut state: u32 = 0x9e37_79b9;
    let mut next_value = move || {
        // Xorshift.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        // The upper 16 bits, as a fraction.
        let [.., low, high] = state.to_le_bytes();
        f32::from(u16::from_le_bytes([low, high])) / 65536.0 * 4.5 - 2.0
    };
    (0..count).map(move |_| next_value())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::graph::{self, SimplifyOptions};

    /// Compares a network of the conformance suite. Returns the batch sizes, or the reason why tract cannot run it.
    fn compare_export(name: &str) -> Result<Vec<usize>, String> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("conformance/exports")
            .join(name)
            .join("model.onnx");
        let simplified = graph::simplify_file(&path, &SimplifyOptions::default()).unwrap();
        let comparison = compare(&path, &simplified).unwrap()?;
        Ok(comparison.largest_differences.iter().map(|(batch_size, _)| *batch_size).collect())
    }

    #[test]
    fn quantized_networks_and_inputs_of_bytes_are_compared() {
        for name in ["onnxruntime-qdq", "torch-dynamo-uint8-nchw", "torch-dynamo-uint8-nhwc"] {
            assert_eq!(compare_export(name), Ok(vec![1, 2]), "{name}");
        }
    }

    #[test]
    fn float16_network_that_tract_cannot_run_is_no_error() {
        let reason = compare_export("torch-dynamo-half").unwrap_err();
        assert!(reason.contains("F16"), "{reason}");
    }
}
