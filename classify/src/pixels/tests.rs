//! Tests of the crop's geometry, and of image formats, EXIF orientations and limits.

use std::io::Cursor;

use exif_orientation::testing::{
    BYTE, ByteOrder, LONG, SHORT, exif, jpeg_with_exif, jpeg_with_xmp, png_chunk, png_with_first_chunks,
    png_with_last_chunks, png_xmp_chunk, xmp_packets,
};
use image::{ExtendedColorType, ImageEncoder, Rgb, codecs::jpeg::JpegEncoder, codecs::png::PngEncoder};
use jpeg_scaled::{Segment, Segments};

use super::*;

mod colours;
mod formats;
mod jpeg_scans;
mod pillow;

const GEOMETRY: Geometry = square_geometry(256, 224);
/// Default pixel limit of the service.
const PIXEL_LIMIT: u64 = 64_000_000;
/// Default limits of the service.
const LIMITS: ImageLimits = ImageLimits { max_pixels: PIXEL_LIMIT, max_scans: 32 };

const fn square_geometry(resize: u32, side: u32) -> Geometry {
    let crop = CropShape { height: side, width: side, channels: ChannelOrder::Rgb };
    Geometry { resize: Resize::ShorterSide(resize), filter: Filter::Bilinear, crop }
}

fn encode_png(picture: &DynamicImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    picture.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
    bytes
}

fn decode_crop(bytes: &[u8]) -> Result<Crop, ImageError> {
    crop(bytes, &ImageHeader::read(bytes, &LIMITS)?, GEOMETRY)
}

/// Draws a smooth image with a different colour in every corner.
fn draw_gradient(width: u32, height: u32) -> RgbImage {
    let level = |position: u32, length: u32| u8::try_from(position * 255 / length).unwrap();
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([level(x, width), level(y, height), level(x + y, width + height)])
    })
}

fn largest_difference(a: &[u8], b: &[u8]) -> u8 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}

#[test]
fn image_of_the_resized_size_is_cropped_without_change() {
    let picture = draw_gradient(300, 256);
    let expected = image::imageops::crop_imm(&picture, 38, 16, 224, 224).to_image();
    assert_eq!(decode_crop(&encode_png(&picture.into())).unwrap().bytes(), expected.as_raw());
}

#[test]
fn image_of_extreme_proportions_becomes_a_whole_crop() {
    for (width, height) in [(1, 1), (1, 60_000), (60_000, 1), (3, 5), (224, 224), (5000, 17)] {
        let crop = decode_crop(&encode_png(&draw_gradient(width, height).into())).unwrap();
        assert_eq!(crop.bytes().len(), 224 * 224 * 3, "{width} x {height}");
    }
}

/// Resizes a row of `length` values to `resized_length` values. Returns the value at `index` of the result.
///
/// The computation is the reference's definition of the triangle filter, in floating point.
fn apply_triangle_filter(row: impl Fn(u32) -> f64, length: u32, resized_length: u32, index: u32) -> f64 {
    let scale = f64::from(length) / f64::from(resized_length);
    let radius = scale.max(1.0);
    let centre = (f64::from(index) + 0.5) * scale;
    let weight = |x: u32| (1.0 - ((f64::from(x) + 0.5 - centre) / radius).abs()).max(0.0);
    let sum: f64 = (0..length).map(weight).sum();
    (0..length).map(|x| weight(x) * row(x)).sum::<f64>() / sum
}

