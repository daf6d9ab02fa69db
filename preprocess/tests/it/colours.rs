//! Tests of the conversion of other colour spaces to sRGB.

use flate2::{Compression, write::ZlibEncoder};
use image::{
    ExtendedColorType, GrayImage, ImageEncoder, Luma, Rgb, RgbImage,
    codecs::{png::PngEncoder, webp::WebPEncoder},
};
use jpeg_encoder::{ColorType, Encoder};
use moxcms::ColorProfile;
use preprocess::image::process;
use std::io::Write;

use crate::{
    hand_made::png_with_chunk,
    test_image::{COLOURS, assert_quarters, decode, recipe, test_image},
};

/// A Display P3 colour that sRGB can represent. Its levels in sRGB are different.
const DISPLAY_P3_COLOUR: [u8; 3] = [180, 100, 60];

/// Converts a Display P3 colour to sRGB.
///
/// Both colour spaces have the same transfer curve. Linear light is converted with a matrix.
fn display_p3_to_srgb([red, green, blue]: [u8; 3]) -> [u8; 3] {
    let linear = |level: u8| {
        let level = f64::from(level) / 255.0;
        if level <= 0.04045 { level / 12.92 } else { ((level + 0.055) / 1.055).powf(2.4) }
    };
    let [red, green, blue] = [red, green, blue].map(linear);
    [
        1.224_940 * red - 0.224_940 * green,
        -0.042_057 * red + 1.042_057 * green,
        -0.019_638 * red - 0.078_636 * green + 1.098_274 * blue,
    ]
    .map(linear_to_srgb)
}

/// Converts linear light, from 0 to 1, to an sRGB level, from 0 to 255.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the level is from 0 to 255")]
fn linear_to_srgb(linear: f64) -> u8 {
    let level = if linear <= 0.003_130_8 { linear * 12.92 } else { 1.055 * linear.powf(1.0 / 2.4) - 0.055 };
    (level * 255.0).round() as u8
}

fn encode_jpeg(colour: [u8; 3], profile: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 100);
    encoder.add_icc_profile(profile).unwrap();
    encoder.encode(RgbImage::from_pixel(320, 300, Rgb(colour)).as_raw(), 320, 300, ColorType::Rgb).unwrap();
    file
}

fn encode_png(colour: [u8; 3], profile: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = PngEncoder::new(&mut file);
    encoder.set_icc_profile(profile.to_vec()).unwrap();
    let pixels = RgbImage::from_pixel(320, 300, Rgb(colour));
    encoder.write_image(pixels.as_raw(), 320, 300, ExtendedColorType::Rgb8).unwrap();
    file
}

fn encode_webp(colour: [u8; 3], profile: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = WebPEncoder::new_lossless(&mut file);
    encoder.set_icc_profile(profile.to_vec()).unwrap();
    let pixels = RgbImage::from_pixel(320, 300, Rgb(colour));
    encoder.write_image(pixels.as_raw(), 320, 300, ExtendedColorType::Rgb8).unwrap();
    file
}

/// Returns the colour in the centre of the processed image.
fn centre_colour(file: &[u8]) -> [u8; 3] {
    let image = decode(&process(file, &recipe()).unwrap());
    image.get_pixel(image.width() / 2, image.height() / 2).0
}

/// Asserts that two colours differ by at most two levels per channel.
///
/// Colours are rounded twice: when the test encodes the file, and when the processed image is encoded.
#[track_caller]
fn assert_same(found: [u8; 3], expected: [u8; 3], description: &str) {
    let same = found.iter().zip(expected).all(|(&a, b)| a.abs_diff(b) <= 2);
    assert!(same, "{description}: found {found:?}, expected {expected:?}");
}

#[test]
fn display_p3_is_converted_to_srgb() {
    let profile = ColorProfile::new_display_p3().encode().unwrap();
    let expected = display_p3_to_srgb(DISPLAY_P3_COLOUR);
    assert!(
        expected[0].abs_diff(DISPLAY_P3_COLOUR[0]) >= 6,
        "{expected:?} is too close to the original colour to test the conversion"
    );
    assert_same(centre_colour(&encode_jpeg(DISPLAY_P3_COLOUR, &profile)), expected, "JPEG");
    assert_same(centre_colour(&encode_png(DISPLAY_P3_COLOUR, &profile)), expected, "PNG");
    assert_same(centre_colour(&encode_webp(DISPLAY_P3_COLOUR, &profile)), expected, "WebP");
}

#[test]
fn srgb_profile_changes_no_colour() {
    let profile = ColorProfile::new_srgb().encode().unwrap();
    assert_same(centre_colour(&encode_jpeg(DISPLAY_P3_COLOUR, &profile)), DISPLAY_P3_COLOUR, "JPEG");
}

#[test]
fn grey_with_a_linear_curve_is_converted_to_srgb() {
    let profile = ColorProfile::new_gray_with_gamma(1.0).encode().unwrap();
    let grey = GrayImage::from_pixel(320, 300, Luma([55]));
    let expected = [linear_to_srgb(55.0 / 255.0); 3];
    let mut file = Vec::new();
    let mut encoder = PngEncoder::new(&mut file);
    encoder.set_icc_profile(profile.clone()).unwrap();
    encoder.write_image(grey.as_raw(), 320, 300, ExtendedColorType::L8).unwrap();
    assert_same(centre_colour(&file), expected, "PNG");

    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 100);
    encoder.add_icc_profile(&profile).unwrap();
    encoder.encode(grey.as_raw(), 320, 300, ColorType::Luma).unwrap();
    assert_same(centre_colour(&file), expected, "JPEG");
}

#[test]
fn unusable_profile_is_ignored() {
    let display_p3 = ColorProfile::new_display_p3().encode().unwrap();
    let grey = ColorProfile::new_gray_with_gamma(1.0).encode().unwrap();
    let mut damaged = display_p3.clone();
    for byte in &mut damaged[128..] {
        *byte ^= 0xA5;
    }
    for profile in [&b"not a profile"[..], &display_p3[..200], &damaged, &grey, &[0; 3000]] {
        assert_same(centre_colour(&encode_jpeg(DISPLAY_P3_COLOUR, profile)), DISPLAY_P3_COLOUR, "JPEG");
    }
}

#[test]
fn profile_that_inflates_to_64_mebibytes_is_ignored() {
    let mut chunk = ZlibEncoder::new(b"bomb\0\0".to_vec(), Compression::best());
    for _ in 0..64 {
        chunk.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let file = png_with_chunk(&test_image(), b"iCCP", &chunk.finish().unwrap());
    assert_quarters(&file, COLOURS, "PNG with a profile of 64 MiB");
}
