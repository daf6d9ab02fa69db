//! Computes expected results with naive loops in `f64`.

use cnn_kernels::{Clamp, Window};

/// An expected sum, and the values that determine its tolerance.
///
/// The tolerance allows for the rounding errors of a sum in `f32`, whose terms may be added in a different
/// order.
#[derive(Clone, Copy)]
pub(crate) struct Expected {
    sum: f64,
    /// Maximum magnitude of the products and the partial sums.
    magnitude: f64,
    term_count: u32,
}

impl Expected {
    pub(crate) fn new(start: f32) -> Self {
        Self { sum: start.into(), magnitude: f64::from(start).abs(), term_count: 1 }
    }

    pub(crate) fn add(&mut self, a: f32, b: f32) {
        let product = f64::from(a) * f64::from(b);
        self.sum += product;
        self.magnitude = self.magnitude.max(self.sum.abs()).max(product.abs());
        self.term_count += 1;
    }

    pub(crate) fn scaled(self, factor: f64) -> Self {
        Self { sum: self.sum * factor, magnitude: self.magnitude * factor, term_count: self.term_count }
    }

    pub(crate) fn clamped(self, clamp: Clamp) -> Self {
        Self { sum: self.sum.clamp(clamp.lo.into(), clamp.hi.into()), ..self }
    }

    /// Asserts that `actual` is within the tolerance.
    ///
    /// Like the rounding errors, the tolerance grows with the square root of the number of terms.
    pub(crate) fn assert_close(self, actual: f32, context: &str) {
        let tolerance = 1e-6 * f64::from(self.term_count).sqrt() * self.magnitude;
        let error = (f64::from(actual) - self.sum).abs();
        assert!(error <= tolerance, "{context}: {actual} instead of {} (tolerance {tolerance:e})", self.sum);
    }
}

/// Asserts that every element is within its tolerance.
pub(crate) fn assert_all_close(expected: &[Expected], actual: &[f32], context: &str) {
    assert_eq!(expected.len(), actual.len(), "{context}");
    for (index, (expected, actual)) in expected.iter().zip(actual).enumerate() {
        expected.assert_close(*actual, &format!("{context}, element {index}"));
    }
}

/// Computes a convolution with `group_count` groups.
///
/// The padding at the bottom and at the right follows from `window`. The weights have the shape
/// `[output channels][input channels per group][kernel rows][kernel columns]`.
pub(crate) fn convolution(
    window: Window,
    (pad_top, pad_left): (usize, usize),
    group_count: usize,
    input: &[f32],
    weights: &[f32],
    bias: &[f32],
) -> Vec<Expected> {
    let (size, kernel, output_channels) = (window.input(), window.kernel(), bias.len());
    let input_channels = input.len() / size.pixel_count();
    let (group_input_channels, group_output_channels) =
        (input_channels / group_count, output_channels / group_count);
    let mut results = Vec::new();
    for y in 0..window.output().height {
        for x in 0..window.output().width {
            for (output_channel, bias) in bias.iter().enumerate() {
                let mut expected = Expected::new(*bias);
                for (ky, kx) in (0..kernel).flat_map(|ky| (0..kernel).map(move |kx| (ky, kx))) {
                    let (iy, ix) = (y * window.stride() + ky, x * window.stride() + kx);
                    if iy < pad_top
                        || ix < pad_left
                        || iy >= size.height + pad_top
                        || ix >= size.width + pad_left
                    {
                        continue;
                    }
                    let pixel = (iy - pad_top) * size.width + ix - pad_left;
                    for channel in 0..group_input_channels {
                        let input_channel =
                            output_channel / group_output_channels * group_input_channels + channel;
                        let weight =
                            ((output_channel * group_input_channels + channel) * kernel + ky) * kernel + kx;
                        expected.add(input[pixel * input_channels + input_channel], weights[weight]);
                    }
                }
                results.push(expected);
            }
        }
    }
    results
}