#[test]
fn resize_equals_the_reference_filter() {
    let (width, height) = (337, 301);
    // Neighbouring pixels differ so much that a shift of half a pixel would exceed the tolerance.
    let picture = RgbImage::from_fn(width, height, |x, y| Rgb([((x * 37 + y * 91) % 251) as u8; 3]));
    let crop = decode_crop(&encode_png(&picture.clone().into())).unwrap();
    // The image is resized to 286 x 256, so the crop begins at (31, 16) of the resized image.
    let columns: Vec<Vec<f64>> = (0..224)
        .map(|crop_x| {
            let level = |x, y| f64::from(picture.get_pixel(x, y).0[0]);
            (0..height)
                .map(|y| apply_triangle_filter(|x| level(x, y), width, 286, crop_x + 31).round())
                .collect()
        })
        .collect();
    let mut worst = 0.0_f64;
    for y in (0..224).step_by(9) {
        for (x, column) in columns.iter().enumerate() {
            let expected = apply_triangle_filter(|y| column[y as usize], height, 256, y + 16);
            let got = f64::from(crop.bytes()[(y as usize * 224 + x) * 3]);
            worst = worst.max((expected - got).abs());
        }
    }
    assert!(worst <= 1.6, "{worst} levels");
}

#[test]
fn crops_of_the_sample_images_match_the_reference_crops() {
    for name in ["chelsea", "coffee", "rocket"] {
        let read = |file: String| {
            std::fs::read(format!("{}/../samples/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap()
        };
        let crop = decode_crop(&read(format!("{name}.jpg"))).unwrap();
        let reference = image::load_from_memory(&read(format!("{name}_224.png"))).unwrap().into_rgb8();
        // The reference crops were made from the images before their JPEG compression. The compression
        // changes a value by up to 4 levels on average. A wrong geometry changes a value by 14 or more.
        let sum: u32 =
            crop.bytes().iter().zip(reference.as_raw()).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
        let average = f64::from(sum) / f64::from(224 * 224 * 3);
        assert!(average < 4.5, "{name}: {average} levels");
    }
}

#[test]
fn transparent_pixels_are_blended_with_white() {
    let picture = image::RgbaImage::from_fn(256, 256, |x, _| {
        image::Rgba(if x < 128 { [255, 0, 0, 0] } else { [0, 0, 0, 128] })
    });
    let crop = decode_crop(&encode_png(&picture.into())).unwrap();
    assert_eq!(crop.bytes()[..3], [255; 3]);
    assert_eq!(crop.bytes()[223 * 3..224 * 3], [127; 3]);
}

#[test]
fn grey_images_of_8_and_16_bits_give_the_same_crop() {
    let grey = image::DynamicImage::from(draw_gradient(256, 256)).into_luma8();
    let eight = decode_crop(&encode_png(&grey.clone().into())).unwrap();
    let sixteen = decode_crop(&encode_png(&DynamicImage::from(grey).into_luma16().into())).unwrap();
    assert_eq!(eight, sixteen);
    assert!(eight.bytes().as_chunks::<3>().0.iter().all(|[r, g, b]| r == g && g == b));
}

/// Colours of the quarters of an upright image, row by row.
const QUARTER_COLOURS: [[u8; 3]; 4] = [[200, 30, 40], [30, 180, 60], [40, 60, 200], [220, 210, 50]];

/// Draws an image with a different colour in each quarter, which the EXIF orientation turns upright.
fn draw_quarters(orientation: u8) -> RgbImage {
    let upright = RgbImage::from_fn(40, 32, |x, y| {
        Rgb(QUARTER_COLOURS[usize::from(x >= 20) + 2 * usize::from(y >= 16)])
    });
    // The two rotations by 90 degrees are the inverse of each other. Every other orientation inverts itself.
    let inverse = match orientation {
        6 => 8,
        8 => 6,
        other => other,
    };
    let mut picture = DynamicImage::from(upright);
    picture.apply_orientation(Orientation::from_exif(inverse).unwrap());
    picture.into_rgb8()
}

/// Returns true if the colours at the centres of the crop's quarters are those of an upright image.
fn has_upright_quarters(bytes: &[u8], geometry: Geometry) -> bool {
    let crop = crop(bytes, &ImageHeader::read(bytes, &LIMITS).unwrap(), geometry).unwrap();
    let side = geometry.crop.width;
    let crop = RgbImage::from_raw(side, side, crop.bytes().to_vec()).unwrap();
    let centres = [(1, 1), (3, 1), (1, 3), (3, 3)].map(|(x, y)| crop.get_pixel(side * x / 4, side * y / 4).0);
    largest_difference(centres.as_flattened(), QUARTER_COLOURS.as_flattened()) <= 12
}

/// Geometry for small images.
const SMALL_GEOMETRY: Geometry = square_geometry(32, 28);

fn encode_jpeg(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 95).encode_image(picture).unwrap();
    bytes
}

/// Inserts `segments` at the start of a JPEG, after the marker SOI.
fn insert_segments(jpeg: &[u8], segments: &[u8]) -> Vec<u8> {
    [&jpeg[..2], segments, &jpeg[2..]].concat()
}

fn encode_rgb_png(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = PngEncoder::new(&mut bytes);
    encoder.write_image(picture, picture.width(), picture.height(), ExtendedColorType::Rgb8).unwrap();
    bytes
}

fn encode_png_with_exif(picture: &RgbImage, block: &[u8]) -> Vec<u8> {
    png_with_first_chunks(&encode_rgb_png(picture), &png_chunk(b"eXIf", block))
}

#[test]
fn image_is_turned_upright_however_its_orientation_is_stored() {
    for orientation in 1..=8 {
        let picture = draw_quarters(orientation);
        let jpeg = encode_jpeg(&picture);
        let without_orientation = has_upright_quarters(&jpeg, SMALL_GEOMETRY);
        assert_eq!(without_orientation, orientation == 1, "the test must detect a missing turn");
        for (byte_order, value_type) in
            ByteOrder::ALL.into_iter().flat_map(|order| [BYTE, SHORT, LONG].map(|kind| (order, kind)))
        {
            let block = exif(orientation, byte_order, value_type);
            for prefix in [&b""[..], b"Exif\0\0"] {
                let block = [prefix, &block].concat();
                let description = format!("orientation {orientation}, {block:x?}");
                let jpeg = jpeg_with_exif(&jpeg, &block);
                assert!(has_upright_quarters(&jpeg, SMALL_GEOMETRY), "JPEG, {description}");
                let png = encode_png_with_exif(&picture, &block);
                assert!(has_upright_quarters(&png, SMALL_GEOMETRY), "PNG, {description}");
            }
        }
    }
}

#[test]
fn jpeg_with_an_orientation_of_type_long_is_turned_upright() {
    let path = "../preprocess/tests/it/data/jpeg_orientation_long.jpg";
    let file = std::fs::read(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    assert!(has_upright_quarters(&file, GEOMETRY));
}

#[test]
fn first_exif_segment_of_a_jpeg_counts() {
    let [first, second] = [6, 3].map(|orientation| exif(orientation, ByteOrder::LittleEndian, SHORT));
    let jpeg = jpeg_with_exif(&jpeg_with_exif(&encode_jpeg(&draw_quarters(6)), &second), &first);
    assert!(has_upright_quarters(&jpeg, SMALL_GEOMETRY));
}

#[test]
fn png_is_turned_upright_if_its_exif_comes_after_the_pixels() {
    let [right, wrong] =
        [6, 3].map(|orientation| png_chunk(b"eXIf", &exif(orientation, ByteOrder::LittleEndian, SHORT)));
    let png = png_with_last_chunks(&encode_rgb_png(&draw_quarters(6)), &right);
    assert!(has_upright_quarters(&png, SMALL_GEOMETRY));
    assert!(has_upright_quarters(&png_with_last_chunks(&png, &wrong), SMALL_GEOMETRY), "two chunks");
}

#[test]
fn image_whose_orientation_only_xmp_states_is_turned_upright() {
    for orientation in 1..=8 {
        let picture = draw_quarters(orientation);
        let (jpeg, png) = (encode_jpeg(&picture), encode_rgb_png(&picture));
        for packet in xmp_packets(orientation) {
            let description = packet.escape_ascii();
            let jpeg = jpeg_with_xmp(&jpeg, &packet);
            assert!(has_upright_quarters(&jpeg, SMALL_GEOMETRY), "JPEG, {description}");
            for chunk in [false, true].map(|is_compressed| png_xmp_chunk(&packet, is_compressed)) {
                let first = png_with_first_chunks(&png, &chunk);
                assert!(has_upright_quarters(&first, SMALL_GEOMETRY), "PNG, {description}");
                let last = png_with_last_chunks(&png, &chunk);
                assert!(has_upright_quarters(&last, SMALL_GEOMETRY), "PNG, after the pixels, {description}");
            }
        }
    }
}

#[test]
fn orientation_in_exif_counts_instead_of_the_one_in_xmp() {
    let picture = draw_quarters(6);
    let block = exif(6, ByteOrder::LittleEndian, SHORT);
    let [packet, _] = xmp_packets(3);
    let jpeg = jpeg_with_xmp(&jpeg_with_exif(&encode_jpeg(&picture), &block), &packet);
    assert!(has_upright_quarters(&jpeg, SMALL_GEOMETRY), "JPEG");
    let png = png_with_first_chunks(&encode_rgb_png(&picture), &png_xmp_chunk(&packet, false));
    let png = png_with_last_chunks(&png, &png_chunk(b"eXIf", &block));
    assert!(has_upright_quarters(&png, SMALL_GEOMETRY), "PNG");
}

#[test]
fn jpeg_with_malformed_segments_is_turned_upright() {
    let with_stray_byte = insert_segments(&encode_jpeg(&draw_quarters(6)), &[0]);
    let jpeg = jpeg_with_exif(&with_stray_byte, &exif(6, ByteOrder::LittleEndian, SHORT));
    assert!(has_upright_quarters(&jpeg, SMALL_GEOMETRY));
}

#[test]
fn invalid_orientation_is_ignored() {
    let picture = draw_quarters(1);
    for orientation in [0, 9, 255] {
        let block = exif(orientation, ByteOrder::BigEndian, SHORT);
        let jpeg = jpeg_with_exif(&encode_jpeg(&picture), &block);
        assert!(has_upright_quarters(&jpeg, SMALL_GEOMETRY), "JPEG, {orientation}");
        assert!(
            has_upright_quarters(&encode_png_with_exif(&picture, &block), SMALL_GEOMETRY),
            "PNG, {orientation}"
        );
    }
}

/// Encodes a gradient of 300×256 pixels.
fn encode_gradient_as_jpeg(is_progressive: bool) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut file, 95);
    encoder.set_progressive(is_progressive);
    encoder.encode(draw_gradient(300, 256).as_raw(), 300, 256, jpeg_encoder::ColorType::Rgb).unwrap();
    file
}

