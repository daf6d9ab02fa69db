//! Tests of CMYK and of ICC profiles.

use jpeg_encoder::{ColorType, Encoder};
use resize::Channels;
use srgb::testing::{ConnectionSpace, TableType, expected_colour, table_profile};

use super::*;

const INKS: [u8; 4] = [90, 20, 40, 10];
const COLOUR: [u8; 3] = [200, 90, 120];

/// Returns a JPEG of 64×64 equal pixels.
fn encode_jpeg(pixel: &[u8], colour_type: ColorType, profile: Option<&[u8]>) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 100);
    if let Some(profile) = profile {
        encoder.add_icc_profile(profile).unwrap();
    }
    encoder.encode(&pixel.repeat(64 * 64), 64, 64, colour_type).unwrap();
    file
}

fn encode_png_with_profile(pixel: [u8; 3], profile: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = PngEncoder::new(&mut file);
    encoder.set_icc_profile(profile.to_vec()).unwrap();
    encoder.write_image(&pixel.repeat(64 * 64), 64, 64, ExtendedColorType::Rgb8).unwrap();
    file
}

#[track_caller]
fn assert_colour(file: &[u8], expected: [u8; 3], description: &str) {
    let crop = decode_crop(file).unwrap();
    let difference = largest_difference(&crop.bytes()[..3], &expected);
    assert!(difference <= 3, "{description}: found {:?}, expected {expected:?}", &crop.bytes()[..3]);
}

#[test]
fn cmyk_jpeg_is_converted_by_its_profile_or_without_one() {
    let profile = table_profile(Channels::Cmyk, TableType::Lut16, ConnectionSpace::Lab, 2);
    let rgb_profile = table_profile(Channels::Rgb, TableType::Lut16, ConnectionSpace::Lab, 2);
    for colour_type in [ColorType::Cmyk, ColorType::CmykAsYcck] {
        let encode = |profile| encode_jpeg(&INKS, colour_type, profile);
        assert_colour(&encode(Some(&profile)), expected_colour(&INKS), "CMYK with a profile");
        for unusable in [None, Some(&rgb_profile[..]), Some(&profile[..profile.len() / 2])] {
            assert_colour(&encode(unusable), srgb::cmyk_to_rgb(INKS), "CMYK without a usable profile");
        }
    }
}

#[test]
fn rgb_is_converted_by_its_profile() {
    for table_type in [TableType::Lut16, TableType::LutAToB] {
        let profile = table_profile(Channels::Rgb, table_type, ConnectionSpace::Lab, 4);
        let expected = expected_colour(&COLOUR);
        assert_colour(&encode_jpeg(&COLOUR, ColorType::Rgb, Some(&profile)), expected, "JPEG");
        assert_colour(&encode_png_with_profile(COLOUR, &profile), expected, "PNG");
    }
    let damaged = b"not a profile";
    assert_colour(&encode_jpeg(&COLOUR, ColorType::Rgb, Some(damaged)), COLOUR, "JPEG");
    assert_colour(&encode_png_with_profile(COLOUR, damaged), COLOUR, "PNG");
}

#[test]
fn profile_is_part_of_the_maximum_memory() {
    let max_bytes = |file: &[u8]| ImageHeader::read(file, &LIMITS).unwrap().max_crop_bytes(GEOMETRY);
    let profile = table_profile(Channels::Cmyk, TableType::Lut16, ConnectionSpace::Lab, 2);
    let without_profile = max_bytes(&encode_jpeg(&INKS, ColorType::Cmyk, None));
    let with_profile = max_bytes(&encode_jpeg(&INKS, ColorType::Cmyk, Some(&profile)));
    let colour_bytes = srgb::max_bytes(profile.len() as u64, Channels::Cmyk);
    assert!(with_profile >= without_profile + colour_bytes, "{with_profile} of {without_profile} bytes");
    // A profile in a PNG is compressed. Its length is that of the inflated profile.
    let png = encode_png_with_profile(COLOUR, &vec![0; srgb::MAX_PROFILE_BYTES]);
    assert!(max_bytes(&png) >= srgb::max_bytes(srgb::MAX_PROFILE_BYTES as u64, Channels::Rgb));
}

#[test]
fn header_of_a_long_file_or_with_a_compressed_profile_is_not_cheap() {
    assert!(ImageHeader::is_cheap(&encode_png(&draw_gradient(8, 8).into())));
    assert!(!ImageHeader::is_cheap(&encode_png_with_profile(COLOUR, b"profile")));
    assert!(!ImageHeader::is_cheap(&[0; (64 << 10) + 1]));
}
