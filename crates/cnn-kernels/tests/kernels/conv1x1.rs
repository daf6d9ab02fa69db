//! Tests the 1×1 convolution.

use cnn_kernels::{Clamp, Isa, PackedConv1x1, ShapeError};
use proptest::prelude::*;

use crate::{
    naive::{Expected, assert_all_close},
    support::{any_clamp, assert_same_bits, proptest_config, random_numbers, run_guarded},
};

/// Numbers of input channels, output channels and pixels.
type Shape = (usize, usize, usize);

/// Checks a convolution on every instruction set.
///
/// The function asserts that the output is correct, that nothing outside the output is written, and that the
/// output has the same bits if the pixels before and after `split` are computed separately.
fn check_conv1x1(
    (input_channels, output_channels, pixel_count): Shape,
    split: usize,
    with_residual: bool,
    clamp: Clamp,
    seed: u64,
) {
    let input = random_numbers(seed, pixel_count * input_channels);
    let weights = random_numbers(seed + 1, output_channels * input_channels);
    let bias = random_numbers(seed + 2, output_channels);
    let residual = with_residual.then(|| random_numbers(seed + 3, pixel_count * output_channels));
    let mut expected = Vec::new();
    for pixel in 0..pixel_count {
        for output_channel in 0..output_channels {
            let mut sum = Expected::new(bias[output_channel]);
            for channel in 0..input_channels {
                sum.add(
                    input[pixel * input_channels + channel],
                    weights[output_channel * input_channels + channel],
                );
            }
            if let Some(residual) = &residual {
                sum.add(residual[pixel * output_channels + output_channel], 1.0);
            }
            expected.push(sum.clamped(clamp));
        }
    }
    for isa in Isa::available() {
        let conv = PackedConv1x1::new(isa, input_channels, &weights, &bias, clamp).unwrap();
        let whole = run_guarded(pixel_count * output_channels, |output| {
            conv.run(&input, residual.as_deref(), output).unwrap()
        });
        assert_all_close(&expected, &whole, isa.name());
        let compute_part = |from: usize, to: usize| {
            let residual =
                residual.as_ref().map(|residual| &residual[from * output_channels..to * output_channels]);
            run_guarded((to - from) * output_channels, |output| {
                conv.run(&input[from * input_channels..to * input_channels], residual, output).unwrap();
            })
        };
        let split = split.min(pixel_count);
        assert_same_bits(
            &whole,
            &[compute_part(0, split), compute_part(split, pixel_count)].concat(),
            isa.name(),
        );
    }
}

proptest! {
    #![proptest_config(proptest_config(150))]

    #[test]
    fn any_shape_gives_the_expected_sums(
        shape in (1..180_usize, 1..150_usize, 1..70_usize),
        split in 0..70_usize,
        with_residual: bool,
        clamp in any_clamp(),
        seed: u64,
    ) {
        // `check_conv1x1` adds small numbers to the seed, which must not overflow.
        check_conv1x1(shape, split, with_residual, clamp, seed >> 1);
    }
}

#[test]
fn weights_larger_than_the_cache_give_the_expected_sums() {
    check_conv1x1((700, 300, 50), 13, true, Clamp::NONE, 1);
}

#[test]
fn single_pixel_with_many_channels_gives_the_expected_sums() {
    check_conv1x1((1280, 1000, 1), 1, false, Clamp::NONE, 2);
}

#[test]
fn nan_in_the_input_stays_nan_in_the_output() {
    for isa in Isa::available() {
        let conv = PackedConv1x1::new(isa, 1, &[1.0; 19], &[0.0; 19], Clamp::RELU6).unwrap();
        let output = run_guarded(19, |output| conv.run(&[f32::NAN], None, output).unwrap());
        assert!(output.iter().all(|value| value.is_nan()), "{isa}");
    }
}

#[test]
fn wrong_lengths_are_refused_before_anything_is_written() {
    let isa = Isa::detect();
    let result = PackedConv1x1::new(isa, 3, &[0.0; 7], &[0.0; 2], Clamp::NONE).map(|_| ());
    assert_eq!(result, Err(ShapeError::Length { slice_name: "weights", expected: 6, actual: 7 }));
    let result = PackedConv1x1::new(isa, 3, &[], &[], Clamp::NONE).map(|_| ());
    assert_eq!(result, Err(ShapeError::Zero));

    let conv = PackedConv1x1::new(isa, 3, &[1.0; 6], &[0.0; 2], Clamp::NONE).unwrap();
    let mut output = [7.0; 4];
    for (input_len, residual_len) in [(5, 4), (3, 4), (6, 3)] {
        let result = conv.run(&vec![1.0; input_len], Some(&vec![1.0; residual_len]), &mut output);
        assert!(matches!(result, Err(ShapeError::Length { .. })), "{result:?}");
        assert_same_bits(&output, &[7.0; 4], "output after an error");
    }
}
