//! Tests of TIFFs whose strips or tiles are JPEGs.

use image::{DynamicImage, RgbImage};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use preprocess::image::{ProcessingPlan, process};

use super::{IS_YCBCR, SIZE, assert_refused};
use crate::{
    test_image::{COLOURS, assert_quarters, recipe, test_image},
    tiff_file::{COMPRESSION, ROWS_PER_STRIP, Tiff},
};

/// The compression of a JPEG in each strip or tile.
const JPEG: u16 = 7;

/// Encodes an image as a JPEG with chroma of half the resolution.
fn encode_jpeg(image: &RgbImage, is_progressive: bool) -> Vec<u8> {
    let mut jpeg = Vec::new();
    let mut encoder = Encoder::new(&mut jpeg, 95);
    encoder.set_progressive(is_progressive);
    encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
    let [width, height] = [image.width(), image.height()].map(|side| u16::try_from(side).unwrap());
    encoder.encode(image.as_raw(), width, height, ColorType::Rgb).unwrap();
    jpeg
}

/// Returns a file with these JPEGs in its strips of `rows` rows, or in its tiles.
fn tiff_of_jpegs(chunks: Vec<Vec<u8>>, rows: u16, tile_size: Option<(usize, usize)>) -> Tiff {
    Tiff {
        is_big_endian: false,
        size: SIZE,
        photometric: IS_YCBCR,
        bits: 8,
        samples_per_pixel: 3,
        entries: vec![(COMPRESSION, vec![JPEG]), (ROWS_PER_STRIP, vec![rows])],
        chunks,
        tile_size,
    }
}

#[test]
fn jpegs_in_strips_and_tiles_are_decoded() {
    let image = test_image();
    let part = |left: u32, top: u32, width: u32, height: u32| {
        // Black pixels fill the tiles at the right and at the bottom.
        let mut part = RgbImage::new(width, height);
        image::imageops::replace(&mut part, &image, -i64::from(left), -i64::from(top));
        encode_jpeg(&part, false)
    };
    assert_quarters(&tiff_of_jpegs(vec![part(0, 0, 400, 300)], 300, None).write(), COLOURS, "one strip");
    let strips = (0..300).step_by(64).map(|top| part(0, top, 400, 64.min(300 - top))).collect();
    assert_quarters(&tiff_of_jpegs(strips, 64, None).write(), COLOURS, "strips");
    // The JPEG of the last strip has as many rows as the others.
    let strips = (0..300).step_by(64).map(|top| part(0, top, 400, 64)).collect();
    assert_quarters(&tiff_of_jpegs(strips, 64, None).write(), COLOURS, "strips of the same height");
    let corners = (0..300).step_by(128).flat_map(|top| (0..400).step_by(128).map(move |left| (left, top)));
    let tiles = corners.map(|(left, top)| part(left, top, 128, 128)).collect();
    assert_quarters(&tiff_of_jpegs(tiles, 128, Some((128, 128))).write(), COLOURS, "tiles");
}

#[test]
fn jpegs_of_another_size_or_of_a_rare_kind_are_refused() {
    let jpeg = encode_jpeg(&test_image(), false);
    let with_jpeg = |jpeg: Vec<u8>| tiff_of_jpegs(vec![jpeg], 300, None);
    let wider = DynamicImage::from(test_image()).resize_exact(401, 300, image::imageops::Nearest).into_rgb8();
    assert_refused(&with_jpeg(encode_jpeg(&wider, false)), "corrupt_image", "wider");
    let lower = DynamicImage::from(test_image()).crop_imm(0, 0, 400, 200).into_rgb8();
    assert_refused(&with_jpeg(encode_jpeg(&lower, false)), "corrupt_image", "lower");
    assert_refused(&with_jpeg(jpeg[..jpeg.len() - 2].to_vec()), "corrupt_image", "no end");
    assert_refused(&with_jpeg(jpeg[..100].to_vec()), "corrupt_image", "no pixels");
    assert_refused(&with_jpeg(Vec::new()), "corrupt_image", "empty");
    assert_refused(&with_jpeg(encode_jpeg(&test_image(), true)), "unsupported_format", "progressive");
    let grey_with_alpha = process(include_bytes!("../data/tiff_jpeg_grey_alpha.tif"), &recipe()).unwrap_err();
    assert_eq!(grey_with_alpha.kind(), "unsupported_format", "two components: {grey_with_alpha:?}");
    let mut deep = with_jpeg(jpeg);
    deep.bits = 16;
    assert_refused(&deep, "unsupported_format", "16 bits");
}

#[test]
fn cost_of_a_jpeg_in_a_tile_counts_the_whole_tile() {
    let cost = |tile_size| {
        let file = tiff_of_jpegs(vec![Vec::new()], 300, tile_size);
        ProcessingPlan::new(&file.write(), &recipe()).unwrap().cost().bytes
    };
    assert!(cost(Some((4096, 4096))) >= cost(None) + 3 * (4096 * 4096 - 400 * 300));
}
