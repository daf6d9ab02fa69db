//! Tests of AVIF files, which libavif and libaom wrote.

use preprocess::{
    Settings,
    image::{Format, inspect, process},
};

use crate::{
    support::{TestApp, read_problem, read_sample},
    test_image::{COLOURS_OF_FILES, assert_near, assert_processed, decode, quarter_colours, recipe},
};

/// Size of the small pictures.
const SIZE: (u32, u32) = (160, 120);

#[test]
fn every_subsampling_depth_and_range_gives_the_same_colours() {
    for (file, description) in [
        (&include_bytes!("data/avif_444.avif")[..], "4:4:4"),
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
    ] {
        assert_processed(file, SIZE, COLOURS_OF_FILES, description);
    }
    assert_processed(include_bytes!("data/avif_odd_size.avif"), (161, 121), COLOURS_OF_FILES, "odd size");
}

#[test]
fn grey_picture_keeps_its_levels() {
    let levels = [10, 90, 170, 250].map(|level| [level; 3]);
    assert_processed(include_bytes!("data/avif_grey.avif"), SIZE, levels, "grey");
    assert_processed(include_bytes!("data/avif_grey_limited.avif"), SIZE, levels, "grey, limited range");
}

#[test]
fn transparent_pixels_are_drawn_on_white() {
    // The quarters have the opacities 255, 64, 128 and 0.
    let expected = [[200, 30, 40], [199, 236, 206], [147, 157, 227], [255, 255, 255]];
    assert_processed(include_bytes!("data/avif_alpha.avif"), SIZE, expected, "separate alpha");
    assert_processed(include_bytes!("data/avif_premultiplied.avif"), SIZE, expected, "multiplied alpha");
}

#[test]
fn display_p3_is_converted_to_srgb() {
    assert_processed(include_bytes!("data/avif_p3_profile.avif"), SIZE, COLOURS_OF_FILES, "ICC profile");
    assert_processed(include_bytes!("data/avif_p3_nclx.avif"), SIZE, COLOURS_OF_FILES, "nclx");
}

#[test]
fn picture_is_turned_once_although_its_exif_states_the_orientation_too() {
    for (orientation, file) in [
        (2, &include_bytes!("data/avif_orientation_2.avif")[..]),
        (3, include_bytes!("data/avif_orientation_3.avif")),
        (4, include_bytes!("data/avif_orientation_4.avif")),
        (5, include_bytes!("data/avif_orientation_5.avif")),
        (6, include_bytes!("data/avif_orientation_6.avif")),
        (7, include_bytes!("data/avif_orientation_7.avif")),
        (8, include_bytes!("data/avif_orientation_8.avif")),
    ] {
        assert_processed(file, SIZE, COLOURS_OF_FILES, &format!("orientation {orientation}"));
    }
}

#[test]
fn photo_equals_the_jpeg_that_it_was_made_from() {
    let expected = quarter_colours(&decode(&process(&read_sample("coffee.jpg"), &recipe()).unwrap()));
    let processed = process(include_bytes!("data/avif_8bit.avif"), &recipe()).unwrap();
    assert_eq!((processed.width, processed.height), (384, 256));
    for (found, expected) in quarter_colours(&decode(&processed)).into_iter().zip(expected) {
        assert_near(found, expected, "photo");
    }
}

#[test]
fn avif_is_recognised_by_any_of_its_brands() {
    let mut file = include_bytes!("data/avif_444.avif").to_vec();
    assert_eq!(inspect(&file, &recipe().limits).unwrap().format(), Format::Avif);
    // The first brand may be one of all formats with these boxes.
    file[8..12].copy_from_slice(b"mif1");
    assert_eq!(inspect(&file, &recipe().limits).unwrap().format(), Format::Avif);
    assert_processed(&file, SIZE, COLOURS_OF_FILES, "with the first brand `mif1`");
}

#[test]
fn unsupported_kind_of_avif_is_named() {
    for (file, name) in [
        (&include_bytes!("data/avif_pq.avif")[..], "AVIF with the HDR transfer function PQ"),
        (include_bytes!("data/avif_grid.avif"), "A grid in AVIF"),
    ] {
        let error = process(file, &recipe()).unwrap_err();
        assert_eq!(error.kind(), "unsupported_format", "{error:?}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[tokio::test]
async fn refused_avif_has_a_status_and_a_reason() {
    let app = TestApp::start(Settings::default()).await;
    let grid = &include_bytes!("data/avif_grid.avif")[..];
    let (status, problem) = read_problem(app.post("image/avif", grid).await).await;
    assert_eq!(status, 415);
    assert!(problem["detail"].as_str().unwrap().contains("A grid in AVIF is not accepted"), "{problem}");
    // The box `ispe` states 600×400 pixels.
    let large = &include_bytes!("data/avif_100_megapixels.avif")[..];
    let (status, problem) = read_problem(app.post("image/avif", large).await).await;
    assert_eq!((status, problem["kind"].as_str()), (413, Some("too_many_pixels")));
}
