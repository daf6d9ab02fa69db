//! Colours of other spaces become sRGB.

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
    pictures::{COLOURS, assert_quarters, decode, picture, recipe},
};

/// Inside sRGB, and some levels away from what it is taken for without its profile.
const IN_DISPLAY_P3: [u8; 3] = [180, 100, 60];

/// The same colour, by the matrix between the two spaces, which share their curve.
fn as_srgb([red, green, blue]: [u8; 3]) -> [u8; 3] {
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
    .map(level)
}

/// A linear level, 0 to 1, as sRGB writes it.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 255")]
fn level(linear: f64) -> u8 {
    let level = if linear <= 0.003_130_8 { linear * 12.92 } else { 1.055 * linear.powf(1.0 / 2.4) - 0.055 };
    (level * 255.0).round() as u8
}

fn jpeg(colour: [u8; 3], profile: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 100);
    encoder.add_icc_profile(profile).unwrap();
    encoder.encode(RgbImage::from_pixel(320, 300, Rgb(colour)).as_raw(), 320, 300, ColorType::Rgb).unwrap();
    file
}

fn png(colour: [u8; 3], profile: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = PngEncoder::new(&mut file);
    encoder.set_icc_profile(profile.to_vec()).unwrap();
    let pixels = RgbImage::from_pixel(320, 300, Rgb(colour));
    encoder.write_image(pixels.as_raw(), 320, 300, ExtendedColorType::Rgb8).unwrap();
    file
}

fn webp(colour: [u8; 3], profile: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = WebPEncoder::new_lossless(&mut file);
    encoder.set_icc_profile(profile.to_vec()).unwrap();
    let pixels = RgbImage::from_pixel(320, 300, Rgb(colour));
    encoder.write_image(pixels.as_raw(), 320, 300, ExtendedColorType::Rgb8).unwrap();
    file
}

/// The colour in the middle of what is made of `file`.
fn middle(file: &[u8]) -> [u8; 3] {
    let picture = decode(&process(file, &recipe()).unwrap());
    picture.get_pixel(picture.width() / 2, picture.height() / 2).0
}

/// Equal but for the rounding of two JPEGs.
#[track_caller]
fn assert_same(found: [u8; 3], expected: [u8; 3], what: &str) {
    let same = found.iter().zip(expected).all(|(&a, b)| a.abs_diff(b) <= 2);
    assert!(same, "{what}: found {found:?}, expected {expected:?}");
}

#[test]
fn display_p3_is_converted() {
    let profile = ColorProfile::new_display_p3().encode().unwrap();
    let expected = as_srgb(IN_DISPLAY_P3);
    assert!(expected[0].abs_diff(IN_DISPLAY_P3[0]) >= 6, "{expected:?}: too near to tell");
    assert_same(middle(&jpeg(IN_DISPLAY_P3, &profile)), expected, "JPEG");
    assert_same(middle(&png(IN_DISPLAY_P3, &profile)), expected, "PNG");
    assert_same(middle(&webp(IN_DISPLAY_P3, &profile)), expected, "WebP");
}

#[test]
fn srgb_stays_as_it_is() {
    let profile = ColorProfile::new_srgb().encode().unwrap();
    assert_same(middle(&jpeg(IN_DISPLAY_P3, &profile)), IN_DISPLAY_P3, "JPEG");
}

#[test]
fn grey_of_another_gamma_is_converted() {
    let profile = ColorProfile::new_gray_with_gamma(1.0).encode().unwrap();
    let grey = GrayImage::from_pixel(320, 300, Luma([55]));
    let expected = [level(55.0 / 255.0); 3];
    let mut file = Vec::new();
    let mut encoder = PngEncoder::new(&mut file);
    encoder.set_icc_profile(profile.clone()).unwrap();
    encoder.write_image(grey.as_raw(), 320, 300, ExtendedColorType::L8).unwrap();
    assert_same(middle(&file), expected, "PNG");

    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 100);
    encoder.add_icc_profile(&profile).unwrap();
    encoder.encode(grey.as_raw(), 320, 300, ColorType::Luma).unwrap();
    assert_same(middle(&file), expected, "JPEG");
}

#[test]
fn a_profile_that_cannot_be_used_is_ignored() {
    let display_p3 = ColorProfile::new_display_p3().encode().unwrap();
    let grey = ColorProfile::new_gray_with_gamma(1.0).encode().unwrap();
    let mut damaged = display_p3.clone();
    for byte in &mut damaged[128..] {
        *byte ^= 0xA5;
    }
    for profile in [&b"rubbish"[..], &display_p3[..200], &damaged, &grey, &[0; 3000]] {
        assert_same(middle(&jpeg(IN_DISPLAY_P3, profile)), IN_DISPLAY_P3, "JPEG");
    }
}

#[test]
fn a_profile_that_inflates_without_end_is_ignored() {
    let mut chunk = ZlibEncoder::new(b"bomb\0\0".to_vec(), Compression::best());
    for _ in 0..64 {
        chunk.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let file = png_with_chunk(&picture(), b"iCCP", &chunk.finish().unwrap());
    assert_quarters(&file, COLOURS, "64 MiB of profile");
}
