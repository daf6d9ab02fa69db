//! Tests of the conversion of other colour spaces to sRGB.

use flate2::{Compression, write::ZlibEncoder};
use image::{
    ExtendedColorType, GrayImage, ImageEncoder, Luma, Rgb, RgbImage,
    codecs::{png::PngEncoder, webp::WebPEncoder},
};
use jpeg_encoder::{ColorType, Encoder};
use moxcms::ColorProfile;
use preprocess::image::process;
use resize::Channels;
use srgb::testing::{ConnectionSpace, TableType, expected_colour, table, table_profile, write_profile};
use std::io::Write;

use crate::{
    hand_made::png_with_chunk,
    test_image::{COLOURS, assert_processed, assert_quarters, decode, recipe, test_image},
    tiff_file::{EXTRA_SAMPLES, ICC_PROFILE, Tiff},
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

/// Colours of CMYK pixels in the quarters of an image. The profile of the tests gives colours inside sRGB.
const INKS: [[u8; 4]; 4] = [[90, 20, 40, 0], [10, 120, 100, 30], [60, 0, 120, 90], [0, 0, 0, 200]];

/// Returns the colours of [`INKS`] according to the profile of the tests.
fn colours_of_inks() -> [[u8; 3]; 4] {
    INKS.map(|inks| expected_colour(&inks))
}

/// Returns a CMYK profile that a JPEG stores in two parts.
fn long_cmyk_profile() -> Vec<u8> {
    let table = table(Channels::Cmyk, TableType::Lut16, ConnectionSpace::Lab);
    let measurements = vec![b'1'; 70_000];
    let tags = [(b"targ", measurements), (b"A2B0", table)];
    write_profile(Channels::Cmyk, ConnectionSpace::Lab, 2, &tags)
}

/// Returns the pixels of an image of 400×300 pixels with a different value in each quarter.
fn quarters<const N: usize>(values: [[u8; N]; 4]) -> Vec<u8> {
    let pixel = |index: usize| values[usize::from(index % 400 >= 200) + 2 * usize::from(index / 400 >= 150)];
    (0..400 * 300).flat_map(pixel).collect()
}

fn cmyk_jpeg(colour_type: ColorType, is_progressive: bool, profile: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 97);
    encoder.set_progressive(is_progressive);
    encoder.add_icc_profile(profile).unwrap();
    encoder.encode(&quarters(INKS), 400, 300, colour_type).unwrap();
    file
}

/// Writes a TIFF in one strip. `samples` are little-endian.
fn tiff_with_profile(photometric: u16, bits: u16, samples: Vec<u8>, profile: &[u8]) -> Vec<u8> {
    let samples_per_pixel = samples.len() * 8 / usize::from(bits) / (400 * 300);
    let mut profile = profile.to_vec();
    profile.resize(profile.len().next_multiple_of(2), 0);
    let profile: Vec<u16> = profile.as_chunks().0.iter().map(|&pair| u16::from_le_bytes(pair)).collect();
    Tiff {
        is_big_endian: false,
        size: (400, 300),
        photometric,
        bits,
        samples_per_pixel: u16::try_from(samples_per_pixel).unwrap(),
        entries: vec![(ICC_PROFILE, profile)],
        chunks: vec![samples],
        tile_size: None,
    }
    .write()
}

#[test]
fn cmyk_of_another_program_is_converted_by_its_profile() {
    let expected = [[197, 37, 50], [72, 166, 55], [70, 72, 144], [210, 211, 43]];
    assert_processed(include_bytes!("data/jpeg_cmyk_profile.jpg"), (320, 240), expected, "CMYK");
}

#[test]
fn cmyk_jpeg_is_converted_by_its_profile() {
    for colour_type in [ColorType::Cmyk, ColorType::CmykAsYcck] {
        for is_progressive in [false, true] {
            let file = cmyk_jpeg(colour_type, is_progressive, &long_cmyk_profile());
            let description = format!("{colour_type:?}, progressive: {is_progressive}");
            assert_quarters(&file, colours_of_inks(), &description);
        }
    }
}

#[test]
fn cmyk_tiff_is_converted_by_its_profile() {
    const CMYK: u16 = 5;
    let samples = quarters(INKS);
    let wide_samples: Vec<u8> = samples.iter().flat_map(|&sample| [sample, sample]).collect();
    let profile = long_cmyk_profile();
    let file = tiff_with_profile(CMYK, 8, samples, &profile);
    assert_quarters(&file, colours_of_inks(), "8 bits");
    let file = tiff_with_profile(CMYK, 16, wide_samples, &profile);
    assert_quarters(&file, colours_of_inks(), "16 bits");
}

#[test]
fn transparent_cmyk_is_white() {
    const CMYK: u16 = 5;
    let samples = quarters(INKS.map(|[cyan, magenta, yellow, black]| [cyan, magenta, yellow, black, 0]));
    let mut file = Tiff {
        is_big_endian: false,
        size: (400, 300),
        photometric: CMYK,
        bits: 8,
        samples_per_pixel: 5,
        entries: vec![(EXTRA_SAMPLES, vec![2])],
        chunks: vec![samples],
        tile_size: None,
    };
    assert_quarters(&file.write(), [[255; 3]; 4], "transparent");
    file.chunks =
        vec![quarters(INKS.map(|[cyan, magenta, yellow, black]| [cyan, magenta, yellow, black, 255]))];
    let without_profile = INKS.map(srgb::cmyk_to_rgb);
    assert_quarters(&file.write(), without_profile, "opaque");
}

#[test]
fn cmyk_with_an_unusable_profile_is_converted_without_it() {
    let profile = table_profile(Channels::Cmyk, TableType::Lut16, ConnectionSpace::Lab, 2);
    let rgb_profile = table_profile(Channels::Rgb, TableType::Lut16, ConnectionSpace::Lab, 2);
    let without_profile = INKS.map(srgb::cmyk_to_rgb);
    for (unusable, description) in [
        (&b"not a profile"[..], "no profile"),
        (&profile[..profile.len() - 1], "truncated"),
        (&rgb_profile, "RGB"),
        (&[&profile[..], &vec![0; srgb::MAX_PROFILE_BYTES]].concat(), "too long"),
    ] {
        let file = cmyk_jpeg(ColorType::Cmyk, false, unusable);
        assert_quarters(&file, without_profile, description);
    }
}

#[test]
fn rgb_is_converted_by_a_profile_with_a_table() {
    const RGB: u16 = 2;
    let colour = [200, 90, 120];
    let expected = expected_colour(&colour);
    assert!(expected[0].abs_diff(colour[0]) >= 20, "{expected:?} is too close to the original colour");
    for table_type in [TableType::Lut8, TableType::Lut16, TableType::LutAToB] {
        let profile = table_profile(Channels::Rgb, table_type, ConnectionSpace::Lab, 4);
        let tiff = tiff_with_profile(RGB, 8, quarters([colour; 4]), &profile);
        assert_same(centre_colour(&encode_jpeg(colour, &profile)), expected, "JPEG");
        assert_same(centre_colour(&encode_png(colour, &profile)), expected, "PNG");
        assert_same(centre_colour(&encode_webp(colour, &profile)), expected, "WebP");
        assert_same(centre_colour(&tiff), expected, "TIFF");
    }
}