#[test]
fn progressive_jpeg_has_the_crop_of_the_same_coefficients_in_a_baseline_jpeg() {
    let [baseline, progressive] = [false, true].map(encode_gradient_as_jpeg);
    let expected = decode_crop(&baseline).unwrap();
    assert_eq!(decode_crop(&progressive).unwrap(), expected);
    // The end marker may be missing, but no data may be.
    assert_eq!(decode_crop(&progressive[..progressive.len() - 2]).unwrap(), expected);
    for length in [progressive.len() / 2, progressive.len() - 20] {
        for end in [&b""[..], b"\xFF\xD9"] {
            let refused = decode_crop(&[&progressive[..length], end].concat());
            assert!(matches!(refused, Err(ImageError::NotAnImage(_))), "{length}");
        }
    }
}

#[test]
fn image_with_too_many_pixels_is_refused_before_decoding() {
    // The file has only a signature and an IHDR, so there are no pixels to decode.
    let mut header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    header.extend([0, 0, 0x4e, 0x20, 0, 0, 0x4e, 0x20, 8, 2, 0, 0, 0]);
    let error = ImageHeader::read(&header, &LIMITS).unwrap_err();
    assert!(
        matches!(error, ImageError::TooManyPixels { pixels: 400_000_000, limit: PIXEL_LIMIT }),
        "{error}"
    );

    let picture = encode_png(&draw_gradient(20, 10).into());
    let read = |max_pixels| ImageHeader::read(&picture, &ImageLimits { max_pixels, ..LIMITS });
    assert!(matches!(read(199), Err(ImageError::TooManyPixels { pixels: 200, .. })));
    assert_eq!(read(200).unwrap().pixels(), 200);
}

