//! Compares decoded pixels with a decoder that computes the standard's definitions in floating point.

use jpeg_scaled::Scale;
use proptest::{prelude::*, test_runner::TestRunner};

use crate::{
    files::{TestPicture, decode, proptest_config, test_pictures},
    naive,
};

/// Maximum difference between a decoded value and its exact result.
///
/// Luminance and colour differences are each rounded twice, so each is off by about 1 at most. The conversion
/// to RGB multiplies a colour difference by up to 1.772 and rounds the result: 1 + 1.772 + 0.5 is less than
/// 4.
const MAX_DIFFERENCE: f64 = 4.0;

/// Encodes a picture, decodes it at `scale` and returns the maximum difference between a decoded value and
/// its exact result.
fn max_difference(test_picture: &TestPicture, scale: Scale) -> f64 {
    let file = test_picture.encode();
    let (width, height, rgb) = decode(&file, scale).unwrap();
    let (expected_width, expected_height) =
        (scale.apply(test_picture.width.into()), scale.apply(test_picture.height.into()));
    assert_eq!((width, height), (expected_width, expected_height));
    let expected = naive::decode(&test_picture.encode_in_one_scan(), scale.denominator() as usize);
    assert_eq!(rgb.len(), expected.len());
    rgb.iter()
        .zip(&expected)
        .map(|(&actual, expected)| (f64::from(actual) - expected).abs())
        .fold(0.0, f64::max)
}

#[test]
fn any_picture_at_any_scale_is_close_to_its_exact_pixels() {
    TestRunner::new(proptest_config(400))
        .run(&test_pictures(), |test_picture| {
            for scale in Scale::ALL {
                let difference = max_difference(&test_picture, scale);
                prop_assert!(difference <= MAX_DIFFERENCE, "{difference} at {scale:?}");
            }
            Ok(())
        })
        .unwrap();
}
