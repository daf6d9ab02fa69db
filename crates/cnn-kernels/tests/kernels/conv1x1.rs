//! 1×1 convolution and classifier.

use cnn_kernels::{Clamp, Isa, PackedConv1x1, ShapeError};
use proptest::prelude::*;

use crate::{
    naive::{Expected, assert_all},
    rig::{any_clamp, assert_same, cases, guarded, numbers},
};

/// Channels, output channels, pixels.
type Shape = (usize, usize, usize);

/// On every instruction set: the right numbers, nothing else written, and the same bits when the
/// pixels before `split` and those behind it are computed by themselves.
fn check((channels, outputs, pixels): Shape, split: usize, add: bool, clamp: Clamp, seed: u64) {
    let input = numbers(seed, pixels * channels);
    let weights = numbers(seed + 1, outputs * channels);
    let bias = numbers(seed + 2, outputs);
    let residual = add.then(|| numbers(seed + 3, pixels * outputs));
    let mut expected = Vec::new();
    for pixel in 0..pixels {
        for output in 0..outputs {
            let mut sum = Expected::new(bias[output]);
            for channel in 0..channels {
                sum.add(input[pixel * channels + channel], weights[output * channels + channel]);
            }
            if let Some(residual) = &residual {
                sum.add(residual[pixel * outputs + output], 1.0);
            }
            expected.push(sum.clamped(clamp));
        }
    }
    for isa in Isa::available() {
        let conv = PackedConv1x1::new(isa, channels, &weights, &bias, clamp).unwrap();
        let whole =
            guarded(pixels * outputs, |output| conv.run(&input, residual.as_deref(), output).unwrap());
        assert_all(&expected, &whole, isa.name());
        let part = |from: usize, to: usize| {
            let residual = residual.as_ref().map(|residual| &residual[from * outputs..to * outputs]);
            guarded((to - from) * outputs, |output| {
                conv.run(&input[from * channels..to * channels], residual, output).unwrap();
            })
        };
        let split = split.min(pixels);
        assert_same(&whole, &[part(0, split), part(split, pixels)].concat(), isa.name());
    }
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn any_shape(
        shape in (1..180_usize, 1..150_usize, 1..70_usize),
        split in 0..70_usize,
        add: bool,
        clamp in any_clamp(),
        seed: u64,
    ) {
        check(shape, split, add, clamp, seed >> 1);
    }
}

#[test]
fn weights_larger_than_the_cache() {
    check((700, 300, 50), 13, true, Clamp::NONE, 1);
}

#[test]
fn one_pixel_of_many_channels_as_a_classifier_has() {
    check((1280, 1000, 1), 1, false, Clamp::NONE, 2);
}

#[test]
fn not_a_number_stays_not_a_number() {
    for isa in Isa::available() {
        let conv = PackedConv1x1::new(isa, 1, &[1.0; 19], &[0.0; 19], Clamp::RELU6).unwrap();
        let output = guarded(19, |output| conv.run(&[f32::NAN], None, output).unwrap());
        assert!(output.iter().all(|value| value.is_nan()), "{isa}");
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused_before_anything_is_written() {
    let isa = Isa::detect();
    let refused = PackedConv1x1::new(isa, 3, &[0.0; 7], &[0.0; 2], Clamp::NONE).map(|_| ());
    assert_eq!(refused, Err(ShapeError::Length { what: "weights", expected: 6, actual: 7 }));
    let refused = PackedConv1x1::new(isa, 3, &[], &[], Clamp::NONE).map(|_| ());
    assert_eq!(refused, Err(ShapeError::Zero));

    let conv = PackedConv1x1::new(isa, 3, &[1.0; 6], &[0.0; 2], Clamp::NONE).unwrap();
    let mut output = [7.0; 4];
    for (input, residual) in [(5, 4), (3, 4), (6, 3)] {
        let refused = conv.run(&vec![1.0; input], Some(&vec![1.0; residual]), &mut output);
        assert!(matches!(refused, Err(ShapeError::Length { .. })), "{refused:?}");
        assert_same(&output, &[7.0; 4], "untouched");
    }
}
