//! Tests the depthwise convolution.

use cnn_kernels::{Clamp, Depthwise, Isa, Pads, ShapeError, Size, Window};
use proptest::prelude::*;

use crate::{
    naive::{assert_all_close, convolution},
    support::{
        any_clamp, any_pads, any_size, assert_same_bits, proptest_config, random_numbers, run_guarded,
    },
};

/// Checks a convolution on every instruction set.
///
/// The function asserts that the output is correct, that nothing outside the output is written, and that the
/// output has the same bits if the rows before and after `split` are computed separately.
fn check_depthwise(window: Window, pads: Pads, channels: usize, split: usize, clamp: Clamp, seed: u64) {
    let kernel_area = window.kernel() * window.kernel();
    let input = random_numbers(seed, window.input().pixel_count() * channels);
    let weights = random_numbers(seed + 1, channels * kernel_area);
    let bias = random_numbers(seed + 2, channels);
    let expected = convolution(window, (pads.top, pads.left), channels, &input, &weights, &bias);
    let expected: Vec<_> = expected.into_iter().map(|sum| sum.clamped(clamp)).collect();
    let Size { height, width } = window.output();
    let split = split.min(height);
    for isa in Isa::available() {
        let depthwise = Depthwise::new(isa, window, &weights, &bias, clamp).unwrap();
        let compute_rows = |from: usize, to: usize| {
            run_guarded((to - from) * width * channels, |output| {
                depthwise.run(&input, from..to, output).unwrap()
            })
        };
        let whole = compute_rows(0, height);
        assert_all_close(&expected, &whole, isa.name());
        assert_same_bits(&whole, &[compute_rows(0, split), compute_rows(split, height)].concat(), isa.name());
    }
}

proptest! {
    #![proptest_config(proptest_config(200))]

    #[test]
    fn any_shape_gives_the_expected_sums(
        size in any_size(17),
        (kernel, stride) in prop_oneof![Just((3, 1)), Just((3, 2)), Just((5, 1)), Just((5, 2))],
        pads in any_pads(6),
        channels in 1..70_usize,
        split in 0..17_usize,
        clamp in any_clamp(),
        seed: u64,
    ) {
        // `Window::new` refuses an image that is smaller than the kernel, padding included.
        if let Ok(window) = Window::new(size, kernel, stride, pads) {
            // `check_depthwise` adds small numbers to the seed, which must not overflow.
            check_depthwise(window, pads, channels, split, clamp, seed >> 1);
        }
    }
}

#[test]
fn nan_in_the_input_stays_nan_in_the_output() {
    let window = Window::new(Size { height: 5, width: 5 }, 3, 1, Pads::all(1)).unwrap();
    for isa in Isa::available() {
        let depthwise = Depthwise::new(isa, window, &[1.0; 9 * 19], &[0.0; 19], Clamp::RELU6).unwrap();
        let input = [f32::NAN; 25 * 19];
        let output = run_guarded(25 * 19, |output| depthwise.run(&input, 0..5, output).unwrap());
        assert!(output.iter().all(|value| value.is_nan()), "{isa}");
    }
}

#[test]
fn unsupported_kernels_and_wrong_lengths_are_refused() {
    let isa = Isa::detect();
    let size = Size { height: 8, width: 8 };
    let window = |kernel, stride| Window::new(size, kernel, stride, Pads::default()).unwrap();
    for (kernel, stride) in [(1, 1), (7, 1), (3, 3)] {
        let result = Depthwise::new(isa, window(kernel, stride), &[], &[], Clamp::NONE).map(|_| ());
        assert_eq!(result, Err(ShapeError::UnsupportedDepthwise { kernel, stride }));
    }
    let depthwise = Depthwise::new(isa, window(3, 1), &[0.0; 18], &[0.0; 2], Clamp::NONE).unwrap();
    let input = [1.0; 128];
    let mut output = [7.0; 24];
    #[expect(clippy::reversed_empty_ranges, reason = "the test passes an invalid range")]
    for rows in [0..1, 0..3, 5..7, 4..2] {
        assert!(depthwise.run(&input, rows, &mut output).is_err());
    }
    assert!(depthwise.run(&input[1..], 0..2, &mut output).is_err());
    assert_same_bits(&output, &[7.0; 24], "output after errors");
    depthwise.run(&input, 4..6, &mut output).unwrap();
    assert_same_bits(&output, &[0.0; 24], "output of valid rows");
}
