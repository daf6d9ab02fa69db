//! Converted networks on burn-flex against tract on the graphs they came from.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking and say what they measured"
)]

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use model_import::graph::{self, proto};
use model_import_conformance::{cleaned, original, tf2onnx, torch, zoo};
use onnx_ir::{Message as _, NodeProto};
use tract_onnx::prelude::*;

#[path = "../graphs/random.rs"]
mod random;

const SIDE: usize = 32;
const CLASSES: usize = 10;
/// Largest difference that rounding may make.
const TOLERANCE: f32 = 1e-4;

/// Images `[batch, 3, 32, 32]`, like normalised photos.
fn images(batch: usize) -> Vec<f32> {
    random::Random::new(99).floats(batch * 3 * SIDE * SIDE, -2.0, 2.5)
}

fn channels_last(images: &[f32]) -> Vec<f32> {
    let plane = SIDE * SIDE;
    let turn = |image: &[f32]| -> Vec<f32> {
        (0..plane)
            .flat_map(|pixel| (0..3).map(move |channel| (channel, pixel)))
            .map(|(channel, pixel)| image[channel * plane + pixel])
            .collect()
    };
    images.chunks(3 * plane).flat_map(turn).collect()
}

/// What tract says, image by image.
fn tract(onnx: &Path, images: &[f32], shape: [usize; 4]) -> Vec<f32> {
    let model = tract_onnx::onnx()
        .model_for_path(onnx)
        .unwrap()
        .with_input_fact(0, f32::fact(shape).into())
        .unwrap()
        .into_optimized()
        .unwrap()
        .into_runnable()
        .unwrap();
    images
        .chunks(shape.iter().product())
        .flat_map(|image| {
            let input = tract_onnx::prelude::Tensor::from_shape(&shape, image).unwrap();
            let outputs = model.run(tvec!(input.into())).unwrap();
            outputs[0].to_plain_array_view::<f32>().unwrap().iter().copied().collect::<Vec<_>>()
        })
        .collect()
}

const CHANNELS_FIRST: [usize; 4] = [1, 3, SIDE, SIDE];
const CHANNELS_LAST: [usize; 4] = [1, SIDE, SIDE, 3];

fn original_says(name: &str, images: &[f32]) -> Vec<f32> {
    if name == "tf2onnx" {
        tract(&original(name), &channels_last(images), CHANNELS_LAST)
    } else {
        tract(&original(name), images, CHANNELS_FIRST)
    }
}

fn largest_difference(left: &[f32], right: &[f32]) -> f32 {
    let pairs = left.iter().zip(right);
    pairs.map(|(left, right)| (left - right).abs()).fold(0.0, f32::max)
}

fn compare(what: &str, expected: &[f32], found: &[f32]) {
    assert_eq!(expected.len(), found.len(), "{what}");
    let difference = largest_difference(expected, found);
    println!("{what}: max abs difference {difference:e}");
    assert!(difference <= TOLERANCE, "{what}: max abs difference {difference:e}");
    // Outputs that hardly depend on the image would agree whatever the conversion did.
    let spread =
        expected.iter().copied().fold(f32::MIN, f32::max) - expected.iter().copied().fold(f32::MAX, f32::min);
    assert!(spread > 100.0 * TOLERANCE, "{what}: outputs are all about the same ({spread:e})");
}

fn converted_equals_original(name: &str, forward: impl Fn(Tensor<4>) -> Tensor<2>) {
    for batch in [1, 5] {
        let images = images(batch);
        let data = TensorData::new(images.clone(), [batch, 3, SIDE, SIDE]);
        let output = forward(Tensor::from_data(data, &Device::flex()));
        assert_eq!(output.dims(), [batch, CLASSES]);
        let found: Vec<f32> = output.into_data().iter::<f32>().collect();
        compare(&format!("{name}, batch {batch}"), &original_says(name, &images), &found);
    }
}

#[test]
fn zoo_style_converts() {
    let model = zoo::Model::from_embedded(&Device::flex());
    converted_equals_original("zoo", |images| model.forward(images));
}

#[test]
fn torch_style_converts() {
    let model = torch::Model::from_embedded(&Device::flex());
    converted_equals_original("torch", |images| model.forward(images));
}

#[test]
fn tf2onnx_style_converts() {
    let model = tf2onnx::Model::from_embedded(&Device::flex());
    converted_equals_original("tf2onnx", |images| model.forward(images));
}

#[test]
fn cleaned_graphs_say_the_same_in_tract() {
    let images = images(2);
    for name in ["zoo", "torch", "tf2onnx"] {
        let found = tract(&cleaned(name), &images, CHANNELS_FIRST);
        compare(&format!("{name}, cleaned"), &original_says(name, &images), &found);
    }
}

#[test]
fn cleaning_leaves_the_operators_of_inference() {
    let operators = |name: &str| graph::clean_file(&original(name)).unwrap().report;
    let gone = [
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
        let report = operators(name);
        for operator in gone {
            assert!(!report.after.contains_key(operator), "{name} has {operator} left: {report}");
        }
        assert_eq!(report.after["Conv"], report.before["Conv"], "{name}");
    }
    // Two residual additions; in tf2onnx the normalisation's shift and the classifier's bias as well.
    assert_eq!(operators("zoo").after["Add"], 2);
    assert_eq!(operators("torch").after["Add"], 2);
    assert_eq!(operators("tf2onnx").after["Add"], 4);
}

/// Largest difference between the original and its cleaned graph with one node spoiled.
fn spoiled(name: &str, spoil: impl Fn(&mut NodeProto) -> bool) -> f32 {
    let mut model = graph::clean_file(&original(name)).unwrap().model;
    let nodes = &mut model.graph.mut_or_insert_default().node;
    assert!(nodes.iter_mut().any(spoil), "{name} has no such node");
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("spoiled.onnx");
    std::fs::write(&file, model.write_to_bytes().unwrap()).unwrap();
    let images = images(1);
    largest_difference(&original_says(name, &images), &tract(&file, &images, CHANNELS_FIRST))
}

#[test]
fn the_comparison_notices_small_mistakes() {
    // Padding at the top and left where it belongs to the bottom and right.
    let padding = spoiled("tf2onnx", |node| {
        let pads = node.attribute.iter_mut().find(|attribute| attribute.ints == [0, 0, 1, 1]);
        pads.map(|pads| pads.ints = vec![1, 1, 0, 0]).is_some()
    });
    // A convolution that lost what batch normalisation adds.
    let shift =
        spoiled("zoo", |node| node.op_type == "Conv" && node.input.len() == 3 && node.input.pop().is_some());
    // No upper bound.
    let bound = spoiled("torch", |node| {
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
