//! Compares networks that real tools exported with the outputs of onnxruntime.
//!
//! The folder `exports/` has one folder per network, with the file as the tool wrote it and onnxruntime's outputs
//! for five images. The tests convert each network to code. They run the simplified graph in tract on batches of
//! one, two and five images, and compare the outputs. A snapshot records the result for each network. Some of the
//! networks are compiled, and run with burn-flex.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test helpers fail by panicking and print differences"
)]

use std::fmt::Write as _;
use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;

use model_import::codegen;
use model_import::graph::{self, InputValues, SimplifiedGraph, SimplifyOptions, macs};
use model_import_conformance::{torch_dynamo_average_pool_ceil, torch_legacy_vit};
use onnx_proto::Message as _;

#[path = "../graphs/random.rs"]
mod random;

mod common;

use common::{largest_difference, run_tract};

/// Number of images for which the outputs are stored.
const IMAGE_COUNT: usize = 5;
/// Largest difference that is attributed to rounding, relative to the largest output.
const TOLERANCE: f32 = 1e-4;
/// The reference of a float16 network computes with 11 bits, the converted network with 24. The largest measured
/// difference is 2.7e-4.
const HALF_TOLERANCE: f32 = 1e-3;
/// The reference of a quantized network rounds every value to 8 bits, the converted network none. The largest
/// measured difference is 1.1e-2.
const QUANTIZED_TOLERANCE: f32 = 3e-2;

/// An entry of `exports/index.toml`.
struct Network {
    name: String,
    /// Shape of one image: channels, height, width.
    image_shape: [usize; 3],
    dtype: String,
    output_name: String,
}

fn exports_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("exports")
}

fn read_index() -> Vec<Network> {
    let text = fs::read_to_string(exports_folder().join("index.toml")).unwrap();
    let index: toml::Table = text.parse().unwrap();
    let networks = index["network"].as_array().unwrap();
    let read = |network: &toml::Value| {
        let shape: Vec<usize> = network["image_shape"]
            .as_array()
            .unwrap()
            .iter()
            .map(|dim| usize::try_from(dim.as_integer().unwrap()).unwrap())
            .collect();
        Network {
            name: network["name"].as_str().unwrap().into(),
            image_shape: match network["layout"].as_str().unwrap() {
                "nhwc" => [shape[3], shape[1], shape[2]],
                _ => [shape[1], shape[2], shape[3]],
            },
            dtype: network["dtype"].as_str().unwrap().into(),
            output_name: network["output"].as_str().unwrap().into(),
        }
    };
    networks.iter().map(read).collect()
}

impl Network {
    fn folder(&self) -> PathBuf {
        exports_folder().join(&self.name)
    }

    /// Returns the images `[5, channels, height, width]` for which the outputs are stored.
    fn images(&self) -> Vec<f32> {
        let count = IMAGE_COUNT * self.image_shape.iter().product::<usize>();
        let mut random = random::Random::new(99);
        match self.dtype.as_str() {
            "uint8" => random.floats(count, 0.0, 256.0).into_iter().map(f32::floor).collect(),
            _ => random.floats(count, -2.0, 2.5),
        }
    }

