//! Compares the outputs of converted networks on burn-flex with tract's outputs for the original graphs.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test helpers fail by panicking and print the measured differences"
)]

use burn::tensor::{Device, Tensor, TensorData};
use model_import::graph::{self, SimplifyOptions, proto};
use model_import_conformance::{original_path, simplified_path, tf2onnx, torch, zoo};
use onnx_proto::{Message as _, NodeProto};

#[path = "../graphs/random.rs"]
mod random;

mod common;

use common::{largest_difference, run_tract};

/// Height and width of the networks' input.
const SIDE: usize = 32;
const CLASS_COUNT: usize = 10;
/// Largest difference between two outputs that is attributed to rounding.
const TOLERANCE: f32 = 1e-4;

/// Returns random images `[batch, 3, 32, 32]` with the value range of normalised photos.
fn random_images(batch_size: usize) -> Vec<f32> {
    random::Random::new(99).floats(batch_size * 3 * SIDE * SIDE, -2.0, 2.5)
}

/// Converts images `[batch, 3, 32, 32]` to `[batch, 32, 32, 3]`.
fn to_channels_last(images: &[f32]) -> Vec<f32> {
    let pixel_count = SIDE * SIDE;
    let convert = |image: &[f32]| -> Vec<f32> {
        (0..pixel_count)
            .flat_map(|pixel| (0..3).map(move |channel| (channel, pixel)))
            .map(|(channel, pixel)| image[channel * pixel_count + pixel])
            .collect()
    };
    images.chunks(3 * pixel_count).flat_map(convert).collect()
}

const CHANNELS_FIRST: [usize; 4] = [1, 3, SIDE, SIDE];
const CHANNELS_LAST: [usize; 4] = [1, SIDE, SIDE, 3];

/// Returns the outputs of tract for the original graph of a style.
fn run_original(name: &str, images: &[f32]) -> Vec<f32> {
    if name == "tf2onnx" {
        run_tract(&original_path(name), &to_channels_last(images), CHANNELS_LAST)
    } else {
        run_tract(&original_path(name), images, CHANNELS_FIRST)
    }
    .unwrap()
}

fn assert_close(case: &str, expected: &[f32], actual: &[f32]) {
    assert_eq!(expected.len(), actual.len(), "{case}");
    let difference = largest_difference(expected, actual);
    println!("{case}: max abs difference {difference:e}");
    assert!(difference <= TOLERANCE, "{case}: max abs difference {difference:e}");
    // If the correct outputs were all about the same, the outputs of a wrong conversion could be within the
    // tolerance.
    let spread =
        expected.iter().copied().fold(f32::MIN, f32::max) - expected.iter().copied().fold(f32::MAX, f32::min);
    assert!(spread > 100.0 * TOLERANCE, "{case}: outputs are all about the same ({spread:e})");
}

fn assert_converted_agrees_with_original(name: &str, forward: impl Fn(Tensor<4>) -> Tensor<2>) {
    for batch_size in [1, 5] {
        let images = random_images(batch_size);
        let data = TensorData::new(images.clone(), [batch_size, 3, SIDE, SIDE]);
        let output = forward(Tensor::from_data(data, &Device::flex()));
        assert_eq!(output.dims(), [batch_size, CLASS_COUNT]);
        let actual: Vec<f32> = output.into_data().iter::<f32>().collect();
        assert_close(&format!("{name}, batch size {batch_size}"), &run_original(name, &images), &actual);
    }
}

#[test]
fn converted_zoo_network_agrees_with_the_original() {
    let model = zoo::Model::from_embedded(&Device::flex());
    assert_converted_agrees_with_original("zoo", |images| model.forward(images));
}

#[test]
fn converted_torch_network_agrees_with_the_original() {
    let model = torch::Model::from_embedded(&Device::flex());
    assert_converted_agrees_with_original("torch", |images| model.forward(images));
}

#[test]
fn converted_tf2onnx_network_agrees_with_the_original() {
    let model = tf2onnx::Model::from_embedded(&Device::flex());
    assert_converted_agrees_with_original("tf2onnx", |images| model.forward(images));
}

