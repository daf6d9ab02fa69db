//! Tests global average pooling.

use cnn_kernels::{Isa, global_average_pool};
use proptest::prelude::*;

use crate::{
    naive::{Expected, assert_all_close},
    support::{proptest_config, random_numbers, run_guarded},
};

proptest! {
    #![proptest_config(proptest_config(100))]

    #[test]
    fn any_shape_gives_the_expected_means(pixel_count in 1..60_usize, channels in 1..200_usize, seed: u64) {
        let input = random_numbers(seed, pixel_count * channels);
        let expected: Vec<_> = (0..channels)
            .map(|channel| {
                let mut sum = Expected::new(0.0);
                for pixel in input.chunks_exact(channels) {
                    sum.add(pixel[channel], 1.0);
                }
                sum.scaled(1.0 / f64::from(u32::try_from(pixel_count).unwrap()))
            })
            .collect();
        for isa in Isa::available() {
            let means = run_guarded(channels, |output| global_average_pool(isa, &input, output).unwrap());
            assert_all_close(&expected, &means, isa.name());
        }
    }
}

#[test]
fn input_without_whole_pixels_is_refused() {
    let mut output = [7.0; 3];
    for len in [0, 4] {
        assert!(global_average_pool(Isa::detect(), &vec![0.0; len], &mut output).is_err());
    }
    assert!(global_average_pool(Isa::detect(), &[], &mut []).is_err());
}
