//! Depthwise convolution.

use cnn_kernels::{Clamp, Depthwise, Isa, Pads, ShapeError, Size, Window};
use proptest::prelude::*;

use crate::{
    naive::{assert_all, convolution},
    rig::{any_clamp, any_pads, any_size, assert_same, cases, guarded, numbers},
};

fn check(window: Window, pads: Pads, channels: usize, split: usize, clamp: Clamp, seed: u64) {
    let taps = window.kernel() * window.kernel();
    let input = numbers(seed, window.input().pixels() * channels);
    let weights = numbers(seed + 1, channels * taps);
    let bias = numbers(seed + 2, channels);
    let expected = convolution(window, (pads.top, pads.left), channels, &input, &weights, &bias);
    let expected: Vec<_> = expected.into_iter().map(|sum| sum.clamped(clamp)).collect();
    let Size { height, width } = window.output();
    let split = split.min(height);
    for isa in Isa::available() {
        let depthwise = Depthwise::new(isa, window, &weights, &bias, clamp).unwrap();
        let rows = |from: usize, to: usize| {
            guarded((to - from) * width * channels, |output| depthwise.run(&input, from..to, output).unwrap())
        };
        let whole = rows(0, height);
        assert_all(&expected, &whole, isa.name());
        assert_same(&whole, &[rows(0, split), rows(split, height)].concat(), isa.name());
    }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn any_shape(
        size in any_size(17),
        (kernel, stride) in prop_oneof![Just((3, 1)), Just((3, 2)), Just((5, 1)), Just((5, 2))],
        pads in any_pads(6),
        channels in 1..70_usize,
        split in 0..17_usize,
        clamp in any_clamp(),
        seed: u64,
    ) {
        // Images that are smaller than the kernel even with their padding are no images to filter.
        if let Ok(window) = Window::new(size, kernel, stride, pads) {
            check(window, pads, channels, split, clamp, seed >> 1);
        }
    }
}

#[test]
fn not_a_number_stays_not_a_number() {
    let window = Window::new(Size { height: 5, width: 5 }, 3, 1, Pads::all(1)).unwrap();
    for isa in Isa::available() {
        let depthwise = Depthwise::new(isa, window, &[1.0; 9 * 19], &[0.0; 19], Clamp::RELU6).unwrap();
        let input = [f32::NAN; 25 * 19];
        let output = guarded(25 * 19, |output| depthwise.run(&input, 0..5, output).unwrap());
        assert!(output.iter().all(|value| value.is_nan()), "{isa}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let isa = Isa::detect();
    let size = Size { height: 8, width: 8 };
    let window = |kernel, stride| Window::new(size, kernel, stride, Pads::default()).unwrap();
    for (kernel, stride) in [(1, 1), (7, 1), (3, 3)] {
        let refused = Depthwise::new(isa, window(kernel, stride), &[], &[], Clamp::NONE).map(|_| ());
        assert_eq!(refused, Err(ShapeError::Unsupported { kernel, stride }));
    }
    let depthwise = Depthwise::new(isa, window(3, 1), &[0.0; 18], &[0.0; 2], Clamp::NONE).unwrap();
    let input = [1.0; 128];
    let mut output = [7.0; 24];
    #[expect(clippy::reversed_empty_ranges, reason = "it is to be refused")]
    for rows in [0..1, 0..3, 5..7, 4..2] {
        assert!(depthwise.run(&input, rows, &mut output).is_err());
    }
    assert!(depthwise.run(&input[1..], 0..2, &mut output).is_err());
    assert_same(&output, &[7.0; 24], "untouched");
    depthwise.run(&input, 4..6, &mut output).unwrap();
    assert_same(&output, &[0.0; 24], "written");
}
