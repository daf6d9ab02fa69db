//! Tests of AVIF files, which libavif and libaom wrote.

use preprocess::{
    Settings,
    image::{Format, ProcessingPlan, inspect},
};

use crate::{
    heif_files::{
        SIZE, assert_colours, assert_drawn_on_white, assert_equals_photo, assert_grey_levels,
        assert_too_many_pixels, assert_unsupported, assert_upright,
    },
    support::{TestApp, read_problem},
    test_image::{COLOURS_OF_FILES, assert_processed, recipe},
};

#[test]
fn every_subsampling_depth_and_range_gives_the_same_colours() {
    assert_colours(&[
        (include_bytes!("data/avif_444.avif"), "4:4:4"),
        (include_bytes!("data/avif_422.avif"), "4:2:2"),
        (include_bytes!("data/avif_420.avif"), "4:2:0"),
        (include_bytes!("data/avif_10_bit.avif"), "10 bits"),
        (include_bytes!("data/avif_12_bit_422.avif"), "12 bits, 4:2:2"),
        (include_bytes!("data/avif_limited_709.avif"), "limited range, BT.709"),
        (include_bytes!("data/avif_rgb.avif"), "RGB samples"),
        (include_bytes!("data/avif_64_tiles.avif"), "tiles of 64×64 inside the coded picture"),
        (include_bytes!("data/avif_film_grain.avif"), "with film grain"),
        (include_bytes!("data/avif_crop.avif"), "cropped by `clap`"),
        (include_bytes!("data/avif_sequence.avif"), "the first picture of a sequence"),
    ]);
    assert_processed(include_bytes!("data/avif_odd_size.avif"), (161, 121), COLOURS_OF_FILES, "odd size");
}

#[test]
fn grey_picture_keeps_its_levels() {
    assert_grey_levels(&[
        (include_bytes!("data/avif_grey.avif"), "grey"),
        (include_bytes!("data/avif_grey_limited.avif"), "grey, limited range"),
    ]);
}

#[test]
fn transparent_pixels_are_drawn_on_white() {
    assert_drawn_on_white(&[
        (include_bytes!("data/avif_alpha.avif"), "separate alpha"),
        (include_bytes!("data/avif_premultiplied.avif"), "multiplied alpha"),
    ]);
}

#[test]
fn display_p3_is_converted_to_srgb() {
    assert_colours(&[
        (include_bytes!("data/avif_p3_profile.avif"), "ICC profile"),
        (include_bytes!("data/avif_p3_nclx.avif"), "nclx"),
    ]);
}

#[test]
fn picture_is_turned_once_although_its_exif_states_the_orientation_too() {
    assert_upright([
        include_bytes!("data/avif_orientation_2.avif"),
        include_bytes!("data/avif_orientation_3.avif"),
        include_bytes!("data/avif_orientation_4.avif"),
        include_bytes!("data/avif_orientation_5.avif"),
        include_bytes!("data/avif_orientation_6.avif"),
        include_bytes!("data/avif_orientation_7.avif"),
        include_bytes!("data/avif_orientation_8.avif"),
    ]);
}

#[test]
fn photo_equals_the_jpeg_that_it_was_made_from() {
    assert_equals_photo(&[(include_bytes!("data/avif_8bit.avif"), "one picture")]);
}

/// Replaces the size that the boxes of a file state.
fn with_stated_size(file: &[u8], (width, height): (u32, u32)) -> Vec<u8> {
    let mut file = file.to_vec();
    let size = file.windows(4).position(|window| window == b"ispe").unwrap() + 8;
    file[size..size + 4].copy_from_slice(&width.to_be_bytes());
    file[size + 4..size + 8].copy_from_slice(&height.to_be_bytes());
    file
}

/// libavif does the same.
#[test]
fn picture_is_stretched_to_the_size_that_the_file_states() {
    let file = include_bytes!("data/avif_444.avif");
    for size in [(80, 60), (160, 100), (161, 121), (61, 123), (230, 40), (240, 250)] {
        let description = format!("{size:?}");
        assert_processed(&with_stated_size(file, size), size, COLOURS_OF_FILES, &description);
    }
    assert_processed(&with_stated_size(file, (1600, 1200)), (341, 256), COLOURS_OF_FILES, "enlarged");
    let alpha = with_stated_size(include_bytes!("data/avif_alpha.avif"), (80, 60));
    let white = [[200, 30, 40], [199, 236, 206], [147, 157, 227], [255, 255, 255]];
    assert_processed(&alpha, (80, 60), white, "with alpha");
}

#[test]
fn cost_includes_the_rows_above_the_stated_height() {
    let bytes = |file: &[u8]| ProcessingPlan::new(file, &recipe()).unwrap().cost().bytes;
    let file = include_bytes!("data/avif_444.avif");
    let [low, high] = [(150, 1), (150, 120)].map(|size| bytes(&with_stated_size(file, size)));
    // The three copies of the resized image and the encoder's six bytes per pixel shrink. The rest is the same.
    assert!(low >= high - 150 * 120 * (3 * 3 + 6), "{low} {high}");
    assert!(low > bytes(&with_stated_size(file, (15, 1))) + 135 * 119 * 3, "{low}");
}

#[test]
fn avif_is_recognised_by_any_of_its_brands() {
    let mut file = include_bytes!("data/avif_444.avif").to_vec();
    assert_eq!(inspect(&file, &recipe().limits).unwrap().format(), Format::Avif);
    // The first brand may be one of all formats with these boxes.
    file[8..12].copy_from_slice(b"mif1");
    assert_eq!(inspect(&file, &recipe().limits).unwrap().format(), Format::Avif);
    assert_processed(&file, SIZE, COLOURS_OF_FILES, "with the first brand `mif1`");
    file[8..32].copy_from_slice(b"MA1B\0\0\0\0mif1miafMA1BMA1B");
    assert_eq!(inspect(&file, &recipe().limits).unwrap().format(), Format::Avif);
}

#[test]
fn unsupported_kind_of_avif_is_named() {
    assert_unsupported(&[
        (include_bytes!("data/avif_pq.avif"), "AVIF with the HDR transfer function PQ"),
        (include_bytes!("data/avif_grid.avif"), "A grid in AVIF"),
    ]);
}

#[tokio::test]
async fn refused_avif_has_a_status_and_a_reason() {
    let app = TestApp::start(Settings::default()).await;
    let grid = &include_bytes!("data/avif_grid.avif")[..];
    let (status, problem) = read_problem(app.post("image/avif", grid).await).await;
    assert_eq!(status, 415);
    assert!(problem["detail"].as_str().unwrap().contains("A grid in AVIF is not accepted"), "{problem}");
    // The box `ispe` states 600×400 pixels.
    assert_too_many_pixels(&app, "image/avif", include_bytes!("data/avif_100_megapixels.avif")).await;
}
