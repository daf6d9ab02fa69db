//! Tests that the EXIF orientation is applied, however and in whichever format it is stored.

use exif_orientation::testing::{BYTE, ByteOrder, LONG, SHORT, exif, jpeg_with_exif};
use image::{
    DynamicImage, ExtendedColorType, ImageEncoder, RgbImage, codecs::webp::WebPEncoder, imageops,
    metadata::Orientation,
};
use jpeg_encoder::{ColorType, Encoder};

use crate::{
    hand_made::{png_chunk, png_with_chunk, tiff},
    test_image::{COLOURS, COLOURS_OF_FILES, assert_processed, encode, test_image},
};

/// Asserts that a processed file is the small test image, upright.
#[track_caller]
fn assert_upright(file: &[u8], description: &str) {
    assert_processed(file, (40, 30), COLOURS, description);
}

/// Returns a small version of the test image, rotated or flipped so that applying `orientation` makes it
/// upright.
fn rotated_for(orientation: u8) -> RgbImage {
    let inverse = match orientation {
        6 => 8,
        8 => 6,
        self_inverse => self_inverse,
    };
    let small = imageops::resize(&test_image(), 40, 30, imageops::FilterType::Nearest);
    let mut image = DynamicImage::from(small);
    image.apply_orientation(Orientation::from_exif(inverse).unwrap());
    image.into_rgb8()
}

fn encode_jpeg(image: &RgbImage, is_progressive: bool) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 97);
    encoder.set_progressive(is_progressive);
    let side = |length: u32| u16::try_from(length).unwrap();
    encoder.encode(image.as_raw(), side(image.width()), side(image.height()), ColorType::Rgb).unwrap();
    file
}

fn encode_webp_with_exif(image: &RgbImage, block: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = WebPEncoder::new_lossless(&mut file);
    encoder.set_exif_metadata(block.to_vec()).unwrap();
    encoder.write_image(image.as_raw(), image.width(), image.height(), ExtendedColorType::Rgb8).unwrap();
    file
}

#[test]
fn image_is_turned_upright_however_its_orientation_is_stored() {
    for orientation in 1..=8 {
        let stored = rotated_for(orientation);
        let [baseline, progressive] = [false, true].map(|progressive| encode_jpeg(&stored, progressive));
        for (byte_order, value_type) in [ByteOrder::LittleEndian, ByteOrder::BigEndian]
            .into_iter()
            .flat_map(|order| [BYTE, SHORT, LONG].map(|value_type| (order, value_type)))
        {
            let block = exif(orientation, byte_order, value_type);
            for prefix in [&b""[..], b"Exif\0\0"] {
                let block = [prefix, &block].concat();
                let description = format!("orientation {orientation}, {block:x?}");
                assert_upright(&jpeg_with_exif(&baseline, &block), &format!("JPEG, {description}"));
                assert_upright(
                    &jpeg_with_exif(&progressive, &block),
                    &format!("progressive JPEG, {description}"),
                );
                assert_upright(&png_with_chunk(&stored, b"eXIf", &block), &format!("PNG, {description}"));
                assert_upright(&encode_webp_with_exif(&stored, &block), &format!("WebP, {description}"));
            }
            let description = format!("TIFF, orientation {orientation}, {byte_order:?}, type {value_type}");
            assert_upright(&tiff(&stored, orientation, byte_order, value_type), &description);
        }
    }
}

#[test]
fn files_of_other_programs_are_turned_upright() {
    let files: [(&str, &[u8]); 2] = [
        ("libvips writes the prefix into a lossy WebP", include_bytes!("data/webp_exif_prefix.webp")),
        ("JPEG with an orientation of type LONG", include_bytes!("data/jpeg_orientation_long.jpg")),
    ];
    for (description, file) in files {
        assert_processed(file, (320, 240), COLOURS_OF_FILES, description);
    }
}

#[test]
fn invalid_orientation_is_ignored() {
    let upright = rotated_for(1);
    let jpeg = encode_jpeg(&upright, false);
    for orientation in [0, 9, 255] {
        for value_type in [BYTE, SHORT, LONG] {
            let description = format!("{orientation} of type {value_type}");
            let block = exif(orientation, ByteOrder::BigEndian, value_type);
            assert_upright(&jpeg_with_exif(&jpeg, &block), &format!("JPEG, {description}"));
            assert_upright(&png_with_chunk(&upright, b"eXIf", &block), &format!("PNG, {description}"));
            assert_upright(&encode_webp_with_exif(&upright, &block), &format!("WebP, {description}"));
            let tiff = tiff(&upright, orientation, ByteOrder::BigEndian, value_type);
            assert_upright(&tiff, &format!("TIFF, {description}"));
        }
    }
}

#[test]
fn first_exif_segment_of_a_jpeg_counts() {
    let [first, second] = [6, 3].map(|orientation| exif(orientation, ByteOrder::LittleEndian, SHORT));
    let jpeg = encode_jpeg(&rotated_for(6), false);
    assert_upright(&jpeg_with_exif(&jpeg_with_exif(&jpeg, &second), &first), "two EXIF segments");
}

#[test]
fn exif_after_the_pixels_of_a_png_is_ignored() {
    /// Length of the chunk IEND.
    const END_BYTES: usize = 12;
    let mut png = encode(rotated_for(1), image::ImageFormat::Png);
    let end = png.len() - END_BYTES;
    png.splice(end..end, png_chunk(b"eXIf", &exif(6, ByteOrder::LittleEndian, SHORT)));
    assert_upright(&png, "PNG");
}
