//! Tests of headers, of the costs that are computed from a header, and of uploads that are refused because of
//! their header.

use image::{ImageFormat, Rgb, RgbImage, RgbaImage};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use preprocess::image::{
    Coding, ImageError, JpegHeader, JpegProcess, Limits, ProcessingPlan, Recipe, inspect, process,
};

use crate::{
    hand_made::{png_header_only, png_with_chunk},
    support::read_sample,
    test_image::{encode, recipe, test_image},
};

/// Encodes the test image as a 4:2:0 JPEG.
fn encode_jpeg(progressive: bool, colour: ColorType) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 90);
    encoder.set_progressive(progressive);
    encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
    let channels = if colour == ColorType::Luma { 1 } else { 3 };
    encoder.encode(&test_image().as_raw()[..400 * 300 * channels], 400, 300, colour).unwrap();
    file
}

fn jpeg_header(file: &[u8]) -> JpegHeader {
    match inspect(file, &recipe().limits).unwrap().coding {
        Coding::Jpeg(jpeg) => jpeg,
        other => panic!("{other:?}"),
    }
}

/// Returns the offset of the first segment with this marker.
fn find_marker(file: &[u8], marker: u8) -> usize {
    file.windows(2).position(|pair| pair == [0xFF, marker]).unwrap()
}

/// Replaces the size in the frame header, whose marker is `frame_marker`.
fn with_size(mut file: Vec<u8>, frame_marker: u8, (width, height): (u16, u16)) -> Vec<u8> {
    let frame_offset = find_marker(&file, frame_marker);
    file[frame_offset + 5..frame_offset + 7].copy_from_slice(&height.to_be_bytes());
    file[frame_offset + 7..frame_offset + 9].copy_from_slice(&width.to_be_bytes());
    file
}

/// Repeats the last scan until the file has `scan_count` scans.
fn with_scan_count(mut file: Vec<u8>, scan_count: u32) -> Vec<u8> {
    let scan_offset = file.windows(2).rposition(|pair| pair == [0xFF, 0xDA]).unwrap();
    let end_marker_offset = file.len() - 2;
    let scan = file[scan_offset..end_marker_offset].to_vec();
    for _ in jpeg_header(&file).scan_count..scan_count {
        file.splice(end_marker_offset..end_marker_offset, scan.iter().copied());
    }
    file
}

