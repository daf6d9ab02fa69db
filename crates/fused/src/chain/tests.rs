#![expect(clippy::unwrap_used, reason = "test helpers fail by panicking")]

use burn::tensor::{Device, Tensor, TensorData};
use rayon::ThreadPoolBuilder;

use super::Chain;
use crate::{Conv, Execution, Isa, Plan, Step, load_with};

const RELU6: [f32; 2] = [0.0, 6.0];
const UNBOUNDED: [f32; 2] = [f32::NEG_INFINITY, f32::INFINITY];

fn pointwise(input_channels: usize, output_channels: usize, clamp: [f32; 2]) -> Conv {
    Conv { input_channels, output_channels, kernel: 1, stride: 1, pads: [0; 4], clamp }
}

fn depthwise(channels: usize, kernel: usize, stride: usize, pads: [usize; 4]) -> Conv {
    Conv { input_channels: channels, output_channels: channels, kernel, stride, pads, clamp: RELU6 }
}

fn block(channels: usize, kernel: usize, stride: usize, output_channels: usize, clamp: [f32; 2]) -> Step {
    let expanded = 3 * channels + 1;
    Step::InvertedResidual {
        expand: Some(pointwise(channels, expanded, RELU6)),
        depthwise: depthwise(expanded, kernel, stride, [kernel / 2; 4]),
        project: pointwise(expanded, output_channels, clamp),
        add_input: stride == 1 && channels == output_channels,
    }
}

/// Returns a small network with every kind of step, asymmetric padding, and channel counts that do not fill a
/// SIMD vector.
fn network_plan() -> Plan {
    let stem = Conv {
        input_channels: 3,
        output_channels: 9,
        kernel: 3,
        stride: 2,
        pads: [0, 0, 1, 1],
        clamp: RELU6,
    };
    let first_block = Step::InvertedResidual {
        expand: None,
        depthwise: depthwise(9, 3, 1, [1; 4]),
        project: pointwise(9, 5, UNBOUNDED),
        add_input: false,
    };
    let steps = vec![
        Step::Conv(stem),
        first_block,
        block(5, 5, 1, 5, UNBOUNDED),
        block(5, 3, 2, 7, UNBOUNDED),
        block(7, 3, 1, 7, [-0.5, 2.0]),
        Step::Depthwise(depthwise(7, 5, 2, [1, 2, 2, 1])),
        Step::Conv(pointwise(7, 20, RELU6)),
        Step::GlobalAveragePool,
        Step::Flatten,
        Step::Conv(pointwise(20, 11, UNBOUNDED)),
    ];
    Plan { input: [3, 31, 26], shifted: true, steps }
}

/// Returns the first steps of [`network_plan`], whose output is a feature map.
fn feature_map_plan() -> Plan {
    let mut plan = network_plan();
    plan.steps.truncate(6);
    plan
}

