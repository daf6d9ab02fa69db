//! Tests the convolution of a network's first layer.

use cnn_kernels::{Clamp, FirstConv, Isa, Pads, ShapeError, Size, Window};
use proptest::prelude::*;

use crate::{
    naive::{assert_all_close, convolution},
    support::{
        any_clamp, any_pads, any_size, assert_same_bits, proptest_config, random_numbers, run_guarded,
    },
};

proptest! {
    #![proptest_config(proptest_config(150))]

    #[test]
    fn any_shape_gives_the_expected_sums(
        size in any_size(15),
        kernel in 1..6_usize,
        stride in 1..4_usize,
        pads in any_pads(6),
        input_channels in 1..5_usize,
        output_channels in 1..70_usize,
        split in 0..15_usize,
        clamp in any_clamp(),
        seed in 0..u64::MAX / 2,
    ) {
        if let Ok(window) = Window::new(size, kernel, stride, pads) {
            let input = random_numbers(seed, size.pixel_count() * input_channels);
            let weights = random_numbers(seed + 1, output_channels * input_channels * kernel * kernel);
            let bias = random_numbers(seed + 2, output_channels);
            let expected = convolution(window, (pads.top, pads.left), 1, &input, &weights, &bias);
            let expected: Vec<_> = expected.into_iter().map(|sum| sum.clamped(clamp)).collect();
            let Size { height, width } = window.output();
            let split = split.min(height);
            for isa in Isa::available() {
                let conv = FirstConv::new(isa, window, input_channels, &weights, &bias, clamp).unwrap();
                let compute_rows = |from: usize, to: usize| {
                    let len = (to - from) * width * output_channels;
                    run_guarded(len, |output| conv.run(&input, from..to, output).unwrap())
                };
                let whole = compute_rows(0, height);
                assert_all_close(&expected, &whole, isa.name());
                let parts = [compute_rows(0, split), compute_rows(split, height)];
                assert_same_bits(&whole, &parts.concat(), isa.name());
            }
        }
    }
}

#[test]
fn wrong_lengths_and_rows_are_refused() {
    let window = Window::new(Size { height: 4, width: 4 }, 3, 1, Pads::default()).unwrap();
    let new_conv = |weights_len: usize| {
        FirstConv::new(Isa::detect(), window, 3, &vec![0.0; weights_len], &[0.0; 2], Clamp::NONE)
    };
    let result = new_conv(53).map(|_| ());
    assert_eq!(result, Err(ShapeError::Length { slice_name: "weights", expected: 54, actual: 53 }));
    let conv = new_conv(54).unwrap();
    let mut output = [7.0; 8];
    assert!(conv.run(&[0.0; 47], 0..2, &mut output).is_err());
    assert!(conv.run(&[0.0; 48], 1..3, &mut output).is_err());
    assert!(conv.run(&[0.0; 48], 1..2, &mut output).is_err());
    assert_same_bits(&output, &[7.0; 8], "output after errors");
}
