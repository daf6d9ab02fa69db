//! Tests that the orientation in EXIF or XMP is applied, however and in whichever format it is stored.

use exif_orientation::testing::{
    BYTE, ByteOrder, LONG, SHORT, exif, jpeg_with_exif, jpeg_with_xmp, png_chunk, png_with_first_chunks,
    png_with_last_chunks, png_xmp_chunk, xmp_packets,
};
use image::{
    DynamicImage, ExtendedColorType, ImageEncoder, ImageFormat, RgbImage, codecs::webp::WebPEncoder,
    imageops, metadata::Orientation,
};
use jpeg_encoder::{ColorType, Encoder};

use crate::{
    hand_made::{png_with_chunk, tiff, tiff_with_xmp},
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
fn png_is_turned_upright_if_its_exif_comes_after_the_pixels() {
    let [right, wrong] =
        [6, 3].map(|orientation| png_chunk(b"eXIf", &exif(orientation, ByteOrder::LittleEndian, SHORT)));
    let png = encode(rotated_for(6), ImageFormat::Png);
    let with_last = png_with_last_chunks(&png, &right);
    assert_upright(&with_last, "PNG");
    assert_upright(&png_with_last_chunks(&with_last, &wrong), "two chunks after the pixels");
    let with_both = png_with_last_chunks(&png_with_first_chunks(&png, &right), &wrong);
    assert_upright(&with_both, "chunks before and after the pixels");
    let without_end = &with_last[..with_last.len() - 12];
    assert_upright(without_end, "PNG without its last chunk");
}

/// Writes XMP into a file of each format. Two of the PNGs have compressed XMP, and two have it after the pixels.
fn files_with_xmp(image: &RgbImage, packet: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let png = encode(image.clone(), ImageFormat::Png);
    let [plain, compressed] = [false, true].map(|is_compressed| png_xmp_chunk(packet, is_compressed));
    vec![
        ("JPEG", jpeg_with_xmp(&encode_jpeg(image, false), packet)),
        ("PNG", png_with_first_chunks(&png, &plain)),
        ("PNG, compressed", png_with_first_chunks(&png, &compressed)),
        ("PNG, after the pixels", png_with_last_chunks(&png, &plain)),
        ("PNG, after the pixels, compressed", png_with_last_chunks(&png, &compressed)),
        ("WebP", webp_with_chunk(&encode_webp_with_exif(image, b""), b"XMP ", packet)),
        ("little-endian TIFF", tiff_with_xmp(image, ByteOrder::LittleEndian, packet)),
        ("big-endian TIFF", tiff_with_xmp(image, ByteOrder::BigEndian, packet)),
    ]
}

/// Appends a chunk to a WebP.
fn webp_with_chunk(webp: &[u8], name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap().to_le_bytes();
    let mut file = [webp, name, &length, data, &vec![0; data.len() % 2]].concat();
    let riff_bytes = u32::try_from(file.len() - 8).unwrap().to_le_bytes();
    file[4..8].copy_from_slice(&riff_bytes);
    file
}

#[test]
fn image_whose_orientation_only_xmp_states_is_turned_upright() {
    for orientation in 1..=8 {
        let stored = rotated_for(orientation);
        for packet in xmp_packets(orientation) {
            for (format, file) in files_with_xmp(&stored, &packet) {
                assert_upright(&file, &format!("{format}, {}", packet.escape_ascii()));
            }
        }
    }
}

#[test]
fn orientation_in_exif_counts_instead_of_the_one_in_xmp() {
    let stored = rotated_for(6);
    let block = exif(6, ByteOrder::LittleEndian, SHORT);
    let [packet, _] = xmp_packets(3);
    let jpeg = encode_jpeg(&stored, false);
    assert_upright(&jpeg_with_xmp(&jpeg_with_exif(&jpeg, &block), &packet), "JPEG");
    let png =
        png_with_first_chunks(&encode(stored.clone(), ImageFormat::Png), &png_xmp_chunk(&packet, false));
    assert_upright(&png_with_last_chunks(&png, &png_chunk(b"eXIf", &block)), "PNG");
    let webp = encode_webp_with_exif(&stored, &block);
    assert_upright(&webp_with_chunk(&webp, b"XMP ", &packet), "WebP");
}
