//! Computes the expected results in `f64` from the definitions.

use cnn_kernels::{Clamp, Window};

/// An expected sum, with the data for the tolerance of an `f32` result that was summed in a different order.
#[derive(Clone, Copy)]
pub(crate) struct Expected {
    sum: f64,
    /// Maximum magnitude of the products and the partial sums.
    magnitude: f64,
    terms: u32,
}

impl Expected {
    pub(crate) fn new(start: f32) -> Self {
        Self { sum: start.into(), magnitude: f64::from(start).abs(), terms: 1 }
    }

    pub(crate) fn add(&mut self, a: f32, b: f32) {
        let product = f64::from(a) * f64::from(b);
        self.sum += product;
        self.magnitude = self.magnitude.max(self.sum.abs()).max(product.abs());
        self.terms += 1;
    }

    pub(crate) fn scaled(self, factor: f64) -> Self {
        Self { sum: self.sum * factor, magnitude: self.magnitude * factor, terms: self.terms }
    }

    pub(crate) fn clamped(self, clamp: Clamp) -> Self {
        Self { sum: self.sum.clamp(clamp.lo.into(), clamp.hi.into()), ..self }
    }

    /// Asserts that `actual` is within the tolerance, which grows with the square root of the number of terms
    /// as rounding errors do.
    pub(crate) fn assert_close(self, actual: f32, what: &str) {
        let tolerance = 1e-6 * f64::from(self.terms).sqrt() * self.magnitude;
        let error = (f64::from(actual) - self.sum).abs();
        assert!(error <= tolerance, "{what}: {actual} instead of {} (tolerance {tolerance:e})", self.sum);
    }
}

/// Asserts that every element is within its tolerance.
pub(crate) fn assert_all_close(expected: &[Expected], actual: &[f32], what: &str) {
    assert_eq!(expected.len(), actual.len(), "{what}");
    for (index, (expected, actual)) in expected.iter().zip(actual).enumerate() {
        expected.assert_close(*actual, &format!("{what}, element {index}"));
    }
}

/// Computes a convolution in `groups` groups with `weights` of shape
/// `[outputs][channels / groups][rows][columns]`.
pub(crate) fn convolution(
    window: Window,
    pads: (usize, usize),
    groups: usize,
    input: &[f32],
    weights: &[f32],
    bias: &[f32],
) -> Vec<Expected> {
    let (top, left) = pads;
    let (size, kernel, outputs) = (window.input(), window.kernel(), bias.len());
    let channels = input.len() / size.pixels();
    let (group_channels, group_outputs) = (channels / groups, outputs / groups);
    let mut results = Vec::new();
    for y in 0..window.output().height {
        for x in 0..window.output().width {
            for (output, bias) in bias.iter().enumerate() {
                let mut expected = Expected::new(*bias);
                for (ky, kx) in (0..kernel).flat_map(|ky| (0..kernel).map(move |kx| (ky, kx))) {
                    let (iy, ix) = (y * window.stride() + ky, x * window.stride() + kx);
                    if iy < top || ix < left || iy >= size.height + top || ix >= size.width + left {
                        continue;
                    }
                    let pixel = (iy - top) * size.width + ix - left;
                    for channel in 0..group_channels {
                        let from = output / group_outputs * group_channels + channel;
                        let weight = ((output * group_channels + channel) * kernel + ky) * kernel + kx;
                        expected.add(input[pixel * channels + from], weights[weight]);
                    }
                }
                results.push(expected);
            }
        }
    }
    results
}