#[test]
fn simplified_graphs_agree_with_the_originals_in_tract() {
    let images = random_images(2);
    for name in ["zoo", "torch", "tf2onnx"] {
        let actual = run_tract(&simplified_path(name), &images, CHANNELS_FIRST).unwrap();
        assert_close(&format!("{name}, simplified"), &run_original(name, &images), &actual);
    }
}

#[test]
fn simplification_removes_shape_arithmetic_and_normalisation() {
    let report_of =
        |name: &str| graph::simplify_file(&original_path(name), &SimplifyOptions::default()).unwrap().report;
    let removed = [
        "BatchNormalization",
        "Shape",
        "Gather",
        "Concat",
        "Unsqueeze",
        "Reshape",
        "Transpose",
        "ReduceMean",
        "Mul",
        "Constant",
    ];
    for name in ["zoo", "torch", "tf2onnx"] {
        let report = report_of(name);
        let (before, after) = (&report.original_node_counts, &report.simplified_node_counts);
        for operator in removed {
            assert!(!after.contains_key(operator), "{name} still has {operator}: {report}");
        }
        assert_eq!(after["Conv"], before["Conv"], "{name}");
    }
    // Each graph has two residual additions. The graph of tf2onnx also has the shift of the normalisation and
    // the bias of the classifier.
    assert_eq!(report_of("zoo").simplified_node_counts["Add"], 2);
    assert_eq!(report_of("torch").simplified_node_counts["Add"], 2);
    assert_eq!(report_of("tf2onnx").simplified_node_counts["Add"], 4);
}

/// Spoils one node of the simplified graph, and returns the largest difference between the outputs of the
/// spoiled graph and of the original graph.
///
/// `spoil` is called with one node after another until it has changed a node and returns true.
fn difference_if_spoiled(name: &str, spoil: impl Fn(&mut NodeProto) -> bool) -> f32 {
    let mut model = graph::simplify_file(&original_path(name), &SimplifyOptions::default()).unwrap().model;
    let nodes = &mut model.graph.mut_or_insert_default().node;
    assert!(nodes.iter_mut().any(spoil), "`spoil` changed no node of {name}");
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("spoiled.onnx");
    std::fs::write(&file, model.write_to_bytes().unwrap()).unwrap();
    let images = random_images(1);
    largest_difference(&run_original(name, &images), &run_tract(&file, &images, CHANNELS_FIRST).unwrap())
}

#[test]
fn small_mistakes_in_the_graph_exceed_the_tolerance() {
    // The first mistake is padding at the top and left instead of at the bottom and right.
    let padding = difference_if_spoiled("tf2onnx", |node| {
        let pads = node.attribute.iter_mut().find(|attribute| attribute.ints == [0, 0, 1, 1]);
        pads.map(|pads| pads.ints = vec![1, 1, 0, 0]).is_some()
    });
    // The second mistake is the loss of a bias that comes from batch normalisation.
    let shift = difference_if_spoiled("zoo", |node| {
        node.op_type == "Conv" && node.input.len() == 3 && node.input.pop().is_some()
    });
    // The third mistake is the loss of an activation's upper bound.
    let bound = difference_if_spoiled("torch", |node| {
        if node.op_type == "Clip" {
            *node = proto::node("Relu", &[&node.input[0]], &[&node.output[0]]);
        }
        node.op_type == "Relu"
    });
    for (mistake, difference) in [("padding", padding), ("shift", shift), ("bound", bound)] {
        println!("{mistake}: max abs difference {difference:e}");
        assert!(difference > 10.0 * TOLERANCE, "{mistake}: max abs difference {difference:e}");
    }
}

#[test]
fn value_that_is_not_a_number_is_never_lost_in_the_largest_difference() {
    assert!(largest_difference(&[f32::NAN, 1.0], &[0.0, 0.5]).is_nan());
    assert!(largest_difference(&[1.0, f32::NAN], &[0.5, 0.0]).is_nan());
    assert_eq!(largest_difference(&[1.0, 2.0, 3.0], &[1.0, 0.0, 2.0]).to_bits(), 2.0_f32.to_bits());
}