#[test]
fn header_of_a_long_upload_or_with_a_compressed_profile_is_not_cheap() {
    let png = encode(RgbImage::new(8, 8), ImageFormat::Png);
    let is_cheap =
        |chunk| ProcessingPlan::is_cheap(&png_with_chunk(&RgbImage::new(8, 8), chunk, b"name\0\0profile"));
    assert!(ProcessingPlan::is_cheap(&png) && is_cheap(b"tEXt"));
    assert!(!is_cheap(b"iCCP"));
    assert!(!ProcessingPlan::is_cheap(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"));
    assert!(!ProcessingPlan::is_cheap(&[png, vec![0; 64 << 10]].concat()));
}

fn cost_in_bytes(file: &[u8]) -> u64 {
    ProcessingPlan::new(file, &recipe()).unwrap().cost().bytes
}

/// Processes a file that must be refused, and returns the kind of the error.
fn error_kind(file: &[u8], recipe: &Recipe) -> &'static str {
    process(file, recipe).unwrap_err().kind()
}

#[test]
fn jpeg_header_has_the_coding_process_components_and_scans_of_the_file() {
    let baseline = jpeg_header(&encode_jpeg(false, ColorType::Rgb));
    assert_eq!(
        (baseline.process, baseline.component_count, baseline.scan_count),
        (JpegProcess::Baseline, 3, 1)
    );
    assert!(baseline.is_complete);
    let progressive = jpeg_header(&encode_jpeg(true, ColorType::Rgb));
    assert_eq!((progressive.process, progressive.component_count), (JpegProcess::Progressive, 3));
    assert!(progressive.scan_count > 3, "{}", progressive.scan_count);
    assert_eq!(jpeg_header(&encode_jpeg(false, ColorType::Luma)).component_count, 1);
    assert_eq!(jpeg_header(&read_sample("chelsea.jpg")).process, JpegProcess::Baseline);

    // Unknown bytes between segments are skipped.
    let mut with_unknown_bytes = encode_jpeg(false, ColorType::Rgb);
    let tables_offset = find_marker(&with_unknown_bytes, 0xDB);
    with_unknown_bytes.splice(tables_offset..tables_offset, [0, 0, 0]);
    let JpegHeader { process: coding_process, component_count, scan_count, is_complete } =
        jpeg_header(&with_unknown_bytes);
    assert_eq!(
        (coding_process, component_count, scan_count, is_complete),
        (JpegProcess::Baseline, 3, 1, true)
    );
    process(&with_unknown_bytes, &recipe()).unwrap();
}

#[test]
fn png_and_webp_headers_say_if_the_file_has_alpha_or_an_animation() {
    let alpha_and_animation = |file: &[u8]| match inspect(file, &recipe().limits).unwrap().coding {
        Coding::Png(png) => (png.has_alpha, png.is_animated),
        Coding::WebP(webp) => (webp.has_alpha, webp.is_animated),
        other => panic!("{other:?}"),
    };
    for format in [ImageFormat::Png, ImageFormat::WebP] {
        assert_eq!(alpha_and_animation(&encode(test_image(), format)), (false, false), "{format:?}");
        assert_eq!(alpha_and_animation(&encode(RgbaImage::new(40, 30), format)), (true, false), "{format:?}");
    }
}

#[test]
fn only_baseline_jpeg_may_exceed_max_pixels_other() {
    let large = (7000, 5000);
    let baseline = with_size(encode_jpeg(false, ColorType::Rgb), 0xC0, large);
    assert_eq!(inspect(&baseline, &recipe().limits).unwrap().pixel_count(), 35_000_000);
    let progressive = with_size(encode_jpeg(true, ColorType::Rgb), 0xC2, large);
    assert_eq!(error_kind(&progressive, &recipe()), "too_many_pixels");
    assert_eq!(error_kind(&png_header_only(7000, 5000), &recipe()), "too_many_pixels");
    // `max_pixels` also limits the other formats if it is lower than `max_pixels_other`.
    let limits = Limits { max_pixels: 1000, ..recipe().limits };
    let refused = inspect(&png_header_only(100, 100), &limits).unwrap_err();
    assert!(matches!(refused, ImageError::TooManyPixels { limit: 1000, .. }), "{refused:?}");
}

#[test]
fn jpeg_above_the_scan_limit_is_refused_by_its_header() {
    let limits = recipe().limits;
    let at_limit = with_scan_count(encode_jpeg(true, ColorType::Rgb), limits.max_scans);
    assert_eq!(jpeg_header(&at_limit).scan_count, limits.max_scans);
    let above_limit = with_scan_count(encode_jpeg(true, ColorType::Rgb), limits.max_scans + 1);
    assert_eq!(error_kind(&above_limit, &recipe()), "too_many_scans");
    // The file has many more scans than the limit. Counting stops as soon as the limit is exceeded.
    let bomb = with_scan_count(with_size(encode_jpeg(true, ColorType::Rgb), 0xC2, (4000, 4000)), 2000);
    assert_eq!(error_kind(&bomb, &recipe()), "too_many_scans");
}

#[test]
fn jpeg_with_two_frame_headers_is_refused_as_corrupt() {
    let mut file = encode_jpeg(false, ColorType::Rgb);
    let offset = find_marker(&file, 0xC0);
    let length = usize::from(u16::from_be_bytes([file[offset + 2], file[offset + 3]])) + 2;
    let frame_header = file[offset..offset + length].to_vec();
    file.splice(offset..offset, frame_header);
    assert_eq!(error_kind(&file, &recipe()), "corrupt_image");
}

#[test]
fn webp_with_contradictory_sizes_is_refused_as_corrupt() {
    let simple_file = encode(test_image(), ImageFormat::WebP);
    // Writes a file in the extended format, which states the size of the image a second time.
    let extended_file = |width: u32, height: u32| {
        let mut file = b"RIFF\0\0\0\0WEBPVP8X\x0A\0\0\0\0\0\0\0".to_vec();
        file.extend(&(width - 1).to_le_bytes()[..3]);
        file.extend(&(height - 1).to_le_bytes()[..3]);
        file.extend(&simple_file[12..]);
        let length = u32::try_from(file.len() - 8).unwrap();
        file[4..8].copy_from_slice(&length.to_le_bytes());
        file
    };
    process(&extended_file(400, 300), &recipe()).unwrap();
    assert_eq!(error_kind(&extended_file(10, 10), &recipe()), "corrupt_image");
    assert_eq!(error_kind(&extended_file(401, 300), &recipe()), "corrupt_image");
}

#[test]
fn progressive_jpeg_costs_little_more_than_a_baseline_jpeg() {
    let baseline = cost_in_bytes(&with_size(encode_jpeg(false, ColorType::Rgb), 0xC0, (4000, 3000)));
    let progressive = cost_in_bytes(&with_size(encode_jpeg(true, ColorType::Rgb), 0xC2, (4000, 3000)));
    // The decoder keeps one row of MCUs, and tables for each scan.
    assert!(progressive < baseline + 2_000_000, "baseline {baseline}, progressive {progressive}");
    assert!(baseline < 20_000_000, "{baseline}");
    // The decoded pixels of the PNG have three bytes each.
    let png = cost_in_bytes(&png_header_only(4000, 3000));
    assert!((36_000_000..60_000_000).contains(&png), "{png}");
}

#[test]
fn image_that_costs_more_than_the_memory_limit_is_refused() {
    let mut recipe = recipe();
    let file = encode(RgbImage::from_pixel(1000, 1000, Rgb([1, 2, 3])), ImageFormat::Png);
    let bytes = ProcessingPlan::new(&file, &recipe).unwrap().cost().bytes;
    recipe.limits.max_processing_bytes = bytes;
    process(&file, &recipe).unwrap();
    recipe.limits.max_processing_bytes = bytes - 1;
    match process(&file, &recipe) {
        Err(ImageError::ExceedsMemoryLimit { bytes: found, limit }) => {
            assert_eq!((found, limit), (bytes, bytes - 1));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(error_kind(&file, &recipe), "too_much_memory");
}