    fn outputs(&self) -> Vec<f32> {
        let bytes = fs::read(self.folder().join("outputs.f32")).unwrap();
        bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    fn simplify(&self) -> Result<SimplifiedGraph, String> {
        let size = [self.image_shape[1], self.image_shape[2]].map(|side| i64::try_from(side).unwrap());
        let options = SimplifyOptions { output_name: Some(self.output_name.clone()), image_size: Some(size) };
        graph::simplify_file(&self.folder().join("model.onnx"), &options).map_err(|error| error.to_string())
    }

    fn tolerance(&self) -> f32 {
        match self.name.as_str() {
            name if name.contains("half") => HALF_TOLERANCE,
            name if name.contains("qdq") || name == "tflite-uint8" => QUANTIZED_TOLERANCE,
            _ => TOLERANCE,
        }
    }
}

/// Returns the largest difference of two outputs, relative to the largest output.
fn relative_difference(expected: &[f32], actual: &[f32]) -> f32 {
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    largest_difference(expected, actual) / largest
}

/// The result for a network: its line of the table, and the differences that are errors.
#[derive(Default)]
struct Comparison {
    line: String,
    failures: String,
}

/// Converts a network, and compares its outputs on batches of one, two and five images.
fn compare(network: &Network, folder: &Path) -> Comparison {
    let name = &network.name;
    let mut failures = String::new();
    let SimplifiedGraph { model, report } = match network.simplify() {
        Ok(simplified) => simplified,
        Err(error) => {
            let (_, reason) = error.split_once("model.onnx").unwrap_or(("", &error));
            return Comparison { line: format!("{name}: refused{reason}"), failures };
        }
    };
    let path = folder.join(format!("{name}-simplified.onnx"));
    fs::write(&path, model.write_to_bytes().unwrap()).unwrap();
    let mut missing = String::new();
    if let Err(error) = codegen::write_network(&model, &path, folder, &name.replace('-', "_")) {
        write!(missing, ", no code: {}", first_line(&error.to_string())).unwrap();
    }
    let batch_sizes: &[usize] = if report.batch_obstacle.is_some() { &[1] } else { &[1, 2, 5] };
    for batch_size in batch_sizes {
        let outputs = network.outputs();
        let expected = &outputs[..outputs.len() / IMAGE_COUNT * batch_size];
        let [channels, height, width] = network.image_shape;
        let batch_shape = [*batch_size, channels, height, width];
        let images = network.images();
        let batch = &images[..batch_shape.iter().product()];
        let actual = match run_tract(&path, batch, batch_shape) {
            Ok(actual) => actual,
            Err(error) => {
                write!(missing, ", tract at batch {batch_size}: {}", first_line(&format!("{error:#}")))
                    .unwrap();
                continue;
            }
        };
        let difference = relative_difference(expected, &actual);
        println!("{name}, batch size {batch_size}: relative difference {difference:e}");
        if difference.is_nan() || difference > network.tolerance() {
            writeln!(failures, "{name}, batch size {batch_size}: {difference:e}").unwrap();
        }
    }
    let macs = macs::count(&model.graph, &report.input_name);
    let fused = format!("{} of {} multiply-adds fused", macs.fused, macs.total);
    let unknown = if macs.unknown.is_empty() {
        String::new()
    } else {
        format!(", {} unknown layers", macs.unknown.len())
    };
    let ending = report.ending;
    let batch = report.batch_obstacle.map_or("any batch".into(), |reason| format!("only 1: {reason}"));
    let values = if report.input_values == InputValues::Bytes { ", values 0 to 255" } else { "" };
    let operators: Vec<String> =
        report.simplified_node_counts.iter().map(|(operator, count)| format!("{operator} {count}")).collect();
    Comparison {
        line: format!(
            "{name}: {batch}{values}, ends in {ending}, {fused}{unknown}{missing}; {}",
            operators.join(", ")
        ),
        failures,
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[test]
fn simplified_exports_agree_with_onnxruntime_at_batch_1_2_and_5() {
    let folder = tempfile::TempDir::new().unwrap();
    let networks = read_index();
    let thread_count = thread::available_parallelism().map_or(1, NonZero::get);
    let chunks: Vec<Vec<Comparison>> = thread::scope(|scope| {
        let threads: Vec<_> = networks
            .chunks(networks.len().div_ceil(thread_count))
            .map(|chunk| {
                scope.spawn(|| chunk.iter().map(|network| compare(network, folder.path())).collect())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let comparisons: Vec<Comparison> = chunks.into_iter().flatten().collect();
    let failures: String = comparisons.iter().map(|comparison| comparison.failures.as_str()).collect();
    let table: Vec<&str> = comparisons.iter().map(|comparison| comparison.line.as_str()).collect();
    assert!(failures.is_empty(), "outputs differ:\n{failures}");
    insta::assert_snapshot!(table.join("\n"));
}

fn assert_compiled_agrees(name: &str, forward: impl Fn(burn::tensor::Tensor<4>) -> burn::tensor::Tensor<2>) {
    let network = read_index().into_iter().find(|network| network.name == name).unwrap();
    let (images, outputs) = (network.images(), network.outputs());
    let [channels, height, width] = network.image_shape;
    for batch_size in [1, 2, 5] {
        let batch = images[..batch_size * channels * height * width].to_vec();
        let data = burn::tensor::TensorData::new(batch, [batch_size, channels, height, width]);
        let output = forward(burn::tensor::Tensor::from_data(data, &burn::tensor::Device::flex()));
        let actual: Vec<f32> = output.into_data().iter::<f32>().collect();
        let expected = &outputs[..outputs.len() / IMAGE_COUNT * batch_size];
        let difference = relative_difference(expected, &actual);
        println!("{name}, compiled, batch size {batch_size}: relative difference {difference:e}");
        assert!(difference <= TOLERANCE, "{name}, batch size {batch_size}: {difference:e}");
    }
}

#[test]
fn compiled_exports_agree_with_onnxruntime_at_batch_1_2_and_5() {
    let device = burn::tensor::Device::flex();
    let vit = torch_legacy_vit::Model::from_embedded(&device);
    assert_compiled_agrees("torch-legacy-vit", |images| vit.forward(images));
    let pooling = torch_dynamo_average_pool_ceil::Model::from_embedded(&device);
    assert_compiled_agrees("torch-dynamo-average-pool-ceil", |images| pooling.forward(images));
}