#[test]
fn jpeg_with_more_scans_than_the_limit_is_refused_and_memory_is_reserved_for_the_scans_of_the_limit() {
    let file = encode_gradient_as_jpeg(true);
    let is_scan = |segment: &Segment<'_>| segment.marker == Segment::SOS;
    let scan_count = u32::try_from(Segments::new(&file).filter(is_scan).count()).unwrap();
    let read = |max_scans| ImageHeader::read(&file, &ImageLimits { max_scans, ..LIMITS }).unwrap();
    let (at_limit, above_limit) = (read(scan_count), read(scan_count - 1));
    assert!(crop(&file, &at_limit, GEOMETRY).is_ok());
    assert!(matches!(crop(&file, &above_limit, GEOMETRY), Err(ImageError::NotAnImage(_))));
    assert_eq!(
        at_limit.max_crop_bytes(GEOMETRY) - above_limit.max_crop_bytes(GEOMETRY),
        jpeg_scaled::MAX_TABLE_BYTES_PER_SCAN
    );
}

#[test]
fn corrupt_image_and_unsupported_format_are_different_errors() {
    let not_an_image = |bytes: &[u8]| matches!(decode_crop(bytes), Err(ImageError::NotAnImage(_)));
    assert!(not_an_image(b""));
    assert!(not_an_image(b"hello"));
    assert!(not_an_image(b"\x89PNG\r\n\x1a\n"));
    assert!(not_an_image(b"\xff\xd8\xff\xe0"));
    let whole = encode_png(&draw_gradient(64, 64).into());
    assert!(not_an_image(&whole[..whole.len() / 2]));
    assert!(matches!(decode_crop(b"GIF89a\x01\0\x01\0\0\0\0"), Err(ImageError::UnsupportedFormat("gif"))));
    assert!(matches!(decode_crop(b"RIFF\0\0\0\0WEBPVP8 "), Err(ImageError::UnsupportedFormat("webp"))));
}