/// Returns pseudo-random numbers between -1 and 1.
fn random_numbers(count: usize, mut state: u32) -> Vec<f32> {
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from(u16::try_from(state >> 16).unwrap()) / 32_768.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn new_chain(plan: &Plan, execution: Execution) -> Chain {
    load_with(execution, || Chain::new(plan.clone()))
}

fn weights_for(plan: &Plan) -> Tensor<1> {
    Tensor::from_data(
        TensorData::new(random_numbers(plan.weights_len(), 7), [plan.weights_len()]),
        &Device::flex(),
    )
}

fn image_tensor(plan: &Plan, images: &[f32], batch: usize) -> Tensor<4> {
    let [channels, height, width] = plan.input;
    let images = TensorData::new(images.to_vec(), [batch, channels, height, width]);
    Tensor::from_data(images, &Device::flex())
}

fn run<const D: usize>(chain: &Chain, values: &[f32], batch: usize) -> Vec<f32> {
    let plan = &chain.state.plan;
    chain.forward::<D>(image_tensor(plan, values, batch), weights_for(plan)).try_to_vec_as::<f32>().unwrap()
}

fn assert_close(expected: &[f32], actual: &[f32], context: &str) {
    assert_eq!(expected.len(), actual.len(), "{context}");
    let largest = expected.iter().map(|value| value.abs()).fold(1.0, f32::max);
    for (expected, actual) in expected.iter().zip(actual) {
        assert!((expected - actual).abs() <= 1e-5 * largest, "{context}: {actual} instead of {expected}");
    }
}

#[test]
fn cpu_kernels_agree_with_plain_operators() {
    let (network, feature_map) = (network_plan(), feature_map_plan());
    for isa in Isa::available() {
        for batch in [1, 2, 5] {
            let images = random_numbers(batch * network.input.iter().product::<usize>(), 3);
            let [plain, kernels] =
                [Execution::Plain, Execution::Kernels(isa)].map(|execution| new_chain(&network, execution));
            let expected = run::<2>(&plain, &images, batch);
            assert!(expected.iter().any(|value| value.abs() > 0.01), "all outputs are about zero");
            assert_close(&expected, &run::<2>(&kernels, &images, batch), &format!("{isa}, batch of {batch}"));

            let [plain, kernels] = [Execution::Plain, Execution::Kernels(isa)]
                .map(|execution| new_chain(&feature_map, execution));
            let expected = run::<4>(&plain, &images, batch);
            assert_close(
                &expected,
                &run::<4>(&kernels, &images, batch),
                &format!("feature map, {isa}, batch of {batch}"),
            );
        }
    }
}

#[test]
fn interleaved_view_gives_the_same_bits_as_planar_images() {
    for plan in [network_plan(), Plan { shifted: false, ..network_plan() }] {
        let chain = new_chain(&plan, Execution::Kernels(Isa::detect()));
        let batch = 3;
        let values = random_numbers(batch * plan.input.iter().product::<usize>(), 11);
        let expected = run::<2>(&chain, &values, batch);
        // The values are interleaved in memory, and the shape of the view is that of the planar images.
        let interleaved = image_tensor(&plan, &values, batch).permute([0, 2, 3, 1]).into_data();
        let view = Tensor::<4>::from_data(interleaved, &Device::flex()).permute([0, 3, 1, 2]);
        let actual = chain.forward::<2>(view, weights_for(&plan)).try_to_vec_as::<f32>().unwrap();
        assert_eq!(expected, actual, "shifted: {}", plan.shifted);
    }
}

#[test]
fn shift_changes_the_output() {
    let plan = feature_map_plan();
    let values = random_numbers(plan.input.iter().product::<usize>(), 13);
    let shifted = run::<4>(&new_chain(&plan, Execution::Plain), &values, 1);
    // Without the shift, the weights begin with the weights of the first convolution.
    let unshifted_plan = Plan { shifted: false, ..plan.clone() };
    let weights = weights_for(&plan).slice(3..);
    let unshifted = new_chain(&unshifted_plan, Execution::Plain)
        .forward::<4>(image_tensor(&unshifted_plan, &values, 1), weights);
    assert_ne!(shifted, unshifted.try_to_vec_as::<f32>().unwrap());
}

#[test]
fn outputs_are_bit_identical_for_any_number_of_threads() {
    let plan = network_plan();
    let chain = new_chain(&plan, Execution::Kernels(Isa::detect()));
    let batch = 4;
    let images = random_numbers(batch * plan.input.iter().product::<usize>(), 5);
    let outputs_with = |threads| {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run::<2>(&chain, &images, batch))
    };
    let expected = outputs_with(1);
    for threads in [2, 3, 4, 7] {
        assert_eq!(expected, outputs_with(threads), "{threads} threads");
    }
}

#[test]
#[should_panic(expected = "the chain cannot run")]
fn image_of_the_wrong_size_causes_a_panic() {
    let chain = new_chain(&network_plan(), Execution::Kernels(Isa::PORTABLE));
    let input = Tensor::<4>::zeros([1, 3, 30, 26], &Device::flex());
    let _ = chain.forward::<2>(input, weights_for(&network_plan()));
}
