//! Tests of HEIC files, which libheif wrote.

use preprocess::{
    Settings,
    image::{Format, Limits, ProcessingPlan, Recipe, inspect, process},
};

use crate::{
    heif_files::{
        SIZE, assert_colours, assert_drawn_on_white, assert_equals_photo, assert_grey_levels,
        assert_too_many_pixels, assert_unsupported, assert_upright,
    },
    support::TestApp,
    test_image::{COLOURS_OF_FILES, assert_processed, recipe},
};

#[test]
fn every_subsampling_depth_and_range_gives_the_same_colours() {
    assert_colours(&[
        (include_bytes!("data/heic_444.heic"), "4:4:4"),
        (include_bytes!("data/heic_422.heic"), "4:2:2"),
        (include_bytes!("data/heic_10_bit.heic"), "10 bits"),
        (include_bytes!("data/heic_12_bit_422.heic"), "12 bits, 4:2:2"),
        (include_bytes!("data/heic_limited_709.heic"), "limited range, BT.709"),
        (include_bytes!("data/heic_tiles_of_64.heic"), "tiles of 64×64"),
        (include_bytes!("data/heic_thumbnail.heic"), "with a thumbnail"),
        (include_bytes!("data/heic_second_picture.heic"), "the second of two pictures is the primary one"),
    ]);
    // The coded picture has one column and one row more, which are cropped.
    assert_processed(include_bytes!("data/heic_odd_size.heic"), (161, 121), COLOURS_OF_FILES, "odd size");
}

#[test]
fn grey_picture_keeps_its_levels() {
    assert_grey_levels(&[(include_bytes!("data/heic_grey.heic"), "grey")]);
}

#[test]
fn transparent_pixels_are_drawn_on_white() {
    assert_drawn_on_white(&[
        (include_bytes!("data/heic_alpha.heic"), "separate alpha"),
        (include_bytes!("data/heic_premultiplied.heic"), "multiplied alpha"),
        (include_bytes!("data/heic_sequence_alpha.heic"), "alpha track"),
    ]);
}

/// libheif does the same.
#[test]
fn alpha_channel_is_cropped_on_its_own_and_stretched_to_the_crop_of_the_colours() {
    let opaque_quarter: &[u8] = include_bytes!("data/heic_alpha_cropped.heic");
    assert_processed(opaque_quarter, SIZE, COLOURS_OF_FILES, "the alpha channel is cropped");
    let red = [[200, 30, 40], [241, 199, 201], [227, 142, 147], [255, 255, 255]];
    let red_quarter: &[u8] = include_bytes!("data/heic_alpha_of_crop.heic");
    assert_processed(red_quarter, (80, 60), red, "the colours are cropped");
    let both: &[u8] = include_bytes!("data/heic_alpha_both_cropped.heic");
    assert_processed(both, (80, 60), [[199, 236, 206]; 4], "both are cropped");
}

#[test]
fn video_is_refused_although_its_first_picture_could_be_decoded() {
    let mut video = include_bytes!("data/heic_sequence_alpha.heic").to_vec();
    // The main brand, its version, and the compatible brands.
    video[8..28].copy_from_slice(b"isom\0\0\0\0isommp42iso2");
    let error = process(&video, &recipe()).unwrap_err();
    assert_eq!(error.kind(), "unsupported_format", "{error:?}");
}

#[test]
fn display_p3_is_converted_to_srgb() {
    assert_colours(&[
        (include_bytes!("data/heic_p3_profile.heic"), "ICC profile"),
        (include_bytes!("data/heic_p3_nclx.heic"), "nclx"),
    ]);
}

#[test]
fn picture_is_turned_once_although_its_exif_states_the_orientation_too() {
    assert_upright([
        include_bytes!("data/heic_orientation_2.heic"),
        include_bytes!("data/heic_orientation_3.heic"),
        include_bytes!("data/heic_orientation_4.heic"),
        include_bytes!("data/heic_orientation_5.heic"),
        include_bytes!("data/heic_orientation_6_small.heic"),
        include_bytes!("data/heic_orientation_7.heic"),
        include_bytes!("data/heic_orientation_8.heic"),
    ]);
}

#[test]
fn photo_equals_the_jpeg_that_it_was_made_from() {
    assert_equals_photo(&[
        (include_bytes!("data/heic_8bit.heic"), "one picture"),
        (include_bytes!("data/heic_grid_tiles.heic"), "tiles of 256×256"),
        (include_bytes!("data/heic_orientation_6.heic"), "stored sideways"),
    ]);
}

#[test]
fn unsupported_kind_of_heic_is_named() {
    let mut jpeg = include_bytes!("data/heic_444.heic").to_vec();
    let item = jpeg.windows(4).position(|window| window == b"hvc1").unwrap();
    jpeg[item..item + 4].copy_from_slice(b"jpeg");
    assert_unsupported(&[(include_bytes!("data/heic_pq.heic"), "PQ"), (&jpeg, "codec `jpeg`")]);
}

#[test]
fn parts_may_have_three_times_the_pixels_of_the_limit() {
    let file = include_bytes!("data/heic_alpha.heic");
    // The picture and its alpha channel have 160×120 pixels each.
    let recipe_with = |max_pixels| Recipe { limits: Limits { max_pixels, ..recipe().limits }, ..recipe() };
    assert_eq!(inspect(file, &recipe_with(19_200).limits).unwrap().format(), Format::Heic);
    let tiles = include_bytes!("data/heic_15_tiles_of_16_mp.heic");
    let error = process(tiles, &recipe_with(80_000_000)).unwrap_err();
    assert_eq!(error.kind(), "too_many_pixels");
    assert!(error.to_string().contains("251658240 pixels"), "{error}");
}

#[test]
fn cost_of_tiles_is_less_than_the_cost_of_one_large_picture() {
    let bytes = |file| ProcessingPlan::new(file, &recipe()).unwrap().cost().bytes;
    let [tiles, whole] =
        [&include_bytes!("data/heic_grid_tiles.heic")[..], include_bytes!("data/heic_8bit.heic")].map(bytes);
    assert!(tiles < whole, "{tiles} {whole}");
}

#[tokio::test]
async fn small_file_with_too_many_coded_pixels_is_refused_with_413() {
    let app = TestApp::start(Settings::default()).await;
    assert_too_many_pixels(&app, "image/heic", include_bytes!("data/heic_15_tiles_of_16_mp.heic")).await;
}