#[test]
fn truncated_jpeg_is_refused_and_malformed_segments_are_tolerated() {
    let whole = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/coffee.jpg")).unwrap();
    let (width, height) = image::load_from_memory(&whole).unwrap().into_rgb8().dimensions();
    let pixels = u64::from(width) * u64::from(height);
    assert_eq!(ImageHeader::read(&whole, &LIMITS).unwrap().pixels(), pixels);
    // `image` decodes a truncated file and fills the missing part with grey.
    let cut = &whole[..whole.len() / 2];
    assert!(image::load_from_memory(cut).is_ok());
    assert!(matches!(decode_crop(cut), Err(ImageError::NotAnImage(_))));
    // There is a stray byte between two segments.
    let end_of_first = 4 + usize::from(u16::from_be_bytes([whole[4], whole[5]]));
    let malformed = [&whole[..end_of_first], &[0], &whole[end_of_first..]].concat();
    assert_eq!(ImageHeader::read(&malformed, &LIMITS).unwrap().pixels(), pixels);
}

#[test]
fn crop_is_none_if_the_number_of_bytes_is_wrong() {
    let shape = CropShape { height: 1, width: 4, channels: ChannelOrder::Rgb };
    assert!(Crop::new(vec![0; 12], shape).is_some());
    assert!(Crop::new(vec![0; 11], shape).is_none());
    assert!(Crop::new(vec![0; 4], CropShape { channels: ChannelOrder::Grey, ..shape }).is_some());
}

#[test]
fn png_with_a_width_of_0_is_refused() {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes).write_image(&[0; 3], 1, 1, ExtendedColorType::Rgb8).unwrap();
    // These bytes are the width in the chunk IHDR.
    bytes[16..20].fill(0);
    assert!(matches!(ImageHeader::read(&bytes, &LIMITS), Err(ImageError::NotAnImage(_))));
}
